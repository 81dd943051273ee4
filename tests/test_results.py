"""Results that stay: what is kept of a finished run, and that RESULTS.md and README.md say nothing else.

A number of the README is a result if it counts or measures something: a number, in digits or words, before a unit of
UNITS, or an amount of TIMES ("half a minute"). Such a number stands between the comments that ``--write-results``
fills. Every other number must be a year, an arXiv id, a version of Python, the number of a notebook, or part of a name
(T5, MiniLM-L6). Code is not checked. The same rule holds for the templates of RESULTS.md, where numbers of results are
variables; only what an earlier version printed is quoted as it was.
"""

import io
import json
import re
import subprocess

import numpy as np
import pytest
import yaml
from conftest import PROJECT

from kdutils import runs
from kdutils.__main__ import main
from kdutils.errors import StudyError
from kdutils.experiments import execution
from kdutils.experiments.grid import Experiment, make_jobs
from kdutils.report.figures import save
from kdutils.results import document, keeping

SETTINGS = {
    "about": "Does keeping work?", "needs": "nothing", "datasets": {"mini": {"limits": {"train": 40, "test": 10}}},
    "teachers": {"llama": {"model": "kdutils/mini/teacher"}}, "promptings": {"few_shot": {}},
    "methods": {"label_only": {}, "multitask": {"alpha": 0.5}}, "students": {"t5": {"model": "kdutils/mini/student"}},
    "seeds": [0, 1], "seeds_per_job": 1}
MACHINE = {"system": "Linux x86_64", "processor": "ACME 1", "cores": 2, "gpu": "", "threads": 1}
VERSIONS = {"torch": "2.0", "transformers": "5.0"}
ACCURACIES = {"label_only": (0.5, 0.7), "multitask": (0.8, 0.9)}
CONTRAST = {"comparison": "label_only", "dataset": "mini", "student": "t5", "measure": "accuracy",
            "first": "multitask (few_shot)", "second": "label_only", "difference": 0.25, "low": 0.1, "high": 0.4,
            "p": 0.01, "p_corrected": 0.03, "n_seeds": 2, "n_questions": 10, "test": "t over seeds and questions"}


def cell(method, mean, **more):
    explained = method != "label_only"
    return {"dataset": "mini", "teacher": "llama" if explained else "-", "prompting": "few_shot" if explained else "-",
            "student": "t5", "method": method, "tested_on": "mini", "kind": method,
            "control_of": "", "name": f"{method} (few_shot)" if explained else method, "mean": mean, "low": mean - 0.1,
            "high": mean + 0.1, "sd": 0.05, "likelihood": 0.75, "per_token": 0.7, "exact": mean,
            "calibration_error": 0.1, "no_choice": 0.125, "chance": 0.2, "n_seeds": 2, "n_failed": 0, "n_questions": 10,
            **more}


LOSS = {"dataset": "mini", "student": "t5", "tested_on": "mini", "name": "multitask (few_shot)",
        "questions with": "question word: who", "questions": 25, "difference": -12.0}
TEACHER = {"dataset": "mini", "teacher": "a", "prompting": "few_shot", "stage": "rationale", "texts": 1200,
           "unusable": 3, "words": 17.26, "answer named": 0.25,
           "contradicted": 0.125, "repeated": 0.0, "unfinished": 1.0}

EXAMPLE = {"question": "Which is a fruit?", "choices": ["pear", "piano"], "answer": "pear", "note": "", "rows": [
    {"who": "teacher a", "answer": "–", "explanation": "A pear|grows."},
    {"who": "multitask", "answer": "✗ piano", "explanation": "<!-- /result -->\n1 < 2"}]}


def metrics_of(job):
    """Return the metrics.json of an invented run, as the notebook of `job` writes it."""
    labels, seed = job.parameters.get("labels"), str(job.parameters.get("seeds", [0])[0])
    if job.kind == "students":
        return {"labels": labels, "method": labels["method"], "seeds": {seed: {
            "effective_batch": 8, "epochs": 4.0, "steps": 20, "questions": 40, "target_tokens": 900,
            "model_parameters": 1000, "curve": [{"step": 5, "accuracy": 0.25, "loss": 2.0}]}}}
    if job.kind == "evaluations":
        accuracy = ACCURACIES[labels["method"]][int(seed)]
        measured = [{"seed": int(seed), "words": 6.0 + 2 * int(seed)}] if labels["method"] == "multitask" else []
        return {"labels": labels, "split": "test", "accuracy": {"chance": 0.2}, "seeds": {seed: {"accuracy": accuracy}},
                "explanations": measured, "simulatability": [{"seed": int(seed), "simulated": 9}]}
    if job.kind == "comparison":
        rows = [cell("multitask", 0.85), cell("label_only", 0.6)]
        return {"answer": {"example": EXAMPLE},
                "accuracy": rows, "transfer": [], "missing": [], "summary": ["multitask is better.", "p < 0.05 | so"],
                "tests": [{**CONTRAST, "mcnemar": [0.5]}]}
    if job.kind == "report":
        return {"fooled": {"mini": {"answer named": "'answer' has 1.000"}},
                "cleaned": [TEACHER, {**TEACHER, "prompting": "critique_revision"},
                            {**TEACHER, "stage": "revision", "words": 1234.56, "contradicted": None}]}
    if job.kind == "errors":
        return {"summary": ["It depends."], "effects": [{"rationale": "cut", "q": 0.5}], "losses": [LOSS], "more": 1}
    return {"about": job.kind}


def write_run(folder, metrics, **about):
    """Write a finished run that holds `metrics`."""
    folder.mkdir(parents=True, exist_ok=True)
    runs.write_json(folder / "run.json", about)
    runs.write_json(folder / "metrics.json", metrics)
    (folder / "notebook.ipynb").write_text("{}")
    listed = ("run.json", "metrics.json", "notebook.ipynb", "costs.json")
    runs.write_json(folder / "manifest.json", {
        name: {"bytes": (folder / name).stat().st_size, "sha256": runs.sha256(folder / name)}
        for name in listed if (folder / name).is_file()})


