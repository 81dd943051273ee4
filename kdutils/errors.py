"""The one exception of the package, and texts that are safe to print: one line, without passwords and keys."""

import os
import re
from collections import deque
from urllib.parse import quote

INTERRUPTED = 130  # exit code after Ctrl-C, as shells have it
LONGEST = 600  # characters of a message
MOST_LINES = 20  # messages told at once
# A terminal obeys control characters, U+2028 and U+2029 break lines, and bidirectional marks reorder a line.
_INVISIBLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]+")
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")  # all but tab and newline, and lone surrogates
_UNSHOWN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff"
                      "\ufff9-\uffff]")  # these, lone surrogates and invisible characters
_LONE = re.compile("[\ud800-\udfff]")  # lone surrogates cannot be written to a file or terminal

_MASK = "***"
_SECRET_ENDS = ("_KEY", "_TOKEN", "_SECRET", "PASSWORD")  # of names of environment variables
_SHORTEST_SECRET = 8  # characters; shorter values of these variables are not masked, shorter numbers no secret
PLACEHOLDERS = {"lm-studio", "llama.cpp", "not-needed", "no-key-required", "placeholder"}  # for servers without keys
_NAMED = "(?:key|token|secret|passw|pwd|signature|credential|auth(?!or))"
_PATTERNS = [(needle, re.compile(pattern, re.IGNORECASE), kept) for needle, pattern, kept in (
    # User name and password of a URL. A password may hold any character; host:port is not one.
    ("@", r"""(://)(?:[^\s/?#:"'<>@]{0,300}+:(?!\d+[/?#])(?:[^\s"'<>@]{0,300}+@)+|(?:[^\s/?#"'<>@]{0,300}+@)+)""",
     r"\1***@"),
    ("=", rf"""([?&;](?:[\w.%-]{{0,60}}?{_NAMED}[\w.%-]{{0,60}}|sig)=)[^&\s"'<>#\\;]+""", r"\1***"),
    ("authorization", r"(authorization\W{1,6}(?:bearer|basic)\s{1,3})[\w.~+/=-]{8,}", r"\1***"),
    ("bearer", r"(\bbearer\s{1,3})(?=[a-z_.~+/=-]{0,200}\d)[\w.~+/=-]{16,}", r"\1***"),
    *((start.lower(), rf"\b({start})[\w-]{{16,}}", r"\1***")  # keys of well-known services
      for start in ("sk-", "hf_", "ghp_", "gho_", "ghs_", "github_pat_", "glpat-", "gsk_", "AIza", "nvapi-", "r8_",
                    "AKIA")),
    *((start, rf"\b({start})\w{{16,}}", r"\1***") for start in ("xai-", "pplx-")),  # of models with long names, too
)]
# How the key of a mapping ends whose value is a password or key. Tokens of a vocabulary (eos_token) are none.
_OF_VOCABULARY = "".join(f"(?<!{word}_)" for word in (
    "bos", "eos", "eot", "pad", "unk", "sep", "cls", "mask", "special", "start", "end", "stop", "first", "per"))
_ENDS_OF_KEYS = re.compile(
    "(?:(?:api|access|secret|private|subscription|auth|account|license)_?keys?|passw(?:or)?d|passphrase|pwd|secret|"
    f"{_OF_VOCABULARY}token|credentials?|authori[sz]ation|auth|bearer|cookie)_?[0-9]*$")


class StudyError(ValueError):
    """The input is wrong. The message says what is wrong, where, and what to do.

    The command line prints the message and exits with `code`. In a notebook it is the last line of the traceback.
    Every message is cleaned: one line of at most LONGEST characters (the middle of a longer one is cut out), without
    secrets, control characters and lone surrogates.
    """

    code = 2  # of the command line that ends with it

    def __init__(self, message: object = "") -> None:
        text = _one_line(masked(message))
        if len(text) > LONGEST:
            text = f"{text[:LONGEST - 203]} … {text[-200:]}"
        super().__init__(text)


class AlreadyRunning(StudyError):
    """Another process works in the same folder."""

    code = 3


class StudyErrors(StudyError):
    """Several things are wrong: `lines` has one message for each, at most MOST_LINES of them."""

    def __init__(self, messages: list[str]):
        self.lines = [str(StudyError(message)) for message in messages[:MOST_LINES]]
        left = len(messages) - len(self.lines)
        self.lines += [f"… and {left} more like these"] if left else []
        super().__init__("; ".join(self.lines))


def short(value: object, most: int = 60) -> str:
    """Return a value as it may stand in a message: on one line, masked, visible, at most `most` characters."""
    text = masked(value if isinstance(value, str) else repr(value))
    text = " ".join(_UNSHOWN.sub(lambda match: f"\\u{ord(match[0]):04x}" if not match[0].isspace() else " ",
                                 text[:10 * most]).split())
    return text if len(text) <= most else f"{text[:most - 1]}…"


