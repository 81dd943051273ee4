"""The grid of an experiment: its cells, and the jobs that they make.

A job is one notebook with its parameters. Its folder below ``outputs/<experiment>/`` says what it is:
``data/<data set>``, ``labels/<data set>`` (the same with answers of a teacher, key `labels` of the data set),
``teachers/<data set>/<teacher>`` (a teacher that the study fine-tunes),
``explanations/<data set>/<teacher>/<prompting>``, ``report``,
``students/<data set>/<teacher>/<prompting>/<method>/<student>/seeds-<…>``, the same below ``evaluations/`` and, where
the key `transfer` names other data sets to test on, below ``transfers/<other data set>/``; ``human_study`` and
``human_ratings`` (with a key `human_study`), ``model_ratings`` (with its key `rater`), and ``comparison``.

Every teacher is asked with every prompting, and every student learns by every method from the explanations of every
teacher and prompting. The keys `promptings` (of a teacher or method) and `methods` (of a student) restrict this.
Explanations of wrong answers and soft labels go only to methods that need them. A method that needs no explanation is
trained once. A prompting or method in several forms has a name for each; the key `as` says what it is. Parameters that
the file sets take precedence over those of a published `protocol`, of the experiment or of a method. The control
`shuffled` may take its texts from another data set (key `rationales_of`); on that data set itself it has no cell. The
`distilled_from` of a method may name a student of the experiment: its first seed, trained on the same explanations, is
the teacher of tokens.
"""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from kdutils.data.datasets import READERS
from kdutils.experiments.steps import (
    COMPARISON,
    DATA,
    ERRORS,
    EVALUATION,
    LABELS,
    PEOPLE,
    RATER,
    RATINGS,
    REPORT,
    SETTINGS,
    TUNING,
)
from kdutils.experiments.yaml_file import FOLDER
from kdutils.runs import PROJECT
from kdutils.settings import MAX_SEED
from kdutils.student.methods import METHODS, Method
from kdutils.student.protocols import protocol_parameters
from kdutils.teacher.choices import PROMPTINGS, Prompting

OUTPUTS = PROJECT / "outputs"
EXAMPLE = "example"  # the student that ships with the project, in the place of an experiment: no name of another one

# Keys of an entry that select cells of the grid; all its other keys are parameters of notebooks.
GRID_KEYS = {"datasets": {"prompts", "labels"}, "teachers": {"promptings", "finetune"}, "promptings": {"as"},
             "methods": {"promptings", "as", "rationales_of", "protocol"}, "students": {"methods"},
             "human_study": {"methods", "promptings", "rater"}}
# What one job may use, told to a cluster: name: (smallest, default). 0 minutes: the default of the cluster.
RESOURCES = {"memory_mb": (100, 8000), "minutes": (1, 0), "gpus": (0, 0)}
# {parameter of a training: the prompting} of all tables that a method reads beside its explanations.
BESIDE = {key: base for method in METHODS.values() for key, base in method.beside.items()}
KINDS = ("data", "labels", "teachers", "explanations", "report", "students", "evaluations", "human_study", "errors",
         "comparison")


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
    jobs: list[Job]
    file: str = ""  # the experiment file, relative to the project if it lies in it
    tiny: bool = False
    ratings: tuple[str, ...] = ()  # what --ratings named: they take the place of those in the file, also in later runs
    leave_out_too_long: bool = False  # whether --leave-out-too-long was given, in this run or an earlier one

    @property
    def folder(self) -> Path:
        """The folder of its outputs."""
        return OUTPUTS / self.name

    @property
    def command(self) -> str:
        """The command that runs it, as a shell reads it; for a file outside the project it works in every folder."""
        shipped = Path(self.file).parent == FOLDER.relative_to(PROJECT)
        words = [Path(self.file).stem if shipped else self.file] + ["--tiny"] * self.tiny
        program = str(PROJECT / "run_all.sh") if Path(self.file).is_absolute() else "./run_all.sh"
        return shlex.join([program, *words])


