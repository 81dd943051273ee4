"""Ask trained students a question of one's own: answer, explanation, probabilities, the words that drive the answer."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from kdutils.data.datasets import READERS
from kdutils.data.own_tables import understand
from kdutils.data.questions import check_questions, format_choices
from kdutils.data.readers import to_question
from kdutils.data.records import read_records
from kdutils.data.tables import read_table
from kdutils.errors import StudyError
from kdutils.hub import hide_progress, model_context
from kdutils.runs import project_path, read_json
from kdutils.student.methods import Method, asked_as
from kdutils.student.models import model_kind
from kdutils.teacher.soft_labels import choice_probabilities

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ANSWER_TOKENS = 32  # at most, of an answer to a question without choices
MARKED = 5  # words
NOTHING = "?"  # in the place of the right answer, which nobody knows


@dataclass(frozen=True)
class LoadedStudent:
    """A student in memory, by its name in the report."""

    name: str
    folder: Path
    method: Method
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


def load_to_ask(name: str, folder: Path | str) -> LoadedStudent:
    """Return the student in `folder`, on a GPU if there is one."""
    from kdutils.student.predicting import load_trained

    hide_progress()
    return LoadedStudent(name, Path(folder), asked_as(folder), *load_trained(folder))


def reads_passages(folder: Path | str) -> bool:
    """Return whether a question that the student in `folder` was trained on, at least one, has a context."""
    given = read_json(Path(folder).parent / "run.json")["parameters"]
    questions = read_table(project_path(given["questions"]), "questions")
    return bool((questions.loc[questions["split"] == "train", "context"] != "").any())


def make_question(record: Mapping[str, Any], where: str = "the question") -> dict:
    """Return a question to ask, a record of tables.QUESTIONS, from a dict with `question` and what it has besides.

    That is `choices`, a list, or a text with | between them, or a key for each choice (A, B, …), as in a table of one's
    own, and `context`, a passage, which becomes one line as in training. `where` names the question in a StudyError.
    """
    given = {**{key: value for key, value in record.items() if value is not None}, "id": where, "answer": NOTHING}
    if not isinstance(given.get("question"), str) or not given["question"].strip():
        raise StudyError(f"{where}: no question in it; give a text under 'question'")
    own = understand([given], where)
    item = to_question(replace(READERS["table"], normalise=own.question_of, columns=own.used), given, where)
    item = {"human_explanations": [], **item, "context": " ".join(item["context"].split()), "split": "test",
            "answer": next(iter(item["choices"]), NOTHING)}
    try:
        check_questions(pd.DataFrame([item]), where)
    except StudyError as error:
        raise StudyError(str(error).replace(f"{where}: row 0: ", f"{where}: ", 1)) from None
    return item


def read_asked(path: Path | str) -> Iterator[dict]:
    """Yield the questions of a file: a table with the column `question`, or a text (.txt) with one per line.

    A line is ``question | choice | choice``, or a JSON object. Table and object may have `choices` and `context`, too.
    """
    if Path(path).suffix.lower() == ".txt":
        try:
            lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise StudyError(f"{path}: cannot be read ({error})") from error
        yield from read_lines(lines, str(path))
        return
    for row, record in enumerate(read_records(path)):
        yield make_question(record, f"{path}: row {row}")


def read_lines(lines: Iterable[str], where: str) -> Iterator[dict]:
    """Yield the question of each line that is not empty; see read_asked."""
    for number, line in enumerate(lines, 1):
        if not (line := line.strip()):
            continue
        place = f"{where}: line {number}"
        if line.startswith("{"):
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise StudyError(f"{place}: not readable JSON ({error})") from error
        else:
            question, _, choices = line.partition("|")
            record = {"question": question.strip(), "choices": choices}
        yield make_question(record, place)


def ask(student: LoadedStudent, item: dict, max_explanation_tokens: int = 64, marked: int = MARKED) -> dict:
    """Return what a student says to a question (of make_question), as plain values:

    - student; question; context; choices; answer; explanation ("" where it learnt none); generated: the text
      with the answer;
    - probabilities: of each choice, by its likelihood, together 1; `likeliest` is the best one;
    - text, words: context, question and choices on one line each, and the `marked` words that drive the answer most,
      each with word, score, start and end in `text`, the strongest first;
    - seconds: for answer, explanation and probabilities, without the words; note: what is missing and why, or "".
    """
    from kdutils.student.predicting import predict_questions

    begun = time.perf_counter()
    classifier = model_kind(student.model) == "classifier"
    if classifier and not item["choices"]:
        raise StudyError(f"{student.name}: it can only choose; give the question choices")
    limit = {} if item["choices"] else {"max_answer_tokens": ANSWER_TOKENS}
    record = predict_questions(student.model, student.tokenizer, student.method, [item], max_explanation_tokens,
                               **limit)[0]
    seconds = time.perf_counter() - begun
    probabilities = choice_probabilities(record["scores"]) if item["choices"] else []
    words, note = _driving_words(student, item, record, marked)
    best = probabilities.index(max(probabilities)) if probabilities else None
    note = note if item["choices"] else "; ".join(filter(None, ["asked without choices", note]))
    return {"student": student.name, "question": item["question"], "context": item.get("context") or "",
            "choices": list(item["choices"]), "answer": record["predicted"], "explanation": record["explanation"],
            "generated": record["generated"], "probabilities": probabilities,
            "likeliest": "" if best is None else item["choices"][best], "text": "\n".join(_shown_lines(item)),
            "words": words, "seconds": round(seconds, 4), "note": note}


def _shown_lines(item):
    """Return context, question and choices as a student reads them, without their names; what is empty is left out."""
    return [line for line in (item.get("context"), item["question"], format_choices(item["choices"])) if line]


def _driving_words(student, item, record, marked):
    """Return (the words that drive the answer, why there are none or "").

    They are those of the attribution `saliency`, see teacher.word_scores, for the answer that the student gave. An
    explanation that came before the answer is given, and not attributed.
    """
    from kdutils.student.predicting import written_answer
    from kdutils.teacher.word_scores import attribute_words, ranked_words

    if not marked or not record["predicted"]:
        return [], "" if record["predicted"] else "no answer was found in what it wrote"
    if model_kind(student.model) == "classifier":
        return [], "words can be marked only for a student that writes"
    source, text, begins = written_answer(student.method, item, record["predicted"], record["explanation"])
    try:
        table = attribute_words(pd.DataFrame([{**item, "answer": record["predicted"]}]), [source], [text],
                                {"model": str(student.folder), "attribution": "saliency", "k": 1}, begins=[begins],
                                loaded=(student.model, student.tokenizer, model_context(student.model) or math.inf))
    except StudyError as error:
        return [], f"no words are marked: {error}"
    ranked = ranked_words(_in_text(json.loads(table["raw"].iloc[0]), source, item))
    return [dict(zip(("word", "score", "start", "end"), place, strict=True)) for place in ranked[:marked]], ""


def _in_text(scored, source, item):
    """Return [(word, score, start, end)] with places in the text that is shown, of places in the source."""
    from kdutils.teacher.word_scores import part_spans

    shown, found = "\n".join(_shown_lines(item)), []
    parts = list(zip(part_spans(item, source), part_spans(item, shown), strict=True))
    for word, score, start, end in scored:
        moved = next(there[0] - here[0] for here, there in parts if here[0] <= start < here[1])
        found.append((word, score, start + moved, end + moved))
    return found
