"""The teacher report: hand cases, and the defects that were measured on the published files."""

import os
from pathlib import Path

import pandas as pd
import pytest

from kdutils.data.mini_world import build_questions, true_rationales
from kdutils.data.tables import word_lists
from kdutils.data.texts import argues_for, names_answer
from kdutils.teacher.cleaning import clean
from kdutils.teacher.quality import (
    examples_of,
    is_copy,
    raw_table,
    revision_changes,
    shot_texts,
    text_table,
    unusable_warning,
)

DATA = Path(os.environ.get("KDUTILS_DATA") or Path(__file__).parents[2] / "shared" / "data")
CHOICES = ["cow", "red car", "car"]


def explained(*texts, stage="rationale", turn=0, answer="cow"):
    rows = []
    for number, raw in enumerate(texts):
        cleaned = clean(raw, answer)
        rows.append({"id": str(number), "stage": stage, "round": turn, "answer": answer, "text": cleaned.text,
                     "raw": raw, "changes": list(cleaned.changes), "problem": cleaned.problem, "finish_reason": "stop",
                     "prompt_tokens": 5, "completion_tokens": 9})
    return pd.DataFrame(rows)


def asked(count):
    return pd.DataFrame({"id": [str(i) for i in range(count)], "question": "Which?", "choices": [CHOICES] * count,
                         "answer": "cow"})


def test_an_answer_is_named_as_whole_words():
    assert names_answer("The CAR stops.", "car") and not names_answer("A card.", "car")
    assert names_answer("in the u.s. today", "u.s.") and not names_answer("", "car") and not names_answer("x", "")


@pytest.mark.parametrize(("text", "answer", "verdict"), [
    ("A cow moos.", "cow", True), ("A cow moos.", "car", False), ("It moos.", "cow", None),
    ("A cow is no car.", "cow", None),  # names two: shows nothing
    ("A cow moos. A car does not.", "cow", True), ("A car does not moo. A cow does.", "cow", None),
    ("The answer is car. A cow moos.", "car", True), ("The answer is car, or rather the answer is cow.", "cow", True),
    ("So the answer is 'red car'.", "red car", True), ("The answer is a red car.", "car", False),
    ("The answer is not car but cow.", "cow", True), ("The answer is not car but cow.", "car", False),
    ("The answer is not car.", "car", None), ("It is not a car.", "car", None),
    ("The answer is either cow or car.", "cow", None), ("The answer is neither cow nor car.", "cow", None),
])
def test_what_a_text_argues_for(text, answer, verdict):
    assert argues_for(text, answer, CHOICES) is verdict


@pytest.mark.parametrize(("text", "verdict"), [
    ("No, they cannot.", False), ("Yes. They can.", True), ("They know no rest.", None), ("The answer is no.", False)])
def test_yes_and_no_are_read_where_they_are_answers(text, verdict):
    assert argues_for(text, "yes", ["yes", "no"]) is verdict


def test_texts_of_the_embedded_world_are_checked_against_its_facts():
    table = build_questions(3, 1, 1).head(3).assign(id=["0", "1", "2"])
    own = true_rationales(*table.iloc[0][["question", "choices", "answer"]])[0]
    texts = explained(own, "A car is a fruit and has wheels.", "It rains.").assign(answer=list(table["answer"]))
    row = text_table(texts, table).iloc[0]
    assert row["true reason"] == pytest.approx(1 / 3)
    assert row["wholly true"] == pytest.approx(1 / 2), "of the two texts with a statement that is read"
    assert row["true statements"] == pytest.approx((1 + 1 / 2) / 2)
    assert not {"wholly true", "true statements", "true reason"} & set(text_table(texts, asked(3)))


def test_the_raw_table_counts_what_a_hand_counts():
    row = raw_table(explained("\nA cow moos.\n\nQuestion: next", "It gives milk and", "", "The cow (it moos)")).iloc[0]
    expected = {"texts": 4, "empty": 1, "starts with newline": 1 / 3, "empty first line": 1 / 3, "run-on": 1 / 3,
                "new item": 1 / 3, "truncated": 2 / 3, "at the token limit": 0, "answer named": 2 / 3,
                "answer named in first line": 1 / 3, "words": (5 + 4 + 4) / 3, "words of first paragraph": 11 / 3}
    assert {name: row[name] for name in expected} == pytest.approx(expected)


def test_the_text_table_counts_what_a_hand_counts():
    table = explained("A cow moos. It is no red car.\n\nQuestion: x", "A car.", "A car.", "\n")
    row = text_table(table, asked(4)).iloc[0]
    expected = {"texts": 4, "unusable": 1, "run-on cut": 1 / 3, "unfinished": 0, "answer named": 1 / 3,
                "answer followed": 1 / 3, "contradicted": 2 / 3, "a distractor named": 1,
                "all distractors named": 1 / 3, "words": (8 + 2 + 2) / 3, "repeated": 2 / 3,
                "prompt tokens": 20, "written tokens": 36}
    assert {name: row[name] for name in expected} == pytest.approx(expected)


def test_a_critique_argues_for_no_answer():
    row = text_table(explained("A car.", "A cow moos.", stage="critique"), asked(2)).iloc[0]
    assert row["answer followed"] is None and row["contradicted"] is None and row["answer named"] == 0.5


