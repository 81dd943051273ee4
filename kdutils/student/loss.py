"""The exact loss of a step, and of the dev split, over the rows of all tasks."""

import contextlib
import math
import weakref

import torch
from torch.nn import functional

from kdutils.student.chunks import cut_rows
from kdutils.student.collating import IGNORED, pad_chunk
from kdutils.student.models import choice_losses, model_kind, output_layer_on

LOGITS = {"cpu": 8_000_000, "cuda": 64_000_000}  # of a slice
FAR = 1e-30  # a probability below it has lost digits; its logarithm is made from the logits


# The loss of a chunk

def step_loss(model, chunk, scale):
    """Return (Σ over the counted tokens of scale[task] · −log p, to call backward on; Σ −log p per task, (tasks,)).

    `chunk`: the tensors of pad_chunk. `scale`: w_t / N_t of each task, (tasks,): with it the first values of all
    chunks of a step add up to the loss of the step. A question of a classifier is one token. The sums are float64.
    """
    chunk = chunk if "of" in chunk else with_places(chunk)
    weights, head = scale[chunk["of"]], last_layer(model, chunk)
    if "choices" in chunk:
        losses, _ = choice_losses(model, chunk)
        total = (losses * weights.to(losses.dtype)).sum()
    elif head is not None:
        with _forward_of(head, lambda hidden: hidden.flatten(0, 1).index_select(0, chunk["places"])):
            hidden = _logits(model, chunk)
        total, losses = HeadLoss.apply(hidden, head.weight, head.bias, chunk["tokens"], weights,
                                       torch.is_grad_enabled())
    else:
        with output_layer_on(model, chunk["labels"] != IGNORED):
            logits = _logits(model, chunk)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))  # never a softmax in half precision
        losses = functional.cross_entropy(logits, chunk["tokens"], reduction="none")
        total = (losses * weights.to(losses.dtype)).sum()
    sums = torch.zeros(len(scale), dtype=torch.float64, device=losses.device)
    return total, sums.index_add(0, chunk["of"], losses.detach().double())


def with_places(chunk):
    """Add to the tensors of a chunk the counted tokens, their flat places and the task of each, (counted tokens,).

    Done before a chunk goes to the GPU: to count there would make the processor wait for it.
    """
    if "choices" in chunk:
        return {**chunk, "of": chunk["task"]}
    rows, columns = (chunk["labels"] != IGNORED).nonzero(as_tuple=True)
    return {**chunk, "places": rows * chunk["labels"].shape[1] + columns, "tokens": chunk["labels"][rows, columns],
            "of": chunk["task"][rows]}


class HeadLoss(torch.autograd.Function):
    """Σ weight · −log p of tokens under an output layer, and −log p of each; its gradients are made on the way.

    With a vocabulary of 32,000 the logits of a step take gigabytes and their softmax more time than most layers. Here
    they exist a slice of tokens at a time: the softmax of a slice less one at each token is its gradient, from which
    those of the layer and of its input follow at once (as in "Cut your losses", Wijmans et al. 2025, and Liger).
    On a CPU, the layer's are added straight to a ``grad`` that stands, so backward must follow, on the sum itself.
    """

    @staticmethod
    def forward(ctx, hidden, weight, bias, tokens, weights, with_gradients):
        """(N, d), (V, d), (V,) or None, (N,), (N,), bool to a number and (N,); both in float32 or better."""
        inputs = hidden, weight, bias
        device = hidden.device.type
        half = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
        states_of_all, matrix = hidden.to(half), weight.to(half)
        exact = torch.promote_types(hidden.dtype, torch.float32)
        weights = weights.to(exact)[:, None]
        standing = [standing_gradient(tensor, exact) for tensor in inputs]
        wanted = [(torch.zeros_like(tensor, dtype=exact) if grad is None else grad) if with_gradients and needed
                  else None for tensor, grad, needed in zip(inputs, standing, ctx.needs_input_grad, strict=False)]
        losses = torch.empty(len(tokens), dtype=exact, device=hidden.device)
        slices = math.ceil(len(tokens) * len(matrix) / LOGITS.get(device, LOGITS["cuda"]))
        size = max(1, math.ceil(len(tokens) / max(1, slices)))  # all alike
        for first in range(0, len(tokens), size):
            part = slice(first, first + size)
            token, states = tokens[part, None], states_of_all[part]
            logits = functional.linear(states, matrix, bias).to(exact)
            slope = torch.softmax(logits, dim=1)
            right = slope.gather(1, token)
            losses[part] = -right[:, 0].log()
            far = (right[:, 0] < FAR).nonzero()[:, 0]  # few or none
            losses[first + far] = logits[far].logsumexp(1) - logits[far].gather(1, token[far])[:, 0]
            slope.scatter_add_(1, token, torch.full_like(right, -1))
            _add_gradients(wanted, part, slope, states, matrix, weights[part])
        ctx.added_to = [(tensor, grad) for tensor, one, grad in zip(inputs, wanted, standing, strict=True)
                        if one is not None and one is grad]
        ctx.gradients = [None if one is None or one is grad else one.to(tensor.dtype)
                         for one, grad, tensor in zip(wanted, standing, inputs, strict=True)]
        ctx.mark_non_differentiable(losses)
        return (losses * weights[:, 0]).sum(), losses

    @staticmethod
    def backward(ctx, slope, _):
        gradients, ctx.gradients = ctx.gradients, None  # used up: they are scaled in place
        if ctx.added_to and (slope != 1 or any(tensor.grad is not grad for tensor, grad in ctx.added_to)):
            raise RuntimeError("HeadLoss: its gradients went straight to those that stood before it; since then they "
                               "were replaced, or its sum was scaled")
        return *[None if one is None else one.mul_(slope.to(one.dtype)) for one in gradients], None, None, None


