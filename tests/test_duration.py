"""How long an experiment will take: from finished jobs, from trials, and what cannot be told."""

import json
import re

import pytest
import torch
import yaml
from conftest import PROJECT
from test_run_all import TINY

from kdutils.__main__ import main, say_costs
from kdutils.data.mini_world import build_questions
from kdutils.data.tables import write_table
from kdutils.experiments import duration, trials
from kdutils.experiments.grid import FOLDER, Job
from kdutils.experiments.loading import load_experiment
from kdutils.experiments.steps import SETTINGS
from kdutils.runs import machine, write_json
from kdutils.student import timing
from kdutils.student.methods import Explained
from kdutils.student.training import recipe_from

TRAIN = "students/mini/mini-llama/few_shot/multitask/t5/seeds-0-1"
EVALUATE = TRAIN.replace("students", "evaluations", 1)
COUNTS = {"train": 24, "dev": 8, "test": 8}  # questions of TINY


@pytest.fixture
def experiment(tmp_path, own_outputs, monkeypatch):
    """A function that loads TINY with changes; no output of it exists."""
    def load(**changes):
        path = tmp_path / "tiny.yaml"
        path.write_text(yaml.safe_dump({**TINY, **changes}))
        return load_experiment(path)

    monkeypatch.setenv("KDUTILS_STORE", str(tmp_path / "store.sqlite"))
    monkeypatch.delenv("KDUTILS_DATA", raising=False)
    return load


def jobs_of(experiment, *kinds):
    return [job for job in experiment.jobs if job.kind in kinds]


@pytest.fixture
def no_trials(monkeypatch):
    monkeypatch.setattr(duration, "try_student", lambda *_: pytest.fail("a student was tried"))


# Durations in words, and of jobs side by side

@pytest.mark.parametrize(("seconds", "words"), [
    (0.2, "1 s"), (89.4, "89 s"), (90, "2 min"), (5 * 60 + 40, "6 min"), (89 * 60, "89 min"), (2 * 3600, "2 h"),
    (2 * 3600 + 40 * 60, "2 h 40 min"), (2 * 3600 - 10, "2 h"), (30 * 3600, "30 h")])
def test_a_duration_is_said_as_people_say_it(seconds, words):
    assert duration.in_words(seconds) == words


@pytest.mark.parametrize(("at_once", "seconds"), [(1, 26), (2, 15), (3, 15), (9, 15)])
def test_jobs_side_by_side_wait_for_room_and_for_what_they_need(at_once, seconds):
    """Two at a time: a 0-10, c 0-7, d 7-11 and b 10-15. Three: a 0-10, c 0-7, d 0-4, b 10-15."""
    jobs = [Job("x", name, "", {}, needs) for name, needs in (
        ("a", ()), ("b", ("a",)), ("c", ()), ("d", ("done before",)))]
    assert duration.makespan(jobs, {"a": 10, "b": 5, "c": 7, "d": 4}, at_once) == seconds


# Finished jobs

def finish(outputs, job, questions, seconds, costs=None, **changes):
    """Write what a finished job of another experiment leaves; `questions`: its table."""
    folder = outputs / "other" / job.folder
    parameters = {**SETTINGS[job.notebook].defaults(), **job.parameters, "questions": str(questions)}
    if "students" in parameters:
        parameters["students"] = str(outputs / "other" / job.folder.replace("evaluations", "students", 1))
    parameters |= changes.pop("parameters", {})
    write_json(folder / "run.json", {"notebook": job.notebook, "parameters": parameters, "seconds": seconds,
                                     "started": "2026-01-01", "machine": {**machine(), "threads": 1}, **changes})
    write_json(folder / "metrics.json", {})
    if costs:
        write_json(folder / "costs.json", {str(seed): {"seconds": cost, "resumed": resumed}
                                           for seed, (cost, resumed) in enumerate(costs)})
    return folder


@pytest.fixture
def questions(tmp_path):
    return write_table(build_questions(12, 6, 4), tmp_path / "other" / "questions.parquet", "questions")


