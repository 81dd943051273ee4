"""The command line behind run_all.sh: ``python -m kdutils --help``."""

import argparse
import contextlib
import errno
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from kdutils.errors import StudyError, first_line, masked
from kdutils.packages import missing_requirements
from kdutils.runs import PROJECT, check_run, leave_process_group, mask_file, mask_run, read_json

if TYPE_CHECKING:
    from kdutils.experiments.cost import Plan
    from kdutils.experiments.grid import Experiment, Job

INTERRUPTED = 130  # exit code after Ctrl-C, as shells have it
MARK = "KDUTILS_OUTPUT"  # in the environment of every process of an experiment: orphans are known by it


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return the exit code: 0 done, 1 a run failed, 2 wrong input, 3 already running, 130 stopped."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    cut = words.index("--") if "--" in words else len(words)
    options = parser().parse_args(words[:cut])
    options.snakemake = words[cut + 1:]
    try:
        return options.command(options)
    except StudyError as error:
        for line in getattr(error, "lines", [error]):
            print(f"error: {line}", file=sys.stderr)
        return 2
    except OSError as error:  # a full or read-only disk, most of all
        print(f"error: {_disk_error(error)}", file=sys.stderr)
        return 1


def _disk_error(error):
    """Return one line on an error of the file system: where, what, and what to do."""
    advice = {errno.ENOSPC: "make room", errno.EDQUOT: "make room", errno.EROFS: "write where it is allowed",
              errno.EACCES: "see the permissions"}.get(error.errno, "correct what is wrong there")
    return (f"{error.filename or PROJECT / 'outputs'}: {error.strerror or error}; {advice} and give the same command "
            "again: what is finished is kept")


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    top = argparse.ArgumentParser(prog="kdutils", description="Run, list and show the experiments of the study.")
    commands = top.add_subparsers(required=True)

    def command(name, function, text, **more):
        added = commands.add_parser(name, help=text, description=text, **more)
        added.set_defaults(command=function)
        return added

    run = argparse.ArgumentParser(add_help=False)
    run.add_argument("experiment", nargs="?", default="mini")
    run.add_argument("--cores", type=_cores, default=os.cpu_count(), help="jobs at a time (default: all cores)")
    run.add_argument("--dry-run", action="store_true", help="check the experiment and say what would run")
    run.add_argument("--force", action="store_true", help="run everything again")
    run.add_argument("--tiny", action="store_true", help="try it to its end with tiny models and few questions")
    command("run", run_experiment, "run an experiment to its end, or go on where it was; what follows -- goes to "
                                   "snakemake", parents=[run])
    # The same words as for run, but no --help: what is printed here is installed.
    command("packages", print_missing_packages, "print what to install for an experiment: the packages that ship its "
                                                "models and are not here", parents=[run], add_help=False)
    command("list", list_experiments, "list the experiments, what each needs and how long it took")
    pages = command("index", index_experiment, "write the pages of an experiment as far as it has come")
    pages.add_argument("experiment")
    executing = command("execute", execute_job, "execute one job of the experiment recorded in the current folder")
    executing.add_argument("folder")
    executing.add_argument("--finished-only", action="store_true", help="compare the evaluations that are finished")
    keeping = command("keep", keep_results, "keep the tables and the figure of a finished run in outputs/results")
    keeping.add_argument("name", help="an experiment, or bench/NAME for a benchmark")
    keeping.add_argument("--note", default="", help="a sentence on this run, such as what else ran on the machine")
    command("write-results", write_results, "write RESULTS.md, and the results that README.md names, from "
                                            "outputs/results")
    return top


def _cores(text):
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def list_experiments(options: argparse.Namespace) -> int:
    """Print every experiment with what it needs and how long it took."""
    from kdutils.errors import short
    from kdutils.experiments.loading import experiment_names, load_experiment
    from kdutils.results.document import time_taken
    from kdutils.results.keeping import read_kept

    kept = read_kept()
    for name in experiment_names():
        try:
            settings = load_experiment(name).settings
            about, needs = (short(settings[key], 500) for key in ("about", "needs"))
            took = short(time_taken(kept[name]), 500) if name in kept else "not measured"
            print(f"{name}: {about}\n    needs: {needs}; took: {took}")
        except StudyError as error:
            print(f"{short(name)}: cannot run: {error}")
    return 0


