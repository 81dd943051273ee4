"""Read ratings back: every row is checked, what is wrong is named and left out, and only here are texts unblinded.

    ratings, problems, raters = read_ratings(["outputs/…/returned"], read_plan("outputs/…/key/plan.parquet"))

Layouts, told by their content:

- JSON and CSV of the form, the survey table filled in (`kdutils.evaluation.human_study.write_study`);
- Potato: ``user_state.json`` of version 2 (tried with 2.12.1), ``annotated_instances.jsonl`` of version 1;
- the published ratings of Hendriks et al. (2025), ``study.csv``: they need no plan;
- a table of two columns, ``rater`` (a code of the plan) and ``participant``, that says which code an id of another
  source stands for (say the ids of Prolific). An id that no such table names belongs to the one code of the plan that
  saw its texts.
"""

import csv
import io
import json
import os
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from kdutils.errors import StudyError
from kdutils.evaluation.human_study import ASKABLE, SCALE, TASKS, canonical, checksum, printable, read_plan
from kdutils.runs import plain_cell, project_path, write_text

FORMAT = "kdutils-ratings-1"
LARGEST = 20_000_000  # bytes of a file of ratings
ENDINGS = {".json", ".jsonl", ".csv", ".tsv", ".txt"}
PARTICIPANT = {"participant", "participant_id", "prolific", "prolific_id", "prolific_pid", "user", "user_id", "worker",
               "worker_id", "id"}  # names of a column of ids of another source, whatever their case
CODE = re.compile(r"[Rr]\d{3,}[A-Za-z]")  # what codes of a plan look like
PUBLISHED = {"CASE", "rationale_id", "model", "rationale_length"}
PUBLISHED_METHODS = {"PosRationales": "Unrev", "RevRationales": "Rev"}  # as the article calls them
RATING_COLUMNS = ["rater", "text", "question", "dataset", "method", "student_seed", "correct", "characters", "position",
                  "construct", "score", "quality", "choice", "seconds", "simulated", "file"]
PROBLEM_COLUMNS = ["file", "row", "rater", "what", "detail", "left_out"]


_SEPARATOR = re.compile(r"sep=.?", re.IGNORECASE)
_WHOLE = re.compile(r"^\s*(\d+)[.,]0+\s*$")  # a whole number as spreadsheets may write it


class Ratings(NamedTuple):
    """What `read_ratings` returns.

    `ratings`: one row per rater, text and construct, RATING_COLUMNS; `quality` is the mean over the constructs of
    that rating. `problems`: PROBLEM_COLUMNS; `what` is a kind to count by, `row` a line of a table or a position of
    an answer (0 for a whole file or rater), `left_out` how many rated pages it cost. `raters`: one row per planned
    rater: `status`, pages, failed checks, seconds and what the form asked about the rater.
    """

    ratings: pd.DataFrame
    problems: pd.DataFrame
    raters: pd.DataFrame


class _Problem(Exception):
    """A file cannot be used: (what, detail)."""


