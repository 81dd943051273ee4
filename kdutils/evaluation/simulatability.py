"""Does an explanation help to foresee the student's answer? Leakage-adjusted simulatability, and QBE.

A *simulator* is a reader that sees a question, its choices and perhaps the student's explanation, and says what the
student answered. It is trained per student and seed on that student's own predictions, by cross-fitting: the
questions are cut into folds, and every question is simulated by a reader that was fitted on the other folds.

The reader is, unless another is given, a conditional logit (McFadden 1974) over a few features of each choice: its
words in the question and in the explanation, whether, how often and how early the explanation names it, its place in
the list and, with an `encoder`, the cosine of its embedding with those of question and explanation. It has few
parameters, so a few hundred predictions train it in a second. It reads far less well than a language model: what it
does not see is not counted.

A language model can take its place, as in Hase et al. 2020, who fine-tune a T5: a function (taught, asked, seed) that
learns from the predictions of the other folds and returns what it foresees of the held-out ones, for each kind of input
(student.simulator.trained_reader; `reader` of notebook 21). It is fine-tuned once per fold and seed, five times for
each student, and needs some hundred predictions at least to learn what to look at: with few of them, or a model
without pretrained weights, the logit is the better reader.

LAS and QBE are comparable only between students that were simulated by the same reader, and a LAS near 0 says as much
about the reader as about the explanations: look at the accuracy of each reader beside it.

LAS, leakage-adjusted simulatability (Hase et al. 2020)
    With ŷ the student's answer, x the question, e the explanation: an explanation *leaks* when a reader that sees e
    alone, without x, foresees ŷ. LAS is the mean over the two groups, leaking and not, of
    mean( 1[reader(x, e) = ŷ] − 1[reader(x) = ŷ] ). Above 0: the explanation tells more about the answer than the
    question does. Where one group is empty LAS is the value of the other one, and ``groups`` says 1.

QBE, question-based evaluation
    One secondary summary of arXiv 2504.16056 names a metric "QBE"; neither the paper nor its code defines or uses it.
    What is called so here is our own definition: accuracy of reader(x, e with the student's answer masked) − accuracy
    of reader(x), ŷ being what is to be foreseen. It asks whether the reason points to the answer without saying it.
"""

import numpy as np
import pandas as pd

from kdutils.data.texts import find_mentions, lower_words, replace_mentions

FOLDS = 5
RIDGE = 1.0  # penalty on the squared weights of standardised features
MASK = "___"


def simulate(predictions, questions, encoder="", seed=0, reader=None):
    """Return (table, marks): LAS and QBE per seed, and per prediction what each reader foresaw.

    `predictions`: a frame of tables.PREDICTIONS with explanations; questions without choices, and predictions that
    are none of the choices, cannot be simulated and are left out, counted in ``left out``. `table` has one row per
    seed: las, las_leaking, las_other, leaking (share), groups, qbe, and the accuracy of each reader: question,
    explanation, both, masked; None throughout where fewer than 2 · FOLDS predictions are left. `reader`: a function in
    place of the conditional logit, see read_by; `encoder` is the logit's.
    """
    embed = _embedder(encoder) if encoder and not reader else None
    items = questions.set_index("id")
    rows, marks = [], []
    for number, group in predictions.groupby("seed", sort=True):
        known = [row.predicted in list(items.at[row.id, "choices"]) for row in group.itertuples()]
        usable = group[known]
        row = {"seed": int(number), "simulated": len(usable), "left out": len(group) - len(usable)}
        if len(usable) >= 2 * FOLDS:
            found = read_by(reader, usable, items, seed) if reader else simulated(usable, items, embed, seed)
            row |= summarise(found)
            marks.append(usable[["id", "seed"]].reset_index(drop=True).join(found))
        rows.append(row)
    return pd.DataFrame(rows), pd.concat(marks, ignore_index=True) if marks else pd.DataFrame()


def summarise(found):
    """Return LAS and QBE from the columns question, explanation, both and masked: whether each reader was right."""
    gain = found["both"].astype(float) - found["question"].astype(float)
    leaking = found["explanation"].astype(bool)
    groups = [float(gain[flags].mean()) for flags in (leaking, ~leaking) if flags.any()]
    return {"las": float(np.mean(groups)), "las_leaking": float(gain[leaking].mean()) if leaking.any() else None,
            "las_other": float(gain[~leaking].mean()) if (~leaking).any() else None, "leaking": float(leaking.mean()),
            "groups": len(groups), "qbe": float(found["masked"].mean() - found["question"].mean()),
            **{f"reader of {name}": float(found[name].mean())
               for name in ("question", "explanation", "both", "masked")}}


def simulated(predictions, items, embed, seed):
    """Return a frame of truth values: which reader foresaw each prediction, by cross-fitting."""
    fold = folds(len(predictions), seed)
    rows = [(items.at[row.id, "question"], list(items.at[row.id, "choices"]), row.predicted, row.explanation)
            for row in predictions.itertuples()]
    target = np.array([choices.index(answer) for _, choices, answer, _ in rows])
    readers = {
        "question": [features(question, choices, "", embed) for question, choices, _, _ in rows],
        "explanation": [features("", choices, text, embed) for _, choices, _, text in rows],
        "both": [features(question, choices, text, embed) for question, choices, _, text in rows],
        "masked": [features(question, choices, masked(text, answer), embed)
                   for question, choices, answer, text in rows],
    }
    right = {}
    for name, tables in readers.items():
        right[name] = np.zeros(len(rows), dtype=bool)
        for number in range(FOLDS):
            train, test = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
            chosen = choose([tables[i] for i in train], target[train], [tables[i] for i in test])
            right[name][test] = chosen == target[test]
    return pd.DataFrame(right)


