"""Readers: published sizes and splits on the real data, every layout and format, and what is refused."""

import json
import os
import re
from collections import Counter
from datetime import date

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, load_dataset
from fuzzing import time_limit

from kdutils.__main__ import main
from kdutils.data import readers
from kdutils.data.answers import evaluate_equation, format_number
from kdutils.data.datasets import NLI_LABELS, READERS, Reader, _id_of, _svamp_places, content_key, nli_question
from kdutils.data.questions import check_questions
from kdutils.data.readers import limit_questions, question_files, read_questions
from kdutils.data.tables import read_table, write_table
from kdutils.errors import StudyError


@pytest.fixture(scope="module")
def data(real_data):
    return real_data


@pytest.fixture(scope="module")
def cqa(real_questions):
    return real_questions("cqa")


@pytest.fixture(scope="module")
def esnli(real_questions):
    return real_questions("esnli")


@pytest.fixture(scope="module")
def strategyqa(real_questions):
    return real_questions("strategyqa")


@pytest.fixture(scope="module")
def anli(real_questions):
    return real_questions("anli")


@pytest.fixture(scope="module")
def svamp(real_questions):
    return real_questions("svamp")


@pytest.fixture(scope="module")
def creak(real_questions):
    return real_questions("creak")


def sizes(frame):
    return frame["split"].value_counts().to_dict()


# The real data

def test_cqa_has_the_published_sizes(cqa):
    assert sizes(cqa) == {"train": 8766, "dev": 975, "test": 1221}


def test_cqa_dev_is_the_split_of_the_library_in_its_order(cqa, data):
    raw = load_dataset("parquet", data_files=str(data / "cqa" / "train.parquet"), split="train")
    parts = raw.train_test_split(test_size=0.1, seed=0)
    assert cqa.loc[cqa["split"] == "dev", "id"].tolist() == list(parts["test"]["id"])
    assert cqa.loc[cqa["split"] == "train", "id"].tolist() == list(parts["train"]["id"])


def test_cqa_merges_repeated_choices_and_says_so(cqa, data):
    raw = pd.read_parquet(data / "cqa" / "validation.parquet")
    repeated = sum(len(set(choices)) < 5 for choices in raw["choices"])
    assert cqa.attrs["notes"] == {"train: a choice named twice, kept once": 122,
                                  "test: a choice named twice, kept once": repeated}
    test = cqa[cqa["split"] == "test"]
    assert sum(len(choices) < 5 for choices in test["choices"]) == repeated == 24
    assert test["human_explanations"].map(len).eq(1).all()


def test_another_seed_draws_another_dev_split(cqa, data):
    other = read_questions("cqa", str(data), seed=1)
    assert sizes(other) == sizes(cqa)
    assert set(other.loc[other["split"] == "dev", "id"]) != set(cqa.loc[cqa["split"] == "dev", "id"])


def test_esnli_has_the_published_sizes(esnli):
    assert sizes(esnli) == {"train": 10_983, "dev": 9_842 - 2, "test": 9_824}
    assert esnli.attrs["notes"] == {"dev: question repeated in the split": 2}
    assert set(esnli["choices"].map(tuple)) == {("entailment", "neutral", "contradiction")}


def test_esnli_has_human_explanations_where_people_wrote_them(esnli):
    counts = esnli.groupby("split")["human_explanations"].agg(lambda texts: texts.map(len).unique().tolist())
    assert counts.to_dict() == {"train": [0], "dev": [3], "test": [3]}


def test_esnli_text_files_read_like_snli(esnli, data):
    """The test split of the tokenised files against the same pairs as SNLI has them."""
    snli = pd.read_parquet(data / "teacher_llama" / "esnli-llama-test.parquet")
    expected = [nli_question(premise, hypothesis) for premise, hypothesis in zip(snli.premise, snli.hypothesis,
                                                                                 strict=True)]
    found = esnli.loc[esnli["split"] == "test", "question"].tolist()
    assert [content_key(text) for text in found] == [content_key(text) for text in expected]
    same = sum(" ".join(a.split()) == " ".join(b.split()) for a, b in zip(found, expected, strict=True))
    assert same / len(found) > 0.99
    assert esnli.loc[esnli["split"] == "test", "answer"].tolist() == [NLI_LABELS[i] for i in snli.label]


def test_strategyqa_drops_the_question_of_train_that_is_in_test(strategyqa):
    assert sizes(strategyqa) == {"train": 1441, "dev": 161, "test": 687}
    assert strategyqa.attrs["notes"] == {"train: question also in test": 1}
    bob_marley = strategyqa["question"].str.contains("Bob Marley's face")
    assert strategyqa.loc[bob_marley, "split"].tolist() == ["test"]
    assert strategyqa.loc[strategyqa["split"] == "test", "answer"].value_counts().to_dict() == {"no": 354, "yes": 333}


def test_anli_is_round_1_with_a_stand_in_for_train_that_is_named(anli):
    assert sizes(anli) == {"train": 1198, "dev": 1000, "test": 1000}
    assert anli.attrs["notes"] == {
        "train: the dev split of round 3 stands in for the training split of round 1": 1198}
    for split in ("dev", "test"):  # balanced by its authors: 334 of 1000 are entailment or contradiction
        assert sorted(anli.loc[anli["split"] == split, "answer"].value_counts()) == [333, 333, 334]
    assert anli["human_explanations"].map(len).eq(1).all() and anli["choices"].map(tuple).nunique() == 1


def test_anli_reads_the_same_from_the_annotated_layout(anli, data):
    """Dev of round 1 in two layouts: the Hub's (premise, 0 1 2) and the annotated file's (context, e n c)."""
    other = read_questions("anli", str(data), {"dev": "anli/r1_dev_annotated.parquet"})
    assert "stands in" not in str(other.attrs["notes"])
    dev = anli[anli["split"] == "dev"].set_index("id")
    other = other.set_index("id").loc[dev.index]
    assert other["answer"].equals(dev["answer"])
    differ = other.index[other["question"] != dev["question"]]
    assert list(differ) == ["f220abc2-821a-4286-ada9-04d358d740ea"]  # there the annotated file has a stray word
    assert other["human_explanations"].map(len).eq(1).all()


def test_svamp_is_cut_as_in_distilling_step_by_step(svamp, data):
    """Against the inputs that Hsieh et al. (2023) published: the same questions, in the same order."""
    assert sizes(svamp) == {"train": 719, "dev": 80, "test": 200}
    assert svamp.attrs["notes"] == {"all: the equation does not give the answer": 1}
    known = {split: pd.read_parquet(data / "palm540b_dss" / f"svamp_{split}_inputs.parquet") for split in
             ("train", "test")}
    found = svamp.loc[svamp["split"] == "test", "question"].map(content_key)
    assert found.tolist() == known["test"]["input"].map(content_key).tolist()
    rest = set(svamp.loc[svamp["split"] != "test", "question"].map(content_key))
    keys = known["train"]["input"].map(content_key)
    [left_out] = set(keys) - rest
    assert rest < set(keys) and len(keys) == 800 and keys.tolist().index(left_out) == 195
    raw = pd.read_parquet(data / "svamp" / "SVAMP.parquet").set_index("ID")
    assert (raw.loc["chal-680", "Answer"], evaluate_equation(raw.loc["chal-680", "Equation"])) == (1, 5)
    order = sorted((place, name) for name, place in _svamp_places().items())
    for split in ("train", "test"):
        assert [raw.loc[name, "Equation"] for place, name in order if place[0] == split] == list(known[split]["label"])


