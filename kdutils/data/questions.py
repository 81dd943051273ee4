"""What a question is, and the checks that every question passes before anything uses it."""

import ast
import math
import operator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kdutils.errors import LONGEST, StudyError, shown

SPLITS = ("train", "dev", "test")
LETTERS = "abcdefghijklmnopqrstuvwxyz"
FAULTS = 20  # faulty rows that a message names
HALF = "half of a character (a lone surrogate); write the file anew as UTF-8"


@dataclass(frozen=True)
class Fault:
    """Why one row cannot be used: `text` says it in full; rows of one `kind` are told together, each with its `detail`.

    `source` names the file, `row` counts from 0.
    """

    source: str
    row: int
    text: str
    kind: str = ""
    detail: str = ""


def check_questions(frame, source):
    """Return `frame` (columns of tables.QUESTIONS) unchanged, or raise one StudyError that names all faulty rows.

    `source` names the file in the message; rows are counted from 0. Refused: an empty id, question
    or answer, a duplicated id, an unknown split, a list of one choice, an empty or repeated choice,
    an answer that is not among the choices, half of a character, and a question that stands in two splits.
    """
    if not len(frame):
        raise StudyError(f"{source}: no questions")
    places = dict(zip(frame.index, ((source, row) for row in range(len(frame))), strict=True))
    faults = row_faults(frame, places)
    refuse(list(faults.values()) + pair_faults(frame.drop(index=list(faults)), places))
    return frame


def refuse(faults):
    """Raise one StudyError for all `faults`, naming at most FAULTS rows; do nothing for an empty list."""
    if len(faults) == 1:
        [fault] = faults
        raise StudyError(f"{fault.source}: row {fault.row}: {fault.text}")
    if not faults:
        return
    sources, groups = list(dict.fromkeys(fault.source for fault in faults)), {}
    for fault in sorted(faults, key=lambda fault: (sources.index(fault.source), fault.row)):
        groups.setdefault((fault.source, fault.kind or fault.text[:160]), []).append(fault)
    rows = len({(fault.source, fault.row) for fault in faults})
    text, before, told = f"{rows} faulty rows" if rows > 1 else "a faulty row", "", 0
    for (source, kind), found in groups.items():
        text += f"{'; ' if told else ': '}{source}: {kind}: " if source != before else f"; {kind}: "
        before = source
        for place, fault in enumerate(found):
            one = f"{', ' if place else ''}row {fault.row}" + (f" ({fault.detail})" if fault.detail else "")
            if told == FAULTS or len(text) + len(one) > LONGEST - 30:
                raise StudyError(f"{text.rstrip(' :')}; and {len(faults) - told} more")
            text, told = text + one, told + 1
    raise StudyError(text)


def row_faults(frame, places):
    """Return {index: Fault} of the rows that are wrong in themselves; `places`: index -> (source, row)."""
    faults = {}
    for index, item in zip(frame.index, frame.to_dict("records"), strict=True):
        found = _fault_of(item)
        if found:
            faults[index] = Fault(*places[index], *found)
    return faults


def _fault_of(item):
    """Return (text, kind, detail) of the first thing that is wrong with a question, None where it is sound."""
    for field in ("id", "question", "answer"):
        if not isinstance(item[field], str) or not item[field].strip():
            return (f"field '{field}' is empty or not a text",)
    if item["split"] not in SPLITS:
        kind = f"is none of {', '.join(SPLITS)}"
        return f"field 'split': {shown(item['split'])} {kind}", f"field 'split' {kind}", shown(item["split"], 20)
    for field in ("choices", "human_explanations"):
        if not isinstance(item[field], (list, tuple, np.ndarray)):
            return f"field '{field}': {shown(item[field])} is not a list", f"field '{field}' is not a list"
    texts = {"id": [item["id"]], "question": [item["question"]], "answer": [item["answer"]],
             "choices": item["choices"], "human_explanations": item["human_explanations"]}
    for field, values in texts.items():
        if any(isinstance(value, str) and not is_whole_text(value) for value in values):
            return (f"field '{field}': {HALF}",)
    return _fault_of_choices(list(item["choices"]), item["answer"])


