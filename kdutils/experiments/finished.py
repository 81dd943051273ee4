"""Which runs of an experiment are finished, and which of them are outdated: made from something else than is there now.

A finished run is outdated if a run that it builds on is not finished or is outdated itself, or has other results than
when this one read them (``inputs`` of run.json). It is kept: where the results come back the same, it counts again.
"""

from dataclasses import replace
from functools import cache

from kdutils.errors import StudyError
from kdutils.experiments.grid import Experiment, Job
from kdutils.runs import file_stamp, project_path, read_json, sha256


def is_finished(experiment: Experiment, job: Job) -> bool:
    """Return whether `job` has results, outdated or not."""
    return (experiment.folder / job.folder / "metrics.json").is_file()


def changed_input(experiment: Experiment, job: Job) -> str:
    """Return the first table or run that has changed since the finished `job` read it, "" for none."""
    for name, digest in _about(experiment, job).get("inputs", {}).items():
        below = _below(experiment, name)
        path = experiment.folder / below if below else project_path(name)
        if path.is_file() and _digest(path, *file_stamp(path)) != digest:
            return name.removesuffix("/metrics.json")
    return ""


def outdated_runs(experiment: Experiment) -> dict[str, str]:
    """Return {folder: why} of the finished runs that are outdated."""
    found, sound = {}, set()
    for job in experiment.jobs:  # each after those it needs
        if not is_finished(experiment, job):
            continue
        if waits := next((need for need in _needs(experiment, job) if need not in sound), ""):
            found[job.folder] = f"builds on {waits}, which is to be made again"
        elif other := changed_input(experiment, job):
            found[job.folder] = f"was made from another {other}"
        else:
            sound.add(job.folder)
    return found


def unfinished_runs(experiment: Experiment) -> list[Job]:
    """Return the jobs that have no result, or an outdated one."""
    outdated = outdated_runs(experiment)
    return [job for job in experiment.jobs if job.folder in outdated or not is_finished(experiment, job)]


def comparison_of_finished(experiment: Experiment) -> Job | None:
    """Return the comparison job over the evaluations that are finished, the others named as missing, or None.

    After a failed run there is a report nevertheless. Outdated runs are left out.
    """
    comparison, lacking = experiment.jobs[-1], {job.folder for job in unfinished_runs(experiment)}
    evaluations = [job for job in experiment.jobs if job.kind == "evaluations"]
    there = [job for job in evaluations if job.folder not in lacking]
    if not there:
        return None
    trained = list(dict.fromkeys(job.parameters["students"] for job in there))
    texts = [job for job in experiment.jobs if job.kind == "explanations" and job.folder not in lacking]
    needs = (*(_below(experiment, path) for path in trained), *(job.folder for job in (*there, *texts)))
    missing = sorted((job for job in evaluations if job not in there), key=lambda job: job.parameters["output"])
    return replace(comparison, needs=needs, parameters={
        **comparison.parameters, "trainings": trained, "explained": [job.parameters["output"] for job in texts],
        "evaluations": [job.parameters["output"] for job in there],
        "missing": [{"folder": job.parameters["output"], "labels": job.parameters["labels"],
                     "seeds": job.parameters["seeds"]} for job in missing]})


def _needs(experiment, job):
    """Return the folders of the runs that a finished job was made from: a comparison names them itself."""
    given = _about(experiment, job).get("parameters", {}) if job.kind == "comparison" else {}
    lists = [given[key] for key in ("trainings", "evaluations", "explained") if key in given]
    return [_below(experiment, path) for paths in lists for path in paths] if lists else job.needs


def _below(experiment, name):
    """Return the path of an input or run below the folder of the experiment, "" for one of elsewhere."""
    own = f"outputs/{experiment.name}/"
    return name.removeprefix(own) if name.startswith(own) else ""


def _about(experiment, job):
    """Return run.json of a job, {} without one; a damaged one is found by its checksum (runs.check_run)."""
    try:
        found = read_json(experiment.folder / job.folder / "run.json")
    except StudyError:
        return {}
    return found if isinstance(found, dict) else {}


@cache
def _digest(path, size, changed):
    return sha256(path)
