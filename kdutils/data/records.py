"""Rows of a file: JSON, JSON lines, CSV, Parquet, Arrow."""

import codecs
import csv
import io
import json
import re
from pathlib import Path

import pyarrow as pa

from kdutils.data.questions import Fault, refuse
from kdutils.data.tables import check_columns, first_line, parquet_table, path_kind
from kdutils.errors import StudyError, shown


def read_records(path):
    """Return the rows of a file as a list of dicts with plain values; the ending of the name says the format.

    Parquet, JSON (one list, or one object per line), CSV (.csv or .tsv; commas, semicolons or tabs; every value a
    text), or Arrow: a file or a folder written by ``Dataset.save_to_disk``. Raises StudyError naming the file and,
    for JSON and CSV, the rows.
    """
    path = Path(path)
    kind = path_kind(path)
    if not kind:
        raise StudyError(f"{path}: no such file or folder; correct the path or `folder`")
    kind = "folder" if kind == "folder" else path.suffix.lower()
    if kind in _WORKBOOKS:
        raise StudyError(f"{path}: unknown format: a workbook; save it as 'CSV UTF-8' and name that file")
    if kind not in _FORMATS:
        raise StudyError(f"{path}: unknown format; use .parquet, .json, .jsonl, .csv, .tsv or an Arrow folder")
    records = _FORMATS[kind](path)
    if not records:
        raise StudyError(f"{path}: no rows")
    return records


def _read_parquet(path):
    return _plain_records(parquet_table(path), path)


def _plain_records(table, where):
    """Return an Arrow table as a list of dicts; bytes that are UTF-8 are texts, as some programs write them."""
    check_columns(table, where)
    try:
        for place, column in enumerate(table.schema):
            if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
                text = table[column.name].cast(pa.large_string())
                table = table.set_column(place, column.name, text)
        return table.to_pylist()
    except Exception as error:  # values that Python has no type for, bytes that are no text
        raise StudyError(f"{where}: its values cannot be read ({first_line(error)})") from error


def _read_json(path):
    text, records, faults = _decoded(path), [], []
    whole = text.lstrip().startswith("[")
    for row, part in enumerate(_parsed(text, path) if whole else filter(str.strip, text.split("\n"))):
        try:
            record = part if whole else json.loads(part)
        except (ValueError, RecursionError) as error:
            faults.append(Fault(str(path), row, f"not readable JSON ({error})", "not readable JSON"))
            continue
        if not isinstance(record, dict):
            faults.append(Fault(str(path), row, "not a JSON object"))
        records.append(record)
    refuse(faults)
    return records


def _parsed(text, where):
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise StudyError(f"{where}: not readable JSON ({error})") from error


def _read_csv(path):
    lines = _csv_lines(_decoded(path), path)
    names = [name.strip() for name in lines[0]] if lines else []
    while names and not names[-1]:
        names.pop()  # a spreadsheet writes its empty columns, too
    for name in names:
        if names.count(name) > 1 or not name:
            raise StudyError(f"{path}: column {shown(name)} " + ("stands there twice" if name else "has no name"))
    while lines and not any(cell.strip() for cell in lines[-1]):
        lines.pop()  # and its empty rows
    faults = [Fault(str(path), row, "another number of fields than the header") for row, cells in enumerate(lines[1:])
              if len(cells) < len(names) or any(cell.strip() for cell in cells[len(names):])]
    refuse(faults)
    return [dict(zip(names, cells, strict=False)) for cells in lines[1:]]


def _csv_lines(text, path):
    """Return the cells of every line that is not empty; of , ; and tab the one that cuts the header most is taken."""
    told = re.match(r"sep=(.)\r?\n", text)  # the first line by which Excel says it
    text = text[told.end():] if told else text
    separator, lines = told[1] if told else max(",;\t", key=lambda one: len(_header(text, one))), []
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


_WORKBOOKS = {".xlsx", ".xls", ".xlsm", ".ods"}
_BEGINNINGS = {  # of files that a wrong ending is given to: what they are, what to do
    b"PK\x03\x04": "a workbook of Excel or another zip file; save it as 'CSV UTF-8' and name that file",
    b"\xd0\xcf\x11\xe0": "a workbook of an old Excel; save it as 'CSV UTF-8' and name that file",
    b"PAR1": "a Parquet file; let its name end in .parquet", b"\x1f\x8b": "a compressed file; unpack it first",
    b"%PDF": "a PDF file; a table is needed"}


def _decoded(path):
    """Return the text of a file: UTF-8, or what its first bytes say (UTF-16 as spreadsheets write it)."""
    try:
        data = path.read_bytes()
        for beginning, what in _BEGINNINGS.items():
            if data.startswith(beginning):
                raise StudyError(f"{path}: not a text but {what}")
        encoding = next((name for mark, name in (
            (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"), (codecs.BOM_UTF16_LE, "utf-16"),
            (codecs.BOM_UTF16_BE, "utf-16")) if data.startswith(mark)), "utf-8-sig")
        return data.decode(encoding)
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError(f"{path}: not a readable UTF-8 text ({error}); save it as UTF-8, in a spreadsheet as 'CSV "
                         "UTF-8'") from error


def _read_arrow(path):
    parts = sorted(path.glob("data-*.arrow")) if path_kind(path) == "folder" else [path]
    if not parts:
        raise StudyError(f"{path}: no Arrow files (data-*.arrow) in this folder; of a folder with several splits, "
                         "name the folder of one split")
    records = []
    for part in parts:
        if path_kind(part) != "file":
            raise StudyError(f"{part}: not a file of Arrow data")
        try:
            table = read_arrow_stream(part.read_bytes())
        except Exception as error:  # a dozen unrelated types, by the byte that is wrong
            raise StudyError(f"{part}: not readable Arrow data ({first_line(error)})") from error
        records += _plain_records(table, part)
    return records


def read_arrow_stream(data):
    """Return the bytes of an Arrow stream (the format that ``datasets`` saves) as a table; ArrowException if broken."""
    with pa.ipc.open_stream(data) as stream:
        table = stream.read_all()
    table.validate(full=True)
    return table


_FORMATS = {".parquet": _read_parquet, ".json": _read_json, ".jsonl": _read_json, ".ndjson": _read_json,
            ".csv": _read_csv, ".tsv": _read_csv, ".arrow": _read_arrow, "folder": _read_arrow}
