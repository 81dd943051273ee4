"""Damaged and odd tables of questions and published files: read, or one line that says what is wrong; no traceback.

KDUTILS_FUZZ_SECONDS says how long each of the fuzzers runs; the seeds are fixed, round by round.
"""

import csv
import io
import json

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from fuzzing import ODD, PLAIN, damaged, outcome, rounds, swapped

from kdutils.data.questions import check_questions
from kdutils.data.readers import read_questions
from kdutils.data.tables import read_explanations, read_parquet, read_table, write_table
from kdutils.teacher.published.explanations import published_explanations

ROWS = [{"id": f"q{number}", "question": f"What is {number} plus one?", "choices": [str(number), "none", "two"],
         "answer": "none", "human_explanations": ["Because."]} for number in range(6)]
SETS = {
    "table": ROWS,
    "cqa": [{**row, "abstractive_explanation": "so"} for row in ROWS],
    "esnli": [{"premise": f"A {row['id']}.", "hypothesis": "B.", "label": 1, "explanation_1": "so"} for row in ROWS],
    "strategyqa": [{"qid": row["id"], "question": row["question"], "answer": True, "facts": ["a", "b"]}
                   for row in ROWS],
    "svamp": [{"ID": f"chal-{n}", "Body": f"{n} nuts.", "Question": "How many?", "Equation": f"( {n}.0 - 1.0 )",
               "Answer": n - 1.0} for n in range(1, 7)],
    "anli": [{"uid": row["id"], "premise": f"{row['id']}.", "hypothesis": "B.", "label": 2, "reason": "so"}
             for row in ROWS],
}


@pytest.fixture(autouse=True)
def no_sync(monkeypatch):
    """Files of these tests need not survive a crash; to wait for the disk takes most of the time."""
    monkeypatch.setattr("os.fsync", lambda file: None)


def as_csv(rows, draw):
    text = io.StringIO()
    writer = csv.writer(text, delimiter=draw.choice(",;\t"))
    names = list(dict.fromkeys(name for row in rows if isinstance(row, dict) for name in row))
    writer.writerow(names)
    for row in rows:
        cells = [row.get(name) for name in names] if isinstance(row, dict) else [row]
        writer.writerow(["|".join(map(str, cell)) if isinstance(cell, list) else cell for cell in cells])
    return text.getvalue().encode(draw.choice(("utf-8", "utf-8", "utf-8-sig", "utf-16")), errors="surrogatepass")


def as_table(rows):
    try:
        return pa.table({name: [row.get(name) for row in rows] for row in rows[:1] for name in row})
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return None


def as_parquet(rows, draw):
    """Return the rows as Parquet, None for values that it cannot hold."""
    table = as_table(rows)
    if table is None:
        return None
    for place, name in enumerate(table.column_names):
        kind = draw.choice((pa.large_string(), pa.binary(), pa.dictionary(pa.int32(), pa.string()), None, None, None))
        if kind and table[name].type == pa.string():
            table = table.set_column(place, name, table[name].cast(kind) if not pa.types.is_dictionary(kind)
                                     else table[name].dictionary_encode())
    buffer = io.BytesIO()
    try:
        pq.write_table(table, buffer, compression=draw.choice(("snappy", "none", "zstd")))
    except pa.ArrowNotImplementedError:  # a mapping without keys in a list
        return None
    return buffer.getvalue()


def as_arrow(rows, draw):
    table = as_table(rows)
    if table is None:
        return None
    buffer = io.BytesIO()
    with pa.ipc.new_stream(buffer, table.schema) as stream:
        stream.write_table(table)
    return buffer.getvalue()


FORMATS = {
    "t.csv": as_csv, "t.parquet": as_parquet, "t.arrow": as_arrow,
    "t.json": lambda rows, draw: json.dumps(rows).encode(),
    "t.jsonl": lambda rows, draw: "\n".join(json.dumps(row) for row in rows).encode(),
}


def odd_rows(rows, draw, odd):
    """Return rows of which a few values are odd ones, or a whole column."""
    for _ in range(draw.choice((0, 1, 1, 2, 5))):
        rows = swapped(rows, draw, odd)
    rows = rows if isinstance(rows, list) else [rows]
    if draw.random() < 0.3:
        name, value = draw.choice(list(ROWS[0]) + ["label", "Answer"]), draw.choice(odd)
        rows = [{**row, name: value} if isinstance(row, dict) else row for row in rows]
    return rows


