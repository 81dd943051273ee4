"""Every interval, test and effect size that a report prints, on numpy, scipy and statsmodels.

What compares groups takes a tidy table and its column names; `group` is one column or a list of columns whose
combinations are the cells. Groups keep the order in which the table first names them. What compares two samples
takes two arrays. "first minus second" is the sign of every difference. Input that leaves a quantity without a value
(missing values, one group, nothing but equal values …) is a StudyError that says so.
"""

import warnings
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from scipy import optimize, special, stats

from kdutils.errors import StudyError

CORRECTIONS = ("bonferroni", "holm", "fdr_bh")  # names of statsmodels; fdr_bh is Benjamini and Hochberg
COEFFICIENTS = ["term", "estimate", "standard_error", "statistic", "p", "low", "high"]


@dataclass(frozen=True)
class Estimate:
    """A value and its interval; n is how many values, pairs or clusters were sampled; p, where given, is two-sided."""

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
    """A test: df are the degrees of freedom of the statistic, n the values seen, effect what the function says."""

    name: str
    statistic: float
    df: tuple
    p: float
    n: int
    effect: float | None = None


@dataclass(frozen=True)
class LinearModel:
    """Ordinary least squares: coefficients (columns COEFFICIENTS, statistic is t), F of all terms, R² from 0 to 1."""

    coefficients: pd.DataFrame
    F: float
    df: tuple
    p: float
    r_squared: float
    n: int


@dataclass(frozen=True)
class MixedModel:
    """A linear mixed model; outcome is "converged", "boundary" (a variance is 0) or "not converged".

    coefficients: columns COEFFICIENTS, statistic is z. variances: component, variance (squared units of the
    value), share of their sum (for one random effect the ICC), share_error (standard error by the delta method;
    NaN unless converged). message: what the library warned of. Both tables are empty where there was no fit.
    """

    outcome: str
    message: str
    coefficients: pd.DataFrame
    variances: pd.DataFrame
    log_likelihood: float
    n: int


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


# --- accuracy: means over seeds and questions, two students on the same questions


def mean_interval(values, confidence=0.95):
    """Return (mean, low, high) of independent values: Student's t interval; low and high are NaN for fewer than two."""
    values = np.asarray(values, dtype=float)
    mean = values.mean() if len(values) else np.nan
    if len(values) < 2:
        return float(mean), float("nan"), float("nan")
    half = stats.t.ppf(0.5 + confidence / 2, len(values) - 1) * stats.sem(values)
    return float(mean), float(mean - half), float(mean + half)


def bootstrap_mean(correct, resamples=2000, confidence=0.95, seed=0):
    """Return (mean, low, high) of `correct`, (seeds, questions), where both are a sample.

    Percentile bootstrap: every resample draws seeds and questions with replacement, so the interval holds
    for other questions of the kind and other seeds; with few seeds it understates the part of the seeds.
    Where every answer is right, or every one wrong, no resample differs: then the exact binomial interval
    (Clopper and Pearson 1934) over the questions takes its place.
    """
    correct = np.asarray(correct, dtype=float)
    if correct.min() == correct.max():
        exact = stats.binomtest(round(correct[0].sum()), correct.shape[1]).proportion_ci(confidence, method="exact")
        return float(correct.mean()), float(exact.low), float(exact.high)
    means = [_resampled(correct, *_draw(correct.shape, generator)).mean()
             for generator in [np.random.default_rng(seed)] for _ in range(resamples)]
    return float(correct.mean()), *_percentiles(means, confidence)


def bootstrap_difference(first, second, resamples=2000, confidence=0.95, seed=0):
    """Return (difference of means, low, high) of two methods on the same questions, each (seeds, questions).

    Questions are drawn in pairs, the same ones for both; seeds are drawn for each method by itself.
    """
    first, second = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if first.shape[1] != second.shape[1]:
        raise ValueError(f"not the same questions: {first.shape[1]} and {second.shape[1]}")
    generator, differences = np.random.default_rng(seed), []
    for _ in range(resamples):
        seeds, questions = _draw(first.shape, generator)
        other_seeds = generator.integers(0, second.shape[0], second.shape[0])
        differences.append(_resampled(first, seeds, questions).mean()
                           - _resampled(second, other_seeds, questions).mean())
    return float(first.mean() - second.mean()), *_percentiles(differences, confidence)