class _Reader:
    """The state of one reading: rows found so far, and what was wrong."""

    def __init__(self, plan, keep_unfinished):
        self.task, self.keep_unfinished = "rating", keep_unfinished
        self.study = self.version = None
        self.pages, self.rows, self.problems, self.about, self.seen = {}, [], [], {}, set()
        if plan is not None:
            self.study, self.version, self.task = (plan[name].iloc[0] for name in ("study", "version", "task"))
            pages = plan.sort_values(["rater", "position"]).to_dict("records")
            self.pages = {(page["rater"], page["text"]): page for page in pages}
        self.raters, self.texts = ({key[place] for key in self.pages} for place in (0, 1))
        self.pages_of = {}
        for rater, text in self.pages:
            self.pages_of.setdefault(rater, []).append(text)
        self.foreign, self.codes = {}, {}  # id of another source: its pages, and the code it is known to stand for
        self.items = list(TASKS[self.task])

    def note(self, file, row, what, detail="", rater="", left_out=0):
        self.problems.append({"file": _short(Path(file).name), "row": row, "rater": _short(rater), "what": what,
                              "detail": detail, "left_out": left_out})

    def needs_plan(self):
        if not self.pages:
            raise _Problem("no plan was given", "only the published ratings can be read without one")

    def add(self, file, row, rater, text, scores, seconds=np.nan, simulated=False):
        """Check one rated page and keep it; one of an id of another source waits for place_foreign."""
        rater = self.code_of(rater)
        page = self.pages.get((rater, text)) if isinstance(rater, str) and isinstance(text, str) else None
        if is_foreign(rater) and rater not in self.raters:
            return self.foreign.setdefault(rater, []).append((file, row, text, scores, seconds, simulated))
        if not isinstance(rater, str) or rater not in self.raters:
            return self.note(file, row, "unknown rater", _short(rater), rater, 1)
        if page is None:
            what = "text of another rater" if isinstance(text, str) and text in self.texts else "unknown text"
            return self.note(file, row, what, _short(text), rater, 1)
        if all(_blank(scores.get(item)) for item in self.items):
            return None  # a page not reached: counts as unfinished
        self.seen.add((rater, text))
        values = {}
        for item in self.items:
            if _blank(scores.get(item)):
                return self.note(file, row, "missing score", item, rater, 1)
            values[item] = _score(scores[item], page["choices"] if self.task == "simulation" else SCALE)
            if values[item] is None:
                return self.note(file, row, "score out of range", f"{item} = {_short(scores[item])}", rater, 1)
        self.rows.append({"file": _short(Path(file).name), "row": row, "rater": rater, "text": text, "scores": values,
                          "seconds": seconds, "simulated": simulated is True})


    def code_of(self, rater):
        """Return the code of the plan that is meant where it is written differently, else `rater`."""
        if isinstance(rater, int) and not isinstance(rater, bool) and abs(rater) < 1e18:
            rater = str(rater)
        if not isinstance(rater, str) or rater in self.raters:
            return rater
        return rater.strip().upper() if rater.strip().upper() in self.raters else rater.strip()

    def place_foreign(self):
        """Give the pages of every id of another source to the code that it stands for, where one can be told.

        That is the code that a table or a checksum says, else the one that saw these texts and of which nothing came.
        Among codes that saw the same texts it is the one that saw them in this order; else they are given in turn.
        """
        waiting, said = dict(sorted(self.foreign.items())), {}
        while waiting:
            taken = {rater for rater, _ in self.seen} | set(said.values())
            fitting = {rater: [self.codes[rater]] if rater in self.codes else self._fitting(pages, taken)
                       for rater, pages in waiting.items()}
            alike = {rater: codes for rater, codes in fitting.items() if len(codes) > 1 and all(
                set(self.pages_of[code]) == set(self.pages_of[codes[0]]) for code in codes)}
            ordered = {rater: [code for code in codes if self.pages_of[code] == [page[2] for page in waiting[rater]]]
                       for rater, codes in alike.items()}
            found = _sole({rater: codes for rater, codes in fitting.items() if rater in self.codes}, True) \
                or _sole(fitting) or _sole(ordered) or next(((rater, codes[0]) for rater, codes in alike.items()), None)
            if found is None:
                break
            rater, said[rater] = found[0], found[1]
            self._place(rater, waiting.pop(rater), said[rater])
        for rater, pages in waiting.items():
            codes = fitting[rater]
            why = (f"fits {len(codes)} codes of the plan" if len(codes) > 1 else f"fits {codes[0]}, as others do"
                   if codes else "no free code of the plan saw its texts")
            for file, row, *_ in pages:
                self.note(file, row, "unknown rater", f"{_short(rater)}: {why}", rater, 1)

    def _fitting(self, pages, taken):
        texts = {text for _, _, text, *_ in pages if isinstance(text, str)} & self.texts
        return [code for code, seen in sorted(self.pages_of.items())
                if texts and code not in taken and texts.issubset(seen)]

    def _place(self, rater, pages, code):
        if rater in self.about:
            self.about.setdefault(code, {}).update(self.about.pop(rater))
        for file in dict.fromkeys(page[0] for page in pages):
            self.note(file, 0, "id of another source", f"{_short(rater)} stands for {code}", code)
        for file, row, text, *rest in pages:
            self.add(file, row, code, text, *rest)


def _sole(fitting, rivals=False):
    """Return the first (id, code) of an id that fits one code alone, and no other id that code alone; else None."""
    sole = [(rater, codes[0]) for rater, codes in fitting.items() if len(codes) == 1]
    codes = [code for _, code in sole]
    return next(((rater, code) for rater, code in sole if rivals or codes.count(code) == 1), None)


def is_foreign(rater):
    """Say whether an id may stand for a code of the plan: a text that does not look like the code of another plan."""
    return isinstance(rater, str) and bool(rater.strip()) and not CODE.fullmatch(rater.strip())