def test_creak_has_its_dev_split_as_test_and_a_tenth_of_train_as_dev(creak, data):
    """10,176 claims of train, of which 4 are repeated; the sizes and balance are those of Onoe et al. (2021)."""
    assert sizes(creak) == {"train": 9154, "dev": 1018, "test": 1371}
    assert creak.attrs["notes"] == {"train: question repeated in the split": 4}
    rows = [json.loads(line) for line in (data / "creak" / "dev.json").read_text(encoding="utf-8").splitlines()]
    test = creak[creak["split"] == "test"]
    assert test["answer"].tolist() == [row["label"] for row in rows] and (test["answer"] == "true").sum() == 691
    assert test["question"].tolist() == [row["sentence"].strip() for row in rows]
    assert [texts[0] for texts in test["human_explanations"]] == [row["explanation"].strip() for row in rows]


def test_svamp_answers_are_numbers_as_text(svamp, data):
    raw = pd.read_parquet(data / "svamp" / "SVAMP.parquet").set_index("ID")
    assert svamp["answer"].tolist() == [str(int(raw.loc[name, "Answer"])) for name in svamp["id"]]
    assert svamp["choices"].map(len).eq(0).all() and svamp["human_explanations"].map(len).eq(0).all()
    question = svamp.set_index("id").loc["chal-774", "question"]
    assert question == f"{raw.loc['chal-774', 'Body']} {raw.loc['chal-774', 'Question']}"


@pytest.mark.parametrize("dataset", ["cqa", "esnli", "strategyqa", "anli", "svamp", "creak"])
def test_questions_survive_the_table_on_disk(dataset, request, tmp_path):
    frame = request.getfixturevalue(dataset)
    path = write_table(frame, tmp_path / "questions.parquet", "questions")
    assert read_table(path, "questions").to_dict("records") == frame.to_dict("records")


def test_folder_comes_from_the_environment(data, monkeypatch):
    monkeypatch.setenv("KDUTILS_DATA", str(data))
    frame = read_questions("cqa", files={"test": "cqa/validation.parquet"})
    assert sizes(frame) == {"test": 1221}


def test_arrow_folder_as_the_library_saves_it(data):
    frame = read_questions("cqa", str(data), files={"train": "original_shards/cqa-llama-train/shard_1"})
    assert sizes(frame) == {"train": 876, "dev": 98}


# The Hub

def snli_rows(rows):
    return Dataset.from_dict({"premise": [f"Premise {row}" for row in range(rows)],
                              "hypothesis": [f"Hypothesis {row}" for row in range(rows)],
                              "label": [row % 7 % 4 - 1 for row in range(rows)]})


def test_hub_snli_is_cut_by_the_published_rule(monkeypatch):
    asked = []
    splits = {"train": snli_rows(5000), "validation": snli_rows(400), "test": snli_rows(30)}

    def load(name, config, revision, split):
        asked.append((name, config, revision))
        return splits[split]

    monkeypatch.delenv("KDUTILS_DATA", raising=False)
    monkeypatch.setattr("datasets.load_dataset", load)
    monkeypatch.setitem(READERS, "esnli", Reader(**{**vars(READERS["esnli"]), "drop_repeats": False}))
    monkeypatch.setattr(readers, "find_pair_faults", lambda frame, places: [])  # the three splits share rows
    frame = read_questions("esnli")
    sample = [row for row in splits["train"].shuffle(seed=42).select(range(100)) if row["label"] != -1]
    expected = [nli_question(row["premise"], row["hypothesis"]) for row in sample]
    assert frame.loc[frame["split"] == "train", "question"].tolist() == expected
    assert frame.attrs["notes"]["train: no gold label"] == 100 - len(expected) > 0
    assert set(asked) == {("stanfordnlp/snli", "plain_text", "cdb5c3d5eed6ead6e5a341c8e56e669bb666725b")}
    dev = [row for row in splits["validation"].shuffle(seed=42).select(range(40)) if row["label"] != -1]
    assert (frame["split"] == "dev").sum() == len(dev)
    assert (frame["split"] == "test").sum() == sum(label != -1 for label in splits["test"]["label"])


def svamp_row(number, **changes):
    return {"ID": f"chal-{number}", "Body": f"Ann has {number} nuts and eats 2.", "Question": "How many are left?",
            "Equation": f"( {number}.0 - 2.0 )", "Answer": f"{number - 2}.0", "Type": "Subtraction", **changes}


def test_hub_svamp_is_cut_by_its_ids_and_not_by_the_hubs_splits(monkeypatch):
    asked = []

    def load(name, config, revision, split):
        asked.append((name, split))
        return Dataset.from_list([svamp_row(number) for number in range(1, 1001)])

    monkeypatch.delenv("KDUTILS_DATA", raising=False)
    monkeypatch.setattr("datasets.load_dataset", load)
    frame = read_questions("svamp")
    assert asked == [("ChilleD/SVAMP", "train+test")] and sizes(frame) == {"train": 720, "dev": 80, "test": 200}
    order = np.random.RandomState(0).permutation(1000)
    assert frame.loc[frame["split"] == "test", "id"].tolist() == [f"chal-{row + 1}" for row in order[800:]]
    parts = Dataset.from_dict({"row": list(order[:800])}).train_test_split(test_size=0.1, seed=0)
    assert frame.loc[frame["split"] == "dev", "id"].tolist() == [f"chal-{row + 1}" for row in parts["test"]["row"]]


def test_hub_anli_is_round_1(monkeypatch):
    asked = []

    def load(name, config, revision, split):
        asked.append((name, split))
        return Dataset.from_list([{"uid": f"{split}-{row}", "premise": f"{split} {row}.", "hypothesis": "It is.",
                                   "label": row % 3, "reason": ""} for row in range(6)])

    monkeypatch.delenv("KDUTILS_DATA", raising=False)
    monkeypatch.setattr("datasets.load_dataset", load)
    frame = read_questions("anli")
    assert asked == [("facebook/anli", split) for split in ("train_r1", "dev_r1", "test_r1")]
    assert sizes(frame) == {"train": 6, "dev": 6, "test": 6} and frame.attrs["notes"] == {}
    assert frame["human_explanations"].map(len).eq(0).all()


