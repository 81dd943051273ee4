"""Soft labels: the probabilities of the choices by hand, their loss, and where they go in an experiment."""

import json
import math
import runpy
import shutil
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from kdutils.comparison import answer, contrasts, runs_table
from kdutils.comparison.runs_table import UNEXPLAINED
from kdutils.data.mini_world import build_questions
from kdutils.data.questions import format_choices
from kdutils.data.tables import read_table, write_table
from kdutils.deployment.card import model_card
from kdutils.errors import StudyError, StudyErrors
from kdutils.evaluation.truth_proxies import teacher_proxies
from kdutils.experiments import schema
from kdutils.experiments.cost import planned_questions
from kdutils.experiments.grid import make_jobs
from kdutils.experiments.loading import load_experiment
from kdutils.experiments.planned import planned_contrasts
from kdutils.experiments.retrying import retry_unusable
from kdutils.experiments.schema import check_settings
from kdutils.experiments.yaml_file import FOLDER
from kdutils.runs import PROJECT, read_json, write_json
from kdutils.student.chunks import cut_rows, pad_chunk
from kdutils.student.collating import EpochRows, RowFormat, shared, tokenize_rows
from kdutils.student.loss import add_places
from kdutils.student.methods import (
    METHODS,
    Explained,
    Method,
    apply_control,
    explained_of,
    predict,
    predict_softly,
    rows_of,
    task_weights,
)
from kdutils.student.models import load_student
from kdutils.student.rows import counted_tokens
from kdutils.student.training import Recipe, train_student
from kdutils.teacher.choices import PROMPTINGS
from kdutils.teacher.completion import Completion
from kdutils.teacher.explaining import explain, plan, soft_labels, write_explanations
from kdutils.teacher.hf import HfTeacher
from kdutils.teacher.prompting import each_choice, few_shot_prompts
from kdutils.teacher.quality import examples_of, explanation_metrics, raw_table, text_table
from kdutils.teacher.served import ServedTeacher
from kdutils.teacher.settings import ExplainSoftLabels
from kdutils.teacher.soft_labels import choice_probabilities, describe_soft_labels, shares_of_first_tokens
from kdutils.teacher.store import Store
from kdutils.teacher.stored import StoredTeacher
from tests.test_answer import HELP, said_of
from tests.test_comparing import World
from tests.test_loss import SHAPES, assert_as_by_hand, exact

TEACHER, STUDENT = "kdutils/mini/teacher", "kdutils/mini/student"
EXAMPLE = PROJECT / "kdutils" / "mini" / "example" / "students"
ITEM = {"id": "1", "split": "train", "question": "What is wet?", "choices": ["the sun", "water", "sand"],
        "answer": "water"}
SOFT = {"the sun": 0.25, "water": 0.625, "sand": 0.125}
MINI = yaml.safe_load((FOLDER / "soft-mini.yaml").read_text())


# The probabilities of the choices

def test_probabilities_are_a_softmax_at_a_temperature():
    log_p = [math.log(0.02), math.log(0.08), math.log(0.1)]
    assert choice_probabilities(log_p) == pytest.approx([0.1, 0.4, 0.5])
    roots = [math.sqrt(0.02), math.sqrt(0.08), math.sqrt(0.1)]
    assert choice_probabilities(log_p, 2) == pytest.approx([root / sum(roots) for root in roots])
    assert choice_probabilities(log_p, 1e6) == pytest.approx([1 / 3] * 3, abs=1e-5)
    assert choice_probabilities(log_p, 1e-3) == [0, pytest.approx(0), pytest.approx(1)]
    assert choice_probabilities([-2000.0, -2001.0]) == pytest.approx([math.e / (1 + math.e), 1 / (1 + math.e)])
    assert choice_probabilities([-3.0, -math.inf]) == [1, 0]
    for bad in ([math.nan, -1], [-math.inf, -math.inf], []):
        with pytest.raises(StudyError, match="the choices have no probabilities"):
            choice_probabilities(bad)


def log_p_by_hand(teacher, prompt, text):
    """Return Σ log p of a text behind a prompt, from one pass through the model without a cache."""
    model, encode = teacher.model, teacher.tokenizer
    if teacher.config.is_encoder_decoder:
        ids = encode(text.strip(), add_special_tokens=False)["input_ids"]
        decoder, first = torch.tensor([[0, *ids[:-1]]]), 0
        logits = model(**encode(prompt, return_tensors="pt"), decoder_input_ids=decoder).logits[0]
    else:
        before, whole = teacher.in_chat(prompt) if teacher.chat else prompt, text.lstrip() if teacher.chat else text
        ids, first = encode(before + whole)["input_ids"], len(encode(before)["input_ids"])
        logits = model(torch.tensor([ids])).logits[0, first - 1:]
    wanted = ids[first:]
    assert len(wanted) > 1 and encode.decode(wanted).strip() == text.strip()
    return logits[:len(wanted)].log_softmax(-1)[range(len(wanted)), wanted].sum().item()


