"""Read ratings back. Every row is checked, faulty rows are named and left out, and only here are texts unblinded.

    ratings, problems, raters = read_ratings(["outputs/…/returned"], read_plan("outputs/…/key/plan.parquet"))

The layout of a file is recognised by its content:

- JSON and CSV of the form, and the survey table filled in (forms.write_study), also as a workbook;
- Potato: ``user_state.json`` of version 2 (tested with 2.12.1), ``annotated_instances.jsonl`` of version 1;
- wide tables of Qualtrics and LimeSurvey, Argilla's records (JSON): survey_exports.py says how texts are recognised;
- Prolific's list of submissions, which says who finished; ratings of a person who returned it are left out;
- the published ratings of Hendriks et al. (2025), ``study.csv``, which need no plan;
- a table of two columns, ``rater`` (a code of the plan) and ``participant`` (the id of another source, such as
  Prolific) that says which code an id stands for. match_ids finds the codes of the other ids.
"""

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from kdutils.data.records import WORKBOOKS
from kdutils.errors import StudyError, printable
from kdutils.human_study.design import SCALE, TASKS, TRUTH
from kdutils.human_study.forms import completion_code
from kdutils.human_study.plan import earlier_keys, of_earlier_form, read_plan
from kdutils.human_study.rating_files import OTHER_VERSION, read_rating_file
from kdutils.human_study.rating_values import CODE, Problem, is_blank, is_foreign, possible_scores, shortened
from kdutils.human_study.survey_exports import WITHDRAWN
from kdutils.runs import project_path, visible_files

ENDINGS = {".json", ".jsonl", ".csv", ".tsv", ".txt", *WORKBOOKS}
RATING_COLUMNS = ["rater", "text", "question", "dataset", "method", "student_seed", "correct", "characters", "position",
                  "construct", "score", "quality", "choice", "seconds", "simulated", "model", "file"]
PROBLEM_COLUMNS = ["file", "row", "rater", "what", "detail", "left_out"]
RATER_COLUMNS = ["rater", "status", "pages", "of", "failed_checks", "ratings", "seconds", "seconds_per_page",
                 "flag", "completion_code", "participant"]
FAST = 5  # seconds per page; the statements alone take longer to read
NOTHING = "nothing came"  # status of a rater
NO_RATING = "no rating that can be used"  # status of a rater whose pages all have a problem
UNKNOWN = ("unknown rater", "unknown text", "text of another rater", "unknown layout")  # of a file of another plan
MAX_ID = 64  # signs of an id of another source


class Ratings(NamedTuple):
    """What read_ratings returns.

    `ratings`: one row per rater, text and construct, with RATING_COLUMNS. `quality` is the mean over the constructs of
    the rating without the statement on truth; `score` and `quality` are in points of the scale, in a simulation 1 for
    the model's answer and else 0.
    `problems`: PROBLEM_COLUMNS. `what` names the problem, `row` is the line of a table or the position of an answer (0
    for a whole file or rater), `left_out` counts the rated pages that were left out. `raters`: one row per planned
    rater, and per rater of another version of the form, with RATER_COLUMNS and what the form asked about the rater.
    `pages` counts the answered ones, also those of a file that cannot be used. `completion_code` is what the form
    showed at the end, "" for an unfinished one; `participant` is the id of another source. If several people used one
    code, each is a rater: the second one of R001A is R001A.2. People are told apart by their id or, without one, by the
    time at which they began, and from a model or simulated raters; for a table without ids see _Reader.place_tables. A
    rater without a rating that can be used is not kept. `flag` says whose answers were very fast or all equal.
    """

    ratings: pd.DataFrame
    problems: pd.DataFrame
    raters: pd.DataFrame


