"""The tables of a comparison: accuracy, explanations, costs, errors, transfer.

runs_table reads the runs and defines a cell; hypotheses tests the differences; summary writes the sentences.
"""

import re
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd

from kdutils.comparison.runs_table import CELL, PER_RUN, Inputs, add_names, in_domain
from kdutils.evaluation.accuracy import correct_matrix, same_answers
from kdutils.evaluation.settings import OWN, PROXIES, TRUTH
from kdutils.fake_texts import FAKE, FAKES, as_good, starred
from kdutils.stats.accuracy import bootstrap_mean
from kdutils.stats.groups import iqr_outliers

MAIN_MEASURES = ("wholly_true", "true_reason", "las", "qbe", "overlap_gain", "names_answer", "rouge_l_teacher", "words")
MEASURES = {  # title of a table of explanations: the measures in it
    "truth": "|".join(TRUTH),
    "proxies of truth": "|".join(PROXIES),
    "similarity to references": r"(bleu|rouge_l|bertscore)_.*",
    "properties of the text": rf"{'|'.join(OWN)}|distinct_\d",
    "simulatability": r"las.*|leaking|qbe|reader of .*",
    "overlap with influential words": r"overlap.*",
    "answers after forced explanations": r"behind .*",
}


def accuracy_table(runs: pd.DataFrame, predictions: pd.DataFrame, outliers: str = "kept") -> pd.DataFrame:
    """Return one row per cell, including cells without a result: CELL, kind, control_of, name and the columns below.

    mean, low, high: accuracy with its 95 % bootstrap interval over seeds and questions. sd: standard deviation over
    seeds. likelihood, per_token: mean accuracy of the most likely choice. exact, calibration_error, no_choice: means.
    exact_match, f1: means, only where there are short free-text answers. chance. n_seeds: runs with a result. n_failed:
    failed and missing runs, which no mean includes. n_questions. All but the numbers are shares. `outliers` iqr: also
    without_outliers and n_outliers, the mean without outliers by the published rule (see without_outliers) and their
    number; every other column has all runs.
    """
    rows = []
    answered = dict(list(predictions.groupby(CELL, sort=False)))
    for cell, group in runs.groupby(CELL, sort=False):
        row = {**dict(zip(CELL, cell, strict=True)), **group[["kind", "name"]].iloc[0]}
        if (own := answered.get(cell)) is not None:
            mean, low, high = bootstrap_mean(correct_matrix(own))
            row |= {"mean": mean, "low": low, "high": high, "chance": own["chance"].iloc[0],
                    "control_of": own["control_of"].iloc[0], "n_questions": own["id"].nunique()}
        ended = group["accuracy"].notna()
        rows.append({**row, "sd": group["accuracy"].std(), **group[PER_RUN].drop(columns="accuracy").mean(),
                     "n_seeds": int(ended.sum()), "n_failed": int((~ended).sum())})
    short = [name for name in ("exact_match", "f1") if runs[name].notna().any()]
    columns = ["mean", "low", "high", "sd", "likelihood", "per_token", "exact", *short, "calibration_error",
               "no_choice", "chance", "n_seeds", "n_failed", "n_questions"]
    table = pd.DataFrame(rows).reindex(columns=[*CELL, "kind", "control_of", "name", *columns])
    table["control_of"] = table["control_of"].fillna("")
    counts = [int(count) if count == count else None for count in table["n_questions"]]
    table = table.assign(n_questions=pd.Series(counts, dtype=object))
    if outliers == "kept":
        return table
    kept = without_outliers(runs).rename(columns={"kept": "without_outliers", "outliers": "n_outliers"})
    return table.merge(kept[[*CELL, "without_outliers", "n_outliers"]], on=CELL, how="left")


