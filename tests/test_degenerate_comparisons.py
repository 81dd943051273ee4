"""Experiments that went badly, in notebooks 07, 21, 31 and 32: what can be shown is shown, the rest is a sentence."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from kdutils.data.tables import read_table, write_table
from kdutils.errors import StudyError
from kdutils.runs import PROJECT
from kdutils.teacher.quality import examples_of, raw_table, text_table
from tests.test_comparing import World
from tests.test_degenerate_ratings import run_notebook

EXAMPLE = PROJECT / "kdutils" / "mini" / "example"
EXPLAIN = ["multitask", "shuffled", "standard", "counterfactual"]


def compare(world, folder, **parameters):
    """Run notebook 31 on the folders of `world`; return (its variables, what it printed, the sentences)."""
    found, printed = run_notebook("31_compare_methods", folder, experiment="x", evaluations=world.evaluations,
                                  trainings=world.trainings, explained=[], **parameters)
    metrics = json.loads((folder / "run" / "metrics.json").read_text())
    assert metrics["summary"] and not any("nan" in text or not text.endswith(".") for text in metrics["summary"])
    return found, printed, metrics["summary"]


def all_methods(world, right, **more):
    world.add("label_only", right=right, explains=False)
    for method in EXPLAIN:
        world.add(method, right=right, **more)
    return world.add("multitask", "critique_revision", right=right, **more)


CASES = {  # who made the runs, parameters, a sentence of the notebook, a sentence of the summary
    "one method": (lambda world: world.add("label_only", right=(9, 11), explains=False), {},
                   "No method here was trained on both revised and unrevised", "the highest of 1 mean accuracy"),
    "one method that explains": (lambda world: world.add("multitask", right=(30, 31), las=(0.1, 0.2)), {},
                                 "No student was trained on explanations without their content",
                                 "multitask (few_shot): 76.2 %"),
    "all students wrong": (lambda world: all_methods(world, (0, 0, 0)), {}, "", "no answer of 6 cells is right"),
    "all students right": (lambda world: all_methods(world, (40, 40, 40)), {}, "",
                           "label_only and 5 other cells have the highest of 6 mean accuracies: 100.0 %"),
    "equal students": (lambda world: all_methods(world, (20, 20)), {}, "", "no difference shown"),
    "one seed": (lambda world: all_methods(world, (20,), las=(0.1,), gain=0.1), {}, "", "one seed, which says nothing"),
    "one question": (lambda world: all_methods(World(world.root / "one", size=1), (1, 0)), {}, "", ""),
    "two questions": (lambda world: all_methods(World(world.root / "two", size=2), (1, 2)), {}, "", ""),
    "one seed of two failed": (lambda world: all_methods(world, (20,), failed=(1,)), {}, "", ""),
    "nobody explains": (lambda world: all_methods(world, (20, 22), explains=False), {"measure": "las"},
                        "No student here has a value of las", "have the highest"),
    "nobody has the measure": (lambda world: all_methods(world, (20, 22)), {"measure": "las"},
                               "No student here has a value of las", "have the highest"),
    "nobody has what is tested": (lambda world: all_methods(world, (20, 22)), {"tested": ["bertscore_human", "words"]},
                                  "no student here has a value of it: bertscore_human.", "have the highest"),
    "nothing is tested": (lambda world: all_methods(world, (20, 22)), {"tested": [], "primary": []}, "",
                          "have the highest"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_comparison_of_whatever_was_run_ends_in_sentences(tmp_path, case):
    make, parameters, printed_text, said_text = CASES[case]
    _, printed, said = compare(make(World(tmp_path / "world")), tmp_path, **parameters)
    assert printed_text in printed, printed[-2000:]
    assert any(said_text in sentence for sentence in said), said


@pytest.mark.parametrize("case", CASES)
def test_an_analysis_of_errors_of_whatever_was_run_ends_in_sentences(tmp_path, case):
    world = CASES[case][0](World(tmp_path / "world"))
    found, printed = run_notebook("32_analyse_errors", tmp_path, evaluations=world.evaluations,
                                  trainings=world.trainings)
    said = json.loads((tmp_path / "run" / "metrics.json").read_text())["summary"]
    assert said and not any("nan" in text or not text.endswith(".") for text in said)
    compared = len({"label_only", "multitask"} & set(found["runs"]["kind"])) == 2
    assert ("No distilled student here can be compared" in printed) == (not compared)


def no_rows(path):
    write_table(pd.read_parquet(path).iloc[:0], path, "predictions")


BROKEN = {  # what happened to a file of predictions: how, the message
    "no rows": (no_rows, "predictions.parquet: no predictions of seed 0; run notebook 21"),
    "no bytes": (lambda path: path.write_bytes(b""), "predictions.parquet: not a readable Parquet file"),
    "no file": (lambda path: path.unlink(), "predictions.parquet: no such file"),
    "of another seed": (lambda path: write_table(pd.read_parquet(path).assign(seed=7), path, "predictions"),
                        "predictions.parquet: no predictions of seed 0; run notebook 21"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_of_predictions_is_one_clear_line(tmp_path, case):
    world = World(tmp_path / "world").add("label_only", right=(20, 21), explains=False).add("multitask", right=(22, 23))
    damage, message = BROKEN[case]
    damage(Path(world.evaluations[1]) / "predictions.parquet")
    with pytest.raises(StudyError, match=message) as error:
        compare(world, tmp_path)
    assert str(error.value).isprintable() and len(str(error.value)) < 400


# --- one student


def some(count, **columns):
    """Return some test questions of the example, with other `columns`: values or functions of a record."""
    table = read_table(EXAMPLE / "questions" / "questions.parquet", "questions")
    table = table[table["split"] == "test"].head(count).reset_index(drop=True)
    return table.assign(**{name: [one(item) if callable(one) else one for item in table.to_dict("records")]
                           for name, one in columns.items()})


def never(item):
    return "nothing of this"


@pytest.mark.parametrize(("table", "parameters", "accuracy"), [
    (some(1), {}, None), (some(6, choices=lambda item: [*item["choices"], never(item)], answer=never), {}, 0),
    (some(6, choices=lambda item: [], answer=never), {}, 0), (some(6), {"explanations": ""}, None),
    (some(6), {"attributed_questions": 0, "timed_questions": 3}, None)])
def test_the_evaluation_of_a_student_ends_in_numbers(tmp_path, table, parameters, accuracy):
    path = write_table(table, tmp_path / "questions.parquet", "questions")
    parameters = {"timed_questions": 0, **parameters}  # a measurement starts a process of its own
    found, printed = run_notebook("21_evaluate_student", tmp_path, questions=str(path), **parameters)
    assert (printed.count("2 forms of the weights measured") == 1) == bool(parameters["timed_questions"])
    assert accuracy is None or found["metrics"]["mean_accuracy"] == accuracy
    assert 0 <= found["metrics"]["accuracy"]["low"] <= found["metrics"]["accuracy"]["high"] <= 1
    if len(table) < 10:  # fewer than ten predictions: no simulator is trained
        assert "las" not in found["metrics"]["simulatability"][0]


@pytest.mark.parametrize(("table", "parameters", "message"), [
    (some(2, split="train"), {}, "questions.parquet: no question of the split 'test'"),
    (some(0), {}, "questions.parquet: no question of the split 'test'"),
    (some(2), {"seeds": [5]}, "seed-5: no complete student here")])
def test_what_cannot_be_evaluated_is_one_clear_line(tmp_path, table, parameters, message):
    path = write_table(table, tmp_path / "questions.parquet", "questions")
    with pytest.raises(StudyError, match=message):
        run_notebook("21_evaluate_student", tmp_path, questions=str(path), **parameters)


# --- the texts of a teacher


def judge(folder, explanations):
    """Run notebook 07 on a run with these explanations; return its metrics and what it printed."""
    run = Path(shutil.copytree(EXAMPLE / "explanations", folder / "run of a teacher"))
    write_table(explanations, run / "explanations.parquet", "explanations")
    about = json.loads((run / "metrics.json").read_text())
    about |= {"texts": len(explanations), "raw": raw_table(explanations).to_dict("records"),
              "quality": text_table(explanations, QUESTIONS).to_dict("records")}
    (run / "metrics.json").write_text(json.dumps(about))
    found, printed = run_notebook("07_judge_explanations", folder, explained=[str(run)])
    return found["metrics"], printed


QUESTIONS = read_table(EXAMPLE / "questions" / "questions.parquet", "questions")
TEXTS = read_table(EXAMPLE / "explanations" / "explanations.parquet", "explanations")


@pytest.mark.parametrize(("texts", "sentence"), [
    (TEXTS.iloc[:1], "1 runs, 1 texts"), (TEXTS.assign(text="A car has wheels.", raw="A car has wheels."), "160 texts"),
    (TEXTS.assign(text=None, raw="", problem="empty"), "No text on mini is usable: there are no shares to show.")])
def test_texts_without_any_worth_are_judged(tmp_path, texts, sentence):
    metrics, printed = judge(tmp_path, texts)
    assert metrics["texts"] == len(texts) and sentence in printed


def test_no_texts_are_one_clear_line(tmp_path):
    with pytest.raises(StudyError, match=r"'explained': \[\] is empty"):
        run_notebook("07_judge_explanations", tmp_path, explained=[])
    with pytest.raises(StudyError, match="run of a teacher: the run has no texts"):
        judge(tmp_path, TEXTS.iloc[:0])
    with pytest.raises(StudyError, match="160 explained questions are not in the table of questions, such as 'x"):
        examples_of(TEXTS.assign(id="x" + TEXTS["id"]), QUESTIONS, 1, 0)
