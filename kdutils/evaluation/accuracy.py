"""Answer accuracy of one cell of the grid: per seed, and over seeds and questions."""

import numpy as np
import pandas as pd

from kdutils.errors import StudyError
from kdutils.stats.accuracy import bootstrap_mean


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


def accuracy_of_seeds(predictions, questions):
    """Return {seed: {"accuracy", "exact", "unread", "no_choice"}} as shares of the questions.

    Right answers; texts equal to the target string; texts in which no answer was found; answers that are
    none of the question's choices (0 for free text), unread ones among them: a student that writes those
    can be below blind guessing.
    """
    choices = dict(zip(questions["id"], map(set, questions["choices"]), strict=True))
    outside = pd.Series([bool(choices[key]) and answer not in choices[key] for key, answer
                         in zip(predictions["id"], predictions["predicted"], strict=True)], index=predictions.index)
    return {int(seed): {"accuracy": float(group["correct"].mean()), "exact": float(group["exact"].mean()),
                        "unread": float((group["predicted"] == "").mean()),
                        "no_choice": float(outside[group.index].mean())}
            for seed, group in predictions.groupby("seed")}


def cell_accuracy(predictions, questions):
    """Return accuracy over seeds and questions with its bootstrap interval, and the chance level of the questions."""
    asked = questions[questions["id"].isin(set(predictions["id"]))]
    mean, low, high = bootstrap_mean(correct_matrix(predictions))
    return {"mean": mean, "low": low, "high": high, "chance": chance_level(asked),
            "n_seeds": int(predictions["seed"].nunique()), "n_questions": len(asked)}