def read_ratings(paths, plan=None, failed_checks_allowed=0, keep_unfinished=False):
    """Return Ratings read from files and folders; nonsense in them is a named problem, never an exception.

    `plan`: a frame or a path; the published ratings need none. A rater who fails more than `failed_checks_allowed`
    attention checks is left out, and so is one who did not finish, unless `keep_unfinished`. The same rating twice
    counts once; two different ratings of a text by one rater are both left out.
    """
    plan = read_plan(plan) if isinstance(plan, (str, Path)) else plan
    reader = _Reader(plan, keep_unfinished)
    for path in _files([paths] if isinstance(paths, (str, Path)) else paths, reader):
        try:
            _read_file(path, reader)
        except _Problem as problem:
            reader.note(path, 0, *problem.args)
        except (OSError, RecursionError) as error:
            reader.note(path, 0, "cannot be read", type(error).__name__)
    reader.place_foreign()
    rows = _without_repeats(reader)
    rows, raters = _without_careless(rows, reader, failed_checks_allowed)
    return Ratings(_long(rows, reader), pd.DataFrame(reader.problems, columns=PROBLEM_COLUMNS), raters)


def given_paths(ratings):
    """Return the paths that the parameter `ratings` names; StudyError where one is no text or is not there."""
    if not isinstance(ratings, (list, tuple)) or not all(isinstance(path, str) and path.strip() for path in ratings):
        raise StudyError("ratings: a list of files and folders is needed, empty to simulate raters")
    paths = [project_path(path) for path in ratings]
    for path in paths:
        if not os.path.exists(path):
            raise StudyError(f"ratings: {_short(str(path), 200)}: no such file or folder")
    return paths


def constructs_of(ratings, plan=None):
    """Return what was rated, in its order; without ratings what would have been."""
    task = "rating" if plan is None else plan["task"].iloc[0]
    return list(dict.fromkeys(ratings["construct"])) or list(TASKS[task])


def origin(ratings):
    """Return the sentence that says whether people gave these ratings."""
    raters = ratings.groupby("rater")["simulated"].any()
    if not len(raters):
        return "No rating can be used."
    if not raters.any():
        return "Ratings by people."
    who = "These raters are" if raters.all() else f"{int(raters.sum())} of {len(raters)} raters are"
    return f"**{who} simulated.** They try the path; they say nothing about any explanation."


def what_came(raters, ratings):
    """Return the sentence that says how many raters and ratings are used and, where none is, why."""
    kept = raters["status"].astype(str).str.startswith("kept")
    rated = len(ratings.drop_duplicates(["rater", "text"]))
    used = f"{int(kept.sum())} of {len(raters)} raters and {rated} ratings are"
    if len(ratings):
        return f"{used} used."
    reasons = ", ".join(f"{status} ({count})" for status, count in raters["status"].value_counts().items())
    return f"{used} used: {reasons or 'no rater is known'}. The sections below say what they lack."


def one_row_per_rating(ratings):
    """Return ratings with a column per construct, one row for each rater and text."""
    keys = [name for name in RATING_COLUMNS if name not in ("construct", "score", "choice")]
    if not len(ratings):
        constructs = dict.fromkeys([name for task in TASKS.values() for name in task], float)
        return ratings[keys].assign(**{name: pd.Series(dtype=kind) for name, kind in constructs.items()})
    wide = ratings.pivot(index=["rater", "text"], columns="construct", values="score").reset_index()
    wide.columns.name = None
    first = ratings.drop_duplicates(["rater", "text"])[keys]
    return first.merge(wide, on=["rater", "text"], validate="one_to_one")


def count_problems(problems):
    """Return how often each kind of problem occurred and how many rated pages it cost."""
    return problems.groupby("what").agg(times=("what", "size"), left_out=("left_out", "sum")).reset_index()


# Files ------------------------------------------------------------------------------------------------------------


def _files(paths, reader):
    """Yield the files to read: those named, and in folders those of a known ending (of a Potato folder, its own)."""
    for path in map(Path, paths):
        try:
            folder, there = path.is_dir(), path.exists()
        except (OSError, ValueError):  # a name that no file can have
            folder = there = False
        if folder:
            inside = sorted(item for item in path.rglob("*") if item.is_file() and item.suffix.lower() in ENDINGS)
            states = {item.parent for item in inside if item.name in ("user_state.json", "annotated_instances.jsonl")}
            yield from (item for item in inside if not _beside_potato(item, states))
        elif there:
            yield path
        else:
            reader.note(path, 0, "no such file")


