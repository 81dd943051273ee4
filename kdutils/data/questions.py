"""What a question is, and the checks that every question passes before anything uses it."""

import ast
import math
import operator

from kdutils.errors import StudyError

SPLITS = ("train", "dev", "test")
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def check_questions(frame, source):
    """Return `frame` (columns of tables.QUESTIONS) unchanged, or raise StudyError.

    `source` names the file in the message; rows are counted from 0. Refused: an empty id, question
    or answer, a duplicated id, an unknown split, a list of one choice, an empty or repeated choice,
    an answer that is not among the choices, and a question that stands in two splits.
    """
    if not len(frame):
        raise StudyError(f"{source}: no questions")
    seen = {}
    for row, item in enumerate(frame.to_dict("records")):
        where = f"{source}: row {row}"
        for field in ("id", "question", "answer"):
            if not isinstance(item[field], str) or not item[field].strip():
                raise StudyError(f"{where}: field '{field}' is empty or not a text")
        if item["id"] in seen:
            raise StudyError(f"{where}: field 'id': {item['id']!r} stands already in row {seen[item['id']]}")
        seen[item["id"]] = row
        if item["split"] not in SPLITS:
            raise StudyError(f"{where}: field 'split': {item['split']!r} is none of {', '.join(SPLITS)}")
        _check_choices(list(item["choices"]), item["answer"], where)
    _check_no_overlap(frame, source)
    return frame


def _check_choices(choices, answer, where):
    if not choices:
        return  # free-text answers have no choices
    if len(choices) == 1:
        raise StudyError(f"{where}: field 'choices': a list of one; give at least two, or none for free text")
    if len(choices) > len(LETTERS):
        raise StudyError(f"{where}: field 'choices': {len(choices)} choices, at most {len(LETTERS)} have a letter")
    if not all(isinstance(choice, str) and choice.strip() for choice in choices):
        raise StudyError(f"{where}: field 'choices': an empty choice or one that is not a text")
    if len(set(choices)) != len(choices):
        raise StudyError(f"{where}: field 'choices': the same choice twice")
    if answer not in choices:
        raise StudyError(f"{where}: field 'answer': {answer!r} is not among the choices {choices}")


def _check_no_overlap(frame, source):
    first = {}
    for row, (split, text) in enumerate(zip(frame["split"], frame.apply(question_key, axis=1), strict=True)):
        if first.setdefault(text, (split, row))[0] != split:
            raise StudyError(f"{source}: row {row}: field 'question': the same question is in split '{first[text][0]}' "
                             f"(row {first[text][1]}) and in '{split}'")


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
        raise ValueError(f"{equation[:40]!r} is not made of numbers, + - * / and brackets ({error})") from error
    if not math.isfinite(value):
        raise ValueError(f"{equation[:40]!r} has no finite value, or more than 300 characters")
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
