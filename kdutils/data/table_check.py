"""Check a user's own table (``./run_all.sh --check-data``): how it is read, all faulty rows, and a cleaned copy."""

import contextlib
import itertools
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from kdutils.data.datasets import SPLIT_COLUMN
from kdutils.data.own_tables import ANSWERS, content_id, describe
from kdutils.data.questions import SPLITS, FaultyRows, find_row_faults, question_key
from kdutils.data.readers import Examined, examine_questions
from kdutils.data.records import WORKBOOKS
from kdutils.data.tables import QUESTIONS
from kdutils.runs import write_text

# Part of a fault's text -> what to do about it, and what the cleaned copy does. The first that fits is taken.
REMEDIES = {
    "the same choice twice": "the copy has it once",
    "duplicate id": "the copy gives this row an id of its own",
    "the same question is in split": "the copy has it once, in test rather than dev, in dev rather than train",
    "but the same question in": "the copy has neither; correct the wrong answer or delete the row",
    "'answer' is empty": "not in the copy; write the answer, or keep such rows with --labels teacher",
    "is empty": "not in the copy; fill the cell or delete the row",
    "is not among the choices": "not in the copy; write one of its choices",
    "a list of one": "not in the copy; add the other choices",
    "is none of train, dev, test": "not in the copy; write train, dev or test",
    "": "not in the copy; correct the row",
}
COMMAS = "not in the copy; separate the choices by | (a comma does not separate them)"
NEARLY_ALL = 0.9  # of the rows
SHEETS = (".csv", ".tsv", ".txt", *WORKBOOKS)
CLEANED = ".cleaned.jsonl"  # ends the name of a cleaned copy


@dataclass(frozen=True)
class Checked:
    """What the check of a table found: lines for a person, whether rows are faulty, the cleaned copy ("" if none)."""

    lines: list[str]
    faulty: bool
    copy: str


def check_table(path: Path, unlabelled: bool = False) -> Checked:
    """Check the table at `path` and, if something is wrong or repeated in it, write a cleaned copy beside it.

    `unlabelled`: questions of train and dev may be without an answer. Raises StudyError for a file that is no table.
    """
    try:
        read = examine_questions("table", str(path.parent), {SPLIT_COLUMN: path.name}, unlabelled=unlabelled)
    except FaultyRows as error:  # rows that are no rows: without them nothing can be said of the columns
        return Checked([f"{path}: {_counted(len(error.faults), 'row')} cannot be read (rows are counted from 0)",
                        *(f"  row {fault.row}: {fault.text}" for fault in error.faults)], True, "")
    [(_, records)] = read.records.values()
    names = list(dict.fromkeys(name for record in records for name in record))
    lines = [f"{path}: {_counted(len(records), 'row')}", *(f"  {line}" for line in describe(read.own, names))]
    if read.own.answers == "unclear":
        lines.append(f"  the answers are {ANSWERS['unclear']} choice: write letters or texts in their place")
    lines += _uneven(read) + _faults(read)
    frame, changes = clean(read, unlabelled)
    if not len(frame):
        return Checked([*lines, "no row can be used, so there is no cleaned copy"], True, "")
    if not changes:
        return Checked([*lines, f"  every row can be used: {_sizes(frame, read)}"], False, "")
    content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in _rows_of(frame, read))
    copy = write_text(_place_for(path, content), content)
    lines += [f"cleaned copy: {copy}: {_sizes(frame, read)}"]
    lines += [f"  {what}: {count:,}" for what, count in changes.items()]
    return Checked(lines, bool(read.faults), str(copy))


def _place_for(path, content):
    """Return where a copy of the table at `path` goes: no file of another content is overwritten."""
    own, numbers = path.stem.removesuffix(CLEANED.removesuffix(".jsonl")), itertools.count(2)
    copy = path.with_name(own + CLEANED)
    while copy.exists() and (copy == path or copy.read_bytes() != content.encode()):
        copy = path.with_name(f"{own}{CLEANED.removesuffix('.jsonl')}-{next(numbers)}.jsonl")
    return copy


