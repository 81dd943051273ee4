"""BoolQ, MNLI, SQuAD, OpenBookQA, QASC, ARC and ECQA: their published layouts, the Hub's, and their metrics."""

import json
import re

import pandas as pd
import pytest
from datasets import Dataset
from fuzzing import rounds

from kdutils.data.answers import answered_right, exact_match, overlap_f1, short_answer_words
from kdutils.data.datasets import NLI_LABELS, READERS
from kdutils.data.readers import question_files, read_questions
from kdutils.data.tables import read_table, write_table
from kdutils.errors import StudyError
from kdutils.evaluation.accuracy import accuracy_of_seeds
from kdutils.hub import read_tokenizer
from kdutils.student.collating import gap_lines, vocabulary_gaps
from kdutils.teacher.published.explanations import published_explanations

STEM, TEXTS = "Which of these floats?", ["a cork", "a key", "a coin", "a brick"]
LETTERED = [{"text": text, "label": label} for text, label in zip(TEXTS, "ABCD", strict=True)]
COLUMNS = {"text": TEXTS, "label": list("ABCD")}
SCIENCE = {"question": STEM, "choices": TEXTS, "answer": "a cork", "context": "", "other_answers": []}
BOOLQ = {"question": "Does cork float?", "choices": ["yes", "no"], "answer": "yes", "other_answers": []}
MNLI = {"id": "31193n", "choices": ["entailment", "neutral", "contradiction"], "answer": "neutral",
        "question": "Premise: It floats. Hypothesis: It is cork. What is the relationship?", "human_explanations": []}
ECQA = {"q_no": "ab12", "q_concept": "float", "q_text": STEM, **{f"q_op{i + 1}": text for i, text in enumerate(TEXTS)},
        "q_op5": "a spoon", "q_ans": "a cork", "taskA_pos": "cork is light\nCork holds air.",
        "taskA_neg": "A key is heavy.\n\na coin sinks", "taskB": "Cork is light. Keys and coins sink."}
SQUAD = {"id": "56be", "question": "Who floats?", "context": "Ann, the swimmer, floats.", "choices": [],
         "answer": "Ann", "other_answers": ["Ann, the swimmer"], "human_explanations": []}
SPANS = ["Ann", "Ann", "Ann, the swimmer"]
ASKED = {"id": "56be", "question": "Who floats?", "answers": [{"text": text, "answer_start": 0} for text in SPANS]}
ARTICLES = {"version": "1.1", "data": [{"title": "Swimming", "paragraphs": [
    {"context": "Ann, the swimmer,\n floats.", "qas": [ASKED]}]}]}