def test_finished_jobs_tell_the_duration_in_proportion_to_the_questions(experiment, own_outputs, questions, no_trials):
    tiny = experiment()
    jobs = {job.folder: job for job in tiny.jobs}
    finish(own_outputs, jobs[TRAIN], questions, 99.0, [(30.0, False), (42.0, False)],
           parameters={"learning_rate": 0.5})  # another rate takes as long
    finish(own_outputs, jobs[EVALUATE], questions, 20.0)
    parts = duration.job_parts(tiny, [jobs[TRAIN], jobs[EVALUATE]], {}, 1)
    # 72 s for 12 questions and 2 seeds: 24 questions and 2 seeds take twice as long. 4 test questions: 8 take 40 s.
    assert parts[TRAIN].seconds == pytest.approx(144.0) and parts[EVALUATE].seconds == pytest.approx(40.0)
    lines = duration.duration_lines(tiny, [jobs[TRAIN], jobs[EVALUATE]], 2, {})
    assert lines[0] == "about 3 min on this machine with 2 cores, 2 jobs at a time:"  # 184 s and two starts of 10 s
    # 12 questions, 2 seeds and 2 epochs in 72 s; 4 questions and 2 seeds in 20 s
    assert lines[1] == f"    training of t5: 2 min (0.67 questions/s, from outputs/other/{TRAIN}/costs.json)"
    assert lines[2] == f"    evaluation of t5: 40 s (0.4 questions/s, from outputs/other/{EVALUATE}/run.json)"


@pytest.mark.parametrize("change", [
    {"costs": [(30.0, False), (42.0, True)]}, {"costs": [(30.0, False)]}, {"machine": {"cores": 512}},
    {"parameters": {"questions_per_step": 4}}, {"parameters": {"config": {}}}, {"parameters": {"alpha": 0.4}},
    {"parameters": {"labels": {"dataset": "other"}}}, {"parameters": {"questions": "/nowhere.parquet"}},
    {"notebook": "x"}])
def test_a_job_that_was_interrupted_or_differs_tells_nothing(change, experiment, own_outputs, questions):
    tiny = experiment()
    job = next(job for job in tiny.jobs if job.folder == TRAIN)
    costs = change.pop("costs", [(30.0, False), (42.0, False)])
    finish(own_outputs, job, questions, 99.0, costs, **change)
    key = trials.speed_key(job.notebook, job.parameters)
    assert key not in duration.finished_rates(1)


def test_an_unfinished_job_and_a_broken_file_tell_nothing(experiment, own_outputs, questions):
    job = next(job for job in experiment().jobs if job.folder == TRAIN)
    folder = finish(own_outputs, job, questions, 99.0, [(30.0, False), (42.0, False)])
    assert len(duration.finished_rates(1)) == 1 and not duration.finished_rates(2), "other threads, another speed"
    (folder / "metrics.json").unlink()
    assert not duration.finished_rates(1)
    (folder / "metrics.json").touch()
    (folder / "run.json").write_text("{")
    assert not duration.finished_rates(1)


@pytest.mark.parametrize(("name", "parameter"), [("mini", "model"), ("token-kl-mini", "distilled_from")])
def test_a_copy_takes_as_long_though_the_models_that_it_trains_lie_elsewhere(name, parameter, experiment, own_outputs,
                                                                             questions, no_trials):
    """A teacher that is fine-tuned, or a student that is the teacher of tokens, lies in its experiment's outputs."""
    copy = experiment(**yaml.safe_load((FOLDER / f"{name}.yaml").read_text()))
    jobs = jobs_of(copy, "teachers", "students", "evaluations", "explanations")
    for job in jobs:
        moved = {key: value.replace("outputs/tiny", str(own_outputs / "other")) for key, value
                 in job.parameters.items() if isinstance(value, str) and key != "questions"}
        finish(own_outputs, job, questions, 20.0, [(10.0, False)] * len(job.parameters.get("seeds", [])),
               parameters=moved)
    taught = next(job for job in jobs if str(job.parameters.get(parameter)).startswith("outputs/tiny/"))
    assert {part.basis for part in duration.job_parts(copy, jobs, {}, 1).values()} == {"from "}
    maker = next(job for job in jobs if taught.parameters[parameter].startswith(job.parameters["output"] + "/"))
    finish(own_outputs, maker, questions, 20.0, [(10.0, False)] * len(maker.parameters["seeds"]),
           parameters={"max_target_tokens": 32})
    key = trials.speed_key(taught.notebook, taught.parameters, {
        maker.parameters["output"]: (maker.notebook, maker.parameters)}.get)
    assert key not in duration.finished_rates(1), "another model"


# Trials

def test_what_never_ran_is_timed_and_nothing_is_left_behind(experiment, tmp_path, own_outputs, capsys):
    tiny = experiment(methods={"label_only": {}, "standard": {}, "multitask": {"alpha": 0.5}})
    project = {path: path.stat().st_mtime_ns for path in PROJECT.glob("*")}
    threads = torch.get_num_threads()
    plans, _ = say_costs(tiny, tiny.jobs)
    parts = duration.job_parts(tiny, tiny.jobs, plans, 1)
    for job in jobs_of(tiny, "students", "evaluations", "explanations"):
        assert parts[job.folder].seconds > 0 and parts[job.folder].basis.startswith("timed on a few"), job.folder
    assert all(parts[job.folder][1:] == (0.0, "", 0, "") for job in jobs_of(tiny, "data", "comparison"))
    assert capsys.readouterr().out.count("timing a few") == 2, "one student and one teacher, each tried once"
    assert not own_outputs.exists() and not (tmp_path / "store.sqlite").exists()
    assert {path: path.stat().st_mtime_ns for path in PROJECT.glob("*")} == project
    assert torch.get_num_threads() == threads


