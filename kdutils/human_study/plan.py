"""The plan of a study with people: who rates which text in which order. It is drawn, written and read back here."""

import contextlib
import json
import math
import os
import re
import shutil
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from kdutils.data.tables import read_parquet
from kdutils.errors import StudyError, first_line, shown
from kdutils.human_study.design import SCALE, TASKS, TEXT_COLUMNS, Study, new_ids
from kdutils.runs import atomic_write, unescape_cell, write_csv

CHECK_CHOICES = ["river", "candle", "ladder", "pillow", "engine"]  # of an attention check in a simulation
CHECKS = {"rating": (1, 2, 4, 5), "simulation": (1, 2, 3, 4, 5)}  # points that a check may ask for; not the middle one
VERSION = re.compile("[0-9a-f]{16}")  # of a form: forms.form_content
PLAN = pa.schema([
    ("study", pa.string()),
    ("version", pa.string()),  # checksum of what raters are shown; "" until the study is written
    ("completion_code", pa.string()),  # that all raters are shown at the end; "" where each gets a code of the answers
    ("task", pa.string()),  # rating or simulation
    ("rater", pa.string()),  # the code that a rater enters
    ("position", pa.int64()),  # page of the rater, from 1
    ("text", pa.string()),  # opaque id
    ("question", pa.string()),  # id of the question, "" for a check
    ("dataset", pa.string()),
    ("method", pa.string()),  # "" for a check
    ("student_seed", pa.int64()),  # null for a check
    ("correct", pa.bool_()),  # whether the student was right; null for a check
    ("characters", pa.int64()),  # length of the explanation
    ("is_check", pa.bool_()),
    ("expected", pa.int64()),  # point or choice (from 1) that a check asks for; in a simulation the model's answer
    ("choices", pa.list_(pa.string())),
])


# Sizes


def questions_needed(n_methods: int, n_raters: int, items_per_rater: int, raters_per_text: int = 1,
                     available: int | None = None) -> int:
    """Return the number of questions of a balanced plan: n_raters × items_per_rater / (raters_per_text × n_methods).

    In a balanced plan each rater sees every method equally often, and each text is seen by the same number of raters.
    Raises StudyError, with sizes that would work, if there is no such plan or it needs more than `available` questions.
    """
    sizes = {"n_raters": n_raters, "items_per_rater": items_per_rater, "raters_per_text": raters_per_text}
    for name, value in {"n_methods": n_methods, **sizes}.items():
        _check_integer(name, value, 1)
    fault = _fault(n_methods, available, **sizes)
    if fault:
        raise StudyError(f"{fault}; {_what_works(n_methods, available, sizes)}")
    return n_raters * items_per_rater // (raters_per_text * n_methods)


def size_fault(task: str, n_methods: int, n_raters: int, texts_per_method: int, raters_per_text: int, checks: int,
               available: int | None = None) -> str:
    """Return why no balanced plan has these sizes, with sizes that would work; "" if there is such a plan.

    `available`: the number of questions at most, None if it is not known.
    """
    items = texts_per_method * n_methods
    try:
        questions_needed(n_methods, n_raters, items, raters_per_text, available)
    except StudyError as error:
        return str(error)
    return _checks_fault(task, checks, items)


def _check_integer(name, value, least):
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise StudyError(f"{name}: {shown(value, 60)} is not a whole number")
    if value < least:
        raise StudyError(f"{name} is {value}: at least {least} is needed")


def _checks_fault(task, checks, items):
    most = min(len(CHECKS[task]), items - 1)
    return "" if 0 <= checks <= most else f"checks {checks}: 0 to {most} would work"


def _fault(n_methods, available, n_raters, items_per_rater, raters_per_text):
    """Return why there is no balanced plan of these sizes, "" if there is one."""
    needed, rest = divmod(n_raters * items_per_rater, raters_per_text * n_methods)
    if items_per_rater % n_methods:
        return f"items_per_rater {items_per_rater} does not show each of {n_methods} methods equally often"
    if raters_per_text > n_raters:
        return f"raters_per_text {raters_per_text} is more than the number of raters"
    if rest:
        return (f"{n_raters} raters × {items_per_rater} items are not {raters_per_text} for each text of "
                f"{n_methods} methods")
    if available is not None and needed > available:
        return f"{needed} questions are needed and {available} are available"
    return ""


