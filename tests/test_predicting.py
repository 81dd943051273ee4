"""What a student writes and how likely it finds an answer: against the library's plain calls, one text at a time."""

import pandas as pd
import pytest
import torch
from test_students import ENCODER, FAMILIES, ITEM, T5, learn, rows_for, student, twenty_questions

from kdutils.data.answers import format_answer, format_conclusion
from kdutils.data.tables import read_table, write_table
from kdutils.errors import StudyError
from kdutils.runs import mark_complete, write_json
from kdutils.student.collating import SEPARATOR
from kdutils.student.methods import METHODS, Explained, asked_as, format_source
from kdutils.student.models import model_kind
from kdutils.student.predicting import (
    dev_accuracy,
    generate,
    load_trained,
    predict_questions,
    predict_with,
    score_choices,
)
from kdutils.student.probes import probe_answers

MODELS = ("t5", "bert", "llama", "gpt2")
SOURCES = ["What?", "[predict] Question: What has fur and wings?", "What?", "a b c d e f g h"]


@pytest.fixture(scope="module", params=MODELS)
def model(request):
    """A student whose random weights are large enough that what it writes depends on what it reads."""
    model, tokenizer = student(request.param, seed=4)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(2.0 if weight.dim() > 1 else 1.0)
    return model.double(), tokenizer


def one_by_one(model, tokenizer, source, new_tokens):
    """The library's plain call on a single text: no padding anywhere."""
    if model_kind(model) == "causal":
        prompt = tokenizer(source + SEPARATOR, add_special_tokens=False)["input_ids"]
        out = model.generate(input_ids=torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)).long(),
                             do_sample=False, max_new_tokens=new_tokens)[0][len(prompt):]
    else:
        out = model.generate(**tokenizer(source, return_tensors="pt"), do_sample=False,
                             max_new_tokens=new_tokens)[0][1:]
    return tokenizer.decode(out, skip_special_tokens=True).strip()


def test_generation_equals_the_library_run_on_each_text_alone(model):
    for budget in (60, 4096):
        written = generate(*model, SOURCES, 10, budget)
        assert written == [one_by_one(*model, source, 10) for source in SOURCES]
    assert len(set(written)) > 1
    assert generate(*model, [], 5) == []


def test_scores_equal_a_plain_forward_pass_of_each_choice(model):
    student, tokenizer = model
    items = [ITEM, {**ITEM, "id": "2", "question": "Why is it what it is, then?", "choices": ["wool", "wool cart"]},
             {**ITEM, "id": "3", "choices": []}]
    for method, prefixes, sources in (
            ("multitask", None, None), ("standard", None, None), ("counterfactual", ["It is.", "", "x"], None),
            ("untagged", None, [format_source(item, "", "Cats.") for item in items])):
        for budget in (1, 4096):
            scores, tokens = score_choices(student, tokenizer, items, method, prefixes, sources, budget)
            assert scores[2] == tokens[2] == []
            for number, item in enumerate(items[:2]):
                source = sources[number] if sources else format_source(item, METHODS[method].answer)
                head = f"{prefixes[number]} " if prefixes and prefixes[number] else ""
                expected = [by_hand(student, tokenizer, source, head, choice, method) for choice in item["choices"]]
                assert scores[number] == pytest.approx([total for total, _ in expected], rel=1e-5)
                assert tokens[number] == [count for _, count in expected]


@pytest.mark.parametrize("family", ["gpt2", "bert"])
def test_a_question_longer_than_the_context_is_cut_and_still_asked(family):
    model, tokenizer = student({**FAMILIES[family], "n_positions" if family == "gpt2" else
                                "max_position_embeddings": 64})
    said = predict_questions(model, tokenizer, "standard", [{**ITEM, "split": "test", "question": "why " * 200}, {
        **ITEM, "split": "test"}], 20)
    assert [len(one["scores"]) for one in said] == [4, 4]


