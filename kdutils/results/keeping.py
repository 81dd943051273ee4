"""Keep the small tables and the figure of a finished experiment or benchmark in outputs/results, which git tracks.

Everything comes from the files that the runs wrote (metrics.json, costs.json, run.json). ``results.json`` has

- name, kind (experiment or benchmark), command, date (of the last run, UTC), commits (of the code that ran, see
  runs.git_revision), machines (runs.machine), versions, seconds (of all jobs together, in all their pieces), note (what
  else has to be known about this run, "" for nothing); numbers have DIGITS significant digits,
- of an experiment: about, settings (of its file), jobs (their number), wall (seconds from the first start to the last
  end, without pauses of more than PAUSE), split (whose questions were asked), cells, teachers
  (teacher.quality.text_table; of soft labels also their accuracy per split, of a run how many questions are without a
  text to learn from), attributions (of each run of notebook 05: choice, costs, agreement, published_share), errors (of
  notebook 32: summary, effects, losses), transfers, contrasts, fooled (comparison.tables.fooled), fooled_teachers
  (teacher.quality.read_fooled), summary (the sentences of the report) and example (comparison.answer.example; none for
  a run of an earlier version),
- of a benchmark: found (its own results.json) and figures.

A cell is a row of comparison.tables.accuracy_table, in the order of the report. It also has ``seeds`` ({seed: accuracy,
seconds of training, peak_memory_mib, dev, [(step, accuracy on the dev split), …], and dev_accuracy, that of the weights
that were kept; none in results of an earlier version}), ``cost``
(comparison.tables.mean_costs) and ``measures`` of its explanations ({measure: mean and sd over seeds}). A transfer is
such a row without these. A contrast is a row of comparison.hypotheses.run_tests.
"""

import re
import tempfile
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from kdutils.comparison.runs_table import (
    CELL,
    cell_of,
    cost_table,
    in_domain,
    read_fakes,
    read_measures,
    read_running_costs,
)
from kdutils.comparison.tables import MEASURES, fooled, mean_costs, measure_names
from kdutils.errors import StudyError, short
from kdutils.experiments import grid
from kdutils.experiments.execution import RECORD, held, recorded
from kdutils.experiments.finished import changed_input
from kdutils.experiments.grid import Experiment, Job
from kdutils.experiments.schema import NAME
from kdutils.experiments.trained import dev_accuracies
from kdutils.report.figures import accuracy_by_method, save
from kdutils.runs import check_run, plain, read_json, write_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FILE, FIGURE = "results.json", "accuracy.png"
DIGITS = 6  # of a kept number
PAUSE = timedelta(seconds=60)  # in which no job runs, as between two calls; starting the next job takes less
RUNNING = ("parameters", "bytes", "peak_memory_mib", "libraries_mib", "answer_ms", "explanation_ms")
ATTRIBUTION = ("choice", "costs", "agreement", "published_share")
CONTRAST = ("family", "question", "comparison", "dataset", "student", "measure", "first", "second", "difference", "low",
            "high", "p", "p_corrected", "p_equivalent", "detectable", "n_seeds", "n_questions", "test")


def kept_folder() -> Path:
    """Return the folder of all kept results."""
    return grid.OUTPUTS / "results"


def read_kept() -> dict[str, dict[str, Any]]:
    """Return {name: results.json} of everything that is kept, sorted by name."""
    return {path.parent.name: read_json(path) for path in sorted(kept_folder().glob(f"*/{FILE}"))}


def keep(name: str, note: str = "") -> Path:
    """Keep the results of an experiment (its name or file) or of a benchmark (bench/NAME); return their folder.

    The folder is replaced as a whole. Raises StudyError, and changes nothing, if a job is not finished, its files are
    damaged or it was made from other inputs than those that are there now, or if there is no result: a run with --tiny
    or --smoke. Raises AlreadyRunning while the experiment runs.
    """
    if name.startswith("bench/"):
        return _keep_benchmark(name.removeprefix("bench/"), note)
    return _keep_experiment(name, note)


