"""What an experiment file may say, checked before anything runs.

The file as a whole has a model here; the parameters in its entries have the models of the notebooks that they go to
(steps.SETTINGS). All faults of a file are told at once, each with its key and what would be right. Later checks build
on earlier ones: names and types, then the grid, then parameters and files, then what cannot go together.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from kdutils.errors import StudyError, StudyErrors, quoted, short
from kdutils.experiments.grid import (
    GRID_KEYS,
    KINDS,
    RESOURCES,
    asked_with,
    base_of,
    compared_by_people,
    is_unlabelled,
    labelling_teacher,
    method_of,
    methods_of,
    parameters_of,
    prompting_of,
    promptings_like,
    promptings_of,
    prompts_of,
    protocol_of,
    seed_groups,
    token_teacher,
    token_teachers,
    trained_by_hand,
    trained_with,
)
from kdutils.experiments.inputs import config_type_fault, file_faults, notebook_fault, path_fault
from kdutils.experiments.steps import (
    COMPARISON,
    DATA,
    ERRORS,
    EVALUATION,
    PEOPLE,
    RATER,
    RATINGS,
    REPORT,
    SETTINGS,
    TUNING,
)
from kdutils.packages import EXTRAS
from kdutils.settings import MAX_SEED, Inside, Seed, Settings, Text, faults_of, plain_faults, unique
from kdutils.student.methods import METHODS, exchange_rationales
from kdutils.student.protocols import LAYOUTS, PROTOCOLS, protocol_parameters, texts_of
from kdutils.student.settings import LmReader
from kdutils.teacher.choices import PROMPTINGS

NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9_-])?")
NAMED = "may contain only letters, digits, '.', '_' and '-', begins with a letter or digit, ends with no '.' and has " \
        "at most 64 characters"
LONGEST_NAME = 200  # characters of the name of a folder: file systems take at most 255 bytes
MOST_RUNS = 50_000
MOST = 100_000_000
Fault = tuple[str, str]  # the dotted key, and what is wrong and would be right
GRIDS = ("datasets", "teachers", "promptings", "methods", "students")
LISTS = {"promptings", "methods"}  # keys that name entries of the grid of the same key


def _names(entries: dict) -> dict:
    """Refuse names that cannot be folders, or of which a file system may take two for one."""
    seen = {}
    for name in entries:
        if not NAME.fullmatch(name):
            raise Inside(short(name), f"a name {NAMED}")
        other = seen.setdefault(name.casefold(), name)
        if other != name:
            raise Inside(name, f"differs from '{other}' in capital letters alone, and both name folders; choose "
                             "another name")
    return entries


def _resources(entry: dict, kinds: tuple = KINDS) -> dict:
    for key, value in entry.items():
        if key in kinds:
            if not isinstance(value, dict):
                raise Inside(key, "give a mapping, such as {gpus: 1}")
            try:
                _resources(value, ())
            except Inside as error:
                raise Inside(f"{key}.{error.key}", str(error)) from None
        elif key not in RESOURCES:
            raise Inside(short(key), f"unknown; known are {', '.join((*RESOURCES, *kinds))}")
        elif not isinstance(value, int) or isinstance(value, bool) or not RESOURCES[key][0] <= value <= MOST:
            raise Inside(key, f"{quoted(value)} is not a whole number from {RESOURCES[key][0]} to {MOST}")
    return entry


Entries = Annotated[dict[str, dict], Field(min_length=1), AfterValidator(_names)]


class ExperimentFile(BaseModel):
    """The keys of an experiment file."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
    about: Text
    needs: Text
    protocol: Literal[*PROTOCOLS] = "fair"
    extras: Annotated[list[Literal[*EXTRAS]], AfterValidator(unique)] = []
    datasets: Entries
    teachers: Entries
    promptings: Entries
    methods: Entries
    students: Entries
    seeds: Annotated[list[Seed], Field(min_length=1), AfterValidator(unique)]
    seeds_per_job: Annotated[int, Field(ge=1, le=MAX_SEED)] = MAX_SEED  # all of a cell
    threads_per_job: Annotated[int, Field(ge=1, le=1024)] = 1
    training: dict = {}
    evaluation: dict = {}
    comparison: dict = {}
    report: dict = {}
    errors: dict = {}
    human_study: dict = {}
    human_ratings: dict = {}
    transfer: Annotated[list, AfterValidator(unique)] = []
    resources: Annotated[dict, AfterValidator(_resources)] = {}