def test_a_few_unusable_rows_of_the_hub_are_left_out_and_many_are_an_error(monkeypatch):
    empty = 2

    def load(name, config, revision, split):
        return Dataset.from_list([{"uid": f"{split}-{row}", "premise": f"{split} {row}.", "label": row % 3,
                                   "reason": "", "hypothesis": "" if row < empty else "It is."} for row in range(200)])

    monkeypatch.delenv("KDUTILS_DATA", raising=False)
    monkeypatch.setattr("datasets.load_dataset", load)
    frame = read_questions("anli")
    assert sizes(frame) == {"train": 198, "dev": 198, "test": 198} and len(frame.attrs["notes"]) == 3
    assert frame.attrs["notes"]["facebook/anli train_r1: left out, field 'hypothesis' is empty or not a text"] == 2
    empty = 3
    with pytest.raises(StudyError, match="9 faulty rows.*field 'hypothesis'"):
        read_questions("anli")


def test_a_row_of_the_hub_that_repeats_an_id_is_left_out(monkeypatch):
    def load(name, config, revision, split):
        return Dataset.from_list([{"id": f"{split}-{max(row, 1) if split == 'train' else row}", "answerKey": "A",
                                   "question": f"{split} {row}?", "choices": {"label": ["A", "B"], "text": ["a", "b"]}}
                                  for row in range(100)])

    monkeypatch.delenv("KDUTILS_DATA", raising=False)
    monkeypatch.setattr("datasets.load_dataset", load)
    frame = read_questions("arc")
    assert sizes(frame) == {"train": 99, "dev": 100, "test": 100} and frame["id"].is_unique
    assert frame["question"].iloc[0] == "train 0?", "the first of the two is kept"
    assert list(frame.attrs["notes"].items()) == [("allenai/ai2_arc train: left out, field 'id': duplicate id", 1)]


def test_a_hub_that_is_away_is_named(monkeypatch):
    def load(*args, **options):
        raise RuntimeError("no route to host")

    monkeypatch.delenv("KDUTILS_DATA", raising=False)
    monkeypatch.setattr("datasets.load_dataset", load)
    with pytest.raises(StudyError, match="Salesforce/cos_e train: .*no route to host.*KDUTILS_DATA"):
        read_questions("cqa")


def test_a_data_set_that_the_folder_lacks_is_read_from_the_hub_and_one_in_part_is_not(tmp_path, monkeypatch):
    rows = [{"uid": f"u{row}", "premise": f"One {row}.", "hypothesis": "It is.", "label": row % 3, "reason": ""}
            for row in range(6)]
    monkeypatch.setenv("KDUTILS_DATA", str(tmp_path))
    monkeypatch.setattr("datasets.load_dataset", lambda name, config, revision, split: Dataset.from_list(
        [{**row, "uid": f"{split}{row['uid']}", "premise": f"{split} {row['premise']}"} for row in rows]))
    assert sizes(read_questions("anli")) == {"train": 6, "dev": 6, "test": 6} and question_files("anli") == {}
    with pytest.raises(StudyError, match="anli/.*: no such file or folder"):
        read_questions("anli", str(tmp_path))  # a folder that is named is meant
    part = tmp_path / READERS["anli"].local["test"]
    part.parent.mkdir(parents=True)
    part.write_text("{}")
    with pytest.raises(StudyError, match="no such file or folder; correct the path, `folder` or KDUTILS_DATA"):
        read_questions("anli")


def test_line_breaks_of_published_texts_leave_no_empty_line_in_a_prompt():
    row = {"id": "q1", "question": {"stem": "What is wet?\n\n Think.", "choices": [
        {"label": "A", "text": "the\n\nsea"}, {"label": "B", "text": "sand"}]}, "answerKey": "A"}
    kept = readers._normalised_rows(READERS["arc"], [row], "train", "f", Counter(), faults := [])
    item = kept[0][2]
    assert (item["question"], item["choices"], item["answer"], faults) == (
        "What is wet?\nThink.", ["the sea", "sand"], "the sea", [])


# Layouts and formats

LAYOUTS = [
    {"premise": "A dog runs.", "hypothesis": "An animal moves.", "label": 0},
    {"s1": "A dog runs . ", "s2": "An animal moves . ", "label": "entailment", "expl_1": "a dog is an animal ."},
    {"premise": "A dog runs.", "hypothesis": "An animal moves.", "label": 0, "explanation_1": "a dog is an animal.",
     "explanation_2": ""},
    {"pairID": "1.jpg#0", "gold_label": "entailment", "Sentence1": "A dog runs.", "Sentence2": "An animal moves.",
     "Explanation_1": "a dog is an animal."},
]


@pytest.mark.parametrize("row", LAYOUTS)
def test_nli_layouts_give_the_same_question(row, tmp_path):
    (tmp_path / "test.jsonl").write_text(json.dumps(row))
    item = read_questions("esnli", str(tmp_path), {"test": "test.jsonl"}).iloc[0]
    assert item["question"] == "Premise: A dog runs. Hypothesis: An animal moves. What is the relationship?"
    assert (item["answer"], item["id"]) == ("entailment", _id_of("esnli", item["question"]))
    assert item["human_explanations"] == (["a dog is an animal."] if len(row) > 3 else [])


@pytest.mark.parametrize("row", [
    {"uid": "u", "premise": "A dog runs.", "hypothesis": "An animal moves.", "label": 0, "reason": "dogs are animals"},
    {"uid": "u", "context": "A dog runs.", "statement": "An animal moves.", "gold_label": "e", "adversary_pred": "n",
     "reason": " dogs are animals "},
    {"uid": "u", "context": "A dog runs.", "hypothesis": "An animal moves.", "label": "e", "model_label": "n",
     "reason": "dogs are animals"},
])
def test_anli_layouts_give_the_same_question(row, tmp_path):
    (tmp_path / "test.jsonl").write_text(json.dumps(row))
    assert read_questions("anli", str(tmp_path), {"test": "test.jsonl"}).iloc[0].to_dict() == {
        "id": "u", "split": "test", "choices": list(NLI_LABELS), "answer": "entailment",
        "question": "Premise: A dog runs. Hypothesis: An animal moves. What is the relationship?",
        "human_explanations": ["dogs are animals"], "context": "", "other_answers": []}


def test_svamp_from_csv_and_in_splits_of_ones_own(tmp_path):
    """Every value of a CSV file is a text; the split is that of the file, whatever the id."""
    rows = [svamp_row(3), svamp_row(4, ID="own", Answer="2"), svamp_row(5, Equation="( 5.0 - 4.0 )"),
            svamp_row(6, Answer="1.5", Equation="6.0 / 4.0")]
    pd.DataFrame(rows).to_csv(tmp_path / "test.csv", index=False)
    frame = read_questions("svamp", str(tmp_path), {"test": "test.csv"})
    assert list(zip(frame["id"], frame["answer"], strict=True)) == [("chal-3", "1"), ("own", "2"), ("chal-6", "1.5")]
    assert frame.attrs["notes"] == {"test: the equation does not give the answer": 1}
    with pytest.raises(StudyError, match=r"test\.csv: row .: field 'split': 'all' is none of"):
        read_questions("svamp", str(tmp_path), {"all": "test.csv"})  # no rule says where "own" belongs


