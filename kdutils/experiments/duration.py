"""How long an experiment will take on this machine, before it runs: a guess with its basis.

A job takes as long per question as a finished one of the same kind, student, method and settings in the folder of
outputs. Where there is none, the student or the teacher is timed on a few questions (trials.py). What cannot be told is
named with the reason.
"""

import contextlib
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from heapq import heappop, heappush
from itertools import islice
from typing import NamedTuple

from kdutils.comparison.wording import listed
from kdutils.data.tables import read_table
from kdutils.errors import StudyError, first_line
from kdutils.experiments import grid
from kdutils.experiments.cost import planned_questions, prompting_of_job
from kdutils.experiments.grid import Experiment, Job
from kdutils.experiments.steps import SETTINGS
from kdutils.experiments.trials import speed_key, student_key, try_student, try_teacher
from kdutils.hub import device, hide_progress
from kdutils.runs import machine, project_path, read_json
from kdutils.student.settings import Train
from kdutils.teacher.choices import PROMPTINGS
from kdutils.teacher.stored import Plan

START = 10.0  # seconds that a job takes besides: its kernel starts, libraries are imported, figures are drawn
BUSY = 25  # per cent of the processors: if other programs use more, this machine is not free
LABELS = ("method", "prompting", "dataset", "teacher", "tested_on", "protocol", "seeds")  # what tells jobs apart
NAMES = {"students": "training", "teachers": "training", "evaluations": "evaluation",
         "explanations": "explanations", "labels": "answers"}
ASKING = ("explanations", "labels")  # kinds of jobs that ask a teacher


class Part(NamedTuple):
    """The duration of one job: what it does, in seconds (None where that cannot be told), and the basis or reason.

    `questions`: how many it works on, each as often as it does. `source`: the file of a finished job that is the basis.
    """

    what: str
    seconds: float | None
    basis: str
    questions: float = 0
    source: str = ""


def duration_lines(experiment: Experiment, jobs: list[Job], cores: int, plans: Mapping[str, Plan]) -> list[str]:
    """Return lines on how long the `jobs` (those to do) take with `cores`, and on what each part of it is based.

    `plans`: {folder: cost} of the explaining jobs whose teacher is asked.
    """
    import torch
    from psutil import cpu_percent

    hide_progress()
    busy = cpu_percent(interval=0.5)  # before anything is timed
    threads, before = min(experiment.settings.get("threads_per_job", 1), cores), torch.get_num_threads()
    free = busy <= BUSY or device() == "cuda"
    # On a busy processor several threads wait for each other for long. One thread's processor time tells more.
    clock = time.perf_counter if free else lambda: time.process_time() / threads
    torch.set_num_threads(threads if free else 1)
    try:
        parts = job_parts(experiment, jobs, plans, threads, clock)
    finally:
        torch.set_num_threads(before)
    at_once = cores // threads
    total = in_words(makespan(jobs, {folder: START + (part.seconds or 0) for folder, part in parts.items()}, at_once))
    work = [part for part in parts.values() if part.seconds != 0]
    untold = [part.basis for part in work if part.seconds is None]
    timed = any(part.basis.startswith("timed") for part in work)
    used = f"with {cores} core{'s' * (cores > 1)}, {at_once} job{'s' * (at_once > 1)} at a time" \
           f"{f' (other programs use {busy:.0f} % of it now, and are not counted)' if timed and not free else ''}"
    gpu = "" if experiment.tiny else missing_gpu(experiment.settings["needs"])
    gpu = f"; the experiment needs {gpu}, and this machine has none" if gpu else ""
    if untold and 2 * len(untold) >= len(work):
        reason = Counter(untold).most_common(1)[0][0]
        first = f"cannot be told on this machine: {reason}{gpu}; the rest takes about {total} {used}:"
    elif untold:
        first = f"at least {total} on this machine {used}; the time of {len(untold)} of {len(work)} trainings, " \
                f"evaluations and explanations cannot be told{gpu}:"
    else:
        first = f"about {total} on this machine {used}{gpu}:"
    return [first, *_part_lines([job for job in jobs if parts[job.folder].seconds != 0], parts),
            f"    start and end of {len(jobs)} jobs: {in_words(START * len(jobs))} ({START:.0f} s each)"]


def missing_gpu(needs: str) -> str:
    """Return which GPU an experiment says that it needs (its key `needs`); "" for none, and where one is here."""
    asked = (part.strip() for part in re.split("[,;]", needs) if re.search(r"\bGPUs?\b", part, re.IGNORECASE)
             and not re.search(r"\b(no|not|without|optional|CPUs?)\b", part, re.IGNORECASE))
    return "" if device() == "cuda" else next(asked, "")


