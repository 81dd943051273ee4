"""What all benchmarks share: their command line, the machine and its clock, numbers of tables, training arguments."""

import argparse
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from kdutils.errors import StudyError
from kdutils.runs import git_revision, versions

if TYPE_CHECKING:
    from transformers import TrainingArguments


def command_line(name: str, about: str, smoke: str = "a tiny model, one step each: does it run",
                 files: str = "results.json") -> argparse.ArgumentParser:
    """Return the parser of the benchmark `name` with the options that all of them have.

    `about`: the docstring of its module. `smoke`: what --smoke runs. `files`: what it writes.
    """
    parser = argparse.ArgumentParser(prog=f"python -m kdutils.benchmarks.{name}", description=about.split("\n")[0])
    parser.add_argument("--smoke", action="store_true", help=smoke)
    parser.add_argument("--output", default=f"outputs/bench/{name}", help=f"folder for {files}")
    parser.add_argument("--threads", type=int, default=0,
                        help="of all that is compared (default: every core, or OMP_NUM_THREADS); with more threads "
                             "than free cores the times mean nothing")
    return parser


def exit_code(run: Callable[[], object]) -> int:
    """Run a benchmark; return its exit code, and print a StudyError as one line."""
    try:
        run()
    except StudyError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def conditions(about: dict) -> dict:
    """Return what results.json of a benchmark says beside its numbers: machine (`about`), versions, commit and date.

    It is asked before anything is measured: the code may change meanwhile.
    """
    return {"machine": about, "versions": versions(), "git": git_revision(), "date": f"{datetime.now(UTC):%Y-%m-%d}"}


def show_machine(about: dict) -> None:
    """Print a description of runs.machine in one line, with the versions of torch and transformers."""
    packages = versions()
    print(f"{about['system']}, {about['processor']}, {about['gpu'] or 'no GPU'}, {about['cores']} cores, "
          f"{about['threads']} threads; torch {packages['torch']}, transformers {packages['transformers']}")


def now() -> float:
    """Return the time in seconds, after a GPU has finished its work."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def decimals(number: float | None) -> str:
    """Return a number of a table with two decimals, "–" for none."""
    return "–" if number is None else f"{number:.2f}"


def unevaluated(arguments: "TrainingArguments") -> "TrainingArguments":
    """Return the arguments of our trainer with evaluations and checkpoints switched off."""
    arguments.eval_strategy = arguments.save_strategy = "no"
    arguments.load_best_model_at_end = False
    return arguments
