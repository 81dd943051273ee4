"""The hypothesis tests of a report. The experiment file decides before a run which comparisons are made.

Three families, which the column `family` names:

- ``primary``: the contrasts of the experiment's primary questions (contrasts). Holm's correction within a data set and
  student; intervals hold for all of them together (Bonferroni); two one-sided tests of equivalence, also by Holm.
- ``exploratory``: every other comparison, those of explanations and of published numbers included. Benjamini and
  Hochberg's q over the report: of what is called a difference, about a twentieth is expected to be none.
- ``plausibility``: each cell with chance, without correction. It shows whether a training worked at all.

A difference is always first minus second.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats as scipy_stats

from kdutils.comparison.contrasts import (
    QUESTIONS,
    SAME_TEXTS,
    alike,
    by_protocol,
    is_control,
    key_of,
    nearest_baseline,
    primary_contrasts,
)
from kdutils.comparison.runs_table import BASELINE, CELL, add_names, in_domain
from kdutils.errors import StudyError
from kdutils.evaluation.accuracy import correct_matrix
from kdutils.stats.accuracy import (
    crossed_difference,
    crossed_test,
    difference_to_chance,
    mcnemar,
    mean_interval,
)
from kdutils.stats.estimates import Estimate
from kdutils.stats.groups import correct_p_values, mean_difference

LEVEL = 0.05
COLUMNS = ["family", "question", "comparison", "dataset", "student", "measure", "first", "second", "difference", "low",
           "high", "p", "p_corrected", "p_equivalent", "detectable", "n_seeds", "n_questions", "mcnemar", "test"]
COMPARISONS = ("primary", "label_only", "control", "methods", "revision", "protocol", "chance")  # as in the tables


def planned_comparisons(cells: pd.DataFrame, primary: Sequence[str] = (),
                        known: Collection[str] = ()) -> list[tuple[str, tuple, tuple | None, str]]:
    """Return (comparison, first cell, second cell, question) for every comparison of accuracies.

    `cells` has the columns CELL, kind and control_of. A returned cell is a tuple in the order of CELL. On each data set
    and for each student, the comparisons are: ``primary``, those of the questions `primary` (see contrasts); and
    without them ``label_only``, every cell with the baseline; ``control``, a method with its control; ``methods``, two
    methods on the same explanations; ``revision``, the same method on revised and on unrevised explanations; all of
    these within a protocol (column `protocol`, if there is one); ``protocol``, the same method by two protocols;
    ``chance``, every cell with guessing (second is None). Transfers are not compared. `question` is "" except for
    primary comparisons. `known`: see contrasts.primary_contrasts.
    """
    planned = [("primary", first, second, question)
               for question, first, second in primary_contrasts(cells, primary, known)]
    known = {frozenset((first, second)) for _, first, second, _ in planned}
    for _, group in in_domain(cells).drop_duplicates(CELL).groupby(["dataset", "student"], sort=False):
        rows = group.to_dict("records")
        parts = by_protocol(rows)
        pairs = [("chance", row, None) for row in rows] + [pair for part in parts for pair in _planned_pairs(part)]
        pairs += [("protocol", second, first) for one, other in combinations(parts, 2) for second in other
                  for first in one if alike(first, second, "teacher", "prompting", "kind")]
        planned += [(comparison, key_of(first), second and key_of(second), "") for comparison, first, second in pairs
                    if not second or frozenset((key_of(first), key_of(second))) not in known]
    planned.sort(key=lambda comparison: COMPARISONS.index(comparison[0]))
    return planned


def _planned_pairs(rows):
    """Return (comparison, first row, second row) within the rows of one data set, student and protocol."""
    baselines = [row for row in rows if row["kind"] == BASELINE]
    others = [row for row in rows if row["kind"] != BASELINE]
    methods = [row for row in others if not row["control_of"]]
    pairs = [("label_only", row, nearest_baseline(row, baselines)) for row in others if baselines]
    pairs += [("control", row, control) for row in methods for control in others if is_control(control, row)]
    pairs += [("methods", *both) for both in combinations(methods, 2) if alike(*both, "teacher", "prompting")]
    return pairs + [("revision", row, plain) for row in methods for plain in methods
                    if (row["prompting"], plain["prompting"]) == ("critique_revision", "few_shot")
                    and alike(row, plain, "teacher", "method")]


def run_tests(predictions: pd.DataFrame, scores: pd.DataFrame, measures: pd.DataFrame, tested: Collection[str] = (),
              more: list[dict[str, Any]] | None = None, primary: Sequence[str] = tuple(QUESTIONS),
              margin: float = 0.02, known: Collection[str] = ()) -> pd.DataFrame:
    """Return one row per comparison with its test: COLUMNS, in the order of COMPARISONS.

    `predictions`, `scores`, `measures`: see runs_table. `tested`: the measures of explanations to test. Each is
    compared between revised and unrevised explanations, and ``las`` of every cell with 0. `more`: rows of the same
    columns with their own p (published numbers). `primary`, `known`: see contrasts.primary_contrasts. `margin`: the
    smallest difference of interest, as a share.

    difference, low, high: shares for accuracy, else units of the measure; low to high is the 95 % interval of the test,
    for primary contrasts that of all contrasts of the family together. p_corrected: see the families above; for
    plausibility it is p. p_equivalent, of primary contrasts: corrected p of a true difference of `margin` or more.
    detectable: the difference that the test would have found with probability 0.8, given these seeds and questions; NaN
    where it is more than 1. Intervals of accuracy and LAS end at -1 and 1, beyond which no difference lies.
    mcnemar: mid-p, not corrected, of each seed that both cells have. A comparison without variation has no p. Raises
    StudyError if two cells have different questions.
    """
    matrices = {cell: group for cell, group in in_domain(predictions).groupby(CELL, sort=False)}
    names = add_names(predictions.drop_duplicates(CELL)).set_index(CELL)["name"].to_dict()
    columns = [*CELL, "kind", "control_of", *(one for one in ("name", "protocol", "settings") if one in predictions)]
    planned = planned_comparisons(predictions[columns], primary, known)
    sizes = Counter(_student(first) for comparison, first, *_ in planned if comparison == "primary")
    rows = []
    for comparison, first, second, question in planned:
        if second is None and matrices[first]["chance"].iloc[0] == 0:
            continue  # free text cannot be guessed
        level = LEVEL / sizes[_student(first)] if question else LEVEL
        row = _accuracy_row(matrices[first], matrices.get(second), level, margin if question else 0)
        rows.append({**_labelled(row, comparison, names, first, second, "accuracy"), "question": question})
        if comparison == "revision" or question == "revision":
            rows += [_labelled(row, "revision", names, first, second, measure) for measure in tested
                     if (row := _measure_row(scores, measures, measure, first, second))]
    rows.sort(key=lambda row: COMPARISONS.index(row["comparison"]))
    if "las" in tested:
        rows += [_labelled(row, "las", names, cell, None, "las") for cell in matrices
                 if (row := _possible(_measure_row(scores, measures, "las", cell)))]
    table = pd.DataFrame([*rows, *(more or [])], columns=COLUMNS)
    table["family"] = table["comparison"].map({"primary": "primary", "chance": "plausibility"}).fillna("exploratory")
    return _corrected(table.astype({name: float for name in ("p", "p_corrected", "p_equivalent", "detectable")}))


def _corrected(table):
    """Fill in p_corrected and correct p_equivalent, family by family."""
    table["p_corrected"] = table["p"].where(table["family"] == "plausibility")
    families = [("p", "holm", part) for _, part in table[table["family"] == "primary"].groupby(["dataset", "student"])]
    families += [("p_equivalent", "holm", part) for _, _, part in families]
    families += [("p", "fdr_bh", table[table["family"] == "exploratory"])]
    for name, correction, part in families:
        known = part.index[part[name].notna()]
        if len(known):
            target = "p_corrected" if name == "p" else name
            table.loc[known, target] = correct_p_values(table.loc[known, name], correction)
    return table


def significant(tests: pd.DataFrame) -> pd.Series:
    """Return True for each test with a corrected p below LEVEL; only then does a report speak of a difference."""
    return tests["p_corrected"] < LEVEL


def with_control(tests: pd.DataFrame, kinds: Mapping[str, str]) -> pd.DataFrame:
    """Return the tests of a method (first) against a control (second) that learns other texts, planned ones first.

    `kinds`: {name of a cell: registered method}. A control of SAME_TEXTS is none here.
    """
    own = tests[(tests["comparison"] == "control") | (tests["question"] == "content")]
    own = own[~own["second"].map(dict(kinds)).isin(SAME_TEXTS)]
    return own.sort_values("family", key=lambda family: family != "primary", kind="stable")


def equivalent(tests: pd.DataFrame) -> pd.Series:
    """Return True for each primary contrast whose difference is shown to be smaller than the margin."""
    return tests["p_equivalent"] < LEVEL


def _student(cell):
    return cell[CELL.index("dataset")], cell[CELL.index("student")]


def _labelled(row, comparison, names, first, second, measure):
    against = {"chance": "chance", "las": "0"}.get(comparison, "")
    dataset, student = _student(first)
    return {**row, "comparison": comparison, "dataset": dataset, "student": student, "measure": measure,
            "first": names[first], "second": names[second] if second else against}


def _accuracy_row(first, second, level, margin):
    matrix = correct_matrix(first)
    if second is None:
        chance = first["chance"].iloc[0]
        return {**_test_row(difference_to_chance, _title(matrix), matrix, chance),
                "difference": matrix.mean() - chance, "n_seeds": len(matrix)}
    if set(first["id"]) != set(second["id"]):
        raise StudyError("two students of one data set answered different questions and cannot be compared: evaluate "
                         "both on the same questions")
    other = correct_matrix(second)
    seeds = [sorted(table["seed"].unique()) for table in (first, second)]
    shared = [(matrix[seeds[0].index(seed)], other[seeds[1].index(seed)]) for seed in seeds[0] if seed in seeds[1]]
    test = crossed_test(matrix, other)
    found = test.detectable(level) if test else np.nan
    limits = {"detectable": found if found <= 1 else np.nan}
    limits |= {"p_equivalent": test.p_equivalent(margin)} if test and margin else {}
    return {**_possible(_difference_row(matrix, other, 1 - level)), **limits, "n_questions": matrix.shape[1],
            "mcnemar": [mcnemar(*both).p for both in shared]}


def _measure_row(scores, measures, measure, first, second=None):
    """Return the row of a measure of explanations, without `second` the test with 0, which needs two seeds.

    Seeds and questions are the sample where each text has a value, else the seeds alone.
    """
    cells = [first, second] if second else [first]
    parts = [scores[(scores[CELL] == list(cell)).all(axis=1)] for cell in cells]
    if measure in scores and all(part[measure].notna().any() for part in parts):
        wide = [part.pivot(index="seed", columns="id", values=measure) for part in parts]
        wide = [table.dropna(how="all").dropna(axis=1) for table in wide]  # without seeds that have no value at all
        shared = wide[0].columns.intersection(wide[-1].columns)
        if len(shared) < 2:
            return None
        matrices = [table[shared].to_numpy(dtype=float) for table in wide]
        if second:
            return {**_difference_row(*matrices), "n_questions": len(shared)}
        row = {"difference": matrices[0].mean(), "n_seeds": len(matrices[0]), "n_questions": len(shared)}
        if row["n_seeds"] < 2:
            return row
        return {**_test_row(crossed_difference, _title(*matrices), *matrices, np.zeros(len(shared))), **row}
    values = [measures.loc[(measures[CELL] == list(cell)).all(axis=1) & (measures["measure"] == measure), "value"]
              for cell in cells]
    if min(map(len, values)) == 0:
        return None
    row = {"difference": values[0].mean() - (values[1].mean() if second else 0), "n_seeds": min(map(len, values))}
    if row["n_seeds"] < 2:
        return row
    test, title = (mean_difference, "Welch's t over seeds") if second else (_difference_to_zero, "t over seeds")
    return {**_test_row(test, title, *values), **row, "n_questions": None}


def _difference_to_zero(values):
    if np.ptp(values) < 1e-12:
        raise StudyError("the values do not vary")
    return Estimate(*mean_interval(values), len(values), float(scipy_stats.ttest_1samp(values, 0).pvalue))


def _difference_row(first, second, confidence=0.95):
    return {**_test_row(crossed_difference, _title(first, second), first, second, confidence),
            "difference": first.mean() - second.mean(), "n_seeds": min(len(first), len(second))}


def _test_row(test: Callable, title, *samples):
    """Return interval, p and name of a test; only the name where the samples do not vary."""
    try:
        estimate = test(*samples)
    except StudyError:
        return {"test": "no spread"}
    return {"low": estimate.low, "high": estimate.high, "p": estimate.p, "n_questions": estimate.n, "test": title}


def _possible(row):
    """Return a row without the part of its interval that is beyond -1 or 1."""
    return row and row | {name: float(np.clip(row[name], -1, 1)) for name in ("low", "high") if name in row}


def _title(*matrices):
    if all(np.ptp(matrix) == 0 for matrix in matrices):
        return "exact binomial over questions"
    return "bootstrap over questions" if min(map(len, matrices)) < 2 else "t over seeds and questions"