def paired_bootstrap(first, second, resamples=2000, confidence=0.95, seed=0):
    """Return the Estimate of mean(first - second) of two students, one score per question, questions resampled.

    Percentile interval; p = (1 + resamples whose mean, shifted to a true difference of 0, is as far from 0 as the
    one seen) / (1 + resamples) (Efron and Tibshirani 1993, 16.4). Where all pairs differ by the same -1, 0 or 1
    no resample differs: the limits are those of the exact binomial share of other pairs, and p is McNemar's.
    """
    first, second = _pairs(first, second)
    differences = first - second
    value, size = float(differences.mean()), len(differences)
    if np.ptp(differences) > 1e-12:
        means = _bootstrap(lambda rows: differences[rows].mean(), size, None, resamples, seed)
        p = (1 + np.sum(np.abs(means - value) >= abs(value) - 1e-12)) / (1 + resamples)
        return Estimate(value, *_percentiles(means, confidence), size, float(p))
    if value not in (-1, 0, 1):
        raise StudyError(f"every pair differs by the same {value:g}: there is no spread to draw an interval from")
    other = 1 - ((1 - confidence) / 2) ** (1 / size)  # Clopper and Pearson's limit for a share of 0 of `size`
    low, high = (-other, other) if value == 0 else sorted((value, value * (1 - other)))
    return Estimate(value, float(low), float(high), size, 1.0 if value == 0 else 2 * 0.5 ** size)


def mcnemar(first, second, method="mid-p"):
    """Return McNemar's test of two students on the same questions; `first`, `second` say which answers were right.

    With b questions right only for the first and c only for the second: "exact" is twice the binomial tail of
    min(b, c) of b + c at one half; "mid-p" subtracts the probability of min(b, c) itself (Fagerland, Lydersen and
    Laake 2013: nearer to its level, and advised); "corrected" is chi² = (|b - c| - 1)² / (b + c), 1 degree of freedom.
    statistic is min(b, c) or chi²; effect is (b - c) / n, the difference of the accuracies; p = 1 where b = c = 0.
    """
    from statsmodels.stats.contingency_tables import mcnemar as library

    _one_of("method", method, ("exact", "mid-p", "corrected"))
    first, second = _pairs(first, second)
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

    _one_of("method", method, CORRECTIONS)
    p_values = _numbers(p_values, "p values")
    if p_values.min() < 0 or p_values.max() > 1:
        raise StudyError("p values lie between 0 and 1")
    return multipletests(p_values, method=method)[1]


# --- groups: spread, shape, means and ranks


def iqr_outliers(table, value, group):
    """Return a boolean Series, True where `value` lies outside Q1 - 1.5 IQR to Q3 + 1.5 IQR of its group.

    Quartiles are of type 7 (Hyndman and Fan 1996; the default of R and numpy). This is the rule of the published
    analysis; nothing here removes an outlier unless a report says so.
    """
    data, _ = _table(table, [value], _columns(group))
    quartiles = [data.groupby(_columns(group), sort=False, observed=True)[value].transform("quantile", q)
                 for q in (0.25, 0.75)]
    reach = 1.5 * (quartiles[1] - quartiles[0])
    outside = (data[value] < quartiles[0] - reach) | (data[value] > quartiles[1] + reach)
    return pd.Series(outside.to_numpy(), index=table.index, name="outlier")


def levene(table, value, group, center="median"):
    """Return Levene's test of equal variances; center "median" (Brown and Forsythe 1974) or "mean" (Levene 1960).

    F of a one-way analysis of |value - center of its group|, df = (groups - 1, n - groups).
    """
    _one_of("center", center, ("median", "mean"))
    groups = _groups(table, value, group, least=2)
    if all(np.ptp(values) == 0 for values in groups.values()):
        raise StudyError(f"{value!r} does not vary within any group: variances cannot be compared")
    with np.errstate(divide="ignore", invalid="ignore"):  # what comes of 0 is refused below
        found, size = stats.levene(*groups.values(), center=center), sum(map(len, groups.values()))
    return HypothesisTest(f"Levene, {center}", _finite(found.statistic, "Levene's F"),
                          (len(groups) - 1, size - len(groups)), float(found.pvalue), size)


