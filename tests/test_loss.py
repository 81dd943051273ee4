"""The loss of a step: against a float64 computation by hand, and equal however the step is cut."""

import copy
import functools
import math

import pytest
import torch

from kdutils.data.mini_world import true_rationale
from kdutils.errors import StudyError
from kdutils.student import fast_layers
from kdutils.student import trainer as trainer_module
from kdutils.student.chunks import cut_rows, pad_chunk
from kdutils.student.collating import EpochRows, RowFormat, tokenize_rows
from kdutils.student.fast_layers import QuickDropout, QuickEmbedding, use_fast_layers
from kdutils.student.loss import LAST, LOGITS, HeadLoss, last_layer, step_loss
from kdutils.student.methods import METHODS, Explained, apply_control, task_weights
from kdutils.student.models import load_student, model_kind
from kdutils.student.rows import IGNORED, ChoiceRow, TokenRow
from kdutils.student.trainer import Diverged, StudyTrainer, training_arguments
from kdutils.student.training import Recipe, worked_loss

PARAMETERS = {"alpha": 0.3, "beta": 0.4, "gamma": 0.6}
TWO, TOKENS = {"predict": 0.3, "explain": 0.7}, {"predict": 0.3, "tokens": 0.7}
BOTH = {"factual": 0.4, "counterfactual": 0.6}
WEIGHTS = {  # of PARAMETERS, worked out by hand
    "label_only": {"predict": 1.0}, "standard": {"predict": 1.0}, "multitask": TWO, "counterfactual": BOTH,
    "combined": {"predict": 0.18, "explain": 0.42, "factual": 0.16, "counterfactual": 0.24},
    "token_rationale": TOKENS, "shuffled": TWO, "random_tokens": TOKENS, "untagged": BOTH,
    "token_kl": TWO,
    "soft_label": {"predict": 1.0}, "soft_multitask": TWO, "soft_shuffled": TWO,
}
DECODER = {"counterfactual_style": "decoder"}
LIMITS = {"max_source_tokens": 128, "max_target_tokens": 128}
CASES = [(method, {}) for method in METHODS]
CASES += [(method, DECODER) for method in ("counterfactual", "combined", "untagged")]
SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
SHAPES = {
    "causal": {"model_type": "llama", "num_key_value_heads": 2, **SMALL},
    "scaled": {"model_type": "granite", "num_key_value_heads": 2, "logits_scaling": 3.0, **SMALL},
    "warm-started": {"model_type": "bert", "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, **SMALL},
    "classifier": {"model_type": "bert", "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, **SMALL},
}


def exact(model):
    """Return a model in float64, also where the library always computes in float32."""
    def rotate(layer, x, position_ids):
        angles = position_ids[..., None].to(x.dtype) * layer.inv_freq.to(x.dtype)
        both = torch.cat((angles, angles), dim=-1)
        return both.cos(), both.sin()

    def normalise(layer, x):
        return layer.weight * x * (x.pow(2).mean(-1, keepdim=True) + layer.variance_epsilon).rsqrt()

    for module in model.double().modules():
        for name, forward in (("RotaryEmbedding", rotate), ("RMSNorm", normalise)):
            if type(module).__name__.endswith(name):
                module.forward = functools.partial(forward, module)
    return model


@pytest.fixture(scope="module")
def students(tiny):
    """One model in float64 of each kind and of each way that its logits are made, and the tokenizer."""
    made = {name: exact(load_student("", "kdutils/mini/student", random_weights=True, config=shape, seed=2,
                                     kind="classifier" if name == "classifier" else "")[0])
            for name, shape in SHAPES.items()}
    return {"seq2seq": tiny[0], **made}, tiny[1]


@pytest.fixture(scope="module")
def explained(questions):
    """What a teacher gave: a rationale for the answer and for two wrong ones, and a soft label."""
    found = {}
    for item in questions[0].to_dict("records"):
        wrong = [choice for choice in item["choices"] if choice != item["answer"]][:2]
        found[item["id"]] = Explained(questions[1][item["id"]], {
            choice: true_rationale(item["question"], item["choices"], choice) for choice in wrong}, soft={
            choice: share for choice, share in zip(item["choices"], (0.4, 0.3, 0.2, 0.1, 0.0), strict=True)})
    return found


def rows_for(students, questions, explained, method, parameters=None, kind="seq2seq", count=6):
    items = questions[0][questions[0]["split"] == "train"].head(count).to_dict("records")
    explained = {**explained, items[-1]["id"]: Explained(soft=explained[items[-1]["id"]].soft)}
    entries, _ = tokenize_rows(students[1], method, parameters or {}, items,
                               apply_control(method, parameters or {}, items, explained, 0), RowFormat(128, 128, kind))
    return [EpochRows(entries, [item["id"] for item in items], 0)[i] for i in range(count)]


def loss_by_hand(model, groups, weights):
    """Σ_t w_t · mean over the task's counted target tokens of −log p: row by row, no padding, plain log-softmax.

    A token counts as much as its row weighs.
    """
    nll, count = [0.0] * len(weights), [0] * len(weights)
    for row in (row for group in groups for row in group):
        if isinstance(row, ChoiceRow):
            scores = torch.cat([model(input_ids=torch.tensor([pair])).logits[0] for pair in row.pairs])
            nll[row.task] = nll[row.task] - (scores[row.gold] - torch.logsumexp(scores, 0))
            count[row.task] += 1
            continue
        if model_kind(model) == "causal":
            logits = model(input_ids=torch.tensor([row.source + row.target])).logits[0, len(row.source) - 1:]
        else:
            decoder = torch.tensor([[model.config.decoder_start_token_id, *row.target[:-1]]])
            logits = model(input_ids=torch.tensor([row.source]), decoder_input_ids=decoder).logits[0]
        for position in range(row.given, len(row.target)):
            token = row.target[position]
            log_p = logits[position][token] - torch.logsumexp(logits[position], 0)
            nll[row.task] = nll[row.task] - row.weight * log_p
            count[row.task] += row.weight
    return sum(w * n / c for w, n, c in zip(weights, nll, count, strict=True))


def step_with_trainer(model, groups, weights, tmp_path, budget, trainer_class=StudyTrainer):
    """Return (loss, gradients, trainer) of one training step of the real trainer; `weights`: {task: weight}."""
    model.zero_grad()
    trainer = trainer_class(
        model=model, args=training_arguments(tmp_path, 0, 1, len(groups), 1e-3, 0, 1, 1), train_dataset=groups,
        weights=list(weights.values()), tasks=list(weights), token_budget=budget, dev_rows=[], dev_accuracy=None,
        start=getattr(model.config, "decoder_start_token_id", None), pad=model.config.pad_token_id)
    trainer.create_optimizer_and_scheduler(10)
    loss = trainer.training_step(model, trainer.data_collator(groups))
    exact = (trainer.step["means"] * trainer.step_weights).sum()
    assert loss.item() == pytest.approx(exact.item(), rel=1e-6, nan_ok=True)
    gradients = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    trainer._clip_grad_norm(model)
    return exact.item(), gradients, trainer


def assert_equal(gradients, wanted):
    assert gradients.keys() == wanted.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, wanted[name], rtol=1e-8, atol=1e-11)


def assert_as_by_hand(model, groups, weights, tmp_path, budget=700):
    model.zero_grad()
    expected = loss_by_hand(model, groups, list(weights.values()))
    expected.backward()
    wanted = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    loss, gradients, _ = step_with_trainer(model, groups, weights, tmp_path, budget)
    assert loss == pytest.approx(expected.item(), rel=1e-10)
    assert_equal(gradients, wanted)


@pytest.mark.parametrize(("method", "style"), CASES, ids=lambda value: value if isinstance(value, str) else
                         value.get("counterfactual_style", "encoder"))
def test_loss_and_gradients_equal_a_computation_by_hand(students, questions, explained, method, style, tmp_path):
    parameters = {**PARAMETERS, **style}
    groups = rows_for(students, questions, explained, method, parameters)
    assert task_weights(method, parameters) == pytest.approx(WEIGHTS[method])
    given = [row.given for group in groups for row in group]
    assert any(given) is (style == DECODER)
    assert_as_by_hand(students[0]["seq2seq"], groups, WEIGHTS[method], tmp_path)


@pytest.mark.parametrize("name", SHAPES)
def test_loss_and_gradients_of_the_other_students_equal_one_by_hand(students, questions, explained, name, tmp_path):
    model, method = students[0][name], "label_only" if name == "classifier" else "combined"
    groups = rows_for(students, questions, explained, method, {**PARAMETERS, **DECODER}, model_kind(model))
    chunk = pad_chunk(groups[0], model.config.pad_token_id, 0, model_kind(model) == "causal")
    assert (last_layer(model, chunk) is not None) is (name in ("causal", "warm-started"))
    assert_as_by_hand(model, groups, WEIGHTS[method], tmp_path)


@pytest.mark.parametrize("tied", [False, True])
def test_gradients_of_a_large_vocabulary_equal_those_by_hand(students, questions, explained, tied, tmp_path,
                                                             monkeypatch):
    """They are added to what stands, and to those of the output layer where the two share a weight."""
    model = exact(load_student("", "kdutils/mini/student", random_weights=True, seed=2, config={
        **SHAPES["causal"], "tie_word_embeddings": tied})[0])
    groups = rows_for(students, questions, explained, "combined", PARAMETERS, "causal")
    model.zero_grad()
    loss_by_hand(model, groups, list(WEIGHTS["combined"].values())).backward()
    wanted = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    monkeypatch.setattr(fast_layers, "VOCABULARY", 900)
    assert_equal(step_with_trainer(model, groups, WEIGHTS["combined"], tmp_path, 700)[1], wanted)
    assert type(model.model.embed_tokens) is QuickEmbedding


def test_half_precision_keeps_the_softmax_and_the_sums_in_float32(questions, explained, students):
    """As accelerate wraps a model for a GPU: its forward in bfloat16, what it returns in float32."""
    from accelerate.utils import convert_outputs_to_fp32

    model = load_student("kdutils/mini/student", random_weights=True, seed=1)[0]
    rows = [row for group in rows_for(students, questions, explained, "multitask") for row in group]
    chunk, scale, found = pad_chunk(rows, 0, 0), torch.tensor([0.01, 0.01]), []
    for half in (False, True):
        if half:
            model.forward = convert_outputs_to_fp32(torch.autocast("cpu", torch.bfloat16)(model.forward))
            LAST.pop(model)
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            total, sums = step_loss(model, chunk, scale)
        assert last_layer(model, chunk) is not None and total.dtype == torch.float32
        total.backward()
        found.append((total.item(), sums, model.lm_head.weight.grad.flatten()))
    assert found[1][0] == pytest.approx(found[0][0], rel=0.01) and found[1][0] != found[0][0]
    assert torch.nn.functional.cosine_similarity(found[0][2], found[1][2], dim=0) > 0.999


@pytest.mark.parametrize("kind", ["seq2seq", "causal", "classifier"])
def test_a_step_in_one_two_or_four_chunks_is_the_same_step(students, questions, explained, kind, tmp_path):
    model, method = students[0][kind], "label_only" if kind == "classifier" else "combined"
    groups = rows_for(students, questions, explained, method, PARAMETERS, kind)
    rows = [row for group in groups for row in group]
    budgets = {}
    for budget in range(10**4, 0, -10):
        budgets.setdefault(len(cut_rows(rows, budget, kind == "causal")), budget)
    budgets[1] = 10**6
    whole_loss, whole, _ = step_with_trainer(model, groups, WEIGHTS[method], tmp_path, budgets[1])
    for chunks in (2, 4, len(rows)):
        loss, gradients, _ = step_with_trainer(model, groups, WEIGHTS[method], tmp_path, budgets[chunks])
        assert loss == pytest.approx(whole_loss, rel=1e-12)
        assert_equal(gradients, whole)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError(),
                                   RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate")])
def test_running_out_of_memory_splits_the_step_and_does_not_change_it(students, questions, explained, tmp_path, error):
    class SmallMachine(StudyTrainer):
        room = 500

        def _to_device(self, chunk):
            if chunk["input_ids"].numel() + chunk["labels"].numel() > self.room:
                raise error
            return super()._to_device(chunk)

    class NoMachine(SmallMachine):
        room = 0

    model, groups = students[0]["seq2seq"], rows_for(students, questions, explained, "multitask")
    loss, gradients, _ = step_with_trainer(model, groups, TWO, tmp_path, 10**6)
    small_loss, small, trainer = step_with_trainer(model, groups, TWO, tmp_path, 10**4, SmallMachine)
    assert trainer.splits > 0 and trainer.token_budget < 10**4
    assert small_loss == pytest.approx(loss, rel=1e-12)
    assert_equal(small, gradients)
    with pytest.raises(StudyError, match="out of memory with one row or question at a time"):
        step_with_trainer(model, groups, TWO, tmp_path, 100, NoMachine)


def test_every_row_is_in_one_chunk_and_no_chunk_exceeds_the_budget():
    rows = [TokenRow(i % 2, [1] * (5 + i % 7), [2] * (3 + (i * i) % 11)) for i in range(50)]
    for causal in (False, True):
        chunks = cut_rows(rows, 120, causal)
        assert sorted(id(row) for chunk in chunks for row in chunk) == sorted(map(id, rows))
        for chunk in chunks:
            longest = (max(len(r.source) + len(r.target) for r in chunk) if causal else
                       max(len(r.source) for r in chunk) + max(len(r.target) for r in chunk))
            assert len(chunk) * longest <= 120
        assert chunks == cut_rows(rows, 120, causal)
    assert cut_rows([], 100) == []
    assert [len(chunk) for chunk in cut_rows(rows[:1], 1)] == [1]


def test_rows_of_like_length_run_together_whatever_their_task():
    """Short and long targets with short and long sources: four groups, which a sort by target alone would mix."""
    rows = [TokenRow(i % 3, [1] * (20 if i % 2 else 90), [2] * (8 if i % 4 < 2 else 120)) for i in range(40)]
    chunks = cut_rows(rows, 10**4)
    assert len(chunks) == 4
    assert all(len({(len(row.source), len(row.target)) for row in chunk}) == 1 for chunk in chunks)


def test_padding_has_no_part_in_the_loss(tiny):
    model, one = tiny[0], torch.ones(1, dtype=torch.float64)
    short, long = TokenRow(0, [5, 6, 1], [7, 1]), TokenRow(0, [8] * 30, [9] * 40)
    chunk = pad_chunk([short, long], 0, 0)
    assert (chunk["labels"][0] == IGNORED).sum() == 38
    alone, other = (step_loss(model, pad_chunk([row], 0, 0), one) for row in (short, long))
    together = step_loss(model, chunk, one)
    for part in (0, 1):
        assert together[part].item() == pytest.approx(alone[part].item() + other[part].item(), rel=1e-12)


def test_labels_are_moved_right_by_one_behind_the_start_token():
    chunk = pad_chunk([TokenRow(1, [5], [7, 8, 1]), TokenRow(0, [5, 6], [9])], pad=0, start=3)
    assert chunk["decoder_input_ids"].tolist() == [[3, 7, 8], [3, 0, 0]]
    assert chunk["labels"].tolist() == [[7, 8, 1], [9, IGNORED, IGNORED]]
    assert chunk["attention_mask"].tolist() == [[1, 0], [1, 1]]
    assert chunk["task"].tolist() == [1, 0]


@pytest.mark.parametrize("slice_of", [1, 3, 100])
@pytest.mark.parametrize("with_bias", [False, True])
def test_the_loss_in_slices_equals_the_librarys_cross_entropy(monkeypatch, slice_of, with_bias):
    """Also where one logit is so far ahead that the probability of all others is 0 in floating point."""
    torch.manual_seed(0)
    monkeypatch.setitem(LOGITS, "cpu", slice_of * 11)
    hidden, weight, bias = (torch.randn(*shape, dtype=torch.float64, requires_grad=True)
                            for shape in ((7, 5), (11, 5), (11,)))
    with torch.no_grad():
        hidden[2] *= 1e5
    tokens, weights = torch.randint(0, 11, (7,)), torch.rand(7, dtype=torch.float64)
    inputs = [hidden, weight, bias][: 3 if with_bias else 2]
    bias = bias if with_bias else None
    logits = torch.nn.functional.linear(hidden, weight, bias)
    wanted = torch.nn.functional.cross_entropy(logits, tokens, reduction="none")
    gradients = torch.autograd.grad(3 * (wanted * weights).sum(), inputs)
    total, losses = HeadLoss.apply(hidden, weight, bias, tokens, weights, True)
    torch.testing.assert_close(losses, wanted.detach())
    torch.testing.assert_close(total, (wanted * weights).sum())
    for found, expected in zip(torch.autograd.grad(3 * total, inputs), gradients, strict=True):
        torch.testing.assert_close(found, expected)


def test_the_loss_in_slices_adds_to_gradients_that_stand():
    torch.manual_seed(0)
    hidden, weight = (torch.randn(*shape, requires_grad=True) for shape in ((7, 5), (11, 5)))
    tokens, weights, before = torch.randint(0, 11, (7,)), torch.rand(7), torch.rand(11, 5)
    wanted = torch.nn.functional.cross_entropy(hidden @ weight.T, tokens, reduction="none") @ weights
    gradients = torch.autograd.grad(wanted, (hidden, weight))
    weight.grad = before.clone()
    total, _ = HeadLoss.apply(hidden, weight, None, tokens, weights, True)
    total.backward()
    torch.testing.assert_close(hidden.grad, gradients[0])
    torch.testing.assert_close(weight.grad, before + gradients[1])
    for scale, replaced in ((2, False), (1, True)):
        total, _ = HeadLoss.apply(hidden, weight, None, tokens, weights, True)
        weight.grad = None if replaced else weight.grad
        with pytest.raises(RuntimeError, match="since then these were replaced, or its sum was scaled"):
            (scale * total).backward()


@pytest.mark.parametrize("padding", [None, 3])
@pytest.mark.parametrize("standing", [False, True])
def test_the_faster_embedding_has_the_librarys_gradient(padding, standing):
    torch.manual_seed(0)
    plain = torch.nn.Embedding(9, 4, padding_idx=padding)
    quick = QuickEmbedding(9, 4, padding_idx=padding)
    quick.load_state_dict(plain.state_dict())
    ids, slope = torch.tensor([[3, 1, 1], [8, 3, 0]]), torch.randn(2, 3, 4)
    before = torch.rand(9, 4) if standing else None
    plain.weight.grad, quick.weight.grad = (None if before is None else before.clone() for _ in range(2))
    for embedding in (plain, quick):
        embedding(ids).backward(slope)
    torch.testing.assert_close(quick(ids), plain(ids))
    torch.testing.assert_close(quick.weight.grad, plain.weight.grad)


def test_the_faster_dropout_drops_as_many_and_keeps_the_mean():
    torch.manual_seed(0)
    numbers = torch.ones(1000, 999)
    out = QuickDropout(0.1)(numbers)
    assert (out == 0).float().mean().item() == pytest.approx(0.1, abs=0.002)
    assert out[out != 0].unique().tolist() == pytest.approx([1 / 0.9], rel=1e-4)
    assert out.mean().item() == pytest.approx(1, abs=0.002)
    rows, columns = ((out == 0).float().mean(dim).std().item() for dim in (1, 0))
    assert max(rows, columns) < 1.2 * math.sqrt(0.1 * 0.9 / 999)  # independent draws, in both directions
    assert QuickDropout(0.1).eval()(numbers) is numbers and QuickDropout(0)(numbers) is numbers


def test_the_faster_equivalents_compute_the_same(students):
    model = load_student("", "kdutils/mini/student", random_weights=True, seed=2, config={
        "model_type": "t5", "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4,
        "feed_forward_proj": "gated-gelu"})[0].double().eval()
    ids = torch.randint(0, 100, (2, 9))
    before = model(input_ids=ids, decoder_input_ids=ids).logits
    names = {type(module).__name__ for module in use_fast_layers(model).modules()}
    assert {"GELU", "QuickDropout"} <= names and not {"NewGELUActivation", "Dropout"} & names
    torch.testing.assert_close(model(input_ids=ids, decoder_input_ids=ids).logits, before, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("method", "family"), [("multitask", "t5"), ("combined", "t5"), ("combined", "causal"),
                                                ("soft_multitask", "t5"), ("label_only", "classifier")])
def test_the_worked_loss_is_that_of_the_trainer(questions, explained, method, family):
    student = {"model": "kdutils/mini/student", "random_weights": True, "config": {"d_model": 48, "d_kv": 12}}
    if family != "t5":
        student = {"model": "", "tokenizer": "kdutils/mini/student", "random_weights": True, "config": SHAPES[family],
                   "kind": family}
    rows, total, loss = worked_loss(Recipe(method, student, LIMITS, {**PARAMETERS, **DECODER}),
                                    questions[0].iloc[0].to_dict(), explained)
    assert dict(zip(rows["task"], rows["weight"], strict=True)) == pytest.approx(WEIGHTS[method])
    assert total == pytest.approx(rows["weight · mean"].sum()) and total == pytest.approx(loss, rel=1e-5)


def test_a_loss_that_is_not_a_number_stops_with_step_task_and_rate(students, questions, explained, tmp_path):
    broken = copy.deepcopy(students[0]["seq2seq"])
    torch.nn.init.constant_(broken.get_output_embeddings().weight, math.nan)
    with pytest.raises(Diverged, match=r"the loss became nan at step 1, task 'predict', learning rate 0\.001; try"):
        step_with_trainer(broken, rows_for(students, questions, explained, "multitask"), TWO, tmp_path, 1000)


def test_a_gradient_that_is_not_a_number_stops_and_its_task_is_found(students, questions, explained, tmp_path,
                                                                     monkeypatch):
    def steep(model, chunk, scale, *more):
        total, sums = step_loss(model, chunk, scale)
        zero = next(model.parameters()).sum() * 0
        return total + (zero.sqrt() if (chunk["task"] == 1).any() else 0), sums  # 0, with a slope of infinity times 0

    monkeypatch.setattr(trainer_module, "step_loss", steep)
    with pytest.raises(Diverged, match=r"the gradient's norm became nan at step 1, task 'explain', learning rate"):
        step_with_trainer(students[0]["seq2seq"], rows_for(students, questions, explained, "multitask"), TWO, tmp_path,
                          1000)
