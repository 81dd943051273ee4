"""Shared by the published teachers: checksums, the join to questions, and the table of explanations."""

import hashlib
import json
import math
from collections.abc import Iterable

import pandas as pd

from kdutils.data.datasets import content_key
from kdutils.data.questions import HALF, is_whole_text
from kdutils.data.tables import EXPLANATIONS, fill_columns
from kdutils.errors import StudyError, shown
from kdutils.teacher.cleaning import Cleaned, count_changes


def content_checksum(records: Iterable[dict]) -> str:
    """Return the SHA-256 of a table's rows: per row, in order, JSON with sorted keys and no spaces, and a newline.

    All columns count, in any order; the packing of the file does not. Text is UTF-8, not escaped. A value without a
    JSON type, such as a date, counts as its ``str``.
    """
    digest = hashlib.sha256()
    for record in records:
        line = json.dumps(record, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str) + "\n"
        digest.update(line.encode("utf-8", errors="surrogatepass"))
    return digest.hexdigest()


def content_state(records: Iterable[dict], expected: str | None) -> str:
    """Return whether the content_checksum of a table is the `expected` one, in words; None is for no known checksum."""
    if expected is None:
        return "no checksum known"
    return "as published" if content_checksum(records) == expected else "differs from what was published"


def join_key(dataset: str, question: dict) -> tuple[str, str] | str:
    """Return the key by which a question is joined: its content, for cqa with its id."""
    key = content_key(question["question"])
    return (question["id"], key) if dataset == "cqa" else key


def seen_choices(record: dict, item: dict, where: str) -> list[str]:
    """Return the choices that the teacher saw: those of the published record, else those of the question `item`."""
    choices = record.get("choices")
    if choices is None or choices == []:
        return list(item["choices"])
    if not isinstance(choices, list) or not all(isinstance(choice, str) and is_whole_text(choice)
                                                for choice in choices):
        raise StudyError(f"{where}: field 'choices': {shown(choices)} is not a list of texts")
    return [choice.strip() for choice in choices]


def published_text(record: dict, column: str, where: str) -> str:
    """Return the text in a column of a record, "" for a null; StudyError for another type or no such column."""
    if column not in record:
        raise StudyError(f"{where}: no column '{column}'")
    text = record[column]
    if text is None or isinstance(text, float) and math.isnan(text):
        return ""  # cleaning counts it as empty
    if not isinstance(text, str):
        raise StudyError(f"{where}: column '{column}': {shown(text)} is not a text")
    if not is_whole_text(text):
        raise StudyError(f"{where}: column '{column}': {HALF}")
    return text


def explanation_rows(rows: list[dict], cleaned: list[Cleaned], content: dict[str, str], caution: str) -> pd.DataFrame:
    """Return a frame of tables.EXPLANATIONS of `rows` and their cleaned texts.

    A row has id, stage, answer, raw and, where several texts on a question were published, sample.
    """
    frame = pd.DataFrame(rows, columns=["id", "stage", "sample", "answer", "raw"], dtype=object)
    for column in ("text", "changes", "problem"):
        frame[column] = pd.Series([getattr(item, column) for item in cleaned], dtype=object)
    frame["finish_reason"] = "unknown"
    frame["round"] = (frame["stage"] == "revision").astype(int)  # the published runs have one round
    frame["sample"] = frame["sample"].fillna(0).astype(int)
    for column in ("prompt_tokens", "completion_tokens"):
        frame[column] = pd.array([pd.NA] * len(frame), dtype="Int64")
    frame = fill_columns(frame, "explanations")[EXPLANATIONS.names]
    frame.attrs.update(notes=count_changes(cleaned), content=content, caution=caution)
    return frame
