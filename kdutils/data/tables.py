"""The tables of the study: their columns, and how they are read and written.

Every table is one Parquet file. Its schema is checked when it is written and when it is read, so a
missing or mistyped column is found where it enters and not three notebooks later.
"""

import os
import stat
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kdutils.errors import StudyError, shown
from kdutils.runs import project_path, written_whole

_TEXTS, _NUMBERS, _COUNTS = pa.list_(pa.string()), pa.list_(pa.float64()), pa.list_(pa.int64())

QUESTIONS = pa.schema(
    [
        ("id", pa.string()),  # unique in the table
        ("split", pa.string()),  # train, dev or test
        ("question", pa.string()),
        ("choices", _TEXTS),  # at least two, or none where the answer is free text
        ("answer", pa.string()),  # one of the choices, or free text where there are none
        ("human_explanations", _TEXTS),  # what people wrote; empty where the data set has none
    ]
)

EXPLANATIONS = pa.schema(
    [
        ("id", pa.string()),  # of the question
        ("stage", pa.string()),  # rationale, critique, revision or counterfactual
        ("round", pa.int64()),  # of critique and revision, from 1; 0 for what was written first
        ("answer", pa.string()),  # the answer that the text argues for
        ("text", pa.string()),  # cleaned; null where nothing usable is left, see `problem`
        ("raw", pa.string()),  # as the teacher wrote it
        ("changes", _TEXTS),  # cleaning rules that changed the text
        ("problem", pa.string()),  # "" or why `text` is null
        ("finish_reason", pa.string()),  # stop, length, content_filter or unknown
        ("prompt_tokens", pa.int64()),  # null where the source does not say
        ("completion_tokens", pa.int64()),  # null where the source does not say
    ]
)

PREDICTIONS = pa.schema(
    [
        ("id", pa.string()),  # of the question
        ("split", pa.string()),
        ("seed", pa.int64()),
        ("answer", pa.string()),  # gold
        ("generated", pa.string()),  # what the student wrote when asked for the answer
        ("predicted", pa.string()),  # the answer read from it, "" where there is none
        ("correct", pa.bool_()),  # normalised predicted answer equals the gold one
        ("exact", pa.bool_()),  # what was generated equals the target string (its answer where an explanation follows)
        ("explanation", pa.string()),  # "" where the method writes none
        ("scores", _NUMBERS),  # log p of each choice as the answer, in their order; empty for free text
        ("score_tokens", _COUNTS),  # the tokens that each of these sums runs over
    ]
)

SCHEMAS = {"questions": QUESTIONS, "explanations": EXPLANATIONS, "predictions": PREDICTIONS}
NULLABLE = {"text", "prompt_tokens", "completion_tokens"}
LARGEST = 4 * 2 ** 30  # bytes of a file, and rows or unpacked bytes that a Parquet file may claim


def write_table(frame, path, kind):
    """Write `frame` to `path` as a table of `kind` (a key of SCHEMAS), whole or not at all."""
    path = Path(path)
    table = _as_table(frame, kind, path)
    with written_whole(path) as temporary:
        pq.write_table(table, temporary)
    return path


def read_table(path, kind):
    """Return the table of `kind` at `path` as a data frame, lists as Python lists.

    Raises StudyError, naming file and column, when the file is missing, broken or of another shape.
    """
    path = Path(path)
    table = _as_table(read_parquet(path), kind, path)
    frame = table.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)
    for field in SCHEMAS[kind]:
        if pa.types.is_list(field.type):
            frame[field.name] = frame[field.name].map(list)
        elif field.type == pa.string():
            frame[field.name] = frame[field.name].astype(object).where(frame[field.name].notna(), None)
    return frame


def read_explanations(path):
    """Return the table of explanations at `path` (relative to the project), an empty one where `path` is ""."""
    if path:
        return read_table(project_path(path), "explanations")
    return EXPLANATIONS.empty_table().to_pandas()


def read_parquet(path):
    """Return any Parquet file as a data frame; a missing or broken one is a StudyError that names it."""
    return parquet_table(path).to_pandas()


def parquet_table(path):
    """Return any Parquet file as an Arrow table whose values are sound, or raise a StudyError that names the file."""
    path = Path(path)
    if path_kind(path) != "file":
        raise StudyError(f"{path}: no such file; run the notebook that writes it first, or correct the path")
    try:
        with pq.ParquetFile(path) as file:
            groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
            size = max(file.metadata.num_rows, sum(group.total_byte_size for group in groups))
            if size > LARGEST:
                raise ValueError(f"it claims a size of {size}")
            table = file.read()
        table.validate(full=True)  # texts that are no UTF-8 and lists that lead outside show only here
    except Exception as error:  # a dozen unrelated types, by the byte that is wrong
        raise StudyError(f"{path}: not a readable Parquet file ({first_line(error)})") from error
    return check_columns(table, path)


def check_columns(table, where):
    """Return an Arrow table as it is, or raise StudyError where two of its columns have one name."""
    for name in table.column_names:
        if table.column_names.count(name) > 1:
            raise StudyError(f"{where}: column {shown(name)} stands there twice")
    return table


def first_line(error):
    """Return what an exception says in its first line, or its type where it says nothing."""
    return next(iter(str(error).strip().splitlines()), "")[:200] or type(error).__name__


def path_kind(path):
    """Return "file", "folder" or "" for nothing there; StudyError for what is neither and for what can be no path.

    A device or a pipe is named and not opened: reading it might never end.
    """
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except ValueError as error:  # a byte of zero, half of a character
        raise StudyError(f"{shown(str(path))}: not a path ({error})") from error
    except OSError as error:  # a name that is too long, a link that leads to itself, no right to look
        raise StudyError(f"{shown(str(path))}: cannot be read ({error.strerror})") from error
    if stat.S_ISDIR(found.st_mode):
        return "folder"
    if not stat.S_ISREG(found.st_mode):
        raise StudyError(f"{path}: a device or a pipe and not a file; save its content as a file and name that")
    if found.st_size > LARGEST:
        raise StudyError(f"{path}: {found.st_size / 2 ** 30:.0f} GiB are too many for one table; cut it into parts")
    return "file"


def _as_table(frame, kind, path):
    schema = SCHEMAS[kind]
    missing = [name for name in schema.names if name not in frame.columns]
    if missing:
        raise StudyError(f"{path}: column '{missing[0]}' is missing from a table of {kind}")
    try:
        table = pa.Table.from_pandas(frame[schema.names], schema=schema, preserve_index=False)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise StudyError(f"{path}: wrong type in a table of {kind}: {first_line(error)}") from error
    for name in schema.names:
        if name not in NULLABLE and table[name].null_count:
            row = table[name].is_null().to_pylist().index(True)
            raise StudyError(f"{path}: row {row}: field '{name}' is empty")
        if schema.field(name).type == _TEXTS and pc.list_flatten(table[name]).null_count:
            row = next(row for row, texts in enumerate(table[name].to_pylist()) if None in texts)
            raise StudyError(f"{path}: row {row}: field '{name}' holds an empty item")
    return table.replace_schema_metadata(None)
