"""What a person is meant to read: the one exception, and texts without passwords and keys."""

import os
import re
from collections import deque
from urllib.parse import quote

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
    line of its traceback.
    """

    def __init__(self, message=""):
        super().__init__(masked(message))


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
        raise StudyError(f"{where}key '{place}': holds a password or a key, which would stand in notebooks and pages; "
                         "take it out and put the key into the environment (OPENAI_API_KEY for a server, HF_TOKEN "
                         "for the Hub)")
