"""Where distilled students err: differences to label_only by group of questions, and by the teacher's rationale.

runs_table reads the runs and defines a cell. A student that is tested on another data set than it learnt (a transfer)
is compared with the label_only student that is tested there, too.
"""

import pandas as pd

from kdutils.comparison.contrasts import key_of, nearest_baseline
from kdutils.comparison.hypotheses import LEVEL
from kdutils.comparison.runs_table import BASELINE, CELL, Inputs, add_names, in_domain
from kdutils.comparison.wording import signed
from kdutils.evaluation.error_analysis import (
    LEAST,
    accuracy_by_question_group,
    rationale_effects,
    rationale_flags,
    won_and_lost,
)
from kdutils.stats.groups import correct_p_values


def difference_to_baseline(predictions: pd.DataFrame, inputs: Inputs) -> pd.DataFrame:
    """Return accuracy minus that of label_only per method and group of questions, in percentage points, not tested.

    Columns: dataset, student, tested_on, name (of the cell), questions with (what the questions have in common),
    questions (their number), difference. Controls are left out.
    """
    heads, rows = ["dataset", "student", "tested_on", "name"], []
    for cell, group, baseline in _with_baseline(predictions):
        differences = accuracy_by_question_group(group, baseline, inputs[cell][0], _flags(inputs, cell))
        rows.append(add_names(group)[heads].head(1).merge(differences, how="cross"))
    table = pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(
        columns=[*heads, "questions with", "questions", "difference"])
    return table.drop(columns=["first", "second"], errors="ignore").assign(difference=100 * table["difference"])


def largest_losses(differences: pd.DataFrame) -> pd.DataFrame:
    """Return of each cell of difference_to_baseline the group with the lowest difference, if that is a loss.

    Groups of fewer than LEAST questions do not count.
    """
    lost = differences["difference"].round(6) < 0  # of equal means the difference may be −1e-14
    large = differences[(differences["questions"] >= LEAST) & lost]
    large = large.sort_values("difference", kind="stable")
    lowest = large.drop_duplicates(["dataset", "student", "tested_on", "name"])
    return lowest.sort_index().reset_index(drop=True)


def spread_methods(differences: pd.DataFrame) -> pd.DataFrame:
    """Return difference_to_baseline with one column per method: points, and the number of questions in brackets."""
    texts = [f"{signed(points, 1)} ({count})"
             for points, count in zip(differences["difference"], differences["questions"], strict=True)]
    order = list(differences["questions with"].unique())
    table = differences.assign(text=texts).pivot(index="questions with", columns="name", values="text")
    table = table.reindex(index=order, columns=list(differences["name"].unique()))
    return table.reset_index().rename_axis(None, axis=1)


def won_and_lost_per_cell(predictions: pd.DataFrame, inputs: Inputs, count: int,
                          seed: int) -> list[tuple[str, pd.DataFrame]]:
    """Return [(caption, won_and_lost)] of every distilled method that loses a question to label_only.

    Order: _with_baseline. `count` questions that it wins and as many that it loses are drawn with `seed`.
    """
    captioned = []
    for cell, group, baseline in _with_baseline(predictions):
        head = add_names(group).iloc[0]
        table = won_and_lost(group, baseline, *inputs[cell], count, seed)
        if (table["verdict"] == "lost").any():
            where = f"{head['dataset']}, {head['student']}{tested_elsewhere(head['dataset'], head['tested_on'])}"
            captioned.append((f"{head['name']} against {BASELINE}: {where}", table.rename(columns={
                "first says": f"{head['name']} says", "second says": f"{BASELINE} says"})))
    return captioned


def tested_elsewhere(dataset: str, tested_on: str) -> str:
    """Return what a caption adds for a student that was tested on another data set than it learnt, else ""."""
    return f", tested on {tested_on}" if tested_on != dataset else ""


