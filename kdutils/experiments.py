"""Experiments: a YAML file that names a grid of runs, checked before anything runs, and the jobs it makes.

A job is one notebook with its parameters; its folder below ``outputs/<experiment>/`` says what it is:
``data/<data set>``, ``explanations/<data set>/<teacher>/<prompting>``,
``students/<data set>/<teacher>/<prompting>/<method>/<student>/seeds-<…>``, the same below
``evaluations/``, and ``comparison``.
"""

import os
import re
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import yaml

from kdutils.data.questions import SPLITS
from kdutils.data.sources import is_path
from kdutils.errors import StudyError
from kdutils.runs import PROJECT, project_path

FOLDER = PROJECT / "notebooks" / "experiments"
NOTEBOOKS = PROJECT / "notebooks"
OUTPUTS = PROJECT / "outputs"

# What each step of the grid runs. A new prompting or method is one entry here.
DATA = "01_look_at_the_data"
PROMPTINGS = {"few_shot": "02_explain_few_shot"}
METHODS = {"standard": "11_train_standard", "multitask": "12_train_multitask"}
EVALUATION = "21_evaluate_student"
COMPARISON = "31_compare_methods"

# Parameters that the study sets from the grid; an experiment may not set them itself.
SET_BY_STUDY = {"output", "dataset", "questions", "explanations", "seeds", "labels", "students", "evaluations",
                "trainings", "experiment", "missing"}
KEYS = {  # key: (type, needed)
    "about": (str, True), "needs": (str, True), "took": (str, False), "datasets": (dict, True),
    "teachers": (dict, True), "promptings": (dict, True), "methods": (dict, True), "students": (dict, True),
    "seeds": (list, True), "seeds_per_job": (int, False), "threads_per_job": (int, False),
    "training": (dict, False), "evaluation": (dict, False), "comparison": (dict, False),
}
PATHS = {"folder", "published_folder", "model", "tokenizer"}  # parameters that may name a local path
NAMES = {"backend": ("hf", "published"), "quantization": ("none", "int8", "nf4"),
         "published_teacher": ("llama", "qwen")}
SHARES = {"alpha"}  # parameters between 0 and 1
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
TYPES = {"str": str, "int": int, "float": float, "bool": bool, "list": list, "dict": dict}


@dataclass(frozen=True)
class Job:
    """One notebook to run: `folder` is relative to the experiment's, `needs` are folders of earlier jobs."""

    kind: str
    folder: str
    notebook: str
    parameters: dict
    needs: tuple = ()
    labels: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Experiment:
    """A checked experiment: what its file says, and its jobs in an order in which they can run."""

    name: str
    settings: dict
    jobs: list

    @property
    def folder(self):
        return OUTPUTS / self.name