@pytest.mark.parametrize("kind", ["shared prefix", "whole prompts", "chat", "encoder-decoder"])
def test_scores_equal_one_pass_through_the_model(kind, tmp_path):
    (tmp_path / "chat.jinja").write_text("{{ messages[0]['content'] }}\nAnswer:\n")
    teacher = HfTeacher(STUDENT if kind == "encoder-decoder" else TEACHER, token_budget=900, chat=kind == "chat",
                        chat_template=str(tmp_path / "chat.jinja") if kind == "chat" else "")
    if kind == "whole prompts":
        teacher.shares_prefix = False
    elif kind == "shared prefix":
        assert teacher.shares_prefix
    prompts = ["Question: one\nThe answer is", "Question: and a longer one\nThe answer is", "The answer is"]
    texts, kept = [" apple.", " a drill and a violin.", " soup."], []
    done = teacher.score(prompts, texts, keep=kept.extend)
    with torch.no_grad():
        expected = [log_p_by_hand(teacher, *pair) for pair in zip(prompts, texts, strict=True)]
    assert [sum(json.loads(one.text)) for one in done] == pytest.approx(expected, abs=1e-3)
    assert dict(kept) == dict(zip(prompts, done, strict=True))


class Uniform:
    """A teacher for which each character of a text has log p −1."""

    identity = {"model": "uniform"}
    asked = ()

    def score(self, prompts, continuations, progress=None, keep=None):
        from kdutils.teacher.completion import Completion

        self.asked = [*self.asked, *continuations]
        done = [Completion(json.dumps([-1.0] * len(text)), "stop", 3, 0) for text in continuations]
        keep(list(zip(prompts, done, strict=True)))
        return done


def test_what_is_scored_ends_with_a_full_stop_and_is_stored_whatever_the_temperature(tmp_path):
    table = pd.DataFrame([{**ITEM, "choices": ["a", "a b"], "answer": "a b"}])
    given = {**ExplainSoftLabels.defaults(), "dataset": "mini", "prompts": ""}
    with Store(tmp_path / "store.sqlite") as store:
        teacher = StoredTeacher(Uniform(), store)
        found = soft_labels(teacher, table, given)
        assert teacher.teacher.asked == [" a.", " a b."] and (teacher.asked, teacher.kept) == (2, 0)
        warm = soft_labels(teacher, table, {**given, "choice_temperature": 2.0})
        assert (teacher.asked, teacher.kept) == (2, 2)
    assert found["probability"].tolist() == pytest.approx([1 / (1 + math.exp(-2)), 1 / (1 + math.exp(2))])
    assert warm["probability"].tolist() == pytest.approx([1 / (1 + math.exp(-1)), 1 / (1 + math.exp(1))])
    asked = few_shot_prompts(each_choice(table), "mini", 0, given_answer=False)
    assert asked[0] == asked[1] and asked[0].endswith("The answer is") and "a b." not in asked[0][-40:]


def test_soft_labels_of_the_mini_teacher(tmp_path, monkeypatch):
    monkeypatch.setenv("KDUTILS_STORE", str(tmp_path / "store.sqlite"))
    table, given = build_questions(4, 2, 2), {**ExplainSoftLabels.defaults(), "splits": ["train", "dev", "test"]}
    assert (plan(table, "soft_labels", given).to_ask, plan(table, "soft_labels", given).new_tokens) == (40, 40)
    found = explain(table, "soft_labels", given)
    assert plan(table, "soft_labels", given).to_ask == 0
    stored = write_explanations(found, table, tmp_path / "explanations.parquet")
    assert stored.groupby("id")["probability"].sum().tolist() == pytest.approx([1] * 8)
    assert (stored["answer"] == stored["text"]).all() and set(stored["stage"]) == {"choice"}
    assert stored["answer"].tolist() == [choice for choices in table["choices"] for choice in choices]
    described = describe_soft_labels(stored, table).set_index("split")
    gold = dict(zip(table["id"], table["answer"], strict=True))
    train = stored[stored["id"].isin(table.loc[table["split"] == "train", "id"])]
    right = train[train["answer"] == train["id"].map(gold)]["probability"]
    spread = [-sum(p * math.log(p) for p in part if p) / math.log(5) for _, part in train.groupby("id")["probability"]]
    assert described.at["train", "probability of the answer"] == pytest.approx(right.mean())
    assert described.at["train", "entropy"] == pytest.approx(np.mean(spread))
    # The tables on a teacher's texts have their number alone, and no example.
    assert len(examples_of(stored, table, 2, 0)) == len(teacher_proxies(stored, table)) == 0
    raw, cleaned = raw_table(stored).iloc[0], text_table(stored, table, "mini").iloc[0]
    assert (raw["texts"], raw["empty"], cleaned["unusable"]) == (40, 0, 0) and cleaned["prompt tokens"] > 1000
    assert cleaned[["answer named", "answer followed", "words"]].isna().all() and pd.isna(raw["truncated"])
    assert explanation_metrics(stored, table, given)["exactly_right"] == {}