def _beside_potato(item, states):
    """Say whether a file is one that Potato writes next to the ratings of its users."""
    if item.parent in states:
        return item.name not in ("user_state.json", "annotated_instances.jsonl") or (
            item.name == "annotated_instances.jsonl" and (item.parent / "user_state.json").exists())
    return any(state.parent == parent for state in states for parent in item.parents)


def _read_file(path, reader):
    text = _text_of(path)
    if path.suffix.lower() in (".json", ".jsonl") or text.lstrip()[:1] in ("{", "["):
        documents = _json_of(text)
        if len(documents) == 1 and isinstance(documents[0], dict) and "instance_id_to_label_to_value" in documents[0]:
            return _read_potato(path, documents[0], reader)
        if documents and all(isinstance(line, dict) and "label_annotations" in line for line in documents):
            return _read_potato_lines(path, documents, reader)
        if len(documents) == 1 and isinstance(documents[0], dict) and documents[0].get("format") == FORMAT:
            return _read_form(path, documents[0], reader)
        raise _Problem("unknown layout", "neither an answer file of the form nor of Potato")
    header, rows = _table_of(text)
    if PUBLISHED <= set(header):
        return _read_published(path, rows, reader)
    if {"rater", "text"} <= set(header):
        return _read_table(path, header, rows, reader)
    if len(header) == 2 and "rater" in header and PARTICIPANT & {name.casefold() for name in header}:
        return _read_codes(path, header, rows, reader)
    raise _Problem("unknown layout", f"columns {_short(', '.join(map(str, header)))}")


def _text_of(path):
    if path.stat().st_size > LARGEST:
        raise _Problem("too large", f"{path.stat().st_size} bytes")
    data = path.read_bytes()
    coding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = data.decode(coding)
    except UnicodeDecodeError as error:
        raise _Problem("wrong encoding", "not UTF-8") from error
    if not text.strip():
        raise _Problem("empty file")
    if text.lstrip()[:1] == "<":
        raise _Problem("not ratings", "HTML or XML")
    return text


def _json_of(text):
    """Return the JSON values of a text: one, or one a line."""
    try:
        return [json.loads(text)]
    except (ValueError, RecursionError) as error:
        lines = [line for line in text.splitlines() if line.strip()]
        try:
            if len(lines) > 1:
                return [json.loads(line) for line in lines]
        except (ValueError, RecursionError):
            pass
        raise _Problem("broken JSON", f"{_short(str(error))}; cut short?") from error


def _table_of(text):
    """Return (header, [(line, row as a dict, or what is wrong with it)]) of a table with commas, semicolons or tabs.

    Empty lines, a first line ``sep=;`` and empty cells after the last column are what spreadsheets add.
    """
    lines = [line for line in text.splitlines() if line.strip() and not _SEPARATOR.fullmatch(line.strip())]
    delimiter = max(",;\t", key=lines[0].count) if lines else ","
    reader, header, rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True), [], []
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            rows.append((reader.line_num, ("broken table", _short(str(error)))))
            continue
        cells = _without_end(cells) if not header else cells
        if header and any(cell.strip() for cell in cells):
            rows.append((reader.line_num, _row(header, cells)))
        elif not header and not (len(cells) <= 2 and _SEPARATOR.fullmatch(delimiter.join(cells).strip())):
            header = [plain_cell(name.strip()) for name in cells]
    if not header:
        raise _Problem(*(rows[0][1] if rows else ("empty file", "")))
    return header, rows


def _without_end(cells, keep=0):
    """Return cells without the empty ones at their end, `keep` of them at least."""
    while len(cells) > keep and not cells[-1].strip():
        cells = cells[:-1]
    return cells


def _row(header, cells):
    cells = _without_end(cells, len(header))
    if len(cells) != len(header):
        return "broken row", f"{len(cells)} cells under {len(header)} columns"
    return dict(zip(header, map(plain_cell, cells), strict=True))


