"""What explaining would cost, before a teacher is asked."""

import pandas as pd

from kdutils.data.tables import read_table
from kdutils.errors import StudyError
from kdutils.experiments.grid import Experiment, Job
from kdutils.experiments.inputs import questions_are_here, read_job_questions
from kdutils.experiments.steps import DATA, LABELS, SETTINGS
from kdutils.runs import project_path, read_json
from kdutils.teacher.choices import PROMPTINGS
from kdutils.teacher.completion import Completion
from kdutils.teacher.explaining import PROMPTED, plan
from kdutils.teacher.labelling import to_answer
from kdutils.teacher.stored import UNWRITTEN, Plan

UNANSWERED = "unknown"  # in the place of an answer that a teacher will give


def planned_cost(experiment: Experiment, job: Job) -> Plan | None:
    """Return what the explaining `job` would cost now, or None where no teacher is asked."""
    parameters, prompting = asking_parameters(job), prompting_of_job(job)
    if not PROMPTINGS[prompting].function or parameters["backend"] == "published":
        return None
    questions, splits = planned_questions(experiment, job), parameters["splits"]
    asked = to_answer(questions, splits) if job.notebook == LABELS else questions[questions["split"].isin(splits)]
    return plan(asked.reset_index(drop=True), prompting, parameters)


class _Silent:
    """A teacher without a model: for every prompt it has the same text."""

    def complete(self, prompts, *_):
        return [Completion(UNWRITTEN, "planned", 0, 0) for _ in prompts]

    def contrast(self, prompts, *_):
        return self.complete(prompts)

    score = contrast


def cannot_ask(experiment: Experiment, job: Job) -> bool:
    """Return whether the explaining `job` would stop at its questions or prompts, whatever its teacher writes."""
    parameters = {**asking_parameters(job), "given_answer": job.notebook != LABELS}
    try:
        questions = planned_questions(experiment, job, download=False)
    except StudyError:  # not here yet: check_data has looked at those that are
        return False
    try:
        PROMPTED[prompting_of_job(job)](_Silent(), questions, parameters, None)
    except StudyError:
        return True
    return False


def prompting_of_job(job: Job) -> str:
    """Return the prompting (a key of PROMPTINGS) of an explaining or answering job."""
    return next((name for name, entry in PROMPTINGS.items() if entry.notebook == job.notebook), "few_shot")


def asking_parameters(job: Job) -> dict:
    """Return all parameters with which an explaining or answering job asks its teacher."""
    given = {**SETTINGS[job.notebook].defaults(), **job.parameters}
    return {**given, "given_answer": False} if job.notebook == LABELS else given


def planned_questions(experiment: Experiment, job: Job, download: bool = True) -> pd.DataFrame:
    """Return the questions that `job` works on, all splits, as a frame of tables.QUESTIONS.

    They are those of the data job's table, or are read anew if it has not run yet or had other parameters. Questions
    that a teacher has yet to answer have UNANSWERED or their first choice as answer. Raises StudyError if that takes a
    download and `download` is false.
    """
    data = next(one for one in experiment.jobs if one.folder == job.needs[0])
    if data.kind == "labels":
        questions = planned_questions(experiment, data, download)
        done = experiment.folder / data.folder / "questions.parquet"
        known = dict(read_table(done, "questions")[["id", "answer"]].to_numpy()) if done.is_file() else {}
        return questions.assign(answer=[row.answer or known.get(row.id) or next(iter(row.choices), UNANSWERED)
                                        for row in questions.itertuples()])
    given, path = {**SETTINGS[DATA].defaults(), **data.parameters}, project_path(job.parameters["questions"])
    made = path.parent / "run.json"
    if path.is_file() and made.is_file() and read_json(made)["parameters"] == given:
        return read_table(path, "questions")
    if not download and not questions_are_here(given):
        raise StudyError(f"the questions of '{given['dataset']}' are not on this machine yet")
    return read_job_questions(given)