def check_settings(settings: object, path: Path | str) -> None:
    """Raise StudyErrors, one line for each fault of an experiment, each with file and key."""
    if not isinstance(settings, dict):
        raise StudyErrors([f"{short(str(path), 1000)}: an experiment is a mapping of keys"])
    faults = list(_file_faults(settings))
    readable = _readable(settings)
    for check in (_grid_faults, _parameter_faults):
        told = {key for key, _ in faults}
        faults += [fault for fault in check(readable) if fault[0] not in told]
    faults += list(_source_faults(readable, [key for key, _ in faults]))
    faults = list(dict.fromkeys(faults or _combination_faults(settings)))
    if faults:
        raise StudyErrors([_line(path, key, what) for key, what in faults])


def _line(path, key, what):
    return f"{short(str(path), 1000)}: " + short(f"key '{key}': {what}", 600)


def _file_faults(settings) -> Iterator[Fault]:
    plain = plain_faults(settings)
    yield from plain
    seen = {key for key, _ in plain}
    for key, what in faults_of(ExperimentFile, settings):
        if key not in seen:
            yield key, "missing or empty" if what == "missing" or what.endswith(" is empty") else what


def _readable(settings):
    """Return the part of an experiment that the checks of names and values can read, whatever else is wrong with it."""
    wrong = {key.partition(".")[0] for key, _ in faults_of(ExperimentFile, settings)}
    found = {key: settings[key] for key in ExperimentFile.model_fields if key in settings and key not in wrong}
    found = {key: _readable_entry(value) if isinstance(value, dict) else value for key, value in found.items()}
    for key in GRIDS:
        entries = settings.get(key)
        found[key] = {name: _readable_entry(entry) for name, entry in entries.items() if isinstance(name, str)} \
            if isinstance(entries, dict) else {}
    return {"seeds": [0], **found}


def _readable_entry(entry):
    return {name: value for name, value in entry.items() if name == "as" or not plain_faults({name: value})} \
        if isinstance(entry, dict) else {}


# The grid

def _grid_faults(settings) -> Iterator[Fault]:
    for key, table in (("promptings", PROMPTINGS), ("methods", METHODS)):
        for name, entry in settings[key].items():
            if not isinstance(entry.get("as", ""), str):
                yield f"{key}.{name}.as", f"{quoted(entry['as'])} is not of type str"
            elif (base := base_of(settings, key, name)) not in table:
                known = f"known are {', '.join(table)}"
                yield (f"{key}.{name}.as", f"unknown {quoted(base)}; {known}") if "as" in entry else \
                    (f"{key}.{name}", f"unknown; {known} (or one of them under the key 'as')")
            elif fault := notebook_fault(base, table[base]):
                yield f"{key}.{name}", fault
    for key, names in GRID_KEYS.items():
        entries = {key: settings.get(key, {})} if key == "human_study" else \
            {f"{key}.{name}": entry for name, entry in settings[key].items()}
        for where, entry in entries.items():
            for name in LISTS & names & set(entry):
                yield from _name_faults(f"{where}.{name}", entry[name], settings[name], name)
    for name, entry in settings["methods"].items():
        if entry.get("protocol", "fair") not in tuple(PROTOCOLS):
            yield f"methods.{name}.protocol", f"unknown {quoted(entry['protocol'])}; known are {', '.join(PROTOCOLS)}"
    for name, entry in settings["teachers"].items():
        if not isinstance(entry.get("finetune", {}), dict):
            yield f"teachers.{name}.finetune", f"{quoted(entry['finetune'])} is not of type dict"
    if not isinstance(rater := settings.get("human_study", {}).get("rater", {}), dict):
        yield "human_study.rater", f"{quoted(rater)} is not of type dict"
    if datasets := list(settings["datasets"]):
        yield from _name_faults("transfer", settings.get("transfer", datasets), datasets, "data sets")
    for name, entry in settings["methods"].items():
        if "rationales_of" in entry:
            yield from _lender_faults(settings, name, entry["rationales_of"])
    groups = seed_groups(settings)
    cells = len(settings["teachers"]) * len(settings["promptings"]) * len(settings["methods"])
    sets = len(settings["datasets"]) * (1 + len(settings.get("transfer", [])))
    runs = cells * sets * len(settings["students"]) * len(groups)
    if runs > MOST_RUNS:
        yield "seeds_per_job", f"up to {runs:,} runs; at most {MOST_RUNS:,} are allowed: take fewer seeds, or raise it"
    if max(len("-".join(map(str, seeds))) for seeds in groups) > LONGEST_NAME:
        yield "seeds_per_job", "the seeds of one job name its folder, and these are too many; set 20 or less"