def test_a_list_of_words_argues_for_no_answer():
    words = explained("car", "cow").assign(raw='[["car", 0.5]]')
    row = text_table(words, asked(2)).iloc[0]
    assert row["answer followed"] is None and row["contradicted"] is None and row["answer named"] == 0.5
    shown = examples_of(words, asked(2), 2, 0)
    assert "argues for another answer" not in " ".join(shown["verdict"]) and set(shown["raw"]) == {"car", "cow"}


def test_a_text_in_brackets_is_no_list_of_words():
    plain = explained("A cow moos.", "A car.", "A cow.")
    for raw in ("[[Note]] It is a cow.", "[[1, 2]] cows", "[[", '[["cow"]]', "[[0.5, 0.5]]"):
        assert not word_lists(plain.assign(raw=[raw, "", ""])).any(), raw
        table = text_table(plain.assign(raw=[raw, "", ""]), asked(3))
        assert table["answer followed"].tolist() == text_table(plain, asked(3))["answer followed"].tolist()
    assert word_lists(plain.assign(raw=['[["cow", 0.5, 0, 3], ["car", 1, 4, 7]]', "", ""])).tolist() == [
        True, False, False]


def test_a_copy_of_a_shot_is_found_and_a_new_text_is_not():
    shots = shot_texts("mini")
    assert is_copy("A harp is an instrument and is often yellow. A guitar is an instrument.", shots)
    assert not is_copy("Cows give milk because farmers feed them well every day.", shots) and not is_copy("", shots)
    assert shot_texts("a data set without prompts") == []


def test_revision_changes_compare_the_same_questions():
    before = explained("A cow moos and", "A cow. A car.", "\n")
    after = explained("A cow moos, a car does not, a red car neither.", "A cow. A car.", "A cow.", stage="revision",
                      turn=1)
    rows = revision_changes(pd.concat([before, after]), asked(3)).set_index("measure")
    assert rows["texts"].eq(2).all()
    assert rows.loc["words", ["before", "after", "rose", "fell"]].tolist() == [4.0, 7.5, 0.5, 0.0]
    assert rows.loc["cut off or run on", ["before", "after", "fell"]].tolist() == [0.5, 0.0, 0.5]
    assert rows.at["text unchanged", "after"] == 0.5 and rows.at["stated answer changed", "after"] == 0.0


def test_examples_show_both_verdicts_with_their_reason():
    drawn = examples_of(explained("A cow.", "A car.", "It gives", "\n", "A cow moos."), asked(5), 2, seed=0)
    assert drawn["verdict"].ne("nothing found").sum() == 2 and drawn["verdict"].eq("nothing found").sum() == 2
    reasons = set(examples_of(explained("A car.", "It gives", "\n"), asked(3), 9, 0)["verdict"])
    assert reasons == {"argues for another answer", "unfinished_kept", "empty"}


# As measured before this project on the published tables, whole (no question left out): percent.
PUBLISHED = {
    ("cqa", "few_shot"): {"truncated": 10.1, "run-on": 0, "empty first line": 0, "words": 40.2},
    ("cqa", "critique_revision"): {"truncated": 0.5, "run-on": 1.8, "words": 98.3, "words of first paragraph": 97.0},
    ("esnli", "few_shot"): {"empty first line": 100, "run-on": 4.6, "new item": 4.6, "answer named": 54.8,
                            "words": 54.6, "answer named in first line": 0, "words of first paragraph": 50.2},
    ("esnli", "critique_revision"): {"run-on": 38.0, "new item": 37.9, "truncated": 13.1, "words": 117.7,
                                     "answer named": 86.8, "answer named in first line": 74.4},
    ("strategyqa", "few_shot"): {"empty first line": 100, "run-on": 11.5, "new item": 11.4, "truncated": 0.3,
                                 "words": 63.1, "words of first paragraph": 53.7},
    ("strategyqa", "critique_revision"): {"run-on": 41.2, "new item": 40.8, "truncated": 21.3, "words": 133.3},
}


@pytest.mark.skipif(not (DATA / "teacher_llama").is_dir(), reason="no published files: set KDUTILS_DATA")
@pytest.mark.parametrize(("dataset", "prompting"), PUBLISHED)
def test_the_report_shows_the_known_defects_of_the_published_files(dataset, prompting, real_questions):
    from kdutils.teacher.published.explanations import published_explanations

    questions = real_questions(dataset)
    train = questions[questions["split"] == "train" if dataset == "esnli" else questions["split"] != "test"]
    row = raw_table(published_explanations(train, dataset, "llama", prompting, str(DATA / "teacher_llama"))).iloc[0]
    for name, value in PUBLISHED[dataset, prompting].items():
        found = row[name] if name.startswith("words") else 100 * row[name]
        # A printed digit, and one question that is left out; the answer was looked for inside words, too.
        assert found == pytest.approx(value, abs=0.2 if "named" in name else 0.11), name


@pytest.mark.parametrize(("lost", "warning"), [
    (78, "only 42 of 120 explanations can be used (only the answer: 75, empty: 3); students learn from these alone"),
    (24, ""), (0, "")])
def test_many_unusable_texts_are_worth_a_warning(lost, warning):
    problems = {"only the answer": lost - 3, "empty": 3}
    assert unusable_warning({"texts": 120, "unusable": lost, "problems": problems}) == warning
    assert unusable_warning({"texts": 10, "unusable": 5, "problems": {"why": 5}, "raw": [{"stage": "choice"}]}) == (
        "only 5 of 10 questions have probabilities (why: 5); of the others, students learn the right answers")