def _replace(name: str, write: Callable[[Path], None]) -> Path:
    """Fill a new folder with `write` and put it in the place of the kept folder `name`; return the path."""
    target = kept_folder() / name
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{name}.") as scratch:
        new, old = Path(scratch) / "new", Path(scratch) / "old"
        new.mkdir()
        write(new)
        if target.exists():
            target.rename(old)
        try:
            new.rename(target)
        except OSError:
            if old.exists():
                old.rename(target)
            raise
    return target


# Experiments

def _keep_experiment(name, note):
    name = Path(name).stem if name.endswith((".yaml", ".yml")) else name
    if not NAME.fullmatch(name) or not (grid.OUTPUTS / name / RECORD).is_file():
        raise StudyError(f"{short(name)}: this experiment has not been run; run it with ./run_all.sh first")
    with held(grid.OUTPUTS / name):
        experiment = recorded(grid.OUTPUTS / name / RECORD)
        if experiment.tiny:
            raise StudyError(f"{name}: was run with --tiny, which gives no result; run the experiment without --tiny")
        _check_finished(experiment)
        found = _rounded(plain({**_results_of(experiment), "note": note}))

    def write(folder):
        _save_small(draw_cells(found["cells"]), folder / FIGURE)
        write_json(folder / FILE, found)

    return _replace(name, write)


def _save_small(figure, path):
    """Write a figure of lines and dots with 256 colours, a third of the bytes: git keeps every version of it."""
    from PIL import Image

    save(figure, picture := BytesIO())
    Image.open(picture).convert("RGB").quantize(256, Image.Quantize.FASTOCTREE).save(path, "png", optimize=True)


