"""Answer accuracy of one cell of the grid: per seed, and over seeds and questions."""

import numpy as np
import pandas as pd

from kdutils.data.answers import answered_right, exact_match, overlap_f1, parse_number
from kdutils.errors import StudyError
from kdutils.stats.accuracy import bootstrap_mean


def chance_level(questions: pd.DataFrame) -> float:
    """Return the accuracy of the better blind guess over `questions`: a choice at random, or always the same answer.

    At random, it is the mean of 1 / number of choices, 0 for free text. Where all questions have the same choices
    (labels, yes and no), it is at least the share of the answer that is right most often, the majority class.
    """
    at_random = float(np.mean([1 / len(choices) if len(choices) else 0.0 for choices in questions["choices"]]))
    same = len({frozenset(choices) for choices in questions["choices"]}) == 1 and at_random > 0
    return max(at_random, float(questions["answer"].value_counts(normalize=True).max())) if same else at_random


def count_exact(predictions: pd.DataFrame, match: str) -> pd.DataFrame:
    """Return predictions of which the right ones are those with the same `answer`, or with the ``exact`` text.

    The published code (arXiv 2504.16056, custom_metrics.py; Hsieh et al. 2023, metrics.py) compares whole strings: an
    answer with another article, letter or full stop is wrong there.
    """
    return predictions.assign(correct=predictions["exact"]) if match == "exact" else predictions


def same_answers(predictions: pd.DataFrame, questions: pd.DataFrame) -> pd.Series:
    """Return whether each predicted answer is a right one (answers.answered_right), however right ones are counted."""
    items = {item["id"]: item for item in questions.to_dict("records")}
    return pd.Series([answered_right(row.predicted, items[row.id]) for row in predictions.itertuples(index=False)],
                     index=predictions.index, dtype=bool)


def correct_matrix(predictions: pd.DataFrame) -> np.ndarray:
    """Return `correct` of a frame of tables.PREDICTIONS as a matrix (seeds, questions) of 0 and 1.

    Rows are seeds and columns are question ids, both in ascending order. Raises StudyError when a seed lacks a
    question that another seed has.
    """
    table = predictions.pivot(index="seed", columns="id", values="correct").sort_index()
    if table.isna().any().any():
        missing = table.columns[table.isna().any()][0]
        raise StudyError(f"predictions: question {missing!r} was not answered with every seed")
    return table.to_numpy(dtype=float)


def accuracy_of_seeds(predictions: pd.DataFrame, questions: pd.DataFrame) -> dict[int, dict[str, float]]:
    """Return {seed: shares of the questions}.

    accuracy: right answers. exact: texts equal to the target text. unread: texts in which no answer was found.
    no_choice: answers that are not among the choices, unread ones included; 0 for free text. A student with many of
    them can be worse than blind guessing. exact_match and f1, only if some free-text answers in `questions` are no
    numbers: means over all questions without choices, as the authors of SQuAD define them (Rajpurkar et al. 2016,
    section 6.1; data.answers). Answers such as 1979 count there too.
    """
    short = {item["id"]: [item["answer"], *item.get("other_answers", ())] for item in questions.to_dict("records")
             if not len(item["choices"]) and "answer" in item}
    if all(parse_number(answer) is not None for answer, *_ in short.values()):
        short = {}  # arithmetic
    choices = dict(zip(questions["id"], map(set, questions["choices"]), strict=True))
    outside = pd.Series([bool(choices[key]) and answer not in choices[key] for key, answer
                         in zip(predictions["id"], predictions["predicted"], strict=True)], index=predictions.index)
    return {int(seed): {"accuracy": float(group["correct"].mean()), "exact": float(group["exact"].mean()),
                        "unread": float((group["predicted"] == "").mean()),
                        "no_choice": float(outside[group.index].mean()), **_short_answer_scores(group, short)}
            for seed, group in predictions.groupby("seed")}


def _short_answer_scores(predictions, short):
    """Return {"exact_match", "f1"} over the questions of `short` ({id: right answers}), {} if there is none."""
    rows = [(answer, short[key]) for key, answer in zip(predictions["id"], predictions["predicted"], strict=True)
            if key in short]
    return {name: float(np.mean([score(*row) for row in rows]))
            for name, score in (("exact_match", exact_match), ("f1", overlap_f1)) if rows}


def cell_accuracy(predictions: pd.DataFrame, questions: pd.DataFrame) -> dict[str, float]:
    """Return the mean accuracy over seeds and questions, its 95 % bootstrap interval, the chance level and counts."""
    asked = questions[questions["id"].isin(set(predictions["id"]))]
    mean, low, high = bootstrap_mean(correct_matrix(predictions))
    return {"mean": mean, "low": low, "high": high, "chance": chance_level(asked),
            "n_seeds": int(predictions["seed"].nunique()), "n_questions": len(asked)}
