"""Every family of students: how it is told, what it reads, and that it can learn; and what each epoch draws."""

import random

import pytest
import torch
from scipy.stats import chisquare

from kdutils.errors import StudyError
from kdutils.hub import model_context
from kdutils.student.chunks import cut_rows, pad_chunk
from kdutils.student.collating import EpochRows, RowFormat, StepCollator, choice_row, tokenize_rows
from kdutils.student.methods import Explained
from kdutils.student.models import (
    choice_logits,
    choice_losses,
    end_token,
    load_student,
    load_tokenizer,
    merged,
    model_kind,
    output_layer_on,
)
from kdutils.student.predicting import predict_questions
from kdutils.student.rows import IGNORED, ChoiceRow, TokenRow

TOKENIZER = "kdutils/mini/student"
T5 = {"model_type": "t5", "d_model": 48, "d_kv": 12, "d_ff": 96, "num_layers": 2, "num_heads": 4, "dropout_rate": 0.0}
SIZE = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
        "max_position_embeddings": 256, "initializer_range": 0.1}
FAMILIES = {
    "t5": T5,
    "t5-v1.1": {**T5, "feed_forward_proj": "gated-gelu"},
    "llama": {"model_type": "llama", "num_key_value_heads": 2, **SIZE},
    "qwen3": {"model_type": "qwen3", "num_key_value_heads": 2, "head_dim": 12, **SIZE},
    "smollm3": {"model_type": "smollm3", "num_key_value_heads": 2, **SIZE},
    "gpt2": {"model_type": "gpt2", "n_embd": 48, "n_layer": 2, "n_head": 4, "n_positions": 256,
             "initializer_range": 0.1, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
    "bert": {"model_type": "bert", "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, **SIZE},
}
SEQ2SEQ = ("t5", "t5-v1.1", "bert")
ENCODER = {"model_type": "distilbert", "dim": 48, "hidden_dim": 96, "n_layers": 1, "n_heads": 4, "dropout": 0.0,
           "attention_dropout": 0.0, "seq_classif_dropout": 0.0, "max_position_embeddings": 128,
           "initializer_range": 0.1}


def student(family, tokenizer=TOKENIZER, seed=1, **more):
    config = FAMILIES[family] if isinstance(family, str) else family
    return load_student("", tokenizer, random_weights=True, config=config, seed=seed, **more)


def twenty_questions():
    """Return (twenty short questions that only learning by heart answers, the explanation of each)."""
    from kdutils.data.mini_world import load_world

    names, draw, items, rationales = list(load_world().concepts), random.Random(0), [], {}
    for name in names[:20]:
        choices = draw.sample(names[20:], 3)
        items.append({"id": name, "split": "train", "question": f"What goes with a {name}?", "choices": choices,
                      "answer": draw.choice(choices)})
        rationales[name] = f"A {name} has a {items[-1]['answer']}."
    return items, rationales


@pytest.fixture(scope="module")
def twenty():
    return twenty_questions()


def rows_for(model, tokenizer, items, explained, method="standard", parameters=None, limit=128):
    entries, _ = tokenize_rows(tokenizer, method, parameters or {}, items, explained,
                               RowFormat(limit, limit, model_kind(model), model_context(model)))
    return [row for entry in entries for row in entry]


def learn(model, rows, rate=5e-3, steps=250, enough=0.03):
    """Train on all rows at once until the loss is `enough`. Labels are used as they are: nothing moves them again."""
    chunk = pad_chunk(rows, model.config.pad_token_id, getattr(model.config, "decoder_start_token_id", None),
                      model_kind(model) == "causal")
    inputs = {name: ids for name, ids in chunk.items() if name.endswith(("ids", "mask"))}
    counted = chunk["labels"] != IGNORED
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    model.train()
    for _ in range(steps):
        if "choices" in chunk:
            loss = choice_losses(model, chunk).mean()
        else:
            with output_layer_on(model, counted.flatten().nonzero()[:, 0]):
                logits = model(**inputs).logits
            loss = torch.nn.functional.cross_entropy(logits, chunk["labels"][counted])
        if loss.item() < enough:
            break
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    model.eval()


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_learns_twenty_questions_by_heart(family, twenty):
    items, rationales = twenty
    model, tokenizer = student(family)
    assert model_kind(model) == ("seq2seq" if family in SEQ2SEQ else "causal")
    learn(model, rows_for(model, tokenizer, items, rationales), 1e-2 if family.startswith("t5") else 5e-3)
    said = predict_questions(model, tokenizer, "standard", items, 20)
    assert all(one["correct"] and one["exact"] for one in said)
    assert [one["explanation"] for one in said] == [rationales[item["id"]] for item in items]  # and it stops there
    assert all(max(one["scores"]) == one["scores"][item["choices"].index(item["answer"])]
               for one, item in zip(said, items, strict=True))


def test_a_classifier_learns_twenty_questions_by_heart_and_comes_back_as_one(twenty, tmp_path):
    items, _ = twenty
    model, tokenizer = student(ENCODER, kind="classifier")
    learn(model, rows_for(model, tokenizer, items, {}, "label_only"))
    said = predict_questions(model, tokenizer, "label_only", items, 20)
    assert all(one["correct"] and one["exact"] and one["explanation"] == "" for one in said)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    again, tokenizer = load_student(str(tmp_path))
    assert model_kind(again) == "classifier"
    assert predict_questions(again, tokenizer, "label_only", items, 20) == said


def test_a_choice_that_leaves_a_classifier_no_room_for_the_question_is_told(twenty):
    tokenizer = student(ENCODER, kind="classifier")[1]
    item = {"id": "q", "question": "Which one?", "choices": ["duck", "duck " * 40], "answer": "duck"}
    most = len(tokenizer("", "duck " * 40)["input_ids"])
    with pytest.raises(StudyError, match=f"question 'q': its longest choice takes {most} of max_source_tokens .{most}"):
        choice_row(tokenizer, item, most)
    row, was_cut = choice_row(tokenizer, item, most + 1)
    assert was_cut and max(map(len, row.pairs)) == most + 1


def test_a_classifier_scores_the_choices_of_each_question_alone(twenty):
    items = [{**twenty[0][0], "choices": twenty[0][0]["choices"] + ["wool"]}, twenty[0][1]]
    model, tokenizer = student(ENCODER, kind="classifier")
    rows = rows_for(model, tokenizer, items, {}, "label_only")
    chunk = pad_chunk(rows, model.config.pad_token_id, None)
    assert chunk["choices"].tolist() == [4, 3] and isinstance(rows[0], ChoiceRow)
    losses = choice_losses(model, chunk)
    for number, item in enumerate(items):
        alone = torch.stack([model(**tokenizer(item["question"], choice, return_tensors="pt")).logits[0, 0]
                             for choice in item["choices"]])
        torch.testing.assert_close(choice_logits(model, chunk)[number][: len(alone)], alone, rtol=1e-4, atol=1e-5)
        right = alone.log_softmax(0)[item["choices"].index(item["answer"])]
        assert losses[number].item() == pytest.approx(-right.item(), rel=1e-4)
    assert losses.shape == (2,) and sum(row.counted for row in rows) == 2  # the mean is one over questions


# Causal students

def test_a_causal_row_counts_its_target_alone_and_every_label_is_the_token_after_it():
    chunk = pad_chunk([TokenRow(0, [5, 6], [7, 8, 1]), TokenRow(1, [5], [4, 9, 1], given=1)], pad=1, start=None,
                      causal=True)
    no = IGNORED
    assert chunk["input_ids"].tolist() == [[5, 6, 7, 8, 1], [5, 4, 9, 1, 1]]
    assert chunk["attention_mask"].tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]]  # an end token is no padding
    assert chunk["labels"].tolist() == [[no, 7, 8, 1, no], [no, 9, 1, no, no]]  # the end token is learnt
    assert chunk["task"].tolist() == [0, 1]


