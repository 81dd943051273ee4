"""Where the tag stands: a student is asked as it was taught, everywhere, and a cut source keeps its tag."""

import json
import re

import pandas as pd
import pytest
from test_byte_vocabulary import byt5, real_t5  # noqa: F401
from test_students import FAMILIES, ITEM, student
from test_students import TOKENIZER as MINI

from kdutils.data.answers import format_conclusion
from kdutils.data.texts import kept_tokens
from kdutils.errors import StudyError
from kdutils.runs import PROJECT, mark_complete, read_json, write_json
from kdutils.student import lm_reader, predicting
from kdutils.student.collating import RowFormat, cut_source, encode_sources, tokenize_rows
from kdutils.student.methods import Explained, asked_as, rows_of, tag_place, taught_method
from kdutils.student.models import end_token, load_tokenizer
from kdutils.student.predicting import predict_with, written_answers
from kdutils.student.probes import probe_answers
from kdutils.student.training import Recipe, train_student
from kdutils.teacher import word_scores
from kdutils.teacher.word_scores import driving_words

TRAINING = {"epochs": 1.0, "questions_per_step": 6, "learning_rate": 0.01, "warmup_steps": 1, "dev_evaluations": 1,
            "max_source_tokens": 128, "max_target_tokens": 32, "token_budget": 4000}
PLACES = {"before": r"\[(\w+)\] Question: ", "after": r"Question: .*\n\[(\w+)\]"}
KINDS = {"causal": "llama", "seq2seq": "t5"}
WRONG = {"lock": "It is a lock.", "wool": "It is wool."}
SPLITS = ["train"] * 6 + ["dev"] * 2 + ["test"]
TABLE = pd.DataFrame([{**ITEM, "id": str(number), "split": split, "question": f"What is number {number}?",
                       "human_explanations": []} for number, split in enumerate(SPLITS)])
TOLD = {key: Explained("It mows.", WRONG) for key in TABLE["id"]}


@pytest.fixture
def asked(monkeypatch):
    """The list of all source texts that students are asked from here on."""
    sources, encode = [], predicting.encode_sources
    monkeypatch.setattr(predicting, "encode_sources",
                        lambda tokenizer, texts, kind: sources.extend(texts) or encode(tokenizer, texts, kind))
    return sources


def recipe(kind, tag, method="combined"):
    student = {"model": "", "tokenizer": MINI, "random_weights": True, "config": FAMILIES[KINDS[kind]]}
    return Recipe(method, student, {**TRAINING, "tag": tag})


def tags_of(sources, place):
    """Return the tags of source texts that all have one, at `place`; the list is emptied."""
    found = {re.fullmatch(PLACES[place] + (".*" if place == "before" else ""), text, re.DOTALL)[1] for text in sources}
    assert sources
    sources.clear()
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tag", ["before", "after", ""])
def test_a_student_is_asked_as_it_was_taught_everywhere(kind, tag, asked, tmp_path):
    """In training, in the evaluation and in the probes: the method combined has a tag for each of its four tasks."""
    place, folder, test = tag or tag_place("", kind), tmp_path / "seed-0", TABLE[TABLE["split"] == "test"]
    rows = recipe(kind, tag).rows(TABLE.iloc[0].to_dict(), TOLD)
    assert tags_of([row.source for row in rows], place) == {"predict", "explain", "factual", "counterfactual"}
    assert place == ("after" if kind == "causal" and not tag else tag or "before")
    train_student(folder, TABLE[TABLE["split"] != "test"], TOLD, recipe(kind, tag))
    assert tags_of(asked, place) == {"predict"}, "the dev accuracy"
    assert read_json(folder / "student.json")["tag"] == place
    said = predict_with(folder, test, 8, 0)
    assert tags_of(asked, place) == {"predict", "explain"}
    probe_answers(folder, test, TOLD, said.assign(explanation="It is."), 0)
    assert tags_of(asked, place) == {"factual", "counterfactual"}
    written = written_answers(folder, TABLE, said.assign(predicted="wool", explanation="It is."))
    assert tags_of(list(written["source"]), place) == {"predict"}
    assert set(driving_words(folder, written)) == set(test["id"])
    write_json(folder / "student.json", {key: value for key, value in read_json(folder / "student.json").items()
                                         if key != "tag"})  # as before there was a choice
    mark_complete(folder)
    predict_with(folder, test, 8, 0)
    assert tags_of(asked, "before") == {"predict", "explain"}
    probe_answers(folder, test, TOLD, said.assign(explanation="It is."), 0)
    assert tags_of(asked, "before") == {"factual", "counterfactual"}


