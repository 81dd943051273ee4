"""A small language model in the place of raters, on published texts that people have rated (arXiv 2504.16056).

    ./run_all.sh --bench rater

It executes notebook 25_ask_a_model_to_rate with all texts of the study that were published and all its ratings, and
keeps what the notebook found: whether the scores of the model rise with people's ratings, whether more than the length
of a text does (`length` of each row of `agreement`), and what else moves them.
Another model is asked with the notebook itself.
"""

import os
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd

from kdutils.benchmarks.machine import command_line, conditions, exit_code, show_machine
from kdutils.data.tables import path_kind
from kdutils.errors import StudyError
from kdutils.evaluation.published_students import data_folder
from kdutils.experiments.execution import run_notebook
from kdutils.experiments.grid import Job
from kdutils.experiments.steps import NOTEBOOKS
from kdutils.human_study.model_rater import AGREEMENT, CHECKS
from kdutils.human_study.settings import AskAModelToRate
from kdutils.runs import project_path, read_json, write_json

MODEL, TEXTS, RATINGS = ("HuggingFaceTB/SmolLM2-135M-Instruct", "revised_explanation_sample.parquet",
                         "study_ratings_no_demographics.csv")
MOST, FEW = 100_000, 4  # texts: all of them, and those of the smoke run
KEPT = ("model", "read_from", "texts", "conclusion", "agreement", "bias", "lacking")


def rate_published(output: Path, smoke: bool = False) -> dict[str, Any]:
    """Run the notebook into `output`; return its metrics KEPT, prompts (their number) and seconds.

    Raises StudyError where files are missing or the notebook fails.
    """
    folder = data_folder() / "human_study"
    for name in (TEXTS, RATINGS):
        if path_kind(folder / name) != "file":
            raise StudyError(f"{folder / name}: no such file; KDUTILS_DATA must name the folder that has "
                             f"human_study/{name}")
    parameters = {"texts": str(folder / TEXTS), "plan": "", "ratings": [str(folder / RATINGS)],
                  "model": "kdutils/mini/teacher" if smoke else MODEL, "most_texts": FEW if smoke else MOST,
                  "output": str(output)}
    output.mkdir(parents=True, exist_ok=True)
    started = time.time()
    fault = run_notebook(Job("rating", output.name, AskAModelToRate.notebook, parameters), output)
    if fault:
        raise StudyError(f"{NOTEBOOKS.name}/{AskAModelToRate.notebook}: {fault}; see {output / 'papermill.log'}")
    metrics = read_json(output / "metrics.json")
    return {**{key: metrics[key] for key in KEPT}, "prompts": len(pd.read_csv(output / "askings.csv")),
            "seconds": time.time() - started}


def main() -> None:
    """Print what the notebook found and write results.json."""
    options = command_line("rater", __doc__, f"the embedded model and {FEW} texts: does it run").parse_args()
    if options.threads:
        os.environ["OMP_NUM_THREADS"] = str(options.threads)  # the notebook has a process of its own
    output = project_path(options.output)
    measured = rate_published(output, options.smoke)
    about = read_json(output / "run.json")  # of the notebook: the code and the machine that it ran with
    show_machine(about["machine"])
    code = {name: about[name] for name in ("git", "versions")}
    found = {"smoke": options.smoke, **conditions(about["machine"]), **code, **measured}
    for name, columns in (("agreement", AGREEMENT), ("bias", CHECKS)):
        print(f"\n{pd.DataFrame(found[name])[columns].to_string(index=False, float_format='%.3f')}")
    print(f"\n{found['conclusion']}\nthe executed notebook: {output / 'notebook.ipynb'}")
    write_json(output / "results.json", found)


if __name__ == "__main__":
    sys.exit(exit_code(main))