def test_the_labels_give_the_loss_that_the_library_computes(twenty):
    items, rationales = twenty
    model, tokenizer = student("llama")
    for row in rows_for(model, tokenizer, items[:3], rationales, "multitask"):
        chunk = pad_chunk([row], model.config.pad_token_id, None, causal=True)
        counted = chunk["labels"] != IGNORED
        with output_layer_on(model, counted.flatten().nonzero()[:, 0]):
            logits = model(input_ids=chunk["input_ids"]).logits
        loss = torch.nn.functional.cross_entropy(logits, chunk["labels"][counted])
        labels = torch.tensor([[IGNORED] * len(row.source) + row.target])  # the library moves these itself
        theirs = model(input_ids=chunk["input_ids"], labels=labels).loss
        assert loss.item() == pytest.approx(theirs.item(), rel=1e-5)
        assert row.target[-1] == tokenizer.eos_token_id and row.source[-1] != tokenizer.eos_token_id


def test_without_a_padding_token_the_end_token_pads_and_is_still_learnt(twenty, tmp_path):
    tokenizer = load_tokenizer("kdutils/mini/teacher")
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path)
    model, tokenizer = student("gpt2", str(tmp_path))
    end = end_token(tokenizer)
    assert tokenizer.pad_token_id == end == model.config.pad_token_id
    items, rationales = twenty
    rows = rows_for(model, tokenizer, items, rationales, "label_only")
    chunk = pad_chunk(rows, end, None, causal=True)
    assert ((chunk["labels"] == end).sum(1) == 1).all()
    learn(model, rows)
    assert all(one["exact"] for one in predict_questions(model, tokenizer, "label_only", items, 20))


