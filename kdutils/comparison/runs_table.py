"""What a comparison reads: all runs of an experiment with their predictions, explanations and inputs.

A *cell* is what the seeds of one student share: the columns CELL. `tested_on` is the data set of the test questions. If
it differs from `dataset`, on which the student was trained, the cell is a transfer; only tables of transfer use those.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

import pandas as pd
from scipy.stats import binomtest

from kdutils.data.tables import read_explanations, read_table
from kdutils.errors import StudyError
from kdutils.evaluation.attribution_overlap import MEASURES as OVERLAPS
from kdutils.evaluation.simulatability import values_of_questions
from kdutils.runs import project_path, read_csv, read_json
from kdutils.student.methods import METHODS
from kdutils.student.settings import chosen_settings

CELL = ["dataset", "teacher", "prompting", "student", "method", "tested_on"]
TRAINED = CELL[:-1]  # of a student, wherever it is tested
PER_RUN = ["accuracy", "likelihood", "per_token", "exact", "unread", "no_choice", "calibration_error", "exact_match",
           "f1"]
Inputs = dict[tuple[str, ...], tuple[pd.DataFrame, pd.DataFrame]]  # cell: questions and explanations
BASELINE = "label_only"  # the method without explanations, with which all others are compared
UNEXPLAINED = tuple(name for name, method in METHODS.items() if method.explanation is None)
PROBABLE = ("soft_multitask", "token_kl")  # they learn explanations and probabilities, so either can be why they differ


def read_evaluations(folders: Iterable[str], trainings: Iterable[str] = (), missing: Iterable[str | dict] = (),
                     control_of: Mapping[str, str] | None = None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return (runs, predictions) of an experiment, from the folders of its evaluations and trainings.

    `runs` has one row per student and seed: CELL, name (see add_names), kind (the registered method; an experiment may
    give it another name), seed, state and PER_RUN, which is empty for a run without predictions. state is one of
    ``done``; ``below chance`` (binomial test of this run, one-sided p < 0.025; often a diverged student);
    ``failed: <reason>``, from the trainings; ``missing``. `predictions` is a frame of tables.PREDICTIONS with CELL,
    name, kind, protocol, chance (accuracy of guessing, 0 to 1), control_of and settings (method_settings).

    `missing`: evaluations without a result. An entry {"folder", "labels", "seeds"} gives one row per seed; a string is
    a folder whose labels are unknown, and gives none. `control_of`: {method: the method whose control it is}. Raises
    StudyError if no evaluation has a result, and if the predictions of a seed are missing.
    """
    kinds, settings, rows, predictions = method_kinds(trainings), method_settings(trainings), [], []
    for folder in map(project_path, folders):
        metrics = read_json(folder / "metrics.json")
        cell = cell_of(metrics["labels"], kinds)
        if not metrics["seeds"]:
            continue
        chance = metrics["accuracy"]["chance"]
        table = read_table(folder / "predictions.parquet", "predictions").assign(
            **cell, chance=chance, control_of=(control_of or {}).get(cell["kind"], ""))
        table["settings"] = [settings.get(tuple(cell[key] for key in TRAINED))] * len(table)
        predictions.append(table)
        for seed, values in metrics["seeds"].items():
            correct = table.loc[table["seed"] == int(seed), "correct"]
            if correct.empty:
                raise StudyError(f"{folder / 'predictions.parquet'}: no predictions of seed {seed}; "
                                 "run notebook 21 again")
            state = _state(correct, chance)
            rows.append({**cell, "seed": int(seed), "state": state, **values,
                         "calibration_error": metrics.get("calibration_error")})
    rows += _failed_runs(trainings, kinds)
    rows += [{**cell_of(entry["labels"], kinds), "seed": int(seed), "state": "missing"}
             for entry in missing if isinstance(entry, dict) for seed in entry["seeds"]]
    if not predictions:
        raise StudyError("a comparison needs at least one evaluation with a result; every seed failed or is missing")
    runs = pd.DataFrame(rows, columns=[*CELL, "kind", "seed", "state", *PER_RUN])
    runs = add_names(runs.drop_duplicates([*CELL, "seed"]).astype(dict.fromkeys(PER_RUN, float)).reset_index(drop=True))
    predictions = pd.concat(predictions, ignore_index=True)
    return runs, predictions.merge(runs[[*CELL, "name"]].drop_duplicates(CELL), on=CELL)