def _what_works(n_methods, available, sizes):
    """Return the nearest values of each size that work with the other sizes as they are."""
    found = []
    for name, value in sizes.items():
        works = [other for other in range(1, value + sizes["raters_per_text"] * n_methods + 1 + sizes["n_raters"])
                 if not _fault(n_methods, available, **{**sizes, name: other})]
        near = [max((other for other in works if other < value), default=None),
                min((other for other in works if other > value), default=None)]
        if any(near):
            found.append(f"{name} {' or '.join(str(other) for other in near if other)}")
    return f"{', or '.join(found)} would work" if found else (
        f"take a multiple of {n_methods} as items_per_rater, at most n_raters as raters_per_text and fewer of each")


# Draw


def draw_plan(study: Study, texts: pd.DataFrame, n_raters: int, items_per_rater: int, raters_per_text: int = 1,
              checks: int = 1, seed: int = 0) -> pd.DataFrame:
    """Return the plan: one row per rater and page, columns of PLAN. `texts` come from draw_texts.

    - Each rater sees each method equally often, and each text is seen by `raters_per_text` raters.
    - No rater sees a text twice. No rater sees a question twice, unless there are fewer questions than pages.
    - Methods come in blocks, each method once. The blocks are rows of a Williams square (Williams 1949): over raters,
      each method is equally often at each position and, within blocks, after each other method.
    - `checks` attention checks are placed between the texts, each asking for another point.

    Raises StudyError, with sizes that would work, if there is no such plan.
    """
    methods = sorted(texts["method"].unique())
    questions = sorted(texts["question"].unique())
    _check_sizes(study, texts, methods, questions, n_raters, items_per_rater, raters_per_text)
    points = CHECKS[study.task]
    _check_integer("checks", checks, 0)
    if fault := _checks_fault(study.task, checks, items_per_rater):
        raise StudyError(fault)
    generator = np.random.default_rng([seed, 2])
    times_seen = _assign_questions(n_raters, len(questions), items_per_rater, generator)
    pairs = _assign_methods(times_seen, len(methods), raters_per_text, generator)
    sequences = _method_sequences(n_raters, items_per_rater, len(methods), generator)
    rows = {(row["question"], row["method"]): row for row in texts.to_dict("records")}
    check_ids = dict(zip(points, new_ids(len(points), generator), strict=True))
    assert not set(check_ids.values()) & set(texts["text"])
    plan = []
    for number in range(n_raters):
        order = _order_pages(pairs[number], sequences[number], generator)
        pages = [_plan_row(study, rows[questions[question], methods[method]]) for question, method in order]
        chosen = generator.permutation(points)[:checks]
        for place, point in zip(_check_places(len(pages), checks, generator), chosen, strict=True):
            pages.insert(place, _check_row(study, int(point), check_ids[point]))
        code = f"R{number + 1:03d}{generator.choice(list('ABCDEFGHJKLMNPQRSTUVWXYZ'))}"
        plan += [{**page, "rater": code, "position": place} for place, page in enumerate(pages, 1)]
    return _as_plan(pd.DataFrame(plan))


def _check_sizes(study, texts, methods, questions, n_raters, items_per_rater, raters_per_text):
    if texts.duplicated(["question", "method"]).any() or len(texts) != len(methods) * len(questions):
        raise StudyError("texts: every question needs exactly one text of each method")
    if study.task == "simulation" and not all(
            answer in choices for answer, choices in zip(texts["answer"], texts["choices"], strict=True)):
        raise StudyError("texts: an answer is not one of the choices; use eligible_texts with task 'simulation'")
    needed = questions_needed(len(methods), n_raters, items_per_rater, raters_per_text)
    if needed != len(questions):
        raters, rest = divmod(len(questions) * len(methods) * raters_per_text, items_per_rater)
        other = f", or plan n_raters {raters}" if not rest and raters >= raters_per_text else ""
        raise StudyError(f"{n_raters} raters × {items_per_rater} items with {raters_per_text} for each text of "
                         f"{len(methods)} methods need {needed} questions, and texts of {len(questions)} were drawn: "
                         f"draw {needed}{other}")


