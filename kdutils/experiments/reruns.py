"""Why a finished job runs again, in words.

Snakemake compares digests (inputs.depends_on) and says no more than that its parameters have changed. So every finished
job has a file ``inputs.json`` with what it depended on: its parameters, and digests of its notebook, of each module and
of each file. Comparing it with what the job depends on now names what has changed.
"""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from kdutils.errors import StudyError, short
from kdutils.experiments.finished import is_finished
from kdutils.experiments.grid import Experiment, Job
from kdutils.experiments.inputs import INPUTS, code_of, depends_on, digest_of, files_of
from kdutils.runs import PROJECT, read_json, write_json

MOST = 3  # names of changed files, or of jobs, in one sentence


def inputs_of(job: Job) -> dict[str, Any]:
    """Return what the result of `job` depends on, in a form that can be compared part by part and read by a person."""
    return {"parameters": job.parameters, "code": code_of(job), "digests": depends_on(job),
            "files": {_shown(path): digest_of([path]) for path in files_of(job)}}


def write_inputs(inputs: dict[str, Any], folder: Path | str) -> Path:
    """Write what a finished job depended on into its folder; return the file's path."""
    return write_json(Path(folder) / INPUTS, inputs)


def changes_of(job: Job, kept: dict[str, Any]) -> list[str]:
    """Return what has changed since `job` ran with the inputs `kept`, one clause each; [] for nothing."""
    now, changes = inputs_of(job), []
    for part, digest in now["digests"].items():
        if kept["digests"].get(part) == digest:
            continue
        if part == "notebook":
            changes.append(f"the cells of notebooks/{job.notebook}.ipynb have changed")
        elif part == "parameters":
            changes += _listed(_parameter_changes(kept["parameters"], now["parameters"]), "parameters")
        else:
            changes += _listed(_file_changes(kept[part], now[part]), "files")
    return changes


def rerun_lines(experiment: Experiment, changed: set[str] | None = None) -> Iterator[str]:
    """Yield, for each reason why finished jobs run again, a sentence with the jobs; then what may follow from it.

    The folders of these jobs are added to `changed`.
    """
    reasons, unknown, again = {}, 0, set()
    for job in experiment.jobs:
        if not is_finished(experiment, job):
            again.add(job.folder)
            continue
        try:
            changes = changes_of(job, read_json(experiment.folder / job.folder / INPUTS))
        except (StudyError, LookupError, TypeError, AttributeError):
            unknown += 1
            continue
        if changes:
            again.add(job.folder)
            reasons.setdefault("; ".join(changes), []).append(job.folder)
    for reason, folders in reasons.items():
        more = f" and {len(folders) - MOST} more" if folders[MOST:] else ""
        yield f"runs again, because {reason}:\n    {', '.join(folders[:MOST])}{more}"
    changed = set() if changed is None else changed
    changed.update(folder for folders in reasons.values() for folder in folders)
    if following := _following(experiment, again):
        on = "these" if reasons else "unfinished ones"
        yield f"{following} finished runs build on {on}; they run again where the results of these have changed"
    if unknown:
        yield (f"{unknown} finished runs have no record of what they depended on (of an earlier version, or damaged); "
               "they run again where something has changed")


def made_first(experiment: Experiment, folders: Collection[str]) -> Iterator[list[str]]:
    """Yield those of `folders`, which are to be made again, on which a finished run builds that is not one of them.

    Each list builds on earlier ones alone. Made before all else, they leave the finished runs as they are where their
    results come back the same: Snakemake compares these only when it starts.
    """
    needed = {need for job in experiment.jobs for need in job.needs if job.folder not in folders
              and is_finished(experiment, job)}
    steps, depths = {}, {}
    for job in experiment.jobs:  # each after those it needs
        depths[job.folder] = max((depths.get(need, 0) + (need in folders) for need in job.needs), default=0)
        if job.folder in needed and job.folder in folders:
            steps.setdefault(depths[job.folder], []).append(job.folder)
    yield from (steps[depth] for depth in sorted(steps))


def _following(experiment, again):
    """Return how many finished jobs build on jobs that are made `again` and are none of them."""
    reached = set(again)
    for job in experiment.jobs:  # each after those it needs
        if reached & set(job.needs):
            reached.add(job.folder)
    return len(reached - again)


def _parameter_changes(old, new):
    for name in dict.fromkeys([*new, *old]):
        if name not in new:
            yield f"the parameter {name} is gone (it was {short(old[name], 40)})"
        elif name not in old:
            yield f"the parameter {name} is new ({short(new[name], 40)})"
        elif old[name] != new[name]:
            yield _change(name, old[name], new[name])


def _change(name, old, new):
    if isinstance(old, list) and isinstance(new, list) and len(f"{old}{new}") > 80:
        more, fewer = (sum(one not in other for one in some) for some, other in ((new, old), (old, new)))
        return f"the list in the parameter {name} has changed ({more} more, {fewer} fewer)"
    return f"the parameter {name} was {short(old, 40)} and is {short(new, 40)}"


def _file_changes(old, new):
    for name in sorted({*old, *new}):
        if old.get(name) != new.get(name):
            both = name in old and name in new
            yield f"{name} " + ("has changed" if both else "is used now" if name in new else "is not used any more")


def _listed(clauses, what):
    clauses = list(clauses)
    return clauses[:MOST] + ([f"{len(clauses) - MOST} more {what} have changed"] if clauses[MOST:] else [])


def _shown(path):
    path = Path(path)
    return path.relative_to(PROJECT).as_posix() if path.is_relative_to(PROJECT) else str(path)
