"""A teacher as rater: how probable it finds each point of a scale as the continuation of a prompt.

With these probabilities, human_study.model_rater computes an expected point, the scoring function of G-Eval (Liu et al.
2023, "G-Eval: NLG Evaluation using GPT-4 with Better Human Alignment", section 2).
"""

import json
import re
from dataclasses import replace
from os.path import commonprefix
from typing import TYPE_CHECKING

import numpy as np

from kdutils.errors import StudyError
from kdutils.teacher.completion import TOP_TOKENS, Decoding, Progress
from kdutils.teacher.served import ServedTeacher
from kdutils.teacher.soft_labels import LEAST, choice_probabilities, shares_of_first_tokens
from kdutils.teacher.thinking import thinks_first

if TYPE_CHECKING:
    from kdutils.teacher.hf import HfTeacher
    from kdutils.teacher.stored import StoredTeacher

NEW_TOKENS, THINKING_TOKENS = 8, 2048  # of an answer that is read as text, and of one with the thinking before it
TRIED = 8  # prompts that show whether a chat begins its answers with a point
# One of several explanations that a prompt of human_study.model_rater asks about.
_RATED = re.compile(r"^Statement about (\w+ \d):", re.MULTILINE)
_FEW = f"the points among the {TOP_TOKENS} most probable first tokens have together less than half of the probability"
_POINT = re.compile(r"(?<![\d.,])(?<!\A[-−])(?<!\s[-−])([1-9])(?!\d|[.,]\d)")
_MEANING = r"(?:\s*\([^()]*\)|\s*=\s*[a-z][a-z ]*?)?"  # 1 (strongly disagree) to 5, 1 = strongly disagree to 5
_NO_POINT = re.compile(rf"""  # numbers that are never the point
    (?:explanation|statement|text)(?:s\s*\d+\s*(?:and|or|&)\s*\d+|\s*\#?\d+)  # of what is rated
    | \b\d+(?:st|nd|rd|th)\b                                                 # of an order
    | \b\d+{_MEANING}\s*(?:to|through|-|–|—|…|\.\.+)\s*\d+\b              # the ends of a scale
    | \bbetween\s+\d+{_MEANING}\s*and\s*\d+\b
    | \bout\s+of\s+\d+\b | /\s*\d+                                         # its size
    | \A\s*\d+[.)]\s(?=[^\n]*:\s*\d)                                       # of an item before the rating
    """, re.IGNORECASE | re.VERBOSE)
_OF_SCALE = re.compile(r"""  # numbers that describe the scale, unless they are the only ones
    \b\d+[\s-]*(?:point|star|level)\b | \bscale\s+of\s+\d+\b               # a 5-point scale
    | \b\d+\s+(?:means|meaning|stands\s+for|being|indicates|represents)\b   # 1 means strongly disagree
    | \b\d+\s+is\s+(?:the\s+)?(?:strongly|best|worst|highest|lowest|maximum|minimum)\b
    | \b\d+\s*=[^\d=]+(?:\d+\s*=[^\d=]+)+                                 # 1 = strongly disagree, 5 = strongly agree
    | \b1\s*,\s*2\s*,[\d\s,]*(?:(?:or|and)\s*\d+)?                         # 1, 2, 3, 4 or 5
    """, re.IGNORECASE | re.VERBOSE)
_OF_EACH = re.compile(r"\b(explanation\s*\#?\d)\W{0,5}(?:is\s+)?([1-9])(?!\d|[.,]\d)", re.IGNORECASE)  # of a list
_OF_ANSWER = re.compile(r"\banswer\s*\#?\d+", re.IGNORECASE)  # of a rated answer, unless "Answer 4" is the rating


def rate_points(teacher: "StoredTeacher", prompts: list[str], points: int,
                progress: Progress | None = None) -> tuple[np.ndarray, str, list[str]]:
    """Return (probabilities p of the points 1 to `points`, [prompts, points], how they were found, notes).

    "likelihood": each row sums to 1. A model on this machine, and without `chat` a server that returns log p of a given
    text, give p(k) = exp(log p of " k" behind the prompt) / Σ_j exp(log p of " j"). In a chat, a server gives p(k) of
    the points among the TOP_TOKENS most probable first tokens of its answer, divided by their sum. A row in which the
    sum is below LEAST is read as text.
    "text": any other server, and a model that thinks first, write an answer, and its first number has probability 1; a
    row without one is NaN. All rows are read so where the server gives no likelihoods for the first prompt, and in a
    chat for none of the first TRIED ones.
    The notes say how many rows of a server are read as text, and why. Raises StudyError if the server fails later.
    """
    from kdutils.teacher.hf import HfTeacher

    model, words = teacher.teacher, [str(point) for point in range(1, points + 1)]
    thinks = any(thinks_first(model, prompt) for prompt in prompts[:1])
    if isinstance(model, HfTeacher) and not thinks:
        return next_word_probabilities(model, prompts, words, progress), "likelihood", []
    if not isinstance(model, ServedTeacher) or thinks:
        found, notes = _written_points(teacher, prompts, points, progress)
        return found, "text", notes
    ask = _chat_probabilities if model.chat else _served_probabilities
    reason, tried = "", prompts[:TRIED]
    try:
        ask(teacher, prompts[:1], words)
    except StudyError as error:
        reason = f"the server gives no likelihoods: {error}"
    if tried and not reason and np.isnan(ask(teacher, tried, words)).all():  # the first one is in the store
        reason = f"{_FEW}, for each of the first prompts ({len(tried)})"
    if reason:
        found, notes = _written_points(teacher, prompts, points, progress)
        return found, "text", [f"The written answers are read, because {reason}.", *notes]
    found, notes = ask(teacher, prompts, words, progress), []
    if len(unknown := np.flatnonzero(np.isnan(found).any(axis=1))):
        found[unknown], notes = _written_points(teacher, [prompts[row] for row in unknown], points)
        notes = [f"The written answers to {len(unknown)} of {len(prompts)} prompts are read, because {_FEW}.", *notes]
    return found, "likelihood", notes