@pytest.fixture
def toy(own_outputs):
    """A finished experiment in an outputs folder of its own; job number i of n took i seconds."""
    file = "notebooks/experiments/toy.yaml"
    experiment = Experiment("toy", SETTINGS, list(make_jobs("toy", SETTINGS)), file)
    for number, job in enumerate(experiment.jobs, start=1):
        folder = experiment.folder / job.folder
        if job.kind == "students":
            seed = job.parameters["seeds"][0]
            folder.mkdir(parents=True)
            runs.write_json(folder / "costs.json", {
                str(seed): {"seconds": 10.0 + 20 * seed, "peak_memory_mib": 500 + 200 * seed}})
        write_run(folder, metrics_of(job), parameters={**job.parameters, "a default": 1}, git="a" * 40, machine=MACHINE,
                  versions=VERSIONS, seconds=float(number), started="2026-01-31T23:59:50+00:00")
    execution.record(experiment, experiment.folder / execution.RECORD)
    return experiment


def test_the_time_side_by_side_leaves_out_pauses_of_more_than_a_minute():
    """By hand: jobs from 0 to 10 s, from 5 to 8 s and from 70 to 75 s; then one from 136 to 140 s, after 61 s."""
    def at(second, seconds):
        return {"started": f"2026-01-31T23:{second // 60:02d}:{second % 60:02d}+00:00", "seconds": seconds}

    jobs = [at(70, 5.0), at(0, 10.0), at(5, 3.0)]
    assert keeping._span(jobs)[0] == 75
    wall, end = keeping._span([*jobs, at(136, 4.0)])
    assert wall == 75 + 4 and end.isoformat() == "2026-01-31T23:02:20+00:00"


def keep_toy(toy):
    return json.loads((keeping.keep("toy") / "results.json").read_text())


# --- what is kept


def test_all_that_a_finished_experiment_found_is_kept(toy):
    found = keep_toy(toy)
    spent = [max(number, 10 + 20 * job.parameters["seeds"][0]) if job.kind == "students" else number
             for number, job in enumerate(toy.jobs, start=1)]  # a training in pieces took what its seeds took
    assert found["seconds"] == sum(spent) > sum(range(14)) and found["jobs"] == len(toy.jobs) == 13
    assert found["wall"] == 13, "all began together"
    assert found["date"] == "2026-02-01", "the last job ends after midnight"
    assert found["about"] == "Does keeping work?" and found["command"] == "./run_all.sh toy"
    assert found["commits"] == ["a" * 40] and found["machines"] == [MACHINE] and found["versions"] == VERSIONS
    assert found["summary"] == ["multitask is better.", "p < 0.05 | so"] and found["split"] == "test"
    assert found["contrasts"] == [CONTRAST] and found["settings"]["seeds"] == [0, 1]
    multitask, baseline = found["cells"]
    assert {key: multitask[key] for key in cell("multitask", 0.85)} == cell("multitask", 0.85), "the row of the report"
    on_dev = {"dev": [[5, 0.25]], "dev_accuracy": 0.25}
    assert multitask["seeds"] == {"0": {"accuracy": 0.8, "seconds": 10.0, "peak_memory_mib": 500, **on_dev},
                                  "1": {"accuracy": 0.9, "seconds": 30.0, "peak_memory_mib": 700, **on_dev}}
    assert multitask["cost"]["seconds"] == 20 and multitask["cost"]["peak_memory_mib"] == 600
    assert multitask["cost"]["questions"] == 40 and multitask["cost"]["epochs"] == 4
    assert multitask["measures"] == {"words": {"mean": 7.0, "sd": 1.41421}}, "six digits, and no counts"
    assert found["example"] == EXAMPLE and found["fooled"] == {} and found["attributions"] == []
    assert found["errors"] == [{"summary": ["It depends."], "effects": [{"rationale": "cut", "q": 0.5}],
                                "losses": [LOSS]}]
    assert baseline["measures"] == {} and baseline["seeds"]["1"]["accuracy"] == 0.7
    assert found["teachers"][0] == TEACHER and [row["stage"] for row in found["teachers"]] == [
        "rationale", "rationale", "revision"]


def test_only_equal_texts_of_a_teacher_share_a_row(toy):
    found = keep_toy(toy)
    rows = document.teacher_rows(found["teachers"])
    assert rows == [
        {"dataset": "mini", "teacher": "a", "explanations": "few_shot, critique_revision", "stage": "rationale",
         "texts": "1,200", "unusable": "3", "words": "17.3",
         "answer named": "25.0 %", "contradicted": "12.5 %", "repeated": "0.0 %", "unfinished": "100.0 %"},
        {"dataset": "mini", "teacher": "a", "explanations": "few_shot", "stage": "revision",
         "texts": "1,200", "unusable": "3", "words": "1,234.6",
         "answer named": "25.0 %", "contradicted": "–", "repeated": "0.0 %", "unfinished": "100.0 %"}]
    starred = document.teacher_rows(found["teachers"], found["fooled_teachers"])
    assert [list(row)[7:9] for row in starred] == 2 * [["answer named *", "contradicted"]]
    sampled = [TEACHER, {**TEACHER, "prompting": "samples-2", "written tokens": 9}]
    assert [row["explanations"] for row in document.teacher_rows(sampled)] == ["few_shot", "samples-2"]


def test_soft_labels_are_kept_and_shown_with_their_accuracy(toy):
    folder = next(toy.folder / job.folder for job in toy.jobs if job.kind == "explanations")
    metrics, about = (json.loads((folder / name).read_text()) for name in ("metrics.json", "run.json"))
    labels = {"dataset": "mini", "teacher": "a", "prompting": "critique_revision"}
    soft = [{"split": "train", "accuracy": 0.875}, {"split": "test", "accuracy": 0.5}]
    write_run(folder, {**metrics, "labels": labels, "soft_labels": soft}, **about)
    found = keep_toy(toy)["teachers"]
    assert [row.get("accuracy") for row in found] == [None, [["train", 0.875], ["test", 0.5]], None]
    rows = document.teacher_rows(found)
    assert [(row["explanations"], row["right"]) for row in rows] == [
        ("few_shot", "–"), ("critique_revision", "train 87.5 %, test 50.0 %"), ("few_shot", "–")]


