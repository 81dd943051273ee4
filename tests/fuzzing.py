"""What the fuzzers share: rounds with a seed and a time, damage to bytes and to values, and what may come of it."""

import contextlib
import copy
import math
import os
import re
import signal
import time
from datetime import date, datetime
from decimal import Decimal
from random import Random

import pytest

from kdutils.errors import StudyError

PATIENCE = 30  # seconds that one input may take before it counts as a hang
# Values that stand where a text, a number or a list is meant.
ODD = [None, True, False, 0, -1, 7, 2 ** 63, 10 ** 400, 0.5, 1e308, math.nan, math.inf, "", " ", "\0", "\x1b[31m",
       "nan", "a\nb\r\n", "\ud83d", "\U0001f600", "\u202ex", "x" * 10_000, [], [[]], [None], ["x", None], ["x", 3], {},
       {"a": 1}, "[", "{}", "a|b", "[1, 2]", "[" * 5000, "~nosuch", "../..", "=1+1", b"\xff\xfe", b"bytes",
       date(2026, 1, 2), datetime(2026, 1, 2, 3), Decimal("1.50")]
PLAIN = [value for value in ODD if not isinstance(value, (bytes, date, Decimal))]  # those that JSON can hold


def seconds(usual):
    """Return how long a fuzzer runs: `usual` seconds, or what the environment variable KDUTILS_FUZZ_SECONDS says."""
    return float(os.environ.get("KDUTILS_FUZZ_SECONDS") or usual)


def rounds(seed, usual, least=50):
    """Yield a Random per round until the time is over, at least `least` of them: round 17 is the same in every run."""
    end, number = time.monotonic() + seconds(usual), 0
    while number < least or time.monotonic() < end:
        yield Random(f"{seed} {number}")
        number += 1
    print(f"{seed}: {number} inputs")


def damaged(data, draw):
    """Return bytes with a few bits flipped, cut short, a piece left out, doubled, zeroed or filled with noise."""
    data, kind = bytearray(data), draw.randrange(6)
    start = draw.randrange(len(data) + 1)
    end = min(len(data), start + draw.choice((1, 2, 8, 64, 4096)))
    if kind == 0 or not data:
        for _ in range(draw.choice((1, 1, 2, 8, 64)) if data else 0):
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        return bytes(data)
    piece = {1: b"", 2: data[start:end] * 2, 3: bytes(end - start), 4: draw.randbytes(end - start)}.get(kind)
    return bytes(data[:start]) if piece is None else bytes(data[:start] + piece + data[end:])


def swapped(value, draw, odd=PLAIN):
    """Return a copy of nested dicts and lists in which one value, or one key, is replaced, added or taken away."""
    value = copy.deepcopy(value)
    places = list(_places(value))
    if not places:
        return draw.choice(odd)
    inner, key = draw.choice(places)
    kind = draw.randrange(8)
    if kind == 0:
        del inner[key]
    elif kind == 1 and isinstance(inner, dict):
        inner[draw.choice(["", "id", "x" * 300, "\x1b[2J", "\ud83d"])] = inner.pop(key)
    elif kind == 2 and isinstance(inner, list):
        inner.insert(key, copy.deepcopy(inner[key]))
    else:
        inner[key] = draw.choice(odd)
    return value


def _places(value):
    """Yield (container, key) of everything in nested dicts and lists."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield value, key
        yield from _places(inner)


def outcome(function, *arguments, **options):
    """Return (what the function returns, "") or (None, message of its StudyError); all else fails the test.

    A message must be one line of some hundred characters that a terminal can show.
    """
    with time_limit():
        try:
            return function(*arguments, **options), ""
        except StudyError as error:
            message = str(error)
    assert message and len(message) <= 600 and not re.search("[\x00-\x1f\x7f-\x9f\u2028\u202e\ud800-\udfff]", message)
    assert "Traceback" not in message
    return None, message


@contextlib.contextmanager
def time_limit():
    """Fail the test where what is inside takes longer than PATIENCE seconds."""
    def hang(*_):
        pytest.fail(f"no answer within {PATIENCE} s")

    before = signal.signal(signal.SIGALRM, hang)
    signal.alarm(PATIENCE)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
