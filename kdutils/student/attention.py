"""Attention in bfloat16 on a CPU, for training.

PyTorch's fused attention keeps no matrix of weights, but in bfloat16 its backward pass on a CPU is several times slower
than plain matrix products. For the short sequences of a student these matrices are small. So here they are computed
with oneDNN's products and kept for the backward pass.
"""

import torch
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

NAME = "kept_weights"
LONGEST = 512  # tokens of a sequence: longer ones need too much memory


def use_kept_weights(model: PreTrainedModel) -> None:
    """Give a model this attention, in place, if it takes PyTorch's fused one by the library's interface."""
    if model.config._attn_implementation == "sdpa" and model._can_set_attn_implementation():
        model.set_attn_implementation(NAME)


def attend(module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor,
           attention_mask: torch.Tensor | None, dropout: float = 0.0, scaling: float | None = None,
           **kwargs: object) -> tuple[torch.Tensor, None]:
    """Return (attention of each place, None), as the library's sdpa_attention_forward, which has the other cases.

    Shapes: `query` (sequences, heads, length, size of a head), `key` and `value` with fewer heads or as many,
    `attention_mask` (sequences or 1, 1, length, length), bool; the result (sequences, length, heads, size of a head).
    """
    takes = (value.device.type == "cpu" and torch.is_grad_enabled() and not dropout and not kwargs.get("position_bias")
             and attention_mask is not None and attention_mask.dtype == torch.bool and attention_mask.shape[1] == 1
             and query.shape[2] == key.shape[2] <= LONGEST and _half(value) == torch.bfloat16)
    if not takes:
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling,
                                      **kwargs)
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    query, key, value = (tensor.to(torch.bfloat16) for tensor in (query, key, value))
    return Attention.apply(query, key, value, attention_mask, scaling).transpose(1, 2).contiguous(), None


def _half(tensor):
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else tensor.dtype


class Attention(torch.autograd.Function):
    """softmax(scaling · query keyᵀ) value under a mask; the heads of a group, which share a key, are one matrix.

    The softmax is computed in float32, at least.
    """

    @staticmethod
    def forward(ctx, query, key, value, mask, scaling):
        batch, heads, length, size = query.shape
        groups = batch * key.shape[1]
        query, key, value = (query * scaling).reshape(groups, -1, size), key.flatten(0, 1), value.flatten(0, 1)
        scores = torch.bmm(query, key.transpose(1, 2)).view(batch, heads, length, length)
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32)).masked_fill_(~mask, float("-inf"))
        weights = torch.softmax(scores, dim=-1).to(query.dtype).view(groups, -1, length)
        ctx.save_for_backward(query, key, value, weights)
        ctx.scaling, ctx.heads = scaling, heads
        return torch.bmm(weights, value).view(batch, heads, length, size)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, slope):
        query, key, value, weights = ctx.saved_tensors
        batch, _, length, size = slope.shape
        slope = slope.reshape(query.shape)
        of_value = torch.bmm(weights.transpose(1, 2), slope)
        of_weights = torch.bmm(slope, value.transpose(1, 2))
        of_scores = torch._softmax_backward_data(of_weights, weights, -1, weights.dtype)
        of_query = torch.bmm(of_scores, key) * ctx.scaling
        of_key = torch.bmm(of_scores.transpose(1, 2), query)
        return (of_query.view(batch, ctx.heads, length, size), of_key.view(batch, -1, length, size),
                of_value.view(batch, -1, length, size), None, None)


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, sdpa_mask)