def _name_faults(key, names, known, what) -> Iterator[Fault]:
    """Yield the faults of a list that names entries of the grid."""
    if not isinstance(names, list):
        yield key, f"{quoted(names)} is not of type list"
        return
    if not known:  # the key that should name them is wrong itself
        return
    if not names:
        yield key, "empty; leave the key out for all of them"
    for place, name in enumerate(names):
        if not isinstance(name, str) or name not in known:
            yield key, f"'{short(name)}' is not among this experiment's {what}: {', '.join(known)}"
        elif name in names[:place]:
            yield key, f"'{name}' is listed twice"


def _lender_faults(settings, method, lender) -> Iterator[Fault]:
    """Yield the faults of the data set that a control takes its texts from."""
    key = f"methods.{method}.rationales_of"
    if not isinstance(lender, str):
        yield key, f"{quoted(lender)} is not of type str"
    elif base_of(settings, "methods", method) != "shuffled":
        if method in _known(settings, "methods"):
            yield key, "the control 'shuffled' alone takes rationales of another data set"
    elif settings["datasets"] and lender not in settings["datasets"]:
        yield key, f"'{short(lender)}' is not among this experiment's data sets: {', '.join(settings['datasets'])}"
    elif len(settings["datasets"]) == 1:
        yield key, f"'{lender}' is the only data set; there is no other one whose questions could get its rationales"


# Parameters

def _parameter_faults(settings) -> Iterator[Fault]:
    """Yield the faults of all parameters, each checked with the models of all notebooks that it goes to."""
    trains, explains = _known(settings, "methods"), _known(settings, "promptings")
    for name, entry in settings["datasets"].items():
        yield from _entry_faults(f"datasets.{name}", parameters_of(entry, "datasets"), [DATA])
        if entry.get("labels", "gold") not in ("gold", "teacher"):
            yield f"datasets.{name}.labels", f"unknown {quoted(entry['labels'])}; known are gold, teacher"
        if prompts := entry.get("prompts", ""):
            fault = path_fault(prompts, "folder") if isinstance(prompts, str) else \
                f"{quoted(prompts)} is not of type str"
            if fault:
                yield f"datasets.{name}.prompts", fault
    for teacher, entry in settings["teachers"].items():
        names = _listed(entry, "promptings", settings["promptings"])
        served = any(asked_with(settings, teacher, name).get("backend") == "openai" for name in names)
        yield from _entry_faults(f"teachers.{teacher}", parameters_of(entry, "teachers"),
                                 [explains[name] for name in names if name in explains], served, PROMPTINGS)
        tuned = entry.get("finetune", {})
        yield from _entry_faults(f"teachers.{teacher}.finetune", tuned if isinstance(tuned, dict) else {}, [TUNING])
    for name, entry in settings["promptings"].items():
        served = any(asked_with(settings, teacher, name).get("backend") == "openai" for teacher, one
                     in settings["teachers"].items() if name in _listed(one, "promptings", settings["promptings"]))
        yield from _entry_faults(f"promptings.{name}", parameters_of(entry, "promptings"),
                                 [explains[name]] if name in explains else [], served, PROMPTINGS)
    for name, entry in settings["methods"].items():
        yield from _entry_faults(f"methods.{name}", parameters_of(entry, "methods"),
                                 [trains[name]] if name in trains else [], known=METHODS)
    for name, entry in settings["students"].items():
        yield from _entry_faults(f"students.{name}", parameters_of(entry, "students"),
                                 [trains[method] for method in _listed(entry, "methods", trains)], known=METHODS)
    for key, notebooks in (("training", trains.values()), ("evaluation", [EVALUATION]), ("report", [REPORT]),
                           ("human_study", [PEOPLE]), ("human_ratings", [RATINGS]), ("errors", [ERRORS]),
                           ("comparison", [COMPARISON])):
        yield from _entry_faults(key, parameters_of(settings.get(key, {}), key), list(notebooks), known=METHODS)
    if isinstance(rater := settings.get("human_study", {}).get("rater", {}), dict):
        yield from _entry_faults("human_study.rater", rater, [RATER], rater.get("backend") == "openai")