def print_missing_packages(options: argparse.Namespace) -> int:
    """Print the packages, with versions, that ship models of an experiment (its key extras) and are not installed."""
    from kdutils.experiments.loading import extras_of

    print("\n".join(missing_requirements(extras_of(options.experiment))), end="")
    return 0


def keep_results(options: argparse.Namespace) -> int:
    """Keep the results of a finished experiment or benchmark and say where they are."""
    from kdutils.results.keeping import keep

    print(f"kept: {keep(options.name, options.note)}\nRESULTS.md is written from it by ./run_all.sh --write-results")
    return 0


def write_results(options: argparse.Namespace) -> int:
    """Write RESULTS.md and the results in README.md; say which of them changed."""
    from kdutils.results.document import write_documents

    changed = ", ".join(path.name for path in write_documents())
    print(f"written: {changed}" if changed else "RESULTS.md and README.md are as the kept results say")
    return 0


def execute_job(options: argparse.Namespace) -> int:
    """Execute one job of the experiment in the current folder; return 0 if its notebook ran to the end."""
    from kdutils.experiments.execution import execute

    return 0 if execute(Path.cwd(), options.folder, options.finished_only) else 1


def index_experiment(options: argparse.Namespace) -> int:
    """Write the pages of an experiment as far as it has come."""
    from kdutils.experiments.loading import load_experiment

    write_pages(load_experiment(options.experiment))
    return 0


def run_experiment(options: argparse.Namespace) -> int:
    """Check, lock, repair and run an experiment; write its pages whatever happened; say where they are."""
    from kdutils.experiments import slurm
    from kdutils.experiments.execution import RECORD, check_folder, record
    from kdutils.experiments.grid import comparison_of_finished, unfinish_downstream
    from kdutils.experiments.inputs import check_data
    from kdutils.experiments.loading import load_experiment

    if missing := missing_executor(options.snakemake):
        raise StudyError(missing)
    experiment = load_experiment(options.experiment, options.tiny)
    changed = check_folder(experiment)
    check_data(experiment)
    if changed:
        print(changed, flush=True)
    if options.dry_run:
        return _dry_run(experiment, options)
    begun = time.time()
    experiment.folder.mkdir(parents=True, exist_ok=True)
    lock = experiment.folder / ".lock"
    try:
        held = FileLock(lock, timeout=0).acquire()
    except Timeout:
        print(f"error: '{experiment.name}' is already being run by process {lock.read_text() or 'unknown'}; wait for "
              "it, or stop it first", file=sys.stderr)
        return 3
    with held:
        lock.write_text(str(os.getpid()))
        slurm.stop_jobs(experiment.folder)
        record(experiment, experiment.folder / RECORD)
        stop_orphans(experiment)
        slurm.stop_jobs(experiment.folder)  # what an orphan has handed in meanwhile
        for job in experiment.jobs if options.force else []:
            shutil.rmtree(experiment.folder / job.folder, ignore_errors=True)
        say_costs(experiment, [job for job in experiment.jobs
                               if not (experiment.folder / job.folder / "metrics.json").is_file()])
        # One by one and before the rest: what builds on a file that comes back the same is then left alone.
        for folder in invalidate_damaged(experiment):
            if _snakemake(experiment, options, f"{folder}/metrics.json") == INTERRUPTED:
                return INTERRUPTED
        code = _snakemake(experiment, options)
        if code == 1:
            slurm.say_ended(experiment.folder)
            unfinish_downstream(experiment)
            if comparison_of_finished(experiment):
                _snakemake(experiment, options, "comparison/metrics.json", finished_only=1)
        try:
            page = write_pages(experiment)
        except OSError as error:  # the pages of before, where there are any, are better than none
            print(f"error: the pages cannot be written: {_disk_error(error)}", file=sys.stderr)
            page, code = experiment.folder / "index.html", code or 1
    _report(experiment, code, page, time.time() - begun)
    return code


def stop_orphans(experiment: "Experiment") -> None:
    """Stop processes of an earlier call that was killed: they would write into the same folders."""
    import psutil

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
    import psutil

    try:
        return process.environ()
    except (psutil.Error, OSError):
        return {}


