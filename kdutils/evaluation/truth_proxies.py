"""Proxies of truth: signs that an explanation may be false, where what it says cannot be checked.

In the embedded world every statement of a text is checked (data.mini_world.truth_of). Nothing can do this for real
questions. These measures are *proxies*: each can be wrong about a single text, and a text that passes all of them can
be false. ``python -m kdutils.benchmarks.proxies`` compares them with the ratings of people and with texts that
were written for wrong answers. Reports call them proxies.

By rules, for questions with choices:

``denies_answer``
    1 where the text contradicts the answer in words (texts.denies_answer).
``argues_for_other``
    1 where the text argues for another of the question's choices (texts.argues_for). Texts that show no choice have 0.

By a model, for questions about which people wrote facts (StrategyQA, QASC, OpenBookQA) or explanations (CoS-E, e-SNLI,
CREAK), the column `human_explanations`:

``support_human``
    By a sentence encoder: the mean over the sentences of the text of the highest cosine with a sentence by people, from
    -1 to 1. Embeddings are mean-pooled last hidden states (Reimers and Gurevych 2019, SBERT). A text that says the
    opposite of a fact is also similar to it.
``entailed_human``, ``contradicted_human``
    By a model for natural language inference: the mean over the sentences of the text of the probability that all that
    people wrote, as premise, entails or contradicts the sentence. This is SummaC-ZS (Laban et al. 2022) with one
    premise in place of the best of its sentences, and without subtracting the contradiction, which stands beside it.

An empty text has 0 everywhere. A measure is None where the question has no choices or where nobody wrote anything. A
text that is itself one of those by people has no value of the last three. Compare only values of the same model.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from kdutils.data.tables import CHOICE, word_lists
from kdutils.data.texts import argues_for, denies_answer, split_sentences
from kdutils.errors import StudyError
from kdutils.evaluation.encoders import batches, encoder_limit, read_batches
from kdutils.evaluation.settings import PROXIES

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LABELS = ("entailment", "contradiction")


def proxy_scores(texts: list[str], answers: list[str], choices: list[list[str]], human: list[list[str]],
                 encoder: str = "", nli: str = "") -> pd.DataFrame:
    """Return one row per text with the columns of PROXIES that can be computed.

    `answers`: those that the texts are to explain; about one that is none of the choices, or "", a text neither denies
    nor argues anything (None). `human`: per text what people wrote about its question. `encoder`,
    `nli`: folders or Hub ids; without one its measures are left out. Raises StudyError for an `nli` whose labels are
    not those of inference.
    """
    rows = list(zip(texts, answers, choices, strict=True))
    found = {"denies_answer": [float(denies_answer(*row)) if row[1] in row[2] else None for row in rows],
             "argues_for_other": [float(argues_for(*row) is False) if row[1] in row[2] else None for row in rows]}
    known = [[] if text in written else [one for one in written if one.strip()]
             for text, written in zip(texts, human, strict=True)]
    if any(known) and encoder:
        found["support_human"] = _support(texts, known, encoder)
    if any(known) and nli:
        found |= dict(zip(PROXIES[3:], _inferred(texts, known, nli), strict=True))
    return pd.DataFrame({name: pd.Series(values, dtype=float) for name, values in found.items()})


def teacher_proxies(explanations: pd.DataFrame, questions: pd.DataFrame, encoder: str = "",
                    nli: str = "") -> pd.DataFrame:
    """Return one row per stage of a teacher's usable texts: stage, texts, and the mean of each of PROXIES.

    A text is judged by the answer that it was written for. Critiques, lists of words (prompting tokens) and soft labels
    make no claims about an answer and are left out. `explanations`, `questions`: frames of data.tables.
    """
    items, rows = questions.set_index("id"), []
    usable = explanations[explanations["text"].notna() & ~explanations["stage"].isin(["critique", CHOICE])
                          & ~word_lists(explanations)]
    for stage, part in usable.groupby("stage", sort=False):
        known = items.loc[part["id"]]
        scores = proxy_scores(list(part["text"]), list(part["answer"]), list(map(list, known["choices"])),
                              list(map(list, known["human_explanations"])), encoder, nli)
        rows.append({"stage": stage, "texts": len(part), **scores.mean().to_dict()})
    return pd.DataFrame(rows, columns=["stage", "texts", *PROXIES])


def _support(texts, known, encoder):
    """Return support_human of each text, None where nobody wrote anything."""
    wanted = [text for text, written in zip(texts, known, strict=True) if written]
    parts = [sentence for text in [*wanted, *(one for written in known for one in written)]
             for sentence in split_sentences(text)]
    vectors = sentence_vectors(list(dict.fromkeys(parts)), encoder)

    def support(text, written):
        facts = [vectors[sentence] for one in written for sentence in split_sentences(one)]
        best = [max(vectors[sentence] @ fact for fact in facts) for sentence in split_sentences(text)]
        return float(np.mean(best)) if best else 0.0

    return [support(*pair) if pair[1] else None for pair in zip(texts, known, strict=True)]


def sentence_vectors(sentences: list[str], encoder: str) -> dict[str, np.ndarray]:
    """Return {sentence: unit vector}, the mean of the encoder's last hidden states, normalised."""
    vectors = {}
    for batch, states, mask, _ in read_batches(sentences, encoder):
        counted = mask[..., None]
        means = ((states * counted).sum(dim=1) / counted.sum(dim=1)).double().numpy()
        means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
        vectors.update(zip(batch, means, strict=True))
    return vectors


