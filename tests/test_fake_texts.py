"""Texts that explain nothing: what they are, and that a measure which they fool is marked."""

import pandas as pd
import pytest

from kdutils.comparison import runs_table, tables
from kdutils.evaluation.fake_texts import FAKES, fake_measures, fake_texts
from kdutils.evaluation.text_metrics import rouge_l

QUESTIONS = pd.DataFrame([{"id": f"q{i}", "question": f"What is number {i} called?", "choices": [f"one{i}", f"two{i}"],
                           "answer": f"one{i}"} for i in range(12)])
RATIONALES = {f"q{i}": f"It is called one{i} by everybody in town." for i in range(12)}
PREDICTIONS = pd.DataFrame([
    {"id": f"q{i}", "seed": 0, "answer": f"one{i}", "predicted": f"{'one' if i % 3 else 'two'}{i}",
     "correct": bool(i % 3), "explanation": f"Number {i} has a name."} for i in range(12)])


def test_every_fake_is_what_its_name_says():
    texts = fake_texts(PREDICTIONS, QUESTIONS, RATIONALES)
    assert tuple(texts) == FAKES and all(len(one) == 12 for one in texts.values())
    assert set(texts["empty"]) == {""} and texts["question"][3] == "What is number 3 called?"
    assert texts["answer"][0] == "The answer is two0 because it is the best answer."
    assert texts["teacher"] == list(RATIONALES.values())
    assert all(text != own and text in RATIONALES.values() for text, own in zip(texts["other"], texts["teacher"],
                                                                              strict=True))
    assert texts == fake_texts(PREDICTIONS, QUESTIONS, RATIONALES)
    assert tuple(fake_texts(PREDICTIONS, QUESTIONS, {"q1": "Only one."})) == ("empty", "question", "answer")


def test_fakes_have_the_measures_of_a_text():
    found = pd.DataFrame(fake_measures(PREDICTIONS, QUESTIONS, {"teacher": {k: [v] for k, v in RATIONALES.items()}}))
    values = found.set_index(["fake", "measure"])["value"]
    assert values["empty", "words"] == 0 and values["answer", "names_answer"] == 1
    assert values["question", "copied"] == 1
    other = fake_texts(PREDICTIONS, QUESTIONS, RATIONALES)["other"]
    assert values["other", "rouge_l_teacher"] == pytest.approx(
        sum(rouge_l(text, [RATIONALES[key]]) for text, key in zip(other, PREDICTIONS["id"], strict=True)) / 12)
    assert ("teacher", "rouge_l_teacher") not in values and ("teacher", "words") in values
    assert ("answer", "las") in values and ("empty", "las") not in values


def test_a_measure_by_which_a_fake_is_as_good_as_students_gets_a_star():
    cell = {"dataset": "d", "teacher": "t", "prompting": "p", "student": "s", "tested_on": "d"}
    rows = [{**cell, "method": method, "seed": seed, "measure": measure, "value": value + seed / 100}
            for method, values in (("multitask", {"las": 0.3, "qbe": 0.5, "words": 5}),
                                   ("standard", {"las": 0.1, "qbe": 0.4, "words": 9}))
            for measure, value in values.items() for seed in (0, 1)]
    fakes = pd.DataFrame([{**cell, "method": method, "fake": "answer", "measure": measure, "value": value}
                          for method in ("multitask", "standard")
                          for measure, value in (("las", 0.2), ("qbe", 0.1), ("words", 50))])
    measures = pd.DataFrame(rows)
    marked = tables.fooled(measures, fakes)
    assert marked == {"las": "'answer' scores at least as high as 1 of 2 cells"}
    shown = tables.explanation_table(measures, ["las", "qbe"], fakes, marked)
    assert shown["method"].tolist() == ["multitask", "standard", "fake: answer"]
    assert shown["las *"].tolist()[2] == "0.200" and list(shown)[-2:] == ["las *", "qbe"]
    assert tables.fooled(measures, fakes.iloc[:0]) == {} and list(runs_table.read_fakes([])) == [
        *runs_table.CELL, "fake", "measure", "value"]
