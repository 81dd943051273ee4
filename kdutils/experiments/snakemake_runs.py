"""Run the jobs of an experiment with Snakemake, and say in the terminal what ends, fails and goes on."""

import contextlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Collection, Iterator
from pathlib import Path

import psutil

from kdutils.errors import INTERRUPTED, StudyError, masked, printable
from kdutils.experiments.grid import Experiment
from kdutils.experiments.slurm import more_options, option_values
from kdutils.runs import PROJECT, leave_process_group, mask_file, mask_run, read_json

MARK = "KDUTILS_OUTPUT"  # in the environment of every process of an experiment: orphans are known by it


def run_snakemake(experiment: Experiment, options: Namespace, *targets: str, finished_only: int = 0,
                  changed: Collection[str] = (), failed: Collection[str] = ()) -> int:
    """Run Snakemake with its output in snakemake.log, showing which runs finish and fail; return the exit code.

    `options`: those of the command `run`. `targets`: files to make, all by default. `finished_only`: 1 for a comparison
    of what is finished. `changed`: folders of finished runs that run again. `failed`: folders of runs that have failed
    before in this call; they, and what needs them, are left out.
    """
    environment = environment_of(experiment)
    if any((experiment.folder / ".snakemake" / "locks").glob("*")):
        subprocess.run(snakemake_command(experiment, options, "--unlock"), env=environment, capture_output=True)
    left_out = [f"{folder}/metrics.json" for folder in failed]
    command = snakemake_command(experiment, options, *(["--omit-from", *left_out] if left_out else []),
                                targets=targets, finished_only=finished_only)
    with open(experiment.folder / "snakemake.log", "w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
        try:
            with printing_goes_on():
                _follow(experiment, process, set(changed), say_finished=not targets)
        except KeyboardInterrupt:
            stopped = time.time()
            with printing_goes_on():
                print("\nstopping the jobs that run …", file=sys.stderr, flush=True)
            process.wait()  # the signal reached Snakemake too: it stops its jobs itself
            for job in experiment.jobs:  # a job that was stopped has not failed
                error = experiment.folder / job.folder / "error.txt"
                if error.is_file() and error.stat().st_mtime >= stopped - 1:
                    error.unlink()
            return INTERRUPTED
        finally:
            if process.poll() is None:  # an error here, or Ctrl-C again: neither Snakemake nor its jobs are left alone
                process.terminate()
                stop_orphans(experiment)
                process.wait()
    mask_file(experiment.folder / "snakemake.log")
    for job in experiment.jobs:  # those that are finished were masked when they were sealed
        if not (experiment.folder / job.folder / "metrics.json").is_file():
            mask_run(experiment.folder / job.folder)
    return 1 if process.returncode or failed else 0


def snakemake_command(experiment: Experiment, options: Namespace, *more: str, targets: tuple[str, ...] = (),
                      finished_only: int = 0) -> list[str]:
    """Return the words that start Snakemake for run_snakemake; `more`: further options."""
    return [sys.executable, "-m", "snakemake", *targets, "--snakefile", str(PROJECT / "notebooks" / "Snakefile"),
            "--directory", str(experiment.folder), "--cores", str(options.cores), "--rerun-incomplete", "--keep-going",
            "--rerun-triggers", "mtime", "params", "input",  # not the wording of the rule
            *(["--config", "finished_only=1"] if finished_only else []), *options.snakemake,
            *more_options(options.snakemake, options.cores), *more]


def environment_of(experiment: Experiment) -> dict[str, str]:
    """Return the environment of every process of an experiment."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    inherited = dict(os.environ)
    leave_process_group(always=True, environment=inherited)  # a job is one process, whatever a scheduler has set
    return {**inherited, "PATH": path, MARK: str(experiment.folder), "PYTHONUNBUFFERED": "1",
            "TOKENIZERS_PARALLELISM": "false", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}


class _Printing:
    """A stream that prints to another one and, where that fails, from then on nowhere."""

    def __init__(self, stream):
        self.stream = stream

    def __getattr__(self, name):
        return getattr(self.stream, name)

    def write(self, text):
        return self._try("write", text)

    def flush(self):
        return self._try("flush")

    def _try(self, name, *given):
        try:
            return getattr(self.stream, name)(*given)
        except OSError:
            nowhere = open(os.devnull, "w")
            with contextlib.suppress(OSError):  # what is still buffered goes there, too, when Python ends
                os.dup2(nowhere.fileno(), self.stream.fileno())
            self.stream = nowhere
            return len(given[0]) if given else None


@contextlib.contextmanager
def printing_goes_on() -> Iterator[None]:
    """Print nothing more where that fails, as into a closed pipe (| head) or onto a full disk, and go on."""
    with contextlib.redirect_stdout(_Printing(sys.stdout)), contextlib.redirect_stderr(_Printing(sys.stderr)):
        yield


def _follow(experiment, process, changed, say_finished):
    """Print a line for every job that ends and, in a terminal, the progress of those that run."""
    begun, total = time.time(), len(experiment.jobs)
    ended = {job.folder for job in experiment.jobs if _outcome(experiment, job, 0)} - changed
    if ended and say_finished:
        print(f"{len(ended)} of {total} runs are finished already", flush=True)
    shown, lines = 0.0, []
    while True:
        over = process.poll() is not None
        for job in experiment.jobs:
            outcome = _outcome(experiment, job, begun)
            if not outcome and not (experiment.folder / job.folder / "metrics.json").is_file():
                ended.discard(job.folder)  # it is being made again
            if outcome and job.folder not in ended:
                ended.add(job.folder)
                clear = "\r\033[K" if sys.stdout.isatty() else ""
                start = f"[{len(ended):>{len(str(total))}}/{total}] {outcome:<6} "
                print(clear + fitted(start, job.folder), flush=True)
                if outcome == "FAILED":
                    _say_failure(experiment.folder / job.folder)
                elif job.kind == "explanations":
                    _say_unusable(experiment.folder / job.folder)
        if over:
            return
        if time.time() - shown > (2 if sys.stdout.isatty() else 30):
            shown = time.time()
            with contextlib.suppress(OSError, ValueError):  # a file is being written
                lines = _show_running(experiment, begun, ended, lines)
        time.sleep(0.3)


def fitted(start: str, text: str) -> str:
    """Return `start` and `text` in one line of the terminal, or of 80 columns, without the middle of a longer text."""
    room = shutil.get_terminal_size((80, 24)).columns - len(start)
    if len(text) <= room or room < 20:
        return start + text
    return f"{start}{text[:room // 3]}…{text[len(text) - (room - room // 3 - 1):]}"


def _say_failure(folder):
    """Print why a run failed, and the page that shows where."""
    reason = ""
    with contextlib.suppress(OSError):  # it is made again
        reason = printable(masked((folder / "error.txt").read_text(encoding="utf-8", errors="replace"))).strip()
    print("\n".join(f"    {line}" for line in [*reason.splitlines(), f"page: {folder / 'report.html'}"]), flush=True)


def _say_unusable(folder):
    """Print a warning where much of what a teacher wrote cannot be used."""
    from kdutils.teacher.quality import unusable_warning

    with contextlib.suppress(StudyError):
        if warning := unusable_warning(read_json(folder / "metrics.json")):
            print(f"    warning: {warning}\n    page: {folder / 'report.html'}", flush=True)


def _outcome(experiment, job, since):
    """Return done or failed for a job that ended after `since` (seconds since 1970), else ""."""
    folder = experiment.folder / job.folder
    try:
        manifest = folder / "manifest.json"
        if (folder / "metrics.json").is_file() and manifest.stat().st_mtime >= since:
            return "done" if "notebook.ipynb" in json.loads(manifest.read_text()) else ""
        if since and (folder / "error.txt").stat().st_mtime >= since:
            return "FAILED"
    except (OSError, ValueError):
        pass
    return ""


def _show_running(experiment, begun, ended, before):
    """Show how far the runs at work are: one line that is written over in a terminal, else one each; return the lines.

    Outside of a terminal, lines that are among those `before` are not repeated.
    """
    lines = []
    for job in experiment.jobs:
        folder = experiment.folder / job.folder
        progress, notebook = folder / "progress.txt", folder / "notebook.ipynb"
        if job.folder not in ended and progress.is_file() and progress.stat().st_mtime >= begun:
            lines.append(progress.read_text().strip())
        elif job.folder not in ended and notebook.is_file() and notebook.stat().st_mtime >= begun:
            named = " ".join(job.labels.get(name, "") for name in ("method", "prompting")).strip()
            lines += [f"{job.kind}, {named or 'all'}: {heading}" for heading in heading_at_work(notebook)]
    if lines and sys.stdout.isatty():
        width = shutil.get_terminal_size().columns
        print(f"\r{' | '.join(lines)[:width - 1]:<{width - 1}}", end="", flush=True)
    elif new := [line for line in lines if line not in before]:
        room = shutil.get_terminal_size((80, 24)).columns - 5
        print("\n".join(f"    {line if len(line) <= room else line[:room] + '…'}" for line in new), flush=True)
    return lines


def heading_at_work(notebook: Path) -> list[str]:
    """Return, in a list, the heading above the cell of an executed notebook that runs; [] if none runs."""
    heading = ""
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):  # it is being written
        for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
            first = "".join(cell["source"]).partition("\n")[0]
            heading = first.lstrip("# ") if cell["cell_type"] == "markdown" and first.startswith("#") else heading
            if cell["metadata"].get("papermill", {}).get("status") == "running":
                return [heading]
    return []


def missing_executor(words: list[str]) -> str:
    """Return what to install where `words` (for Snakemake) name an executor that is not here, else "".

    Snakemake itself answers with all of its usage, in a log.
    """
    for name in option_values(list(words), "--executor", "-e"):
        if name in ("local", "dryrun", "touch"):  # Snakemake's own
            continue
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
            return f"--executor {name[:60]!r}: no name of an executor; give one such as slurm"
        if not importlib.util.find_spec(f"snakemake_executor_plugin_{name.replace('-', '_')}"):
            return (f"--executor {name}: Snakemake has no such executor here; install its plugin with "
                    f"pip install snakemake-executor-plugin-{name.replace('_', '-')}")
    return ""


def stop_orphans(experiment: Experiment) -> None:
    """Stop processes of an earlier call that was killed: they would write into the same folders."""
    mine = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    orphans = [process for process in psutil.process_iter() if process.pid not in mine
               and _environment(process).get(MARK) == str(experiment.folder)]
    for process in orphans:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(orphans, timeout=10)
    if orphans:
        print(f"stopped {len(orphans)} processes that an interrupted call had left", flush=True)


def _environment(process):
    try:
        return process.environ()
    except (psutil.Error, OSError):
        return {}
