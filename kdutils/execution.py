"""How one job of an experiment is executed, and what its result depends on.

An experiment is planned once: `record` writes what its file said into ``experiment.yaml`` of its folder, and every
job reads that and not the file, which may be edited while the experiment runs. The parameters of a job go to papermill
through ``parameters.yaml`` in its folder, so that they arrive as they are and a person can execute one job again::

    papermill notebooks/12_train_multitask.ipynb again.ipynb -f outputs/mini/students/…/parameters.yaml

`depends_on` lists what a job's result depends on besides the results of earlier jobs. All of it is compared by
content: a file that was only touched or saved again unchanged makes nothing run again.
"""

import contextlib
import hashlib
import json
import os
from functools import cache
from pathlib import Path

import yaml

from kdutils.errors import StudyError
from kdutils.experiments import (
    NOTEBOOKS,
    PROMPTINGS,
    Experiment,
    comparison_of_finished,
    make_jobs,
    published_files,
)
from kdutils.runs import PROJECT, add_notebook_checksum, file_stamp, project_path, read_json, sha256, write_text
from kdutils.source_code import code_digests

RECORD = "experiment.yaml"  # in the folder of an experiment: what its file said when it was last run
PARAMETERS = "parameters.yaml"  # in the folder of a job
START_TIMEOUT = 600  # seconds: on a busy machine a kernel takes more than a minute to begin


def record(experiment, path):
    """Write what decides the jobs of `experiment` to `path`."""
    write_text(path, _dumped({"file": experiment.file, "tiny": experiment.tiny, "name": experiment.name,
                              "settings": experiment.settings}))