class _Loader(yaml.SafeLoader):
    """YAML without tags of Python and without a key that stands twice."""

    def construct_mapping(self, node, deep=False):
        keys = [key.value for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.YAMLError(f"the key '{key}' stands twice")
        return super().construct_mapping(node, deep)


def experiment_names():
    """Return the names of the experiments that are there."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_experiment(name):
    """Return the Experiment of a name or of a path to a YAML file; StudyError naming file and key."""
    path = Path(name) if str(name).endswith((".yaml", ".yml")) else FOLDER / f"{name}.yaml"
    if not path.is_file():
        raise StudyError(f"{path}: no such experiment; there are: {', '.join(experiment_names())}")
    try:
        settings = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise StudyError(f"{path}: not readable YAML: {' '.join(str(error).split())}") from error
    _check_keys(settings, path)
    _check_grid(settings, path)
    _check_parameters(settings, path)
    if not NAME.fullmatch(path.stem):
        raise StudyError(f"{path}: a file name of letters, digits, '.', '_' and '-' please: it names a folder")
    return Experiment(path.stem, settings, list(make_jobs(path.stem, settings)))


def _check_keys(settings, path):
    if not isinstance(settings, dict):
        raise StudyError(f"{path}: an experiment is a mapping of keys")
    for key, value in settings.items():
        if key not in KEYS:
            raise StudyError(f"{path}: key '{key}': unknown; known are {', '.join(KEYS)}")
        wanted = KEYS[key][0]
        if not isinstance(value, wanted) or isinstance(value, bool):
            raise StudyError(f"{path}: key '{key}': {value!r} is not of type {wanted.__name__}")
    for key, (_, needed) in KEYS.items():
        if needed and not settings.get(key):
            raise StudyError(f"{path}: key '{key}': missing or empty")


def _check_grid(settings, path):
    seeds = settings["seeds"]
    if not all(isinstance(seed, int) and not isinstance(seed, bool) and seed >= 0 for seed in seeds):
        raise StudyError(f"{path}: key 'seeds': {seeds} are not whole numbers from 0 on")
    if len(set(seeds)) != len(seeds):
        raise StudyError(f"{path}: key 'seeds': {seeds} holds a seed twice")
    for key in ("seeds_per_job", "threads_per_job"):
        if settings.get(key, 1) < 1:
            raise StudyError(f"{path}: key '{key}': {settings[key]} is less than 1")
    for key, known in {"promptings": PROMPTINGS, "methods": METHODS}.items():
        for name in settings[key]:
            if name not in known:
                raise StudyError(f"{path}: key '{key}.{name}': unknown; known are {', '.join(known)}")
    for key in ("datasets", "teachers", "promptings", "methods", "students"):
        for name, value in settings[key].items():
            if not NAME.fullmatch(str(name)):
                raise StudyError(f"{path}: key '{key}.{name}': a name of letters, digits, '.', '_' and '-' please")
            if not isinstance(value, dict):
                raise StudyError(f"{path}: key '{key}.{name}': parameters as a mapping please, {{}} for none")


def _check_parameters(settings, path):
    explains, trains = [PROMPTINGS[p] for p in settings["promptings"]], [METHODS[m] for m in settings["methods"]]
    for name, values in settings["datasets"].items():
        _check_values(values, [DATA], f"datasets.{name}", path)
        _check_reader(name, values, path)
        _check_files(values, f"datasets.{name}", path)
    for name, values in settings["teachers"].items():
        _check_values(values, explains, f"teachers.{name}", path)
    for name, values in settings["promptings"].items():
        _check_values(values, [PROMPTINGS[name]], f"promptings.{name}", path)
    for name, values in settings["methods"].items():
        _check_values(values, [METHODS[name]], f"methods.{name}", path)
    for name, values in settings["students"].items():
        _check_values(values, trains, f"students.{name}", path)
    _check_values(settings.get("training", {}), trains, "training", path)
    _check_values(settings.get("evaluation", {}), [EVALUATION], "evaluation", path)
    _check_values(settings.get("comparison", {}), [COMPARISON], "comparison", path)


def _check_values(values, notebooks, where, path):
    """Check every value against the parameters cells of all `notebooks` that it goes to."""
    for key, value in values.items():
        label = f"{path}: key '{where}.{key}'"
        if key in SET_BY_STUDY:
            raise StudyError(f"{label}: the study sets this parameter itself")
        for notebook in notebooks:
            known = notebook_parameters(notebook)
            if key not in known:
                raise StudyError(f"{label}: {notebook} has no such parameter; it has "
                                 f"{', '.join(sorted(set(known) - SET_BY_STUDY))}")
            if not _has_type(value, known[key]):
                raise StudyError(f"{label}: {value!r} is not of type {known[key]}")
        _check_meaning(key, value, label)
        if key in PATHS and value and is_path(value) and not project_path(value).exists():
            raise StudyError(f"{label}: {value}: no such file or folder")


def _check_meaning(key, value, label):
    """Check the values that a type does not: names out of a list, shares, splits."""
    if key in NAMES and value not in NAMES[key]:
        raise StudyError(f"{label}: unknown '{value}'; known are {', '.join(NAMES[key])}")
    if key in SHARES and not 0 <= value <= 1:
        raise StudyError(f"{label}: {value} is not between 0 and 1")
    if key in ("limits", "files"):
        for split in value:
            if split not in (*SPLITS, "all"):
                raise StudyError(f"{label}: unknown split '{split}'; known are {', '.join(SPLITS)}")
    if key == "limits" and not all(isinstance(limit, int) and limit >= -1 for limit in value.values()):
        raise StudyError(f"{label}: {value}: whole numbers please, -1 for all")


def _check_reader(name, values, path):
    from kdutils.data.readers import READERS

    reader = values.get("reader") or name
    if reader not in READERS:
        raise StudyError(f"{path}: key 'datasets.{name}': no reader '{reader}'; known are {', '.join(sorted(READERS))} "
                         "(key 'reader')")


def _check_files(values, where, path):
    folder = values.get("folder") or os.environ.get("KDUTILS_DATA", "")
    if not values.get("folder") and folder and not Path(folder).is_dir():
        raise StudyError(f"{path}: key '{where}': KDUTILS_DATA names {folder}, which is no folder")
    for split, file in values.get("files", {}).items():
        if not (project_path(folder) / str(file)).exists():
            raise StudyError(f"{path}: key '{where}.files.{split}': {project_path(folder) / str(file)}: no such file")


def _has_type(value, name):
    if isinstance(value, bool) or name == "bool":
        return isinstance(value, bool) and name == "bool"
    return isinstance(value, (int, float) if name == "float" else TYPES[name])


@cache
def notebook_parameters(notebook):
    """Return {parameter: type name} of a notebook's parameters cell, as papermill reads it."""
    from papermill import inspect_notebook

    return {name: entry["inferred_type_name"] for name, entry in
            inspect_notebook(str(NOTEBOOKS / f"{notebook}.ipynb")).items()}


def make_jobs(name, settings):
    """Yield the jobs of an experiment, each after those it needs."""
    root = f"outputs/{name}"
    cells = []
    for dataset, values in settings["datasets"].items():
        data = Job("data", f"data/{dataset}", DATA,
                   {"dataset": dataset, **values, "output": f"{root}/data/{dataset}"}, (), {"dataset": dataset})
        yield data
        for teacher, prompting in _pairs(settings["teachers"], settings["promptings"]):
            explain = _explain_job(root, settings, data, teacher, prompting)
            yield explain
            for method, student in _pairs(settings["methods"], settings["students"]):
                for seeds in _groups(settings["seeds"], settings.get("seeds_per_job", len(settings["seeds"]))):
                    train = _train_job(root, settings, data, explain, method, student, seeds)
                    evaluate = _evaluate_job(root, settings, data, explain, train)
                    cells.append((train, evaluate))
                    yield from (train, evaluate)
    yield Job("comparison", "comparison", COMPARISON, {
        **settings.get("comparison", {}), "experiment": name, "output": f"{root}/comparison",
        "trainings": [f"{root}/{train.folder}" for train, _ in cells],
        "evaluations": [f"{root}/{evaluate.folder}" for _, evaluate in cells], "missing": [],
    }, tuple(job.folder for cell in cells for job in cell))


def local_inputs(job):
    """Return the files outside the experiment that a job reads: data, published tables, models in local folders."""
    from kdutils.data.readers import READERS

    given, data = job.parameters, os.environ.get("KDUTILS_DATA", "")
    found = [path for key in ("model", "tokenizer") if given.get(key)
             for path in project_path(given[key]).glob("*")]
    if job.kind == "data" and (given.get("folder") or data):
        reader = READERS[given.get("reader") or given["dataset"]]
        files = given.get("files") or reader.local
        found += [project_path(given.get("folder") or data) / file for file in files.values()]
    if given.get("backend") == "published" and (given.get("published_folder") or data):
        folder = project_path(given.get("published_folder") or f"{data}/teacher_llama")
        found += folder.glob(f"{given['dataset']}-{given.get('published_teacher', 'llama')}-*.parquet")
    return sorted(str(path) for path in found if path.is_file())


def unfinish_downstream(experiment):
    """Make unfinished again every run that builds on an unfinished one: its results are of something else."""
    unfinished = set()
    for job in experiment.jobs:
        metrics = experiment.folder / job.folder / "metrics.json"
        if not metrics.is_file() or unfinished & set(job.needs):
            unfinished.add(job.folder)
            metrics.unlink(missing_ok=True)


def comparison_of_finished(experiment):
    """Return the comparison job over the evaluations that are finished, the others named as missing.

    None where no evaluation is finished. For an experiment in which a run failed: its report is not withheld.
    """
    comparison = experiment.jobs[-1]
    cells = zip(comparison.parameters["trainings"], comparison.parameters["evaluations"], strict=True)
    there = [cell for cell in cells if all((PROJECT / folder / "metrics.json").is_file() for folder in cell)]
    missing = sorted(set(comparison.parameters["evaluations"]) - {evaluation for _, evaluation in there})
    parameters = {**comparison.parameters, "trainings": [train for train, _ in there],
                  "evaluations": [evaluation for _, evaluation in there], "missing": missing}
    needs = tuple(path.removeprefix(f"outputs/{experiment.name}/") for cell in there for path in cell)
    return replace(comparison, parameters=parameters, needs=needs) if there else None


def _pairs(first, second):
    return [(one, two) for one in first for two in second]


def _groups(seeds, size):
    return [seeds[start:start + size] for start in range(0, len(seeds), size)]


def _explain_job(root, settings, data, teacher, prompting):
    folder = f"explanations/{data.labels['dataset']}/{teacher}/{prompting}"
    reader = data.parameters.get("reader", "")
    name = data.labels["dataset"] if reader in ("", "table") else reader  # whose prompts and published files
    parameters = {"dataset": name, **settings["teachers"][teacher],
                  **settings["promptings"][prompting], "questions": f"{root}/{data.folder}/questions.parquet",
                  "output": f"{root}/{folder}"}
    return Job("explanations", folder, PROMPTINGS[prompting], parameters, (data.folder,),
               {**data.labels, "teacher": teacher, "prompting": prompting})


def _train_job(root, settings, data, explain, method, student, seeds):
    folder = f"students/{explain.folder.partition('/')[2]}/{method}/{student}/seeds-{'-'.join(map(str, seeds))}"
    parameters = {**settings.get("training", {}), **settings["methods"][method], **settings["students"][student],
                  "questions": f"{root}/{data.folder}/questions.parquet",
                  "explanations": f"{root}/{explain.folder}/explanations.parquet",
                  "output": f"{root}/{folder}", "seeds": seeds}
    parameters["labels"] = {**explain.labels, "method": method, "student": student}
    return Job("students", folder, METHODS[method], parameters, (data.folder, explain.folder),
               {**parameters["labels"], "seeds": ", ".join(map(str, seeds))})


def _evaluate_job(root, settings, data, explain, train):
    folder = f"evaluations/{train.folder.partition('/')[2]}"
    parameters = {**settings.get("evaluation", {}), "questions": f"{root}/{data.folder}/questions.parquet",
                  "explanations": f"{root}/{explain.folder}/explanations.parquet",
                  "students": f"{root}/{train.folder}", "seeds": train.parameters["seeds"],
                  "labels": train.parameters["labels"], "output": f"{root}/{folder}"}
    return Job("evaluations", folder, EVALUATION, parameters, (data.folder, explain.folder, train.folder), train.labels)