def shapiro(table, value, group):
    """Return Shapiro and Wilk's (1965) test of normality per group: group, n, W, p; 3 to 5000 values that vary."""
    rows = []
    for name, values in _groups(table, value, group, least=3, groups=1).items():
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

    data, _ = _table(table, [value], [first, second])
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
    groups = _groups(table, value, group, least=2)
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
    groups = _groups(table, value, group, varying=True)
    found, size = stats.kruskal(*groups.values()), sum(map(len, groups.values()))
    return HypothesisTest("Kruskal-Wallis", float(found.statistic), (len(groups) - 1,), float(found.pvalue), size,
                          float(found.statistic / (size - 1)))


def dunn(table, value, group, correction="bonferroni", confidence=0.95):
    """Return Dunn's (1964) comparison of the mean ranks of every two groups, and Vargha and Delaney's A beside it.

    z = (mean rank of first - of second) / sqrt(T N(N + 1)/12 · (1/n1 + 1/n2)), ranks over all N values, T the tie
    correction. Columns: first, second, z, p, p_corrected (over all pairs), vda, vda_low, vda_high.
    """
    groups = _groups(table, value, group, varying=True)
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
    first, second = _numbers(first, "first"), _numbers(second, "second")
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
    first, second = _numbers(first, "first", least=2), _numbers(second, "second", least=2)
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
    first, second = _numbers(first, "first", least=2), _numbers(second, "second", least=2)
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
    data, codes = _table(table, [], [] if cluster is None else [cluster])
    codes = None if cluster is None else codes[cluster]
    value = _finite(statistic(data), "the statistic")
    draws = _bootstrap(lambda rows: statistic(data.iloc[rows]), len(data), codes, resamples, seed)
    return Estimate(value, *_percentiles(draws, confidence), len(data) if codes is None else int(codes.max()) + 1)


def rank_correlation(table, first, second, method="spearman", cluster=None, within=None, resamples=2000,
                     confidence=0.95, seed=0):
    """Return the Estimate of Spearman's rho or Kendall's tau-b of two columns, from -1 to 1, with bootstrap interval.

    `cluster`: rows of a cluster are resampled together (see bootstrap_interval). `within`: the mean over groups of
    the correlation inside the group, weighted by rows - 1; groups in which a column does not vary say nothing and
    are left out; groups are resampled and n counts those that were used.
    """
    _one_of("method", method, ("spearman", "kendall"))
    if cluster is not None and within is not None and cluster != within:
        raise StudyError("a correlation within groups resamples those groups: give cluster or within, not both")
    data, codes = _table(table, [first, second], [name for name in dict.fromkeys((cluster, within)) if name])
    values = data[[first, second]].to_numpy(float)
    if within is None:
        value = _correlation(values, method)
        if np.isnan(value):
            raise StudyError(f"{first!r} or {second!r} does not vary: their correlation is not defined")
        draws = _bootstrap(lambda rows: _correlation(values[rows], method), len(values), codes.get(cluster),
                           resamples, seed)
        size = len(values) if cluster is None else int(codes[cluster].max()) + 1
        return Estimate(value, *_percentiles(draws, confidence), size)
    groups = [values[codes[within] == code] for code in range(codes[within].max() + 1)]
    inside = np.array([(_correlation(rows, method), len(rows) - 1) for rows in groups])
    inside = inside[~np.isnan(inside[:, 0])]
    if len(inside) < 2:
        raise StudyError(f"{len(inside)} of {len(groups)} groups of {within!r} vary in both columns: two are needed")

    def weighted_mean(rows):
        return float(np.average(inside[rows, 0], weights=inside[rows, 1]))

    draws = _bootstrap(weighted_mean, len(inside), None, resamples, seed)
    return Estimate(weighted_mean(slice(None)), *_percentiles(draws, confidence), len(inside))


# --- models


