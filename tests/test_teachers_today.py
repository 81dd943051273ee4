"""Servers as they answer today: thinking, parts, refusals, preambles, words for an end; asked over real HTTP."""

import asyncio
import copy
import json
import threading
import time
from types import SimpleNamespace

import pytest
import yaml
from conftest import PROJECT

from kdutils.__main__ import main
from kdutils.data.mini_world import build_questions
from kdutils.errors import StudyError
from kdutils.experiments.cost import planned_questions
from kdutils.experiments.loading import load_experiment
from kdutils.experiments.retrying import retry_unusable
from kdutils.runs import read_csv
from kdutils.teacher.backends import load_teacher
from kdutils.teacher.cleaning import clean
from kdutils.teacher.completion import Completion, Decoding
from kdutils.teacher.explaining import explain, split_answer
from kdutils.teacher.settings import ExplainFewShot
from kdutils.teacher.store import Request, Store
from kdutils.teacher.stored import StoredTeacher
from kdutils.teacher.thinking import answer_start, opens_thinking, special_marks, split_thinking

ICE = "Ice is frozen water."
THOUGHTS = "Okay, the user asks.\n\nQuestion: is it so?"


@pytest.fixture(scope="module")
def server():
    """A server of fastapi: `answer` gets the body of a request and returns a reply, or (status, reply)."""
    import uvicorn
    from fastapi import FastAPI, Request
    from fastapi.responses import JSONResponse

    app, state = FastAPI(), SimpleNamespace(answer=None, seen=[])

    @app.post("/v1/{path:path}")
    async def reply(path: str, request: Request):
        body = await request.json()
        state.seen.append(body)
        answer = await asyncio.to_thread(state.answer, body)
        status, answer = answer if isinstance(answer, tuple) else (200, answer)
        return JSONResponse(answer, status)

    running = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=lambda: asyncio.run(running.serve()), daemon=True)
    thread.start()
    end = time.time() + 60
    while not running.started:
        assert thread.is_alive() and time.time() < end
        time.sleep(0.02)
    state.url = f"http://127.0.0.1:{running.servers[0].sockets[0].getsockname()[1]}/v1"
    yield state
    running.should_exit = True
    thread.join(10)


@pytest.fixture(autouse=True)
def no_settings(monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "store.sqlite") as one:
        yield one


def message(content, reason="stop", tokens=40, **fields):
    """Return a reply with one message."""
    return {"choices": [{"message": {"role": "assistant", "content": content, **fields}, "finish_reason": reason}],
            "usage": {"prompt_tokens": 3, "completion_tokens": tokens}}


def parameters_of(server, **more):
    return {**ExplainFewShot.defaults(), "backend": "openai", "base_url": server.url, "model": "m", "chat": True,
            "requests": 1, "max_new_tokens": 40, **more}


def explained(server, store, replies, questions=None, **more):
    """Return the table of explanations of as many questions as there are replies."""
    table = build_questions(12, 4, 4).head(questions or len(replies)).reset_index(drop=True)
    order = {text: number for number, text in enumerate(table["question"])}

    def answer(body):
        prompt = body["messages"][-1]["content"]
        asked = max((prompt.rfind(text), number) for text, number in order.items())[1]
        return replies[asked]

    server.answer, server.seen[:] = answer, []
    parameters = parameters_of(server, **more)
    done = explain(table, "few_shot", parameters, StoredTeacher(load_teacher(parameters), store))
    done["text"] = done["text"].astype(object).where(done["text"].notna(), None)  # as it is read from its file
    return done


