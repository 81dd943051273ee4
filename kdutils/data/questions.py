"""What a question is, and the checks that every question passes before it is used.

Places: checks of several files at once take `places`, which maps an index of the frame to (file, row in it from 0).
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from kdutils.errors import LONGEST, StudyError, shown

SPLITS = ("train", "dev", "test")
LETTERS = "abcdefghijklmnopqrstuvwxyz"
CONTEXT = "Context:"  # begins the line of the passage in every text that a model reads
FAULTS = 20  # faulty rows that a message names
HALF = "half of a character (a lone surrogate); save the file again as UTF-8"
Places = Mapping[Hashable, tuple[str, int]]


@dataclass(frozen=True)
class Fault:
    """Why one row cannot be used.

    A message about one row gives `text`. A message about several rows gives each `summary` once, followed by its rows
    and their `detail`. `source` is the file, `row` counts from 0.
    """

    source: str
    row: int
    text: str
    summary: str = ""
    detail: str = ""


def check_questions(frame: pd.DataFrame, source: str, unlabelled: bool = False) -> pd.DataFrame:
    """Return `frame` (columns of tables.QUESTIONS) unchanged, or raise one StudyError that names all faulty rows.

    `source` names the file in the message. Refused are: an empty id, question or answer, a duplicate id, an unknown
    split, a list of one choice, an empty or duplicate choice, an answer that is not among the choices, a lone
    surrogate, and a question that is in two splits. `unlabelled`: see find_row_faults.
    """
    if not len(frame):
        raise StudyError(f"{source}: no questions")
    places = dict(zip(frame.index, ((source, row) for row in range(len(frame))), strict=True))
    faults = find_row_faults(frame, places, unlabelled)
    raise_faults(list(faults.values()) + find_pair_faults(frame.drop(index=list(faults)), places))
    return frame


class FaultyRows(StudyError):
    """Rows of files cannot be used: `faults` has all of them, the message names some."""

    def __init__(self, faults: Sequence[Fault], advice: str = ""):
        super().__init__(_message(faults, LONGEST - len(advice)) + advice)
        self.faults = list(faults)


def raise_faults(faults: Sequence[Fault], advice: str = "") -> None:
    """Raise FaultyRows for all `faults`, naming at most FAULTS rows, if there are any; `advice` ends its message."""
    if faults:
        raise FaultyRows(faults, advice)


def _message(faults, longest):
    if len(faults) == 1:
        [fault] = faults
        return f"{fault.source}: row {fault.row}: {fault.text}"
    sources, groups = list(dict.fromkeys(fault.source for fault in faults)), {}
    for fault in sorted(faults, key=lambda fault: (sources.index(fault.source), fault.row)):
        groups.setdefault((fault.source, fault.summary or fault.text[:160]), []).append(fault)
    rows = len({(fault.source, fault.row) for fault in faults})
    text, before, named = f"{rows} faulty rows" if rows > 1 else "a faulty row", "", 0
    for (source, summary), group in groups.items():
        text += f"{'; ' if named else ': '}{source}: {summary}: " if source != before else f"; {summary}: "
        before = source
        for place, fault in enumerate(group):
            row = f"{', ' if place else ''}row {fault.row}" + (f" ({fault.detail})" if fault.detail else "")
            if named == FAULTS or len(text) + len(row) > longest - 30:
                return f"{text.rstrip(' :')}; and {len(faults) - named} more"
            text, named = text + row, named + 1
    return text


def find_row_faults(frame: pd.DataFrame, places: Places, unlabelled: bool = False) -> dict[Hashable, Fault]:
    """Return {index: Fault} of the rows that are wrong whatever the other rows hold.

    `unlabelled`: questions of train and dev may be without an answer ("").
    """
    faults = {}
    for index, item in zip(frame.index, frame.to_dict("records"), strict=True):
        fault = _fault_of(item, unlabelled)
        if fault:
            faults[index] = Fault(*places[index], *fault)
    return faults


def _fault_of(item, unlabelled=False):
    """Return (text, summary, detail) of the first fault of a question, None if it has none."""
    for field in ("id", "question", "answer"):
        if field == "answer" and item[field] == "" and unlabelled and item["split"] != "test":
            continue
        if not isinstance(item[field], str) or not item[field].strip():
            return (f"field '{field}' is empty or not a text",)
    if item["split"] not in SPLITS:
        wrong = f"is none of {', '.join(SPLITS)}"
        return f"field 'split': {shown(item['split'])} {wrong}", f"field 'split' {wrong}", shown(item["split"], 20)
    context = item.get("context", "")
    if not isinstance(context, str):
        return (f"field 'context': {shown(context)} is not a text", "field 'context' is not a text")
    others = item.get("other_answers", [])
    for field, value in (("choices", item["choices"]), ("human_explanations", item["human_explanations"]),
                         ("other_answers", others)):
        if not isinstance(value, (list, tuple, np.ndarray)):
            return f"field '{field}': {shown(value)} is not a list", f"field '{field}' is not a list"
    texts = {"id": [item["id"]], "context": [context], "question": [item["question"]], "answer": [item["answer"]],
             "choices": item["choices"], "human_explanations": item["human_explanations"], "other_answers": others}
    for field, values in texts.items():
        if any(isinstance(value, str) and not is_whole_text(value) for value in values):
            return (f"field '{field}': {HALF}",)
    return _fault_of_choices(list(item["choices"]), item["answer"])


def _fault_of_choices(choices, answer):
    if not choices:
        return None  # a question with a free-text answer
    if len(choices) == 1:
        return ("field 'choices': a list of one; give at least two, or none for free text",)
    if len(choices) > len(LETTERS):
        return (f"field 'choices': {len(choices)} choices; at most {len(LETTERS)}, one per letter",)
    if not all(isinstance(choice, str) and choice.strip() for choice in choices):
        return ("field 'choices': an empty choice or one that is not a text",)
    if len(set(choices)) != len(choices):
        return ("field 'choices': the same choice twice",)
    if answer and answer not in choices:  # an empty one was looked at before
        wrong = "is not among the choices"
        return (f"field 'answer': {shown(answer)} {wrong} {shown(choices, 200)}", f"field 'answer' {wrong}",
                shown(answer, 20))
    return None


def is_whole_text(text: str) -> bool:
    """Say whether a text can be written as UTF-8: JSON may hold a lone surrogate (``"\\ud83d"``), a file may not."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def find_pair_faults(frame: pd.DataFrame, places: Places) -> list[Fault]:
    """Return the Faults between rows: a duplicate id, a question that is in two splits."""
    faults, ids, questions = [], {}, {}
    for index, item in zip(frame.index, frame.to_dict("records"), strict=True):
        (source, row), split = places[index], item["split"]
        name = item["id"]
        if name in ids:
            text = f"field 'id': duplicate id {shown(name)}, first in {_place(ids[name], source)}"
            faults.append(Fault(source, row, text, "field 'id': duplicate id", shown(name, 20)))
        ids.setdefault(name, places[index])
        first_split, where = questions.setdefault(question_key(item), (split, places[index]))
        if first_split != split:
            text = f"the same question is in split '{first_split}' ({_place(where, source)}) and in '{split}'"
            faults.append(Fault(source, row, f"field 'question': {text}",
                                f"field 'question': it is also in split '{first_split}'", _place(where, source)))
    return faults


