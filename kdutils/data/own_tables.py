"""What the columns of a user's own table mean, and how one of its rows becomes a question.

A table needs a question and an answer per row; all other columns are optional. Columns are found by their names, in any
case and with any separators. How answers are written is decided by all rows together, so one faulty row does not change
how the others are read.

- choices: a list (of JSON or Python, or items separated by ``|``, line ends or ``;``, but not by commas), one text with
  letters such as ``(a) red (b) blue``, a mapping with the key ``text`` (as on the Hub), or one column per choice
  (``A``, ``option1``).
- answer: the text of a choice, its letter, its number (from 0 or from 1), its label or the name of its column.
  Without choices it is free text or a number, or a truth value, and then the two truth values are the choices.
"""

import ast
import contextlib
import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from kdutils.data.answers import parse_number
from kdutils.data.questions import HALF, LETTERS, is_whole_text
from kdutils.errors import StudyError, shown

# Role -> names of its column without case and separators, the first that is there is taken.
NAMES = {
    "id": ("id", "qid", "uid", "questionid", "exid", "index", "idx", "nr"),
    "split": ("split", "subset", "fold"),
    "context": ("context", "passage", "paragraph", "background", "article", "document"),
    "question": ("question", "questionstem", "questiontext", "stem", "query", "claim", "statement", "sentence",
                 "problem", "prompt", "text"),
    "choices": ("choices", "options", "answerchoices", "candidates", "alternatives", "endings"),
    "answer": ("answer", "answerkey", "correctanswer", "correct", "correctchoice", "correctoption", "gold",
               "goldanswer", "label", "goldlabel", "target", "solution", "key", "cop"),
    "human_explanations": ("humanexplanations", "humanexplanation", "explanations", "explanation", "rationales",
                           "rationale", "reason"),
}
SPLIT_NAMES = {"train": "train", "training": "train", "dev": "dev", "valid": "dev", "validation": "dev", "val": "dev",
               "development": "dev", "test": "test", "testing": "test"}
# How answers are written -> what it is called for a user.
ANSWERS = {"text": "the text of a choice", "letter": "the letter of a choice", "label": "the label of a choice",
           "column": "the name of the column of a choice", "from 0": "the number of a choice, counted from 0",
           "from 1": "the number of a choice, counted from 1",
           "unclear": "the number of a choice, but it cannot be told whether 1 is the first or the second",
           "truth": "a truth value", "free": "free text or a number"}
_BY_CHOICE = ("text", "letter", "label", "column", "from 0", "from 1")  # of those that fit as many rows, the first
_TRUTH = (("true", "false"), ("yes", "no"))
_CHOICE_COLUMN = re.compile(r"(choice|option|opt|op|answer|ans|alternative|candidate|ending|sol|)([a-z]|\d{1,2})")
_EXPLANATION_COLUMN = re.compile(r"(?:human)?(?:explanation|expl|rationale)\d{1,2}")


@dataclass(frozen=True)
class OwnTable:
    """How a table is read. `columns`: role -> names of its columns, () where it has none; `answers`: a key of ANSWERS.

    `choices`: how they are written: "columns", "truth", "list" or "" for none. `truth`: the two choices if the answers
    are truth values.
    """

    columns: Mapping[str, tuple[str, ...]]
    answers: str = "free"
    choices: str = ""
    truth: tuple[str, ...] = ()

    @property
    def used(self) -> tuple[str, ...]:
        """The names of all columns that are read."""
        return tuple(name for names in self.columns.values() for name in names)

    def question_of(self, row: Mapping) -> dict:
        """Return a row as a question, its answer "" where the cell is empty; ValueError for a row that is faulty.

        It has no ``split`` if the table has none.
        """
        choices, names = self._choices_of(row)
        item = {"question": text_of(row, self._column("question")), "choices": choices,
                "context": optional_text(row, self._column("context")),
                "answer": self._answer_of(row, choices, names),
                "human_explanations": [text for name in self.columns["human_explanations"]
                                       for text in texts_of(_explanations(row.get(name), name))]}
        key = row.get(self._column("id"))
        item["id"] = identifier(key, "id") if self.columns["id"] else content_id(item)
        split = row.get(self._column("split"))
        if split is not None:
            item["split"] = SPLIT_NAMES.get(str(split).strip().casefold(), str(split).strip())
        return item

    def _column(self, role):
        return next(iter(self.columns[role]), "")

    def _choices_of(self, row):
        """Return (choices as texts, their labels or names of columns)."""
        names = self.columns["choices"]
        if self.choices == "truth":
            return list(self.truth), []
        if self.choices != "columns":
            return choices_of(row.get(self._column("choices"))) if names else ([], [])
        values = [row.get(name) for name in names]
        while values and is_empty(values[-1]):
            values.pop()
        return [choice_text(value) for value in values], list(names)

    def _answer_of(self, row, choices, names):
        value = row.get(self._column("answer"))
        if is_empty(value):
            return ""
        if self.answers == "truth":
            return dict(zip(("true", "false"), self.truth, strict=True))[_truth_of(value)] if _truth_of(value) else \
                str(value).strip()
        if not choices and self.answers in ("letter", "column") and _named_by(
                self.answers, value, LETTERS, names) is not None:  # a number may be a free answer
            raise ValueError(f"field 'choices': empty, but the answer {shown(value)} is {ANSWERS[self.answers]}")
        found = _named_by(self.answers, value, choices, names)
        return choices[found] if found is not None else answer_text(value, choices)


