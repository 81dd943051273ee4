"""The files that an experiment names: whether they are there, and what the result of each job depends on.

All dependencies are compared by content: a file that was only touched or saved again unchanged makes nothing run again.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache, lru_cache
from pathlib import Path

import pandas as pd

from kdutils.data.questions import SPLITS
from kdutils.data.readers import READERS, limit_questions, question_files, read_questions
from kdutils.data.tables import path_kind
from kdutils.errors import StudyError, quoted, short
from kdutils.experiments.grid import Experiment, Job
from kdutils.experiments.steps import DATA, NOTEBOOKS, SETTINGS
from kdutils.gguf import check_gguf, gguf_file
from kdutils.hub import (
    ADAPTER,
    HUB_ID,
    TOKENIZER_FILES,
    exists,
    find_model,
    has_tokenizer,
    is_path,
    local_folders,
    locate_model,
)
from kdutils.runs import file_stamp, project_path, read_json, sha256, visible_files
from kdutils.source_code import code_digests
from kdutils.student.methods import Method
from kdutils.teacher import prompting
from kdutils.teacher.choices import PROMPTINGS, Prompting
from kdutils.teacher.published.files import published_files

INPUTS = "inputs.json"  # in the folder of a finished job: what it depended on, see reruns
SOURCE = ("dataset", "reader", "folder", "files", "backend", "published_teacher", "published_folder")  # of tables

# What is there before a run

def notebook_fault(name: str, entry: Method | Prompting) -> str:
    """Return what the notebook of a method or prompting lacks, "" for nothing.

    A copied notebook may still run what it was copied from, so its code has to name the method or prompting.
    """
    notebook, model = entry.notebook, SETTINGS.get(entry.notebook)
    if model is None:
        return f"its notebook {notebook} has no settings model; write one and list it in kdutils/experiments/steps.py"
    path = NOTEBOOKS / f"{notebook}.ipynb"
    if not path.is_file():
        return f"notebooks/{notebook}.ipynb: no such notebook; copy the nearest one and change it"
    code = "".join("".join(cell["source"]) for cell in read_json(path)["cells"] if cell["cell_type"] == "code"
                   and "parameters" not in cell["metadata"].get("tags", []))
    asks_nobody = isinstance(entry, Prompting) and not entry.function
    for part in (f"{model.__name__}.start(", *([] if asks_nobody else [f'"{name}"'])):
        if part not in code:
            return f"notebooks/{notebook}.ipynb: its code does not say {part}; is it still that of another notebook?"
    return ""


def path_fault(value: str | list, what: str, whole: bool = False) -> str:
    """Return what is wrong with a path or Hub id, "" for nothing; `what`: see settings.PathOf.

    `whole`: a model folder must have its weights, too. A Hub id is looked up when it is loaded.
    """
    if isinstance(value, list):
        return next(filter(None, (path_fault(one, what) for one in value)), "")
    if not value:
        return ""
    if len(value.encode()) > 1000 or any(len(part.encode()) > 255 for part in value.split("/")):
        return f"{short(value)}: too long for a path"
    path = project_path(value)
    if what == "any":
        return "" if exists(path) else f"{short(value, 200)}: no such file or folder"
    if what != "folder" and not exists(path) and not is_path(value):
        right = HUB_ID.fullmatch(value) and "--" not in value and ".." not in value and len(value) <= 96
        return "" if right else f"{short(value)}: neither a folder nor a Hub id such as google-t5/t5-small"
    if not exists(path):
        return f"{short(value, 200)}: no such file or folder"
    if what in ("model", "vocabulary"):
        try:
            if packed := gguf_file(value):
                check_gguf(packed)
                return ""
        except StudyError as error:
            return str(error)
    if not path.is_dir():
        return f"{short(value, 200)}: a file, but a folder is wanted"
    if what == "vocabulary" and not has_tokenizer(path) and not (path / ADAPTER).is_file():
        return f"{short(value, 200)}: no tokenizer in this folder ({', '.join(TOKENIZER_FILES)})"
    if what == "model" and not any((path / file).is_file() for file in ("config.json", ADAPTER)):
        return f"{short(value, 200)}: no config.json; this is not a model folder"
    if what == "model" and whole:
        try:
            find_model(value)
        except StudyError as error:
            return str(error)
    return ""


def config_type_fault(config: dict, folder: str) -> tuple[str, str] | None:
    """Return (key, what) of a change whose type is not the one in a local model's config.json, else None."""
    try:
        own = json.loads((project_path(folder) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    for key, value in config.items() if own else []:
        usual = own.get(key) if isinstance(own, dict) else None
        types = type(usual) if isinstance(usual, bool) or not isinstance(usual, (int, float)) else (int, float)
        if usual is not None and (not isinstance(value, types) or isinstance(value, bool) != isinstance(usual, bool)):
            return short(key), f"{short(value)} is not of type {type(usual).__name__}"
    return None


def file_faults(name: str, entry: dict) -> Iterator[tuple[str, str]]:
    """Yield (key below the data set, what) where a data set has no reader, or files that are not there."""
    reader = entry.get("reader") or name
    if reader not in READERS:
        yield "", f"no reader {quoted(reader)}; known are {', '.join(sorted(READERS))} (key 'reader')"
        return
    known = READERS[reader]
    if not (known.make or known.hub or known.local or entry.get("files")):
        yield ".files", f"missing; '{reader}' has no files of its own: name them as {{train: …, dev: …, test: …}}"
    folder = entry.get("folder") or os.environ.get("KDUTILS_DATA", "")
    if not entry.get("folder") and folder and not Path(folder).is_dir():
        yield "", f"KDUTILS_DATA names {folder}, which is no folder"
    for split, file in entry.get("files", {}).items():
        path = project_path(folder) / file
        if not path_kind(path):
            yield f".files.{split}", f"{short(str(path), 200)}: no such file"


def check_data(experiment: Experiment) -> list[str]:
    """Read the questions of every data set whose files are here; StudyError for what a run would stop at.

    Nothing is downloaded: data sets of the Hub are left out. So are finished ones whose files are gone, if their record
    of inputs is gone, too; else they are refused, because they would run again and fail, or read other data. The result
    has a line for each split that is smaller than its limit.
    """
    lines = []
    for job in experiment.jobs:
        _check_not_lost(experiment, job)
        if job.kind != "data":
            continue
        given = {**SETTINGS[DATA].defaults(), **job.parameters}
        made, files = _sources(given)
        finished = (experiment.folder / job.folder / "metrics.json").is_file()
        if not made and (not files or finished and not any(map(path_kind, files))):
            continue
        counts = read_job_questions(given)["split"].value_counts()
        missing = [split for split in SPLITS if split not in counts]
        if missing:
            raise StudyError(f"data set '{given['dataset']}': no questions in the split {' and '.join(missing)}; a run "
                             "needs train, dev and test (dev is drawn from train if no file is given for it)")
        lines += [f"data set '{given['dataset']}': {limit} questions of {split} are wanted, there are {counts[split]}"
                  for split, limit in job.parameters.get("limits", {}).items() if limit > counts[split]]
    return lines


def _check_not_lost(experiment, job):
    """Raise StudyError for a finished job whose tables were read from files of which none is found any more.

    Most often KDUTILS_DATA is not set. An experiment file that names another source of them is no fault.
    """
    folder = experiment.folder / job.folder
    if job.kind != "data" and job.parameters.get("backend") != "published" or not (folder / "metrics.json").is_file():
        return
    try:
        kept = read_json(folder / INPUTS)
        files, given = list(kept["files"]), kept["parameters"]
    except (StudyError, LookupError, TypeError):
        return
    if files and all(given.get(key) == job.parameters.get(key) for key in SOURCE) and not files_of(job):
        own = next((key for key in ("folder", "published_folder") if job.parameters.get(key)), "")
        what = f"bring them back below its {own}" if own else "set KDUTILS_DATA to their folder, or bring them back"
        raise StudyError(f"{folder}: was made from files ({short(files[0], 200)}) of which none is found now; {what}. "
                         f"To make it anew without them, delete {folder}")


def questions_are_here(given: dict) -> bool:
    """Return whether the questions of a data job's parameters can be read without a download."""
    made, files = _sources(given)
    return made or bool(files) and all(map(path_kind, files))


def _sources(given):
    """Return (whether the questions are made by a program, the files that they are read from)."""
    dataset = given["reader"] or given["dataset"]
    return bool(READERS[dataset].make), list(question_files(dataset, given["folder"], given["files"]).values())


def read_job_questions(given: dict) -> pd.DataFrame:
    """Return the questions of a data job's parameters; they are read again only when a file has changed."""
    stamps = [(str(path), *file_stamp(path)) for path in _sources(given)[1] if path_kind(path)]
    return _read(json.dumps(given), tuple(stamps))


@lru_cache(maxsize=8)
def _read(given, _):
    given = json.loads(given)
    keys = ("folder", "files", "seed", "revision", "unlabelled")
    source = (given["reader"] or given["dataset"], *(given[key] for key in keys))
    return limit_questions(read_questions(*source), given["limits"], given["seed"])


# What the result of a job depends on

def depends_on(job: Job) -> dict[str, str]:
    """Return {what: its digest} of all that the result of `job` depends on, besides the results of earlier jobs."""
    return {"parameters": _digest(json.dumps(job.parameters, sort_keys=True)),
            "notebook": notebook_digest(NOTEBOOKS / f"{job.notebook}.ipynb"),
            "code": _digest(json.dumps(code_of(job))), "files": digest_of(files_of(job))}


def notebook_digest(path: Path) -> str:
    """Return the digest of a notebook's cells: their kind, tags and source, not outputs or counters saved with them."""
    cells = [(cell["cell_type"], cell["metadata"].get("tags", []), "".join(cell["source"]))
             for cell in read_json(path)["cells"]]
    return _digest(json.dumps(cells))


def code_of(job: Job) -> dict[str, str]:
    """Return {file: digest} of the code of this package that the notebook of `job` imports."""
    cells = read_json(NOTEBOOKS / f"{job.notebook}.ipynb")["cells"]
    return code_digests("\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"))


def files_of(job: Job) -> list[Path]:
    """Return the files outside the experiment and the code that `job` reads.

    These are tables of questions, published explanations, prompts, ratings, and the files of models, vocabularies and
    encoders in local folders. A path that is not there is left out: the job itself reports it.
    """
    given, data = job.parameters, os.environ.get("KDUTILS_DATA", "")
    own = project_path(Path(*Path(given["output"]).parts[:2]))  # what the experiment makes itself comes later
    files = [path for name in _models_of(given) for folder in _model_folders(name) for path in _below(folder)
             if not path.is_relative_to(own)]
    if job.kind == "data":
        with suppress(StudyError):  # a reader without files: the job itself reports it
            paths = question_files(given.get("reader") or given["dataset"], given.get("folder", ""), given.get("files"))
            files += [file for path in paths.values() for file in _below(path)]
    if given.get("backend") == "published":
        if given.get("published_folder") or data:
            files += published_files(given["dataset"], given.get("published_teacher", "llama"),
                                     given.get("published_folder") or data, bool(given.get("published_folder")))
    elif job.kind in ("explanations", "labels"):
        files += _prompt_files(job)
    files += [project_path(given["chat_template"])] if given.get("chat_template") else []
    told = given.get("explanations", "") if job.kind == "human_study" else ""
    for path in (*given.get("ratings", []), *filter(None, [told])):
        files += [file for file in _below(project_path(path)) if not file.is_relative_to(own)]
    return sorted({path for path in files if path.is_file()})


def _prompt_files(job):
    """Return the prompt files that an explaining job uses: those of its prompting, and those of all data sets.

    The shots are among them in any case, because texts are compared with them.
    """
    entry = next((one for one in PROMPTINGS.values() if one.notebook == job.notebook), PROMPTINGS["few_shot"])
    if not entry.function:
        return []
    folder = prompting.prompt_folder(prompting.prompts_named(job.parameters))
    return [*prompting.FOLDER.glob("*.txt"),
            *(folder / f"{name}.txt" for name in dict.fromkeys(("few_shot", *entry.prompt_files)))]


def _models_of(given):
    """Return the names of models in the parameters of a job, those inside mappings (a simulator) included."""
    mappings = [given, *(value for value in given.values() if isinstance(value, dict))]
    names = [one.get(key) for one in mappings for key in ("model", "tokenizer", "encoder", "nli", "distilled_from")
             if one.get("backend") != "openai"]  # a server names its models as it likes
    return sorted({name for name in names if isinstance(name, str) and name})


def _model_folders(name):
    """Return the folders of this machine that hold a model: for an adapter also its base, for one on the Hub none."""
    try:
        folders = local_folders(name)
        where = Path(locate_model(name, needs_weights=False)) if not folders else Path()
    except StudyError:
        return []
    return folders or ([where] if where.is_absolute() else [])


def _below(path):
    """Return a file, or the files of a folder at any depth."""
    try:
        return [path] if path.is_file() else visible_files(path)
    except OSError:  # a name too long, no permission: the job itself reports it
        return []


def digest_of(paths: Iterable[Path]) -> str:
    """Return one digest of the names and contents of files."""
    return _digest("".join(f"{_file_digest(path, *file_stamp(path))}  {Path(path).name}\n" for path in paths))


@cache
def _file_digest(path, size, changed):
    return sha256(path)


def _digest(text):
    return hashlib.sha256(text.encode()).hexdigest()