def test_a_step_of_causal_rows_is_cut_by_their_whole_length():
    rows = [TokenRow(0, [1] * (40 - 3 * i), [2] * (3 * i + 2)) for i in range(12)]
    assert [len(chunk) for chunk in cut_rows(rows, 42 * 6, causal=True)] == [6, 6]  # all are 42 long
    assert len(cut_rows(rows, 42 * 6)) > 2


# Adapters

@pytest.mark.parametrize("family", ["t5-v1.1", "llama"])
def test_adapters_alone_are_trained_and_end_as_a_plain_model(family, twenty, tmp_path):
    items, rationales = twenty
    plain = {name: weight.clone() for name, weight in student(family)[0].state_dict().items()}
    model, tokenizer = student(family, lora={"rank": 4, "targets": "all-linear"})
    trained = [name for name, weight in model.named_parameters() if weight.requires_grad]
    assert trained and all("lora_" in name for name in trained)
    assert model_kind(model) == ("seq2seq" if family in SEQ2SEQ else "causal")
    rows = rows_for(model, tokenizer, items[:4], rationales)
    learn(model, rows, rate=1e-2, steps=4)
    kept = {name: weight for name, weight in model.get_base_model().state_dict().items() if "lora_" not in name}
    assert all(weight.equal(plain[name.replace(".base_layer", "")]) for name, weight in kept.items())
    chunk = pad_chunk(rows, model.config.pad_token_id, getattr(model.config, "decoder_start_token_id", None),
                      family == "llama")
    inputs = {name: ids for name, ids in chunk.items() if name.endswith(("ids", "mask"))}
    before = model(**inputs).logits
    merged(model).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    again, _ = load_student(str(tmp_path))
    torch.testing.assert_close(again(**inputs).logits, before, rtol=1e-4, atol=1e-4)
    assert not any("lora" in name for name, _ in again.named_parameters())
    assert not (tmp_path / "adapter_model.safetensors").exists()
    untouched, _ = student(family)
    assert not torch.allclose(untouched(**inputs).logits, before, atol=1e-3)
    assert merged(untouched) is untouched


# What does not fit