CASES = {
    "thinking in the text": (message(f"<think>\n{THOUGHTS}\n</think>\n\n{ICE}"), ICE, "", THOUGHTS, "stop"),
    "an empty thinking": (message(f"<think>\n\n</think>\n\n{ICE}"), ICE, "", "", "stop"),
    "opened by the template": (message(f"{THOUGHTS}\n</think>\n\n{ICE}"), ICE, "", THOUGHTS, "stop"),
    "cut off while thinking": (message("<think>\nOkay", "length"), None, "cut off while thinking", "Okay", "length"),
    "a field of vLLM": (message(f"\n\n{ICE}", reasoning_content=THOUGHTS), ICE, "", THOUGHTS, "stop"),
    "a field of Ollama": (message(ICE, reasoning=THOUGHTS), ICE, "", THOUGHTS, "stop"),
    "all text in the thinking": (message("", reasoning=ICE), None, "only thinking", ICE, "stop"),
    "no content but thinking": (message(None, "length", reasoning=ICE), None, "cut off while thinking", ICE, "length"),
    "parts": (message([{"type": "text", "text": "Ice is "}, {"type": "output_text", "text": "frozen water."}]),
              ICE, "", "", "stop"),
    "parts of Mistral": (message([{"type": "thinking", "thinking": [{"type": "text", "text": THOUGHTS}]},
                                  {"type": "text", "text": ICE}]), ICE, "", THOUGHTS, "stop"),
    "plain parts": (message(["Ice is ", "frozen water."]), ICE, "", "", "stop"),
    "a refusal in its field": (message(None, refusal="I can't do that."), None, "refusal", "", "refusal"),
    "a refusal as a part": (message([{"type": "refusal", "refusal": "No."}]), None, "refusal", "", "refusal"),
    "a refusal in words": (message("I'm sorry, but I can't help with that."), None, "refusal", "", "stop"),
    "a refusal as an end": (message("No.", "refusal"), None, "refusal", "", "refusal"),
    "a filter": (message(ICE, "SAFETY"), None, "withheld by a content filter", "", "content_filter"),
    "a preamble": (message(f"Sure! Here's a brief explanation:\n\n{ICE}\n\nLet me know!"), ICE, "", "", "stop"),
    "a label": (message(f"**Explanation:** {ICE}"), ICE, "", "", "stop"),
    "white space first": (message(f"\n\n{ICE}\n\nQuestion: more"), ICE, "", "", "stop"),
    **{f"ended by {reason}": (message(ICE, reason), ICE, "", "", "stop")
       for reason in ("eos", "end_turn", "STOP", "stop_str", "FINISH_REASON_STOP", "complete")},
    **{f"ended by {reason}": (message(ICE, reason), ICE, "", "", "length")
       for reason in ("max_tokens", "MAX_TOKENS", "model_length")},
}


def test_every_reply_becomes_its_text_or_its_problem_and_the_thinking_is_kept(server, store):
    names = list(CASES)
    for start in range(0, len(names), 12):
        part = [CASES[name] for name in names[start:start + 12]]
        table = explained(server, store, [reply for reply, *_ in part], model=f"m{start}")
        thoughts = {row["prompt"]: row["thinking"] for row in store.rows() if row["teacher"]["model"] == f"m{start}"}
        assert len(server.seen) == len(part), "no reply is asked for twice"
        for name, case, row, kept in zip(names[start:], part, table.to_dict("records"), thoughts.values(),
                                         strict=False):
            assert (row["text"], row["problem"], kept, row["finish_reason"]) == case[1:], name
            assert ("thinking_removed" in row["changes"]) == bool(case[3]), name
            assert "<think>" not in row["raw"]


def test_what_is_removed_and_unusable_is_counted_and_said(server, store):
    replies = [message(f"Certainly. {ICE}"), message("", reasoning=ICE), message("I cannot assist with that."),
               message(ICE)]
    table = explained(server, store, replies)
    assert table.attrs["notes"]["unusable"] == {"only thinking": 1, "refusal": 1}
    assert table["changes"].explode().value_counts()["preamble_removed"] == 1


@pytest.mark.parametrize(("reply", "says"), [
    (message(None, "length", reasoning="Hm"), "cut off while thinking.*raise max_new_tokens"),
    (message("", reasoning="Hm"), "only thinking.*--retry-unusable"), (message("I can't help with that."), "refusal")])
def test_where_no_text_is_usable_the_reason_and_the_remedy_are_told(reply, says, server, store):
    with pytest.raises(StudyError, match=f"m: none of 2 texts is usable .{says}"):
        explained(server, store, [reply] * 2)
    assert store.size() == 2


def test_a_server_that_wants_another_name_for_the_limit_gets_it(server, store):
    def answer(body):
        if "max_tokens" in body:
            return 400, {"error": {"message": "Unsupported parameter: 'max_tokens' is not supported with this model. "
                                              "Use 'max_completion_tokens' instead."}}
        return message(ICE)

    parameters = parameters_of(server)
    server.answer, server.seen[:] = answer, []
    teacher = load_teacher(parameters)
    assert [done.text for done in teacher.complete(["a", "b"], Decoding(40))] == [ICE, ICE]
    assert [("max_tokens" in body, body.get("max_completion_tokens")) for body in server.seen] == [
        (True, None), (False, 40), (False, 40)]


