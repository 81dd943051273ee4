"""Finished runs that were made from something else than is there now: found, kept, and in no result."""

import json
from dataclasses import replace
from hashlib import sha256

import pytest
import yaml

from kdutils import __main__ as command_line
from kdutils import runs
from kdutils.errors import AlreadyRunning, StudyError
from kdutils.experiments import reruns
from kdutils.experiments.execution import RECORD, held, record
from kdutils.experiments.finished import comparison_of_finished, outdated_runs, unfinished_runs
from kdutils.experiments.grid import Experiment, make_jobs
from kdutils.experiments.inputs import check_data
from kdutils.experiments.loading import load_experiment
from kdutils.experiments.trained import trained_cells

LLAMA = {"model": "kdutils/mini/teacher"}
SETTINGS = {  # every way in which a job builds on others
    "about": "a test", "needs": "nothing", "datasets": {"mini": {}, "other": {"reader": "mini"}}, "transfer": ["other"],
    "teachers": {"own": {**LLAMA, "promptings": ["few_shot", "counterfactual", "soft_labels"]},
                 "tuned": {"promptings": ["tokens"], "finetune": {"model": "kdutils/mini/student"}}},
    "promptings": {name: {} for name in ("few_shot", "counterfactual", "soft_labels", "tokens")},
    "methods": {"label_only": {}, "multitask": {}, "combined": {}, "soft_multitask": {}, "token_rationale": {},
                "shuffled-other": {"as": "shuffled", "rationales_of": "other"},
                "token_kl": {"distilled_from": "big"}},
    "students": {"big": {**LLAMA, "methods": ["multitask"]}, "small": LLAMA}, "seeds": [0],
    "human_study": {"methods": ["multitask"], "rater": {}}}
TABLES = {"data": "questions.parquet", "labels": "questions.parquet", "explanations": "explanations.parquet",
          "evaluations": "predictions.parquet"}


def finish(experiment, job, more=""):
    """Finish a job as its notebook does: its results follow from those of the jobs that it needs, and from `more`."""
    run = runs.start_run(job.notebook, job.parameters["output"], job.parameters)
    read = [(experiment.folder / need / "metrics.json").read_text() for need in job.needs]
    content = sha256(json.dumps([job.folder, read, more]).encode()).hexdigest()
    tables = {"human_study": ("key/plan.parquet", "key/texts.parquet"), "teachers": ("seed-0/model.safetensors",),
              "students": [f"seed-{seed}/model.safetensors" for seed in job.parameters.get("seeds", [])]}
    for name in tables.get(job.folder.partition("/")[0], [TABLES.get(job.kind, "table.parquet")]):
        run.path(name).write_text(content)
    run.finish({"content": content})


@pytest.fixture
def toy(tmp_path, own_outputs, monkeypatch):
    """An experiment in which every job is finished, in a project of its own."""
    monkeypatch.setattr(runs, "PROJECT", tmp_path)
    for name in ("git_revision", "versions", "machine"):  # for the speed
        monkeypatch.setattr(runs, name, lambda: "")
    monkeypatch.setattr(runs.os, "fsync", lambda _: None)
    experiment = Experiment("toy", SETTINGS, list(make_jobs("toy", SETTINGS)))
    for job in experiment.jobs:
        finish(experiment, job)
    return experiment


def below(experiment, folder):
    """Return the folders of all jobs that build on the one in `folder`, directly or not."""
    reached = {folder}
    for job in experiment.jobs:
        if reached & set(job.needs):
            reached.add(job.folder)
    return reached - {folder}


def test_what_builds_on_another_result_is_outdated_until_it_is_made_again(toy):
    assert outdated_runs(toy) == {}
    for job in {(job.notebook, job.kind): job for job in toy.jobs}.values():
        finish(toy, job, "another result")
        found = outdated_runs(toy)
        assert set(found) == below(toy, job.folder), job.folder
        direct = [one.folder for one in toy.jobs if job.folder in one.needs]
        assert all(found[folder].startswith("was made from another outputs/toy/") for folder in direct[:1])
        finish(toy, job)
        assert outdated_runs(toy) == {}, "it came back the same"
    first = toy.jobs[0]
    for job in toy.jobs:
        finish(toy, job, "another result" if job == first else "")
    assert outdated_runs(toy) == {}


