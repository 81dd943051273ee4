"""Attention for a chunk that runs as one sequence without padding.

Only attention needs the sequences of a chunk apart. So the tokens of all sequences follow each other through the other
layers, without padding (chunks.pad_shared), and are put into padded blocks here.

In bfloat16 on a CPU, the backward pass of PyTorch's fused attention is several times slower than plain matrix products.
So there the weights of attention are computed and kept, which takes little memory for short sequences.
"""

import torch
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

NAME = "blocks"
LONGEST = 512  # tokens of a sequence for which weights of attention are kept


def attends_in_blocks(model: torch.nn.Module) -> bool:
    """Return whether a model has this attention, so that its chunks need no padding."""
    return getattr(_plain(model).config, "_attn_implementation", None) == NAME


def set_blocks(model: torch.nn.Module, wanted: bool = True) -> bool:
    """Give a model this attention in place of PyTorch's fused one, or take it back; return whether it has it now."""
    plain = _plain(model)
    if plain.config._attn_implementation == ("sdpa" if wanted else NAME) and plain._can_set_attn_implementation():
        plain.set_attn_implementation(NAME if wanted else "sdpa")
    return attends_in_blocks(model)


def _plain(model) -> PreTrainedModel:
    model = getattr(model, "module", model)
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def attend(module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor,
           attention_mask: torch.Tensor | None, dropout: float = 0.0, scaling: float | None = None,
           block_places: torch.Tensor | None = None, **kwargs: object) -> tuple[torch.Tensor, None]:
    """Return (the attention of each token, None); without `block_places` as the library does.

    Shapes: `query`, `key`, `value` (1, heads, tokens, size), with fewer heads in key and value or as many;
    `attention_mask` (blocks, 1, length, length), bool; `block_places`, (tokens,): where each token stands in the
    flattened blocks. The result: (1, tokens, heads, size).
    """
    if block_places is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **kwargs)
    keep = _keeps_weights(query, value, attention_mask, dropout)
    blocks, _, _, length = attention_mask.shape
    query, key, value = (_in_blocks(tensor.to(torch.bfloat16) if keep else tensor, block_places, blocks, length)
                         for tensor in (query, key, value))
    if keep:
        scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
        found = KeptWeights.apply(query, key, value, attention_mask, scaling).transpose(1, 2)
    else:
        found, _ = sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **kwargs)
    return found.flatten(0, 1).index_select(0, block_places)[None], None


def _keeps_weights(query, value, mask, dropout):
    half = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else query.dtype
    return (query.device.type == "cpu" and half == torch.bfloat16 and value.shape[-1] == query.shape[-1]
            and torch.is_grad_enabled() and not dropout and mask.shape[-1] <= LONGEST)


def _in_blocks(tensor, places, blocks, length):
    """Return (1, heads, tokens, size) as (blocks, heads, length, size), filled up with zeros."""
    tokens = tensor[0].transpose(0, 1)
    if len(tokens) < blocks * length:
        tokens = tokens.new_zeros(blocks * length, *tokens.shape[1:]).index_copy(0, places, tokens)
    return tokens.reshape(blocks, length, *tokens.shape[1:]).transpose(1, 2)


class KeptWeights(torch.autograd.Function):
    """softmax(scaling · query keyᵀ) value under a mask; the softmax in float32, or better.

    The heads of a group, which share a key, are one matrix.
    """

    @staticmethod
    def forward(ctx: object, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor,
                scaling: float) -> torch.Tensor:
        """Return (blocks, heads, length, size); for the shapes see attend()."""
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
    def backward(ctx: object, slope: torch.Tensor) -> tuple:
        """Return the gradients of forward's inputs."""
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