def read_ratings(paths: Path | str | list[Path | str], plan: pd.DataFrame | Path | str | None = None,
                 failed_checks_allowed: int = 0, keep_unfinished: bool = False) -> Ratings:
    """Return the Ratings in files and folders. A faulty file or row is a problem in the result, never an exception.

    `plan`: a frame or a path; the published ratings need none. Raters who fail more than `failed_checks_allowed`
    attention checks are left out. So are those who did not finish, unless `keep_unfinished`. The same rating twice
    counts once; two different ratings of a text by one rater are both left out. Given as a path, a plan may have keys
    of earlier forms below it (plan.earlier_keys): a file of such a form is read with its own key.
    """
    earlier = earlier_keys(plan) if isinstance(plan, (str, Path)) else []
    readers = [_Reader(read_plan(plan) if isinstance(plan, (str, Path)) else plan, keep_unfinished)]
    readers += [_Reader(read_plan(key / "plan.parquet"), keep_unfinished, readers[0]) for key in earlier]
    for path in _files([paths] if isinstance(paths, (str, Path)) else paths, readers[0]):
        _read_with(path, _fitting_reader(path, readers))
    for reader in readers:
        reader.place_tables()
        reader.place_foreign()
        reader.collect()
    participants = _participants(readers)
    parts = [_as_ratings(reader, participants[reader], failed_checks_allowed) for reader in readers]
    parts[1:] = [_renamed(part, reader.version, _same_texts(Path(plan).parent, key))
                 for part, reader, key in zip(parts[1:], readers[1:], earlier, strict=True)]
    return Ratings(*(_joined(tables) for tables in zip(*parts, strict=True)))


def _read_with(path, reader):
    """Give the pages of a file to `reader`; a file that cannot be used is a problem."""
    try:
        read_rating_file(path, reader)
    except Problem as problem:
        reader.note(path, 0, *problem.args)
    except (OSError, RecursionError) as error:
        reader.note(path, 0, "cannot be read", type(error).__name__)


def _fitting_reader(path, readers):
    """Return the reader whose plan a file belongs to: the first, unless one of an earlier form reads more of it."""
    if len(readers) == 1:
        return readers[0]
    fits = []
    for reader in readers:
        trial = reader.empty()
        _read_with(path, trial)
        of_others = sum(page[2] in trial.texts for pages in trial.foreign.values() for page in pages)
        wrong = sum(one["what"] in (OTHER_VERSION, *UNKNOWN) for one in trial.problems)
        fits.append((len(trial.rows) + of_others, -wrong))
    best = readers[fits.index(max(fits))]
    if best is not readers[0]:
        best.note(path, 0, "of an earlier form", f"read with the key of version {best.version}")
    elif fits.count(max(fits)) > 1 and max(fits)[0]:
        best.note(path, 0, "fits several forms", f"read with the key of version {best.version}")
    return best


def _as_ratings(reader, participants, failed_checks_allowed):
    raters = _rater_table(participants, reader, failed_checks_allowed)
    kept = set(raters.loc[raters["status"].astype(str).str.startswith("kept"), "rater"])
    ratings = _rating_table([row for row in reader.kept if row["rater"] in kept], reader)
    return Ratings(ratings, pd.DataFrame(reader.problems, columns=PROBLEM_COLUMNS), raters)


def _same_texts(key, earlier):
    """Say whether two forms show the same texts with the same ids."""
    paths = [folder / "texts.parquet" for folder in (key, earlier)]
    return all(path.is_file() for path in paths) and paths[0].read_bytes() == paths[1].read_bytes()


def _renamed(part, version, same_texts):
    """Return Ratings of an earlier form: raters and, unless they are the `same_texts`, texts have names of their own.

    Raters from whom nothing came are left out.
    """
    def name(values):
        return values.map(lambda one: of_earlier_form(one, version) if one else one)

    ratings, problems, raters = part
    raters = raters[raters["status"] != NOTHING]
    texts = ratings["text"] if same_texts else name(ratings["text"])
    return Ratings(ratings.assign(rater=name(ratings["rater"]), text=texts),
                   problems.assign(rater=name(problems["rater"])), raters.assign(rater=name(raters["rater"])))


