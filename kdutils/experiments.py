"""Experiments: a YAML file that names a grid of runs, checked before anything runs, and the jobs it makes.

A job is one notebook with its parameters; its folder below ``outputs/<experiment>/`` says what it is:
``data/<data set>``, ``teachers/<data set>/<teacher>`` (one that the study fine-tunes itself),
``explanations/<data set>/<teacher>/<prompting>``, ``report``,
``students/<data set>/<teacher>/<prompting>/<method>/<student>/seeds-<…>``, the same below
``evaluations/``, and below ``transfers/<other data set>/`` where the key `transfer` names data sets to test on, too;
``human_study`` and ``human_ratings`` (where the experiment has a key `human_study`), and
``comparison``.

Every teacher is asked with every prompting and every method trained on each, unless an entry of ``teachers`` or
``methods`` says under ``promptings`` with which; every student learns by every method, unless it says under
``methods`` by which. Explanations of wrong answers train no student by themselves: they go to the methods that need
them. A method that needs no explanation is trained once. A prompting or method that is there in several forms has
names of its own, each saying under ``as`` what it is. A control of the kind ``shuffled`` may say under
``rationales_of`` from which other data set of the experiment it takes its texts, of the same teacher and prompting;
on that data set itself it has no cell: there the plain ``shuffled`` is what serves as the control.
"""

import ast
import os
import re
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import yaml

from kdutils.data.questions import SPLITS
from kdutils.data.sources import is_path
from kdutils.errors import StudyError
from kdutils.runs import PROJECT, project_path, read_json

FOLDER = PROJECT / "notebooks" / "experiments"
NOTEBOOKS = PROJECT / "notebooks"
OUTPUTS = PROJECT / "outputs"

# What each step of the grid runs. A new prompting or method is one entry here.
DATA = "01_look_at_the_data"
TUNING = "10_train_label_only"  # of a teacher with the key `finetune`
PROMPTINGS = {"few_shot": "02_explain_few_shot", "critique_revision": "03_explain_critique_revision",
              "counterfactual": "04_explain_counterfactual", "tokens": "05_explain_tokens",
              "contrastive": "06_explain_contrastive"}
ONE_EACH = {"few_shot", "critique_revision", "tokens", "contrastive"}  # what a student can learn from by itself
REPORT = "07_judge_explanations"
PEOPLE, RATINGS = "22_make_human_study", "23_analyse_human_study"
METHODS = {"label_only": "10_train_label_only", "standard": "11_train_standard", "multitask": "12_train_multitask",
           "counterfactual": "13_train_counterfactual", "combined": "14_train_combined",
           "token_rationale": "15_train_token_rationale", "shuffled": "16_train_shuffled",
           "random_tokens": "17_train_random_tokens", "untagged": "18_train_untagged"}
UNEXPLAINED = {"label_only"}  # methods that read no explanation
CONTRARY = {"counterfactual", "combined", "untagged"}  # methods that read explanations of wrong answers, too
EVALUATION = "21_evaluate_student"
COMPARISON = "31_compare_methods"

# Parameters that the study sets from the grid; an experiment may not set them itself.
SET_BY_STUDY = {"output", "dataset", "questions", "explanations", "seeds", "labels", "students", "evaluations",
                "trainings", "experiment", "missing", "explained", "counterfactuals", "method", "plan",
                "other_questions", "other_explanations"}
OF_THE_GRID = {"teachers": {"promptings": list, "finetune": dict}, "promptings": {"as": str},
               "methods": {"promptings": list, "as": str, "rationales_of": str}, "students": {"methods": list},
               "human_study": {"methods": list, "promptings": list}}  # keys of an entry that are no parameters
