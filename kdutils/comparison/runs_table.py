"""What a comparison reads: every run of an experiment, its predictions, texts and inputs, and what a cell is called.

A *cell* is what the seeds of one student share: CELL. `tested_on` is the data set whose questions were asked; where it
differs from `dataset`, the one trained on, the cell is a transfer, and only the tables of transfer have it.
"""

import re

import pandas as pd
from scipy.stats import binomtest

from kdutils.data.tables import read_explanations, read_table
from kdutils.errors import StudyError
from kdutils.evaluation.attribution_overlap import MEASURES as OVERLAPS
from kdutils.runs import project_path, read_csv, read_json

CELL = ["dataset", "teacher", "prompting", "student", "method", "tested_on"]
PER_RUN = ["accuracy", "likelihood", "per_token", "exact", "unread", "no_choice", "calibration_error"]
BASELINE = "label_only"
CONTROLS = {"shuffled": "multitask", "random_tokens": "token_rationale", "untagged": "counterfactual"}


def read_evaluations(folders, trainings=(), missing=()):
    """Return (runs, predictions) of an experiment.

    `runs` has one row per student and seed: CELL, seed, kind (of the method, where its name is another), state, and
    PER_RUN, empty for a run without predictions. `state` is ``done``, ``below chance`` (by the binomial test of this
    run alone, p < 0.025: many a diverged student is there), ``failed: <reason>`` (`trainings`) or ``missing``
    (`missing`: folders of evaluations that were not reached). `predictions` is a frame of tables.PREDICTIONS with CELL,
    kind and chance. Both have the `name` of the cell, see named().
    """
    kinds, rows, predictions = method_kinds(trainings), [], []
    for folder in map(project_path, folders):
        metrics = read_json(folder / "metrics.json")
        cell = cell_of(metrics["labels"], kinds)
        if not metrics["seeds"]:
            continue
        chance = metrics["accuracy"]["chance"]
        table = read_table(folder / "predictions.parquet", "predictions").assign(**cell, chance=chance)
        predictions.append(table)
        for seed, values in metrics["seeds"].items():
            state = _state(table.loc[table["seed"] == int(seed), "correct"], chance)
            rows.append({**cell, "seed": int(seed), "state": state, **values,
                         "calibration_error": metrics.get("calibration_error")})
    rows += _failed_runs(trainings, kinds) + [row for path in missing for row in _missing_runs(path, kinds)]
    runs = pd.DataFrame(rows, columns=[*CELL, "kind", "seed", "state", *PER_RUN])
    runs = named(runs.drop_duplicates([*CELL, "seed"]).astype(dict.fromkeys(PER_RUN, float)).reset_index(drop=True))
    if not predictions:
        raise StudyError("a comparison needs an evaluation with one seed at least; all that there are failed")
    predictions = pd.concat(predictions, ignore_index=True)
    return runs, predictions.merge(runs[[*CELL, "name"]].drop_duplicates(CELL), on=CELL)


def _state(correct, chance):
    low = chance and binomtest(int(correct.sum()), len(correct), chance, alternative="less").pvalue < 0.025
    return "below chance" if low else "done"


def method_kinds(trainings):
    """Return {name of a method in the experiment: the method that it is}, as its trainings say."""
    found = [read_json(project_path(folder) / "metrics.json") for folder in trainings]
    return {metrics["labels"].get("method", "-"): metrics.get("method", "-") for metrics in found}


def cell_of(labels, kinds):
    """Return CELL and kind of the labels of a run."""
    cell = {key: labels.get(key, "-") for key in CELL}
    return {**cell, "tested_on": labels.get("tested_on", cell["dataset"]),
            "kind": kinds.get(cell["method"], cell["method"])}


def _failed_runs(trainings, kinds):
    found = [read_json(project_path(folder) / "metrics.json") for folder in trainings]
    return [{**cell_of(metrics["labels"], kinds), "seed": int(seed), "state": f"failed: {record['failed']}"}
            for metrics in found for seed, record in metrics["seeds"].items() if "failed" in record]


def _missing_runs(path, kinds):
    """Return the rows of an evaluation that is not there, from its folder as experiments.py names it."""
    found = re.search(r"(?:^|/)evaluations/([^/]+)/(?:([^/]+)/([^/]+)/)?([^/]+)/([^/]+)/seeds-([\d-]+)$", path)
    if not found:
        return []
    names = ("dataset", "teacher", "prompting", "method", "student")
    labels = {name: value or "-" for name, value in zip(names, found.groups(), strict=False)}
    return [{**cell_of(labels, kinds), "seed": int(seed), "state": "missing"} for seed in found[6].split("-")]


def read_measures(folders):
    """Return one row per run and measure of its explanations: CELL, kind, seed, measure, value.

    Measures are those of explanations.py, simulating.py and attributing.py, and of each probe of probing.py
    ``behind <probe>: right`` and ``behind <probe>: as asserted``.
    """
    rows = []
    for folder in map(project_path, folders):
        metrics = read_json(folder / "metrics.json")
        cell = cell_of(metrics["labels"], {})
        for record in [*_records(metrics, "explanations"), *_records(metrics, "simulatability")]:
            rows += [{**cell, "seed": record["seed"], "measure": name, "value": value}
                     for name, value in record.items() if name != "seed" and value is not None]
        for record in _records(metrics, "attribution_overlap"):
            rows += [{**cell, "seed": record["seed"], "measure": name, "value": record[name]} for name in OVERLAPS
                     if record[name] is not None]
        for record in _records(metrics, "probes"):
            for name, value in (("right", record["accuracy"]), ("as asserted", record["asserted answer given"])):
                rows.append({**cell, "seed": record["seed"], "measure": f"behind {record['probe']}: {name}",
                             "value": value})
    table = pd.DataFrame(rows, columns=[*CELL, "seed", "measure", "value"]).dropna(subset="value")
    return table.astype({"seed": int, "value": float}).reset_index(drop=True)


