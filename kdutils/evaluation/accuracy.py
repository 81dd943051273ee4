"""Answer accuracy of one cell of the grid: per seed, and over seeds and questions."""

import numpy as np

from kdutils.errors import StudyError
from kdutils.stats import bootstrap_mean


def chance_level(questions):
    """Return the accuracy of blind guessing over `questions`: the mean of 1 / number of choices, 0 for free text."""
    return float(np.mean([1 / len(choices) if len(choices) else 0.0 for choices in questions["choices"]]))


def correct_matrix(predictions):
    """Return `correct` of a frame of tables.PREDICTIONS as a matrix (seeds, questions) of 0 and 1.

    Rows are the seeds in ascending order, columns the question ids in ascending order. Raises StudyError
    when a seed lacks a question that another has.
    """
    table = predictions.pivot(index="seed", columns="id", values="correct").sort_index()
    if table.isna().any().any():
        missing = table.columns[table.isna().any()][0]
        raise StudyError(f"predictions: question {missing!r} was not answered with every seed")
    return table.to_numpy(dtype=float)


def accuracy_of_seeds(predictions):
    """Return {seed: {"accuracy", "exact", "unread"}}: right answers, equal strings, texts without an answer."""
    return {int(seed): {"accuracy": float(group["correct"].mean()), "exact": float(group["exact"].mean()),
                        "unread": float((group["predicted"] == "").mean())}
            for seed, group in predictions.groupby("seed")}


def cell_accuracy(predictions, questions):
    """Return accuracy over seeds and questions with its bootstrap interval, and the chance level of the questions."""
    asked = questions[questions["id"].isin(set(predictions["id"]))]
    mean, low, high = bootstrap_mean(correct_matrix(predictions))
    return {"mean": mean, "low": low, "high": high, "chance": chance_level(asked),
            "n_seeds": int(predictions["seed"].nunique()), "n_questions": len(asked)}
