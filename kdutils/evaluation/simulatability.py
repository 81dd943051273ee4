"""Simulatability: does an explanation help to predict the student's answer? LAS and QBE.

A *simulator* is a model that sees a question, its choices and perhaps the student's explanation, and predicts what the
student answered. It is trained per student and seed on that student's own predictions with cross-fitting: the
predictions are cut into FOLDS folds, and each fold is predicted by a simulator that was fitted on the others.

The default simulator is a conditional logit (McFadden 1974) over a few features of each choice: its words in the
question and in the explanation; whether, how often and how early the explanation names it; its position in the list;
and, with an `encoder`, the cosine of its embedding with those of question and explanation. It has few parameters, so a
few hundred predictions train it in a second. It reads far less well than a language model: what the features do not
capture does not count.

A language model can take its place (student.lm_reader), as in Hase et al. 2020, who fine-tune a T5. It is fine-tuned
once per fold, so FOLDS times for each student, and needs at least some hundred predictions to learn from. With fewer of
them, or with a model without pretrained weights, the logit is the better simulator.

LAS and QBE are comparable only between students with the same simulator. A LAS near 0 says as much about the
simulator as about the explanations: read it beside the accuracy of the simulator.

LAS, leakage-adjusted simulatability (Hase et al. 2020)
    Let ŷ be the student's answer, x the question and e the explanation. An explanation *leaks* when a simulator that
    sees e alone, without x, predicts ŷ. LAS is the mean over the two groups, leaking and not leaking, of
    mean( 1[simulator(x, e) = ŷ] − 1[simulator(x) = ŷ] ). Above 0: the explanation adds to what the question says about
    the answer. Where one group is empty, LAS is the value of the other, and ``groups`` is 1.

    Different from the paper: the conditional logit is the default simulator, because a T5 learns nothing from a few
    hundred predictions; folds take the place of a simulator's own training set, because students are only asked the
    test questions; and every simulator knows the choices, also the one that decides about leaking, because an answer
    is one of them.

QBE, question-based evaluation
    A secondary summary of arXiv 2504.16056 names a metric "QBE"; neither the paper nor its code defines or uses it.
    This study defines it as: accuracy of simulator(x, e with the student's answer masked) − accuracy of simulator(x).
    It asks whether the reasons point to the answer without naming it.
"""

from collections.abc import Callable
from functools import cache

import numpy as np
import pandas as pd

from kdutils.data.answers import mask_answers
from kdutils.data.questions import full_question
from kdutils.data.texts import find_mentions, lower_words
from kdutils.errors import StudyError
from kdutils.evaluation.truth_proxies import sentence_vectors
from kdutils.stats.agreement import krippendorff_alpha

FOLDS = 5
RIDGE = 1.0  # penalty on the squared weights of standardised features
MASK = "___"
FORMS = {  # what a simulator sees: whether the question, and which text
    "question": (True, ""), "explanation": (False, "explanation"), "both": (True, "explanation"),
    "masked": (True, "masked")}
Simulator = Callable[[list[dict], list[dict], int], dict[str, list[int]]]


