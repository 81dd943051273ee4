"""Soft labels: the probabilities that a teacher gives to the choices of a question (Hinton et al. 2015)."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from kdutils.data.tables import CHOICE, EXPLANATIONS
from kdutils.errors import StudyError
from kdutils.stats.calibration import expected_calibration_error
from kdutils.teacher.completion import Completion

MARKS = " ()[]*\"'.:"  # around a letter or a number that is a whole token
LEAST = 0.5  # probability of all words together; with less, the model mostly thinks first or begins a sentence
NO_LETTER = "the letters of the choices have less than half of the probability of the first token"


def choice_probabilities(log_p: Sequence[float], temperature: float = 1.0) -> list[float]:
    """Return exp(log_p / T) divided by its sum over the choices, at the temperature T (Hinton et al. 2015, equation 1).

    `log_p`: of each choice as a continuation of the prompt; -inf gives 0. With T = 1 it is the probability of a choice
    if the teacher had only these to say. A small T comes near to the most probable choice alone, a large one to equal
    probabilities. Raises StudyError if no value is finite, or one is NaN.
    """
    values = np.asarray(log_p, dtype=float)
    if np.isnan(values).any() or not np.isfinite(values.max(initial=-math.inf)):
        raise StudyError(f"the choices have no probabilities: their log p are {list(map(float, values))}")
    shares = np.exp((values - values.max()) / temperature)
    return (shares / shares.sum()).tolist()


def shares_of_first_tokens(done: Completion, words: Sequence[str]) -> list[float]:
    """Return the probability of each of `words` as the first token of an answer (ServedTeacher.first_tokens).

    Several tokens can be one word, in upper and lower case, with a space, a mark or a bracket around it ("**B", "B)").
    """
    tokens = json.loads(done.text)
    return [sum(math.exp(log_p) for token, log_p in tokens if token.strip(MARKS).casefold() == word) for word in words]


def as_scores(done: Completion, letters: Sequence[str]) -> list[Completion]:
    """Return the first tokens of an answer as one Completion per choice, with log p of its letter, as score gives it.

    A letter that is not among the tokens has −inf. The text is "" where all letters together have less than LEAST, as
    where the model thinks first or begins a sentence. The first one has the tokens of the answer, the others have 0.
    """
    texts = [done.text] * len(letters)
    if done.finish_reason == "stop":
        shares = shares_of_first_tokens(done, letters)
        texts = [json.dumps([math.log(share) if share else -math.inf]) if sum(shares) >= LEAST else ""
                 for share in shares]
    return [replace(done, text=text) if not place else replace(done, text=text, prompt_tokens=0, completion_tokens=0)
            for place, text in enumerate(texts)]


def choices_table(rows: pd.DataFrame, completions: list[Completion], temperature: float) -> pd.DataFrame:
    """Return a frame of tables.EXPLANATIONS with a row per question and choice, of the stage ``choice``.

    `rows`: from prompting.each_choice. `completions`: of each row, log p of the tokens (completion.Teacher.score); a
    planned one counts as 0. A question with a prompt that was too long, or whose letters have too little probability
    (as_scores), has no probabilities.
    """
    table = pd.DataFrame([
        {"id": key, "stage": CHOICE, "round": 0, "sample": 0, "answer": choice, "text": choice, "raw": done.text,
         "changes": [], "problem": "", "finish_reason": done.finish_reason, "prompt_tokens": done.prompt_tokens,
         "completion_tokens": done.completion_tokens, "probability": math.nan}
        for key, choice, done in zip(rows["id"], rows["answer"], completions, strict=True)], columns=EXPLANATIONS.names)
    log_p = np.array([_sum(one) for one in completions])
    for key, places in table.groupby("id", sort=False).indices.items():
        if (table["finish_reason"].iloc[places] == "too_long").any():
            table.loc[table.index[places], ["text", "problem"]] = [None, "too long for the context"]
            continue
        if not table["raw"].iloc[places[0]]:
            table.loc[table.index[places], ["text", "problem"]] = [None, NO_LETTER]
            continue
        try:
            table.loc[table.index[places], "probability"] = choice_probabilities(log_p[places], temperature)
        except StudyError as error:
            raise StudyError(f"question {key!r}: {error}") from None
    return table


def _sum(done):
    return sum(json.loads(done.text)) if done.text and done.finish_reason == "stop" else 0.0


def describe_soft_labels(explanations: pd.DataFrame, questions: pd.DataFrame) -> pd.DataFrame:
    """Return one row per split: what the soft labels of a table of explanations say, beside the gold answers.

    Columns: `questions`, `accuracy` (share whose most probable choice is the gold one), `probability of the answer`
    (mean), `entropy` (mean, in units of that of equal probabilities, so from 0 to 1), and `calibration error` of the
    most probable choice (stats.calibration).
    """
    known = explanations[(explanations["stage"] == CHOICE) & explanations["probability"].notna()]
    known = known.merge(questions[["id", "split", "answer"]].rename(columns={"answer": "gold"}), on="id",
                        validate="many_to_one")
    known = known.assign(right=known["answer"] == known["gold"], spread=_entropy_part(known["probability"]))
    rows = []
    for split, part in known.groupby("split", sort=False):
        best = part.loc[part.groupby("id", sort=False)["probability"].idxmax()]
        of_question = part.groupby("id", sort=False)
        spread = of_question["spread"].sum() / np.log(of_question.size())
        rows.append({"split": split, "questions": len(best), "accuracy": float(best["right"].mean()),
                     "probability of the answer": float(part.loc[part["right"], "probability"].mean()),
                     "entropy": float(spread.mean()), "calibration error": expected_calibration_error(
                         best["probability"].clip(0, 1), best["right"].astype(float))})
    return pd.DataFrame(rows, columns=["split", "questions", "accuracy", "probability of the answer", "entropy",
                                       "calibration error"])


def _entropy_part(shares):
    """Return -p · log p of each probability, 0 for 0."""
    return -shares * np.log(shares.where(shares > 0, 1.0))