# What the entries of an experiment mean

def base_of(settings: dict, key: str, name: str) -> str:
    """Return the prompting or method (a key of PROMPTINGS or METHODS) that the entry `name` is a form of."""
    return settings[key][name].get("as", name)


def prompting_of(settings: dict, name: str) -> Prompting:
    """Return the Prompting of an entry of `promptings`."""
    return PROMPTINGS[base_of(settings, "promptings", name)]


def method_of(settings: dict, name: str) -> Method:
    """Return the Method of an entry of `methods`."""
    return METHODS[base_of(settings, "methods", name)]


def protocol_of(settings: dict, method: str) -> str:
    """Return the protocol of an entry of `methods`: its own, else that of the experiment."""
    return settings["methods"][method].get("protocol", settings.get("protocol", "fair"))


def protocols_of(settings: dict) -> dict[str, list[str]]:
    """Return {protocol: its methods} of an experiment."""
    found = {}
    for method in settings["methods"]:
        found.setdefault(protocol_of(settings, method), []).append(method)
    return found


def trained_by_hand(settings: dict, method: str, student: str) -> dict:
    """Return the parameters that the file itself sets for the training of `student` by `method`."""
    return {**settings.get("training", {}), **parameters_of(settings["methods"][method], "methods"),
            **parameters_of(settings["students"][student], "students")}


def trained_with(settings: dict, method: str, student: str) -> dict:
    """Return the parameters of the training of `student` by `method`: those of the protocol, then those of the file."""
    known = SETTINGS[method_of(settings, method).notebook].own()
    return {**protocol_parameters(protocol_of(settings, method), "training", base_of(settings, "methods", method),
                                  known), **trained_by_hand(settings, method, student)}


def evaluated_with(settings: dict, method: str) -> dict:
    """Return the parameters with which students of `method` are evaluated, in the same order of precedence."""
    return {**protocol_parameters(protocol_of(settings, method), "evaluation"), **settings.get("evaluation", {})}


def compared_with(settings: dict) -> dict:
    """Return the parameters of the comparison: those of all protocols of the experiment, then those of the file."""
    every = {}
    for protocol in protocols_of(settings):
        every |= protocol_parameters(protocol, "comparison")
    return every | settings.get("comparison", {})


def promptings_of(settings: dict, teacher: str, method: str | None = None) -> list[str]:
    """Return the promptings with which `teacher` is asked, or of those the ones on which `method` is trained."""
    asked = settings["teachers"][teacher].get("promptings", list(settings["promptings"]))
    if method is None:
        return asked
    trained = settings["methods"][method].get("promptings", list(settings["promptings"]))
    known = method_of(settings, method)
    if not known.explained:
        return []
    return [name for name in asked if name in trained and (
        base_of(settings, "promptings", name) in known.promptings if known.promptings else
        prompting_of(settings, name).teaches)]


def token_teacher(settings: dict, method: str) -> str:
    """Return the student of the experiment whose tokens' probabilities `method` learns, "" where it is none of them."""
    name = settings["methods"][method].get("distilled_from", "")
    return name if name in settings["students"] else ""


def token_teachers(settings: dict, method: str) -> list[str]:
    """Return the students whose tokens `method` learns: of the experiment, then those behind it, the nearest first.

    A student is that of its first method. In a circle, which cannot be trained, the last one stands twice.
    """
    found = []
    while (name := token_teacher(settings, method)) and name not in found:
        found.append(name)
        method = methods_of(settings, name)[0]
    return [*found, name] if name else found


def promptings_like(settings: dict, teacher: str, base: str) -> list[str]:
    """Return the promptings of `teacher` that are forms of `base` (a key of PROMPTINGS)."""
    return [name for name in promptings_of(settings, teacher) if base_of(settings, "promptings", name) == base]


