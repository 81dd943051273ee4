"""What explaining would cost, before a teacher is asked."""

from kdutils.data.tables import read_table
from kdutils.experiments.grid import Experiment, Job
from kdutils.experiments.inputs import read_job_questions
from kdutils.experiments.steps import DATA, SETTINGS
from kdutils.runs import project_path, read_json
from kdutils.teacher.choices import PROMPTINGS
from kdutils.teacher.explaining import plan
from kdutils.teacher.stored import Plan


def planned_cost(experiment: Experiment, job: Job) -> Plan | None:
    """Return what the explaining `job` would cost now, or None where no teacher is asked.

    The questions are those of the data job's table, or are read anew if it has not run yet or had other parameters.
    """
    parameters = {**SETTINGS[job.notebook].defaults(), **job.parameters}
    prompting = next(name for name, entry in PROMPTINGS.items() if entry.notebook == job.notebook)
    if not PROMPTINGS[prompting].function or parameters["backend"] == "published":
        return None
    data = next(one for one in experiment.jobs if one.folder in job.needs and one.kind == "data")
    given, path = {**SETTINGS[DATA].defaults(), **data.parameters}, project_path(parameters["questions"])
    made = path.parent / "run.json"
    if path.is_file() and made.is_file() and read_json(made)["parameters"] == given:
        questions = read_table(path, "questions")
    else:
        questions = read_job_questions(given)
    questions = questions[questions["split"].isin(parameters["splits"])].reset_index(drop=True)
    return plan(questions, prompting, parameters)
