"""The store of completions: what a teacher wrote is kept once, so that nothing is paid for twice.

One SQLite file; every row is one completion under a key made of everything that could change it (Request). The
version of the cleaning rules is no part of it: cleaning comes after. Look inside with
``sqlite3 completions.sqlite "select created, prompt, completion from completions"``.

Every row has a checksum of its own. One that has changed since it was written is named and not used; its text is asked
for again, and the damaged row is kept aside in the table ``damaged``.

A completion is on disk when `put` returns. The file survives kill -9, a full disk and several processes that write
at once. It has a rollback journal and not WAL, as WAL needs memory that all its users share and fails on the network
disks of clusters. Two processes that ask the same at the same time both pay, and both go on with the text that was
kept first.
"""

import contextlib
import hashlib
import json
import os
import sqlite3
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from urllib.parse import quote

from kdutils.errors import StudyError, masked
from kdutils.runs import project_path
from kdutils.teacher.completion import Completion, Decoding

VERSION = 2  # of the table; 1 had no checksums
UNWRITTEN = "Unknown yet. This text is not written yet."  # passes for an answer and an explanation: prompts go on it
_COLUMNS = ("key, created, kind, teacher, prompt, completion, finish_reason, prompt_tokens, completion_tokens, "
            "decoding, options")  # what the checksum is of
_TABLE = """CREATE TABLE {} (
    key TEXT PRIMARY KEY, created TEXT NOT NULL, kind TEXT NOT NULL, teacher TEXT NOT NULL, prompt TEXT NOT NULL,
    completion TEXT NOT NULL, finish_reason TEXT NOT NULL, prompt_tokens INTEGER, completion_tokens INTEGER,
    decoding TEXT NOT NULL, options TEXT NOT NULL, checksum TEXT NOT NULL DEFAULT '')"""
_DAMAGED = _TABLE.format("IF NOT EXISTS damaged").replace(" PRIMARY KEY", "")
_CORRUPT = ("this is no readable store of completions; move it away, or bring back a copy of it "
            "(what it alone holds would be asked for again)")
_ADVICE = {
    sqlite3.SQLITE_FULL: "what was kept before is still there; make room, then run again: it goes on from there",
    sqlite3.SQLITE_IOERR: "what was kept before is still there; see whether the disk is full or broken, then run again",
    sqlite3.SQLITE_BUSY: "another process has been writing to it for a minute; run again when that is done",
    sqlite3.SQLITE_READONLY: "it cannot be written; see its permissions and those of its folder, or set KDUTILS_STORE",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened; see its folder and permissions, or set KDUTILS_STORE",
    sqlite3.SQLITE_CORRUPT: _CORRUPT,
    sqlite3.SQLITE_NOTADB: _CORRUPT,
}


def store_path():
    """Return the file of the store: KDUTILS_STORE of the environment, else outputs/completions.sqlite."""
    return project_path(os.environ.get("KDUTILS_STORE") or "outputs/completions.sqlite")


@dataclass(frozen=True)
class Request:
    """One text asked of a teacher; `key` is made of every field, of those of Decoding, and of nothing else.

    `teacher`: its identity. `prompt`: the full text; what a chat template makes of it is a matter of the identity.
    `options`: what a `kind` other than "complete" has besides; for "contrast" `against` (a prompt) and `strength`.
    """

    teacher: dict
    prompt: str
    decoding: Decoding
    kind: str = "complete"
    options: dict = field(default_factory=dict)

    @cached_property
    def key(self):
        """The SHA-256, as hexadecimal text, of the request as canonical JSON."""
        text = json.dumps(_canonical(asdict(self)), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode("ascii")).hexdigest()