def _known(settings, key) -> dict[str, str]:
    """Return {name: notebook} of the entries of `key`, methods or promptings, that name a known one."""
    table = {"methods": METHODS, "promptings": PROMPTINGS}[key]
    bases = {name: base_of(settings, key, name) for name in settings[key]}
    return {name: table[base].notebook for name, base in bases.items()
            if isinstance(base, str) and base in table and table[base].notebook in SETTINGS}


def _listed(entry, key, known) -> list[str]:
    """Return which of the `known` names the list `key` of an entry names; all of them where it is no list."""
    names = entry.get(key)
    return [name for name in known if not isinstance(names, list) or name in names]


def _faults_of_any(where, values, known) -> Iterator[Fault]:
    """Yield the faults that the parameters of an entry have whichever `known` method or prompting they are for."""
    models = [SETTINGS[entry.notebook] for entry in known.values() if entry.notebook in SETTINGS]
    for name, value in values.items():
        faults = [model.faults({name: value}) for model in models if name in model.own()]
        if not faults:
            yield f"{where}.{short(name)}", f"none of {', '.join(known)} has such a parameter"
        elif all(faults):
            yield from ((f"{where}.{key}", what) for key, what in faults[0])


def _entry_faults(where, values, notebooks, served=False, known=None) -> Iterator[Fault]:
    """Yield the faults of one entry, whose parameters go to `notebooks`: none where all that it is for is wrong itself.

    `served`: a model is named as its server names it. `known`: the methods or promptings that it may be for.
    """
    if not notebooks:
        yield from _faults_of_any(where, values, known)
        return
    models = list(dict.fromkeys(SETTINGS[notebook] for notebook in notebooks))
    given = dict(values)
    for name in values:
        for model in models:
            if name in model.model_fields and name not in model.own():
                yield f"{where}.{short(name)}", "the study sets this parameter itself"
            elif name not in model.own():
                known = sorted(model.own() | GRID_KEYS.get(where.partition(".")[0], set()))
                yield f"{where}.{short(name)}", f"{model.notebook} has no such parameter; it has {', '.join(known)}"
            else:
                continue
            given.pop(name, None)
            break
    yield from _value_faults(where, given, models, served)
    simulator = given.get("simulator")
    if isinstance(simulator, dict) and simulator:
        key = f"{where}.simulator"
        yield from ((f"{key}.{name}", f"unknown; known are {', '.join(LmReader.model_fields)}")
                    for name in simulator if name not in LmReader.model_fields)
        yield from _value_faults(key, simulator, [LmReader])


def _value_faults(where, values, models: Iterable[type[Settings]], served=False) -> Iterator[Fault]:
    faults = list(dict.fromkeys(fault for model in models for fault in model.faults(
        {name: value for name, value in values.items() if name in model.model_fields})))
    yield from ((f"{where}.{key}", what) for key, what in faults)
    wrong = {key.partition(".")[0] for key, _ in faults}
    for name, value in values.items():
        what = next((model.paths()[name] for model in models if name in model.paths()), "")
        if what and name not in wrong and not (served and name == "model"):
            whole = name == "distilled_from" or name in ("model", "encoder", "nli") and not values.get("random_weights")
            fault = path_fault(value, what, whole)
            if fault:
                yield f"{where}.{name}", fault
        if name == "base_url" and value and name not in wrong or name == "backend" and value == "openai":
            yield from _server_faults(where, values)
    if isinstance(values.get("config"), dict) and isinstance(values.get("model"), str) and not wrong:
        fault = config_type_fault(values["config"], values["model"])
        if fault:
            yield f"{where}.config.{fault[0]}", fault[1]