@pytest.mark.parametrize("tag", ["before", "after"])
def test_a_student_without_tags_has_none_at_either_place(tag, asked, tmp_path):
    assert not any("[" in row.source for row in rows_of("untagged", {}, ITEM, TOLD["0"], tag))
    train_student(tmp_path, TABLE[TABLE["split"] != "test"], TOLD, recipe("causal", tag, "untagged"))
    said = predict_with(tmp_path, TABLE.tail(1), 8, 0)
    probe_answers(tmp_path, TABLE.tail(1), TOLD, said.assign(explanation="It is."), 0)
    assert asked and not any("[" in source for source in asked)


@pytest.mark.parametrize("tag", ["before", "after"])
def test_a_model_that_reads_explanations_is_asked_as_it_was_taught(tag, asked):
    taught = [{"id": str(number), "question": "What is it?", "choices": ["lock", "wool"], "answer": "lock",
               "explanation": "It is a lock.", "masked": "It is a _."} for number in range(4)]
    read = lm_reader.trained_reader({**TRAINING, "tag": tag, "model": "", "tokenizer": MINI, "random_weights": True,
                                     "config": FAMILIES["llama"]})
    assert set(read(taught, taught[:1], 0)) == set(lm_reader.FORMS)
    assert tags_of(asked, tag) == {"predict"}


def test_a_teacher_is_asked_as_it_was_taught(tmp_path):
    """Notebook 05: a fine-tuned teacher may have been taught with the tag behind the question."""
    notebook = json.loads((PROJECT / "notebooks" / "05_explain_tokens.ipynb").read_text(encoding="utf-8"))
    cell, = ["".join(one["source"]) for one in notebook["cells"] if "sources = [" in "".join(one["source"])]

    def told(model):
        names = {"table": TABLE, "model": model}
        exec(cell, names)
        return names["sources"][0], names["targets"][0]

    write_json(tmp_path / "student.json", {"method": "label_only", "tag": "after"})
    asks = taught_method("label_only", "after")
    source = "Question: What is number 0?\nChoices: (a) lock (b) mower (c) wool (d) cart"
    assert told(str(tmp_path)) == (f"{source}\n[predict]", "The answer is mower.") == (
        asks.source(TABLE.iloc[0].to_dict(), "predict"), asks.says("mower"))
    before = (f"[predict] {source}", "The answer is mower.")
    assert told("google/flan-t5-xl") == told("kdutils/mini/example/students/seed-0") == before
    write_json(tmp_path / "student.json", {"method": "counterfactual"})
    assert told(str(tmp_path)) == (f"[factual] {source}", format_conclusion("mower"))


def test_a_place_that_is_none_is_named(tmp_path):
    with pytest.raises(StudyError, match="tag: unknown 'behind'; known: before, after"):
        recipe("causal", "behind").rows(ITEM, TOLD)
    assert asked_as("kdutils/mini/student").tag == "before"
    assert [tag_place("", kind) for kind in ("causal", "seq2seq", "classifier")] == ["after", "before", "before"]


# A source that is too long

@pytest.fixture(params=["mini", "t5", "bytes", "llama"])
def tokenizer(request, byt5):  # noqa: F811
    """A vocabulary with an end token, T5's, one of bytes without offsets, and one with a token that begins a text."""
    if request.param == "llama":
        from tokenizers.processors import TemplateProcessing

        made = load_tokenizer("kdutils/mini/teacher")
        made.backend_tokenizer.post_processor = TemplateProcessing(single="<eos> $A", special_tokens=[("<eos>", 1)])
        return made
    return load_tokenizer({"mini": MINI, "bytes": byt5}.get(request.param) or real_t5())