@pytest.mark.parametrize("published", [0.68, None])
def test_attributions_are_kept_and_shown_side_by_side_with_what_was_chosen(published, toy):
    """By hand: of three attributions, the mean agreement of each with the other two."""
    folder = next(toy.folder / job.folder for job in toy.jobs if job.kind == "explanations")
    metrics, about = (json.loads((folder / name).read_text()) for name in ("metrics.json", "run.json"))
    pairs = [("lime", "random", 0.5, 0.25), ("lime", "occlusion", 0.25, 0.5), ("random", "occlusion", None, 0.0)]
    costs = [{"attribution": name, "any answer word": share, "all of it": 0.0, "seconds per question": seconds}
             for name, share, seconds in (("lime", 0.75, 1.5), ("random", 0.25, 0.0004), ("occlusion", 0.5, 0.25))]
    write_run(folder, {
        **metrics, "labels": {"dataset": "mini", "teacher": "a", "prompting": "words"}, "faithfulness": [],
        "choice": {"choose_on": "dev", "attribution": "lime", "k": 3}, "published_share": published,
        "costs": costs,
        "agreement": [dict(zip(("first", "second", "spearman", "jaccard"), pair, strict=True)) for pair in pairs]
    }, **about)
    found = keep_toy(toy)["attributions"]
    assert document.chosen_words(found) == ["words (mini) took 3 words by lime"]
    assert [list(row.values()) for row in document.attribution_rows(found)] == [
        ["lime", "1.500", "75.0 %", "0.38", "0.38"], ["random", "0.000", "25.0 %", "0.50", "0.12"],
        ["occlusion", "0.250", "50.0 %", "0.25", "0.25"]]
    assert document.attribution_rows([{**found[0], "costs": costs[:1]}]) == []
    itself = {"first": "lime", "second": "lime, another seed", "spearman": 0.75, "jaccard": 0.625}
    again = document.attribution_rows([{**found[0], "agreement": [*found[0]["agreement"], itself]}])
    assert [list(row.values())[3:] for row in again] == [
        ["0.38", "0.38", "0.75", "0.62"], ["0.50", "0.12", "–", "–"], ["0.25", "0.25", "–", "–"]]
    of_five = {**found[0], "choice": {**found[0]["choice"], "k": 5}, "costs": [{**costs[0], "any answer word": 0.9}]}
    rows = document.attribution_rows([of_five, *found])
    assert [[value for name, value in row.items() if name.startswith("words")] for row in rows] == [
        ["90.0 %", "75.0 %"], ["–", "25.0 %"], ["–", "50.0 %"]] and document.compared_words([of_five, *found]) == 3
    assert list(rows[0])[2:4] == ["words of the answer, k = 5", "words of the answer, k = 3"]
    text = " ".join(document.results_text(keeping.read_kept()).split())
    assert "| lime | 1.500 |" in text and "words (mini) took 3 words by lime." in text
    assert ("reports 68.0 % of" in text) == bool(published)


def test_the_planned_contrasts_that_show_a_difference_stand_first(monkeypatch):
    """By hand: of three planned contrasts, one has a corrected p below 0.05, one has none; differences of its cells."""
    rows = [{**CONTRAST, "family": "primary", "p_corrected": p, "difference": gap}
            for p, gap in ((0.05, 0.5), (None, 0.1), (0.01, -0.125))]
    cells = [{"dataset": "mini", "student": "t5", "name": name, "likelihood": likely, "no_choice": none}
             for name, likely, none in (("multitask (few_shot)", 0.5, 0.25), ("label_only", 0.75, None))]
    results = {"toy": {"kind": "experiment", "contrasts": [*rows, {**CONTRAST, "family": "exploratory"}],
                       "cells": [*cells, {**cells[0], "student": "another", "likelihood": 1.0}]},
               "bench-x": {"kind": "benchmark"}}
    row = {"experiment": "toy", "student": "t5", "contrast": "multitask (few_shot) minus label_only",
           "accuracy": "−12.5", "by likelihood": "−25.0", "no choice": "–"}
    assert document.planned_differences(results) == (
        "1 of 3 planned contrasts of two seeds or more show a difference (corrected p below 0.05)", [row])
    monkeypatch.setattr(document, "LATER", {"toy": {"multitask (few_shot)"}})
    assert document.planned_differences(results)[1] == [row | {"contrast": row["contrast"] + " †"}]


def test_every_contrast_that_is_marked_as_planned_later_is_a_kept_one():
    kept = keeping.read_kept()
    for name, firsts in document.LATER.items():
        assert firsts <= {row["first"] for row in kept[name]["contrasts"] if row["family"] == "primary"}, name


def test_the_best_on_dev_is_the_cell_whose_students_are_and_needs_all_curves():
    cells = [{"prompting": name, "seeds": {str(seed): {"dev": curve} for seed, curve in enumerate(curves)}}
             for name, curves in (("a", [[[1, 0.5], [2, 0.25]], [[1, 0.25], [2, 0.5]]]),
                                  ("b", [[[1, 0.5], [2, 0.75]], [[1, 0.25], [2, 0.25]]]))]
    assert document.best_on_dev(cells)["prompting"] == "a" and document.best_on_dev(cells)["dev"] == 0.5
    assert document.best_on_dev([*cells, {"prompting": "c", "seeds": {"0": {"accuracy": 1}}}]) is None
    assert document.best_on_dev([]) is None
    last = [{**cell, "seeds": {seed: {**one, "dev_accuracy": one["dev"][-1][1]} for seed, one in cell["seeds"].items()}}
            for cell in cells]
    assert document.best_on_dev(last)["prompting"] == "b", "the last weights were kept"