def test_where_memory_runs_out_a_student_takes_less_at_a_time(model):
    asked = [{**ITEM, "id": str(number), "split": "test"} for number in range(6)]
    expected, largest = predict_questions(*model, "multitask", asked, 8), []

    def rows(module, arguments, given):
        size = max((given[name].numel() for name in ("input_ids", "decoder_input_ids") if given.get(name) is not None),
                   default=0)
        largest.append(size)
        if size > most:
            raise torch.OutOfMemoryError("CUDA out of memory")

    hook = model[0].register_forward_pre_hook(rows, with_kwargs=True)
    try:
        most = 10**9
        predict_questions(*model, "multitask", asked, 8)
        most = max(largest) // 2
        found = predict_questions(*model, "multitask", asked, 8)
        most = 0
        with pytest.raises(StudyError, match="memory is too small for the student's answer to one question; lower"):
            predict_questions(*model, "multitask", asked, 8)
    finally:
        hook.remove()
    for one, other in zip(found, expected, strict=True):
        assert one.pop("scores") == pytest.approx(other.pop("scores")) and one == other


def by_hand(model, tokenizer, source, head, choice, method):
    """Return Σ log p of the choice, full stop and end behind the head of its sentence, and their number."""
    says = format_conclusion if METHODS[method].explains_first else format_answer
    begin = tokenizer(head + says("").removesuffix(" ."), add_special_tokens=False)["input_ids"]
    whole = tokenizer(head + says(choice), add_special_tokens=False)["input_ids"]
    assert whole[: len(begin)] == begin
    whole += [] if method == "standard" else [model.config.eos_token_id]  # there an explanation goes on
    if model_kind(model) == "causal":
        prompt = tokenizer(source + SEPARATOR, add_special_tokens=False)["input_ids"]
        logits = model(input_ids=torch.tensor([prompt + whole])).logits[0][len(prompt) - 1:]
    else:
        decoder = torch.tensor([[model.config.decoder_start_token_id, *whole[:-1]]])
        logits = model(**tokenizer(source, return_tensors="pt"), decoder_input_ids=decoder).logits[0]
    logs = logits.log_softmax(-1)
    counted = range(len(begin), len(whole))
    return sum(logs[place, whole[place]].item() for place in counted), len(counted)


@pytest.mark.parametrize("family", [*MODELS, "classifier"])
def test_every_kind_of_student_answers_with_weights_in_bf16(family, tmp_path):
    model, tokenizer = student(ENCODER, kind="classifier") if family == "classifier" else student(family, seed=4)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    write_json(tmp_path / "student.json", {"method": "label_only" if family == "classifier" else "counterfactual",
                                           "parameters": {}, "tag": "after"})
    mark_complete(tmp_path)
    assert {weight.dtype for weight in load_trained(tmp_path, "bf16")[0].parameters()} == {torch.bfloat16}
    questions = pd.DataFrame([{**ITEM, "split": "test", "human_explanations": []}])
    told, scores = {"1": Explained("It mows.", {"lock": "It is a lock."})}, {}
    for precision in ("float32", "bf16"):
        said = predict_with(tmp_path, questions, 8, 0, precision)
        probes = probe_answers(tmp_path, questions, told, said.assign(explanation="It is."), 0, precision)
        assert len(said) == 1 and len(probes) == (0 if family == "classifier" else 7)
        loaded = load_trained(tmp_path, precision)
        scores[precision] = score_choices(*loaded, [ITEM], asked_as(tmp_path), ["It is."])[0][0]
    assert scores["bf16"] == pytest.approx(scores["float32"], rel=0.02, abs=0.02)
    assert scores["bf16"] != scores["float32"]


def test_probabilities_of_a_classifier_sum_to_one():
    model, tokenizer = student(ENCODER, kind="classifier")
    items = [ITEM, {**ITEM, "choices": ["wool", "mower"]}]
    scores, tokens = score_choices(model, tokenizer, items)
    assert torch.tensor(scores[0]).exp().sum().item() == pytest.approx(1)
    assert torch.tensor(scores[1]).exp().sum().item() == pytest.approx(1) and tokens == [[1] * 4, [1] * 2]