def folds(count, seed):
    """Return the fold of each of `count` predictions, drawn from `seed`."""
    return np.random.default_rng(seed).permutation(count) % FOLDS


def read_by(reader, predictions, items, seed):
    """Return what foreseen returns, of a `reader` that serves every kind of input.

    ``reader(taught, asked, seed)``: lists of records with id, question, choices, answer (the student's own),
    explanation and masked, those to learn from and those to foresee; it returns {question, explanation, both, masked:
    places of the choices foreseen}.
    """
    fold = folds(len(predictions), seed)
    records = [{"id": row.id, "question": items.at[row.id, "question"], "choices": list(items.at[row.id, "choices"]),
                "answer": row.predicted, "explanation": row.explanation,
                "masked": masked(row.explanation, row.predicted)} for row in predictions.itertuples()]
    right = {name: np.zeros(len(records), dtype=bool) for name in ("question", "explanation", "both", "masked")}
    for number in range(FOLDS):
        test = np.flatnonzero(fold == number)
        asked = [records[i] for i in test]
        found = reader([records[i] for i in np.flatnonzero(fold != number)], asked, seed + number)
        for name in right:
            right[name][test] = [one["choices"][place] == one["answer"]
                                 for one, place in zip(asked, found[name], strict=True)]
    return pd.DataFrame(right)


def masked(text, answer):
    """Return `text` with every mention of `answer` as whole words, whatever its case, replaced by MASK."""
    return replace_mentions(text, answer, MASK)


def features(question, choices, text, embed=None):
    """Return what a reader sees of each choice, (choices, features); absent parts give zeros.

    Per choice: its place (one column per place but the first, up to five), share of its words in the question, share
    in the text, named in the text, times named, named first, named last, and the cosines with question and text.
    """
    asked, told = set(lower_words(question)), lower_words(text)
    words = [lower_words(choice) for choice in choices]
    found = [[start for start, _ in find_mentions(text, choice)] for choice in choices]
    first = min((places[0] for places in found if places), default=None)
    last = max((places[-1] for places in found if places), default=None)
    rows = []
    for number, (own, places) in enumerate(zip(words, found, strict=True)):
        rows.append([*(float(number == place) for place in range(1, 5)),
                     _share(own, asked), _share(own, set(told)), float(bool(places)), min(len(places), 5) / 5,
                     float(bool(places) and places[0] == first), float(bool(places) and places[-1] == last)])
    table = np.array(rows)
    if embed:
        vectors = np.stack([embed(choice) for choice in choices])
        cosines = [vectors @ embed(part) if part.strip() else np.zeros(len(choices)) for part in (question, text)]
        table = np.column_stack([table, *cosines])
    return table


def _share(own, words):
    return sum(word in words for word in own) / len(own) if own else 0.0


def choose(tables, target, others):
    """Fit a conditional logit on `tables`, (choices, features) each, and return the chosen index for each of `others`.

    Maximum likelihood with a ridge penalty on standardised features; questions may differ in their number of choices.
    """
    from scipy.optimize import minimize

    stacked = np.concatenate(tables)
    mean, scale = stacked.mean(axis=0), stacked.std(axis=0)
    scale[scale == 0] = 1
    x, there = _padded([(table - mean) / scale for table in tables])

    def loss(weights):
        scores = np.where(there, x @ weights, -np.inf)
        top = scores.max(axis=1, keepdims=True)
        shares = np.exp(scores - top)
        total = shares.sum(axis=1, keepdims=True)
        own = scores[np.arange(len(target)), target]
        value = -(own - top[:, 0] - np.log(total[:, 0])).sum() + RIDGE / 2 * weights @ weights
        error = shares / total
        error[np.arange(len(target)), target] -= 1
        return value, np.einsum("qc,qcf->f", error, x) + RIDGE * weights

    weights = minimize(loss, np.zeros(x.shape[2]), jac=True, method="L-BFGS-B").x
    return np.array([int(np.argmax((table - mean) / scale @ weights)) for table in others])


def _padded(tables):
    """Return (questions, most choices, features) filled up with zeros, and where there is a choice."""
    widest = max(len(table) for table in tables)
    x = np.zeros((len(tables), widest, tables[0].shape[1]))
    there = np.zeros((len(tables), widest), dtype=bool)
    for row, table in enumerate(tables):
        x[row, :len(table)], there[row, :len(table)] = table, True
    return x, there


def _embedder(name):
    """Return a function from a text to its embedding of length 1: the mean of the encoder's last states."""
    from functools import cache

    import torch

    from kdutils.evaluation.text_metrics import encoder_limit, load_encoder

    model, tokenizer = load_encoder(name)

    @cache
    def embed(text):
        inputs = tokenizer(text, return_tensors="pt", truncation=True, max_length=encoder_limit(model))
        with torch.no_grad():
            vector = model(**inputs).last_hidden_state[0].mean(dim=0).double().numpy()
        return vector / (np.linalg.norm(vector) or 1.0)

    return embed
