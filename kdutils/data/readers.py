"""Data sets as questions: one reader per data set, its files, its place on the Hub, its split rules.

``read_questions`` returns a data frame with the columns of ``tables.QUESTIONS`` (one row per question,
splits in the order train, dev, test), checked file by file and once more as a whole; ``frame.attrs["notes"]``
says how many rows were dropped or changed, and why. READERS is the one place that knows where a data set
lies and how its rows are read. A reader of your own is an entry in that table::

    def _riddles(row):                        # row: one record of the file, as a dict
        return {"id": str(row["nr"]), "question": row["riddle"], "choices": row["options"],
                "answer": row["options"][row["solution"]], "human_explanations": [row["why"]]}

    READERS["riddles"] = Reader(_riddles, local={"train": "riddles/train.jsonl", "test": "riddles/test.jsonl"})

A normalise function returns the question as a dict, or a string, the reason why the row is left out. The dict may
hold a ``note``, counted in the notes, and ``place``, (split, order in it), for one file of all splits. A
KeyError (no such column) or ValueError that it raises is reported with file and row. A file with the
columns id, question, choices and answer needs no code at all: read it as the data set ``table``.

Sources: CommonsenseQA 1.11 with CoS-E (Rajani et al. 2019), e-SNLI (Camburu et al. 2018), StrategyQA (Geva et
al. 2021); the splits are those of arXiv 2504.16056, which takes the dev split of CommonsenseQA from Hsieh et al.
(2023): a tenth of train, seed 0. ANLI (Nie et al. 2020) is its round 1. SVAMP (Patel et al. 2021) is cut into 800
and 200 as in Hsieh et al. (2023); one of the 800 is left out, so its dev split is drawn from 799.

What a local folder lacks: the training inputs of ANLI's round 1. The dev split of its round 3 stands in for them
there (1,198 questions, the notes say so); for a result on ANLI take the Hub, or name your own file in `files`.
"""

import csv
import hashlib
import io
import json
import math
import os
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from kdutils.data.questions import SPLITS, check_questions, evaluate, number_text
from kdutils.data.tables import QUESTIONS, read_parquet
from kdutils.errors import StudyError
from kdutils.runs import project_path

NLI_LABELS = ("entailment", "neutral", "contradiction")
YES_NO = ("yes", "no")
DEV_SHARE = 0.1
SPLIT_COLUMN = "all"  # the key of `files` for one file whose column `split` names the splits


@dataclass(frozen=True)
class Reader:
    """Where a data set lies and how its rows become questions; everything has a default."""

    normalise: Callable | None = None  # row as a dict -> question as a dict, or why the row is left out
    local: dict = field(default_factory=dict)  # split -> file below the data folder
    hub: str = ""  # repository on the Hugging Face Hub, "" for none
    config: str | None = None
    revision: str | None = None
    hub_splits: dict = field(default_factory=dict)  # split -> split on the Hub
    hub_share: dict = field(default_factory=dict)  # split -> n: the first 1/n after a shuffle with seed 42
    stand_ins: dict = field(default_factory=dict)  # split -> what its file in `local` is instead, for the notes
    drop_repeats: bool = False  # drop repeated questions (test before dev before train); else they are an error
    make: Callable | None = None  # seed -> frame with the columns of QUESTIONS, for a data set made by a program


def read_questions(dataset, folder="", files=None, seed=0):
    """Return the questions of `dataset` (a key of READERS) as a checked data frame.

    `folder` holds the files; "" is the environment variable KDUTILS_DATA or, where that is not set,
    the Hugging Face Hub. `files` (split -> path, relative to `folder`) replaces the reader's default
    files, splits it does not name are not read; a path is Parquet, JSON (a list or lines), CSV or an
    Arrow folder saved by ``datasets``. `seed` draws the dev split of a data set that has none: a tenth
    of train; 0 gives the published one.

    Raises StudyError that names file, row (from 0) and field of the first question that cannot be used.
    """
    if dataset not in READERS:
        raise StudyError(f"dataset '{dataset}' is unknown; choose one of {', '.join(sorted(READERS))}")
    reader, notes = READERS[dataset], Counter()
    if reader.make:
        made = check_questions(reader.make(seed), dataset)
        made.attrs.setdefault("notes", {})
        return made
    frames = {}
    for split, (source, records) in _records(dataset, reader, folder, files, notes).items():
        frame = _to_frame(reader, records, split, source, notes)
        for name, part in _by_split(frame, split):
            frames[name] = part
    if reader.drop_repeats:
        _drop_overlap(frames, notes)
    if "dev" not in frames and "train" in frames:
        frames["train"], frames["dev"] = _dev_from_train(frames["train"], dataset, seed)
    whole = pd.concat([frames[split] for split in SPLITS if split in frames], ignore_index=True)
    whole = check_questions(whole, dataset)
    whole.attrs["notes"] = dict(notes)
    return whole


