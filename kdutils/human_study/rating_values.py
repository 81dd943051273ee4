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


def score_of(value: object, options: Sequence[str]) -> int | None:
    """Return 1 to len(options) for a number, the text of an option or, unless they are SCALE, its letter; else None."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    if isinstance(value, str):
        value, words = value.strip(), [str(option).casefold() for option in options]
        if value.casefold() in words:
            return words.index(value.casefold()) + 1
        if options is not SCALE and re.fullmatch("[A-Za-z]", value):
            value = ord(value.upper()) - 64
        elif not re.fullmatch(r"\d{1,3}([.,]0*)?", value):
            return None
    if isinstance(value, str):
        value = float(value.replace(",", "."))
    return int(value) if 1 <= value <= len(options) and value == int(value) else None


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