def read_notes(folders):
    """Return CELL and `note` of every sentence that an evaluation says of its own numbers, such as what was cut."""
    rows = []
    for folder in map(project_path, folders):
        metrics = read_json(folder / "metrics.json")
        rows += [{**cell_of(metrics["labels"], {}), "note": note} for note in _records(metrics, "notes")]
    return pd.DataFrame(rows, columns=[*CELL, "note"]).drop_duplicates(ignore_index=True)


def _records(metrics, key):
    """Return the list of records under `key`; runs of older versions have something else there, or nothing."""
    found = metrics.get(key) or []
    return found if isinstance(found, list) else []


def read_scores(folders):
    """Return the measures of every single text with CELL, in one frame.

    They are those of explanation_scores.csv of the evaluations and, of the answers that were attributed, of
    attribution_overlap.csv.
    """
    tables = []
    for folder in map(project_path, folders):
        table = _read_csv(folder / "explanation_scores.csv")
        if len(table):
            cell = cell_of(read_json(folder / "metrics.json")["labels"], {})
            if len(overlaps := _read_csv(folder / "attribution_overlap.csv")):
                table = table.merge(overlaps[["id", "seed", *OVERLAPS]], on=["id", "seed"], how="left")
            tables.append(table.assign(**{key: cell[key] for key in CELL}))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=[*CELL, "id", "seed"])


def _read_csv(path):
    """Return a table of texts; an empty frame where the file is empty or not there."""
    if path.is_file() and path.read_text(encoding="utf-8").strip():
        return read_csv(path, dtype={"id": str})
    return pd.DataFrame()


def read_inputs(folders):
    """Return {cell: (questions, explanations)}: the tables that the evaluations read, as their run.json names them."""
    tables, found = {}, {}
    for folder in map(project_path, folders):
        cell = cell_of(read_json(folder / "metrics.json")["labels"], {})
        given = read_json(folder / "run.json")["parameters"]
        paths = given["questions"], given.get("explanations", "")
        if paths not in tables:
            tables[paths] = read_table(project_path(paths[0]), "questions"), read_explanations(paths[1])
        found[tuple(cell[key] for key in CELL)] = tables[paths]
    return found


def cost_table(folders):
    """Return one row per trained student: CELL, seed, state, what it saw (questions, batch …) and what it cost."""
    seen = ("effective_batch", "epochs", "steps", "questions", "target_tokens", "model_parameters")
    rows = []
    for folder in map(project_path, folders):
        metrics, costs = read_json(folder / "metrics.json"), read_json(folder / "costs.json")
        for seed, record in metrics["seeds"].items():
            cost = costs.get(seed) or record.get("cost") or {}
            rows.append({**cell_of(metrics["labels"], {}), "seed": int(seed),
                         "state": "failed" if "failed" in record else "done",
                         **{key: record.get(key) for key in seen},
                         **{key: cost.get(key) for key in ("seconds", "peak_memory_mib")}})
    return pd.DataFrame(rows, columns=[*CELL, "seed", "state", *seen, "seconds", "peak_memory_mib"])


# --- cells and their names


def in_domain(table):
    """Return the rows whose questions are of the data set that was trained on."""
    return table[table["tested_on"] == table["dataset"]]


def named(table):
    """Return `table` with a column `name` of the cell: method (prompting), with the teacher where there are several."""
    if "name" in table:
        return table
    taught = table[table["teacher"] != "-"].groupby(["dataset", "prompting"])["teacher"].nunique()
    names = [_name(row, taught.get((row["dataset"], row["prompting"]), 1) > 1) for row in table.to_dict("records")]
    return table.assign(name=names)


def _name(row, with_teacher):
    parts = [row["teacher"]] if with_teacher and row["teacher"] != "-" else []
    parts += [row["prompting"]] if row["prompting"] != "-" else []
    return row["method"] + (f" ({', '.join(parts)})" if parts else "")


def short(table):
    """Return `table` to read: the column `cell` for method and prompting, no other column of CELL with one value."""
    table = named(table)
    gone = [key for key in ("teacher", "prompting", "method", "kind") if key in table]
    gone += [key for key in ("dataset", "student") if key in table and table[key].nunique() <= 1]
    gone += ["tested_on"] if "tested_on" in table and (table["tested_on"] == table["dataset"]).all() else []
    rest = [key for key in table if key not in (*gone, "name")]
    front = [key for key in CELL if key in rest]
    order = [*front, "name", *(key for key in rest if key not in front)]
    return table[order].rename(columns={"name": "cell"}).reset_index(drop=True)


def by_student(table):
    """Yield (student on data set, short of its rows)."""
    for cell, rows in table.groupby(["dataset", "student"], sort=False):
        yield where(*cell), short(rows)


def where(dataset, student):
    """Return the words for a student on a data set."""
    return dataset if student == "-" else f"{student} on {dataset}"