def test_a_question_without_choices_or_with_a_prompt_that_is_too_long_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("KDUTILS_STORE", str(tmp_path / "store.sqlite"))
    table, given = build_questions(3, 2, 2).head(3), {**ExplainSoftLabels.defaults()}
    with pytest.raises(StudyError, match="question 'x' has no choices, so there is nothing to share"):
        explain(pd.DataFrame([{**table.iloc[0], "id": "x", "choices": []}]), "soft_labels", given)
    table["question"] = ["long " * 2000, *table["question"].tolist()[1:]]
    with pytest.raises(StudyError, match=f"question {table['id'][0]!r}: .*more than the context"):
        explain(table, "soft_labels", given)
    left = explain(table, "soft_labels", {**given, "leave_out_too_long": True})
    assert left["problem"].tolist() == ["too long for the context"] * 5 + [""] * 10
    assert left["probability"].isna().tolist() == left["text"].isna().tolist() == [True] * 5 + [False] * 10
    read = explained_of(left, table)
    assert read[table["id"][0]] == Explained(soft=None) and len(read[table["id"][1]].soft) == 5
    # It is learnt as by label_only, also where the others mix both.
    item = table.to_dict("records")[0]
    source, target = predict(item, Explained())[0]
    for hard in (0.0, 0.5):
        assert [row for row in predict_softly(item, read[item["id"]], hard) if row[3]] == [(source, target, "", 1.0)]
    with pytest.raises(StudyError, match="no soft labels"):
        predict_softly(item, Explained(), 0.0)


# A server

class Echo(ThreadingHTTPServer):
    """Repeats a text with log p −0.5 of each of its tokens, the words; or behaves as `way` says."""

    daemon_threads = True

    def __init__(self, way=""):
        super().__init__(("127.0.0.1", 0), _Reply)
        self.way, self.seen = way, []

    def __enter__(self):
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return self, ServedTeacher("m", f"http://127.0.0.1:{self.server_address[1]}/v1", chat=False, retries=0)

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()


class _Reply(BaseHTTPRequestHandler):
    def do_POST(self):
        server, body = self.server, json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server.seen.append(body)
        words = body["prompt"].replace(".", " .").split(" ")
        tokens = ["<s>", *(words if server.way == "no spaces" else [f" {word}" for word in words]), " then"]
        shown = {"tokens": tokens, "token_logprobs": [None, *[-0.5] * (len(tokens) - 2), -9.0]}
        if server.way == "other tokens":
            shown["tokens"] = ["?"] * len(tokens)
        choice = {"text": "", "finish_reason": "length", **({} if server.way == "plain" else {"logprobs": shown})}
        refused = server.way == "no echo"
        reply = {"error": {"message": "Only no echo is supported"}} if refused else \
            {"choices": [choice], "usage": {"prompt_tokens": len(tokens) - 1}}
        self.send_response(400 if refused else 200)
        self.end_headers()
        self.wfile.write(json.dumps(reply).encode())

    def log_message(self, *_):
        """A test needs no log."""


@pytest.mark.parametrize("way", ["", "no spaces"])
def test_a_server_that_repeats_a_text_with_log_p_is_a_teacher(way):
    with Echo(way) as (server, teacher):
        done = teacher.score(["Q one: is", "Q two: is"], [" red wine.", " red."])
    assert [json.loads(one.text) for one in done] == [[-0.5] * 3, [-0.5] * 2]
    assert [one.prompt_tokens for one in done] == [7, 6]
    assert {(one["echo"], one["logprobs"], one["max_tokens"]) for one in server.seen} == {(True, 1, 1)}


@pytest.mark.parametrize(("way", "said"), [
    ("plain", "returns log p of a given text, and its reply has none; take such a server"),
    ("no echo", "Only no echo is supported.*take such a server .vLLM. or the backend hf"),
    ("other tokens", "the tokens of its reply do not spell ' red.'")])
def test_a_server_that_does_not_is_refused_by_name(way, said):
    with Echo(way) as (_, teacher), pytest.raises(StudyError, match=f"m at http://127.0.0.1.*{said}"):
        teacher.score(["Q is"], [" red."])
    with pytest.raises(StudyError, match="returns log p of a given text; set chat to false"):
        ServedTeacher("m", "http://127.0.0.1:9/v1").score(["Q is"], [" red."])


