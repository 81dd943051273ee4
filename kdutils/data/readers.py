"""Read a data set as questions: from local files or the Hub, checked file by file and then as a whole.

Which data sets there are, and how their rows become questions: see ``datasets.READERS``.
"""

import os
import re
import shlex
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from kdutils.data.datasets import READERS, SPLIT_COLUMN, Reader, repeat_key
from kdutils.data.own_tables import OwnTable
from kdutils.data.questions import (
    SPLITS,
    Fault,
    check_questions,
    drop_repeats,
    find_pair_faults,
    find_row_faults,
    full_question,
    raise_faults,
)
from kdutils.data.records import read_records
from kdutils.data.tables import QUESTIONS, fill_columns, path_kind
from kdutils.data.texts import LAYOUT
from kdutils.errors import StudyError, first_line, shown
from kdutils.hub import reach_hub
from kdutils.runs import project_path

DEV_SHARE = 0.1
UNUSABLE = 0.01  # share of the rows from the Hub that are left out where they cannot be used; with more it is an error


def read_questions(dataset: str, folder: str = "", files: Mapping[str, str] | None = None, seed: int = 0,
                   revision: str = "", unlabelled: bool = False) -> pd.DataFrame:
    """Return the questions of `dataset` (a key of READERS), checked: columns of tables.QUESTIONS, train, dev, test.

    ``attrs["notes"]`` of the frame maps each reason to leave out or change rows to their number. For data from the Hub
    ``attrs["hub"]`` maps each split to repository, revision and commit.

    - `folder` holds the files. "" is the environment variable KDUTILS_DATA. The Hugging Face Hub is read if it is not
      set, or names a folder with none of the reader's files.
    - `files` (split -> path relative to `folder`) replaces the reader's own files; splits that it does not name are
      not read. Formats: see `records.read_records`.
    - `seed` draws the splits that a data set lacks. The dev split is a tenth of train, where 0 gives the published one.
      Of one file (``{"all": path}``) whose rows name no split, a tenth of the questions with an answer is the test
      split, drawn before. Repeated questions are dropped first.
    - `revision` is a commit, branch or tag on the Hub; "" is the reader's own.
    - `unlabelled`: questions of train and dev may be without an answer, which is then "".

    Raises one StudyError that names file, row (from 0) and field of all questions that cannot be used. Of rows from the
    Hub, which nobody here can correct, up to UNUSABLE are left out and noted.
    """
    if dataset not in READERS:
        raise StudyError(f"dataset '{dataset}' is unknown; choose one of {', '.join(sorted(READERS))}")
    if READERS[dataset].make:
        made = check_questions(READERS[dataset].make(seed), dataset)
        made.attrs.setdefault("notes", {})
        return fill_columns(made)
    read = examine_questions(dataset, folder, files, seed, revision, unlabelled)
    raise_faults(read.faults, read.advice)
    return read.questions(seed)


@dataclass
class Examined:
    """A data set as far as it can be read: its sound questions by split, and what is wrong with the other rows.

    `own`: how a table of one's own is read, else None. `places`: index of a question -> (file, row from 0).
    `undivided`: all questions are in one file that names no splits; they are in ``frames["train"]`` until drawn.
    """

    dataset: str
    frames: dict[str, pd.DataFrame]
    places: dict
    faults: list[Fault]
    notes: Counter
    commits: dict
    records: dict[str, tuple[str, list[dict]]]
    own: OwnTable | None
    undivided: bool

    @property
    def advice(self) -> str:
        """What a message about faulty rows ends with: for one table, the command that lists and cleans them."""
        if self.own is None or len(self.records) > 1:
            return ""
        [(source, _)] = self.records.values()
        return f"; ./run_all.sh --check-data {shlex.quote(str(source))} lists them all and writes a cleaned copy"

    def questions(self, seed: int) -> pd.DataFrame:
        """Return the sound questions with all splits; those that the data set lacks are drawn from `seed`."""
        frames = dict(self.frames)
        if self.undivided and len(frames["train"]):
            frames["train"], frames["test"] = _test_from_train(frames["train"], self.dataset, seed)
        if "dev" not in frames and "train" in frames:
            frames["train"], frames["dev"] = _drawn_from(frames["train"], self.dataset, "dev", seed)
        whole = _joined(frames).reset_index(drop=True)
        if not len(whole):
            raise StudyError(f"{self.dataset}: no questions")
        whole.attrs.update({"notes": dict(self.notes)} | ({"hub": self.commits} if self.commits else {}))
        return whole