def quoted(value: object) -> str:
    """Return a value as it may stand in a message, a text in quotation marks."""
    return f"'{short(value)}'" if isinstance(value, str) else short(value)


def shown(value: object, most: int = 80) -> str:
    """Return the `repr` of `value` for a message: one line of at most `most` characters, without secrets."""
    try:
        # Secrets are masked before a text is cut: the beginning of a key is not recognised as one.
        value = masked(value) if isinstance(value, str) else value
        text = repr(value[:most + 1] if isinstance(value, (str, bytes)) else value)
    except Exception:  # a list that holds itself many times, a number of thousands of digits
        text = f"a value of type {type(value).__name__}"
    text = _one_line(masked(text))
    return text if len(text) <= most else f"{text[:most - 1]}…"


def first_line(error: object, most: int = 200) -> str:
    """Return the first line of an exception's text, at most `most` characters, without control characters.

    The type of the exception is returned if it has no text, and put in front of a LookupError, whose text is a key.
    If the first line ends in a colon, the second line is added.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    line = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
    line = f"{type(error).__name__}: {line}" if isinstance(error, LookupError) else line
    line = "".join(char if char.isprintable() else " " for char in line).rstrip(".:")
    return line if len(line) <= most else f"{line[:most]} …"


def printable(text: object) -> str:
    """Return `text` with U+FFFD for control characters and lone surrogates, and a newline for each line end.

    The two halves of a character beyond U+FFFF, as JSON writes it, become that character.
    """
    text = str(text).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return CONTROL.sub("\ufffd", text.replace("\r\n", "\n").replace("\r", "\n"))


def _one_line(text):
    return _LONE.sub("\ufffd", _INVISIBLE.sub(" ", text)).strip()


def masked(text: object) -> str:
    """Return `text` with *** in place of every password and key.

    Masked are: user names and passwords in URLs, query parameters named like a key, Authorization headers, keys of
    well-known services, and the values of environment variables that are named like a secret (``…_KEY``, ``…_TOKEN``,
    ``…_SECRET``, ``…PASSWORD``) or hold the password of a proxy.
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
    """Return the secrets in the environment, longest first, because one may be part of another."""
    secrets = set()
    for name in os.environ:
        upper = name.upper()
        if upper.endswith(_SECRET_ENDS):
            value = os.environ.get(name, "").strip()
            if len(value) >= _SHORTEST_SECRET and value not in PLACEHOLDERS:
                secrets |= {value, quote(value, safe="", errors="surrogateescape")}
        elif upper.endswith("_PROXY") and "@" in (value := os.environ.get(name, "")):
            secrets.add(value.rpartition("@")[0].rpartition("://")[2] + "@")
    return sorted(secrets, key=len, reverse=True)


def secret_in(value: object) -> str | None:
    """Return the dotted key of the first text in `value` that holds a secret, None if there is none.

    `value` is a plain value or nested dicts and lists of plain values. A text is a secret by its form (`masked`), or by
    the name of its key, such as api_key.
    """
    waiting, seen = deque([("", value, False)]), set()  # (place, value, whether its key is named like a secret)
    while waiting:
        place, value, named = waiting.popleft()
        if isinstance(value, str) and (masked(value) != value or named and value.strip()):
            return place
        if named and isinstance(value, int) and abs(value) >= 10 ** (_SHORTEST_SECRET - 1):  # a password of digits
            return place
        if not isinstance(value, (dict, list, tuple)) or (id(value), named) in seen:
            continue
        seen.add((id(value), named))  # a YAML alias may repeat a value a million times, or refer to itself
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        waiting += [(f"{place}.{key}".strip(".")[:200], item,
                     _names_secret(key) if isinstance(value, dict) else named) for key, item in pairs]
        waiting += [(place, key, False) for key in value if isinstance(value, dict)]
    return None


def _names_secret(key):
    """Return whether a key of a mapping (api_key, X-Api-Key, accessToken) is named like that of a secret."""
    words = re.sub(r"[\W_]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", str(key)[-200:])).lower().strip("_")
    return bool(_ENDS_OF_KEYS.search(words))


def refuse_secrets(value: object, where: str = "") -> None:
    """Raise StudyError if a text in `value` holds a secret; `where` begins the message and names `value`."""
    place = secret_in(value)
    if place is not None:
        label = f"key '{place}'" if place else "a key"
        raise StudyError(f"{where}{label}: holds a password or a key, which would appear in notebooks and pages; "
                         "remove it and set the key in the environment (OPENAI_API_KEY for a server, HF_TOKEN for "
                         "the Hub)")
