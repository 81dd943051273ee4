"""What a teacher is asked for, what it returns, and what every teacher can do."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Completion:
    """What a teacher wrote after one prompt, without its `thinking`, which is kept beside it.

    `finish_reason`: stop (by itself), length (cut off), content_filter or refusal (the server says so), too_long (not
    asked: the prompt does not fit) or planned (not asked yet).
    """

    text: str
    finish_reason: str
    prompt_tokens: int | None
    completion_tokens: int | None
    thinking: str = ""


@dataclass(frozen=True)
class Decoding:
    """How a completion is written: greedy at `temperature` 0, else sampled.

    `stop`: texts that end a completion and are cut off. `seed` and `sample` determine the random numbers; several
    samples of one prompt differ in `sample`.
    """

    max_new_tokens: int
    stop: tuple[str, ...] = ()
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    sample: int = 0


TOP_TOKENS = 20  # most probable first tokens that a chat is asked for; OpenAI and vLLM give no more

Progress = Callable[[int, int], None]  # called with the number of completions that are done, and of all
Keep = Callable[[list[tuple[str, Completion]]], None]  # called with (prompt, Completion) pairs as soon as they exist


class Teacher(Protocol):
    """A model that completes prompts.

    `identity`: everything that could change what it writes (model, revision, weights, quantisation, chat template), as
    plain values. It is the teacher's part of the key in the store.
    """

    identity: dict

    def complete(self, prompts: list[str], decoding: Decoding, progress: Progress | None = None,
                 keep: Keep | None = None) -> list[Completion]:
        """Return one Completion per prompt, in their order; `keep` gets each one before a later one can fail."""

    def contrast(self, prompts: list[str], against: list[str], decoding: Decoding, strength: float = 0.5,
                 progress: Progress | None = None, keep: Keep | None = None) -> list[Completion]:
        """Return one Completion per prompt, decoded in contrast to the prompt beside it in `against`."""

    def score(self, prompts: list[str], continuations: list[str], progress: Progress | None = None,
              keep: Keep | None = None) -> list[Completion]:
        """Return log p of the tokens of a text behind each prompt, as the JSON list that is a Completion's text.

        `prompts` differ from each other. Where a chat template or an encoder ends the prompt, the text begins without
        its spaces.
        """

    def count_tokens(self, prompts: list[str]) -> list[int]:
        """Return the number of tokens of each prompt, for an estimate of the cost."""
