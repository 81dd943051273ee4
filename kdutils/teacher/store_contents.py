"""What is in the store of completions, for a person: choose completions, print them, write them to a file."""

import json
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from kdutils.errors import StudyError, printable, short
from kdutils.runs import write_csv, write_text
from kdutils.teacher.completion import Completion
from kdutils.teacher.explaining import problem_of
from kdutils.teacher.store import Store

SHORTEST_KEY = 6  # characters of a key that are enough to name it


def choose(store: Store, keys: Iterable[str] = (), teacher: str = "", text: str = "",
           unusable: bool = False) -> list[dict]:
    """Return the completions (Store.rows) that fit all conditions, the oldest first, each with its `problem`.

    `keys`: beginnings of keys; StudyError for one that fits none. `teacher`: a part of the teacher's identity, such as
    the name of its model. `text`: a part of the prompt, the completion or the thinking. Letters' case does not count.
    `unusable`: those alone from which no explanation can be read.
    """
    keys, chosen, found = [key.casefold() for key in keys], [], set()
    if short_ones := [key for key in keys if len(key) < SHORTEST_KEY]:
        raise StudyError(f"{short(short_ones[0])}: give at least {SHORTEST_KEY} characters of a key")
    for row in store.rows():
        fitting = [key for key in keys if row["key"].startswith(key)]
        found |= set(fitting)
        done = Completion(row["completion"], row["finish_reason"], None, None, row["thinking"])
        row["problem"] = "" if row["kind"] in ("score", "first_tokens") else problem_of(done)  # no text to clean
        texts = "\n".join(row[name] for name in ("prompt", "completion", "thinking")).casefold()
        if ((fitting or not keys) and teacher.casefold() in json.dumps(row["teacher"], ensure_ascii=False).casefold()
                and text.casefold() in texts and (row["problem"] or not unusable)):
            chosen.append(row)
    if missing := [key for key in keys if key not in found]:
        raise StudyError(f"{short(missing[0])}: no completion has this key; `store list --text WORDS` finds one")
    return chosen


def summary_lines(store: Store) -> list[str]:
    """Return a line per teacher: how many completions it wrote, with how many tokens, and when."""
    return [f"{one['completions']:>7} completions, {one['prompt_tokens']:,} tokens read, {one['completion_tokens']:,} "
            f"written, {one['first'][:10]} to {one['last'][:10]}: {short(_teacher(one['teacher']), 200)}"
            for one in store.summary()]


def line_of(row: dict) -> str:
    """Return one completion in a line of at most 120 characters."""
    problem = f"[{row['problem']}] " if row["problem"] else ""
    return short(f"{row['key'][:12]}  {row['created'][:16]}  {problem}{row['completion']}", 120)


def describe(row: dict) -> str:
    """Return one completion in full."""
    tokens = " and ".join(f"{'?' if row[name] is None else row[name]} {what}" for name, what in (
        ("prompt_tokens", "read"), ("completion_tokens", "written")))
    parts = [("key", row["key"]), ("written", row["created"]), ("teacher", _teacher(row["teacher"])),
             ("decoding", json.dumps(row["decoding"], ensure_ascii=False)), ("tokens", tokens),
             ("ended", row["finish_reason"] + (f"; not usable: {row['problem']}" if row["problem"] else ""))]
    options = [(name, row["options"][name]) for name in ("against", "continuation") if name in row["options"]]
    texts = [("prompt", row["prompt"]), *options, ("thinking", row["thinking"]), ("completion", row["completion"])]
    lines = [f"{name}: {value}" for name, value in parts]
    return printable("\n".join([*lines, *(f"--- {name}\n{value}" for name, value in texts if value or
                                          name == "completion")]))


def export(rows: list[dict], path: Path) -> Path:
    """Write completions to `path`: JSON lines (.jsonl) or a table for spreadsheets (.csv); return the path."""
    if path.suffix == ".csv":
        flat = [{name: json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else value
                 for name, value in row.items()} for row in rows]
        return write_csv(path, pd.DataFrame(flat))
    if path.suffix != ".jsonl":
        raise StudyError(f"{short(str(path), 200)}: give a name that ends in .jsonl or .csv")
    return write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _teacher(identity):
    return ", ".join(f"{name} {value}" for name, value in identity.items() if value not in ("", None))