def _joined(tables):
    """Return the tables of the present and of earlier forms as one; empty ones leave the types as they are."""
    filled = [table for table in tables if len(table)]
    return pd.concat(filled, ignore_index=True) if len(filled) > 1 else filled[0] if filled else tables[0]


def given_paths(ratings: list[str]) -> list[Path]:
    """Return the paths that the parameter `ratings` names; StudyError where one is not a text or does not exist."""
    if not isinstance(ratings, (list, tuple)) or not all(isinstance(path, str) and path.strip() for path in ratings):
        raise StudyError("ratings: a list of files and folders is needed, or an empty list for simulated raters")
    paths = [project_path(path) for path in ratings]
    for path in paths:
        if not os.path.exists(path):
            raise StudyError(f"ratings: {shortened(str(path), 200)}: no such file or folder")
    return paths


def constructs_of(ratings: pd.DataFrame, plan: pd.DataFrame | None = None) -> list[str]:
    """Return the rated constructs in their order; without ratings, those that the plan asks for."""
    task = "rating" if plan is None else plan["task"].iloc[0]
    return list(dict.fromkeys(ratings["construct"])) or list(TASKS[task])


def mark_of(ratings: pd.DataFrame) -> str:
    """Return what marks tables and figures of these ratings: "" if people gave all of them."""
    if not len(ratings) or not ratings["simulated"].any():
        return ""
    return "RATED BY A MODEL" if ratings.loc[ratings["simulated"], "model"].ne("").all() else "SIMULATED"


def describe_origin(ratings: pd.DataFrame) -> str:
    """Return a sentence that says whether people gave these ratings."""
    simulated = ratings.groupby("rater")["simulated"].any()
    if not len(simulated):
        return "No rating can be used."
    if not simulated.any():
        return "Ratings by people."
    who = "These raters are" if simulated.all() else f"{int(simulated.sum())} of {len(simulated)} raters are"
    if mark_of(ratings) == "RATED BY A MODEL":
        names = ", ".join(sorted(set(ratings["model"]) - {""}))
        return (f"**{who} a language model ({names}).** Ratings by a model are not evidence about people, so no p "
                "value is shown.")
    return f"**{who} simulated.** Simulated ratings are not evidence about people, so no p value is shown."


def describe_use(raters: pd.DataFrame, ratings: pd.DataFrame) -> str:
    """Return a sentence that says how many raters and ratings are used and, if none is, why."""
    kept = raters["status"].astype(str).str.startswith("kept")
    rated = len(ratings.drop_duplicates(["rater", "text"]))
    used = f"{int(kept.sum())} of {len(raters)} raters and {rated} ratings are"
    if len(ratings):
        return f"{used} used."
    reasons = ", ".join(f"{status} ({count})" for status, count in raters["status"].value_counts().items())
    return f"{used} used: {reasons or 'no rater is known'}. Each section below says what it cannot compute."


def one_row_per_rating(ratings: pd.DataFrame) -> pd.DataFrame:
    """Return `ratings` with one row per rater and text, and a column per construct."""
    keys = [name for name in RATING_COLUMNS if name not in ("construct", "score", "choice")]
    if not len(ratings):
        return ratings[keys].assign(**{name: pd.Series(dtype=float) for task in TASKS.values() for name in task})
    wide = ratings.pivot(index=["rater", "text"], columns="construct", values="score").reset_index()
    wide.columns.name = None
    first = ratings.drop_duplicates(["rater", "text"])[keys]
    return first.merge(wide, on=["rater", "text"], validate="one_to_one")


def count_problems(problems: pd.DataFrame) -> pd.DataFrame:
    """Return one row per kind of problem: what, times (how often) and left_out (rated pages that were lost)."""
    return problems.groupby("what").agg(times=("what", "size"), left_out=("left_out", "sum")).reset_index()


# Files