@pytest.mark.parametrize("kind", ["seq2seq", "causal"])
def test_a_cut_source_keeps_its_tag_and_what_ends_it(tokenizer, kind):
    long = {**ITEM, "question": "Why is it " * 60 + "so?"}
    for tag, rationale in (("explain", ""), ("counterfactual", "It is wool. " * 40)):
        text = taught_method("combined", "after").source(long, tag, rationale)
        ids, = encode_sources(tokenizer, [text], kind)
        assert cut_source(tokenizer, text, ids, len(ids)) == ids
        assert (ids[-1] == end_token(tokenizer)) is (kind == "seq2seq" and ids[0] != 1)
        for limit in (32, 70):
            cut = cut_source(tokenizer, text, ids, limit)
            said = tokenizer.decode(cut, skip_special_tokens=True)
            assert len(cut) == limit and cut[: 8] == ids[: 8] and said.rstrip().endswith(f"[{tag}]")
            assert cut[-1] == ids[-1]
            assert said.count("[") == 1 and said.startswith("Question: Why")
    shorter = cut_source(tokenizer, text, ids, 4)
    assert shorter == ids[-4:], "not even the tag fits"


def test_a_question_that_ends_like_a_tag_is_a_question():
    tokenizer = load_tokenizer(MINI)
    item = {**ITEM, "question": "why " * 30 + "[x]", "choices": []}
    for tag in ("before", "after"):
        text = taught_method("multitask", tag).source(item, "predict")
        ids, = encode_sources(tokenizer, [text], "seq2seq")
        said = tokenizer.decode(cut_source(tokenizer, text, ids, 20), skip_special_tokens=True)
        assert said.endswith("why\n[predict]" if tag == "after" else "why") and "[x]" not in said
    assert len(kept_tokens(tokenizer, "why\n[x]", 10, 20)) == 10


@pytest.mark.parametrize("tag", ["before", "after"])
def test_rows_too_long_are_cut_and_counted_at_either_place(tag):
    model, tokenizer = student("llama")
    item = {**ITEM, "question": "why " * 90}
    entries, cuts = tokenize_rows(tokenizer, "combined", {"wrong_answers": "first"}, [item], {ITEM["id"]: TOLD["0"]},
                                  RowFormat(40, 64, "causal", None, tag))
    said = [tokenizer.decode(row.source) for row in entries[0]]
    assert cuts == {"sources": 4, "targets": 0} and all(len(row.source) == 40 for row in entries[0])
    tags = ("predict", "explain", "factual", "counterfactual")
    assert all(text.endswith(f"\n[{name}]\n") if tag == "after" else text.startswith(f"[{name}] Question:")
               for text, name in zip(said, tags, strict=True))


def test_words_are_attributed_in_the_source_as_the_student_read_it(tmp_path):
    """With the tag behind a question that was cut: the tag is read, the end of the question is not."""
    model, tokenizer = student({**FAMILIES["bert"], "max_position_embeddings": 64})
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    write_json(tmp_path / "student.json", {"method": "multitask", "tag": "after"})
    mark_complete(tmp_path)
    questions = pd.DataFrame([{"id": "long", "question": "cow " * 99 + "milk", "choices": ["wool", "wood"],
                               "answer": "wood", "human_explanations": []}])
    said = pd.DataFrame({"id": ["long"], "predicted": "wool", "explanation": "It flows."})
    written, seen = written_answers(tmp_path, questions, said), []
    scores = word_scores.token_scores
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(word_scores, "token_scores", lambda model, ids, *more: seen.extend(ids) or scores(
            model, ids, *more))
        assert driving_words(tmp_path, written) == {"long": ["cow"]}
    text = written["source"][0]
    assert seen == [cut_source(tokenizer, text, encode_sources(tokenizer, [text], "seq2seq")[0], 64)]
    assert tokenizer.decode(seen[0], skip_special_tokens=True).endswith("cow\n[predict]")
