"""A teacher as rater: how probable it finds each point of a scale as the continuation of a prompt.

With these probabilities, human_study.model_rater computes an expected point, the scoring function of G-Eval (Liu et al.
2023, "G-Eval: NLG Evaluation using GPT-4 with Better Human Alignment", section 2).
"""

import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from kdutils.errors import StudyError
from kdutils.teacher.completion import Decoding
from kdutils.teacher.served import ServedTeacher
from kdutils.teacher.soft_labels import choice_probabilities

if TYPE_CHECKING:
    from kdutils.teacher.hf import HfTeacher
    from kdutils.teacher.stored import StoredTeacher

NEW_TOKENS = 8  # of an answer that is read as text
_POINT = re.compile(r"(?<![\d.,])([1-9])(?!\d|[.,]\d)")

Progress = Callable[[int, int], None]


def rate_points(teacher: "StoredTeacher", prompts: list[str], points: int,
                progress: Progress | None = None) -> tuple[np.ndarray, str, list[str]]:
    """Return (probabilities p of the points 1 to `points`, [prompts, points], how they were found, notes).

    "likelihood": p(k) = exp(log p of " k" behind the prompt) / Σ_j exp(log p of " j"), so each row sums to 1. A model
    on this machine gives it, and without `chat` a server that returns log p of a given text.
    "text": any other server writes an answer, and its first number has probability 1; a row without one is NaN. A
    note says why a server without `chat` did not score the first prompt. Raises StudyError if it fails later.
    """
    from kdutils.teacher.hf import HfTeacher

    notes, model, words = [], teacher.teacher, [str(point) for point in range(1, points + 1)]
    if isinstance(model, HfTeacher):
        return next_word_probabilities(model, prompts, words, progress), "likelihood", notes
    if isinstance(model, ServedTeacher) and not model.chat:
        try:
            _served_probabilities(teacher, prompts[:1], words)
        except StudyError as error:
            notes = [f"The written answers are read, because the server gives no likelihoods: {error}."]
        else:
            return _served_probabilities(teacher, prompts, words, progress), "likelihood", notes
    texts = [one.text for one in teacher.complete(prompts, Decoding(NEW_TOKENS, ("\n",)), progress)]
    return np.array([point_of_text(text, points) for text in texts]).reshape(-1, points), "text", notes


def _served_probabilities(teacher, prompts, words, progress=None):
    """Return the probabilities, [prompts, words], that a server gives to each of `words` behind each prompt."""
    asked = [(prompt, f" {word}") for prompt in prompts for word in words]
    done = teacher.score([prompt for prompt, _ in asked], [text for _, text in asked], progress)
    log_p = np.array([sum(json.loads(one.text)) for one in done]).reshape(-1, len(words))
    return np.array([choice_probabilities(row) for row in log_p]).reshape(-1, len(words))


def point_of_text(text: str, points: int) -> list[float]:
    """Return probability 1 for the first whole number of `text`, NaN if it has none or one outside the scale."""
    found = _POINT.search(text)
    if not found or int(found[1]) > points:
        return [np.nan] * points
    return [float(int(found[1]) == point) for point in range(1, points + 1)]


def next_word_probabilities(teacher: "HfTeacher", prompts: list[str], words: list[str],
                            progress: Progress | None = None) -> np.ndarray:
    """Return the probabilities, [prompts, words], with which each of `words` begins a model's continuation.

    Only the words are compared: each row sums to 1. Tokens that all words share are read before the first one that
    differs. Prompts of one length are read together, so no padding takes part. Raises StudyError if two words begin
    with the same token, or a prompt does not fit into the context.
    """
    import torch

    shared, firsts = _first_tokens(teacher, words)
    encoded, model = teacher.encode(prompts, len(shared) + 1), teacher.model
    seq2seq, lengths = teacher.config.is_encoder_decoder, {}
    for place, ids in enumerate(encoded):
        lengths.setdefault(len(ids), []).append(place)
    result, done = np.empty((len(prompts), len(words))), 0
    for length, places in sorted(lengths.items()):
        size = max(1, teacher.token_budget // (length + len(shared) + 1))
        for batch in (places[at:at + size] for at in range(0, len(places), size)):
            rows = [encoded[place] + ([] if seq2seq else shared) for place in batch]
            given = {"input_ids": torch.tensor(rows, device=model.device)}
            if seq2seq:
                config, generation = model.config, model.generation_config
                start = next(one for one in (generation.decoder_start_token_id, generation.bos_token_id,
                                             config.decoder_start_token_id) if one is not None)
                given["decoder_input_ids"] = torch.tensor([[start, *shared]] * len(batch), device=model.device)
            with torch.inference_mode():
                logits = model(**given).logits[:, -1, firsts].float()
            result[batch] = torch.softmax(logits, -1).cpu().numpy()
            done += len(batch)
            if progress:
                progress(done, len(prompts))
    return result


def _first_tokens(teacher, words):
    """Return (tokens that all words begin with, the first token in which they differ)."""
    spaced = words if teacher.chat or teacher.config.is_encoder_decoder else [f" {word}" for word in words]
    rows = [teacher.tokenizer(word, add_special_tokens=False)["input_ids"] for word in spaced]
    same = 0
    while all(len(row) > same + 1 for row in rows) and len({row[same] for row in rows}) == 1:
        same += 1
    firsts = [row[same] for row in rows]
    if len(set(firsts)) < len(words):
        raise StudyError(f"{teacher.name}: its vocabulary begins {words[0]} and another of {', '.join(words)} with the "
                         "same token, so their likelihoods cannot be compared; reach the model by a server")
    return rows[0][:same], firsts