def _read_form(path, document, reader):
    """One rater's file of the form; its checksum is over everything else in it."""
    reader.needs_plan()
    answers = document.get("answers")
    if not isinstance(answers, list) or not all(isinstance(answer, dict) for answer in answers):
        raise _Problem("unknown layout", "answers are not a list of objects")
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
    if fault and reader.keep_unfinished and fault[0] in ("unfinished", "not signed off"):
        reader.note(path, 0, f"kept although {fault[0]}", "", rater)
        fault = None
    if fault:
        return reader.note(path, 0, *fault, rater, count)
    if isinstance(document.get("about"), dict) and isinstance(rater, str):
        reader.about.setdefault(rater, {}).update(
            {f"about_{key}": printable(document["about"][key])[:60] for key in ASKABLE if key in document["about"]})
    for row, answer in enumerate(answers, 1):
        scores = answer.get("scores")
        reader.add(path, row, rater, answer.get("text"), scores if isinstance(scores, dict) else {},
                   _seconds(answer.get("milliseconds")) / 1000, document.get("simulated"))


def _code_by_checksum(reader, rater, texts, stored, checksum_with):
    """Say whether the checksum holds with a code of the plan in the place of an id of another source; keep it."""
    if not is_foreign(rater) or rater in reader.raters:
        return False
    for code, pages in reader.pages_of.items():
        if {text for text in texts if isinstance(text, str)}.issubset(pages) and checksum_with(code) == stored:
            reader.codes[rater] = code
            return True
    return False


def _read_codes(path, header, rows, reader):
    """A table that says which code of the plan an id of another source stands for."""
    reader.needs_plan()
    other = next(name for name in header if name != "rater")
    for line, cells in rows:
        if isinstance(cells, tuple):
            reader.note(path, line, *cells)
        elif (code := reader.code_of(cells["rater"])) not in reader.raters:
            reader.note(path, line, "unknown rater", _short(cells["rater"]), cells["rater"])
        else:
            reader.codes[cells[other].strip()] = code


def _study_fault(found, reader):
    """Return (what, detail) where the study or the form's version is another one, else None."""
    if found.get("study") != reader.study:
        return "another study", _short(found.get("study"))
    if found.get("version") != reader.version:
        return "another version of the form", _short(found.get("version"))
    return None


def _read_table(path, header, rows, reader):
    """The form's CSV (each row has a checksum) or a survey table, in which study and version may be missing."""
    reader.needs_plan()
    if not set(header) & set(reader.items):
        raise _Problem("unknown layout", f"no column {' or '.join(reader.items)}")
    twice = [name for name in header if name and header.count(name) > 1]
    if twice:
        raise _Problem("unknown layout", f"the column {_short(twice[0])} stands twice")
    for line, cells in rows:
        if isinstance(cells, tuple):
            reader.note(path, line, *cells, left_out=1)
            continue
        fault = _study_fault({"study": reader.study, "version": reader.version, **cells}, reader)
        if "checksum" in cells and not fault and not _row_is_whole(cells, reader):
            fault = "checksum does not match", "the row was changed or damaged after it was saved"
        if fault:
            reader.note(path, line, *fault, cells["rater"], 1)
            continue
        _code_beside(cells, reader)
        in_form = "milliseconds" in cells
        seconds = _seconds(cells["milliseconds"]) / 1000 if in_form else _seconds(cells.get("seconds"))
        reader.add(path, line, cells["rater"].strip(), cells["text"].strip(), cells, seconds)


def _row_is_whole(cells, reader):
    """Say whether the checksum of a row of the form holds; 4,0 and 4.0, as spreadsheets write 4, do not break it."""
    def of(**changes):
        values = [_WHOLE.sub(r"\1", value) for name, value in {**cells, **changes}.items() if name != "checksum"]
        return checksum("|".join(values))[:16]

    rater, stored = reader.code_of(cells["rater"]), cells["checksum"].strip()
    plain = "|".join(value for name, value in cells.items() if name != "checksum")
    return stored in (checksum(plain)[:16], of()) or _code_by_checksum(
        reader, rater, [cells["text"].strip()], stored, lambda code: of(rater=code))


def _code_beside(cells, reader):
    """Where a row holds an id of another source and, in one other cell, a code of the plan: keep which it is."""
    rater = reader.code_of(cells["rater"])
    if is_foreign(rater) and rater not in reader.raters:
        codes = {value.strip() for name, value in cells.items() if name not in ("rater", "text")} & reader.raters
        if len(codes) == 1:
            reader.codes.setdefault(rater, codes.pop())


