"""Read the rows of a file: Parquet, JSON, JSON lines, CSV, a workbook, or Arrow as saved by ``datasets``."""

import codecs
import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa

from kdutils.data.questions import Fault, raise_faults
from kdutils.data.tables import check_columns, parquet_table, path_kind
from kdutils.errors import StudyError, first_line, shown

_SIGNATURES = {  # first bytes of files that often have a wrong ending -> what the file is, what to do
    b"PK\x03\x04": "an Excel workbook or another zip file; let the name of a workbook end in .xlsx",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook; let its name end in .xls",
    b"PAR1": "a Parquet file; let its name end in .parquet", b"\x1f\x8b": "a compressed file; unpack it first",
    b"%PDF": "a PDF file; a table is needed"}
WORKBOOKS = (".xlsx", ".xls", ".xlsm", ".xlsb", ".ods")  # endings of workbooks
_ENCODINGS = {codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32",  # before UTF-16, whose mark they begin with
              codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


def read_records(path: Path | str) -> list[dict[str, Any]]:
    """Return the rows of a file as dicts with plain values; the ending of its name decides the format.

    Formats: Parquet; JSON (one list, one object, or one object per line); CSV (.csv or .tsv, separated by commas,
    semicolons or tabs, every value a text); a workbook of Excel or OpenDocument (its first sheet); Arrow (a file or a
    folder written by ``Dataset.save_to_disk``). Raises StudyError that names the file and, for JSON and CSV, the faulty
    rows.
    """
    path = Path(path)
    kind = path_kind(path)
    if not kind:
        raise StudyError(f"{path}: no such file or folder; correct the path, `folder` or KDUTILS_DATA")
    ending = "folder" if kind == "folder" else path.suffix.lower()
    if ending not in _FORMATS:
        raise StudyError(f"{path}: unknown format; use .parquet, .json, .jsonl, .csv, .tsv, .xlsx or an Arrow folder")
    records = _FORMATS[ending](path)
    if not records:
        raise StudyError(f"{path}: no rows")
    return records


def _read_parquet(path):
    return _plain_records(parquet_table(path), path)


def _plain_records(table, where):
    """Return an Arrow table as a list of dicts; binary columns are read as UTF-8 texts, which some programs write."""
    check_columns(table, where)
    try:
        for place, column in enumerate(table.schema):
            if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
                text = table[column.name].cast(pa.large_string())
                table = table.set_column(place, column.name, text)
        return table.to_pylist()
    except Exception as error:  # values without a Python type, bytes that are not UTF-8
        raise StudyError(f"{where}: its values cannot be read ({first_line(error)})") from error


def _read_json(path):
    text, records, faults = _read_text(path), [], []
    if text.lstrip().startswith("[") or re.match(r"\s*\{\s*\n", text):  # an object over several lines is one record
        try:
            parts, parse = json.loads(text), lambda part: part
            parts = parts if isinstance(parts, list) else [parts]
        except (ValueError, RecursionError) as error:
            raise StudyError(f"{path}: not readable JSON ({error})") from error
    else:
        parts, parse = filter(str.strip, text.split("\n")), json.loads
    for row, part in enumerate(parts):
        try:
            record = parse(part)
        except (ValueError, RecursionError) as error:
            faults.append(Fault(str(path), row, f"not readable JSON ({error})", "not readable JSON"))
            continue
        if not isinstance(record, dict):
            faults.append(Fault(str(path), row, "not a JSON object"))
        records.append(record)
    raise_faults(faults)
    return records


def _read_csv(path):
    return _records_of(_csv_lines(_read_text(path), path), path)


def _read_workbook(path):
    """Return the rows of the first sheet; numbers, truth values and texts keep their type, dates become texts."""
    from python_calamine import CalamineWorkbook

    try:
        rows = CalamineWorkbook.from_path(path).get_sheet_by_index(0).to_python()
    except Exception as error:  # a dozen types, depending on what is broken in it
        raise StudyError(f"{path}: not a readable workbook ({first_line(error)}); save it again, or as 'CSV UTF-8'"
                         ) from error
    rows = [[cell if isinstance(cell, (str, bool, int, float)) else str(cell) for cell in row] for row in rows]
    return _records_of([[_whole(cell) for cell in row] for row in rows], path)


def _whole(cell):
    """Return a whole number as int: a workbook keeps every number as a float."""
    return int(cell) if isinstance(cell, float) and cell.is_integer() else cell


def _records_of(lines, path):
    """Return lines of cells, the header first, as records; empty columns and rows at the end are left out."""
    names = [str(name).strip() for name in lines[0]] if lines else []
    while names and not names[-1]:
        names.pop()  # empty columns of a spreadsheet
    while lines and not any(str(cell).strip() for cell in lines[-1]):
        lines.pop()  # empty rows of a spreadsheet
    if names and not names[0] and [str(cells[0]) for cells in lines[1:]] == [str(row) for row in range(len(lines) - 1)]:
        names, lines = names[1:], [cells[1:] for cells in lines]  # the index of a data frame of pandas
    for name in names:
        if names.count(name) > 1 or not name:
            raise StudyError(f"{path}: " + (f"duplicate column {shown(name)}" if name else "a column has no name"))
    raise_faults([Fault(str(path), row, "another number of fields than the header")
                  for row, cells in enumerate(lines[1:])
                  if len(cells) < len(names) or any(str(cell).strip() for cell in cells[len(names):])])
    return [dict(zip(names, cells, strict=False)) for cells in lines[1:]]


def _csv_lines(text, path):
    """Return the cells of every line that is not empty; the separator of , ; and tab that cuts the header most."""
    declared = re.match(r"sep=(.)\r?\n", text)  # a first line by which Excel declares the separator
    text = text[declared.end():] if declared else text
    separator = declared[1] if declared else max(",;\t", key=lambda char: len(_header(text, char)))
    lines = []
    try:
        for cells in csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True):
            lines += [cells] if cells else []
    except (csv.Error, TypeError, ValueError) as error:
        raise StudyError(f"{path}: row {max(0, len(lines) - 1)}: not readable CSV ({error})") from error
    return lines