def test_tables_of_questions(tmp_path):
    """What is read can be written and read again, and holds as a table of questions."""
    for draw in rounds("questions", 3, 200):
        name, dataset = draw.choice(list(FORMATS)), draw.choice(["table", "table", *SETS])
        odd = ODD if name in ("t.parquet", "t.arrow") else PLAIN
        rows = odd_rows(SETS[dataset], draw, odd)
        if name in ("t.parquet", "t.arrow"):
            rows = [row for row in rows if isinstance(row, dict)]
        data = FORMATS[name](rows, draw)
        if data is None:
            continue
        if draw.random() < 0.6:
            data = damaged(data, draw)
        (tmp_path / name).write_bytes(data)
        split = draw.choice(("train", "test", "all"))
        frame, message = outcome(read_questions, dataset, str(tmp_path), {split: name})
        if frame is None:
            assert name in message or dataset in message
            continue
        stored = read_table(write_table(frame, tmp_path / "questions.parquet", "questions"), "questions")
        assert check_questions(stored, "stored").to_dict("records") == frame.to_dict("records")


def test_tables_of_the_study(tmp_path):
    """A damaged table of one's own run is a line too, whatever it is read for."""
    frame = pd.DataFrame([{**row, "split": "test"} for row in ROWS])
    whole = write_table(frame, tmp_path / "whole.parquet", "questions").read_bytes()
    for draw in rounds("tables", 1, 100):
        path = tmp_path / "questions.parquet"
        path.write_bytes(damaged(whole, draw))
        for function, more in ((read_table, ["questions"]), (read_parquet, []), (read_explanations, [])):
            found, message = outcome(function, path, *more)
            assert found is not None or "questions.parquet" in message


TEXTS = {"few_shot_positive_rationale": "Ice is cold.", "few_shot_revision": "It is cold.",
         **{f"counterfactual_prompt_answer_{place}_rationale": f"Because of {place}." for place in (1, 2, 3)}}


def test_published_files(tmp_path):
    questions = {dataset: outcome(read_questions, dataset, str(tmp_path / "source"), files)[0] for dataset, files in (
        (dataset, saved(tmp_path / "source", dataset)) for dataset in ("cqa", "esnli", "strategyqa"))}
    for draw in rounds("published", 2, 150):
        dataset = draw.choice(list(questions))
        rows = odd_rows([{**row, **TEXTS} for row in SETS[dataset]], draw, ODD)
        rows = [row for row in rows if isinstance(row, dict)]
        folder = tmp_path / draw.choice(("parquet", "shards"))
        make, path = ((as_parquet, folder / f"{dataset}-llama-test.parquet") if folder.name == "parquet" else
                      (as_arrow, folder / f"{dataset}-llama-test" / "shard_0" / "data-00000-of-00001.arrow"))
        data = make(rows, draw)
        if data is None:
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(damaged(data, draw) if draw.random() < 0.4 else data)
        stage = draw.choice(("few_shot", "critique_revision", "counterfactual"))
        found, message = outcome(published_explanations, questions[dataset], dataset, "llama", stage, str(folder))
        assert found is not None or f"{dataset}-llama-test" in message
        if found is not None:
            write_table(found, tmp_path / "explanations.parquet", "explanations")


def saved(folder, dataset):
    folder.mkdir(exist_ok=True)
    (folder / f"{dataset}.json").write_text(json.dumps(SETS[dataset]))
    return {"test": f"{dataset}.json"}


def test_parts_of_palm(tmp_path):
    questions = read_questions("cqa", str(tmp_path / "source"), saved(tmp_path / "source", "cqa"))
    folder = tmp_path / "cqa" / "llm"
    folder.mkdir(parents=True)
    for draw in rounds("palm", 1):
        inputs = odd_rows(SETS["cqa"], draw, PLAIN) if draw.random() < 0.4 else SETS["cqa"]
        texts = ["It is none of them. So the answer is (b) none."] * 6
        texts = swapped(texts, draw) if draw.random() < 0.7 else texts
        for path, value in ((folder / "test_CoT_0.json", texts), (tmp_path / "cqa" / "cqa_test.json", inputs)):
            data = json.dumps(value).encode()
            path.write_bytes(damaged(data, draw) if draw.random() < 0.3 else data)
        found, message = outcome(published_explanations, questions, "cqa", "palm", "few_shot", str(tmp_path))
        assert found is not None or "cqa" in message
        if found is not None:
            write_table(found, tmp_path / "explanations.parquet", "explanations")


def test_a_folder_of_the_library(tmp_path):
    """Damage to an Arrow folder as ``datasets`` saves it, and to nothing else beside it."""
    Dataset.from_list(ROWS).save_to_disk(tmp_path / "folder")
    [part] = (tmp_path / "folder").glob("*.arrow")
    whole = part.read_bytes()
    for draw in rounds("arrow", 0.5):
        part.write_bytes(damaged(whole, draw))
        frame, message = outcome(read_questions, "table", str(tmp_path), {"test": "folder"})
        assert frame is not None or "folder" in message or "table" in message
