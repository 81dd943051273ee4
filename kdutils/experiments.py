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
import json
import os
import shlex
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from pathlib import Path

from kdutils.data.questions import SPLITS
from kdutils.errors import StudyError, refuse_secrets
from kdutils.hub import find_model
from kdutils.parameters import NAME, NAMED, SEEDS, config_type_fault, fault_of, is_there, quoted, shown
from kdutils.runs import PROJECT, project_path, read_json
from kdutils.settings_file import read_settings

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
SHOWN = 600  # characters of a message at most
LONGEST_PATH = 1000  # characters of a path in a message
LONGEST = 200  # characters of the name of a folder: no file system takes more than 255 bytes
MOST_RUNS = 50_000
# What one job may use, for a cluster that wants to know: name: (least, usual). 0 minutes: what the cluster gives.
RESOURCES = {"memory_mb": (100, 8000), "minutes": (1, 0), "gpus": (0, 0)}
MOST = 100_000_000
KINDS = ("data", "teachers", "explanations", "report", "students", "evaluations", "human_study", "comparison")
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
    file: str = ""  # the experiment file, relative to the project where it lies in it
    tiny: bool = False

    @property
    def folder(self):
        return OUTPUTS / self.name

    @property
    def command(self):
        """The command that runs it, as a shell reads it."""
        inside = Path(self.file).parent == FOLDER.relative_to(PROJECT)
        words = [Path(self.file).stem if inside else self.file] + ["--tiny"] * self.tiny
        return f"./run_all.sh {shlex.join(words)}"