KEYS = {  # key: (type, needed)
    "about": (str, True), "needs": (str, True), "took": (str, False), "datasets": (dict, True),
    "teachers": (dict, True), "promptings": (dict, True), "methods": (dict, True), "students": (dict, True),
    "seeds": (list, True), "seeds_per_job": (int, False), "threads_per_job": (int, False),
    "training": (dict, False), "evaluation": (dict, False), "comparison": (dict, False), "report": (dict, False),
    "human_study": (dict, False), "human_ratings": (dict, False), "transfer": (list, False),
    "resources": (dict, False),
}
# What one job may use, for a cluster that wants to know: name: (least, usual). 0 minutes: what the cluster gives.
RESOURCES = {"memory_mb": (100, 8000), "minutes": (1, 0), "gpus": (0, 0)}
MOST = 100_000_000
KINDS = ("data", "teachers", "explanations", "report", "students", "evaluations", "human_study", "comparison")
PATHS = {"folder", "published_folder", "model", "tokenizer"}  # parameters that may name a local path
NAMES = {"backend": ("hf", "openai", "published"), "quantization": ("none", "int8", "nf4"),
         "published_teacher": ("llama", "qwen", "palm", "people"), "against": ("wrong", "empty"),
         "attribution": ("saliency", "input_x_gradient", "integrated_gradients", "attention_rollout", "random")}
SHARES = {"alpha"}  # parameters between 0 and 1
LEAST = {"attributed_words": 1, "attributed_questions": 0}  # the least that a parameter can be
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


def load_experiment(name, tiny=False):
    """Return the Experiment of a name or of a path to a YAML file; StudyError naming file and key.

    `tiny`: with tiny models and few questions (tiny.py), under a name of its own.
    """
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
    name = path.stem
    if tiny:
        from kdutils.tiny import tiny as made_tiny

        name, settings = f"{name}-tiny", made_tiny(settings)
    return Experiment(name, settings, list(make_jobs(name, settings)))


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
    for key in ("datasets", "teachers", "promptings", "methods", "students"):
        for name, value in settings[key].items():
            if not NAME.fullmatch(str(name)):
                raise StudyError(f"{path}: key '{key}.{name}': a name of letters, digits, '.', '_' and '-' please")
            if not isinstance(value, dict):
                raise StudyError(f"{path}: key '{key}.{name}': parameters as a mapping please, {{}} for none")
            _check_choice(key, name, value, settings, path)
    for key, known in {"promptings": PROMPTINGS, "methods": METHODS}.items():
        for name in settings[key]:
            if kind_of(settings, key, name) not in known:
                raise StudyError(f"{path}: key '{key}.{name}': unknown; known are {', '.join(known)} (or one of them "
                                 "under the key 'as')")
    for name in settings.get("transfer", []):
        if name not in settings["datasets"]:
            raise StudyError(f"{path}: key 'transfer': '{name}' is not among this experiment's data sets: "
                             f"{', '.join(settings['datasets'])}")
    _check_resources(settings.get("resources", {}), path)
    _check_cells(settings, path)


def _check_resources(entry, path, where="resources"):
    """Check what jobs may use: numbers for all of them, and under the name of a kind of job those of that kind."""
    known = (*RESOURCES, *KINDS) if where == "resources" else tuple(RESOURCES)
    for key, value in entry.items():
        label = f"{path}: key '{where}.{key}'"
        if key not in known:
            raise StudyError(f"{label}: unknown; known are {', '.join(known)}")
        if key in KINDS:
            if not isinstance(value, dict):
                raise StudyError(f"{label}: a mapping please, such as {{gpus: 1}}")
            _check_resources(value, path, f"{where}.{key}")
        elif not isinstance(value, int) or isinstance(value, bool) or not RESOURCES[key][0] <= value <= MOST:
            raise StudyError(f"{label}: a whole number from {RESOURCES[key][0]} to {MOST} please")


def resources_of(settings, kind):
    """Return {memory_mb, minutes, gpus} of the jobs of a kind: what is said for the kind, else for all, else usual."""
    entry = settings.get("resources", {})
    return {name: entry.get(kind, {}).get(name, entry.get(name, usual)) for name, (_, usual) in RESOURCES.items()}


