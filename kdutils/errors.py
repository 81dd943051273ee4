"""What a person is meant to read: the one exception, its message, and texts without passwords and keys."""

import os
import re
from collections import deque
from urllib.parse import quote

LONGEST = 600  # characters of a message
# Control characters (a terminal would obey them), separators of lines and paragraphs, and the marks that turn the
# direction of writing: all of them would make a line show something else than it holds.
_INVISIBLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]+")
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")  # all but tab and newline, and lone surrogates
_LONE = re.compile("[\ud800-\udfff]")  # half of a character: no file and no terminal takes it

_MASK = "***"
_OF_SECRETS = ("_KEY", "_TOKEN", "_SECRET", "PASSWORD")  # ends of names of environment variables
_LEAST = 8  # characters of a value of theirs that counts as secret
PLACEHOLDERS = {"lm-studio", "llama.cpp", "not-needed", "no-key-required", "placeholder"}  # for servers without keys
_NAMED = "(?:key|token|secret|passw|pwd|signature|credential|auth(?!or))"
_PATTERNS = [(needle, re.compile(pattern, re.IGNORECASE), kept) for needle, pattern, kept in (
    # the name and password of an address; a password may hold any character, and what only looks like one is a port
    ("@", r"""(://)(?:[^\s/?#:"'<>@]{0,300}+:(?!\d+[/?#])(?:[^\s"'<>@]{0,300}+@)+|(?:[^\s/?#"'<>@]{0,300}+@)+)""",
     r"\1***@"),
    ("=", rf"""([?&;](?:[\w.%-]{{0,60}}?{_NAMED}[\w.%-]{{0,60}}|sig)=)[^&\s"'<>#\\;]+""", r"\1***"),
    ("authorization", r"(authorization\W{1,6}(?:bearer|basic)\s{1,3})[\w.~+/=-]{8,}", r"\1***"),
    ("bearer", r"(\bbearer\s{1,3})(?=[a-z_.~+/=-]{0,200}\d)[\w.~+/=-]{16,}", r"\1***"),
    *((start, rf"\b({start})[\w-]{{16,}}", r"\1***")  # keys of well-known services
      for start in ("sk-", "hf_", "ghp_", "gho_", "ghs_", "github_pat_")),
)]


class StudyError(ValueError):
    """Something in the input is wrong: the message says what, where and what to do, and holds no secret.

    The command line prints it as one line and exits with code 2; a notebook shows it as the last
    line of its traceback. Whatever is put into the message, it is one line of at most LONGEST characters, without
    control characters and lone surrogates; of a longer one the beginning and the end are kept.
    """

    def __init__(self, message=""):
        text = _one_line(masked(message))
        if len(text) > LONGEST:
            text = f"{text[:LONGEST - 203]} … {text[-200:]}"
        super().__init__(text)


def shown(value, most=80):
    """Return `value` for a message: on one line of at most `most` characters; a text stands in quotes as in Python."""
    try:
        # A text is cut first: of a megabyte nobody needs the repr. Before that it loses its secrets, which masked()
        # would not know by their beginnings.
        value = masked(value) if isinstance(value, str) else value
        text = repr(value[:most + 1] if isinstance(value, (str, bytes)) else value)
    except Exception:  # a list in itself many times, a number of thousands of digits
        text = f"a value of type {type(value).__name__}"
    text = _one_line(masked(text))
    return text if len(text) <= most else f"{text[:most - 1]}…"


def printable(text: object) -> str:
    """Return `text` with U+FFFD for control characters and lone surrogates, and a newline for each line end.

    The two halves of a character beyond U+FFFF, as JSON writes it, become that character.
    """
    text = str(text).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return CONTROL.sub("\ufffd", text.replace("\r\n", "\n").replace("\r", "\n"))


def _one_line(text):
    return _LONE.sub("\ufffd", _INVISIBLE.sub(" ", text)).strip()


def masked(text):
    """Return `text` with *** for every password and key in it.

    These are names and passwords in addresses, query parameters that are named like a key, Authorization headers,
    keys of well-known services, and the values of environment variables that are named like a secret (``…_KEY``,
    ``…_TOKEN``, ``…_SECRET``, ``…PASSWORD``) or hold the password of a proxy.
    """
    text = str(text)
    for value in _secret_values():
        text = text.replace(value, _MASK)
    lower = text.lower()
    for needle, pattern, kept in _PATTERNS:
        if needle in lower:
            text = pattern.sub(kept, text)
    return text


def _secret_values():
    """Return the secrets of the environment, the longest first: one may be a part of another."""
    found = set()
    for name in os.environ:
        end = name.upper()
        if end.endswith(_OF_SECRETS):
            value = os.environ.get(name, "").strip()
            if len(value) >= _LEAST and value not in PLACEHOLDERS:
                found |= {value, quote(value, safe="", errors="surrogateescape")}
        elif end.endswith("_PROXY") and "@" in (value := os.environ.get(name, "")):
            found.add(value.rpartition("@")[0].rpartition("://")[2] + "@")
    return sorted(found, key=len, reverse=True)


def secret_in(value):
    """Return the dotted key of a text in `value` (dicts, lists and plain values) that holds a secret, else None."""
    waiting, seen = deque([("", value)]), set()
    while waiting:
        place, value = waiting.popleft()
        if isinstance(value, str) and masked(value) != value:
            return place
        if not isinstance(value, (dict, list, tuple)) or id(value) in seen:
            continue
        seen.add(id(value))  # an alias of YAML may stand a million times, or within itself
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        waiting += [(f"{place}.{key}".strip(".")[:200], item) for key, item in pairs]
        waiting += [(place, key) for key in value if isinstance(value, dict)]
    return None


def refuse_secrets(value, where=""):
    """Raise StudyError where a text in `value` holds a secret; `where` says what `value` is."""
    place = secret_in(value)
    if place is not None:
        label = f"key '{place}'" if place else "a key"
        raise StudyError(f"{where}{label}: holds a password or a key, which would stand in notebooks and pages; "
                         "take it out and put the key into the environment (OPENAI_API_KEY for a server, HF_TOKEN "
                         "for the Hub)")