def test_what_builds_on_an_unfinished_run_is_kept_and_left_out(toy):
    kept = {path: path.read_bytes() for path in toy.folder.rglob("metrics.json")}
    for job in {(job.notebook, job.kind): job for job in toy.jobs[:-1]}.values():
        (toy.folder / job.folder / "metrics.json").unlink()
        lost = {job.folder, *below(toy, job.folder)}
        assert {one.folder for one in unfinished_runs(toy)} == lost
        compared = comparison_of_finished(toy)
        evaluations = [one for one in toy.jobs if one.kind == "evaluations"]
        assert [one["folder"] for one in compared.parameters["missing"]] == sorted(
            one.parameters["output"] for one in evaluations if one.folder in lost) if compared else \
            lost >= {one.folder for one in evaluations}
        if compared:
            assert not lost & set(compared.needs)
        finish(toy, job)
    assert kept == {path: path.read_bytes() for path in toy.folder.rglob("metrics.json")}


def test_a_comparison_of_what_was_finished_is_outdated_when_that_has_changed(toy):
    student = next(job for job in toy.jobs if job.kind == "students")
    (toy.folder / student.folder / "metrics.json").unlink()
    finish(toy, replace(comparison_of_finished(toy), parameters={
        **comparison_of_finished(toy).parameters, "output": toy.jobs[-1].parameters["output"]}))
    assert toy.jobs[-1].folder not in outdated_runs(toy), "it says itself what is missing"
    other = next(job for job in toy.jobs if job.kind == "evaluations" and student.folder not in job.needs)
    finish(toy, other, "another result")
    assert outdated_runs(toy)[toy.jobs[-1].folder].endswith(other.folder)


def test_a_student_of_other_texts_is_neither_asked_nor_exported(toy, monkeypatch, capsys):
    (toy.folder / RECORD).write_text("")
    monkeypatch.setattr("kdutils.experiments.trained.recorded", lambda path: toy)
    for job in toy.jobs:
        path = toy.folder / job.folder / "metrics.json"
        if job.kind == "students":
            seeds = {str(seed): {"curve": [{"accuracy": 0.5}]} for seed in job.parameters["seeds"]}
            path.write_text(json.dumps({"labels": job.parameters["labels"], "method": "multitask", "seeds": seeds}))
    every = {cell.name for cell in trained_cells("toy")}
    explained = next(job for job in toy.jobs if job.kind == "explanations" and "few_shot" in job.folder)
    finish(toy, explained, "another result")
    left = {cell.name for cell in trained_cells("toy")}
    assert left < every and {name for name in every - left} == {
        name for name in every if "(few_shot)" in name and name.endswith(", mini")}
    assert "multitask (few_shot)" in capsys.readouterr().err


# A whole call, with a toy in the place of Snakemake

SMALL = {**SETTINGS, "datasets": {"mini": {"limits": {"train": 4, "dev": 2, "test": 2}}}, "teachers": {"own": LLAMA},
         "promptings": {"few_shot": {}}, "methods": {"label_only": {}, "multitask": {}}, "students": {"small": LLAMA},
         "transfer": []}
SMALL = {key: value for key, value in SMALL.items() if key not in ("transfer", "human_study")}


@pytest.fixture
def called(tmp_path, own_outputs, monkeypatch):
    """A function that runs an experiment with a list of runs that fail, and returns what Snakemake was asked for."""
    path = tmp_path / "toy.yaml"
    path.write_text(yaml.safe_dump(SMALL))
    asked = []

    def make(job, folder):
        output = experiment.folder / job.folder
        run = runs.start_run(job.notebook, str(output), {**job.parameters, "output": str(output)})
        run.path("table.parquet").write_text(job.folder)
        run.finish({})
        (output / "notebook.ipynb").write_text('{"cells": []}')
        runs.add_notebook_checksum(output)
        reruns.write_inputs(reruns.inputs_of(job), output)

    def snakemake(experiment, options, *targets, failed=(), **_):
        asked.append(targets)
        (experiment.folder / "snakemake.log").write_text("")
        for job in experiment.jobs:
            metrics = experiment.folder / job.folder / "metrics.json"
            wanted = f"{job.folder}/metrics.json" in targets if targets else not metrics.is_file()
            if wanted and job.folder in faulty:
                metrics.unlink(missing_ok=True)
            elif wanted and not {*failed, *faulty} & set(job.needs):
                make(job, experiment.folder)
        return int(any(not (experiment.folder / job.folder / "metrics.json").is_file() for job in experiment.jobs))

    def call(*failing):
        faulty[:] = failing
        asked.clear()
        return command_line.main(["run", str(path)]), list(asked)

    faulty, experiment = [], load_experiment(path)
    for job in experiment.jobs:
        make(job, experiment.folder)
    record(experiment, experiment.folder / RECORD)
    monkeypatch.setattr("kdutils.experiments.snakemake_runs.run_snakemake", snakemake)
    return experiment, call