def experiment_names():
    """Return the names of the experiments that are there."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_experiment(name, tiny=False):
    """Return the Experiment of a name or of a path to a YAML file; StudyError naming file and key.

    `tiny`: with tiny models and few questions (tiny.py), under a name of its own.
    """
    path = Path(name) if str(name).endswith((".yaml", ".yml")) else FOLDER / f"{name}.yaml"
    if not is_there(path) or not path.is_file():
        raise StudyError(f"{shown(str(path), LONGEST)}: no such experiment; there are: "
                         f"{shown(', '.join(experiment_names()), SHOWN - LONGEST)}")
    settings = read_settings(path)
    refuse_secrets(settings, f"{path}: ")
    check_settings(settings, path)
    if not NAME.fullmatch(path.stem):
        raise StudyError(f"{path}: a file name of letters, digits, '.', '_' and '-' please: it names a folder")
    name = path.stem
    if tiny:
        from kdutils.tiny import tiny as made_tiny

        name, settings = f"{name}-tiny", made_tiny(settings)
    full = path.resolve()
    file = str(full.relative_to(PROJECT) if full.is_relative_to(PROJECT) else full)
    return Experiment(name, settings, list(make_jobs(name, settings)), file, tiny)


def check_settings(settings, path):
    """Raise StudyError, one line of at most SHOWN characters behind the path, for the first thing that is wrong."""
    path = shown(str(path), LONGEST_PATH)
    try:
        _check_keys(settings, path)
        _check_grid(settings, path)
        _check_size(settings, path)
        _check_parameters(settings, path)
        _check_teachers(settings, path)
        _check_people(settings, path)
    except StudyError as error:
        start = f"{path}: "
        raise StudyError(start + shown(str(error).removeprefix(start), SHOWN)) from None


def _check_keys(settings, path):
    if not isinstance(settings, dict):
        raise StudyError(f"{path}: an experiment is a mapping of keys")
    for key, value in settings.items():
        if key not in KEYS:
            raise StudyError(f"{path}: key '{shown(key)}': unknown; known are {', '.join(KEYS)}")
        wanted = KEYS[key][0]
        if not isinstance(value, wanted) or isinstance(value, bool):
            advice = "; put it in quotes" if wanted is str and isinstance(value, (int, float)) else ""
            raise StudyError(f"{path}: key '{key}': {quoted(value)} is not of type {wanted.__name__}{advice}")
        if wanted is str:
            _raise_fault(fault_of(key, value), f"{path}: key '{key}")
    for key, (_, needed) in KEYS.items():
        if needed and not settings.get(key):
            raise StudyError(f"{path}: key '{key}': missing or empty")


def _check_grid(settings, path):
    seeds = settings["seeds"]
    for seed in seeds:
        if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < SEEDS:
            raise StudyError(f"{path}: key 'seeds': {quoted(seed)} is not a whole number from 0 to {SEEDS - 1}")
    if len(set(seeds)) != len(seeds):
        raise StudyError(f"{path}: key 'seeds': {shown(seeds)} holds a seed twice")
    for key, most in (("seeds_per_job", SEEDS), ("threads_per_job", 1024)):
        if settings.get(key, 1) < 1:
            raise StudyError(f"{path}: key '{key}': {shown(settings[key])} is less than 1")
        if settings.get(key, 1) > most:
            raise StudyError(f"{path}: key '{key}': {shown(settings[key])} is more than {most}")
    for key in ("datasets", "teachers", "promptings", "methods", "students"):
        for name, value in settings[key].items():
            if not NAME.fullmatch(name):
                raise StudyError(f"{path}: key '{key}.{shown(name)}': a name {NAMED}")
            if not isinstance(value, dict):
                raise StudyError(f"{path}: key '{key}.{name}': must be a mapping of parameters, {{}} for none")
            _check_choice(key, name, value, settings, path)
        _check_alike(settings[key], key, path)
    for key, known in {"promptings": PROMPTINGS, "methods": METHODS}.items():
        for name in settings[key]:
            if kind_of(settings, key, name) not in known:
                raise StudyError(f"{path}: key '{key}.{name}': unknown; known are {', '.join(known)} (or one of them "
                                 "under the key 'as')")
    _check_names(settings.get("transfer", []), settings["datasets"], "data sets", f"{path}: key 'transfer'")
    _check_resources(settings.get("resources", {}), path)
    _check_cells(settings, path)


def _check_alike(names, key, path):
    """Refuse names that differ in case alone: each names a folder, and not every file system tells them apart."""
    seen = {}
    for name in names:
        other = seen.setdefault(name.casefold(), name)
        if other != name:
            raise StudyError(f"{path}: key '{key}.{name}': differs from '{other}' in capital letters alone, and both "
                             "name folders; choose another name")


def _check_names(names, known, what, label):
    """Check a list that names entries of the grid."""
    for place, name in enumerate(names):
        if not isinstance(name, str) or name not in known:
            raise StudyError(f"{label}: '{shown(name)}' is not among this experiment's {what}: {', '.join(known)}")
        if name in names[:place]:
            raise StudyError(f"{label}: '{name}' is listed twice")


def _check_size(settings, path):
    """Check that the runs can be listed, and that no folder's name is longer than a file system takes."""
    groups = _groups(settings["seeds"], settings.get("seeds_per_job", len(settings["seeds"])))
    cells = len(settings["teachers"]) * len(settings["promptings"]) * len(settings["methods"])
    sets = len(settings["datasets"]) * (1 + len(settings.get("transfer", [])))
    runs = cells * sets * len(settings["students"]) * len(groups)
    if runs > MOST_RUNS:
        raise StudyError(f"{path}: up to {runs:,} runs; at most {MOST_RUNS:,} please: take fewer seeds, or raise "
                         "`seeds_per_job`")
    if max(len("-".join(map(str, seeds))) for seeds in groups) > LONGEST:
        raise StudyError(f"{path}: key 'seeds_per_job': the seeds of one job name its folder, and these are too many; "
                         "set 20 or less")


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
        _check_others(settings, method, path)
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


def _check_others(settings, method, path):
    """Check that a control that takes another question's rationale has another question."""
    if kind_of(settings, "methods", method) != "shuffled" or "rationales_of" in settings["methods"][method]:
        return
    for name, entry in settings["datasets"].items():
        limits = entry["limits"] if isinstance(entry.get("limits"), dict) else {}
        for split in ("train", "dev"):
            if limits.get(split) == 1 and limits[split] is not True:
                raise StudyError(f"{path}: key 'datasets.{name}.limits.{split}': 1, but the method '{method}' takes "
                                 "the rationale of another question; set 2 or more")


