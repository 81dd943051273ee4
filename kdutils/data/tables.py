"""The tables of the study: their columns, and how they are read and written.

Every table is one Parquet file. Its schema is checked on writing and on reading, so a missing or mistyped column is
reported where it enters the study.
"""

import json
import os
import stat
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kdutils.data.answers import answered_right
from kdutils.errors import StudyError, first_line, shown
from kdutils.runs import atomic_write, project_path

_TEXTS, _NUMBERS, _COUNTS = pa.list_(pa.string()), pa.list_(pa.float64()), pa.list_(pa.int64())

QUESTIONS = pa.schema(
    [
        ("id", pa.string()),  # unique in the table
        ("split", pa.string()),  # train, dev or test
        ("question", pa.string()),
        ("context", pa.string()),  # a passage that is read before the question, on one line; "" for none
        ("choices", _TEXTS),  # at least two; empty if the answer is free text
        ("answer", pa.string()),  # one of the choices, or free text; "" before a teacher has answered the question
        ("other_answers", _TEXTS),  # further free-text answers that are right; empty for most data sets
        ("human_explanations", _TEXTS),  # written by people; empty if the data set has none
    ]
)

EXPLANATIONS = pa.schema(
    [
        ("id", pa.string()),  # of the question
        ("stage", pa.string()),  # rationale, critique, revision, counterfactual or choice (CHOICE)
        ("round", pa.int64()),  # of critique and revision, from 1; 0 for rationale and counterfactual
        ("sample", pa.int64()),  # which of several texts on the question, from 0
        ("answer", pa.string()),  # the answer that the text argues for
        ("text", pa.string()),  # cleaned; null if nothing usable is left, see `problem`
        ("raw", pa.string()),  # the text of the teacher before cleaning
        ("changes", _TEXTS),  # cleaning rules that changed the text
        ("problem", pa.string()),  # "" or why `text` is null
        ("finish_reason", pa.string()),  # stop, length, content_filter, refusal, too_long or unknown
        ("prompt_tokens", pa.int64()),  # null if unknown
        ("completion_tokens", pa.int64()),  # null if unknown
        ("probability", pa.float64()),  # of `answer`, for the stage choice alone; else null
        ("any_answer", pa.bool_()),  # whether students learn the text even if its answer is wrong (keep: all)
    ]
)

PREDICTIONS = pa.schema(
    [
        ("id", pa.string()),  # of the question
        ("split", pa.string()),
        ("seed", pa.int64()),
        ("answer", pa.string()),  # gold
        ("generated", pa.string()),  # text that the student wrote when asked for the answer
        ("predicted", pa.string()),  # the answer read from it, "" if there is none
        ("correct", pa.bool_()),  # normalised predicted answer equals the gold one
        ("exact", pa.bool_()),  # the text equals the target (its answer, if an explanation follows)
        ("explanation", pa.string()),  # "" if the method writes none
        ("scores", _NUMBERS),  # log p of each choice as the answer, in order; empty for free text
        ("score_tokens", _COUNTS),  # tokens summed over in each score
    ]
)

SCHEMAS = {"questions": QUESTIONS, "explanations": EXPLANATIONS, "predictions": PREDICTIONS}
NULLABLE = {"text", "prompt_tokens", "completion_tokens", "probability"}
CHOICE = "choice"  # the stage of soft labels: a row per choice, which `text` repeats, with the teacher's probability
# Columns that tables of earlier versions lack, and the function that makes their empty value.
ADDED = {"questions": {"context": str, "other_answers": list},
         "explanations": {"sample": int, "probability": type(None), "any_answer": bool}, "predictions": {}}
LARGEST = 4 * 2 ** 30  # bytes of a file; rows or unpacked bytes that a Parquet file declares


def write_table(frame: pd.DataFrame, path: Path | str, name: str) -> Path:
    """Write `frame` to `path` as the table `name` (a key of SCHEMAS), completely or not at all; return the path."""
    path = Path(path)
    table = _as_table(frame, name, path)
    with atomic_write(path) as temporary:
        pq.write_table(table, temporary)
    return path


def read_table(path: Path | str, name: str) -> pd.DataFrame:
    """Return the table `name` (a key of SCHEMAS) at `path`; lists are Python lists, missing texts None.

    Raises StudyError, naming file and column, if the file is missing, broken or has another schema.
    """
    path = Path(path)
    table = _as_table(read_parquet(path), name, path)
    frame = table.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)
    for field in SCHEMAS[name]:
        if pa.types.is_list(field.type):
            frame[field.name] = frame[field.name].map(list)
        elif field.type == pa.string():
            frame[field.name] = frame[field.name].astype(object).where(frame[field.name].notna(), None)
    return frame


def fill_columns(frame: pd.DataFrame, name: str = "questions") -> pd.DataFrame:
    """Return a table `name` (a key of SCHEMAS) with the columns of ADDED that it lacks."""
    empty = {column: [kind() for _ in range(len(frame))] for column, kind in ADDED[name].items()
             if column not in frame.columns}
    return frame.assign(**empty) if empty else frame


def read_split(path: Path | str, splits: list[str]) -> pd.DataFrame:
    """Return the questions of `splits` in the table at `path`, relative to the project; StudyError if there is none."""
    table = read_table(project_path(path), "questions")
    table = table[table["split"].isin(splits)].reset_index(drop=True)
    if table.empty:
        raise StudyError(f"{path}: no question of the split {' or '.join(map(repr, splits))}; give this split "
                         "questions in notebook 01")
    return table