def _state(correct, chance):
    low = chance and binomtest(int(correct.sum()), len(correct), chance, alternative="less").pvalue < 0.025
    return "below chance" if low else "done"


def method_kinds(trainings: Iterable[str]) -> dict[str, str]:
    """Return {name of a method in the experiment: the registered method}, as the trainings say."""
    every = [read_json(project_path(folder) / "metrics.json") for folder in trainings]
    return {metrics["labels"].get("method", "-"): metrics.get("method", "-") for metrics in every}


def method_settings(trainings: Iterable[str]) -> dict[tuple, dict]:
    """Return {cell in the order of TRAINED: the settings that its trainings were given (chosen_settings)}."""
    found = {}
    for folder in map(project_path, trainings):
        metrics = read_json(folder / "metrics.json")
        if (folder / "run.json").is_file() and metrics.get("method") in METHODS:
            found[tuple(metrics["labels"].get(key, "-") for key in TRAINED)] = chosen_settings(
                METHODS[metrics["method"]].notebook, read_json(folder / "run.json")["parameters"])
    return found


def cell_of(labels: Mapping[str, str], kinds: Mapping[str, str]) -> dict[str, str]:
    """Return CELL, protocol and kind of a run with these labels; a label that it lacks is "-", the protocol "fair"."""
    cell = {key: labels.get(key, "-") for key in CELL} | {"protocol": labels.get("protocol", "fair")}
    return {**cell, "tested_on": labels.get("tested_on", cell["dataset"]),
            "kind": kinds.get(cell["method"], cell["method"])}


def _failed_runs(trainings, kinds):
    every = [read_json(project_path(folder) / "metrics.json") for folder in trainings]
    return [{**cell_of(metrics["labels"], kinds), "seed": int(seed), "state": f"failed: {record['failed']}"}
            for metrics in every for seed, record in metrics["seeds"].items() if "failed" in record]


def read_measures(folders: Iterable[str]) -> pd.DataFrame:
    """Return one row per run and measure of its explanations: CELL, seed, measure, value.

    The measures are those of kdutils.evaluation (text_metrics, simulatability, attribution_overlap). Each probe of
    kdutils.student.probes gives two: ``behind <probe>: right`` and ``behind <probe>: as asserted``.
    """
    rows = []
    for folder in map(project_path, folders):
        metrics = read_json(folder / "metrics.json")
        cell = cell_of(metrics["labels"], {})
        records = [(record["seed"], {key: value for key, value in record.items() if key != "seed"})
                   for name in ("explanations", "simulatability") for record in _records(metrics, name)]
        records += [(record["seed"], {name: record[name] for name in OVERLAPS})
                    for record in _records(metrics, "attribution_overlap")]
        records += [(record["seed"], {f"behind {record['probe']}: right": record["accuracy"],
                                      f"behind {record['probe']}: as asserted": record["asserted answer given"]})
                    for record in _records(metrics, "probes")]
        rows += [{**cell, "seed": seed, "measure": name, "value": value}
                 for seed, values in records for name, value in values.items()]
    table = pd.DataFrame(rows, columns=[*CELL, "seed", "measure", "value"]).dropna(subset="value")
    return table.astype({"seed": int, "value": float}).reset_index(drop=True)


def read_fakes(folders: Iterable[str]) -> pd.DataFrame:
    """Return one row per run, fake and measure (fake_texts): CELL, fake, measure, value."""
    rows = []
    for folder in map(project_path, folders):
        metrics = read_json(folder / "metrics.json")
        rows += [{**cell_of(metrics["labels"], {}), **record} for record in _records(metrics, "fakes")]
    return pd.DataFrame(rows, columns=[*CELL, "fake", "measure", "value"])