def methods_of(settings: dict, student: str) -> list[str]:
    """Return the methods that `student` is trained with."""
    return settings["students"][student].get("methods", list(settings["methods"]))


def parameters_of(entry: dict, key: str) -> dict:
    """Return the parameters of an entry of `key`: all that GRID_KEYS does not name."""
    return {name: value for name, value in entry.items() if name not in GRID_KEYS.get(key, set())}


def asked_with(settings: dict, teacher: str, prompting: str) -> dict:
    """Return the parameters that the experiment sets where `teacher` is asked with `prompting`."""
    return {**parameters_of(settings["teachers"][teacher], "teachers"),
            **parameters_of(settings["promptings"][prompting], "promptings")}


def prompts_of(settings: dict, dataset: str) -> str:
    """Return the name under which prompts and published files of a data set are found.

    It is the name that its reader gives (datasets.Reader.prompts), else that of its reader, if it has one.
    """
    reader = settings["datasets"][dataset].get("reader", "") or dataset
    return dataset if reader not in READERS or reader == "table" else READERS[reader].prompts or reader


def is_unlabelled(entry: dict) -> bool:
    """Return whether a teacher answers the questions of an entry of `datasets` that have no answer."""
    return entry.get("labels") == "teacher"


def labelling_teacher(settings: dict) -> str:
    """Return the teacher that answers questions: the only one that writes texts, "" if there are none or several."""
    names = [name for name, entry in settings["teachers"].items() if "finetune" not in entry
             and entry.get("backend") != "published" and promptings_like(settings, name, "few_shot")]
    return names[0] if len(names) == 1 else ""


def seed_groups(settings: dict) -> list[list[int]]:
    """Return the seeds of an experiment, cut into those of one job each."""
    seeds = settings["seeds"]
    size = settings.get("seeds_per_job", MAX_SEED)  # as schema.ExperimentFile has it
    return [seeds[start:start + size] for start in range(0, len(seeds), size)]


def resources_of(settings: dict, kind: str) -> dict[str, int]:
    """Return {memory_mb, minutes, gpus} of the jobs of a kind: its own, else those of all jobs, else the default."""
    entry = settings.get("resources", {})
    return {name: entry.get(kind, {}).get(name, entry.get(name, default)) for name, (_, default) in RESOURCES.items()}


def compared_by_people(settings: dict) -> list[tuple[str, str, str, str]]:
    """Return (method, prompting, student, teacher) of every cell whose texts people are shown."""
    entry = settings["human_study"]
    return [cell for cell in cells_of(settings) if cell[0] in entry.get("methods", [cell[0]])
            and cell[1] in entry.get("promptings", [cell[1]])]


def cells_of(settings: dict) -> list[tuple[str, str, str, str]]:
    """Return (method, prompting, student, teacher) of every cell of a data set; "-" where nothing was explained."""
    cells = []
    for teacher in settings["teachers"]:
        for method in settings["methods"]:
            plain = not method_of(settings, method).explained
            for prompting in ["-"] if plain else promptings_of(settings, teacher, method):
                cells += [(method, prompting, student, "-" if plain else teacher) for student in settings["students"]
                          if method in methods_of(settings, student)]
    return list(dict.fromkeys(cells))


# Jobs

def make_jobs(name: str, settings: dict) -> Iterator[Job]:
    """Yield the jobs of an experiment, each after those it needs; whole numbers for float parameters become floats."""
    for job in _jobs(name, settings):
        types = SETTINGS[job.notebook].types()
        yield replace(job, parameters={
            key: float(value) if types.get(key) == "float" and type(value) is int else value
            for key, value in job.parameters.items()})


