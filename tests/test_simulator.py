"""A language model as reader: what it is shown, that it is cross-fitted, and that it learns to read."""

import pytest
from test_simulating import CHOICES, student

from kdutils.errors import StudyError
from kdutils.evaluation.simulatability import FOLDS, measure_simulatability
from kdutils.student.lm_reader import FORMS, form_of, trained_reader

TINY = {"model": "kdutils/mini/student", "random_weights": True, "config": {"d_model": 48, "d_kv": 12, "d_ff": 96},
        "epochs": 12.0, "questions_per_step": 16, "learning_rate": 0.005, "dev_evaluations": 1}


def records(count, seed=0):
    """Return the records that measure_simulatability passes on, of a student that answers at random and says it."""
    seen = []

    def keep(taught, asked, seed):
        seen.extend(asked)
        return {form: [0] * len(asked) for form in FORMS}

    measure_simulatability(*student(lambda answer, draw: f"It is {answer}.", count, seed), simulator=keep)
    return seen


def test_a_reader_is_shown_its_part_alone():
    one = records(10)[0]
    texts = {form: form_of(one, form)["question"] for form in FORMS}
    assert texts == {"question": "Which colour?", "explanation": f"Explanation: It is {one['answer']}.",
                     "both": f"Which colour?\nExplanation: It is {one['answer']}.",
                     "masked": "Which colour?\nExplanation: It is ___."}
    assert all(form_of(one, form)["answer"] == one["answer"] for form in FORMS)
    assert len({form_of(one, form)["id"] for form in FORMS}) == 4


def test_every_prediction_is_foreseen_once_by_a_reader_that_has_not_seen_it():
    calls = []

    def oracle(taught, asked, seed):
        calls.append((taught, asked, seed))
        right = [one["choices"].index(one["answer"]) for one in asked]
        return {"question": [0] * len(asked), "explanation": right, "both": right, "masked": [0] * len(asked)}

    predictions, questions = student(lambda answer, draw: f"It is {answer}.", 53)
    table, marks = measure_simulatability(predictions, questions, simulator=oracle, seed=4)
    assert len(calls) == FOLDS and [seed for *_, seed in calls] == [4, 5, 6, 7, 8]
    for taught, asked, _ in calls:
        assert {one["id"] for one in taught} | {one["id"] for one in asked} == set(predictions["id"])
        assert len(taught) + len(asked) == 53
    assert sorted(one["id"] for _, asked, _ in calls for one in asked) == sorted(predictions["id"])
    red = (predictions["predicted"] == "red").to_numpy()
    assert (marks["question"].to_numpy() == red).all() and marks["both"].all()
    row = table.iloc[0]
    assert row["las"] == pytest.approx(1 - red.mean()) and row["groups"] == 1 and row["qbe"] == 0


def test_a_reader_taught_on_explanations_that_name_the_answer_reads_them():
    known = records(150)
    taught, asked = known[:110], known[110:]
    found = trained_reader(TINY)(taught, asked, 0)
    right = {form: sum(one["choices"][place] == one["answer"] for one, place in zip(asked, found[form], strict=True))
             / len(asked) for form in FORMS}
    assert right["explanation"] > 0.9 and right["both"] > 0.9, right
    assert right["question"] < 0.5 and right["masked"] < 0.5, "one colour in four, and nothing to tell which"
    assert set(map(len, found.values())) == {40} and len(CHOICES) == 4


@pytest.mark.parametrize(("settings", "says"), [
    ({"model": "x", "colour": 1}, "simulator.colour: unknown; known are model, tokenizer"),
    ({"epochs": 2.0}, "simulator.model: empty; give a folder or Hub id"),
])
def test_a_reader_that_cannot_be_made_is_refused(settings, says):
    with pytest.raises(StudyError, match=says):
        trained_reader(settings)
