"""Files of ratings: the form's JSON and CSV, survey tables, tables of codes, Potato's output, the published ratings.

A table may also be a workbook of Excel or OpenDocument, of which the first sheet is read. The exports of survey tools
and panels are in survey_exports.py.

read_rating_file recognises the layout and gives each rated page to the `reader` (ratings._Reader). It collects the
pages with ``reader.add`` and faulty rows with ``reader.note``.
"""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from kdutils.data.records import WORKBOOKS, read_records
from kdutils.errors import StudyError, printable
from kdutils.human_study.design import ASKABLE
from kdutils.human_study.forms import PARTICIPANT, canonical, checksum
from kdutils.human_study.rating_values import Problem, is_foreign, place_of, seconds_of, shortened
from kdutils.human_study.survey_exports import SUBMISSIONS, is_argilla, read_argilla, read_submissions, read_survey
from kdutils.runs import unescape_cell

if TYPE_CHECKING:
    from kdutils.human_study.ratings import _Reader

FORMAT = "kdutils-ratings-1"
UNFINISHED = ("unfinished", "not signed off")
OTHER_VERSION = "another version of the form"
LARGEST = 20_000_000  # bytes of a file of ratings
PUBLISHED = {"CASE", "rationale_id", "model", "rationale_length"}
PUBLISHED_METHODS = {"PosRationales": "Unrev", "RevRationales": "Rev"}  # names in the data: names in the article
_SEPARATOR = re.compile(r"sep=.?", re.IGNORECASE)
_WHOLE = re.compile(r"^\s*(\d+)[.,]0+\s*$")  # a whole number as spreadsheets may write it: 4,0


def read_rating_file(path: Path, reader: _Reader) -> None:
    """Give the rated pages of a file to `reader`; raises Problem where the file cannot be used."""
    if path.suffix.lower() in WORKBOOKS:
        return _read_any_table(path, *_workbook_of(path), reader)
    text = _text_of(path)
    if path.suffix.lower() in (".json", ".jsonl") or text.lstrip()[:1] in ("{", "["):
        documents = _json_of(text)
        if len(documents) == 1 and isinstance(documents[0], dict) and "instance_id_to_label_to_value" in documents[0]:
            return _read_potato(path, documents[0], reader)
        if documents and all(isinstance(line, dict) and "label_annotations" in line for line in documents):
            return _read_potato_lines(path, documents, reader)
        if len(documents) == 1 and isinstance(documents[0], dict) and documents[0].get("format") == FORMAT:
            return _read_form(path, documents[0], reader)
        records = documents[0] if len(documents) == 1 and isinstance(documents[0], list) else documents
        if is_argilla(records):
            return read_argilla(path, records, reader)
        raise Problem("unknown layout", "not an answer file of the form, of Potato or of Argilla")
    return _read_any_table(path, *_table_of(text), reader)


def _read_any_table(path, header, rows, reader):
    """Recognise a table by its columns and give its pages to `reader`."""
    if PUBLISHED <= set(header):
        return _read_published(path, rows, reader)
    if {"rater", "text"} <= set(header):
        return _read_table(path, header, rows, reader)
    if len(header) == 2 and "rater" in header and PARTICIPANT & {name.casefold() for name in header}:
        return _read_codes(path, header, rows, reader)
    if {name.casefold() for name in header} >= SUBMISSIONS:
        return read_submissions(path, rows, reader)
    if read_survey(path, header, rows, reader):
        return None
    raise Problem("unknown layout", f"columns {shortened(', '.join(map(str, header)))}")


def _check_size(path):
    if path.stat().st_size > LARGEST:
        raise Problem("too large", f"{path.stat().st_size} bytes")


