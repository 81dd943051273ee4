"""Asking again for the completions of an experiment from which no explanation could be read."""

from collections import Counter
from collections.abc import Iterator

from kdutils.errors import StudyError
from kdutils.experiments.cost import planned_questions, prompting_of_job
from kdutils.experiments.grid import Experiment
from kdutils.experiments.steps import SETTINGS
from kdutils.teacher.choices import PROMPTINGS
from kdutils.teacher.explaining import asks_for_letters, unusable_completions
from kdutils.teacher.store import Store, store_path


def retry_unusable(experiment: Experiment, dry_run: bool = False) -> Iterator[str]:
    """Forget the unusable completions of teachers on servers, mark their jobs as unfinished, yield a line per job.

    A local model is left out, because it would write the same texts again. `dry_run`: nothing is changed.
    """
    for job in experiment.jobs:
        if job.kind != "explanations":
            continue
        parameters, prompting = {**SETTINGS[job.notebook].defaults(), **job.parameters}, prompting_of_job(job)
        entry = PROMPTINGS[prompting]
        writes = entry.writes or asks_for_letters(parameters)
        if not (entry.function and writes) or parameters["backend"] != "openai":
            continue
        try:
            questions = planned_questions(experiment, job, download=False)
        except StudyError:  # they were never read, so nothing was asked
            continue
        questions = questions[questions["split"].isin(parameters["splits"])].reset_index(drop=True)
        with Store(store_path(), read_only=dry_run) as store:
            found = unusable_completions(questions, prompting, parameters, store)
            if found and not dry_run:
                store.forget(found)
                (experiment.folder / job.folder / "metrics.json").unlink(missing_ok=True)
        problems = ", ".join(f"{problem} {count}" for problem, count in sorted(Counter(found.values()).items()))
        what = f"{len(found)} unusable completions to ask for again ({problems}); what builds on it waits for them"
        yield f"{job.folder}: {what if found else 'no unusable completion'}"
