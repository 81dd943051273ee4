"""Who rates which text in which order: the plan of a study with people, drawn, checked, read back."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from kdutils.errors import StudyError
from kdutils.human_study.design import SCALE, TASKS, TEXT_COLUMNS, brief, check_whole, new_ids, printable
from kdutils.runs import unescape_cell

CHECK_CHOICES = ["river", "candle", "ladder", "pillow", "engine"]  # of an attention check in a simulation
CHECKS = {"rating": (1, 2, 4, 5), "simulation": (1, 2, 3, 4, 5)}  # what a check may ask for: never the middle
PLAN = pa.schema([
    ("study", pa.string()),
    ("version", pa.string()),  # checksum of what raters are shown; "" until the study is written
    ("task", pa.string()),  # rating or simulation
    ("rater", pa.string()),  # code that a rater enters
    ("position", pa.int64()),  # 1 is the first page of the rater
    ("text", pa.string()),  # opaque id
    ("question", pa.string()),  # id of the question, "" for a check
    ("dataset", pa.string()),
    ("method", pa.string()),  # "" for a check
    ("student_seed", pa.int64()),  # null for a check
    ("correct", pa.bool_()),  # was the student right; null for a check
    ("characters", pa.int64()),  # length of the explanation
    ("is_check", pa.bool_()),
    ("expected", pa.int64()),  # point or choice (from 1) that a check asks for; in a simulation what the model answered
    ("choices", pa.list_(pa.string())),
])


# Plan -------------------------------------------------------------------------------------------------------------


def questions_needed(n_methods, n_raters, items_per_rater, raters_per_text=1, available=None):
    """Return how many questions a balanced plan rates: n_raters × items_per_rater / (raters_per_text × n_methods).

    Raises StudyError, with numbers that would work, when no plan shows each rater every method equally often and
    each text to the same number of raters, or when it needs more questions than are `available`.
    """
    sizes = {"n_raters": n_raters, "items_per_rater": items_per_rater, "raters_per_text": raters_per_text}
    for name, value in {"n_methods": n_methods, **sizes}.items():
        check_whole(name, value, 1)
    fault = _fault(n_methods, available, **sizes)
    if fault:
        raise StudyError(f"{fault}; {_what_works(n_methods, available, sizes)}")
    return n_raters * items_per_rater // (raters_per_text * n_methods)


def size_fault(task, n_methods, n_raters, texts_per_method, raters_per_text, checks, available=None):
    """Return why no balanced plan has these sizes, with numbers that would work, "" where one has.

    `available`: how many questions there are at most, None where that is not known.
    """
    items, kinds = texts_per_method * n_methods, len(CHECKS[task])
    try:
        questions_needed(n_methods, n_raters, items, raters_per_text, available)
    except StudyError as error:
        return str(error)
    most = min(kinds, items - 1)
    return "" if 0 <= checks <= most else f"checks {checks}: 0 to {most} would work"


def _fault(n_methods, available, n_raters, items_per_rater, raters_per_text):
    """Return why sizes make no balanced plan, "" where they do."""
    needed, rest = divmod(n_raters * items_per_rater, raters_per_text * n_methods)
    if items_per_rater % n_methods:
        return f"items_per_rater {items_per_rater} does not show each of {n_methods} methods equally often"
    if raters_per_text > n_raters:
        return f"raters_per_text {raters_per_text} is more than there are raters"
    if rest:
        return (f"{n_raters} raters × {items_per_rater} items are not {raters_per_text} for each text of "
                f"{n_methods} methods")
    if available is not None and needed > available:
        return f"{needed} questions are needed and {available} can be drawn from"
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


def draw_plan(study, texts, n_raters, items_per_rater, raters_per_text=1, checks=1, seed=0):
    """Return the plan: one row per rater and page, columns of PLAN. `texts` come from draw_texts.

    - Each rater sees each method equally often, and each text is seen by `raters_per_text` raters.
    - No rater sees a text twice, nor a question twice unless a rater has more pages than there are questions.
    - Methods come in blocks, each method once; the blocks are rows of a Williams square (Williams 1949): over raters,
      each method stands equally often at each position and, within blocks, after each other one.
    - `checks` attention checks stand between the texts, at most one of a kind.

    Raises StudyError, with numbers that would work, for a plan that cannot be.
    """
    methods = sorted(texts["method"].unique())
    questions = sorted(texts["question"].unique())
    _check_sizes(study, texts, methods, questions, n_raters, items_per_rater, raters_per_text)
    kinds = CHECKS[study.task]
    check_whole("checks", checks, 0)
    if not 0 <= checks <= min(len(kinds), items_per_rater - 1):
        raise StudyError(f"checks {checks}: 0 to {min(len(kinds), items_per_rater - 1)} would work")
    generator = np.random.default_rng([seed, 2])
    seen = _who_sees_what(n_raters, len(questions), items_per_rater, generator)
    shown = _with_which_method(seen, len(methods), raters_per_text, generator)
    sequences = _sequences(n_raters, items_per_rater, len(methods), generator)
    rows = {(row["question"], row["method"]): row for row in texts.to_dict("records")}
    check_ids = dict(zip(kinds, new_ids(len(kinds), generator), strict=True))
    assert not set(check_ids.values()) & set(texts["text"])
    plan = []
    for number in range(n_raters):
        order = _order(shown[number], sequences[number], generator)
        pages = [_plan_row(study, rows[questions[question], methods[method]]) for question, method in order]
        chosen = generator.permutation(kinds)[:checks]
        for place, kind in zip(_check_places(len(pages), checks, generator), chosen, strict=True):
            pages.insert(place, _check_row(study, int(kind), check_ids[kind]))
        code = f"R{number + 1:03d}{generator.choice(list('ABCDEFGHJKLMNPQRSTUVWXYZ'))}"
        plan += [{**page, "rater": code, "position": place} for place, page in enumerate(pages, 1)]
    return _as_plan(pd.DataFrame(plan))


def _check_sizes(study, texts, methods, questions, n_raters, items_per_rater, raters_per_text):
    if texts.duplicated(["question", "method"]).any() or len(texts) != len(methods) * len(questions):
        raise StudyError("texts: every question needs exactly one text of each method")
    if study.task == "simulation" and not all(map(_among, texts["answer"], texts["choices"])):
        raise StudyError("texts: an answer is none of the choices; take eligible_texts with task 'simulation'")
    needed = questions_needed(len(methods), n_raters, items_per_rater, raters_per_text)
    if needed != len(questions):
        raters, rest = divmod(len(questions) * len(methods) * raters_per_text, items_per_rater)
        other = f", or plan n_raters {raters}" if not rest and raters >= raters_per_text else ""
        raise StudyError(f"{n_raters} raters × {items_per_rater} items with {raters_per_text} for each text of "
                         f"{len(methods)} methods need {needed} questions, and texts of {len(questions)} were drawn: "
                         f"draw {needed}{other}")


def _among(answer, choices):
    return answer in choices


def _who_sees_what(n_raters, n_questions, items, generator):
    """Return how often each rater sees each question, (n_raters, n_questions): equal sums, entries at most 1 apart."""
    base, rest = divmod(items, n_questions)
    extra = np.zeros((n_raters, n_questions), dtype=int)
    for number in range(n_raters):
        extra[number, (number * rest + np.arange(rest)) % n_questions] = 1
    extra = extra[generator.permutation(n_raters)][:, generator.permutation(n_questions)]
    edges = np.argwhere(extra)
    for first, second in generator.integers(0, max(len(edges), 1), (10 * len(edges), 2)):
        (rater, question), (other, its) = edges[first], edges[second]
        if not extra[rater, its] and not extra[other, question]:  # swap: all sums stay as they are
            extra[rater, question] = extra[other, its] = 0
            extra[rater, its] = extra[other, question] = 1
            edges[first, 1], edges[second, 1] = its, question
    return base + extra


def _with_which_method(seen, n_methods, raters_per_text, generator):
    """Return for each rater the (question, method) pairs: every rater each method equally often, every question too.

    This is a balanced colouring of the edges of a bipartite graph, which always exists (de Werra 1975). One method
    after the other is a transport problem between raters and questions, whose vertices are whole numbers; random
    costs make it a random one of them.
    """
    from scipy.optimize import linprog
    from scipy.sparse import coo_array

    pairs = np.argwhere(seen)
    left = seen[pairs[:, 0], pairs[:, 1]]
    each = seen.sum(axis=1)[0] // n_methods
    order = np.arange(len(pairs))
    incidence = coo_array((np.ones(2 * len(pairs)), (np.r_[pairs[:, 0], len(seen) + pairs[:, 1]], np.r_[order, order])))
    sums = np.r_[np.full(len(seen), each), np.full(seen.shape[1], raters_per_text)]
    shown = [[] for _ in seen]
    for method in range(n_methods):
        methods_left = n_methods - method
        solution = linprog(generator.random(len(pairs)), A_eq=incidence.tocsr(), b_eq=sums, method="highs-ds",
                           bounds=np.c_[left // methods_left, -(-left // methods_left)])
        taken = np.rint(solution.x).astype(int)
        assert np.array_equal(incidence @ taken, sums), "the transport problem has no whole-numbered solution"
        for rater, question in pairs[taken > 0]:
            shown[rater].append((int(question), method))
        left = left - taken
    return shown


def _sequences(n_raters, items, n_methods, generator):
    """Return for each rater the methods in order: row (rater + block) of a Williams square, mirrored for odd ones."""
    zigzag = [(place + 1) // 2 if place % 2 else -(place // 2) for place in range(n_methods)]
    names = generator.permutation(n_methods)
    sequences = []
    for rater in range(n_raters):
        blocks = [[int(names[(step + rater + block) % n_methods]) for step in zigzag]
                  for block in range(items // n_methods)]
        mirrored = n_methods % 2 and (rater // n_methods) % 2
        sequences.append([method for block in blocks for method in (block[::-1] if mirrored else block)])
    return sequences


def _order(pairs, sequence, generator, tries=20):
    """Return the rater's (question, method) pairs in the order of methods; a question seen twice is spread apart."""
    best = (-1, None)
    for _ in range(tries):
        waiting = {}
        for place in generator.permutation(len(pairs)):
            waiting.setdefault(pairs[place][1], []).append(pairs[place][0])
        order = [(waiting[method].pop(), method) for method in sequence]
        gap = _smallest_gap([question for question, _ in order])
        best = max(best, (gap, order), key=lambda found: found[0])
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
    """Return where checks go in, last first so that earlier places stay true; never before the first text."""
    places = [round(n_pages * number / (checks + 1)) + generator.integers(-1, 2) for number in range(1, checks + 1)]
    return sorted((int(np.clip(place, 1, n_pages - 1)) for place in places), reverse=True)


