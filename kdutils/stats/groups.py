"""Tests and effect sizes that compare groups, and corrections for several comparisons."""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from scipy import optimize, special, stats

from kdutils.errors import StudyError
from kdutils.stats.accuracy import Estimate, bootstrap, percentiles
from kdutils.stats.inputs import (
    checked_choice,
    checked_finite,
    checked_groups,
    checked_numbers,
    checked_pairs,
    checked_table,
    column_list,
)

CORRECTIONS = ("bonferroni", "holm", "fdr_bh")  # names of statsmodels; fdr_bh is Benjamini and Hochberg


@dataclass(frozen=True)
class HypothesisTest:
    """A test: df are the degrees of freedom of the statistic, n the values seen, effect what the function says."""

    name: str
    statistic: float
    df: tuple
    p: float
    n: int
    effect: float | None = None


def mcnemar(first, second, method="mid-p"):
    """Return McNemar's test of two students on the same questions; `first`, `second` say which answers were right.

    With b questions right only for the first and c only for the second: "exact" is twice the binomial tail of
    min(b, c) of b + c at one half; "mid-p" subtracts the probability of min(b, c) itself (Fagerland, Lydersen and
    Laake 2013: nearer to its level, and advised); "corrected" is chi² = (|b - c| - 1)² / (b + c), 1 degree of freedom.
    statistic is min(b, c) or chi²; effect is (b - c) / n, the difference of the accuracies; p = 1 where b = c = 0.
    """
    from statsmodels.stats.contingency_tables import mcnemar as library

    checked_choice("method", method, ("exact", "mid-p", "corrected"))
    first, second = checked_pairs(first, second)
    if not np.isin([first, second], (0, 1)).all():
        raise StudyError("McNemar's test takes right (1) and wrong (0) answers, nothing else")
    size, only_first, only_second = len(first), int(np.sum(first > second)), int(np.sum(second > first))
    fewer, total = min(only_first, only_second), only_first + only_second
    df, statistic, p = ((1,), 0.0, 1.0) if method == "corrected" else ((), float(fewer), 1.0)
    if only_first != only_second:  # else chi² is 0/0, or the correction one of no difference
        found = library([[0, only_first], [only_second, 0]], exact=method != "corrected", correction=True)
        statistic = float(found.statistic)
        p = float(found.pvalue - (stats.binom.pmf(fewer, total, 0.5) if method == "mid-p" else 0))
    return HypothesisTest(f"McNemar, {method}", statistic, df, p, size, (only_first - only_second) / size)


def correct_p_values(p_values, method="holm"):
    """Return p values corrected for their number: method is one of CORRECTIONS (statsmodels multipletests)."""
    from statsmodels.stats.multitest import multipletests

    checked_choice("method", method, CORRECTIONS)
    p_values = checked_numbers(p_values, "p values")
    if p_values.min() < 0 or p_values.max() > 1:
        raise StudyError("p values lie between 0 and 1")
    return multipletests(p_values, method=method)[1]


# --- groups: spread, shape, means and ranks


def iqr_outliers(table, value, group):
    """Return a boolean Series, True where `value` lies outside Q1 - 1.5 IQR to Q3 + 1.5 IQR of its group.

    Quartiles are of type 7 (Hyndman and Fan 1996; the default of R and numpy). This is the rule of the published
    analysis; nothing here removes an outlier unless a report says so.
    """
    data, _ = checked_table(table, [value], column_list(group))
    quartiles = [data.groupby(column_list(group), sort=False, observed=True)[value].transform("quantile", q)
                 for q in (0.25, 0.75)]
    reach = 1.5 * (quartiles[1] - quartiles[0])
    outside = (data[value] < quartiles[0] - reach) | (data[value] > quartiles[1] + reach)
    return pd.Series(outside.to_numpy(), index=table.index, name="outlier")


def levene(table, value, group, center="median"):
    """Return Levene's test of equal variances; center "median" (Brown and Forsythe 1974) or "mean" (Levene 1960).

    F of a one-way analysis of |value - center of its group|, df = (groups - 1, n - groups).
    """
    checked_choice("center", center, ("median", "mean"))
    groups = checked_groups(table, value, group, least=2)
    if all(np.ptp(values) == 0 for values in groups.values()):
        raise StudyError(f"{value!r} does not vary within any group: variances cannot be compared")
    with np.errstate(divide="ignore", invalid="ignore"):  # what comes of 0 is refused below
        found, size = stats.levene(*groups.values(), center=center), sum(map(len, groups.values()))
    return HypothesisTest(f"Levene, {center}", checked_finite(found.statistic, "Levene's F"),
                          (len(groups) - 1, size - len(groups)), float(found.pvalue), size)


