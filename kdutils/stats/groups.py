"""Tests and effect sizes that compare groups of ratings or runs, and corrections for several comparisons.

`table` is a frame with one value per row; `value` names the column of values, `group` the column or columns of groups.
Every function raises StudyError if its input does not allow the test.
"""

from collections.abc import Callable
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import optimize, special, stats

from kdutils.errors import StudyError
from kdutils.stats.estimates import Estimate, HypothesisTest, widest_interval
from kdutils.stats.inputs import (
    checked_choice,
    checked_finite,
    checked_groups,
    checked_numbers,
    checked_table,
    column_list,
)

CORRECTIONS = ("bonferroni", "holm", "fdr_bh")  # names of statsmodels; fdr_bh is Benjamini and Hochberg


def correct_p_values(p_values: ArrayLike, method: str = "holm") -> np.ndarray:
    """Return the p values corrected for their number by one of CORRECTIONS (statsmodels multipletests)."""
    from statsmodels.stats.multitest import multipletests

    checked_choice("method", method, CORRECTIONS)
    p_values = checked_numbers(p_values, "p values")
    if p_values.min() < 0 or p_values.max() > 1:
        raise StudyError("p values must be between 0 and 1")
    return multipletests(p_values, method=method)[1]


# --- spread, shape, means and ranks of groups


def iqr_outliers(table: pd.DataFrame, value: str, group: str | list[str]) -> pd.Series:
    """Return True for each row whose `value` is below Q1 - 1.5 IQR or above Q3 + 1.5 IQR of its group.

    Quartiles are of type 7 (Hyndman and Fan 1996), the default of R and numpy. The published analysis (arXiv
    2504.16056) removes outliers by this rule; here a report that removes any says so.
    """
    data, _ = checked_table(table, [value], column_list(group))
    quartiles = [data.groupby(column_list(group), sort=False, observed=True)[value].transform("quantile", q)
                 for q in (0.25, 0.75)]
    reach = 1.5 * (quartiles[1] - quartiles[0])
    outside = (data[value] < quartiles[0] - reach) | (data[value] > quartiles[1] + reach)
    return pd.Series(outside.to_numpy(), index=table.index, name="outlier")


def levene(table: pd.DataFrame, value: str, group: str | list[str], center: str = "median") -> HypothesisTest:
    """Return Levene's test of equal variances, around the "median" (Brown and Forsythe 1974) or "mean" (Levene 1960).

    statistic: F of a one-way analysis of |value - center of its group|. df: (groups - 1, n - groups).
    """
    checked_choice("center", center, ("median", "mean"))
    groups = checked_groups(table, value, group, least=2)
    if all(np.ptp(values) == 0 for values in groups.values()):
        raise StudyError(f"{value!r} does not vary within any group: variances cannot be compared")
    with np.errstate(divide="ignore", invalid="ignore"):  # a division by 0 is refused below
        result, size = stats.levene(*groups.values(), center=center), sum(map(len, groups.values()))
    return HypothesisTest(f"Levene, {center}", checked_finite(result.statistic, "Levene's F"),
                          (len(groups) - 1, size - len(groups)), float(result.pvalue), size)


def shapiro(table: pd.DataFrame, value: str, group: str | list[str]) -> pd.DataFrame:
    """Return Shapiro and Wilk's (1965) test of normality, one row per group: group, n, W, p.

    A group must have 3 to 5000 values that are not all equal.
    """
    rows = []
    for name, values in checked_groups(table, value, group, least=3, groups=1).items():
        if np.ptp(values) == 0 or len(values) > 5000:
            raise StudyError(f"normality of {value!r} in {name!r} cannot be tested: all equal, or over 5000 values")
        result = stats.shapiro(values)
        rows.append({"group": name, "n": len(values), "W": float(result.statistic), "p": float(result.pvalue)})
    return pd.DataFrame(rows)