def _check_cells(settings, path):
    """Check that every method has something to learn from."""
    for method in settings["methods"]:
        kind = kind_of(settings, "methods", method)
        _check_lender(settings, method, path)
        if not any(method in methods_of(settings, student) for student in settings["students"]):
            raise StudyError(f"{path}: key 'methods.{method}': no student learns by it; name it under a student's "
                             "`methods`")
        cells = [teacher for teacher in settings["teachers"] if promptings_of(settings, teacher, method)]
        if kind not in UNEXPLAINED and not cells:
            raise StudyError(f"{path}: key 'methods.{method}': no teacher has explanations for it; ask one "
                             f"with a prompting of the kind {', '.join(sorted(ONE_EACH))}")
        for teacher in cells if kind in CONTRARY else []:
            if not _contrary_prompting(settings, teacher):
                raise StudyError(f"{path}: key 'methods.{method}': it needs explanations of wrong answers; ask teacher "
                                 f"'{teacher}' with the prompting counterfactual, too, or say with `promptings` on "
                                 "which texts to train")


def _check_lender(settings, method, path):
    """Check the data set that a control takes its texts from."""
    entry, label = settings["methods"][method], f"{path}: key 'methods.{method}.rationales_of'"
    if "rationales_of" not in entry:
        return
    if kind_of(settings, "methods", method) != "shuffled":
        raise StudyError(f"{label}: the control 'shuffled' alone takes rationales of another data set")
    if entry["rationales_of"] not in settings["datasets"]:
        raise StudyError(f"{label}: '{entry['rationales_of']}' is not among this experiment's data sets: "
                         f"{', '.join(settings['datasets'])}")
    if len(settings["datasets"]) == 1:
        raise StudyError(f"{label}: '{entry['rationales_of']}' is the only data set; there is no other one whose "
                         "questions could get its rationales")


def kind_of(settings, key, name):
    """Return what an entry of promptings or methods is: its name, or what it says under `as`."""
    return settings[key][name].get("as", name)


def _contrary_prompting(settings, teacher):
    """Return the prompting by which `teacher` explains wrong answers, "" for none."""
    return next((prompting for prompting in promptings_of(settings, teacher)
                 if kind_of(settings, "promptings", prompting) == "counterfactual"), "")


def _check_choice(key, name, value, settings, path):
    """Check what an entry says that is no parameter but where in the grid it stands."""
    for word, wanted in OF_THE_GRID.get(key, {}).items():
        if word in value and not isinstance(value[word], wanted):
            raise StudyError(f"{path}: key '{key}.{name}.{word}': {value[word]!r} is not of type {wanted.__name__}")
        if word in value and wanted is list and not value[word]:
            raise StudyError(f"{path}: key '{key}.{name}.{word}': empty; leave the key out for all of them")
        for other in value.get(word, []) if word in ("promptings", "methods") else []:
            if not isinstance(other, str) or other not in settings[word]:
                raise StudyError(f"{path}: key '{key}.{name}.{word}': '{other}' is not among this experiment's "
                                 f"{word}: {', '.join(settings[word])}")


def promptings_of(settings, teacher, method=None):
    """Return the promptings with which `teacher` is asked, or of those the ones on which `method` is trained."""
    asked = settings["teachers"][teacher].get("promptings", list(settings["promptings"]))
    if method is None:
        return asked
    trained = settings["methods"][method].get("promptings", list(settings["promptings"]))
    if kind_of(settings, "methods", method) in UNEXPLAINED:
        return []
    return [prompting for prompting in asked
            if prompting in trained and kind_of(settings, "promptings", prompting) in ONE_EACH]


def methods_of(settings, student):
    """Return the methods that `student` is trained with."""
    return settings["students"][student].get("methods", list(settings["methods"]))


def _parameters(entry, key):
    """Return the parameters of an entry: what OF_THE_GRID does not name."""
    return {name: value for name, value in entry.items() if name not in OF_THE_GRID.get(key, {})}