def _workbook_of(path):
    """Return (header, rows) of the first sheet of a workbook, as _table_of does."""
    _check_size(path)
    try:
        records = read_records(path)
    except StudyError as error:
        raise Problem("broken workbook", shortened(str(error).removeprefix(f"{path}: "))) from error
    return [unescape_cell(name) for name in records[0]], [
        (line, {unescape_cell(name): "" if cell is None else unescape_cell(str(cell)) for name, cell in record.items()})
        for line, record in enumerate(records, 2)]


def _text_of(path):
    _check_size(path)
    data = path.read_bytes()
    coding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = data.decode(coding)
    except UnicodeDecodeError as error:
        raise Problem("wrong encoding", "not UTF-8") from error
    if not text.strip():
        raise Problem("empty file")
    if text.lstrip()[:1] == "<":
        raise Problem("not ratings", "HTML or XML")
    return text


def _json_of(text):
    """Return the JSON values of a text: the whole text, or one per line."""
    try:
        return [json.loads(text)]
    except (ValueError, RecursionError) as error:
        lines = [line for line in text.splitlines() if line.strip()]
        try:
            if len(lines) > 1:
                return [json.loads(line) for line in lines]
        except (ValueError, RecursionError):
            pass
        raise Problem("broken JSON", f"{shortened(str(error))}; cut short?") from error


def _table_of(text):
    """Return (header, rows) of a table with commas, semicolons or tabs.

    A row is (line, {column: cell}), or (line, (what, detail)) where it is faulty. Spreadsheets add empty lines, a
    first line ``sep=;`` and empty cells after the last column; these are skipped.
    """
    lines = [line for line in text.splitlines() if line.strip() and not _SEPARATOR.fullmatch(line.strip())]
    delimiter = max(",;\t", key=re.sub(r'"[^"]*"', "", lines[0]).count) if lines else ","
    reader, header, rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True), [], []
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            rows.append((reader.line_num, ("broken table", shortened(str(error)))))
            continue
        cells = _without_end(cells) if not header else cells
        if header and any(cell.strip() for cell in cells):
            rows.append((reader.line_num, _row(header, cells)))
        elif not header and not (len(cells) <= 2 and _SEPARATOR.fullmatch(delimiter.join(cells).strip())):
            header = [unescape_cell(name.strip()) for name in cells]
    if not header:
        raise Problem(*(rows[0][1] if rows else ("empty file", "")))
    return header, rows


def _without_end(cells, keep=0):
    """Return `cells` without the empty ones at their end, but at least `keep` of them."""
    while len(cells) > keep and not cells[-1].strip():
        cells = cells[:-1]
    return cells


def _row(header, cells):
    cells = _without_end(cells, len(header))
    if len(cells) != len(header):
        return "broken row", f"{len(cells)} cells under {len(header)} columns"
    return dict(zip(header, map(unescape_cell, cells), strict=True))


def _read_form(path, document, reader):
    """Read the file that the form saved for one rater; its checksum covers everything else in it."""
    reader.needs_plan()
    answers = document.get("answers")
    if not isinstance(answers, list) or not all(isinstance(answer, dict) for answer in answers):
        raise Problem("unknown layout", "answers are not a list of objects")
    rater, count = document.get("rater"), sum(bool(answer.get("scores")) for answer in answers)
    rater = reader.code_of(rater)
    stored = document.pop("checksum", None)
    fault = _study_fault(document, reader)
    if checksum(canonical(document)) != stored and not _code_by_checksum(
            reader, rater, [answer.get("text") for answer in answers], stored,
            lambda code: checksum(canonical({**document, "rater": code}))):
        fault = ("checksum does not match", "the file was changed or damaged after it was saved")
    elif not fault and document.get("complete") is not True:
        fault = "unfinished", "saved before the end"
    elif not fault and document.get("signed") is not True:
        fault = "not signed off", ""
    if fault and reader.keep_unfinished and fault[0] in UNFINISHED:
        reader.note(path, 0, f"kept although {fault[0]}", "", rater)
        fault = None
    if not fault or fault[0] in UNFINISHED:
        rater = reader.person(rater, *(document.get(key) for key in ("participant", "started", "simulated", "model")))
    if fault:
        return reader.refuse(path, 0, *fault, rater, count, len(answers))
    if isinstance(document.get("about"), dict) and isinstance(rater, str):
        reader.about.setdefault(rater, {}).update(
            {f"about_{key}": printable(document["about"][key])[:60] for key in ASKABLE if key in document["about"]})
    for row, answer in enumerate(answers, 1):
        scores = answer.get("scores")
        reader.add(path, row, rater, answer.get("text"), scores if isinstance(scores, dict) else {},
                   seconds_of(answer.get("milliseconds")) / 1000, document.get("simulated"), document.get("model", ""))


