"""Power: the smallest difference that a study of accuracies or of ratings can find, and how likely it finds one."""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import optimize, special, stats

from kdutils.errors import StudyError
from kdutils.stats.accuracy import crossed_difference
from kdutils.stats.estimates import Estimate
from kdutils.stats.inputs import checked_numbers

SHARES = (0.5, 0.1)  # of the variance of an answer's score: of the question, and of question and method


@dataclass(frozen=True)
class StudyPower:
    """Power, from 0 to 1: overall (Kruskal-Wallis) and of all pairs (columns first, second, vda, power, low, high)."""

    overall: Estimate
    pairs: pd.DataFrame


@dataclass(frozen=True)
class Detectable:
    """The smallest shift that is found with the required power: as VDA (0 to 1), in scale points, as an odds ratio."""

    vda: float
    points: float
    odds_ratio: float


def study_power(shares: dict[str, ArrayLike], raters: int, ratings: int, rater_correlation: float = 0.0,
                level: float = 0.05, simulations: int = 1000, seed: int = 0) -> StudyPower:
    """Return the StudyPower, by simulation, of a study where `raters` people give `ratings` ratings each.

    shares: {name: share of ratings in each category, lowest category first}. Raters take the names in turn, so cells
    differ by at most one rating. A rating is a standard normal value, cut into categories as `shares` say; the share
    rater_correlation (0 to below 1) of its variance is the rater's own. Tests: Kruskal-Wallis over all names and
    Wilcoxon's rank sum for every pair (Holm). Like the published analysis, both ignore who rated. power is the share of
    simulations with p < level; its interval is exact (Clopper-Pearson). Every rating is of a text of its own:
    where raters share texts, a test that takes this into account has less power.
    """
    shares = {name: check_shares(values, name) for name, values in shares.items()}
    categories = max(map(len, shares.values()), default=0)
    if len(shares) < 2 or any(len(values) < categories for values in shares.values()):
        raise StudyError("shares: two names or more are needed, with the same number of categories")
    if not 0 <= rater_correlation < 1 or raters < 1 or ratings < 1 or raters * ratings < 2 * len(shares):
        raise StudyError("a study needs two ratings per name or more, and a rater correlation from 0 to below 1")
    generator = np.random.default_rng(seed)
    own, rest = (generator.standard_normal((simulations, raters, size)) for size in (1, ratings))
    latent = np.sqrt(rater_correlation) * own + np.sqrt(1 - rater_correlation) * rest
    turn = np.add.outer(np.arange(raters) * ratings, np.arange(ratings)) % len(shares)
    drawn = [np.searchsorted(stats.norm.ppf(np.cumsum(values)[:-1]), latent[:, turn == i])
             for i, values in enumerate(shares.values())]
    # With counts per category, all simulated studies are tested in one step.
    counts = np.stack([np.stack([(values == category).sum(axis=1) for category in range(categories)], axis=1)
                       for values in drawn], axis=1)
    overall = _kruskal_of_counts(counts)
    pairs = np.array([_kruskal_of_counts(counts[:, pair]) for pair in combinations(range(len(shares)), 2)])
    powers = [_share_below(values, level) for values in holm(pairs)]
    return StudyPower(_share_below(overall, level), pd.DataFrame(
        [{"first": first, "second": second, "vda": _vda_of_shares(shares[first], shares[second]),
          "power": result.value, "low": result.low, "high": result.high}
         for (first, second), result in zip(combinations(shares, 2), powers, strict=True)]))


def minimal_detectable(shares: ArrayLike, first_size: int, second_size: int | None = None, power: float = 0.8,
                       level: float = 0.05, points: ArrayLike | None = None) -> Detectable:
    """Return the smallest upward shift of ratings that a rank-sum test of two groups finds with the given power.

    shares: share of each category in the group that is not shifted, lowest category first; in the other group all
    cumulative log odds are shifted. Sample size by Noether (1987) with ties: A - 1/2 = (z_{1 - level/2} + z_power) ·
    sqrt((1 - Σ p³) (m + n + 1) / (12 m n)), p the mean shares, m and n the numbers of ratings. `points` of each
    category, rising, give the difference of means; without them the categories are one point apart. For several
    comparisons give the level of each one after correction.
    """
    shares, sizes = check_shares(shares, "shares"), (first_size, first_size if second_size is None else second_size)
    if min(sizes) < 2 or not (0 < level < 1 and level / 2 < power < 1):
        raise StudyError("two ratings per group or more, level between 0 and 1, power from above level / 2 to below 1")
    factor = (stats.norm.ppf(1 - level / 2) + stats.norm.ppf(power)) * np.sqrt(
        (sum(sizes) + 1) / (12 * sizes[0] * sizes[1]))

    def shifted(odds):
        cumulative = special.expit(special.logit(np.clip(np.cumsum(shares)[:-1], 0, 1)) - odds)
        return np.diff(np.concatenate([[0], cumulative, [1]]))

    def gap(odds):
        moved = shifted(odds)
        return _vda_of_shares(moved, shares) - 0.5 - factor * np.sqrt(1 - np.sum(((moved + shares) / 2) ** 3))

    if gap(30) <= 0:
        raise StudyError(f"no upward shift of these ratings is found with {sizes[0]} and {sizes[1]} ratings")
    odds = optimize.brentq(gap, 0, 30)
    moved = shifted(odds)
    points = np.arange(len(shares)) if points is None else np.asarray(points, dtype=float)
    return Detectable(_vda_of_shares(moved, shares), float((moved - shares) @ points),
                      float(np.exp(odds)))