def _rounded(value):
    """Return plain values with numbers of DIGITS significant digits, which is far below what any of them can show."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def _check_finished(experiment):
    faults = {job.folder: fault for job in experiment.jobs if (fault := _fault(experiment, job))}
    if faults:
        folder, fault = next(iter(faults.items()))
        more = f", and {len(faults) - 1} more" if len(faults) > 1 else ""
        raise StudyError(f"{experiment.name}: {len(faults)} of {len(experiment.jobs)} jobs have no complete result "
                         f"({folder}: {fault}{more}); run {experiment.command} until it ends without an error")


def _fault(experiment: Experiment, job: Job) -> str:
    """Return why a job has no complete result, "" if it has one."""
    folder = experiment.folder / job.folder
    if not (folder / "metrics.json").is_file():
        return "failed" if (folder / "error.txt").is_file() else "not finished"
    if problems := check_run(folder):
        return problems[0]
    given = read_json(folder / "run.json")["parameters"]
    changed = [key for key, value in plain(job.parameters).items() if given.get(key, value) != value]
    if changed:
        return f"was run with another value of '{changed[0]}'"
    other = changed_input(experiment, job)
    return f"was made from another {other}" if other else ""


def _results_of(experiment):
    """Return results.json of a finished experiment."""
    folders = {kind: [experiment.folder / job.folder for job in experiment.jobs if job.kind == kind]
               for kind in grid.KINDS}
    runs = [read_json(experiment.folder / job.folder / "run.json") for job in experiment.jobs]
    seconds = sum(_seconds(experiment.folder / job.folder) for job in experiment.jobs)
    trained = [read_json(folder / "run.json") for folder in folders["students"]]
    evaluated = list(map(str, folders["evaluations"]))
    compared = read_json(folders["comparison"][0] / "metrics.json")
    wall, ended = _span(runs)
    splits = {read_json(folder / "metrics.json")["split"] for folder in folders["evaluations"]}
    settings = {key: value for key, value in experiment.settings.items() if key not in ("about", "needs")}
    reports, explained = ([read_json(folder / "metrics.json") for folder in folders[kind]]
                          for kind in ("report", "explanations"))
    return {
        "name": experiment.name, "kind": "experiment", "about": experiment.settings["about"],
        "command": experiment.command, "settings": settings, "date": ended.date().isoformat(),
        "commits": _distinct(run["git"] for run in sorted(runs, key=lambda run: run["started"])),
        "machines": _distinct(run["machine"] for run in trained), "versions": runs[-1]["versions"],
        "jobs": len(runs), "seconds": round(seconds, 1),
        "wall": round(wall, 1), "split": ", ".join(sorted(splits)),
        "cells": _cells(compared["accuracy"], folders["students"], folders["evaluations"]),
        "teachers": _teachers(reports, explained),
        "attributions": [{**metrics["labels"], **{key: metrics[key] for key in ATTRIBUTION}}
                         for metrics in explained if "faithfulness" in metrics],
        "errors": [{key: metrics[key] for key in ("summary", "effects", "losses") if key in metrics}  # no losses before
                   for metrics in (read_json(folder / "metrics.json") for folder in folders["errors"])],
        "fooled_teachers": {name: why for report in reports for of_data in report.get("fooled", {}).values()
                            for name, why in of_data.items()},
        "transfers": compared["transfer"],
        "contrasts": [{key: row[key] for key in CONTRAST if key in row} for row in compared["tests"]],
        "fooled": fooled(read_measures(evaluated), read_fakes(evaluated), pd.DataFrame(compared["accuracy"])),
        "running": running_summary(read_running_costs(evaluated)),
        "summary": compared["summary"], "example": compared.get("answer", {}).get("example")}


def _span(runs):
    """Return the seconds from the first start of a job to the last end, without pauses, and this end."""
    starts = [datetime.fromisoformat(run["started"]) for run in runs]
    spans = sorted((start, start + timedelta(seconds=run["seconds"])) for start, run in zip(starts, runs, strict=True))
    wall, (start, end) = timedelta(), spans[0]
    for next_start, next_end in spans:
        if next_start - end > PAUSE:
            wall, start = wall + (end - start), next_start
        end = max(end, next_end)
    return (wall + (end - start)).total_seconds(), end


def _seconds(folder):
    """Return the seconds of a job; of a training that ran in pieces those of all of its seeds."""
    costs = read_json(folder / "costs.json").values() if (folder / "costs.json").is_file() else ()
    return max(read_json(folder / "run.json")["seconds"], sum(cost["seconds"] for cost in costs))


def _teachers(reports, explained):
    """Return the rows of the cleaned texts of `reports`; the last of a run with what only its metrics have.

    accuracy: of soft labels, [(split, share), …]. without: [train questions without a text to learn from, all].
    """
    of_runs = {}
    for metrics in explained:
        own = of_runs.setdefault(tuple(sorted(metrics.get("labels", {}).items())), {})
        if "soft_labels" in metrics:
            own["accuracy"] = [(row["split"], row["accuracy"]) for row in metrics["soft_labels"]]
        if "without_rationale" in metrics:
            own["without"] = [metrics["without_rationale"], metrics["train_questions"]]
    rows = [row for report in reports for row in report["cleaned"]]
    labels = [tuple((name, row[name]) for name in ("dataset", "prompting", "teacher")) for row in rows]
    last = {key: place for place, key in enumerate(labels)}
    return [{**row, **(of_runs.get(key, {}) if last[key] == place else {})}
            for place, (row, key) in enumerate(zip(rows, labels, strict=True))]


def running_summary(costs: pd.DataFrame) -> list[dict]:
    """Return what each student on each data set costs to run: a record per form of the weights, over its cells.

    `costs`: comparison.runs_table.read_running_costs. Medians of RUNNING; `change`: mean change of the accuracy from
    float32 (-1 to 1, None where there is nothing to compare with); `cells`: how many were measured.
    """
    costs = costs.assign(change=(pd.to_numeric(costs["gained"]) - pd.to_numeric(costs["lost"])) / costs["questions"])
    found = []
    for (dataset, student, weights), rows in in_domain(costs).groupby(["dataset", "student", "weights"], sort=False):
        values = {name: float(pd.to_numeric(rows[name]).median()) for name in RUNNING}
        values |= {"change": float(rows["change"].mean())}
        found.append({"dataset": dataset, "student": student, "weights": weights, "cells": len(rows),
                      **{name: None if value != value else round(value, 4) for name, value in values.items()}})
    return found


def _distinct(values):
    found = []
    for value in values:
        if value not in found:
            found.append(value)
    return found


def _cells(rows: Sequence[dict], trainings: Sequence[Path], evaluations: Sequence[Path]) -> list[dict]:
    """Return the accuracy `rows` of the report with the seeds, cost and measures of each cell."""
    costs, measures = cost_table(map(str, trainings)), read_measures(map(str, evaluations))
    means, accuracies, on_dev = mean_costs(costs), _accuracies(evaluations), _on_dev(trainings)
    shown = [name for pattern in MEASURES.values() for name in measure_names(measures, pattern)]
    cells = []
    for row in rows:
        own, all_of = _of_cell(measures, row).groupby("measure")["value"], _of_cell(means, row)
        spread = own.agg(["mean", "std"]).rename(columns={"std": "sd"}).to_dict("index")
        seeds = {seed: {"accuracy": accuracy} for seed, accuracy in accuracies[tuple(row[key] for key in CELL)].items()}
        for cost in _of_cell(costs, row).to_dict("records"):
            seeds.setdefault(cost["seed"], {"accuracy": None}).update(
                {key: cost[key] for key in ("seconds", "peak_memory_mib")})
        for seed, values in on_dev.get(tuple(row[key] for key in CELL), {}).items():
            seeds[seed] |= values
        cells.append({**row, "seeds": seeds, "measures": {name: spread[name] for name in shown if name in spread},
                      "cost": next(iter(all_of.drop(columns=[*CELL, "n_seeds"]).to_dict("records")), {})})
    return cells


def _of_cell(table, row):
    return table[(table[CELL] == [row[key] for key in CELL]).all(axis=1)]


def _accuracies(evaluations):
    """Return {cell: {seed: accuracy}}."""
    return _of_seeds(evaluations, lambda folder, seeds: {seed: values["accuracy"] for seed, values in seeds.items()})


def _on_dev(trainings):
    """Return {cell: {seed: {dev: [(step, accuracy on dev), …], dev_accuracy: that of the weights that were kept}}}."""
    def read(folder, seeds):
        kept = dev_accuracies(folder)
        return {seed: {"dev": [(point["step"], point["accuracy"]) for point in values["curve"]],
                       **({"dev_accuracy": kept[seed]} if seed in kept else {})} for seed, values in seeds.items()}

    return _of_seeds(trainings, read)


def _of_seeds(folders, read):
    """Return {cell: {seed: what `read` finds for it, given the folder of a run and the seeds of its metrics}}."""
    found = {}
    for folder in folders:
        metrics = read_json(folder / "metrics.json")
        cell = cell_of(metrics["labels"], {})
        own = found.setdefault(tuple(cell[key] for key in CELL), {})
        own |= read(folder, {int(seed): values for seed, values in metrics["seeds"].items()})
    return found


def draw_cells(cells: Sequence[dict]) -> "Figure":
    """Return the figure of the accuracy of every kept cell, as notebook 31 draws it."""
    rows = [{"method": cell["name"], "prompting": "", "student": cell["student"], "dataset": cell["dataset"],
             "seed": seed, "accuracy": values["accuracy"]} for cell in cells for seed, values in cell["seeds"].items()]
    return accuracy_by_method(pd.DataFrame(rows), {cell["dataset"]: cell["chance"] or 0.0 for cell in cells})


# Benchmarks

def _keep_benchmark(name, note):
    folder = grid.OUTPUTS / "bench" / name
    if not re.fullmatch("[a-z0-9-]{1,60}", name) or not (folder / FILE).is_file():
        raise StudyError(f"bench/{short(name)}: this benchmark has not been run; run ./run_all.sh --bench first")
    command, found = f"./run_all.sh --bench {name}", read_json(folder / FILE)
    if found.get("smoke"):
        raise StudyError(f"bench/{name}: was run with --smoke, which gives no result; run {command}")
    if lacking := [key for key in ("date", "git", "machine", "versions") if key not in found]:
        raise StudyError(f"{folder / FILE}: has no '{lacking[0]}', an earlier version wrote it; run {command} again")
    figures = {path.name: path.read_bytes() for path in sorted(folder.glob("*.png"))}
    own = {key: value for key, value in found.items() if key not in ("date", "git", "machine", "versions", "smoke")}

    def write(target):
        for figure, content in figures.items():
            (target / figure).write_bytes(content)
        write_json(target / FILE, {
            "name": f"bench-{name}", "kind": "benchmark", "command": command, "date": found["date"],
            "commits": [found["git"]], "machines": [found["machine"]], "versions": found["versions"],
            "seconds": found.get("seconds"), "note": note, "figures": list(figures), "found": own})

    return _replace(f"bench-{name}", write)
