"""A study in which people judge explanations: draw the texts, plan who rates what, write the forms.

    study = Study("cqa-2026", consent="…")
    pool, left_out = eligible_texts(predictions, questions)
    texts = draw_texts(pool, questions_needed(4, n_raters=24, items_per_rater=12, raters_per_text=2))
    plan = draw_plan(study, texts, n_raters=24, items_per_rater=12, raters_per_text=2)
    plan = write_study(folder, study, plan, texts)

Everything is drawn from seeds. The plan is the blinding key: only it joins a text to its method, and no file for
raters holds a method's name or a seed (with the seed and this code one could draw the ids again).
`kdutils.evaluation.ratings` reads the answers back.

The five statements cover the constructs of Hendriks et al. (2025), in words of our own:

- plausibility and contrastiveness: Hebenstreit, Praas and Samwald (2023), arXiv:2312.10059;
- understandability and completeness: Holzinger, Carrington and Müller (2020), System Causability Scale;
- satisfaction: Hoffman, Mueller, Klein and Litman (2023), Measures for explainable AI.

The task `simulation` is forward simulation (Doshi-Velez and Kim 2017; Hase and Bansal 2020): the rater reads
question and explanation and says what the model answered.
"""

import base64
import csv
import hashlib
import html
import io
import json
import math
import re
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from kdutils.errors import StudyError
from kdutils.runs import write_text, written_whole

FORM = Path(__file__).parent / "form"
SCALE = ("strongly disagree", "disagree", "neither agree nor disagree", "agree", "strongly agree")
CONSTRUCTS = {
    "plausibility": "The explanation makes sense: its reasoning is sound and it does not contradict itself.",
    "understandability": "I understand what the explanation says about this question and its choices.",
    "completeness": "The explanation mentions everything that matters for the answer, in enough detail.",
    "satisfaction": "I am satisfied with the way in which the model justifies its answer.",
    "contrastiveness": "The explanation shows why this answer was chosen and not one of the others.",
}
TASKS = {"rating": CONSTRUCTS, "simulation": {"simulation": "Which answer did the model give?"}}
ANSWERED = {  # which questions may be drawn, by what the compared students answered
    "all_right": "every student was right", "any_right": "at least one student was right",
    "same": "every student gave the same answer", "any": "whatever was answered"}
MASKED = ("none", "answer", "choices")
NO_ANSWER = "(no answer could be read)"
GAP = "[…]"  # what stands in an explanation where an answer was masked
BASELINE = "no explanation"  # the method label of questions shown without an explanation
ASKABLE = {  # personal data that a form may ask for; an empty list is a free text
    "age": ["18 to 24", "25 to 34", "35 to 44", "45 to 54", "55 to 64", "65 or older"],
    "gender": ["woman", "man", "another"],
    "education": ["no degree", "school leaving certificate", "vocational training", "bachelor", "master", "doctorate"],
    "country": [],
}
CHECK_CHOICES = ["river", "candle", "ladder", "pillow", "engine"]  # of an attention check in a simulation
CHECKS = {"rating": (1, 2, 4, 5), "simulation": (1, 2, 3, 4, 5)}  # what a check may ask for: never the middle

TITLES = {"rating": "How good are these explanations?", "simulation": "What did the model answer?"}
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
TEXT_COLUMNS = ["text", "question", "dataset", "method", "student_seed", "correct", "choices",
                "asked", "answer", "gold", "explanation"]
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True)
class Study:
    """What raters read around the texts, and what they are asked. Texts are plain; an empty line parts paragraphs."""

    name: str  # goes into file names: letters, digits, dot, dash
    task: str = "rating"  # or simulation
    title: str = ""  # "" takes that of TITLES
    instructions: str = ""  # "" takes form/instructions_<task>.txt
    consent: str = ""  # "" asks for no consent: put the text that your ethics board approved
    return_to: str = ""  # where raters send their file
    ask: tuple = ()  # keys of ASKABLE; nothing personal is asked by default

    def __post_init__(self):
        if not _NAME.fullmatch(self.name):
            raise StudyError(f"study {self.name!r}: a name is made of letters, digits, dots and dashes")
        _one_of("task", self.task, TASKS)
        for key in self.ask:
            _one_of("ask", key, ASKABLE)


