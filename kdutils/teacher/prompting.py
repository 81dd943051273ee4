"""Prompts, made from plain text files.

``prompts/<data set>/<file>.txt``, or the same file in a folder of one's own, holds worked examples ("shots") and, last,
the layout of the item with slots such as
``{question}``. Blank lines separate the blocks. The shots come first, so that they are the shared prefix of all prompts
and can be computed once. A line with the slot ``{context}`` is left out for a question without a context.
"""

import random
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import pandas as pd

from kdutils.data.questions import format_choices, format_question, full_question
from kdutils.data.tables import fill_columns
from kdutils.errors import StudyError, first_line, short
from kdutils.runs import project_path

FOLDER = Path(__file__).with_name("prompts")
SLOT = re.compile(r"\{(\w+)\}")
UNWRITTEN = "<write here"  # begins what a user has to write into a new prompt file

# The slots that the layout of an item may have, and one of them that it must have.
SLOTS = {"few_shot": ({"question", "choices", "context", "quality", "answer"}, "question"),
         "critique": ({"question", "choices", "context", "answer", "rationale", "critique_request"}, "rationale"),
         "revision": ({"question", "choices", "context", "answer", "rationale", "critique", "revision_request"},
                      "critique")}


def prompts_named(parameters: Mapping) -> str:
    """Return where a notebook with these parameters finds its prompts: a folder, or the name of a data set."""
    return str(project_path(parameters["prompts"])) if parameters.get("prompts") else parameters["dataset"]


def prompt_folder(dataset: str) -> Path:
    """Return the folder of the prompt files of a data set of the package, or a folder itself if `dataset` is a path."""
    return project_path(dataset) if "/" in dataset else FOLDER / dataset


def check_prompts(dataset: str, file: str) -> None:
    """Raise StudyError, naming file and line, for a prompt file with which a run would stop or that is not written yet.

    `file`: few_shot, critique, revision or requests.
    """
    path = prompt_folder(dataset) / f"{file}.txt"
    if file == "requests":
        requests(dataset)
        return
    _, item = template(dataset, file)
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if UNWRITTEN in line:
            raise StudyError(f"{path}: line {number}: an explanation is not written yet; write it in place of "
                             f"'{line[line.index(UNWRITTEN):][:60]}'")
    known, needed = SLOTS[file]
    slots = set(SLOT.findall(item))
    if slots - known:
        raise StudyError(f"{path}: unknown slot {{{min(slots - known)}}} in its last block; known are "
                         f"{', '.join(f'{{{slot}}}' for slot in sorted(known))}")
    if needed not in slots or "answer" not in slots:
        raise StudyError(f"{path}: its last block is the layout of a question and needs the slots {{{needed}}} and "
                         "{answer}")


def template(dataset: str, prompting: str) -> tuple[str, str]:
    """Return (shots, item) of a prompt file: the shots with the blank line after them, and the layout of the item.

    `dataset`: the name of a data set of the package, or a folder.
    """
    path = prompt_folder(dataset) / f"{prompting}.txt"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in path.parent.glob("*.txt"))) or "none"
        raise StudyError(f"{path}: no prompt of this name for '{dataset}'; write this file; there are: {known}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError(f"{path}: not a readable UTF-8 text ({error}); save it as UTF-8") from error
    head, _, item = re.sub(r"\n[ \t]+(?=\n)", "\n", text).rstrip("\n").rpartition("\n\n")
    return (head + "\n\n" if head else ""), item


def read_template(path: str) -> str:
    """Return the text of a chat template, a Jinja file at `path` (relative to the project); "" for no path."""
    try:
        return project_path(path).read_text(encoding="utf-8") if path else ""
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError(f"chat_template: {short(path, 200)} cannot be read ({first_line(error)}); give a text file "
                         "with a Jinja template") from None


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
        # In a revision, the first answer is the teacher's own. Elsewhere nothing behind the first one may be told.
        item, _, behind = item.rpartition("{answer}") if "critique" in columns else item.partition("{answer}")
        if lost := {"question", "choices", "context"} & set(SLOT.findall(behind)):
            raise StudyError(f"the last block of the prompt has {{{min(lost)}}} behind {{answer}}; put it before, so "
                             "that the teacher can answer itself (given_answer: false)")
        item = item.rstrip()
    asked = fill_columns(questions)
    if "{context}" not in item:  # a prompt that was written without a passage in mind
        asked = asked.assign(context="", question=[full_question(one) for one in asked.to_dict("records")])
    plain = "".join(line for line in item.splitlines(keepends=True) if "{context}" not in line)
    rows = zip(asked["context"], asked["question"], asked["choices"], *columns.values(), strict=True)
    return [shots + fill(item if context else plain, context=context, question=question,
                         choices=format_choices(choices), **dict(zip(columns, values, strict=True)))
            for context, question, choices, *values in rows]


def each_choice(questions: pd.DataFrame) -> pd.DataFrame:
    """Return `questions` with one row per choice, which is in the column `answer`.

    Raises StudyError for a question without choices.
    """
    without = [key for key, choices in zip(questions["id"], questions["choices"], strict=True) if not len(choices)]
    if without:
        raise StudyError(f"question {without[0]!r} has no choices, so there is nothing to share a probability among; "
                         "leave soft_labels out for this data set")
    return pd.DataFrame([{**item, "answer": choice} for item in questions.to_dict("records")
                         for choice in item["choices"]], columns=questions.columns)


def letter_prompts(questions: pd.DataFrame) -> list[str]:
    """Return for each question the prompt that asks a chat for the letter of the right choice."""
    return [f"{format_question(item)}\nChoices: {format_choices(item['choices'])}\n"
            "Answer with the letter of the right choice alone." for item in questions.to_dict("records")]


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


def requests(dataset: str) -> list[tuple[str, ...]]:
    """Return the pairs (critique request, revision request) of a data set."""
    path = prompt_folder(dataset) / "requests.txt"
    if not path.is_file():
        raise StudyError(f"{path}: no such file; write one line per pair: what to criticise | what to revise")
    return _requests(path, path.stat().st_mtime_ns)


@cache
def _requests(path, changed):
    """Return the pairs in a file; a file that has `changed` since is read again."""
    pairs = [tuple(part.strip() for part in line.split("|"))
             for line in path.read_text(encoding="utf-8").strip().splitlines()]
    for number, pair in enumerate(pairs, 1):
        if len(pair) != 2 or not all(pair):
            raise StudyError(f"{path}: line {number}: not of the form 'what to criticise | what to revise'")
    return pairs


def request_pair(dataset: str, key: str, seed: int, turn: int = 1) -> tuple[str, ...]:
    """Return the (critique request, revision request) drawn for question `key` and round `turn` from `seed`."""
    return random.Random(f"request {seed} {turn} {key}").choice(requests(dataset))
