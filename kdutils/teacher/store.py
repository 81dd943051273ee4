"""The store of completions: every completion is kept, so that none is paid for twice.

The store is one SQLite file. A row is one completion under a key that covers everything that could change it (Request).
The version of the cleaning rules is not part of the key, because cleaning comes later. To look inside:
``sqlite3 completions.sqlite "select created, prompt, completion from completions"``.

Every row has a checksum. A row that has changed since it was written is reported and not used. Its text is asked for
again, and the damaged row moves to the table ``damaged``.

A completion is on disk when `put` returns. The file survives kill -9, a full disk and several processes that write at
once. It uses a rollback journal: a write-ahead log needs memory that all users share and fails on the network disks of
clusters. Two processes that ask for the same completion at the same time both pay, and both use the text that was kept
first.
"""

import contextlib
import hashlib
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from urllib.parse import quote

from kdutils.errors import StudyError, masked
from kdutils.runs import project_path
from kdutils.teacher.completion import Completion, Decoding

VERSION = 3  # of the table; 1 had no checksums, 1 and 2 no thinking
_BASE = ("key, created, kind, teacher, prompt, completion, finish_reason, prompt_tokens, completion_tokens, "
         "decoding, options")
_COLUMNS = f"{_BASE}, thinking"  # the checksum covers these
_TABLE = """CREATE TABLE {} (
    key TEXT PRIMARY KEY, created TEXT NOT NULL, kind TEXT NOT NULL, teacher TEXT NOT NULL, prompt TEXT NOT NULL,
    completion TEXT NOT NULL, finish_reason TEXT NOT NULL, prompt_tokens INTEGER, completion_tokens INTEGER,
    decoding TEXT NOT NULL, options TEXT NOT NULL, checksum TEXT NOT NULL DEFAULT '',
    thinking TEXT NOT NULL DEFAULT '')"""
_DAMAGED = _TABLE.format("IF NOT EXISTS damaged").replace(" PRIMARY KEY", "")
_CORRUPT = ("this is not a readable store of completions; restore a copy of it, or move it away "
            "(its completions would be asked for again)")
_ADVICE = {
    sqlite3.SQLITE_FULL: "earlier completions are safe; make room, then run again: it continues from there",
    sqlite3.SQLITE_IOERR: "earlier completions are safe; check whether the disk is full or broken, then run again",
    sqlite3.SQLITE_BUSY: "another process has been writing to it for a minute; run again when it is done",
    sqlite3.SQLITE_READONLY: "it cannot be written; check the permissions of file and folder, or set KDUTILS_STORE",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened; check its folder and permissions, or set KDUTILS_STORE",
    sqlite3.SQLITE_CORRUPT: _CORRUPT,
    sqlite3.SQLITE_NOTADB: _CORRUPT,
}


def store_path() -> Path:
    """Return the file of the store: KDUTILS_STORE of the environment, else outputs/completions.sqlite."""
    return project_path(os.environ.get("KDUTILS_STORE") or "outputs/completions.sqlite")


@dataclass(frozen=True)
class Request:
    """One request to a teacher; `key` covers every field, those of Decoding included, and nothing else.

    `teacher`: its identity, with the chat template. `prompt`: the full text without a chat template. `kind`: complete,
    contrast, score or first_tokens. `options`: for contrast `against` (a prompt) and `strength`, for score
    `continuation` (a text), for first_tokens `top` (their number).
    """

    teacher: dict
    prompt: str
    decoding: Decoding
    kind: str = "complete"
    options: dict = field(default_factory=dict)

    @cached_property
    def key(self) -> str:
        """The SHA-256 of the request as canonical JSON, in hexadecimal digits."""
        text = json.dumps(_canonical(asdict(self)), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode("ascii")).hexdigest()