def test_requests_at_the_same_time_all_get_the_other_name_for_the_limit(server, store):
    """The first refusal changes the name while the others are still on their way."""
    arrived = threading.Barrier(4)

    def answer(body):
        if "max_tokens" in body:
            arrived.wait(30)
            return 400, {"error": {"message": "Use 'max_completion_tokens' instead."}}
        return message(ICE)

    server.answer = answer
    teacher = load_teacher({**parameters_of(server), "requests": 4})
    assert [done.text for done in teacher.complete([str(number) for number in range(4)], Decoding(40))] == [ICE] * 4


@pytest.mark.parametrize(("status", "error"), [
    (400, {"code": "content_filter", "message": "The response was filtered due to the prompt triggering a policy."}),
    (400, {"code": "content_policy_violation", "message": "Your request was rejected."}),
    (403, {"innererror": {"code": "ResponsibleAIPolicyViolation"}, "message": "Forbidden."})])
def test_a_prompt_that_a_filter_refuses_is_a_text_less_and_no_end(status, error, server, store):
    def answer(body):
        return (status, {"error": error}) if "weapon" in str(body["messages"]) else message(ICE)

    server.answer = answer
    done = load_teacher(parameters_of(server)).complete(["a weapon", "b"], Decoding(40))
    assert [(one.text, one.finish_reason) for one in done] == [("", "content_filter"), (ICE, "stop")]


def test_a_text_that_ends_at_the_limit_that_was_sent_is_a_text(server, store):
    server.answer = lambda body: message(ICE, "length") | {"usage": {"prompt_tokens": 3, "completion_tokens": 32}}
    own = {**parameters_of(server), "request": {"max_tokens": 32}}
    assert load_teacher(own).complete(["a"], Decoding(64))[0].finish_reason == "length"
    with pytest.raises(StudyError, match="32 of 64"):
        load_teacher(parameters_of(server)).complete(["a"], Decoding(64))


