"""Automatic metrics of explanations. One row per text, one column per measure, defined here.

Measures against references (explanations by the teacher or by people):

``bleu``
    Sentence BLEU of sacrebleu (Papineni et al. 2002; Post 2018): geometric mean of the precisions of one to four words,
    exponential smoothing, brevity penalty; 0 to 1. All references are used together. In a script without spaces
    between words each character is a word, as in sacrebleu's tokenizers ``zh`` and ``char``.
``rouge_l``
    ROUGE-L of rouge-score (Lin 2004): F1 of the longest common subsequence of words, without case and punctuation;
    0 to 1; the best over several references.
``bertscore``
    BERTScore (Zhang et al. 2020): F1 of the best cosine matches between the token states of an encoder, last layer,
    without idf and rescaling; the best over several references. Compare only texts that were scored with the same
    encoder. The encoder reads as many tokens as it has positions; cut texts are counted.

Measures of the text alone:

``words``
    The number of words.
``repetition``
    The share of its three-word sequences that occurred in it before; 0 for shorter texts.
``names_answer``, ``names_gold``
    1 where the text names the predicted answer, or the right one; None where a mention shows nothing, as of yes and no
    (texts.naming_score), and where no answer could be read.
``distractors``
    The share of the other choices that it names; None without choices and where a mention shows nothing.
``copied``
    The share of its three-word sequences that occur in the question or its context.

Measures of truth, where what a text says can be checked (the embedded world, mini_world.truth_of):

``states_facts``, ``wholly_true``, ``true_share``, ``true_reason``
    1 where a statement is read; 1 where all statements are read and true, and the share of true ones among those that
    are read (both None where none is read); 1 where the text gives a true fact about the predicted answer that the
    question asks.

Proxies of truth, elsewhere: ``denies_answer``, ``argues_for_other``, ``support_human``, ``entailed_human`` and
``contradicted_human``, see truth_proxies.

An empty text has 0 for every measure against a reference. Without a reference such a measure is None. No other
measure shows that a text is true, and none that it is the reason for the student's answer.

kdutils.data.texts defines a word. score_notes tells readers of the numbers which texts were cut.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from kdutils.data.mini_world import truth_of
from kdutils.data.questions import full_question
from kdutils.data.texts import (
    count_words,
    first_words,
    is_unspaced,
    lower_words,
    naming_score,
    space_characters,
    word_triples,
)
from kdutils.evaluation.encoders import encoder_limit, load_encoder, token_states
from kdutils.evaluation.settings import OWN, TRUTH
from kdutils.evaluation.truth_proxies import proxy_scores

LONGEST = 2000  # words of a text that are measured; generation limits the texts of students, nothing limits others


def explanation_scores(predictions: pd.DataFrame, questions: pd.DataFrame,
                       references: dict[str, dict[str, list[str]]], encoder: str = "", nli: str = "",
                       claims: bool = True) -> pd.DataFrame:
    """Return one row per text of `predictions` (a frame of tables.PREDICTIONS): id, seed and every measure.

    `references`: {name: {question id: texts}}, the name being teacher or human. Each name makes the columns
    ``bleu_<name>``, ``rouge_l_<name>`` and, with an `encoder` (a folder or Hub id), ``bertscore_<name>``. `nli`:
    see truth_proxies. `claims`: whether the texts make claims; a list of words does not, so it can neither deny an
    answer nor argue for another one. ``attrs["notes"]`` has the counts for score_notes.
    """
    items = questions.set_index("id")
    texts = [first_words(text, LONGEST) for text in predictions["explanation"]]
    notes = {"texts": len(texts), "unspaced": sum(map(is_unspaced, texts))}
    table = predictions[["id", "seed"]].reset_index(drop=True)
    own = [own_scores(text, row.predicted, row.answer, full_question(items.loc[row.id]), items.at[row.id, "choices"])
           for text, row in zip(texts, predictions.itertuples(), strict=True)]
    table = table.join(pd.DataFrame(own, columns=OWN))
    truth = [truth_of(text, items.at[row.id, "question"], row.predicted)
             for text, row in zip(texts, predictions.itertuples(), strict=True)]
    if any(truth):
        table = table.join(pd.DataFrame([one or {} for one in truth], columns=TRUTH))
    table = table.join(proxy_scores(texts, list(predictions["predicted"]),
                                    [list(items.at[key, "choices"]) for key in predictions["id"]],
                                    [references.get("human", {}).get(key, []) for key in predictions["id"]],
                                    encoder, nli))
    if not claims:
        table = table.drop(columns=["denies_answer", "argues_for_other"])
    for name, known in references.items():
        wanted = [[text for text in known.get(key, []) if text and text.strip()] for key in predictions["id"]]
        table[f"bleu_{name}"] = list(map(bleu, texts, wanted))
        table[f"rouge_l_{name}"] = list(map(rouge_l, texts, wanted))
        if encoder:
            table[f"bertscore_{name}"] = bertscore(texts, wanted, encoder)
    if encoder and references:
        known = {text for found in references.values() for key in predictions["id"] for text in found.get(key, [])}
        notes |= encoder_cuts({*texts, *known}, encoder)
    table.attrs["notes"] = notes
    return table


def score_notes(scores: pd.DataFrame) -> list[str]:
    """Return sentences about explanation_scores: how many texts were cut, and how many are counted in characters."""
    notes, lines = scores.attrs.get("notes", {}), []
    if notes.get("unspaced"):
        lines.append(f"{notes['unspaced']} of {notes['texts']} explanations are, or quote, a script without spaces "
                     "between words: each of its characters counts as one word.")
    if notes.get("cut"):
        lines.append(f"{notes['cut']} of {notes['read']} different texts are longer than the {notes['limit']} tokens "
                     "that the encoder reads: BERTScore, and the logit's cosines, know only their beginning.")
    return lines


def own_scores(text: str, predicted: str, gold: str, question: str, choices: list[str]) -> dict[str, float | None]:
    """Return the measures of OWN for one text."""
    others = [naming_score(text, choice, choices) for choice in choices if choice != predicted]
    sequences, asked = word_triples(text), set(word_triples(question))
    return {
        "words": count_words(text),
        "repetition": 1 - len(set(sequences)) / len(sequences) if sequences else 0.0,
        "names_answer": naming_score(text, predicted, choices) if predicted else None,
        "names_gold": naming_score(text, gold, choices),
        "distractors": float(np.mean(others)) if others and None not in others else None,
        "copied": float(np.mean([sequence in asked for sequence in sequences])) if sequences else 0.0,
    }


def bleu(text: str, references: list[str]) -> float | None:
    """Return sentence BLEU of `text`, 0 to 1; None without references."""
    from sacrebleu.metrics import BLEU

    if not references:
        return None
    if not text.strip():
        return 0.0
    spaced = list(map(space_characters, references))
    return BLEU(effective_order=True).sentence_score(space_characters(text), spaced).score / 100


def rouge_l(text: str, references: list[str]) -> float | None:
    """Return ROUGE-L F1 of `text` with the best of its references, 0 to 1; None without references."""
    from rouge_score.rouge_scorer import RougeScorer

    if not references:
        return None
    scorer = RougeScorer(["rougeL"], tokenizer=_Words())
    return max(scorer.score(reference, text)["rougeL"].fmeasure for reference in references)


class _Words:
    """A tokenizer for words of any script: that of rouge-score drops all but a to z and 0 to 9."""

    def tokenize(self, text):
        return lower_words(text)


def bertscore(texts: list[str], references: list[list[str]], encoder: str) -> list[float | None]:
    """Return BERTScore F1 of each text with the best of its references; None without references.

    With the unit vectors x of the tokens of a text and y of those of a reference (Zhang et al. 2020, section 3)::

        P = 1/|x| Σ_i max_j x_i · y_j        R = 1/|y| Σ_j max_i x_i · y_j        F1 = 2 P R / (P + R)

    Tokens that the tokenizer adds do not count. A text without any other token has 0.
    """
    read = {text for text, known in zip(texts, references, strict=True) if known}
    states = token_states(sorted({*read, *(one for known in references for one in known)}), encoder)
    return [max((_greedy_f1(states[text], states[one]) for one in known), default=None)
            for text, known in zip(texts, references, strict=True)]


def _greedy_f1(first, second):
    if not len(first) or not len(second):
        return 0.0
    cosines = first @ second.T
    precision, recall = cosines.max(axis=1).mean(), cosines.max(axis=0).mean()
    return float(2 * precision * recall / (precision + recall)) if precision + recall > 0 else 0.0


def encoder_cuts(texts: Iterable[str], encoder: str) -> dict[str, int]:
    """Return the number of texts that the encoder was given (read), its limit in tokens, and how many it cut (cut)."""
    model, tokenizer = load_encoder(encoder)
    texts = [text for text in texts if text and text.strip()]
    lengths = list(map(len, tokenizer(texts)["input_ids"])) if texts else []
    limit = encoder_limit(model)
    return {"read": len(texts), "limit": limit, "cut": sum(length > limit for length in lengths)}


def distinct_share(texts: list[str], length: int) -> float | None:
    """Return distinct-n (Li et al. 2016): the share of distinct sequences of `length` words; None without any."""
    sequences = [tuple(words[start:start + length]) for words in map(lower_words, texts)
                 for start in range(len(words) - length + 1)]
    return len(set(sequences)) / len(sequences) if sequences else None


def summarise_scores(scores: pd.DataFrame, predictions: pd.DataFrame) -> pd.DataFrame:
    """Return one row per seed: the mean of each measure over the texts that have it, distinct_1 and distinct_2."""
    rows = []
    for seed, group in scores.groupby("seed"):
        texts = list(predictions.loc[predictions["seed"] == seed, "explanation"])
        means = {name: group[name].astype(float).mean() for name in group.columns if name not in ("id", "seed")}
        rows.append({"seed": seed, **means, "distinct_1": distinct_share(texts, 1),
                     "distinct_2": distinct_share(texts, 2)})
    return pd.DataFrame(rows)