class Letters(Echo):
    """A chat: the first token of every answer has the probabilities `first`."""

    def __init__(self, first):
        super().__init__()
        self.first, self.top, self.ends, self.RequestHandlerClass = first, None, "length", _Letter


class _Letter(_Reply):
    def do_POST(self):
        self.server.seen.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        top = [{"token": token, "logprob": math.log(share)} for token, share in self.server.first.items()]
        top = top if self.server.top is None else self.server.top
        reply = {"choices": [{"message": {"content": "b"}, "finish_reason": self.server.ends,
                              "logprobs": {"content": [{"top_logprobs": top}]}}],
                 "usage": {"prompt_tokens": 7, "completion_tokens": 1}}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(reply).encode())


def test_a_chat_on_a_server_is_asked_for_the_letter_of_the_choice(tmp_path, monkeypatch):
    """By hand: 0.5 + 0.1 for (b) and 0.15 for (a) make 0.8 and 0.2; a letter that is not shown has 0."""
    monkeypatch.setenv("KDUTILS_STORE", str(tmp_path / "store.sqlite"))
    table = build_questions(2, 0, 0).head(2)
    given = {**ExplainSoftLabels.defaults(), "backend": "openai", "model": "m", "chat": True, "thinking": "off"}
    with Letters({"b": 0.5, " B": 0.1, "(a": 0.15, "The": 0.25}) as (server, teacher):
        given["base_url"] = teacher.base_url
        assert "; 2 to ask for, " in str(plan(table, "soft_labels", given))
        found = explain(table, "soft_labels", given)
        again = explain(table, "soft_labels", {**given, "choice_temperature": 2.0})
        assert len(server.seen) == 2, "the second time from the store"
    item = table.iloc[0]
    assert server.seen[0]["messages"][-1]["content"] in [
        f"Question: {item['question']}\nChoices: {format_choices(item['choices'])}\nAnswer with the letter of the "
        "right choice alone." for item in table.to_dict("records")] and server.seen[0]["top_logprobs"] == 20
    assert found["probability"].tolist() == pytest.approx([0.2, 0.8, 0, 0, 0] * 2)
    assert again["probability"].tolist() == pytest.approx([1 / 3, 2 / 3, 0, 0, 0] * 2), "√0.2 : √0.8"
    assert found.loc[found["id"] == item["id"], "answer"].tolist() == list(item["choices"])
    write_explanations(found, table, tmp_path / "e.parquet")
    assert found.attrs["notes"]["prompt tokens"] == 14 and found.attrs["notes"]["written tokens"] == 2, "two replies"
    with Letters({"<think>": 0.999, "b": 0.001}) as (_, teacher), pytest.raises(
            StudyError, match="none of 10 texts is usable .*less than half.*set thinking: off"):
        explain(table, "soft_labels", {**given, "base_url": teacher.base_url})
    with Letters({"The": 0.6, "b": 0.4}) as (_, teacher), pytest.raises(StudyError, match="less than half"):
        explain(table, "soft_labels", {**given, "base_url": teacher.base_url})  # it mostly begins a sentence


@pytest.mark.parametrize(("top", "says", "asked"), [
    ([], "no log p of the first tokens .* take a server that does", 1),
    ([{"token": None, "logprob": -0.1}], "first tokens that are no texts", 2),
    ([{"token": 5, "logprob": -0.1}], "first tokens that are no texts", 2),
    ([{"token": "b", "logprob": 800.0}], "whose log p is above 0", 2),
    ([{"token": "b", "logprob": float("nan")}], "whose log p is above 0", 2),
    ([{"token": "b", "logprob": "low"}], "log p that is no number", 2)])
def test_replies_without_usable_log_p_are_told_and_not_stored(tmp_path, top, says, asked):
    with Letters({"b": 1.0}) as (server, teacher), Store(tmp_path / "store.sqlite") as store:
        server.top = top
        stored = StoredTeacher(ServedTeacher("m", teacher.base_url, requests=1, retries=0), store)
        with pytest.raises(StudyError, match=says):
            stored.first_tokens([f"question {number}" for number in range(100)])
        assert len(server.seen) <= 2 * asked and store.size() == 0, "not all are asked"
        server.ends = "content_filter"
        assert bool(top) or stored.first_tokens(["question 2"])[0].text == "[]", "one filtered prompt is no such server"
        server.top, server.ends = None, "length"
        assert stored.first_tokens(["question 1"])[0].text == '[["b", 0.0]]'