@pytest.mark.parametrize(("equation", "value"), [
    ("( 8.0 - 2.0 )", 6), ("( ( 4.0 - 2.0 ) + 3.0 )", 5), ("7*6", 42), ("-3 * (2 + 1) / 2", -4.5), ("+5", 5),
    (" 1 ", 1), ("(" * 140 + "1" + ")" * 140, 1)])
def test_equations_are_evaluated(equation, value):
    assert evaluate_equation(equation) == value


@pytest.mark.parametrize("equation", [
    "", "x + 1", "1 / 0", "2 ** 9", "9 // 2", "__import__('os')", "True", "'a'", "1, 2", "(1 + 2", "9e999", "1j",
    "[1][0]", "1 if 2 else 3", "34 and 45", "1" * 301, "1\n2", "lambda: 1"])
def test_what_is_no_equation_is_refused(equation):
    with pytest.raises(ValueError, match="numbers|finite"):
        evaluate_equation(equation)


@pytest.mark.parametrize(("value", "text"), [(8.0, "8"), (8, "8"), (2.5, "2.5"), (1 / 3, "0.333333"), (-0.0, "0"),
                                             (0.1 + 0.2, "0.3"), (1e15, "1000000000000000")])
def test_numbers_as_text(value, text):
    assert format_number(value) == text and float(text) == pytest.approx(value, abs=1e-6)


def test_nli_pairs_of_train_that_are_in_dev_or_test_go(tmp_path):
    def pairs(*words):
        return [{"premise": f"A {word}.", "hypothesis": f"Some {word}.", "label": 1} for word in words]

    for name, rows in (("train", pairs("cat", "dog", "cat", "owl", "pig")), ("dev", pairs("dog", "hen")),
                       ("test", pairs("Owl", "hen"))):
        (tmp_path / f"{name}.json").write_text(json.dumps(rows))
    frame = read_questions("esnli", str(tmp_path), {name: f"{name}.json" for name in ("train", "dev", "test")})
    assert [question.split()[2] for question in frame["question"]] == ["cat.", "pig.", "dog.", "Owl.", "hen."]
    assert frame.attrs["notes"] == {"train: question repeated in the split": 1, "train: question also in test": 1,
                                    "train: question also in dev": 1, "dev: question also in test": 1}


def riddle(number, **changes):
    return {"id": f"r{number}", "question": f"What is {number}\u2028plus one?", "choices": [str(number), "none"],
            "answer": "none", **changes}


def save(rows, path):
    if path.suffix == ".parquet":
        pd.DataFrame(rows).to_parquet(path)
    elif path.suffix == ".csv":
        pd.DataFrame([{**row, "choices": "|".join(row["choices"])} for row in rows]).to_csv(path, index=False)
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n", encoding="utf-8")
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    else:
        Dataset.from_list(rows).save_to_disk(path)


@pytest.mark.parametrize("name", ["t.parquet", "t.csv", "t.json", "t.jsonl", "folder"])
def test_a_table_of_ones_own_reads_the_same_from_every_format(name, tmp_path):
    rows = [riddle(number) for number in range(20)]
    save(rows, tmp_path / name)
    frame = read_questions("table", str(tmp_path), {"train": name})
    assert sizes(frame) == {"train": 18, "dev": 2}
    expected = {row["id"]: (row["question"], row["choices"], row["answer"]) for row in rows}
    assert {item.id: (item.question, item.choices, item.answer) for item in frame.itertuples()} == expected


def test_a_table_may_name_its_splits(tmp_path):
    rows = [riddle(number, split=split) for number, split in enumerate(("test", "train", "dev", "train"))]
    save(rows, tmp_path / "all.jsonl")
    frame = read_questions("table", str(tmp_path), {"all": "all.jsonl"})
    assert list(zip(frame["id"], frame["split"], strict=True)) == [("r1", "train"), ("r3", "train"), ("r2", "dev"),
                                                                  ("r0", "test")]


def test_one_published_file_is_cut_into_splits_that_share_no_passage(data):
    file = "boolq/dev_with_passages.parquet"
    frame, other = (read_questions("boolq_dev", str(data), seed=seed) for seed in (0, 1))
    again = read_questions("boolq", str(data), {"all": file})
    published = read_questions("boolq", str(data), {"test": file})
    assert sorted(frame["id"]) == sorted(published["id"]) and set(frame["split"]) == {"train", "dev", "test"}
    share = (frame["split"] == "test").mean()
    assert 0.07 < share < 0.13
    assert (frame.groupby("context")["split"].nunique() == 1).all()
    assert frame["split"].tolist() == again["split"].tolist()
    assert set(frame.loc[frame["split"] == "test", "id"]) != set(other.loc[other["split"] == "test", "id"])


def test_a_reader_is_an_entry_in_a_table(tmp_path, monkeypatch):
    def riddles(row):
        return {"id": str(row["nr"]), "question": row["riddle"], "choices": row["options"],
                "answer": row["options"][row["solution"]]} if row["nr"] else "number 0"

    monkeypatch.setitem(READERS, "riddles", Reader(riddles, local={"test": "r.json"}))
    rows = [{"nr": nr, "riddle": f"Riddle {nr}?", "options": ["a", "b"], "solution": 1} for nr in range(3)]
    (tmp_path / "r.json").write_text(json.dumps(rows))
    frame = read_questions("riddles", str(tmp_path))
    assert frame["id"].tolist() == ["1", "2"] and frame.attrs["notes"] == {"test: number 0": 1}


def test_a_data_set_may_be_made_by_a_program(monkeypatch):
    def make(seed):
        row = {"id": f"m{seed}", "split": "test", "human_explanations": [], **riddle(1)}
        return pd.DataFrame([row])

    monkeypatch.setitem(READERS, "made", Reader(make=make))
    assert read_questions("made", seed=7)["question"].tolist() == ["What is 1\u2028plus one?"]


# What is refused, and how it is named

