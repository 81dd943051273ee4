"""Decoding of many prompts with a shared prefix, which runs through the model once.

A few-shot prompt is a long block of shots, the same for all questions, and a short item. The keys and values of the
block are computed once (read_prefix). A row of the batch holds only its own tokens. Attention over both parts is one
softmax: the queries of all rows are stacked into one matrix product with the shared keys, as in Hydragen (Juravsky et
al. 2024, arXiv 2402.05099), so the block is never copied per row. The model's own code runs unchanged: `attend` is an
attention function of transformers, OwnLayer a layer of its cache.

    [shared tokens]  once         [padding][own tokens][new tokens]  per row

Sizes in the shapes below: rows of the batch, heads, key heads (fewer where heads share keys), new tokens of this
step, own tokens so far, length of the prefix, size of a head.
"""

import inspect
import random
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from transformers import AttentionInterface, LogitsProcessorList, PreTrainedModel, StoppingCriteriaList
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

NAME = "shared_prefix"
# Options of attention that `attend` does not compute.
UNSUPPORTED = ("softcap", "s_aux", "sliding_window", "position_bias", "head_mask")
LEAVE = 7 / 8  # finished rows are removed once at most this share is unfinished: removal copies the other rows' keys
Choose = Callable[[torch.Tensor, "list[Draft]"], list[int]]  # (logits, drafts) to one token per draft


@dataclass(frozen=True)
class Endings:
    """When a completion ends: at one of `end_tokens`, at a text of `stop` (cut off), or at `limit` new tokens.

    `start` returns where in a text a stop text counts from, None for nowhere yet; without it, from the beginning.
    `marks`: {id: text} of special tokens that belong to the text, as those of thinking do; all others do not.
    """

    tokenizer: object
    end_tokens: frozenset
    stop: tuple
    limit: int
    start: Callable[[str], int | None] | None = None
    marks: dict = field(default_factory=dict)
    known: dict = field(default_factory=dict, repr=False)  # token -> may_stop

    def may_stop(self, token: int) -> bool:
        """Return whether a stop text can end in `token`; only then is the text of the row decoded.

        A token with half a character counts as well. Where a stop text ends in a space, every token counts, because
        tokenizers put spaces between tokens.
        """
        if self.stop and token not in self.known:
            text = self.tokenizer.decode([token])
            self.known[token] = "\ufffd" in text or any(mark[-1] in text or mark[-1] == " " for mark in self.stop)
        return bool(self.stop) and self.known[token]

    def cut(self, ids: list[int]) -> tuple[str, bool]:
        """Return (the text of `ids` up to the first stop text, whether there was one)."""
        text = self._decoded(ids)
        start = self.start(text) if self.start else 0
        found = [] if start is None else [at for mark in self.stop if (at := text.find(mark, start)) >= 0]
        return (text[:min(found)], True) if found else (text, False)

    def _decoded(self, ids):
        if self.marks.keys().isdisjoint(ids):
            return self.tokenizer.decode(ids, skip_special_tokens=True)
        text = self.tokenizer.decode(ids)
        for token in set(self.tokenizer.all_special_tokens) - set(self.marks.values()):
            text = text.replace(token, "")
        return text


class Draft:
    """An unfinished completion: the `ids` written so far and, once it has ended, its `finish_reason`."""

    def __init__(self, endings: Endings, seed: str = "") -> None:
        """`seed`: a text that determines the sampled tokens (random.Random: the same on every machine)."""
        self.endings, self.random = endings, random.Random(seed)
        self.ids, self.finish_reason = [], ""

    def add(self, token: int) -> None:
        """Append the next token, unless the draft is finished."""
        if self.finish_reason:
            return
        ended = token in self.endings.end_tokens
        if not ended:
            self.ids.append(token)
        if ended or self.endings.may_stop(token) and self.endings.cut(self.ids)[1]:
            self.finish_reason = "stop"
        elif len(self.ids) == self.endings.limit:
            self.finish_reason = "length"

    @property
    def text(self) -> str:
        """The text written so far, without a stop text."""
        return self.endings.cut(self.ids)[0]


