"""Prompts: plain text files in which one look shows what the teacher sees.

``prompts/<data set>/<prompting>.txt`` holds worked examples ("shots") and, last, the layout of the
item itself with slots such as ``{question}``. Blank lines part the blocks. The constant block comes
first and the item last, so that the teacher's work on the shots can be shared by all items.
"""

import random
import re
from functools import cache
from pathlib import Path

import pandas as pd

from kdutils.data.questions import format_choices
from kdutils.errors import StudyError

FOLDER = Path(__file__).with_name("prompts")
SLOT = re.compile(r"\{(\w+)\}")


@cache
def template(dataset, prompting):
    """Return (shots, item): the constant block, blank line included, and the layout of the item."""
    path = FOLDER / dataset / f"{prompting}.txt"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in path.parent.glob("*.txt"))) or "none"
        raise StudyError(f"{path}: no prompt of this name for '{dataset}'; there: {known}")
    head, _, item = path.read_text(encoding="utf-8").rstrip("\n").rpartition("\n\n")
    return (head + "\n\n" if head else ""), item


def fill(layout, **values):
    """Put `values` into the slots of `layout`, in one pass: braces inside a value stay as they are."""
    def value(match):
        if match[1] not in values:
            raise StudyError(f"prompt layout: no value for the slot {{{match[1]}}}")
        return values[match[1]]

    return SLOT.sub(value, layout)


def few_shot_prompts(questions, dataset, seed, given_answer=True, answers=None):
    """Return one prompt per question (a frame of tables.QUESTIONS), in its order.

    `answers`: the answers to argue for, one per question; the gold ones unless given. With
    ``given_answer=False`` the prompt ends with "The answer is" and the teacher has to find it. The pair of
    adjectives for the wanted quality is drawn per question from `seed` and the question's id
    (arXiv 2504.16056: a pair out of 18 positive adjectives per item).
    """
    answers = questions["answer"] if answers is None else answers
    return _prompts(questions, template(dataset, "few_shot"), given_answer, answer=answers,
                    quality=[quality(key, seed) for key in questions["id"]])


def critique_prompts(questions, dataset, seed, answers, rationales, turn=1):
    """Return one prompt per question that asks what is wrong with its rationale.

    What is asked for is drawn per question, and anew for each `turn` (counted from 1), together with the request
    to revise that belongs to it (arXiv 2504.16056; after Bai et al. 2022, "Constitutional AI").
    """
    asked = [request_pair(dataset, key, seed, turn)[0] for key in questions["id"]]
    return _prompts(questions, template(dataset, "critique"), True, answer=answers, rationale=rationales,
                    critique_request=asked)


def revision_prompts(questions, dataset, seed, answers, rationales, critiques, turn=1, given_answer=True):
    """Return one prompt per question that asks to revise its rationale with the critique in view.

    With ``given_answer=False`` the prompt ends with "The answer is": a critique may change the teacher's mind.
    """
    asked = [request_pair(dataset, key, seed, turn)[1] for key in questions["id"]]
    return _prompts(questions, template(dataset, "revision"), given_answer, answer=answers, rationale=rationales,
                    critique=critiques, revision_request=asked)


def _prompts(questions, parts, given_answer, **columns):
    """Fill the item of each question; `columns` has one value per question for each slot."""
    shots, item = parts
    if not given_answer:
        item = item.rpartition("{answer}")[0].rstrip()
    rows = zip(questions["question"], questions["choices"], *columns.values(), strict=True)
    return [shots + fill(item, question=question, choices=format_choices(choices),
                         **dict(zip(columns, values, strict=True)))
            for question, choices, *values in rows]


def wrong_answers(questions, count=-1, seed=0):
    """Return `questions` with one row per wrong answer, which stands in the column `answer`.

    All wrong choices in their order, or `count` of them drawn per question from `seed`. Raises StudyError
    for a question without choices: a wrong answer to free text cannot be listed.
    """
    rows = []
    for item in questions.to_dict("records"):
        wrong = [choice for choice in item["choices"] if choice != item["answer"]]
        if not wrong:
            raise StudyError(f"question {item['id']!r} has no choices, so no wrong answers that could be explained")
        drawn = random.Random(f"wrong {seed} {item['id']}").sample(wrong, len(wrong))[:count if count >= 0 else None]
        rows += [{**item, "answer": choice} for choice in wrong if choice in drawn]
    return pd.DataFrame(rows, columns=questions.columns)


@cache
def qualities():
    """Return the adjectives of qualities.txt."""
    return (FOLDER / "qualities.txt").read_text(encoding="utf-8").split()


def quality(key, seed):
    """Return two different adjectives, ``clear and precise``, drawn for `key` from `seed`."""
    return " and ".join(random.Random(f"quality {seed} {key}").sample(qualities(), 2))


@cache
def requests(dataset):
    """Return the pairs (critique request, revision request) of a data set."""
    path = FOLDER / dataset / "requests.txt"
    if not path.is_file():
        raise StudyError(f"{path}: no such file; one line per pair please: what to criticise | what to revise")
    lines = path.read_text(encoding="utf-8").strip().splitlines()
    return [tuple(part.strip() for part in line.split("|")) for line in lines]


def request_pair(dataset, key, seed, turn=1):
    """Return the (critique request, revision request) drawn for question `key` and `turn` from `seed`."""
    return random.Random(f"request {seed} {turn} {key}").choice(requests(dataset))
