"""Every comparison of a report and its test, corrected once for the number of all of them.

What is compared is fixed beforehand (pairs): each cell with blind guessing and with label_only, a method with its
control, methods trained on the same explanations with one another, and revised explanations with unrevised ones. The
p values of a report are one family: Holm's correction counts them all, those of explanations and of published numbers
too (stats.correct_p_values). A difference is always first minus second.
"""

from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats as scipy_stats

from kdutils.comparison.runs_table import BASELINE, CELL, CONTROLS, in_domain, named
from kdutils.errors import StudyError
from kdutils.evaluation.accuracy import correct_matrix
from kdutils.stats.accuracy import Estimate, bootstrap_difference, bootstrap_mean, mean_interval, paired_bootstrap
from kdutils.stats.groups import correct_p_values, mcnemar, mean_difference

LEVEL = 0.05
RESAMPLES = 4000  # where questions alone are resampled: p goes down to 1 in so many
COLUMNS = ["comparison", "dataset", "student", "measure", "first", "second", "difference", "low", "high", "p",
           "p_corrected", "n_seeds", "n_questions", "bootstrap_low", "bootstrap_high", "mcnemar", "test"]


def crossed_difference(first, second, confidence=0.95):
    """Return the Estimate of mean(first) - mean(second) of two methods, each (seeds, questions), on the same questions.

    Both seeds and questions are a sample. The variance of the difference is that of the questions (paired, of means
    over seeds) plus, for each method, that of its seeds beyond what the questions explain; interval and p are those of
    t with Satterthwaite's degrees of freedom (crossed random effects: Searle, Casella and McCulloch 1992, 5).
    `second` of one dimension is known, not sampled. With one seed of either the questions alone are resampled
    (stats.paired_bootstrap) and nothing is said about seeds.

    Why no bootstrap over seeds: in simulations of two equal methods with 2, 3 and 5 seeds that call up to 28 %, 18 %
    and 12 % of them different at the 5 % level (it never sees other seeds), this one at most 7 %.
    """
    first, second = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    known = second.ndim == 1
    second = np.atleast_2d(second)
    if first.shape[1] != second.shape[1]:
        raise StudyError(f"not the same questions: {first.shape[1]} and {second.shape[1]}")
    sampled = [first] if known else [first, second]
    if min(map(len, sampled)) < 2:
        return paired_bootstrap(first.mean(axis=0), second.mean(axis=0), RESAMPLES, confidence)
    differences = first.mean(axis=0) - second.mean(axis=0)
    value, count = float(differences.mean()), len(differences)
    parts = [(differences.var(ddof=1) / count, count - 1)]
    rest = 0.0
    for matrix in sampled:
        seeds, noise = _seed_variance(matrix)
        rest += noise
        if seeds > noise:
            parts.append((seeds, len(matrix) - 1))
            parts[0] = (max(parts[0][0] - noise, 0.0), count - 1)  # this noise is in both parts: counted once
    total = sum(part for part, _ in parts)
    if max(total, rest) <= 1e-18:
        return paired_bootstrap(first.mean(axis=0), second.mean(axis=0), RESAMPLES, confidence)
    freedom = total ** 2 / sum(part ** 2 / df for part, df in parts) if total > 0 else count - 1
    error = np.sqrt(max(total, rest))
    half = scipy_stats.t.ppf(0.5 + confidence / 2, freedom) * error
    return Estimate(value, float(value - half), float(value + half), count,
                    float(2 * scipy_stats.t.sf(abs(value) / error, freedom)))


def _seed_variance(matrix):
    """Return the variance of the mean over seeds as the seeds show it, and the part of it that questions bring in."""
    seeds, questions = matrix.shape
    means = matrix.mean(axis=1)
    rest = matrix - means[:, None] - matrix.mean(axis=0) + matrix.mean()
    noise = np.sum(rest ** 2) / ((seeds - 1) * max(questions - 1, 1)) / questions
    return means.var(ddof=1) / seeds, noise / seeds