LAYOUTS = [  # (reader, a row as published or on the Hub, what becomes of it)
    ("openbookqa", {"id": "7-1", "question": {"stem": STEM, "choices": LETTERED}, "answerKey": "A"},
     {**SCIENCE, "id": "7-1", "human_explanations": []}),
    ("openbookqa", {"id": "7-1", "question": {"stem": STEM, "choices": LETTERED}, "answerKey": "A", "clarity": "2.0",
                    "fact1": "cork is light", "humanScore": "1.00", "turkIdAnonymized": "b4"},
     {**SCIENCE, "id": "7-1", "human_explanations": ["Cork is light."]}),
    ("openbookqa", {"id": "7-1", "question_stem": STEM, "choices": COLUMNS, "answerKey": "A", "fact1": "cork is light"},
     {**SCIENCE, "id": "7-1", "human_explanations": ["Cork is light."]}),
    ("openbookqa", {"instruction": f"Please choose the correct answer to the question: {STEM}\n\nAnswer1: a cork "
                    "Answer2: a key Answer3: a coin Answer4: a brick\n\nAnswer format: answer1/answer2/answer3/answer4",
                    "input": "", "output": "the correct answer is answer1", "answer": "answer1"},
     {**SCIENCE, "human_explanations": []}),
    ("qasc", {"id": "3E", "question": {"stem": STEM, "choices": LETTERED}, "answerKey": "A",
              "fact1": "Light things float.", "fact2": "cork is light", "combinedfact": "Cork floats."},
     {**SCIENCE, "id": "3E", "human_explanations": ["Light things float. Cork is light.", "Cork floats."]}),
    ("qasc", {"id": "3E", "question": STEM, "choices": COLUMNS, "answerKey": "A", "fact1": "Light things float.",
              "fact2": "cork is light", "combinedfact": "", "formatted_question": "Which …"},
     {**SCIENCE, "id": "3E", "human_explanations": ["Light things float. Cork is light."]}),
    ("arc", {"id": "Mercury_7", "question": {"stem": STEM, "choices": LETTERED}, "answerKey": "A"},
     {**SCIENCE, "id": "Mercury_7", "human_explanations": []}),
    ("arc", {"id": "NYSEDREGENTS_2015_4_8", "question": STEM, "answerKey": "1",
             "choices": {"text": TEXTS, "label": list("1234")}},
     {**SCIENCE, "id": "NYSEDREGENTS_2015_4_8", "human_explanations": []}),
    ("boolq", {"question": "does cork float", "title": "Cork", "answer": True, "passage": "Cork is light.\nIt floats."},
     {**BOOLQ, "context": "Cork is light. It floats."}),
    ("boolq", {"question": "does cork float", "answer": True, "passage": "Cork is light. It floats."},
     {**BOOLQ, "context": "Cork is light. It floats."}),
    ("boolq", {"instruction": "Please answer the following question with true or false, question: does cork float?\n\n"
               "Answer format: true/false", "input": "", "output": "the correct answer is true", "answer": "true"},
     {**BOOLQ, "context": ""}),
    ("mnli", {"annotator_labels": ["neutral"], "genre": "slate", "gold_label": "neutral", "pairID": "31193n",
              "promptID": "31193", "sentence1": "It floats.", "sentence2": "It is cork."}, MNLI),
    ("mnli", {"promptID": 31193, "pairID": "31193n", "premise": "It floats.", "hypothesis": "It is cork.",
              "genre": "slate", "label": 1}, MNLI),
    ("ecqa", ECQA, {"id": "ab12", "question": STEM, "choices": [*TEXTS, "a spoon"], "answer": "a cork",
                    "human_explanations": ["Cork is light. Keys and coins sink.", "Cork is light. Cork holds air.",
                                           "A key is heavy. A coin sinks."]}),
    ("squad", ARTICLES, SQUAD),
    ("squad", {"id": "56be", "title": "Swimming", "context": "Ann, the swimmer, floats.", "question": "Who floats?",
               "answers": {"text": SPANS, "answer_start": [0, 0, 0]}}, SQUAD),
]


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
@pytest.mark.parametrize(("dataset", "row", "item"), LAYOUTS)
def test_a_published_layout(dataset, row, item, ending, tmp_path):
    path = tmp_path / f"test.{ending}"
    path.write_text(json.dumps(row)) if ending == "jsonl" else pd.DataFrame([row]).to_parquet(path)
    frame = read_questions(dataset, str(tmp_path), {"test": path.name})
    found = frame.iloc[0].to_dict()
    assert {key: found[key] for key in item} == item and len(frame) == 1 and frame.attrs["notes"] == {}
    stored = read_table(write_table(frame, tmp_path / "questions.parquet", "questions"), "questions")
    assert stored.to_dict("records") == frame.to_dict("records")


def test_squad_over_several_lines_and_questions_without_an_answer(tmp_path):
    questions = [{"id": "1", "question": "Who swims?", "answers": [{"text": "Ann", "answer_start": 0}],
                  "is_impossible": True},
                 {"id": "2", "question": "Who floats?", "answers": [{"text": " Ann ", "answer_start": 0}]}]
    paragraphs = [{"context": "Ann floats.", "qas": questions}]
    whole = {"version": "v2.0", "data": [{"title": "Swimming", "paragraphs": paragraphs}]}
    (tmp_path / "dev.json").write_text(json.dumps(whole, indent=1))
    frame = read_questions("squad", str(tmp_path), {"test": "dev.json"})
    assert frame["id"].tolist() == ["2"] and frame["answer"].tolist() == ["Ann"]
    assert frame.attrs["notes"] == {"test: no answer in the passage": 1}


