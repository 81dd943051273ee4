"""The exact loss of a step, and of the dev split, over the rows of all tasks."""

import contextlib
import math
import weakref
from collections.abc import Callable, Sequence

import torch
from torch.nn import functional

from kdutils.student.attention import attends_in_blocks
from kdutils.student.chunks import cut_rows, pad_chunk
from kdutils.student.models import choice_losses, model_kind, output_layer_on
from kdutils.student.products import linear, uses_onednn
from kdutils.student.rows import IGNORED, counted_tokens

LOGITS = {"cpu": 8_000_000, "cuda": 64_000_000}  # how many logits a slice has at most
FAR = 1e-30  # a probability below this has lost digits; its logarithm is computed from the logits
# What takes the place of −log p in a slice of the counted tokens. It takes (slice, logits, −log p, softmax minus one at
# each token) and returns (the loss of each token, its gradient with respect to the logits); see distilling.Targets.
Softened = Callable[[slice, torch.Tensor, torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


# The loss of a chunk

def step_loss(model: torch.nn.Module, chunk: dict[str, torch.Tensor], scale: torch.Tensor,
              targets_of: Callable | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (Σ over the counted tokens of scale[task] · r · −log p, for backward; Σ r · −log p per task, (tasks,)).

    r is the weight of a token's row, usually 1. `chunk`: the tensors of pad_chunk. `scale`, (tasks,): w_t / N_t of each
    task; then the first values of all chunks of a step add up to the loss of the step. A question of a classifier
    counts as one token. The sums are float64. ``targets_of(chunk)`` returns the distilling.Targets whose loss takes the
    place of −log p.
    """
    chunk = add_places(chunk)
    weights, head, of_rows = scale[chunk["of"]], last_layer(model, chunk), chunk.get("weights")
    if of_rows is not None:
        weights = weights * of_rows.to(weights)
    targets = targets_of(chunk) if targets_of else None
    if "choices" in chunk:
        losses = choice_losses(model, chunk)
        total = (losses * weights.to(losses.dtype)).sum()
    elif head is not None:
        total, losses = HeadLoss.apply(counted_states(model, head, chunk), head.weight, head.bias, chunk["tokens"],
                                       weights, torch.is_grad_enabled(), targets and targets.soften)
    else:
        logits = counted_logits(model, chunk)
        losses = functional.cross_entropy(logits, chunk["tokens"], reduction="none")
        losses = targets.mixed(logits, losses) if targets else losses
        total = (losses * weights.to(losses.dtype)).sum()
    sums = torch.zeros(len(scale), dtype=torch.float64, device=losses.device)
    losses = losses.detach().double()
    return total, sums.index_add(0, chunk["of"], losses if of_rows is None else losses * of_rows)


def add_places(chunk: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Add to a chunk the counted tokens, their places in the flattened sequences and their tasks, (counted tokens,).

    If its rows have weights, `weights` has that of the row of each token.

    This is done before the chunk goes to the GPU: counting there would make the processor wait.
    """
    if "of" in chunk:
        return chunk
    if "choices" in chunk:
        return {**chunk, "of": chunk["task"]}
    rows, columns = (chunk["labels"] != IGNORED).nonzero(as_tuple=True)
    return {**chunk, "places": rows * chunk["labels"].shape[1] + columns, "tokens": chunk["labels"][rows, columns],
            "of": chunk["task"][rows], **({"weights": chunk["weight"][rows]} if "weight" in chunk else {})}


class HeadLoss(torch.autograd.Function):
    """Σ weight · −log p of tokens under an output layer, and −log p of each; the forward pass computes the gradients.

    With a vocabulary of 32,000 the logits of a step take gigabytes, and their softmax takes more time than most layers.
    Here only the logits of one slice of tokens exist at a time. The gradient of a slice is its softmax, minus one at
    each token; the gradients of the layer and of its input follow from it (as in "Cut your losses", Wijmans et al.
    2025, and Liger). On a CPU the gradients of the layer are added directly to an existing ``grad``, so backward must
    follow, on the sum itself.
    """

    @staticmethod
    def forward(ctx, hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, tokens: torch.Tensor,
                weights: torch.Tensor, with_gradients: bool,
                soften: Softened | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (the sum, −log p of each token (N,)), in float32 or better.

        Shapes: `hidden` (N, d), `weight` (V, d), `bias` (V,), `tokens` and `weights` (N,). `soften`: see Softened.
        """
        inputs = hidden, weight, bias
        device = hidden.device.type
        half = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
        states_of_all, matrix = hidden.to(half), weight.to(half)
        exact = torch.promote_types(hidden.dtype, torch.float32)
        weights = weights.to(exact)[:, None]
        existing = [existing_gradient(tensor, exact) for tensor in inputs]
        wanted = [(torch.zeros_like(tensor, dtype=exact) if grad is None else grad) if with_gradients and needed
                  else None for tensor, grad, needed in zip(inputs, existing, ctx.needs_input_grad, strict=False)]
        losses = torch.empty(len(tokens), dtype=exact, device=hidden.device)
        slices = math.ceil(len(tokens) * len(matrix) / LOGITS.get(device, LOGITS["cuda"]))
        size = max(1, math.ceil(len(tokens) / max(1, slices)))  # slices of equal size
        for first in range(0, len(tokens), size):
            part = slice(first, first + size)
            token, states = tokens[part, None], states_of_all[part]
            logits = linear(states, matrix, bias).to(exact)
            slope = torch.softmax(logits, dim=1)
            right = slope.gather(1, token)
            losses[part] = -right[:, 0].log()
            far = (right[:, 0] < FAR).nonzero()[:, 0]  # usually none
            losses[first + far] = logits[far].logsumexp(1) - logits[far].gather(1, token[far])[:, 0]
            slope.scatter_add_(1, token, torch.full_like(right, -1))
            if soften:
                losses[part], slope = soften(part, logits, losses[part], slope)
            _add_gradients(wanted, part, slope, states, matrix, weights[part])
        ctx.added_to = [(tensor, grad) for tensor, one, grad in zip(inputs, wanted, existing, strict=True)
                        if one is not None and one is grad]
        ctx.gradients = [None if one is None or one is grad else one.to(tensor.dtype)
                         for one, grad, tensor in zip(wanted, existing, inputs, strict=True)]
        ctx.mark_non_differentiable(losses)
        return (losses * weights[:, 0]).sum(), losses

    @staticmethod
    def backward(ctx, slope: torch.Tensor, _: torch.Tensor) -> tuple:
        """Return the gradients of forward's inputs; RuntimeError where the existing gradients have been changed."""
        gradients, ctx.gradients = ctx.gradients, None  # they are scaled in place, so they can be used only once
        if ctx.added_to and (slope != 1 or any(tensor.grad is not grad for tensor, grad in ctx.added_to)):
            raise RuntimeError("HeadLoss: its gradients were added to the existing ones; since then these were "
                               "replaced, or its sum was scaled")
        return *[None if one is None else one.mul_(slope.to(one.dtype)) for one in gradients], None, None, None, None


def existing_gradient(tensor: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor | None:
    """Return the existing gradient of a weight on a CPU, if more can be added to it in place; else None."""
    grad = tensor.grad if tensor is not None and tensor.is_leaf and not tensor.is_cuda else None
    return grad if grad is not None and grad.dtype == dtype else None


def _add_gradients(wanted, part, slope, states, matrix, weights):
    """Add the gradients of a slice of tokens to those of states, matrix and bias, where they are wanted."""
    of_states, of_matrix, of_bias = wanted
    narrow = slope.to(states.dtype)
    if of_states is not None:
        of_states[part] = linear(narrow, matrix.t()).to(weights.dtype) * weights
    weighted = (states * weights).to(states.dtype)
    if of_matrix is not None and narrow.dtype == of_matrix.dtype and not uses_onednn(narrow.t(), weighted.t()):
        of_matrix.addmm_(narrow.t(), weighted)
    elif of_matrix is not None:
        of_matrix += linear(narrow.t(), weighted.t())
    if of_bias is not None:
        of_bias += (slope * weights).sum(0)


LAST = weakref.WeakKeyDictionary()  # {model: whether its logits are the output of the output layer}


def last_layer(model: torch.nn.Module, chunk: dict[str, torch.Tensor]) -> torch.nn.Linear | None:
    """Return the output layer if HeadLoss can replace it: a plain linear layer with nothing behind it; else None.

    Some models scale or bound their logits, and adapters wrap the layer. The first chunk, or a row of it, shows it.
    """
    head = model.get_output_embeddings() if "choices" not in chunk else None
    if type(head) is not torch.nn.Linear:
        return None
    if model not in LAST:
        outputs = []
        handle = head.register_forward_hook(lambda module, inputs, output: outputs.append(output))
        training = model.training
        with torch.no_grad(), torch.autocast(chunk["input_ids"].device.type, enabled=False):
            few = chunk if "block_places" in chunk else {name: tensor[:1] for name, tensor in chunk.items()}
            logits = _logits(model.eval(), few)
        handle.remove()
        model.train(training)
        LAST[model] = len(outputs) == 1 and torch.equal(outputs[0].to(logits.dtype), logits)
    return head if LAST[model] else None


def counted_states(model: torch.nn.Module, head: torch.nn.Linear, chunk: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the inputs of the output layer `head` at the counted tokens of a chunk, (counted tokens, d)."""
    with _forward_of(head, lambda hidden: hidden.flatten(0, 1).index_select(0, chunk["places"])):
        return _logits(model, chunk)


def counted_logits(model: torch.nn.Module, chunk: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the logits at the counted tokens of a chunk, (counted tokens, vocabulary), in float32 or better."""
    with output_layer_on(model, chunk["places"]):
        logits = _logits(model, chunk)
    return logits.to(torch.promote_types(logits.dtype, torch.float32))  # never a softmax in half precision


def _logits(model, chunk):
    names = ("input_ids", "attention_mask", "position_ids", "decoder_input_ids", "block_places")
    inputs = {name: chunk[name] for name in names if name in chunk}
    return model(**inputs, use_cache=False).logits


@contextlib.contextmanager
def _forward_of(module, function):
    module.forward = function
    try:
        yield
    finally:
        del module.forward


def dev_losses(model: torch.nn.Module, rows: Sequence, tasks: int, *how: object) -> list[float]:
    """Return, for each of `tasks` (their number), the mean −log p per counted target token, with the weights of
    the rows; `how` as of loss_sums.
    """
    sums = loss_sums(model, rows, tasks, *how).tolist()
    return [total / max(1, count) for total, count in zip(sums, counted_tokens(rows, tasks), strict=True)]


@torch.no_grad()
def loss_sums(model: torch.nn.Module, rows: Sequence, tasks: int, token_budget: int, pad: int, start: int | None,
              device: torch.device | str, targets_of: Callable | None = None) -> torch.Tensor:
    """Return Σ −log p of the counted target tokens of `rows` for each of `tasks` (their number), float64, (tasks,).

    Each is multiplied by the weight of its row. `rows`: TokenRows, ChoiceRows or SharedRows. `pad`, `start`: see
    chunks.pad_chunk. `targets_of`: see step_loss.
    """
    causal = model_kind(model) == "causal"
    sums = torch.zeros(tasks, dtype=torch.float64, device=device)
    for rows_of_chunk in cut_rows(rows, token_budget, causal):
        chunk = pad_chunk(rows_of_chunk, pad, start, causal, attends_in_blocks(model))
        chunk = move_chunk(add_places(chunk), device)
        sums += step_loss(model, chunk, torch.zeros(tasks, device=device), targets_of)[1]
    return sums


def move_chunk(chunk: dict[str, torch.Tensor], device: torch.device | str) -> dict[str, torch.Tensor]:
    """Return the tensors of a chunk on `device`."""
    if torch.device(device).type == "cuda":  # from pinned memory, so that the processor does not wait
        return {name: tensor.pin_memory().to(device, non_blocking=True) for name, tensor in chunk.items()}
    return {name: tensor.to(device) for name, tensor in chunk.items()}