def above_chance(correct, chance):
    """Return the Estimate of accuracy minus blind guessing of one cell, (seeds, questions).

    Where every answer is right, or every one wrong: Clopper and Pearson's interval and the exact binomial test over the
    questions.
    """
    correct = np.asarray(correct, dtype=float)
    if correct.min() < correct.max():
        return crossed_difference(correct, np.full(correct.shape[1], chance))
    mean, low, high = bootstrap_mean(correct)
    p = scipy_stats.binomtest(int(correct[0].sum()), correct.shape[1], chance).pvalue
    return Estimate(mean - chance, low - chance, high - chance, correct.shape[1], float(p))


def pairs(cells):
    """Return (comparison, first, second) for every comparison of accuracies: `cells`, a frame with CELL and kind.

    first and second are cells (tuples in the order of CELL); second is None against chance.
    """
    found = []
    for _, group in in_domain(cells).drop_duplicates(CELL).groupby(["dataset", "student"], sort=False):
        rows = group.to_dict("records")
        baselines = [row for row in rows if row["kind"] == BASELINE]
        others = [row for row in rows if row["kind"] != BASELINE]
        main = [row for row in others if row["kind"] not in CONTROLS]
        found += [("chance", row, None) for row in rows]
        found += [("label_only", row, _nearest(row, baselines)) for row in others if baselines]
        found += [("control", row, control) for row in main for control in others
                  if CONTROLS.get(control["kind"]) == row["kind"] and _same(row, control, "teacher", "prompting")]
        found += [("methods", *both) for both in combinations(main, 2) if _same(*both, "teacher", "prompting")]
        found += [("revision", row, plain) for row in main for plain in main
                  if (row["prompting"], plain["prompting"]) == ("critique_revision", "few_shot")
                  and _same(row, plain, "teacher", "method")]
    order = ["label_only", "control", "methods", "revision", "chance"]
    found = [(kind, _key(first), _key(second)) for kind, first, second in found]
    return sorted(found, key=lambda pair: order.index(pair[0]))


def _nearest(row, baselines):
    """Return the label_only cell to compare with: of the same explanations, if it has any, else the first."""
    return next((one for one in baselines if _same(row, one, "teacher", "prompting")), baselines[0])


def _same(first, second, *keys):
    return all(first[key] == second[key] for key in keys)


def _key(row):
    return row and tuple(row[key] for key in CELL)


def all_tests(predictions, scores, measures, tested=(), more=None):
    """Return one row per comparison with its test: COLUMNS, in the order of pairs.

    `predictions`, `scores`, `measures`: what reading.py reads. `tested`: the measures of explanations that are
    tested, and no others: each for what revision changes, and ``las`` of every cell against 0. `more`: rows with a p
    of their own, of the same columns (published numbers). low and high: 95 %, of crossed_difference or of the test that
    `test` names; bootstrap_low and bootstrap_high: bootstrap over seeds and questions, which understates few seeds.
    mcnemar: mid-p of each seed that both have, in their order, not corrected. A comparison without spread has no p.
    """
    matrices = {cell: group for cell, group in in_domain(predictions).groupby(CELL, sort=False)}
    names = named(predictions.drop_duplicates(CELL)).set_index(CELL)["name"].to_dict()
    planned, rows = pairs(predictions[[*CELL, "kind"]]), []
    for comparison, first, second in planned:
        if second is None and matrices[first]["chance"].iloc[0] == 0:
            continue  # free text: nothing to guess from
        row = _accuracy_row(matrices[first], matrices.get(second))
        rows.append(_placed(row, comparison, names, first, second, "accuracy"))
        if comparison == "revision":
            rows += [_placed(row, comparison, names, first, second, measure) for measure in tested
                     if (row := _measure_row(scores, measures, measure, first, second))]
    if "las" in tested:
        rows += [_placed(row, "las", names, cell, None, "las") for cell in matrices
                 if (row := _against_zero(_values(measures, cell, "las")))]
    table = pd.DataFrame([*rows, *(more or [])], columns=COLUMNS)
    known = table["p"].notna()
    if known.any():
        table.loc[known, "p_corrected"] = correct_p_values(table.loc[known, "p"])
    return table.astype({"p": float, "p_corrected": float})


