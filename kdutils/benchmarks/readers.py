"""The conditional logit that computes LAS by default, beside a language model that is fine-tuned for it.

    python -m kdutils.benchmarks.readers --questions 200

Both read the answers and explanations of a published student (evaluation.published_students), a real one, and predict
its answers by the same cross-fitting. Hase et al. 2020 use a fine-tuned language model; the logit is this study's
default, because it takes a second. Where the two disagree, a LAS says as much about its reader as about explanations.
"""

import argparse
import json
import sys
import time

import pandas as pd

from kdutils.benchmarks.machine import exit_code
from kdutils.errors import StudyError
from kdutils.evaluation.published_students import STUDENTS, data_folder, published_student
from kdutils.evaluation.simulatability import measure_simulatability, reader_agreement
from kdutils.student.lm_reader import trained_reader

# A cross-encoder that scores each choice: a small encoder needs no text of its own to choose.
MODEL = {"model": "sentence-transformers/all-MiniLM-L6-v2", "kind": "classifier", "epochs": 1.0,
         "learning_rate": 0.0002, "questions_per_step": 8, "max_source_tokens": 96, "dev_evaluations": 1}
SHOWN = ("las", "las_leaking", "las_other", "leaking", "qbe", "reader of question", "reader of explanation",
         "reader of both", "reader of masked")


def compare_readers(predictions: pd.DataFrame, questions: pd.DataFrame,
                    settings: dict) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return (LAS and its parts, a column per reader; simulatability.reader_agreement of the logit and the model).

    `predictions`, `questions`: see measure_simulatability. `settings`: those of the key `simulator` of an experiment.
    """
    found, hits = {}, {}
    for name, simulator in (("logit", None), ("model", trained_reader(settings))):
        started = time.time()
        table, hits[name] = measure_simulatability(predictions, questions, simulator=simulator)
        if hits[name].empty:
            raise StudyError(f"{len(predictions)} predictions are too few to learn from; read more")
        found[name] = {**table.iloc[0][list(SHOWN)].to_dict(), "seconds": time.time() - started}
    return (pd.DataFrame(found).rename_axis("value").reset_index(),
            reader_agreement(hits["logit"], hits["model"]))


def main(arguments: list[str] | None = None) -> None:
    """Print LAS by both readers and how far they agree, as two tables."""
    parser = argparse.ArgumentParser(prog="python -m kdutils.benchmarks.readers", description=__doc__.split("\n")[0])
    parser.add_argument("--questions", type=int, default=200, help="the first questions of the test split")
    parser.add_argument("--student", choices=STUDENTS, default=STUDENTS[0], help="what it learnt from")
    parser.add_argument("--simulator", type=json.loads, default={}, help="settings of the model as JSON")
    parser.add_argument("--data", default="", help="folder with cqa/ and human_study/ (default: KDUTILS_DATA)")
    options = parser.parse_args(arguments)
    predictions, questions = published_student(options.student, data_folder(options.data))
    settings = {**MODEL, **options.simulator}
    values, agreement = compare_readers(predictions.head(options.questions), questions, settings)
    print(f"T5 v1.1 large, {options.student} explanations, the first {options.questions} questions; model: "
          f"{json.dumps(settings)}")
    for table in (values, agreement):
        print("\n" + table.to_string(index=False, float_format="%.3f", na_rep="-"))


if __name__ == "__main__":
    sys.exit(exit_code(main))
