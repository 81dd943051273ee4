"""The answer of an experiment at one look: three questions, one real question as an example, and what stays open.

Here are the decisions; the wording is in answer.txt.j2. A student and data set on which no cell is above chance has
one statement, that the students did not learn; its differences are not shown. With one seed nothing is said about
methods. All numbers come from the tests and tables of the report (hypotheses, tables, runs_table).
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from kdutils.comparison.contrasts import QUESTIONS
from kdutils.comparison.hypotheses import LEVEL, significant, with_control
from kdutils.comparison.runs_table import (
    BASELINE,
    CELL,
    PROBABLE,
    UNEXPLAINED,
    Inputs,
    add_names,
    in_domain,
    student_label,
)
from kdutils.comparison.summary import FEW_SEEDS, describe, outside, proxy_shares, simulatability, true_shares
from kdutils.comparison.wording import listed, say, signed
from kdutils.stats.accuracy import crossed_test
from kdutils.stats.power import simulate_answers

MOST_STUDENTS = 12  # in the example
ASSUMED, SPREAD = 0.6, 0.015  # before any run: an accuracy, and its standard deviation between seeds
_say = partial(say, "answer")


def statements(accuracies: pd.DataFrame, tests: pd.DataFrame, margin: float = 0.02,
               measures: pd.DataFrame | None = None, teachers: pd.DataFrame | None = None,
               fakes: pd.DataFrame | None = None, missing: Sequence[str | dict] = ()) -> list[dict[str, Any]]:
    """Return one dict per statement: question, verdict, text, sure (how sure it is, and on what it rests), more.

    `text` is a sentence, `sure` has one text per student, and `more` what is read on demand ("" if there is nothing).
    See summary.summarise for the arguments. The statements: does explaining help, does it matter what the explanations
    say, are they true and useful, and what the contrasts show that the experiment wrote out itself; and first, whether
    evaluations are missing and whether students failed to learn. If all students failed, nothing follows.
    """
    places = _places(accuracies, tests)
    failed = [place for place in places if not place["learned"]]
    learned = [place for place in places if place["learned"]]
    said = [{"question": "Is the experiment finished?", "verdict": "No.", "sure": [],
             "text": _say("unfinished", missing=len(missing))}] if missing else []
    said += [{"question": "Did the students learn to answer?", "verdict": "No.",
             "text": " ".join(_say("not_learned", place=place, several=len(places) > 1) for place in failed),
             "sure": []}] if failed else []
    shares = true_shares(measures, teachers), proxy_shares(measures)
    for question, judge in (("explaining", _explaining), ("content", _content), ("truth", _truth)):
        judged = [judge(place, margin, shares, fakes) for place in learned]
        if judged:
            said.append(_combined(question, judged))
    return [{"more": "", **one} for one in said + _written_out(learned)]


def _written_out(places):
    """Return the statement on the planned contrasts that answer none of the questions of every experiment."""
    rows = []
    for place in places:
        tests, told = place["tests"], {*_explaining_rows(place).index, *_content_rows(place).index}
        own = tests[(tests["family"] == "primary") & ~tests["question"].isin(QUESTIONS) & ~tests.index.isin(told)]
        rows += [_with_cells(row, place) for row in describe(own)]
    if not rows:
        return []
    one_seed = max(row["n_seeds"] for row in rows) < 2
    return [{"question": "What do the other planned contrasts show?", "sure": [],
             "verdict": _say("planned_verdict", rows=rows, one_seed=one_seed),
             "text": _say("planned", rows=rows, one_seed=one_seed, several=len(places) > 1)}]


def _places(accuracies, tests):
    """Return a dict per student and data set: its name, cells with a result, tests, and whether any student learned."""
    found = []
    for key, cells in in_domain(accuracies).groupby(["dataset", "student"], sort=False):
        cells = add_names(cells)
        ended, rows = cells[cells["mean"].notna()], tests[(tests[["dataset", "student"]] == list(key)).all(axis=1)]
        chance = rows[rows["comparison"] == "chance"]
        above = set(chance.loc[significant(chance) & (chance["difference"] > 0), "first"])
        learned = len(ended) > 0 and ended["mean"].max() > 0 and (bool(above) or chance.empty)
        found.append({"key": key, "name": student_label(*key), "tests": rows, "learned": learned,
                      "cells": {row["name"]: row for row in ended.to_dict("records")}, "failed": len(ended) == 0,
                      "weak": [name for name in ended["name"] if len(chance) and name not in above],
                      "best": ended["mean"].max() if len(ended) else np.nan,
                      "chance": ended["chance"].max() if len(ended) else np.nan})
    return found


def _controls(place):
    return {name for name, row in place["cells"].items() if row["control_of"]}


def _kinds(place):
    return {name: row["kind"] for name, row in place["cells"].items()}


def _explaining_rows(place):
    """Return the contrasts of students that learn explanations, and no probabilities, with those of answers alone."""
    rows, cells = place["tests"], place["cells"]
    baselines = {name for name, row in cells.items() if row["kind"] == BASELINE}
    others = _controls(place) | {name for name, row in cells.items() if row["kind"] in (*UNEXPLAINED, *PROBABLE)}
    return rows[rows["second"].isin(baselines) & rows["measure"].eq("accuracy") & ~rows["first"].isin(others)]


def _content_rows(place):
    """Return the contrasts of students that learn from the right explanations with their controls."""
    return with_control(place["tests"], _kinds(place))


def _explaining(place, margin, shares, fakes):
    """Judge whether students that learn to explain answer better than those that learn answers alone."""
    return _judged(place, _explaining_rows(place), margin)


def _content(place, margin, shares, fakes):
    """Judge whether students that learn from the right explanations answer better than their controls."""
    return _judged(place, _content_rows(place), margin)


def _judged(place, rows, margin):
    """Return the verdict on some contrasts of accuracy, with what its sentences need.

    Where some are planned, the verdict is on these alone; exploratory ones that differ are `hints`.
    """
    planned = rows["family"] == "primary"
    hints = [row for row in describe(rows[~planned]) if row["significant"] and not row["one_seed"]] \
        if planned.any() else []
    unplanned, rows = not planned.any(), rows[planned] if planned.any() else rows
    described = [_with_cells(row, place) | {
                        "weak": [name for name in (row["first"], row["second"]) if name in place["weak"]]}
                 for row in describe(rows)]
    described = [row for row in described if not row["one_seed"]] or described  # one seed says nothing about methods
    higher = [row for row in described if row["significant"] and row["higher"]]
    lower = [row for row in described if row["significant"] and not row["higher"]]
    if not described:
        verdict = "none"
    elif max(row["n_seeds"] for row in described) < 2:
        verdict = "one_seed"
    elif higher or lower:
        verdict = "mixed" if higher and lower else "higher" if higher else "lower"
    else:
        verdict = "same" if all(row["equivalent"] for row in described) else "open"
    found = [100 * row["detectable"] for row in described if row["detectable"] == row["detectable"]
             and not row["significant"] and not row["equivalent"]]
    return {"place": place["name"], "verdict": verdict, "rows": described, "hints": hints,
            "hint": unplanned and verdict in ("higher", "lower", "mixed"), "margin": 100 * margin,
            "seeds": min((row["n_seeds"] for row in described), default=0), "enough": FEW_SEEDS,
            "detectable": [min(found), max(found)] if found else [],
            "weak": list(dict.fromkeys(name for row in described for name in row["weak"])),
            "differing": list(dict.fromkeys(row["first"] for row in (*higher, *lower)))}


def _with_cells(row, place):
    """Return a contrast with its cells, and what it owes to answers that are none of the choices."""
    one, other = place["cells"][row["first"]], place["cells"][row["second"]]
    return row | {"one": one, "other": other, "outside": outside(one, other)}


def _truth(place, margin, shares, fakes):
    """Judge whether the explanations are true, where that can be checked, and whether they help to foresee answers."""
    true, proxies = (one.get(place["key"], {}) for one in shares)
    cells, teachers = true.get("cells", []), true.get("teachers", [])
    rows, controls = place["tests"], _controls(place)
    cells = [cell for cell in cells if cell["name"] in place["cells"] and cell["name"] not in controls]
    unread = [name for name in true.get("unread", []) if name in place["cells"] and name not in controls]
    foreseen, repeats = simulatability(rows, _kinds(place), fakes) if len(rows) else ([], None)
    useful = [row for row in foreseen if row["verdict"] == "above" and (repeats is None or row["difference"] > repeats)]
    of_all = [cell["wholly_true"] * cell["states_facts"] for cell in cells]  # a text without a statement is not true
    reasons = [cell["true_reason"] for cell in cells if cell["true_reason"] == cell["true_reason"]]
    if cells and all(min(cell["wholly_true"], cell["states_facts"]) >= 0.9 for cell in cells):
        # A true text about something else, such as that of another question, is no reason.
        verdict = "true" if min(reasons, default=1) >= 0.5 else "beside"
    elif cells:
        verdict = "partly" if max(of_all) >= 0.5 else "false"
    else:
        verdict = "useful" if useful else "not_useful" if foreseen else "unknown"
    right = [place["cells"][cell["name"]]["mean"] for cell in cells]
    well = bool(right) and min(right) >= (1 + place["chance"]) / 2
    sizes = list(place["cells"].values())
    return {"place": place["name"], "verdict": verdict, "cells": cells, "teachers": teachers, "right": right,
            "stating": min((cell["states_facts"] for cell in cells), default=np.nan), "reasons": reasons, "well": well,
            "unread": unread, "foreseen": foreseen, "useful": useful,
            "compared": ["the texts of a control"] * any(row["control"] for row in foreseen)
            + ["a text that only repeats the answer"] * (repeats is not None),
            "repeats": "" if repeats is None else signed(repeats, 3),
            "proxies": [cell for cell in proxies if cell["name"] in place["cells"] and cell["name"] not in controls],
            "seeds": max(cell["n_seeds"] for cell in sizes), "questions": max(cell["n_questions"] for cell in sizes)}


def _combined(question, judged):
    """Return the statement on a question: for one student in full, for several which of them has which verdict."""
    if len(judged) == 1:
        one = judged[0]
        sure = [sentence for sentence in [_say(f"{question}_sure", one=one)] if sentence]
        return {"question": _say("question", key=question), "verdict": _say("verdict", question=question, one=one),
                "text": _say(question, one=one), "sure": sure, "more": _say(f"{question}_more", one=one)}
    groups = {}
    for one in judged:
        groups.setdefault(_say("verdict", question=question, one={**one, "differing": []}), []).append(one["place"])
    groups = dict(sorted(groups.items(), key=lambda group: -len(group[1])))
    verdict = next(iter(groups)) if len(groups) == 1 else "It depends."
    return {"question": _say("question", key=question), "verdict": verdict,
            "text": _say("several", groups=groups, count=len(judged)),
            "sure": [" ".join(filter(None, (f"{one['place']}: {_say(question, one=one)}",
                                            _say(f"{question}_sure", one=one), _say(f"{question}_more", one=one))))
                     for one in judged]}


def before_any_run(names: list[str], seeds: int, questions: int, contrasts: int) -> str:
    """Return which difference an experiment of this size can show, before it runs.

    `names`: students and data sets with `questions` test questions (0: not known yet) and `contrasts` primary
    contrasts. The difference is found with probability 0.8 after correction, under the assumptions that the sentence
    states.
    """
    found = expected_detectable(seeds, questions, LEVEL / contrasts) if seeds > 1 and questions else np.nan
    return _say("before", names=names, seeds=seeds, questions=questions, contrasts=contrasts, found=found,
                accuracy=ASSUMED, spread=100 * SPREAD, enough=FEW_SEEDS)


def expected_detectable(seeds: int, questions: int, level: float) -> float:
    """Return the difference in accuracy (0 to 1) that a test at `level` will find with probability 0.8.

    The median of CrossedTest.detectable over simulated answers (stats.power.simulate_answers) of two methods with
    accuracy ASSUMED and a spread between seeds of SPREAD. With few seeds it may be more than an accuracy can rise, and
    above 1. NaN where nothing can be tested.
    """
    generator, found = np.random.default_rng(0), []
    for _ in range(25):
        test = crossed_test(*simulate_answers([ASSUMED] * 2, seeds, questions, [SPREAD] * 2, generator))
        found.append(test.detectable(level) if test else np.nan)
    return float(np.median(found))


def limits(accuracies: pd.DataFrame, tests: pd.DataFrame, runs: pd.DataFrame,
           measures: pd.DataFrame | None = None, few: pd.DataFrame | None = None) -> list[str]:
    """Return sentences on what the experiment cannot say.

    `few`: the rows of teacher.quality.text_table of which many texts cannot be used. Other arguments: see
    summary.summarise.
    """
    own, primary = in_domain(accuracies), tests[tests["family"] == "primary"]
    seeds = int(own["n_seeds"].max())
    found = 100 * primary["detectable"].dropna()
    lost = int(runs["accuracy"].isna().sum())
    said = [_say("few_seeds", seeds=seeds, enough=FEW_SEEDS, found=[found.min(), found.max()] if len(found) else [])] \
        if seeds < FEW_SEEDS else []
    said += [_say("lost", lost=lost, total=len(runs))] if lost else []
    said += [_say("unusable", rows=few.to_dict("records"))] if few is not None and len(few) else []
    said.append(_say("scope", **{key: listed([name for name in own[key].unique() if name != "-"])
                                 for key in ("dataset", "student", "teacher")}))
    checked = measures is not None and "wholly_true" in set(measures["measure"])
    explained = bool((~own["kind"].isin(UNEXPLAINED)).any())
    said += [_say("embedded")] if checked else [_say("unchecked")] if explained else []
    said += [_say("people")] if explained else []
    return said


def differences(accuracies: pd.DataFrame, tests: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of figures.difference_intervals: accuracy of each cell minus that of label_only, in points.

    The highest is first in each group. The group names student, data set and the accuracy of label_only. Left out:
    students that did not learn, and contrasts of one seed, which say nothing about methods.
    """
    frames = [pd.DataFrame(columns=["group", "label", "difference", "low", "high", "significant", "control"])]
    for place in (place for place in _places(accuracies, tests) if place["learned"]):
        level = {name: row["mean"] for name, row in place["cells"].items() if row["kind"] == BASELINE}
        rows = place["tests"]
        rows = rows[rows["second"].isin(level) & rows["measure"].eq("accuracy") & rows["n_seeds"].ge(2)]
        rows = rows.sort_values("difference", ascending=False, kind="stable").drop_duplicates("first")
        points = {key: 100 * rows[key].astype(float) for key in ("difference", "low", "high")}
        if len(rows):
            base = " and ".join(f"{100 * share:.1f} %" for share in level.values())
            frames.append(pd.DataFrame({"group": f"{place['name']} ({BASELINE}: {base} right)", "label": rows["first"],
                                        **points, "significant": significant(rows),
                                        "control": rows["first"].isin(_controls(place))}))
    return pd.concat(frames[1:] or frames, ignore_index=True)


