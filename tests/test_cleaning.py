"""Cleaning rules, one by one, on made-up texts; then on the texts that were published."""

import os
from pathlib import Path

import pytest

from kdutils.data.records import read_records
from kdutils.teacher.cleaning import Cleaned, clean, count_changes

RULES = [
    ("A dog is an animal.", "A dog is an animal.", []),
    ("\nA dog is an animal. ", "A dog is an animal.", ["stripped"]),
    ("\n\n  A dog is.\r\n\r\nMore.", "A dog is.", ["stripped", "cut_at_blank_line"]),
    ("One.\n \t\nTwo.", "One.", ["cut_at_blank_line"]),
    ("One line.\nNext line.", "One line. Next line.", ["joined_lines"]),
    ("A dog is.\nQuestion: Is a cat?", "A dog is.", ["cut_at_marker"]),
    ("A dog is. Question 2: Is a cat?", "A dog is.", ["cut_at_marker"]),
    ("He said \"no.\" Premise: A cat.", "He said \"no.\"", ["cut_at_marker"]),
    ("Really?! Q: Is a cat?", "Really?!", ["cut_at_marker"]),
    ("It is.\nCritiqueRequest: Say why.", "It is.", ["cut_at_marker"]),
    ("It is.\nCritique Request: Say why.", "It is.", ["cut_at_marker"]),
    ("It is.\n  RevisionRequest: Say why.", "It is.", ["cut_at_marker"]),
    ("It is. Briefly explain why.", "It is.", ["cut_at_marker"]),
    ("It is.\nAssistant (clear and helpful): It is.", "It is.", ["cut_at_marker"]),
    # words of the markers inside a sentence stay
    ("The options are (b) Question: a thing to ask.", "The options are (b) Question: a thing to ask.", []),
    ("It follows from the premise: dogs run. A question: why?", "It follows from the premise: dogs run. "
     "A question: why?", []),
    ("The text should have Briefly explained it.", "The text should have Briefly explained it.", []),
    ("It is true. Revision of the text is due.", "It is true. Revision of the text is due.", []),
    # sentences
    ("He had 20 and gave 8 away. The result: 12.", "He had 20 and gave 8 away. The result: 12.", []),
    ("He gave 8. What is left? 12.", "He gave 8. What is left? 12.", []), ("Add: 12.", "Add: 12.", []),
    ("Steps: 1. Add. 2.", "Steps: 1. Add.", ["unfinished_removed"]), ("Steps: 1.", "Steps: 1.", ["unfinished_kept"]),
    ("It is so. And then the", "It is so.", ["unfinished_removed"]),
    ("It is so and then the", "It is so and then the", ["unfinished_kept"]),
    ("It is so. Consider:", "It is so.", ["unfinished_removed"]),
    ("It weighs 3.5 grams and", "It weighs 3.5 grams and", ["unfinished_kept"]),
    ("It is so. It weighs 3.5 grams and", "It is so.", ["unfinished_removed"]),
    ('He said "It is. So it was" and left. Then he', 'He said "It is. So it was" and left.', ["unfinished_removed"]),
    ("A dog (see Fig. 3. It barks) is here. The", "A dog (see Fig. 3. It barks) is here.", ["unfinished_removed"]),
    ("A dog is here (it barks. It", "A dog is here (it barks. It", ["unfinished_kept"]),
    ("It is so. Many animals, e.g. Dogs, and", "It is so.", ["unfinished_removed"]),
    ("It is so. The U.S. Army and", "It is so.", ["unfinished_removed"]),
    ("It is so. In No. 5 there", "It is so.", ["unfinished_removed"]),
    ("So the answer is no. Therefore the", "So the answer is no.", ["unfinished_removed"]),
    ("He cried \"Stop!\" and then", "He cried \"Stop!\" and then", ["unfinished_kept"]),
    ("It is so. There are two. 1. Dogs. 2.", "It is so. There are two. 1. Dogs.", ["unfinished_removed"]),
    ("It is so. See the word 'end'", "It is so.", ["unfinished_removed"]),
    ("He asked \"why?\"", "He asked \"why?\"", []),
    ("(It is so.)", "(It is so.)", []),
    ("Dogs, cats, etc.", "Dogs, cats, etc.", []),
    ("It was 2016.", "It was 2016.", []),
]