def protocol_table(accuracies: pd.DataFrame, predictions: pd.DataFrame, inputs: Inputs,
                   costs: pd.DataFrame) -> pd.DataFrame:
    """Return one row per cell, the protocols of a method below each other; no rows if every cell is ``fair``.

    Columns: CELL, kind, name, protocol, mean (accuracy as the protocol counts it), same_answer and exact_text (shares
    of the same predictions, counted in both ways), without_outliers if `accuracies` has it, and the amount of training:
    steps, epochs, batch (questions per step). `inputs`: runs_table.read_inputs; `costs`: runs_table.cost_table.
    """
    amounts = costs.rename(columns={"effective_batch": "batch"}).groupby(CELL, sort=False)[["steps", "epochs", "batch"]]
    rows, amounts = [], amounts.mean()
    for cell, group in in_domain(predictions).groupby(CELL, sort=False):
        rows.append({**dict(zip(CELL, cell, strict=True)), "protocol": group["protocol"].iloc[0],
                     "same_answer": same_answers(group, inputs[cell][0]).mean(), "exact_text": group["exact"].mean(),
                     **(amounts.loc[cell].to_dict() if cell in amounts.index else {})})
    table = pd.DataFrame(rows)
    kept = [name for name in ("kind", "name", "mean", "without_outliers") if name in accuracies]
    table = table.merge(accuracies[[*CELL, *kept]], on=CELL)
    whole = [name for name in ("steps", "batch") if name in table and (table[name] % 1 == 0).all()]
    table = table.astype(dict.fromkeys(whole, int))
    if (table["protocol"] == "fair").all():
        return table.head(0)
    order = {kind: place for place, kind in enumerate(dict.fromkeys(table["kind"]))}
    first = [*CELL, "kind", "name", "protocol", "mean", "same_answer", "exact_text"]
    table = table[[*first, *(name for name in table if name not in first)]]
    return table.sort_values(["dataset", "student", "kind", "teacher", "prompting"], kind="stable",
                             key=lambda column: column.map(order) if column.name == "kind" else column,
                             ignore_index=True)


def short_accuracies(accuracies: pd.DataFrame) -> pd.DataFrame:
    """Return what a reader needs of accuracy_table, in percent, the highest first.

    Columns: cell, accuracy, 95 % interval, without outliers (if accuracy_table has it), no choice (answers that are
    none of the choices), seeds and, if any run failed, failed. `accuracies`: rows of runs_table.split_by_student.
    """
    rows = accuracies.sort_values("mean", ascending=False, kind="stable", na_position="last")
    table = pd.DataFrame({
        "cell": rows["cell"], "accuracy, %": 100 * rows["mean"],
        "95 % interval": [f"{100 * low:.1f} to {100 * high:.1f}" if low == low else "–"
                          for low, high in zip(rows["low"], rows["high"], strict=True)],
        **({"without outliers, %": 100 * rows["without_outliers"]} if "without_outliers" in rows else {}),
        "no choice, %": 100 * rows["no_choice"], "seeds": rows["n_seeds"], "failed": rows["n_failed"]})
    return table.drop(columns=[] if table["failed"].any() else "failed").reset_index(drop=True)


def without_outliers(runs: pd.DataFrame) -> pd.DataFrame:
    """Return per cell: CELL, seeds, all (mean accuracy), outliers (number), kept (mean accuracy without outliers).

    Outliers are those of groups.iqr_outliers. The published analysis (arXiv 2504.16056) removes them; this study only
    shows the effect and removes none.
    """
    ended = runs[runs["accuracy"].notna()].reset_index(drop=True)
    ended["outlier"] = iqr_outliers(ended, "accuracy", CELL)
    table = ended.groupby(CELL, sort=False).agg(seeds=("accuracy", "size"), all=("accuracy", "mean"),
                                                outliers=("outlier", "sum"))
    return table.assign(kept=ended[~ended["outlier"]].groupby(CELL)["accuracy"].mean()).reset_index()


def measure_names(measures: pd.DataFrame, pattern: str) -> list[str]:
    """Return the names of measures that match the regular expression `pattern` fully, in order of appearance."""
    return [name for name in measures["measure"].unique() if re.fullmatch(pattern, name)]


def fooled(measures: pd.DataFrame, fakes: pd.DataFrame, accuracies: pd.DataFrame) -> dict[str, str]:
    """Return {measure: why it is no evidence of good explanations}: those by which a fake is as good as a real student.

    `measures`, `fakes`: see runs_table. `accuracies`: accuracy_table; its column control_of says which cells are
    controls, and these are no real students. A fake is compared with the cell whose answers it gives and whose
    references it has: its mean with the mean of the cell (fake_texts.as_good).
    """
    if measures.empty or fakes.empty:
        return {}
    cells = in_domain(measures).groupby([*CELL, "measure"], sort=False)["value"].mean().reset_index()
    controls = accuracies[accuracies["control_of"] != ""].set_index(CELL).index
    cells = cells[~cells.set_index(CELL).index.isin(controls)]
    means = fakes.groupby([*CELL, "measure", "fake"], sort=False)["value"].mean().reset_index()
    both, reasons = cells.merge(means, on=[*CELL, "measure"], suffixes=("", "_fake")), {}
    for measure, part in both.groupby("measure", sort=False):
        beaten = part[[as_good(measure, *pair) for pair in zip(part["value_fake"], part["value"], strict=True)]]
        counts = {fake: int((beaten["fake"] == fake).sum()) for fake in FAKES}
        of = len(part.drop_duplicates(CELL))
        if len(beaten):
            reasons[measure] = "at least as good as a student: " + ", ".join(
                f"'{fake}' in {count} of {of} cell{'s' if of > 1 else ''}"
                for fake, count in sorted(counts.items(), key=lambda one: -one[1]) if count)
    return reasons


