"""Automatic metrics of explanations: each row is one text, each column one measure, defined here.

Against references (what the teacher wrote, or people):

``bleu``
    Sentence BLEU of sacrebleu (Papineni et al. 2002; Post 2018): geometric mean of the precisions of one to four words,
    exponential smoothing, brevity penalty; 0 to 1. Several references count together. Where a script has no spaces
    between words, each character is a word there, as with sacrebleu's tokenizers ``zh`` and ``char``.
``rouge_l``
    ROUGE-L of rouge-score (Lin 2004): F1 of the longest common subsequence of words, case and punctuation ignored;
    0 to 1; of several references the best.
``bertscore``
    BERTScore of torchmetrics (Zhang et al. 2020): F1 of the best cosine matches between the token states of an encoder,
    last layer, without idf and without rescaling; of several references the best. Compare it only between texts
    scored with the same encoder. A text is read as far as the encoder has positions; what is cut is counted.

By themselves:

``words``; ``repetition``: share of the text's three-word sequences that stood in it before (0 for shorter texts);
``names_answer``: the predicted answer stands in the text (an explanation that leaks its answer tells a reader nothing
more than the answer); ``names_gold``; ``distractors``: share of the other choices that it names, None without
choices; ``copied``: share of its three-word sequences that stand in the question.

An empty text has 0 for every measure against a reference, and 0 words; a question without a reference has no value
(None) there. None of these says that a text is true, or that it is why the student answered as it did.

What a word is, kdutils.data.texts says. What a reader of the numbers has to know of them, score_notes says.
"""

from functools import lru_cache

import numpy as np
import pandas as pd

from kdutils.data.texts import (
    count_words,
    first_words,
    is_unspaced,
    lower_words,
    names_answer,
    space_characters,
    word_triples,
)
from kdutils.errors import StudyError
from kdutils.hub import model_context

METRICS = ("bleu", "rouge_l", "bertscore")
OWN = ("words", "repetition", "names_answer", "names_gold", "distractors", "copied")
LONGEST = 2000  # words of a text that are looked at: generation bounds what students write, nothing bounds other texts
LONGEST_READ = 512  # tokens of a text that an encoder reads where it has positions for more, or for any number


def explanation_scores(predictions, questions, references, encoder=""):
    """Return one row per text of `predictions` (a frame of tables.PREDICTIONS) with its id, seed and every measure.

    `references`: {name: {question id: list of texts}}, such as teacher and human; each makes the columns
    ``bleu_<name>``, ``rouge_l_<name>`` and, with an `encoder` (a folder or Hub id), ``bertscore_<name>``.
    ``attrs["notes"]`` counts texts that are read otherwise than they stand: see score_notes.
    """
    items = questions.set_index("id")
    texts = [first_words(text, LONGEST) for text in predictions["explanation"]]
    notes = {"texts": len(texts), "unspaced": sum(map(is_unspaced, texts))}
    table = predictions[["id", "seed"]].reset_index(drop=True)
    own = [own_scores(text, row.predicted, row.answer, items.at[row.id, "question"], items.at[row.id, "choices"])
           for text, row in zip(texts, predictions.itertuples(), strict=True)]
    table = table.join(pd.DataFrame(own, columns=OWN))
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


def score_notes(scores):
    """Return the sentences that a reader of explanation_scores needs: what was cut, and where characters are words."""
    notes, lines = scores.attrs.get("notes", {}), []
    if notes.get("unspaced"):
        lines.append(f"{notes['unspaced']} of {notes['texts']} explanations are, or quote, a script without spaces "
                     "between words: each of its characters counts as one word.")
    if notes.get("cut"):
        lines.append(f"{notes['cut']} of {notes['read']} different texts are longer than the {notes['limit']} tokens "
                     "that the encoder reads: BERTScore, and the logit's cosines, know only their beginning.")
    return lines


def own_scores(text, predicted, gold, question, choices):
    """Return the measures of OWN for one text."""
    others = [choice for choice in choices if choice != predicted]
    sequences, asked = word_triples(text), set(word_triples(question))
    return {
        "words": count_words(text),
        "repetition": 1 - len(set(sequences)) / len(sequences) if sequences else 0.0,
        "names_answer": float(names_answer(text, predicted)), "names_gold": float(names_answer(text, gold)),
        "distractors": float(np.mean([names_answer(text, choice) for choice in others])) if others else None,
        "copied": float(np.mean([sequence in asked for sequence in sequences])) if sequences else 0.0,
    }


