"""A language model behind a server that runs already: what served.py takes for granted of such servers.

Run with KDUTILS_SERVER_URL (http://127.0.0.1:8080/v1) and, where the server has several models, KDUTILS_SERVER_MODEL;
a key goes into OPENAI_API_KEY. A model of any size will do: the texts need not be good.
"""

import json
import math
import os
import urllib.request

import pytest
from test_served import free_port

from kdutils.errors import StudyError
from kdutils.teacher.completion import Decoding
from kdutils.teacher.served import ServedTeacher
from kdutils.teacher.store import Store
from kdutils.teacher.stored import StoredTeacher

URL = os.environ.get("KDUTILS_SERVER_URL", "").rstrip("/")
pytestmark = pytest.mark.skipif(not URL, reason="needs a server: give its address in KDUTILS_SERVER_URL")
COUNTING = "One, two, three, four, five, six, seven, eight, nine, ten, eleven,"
PROMPTS = [f"Question: What is {number} and {number}?\nAnswer:" for number in range(2, 10)]
TOO_LONG = "Question: Which word is this? " + "word " * 300_000


@pytest.fixture(scope="module")
def name():
    """The model's name: that of the environment, else the first that the server names."""
    if os.environ.get("KDUTILS_SERVER_MODEL"):
        return os.environ["KDUTILS_SERVER_MODEL"]
    key = os.environ.get("OPENAI_API_KEY", "").strip() or "none"
    asked = urllib.request.Request(f"{URL}/models", headers={"Authorization": f"Bearer {key}"})
    with urllib.request.urlopen(asked, timeout=60) as reply:
        return json.load(reply)["data"][0]["id"]


@pytest.fixture(params=[False, True], ids=["completions", "chat"])
def teacher(name, request):
    return ServedTeacher(name, URL, request.param, requests=4, retries=2)


def test_a_text_is_cut_at_the_limit_and_its_tokens_are_counted(teacher):
    done, = teacher.complete([COUNTING], Decoding(5))
    assert done.text.strip() and done.finish_reason == "length"
    assert done.completion_tokens == 5 and done.prompt_tokens > 10


def test_a_stop_text_ends_the_text_and_is_cut_off(name):
    teacher = ServedTeacher(name, URL, chat=False, retries=2)
    whole = teacher.complete([COUNTING], Decoding(24))[0].text
    words = whole.split()
    assert len(words) > 4, whole
    done, = teacher.complete([COUNTING], Decoding(24, ("\x07", "####", "@@", "~~", words[3])))  # more than are sent
    assert done.finish_reason == "stop" and words[3] not in done.text and whole.startswith(done.text)
    sent, = teacher.complete([COUNTING], Decoding(24, (words[3],)))
    assert sent.finish_reason == "stop" and sent.text.strip() == done.text.strip()
    assert sent.completion_tokens < done.completion_tokens  # the server itself stops at what is sent


def test_a_greedy_text_is_the_same_again_and_drawn_ones_are_not(name):
    teacher = ServedTeacher(name, URL, chat=False, requests=1, retries=2)
    first, second = (teacher.complete([COUNTING], Decoding(16))[0] for _ in range(2))
    assert first.text == second.text
    drawn = {teacher.complete([PROMPTS[0]], Decoding(24, (), 1.5, 1.0, seed=1, sample=draw))[0].text
             for draw in range(4)}
    assert len(drawn) > 1


def test_the_first_tokens_of_a_chat_begin_with_the_one_that_it_writes(name):
    teacher = ServedTeacher(name, URL, chat=True, retries=2)
    shown = [json.loads(one.text) for one in teacher.first_tokens(PROMPTS)]
    if not any(shown):
        pytest.skip("the server shows no log p of first tokens")
    for tokens, done in zip(shown, teacher.complete(PROMPTS, Decoding(1)), strict=True):
        log_p = [value for _, value in tokens]
        assert log_p == sorted(log_p, reverse=True) and 0.1 < sum(map(math.exp, log_p)) <= 1.001 and len(tokens) > 4
        likely = [token for token, value in tokens if value > log_p[0] - 0.1]  # kernels round batches in their own way
        assert done.text.strip() in [token.strip() for token in likely]


def test_log_p_of_a_text_is_that_of_its_parts_and_highest_for_what_the_server_writes(name):
    teacher = ServedTeacher(name, URL, chat=False, retries=0)
    wrote = teacher.complete([COUNTING], Decoding(4))[0].text
    try:
        teacher.score([COUNTING], [wrote])
    except StudyError as error:
        pytest.skip(f"the server gives no log p of a text: {error}")
    whole, other, first = (sum(json.loads(teacher.score([COUNTING], [text])[0].text))
                           for text in (wrote, " a banana is yellow", " twelve"))
    rest, = teacher.score([f"{COUNTING} twelve"], [", thirteen"])
    both, = teacher.score([COUNTING], [" twelve, thirteen"])
    assert other < whole <= 0 and first <= 0
    assert sum(json.loads(both.text)) == pytest.approx(first + sum(json.loads(rest.text)), abs=0.3), "bf16 rounds"


def test_several_are_in_flight_and_what_is_in_the_store_is_not_asked_again(teacher, tmp_path):
    decoding = Decoding(12, ("\n",))
    with Store(tmp_path / "store.sqlite") as store:
        first = StoredTeacher(teacher, store)
        half = first.complete(PROMPTS[:4], decoding)
        second = StoredTeacher(teacher, store)
        done = second.complete(PROMPTS, decoding)
        assert (first.asked, second.asked, second.kept, store.size()) == (4, 4, 4, 8)
    assert done[:4] == half and len(done) == 8
    assert all(one.finish_reason in ("stop", "length") and "\n" not in one.text for one in done)
    assert all(one.prompt_tokens > 0 and 0 < one.completion_tokens <= 12 for one in done)


def test_a_prompt_longer_than_the_context_is_named_and_the_others_are_finished(teacher):
    kept = []
    with pytest.raises(StudyError, match="1 of the prompts: too long.*word word .*2 of 3 completions") as failed:
        teacher.complete([PROMPTS[0], TOO_LONG, PROMPTS[1]], Decoding(5), keep=kept.extend)
    assert failed.value.prompts == [TOO_LONG] and sorted(prompt for prompt, _ in kept) == PROMPTS[:2]
    assert len(str(failed.value)) < 1200 and "\n" not in str(failed.value)


def test_a_wrong_address_is_told_in_one_line(name):
    with pytest.raises(StudyError, match="0 of 1 completions.*base_url.*/v1") as elsewhere:
        ServedTeacher(name, URL.removesuffix("/v1") + "/elsewhere/v1", retries=0).complete(["a"], Decoding(5))
    with pytest.raises(StudyError, match="refused.*base_url") as closed:
        ServedTeacher(name, f"http://127.0.0.1:{free_port()}/v1", retries=0).complete(["a"], Decoding(5))
    assert "\n" not in f"{elsewhere.value}{closed.value}"


def test_text_completion_without_v1_never_passes_for_a_reply(name):
    """llama.cpp answers there in a form of its own; others have no such page."""
    with pytest.raises(StudyError, match="0 of 1 completions.*base_url.*/v1"):
        ServedTeacher(name, URL.removesuffix("/v1"), chat=False, retries=0).complete(["a"], Decoding(5))


def test_a_server_that_is_too_slow_is_told_with_the_remedy(name):
    with pytest.raises(StudyError, match="timed out.*`timeout`"):
        ServedTeacher(name, URL, timeout=0.005, retries=0).complete(PROMPTS[:1], Decoding(400))