def next_tokens(scores: torch.Tensor, drafts: list[Draft], temperature: float = 0.0, top_p: float = 1.0) -> list[int]:
    """Return one token per draft from `scores` [drafts, vocabulary]: the best one, or a sampled one.

    Nucleus sampling (Holtzman et al. 2020) draws from the smallest set of tokens whose probability reaches `top_p`.
    Each draft has its own random numbers, one per token, so a token does not depend on the other rows of the batch.
    The cumulative sum is in the order of token ids, so that rounding cannot swap two likely tokens.
    """
    if not temperature:
        return scores.argmax(-1).tolist()
    chances = (scores.double() / temperature).softmax(-1)
    if top_p < 1:
        ordered, order = chances.sort(descending=True)
        outside = ordered.cumsum(-1) - ordered >= top_p
        chances = chances.masked_fill(outside.scatter(-1, order, outside), 0.0)
    sums = chances.cumsum(-1)
    drawn = sums.new_tensor([[draft.random.random()] for draft in drafts]) * sums[:, -1:]
    return torch.searchsorted(sums, drawn, right=True).flatten().tolist()


@dataclass(frozen=True)
class Prefix:
    """The shared prefix of all prompts: per layer keys and values, [key heads, length, size]."""

    ids: tuple
    keys: list
    values: list


def shared_length(prompts: list[list[int]]) -> int:
    """Return the length of the shared prefix of `prompts` (lists of ids); each keeps at least one token of its own."""
    first, last = min(prompts), max(prompts)  # in the order of lists, all prompts share the prefix of these two
    most = min(map(len, prompts)) - 1
    return next((place for place in range(most) if first[place] != last[place]), most)


@torch.inference_mode()
def read_prefix(model: PreTrainedModel, ids: list[int]) -> Prefix:
    """Return the Prefix of `ids`, computed with the model's own attention; `ids` may be empty."""
    cache = DynamicCache(config=model.config)
    if ids:
        model(input_ids=torch.tensor([ids], device=model.device), past_key_values=cache, use_cache=True,
              logits_to_keep=1)
    layers = cache.layers if ids else []
    return Prefix(tuple(ids), [layer.keys[0] for layer in layers], [layer.values[0] for layer in layers])