def _code_by_checksum(reader, rater, texts, stored, checksum_with):
    """Say whether the checksum is right with a code of the plan in place of the id `rater`; remember that code."""
    if not is_foreign(rater) or rater in reader.pages_of:
        return False
    for code, pages in reader.pages_of.items():
        if {text for text in texts if isinstance(text, str)}.issubset(pages) and checksum_with(code) == stored:
            reader.codes[rater] = code
            return True
    return False


def _read_codes(path, header, rows, reader):
    """Read a table that says which code of the plan an id of another source stands for."""
    reader.needs_plan()
    other = next(name for name in header if name != "rater")
    for line, cells in rows:
        if isinstance(cells, tuple):
            reader.note(path, line, *cells)
        elif (code := reader.code_of(cells["rater"])) not in reader.pages_of:
            reader.note(path, line, "unknown rater", shortened(cells["rater"]), cells["rater"])
        else:
            reader.codes[cells[other].strip()] = code


def _study_fault(source, reader):
    """Return (what, detail) where a document or row is of another study or version of the form, else None."""
    if source.get("study") != reader.study:
        return "another study", shortened(source.get("study"))
    if source.get("version") != reader.version:
        return OTHER_VERSION, shortened(source.get("version"))
    return None


def _read_table(path, header, rows, reader):
    """Read the form's CSV (each row has a checksum) or a survey table, where study and version may be missing."""
    reader.needs_plan()
    if not set(header) & set(reader.items):
        raise Problem("unknown layout", f"no column {' or '.join(reader.items)}")
    twice = [name for name in header if name and header.count(name) > 1]
    if twice:
        raise Problem("unknown layout", f"duplicate column {shortened(twice[0])}")
    others = {}  # (rater, fault): lines of another study or version
    for line, cells in rows:
        if isinstance(cells, tuple):
            reader.note(path, line, *cells, left_out=1)
            continue
        fault = _study_fault({"study": reader.study, "version": reader.version, **cells}, reader)
        if fault:
            others.setdefault((reader.code_of(cells["rater"]), fault), []).append(line)
            continue
        if "checksum" in cells and not _row_is_whole(cells, reader):
            reader.note(path, line, "checksum does not match", "the row was changed or damaged after it was saved",
                        cells["rater"], 1)
            continue
        _code_beside(cells, reader)
        in_form = "milliseconds" in cells
        scores = {item: place_of(cells[item]) if in_form else cells[item] for item in reader.items if item in cells}
        seconds = seconds_of(cells["milliseconds"]) / 1000 if in_form else seconds_of(cells.get("seconds"))
        rater, person = cells["rater"].strip(), cells.get("participant", "").strip() if in_form else ""
        reader.add(path, line, reader.person(rater, person) if person else rater, cells["text"].strip(), scores,
                   seconds, table=path if in_form and not person else None)
    for (rater, fault), lines in others.items():
        reader.refuse(path, lines[0], *fault, rater, len(lines), len(lines))


