"""What a teacher is asked for and what it returns."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Completion:
    """What a teacher wrote after one prompt; `finish_reason` is stop (by itself) or length (cut off)."""

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class Decoding:
    """How a completion is written: greedy at `temperature` 0, else drawn from `seed` and `sample`.

    `stop`: texts that end a completion and are cut off. `sample` tells several draws for one prompt apart.
    """

    max_new_tokens: int
    stop: tuple = ()
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    sample: int = 0