def test_a_question_costs_what_its_tokens_cost(tiny, questions_of_tiny, monkeypatch):
    """With made-up speeds (2 s a token, 8 s an update, 3 s a written token) every time follows from the texts."""
    model, tokenizer = tiny
    items, texts = questions_of_tiny
    monkeypatch.setattr(timing, "load_student", lambda **_: (model, tokenizer))
    monkeypatch.setattr(timing, "_time_steps", lambda *_: (2.0, 8.0))
    monkeypatch.setattr(timing, "_time_writing", lambda *_: 3.0)
    cells = [timing.Cell(recipe_from({**SETTINGS[notebook].defaults(), "questions_per_step": 4}, method, {}), items,
                         {key: Explained(text) for key, text in texts.items()})
             for notebook, method in (("10_train_label_only", "label_only"), ("12_train_multitask", "multitask"))]
    _, (plain, both) = timing.time_student(cells, 5, "float32")

    def count(text):
        return len(tokenizer(text, add_special_tokens=False)["input_ids"]) + 1

    sources = [f"[predict] Question: {item['question']}\nChoices: " + " ".join(
        f"({letter}) {choice}" for letter, choice in zip("abcde", item["choices"], strict=True)) for item in items]
    answers = [count(f"The answer is {item['answer']}.") for item in items]
    predict = sum(map(count, sources)) + sum(answers)
    assert plain.trained == pytest.approx(2 * predict / len(items) + 8 / 4)
    assert both.trained > plain.trained and both.asked == plain.asked + 5 * 3.0, "five tokens more to write"
    assert plain.dev - plain.asked == pytest.approx(2 * predict / len(items) / 3)
    assert plain.attributed == 0 and both.attributed == pytest.approx(both.trained - 8 / 4)


@pytest.fixture
def questions_of_tiny(questions):
    from kdutils.data.tables import read_table

    items = read_table(questions, "questions").head(6).to_dict("records")
    return items, {item["id"]: "because a fish can swim " * 4 for item in items}


def test_texts_that_are_not_written_yet_have_half_of_the_allowed_length(experiment):
    tiny = experiment()
    table = build_questions(4, 2, 2)
    job = jobs_of(tiny, "students")[0]
    explained = trials._explained(tiny, job, table, {})
    assert {len(one.rationale.split()) for one in explained.values()} == {12}, "max_new_tokens of TINY is 24"
    assert set(explained) == set(table["id"])


# What cannot be told

@pytest.mark.parametrize(("changes", "kind", "reason"), [
    ({"students": {"t5": {"model": "nobody/nothing"}}}, "students", "nobody/nothing is not on this machine"),
    ({"students": {"t5": {"model": "nobody/nothing"}}}, "evaluations", "nobody/nothing is not on this machine"),
    ({"students": {"t5": {"model": "kdutils/mini/student", "tokenizer": "nobody/nothing", "random_weights": True}}},
     "students", "nobody/nothing is not on this machine"),
    ({"teachers": {"mini-llama": {"backend": "openai", "model": "x", "base_url": "http://localhost:9/v1"}}},
     "explanations", "a server writes them"),
    ({"datasets": {"cqa": {}}, "teachers": {"llama": {"backend": "published"}}}, "students",
     "the questions of 'cqa' are not on this machine yet")])
def test_what_cannot_be_told_is_named_with_its_reason(changes, kind, reason, experiment, monkeypatch):
    from kdutils.teacher.stored import Plan

    monkeypatch.setenv("OPENAI_API_KEY", "none")
    tiny = experiment(**changes)
    jobs = jobs_of(tiny, kind)
    plans = {job.folder: Plan(0, 5, 100, 50) for job in jobs_of(tiny, "explanations")}
    assert {part.basis for part in duration.job_parts(tiny, jobs, plans, 1).values()} == {reason}
    lines = duration.duration_lines(tiny, jobs, 1, plans)
    assert lines[0].startswith(f"cannot be told on this machine: {reason}; the rest takes about ")
    assert lines[1].endswith(f"cannot be told: {reason}")


@pytest.mark.parametrize(("untold", "needs", "first"), [
    (0, "nothing but a CPU", "about 3 min on this machine with 1 core, 1 job at a time:"),
    (1, "a CPU", "at least 3 min on this machine with 1 core, 1 job at a time; the time of 1 of 4 trainings, "
                 "evaluations and explanations cannot be told:"),
    (1, "the questions, a GPU of 24 GB or more", "at least 3 min on this machine with 1 core, 1 job at a time; the "
     "time of 1 of 4 trainings, evaluations and explanations cannot be told; the experiment needs a GPU of 24 GB or "
     "more, and this machine has none:"),
    (2, "a GPU of 24 GB or more, T5", "cannot be told on this machine: too large; the experiment needs a GPU of 24 GB "
     "or more, and this machine has none; the rest takes about 2 min with 1 core, 1 job at a time:")])