def examine_questions(dataset: str, folder: str = "", files: Mapping[str, str] | None = None, seed: int = 0,
                      revision: str = "", unlabelled: bool = False) -> Examined:
    """Return all that is right and wrong in the files of `dataset`; parameters as in read_questions.

    Raises StudyError for files that cannot be read at all.
    """
    reader, notes = READERS[dataset], Counter()
    frames, places, faults, commits, own = {}, {}, [], {}, None
    records = _records(dataset, reader, folder, files, notes, revision, commits)
    if reader.understand:
        own = reader.understand([row for _, rows in records.values() for row in rows],
                                str(next(iter(records.values()))[0]))
        reader = replace(reader, normalise=own.question_of, columns=own.used)
    undivided = SPLIT_COLUMN in records and not (own.columns["split"] if own else _names_splits(reader, records))
    for split, (source, rows) in records.items():
        split = "train" if undivided else split
        frame = _to_frame(reader, rows, split, source, notes, places, faults, unlabelled)
        frames |= _by_split(frame, split)
    if reader.drop_repeats:
        _drop_overlap(frames, notes)
    else:
        for split in frames if own else {"train"} & set(frames) if "dev" not in frames else ():
            frames[split], dropped, contrary = drop_repeats(frames[split], places)
            notes.update({f"{split}: question repeated in the split": dropped} if dropped else {})
            faults += contrary
    pairs = find_pair_faults(_joined(frames), places)
    if own and not own.columns["id"]:  # ids made from the text repeat where a question does, which is said anyway
        pairs = [fault for fault in pairs if "duplicate id" not in fault.summary]
    faults += pairs
    if commits and len(faults) <= UNUSABLE * sum(len(rows) for _, rows in records.values()):
        notes.update(f"{fault.source}: left out, {fault.summary or fault.text}" for fault in faults)
        lost, faults = {(fault.source, fault.row) for fault in faults}, []  # nobody can correct them on the Hub
        frames = {split: frame[[places[index] not in lost for index in frame.index]] for split, frame in frames.items()}
    return Examined(dataset, frames, places, faults, notes, commits, records, own, undivided)


def _joined(frames):
    empty = pd.DataFrame([], columns=QUESTIONS.names, dtype=object)
    return pd.concat([frames[split] for split in SPLITS if split in frames] or [empty])