def _one_of(name, value, known):
    if value not in known:
        raise StudyError(f"{name}: {value!r} is none of {', '.join(known)}")


# Draw -------------------------------------------------------------------------------------------------------------


def label_methods(predictions):
    """Return predictions with `method` naming all that is compared: method, prompting, student, teacher where
    more than one of them occurs (columns of comparing.CELL)."""
    varying = [name for name in ("prompting", "student", "teacher")
               if name in predictions and predictions[name].nunique() > 1]
    labels = predictions[["method", *varying]].astype(str).agg(" · ".join, axis=1)
    return predictions.assign(method=labels)


def as_method(explanations, questions, method, split="test"):
    """Return a table of tables.EXPLANATIONS as predictions of `method`, so that a teacher is rated next to students."""
    table = explanations[explanations["text"].notna()].drop_duplicates("id")
    gold = questions.loc[questions["split"] == split, ["id", "split", "answer"]]
    table = table.merge(gold, on="id", suffixes=("", "_gold"))
    right = table["answer"] == table["answer_gold"]
    return pd.DataFrame({"id": table["id"], "split": table["split"], "seed": 0, "answer": table["answer_gold"],
                         "generated": table["answer"], "predicted": table["answer"], "correct": right, "exact": right,
                         "explanation": table["text"], "method": method})


def eligible_texts(predictions, questions, answered="all_right", student_seeds="lowest", task="rating", seed=0):
    """Return (pool, left_out): the texts that may be rated, and why questions are left out with their number.

    `predictions`: tables.PREDICTIONS of all compared students with a column method (and dataset, else "-").
    `questions`: tables.QUESTIONS. `student_seeds`: "lowest" takes one student per method, "drawn" draws one for each
    text, so that a method is not mistaken for one lucky student. A question is in the pool with every method or
    with none. The pool has TEXT_COLUMNS but `text`, and `position` of the gold answer and `n_choices`.
    """
    _one_of("answered", answered, ANSWERED)
    _one_of("student_seeds", student_seeds, ("lowest", "drawn"))
    _one_of("task", task, TASKS)
    if not questions["id"].is_unique:
        raise StudyError("questions: an id stands twice; data sets that share ids cannot be drawn from together")
    asked = questions.set_index("id")
    unknown = set(predictions["id"]) - set(asked.index)
    if unknown:
        raise StudyError(f"predictions: question {min(unknown)!r} is not in the table of questions")
    if "dataset" in predictions:  # a teacher's texts may lack it
        predictions = predictions.assign(dataset=predictions.groupby("id")["dataset"].transform("first").fillna("-"))
    drawn = student_seeds == "drawn"
    ordered = predictions.sample(frac=1, random_state=seed) if drawn else predictions.sort_values("seed")
    chosen = ordered.drop_duplicates(["method", "id"]).sort_values(["id", "method"])
    for method, group in chosen.groupby("method"):
        if not group["explanation"].str.strip().any():
            raise StudyError(f"method {method!r} writes no explanations: leave it out of the study")
    n_methods, rows, left_out = chosen["method"].nunique(), [], {}
    for key, group in chosen.groupby("id", sort=True):
        item = asked.loc[key]
        reason = _why_not(group, item, n_methods, answered, task)
        if reason:
            left_out[reason] = left_out.get(reason, 0) + 1
        else:
            rows += [_pool_row(row, key, item) for row in group.to_dict("records")]
    if not rows:
        raise StudyError(f"no question is left to draw from: {left_out}; another value of `answered` allows more")
    return pd.DataFrame(rows), left_out