def test_ecqa_as_its_authors_script_writes_it(tmp_path):
    """The script writes the index of the data frame as a column without a name."""
    rows = [{**ECQA, "q_no": f"q{number}", "q_text": f"Which is number {number}?"} for number in range(12)]
    for part in ("train", "val", "test"):
        (tmp_path / "ecqa").mkdir(exist_ok=True)
        mine = [{**row, "q_no": f"{part}{row['q_no']}", "q_text": f"{part}: {row['q_text']}"} for row in rows]
        pd.DataFrame(mine).to_csv(tmp_path / "ecqa" / f"cqa_data_{part}.csv", encoding="utf-8")
    frame = read_questions("ecqa", str(tmp_path))
    assert frame["split"].value_counts().to_dict() == {"train": 12, "dev": 12, "test": 12}
    taught = published_explanations(frame, "cqa", "people", "few_shot")
    assert set(taught["text"]) == {"Cork is light. Keys and coins sink."}
    (tmp_path / "t.csv").write_text(",id,question\n7,a,b\n")
    with pytest.raises(StudyError, match="a column has no name"):
        read_questions("table", str(tmp_path), {"test": "t.csv"})


BAD = [
    ("openbookqa", {"id": "1", "question": {"stem": STEM, "choices": LETTERED}, "answerKey": "E"}, "'E' is none of A"),
    ("openbookqa", {"id": "1", "question": {"stem": STEM, "choices": TEXTS}, "answerKey": "A"}, "no choices with"),
    ("openbookqa", {"instruction": "Choose!", "answer": "answer1"}, "field 'instruction': 'Choose!' is not laid out"),
    ("arc", {"id": "1", "question": STEM, "choices": {"text": TEXTS, "label": ["A"]}, "answerKey": "A"}, "do not"),
    ("arc", {"id": "1", "choices": COLUMNS, "answerKey": "A"}, "field 'question': no such column"),
    ("qasc", {"id": "1", "question": STEM, "choices": COLUMNS, "answerKey": ""}, "no questions"),
    ("boolq", {"question": "is it", "passage": "It is.", "answer": "perhaps"}, "field 'answer': 'perhaps' is neither"),
    ("boolq", {"question": "is it", "passage": 7, "answer": True}, "field 'context': 7 is not a text"),
    ("mnli", {"sentence1": "A.", "sentence2": "B.", "gold_label": "-", "pairID": "1"}, "no questions"),
    ("squad", {"data": [{"paragraphs": [{"qas": [{"id": "1"}]}]}]}, "not laid out as published .KeyError: 'context'"),
    ("squad", {"data": 7}, "not laid out as published"),
    ("squad", {"id": "1", "question": "Who?", "context": "", "answers": {"text": ["Ann"]}}, "field 'context' is empty"),
    ("ecqa", {**ECQA, "q_ans": "a boat"}, "field 'answer': 'a boat' is not among the choices"),
]


@pytest.mark.parametrize(("dataset", "row", "message"), BAD)
def test_bad_rows_are_named(dataset, row, message, tmp_path):
    (tmp_path / "t.jsonl").write_text(json.dumps(row))
    with pytest.raises(StudyError, match=rf"t\.jsonl: .*{message}"):
        read_questions(dataset, str(tmp_path), {"test": "t.jsonl"})


def test_cut_and_damaged_records_end_in_one_line(tmp_path):
    odd = [None, 7, "", [], {}, [None], {"text": None}, "\ud83d", [[]], True]
    for draw in rounds("layouts", 1, 150):
        dataset, row, _ = draw.choice(LAYOUTS)
        row = json.loads(json.dumps(row))
        place = row
        while isinstance(place, dict) and place and draw.random() < 0.7:
            parent, key = place, draw.choice(list(place))
            place = place[key][0] if isinstance(place[key], list) and place[key] else place[key]
        if place is not row:
            parent[key] = draw.choice(odd)
        (tmp_path / "t.json").write_text(json.dumps([row]))
        try:
            frame = read_questions(dataset, str(tmp_path), {"test": "t.json"})
        except StudyError as error:
            assert "t.json" in str(error) or dataset in str(error)
        else:
            assert len(frame) == 1


# Splits

