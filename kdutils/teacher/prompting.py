"""Prompts, made from plain text files.

``prompts/<data set>/<file>.txt`` holds worked examples ("shots") and, last, the layout of the item with slots such as
``{question}``. Blank lines separate the blocks. The shots come first, so that they are the shared prefix of all prompts
and can be computed once. A line with the slot ``{context}`` is left out for a question without a context.
"""

import random
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pandas as pd

from kdutils.data.questions import format_choices
from kdutils.data.tables import fill_columns
from kdutils.errors import StudyError, shown

FOLDER = Path(__file__).with_name("prompts")
SLOT = re.compile(r"\{(\w+)\}")


@cache
def template(dataset: str, prompting: str) -> tuple[str, str]:
    """Return (shots, item) of a prompt file: the shots with the blank line after them, and the layout of the item."""
    path = FOLDER / dataset / f"{prompting}.txt"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in path.parent.glob("*.txt"))) or "none"
        raise StudyError(f"{path}: no prompt of this name for '{dataset}'; write this file; there are: {known}")
    head, _, item = path.read_text(encoding="utf-8").rstrip("\n").rpartition("\n\n")
    return (head + "\n\n" if head else ""), item


def fill(layout: str, **values: str) -> str:
    """Return `layout` with `values` in its slots; braces inside a value stay as they are."""
    def value(match):
        if match[1] not in values:
            raise StudyError(f"prompt layout: no value for the slot {{{match[1]}}}")
        return values[match[1]]

    return SLOT.sub(value, layout)


def few_shot_prompts(questions: pd.DataFrame, dataset: str, seed: int, given_answer: bool = True,
                     answers: Sequence[str] | None = None, file: str = "few_shot") -> list[str]:
    """Return one prompt per question (a frame of tables.QUESTIONS), in its order, from ``<file>.txt`` of the data set.

    `answers`: the answers to argue for, one per question (default: the gold answers). With ``given_answer=False`` the
    prompt ends with "The answer is" and the teacher has to find the answer. Two adjectives for the wanted quality are
    drawn per question from `seed` and the question's id (arXiv 2504.16056: two of 18 positive adjectives per item).
    """
    answers = questions["answer"] if answers is None else answers
    return _prompts(questions, template(dataset, file), given_answer, answer=answers,
                    quality=[quality(key, seed) for key in questions["id"]])


def critique_prompts(questions: pd.DataFrame, dataset: str, seed: int, answers: Sequence[str],
                     rationales: Sequence[str], turn: int = 1) -> list[str]:
    """Return one prompt per question that asks what is wrong with its rationale.

    The point to criticise is drawn per question and per `turn` (from 1), together with the matching request to revise
    (arXiv 2504.16056; after Bai et al. 2022, "Constitutional AI").
    """
    asked = [request_pair(dataset, key, seed, turn)[0] for key in questions["id"]]
    return _prompts(questions, template(dataset, "critique"), True, answer=answers, rationale=rationales,
                    critique_request=asked)


def revision_prompts(questions: pd.DataFrame, dataset: str, seed: int, answers: Sequence[str],
                     rationales: Sequence[str], critiques: Sequence[str], turn: int = 1,
                     given_answer: bool = True) -> list[str]:
    """Return one prompt per question that asks to revise its rationale, given the critique.

    With ``given_answer=False`` the prompt ends with "The answer is", and the teacher may change its answer.
    """
    asked = [request_pair(dataset, key, seed, turn)[1] for key in questions["id"]]
    return _prompts(questions, template(dataset, "revision"), given_answer, answer=answers, rationale=rationales,
                    critique=critiques, revision_request=asked)


def _prompts(questions, parts, given_answer, **columns):
    """Return the shots and the filled item of each question; `columns` has one value per question for each slot."""
    shots, item = parts
    if not given_answer:
        item = item.rpartition("{answer}")[0].rstrip()
    contexts = fill_columns(questions)["context"]
    if any(contexts) and "{context}" not in item:
        raise StudyError(f"the prompt ends with {shown(item)}, which has no place for the passages of these questions; "
                         "write {context} where the passage is to stand")
    plain = "".join(line for line in item.splitlines(keepends=True) if "{context}" not in line)
    rows = zip(contexts, questions["question"], questions["choices"], *columns.values(), strict=True)
    return [shots + fill(item if context else plain, context=context, question=question,
                         choices=format_choices(choices), **dict(zip(columns, values, strict=True)))
            for context, question, choices, *values in rows]


def wrong_answers(questions: pd.DataFrame, count: int = -1, seed: int = 0) -> pd.DataFrame:
    """Return `questions` with one row per wrong answer, which is in the column `answer`.

    A question has all its wrong choices (-1), or `count` of them drawn from `seed`, in the order of its choices.
    Raises StudyError for a question without choices.
    """
    rows = []
    for item in questions.to_dict("records"):
        wrong = [choice for choice in item["choices"] if choice != item["answer"]]
        if not wrong:
            raise StudyError(f"question {item['id']!r} has no choices, so it has no wrong answers to explain")
        drawn = random.Random(f"wrong {seed} {item['id']}").sample(wrong, len(wrong))[:count if count >= 0 else None]
        rows += [{**item, "answer": choice} for choice in wrong if choice in drawn]
    return pd.DataFrame(rows, columns=questions.columns)


@cache
def qualities() -> list[str]:
    """Return the adjectives of qualities.txt."""
    return (FOLDER / "qualities.txt").read_text(encoding="utf-8").split()


def quality(key: str, seed: int) -> str:
    """Return two different adjectives, such as ``clear and precise``, drawn for question `key` from `seed`."""
    return " and ".join(random.Random(f"quality {seed} {key}").sample(qualities(), 2))


@cache
def requests(dataset: str) -> list[tuple[str, ...]]:
    """Return the pairs (critique request, revision request) of a data set."""
    path = FOLDER / dataset / "requests.txt"
    if not path.is_file():
        raise StudyError(f"{path}: no such file; write one line per pair: what to criticise | what to revise")
    lines = path.read_text(encoding="utf-8").strip().splitlines()
    return [tuple(part.strip() for part in line.split("|")) for line in lines]


def request_pair(dataset: str, key: str, seed: int, turn: int = 1) -> tuple[str, ...]:
    """Return the (critique request, revision request) drawn for question `key` and round `turn` from `seed`."""
    return random.Random(f"request {seed} {turn} {key}").choice(requests(dataset))
