"""Trials of an experiment's students and teachers on a few of its questions, to tell how long its jobs will take.

Nothing is kept: no output, no completion in the store. A model that is not on this machine, or large, is not tried.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from kdutils.data.tables import read_explanations
from kdutils.errors import StudyError
from kdutils.experiments.cost import asking_parameters, planned_questions, prompting_of_job
from kdutils.experiments.grid import BESIDE
from kdutils.experiments.steps import EVALUATION, SETTINGS
from kdutils.hub import locate_model
from kdutils.runs import project_path
from kdutils.student.methods import METHODS, Explained, explained_of
from kdutils.student.settings import TrainLabelOnly
from kdutils.student.training import Recipe, recipe_from

if TYPE_CHECKING:
    from kdutils.experiments.grid import Experiment, Job
    from kdutils.student.timing import Times
    from kdutils.teacher.stored import Plan

SAMPLE = 32  # questions whose texts are measured
EXPLAINED = 16  # questions that a teacher is timed on
LARGEST = 2e9  # bytes of weights: a larger model is not tried
COPIES = 6  # of the weights that a trial keeps in memory: gradients, two of the optimiser, activations
ANY_SPEED = {"learning_rate", "warmup_steps", "tensorboard"}  # parameters that do not change the speed
TRAINED = {"model", "distilled_from"}  # parameters that may name a model that the study trains: <its folder>/seed-0
ANY_AMOUNT = {"epochs", "max_steps", "dev_evaluations", "checkpoint"}  # those that do not change the time of a step


# What the speed of a job depends on

def speed_key(notebook: str, given: Mapping,
              training_of: Callable[[str], tuple[str, Mapping] | None] = lambda output: None) -> str:
    """Return what the time of a job per question depends on, as text: its settings, and whose texts it reads.

    `given`: the parameters of its notebook. ``training_of(folder)``: (notebook, parameters) of the training of the
    students in a folder, None where nothing was trained there. A model that was trained counts as what it was trained
    with, wherever it lies.
    """
    model = SETTINGS[notebook]
    settings = {**model.defaults(), **given}
    own = {name: settings[name] for name in model.own() - ANY_SPEED}
    for name in TRAINED & set(own):
        training = training_of(str(Path(own[name]).parent)) if own[name] else None
        own[name] = speed_key(*training, training_of) if training else own[name]
    taught = speed_key(*training_of(given["students"]), training_of) if "students" in given else ""
    return json.dumps([notebook, own, taught,
                       [given["labels"].get(name) for name in ("dataset", "teacher", "prompting", "tested_on")]],
                      sort_keys=True)


def student_key(training: Job) -> str:
    """Return the models and settings of a training, as text: trainings for which they are equal need one trial."""
    recipe = recipe_of(training)
    settings = {name: value for name, value in recipe.training.items() if name not in ANY_AMOUNT | ANY_SPEED}
    return json.dumps([recipe.student, recipe.parameters.get("distilled_from", ""), settings], sort_keys=True)


def recipe_of(training: Job) -> Recipe:
    """Return how the students of the job `training` learn."""
    settings = SETTINGS[training.notebook]
    given = {**settings.defaults(), **training.parameters}
    method = next(name for name, entry in METHODS.items() if entry.notebook == training.notebook)
    return recipe_from(given, method, {name: given[name] for name in settings.own() - TrainLabelOnly.own()})


# Trials

def try_student(experiment: Experiment, trainings: list[Job],
                clock: Callable[[], float]) -> dict[str, tuple[float, Times]]:
    """Return {folder: (seconds to load the student, its Times)} of `trainings` that have one student_key.

    `clock` returns seconds. Raises StudyError if the model or the questions are not on this machine, and if the model
    is too large to be tried.
    """
    from kdutils.student.timing import Cell, time_student

    student, cells, texts = recipe_of(trainings[0]).student, {}, {}
    untrained = {job.parameters["output"]: job.parameters["model"] for job in experiment.jobs if job.kind == "students"}
    check_model(student["model"], not student["random_weights"])
    check_model(student["tokenizer"], False)
    keys = [speed_key(job.notebook, job.parameters) for job in trainings]
    for key, job in zip(keys, trainings, strict=True):
        if key not in cells:
            questions = planned_questions(experiment, job, download=False)
            train = questions[questions["split"] == "train"]
            some = train.sample(min(SAMPLE, len(train)), random_state=0).reset_index(drop=True)
            recipe = recipe_of(job)
            if name := recipe.parameters.get("distilled_from"):  # of a student that is not trained yet, its model
                teacher = untrained.get(str(Path(name).parent), name)
                check_model(teacher)
                recipe = replace(recipe, parameters={**recipe.parameters, "distilled_from": teacher})
            cells[key] = Cell(recipe, some.to_dict("records"), _explained(experiment, job, some, texts))
    of_student = (job.parameters for job in experiment.jobs if job.parameters.get("students")
                  == trainings[0].parameters["output"])
    evaluation = {**SETTINGS[EVALUATION].defaults(), **next(of_student, experiment.settings.get("evaluation", {}))}
    print(f"timing a few steps of {student['model']}", flush=True)
    load, times = time_student(list(cells.values()), evaluation["max_explanation_tokens"], evaluation["precision"],
                               clock)
    of_key = dict(zip(cells, times, strict=True))
    return {job.folder: (load, of_key[key]) for key, job in zip(keys, trainings, strict=True)}


def _explained(experiment, training, questions, texts):
    """Return {question id: Explained} of some questions: texts that exist, else words in a plausible number.

    `texts`: {path: what _texts returned for it}, to which new ones are added.
    """
    makers = {f"{job.parameters['output']}/explanations.parquet": job for job in experiment.jobs
              if job.kind == "explanations"}
    paths = [training.parameters[name] for name in ("explanations", *BESIDE) if name in training.parameters]
    texts.update({path: _texts(makers[path], path, questions) for path in paths if path not in texts})
    tables = [texts[path] for path in paths]
    if all(table is not None for table in tables):
        return explained_of(tables[0], questions, *tables[1:]) if tables else {}
    given = {**SETTINGS[makers[paths[0]].notebook].defaults(), **makers[paths[0]].parameters}
    if "k" in given:  # words; where the dev split chooses their number, the longest
        length = max(given["choose_k"] if given["choose_on"] else [given["k"]])
    else:
        length = given.get("max_revision_tokens", given["max_new_tokens"]) // 2
    text = " ".join(["because"] * length)
    return {item["id"]: Explained(text, {choice: text for choice in item["choices"] if choice != item["answer"]},
                                  soft={choice: 1 / len(item["choices"]) for choice in item["choices"]})
            for item in questions.to_dict("records")}


def _texts(maker, path, questions):
    """Return the explanations of some questions that the job `maker` writes to `path`, None if there are none yet."""
    from kdutils.teacher.explaining import explain

    given = {**SETTINGS[maker.notebook].defaults(), **maker.parameters}
    if project_path(path).is_file():
        return read_explanations(path)
    if given.get("backend") != "published":
        return None
    here = given["published_folder"] or os.environ.get("KDUTILS_DATA") or given["published_teacher"] == "people"
    return explain(questions, prompting_of_job(maker), given) if here else None


def try_teacher(experiment: Experiment, job: Job, cost: Plan, clock: Callable[[], float]) -> float:
    """Return the seconds that the teacher of the explaining `job` takes per token that it may write.

    `cost`: that of `job`. `clock` returns seconds. Raises StudyError for a server, and as try_student does.
    """
    from kdutils.teacher.backends import load_teacher
    from kdutils.teacher.explaining import PROMPTED
    from kdutils.teacher.store import Store
    from kdutils.teacher.stored import StoredTeacher

    given = asking_parameters(job)
    if given["backend"] != "hf":
        raise StudyError("a server writes them")
    check_model(given["model"], revision=given["revision"])
    questions = planned_questions(experiment, job, download=False)
    some = questions[questions["split"].isin(given["splits"])].head(EXPLAINED).reset_index(drop=True)
    print(f"timing a few completions of {given['model']}", flush=True)
    with TemporaryDirectory() as folder, Store(Path(folder) / "completions.sqlite") as store:
        teacher = StoredTeacher(load_teacher(given), store)
        teacher.teacher.model.eval()  # loaded before the time counts
        begun = clock()
        PROMPTED[prompting_of_job(job)](teacher, some, given, None)
        return (clock() - begun) / (teacher.asked * cost.new_tokens / cost.to_ask)


def check_model(name: str, needs_weights: bool = True, revision: str = "") -> None:
    """Raise StudyError if a model is not on this machine, or too large to be tried in a minute."""
    import psutil
    from transformers.utils import cached_file

    if not name:  # a shape alone
        return
    where = locate_model(name, needs_weights)
    if not Path(where).is_dir():
        file = "config.json" if needs_weights else "tokenizer_config.json"
        with contextlib.suppress(OSError, ValueError):
            where = Path(cached_file(where, file, revision=revision or None, local_files_only=True)).parent
    if not Path(where).is_dir():
        raise StudyError(f"{name} is not on this machine")
    size = sum(path.stat().st_size for path in Path(where).glob("*.safetensors")) if needs_weights else 0
    if size > LARGEST or COPIES * size > psutil.virtual_memory().available:
        raise StudyError(f"{name} is too large for a quick trial here: {size / 1e9:.1f} GB of weights")
