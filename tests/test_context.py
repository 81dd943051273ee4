"""A context (a passage) is read before the question: in tables, prompts, sources, attributions and classifiers."""

import json
from pathlib import Path

import pandas as pd
import pytest

from kdutils.data.questions import check_questions, question_key
from kdutils.data.readers import read_questions
from kdutils.data.tables import QUESTIONS, read_table, write_table
from kdutils.data.texts import kept_tokens, question_words
from kdutils.errors import StudyError
from kdutils.hub import read_tokenizer
from kdutils.student.collating import RowFormat, tokenize_rows
from kdutils.student.methods import format_source
from kdutils.teacher import prompting
from kdutils.teacher.word_scores import eligible_spans

STUDENT = Path(prompting.__file__).parents[1] / "mini" / "student"
ITEM = {"id": "1", "split": "train", "question": "Does it snow?", "choices": ["yes", "no"], "answer": "no",
        "human_explanations": [], "context": "It is July in {Cairo}."}


@pytest.fixture
def prompt_file(tmp_path, monkeypatch):
    def write(text):
        (tmp_path / "mine").mkdir(exist_ok=True)
        (tmp_path / "mine" / "few_shot.txt").write_text(text)

    assert prompting.qualities()  # read before the folder is another one
    monkeypatch.setattr(prompting, "FOLDER", tmp_path)
    yield write


def test_a_context_is_kept_on_one_line_and_tables_without_one_are_read(tmp_path):
    rows = [{**ITEM, "context": " It is July\n\nin Cairo. "}, {**ITEM, "id": "2", "context": ""},
            {**ITEM, "id": "3", "context": None, "question": "Why?"}]
    (tmp_path / "t.json").write_text(json.dumps(rows))
    (tmp_path / "u.json").write_text(json.dumps([{**row, "split": "test"} for row in rows]))
    frame = read_questions("table", str(tmp_path), {"test": "u.json"})
    assert frame["context"].tolist() == ["It is July in Cairo.", "", ""]
    path = write_table(frame.drop(columns=["context", "other_answers"]), tmp_path / "q.parquet", "questions")
    old = read_table(path, "questions")
    assert old["context"].tolist() == [""] * 3 and old["other_answers"].tolist() == [[]] * 3
    assert list(old.columns) == QUESTIONS.names


def test_one_question_on_two_passages_is_two_questions():
    assert question_key(ITEM) != question_key({**ITEM, "context": "It is May in Oslo."})
    frame = pd.DataFrame([ITEM, {**ITEM, "id": "2", "split": "test", "context": "It is May in Oslo."}])
    assert check_questions(frame, "t") is frame
    with pytest.raises(StudyError, match="the same question is in split 'train'"):
        check_questions(frame.assign(context="It is July."), "t")
    with pytest.raises(StudyError, match="row 0: field 'context': 7 is not a text"):
        check_questions(frame.iloc[:1].assign(context=7), "t")
    with pytest.raises(StudyError, match="row 0: field 'context': half of a character"):
        check_questions(frame.iloc[:1].assign(context=pd.Series(["\ud83d"], dtype=object)), "t")


def test_a_prompt_shows_the_context_where_its_file_says(prompt_file):
    table = pd.DataFrame([ITEM, {**ITEM, "id": "2", "context": ""}])
    prompt_file("A shot.\n\nPassage: {context}\nQ: {question} {choices} ({quality})\nThe answer is {answer}.\n")
    with_context, without = prompting.few_shot_prompts(table, "mine", 0)
    assert with_context.startswith("A shot.\n\nPassage: It is July in {Cairo}.\nQ: Does it snow? (a) yes (b) no (")
    assert without.startswith("A shot.\n\nQ: Does it snow? (a) yes (b) no (") and "Passage" not in without
    prompt_file("A shot.\n\nQ: {question} {choices} ({quality})\nThe answer is {answer}.\n")
    with_context, without = prompting.few_shot_prompts(table, "mine", 0)
    assert with_context.startswith("A shot.\n\nQ: It is July in {Cairo}.\nDoes it snow? (a) yes (b) no (")
    assert without.startswith("A shot.\n\nQ: Does it snow? (a) yes (b) no (")


@pytest.mark.parametrize(("place", "source"), [
    ("before", "[predict] Context: It is July in {Cairo}.\nQuestion: Does it snow?\nChoices: (a) yes (b) no"),
    ("after", "Context: It is July in {Cairo}.\nQuestion: Does it snow?\nChoices: (a) yes (b) no\n[predict]")])
def test_a_student_reads_the_context_first(place, source):
    assert format_source(ITEM, "predict", place=place) == source
    spans = [source[start:end] for start, end in eligible_spans(ITEM, source)]
    assert spans == ["It is July in {Cairo}.", "Does it snow?", "yes", "no"]
    assert question_words(ITEM) == "It is July in Cairo Does it snow yes no".split()


@pytest.mark.parametrize("place", ["before", "after"])
def test_a_long_context_is_cut_and_not_the_question(place):
    tokenizer = read_tokenizer(STUDENT)
    item = {**ITEM, "context": "a cow eats grass on a farm " * 40}
    text = format_source(item, "predict", place=place)
    ids = tokenizer(text)["input_ids"]
    kept = kept_tokens(tokenizer, text, len(ids), 60)
    read = tokenizer.decode([ids[i] for i in kept], skip_special_tokens=True)
    wanted = tokenizer.decode(tokenizer(text[text.index("\nQuestion"):])["input_ids"], skip_special_tokens=True)
    assert len(kept) == 60 and kept[-1] == len(ids) - 1 and read.endswith(wanted) and "cow eats" in read
    short = kept_tokens(tokenizer, text, len(ids), 8)  # not even the question fits: a tag is kept
    assert len(short) == 8 and short[-1] == len(ids) - 1
    assert "[predict]" in tokenizer.decode([ids[i] for i in short])
    follows = format_source(item, "counterfactual", "It is wool. " * 40, place)
    ids_of_all = tokenizer(follows)["input_ids"]
    some = kept_tokens(tokenizer, follows, len(ids_of_all), 60)
    said = tokenizer.decode([ids_of_all[i] for i in some], skip_special_tokens=True)
    assert len(some) == 60 and "cow" not in said, "the whole context, then the end of the rationale"
    assert all(words in said for words in ("[counterfactual]", "Question: Does it snow?", "(b) no", "It is wool"))
    entries, cuts = tokenize_rows(tokenizer, "label_only", {}, [item], {}, RowFormat(60, 20, tag=place))
    assert cuts["sources"] == 1 and entries[0][0].source == [ids[i] for i in kept]