def describe_differences(rows: pd.DataFrame) -> str:
    """Return the alternative text of the figure of `differences`."""
    return _say("figure", rows=rows.to_dict("records"))


def example(accuracies: pd.DataFrame, tests: pd.DataFrame, predictions: pd.DataFrame, inputs: Inputs,
            texts: Mapping[tuple, Mapping[str, str]], scores: pd.DataFrame, seed: int = 0,
            truth: Callable[[str, str, str], dict | None] = lambda *_: None) -> dict[str, Any]:
    """Return one test question with the answer and explanation of a student of each cell, right and wrong marked.

    It is drawn among the questions that some of these students (of the lowest seed of each cell) answered right and
    others wrong, if there are any, on the first data set whose students learned. `texts`: {cell: {question id:
    rationale}}; `scores`: runs_table.read_scores. `truth`: what judges the teacher's text, such as mini_world.truth_of.
    Keys: question, choices, answer, note (how it was drawn), rows (who, answer, explanation and, where it can be
    checked, true).
    """
    places = _places(accuracies, tests)
    key = next((place["key"] for place in places if place["learned"]), places[0]["key"])
    own = in_domain(predictions)
    own = own[(own[["dataset", "student"]] == list(key)).all(axis=1)]
    own = own[own["seed"] == own.groupby(CELL)["seed"].transform("min")]
    shares = own.groupby("id")["correct"].mean()
    differing = sorted(shares.index[(shares > 0) & (shares < 1)])
    drawn = np.random.default_rng(seed).choice(differing or sorted(shares.index))
    order = accuracies.sort_values("mean", ascending=False, kind="stable").set_index(CELL).index
    rows = add_names(own[own["id"] == drawn]).assign(
        place=lambda table: [list(order).index(cell) for cell in table[CELL].itertuples(index=False, name=None)])
    rows = rows.sort_values(["control_of", "place"], key=lambda column: column.ne("") if column.name == "control_of"
                            else column, kind="stable").to_dict("records")
    questions = inputs[tuple(rows[0][key] for key in CELL)][0].set_index("id")
    written = [(f"teacher {row['teacher']}", text) for row in rows
               if (text := texts.get(tuple(row[key] for key in CELL), {}).get(drawn))][:1]
    item = questions.loc[drawn]
    cells = [{"who": who, "answer": "–", "explanation": text} for who, text in written]
    cells += [{"who": row["name"], "answer": _marked(row, item["choices"]), "explanation": row["explanation"] or "–"}
              for row in rows[:MOST_STUDENTS]]
    if "true_share" in scores:
        true = scores[scores["id"] == drawn].set_index([*CELL, "seed"])[["wholly_true", "true_share"]]
        for one, row in zip(cells[len(written):], rows, strict=False):
            known = true.loc[[cell]].iloc[0] if (cell := (*(row[key] for key in CELL), row["seed"])) in true.index \
                else {"true_share": np.nan}
            one["true"] = _truth_mark(known)
        for one in cells[:len(written)]:
            known = truth(one["explanation"], item["question"], item["answer"])
            one["true"] = _truth_mark(known) if known else "–"
    note = _say("drawn", differing=len(differing), total=len(shares), seed=min(row["seed"] for row in rows),
                left_out=max(0, len(rows) - MOST_STUDENTS))
    return {"question": item["question"], "choices": list(item["choices"]), "answer": item["answer"], "note": note,
            "rows": cells}


def _marked(row, choices):
    """Return the answer of a student with its mark; an answer that is none of the choices is called so."""
    other = " (none of the choices)" if row["predicted"] and len(choices) and row["predicted"] not in choices else ""
    return f"{'✓' if row['correct'] else '✗'} {row['predicted'] or '(none)'}{other}"


def _truth_mark(known):
    """Return whether what a text states is true, from its measures of truth; "–" where it states nothing."""
    if known["true_share"] is None or known["true_share"] != known["true_share"]:
        return "–"
    return "✓ true" if known["wholly_true"] else "✗ false" if known["true_share"] == 0 else "✗ not wholly true"