def _served_probabilities(teacher, prompts, words, progress=None):
    """Return the probabilities, [prompts, words], that a server gives to each of `words` behind each prompt."""
    asked = [(prompt, f" {word}") for prompt in prompts for word in words]
    done = teacher.score([prompt for prompt, _ in asked], [text for _, text in asked], progress)
    log_p = np.array([sum(json.loads(one.text)) for one in done]).reshape(-1, len(words))
    return np.array([choice_probabilities(row) for row in log_p]).reshape(-1, len(words))


def _chat_probabilities(teacher, prompts, words, progress=None):
    """Return the probabilities, [prompts, words], of `words` as first tokens in a chat; NaN below LEAST together."""
    shares = np.array([shares_of_first_tokens(one, words) for one in teacher.first_tokens(prompts, progress)])
    together = shares.reshape(-1, len(words)).sum(axis=1, keepdims=True)
    return shares.reshape(-1, len(words)) / np.where(together >= LEAST, together, np.nan)


def _written_points(teacher, prompts, points, progress=None):
    """Return (probabilities as of rate_points, notes) read from what a model writes."""
    off = not getattr(teacher.teacher, "chat", False) or teacher.teacher.thinking == "off"
    decoding = Decoding(NEW_TOKENS if off else THINKING_TOKENS, ("\n",))
    texts, notes = teacher.complete(prompts, decoding, progress), []
    again = [row for row, one in enumerate(texts) if off and one.thinking and not one.text]
    if again:
        notes = [f"The model thinks in spite of `thinking: off`: {len(again)} of {len(prompts)} answers were asked for "
                 f"again, with {THINKING_TOKENS} tokens."]
        done = teacher.complete([prompts[row] for row in again], replace(decoding, max_new_tokens=THINKING_TOKENS))
        for row, one in zip(again, done, strict=True):
            texts[row] = one
    found = [point_of_text(one.text, points, prompt) for one, prompt in zip(texts, prompts, strict=True)]
    return np.array(found).reshape(-1, points), notes


def point_of_text(text: str, points: int, prompt: str = "") -> list[float]:
    """Return probability 1 for the first whole number of `text`, NaN if it has none or one outside the scale.

    If `prompt` asks about one of several explanations and `text` rates these by name ("Explanation 1: 4"), the number
    of the other one does not count.

    Numbers that name a text or the ends or the size of the scale do not count ("Explanation 2: 4", "on a scale of 1 to
    5: 4", "out of 5: 4"), nor do negative ones. Those that describe the scale count only if there is no other ("1 means
    strongly disagree, so 2", but "3 = neither"), and so does the number of an answer ("Answer 1: 4", but "Answer 4").
    """
    if rated := _RATED.search(prompt):
        each = {re.sub(r"[\s#]+", " ", name.casefold()): point for name, point in _OF_EACH.findall(text)}
        text = each.get(rated[1].casefold(), "") if each else text
    rest = _NO_POINT.sub(" ", text)
    scaleless = _OF_SCALE.sub(" ", rest)
    found = _POINT.search(_OF_ANSWER.sub(" ", scaleless)) or _POINT.search(scaleless) or _POINT.search(rest)
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

    read, model = [_first_tokens(teacher, prompt, words) for prompt in prompts], teacher.model
    teacher.encode(prompts, max((len(shared) for _, shared, _ in read), default=0) + 1)  # says which one is too long
    seq2seq, lengths = teacher.config.is_encoder_decoder, {}
    for place, (ids, shared, _) in enumerate(read):
        lengths.setdefault((len(ids), len(shared)), []).append(place)
    result, done = np.empty((len(prompts), len(words))), 0
    for length, places in sorted(lengths.items()):
        size = max(1, teacher.token_budget // (sum(length) + 1))
        for batch in (places[at:at + size] for at in range(0, len(places), size)):
            rows = [read[place][0] + ([] if seq2seq else read[place][1]) for place in batch]
            given = {"input_ids": torch.tensor(rows, device=model.device)}
            if seq2seq:
                config, generation = model.config, model.generation_config
                start = next(one for one in (generation.decoder_start_token_id, generation.bos_token_id,
                                             config.decoder_start_token_id) if one is not None)
                given["decoder_input_ids"] = torch.tensor([[start, *read[place][1]] for place in batch],
                                                          device=model.device)
            with torch.inference_mode():
                logits = model(**given).logits[:, -1].float()
            logits = logits.gather(1, torch.tensor([read[place][2] for place in batch], device=model.device))
            result[batch] = torch.softmax(logits, -1).cpu().numpy()
            done += len(batch)
            if progress:
                progress(done, len(prompts))
    return result


def _first_tokens(teacher, prompt, words):
    """Return the token ids of a prompt, those with which all words begin behind it, and the next one of each word.

    Each word is read behind the prompt: some tokenizers split " 1" alone in another way.
    """
    splits = teacher.split([prompt] * len(words), [f" {word}" for word in words])
    before = commonprefix([ids for ids, _ in splits])
    behind = [ids[len(before):] + more for ids, more in splits]
    same = min(len(commonprefix(behind)), min(map(len, behind)) - 1)
    firsts = [ids[same] for ids in behind]
    if len(set(firsts)) < len(words):
        raise StudyError(f"{teacher.name}: its vocabulary begins {words[0]} and another of {', '.join(words)} with the "
                         "same token, so their likelihoods cannot be compared; reach the model by a server")
    return before, behind[0][:same], firsts
