"""Accuracy, intervals and comparison, against hand calculations and known properties."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from kdutils.comparison.runs_table import read_evaluations, read_inputs
from kdutils.comparison.tables import side_by_side
from kdutils.errors import StudyError
from kdutils.evaluation.accuracy import accuracy_of_seeds, cell_accuracy, chance_level, correct_matrix
from kdutils.stats.accuracy import bootstrap_difference, bootstrap_mean, mean_interval


def predictions(*seeds, **more):
    """Return predictions with one list of right (1) and wrong (0) answers per seed."""
    rows = [{"id": f"q{i}", "split": "test", "seed": seed, "answer": "a", "generated": "The answer is a.",
             "predicted": "a" if right else "b", "correct": bool(right), "exact": bool(right), "explanation": ""}
            for seed, answers in enumerate(seeds) for i, right in enumerate(answers)]
    return pd.DataFrame(rows).assign(**more)


def test_t_interval_by_hand():
    mean, low, high = mean_interval([0.60, 0.64, 0.68])
    half = 4.302652729911275 * 0.04 / np.sqrt(3)  # t(0.975, 2 degrees of freedom), sd 0.04
    assert (mean, low, high) == pytest.approx((0.64, 0.64 - half, 0.64 + half))
    assert np.isnan(mean_interval([0.5])[1:]).all()


def test_bootstrap_interval_agrees_with_the_normal_one_for_many_questions():
    correct = np.zeros((1, 2000))
    correct[0, :800] = 1
    mean, low, high = bootstrap_mean(correct)
    half = 1.96 * np.sqrt(0.4 * 0.6 / 2000)
    assert mean == 0.4 and (low, high) == pytest.approx((0.4 - half, 0.4 + half), abs=0.003)


def test_bootstrap_interval_widens_with_seeds_that_disagree():
    rng = np.random.default_rng(0)
    agree = (rng.random((4, 300)) < 0.5).astype(float)
    disagree = (rng.random((4, 300)) < np.array([[0.2], [0.4], [0.6], [0.8]])).astype(float)
    assert np.subtract(*bootstrap_mean(disagree)[1:]) < 2 * np.subtract(*bootstrap_mean(agree)[1:])  # both negative


def test_nothing_right_at_all_has_the_exact_interval():
    assert bootstrap_mean(np.zeros((3, 32))) == pytest.approx((0.0, 0.0, 1 - 0.025 ** (1 / 32)))
    assert bootstrap_mean(np.ones((1, 10))) == pytest.approx((1.0, 0.025 ** (1 / 10), 1.0))


def test_paired_difference_is_sharper_than_an_unpaired_one_and_has_the_sign_of_first_minus_second():
    rng = np.random.default_rng(1)
    hard = rng.random(400)
    first, second = (hard < 0.6).astype(float)[None], (hard < 0.5).astype(float)[None]
    difference, low, high = bootstrap_difference(first, second)
    assert difference == pytest.approx(first.mean() - second.mean()) and 0 < low < difference < high
    unpaired = bootstrap_difference(first, rng.permutation(second[0])[None])
    assert high - low < unpaired[2] - unpaired[1]
    assert bootstrap_difference(first, first)[0] == 0
    with pytest.raises(ValueError, match="not the same questions: 400 and 399"):
        bootstrap_difference(first, second[:, 1:])


def test_bootstrap_interval_covers_the_truth_about_as_often_as_it_says():
    rng, covered = np.random.default_rng(2), 0
    for _ in range(120):
        _, low, high = bootstrap_mean((rng.random((1, 80)) < 0.3).astype(float), resamples=300)
        covered += low <= 0.3 <= high
    assert scipy_stats.binomtest(covered, 120, 0.94).pvalue > 0.001


def test_chance_is_at_least_that_of_the_answer_that_is_right_most_often():
    labels = pd.DataFrame({"choices": [["no", "yes"]] * 5, "answer": ["yes", "yes", "yes", "no", "yes"]})
    assert chance_level(labels) == 0.8 and chance_level(labels.iloc[2:4]) == 0.5
    assert chance_level(labels.assign(choices=[["yes", "no"], *[["no", "yes"]] * 4])) == 0.8, "in any order"
    assert chance_level(labels.assign(choices=[["no", "yes", "so"], *[["no", "yes"]] * 4])) < 0.5, "choices differ"
    assert chance_level(labels.assign(choices=[[]] * 5)) == 0, "free text"


def test_chance_counts_the_choices_of_each_question():
    table = pd.DataFrame({"choices": [["a", "b"], ["a", "b", "c", "d"], []]})
    assert chance_level(table) == pytest.approx((0.5 + 0.25 + 0) / 3)


def test_accuracy_per_seed_and_cell():
    table = predictions([1, 1, 0, 0], [1, 0, 0, 0])
    assert correct_matrix(table).tolist() == [[1, 1, 0, 0], [1, 0, 0, 0]]
    questions = pd.DataFrame({"id": [f"q{i}" for i in range(5)], "choices": [["a", "b"]] * 3 + [["a", "c"], []]})
    per_seed = accuracy_of_seeds(table, questions)
    assert per_seed[0] == {"accuracy": 0.5, "exact": 0.5, "unread": 0.0, "no_choice": 0.25}
    assert per_seed[1]["accuracy"] == 0.25
    found = cell_accuracy(table, questions)
    assert found["mean"] == 0.375 and found["chance"] == 0.5 and found["n_questions"] == 4 and found["n_seeds"] == 2


def test_a_seed_that_lacks_a_question_is_named():
    table = predictions([1, 1], [1, 0]).drop(index=3)
    with pytest.raises(StudyError, match="question 'q1' was not answered with every seed"):
        correct_matrix(table)


def test_the_shipped_example_can_be_compared():
    folders = ["kdutils/mini/example/evaluations"]
    runs, table = read_evaluations(folders, ["kdutils/mini/example/students"])
    assert len(runs) == 1 and len(table) == 32 and set(table["method"]) == {"multitask"}
    side = side_by_side(read_inputs(folders), {}, table, 2)
    assert len(side) == 2 and side["who"].str.startswith("-, multitask").all()
