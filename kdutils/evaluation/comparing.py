"""From the runs of an experiment to its comparison: tables, differences and sentences that the numbers allow."""

from itertools import combinations

import pandas as pd

from kdutils.data.tables import read_table
from kdutils.evaluation.accuracy import correct_matrix
from kdutils.runs import project_path, read_json
from kdutils.stats import bootstrap_difference, bootstrap_mean

CELL = ["dataset", "teacher", "prompting", "student", "method"]


def read_evaluations(folders):
    """Return (seed table, predictions) of evaluation folders.

    The seed table has one row per run: CELL, seed and what accuracy_of_seeds returns. The predictions are a
    frame of tables.PREDICTIONS with the columns of CELL, chance and no_choice (mean over seeds) added.
    """
    seeds, predictions = [], []
    for folder in map(project_path, folders):
        metrics = read_json(folder / "metrics.json")
        cell = {key: metrics["labels"].get(key, "-") for key in CELL}
        seeds += [{**cell, "seed": int(seed), **values} for seed, values in metrics["seeds"].items()]
        table = read_table(folder / "predictions.parquet", "predictions")
        outside = sum(values["no_choice"] for values in metrics["seeds"].values()) / len(metrics["seeds"])
        predictions.append(table.assign(**cell, chance=metrics["accuracy"]["chance"], no_choice=outside))
    return pd.DataFrame(seeds), pd.concat(predictions, ignore_index=True)


def accuracy_table(predictions):
    """Return one row per cell: CELL, mean, low and high (bootstrap over seeds and questions), n_seeds, chance …"""
    rows = []
    for cell, group in predictions.groupby(CELL, sort=False):
        mean, low, high = bootstrap_mean(correct_matrix(group))
        rows.append({**dict(zip(CELL, cell, strict=True)), "mean": mean, "low": low, "high": high,
                     "n_seeds": group["seed"].nunique(), "n_questions": group["id"].nunique(),
                     "chance": group["chance"].iloc[0], "no_choice": group["no_choice"].mean()})
    return pd.DataFrame(rows)


def method_differences(predictions):
    """Return the difference of every two methods within the same data set, teacher, prompting and student.

    Columns: those of CELL but the method, first, second, difference (first minus second), low, high, n_seeds
    (of the method that has fewer).
    """
    rows = []
    for cell, group in predictions.groupby(CELL[:-1], sort=False):
        for first, second in combinations(group["method"].unique(), 2):
            matrices = [correct_matrix(group[group["method"] == method]) for method in (first, second)]
            difference, low, high = bootstrap_difference(*matrices)
            rows.append({**dict(zip(CELL[:-1], cell, strict=True)), "first": first, "second": second,
                         "difference": difference, "low": low, "high": high,
                         "n_seeds": min(len(matrix) for matrix in matrices)})
    return pd.DataFrame(rows)


def sentences(accuracies, differences):
    """Return what the numbers allow to be said, one sentence per cell and per pair of methods."""
    return [_level(row) for row in accuracies.to_dict("records")] + \
           [_difference(row) for row in differences.to_dict("records")]


def _level(row):
    where = f"{row['method']} ({row['student']}, {row['dataset']}, {row['prompting']})"
    span = (f"{_percent(row['mean'])} accuracy, 95 % interval {_percent(row['low'])} to {_percent(row['high'])}, "
            f"{row['n_seeds']} seed{'s' if row['n_seeds'] > 1 else ''}, {row['n_questions']} questions")
    if row["low"] > row["chance"]:
        return f"{where}: {span}; above chance ({_percent(row['chance'])})."
    level = "below" if row["high"] < row["chance"] else "not to be told from"
    return (f"{where}: {span}; {level} chance ({_percent(row['chance'])}): "
            f"{_percent(row['no_choice'])} of its answers are none of the choices.")


def _percent(share):
    return f"{100 * share:.1f} %"


