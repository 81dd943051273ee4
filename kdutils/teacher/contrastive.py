"""Contrastive decoding of rationales after SCOTT (Wang et al. 2023, "Self-Consistent Chain-of-Thought Distillation").

The next token supports the right answer more than it supports another answer; x is the text so far:

    argmax over t of  log p(t | prompt with the right answer, x) − λ · log p(t | prompt with a wrong answer or none, x)

One model continues both prompts with one text; the shared prefix of all prompts is computed once (prefix_decoding.py).
This is the score of the published code, with λ = 0.5. As there, the whole vocabulary is searched. There is no
plausibility mask as in the contrastive decoding of Li et al. (2023), so with a large λ a token can be chosen that is
unlikely in both contexts. Different from the published code: questions are decoded in batches, each until its own end.
"""

import math
from typing import TYPE_CHECKING

from kdutils.errors import StudyError
from kdutils.teacher.completion import Completion, Decoding, Keep, Progress

if TYPE_CHECKING:
    from kdutils.teacher.hf import HfTeacher


def contrast(teacher: "HfTeacher", prompts: list[str], against: list[str], decoding: Decoding, strength: float = 0.5,
             progress: Progress | None = None, keep: Keep | None = None) -> list[Completion]:
    """Return one Completion per prompt, decoded greedily in contrast to the prompt beside it in `against`.

    `strength` is λ, 0 or more (0: plain greedy decoding; the paper has 0.5). All else is as
    in ``complete``; the prompt tokens of a Completion are those of `prompts`. Raises StudyError for a negative
    strength, for lists of different lengths, and for a temperature: the difference is no distribution to sample from.
    """
    if not (isinstance(strength, (int, float)) and 0 <= strength < math.inf):
        raise StudyError(f"strength: {strength!r} is not a number of 0 or more; 0.5 is usual")
    if len(prompts) != len(against):
        raise StudyError(f"contrast: {len(prompts)} prompts, but {len(against)} in `against`; give one each")
    if decoding.temperature:
        raise StudyError(f"contrast: temperature {decoding.temperature}, but contrastive decoding is greedy; set 0")

    def score(logits):
        # Logits instead of log p: they differ by one number per context, which does not change the maximum.
        return logits[0].float() - strength * logits[1].float()

    pairs = list(zip(prompts, against, strict=True))
    done = teacher.write(pairs, decoding, score, progress, keep)
    return [done[pair] for pair in pairs]