def test_what_is_sent_is_what_the_parameters_say(server, tmp_path):
    template = tmp_path / "chat.jinja"
    template.write_text("{{ messages[0].content }}")
    server.answer, server.seen[:] = lambda body: message(ICE), []
    plain = parameters_of(server)
    for more in ({}, {"system": "Be brief."}, {"thinking": "off"}, {"chat_template": str(template)},
                 {"request": {"temperature": None, "max_completion_tokens": 500, "top_k": 1, "thinking": {"on": 1}}},
                 {"thinking": "on", "request": {"chat_template_kwargs": {"effort": "low", "thinking": False}}}):
        load_teacher({**plain, **more}).complete(["a"], Decoding(40, ("\n\n",)))
    bodies = server.seen
    assert bodies[0] == {"model": "m", "max_tokens": 40, "temperature": 0.0,
                         "messages": [{"role": "user", "content": "a"}]}
    assert bodies[1]["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "a"}]
    assert bodies[2] == {**bodies[0], "chat_template_kwargs": {"enable_thinking": False, "thinking": False}}
    assert bodies[3] == {**bodies[0], "chat_template": "{{ messages[0].content }}"}
    assert bodies[4] == {"model": "m", "messages": bodies[0]["messages"], "max_completion_tokens": 500, "top_k": 1,
                         "thinking": {"on": 1}}
    assert bodies[5]["chat_template_kwargs"] == {"enable_thinking": True, "thinking": False, "effort": "low"}


def test_every_one_of_these_parameters_is_part_of_the_identity_where_it_is_given(server, tmp_path):
    template = tmp_path / "chat.jinja"
    template.write_text("a")
    plain = parameters_of(server)
    identities = [load_teacher({**plain, **more}).identity for more in (
        {}, {"system": "x"}, {"thinking": "on"}, {"thinking": "off"}, {"request": {"top_k": 1}},
        {"chat_template": str(template)})]
    assert identities[0] == {"backend": "openai", "model": "m", "base_url": server.url, "chat": True}
    assert len({str(identity) for identity in identities}) == 6
    template.write_text("b")
    assert load_teacher({**plain, "chat_template": str(template)}).identity != identities[5]
    with pytest.raises(StudyError, match="chat_template: .*none.jinja cannot be read"):
        load_teacher({**plain, "chat_template": str(tmp_path / "none.jinja")})
    with pytest.raises(StudyError, match="holds a password or a key"):
        load_teacher({**plain, "request": {"user": "sk-thisIsNoRealKeyButLooksLikeOne"}})


@pytest.mark.parametrize(("given", "key", "says"), [
    ({"request": {"messages": []}}, "request.messages", "use `system`"),
    ({"request": {"stream": True}}, "request.stream", "sets this field itself"),
    ({"thinking": "no"}, "thinking", "known are auto, on, off"),
    ({"system": "x"}, "system", "set chat: true"), ({"thinking": "on"}, "thinking", "set chat: true"),
    ({"request": {"a": 1}}, "request", "backend: openai")])
def test_parameters_that_cannot_be_are_told(given, key, says):
    faults = ExplainFewShot.faults(given) or list(ExplainFewShot(**given).conflicts())
    assert faults[0][0] == key and says in faults[0][1]


def test_a_field_is_left_out_by_null_and_nothing_else_may_be_null():
    assert ExplainFewShot.faults({"request": {"temperature": None, "deep": {"a": None}}}) == []
    assert ExplainFewShot.faults({"system": None})


def test_questions_that_do_not_fit_are_left_out_on_request(server, store):
    too_long = 400, {"error": {"message": "This model's maximum context length is 2048 tokens."}}
    replies = [message(ICE), too_long, message(ICE), too_long]
    with pytest.raises(StudyError, match="questions .*2 of the prompts: too long.*leave_out_too_long: true"):
        explained(server, store, replies)
    table = explained(server, store, replies, leave_out_too_long=True)
    assert table["text"].tolist() == [ICE, None, ICE, None] and len(server.seen) == 2
    assert table["problem"].tolist() == ["", "too long for the context"] * 2 and store.size() == 2
    assert explained(server, store, [message(ICE)] * 4)["text"].tolist() == [ICE] * 4, "they can be asked later"


def test_a_local_model_leaves_out_what_does_not_fit(store):
    table = build_questions(4, 4, 4).head(3).reset_index(drop=True)
    table.loc[1, "question"] = "Why is a cow " + "very " * 3000 + "big?"
    given = {**ExplainFewShot.defaults(), "max_new_tokens": 8}
    teacher = StoredTeacher(load_teacher(given), store)
    with pytest.raises(StudyError, match=f"question '{table['id'][1]}': .*leave_out_too_long"):
        explain(table, "few_shot", given, teacher)
    done = explain(table, "few_shot", {**given, "leave_out_too_long": True}, teacher)
    assert done["problem"].tolist()[1] == "too long for the context" and done["text"].notna().tolist()[0]


# Asking again

@pytest.fixture
def experiment(server, tmp_path, own_outputs, monkeypatch):
    """An experiment whose teacher is the server, with a store of its own."""
    path = tmp_path / "served.yaml"
    settings = {
        "about": "a test", "needs": "a server", "datasets": {"mini": {"limits": {"train": 6, "dev": 4, "test": 4}}},
        "teachers": {"it": {"backend": "openai", "base_url": server.url, "model": "m", "chat": True, "requests": 1},
                     "local": {"model": "kdutils/mini/teacher"}},
        "promptings": {"few_shot": {}}, "methods": {"multitask": {}}, "students": {"t5": {
            "model": "kdutils/mini/student"}}, "seeds": [0]}
    path.write_text(yaml.safe_dump(settings))
    monkeypatch.setenv("KDUTILS_STORE", str(tmp_path / "store.sqlite"))
    return path


def test_unusable_completions_are_asked_for_again_and_no_others(server, experiment, own_outputs, capsys):
    loaded = load_experiment(experiment)
    job = next(job for job in loaded.jobs if job.kind == "explanations" and job.labels["teacher"] == "it")
    parameters = {**ExplainFewShot.defaults(), **job.parameters}
    questions = planned_questions(loaded, job)
    broken = {questions["question"][0]: message("", reasoning=ICE), questions["question"][3]: message(
        f"The answer is {questions['answer'][3]}."), questions["question"][5]: message("I can't assist with that.")}
    server.answer = lambda body: next((reply for text, reply in broken.items() if text in body["messages"][-1][
        "content"].split("\n\n")[-1]), message(ICE))
    first = explain(questions, "few_shot", parameters)
    assert sorted(first["problem"]) == [""] * 11 + ["only the answer", "only thinking", "refusal"]
    metrics = own_outputs / "served" / job.folder / "metrics.json"
    metrics.parent.mkdir(parents=True)
    metrics.write_text("{}")

    lines = list(retry_unusable(loaded, dry_run=True))
    assert lines == [f"{job.folder}: 3 unusable completions to ask for again (only the answer 1, only thinking 1, "
                     "refusal 1); what builds on it waits for them"] and metrics.exists()
    assert explain(questions, "few_shot", parameters).attrs["notes"]["completions from the store"] == 14
    assert list(retry_unusable(loaded)) == lines and not metrics.exists()
    broken.clear()
    server.seen.clear()
    again = explain(questions, "few_shot", parameters)
    assert len(server.seen) == 3 and (again["text"] == ICE).all()
    assert list(retry_unusable(loaded)) == [f"{job.folder}: no unusable completion"]


def test_unusable_completions_of_a_teacher_that_answers_itself_are_found_too(server, experiment, own_outputs):
    """What is stored begins with the answer, what cannot be used is the rest."""
    settings = yaml.safe_load(experiment.read_text())
    settings["promptings"] = {"few_shot": {"given_answer": False}}
    experiment.write_text(yaml.safe_dump(settings))
    loaded = load_experiment(experiment)
    job = next(job for job in loaded.jobs if job.kind == "explanations" and job.labels["teacher"] == "it")
    parameters, questions = {**ExplainFewShot.defaults(), **job.parameters}, planned_questions(loaded, job)
    answers = dict(zip(questions["question"], questions["answer"], strict=True))
    short = {questions["question"][1]: "", questions["question"][4]: " The answer is {}."}

    def reply(body):
        asked = body["messages"][-1]["content"].split("\n\n")[-1]
        name = next(text for text in answers if text in asked)
        return message(f" {answers[name]}." + short.get(name, f" {ICE}").format(answers[name]))

    server.answer = reply
    first = explain(questions, "few_shot", parameters)
    assert first["problem"].ne("").sum() == 2
    line, = [line for line in retry_unusable(loaded) if "/it/" in line]
    assert "2 unusable completions to ask for again" in line
    short.clear()
    server.seen.clear()
    assert explain(questions, "few_shot", parameters)["problem"].eq("").all() and len(server.seen) == 2


def test_the_experiment_in_the_readme_is_complete_and_right(tmp_path):
    blocks = (PROJECT / "README.md").read_text().split("```yaml\n")[1:]
    text, = [block.split("```")[0] for block in blocks if "thinking:" in block]
    (tmp_path / "served.yaml").write_text(text)
    job = next(job for job in load_experiment(tmp_path / "served.yaml").jobs if job.kind == "explanations")
    teacher = load_teacher({**ExplainFewShot.defaults(), **job.parameters})
    assert teacher.identity["thinking"] == "off" and teacher.identity["request"] == {"top_k": 20}


def test_a_switch_leaves_out_what_is_too_long_in_every_prompting_that_asks(experiment):
    jobs = {job.folder: job.parameters.get("leave_out_too_long") for job in load_experiment(
        experiment, leave_out_too_long=True).jobs}
    assert [folder for folder, value in jobs.items() if value] == [
        f"explanations/mini/{name}/few_shot" for name in ("it", "local")]


# What is in the store

def test_the_store_is_listed_shown_exported_and_forgotten(server, store, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("KDUTILS_STORE", str(store.path))
    explained(server, store, [message(f"<think>{THOUGHTS}</think>{ICE}"), message("I can't assist with that.\x1b[1m")])
    store.put([(Request({"backend": "hf", "model": "other"}, "Why Ü?", Decoding(9)), Completion("Ü.", "stop", 1, 2))])

    assert main(["store", "list"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert len(listed) == 3 and "2 completions, 6 tokens read, 80 written" in listed[1] and server.url in listed[1]
    assert listed[0].startswith("      1 completions") and listed[2] == f"3 completions in {store.path}"
    assert main(["store", "list", "--text", "ü"]) == 0 and "1 completions in" in capsys.readouterr().out
    assert main(["store", "list", "--unusable", "--teacher", "OPENAI"]) == 0
    line, count = capsys.readouterr().out.splitlines()
    assert "[refusal] I can't assist" in line and "\x1b" not in line and count.startswith("1 completions")

    assert main(["store", "show", line[:12]]) == 0
    shown = capsys.readouterr().out
    assert "ended: stop; not usable: refusal" in shown and "--- prompt\n" in shown and "\x1b" not in shown
    assert main(["store", "show", "--text", ICE]) == 0
    assert f"--- thinking\n{THOUGHTS}\n--- completion\n{ICE}" in capsys.readouterr().out

    assert main(["store", "export", str(tmp_path / "all.jsonl")]) == 0
    rows = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().splitlines()]
    assert [(row["completion"], row["problem"], row["thinking"]) for row in rows] == [
        (ICE, "", THOUGHTS), ("I can't assist with that.\x1b[1m", "refusal", ""), ("Ü.", "", "")]
    assert main(["store", "export", "--unusable", str(tmp_path / "some.csv")]) == 0
    assert read_csv(tmp_path / "some.csv")["problem"].tolist() == ["refusal"]

    assert main(["store", "forget", "--unusable"]) == 0
    assert "1 completions would be forgotten" in capsys.readouterr().out and store.size() == 3
    assert store.size() == 3 and main(["store", "forget", "--unusable", "--yes"]) == 0 and store.size() == 2
    assert main(["store", "forget", rows[0]["key"][:8], "--yes"]) == 0 and store.size() == 1


@pytest.mark.parametrize(("words", "says"), [
    (["show"], "say which completions"), (["forget", "--yes"], "say which completions"),
    (["show", "abc"], "at least 6 characters"), (["show", "0123456789ab"], "no completion has this key"),
    (["export", "x.txt"], "ends in .jsonl or .csv")])
def test_a_wrong_request_to_the_store_is_one_line_and_changes_nothing(words, says, store, monkeypatch, capsys):
    store.put([(Request({}, "a", Decoding(9)), Completion("b", "stop", 1, 2))])
    monkeypatch.setenv("KDUTILS_STORE", str(store.path))
    assert main(["store", *words]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1 and store.size() == 1
    monkeypatch.setenv("KDUTILS_STORE", str(store.path) + ".none")
    assert main(["store", "list"]) == 2 and "no completions are stored yet" in capsys.readouterr().err


# A model of transformers in a chat

@pytest.fixture
def chatting(tmp_path):
    """A function that returns the mini teacher with a chat template, and the template as a file."""
    path = tmp_path / "chat.jinja"

    def make(template, **more):
        path.write_text(template)
        return load_teacher({**ExplainFewShot.defaults(), "model": str(PROJECT / "kdutils/mini/teacher"), "chat": True,
                             "chat_template": str(path), **more})
    return make


def test_a_template_gets_the_system_message_and_what_is_said_of_thinking(chatting):
    template = ("{% for one in messages %}{{ one.role }}: {{ one.content }}\n{% endfor %}"
                "{% if enable_thinking is defined %}{{ enable_thinking }}{% endif %}")
    assert chatting(template).in_chat("a") == "user: a\n"
    assert chatting(template, system="s", thinking="off").in_chat("a") == "system: s\nuser: a\nFalse"
    assert chatting(template, thinking="on").in_chat("a") == "user: a\nTrue"
    assert chatting(template).identity != chatting(template, system="s").identity
    with pytest.raises(StudyError, match="chat template cannot take this prompt .no system"):
        chatting("{{ raise_exception('no system') }}").in_chat("a")


def test_a_template_that_asks_for_the_date_gives_the_same_prompt_every_day(chatting):
    dated = chatting("{{ strftime_now('%d %b %Y') }} {{ messages[0].content }}")
    assert dated.in_chat("a") == "01 Jan 2025 a" and dated.identity["date"] == "2025-01-01"
    assert "date" not in chatting("{{ messages[0].content }}").identity


def test_marks_of_thinking_that_are_special_tokens_are_read(chatting):
    from kdutils.teacher.prefix_decoding import Draft, Endings

    tokenizer = copy.deepcopy(chatting("{{ messages[0].content }}").tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|channel|>", "<|message|>", "<|end|>", "[THINK]",
                                                               "[/THINK]"]})
    marks = special_marks(tokenizer)
    assert set(marks.values()) == {"<|channel|>", "<|message|>", "[THINK]", "[/THINK]"}
    for said in ("<|channel|>analysis<|message|>a cow.<|end|><|channel|>final<|message|>Ice is water.<|end|>",
                 "[THINK]a cow.[/THINK]Ice is water.<|end|>"):
        ids = tokenizer(said, add_special_tokens=False)["input_ids"]
        draft = Draft(Endings(tokenizer, frozenset(), (), len(ids), answer_start, marks))
        for token in ids:
            draft.add(token)
        thinking, answer = split_thinking(draft.text)
        assert "cow" in thinking and "cow" not in answer and answer.split() == "Ice is water.".split(), draft.text
        assert "<|end|>" not in draft.text


def test_a_stop_text_inside_the_thinking_of_a_local_model_ends_nothing(chatting, monkeypatch):
    from kdutils.teacher import prefix_decoding

    written = "hm\n\nso </think>\n\nIce is water.\n\nQuestion: more"
    teacher = chatting("{{ messages[0].content }} <think>\n")
    assert teacher.shares_prefix  # tried on the model before the model is replaced

    def write(model, prefix, contexts, drafts, choose):
        for draft in drafts:
            ids = teacher.tokenizer(written, add_special_tokens=False)["input_ids"]
            for token in ids:
                draft.add(token)

    monkeypatch.setattr(prefix_decoding, "write_after_prefix", write)
    monkeypatch.setattr(prefix_decoding, "write_plainly", lambda model, contexts, drafts, choose, pad: write(
        model, None, contexts, drafts, choose))
    done, = teacher.complete(["What is ice?"], Decoding(200, ("\n\n", "Question:")))
    assert done.finish_reason == "stop" and done.text.strip() == "Ice is water." and "hm" in done.thinking
    cut, = teacher.complete(["What is ice?"], Decoding(4, ("\n\n",)))
    assert cut.finish_reason == "length" and cut.text == "" and cut.thinking.startswith("hm")


# The rules

@pytest.mark.parametrize(("text", "thinking", "answer"), [
    ("a < b <b>", "", "a < b <b>"), ("[THINK]a[/THINK]b", "a", "b"), ("◁think▷a◁/think▷b", "a", "b"),
    ("<think>a</think>b<think>c</think>d", "a\nc", "b\nd"), ("<thinking>a", "a", ""), ("a</think>", "a", ""),
    ("<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>b",
     "a<|end|><|start|>assistant", "b")])
def test_thinking_is_told_from_the_answer(text, thinking, answer):
    assert split_thinking(text) == (thinking, answer)


def test_where_the_answer_begins():
    assert answer_start("<think>\n\n") is None and answer_start("a\n\n", opened=True) is None
    assert "<think>a</think>\n\nSure! Ice"[answer_start("<think>a</think>\n\nSure! Ice"):] == "Ice"
    assert opens_thinking("user: a\n<think>\n") and not opens_thinking("<think>\n\n</think>\n\n")


@pytest.mark.parametrize("text", [
    "Of course, ice is cold.", "Here is a place where fish live: the sea.", "I can't explain why, but it is cold.",
    "Surely ice is cold.", "I'm sorry to say that ice melts.", "I can't help but think of ice.",
    "OK is a state of the USA.", "This is the reason why ice floats: it is light."])
def test_what_people_write_is_neither_a_preamble_nor_a_refusal(text):
    assert clean(text).text == text and clean(text).changes == []


@pytest.mark.parametrize("text", [
    "I'm sorry, but I can't help with that.", "I’m sorry, I cannot argue for a wrong answer.",
    "I cannot provide an explanation for this.", "As an AI language model, I cannot answer.",
    "Sure! I'm unable to assist with that.", "很抱歉，我无法回答这个问题。"])
def test_a_refusal_is_a_problem(text):
    assert (clean(text).text, clean(text).problem) == (None, "refusal")


def test_a_preamble_before_the_teachers_own_answer_is_not_the_answer():
    answers, rest = split_answer([Completion("Sure! The answer is ice. It is cold.", "stop", 1, 2, "Hm")],
                                 [["ice", "fire"]])
    assert answers == ["ice"] and rest[0].text.strip() == "It is cold." and rest[0].thinking == "Hm"