def _jobs(name, settings):
    root = f"outputs/{name}"
    cells, explained = [], {}
    tables = {dataset: Job("data", f"data/{dataset}", DATA, {
        "dataset": dataset, "limits": {}, **parameters_of(values, "datasets"),  # all questions, if it sets no limits
        **({"unlabelled": True} if is_unlabelled(values) else {}), "output": f"{root}/data/{dataset}"},
        (), {"dataset": dataset}) for dataset, values in settings["datasets"].items()}
    yield from tables.values()
    # From here on the table with the teacher's answers takes the place of the one without.
    tables = {dataset: _label_job(root, settings, data) if is_unlabelled(settings["datasets"][dataset]) else data
              for dataset, data in tables.items()}
    yield from (job for job in tables.values() if job.kind == "labels")
    for data in tables.values():
        for teacher in settings["teachers"]:
            jobs = list(_explain_jobs(root, settings, data, teacher))
            yield from jobs
            explained |= {(data.labels["dataset"], teacher, job.labels["prompting"]): job
                          for job in jobs if job.kind == "explanations"}
    for data in tables.values():
        cells += (here := list(_cells_on(root, settings, tables, data, explained)))
        yield from (job for cell in here for job in cell)
    shown = [evaluate for _, evaluate in cells]  # texts of transferred students are not for people
    cells += (moved := [(train, _transfer(root, settings, train, evaluate, tables[other])) for train, evaluate in cells
                        for other in settings.get("transfer", []) if other != train.labels["dataset"]])
    yield from (job for _, job in moved)
    of_texts = {key: settings.get("evaluation", {})[key] for key in ("encoder", "nli")
                if key in settings.get("evaluation", {})}  # teachers and students are measured by the same models
    yield Job("report", "report", REPORT, {
        **of_texts, **settings.get("report", {}), "explained": [f"{root}/{job.folder}" for job in explained.values()],
        "output": f"{root}/report"}, tuple(job.folder for job in explained.values()))
    if "human_study" in settings:
        yield from _people_jobs(root, settings, shown, [job.folder for job in explained.values()])
    compared = {"trainings": [f"{root}/{folder}" for folder in dict.fromkeys(train.folder for train, _ in cells)],
                "evaluations": [f"{root}/{evaluate.folder}" for _, evaluate in cells]}
    yield Job("errors", "errors", ERRORS, {**settings.get("errors", {}), **compared, "output": f"{root}/errors"},
              tuple(dict.fromkeys(job.folder for cell in cells for job in cell)))
    yield Job("comparison", "comparison", COMPARISON, {
        **compared_with(settings), "experiment": name, "output": f"{root}/comparison", **compared, "missing": [],
        "explained": [f"{root}/{job.folder}" for job in explained.values()],
    }, tuple(dict.fromkeys(job.folder for cell in [explained.values(), *cells] for job in cell)))


def _label_job(root, settings, data):
    """Return the job in which the teacher answers the questions of a data set that have no answer."""
    teacher, dataset = labelling_teacher(settings), data.labels["dataset"]
    prompting = promptings_like(settings, teacher, "few_shot")[0]
    given = {name: value for name, value in asked_with(settings, teacher, prompting).items()
             if name not in ("given_answer", "splits")}
    folder, labels = f"labels/{dataset}", {**data.labels, "teacher": teacher}
    return Job("labels", folder, LABELS, {
        "dataset": prompts_of(settings, dataset), **_own_prompts(settings, data, prompting), **given,
        "questions": f"{root}/{data.folder}/questions.parquet", "labels": labels, "output": f"{root}/{folder}"},
        (data.folder,), labels)