def understand(records: Sequence[Mapping], where: str) -> OwnTable:
    """Return how the rows of a table are read; StudyError, beginning with `where`, if a needed column is missing."""
    names = list(dict.fromkeys(str(name) for record in records for name in record))
    columns = find_columns(names)
    table = OwnTable(columns, choices=("", "list", "columns")[min(2, len(columns["choices"]))])
    for role in ("question", "answer"):
        if not columns[role]:
            raise StudyError(f"{where}: field '{role}': no such column; there are {shown(', '.join(names), 200)}; name "
                             f"the column of the {role} '{role}'")
    answers = [record.get(columns["answer"][0]) for record in records]
    if not columns["choices"]:
        truth = _truth_choices(answers)
        return OwnTable(columns, "truth", "truth", truth) if truth else table
    return OwnTable(columns, _answers_as(table, records), table.choices)


def find_columns(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return {role: names of its columns} of a table with the columns `names`, () for a role that none has."""
    plain = {}
    for name in names:
        plain.setdefault(re.sub(r"[\W_]+", "", name.casefold()), name)
    columns = {role: tuple(plain[known] for known in NAMES[role] if known in plain)[:1] for role in NAMES}
    if not columns["choices"]:
        columns["choices"] = _choice_columns(plain, columns["answer"])
    numbered = sorted(name for name in plain if _EXPLANATION_COLUMN.fullmatch(name))
    if not columns["human_explanations"]:
        columns["human_explanations"] = tuple(plain[name] for name in numbered)
    return columns


def _choice_columns(plain, taken):
    """Return the columns that hold one choice each: at least two of one name, with letters or numbers in a row."""
    groups = {}
    for key, name in plain.items():
        if (found := _CHOICE_COLUMN.fullmatch(key)) and name not in taken:
            number = LETTERS.index(found[2]) if found[2].isalpha() else int(found[2])
            groups.setdefault((found[1], found[2].isalpha()), {})[number] = name
    for (_, lettered), group in groups.items():
        first = min(group)
        if len(group) > 1 and first in ((0,) if lettered else (0, 1)) and max(group) - first == len(group) - 1:
            return tuple(group[number] for number in sorted(group))
    return ()


def describe(table: OwnTable, names: Iterable[str]) -> list[str]:
    """Return in words how a table with the columns `names` is read, one line per role and one for unused columns."""
    columns, lines = table.columns, []
    for role, found in columns.items():
        named = f"column{'s' if found[1:] else ''} {', '.join(shown(name, 40) for name in found)}" if found else "none"
        more = {"id": "made from the text" * (not found), "answer": f"written as {ANSWERS[table.answers]}",
                "choices": f"{', '.join(table.truth)} by the answers" if table.choices == "truth" else
                "the answers are free text" * (not found),
                "split": "splits are drawn: a tenth is test, a tenth of the rest dev" * (not found)}.get(role, "")
        lines.append(f"{role:<19}{named}{'; ' if more else ''}{more}")
    unused = [name for name in names if name not in table.used]
    return lines + ([f"{'not used':<19}column{'s' * (len(unused) > 1)} "
                     f"{', '.join(shown(name, 40) for name in unused)}"] if unused else [])


# How answers are written

def _answers_as(table, records):
    """Return the key of ANSWERS by which most rows name one of their choices."""
    counts, rows = Counter(), 0
    for record in records:
        try:
            choices, names = table._choices_of(record)
        except ValueError:
            continue
        value = record.get(table.columns["answer"][0])
        if is_empty(value) or not choices:
            continue
        rows += 1
        counts.update(way for way in _BY_CHOICE if _named_by(way, value, choices, names) is not None)
    best = max(_BY_CHOICE, key=lambda way: counts[way])
    if not rows:
        return "free"
    return "unclear" if best == "from 0" and counts["from 0"] == counts["from 1"] else best


def _named_by(way, value, choices, names):
    """Return the place of the choice that `value` names if answers are written in this way, None if it names none."""
    if way == "text":
        try:
            text = answer_text(value, choices)
        except ValueError:
            return None
        return choices.index(text) if text in choices else None
    text = str(value).strip()
    if way == "letter":
        letter = re.fullmatch(r"\(?([a-z])[).:]?", text.casefold())
        place = LETTERS.index(letter[1]) if letter else -1
    elif way in ("label", "column"):
        keys = [re.sub(r"[\W_]+", "", str(name).casefold()) for name in names]
        text = re.sub(r"[\W_]+", "", text.casefold())
        place = keys.index(text) if text in keys else -1
    elif way in ("from 0", "from 1"):
        number = parse_number(text) if not isinstance(value, bool) else None
        whole = number is not None and math.isfinite(number) and number == int(number)
        place = int(number) - (way == "from 1") if whole else -1
    else:
        return None
    return place if 0 <= place < len(choices) else None


def _truth_of(value):
    """Return "true" or "false" for a truth value in any of its spellings, "" for anything else."""
    text = str(value).strip().casefold()
    return next((("true", "false")[pair.index(text)] for pair in _TRUTH if text in pair), "")


def _truth_choices(answers):
    """Return the two choices of a table whose answers are all truth values: yes, no if they are written so; else ()."""
    given = [value for value in answers if not is_empty(value)]
    if not given or not all(map(_truth_of, given)):
        return ()
    return _TRUTH[all(str(value).strip().casefold() in _TRUTH[1] for value in given)]


# Fields

def is_empty(value: object) -> bool:
    """Say whether a cell is empty: no value, not a number, or a text of spaces."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or isinstance(value, float) and math.isnan(value)


def text_of(row: Mapping, name: str) -> str:
    """Return a required text; KeyError without the column, ValueError for an empty cell or one that is no text."""
    if not isinstance(row[name], str) or not row[name].strip():
        raise ValueError(f"field '{name}' is empty or not a text")
    if not is_whole_text(row[name]):
        raise ValueError(f"field '{name}': {HALF}")
    return row[name].strip()


def optional_text(row: Mapping, name: str) -> str:
    """Return a text that may be missing, then ""."""
    return "" if is_empty(row.get(name)) else text_of(row, name)


def texts_of(values: Iterable) -> list[str]:
    """Return the non-empty texts among `values`; explanations by people are often missing."""
    return [value.strip() for value in values if isinstance(value, str) and value.strip()]


def choices_of(value: object) -> tuple[list[str], list[str]]:
    """Return (the choices in one cell as texts, their labels or []); ValueError if there is no list in it."""
    if isinstance(value, Mapping) and isinstance(value.get("text"), (list, tuple)):
        return [choice_text(text) for text in value["text"]], list(map(str, value.get("label") or []))
    if isinstance(value, str) and (lettered := _lettered(value)):
        return lettered, []
    items = listed(value, "choices", separators="|\n;")
    if items and all(isinstance(item, Mapping) and "text" in item for item in items):
        return [choice_text(item["text"]) for item in items], [str(item.get("label", "")) for item in items]
    return [choice_text(item) for item in items], []


def _lettered(text):
    """Return the choices of a text such as ``(a) red (b) blue`` or ``1. red 2. blue``, [] for any other text."""
    for marks in (LETTERS, [str(number) for number in range(1, len(LETTERS) + 1)]):
        starts, place = [], 0
        for mark in marks:
            pattern = rf"(?:(?<=[\s,;|])|^)(?:\({mark}\)|{mark}\s?[).:](?=\s))\s*"
            found = re.compile(pattern, re.IGNORECASE).search(text, place)
            if not found or not starts and text[:found.start()].strip():
                break
            starts.append(found.span())
            place = found.end()
        if len(starts) > 1:
            ends = [start for start, _ in starts[1:]] + [len(text)]
            return [text[begin:end].strip().rstrip(",;|").strip() for (_, begin), end in zip(starts, ends, strict=True)]
    return []


def choice_text(value: object) -> str:
    """Return a choice as text, a number or truth value in its usual spelling; ValueError for anything else."""
    return value.strip() if isinstance(value, str) else spellings(value, "choices")[0]


def answer_text(value: object, choices: Sequence[str]) -> str:
    """Return an answer as text. A number or truth value becomes the choice that states it, else its usual spelling."""
    if isinstance(value, str):
        return text_of({"answer": value}, "answer")
    texts = spellings(value, "answer")
    return next((choice for text in texts for choice in choices if choice.casefold() == text.casefold()), texts[0])


def spellings(value: object, name: str) -> list[str]:
    """Return the spellings of a number or truth value, the usual one first; ValueError for anything else."""
    if isinstance(value, bool):
        return ["true", "yes"] if value else ["false", "no"]
    if isinstance(value, int) or isinstance(value, (float, Decimal)) and math.isfinite(value):
        whole = [str(int(value))] if value == int(value) else []
        return list(dict.fromkeys([*whole, str(value)]))
    raise ValueError("field 'choices': an empty choice or one that is neither a text nor a number" if name == "choices"
                     else f"field '{name}' is empty or not a text or a number")


def identifier(value: object, name: str) -> str:
    """Return an id as text. Ids are often numbers, and 7.0 if a cell of the column is empty."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return spellings(value, name)[0]
    return text_of({name: value}, name)


def listed(value: object, name: str, separators: str) -> list:
    """Return the list in a cell: a list, its text in JSON or Python, or a text cut at the first separator it has.

    An empty cell is an empty list. Raises ValueError for anything else.
    """
    if isinstance(value, str) and value.strip().startswith("["):
        try:
            value = _parsed(value.strip(), name)
        except ValueError:
            if not any(one in value for one in separators):  # else it is a text such as "[1] red | [2] blue"
                raise
    if isinstance(value, str):
        separator = next((one for one in separators if one in value), None)
        parts = [part.strip() for part in value.split(separator)] if separator else [value.strip()]
        value = [part for part in parts if part or separator == "|"] if value.strip() else []
    if is_empty(value):
        return []
    if isinstance(value, (list, tuple)):
        return list(value)
    raise ValueError(f"field '{name}': {shown(value)} is not a list")


def _explanations(value, name):
    """Return the explanations in a cell: a list, its text, or a text, with " | " between several explanations."""
    if not isinstance(value, str):
        return listed(value, name, separators="")
    with contextlib.suppress(ValueError):  # a text may begin with a bracket, too
        if value.strip().startswith("[") and isinstance(parsed := _parsed(value.strip(), name), list):
            return parsed
    return [part for part in re.split(r"\s\|\s", value) if part.strip()]


def _parsed(text, name):
    """Return a list written as JSON, as Python, or as NumPy (without commas)."""
    parts = re.findall(r"'([^']*)'|\"([^\"]*)\"", text)
    if len(parts) > 1 and re.fullmatch(r"\[(?:\s*(?:'[^']*'|\"[^\"]*\"))+\s*\]", text):
        return ["".join(part) for part in parts]  # as NumPy prints it; Python would join these texts
    readers: tuple[Callable, ...] = (json.loads, ast.literal_eval)
    for read in readers:
        try:
            return read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError) as error:
            reason = error
    raise ValueError(f"field '{name}': not readable JSON ({reason})")


def content_id(item: Mapping) -> str:
    """Return an id of a question made from its words, so that it stays the same when rows are added or moved."""
    words = json.dumps([item["context"], item["question"], sorted(item["choices"])], ensure_ascii=False)
    return f"q-{hashlib.sha256(words.encode('utf-8', 'replace')).hexdigest()[:16]}"