def recorded(path):
    """Return the Experiment that `record` wrote to `path`; StudyError where that cannot be read."""
    try:
        kept = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        jobs = list(make_jobs(kept["name"], kept["settings"]))
        return Experiment(kept["name"], kept["settings"], jobs, kept["file"], kept["tiny"])
    except (OSError, UnicodeDecodeError, yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        raise StudyError(f"{path}: not what a run writes there; delete it and run the experiment again") from error


def check_folder(experiment):
    """Return what a run of `experiment` would change in a folder that was run before, as a sentence or "".

    Raises StudyError where the folder holds the runs of another experiment, or something else: those are kept.
    """
    folder = experiment.folder
    try:
        kept = recorded(folder / RECORD)
    except StudyError:  # none yet, or of an earlier version
        if folder.exists() and not (folder / ".lock").exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise StudyError(f"{folder}: holds something that is no experiment; rename {experiment.file} or move the "
                             "folder away") from None
        return ""
    if _dumped(kept.settings) == _dumped(experiment.settings):
        return ""
    if (kept.file, kept.tiny) != (experiment.file, experiment.tiny):
        raise StudyError(f"{folder}: holds the runs of another experiment, {kept.file}{' with --tiny' * kept.tiny}; "
                         f"rename {experiment.file} or move that folder away")
    return f"{experiment.file} has changed since its last run: what depends on the changes is run again"


def write_parameters(job, folder):
    """Write the parameters of `job` into its folder, as papermill reads them back unchanged; return the file's path."""
    return write_text(Path(folder) / PARAMETERS, _dumped(job.parameters))


def _dumped(value):
    return yaml.safe_dump(value, allow_unicode=True, sort_keys=False, width=10**6)


def execute(root, folder, finished_only=False):
    """Execute one job of the experiment recorded in `root`; return whether its notebook ran to the end.

    What goes wrong stands in ``error.txt`` (its last line alone) and ``papermill.log`` of the job's folder.
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
    (target / "error.txt").unlink(missing_ok=True)
    reason = _run_notebook(job, target)
    if not reason:
        try:
            add_notebook_checksum(target)
            return True
        except (OSError, StudyError) as error:
            reason = f"{type(error).__name__}: {error}"
    lines = [line for line in reason.splitlines() if line.strip()]
    with contextlib.suppress(OSError):  # where the disk is full the log may still say it
        write_text(target / "error.txt", lines[-1] + "\n")
    return False


def _run_notebook(job, target):
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


def depends_on(job):
    """Return {what: its digest} of all that the result of `job` depends on, results of earlier jobs aside."""
    return {"parameters": _digest(json.dumps(job.parameters, sort_keys=True)),
            "notebook": notebook_digest(NOTEBOOKS / f"{job.notebook}.ipynb"),
            "code": _digest(json.dumps(code_of(job))), "files": digest_of(files_of(job))}


def code_of(job):
    """Return {file: digest} of the code of this package that the notebook of `job` imports."""
    cells = read_json(NOTEBOOKS / f"{job.notebook}.ipynb")["cells"]
    return code_digests("\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"))


def notebook_digest(path):
    """Return the digest of a notebook's cells: their kind, tags and source, not outputs or counters saved with them."""
    cells = [(cell["cell_type"], cell["metadata"].get("tags", []), "".join(cell["source"]))
             for cell in read_json(path)["cells"]]
    return _digest(json.dumps(cells))


def files_of(job):
    """Return the files outside the experiment and the code that `job` reads.

    These are tables of questions, published explanations, prompts, the files of models, vocabularies and encoders in
    local folders, and ratings. A path that is not there is left out: the job itself says so.
    """
    from kdutils.data.readers import READERS

    given, data = job.parameters, os.environ.get("KDUTILS_DATA", "")
    own = project_path(Path(*Path(given["output"]).parts[:2]))  # what the experiment makes itself comes later
    found = [path for name in _models_of(given) for folder in _model_folders(name) for path in _below(folder)
             if not path.is_relative_to(own)]
    if job.kind == "data" and (given.get("folder") or data):
        reader = READERS[given.get("reader") or given["dataset"]]
        for file in (given.get("files") or reader.local).values():
            found += _below(project_path(given.get("folder") or data) / file)
    if given.get("backend") == "published":
        if given.get("published_folder") or data:
            found += published_files(given["dataset"], given.get("published_teacher", "llama"),
                                     given.get("published_folder") or data, bool(given.get("published_folder")))
    elif job.kind == "explanations" and job.notebook != PROMPTINGS["tokens"]:
        found += _prompts_of(given["dataset"])
    for path in given.get("ratings", []):
        found += _below(project_path(path))
    return sorted({path for path in found if path.is_file()})


def _models_of(given):
    """Return the names of models in the parameters of a job, those in a dict (a reader of explanations) included."""
    dicts = [given, *(value for value in given.values() if isinstance(value, dict))]
    names = [one.get(key) for one in dicts for key in ("model", "tokenizer", "encoder")
             if one.get("backend") != "openai"]  # a server's model has whatever name the server gives it
    return sorted({name for name in names if isinstance(name, str) and name})


def _model_folders(name):
    """Return the folders of this machine that hold a model: of an adapter its base's too, of one on the Hub none."""
    from kdutils.hub import local_folders, locate_model

    try:
        where = Path(locate_model(name, needs_weights=False))
    except StudyError:
        return []
    return local_folders(name) or ([where] if where.is_absolute() else [])


def _prompts_of(dataset):
    from kdutils.teacher.prompting import FOLDER

    return [*FOLDER.glob("*.txt"), *_below(FOLDER / dataset)]


def _below(path):
    """Return a file, or the files of a folder at any depth."""
    try:
        return [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    except OSError:  # a name too long, no permission: the job itself says so
        return []


def digest_of(paths):
    """Return one digest of the names and contents of files."""
    return _digest("".join(f"{_file_digest(path, *file_stamp(path))}  {Path(path).name}\n" for path in paths))


@cache
def _file_digest(path, size, changed):
    return sha256(path)


def _digest(text):
    return hashlib.sha256(text.encode()).hexdigest()
