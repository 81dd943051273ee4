"""Which attribution, and how many words? Chosen on questions of the dev split, without training a student.

arXiv 2409.12586 trained students with 1 to 10 words and took 5 for all data sets. Here the fine-tuned teacher alone
decides, per data set, by two measures of DeYoung et al. 2020 (ERASER, section 4.2). Let p(x) be the probability of the
explained answer given the source x, r the source with only the first k words, and x∖r the source without them:

    comprehensiveness = p(x) − p(x∖r)    (equation 1; high: the answer needs these words)
    sufficiency       = p(x) − p(r)      (equation 2; low: these words are enough for the answer)

Their difference is p(r) − p(x∖r). It rises with k for any words and so cannot choose k. This study compares it with
random words:

    gain = comprehensiveness − sufficiency − the mean of this difference for DRAWS draws of k words

The gain is 0 for no words and for all words. The attribution and the k with the highest mean gain are chosen. Of equal
gains the smaller k wins, then the attribution that comes first.

Details. p is the probability of the target text, the answer in its sentence; ERASER has the probability of a class.
Words are left out as in attributions.perturbation_scores: their tokens get the embedding of the padding token. All
occurrences of a word are left out or kept together, because a rationale names a word once. The layout (task tag,
letters of choices) always stays. All rows use the same questions: those in which every attribution ranks the words.

Limits. Attributions that leave words out in the same way, above all occlusion, are close to what is measured here. The
gain says how well a few words show what the teacher's answer rests on. It does not say from which words a student
learns most; `tokens-ablation` trains students for that. A teacher that copies its answer from the choices rests on the
words of the answer: `any answer word` (word_scores.answer_share) shows how often they are among the words.
"""

import json
import random
from collections.abc import Sequence

import numpy as np
import pandas as pd

from kdutils.errors import StudyError
from kdutils.teacher.attributions import padding, target_log_p
from kdutils.teacher.word_scores import (
    SETTINGS,
    answer_share,
    attribute_words,
    best_words,
    explained_targets,
    load_model,
    padded_batch,
    ranked_words,
    similar_lengths,
    with_places,
    word_numbers,
    word_offsets,
)

DRAWS = 4  # random orders of the words of a question; the first k words of an order are a draw
COLUMNS = ("attribution", "k", "questions", "comprehensiveness", "sufficiency", "gain", "standard error",
           "any answer word", "chosen")


def compare_choices(questions: pd.DataFrame, sources: Sequence[str], targets: Sequence[str], settings: dict,
                    attributions: Sequence[str], numbers: Sequence[int]) -> pd.DataFrame:
    """Return COLUMNS for each of `attributions` and each number of words k in `numbers`.

    The measures are means over questions, see the docstring of the module. `standard error`: of the mean gain.
    `any answer word`: share of questions with a word of the right answer among the words. `chosen`: True in one row.
    `questions`: those of the dev split. `sources`, `targets`, `settings`: see word_scores.attribute_words. The frame is
    empty without questions, `attributions` or `numbers`. Raises StudyError if no question has words that every
    attribution ranks.
    """
    if not (len(questions) and len(attributions) and len(numbers)):
        return pd.DataFrame(columns=COLUMNS)
    settings = SETTINGS | settings
    tried = {name: attribute_words(questions, sources, targets, settings | {"attribution": name})
             for name in attributions}
    scored = {name: list(map(json.loads, table["raw"])) for name, table in tried.items()}
    ranked = {name: [[word.casefold() for word, *_ in ranked_words(words)] for words in rows]
              for name, rows in scored.items()}
    rows = [row for row in range(len(questions)) if all(ranks[row] for ranks in ranked.values())]
    if not rows:
        raise StudyError("the choice of words: no dev question has words that every attribution ranks; "
                         f"tried: {', '.join(attributions)}")
    orders = {row: [*(ranks[row] for ranks in ranked.values()),
                    *_random_orders(ranked[attributions[0]][row], settings["seed"], questions["id"].iloc[row])]
              for row in rows}
    kept = {(row, frozenset(part)) for row, several in orders.items() for order in several for k in numbers
            for part in (order, order[:k], order[k:])}
    p = _answer_probabilities(questions, list(sources), list(targets), settings | {"attribution": attributions[0]},
                              scored[attributions[0]], sorted(kept, key=lambda one: (one[0], sorted(one[1]))))

    def measures(place, k):
        """Return comprehensiveness and sufficiency of the first k words of an order, two arrays over questions."""
        parts = [[p[row, frozenset(part)] for order in [orders[row][place]] for part in (order, order[k:], order[:k])]
                 for row in rows]
        whole, without, alone = np.array(parts).T
        return whole - without, whole - alone

    table = []
    for k in numbers:
        drawn = [measures(place, k) for place in range(len(tried), len(tried) + DRAWS)]
        expected = np.mean([needed - enough for needed, enough in drawn], axis=0)
        for place, (name, found) in enumerate(tried.items()):
            needed, enough = measures(place, k)
            gain = needed - enough - expected
            words = found.iloc[rows].assign(text=[" ".join(best_words(scored[name][row], k)) for row in rows])
            error = gain.std(ddof=1) / len(gain) ** 0.5 if len(gain) > 1 else None
            table.append([name, k, len(rows), needed.mean(), enough.mean(), gain.mean().round(12), error,
                          answer_share(words, questions).loc["attributed", "any answer word"], False])
    table.sort(key=lambda row: attributions.index(row[0]))  # stable, so k keeps its order
    best = max(range(len(table)), key=lambda place: (table[place][5], -table[place][1], -place))
    table[best][-1] = True
    return pd.DataFrame(table, columns=COLUMNS)


