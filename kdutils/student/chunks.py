"""How the rows of a step are cut into chunks that fit in memory."""

import numpy as np

CHUNK_COST = 0.025  # of the token budget: what a chunk costs by itself


# How a step is cut

def cut_rows(rows, token_budget, causal=False):
    """Cut the rows of a step into chunks of like length; return them as lists of rows, each row in exactly one.

    A chunk's size is rows · (longest source + longest target), padding included, of a causal student rows · longest
    (source + target); it stays at or under `token_budget` unless a single row is larger. Rows are ordered by source
    or by target and cut in two where that costs least, and so on with both parts, until a part is within the budget
    and another cut would cost more than it saves. What is to cost least is the padded tokens and, for each chunk,
    CHUNK_COST of the budget.
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