def bleu(text, references):
    """Return sentence BLEU of `text`, 0 to 1; None without references."""
    from sacrebleu.metrics import BLEU

    if not references:
        return None
    if not text.strip():
        return 0.0
    spaced = list(map(space_characters, references))
    return BLEU(effective_order=True).sentence_score(space_characters(text), spaced).score / 100


def rouge_l(text, references):
    """Return ROUGE-L F1 of `text` against the best of its references, 0 to 1; None without references."""
    from rouge_score.rouge_scorer import RougeScorer

    if not references:
        return None
    scorer = RougeScorer(["rougeL"], tokenizer=_Words())
    return max(scorer.score(reference, text)["rougeL"].fmeasure for reference in references)


class _Words:
    """Words of any script: rouge-score's own tokenizer keeps a to z and 0 to 9 and scores all else as nothing."""

    def tokenize(self, text):
        return lower_words(text)


def bertscore(texts, references, encoder):
    """Return BERTScore F1 of each text against the best of its references; None without references."""
    from torchmetrics.functional.text import bert_score

    model, tokenizer = load_encoder(encoder)
    pairs = [(row, text, reference) for row, (text, known) in enumerate(zip(texts, references, strict=True))
             for reference in known if text.strip()]
    best = [None if not known else 0.0 for known in references]
    distinct = list(dict.fromkeys((text, reference) for _, text, reference in pairs))
    if not distinct:
        return best
    scores = bert_score([text for text, _ in distinct], [reference for _, reference in distinct], model=model,
                        user_tokenizer=tokenizer, user_forward_fn=_last_states, truncation=True,
                        max_length=encoder_limit(model), batch_size=32)["f1"]
    found = dict(zip(distinct, np.atleast_1d(np.asarray(scores, dtype=float)).tolist(), strict=True))
    for row, text, reference in pairs:
        best[row] = max(best[row], found[text, reference])
    return best


def encoder_cuts(texts, encoder):
    """Return how many different texts an encoder is given (``read``), its ``limit`` in tokens, how many it ``cut``."""
    model, tokenizer = load_encoder(encoder)
    texts = [text for text in texts if text and text.strip()]
    lengths = list(map(len, tokenizer(texts)["input_ids"])) if texts else []
    limit = encoder_limit(model)
    return {"read": len(texts), "limit": limit, "cut": sum(length > limit for length in lengths)}


def encoder_limit(model):
    """Return how many tokens of a text an encoder reads: its positions, at most LONGEST_READ."""
    return min(LONGEST_READ, model_context(model) or LONGEST_READ)


def _last_states(model, batch):
    return model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state


@lru_cache(1)
def load_encoder(name):
    """Return (encoder, tokenizer) of a folder or Hub id, in float32."""
    import torch
    from transformers import AutoModel

    from kdutils.hub import check_vocabulary, find_model, load_weights, read_config, read_tokenizer

    found = find_model(name)
    model = load_weights(AutoModel, found, ("head", "pooler"), config=read_config(found), dtype=torch.float32)
    tokenizer = read_tokenizer(name)
    if check_vocabulary(name, tokenizer, model.get_input_embeddings().num_embeddings):
        raise StudyError(f"{name}: tokens were added to its tokenizer without rows in the model's table; resize the "
                         "table (resize_token_embeddings) and save it, or take another encoder")
    return model.eval(), tokenizer


def distinct_share(texts, length):
    """Return distinct-n (Li et al. 2016): different sequences of `length` words over all of them; None without any."""
    found = [tuple(words[start:start + length]) for words in map(lower_words, texts)
             for start in range(len(words) - length + 1)]
    return len(set(found)) / len(found) if found else None


def summarise_scores(scores, predictions):
    """Return one row per seed: the mean of every measure over the texts that have it, distinct-1 and distinct-2."""
    rows = []
    for seed, group in scores.groupby("seed"):
        texts = list(predictions.loc[predictions["seed"] == seed, "explanation"])
        means = {name: group[name].astype(float).mean() for name in group.columns if name not in ("id", "seed")}
        rows.append({"seed": seed, **means, "distinct_1": distinct_share(texts, 1),
                     "distinct_2": distinct_share(texts, 2)})
    return pd.DataFrame(rows)