def read_explanations(path: Path | str) -> pd.DataFrame:
    """Return the table of explanations at `path` (relative to the project), an empty table if `path` is ""."""
    if path:
        return read_table(project_path(path), "explanations")
    return EXPLANATIONS.empty_table().to_pandas()


def learnt_stage(explanations: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of a table of explanations that students learn from.

    These are the last round of the stage ``revision`` if the table has that stage, else the stage ``rationale``. The
    two are never mixed: a question without a usable revision has no usable row.
    """
    stage = "revision" if (explanations["stage"] == "revision").any() else "rationale"
    last = explanations[explanations["stage"] == stage]
    if "round" in last and len(last):
        last = last[last["round"] == last.groupby("id")["round"].transform("max")]
    return last


def word_lists(explanations: pd.DataFrame) -> pd.Series:
    """Say of each row whether its text is a list of attributed words (notebook 05), which makes no claim."""
    return explanations["raw"].map(_is_word_list).astype(bool)


def _is_word_list(raw):
    """Say whether a text is JSON of words with their scores and places, ``[["milk", 0.3, 8, 12], …]``."""
    if not isinstance(raw, str) or not raw.startswith("[["):
        return False
    try:
        words = json.loads(raw)
    except ValueError:
        return False
    kinds = [[type(part) for part in one[:2]] if isinstance(one, list) else None for one in words]
    return all(kind in ([str, float], [str, int]) for kind in kinds)


def learnt_rows(explanations: pd.DataFrame, questions: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of learnt_stage that students learn from: usable texts on `questions` for a right answer.

    A teacher that found the answers itself gave wrong ones, too. Their texts are left out (as in Fine-tune-CoT, Ho et
    al. 2023, section 3, and SCoTD, Li et al. 2023, section 2), except those with ``any_answer``. Answers are compared
    as those of students are: answers.answered_right.
    """
    items = {item["id"]: item for item in questions.to_dict("records")}
    stage = fill_columns(learnt_stage(explanations), "explanations")
    usable = stage[stage["text"].notna() & stage["id"].isin(list(items))]
    kept = [row.any_answer or answered_right(row.answer, items[row.id]) for row in usable.itertuples()]
    return usable[pd.Series(kept, usable.index, dtype=bool)]


def read_parquet(path: Path | str) -> pd.DataFrame:
    """Return any Parquet file as a data frame; StudyError if it is missing or broken."""
    return parquet_table(path).to_pandas()


def parquet_table(path: Path | str) -> pa.Table:
    """Return any Parquet file as a validated Arrow table; StudyError if it is missing or broken."""
    path = Path(path)
    if path_kind(path) != "file":
        raise StudyError(f"{path}: no such file; run the notebook that writes it first, or correct the path")
    try:
        with pq.ParquetFile(path) as file:
            groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
            size = max(file.metadata.num_rows, sum(group.total_byte_size for group in groups))
            if size > LARGEST:
                raise ValueError(f"it declares a size of {size}")
            table = file.read()
        table.validate(full=True)  # finds texts that are not UTF-8 and list offsets out of range
    except Exception as error:  # a dozen unrelated types, depending on the byte that is wrong
        raise StudyError(f"{path}: not a readable Parquet file ({first_line(error)})") from error
    return check_columns(table, path)


def check_columns(table: pa.Table, where: Path | str) -> pa.Table:
    """Return an Arrow table unchanged; StudyError, beginning with `where`, if two columns have the same name."""
    for name in table.column_names:
        if table.column_names.count(name) > 1:
            raise StudyError(f"{where}: duplicate column {shown(name)}")
    return table


def path_kind(path: Path | str) -> str:
    """Return "file", "folder", or "" if nothing is there.

    Raises StudyError for a path that cannot be one, for files larger than LARGEST, and for devices and pipes, which
    are not opened, because reading them might never end.
    """
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except ValueError as error:  # a zero byte, a lone surrogate
        raise StudyError(f"{shown(str(path))}: not a path ({error})") from error
    except OSError as error:  # a name that is too long, a link to itself, no permission
        raise StudyError(f"{shown(str(path))}: cannot be read ({error.strerror})") from error
    if stat.S_ISDIR(status.st_mode):
        return "folder"
    if not stat.S_ISREG(status.st_mode):
        raise StudyError(f"{path}: a device or a pipe and not a file; save its content as a file and name that")
    if status.st_size > LARGEST:
        raise StudyError(f"{path}: {status.st_size / 2 ** 30:.0f} GiB are too large for one table; split the file")
    return "file"


def _as_table(frame, name, path):
    """Return a data frame as an Arrow table with the schema `name`; StudyError if it does not fit."""
    schema = SCHEMAS[name]
    frame = fill_columns(frame, name)
    missing = [column for column in schema.names if column not in frame.columns]
    if missing:
        raise StudyError(f"{path}: column '{missing[0]}' is missing from a table of {name}")
    try:
        table = pa.Table.from_pandas(frame[schema.names], schema=schema, preserve_index=False)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise StudyError(f"{path}: wrong type in a table of {name}: {first_line(error)}") from error
    for column in schema.names:
        if column not in NULLABLE and table[column].null_count:
            row = table[column].is_null().to_pylist().index(True)
            raise StudyError(f"{path}: row {row}: field '{column}' is empty")
        if schema.field(column).type == _TEXTS and pc.list_flatten(table[column]).null_count:
            row = next(row for row, texts in enumerate(table[column].to_pylist()) if None in texts)
            raise StudyError(f"{path}: row {row}: field '{column}' holds an empty item")
    return table.replace_schema_metadata(None)
