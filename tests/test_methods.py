"""What a question becomes for a method, and how an answer is read back."""

import pytest

from kdutils.errors import StudyError
from kdutils.student.methods import is_right, match_choice, normalise, parse_answer, rows_of, task_weights

ITEM = {"id": "1", "question": "What is wet?", "choices": ["the sun", "water"], "answer": "water"}


def test_rows_of_the_methods():
    source = "[predict] Question: What is wet?\nChoices: (a) the sun (b) water"
    assert [(r.source, r.target) for r in rows_of("standard", {}, ITEM, "It flows.")] == \
        [(source, "The answer is water. Explanation: It flows.")]
    assert [(r.task, r.source, r.target) for r in rows_of("multitask", {}, ITEM, "It flows.")] == [
        ("predict", source, "The answer is water."),
        ("explain", source.replace("predict", "explain"), "It flows.")]
    assert len(rows_of("label_only", {}, ITEM, "It flows.")) == 1


def test_a_question_without_explanation_keeps_its_answer():
    assert [row.task for row in rows_of("multitask", {}, ITEM, None)] == ["predict"]
    assert rows_of("standard", {}, ITEM, None)[0].target == "The answer is water."


def test_weights_and_bad_parameters():
    assert task_weights("multitask", {"alpha": 0.25}) == {"predict": 0.25, "explain": 0.75}
    with pytest.raises(StudyError, match="alpha: 1.5 is not between 0 and 1"):
        task_weights("multitask", {"alpha": 1.5})
    with pytest.raises(StudyError, match="unknown 'magic'; known: label_only, standard, multitask"):
        task_weights("magic", {})


@pytest.mark.parametrize(("text", "choices", "answer", "explanation"), [
    ("The answer is water. Explanation: It flows. The answer is x.", ["sun", "water"], "water",
     "It flows. The answer is x."),
    ("the answer is water . explanation : it flows .", ["sun", "Water"], "Water", "it flows ."),  # uncased decoding
    ("The answer is u.s. Explanation: no.", ["u.s.", "uk"], "u.s.", "no."),
    ("The answer is u.s..", ["u.s.", "uk"], "u.s.", ""),
    ("The answer is (b).", ["sun", "water"], "water", ""),
    ("The answer is the  Water!", ["sun", "water"], "water", ""),
    ("The answer is fire.", ["sun", "water"], "fire", ""),
    ("The answer is 42.", [], "42", ""),
    ("water", ["sun", "water"], "", ""),
    ("", ["sun", "water"], "", ""),
    ("The answer is ", ["sun", "water"], "", ""),
])
def test_answers_are_read_back(text, choices, answer, explanation):
    assert parse_answer(text, choices) == (answer, explanation)


def test_an_answer_inside_a_longer_word_is_not_right():
    assert not is_right("cardboard", "card", ["card", "board"])  # a substring match would count it
    assert not is_right("", "card", ["card", "board"])
    assert is_right("Card.", "card", ["card", "board"])
    assert is_right("The 12 apples", "12 apples")


def test_choices_that_only_differ_in_case_or_article_are_told_apart():
    assert match_choice("the bank", ["bank", "the bank"]) == "the bank"
    assert match_choice("The  BANK", ["bank", "the bank"]) == "The  BANK"  # either one: no guess
    assert normalise("The  U.S.!") == "u s"
    assert normalise("A") == "a"  # an answer that is an article is not emptied