def test_soft_labels_without_a_letter_are_counted_by_question_and_asked_for_again(tmp_path, monkeypatch):
    monkeypatch.setenv("KDUTILS_STORE", str(tmp_path / "store.sqlite"))
    with Letters({"b": 1.0}) as (server, teacher):
        path = tmp_path / "softly.yaml"
        path.write_text(yaml.safe_dump({
            "about": "a test", "needs": "a server", "datasets": {"mini": {"limits": {"train": 2, "dev": 1, "test": 1}}},
            "teachers": {"it": {"backend": "openai", "base_url": teacher.base_url, "model": "m", "chat": True}},
            "promptings": {"soft_labels": {"splits": ["train", "dev"]}}, "methods": {"soft_label": {}},
            "students": {"t5": {"model": "kdutils/mini/student"}}, "seeds": [0]}))
        loaded = load_experiment(path)
        job = next(job for job in loaded.jobs if job.kind == "explanations")
        given, table = {**ExplainSoftLabels.defaults(), **job.parameters}, planned_questions(loaded, job)
        table = table[table["split"] != "test"].reset_index(drop=True)
        explain(table.head(1), "soft_labels", given)
        server.first = {"The": 0.7, "b": 0.3}
        metrics = explanation_metrics(explain(table, "soft_labels", given), table, given)
        assert (metrics["texts"], metrics["unusable"], list(metrics["problems"].values())) == (3, 2, [2])
        line, = retry_unusable(loaded)
        assert line.startswith(f"{job.folder}: 2 unusable completions to ask for again (the letters of the choices")
        server.first, server.seen[:] = {"b": 1.0}, []
        found = explain(table, "soft_labels", given)
        assert list(retry_unusable(loaded)) == [f"{job.folder}: no unusable completion"]
    assert len(server.seen) == 2 and found["problem"].eq("").all()


def test_a_local_chat_that_begins_with_thinking_gives_no_soft_labels(tmp_path, monkeypatch):
    monkeypatch.setenv("KDUTILS_STORE", str(tmp_path / "store.sqlite"))
    (template := tmp_path / "chat.jinja").write_text("{{ messages[0]['content'] }}\n<think>\n")
    given = {**ExplainSoftLabels.defaults(), "model": "kdutils/mini/teacher", "chat": True}
    with pytest.raises(StudyError, match="begins the answer with thinking.*set thinking: off"):
        explain(build_questions(2, 0, 0).head(2), "soft_labels", {**given, "chat_template": str(template)})


# What a student learns

def test_every_choice_is_a_row_with_its_weight():
    source = "[predict] Question: What is wet?\nChoices: (a) the sun (b) water (c) sand"
    rows = rows_of("soft_label", {}, ITEM, Explained(soft=SOFT))
    assert [(row.task, row.source, row.target, row.weight) for row in rows] == [
        ("predict", source, f"The answer is {choice}.", share) for choice, share in SOFT.items()]
    mixed = rows_of("soft_label", {"hard": 0.2}, ITEM, Explained(soft=SOFT))
    assert [row.weight for row in mixed] == pytest.approx([0.2, 0.7, 0.1])
    certain = Explained("It flows.", soft={"the sun": 0.0, "water": 1.0, "sand": 0.0})
    assert rows_of("soft_label", {}, ITEM, certain) == rows_of("label_only", {}, ITEM, None)
    assert rows_of("soft_multitask", {}, ITEM, certain) == rows_of("multitask", {}, ITEM, "It flows.")
    assert rows_of("soft_label", {"hard": 1.0}, ITEM, Explained(soft=SOFT)) == rows_of("label_only", {}, ITEM, None)
    assert task_weights("soft_multitask", {"alpha": 0.3}) == {"predict": 0.3, "explain": 0.7}


def test_the_control_learns_its_own_soft_labels_and_the_other_explanation():
    """By hand: of two questions each gets the explanation of the other one; a third of another split has none."""
    items = [ITEM, {**ITEM, "id": "2", "question": "What is dry?", "answer": "sand"},
             {**ITEM, "id": "3", "split": "dev"}]
    given = {"1": Explained("It flows.", {"sand": "It trickles."}, ("It pours.",), SOFT),
             "2": Explained("It is dust.", soft={"the sun": 0.5, "water": 0.0, "sand": 0.5}), "3": Explained(soft=SOFT)}
    read = apply_control("soft_shuffled", {}, items, given, 0)
    source, other = (f"Question: What is {which}?\nChoices: (a) the sun (b) water (c) sand" for which in ("wet", "dry"))

    def rows(item):
        return [(row.source, row.target, row.weight)
                for row in rows_of("soft_shuffled", {"hard": 0.5}, item, read[item["id"]])]

    assert rows(items[0]) == [
        *((f"[predict] {source}", f"The answer is {choice}.", share)
          for choice, share in (("the sun", 0.125), ("water", 0.8125), ("sand", 0.0625))),
        (f"[explain] {source}", "It is dust.", 1.0)]
    assert rows(items[1]) == [
        (f"[predict] {other}", "The answer is the sun.", 0.25), (f"[predict] {other}", "The answer is sand.", 0.75),
        (f"[explain] {other}", "It flows.", 1.0), (f"[explain] {other}", "It pours.", 1.0)]
    assert read["3"] == given["3"] and given["1"].rationale == "It flows."
    assert METHODS["soft_shuffled"].control_of == "soft_multitask"
    assert task_weights("soft_shuffled", {"alpha": 0.3}) == {"predict": 0.3, "explain": 0.7}