def _read_potato(path, state, reader):
    """Potato 2: {text: [[{"schema": construct, "name": label}, value], …]} and times per text."""
    reader.needs_plan()
    labels, times = state["instance_id_to_label_to_value"], state.get("instance_id_to_behavioral_data")
    if not isinstance(labels, dict):
        raise _Problem("unknown layout", "Potato's annotations are not an object")
    for row, (text, pairs) in enumerate(labels.items(), 1):
        scores = {}
        for pair in pairs if isinstance(pairs, list) else []:
            if isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], dict) and pair[1]:
                scores[str(pair[0].get("schema"))] = pair[0].get("name") if pair[1] is True else pair[1]
        spent = times.get(text) if isinstance(times, dict) else None
        spent = spent.get("total_time_ms") if isinstance(spent, dict) else None
        reader.add(path, row, state.get("user_id"), text, scores, _seconds(spent) / 1000)


def _read_potato_lines(path, lines, reader):
    """Potato 1: {"id", "label_annotations": {construct: {"scale_4": "4"}}} a line; the user in it or the folder."""
    reader.needs_plan()
    for row, line in enumerate(lines, 1):
        scores = {}
        for name, values in line["label_annotations"].items() if isinstance(line["label_annotations"], dict) else ():
            chosen = [label for label, value in values.items() if value] if isinstance(values, dict) else []
            scores[name] = re.sub(r"^scale_", "", chosen[0]) if len(chosen) == 1 else (",".join(chosen) or None)
        reader.add(path, row, line.get("user_id") or line.get("user") or path.parent.name,
                   line.get("instance_id") or line.get("id"), scores)


def _read_published(path, rows, reader):
    """The published table: one rated text a row; it says itself which question and which model."""
    if reader.pages and reader.study != "published":
        raise _Problem("another study", "the published ratings are read by themselves, without a plan")
    reader.study = "published"
    for line, cells in rows:
        if isinstance(cells, tuple) or not re.fullmatch(r"\d{1,9}", cells["rationale_length"]):
            reader.note(path, line, *(cells if isinstance(cells, tuple) else ("broken row", "rationale_length")),
                        left_out=1)
            continue
        method = re.sub("PosRationales|RevRationales", lambda found: PUBLISHED_METHODS[found[0]], cells["model"])
        rater, text = cells["CASE"], f"{method}/{cells['rationale_id']}"
        slot = re.fullmatch(r"RE(\d\d)", cells.get("rationale", ""))
        reader.raters.add(rater)
        reader.pages.setdefault((rater, text), {
            "study": "published", "rater": rater, "text": text, "question": cells["rationale_id"], "dataset": "cqa",
            "method": method, "student_seed": None, "correct": True, "characters": int(cells["rationale_length"]),
            "position": int(slot[1]) - 7 if slot else None, "is_check": False, "expected": None, "choices": []})
        reader.add(path, line, rater, text, {name.lower(): value for name, value in cells.items()})


# Values -----------------------------------------------------------------------------------------------------------


def _blank(value):
    return value is None or (isinstance(value, str) and not value.strip())


def _score(value, options):
    """Return 1 to len(options) for a number, a letter or the text of an option; None for anything else."""
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


def _seconds(value):
    try:
        seconds = float(value.replace(",", ".") if isinstance(value, str) else value)
    except (TypeError, ValueError, OverflowError):
        return np.nan
    return seconds if 0 <= seconds < 1e9 else np.nan


def _short(value, length=60):
    """Return a value as a short text that is safe to print."""
    if isinstance(value, str):
        value = value[:length + 1]
    text = value if isinstance(value, str) and value.isascii() and value.isprintable() else ascii(value)
    return text if len(text) <= length else text[:length - 3] + "…"


# Raters -----------------------------------------------------------------------------------------------------------


def _without_repeats(reader):
    """Return the rows with each rater's rating of a text once; both are left out where two differ."""
    found = {}
    for row in reader.rows:
        found.setdefault((row["rater"], row["text"]), []).append(row)
    kept = []
    for same in found.values():
        differ = any(row["scores"] != same[0]["scores"] for row in same)
        for row in same if differ else same[1:]:
            what = "two different ratings of one text" if differ else "the same rating twice"
            reader.note(row["file"], row["row"], what, row["text"], row["rater"], 1)
        kept += [] if differ else same[:1]
    return kept


