"""Layers that compute the same as the library's, faster."""

import contextlib
import ctypes

import torch
from torch.nn import functional
from transformers.activations import NewGELUActivation

from kdutils.student.loss import existing_gradient
from kdutils.student.models import model_kind
from kdutils.student.products import Linear, uses_onednn

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
VOCABULARY = 1000  # entries from which an embedding counts as that of a vocabulary


class QuickDropout(torch.nn.Dropout):
    """Dropout that draws 16 random bits per number; on a CPU, PyTorch draws a whole double.

    The probability is rounded to 1/65536, and kept numbers are scaled by the rounded probability, so means stay exact.
    """

    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        if numbers.is_cuda or not self.training or self.p == 0:
            return super().forward(numbers)
        bits = torch.empty((numbers.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
        dropped = min(round(self.p * 2**16), 2**16 - 1)
        kept = (bits[: numbers.numel()].view(numbers.shape) >= dropped - 2**15).to(numbers.dtype)
        return numbers * kept.mul_(2**16 / (2**16 - dropped))


class QuickLinear(torch.nn.Linear):
    """A linear layer that takes the faster library for large products in float32 on a CPU (see products)."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if uses_onednn(inputs, self.weight):
            return Linear.apply(inputs, self.weight, self.bias)
        return super().forward(inputs)


class QuickEmbedding(torch.nn.Embedding):
    """An embedding that adds its gradient to an existing one, only in the rows that were read.

    PyTorch makes a gradient of the whole vocabulary for every chunk and adds it: a hundred megabytes read and written.
    """

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return _Lookup.apply(ids, self.weight, self.padding_idx)


class _Lookup(torch.autograd.Function):
    @staticmethod
    def forward(ctx, ids, weight, padding):
        ctx.save_for_backward(ids)
        ctx.weight, ctx.padding = weight, padding
        return functional.embedding(ids, weight)

    @staticmethod
    def backward(ctx, slope):
        ids, = ctx.saved_tensors
        existing = existing_gradient(ctx.weight, slope.dtype)
        gradient = torch.zeros_like(ctx.weight) if existing is None else existing
        if ctx.padding is not None:
            slope = slope.masked_fill((ids == ctx.padding)[..., None], 0)
        gradient.index_add_(0, ids.flatten(), slope.flatten(0, -2))
        return None, gradient if existing is None else None, None


def use_fast_layers(model: torch.nn.Module) -> torch.nn.Module:
    """Replace layers of a model, in place, by faster ones: GELU's tanh form, and on a CPU dropout, linear layers and
    embeddings.

    They compute the same, except for the random bits of dropout. The output layer stays: HeadLoss computes it.
    """
    on_cpu, head = not next(model.parameters()).is_cuda, model.get_output_embeddings()
    for module in list(model.modules()):
        if on_cpu and type(module) is torch.nn.Linear and module is not head:
            module.__class__ = QuickLinear
        if on_cpu and type(module) is torch.nn.Embedding and _is_plain(module):
            module.__class__ = QuickEmbedding  # in place, because a model may use one object in several places
        for name, part in list(module.named_children()):
            if type(part) is NewGELUActivation:
                setattr(module, name, torch.nn.GELU(approximate="tanh"))
            elif type(part) is torch.nn.Dropout and part.p < 1:
                setattr(module, name, QuickDropout(part.p).train(part.training))
    return model


def _is_plain(embedding):
    return embedding.num_embeddings >= VOCABULARY and embedding.max_norm is None and not embedding.scale_grad_by_freq


def vocabularies(model: torch.nn.Module) -> list[torch.Tensor]:
    """Return the weights over a vocabulary whose gradients are added to an existing ``grad``."""
    modules = [module for module in model.modules() if type(module) is QuickEmbedding]
    head = model.get_output_embeddings()
    modules += [head] if type(head) is torch.nn.Linear and not head.weight.is_cuda else []
    return [weight for weight in {id(module.weight): module.weight for module in modules}.values()
            if weight.requires_grad]


def keep_memory() -> None:
    """Let glibc keep up to a gigabyte of freed memory for the next chunk, because new pages cost time.

    Without glibc this does nothing.
    """
    with contextlib.suppress(AttributeError, OSError):
        change = ctypes.CDLL(None).mallopt
        for parameter in (M_TRIM_THRESHOLD, M_MMAP_THRESHOLD):
            change(parameter, 2**30)


def compile_stacks(model: torch.nn.Module) -> None:
    """Compile the layers below the output layer, in place, for inputs of any length (torch.compile, Inductor)."""
    plain = model.get_base_model() if hasattr(model, "get_base_model") else model
    stacks = (plain.get_encoder(), plain.get_decoder()) if model_kind(model) == "seq2seq" else (plain,)
    for stack in stacks:
        stack.base_model.compile(dynamic=True)