def _assign_questions(n_raters, n_questions, items, generator):
    """Return how often each rater sees each question, (n_raters, n_questions): equal sums, entries at most 1 apart."""
    base, rest = divmod(items, n_questions)
    extra = np.zeros((n_raters, n_questions), dtype=int)
    for number in range(n_raters):
        extra[number, (number * rest + np.arange(rest)) % n_questions] = 1
    extra = extra[generator.permutation(n_raters)][:, generator.permutation(n_questions)]
    edges = np.argwhere(extra)
    for first, second in generator.integers(0, max(len(edges), 1), (10 * len(edges), 2)):
        (rater, question), (other, its) = edges[first], edges[second]
        if not extra[rater, its] and not extra[other, question]:  # a swap keeps all sums
            extra[rater, question] = extra[other, its] = 0
            extra[rater, its] = extra[other, question] = 1
            edges[first, 1], edges[second, 1] = its, question
    return base + extra


def _assign_methods(times_seen, n_methods, raters_per_text, generator):
    """Return the (question, method) pairs of each rater; each rater and each question has every method equally often.

    This is a balanced colouring of the edges of a bipartite graph, which always exists (de Werra 1975). Each method in
    turn is a transport problem between raters and questions, whose vertices are whole numbers. Random costs select a
    random vertex.
    """
    from scipy.optimize import linprog
    from scipy.sparse import coo_array

    pairs = np.argwhere(times_seen)
    left = times_seen[pairs[:, 0], pairs[:, 1]]
    raters, questions = times_seen.shape
    order = np.arange(len(pairs))
    incidence = coo_array((np.ones(2 * len(pairs)), (np.r_[pairs[:, 0], raters + pairs[:, 1]], np.r_[order, order])))
    sums = np.r_[np.full(raters, times_seen.sum(axis=1)[0] // n_methods), np.full(questions, raters_per_text)]
    assigned = [[] for _ in times_seen]
    for method in range(n_methods):
        methods_left = n_methods - method
        solution = linprog(generator.random(len(pairs)), A_eq=incidence.tocsr(), b_eq=sums, method="highs-ds",
                           bounds=np.c_[left // methods_left, -(-left // methods_left)])
        taken = np.rint(solution.x).astype(int)
        assert np.array_equal(incidence @ taken, sums), "the transport problem has no whole-numbered solution"
        for rater, question in pairs[taken > 0]:
            assigned[rater].append((int(question), method))
        left = left - taken
    return assigned


def _method_sequences(n_raters, items, n_methods, generator):
    """Return the order of methods of each rater: row (rater + block) of a Williams square.

    For an odd number of methods the rows of every second round of raters are mirrored.
    """
    zigzag = [(place + 1) // 2 if place % 2 else -(place // 2) for place in range(n_methods)]
    names = generator.permutation(n_methods)
    sequences = []
    for rater in range(n_raters):
        blocks = [[int(names[(step + rater + block) % n_methods]) for step in zigzag]
                  for block in range(items // n_methods)]
        mirrored = n_methods % 2 and (rater // n_methods) % 2
        sequences.append([method for block in blocks for method in (block[::-1] if mirrored else block)])
    return sequences


def _order_pages(pairs, sequence, generator, tries=20):
    """Return a rater's (question, method) pairs in the order `sequence`; the same question is kept far apart."""
    best = (-1, None)
    for _ in range(tries):
        waiting = {}
        for place in generator.permutation(len(pairs)):
            waiting.setdefault(pairs[place][1], []).append(pairs[place][0])
        order = [(waiting[method].pop(), method) for method in sequence]
        gap = _smallest_gap([question for question, _ in order])
        best = max(best, (gap, order), key=lambda one: one[0])
        if gap == math.inf:
            break
    return best[1]


def _smallest_gap(questions):
    last, gap = {}, math.inf
    for place, question in enumerate(questions):
        gap = min(gap, place - last.get(question, -math.inf))
        last[question] = place
    return gap


def _check_places(n_pages, checks, generator):
    """Return the places of checks, last first, so that an insertion does not move the others; never the first page."""
    places = [round(n_pages * number / (checks + 1)) + generator.integers(-1, 2) for number in range(1, checks + 1)]
    return sorted((int(np.clip(place, 1, n_pages - 1)) for place in places), reverse=True)


def _plan_row(study, text):
    expected = text["choices"].index(text["answer"]) + 1 if study.task == "simulation" else None
    return {"study": study.name, "version": "", "task": study.task, "is_check": False, "expected": expected,
            "characters": len(text["explanation"]),
            **{name: text[name] for name in TEXT_COLUMNS if name in PLAN.names}}


def _check_row(study, point, text):
    return {"study": study.name, "version": "", "task": study.task, "is_check": True, "expected": point,
            "characters": 0, "text": text, "question": "", "dataset": "-", "method": "", "student_seed": None,
            "correct": None, "choices": CHECK_CHOICES if study.task == "simulation" else []}


def _as_plan(frame):
    """Return `frame` with the columns and types of PLAN; plans of earlier versions have no completion code."""
    frame = frame if "completion_code" in frame else frame.assign(completion_code="")
    plan = pd.DataFrame({field.name: frame[field.name] for field in PLAN})
    plan = plan.astype({field.name: "str" for field in PLAN if field.type == pa.string()})
    for name in ("position", "characters", "student_seed", "expected"):
        plan[name] = pd.array([None if pd.isna(value) else int(value) for value in plan[name]], dtype="Int64")
    plan["correct"] = pd.array([None if pd.isna(value) else bool(value) for value in plan["correct"]], dtype="boolean")
    plan["is_check"] = plan["is_check"].astype(bool)
    plan["choices"] = [list(names) if isinstance(names, np.ndarray) else names for names in plan["choices"]]
    return plan.reset_index(drop=True)


def plan_facts(plan: pd.DataFrame) -> dict[str, int | list[int]]:
    """Return counts of a plan; a list is (smallest, largest). ``…_twice`` counts what one rater sees twice."""
    pages = plan[~plan["is_check"]]
    numbered = pages.assign(place=pages.groupby("rater").cumcount())
    at_place = numbered.groupby(["place", "method"]).size().unstack(fill_value=0)
    return {"raters": int(pages["rater"].nunique()), "texts": int(pages["text"].nunique()),
            "questions": int(pages["question"].nunique()), "methods": int(pages["method"].nunique()),
            "ratings_per_text": _extent(pages.groupby("text").size()),
            "texts_per_method_and_rater": _extent(pages.groupby(["rater", "method"]).size()),
            "same_text_twice": int(pages.duplicated(["rater", "text"]).sum()),
            "same_question_twice": int(pages.duplicated(["rater", "question"]).sum()),
            "method_per_position_spread": int((at_place.max(axis=1) - at_place.min(axis=1)).max()),
            "checks_per_rater": _extent(plan.groupby("rater")["is_check"].sum())}


def _extent(counts):
    return [int(counts.min()), int(counts.max())]


# Files


def write_plan(folder: Path | str, plan: pd.DataFrame) -> None:
    """Write the blinding key as plan.parquet and plan.csv into a private folder."""
    folder = private_folder(folder)
    with atomic_write(folder / "plan.parquet") as temporary:
        pq.write_table(pa.Table.from_pandas(plan, schema=PLAN, preserve_index=False), temporary)
    table = plan.assign(choices=plan["choices"].map(lambda choices: json.dumps(list(choices), ensure_ascii=False)))
    write_csv(folder / "plan.csv", table)
    private_folder(folder)


def private_folder(folder: Path | str) -> Path:
    """Create `folder` if it is missing, let only its owner read it and the files in it, and return it.

    A system without such permissions leaves them as they are.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    inside = [path for path in folder.iterdir() if path.is_file() and not path.is_symlink()]
    for path, mode in [(folder, 0o700), *((path, 0o600) for path in inside)]:
        with contextlib.suppress(OSError, NotImplementedError):
            path.chmod(mode)
    return folder


def keep_earlier_key(key: Path, form: Path, version: str) -> None:
    """Move the plan and texts of another form than `version` to ``key/<its version>``, with a copy of that form.

    Ratings of a form that was sent out can only be read with its own key. Without a readable plan, nothing is moved.
    """
    with contextlib.suppress(StudyError):
        earlier = read_plan(key / "plan.parquet")["version"].iloc[0]
        if earlier == version or not VERSION.fullmatch(earlier):
            return
        folder = private_folder(key / earlier)
        if form.is_file():
            shutil.copy2(form, folder / form.name)
        for name in ("plan.csv", "texts.parquet", "plan.parquet"):  # the plan last: without it, this is done again
            if (key / name).is_file():
                os.replace(key / name, folder / name)
        private_folder(folder)


def earlier_keys(path: Path | str) -> list[Path]:
    """Return the folders with the keys of earlier forms, for the plan (or the texts) of the present one."""
    inside = sorted(Path(path).parent.glob("*/plan.parquet"))
    return [plan.parent for plan in inside if VERSION.fullmatch(plan.parent.name)]


def study_texts(path: Path | str, rated: Iterable[str] = ()) -> pd.DataFrame:
    """Return the texts of a study, with columns TEXT_COLUMNS, from its ``key/texts.parquet``.

    Those of earlier forms (earlier_keys) follow if they are among `rated`, ids of texts as read_ratings gives them.
    Raises StudyError for a file that is not one of texts.
    """
    texts = read_parquet(path)
    missing = [name for name in TEXT_COLUMNS if name not in texts]
    if missing:
        raise StudyError(f"{path}: column '{missing[0]}' is missing from the texts of a study")
    for key in earlier_keys(path):
        if (key / "texts.parquet").is_file():
            earlier = read_parquet(key / "texts.parquet")
            earlier["text"] = earlier["text"].map(partial(of_earlier_form, version=key.name))
            texts = pd.concat([texts, earlier[earlier["text"].isin(rated)]])
    return texts.drop_duplicates("text").reset_index(drop=True)


def of_earlier_form(name: str, version: str) -> str:
    """Return what a rater or text of an earlier form is called, so that it is not taken for one of the present form."""
    return f"{name}.{version[:8]}"


def read_plan(path: Path | str) -> pd.DataFrame:
    """Return a plan from its Parquet or CSV file; StudyError if the file is missing or not a plan."""
    path = Path(path)
    if not path.is_file():
        raise StudyError(f"{path}: no such file; 22_make_human_study writes the plan")
    try:
        plan = _as_plan(_plan_of_csv(path) if path.suffix == ".csv" else read_parquet(path))
        fault = _plan_fault(plan)
    except KeyError as error:
        raise StudyError(f"{path}: column {error} is missing from a plan") from error
    except StudyError:
        raise
    except (OSError, ValueError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise StudyError(f"{path}: not a readable plan ({first_line(error)})") from error
    if fault:
        raise StudyError(f"{path}: not a plan: {fault}")
    return plan


def _plan_of_csv(path):
    """Return a plan.csv as a frame; a spreadsheet may have changed the separator, and True to TRUE."""
    with open(path, encoding="utf-8-sig") as file:
        first = file.readline()
    frame = pd.read_csv(path, dtype=str, keep_default_na=False, sep=max(",;\t", key=first.count)).astype(object)
    frame = frame.map(unescape_cell)
    for name in ("student_seed", "expected"):
        frame[name] = frame[name].replace("", None)
    for name in ("is_check", "correct"):
        known = {"true": True, "false": False, "": None}
        frame[name] = [known[value.casefold()] if value.casefold() in known else int(value) for value in frame[name]]
    frame["choices"] = frame["choices"].map(json.loads)
    return frame


def _plan_fault(plan):
    """Return what is wrong with a plan, "" for nothing."""
    if not len(plan):
        return "it has no rows"
    for name in ("study", "version", "completion_code", "task"):
        if plan[name].nunique() > 1:
            return f"column '{name}' holds several values"
    if plan["task"].iloc[0] not in TASKS:
        return f"unknown task {shown(plan['task'].iloc[0], 60)}"
    simulation = plan["task"].iloc[0] == "simulation"
    for page in plan.to_dict("records"):
        if not isinstance(page["choices"], list) or not all(isinstance(choice, str) for choice in page["choices"]):
            return f"the choices of text {shown(page['text'], 60)} are not texts"
        asked, options = page["expected"], page["choices"] if simulation else SCALE
        if (page["is_check"] or simulation) and (pd.isna(asked) or not 1 <= asked <= len(options)):
            return f"column 'expected' of text {shown(page['text'], 60)} is not one of its points"
    return ""