def test_what_cannot_be_a_student_is_named_before_anything_is_trained(twenty, tmp_path):
    items, rationales = twenty
    with pytest.raises(StudyError, match="a llama is not a seq2seq student"):
        student("llama", kind="seq2seq")
    with pytest.raises(StudyError, match="a t5 is not a classifier student"):
        student("t5", kind="classifier")
    with pytest.raises(StudyError, match="kind: unknown 'encoder'; known: seq2seq, causal, classifier"):
        student("t5", kind="encoder")
    with pytest.raises(StudyError, match="a distilbert cannot write, so no decoder can start from it"):
        student(ENCODER)
    with pytest.raises(StudyError, match="config: without a model it must name a model_type"):
        student({})
    with pytest.raises(StudyError, match="a t5 has no setting 'd_modle'"):
        load_student(TOKENIZER, random_weights=True, config={"d_modle": 8})
    with pytest.raises(StudyError, match="the tokenizer has 967 tokens, the model knows 300"):
        student({**FAMILIES["llama"], "vocab_size": 300})
    with pytest.raises(StudyError, match="lora: unknown 'ranks'; known: rank, alpha"):
        student("llama", lora={"ranks": 4})
    with pytest.raises(StudyError, match="which adapters alone cannot train"):
        student("bert", lora={"rank": 4})
    tokenizer = load_tokenizer(TOKENIZER)
    tokenizer.eos_token = None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(StudyError, match="llama: the tokenizer has no end token"):
        student("llama", str(tmp_path))
    model, tokenizer = student(ENCODER, kind="classifier")
    with pytest.raises(StudyError, match="'multitask' teaches to write, which a classifier cannot"):
        rows_for(model, tokenizer, items, rationales, "multitask")
    with pytest.raises(StudyError, match="question 'x': it has no choices, and a classifier can only choose"):
        rows_for(model, tokenizer, [{"id": "x", "question": "1 + 1?", "choices": [], "answer": "2"}], {}, "label_only")


def test_a_row_longer_than_the_context_is_named(twenty):
    items, rationales = twenty
    long = {**items[3], "id": "the long one", "question": "why " * 100}
    for family in ("gpt2", "bert"):
        model, tokenizer = student({**FAMILIES[family], "n_positions" if family == "gpt2" else
                                    "max_position_embeddings": 64})
        assert model_context(model) == 64
        with pytest.raises(StudyError, match="question 'the long one': .* more than the 64 positions of the model"):
            rows_for(model, tokenizer, [*items[:3], long], rationales)
        rows_for(model, tokenizer, [*items[:3], long], rationales, limit=32)  # once cut, it fits
    assert model_context(student("t5")[0]) is None


# The rows of an epoch

WRONG = {"lock": "It is a lock.", "wool": "It is wool.", "cart": "It is a cart."}
ITEM = {"id": "1", "question": "What is it?", "choices": ["lock", "mower", "wool", "cart"], "answer": "mower"}


@pytest.mark.parametrize("style", ["encoder", "decoder"])
def test_an_epoch_draws_every_wrong_answer_equally_often_and_never_the_right_one(style):
    tokenizer = load_tokenizer(TOKENIZER)
    items = [{**ITEM, "id": str(number)} for number in range(120)]
    explained = {item["id"]: Explained("It mows.", WRONG) for item in items}
    entries, _ = tokenize_rows(tokenizer, "counterfactual", {"counterfactual_style": style}, items, explained,
                               RowFormat(99, 99))
    drawn, rows = dict.fromkeys(ITEM["choices"], 0), EpochRows(entries, [item["id"] for item in items], seed=3)
    pairs = dict.fromkeys([(one, other) for one in WRONG for other in WRONG], 0)
    for epoch in range(20):
        rows.epoch, before = epoch, None
        for number in range(len(rows)):
            factual, counterfactual = rows[number]
            assert factual.task == 0 and tokenizer.decode(factual.target[:-1]) == "It mows. So the answer is mower."
            text = tokenizer.decode(counterfactual.target[counterfactual.given:], skip_special_tokens=True)
            answer = text.strip().removeprefix("So the answer is ").rstrip(".")
            drawn[answer] += 1
            pairs[before, answer] = pairs.get((before, answer), 0) + 1
            before = answer
    assert drawn.pop("mower") == 0 and sum(drawn.values()) == 2400
    assert chisquare(list(drawn.values())).pvalue > 0.01
    assert chisquare([count for (one, _), count in pairs.items() if one]).pvalue > 0.01  # nor one after another