def _without_careless(rows, reader, allowed):
    """Return the rows of raters who finished and passed their attention checks, and the table of raters."""
    planned = {}
    for page in reader.pages.values():
        planned.setdefault(page["rater"], []).append(page)
    answered = {(row["rater"], row["text"]): row for row in rows}
    own = {}
    for row in rows:
        own.setdefault(row["rater"], []).append(row)
    out, table = set(), []
    for rater, pages in planned.items():
        mine = own.get(rater, [])
        seen = sum((rater, page["text"]) in reader.seen for page in pages)
        failed = sum(_fails(page, answered.get((rater, page["text"]))) for page in pages
                     if page["is_check"] and (rater, page["text"]) in reader.seen)
        rated = sum(not reader.pages[rater, row["text"]]["is_check"] for row in mine)
        status = "kept"
        if not seen:
            noted = [problem["what"] for problem in reader.problems if problem["rater"] == rater]
            status = noted[0] if noted else "nothing came"
        elif failed > allowed:
            status = "failed attention check"
            reader.note(mine[0]["file"] if mine else "", 0, status, f"{failed} failed", rater, rated)
        elif seen < len(pages) and reader.keep_unfinished:
            status = "kept unfinished"
        elif seen < len(pages):
            status = "unfinished"
            reader.note(mine[0]["file"] if mine else "", 0, status, f"{seen} of {len(pages)} pages", rater, rated)
        if not status.startswith("kept"):
            out.add(rater)
        table.append({"rater": rater, "status": status, "pages": seen, "of": len(pages), "failed_checks": int(failed),
                      "ratings": 0 if rater in out else rated, "seconds": _total([row["seconds"] for row in mine]),
                      **reader.about.get(rater, {})})
    raters = pd.DataFrame(table) if table else pd.DataFrame(columns=["rater", "status", "pages", "of", "failed_checks",
                                                                     "ratings", "seconds"])
    return [row for row in rows if row["rater"] not in out], raters


def _fails(page, row):
    return row is None or any(score != page["expected"] for score in row["scores"].values())


def _total(seconds):
    known = [value for value in seconds if not np.isnan(value)]
    return float(sum(known)) if known else np.nan


def _long(rows, reader):
    """Return the tidy frame: the plan's columns are joined here, and nowhere else."""
    records = []
    for row in rows:
        page = reader.pages[row["rater"], row["text"]]
        if page["is_check"]:
            continue
        scores = row["scores"]
        if reader.task == "simulation":
            choice = page["choices"][scores["simulation"] - 1]
            scores = {"simulation": int(scores["simulation"] == page["expected"])}
        common = {**{name: page[name] for name in RATING_COLUMNS if name in page},
                  **{name: row[name] for name in ("seconds", "simulated", "file")},
                  "quality": float(np.mean(list(scores.values()))),
                  "choice": choice if reader.task == "simulation" else ""}
        records += [{**common, "construct": name, "score": float(score)} for name, score in scores.items()]
    frame = pd.DataFrame(records, columns=RATING_COLUMNS)
    return frame.astype({"student_seed": "Int64", "position": "Int64", "characters": "Int64", "correct": "boolean",
                         "score": float, "quality": float, "seconds": float, "simulated": bool})


# Simulated raters -------------------------------------------------------------------------------------------------


def simulate_scores(plan, effects=None, mean=4.0, rater_sd=0.5, question_sd=0.2, text_sd=0.3, rating_sd=0.4,
                    residual_sd=0.6, thresholds=(1.5, 2.5, 3.5, 4.5), seed=0):
    """Return the answers of simulated raters who pass every check: rater, text, position and one column per item.

    latent = mean + effect of the method + rater + question + text + rating + residual, all normal but the effect;
    the residual is drawn for each construct, the rest is shared by the constructs of a rating. The score is one more
    than the number of `thresholds` below it: half points are a rounded linear model, others a cut-point model of a
    latent normal (McKelvey and Zavoina 1975). `effects`: {method: number or {construct: number}}, 0 where missing.
    In a simulation the rater finds the model's answer where the latent value is above the third threshold, and
    otherwise takes another choice.
    """
    for effect in (effects or {}).values():
        for value in effect.values() if isinstance(effect, dict) else [effect]:
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not np.isfinite(value):
                raise StudyError(f"effects: {_short(value)} is not a number of points")
    unknown = set(effects or {}) - set(plan["method"])
    if unknown:
        raise StudyError(f"effects: {min(unknown)!r} is no method of the plan")
    generator = np.random.default_rng([seed, 3])
    drawn = {name: dict(zip(values, generator.normal(0, sd, len(values)), strict=True))
             for name, sd in (("rater", rater_sd), ("question", question_sd), ("text", text_sd))
             for values in [sorted(plan[name].unique())]}
    items = list(TASKS[plan["task"].iloc[0]])
    rows = []
    for page in plan.to_dict("records"):
        shared = mean + sum(drawn[name][page[name]] for name in drawn) + generator.normal(0, rating_sd)
        effect = (effects or {}).get(page["method"], 0.0)
        latent = {item: shared + (effect.get(item, 0.0) if isinstance(effect, dict) else effect)
                  + generator.normal(0, residual_sd) for item in items}
        other = generator.integers(1, max(len(page["choices"]), 2))
        rows.append({"rater": page["rater"], "text": page["text"], "position": page["position"],
                     **{item: _simulated_score(page, value, thresholds, other) for item, value in latent.items()}})
    return pd.DataFrame(rows)