def _row_is_whole(cells, reader):
    """Say whether the checksum of a row of the form is right; 4,0 and 4.0 count as 4, as spreadsheets write it."""
    def of(**changes):
        values = [_WHOLE.sub(r"\1", value) for name, value in {**cells, **changes}.items() if name != "checksum"]
        return checksum("|".join(values))[:16]

    rater, stored = reader.code_of(cells["rater"]), cells["checksum"].strip()
    plain = "|".join(value for name, value in cells.items() if name != "checksum")
    return stored in (checksum(plain)[:16], of()) or _code_by_checksum(
        reader, rater, [cells["text"].strip()], stored, lambda code: of(rater=code))


def _code_beside(cells, reader):
    """Remember the code of an id of another source where one other cell of its row holds a code of the plan."""
    rater = reader.code_of(cells["rater"])
    if is_foreign(rater) and rater not in reader.pages_of:
        codes = {value.strip() for name, value in cells.items() if name not in ("rater", "text")} & set(reader.pages_of)
        if len(codes) == 1:
            reader.codes.setdefault(rater, codes.pop())


def _read_potato(path, state, reader):
    """Read a state of Potato 2: {text: [[{"schema": construct, "name": label}, value], …]} and times per text."""
    reader.needs_plan()
    labels, times = state["instance_id_to_label_to_value"], state.get("instance_id_to_behavioral_data")
    lettered = reader.task == "simulation"
    if not isinstance(labels, dict):
        raise Problem("unknown layout", "Potato's annotations are not an object")
    for row, (text, pairs) in enumerate(labels.items(), 1):
        scores = {}
        for pair in pairs if isinstance(pairs, list) else []:
            if isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], dict) and pair[1]:
                scores[str(pair[0].get("schema"))] = place_of(
                    pair[0].get("name") if pair[1] is True else pair[1], lettered)
        spent = times.get(text) if isinstance(times, dict) else None
        spent = spent.get("total_time_ms") if isinstance(spent, dict) else None
        reader.add(path, row, state.get("user_id"), text, scores, seconds_of(spent) / 1000)


def _read_potato_lines(path, lines, reader):
    """Read Potato 1: lines of {"id", "user", "label_annotations": {construct: {"scale_4": "4"}}}; user or folder."""
    reader.needs_plan()
    for row, line in enumerate(lines, 1):
        scores = {}
        for name, values in line["label_annotations"].items() if isinstance(line["label_annotations"], dict) else ():
            chosen = [label for label, value in values.items() if value] if isinstance(values, dict) else []
            scores[name] = place_of(re.sub(r"^scale_", "", chosen[0]), reader.task == "simulation") \
                if len(chosen) == 1 else ",".join(chosen) or None
        reader.add(path, row, line.get("user_id") or line.get("user") or path.parent.name,
                   line.get("instance_id") or line.get("id"), scores)


def _read_published(path, rows, reader):
    """Read the published table: one rated text per row, with its question and its model."""
    if reader.pages and reader.study != "published":
        raise Problem("another study", "the published ratings must be read without a plan")
    reader.study = "published"
    for line, cells in rows:
        if isinstance(cells, tuple) or not re.fullmatch(r"\d{1,9}", cells["rationale_length"]):
            reader.note(path, line, *(cells if isinstance(cells, tuple) else ("broken row", "rationale_length")),
                        left_out=1)
            continue
        method = re.sub("PosRationales|RevRationales", lambda name: PUBLISHED_METHODS[name[0]], cells["model"])
        rater, text = cells["CASE"], f"{method}/{cells['rationale_id']}"
        slot = re.fullmatch(r"RE(\d\d)", cells.get("rationale", ""))  # RE08 is the first page
        if (rater, text) not in reader.pages:
            reader.expect({
                "study": "published", "rater": rater, "text": text, "question": cells["rationale_id"], "dataset": "cqa",
                "method": method, "student_seed": None, "correct": True, "characters": int(cells["rationale_length"]),
                "position": int(slot[1]) - 7 if slot else None, "is_check": False, "expected": None, "choices": []})
        reader.add(path, line, rater, text, {name.lower(): value for name, value in cells.items()})
