"""How likely a planned study finds a difference, and the smallest difference that it can find."""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from scipy import optimize, special, stats

from kdutils.errors import StudyError
from kdutils.stats.accuracy import Estimate
from kdutils.stats.inputs import checked_numbers


@dataclass(frozen=True)
class StudyPower:
    """Power of a planned study: overall (Kruskal-Wallis) and pairs (first, second, vda, power, low, high)."""

    overall: Estimate
    pairs: pd.DataFrame


@dataclass(frozen=True)
class Detectable:
    """The smallest shift found with the power asked for: as VDA, in scale points and as an odds ratio."""

    vda: float
    points: float
    odds_ratio: float


# --- planning a study with people


def study_power(shares, raters, ratings, rater_correlation=0.0, level=0.05, simulations=1000, seed=0):
    """Return the StudyPower of a planned rating study, simulated: `raters` people give `ratings` ratings each.

    shares: {name: share of ratings in each category, lowest first}. Raters go round the names in turn, so the cells
    are equal to within one. A rating is a standard normal value cut where `shares` say, of which rater_correlation
    is the rater's own part. Tests: Kruskal-Wallis over all, Wilcoxon's rank sum of every pair (Holm); like the
    published analysis both ignore who rated. power is the share of p < level, its interval exact (Clopper-Pearson).
    """
    shares = {name: check_shares(values, name) for name, values in shares.items()}
    categories = max(map(len, shares.values()), default=0)
    if len(shares) < 2 or any(len(values) < categories for values in shares.values()):
        raise StudyError("shares: two names or more with the same number of categories")
    if not 0 <= rater_correlation < 1 or raters < 1 or ratings < 1 or raters * ratings < 2 * len(shares):
        raise StudyError("a study needs two ratings per name or more, and a rater correlation from 0 to below 1")
    generator = np.random.default_rng(seed)
    own, rest = (generator.standard_normal((simulations, raters, size)) for size in (1, ratings))
    latent = np.sqrt(rater_correlation) * own + np.sqrt(1 - rater_correlation) * rest
    turn = np.add.outer(np.arange(raters) * ratings, np.arange(ratings)) % len(shares)
    drawn = [np.searchsorted(stats.norm.ppf(np.cumsum(values)[:-1]), latent[:, turn == i])
             for i, values in enumerate(shares.values())]
    # As counts per category a thousand studies are tested at once.
    counts = np.stack([np.stack([(values == category).sum(axis=1) for category in range(categories)], axis=1)
                       for values in drawn], axis=1)
    overall = _kruskal_of_counts(counts)
    pairs = np.array([_kruskal_of_counts(counts[:, pair]) for pair in combinations(range(len(shares)), 2)])
    found = [_share_below(values, level) for values in _holm(pairs)]
    return StudyPower(_share_below(overall, level), pd.DataFrame(
        [{"first": first, "second": second, "vda": _vda_of_shares(shares[first], shares[second]),
          "power": result.value, "low": result.low, "high": result.high}
         for (first, second), result in zip(combinations(shares, 2), found, strict=True)]))


def minimal_detectable(shares, first_size, second_size=None, power=0.8, level=0.05):
    """Return the smallest upward shift of ratings that a rank-sum test of two groups finds with the power asked for.

    shares: of the categories in the group that does not shift, lowest first; the other follows by a shift of all
    cumulative log odds. Noether (1987) with ties: A - 1/2 = (z_{1 - level/2} + z_power) · sqrt((1 - Σ p³)
    (m + n + 1) / (12 m n)), p the mean shares. points: difference of the means, one point per category.
    For several comparisons give the level that each is left with.
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
    return Detectable(_vda_of_shares(moved, shares), float((moved - shares) @ np.arange(len(shares))),
                      float(np.exp(odds)))


def _kruskal_of_counts(counts):
    """Return the p of Kruskal-Wallis of every study in `counts`, (studies, groups, categories); 1 where all are equal.

    With two groups it is Wilcoxon's rank sum test, normal approximation with ties and no continuity correction.
    """
    totals, sizes = counts.sum(axis=1), counts.sum(axis=2)
    size = totals[0].sum()
    ranks = np.cumsum(totals, axis=1) - (totals - 1) / 2
    sums = np.sum(counts * ranks[:, None], axis=2)
    ties = 1 - np.sum(totals.astype(float) ** 3 - totals, axis=1) / (float(size) ** 3 - size)
    statistic = 12 / (size * (size + 1)) * np.sum(sums ** 2 / sizes, axis=1) - 3 * (size + 1)
    varied = ties > 1e-12
    return np.where(varied, stats.chi2.sf(statistic / np.where(varied, ties, 1), counts.shape[1] - 1), 1.0)


def _holm(p_values):
    """Return Holm's correction along the first axis; the library does one study per call and is slow at it."""
    order = np.argsort(p_values, axis=0)
    steps = np.take_along_axis(p_values, order, 0) * np.arange(len(p_values), 0, -1)[:, None]
    np.put_along_axis(steps, order, np.minimum(np.maximum.accumulate(steps, axis=0), 1), 0)
    return steps


def _share_below(p_values, level):
    hits, size = int(np.sum(p_values < level)), len(p_values)
    exact = stats.binomtest(hits, size).proportion_ci(method="exact")
    return Estimate(hits / size, float(exact.low), float(exact.high), size)


def check_shares(values, name):
    """Return shares of categories as floats that sum to 1; StudyError where they are none."""
    values = checked_numbers(values, f"shares of {name}", least=2)
    if values.min() < 0 or abs(values.sum() - 1) > 1e-6:
        raise StudyError(f"shares of {name}: they are 0 or more and sum to 1, not {values.sum():g}")
    return values / values.sum()


def _vda_of_shares(first, second):
    return float(first @ (np.cumsum(second) - second / 2))
