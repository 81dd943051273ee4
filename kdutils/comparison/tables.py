"""From the runs of an experiment to the tables of its comparison: accuracy, explanations, costs, errors, transfer.

What is read, and what a cell is: reading.py. What the tables allow to be concluded: differences.py (tests),
concluding.py (sentences) and published.py (numbers to set beside them).
"""

import re

import numpy as np
import pandas as pd

from kdutils.comparison.runs_table import BASELINE, CELL, CONTROLS, PER_RUN, in_domain, named
from kdutils.errors import StudyError
from kdutils.evaluation.accuracy import correct_matrix
from kdutils.evaluation.error_analysis import accuracy_by_question_group, won_and_lost
from kdutils.stats.accuracy import bootstrap_mean
from kdutils.stats.groups import iqr_outliers

MEASURES = {  # what the tables of explanations show, by what it asks
    "likeness to a reference": r"(bleu|rouge_l|bertscore)_.*",
    "the texts by themselves": r"words|repetition|names_answer|names_gold|distractors|copied|distinct_\d",
    "foreseeing the answer": r"las.*|leaking|qbe|reader of .*",
    "words that drive the answer": r"overlap.*",
    "answers behind forced texts": r"behind .*",
}


def accuracy_table(runs, predictions):
    """Return one row per cell, those without any result too.

    mean, low, high: accuracy, bootstrap over seeds and questions (95 %); sd: standard deviation over seeds;
    likelihood and per_token: mean accuracy of the likeliest choice; calibration_error, no_choice: means; n_seeds,
    n_failed (failed or missing: they are in no mean), n_questions, chance.
    """
    rows = []
    answered = dict(list(predictions.groupby(CELL, sort=False)))
    for cell, group in runs.groupby(CELL, sort=False):
        row = {**dict(zip(CELL, cell, strict=True)), **group[["kind", "name"]].iloc[0]}
        if (found := answered.get(cell)) is not None:
            mean, low, high = bootstrap_mean(correct_matrix(found))
            row |= {"mean": mean, "low": low, "high": high, "chance": found["chance"].iloc[0],
                    "n_questions": found["id"].nunique()}
        ended = group["accuracy"].notna()
        rows.append({**row, "sd": group["accuracy"].std(), **group[PER_RUN].drop(columns="accuracy").mean(),
                     "n_seeds": int(ended.sum()), "n_failed": int((~ended).sum())})
    columns = ["mean", "low", "high", "sd", "likelihood", "per_token", "exact", "calibration_error", "no_choice",
               "chance", "n_seeds", "n_failed", "n_questions"]
    table = pd.DataFrame(rows).reindex(columns=[*CELL, "kind", "name", *columns])
    counts = [int(count) if count == count else None for count in table["n_questions"]]
    return table.assign(n_questions=pd.Series(counts, dtype=object))


def without_outliers(runs):
    """Return one row per cell: seeds, mean accuracy of all, how many stats.iqr_outliers names, the mean of those kept.

    The published analysis drops them (arXiv 2504.16056); this study shows what that would do and drops none.
    """
    ended = runs[runs["accuracy"].notna()].reset_index(drop=True)
    ended["outlier"] = iqr_outliers(ended, "accuracy", "name")
    table = ended.groupby("name", sort=False).agg(seeds=("accuracy", "size"), all=("accuracy", "mean"),
                                                  outliers=("outlier", "sum"))
    return table.assign(kept=ended[~ended["outlier"]].groupby("name")["accuracy"].mean()).reset_index()


def measure_names(measures, pattern):
    """Return the measures whose whole name matches `pattern`, in the order in which they were met."""
    return [name for name in measures["measure"].unique() if re.fullmatch(pattern, name)]