@pytest.mark.parametrize(("item", "soft", "said"), [
    ({**ITEM, "choices": []}, SOFT, "question '1' has no choices, so it has no soft labels"),
    (ITEM, {}, "question '1': no soft labels; ask the teacher with the prompting soft_labels"),
    (ITEM, {"water": 1.0}, "question '1': soft labels of other choices")])
def test_a_question_without_a_soft_label_is_refused(item, soft, said):
    for method in ("soft_label", "soft_multitask"):
        with pytest.raises(StudyError, match=said):
            rows_of(method, {}, item, Explained("It flows.", soft=soft))
    with pytest.raises(StudyError, match="hard: 1.5 is not between 0 and 1"):
        task_weights("soft_label", {"hard": 1.5})


def test_soft_labels_come_from_either_table_and_an_older_table_has_none(tmp_path):
    table = pd.DataFrame([ITEM])
    rows = pd.DataFrame([{"id": "1", "stage": "choice", "round": 0, "answer": choice, "text": choice, "raw": "",
                          "changes": [], "problem": "", "finish_reason": "stop", "prompt_tokens": 1,
                          "completion_tokens": 0, "probability": share} for choice, share in SOFT.items()])
    told = rows.head(1).assign(stage="rationale", answer="water", text="It flows.").drop(columns="probability")
    old, new = (read_table(write_table(one, tmp_path / "x.parquet", "explanations"), "explanations")
                for one in (told, rows))
    assert old["probability"].isna().all() and new["probability"].tolist() == list(SOFT.values())
    assert explained_of(old, table, new)["1"] == Explained("It flows.", soft=SOFT) == explained_of(
        pd.concat([new, old]), table)["1"]
    assert explained_of(told, table)["1"] == Explained("It flows.")


# The loss

@pytest.fixture(scope="module")
def soft(questions):
    """{question id: Explained} with a distribution drawn for each question, some of it 0."""
    draw, found = np.random.default_rng(5), {}
    for item in questions[0].to_dict("records"):
        shares = draw.dirichlet([0.5] * len(item["choices"])) * draw.integers(0, 2, len(item["choices"]))
        shares[0] += 1 - shares.sum()
        found[item["id"]] = Explained(questions[1][item["id"]], soft=dict(zip(item["choices"], shares, strict=True)))
    return found


@pytest.fixture(scope="module", params=["seq2seq", "causal"])
def student(request, tiny):
    """(model in float64, tokenizer, kind)."""
    if request.param == "seq2seq":
        return *tiny, "seq2seq"
    config = {**SHAPES["causal"], "attention_dropout": 0.0}
    return exact(load_student("", STUDENT, random_weights=True, config=config, seed=2)[0]), tiny[1], "causal"


def groups_of(student, questions, explained, method="soft_label", parameters=None, count=6):
    items = questions[0].head(count).to_dict("records")
    entries, _ = tokenize_rows(student[1], method, parameters or {}, items, explained,
                               RowFormat(128, 128, student[2]))
    return [EpochRows(entries, [item["id"] for item in items], 0)[i] for i in range(count)]


def test_a_certain_teacher_gives_the_loss_of_label_only(student, questions, tmp_path):
    certain = {item["id"]: Explained(soft={choice: float(choice == item["answer"]) for choice in item["choices"]})
               for item in questions[0].to_dict("records")}
    groups = groups_of(student, questions, certain)
    assert groups == groups_of(student, questions, {}, "label_only")
    chunk = pad_chunk(groups[0], 0, 0, student[2] == "causal")
    assert not {"weight", "weights"} & add_places(chunk).keys()
    assert "weights" not in pad_chunk(shared(groups), 0, None)


def test_the_loss_is_the_mean_over_weighted_tokens_however_a_step_is_cut(student, questions, soft, tmp_path):
    model, _, kind = student
    groups = groups_of(student, questions, soft)
    rows = [row for group in groups for row in group]
    assert len(rows) > 12 and len({row.weight for row in rows}) > 10
    assert counted_tokens(rows, 1) == pytest.approx([sum(row.weight * len(row.target) for row in rows)])
    cut = shared(groups) if kind == "causal" else rows
    budgets = (10**6, 250, 1)
    assert len({len(cut_rows(cut, budget, kind == "causal")) for budget in budgets} & {1, len(cut)}) == 2
    for budget in budgets:
        assert_as_by_hand(model, groups, {"predict": 1.0}, tmp_path, budget)
    with_texts = groups_of(student, questions, soft, "soft_multitask")
    assert_as_by_hand(model, with_texts, {"predict": 0.3, "explain": 0.7}, tmp_path, 250)