def two_way_anova(table: pd.DataFrame, value: str, first: str, second: str) -> pd.DataFrame:
    """Return the analysis of variance of value ~ first * second with type II sums of squares (Langsrud 2003).

    Columns: source (first, second, "first × second"), sum_squares, df, residual_df, F, p and partial_eta_squared
    = SS / (SS + residual SS). A main effect is what it adds to the other main effect; cells may be unequal.
    """
    from statsmodels.formula.api import ols
    from statsmodels.stats.anova import anova_lm

    data, _ = checked_table(table, [value], [first, second])
    data = pd.DataFrame({"y": data[value], "a": data[first].astype(str), "b": data[second].astype(str)})
    cells = pd.crosstab(data["a"], data["b"])
    if min(cells.shape) < 2:
        raise StudyError(f"a two-way analysis needs two or more levels of both {first!r} and {second!r}")
    if (cells == 0).any(axis=None):
        row, column = next((row, column) for row in cells.index for column in cells if cells.loc[row, column] == 0)
        raise StudyError(f"no value for {first} {row} with {second} {column}: the interaction cannot be estimated")
    if cells.to_numpy().max() == 1:
        raise StudyError("with one value per cell the interaction cannot be tested")
    model = ols("y ~ C(a) * C(b)", data).fit()
    if model.ssr <= 1e-12 * model.centered_tss:
        raise StudyError(f"{value!r} does not vary within any cell: the residual variance is 0")
    result = anova_lm(model, typ=2).drop(index="Residual").reset_index(drop=True)
    squares = result["sum_sq"]
    return pd.DataFrame({"source": [first, second, f"{first} × {second}"], "sum_squares": squares,
                         "df": result["df"].astype(int), "residual_df": int(model.df_resid), "F": result["F"],
                         "p": result["PR(>F)"], "partial_eta_squared": squares / (squares + model.ssr)})


def tukey(table: pd.DataFrame, value: str, group: str | list[str], confidence: float = 0.95) -> pd.DataFrame:
    """Return Tukey's honest significant differences (Tukey-Kramer for unequal groups), one row per pair of groups.

    Columns: first, second, difference (of means, in units of the value), low, high (simultaneous), p (adjusted).
    """
    groups = checked_groups(table, value, group, least=2)
    if all(np.ptp(values) == 0 for values in groups.values()):
        raise StudyError(f"{value!r} does not vary within any group: the residual variance is 0")
    result = stats.tukey_hsd(*groups.values())
    interval = result.confidence_interval(confidence)
    return pd.DataFrame([{"first": first, "second": second, "difference": result.statistic[i, j],
                          "low": interval.low[i, j], "high": interval.high[i, j], "p": result.pvalue[i, j]}
                         for (i, first), (j, second) in combinations(enumerate(groups), 2)])


def kruskal(table: pd.DataFrame, value: str, group: str | list[str]) -> HypothesisTest:
    """Return the Kruskal-Wallis test: H (corrected for ties), p from chi² with groups - 1 degrees of freedom.

    effect: epsilon² = H / (n - 1), from 0 to 1 (Tomczak and Tomczak 2014, after Kelley 1935).
    """
    groups = checked_groups(table, value, group, varying=True)
    result, size = stats.kruskal(*groups.values()), sum(map(len, groups.values()))
    return HypothesisTest("Kruskal-Wallis", float(result.statistic), (len(groups) - 1,), float(result.pvalue), size,
                          float(result.statistic / (size - 1)))


def dunn(table: pd.DataFrame, value: str, group: str | list[str], correction: str = "bonferroni",
         confidence: float = 0.95) -> pd.DataFrame:
    """Return Dunn's (1964) test of mean ranks and Vargha and Delaney's A, one row per pair of groups.

    z = (mean rank of first - of second) / sqrt(T N(N + 1)/12 · (1/n1 + 1/n2)), with ranks over all N values and the tie
    correction T. Columns: first, second, z, p, p_corrected (over all pairs), vda, vda_low, vda_high.
    """
    groups = checked_groups(table, value, group, varying=True)
    ranks = stats.rankdata(np.concatenate(list(groups.values())))
    size, tied = len(ranks), stats.tiecorrect(ranks)
    parts = np.split(ranks, np.cumsum([len(values) for values in groups.values()])[:-1])
    rows = []
    for (i, first), (j, second) in combinations(enumerate(groups), 2):
        error = np.sqrt(tied * size * (size + 1) / 12 * (1 / len(parts[i]) + 1 / len(parts[j])))
        z = (parts[i].mean() - parts[j].mean()) / error
        effect = vargha_delaney(groups[first], groups[second], confidence)
        rows.append({"first": first, "second": second, "z": float(z), "p": float(2 * stats.norm.sf(abs(z))),
                     "vda": effect.value, "vda_low": effect.low, "vda_high": effect.high})
    pairs = pd.DataFrame(rows)
    pairs.insert(4, "p_corrected", correct_p_values(pairs["p"], correction))
    return pairs


# --- effect sizes