def test_a_failed_run_takes_nothing_below_it_with_it(called, capsys):
    experiment, call = called
    before = {path: path.stat().st_mtime_ns for path in experiment.folder.rglob("metrics.json")}
    data = experiment.jobs[0].folder
    path = experiment.folder / data / "inputs.json"
    path.write_text(path.read_text().replace('"limits"', '"other limits"', 1))
    kept = json.loads(path.read_text())
    kept["digests"]["parameters"] = ""
    path.write_text(json.dumps(kept))
    code, asked = call(data)
    assert code == 1 and asked[0] == (f"{data}/metrics.json",), "made first, alone"
    told = capsys.readouterr()
    count = len(experiment.jobs)
    assert f"{count} of {count} runs are not finished" in told.err
    page = (experiment.folder / "index.html").read_text()
    assert f"0 of {count} runs done" in page and f"{count - 1} outdated" in page
    left = {path: path.stat().st_mtime_ns for path in experiment.folder.rglob("metrics.json")}
    assert left == {path: time for path, time in before.items() if data not in str(path.parent)}
    code, asked = call()
    assert code == 0 and asked == [(f"{data}/metrics.json",), ()]
    assert "finished runs build on unfinished ones" in capsys.readouterr().out
    now = {path: path.stat().st_mtime_ns for path in experiment.folder.rglob("metrics.json")}
    assert now.keys() == before.keys() and left.items() <= now.items(), "the same came back: nothing else was made"


def test_one_call_at_a_time(called, capsys):
    experiment, call = called
    with held(experiment.folder):
        assert call() == (3, [])
        with pytest.raises(AlreadyRunning, match="'toy' is already being run by process [0-9]+; wait for it"), \
                held(experiment.folder):
            pass
        assert command_line.main(["keep", "toy"]) == 3
    assert capsys.readouterr().err.count("already being run") == 2


# Files that are gone

@pytest.mark.parametrize("gone", ["variable", "other folder", "files"])
def test_a_finished_job_whose_files_are_gone_is_refused_before_anything_runs(gone, tmp_path, own_outputs, monkeypatch,
                                                                              capsys):
    rows = [{"id": str(i), "question": f"What is {i}?", "choices": ["a", "b"], "answer": "a"} for i in range(40)]
    (tmp_path / "here").mkdir()
    (tmp_path / "away").mkdir()
    table = tmp_path / "here" / "all.jsonl"
    table.write_text("\n".join(map(json.dumps, rows)))
    monkeypatch.setenv("KDUTILS_DATA", str(tmp_path / "here"))
    settings = {**SMALL, "datasets": {"mini": {"reader": "table", "files": {"all": "all.jsonl"}}}}
    path = tmp_path / "gone.yaml"
    path.write_text(yaml.safe_dump(settings))
    experiment = load_experiment(path)
    job = experiment.jobs[0]
    folder = experiment.folder / job.folder
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text("{}")
    reruns.write_inputs(reruns.inputs_of(job), folder)
    record(experiment, experiment.folder / RECORD)
    assert check_data(experiment) == []
    if gone == "files":
        table.unlink()
    elif gone == "variable":
        monkeypatch.delenv("KDUTILS_DATA")
    else:
        monkeypatch.setenv("KDUTILS_DATA", str(tmp_path / "away"))
    with pytest.raises(StudyError) as refused:
        check_data(experiment)
    assert str(refused.value) == (
        f"{folder}: was made from files ({table}) of which none is found now; set KDUTILS_DATA to their folder, or "
        f"bring them back. To make it anew without them, delete {folder}")
    assert (folder / "metrics.json").is_file()
    table.parent.mkdir(exist_ok=True)
    other = replace(job, parameters={**job.parameters, "reader": "mini", "files": {}})
    assert check_data(replace(experiment, jobs=[other])) == [], "the file names another source itself"


def test_published_texts_of_a_folder_that_is_gone_are_refused_too(tmp_path, own_outputs, monkeypatch):
    texts = tmp_path / "teacher_llama" / "cqa-llama-train.parquet"
    texts.parent.mkdir()
    texts.write_bytes(b"texts")
    monkeypatch.setenv("KDUTILS_DATA", str(tmp_path))
    settings = {**SMALL, "datasets": {"cqa": {}}, "teachers": {"llama": {"backend": "published"}}}
    experiment = Experiment("toy", settings, list(make_jobs("toy", settings)))
    job = next(job for job in experiment.jobs if job.kind == "explanations")
    experiment = replace(experiment, jobs=[job])
    (experiment.folder / job.folder).mkdir(parents=True)
    (experiment.folder / job.folder / "metrics.json").write_text("{}")
    reruns.write_inputs(reruns.inputs_of(job), experiment.folder / job.folder)
    assert check_data(experiment) == []
    monkeypatch.delenv("KDUTILS_DATA")
    with pytest.raises(StudyError, match="cqa-llama-train.parquet.* of which none is found now; set KDUTILS_DATA"):
        check_data(experiment)