def explanation_table(measures: pd.DataFrame, names: Sequence[str], fakes: pd.DataFrame | None = None,
                      marked: Collection[str] = ()) -> pd.DataFrame:
    """Return one row per cell with a text per measure of `names`: mean ± standard deviation over seeds.

    The cell with the highest value of the first measure comes first. With `fakes` (runs_table.read_fakes) a row per
    fake and teacher, to whose texts it is compared, follows, in the column of the method. The names of `marked`
    measures end with a star.
    """
    if fakes is not None and len(fakes):
        rows = fakes.assign(method=FAKE + fakes["fake"], prompting="-", seed=0)
        rows = rows.groupby([*CELL, "seed", "measure"], sort=False)["value"].mean().reset_index()
        measures = pd.concat([measures, rows], ignore_index=True)
    part = measures[measures["measure"].isin(names)]
    means = part.groupby([*CELL, "measure"], sort=False)["value"].agg(["mean", "std"])
    digits = [1 if measure == "words" else 3 for measure in means.index.get_level_values("measure")]
    gap = " ±\N{NO-BREAK SPACE}"
    means["text"] = [f"{mean:.{digit}f}{'' if np.isnan(sd) else f'{gap}{sd:.{digit}f}'}".replace("-", "−")
                     for mean, sd, digit in zip(means["mean"], means["std"], digits, strict=True)]
    table = means["text"].unstack("measure").reindex(columns=names).reset_index().rename_axis(None, axis=1)
    level = means["mean"].unstack("measure").get(names[0]) if len(names) else None
    order = part[CELL].drop_duplicates()
    if level is not None:
        fake = order["method"].str.startswith(FAKE)
        order = order.assign(fake=fake, level=-level.reindex(pd.MultiIndex.from_frame(order)).to_numpy()).sort_values(
            ["fake", "level"], kind="stable")[CELL]
    return starred(order.merge(table, on=CELL), marked)