def _check_lender(settings, method, path):
    """Check the data set that a control takes its texts from."""
    entry, label = settings["methods"][method], f"{path}: key 'methods.{method}.rationales_of'"
    if "rationales_of" not in entry:
        return
    if kind_of(settings, "methods", method) != "shuffled":
        raise StudyError(f"{label}: the control 'shuffled' alone takes rationales of another data set")
    if entry["rationales_of"] not in settings["datasets"]:
        raise StudyError(f"{label}: '{shown(entry['rationales_of'])}' is not among this experiment's data sets: "
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
    label = f"{key}.{name}" if name != "" else key
    for word, wanted in OF_THE_GRID.get(key, {}).items():
        if word in value and not isinstance(value[word], wanted):
            raise StudyError(f"{path}: key '{label}.{word}': {quoted(value[word])} is not of type "
                             f"{wanted.__name__}")
        if word in value and wanted is list and not value[word]:
            raise StudyError(f"{path}: key '{label}.{word}': empty; leave the key out for all of them")
        if word in value and word in ("promptings", "methods"):
            _check_names(value[word], settings[word], word, f"{path}: key '{label}.{word}'")


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
        served = _is_served(settings, [(name, prompting) for prompting in promptings_of(settings, name)])
        _check_values(_parameters(values, "teachers"), asked, f"teachers.{name}", path, served)
        _check_values(values.get("finetune", {}), [TUNING], f"teachers.{name}.finetune", path)
        _check_model(values.get("finetune", {}), f"{path}: key 'teachers.{name}.finetune")
        _check_server(values, f"{path}: key 'teachers.{name}")
    for name, values in settings["promptings"].items():
        served = _is_served(settings, [(teacher, name) for teacher in settings["teachers"]
                                       if name in promptings_of(settings, teacher)])
        _check_values(_parameters(values, "promptings"), [explains[name]], f"promptings.{name}", path, served)
        _check_server(values, f"{path}: key 'promptings.{name}")
    for name, values in settings["methods"].items():
        _check_values(_parameters(values, "methods"), [trains[name]], f"methods.{name}", path)
    for name, values in settings["students"].items():
        learnt = [trains[method] for method in methods_of(settings, name)]
        if values.get("kind") == "classifier" and set(learnt) != {METHODS["label_only"]}:
            raise StudyError(f"{path}: key 'students.{name}': a classifier cannot write, it learns label_only alone; "
                             "say so under `methods`")
        _check_values(_parameters(values, "students"), learnt, f"students.{name}", path)
        _check_model({**settings.get("training", {}), **values}, f"{path}: key 'students.{name}")
    _check_values(settings.get("training", {}), trains.values(), "training", path)
    _check_values(settings.get("evaluation", {}), [EVALUATION], "evaluation", path)
    _check_values(settings.get("comparison", {}), [COMPARISON], "comparison", path)
    _check_values(settings.get("report", {}), [REPORT], "report", path)
    _check_choice("human_study", "", settings.get("human_study", {}), settings, path)
    _check_values(_parameters(settings.get("human_study", {}), "human_study"), [PEOPLE], "human_study", path)
    _check_values(settings.get("human_ratings", {}), [RATINGS], "human_ratings", path)


def _is_served(settings, pairs):
    """Say whether one of these (teacher, prompting) is asked of a server."""
    return any(_asked_with(settings, *pair).get("backend") == "openai" for pair in pairs)


def _asked_with(settings, teacher, prompting):
    """Return the parameters that `teacher` is asked with by `prompting`, as far as the experiment sets them."""
    return {**settings["teachers"][teacher], **settings["promptings"][prompting]}


def _check_values(values, notebooks, where, path, served=False):
    """Check every value against the parameters cells of all `notebooks` that it goes to.

    `served`: a model here is the name that a server gives it, whatever it looks like.
    """
    for key, value in values.items():
        label = f"{path}: key '{where}.{shown(key)}"
        if key in SET_BY_STUDY:
            raise StudyError(f"{label}': the study sets this parameter itself")
        for notebook in notebooks:
            known = notebook_parameters(notebook)
            if key not in known:
                raise StudyError(f"{label}': {notebook} has no such parameter; it has "
                                 f"{', '.join(sorted(set(known) - SET_BY_STUDY))}")
            if not _has_type(value, known[key]):
                raise StudyError(f"{label}': {quoted(value)} is not of type {known[key]}{_advice(value, known[key])}")
        _raise_fault(fault_of(key, value, served), label)
        if key in ("model", "encoder") and not served and not values.get("random_weights"):
            _check_folder(value, label)
        if key == "reader" and isinstance(value, dict) and value:
            _check_reading(value, label)
    if isinstance(values.get("config"), dict) and isinstance(values.get("model"), str):
        key, what = config_type_fault(values["config"], values["model"]) or ("", "")
        _raise_fault((f".{shown(key)}", what), f"{path}: key '{where}.config")


def _check_folder(value, label):
    """Check that a model folder is whole; a Hub id is looked up when it is loaded."""
    if value and project_path(value).is_dir():
        try:
            find_model(value)
        except StudyError as error:
            raise StudyError(f"{label}': {error}") from None


def _check_server(values, label):
    """Check address and key of a teacher's server, so that nothing is written before they are refused."""
    from kdutils.teacher.served import check_key, server_address

    try:
        if values.get("base_url") or values.get("backend") == "openai":
            server_address(values.get("base_url", ""))
        if values.get("backend") == "openai":
            check_key()
    except StudyError as error:
        raise StudyError(f"{label}': {error}") from None


def _raise_fault(fault, label):
    """Raise a fault of parameters.fault_of; `label` ends with the key, its quotation mark is not closed."""
    inside, what = fault
    if what:
        raise StudyError(f"{label}{inside}': {what}")


def _advice(value, wanted):
    """Return what to do about a value of a wrong type, "" where it is plain."""
    if wanted == "str" and isinstance(value, (bool, int, float)):
        return "; put it in quotes"
    if wanted == "bool":
        return "; write true or false"
    return "; write the number alone, such as 1000 or 0.0005" if isinstance(value, str) and wanted != "list" and \
        value[:1].isdigit() else ""


def _check_reading(value, label):
    """Check the settings of a language model that reads explanations (key `reader` of the evaluation)."""
    from kdutils.student.lm_reader import STUDENT, TRAINING, check_reader

    try:
        check_reader(value)
    except StudyError as error:
        raise StudyError(f"{label}': {error}") from None
    for name, usual in (STUDENT | TRAINING).items():
        wanted = type(usual).__name__
        if name in value and not _has_type(value[name], wanted):
            raise StudyError(f"{label}.{name}': {quoted(value[name])} is not of type {wanted}"
                             f"{_advice(value[name], wanted)}")
        if name in value:
            _raise_fault(fault_of(name, value[name]), f"{label}.{name}")
    _check_model(value, label)
    if not value.get("random_weights"):
        _check_folder(value.get("model"), f"{label}.model")


def _check_model(values, label):
    """Check what a student's model is made of; `label` ends with the key, its quotation mark is not closed."""
    given = {"model": "kdutils/mini/student", **values}
    if not given["model"] and not (given.get("random_weights") and given.get("config", {}).get("model_type")
                                   and given.get("tokenizer")):
        raise StudyError(f"{label}.model': empty; give a folder or Hub id, or `random_weights: true`, a `tokenizer` "
                         "and a `config` with a model_type")
    if given.get("lora") and given.get("kind") == "classifier":
        raise StudyError(f"{label}.lora': a classifier starts with a new layer, which adapters alone cannot train")


def _check_teachers(settings, path):
    """Check for every teacher, prompting and data set what would stop its run: a combination that cannot be."""
    for teacher in settings["teachers"]:
        entry = settings["teachers"][teacher]
        for prompting in promptings_of(settings, teacher):
            kind = kind_of(settings, "promptings", prompting)
            given = {**notebook_defaults(PROMPTINGS[kind]), **_asked_with(settings, teacher, prompting)}
            fault = _teacher_fault(kind, given, entry) or _split_fault(settings, teacher, prompting, given)
            for dataset in settings["datasets"] if not fault else []:
                fault = fault or _texts_fault(settings, dataset, kind, given)
            if fault:
                raise StudyError(f"{path}: key 'teachers.{teacher}', prompting '{prompting}': {fault}")


def _teacher_fault(kind, given, entry):
    """Return why a teacher cannot be asked by a prompting of this kind, "" where it can."""
    tuned, model, backend = entry.get("finetune"), given["model"], given.get("backend", "hf")
    if tuned is not None and tuned.get("kind") == "classifier":
        return "its training makes a classifier, which writes nothing (key `finetune`)"
    if tuned is not None and kind == "tokens" and tuned.get("kind") == "causal":
        return "it must be a sequence-to-sequence model, not a causal one (key `finetune`)"
    if tuned is None and not model and backend != "published":
        return "the name of its `model` is empty"
    if backend == "openai" and kind == "contrastive":
        return "contrastive prompting needs the model itself; set backend: hf"
    if backend == "openai" and (given["quantization"] != "none" or given["revision"]):
        return "a server decides on quantization and revision itself; leave both out"
    if backend == "hf" and given.get("base_url"):
        return "it has a base_url, which only a server has; set backend: openai"
    if backend == "hf" and given.get("revision") and project_path(model).is_dir():
        return f"'{shown(given['revision'])}' is a revision, but {shown(model)} is a folder; revisions are for Hub ids"
    if kind == "contrastive" and given["temperature"]:
        return "contrastive decoding is greedy; set temperature: 0"
    return ""


def _split_fault(settings, teacher, prompting, given):
    """Return a fault where methods are to learn from texts of which there are none for train questions, else ""."""
    used = [method for method in settings["methods"] if prompting in promptings_of(settings, teacher, method)]
    contrary = prompting == _contrary_prompting(settings, teacher)
    used += [method for method in settings["methods"] if contrary and promptings_of(settings, teacher, method)
             and kind_of(settings, "methods", method) in CONTRARY]
    if used and "train" not in given["splits"]:
        return f"without the split train in `splits` the method '{used[0]}' has nothing to learn from"
    return ""


def _texts_fault(settings, dataset, kind, given):
    """Return why there are no published texts, or no prompt, of this kind for a data set, "" where there are."""
    from kdutils.teacher.prompting import template
    from kdutils.teacher.published.explanations import check_published

    files = {"few_shot": ["few_shot"], "critique_revision": ["few_shot", "critique", "revision"],
             "counterfactual": ["few_shot"], "contrastive": ["few_shot"]}.get(kind, [])
    reader = settings["datasets"][dataset].get("reader", "")
    name = dataset if reader in ("", "table") else reader  # whose prompts and published files
    try:
        if given.get("backend") == "published":
            check_published(name, given["published_teacher"], kind, given["published_folder"])
        else:
            for file in files:
                template(name, file)
    except StudyError as error:
        return str(error)
    return ""


def _check_people(settings, path):
    """Check that a study with people has texts to show, each method equally often, and expects what can be."""
    if "human_study" not in settings:
        return
    from kdutils.human_study.plan import size_fault

    where, label = settings["human_study"], f"{path}: key 'human_study"
    given = {**notebook_defaults(PEOPLE), **where}
    compared = _compared(settings)
    silent = [method for method in dict.fromkeys(cell[0] for cell in compared)
              if kind_of(settings, "methods", method) in UNEXPLAINED]
    if not compared:
        raise StudyError(f"{label}': no student learns by these methods and promptings; there is nothing to show")
    if silent:
        raise StudyError(f"{label}.methods': '{silent[0]}' writes no explanations; name the methods to compare")
    if "correct" in given["strata"] and given["answered"] not in ("all_right", "same"):
        raise StudyError(f"{label}.strata': 'correct' differs between the methods of a question; set answered: same")
    if len(given["expected"]) < 2 or abs(sum(given["expected"]) - 1) > 1e-6:
        raise StudyError(f"{label}.expected': {shown(given['expected'])}: two or more shares that add up to 1 please")
    limits = [entry.get("limits", {}).get(settings.get("evaluation", {}).get("split", "test"), -1)
              for entry in settings["datasets"].values()]
    fault = size_fault(given["task"], len(compared), given["n_raters"], given["texts_per_method"],
                       given["raters_per_text"], given["checks"], None if -1 in limits else sum(limits))
    if fault:
        raise StudyError(f"{label}': {fault}")
    for method in settings.get("human_ratings", {}).get("simulated_effects", {}):
        if method not in _labels(compared):
            raise StudyError(f"{path}: key 'human_ratings.simulated_effects': '{shown(method)}' is not shown to people;"
                             f" shown are {', '.join(_labels(compared))}")


def _compared(settings):
    """Return (method, prompting, student, teacher) of every cell whose texts people are shown."""
    entry, found = settings["human_study"], []
    for teacher in settings["teachers"]:
        for method in settings["methods"]:
            plain = kind_of(settings, "methods", method) in UNEXPLAINED
            for prompting in ["-"] if plain else promptings_of(settings, teacher, method):
                found += [(method, prompting, student, "-" if plain else teacher) for student in settings["students"]
                          if method in methods_of(settings, student)]
    return [cell for cell in dict.fromkeys(found) if cell[0] in entry.get("methods", [cell[0]])
            and cell[1] in entry.get("promptings", [cell[1]])]


def _labels(cells):
    """Return what people's texts are called, as human_study.label_methods does: the method and what else varies."""
    varying = [place for place in range(4) if place == 0 or len({cell[place] for cell in cells}) > 1]
    return list(dict.fromkeys(" · ".join(cell[place] for place in varying) for cell in cells))


def _check_reader(name, values, path):
    from kdutils.data.readers import READERS

    reader = values.get("reader") or name
    if reader not in READERS:
        raise StudyError(f"{path}: key 'datasets.{name}': no reader '{shown(reader)}'; known are "
                         f"{', '.join(sorted(READERS))} (key 'reader')")
    known = READERS[reader]
    if not (known.make or known.hub or known.local or values.get("files")):
        raise StudyError(f"{path}: key 'datasets.{name}.files': missing; '{reader}' has no files of its own, name them:"
                         " {train: …, dev: …, test: …}")


def _check_files(values, where, path):
    from kdutils.data.tables import path_kind

    folder = values.get("folder") or os.environ.get("KDUTILS_DATA", "")
    if not values.get("folder") and folder and not Path(folder).is_dir():
        raise StudyError(f"{path}: key '{where}': KDUTILS_DATA names {folder}, which is no folder")
    for split, file in values.get("files", {}).items():
        if not isinstance(file, str) or not file.strip():
            raise StudyError(f"{path}: key '{where}.files.{split}': {quoted(file)} is not the path of one file; of "
                             "several files make one")
        found = project_path(folder) / file
        if not path_kind(found):
            raise StudyError(f"{path}: key '{where}.files.{split}': {shown(str(found), LONGEST)}: no such file")


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
        questions = _read_anew(given)
    questions = questions[questions["split"].isin(parameters["splits"])].reset_index(drop=True)
    return plan(questions, prompting, parameters)


def check_data(experiment):
    """Read the questions of every data set whose files are here; StudyError for what a run would stop at.

    Nothing is downloaded: data sets of the Hub are left out, and so is one that is finished and whose files are gone.
    """
    from kdutils.data.tables import path_kind

    for job in experiment.jobs:
        if job.kind != "data":
            continue
        given = {**notebook_defaults(DATA), **job.parameters}
        made, files = _question_sources(given)
        finished = (experiment.folder / job.folder / "metrics.json").is_file()
        if not made and (not files or finished and not any(map(path_kind, files))):
            continue
        found = set(_read_anew(given)["split"])
        missing = [split for split in SPLITS if split not in found]
        if missing:
            raise StudyError(f"data set '{given['dataset']}': no questions in the split {' and '.join(missing)}; a run "
                             "needs train, dev and test (dev is drawn from train where no file is given for it)")


def _question_sources(given):
    """Return (whether the questions are made by a program, the files that they are read from)."""
    from kdutils.data.readers import READERS, question_files

    dataset = given["reader"] or given["dataset"]
    return bool(READERS[dataset].make), list(question_files(dataset, given["folder"], given["files"]).values())


def _read_anew(given):
    """Return the questions of a data job's parameters, read once as long as its files are the same."""
    from kdutils.data.tables import path_kind

    files = _question_sources(given)[1]
    stamps = [(str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in files if path_kind(path)]
    return _read_once(json.dumps(given), tuple(stamps))


@lru_cache(maxsize=8)
def _read_once(given, _):
    from kdutils.data.readers import limit_questions, read_questions

    given = json.loads(given)
    source = (given["reader"] or given["dataset"], *(given[key] for key in ("folder", "files", "seed", "revision")))
    return limit_questions(read_questions(*source), given["limits"], given["seed"])


def make_jobs(name, settings):
    """Yield the jobs of an experiment, each after those it needs; a number for a float parameter is made one."""
    for job in _jobs(name, settings):
        known = notebook_parameters(job.notebook)
        yield replace(job, parameters={
            key: float(value) if known.get(key) == "float" and type(value) is int else value
            for key, value in job.parameters.items()})


def _jobs(name, settings):
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


def published_files(dataset, teacher, folder, own):
    """Return the published files of a teacher on a data set; `own`: `folder` holds them itself, else a folder of it."""
    if teacher == "palm":
        from kdutils.teacher.published.palm import PALM_SPLITS

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