def _simulated_score(page, latent, thresholds, other):
    if page["is_check"]:
        return int(page["expected"])
    if page["task"] == "simulation":
        wrong = int(other if other < page["expected"] else other + 1)
        return int(page["expected"]) if latent > thresholds[2] else wrong
    return 1 + sum(latent > threshold for threshold in thresholds)


def simulate_raters(plan, folder, inattentive=0.0, unfinished=0.0, seconds=45.0, seed=0, **parameters):
    """Write the answer files of simulated raters as the form saves them, marked as simulated; return their paths.

    `inattentive` and `unfinished` are shares of raters: the first choose at random and fail their checks, the second
    stop half way. `seconds` is the median time of a page. `parameters` go to simulate_scores. Files of raters that
    were simulated before, perhaps for another plan, are removed from the folder.
    """
    if plan is None:
        raise StudyError("neither ratings nor a plan: raters are simulated from the plan of 22_make_human_study")
    remove_simulated(folder)
    generator = np.random.default_rng([seed, 4])
    scores = simulate_scores(plan, seed=seed, **parameters)
    items = [name for name in scores.columns if name not in ("rater", "text", "position")]
    raters = sorted(plan["rater"].unique())
    careless, _, stopping = np.split(generator.permutation(raters), [round(inattentive * len(raters)),
                                                                    len(raters) - round(unfinished * len(raters))])
    n_choices = {(page["rater"], page["text"]): len(page["choices"]) or len(SCALE) for page in plan.to_dict("records")}
    paths = []
    for rater, pages in scores.sort_values("position").groupby("rater"):
        answers = [{"position": int(page["position"]), "text": page["text"],
                    "scores": {item: int(page[item]) for item in items},
                    "milliseconds": int(1000 * seconds * generator.lognormal(0, 0.5))}
                   for page in pages.to_dict("records")]
        if rater in careless:
            for answer in answers:
                options = n_choices[rater, answer["text"]] if "simulation" in items else len(SCALE)
                answer["scores"] = {item: int(generator.integers(1, options + 1)) for item in items}
            _fail_a_check(answers, plan[(plan["rater"] == rater) & plan["is_check"]])
        if rater in stopping:
            for answer in answers[len(answers) // 2:]:
                answer.update(scores={}, milliseconds=0)
        whole = rater not in stopping
        content = {"format": FORMAT, "study": plan["study"].iloc[0], "version": plan["version"].iloc[0],
                   "task": plan["task"].iloc[0], "rater": rater, "started": "simulated", "saved": "simulated",
                   "simulated": True, "complete": whole, "signed": whole, "consent": True, "about": {},
                   "answers": answers}
        text = json.dumps({**content, "checksum": checksum(canonical(content))}, indent=1) + "\n"
        paths.append(write_text(Path(folder) / f"{content['study']}_{rater}_simulated.json", text))
    return paths


def remove_simulated(folder):
    """Remove the answer files of simulated raters from a folder; files of people are left alone."""
    for path in sorted(Path(folder).glob("*_simulated.json")):
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(found, dict) and found.get("format") == FORMAT and found.get("simulated") is True:
            path.unlink()


def _fail_a_check(answers, checks):
    """Make sure that random choices did not pass every check by luck."""
    for answer in answers:
        expected = checks.loc[checks["text"] == answer["text"], "expected"]
        if len(expected):
            answer["scores"] = {item: 1 + int(expected.iloc[0]) % len(SCALE) for item in answer["scores"]}