def _kruskal_of_counts(counts):
    """Return p of Kruskal-Wallis of each study in `counts` (studies, groups, categories); 1 if all ratings are equal.

    For two groups it is Wilcoxon's rank sum test (normal approximation with ties, no continuity correction).
    """
    totals, sizes = counts.sum(axis=1), counts.sum(axis=2)
    size = totals[0].sum()
    ranks = np.cumsum(totals, axis=1) - (totals - 1) / 2
    sums = np.sum(counts * ranks[:, None], axis=2)
    ties = 1 - np.sum(totals.astype(float) ** 3 - totals, axis=1) / (float(size) ** 3 - size)
    statistic = 12 / (size * (size + 1)) * np.sum(sums ** 2 / sizes, axis=1) - 3 * (size + 1)
    varied = ties > 1e-12
    return np.where(varied, stats.chi2.sf(statistic / np.where(varied, ties, 1), counts.shape[1] - 1), 1.0)


def holm(p_values: np.ndarray) -> np.ndarray:
    """Return p values corrected by Holm's method along the first axis; statsmodels takes one study per call, slowly."""
    order = np.argsort(p_values, axis=0)
    left = np.arange(len(p_values), 0, -1).reshape(-1, *[1] * (p_values.ndim - 1))
    steps = np.take_along_axis(p_values, order, 0) * left
    np.put_along_axis(steps, order, np.minimum(np.maximum.accumulate(steps, axis=0), 1), 0)
    return steps


def _share_below(p_values, level):
    hits, size = int(np.sum(p_values < level)), len(p_values)
    exact = stats.binomtest(hits, size).proportion_ci(method="exact")
    return Estimate(hits / size, float(exact.low), float(exact.high), size)


def check_shares(values: ArrayLike, name: str) -> np.ndarray:
    """Return the shares of categories as floats that sum to 1; StudyError if one is negative or the sum is not 1."""
    values = checked_numbers(values, f"shares of {name}", least=2)
    if values.min() < 0 or abs(values.sum() - 1) > 1e-6:
        raise StudyError(f"shares of {name}: each must be 0 or more and all must sum to 1, not {values.sum():g}")
    return values / values.sum()


def _vda_of_shares(first, second):
    return float(first @ (np.cumsum(second) - second / 2))


def simulate_answers(accuracies: list[float], seeds: int, questions: int, spreads: list[float],
                     generator: np.random.Generator, shares: tuple[float, float] = SHARES) -> list[np.ndarray]:
    """Return a matrix (seeds, questions) of right answers per method; `accuracies`, `spreads`: one per method.

    An answer is right if a normal score exceeds a threshold. The score is the sum of the question (equal for all
    methods), of question and method, and of noise; `shares` of its variance are those of the first two. The threshold
    is where the accuracy of method and seed puts it; `spreads` are the standard deviations between seeds.
    """
    common, answers = generator.normal(0, shares[0] ** 0.5, questions), []
    for accuracy, spread in zip(accuracies, spreads, strict=True):
        own = generator.normal(0, shares[1] ** 0.5, questions)
        noise = generator.normal(0, max(0.0, 1 - sum(shares)) ** 0.5, (seeds, questions))
        of_seed = np.clip(accuracy + generator.normal(0, spread, (seeds, 1)), 0.001, 0.999)
        answers.append(common + own + noise > stats.norm.ppf(1 - of_seed))
    return answers


def detectable_accuracy(seeds: int, questions: int, accuracy: float, seed_spread: float = 0.015,
                        shares: tuple[float, float] = SHARES, level: float = 0.05, power: float = 0.8,
                        simulations: int = 400, seed: int = 0) -> float:
    """Return the smallest difference in accuracy (0 to 1) that crossed_difference finds with probability `power`.

    By simulation, see simulate_answers. `accuracy`: that of the weaker method. `seed_spread`: the standard deviation of
    an accuracy between seeds. Both methods have `seeds` seeds and the same `questions`. All differences are tried with
    the same random numbers, so power rises with the difference, and bisection finds the smallest one to 0.001. NaN
    where even the largest possible difference is not found. Raises StudyError for one seed, which says nothing about
    other seeds.
    """
    if seeds < 2:
        raise StudyError(f"seeds: {seeds} cannot show a difference between methods; give at least 2")

    def found(difference):
        generator, hits = np.random.default_rng(seed), 0
        for _ in range(simulations):
            weak, strong = simulate_answers([accuracy, accuracy + difference], seeds, questions, [seed_spread] * 2,
                                            generator, shares)
            hits += crossed_difference(strong, weak).p < level
        return hits / simulations

    low, high = 0.0, 1 - accuracy
    if found(high) < power:
        return float("nan")
    while high - low > 0.001:
        middle = (low + high) / 2
        low, high = (low, middle) if found(middle) >= power else (middle, high)
    return high