def limit_questions(frame, limits, seed=0):
    """Return `frame` with at most ``limits[split]`` questions per split, in their old order.

    A split that is absent from `limits`, or at -1, keeps all. The draw is seeded, and nested: with the
    same seed the 500 questions of a smaller limit are among the 1000 of a larger one.
    """
    for split, limit in limits.items():
        if split not in SPLITS or isinstance(limit, bool) or not isinstance(limit, int) or limit < -1:
            raise StudyError(f"limits: {split}: {limit!r}; expected one of {', '.join(SPLITS)} with a number of "
                             "questions, or -1 for all")
    notes, kept = dict(frame.attrs.get("notes", {})), []
    for split in dict.fromkeys(frame["split"]):
        rows = np.flatnonzero(frame["split"] == split)
        limit = limits.get(split, -1)
        if 0 <= limit < len(rows):
            notes[f"{split}: left out by the limit"] = len(rows) - limit
            rows = rows[np.random.default_rng(seed).permutation(len(rows))[:limit]]
        kept.extend(rows)
    limited = frame.iloc[sorted(kept)].reset_index(drop=True)
    limited.attrs["notes"] = notes
    return limited


def content_key(text):
    """Return the letters and digits of `text`, lower case: equal for one text in two tokenisations."""
    return re.sub(r"[\W_]+", "", text.casefold())


def nli_question(premise, hypothesis):
    """Return premise and hypothesis as one question, in the wording of arXiv 2504.16056."""
    return f"Premise: {premise} Hypothesis: {hypothesis} What is the relationship?"


def to_question(reader, record, where):
    """Return what `reader` makes of one record; its KeyError and ValueError become StudyErrors at `where`."""
    try:
        return reader.normalise(record)
    except KeyError as error:
        raise StudyError(f"{where}: field {error}: no such column") from error
    except (ValueError, TypeError, IndexError, AttributeError) as error:
        raise StudyError(f"{where}: {error}") from error


# Where the rows come from

def _records(dataset, reader, folder, files, notes):
    """Return split -> (name of the source, list of records)."""
    folder = folder or os.environ.get("KDUTILS_DATA", "")
    if not files and not folder and reader.hub:
        return {split: _from_hub(reader, split) for split in reader.hub_splits}
    paths = files or reader.local
    if not paths:
        raise StudyError(f"dataset '{dataset}' has no files of its own; name them: files = "
                         "{'train': 'my/train.jsonl', 'test': 'my/test.jsonl'}")
    for split in paths:
        if split not in (*SPLITS, SPLIT_COLUMN):
            raise StudyError(f"files: '{split}' is none of {', '.join(SPLITS)} (or '{SPLIT_COLUMN}' for one file "
                             "with a column 'split')")
    resolved = {split: project_path(folder) / path for split, path in paths.items()}
    records = {split: (path, read_records(path)) for split, path in resolved.items()}
    stand_ins = {} if files else reader.stand_ins
    notes.update({f"{split}: {what}": len(records[split][1]) for split, what in stand_ins.items()})
    return records