def test_the_questions_without_a_text_are_kept_with_the_last_stage_of_a_run(toy):
    folder = next(toy.folder / job.folder for job in toy.jobs if job.kind == "explanations")
    metrics, about = (json.loads((folder / name).read_text()) for name in ("metrics.json", "run.json"))
    labels = {"dataset": "mini", "teacher": "a", "prompting": "few_shot"}
    write_run(folder, {**metrics, "labels": labels, "without_rationale": 1234, "train_questions": 2000}, **about)
    found = keep_toy(toy)["teachers"]
    assert [row.get("without") for row in found] == [None, None, [1234, 2000]]
    rows = document.teacher_rows([{"without": [7, 9], **TEACHER}, {**TEACHER, "prompting": "b"}, found[2]])
    assert [(row["explanations"], row["questions without"]) for row in rows] == [
        ("few_shot, b", "7 of 9"), ("few_shot", "1,234 of 2,000")]


def test_the_figure_is_the_same_each_time_and_a_second_call_replaces_the_folder(toy, capsys):
    assert main(["keep", "toy", "--note", "Another program ran."]) == 0
    assert "transformers 5.0. Another program ran." in document.results_text(keeping.read_kept()).replace("\n", " ")
    assert "note" not in capsys.readouterr().out
    assert main(["keep", "toy"]) == 0
    assert "had a note, which is not kept: Another program ran." in capsys.readouterr().out
    folder = keeping.keep("toy")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert before["accuracy.png"].startswith(b"\x89PNG") and set(before) == {"accuracy.png", "results.json"}
    (folder / "old.txt").write_text("of an earlier version")
    assert keeping.keep("notebooks/experiments/toy.yaml") == folder
    assert before == {path.name: path.read_bytes() for path in folder.iterdir()}, "without the note, too"
    assert [path.name for path in folder.parent.iterdir()] == ["toy"], "nothing is left beside it"


@pytest.mark.parametrize(("fault", "says"), [
    ("missing", r"1 of 13 jobs .*\(comparison: not finished\); run ./run_all.sh toy until"),
    ("failed", r"\(comparison: failed\)"),
    ("damaged", "not the file that was written"),
    ("changed", "was run with another value of 'experiment'"),
    ("another", r"1 of 13 jobs .*\(students/.*/seeds-1: was made from another outputs/toy/data/mini/questions.parq"),
    ("two", r"2 of 13 jobs .*data/mini: not finished, and 1 more"),
])
def test_an_unfinished_failed_or_damaged_experiment_is_refused_and_what_was_kept_stays(toy, fault, says, capsys):
    before = keep_toy(toy)
    folder = toy.folder / "comparison"
    if fault in ("missing", "failed", "two"):
        (folder / "metrics.json").unlink()
    if fault == "two":
        (toy.folder / "data/mini/metrics.json").unlink()
    if fault == "failed":
        (folder / "error.txt").write_text("it broke")
    if fault == "damaged":
        (folder / "metrics.json").write_text(json.dumps(metrics_of(toy.jobs[-1])))
    if fault == "changed":
        write_run(folder, metrics_of(toy.jobs[-1]), parameters={"experiment": "other"})
    if fault == "another":
        job = next(job for job in toy.jobs if job.kind == "students" and job.parameters["seeds"] == [1])
        about, table = runs.read_json(toy.folder / job.folder / "run.json"), "data/mini/questions.parquet"
        (toy.folder / table).write_text("other questions")
        write_run(toy.folder / job.folder, metrics_of(job), **{**about, "inputs": {f"outputs/toy/{table}": "0" * 64}})
    with pytest.raises(StudyError, match=says):
        keeping.keep("toy")
    assert main(["keep", "toy"]) == 2 and capsys.readouterr().err.startswith("error: toy: ")
    assert keeping.read_kept() == {"toy": before}


def test_a_full_disk_leaves_what_was_kept(toy, monkeypatch):
    before = keep_toy(toy)

    def full(path, value):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(keeping, "write_json", full)
    with pytest.raises(OSError, match="No space"):
        keeping.keep("toy")
    assert keeping.read_kept() == {"toy": before} and len(list(keeping.kept_folder().iterdir())) == 1


@pytest.mark.parametrize("name", ["other", "../toy", "", "a\x00b", "x" * 300])
def test_an_experiment_that_was_never_run_is_one_line(toy, name, capsys):
    assert main(["keep", name]) == 2
    assert capsys.readouterr().err.count("\n") == 1 and not keeping.kept_folder().exists()


def test_a_run_with_tiny_models_is_no_result(toy):
    execution.record(Experiment("toy", SETTINGS, [], toy.file, tiny=True), toy.folder / execution.RECORD)
    with pytest.raises(StudyError, match="run with --tiny, which gives no result"):
        keeping.keep("toy")


BENCH = {"machine": MACHINE, "versions": VERSIONS, "git": "b" * 40, "date": "2026-03-01", "smoke": False}


def write_benchmark(outputs, name, found):
    folder = outputs / "bench" / name
    folder.mkdir(parents=True, exist_ok=True)
    runs.write_json(folder / "results.json", found)
    (folder / "curve.png").write_bytes(b"a picture")


def test_a_benchmark_is_kept_with_commit_date_and_figure(own_outputs, capsys):
    write_benchmark(own_outputs, "speed", {**BENCH, "rows": [1.5], "seconds": 90})
    assert main(["keep", "bench/speed"]) == 0
    folder = own_outputs / "results" / "bench-speed"
    assert f"kept: {folder}" in capsys.readouterr().out
    assert json.loads((folder / "results.json").read_text()) == {
        "name": "bench-speed", "kind": "benchmark", "command": "./run_all.sh --bench speed", "date": "2026-03-01",
        "commits": ["b" * 40], "machines": [MACHINE], "versions": VERSIONS, "seconds": 90, "note": "",
        "figures": ["curve.png"], "found": {"rows": [1.5], "seconds": 90}}
    assert (folder / "curve.png").read_bytes() == b"a picture"
    text = document.results_text(keeping.read_kept())
    assert "`./run_all.sh --bench speed`, 1 min 30 s." in text and "outputs/results/bench-speed/curve.png" in text
    assert "Run on 2026-03-01 with commit bbbbbbbbbb on" in text