def _fault_of_choices(choices, answer):
    if not choices:
        return None  # free-text answers have no choices
    if len(choices) == 1:
        return ("field 'choices': a list of one; give at least two, or none for free text",)
    if len(choices) > len(LETTERS):
        return (f"field 'choices': {len(choices)} choices, at most {len(LETTERS)} have a letter",)
    if not all(isinstance(choice, str) and choice.strip() for choice in choices):
        return ("field 'choices': an empty choice or one that is not a text",)
    if len(set(choices)) != len(choices):
        return ("field 'choices': the same choice twice",)
    if answer not in choices:
        kind = "is not among the choices"
        return (f"field 'answer': {shown(answer)} {kind} {shown(choices, 200)}", f"field 'answer' {kind}",
                shown(answer, 20))
    return None


def is_whole_text(text):
    """Say whether a text can be written as UTF-8: JSON can hold half of a character, ``"\\ud83d"``, a file cannot."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def pair_faults(frame, places):
    """Return the Faults of rows that are sound but do not go together: an id twice, a question in two splits."""
    faults, seen, first = [], {}, {}
    for index, item in zip(frame.index, frame.to_dict("records"), strict=True):
        (source, row), split = places[index], item["split"]
        name = item["id"]
        if name in seen:
            text = f"field 'id': {shown(name)} stands already in {_place(seen[name], source)}"
            faults.append(Fault(source, row, text, "field 'id' stands already in another row", shown(name, 20)))
        seen.setdefault(name, places[index])
        known, where = first.setdefault(question_key(item), (split, places[index]))
        if known != split:
            text = f"the same question is in split '{known}' ({_place(where, source)}) and in '{split}'"
            faults.append(Fault(source, row, f"field 'question': {text}",
                                f"field 'question': it is in split '{known}', too", _place(where, source)))
    return faults


def _place(place, source):
    """Return (source, row) as text, without the source where it is the one that is being spoken of."""
    return f"row {place[1]}" if place[0] == source else f"{Path(place[0]).name}: row {place[1]}"


def drop_repeats(frame, places):
    """Return (`frame` without the questions that stand in it twice, how many were dropped, Faults).

    A repeated question with another answer is a fault: which of the two is right, nobody can tell here.
    """
    first, kept, faults = {}, [], []
    for index, item in zip(frame.index, frame.to_dict("records"), strict=True):
        answer, where = first.setdefault(question_key(item), (item["answer"], index))
        if where == index:
            kept.append(index)
        elif answer != item["answer"]:
            source, row = places[index]
            faults.append(Fault(source, row, f"field 'answer': {shown(item['answer'])}, but the same question in "
                                f"{_place(places[where], source)} has {shown(answer)}",
                                "field 'answer': the same question has another answer elsewhere",
                                _place(places[where], source)))
    return frame.loc[kept], len(frame) - len(kept) - len(faults), faults


def question_key(item):
    """What makes two questions the same: the words of question and choices, whatever their case and spacing."""
    words = " ".join([item["question"], "|", *sorted(item["choices"])])
    return " ".join(words.casefold().split())


def lettered(choices):
    """Return the choices on one line: ``(a) red (b) blue``; "" for none."""
    return " ".join(f"({LETTERS[i]}) {choice}" for i, choice in enumerate(choices))


# Answers that are numbers

_OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
              ast.USub: operator.neg, ast.UAdd: operator.pos}


def evaluate(equation):
    """Return the value of an equation such as ``( 8.0 - 2.0 ) * 3``: numbers, + - * / and brackets.

    ValueError for anything else, a division by zero and a value that is not finite. No code is run.
    """
    try:
        value = _value(ast.parse(equation.strip(), mode="eval").body) if len(equation) <= 300 else math.nan
    except (SyntaxError, ArithmeticError, RecursionError, MemoryError, ValueError) as error:
        raise ValueError(f"{shown(equation, 40)} is not made of numbers, + - * / and brackets ({error})") from error
    if not math.isfinite(value):
        raise ValueError(f"{shown(equation, 40)} has no finite value, or more than 300 characters")
    return value


def _value(node):
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return float(node.value)
    parts = {ast.BinOp: ("left", "right"), ast.UnaryOp: ("operand",)}.get(type(node))
    if not parts or type(node.op) not in _OPERATORS:
        raise ValueError(f"{type(node).__name__} is not allowed")
    return _OPERATORS[type(node.op)](*(_value(getattr(node, part)) for part in parts))


def number_text(value):
    """Return a number as an answer is written: ``8`` for 8.0, at most six decimals."""
    value = round(value, 6)
    return str(int(value)) if float(value).is_integer() else str(value)