def limit_questions(frame: pd.DataFrame, limits: Mapping[str, int], seed: int = 0) -> pd.DataFrame:
    """Return `frame` with at most ``limits[split]`` questions per split, in their old order; -1 or no limit keeps all.

    The draw is seeded and nested: with one seed, the questions of a smaller limit are among those of a larger limit.
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


def to_question(reader: Reader, record: dict, where: str) -> dict | str:
    """Return the question that `reader` makes of one record, or why the record is left out.

    Raises StudyError, beginning with `where`, if the reader fails.
    """
    try:
        return _normalised(reader, record)
    except ValueError as error:
        raise StudyError(f"{where}: {error}") from error


def _normalised(reader, record):
    """Return what `reader` makes of one record, a dict or a text; ValueError, in one sentence, if it fails."""
    try:
        item = reader.normalise(record)
    except KeyError as error:
        columns = ", ".join(map(str, record))
        raise ValueError(f"field {error}: no such column; there are {shown(columns, 200)}") from error
    except Exception as error:  # a reader of one's own may raise anything
        raise ValueError(first_line(error)) from error
    if isinstance(item, str) or isinstance(item, dict) and {"id", "question", "choices", "answer"} <= set(item):
        return item
    raise ValueError(f"the reader returned {shown(item)}, which is no question")


# Where the rows come from

def _records(dataset, reader, folder, files, notes, revision, commits):
    """Return split -> (file or place on the Hub, list of records)."""
    folder = _folder_of(reader, folder, files)
    if not files and not folder and reader.hub:
        return {split: _from_hub(reader, split, revision, commits) for split in reader.hub_splits}
    paths = question_files(dataset, folder, files)
    records = {split: (path, _unpacked(reader, read_records(path), path)) for split, path in paths.items()}
    stand_ins = {} if files or reader.instead and not _is_instead(reader, folder) else reader.stand_ins
    notes.update({f"{split}: {what}": len(records[split][1]) for split, what in stand_ins.items()})
    return records


def _folder_of(reader, folder, files):
    """Return the folder of the files of a data set, "" for the Hub."""
    data = os.environ.get("KDUTILS_DATA", "")
    if folder or files or not reader.hub or not Path(data).is_dir():
        return folder or data
    own = [*reader.local.values(), *reader.instead.values()]
    return data if any(path_kind(Path(data) / name) for name in own) else ""


def _unpacked(reader, records, path):
    """Return the rows that the records of a file hold."""
    if not reader.unpack:
        return records
    try:
        return [row for record in records for row in reader.unpack(record)]
    except (KeyError, TypeError) as error:
        raise StudyError(f"{path}: not laid out as published ({first_line(error)})") from error


def _is_instead(reader, folder):
    """Say whether a folder has none of the files of `local` and all of those of `instead`."""
    there = [[path_kind(project_path(folder) / name) == "file" for name in names.values()]
             for names in (reader.local, reader.instead)]
    return bool(reader.instead) and not any(there[0]) and all(there[1])


def question_files(dataset: str, folder: str = "", files: Mapping[str, str] | None = None) -> dict[str, Path]:
    """Return split -> path of the files that `read_questions` reads; {} for data that is made or read from the Hub."""
    reader = READERS[dataset]
    folder = _folder_of(reader, folder, files)
    if reader.make or not files and not folder and reader.hub:
        return {}
    paths = files or (reader.instead if _is_instead(reader, folder) else reader.local)
    if not paths:
        raise StudyError(f"dataset '{dataset}' has no files of its own; name them: files = "
                         "{'train': 'my/train.jsonl', 'test': 'my/test.jsonl'}")
    for split, path in paths.items():
        if split not in (*SPLITS, SPLIT_COLUMN):
            raise StudyError(f"files: {shown(split)} is none of {', '.join(SPLITS)} (or '{SPLIT_COLUMN}' for one file)")
        if not isinstance(path, str) or not path.strip():
            raise StudyError(f"files: {split}: {shown(path)} is not the path of one file; join several files into one")
    if SPLIT_COLUMN in paths and len(paths) > 1:
        raise StudyError(f"files: '{SPLIT_COLUMN}' is one file of all splits; name it alone, or one file per split")
    return {split: project_path(folder) / path for split, path in paths.items()}


def _from_hub(reader, split, revision, commits):
    from datasets import load_dataset

    name = reader.hub_splits[split]
    source = f"{reader.hub} {name}"
    reach_hub()
    try:
        data = load_dataset(reader.hub, reader.config, revision=revision or reader.revision, split=name)
    except Exception as error:  # a dozen unrelated types, depending on the layer that failed
        raise StudyError(f"{source}: cannot be loaded from the Hugging Face Hub ({type(error).__name__}: "
                         f"{first_line(error)}); set KDUTILS_DATA or `folder` to a folder that holds "
                         f"{shown(', '.join(reader.local.values()), 200)}"
                         ) from error
    commits[split] = {"repository": reader.hub, "revision": revision or reader.revision or "",
                      "commit": _loaded_commit(data)}
    if split in reader.hub_share:
        data = data.shuffle(seed=42).select(range(len(data) // reader.hub_share[split]))
    return source, data.to_list()


def _loaded_commit(data):
    """Return the commit that ``datasets`` loaded, "" if unknown. It names a folder of the library's cache."""
    for file in data.cache_files:
        for part in Path(file["filename"]).parts:
            if re.fullmatch("[0-9a-f]{40}", part):
                return part
    return ""


# From rows to checked questions

def _to_frame(reader, records, split, source, notes, places, faults, unlabelled):
    """Return the sound questions of one file; adds to `notes` and `faults`, and to `places` for each index."""
    source, known = str(source), len(faults)
    kept = _normalised_rows(reader, records, split, source, notes, faults)
    if not kept and len(faults) == known:
        raise StudyError(f"{source}: no questions")
    _note_unused(reader, records, split, notes)
    if split == SPLIT_COLUMN and all(place for place, _, _ in kept):
        kept.sort(key=lambda entry: entry[0])
    frame = pd.DataFrame([item for *_, item in kept], columns=QUESTIONS.names, dtype=object)
    frame.index = range(len(places), len(places) + len(kept))
    places.update(zip(frame.index, ((source, row) for _, row, _ in kept), strict=True))
    wrong = find_row_faults(frame, places, unlabelled)
    faults += wrong.values()
    return frame.drop(index=list(wrong))


def _without_blank_lines(text, joint):
    """Return a text with `joint` for its line breaks, of which two would end a prompt; anything else as it is."""
    return re.sub(r"\s*\n\s*", joint, text) if isinstance(text, str) else text


def _names_splits(reader, records):
    """Say whether `reader` gives rows of the one file a split, or a place in one."""
    for row in records[SPLIT_COLUMN][1]:
        try:
            item = _normalised(reader, row)
        except ValueError:
            continue  # named with its row later
        if isinstance(item, dict):
            return bool({"split", "place"} & set(item))
    return True