def linear_model(table, value, group, covariates=(), reference=None, confidence=0.95):
    """Return the LinearModel of value ~ group + covariates; every level of `group` is compared with `reference`.

    Terms: "intercept" (the mean of the reference where the covariates are 0), the other levels, the covariates.
    The reference is the level that the table names first unless given. Rows count as independent: see mixed_model.
    """
    from statsmodels.api import OLS

    target, design, _ = _design(table, value, group, covariates, reference)
    model = OLS(target, design).fit()
    if model.ssr <= 1e-12 * model.centered_tss:
        raise StudyError(f"the terms explain {value!r} without rest: there is no residual variance to judge them by")
    return LinearModel(_coefficients(design, model.params, model.bse, stats.t(model.df_resid), confidence),
                       float(model.fvalue), (int(model.df_model), int(model.df_resid)), float(model.f_pvalue),
                       float(model.rsquared), len(target))


def mixed_model(table, value, group, random, covariates=(), reference=None, confidence=0.95):
    """Return the MixedModel of value ~ group + covariates + a random intercept per level of each column of `random`.

    `random`: say ["rater", "item"], crossed or nested; fitted by REML as variance components of one group
    (statsmodels MixedLM), dense: made for some thousand ratings. Terms and reference as in linear_model; standard
    errors are those of generalised least squares given the variances, p and intervals normal (Wald). An effect whose
    every level has one row, or that leaves no residual, is a StudyError.
    """
    random = _columns(random)
    target, design, codes = _design(table, value, group, covariates, reference, random)
    indicators = [np.eye(codes[name].max() + 1)[codes[name]] for name in random]
    _check_random(target, design, codes, group, dict(zip(random, indicators, strict=True)))
    try:
        model, converged, message = _fit_mixed(target, design, random, indicators)
    except np.linalg.LinAlgError as error:
        return MixedModel("not converged", str(error), pd.DataFrame(columns=COEFFICIENTS),
                          pd.DataFrame(columns=["component", "variance", "share", "share_error"]),
                          float("-inf"), len(target))
    variances, X = np.append(model.vcomp, model.scale), design.to_numpy()
    shares = variances / variances.sum()
    outcome = "not converged" if not converged else "boundary" if shares[:-1].min() < 1e-6 else "converged"
    # V = scale (I + Z Z'), inverted by Woodbury. MixedLM's own errors invert a Hessian that breaks down at a boundary.
    Z = np.hstack([part * np.sqrt(size / model.scale) for part, size in zip(indicators, model.vcomp, strict=True)])
    within = X.T @ X - X.T @ Z @ np.linalg.solve(np.eye(Z.shape[1]) + Z.T @ Z, Z.T @ X)
    fixed = np.sqrt(model.scale * np.diag(np.linalg.inv(within)))
    share_errors = np.full(len(shares), np.nan)
    if outcome == "converged":  # the likelihood is in ratios to the residual: share = ratio / (1 + sum of ratios)
        slopes = shares[-1] * (np.eye(len(shares), len(random)) - shares[:, None])
        spread = np.asarray(model.cov_params())[X.shape[1]:, X.shape[1]:]
        share_errors = np.sqrt(np.diag(slopes @ spread @ slopes.T))
    return MixedModel(outcome, message,
                      _coefficients(design, model.fe_params, fixed, stats.norm, confidence),
                      pd.DataFrame({"component": [*random, "residual"], "variance": variances, "share": shares,
                                    "share_error": share_errors}), float(model.llf), len(target))


def _fit_mixed(target, design, names, indicators):
    """Return (fit, whether it converged, warnings) by BFGS or, where that is not quiet, by Nelder and Mead.

    Near a variance of 0 BFGS stopped far from the optimum in half of 150 simulated small studies, with nonsense for
    the other variances, though never without a warning; Nelder-Mead, three times as slow, found it in all of them.
    """
    from statsmodels.regression.mixed_linear_model import MixedLM, VCSpec

    parts = VCSpec(names, [[[str(i) for i in range(part.shape[1])]] for part in indicators],
                   [[part] for part in indicators])
    model = MixedLM(target.to_numpy(), design.to_numpy(), groups=np.zeros(len(target)), exog_vc=parts)
    for method in ("bfgs", "nm"):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                found = model.fit(reml=True, method=[method])
            except np.linalg.LinAlgError:
                if method == "nm":
                    raise
                continue
        if found.converged and not caught:
            break
    if not np.isfinite([*found.vcomp, found.scale, found.llf]).all():
        raise np.linalg.LinAlgError("the variances are no finite numbers")
    return found, bool(found.converged), "; ".join(dict.fromkeys(str(item.message) for item in caught))