def test_a_draw_depends_on_seed_question_and_epoch_and_on_nothing_else():
    alternatives = tuple(TokenRow(1, [5], [token]) for token in range(7))
    entries, ids = [[TokenRow(0, [5], [9]), alternatives] for _ in range(30)], [f"q{i}" for i in range(30)]

    def drawn(seed, epoch, order):
        rows = EpochRows([entries[i] for i in order], [ids[i] for i in order], seed)
        rows.epoch = epoch
        return {rows.ids[place]: rows[place][1].target[0] for place in range(len(rows))}

    forward, backward = list(range(30)), list(range(29, -1, -1))
    assert drawn(0, 5, forward) == drawn(0, 5, backward)  # a dataset made anew, as after resuming
    assert drawn(0, 5, forward) != drawn(0, 6, forward) and drawn(0, 5, forward) != drawn(1, 5, forward)
    assert len(EpochRows(entries, ids, 0)) == 30 and EpochRows(entries, ids, 0)[0][0].target == [9]


def test_what_is_given_to_the_decoder_is_not_counted():
    tokenizer = load_tokenizer(TOKENIZER)
    parameters = {"counterfactual_style": "decoder", "wrong_answers": "first"}
    explained = {"1": Explained("It mows.", WRONG)}
    (factual, wrong), = tokenize_rows(tokenizer, "counterfactual", parameters, [ITEM], explained, RowFormat(99, 99))[0]
    assert tokenizer.decode(wrong.target[: wrong.given]) == "It is a lock."
    assert tokenizer.decode(wrong.target[wrong.given: -1]) == " So the answer is lock."
    assert wrong.target[-1] == tokenizer.eos_token_id and wrong.counted == len(wrong.target) - wrong.given
    assert StepCollator(2)([[factual, wrong]])["task_tokens"].tolist() == [len(factual.target), wrong.counted]
    labels = pad_chunk([wrong, factual], 0, 0)["labels"]
    assert (labels[0] != IGNORED).sum() == wrong.counted and (labels[0][: wrong.given] == IGNORED).all()


def test_the_same_words_count_where_they_are_the_target():
    """What one question is to learn as its own explanation, another one is forced through."""
    tokenizer, parameters = load_tokenizer(TOKENIZER), {"counterfactual_style": "decoder"}
    items = [{**ITEM, "answer": "lock"}, {**ITEM, "id": "2"}]
    explained = {"1": Explained("It is a lock."), "2": Explained(None, {"lock": "It is a lock."})}
    (own,), (_, forced) = tokenize_rows(tokenizer, "counterfactual", parameters, items, explained, RowFormat(99, 99))[0]
    assert own.target == forced.target and own.given == 0 and forced.given == 8


@pytest.mark.parametrize(("style", "whole"), [("encoder", 18), ("decoder", 18), ("decoder", 12)])
def test_what_is_too_long_is_cut_from_the_rationale_and_never_from_the_answer(style, whole):
    tokenizer = load_tokenizer(TOKENIZER)
    long = {answer: text * 9 for answer, text in WRONG.items()}
    parameters = {"counterfactual_style": style, "wrong_answers": "first"}
    entries, cuts = tokenize_rows(tokenizer, "counterfactual", parameters, [ITEM],
                                  {"1": Explained("It mows. " * 9, long)}, RowFormat(99, whole))
    factual, wrong = entries[0]
    assert cuts["targets"] == (2 if style == "decoder" else 1)
    assert len(factual.target) == whole and tokenizer.decode(factual.target[:-1]).endswith("So the answer is mower.")
    assert tokenizer.decode(wrong.target[wrong.given: -1]).strip() == "So the answer is lock."
    with pytest.raises(StudyError, match="of question '1', takes 15 tokens, more than 12"):
        tokenize_rows(tokenizer, "counterfactual", {}, [{**ITEM, "answer": " ".join(["mower"] * 8)}], {},
                      RowFormat(99, 12))