def _plan_row(study, text):
    expected = text["choices"].index(text["answer"]) + 1 if study.task == "simulation" else None
    return {"study": study.name, "version": "", "task": study.task, "is_check": False, "expected": expected,
            "characters": len(text["explanation"]),
            **{name: text[name] for name in TEXT_COLUMNS if name in PLAN.names}}


def _check_row(study, kind, text):
    return {"study": study.name, "version": "", "task": study.task, "is_check": True, "expected": kind, "characters": 0,
            "text": text, "question": "", "dataset": "-", "method": "", "student_seed": None, "correct": None,
            "choices": CHECK_CHOICES if study.task == "simulation" else []}


def _as_plan(frame):
    """Return `frame` with the columns and types of PLAN."""
    plan = pd.DataFrame({field.name: frame[field.name] for field in PLAN})
    plan = plan.astype({field.name: "str" for field in PLAN if field.type == pa.string()})
    for name in ("position", "characters", "student_seed", "expected"):
        plan[name] = pd.array([None if pd.isna(value) else int(value) for value in plan[name]], dtype="Int64")
    plan["correct"] = pd.array([None if pd.isna(value) else bool(value) for value in plan["correct"]], dtype="boolean")
    plan["is_check"] = plan["is_check"].astype(bool)
    return plan.reset_index(drop=True)