@pytest.mark.parametrize(("change", "says"), [({"smoke": True}, "run with --smoke"), ({"git": None}, "has no 'git'")])
def test_a_benchmark_that_was_only_tried_or_is_of_an_earlier_version_is_refused(own_outputs, change, says):
    found = {key: value for key, value in {**BENCH, **change}.items() if value is not None}
    write_benchmark(own_outputs, "speed", found)
    with pytest.raises(StudyError, match=says):
        keeping.keep("bench/speed")
    with pytest.raises(StudyError, match="has not been run"):
        keeping.keep("bench/../bench/speed")


# --- the code that ran


def test_a_commit_is_dirty_only_if_tracked_code_differs_from_it(tmp_path, monkeypatch):
    def git(*words):
        subprocess.run(["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@b", *words], check=True,
                       capture_output=True)

    monkeypatch.setattr(runs, "PROJECT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert runs.git_revision() == ""
    (tmp_path / "kdutils").mkdir()
    for file in ("kdutils/a.py", "RESULTS.md"):
        (tmp_path / file).write_text("one")
    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    commit = runs.git_revision()
    assert re.fullmatch("[0-9a-f]{40}", commit)
    (tmp_path / "RESULTS.md").write_text("two")
    (tmp_path / "kdutils/untracked.py").write_text("one")
    assert runs.git_revision() == commit
    (tmp_path / "kdutils/a.py").write_text("two")
    assert runs.git_revision() == f"{commit}-dirty"
    assert document.commit(f"{commit}-dirty") == f"{commit[:10]}-dirty" and document.commit("") == "not recorded"


# --- the documents


@pytest.mark.parametrize("change", [{"p_corrected": None}, {"p_corrected": 0.001}, {"p_corrected": 0.9}])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_sentences_of_every_section_follow_the_numbers(change, sign):
    kept = keeping.read_kept()
    for result in kept.values():
        for row in result.get("contrasts", []):
            row |= {**change, "difference": sign * abs(row["difference"])}
    text = document.results_text(kept)
    assert not re.search(r"\bnan\b|\bNaN\b|\bNone\b(?! of)", text)
    gains, losses = (len(re.findall(rf"points, a {word}\.", text)) for word in ("gain", "loss"))
    shown = change["p_corrected"] == 0.001
    assert (gains > 0, losses > 0) == (shown and sign > 0, shown and sign < 0)


def test_a_reason_for_a_gain_is_told_only_where_it_is_one():
    kept = {name: result for name, result in keeping.read_kept().items() if name in ("soft-mini", "tokens-mini")}
    for few, k in ((0.02, 2), (0.3, 5)):
        for cell in kept["soft-mini"]["cells"]:
            cell["no_choice"] = few if cell["method"] == "soft_multitask" else 0.1
        for row in (*kept["soft-mini"]["contrasts"], *kept["tokens-mini"]["contrasts"]):
            row |= {"p_corrected": 0.001, "difference": abs(row["difference"]) * (
                -1 if row["first"].endswith("(chosen_on_dev)") else 1)}
        for row in kept["tokens-mini"]["attributions"]:
            row["choice"]["k"] = k if row["prompting"] == "chosen_on_dev" else 5
        text = document.results_text(kept)
        assert ("Part of it is that fewer answers" in text) == (few < 0.1)
        assert ("They also learn another number of words" in text) == (k != 5)


def test_a_section_of_any_experiment_is_written_from_its_file_alone(toy):
    keep_toy(toy)
    text = document.results_text(keeping.read_kept(), ["toy", "not-run"])
    section = text[text.index("## toy"):text.index("## Experiments without results")]
    assert section == """## toy

Does keeping work?

`./run_all.sh toy`: 13 jobs, 2 min 27 s summed over all of them, without their start; side by side they took 13 s. Run
on 2026-02-01 with commit aaaaaaaaaa on Linux x86_64, ACME 1, 2 cores, no GPU, 1 thread; torch 2.0, transformers 5.0.

![Accuracy of every cell, dots for seeds and intervals over seeds](outputs/results/toy/accuracy.png)

On mini: 40 training questions, 4 epochs, 10 questions of the test split, chance 20.0 %. Same in all cells: data set
mini, student t5, teacher llama, explanations few_shot, 2 seeds.

| method | accuracy | 95 % interval | by likelihood | no choice | training, s | peak, MiB |
|---|--:|---|--:|--:|--:|--:|
| multitask | 85.0 % | 75.0 to 95.0 % | 75.0 % | 12.5 % | 20 | 600 |
| label_only | 60.0 % | 50.0 to 70.0 % | 75.0 % | 12.5 % | 20 | 600 |

Explanations of the students (`kdutils.evaluation` defines the measures):

| method | words |
|---|--:|
| multitask | 7.0 |

Quality of the teachers' explanations (notebook 07; shares are of the usable texts):

| dataset | teacher | explanations | stage | texts | unusable | words | answer named * | \
contradicted | repeated | unfinished |
|---|---|---|---|--:|--:|--:|--:|--:|--:|--:|
| mini | a | few_shot, critique_revision | rationale | 1,200 | 3 | 17.3 | 25.0 % | 12.5 % | 0.0 % | 100.0 % |
| mini | a | few_shot | revision | 1,200 | 3 | 1,234.6 | 25.0 % | – | 0.0 % | 100.0 % |

From the report:

- multitask is better.
- p < 0.05 | so

From the page on errors:

- It depends.

Where each student loses most against `label_only`, of the groups of questions that are not small. These are the largest
of many differences, and none is tested.

| method | group | questions | points |
|---|---|--:|--:|
| multitask (few_shot) | question word: who | 25 | −12.0 |

"""
    assert "No results are kept of not-run." in text


def test_a_measure_that_a_fake_reaches_has_a_star_and_its_reason(toy):
    evaluations = [job for job in toy.jobs if job.kind == "evaluations"]
    for job in (job for job in evaluations if job.parameters["labels"]["method"] == "multitask"):
        folder = toy.folder / job.folder
        metrics, about = (json.loads((folder / name).read_text()) for name in ("metrics.json", "run.json"))
        metrics["explanations"][0]["names_answer"] = 0.4
        metrics["fakes"] = [{"fake": "answer", "measure": "names_answer", "value": 1.0},
                            {"fake": "answer", "measure": "words", "value": 10.0}]
        write_run(folder, metrics, **about)
    reason = "at least as good as a student: 'answer' in 1 of 1 cell"
    assert keep_toy(toy)["fooled"] == {"names_answer": reason}
    text = document.results_text(keeping.read_kept())
    assert ("| method | names_answer * | words |\n|---|--:|--:|\n| multitask | 0.400 | 7.0 |\n\nThe stars:\n\n"
            f"- names_answer: {reason}\n") in text and "Such a measure is no evidence of good explanations." in text


def test_a_worked_example_is_a_question_and_a_table_that_no_text_of_a_model_can_end():
    assert document.worked_example(EXAMPLE) == """

> Which is a fruit? (pear, piano)

| who | answer | explanation |
|---|---|---|
| teacher a | explains pear | A pear\\|grows. |
| multitask | ✗ piano | &lt;!-- /result --> 1 < 2 |



"""
    rows = [{**EXAMPLE["rows"][1], "answer": answer, "true": true, "who": who} for who, answer, true in (
        ("a", "✗ piano", "✗ false"), ("b", "✓ pear", "✓ true"), ("c", "✓ pear", "✗ false"), ("d", "✓ pear", "✓ true"))]
    checked = {**EXAMPLE, "choices": [], "rows": rows, "note": "Drawn."}
    lines = document.worked_example(checked).split("\n")
    shown = [line[2] for line in lines if line.startswith("| ") and "who" not in line]
    assert shown == ["b", "c", "a"], "one of a kind"
    assert "Drawn." in lines
    assert "> Which is a fruit?\n" in document.worked_example(checked)
    assert document.worked_example(None) == ""


def test_parts_that_differ_are_columns_and_what_is_missing_is_a_dash():
    rows = [{**cell("label_only", 0.5, n_seeds=1), "cost": {}, "measures": {}},
            {**cell("multitask", 0.5, teacher="a|b", student="gpt"), "cost": {"seconds": 1234.5}, "measures": {}},
            {**cell("multitask", 0.5, prompting="tokens"), "cost": {}, "measures": {}}]
    rows[2] |= dict.fromkeys(("mean", "low", "high", "likelihood", "no_choice"))
    assert document.table(document.accuracy_rows(rows)).split("\n") == [
        "| student | teacher | method | explanations | seeds | accuracy | 95 % interval | by likelihood | no choice "
        "| training, s | peak, MiB |",
        "|---|---|---|---|--:|--:|---|--:|--:|--:|--:|",
        "| t5 | – | label_only | – | 1 | 50.0 % | 40.0 to 60.0 % | 75.0 % | 12.5 % | – | – |",
        "| gpt | a\\|b | multitask | few_shot | 2 | 50.0 % | 40.0 to 60.0 % | 75.0 % | 12.5 % | 1,234 | – |",
        "| t5 | llama | multitask | tokens | 2 | – | – | – | – | – | – |"]
    short = document.accuracy_rows([{**rows[0], "exact_match": 0.25, "f1": 0.375}, rows[1]])
    assert [(row["exact match"], row["F1"]) for row in short] == [("25.0 %", "37.5 %"), ("–", "–")]
    moved = [cell("label_only", 0.5, tested_on=name) for name in ("cqa", "creak")]
    assert [row["tested on"] for row in document.accuracy_rows(moved)] == ["cqa", "creak"]
    assert document.measure_rows(rows) == []


def test_numbers_are_rounded_as_the_report_rounds_them():
    assert [document.percent(share) for share in (0.8949, 1, 0, None)] == ["89.5 %", "100.0 %", "0.0 %", "–"]
    assert [document.fixed(-0.5, 2), document.fixed(12345.6), document.fixed(None)] == ["−0.50", "12,346", "–"]
    assert [document.span([3, 5, None]), document.span([2, 2]), document.span([])] == ["3 to 5", "2", "–"]


def test_a_mark_is_filled_with_its_value_and_an_unknown_one_is_an_error(toy):
    kept = {"toy": keep_toy(toy), "other-one": {"seconds": 7200}}
    text = "a <!-- result: toy.seconds | duration -->?<!-- /result --> b <!-- result: results['other-one'].seconds " \
           "| duration --><!-- /result --> c"
    filled = document.fill_marks(text, kept)
    assert re.sub("<!--.*?-->", "", filled) == "a 2 min 27 s b 2 h 00 min c"
    assert document.fill_marks(filled, kept) == filled
    for wrong in ("nothing.seconds", "toy.speed", "toy seconds"):
        with pytest.raises(StudyError, match="correct the template, or keep the results"):
            document.fill_marks(f"<!-- result: {wrong} -->1<!-- /result -->", kept)


def test_writing_changes_only_what_differs(toy, tmp_path, monkeypatch, capsys):
    keep_toy(toy)
    monkeypatch.setattr(document, "PROJECT", tmp_path)
    (tmp_path / "README.md").write_text("<!-- result: toy.jobs -->0<!-- /result --> jobs")
    assert main(["write-results"]) == 0
    assert capsys.readouterr().out == "written: RESULTS.md, README.md\n"
    assert (tmp_path / "README.md").read_text() == "<!-- result: toy.jobs -->13<!-- /result --> jobs"
    assert "## toy" in (tmp_path / "RESULTS.md").read_text()
    assert main(["write-results"]) == 0 and "as the kept results say" in capsys.readouterr().out


def test_the_list_says_how_long_a_kept_experiment_took(toy, monkeypatch, capsys):
    kept = keep_toy(toy)
    monkeypatch.setattr("kdutils.results.keeping.read_kept", lambda: {"mini": kept})
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.split("\n")
    took = lines[lines.index(next(line for line in lines if line.startswith("mini: "))) + 1]
    assert took == ("    needs: nothing but a CPU; took: 2 min 27 s in all jobs "
                    "(Linux x86_64, ACME 1, 2 cores, no GPU, 1 thread)")
    assert "took: not measured" in "\n".join(lines)


# --- benchmarks: a kept one replaces what an earlier version printed


def prompting_row(**more):
    return {"model": "m", "new_tokens": 16, "prompt_tokens": 700, "plain_per_second": 2.0, "shared_per_second": 9.0,
            "ratio": 4.5, "ratios": [4.4, 4.5, 4.6], "equal": 1.0, "goal": 4.0, **more}


def training_row(**more):
    return {"size": "1M", "method": "combined", "revised": True, "plain_per_second": None, "ours_per_second": 3.0,
            "ratio": None, "goal": 4.0, "less_to_compute": 2.0, "without_padding": 2.5, "plain_peak_mib": None,
            "ours_peak_mib": 2946.0, **more}


def causal_row(**more):
    ways = {f"{way}_{name}": value for way in ("trl", "plain", "ours") for name, value in
            (("per_second", 2.0), ("peak_mib", 3000))}
    return {"method": "multitask", "weights": "LoRA", "precision": "bf16", "ratio_trl": 1.5, "ratio_plain": None,
            "goal": None, "less_to_compute": 1.48, "matrix_share": 0.815, "matrix_goal": 0.8, **ways, **more}


FOUND = {
    "teacher": {"results": [prompting_row(), prompting_row(ratios=[1], goal=None)],
                "shots": [{"model": "m", "shots": shots, "new_tokens": 16, "ratio": shots / 2} for shots in (1, 3)]},
    "training": {"settings": {"questions_per_step": 48}, "steps": [training_row()], "runs": [training_row(ends=True)],
                 "growth": [{"over": "questions", "at": 96, "plain": 3.0, "ours": 2.0}]},
    "causal": {"versions": {**VERSIONS, "trl": "1.16.0"},
               "settings": {"model": "m", "questions_per_step": 16, "trl_length": 512, "plain_rows": 8},
               "steps": [causal_row(plain_peak_mib=None), causal_row(goal=2.0)]},
    "rater": {"model": "m", "read_from": "likelihood", "texts": 271, "prompts": 3252, "lacking": ["No place."],
              "conclusion": "This rater does not track people (Spearman -0.02).",
              "agreement": [{"construct": "quality", "spearman": -0.021, "low": -0.11, "high": 0.07, "length": 0.25,
                             "length_low": 0.2, "length_high": 0.3, "alpha": None, "alpha_low": None,
                             "alpha_high": None, "ratings": 1350}],
              "bias": [{"check": "scale", "value": -1.204, "low": -1.3, "high": -1.1, "n": 271}]}}
LINES = {"teacher": ["| m | 16 | 700 | 2.00 | 9.00 | 4.5 | 4.0 |", "| m | 16 | 700 | 2.00 | 9.00 | 4.5 | – |",
                     "0.5 at 1, 1.5 at 3.", "1 to 3 runs", "100.0 % or more of the texts are equal"],
         "training": ["| 1M | combined | revised | – | 3.00 | – | 4.0 | 2.00 | 2.50 | out of memory | 2,946 |",
                      "48 questions per step", "1.5 times at 96."],
         "causal": ["| LoRA | bf16 | 2.00 | 2.00 | 2.00 | 1.50 | – | – | 1.48 | 81.5 % | 3,000 | out of memory |",
                    "(version 1.16.0, with packing", "| 1.50 | 2.0 | – | 1.48 |", "16 questions per step",
                    "up to 512 tokens, plain takes 8 rows", "its goal is 80.0 %."],
         "rater": ["| quality | −0.02 | −0.11 to 0.07 | 0.25 | 0.20 to 0.30 | – | – to – | 1,350 |",
                   "| scale | −1.20 | −1.30 to −1.10 | 271 |",
                   "271 published explanations", "3,252 prompts", "(Spearman −0.02).", "No place."]}


@pytest.mark.parametrize("name", FOUND)
def test_a_kept_benchmark_replaces_what_an_earlier_version_printed(own_outputs, name):
    quoted = f"## bench-{name}, printed by an earlier version"
    assert (quoted in document.results_text({})) is (f"bench-{name}" in document.EARLIER)
    write_benchmark(own_outputs, name, {**BENCH, **FOUND[name]})
    keeping.keep(f"bench/{name}")
    text = document.results_text(keeping.read_kept())
    assert quoted not in text and f"## bench-{name}\n" in text
    assert [line for line in LINES[name] if line not in " ".join(text.split())] == []


# --- what the project says


def test_the_documents_are_as_the_kept_results_say():
    for path, text in document.documents().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name}: run ./run_all.sh --write-results"