def explanation_table(measures, names):
    """Return one row per cell: the mean of each of `names` over seeds ± their standard deviation, as texts."""
    part = measures[measures["measure"].isin(names)]
    found = part.groupby([*CELL, "measure"], sort=False)["value"].agg(["mean", "std"])
    digits = [1 if measure == "words" else 3 for measure in found.index.get_level_values("measure")]
    gap = "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}"
    found["text"] = [f"{mean:.{digit}f}{'' if np.isnan(sd) else f'{gap}{sd:.{digit}f}'}".replace("-", "−")
                     for mean, sd, digit in zip(found["mean"], found["std"], digits, strict=True)]
    table = found["text"].unstack("measure").reindex(columns=names).reset_index().rename_axis(None, axis=1)
    order = part[CELL].drop_duplicates()
    return order.merge(table, on=CELL)


def quality_and_accuracy(runs, measures, measure):
    """Return one row per run that has both: CELL, kind, seed, accuracy and value (of `measure`)."""
    wanted = measures.loc[measures["measure"] == measure, [*CELL, "seed", "value"]]
    return runs[runs["accuracy"].notna()].merge(wanted, on=[*CELL, "seed"])


def usual_measure(measures, wanted=""):
    """Return `wanted`, or the measure to set beside accuracy: LAS, else likeness to the teacher, "" without any."""
    there = set(measures["measure"])
    if wanted and there and wanted not in there:
        raise StudyError(f"measure: {wanted!r} was not measured here; there are {', '.join(sorted(there))}")
    return next((name for name in (wanted, "las", "rouge_l_teacher", "words") if name in there), "")


def mean_costs(costs):
    """Return one row per cell of students that were trained to the end: means over seeds, and how many they are."""
    done = costs[costs["state"] == "done"]
    groups = done.groupby(CELL, sort=False)
    numbers = [name for name in costs if name not in (*CELL, "seed", "state")]
    means = groups[numbers].mean().assign(n_seeds=groups.size()).reset_index()
    whole = [name for name in numbers if (means[name].dropna() % 1 == 0).all() and means[name].notna().all()]
    return means.astype(dict.fromkeys(whole, int))


def unfair_cells(costs):
    """Return what differs between methods that are compared: "" when all saw the same (design of the study)."""
    same = costs.groupby(["dataset", "student"])[["effective_batch", "questions", "epochs"]].nunique()
    return "; ".join(f"{column} of {', '.join(cell)}"
                     for cell, row in same.iterrows() for column in same if row[column] > 1)


def controls_table(accuracies, tests):
    """Return one row per method that has a control: mean accuracies of the method, the control and label_only."""
    own = in_domain(accuracies)
    means = own.set_index(["dataset", "student", "name"])["mean"]
    found = tests.loc[tests["comparison"] == "control", ["dataset", "student", "first", "second"]]
    table = found.rename(columns={"first": "method", "second": "control"}).reset_index(drop=True)
    for column in ("method", "control"):
        keys = zip(table["dataset"], table["student"], table[column], strict=True)
        table[f"accuracy of {column}"] = [means[key] for key in keys]
    baselines = own[own["kind"] == BASELINE].drop_duplicates(["dataset", "student"])
    return table.merge(baselines[["dataset", "student", "mean"]].rename(columns={"mean": f"accuracy of {BASELINE}"}),
                       on=["dataset", "student"], how="left")


# --- errors


def behind_baseline(predictions, inputs, texts):
    """Return per kind of question how far each method is from label_only, in percentage points: tests none of it.

    `inputs`: read_inputs; `texts`: {cell: {question id: rationale}}. Columns: dataset, student, name (of the cell),
    questions with, questions (their number), difference (method minus label_only). Controls are left out.
    """
    rows = []
    for baseline, part in _with_baseline(predictions):
        for cell, group in part.groupby(CELL, sort=False):
            questions = inputs[cell][0]
            found = accuracy_by_question_group(group, baseline, questions, texts.get(cell, {}))
            rows.append(named(group)[["dataset", "student", "name"]].head(1).merge(found, how="cross"))
    table = pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(
        columns=["dataset", "student", "name", "questions with", "questions", "difference"])
    return table.drop(columns=["first", "second"], errors="ignore").assign(difference=100 * table["difference"])


