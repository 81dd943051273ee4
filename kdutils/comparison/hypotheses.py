"""The hypothesis tests of a report. Which comparisons are made is fixed in advance (planned_comparisons).

All p values of a report are one family: Holm's correction counts them all, including those of explanations and of
published numbers. A difference is always first minus second.
"""

from collections.abc import Callable, Collection
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats as scipy_stats

from kdutils.comparison.runs_table import BASELINE, CELL, add_names, in_domain
from kdutils.errors import StudyError
from kdutils.evaluation.accuracy import correct_matrix
from kdutils.stats.accuracy import (
    bootstrap_difference,
    crossed_difference,
    difference_to_chance,
    mcnemar,
    mean_interval,
)
from kdutils.stats.groups import correct_p_values, mean_difference

LEVEL = 0.05
COLUMNS = ["comparison", "dataset", "student", "measure", "first", "second", "difference", "low", "high", "p",
           "p_corrected", "n_seeds", "n_questions", "bootstrap_low", "bootstrap_high", "mcnemar", "test"]
COMPARISONS = ("label_only", "control", "methods", "revision", "chance")  # in the order of the tables


def planned_comparisons(cells: pd.DataFrame) -> list[tuple[str, tuple, tuple | None]]:
    """Return (comparison, first cell, second cell) for every comparison of accuracies.

    `cells` has the columns CELL, kind and control_of. A returned cell is a tuple in the order of CELL. On each data set
    and for each student, the comparisons are: ``label_only``, every cell with the baseline; ``control``, a method with
    its control; ``methods``, two methods on the same explanations; ``revision``, the same method on revised and on
    unrevised explanations; ``chance``, every cell with guessing (second is None). Transfers are not compared.
    """
    planned = []
    for _, group in in_domain(cells).drop_duplicates(CELL).groupby(["dataset", "student"], sort=False):
        rows = group.to_dict("records")
        baselines = [row for row in rows if row["kind"] == BASELINE]
        others = [row for row in rows if row["kind"] != BASELINE]
        methods = [row for row in others if not row["control_of"]]
        planned += [("chance", row, None) for row in rows]
        planned += [("label_only", row, _nearest(row, baselines)) for row in others if baselines]
        planned += [("control", row, control) for row in methods for control in others
                    if control["control_of"] == row["kind"] and _same(row, control, "teacher", "prompting")]
        planned += [("methods", *both) for both in combinations(methods, 2) if _same(*both, "teacher", "prompting")]
        planned += [("revision", row, plain) for row in methods for plain in methods
                    if (row["prompting"], plain["prompting"]) == ("critique_revision", "few_shot")
                    and _same(row, plain, "teacher", "method")]
    planned.sort(key=lambda comparison: COMPARISONS.index(comparison[0]))
    return [(comparison, _key(first), _key(second)) for comparison, first, second in planned]


def _nearest(row, baselines):
    """Return the label_only cell with the teacher and prompting of `row` if there is one, else the first."""
    return next((one for one in baselines if _same(row, one, "teacher", "prompting")), baselines[0])


def _same(first, second, *keys):
    return all(first[key] == second[key] for key in keys)


def _key(row):
    return row and tuple(row[key] for key in CELL)


def run_tests(predictions: pd.DataFrame, scores: pd.DataFrame, measures: pd.DataFrame, tested: Collection[str] = (),
              more: list[dict[str, Any]] | None = None) -> pd.DataFrame:
    """Return one row per comparison with its test: COLUMNS, in the order of COMPARISONS.

    `predictions`, `scores`, `measures`: see runs_table. `tested`: the measures of explanations to test. Each is
    compared between revised and unrevised explanations, and ``las`` of every cell with 0. `more`: rows of the same
    columns with their own p (published numbers).

    difference, low, high: shares for accuracy, else units of the measure; low to high is the 95 % interval of the test,
    not corrected. bootstrap_low, bootstrap_high: bootstrap over seeds and questions, which is too narrow for few seeds.
    mcnemar: mid-p, not corrected, of each seed that both cells have. A comparison without variation has no p. Raises
    StudyError if two cells have different questions.
    """
    matrices = {cell: group for cell, group in in_domain(predictions).groupby(CELL, sort=False)}
    names = add_names(predictions.drop_duplicates(CELL)).set_index(CELL)["name"].to_dict()
    rows = []
    for comparison, first, second in planned_comparisons(predictions[[*CELL, "kind", "control_of"]]):
        if second is None and matrices[first]["chance"].iloc[0] == 0:
            continue  # free text cannot be guessed
        row = _accuracy_row(matrices[first], matrices.get(second))
        rows.append(_labelled(row, comparison, names, first, second, "accuracy"))
        if comparison == "revision":
            rows += [_labelled(row, comparison, names, first, second, measure) for measure in tested
                     if (row := _measure_row(scores, measures, measure, first, second))]
    if "las" in tested:
        rows += [_labelled(row, "las", names, cell, None, "las") for cell in matrices
                 if (row := _zero_row(_values(measures, cell, "las")))]
    table = pd.DataFrame([*rows, *(more or [])], columns=COLUMNS)
    known = table["p"].notna()
    if known.any():
        table.loc[known, "p_corrected"] = correct_p_values(table.loc[known, "p"])
    return table.astype({"p": float, "p_corrected": float})