def test_a_kept_experiment_is_the_one_that_is_shipped():
    for name, result in keeping.read_kept().items():
        if result["kind"] == "experiment":
            shipped = yaml.safe_load((PROJECT / "notebooks" / "experiments" / f"{name}.yaml").read_text())
            own = {key: value for key, value in shipped.items() if key not in ("about", "needs")}
            assert runs.plain(own) == result["settings"], f"{name}: its file has changed; run it and keep it again"


def test_what_is_kept_is_small_and_has_a_figure_and_a_commit():
    kept = keeping.read_kept()
    assert kept and {path.name for path in keeping.kept_folder().iterdir()} == set(kept)
    for name, result in kept.items():
        folder = keeping.kept_folder() / name
        assert result["name"] == name and result["date"] and all(result["commits"])
        assert not [commit for commit in result["commits"] if not re.fullmatch("[0-9a-f]{40}", commit)], "dirty"
        files = [folder / file for file in result.get("figures", [keeping.FIGURE])]
        assert all(file.read_bytes().startswith(b"\x89PNG") for file in files), name
        assert sum(file.stat().st_size for file in folder.iterdir()) < 400_000, name
    assert sum(file.stat().st_size for file in keeping.kept_folder().rglob("*") if file.is_file()) < 1_000_000, "in all"


