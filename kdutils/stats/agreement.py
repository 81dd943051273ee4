"""Agreement of raters and consistency of a scale; a matrix has one row per rated item and one column per rater."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

from kdutils.errors import StudyError
from kdutils.stats.estimates import Estimate, bootstrap, percentiles, widest_interval
from kdutils.stats.inputs import checked_choice, checked_floats, checked_table


def krippendorff_alpha(ratings: ArrayLike, level: str = "ordinal", resamples: int = 1000, confidence: float = 0.95,
                       seed: int = 0, clusters: Sequence[ArrayLike] = (), raters: bool = False) -> Estimate:
    """Return Krippendorff's alpha of a matrix (units, raters), NaN where a rating is missing; 1 is full agreement.

    alpha = 1 - D_observed / D_expected = 1 - (n - 1) Σ o_ck δ²_ck / Σ n_c n_k δ²_ck, with the coincidences
    o_ck = Σ_units n_uc (n_uk - [c = k]) / (m_u - 1) over the units with m_u ≥ 2 ratings, n_c their marginals, and
    δ² by `level`: "nominal" [c ≠ k], "interval" (c - k)², "ordinal" (Σ_{g=c..k} n_g - (n_c + n_k)/2)². Source:
    Krippendorff, Computing Krippendorff's Alpha-Reliability (2011). Interval: percentile bootstrap over units.
    `clusters`: lists of labels, one label per unit; units of one label are resampled together. With several lists, the
    interval is estimates.widest_interval of them, and n is that of the fewest clusters. With `raters`, it reaches to
    the ends of an interval over raters, too: whole columns are drawn with replacement, and two copies of one rater make
    no pair, because they always agree. With few raters that is still too narrow. Raises StudyError for fewer than two
    units with two ratings, where all ratings are equal, and with `raters` for fewer than three raters.
    """
    checked_choice("level", level, ("nominal", "ordinal", "interval"))
    ratings = checked_floats(ratings, "ratings")
    if ratings.ndim != 2 or np.isinf(ratings).any():
        raise StudyError("ratings must be a matrix of numbers (units by raters) with NaN for a missing rating")
    used = (~np.isnan(ratings)).sum(axis=1) >= 2
    ratings = ratings[used]
    if len(ratings) < 2:
        raise StudyError(f"{len(ratings)} units have two ratings or more: agreement needs at least two such units")
    categories = np.unique(ratings[~np.isnan(ratings)])
    if len(categories) == 1:
        raise StudyError(f"every rating is {categories[0]:g}: alpha is undefined where ratings do not differ")
    given = (ratings[:, :, None] == categories).transpose(0, 2, 1).astype(float)
    counts = given.sum(axis=2)
    sizes = counts.sum(axis=1)

    def alpha(chosen, squares):
        """`chosen`: counts of the categories in each unit; `squares`: the sum over its raters of squared copies."""
        # The diagonal of the coincidences stays uncorrected: its distance is 0.
        of_unit, totals = chosen.sum(axis=1), chosen.sum(axis=0)
        coincidences = (chosen * (of_unit / (of_unit ** 2 - squares))[:, None]).T @ chosen
        if level == "ordinal":
            middles = np.cumsum(totals) - totals / 2  # the ordinal distance is that of mid-ranks
        distances = {"nominal": lambda: 1 - np.eye(len(categories)),
                     "interval": lambda: np.subtract.outer(categories, categories) ** 2,
                     "ordinal": lambda: np.subtract.outer(middles, middles) ** 2}[level]()
        expected = totals @ distances @ totals
        pairs = totals.sum() - squares.sum() / totals.sum()  # n - 1 without copies
        return np.nan if expected == 0 else 1 - pairs * np.sum(coincidences * distances) / expected

    def of_units(rows):
        return alpha(counts[rows], sizes[rows])

    def of_raters(columns):
        copies = np.bincount(columns, minlength=ratings.shape[1])
        chosen, squares = given @ copies, given.sum(axis=1) @ copies ** 2
        paired = chosen.sum(axis=1) ** 2 > squares
        return alpha(chosen[paired], squares[paired]) if paired.sum() > 1 else np.nan

    labels = pd.DataFrame(dict(enumerate(clusters)))
    codes = list(checked_table(labels[used], [], labels)[1].values()) if len(clusters) else []
    low, high, size = widest_interval(of_units, len(counts), codes, resamples, confidence, seed)
    if raters:
        if (count := int((~np.isnan(ratings)).any(axis=0).sum())) < 3:
            raise StudyError(f"an interval over raters needs three raters or more; there are {count}")
        ends = percentiles(bootstrap(of_raters, ratings.shape[1], None, resamples, seed), confidence)
        low, high = min(low, ends[0]), max(high, ends[1])
    return Estimate(float(of_units(np.arange(len(counts)))), low, high, size)


def intraclass_correlation(ratings: ArrayLike, confidence: float = 0.95) -> pd.DataFrame:
    """Return the six intraclass correlations of Shrout and Fleiss (1979) of a complete matrix (targets, raters).

    ICC1: other random raters for every target. ICC2: the same random raters for all targets, absolute agreement. ICC3:
    the same fixed raters, consistency. ICC1k, ICC2k and ICC3k: of the mean of the k raters. Columns: kind, value, low,
    high (from F; ICC2 by Satterthwaite's degrees of freedom), F, df1, df2, p (test of a value of 0). Raises StudyError
    where ratings are missing, rows do not differ, or columns differ by a constant alone.
    """
    between, judges, within, error, rows, k = _mean_squares(ratings)
    tail = 0.5 + confidence / 2
    correlations = []
    for kind, rest, df2 in (("ICC1", within, rows * (k - 1)), ("ICC3", error, (rows - 1) * (k - 1))):
        F, df1 = between / rest, rows - 1
        bounds = F, F / stats.f.ppf(tail, df1, df2), F * stats.f.ppf(tail, df2, df1)
        test = {"F": F, "df1": df1, "df2": df2, "p": stats.f.sf(F, df1, df2)}
        correlations.append((kind, *((x - 1) / (x + k - 1) for x in bounds), test))
        correlations.append((f"{kind}k", *(1 - 1 / x for x in bounds), test))
    # ICC2 shares the test of ICC3, the last of the loop.
    value = (between - error) / (between + (k - 1) * error + k * (judges - error) / rows)
    a, b = k * value * judges / error, rows * (1 + (k - 1) * value) - k * value
    df2 = (k - 1) * (rows - 1) * (a + b) ** 2 / ((rows - 1) * a ** 2 + b ** 2)
    below, above = stats.f.ppf(tail, rows - 1, df2), stats.f.ppf(tail, df2, rows - 1)
    spread = k * judges + (k * rows - k - rows) * error
    bounds = (value, rows * (between - below * error) / (below * spread + rows * between),
              rows * (above * between - error) / (spread + rows * above * between))
    correlations.insert(2, ("ICC2", *bounds, test))
    with np.errstate(divide="ignore"):  # Spearman-Brown; the limit of the lowest ICC2 is minus infinity
        correlations.insert(3, ("ICC2k", *(k * x / (1 + (k - 1) * x) for x in bounds), test))
    return pd.DataFrame([{"kind": kind, "value": value, "low": low, "high": high, **test}
                         for kind, value, low, high, test in correlations])


def cronbach_alpha(items: ArrayLike, confidence: float = 0.95) -> Estimate:
    """Return Cronbach's (1951) alpha of a complete matrix (respondents, items); at most 1.

    alpha = k/(k - 1) · (1 - Σ item variances / variance of the sum). It equals ICC3k with items as raters. Interval of
    Feldt (1965): (1 - alpha) times the F quantiles of n - 1 and (n - 1)(k - 1) degrees of freedom. Raises StudyError as
    intraclass_correlation does.
    """
    between, _, _, error, rows, k = _mean_squares(items)
    limits = [1 - error / between * stats.f.ppf(tail, rows - 1, (rows - 1) * (k - 1))
              for tail in (0.5 + confidence / 2, 0.5 - confidence / 2)]
    return Estimate(float(1 - error / between), *map(float, limits), rows)


def _mean_squares(ratings):
    """Return the mean squares between rows, between columns, within rows and residual, and the shape of the matrix."""
    ratings = checked_floats(ratings, "ratings")
    if ratings.ndim != 2 or min(ratings.shape) < 2:
        raise StudyError("ratings must be a matrix of at least two rows and two columns, one row per rated item")
    if not np.isfinite(ratings).all():
        raise StudyError(f"{int((~np.isfinite(ratings)).sum())} ratings are missing: leave out incomplete rows "
                         "or use Krippendorff's alpha")
    (rows, k), row_means, column_means = ratings.shape, ratings.mean(axis=1), ratings.mean(axis=0)
    within = ratings - row_means[:, None]
    error = np.sum((within - column_means + ratings.mean()) ** 2) / ((rows - 1) * (k - 1))
    between = k * row_means.var(ddof=1)
    if between <= 1e-12 * ratings.var() or error <= 1e-12 * ratings.var():
        raise StudyError("the rows do not differ, or the columns agree up to a constant: the ratio of their "
                         "variances is undefined")
    return between, rows * column_means.var(ddof=1), np.sum(within ** 2) / (rows * (k - 1)), error, rows, k
