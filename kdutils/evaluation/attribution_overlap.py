"""Attribution overlap: do the words that drive a student's answer stand in its explanation?

An explanation may be fluent and right and still not say why the student answered as it did. This measure holds it
against the inside of the student: which words of the question move the probability of the answer that was given, and
are those the words that the explanation speaks of?

Definition. Let x be the text that the student read, ŷ the answer that it gave, e its explanation.

1. *Candidates*: the distinct words of the question and of its choices; not the layout around them (task tag, letters of
   the choices), not marks of punctuation. Function words are candidates like any others: which words count is left to
   the student, and the control below is drawn from the same list.
2. *Ranking*: by default saliency (Simonyan, Vedaldi and Zisserman 2014): the norm of the gradient of log p(ŷ | x) with
   respect to the embedding of each token, meaned over the tokens of ŷ; of a word, its best token. Only ŷ and
   the full stop that ends it count, not the words before it ("The answer is"), and for students that explain first not
   their explanation, which is read and not attributed.
3. ``overlap``: of the k first candidates (k = 5, as in the rationales of arXiv 2409.12586), the share that stands in e,
   as whole words, whatever their case. Word forms differ: "dogs" is not "dog".
4. ``overlap_random``: what k words drawn from the candidates without replacement would give. No draw is needed: the
   expected share is that of all candidates that stand in e, exactly (the mean of a hypergeometric draw). A long
   explanation, or one that repeats its question, holds many words of the question whatever drives the answer: so the
   share alone says nothing.
5. ``overlap_gain`` = overlap − overlap_random. Above 0: the explanation prefers the words that drive the answer.
   0: it takes words of the question without regard to them. Below 0: it speaks of other words. At most
   1 − overlap_random; always 0 where there are no more than k candidates.
6. ``overlap_gain_other``: the same without the words of ŷ among the candidates. An answer that is one of the choices is
   copied from the input, so its own words drive it, and most explanations name their answer: the gain of that is real
   and says little. What is left here is about reasons. Empty where no other candidate is left.

Predictions without an answer or an explanation have no value and are counted; so are answers whose scores are all
zero. The mean overlap_gain has a 95 % percentile bootstrap interval, over questions for each seed, over seeds and
questions for all.

Where it comes from. Attributed words as an explanation are of arXiv 2409.12586. That a free-text explanation should
rest on the same input words as the answer is the *feature importance agreement* of Wiegreffe, Marasović and Smith
2021 ("Measuring Association Between Labels and Free-Text Rationales") and the idea of CC-SHAP (Parcalabescu and Frank
2024); both attribute the explanation, too, and compare the two attributions. Here the explanation is compared by its
words, which a reader sees. The exact control and the variant without the answer are this study's own.

What it does not show. A gradient is a local measure, one of several that disagree (notebook 05 compares five). A
paraphrase shares no words. And an explanation can name what drove the answer and still be wrong.

Words come in ranked (teacher.attribution.driving_words); nothing here loads a model.
"""

import numpy as np
import pandas as pd

from kdutils.data.texts import names_answer
from kdutils.stats.accuracy import bootstrap_mean

MEASURES = ("overlap", "overlap_random", "overlap_gain", "overlap_gain_other")


def overlap(ranked, explanation, k):
    """Return (share of the first k words of `ranked` that stand in `explanation`, expected share of k at random)."""
    there = [names_answer(explanation, word) for word in ranked]
    return float(np.mean(there[:k])), float(np.mean(there))


def attribution_overlap(predictions, ranked, k):
    """Return one row per prediction that has ranked words: id, seed, words (the first k), candidates, MEASURES.

    `predictions`: a frame of tables.PREDICTIONS; `ranked`: {seed: {question id: candidates, the first drives most}}.
    """
    rows = []
    for row in predictions.itertuples():
        words = ranked.get(row.seed, {}).get(row.id)
        if not words:
            continue
        share, expected = overlap(words, row.explanation, k)
        others = [word for word in words if not names_answer(row.predicted, word)]
        other, of_others = overlap(others, row.explanation, k) if others else (None, None)
        rows.append([row.id, row.seed, " ".join(words[:k]), len(words), share, expected, share - expected,
                     other - of_others if others else None])
    return pd.DataFrame(rows, columns=["id", "seed", "words", "candidates", *MEASURES])


def summarise_overlap(overlaps, asked, seeds):
    """Return (one row per seed, one dict over all): means of MEASURES; gains with their intervals as low and high.

    `asked`: how many questions each of `seeds` was asked, for the column ``not attributed``. Over all: the questions
    that every seed has a value for; a seed that has none at all is left out there, as ``n_seeds`` says.
    """
    rows = []
    for seed in seeds:
        group = overlaps[overlaps["seed"] == seed]
        rows.append({"seed": int(seed), "attributed": len(group), "not attributed": asked - len(group),
                     **{name: _mean(group[name]) for name in MEASURES},
                     **_interval(group.pivot(index="seed", columns="id", values="overlap_gain"))})
    table = pd.DataFrame(rows, columns=["seed", "attributed", "not attributed", *MEASURES, "low", "high"])
    both = overlaps.pivot(index="seed", columns="id", values="overlap_gain").dropna(axis=1)
    return table, {"overlap_gain": _mean(both.stack()), **_interval(both), "n_seeds": len(both),
                   "n_questions": both.shape[1]}


def _mean(values):
    values = values.dropna().astype(float)
    return float(values.mean()) if len(values) else None


def _interval(matrix):
    """Return low and high of the mean of a frame (seeds, questions); None where there is no spread to draw from."""
    values = matrix.to_numpy(dtype=float)
    if not values.size or np.ptp(values) == 0:
        return {"low": None, "high": None}
    _, low, high = bootstrap_mean(values)
    return {"low": low, "high": high}


def worked_example(overlaps, predictions, questions):
    """Return one row per part of the first attributed prediction with an overlap, else of the first; to be read."""
    some = overlaps[overlaps["overlap"] > 0]
    row = (some if len(some) else overlaps).iloc[0]
    said = predictions[(predictions["id"] == row["id"]) & (predictions["seed"] == row["seed"])].iloc[0]
    item = questions[questions["id"] == row["id"]].iloc[0]
    texts = {"question": item["question"], "choices": ", ".join(item["choices"]), "answer given": said["predicted"],
             "explanation": said["explanation"], "words that drive the answer": row["words"],
             **{name: f"{row[name]:.3f}" if row[name] == row[name] else "–" for name in MEASURES[:3]}}
    return pd.DataFrame({"part": list(texts), "text": list(texts.values())})