DOT = 40  # pixels, fewer than the dot of a seed has


def pixels_apart(one, other):
    """Return how many pixels of either picture are unlike all within three pixels of that place in the other.

    Another FreeType draws the same letters a little wider or paler, which moves axes and dots by a pixel or two.
    """
    from PIL import Image, ImageChops, ImageFilter

    pictures = [Image.open(file).convert("RGB") for file in (one, other)]
    assert pictures[0].size == pictures[1].size
    apart = 0
    for first, second in (pictures, pictures[::-1]):
        darker = ImageChops.subtract(first.filter(ImageFilter.MinFilter(7)), second)
        lighter = ImageChops.subtract(second, first.filter(ImageFilter.MaxFilter(7)))
        apart += int((np.asarray(ImageChops.lighter(darker, lighter)).max(axis=2) > 48).sum())
    return apart


def drawn(cells):
    save(keeping.draw_cells(cells), picture := io.BytesIO())
    return picture


def test_the_kept_figures_are_those_of_the_kept_numbers():
    kept = {name: result["cells"] for name, result in keeping.read_kept().items() if result["kind"] == "experiment"}
    assert "mini" in kept
    for name, cells in kept.items():
        assert pixels_apart(keeping.kept_folder() / name / keeping.FIGURE, drawn(cells)) < DOT, name