def significant(tests: pd.DataFrame) -> pd.Series:
    """Return True for each test with a corrected p below LEVEL; only then does a report speak of a difference."""
    return tests["p_corrected"] < LEVEL


def _labelled(row, comparison, names, first, second, measure):
    against = {"chance": "chance", "las": "0"}.get(comparison, "")
    return {**row, "comparison": comparison, "dataset": first[CELL.index("dataset")],
            "student": first[CELL.index("student")], "measure": measure, "first": names[first],
            "second": names[second] if second else against}


def _accuracy_row(first, second):
    matrix = correct_matrix(first)
    if second is None:
        chance = first["chance"].iloc[0]
        return {**_test_row(difference_to_chance, _title(matrix), matrix, chance),
                "difference": matrix.mean() - chance, "n_seeds": len(matrix)}
    if set(first["id"]) != set(second["id"]):
        raise StudyError("two students of one data set answered different questions and cannot be compared: evaluate "
                         "both on the same questions")
    other = correct_matrix(second)
    _, low, high = bootstrap_difference(matrix, other, resamples=1000)
    seeds = [sorted(table["seed"].unique()) for table in (first, second)]
    shared = [(matrix[seeds[0].index(seed)], other[seeds[1].index(seed)]) for seed in seeds[0] if seed in seeds[1]]
    return {**_difference_row(matrix, other), "n_questions": matrix.shape[1], "bootstrap_low": low,
            "bootstrap_high": high, "mcnemar": [mcnemar(*both).p for both in shared]}


def _measure_row(scores, measures, measure, first, second):
    """Return the row of a measure of explanations: per text if it is a measure of single texts, else over seeds."""
    parts = [scores[(scores[CELL] == list(cell)).all(axis=1)] for cell in (first, second)]
    if measure in scores and all(part[measure].notna().any() for part in parts):
        wide = [part.pivot(index="seed", columns="id", values=measure) for part in parts]
        wide = [table.dropna(how="all").dropna(axis=1) for table in wide]  # without seeds that have no value at all
        shared = wide[0].columns.intersection(wide[1].columns)
        if len(shared) < 2:
            return None
        return {**_difference_row(*(table[shared].to_numpy(dtype=float) for table in wide)), "n_questions": len(shared)}
    values = [_values(measures, cell, measure) for cell in (first, second)]
    if min(map(len, values)) == 0:
        return None
    row = {"difference": values[0].mean() - values[1].mean(), "n_seeds": min(map(len, values))}
    if row["n_seeds"] < 2:
        return row
    return {**_test_row(mean_difference, "Welch's t over seeds", *values), **row, "n_questions": None}


def _difference_row(first, second):
    return {**_test_row(crossed_difference, _title(first, second), first, second),
            "difference": first.mean() - second.mean(), "n_seeds": min(len(first), len(second))}


def _test_row(test: Callable, title, *samples):
    """Return interval, p and name of a test; only the name where the samples do not vary."""
    try:
        estimate = test(*samples)
    except StudyError:
        return {"test": "no spread"}
    return {"low": estimate.low, "high": estimate.high, "p": estimate.p, "n_questions": estimate.n, "test": title}


def _title(*matrices):
    if all(np.ptp(matrix) == 0 for matrix in matrices):
        return "exact binomial over questions"
    return "bootstrap over questions" if min(map(len, matrices)) < 2 else "t over seeds and questions"


def _zero_row(values):
    if len(values) < 2 or np.ptp(values) < 1e-12:
        return {"difference": values.mean(), "n_seeds": len(values)} if len(values) else None
    mean, low, high = mean_interval(values)
    return {"difference": mean, "low": low, "high": high, "n_seeds": len(values),
            "p": float(scipy_stats.ttest_1samp(values, 0).pvalue), "test": "t over seeds"}


def _values(measures, cell, measure):
    part = measures[(measures[CELL] == list(cell)).all(axis=1) & (measures["measure"] == measure)]
    return part["value"].to_numpy(dtype=float)
