"""Where students err, on predictions small enough to count by hand."""

import math

import pandas as pd
import pytest
from scipy.stats import t

from kdutils.evaluation.error_analysis import (
    accuracy_by_question_group,
    by_likelihood,
    confusion,
    question_type,
    rationale_effects,
    rationale_flags,
    won_and_lost,
)

QUESTIONS = pd.DataFrame({
    "id": ["1", "2", "3"], "question": ["a b c d e", "a b", "a b c"], "answer": ["x", "y", "z"],
    "choices": [["x", "y", "z"], ["w", "x", "y"], ["z", "x", "y"]]})


def said(*answers, seed=0, scores=None):
    right = list(QUESTIONS["answer"])
    return pd.DataFrame({"id": ["1", "2", "3"], "seed": seed, "answer": right, "predicted": answers,
                         "correct": [a == b for a, b in zip(answers, right, strict=True)],
                         "scores": scores or [[], [], []], "score_tokens": [[1, 2, 4]] * 3})


def explained(texts, changes=()):
    """Return explanations of {question id: text} of the right answers."""
    answers = QUESTIONS.set_index("id")["answer"]
    return pd.DataFrame([{"id": key, "stage": "rationale", "round": 0, "sample": 0, "answer": answers[key],
                          "text": text, "changes": list(changes)} for key, text in texts.items()])


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
    flags = rationale_flags(explained({"1": "An x it is.", "2": "It is so."}), QUESTIONS)
    table = accuracy_by_question_group(said("x", "y", "q"), said("q", "y", "z"), QUESTIONS,
                                       flags).set_index("questions with")
    assert table.at["question of at most 3 words", "difference"] == -0.5
    assert table.at["question of more than 3 words", "difference"] == 1
    assert table.at["right choice at (a)", "questions"] == 2 and table.at["right choice at (c)", "difference"] == 0
    assert table.at["rationale names the answer", "difference"] == 1 and table.at["no rationale", "difference"] == -1


@pytest.mark.parametrize(("question", "kind"), [
    ("Where would you find a seat?", "where"), ("If it rains, what gets wet?", "what"), ("Is water wet?", "yes or no"),
    ("WHO was it?", "who"), ("The whale is a fish.", "other"), ("A man needs somewhat more,", "other"), ("", "other"),
    ("How and why does it rain?", "how"), ("何ですか?", "yes or no")])
def test_the_type_of_a_question_is_its_first_question_word(question, kind):
    assert question_type(question) == kind


def test_what_can_be_seen_of_a_rationale():
    table = explained({"1": "An x it is.", "2": "So the answer is w."}, changes=["cut_at_blank_line"])
    flags = rationale_flags(table, QUESTIONS)
    assert flags.index.tolist() == ["1", "2"] and flags["cut"].all() and flags["words"].tolist() == [4, 5]
    assert flags["names_answer"].tolist() == [True, False] and flags["argues_otherwise"].tolist() == [False, True]
    assert not flags["teacher_errs"].any()
    revised = pd.concat([table, table.assign(stage="revision", round=1, text=["No word.", None], changes=[[], []])])
    assert rationale_flags(revised, QUESTIONS)["words"].to_dict() == {"1": 2}, "what students learn from, and no more"
    assert rationale_flags(table.assign(answer=["q", "y"]), QUESTIONS)["teacher_errs"].tolist() == [True, False]
    assert rationale_flags(table.head(0), QUESTIONS).empty


def test_the_effect_of_a_rationale_is_a_difference_of_mean_gains_with_welchs_test():
    keys = [str(number) for number in range(12)]
    right, other = [1, 1, 0, 1, 1, 0, 0, 0, 1, 0, 0, 0], [0, 0, 0, 1, 0, 0, 1, 0, 1, 1, 0, 0]
    first, second = (pd.DataFrame({"id": keys, "seed": 0, "correct": flags}) for flags in (right, other))
    flags = pd.DataFrame({"names_answer": [True] * 6 + [False] * 6, "argues_otherwise": False, "cut": False,
                          "teacher_errs": False, "words": 7}, index=keys)
    row = rationale_effects(first, second, flags).set_index("rationale").loc["rationale names the answer"]
    having, lacking = [1, 1, 0, 0, 1, 0], [0 - 1, 0, 0, -1, 0, 0]  # by hand: gains with and without
    effect = sum(having) / 6 - sum(lacking) / 6
    variances = [sum((x - sum(xs) / 6) ** 2 for x in xs) / 5 for xs in (having, lacking)]
    error = math.sqrt(sum(variances) / 6)
    freedom = (sum(variances) / 6) ** 2 / sum((one / 6) ** 2 / 5 for one in variances)
    assert row["effect"] == pytest.approx(effect) and (row["with"], row["without"]) == (6, 6)
    assert row["p"] == pytest.approx(2 * t.sf(effect / error, freedom))
    assert row["high"] - row["low"] == pytest.approx(2 * t.ppf(0.975, freedom) * error)
    empty = rationale_effects(first, second, flags).set_index("rationale").loc["rationale was cut off or ran on"]
    assert empty["with"] == 0 and math.isnan(empty["p"])
    assert rationale_effects(first, second, flags.head(0))["p"].isna().all()


def test_won_and_lost_are_the_questions_that_differ():
    rows = won_and_lost(said("x", "y", "q"), said("q", "y", "z"), QUESTIONS, 5, seed=0)
    assert rows["verdict"].tolist() == ["won", "lost"] and rows["answer"].tolist() == ["x", "z"]
    assert rows["first says"].tolist() == ["x", "q"] and rows["second says"].tolist() == ["q", "z"]
    assert won_and_lost(said("x", "y", "z"), said("x", "y", "z"), QUESTIONS, 5, seed=0).empty
