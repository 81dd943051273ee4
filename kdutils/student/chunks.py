"""How the rows of a step are cut into chunks that fit in memory."""

import numpy as np

CHUNK_COST = 0.025  # fixed cost of a chunk, as a share of the token budget


def cut_rows(rows: list, token_budget: int, causal: bool = False) -> list[list]:
    """Cut the rows of a step (TokenRows or ChoiceRows) into chunks of similar length; each row is in one chunk.

    The size of a chunk is rows · (longest source + longest target), padding included; for a causal student, rows ·
    longest (source + target). It is at most `token_budget`, except for a single row that is longer. The cost of a chunk
    is its size plus CHUNK_COST of the budget. The rows are ordered by source or by target and cut in two where the cost
    is lowest; both parts are cut again in the same way, until a part is within the budget and another cut would not
    lower the cost.
    """
    if not rows:
        return []
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