def _part_lines(jobs, parts):
    """Return a line for all `jobs` that do the same on the same basis; lines that do the same say what differs."""
    grouped, lines = {}, []
    for job in jobs:
        part = parts[job.folder]
        grouped.setdefault(part.what, {}).setdefault(part.basis, []).append(job)
    for what, groups in grouped.items():
        for (basis, group), which in zip(groups.items(), _differences(list(groups.values())), strict=True):
            of_group = [parts[job.folder] for job in group]
            if of_group[0].seconds is None:
                lines.append(f"    {what}{which}: cannot be told: {basis}")
                continue
            seconds, questions = sum(part.seconds for part in of_group), sum(part.questions for part in of_group)
            sources = list(dict.fromkeys(part.source for part in of_group))
            rate = f"{float(f'{questions / seconds:.2g}'):g} questions/s, " if questions else ""
            more = " …" * (len(sources) > 1)
            lines.append(f"    {what}{which}: {in_words(seconds)} ({rate}{basis}{sources[0]}{more})")
    return lines


def _differences(groups):
    """Return a text for each of several groups of jobs: the fewest LABELS of its jobs that no other group has."""
    if len(groups) == 1:
        return [""]
    for count in range(1, len(LABELS) + 1):
        names = [list(dict.fromkeys(_name(job, LABELS[:count]) for job in group)) for group in groups]
        if len(set().union(*names)) == sum(map(len, names)):
            break
    return [f" with {listed(of_group, 6)}" for of_group in names]


def _name(job, labels):
    """Return some labels of a job as in the tables of the report: multitask (few_shot)."""
    first, *rest = [job.labels[label] for label in labels if job.labels.get(label, "-") != "-"] or [""]
    return f"{first} ({', '.join(rest)})" if rest else first