def _from_hub(reader, split):
    from datasets import load_dataset

    name = reader.hub_splits[split]
    source = f"{reader.hub} {name}"
    try:
        data = load_dataset(reader.hub, reader.config, revision=reader.revision, split=name)
    except Exception as error:  # a dozen unrelated types, by the layer that failed
        raise StudyError(f"{source}: cannot be loaded from the Hugging Face Hub ({type(error).__name__}: {error}); set "
                         "KDUTILS_DATA or `folder` to a folder that holds the files") from error
    if split in reader.hub_share:
        data = data.shuffle(seed=42).select(range(len(data) // reader.hub_share[split]))
    return source, data.to_list()


def read_records(path):
    """Return the rows of a file as a list of dicts with plain values; the ending of the name says the format.

    Parquet, JSON (one list, or one object per line), CSV (every value a text), or Arrow: a file or a
    folder written by ``Dataset.save_to_disk``. Raises StudyError naming the file and, for JSON and CSV, the row.
    """
    path = Path(path)
    if not path.exists():
        raise StudyError(f"{path}: no such file or folder; correct the path or `folder`")
    kind = "folder" if path.is_dir() else path.suffix.lower()
    if kind not in _FORMATS:
        raise StudyError(f"{path}: unknown format; use .parquet, .json, .jsonl, .csv or an Arrow folder")
    records = _FORMATS[kind](path)
    if not records:
        raise StudyError(f"{path}: no rows")
    return records


def _read_parquet(path):
    return [{name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in record.items()}
            for record in read_parquet(path).to_dict("records")]


def _read_json(path):
    text = _decoded(path)
    if text.lstrip().startswith("["):
        records = _parsed(text, path)
    else:
        lines = [line for line in text.split("\n") if line.strip()]
        records = [_parsed(line, f"{path}: row {row}") for row, line in enumerate(lines)]
    for row, record in enumerate(records):
        if not isinstance(record, dict):
            raise StudyError(f"{path}: row {row}: not a JSON object")
    return records


def _parsed(text, where):
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise StudyError(f"{where}: not readable JSON ({error})") from error


def _read_csv(path):
    reader = csv.DictReader(io.StringIO(_decoded(path), newline=""), strict=True)
    records = []
    try:
        for record in reader:
            if None in record or None in record.values():
                raise StudyError(f"{path}: row {len(records)}: another number of fields than the header")
            records.append(record)
    except csv.Error as error:
        raise StudyError(f"{path}: row {len(records)}: not readable CSV ({error})") from error
    return records


def _decoded(path):
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError(f"{path}: not a readable UTF-8 text ({error})") from error


def _read_arrow(path):
    parts = [path] if path.is_file() else sorted(path.glob("data-*.arrow"))
    if not parts:
        raise StudyError(f"{path}: no Arrow files (data-*.arrow) in this folder; of a folder with several splits, "
                         "name the folder of one split")
    try:
        return [record for part in parts for record in read_arrow_stream(part.read_bytes()).to_pylist()]
    except (pa.ArrowException, OSError) as error:
        raise StudyError(f"{path}: not readable Arrow data ({error})") from error


def read_arrow_stream(data):
    """Return the bytes of an Arrow stream (the format that ``datasets`` saves) as a table; ArrowException if broken."""
    with pa.ipc.open_stream(data) as stream:
        return stream.read_all()


_FORMATS = {".parquet": _read_parquet, ".json": _read_json, ".jsonl": _read_json, ".ndjson": _read_json,
            ".csv": _read_csv, ".arrow": _read_arrow, "folder": _read_arrow}


# From rows to checked questions

def _to_frame(reader, records, split, source, notes):
    items, places, seen = [], [], set()
    for row, record in enumerate(records):
        item = to_question(reader, record, f"{source}: row {row}")
        if isinstance(item, str):
            notes[f"{split}: {item}"] += 1
            continue
        note = item.pop("note", "")
        notes.update([f"{split}: {note}"] if note else [])
        place = item.pop("place", None)
        key = content_key(item["question"]) if reader.drop_repeats and isinstance(item.get("question"), str) else None
        if key and key in seen:
            notes[f"{split}: question repeated in the split"] += 1
            continue
        seen.add(key)
        if place and split == SPLIT_COLUMN:
            item["split"] = place[0]
            places.append(place)
        items.append({"split": split, "human_explanations": [], **item})
        if split != SPLIT_COLUMN and items[-1]["split"] != split:
            raise StudyError(f"{source}: row {row}: field 'split': {item['split']!r} in the file given as '{split}'")
    if places and len(places) == len(items):
        items = [item for _, item in sorted(zip(places, items, strict=True), key=lambda pair: pair[0])]
    frame = pd.DataFrame(items, columns=QUESTIONS.names, dtype=object)
    return check_questions(frame, source)


def _by_split(frame, split):
    """Cut the frame of one file into its splits; only a file under the key "all" has more than one."""
    if split != SPLIT_COLUMN:
        return [(split, frame)]
    return [(name, frame[frame["split"] == name]) for name in SPLITS if (frame["split"] == name).any()]


def _drop_overlap(frames, notes):
    """Drop from train what is in dev or test, and from dev what is in test: the test split is never touched."""
    seen = {}
    for split in reversed(SPLITS):
        if split not in frames:
            continue
        keys = frames[split]["question"].map(content_key)
        for other, known in seen.items():
            repeated = keys.isin(known)
            if repeated.any():
                notes[f"{split}: question also in {other}"] += int(repeated.sum())
            frames[split], keys = frames[split][~repeated], keys[~repeated]
        seen[split] = set(keys)


def _dev_from_train(train, dataset, seed):
    """Return (train, dev): dev is a tenth of train, drawn by ``datasets`` because the published split was."""
    from datasets import Dataset

    if len(train) < 2:
        raise StudyError(f"{dataset}: {len(train)} training question cannot be split into train and dev")
    parts = Dataset.from_dict({"row": range(len(train))}).train_test_split(test_size=DEV_SHARE, seed=seed)
    return train.iloc[parts["train"]["row"]], train.iloc[parts["test"]["row"]].assign(split="dev")


# One normalise function per data set

def _text(row, name):
    """Return a text that must be there."""
    if not isinstance(row[name], str) or not row[name].strip():
        raise ValueError(f"field '{name}' is empty or not a text")
    return row[name].strip()


def _texts(values):
    """Return the non-empty texts among `values`; what people wrote is often missing."""
    return [value.strip() for value in values if isinstance(value, str) and value.strip()]


def _choices(row):
    choices = row["choices"]
    if not isinstance(choices, (list, tuple)) or not all(isinstance(choice, str) for choice in choices):
        raise ValueError("field 'choices' is not a list of texts")
    return [choice.strip() for choice in choices]


def _cqa(row):
    choices = _choices(row)
    item = {"id": _text(row, "id"), "question": _text(row, "question"), "choices": list(dict.fromkeys(choices)),
            "answer": _text(row, "answer"), "human_explanations": _texts([row.get("abstractive_explanation")])}
    if len(item["choices"]) < len(choices):  # 146 questions of CommonsenseQA 1.11 name a choice twice
        item["note"] = "a choice named twice, kept once"
    return item


def _esnli(row):
    """Accept the column layouts of SNLI, of e-SNLI's text files (s1, s2, expl_i; tokenised) and of its CSV files."""
    row = {name.casefold(): value for name, value in row.items()}
    plain = _detokenised if "s1" in row else str.strip
    question, label = _nli(row, plain)
    if label is None:
        return "no gold label"
    explanations = [row.get(f"{stem}_{i}") for i in (1, 2, 3) for stem in ("expl", "explanation")]
    return {"id": _id_of("esnli", question), "question": question, "choices": list(NLI_LABELS), "answer": label,
            "human_explanations": [plain(text) for text in _texts(explanations)]}


def _anli(row):
    """Accept the Hub's columns, those of ANLI's own files (context, labels e, n, c) and of its annotated dev splits."""
    question, label = _nli(row)
    if label is None:
        return "no gold label"
    return {"id": _text(row, "uid"), "question": question, "choices": list(NLI_LABELS), "answer": label,
            "human_explanations": _texts([row.get("reason")])}


def _nli(row, plain=str.strip):
    """Return (question, label as a word); the columns of premise, hypothesis and label have several names."""
    premise, hypothesis = (plain(_text(row, _first(row, names))) for names in (
        ("premise", "s1", "sentence1", "context"), ("hypothesis", "s2", "sentence2", "statement")))
    return nli_question(premise, hypothesis), _nli_label(row[_first(row, ("label", "gold_label"))])


def _first(row, names):
    """Return the first of `names` that is a column of `row`; KeyError names the one that is usual."""
    for name in names:
        if name in row:
            return name
    raise KeyError(names[0])


def _nli_label(value):
    """Return the label as a word, None where the annotators did not agree (-1, "-")."""
    if isinstance(value, str):
        value = value.strip().casefold()
    elif isinstance(value, float) and value.is_integer():
        value = int(value)
    words = {"-1": None, "-": None} | {word: word for word in NLI_LABELS}
    words |= dict(zip("012enc", 2 * NLI_LABELS, strict=True))
    if isinstance(value, bool) or str(value) not in words:
        raise ValueError(f"field 'label': {value!r} is none of {', '.join(NLI_LABELS)}, 0, 1, 2, -1")
    return words[str(value)]


def _detokenised(text):
    """Undo the tokeniser of e-SNLI's text files: its dev and test would look unlike SNLI's train otherwise."""
    text = re.sub(r" ([.,!?;:%)\]])", r"\1", " ".join(text.split()))
    text = re.sub(r"([(\[$#]) ", r"\1", text)
    text = re.sub(r" (n't|'s|'re|'m|'ll|'ve|'d)\b", r"\1", text)
    return re.sub(r"`` ?(.*?) ?(?:''|``)", r'"\1"', text)


def _strategyqa(row):
    facts = row.get("facts") or []
    return {"id": _text(row, "qid"), "question": _text(row, "question"), "choices": list(YES_NO),
            "answer": _yes_no(row["answer"]),
            "human_explanations": _texts([facts if isinstance(facts, str) else " ".join(facts)])}


def _yes_no(value):
    words = {"true": "yes", "false": "no", "yes": "yes", "no": "no"}
    if str(value).strip().casefold() not in words:
        raise ValueError(f"field 'answer': {value!r} is neither yes nor no")
    return words[str(value).strip().casefold()]


def _svamp(row):
    """Return a question whose answer is a number, as text; its equation is checked and not kept: no person wrote it."""
    answer = _number(row, "Answer")
    try:
        value = evaluate(_text(row, "Equation"))
    except ValueError as error:
        raise ValueError(f"field 'Equation': {error}") from error
    if not math.isclose(value, answer, abs_tol=1e-6):
        return "the equation does not give the answer"
    identifier = _text(row, "ID")
    return {"id": identifier, "question": f"{_text(row, 'Body')} {_text(row, 'Question')}", "choices": [],
            "answer": number_text(answer), "place": _svamp_places().get(identifier)}


def _number(row, name):
    """Return a number, in CSV files a text, as float."""
    value = row[name]
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"field '{name}': {value!r} is not a number")
    return number


@cache
def _svamp_places():
    """Return id -> (split, order in it) as Hsieh et al. (2023) cut the 1,000 questions: 800 and 200, permuted."""
    order = np.random.RandomState(0).permutation(1000)
    return {f"chal-{number + 1}": ("train", i) if i < 800 else ("test", i - 800) for i, number in enumerate(order)}


def _table(row):
    """Read a person's own file; texts of CSV files hold lists as JSON or with | between the items."""
    item = {"id": _identifier(row["id"]), "question": _text(row, "question"),
            "choices": _choices({"choices": _listed(row, "choices")}), "answer": _text(row, "answer"),
            "human_explanations": _texts(_listed({"human_explanations": [], **row}, "human_explanations"))}
    return item | ({"split": _text(row, "split")} if "split" in row else {})


def _identifier(value):
    """Return an id as text; numbers are common in files that people write."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else _text({"id": value}, "id")


def _listed(row, name):
    """Return the list in a field; "" and null are empty ones."""
    value = row[name]
    if isinstance(value, str) and value.strip().startswith("["):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise ValueError(f"field '{name}': not readable JSON ({error})") from error
    if isinstance(value, str):
        value = [part.strip() for part in value.split("|")] if value.strip() else []
    if value is None or isinstance(value, (list, tuple)):
        return list(value or [])
    raise ValueError(f"field '{name}': {value!r} is not a list")


def _id_of(dataset, question):
    """Return an id for data sets that have none: it depends on the question's letters and digits alone."""
    return f"{dataset}-{hashlib.sha256(content_key(question).encode()).hexdigest()[:16]}"


def _mini(seed):
    """Return the questions of the embedded world."""
    from kdutils.mini.world import build_questions

    return build_questions(seed=seed)


READERS = {
    "mini": Reader(None, make=_mini),
    "cqa": Reader(
        _cqa, local={"train": "cqa/train.parquet", "test": "cqa/validation.parquet"},
        hub="Salesforce/cos_e", config="v1.11", hub_splits={"train": "train", "test": "validation"}),
    "esnli": Reader(
        _esnli, drop_repeats=True,
        # a 1/50 sample of SNLI's train, the one that the published explanations were written for
        local={"train": "teacher_llama/esnli-llama-train.parquet", "dev": "esnli_original/dev.parquet",
               "test": "esnli_original/test.parquet"},
        hub="stanfordnlp/snli", config="plain_text", revision="cdb5c3d5eed6ead6e5a341c8e56e669bb666725b",
        hub_splits={"train": "train", "dev": "validation", "test": "test"}, hub_share={"train": 50, "dev": 10}),
    "strategyqa": Reader(
        _strategyqa, drop_repeats=True,
        local={"train": "teacher_llama/strategyqa-llama-train.parquet",
               "test": "teacher_llama/strategyqa-llama-test.parquet"},
        hub="ChilleD/StrategyQA", hub_splits={"train": "train", "test": "test"}),
    "anli": Reader(  # round 1
        _anli, drop_repeats=True,
        local={"train": "anli/r3_dev_annotated.parquet", "dev": "palm540b_dss/anli1_valid_inputs.parquet",
               "test": "palm540b_dss/anli1_test_inputs.parquet"},
        stand_ins={"train": "the dev split of round 3 stands in for the training split of round 1"},
        hub="facebook/anli", hub_splits={"train": "train_r1", "dev": "dev_r1", "test": "test_r1"}),
    "svamp": Reader(  # the Hub's own splits are 700 and 300: both are read and cut anew, by the ids
        _svamp, local={SPLIT_COLUMN: "svamp/SVAMP.parquet"},
        hub="ChilleD/SVAMP", hub_splits={SPLIT_COLUMN: "train+test"}),
    "table": Reader(_table),
}