def test_a_drawn_dev_split_shares_no_passage_with_train(tmp_path):
    rows = [{"question": f"is it {number}", "passage": f"Passage {number // 4}.", "answer": number % 2 == 0}
            for number in range(80)]
    pd.DataFrame(rows).to_json(tmp_path / "t.jsonl", orient="records", lines=True)
    frame = read_questions("boolq", str(tmp_path), {"train": "t.jsonl"})
    of = {split: set(group["context"]) for split, group in frame.groupby("split")}
    assert frame["split"].value_counts().to_dict() == {"train": 72, "dev": 8}
    assert len(of["dev"]) == 2 and not of["dev"] & of["train"]
    assert read_questions("boolq", str(tmp_path), {"train": "t.jsonl"}, seed=1)["id"].tolist() != frame["id"].tolist()
    pd.DataFrame(rows[:4]).to_json(tmp_path / "one.jsonl", orient="records", lines=True)
    one = read_questions("boolq", str(tmp_path), {"train": "one.jsonl"})  # a single passage has to be in both
    assert one["split"].value_counts().to_dict() == {"train": 3, "dev": 1}


def test_a_drawn_dev_split_shares_no_premise_with_train(tmp_path):
    rows = [{"pairID": f"{number}", "promptID": number // 3, "sentence1": f"Premise {number // 3}.",
             "sentence2": f"Hypothesis {number}.", "gold_label": NLI_LABELS[number % 3]} for number in range(60)]
    pd.DataFrame(rows).to_json(tmp_path / "t.jsonl", orient="records", lines=True)
    frame = read_questions("mnli", str(tmp_path), {"train": "t.jsonl"})
    of = {split: set(group["question"].str.extract(r"(Premise \d+)")[0]) for split, group in frame.groupby("split")}
    assert frame["split"].value_counts().to_dict() == {"train": 54, "dev": 6}
    assert len(of["dev"]) == 2 and not of["dev"] & of["train"]


def test_one_stem_with_other_choices_is_another_question(tmp_path):
    rows = [{"id": str(number), "question": STEM, "answerKey": "A",
             "choices": {"text": [text, f"a key {number % 2}"], "label": ["A", "B"]}}
            for number, text in enumerate(["a cork", "a boat", "a cork"])]
    (tmp_path / "t.json").write_text(json.dumps(rows))
    frame = read_questions("arc", str(tmp_path), {"test": "t.json"})
    assert frame["id"].tolist() == ["0", "1"] and frame.attrs["notes"] == {"test: question repeated in the split": 1}


def test_two_sums_are_two_questions_and_contrary_answers_are_said(tmp_path):
    rows = [{"question": question, "passage": "Sums.", "answer": answer} for question, answer in [
        ("is 3 + 2 five", True), ("is 3 - 2 five", False), ("is 3+2 five?", True), ("is 3 - 2 five", True),
        ("is well-known", True), ("is well known", True)]]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    frame = read_questions("boolq", str(tmp_path), {"test": "t.jsonl"})
    assert frame["question"].tolist() == ["Is 3 + 2 five?", "Is 3 - 2 five?", "Is well-known?"]
    assert frame["id"].is_unique and frame.attrs["notes"] == {
        "test: question repeated in the split": 2, "test: question repeated in the split, with another answer": 1}


def test_a_question_of_boolq_without_its_passage_is_noted(tmp_path):
    rows = [{"question": "is it one", "answer": True}, {"question": "is it two", "answer": True, "passage": "It is."}]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    frame = read_questions("boolq", str(tmp_path), {"test": "t.jsonl"})
    assert len(frame) == 2 and frame.attrs["notes"] == {"test: no passage": 1}


def test_a_missing_text_is_no_explanation():
    row = {**ECQA, "taskA_pos": float("nan"), "taskA_neg": None}
    assert READERS["ecqa"].normalise(row)["human_explanations"] == [ECQA["taskB"]]


@pytest.mark.parametrize(("dataset", "splits"), [
    ("boolq", ("train", "validation")), ("mnli", ("train", "validation_matched")), ("squad", ("train", "validation")),
    ("qasc", ("train", "validation")), ("openbookqa", ("train", "validation", "test")),
    ("arc", ("train", "validation", "test")), ("ecqa", ("train", "validation", "test"))])