def _server_faults(where, values) -> Iterator[Fault]:
    """Check address and key of a teacher's server, so that nothing is written before they are refused."""
    from kdutils.teacher.served import check_key, server_address

    try:
        server_address(values.get("base_url", ""))
        if values.get("backend") == "openai":
            check_key()
    except StudyError as error:
        yield where, str(error)


def _source_faults(settings, told) -> Iterator[Fault]:
    """Yield the data sets without a reader or files; those whose reader or files have faults of `told` are left out."""
    for name, entry in settings["datasets"].items():
        depends = tuple(f"datasets.{name}.{key}" for key in ("reader", "folder", "files"))
        if f"datasets.{name}" not in told and not any(key.startswith(depends) for key in told):
            yield from ((f"datasets.{name}{key}", what) for key, what in file_faults(name, entry))


# What cannot go together

def _combination_faults(settings) -> Iterator[Fault]:
    for name, entry in settings["datasets"].items():
        if is_unlabelled(entry) and not labelling_teacher(settings):
            yield f"datasets.{name}.labels", "it is not clear who answers the questions; keep one teacher that " \
                                             "writes texts, with the prompting few_shot"
    for name, entry in settings["students"].items():
        methods = {base_of(settings, "methods", method) for method in methods_of(settings, name)}
        if entry.get("kind") == "classifier" and methods != {"label_only"}:
            yield f"students.{name}", "a classifier cannot write, it learns label_only alone; say so under `methods`"
        yield from _conflicts(f"students.{name}", TUNING, {**settings.get("training", {}),
                                                           **parameters_of(entry, "students")})
    for name, entry in settings["teachers"].items():
        yield from _conflicts(f"teachers.{name}.finetune", TUNING, entry.get("finetune", {}))
    if simulator := settings.get("evaluation", {}).get("simulator"):
        yield from ((f"evaluation.simulator.{key}", what) for key, what in LmReader(**simulator).conflicts())
    yield from _training_faults(settings)
    yield from _cell_faults(settings)
    yield from _teacher_faults(settings)
    yield from _people_faults(settings)
    yield from _contrast_faults(settings)


def _conflicts(where, notebook, values) -> Iterator[Fault]:
    model = SETTINGS[notebook]
    known = {name: value for name, value in values.items() if name in model.model_fields}
    yield from ((f"{where}.{key}", what) for key, what in model(**known).conflicts())


def _training_faults(settings) -> Iterator[Fault]:
    """Check what every student is trained with, the parameters of a protocol included."""
    for student in settings["students"]:
        for method in methods_of(settings, student):
            yield from ((f"methods.{method}.{key}", what)
                        for key, what in _faults_of_training(settings, method, student) if key != "model")
        yield from _unequal_training(settings, student)


def _unequal_training(settings, student) -> Iterator[Fault]:
    """Check that the methods of a student train on as much: of two that do not, nobody knows why they differ."""
    first = {}
    for method in methods_of(settings, student):
        given = {**SETTINGS[method_of(settings, method).notebook].defaults(), **trained_with(settings, method, student)}
        for key in ("epochs", "questions_per_step", "max_steps"):
            other, value = first.setdefault((protocol_of(settings, method), key), (method, given[key]))
            if value != given[key]:
                yield f"methods.{method}.{key}", f"{given[key]:g}, and {value:g} for '{other}': all methods of a " \
                                                 "student train on as much; set it under training or the student"