def _files(paths: Iterable[Path | str], reader: "_Reader") -> Iterator[Path]:
    """Yield the files to read: those named, and in folders those with a known ending (in Potato's folders, its own).

    Other files of a folder are problems, unless they are hidden.
    """
    for path in map(Path, paths):
        try:
            folder, exists = path.is_dir(), path.exists()
        except (OSError, ValueError):  # a name that no file can have
            folder = exists = False
        if folder:
            inside = visible_files(path)
            if not inside:
                reader.note(path, 0, "no file in this folder", "put the files of the raters there")
            states = {item.parent for item in inside if item.name in ("user_state.json", "annotated_instances.jsonl")}
            for item in (item for item in inside if not _beside_potato(item, states)):
                if item.suffix.lower() in ENDINGS:
                    yield item
                else:
                    reader.note(item, 0, "unknown kind of file", "save it as CSV (UTF-8)")
        elif exists:
            yield path
        else:
            reader.note(path, 0, "no such file")


def _beside_potato(item, states):
    """Say whether Potato writes this file next to the ratings of its users."""
    if item.parent in states:
        return item.name not in ("user_state.json", "annotated_instances.jsonl") or (
            item.name == "annotated_instances.jsonl" and (item.parent / "user_state.json").exists())
    return any(state.parent == parent for state in states for parent in item.parents)


# Pages