def vargha_delaney(first: ArrayLike, second: ArrayLike, confidence: float = 0.95) -> Estimate:
    """Return Vargha and Delaney's (2000) A = P(first > second) + P(equal) / 2, from 0 to 1; 0.5 means no difference.

    Interval: Newcombe (2006, part 2, method 5), which solves |A - θ| = z sqrt(V(θ)) with the variance V of Hanley and
    McNeil. It stays within 0 to 1 and has a width at A = 0 and 1; with many ties it is slightly too wide. For dependent
    values (several per rater) use bootstrap_interval with a cluster.
    """
    first, second = checked_numbers(first, "first"), checked_numbers(second, "second")
    sizes = len(first), len(second)
    ranks = stats.rankdata(np.concatenate([first, second]))[:sizes[0]]
    value = float((ranks.mean() - (sizes[0] + 1) / 2) / sizes[1])
    factor = stats.norm.ppf(0.5 + confidence / 2) ** 2 / (sizes[0] * sizes[1])
    more = sum(sizes) / 2 - 1

    def lower_limit(share):
        def gap(x):
            return (share - x) ** 2 - factor * x * (1 - x) * (1 + more * (1 - x) / (2 - x) + more * x / (1 + x))
        return 0.0 if share <= 0 else optimize.brentq(gap, 0, min(share, 1 - 1e-12))

    return Estimate(value, float(lower_limit(value)), float(1 - lower_limit(1 - value)), sum(sizes))


def mean_difference(first: ArrayLike, second: ArrayLike, confidence: float = 0.95) -> Estimate:
    """Return mean(first) - mean(second), in units of the values, with Welch's (1947) t interval and p."""
    first, second = checked_numbers(first, "first", least=2), checked_numbers(second, "second", least=2)
    if np.ptp(first) == 0 and np.ptp(second) == 0:
        raise StudyError("neither sample varies: the difference of the means has no interval")
    result = stats.ttest_ind(first, second, equal_var=False)
    return Estimate(float(first.mean() - second.mean()), *map(float, result.confidence_interval(confidence)),
                    len(first) + len(second), float(result.pvalue))


def standardised_difference(first: ArrayLike, second: ArrayLike, corrected: bool = True,
                            confidence: float = 0.95) -> Estimate:
    """Return Hedges' g = J d or, if not `corrected`, Cohen's d = (mean(first) - mean(second)) / pooled sd.

    J = Γ(ν/2) / (sqrt(ν/2) Γ((ν - 1)/2)), ν = n1 + n2 - 2 (Hedges 1981). The interval inverts the noncentral t
    distribution (Cumming and Finch 2001); it assumes normal values of equal variance. p is that of Student's t test.
    """
    first, second = checked_numbers(first, "first", least=2), checked_numbers(second, "second", least=2)
    if np.ptp(first) == 0 and np.ptp(second) == 0:
        raise StudyError("neither sample varies: the pooled standard deviation is 0")
    result, free = stats.ttest_ind(first, second), len(first) + len(second) - 2
    scale = np.sqrt(1 / len(first) + 1 / len(second))
    if corrected:
        scale *= np.exp(special.gammaln(free / 2) - special.gammaln((free - 1) / 2)) / np.sqrt(free / 2)
    t = result.statistic
    reach = 10 * np.sqrt(1 + t ** 2 / (2 * free)) + 10

    def gap(x, tail):  # scipy returns NaN far out in the tails, where the distribution is 0 or 1
        return np.nan_to_num(stats.nct.cdf(t, free, x), nan=float(x < t)) - tail

    low, high = (optimize.brentq(gap, t - reach, t + reach, args=(tail,))
                 for tail in (0.5 + confidence / 2, 0.5 - confidence / 2))
    return Estimate(float(t * scale), float(low * scale), float(high * scale), free + 2, float(result.pvalue))


def bootstrap_interval(table: pd.DataFrame, statistic: Callable[[pd.DataFrame], float],
                       cluster: str | list[str] | None = None, resamples: int = 2000, confidence: float = 0.95,
                       seed: int = 0) -> Estimate:
    """Return statistic(table) with a percentile bootstrap interval; rows are resampled, and n counts them.

    With `cluster` (a column, for example of raters), whole clusters are drawn with replacement and n counts clusters:
    dependent values stay together (Davison and Hinkley 1997, section 3.8). With several columns, the interval is
    estimates.widest_interval of them. With fewer than about 20 clusters the interval is too narrow. Resamples where the
    statistic is undefined are left out, see bootstrap().
    """
    data, codes = checked_table(table, [], column_list(cluster or []))
    value = checked_finite(statistic(data), "the statistic")
    return Estimate(value, *widest_interval(lambda rows: statistic(data.iloc[rows]), len(data), list(codes.values()),
                                            resamples, confidence, seed))
