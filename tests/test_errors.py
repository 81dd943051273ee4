"""Where students err, on predictions small enough to count by hand."""

import math

import pandas as pd
import pytest

from kdutils.evaluation.error_analysis import accuracy_by_question_group, by_likelihood, confusion, won_and_lost

QUESTIONS = pd.DataFrame({
    "id": ["1", "2", "3"], "question": ["a b c d e", "a b", "a b c"], "answer": ["x", "y", "z"],
    "choices": [["x", "y", "z"], ["w", "x", "y"], ["z", "x", "y"]]})


def said(*answers, seed=0, scores=None):
    right = list(QUESTIONS["answer"])
    return pd.DataFrame({"id": ["1", "2", "3"], "seed": seed, "answer": right, "predicted": answers,
                         "correct": [a == b for a, b in zip(answers, right, strict=True)],
                         "scores": scores or [[], [], []], "score_tokens": [[1, 2, 4]] * 3})


def test_confusion_counts_places_and_what_is_no_choice():
    table = confusion(said("x", "w", "moon"), QUESTIONS)
    assert list(table.columns) == ["a", "b", "c", "none"]
    assert table.loc["a"].tolist() == [1, 0, 0, 1] and table.loc["c"].tolist() == [1, 0, 0, 0]
    same = QUESTIONS.assign(choices=[["x", "y", "z"]] * 3)
    assert list(confusion(said("x", "y", "z"), same).columns) == ["x", "y", "z", "none"]
    assert confusion(said("x", "y", "z"), QUESTIONS.assign(choices=[[]] * 3)).to_numpy().sum() == 0


def test_the_likeliest_choice_by_sum_and_per_token():
    scores = [[math.log(0.5), math.log(0.25), math.log(0.25)], [-2, -3, -2.4], [-800.0, -900.0, -3000.0]]
    rows = by_likelihood(said("x", "y", "z", scores=scores), QUESTIONS).set_index("id")
    assert rows["chosen"].tolist() == ["x", "w", "z"] and rows["correct"].tolist() == [True, False, True]
    # per token: -0.69, -0.69, -0.35 -> z; -2, -1.5, -0.6 -> y; -800, -450, -750 -> x
    assert rows["chosen_per_token"].tolist() == ["z", "y", "x"]
    assert rows.at["1", "probability"] == pytest.approx(0.5) and rows.at["3", "probability"] == pytest.approx(1)
    assert by_likelihood(said("x", "y", "z"), QUESTIONS).empty, "no scores, no rows"


def test_differences_are_broken_down_by_kind():
    table = accuracy_by_question_group(said("x", "y", "q"), said("q", "y", "z"), QUESTIONS,
                               {"1": "An x it is.", "2": "It is so."}).set_index("questions with")
    assert table.at["question of at most 3 words", "difference"] == -0.5
    assert table.at["question of more than 3 words", "difference"] == 1
    assert table.at["right choice at (a)", "questions"] == 2 and table.at["right choice at (c)", "difference"] == 0
    assert table.at["rationale names the answer", "difference"] == 1 and table.at["no rationale", "difference"] == -1


def test_won_and_lost_are_the_questions_that_differ():
    rows = won_and_lost(said("x", "y", "q"), said("q", "y", "z"), QUESTIONS, 5, seed=0)
    assert rows["verdict"].tolist() == ["won", "lost"] and rows["answer"].tolist() == ["x", "z"]
    assert rows["first says"].tolist() == ["x", "q"] and rows["second says"].tolist() == ["q", "z"]
    assert won_and_lost(said("x", "y", "z"), said("x", "y", "z"), QUESTIONS, 5, seed=0).empty
