"""What an experiment will do and be able to show, before anything is paid: jobs, contrasts, differences they find."""

import contextlib
from collections import Counter

from kdutils.comparison.contrasts import primary_contrasts
from kdutils.comparison.runs_table import CELL, student_label
from kdutils.errors import StudyError, short
from kdutils.experiments.cost import planned_questions
from kdutils.experiments.grid import Experiment, Job, base_of, cells_of, method_of, parameters_of, protocol_of
from kdutils.experiments.steps import COMPARISON, SETTINGS
from kdutils.student.methods import METHODS
from kdutils.student.settings import chosen_settings
from kdutils.teacher.choices import PROMPTINGS

MOST_LISTED = 30  # jobs; more are counted
JOBS = {"data": "tables of questions", "labels": "answers of teachers", "teachers": "trainings of teachers",
        "explanations": "explanations of teachers", "students": "trainings of students",
        "evaluations": "evaluations of students"}  # all others: reports


def job_lines(jobs: list[Job], todo: list[Job]) -> list[str]:
    """Return a line for each of the `jobs` that are done, then for those `todo`; for many ones, a line per kind."""
    lines = []
    for state, chosen in (("done ", [job for job in jobs if job not in todo]), ("to do", todo)):
        if len(chosen) <= MOST_LISTED:
            lines += [f"{state}  {job.notebook:<28} {job.folder}" for job in chosen]
        else:
            counts = Counter(JOBS.get(job.kind, "reports") for job in chosen)
            lines += [f"{state}  {what}: {count}" for what, count in counts.items()]
    return lines


def planned_contrasts(settings: dict) -> list[tuple[str, tuple, tuple]]:
    """Return the primary contrasts of an experiment (contrasts.primary_contrasts); StudyError for an unknown one."""
    import pandas as pd

    names = ["method", "prompting", "student", "teacher"]
    cells = pd.concat(pd.DataFrame(cells_of(settings), columns=names).assign(dataset=dataset, tested_on=dataset)
                      for dataset in settings["datasets"])
    known = {name: method_of(settings, name).control_of for name in settings["methods"]}
    cells["protocol"] = [protocol_of(settings, name) for name in cells["method"]]
    cells = cells.assign(kind=[base_of(settings, "methods", name) for name in cells["method"]],
                         control_of=cells["method"].map(known))
    cells["settings"] = [chosen_settings(method_of(settings, name).notebook,
                                         settings.get("training", {}) | settings["methods"][name])
                         for name in cells["method"]]
    given = SETTINGS[COMPARISON](**parameters_of(settings.get("comparison", {}), "comparison"))
    return primary_contrasts(cells, given.primary)


def name_meanings(settings: dict) -> list[tuple[str, str]]:
    """Return (name, what it means) of the methods and promptings of an experiment, as their settings models say it."""
    found = []
    for key, known in (("methods", METHODS), ("promptings", PROMPTINGS)):
        for name in settings[key]:
            base = base_of(settings, key, name)
            meaning = SETTINGS[known[base].notebook].__doc__.splitlines()[0]
            own = ", ".join(f"{one}: {value}" for one, value in settings[key][name].items() if one != "as")
            found.append((name, meaning if name == base else f"{base}{f' with {own}' if own else ''}. {meaning}"))
    return found


def power_lines(experiment: Experiment) -> list[str]:
    """Return a sentence per size of a data set: the difference that these seeds and test questions can show.

    Nothing is downloaded: where the questions are not here yet, the sentence says so. [] with --tiny, which gives no
    result.
    """
    from kdutils.comparison.answer import before_any_run

    settings, tables = experiment.settings, {}
    if experiment.tiny:
        return []
    places = Counter((first[CELL.index("dataset")], first[CELL.index("student")])
                     for _, first, _ in planned_contrasts(settings))
    sizes = {}
    for (dataset, student), contrasts in places.items():
        job = next(job for job in experiment.jobs if job.kind == "evaluations" and job.labels["dataset"] == dataset)
        try:
            if dataset not in tables:
                tables[dataset] = planned_questions(experiment, job, download=False)
            split = job.parameters.get("split", SETTINGS[job.notebook].defaults()["split"])
            size = int((tables[dataset]["split"] == split).sum())
        except StudyError:
            size = 0
        sizes.setdefault((size, contrasts), []).append(student_label(dataset, student))
    return [before_any_run(names, len(settings["seeds"]), size, contrasts)
            for (size, contrasts), names in sizes.items()]


def vocabulary_lines(experiment: Experiment, jobs: list[Job]) -> list[str]:
    """Return what the students that `jobs` train can never write of their questions (collating.gap_lines).

    A sentence stands once per data set and vocabulary. Nothing is downloaded: what is not on this machine is left out,
    and the training says it. Texts of teachers are not known yet.
    """
    from kdutils.experiments.trials import check_model, recipe_of
    from kdutils.student.collating import gap_lines, student_gaps

    found = {}
    for job in jobs:
        if job.kind != "students":
            continue
        with contextlib.suppress(StudyError):  # of questions or a model that may come later: the job stops at it
            recipe = recipe_of(job)
            vocabulary = recipe.student["tokenizer"] or recipe.student["model"]
            key = (job.labels["dataset"], vocabulary, recipe.student["kind"])
            if key not in found:
                check_model(vocabulary, needs_weights=False)
                questions = planned_questions(experiment, job, download=False)
                found[key] = gap_lines(student_gaps(recipe.student, recipe.method, questions))
    return [f"{dataset}, {short(vocabulary)}: {line}" for (dataset, vocabulary, _), lines in found.items()
            for line in lines]