# --- agreement of raters, reliability of a scale: one row per thing rated, one column per rater or item


def krippendorff_alpha(ratings, level="ordinal", resamples=1000, confidence=0.95, seed=0):
    """Return Krippendorff's alpha of a matrix (units × raters), NaN where a rater gave no rating; 1 is agreement.

    alpha = 1 - D_observed / D_expected = 1 - (n - 1) Σ o_ck δ²_ck / Σ n_c n_k δ²_ck, with the coincidences
    o_ck = Σ_units n_uc (n_uk - [c = k]) / (m_u - 1) over the units with m_u ≥ 2 ratings, n_c their marginals, and
    δ² by `level`: "nominal" [c ≠ k], "interval" (c - k)², "ordinal" (Σ_{g=c..k} n_g - (n_c + n_k)/2)². Source:
    Krippendorff, Computing Krippendorff's Alpha-Reliability (2011). Interval: percentile, units resampled.
    """
    _one_of("level", level, ("nominal", "ordinal", "interval"))
    ratings = _floats(ratings, "ratings")
    if ratings.ndim != 2 or np.isinf(ratings).any():
        raise StudyError("ratings are a matrix of numbers, units by raters, with NaN for a missing one")
    ratings = ratings[(~np.isnan(ratings)).sum(axis=1) >= 2]
    if len(ratings) < 2:
        raise StudyError(f"{len(ratings)} units have two ratings or more: agreement needs at least two such units")
    categories = np.unique(ratings[~np.isnan(ratings)])
    if len(categories) == 1:
        raise StudyError(f"every rating is {categories[0]:g}: without any difference alpha is not defined")
    counts = (ratings[:, :, None] == categories).sum(axis=1).astype(float)

    def alpha(rows):
        chosen = counts[rows]
        # The diagonal of the coincidences stays uncorrected: its distance is 0.
        coincidences = (chosen / (chosen.sum(axis=1, keepdims=True) - 1)).T @ chosen
        totals = chosen.sum(axis=0)
        if level == "ordinal":
            middles = np.cumsum(totals) - totals / 2  # the ordinal distance is that of mid-ranks
        distances = {"nominal": lambda: 1 - np.eye(len(categories)),
                     "interval": lambda: np.subtract.outer(categories, categories) ** 2,
                     "ordinal": lambda: np.subtract.outer(middles, middles) ** 2}[level]()
        expected = totals @ distances @ totals
        return np.nan if expected == 0 else 1 - (totals.sum() - 1) * np.sum(coincidences * distances) / expected

    draws = _bootstrap(alpha, len(counts), None, resamples, seed)
    return Estimate(float(alpha(np.arange(len(counts)))), *_percentiles(draws, confidence), len(counts))


def intraclass_correlation(ratings, confidence=0.95):
    """Return the six intraclass correlations of Shrout and Fleiss (1979) of a complete matrix (targets × raters).

    ICC1: raters drawn anew for every target; ICC2: the same random raters for all, absolute agreement; ICC3: the
    same fixed raters, consistency; …k: of the mean of the k raters. Columns: kind, value, low, high (F-based; ICC2
    by Satterthwaite's degrees of freedom), F, df1, df2, p (of a value of 0).
    """
    between, judges, within, error, rows, k = _mean_squares(ratings)
    tail = 0.5 + confidence / 2
    result = []
    for kind, rest, df2 in (("ICC1", within, rows * (k - 1)), ("ICC3", error, (rows - 1) * (k - 1))):
        F, df1 = between / rest, rows - 1
        bounds = F, F / stats.f.ppf(tail, df1, df2), F * stats.f.ppf(tail, df2, df1)
        test = {"F": F, "df1": df1, "df2": df2, "p": stats.f.sf(F, df1, df2)}
        result.append((kind, *((x - 1) / (x + k - 1) for x in bounds), test))
        result.append((f"{kind}k", *(1 - 1 / x for x in bounds), test))
    # ICC2 shares the test of ICC3, the last of the loop.
    value = (between - error) / (between + (k - 1) * error + k * (judges - error) / rows)
    a, b = k * value * judges / error, rows * (1 + (k - 1) * value) - k * value
    df2 = (k - 1) * (rows - 1) * (a + b) ** 2 / ((rows - 1) * a ** 2 + b ** 2)
    below, above = stats.f.ppf(tail, rows - 1, df2), stats.f.ppf(tail, df2, rows - 1)
    spread = k * judges + (k * rows - k - rows) * error
    bounds = (value, rows * (between - below * error) / (below * spread + rows * between),
              rows * (above * between - error) / (spread + rows * above * between))
    result.insert(2, ("ICC2", *bounds, test))
    with np.errstate(divide="ignore"):  # Spearman-Brown; the limit of the lowest ICC2 is minus infinity
        result.insert(3, ("ICC2k", *(k * x / (1 + (k - 1) * x) for x in bounds), test))
    return pd.DataFrame([{"kind": kind, "value": value, "low": low, "high": high, **test}
                         for kind, value, low, high, test in result])


