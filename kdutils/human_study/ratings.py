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

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from kdutils.errors import StudyError
from kdutils.human_study.design import SCALE, TASKS
from kdutils.human_study.plan import read_plan
from kdutils.human_study.rating_files import Problem, is_blank, is_foreign, read_rating_file, score_of, shortened
from kdutils.runs import project_path

ENDINGS = {".json", ".jsonl", ".csv", ".tsv", ".txt"}
RATING_COLUMNS = ["rater", "text", "question", "dataset", "method", "student_seed", "correct", "characters", "position",
                  "construct", "score", "quality", "choice", "seconds", "simulated", "file"]
PROBLEM_COLUMNS = ["file", "row", "rater", "what", "detail", "left_out"]


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
        self.problems.append({"file": shortened(Path(file).name), "row": row, "rater": shortened(rater), "what": what,
                              "detail": detail, "left_out": left_out})

    def needs_plan(self):
        if not self.pages:
            raise Problem("no plan was given", "only the published ratings can be read without one")

    def add(self, file, row, rater, text, scores, seconds=np.nan, simulated=False):
        """Check one rated page and keep it; one of an id of another source waits for place_foreign."""
        rater = self.code_of(rater)
        page = self.pages.get((rater, text)) if isinstance(rater, str) and isinstance(text, str) else None
        if is_foreign(rater) and rater not in self.raters:
            return self.foreign.setdefault(rater, []).append((file, row, text, scores, seconds, simulated))
        if not isinstance(rater, str) or rater not in self.raters:
            return self.note(file, row, "unknown rater", shortened(rater), rater, 1)
        if page is None:
            what = "text of another rater" if isinstance(text, str) and text in self.texts else "unknown text"
            return self.note(file, row, what, shortened(text), rater, 1)
        if all(is_blank(scores.get(item)) for item in self.items):
            return None  # a page not reached: counts as unfinished
        self.seen.add((rater, text))
        values = {}
        for item in self.items:
            if is_blank(scores.get(item)):
                return self.note(file, row, "missing score", item, rater, 1)
            values[item] = score_of(scores[item], page["choices"] if self.task == "simulation" else SCALE)
            if values[item] is None:
                return self.note(file, row, "score out of range", f"{item} = {shortened(scores[item])}", rater, 1)
        self.rows.append({"file": shortened(Path(file).name), "row": row, "rater": rater, "text": text,
                          "scores": values, "seconds": seconds, "simulated": simulated is True})


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
                self.note(file, row, "unknown rater", f"{shortened(rater)}: {why}", rater, 1)

    def _fitting(self, pages, taken):
        texts = {text for _, _, text, *_ in pages if isinstance(text, str)} & self.texts
        return [code for code, seen in sorted(self.pages_of.items())
                if texts and code not in taken and texts.issubset(seen)]

    def _place(self, rater, pages, code):
        if rater in self.about:
            self.about.setdefault(code, {}).update(self.about.pop(rater))
        for file in dict.fromkeys(page[0] for page in pages):
            self.note(file, 0, "id of another source", f"{shortened(rater)} stands for {code}", code)
        for file, row, text, *rest in pages:
            self.add(file, row, code, text, *rest)


def _sole(fitting, rivals=False):
    """Return the first (id, code) of an id that fits one code alone, and no other id that code alone; else None."""
    sole = [(rater, codes[0]) for rater, codes in fitting.items() if len(codes) == 1]
    codes = [code for _, code in sole]
    return next(((rater, code) for rater, code in sole if rivals or codes.count(code) == 1), None)


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
            read_rating_file(path, reader)
        except Problem as problem:
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
            raise StudyError(f"ratings: {shortened(str(path), 200)}: no such file or folder")
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