class Store:
    """The completions in one SQLite file, which is made where it is missing. Errors of the file are StudyErrors.

    `read_only`: nothing is made or changed, and a missing file is an empty store.
    """

    def __init__(self, path: Path | str, read_only: bool = False) -> None:
        self.path, self._reported = Path(path), set()
        with self._named_errors():
            if read_only:
                self.connection, self.version = self._open_read_only()
                return
            self._make()
            self.connection, self.version = self._open("rwc")
        if self.version < VERSION:
            self._bring_up_to_date()

    def _open_read_only(self):
        """Return (a connection that changes nothing, version)."""
        if not self.path.exists():
            connection = sqlite3.connect(":memory:", isolation_level=None)
            connection.execute(_TABLE.format("completions"))
            return connection, VERSION
        try:
            return self._open("ro")
        except sqlite3.OperationalError:
            if not _journal(self.path).exists():
                raise
        return self._open("rw")  # a writer was killed: its unfinished change must be rolled back first

    def _make(self):
        """Make the file where it is missing.

        It is made under another name first, so that it never exists without a table. Of several processes the first
        one wins. Where a journal exists without its store, or the disk has no hard links, SQLite makes the file.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StudyError(f"{self.path}: its folder cannot be made ({error}); set KDUTILS_STORE") from error
        if self.path.exists() or _journal(self.path).exists():
            return
        new = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        try:
            with contextlib.closing(sqlite3.connect(new, isolation_level=None)) as connection:
                _create(connection)
            os.link(new, self.path)
        except OSError:
            return
        finally:
            for path in (new, _journal(new)):
                with contextlib.suppress(OSError):
                    path.unlink()

    def _open(self, mode):
        """Return (connection, version) of an existing file; StudyError where it is empty or no store."""
        if self.path.is_file() and not self.path.stat().st_size and not _journal(self.path).exists():
            raise StudyError(f"{self.path}: empty (0 bytes), so it was cut off; restore a copy of it, or delete it "
                             "to begin a new store")
        connection = sqlite3.connect(f"file:{quote(str(self.path.absolute()))}?mode={mode}", uri=True, timeout=60,
                                     isolation_level=None)
        connection.text_factory = lambda data: data.decode("utf-8", "surrogateescape")  # the checksum detects it
        connection.execute("PRAGMA synchronous = FULL")
        version, tables = connection.execute(
            "SELECT user_version, (SELECT count(*) FROM sqlite_master) FROM pragma_user_version").fetchone()
        if version == 0 and not tables and mode == "rwc":
            _create(connection)
            version = VERSION
        if not 1 <= version <= VERSION:
            raise StudyError(f"{self.path}: a database of another kind or version ({version}, not {VERSION}); "
                             "move it away or set KDUTILS_STORE")
        return connection, version

    def _bring_up_to_date(self):
        """Turn a store of an earlier version into one of this version, in one transaction."""
        with self._transaction():
            version, = self.connection.execute("PRAGMA user_version").fetchone()
            if version == 1:
                self.connection.execute("ALTER TABLE completions ADD COLUMN checksum TEXT NOT NULL DEFAULT ''")
                last = -2**63
                while rows := self.connection.execute(f"SELECT rowid, {_BASE} FROM completions WHERE rowid > ? "
                                                      "ORDER BY rowid LIMIT 500", [last]).fetchall():
                    # A damaged text gets an empty checksum, which matches no row.
                    self.connection.executemany("UPDATE completions SET checksum = ? WHERE rowid = ?",
                                                [(_checksum([*row, ""]), number) for number, *row in rows])
                    last = rows[-1][0]
            if version < VERSION:  # else another process has done it
                tables = self.connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name IN "
                                                 "('completions', 'damaged')").fetchall()
                for name, in tables:
                    self.connection.execute(f"ALTER TABLE {name} ADD COLUMN thinking TEXT NOT NULL DEFAULT ''")
                self.connection.execute(f"PRAGMA user_version = {VERSION}")
        self.version = VERSION

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; everything that was put is on disk already."""
        self.connection.close()

    def get(self, keys: Iterable[str]) -> dict[str, Completion]:
        """Return {key: Completion} of the stored ones of `keys`; damaged rows are left out and reported."""
        found, damaged = {}, []
        for whole, row in self._rows(keys):
            key, values = row[0], row[5:9]
            if whole:
                found[key] = Completion(*values, row[-1])
            elif key not in self._reported:
                damaged.append(row)
        self._reported |= {row[0] for row in damaged}
        if damaged:
            print(f"{self.path}: {len(damaged)} completions are damaged (checksum differs), the first is "
                  f"{str(damaged[0][0])[:12]} of {damaged[0][1]!a:.30}; they are not used but asked for again",
                  flush=True)
        return found

    def _rows(self, keys):
        """Yield (whether it is undamaged, the values of _COLUMNS) of each row that has one of `keys`."""
        keys = list(keys)
        for start in range(0, len(keys), 500):  # below the limit of variables of any SQLite
            part = keys[start:start + 500]
            with self._named_errors():
                rows = self.connection.execute(f"{self._select} WHERE key IN ({','.join('?' * len(part))})",
                                               part).fetchall()
            for *row, checksum in rows:
                expected = _checksum(row)
                yield bool(expected) and checksum in (expected, None), row

    @property
    def _select(self):
        """The beginning of a query for the values of _COLUMNS and the checksum; an earlier version lacks some."""
        return (f"SELECT {_BASE}, {'thinking' if self.version >= 3 else repr('')}, "
                f"{'checksum' if self.version >= 2 else 'NULL'} FROM completions")

    def rows(self) -> Iterator[dict]:
        """Yield every undamaged completion, the oldest first, as a dict of its columns; JSON in them is read."""
        with self._named_errors():
            for *row, checksum in self.connection.execute(f"{self._select} ORDER BY created, rowid"):
                expected = _checksum(row)
                if expected and checksum in (expected, None):
                    values = dict(zip(_COLUMNS.split(", "), row, strict=True))
                    yield values | {name: _identity(values[name]) for name in ("teacher", "decoding", "options")}

    def forget(self, keys: Iterable[str]) -> int:
        """Delete the completions under `keys`, all of them or none; return how many there were."""
        with self._transaction():
            deleted = self.connection.executemany("DELETE FROM completions WHERE key = ?", [(key,) for key in keys])
            return max(deleted.rowcount, 0)

    def put(self, rows: Iterable[tuple[Request, Completion]]) -> None:
        """Store the (Request, Completion) pairs of `rows`, all of them or none; existing rows stay as they are.

        A damaged row is replaced and moves to the table ``damaged``.
        """
        created = datetime.now(UTC).isoformat(timespec="seconds")
        values = [(request.key, created, request.kind, _readable(request.teacher), _utf8(request.prompt),
                   _utf8(done.text), done.finish_reason, done.prompt_tokens, done.completion_tokens,
                   _readable(asdict(request.decoding)), _readable(request.options), _utf8(done.thinking))
                  for request, done in rows]
        with self._transaction():
            self._put_aside([row[0] for whole, row in self._rows([value[0] for value in values]) if not whole])
            self.connection.executemany(
                f"INSERT INTO completions ({_COLUMNS}, checksum) VALUES ({','.join('?' * 13)}) "
                "ON CONFLICT (key) DO NOTHING", [(*value, _checksum(value)) for value in values])

    def _put_aside(self, keys):
        if keys:
            self.connection.execute(_DAMAGED)
        for key in keys:
            self.connection.execute(f"INSERT INTO damaged ({_COLUMNS}, checksum) SELECT {_COLUMNS}, checksum "
                                    "FROM completions WHERE key = ?", [key])
            self.connection.execute("DELETE FROM completions WHERE key = ?", [key])

    def size(self) -> int:
        """Return the number of completions."""
        with self._named_errors():
            return self.connection.execute("SELECT count(*) FROM completions").fetchone()[0]

    def summary(self) -> list[dict]:
        """Return a dict per teacher: its identity, number of completions, known tokens, first and last time."""
        with self._named_errors():
            rows = self.connection.execute(
                "SELECT teacher, count(*), total(prompt_tokens), total(completion_tokens), min(created), max(created) "
                "FROM completions GROUP BY teacher ORDER BY teacher").fetchall()
        return [{"teacher": _identity(teacher), "completions": count, "prompt_tokens": int(prompt),
                 "completion_tokens": int(written), "first": first, "last": last}
                for teacher, count, prompt, written, first, last in rows]

    @contextlib.contextmanager
    def _transaction(self):
        with self._named_errors():
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self.connection.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):  # SQLite has rolled back already; the first error counts
                    self.connection.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _named_errors(self):
        try:
            yield
        except sqlite3.ProgrammingError:  # an error of this code, not of the file
            raise
        except sqlite3.Error as error:
            advice = _ADVICE.get((getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF, "look this message of SQLite up")
            raise StudyError(f"{self.path}: {error}; {advice}") from error


def _canonical(value):
    """Return `value` such that equal settings have equal JSON: 1.0 becomes 1, a tuple becomes a list."""
    if isinstance(value, Mapping):
        return {str(key): _canonical(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_canonical(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _identity(text):
    """Return the identity in a row; where damage has left no JSON, its text under the key "unreadable"."""
    try:
        return json.loads(text)
    except ValueError:
        return {"unreadable": ascii(text)}


def _checksum(row):
    """Return the SHA-256 of the values of _COLUMNS, "" where the store would never write one of them.

    An empty thinking is left out, so that completions of earlier versions keep their checksums.
    """
    try:
        row = row if row[-1] != "" else row[:-1]
        row = [int(value) if isinstance(value, bool) else value for value in _canonical(row)]  # as SQLite keeps them
        text = json.dumps(row, allow_nan=False, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()
    except (TypeError, ValueError):  # bytes, or a text that is not UTF-8
        return ""


def _create(connection):
    """Make the empty table, unless another process has done so."""
    connection.execute("BEGIN IMMEDIATE")
    connection.execute(_TABLE.format("IF NOT EXISTS completions"))
    connection.execute(f"PRAGMA user_version = {VERSION}")
    connection.execute("COMMIT")


def _journal(path):
    return path.with_name(f"{path.name}-journal")


def _readable(value):
    """Return `value` as JSON for a person who looks inside, with secrets masked; it is not part of the key."""
    return _utf8(masked(json.dumps(value, sort_keys=True, ensure_ascii=False)))


def _utf8(text):
    """Return `text` with a question mark for each half of a character (lone surrogate), which UTF-8 cannot hold."""
    return text.encode("utf-8", "replace").decode("utf-8")