def _why_not(group, item, n_methods, answered, task):
    """Return why a question cannot be used, "" where it can."""
    if len(group) < n_methods:
        return "not answered by every method"
    if not group["explanation"].str.strip().all():
        return "a method wrote no explanation"
    fits = {"all_right": group["correct"].all(), "any_right": group["correct"].any(),
            "same": group["predicted"].nunique() == 1 and group["predicted"].iloc[0] != "", "any": True}
    if not fits[answered]:
        return f"not: {ANSWERED[answered]}"
    if task == "simulation" and not set(group["predicted"]) <= set(item["choices"]):
        return "an answer that is none of the choices"
    return ""


def _pool_row(row, key, item):
    choices = list(item["choices"])
    return {"question": key, "dataset": row.get("dataset", "-"), "method": row["method"],
            "student_seed": int(row["seed"]), "correct": bool(row["correct"]), "choices": choices,
            "asked": item["question"], "answer": row["predicted"], "gold": item["answer"],
            "explanation": row["explanation"].strip(),
            "position": choices.index(item["answer"]) if item["answer"] in choices else -1, "n_choices": len(choices)}


def draw_texts(pool, count, strata=(), masked="none", baseline=False, seed=0):
    """Return the texts of `count` questions drawn from a pool, one for each method: a frame with TEXT_COLUMNS.

    `strata`: columns of the pool (dataset, position, n_choices, correct …); the drawn questions are spread over
    their values as evenly as the pool allows. `masked`: "answer" puts GAP in the place of the student's answer,
    "choices" of every choice. `baseline` adds the method BASELINE, which shows no explanation: the measure of a
    simulation without one; it needs questions to which all students gave the same answer.
    """
    _one_of("masked", masked, MASKED)
    _check_strata(pool, list(strata))
    generator = np.random.default_rng([seed, 1])
    asked = pool.drop_duplicates("question").sample(frac=1, random_state=generator)
    if count > len(asked):
        raise StudyError(f"{count} questions are wanted and {len(asked)} can be drawn from; "
                         "questions_needed with `available` says which sizes would work")
    groups = [list(group["question"]) for _, group in asked.groupby(list(strata), sort=False)] if len(strata) else []
    rounds = zip_longest(*groups) if groups else [asked["question"]]
    chosen = [key for line in rounds for key in line if key is not None][:count]
    texts = pool[pool["question"].isin(set(chosen))].copy()
    if baseline:
        texts = pd.concat([texts, _baseline(texts)])
    texts["explanation"] = [_mask(*row, masked) for row in texts[["explanation", "answer", "choices"]].to_numpy()]
    for name in ("asked", "answer", "gold", "explanation"):
        texts[name] = texts[name].map(printable)
    texts["choices"] = [[printable(choice) for choice in choices] for choices in texts["choices"]]
    texts["text"] = _new_ids(len(texts), generator)
    return texts[TEXT_COLUMNS].sort_values("text", ignore_index=True)


def _check_strata(pool, strata):
    for name in strata:
        if name not in pool.columns:
            raise StudyError(f"strata: {name!r} is no column of the pool: {', '.join(pool.columns)}")
        if pool.groupby("question")[name].nunique(dropna=False).max() > 1:
            raise StudyError(f"strata: {name!r} differs between the methods of one question")


def _baseline(texts):
    if (texts.groupby("question")["answer"].nunique() > 1).any():
        raise StudyError("baseline: students answered differently; draw with answered 'all_right' or 'same'")
    return texts.drop_duplicates("question").assign(method=BASELINE, explanation="", student_seed=-1)


def _mask(explanation, answer, choices, masked):
    words = {"none": [], "answer": [answer], "choices": [answer, *choices]}[masked]
    for word in sorted({word for word in words if word.strip()}, key=len, reverse=True):
        explanation = re.sub(rf"(?<!\w){re.escape(word)}(?!\w)", GAP, explanation, flags=re.IGNORECASE)
    return explanation