def _inferred(texts, known, nli):
    """Return (entailed_human, contradicted_human) of the texts, None where nobody wrote anything."""
    pairs = [[(" ".join(written), sentence) for sentence in split_sentences(text)] if written else []
             for text, written in zip(texts, known, strict=True)]
    shares = nli_probabilities(list(dict.fromkeys(pair for every in pairs for pair in every)), nli)
    means = [np.mean([shares[pair] for pair in every], axis=0) if every else np.zeros(len(LABELS)) for every in pairs]
    return [[float(mean[place]) if written else None for mean, written in zip(means, known, strict=True)]
            for place in range(len(LABELS))]


def nli_probabilities(pairs: list[tuple[str, str]], nli: str) -> dict[tuple[str, str], tuple[float, float]]:
    """Return {(premise, hypothesis): (probability of entailment, of contradiction)}; a long premise is cut."""
    import torch

    model, tokenizer, places = load_nli(nli)
    found = {}
    for batch in batches(sorted(pairs, key=lambda pair: len(pair[0]) + len(pair[1]))):
        inputs = tokenizer([one for one, _ in batch], [two for _, two in batch], return_tensors="pt", padding=True,
                           truncation="longest_first", max_length=encoder_limit(model))
        with torch.no_grad():
            shares = model(**inputs).logits.float().softmax(dim=-1)[:, places].double().tolist()
        found.update(zip(batch, map(tuple, shares), strict=True))
    return found


@lru_cache(1)
def load_nli(name: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, list[int]]:
    """Return (model, tokenizer, places of LABELS among its outputs) of a folder or Hub id, in float32.

    Raises StudyError for a model without the labels entailment and contradiction.
    """
    import torch
    from transformers import AutoModelForSequenceClassification

    from kdutils.hub import find_model, load_weights, read_config, read_tokenizer

    found = find_model(name)
    config = read_config(found)
    labels = {str(label).casefold(): int(place) for place, label in config.id2label.items()}
    if missing := [label for label in LABELS if label not in labels]:
        raise StudyError(f"{name}: its labels are {', '.join(labels)}, without {missing[0]}; name a model for natural "
                         "language inference (key nli)")
    model = load_weights(AutoModelForSequenceClassification, found, config=config, dtype=torch.float32)
    return model.eval(), read_tokenizer(name), [labels[label] for label in LABELS]