def test_a_short_generation_stops_where_the_explanation_begins():
    items, rationales = twenty_questions()
    model, tokenizer = student({**T5, "feed_forward_proj": "gated-gelu"})
    learn(model, rows_for(model, tokenizer, items, rationales), 1e-2)
    sources = [format_source(item, "predict") for item in items]
    lengths, library = [], model.generate

    def counting(**arguments):
        out = library(**arguments)
        lengths.append(out.shape[1])
        return out

    model.generate = counting
    stopped = generate(model, tokenizer, sources, 40, stop="Explanation:")
    assert stopped == [f"The answer is {item['answer']}. Explanation:" for item in items] and max(lengths) < 10
    longer = f"Explanation: {rationales[items[0]['id']]}"  # more tokens than the first ones that are written
    assert generate(model, tokenizer, sources[:1], 40, stop=longer)[0].endswith(longer)
    assert dev_accuracy(tokenizer, items, "standard")(model) == 1.0
    assert dev_accuracy(tokenizer, items, "standard", by="scores")(model) == 1.0
    wrong = [{**item, "answer": item["choices"][item["choices"].index(item["answer"]) - 1]} for item in items[:5]]
    mixed = wrong + items[5:]
    assert dev_accuracy(tokenizer, mixed, "standard")(model) == 0.75
    assert dev_accuracy(tokenizer, mixed, "standard", by="scores")(model) == 0.75
    with pytest.raises(StudyError, match="scores need choices and an answer that comes first; the method or the"):
        dev_accuracy(tokenizer, items, "counterfactual", by="scores")
    with pytest.raises(StudyError, match="dev_accuracy: unknown 'guess'; known: generation, scores"):
        dev_accuracy(tokenizer, items, by="guess")


@pytest.mark.parametrize("style", ["encoder", "decoder"])
def test_a_counterfactual_student_follows_the_rationale_it_is_given(style):
    """One model, told by the rationale which answer to give: what the probes of an explanation ask of it."""
    items = twenty_questions()[0][:5]
    explained = {item["id"]: Explained(f"It is {item['answer']}.", {choice: f"It is {choice}." for choice in
                                                                    item["choices"] if choice != item["answer"]})
                 for item in items}
    model, tokenizer = student("llama")
    entries = rows_for(model, tokenizer, items, explained, "counterfactual", {"counterfactual_style": style})
    learn(model, [row for entry in entries for row in (entry if isinstance(entry, tuple) else [entry])], enough=0.002)
    said = predict_questions(model, tokenizer, "counterfactual", items, 20)
    assert all(one["correct"] and one["exact"] for one in said)
    assert [one["explanation"] for one in said] == [explained[item["id"]].rationale for item in items]
    assert dev_accuracy(tokenizer, items, "counterfactual")(model) == 1.0
    pairs = [(item, wrong, text) for item in items for wrong, text in explained[item["id"]].counterfactuals.items()]
    sources = [format_source(item, "counterfactual", text if style == "encoder" else "") for item, _, text in pairs]
    if style == "encoder":
        assert generate(model, tokenizer, sources, 12) == [format_conclusion(wrong) for _, wrong, _ in pairs]
    prefixes = [text for *_, text in pairs] if style == "decoder" else None
    scores, _ = score_choices(model, tokenizer, [item for item, *_ in pairs], "counterfactual", prefixes, sources)
    assert all(max(found) == found[item["choices"].index(wrong)]
               for found, (item, wrong, _) in zip(scores, pairs, strict=True))


def test_records_of_every_method_fit_the_table(tmp_path):
    model, tokenizer = student("t5")
    questions = pd.DataFrame([{**ITEM, "split": "test", "human_explanations": []},
                              {"id": "2", "split": "test", "question": "1 + 1?", "choices": [], "answer": "2",
                               "human_explanations": []}])
    for method in METHODS:
        folder = tmp_path / method
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        write_json(folder / "student.json", {"method": method})
        with pytest.raises(StudyError, match="no complete student here"):
            predict_with(folder, questions, 8, 0)
        mark_complete(folder)
        said = predict_with(folder, questions, 8, 3)
        assert list(map(len, said["scores"])) == list(map(len, said["score_tokens"])) == [4, 0]
        write_table(said, tmp_path / "predictions.parquet", "predictions")
        assert read_table(tmp_path / "predictions.parquet", "predictions")["seed"].tolist() == [3, 3]