def invalidate_damaged(experiment: "Experiment") -> list[str]:
    """Mark as unfinished every run whose files differ from its manifest; return their folders."""
    damaged = []
    for job in experiment.jobs:
        folder = experiment.folder / job.folder
        if not (folder / "metrics.json").is_file():
            continue
        problems = check_run(folder)
        if problems:
            print(f"to be made again: {problems[0]}", flush=True)
            (folder / "metrics.json").unlink()
            damaged.append(job.folder)
    return damaged


def _command(experiment, options, *more, targets=(), finished_only=0):
    from kdutils.experiments.slurm import more_options

    return [sys.executable, "-m", "snakemake", *targets, "--snakefile", str(PROJECT / "notebooks" / "Snakefile"),
            "--directory", str(experiment.folder), "--cores", str(options.cores), "--rerun-incomplete", "--keep-going",
            "--rerun-triggers", "mtime", "params", "input",  # not the wording of the rule
            *(["--config", "finished_only=1"] if finished_only else []), *options.snakemake,
            *more_options(options.snakemake, options.cores), *more]


def _dry_run(experiment, options):
    """List the jobs that Snakemake would run; an experiment that was never run is planned in a passing folder."""
    import tempfile

    from kdutils.experiments.execution import RECORD, record
    from kdutils.experiments.protocol_lines import protocol_lines

    with tempfile.TemporaryDirectory() as scratch:
        record(experiment, Path(scratch) / RECORD)
        command = _command(experiment, options, "--dry-run")
        if options.force or not experiment.folder.is_dir():
            command[command.index("--directory") + 1] = scratch
        done = subprocess.run(command, capture_output=True, text=True,
                              env=_environ(experiment) | {"KDUTILS_RECORD": str(Path(scratch) / RECORD)})
    if done.returncode:
        print(masked(done.stdout + done.stderr), file=sys.stderr)
        return 1
    planned = set(re.findall(r"wildcards: folder=(\S+)", done.stdout + done.stderr))
    for job in experiment.jobs:
        print(f"{'to do' if job.folder in planned else 'done '}  {job.notebook:<28} {job.folder}")
    todo = [job for job in experiment.jobs if job.folder in planned]
    plans = say_costs(experiment, todo)
    print("".join(f"{line}\n" for line in protocol_lines(experiment.settings)), end="")
    if todo:
        _say_duration(experiment, todo, options.cores, plans)
    print(f"{len(experiment.jobs)} jobs, {len(todo)} of them to do; nothing was run")
    return 0


def _say_duration(experiment, jobs, cores, plans):
    """Print how long `jobs` will take on this machine; no fault of this guess stops a dry run."""
    from kdutils.experiments.duration import duration_lines

    try:
        print("\n".join(duration_lines(experiment, jobs, cores, plans)))
    except Exception as error:  # of a model, a full disk, too little memory
        print(f"how long it will take cannot be told: {masked(first_line(error))}")


def say_costs(experiment: "Experiment", jobs: list["Job"]) -> dict[str, "Plan"]:
    """Print, per explaining job, how many completions the store has and what asking for the rest would cost.

    Returns {folder: what is printed} of those whose cost is known.
    """
    from kdutils.experiments.cost import planned_cost

    plans = {}
    for job in jobs:
        if job.kind != "explanations":
            continue
        try:
            cost = planned_cost(experiment, job)
        except StudyError as error:  # the job itself will stop at it, with the same line
            print(f"{job.folder}: cannot be told: {error}", flush=True)
            continue
        if cost:
            plans[job.folder] = cost
            print(f"{job.folder}: {cost}", flush=True)
    return plans


def missing_executor(words: list[str]) -> str:
    """Return what to install where `words` (for Snakemake) name an executor that is not here, else "".

    Snakemake itself answers with all of its usage, in a log.
    """
    from kdutils.experiments.slurm import option_values

    for name in option_values(list(words), "--executor", "-e"):
        if name in ("local", "dryrun", "touch"):  # Snakemake's own
            continue
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
            return f"--executor {name[:60]!r}: no name of an executor; give one such as slurm"
        if not importlib.util.find_spec(f"snakemake_executor_plugin_{name.replace('-', '_')}"):
            return (f"--executor {name}: Snakemake has no such executor here; install its plugin with "
                    f"pip install snakemake-executor-plugin-{name.replace('_', '-')}")
    return ""


