"""How far a long step has come: one line, in a file and on the screen."""

from pathlib import Path

from kdutils.runs import write_text


def show_progress(path: Path | str, done: int, total: int, line: str) -> None:
    """Write `line` to the file `path`, and print it over the line before; what follows the last one is a new line."""
    write_text(path, line + "\n")
    print(f"\r{line}", end="\n" if done == total else "", flush=True)
