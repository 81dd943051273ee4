"""Exports of survey tools and panels: wide tables of Qualtrics and LimeSurvey, Argilla's records, Prolific's list.

In a wide table a row is a person, and each column is one statement about one text. A column is recognised by its name
or, in Qualtrics, its label: it contains the id of the text, and the name of the construct, its first five letters, its
number or the statement itself, such as ``bcdfghjk_plausibility``, ``bcdfghjk[plaus]``, ``bcdfghjk_1`` or
``bcdfghjk[SQ001]``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdutils.human_study.design import SCALE
from kdutils.human_study.forms import PARTICIPANT
from kdutils.human_study.rating_values import Problem, possible_scores, seconds_of, shortened

if TYPE_CHECKING:
    from kdutils.human_study.ratings import _Reader

    Rows = list[tuple[int, dict[str, str] | tuple[str, str]]]

SUBMISSIONS = {"participant id", "status"}  # columns of Prolific's list of submissions
WITHDRAWN = {"RETURNED": "returned at Prolific", "REJECTED": "rejected at Prolific",
             "CONSENT_REVOKED": "consent revoked at Prolific"}  # submissions that are not used
NO_CODE = "NOCODE"  # what Prolific lists for a person who had no completion code
PREVIEWS = {"1", "2", "survey preview", "survey test"}  # Qualtrics' column Status of a person who only tried the survey
NOT_ANSWERED = {"n/a", "-99"}  # of LimeSurvey for what was not shown, of Qualtrics for what was seen and left open
PERSON = ("rater", *sorted(PARTICIPANT - {"id"}), "token", "responseid", "response_id", "id")  # the first that is there
_TEXT_ID = re.compile(r"(?<![a-z])[b-df-hj-np-tv-z]{8}")
_CLICKS = re.compile(r"\b(?:first|last) click\b|\bclick count\b")  # of Qualtrics' timers; page submit is the time
_LAST_NUMBER = re.compile(r"(?:^|[^0-9a-z]|sq)0*([1-9]\d?)\W*$")
_ANSWER_CODE = re.compile(r"[Aa][Oo]?0*([1-9])")  # LimeSurvey: A4, AO04
_NUMBERED = re.compile(r"([1-9])\W+(.+)")  # 4 - agree


# Wide tables


def survey_columns(header: list[str], labels: Mapping[str, str], reader: _Reader) -> dict[str, tuple[str, str]]:
    """Return {column: (text, item)} of a wide table; the item is "seconds" for a time, "" where it is not known.

    Columns on the clicks of a page are left out.
    """
    found = {}
    for name in header:
        words = f"{name} {labels.get(name, '')}".casefold()
        text = next((one for one in _TEXT_ID.findall(words) if one in reader.texts), None)
        if text and not _CLICKS.search(words.replace("_", " ")):
            code = next((part for part in name.casefold().split() if text in part), name.casefold())
            found[name] = text, _item_of(code.replace(text, " "), words.replace(text, " "), reader.items)
    return found


def _item_of(code, words, items):
    """Return the item that a column is about, from its `code` and all its `words`, without the id of the text."""
    plain = " ".join(words.split())
    for item, statement in items.items():
        if " ".join(statement.casefold().split()) in plain or item in code:
            return item
    for item in items:
        if re.search(rf"(?<![a-z]){item[:5]}(?![a-z])", code):
            return item
    if "page submit" in plain or re.search(r"(?<![a-z])(time|seconds)(?![a-z])", code):
        return "seconds"
    number = _LAST_NUMBER.search(code)
    if number and int(number[1]) <= len(items):
        return list(items)[int(number[1]) - 1]
    return next((item for item in items if item in plain or len(items) == 1), "")


def split_labels(rows: Rows) -> tuple[dict[str, str], Rows]:
    """Return ({column: label}, rows of answers): Qualtrics writes labels and a line with ImportId below the names."""
    for place, (_, cells) in enumerate(rows[:3]):
        if isinstance(cells, dict) and any('"ImportId"' in cell for cell in cells.values()):
            above = [line for _, line in rows[:place] if isinstance(line, dict)]
            return {name: " ".join(line[name] for line in above) for name in cells}, rows[place + 1:]
    return {}, rows


def read_survey(path: Path, header: list[str], rows: Rows, reader: _Reader) -> bool:
    """Give the pages of a wide table to `reader`; return False where the table is none."""
    if not reader.pages:
        return False
    labels, answers = split_labels(rows)
    columns = survey_columns(header, labels, reader)
    if not any(item in reader.items for _, item in columns.values()):
        return False
    pairs = [pair for pair in columns.values() if pair[1]]
    twice = [name for name, pair in columns.items() if pairs.count(pair) > 1] or \
        [name for name in columns if header.count(name) > 1]
    if twice:
        raise Problem("unknown layout", f"duplicate column {shortened(twice[0])}")
    for name in (name for name, (_, item) in columns.items() if not item):
        reader.note(path, 1, "column of a text without a construct", shortened(name))
    plain = {re.sub(r"\s+", "_", name.strip().casefold()): name for name in header}
    person = next((plain[name] for name in PERSON if name in plain), None)
    for line, cells in answers:
        if isinstance(cells, tuple):
            reader.note(path, line, *cells, left_out=1)
        elif labels and cells.get(plain.get("status", ""), "").strip().casefold() in PREVIEWS:
            reader.note(path, line, "preview of the survey", "", cells.get(person, ""))
        else:
            _read_person(path, line, cells, columns, person, plain, reader)
    return True


def _read_person(path, line, cells, columns, person, plain, reader):
    rater, other = cells[person].strip() if person else "", ""
    if person == plain.get("rater"):
        other = next((cells[plain[name]].strip() for name in PERSON[1:-4] if name in plain), "")
        rater = (reader.person(rater, other) if rater else other) if other else rater
    pages = {}
    for name, (text, item) in columns.items():
        pages.setdefault(text, {})[item] = _survey_value(cells[name])
    for text, scores in pages.items():
        if any(scores.get(item) for item in reader.items):
            reader.add(path, line, rater or f"line {line}", text, scores, seconds_of(scores.get("seconds")),
                       table=None if other else (path, line))


def _survey_value(cell):
    """Return a cell as `possible_scores` reads it: an answer code of LimeSurvey as its number, "" for no answer."""
    cell = cell.strip()
    if cell.casefold() in NOT_ANSWERED:
        return ""
    if code := _ANSWER_CODE.fullmatch(cell):
        return int(code[1])
    numbered = _NUMBERED.fullmatch(cell)
    return int(numbered[1]) if numbered and possible_scores(numbered[2], SCALE) == {int(numbered[1])} else cell


# Argilla


def is_argilla(records: object) -> bool:
    """Say whether these are records of Argilla: of version 1 or 2, nested or flattened."""
    return isinstance(records, list) and bool(records) and all(
        isinstance(record, dict) and ("responses" in record or any(name.endswith(".responses") for name in record))
        for record in records)


def read_argilla(path: Path, records: list[dict[str, Any]], reader: _Reader) -> None:
    """Give the responses of Argilla's records to `reader`; drafts and discarded ones are left out.

    The id of the text is that of the record, its external_id, or the entry `text` of its metadata.
    """
    reader.needs_plan()
    for row, record in enumerate(records, 1):
        metadata = record.get("metadata")
        names = [record.get("id"), record.get("external_id"), record.get("text"),
                 metadata.get("text") if isinstance(metadata, dict) else None]
        text = next((name for name in names if isinstance(name, str) and name in reader.texts), names[0])
        people: dict[Any, dict[str, Any]] = {}
        for item, person, value, status in _responses(record, reader.items):
            if status in (None, "submitted"):
                people.setdefault(person, {})[item] = value
            else:
                reader.note(path, row, "response not submitted", shortened(status), person)
        for person, scores in people.items():
            reader.add(path, row, person, text, scores)


def _responses(record, items) -> Iterator[tuple[str, Any, Any, Any]]:
    """Yield (item, user, value, status) of a record."""
    responses = record.get("responses")
    for response in responses if isinstance(responses, list) else []:  # version 1: one response per person
        values = response.get("values") if isinstance(response, dict) else None
        for item, value in values.items() if isinstance(values, dict) else ():
            yield (item, _name(response.get("user_id")), value.get("value") if isinstance(value, dict) else value,
                   response.get("status"))
    for item in items:
        nested = responses.get(item) if isinstance(responses, dict) else None  # version 2
        for one in nested if isinstance(nested, list) else []:
            if isinstance(one, dict):
                yield item, _name(one.get("user_id")), one.get("value"), one.get("status")
        flat = [record.get(f"{item}.responses{part}") for part in ("", ".users", ".status")]  # version 2, flattened
        if isinstance(flat[0], list) and isinstance(flat[1], list):
            states = flat[2] if isinstance(flat[2], list) else [None] * len(flat[0])
            for value, person, status in zip(*flat[:2], states, strict=False):
                yield item, _name(person), value, status


def _name(person):
    """Return a user as a text; other JSON values cannot be one."""
    return person if isinstance(person, str) else shortened(person)


# Prolific


def read_submissions(path: Path, rows: Rows, reader: _Reader) -> None:
    """Give Prolific's list of submissions to `reader`: the status and the completion code of each participant.

    Of a participant who is listed several times, a status in WITHDRAWN counts, else the last one. What differs is a
    problem.
    """
    for line, cells in rows:
        if isinstance(cells, tuple):
            reader.note(path, line, *cells)
            continue
        plain = {name.strip().casefold(): cell.strip() for name, cell in cells.items()}
        person, status = plain["participant id"], plain["status"].upper()
        code = plain.get("completion code", "").upper()
        code = "" if code == NO_CODE else code
        if person in reader.submissions:
            before, its_code, *_ = reader.submissions[person]
            used = before if before in WITHDRAWN else status
            if before != status and used in WITHDRAWN or code and its_code and code != its_code:
                reader.note(path, line, "participant listed twice", f"{shortened(person, 30)}: {shortened(before, 20)} "
                            f"and {shortened(status, 20)}; used as {shortened(used, 20)}")
            status, code = used, code or its_code
        reader.submissions[person] = status, code, path, line