def _header(text, separator):
    try:
        return next(csv.reader(io.StringIO(text, newline=""), delimiter=separator), [])
    except csv.Error:
        return []


def _read_text(path):
    """Return the text of a file: UTF-8, or the UTF-16 or UTF-32 that its byte order mark declares."""
    try:
        data = path.read_bytes()
        for signature, what in _SIGNATURES.items():
            if data.startswith(signature):
                raise StudyError(f"{path}: not a text but {what}")
        return data.decode(next((name for mark, name in _ENCODINGS.items() if data.startswith(mark)), "utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError(f"{path}: not a readable UTF-8 text ({error}); save it as UTF-8, in a spreadsheet as 'CSV "
                         "UTF-8'") from error


def _read_arrow(path):
    parts = sorted(path.glob("data-*.arrow")) if path_kind(path) == "folder" else [path]
    if not parts:
        raise StudyError(f"{path}: no Arrow files (data-*.arrow) in this folder; if it holds several splits, name the "
                         "folder of one split")
    records = []
    for part in parts:
        if path_kind(part) != "file":
            raise StudyError(f"{part}: not a file of Arrow data")
        try:
            table = read_arrow_stream(part.read_bytes())
        except Exception as error:  # a dozen unrelated types, depending on the byte that is wrong
            raise StudyError(f"{part}: not readable Arrow data ({first_line(error)})") from error
        records += _plain_records(table, part)
    return records


def read_arrow_stream(data: bytes) -> pa.Table:
    """Return the bytes of an Arrow stream (the format that ``datasets`` saves) as a table.

    Raises pyarrow.ArrowException if they are broken.
    """
    with pa.ipc.open_stream(data) as stream:
        table = stream.read_all()
    table.validate(full=True)
    return table


_FORMATS = {".parquet": _read_parquet, ".json": _read_json, ".jsonl": _read_json, ".ndjson": _read_json,
            ".csv": _read_csv, ".tsv": _read_csv, ".arrow": _read_arrow,
            **dict.fromkeys(WORKBOOKS, _read_workbook), "folder": _read_arrow}