def in_words(seconds: float) -> str:
    """Return a duration as people say it: 40 s, 12 min, 2 h 40 min."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min".removesuffix(" 0 min")


def makespan(jobs: Iterable[Job], seconds: Mapping[str, float], at_once: int) -> float:
    """Return the seconds until the last of `jobs` ends, if at most `at_once` of them run at a time.

    A job starts when there is room and the jobs that it needs have ended, the first one first. `seconds`: {folder:
    duration}. Jobs that are not among `jobs` have ended before.
    """
    waiting, running, now = {job.folder: job for job in jobs}, [], 0.0
    unfinished = set(waiting)
    while unfinished:
        ready = (folder for folder, job in waiting.items() if unfinished.isdisjoint(job.needs))
        for folder in list(islice(ready, at_once - len(running))):
            heappush(running, (now + seconds[folder], folder))
            del waiting[folder]
        now, folder = heappop(running)
        unfinished.remove(folder)
    return now


def job_parts(experiment: Experiment, jobs: list[Job], plans: Mapping[str, Plan], threads: int,
              clock: Callable[[], float] = time.perf_counter) -> dict[str, Part]:
    """Return {folder: Part} of `jobs`, each with `threads` threads and without its START; see duration_lines.

    `clock` returns seconds; trials are timed with it.
    """
    trainings = {job.parameters["output"]: job for job in experiment.jobs if job.kind in ("teachers", "students")}
    known, tables, alike = finished_rates(threads), {}, {}
    kinds = {job.folder: job.kind for job in experiment.jobs}
    for training in trainings.values():
        alike.setdefault(student_key(training), []).append(training)

    def questions_of(job):
        path = job.parameters["questions"]
        if path not in tables:
            tables[path] = _or_error(planned_questions, experiment, job, False)  # nothing is downloaded
        return _checked(tables[path])

    def training_of(output):
        training = trainings.get(output)
        return (training.notebook, training.parameters) if training else _training_run(output)

    @cache
    def student_times(key):
        return _or_error(try_student, experiment, alike[key], clock)

    @cache
    def teacher_rate(teacher, writes):
        first = next(job for job in jobs if job.kind in ASKING and job.labels.get("teacher") == teacher
                     and job.folder in plans and plans[job.folder].to_ask and _writes(job) == writes)
        return _or_error(try_teacher, experiment, first, plans[first.folder], clock)

    def told(job):
        """Return the Part from its seconds on; StudyError with the reason where they cannot be told."""
        given = {**SETTINGS[job.notebook].defaults(), **job.parameters}
        if job.kind not in NAMES or given.get("backend") == "published":
            return 0.0, ""
        questions = questions_of(job)
        work, epochs = _work(given, questions), given.get("epochs", 1)
        if given.get("max_steps"):
            epochs = given["max_steps"] * given["questions_per_step"] * len(given["seeds"]) / max(1, work)
        key = speed_key(job.notebook, given, training_of)
        if key in known and job.folder not in plans:  # what a teacher took depends on what was in the store
            rate, source = known[key]
            return rate * work, "from ", work * epochs, source
        if job.kind in ASKING:
            if job.folder not in plans:
                raise StudyError("nothing like it has finished on this machine, and it is not tried")
            # What a revision starts from is in the store after few_shot; so are the answers that a teacher explains.
            before = [need for need in job.needs if need in plans
                      and (kinds[need] != "labels" or not given.get("given_answer", True))]
            asked = plans[job.folder].new_tokens - sum(plans[need].new_tokens for need in before)
            return asked and asked * _checked(teacher_rate(job.labels["teacher"], _writes(job))), \
                "timed on a few completions"
        training = trainings[given.get("students", given["output"])]
        load, times = _checked(student_times(student_key(training)))[training.folder]
        once = load * len(given["seeds"])
        if job.kind == "evaluations":
            attributed = min(work, given["attributed_questions"] * len(given["seeds"]))
            simulator = ", without its simulator" if given["simulator"] else ""
            forms = 4 if given["onnx_runtime"] else 2  # float32 and int8 weights
            timed = forms * min(work // len(given["seeds"]), given["timed_questions"])
            return once + (work + timed) * times.asked + attributed * times.attributed, \
                f"timed on a few answers and steps{simulator}", work
        on_dev = given["dev_evaluations"] * len(given["seeds"]) * int((questions["split"] == "dev").sum())
        return once + work * epochs * times.trained + on_dev * times.dev, "timed on a few steps and answers", \
            work * epochs

    parts = {}
    for job in jobs:
        what = f"{NAMES.get(job.kind, job.kind)} of {job.labels.get('student') or job.labels.get('teacher', '')}"
        try:
            parts[job.folder] = Part(what, *told(job))
        except StudyError as error:
            parts[job.folder] = Part(what, None, first_line(error, 200))
    return parts


def _writes(job):
    """Return whether the teacher writes texts in an explaining job: to score choices takes another time per token."""
    return PROMPTINGS[prompting_of_job(job)].writes


def _or_error(function, *arguments):
    """Return what a function returns or the StudyError that it raises, to be kept like a result."""
    try:
        return function(*arguments)
    except StudyError as error:
        return error


def _checked(result):
    if isinstance(result, StudyError):
        raise result
    return result


# Finished jobs

def finished_rates(threads: int) -> dict[str, tuple[float, str]]:
    """Return {speed_key: (seconds per question and seed, file that tells it)} of the finished jobs of this machine.

    A training counts with what its students cost, if none of them was interrupted; other jobs with all of their time.
    """
    here, found = {**machine(), "threads": threads}, []
    for path in grid.OUTPUTS.glob("*/*/**/run.json"):
        with contextlib.suppress(StudyError, LookupError, TypeError, ValueError):  # of another version, or broken
            run, folder = read_json(path), path.parent
            given, seconds, file = run["parameters"], run["seconds"], path
            if run["machine"] != here or not (folder / "metrics.json").is_file() or "questions" not in given:
                continue
            if issubclass(SETTINGS[run["notebook"]], Train):
                file, costs = folder / "costs.json", read_json(folder / "costs.json").values()
                if any(cost["resumed"] for cost in costs) or len(costs) < len(given["seeds"]):
                    continue
                seconds = sum(cost["seconds"] for cost in costs)
            rate = seconds / _work(given, read_table(project_path(given["questions"]), "questions"))
            source = str(file.relative_to(grid.OUTPUTS.parent))
            found.append((run["started"], speed_key(run["notebook"], given, _training_run), (rate, source)))
    return {key: rate for _, key, rate in sorted(found)}


def _training_run(output):
    """Return (notebook, parameters) of the finished training in a folder, None where there is none."""
    path = project_path(output) / "run.json"
    with contextlib.suppress(StudyError, LookupError, TypeError):
        run = read_json(path) if path.is_file() else {"notebook": ""}
        if issubclass(SETTINGS.get(run["notebook"], dict), Train):
            return run["notebook"], run["parameters"]
    return None


def _work(given, questions):
    """Return how many questions a job works on, once for each of its seeds."""
    splits = given.get("splits") or [given.get("split", "train")]
    return int(questions["split"].isin(splits).sum()) * len(given.get("seeds", [0]))
