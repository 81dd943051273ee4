"""Layers that compute the same as the library's, faster."""

import contextlib
import ctypes

import torch
from torch.nn import functional
from transformers.activations import NewGELUActivation

from kdutils.student.loss import standing_gradient
from kdutils.student.models import model_kind

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
VOCABULARY = 1000  # entries from which an embedding is one


# Equivalents that are faster

class QuickDropout(torch.nn.Dropout):
    """Dropout that draws 16 random bits per number where the library, on a CPU, draws a whole double.

    The probability is rounded to 1/65536, and what is kept is scaled by the rounded one, so means stay exact.
    """

    def forward(self, numbers):
        if numbers.is_cuda or not self.training or self.p == 0:
            return super().forward(numbers)
        bits = torch.empty((numbers.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
        dropped = min(round(self.p * 2**16), 2**16 - 1)
        kept = (bits[: numbers.numel()].view(numbers.shape) >= dropped - 2**15).to(numbers.dtype)
        return numbers * kept.mul_(2**16 / (2**16 - dropped))


class QuickEmbedding(torch.nn.Embedding):
    """An embedding whose gradient, where one stands already, is added to in the rows that were read.

    The library makes one of the whole vocabulary for every chunk and adds it up: a hundred megabytes read and written.
    """

    def forward(self, ids):
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
        standing = standing_gradient(ctx.weight, slope.dtype)
        gradient = torch.zeros_like(ctx.weight) if standing is None else standing
        if ctx.padding is not None:
            slope = slope.masked_fill((ids == ctx.padding)[..., None], 0)
        gradient.index_add_(0, ids.flatten(), slope.flatten(0, -2))
        return None, gradient if standing is None else None, None


def use_fast_layers(model):
    """Put faster equivalents into a model, in place, of GELU's tanh form, and on a CPU of dropout and embeddings.

    What they compute is the same, but for the bits that a dropout draws.
    """
    on_cpu = not next(model.parameters()).is_cuda
    for module in list(model.modules()):
        if on_cpu and type(module) is torch.nn.Embedding and _is_plain(module):
            module.__class__ = QuickEmbedding  # it stays the same object, which a model has in several places
        for name, part in list(module.named_children()):
            if type(part) is NewGELUActivation:
                setattr(module, name, torch.nn.GELU(approximate="tanh"))
            elif type(part) is torch.nn.Dropout and part.p < 1:
                setattr(module, name, QuickDropout(part.p).train(part.training))
    return model


def _is_plain(embedding):
    return embedding.num_embeddings >= VOCABULARY and embedding.max_norm is None and not embedding.scale_grad_by_freq


def vocabularies(model):
    """Return the weights over a vocabulary, to which chunks add their gradients where a ``grad`` is there already."""
    modules = [module for module in model.modules() if type(module) is QuickEmbedding]
    head = model.get_output_embeddings()
    modules += [head] if type(head) is torch.nn.Linear and not head.weight.is_cuda else []
    return [weight for weight in {id(module.weight): module.weight for module in modules}.values()
            if weight.requires_grad]


def keep_memory():
    """Have glibc keep what is freed for the next chunk, a gigabyte at most: to get new pages takes time in every one.

    Where there is no glibc, nothing is done.
    """
    with contextlib.suppress(AttributeError, OSError):
        change = ctypes.CDLL(None).mallopt
        for parameter in (M_TRIM_THRESHOLD, M_MMAP_THRESHOLD):
            change(parameter, 2**30)


def compile_stacks(model):
    """Compile the layers below the output layer, in place, for lengths of every kind (torch.compile, Inductor)."""
    plain = model.get_base_model() if hasattr(model, "get_base_model") else model
    stacks = (plain.get_encoder(), plain.get_decoder()) if model_kind(model) == "seq2seq" else (plain,)
    for stack in stacks:
        stack.base_model.compile(dynamic=True)
