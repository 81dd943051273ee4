"""Data sets as questions: one reader per data set, its files, its place on the Hub, its split rules.

``read_questions`` returns a data frame with the columns of ``tables.QUESTIONS`` (one row per question,
splits in the order train, dev, test), checked file by file and once more as a whole; ``frame.attrs["notes"]``
says how many rows were dropped or changed, and why, and for data from the Hub ``frame.attrs["hub"]`` which commit
was read. READERS is the one place that knows where a data set
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

import hashlib
import json
import math
import os
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from kdutils.data.questions import (
    HALF,
    SPLITS,
    Fault,
    check_questions,
    drop_repeats,
    evaluate,
    is_whole_text,
    number_text,
    pair_faults,
    refuse,
    row_faults,
)
from kdutils.data.records import read_records
from kdutils.data.tables import QUESTIONS, first_line
from kdutils.errors import StudyError, shown
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
    columns: tuple = ()  # all columns that are read, where the notes are to say which others are not


def read_questions(dataset, folder="", files=None, seed=0, revision=""):
    """Return the questions of `dataset` (a key of READERS) as a checked data frame.

    `folder` holds the files; "" is the environment variable KDUTILS_DATA or, where that is not set,
    the Hugging Face Hub. `files` (split -> path, relative to `folder`) replaces the reader's default
    files, splits it does not name are not read; a path is Parquet, JSON (a list or lines), CSV (with commas,
    semicolons or tabs) or an Arrow folder saved by ``datasets``. `seed` draws the dev split of a data set that has
    none: a tenth of train; 0 gives the published one. A question that stands in such a train split twice is dropped
    and counted first. `revision` is the commit, branch or tag on the Hub; "" is the reader's own.

    Raises one StudyError that names file, row (from 0) and field of all questions that cannot be used.
    """
    if dataset not in READERS:
        raise StudyError(f"dataset '{dataset}' is unknown; choose one of {', '.join(sorted(READERS))}")
    reader, notes = READERS[dataset], Counter()
    if reader.make:
        made = check_questions(reader.make(seed), dataset)
        made.attrs.setdefault("notes", {})
        return made
    frames, places, faults, commits = {}, {}, [], {}
    for split, (source, records) in _records(dataset, reader, folder, files, notes, revision, commits).items():
        frame = _to_frame(reader, records, split, source, notes, places, faults)
        for name, part in _by_split(frame, split):
            frames[name] = part
    if reader.drop_repeats:
        _drop_overlap(frames, notes)
    draws = "dev" not in frames and "train" in frames
    if draws and not reader.drop_repeats:
        frames["train"], dropped, contrary = drop_repeats(frames["train"], places)
        notes.update({"train: question repeated in the split": dropped} if dropped else {})
        faults += contrary
    refuse(faults + pair_faults(_joined(frames), places))
    if draws:
        frames["train"], frames["dev"] = _dev_from_train(frames["train"], dataset, seed)
    whole = _joined(frames).reset_index(drop=True)
    if not len(whole):
        raise StudyError(f"{dataset}: no questions")
    whole.attrs.update({"notes": dict(notes)} | ({"hub": commits} if commits else {}))
    return whole


def _joined(frames):
    return pd.concat([frames[split] for split in SPLITS if split in frames] or [_empty_frame()])


def _empty_frame():
    return pd.DataFrame([], columns=QUESTIONS.names, dtype=object)


def limit_questions(frame, limits, seed=0):
    """Return `frame` with at most ``limits[split]`` questions per split, in their old order.

    A split that is absent from `limits`, or at -1, keeps all. The draw is seeded, and nested: with the
    same seed the 500 questions of a smaller limit are among the 1000 of a larger one.
    """
    for split, limit in limits.items():
        if split not in SPLITS or isinstance(limit, bool) or not isinstance(limit, int) or limit < -1:
            raise StudyError(f"limits: {shown(split)}: {shown(limit)}; expected one of {', '.join(SPLITS)} with a "
                             "number of questions, or -1 for all")
    notes, kept = dict(frame.attrs.get("notes", {})), []
    for split in dict.fromkeys(frame["split"]):
        rows = np.flatnonzero(frame["split"] == split)
        limit = limits.get(split, -1)
        if 0 <= limit < len(rows):
            notes[f"{split}: left out by the limit"] = len(rows) - limit
            rows = rows[np.random.default_rng(seed).permutation(len(rows))[:limit]]
        kept.extend(rows)
    limited = frame.iloc[sorted(kept)].reset_index(drop=True)
    limited.attrs = {**frame.attrs, "notes": notes}
    return limited


def content_key(text):
    """Return the letters and digits of `text`, lower case: equal for one text in two tokenisations."""
    return re.sub(r"[\W_]+", "", text.casefold())


def nli_question(premise, hypothesis):
    """Return premise and hypothesis as one question, in the wording of arXiv 2504.16056."""
    return f"Premise: {premise} Hypothesis: {hypothesis} What is the relationship?"


def to_question(reader, record, where):
    """Return what `reader` makes of one record; whatever goes wrong there becomes a StudyError at `where`."""
    try:
        return _normalised(reader, record)
    except ValueError as error:
        raise StudyError(f"{where}: {error}") from error


def _normalised(reader, record):
    """Return what `reader` makes of one record, a dict or a text; ValueError, in one sentence, where it cannot."""
    try:
        item = reader.normalise(record)
    except KeyError as error:
        columns = ", ".join(map(str, record))
        raise ValueError(f"field {error}: no such column; there are {shown(columns, 200)}") from error
    except Exception as error:  # whatever a reader of one's own stumbles over
        raise ValueError(first_line(error)) from error
    if isinstance(item, str) or isinstance(item, dict) and {"id", "question", "choices", "answer"} <= set(item):
        return item
    raise ValueError(f"the reader makes {shown(item)} of it and no question")


# Where the rows come from

def _records(dataset, reader, folder, files, notes, revision, commits):
    """Return split -> (name of the source, list of records)."""
    folder = folder or os.environ.get("KDUTILS_DATA", "")
    if not files and not folder and reader.hub:
        return {split: _from_hub(reader, split, revision, commits) for split in reader.hub_splits}
    records = {split: (path, read_records(path)) for split, path in question_files(dataset, folder, files).items()}
    stand_ins = {} if files else reader.stand_ins
    notes.update({f"{split}: {what}": len(records[split][1]) for split, what in stand_ins.items()})
    return records


def question_files(dataset, folder="", files=None):
    """Return split -> path of the files that `read_questions` reads, {} for what is made or comes from the Hub."""
    reader, folder = READERS[dataset], folder or os.environ.get("KDUTILS_DATA", "")
    if reader.make or not files and not folder and reader.hub:
        return {}
    paths = files or reader.local
    if not paths:
        raise StudyError(f"dataset '{dataset}' has no files of its own; name them: files = "
                         "{'train': 'my/train.jsonl', 'test': 'my/test.jsonl'}")
    for split, path in paths.items():
        if split not in (*SPLITS, SPLIT_COLUMN):
            raise StudyError(f"files: {shown(split)} is none of {', '.join(SPLITS)} (or '{SPLIT_COLUMN}' for one file "
                             "with a column 'split')")
        if not isinstance(path, str) or not path.strip():
            raise StudyError(f"files: {split}: {shown(path)} is not the path of one file; of several files make one")
    if SPLIT_COLUMN in paths and len(paths) > 1:
        raise StudyError(f"files: '{SPLIT_COLUMN}' is one file of all splits; name it alone or a file per split")
    return {split: project_path(folder) / path for split, path in paths.items()}


def _from_hub(reader, split, revision, commits):
    from datasets import load_dataset

    name = reader.hub_splits[split]
    source = f"{reader.hub} {name}"
    try:
        data = load_dataset(reader.hub, reader.config, revision=revision or reader.revision, split=name)
    except Exception as error:  # a dozen unrelated types, by the layer that failed
        raise StudyError(f"{source}: cannot be loaded from the Hugging Face Hub ({type(error).__name__}: "
                         f"{first_line(error)}); set KDUTILS_DATA or `folder` to a folder that holds the files"
                         ) from error
    commits[split] = {"repository": reader.hub, "revision": revision or reader.revision or "",
                      "commit": _loaded_commit(data)}
    if split in reader.hub_share:
        data = data.shuffle(seed=42).select(range(len(data) // reader.hub_share[split]))
    return source, data.to_list()


def _loaded_commit(data):
    """Return the commit that ``datasets`` has loaded, which names a folder of its cache; "" where it does not say."""
    for file in data.cache_files:
        for part in Path(file["filename"]).parts:
            if re.fullmatch("[0-9a-f]{40}", part):
                return part
    return ""


# From rows to checked questions

def _to_frame(reader, records, split, source, notes, places, faults):
    """Return the sound questions among `records`; their index leads to (source, row) in `places`, faults are added."""
    source, known = str(source), len(faults)
    items, rows, order, seen = [], [], [], set()
    for row, record in enumerate(records):
        try:
            item = _normalised(reader, record)
        except ValueError as error:
            faults.append(Fault(source, row, str(error)))
            continue
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
            order.append(place)
        item = {"split": split, "human_explanations": [], **item}
        if split != SPLIT_COLUMN and item["split"] != split:
            faults.append(Fault(source, row, f"field 'split': {shown(item['split'])} in the file given as '{split}'",
                                f"field 'split' is not that of the file given as '{split}'", shown(item["split"], 20)))
            continue
        items.append(item)
        rows.append(row)
    if not items and len(faults) == known:
        raise StudyError(f"{source}: no questions")
    _note_unused(reader, records, split, notes)
    if order and len(order) == len(items):
        items, rows = zip(*[pair for _, pair in sorted(zip(order, zip(items, rows, strict=True), strict=True),
                                                       key=lambda pair: pair[0])], strict=True)
    frame = pd.DataFrame(list(items), columns=QUESTIONS.names, dtype=object)
    frame.index = range(len(places), len(places) + len(items))
    places.update(zip(frame.index, ((source, row) for row in rows), strict=True))
    found = row_faults(frame, places)
    faults += found.values()
    return frame.drop(index=list(found))


def _note_unused(reader, records, split, notes):
    """Count, per column that the reader does not read, the rows that hold something there."""
    unused = Counter(name for record in records if reader.columns for name, value in record.items()
                     if name not in reader.columns and value is not None and value != "")
    notes.update({f"{split}: column {shown(name)} is not used": count for name, count in unused.most_common(20)})
    notes.update({f"{split}: columns more that are not used": len(unused) - 20} if len(unused) > 20 else {})


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
    if not is_whole_text(row[name]):
        raise ValueError(f"field '{name}': {HALF}")
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
    if not isinstance(value, (int, str)) or isinstance(value, bool) or str(value) not in words:
        raise ValueError(f"field 'label': {shown(value)} is none of {', '.join(NLI_LABELS)}, 0, 1, 2, -1")
    return words[str(value)]


def _detokenised(text):
    """Undo the tokeniser of e-SNLI's text files: its dev and test would look unlike SNLI's train otherwise."""
    text = re.sub(r" ([.,!?;:%)\]])", r"\1", " ".join(text.split()))
    text = re.sub(r"([(\[$#]) ", r"\1", text)
    text = re.sub(r" (n't|'s|'re|'m|'ll|'ve|'d)\b", r"\1", text)
    return re.sub(r"`` ?(.*?) ?(?:''|``)", r'"\1"', text)


def _strategyqa(row):
    facts = row.get("facts") or []
    if not isinstance(facts, (str, list, tuple)):
        raise ValueError(f"field 'facts': {shown(facts)} is neither a text nor a list of texts")
    return {"id": _text(row, "qid"), "question": _text(row, "question"), "choices": list(YES_NO),
            "answer": _yes_no(row["answer"]),
            "human_explanations": _texts([facts if isinstance(facts, str) else " ".join(_texts(facts))])}


def _yes_no(value):
    words = {"true": "yes", "false": "no", "yes": "yes", "no": "no"}
    text = str(value).strip().casefold() if isinstance(value, (str, bool)) else ""
    if text not in words:
        raise ValueError(f"field 'answer': {shown(value)} is neither yes nor no")
    return words[text]


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
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"field '{name}': {shown(value)} is not a number")
    return number


@cache
def _svamp_places():
    """Return id -> (split, order in it) as Hsieh et al. (2023) cut the 1,000 questions: 800 and 200, permuted."""
    order = np.random.RandomState(0).permutation(1000)
    return {f"chal-{number + 1}": ("train", i) if i < 800 else ("test", i - 800) for i, number in enumerate(order)}


def _table(row):
    """Read a person's own file; texts of CSV files hold lists as JSON or with | between the items."""
    choices = [choice.strip() if isinstance(choice, str) else _written(choice, "choices")[0]
               for choice in _listed(row, "choices")]
    item = {"id": _identifier(row["id"]), "question": _text(row, "question"), "choices": choices,
            "answer": _answer(row["answer"], choices),
            "human_explanations": _texts(_listed({"human_explanations": [], **row}, "human_explanations"))}
    return item | ({"split": _text(row, "split")} if row.get("split") is not None else {})