GOOD = riddle(1)
BAD_TABLES = [
    ("t.json", [GOOD, riddle(2, answer="two")], r"t\.json: row 1: field 'answer': 'two' is not among the choices"),
    ("t.json", [GOOD, riddle(2), riddle(3, id="r1")], r"t\.json: row 2: field 'id': duplicate id 'r1', first in row 0"),
    ("t.jsonl", [GOOD, riddle(2, question="  ")], r"t\.jsonl: row 1: field 'question' is empty"),
    ("t.jsonl", [GOOD, riddle(2, question=None)], r"t\.jsonl: row 1: field 'question' is empty or not a text"),
    ("t.jsonl", [GOOD, riddle(2, answer=3)], r"t\.jsonl: row 1: field 'answer': '3' is not among the choices"),
    ("t.jsonl", [GOOD, riddle(2, answer=True)], r"t\.jsonl: row 1: field 'answer': 'true' is not among the choices"),
    ("t.jsonl", [GOOD, riddle(2, choices=["none"])], r"t\.jsonl: row 1: field 'choices': a list of one"),
    ("t.jsonl", [GOOD, riddle(2, choices=[None, "none"])], r"t\.jsonl: row 1: field 'choices': an empty choice"),
    ("t.jsonl", [GOOD, riddle(2, choices=[1, "1"])], r"t\.jsonl: row 1: field 'choices': the same choice twice"),
    ("t.jsonl", [GOOD, riddle(2, choices={"a": 1})], r"t\.jsonl: row 1: field 'choices': .* is not a list"),
    ("t.jsonl", [GOOD, riddle(2, choices="[1, ")], r"t\.jsonl: row 1: field 'choices': not readable JSON"),
    ("t.jsonl", [GOOD, riddle(2, choices=["none", "none"])], r"t\.jsonl: row 1: .*the same choice twice"),
    ("t.jsonl", [GOOD, riddle(2, split="train")], r"t\.jsonl: row 1: field 'split': 'train' in the file given as"),
    ("t.parquet", [{key: GOOD[key] for key in ("id", "question", "choices")}], r"t\.parquet: field 'answer': no such"),
    ("t.csv", [{key: GOOD[key] for key in ("id", "choices", "answer")}], r"t\.csv: field 'question': no such column"),
    ("t.json", [GOOD, 5], r"t\.json: row 1: not a JSON object"),
    ("t.json", [], r"t\.json: no rows"),
]


@pytest.mark.parametrize(("name", "rows", "message"), BAD_TABLES)
def test_bad_questions_are_named_by_file_row_and_field(name, rows, message, tmp_path):
    save(rows, tmp_path / name)
    with pytest.raises(StudyError, match=message):
        read_questions("table", str(tmp_path), {"test": name})


BAD_FILES = [
    ("t.parquet", b"PAR1 and no more", r"t\.parquet: not a readable Parquet file"),
    ("t.json", b'[{"id": "a",', r"t\.json: not readable JSON"),
    ("t.json", b"[" * 100_000, r"t\.json: not readable JSON"),
    ("t.jsonl", b'{"id": "a"}\n{"id": \n', r"t\.jsonl: row 1: not readable JSON"),
    ("t.jsonl", b"\xff\xfe\x00", r"t\.jsonl: not a readable UTF-8 text"),
    ("t.csv", b"id,question,choices,answer\na,b,c\n", r"t\.csv: row 0: another number of fields"),
    ("t.csv", b'id,question,choices,answer\na,"b"x,c,d\n', r"t\.csv: row 0: not readable CSV"),
    ("t.arrow", b"no arrow", r"t\.arrow: not readable Arrow data"),
    ("t.xlsx", b"", r"t\.xlsx: not a readable workbook .*save it again, or as 'CSV UTF-8'"),
    ("t.xlsx", b"PK\x03\x04 and so on", r"t\.xlsx: not a readable workbook"),
    ("t.doc", b"", r"t\.doc: unknown format; use \.parquet"),
    ("t.csv", b"PK\x03\x04 and so on", r"t\.csv: not a text but an Excel workbook .*end in \.xlsx"),
    ("t.csv", b"\xd0\xcf\x11\xe0 and so on", r"t\.csv: not a text but an old Excel workbook"),
    ("t.jsonl", b"PAR1 and so on", r"t\.jsonl: not a text but a Parquet file; let its name end in \.parquet"),
    ("t.csv", b"\x1f\x8b and so on", r"t\.csv: not a text but a compressed file; unpack it"),
    ("t.csv", "id,question\na,caf\u00e9\n".encode("latin-1"), r"t\.csv: not a readable UTF-8 text .*save it as UTF-8"),
    ("t.csv", b"id,question,question,answer\na,b,c,d\n", r"t\.csv: duplicate column 'question'"),
    ("t.csv", b"id,,choices,answer\na,b,c,d\n", r"t\.csv: a column has no name"),
    ("t.csv", b"id,question\na,b,c\nd,e\nf\n", r"t\.csv: another number of fields than the header: row 0, row 2$"),
    ("t.jsonl", b'{"id": \n{}\n7\n', r"2 faulty rows: .*t\.jsonl: not readable JSON: row 0; not a JSON object"),
]