def test_the_hub_is_asked_for_the_splits_with_public_labels(dataset, splits, monkeypatch):
    *_, row = [row for name, row, _ in LAYOUTS if name == dataset and "instruction" not in row]
    asked = []

    def load(name, config, revision, split):
        asked.append((name, config, split))
        text = next(key for key in ("question", "question_stem", "q_text", "hypothesis") if key in row)
        return Dataset.from_list([{**row, text: f"{split} {number} {row[text]}", **{
            key: f"{split}{number}" for key in ("id", "q_no", "pairID", "context", "passage") if key in row}}
            for number in range(10)])

    monkeypatch.delenv("KDUTILS_DATA", raising=False)
    monkeypatch.setattr("datasets.load_dataset", load)
    frame = read_questions(dataset)
    assert [split for *_, split in asked] == list(splits)
    assert {name for name, *_ in asked} == {READERS[dataset].hub}
    assert {config for _, config, _ in asked} == {{"arc": "ARC-Challenge", "openbookqa": "additional"}.get(dataset)}
    assert set(frame["split"]) == {"train", "dev", "test"}


def test_files_without_passages_are_read_only_where_the_published_ones_are_not_there(tmp_path):
    (tmp_path / "boolq").mkdir()
    instead = [{"instruction": "Please answer the following question with true or false, question: is it "
                f"{number}?\n\nAnswer format: true/false", "answer": "true"} for number in range(20)]
    for part, rows in (("train", instead[:15]), ("test", instead[15:])):
        pd.DataFrame(rows).to_parquet(tmp_path / "boolq" / f"llm_adapters_{part}.parquet")
    frame = read_questions("boolq", str(tmp_path))
    assert frame.attrs["notes"] == {f"{part}: the question without its passage, from LLM-Adapters": count
                                    for part, count in (("train", 15), ("test", 5))}
    for part in ("train", "dev"):
        (tmp_path / "boolq" / f"{part}.jsonl").write_text("\n".join(json.dumps(
            {"question": f"{part} {number}", "answer": True, "passage": f"{part} {number}."}) for number in range(20)))
    frame = read_questions("boolq", str(tmp_path))
    assert frame.attrs["notes"] == {} and frame["context"].str.len().gt(0).all()
    (tmp_path / "boolq" / "train.jsonl").unlink()
    with pytest.raises(StudyError, match=r"train\.jsonl: no such file"):  # and no mixture of both
        read_questions("boolq", str(tmp_path))
    assert question_files("boolq", str(tmp_path))["test"].name == "dev.jsonl"


# Real files

def test_boolq_with_and_without_passages(real_data, real_questions):
    """9,427 and 3,270 questions, 62 % of them with the answer yes, as in Clark et al. (2019), section 3."""
    frame = real_questions("boolq")
    assert frame["split"].value_counts().to_dict() == {"train": 8476, "dev": 942, "test": 3269}
    assert abs((frame["answer"] == "yes").mean() - 0.623) < 0.002 and set(frame["context"]) == {""}
    passages = read_questions("boolq", str(real_data), {"test": "boolq/dev_with_passages.parquet"})
    raw = pd.read_parquet(real_data / "boolq" / "dev_with_passages.parquet")
    assert len(passages) == len(raw) - 1 == 3269 and (passages["answer"] == "yes").sum() == raw["answer"].sum() - 1
    known = dict(zip(raw["question"].str.rstrip("? ").str.casefold(), raw["passage"], strict=True))
    assert all(known[item["question"].rstrip("?").casefold()].split() == item["context"].split()
               for item in passages.to_dict("records"))


def test_openbookqa_has_the_published_sizes(real_data, real_questions):
    """4,957 and 500 questions with four choices (Mihaylov et al. 2018, table 2); some stand in train and test."""
    frame = real_questions("openbookqa")
    notes = frame.attrs["notes"]
    dropped = sum(notes[f"train: question {what}"] for what in (
        "repeated in the split", "repeated in the split, with another answer", "also in test"))
    assert (frame["split"] == "test").sum() == 500 and (frame["split"] != "test").sum() + dropped == 4957
    raw = pd.read_parquet(real_data / "openbookqa" / "llm_adapters_test.parquet")
    for item, row in zip(frame[frame["split"] == "test"].to_dict("records"), raw.to_dict("records"), strict=True):
        place = item["choices"].index(item["answer"]) + 1
        assert row["answer"] == f"answer{place}" and f"Answer{place}: {item['answer']}" in row["instruction"]
        assert len(item["choices"]) == 4 and item["question"] in row["instruction"]


