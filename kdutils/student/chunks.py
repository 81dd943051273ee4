"""How the rows of a step are cut into chunks that fit in memory, and the tensors of a chunk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kdutils.student.rows import IGNORED, ChoiceRow, SharedRows

if TYPE_CHECKING:
    import torch

CHUNK_COST = 0.025  # fixed cost of a chunk, as a share of the token budget


def cut_rows(rows: list, token_budget: int, causal: bool = False) -> list[list]:
    """Cut the rows of a step (TokenRows or ChoiceRows) into chunks of similar length; each row is in one chunk.

    For SharedRows see cut_shared.

    The size of a chunk is rows · (longest source + longest target), padding included; for a causal student, rows ·
    longest (source + target). It is at most `token_budget`, except for a single row that is longer. The cost of a chunk
    is its size plus CHUNK_COST of the budget. The rows are ordered by source or by target and cut in two where the cost
    is lowest; both parts are cut again in the same way, until a part is within the budget and another cut would not
    lower the cost.
    """
    if not rows:
        return []
    if isinstance(rows[0], SharedRows):
        return cut_shared(rows, token_budget)
    sources, targets = (np.array([len(getattr(row, side)) for row in rows]) for side in ("source", "target"))
    if causal:
        sources, targets = sources + targets, np.zeros_like(targets)

    def cost(sizes):
        return sizes + CHUNK_COST * token_budget * np.ceil(sizes / token_budget)

    def best_cut(order):
        def sizes(order):
            widths = np.maximum.accumulate(sources[order]) + np.maximum.accumulate(targets[order])
            return np.arange(1, len(order)) * widths[:-1]

        costs = cost(sizes(order)) + cost(sizes(order[::-1])[::-1])
        at = int(costs.argmin()) + 1
        return costs[at - 1], order[:at], order[at:]

    def parts(chosen):
        size = len(chosen) * (sources[chosen].max() + targets[chosen].max())
        if len(chosen) == 1:
            return [chosen]
        cuts = [best_cut(chosen[np.lexsort((chosen, *keys))])
                for keys in ((targets[chosen], sources[chosen]), (sources[chosen], targets[chosen]))]
        of_both, first, second = min(cuts, key=lambda cut: cut[0])
        if size <= token_budget and cost(size) <= of_both:
            return [chosen]
        return parts(first) + parts(second)

    return [[rows[i] for i in chosen] for chosen in parts(np.arange(len(rows)))]


def cut_shared(rows: list[SharedRows], token_budget: int) -> list[list[SharedRows]]:
    """Cut SharedRows into chunks of at most `token_budget` tokens, padding left out, or of one longer sequence.

    The longest come first: sequences of similar length run together.
    """
    chunks, room = [], 0
    for row in sorted(rows, key=lambda row: len(row.ids), reverse=True):
        if not chunks or len(row.ids) > room:
            chunks.append([])
            room = token_budget
        chunks[-1].append(row)
        room -= len(row.ids)
    return chunks


def packed(rows: list[SharedRows]) -> list[list[SharedRows]]:
    """Put SharedRows one after the other into as few sequences as needed, none longer than the longest of `rows`.

    First fit, the longest first (as "best fit decreasing" of Ding et al. 2024, "Fewer truncations improve language
    modeling", but no text is cut). So at most one sequence has more padding than tokens.
    """
    rows, bins, room, widest = sorted(rows, key=lambda row: len(row.ids), reverse=True), [], [], 0
    for row in rows:
        size = len(row.ids)
        if size <= widest:
            at = next(at for at, left in enumerate(room) if left >= size)
        else:
            at = len(bins)
            bins.append([])
            room.append(len(rows[0].ids))
        bins[at].append(row)
        room[at] -= size
        widest = max(room)
    return bins


# Tensors

def pad_chunk(rows: list, pad: int, start: int | None, causal: bool = False,
              blocks: bool = False) -> dict[str, torch.Tensor]:
    """Return the tensors of a chunk of rows, padded on the right: ids, mask and labels, (rows, length); task, (rows,).

    Encoder-decoder: `decoder_input_ids` are the targets moved right by one, after the start token; ``labels[:, i]`` is
    the token to write at decoder position i. Causal: `input_ids` are source and target as one text, and
    ``labels[:, i]`` is the token after position i; the labels are already moved, a loss must not move them again.
    Sources, target prefixes and padding have the label IGNORED. Padding is known by the lengths, so an end token counts
    even where it is also the padding token. `weight`, (rows,), is there only if a row has another weight than 1. For
    ChoiceRows see pad_choices, for SharedRows (and `blocks`) pad_shared.
    """
    import torch

    if isinstance(rows[0], ChoiceRow):
        return pad_choices(rows, pad)
    if isinstance(rows[0], SharedRows):
        return pad_shared(rows, pad, blocks)
    labels = [[IGNORED] * row.given + row.target[row.given:] for row in rows]
    kinds = {"task": torch.tensor([row.task for row in rows]),
             **weights_unless_one("weight", [row.weight for row in rows])}
    if causal:
        labels = [[IGNORED] * (len(row.source) - 1) + known + [IGNORED]
                  for row, known in zip(rows, labels, strict=True)]
        return {**pad_inputs([row.source + row.target for row in rows], pad), "labels": padded(labels, IGNORED),
                **kinds}
    return {**pad_inputs([row.source for row in rows], pad),
            "decoder_input_ids": padded([[start, *row.target[:-1]] for row in rows], pad),
            "labels": padded(labels, IGNORED), **kinds}


def weights_unless_one(name: str, weights: list[float]) -> dict[str, torch.Tensor]:
    """Return {name: the weights, float64}; {} if all are 1, so that nothing is multiplied by them."""
    import torch

    return {} if all(weight == 1 for weight in weights) else {name: torch.tensor(weights, dtype=torch.float64)}


def pad_shared(rows: list[SharedRows], pad: int, blocks: bool = False) -> dict[str, torch.Tensor]:
    """Return the tensors of a chunk of SharedRows, packed into sequences.

    `input_ids`, `position_ids`: (sequences, length). `attention_mask`, (sequences, 1, length, length): which place
    (third index) sees which (last index); a place of padding sees itself alone, because a softmax over nothing has no
    value. `places`, `tokens`, `of`, `weights`, (counted tokens,): see loss.add_places; a place may be counted for
    several rows.

    `blocks`: for a model with attention.attend. The sequences follow each other as one, without padding: `input_ids`
    and `position_ids` are (1, tokens), and `block_places`, (tokens,), are the places of the tokens in the flattened
    sequences, which the mask still describes.
    """
    import torch

    bins = packed(rows)
    sizes = [sum(len(row.ids) for row in one) for one in bins]
    length = max(sizes)
    ids, depths, ends, counted, weights, first = [], [], [], [], [], 0
    for one, size in zip(bins, sizes, strict=True):
        ids.append([token for row in one for token in row.ids])
        depths.append([depth for row in one for depth in row.depths])
        before, own = 0, []
        for row in one:
            own += [before + end for end in row.ends]
            counted += [(first + before + place, token, task) for place, token, task in row.counted]
            weights += row.weights
            before += len(row.ids)
        ends.append(own + list(range(before + 1, length + 1)))
        first += size if blocks else length
    places, tokens, tasks = torch.tensor(counted).T.contiguous()
    at = torch.arange(length)
    sees = (at[None, :] <= at[:, None]) & (at[:, None] < torch.tensor(ends)[:, None, :])
    tensors = {"input_ids": padded(ids, pad), "position_ids": padded(depths, 0), "attention_mask": sees[:, None],
               "places": places, "tokens": tokens, "of": tasks, **weights_unless_one("weights", weights)}
    if blocks:
        kept = (at < torch.tensor(sizes)[:, None]).flatten().nonzero()[:, 0]
        tensors |= {name: tensors[name].flatten()[None, kept] for name in ("input_ids", "position_ids")}
        tensors["block_places"] = kept
    return tensors


def pad_choices(rows: list[ChoiceRow], pad: int) -> dict[str, torch.Tensor]:
    """Return the tensors of a chunk of ChoiceRows, for models.choice_losses.

    `input_ids`, `attention_mask` and, if the model takes them, `token_type_ids`: (pairs, length), the pairs of all
    questions in order; `choices`: the number of pairs of each question, (questions,); `labels`: the place of the right
    pair, (questions,); `task`, (questions,).
    """
    import torch

    types = [ids for row in rows for ids in row.types]
    return {**pad_inputs([pair for row in rows for pair in row.pairs], pad),
            **({"token_type_ids": padded(types, 0)} if types else {}),
            "choices": torch.tensor([len(row.pairs) for row in rows]),
            "labels": torch.tensor([row.gold for row in rows]), "task": torch.tensor([row.task for row in rows])}


def pad_inputs(lists: list[list[int]], pad: int) -> dict[str, torch.Tensor]:
    """Return `input_ids` and `attention_mask` of lists of token ids, (lists, longest), padded on the right."""
    return {"input_ids": padded(lists, pad), "attention_mask": padded([[1] * len(ids) for ids in lists], 0)}


def padded(lists: list[list[int]], filler: int) -> torch.Tensor:
    """Return lists of numbers as one tensor, (lists, longest), filled up on the right."""
    import torch

    width = max(map(len, lists))
    return torch.tensor([numbers + [filler] * (width - len(numbers)) for numbers in lists])