def _explain_jobs(root, settings, data, teacher):
    """Yield the jobs of one teacher on one data set: its fine-tuning, if the study does that, then its explanations."""
    entry, needs = settings["teachers"][teacher], (data.folder,)
    questions = f"{root}/{data.folder}/questions.parquet"
    tuned = {}
    if "finetune" in entry:
        folder, labels = f"teachers/{data.labels['dataset']}/{teacher}", {**data.labels, "teacher": teacher}
        yield Job("teachers", folder, TUNING, {**entry["finetune"], "questions": questions, "labels": labels,
                                               "seeds": [0], "output": f"{root}/{folder}"}, needs, labels)
        tuned, needs = {"model": f"{root}/{folder}/seed-0"}, (*needs, folder)
    names = promptings_of(settings, teacher)
    for prompting in sorted(names, key=lambda name: list(PROMPTINGS).index(base_of(settings, "promptings", name))):
        folder = f"explanations/{data.labels['dataset']}/{teacher}/{prompting}"
        labels = {**data.labels, "teacher": teacher, "prompting": prompting}
        # A revision starts from the same rationales; after few_shot they are in the store.
        after = (f"explanations/{data.labels['dataset']}/{teacher}/few_shot",) \
            if base_of(settings, "promptings", prompting) == "critique_revision" and "few_shot" in names else ()
        yield Job("explanations", folder, prompting_of(settings, prompting).notebook, {
            "dataset": prompts_of(settings, data.labels["dataset"]), **_own_prompts(settings, data, prompting),
            **parameters_of(entry, "teachers"), **tuned,
            **parameters_of(settings["promptings"][prompting], "promptings"), "questions": questions,
            "labels": labels, "output": f"{root}/{folder}"}, needs + after, labels)


def _own_prompts(settings, data, prompting):
    """Return the parameter `prompts` of an explaining job if its data set has prompt files of its own."""
    folder = settings["datasets"][data.labels["dataset"]].get("prompts")
    return {"prompts": folder} if folder and prompting_of(settings, prompting).prompt_files else {}


def _cells_on(root, settings, tables, data, explained):
    """Yield the (training, evaluation) jobs on one data set; `explained`: {(data set, teacher, prompting): job}."""
    own = data.labels["dataset"]
    for teacher in settings["teachers"]:
        beside = {key: explained[own, teacher, names[0]] for key, base in BESIDE.items()
                  if (names := promptings_like(settings, teacher, base))}
        for method in sorted(settings["methods"], key=lambda name: len(token_teachers(settings, name))):
            lender = settings["methods"][method].get("rationales_of", "")
            for prompting in promptings_of(settings, teacher, method) if lender != own else []:
                lent = (tables[lender], explained[lender, teacher, prompting]) if lender else ()
                yield from _cells(root, settings, data, method, explained[own, teacher, prompting], beside, lent)
    for method in settings["methods"]:
        if not method_of(settings, method).explained:
            yield from _cells(root, settings, data, method)


def _cells(root, settings, data, method, explain=None, beside=None, lent=()):
    """Yield the (training, evaluation) jobs of a method on one set of explanations, or on none.

    `beside`: {parameter: the job of further texts of the teacher}, for methods that read them, and those on wrong
    answers for the probes of the evaluation, too. `lent`: the jobs of the questions and explanations of another data
    set, for a control that takes its texts there.
    """
    known = method_of(settings, method)
    labels = explain.labels if explain else {**data.labels, "teacher": "-", "prompting": "-"}
    protocol = protocol_of(settings, method)
    labels = labels | ({} if protocol == "fair" else {"protocol": protocol})
    questions = {"questions": f"{root}/{data.folder}/questions.parquet"}
    read, probed = ({key: job for key, job in (beside or {}).items() if key in keys}
                    for keys in (known.beside, SETTINGS[EVALUATION].model_fields))

    def tables(jobs):
        return {key: f"{root}/{job.folder}/explanations.parquet" for key, job in jobs.items()}

    texts = tables({"explanations": explain} if explain else {})
    files = (("other_questions", "questions.parquet"), ("other_explanations", "explanations.parquet"))
    others = {key: f"{root}/{job.folder}/{file}" for (key, file), job in zip(files, lent, strict=False)}
    here = explain.folder.partition("/")[2] if explain else data.labels["dataset"]
    groups = {f"seeds-{'-'.join(map(str, seeds))}": seeds for seeds in seed_groups(settings)}
    tuned, distilled = (), {}
    if name := token_teacher(settings, method):
        tuned = (f"students/{here}/{methods_of(settings, name)[0]}/{name}/{next(iter(groups))}",)
        distilled = {"distilled_from": f"{root}/{tuned[0]}/seed-{settings['seeds'][0]}"}
    for student in (name for name in settings["students"] if method in methods_of(settings, name)):
        for group, seeds in groups.items():
            below = f"{here}/{method}/{student}/{group}"
            cell = {"labels": {**labels, "method": method, "student": student}, "seeds": seeds}
            named = {**cell["labels"], "seeds": ", ".join(map(str, seeds))}
            needs = tuple(job.folder for job in (data, explain, *read.values(), *lent) if job) + tuned
            train = Job("students", f"students/{below}", known.notebook, {
                **trained_with(settings, method, student), **questions, **texts, **others,
                **tables(read), **distilled, **cell, "output": f"{root}/students/{below}"}, needs, named)
            needs = tuple(job.folder for job in (data, explain, *probed.values(), train) if job)
            evaluate = Job("evaluations", f"evaluations/{below}", EVALUATION, {
                **evaluated_with(settings, method), **questions, "explanations": "", **texts, **tables(probed), **cell,
                "students": f"{root}/students/{below}", "output": f"{root}/evaluations/{below}"}, needs, named)
            yield train, evaluate