def _check_parameters(settings, path):
    trains = {method: METHODS[kind_of(settings, "methods", method)] for method in settings["methods"]}
    explains = {name: PROMPTINGS[kind_of(settings, "promptings", name)] for name in settings["promptings"]}
    for name, values in settings["datasets"].items():
        _check_values(values, [DATA], f"datasets.{name}", path)
        _check_reader(name, values, path)
        _check_files(values, f"datasets.{name}", path)
    for name, values in settings["teachers"].items():
        asked = [explains[prompting] for prompting in promptings_of(settings, name)]
        _check_values(_parameters(values, "teachers"), asked, f"teachers.{name}", path)
        _check_values(values.get("finetune", {}), [TUNING], f"teachers.{name}.finetune", path)
    for name, values in settings["promptings"].items():
        _check_values(_parameters(values, "promptings"), [explains[name]], f"promptings.{name}", path)
    for name, values in settings["methods"].items():
        _check_values(_parameters(values, "methods"), [trains[name]], f"methods.{name}", path)
    for name, values in settings["students"].items():
        learnt = [trains[method] for method in methods_of(settings, name)]
        if values.get("kind") == "classifier" and set(learnt) != {METHODS["label_only"]}:
            raise StudyError(f"{path}: key 'students.{name}': a classifier cannot write, it learns label_only alone; "
                             "say so under `methods`")
        _check_values(_parameters(values, "students"), learnt, f"students.{name}", path)
    _check_values(settings.get("training", {}), trains.values(), "training", path)
    _check_values(settings.get("evaluation", {}), [EVALUATION], "evaluation", path)
    _check_values(settings.get("comparison", {}), [COMPARISON], "comparison", path)
    _check_values(settings.get("report", {}), [REPORT], "report", path)
    _check_choice("human_study", "", settings.get("human_study", {}), settings, path)
    _check_values(_parameters(settings.get("human_study", {}), "human_study"), [PEOPLE], "human_study", path)
    _check_values(settings.get("human_ratings", {}), [RATINGS], "human_ratings", path)


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
    if key in LEAST and value < LEAST[key]:
        raise StudyError(f"{label}: {value} is less than {LEAST[key]}")
    if key in SHARES and not 0 <= value <= 1:
        raise StudyError(f"{label}: {value} is not between 0 and 1")
    if key in ("limits", "files"):
        for split in value:
            if split not in (*SPLITS, "all"):
                raise StudyError(f"{label}: unknown split '{split}'; known are {', '.join(SPLITS)}")
    if key == "reader" and isinstance(value, dict) and value:
        _check_reading(value, label)
    if key == "limits" and not all(isinstance(limit, int) and limit >= -1 for limit in value.values()):
        raise StudyError(f"{label}: {value}: whole numbers please, -1 for all")


def _check_reading(value, label):
    """Check the settings of a language model that reads explanations (key `reader` of the evaluation)."""
    from kdutils.student.simulator import STUDENT, TRAINING, check_reader

    try:
        check_reader(value)
    except StudyError as error:
        raise StudyError(f"{label}: {error}") from None
    for name, usual in (STUDENT | TRAINING).items():
        if name in value and not _has_type(value[name], type(usual).__name__):
            raise StudyError(f"{label[:-1]}.{name}': {value[name]!r} is not of type {type(usual).__name__}")
    for name in set(TRAINING) & set(value):
        if value[name] <= 0 and name != "warmup_steps" or value[name] < 0:
            raise StudyError(f"{label[:-1]}.{name}': {value[name]} is too little")
    for name in sorted(PATHS & set(value)):
        if value[name] and is_path(value[name]) and not project_path(value[name]).exists():
            raise StudyError(f"{label[:-1]}.{name}': {value[name]}: no such file or folder")


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


@cache
def notebook_defaults(notebook):
    """Return {parameter: value} of a notebook's parameters cell."""
    from papermill import inspect_notebook

    return {name: ast.literal_eval(entry["default"]) for name, entry in
            inspect_notebook(str(NOTEBOOKS / f"{notebook}.ipynb")).items()}