def test_a_student_of_a_certain_teacher_is_that_of_label_only(questions, tmp_path):
    table = questions[0][questions[0]["split"] != "test"]
    texts = {item["id"]: Explained(soft={choice: float(choice == item["answer"]) for choice in item["choices"]})
             for item in table.to_dict("records")}
    settings = {"model": STUDENT, "random_weights": True, "config": {"d_model": 32, "d_kv": 8, "d_ff": 48}}
    training = {"epochs": 1, "questions_per_step": 8, "learning_rate": 3e-3, "warmup_steps": 1, "dev_evaluations": 1,
                "max_source_tokens": 128, "max_target_tokens": 128, "token_budget": 900}
    for method in ("label_only", "soft_label"):
        train_student(tmp_path / method, table, texts, Recipe(method, settings, training))
    one, other = ((tmp_path / method / "model.safetensors").read_bytes() for method in ("label_only", "soft_label"))
    assert one == other


def test_a_choice_that_does_not_fit_is_refused(tiny, questions):
    item = {**questions[0].iloc[0].to_dict(), "id": "x"}
    item["choices"] = [item["answer"], "a long choice that goes on and on and on"]
    known = Explained(soft=dict.fromkeys(item["choices"], 0.5))
    with pytest.raises(StudyError, match="of question 'x', takes .* tokens, more than 8"):
        tokenize_rows(tiny[1], "soft_label", {}, [item], {"x": known}, RowFormat(128, 8))


# Experiments

def test_soft_labels_go_to_the_methods_that_read_them():
    jobs = {job.folder: job for job in make_jobs("mine", MINI)}
    explained = "outputs/mine/explanations/mini/mini-llama"
    below = "mini/mini-llama/{}/{}/mini-t5/seeds-0-1-2-3-4"
    soft, gold, both, control, multitask = (jobs[f"students/{below.format(*names)}"] for names in (
        ("soft_labels", "soft_label"), ("soft_labels", "soft_label_gold"), ("few_shot", "soft_multitask"),
        ("few_shot", "soft_shuffled"), ("few_shot", "multitask")))
    assert soft.parameters["explanations"] == gold.parameters["explanations"] == both.parameters["soft_labels"] == \
        control.parameters["soft_labels"] == f"{explained}/soft_labels/explanations.parquet"
    assert both.parameters["explanations"] == multitask.parameters["explanations"] == \
        control.parameters["explanations"] == f"{explained}/few_shot/explanations.parquet"
    assert (control.notebook, gold.notebook) == ("26_train_soft_shuffled", "19_train_soft_label")
    assert "hard" not in soft.parameters and gold.parameters["hard"] == 0.5
    assert "explanations/mini/mini-llama/soft_labels" in both.needs and "soft_labels" not in multitask.parameters
    assert {"soft_label", "soft_label_gold", "label_only", "multitask", "soft_multitask", "soft_shuffled",
            "soft_multitask_gold", "soft_shuffled_gold"} == {
        job.labels["method"] for job in jobs.values() if job.kind == "students"}
    evaluated = [jobs[f"evaluations/{below.format(*names)}"].parameters for names in (
        ("soft_labels", "soft_label"), ("few_shot", "soft_multitask"))]
    assert [one["explanations"] for one in evaluated] == [  # of soft labels, page 32 reads where the teacher errs
        f"{explained}/{name}/explanations.parquet" for name in ("soft_labels", "few_shot")]
    planned = planned_contrasts(MINI)
    assert [first[4] for question, first, _ in planned if question == "content"] == [
        "soft_multitask", "soft_multitask_gold"]
    names = {(first[4], second[4]) for _, first, second in planned}
    assert names == {("multitask", "label_only"), ("soft_label", "label_only"), ("multitask", "soft_label"),
                     ("soft_multitask", "soft_shuffled"),
                     ("soft_multitask_gold", "soft_label_gold"), ("soft_multitask_gold", "soft_shuffled_gold")}


def test_a_student_of_soft_labels_is_no_student_that_explains(tmp_path):
    assert set(UNEXPLAINED) == {"label_only", "soft_label"}
    world = World(tmp_path).add("label_only", right=(20, 21, 19), explains=False)
    world.add("soft_label", right=(34, 35, 36), explains=False)
    said = said_of(world)[0][HELP]
    assert said["verdict"] == "Cannot be said." and said["text"].startswith("No student that learned answers and")
    both = said_of(world.add("multitask", right=(36, 35, 37)))[0][HELP]
    assert "multitask (few_shot)" in both["text"] and "soft_label" not in both["text"]