# Short answers

@pytest.mark.parametrize(("predicted", "answers", "exact", "f1"), [
    ("the U.S. Army", ["US army"], 1, 1), ("Ann", ["Bob", "ann."], 1, 1), ("", ["Ann"], 0, 0), ("Ann", [], 0, 0),
    ("in the old red house", ["red house"], 0, 2 * 2 / (4 + 2)), ("house red", ["a red house"], 0, 1),
    ("1,200", ["1200"], 1, 1), ("cat cat", ["cat"], 0, 2 / 3), ("fish", ["a cat", "big fish"], 0, 2 / 3),
    ("half-way", ["half way"], 0, 0)])
def test_exact_match_and_f1_of_short_answers(predicted, answers, exact, f1):
    """By hand: lower case, punctuation and articles out, F1 of the bags of words, the best of the right answers."""
    assert (exact_match(predicted, answers), overlap_f1(predicted, answers)) == (exact, pytest.approx(f1))


def test_f1_lies_between_exact_match_and_one():
    words = ["the", "a", "red", "Red.", "house", "U.S.", "-", "old", ""]
    for draw in rounds("short answers", 1, 300):
        one, other = (" ".join(draw.choices(words, k=draw.randrange(5))) for _ in range(2))
        f1 = overlap_f1(one, [other])
        assert f1 == overlap_f1(other, [one]) and 0 <= f1 <= 1
        assert f1 >= exact_match(one, [other]) or not short_answer_words(one)


def test_accuracy_of_short_answers_counts_every_annotator_and_every_question():
    """By hand: a number is a short answer among others, but of arithmetic alone there is no exact match."""
    questions = pd.DataFrame([{**SQUAD, "split": "test"}, {**SQUAD, "id": "n", "answer": "1979", "other_answers": []},
                              {**SQUAD, "id": "m", "answer": "$5", "other_answers": ["5 dollars"]}])
    rows = [("56be", "Ann the swimmer"), ("n", "in 1979"), ("m", "5 dollars")]
    predictions = pd.DataFrame([{"id": key, "seed": 0, "predicted": text, "exact": False, "correct": answered_right(
        text, questions.set_index("id").loc[key])} for key, text in rows])
    assert accuracy_of_seeds(predictions, questions)[0] == {
        "accuracy": pytest.approx(2 / 3), "exact": 0.0, "unread": 0.0, "no_choice": 0.0,
        "exact_match": pytest.approx(2 / 3), "f1": pytest.approx((1 + 2 / 3 + 1) / 3)}
    wrong = accuracy_of_seeds(predictions.assign(predicted=["Ann swims", "1980", ""]), questions)[0]
    assert wrong["exact_match"] == 0 and wrong["f1"] == pytest.approx((2 / 3 + 0 + 0) / 3)
    assert "f1" not in accuracy_of_seeds(predictions[1:], questions[1:])[0]


def test_answers_that_t5_cannot_write_are_counted_before_training(real_data):
    tokenizer = read_tokenizer(real_data / "tokenizers" / "t5")
    texts = ["Ann", "x < 3", "{1, 2}", "\u84dd\u8272", "1066"]
    items = [{**SQUAD, "id": str(number), "answer": text, "other_answers": []} for number, text in enumerate(texts)]
    gaps = vocabulary_gaps(tokenizer, "label_only", items)
    assert gaps["count"] == 3 and gaps["examples"] == texts[1:4]
    assert gaps["wrong"] == 2, "1, 2 is still read as right, because brackets do not count; x 3 is not"
    [line] = gap_lines(gaps, "test ")
    assert re.match(r"3 of 5 test questions have an answer that this vocabulary cannot write, such as 'x < 3'", line)
