"""The rows of a student as token ids, and the rows of one question in one sequence."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

IGNORED = -100  # the label of what does not count in the loss


@dataclass(frozen=True)
class TokenRow:
    """A Row as token ids; `task` is the number of its task in the method's order.

    `target`: the ids of target prefix and target, end token included. The first `given` ids are the prefix, which does
    not count in the loss. `weight`: see methods.Row.
    """

    task: int
    source: list[int]
    target: list[int]
    given: int = 0
    weight: float = 1.0

    @property
    def counted(self) -> int:
        """How many of the target's tokens count in the loss."""
        return len(self.target) - self.given


@dataclass(frozen=True)
class ChoiceRow:
    """A question for a classifier: the token ids (and type ids) of each pair of question and choice.

    `gold` is the place of the right choice. A question counts as one target token, so the loss of its task is a mean
    over questions.
    """

    task: int
    pairs: list[list[int]]
    types: list[list[int]]
    gold: int
    counted = 1
    given = 0
    weight = 1.0

    @property
    def source(self) -> list[int]:
        """The tokens of all pairs: what the question takes of a token budget."""
        return [token for pair in self.pairs for token in pair]

    @property
    def target(self) -> list[int]:
        """The place of the right choice, as the one target token."""
        return [self.gold]


@dataclass
class SharedRows:
    """The rows of one question for a causal student, in one sequence in which equal beginnings stand once.

    The rows form a tree of tokens (a trie), written in depth-first order. The token at place j sees the token at place
    i if i lies on its path from the beginning: ``i <= j < ends[i]``. Its position is its depth. So each token sees what
    it would see in its own row, and a causal model computes the same states as for separate rows, the shared ones once.
    (The last token of a row is only predicted, so it is not among the inputs.)

    `ids`, `depths`, `ends`: one number per place. `counted`: (place, next token, task) of every target token that
    counts in the loss; a place may stand there more than once, because rows part behind it. `weights`: the weight of
    the row of each of them.
    """

    rows: list[TokenRow]
    ids: list[int] = field(default_factory=list)
    depths: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    counted: list[tuple[int, int, int]] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        path, last = [], []  # the places of the row before, and its tokens
        for row in sorted(self.rows, key=lambda row: row.source + row.target):
            text = row.source + row.target
            same = next((at for at, pair in enumerate(zip(text[:-1], last, strict=False)) if pair[0] != pair[1]),
                        min(len(text) - 1, len(last)))
            for place in path[same:]:
                self.ends[place] = len(self.ids)
            new = text[same:-1]
            path = path[:same] + list(range(len(self.ids), len(self.ids) + len(new)))
            self.ids += new
            self.depths += range(same, same + len(new))
            self.ends += [0] * len(new)
            first, last = len(row.source) - 1, text[:-1]
            self.counted += [(path[first + at], row.target[at], row.task) for at in range(row.given, len(row.target))]
            self.weights += [row.weight] * row.counted
        for place in path:
            self.ends[place] = len(self.ids)

    @property
    def source(self) -> list[int]:
        """All tokens of the sequence: what the question takes of a token budget."""
        return self.ids


def counted_tokens(rows: Iterable[TokenRow | ChoiceRow | SharedRows], tasks: int) -> list[float]:
    """Return how many target tokens of each of `tasks` (their number) count in the loss of `rows`.

    A token counts as much as the weight of its row.
    """
    counts = [0] * tasks
    for row in single_rows(rows):
        counts[row.task] += row.counted if row.weight == 1 else row.weight * row.counted
    return counts


def of_task(rows: Iterable[TokenRow | ChoiceRow | SharedRows], task: int) -> list:
    """Return the rows of one task, by its number, each by itself."""
    return [row for row in single_rows(rows) if row.task == task]


def single_rows(rows: Iterable[TokenRow | ChoiceRow | SharedRows]) -> list:
    """Return rows with those of each SharedRows by themselves."""
    return [one for row in rows for one in (row.rows if isinstance(row, SharedRows) else [row])]
