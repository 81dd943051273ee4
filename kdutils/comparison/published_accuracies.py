"""The published accuracies on CommonsenseQA (arXiv 2504.16056), for comparison with measured ones of the same cells."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats as scipy_stats

from kdutils.comparison.runs_table import CELL, add_names, in_domain
from kdutils.runs import project_path, read_json

QUESTIONS = 1221  # number of test questions of the published runs


@dataclass(frozen=True)
class Published:
    """Accuracy in percent.

    mean, sd, n: mean, standard deviation and number of all runs. kept_mean, kept_error, kept_n: mean, standard error
    and number of the runs that the published rule for outliers keeps.
    """

    mean: float
    sd: float
    n: int
    kept_mean: float
    kept_error: float
    kept_n: int


# Source: arXiv 2504.16056, CommonsenseQA, teacher LLaMA-2-13B, student T5 v1.1 (220M parameters: base; 770M: large).
# All 69 runs are in experiment.csv of the authors' repository. The rule for outliers is 1.5 interquartile ranges within
# a cell; the paper prints eight cells of the kept runs. Accuracy is equality of the whole generated string. Runs differ
# in steps and batch size; diverged runs are not in the file. Key: prompting, method, size.
PUBLISHED = {
    ("few_shot", "counterfactual", "base"): Published(53.17, 4.14, 6, 51.70, 1.02, 5),
    ("critique_revision", "counterfactual", "base"): Published(44.35, 4.55, 6, 43.69, 0.13, 4),
    ("few_shot", "multitask", "base"): Published(62.09, 5.59, 6, 64.36, 0.34, 5),
    ("critique_revision", "multitask", "base"): Published(57.45, 4.38, 6, 58.13, 0.44, 4),
    ("few_shot", "combined", "base"): Published(59.79, 2.78, 6, 59.62, 0.20, 4),
    ("critique_revision", "combined", "base"): Published(61.94, 1.24, 6, 61.94, 0.51, 6),
    ("few_shot", "counterfactual", "large"): Published(66.28, 7.53, 6, 69.32, 0.58, 5),
    ("critique_revision", "counterfactual", "large"): Published(61.48, 10.36, 6, 64.48, 0.71, 4),
    ("few_shot", "multitask", "large"): Published(75.56, 0.77, 5, 75.56, 0.34, 5),
    ("critique_revision", "multitask", "large"): Published(67.44, 14.28, 5, 73.81, 0.54, 4),
    ("few_shot", "combined", "large"): Published(75.18, 1.63, 5, 75.86, 0.35, 4),
    ("critique_revision", "combined", "large"): Published(74.13, 1.22, 6, 73.66, 0.20, 5),
}


def student_sizes(trainings: Iterable[str]) -> dict[str, str]:
    """Return {student: "base" or "large"} of the students that are a complete pretrained T5 v1.1 of that size."""
    sizes = {}
    for folder in map(project_path, trainings):
        parameters = read_json(folder / "run.json")["parameters"]
        size = re.search(r"t5-v1[._-]1-(base|large)$", parameters.get("model", ""))
        if size and not any(parameters.get(key) for key in ("random_weights", "config", "lora")):
            sizes[read_json(folder / "metrics.json")["labels"].get("student", "-")] = size[1]
    return sizes


def published_table(runs: pd.DataFrame, accuracies: pd.DataFrame, sizes: Mapping[str, str]) -> pd.DataFrame:
    """Return one row per cell with a published counterpart; an empty frame if there is none.

    Columns: CELL, kind, n_seeds, n_questions; accuracy and exact (means in percent; exact is the published measure);
    the published numbers in percent; difference (exact minus the published mean of all runs, percentage points) with
    Welch's 95 % interval low to high and p, which are NaN for one seed.
    """
    rows = []
    for row in in_domain(accuracies).to_dict("records"):
        one = PUBLISHED.get((row["prompting"], row["kind"], sizes.get(row["student"])))
        if row["dataset"] != "cqa" or one is None or not row["n_seeds"]:
            continue
        own = runs[(runs[CELL] == [row[key] for key in CELL]).all(axis=1)]
        exact = 100 * own["exact"].dropna().to_numpy()
        rows.append({**{key: row[key] for key in [*CELL, "kind", "n_seeds", "n_questions"]},
                     "accuracy": 100 * row["mean"], "exact": exact.mean(),
                     "published": one.mean, "published sd": one.sd, "published runs": one.n,
                     "kept": one.kept_mean, "kept error": one.kept_error, "kept runs": one.kept_n,
                     "difference": exact.mean() - one.mean, **_welch(exact, one)})
    return pd.DataFrame(rows)


def _welch(values, one):
    if len(values) < 2:
        return {"low": np.nan, "high": np.nan, "p": np.nan}
    parts = values.var(ddof=1) / len(values), one.sd ** 2 / one.n
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / (len(values) - 1) + parts[1] ** 2 / (one.n - 1))
    difference, error = values.mean() - one.mean, np.sqrt(sum(parts))
    half = scipy_stats.t.ppf(0.975, freedom) * error
    return {"low": difference - half, "high": difference + half,
            "p": float(2 * scipy_stats.t.sf(abs(difference) / error, freedom))}


def published_rows(published: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of published_table as comparisons for hypotheses.run_tests, in shares."""
    return [{"comparison": "published", "dataset": row["dataset"], "student": row["student"], "measure": "exact",
             "first": row["name"], "second": "published runs",
             **{key: row[key] / 100 for key in ("difference", "low", "high")}, "p": row["p"],
             "n_seeds": row["n_seeds"], "n_questions": row["n_questions"], "test": "Welch's t over seeds"}
            for row in add_names(published).to_dict("records")] if len(published) else []