def read_notes(folders: Iterable[str]) -> pd.DataFrame:
    """Return CELL and note, one row per caution that an evaluation gives about its own numbers."""
    rows = []
    for folder in map(project_path, folders):
        metrics = read_json(folder / "metrics.json")
        rows += [{**cell_of(metrics["labels"], {}), "note": note} for note in _records(metrics, "notes")]
    return pd.DataFrame(rows, columns=[*CELL, "note"]).drop_duplicates(ignore_index=True)


def _records(metrics, key):
    """Return the list under `key`; older runs have no such key, or another type of value."""
    records = metrics.get(key) or []
    return records if isinstance(records, list) else []


def read_scores(folders: Iterable[str]) -> pd.DataFrame:
    """Return the measures of every single explanation: CELL, id (of the question), seed and one column per measure.

    They come from explanation_scores.csv, for attributed answers from attribution_overlap.csv, and those of a simulator
    (simulatability.values_of_questions) from foreseen.csv.
    """
    tables = []
    for folder in map(project_path, folders):
        table = _read_csv(folder / "explanation_scores.csv")
        if len(table):
            cell = cell_of(read_json(folder / "metrics.json")["labels"], {})
            if len(overlaps := _read_csv(folder / "attribution_overlap.csv")):
                table = table.merge(overlaps[["id", "seed", *OVERLAPS]], on=["id", "seed"], how="left")
            if len(hits := _read_csv(folder / "foreseen.csv")):
                table = table.merge(values_of_questions(hits, table), on=["id", "seed"])
            tables.append(table.assign(**{key: cell[key] for key in CELL}))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=[*CELL, "id", "seed"])


def _read_csv(path: Path):
    """Return the table at `path`; an empty frame if there is no file or it has no rows."""
    if path.is_file() and path.read_text(encoding="utf-8").strip():
        return read_csv(path, dtype={"id": str})
    return pd.DataFrame()


def read_inputs(folders: Iterable[str]) -> Inputs:
    """Return the questions and explanations of every cell, the tables that its evaluation read (see run.json)."""
    tables, inputs = {}, {}
    for folder in map(project_path, folders):
        cell = cell_of(read_json(folder / "metrics.json")["labels"], {})
        parameters = read_json(folder / "run.json")["parameters"]
        paths = parameters["questions"], parameters.get("explanations", "")
        if paths not in tables:
            tables[paths] = read_table(project_path(paths[0]), "questions"), read_explanations(paths[1])
        inputs[tuple(cell[key] for key in CELL)] = tables[paths]
    return inputs


def cost_table(folders: Iterable[str]) -> pd.DataFrame:
    """Return one row per trained student: CELL, protocol, seed, state, the amounts of training and the costs.

    The costs are seconds and peak_memory_mib (MiB).
    """
    amounts = ("effective_batch", "epochs", "steps", "questions", "target_tokens", "model_parameters")
    rows = []
    for folder in map(project_path, folders):
        metrics, costs = read_json(folder / "metrics.json"), read_json(folder / "costs.json")
        for seed, record in metrics["seeds"].items():
            cost = costs.get(seed) or record.get("cost") or {}
            rows.append({**cell_of(metrics["labels"], {}), "seed": int(seed),
                         "state": "failed" if "failed" in record else "done",
                         **{key: record.get(key) for key in amounts},
                         **{key: cost.get(key) for key in ("seconds", "peak_memory_mib")}})
    return pd.DataFrame(rows, columns=[*CELL, "protocol", "seed", "state", *amounts, "seconds", "peak_memory_mib"])