def printable(text):
    """Return `text` with control characters and broken characters as U+FFFD; line ends become one newline."""
    return _UNPRINTABLE.sub("\ufffd", str(text).replace("\r\n", "\n").replace("\r", "\n"))


def _new_ids(count, generator):
    """Return ids of eight consonants: no words, and nothing that a spreadsheet takes for a number or a date."""
    found = {}
    while len(found) < count:
        found["".join(generator.choice(list("bcdfghjklmnpqrstvwxz"), 8))] = True
    return list(found)


# Plan -------------------------------------------------------------------------------------------------------------


def questions_needed(n_methods, n_raters, items_per_rater, raters_per_text=1, available=None):
    """Return how many questions a balanced plan rates: n_raters × items_per_rater / (raters_per_text × n_methods).

    Raises StudyError, with numbers that would work, when no plan shows each rater every method equally often and
    each text to the same number of raters, or when it needs more questions than are `available`.
    """
    sizes = {"n_raters": n_raters, "items_per_rater": items_per_rater, "raters_per_text": raters_per_text}
    for name, value in {"n_methods": n_methods, **sizes}.items():
        if value < 1:
            raise StudyError(f"{name} is {value}: at least 1 is needed")
    fault = _fault(n_methods, available, **sizes)
    if fault:
        raise StudyError(f"{fault}; {_what_works(n_methods, available, sizes)}")
    return n_raters * items_per_rater // (raters_per_text * n_methods)


def size_fault(task, n_methods, n_raters, texts_per_method, raters_per_text, checks):
    """Return why no balanced plan has these sizes, with numbers that would work, "" where one has."""
    items, kinds = texts_per_method * n_methods, len(CHECKS[task])
    try:
        questions_needed(n_methods, n_raters, items, raters_per_text)
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
    if not 0 <= checks <= min(len(kinds), items_per_rater - 1):
        raise StudyError(f"checks {checks}: 0 to {min(len(kinds), items_per_rater - 1)} would work")
    generator = np.random.default_rng([seed, 2])
    seen = _who_sees_what(n_raters, len(questions), items_per_rater, generator)
    shown = _with_which_method(seen, len(methods), raters_per_text, generator)
    sequences = _sequences(n_raters, items_per_rater, len(methods), generator)
    rows = {(row["question"], row["method"]): row for row in texts.to_dict("records")}
    check_ids = dict(zip(kinds, _new_ids(len(kinds), generator), strict=True))
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
            frame = pd.read_csv(path, dtype=str, keep_default_na=False).astype(object)
            for name in ("student_seed", "expected"):
                frame[name] = frame[name].replace("", None)
            for name in ("is_check", "correct"):
                frame[name] = frame[name].map({"True": True, "False": False, "": None})
            frame["choices"] = frame["choices"].map(json.loads)
        else:
            frame = pq.read_table(path).to_pandas()
            frame["choices"] = frame["choices"].map(list)
        return _as_plan(frame)
    except KeyError as error:
        raise StudyError(f"{path}: column {error} is missing from a plan") from error
    except (pa.ArrowException, OSError, ValueError, TypeError, AttributeError) as error:
        raise StudyError(f"{path}: not a readable plan ({str(error).splitlines()[0]})") from error


# Write ------------------------------------------------------------------------------------------------------------


def write_study(folder, study, plan, texts):
    """Write everything below `folder` and return the plan with its version.

    ``form.html`` for raters, ``potato/`` a project for the Potato server, ``survey/`` a table for survey tools, and
    ``key/`` (plan and texts with their methods), which no rater may see.
    """
    folder = Path(folder)
    content = form_content(study, plan, texts)
    plan = plan.assign(version=content["version"])
    write_text(folder / "form.html", render_form(content))
    _write_potato(folder / "potato", content)
    _write_survey(folder / "survey", content)
    write_plan(folder / "key", plan)
    with written_whole(folder / "key" / "texts.parquet") as temporary:
        pq.write_table(pa.Table.from_pandas(texts, preserve_index=False), temporary)
    return plan