@pytest.mark.parametrize(("raw", "text", "changes"), RULES)
def test_rules(raw, text, changes):
    assert clean(raw) == Cleaned(text, changes, "")


@pytest.mark.parametrize(("raw", "text", "changes", "problem"), [
    ("The answer is dog. It barks.", "It barks.", ["answer_repeated"], ""),
    ("So the answer is \"Dog\". It barks.", "It barks.", ["answer_repeated"], ""),
    ("The correct answer is dog.", None, [], "only the answer"),
    ("The answer is dog because it barks.", "The answer is dog because it barks.", [], ""),
    ("The answer is dogs. They bark.", "The answer is dogs. They bark.", [], ""),
    ("The answer is cat. It barks.", "The answer is cat. It barks.", [], ""),
])
def test_the_answer_alone_is_no_explanation(raw, text, changes, problem):
    assert clean(raw, answer="dog") == Cleaned(text, changes, problem)


def test_an_answer_with_a_full_stop_inside():
    assert clean("The answer is St. Louis. It is a city.", answer="st. louis.").text == "It is a city."


@pytest.mark.parametrize("raw", ["", None, " \n ", "\n\n.", "Question: What is a cat?", "Question:"])
def test_nothing_left_is_a_problem_and_not_an_empty_text(raw):
    found = clean(raw)
    assert (found.text, found.problem) == (None, "empty")


@pytest.mark.parametrize("raw", [raw for raw, *_ in RULES])
def test_cleaning_twice_changes_nothing_more(raw):
    once = clean(raw)
    again = clean(once.text)
    assert again.text == once.text and set(again.changes) <= {"unfinished_kept"}


def test_counts():
    texts = ["\nIt is.", "It is", "\nIt is. And", "", "The answer is a."]
    assert count_changes([clean(text, "a") for text in texts]) == {
        "problem: empty": 1, "problem: only the answer": 1, "stripped": 2, "texts": 5, "unfinished_kept": 1,
        "unfinished_removed": 1}


# The published texts

POS, REVISION, COUNTERFACTUAL = ("few_shot_positive_rationale", "few_shot_revision",
                                 "counterfactual_prompt_answer_{}_rationale")


@pytest.fixture(scope="module")
def tables():
    root = os.environ.get("KDUTILS_DATA") or Path(__file__).parents[2] / "shared" / "data"
    folder = Path(root) / "teacher_llama"
    if not folder.is_dir():
        pytest.skip("no published explanations: set KDUTILS_DATA to the folder that holds teacher_llama")
    return {name: read_records(folder / f"{name}-llama-train.parquet") for name in ("cqa", "esnli", "strategyqa")}


@pytest.mark.parametrize(("name", "column", "empty"), [
    ("cqa", POS, 0), ("cqa", REVISION, 5), ("esnli", POS, 0), ("esnli", REVISION, 0), ("strategyqa", POS, 0),
    ("strategyqa", REVISION, 0), ("esnli", COUNTERFACTUAL.format(1), 0), ("strategyqa", COUNTERFACTUAL.format(2), 0),
])
def test_published_texts_come_out_whole(tables, name, column, empty):
    cleaned = [clean(row[column]) for row in tables[name]]
    assert [item.problem for item in cleaned if item.text is None] == ["empty"] * empty
    texts = [item.text for item in cleaned if item.text is not None]
    assert not any("\n" in text or text != text.strip() for text in texts)
    unfinished = sum(text.rstrip("\"'”’)]")[-1] not in ".!?" for text in texts)
    assert unfinished == count_changes(cleaned)["unfinished_kept"] <= 0.001 * len(texts)


def test_counterfactuals_that_are_another_question_are_found(tables):
    """The teacher wrote "Question: ..." and no explanation: told apart from texts that it left empty."""
    column = COUNTERFACTUAL.format(5)
    raw = [row[column] for row in tables["cqa"]]
    dropped = [text for text in raw if clean(text).text is None]
    assert len(dropped) == sum(not text.strip() or text.strip().startswith("Question:") for text in raw) == 151