def shapiro(table, value, group):
    """Return Shapiro and Wilk's (1965) test of normality per group: group, n, W, p; 3 to 5000 values that vary."""
    rows = []
    for name, values in checked_groups(table, value, group, least=3, groups=1).items():
        if np.ptp(values) == 0 or len(values) > 5000:
            raise StudyError(f"normality of {value!r} in {name!r} cannot be tested: all equal, or over 5000 values")
        found = stats.shapiro(values)
        rows.append({"group": name, "n": len(values), "W": float(found.statistic), "p": float(found.pvalue)})
    return pd.DataFrame(rows)


def two_way_anova(table, value, first, second):
    """Return the analysis of variance of value ~ first * second with type II sums of squares (Langsrud 2003).

    Columns: source (first, second, "first × second"), sum_squares, df, residual_df, F, p and partial_eta_squared
    = SS / (SS + residual SS). A main effect is what it adds to the other main effect, also for unequal cells.
    """
    from statsmodels.formula.api import ols
    from statsmodels.stats.anova import anova_lm

    data, _ = checked_table(table, [value], [first, second])
    data = pd.DataFrame({"y": data[value], "a": data[first].astype(str), "b": data[second].astype(str)})
    cells = pd.crosstab(data["a"], data["b"])
    if min(cells.shape) < 2:
        raise StudyError(f"a two-way analysis needs two levels or more of both {first!r} and {second!r}")
    if (cells == 0).any(axis=None):
        row, column = next((row, column) for row in cells.index for column in cells if cells.loc[row, column] == 0)
        raise StudyError(f"no value for {first} {row} with {second} {column}: the interaction cannot be estimated")
    if cells.to_numpy().max() == 1:
        raise StudyError("one value per cell leaves nothing to judge the interaction by")
    model = ols("y ~ C(a) * C(b)", data).fit()
    if model.ssr <= 1e-12 * model.centered_tss:
        raise StudyError(f"{value!r} does not vary within any cell: there is no residual variance to compare with")
    result = anova_lm(model, typ=2).drop(index="Residual").reset_index(drop=True)
    squares = result["sum_sq"]
    return pd.DataFrame({"source": [first, second, f"{first} × {second}"], "sum_squares": squares,
                         "df": result["df"].astype(int), "residual_df": int(model.df_resid), "F": result["F"],
                         "p": result["PR(>F)"], "partial_eta_squared": squares / (squares + model.ssr)})


def tukey(table, value, group, confidence=0.95):
    """Return Tukey's honest significant differences (Tukey-Kramer for unequal groups) of every two groups.

    Columns: first, second, difference (of means, in units of the value), low, high (simultaneous), p (adjusted).
    """
    groups = checked_groups(table, value, group, least=2)
    if all(np.ptp(values) == 0 for values in groups.values()):
        raise StudyError(f"{value!r} does not vary within any group: there is no residual variance to compare with")
    found = stats.tukey_hsd(*groups.values())
    interval = found.confidence_interval(confidence)
    return pd.DataFrame([{"first": first, "second": second, "difference": found.statistic[i, j],
                          "low": interval.low[i, j], "high": interval.high[i, j], "p": found.pvalue[i, j]}
                         for (i, first), (j, second) in combinations(enumerate(groups), 2)])


def kruskal(table, value, group):
    """Return the Kruskal-Wallis H (tie-corrected, chi² with groups - 1); effect is epsilon² = H / (n - 1), 0 to 1.

    Epsilon squared: Kelley 1935 as in Tomczak and Tomczak 2014.
    """
    groups = checked_groups(table, value, group, varying=True)
    found, size = stats.kruskal(*groups.values()), sum(map(len, groups.values()))
    return HypothesisTest("Kruskal-Wallis", float(found.statistic), (len(groups) - 1,), float(found.pvalue), size,
                          float(found.statistic / (size - 1)))