def test_a_new_method_is_one_entry_for_experiments_comparisons_and_cards(tmp_path, monkeypatch):
    """It reads something new beside, and students do not learn to explain by it."""
    monkeypatch.setitem(PROMPTINGS, "hints", replace(PROMPTINGS["soft_labels"], gives="hints"))
    monkeypatch.setitem(METHODS, "dummy", Method(
        "12_train_multitask", METHODS["label_only"].tasks, "predict", beside={"soft_labels": "hints"}, learns="hints",
        papers=("Nobody 2026, Dummies",)))
    monkeypatch.setattr(schema, "notebook_fault", lambda *given: "")  # see tests/test_experiments.py
    mine = {**MINI, "methods": {"label_only": {}, "dummy": {}}, "comparison": {}}
    check_settings({**mine, "promptings": {"few_shot": {}, "hints": {}}}, "mine.yaml")
    with pytest.raises(StudyErrors) as error:
        check_settings(mine, "mine.yaml")
    assert str(error.value) == ("mine.yaml: key 'methods.dummy': it needs hints; ask teacher 'mini-llama' with the "
                                "prompting hints, too, or say with `promptings` on which texts to train")
    unexplained = runpy.run_path(runs_table.__file__)["UNEXPLAINED"]
    assert unexplained == (*UNEXPLAINED, "dummy")
    for room in (answer, contrasts):
        monkeypatch.setattr(room, "UNEXPLAINED", unexplained)
    said = said_of(World(tmp_path).add("label_only", right=(20, 21, 19), explains=False).add(
        "dummy", right=(34, 35, 36), explains=False))[0][HELP]
    assert said["text"].startswith("No student that learned answers and")
    shutil.copytree(EXAMPLE, tmp_path / "taught")
    student = tmp_path / "taught" / "seed-0"
    write_json(student / "student.json", {**read_json(student / "student.json"), "method": "dummy"})
    written = {"generated": "The answer is water.", "explanation": ""}
    card = model_card(student, "t", 1, "seq2seq", [], {**ITEM, "split": "test"}, written)
    assert "answers questions.\nIt learnt from hints.\n" in card and "\n- Nobody 2026, Dummies\n" in card


def asked(**soft_labels):
    return {"promptings": {"few_shot": {}, "soft_labels": soft_labels}}


WITHOUT = {"promptings": {"few_shot": {}}, "comparison": {}}
CHAT = {"mini-llama": {"backend": "openai", "model": "m", "base_url": "http://localhost:1/v1", "chat": True}}


@pytest.mark.parametrize(("keys", "said"), [
    (WITHOUT, "key 'methods.soft_label': no teacher has explanations for it; ask one with a prompting such as soft_la"),
    ({**WITHOUT, "methods": {"soft_multitask": {}}}, "key 'methods.soft_multitask': it needs soft labels; ask teacher "
                                                     "'mini-llama' with the prompting soft_labels, too"),
    (asked(splits=["train"]), "without the split dev in `splits` the method 'soft_label' has nothing to learn from"),
    ({"datasets": {"mini": {"limits": {"train": 1}}}},
     "1, but the method 'soft_shuffled' takes the rationale of another question; set 2 or more"),
    (asked(temperature=0.5), "nothing is sampled; set temperature: 0"),
    (asked(choice_temperature=0.0), "key 'promptings.soft_labels.choice_temperature': "),
    ({"teachers": {"mini-llama": {**CHAT["mini-llama"], "thinking": "on"}}}, "set thinking: off"),
    ({"teachers": {"mini-llama": {"backend": "published"}}}, "published files hold no probabilities"),
    ({"methods": {"label_only": {}, "soft_label": {"layout": "published"}}, "comparison": {}},
     "key 'methods.soft_label.layout': "),
], ids=["no prompting", "none beside", "no dev", "one question", "sampling", "zero", "chat", "published", "layout"])
def test_what_cannot_work_is_told_before_anything_runs(keys, said):
    with pytest.raises(StudyErrors) as error:
        check_settings({**MINI, **keys}, "mine.yaml")
    assert said in str(error.value)


def test_the_experiment_is_right_and_a_method_without_a_probability_is_not_asked_for_texts():
    check_settings(MINI, "soft-mini.yaml")
    with pytest.raises(StudyErrors, match="'soft_label' writes no explanations"):
        check_settings({**MINI, "human_study": {"study": "mini", "methods": ["soft_label"]}}, "mine.yaml")


def test_the_letter_of_a_choice_is_read_with_marks_around_it():
    tokens = [("B", 0.25), (" b", 0.125), ("**B", 0.0625), ("B)", 0.03125), ("(B", 0.03125), ('"B".', 0.03125),
              ("A", 0.25), ("Because", 0.125), ("AB", 0.0625), ("-B", 0.03125)]
    done = Completion(json.dumps([(token, math.log(share)) for token, share in tokens]), "stop", 1, 1)
    assert shares_of_first_tokens(done, ["a", "b", "c"]) == pytest.approx([0.25, 0.53125, 0])