def _normalised_rows(reader, records, split, source, notes, faults):
    """Return [(place or None, row, question)] of the rows that are not left out."""
    kept, seen = [], {}
    for row, record in enumerate(records):
        try:
            item = _normalised(reader, record)
        except ValueError as error:
            faults.append(Fault(source, row, str(error)))
            continue
        if isinstance(item, str):
            notes[f"{split}: {item}"] += 1
            continue
        note, place = item.pop("note", ""), item.pop("place", None)
        notes.update([f"{split}: {note}"] if note else [])
        key = _key(item) if reader.drop_repeats else None
        if key and key in seen:
            contrary = ", with another answer" * (seen[key] != item["answer"])
            notes[f"{split}: question repeated in the split{contrary}"] += 1
            continue
        seen[key] = item["answer"]
        if place and split == SPLIT_COLUMN:
            item["split"] = place[0]
        item = {"split": split, "human_explanations": [], "context": "", "other_answers": [], **item}
        item |= {key: _without_blank_lines(item[key], joint) for key, joint in (("question", "\n"), ("answer", " "))}
        if isinstance(item["context"], str):
            item["context"] = " ".join(item["context"].split())
        if isinstance(item["choices"], list):
            item["choices"] = [_without_blank_lines(choice, " ") for choice in item["choices"]]
        if split != SPLIT_COLUMN and item["split"] != split:
            faults.append(Fault(source, row, f"field 'split': {shown(item['split'])} in the file given as '{split}'",
                                f"field 'split' is not that of the file given as '{split}'", shown(item["split"], 20)))
            continue
        kept.append((place, row, item))
    return kept


def _key(item):
    """Return the repeat_key of a question with its context and choices, None if they are no texts."""
    choices = item["choices"] if isinstance(item["choices"], (list, tuple)) else [None]
    if not all(isinstance(text, str) for text in (item["question"], item.get("context", ""), *choices)):
        return None
    return repeat_key(" ".join([full_question(item), *sorted(choices)]))


def _note_unused(reader, records, split, notes):
    """Count, per column that the reader does not read, the rows with a value in it."""
    unused = Counter(name for record in records if reader.columns for name, value in record.items()
                     if name not in reader.columns and value is not None and value != "")
    notes.update({f"{split}: column {shown(name)} is not used": count for name, count in unused.most_common(20)})
    notes.update({f"{split}: columns more that are not used": len(unused) - 20} if len(unused) > 20 else {})


def _by_split(frame, split):
    """Return split -> questions of one file; only the file under SPLIT_COLUMN has more than one split."""
    if split != SPLIT_COLUMN:
        return {split: frame}
    return {name: frame[frame["split"] == name] for name in SPLITS if (frame["split"] == name).any()}


def _drop_overlap(frames, notes):
    """Drop from train the questions of dev and test, and from dev those of test; test keeps all."""
    seen = {}
    for split in reversed(SPLITS):
        if split not in frames:
            continue
        keys = pd.Series([_key(item) for item in frames[split].to_dict("records")], frames[split].index, dtype=object)
        for other, known in seen.items():
            repeated = keys.isin(known)
            if repeated.any():
                notes[f"{split}: question also in {other}"] += int(repeated.sum())
            frames[split], keys = frames[split][~repeated], keys[~repeated]
        seen[split] = set(keys)


def _test_from_train(train, dataset, seed):
    """Return (train, test): test is a tenth of the questions that have an answer."""
    labelled = train[train["answer"] != ""]
    _, test = _drawn_from(labelled, dataset, "test", seed)
    return train.drop(index=test.index), test


def _drawn_from(train, dataset, split, seed):
    """Return (train, split): a tenth of train, drawn by ``datasets`` as the published dev split was.

    Questions on one context, or on one premise, stay together: what is drawn is a tenth of the contexts then.
    """
    from datasets import Dataset

    if len(train) < 2:
        raise StudyError(f"{dataset}: {len(train)} training question cannot be split into train and {split}")
    groups = {}
    for row, (question, context) in enumerate(zip(train["question"], train["context"], strict=True)):
        premise = question.partition(LAYOUT[1])[0] if question.startswith(LAYOUT[0]) else ""
        groups.setdefault(context or premise or row, []).append(row)
    rows = list(groups.values()) if len(groups) > 1 else [[row] for row in range(len(train))]
    parts = Dataset.from_dict({"row": range(len(rows))}).train_test_split(test_size=DEV_SHARE, seed=seed)
    kept, drawn = ([row for group in parts[name]["row"] for row in rows[group]] for name in ("train", "test"))
    return train.iloc[kept], train.iloc[drawn].assign(split=split)