def test_a_kept_figure_of_other_numbers_would_be_found():
    cells = keeping.read_kept()["mini"]["cells"]
    for cell in cells[1:-1]:
        seed, values = next(iter(cell["seeds"].items()))
        changed = [{**one, "seeds": {**one["seeds"], seed: {**values, "accuracy": values["accuracy"] - 0.03}}}
                   if one is cell else one for one in cells]
        assert pixels_apart(drawn(cells), drawn(changed)) > DOT, cell["name"]


UNITS = (r"%|percent|points?|times|seconds?|s|min|minutes?|hours?|h|days?|MiB|GiB|MB|GB|tokens|tests|cores|threads|jobs"
         r"|(?:\w+ )?questions|seeds|cells|epochs|parameters|runs")
WORDS = "one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty|thirty|forty|fifty|hundred|thousand"
# An amount of time in words. "A second" is left out: it is the one after the first.
TIMES = (r"(?:an?\s+|the\s+)?(?:half|quarter\s+of|third\s+of)\s+an?\s+(?:second|minute|hour|day|week)"
         r"|an?\s+(?:minute|hour|day|week)|(?:few|several|couple\s+of|many)\s+(?:seconds|minutes|hours|days|weeks)")
NOTEBOOKS = {path.name[:2] for path in (PROJECT / "notebooks").glob("[0-9][0-9]_*.ipynb")}


def stray_numbers(text):
    """Return the numbers of a Markdown text that may be results; see the docstring of this module."""
    text = document.MARKED.sub(" ", text)
    text = re.sub(r"^```.*?^```|`[^`]*`|<!--.*?-->|\{%.*?%\}|\{\{.*?\}\}|\{#.*?#\}|\]\([^)]*\)", " ", text,
                  flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"^\d+\. ", "", text, flags=re.MULTILINE)  # of a step
    text = re.sub(r"\b95 % (bootstrap |t-)?intervals?", " ", text)  # of every interval; not measured
    amount = rf"(?<![\w-])(?:(?:\d[\d.,]*|{WORDS})\s+(?:{UNITS})|{TIMES})(?!\w)"
    measured = [match[0] for match in re.finditer(amount, text, flags=re.IGNORECASE)]
    plain = re.findall(r"(?<![\w.-])\d+(?:[.,]\d+)*(?![\w-])", text)
    return measured + [number for number in plain if not re.fullmatch(
        r"(19|20)\d\d|\d{4}\.\d{5}|3\.1\d", number) and number not in NOTEBOOKS and not any(
        number in words.split() for words in measured)]


@pytest.mark.parametrize(("text", "found"), [
    ("it takes about seven minutes on two cores", ["seven minutes", "two cores"]),
    ("89.5 % of 200 questions", ["89.5 %", "200 questions"]), ("21 minutes", ["21 minutes"]),
    ("a ratio of 2.65, or 3", ["2.65", "3"]), ("1,000 here", ["1,000"]), ("it runs 2.4 times", ["2.4 times"]),
    ("as 12 test questions", ["12 test questions"]),
    ("it takes about half a\nminute, at most an hour", ["half a\nminute", "an hour"]),
    ("a quarter of an hour, a few minutes or up to a minute", ["a quarter of an hour", "few minutes", "a minute"]),
    ("a second call, half of the explanations, a minutely log", []),
    ("Python 3.11, 3.12 or 3.13; notebooks 02 to 06; arXiv 2504.16056; Hsieh et al. 2023", []),
    ("T5, all-MiniLM-L6-v2, bf16, `12 %`, a 95 % interval, {{ x | fixed(2) }} %", []),
    ("```\n7 minutes\n```\n<!-- result: mini.jobs -->41<!-- /result --> jobs in two or three examples", []),
    ("Two commands: one file and two or three worked examples", []),
    ("1. Run it.\n2. It takes 7 minutes.\n3.5 of them\nin 2. Then", ["7 minutes", "3.5", "2"]),
])
def test_the_rule_tells_results_from_other_numbers(text, found):
    assert stray_numbers(text) == found


def test_the_readme_and_the_templates_hold_no_number_of_a_result_themselves():
    templates = sorted(document.HERE.rglob("*.j2"))
    assert len(templates) >= 4
    for path in (PROJECT / "README.md", *templates):
        assert stray_numbers(path.read_text(encoding="utf-8")) == [], path.name
    assert len(document.MARKED.findall((PROJECT / "README.md").read_text())) >= 2