def accuracy_and_measure(runs: pd.DataFrame, measures: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Return the rows of `runs` that have an accuracy and a value of `measure`, with that value in a column `value`."""
    wanted = measures.loc[measures["measure"] == measure, [*CELL, "seed", "value"]]
    return runs[runs["accuracy"].notna()].merge(wanted, on=[*CELL, "seed"])


def choose_measure(measures: pd.DataFrame, wanted: str = "") -> str:
    """Return `wanted` or, if it is "", the first of las, rouge_l_teacher and words that was measured, or ""."""
    measured = set(measures["measure"])
    return wanted or next((name for name in ("las", "rouge_l_teacher", "words") if name in measured), "")


def mean_costs(costs: pd.DataFrame) -> pd.DataFrame:
    """Return per cell the means of runs_table.cost_table over the seeds that were trained to the end, and n_seeds."""
    done = costs[costs["state"] == "done"]
    groups = done.groupby(CELL, sort=False)
    numbers = [name for name in costs if name not in (*CELL, "protocol", "seed", "state")]
    means = groups[numbers].mean().assign(n_seeds=groups.size()).reset_index()
    whole = [name for name in numbers if (means[name].dropna() % 1 == 0).all() and means[name].notna().all()]
    return means.astype(dict.fromkeys(whole, int))


def running_cost_table(running: pd.DataFrame, accuracies: pd.DataFrame, measures: pd.DataFrame,
                       measure: str = "") -> pd.DataFrame:
    """Return what students cost to run beside how good they are: a row per cell and form of the weights, best first.

    `running`: see runs_table.read_running_costs. The first row of a cell also has its accuracy over all seeds and
    questions, and the measure of its explanations that is called `measure` (if it is "": the share of true statements
    where it was measured, else that of choose_measure). `accuracy measured` is that of the student whose cost it is, on
    the questions of the measurement; `newly right` and `newly wrong` count the answers that are right, or wrong,
    with these weights and not with float32.
    """
    chosen = measure or ("true_share" if (measures["measure"] == "true_share").any() else choose_measure(measures))
    quality = measures[measures["measure"] == chosen].groupby(CELL)["value"].mean().rename(chosen or "explanations")
    table = in_domain(running).merge(accuracies[[*CELL, "mean"]], on=CELL, how="left")
    table = table.merge(quality.reset_index(), on=CELL, how="left")
    table = table.sort_values("mean", ascending=False, kind="stable", ignore_index=True)
    shown = pd.DataFrame({
        "weights": table["weights"], "accuracy over seeds, %": (100 * table["mean"]).round(1),
        quality.name: pd.to_numeric(table[quality.name]).round(2),
        "million parameters": (table["parameters"] / 1e6).round(2),
        "MB": (table["bytes"] / 1e6).round(1), "peak MiB": table["peak_memory_mib"].round(),
        "of which libraries": table["libraries_mib"].round(), "ms per answer": table["answer_ms"].round(1),
        "ms per explanation": pd.to_numeric(table["explanation_ms"]).round(1),
        "accuracy measured, %": (100 * table["accuracy"]).round(1),
        "newly right": table["gained"], "newly wrong": table["lost"]})
    shown.loc[table["weights"] != "float32", ["accuracy over seeds, %", quality.name]] = None
    return pd.concat([table[CELL], shown], axis=1)


def unequal_training(costs: pd.DataFrame) -> str:
    """Return which amounts of training differ between the methods of a student on a data set, "" if none does.

    A fair comparison needs the same effective batch, number of questions and number of epochs. Methods of different
    protocols (column `protocol`) may differ.
    """
    same = costs.groupby(["dataset", "student", "protocol"])[["effective_batch", "questions", "epochs"]].nunique()
    return "; ".join(f"{column} of {', '.join(cell[:2])}"
                     for cell, row in same.iterrows() for column in same if row[column] > 1)


# --- transfer


def transfer_table(table: pd.DataFrame, value: str) -> pd.DataFrame:
    """Return the column `value` of every student that was tested on another data set: rows students, columns data sets.

    Its own data set is one of the columns. The frame is empty if no student was tested on another data set.
    """
    moved = table[table["tested_on"] != table["dataset"]]
    own = [key for key in CELL if key != "tested_on"]
    part = add_names(table.merge(moved[own].drop_duplicates(), on=own))
    if part.empty:
        return pd.DataFrame()
    several = part["student"].nunique() > 1
    rows = [f"{row.name} of {row.dataset}" + (f", {row.student}" if several else "")
            for row in part.itertuples(index=False)]
    wide = part.assign(row=rows).pivot_table(index="row", columns="tested_on", values=value, sort=False)
    return wide.rename_axis(index=None, columns=None)


# --- reading the texts themselves


def side_by_side(inputs: Inputs, texts: Mapping[tuple, Mapping[str, str]], predictions: pd.DataFrame, count: int,
                 seed: int = 0) -> pd.DataFrame:
    """Return `count` drawn test questions of each data set with the explanations of teachers and of each cell.

    A cell is represented by the student of its lowest seed. `texts`: {cell: {question id: rationale}}. Columns:
    question, choices, answer, who, predicted, explanation.
    """
    rows = []
    for _, mine in in_domain(predictions).groupby("dataset", sort=False):
        cells = list(mine.groupby(CELL, sort=False).groups)
        questions = inputs[cells[0]][0]
        asked = questions[questions["id"].isin(set(mine["id"]))]
        of_teachers = {cell[1:3]: texts[cell] for cell in cells if texts.get(cell)}
        for item in asked.sample(min(count, len(asked)), random_state=seed).to_dict("records"):
            rows += _explanations_of(item, of_teachers, mine)
    return pd.DataFrame(rows)


def _explanations_of(item, of_teachers, predictions):
    """Return one row per teacher and prompting and one per student that answered `item`."""
    rows = [{"who": f"teacher {teacher}, {prompting}", "predicted": "", "explanation": written.get(item["id"])}
            for (teacher, prompting), written in of_teachers.items()]
    own = add_names(predictions[predictions["id"] == item["id"]].sort_values("seed", kind="stable"))
    rows += [{"who": f"{row['student']}, {row['name']}", "predicted": row["predicted"] or "(no answer found)",
              "explanation": row["explanation"]} for row in own.drop_duplicates(CELL).to_dict("records")]
    first = {"question": item["question"], "choices": ", ".join(item["choices"]), "answer": item["answer"]}
    return [{**(first if place == 0 else dict.fromkeys(first, "")), **row,
             "explanation": row["explanation"] or "(none)"} for place, row in enumerate(rows)]
