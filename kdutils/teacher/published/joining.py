"""How published rows are joined to questions."""

import hashlib
import json
import math

import pandas as pd

from kdutils.data.datasets import content_key
from kdutils.data.questions import HALF, is_whole_text
from kdutils.data.tables import EXPLANATIONS
from kdutils.errors import StudyError, shown
from kdutils.teacher.cleaning import count_changes


def content_checksum(records):
    """Return the SHA-256 of a table's rows: per row, in order, JSON with sorted keys and no spaces, and a newline.

    All columns count, in any order; how the file packs them does not. Text is UTF-8, not escaped. A value that JSON
    does not have, such as a date, counts as Python writes it.
    """
    digest = hashlib.sha256()
    for record in records:
        line = json.dumps(record, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str) + "\n"
        digest.update(line.encode("utf-8", errors="surrogatepass"))
    return digest.hexdigest()


def join_key(dataset, question):
    """Return what identifies a question here and there; ids alone are not unique over data sets, content is."""
    key = content_key(question["question"])
    return (question["id"], key) if dataset == "cqa" else key


def seen_choices(record, item, where):
    """Return the choices as the teacher saw them: those of the published record, where it has any."""
    choices = record.get("choices")
    if choices is None or choices == []:
        return list(item["choices"])
    if not isinstance(choices, list) or not all(isinstance(choice, str) and is_whole_text(choice)
                                                for choice in choices):
        raise StudyError(f"{where}: field 'choices': {shown(choices)} is not a list of texts")
    return [choice.strip() for choice in choices]


def published_text(record, column, where):
    """Return the text in a column of a record, "" for a missing one; StudyError for what is no text."""
    if column not in record:
        raise StudyError(f"{where}: no column '{column}'")
    text = record[column]
    if text is None or isinstance(text, float) and math.isnan(text):
        return ""  # counted as empty
    if not isinstance(text, str):
        raise StudyError(f"{where}: column '{column}': {shown(text)} is not a text")
    if not is_whole_text(text):
        raise StudyError(f"{where}: column '{column}': {HALF}")
    return text


def explanation_rows(rows, cleaned, content, caution):
    frame = pd.DataFrame(rows, columns=["id", "stage", "answer", "raw"], dtype=object)
    for column in ("text", "changes", "problem"):
        frame[column] = pd.Series([getattr(item, column) for item in cleaned], dtype=object)
    frame["finish_reason"] = "unknown"
    frame["round"] = (frame["stage"] == "revision").astype(int)  # the published runs have one round
    for column in ("prompt_tokens", "completion_tokens"):
        frame[column] = pd.array([pd.NA] * len(frame), dtype="Int64")
    frame = frame[EXPLANATIONS.names]
    frame.attrs.update(notes=count_changes(cleaned), content=content, caution=caution)
    return frame