class _Reader:
    """The rated pages of all files and the problems in them. rating_files calls its methods for each file."""

    def __init__(self, plan, keep_unfinished, first=None):
        """`first`: the reader of the present form, with which that of an earlier one shares what is known of ids."""
        self.plan = plan
        self.study = self.version = None
        self.completion_code = ""  # that every rater was shown
        self.task, self.keep_unfinished = "rating", keep_unfinished
        self.pages, self.pages_of, self.texts = {}, {}, set()  # (rater, text): page; rater: texts in order; all texts
        self.rows, self.problems, self.about = [], [], {}
        self.reached = set()  # (rater, text) of pages with at least one score
        self.refused = {}  # rater: (answered pages, all pages) in a file that cannot be used
        self.outdated = {}  # rater who is not in the plan: the same, in a file of another version of the form
        self.people = {}  # code of the plan: {(id of another source or "", what else tells people apart): rater}
        self.tables = {}  # (code of the plan, a table of one person without an id): texts with at least one score
        self.submissions = {}  # id of another source: (status at the panel, completion code or "", file, line)
        self.foreign, self.codes = {}, {}  # id of another source: its pages; the code that it is known to stand for
        if first is not None:
            self.submissions, self.codes = first.submissions, first.codes
        if plan is not None:
            self.study, self.version, self.task = (plan[name].iloc[0] for name in ("study", "version", "task"))
            self.completion_code = plan.get("completion_code", pd.Series([""])).iloc[0]
            for page in plan.sort_values(["rater", "position"]).to_dict("records"):
                self.expect(page)
        self.items = TASKS[self.task]

    def empty(self):
        """Return a reader of the same plan that has read nothing."""
        return _Reader(self.plan, self.keep_unfinished)

    def collect(self):
        """Sort what was read: `kept` has each rating once, `answered` {rater: {text: row}}, `shown` {rater: code}."""
        self.kept = _without_repeats(self)
        self.answered = {rater: {} for rater in self.pages_of}
        for row in self.kept:
            self.answered[row["rater"]][row["text"]] = row
        self.shown = {rater: _completion_code(rater, mine, self) for rater, mine in self.answered.items()}

    def expect(self, page):
        """Add a page of the plan."""
        self.pages[page["rater"], page["text"]] = page
        self.pages_of.setdefault(page["rater"], []).append(page["text"])
        self.texts.add(page["text"])

    def note(self, file, row, what, detail="", rater="", left_out=0):
        """Add a problem."""
        self.problems.append({"file": shortened(Path(file).name), "row": row, "rater": shortened(rater), "what": what,
                              "detail": detail, "left_out": left_out})

    def refuse(self, file, row, what, detail, rater, answered, of):
        """Add the problem of a whole file of `rater` with this many answered pages of all its pages."""
        self.note(file, row, what, detail, rater, answered)
        if isinstance(rater, str) and (rater in self.pages_of or CODE.fullmatch(rater)):
            known = self.refused if rater in self.pages_of or what != OTHER_VERSION else self.outdated
            known[rater] = max(known.get(rater, (0, 0)), (answered, of))

    def needs_plan(self):
        if not self.pages:
            raise Problem("no plan was given", "only the published ratings can be read without one")

    def add(self, file, row, rater, text, scores, seconds=np.nan, simulated=False, model="", table=None):
        """Check one rated page and keep it. A page of an id of another source waits for place_foreign.

        `table`: what names the table of one person, where no id does: place_tables says who it is.
        """
        rater = self.code_of(rater)
        if is_foreign(rater) and rater not in self.pages_of:
            return self.foreign.setdefault(rater, []).append((file, row, text, scores, seconds, simulated, model))
        if not isinstance(rater, str) or rater not in self.pages_of:
            return self.note(file, row, "unknown rater", shortened(rater), rater, 1)
        page = self.pages.get((rater, text)) if isinstance(text, str) else None
        if page is None:
            what = "text of another rater" if isinstance(text, str) and text in self.texts else "unknown text"
            return self.note(file, row, what, shortened(text), rater, 1)
        if all(is_blank(scores.get(item)) for item in self.items):
            return None  # the rater did not reach this page: it counts as unfinished
        if table is None:
            self.reached.add((rater, text))
        else:
            self.tables.setdefault((rater, table), set()).add(text)
        values = {}
        for item in self.items:
            if item in TRUTH and is_blank(scores.get(item)):
                continue  # it was not always asked
            if is_blank(scores.get(item)):
                return self.note(file, row, "missing score", item, rater, 1)
            found = possible_scores(scores[item], page["choices"] if self.task == "simulation" else SCALE)
            if len(found) != 1:
                what = "score out of range" if not found else "ambiguous score"
                return self.note(file, row, what, f"{item} = {shortened(scores[item])}"
                                 + f" means {' or '.join(map(str, sorted(found)))}" * bool(found), rater, 1)
            values[item] = found.pop()
        self.rows.append({"file": shortened(Path(file).name), "row": row, "rater": rater, "text": text,
                          "table": table, "scores": values, "seconds": seconds, "simulated": simulated is True,
                          "model": shortened(model) if isinstance(model, str) else ""})

    def code_of(self, rater):
        """Return the code of the plan that `rater` is in another spelling, else `rater` itself."""
        if isinstance(rater, int) and not isinstance(rater, bool) and abs(rater) < 1e18:
            rater = str(rater)
        if not isinstance(rater, str) or rater in self.pages_of:
            return rater
        return rater.strip().upper() if rater.strip().upper() in self.pages_of else rater.strip()

    def person(self, rater, participant, started="", simulated=False, model=""):
        """Return the rater that a person with this code is: the code, or a new one if another person used it.

        `participant`: an id of another source; without one, `started` tells people apart.
        """
        rater = self.code_of(rater)
        if not isinstance(rater, str) or rater not in self.pages_of or is_foreign(rater):
            return rater
        own = [one if isinstance(one, str) else "" for one in (participant, started, model)]
        return self._known_as(rater, (own[0], "" if own[0] else own[1], simulated is True, own[2]))

    def _known_as(self, code, person):
        """Return the rater of a code for what tells a person apart, a new one if this person was not seen before."""
        known = self.people.setdefault(code, {})
        if person not in known:
            known[person] = f"{code}.{len(known) + 1}" if known else code
            for text in self.pages_of[code] if len(known) > 1 else []:
                self.expect({**self.pages[code, text], "rater": known[person]})
        return known[person]

    def place_tables(self):
        """Give the tables of one person without an id to the raters of their code.

        A table is that of the rater who gave most of the same ratings. It is that of a new rater if fewer than half of
        the ratings are the same, of the texts that both rated.
        """
        answers, rows = {}, {}
        for row in self.rows:
            if row["table"] is None:
                answers[row["rater"], row["text"]] = row["scores"]
            else:
                rows.setdefault((row["rater"], row["table"]), []).append(row)
        for (code, table), reached in self.tables.items():
            mine = rows.get((code, table), [])

            def likeness(rater, code=code, mine=mine):
                same = [row["scores"] == answers[rater, row["text"]] for row in mine
                        if (rater, row["text"]) in answers and not self.pages[code, row["text"]]["is_check"]]
                return sum(same) / len(same) if same else 0.5

            rater = max(self.people.get(code, {}).values(), key=likeness, default=None)
            if rater is None or likeness(rater) < 0.5:
                rater = self._known_as(code, ("", table, False, ""))
            self.reached |= {(rater, text) for text in reached}
            for row in mine:
                answers[rater, row["text"]] = row["scores"]
                row |= {"rater": rater, "table": None}

    def place_foreign(self):
        """Add the pages of ids of other sources to the codes that they stand for; note the ids without a code."""
        texts_of = {rater: [text for _, _, text, *_ in pages] for rater, pages in sorted(self.foreign.items())}
        matched, unmatched = match_ids(texts_of, self.pages_of, {rater for rater, _ in self.reached}, self.codes)
        for rater, code in matched.items():
            self.people.setdefault(code, {})[rater, "", False, ""] = code
            if rater in self.about:
                self.about.setdefault(code, {}).update(self.about.pop(rater))
            for file in dict.fromkeys(page[0] for page in self.foreign[rater]):
                self.note(file, 0, "id of another source", f"{shortened(rater)} stands for {code}", code)
            for file, row, text, *rest in self.foreign[rater]:
                self.add(file, row, code, text, *rest)
        for rater, reason in unmatched.items():
            for file, row, *_ in self.foreign[rater]:
                self.note(file, row, "unknown rater", f"{shortened(rater)}: {reason}", rater, 1)