def read_settings(folders: Iterable[str], wanted: Collection[str]) -> pd.DataFrame:
    """Return one row per parameter of `wanted` that differs between protocols, with a column per protocol.

    `folders`: those of trainings or of evaluations. Several values of a protocol are listed; "" if its methods do not
    have the parameter.
    """
    found: dict[str, dict[str, list[str]]] = {}
    for folder in map(project_path, folders):
        parameters = read_json(folder / "run.json")["parameters"]
        protocol = cell_of(parameters["labels"], {})["protocol"]
        for name in wanted:
            values = found.setdefault(name, {}).setdefault(protocol, [])
            if name in parameters and str(parameters[name]) not in values:
                values.append(str(parameters[name]))
    rows = [{"parameter": name} | {protocol: ", ".join(values) for protocol, values in of_name.items()}
            for name, of_name in found.items() if len({tuple(values) for values in of_name.values() if values}) > 1]
    return pd.DataFrame(rows, columns=["parameter", *dict.fromkeys(key for of_name in found.values()
                                                                   for key in of_name)])


def read_running_costs(folders: Iterable[str]) -> pd.DataFrame:
    """Return one row per cell and form of its weights: CELL and the columns of deployment.costs.running_costs.

    Evaluations that did not measure them have no rows.
    """
    rows = []
    for folder in map(project_path, folders):
        path, cell = folder / "running_costs.json", cell_of(read_json(folder / "metrics.json")["labels"], {})
        rows += [{**cell, **record} for record in (read_json(path) if path.is_file() else [])]
    columns = ("weights", "parameters", "bytes", "peak_memory_mib", "libraries_mib", "answer_ms", "explanation_ms",
               "questions", "accuracy", "gained", "lost")
    table = pd.DataFrame(rows, columns=[*CELL, *columns])
    return table.drop_duplicates([*CELL, "weights"], ignore_index=True)  # of several groups of seeds, the first


# --- cells and their names


def in_domain(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of students that were tested on the data set on which they were trained."""
    return table[table["tested_on"] == table["dataset"]]


def add_names(table: pd.DataFrame) -> pd.DataFrame:
    """Return `table` with a column `name` of the cell: "method (prompting)".

    The teacher is part of the name if several teachers used the prompting on the data set.
    """
    if "name" in table:
        return table
    teachers = table[table["teacher"] != "-"].groupby(["dataset", "prompting"])["teacher"].nunique()
    names = [_name(row, teachers.get((row["dataset"], row["prompting"]), 1) > 1) for row in table.to_dict("records")]
    return table.assign(name=names)


def with_names(table: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Return `table` with the column `name` of its cells in `runs` (read_evaluations), which has all of them."""
    return table.merge(runs[[*CELL, "name"]].drop_duplicates(CELL), on=CELL, how="left")


def _name(row, with_teacher):
    parts = [row["teacher"]] if with_teacher and row["teacher"] != "-" else []
    parts += [row["prompting"]] if row["prompting"] != "-" else []
    return row["method"] + (f" ({', '.join(parts)})" if parts else "")


def shorten(table: pd.DataFrame) -> pd.DataFrame:
    """Return `table` for display: a column `cell` with the name replaces CELL, kind and control_of.

    dataset, student and tested_on remain if they have several values.
    """
    table = add_names(table)
    hidden = [key for key in ("teacher", "prompting", "method", "kind", "control_of") if key in table]
    hidden += [key for key in ("dataset", "student") if key in table and table[key].nunique() <= 1]
    hidden += ["tested_on"] if "tested_on" in table and (table["tested_on"] == table["dataset"]).all() else []
    rest = [key for key in table if key not in (*hidden, "name")]
    front = [key for key in CELL if key in rest]
    order = [*front, "name", *(key for key in rest if key not in front)]
    return table[order].rename(columns={"name": "cell"}).reset_index(drop=True)


def split_by_student(table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield (student_label, shortened rows) of each student on each data set."""
    for cell, rows in table.groupby(["dataset", "student"], sort=False):
        yield student_label(*cell), shorten(rows)


def student_label(dataset: str, student: str) -> str:
    """Return how a report names a student on a data set: "student on dataset"."""
    return dataset if student == "-" else f"{student} on {dataset}"