def choose(choices: pd.DataFrame, choose_on: str, attribution: str, k: int) -> tuple[str, int]:
    """Return the attribution and the number of words of a run: `attribution` and `k`, or with `choose_on` the chosen.

    `choices`: a frame of compare_choices. The attribution `random` stays, as a control with the chosen number of words.
    Raises StudyError if there was no question to choose on.
    """
    if not choose_on:
        return attribution, k
    if not len(choices):
        raise StudyError(f"choose_on: the split {choose_on} has no questions; add some, or set attribution and k")
    best = choices[choices["chosen"]].iloc[0]
    return attribution if attribution == "random" else best["attribution"], int(best["k"])


def describe_choice(choices: pd.DataFrame, used: tuple[str, int]) -> str:
    """Return in words what has the highest gain in a frame of compare_choices, and what is `used` (see choose)."""
    if not len(choices):
        return f"Nothing to compare. Used: {used[0]}, k = {used[1]}."
    best = choices[choices["chosen"]].iloc[0]
    doubt = "" if best["gain"] > 0 else " No choice is better than random words."
    return (f"Highest gain on {best['questions']} dev questions: {best['attribution']}, k = {best['k']}.{doubt} "
            f"Used: {used[0]}, k = {used[1]}.")


def _random_orders(words, seed, question_id):
    """Return DRAWS random orders of distinct words; they do not depend on the order of `words`."""
    orders = []
    for draw in range(DRAWS):
        orders.append(sorted(words))
        random.Random(f"random order {seed} {draw} {question_id}").shuffle(orders[-1])
    return orders


def _answer_probabilities(questions, sources, targets, settings, words, kept):
    """Return {(row, words that are there): probability of the explained answer} for each entry of `kept`.

    `words`: per question [[word, score, start, end], …], the words that can be left out.
    """
    import torch

    model, tokenizer, _ = load_model(settings)
    encoded, embed = with_places(tokenizer, sources), model.get_input_embeddings()
    target_ids = explained_targets(model, tokenizer, encoded, list(questions["answer"]), targets, settings)[1]
    names = [[word.casefold() for word, *_ in found] for found in words]
    owners = [word_numbers([(word, start, end) for word, _, start, end in found], offsets)
              for found, offsets in zip(words, word_offsets(tokenizer, encoded), strict=True)]

    def source(row, there):
        return [token if owner < 0 or names[row][owner] in there else padding(model)
                for token, owner in zip(encoded["input_ids"][row], owners[row], strict=True)]

    found = {}
    for places in similar_lengths([len(owners[row]) + len(target_ids[row]) for row, _ in kept],
                                  settings["token_budget"]):
        some = [kept[place] for place in places]
        batch = padded_batch(model, [source(*one) for one in some], [target_ids[row] for row, _ in some],
                             [0] * len(some))
        with torch.no_grad():
            log_p = target_log_p(model, embed(batch["source"]),
                                 *(batch[name] for name in ("mask", "decoder", "target", "counted"))).sum(-1)
        found |= zip(some, log_p.double().exp().tolist(), strict=True)
    return found
