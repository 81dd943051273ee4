"""The store: nothing that was paid for is lost, nothing is paid for twice, nothing wrong is handed out."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from dataclasses import asdict, fields, replace

import pytest
from conftest import PROJECT

from kdutils.errors import StudyError
from kdutils.runs import project_path
from kdutils.teacher import cleaning
from kdutils.teacher import store as store_module
from kdutils.teacher.completion import Completion, Decoding
from kdutils.teacher.store import VERSION, Request, Store, store_path
from kdutils.teacher.stored import UNWRITTEN, Plan, PlanningTeacher, StoredTeacher

IDENTITY = {"backend": "fake", "model": "parrot", "revision": "1", "precision": {"bits": 4, "kind": "nf4"}}
DECODING = Decoding(24, ("\n\n",))
REQUEST = Request(IDENTITY, "Why?", DECODING)


class Parrot:
    """A teacher that repeats each prompt in capitals, two at a time, and dies when `lives` completions are written."""

    def __init__(self, lives=10**6, identity=IDENTITY):
        self.identity, self.lives, self.asked = identity, lives, []

    def complete(self, prompts, decoding, progress=None, keep=None):
        assert len(set(prompts)) == len(prompts)
        return self._write([(prompt, prompt.upper()) for prompt in prompts], progress, keep)

    def contrast(self, prompts, against, decoding, strength, progress=None, keep=None):
        pairs = list(zip(prompts, against, strict=True))
        return self._write([(prompt, f"{prompt.upper()} NOT {other}") for prompt, other in pairs], progress, keep)

    def count_tokens(self, prompts):
        return [len(prompt.split()) for prompt in prompts]

    def _write(self, texts, progress, keep):
        done = []
        for start in range(0, len(texts), 2):
            batch = [(prompt, Completion(text, "stop", len(prompt.split()), 2))
                     for prompt, text in texts[start:start + 2]]
            if len(self.asked) + len(batch) > self.lives:
                raise ConnectionError("the teacher is gone")
            self.asked += [one.text for _, one in batch]
            done += batch
            if keep:
                keep(batch)
            if progress:
                progress(len(done), len(texts))
        return [one for _, one in done]


class Silent(Parrot):
    """A teacher that never calls `keep`."""

    def _write(self, texts, progress, keep):
        return super()._write(texts, progress, None)


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "deep" / "store.sqlite") as one:
        yield one


def rows(*numbers, text="text"):
    return [(Request(IDENTITY, f"prompt {number}", DECODING), Completion(f"{text} {number}", "stop", 3, 5))
            for number in numbers]


# --- the key ---------------------------------------------------------------------------------------------------------


def changed(value):
    """Return another value of the same kind."""
    if isinstance(value, dict):
        return {**value, "more": 1}
    if isinstance(value, Decoding):
        return replace(value, max_new_tokens=25)
    return value + {str: " ", tuple: ("x",), int: 1, float: 0.5}[type(value)]


@pytest.mark.parametrize("name", [field.name for field in fields(Request)])
def test_every_field_of_a_request_changes_its_key(name):
    assert replace(REQUEST, **{name: changed(getattr(REQUEST, name))}).key != REQUEST.key


@pytest.mark.parametrize("name", [field.name for field in fields(Decoding)])
def test_every_field_of_decoding_changes_the_key(name):
    other = replace(DECODING, **{name: changed(getattr(DECODING, name))})
    assert replace(REQUEST, decoding=other).key != REQUEST.key


@pytest.mark.parametrize("change", [
    *({name: changed(value)} for name, value in IDENTITY.items()), {"precision": {"bits": 8, "kind": "nf4"}},
    {"precision": {"bits": "4", "kind": "nf4"}}, {"revision": 1}, {"revision": None}, {"new": False}])
def test_every_part_of_the_identity_changes_the_key(change):
    assert replace(REQUEST, teacher={**IDENTITY, **change}).key != REQUEST.key


@pytest.mark.parametrize("prompt", ["why?", "Why? ", " Why?", "Why?\n", "Why?\0", "Whý?", "Why\u0301?", "", "\ud83d"])
def test_every_character_of_the_prompt_counts(prompt):
    assert replace(REQUEST, prompt=prompt).key != REQUEST.key


def test_equal_settings_have_one_key_however_they_are_written():
    turned = {name: IDENTITY[name] for name in reversed(IDENTITY)} | {"precision": {"kind": "nf4", "bits": 4}}
    assert replace(REQUEST, teacher=turned).key == REQUEST.key
    assert replace(REQUEST, decoding=Decoding(24, ["\n\n"], 0, 1)).key == REQUEST.key
    assert len({replace(REQUEST, decoding=replace(DECODING, temperature=t)).key for t in (0.7, 0.70, 0.71)}) == 2


def test_the_key_is_the_same_on_every_machine_and_knows_nothing_of_cleaning(monkeypatch):
    expected = "73eaa2eea6607b6308358def9ae17a3b786cf8a278c079cca4a1b5e90d3d0504"
    monkeypatch.setattr(cleaning, "RULES_VERSION", 99)
    assert Request(IDENTITY, "Whý?", DECODING, "contrast", {"against": "", "strength": 1.0}).key == expected


# --- the file --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", " a\r\n\tb ", "naïve 😀 漢字 e\u0301", "before\0after", "x" * 3_000_000,
                                  "'; DROP TABLE completions; --", '{"a": [1]}'], ids=lambda text: ascii(text[:12]))
def test_texts_come_back_as_they_were_written(store, text):
    request = Request(IDENTITY, text, DECODING)
    for done in (Completion(text, "length", None, None), Completion("later", "stop", 1, 2)):
        store.put([(request, done)])
    with Store(store.path) as again:
        assert again.get([request.key, "nothing"]) == {request.key: Completion(text, "length", None, None)}


def test_half_a_character_does_not_stop_a_study(store):
    done = StoredTeacher(Parrot(), store).complete(["\ud83d b"], DECODING)
    assert done == StoredTeacher(Parrot(), store).complete(["\ud83d b"], DECODING) and done[0].text == "? B"


def test_a_person_can_read_the_rows(store):
    StoredTeacher(Parrot(), store).contrast(["Warum ß?"], ["nö"], DECODING, 0.5)
    read = sqlite3.connect(store.path)
    read.row_factory = sqlite3.Row
    row = dict(read.execute("SELECT * FROM completions").fetchone())
    assert row.pop("created").endswith("+00:00") and len(row.pop("checksum")) == 64
    assert row == {"key": Request(IDENTITY, "Warum ß?", DECODING, "contrast", {"against": "nö", "strength": 0.5}).key,
                   "kind": "contrast", "teacher": json.dumps(IDENTITY, sort_keys=True), "prompt": "Warum ß?",
                   "completion": "WARUM SS? NOT nö", "finish_reason": "stop", "prompt_tokens": 2,
                   "completion_tokens": 2, "options": '{"against": "nö", "strength": 0.5}', "thinking": "",
                   "decoding": json.dumps({**asdict(DECODING), "stop": ["\n\n"]}, sort_keys=True)}


def test_many_keys_are_looked_up_and_all_is_counted(store):
    store.put(rows(*range(1700)))
    store.put([(replace(REQUEST, teacher={"model": "other"}), Completion("x", "stop", None, None))])
    keys = [request.key for request, _ in rows(*range(2000))]
    assert store.get(keys) == {request.key: done for request, done in rows(*range(1700))}
    assert store.size() == 1701
    first, second = store.summary()
    assert first["teacher"] == IDENTITY and first["completions"] == 1700 and first["prompt_tokens"] == 5100
    assert first["completion_tokens"] == 8500 and first["first"] <= first["last"]
    assert second["completions"] == 1 and second["prompt_tokens"] == 0


def test_rows_are_put_all_or_none(store):
    with pytest.raises(StudyError, match="NOT NULL"):
        store.put([*rows(1), (REQUEST, Completion("x", None, 1, 1))])
    assert store.size() == 0
    store.put(rows(1))
    assert store.size() == 1


def test_where_it_lies(monkeypatch, tmp_path):
    monkeypatch.delenv("KDUTILS_STORE", raising=False)
    assert store_path() == project_path("outputs/completions.sqlite")
    monkeypatch.setenv("KDUTILS_STORE", str(tmp_path / "mine.sqlite"))
    assert store_path() == tmp_path / "mine.sqlite"


# --- what happens to it ----------------------------------------------------------------------------------------------


WRITER = """if True:
    import sys
    from kdutils.teacher.completion import Completion, Decoding
    from kdutils.teacher.store import Request, Store
    from kdutils.teacher.stored import StoredTeacher

    path, name, count, size = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    with Store(path) as store:
        for start in range(0, count, 5):
            batch = [(Request({"model": "m"}, f"prompt {number}", Decoding(9)),
                      Completion(f"{name} {number} " + "x" * size, "stop", 1, 1)) for number in range(start, start + 5)]
            store.put(batch)
            print(*(request.key for request, _ in batch), flush=True)
    """


def writer(path, name="a", count=10**6, size=0, before=(), **more):
    return subprocess.Popen([*before, sys.executable, "-c", WRITER, str(path), name, str(count), str(size)],
                            cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)


@pytest.mark.parametrize(("batches", "size"), [(1, 0), (7, 100), (20, 200_000)])
def test_killed_in_the_middle_it_holds_all_that_was_kept(tmp_path, batches, size):
    process = writer(tmp_path / "store.sqlite", size=size)
    for _ in range(batches):
        process.stdout.readline()
    os.kill(process.pid, signal.SIGKILL)
    said = batches * 5
    keys = process.communicate()[0].split()
    with Store(tmp_path / "store.sqlite") as store:
        assert len(store.get(keys)) == len(keys) and said + len(keys) <= store.size() <= said + len(keys) + 5
        assert store.size() % 5 == 0
        assert store.connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        store.put(rows(1))


def test_two_processes_write_at_once_and_the_first_text_of_each_stays(tmp_path):
    both = [writer(tmp_path / "store.sqlite", name, 200) for name in ("one", "two")]
    out = [process.communicate(timeout=100) for process in both]
    assert [process.returncode for process in both] == [0, 0], out
    keys = out[0][0].split()
    assert keys == out[1][0].split() and len(keys) == 200
    with Store(tmp_path / "store.sqlite") as store:
        before = store.get(keys)
        assert store.size() == len(before) == 200
        assert {done.text.split()[0] for done in before.values()} <= {"one", "two"}
        store.put([(Request({"model": "m"}, "prompt 3", Decoding(9)), Completion("late", "stop", 1, 1))])
        assert store.get(keys) == before


def test_the_text_that_another_process_kept_first_is_the_one_that_is_used(store):
    class Slow(Parrot):
        def complete(self, prompts, *rest, **more):
            with Store(store.path) as other:
                other.put([(Request(IDENTITY, prompts[0], DECODING), Completion("FIRST", "stop", 1, 1))])
            return super().complete(prompts, *rest, **more)

    done = StoredTeacher(Slow(), store).complete(["a", "b"], DECODING)
    assert [one.text for one in done] == ["FIRST", "B"]
    assert StoredTeacher(Parrot(), store).complete(["a", "b"], DECODING) == done


def test_a_full_disk_is_named_and_costs_nothing_that_was_kept(store):
    store.put(rows(1, 2))
    pages = store.connection.execute("PRAGMA page_count").fetchone()[0]
    store.connection.execute(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(StudyError, match="store.sqlite: database or disk is full.*make room, then run again"):
        store.put(rows(3, 4, text="x" * 100_000))
    assert store.size() == 2
    store.connection.execute("PRAGMA max_page_count = 100000")
    store.put(rows(3, 4, text="x" * 100_000))
    assert store.size() == 4


@pytest.mark.parametrize("full", ["file system", "quota"])
def test_a_disk_that_is_really_full_is_named(tmp_path, full):
    """A tiny file system in a mount namespace of its own, of which a copy is taken; and a limit on the file's size."""
    disk = tmp_path / "disk"
    disk.mkdir()
    shell = f"mount -t tmpfs -o size=200k tmpfs {disk} && \"$@\"; status=$?; cp {disk}/* {tmp_path}; exit $status"
    before = ["unshare", *(["--user", "--map-root-user"] if os.getuid() else []), "--mount", "sh", "-c", shell, "sh"]
    if full == "quota":
        before = ["sh", "-c", "trap '' XFSZ; ulimit -f 200; exec \"$@\"", "sh"]
        disk = tmp_path
    elif subprocess.run([*before[:-3], "-c", f"mount -t tmpfs tmpfs {disk}"], capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    process = writer(disk / "store.sqlite", size=1000, before=before)
    out, err = process.communicate(timeout=100)
    assert process.returncode and "StudyError" in err and str(disk / "store.sqlite") in err
    assert "earlier completions are safe" in err
    keys = out.split()
    with Store(tmp_path / "store.sqlite") as store:
        assert len(keys) > 20 and len(store.get(keys)) == len(keys) == store.size()
        store.put(rows(1))


@pytest.mark.parametrize("harm", [
    lambda data: b"this is a text file, and no database at all" * 50,
    lambda data: data[:len(data) // 2],
    lambda data: data[:4096] + os.urandom(len(data) - 4096),
    lambda data: os.urandom(100) + data[100:]])
def test_a_broken_file_is_named_and_stays_as_it_is(tmp_path, harm):
    path = tmp_path / "store.sqlite"
    with Store(path) as store:
        store.put(rows(*range(200)))
    path.write_bytes(harm(path.read_bytes()))
    broken = path.read_bytes()
    with pytest.raises(StudyError, match="store.sqlite: .*move it away"), Store(path) as store:
        store.get([request.key for request, _ in rows(*range(200))])
        store.put(rows(*range(200, 400)))
        store.summary()
    assert path.read_bytes() == broken


def test_a_file_of_another_kind_or_place_is_named(tmp_path):
    other = sqlite3.connect(tmp_path / "other.sqlite")
    other.execute("CREATE TABLE birds (name)")
    other.commit()
    with pytest.raises(StudyError, match="other.sqlite: a database of another kind"):
        Store(tmp_path / "other.sqlite")
    with Store(tmp_path / "later.sqlite") as store:
        store.connection.execute("PRAGMA user_version = 9")
    with pytest.raises(StudyError, match="later.sqlite: .*version"):
        Store(tmp_path / "later.sqlite")
    with pytest.raises(StudyError, match="cannot be opened"):
        Store(tmp_path)
    with pytest.raises(StudyError, match="its folder cannot be made"):
        Store(tmp_path / "other.sqlite" / "store.sqlite")


def altered(path, old, new):
    """Change bytes of the file itself, as a bad disk would."""
    data = path.read_bytes()
    assert len(old) == len(new) and data.count(old) == 1
    path.write_bytes(data.replace(old, new))


@pytest.mark.parametrize(("old", "new"), [
    (b"MUSIC IS MADE", b"MUSIC IS BADE"),  # one bit of the completion
    (b"MUSIC IS MADE", b"MUSIC \xe9S MADE"),  # no text any more
    (b"what makes music", b"what bakes music")])  # one bit of the prompt
def test_a_row_that_is_not_as_it_was_written_is_named_not_used_and_asked_again(store, capsys, old, new):
    class Musical(Parrot):
        def _write(self, texts, progress, keep):
            return super()._write([(prompt, f"{text}: MUSIC IS MADE" if "music" in prompt else text)
                                   for prompt, text in texts], progress, keep)

    prompts = ["a", "what makes music", "b"]
    first = StoredTeacher(Musical(), store).complete(prompts, DECODING)
    store.close()
    altered(store.path, old, new)
    with Store(store.path, read_only=True) as look:
        assert PlanningTeacher(Parrot(), look).complete(prompts, DECODING)[1].finish_reason == "planned"
    said = capsys.readouterr().out
    assert said.startswith(f"{store.path}: 1 completions are damaged (checksum differs)") and said.count("\n") == 1
    with Store(store.path) as again:
        stored = StoredTeacher(Musical(), again)
        assert stored.complete(prompts, DECODING) == first and (stored.asked, stored.kept) == (1, 2)
        assert capsys.readouterr().out == said, "once per store that is opened"
        stored = StoredTeacher(Musical(), again)
        assert stored.complete(prompts, DECODING) == first and (stored.asked, stored.kept) == (0, 3)
        assert again.size() == 3 and len(again.summary()) == 1
    aside = sqlite3.connect(store.path)
    aside.text_factory = bytes
    rows_aside = aside.execute("SELECT prompt || completion FROM damaged").fetchall()
    assert len(rows_aside) == 1 and new in rows_aside[0][0]


@pytest.mark.parametrize("column", ["created", "kind", "teacher", "prompt", "completion", "finish_reason",
                                    "prompt_tokens", "completion_tokens", "decoding", "options", "thinking",
                                    "checksum"])
def test_every_value_of_a_row_is_under_its_checksum(store, column):
    store.put(rows(1, 2))
    key = rows(1)[0][0].key
    store.connection.execute(f"UPDATE completions SET {column} = {column} || '1' WHERE key = ?", [key])
    assert list(store.get([request.key for request, _ in rows(1, 2)])) == [rows(2)[0][0].key]
    store.connection.execute(f"UPDATE completions SET {column} = x'00ff' WHERE key = ?", [key])
    assert store.get([key]) == {} and store.size() == 2 and store.summary()
    store.put(rows(1, text="again"))
    assert store.get([key])[key].text == "again 1"


def test_a_completion_under_another_key_is_not_handed_out(store):
    store.put(rows(1))
    store.connection.execute("UPDATE completions SET key = ?", [REQUEST.key])
    assert store.get([REQUEST.key]) == {}


def test_numbers_of_other_types_are_no_damage(store):
    store.put([(REQUEST, Completion("x", "stop", 3.0, True))])
    assert store.get([REQUEST.key]) == {REQUEST.key: Completion("x", "stop", 3, 1)}


VERSION_1 = """CREATE TABLE completions (
    key TEXT PRIMARY KEY, created TEXT NOT NULL, kind TEXT NOT NULL, teacher TEXT NOT NULL, prompt TEXT NOT NULL,
    completion TEXT NOT NULL, finish_reason TEXT NOT NULL, prompt_tokens INTEGER, completion_tokens INTEGER,
    decoding TEXT NOT NULL, options TEXT NOT NULL); PRAGMA user_version = 1"""


@pytest.fixture
def earlier(tmp_path):
    """A store as an earlier version wrote it, with 1200 rows, of which one is no text any more."""
    made = sqlite3.connect(tmp_path / "earlier.sqlite")
    made.executescript(VERSION_1)
    made.executemany("INSERT INTO completions VALUES (?, '2026', 'complete', '{}', ?, ?, 'stop', ?, 5, '{}', '{}')", [
        (request.key, request.prompt, done.text if number else b"\xff\0", number or None)
        for number, (request, done) in enumerate(rows(*range(1200)))])
    made.execute("UPDATE completions SET completion = CAST(completion AS TEXT)")
    made.commit()
    made.close()
    return tmp_path / "earlier.sqlite"


def test_a_store_of_the_version_before_is_read_as_it_is_and_gets_checksums(earlier):
    keys, before = [request.key for request, _ in rows(*range(1200))], earlier.read_bytes()
    expected = {request.key: replace(done, prompt_tokens=number or None)
                for number, (request, done) in enumerate(rows(*range(1200))) if number}
    with Store(earlier, read_only=True) as store:
        assert store.get(keys) == expected
    assert earlier.read_bytes() == before, "a look changes nothing"
    for _ in range(2):
        with Store(earlier) as store:
            assert store.get(keys) == expected and store.size() == 1200
            assert store.connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            assert store.connection.execute("SELECT count(*) FROM completions WHERE checksum = ''").fetchone() == (1,)
            store.connection.execute("UPDATE completions SET completion = 'other' WHERE key = ?", [keys[7]])
            del expected[keys[7]]
            assert store.get(keys) == expected
            store.put(rows(7, text="new"))
            expected[keys[7]] = Completion("new 7", "stop", 3, 5)
            assert store.get(keys) == expected


UPGRADE = """if True:
    import sys, os
    from kdutils.teacher import store
    lives, sums = int(sys.argv[2]), store._checksum
    def mortal(row):
        global lives
        lives -= 1
        if lives == 0:
            os.kill(os.getpid(), 9)
        return sums(row)
    store._checksum = mortal
    store.Store(sys.argv[1])
    """


def test_killed_while_it_gets_checksums_it_is_the_old_store_or_the_new_one(earlier):
    keys = [request.key for request, _ in rows(*range(1, 1200))]
    killed = subprocess.run([sys.executable, "-c", UPGRADE, str(earlier), "900"], cwd=PROJECT)
    assert killed.returncode == -signal.SIGKILL
    assert sqlite3.connect(earlier).execute("SELECT user_version FROM pragma_user_version").fetchone() == (1,)
    both = [subprocess.Popen([sys.executable, "-c", UPGRADE, str(earlier), "0"], cwd=PROJECT) for _ in range(2)]
    assert [process.wait(timeout=100) for process in both] == [0, 0], "two processes do it at once"
    with Store(earlier) as store:
        assert store.version == VERSION and len(store.get(keys)) == 1199


def test_a_store_without_thinking_gets_its_column_and_keeps_its_checksums(tmp_path):
    path = tmp_path / "second.sqlite"
    with Store(path) as store:
        store.put(rows(1, 2))
        store.connection.execute("UPDATE completions SET completion = 'x' WHERE key = ?", [rows(2)[0][0].key])
        store.put(rows(2))  # the damaged row moves to its table
        sums = store.connection.execute("SELECT key, checksum FROM completions").fetchall()
        for table in ("completions", "damaged"):
            store.connection.execute(f"ALTER TABLE {table} DROP COLUMN thinking")
        store.connection.execute("PRAGMA user_version = 2")
    keys, expected = [request.key for request, _ in rows(1, 2)], {request.key: done for request, done in rows(1, 2)}
    before = path.read_bytes()
    with Store(path, read_only=True) as store:
        assert store.get(keys) == expected and len(list(store.rows())) == 2
    assert path.read_bytes() == before
    with Store(path) as store:
        assert store.get(keys) == expected
        assert store.connection.execute("SELECT key, checksum FROM completions").fetchall() == sums
        store.connection.execute("UPDATE completions SET completion = 'x' WHERE key = ?", [keys[0]])
        store.put(rows(1))
        assert store.get(keys) == expected
        assert store.connection.execute("SELECT count(*) FROM damaged").fetchone() == (2,)


def test_thinking_is_kept_beside_the_text_and_under_the_checksum(store):
    done = Completion("Ice is water.", "stop", 3, 9, "Hm\n\nso \ud83d")
    store.put([(REQUEST, done)])
    assert store.get([REQUEST.key])[REQUEST.key] == replace(done, thinking="Hm\n\nso ?")
    store.connection.execute("UPDATE completions SET thinking = ''")
    assert store.get([REQUEST.key]) == {}, "taken away, it is missed"


def test_what_is_forgotten_is_gone_and_nothing_else(store):
    store.put(rows(*range(1200)))
    keys = [request.key for request, _ in rows(*range(1200))]
    assert store.forget([*keys[:1100], "nothing"]) == 1100 and store.forget([]) == 0
    assert sorted(store.get(keys)) == sorted(keys[1100:])
    store.connection.execute("UPDATE completions SET completion = 'x' WHERE key = ?", [keys[1100]])
    found = list(store.rows())
    assert len(found) == 99 and found[0]["teacher"] == IDENTITY and found[0]["decoding"]["max_new_tokens"]


def test_a_file_of_0_bytes_is_named_and_not_taken_as_new(tmp_path):
    (tmp_path / "store.sqlite").touch()
    for read_only in (True, False):
        with pytest.raises(StudyError, match=r"store.sqlite: empty \(0 bytes\).*delete it to begin a new store"):
            Store(tmp_path / "store.sqlite", read_only)
    assert [path.name for path in tmp_path.iterdir()] == ["store.sqlite"]
    (tmp_path / "store.sqlite").unlink()
    Store(tmp_path / "store.sqlite").close()
    assert (tmp_path / "store.sqlite").stat().st_size and len(list(tmp_path.iterdir())) == 1


def test_a_new_store_is_never_there_without_its_table(tmp_path, monkeypatch):
    """Otherwise one that was killed at its beginning, or a second process, would find 0 bytes."""
    seen, path = [], tmp_path / "store.sqlite"
    for name in ("_create", "_checksum"):
        plain = getattr(store_module, name)
        monkeypatch.setattr(store_module, name, lambda *words, plain=plain: plain(*words) if seen.append(
            path.exists()) is None else None)
    with Store(path) as store:
        assert seen == [False] and path.stat().st_size
        with Store(path) as other:
            other.put(rows(1))
            store.put(rows(2))
            assert store.size() == 2


HALF_WAY = """if True:
    import os, sqlite3, sys
    from kdutils.teacher.store import Store
    store = Store(sys.argv[1])
    store.connection.execute("PRAGMA cache_size = 2")
    store.connection.execute("BEGIN")
    for number in range(3000):
        store.connection.execute("UPDATE completions SET completion = hex(randomblob(9000))")
        if os.path.exists(sys.argv[1] + "-journal"):
            os.kill(os.getpid(), 9)
    """


@pytest.fixture
def half_way(tmp_path):
    """A store of 50 rows whose writer was killed in the middle of changing them all: its journal lies beside it."""
    with Store(tmp_path / "store.sqlite") as store:
        store.put(rows(*range(50), text="x" * 9000))
    killed = subprocess.run([sys.executable, "-c", HALF_WAY, str(store.path)], cwd=PROJECT)
    assert killed.returncode == -signal.SIGKILL and (tmp_path / "store.sqlite-journal").stat().st_size
    return store.path


def test_a_look_after_a_kill_takes_back_what_was_half_written(half_way):
    expected = {request.key: done for request, done in rows(*range(50), text="x" * 9000)}
    with Store(half_way, read_only=True) as look:
        assert look.get(expected) == expected


def test_the_journal_of_a_deleted_store_does_not_get_into_a_new_one(half_way):
    half_way.unlink()
    with Store(half_way) as store:
        assert store.size() == 0
        store.put(rows(1))
        assert store.size() == 1 and store.connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_where_a_file_cannot_have_two_names_the_store_is_made_all_the_same(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    with Store(tmp_path / "a #1?.sqlite") as store:
        store.put(rows(1))
    assert [path.name for path in tmp_path.iterdir()] == ["a #1?.sqlite"]


def test_a_look_makes_nothing_and_changes_nothing(tmp_path, store):
    with Store(tmp_path / "not" / "there.sqlite", read_only=True) as none:
        assert none.get([REQUEST.key]) == {} and none.size() == 0 and none.summary() == []
    assert not (tmp_path / "not").exists()
    store.put(rows(1))
    before = store.path.read_bytes()
    with Store(store.path, read_only=True) as look:
        assert len(look.get([rows(1)[0][0].key])) == look.size() == 1
        with pytest.raises(StudyError, match="it cannot be written"):
            look.put(rows(2))
    assert store.path.read_bytes() == before and len(list(store.path.parent.iterdir())) == 1


def test_a_plan_makes_no_store_and_no_folder(tmp_path, monkeypatch):
    from kdutils.data.mini_world import build_questions
    from kdutils.experiments.steps import SETTINGS
    from kdutils.teacher import explaining

    monkeypatch.setenv("KDUTILS_STORE", str(tmp_path / "deep" / "store.sqlite"))
    monkeypatch.setattr(explaining, "load_teacher", lambda _: Parrot())
    defaults = SETTINGS["02_explain_few_shot"].defaults()
    assert explaining.plan(build_questions(4, 4, 4), "few_shot", defaults).to_ask == 12
    assert list(tmp_path.iterdir()) == []


# --- a teacher behind it ---------------------------------------------------------------------------------------------


def test_only_what_is_not_there_is_asked_and_all_comes_back_in_order(store):
    parrot, kept, said = Parrot(), [], []
    first = StoredTeacher(parrot, store)
    assert [one.text for one in first.complete(["b", "a a", "b"], DECODING)] == ["B", "A A", "B"]
    assert (first.asked, first.kept, first.prompt_tokens, first.completion_tokens) == (2, 0, 3, 4)
    second = StoredTeacher(parrot, store)
    done = second.complete(["c", "b", "d", "a a", "c", "e"], DECODING, lambda *now: said.append(now), kept.extend)
    assert [one.text for one in done] == ["C", "B", "D", "A A", "C", "E"]
    assert parrot.asked == ["B", "A A", "C", "D", "E"] and (second.asked, second.kept) == (3, 2)
    assert said == [(2, 5), (4, 5), (5, 5)] and sorted(prompt for prompt, _ in kept) == ["a a", "b", "c", "d", "e"]
    assert second.complete([], DECODING) == [] and second.identity == IDENTITY and second.count_tokens(["a b"]) == [2]
    done = StoredTeacher(parrot, store).complete(["b"], replace(DECODING, sample=1))
    assert len(parrot.asked) == 6 and done[0].text == "B"


def test_one_changed_prompt_is_asked_alone(store):
    prompts = [f"question {number}" for number in range(50)]
    StoredTeacher(Parrot(), store).complete(prompts, DECODING)
    parrot = Parrot()
    StoredTeacher(parrot, store).complete(["new" if prompt == "question 7" else prompt for prompt in prompts], DECODING)
    assert parrot.asked == ["NEW"]


@pytest.mark.parametrize("kind", ["complete", "contrast"])
def test_after_a_teacher_died_half_way_only_the_rest_is_asked(store, kind):
    prompts = [f"question {number}" for number in range(20)]

    def ask(parrot):
        stored = StoredTeacher(parrot, store)
        if kind == "complete":
            return stored, stored.complete(prompts, DECODING)
        return stored, stored.contrast(prompts, ["x"] * 20, DECODING, 1.0)

    dying = Parrot(lives=9)
    with pytest.raises(ConnectionError, match="the teacher is gone"):
        ask(dying)
    assert store.size() == len(dying.asked) == 8
    second = Parrot()
    stored, done = ask(second)
    assert (stored.asked, stored.kept) == (12, 8) and not set(second.asked) & set(dying.asked)
    assert [one.text for one in done] == dying.asked + second.asked


def test_a_teacher_that_hands_over_all_at_the_end_is_kept_too(store):
    stored = StoredTeacher(Silent(), store)
    assert [one.text for one in stored.complete(["a", "b", "c"], DECODING)] == ["A", "B", "C"]
    assert (stored.asked, store.size()) == (3, 3)


def test_contrasts_are_kept_apart_by_what_they_are_set_against_and_how_strongly(store):
    parrot = Parrot()
    stored = StoredTeacher(parrot, store)
    done = stored.contrast(["a", "a", "b", "a"], ["x", "y", "x", "x"], DECODING, 0.5)
    assert [one.text for one in done] == ["A NOT x", "A NOT y", "B NOT x", "A NOT x"] and stored.asked == 3
    assert stored.contrast(["a", "a"], ["x", "y"], DECODING, 0.5) == done[:2] and stored.asked == 3
    stored.contrast(["a"], ["x"], DECODING, 0.6)
    stored.complete(["a"], DECODING)
    assert stored.asked == 5 and store.size() == 5


def test_a_failed_write_ends_the_asking(store):
    store.connection.execute(f"PRAGMA max_page_count = {store.connection.execute('PRAGMA page_count').fetchone()[0]}")
    parrot = Parrot()
    with pytest.raises(StudyError, match="full"):
        StoredTeacher(parrot, store).complete([f"{number} " + "x" * 9000 for number in range(50)], DECODING)
    assert len(parrot.asked) == 2


# --- what it would cost ----------------------------------------------------------------------------------------------


def test_a_plan_says_what_is_there_and_what_the_rest_costs(store):
    parrot = Parrot()
    StoredTeacher(parrot, store).complete(["a", "b"], DECODING)
    stored = StoredTeacher(parrot, store)

    def plan(prompts, decoding):
        planning = PlanningTeacher(parrot, store)
        planning.complete(prompts, decoding)
        return planning.plan

    assert plan(["a", "c c c", "b", "d d", "d d"], DECODING) == Plan(2, 2, 5, 48)
    assert plan(["a"], replace(DECODING, seed=1)) == Plan(0, 1, 1, 24)
    assert len(parrot.asked) == 2 and stored.asked == 0


def test_a_prompting_of_several_stages_can_be_run_dry(store):
    def two_stages(teacher):
        written = teacher.complete(["a", "b", "b"], DECODING)
        later = teacher.complete([f"critique of {cleaning.clean(one.text).text}" for one in written], Decoding(10))
        teacher.contrast(["a", "c"], ["x", "y y"], DECODING, 1.0)
        return written + later

    parrot = Parrot()
    StoredTeacher(parrot, store).complete(["a"], DECODING)
    planning = PlanningTeacher(parrot, store)
    dry = two_stages(planning)
    assert [one.finish_reason for one in dry] == ["stop", "planned", "planned"] + ["planned"] * 3
    unknown = 2 + len(UNWRITTEN.split())
    assert planning.plan == Plan(1, 5, 1 + (3 + unknown) + (2 + 3), 24 + 20 + 48) and parrot.asked == ["A"]
    two_stages(planning)
    assert planning.plan.to_ask == 5 and planning.identity == IDENTITY
    stored = StoredTeacher(parrot, store)
    two_stages(stored)
    assert (stored.asked, stored.kept) == (5, 1)
    again = PlanningTeacher(parrot, store)
    two_stages(again)
    two_stages(again)
    assert again.plan == Plan(6, 0, 0, 0)


def test_an_unwritten_text_passes_for_an_answer_and_an_explanation():
    cleaned = cleaning.clean(UNWRITTEN, "harp")
    assert cleaned.text == UNWRITTEN and not cleaned.changes
    answer, rest = UNWRITTEN.split(". ")
    assert answer and cleaning.clean(rest).text == rest
