"""Products by oneDNN, and attention in blocks with kept weights: against the library's layers in float64."""

import copy

import pytest
import torch
from test_loss import SMALL, exact, step_with_trainer
from test_students import student

from kdutils.student import attention, loss, products, trainer
from kdutils.student.attention import KeptWeights, attends_in_blocks, set_blocks
from kdutils.student.fast_layers import QuickLinear, use_fast_layers
from kdutils.student.products import HAS_ONEDNN, linear, uses_onednn
from kdutils.student.rows import TokenRow

needs_onednn = pytest.mark.skipif(not HAS_ONEDNN, reason="this build of PyTorch has no oneDNN for this processor")
LLAMA = {"model_type": "llama", "num_key_value_heads": 2, **SMALL}
QUESTIONS = [[TokenRow(0, [11, 12, 13, 14 + at], [15, 16, 17]),
              TokenRow(1, [11, 12, 13, 18] + [30] * at, [19, 20, 21])] for at in range(5)]
WEIGHTS = {"predict": 0.3, "explain": 0.7}


def error(found, wanted):
    """Return the distance of two lists of tensors as a share of the length of the second."""
    pairs = [(one.double(), other.double()) for one, other in zip(found, wanted, strict=True)]
    return (sum(((one - other) ** 2).sum() for one, other in pairs) / sum((other ** 2).sum() for _, other in pairs)
            ).sqrt().item()


@needs_onednn
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(3, 50), (150,)])
def test_a_linear_layer_by_onednn_equals_the_librarys_in_float64(shape, bias, monkeypatch):
    taken = []
    monkeypatch.setattr(products, "LARGE", 1000)
    monkeypatch.setattr(products, "linear", lambda *args: taken.append(uses_onednn(*args[:2])) or linear(*args))
    torch.manual_seed(0)
    plain, found = torch.nn.Linear(40, 70, bias).double(), []
    inputs, slope = torch.randn(*shape, 40, dtype=torch.float64), torch.randn(*shape, 70, dtype=torch.float64)
    for layer in (use_fast_layers(Holder(copy.deepcopy(plain).float())).layer, plain):
        own = inputs.to(layer.weight.dtype).requires_grad_()
        out = layer(own)
        out.backward(slope.to(out.dtype))
        found.append([out, own.grad, *(weight.grad for weight in layer.parameters())])
    assert taken == [True] * 3, "one product forward, two backward"
    for one, other in zip(*found, strict=True):
        assert one.shape == other.shape and error([one], [other]) < 1e-6


class Holder(torch.nn.Module):
    """A model of one layer, with no output layer."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def get_output_embeddings(self):
        return None


@needs_onednn
def test_small_products_other_types_and_half_precision_stay_with_pytorch():
    large, weight = torch.ones(2000, 100), torch.ones(100, 100)
    assert uses_onednn(large, weight) and not uses_onednn(large[:10], weight)
    assert not uses_onednn(large.double(), weight.double()) and not uses_onednn(large.bfloat16(), weight.bfloat16())
    assert not uses_onednn(large.to("meta"), weight.to("meta"))
    with torch.autocast("cpu", torch.bfloat16):
        assert not uses_onednn(large, weight)
    codes, layer = [], use_fast_layers(Holder(torch.nn.Linear(100, 100))).layer
    torch.compile(layer, backend=lambda graph, inputs: codes.append(graph.code) or graph.forward)(large)
    assert len(codes) == 1 and "mkldnn" not in codes[0], "Inductor cannot build it"


@needs_onednn
def test_a_step_in_float32_has_the_gradients_of_float64(tmp_path, monkeypatch):
    monkeypatch.setattr(products, "LARGE", 1)
    model, _ = student(LLAMA, seed=2)
    double = exact(copy.deepcopy(model))
    found = [step_with_trainer(one, QUESTIONS, WEIGHTS, tmp_path, 100) for one in (model, double)]
    kinds = {name: type(module) for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    assert {kind for name, kind in kinds.items() if name != "lm_head"} == {QuickLinear}
    assert kinds["lm_head"] is torch.nn.Linear
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-6)
    assert error(found[0][1].values(), found[1][1].values()) < 1e-5


# Attention

@pytest.mark.parametrize("groups", [1, 3])
def test_attention_with_kept_weights_has_the_librarys_output_and_gradients(groups):
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, heads, 7, 4, dtype=torch.float64, requires_grad=True)
                         for heads in (3, 3 // groups, 3 // groups))
    mask = torch.rand(2, 1, 7, 7) < 0.5
    mask |= torch.eye(7, dtype=torch.bool)
    found = []
    for function in (lambda *args: KeptWeights.apply(*args, mask, 0.3),
                     lambda query, key, value: torch.nn.functional.scaled_dot_product_attention(
                         query, key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1), mask, scale=0.3)):
        out = function(query, key, value)
        slope = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).view(out.shape)
        found.append([out, *torch.autograd.grad(out, (query, key, value), slope)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)  # the softmax is one of float32


@pytest.mark.parametrize("keep", [False, True])
def test_a_step_in_bf16_is_as_exact_in_blocks_as_with_the_librarys_attention(keep, monkeypatch, tmp_path):
    """Measured by the distance of its gradients from those of float64."""
    monkeypatch.setattr(attention, "LONGEST", 512 if keep else 0)
    calls, apply = [], KeptWeights.apply
    monkeypatch.setattr(KeptWeights, "apply", lambda *args: calls.append(args) or apply(*args))
    model, _ = student(LLAMA, seed=2)
    wanted = step_with_trainer(exact(copy.deepcopy(model)), QUESTIONS, WEIGHTS, tmp_path, 100)[1].values()
    distance = {}
    for blocks in (True, False):
        monkeypatch.setattr(trainer, "use_blocks", lambda model, wanted=blocks: set_blocks(model, wanted))
        found = in_bf16(model, tmp_path)
        assert attends_in_blocks(model) is blocks
        distance[blocks] = error(found.values(), wanted)
    assert len(calls) == (2 if keep else 0), "one call per layer"
    assert 1e-4 < distance[True] < 1.3 * distance[False]


def in_bf16(model, folder):
    """Return the gradients of a step of the real trainer with precision bf16."""
    model.zero_grad()
    one = trainer.StudyTrainer(
        model=model, args=trainer.training_arguments(folder, 0, 1, len(QUESTIONS), 1e-3, 0, 1, 1, "bf16"),
        train_dataset=QUESTIONS, weights=list(WEIGHTS.values()), tasks=list(WEIGHTS), token_budget=100, dev_rows=[],
        dev_accuracy=None, start=None, pad=0)
    one.create_optimizer_and_scheduler(10)
    one.training_step(one.accelerator.prepare_model(model), one.data_collator(QUESTIONS))
    return {name: weight.grad.clone() for name, weight in model.named_parameters()}


def test_the_output_layer_of_a_step_in_bf16_multiplies_in_bf16(tmp_path, monkeypatch):
    kinds = []
    monkeypatch.setattr(loss, "linear", lambda *args: kinds.append(args[0].dtype) or linear(*args))
    gradients = in_bf16(student(LLAMA, seed=2)[0], tmp_path)
    assert kinds and set(kinds) == {torch.bfloat16}
    assert {gradient.dtype for gradient in gradients.values()} == {torch.float32}