def _difference(row):
    where = f"({row['student']}, {row['dataset']}, {row['prompting']})"
    points = f"{100 * row['difference']:+.1f} points, 95 % interval {100 * row['low']:+.1f} to {100 * row['high']:+.1f}"
    if row["n_seeds"] < 2:  # the spread over seeds is unknown: what is told apart is two students, not two methods
        return (f"One seed of {row['first']} and {row['second']} {where}: {points} over questions alone; "
                "nothing follows for the methods.")
    if row["low"] <= 0 <= row["high"]:
        return f"{row['first']} and {row['second']} are not told apart by these runs {where}: {points}."
    better, worse = (row["first"], row["second"]) if row["difference"] > 0 else (row["second"], row["first"])
    return f"{better} is ahead of {worse} {where}: {row['first']} minus {row['second']} is {points}."


def cost_table(folders):
    """Return one row per trained student: CELL, seed, what it saw (questions, batch, epochs …) and what it cost."""
    seen = ("effective_batch", "epochs", "steps", "questions", "target_tokens", "model_parameters")
    rows = []
    for folder in map(project_path, folders):
        metrics, costs = read_json(folder / "metrics.json"), read_json(folder / "costs.json")
        for seed, record in metrics["seeds"].items():
            rows.append({**{key: metrics["labels"].get(key, "-") for key in CELL}, "seed": int(seed),
                         **{key: record[key] for key in seen},
                         **{key: costs[seed][key] for key in ("seconds", "peak_memory_mib")}})
    return pd.DataFrame(rows)


def unfair_cells(costs):
    """Return what differs between methods that are compared: "" when all saw the same (design of the study)."""
    same = costs.groupby(["dataset", "student"])[["effective_batch", "questions", "epochs"]].nunique()
    return "; ".join(f"{column} of {', '.join(cell)}"
                     for cell, row in same.iterrows() for column in same if row[column] > 1)


def side_by_side(folders, predictions, count, seed=0):
    """Return `count` drawn questions of each data set with the explanation of teacher and students (lowest seed).

    `folders`: the evaluation runs, whose run.json names the tables that they read. Columns: question,
    choices, answer, who, predicted, explanation.
    """
    rows = []
    for (dataset, teacher), folder in _first_folders(folders).items():
        read = read_json(folder / "run.json")["parameters"]
        questions = read_table(project_path(read["questions"]), "questions")
        texts = read_table(project_path(read["explanations"]), "explanations").drop_duplicates("id")
        mine = predictions[(predictions["dataset"] == dataset) & (predictions["teacher"] == teacher)]
        asked = questions[questions["id"].isin(set(mine["id"]))]
        for item in asked.sample(min(count, len(asked)), random_state=seed).to_dict("records"):
            rows += _voices(item, dict(zip(texts["id"], texts["text"], strict=True)), mine, teacher)
    return pd.DataFrame(rows)


def _first_folders(folders):
    found = {}
    for folder in map(project_path, folders):
        labels = read_json(folder / "metrics.json")["labels"]
        found.setdefault((labels.get("dataset", "-"), labels.get("teacher", "-")), folder)
    return found


def _voices(item, texts, predictions, teacher):
    """Return one row for the teacher and one per student that answered `item`."""
    blank = {"question": "", "choices": "", "answer": ""}
    rows = [{"question": item["question"], "choices": ", ".join(item["choices"]), "answer": item["answer"],
             "who": f"teacher ({teacher})", "predicted": "", "explanation": texts.get(item["id"]) or "(none)"}]
    own = predictions[(predictions["id"] == item["id"]) & (predictions["seed"] == predictions["seed"].min())]
    return rows + [{**blank, "who": f"{row['student']}, {row['method']}, {row['prompting']}",
                    "predicted": row["predicted"] or "(no answer read)", "explanation": row["explanation"] or "(none)"}
                   for row in own.to_dict("records")]