def cronbach_alpha(items, confidence=0.95):
    """Return Cronbach's (1951) alpha = k/(k - 1) · (1 - Σ item variances / variance of the sum) of respondents × items.

    Interval of Feldt (1965): 1 - alpha times the F quantiles of n - 1 and (n - 1)(k - 1) degrees of freedom. It
    equals ICC3k, of which the items are the raters.
    """
    between, _, _, error, rows, k = _mean_squares(items)
    limits = [1 - error / between * stats.f.ppf(tail, rows - 1, (rows - 1) * (k - 1))
              for tail in (0.5 + confidence / 2, 0.5 - confidence / 2)]
    return Estimate(float(1 - error / between), *map(float, limits), rows)


# --- calibration


def calibration_bins(probabilities, correct, bins=10, equal_mass=False):
    """Return per bin that holds answers: low, high, n, probability (mean), accuracy, gap = accuracy - probability.

    Bins are (low, high], the first one closed; of equal width (Guo et al. 2017) or, with equal_mass, between
    quantiles (Naeini et al. 2015; equal probabilities stay together, so there may be fewer bins).
    """
    probabilities, correct = _pairs(probabilities, correct)
    if probabilities.min() < 0 or probabilities.max() > 1 or not np.isin(correct, (0, 1)).all():
        raise StudyError("calibration takes probabilities from 0 to 1 and answers that are right (1) or wrong (0)")
    if bins < 1:
        raise StudyError(f"{bins} bins: one is the least")
    ends = np.linspace(0, 1, bins + 1)[1:]
    if equal_mass:
        ends = np.unique(np.quantile(probabilities, ends, method="inverted_cdf"))
    place = np.searchsorted(ends, probabilities)
    rows = [{"low": ends[i - 1] if i else 0.0, "high": ends[i], "n": int(np.sum(place == i)),
             "probability": probabilities[place == i].mean(), "accuracy": correct[place == i].mean()}
            for i in np.unique(place)]
    return pd.DataFrame(rows).assign(gap=lambda table: table["accuracy"] - table["probability"])


def expected_calibration_error(probabilities, correct, bins=10, equal_mass=False):
    """Return Σ n_bin / n · |accuracy - mean probability| over the bins of calibration_bins; 0 is calibrated."""
    table = calibration_bins(probabilities, correct, bins, equal_mass)
    return float(np.average(table["gap"].abs(), weights=table["n"]))


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


# --- what the functions above share


def _draw(shape, generator):
    return generator.integers(0, shape[0], shape[0]), generator.integers(0, shape[1], shape[1])


def _resampled(values, rows, columns):
    return values[rows][:, columns]


def _percentiles(values, confidence):
    low, high = np.percentile(values, [50 - 50 * confidence, 50 + 50 * confidence])
    return float(low), float(high)


def _bootstrap(statistic, size, codes, resamples, seed):
    """Return statistic(row numbers) of every resample of `size` rows, or of the clusters that `codes` number."""
    members = range(size) if codes is None else [np.flatnonzero(codes == i) for i in range(codes.max() + 1)]
    if len(members) < 2:
        raise StudyError("a bootstrap needs two rows or clusters at least: one alone shows no spread")
    generator, draws = np.random.default_rng(seed), []
    for _ in range(resamples):
        chosen = generator.integers(0, len(members), len(members))
        try:
            draws.append(statistic(chosen if codes is None else np.concatenate([members[i] for i in chosen])))
        except StudyError:
            draws.append(np.nan)
    draws = np.array(draws, dtype=float)
    if np.isnan(draws).mean() > 0.5:
        raise StudyError(f"the statistic is not defined on {np.isnan(draws).sum()} of {resamples} resamples: "
                         "too few rows that differ")
    return draws[~np.isnan(draws)]