def _transfer(root, settings, train, evaluate, data):
    """Return the evaluation of a trained student on the questions of another data set, which nobody has explained."""
    folder = f"transfers/{data.labels['dataset']}/{evaluate.folder.partition('/')[2]}"
    labels = {**evaluate.parameters["labels"], "tested_on": data.labels["dataset"]}
    return Job("evaluations", folder, EVALUATION, {
        **evaluated_with(settings, labels["method"]), "explanations": "",
        "questions": f"{root}/{data.folder}/questions.parquet", "labels": labels,
        "seeds": train.parameters["seeds"], "students": f"{root}/{train.folder}",
        "output": f"{root}/{folder}"}, (data.folder, train.folder), {**evaluate.labels, **labels})


def _people_jobs(root, settings, evaluations, explained):
    """Yield the jobs that make a human study, analyse its ratings (simulated until there are any) and ask a model.

    `explained`: the folders of the explaining jobs, on which a study waits that names a table of theirs.
    """
    entry, analysis = settings["human_study"], settings.get("human_ratings", {})

    def told(values):
        return tuple(folder for folder in explained
                     if values.get("explanations") == f"{root}/{folder}/explanations.parquet")

    shown = [job for job in evaluations if all(
        job.labels[label] in entry.get(key, [job.labels[label]])
        for key, label in (("methods", "method"), ("promptings", "prompting")))]
    data = sorted({job.needs[0] for job in shown})
    yield Job("human_study", "human_study", PEOPLE, {
        "explanations": "", **parameters_of(entry, "human_study"),
        "evaluations": [f"{root}/{job.folder}" for job in shown],
        "questions": [f"{root}/{folder}/questions.parquet" for folder in data], "output": f"{root}/human_study"},
        (*data, *(job.folder for job in shown), *told(entry)))
    yield Job("human_study", "human_ratings", RATINGS, {
        **analysis, "plan": f"{root}/human_study/key/plan.parquet",
        "output": f"{root}/human_ratings"}, ("human_study", *told(analysis)))
    if "rater" in entry:
        people = {name: value for name, value in analysis.items()
                  if name in ("failed_checks_allowed", "keep_unfinished")}  # the same people as in the analysis
        yield Job("human_study", "model_ratings", RATER, {
            **entry["rater"], "plan": f"{root}/human_study/key/plan.parquet",
            "texts": f"{root}/human_study/key/texts.parquet", **people,
            "ratings": analysis.get("ratings", []), "output": f"{root}/model_ratings"},
            ("human_study",))