def match_ids(texts_of: dict[str, list[str]], pages_of: dict[str, list[str]], taken: set[str],
              known: dict[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return ({id: code of the plan}, {id: reason why it has none}) for ids of another source.

    An id gets its known code, else the only free code whose pages include all of its texts. If several free codes saw
    exactly the same texts, it gets the one that saw them in the same order, else the first of them.

    `texts_of`: {id: texts in the order of its file}. `pages_of`: {code: texts in the order of the plan}. `taken`: codes
    that have ratings already. `known`: {id: code}, from a table or a checksum.
    """
    seen_by = {code: set(texts) for code, texts in sorted(pages_of.items())}
    planned = set().union(*seen_by.values())
    own = {one: planned.intersection(text for text in texts if isinstance(text, str))
           for one, texts in texts_of.items()}
    matched, fitting, waiting = {}, {}, list(texts_of)
    while waiting:
        free = {code: seen for code, seen in seen_by.items() if code not in taken | set(matched.values())}
        fitting = {one: [known[one]] if one in known else [code for code, seen in free.items() if own[one]
                                                           and own[one] <= seen] for one in waiting}
        alike = {one: codes for one, codes in fitting.items()
                 if len(codes) > 1 and all(seen_by[code] == seen_by[codes[0]] for code in codes)}
        ordered = {one: [code for code in codes if pages_of[code] == texts_of[one]] for one, codes in alike.items()}
        found = next(((one, known[one]) for one in waiting if one in known), None) or _only_fit(fitting) \
            or _only_fit(ordered) or next(((one, codes[0]) for one, codes in alike.items()), None)
        if found is None:
            break
        matched[found[0]] = found[1]
        waiting.remove(found[0])
    return matched, {one: f"fits {len(fitting[one])} codes of the plan" if len(fitting[one]) > 1
                     else f"fits {fitting[one][0]}, as others do" if fitting[one]
                     else "no free code of the plan saw its texts" for one in waiting}


def _only_fit(fitting):
    """Return the first (id, code) where the id fits one code alone, and no other id fits that code alone; else None."""
    single = [(one, codes[0]) for one, codes in fitting.items() if len(codes) == 1]
    codes = [code for _, code in single]
    return next(((one, code) for one, code in single if codes.count(code) == 1), None)


# Tables


def _without_repeats(reader):
    """Return the rows with each rating once. Two different ratings of one text by one rater are both left out.

    What comes again in another file is one problem of that file, what comes again in the same file one of each row.
    """
    groups, kept, copies = {}, [], {}
    for row in reader.rows:
        groups.setdefault((row["rater"], row["text"]), []).append(row)
    for same in groups.values():
        if any(row["scores"] != same[0]["scores"] for row in same):
            for row in same:
                reader.note(row["file"], row["row"], "two different ratings of one text", row["text"], row["rater"], 1)
            continue
        first = min(same, key=lambda row: _like_a_copy(row["file"]))
        kept.append(first)
        for row in same:
            if row["file"] != first["file"]:
                copies.setdefault((row["file"], first["file"], row["rater"]), []).append(row)
            elif row is not first:
                reader.note(row["file"], row["row"], "the same rating twice", row["text"], row["rater"], 1)
    for (file, original, rater), rows in copies.items():
        reader.note(file, 0, "copy of another file", f"the same answers as in {original}", rater, len(rows))
    return kept


def _like_a_copy(file):
    """Return what sorts an original before its copies: the form's JSON first, then the shorter name."""
    name = Path(file)
    return name.suffix != ".json", len(name.stem), file


def _participants(readers):
    """Return {reader: {rater: id of another source}}; note the listed completion codes that do not fit the files.

    A code finds the person of a file without an id if no other file and no other person without a file has this code.
    A blank code finds nobody.
    """
    found = {reader: {rater: one for people in reader.people.values() for (one, *_), rater in people.items() if one}
             for reader in readers}
    raters = {one: (reader, rater) for reader in reversed(readers) for rater, one in found[reader].items()}
    nameless = {}
    for reader in readers:
        for rater, code in reader.shown.items():
            if code and rater not in found[reader] and code != reader.completion_code:
                nameless.setdefault(code, []).append((reader, rater))
    submissions, shared = readers[0].submissions, {reader.completion_code.upper() for reader in readers}
    listed = [code for one, (_, code, _, _) in submissions.items() if one not in raters]
    for one, (_, code, file, line) in submissions.items():
        if code and one in raters:
            reader, rater = raters[one]
            shown = reader.shown[rater] or "none, it is not complete"
            if code != shown.upper():
                reader.note(file, line, "another completion code", f"{shortened(one, 30)}: the list has "
                            f"{shortened(code, 20)}, the file {shown}", rater)
        elif code and len(nameless.get(code, [])) == listed.count(code) == 1:
            reader, rater = nameless[code][0]
            found[reader][rater] = one
        elif code:
            fits = "a file, and so do others in the list or folder" if code in nameless else \
                "no file" if code not in shared else "all, but no file has this id"
            readers[0].note(file, line, "completion code without a file", f"{shortened(one, 30)}: the list has "
                            f"{shortened(code, 20)}, which fits {fits}")
    return found


def _rater_table(participants, reader, failed_checks_allowed):
    """Return one row per planned rater; note those who failed too many checks or did not finish."""
    table = []
    for rater, mine in reader.answered.items():
        pages = [reader.pages[rater, text] for text in reader.pages_of[rater]]
        reached = [page for page in pages if (rater, page["text"]) in reader.reached]
        failed = sum(_fails(page, mine.get(page["text"])) for page in reached if page["is_check"])
        rated = sum(not reader.pages[rater, text]["is_check"] for text in mine)
        code, person = reader.shown[rater], participants.get(rater, "")
        status, detail = "kept", ""
        submitted = reader.submissions.get(person, ("",))[0]
        if not reached:
            status = next((one["what"] for one in reader.problems if one["rater"] == rater), NOTHING)
        elif submitted in WITHDRAWN:
            status, detail = WITHDRAWN[submitted], shortened(person)
        elif failed > failed_checks_allowed:
            status, detail = "failed attention check", f"{failed} failed"
        elif len(reached) < len(pages) and reader.keep_unfinished:
            status = "kept unfinished"
        elif len(reached) < len(pages):
            status, detail = "unfinished", f"{len(reached)} of {len(pages)} pages"
        if status.startswith("kept") and not rated:
            status = NO_RATING
        if detail:
            reader.note(next((row["file"] for row in mine.values()), ""), 0, status, detail, rater, rated)
        seconds = [row["seconds"] for row in mine.values() if not np.isnan(row["seconds"])]
        pace = sum(seconds) / len(seconds) if seconds else np.nan
        table.append({"rater": rater, "status": status, "pages": max(len(reached), reader.refused.get(rater, (0,))[0]),
                      "of": len(pages), "failed_checks": int(failed),
                      "ratings": rated if status.startswith("kept") else 0,
                      "seconds": round(sum(seconds), 3) if seconds else np.nan, "seconds_per_page": round(pace, 1),
                      "flag": _flag(pace, [mine[page["text"]] for page in pages
                                           if page["text"] in mine and not page["is_check"]]),
                      "completion_code": code,
                      "participant": printable(person)[:MAX_ID], **reader.about.get(rater, {})})
    table += [{"rater": shortened(rater), "status": OTHER_VERSION, "pages": pages, "of": of, "failed_checks": 0,
               "ratings": 0, "seconds": np.nan, "seconds_per_page": np.nan, "flag": "", "completion_code": "",
               "participant": ""}
              for rater, (pages, of) in reader.outdated.items()]
    return pd.DataFrame(table) if table else pd.DataFrame(columns=RATER_COLUMNS)


def _flag(pace, rows):
    """Return what is odd about the answers of a rater, who is kept all the same: very fast, or all the same point."""
    points = {score for row in rows for score in row["scores"].values()}
    flags = [*[f"fast: under {FAST} seconds per page"] * bool(pace < FAST),
             *["all answers equal"] * (len(rows) > 1 and len(points) == 1)]
    return "; ".join(flags)


def _completion_code(rater, rated, reader):
    """Return the code that the form showed to a rater who answered all pages, else ""."""
    if reader.version is None or any(text not in rated for text in reader.pages_of[rater]):
        return ""
    if reader.completion_code:
        return reader.completion_code
    code = re.sub(r"\.\d+$", "", rater)
    return completion_code(reader.study, reader.version, code, {text: row["scores"] for text, row in rated.items()})


def _fails(page, row):
    return row is None or any(score != page["expected"] for score in row["scores"].values())


def _rating_table(rows, reader):
    """Return one row per rater, text and construct. Only here are the columns of the plan joined to ratings."""
    records = []
    for row in rows:
        page, scores, choice = reader.pages[row["rater"], row["text"]], row["scores"], ""
        if page["is_check"]:
            continue
        if reader.task == "simulation":
            choice = page["choices"][scores["simulation"] - 1]
            scores = {"simulation": int(scores["simulation"] == page["expected"])}
        common = {**{name: page[name] for name in RATING_COLUMNS if name in page}, "choice": choice,
                  "quality": float(np.mean([score for name, score in scores.items() if name not in TRUTH])),
                  **{name: row[name] for name in ("seconds", "simulated", "model", "file")}}
        records += [{**common, "construct": name, "score": float(score)} for name, score in scores.items()]
    frame = pd.DataFrame(records, columns=RATING_COLUMNS)
    return frame.astype({"student_seed": "Int64", "position": "Int64", "characters": "Int64", "correct": "boolean",
                         "score": float, "quality": float, "seconds": float, "simulated": bool})