def planned_cost(experiment, job):
    """Return what the explaining `job` would cost now as a store.Plan, or None where nobody is asked.

    The questions are those of the data job's table, or read anew where it has not run yet or ran otherwise.
    """
    from kdutils.data.readers import limit_questions, read_questions
    from kdutils.data.tables import read_table
    from kdutils.teacher.explaining import PROMPTED, plan

    parameters = {**notebook_defaults(job.notebook), **job.parameters}
    prompting = next(kind for kind, notebook in PROMPTINGS.items() if notebook == job.notebook)
    if prompting not in PROMPTED or parameters["backend"] == "published":
        return None
    data = next(one for one in experiment.jobs if one.folder in job.needs and one.kind == "data")
    given, path = {**notebook_defaults(DATA), **data.parameters}, project_path(parameters["questions"])
    made = path.parent / "run.json"
    if path.is_file() and made.is_file() and read_json(made)["parameters"] == given:
        questions = read_table(path, "questions")
    else:
        source = given["reader"] or given["dataset"], given["folder"], given["files"], given["seed"]
        questions = limit_questions(read_questions(*source), given["limits"], given["seed"])
    questions = questions[questions["split"].isin(parameters["splits"])].reset_index(drop=True)
    return plan(questions, prompting, parameters)


def make_jobs(name, settings):
    """Yield the jobs of an experiment, each after those it needs."""
    root = f"outputs/{name}"
    cells, explained = [], {}
    tables = {dataset: Job("data", f"data/{dataset}", DATA, {
        "dataset": dataset, **values, "output": f"{root}/data/{dataset}"}, (), {"dataset": dataset})
        for dataset, values in settings["datasets"].items()}
    yield from tables.values()
    for data in tables.values():
        for teacher in settings["teachers"]:
            found = list(_explain_jobs(root, settings, data, teacher))
            yield from found
            explained |= {(data.labels["dataset"], teacher, job.labels["prompting"]): job
                          for job in found if job.kind == "explanations"}
    for data in tables.values():
        cells += (found := list(_trained(root, settings, tables, data, explained)))
        yield from (job for cell in found for job in cell)
    cells += (found := [(train, _transfer(root, settings, train, evaluate, tables[other])) for train, evaluate in cells
                        for other in settings.get("transfer", []) if other != train.labels["dataset"]])
    yield from (job for _, job in found)
    yield Job("report", "report", REPORT, {
        **settings.get("report", {}), "explained": [f"{root}/{job.folder}" for job in explained.values()],
        "output": f"{root}/report"}, tuple(job.folder for job in explained.values()))
    if "human_study" in settings:
        yield from _people_jobs(root, settings, [evaluate for _, evaluate in cells])
    yield Job("comparison", "comparison", COMPARISON, {
        **settings.get("comparison", {}), "experiment": name, "output": f"{root}/comparison",
        "trainings": [f"{root}/{folder}" for folder in dict.fromkeys(train.folder for train, _ in cells)],
        "evaluations": [f"{root}/{evaluate.folder}" for _, evaluate in cells], "missing": [],
        "explained": [f"{root}/{job.folder}" for job in explained.values()],
    }, tuple(dict.fromkeys(job.folder for cell in [explained.values(), *cells] for job in cell)))


def _trained(root, settings, tables, data, explained):
    """Yield the (training, evaluation) jobs on one data set; `explained`: {(data set, teacher, prompting): job}."""
    own = data.labels["dataset"]
    for teacher in settings["teachers"]:
        contrary = explained.get((own, teacher, _contrary_prompting(settings, teacher)))
        for method, entry in settings["methods"].items():
            lender = entry.get("rationales_of", "")
            for prompting in promptings_of(settings, teacher, method) if lender != own else []:
                lent = (tables[lender], explained[lender, teacher, prompting]) if lender else ()
                yield from _cells(root, settings, data, method, explained[own, teacher, prompting], contrary, lent)
    for method in settings["methods"]:
        if kind_of(settings, "methods", method) in UNEXPLAINED:
            yield from _cells(root, settings, data, method)