def clean(read: Examined, unlabelled: bool = False) -> tuple[pd.DataFrame, dict[str, int]]:
    """Return (the rows of one examined table that can be used, repaired where that is safe; {what was done: rows}).

    A choice that is named twice is kept once, a repeated id replaced, a repeated question kept once (test rather than
    dev, dev rather than train). Questions with contrary answers, and all other faulty rows, are left out.
    """
    [(source, records)] = read.records.values()
    rows, done = [], Counter()
    for number, record in enumerate(records):
        try:
            item = {"split": SPLIT_COLUMN if read.own.columns["split"] else "train", "row": number,
                    "other_answers": [], **read.own.question_of(record)}
        except (ValueError, KeyError):
            done["faulty, left out"] += 1
            continue
        once = list(dict.fromkeys(item["choices"]))
        rows.append({**item, "choices": once if len(once) > 1 else item["choices"],
                     "repaired": 1 < len(once) < len(item["choices"])})
    frame = pd.DataFrame(rows, columns=[*QUESTIONS.names, "row", "repaired"], dtype=object)
    faulty = find_row_faults(frame, {index: (str(source), row) for index, row in frame["row"].items()}, unlabelled)
    done["faulty, left out"] += len(faulty)
    frame = frame.drop(index=list(faulty))
    done["a choice named twice, kept once"] = int(frame["repaired"].sum())
    frame = _each_once(frame, done)
    ids = frame["id"].duplicated()
    done["an id that was not unique, given anew"] = int(ids.sum())
    frame.loc[ids, "id"] = [content_id(item) for item in frame[ids].to_dict("records")]
    return frame.drop(columns=["repaired"]), {what: count for what, count in done.items() if count}


def _each_once(frame, done):
    """Return the frame with each question once, those with contrary answers left out; counts both in `done`."""
    keys = frame.apply(question_key, axis=1) if len(frame) else pd.Series(dtype=object)
    labelled = frame["answer"] != ""
    contrary = keys.isin(keys[labelled][frame[labelled].groupby(keys[labelled])["answer"].transform("nunique") > 1]) \
        if labelled.any() else labelled
    done["the same question with another answer, all left out"] = int(contrary.sum())
    frame, keys = frame[~contrary], keys[~contrary]
    order = frame.assign(key=keys, place=-frame["split"].map(SPLITS.index), gap=frame["answer"] == "").sort_values(
        ["place", "gap", "row"])
    kept = frame.loc[sorted(order.drop_duplicates("key").index)]
    done["the same question again, kept once"] = len(frame) - len(kept)
    return kept


def _uneven(read):
    """Return a line about the rows with no choices, or another number of them, where nearly all rows have the same."""
    [(_, records)] = read.records.values()
    rows = {}
    for row, record in enumerate(records):
        with contextlib.suppress(ValueError, KeyError):  # a faulty row
            rows.setdefault(len(read.own.question_of(record)["choices"]), []).append(row)
    usual = max(rows, key=lambda count: len(rows[count]), default=0)
    if len(rows.get(usual, [])) < NEARLY_ALL * sum(map(len, rows.values())):
        return []
    return [f"  look at these: {_counted(len(some), 'row')} {'have' if some[1:] else 'has'} "
            f"{_counted(count, 'choice') if count else 'no choices'}, the others {usual or 'none'}: "
            f"row {', '.join(map(str, some[:10]))}{' …' if len(some) > 10 else ''}"
            for count, some in sorted(rows.items()) if count != usual]


def _faults(read):
    """Return one line per faulty row, with its remedy."""
    if not read.faults:
        return []
    rows = sorted(read.faults, key=lambda fault: fault.row)
    [(source, records)] = read.records.values()
    sheet = "; a spreadsheet shows row 0 in line 2" if Path(source).suffix.lower() in SHEETS else ""
    found = _counted(len({fault.row for fault in rows}), "faulty row")
    return [f"{found} (counted from 0, without the header{sheet}):",
            *(f"  row {one.row}: {one.text}: {_remedy(one.text, records[one.row], read.own)}" for one in rows)]


def _remedy(text, record, own):
    """Return what to do about the fault that `text` names, of one row of a table that is read as `own` says."""
    cell = str(record.get(own.columns["choices"][0])).strip() if own.choices == "list" else ""
    if text.startswith("field 'choices': a list of one") and "," in cell and cell[0] not in "[{":
        return COMMAS
    return next(remedy for part, remedy in REMEDIES.items() if part in text)


def _rows_of(frame, read):
    """Yield the rows of a cleaned copy; columns that no row fills are left out, and splits that are to be drawn."""
    empty = [name for name in ("context", "other_answers", "human_explanations") if not frame[name].map(len).any()]
    empty += [] if read.own.columns["split"] else ["split"]
    for row in frame[[name for name in QUESTIONS.names if name not in empty]].to_dict("records"):
        yield {name: list(value) if isinstance(value, (list, tuple)) else value for name, value in row.items()}


def _sizes(frame, read):
    """Return the number of questions in words, by split if the table has a column for it."""
    sizes = ", ".join(f"{split} {count:,}" for split in SPLITS if (count := int((frame["split"] == split).sum())))
    gaps = int((frame["answer"] == "").sum())
    text = _counted(len(frame), "question") + f" ({sizes})" * bool(read.own.columns["split"])
    return text + (f", {gaps:,} of them without an answer" if gaps else "")


def _counted(count, noun):
    return f"{count:,} {noun}{'s' * (count != 1)}"