def _place(place, source):
    """Return a place (source, row) as text; the file is left out if it is `source`."""
    return f"row {place[1]}" if place[0] == source else f"{Path(place[0]).name}: row {place[1]}"


def drop_repeats(frame: pd.DataFrame, places: Places) -> tuple[pd.DataFrame, int, list[Fault]]:
    """Return (`frame` with each question once, number of rows dropped, Faults).

    A repeated question with another answer is a Fault: either answer may be wrong. Of a question with and without an
    answer the former is kept.
    """
    first, kept, faults = {}, [], []
    rows = zip(frame.index, frame.to_dict("records"), strict=True)
    for index, item in sorted(rows, key=lambda row: row[1]["answer"] == ""):
        answer, where = first.setdefault(question_key(item), (item["answer"], index))
        if where == index:
            kept.append(index)
        elif item["answer"] and answer != item["answer"]:
            source, row = places[index]
            faults.append(Fault(source, row, f"field 'answer': {shown(item['answer'])}, but the same question in "
                                f"{_place(places[where], source)} has {shown(answer)}",
                                "field 'answer': the same question has another answer elsewhere",
                                _place(places[where], source)))
    return frame[frame.index.isin(kept)], len(frame) - len(kept) - len(faults), faults


def question_key(item: Mapping) -> str:
    """Return what identifies a question: its words, with those of context and choices.

    The order of the choices, case and space do not count.
    """
    words = " ".join([full_question(item), "|", *sorted(item["choices"])])
    return " ".join(words.casefold().split())


def full_question(item: Mapping) -> str:
    """Return the text of a question, with its context (a passage), if it has one, on the line before it."""
    context = item.get("context") or ""
    return f"{context}\n{item['question']}" if context else item["question"]


def format_question(item: Mapping) -> str:
    """Return the lines ``Context: …``, if there is a context, and ``Question: …``, as models read them."""
    context = item.get("context") or ""
    return (f"{CONTEXT} {context}\n" if context else "") + f"Question: {item['question']}"


def format_choices(choices: Sequence[str]) -> str:
    """Return the choices on one line, ``(a) red (b) blue``; "" if there are none."""
    return " ".join(f"({LETTERS[i]}) {choice}" for i, choice in enumerate(choices))