def local_inputs(job):
    """Return the files outside the experiment that a job reads: data, published tables, models in local folders."""
    from kdutils.data.readers import READERS

    given, data = job.parameters, os.environ.get("KDUTILS_DATA", "")
    models = [one.get(key) for one in (given, given.get("reader")) if isinstance(one, dict)
              for key in ("model", "tokenizer")]
    found = [path for model in models if model for path in project_path(model).glob("*")]
    if job.kind == "data" and (given.get("folder") or data):
        reader = READERS[given.get("reader") or given["dataset"]]
        files = given.get("files") or reader.local
        found += [project_path(given.get("folder") or data) / file for file in files.values()]
    if given.get("backend") == "published" and (given.get("published_folder") or data):
        found += published_files(given["dataset"], given.get("published_teacher", "llama"),
                                 given.get("published_folder") or data, bool(given.get("published_folder")))
    return sorted(str(path) for path in found if path.is_file())


def published_files(dataset, teacher, folder, own):
    """Return the published files of a teacher on a data set; `own`: `folder` holds them itself, else a folder of it."""
    if teacher == "palm":
        from kdutils.teacher.published import PALM_SPLITS

        below = project_path(folder) / ("" if own else "palm540b_dss")
        return below.glob(f"{PALM_SPLITS[dataset][0]}_*.parquet") if dataset in PALM_SPLITS else []
    return (project_path(folder) / ("" if own else "teacher_llama")).rglob(f"*{dataset}-{teacher}-*.parquet")


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
    comparison, finished = experiment.jobs[-1], {
        job.folder for job in experiment.jobs if (experiment.folder / job.folder / "metrics.json").is_file()}
    asked = [job for job in experiment.jobs if job.kind == "evaluations"]
    there = [job for job in asked if job.folder in finished and finished.issuperset(job.needs)]
    if not there:
        return None
    trained = list(dict.fromkeys(job.parameters["students"] for job in there))
    texts = [job for job in experiment.jobs if job.kind == "explanations" and job.folder in finished]
    needs = (*(path.removeprefix(f"outputs/{experiment.name}/") for path in trained),
             *(job.folder for job in (*there, *texts)))
    return replace(comparison, needs=needs, parameters={
        **comparison.parameters, "trainings": trained, "explained": [job.parameters["output"] for job in texts],
        "evaluations": [job.parameters["output"] for job in there],
        "missing": sorted(job.parameters["output"] for job in asked if job not in there)})


def _groups(seeds, size):
    return [seeds[start:start + size] for start in range(0, len(seeds), size)]


def _explain_jobs(root, settings, data, teacher):
    """Yield the jobs of one teacher on one data set: its own training where the study fine-tunes it, then its texts."""
    entry, needs = settings["teachers"][teacher], (data.folder,)
    questions = f"{root}/{data.folder}/questions.parquet"
    reader = data.parameters.get("reader", "")
    name = data.labels["dataset"] if reader in ("", "table") else reader  # whose prompts and published files
    given = _parameters(entry, "teachers")
    if "finetune" in entry:
        folder, labels = f"teachers/{data.labels['dataset']}/{teacher}", {**data.labels, "teacher": teacher}
        yield Job("teachers", folder, TUNING, {**entry["finetune"], "questions": questions, "labels": labels,
                                               "seeds": [0], "output": f"{root}/{folder}"}, needs, labels)
        given, needs = {**given, "model": f"{root}/{folder}/seed-0"}, (*needs, folder)
    order = {prompting: list(PROMPTINGS).index(kind_of(settings, "promptings", prompting))
             for prompting in promptings_of(settings, teacher)}
    for prompting in sorted(order, key=order.get):
        folder = f"explanations/{data.labels['dataset']}/{teacher}/{prompting}"
        labels = {**data.labels, "teacher": teacher, "prompting": prompting}
        kind = kind_of(settings, "promptings", prompting)
        # After the rationales: a revision starts from the same ones, and then finds them in the store.
        first = f"explanations/{data.labels['dataset']}/{teacher}/few_shot"
        after = (first,) if kind == "critique_revision" and "few_shot" in promptings_of(settings, teacher) else ()
        yield Job("explanations", folder, PROMPTINGS[kind],
                  {"dataset": name, **given, **_parameters(settings["promptings"][prompting], "promptings"),
                   "questions": questions,
                   "labels": labels, "output": f"{root}/{folder}"}, needs + after, labels)


