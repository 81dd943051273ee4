"""The published explanations: the pinned tables, their measured defects, the join, the download, and PaLM-540B's."""

import json
import math
import os
import re
import threading
from datetime import date
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fuzzing import outcome

from kdutils.data.answers import evaluate_equation
from kdutils.data.datasets import NLI_LABELS, nli_question
from kdutils.data.readers import read_questions
from kdutils.data.records import read_records
from kdutils.data.tables import QUESTIONS, read_table, write_table
from kdutils.errors import StudyError
from kdutils.teacher.published.explanations import DATASETS, STAGES, published_explanations
from kdutils.teacher.published.joining import content_checksum
from kdutils.teacher.published.llm import REFUSED
from kdutils.teacher.published.llm_tables import BASE_URL, CONTENT, find_table
from kdutils.teacher.published.palm import PALM_SPLITS, parse_palm

POS, REVISION = "few_shot_positive_rationale", "few_shot_revision"
CF = "counterfactual_prompt_answer_{}_rationale"


def rows_of(name, folder="", base_url=BASE_URL, stage=""):
    return find_table(name, folder, base_url, stage)[1]


@pytest.fixture(scope="module")
def data():
    folder = Path(os.environ.get("KDUTILS_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not (folder / "teacher_llama").is_dir():
        pytest.skip("no published explanations: set KDUTILS_DATA to the folder that holds teacher_llama")
    return folder


@pytest.fixture(scope="module")
def tables(data):
    return {name: rows_of(name, data / "teacher_llama") for name in CONTENT}


# The pinned tables

@pytest.mark.parametrize(("name", "rows"), [
    ("cqa-llama-train", 9741), ("cqa-llama-test", 1221), ("esnli-llama-train", 10_983), ("esnli-llama-test", 9824),
    ("strategyqa-llama-train", 1603), ("strategyqa-llama-test", 687)])
def test_tables_have_the_pinned_content(tables, name, rows):
    assert len(tables[name]) == rows
    assert content_checksum(tables[name]) == CONTENT[name]


def test_one_changed_letter_changes_the_checksum(tables):
    rows = [dict(row) for row in tables["strategyqa-llama-test"]]
    rows[-1][REVISION] += "x"
    assert content_checksum(rows) != CONTENT["strategyqa-llama-test"]
    assert content_checksum(tables["strategyqa-llama-test"][::-1]) != CONTENT["strategyqa-llama-test"]


@pytest.mark.parametrize(("name", "rows"), [("cqa-llama-train", 975 + 974), ("strategyqa-llama-train", 161)])
def test_shards_hold_the_rows_of_the_parquet_file(data, tables, name, rows):
    shards = rows_of(name, data / "original_shards")
    assert shards == tables[name][:rows]


def starts_with_newline(text):
    return text.startswith("\n")


def first_line_empty(text):
    return not text.split("\n")[0].strip()


def runs_on(text):
    return "\n\n" in text


def truncated(text):
    return bool(text.strip()) and text.strip()[-1] not in ".!?\"')]”’"


@pytest.mark.parametrize(("name", "column", "defect", "percent"), [
    ("cqa", POS, starts_with_newline, 0), ("cqa", POS, truncated, 10.1), ("cqa", REVISION, first_line_empty, 0.05),
    ("cqa", REVISION, runs_on, 1.8), ("cqa", CF.format(1), truncated, 15.9), ("cqa", CF.format(3), truncated, 14.8),
    ("esnli", POS, starts_with_newline, 100), ("esnli", POS, first_line_empty, 100), ("esnli", POS, runs_on, 4.6),
    ("esnli", POS, truncated, 0.01), ("esnli", REVISION, starts_with_newline, 0), ("esnli", REVISION, runs_on, 38.0),
    ("esnli", REVISION, truncated, 13.1), ("esnli", CF.format(1), starts_with_newline, 100),
    ("esnli", CF.format(2), runs_on, 0.4), ("strategyqa", POS, starts_with_newline, 100),
    ("strategyqa", POS, runs_on, 11.5), ("strategyqa", REVISION, runs_on, 41.2),
    ("strategyqa", REVISION, truncated, 21.3), ("strategyqa", CF.format(2), first_line_empty, 100),
    ("strategyqa", CF.format(1), truncated, 1.6)])
def test_raw_texts_have_the_known_defects(tables, name, column, defect, percent):
    """Percentages measured before and independently of this code."""
    texts = [row[column] for row in tables[f"{name}-llama-train"]]
    tolerance = 0.06 if percent >= 0.1 else 0.006  # the figures were rounded
    assert 100 * sum(map(defect, texts)) / len(texts) == pytest.approx(percent, abs=tolerance)


# The join

def test_cqa_is_joined_by_id(data, tables):
    questions = read_questions("cqa", str(data))
    frame = published_explanations(questions, "cqa", "llama", "critique_revision", data / "teacher_llama")
    assert frame["id"].tolist() == questions["id"].tolist()
    raw = {row["id"]: row[REVISION] for name in ("cqa-llama-train", "cqa-llama-test") for row in tables[name]}
    assert frame["raw"].tolist() == [raw[key] for key in questions["id"]]
    assert frame["problem"].value_counts().to_dict() == {"": 10_955, "empty": 5 + 2}
    assert set(frame["stage"]) == {"revision"} and frame["answer"].tolist() == questions["answer"].tolist()
    assert frame.attrs["content"] == {"cqa-llama-train": "as published", "cqa-llama-test": "as published"}
    assert frame.attrs["notes"]["problem: empty"] == 7


def test_counterfactuals_follow_the_published_choices_where_one_was_merged(data, tables, tmp_path):
    questions = read_questions("cqa", str(data), {"test": "cqa/validation.parquet"})
    frame = published_explanations(questions, "cqa", "llama", "counterfactual", data / "teacher_llama")
    found = frame.groupby("id").apply(lambda part: dict(zip(part["answer"], part["raw"], strict=True)))
    merged = 0
    for row in tables["cqa-llama-test"]:
        choices = [choice.strip() for choice in row["choices"]]
        merged += len(set(choices)) < 5
        assert found[row["id"]] == {choice: row[CF.format(choices.index(choice) + 1)] for choice in choices}
    assert merged == 24 and len(frame) == 1221 * 5 - 24
    stored = read_table(write_table(frame, tmp_path / "explanations.parquet", "explanations"), "explanations")
    assert stored.to_dict("records")[0]["text"] == frame["text"][0]
    assert stored["prompt_tokens"].isna().all() and set(stored["finish_reason"]) == {"unknown"}


def test_esnli_is_joined_over_the_tokenised_spelling(data, tables):
    questions = read_questions("esnli", str(data), {"test": "esnli_original/test.parquet"})
    frame = published_explanations(questions, "esnli", "llama", "few_shot", data / "teacher_llama")
    assert set(frame["problem"]) == {""} and frame["text"].notna().all()
    assert frame["raw"].tolist() == [row[POS] for row in tables["esnli-llama-test"]]


def test_strategyqa_first_counterfactual_is_yes(data, tables):
    questions = read_questions("strategyqa", str(data), {"test": "teacher_llama/strategyqa-llama-test.parquet"})
    frame = published_explanations(questions, "strategyqa", "llama", "counterfactual", data / "teacher_llama")
    assert frame["answer"].tolist() == ["yes", "no"] * 687
    for i, answer in ((1, "yes"), (2, "no")):
        raw = [row[CF.format(i)] for row in tables["strategyqa-llama-test"]]
        assert frame.loc[frame["answer"] == answer, "raw"].tolist() == raw
        assert frame.loc[frame["answer"] == answer, "text"].notna().all()


def question(number, **changes):
    return {"id": f"q{number}", "split": "test", "question": f"What is {number}?", "choices": ["a", "b", "c"],
            "answer": "b", "human_explanations": [], **changes}


def published_row(number, **changes):
    texts = {POS: f"Because {number}.", REVISION: f"Thus {number}."} | {CF.format(i): f"Text {i}." for i in (1, 2, 3)}
    return {"id": f"q{number}", "question": f"What is {number}?", "choices": ["a", "b", "c"], "answer": "b",
            **texts, **changes}


def frame_of(*questions):
    return pd.DataFrame(list(questions), columns=QUESTIONS.names, dtype=object)


@pytest.fixture
def small(tmp_path):
    pd.DataFrame([published_row(n) for n in range(3)]).to_parquet(tmp_path / "cqa-llama-test.parquet")
    return tmp_path


def test_what_was_not_published_is_a_row_with_a_problem(small):
    questions = frame_of(question(0), question(9), question(1, answer="c"), question(2, question="Quite another?"))
    frame = published_explanations(questions, "cqa", "llama", "rationale", small)
    assert frame["text"].tolist() == ["Because 0.", None, None, None]
    assert frame["problem"].tolist() == ["", "not published", "published for another answer", "not published"]
    assert frame["raw"].tolist() == ["Because 0.", "", "", ""]
    assert frame.attrs["notes"]["problem: not published"] == 2
    assert frame.attrs["content"] == {"cqa-llama-test": "differs from what was published"}


def test_a_choice_that_was_not_published(small):
    frame = published_explanations(frame_of(question(0, choices=["c", "b", "z"])), "cqa", "llama", "counterfactual",
                                   small)
    assert list(zip(frame["answer"], frame["text"], frame["problem"], strict=True)) == [
        ("c", "Text 3.", ""), ("b", "Text 2.", ""), ("z", None, "not published")]


def test_a_missing_column_is_named(tmp_path):
    row = published_row(0)
    del row[CF.format(3)]
    pd.DataFrame([row]).to_parquet(tmp_path / "cqa-llama-test.parquet")
    with pytest.raises(StudyError, match="cqa-llama-test: row 0: no column 'counterfactual_prompt_answer_3_rationale'"):
        published_explanations(frame_of(question(0)), "cqa", "llama", "counterfactual", tmp_path)


# Values that are no texts

@pytest.mark.parametrize("value", [5, 2.5, True, ["a"], {"a": "b"}, date(2026, 1, 2), Decimal("1.5"), b"\xff\xfe"])
@pytest.mark.parametrize("stage", ["rationale", "counterfactual"])
@pytest.mark.parametrize("layout", ["parquet", "shard"])
def test_a_value_that_is_no_text_is_named(value, stage, layout, tmp_path):
    column = POS if stage == "rationale" else CF.format(2)
    rows = [published_row(0, **{column: value}), published_row(1, **{column: value})]
    where = tmp_path / "cqa-llama-test.parquet"
    if layout == "shard":
        where = tmp_path / "cqa-llama-test" / "shard_0" / "data-00000-of-00001.arrow"
        where.parent.mkdir(parents=True)
        where.write_bytes(arrow(rows))
    else:
        pq.write_table(pa.Table.from_pylist(rows), where)
    with pytest.raises(StudyError) as caught:
        published_explanations(frame_of(question(0)), "cqa", "llama", stage, tmp_path)
    said = str(caught.value)
    if isinstance(value, bytes):
        assert re.fullmatch(rf"{where}: its values cannot be read \(.*\)", said)
    else:
        assert said == f"cqa-llama-test: row 0: column '{column}': {value!r} is not a text"


@pytest.mark.parametrize("stage", ["rationale", "counterfactual"])
def test_texts_that_are_missing_are_counted_and_bytes_are_texts(stage, tmp_path):
    """A null, a column of numbers without any, and texts that a program has saved as bytes."""
    columns = [POS] if stage == "rationale" else [CF.format(place) for place in (1, 2, 3)]
    rows = [published_row(0, **dict.fromkeys(columns)), published_row(1)]
    table = pa.Table.from_pylist(rows)
    for column in columns:
        table = table.set_column(table.column_names.index(column), column, table[column].cast(pa.binary()))
    pq.write_table(table, tmp_path / "cqa-llama-test.parquet")
    frame = published_explanations(frame_of(question(0), question(1)), "cqa", "llama", stage, tmp_path)
    assert frame["problem"].tolist() == ["empty"] * len(columns) + [""] * len(columns)
    assert frame["text"].tolist()[len(columns):] == [rows[1][column] for column in columns]
    assert frame.attrs["notes"]["problem: empty"] == len(columns)
    empty = table.set_column(table.column_names.index(columns[0]), columns[0], pa.array([math.nan, math.nan]))
    pq.write_table(empty, tmp_path / "cqa-llama-test.parquet")
    frame = published_explanations(frame_of(question(0), question(1)), "cqa", "llama", stage, tmp_path)
    assert frame["problem"].tolist().count("empty") == len(columns) + 1


@pytest.mark.parametrize("value", [5, "ab", [1, 2, 3], {"a": 1}])
def test_choices_beside_a_published_pair_are_texts_or_named(value, tmp_path):
    rows = [{**snli(number), "choices": value, POS: "So."} for number in range(2)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "esnli-llama-test.parquet")
    with pytest.raises(StudyError, match="esnli-llama-test: row 0: field 'choices': .* is not a list of texts"):
        published_explanations(pairs(0, 1, split="test"), "esnli", "llama", "rationale", tmp_path)


@pytest.mark.parametrize("value", [5, 2.5, {"a": 1}])
def test_facts_that_are_none_are_named(value, tmp_path):
    rows = [{"qid": "a", "question": "Is it?", "answer": True, "facts": value, POS: "So."}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "strategyqa-llama-test.parquet")
    asked = frame_of(question(0, question="Is it?", choices=["yes", "no"], answer="yes"))
    with pytest.raises(StudyError, match="strategyqa-llama-test: row 0: field 'facts': .* is neither a text nor"):
        published_explanations(asked, "strategyqa", "llama", "rationale", tmp_path)


def test_every_bit_of_a_small_published_file_may_flip(small):
    """Read, or one line: 400 of its bits, and its cut at 100 lengths."""
    path = small / "cqa-llama-test.parquet"
    whole = path.read_bytes()
    places = [8 * len(whole) * step // 400 for step in range(400)]
    damaged = [whole[:bit // 8] + bytes([whole[bit // 8] ^ 1 << bit % 8]) + whole[bit // 8 + 1:] for bit in places]
    refused = 0
    for data in damaged + [whole[:len(whole) * step // 100] for step in range(100)]:
        path.write_bytes(data)
        frame, message = outcome(published_explanations, frame_of(question(0)), "cqa", "llama", "rationale", small)
        assert frame is not None or "cqa-llama-test" in message
        refused += frame is None
    assert refused > 200


@pytest.mark.parametrize("folder", ["~nosuch/x", "a\0b", "x" * 300])
def test_a_folder_that_is_none_is_a_line(folder, tmp_path):
    folder = folder if folder.startswith("~") else str(tmp_path / folder)
    for teacher in ("llama", "palm"):
        frame, message = outcome(published_explanations, frame_of(question(0)), "cqa", teacher, "few_shot", folder)
        assert frame is None and message


# The layout of one table per stage

def stage_row(number):
    return {key: value for key, value in published_row(number).items() if key in ("id", "question", "choices", "answer",
                                                                                 POS)}


@pytest.mark.parametrize("place", [
    "rationales__cqa-qwen-train.parquet", "stages/rationales__cqa-qwen-train.parquet",
    "rationales/cqa-qwen-train/shard_0", "../rationales/cqa-qwen-train/shard_0"])
def test_the_table_of_a_stage_stands_in_for_a_missing_one(tmp_path, place):
    folder = tmp_path / "consolidated"
    path = folder / place
    (path.parent if path.suffix else path).mkdir(parents=True)
    folder.mkdir(exist_ok=True)
    if path.suffix:
        pd.DataFrame([stage_row(n) for n in range(3)]).to_parquet(path)
    else:
        (path / "data-00000-of-00001.arrow").write_bytes(arrow([stage_row(n) for n in range(3)]))
    questions = frame_of(question(1, split="train"), question(2, split="dev"))
    frame = published_explanations(questions, "cqa", "qwen", "few_shot", folder)
    assert frame["text"].tolist() == ["Because 1.", "Because 2."]
    assert frame.attrs["content"] == {"rationales__cqa-qwen-train": "no checksum known"}
    assert rows_of("cqa-qwen-train", folder, stage="rationale")[2]["id"] == "q2"
    with pytest.raises(StudyError, match="nor rationales_revised__cqa-qwen-train.parquet or rationales_revised/cqa-"):
        published_explanations(questions, "cqa", "qwen", "critique_revision", folder)


def test_the_consolidated_table_comes_first(small):
    pd.DataFrame([{**stage_row(0), POS: "Of the stage."}]).to_parquet(small / "rationales__cqa-llama-test.parquet")
    frame = published_explanations(frame_of(question(0)), "cqa", "llama", "few_shot", small)
    assert frame["text"].tolist() == ["Because 0."]


def snli(number, **changes):
    return {"premise": f"P{number}.", "hypothesis": "H.", "label": 1, POS: f"Text {number}.", **changes}


def pairs(*numbers, split="dev"):
    return frame_of(*(question(n, split=split, question=nli_question(f"P{n}.", "H."), answer="neutral",
                               choices=list(NLI_LABELS)) for n in numbers))


def test_dev_of_esnli_is_found_in_train_or_in_the_published_tenth_of_validation(tmp_path):
    """The dev split is a part of train where a person cut it off there, else SNLI's validation split."""
    pd.DataFrame([snli(1)]).to_parquet(tmp_path / "esnli-llama-train.parquet")
    frame = published_explanations(pairs(1, 2), "esnli", "llama", "few_shot", tmp_path)
    assert frame["problem"].tolist() == ["", "not published"]
    pd.DataFrame([snli(2)]).to_parquet(tmp_path / "rationales__esnli-llama-validation.parquet")
    frame = published_explanations(pairs(1, 2), "esnli", "llama", "few_shot", tmp_path)
    assert frame["text"].tolist() == ["Text 1.", "Text 2."]
    assert set(frame.attrs["content"]) == {"esnli-llama-train", "rationales__esnli-llama-validation"}


@pytest.fixture(scope="module")
def some(data):
    """The first 300 test questions of each data set of arXiv 2504.16056."""
    files = {"cqa": "cqa/validation.parquet", "esnli": "esnli_original/test.parquet",
             "strategyqa": "teacher_llama/strategyqa-llama-test.parquet"}
    return {dataset: read_questions(dataset, str(data), {"test": path})[:300] for dataset, path in files.items()}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("teacher", ["llama", "qwen"])
@pytest.mark.parametrize("dataset", DATASETS)
def test_every_published_stage_has_texts_or_a_reason(data, some, dataset, teacher, stage):
    """On the development data, which has Llama's tables and may have Qwen's."""
    questions = some[dataset]
    there = (data / "teacher_llama" / f"{dataset}-{teacher}-test.parquet").is_file()
    if there and (dataset, teacher, STAGES[stage]) not in REFUSED:
        frame = published_explanations(questions, dataset, teacher, stage, data / "teacher_llama")
        assert frame["text"].notna().mean() > 0.98 and set(frame["id"]) == set(questions["id"])
    else:
        with pytest.raises(StudyError, match=f"neither {dataset}-{teacher}-test.parquet|: refused. "):
            published_explanations(questions, dataset, teacher, stage, data / "teacher_llama")


# Refusals

@pytest.mark.parametrize(("dataset", "teacher", "prompting", "split", "message"), [
    ("esnli", "qwen", "counterfactual", "test", "esnli-qwen, counterfactual: refused.*wrong teacher"),
    ("cqa", "qwen", "few_shot", "dev", "neither cqa-qwen-train.parquet .*nor rationales__cqa-qwen-train.parquet or "),
    ("squad", "llama", "few_shot", "test", "dataset 'squad' is unknown for teacher 'llama'; choose one of cqa"),
    ("strategyqa", "palm", "few_shot", "test", "dataset 'strategyqa' is unknown for teacher 'palm'; .* svamp, esnli"),
    ("svamp", "llama", "few_shot", "test", "dataset 'svamp' is unknown for teacher 'llama'"),
    ("cqa", "palm", "critique_revision", "test", "cqa-palm, revision: never published; PaLM-540B wrote few_shot"),
    ("cqa", "palm", "few_shot", "train", "neither cqa_train_CoT.parquet nor cqa/llm/train_CoT_0.json in this folder"),
    ("esnli", "palm", "few_shot", "train", "no chains of thought for 'esnli', split train"),
    ("cqa", "gpt", "few_shot", "test", "teacher 'gpt' is unknown; choose one of llama, qwen"),
    ("cqa", "llama", "contrastive", "test", "prompting 'contrastive' is unknown; choose one of few_shot"),
    ("cqa", "llama", "few_shot", "train", "neither cqa-llama-train.parquet nor cqa-llama-train/shard_0"),
])
def test_what_cannot_be_used_is_refused_by_name(dataset, teacher, prompting, split, message, small):
    with pytest.raises(StudyError, match=message):
        published_explanations(frame_of(question(0, split=split)), dataset, teacher, prompting, small)


def identical_share(some, others):
    return sum(one == other for one, other in zip(some, others, strict=True)) / len(some)


def test_llama_columns_are_not_copies_of_each_other(tables):
    rows = tables["esnli-llama-train"]
    assert identical_share([row[CF.format(1)] for row in rows], [row[CF.format(2)] for row in rows]) < 0.01
    revised = identical_share([row[POS].strip().split("\n\n")[0] for row in rows],
                              [row[REVISION].strip().split("\n\n")[0] for row in rows])
    assert revised == pytest.approx(0.021, abs=0.0006)  # measured before, independently


# The download

NAME = "cqa-llama-test"


def arrow(rows):
    table, sink = pa.Table.from_pylist(rows), pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server with ten shards of two rows each; the pin is that of these rows, the cache is empty."""
    rows = [published_row(n) for n in range(20)]
    pages = {f"/{NAME}/shard_{i}/data-00000-of-00001.arrow": arrow(rows[2 * i:2 * i + 2]) for i in range(10)}
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            body = pages.get(self.path)
            self.send_response(pages.get("missing", 503) if body is None else 200)
            self.send_header("Content-Length", str(pages.get("length", len(body or b""))))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *args):
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    http.pages, http.asked, http.rows = pages, asked, rows
    http.url = f"http://127.0.0.1:{http.server_port}"
    http.cache = tmp_path / "cache"
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("KDUTILS_CACHE", str(http.cache))
    monkeypatch.delenv("KDUTILS_DATA", raising=False)
    monkeypatch.setitem(CONTENT, NAME, content_checksum(rows))
    yield http
    http.shutdown()
    http.server_close()


def kept(server):
    return [path for path in server.cache.rglob("*") if path.is_file()]


def test_a_download_is_kept_and_needs_no_second_one(server):
    assert rows_of(NAME, base_url=server.url) == server.rows
    assert len(server.asked) == 10 and server.asked[2].startswith(f"/{NAME}/shard_2/")
    assert [path.name for path in kept(server)] == [f"{NAME}.parquet"]
    server.pages.clear()
    assert rows_of(NAME, base_url=server.url) == server.rows
    frame = published_explanations(frame_of(question(11)), "cqa", "llama", "few_shot", base_url=server.url)
    assert frame["text"].tolist() == ["Because 11."]
    assert len(server.asked) == 10


def test_altered_content_is_refused_and_nothing_is_kept(server):
    page = f"/{NAME}/shard_4/data-00000-of-00001.arrow"
    server.pages[page] = arrow([published_row(8), published_row(9, answer="a")])
    with pytest.raises(StudyError, match="not the published content .*nothing was kept"):
        rows_of(NAME, base_url=server.url)
    assert kept(server) == []


@pytest.mark.parametrize("spoil", [b"altered", None])
def test_a_spoiled_cache_is_downloaded_again(server, spoil):
    rows_of(NAME, base_url=server.url)
    [path] = kept(server)
    if spoil:
        path.write_bytes(spoil)
    else:
        pd.DataFrame([*server.rows[:-1], published_row(99)]).to_parquet(path)
    assert rows_of(NAME, base_url=server.url) == server.rows
    assert len(server.asked) == 20 and read_records(path) == server.rows


def test_server_errors_are_named_and_nothing_is_kept(server):
    del server.pages[f"/{NAME}/shard_7/data-00000-of-00001.arrow"]
    with pytest.raises(StudyError, match="shard_7/data-00000-of-00001.arrow: the server answers 503"):
        rows_of(NAME, base_url=server.url)
    assert kept(server) == []


@pytest.mark.parametrize(("change", "message"), [
    ({"length": 10_000_000}, "shard_0/.*: cannot be downloaded .*give a local `folder`"),
    ({f"/{NAME}/shard_0/data-00000-of-00001.arrow": b"version https://git-lfs"}, "shard_0/.*: not Arrow data"),
    ({f"/{NAME}/shard_1/data-00000-of-00001.arrow": arrow([{"x": 1}])}, "the shards have different columns"),
])
def test_half_and_broken_answers_are_refused(server, change, message):
    server.pages.update(change)
    with pytest.raises(StudyError, match=message):
        rows_of(NAME, base_url=server.url)
    assert kept(server) == []


def test_no_server_and_no_http(server):
    server.shutdown()
    server.server_close()
    with pytest.raises(StudyError, match="shard_0/.*: cannot be downloaded"):
        rows_of(NAME, base_url=server.url)
    with pytest.raises(StudyError, match="not an http address"):
        rows_of(NAME, base_url="file:///tmp")


def test_half_of_the_qwen_training_table_was_published(server):
    pages = {f"/esnli-qwen-train/shard_{i}/data-00000-of-00001.arrow":
             arrow([{"premise": f"P{i}.", "hypothesis": "H.", "label": 1, POS: f"Text {i}."}]) for i in range(5, 10)}
    server.pages.update(pages)
    questions = frame_of(*(question(i, split="train", question=nli_question(f"P{i}.", "H."), answer="neutral")
                           for i in (4, 7)))
    frame = published_explanations(questions, "esnli", "qwen", "few_shot", base_url=server.url)
    assert frame["problem"].tolist() == ["not published", ""] and frame["text"][1] == "Text 7."
    assert frame.attrs["content"] == {"esnli-qwen-train": "no checksum known"}
    assert "half of the training table" in frame.attrs["caution"]


def test_a_download_takes_the_table_of_the_stage_where_the_consolidated_one_is_not_there(server):
    name = "cqa-qwen-train"
    server.pages.update({f"/rationales/{name}/shard_{i}/data-00000-of-00001.arrow": arrow([stage_row(i)])
                         for i in range(10)})
    questions = frame_of(question(3, split="train"))
    with pytest.raises(StudyError, match=f"/{name}/shard_0/.*the server answers 503"):
        published_explanations(questions, "cqa", "qwen", "few_shot", base_url=server.url)
    server.pages["missing"] = 404
    frame = published_explanations(questions, "cqa", "qwen", "few_shot", base_url=server.url)
    assert frame["text"].tolist() == ["Because 3."]
    assert frame.attrs["content"] == {f"rationales__{name}": "no checksum known"}
    asked = len(server.asked)
    published_explanations(questions, "cqa", "qwen", "few_shot", base_url=server.url)
    assert len(server.asked) == asked and [path.name for path in kept(server)] == [f"rationales__{name}.parquet"]
    with pytest.raises(StudyError, match=f"/{name}/shard_0/.* 404 .*/rationales_revised/{name}/shard_0/.* 404 "):
        published_explanations(questions, "cqa", "qwen", "critique_revision", base_url=server.url)


def test_the_published_tenth_of_validation_is_downloaded_and_may_be_missing(server):
    server.pages["missing"] = 404
    server.pages.update({f"/esnli-qwen-train/shard_{i}/data-00000-of-00001.arrow": arrow([snli(i)])
                         for i in range(5, 10)})
    frame = published_explanations(pairs(1, 7), "esnli", "qwen", "few_shot", base_url=server.url)
    assert frame["problem"].tolist() == ["not published", ""]
    server.pages.update({f"/rationales/esnli-qwen-validation/shard_{i}/data-00000-of-00001.arrow": arrow([snli(i)])
                         for i in range(10)})
    frame = published_explanations(pairs(1, 7), "esnli", "qwen", "few_shot", base_url=server.url)
    assert frame["text"].tolist() == ["Text 1.", "Text 7."]


# PaLM-540B

PALM_FILES = {  # (rows, right answers as this project reads them, unusable) of each file
    ("cqa", "train"): (9741, 7343, 284 + 12), ("cqa", "test"): (1221, 958, 25 + 3),
    ("svamp", "train"): (799, 593, 22 + 11), ("svamp", "test"): (200, 155, 5 + 2),
    ("esnli", "dev"): (9840, 7199, 4), ("esnli", "test"): (9824, 7171, 0),
    ("anli", "dev"): (1000, 675, 1), ("anli", "test"): (1000, 664, 0)}


@pytest.fixture(scope="module")
def palm(data):
    if not (data / "palm540b_dss").is_dir():
        pytest.skip("no chains of thought: KDUTILS_DATA holds no palm540b_dss")
    found = {}
    for dataset in PALM_SPLITS:
        files = {"dev": "esnli_original/dev.parquet", "test": "esnli_original/test.parquet"}  # PaLM has no train
        questions = read_questions(dataset, str(data), files if dataset == "esnli" else None)
        found[dataset] = questions, published_explanations(questions, dataset, "palm", "few_shot", data)
    return found


def said(stem, text):
    """The answer by the rule of the data's manifest: the first that matches in the whole string, as Python reads it."""
    pattern = {"cqa": r"So the answer is \(([a-e])\)", "esnli": r"Answer: (\w+)", "anli1": r"So the answer is (\w+)",
               "svamp": r"The answer is (.*)\."}[stem]
    found = re.search(pattern, text)
    if stem != "svamp" or not found:
        return found[1] if found else None
    if not re.fullmatch(r"(?:[\d\s.()+*/-]|and)+", found[1]):
        return None
    return eval(found[1])  # digits, operators, brackets and "and", which Python reads as the second number


@pytest.mark.parametrize(("name", "share"), [
    ("esnli_valid", ".732"), ("esnli_test", ".730"), ("anli1_valid", ".668"), ("anli1_test", ".657"),
    ("cqa_train", ".759"), ("cqa_test", ".788"), ("svamp_train", ".745"), ("svamp_test", ".775")])
def test_strings_belong_to_the_rows_of_the_inputs(data, palm, name, share):
    """The agreement with gold that was measured before, by a rule of its own, on the raw files: rows are aligned."""
    texts = [row["cot"] for row in read_records(data / "palm540b_dss" / f"{name}_CoT.parquet")]
    stem, _, split = name.partition("_")
    place = {"cqa_train": "cqa/train", "cqa_test": "cqa/validation"}.get(name, f"palm540b_dss/{name}_inputs")
    rows = read_records(data / f"{place}.parquet")
    if stem == "cqa":
        gold = ["abcde"[row["choices"].index(row["answer"])] for row in rows]
        chosen = [row["choices"]["abcde".index(said(stem, text))] if said(stem, text) else None
                  for row, text in zip(rows, texts, strict=True)]
        gold = [row["answer"] for row in rows]
    else:
        gold = [NLI_LABELS[row["label"]] if stem != "svamp" else evaluate_equation(row["label"]) for row in rows]
        chosen = [said(stem, text) for text in texts]
    assert f"{sum(a == b for a, b in zip(chosen, gold, strict=True)) / len(gold):.3f}" == f"0{share}"


@pytest.mark.parametrize(("dataset", "split"), PALM_FILES)
def test_own_answers_of_palm(palm, dataset, split):
    """Counts differ from the manifest's by what it counts and this project does not.

    Answers of made-up next questions, one of several answers, "and" in an equation, the SVAMP row that the reader
    leaves out; and by what it does not count: "so the answer is", an answer by its words where the letter is wrong.
    """
    questions, frame = palm[dataset]
    splits = ("train", "dev") if split == "train" else (split,)
    part = frame[questions["split"].isin(splits).to_numpy()]
    gold = questions.loc[questions["split"].isin(splits), "answer"]
    assert (len(part), (part["answer"].to_numpy() == gold.to_numpy()).sum(), part["text"].isna().sum()) == PALM_FILES[
        dataset, split]
    name, files = PALM_SPLITS[dataset]
    key = f"{name}_{files[split]}"
    assert frame.attrs["content"][key] == "as published"
    rows, right, _ = PALM_FILES[dataset, split]
    assert frame.attrs["notes"][f"{key}: share of own answers that are right"] == round(right / rows, 4)


def test_palms_texts_are_rationales_alone(palm):
    for dataset, (questions, frame) in palm.items():
        texts = frame["text"].dropna()
        assert not texts.str.contains(r"\n|Premise:|(?:^| )Q:|Answer:|[Ss]o the answer is|The answer is \(").any()
        assert (frame["text"].notna() == (frame["problem"] == "")).all()
        assert set(frame["stage"]) == {"rationale"} and frame["id"].tolist() == questions["id"].tolist()
        own = frame.loc[frame["text"].notna(), "answer"]
        missing = questions.loc[(frame["problem"] == "not published").to_numpy(), "split"]
        assert set(missing) == ({"train"} if dataset == "anli" else set())  # its local train is another round
        assert dataset not in ("esnli", "anli") or set(own) == set(NLI_LABELS)
        assert "not told the answer" in frame.attrs["caution"]


CUT = ["cut_at_answer"]


@pytest.mark.parametrize(("dataset", "text", "choices", "answer", "rationale", "changes", "problem"), [
    ("cqa", "It is a fish. So the answer is (b) tuna.\n\nQ: What? So the answer is (a) cow.", ["cow", "tuna"], "tuna",
     "It is a fish.", CUT, ""),
    ("cqa", "It is a fish. So the answer is (a) Tuna!", ["cow", "tuna"], "tuna", "It is a fish.", CUT, ""),  # its words
    ("cqa", "It is tall. So the answer is (a) skyscraper.", ["skyscaper", "cow"], "skyscaper", "It is tall.", CUT, ""),
    ("cqa", "It is cold. So the answer is (a) ice.", ["water cooler", "cow"], "", None, [],
     "answer is none of the choices"),
    ("cqa", "It is. So the answer is either (a) cow or (b) tuna.", ["cow", "tuna"], "", None, [],
     "more than one answer"),
    ("cqa", "It is. So the answer is one of these.", ["cow", "tuna"], "", None, [], "answer is none of the choices"),
    ("cqa", "It is a fish and then", ["cow", "tuna"], "", None, [], "no answer"),
    ("cqa", "So the answer is (a) cow.", ["cow", "tuna"], "cow", None, CUT, "empty"),
    ("anli", "He was born in 1960, so the answer is contradiction.\n\nPremise: X", (), "contradiction",
     "He was born in 1960.", [*CUT, "full_stop_added"], ""),
    ("anli", "The answer is 71. So the answer is entailment.", (), "entailment", "The answer is 71.", CUT, ""),
    ("anli", "It is. So the answer is entail", (), "", None, [], "answer is none of the choices"),
    ("esnli", "The dog is outside\nAnswer: neutral\n\nPremise: A cat.", (), "neutral", "The dog is outside.",
     [*CUT, "full_stop_added"], ""),
    ("svamp", "He has 8.\nHe eats 2. 8 - 2 = 6. The answer is (8 - 2).\n\nQ: X", (), "6",
     "He has 8. He eats 2. 8 - 2 = 6.", [*CUT, "joined_lines"], ""),
    ("svamp", "It costs 3. The answer is ($1,200 / 3).", (), "400", "It costs 3.", CUT, ""),
    ("svamp", "It is so. The answer is (some - 8).", (), "", None, [], "answer is not a number"),
    ("svamp", "It is so. The answer is (9 + 6", (), "", None, [], "answer is not a number"),
])
def test_palms_strings_are_cut_at_the_first_answer(dataset, text, choices, answer, rationale, changes, problem):
    found, cleaned = parse_palm(dataset, text, choices)
    assert (found, cleaned.text, cleaned.changes, cleaned.problem) == (answer, rationale, changes, problem)


def test_palm_sees_the_choices_as_they_were_published(tmp_path):
    """A choice that stands twice is merged in the study's questions; the letters count it."""
    (tmp_path / "cqa").mkdir()
    (tmp_path / "palm540b_dss").mkdir()
    row = published_row(0, choices=["x", "x", "skyscaper"], answer="skyscaper")
    pd.DataFrame([row]).to_parquet(tmp_path / "cqa" / "validation.parquet")
    pd.DataFrame([{"file": 0, "index": 0, "cot": "It is high. So the answer is (c) skyscraper."}]).to_parquet(
        tmp_path / "palm540b_dss" / "cqa_test_CoT.parquet")
    asked = frame_of(question(0, choices=["x", "skyscaper"], answer="skyscaper"), question(5))
    for folder in (tmp_path, tmp_path / "palm540b_dss"):
        frame = published_explanations(asked, "cqa", "palm", "rationale", folder)
        assert frame["answer"].tolist() == ["skyscaper", ""] and frame["problem"].tolist() == ["", "not published"]
        assert frame.attrs["content"] == {"cqa_test": "differs from what was published"}
        assert frame.attrs["notes"]["cqa_test: share of own answers that are right"] == 1


def unpacked(folder, texts, inputs, split="train"):
    """Write the layout of datasets.zip: at most one text per part, so that the parts must be put in their order."""
    (folder / "anli1" / "llm").mkdir(parents=True, exist_ok=True)
    for part, text in enumerate(texts):
        (folder / "anli1" / "llm" / f"{split}_CoT_{part}.json").write_text(json.dumps([text]))
    (folder / "anli1" / f"anli1_{split}.json").write_text("\n".join(json.dumps(row) for row in inputs))


def test_palm_from_the_unpacked_zip_file(tmp_path):
    numbers = range(12)
    texts = [f"Because {n}. So the answer is {NLI_LABELS[n % 3]}.\n\nPremise: next" for n in numbers]
    inputs = [{"uid": f"u{n}", "premise": f"P{n}.", "hypothesis": "H.", "label": 1, "reason": ""} for n in numbers]
    unpacked(tmp_path, texts, inputs)
    frame = published_explanations(pairs(*numbers, split="train"), "anli", "palm", "few_shot", tmp_path)
    assert frame["text"].tolist() == [f"Because {n}." for n in numbers]
    assert frame["answer"].tolist() == [NLI_LABELS[n % 3] for n in numbers]
    assert frame.attrs["content"] == {"anli1_train": "no checksum known"}
    assert read_table(write_table(frame, tmp_path / "e.parquet", "explanations"), "explanations")["text"][3]


@pytest.mark.parametrize(("texts", "message"), [
    (["So the answer is neutral."] * 2, "anli1_train.json: 1 rows, but anli1_train_CoT has 2; they are joined row"),
    ([5], "anli1_train_CoT: row 0: field 'cot' is not a text"),
])
def test_broken_files_of_palm_are_named(tmp_path, texts, message):
    unpacked(tmp_path, texts, [{"uid": "u", "premise": "P0.", "hypothesis": "H.", "label": 1}])
    with pytest.raises(StudyError, match=message):
        published_explanations(pairs(0, split="train"), "anli", "palm", "few_shot", tmp_path)


@pytest.mark.parametrize(("content", "message"), [
    ("{", "not readable JSON"), ('{"a": 1}', "not a list of texts"), ("[" * 100_000, "not readable JSON")])
def test_a_part_that_is_no_list_is_named(tmp_path, content, message):
    unpacked(tmp_path, ["x"], [])
    (tmp_path / "anli1" / "llm" / "train_CoT_0.json").write_text(content)
    with pytest.raises(StudyError, match=f"train_CoT_0.json: {message}"):
        published_explanations(pairs(0, split="train"), "anli", "palm", "few_shot", tmp_path)


@pytest.mark.parametrize(("name", "message"), [
    ("train_CoT_2.json", "3 parts train_CoT_.*json, but train_CoT_1.json is not among them"),
    ("train_CoT_x.json", "3 parts train_CoT_.*json, but train_CoT_1.json is not among them"),
    ("train_CoT_01.json", "3 parts train_CoT_.*json, but train_CoT_1.json is not among them")])
def test_a_part_of_palm_that_is_missing_is_named(tmp_path, name, message):
    unpacked(tmp_path, ["x"] * 3, [])
    folder = tmp_path / "anli1" / "llm"
    (folder / "train_CoT_2.json").unlink()
    (folder / "train_CoT_1.json").rename(folder / name)
    (folder / "train_CoT_9.json").write_text("[]")
    with pytest.raises(StudyError, match=message):
        published_explanations(pairs(0, split="train"), "anli", "palm", "few_shot", tmp_path)


def test_half_of_a_character_in_a_string_of_palm_is_named(tmp_path):
    unpacked(tmp_path, ["So the answer is neutral.", "x\ud83d"],
             [{"uid": f"u{n}", "premise": f"P{n}.", "hypothesis": "H.", "label": 1} for n in range(2)])
    with pytest.raises(StudyError, match="anli1_train_CoT: row 1: field 'cot': half of a character"):
        published_explanations(pairs(0, 1, split="train"), "anli", "palm", "few_shot", tmp_path)


def test_no_download_of_palm_is_known(monkeypatch, tmp_path):
    for value in ("", str(tmp_path)):
        monkeypatch.setenv("KDUTILS_DATA", value)
        with pytest.raises(StudyError, match="no download is known; unpack datasets.zip of google-research"):
            published_explanations(frame_of(question(0)), "cqa", "palm", "few_shot")


# People

def test_what_people_wrote_is_a_teacher_wherever_a_data_set_has_it():
    table = frame_of(question(0), question(1), question(2))
    table["human_explanations"] = [["  Because of\nthe rain. ", "Another one."], [], [" ", "It is <b>wet</b>."]]
    frame = published_explanations(table, "any", "people", "few_shot")
    assert frame["id"].tolist() == table["id"].tolist() and frame["answer"].tolist() == table["answer"].tolist()
    assert frame["raw"].tolist() == ["  Because of\nthe rain. ", "", "It is <b>wet</b>."]
    assert frame["text"].tolist() == ["Because of the rain.", None, "It is <b>wet</b>."]
    assert frame["problem"].tolist() == ["", "not published", ""]
    twice = published_explanations(table, "any", "people", "few_shot", samples=2)
    assert twice["id"].tolist() == [*table["id"]] * 2 and twice["sample"].tolist() == [0, 0, 0, 1, 1, 1]
    assert twice["text"].tolist() == ["Because of the rain.", None, "It is <b>wet</b>.", "Another one.", None, None]
    assert twice[:3].equals(frame)


def test_people_explained_nothing_or_not_this(small):
    with pytest.raises(StudyError, match="any-people: none of the 1 questions has an explanation by people"):
        published_explanations(frame_of(question(0)), "any", "people", "few_shot")
    with pytest.raises(StudyError, match="esnli-people, counterfactual: never published; people wrote few_shot rat"):
        published_explanations(frame_of(question(0)), "esnli", "people", "counterfactual")


def test_cqa_by_people_is_cos_e(data):
    if not (data / "cos_e").is_dir():
        pytest.skip("no CoS-E: set KDUTILS_DATA to the folder that holds cos_e")
    known = pd.read_parquet(data / "cos_e" / "v1.11_dev.parquet").set_index("id")["explanation"].str["open-ended"]
    questions = read_questions("cqa", data, {"test": "cqa/validation.parquet"})
    frame = published_explanations(questions, "cqa", "people", "few_shot")
    assert len(frame) > 1000 and (frame["raw"].str.strip() == known[frame["id"]].str.strip().to_numpy()).mean() > 0.99
