"""What an estimate and a test consist of, and the percentile bootstrap."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from kdutils.errors import StudyError

MISSING = "no test"  # instead of a p value


def p_text(value: float, name: str = "p") -> str:
    """Return a p value (or a q) as text: p = 0.031, p < 0.001, no test."""
    if value != value:
        return MISSING
    return f"{name} < 0.001" if value < 0.001 else f"{name} = 1" if value > 0.9995 else f"{name} = {value:.3f}"


@dataclass(frozen=True)
class Estimate:
    """A value with its confidence interval, low to high.

    n: how many values, pairs or clusters were sampled. p: two-sided p value, None where no test was made.
    """

    value: float
    low: float
    high: float
    n: int
    p: float | None = None

    def __post_init__(self):
        if not np.isfinite([self.value, self.low, self.high]).all():
            raise StudyError(f"the interval {self.low} to {self.high} of {self.value} is not defined")


@dataclass(frozen=True)
class HypothesisTest:
    """The result of a test: statistic, its degrees of freedom, p and the number of values n.

    effect: an effect size; the function that makes the test says which.
    """

    name: str
    statistic: float
    df: tuple[int, ...]
    p: float
    n: int
    effect: float | None = None


def percentiles(values: list[float] | np.ndarray, confidence: float) -> tuple[float, float]:
    """Return the two percentiles that enclose the middle `confidence` (0 to 1) of `values`."""
    low, high = np.percentile(values, [50 - 50 * confidence, 50 + 50 * confidence])
    return float(low), float(high)


def bootstrap(statistic: Callable[[np.ndarray], float], size: int, codes: np.ndarray | None, resamples: int,
              seed: int) -> np.ndarray:
    """Return statistic(row numbers) of every resample of `size` rows, without the resamples where it is undefined.

    `codes` numbers the cluster of every row; then whole clusters are drawn. A statistic is undefined where it is NaN or
    raises StudyError. Raises StudyError for fewer than two rows or clusters, and where over half are undefined.
    """
    members = range(size) if codes is None else [np.flatnonzero(codes == i) for i in range(codes.max() + 1)]
    if len(members) < 2:
        raise StudyError("a bootstrap needs at least two rows or clusters")
    generator, draws = np.random.default_rng(seed), []
    for _ in range(resamples):
        chosen = generator.integers(0, len(members), len(members))
        try:
            draws.append(statistic(chosen if codes is None else np.concatenate([members[i] for i in chosen])))
        except StudyError:
            draws.append(np.nan)
    draws = np.array(draws, dtype=float)
    if np.isnan(draws).mean() > 0.5:
        raise StudyError(f"the statistic is undefined on {np.isnan(draws).sum()} of {resamples} resamples: too few "
                         "rows that differ")
    return draws[~np.isnan(draws)]


def widest_interval(statistic: Callable[[np.ndarray], float], size: int, clusters: Sequence[np.ndarray], resamples: int,
                    confidence: float, seed: int) -> tuple[float, float, int]:
    """Return (low, high, n): the lowest and the highest end of the percentile intervals over each of `clusters`.

    If values depend on each other in two ways, as those of one person and those of one text do, an interval over one of
    the two alone can be too narrow. `clusters`: arrays that number the cluster of every row (see bootstrap); with none,
    rows are resampled. n: of the fewest clusters, else of rows.
    """
    ends = [percentiles(bootstrap(statistic, size, codes, resamples, seed), confidence) for codes in clusters or [None]]
    return (min(low for low, _ in ends), max(high for _, high in ends),
            min((int(codes.max()) + 1 for codes in clusters), default=size))