class Store:
    """The completions in one SQLite file; it is made where it is missing. Errors of the file are StudyErrors.

    `read_only`: for a look at what there is. Nothing is made or changed; a file that is missing is an empty store.
    """

    def __init__(self, path, read_only=False):
        self.path, self._told = Path(path), set()
        with self._named_errors():
            if read_only:
                self.connection, self.version = self._look()
                return
            self._make()
            self.connection, self.version = self._open("rwc")
        if self.version < VERSION:
            self._add_checksums()

    def _look(self):
        """Return a connection that changes nothing, and the version."""
        if not self.path.exists():
            connection = sqlite3.connect(":memory:", isolation_level=None)
            connection.execute(_TABLE.format("completions"))
            return connection, VERSION
        try:
            return self._open("ro")
        except sqlite3.OperationalError:
            if not _journal(self.path).exists():
                raise
        return self._open("rw")  # a writer was killed: what it had half written has to be taken back first

    def _make(self):
        """Make the file where it is missing: whole under another name first, so that it is never there without a table.

        Of several processes that make it at once the first one's stays. Where a journal lies without its store, or
        files cannot have two names, SQLite makes it by itself.
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
        """Return (connection, version) of a file that is there; StudyError where it is empty or something else."""
        if self.path.is_file() and not self.path.stat().st_size and not _journal(self.path).exists():
            raise StudyError(f"{self.path}: empty (0 bytes), so it was cut off; bring back a copy of it, or delete it "
                             "to begin a new store")
        connection = sqlite3.connect(f"file:{quote(str(self.path.absolute()))}?mode={mode}", uri=True, timeout=60,
                                     isolation_level=None)
        connection.text_factory = lambda data: data.decode("utf-8", "surrogateescape")  # the checksum finds it
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

    def _add_checksums(self):
        """Turn a store of version 1 into one of version 2, in one transaction: it is always the one or the other."""
        with self._transaction():
            version, = self.connection.execute("PRAGMA user_version").fetchone()
            if version < VERSION:  # else another process has done it
                self.connection.execute("ALTER TABLE completions ADD COLUMN checksum TEXT NOT NULL DEFAULT ''")
                last = -2**63
                while rows := self.connection.execute(f"SELECT rowid, {_COLUMNS} FROM completions WHERE rowid > ? "
                                                      "ORDER BY rowid LIMIT 500", [last]).fetchall():
                    # A text that is no text any more keeps an empty checksum, which is that of no row.
                    self.connection.executemany("UPDATE completions SET checksum = ? WHERE rowid = ?",
                                                [(_checksum(row), number) for number, *row in rows])
                    last = rows[-1][0]
                self.connection.execute(f"PRAGMA user_version = {VERSION}")
        self.version = VERSION

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Close the file; what was put is there already."""
        self.connection.close()

    def get(self, keys):
        """Return {key: Completion} for those of `keys` that are there; damaged rows are left out and named."""
        found, damaged = {}, []
        for whole, row in self._rows(keys):
            key, _, _, _, _, *values = row[:9]
            if whole:
                found[key] = Completion(*values)
            elif key not in self._told:
                damaged.append(row)
        self._told |= {row[0] for row in damaged}
        if damaged:
            print(f"{self.path}: {len(damaged)} completions are not what was written (checksum differs), the first of "
                  f"them {str(damaged[0][0])[:12]} of {damaged[0][1]!a:.30}; they are not used but asked for again",
                  flush=True)
        return found

    def _rows(self, keys):
        """Yield (as it was written, the values of _COLUMNS) for each row that has one of `keys`."""
        keys, last = list(keys), "checksum" if self.version == VERSION else "NULL"
        for start in range(0, len(keys), 500):  # below the number of variables that any SQLite takes
            part = keys[start:start + 500]
            with self._named_errors():
                rows = self.connection.execute(f"SELECT {_COLUMNS}, {last} FROM completions "
                                               f"WHERE key IN ({','.join('?' * len(part))})", part).fetchall()
            for *row, checksum in rows:
                expected = _checksum(row)
                yield bool(expected) and checksum in (expected, None), row

    def put(self, rows):
        """Keep the (Request, Completion) of `rows`, all of them or none; what is there already stays as it is.

        A damaged row gives way to the new one and goes to the table ``damaged``.
        """
        created = datetime.now(UTC).isoformat(timespec="seconds")
        values = [(request.key, created, request.kind, _readable(request.teacher), _utf8(request.prompt),
                   _utf8(done.text), done.finish_reason, done.prompt_tokens, done.completion_tokens,
                   _readable(asdict(request.decoding)), _readable(request.options)) for request, done in rows]
        with self._transaction():
            self._put_aside([row[0] for whole, row in self._rows([value[0] for value in values]) if not whole])
            self.connection.executemany(
                f"INSERT INTO completions VALUES ({','.join('?' * 12)}) ON CONFLICT (key) DO NOTHING",
                [(*value, _checksum(value)) for value in values])

    def _put_aside(self, keys):
        if keys:
            self.connection.execute(_DAMAGED)
        for key in keys:
            self.connection.execute("INSERT INTO damaged SELECT * FROM completions WHERE key = ?", [key])
            self.connection.execute("DELETE FROM completions WHERE key = ?", [key])

    def size(self):
        """Return the number of completions."""
        with self._named_errors():
            return self.connection.execute("SELECT count(*) FROM completions").fetchone()[0]

    def summary(self):
        """Return a dict per teacher: its identity, number of completions, their known tokens, first and last time."""
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
                with contextlib.suppress(sqlite3.Error):  # rolled back already; the first error is the one to tell
                    self.connection.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _named_errors(self):
        try:
            yield
        except sqlite3.ProgrammingError:  # a mistake in this code, not in the file
            raise
        except sqlite3.Error as error:
            advice = _ADVICE.get((getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF, "see what SQLite says of this")
            raise StudyError(f"{self.path}: {error}; {advice}") from error


class StoredTeacher:
    """A teacher behind a store: it is asked only for what the store lacks, and what it writes is kept at once.

    `asked`: completions that the teacher wrote now; `kept`: those that the store had; `prompt_tokens` and
    `completion_tokens`: what was paid for now, where the teacher says it.
    """

    def __init__(self, teacher, store):
        self.teacher, self.store, self.identity = teacher, store, teacher.identity
        self.asked = self.kept = self.prompt_tokens = self.completion_tokens = 0

    def complete(self, prompts, decoding, progress=None, keep=None):
        """Return one Completion per prompt, in their order; see backends.py."""
        def ask(missing, **reports):
            return self.teacher.complete([request.prompt for request in missing], decoding, **reports)

        return self._from_store(_requests(self.identity, prompts, decoding), ask, progress, keep)

    def contrast(self, prompts, against, decoding, strength, progress=None, keep=None):
        """Return one Completion per prompt, written in contrast to the prompt beside it in `against`."""
        def ask(missing, **reports):
            return self.teacher.contrast([request.prompt for request in missing],
                                         [request.options["against"] for request in missing], decoding, strength,
                                         **reports)

        return self._from_store(_requests(self.identity, prompts, decoding, against, strength), ask, progress, keep)

    def count_tokens(self, prompts):
        """Return the number of tokens of each prompt."""
        return self.teacher.count_tokens(prompts)

    def plan(self, prompts, decoding):
        """Return the Plan of completing `prompts`: what it would cost, before anything is asked."""
        planning = PlanningTeacher(self.teacher, self.store)
        planning.complete(prompts, decoding)
        return planning.plan

    def _from_store(self, requests, ask, progress, keep):
        distinct = {request.key: request for request in requests}
        found = self.store.get(distinct)
        there = len(found)
        self.kept += there
        if found and keep:
            keep([(distinct[key].prompt, done) for key, done in found.items()])
        if found and progress:
            progress(there, len(distinct))
        missing = [request for key, request in distinct.items() if key not in found]
        while missing:  # more than once only where a prompt is there against several others: keep names prompts alone
            turn = {}
            for request in missing:
                turn.setdefault(request.prompt, request)
            missing = [request for request in missing if turn[request.prompt] is not request]
            asked = list(turn.values())
            reports = {"progress": _shifted(progress, there, len(distinct)) if progress else None,
                       "keep": lambda pairs, turn=turn: self._keep(turn, pairs, keep)}
            done = ask(asked, **reports)
            self._keep(turn, list(zip([request.prompt for request in asked], done, strict=True)), keep)
            there += len(asked)
        found = self.store.get(distinct)  # not what was just written: another process may have kept its own before
        return [found[request.key] for request in requests]

    def _keep(self, turn, pairs, keep):
        """Put those of `pairs` that are still in `turn`, and take them out of it: each is counted once."""
        new = [(prompt, done) for prompt, done in pairs if prompt in turn]
        self.store.put([(turn.pop(prompt), done) for prompt, done in new])
        self.asked += len(new)
        self.prompt_tokens += sum(done.prompt_tokens or 0 for _, done in new)
        self.completion_tokens += sum(done.completion_tokens or 0 for _, done in new)
        if new and keep:
            keep(new)


@dataclass(frozen=True)
class Plan:
    """Completions `stored` and `to_ask`, and what asking would cost: `prompt_tokens` and, at most, `new_tokens`."""

    stored: int = 0
    to_ask: int = 0
    prompt_tokens: int = 0
    new_tokens: int = 0

    def __str__(self):
        kept = f"{self.stored} of {self.stored + self.to_ask} completions are in the store"
        return f"{kept}; {self.to_ask} to ask for, {self.prompt_tokens} prompt tokens and at most {self.new_tokens} new"


class PlanningTeacher:
    """A teacher that is never asked: what the store lacks is counted in `plan` and stands as UNWRITTEN.

    Run a prompting with it to know what it would cost. A prompt that is built on an unwritten text counts as
    to be asked, with the tokens of the part that is known.
    """

    def __init__(self, teacher, store):
        self.teacher, self.store, self.identity = teacher, store, teacher.identity
        self.plan, self._counted = Plan(), set()

    def complete(self, prompts, decoding, progress=None, keep=None):
        """Return the stored Completion of each prompt, or one of UNWRITTEN with the finish reason "planned"."""
        return self._plan(_requests(self.identity, prompts, decoding))

    def contrast(self, prompts, against, decoding, strength, progress=None, keep=None):
        """As `complete`; the tokens of both prompts count."""
        return self._plan(_requests(self.identity, prompts, decoding, against, strength))

    def count_tokens(self, prompts):
        """Return the number of tokens of each prompt."""
        return self.teacher.count_tokens(prompts)

    def _plan(self, requests):
        distinct = {request.key: request for request in requests}
        done = self.store.get(distinct)
        stored = len(done.keys() - self._counted)
        missing = {key: request for key, request in distinct.items() if key not in done}
        texts = [(key, text) for key, request in missing.items()
                 for text in (request.prompt, *filter(None, [request.options.get("against")]))]
        tokens = dict.fromkeys(missing, 0)
        for (key, _), count in zip(texts, self.teacher.count_tokens([text for _, text in texts]), strict=True):
            tokens[key] += count
        new = missing.keys() - self._counted
        self._counted |= distinct.keys()
        self.plan = Plan(self.plan.stored + stored, self.plan.to_ask + len(new),
                         self.plan.prompt_tokens + sum(tokens[key] for key in new),
                         self.plan.new_tokens + sum(missing[key].decoding.max_new_tokens for key in new))
        done |= {key: Completion(UNWRITTEN, "planned", tokens[key], 0) for key in missing}
        return [done[request.key] for request in requests]


def _requests(identity, prompts, decoding, against=None, strength=None):
    if against is None:
        return [Request(identity, prompt, decoding) for prompt in prompts]
    return [Request(identity, prompt, decoding, "contrast", {"against": other, "strength": strength})
            for prompt, other in zip(prompts, against, strict=True)]


def _shifted(progress, there, total):
    return lambda done, _: progress(there + done, total)


def _canonical(value):
    """Return `value` so that equal settings give equal JSON: 1 and 1.0 are one number, a tuple is a list."""
    if isinstance(value, Mapping):
        return {str(key): _canonical(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_canonical(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _identity(text):
    """Return the identity in a row, as the text that it is where damage has made it something else than JSON."""
    try:
        return json.loads(text)
    except ValueError:
        return {"unreadable": ascii(text)}


def _checksum(row):
    """Return the SHA-256 of the values of _COLUMNS, "" where one of them is no value that the store writes."""
    try:
        row = [int(value) if isinstance(value, bool) else value for value in _canonical(row)]  # as SQLite keeps them
        text = json.dumps(row, allow_nan=False, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()
    except (TypeError, ValueError):  # bytes, or a text that is no UTF-8
        return ""


def _create(connection):
    """Write the empty tables, if another process has not."""
    connection.execute("BEGIN IMMEDIATE")
    connection.execute(_TABLE.format("IF NOT EXISTS completions"))
    connection.execute(f"PRAGMA user_version = {VERSION}")
    connection.execute("COMMIT")


def _journal(path):
    return path.with_name(f"{path.name}-journal")


def _readable(value):
    """Return `value` as JSON for a person who looks inside; it is no part of the key, and no secret is kept."""
    return _utf8(masked(json.dumps(value, sort_keys=True, ensure_ascii=False)))


def _utf8(text):
    """Return `text` as UTF-8 can hold it: half a character (a lone surrogate) becomes a question mark."""
    return text.encode("utf-8", "replace").decode("utf-8")