def _placed(row, comparison, names, first, second, measure):
    against = {"chance": "chance", "las": "0"}.get(comparison, "")
    return {**row, "comparison": comparison, "dataset": first[CELL.index("dataset")],
            "student": first[CELL.index("student")], "measure": measure, "first": names[first],
            "second": names[second] if second else against}


def _accuracy_row(first, second):
    matrix = correct_matrix(first)
    if second is None:
        row = _row(above_chance, _title(matrix), matrix, first["chance"].iloc[0])
        return {**row, "difference": matrix.mean() - first["chance"].iloc[0], "n_seeds": len(matrix)}
    if set(first["id"]) != set(second["id"]):
        raise StudyError("two students of one data set answered different questions: they cannot be compared")
    other = correct_matrix(second)
    _, low, high = bootstrap_difference(matrix, other, resamples=1000)
    seeds = [sorted(table["seed"].unique()) for table in (first, second)]
    shared = [(matrix[seeds[0].index(seed)], other[seeds[1].index(seed)]) for seed in seeds[0] if seed in seeds[1]]
    row = _row(crossed_difference, _title(matrix, other), matrix, other)
    return {**row, "difference": matrix.mean() - other.mean(), "n_seeds": min(len(matrix), len(other)),
            "n_questions": matrix.shape[1], "bootstrap_low": low, "bootstrap_high": high,
            "mcnemar": [mcnemar(*both).p for both in shared]}


def _measure_row(scores, measures, measure, first, second):
    """Return the row of a measure of explanations: text by text where it is one of texts, else over seeds."""
    parts = [_of_cell(scores, cell) for cell in (first, second)]
    if measure in scores and all(part[measure].notna().any() for part in parts):
        wide = [part.pivot(index="seed", columns="id", values=measure) for part in parts]
        wide = [table.dropna(how="all").dropna(axis=1) for table in wide]  # a seed without any value has none to test
        shared = wide[0].columns.intersection(wide[1].columns)
        if len(shared) < 2:
            return None
        matrices = [table[shared].to_numpy(dtype=float) for table in wide]
        row = _row(crossed_difference, _title(*matrices), *matrices)
        return {**row, "difference": matrices[0].mean() - matrices[1].mean(), "n_seeds": min(map(len, matrices)),
                "n_questions": len(shared)}
    values = [_values(measures, cell, measure) for cell in (first, second)]
    if min(map(len, values)) == 0:
        return None
    row = {"difference": values[0].mean() - values[1].mean(), "n_seeds": min(map(len, values))}
    if row["n_seeds"] < 2:
        return row
    return {**_row(mean_difference, "Welch's t over seeds", *values), **row, "n_questions": None}


def _row(test, title, *samples):
    """Return interval, p and the name of a test; nothing where there is no spread to draw them from."""
    try:
        found = test(*samples)
    except StudyError:
        return {"test": "no spread"}
    return {"low": found.low, "high": found.high, "p": found.p, "n_questions": found.n, "test": title}


def _title(*matrices):
    if all(np.ptp(matrix) == 0 for matrix in matrices):
        return "exact binomial over questions"
    return "bootstrap over questions" if min(map(len, matrices)) < 2 else "t over seeds and questions"


def _against_zero(values):
    if len(values) < 2 or np.ptp(values) < 1e-12:
        return {"difference": values.mean(), "n_seeds": len(values)} if len(values) else None
    mean, low, high = mean_interval(values)
    return {"difference": mean, "low": low, "high": high, "n_seeds": len(values),
            "p": float(scipy_stats.ttest_1samp(values, 0).pvalue), "test": "t over seeds"}


def _of_cell(table, cell):
    return table[(table[CELL] == list(cell)).all(axis=1)]


def _values(measures, cell, measure):
    part = _of_cell(measures, cell)
    return part.loc[part["measure"] == measure, "value"].to_numpy(dtype=float)


def significant(tests):
    """Return True where the corrected p is below LEVEL, the only ground on which anything here is said to differ."""
    return tests["p_corrected"] < LEVEL
