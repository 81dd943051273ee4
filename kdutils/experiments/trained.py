"""The trained students of an experiment: which there are, and how a user names one."""

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from kdutils.comparison.runs_table import CELL, add_names
from kdutils.errors import StudyError, short
from kdutils.experiments import grid
from kdutils.experiments.execution import RECORD, recorded
from kdutils.experiments.finished import changed_input, is_finished
from kdutils.experiments.grid import EXAMPLE, Experiment, Job
from kdutils.runs import PROJECT, read_json
from kdutils.student.methods import METHODS

_EXAMPLE_FOLDER = PROJECT / "kdutils" / "mini" / "example"


@dataclass(frozen=True)
class Cell:
    """The trained students of one cell of the grid.

    `name`: as in the tables of notebook 31, with student and data set where the experiment has several. `labels`: the
    labels of the cell. `folders`: {seed: folder of its student}. `dev_accuracy`: {seed: accuracy on dev of the weights
    that were kept}. `evaluations`: folders of its finished evaluations.
    """

    name: str
    labels: dict
    method: str
    folders: dict[int, Path]
    dev_accuracy: dict[int, float]
    evaluations: tuple[Path, ...] = ()

    @property
    def best_seed(self) -> int:
        """The seed with the highest accuracy on dev; the test split decides nothing."""
        return max(self.folders, key=lambda seed: (self.dev_accuracy[seed], -seed))

    def seed(self, wanted: int | None = None) -> int:
        """Return the seed `wanted`, or the best one; StudyError if no student was trained with it."""
        if wanted is None:
            return self.best_seed
        if wanted not in self.folders:
            raise StudyError(f"--seed {wanted}: {self.name} has students of the seeds "
                             f"{', '.join(map(str, self.folders))}")
        return wanted


def trained_cells(experiment: str) -> list[Cell]:
    """Return the cells of a finished experiment that have students; `experiment`: its name, its YAML file, or EXAMPLE.

    Students whose training is not finished, or was on something else than is there now, are left out and named on
    stderr. Raises StudyError where the folder of outputs holds none.
    """
    if experiment == EXAMPLE:
        output = "example/students"
        cells = _cells(_EXAMPLE_FOLDER, [Job("students", "students", "", {"output": output}),
                                         Job("evaluations", "evaluations", "", {"students": output})])
    else:
        found = _recorded(experiment)
        lacking = [job for job in found.jobs if not is_finished(found, job) or changed_input(found, job)]
        cells = _cells(found.folder, [job for job in found.jobs if job not in lacking])
        if waiting := _waiting(found.folder, lacking):
            print(f"left out, because their training is to run again or has not ended: {', '.join(waiting)}; "
                  f"run {found.command}", file=sys.stderr)
    if not cells:
        raise StudyError(f"{short(experiment)}: no trained student yet; run the experiment first")
    return _named(cells)


def _recorded(experiment: str) -> Experiment:
    name = Path(experiment).stem if experiment.endswith((".yaml", ".yml")) else experiment
    path = grid.OUTPUTS / name / RECORD
    if not re.fullmatch(r"[\w.-]+", name) or not path.is_file():
        ran = sorted(path.parent.name for path in grid.OUTPUTS.glob(f"*/{RECORD}"))
        raise StudyError(f"{short(experiment)}: no such experiment was run; there are: {', '.join([*ran, EXAMPLE])}")
    return recorded(path)


def _cells(root, jobs):
    """Return the Cells of finished trainings below `root`; several jobs of one cell (key seeds_per_job) are one."""
    found, finished = {}, [job for job in jobs if (root / job.folder / "metrics.json").is_file()]
    for job in (job for job in finished if job.kind == "students"):
        folder, metrics = root / job.folder, read_json(root / job.folder / "metrics.json")
        known = dev_accuracies(folder)
        found.setdefault(tuple(sorted(metrics["labels"].items())), []).append(Cell(
            "", metrics["labels"], metrics["method"], {seed: folder / f"seed-{seed}" for seed in known}, known,
            tuple(root / one.folder for one in finished
                  if one.kind == "evaluations" and one.parameters["students"] == job.parameters["output"])))
    return [_joined(parts) for parts in found.values() if any(part.folders for part in parts)]


def dev_accuracies(folder: Path) -> dict[int, float]:
    """Return {seed: accuracy on dev, 0 to 1, of the weights that were kept} of a finished training.

    Failed students are left out. The mean is the ``dev_accuracy`` of metrics.json (student.training.training_metrics).
    """
    run = folder / "run.json"
    last = run.is_file() and read_json(run)["parameters"].get("checkpoint") == "last"
    curves = {int(seed): [point["accuracy"] for point in record["curve"]]
              for seed, record in read_json(folder / "metrics.json")["seeds"].items() if "failed" not in record}
    return {seed: curve[-1] if last else max(curve) for seed, curve in curves.items()}


def _waiting(root, jobs):
    """Return method and prompting of those trainings, of unfinished `jobs`, that have a student of before."""
    found = [job.labels for job in jobs if job.kind == "students"
             and any((root / job.folder).glob("seed-*/*.safetensors"))]
    return list(dict.fromkeys(f"{one['method']} ({one['prompting']})" if one.get("prompting", "-") != "-"
                              else one["method"] for one in found))


def _joined(parts):
    return replace(parts[0], folders={seed: path for part in parts for seed, path in part.folders.items()},
                   dev_accuracy={seed: value for part in parts for seed, value in part.dev_accuracy.items()},
                   evaluations=tuple(path for part in parts for path in part.evaluations))


def _named(cells):
    """Return the cells with their names: those of notebook 31, and what else sets them apart."""
    table = add_names(pd.DataFrame([{key: cell.labels.get(key, "-") for key in CELL} for cell in cells]))
    more = [key for key in ("student", "dataset") if table[key].nunique() > 1]
    names = [", ".join([row["name"], *(row[key] for key in more)]) for row in table.to_dict("records")]
    return [replace(cell, name=name) for name, cell in zip(names, cells, strict=True)]


def select_cells(cells: Sequence[Cell], wanted: Sequence[str] = ()) -> list[Cell]:
    """Return the cells that a user names, in order; without a name the default_cell alone.

    A name is that of a cell, ``all``, or some of its labels in any order ("multitask few_shot"); several cells can
    have them. Raises StudyError for a name that fits no cell.
    """
    if not wanted:
        return [default_cell(cells)]
    chosen = []
    for name in wanted:
        exact = [cell for cell in cells if cell.name == name]
        words = {word.casefold() for word in re.split(r"[\s,()/]+", name) if word}
        fitting = exact or [cell for cell in cells if name == "all" or words and words <= _words(cell)]
        if not fitting:
            raise StudyError(f"--cell {short(name)}: no such cell; there are: "
                             f"{short('; '.join(cell.name for cell in cells), 1000)}")
        chosen += [cell for cell in fitting if cell not in chosen]
    return chosen


def _words(cell):
    return {str(label).casefold() for label in cell.labels.values()}


def default_cell(cells: Sequence[Cell]) -> Cell:
    """Return the cell with the highest mean accuracy on dev among those that learnt to explain (no controls).

    If none of them explains, all cells count.
    """
    explaining = [cell for cell in cells if METHODS[cell.method].explanation is not None
                  and not METHODS[cell.method].control_of]
    return max(explaining or cells, key=lambda cell: sum(cell.dev_accuracy.values()) / len(cell.dev_accuracy))