def write_plan(folder, plan):
    """Write the blinding key as plan.parquet and plan.csv."""
    with written_whole(Path(folder) / "plan.parquet") as temporary:
        pq.write_table(pa.Table.from_pandas(plan, schema=PLAN, preserve_index=False), temporary)
    table = plan.assign(choices=plan["choices"].map(lambda choices: json.dumps(list(choices), ensure_ascii=False)))
    write_text(Path(folder) / "plan.csv", table.to_csv(index=False))


def form_content(study, plan, texts):
    """Return all that raters are shown, as plain values, with its checksum as `version`; no method, no seed."""
    shown = {row["text"]: {"question": row["asked"], "choices": list(row["choices"]),
                           "answer": (row["answer"] or NO_ANSWER) if study.task == "rating" else "",
                           "explanation": row["explanation"]}
             for row in texts.to_dict("records")}
    for row in plan[plan["is_check"]].drop_duplicates("text").to_dict("records"):
        shown[row["text"]] = _check_text(study.task, row["expected"])
    instructions = paragraphs(_form_file(f"instructions_{study.task}.txt"))
    if not plan["is_check"].any():
        instructions.pop()  # the paragraph about attention checks
    content = {
        "study": study.name, "task": study.task, "title": study.title or TITLES[study.task],
        "instructions": paragraphs(study.instructions) or instructions,
        "consent": paragraphs(study.consent), "return_to": study.return_to,
        "ask": {key: ASKABLE[key] for key in study.ask}, "items": TASKS[study.task], "scale": list(SCALE),
        "texts": dict(sorted(shown.items())),
        "orders": {rater: list(pages.sort_values("position")["text"]) for rater, pages in plan.groupby("rater")}}
    return {**content, "version": checksum(content)[:16]}


def _check_text(task, expected):
    if task == "simulation":
        return {"question": "This page only checks that pages are read.", "choices": CHECK_CHOICES, "answer": "",
                "explanation": f"Please choose “{CHECK_CHOICES[expected - 1]}”."}
    return {"question": "This page only checks that pages are read.", "choices": [], "answer": "",
            "explanation": f"Please choose “{SCALE[expected - 1]}” for each of the {len(CONSTRUCTS)} statements."}


def paragraphs(text):
    """Return the paragraphs of a plain text, each on one line."""
    return [" ".join(part.split()) for part in re.split(r"\n\s*\n", printable(text)) if part.strip()]