def _with_baseline(predictions):
    """Yield (cell, its predictions, those of its baseline) of every distilled method that has one.

    Per data set, student, protocol and data set of the test, the lowest accuracy is first. Controls are left out.
    """
    keys = ["dataset", "student", "tested_on", *(["protocol"] if "protocol" in predictions else [])]
    for _, group in predictions.groupby(keys, sort=False):
        cells = dict(list(group.groupby(CELL, sort=False)))
        rows = {cell: part.iloc[0] for cell, part in cells.items()}
        baselines = [row for row in rows.values() if row["kind"] == BASELINE]
        for cell in sorted(cells, key=lambda cell: cells[cell]["correct"].mean()):
            row = rows[cell]
            if baselines and row["kind"] != BASELINE and not row["control_of"]:
                yield cell, cells[cell], cells[key_of(nearest_baseline(row, baselines))]


def effects_of_rationales(predictions: pd.DataFrame, inputs: Inputs) -> pd.DataFrame:
    """Return rationale_effects of every distilled method against label_only, with q over all of them.

    Columns: dataset, student, name (of the cell), those of rationale_effects (effects in percentage points), and q,
    the p value corrected over all m tests: with p₁ ≤ … ≤ pₘ, qᵢ = min over j ≥ i of m · pⱼ / j, at most 1 (Benjamini
    and Hochberg 1995, "Controlling the false discovery rate"). Left out are controls, groups in which no question is,
    and transfers, whose test questions no teacher explained.
    """
    rows = []
    for cell, group, baseline in _with_baseline(in_domain(predictions)):
        found = rationale_effects(group, baseline, _flags(inputs, cell))
        rows.append(add_names(group)[["dataset", "student", "name"]].head(1).merge(found, how="cross"))
    columns = ["dataset", "student", "name", "rationale", "with", "without", "effect", "low", "high", "p", "q"]
    table = pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=columns[:-1])
    table = table[(table["with"] > 0) & (table["without"] > 0)].reset_index(drop=True)
    shares = ["effect", "low", "high"]
    table = table.assign(**{name: 100 * table[name] for name in shares}, q=float("nan"))
    tested = table["p"].notna()
    if tested.any():
        table.loc[tested, "q"] = correct_p_values(table.loc[tested, "p"], "fdr_bh")
    return table[columns]


def effect_sentences(effects: pd.DataFrame) -> list[str]:
    """Return what effects_of_rationales shows, and what was tested, as sentences."""
    tested = effects.dropna(subset="p")
    if tested.empty:
        return ["No test was possible: every group of rationales has too few questions, or no difference between them."]
    found = tested[tested["q"] < LEVEL].sort_values("p")
    if found.empty:
        return [f"None of {len(tested)} tests shows that the difference from {BASELINE} depends on what the teacher's "
                f"text is like (smallest q {tested['q'].min():.2g}).", _told_tests(effects)]
    return [f"{row['name']} on {row['dataset']}, {row['student']}: the gain over {BASELINE} is "
            f"{abs(row['effect']):.1f} points {'higher' if row['effect'] > 0 else 'lower'} where the "
            f"{row['rationale']} "
            f"({signed(row['low'], 1)} to {signed(row['high'], 1)}, q = {row['q']:.2g}; {row['with']} questions "
            f"against {row['without']})." for row in found.to_dict("records")] + [_told_tests(effects)]


def _told_tests(effects):
    """Return which properties were tested, with the number of questions of the smallest group, and what was not."""
    tested = effects["p"].notna()
    sizes = effects[["with", "without"]].min(axis=1)[tested].groupby(effects["rationale"], sort=False).min()
    lost = int((~tested).sum())
    left = f"; {lost} comparison{'s' * (lost > 1)} could not be tested" if lost else ""
    return "Tested properties, with the smallest number of questions with or without each: " + ", ".join(
        f"{name} ({size})" for name, size in sizes.items()) + f"{left}. With few questions only a large effect shows."


def _flags(inputs, cell):
    questions, explanations = inputs[cell]
    return rationale_flags(explanations, questions)