def kinds_side_by_side(kinds):
    """Return behind_baseline with a column per method: points, and in brackets the number of questions."""
    texts = [f"{points:+.1f} ({count})".replace("-", "−")
             for points, count in zip(kinds["difference"], kinds["questions"], strict=True)]
    order = list(kinds["questions with"].unique())
    table = kinds.assign(text=texts).pivot(index="questions with", columns="name", values="text")
    return table.reindex(index=order, columns=list(kinds["name"].unique())).reset_index().rename_axis(None, axis=1)


def furthest_behind(predictions, inputs, count, seed):
    """Return [(caption, won_and_lost)] of the method that is furthest behind label_only, per data set and student."""
    found = []
    for baseline, part in _with_baseline(predictions):
        level = part.groupby(CELL, sort=False)["correct"].mean()
        group = part[(part[CELL] == list(level.idxmin())).all(axis=1)]
        head = named(group).iloc[0]
        table = won_and_lost(group, baseline, inputs[level.idxmin()][0], count, seed)
        table = table.rename(columns={"first says": f"{head['name']} says", "second says": f"{BASELINE} says"})
        found.append((f"{head['name']} against {BASELINE}: {head['dataset']}, {head['student']}", table))
    return found


def _with_baseline(predictions):
    """Yield (predictions of label_only, those of the distilled students) per data set and student that has both."""
    for _, group in in_domain(predictions).groupby(["dataset", "student"], sort=False):
        own = group["kind"] == BASELINE
        distilled = group[~own & ~group["kind"].isin(list(CONTROLS))]
        if own.any() and len(distilled):
            yield group[own], distilled


# --- transfer


def transfer_table(table, value):
    """Return `value` (a column) of every student that was tested on another data set: rows students, columns data sets.

    Its own data set is beside the others. Empty where no student was tested elsewhere.
    """
    moved = table[table["tested_on"] != table["dataset"]]
    own = [key for key in CELL if key != "tested_on"]
    part = named(table.merge(moved[own].drop_duplicates(), on=own))
    if part.empty:
        return pd.DataFrame()
    several = part["student"].nunique() > 1
    rows = [f"{row.name} of {row.dataset}" + (f", {row.student}" if several else "")
            for row in part.itertuples(index=False)]
    wide = part.assign(row=rows).pivot_table(index="row", columns="tested_on", values=value, sort=False)
    return wide.rename_axis(index=None, columns=None)


# --- reading the texts themselves


def side_by_side(inputs, texts, predictions, count, seed=0):
    """Return `count` drawn questions of each data set with the explanation of teachers and students (lowest seed).

    `inputs`: read_inputs; `texts`: {cell: {question id: rationale}}. Columns: question, choices, answer, who,
    predicted, explanation.
    """
    rows = []
    for _, mine in in_domain(predictions).groupby("dataset", sort=False):
        cells = list(mine.groupby(CELL, sort=False).groups)
        questions = inputs[cells[0]][0]
        asked = questions[questions["id"].isin(set(mine["id"]))]
        told = {cell[1:3]: texts[cell] for cell in cells if texts.get(cell)}
        for item in asked.sample(min(count, len(asked)), random_state=seed).to_dict("records"):
            rows += _voices(item, told, mine)
    return pd.DataFrame(rows)


def _voices(item, told, predictions):
    """Return one row per teacher and prompting and one per student that answered `item`."""
    voices = [{"who": f"teacher {teacher}, {prompting}", "predicted": "", "explanation": known.get(item["id"])}
              for (teacher, prompting), known in told.items()]
    own = named(predictions[predictions["id"] == item["id"]].sort_values("seed", kind="stable"))
    voices += [{"who": f"{row['student']}, {row['name']}", "predicted": row["predicted"] or "(no answer read)",
                "explanation": row["explanation"]} for row in own.drop_duplicates(CELL).to_dict("records")]
    first = {"question": item["question"], "choices": ", ".join(item["choices"]), "answer": item["answer"]}
    return [{**(first if place == 0 else dict.fromkeys(first, "")), **voice,
             "explanation": voice["explanation"] or "(none)"} for place, voice in enumerate(voices)]