def measure_simulatability(predictions: pd.DataFrame, questions: pd.DataFrame, encoder: str = "", seed: int = 0,
                           simulator: Simulator | None = None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return (table, hits): LAS and QBE per seed, and per prediction whether each form was predicted rightly.

    `predictions`: a frame of tables.PREDICTIONS with explanations. Predictions that are not among the choices cannot
    be simulated; ``left out`` counts them. `table` has one row per seed: the values of summarise_simulation, or none of
    them with fewer than 2 · FOLDS predictions. `hits`: id, seed, and a truth value per form of FORMS. `encoder` is for
    the conditional logit.

    `simulator`: a function (taught, asked, seed) in place of the conditional logit. It learns from the records `taught`
    and returns {form: the position of the predicted choice for each record of `asked`}. A record has id, question,
    choices, answer (the student's), explanation and masked (the explanation without the answer).
    """
    simulator = simulator or logit_simulator(encoder)
    items = questions.set_index("id")
    rows, hits = [], []
    for number, group in predictions.groupby("seed", sort=True):
        usable = group[[row.predicted in list(items.at[row.id, "choices"]) for row in group.itertuples()]]
        row = {"seed": int(number), "simulated": len(usable), "left out": len(group) - len(usable)}
        if len(usable) >= 2 * FOLDS:
            found = _cross_fit(simulator, usable, items, seed)
            row |= summarise_simulation(found)
            hits.append(usable[["id", "seed"]].reset_index(drop=True).join(found))
        rows.append(row)
    return pd.DataFrame(rows), pd.concat(hits, ignore_index=True) if hits else pd.DataFrame()


def summarise_simulation(hits: pd.DataFrame) -> dict[str, float | None]:
    """Return LAS, its two parts, the share of leaking explanations, QBE and the accuracy ("reader of") of each form."""
    gain = hits["both"].astype(float) - hits["question"].astype(float)
    leaking = hits["explanation"].astype(bool)
    groups = [float(gain[flags].mean()) for flags in (leaking, ~leaking) if flags.any()]
    return {"las": float(np.mean(groups)), "las_leaking": float(gain[leaking].mean()) if leaking.any() else None,
            "las_other": float(gain[~leaking].mean()) if (~leaking).any() else None, "leaking": float(leaking.mean()),
            "groups": len(groups), "qbe": float(hits["masked"].mean() - hits["question"].mean()),
            **{f"reader of {form}": float(hits[form].mean()) for form in FORMS}}


def values_of_questions(hits: pd.DataFrame, asked: pd.DataFrame) -> pd.DataFrame:
    """Return LAS and QBE as means over questions: id, seed, las and qbe, one row for each row of `asked`.

    `hits`: see measure_simulatability. `asked`: id and seed of every prediction, those that could not be simulated
    included. The mean of a seed is its LAS (QBE) of summarise_simulation, and the variance of that mean over questions
    is the variance of LAS itself to first order, because LAS is a mean of means of groups whose sizes are a sample too
    (linearised variables: Wolter 2007, Introduction to Variance Estimation, chapter 6). With G groups of n_g gains d
    and m_g their mean, las = LAS + N (d - m_g) / (G n_g) for N asked questions; a question that was not simulated adds
    nothing to it and has LAS. What a simulator learnt from the other questions is taken as given. Empty for a seed
    without hits.
    """
    table = asked[["id", "seed"]].merge(hits, on=["id", "seed"], how="left", validate="one_to_one")
    for _, part in table.groupby("seed"):
        known = part.dropna(subset=list(FORMS)).astype(dict.fromkeys(FORMS, float))
        if known.empty:
            continue
        gains = {"las": (known["both"] - known["question"], known["explanation"]),
                 "qbe": (known["masked"] - known["question"], known["question"] * 0)}
        for name, (gain, group) in gains.items():
            groups = gain.groupby(group)
            mean = groups.mean().mean()
            share = len(part) / (groups.ngroups * groups.transform("size"))
            table.loc[part.index, name] = mean
            table.loc[known.index, name] = mean + share * (gain - groups.transform("mean"))
    return table.reindex(columns=["id", "seed", "las", "qbe"])


def reader_agreement(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """Return how far two simulators agree on the same predictions, one row per form of FORMS.

    `first`, `second`: hits of measure_simulatability over the same predictions. Columns: form (``explanation`` decides
    about leaking), predictions, first and second (their accuracies), same (the share of predictions on which both are
    right or both wrong) and alpha (Krippendorff's, nominal; with two raters nearly Cohen's kappa; None where neither
    varies). 1 is full agreement, and an alpha of 0 is what two unrelated readers with these accuracies have.
    """
    both, rows = first.merge(second, on=["id", "seed"], suffixes=("_first", "_second"), validate="one_to_one"), []
    for form in FORMS:
        pair = both[[f"{form}_first", f"{form}_second"]].to_numpy(dtype=float)
        try:
            alpha = krippendorff_alpha(pair, "nominal", resamples=1).value
        except StudyError:  # all right or all wrong
            alpha = None
        rows.append({"form": form, "predictions": len(pair), "first": pair[:, 0].mean(), "second": pair[:, 1].mean(),
                     "same": (pair[:, 0] == pair[:, 1]).mean(), "alpha": alpha})
    return pd.DataFrame(rows)


def _cross_fit(simulator, predictions, items, seed):
    """Return a frame of truth values, one row per prediction and one column per form: was the answer predicted?"""
    fold = np.random.default_rng(seed).permutation(len(predictions)) % FOLDS
    records = [{"id": row.id, "question": full_question(items.loc[row.id]),
                "choices": list(items.at[row.id, "choices"]), "answer": row.predicted, "explanation": row.explanation,
                "masked": mask_answers(row.explanation, [row.predicted], MASK)} for row in predictions.itertuples()]
    hits = {form: np.zeros(len(records), dtype=bool) for form in FORMS}
    for number in range(FOLDS):
        test = np.flatnonzero(fold == number)
        asked = [records[i] for i in test]
        chosen = simulator([records[i] for i in np.flatnonzero(fold != number)], asked, seed + number)
        for form in FORMS:
            hits[form][test] = [one["choices"][place] == one["answer"]
                                for one, place in zip(asked, chosen[form], strict=True)]
    return pd.DataFrame(hits)


def logit_simulator(encoder: str = "") -> Simulator:
    """Return a simulator that fits a conditional logit per form, with cosines where an `encoder` is named."""
    @cache
    def embed(text):
        return sentence_vectors([text], encoder)[text]

    @cache  # a record is seen in every fold
    def features(question, choices, text):
        return choice_features(question, choices, text, embed if encoder else None)

    def simulate(taught, asked, seed):
        target = np.array([one["choices"].index(one["answer"]) for one in taught])
        chosen = {}
        for form, (with_question, text) in FORMS.items():
            tables = [[features(one["question"] if with_question else "", tuple(one["choices"]), one.get(text, ""))
                       for one in records] for records in (taught, asked)]
            chosen[form] = choose_by_logit(tables[0], target, tables[1])
        return chosen

    return simulate


def choice_features(question: str, choices: list[str], text: str,
                    embed: Callable[[str], np.ndarray] | None = None) -> np.ndarray:
    """Return the features of each choice, (choices, features); those of an empty question or text are 0.

    Per choice: its position (one column for each of the second to fifth), the share of its words in the question, the
    share in the text, named in the text, times named (up to 5, over 5), named first, named last, and, with `embed`
    (text to unit vector), the cosines with question and text.
    """
    question_words, text_words = set(lower_words(question)), set(lower_words(text))
    words = [lower_words(choice) for choice in choices]
    named = [[start for start, _ in find_mentions(text, choice)] for choice in choices]
    first = min((starts[0] for starts in named if starts), default=None)
    last = max((starts[-1] for starts in named if starts), default=None)
    rows = []
    for number, (own, starts) in enumerate(zip(words, named, strict=True)):
        rows.append([*(float(number == place) for place in range(1, 5)),
                     _share(own, question_words), _share(own, text_words), float(bool(starts)),
                     min(len(starts), 5) / 5, float(bool(starts) and starts[0] == first),
                     float(bool(starts) and starts[-1] == last)])
    table = np.array(rows)
    if embed:
        vectors = np.stack([embed(choice) for choice in choices])
        cosines = [vectors @ embed(part) if part.strip() else np.zeros(len(choices)) for part in (question, text)]
        table = np.column_stack([table, *cosines])
    return table


def _share(own, words):
    return sum(word in words for word in own) / len(own) if own else 0.0


def choose_by_logit(tables: list[np.ndarray], target: np.ndarray, others: list[np.ndarray]) -> np.ndarray:
    """Fit a conditional logit on `tables`, (choices, features) each, and return the chosen index for each of `others`.

    `target`: the index of the right choice in each of `tables`. Maximum likelihood with a ridge penalty on standardised
    features; questions may differ in their number of choices.
    """
    # Not statsmodels' ConditionalLogit: its only penalty is the elastic net, fitted by coordinate descent.
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
    """Return (tables padded with zeros to the most choices, a mask of the real choices)."""
    widest = max(len(table) for table in tables)
    x = np.zeros((len(tables), widest, tables[0].shape[1]))
    there = np.zeros((len(tables), widest), dtype=bool)
    for row, table in enumerate(tables):
        x[row, :len(table)], there[row, :len(table)] = table, True
    return x, there
