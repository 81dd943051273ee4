"""Values in files of ratings: scores, times, ids of raters, and text that is safe to print."""

import re
from collections.abc import Sequence

import numpy as np

from kdutils.human_study.design import SCALE

CODE = re.compile(r"[Rr]\d{3,}[A-Za-z]")  # the form of the codes of any plan


class Problem(Exception):
    """A file cannot be used; the arguments are what and detail of the problem."""


def is_foreign(rater: object) -> bool:
    """Say whether this may be an id of another source: a text that does not have the form of a code."""
    return isinstance(rater, str) and bool(rater.strip()) and not CODE.fullmatch(rater.strip())


def is_blank(value: object) -> bool:
    """Say whether a cell or JSON value holds nothing."""
    return value is None or (isinstance(value, str) and not value.strip())


def place_of(label: object, lettered: bool = False) -> object:
    """Return a text that is a whole number or, if `lettered`, one letter (A is 1) as an integer, else `label` itself.

    For files whose labels can only be places among the options: the form's table and Potato's.
    """
    word = label.strip() if isinstance(label, str) else ""
    if lettered and re.fullmatch("[A-Za-z]", word):
        return ord(word.upper()) - 64
    number = re.fullmatch(r"(\d{1,3})([.,]0*)?", word)
    return int(number[1]) if number else label


def possible_scores(value: object, options: Sequence[str]) -> set[int]:
    """Return the points or choices, 1 to len(options), that a value can mean: none, one or, if it is ambiguous, more.

    A number means its place. A text means the option that it repeats, the place that it names as a number and, unless
    the options are SCALE, as a letter: where "2" is the text of the first choice, it means 1 or 2.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return set()
    found, place = set(), value
    if isinstance(value, str):
        word, words = value.strip(), [str(option).strip() for option in options]
        same = [word == one for one in words]
        if not any(same):
            same = [word.casefold() == one.casefold() for one in words]
        found = {number for number, is_same in enumerate(same, 1) if is_same}
        place = place_of(value, lettered=options is not SCALE)
    if not isinstance(place, str) and 1 <= place <= len(options) and place == int(place):
        found.add(int(place))
    return found


def seconds_of(value: object) -> float:
    """Return a time of a file as a number of seconds, NaN if it is none."""
    try:
        seconds = float(value.replace(",", ".") if isinstance(value, str) else value)
    except (TypeError, ValueError, OverflowError):
        return np.nan
    return seconds if 0 <= seconds < 1e9 else np.nan


def shortened(value: object, length: int = 60) -> str:
    """Return `value` as a text of at most `length` characters that is safe to print: other than ASCII is escaped."""
    if isinstance(value, str):
        value = value[:length + 1]
    text = value if isinstance(value, str) and value.isascii() and value.isprintable() else ascii(value)
    return text if len(text) <= length else text[:length - 3] + "…"