def _faults_of_training(settings, method, student) -> Iterator[Fault]:
    given, protocol = trained_with(settings, method, student), protocol_of(settings, method)
    known, by_hand = method_of(settings, method), trained_by_hand(settings, method, student)
    steps = protocol_parameters(protocol, "training").get("max_steps")
    if steps and "epochs" in by_hand and "max_steps" not in by_hand:
        yield "epochs", f"the protocol {protocol} trains {steps} steps, so epochs has no effect; leave it out, or " \
                        "set max_steps, too (0 for as many as the epochs take)"
    model = SETTINGS[known.notebook]
    yield from model(**{name: value for name, value in given.items() if name in model.model_fields}).conflicts()
    if (layout := given.get("layout", "study")) in LAYOUTS and given.get("kind") != "classifier":
        try:
            for task in known.tasks({}):
                texts_of(layout, task.written or task.name)
        except StudyError as error:
            yield "layout", str(error).removeprefix("layout: ")


def _cell_faults(settings) -> Iterator[Fault]:
    """Check that every method has a student, and explanations to learn from."""
    for method in settings["methods"]:
        known, key = method_of(settings, method), f"methods.{method}"
        if not any(method in methods_of(settings, student) for student in settings["students"]):
            yield key, "no student learns by it; name it under a student's `methods`"
        teachers = [teacher for teacher in settings["teachers"] if promptings_of(settings, teacher, method)]
        if name := token_teacher(settings, method):
            first, chain = methods_of(settings, name)[0], token_teachers(settings, method)
            circle, lent = len(set(chain)) < len(chain), "rationales_of" in settings["methods"][first]
            if circle or lent or any(set(promptings_of(settings, teacher, method)) - set(promptings_of(
                    settings, teacher, first)) for teacher in teachers):
                yield f"{key}.distilled_from", f"the first method of the student '{name}' ('{first}') must be " \
                                               f"another one, with the explanations of '{method}'; name it under " \
                                               "its `methods`"
        if known.explained and not teachers:
            teaching = known.promptings or sorted(name for name, prompting in PROMPTINGS.items() if prompting.teaches)
            yield key, f"no teacher has explanations for it; ask one with a prompting such as {', '.join(teaching)}"
        for teacher, base in ((teacher, base) for teacher in teachers for base in known.beside.values()):
            given = promptings_like(settings, teacher, base)
            if not given:
                yield key, f"it needs {PROMPTINGS[base].gives}; ask teacher '{teacher}' with the prompting {base}, " \
                           "too, or say with `promptings` on which texts to train"
            elif given[1:]:
                yield key, f"it needs {PROMPTINGS[base].gives}, and '{teacher}' gives several ({', '.join(given)}); " \
                           "make a teacher for each, with `promptings`"
        if known.control is exchange_rationales and "rationales_of" not in settings["methods"][method]:
            for name, entry in settings["datasets"].items():
                for split in ("train", "dev"):
                    if entry.get("limits", {}).get(split) == 1:
                        yield f"datasets.{name}.limits.{split}", f"1, but the method '{method}' takes the rationale " \
                                                                 "of another question; set 2 or more"


def _teacher_faults(settings) -> Iterator[Fault]:
    """Check for every teacher, prompting and data set what would stop its run."""
    for teacher, entry in settings["teachers"].items():
        faults = {}
        for prompting in promptings_of(settings, teacher):
            fault = next(_asking_faults(settings, teacher, entry.get("finetune"), prompting), None)
            if fault:
                faults.setdefault(fault, []).append(prompting)
        yield from ((f"teachers.{teacher}', prompting '{', '.join(names)}", fault) for fault, names in faults.items())


