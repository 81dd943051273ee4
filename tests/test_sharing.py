"""The rows of a question in one sequence: against a definition by brute force, and against rows that run separately."""

import random
from collections import Counter

import pytest
import torch
from test_byte_vocabulary import byt5  # noqa: F401
from test_loss import DECODER, PARAMETERS, SMALL, WEIGHTS, assert_as_by_hand, assert_equal, exact, loss_by_hand
from test_loss import step_with_trainer as step
from test_predicting import by_hand
from test_students import FAMILIES, ITEM, student

from kdutils.data.mini_world import true_rationale
from kdutils.errors import StudyError
from kdutils.hub import model_context
from kdutils.student import attention, fast_layers, predicting, sharing, trainer
from kdutils.student.attention import attends_in_blocks
from kdutils.student.chunks import cut_shared, packed, pad_shared
from kdutils.student.collating import SEPARATOR, EpochRows, RowFormat, shared, tokenize_rows
from kdutils.student.methods import Explained, apply_control, taught_method
from kdutils.student.models import load_student
from kdutils.student.predicting import generate, generate_each, score_choices
from kdutils.student.rows import SharedRows, TokenRow, counted_tokens, of_task
from kdutils.student.sharing import shares_tokens

GPT2 = {**FAMILIES["gpt2"], "n_positions": 512}
LLAMA = {"model_type": "llama", "num_key_value_heads": 2, **SMALL}
SHARING = {
    "llama": LLAMA,
    "gpt2": GPT2,
    "qwen3": {"model_type": "qwen3", "num_key_value_heads": 2, "head_dim": 8, **SMALL},
    "granite": {"model_type": "granite", "num_key_value_heads": 2, "logits_scaling": 3.0, **SMALL},
}
SEPARATE = {  # models for which one sequence would be wrong
    "near tokens only": {"model_type": "mistral", "num_key_value_heads": 2, "sliding_window": 6, **SMALL},
    "recurrent": {"model_type": "mamba", "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
    "convolution": {"model_type": "lfm2", "num_key_value_heads": 2, "layer_types": ["conv", "full_attention"], **SMALL},
    "ALiBi": {"model_type": "bloom", "hidden_size": 32, "n_layer": 2, "n_head": 4, "hidden_dropout": 0.0,
              "attention_dropout": 0.0},
    "near tokens in every second layer": {
        "model_type": "gpt_neo", "hidden_size": 32, "num_layers": 2, "num_heads": 4, "window_size": 6,
        "attention_types": [[["global", "local"], 1]], "max_position_embeddings": 512, "embed_dropout": 0.0,
        "attention_dropout": 0.0, "resid_dropout": 0.0},
}


SELECTING = {"model_type": "doge", "num_key_value_heads": 2, "keep_window_size": 64, **SMALL}  # so many tokens are seen


# A sequence against the definition

def random_rows(draw):
    """Return rows of a question over so few tokens that beginnings, whole rows and beginnings of rows are equal."""
    rows = []
    for _ in range(draw.randint(1, 6)):
        source = [draw.randint(1, 2) for _ in range(draw.randint(1, 5))]
        target = [draw.randint(1, 2) for _ in range(draw.randint(1, 5))]
        rows.append(TokenRow(draw.randint(0, 2), source, target, draw.randint(0, len(target) - 1)))
    return rows + [draw.choice(rows)] * draw.randint(0, 1)


def beginnings(row):
    """Return what each input of a row sees: its tokens up to there. The last token of a row is no input."""
    text = row.source + row.target
    return [tuple(text[: place + 1]) for place in range(len(text) - 1)]


def wanted_of(rows):
    """Return {(tokens before, the next token, task): how many of the rows count it in the loss}."""
    return Counter((tuple(row.source + row.target[:place]), row.target[place], row.task)
                   for row in rows for place in range(row.given, len(row.target)))


@pytest.mark.parametrize("seed", range(200))
def test_each_token_of_a_sequence_sees_the_tokens_before_it_in_its_own_row(seed):
    rows = random_rows(random.Random(seed))
    one = SharedRows(rows)
    paths = [[before for before in range(place + 1) if place < one.ends[before]] for place in range(len(one.ids))]
    seen = [tuple(one.ids[place] for place in path) for path in paths]
    assert sorted(seen) == sorted({beginning for row in rows for beginning in beginnings(row)})
    assert one.depths == [len(tokens) - 1 for tokens in seen]
    assert Counter((seen[place], token, task) for place, token, task in one.counted) == wanted_of(rows)
    assert one.source == one.ids and of_task([one], 1) == [row for row in rows if row.task == 1]
    assert counted_tokens([one], 3) == [sum(row.counted for row in rows if row.task == task) for task in range(3)]


def test_equal_rows_a_row_that_begins_another_and_targets_of_one_token():
    same = TokenRow(0, [5, 6], [7, 1])
    assert SharedRows([same, same]).ids == [5, 6, 7] and len(SharedRows([same, same]).counted) == 4
    shorter, longer = TokenRow(0, [5, 6], [7]), TokenRow(1, [5, 6, 7], [8, 1])
    assert SharedRows([longer, shorter]).ids == [5, 6, 7, 8]
    assert sorted(SharedRows([longer, shorter]).counted) == [(1, 7, 0), (2, 8, 1), (3, 1, 1)]
    one_token = SharedRows([TokenRow(task, [5, 6], [7 + task]) for task in range(3)])
    assert one_token.ids == [5, 6] and one_token.counted == [(1, 7, 0), (1, 8, 1), (1, 9, 2)]
    given = SharedRows([TokenRow(0, [5], [6, 7, 1], given=2), TokenRow(1, [5], [6, 8, 1], given=1)])
    assert given.ids == [5, 6, 7, 8] and given.counted == [(2, 1, 0), (1, 8, 1), (3, 1, 1)]


@pytest.mark.parametrize("seed", range(50))
def test_the_tensors_of_all_chunks_say_the_same_whatever_the_budget(seed):
    draw = random.Random(f"chunks {seed}")
    questions = [random_rows(draw) for _ in range(draw.randint(1, 12))]
    found = Counter()
    for chunk in cut_shared(shared(questions), draw.randint(1, 60)):
        tensors = pad_shared(chunk, 9)
        ids, depths, sees = (tensors[name] for name in ("input_ids", "position_ids", "attention_mask"))
        length = ids.shape[1]
        assert depths.shape == ids.shape and sees.shape == (len(ids), 1, length, length) and sees.any(-1).all()
        for place, token, task in zip(*(tensors[name].tolist() for name in ("places", "tokens", "of")), strict=True):
            row, column = divmod(place, length)
            visible = sees[row, 0, column].nonzero()[:, 0]
            assert depths[row, visible].tolist() == list(range(len(visible)))
            found[tuple(ids[row, visible].tolist()), token, task] += 1
        flat = pad_shared(chunk, 9, blocks=True)
        places = flat["block_places"]
        assert len(places) == sum(len(row.ids) for row in chunk) and torch.equal(flat["attention_mask"], sees)
        for name in ("input_ids", "position_ids"):
            assert torch.equal(flat[name], tensors[name].flatten()[None, places])
        assert torch.equal(places[flat["places"]], tensors["places"])
    assert found == sum(map(wanted_of, questions), Counter())


def test_no_chunk_exceeds_the_budget_and_no_sequence_the_longest_question():
    draw = random.Random(0)
    rows = shared([[TokenRow(0, [draw.randint(1, 9) for _ in range(draw.randint(2, 40))], [1])] for _ in range(300)])
    for budget in (1, 50, 200, 10**6):
        chunks = cut_shared(rows, budget)
        assert sorted(id(row) for chunk in chunks for row in chunk) == sorted(map(id, rows))
        for chunk in chunks:
            longest = max(len(row.ids) for row in chunk)
            lengths = [sum(len(row.ids) for row in one) for one in packed(chunk)]
            assert max(lengths) == longest and (len(chunk) == 1 or sum(lengths) <= budget)
        lengths = [sum(len(row.ids) for row in chunk) for chunk in chunks]
        assert all(sum(pair) > budget for pair in zip(lengths, lengths[1:], strict=False)), "no more chunks than needed"
    whole, = chunks
    assert len(packed(whole)) <= 1.2 * sum(len(row.ids) for row in rows) / 40, "next to no padding"
    assert cut_shared([], 100) == [] and shared([[], []]) == []


# Loss and gradients

@pytest.fixture(scope="module")
def told(questions):
    """What a teacher wrote on every question: a rationale for the answer and for each wrong one."""
    return {item["id"]: Explained(questions[1][item["id"]], {
        choice: true_rationale(item["question"], item["choices"], choice)
        for choice in item["choices"] if choice != item["answer"]}) for item in questions[0].to_dict("records")}


def groups_of(tokenizer, questions, told, method, parameters, tag, count=5, kind="causal"):
    """Return the rows of some questions; the last one has no explanation."""
    items = questions[0][questions[0]["split"] == "train"].head(count).to_dict("records")
    told = apply_control(method, parameters, items, {**told, items[-1]["id"]: Explained()}, 0)
    entries, _ = tokenize_rows(tokenizer, method, parameters, items, told, RowFormat(128, 128, kind, None, tag))
    return [EpochRows(entries, [item["id"] for item in items], 0)[i] for i in range(count)]


def causal(config, **more):
    model, tokenizer = student(config, seed=2, **more)
    return exact(model), tokenizer


def sensitive(config):
    """Return a student of random weights so large that what a token sees changes its logits clearly."""
    model, tokenizer = causal(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(4.0 if weight.dim() > 1 else 1.0)
    return model, tokenizer


@pytest.fixture(scope="module")
def llama():
    return causal(LLAMA)


CASES = [("multitask", {}), ("combined", {}), ("combined", DECODER), ("counterfactual", {}), ("standard", {}),
         ("untagged", DECODER), ("token_rationale", {}), ("label_only", {})]


@pytest.mark.parametrize("tag", ["before", "after"])
@pytest.mark.parametrize(("method", "style"), CASES, ids=lambda value: value if isinstance(value, str) else
                         value.get("counterfactual_style", "encoder"))
def test_a_step_equals_one_row_by_row(llama, questions, told, method, style, tag, tmp_path):
    groups = groups_of(llama[1], questions, told, method, {**PARAMETERS, **style}, tag)
    assert shares_tokens(llama[0])
    assert_as_by_hand(llama[0], groups, WEIGHTS[method], tmp_path)


def test_the_tag_behind_the_question_is_what_is_shared(llama, questions, told):
    """A tag before the question leaves next to nothing that two rows have in common."""
    tokens = {}
    for tag in ("before", "after"):
        groups = groups_of(llama[1], questions, told, "multitask", PARAMETERS, tag)
        separate = sum(len(row.source + row.target) - 1 for group in groups for row in group)
        tokens[tag] = sum(len(one.ids) for one in shared(groups)) / separate
    assert tokens["before"] > 0.95 > 0.75 > tokens["after"]


@pytest.mark.parametrize("name", SHARING)
@pytest.mark.parametrize("tied", [False, True])
def test_a_step_of_every_architecture_equals_one_row_by_row(questions, told, name, tied, tmp_path, monkeypatch):
    monkeypatch.setattr(fast_layers, "VOCABULARY", 900)  # as the embedding of a large vocabulary
    model, tokenizer = causal({**SHARING[name], "tie_word_embeddings": tied})
    assert shares_tokens(model) and (model.get_input_embeddings().weight is model.lm_head.weight) is tied
    groups = groups_of(tokenizer, questions, told, "combined", {**PARAMETERS, **DECODER}, "after")
    assert_as_by_hand(model, groups, WEIGHTS["combined"], tmp_path)
    assert type(model.get_input_embeddings()) is fast_layers.QuickEmbedding
    assert attends_in_blocks(model)


def test_a_model_that_would_not_tell_attention_the_blocks_keeps_its_padding(questions, told, tmp_path, monkeypatch):
    monkeypatch.setattr(attention, "_in_blocks", lambda tensor, places, blocks, length: tensor)
    model, tokenizer = causal(LLAMA)
    groups = groups_of(tokenizer, questions, told, "multitask", PARAMETERS, "after")
    step(model, groups, WEIGHTS["multitask"], tmp_path, 700)
    assert shares_tokens(model) and not attends_in_blocks(model)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_the_gradients_of_adapters_equal_those_row_by_row(questions, told, name, tmp_path):
    model, tokenizer = causal(SHARING[name], lora={"rank": 2, "targets": "all-linear"})
    torch.manual_seed(1)
    for weight in (one for one in model.parameters() if one.requires_grad):
        torch.nn.init.normal_(weight, std=0.1)  # the second half of an adapter begins at zero, the first learns nothing
    assert shares_tokens(model)
    groups = groups_of(tokenizer, questions, told, "combined", PARAMETERS, "after")
    assert_as_by_hand(model, groups, WEIGHTS["combined"], tmp_path)
    assert all(one.grad is None or "lora_" in key for key, one in model.named_parameters())


def test_a_step_in_any_number_of_chunks_and_with_layers_computed_twice_is_the_same(llama, questions, told, tmp_path):
    model, tokenizer = llama
    groups = groups_of(tokenizer, questions, told, "combined", PARAMETERS, "after")
    budgets = {}
    for budget in range(10**4, 0, -50):
        budgets.setdefault(len(cut_shared(shared(groups), budget)), budget)
    assert {1, 2, len(groups)} <= set(budgets)
    whole_loss, whole, _ = step(model, groups, WEIGHTS["combined"], tmp_path, budgets[1])
    for budget in budgets.values():
        loss, gradients, _ = step(model, groups, WEIGHTS["combined"], tmp_path, budget)
        assert loss == pytest.approx(whole_loss, rel=1e-12)
        assert_equal(gradients, whole)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    loss, gradients, _ = step(model, groups, WEIGHTS["combined"], tmp_path, budgets[2])
    model.gradient_checkpointing_disable()
    assert loss == pytest.approx(whole_loss, rel=1e-12)
    assert_equal(gradients, whole)


def test_a_question_without_rows_and_a_task_whose_gradient_is_not_finite(llama, questions, told, tmp_path, monkeypatch):
    model, tokenizer = llama
    groups = groups_of(tokenizer, questions, told, "multitask", PARAMETERS, "after")
    weights = WEIGHTS["multitask"]
    loss, gradients, _ = step(model, [*groups, []], weights, tmp_path, 700)
    assert loss == pytest.approx(step(model, groups, weights, tmp_path, 700)[0], rel=1e-12)

    def steep(model, chunk, scale, *more):
        total, sums = trainer_loss(model, chunk, scale)
        zero = next(model.parameters()).sum() * 0
        return total + (zero.sqrt() if (chunk["of"] == 1).any() else 0), sums

    trainer_loss = trainer.step_loss
    monkeypatch.setattr(trainer, "step_loss", steep)
    with pytest.raises(trainer.Diverged, match="the gradient's norm became nan at step 1, task 'explain', learning"):
        step(model, groups, weights, tmp_path, 700)


# Models that must not share

@pytest.mark.parametrize("name", SEPARATE)
def test_a_model_that_needs_separate_rows_gets_them(questions, told, name, tmp_path):
    model, tokenizer = sensitive(SEPARATE[name])
    assert not shares_tokens(model)
    groups = groups_of(tokenizer, questions, told, "multitask", PARAMETERS, "after")
    weights = WEIGHTS["multitask"]
    loss, gradients, _ = step(model, groups, weights, tmp_path, 10**4)
    model.zero_grad()
    by_hand = loss_by_hand(model, groups, list(weights.values()))
    by_hand.backward()
    assert loss == pytest.approx(by_hand.item(), rel=1e-6)  # some compute a softmax in float32 all the same
    for key, weight in model.named_parameters():
        torch.testing.assert_close(gradients[key], weight.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["near tokens only", "convolution"])
def test_for_such_a_model_one_sequence_would_be_wrong(questions, told, name, tmp_path, monkeypatch):
    """What the test above would find if shares_tokens said yes."""
    model, tokenizer = sensitive(SEPARATE[name])
    groups = groups_of(tokenizer, questions, told, "multitask", PARAMETERS, "after")
    by_hand = loss_by_hand(model, groups, list(WEIGHTS["multitask"].values())).item()
    monkeypatch.setattr(trainer, "shares_tokens", lambda model: True)
    assert step(model, groups, WEIGHTS["multitask"], tmp_path, 10**4)[0] != pytest.approx(by_hand, rel=1e-5)


def test_an_attention_that_adds_its_mask_gets_separate_rows(questions, told, llama, tmp_path):
    model, tokenizer = causal(LLAMA)
    model.set_attn_implementation("eager")
    groups = groups_of(tokenizer, questions, told, "multitask", PARAMETERS, "after")
    assert not shares_tokens(model) and shares_tokens(llama[0])
    assert_as_by_hand(model, groups, WEIGHTS["multitask"], tmp_path)


def test_other_kinds_of_students_and_half_precision_do_not_share(tiny):
    assert not shares_tokens(tiny[0])
    assert not shares_tokens(load_student("", "kdutils/mini/student", True, FAMILIES["bert"], kind="classifier")[0])
    assert not shares_tokens(load_student("", "kdutils/mini/student", True, SELECTING)[0])
    known, unknown = (load_student("", "kdutils/mini/student", True, LLAMA)[0] for _ in range(2))
    assert shares_tokens(known) and shares_tokens(known.bfloat16()), "found out before the weights were rounded"
    assert not shares_tokens(unknown.bfloat16()), "rounding would hide a difference"


def test_a_memory_error_is_none_of_a_model_that_cannot_share(monkeypatch, llama):
    def out_of_memory(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(sharing, "_counted", out_of_memory)
    monkeypatch.delitem(sharing.KNOWN, llama[0], raising=False)
    with pytest.raises(torch.OutOfMemoryError):
        shares_tokens(llama[0])


# Scores and texts of a trained student

WRITERS = {"llama": LLAMA, "gpt2": GPT2, "separate": SEPARATE["near tokens only"], "t5": FAMILIES["t5"]}
ITEMS = [ITEM, {**ITEM, "id": "2", "question": "Why is it what it is, then?", "choices": ["wool", "wool cart", "wool"]},
         {**ITEM, "id": "3", "choices": []},
         {**ITEM, "id": "4", "question": "Is it a cow? " * 12, "choices": ["lock", "mower lock"]}]


@pytest.mark.parametrize("name", ["llama", "gpt2", "separate"])
@pytest.mark.parametrize("tag", ["before", "after"])
def test_scores_behind_a_forced_text_equal_a_plain_forward_pass_of_each_choice(name, tag):
    model, tokenizer = sensitive(WRITERS[name])
    assert shares_tokens(model) is (name != "separate")
    for method, prefixes in (("multitask", None), ("counterfactual", ["It is.", "", "x", "It has wool and fur. " * 9]),
                             ("untagged", ["It is a cow."] * 4)):
        asks = taught_method(method, tag)
        for budget in (1, 150, 4096):
            scores, tokens = score_choices(model, tokenizer, ITEMS, asks, prefixes, None, budget)
            assert scores[2] == tokens[2] == []
            for number in (0, 1, 3):
                head = f"{prefixes[number]} " if prefixes and prefixes[number] else ""
                expected = [by_hand(model, tokenizer, asks.source(ITEMS[number], asks.answer), head, choice, method)
                            for choice in ITEMS[number]["choices"]]
                assert scores[number] == pytest.approx([total for total, _ in expected], rel=1e-9)
                assert tokens[number] == [count for _, count in expected]


@pytest.mark.parametrize("name", ["llama", "gpt2", "separate"])
@pytest.mark.parametrize("tag", ["before", "after"])
def test_a_causal_model_reads_question_and_forced_text_once_for_all_choices(name, tag):
    """By hand: what two choices begin with in common counts once, and the end of the text is only predicted then."""
    (model, tokenizer), read, apart, once = sensitive(WRITERS[name]), [], 0, 0
    asks, forced = taught_method("counterfactual", tag), ["It is.", "", "x", LONG]
    score_choices(model, tokenizer, ITEMS, asks, forced)  # the first call tries the model out
    for item, text in zip(ITEMS, forced, strict=True):
        heads = asks.source(item, asks.answer) + SEPARATOR, f"{text} " if text else ""
        rows = [tokenizer(heads[0], add_special_tokens=False)["input_ids"]
                + tokenizer(heads[1] + asks.says(choice), add_special_tokens=False)["input_ids"]
                for choice in item["choices"]]
        apart += sum(len(row) + 1 for row in rows)  # with the end token
        once += len({tuple(row[:end]) for row in rows for end in range(1, len(row) + 1)})
    model.register_forward_pre_hook(lambda module, args, inputs: read.append(inputs["input_ids"].numel()),
                                    with_kwargs=True)
    score_choices(model, tokenizer, ITEMS, asks, forced, None, 1)  # a question at a time, so without padding
    assert sum(read) == (apart if name == "separate" else once)
    assert once < 0.5 * apart


LONG = "It has wool and fur. " * 9
ROBERTA = {**FAMILIES["bert"], "model_type": "roberta"}  # with a start token that pads, too, it counts places wrongly


@pytest.mark.parametrize("name", ["t5", "t5-v1.1", "bert", "bytes", "roberta"])
def test_an_encoder_decoder_reads_a_forced_text_once_and_scores_as_in_a_plain_forward_pass(name, byt5):  # noqa: F811
    """T5 has relative positions, BERT places of its own; a forced text of bytes is not cut where a word ends."""
    config = {"bytes": FAMILIES["t5"], "roberta": ROBERTA}.get(name) or FAMILIES[name]
    model, tokenizer = student(config, byt5 if name == "bytes" else "kdutils/mini/student", seed=3)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(2.0 if weight.dim() > 1 else 1.0)
    model, forced, read = model.double(), ["It is.", "", "x", LONG], []
    for method, prefixes in (("multitask", None), ("counterfactual", forced)):
        asks, separate = taught_method(method), 0
        for budget in (1, 400, 10**5):
            scores, _ = score_choices(model, tokenizer, ITEMS, method, prefixes, None, budget)
            for number in (0, 1, 3):
                head = f"{prefixes[number]} " if prefixes and prefixes[number] else ""
                expected = [by_hand(model, tokenizer, asks.source(ITEMS[number], asks.answer), head, choice, method)[0]
                            for choice in ITEMS[number]["choices"]]
                assert scores[number] == pytest.approx(expected, rel=1e-9)
                separate += sum(len(tokenizer(head + asks.says(choice))["input_ids"])
                                for choice in ITEMS[number]["choices"]) * (budget == 1)
    model.get_decoder().register_forward_pre_hook(
        lambda module, args, inputs: read.append(inputs["input_ids"].numel()), with_kwargs=True)
    score_choices(model, tokenizer, ITEMS, method, forced, None, 1)
    assert sum(read) < 0.6 * separate or name == "roberta" and sum(read) >= separate


def asked(tag, *more):
    """Return the sources of questions of very different length, one of them twice, and some of `more`."""
    asks = taught_method("multitask", tag)
    items = [*ITEMS, ITEMS[0], {**ITEM, "question": "why " * 60}, {**ITEM, "question": "why"}, *more]
    return [[asks.source(item, "predict"), asks.source(item, "explain")] for item in items]


def kinds_apart(model, tokenizer, sources, limits):
    texts = [generate(model, tokenizer, list(of_kind), limit)
             for of_kind, limit in zip(zip(*sources, strict=True), limits, strict=True)]
    return [list(of_item) for of_item in zip(*texts, strict=True)]


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("tag", ["before", "after"])
def test_texts_of_several_sources_equal_those_of_each_alone(name, tag, monkeypatch):
    model, tokenizer = sensitive(WRITERS[name])
    sources, alone = asked(tag), []
    wanted = kinds_apart(model, tokenizer, sources, [4, 9])
    assert len({text for texts in wanted for text in texts}) > 4, "what is written depends on what is read"
    monkeypatch.setattr(predicting, "generate", lambda *words: alone.append(1) or generate(*words))
    for budget in (1, 150, 4096):
        assert generate_each(model, tokenizer, sources, [4, 9], budget) == wanted
    assert len(alone) == (0 if tag == "after" and name in ("llama", "gpt2") else 6)
    assert generate_each(model, tokenizer, [[texts[1]] for texts in sources], [9]) == [[two] for _, two in wanted]
    assert generate_each(model, tokenizer, [["a b c", "it is a cow"], ["why", "x"]], [3, 3]) == kinds_apart(
        model, tokenizer, [["a b c", "it is a cow"], ["why", "x"]], [3, 3]), "nothing is shared"


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_texts_that_end_at_once_are_empty_in_both_ways(name):
    model, tokenizer = sensitive(WRITERS[name])
    sources = asked("after")
    ends = {tokenizer(text, add_special_tokens=False)["input_ids"][0]
            for texts in kinds_apart(model, tokenizer, sources, [1, 1])[:3] for text in texts if text}
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, *sorted(ends)]
    wanted = kinds_apart(model, tokenizer, sources, [8, 12])
    lengths = {len(tokenizer(text)["input_ids"]) for texts in wanted for text in texts}
    assert min(lengths) <= 2 < max(lengths)
    assert generate_each(model, tokenizer, sources, [8, 12]) == wanted


def test_a_source_cut_to_the_context_keeps_its_tag_and_is_read_alike():
    model, tokenizer = sensitive({**GPT2, "n_positions": 64})
    sources = asked("after", {**ITEM, "question": "cow " * 200, "choices": []})
    assert model_context(model) == 64
    assert generate_each(model, tokenizer, sources, [6, 20]) == kinds_apart(model, tokenizer, sources, [6, 20])
    read, written = [], model.generate
    model.generate = lambda **inputs: read.append(inputs["input_ids"]) or written(**inputs)
    generate(model, tokenizer, [sources[-1][1]], 20)
    text = tokenizer.decode(read[0][0])
    assert len(read[0][0]) == 64 - 20 and text.startswith("Question: cow cow") and text.endswith("cow\n[explain]\n")
    with pytest.raises(StudyError, match="60 tokens to write are too many for a model with 64 posi"):
        generate(model, tokenizer, ["Why?"], 60)
