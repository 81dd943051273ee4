"""Prompts: plain text files in which one look shows what the teacher sees.

``prompts/<data set>/<prompting>.txt`` holds worked examples ("shots") and, last, the layout of the
item itself with slots such as ``{question}``. Blank lines part the blocks. The constant block comes
first and the item last, so that the teacher's work on the shots can be shared by all items.
"""

import random
import re
from functools import cache
from pathlib import Path

from kdutils.data.questions import lettered
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


def few_shot_prompts(questions, dataset, seed, given_answer=True, answers=None, prompting="few_shot"):
    """Return one prompt per question (a frame of tables.QUESTIONS), in its order.

    `answers`: the answers to argue for, one per question; the gold ones unless given. With
    ``given_answer=False`` the prompt ends with "The answer is" and the teacher has to find it. The pair of
    adjectives for the wanted quality is drawn per question from `seed` and the question's id
    (arXiv 2504.16056: a pair out of 18 positive adjectives per item).
    """
    shots, item = template(dataset, prompting)
    if not given_answer:
        item = item.partition("{answer}")[0].rstrip()
    answers = questions["answer"] if answers is None else answers
    return [shots + fill(item, question=row["question"], choices=lettered(row["choices"]), answer=answer,
                         quality=quality(row["id"], seed))
            for row, answer in zip(questions.to_dict("records"), answers, strict=True)]


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
    lines = (FOLDER / dataset / "requests.txt").read_text(encoding="utf-8").strip().splitlines()
    return [tuple(part.strip() for part in line.split("|")) for line in lines]