class OwnLayer(DynamicLayer):
    """A cache layer for the rows' own tokens: a buffer [key heads, rows, capacity, size] that is filled in place.

    The library's layer copies all keys at every token. Heads come before rows, in the order that `attend` needs.
    """

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity, self.length = capacity, 0

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Make the buffers for the shapes of the first keys and values."""
        rows, heads, _, size = key_states.shape
        self.keys = key_states.new_empty(heads, rows, self.capacity, size)
        self.values = value_states.new_empty(heads, rows, self.capacity, value_states.shape[-1])
        self.is_initialized = True

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args,
               **kwargs) -> tuple[torch.Tensor, torch.Tensor]:
        """Append keys and values, [rows, key heads, new, size]; return all so far, in this layout."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start, self.length = self.length, self.length + key_states.shape[2]
        self.keys[:, :, start:self.length] = key_states.transpose(0, 1)
        self.values[:, :, start:self.length] = value_states.transpose(0, 1)
        return self.keys[:, :, :self.length].transpose(0, 1), self.values[:, :, :self.length].transpose(0, 1)

    def get_seq_length(self) -> int:
        """Return the number of tokens so far."""
        return self.length

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep the rows `indices` only."""
        self.keys, self.values = self.keys[:, indices], self.values[:, indices]


def attend(module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor,
           attention_mask: torch.Tensor, scaling: float | None = None, shared: Prefix | None = None,
           **options) -> tuple[torch.Tensor, None]:
    """Return attention over the shared prefix and each row's own tokens; an attention function of transformers.

    `query` [rows, heads, new, size]; `key` and `value` [rows, key heads, own, size]; `attention_mask`
    [rows, 1, new, own], added to the scores of the own tokens; `shared`: the Prefix. Returns
    ([rows, new, heads, size], None). Rows are processed in parts whose scores fit into the processor's cache.
    """
    refused = [name for name in UNSUPPORTED if options.get(name) is not None]
    if refused:
        raise NotImplementedError(f"attention with {', '.join(refused)} over a shared prefix")
    rows, heads, new, size = query.shape
    key_heads = key.shape[1]
    groups = heads // key_heads
    # Heads that share keys become queries of one head: [key heads, rows, heads per key head x new, size].
    query = (query * (size ** -0.5 if scaling is None else scaling)).reshape(rows, key_heads, -1, size).transpose(0, 1)
    mask = (attention_mask if groups == 1 else attention_mask.repeat(1, 1, groups, 1)).transpose(0, 1)
    key, value = key.transpose(0, 1), value.transpose(0, 1)
    before = (shared.keys[module.layer_idx], shared.values[module.layer_idx]) if shared.ids else ()
    scores_of_a_row = heads * new * (key.shape[2] + len(shared.ids))
    piece = max(1, (2**26 if query.is_cuda else 2**19) // scores_of_a_row)
    done = [_one_softmax(query[:, at:at + piece], key[:, at:at + piece], value[:, at:at + piece],
                         mask[:, at:at + piece], *before) for at in range(0, rows, piece)]
    out = torch.cat(done, dim=1).transpose(0, 1)  # [rows, key heads, heads per key head x new, size]
    return out.reshape(rows, heads, new, -1).transpose(1, 2), None


def _one_softmax(query, own_keys, own_values, mask, keys=None, values=None):
    """Return softmax(scores) · values over the shared and the own tokens, [key heads, rows, queries, size]."""
    scores = query @ own_keys.transpose(2, 3) + mask
    exact = torch.promote_types(query.dtype, torch.float32)
    if keys is None:
        return scores.softmax(-1, dtype=exact).to(query.dtype) @ own_values
    heads, rows, queries, size = query.shape
    length = keys.shape[1]
    stacked = query.reshape(heads, rows * queries, size) @ keys.transpose(1, 2)  # the queries of all rows at once
    scores = torch.cat([stacked.view(heads, rows, queries, length), scores], dim=-1)
    weights = scores.softmax(-1, dtype=exact).to(query.dtype)
    out = weights[..., :length].reshape(heads, rows * queries, length) @ values
    return out.view(heads, rows, queries, -1) + weights[..., length:] @ own_values


AttentionInterface.register(NAME, attend)


@contextmanager
def _attending(model):
    """Use `attend` inside the context, and the model's own attention after it."""
    before = model.config._attn_implementation
    model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


@torch.inference_mode()
def write_after_prefix(model: PreTrainedModel, prefix: Prefix, contexts: list[list[list[int]]], drafts: list[Draft],
                       choose: Choose) -> None:
    """Write all `drafts` to their end, each after `prefix` and its own tokens.

    `contexts`: one or more contexts, each with the own ids before every draft; several where one draft continues
    several prompts at once (contrastive.py). ``choose(logits, drafts)`` gets the logits [contexts, drafts, vocabulary]
    of the next token and returns one token per draft.
    """
    rows = [ids for context in contexts for ids in context]
    width, limit, live = max(map(len, rows)), drafts[0].endings.limit, list(drafts)
    ids = torch.tensor([[0] * (width - len(row)) + row for row in rows], device=model.device)
    seen = torch.tensor([[False] * (width - len(row)) + [True] * len(row) for row in rows], device=model.device)
    places = (len(prefix.ids) + seen.cumsum(1) - 1).clamp(min=0)
    lowest = torch.finfo(model.dtype).min  # not -inf: a row of padding alone would become NaN
    padding = torch.zeros(len(rows), 1, 1, width + limit, dtype=model.dtype, device=model.device)
    padding[:, 0, 0, :width].masked_fill_(~seen, lowest)
    causal = torch.full((width, width), lowest, dtype=model.dtype, device=model.device).triu(1)
    mask = torch.minimum(padding[..., :width], causal)
    cache = Cache(layers=[OwnLayer(width + limit) for _ in DynamicCache(config=model.config).layers])
    with _attending(model):
        while True:
            logits = model(input_ids=ids, attention_mask=mask, position_ids=places, past_key_values=cache,
                           use_cache=True, logits_to_keep=1, shared=prefix).logits[:, -1]
            tokens = choose(logits.view(len(contexts), len(live), -1), live)
            for draft, token in zip(live, tokens, strict=True):
                draft.add(token)
            places = places[:, -1:] + 1
            left = [at for at, draft in enumerate(live) if not draft.finish_reason]
            if not left:
                return
            if len(left) <= LEAVE * len(live):
                chosen = torch.tensor([at + turn * len(live) for turn in range(len(contexts)) for at in left])
                cache.batch_select_indices(chosen)
                places, padding = places[chosen], padding[chosen]
                live, tokens = [live[at] for at in left], [tokens[at] for at in left]
            ids = torch.tensor(tokens * len(contexts), device=model.device)[:, None]
            mask = padding[..., :cache.get_seq_length() + 1]