def _cells(root, settings, data, method, explain=None, contrary=None, lent=()):
    """Return the (training, evaluation) jobs of a method on one set of explanations, or on none.

    `contrary`: the job that explains wrong answers, for methods that read them and for the probes of the evaluation.
    `lent`: the jobs of the questions and explanations of another data set, for a control that takes its texts there.
    """
    kind = kind_of(settings, "methods", method)
    labels = explain.labels if explain else {**data.labels, "teacher": "-", "prompting": "-"}
    questions = {"questions": f"{root}/{data.folder}/questions.parquet"}
    texts = {"explanations": f"{root}/{explain.folder}/explanations.parquet"} if explain else {}
    wrong = {"counterfactuals": f"{root}/{contrary.folder}/explanations.parquet"} if contrary else {}
    files = (("other_questions", "questions.parquet"), ("other_explanations", "explanations.parquet"))
    others = {key: f"{root}/{job.folder}/{file}" for (key, file), job in zip(files, lent, strict=False)}
    found = []
    for student in (name for name in settings["students"] if method in methods_of(settings, name)):
        for seeds in _groups(settings["seeds"], settings.get("seeds_per_job", len(settings["seeds"]))):
            below = f"{explain.folder.partition('/')[2] if explain else data.labels['dataset']}/{method}/{student}"
            below += f"/seeds-{'-'.join(map(str, seeds))}"
            own = {"labels": {**labels, "method": method, "student": student}, "seeds": seeds}
            shown = {**own["labels"], "seeds": ", ".join(map(str, seeds))}
            needs = tuple(job.folder for job in (data, explain, contrary if kind in CONTRARY else None, *lent) if job)
            train = Job("students", f"students/{below}", METHODS[kind], {
                **settings.get("training", {}), **_parameters(settings["methods"][method], "methods"),
                **_parameters(settings["students"][student], "students"), **questions, **texts, **others,
                **(wrong if kind in CONTRARY else {}), **own, "output": f"{root}/students/{below}"}, needs, shown)
            needs = tuple(job.folder for job in (data, explain, contrary, train) if job)
            evaluate = Job("evaluations", f"evaluations/{below}", EVALUATION, {
                **settings.get("evaluation", {}), **questions, "explanations": "", **texts, **wrong, **own,
                "students": f"{root}/students/{below}", "output": f"{root}/evaluations/{below}"}, needs, shown)
            found.append((train, evaluate))
    return found


def _transfer(root, settings, train, evaluate, data):
    """Return the evaluation of a trained student on the questions of another data set, which nobody has explained."""
    folder = f"transfers/{data.labels['dataset']}/{evaluate.folder.partition('/')[2]}"
    labels = {**evaluate.parameters["labels"], "tested_on": data.labels["dataset"]}
    return Job("evaluations", folder, EVALUATION, {
        **settings.get("evaluation", {}), "questions": f"{root}/{data.folder}/questions.parquet", "explanations": "",
        "labels": labels, "seeds": train.parameters["seeds"], "students": f"{root}/{train.folder}",
        "output": f"{root}/{folder}"}, (data.folder, train.folder), {**evaluate.labels, **labels})


def _people_jobs(root, settings, evaluations):
    """Yield the jobs that make a study with people and analyse its ratings (simulated ones until there are any).

    Compared are the evaluations of the methods and promptings that the key `human_study` names, else all.
    """
    entry = settings["human_study"]
    shown = [job for job in evaluations if all(
        job.labels[label] in entry.get(key, [job.labels[label]])
        for key, label in (("methods", "method"), ("promptings", "prompting")))]
    data = sorted({job.needs[0] for job in shown})
    yield Job("human_study", "human_study", PEOPLE, {
        "explanations": "", **_parameters(entry, "human_study"),
        "evaluations": [f"{root}/{job.folder}" for job in shown],
        "questions": [f"{root}/{folder}/questions.parquet" for folder in data], "output": f"{root}/human_study"},
        (*data, *(job.folder for job in shown)))
    yield Job("human_study", "human_ratings", RATINGS, {
        **settings.get("human_ratings", {}), "plan": f"{root}/human_study/key/plan.parquet",
        "output": f"{root}/human_ratings"}, ("human_study",))