def _answer(value, choices):
    """Return an answer as text; of a number or truth value the choice that says it, else the usual way to write it."""
    if isinstance(value, str):
        return _text({"answer": value}, "answer")
    ways = _written(value, "answer")
    return next((choice for way in ways for choice in choices if choice.casefold() == way.casefold()), ways[0])


def _written(value, name):
    """Return the ways to write a number or a truth value, the usual one first; ValueError for what is neither."""
    if isinstance(value, bool):
        return ["true", "yes"] if value else ["false", "no"]
    if isinstance(value, (int, float, Decimal)) and math.isfinite(value):
        whole = [str(int(value))] if value == int(value) else []
        return list(dict.fromkeys([*whole, str(value)]))
    raise ValueError("field 'choices': an empty choice or one that is neither a text nor a number" if name == "choices"
                     else f"field '{name}' is empty or not a text or a number")


def _identifier(value):
    """Return an id as text; numbers are common in files that people write, 7.0 where a column had a gap."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return _written(value, "id")[0]
    return _text({"id": value}, "id")


def _listed(row, name):
    """Return the list in a field; "" and null are empty ones."""
    value = row[name]
    if isinstance(value, str) and value.strip().startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"field '{name}': not readable JSON ({error})") from error
    if isinstance(value, str):
        value = [part.strip() for part in value.split("|")] if value.strip() else []
    if value is None or isinstance(value, float) and math.isnan(value):
        return []
    if isinstance(value, (list, tuple)):
        return list(value)
    raise ValueError(f"field '{name}': {shown(value)} is not a list")


def _id_of(dataset, question):
    """Return an id for data sets that have none: it depends on the question's letters and digits alone."""
    return f"{dataset}-{hashlib.sha256(content_key(question).encode()).hexdigest()[:16]}"


