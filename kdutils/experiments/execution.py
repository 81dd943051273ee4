"""How an experiment is recorded and one of its jobs is executed.

An experiment is planned once: `record` writes its settings into ``experiment.yaml`` of its folder. Every job reads that
record and not the experiment file, which may be edited during the run. The parameters of a job go to papermill through
``parameters.yaml`` in its folder: they arrive unchanged, and one job can be executed again by hand::

    papermill notebooks/12_train_multitask.ipynb again.ipynb -f outputs/mini/students/…/parameters.yaml
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import yaml
from filelock import FileLock, Timeout

from kdutils.errors import AlreadyRunning, StudyError, short
from kdutils.experiments.finished import comparison_of_finished
from kdutils.experiments.grid import Experiment, Job, make_jobs
from kdutils.experiments.reruns import INPUTS, inputs_of, write_inputs
from kdutils.experiments.steps import NOTEBOOKS
from kdutils.runs import PROJECT, add_notebook_checksum, write_text

RECORD = "experiment.yaml"  # in the folder of an experiment: what its file said when it was last run
LOCK = ".lock"  # in the folder of an experiment: held by the process that runs or keeps it, and names it
PARAMETERS = "parameters.yaml"  # in the folder of a job
MOST = 2000  # characters of error.txt
START_TIMEOUT = 600  # seconds: on a busy machine a kernel takes more than a minute to begin


def record(experiment: Experiment, path: Path | str) -> None:
    """Write what decides the jobs of `experiment` to `path`."""
    write_text(path, _dumped({"file": experiment.file, "tiny": experiment.tiny, "name": experiment.name,
                              "ratings": list(experiment.ratings), "leave_out_too_long": experiment.leave_out_too_long,
                              "settings": experiment.settings}))


def recorded(path: Path | str) -> Experiment:
    """Return the Experiment that `record` wrote to `path`; StudyError where that cannot be read."""
    try:
        kept = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        jobs = list(make_jobs(kept["name"], kept["settings"]))
        return Experiment(kept["name"], kept["settings"], jobs, kept["file"], kept["tiny"],
                          tuple(kept.get("ratings", [])), bool(kept.get("leave_out_too_long")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        raise StudyError(f"{path}: not what a run writes there; delete it and run the experiment again") from error


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold the lock of an experiment's folder, which is made first; AlreadyRunning where another process has it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK
    try:
        lock = FileLock(path, timeout=0).acquire()
    except Timeout:
        raise AlreadyRunning(f"'{folder.name}' is already being run by process {path.read_text() or 'unknown'}; wait "
                             "for it, or stop it first") from None
    with lock:
        path.write_text(str(os.getpid()))
        yield


def check_folder(experiment: Experiment) -> str:
    """Return what a run of `experiment` would change in a folder that was run before, as a sentence or "".

    Raises StudyError where the folder holds the runs of another experiment, or something else: those are kept.
    """
    folder = experiment.folder
    try:
        kept = recorded(folder / RECORD)
    except StudyError:  # none yet, or of an earlier version
        if folder.exists() and not (folder / LOCK).exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise StudyError(f"{folder}: holds something that is no experiment; rename {experiment.file} or move the "
                             "folder away") from None
        return ""
    if _dumped(kept.settings) == _dumped(experiment.settings):
        return ""
    if (kept.file, kept.tiny) != (experiment.file, experiment.tiny):
        raise StudyError(f"{folder}: holds the runs of another experiment, {kept.file}{' with --tiny' * kept.tiny}; "
                         f"rename {experiment.file} or move that folder away")
    others = [{**one.settings, "human_ratings": {}} for one in (kept, experiment)]
    same = _dumped(others[0]) == _dumped(others[1])
    what = "the ratings or their analysis have" if same else f"{experiment.file} has"
    return f"{what} changed since {'the' if same else 'its'} last run: what depends on the changes is run again"


def write_parameters(job: Job, folder: Path | str) -> Path:
    """Write the parameters of `job` into its folder, as papermill reads them back unchanged; return the file's path."""
    return write_text(Path(folder) / PARAMETERS, _dumped(job.parameters))


def _dumped(value):
    return yaml.safe_dump(value, allow_unicode=True, sort_keys=False, width=10**6)


def execute(root: Path | str, folder: str, finished_only: bool = False) -> bool:
    """Execute one job of the experiment recorded in `root`; return whether its notebook ran to the end.

    What goes wrong stands in ``error.txt`` (in one line) and ``papermill.log`` of the job's folder.
    `finished_only`: the comparison over the evaluations that are finished.
    """
    experiment = recorded(Path(root) / RECORD)
    jobs = {job.folder: job for job in experiment.jobs}
    if finished_only:
        jobs["comparison"] = comparison_of_finished(experiment)
    if folder not in jobs:
        raise StudyError(f"{folder}: no job of the experiment {experiment.name}")
    job, target = jobs[folder], experiment.folder / folder
    target.mkdir(parents=True, exist_ok=True)
    for name in ("error.txt", INPUTS):
        (target / name).unlink(missing_ok=True)
    inputs = inputs_of(job)  # as they are when it starts
    reason = run_notebook(job, target)
    if not reason:
        try:
            write_inputs(inputs, target)
            add_notebook_checksum(target)
            return True
        except (OSError, StudyError) as error:
            reason = f"{type(error).__name__}: {error}"
    lines = [line for line in reason.splitlines() if line.strip()]
    with contextlib.suppress(OSError):  # where the disk is full the log may still say it
        write_text(target / "error.txt", short(" ".join(lines), MOST) + "\n")
    return False


def run_notebook(job: Job, target: Path) -> str:
    """Execute the notebook of `job` into the folder `target`; return why it did not run to its end, "" where it did."""
    from papermill import execute_notebook
    from papermill.iorw import read_yaml_file

    with open(target / "papermill.log", "w", encoding="utf-8", errors="replace") as log:
        try:
            parameters = read_yaml_file(str(write_parameters(job, target)))
            with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
                execute_notebook(NOTEBOOKS / f"{job.notebook}.ipynb", target / "notebook.ipynb", parameters,
                                 progress_bar=False, start_timeout=START_TIMEOUT, autosave_cell_every=30, cwd=PROJECT)
            return ""
        except Exception as error:  # a failed cell, a dead kernel, a full disk: the job ends with its reason
            reason = f"{getattr(error, 'ename', type(error).__name__)}: {getattr(error, 'evalue', error)}"
            print(error, reason, sep="\n", file=log)
            return reason