def _correlation(values, method):
    """Return the rank correlation of two columns, NaN where one does not vary."""
    if len(values) < 2 or (np.ptp(values, axis=0) == 0).any():
        return np.nan
    if method == "kendall":
        return float(stats.kendalltau(values[:, 0], values[:, 1]).statistic)
    return float(np.corrcoef(stats.rankdata(values, axis=0), rowvar=False)[0, 1])


def _design(table, value, group, covariates, reference, random=()):
    """Return (values, design matrix, codes of the random columns) of value ~ group + covariates."""
    covariates = _columns(covariates)
    data, codes = _table(table, [value, *covariates], dict.fromkeys([group, *random]))
    levels = list(_groups(table, value, group))
    reference = levels[0] if reference is None else reference
    if reference not in levels:
        raise StudyError(f"{group!r} has no level {reference!r}: it has {', '.join(map(str, levels))}")
    design = pd.DataFrame({"intercept": 1.0} | {str(level): (data[group] == level).astype(float)
                                                for level in levels if level != reference}
                          | {name: data[name] for name in covariates}, index=data.index)
    if design.shape[1] < len(levels) + len(covariates):
        raise StudyError(f"two of the terms {', '.join(map(str, ['intercept', *levels, *covariates]))} share a name")
    if np.ptp(data[value]) == 0:
        raise StudyError(f"every {value!r} is the same: there is nothing to model")
    # Scaled, so that a covariate in large units does not pass for one that depends on the others.
    if np.linalg.matrix_rank(design / np.maximum(design.abs().max(), 1e-300)) < design.shape[1]:
        raise StudyError(f"the terms {', '.join(design)} depend on one another (or do not vary): drop one")
    if len(data) <= design.shape[1]:
        raise StudyError(f"{len(data)} rows are too few for {design.shape[1]} coefficients")
    return data[value], design, codes


def _check_random(target, design, codes, group, indicators):
    """Refuse random effects (column: matrix of its levels) that the data cannot tell from something else."""
    for name, matrix in indicators.items():
        if matrix.shape[1] in (1, len(target)):
            raise StudyError(f"the random effect {name!r} has {matrix.shape[1]} levels in {len(target)} rows: it needs "
                             "two or more, and some with several rows, to be told from the residual")
        columns = np.hstack([design, matrix])
        rest = target - columns @ np.linalg.lstsq(columns, target)[0]
        if rest @ rest <= 1e-12 * np.sum((target - target.mean()) ** 2):
            raise StudyError(f"the terms and {name!r} explain every value: no residual variance is left")
    for first, second in combinations([group, *indicators], 2):
        both = np.unique(np.c_[codes[first], codes[second]], axis=0)
        if len(both) == codes[first].max() + 1 == codes[second].max() + 1:
            raise StudyError(f"{first!r} and {second!r} divide the rows in the same way: give one of them")


def _coefficients(design, estimates, errors, distribution, confidence):
    estimates, errors = np.asarray(estimates), np.asarray(errors)
    half, statistic = distribution.ppf(0.5 + confidence / 2) * errors, estimates / errors
    return pd.DataFrame(dict(zip(COEFFICIENTS, [list(design), estimates, errors, statistic,
                                                2 * distribution.sf(np.abs(statistic)), estimates - half,
                                                estimates + half], strict=True)))