def _mini(seed):
    """Return the questions of the embedded world."""
    from kdutils.data.mini_world import build_questions

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
        hub="ChilleD/StrategyQA", revision="705562638fe1d8ca6bb98c66fc8f94d45fda8c83",
        hub_splits={"train": "train", "test": "test"}),
    "anli": Reader(  # round 1
        _anli, drop_repeats=True,
        local={"train": "anli/r3_dev_annotated.parquet", "dev": "palm540b_dss/anli1_valid_inputs.parquet",
               "test": "palm540b_dss/anli1_test_inputs.parquet"},
        stand_ins={"train": "the dev split of round 3 stands in for the training split of round 1"},
        hub="facebook/anli", revision="8e4813d81f46d313dac7892e1c28076917cfcdf9",
        hub_splits={"train": "train_r1", "dev": "dev_r1", "test": "test_r1"}),
    "svamp": Reader(  # the Hub's own splits are 700 and 300: both are read and cut anew, by the ids
        _svamp, local={SPLIT_COLUMN: "svamp/SVAMP.parquet"},
        hub="ChilleD/SVAMP", revision="5e0bf1e5e7c0e9c4bc39180d224f41f3f801b7ef",
        hub_splits={SPLIT_COLUMN: "train+test"}),
    "table": Reader(_table, columns=tuple(QUESTIONS.names)),
}
