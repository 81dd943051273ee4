"""The one exception that a person is meant to read, and what may stand in its message."""

import re

LONGEST = 600  # characters of a message
# Control characters (a terminal would obey them), separators of lines and paragraphs, and the marks that turn the
# direction of writing: all of them would make a line show something else than it holds.
_INVISIBLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]+")
_LONE = re.compile("[\ud800-\udfff]")  # half of a character: no file and no terminal takes it


class StudyError(ValueError):
    """Something in the input is wrong: the message says what, where and what to do.

    The command line prints it as one line and exits with code 2; a notebook shows it as the last
    line of its traceback. Whatever is put into the message, it is one line of at most LONGEST characters, without
    control characters and lone surrogates; of a longer one the beginning and the end are kept.
    """

    def __init__(self, message=""):
        text = _one_line(str(message))
        if len(text) > LONGEST:
            text = f"{text[:LONGEST - 203]} … {text[-200:]}"
        super().__init__(text)


def shown(value, most=80):
    """Return `value` for a message: on one line of at most `most` characters; a text stands in quotes as in Python."""
    try:
        # A text is cut first: of a megabyte nobody needs the repr.
        text = repr(value[:most + 1] if isinstance(value, (str, bytes)) else value)
    except Exception:  # a list in itself many times, a number of thousands of digits
        text = f"a value of type {type(value).__name__}"
    text = _one_line(text)
    return text if len(text) <= most else f"{text[:most - 1]}…"


def _one_line(text):
    return _LONE.sub("\ufffd", _INVISIBLE.sub(" ", text)).strip()
