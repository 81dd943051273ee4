"""Contrastive decoding of rationales after SCOTT (Wang et al. 2023, "Self-Consistent Chain-of-Thought Distillation").

The next token is the one that speaks most for the right answer, rather than for any answer; x is the text so far:

    argmax over t of  log p(t | prompt with the right answer, x) − λ · log p(t | prompt with a wrong answer or none, x)

Both prompts are contexts of one model and of one text; the shots that they begin with are read once for all of them
(generation.py). As published the whole vocabulary is searched: there is no plausibility mask, so a large λ can
choose a token that neither context finds likely.
"""

import math

from kdutils.errors import StudyError


def contrast(teacher, prompts, against, decoding, strength=0.5, progress=None, keep=None):
    """Return one Completion per prompt, written greedily in contrast to the prompt beside it in `against`.

    `strength` is λ, 0 or more (0: plain greedy; the paper has 0.5). All else as in ``complete``; the prompt tokens of
    a Completion are those of `prompts`. Raises StudyError for a negative strength, lists of unlike length, or a
    temperature, as the difference is no probability to draw from.
    """
    if not (isinstance(strength, (int, float)) and 0 <= strength < math.inf):
        raise StudyError(f"strength: {strength!r} is not a number of 0 or more; 0.5 is usual")
    if len(prompts) != len(against):
        raise StudyError(f"contrast: {len(prompts)} prompts, but {len(against)} to set them against")
    if decoding.temperature:
        raise StudyError(f"contrast: temperature {decoding.temperature}, but contrastive decoding is greedy; set 0")

    def score(logits):
        # Logits in place of log p: they differ by one number per context, which moves no maximum.
        return logits[0].float() - strength * logits[1].float()

    pairs = list(zip(prompts, against, strict=True))
    done = teacher.write(pairs, decoding, score, progress, keep)
    return [done[pair] for pair in pairs]