def standing_gradient(tensor, dtype):
    """Return the gradient of a weight that is there already and can be added to in place, on a CPU; else None."""
    grad = tensor.grad if tensor is not None and tensor.is_leaf and not tensor.is_cuda else None
    return grad if grad is not None and grad.dtype == dtype else None


def _add_gradients(wanted, part, slope, states, matrix, weights):
    """Add what a slice of tokens gives to the gradients of states, matrix and bias, where they are wanted."""
    of_states, of_matrix, of_bias = wanted
    narrow = slope.to(states.dtype)
    if of_states is not None:
        of_states[part] = (narrow @ matrix).to(weights.dtype) * weights
    if of_matrix is not None and narrow.dtype == of_matrix.dtype:
        of_matrix.addmm_(narrow.t(), states * weights)
    elif of_matrix is not None:
        of_matrix += narrow.t() @ (states * weights).to(states.dtype)
    if of_bias is not None:
        of_bias += (slope * weights).sum(0)


LAST = weakref.WeakKeyDictionary()  # model: whether its logits are what the output layer returns


def last_layer(model, chunk):
    """Return the output layer where HeadLoss may stand in for it: a plain linear layer that nothing comes after.

    Some models scale or bound their logits, adapters wrap the layer: that is seen on one row of the first chunk.
    """
    head = model.get_output_embeddings() if "choices" not in chunk else None
    if type(head) is not torch.nn.Linear:
        return None
    if model not in LAST:
        seen = []
        handle = head.register_forward_hook(lambda module, inputs, output: seen.append(output))
        training = model.training
        with torch.no_grad(), torch.autocast(chunk["labels"].device.type, enabled=False):
            logits = _logits(model.eval(), {name: tensor[:1] for name, tensor in chunk.items()})
        handle.remove()
        model.train(training)
        LAST[model] = len(seen) == 1 and torch.equal(seen[0].to(logits.dtype), logits)
    return head if LAST[model] else None


def _logits(model, chunk):
    inputs = {name: chunk[name] for name in ("input_ids", "attention_mask", "decoder_input_ids") if name in chunk}
    return model(**inputs, use_cache=False).logits


@contextlib.contextmanager
def _forward_of(module, function):
    module.forward = function
    try:
        yield
    finally:
        del module.forward


@torch.no_grad()
def dev_losses(model, rows, tasks, token_budget, pad, start, device):
    """Return the mean −log p per counted target token of each of `tasks` (a number of them) over `rows`, as floats."""
    causal = model_kind(model) == "causal"
    sums, counts = torch.zeros(tasks, dtype=torch.float64, device=device), [0] * tasks
    for rows_of_chunk in cut_rows(rows, token_budget, causal):
        chunk = moved_to(with_places(pad_chunk(rows_of_chunk, pad, start, causal)), device)
        sums += step_loss(model, chunk, torch.zeros(tasks, device=device))[1]
        for row in rows_of_chunk:
            counts[row.task] += row.counted
    return [total / max(1, count) for total, count in zip(sums.tolist(), counts, strict=True)]


def moved_to(chunk, device):
    if torch.device(device).type == "cuda":  # from pinned memory, so that the processor need not wait
        return {name: tensor.pin_memory().to(device, non_blocking=True) for name, tensor in chunk.items()}
    return {name: tensor.to(device) for name, tensor in chunk.items()}