@torch.inference_mode()
def write_plainly(model: PreTrainedModel, contexts: list[list[list[int]]], drafts: list[Draft], choose: Choose,
                  pad: int) -> None:
    """Write all `drafts` to their end by the library's `generate` over whole prompts; for any model.

    `contexts` and `choose` as in write_after_prefix, with whole prompts; `pad`: the id of the padding.
    """
    rows = [ids for context in contexts for ids in context]
    width = max(map(len, rows))

    def padded(row, filler):
        empty = [filler] * (width - len(row))
        return row + empty if model.config.is_encoder_decoder else empty + row

    def steer(_, scores):
        tokens = choose(scores.view(len(contexts), len(drafts), -1), drafts)
        for draft, token in zip(drafts, tokens, strict=True):
            draft.add(token)
        chosen = torch.tensor(tokens * len(contexts), device=scores.device)[:, None]
        return torch.full_like(scores, -torch.inf).scatter(1, chosen, 0.0)

    def finished(ids, _, **others):
        return torch.tensor([bool(draft.finish_reason) for draft in drafts] * len(contexts), device=ids.device)

    model.generate(torch.tensor([padded(row, pad) for row in rows], device=model.device),
                   attention_mask=torch.tensor([padded([1] * len(row), 0) for row in rows], device=model.device),
                   max_new_tokens=drafts[0].endings.limit, do_sample=False, num_beams=1,
                   pad_token_id=pad, logits_processor=LogitsProcessorList([steer]),
                   stopping_criteria=StoppingCriteriaList([finished]))


def shares_prefix(model: PreTrainedModel) -> bool:
    """Return whether write_after_prefix is correct for this model, by its structure and by a trial on a few tokens.

    Every layer must keep the keys of all tokens (no sliding window, no state), accept an attention function of the
    caller, and take positions. The effect of a position must not depend on the length of the text. Any other
    difference shows in the trial: the logits of two short rows must equal those of the whole rows without a cache.
    """
    takes = inspect.signature(model.forward).parameters
    if (model.config.is_encoder_decoder or not model._supports_attention_backend
            or not {"position_ids", "logits_to_keep", "past_key_values"} <= set(takes)
            or any(type(layer) is not DynamicLayer for layer in DynamicCache(config=model.config).layers)
            or any(kind in str(getattr(model.config, "rope_parameters", "")) for kind in ("dynamic", "longrope"))):
        return False
    prefix, rows, then = [5, 6, 7, 8, 9, 10], [[11, 12, 13], [14]], 15
    seen = []

    def note(logits, drafts):
        seen.append(logits[0].float())
        return [then] * len(drafts)

    try:
        drafts = [Draft(Endings(None, frozenset(), (), 2)) for _ in rows]
        write_after_prefix(model, read_prefix(model, prefix), [rows], drafts, note)
        with torch.inference_mode():
            whole = [model(input_ids=torch.tensor([prefix + row + [then]], device=model.device)).logits[0, -2:].float()
                     for row in rows]
    except Exception:  # whatever the reason, this architecture is run by write_plainly
        return False
    seen, whole = torch.stack(seen), torch.stack(whole, dim=1)  # [steps, rows, vocabulary]
    exact = model.dtype in (torch.float32, torch.float64) and not getattr(model, "is_quantized", False)
    return bool((seen - whole).norm() <= (1e-3 if exact else 0.1) * (whole - whole.mean(-1, keepdim=True)).norm())