def _mean_squares(ratings):
    """Return mean squares between rows, between columns, within rows and of the rest, and the matrix's shape."""
    ratings = _floats(ratings, "ratings")
    if ratings.ndim != 2 or min(ratings.shape) < 2:
        raise StudyError("ratings are a matrix of two rows and two columns or more: one row per thing rated")
    if not np.isfinite(ratings).all():
        raise StudyError(f"{int((~np.isfinite(ratings)).sum())} ratings are missing: leave out incomplete rows, "
                         "or use Krippendorff's alpha")
    (rows, k), row_means, column_means = ratings.shape, ratings.mean(axis=1), ratings.mean(axis=0)
    within = ratings - row_means[:, None]
    error = np.sum((within - column_means + ratings.mean()) ** 2) / ((rows - 1) * (k - 1))
    between = k * row_means.var(ddof=1)
    if between <= 1e-12 * ratings.var() or error <= 1e-12 * ratings.var():
        raise StudyError("the rows do not differ, or the columns agree up to a constant: the ratio of their "
                         "variances is not defined")
    return between, rows * column_means.var(ddof=1), np.sum(within ** 2) / (rows * (k - 1)), error, rows, k


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
    values = _numbers(values, f"shares of {name}", least=2)
    if values.min() < 0 or abs(values.sum() - 1) > 1e-6:
        raise StudyError(f"shares of {name}: they are 0 or more and sum to 1, not {values.sum():g}")
    return values / values.sum()


def _vda_of_shares(first, second):
    return float(first @ (np.cumsum(second) - second / 2))


def _columns(names):
    return [names] if isinstance(names, str) else list(names)


def _table(table, numbers, labels):
    """Return the table, its columns of numbers as floats, and {label: codes in order of appearance}; both checked."""
    lacking = [name for name in [*numbers, *labels] if name not in table]
    if lacking:
        raise StudyError(f"no column {', '.join(map(repr, lacking))} in a table of {', '.join(map(str, table))}")
    if not len(table):
        raise StudyError("the table has no rows")
    data = table.reset_index(drop=True)
    for name in numbers:
        data[name] = pd.to_numeric(data[name], errors="coerce").astype(float)
        if not np.isfinite(data[name]).all():
            raise StudyError(f"{int((~np.isfinite(data[name])).sum())} of {len(data)} values of {name!r} are missing "
                             "or no finite number")
    for name in labels:
        if data[name].isna().any():
            raise StudyError(f"{int(data[name].isna().sum())} of {len(data)} rows have no {name!r}")
    return data, {name: pd.factorize(data[name])[0] for name in labels}


def _groups(table, value, group, least=1, groups=2, varying=False):
    """Return {name: values} in order of appearance; the name of a cell of several columns joins their labels."""
    columns = _columns(group)
    data, _ = _table(table, [value], columns)
    names = data[columns[0]] if len(columns) == 1 else data[columns].astype(str).agg(" × ".join, axis=1)
    found = {name: values.to_numpy() for name, values in data.groupby(names, sort=False, observed=True)[value]}
    if len(found) < groups:
        raise StudyError(f"{len(found)} group of {' × '.join(columns)}: {groups} are needed to compare")
    small = [str(name) for name, values in found.items() if len(values) < least]
    if small:
        raise StudyError(f"fewer than {least} values of {value!r} in {', '.join(small)}")
    if varying and np.ptp(data[value]) == 0:
        raise StudyError(f"every {value!r} is the same: there are no ranks to compare")
    return found


def _floats(values, name):
    try:
        return (values.to_numpy(float, na_value=np.nan) if isinstance(values, pd.DataFrame | pd.Series)
                else np.asarray(values, dtype=float))
    except (TypeError, ValueError):
        raise StudyError(f"{name}: not all of it is numbers, or the rows differ in length") from None


def _numbers(values, name, least=1):
    values = _floats(values, name)
    if values.ndim != 1 or len(values) < least:
        raise StudyError(f"{name}: a list of {least} or more numbers is needed, not {values.size}")
    if not np.isfinite(values).all():
        raise StudyError(f"{name}: {int((~np.isfinite(values)).sum())} of {len(values)} are missing or not finite")
    return values


def _pairs(first, second):
    first, second = _numbers(first, "first"), _numbers(second, "second")
    if len(first) != len(second):
        raise StudyError(f"not the same questions: {len(first)} and {len(second)}")
    return first, second


def _finite(value, name):
    if not np.isfinite(value):
        raise StudyError(f"{name} is not defined on these values")
    return float(value)


def _one_of(name, value, allowed):
    if value not in allowed:
        raise StudyError(f"{name} is {value!r}; it is one of {', '.join(allowed)}")