def plan_facts(plan):
    """Return what a plan keeps: counts as (smallest, largest), and how often something is seen twice by one rater."""
    shown = plan[~plan["is_check"]]
    per_method = shown.groupby(["rater", "method"]).size()
    numbered = shown.assign(place=shown.groupby("rater").cumcount())
    at_place = numbered.groupby(["place", "method"]).size().unstack(fill_value=0)
    return {"raters": int(shown["rater"].nunique()), "texts": int(shown["text"].nunique()),
            "questions": int(shown["question"].nunique()), "methods": int(shown["method"].nunique()),
            "ratings_per_text": _extent(shown.groupby("text").size()),
            "texts_per_method_and_rater": _extent(per_method),
            "same_text_twice": int(shown.duplicated(["rater", "text"]).sum()),
            "same_question_twice": int(shown.duplicated(["rater", "question"]).sum()),
            "method_per_position_spread": int((at_place.max(axis=1) - at_place.min(axis=1)).max()),
            "checks_per_rater": _extent(plan.groupby("rater")["is_check"].sum())}


def _extent(counts):
    return [int(counts.min()), int(counts.max())]


def read_plan(path):
    """Return a plan from its Parquet or CSV file; StudyError when it is missing or of another shape."""
    path = Path(path)
    if not path.is_file():
        raise StudyError(f"{path}: no such file; 22_make_human_study writes the plan")
    try:
        if path.suffix == ".csv":
            frame = _plan_of_csv(path)
        else:
            table = pq.read_table(path)
            table.validate(full=True)  # texts are looked at late otherwise
            frame = table.to_pandas()
            frame["choices"] = frame["choices"].map(list)
        plan = _as_plan(frame)
        fault = _plan_fault(plan)
    except KeyError as error:
        raise StudyError(f"{path}: column {error} is missing from a plan") from error
    except (pa.ArrowException, OSError, ValueError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        why = next(iter(printable(error).splitlines()), type(error).__name__)
        raise StudyError(f"{path}: not a readable plan ({why[:200]})") from error
    if fault:
        raise StudyError(f"{path}: not a plan: {fault}")
    return plan


def _plan_of_csv(path):
    """Return a plan.csv as a frame, also one that a spreadsheet saved again: other separators, TRUE for True."""
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
    """Return what makes a plan unusable, "" for nothing."""
    if not len(plan):
        return "it has no rows"
    for name in ("study", "version", "task"):
        if plan[name].nunique() > 1:
            return f"column '{name}' holds several values"
    if plan["task"].iloc[0] not in TASKS:
        return f"unknown task {brief(plan['task'].iloc[0])}"
    simulation = plan["task"].iloc[0] == "simulation"
    for page in plan.to_dict("records"):
        options = page["choices"] if simulation else SCALE
        if not isinstance(options, (list, tuple)) or not all(isinstance(option, str) for option in options):
            return f"the choices of text {brief(page['text'])} are no texts"
        asked = page["expected"]
        if (page["is_check"] or simulation) and (pd.isna(asked) or not 1 <= asked <= len(options)):
            return f"what text {brief(page['text'])} asks for is none of its points"
    return ""
