"""The thinking of a model that reasons before it answers: what of a text is thinking, and where the answer begins.

Servers with a parser for thinking send it in a field of its own. Others leave it in the text, between marks of the
model's chat template. A template may put the opening mark into the prompt, so that the text begins inside the thinking
and has the closing mark alone. The marks are those of Qwen and DeepSeek (``<think>``), Seed, Gemini, Mistral
(``[THINK]``), Kimi, Command and gpt-oss (channels).
"""

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from kdutils.teacher.cleaning import preamble_end
from kdutils.teacher.completion import Completion

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MARK = re.compile(
    r"""(?P<open><(?:seed:)?(?:think|thinking|thought)>|\[THINK\]|◁think▷|<\|START_THINKING\|>
                |<\|channel\|>analysis<\|message\|>)
       |(?P<close></(?:seed:)?(?:think|thinking|thought)>|\[/THINK\]|◁/think▷|<\|END_THINKING\|>
                |<\|channel\|>final<\|message\|>)""", re.VERBOSE)
_OPENED = re.compile(rf"(?:{_MARK.pattern})\s*\Z", re.VERBOSE)


def special_marks(tokenizer: "PreTrainedTokenizerBase") -> dict[int, str]:
    """Return {id: text} of the special tokens of which marks of thinking consist."""
    parts = {"<|channel|>", "<|message|>"}
    return {tokenizer.convert_tokens_to_ids(token): token for token in tokenizer.all_special_tokens
            if token in parts or _MARK.fullmatch(token)}


def split_thinking(text: str, opened: bool = False) -> tuple[str, str]:
    """Return (thinking, answer) of a text; without marks of thinking the answer is `text` as it is.

    `opened`: the text begins inside the thinking. A thinking that does not end leaves the answer "".
    """
    marks = list(_MARK.finditer(text))
    inside = opened or bool(marks) and marks[0].lastgroup == "close"
    if not marks and not inside:
        return "", text
    thoughts, rest, at = [], [], 0
    for mark in marks:
        (thoughts if inside else rest).append(text[at:mark.start()].strip())
        inside, at = mark.lastgroup == "open", mark.end()
    (thoughts if inside else rest).append(text[at:].lstrip())
    return "\n".join(filter(None, thoughts)).rstrip(), "\n".join(filter(None, rest))


def without_thinking(done: Completion, opened: bool = False) -> Completion:
    """Return a completion whose text is the answer alone, with the thinking beside it."""
    thinking, text = split_thinking(done.text, opened)
    if text == done.text and not thinking:
        return done
    return replace(done, text=text, thinking="\n".join(filter(None, (done.thinking, thinking))))


def answer_start(text: str, opened: bool = False) -> int | None:
    """Return where the answer begins: behind the thinking, white space and a preamble. None: it has not begun yet.

    Stop texts count from here on. A blank line inside the thinking or behind a preamble ends no completion.
    """
    last = None
    for last in _MARK.finditer(text):
        opened = last.lastgroup == "open"
    return None if opened else preamble_end(text, last.end() if last else 0)


def opens_thinking(prompt: str) -> bool:
    """Return whether a prompt, with the chat template, ends inside the thinking."""
    found = _OPENED.search(prompt[-100:])
    return bool(found) and found.lastgroup == "open"


def thinks_first(model: object, prompt: str) -> bool:
    """Return whether the answers of a teacher's model to a prompt begin with thinking, not with what was asked for."""
    return getattr(model, "chat", False) and (
        model.thinking == "on" or hasattr(model, "in_chat") and opens_thinking(model.in_chat(prompt)))