def _asking_faults(settings, teacher, tuning, prompting) -> Iterator[str]:
    """Yield why a teacher cannot be asked with a prompting."""
    base, known = base_of(settings, "promptings", prompting), prompting_of(settings, prompting)
    model = SETTINGS[known.notebook]
    given = model(**asked_with(settings, teacher, prompting))
    if tuning is not None and tuning.get("kind") == "classifier":
        yield "its training makes a classifier, which writes nothing (key `finetune`)"
    if tuning is not None and base == "tokens" and tuning.get("kind") == "causal":
        yield "it must be a sequence-to-sequence model, not a causal one (key `finetune`)"
    if tuning is None and not given.model and getattr(given, "backend", "hf") != "published":
        yield "the name of its `model` is empty"
    yield from (what for key, what in given.conflicts() if key != "model")
    if (backend := getattr(given, "backend", "hf")) not in known.backends:
        yield f"the backend {backend} cannot do it; known are {', '.join(known.backends)}"
    used = [method for method in settings["methods"] if prompting in promptings_of(settings, teacher, method)]
    if prompting in promptings_like(settings, teacher, base)[:1]:
        used += [method for method in settings["methods"] if promptings_of(settings, teacher, method)
                 and base in method_of(settings, method).beside.values()]
    needed = ("train",) if known.writes else ("train", "dev")  # every question of both needs its soft label
    for split in needed if used else ():
        if split not in given.splits:
            yield f"without the split {split} in `splits` the method '{used[0]}' has nothing to learn from"
    for dataset in settings["datasets"]:
        prompts = settings["datasets"][dataset].get("prompts", "")
        yield from _text_faults(prompts_of(settings, dataset), prompts, base, known, given)


def _text_faults(name, prompts, base, known, given) -> Iterator[str]:
    """Yield why there are no published texts, or no prompt, of a prompting for a data set."""
    from kdutils.teacher.prompting import check_prompts, prompts_named
    from kdutils.teacher.published.explanations import check_published

    try:
        if getattr(given, "backend", "hf") == "published":
            check_published(name, given.published_teacher, base, given.published_folder)
        else:
            for file in known.prompt_files:
                check_prompts(prompts_named({"prompts": prompts, "dataset": name}), file)
    except StudyError as error:
        yield str(error)


def _contrast_faults(settings) -> Iterator[Fault]:
    """Check the primary contrasts, which the comparison would refuse only when everything else has run."""
    from kdutils.experiments.planned import planned_contrasts

    try:
        planned_contrasts(settings)
    except StudyError as error:
        yield "comparison", str(error)


def _people_faults(settings) -> Iterator[Fault]:
    """Check that a human study has texts to show, each method equally often."""
    if "human_study" not in settings:
        return
    from kdutils.human_study.plan import size_fault

    entry = settings["human_study"]
    given = SETTINGS[PEOPLE](**parameters_of(entry, "human_study"))
    compared = compared_by_people(settings)
    silent = [cell[0] for cell in compared if method_of(settings, cell[0]).explanation is None]
    if not compared:
        yield "human_study", "no student learns by these methods and promptings; there is nothing to show"
        return
    if silent:
        yield "human_study.methods", f"'{silent[0]}' writes no explanations; name the methods to compare"
    yield from ((f"human_study.{key}", what) for key, what in given.conflicts())
    for where in ("human_study", "human_ratings"):
        table = settings.get(where, {}).get("explanations", "")
        if table and not table.startswith("outputs/") and (fault := path_fault(table, "any")):  # that may come later
            yield f"{where}.explanations", fault
    yield from _conflicts("human_study.rater", RATER, entry.get("rater", {}))
    if "rater" in entry and given.task != "rating":
        yield "human_study.rater", f"a model can rate, and the task of this study is {given.task}; set task: rating"
    limits = [dataset.get("limits", {}).get(settings.get("evaluation", {}).get("split", "test"), -1)
              for dataset in settings["datasets"].values()]
    fault = size_fault(given.task, len(compared), given.n_raters, given.texts_per_method, given.raters_per_text,
                       given.checks, None if -1 in limits else sum(limits))
    if fault:
        yield "human_study", fault
    labels = _labels(compared)
    for method in settings.get("human_ratings", {}).get("simulated_effects", {}):
        if method not in labels:
            yield "human_ratings.simulated_effects", f"'{short(method)}' is not shown to people; shown are " \
                                                     f"{', '.join(labels)}"


def _labels(cells):
    """Return what people's texts are called, as human_study.design.label_methods does: method and what varies."""
    varying = [place for place in range(4) if place == 0 or len({cell[place] for cell in cells}) > 1]
    return list(dict.fromkeys(" · ".join(cell[place] for place in varying) for cell in cells))
