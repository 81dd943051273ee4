"""A teacher behind a server: a real one, and one that misbehaves in every way that servers do."""

import asyncio
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import openai
import pytest
from bad_server import TOO_LONG, BadServer, text_for
from conftest import PROJECT

from kdutils.errors import StudyError
from kdutils.teacher.completion import Completion, Decoding
from kdutils.teacher.served import ServedTeacher
from kdutils.teacher.store import Store
from kdutils.teacher.stored import StoredTeacher

SHORT = Decoding(24)
PROMPTS = [f"question {number}" for number in range(12)]
KEY = "sk-thisIsNoRealKeyButLooksLikeOne"


@pytest.fixture(autouse=True)
def no_settings(monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def pauses(monkeypatch):
    """The seconds that the client wanted to wait before it tried again; it does not really wait."""
    wanted = []
    monkeypatch.setattr("openai._base_client.time.sleep", wanted.append)
    monkeypatch.setattr(threading.Event, "wait", _hasty(wanted, threading.Event.wait))
    return wanted


def _hasty(wanted, wait):
    def wait_less(self, timeout=None):
        if sys._getframe(1).f_code.co_name != "_ask":
            return wait(self, timeout)
        wanted.append(timeout)
        return self.is_set()

    return wait_less


def teacher_of(server, **more):
    return ServedTeacher("m", server.url, **{"chat": False, "requests": 3, "timeout": 20, "retries": 2, **more})


# --- a real server ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real_server(tmp_path_factory):
    """``transformers serve`` with the mini teacher, whose chat template hands the message on as it is."""
    folder = tmp_path_factory.mktemp("served") / "teacher"
    shutil.copytree(PROJECT / "kdutils" / "mini" / "teacher", folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(
        {**settings, "chat_template": "{% for message in messages %}{{ message['content'] }}{% endfor %}"}))
    port = free_port()
    log = open(folder.parent / "log.txt", "w+")
    process = subprocess.Popen(
        [str(Path(sys.executable).with_name("transformers")), "serve", str(folder), "--host", "127.0.0.1", "--port",
         str(port), "--device", "cpu"], stdout=log, stderr=log, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    try:
        end = time.time() + 120
        while not answers(f"http://127.0.0.1:{port}/health"):
            assert process.poll() is None and time.time() < end, Path(log.name).read_text()
            time.sleep(0.2)
        yield str(folder), f"http://127.0.0.1:{port}/v1"
    finally:
        process.kill()
        process.wait()
        log.close()


def answers(address):
    try:
        return urllib.request.urlopen(address, timeout=1).status == 200
    except OSError:
        return False


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture(scope="module")
def greedy(real_server):
    """A function that continues a text with the same weights, without a server."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(real_server[0])
    model = AutoModelForCausalLM.from_pretrained(real_server[0]).eval()

    def write(prompt, tokens):
        ids = tokenizer(prompt, return_tensors="pt")
        out = model.generate(**ids, do_sample=False, max_new_tokens=tokens)[0, ids["input_ids"].shape[1]:]
        ended = out[-1] == model.config.eos_token_id
        return Completion(tokenizer.decode(out, skip_special_tokens=True), "stop" if ended else "length",
                          ids["input_ids"].shape[1], len(out))

    return write


@pytest.fixture(scope="module")
def asked():
    from kdutils.data.mini_world import build_questions
    from kdutils.teacher.prompting import few_shot_prompts

    return few_shot_prompts(build_questions(4, 4, 4), "mini", 0)[:4]


@pytest.mark.parametrize("chat", [True, False])
def test_a_real_server_writes_what_its_model_writes(real_server, greedy, asked, chat, tmp_path):
    model, url = real_server
    decoding = Decoding(32)
    served = ServedTeacher(model, url, chat, requests=3)
    with Store(tmp_path / "store.sqlite") as store:
        teacher = StoredTeacher(served, store)
        done = teacher.complete([*asked, asked[0]], decoding)
        assert done == [greedy(prompt, 32) for prompt in [*asked, asked[0]]]
        assert any(" " in one.text and one.completion_tokens > 3 for one in done)
        assert teacher.complete(asked, decoding) == done[:-1] and (teacher.asked, teacher.kept) == (4, 4)


def test_a_real_server_stops_at_a_stop_text_which_is_cut_off(real_server, greedy, asked):
    model, url = real_server
    whole = greedy(asked[0], 32).text
    mark = whole.split()[2]
    done, = ServedTeacher(model, url, chat=False).complete(asked[:1], Decoding(32, ("~", "^", "#", "<", mark)))
    assert done.text == whole[:whole.index(mark)] and done.finish_reason == "stop"


def test_the_name_of_another_model_is_refused_in_the_servers_words(real_server):
    with pytest.raises(StudyError, match="Server is pinned to.*requested 'gpt-9'.*0 of 1 completions are there"):
        ServedTeacher("gpt-9", real_server[1], chat=False).complete(["a"], SHORT)


# --- what is asked ---------------------------------------------------------------------------------------------------


def test_many_are_in_flight_equal_ones_asked_once_and_all_come_back_in_order():
    together = threading.Barrier(4)

    def behave(prompt, number):
        together.wait(timeout=20)  # nothing is answered before four have come
        return "good"

    kept, said = [], []
    with BadServer(behave) as server:
        done = teacher_of(server, requests=4).complete(PROMPTS + PROMPTS[:2], SHORT, lambda *now: said.append(now),
                                                       kept.extend)
    assert [one.text for one in done] == [text_for(prompt) for prompt in PROMPTS + PROMPTS[:2]]
    assert done[0] == Completion(text_for(PROMPTS[0]), "stop", 3, 5)
    assert len(server.seen) == 12 and sorted(prompt for prompt, _ in kept) == sorted(PROMPTS)
    assert said[-1] == (12, 12) and [now for now, _ in said] == sorted(now for now, _ in said)


def test_nothing_to_ask_needs_no_server():
    assert ServedTeacher("m", "http://127.0.0.1:9").complete([], SHORT) == []


def test_it_works_where_an_event_loop_is_running_already():
    async def cell():
        return teacher_of(server).complete(PROMPTS, SHORT)

    with BadServer() as server:
        assert len(asyncio.run(cell())) == 12


@pytest.mark.parametrize("chat", [True, False])
def test_decoding_settings_reach_the_server(chat):
    drawn = Decoding(9, ("1", "2", "3", "4", "5"), 0.7, 0.9, seed=4)
    with BadServer() as server:
        teacher = teacher_of(server, chat=chat)
        for decoding in (SHORT, drawn, Decoding(**{**vars(drawn), "sample": 1})):
            teacher.complete(["a"], decoding)
    greedy, first, second = server.seen
    assert greedy["path"] == ("/v1/chat/completions" if chat else "/v1/completions")
    assert greedy["temperature"] == 0 and greedy["max_tokens"] == 24 and not {"seed", "top_p", "stop"} & set(greedy)
    assert (first["temperature"], first["top_p"], first["max_tokens"]) == (0.7, 0.9, 9)
    assert first.get("stop") == (None if chat else ["1", "2", "3", "4"]) and first["seed"] != second["seed"]


def test_stop_texts_are_cut_off_where_the_server_ignores_them():
    with BadServer(["so it is.\n\nQuestion: x###"]) as server:
        done, = teacher_of(server).complete(["a"], Decoding(24, ("Q:", "###", "\n\n", "A:", "Question:")))
    assert done == Completion("so it is.", "stop", 3, 5)


def test_one_server_has_one_identity_however_it_is_written(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    one = ServedTeacher("m", "http://LOCALHOST:80/v1/").identity
    assert one == {"backend": "openai", "model": "m", "base_url": "http://localhost/v1", "chat": True}
    others = [ServedTeacher("n", "http://localhost/v1"), ServedTeacher("m", "https://localhost/v1"),
              ServedTeacher("m", "http://localhost:8000/v1"), ServedTeacher("m", "http://localhost/v1", chat=False)]
    assert all(other.identity != one for other in others)
    assert ServedTeacher("m").identity["base_url"] == "https://api.openai.com/v1"
    monkeypatch.setenv("OPENAI_BASE_URL", "http://[::1]:8000/v1")
    assert ServedTeacher("m").identity["base_url"] == "http://[::1]:8000/v1"


@pytest.mark.parametrize(("url", "says"), [
    ("localhost:8000", "no address"), ("ftp://a/v1", "no address"), ("http://", "no address"),
    ("http://[abc", "no address"), ("http://a:99999/v1", "no address"),
    (f"https://me:{KEY}@host/v1", "the key goes into OPENAI_API_KEY"),
    (f"https://host/v1?api-key={KEY}", "the key goes into OPENAI_API_KEY"),
    (f"https://host/v1#{KEY}", "the key goes into OPENAI_API_KEY"), (f"file:///home/{KEY}", "no address"),
    (f"http://@host/{KEY}", "the key goes into OPENAI_API_KEY"), (f"http://ho\nst/{KEY}", "no address"),
    (f"http://host/a b{KEY}", "no address"), (f"http://host/\x00{KEY}", "no address"),
    (f"http://host/v1;token={KEY}", "OPENAI_API_KEY"), (f"http://host/{KEY}", "OPENAI_API_KEY")])
def test_what_is_no_address_is_refused_without_being_repeated(url, says):
    with pytest.raises(StudyError, match=f"base_url.*{says}") as refused:
        ServedTeacher("m", url)
    assert KEY not in str(refused.value)


# --- what goes wrong -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trouble", ["500", "429", "half", "hang up", "slow", "not json", "page", "a list",
                                     "no choices", "no text", "empty", "reasoned", "tool call", "no reason"])
@pytest.mark.parametrize("chat", [True, False])
def test_what_goes_wrong_once_is_tried_again(trouble, chat, pauses):
    with BadServer([trouble]) as server:
        done = teacher_of(server, chat=chat, requests=1, timeout=0.5 if trouble == "slow" else 20).complete(
            ["a", "b"], SHORT)
    assert [one.text for one in done] == [text_for("a"), text_for("b")] and len(server.seen) == 3
    assert pauses == ([7] if trouble == "429" else pauses) and len(pauses) == 1


@pytest.mark.parametrize(("trouble", "says"), [
    ("500", "the model fell over.*look at the server's log"), ("context shared", "500.*exceeded.*lower `requests`"),
    ("429", "slow down.*lower `requests`"),
    ("half", "Connection error.*check that it runs"), ("hang up", "Connection error"), ("slow", "timed out"),
    ("not json", "no usable reply to 1 of the prompts, tried 3 times.*'bad'.*not JSON"), ("page", "not JSON"),
    ("no choices", "reply without a completion"), ("no text", "reply without text"), ("empty", "reply without text"),
    ("reasoned", "tokens used up"), ("tool call", "'tool_calls'")])
def test_what_stays_wrong_is_named_and_what_was_written_is_kept(trouble, says, pauses):
    kept = []
    with BadServer(lambda prompt, _: trouble if prompt == "bad" else "good") as server:
        with pytest.raises(StudyError, match=says) as failed:
            teacher_of(server, requests=1, timeout=0.5 if trouble == "slow" else 20).complete(
                ["a", "bad", "b"], SHORT, keep=kept.extend)
    assert f"m at {server.url}: " in str(failed.value) and "of 3 completions are kept" in str(failed.value)
    assert "then run again: it continues from there" in str(failed.value)
    assert sum(entry["prompt"] == "bad" for entry in server.seen) == 3
    of_the_server = trouble in ("500", "context shared", "429", "half", "hang up", "slow")
    assert [prompt for prompt, _ in kept] == (["a"] if of_the_server else ["a", "b"])


def test_a_server_that_never_answers_usably_is_given_up(pauses):
    with BadServer(lambda *_: "page") as server, pytest.raises(StudyError, match="no usable reply to"):
        teacher_of(server, requests=1, retries=0).complete([f"question {number}" for number in range(500)], SHORT)
    assert len(server.seen) < 500


@pytest.mark.parametrize(("trouble", "says"), [("400", "no such parameter: top_q.*change what the message names"),
                                               ("401", "no such key.*OPENAI_API_KEY is set")])
def test_a_refusal_is_told_at_once(trouble, says, pauses):
    with BadServer(lambda *_: trouble) as server, pytest.raises(StudyError, match=says):
        teacher_of(server).complete(PROMPTS, SHORT)
    assert len(server.seen) <= 3 and not pauses


@pytest.mark.parametrize("trouble", [*(f"too long: {name}" for name in TOO_LONG), "cut by the context"])
@pytest.mark.parametrize("chat", [True, False])
def test_a_prompt_without_room_is_asked_once_and_named_and_the_others_are_finished(trouble, chat, pauses):
    kept = []
    with BadServer(lambda prompt, _: trouble if prompt == PROMPTS[1] else "good") as server:
        with pytest.raises(StudyError, match="1 of the prompts: too long.*'question 1'.*longer context") as failed:
            teacher_of(server, chat=chat).complete(PROMPTS, SHORT, keep=kept.extend)
    assert sorted(prompt for prompt, _ in kept) == sorted(set(PROMPTS) - {PROMPTS[1]}) and not pauses
    assert len(server.seen) == len(PROMPTS) and failed.value.prompts == [PROMPTS[1]]
    assert "11 of 12 completions are kept" in str(failed.value) and "\n" not in str(failed.value)


def test_the_message_says_how_many_are_kept_even_if_names_prompts_and_replies_are_long(pauses):
    long = "which word is this? " + "word " * 100
    with BadServer(lambda prompt, _: "too long: llama.cpp" if prompt == long else "good") as server:
        teacher = ServedTeacher("/models/" + "folder/" * 12 + "model.gguf", server.url, requests=1)
        with pytest.raises(StudyError, match="too long .*of 12 completions are kept; .*it continues from there$"):
            teacher.complete([*PROMPTS[1:], long], SHORT, keep=lambda _: None)


def test_where_no_prompt_has_room_the_rest_is_not_asked(pauses):
    prompts = [f"question {number}" for number in range(500)]
    with BadServer(lambda *_: "too long: llama.cpp") as server, pytest.raises(StudyError, match="too long .*3001"):
        teacher_of(server, requests=1).complete(prompts, SHORT)
    assert len(server.seen) < 500 and not pauses


def test_a_text_that_ends_a_token_before_the_limit_or_at_a_stop_text_is_whole():
    with BadServer(lambda prompt, _: prompt) as server:  # counts of tokens differ by one between servers
        done = teacher_of(server).complete(["cut by the context"], Decoding(10))
        stopped = teacher_of(server).complete(["cut by the context"], Decoding(24, (" of",)))
    assert done == [Completion("because of", "length", 3, 9)] and stopped == [Completion("because", "stop", 3, 9)]


def test_the_questions_of_prompts_without_room_are_named(table_of_four):
    from kdutils.teacher.explaining import few_shot

    parameters = {"given_answer": True, "seed": 0, "dataset": "mini", "max_new_tokens": 24, "temperature": 0.0,
                  "stop": []}
    long = table_of_four["question"].iloc[1:3].tolist()
    with BadServer(lambda prompt, _: "too long: vLLM" if any(text in prompt for text in long) else "good") as server:
        with pytest.raises(StudyError) as failed:
            few_shot(teacher_of(server), table_of_four, parameters)
    first, second = table_of_four["id"].iloc[1:3]
    start = f"questions {first!r}, {second!r}: m at {server.url}: 2 of the prompts: too long"
    assert str(failed.value).startswith(start)


@pytest.fixture
def table_of_four():
    from kdutils.data.mini_world import build_questions

    table = build_questions(4, 4, 4)
    return table[table["split"] == "train"].reset_index(drop=True)


def test_a_server_of_another_interface_is_told_by_its_address_at_once(pauses):
    """llama.cpp answers at /completions, without /v1, in a form of its own."""
    with BadServer(lambda *_: "other interface") as server, pytest.raises(StudyError, match="most end in /v1"):
        teacher_of(server, requests=1).complete(PROMPTS, SHORT)
    assert len(server.seen) == 1 and not pauses


def test_how_long_to_wait_is_a_parameter_and_the_remedy_of_a_timeout(pauses):
    from kdutils.experiments.steps import SETTINGS
    from kdutils.teacher.backends import load_teacher

    settings = {"backend": "openai", "model": "m", "base_url": "http://localhost/v1", "chat": False, "requests": 2}
    assert load_teacher({**settings, "timeout": 7}).timeout == 7
    for notebook in ("02_explain_few_shot", "03_explain_critique_revision", "04_explain_counterfactual"):
        assert SETTINGS[notebook].types()["timeout"]
    with pytest.raises(StudyError, match="timeout: 0 seconds"):
        load_teacher({**settings, "timeout": 0})
    with BadServer(["slow"]) as server, pytest.raises(StudyError, match="`timeout` above 1 or fewer `requests`"):
        teacher_of(server, timeout=1, retries=0).complete(["a"], SHORT)


def test_a_server_that_is_not_there_is_named():
    url = f"http://127.0.0.1:{free_port()}/v1"
    with pytest.raises(StudyError, match=f"m at {url}: Connection error.*refused.*0 of 2 .*that base_url is right"):
        ServedTeacher("m", url, retries=0).complete(["a", "b"], SHORT)


@pytest.mark.parametrize("chat", [True, False])
def test_answers_of_an_unusual_kind_are_told_apart(chat):
    kinds = ["nothing to say", "filtered", "no usage", "odd usage", "half a character"]
    with BadServer(lambda prompt, _: prompt) as server:
        done = teacher_of(server, chat=chat).complete(kinds, SHORT)
    assert done == [Completion("", "stop", 3, 1), Completion("", "content_filter", 3, 5),
                    Completion(text_for("no usage"), "stop", None, None),
                    Completion(text_for("odd usage"), "stop", None, None), Completion("a ? b", "stop", 3, 5)]


def test_the_key_goes_to_the_server_and_nowhere_else(monkeypatch, caplog):
    monkeypatch.setenv("OPENAI_API_KEY", KEY + "\n")
    caplog.set_level(logging.DEBUG)
    with BadServer(["good", "401"]) as server:
        teacher = teacher_of(server, requests=1)
        with pytest.raises(StudyError, match="no such key: Bearer \\*\\*\\*") as failed:
            teacher.complete(["a", "b"], SHORT)
    assert server.seen[0]["key"] == f"Bearer {KEY}"
    told = "".join(traceback.format_exception(failed.value)) + caplog.text + repr(vars(teacher)) + repr(failed.value)
    assert KEY not in told and "Bearer ***" in told
    monkeypatch.setenv("OPENAI_API_KEY", KEY + "…")
    with pytest.raises(StudyError, match="OPENAI_API_KEY") as failed:
        teacher.complete(["a"], SHORT)
    assert KEY not in "".join(traceback.format_exception(failed.value))


@pytest.mark.parametrize("address", ["ftp://user:{}@proxy", "http://user:{}@proxy:port", "http://user:{}@127.0.0.1:9"])
def test_the_password_of_a_proxy_stands_in_no_error(address, monkeypatch, pauses):
    monkeypatch.setenv("HTTP_PROXY", address.format(KEY))
    with pytest.raises(StudyError, match="prox|Connection error") as failed:
        ServedTeacher("m", "http://192.0.2.1/v1", retries=0).complete(["a"], SHORT)
    assert KEY not in "".join(traceback.format_exception(failed.value))


def test_what_a_server_repeats_of_other_secrets_is_masked(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "short")
    monkeypatch.setenv("OTHER_TOKEN", KEY)
    says = f"{KEY} at http://user:pass-word@host/v1?api_key=another-one for {{'Authorization': 'Bearer short'}} \x1b[1m"
    response = SimpleNamespace(status_code=400, text=says, request=None, headers={})
    failed = {"a": openai.BadRequestError(says, response=response, body=None)}
    told = ServedTeacher("m", "http://host/v1")._message(failed, 0, 1, True, "")
    assert "*** at http://***@host/v1?api_key=*** for {'Authorization': 'Bearer ***'} ?[1m" in told


def test_an_error_of_the_caller_ends_it_and_nothing_more_is_asked():
    def keep(_):
        raise StudyError("the disk is full")

    with BadServer() as server, pytest.raises(StudyError, match="the disk is full"):
        teacher_of(server).complete(PROMPTS * 20, SHORT, keep=keep)
    assert len(server.seen) <= 12


def test_a_server_that_is_killed_costs_only_what_was_in_flight(tmp_path):
    port = free_port()
    server = run_server(port)
    prompts = [f"question {number}" for number in range(60)]
    teacher = ServedTeacher("m", f"http://127.0.0.1:{port}/v1", chat=False, requests=4, retries=0)

    def kill_it(done, _):
        if done >= 20:
            server.kill()

    with Store(tmp_path / "store.sqlite") as store:
        with pytest.raises(StudyError, match="of 60 completions are kept.*continues from there"):
            StoredTeacher(teacher, store).complete(prompts, SHORT, kill_it)
        server.wait()
        there = store.size()
        assert 20 <= there < 60
        server = run_server(port)
        again = StoredTeacher(teacher, store)
        done = again.complete(prompts, SHORT)
        server.kill()
        server.wait()
        assert [one.text for one in done] == [text_for(prompt) for prompt in prompts]
        assert (again.asked, again.kept, store.size()) == (60 - there, there, 60)


def run_server(port):
    process = subprocess.Popen([sys.executable, str(Path(__file__).with_name("bad_server.py")), str(port)],
                               stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    end = time.time() + 30
    while socket.socket().connect_ex(("127.0.0.1", port)) and time.time() < end:
        time.sleep(0.02)
    return process


def heed_ctrl_c():
    """Undo what a shell does to what it starts in the background, and what the tests then pass on: to ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def interrupt(process, times=3):
    """Send Ctrl-C until the process ends; return its errors. Python loses a signal that falls into a destructor."""
    for left in reversed(range(times)):
        process.send_signal(signal.SIGINT)
        try:
            return process.communicate(timeout=20)[1]
        except subprocess.TimeoutExpired:
            if not left:
                process.kill()
                raise


def test_ctrl_c_does_not_wait_for_a_slow_server(tmp_path):
    code = """if True:
        import sys
        from kdutils.teacher.completion import Decoding
        from kdutils.teacher.served import ServedTeacher
        from kdutils.teacher.store import Store
        from kdutils.teacher.stored import StoredTeacher

        teacher = ServedTeacher("m", sys.argv[1], chat=False, requests=2, timeout=600)
        with Store(sys.argv[2]) as store:
            StoredTeacher(teacher, store).complete(["a", "slow", "slow too", "b"], Decoding(9),
                                                   progress=lambda *now: print(*now, flush=True))
        """
    with BadServer(lambda prompt, _: "slow" if "slow" in prompt else "good") as server:
        process = subprocess.Popen([sys.executable, "-c", code, server.url, str(tmp_path / "store.sqlite")],
                                   cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                   preexec_fn=heed_ctrl_c)
        assert process.stdout.readline() == "1 4\n"
        err = interrupt(process)
    assert "KeyboardInterrupt" in err and process.returncode != 0
    with Store(tmp_path / "store.sqlite") as store:
        assert store.size() == 1
