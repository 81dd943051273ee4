"""Attribution overlap: does a student's explanation name the words that drive its answer?

An explanation may be fluent and right and still not say why the student answered as it did. This measure compares it
with the student itself: which words of the question move the probability of the answer that was given, and does the
explanation name them?

Definition. Let x be the source text, ŷ the student's answer and e its explanation.

1. *Candidates*: the distinct words of the question and of its choices. The layout around them (task tag, letters of
   the choices) and punctuation do not count. Function words do: the ranking decides which words matter, and the
   control below uses the same list.
2. *Ranking*: by default saliency (Simonyan, Vedaldi and Zisserman 2014): the norm of the gradient of log p(ŷ | x) with
   respect to the embedding of each token, averaged over the tokens of ŷ. A word has the value of its best token. ŷ
   includes the full stop that ends it, but not the words before it ("The answer is"). Where the explanation comes
   first, the student reads it, but it is not attributed.
3. ``overlap``: the share of the first k candidates that e contains as whole words, in any case (k = 5, as in the
   rationales of arXiv 2409.12586). Word forms differ: "dogs" is not "dog".
4. ``overlap_random``: the expected share for k words drawn at random from the candidates. It equals the share of all
   candidates that e contains (the mean of a hypergeometric draw), so nothing is drawn. A long explanation, or one that
   repeats its question, contains many words of the question whatever drives the answer: the overlap needs this control.
5. ``overlap_gain`` = overlap − overlap_random. Above 0: the explanation prefers the words that drive the answer.
   At 0: it uses words of the question regardless of them. Below 0: it names other words. At most 1 − overlap_random,
   and 0 where there are no more than k candidates.
6. ``overlap_gain_other``: the same without the words of ŷ among the candidates. An answer that is one of the choices is
   copied from the source, so its own words drive it, and most explanations name their answer. This gain is about the
   other words, the reasons. It is empty where no other candidate is left.

Predictions without an answer or an explanation have no value and are counted; so are answers whose scores are all
zero. The mean overlap_gain has a 95 % percentile bootstrap interval: over questions for each seed, over seeds and
questions for all.

Sources. Attributed words as an explanation: arXiv 2409.12586. That an explanation should rest on the same words as the
answer is the *feature importance agreement* of Wiegreffe, Marasović and Smith 2021 ("Measuring Association Between
Labels and Free-Text Rationales") and the idea of CC-SHAP (Parcalabescu and Frank 2024); both attribute the explanation
too and compare two attributions. Here the words of the explanation are compared, which a reader sees. The exact
control and the variant without the answer are this study's own.

Limits. A gradient is a local measure, one of several that disagree (notebook 05 compares them). A paraphrase shares no
words. And an explanation can name what drove the answer and still be wrong.

The ranked words come from teacher.word_scores.driving_words; nothing here loads a model.
"""

import numpy as np
import pandas as pd

from kdutils.data.questions import full_question
from kdutils.data.texts import names_answer
from kdutils.stats.accuracy import bootstrap_mean

MEASURES = ("overlap", "overlap_random", "overlap_gain", "overlap_gain_other")


def overlap(ranked: list[str], explanation: str, k: int) -> tuple[float, float]:
    """Return the share of the first `k` words of `ranked` that `explanation` contains, and that of `k` random ones."""
    contained = [names_answer(explanation, word) for word in ranked]
    return float(np.mean(contained[:k])), float(np.mean(contained))


def attribution_overlap(predictions: pd.DataFrame, ranked: dict[int, dict[str, list[str]]], k: int) -> pd.DataFrame:
    """Return one row per prediction that has ranked words: id, seed, words (the first k), candidates, MEASURES.

    `predictions`: a frame of tables.PREDICTIONS. `ranked`: {seed: {question id: candidates, strongest first}}.
    """
    rows = []
    for row in predictions.itertuples():
        words = ranked.get(row.seed, {}).get(row.id)
        if not words:
            continue
        share, expected = overlap(words, row.explanation, k)
        others = [word for word in words if not names_answer(row.predicted, word)]
        other_share, other_expected = overlap(others, row.explanation, k) if others else (None, None)
        rows.append([row.id, row.seed, " ".join(words[:k]), len(words), share, expected, share - expected,
                     other_share - other_expected if others else None])
    return pd.DataFrame(rows, columns=["id", "seed", "words", "candidates", *MEASURES])


def summarise_overlap(overlaps: pd.DataFrame, asked: int, seeds: list[int]) -> tuple[pd.DataFrame, dict]:
    """Return (one row per seed, one dict over all): means of MEASURES, and low and high of the mean gain.

    `asked`: the number of questions that each of `seeds` was asked; ``not attributed`` is the rest. The dict is over
    the questions that every seed has a value for; ``n_seeds`` does not count a seed without any value.
    """
    rows = []
    for seed in seeds:
        group = overlaps[overlaps["seed"] == seed]
        rows.append({"seed": int(seed), "attributed": len(group), "not attributed": asked - len(group),
                     **{name: _mean(group[name]) for name in MEASURES},
                     **_interval(group.pivot(index="seed", columns="id", values="overlap_gain"))})
    table = pd.DataFrame(rows, columns=["seed", "attributed", "not attributed", *MEASURES, "low", "high"])
    gains = overlaps.pivot(index="seed", columns="id", values="overlap_gain").dropna(axis=1)
    return table, {"overlap_gain": _mean(gains.stack()), **_interval(gains), "n_seeds": len(gains),
                   "n_questions": gains.shape[1]}


def _mean(values):
    values = values.dropna().astype(float)
    return float(values.mean()) if len(values) else None


def _interval(matrix):
    """Return low and high of the mean of a frame (seeds, questions); None where the values do not vary."""
    values = matrix.to_numpy(dtype=float)
    if not values.size or np.ptp(values) == 0:
        return {"low": None, "high": None}
    _, low, high = bootstrap_mean(values)
    return {"low": low, "high": high}


def worked_example(overlaps: pd.DataFrame, predictions: pd.DataFrame, questions: pd.DataFrame) -> pd.DataFrame:
    """Return the parts of one prediction as rows (part, text): the first with an overlap above 0, else the first."""
    overlapping = overlaps[overlaps["overlap"] > 0]
    row = (overlapping if len(overlapping) else overlaps).iloc[0]
    prediction = predictions[(predictions["id"] == row["id"]) & (predictions["seed"] == row["seed"])].iloc[0]
    question = questions[questions["id"] == row["id"]].iloc[0]
    texts = {"question": full_question(question), "choices": ", ".join(question["choices"]),
             "answer given": prediction["predicted"], "explanation": prediction["explanation"],
             "words that drive the answer": row["words"],
             **{name: f"{row[name]:.3f}" if row[name] == row[name] else "–" for name in MEASURES[:3]}}
    return pd.DataFrame({"part": list(texts), "text": list(texts.values())})