@pytest.mark.parametrize(("name", "content", "message"), BAD_FILES)
def test_broken_files_are_named(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(StudyError, match=message):
        read_questions("table", str(tmp_path), {"test": name})


BAD_ROWS = [
    ("esnli", {"premise": "A.", "hypothesis": "B.", "label": 3}, "row 0: field 'label': 3 is none of entailment"),
    ("esnli", {"premise": "A.", "hypothesis": "B.", "label": True}, "row 0: field 'label': True is none of"),
    ("esnli", {"premise": "A.", "label": 1}, "row 0: field 'hypothesis': no such column"),
    ("esnli", {"premise": "A.", "hypothesis": " ", "label": 1}, "row 0: field 'hypothesis' is empty"),
    ("esnli", {"premise": "A.", "hypothesis": "B.", "label": -1}, "no questions"),
    ("strategyqa", {"qid": "a", "question": "Is it?", "answer": "maybe"}, "row 0: field 'answer': 'maybe' is neither"),
    ("creak", {"ex_id": "a", "sentence": "It is.", "label": "maybe"}, "row 0: field 'label': 'maybe' is neither true"),
    ("creak", {"ex_id": "a", "sentence": "", "label": "true"}, "row 0: field 'sentence' is empty"),
    ("cqa", {"id": "a", "question": "Is it?", "choices": ["x", "x"], "answer": "x"}, "field 'choices': a list of one"),
    ("cqa", {"question": "Is it?", "choices": ["x", "y"], "answer": "x"}, "row 0: field 'id': no such column"),
    ("anli", {"premise": "A.", "hypothesis": "B.", "label": 1}, "row 0: field 'uid': no such column"),
    ("anli", {"uid": "u", "context": "A.", "statement": "B.", "gold_label": "x"}, "row 0: field 'label': 'x' is none"),
    ("svamp", svamp_row(3, Answer="many"), "row 0: field 'Answer': 'many' is not a number"),
    ("svamp", svamp_row(3, Answer=True), "row 0: field 'Answer': True is not a number"),
    ("svamp", svamp_row(3, Answer="nan"), "row 0: field 'Answer': 'nan' is not a number"),
    ("svamp", svamp_row(3, Equation="x - 2"), "row 0: field 'Equation': 'x - 2' is not made of numbers"),
    ("svamp", svamp_row(3, Body=""), "row 0: field 'Body' is empty"),
]


@pytest.mark.parametrize(("dataset", "row", "message"), BAD_ROWS)
def test_bad_rows_of_known_data_sets(dataset, row, message, tmp_path):
    (tmp_path / "t.jsonl").write_text(json.dumps(row))
    with pytest.raises(StudyError, match=rf"t\.jsonl: .*{message}"):
        read_questions(dataset, str(tmp_path), {"test": "t.jsonl"})


def test_a_question_in_two_splits_of_ones_own_table_is_refused(tmp_path):
    save([riddle(1), riddle(2)], tmp_path / "a.json")
    save([riddle(3), riddle(2, id="other")], tmp_path / "b.json")
    with pytest.raises(StudyError, match="the same question is in split 'dev'"):
        read_questions("table", str(tmp_path), {"dev": "a.json", "test": "b.json"})


@pytest.mark.parametrize(("options", "message"), [
    ({"dataset": "cqq"}, "dataset 'cqq' is unknown; choose one of .*cqa"),
    ({"dataset": "cqa"}, "train.parquet: no such file"),
    ({"dataset": "cqa", "files": {"validation": "x.json"}}, "files: 'validation' is none of train, dev, test"),
    ({"dataset": "table"}, "dataset 'table' has no files of its own; name them"),
    ({"dataset": "table", "files": {"train": "empty"}}, "no Arrow files"),
])
def test_wrong_names_and_missing_files(options, message, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(StudyError, match=message):
        read_questions(folder=str(tmp_path), **options)


def test_one_training_question_is_too_few_for_a_dev_split(tmp_path):
    save([riddle(1)], tmp_path / "a.json")
    with pytest.raises(StudyError, match="1 training question cannot be split"):
        read_questions("table", str(tmp_path), {"train": "a.json"})


# All at once

def test_all_faulty_rows_of_all_files_are_said_at_once(tmp_path):
    (tmp_path / "a.csv").write_text("id;question;choices;answer\n"
                                    "1;Is it?;x|y;z\n"  # row 0: no such choice
                                    "2; ;x|y;x\n"  # row 1: empty
                                    "3;Is it?;x|y;w\n"  # row 2: no such choice
                                    "4;Is she?;x|y;y\n")
    save([riddle(4, id="4"), riddle(5, choices=["5", "5"]), {"id": "6", "question": "Is she?", "choices": ["y", "x"],
                                                            "answer": "y"}], tmp_path / "b.jsonl")
    with pytest.raises(StudyError) as caught:
        read_questions("table", str(tmp_path), {"dev": "a.csv", "test": "b.jsonl"})
    a, b = tmp_path / "a.csv", tmp_path / "b.jsonl"
    assert str(caught.value) == (
        f"6 faulty rows: {a}: field 'answer' is not among the choices: row 0 ('z'), row 2 ('w'); "
        f"field 'question' is empty or not a text: row 1; "
        f"{b}: field 'id': duplicate id: row 0 ('4'); "
        "field 'choices': the same choice twice: row 1; "
        "field 'question': it is also in split 'dev': row 2 (a.csv: row 3)")


def test_of_many_faulty_rows_the_first_are_named_and_the_rest_counted(tmp_path):
    save([riddle(number, answer=f"{number}\x1b[31m\ud83d" + "z" * 10 ** 6) for number in range(700, 800)],
         tmp_path / "t.json")
    with pytest.raises(StudyError) as caught:
        read_questions("table", str(tmp_path), {"test": "t.json"})
    message = str(caught.value)
    assert message.startswith("100 faulty rows: ") and len(message) <= 600
    told, more = len(re.findall(r"\brow \d", message)), int(message.split("; and ")[1].split(" more")[0])
    assert told + more == 100 and told <= 20 and "zzzzzzzzzzzzzzzzzzzzzzzz" not in message
    assert message.isprintable()


def test_a_row_keeps_its_number_where_rows_before_it_are_left_out(tmp_path, monkeypatch):
    monkeypatch.setitem(READERS, "riddles", Reader(lambda row: row if row["id"] != "r1" else "left out"))
    save([riddle(1), riddle(1), riddle(2), riddle(3, answer="x")], tmp_path / "t.json")
    with pytest.raises(StudyError, match=r"t\.json: row 3: field 'answer': 'x' is not among"):
        read_questions("riddles", str(tmp_path), {"test": "t.json"})


@pytest.mark.parametrize("field", ["id", "question", "answer", "choices", "human_explanations"])
@pytest.mark.parametrize("name", ["t.json", "t.jsonl"])
def test_half_of_a_character_is_a_line(name, field, tmp_path):
    """JSON can hold one half of a pair of surrogates, which no file and no model takes."""
    half = "x\ud83d"
    bad = {**riddle(2), field: [half, "none"] if field in ("choices", "human_explanations") else half}
    if field == "answer":
        bad["choices"] = [half, "none"]
    rows = [GOOD, bad]
    (tmp_path / name).write_text(json.dumps(rows) if name == "t.json" else "\n".join(map(json.dumps, rows)))
    with pytest.raises(StudyError, match=rf"{name}: row 1: field '{field}': half of a character") as caught:
        read_questions("table", str(tmp_path), {"test": name})
    str(caught.value).encode("utf-8")


def test_a_repeated_question_is_dropped_before_a_dev_split_is_drawn(tmp_path):
    """Whichever of the two were drawn, one would be in dev and the other in train."""
    rows = [riddle(number) for number in range(20)]
    again = [{**row, "id": f"again{row['id']}", "question": row["question"].upper()} for row in rows]
    save(rows + again, tmp_path / "t.json")
    for seed in range(3):
        frame = read_questions("table", str(tmp_path), {"train": "t.json"}, seed)
        assert sizes(frame) == {"train": 18, "dev": 2}
        assert frame.attrs["notes"] == {"train: question repeated in the split": 20}
        assert set(frame["id"]) == {row["id"] for row in rows}
    save([*rows, {**again[3], "answer": "3"}], tmp_path / "t.json")
    with pytest.raises(StudyError, match=r"t\.json: row 20: field 'answer': '3', but the same question in row 3"):
        read_questions("table", str(tmp_path), {"train": "t.json"})


def test_columns_that_are_not_used_are_counted(tmp_path):
    save([riddle(1, theme="long"), riddle(2, theme=None, split="test"), riddle(3, theme="x", mood=1)],
         tmp_path / "t.json")
    notes = read_questions("table", str(tmp_path), {"test": "t.json"}).attrs["notes"]
    assert notes == {"test: column 'theme' is not used": 2, "test: column 'mood' is not used": 1}


# What people save

PEOPLE_SAVE = {
    "semicolons": b"id;question;choices;answer\n1;\"Is it; yes\nor no?\";2,5|3,5;2,5\n",
    "tabs": b"id\tquestion\tchoices\tanswer\n1\t\"Is it; yes\nor no?\"\t2,5|3,5\t2,5\n",
    "byte order mark": "\ufeffid;question;choices;answer\r\n1;\"Is it; yes\nor no?\";2,5|3,5;2,5\r\n".encode(),
    "separator named": b"sep=;\r\nid;question;choices;answer\r\n1;\"Is it; yes\nor no?\";2,5|3,5;2,5\r\n",
    "UTF-16": "id\tquestion\tchoices\tanswer\r\n1\t\"Is it; yes\nor no?\"\t2,5|3,5\t2,5\r\n".encode("utf-16"),
    "empty columns and rows": b'id;question;choices;answer;;\n1;"Is it; yes\nor no?";2,5|3,5;2,5;;\n;;;;;\n;;;;;\n',
}


@pytest.mark.parametrize("ending", ["csv", "tsv"])
@pytest.mark.parametrize("kind", PEOPLE_SAVE)
def test_a_table_as_a_spreadsheet_saves_it(kind, ending, tmp_path):
    (tmp_path / f"t.{ending}").write_bytes(PEOPLE_SAVE[kind])
    frame = read_questions("table", str(tmp_path), {"test": f"t.{ending}"})
    assert frame.to_dict("records") == [{"id": "1", "split": "test", "question": "Is it; yes\nor no?",
                                         "choices": ["2,5", "3,5"], "answer": "2,5", "human_explanations": [],
                                         "context": "", "other_answers": []}]
    assert frame.attrs["notes"] == {}


def test_a_missing_column_is_said_with_those_that_are_there(tmp_path):
    (tmp_path / "t.csv").write_text("Nr;Frage;choices;answer\n1;Ist es?;x|y;x\n")
    with pytest.raises(StudyError, match="field 'question': no such column; there are 'Nr, Frage, choices, answer'"):
        read_questions("table", str(tmp_path), {"test": "t.csv"})


@pytest.mark.parametrize(("answer", "choices", "text", "texts"), [
    (1, [1, 2], "1", ["1", "2"]), (2.5, [1, 2.5], "2.5", ["1", "2.5"]), (1.0, [1, 2.5], "1", ["1", "2.5"]),
    (2, ["1", "2"], "2", ["1", "2"]), (2.0, ["1.0", "2.0"], "2.0", ["1.0", "2.0"]), ("2", [1, 2], "2", ["1", "2"]),
    (True, [True, False], "true", ["true", "false"]), (False, ["True", "False"], "False", ["True", "False"]),
    (True, ["no", "yes"], "yes", ["no", "yes"]), (False, ["No", "Yes"], "No", ["No", "Yes"]),
    (7, [], "7", []), (2.5, None, "2.5", []), (True, [], "true", [])])
def test_numbers_and_truth_values_are_texts(answer, choices, text, texts, tmp_path):
    save([{"id": 3, "question": "Is it?", "choices": choices, "answer": answer}], tmp_path / "t.json")
    item = read_questions("table", str(tmp_path), {"test": "t.json"}).iloc[0]
    assert (item["id"], item["answer"], item["choices"]) == ("3", text, texts)


def test_parquet_reads_like_json(tmp_path):
    """Nulls beside texts and lists, whole numbers beside a gap, bytes, large texts, categories."""
    rows = [{"id": 1, "question": "Is it?", "choices": ["x", "y"], "answer": "x", "human_explanations": None},
            {"id": 2, "question": "How many?", "choices": None, "answer": "7", "human_explanations": ["So.", None]}]
    (tmp_path / "t.json").write_text(json.dumps(rows))
    expected = read_questions("table", str(tmp_path), {"test": "t.json"}).to_dict("records")
    assert [item["choices"] for item in expected] == [["x", "y"], []]
    table = pa.Table.from_pylist(rows)
    for kind in (pa.string(), pa.large_string(), pa.binary(), pa.dictionary(pa.int8(), pa.string())):
        typed = [pa.array(table[name].to_pylist(), kind) if table[name].type == pa.string() else table[name]
                 for name in table.column_names]
        pq.write_table(pa.table(dict(zip(table.column_names, typed, strict=True))), tmp_path / "t.parquet")
        assert read_questions("table", str(tmp_path), {"test": "t.parquet"}).to_dict("records") == expected, kind


@pytest.mark.parametrize(("column", "values", "message"), [
    ("answer", [date(2026, 1, 2)], r"row 0: field 'answer' is empty or not a text or a number"),
    ("answer", [b"\xff\xfe"], r"t\.parquet: its values cannot be read"),
    ("choices", [[["x"], ["y"]]], r"row 0: field 'choices': an empty choice or one that is neither"),
])
def test_parquet_of_other_types_is_a_line(column, values, message, tmp_path):
    good = {"id": ["a"], "question": ["Is it?"], "choices": [["x", "y"]], "answer": ["x"]}
    pq.write_table(pa.table({**good, column: values}), tmp_path / "t.parquet")
    with pytest.raises(StudyError, match=message):
        read_questions("table", str(tmp_path), {"test": "t.parquet"})


NO_FILES = [
    ("a\0b.csv", "not a path"), ("x" * 300 + ".csv", "cannot be read .*too long"), ("\ud83d.csv", "not a path"),
    ("pipe.csv", "a device or a pipe and not a file"), ("/dev/zero", "a device or a pipe"),
    ("loop.csv", "cannot be read .*symbolic links"), ("folder.csv", "no Arrow files"), ("pipes", "a device or a pipe"),
    ("", "is not the path of one file"), (["a.csv", "b.csv"], "is not the path of one file"),
    (None, "is not the path of one file"), (7, "is not the path of one file"), ("~nosuch/x.csv", "no such file"),
]


@pytest.mark.parametrize(("path", "message"), NO_FILES)
def test_what_is_no_file_is_a_line_and_no_wait(path, message, tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "loop.csv").symlink_to(tmp_path / "loop.csv")
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "pipes").mkdir()
    os.mkfifo(tmp_path / "pipes" / "data-0.arrow")
    with time_limit(), pytest.raises(StudyError, match=message) as caught:
        read_questions("table", str(tmp_path), {"test": path})
    assert str(caught.value).isprintable() and len(str(caught.value)) <= 600


def test_a_home_of_nobody_is_a_line():
    with pytest.raises(StudyError, match="~nosuch/folder.*no such file or folder"):
        read_questions("table", "~nosuch/folder", {"test": "x.csv"})


# Before a run

def experiment(folder, files, **entry):
    path = folder / "own.yaml"
    path.write_text(json.dumps({  # JSON is YAML
        "about": "a", "needs": "n",
        "datasets": {"mini": {"reader": "table", "folder": str(folder), "files": files, **entry}},
        "teachers": {"mini-llama": {"promptings": ["few_shot"], "model": "kdutils/mini/teacher"}},
        "promptings": {"few_shot": {}}, "methods": {"label_only": {}},
        "students": {"mini-t5": {"model": "kdutils/mini/student"}}, "seeds": [0]}))
    return path


@pytest.mark.parametrize("more", [[], ["--dry-run"], ["--force"]])
@pytest.mark.parametrize(("files", "entry", "message"), [
    ({"train": "bad.json", "test": "good.json"}, {}, r"2 faulty rows: .*bad\.json: field 'answer' is not among the "
                                                     r"choices: row 1 \('x'\), row 3 \('x'\)$"),
    ({"train": "good.json"}, {}, "data set 'mini': no questions in the split test; a run needs train, dev and test"),
    ({"test": "good.json"}, {}, "data set 'mini': no questions in the split train and dev; a run needs"),
    ({"all": "named.json"}, {}, "data set 'mini': no questions in the split test"),
    ({"train": ["good.json", "bad.json"]}, {}, "files.train': .* is not the path of one file"),
    ({"train": "pipe.json"}, {}, "a device or a pipe"),
    ({"train": "no.json"}, {}, "files.train': .*no.json: no such file"),
    ({}, {}, "'table' has no files of its own"),
])
def test_a_run_and_a_dry_run_stop_at_a_bad_table_before_anything_is_written(
        files, entry, message, more, tmp_path, own_outputs, capsys):
    save([riddle(number) for number in range(9)], tmp_path / "good.json")
    save([riddle(number, answer="x" if number in (12, 14) else "none") for number in range(11, 19)],
         tmp_path / "bad.json")
    save([riddle(number, split="train" if number else "dev") for number in range(9)], tmp_path / "named.json")
    os.mkfifo(tmp_path / "pipe.json")
    with time_limit():
        assert main(["run", str(experiment(tmp_path, files, **entry)), *more]) == 2
    error = capsys.readouterr().err.strip()
    assert re.search(message, error) and error.count("\n") == 0 and error.startswith("error: ")
    assert not own_outputs.exists()


def test_a_good_table_passes_the_check_and_is_read_once(tmp_path, own_outputs, monkeypatch):
    from kdutils.experiments import inputs
    from kdutils.experiments.inputs import check_data
    from kdutils.experiments.loading import load_experiment

    save([riddle(number) for number in range(9)], tmp_path / "train.json")
    save([riddle(number) for number in range(9, 12)], tmp_path / "test.json")
    asked = []
    monkeypatch.setattr(inputs, "read_questions", lambda *source: asked.append(source) or read_questions(*source))
    loaded = load_experiment(experiment(tmp_path, {"train": "train.json", "test": "test.json"}))
    for _ in range(3):
        assert check_data(loaded) == []
    assert len(asked) == 1
    loaded.jobs[0].parameters["limits"] = {"train": 8, "test": 4}
    assert check_data(loaded) == ["data set 'mini': 4 questions of test are wanted, there are 3"]
    loaded.jobs[0].parameters["limits"] = {}
    save([riddle(1, answer="7")], tmp_path / "test.json")
    with pytest.raises(StudyError, match=r"test\.json: row 0"):
        check_data(loaded)
    (own_outputs / "own" / "data" / "mini").mkdir(parents=True)
    (own_outputs / "own" / "data" / "mini" / "metrics.json").write_text("{}")
    for name in ("train.json", "test.json"):
        (tmp_path / name).unlink()
    check_data(loaded)  # finished, and what it was made of is gone: there is nothing to stop at


def test_data_of_the_hub_are_not_downloaded_by_the_check(monkeypatch):
    from kdutils.experiments.inputs import check_data
    from kdutils.experiments.loading import load_experiment

    monkeypatch.delenv("KDUTILS_DATA", raising=False)
    monkeypatch.setattr("datasets.load_dataset", lambda *a, **b: pytest.fail("the network was asked"))
    check_data(load_experiment("published-all"))


# The commit of the Hub

def test_what_comes_from_the_hub_is_pinned_where_its_commit_is_known():
    unpinned = {name for name, reader in READERS.items() if reader.hub and not reader.revision}
    assert unpinned == {"cqa", "ecqa"}, "no source for a commit of Salesforce/cos_e and yangdong/ecqa is known"
    assert all(re.fullmatch("[0-9a-f]{40}", reader.revision) for reader in READERS.values() if reader.revision)


def test_the_commit_that_was_loaded_is_kept_and_another_can_be_asked_for(monkeypatch):
    asked, commit = [], "0123456789abcdef" * 2 + "01234567"

    class Loaded(list):
        cache_files = [{"filename": f"/cache/datasets/Salesforce___cos_e/v1.11/0.0.0/{commit}/cos_e-train.arrow"}]
        to_list = list.copy

    def load(name, config, revision, split):
        asked.append(revision)
        rows = [riddle(number, id=f"{split}{number}", question=f"{split} {number}?") for number in range(9)]
        return Loaded(rows)

    monkeypatch.delenv("KDUTILS_DATA", raising=False)
    monkeypatch.setattr("datasets.load_dataset", load)
    frame = limit_questions(read_questions("cqa", revision="v1"), {"train": 4})
    assert asked == ["v1", "v1"]
    assert frame.attrs["hub"]["train"] == {"repository": "Salesforce/cos_e", "revision": "v1", "commit": commit}
    read_questions("cqa")
    assert asked[2:] == [None, None]


def test_notebook_01_takes_a_revision_and_keeps_the_commit():
    from kdutils.experiments.steps import NOTEBOOKS, SETTINGS

    assert SETTINGS["01_look_at_the_data"].types()["revision"] == "str"
    text = (NOTEBOOKS / "01_look_at_the_data.ipynb").read_text()
    assert "seed, revision, unlabelled)" in text and 'questions.attrs.get(\\"hub\\"' in text


# Limits

def made(train, test):
    rows = [riddle(number, split="train" if number < train else "test") for number in range(train + test)]
    frame = pd.DataFrame(rows).assign(human_explanations=[[]] * len(rows))
    return check_questions(frame, "made")


def test_limits_keep_order_are_seeded_and_nested():
    frame = made(100, 10)
    small, large = limit_questions(frame, {"train": 20}, seed=3), limit_questions(frame, {"train": 50}, seed=3)
    assert sizes(small) == {"train": 20, "test": 10} and sizes(large) == {"train": 50, "test": 10}
    assert set(small["id"]) < set(large["id"])
    assert small["id"].tolist() == [name for name in frame["id"] if name in set(small["id"])]
    assert small.attrs["notes"] == {"train: left out by the limit": 80}
    assert set(limit_questions(frame, {"train": 20}, seed=4)["id"]) != set(small["id"])
    assert limit_questions(frame, {"train": 20}, seed=3).equals(small)
    assert sizes(limit_questions(frame, {"train": 0})) == {"test": 10}


@pytest.mark.parametrize("limits", [{}, {"train": -1}, {"train": 100, "test": 99}])
def test_no_limit_keeps_all(limits):
    frame = made(100, 10)
    assert limit_questions(frame, limits).equals(frame)


@pytest.mark.parametrize("limits", [{"validation": 3}, {"train": "3"}, {"train": True}, {"train": -2}])
def test_wrong_limits(limits):
    with pytest.raises(StudyError, match="limits: "):
        limit_questions(made(3, 1), limits)