def dunn(table, value, group, correction="bonferroni", confidence=0.95):
    """Return Dunn's (1964) comparison of the mean ranks of every two groups, and Vargha and Delaney's A beside it.

    z = (mean rank of first - of second) / sqrt(T N(N + 1)/12 · (1/n1 + 1/n2)), ranks over all N values, T the tie
    correction. Columns: first, second, z, p, p_corrected (over all pairs), vda, vda_low, vda_high.
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
    result = pd.DataFrame(rows)
    result.insert(4, "p_corrected", correct_p_values(result["p"], correction))
    return result


# --- effect sizes of two samples


def vargha_delaney(first, second, confidence=0.95):
    """Return Vargha and Delaney's (2000) A = P(first > second) + P(equal) / 2; one half means no difference.

    Interval: Newcombe (2006, part 2, method 5), which solves |A - θ| = z sqrt(V(θ)) with the Hanley-McNeil
    variance V; it stays within 0 to 1 and has a width at A = 0 and 1; with many ties it is a little wide. Values
    that depend on one another (several per rater) need bootstrap_interval with a cluster instead.
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


def mean_difference(first, second, confidence=0.95):
    """Return the Estimate of mean(first) - mean(second), units of the values, with Welch's t interval and p (1947)."""
    first, second = checked_numbers(first, "first", least=2), checked_numbers(second, "second", least=2)
    if np.ptp(first) == 0 and np.ptp(second) == 0:
        raise StudyError("neither sample varies: a difference of means has no interval")
    found = stats.ttest_ind(first, second, equal_var=False)
    return Estimate(float(first.mean() - second.mean()), *map(float, found.confidence_interval(confidence)),
                    len(first) + len(second), float(found.pvalue))


def standardised_difference(first, second, corrected=True, confidence=0.95):
    """Return Cohen's d = (mean(first) - mean(second)) / pooled sd, or Hedges' g = J d where `corrected`.

    J = Γ(ν/2) / (sqrt(ν/2) Γ((ν - 1)/2)), ν = n1 + n2 - 2 (Hedges 1981). The interval inverts the noncentral t
    distribution (Cumming and Finch 2001) and, like it, holds for normal values of one variance; p is Student's.
    """
    first, second = checked_numbers(first, "first", least=2), checked_numbers(second, "second", least=2)
    if np.ptp(first) == 0 and np.ptp(second) == 0:
        raise StudyError("neither sample varies: the pooled standard deviation is 0")
    found, free = stats.ttest_ind(first, second), len(first) + len(second) - 2
    scale = np.sqrt(1 / len(first) + 1 / len(second))
    if corrected:
        scale *= np.exp(special.gammaln(free / 2) - special.gammaln((free - 1) / 2)) / np.sqrt(free / 2)
    reach = 10 * np.sqrt(1 + found.statistic ** 2 / (2 * free)) + 10

    def gap(x, tail):  # scipy has NaN far out in the tails, where the distribution is 0 or 1
        return np.nan_to_num(stats.nct.cdf(found.statistic, free, x), nan=float(x < found.statistic)) - tail

    low, high = (optimize.brentq(gap, found.statistic - reach, found.statistic + reach, args=(tail,))
                 for tail in (0.5 + confidence / 2, 0.5 - confidence / 2))
    return Estimate(float(found.statistic * scale), float(low * scale), float(high * scale), free + 2,
                    float(found.pvalue))


def bootstrap_interval(table, statistic, cluster=None, resamples=2000, confidence=0.95, seed=0):
    """Return the Estimate of statistic(table) (a number) with a percentile interval; rows are resampled.

    With `cluster` (a column, say the rater) whole clusters are drawn with replacement, which keeps what belongs
    together (Davison and Hinkley 1997, 3.8); n counts them. Resamples on which the statistic is undefined (NaN or
    StudyError) are left out; more than half of them is an error. With few clusters (under 20 or so) it is too narrow.
    """
    data, codes = checked_table(table, [], [] if cluster is None else [cluster])
    codes = None if cluster is None else codes[cluster]
    value = checked_finite(statistic(data), "the statistic")
    draws = bootstrap(lambda rows: statistic(data.iloc[rows]), len(data), codes, resamples, seed)
    return Estimate(value, *percentiles(draws, confidence), len(data) if codes is None else int(codes.max()) + 1)
