"""Metrics beside ratings: one that raters go by is found, one that only tells methods apart is not taken for it."""

import numpy as np
import pandas as pd
import pytest

from kdutils.data.tables import EXPLANATIONS
from kdutils.human_study.metric_validity import metric_validity, text_measures


def ratings(count=200, seed=0):
    rng = np.random.default_rng(seed)
    method = np.where(np.arange(count) % 2, "a", "b")
    words = rng.integers(5, 40, count)
    return pd.DataFrame({
        "rater": [f"r{i % 20}" for i in range(count)], "text": [f"t{i}" for i in range(count)], "method": method,
        "words": words,
        "copied": (method == "a") + rng.normal(0, 0.01, count), "characters": 7,
        "quality": words / 10 + 2 * (method == "a") + rng.normal(0, 0.2, count)})


def test_a_measure_that_raters_go_by_is_found_within_methods():
    table = metric_validity(ratings(), "quality").set_index(["measure", "scope"])
    assert table.loc[("words", "within methods"), "correlation"] > 0.9
    assert table.loc[("words", "within methods"), "low"] > 0.8


def test_a_measure_that_only_tells_methods_apart_has_nothing_within_them():
    table = metric_validity(ratings(), "quality").set_index(["measure", "scope"])
    assert table.loc[("copied", "all"), "correlation"] > 0.3
    row = table.loc[("copied", "within methods")]
    assert row["low"] < 0 < row["high"]
    assert "characters" not in table.index.get_level_values(0), "it never varies"


def test_a_measure_of_a_few_texts_that_many_raters_read_is_no_finding():
    """Raters share the value of a text: with random values, intervals over raters alone exclude 0 far too often."""
    generator, found = np.random.default_rng(0), 0
    for _ in range(20):
        quality, words = generator.normal(size=(2, 12))
        table = pd.DataFrame([{"rater": f"r{rater}", "text": f"t{text}", "method": "a", "words": words[text],
                               "quality": quality[text] + generator.normal(0, 0.5)}
                              for rater in range(8) for text in range(12)])
        row = metric_validity(table, "quality").iloc[0]
        found += row["low"] > 0 or row["high"] < 0
    assert found <= 5  # of 20 at the level of 5 %, with the optimism of a bootstrap of 12 texts


def test_texts_get_their_measures_and_the_teacher_is_not_its_own_reference(tmp_path):
    texts = pd.DataFrame({
        "text": ["t1", "t2"], "question": ["q", "q"], "method": ["teacher", "multitask"], "asked": "Which?",
        "choices": [["x", "y"]] * 2, "answer": ["x", "y"], "gold": "x", "explanation": ["It is x, not y.", "It is x."],
        "dataset": "d", "student_seed": None, "correct": [True, False]})
    texts.to_parquet(tmp_path / "texts.parquet")
    rated = pd.DataFrame({"rater": "r", "text": ["t1", "t2"], "method": ["teacher", "multitask"], "quality": [4, 3]})
    known = EXPLANATIONS.empty_table().to_pandas()
    known.loc[0, ["id", "stage", "round", "text"]] = ["q", "rationale", 0, "It is x."]
    table = text_measures(tmp_path / "texts.parquet", rated, known).set_index("text")
    assert table["words"].tolist() == [5, 3] and table["distractors"].tolist() == [1, 1]
    assert np.isnan(table.at["t1", "rouge_l_teacher"]) and table.at["t2", "rouge_l_teacher"] == pytest.approx(1)
    assert text_measures(None, rated, known) is rated