def test_where_most_of_the_work_cannot_be_told_that_comes_first(untold, needs, first, experiment, monkeypatch):
    """Four jobs of 40 s and a start of 10 s each, of which `untold` have 10 s alone: 200 s, 160 s and 120 s."""
    tiny = experiment(needs=needs)
    jobs = jobs_of(tiny, "students", "evaluations")
    parts = {job.folder: duration.Part("work", *((None, "too large") if place < untold else (40.0, "timed on a few")))
             for place, job in enumerate(jobs)}
    monkeypatch.setattr(duration, "job_parts", lambda *_: parts)
    monkeypatch.setattr(duration, "device", lambda: "cpu")
    monkeypatch.setattr("psutil.cpu_percent", lambda interval: 3.0)
    assert duration.duration_lines(tiny, jobs, 1, {})[0] == first
    monkeypatch.setattr(duration, "device", lambda: "cuda")
    assert "none" not in duration.duration_lines(tiny, jobs, 1, {})[0]


@pytest.mark.parametrize(("needs", "gpu"), [
    ("a GPU of 24 GB or more, the questions", "a GPU of 24 GB or more"), ("the questions; two gpus", "two gpus"),
    ("nothing but a CPU", ""), ("no GPU", ""), ("a CPU or a GPU", ""), ("a server, without a GPU here", ""), ("", "")])
def test_the_gpu_that_an_experiment_asks_for_is_read_from_its_words(needs, gpu, monkeypatch):
    monkeypatch.setattr(duration, "device", lambda: "cpu")
    assert duration.missing_gpu(needs) == gpu


def test_lines_on_the_same_name_the_methods_or_promptings_in_which_they_differ(experiment, monkeypatch):
    methods = {"label_only": {}, "standard": {}, "multitask": {}, "other": {"as": "multitask"}}
    tiny = experiment(methods=methods, promptings={"few_shot": {}, "short": {"as": "few_shot"}})

    def lines_of(basis):
        jobs = jobs_of(tiny, "explanations", "students")
        parts = {job.folder: duration.Part(f"{job.kind} of x", 40.0, basis(job.labels)) for job in jobs}
        return [line.partition(":")[0].strip() for line in duration._part_lines(jobs, parts)]

    assert lines_of(lambda labels: "timed") == ["explanations of x", "students of x"]
    assert lines_of(lambda labels: labels.get("method", "")[:5]) == [
        "explanations of x", "students of x with multitask", "students of x with other",
        "students of x with standard", "students of x with label_only"]
    assert lines_of(lambda labels: labels["prompting"]) == [
        "explanations of x with few_shot", "explanations of x with short",
        *(f"students of x with multitask ({name}), other ({name}) and standard ({name})"
          for name in ("few_shot", "short")), "students of x with label_only"]


def test_a_model_that_is_too_large_is_not_tried(experiment, monkeypatch):
    tiny = experiment(students={"t5": {"model": "kdutils/mini/student"}})
    monkeypatch.setattr(trials, "LARGEST", 1000)
    reasons = {part.basis for part in duration.job_parts(tiny, jobs_of(tiny, "students"), {}, 1).values()}
    assert len(reasons) == 1 and "too large for a quick trial here" in reasons.pop()


# The dry run

@pytest.mark.parametrize(("busy", "told"), [
    (3.0, ""), (80.0, " (other programs use 80 % of it now, and are not counted)")])
def test_a_dry_run_says_how_long_it_will_take_and_no_fault_of_that_stops_it(busy, told, experiment, tmp_path, capsys,
                                                                            monkeypatch):
    experiment(methods={"label_only": {}, "multitask": {}})
    monkeypatch.setattr("psutil.cpu_percent", lambda interval: busy)
    command = ["run", str(tmp_path / "tiny.yaml"), "--dry-run", "--cores", "2"]
    assert main(command) == 0
    out = capsys.readouterr().out
    wanted = rf"\nabout \d+ (s|min) on this machine with 2 cores, 2 jobs at a time{re.escape(told)}:\n    explanat"
    assert re.search(wanted, out)
    assert out.endswith("9 jobs, 9 of them to do; nothing was run\n")
    monkeypatch.setattr(duration, "duration_lines", lambda *_: json.loads("{"))
    assert main(command) == 0
    assert "how long it will take cannot be told: Expecting property name" in capsys.readouterr().out