def _environ(experiment):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    inherited = dict(os.environ)
    leave_process_group(always=True, environment=inherited)  # a job is one process, whatever a scheduler has set
    return {**inherited, "PATH": path, MARK: str(experiment.folder), "PYTHONUNBUFFERED": "1",
            "TOKENIZERS_PARALLELISM": "false", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}


def _snakemake(experiment, options, *targets, finished_only=0):
    """Run Snakemake with its output in snakemake.log, showing which runs finish and fail; return the exit code."""
    environment = _environ(experiment)
    if any((experiment.folder / ".snakemake" / "locks").glob("*")):
        subprocess.run(_command(experiment, options, "--unlock"), env=environment, capture_output=True)
    command = _command(experiment, options, targets=targets, finished_only=finished_only)
    with open(experiment.folder / "snakemake.log", "w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
        try:
            _follow(experiment, process, say_finished=not targets)
        except KeyboardInterrupt:
            process.wait()  # the signal reached Snakemake too: it stops its jobs itself
            return INTERRUPTED
    mask_file(experiment.folder / "snakemake.log")
    for job in experiment.jobs:  # those that are finished were masked when they were sealed
        if not (experiment.folder / job.folder / "metrics.json").is_file():
            mask_run(experiment.folder / job.folder)
    return 0 if process.returncode == 0 else 1


def _follow(experiment, process, say_finished):
    """Print a line for every job that ends and, in a terminal, the progress of those that run."""
    begun, total = time.time(), len(experiment.jobs)
    ended = {job.folder for job in experiment.jobs if _outcome(experiment, job, 0)}
    if ended and say_finished:
        print(f"{len(ended)} of {total} runs are finished already", flush=True)
    shown = 0.0
    while True:
        over = process.poll() is not None
        for job in experiment.jobs:
            outcome = _outcome(experiment, job, begun)
            if not outcome and not (experiment.folder / job.folder / "metrics.json").is_file():
                ended.discard(job.folder)  # it is being made again
            if outcome and job.folder not in ended:
                ended.add(job.folder)
                clear = "\r\033[K" if sys.stdout.isatty() else ""
                print(f"{clear}[{len(ended):>{len(str(total))}}/{total}] {outcome:<6} {job.folder}", flush=True)
        if over:
            return
        if time.time() - shown > (2 if sys.stdout.isatty() else 30):
            shown = time.time()
            _show_running(experiment, begun, ended)
        time.sleep(0.3)


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


def _show_running(experiment, begun, ended):
    """Show the progress lines of the runs at work: one line that is written over in a terminal, else one each."""
    lines = []
    for job in experiment.jobs:
        progress = experiment.folder / job.folder / "progress.txt"
        if job.folder not in ended and progress.is_file() and progress.stat().st_mtime >= begun:
            lines.append(progress.read_text().strip())
    if lines and sys.stdout.isatty():
        width = shutil.get_terminal_size().columns
        print(f"\r{' | '.join(lines)[:width - 1]:<{width - 1}}", end="", flush=True)
    elif lines:
        print("\n".join(f"    {line}" for line in lines), flush=True)


def write_pages(experiment: "Experiment") -> Path:
    """Render every executed notebook and the index page; return the index page's path."""
    from kdutils.report.index import render_pages, write_index

    runs = [{"name": job.folder, "folder": experiment.folder / job.folder, "kind": job.kind, "notebook": job.notebook,
             "parameters": job.parameters, "labels": job.labels} for job in experiment.jobs]
    render_pages(experiment.folder, runs)
    settings = experiment.settings
    return write_index(experiment.folder, runs, {
        "name": experiment.name, "about": settings["about"], "needs": settings["needs"],
        "command": experiment.command})


def _report(experiment, code, page, seconds):
    """Print what can be said, what is missing, how long this call took, and where the report is."""
    with contextlib.suppress(StudyError):
        for sentence in read_json(experiment.folder / "comparison" / "metrics.json")["summary"]:
            print(sentence)
    if code:
        log = experiment.folder / "snakemake.log"
        missing = [job for job in experiment.jobs if not (experiment.folder / job.folder / "metrics.json").is_file()]
        print(f"{len(missing)} of {len(experiment.jobs)} runs are not finished; the report and {log} say what "
              "went wrong", file=sys.stderr)
    print(f"{seconds:.0f} s\nreport: {page}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