def canonical(value):
    """Return `value` as JSON with sorted keys and no spaces: what checksums of Python and of the form are taken of."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def checksum(value):
    """Return the SHA-256 of a plain value or a text: shows accidental changes; who wants to cheat can recompute it."""
    text = value if isinstance(value, str) else canonical(value)
    return hashlib.sha256(text.encode("utf-8", errors="surrogatepass")).hexdigest()


def render_form(content):
    """Return the form as one HTML page that fetches nothing: its policy allows its own style and script alone."""
    import jinja2

    style, script = _form_file("style.css"), _form_file("form.js")
    data = json.dumps(content).translate({ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&"})
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(FORM), autoescape=True, trim_blocks=True,
                                     lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    return environment.get_template("form.html.j2").render(
        content=content, data=data, style=style, script=script, style_hash=_source_hash(style),
        script_hash=_source_hash(script))


def _form_file(name):
    return (FORM / name).read_text(encoding="utf-8")


def _source_hash(text):
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def shown_choices(text):
    """Return the choices of a text, lettered from A, one a line; [] for none."""
    return [f"{chr(65 + place)}. {choice}" for place, choice in enumerate(text["choices"])]


def _write_potato(folder, content):
    """Write a project for Potato 2 (potato-annotation; tried with 2.12.1): fixed order for each rater by `batch`.

    Potato shows texts as HTML and runs scripts in them, so they are escaped here.
    """
    import yaml

    raters = list(content["orders"])
    config = {
        "annotation_task_name": content["title"], "task_dir": ".", "data_files": ["data/texts.jsonl"],
        "item_properties": {"id_key": "id", "text_key": "text"}, "output_annotation_dir": "annotation_output/",
        "user_config": {"allow_all_users": False, "users": raters},
        "require_password": False, "assignment_strategy": "batch", "max_annotations_per_item": -1,
        "max_annotations_per_user": max(map(len, content["orders"].values())), "jumping_to_id_disabled": True,
        "batch_assignment": {"groups": [{"name": rater, "annotators": [rater], "instances": order}
                                        for rater, order in content["orders"].items()]},
        "phases": {"order": ["instructions", "annotation"],
                   "instructions": {"type": "instructions", "file": "instructions.html"}},
        "annotation_schemes": _potato_schemes(content)}
    write_text(folder / "config.yaml", yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
    lines = [json.dumps({"id": key, "text": _potato_text(text, content)}) for key, text in content["texts"].items()]
    write_text(folder / "data" / "texts.jsonl", "\n".join(lines) + "\n")
    parts = [*content["instructions"], *content["consent"]]
    write_text(folder / "instructions.html", "".join(f"<p>{html.escape(part)}</p>\n" for part in parts))
    about = f"Study {content['study']}, form {content['version']}."
    write_text(folder / "README.txt", f"{about}\n{_form_file('potato.txt')}")


def _potato_schemes(content):
    required = {"label_requirement": {"required": True}}
    if content["task"] == "simulation":
        letters = [chr(65 + place) for place in range(max(len(text["choices"]) for text in content["texts"].values()))]
        return [{"annotation_type": "radio", "name": name, "description": statement, "labels": letters, **required}
                for name, statement in content["items"].items()]
    return [{"annotation_type": "likert", "name": name, "description": statement, "size": len(SCALE),
             "min_label": SCALE[0], "max_label": SCALE[-1], **required} for name, statement in content["items"].items()]


def _potato_text(text, content):
    parts = [f"<b>Question</b><br>{_as_html(text['question'])}"]
    if text["choices"]:
        parts.append("<br>".join(map(_as_html, shown_choices(text))))
    if text["answer"]:
        parts.append(f"<b>The model’s answer</b><br>{_as_html(text['answer'])}")
    parts.append(f"<b>The model’s explanation</b><br>{_as_html(text['explanation'] or '(no explanation is shown)')}")
    return "<br><br>".join(parts)


def _as_html(text):
    return html.escape(text).replace("\n", "<br>")


def _write_survey(folder, content):
    """Write one row per rater and page, scores left empty, and what the columns mean."""
    columns = ["study", "version", "rater", "position", "text", "question", "choices", "answer", "explanation",
               *content["items"]]
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(columns)
    for rater, order in content["orders"].items():
        for position, key in enumerate(order, 1):
            text = content["texts"][key]
            words = [text["question"], " | ".join(shown_choices(text)), text["answer"], text["explanation"]]
            writer.writerow([content["study"], content["version"], rater, position, key, *map(_no_formula, words),
                             *[""] * len(content["items"])])
    write_text(folder / "survey.csv", file.getvalue())
    meaning = {"simulation": "the letter, number or text of the choice that the model took"} \
        if content["task"] == "simulation" else {name: f"1 to {len(SCALE)} ({SCALE[0]} to {SCALE[-1]}): {statement}"
                                                 for name, statement in content["items"].items()}
    lines = "".join(f"{name}: {about}\n" for name, about in meaning.items())
    write_text(folder / "columns.txt", _form_file("survey.txt") + lines)


def _no_formula(text):
    """Return `text` with an apostrophe before what a spreadsheet would run as a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t") else text
