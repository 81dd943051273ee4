"""Linear models, linear mixed models and rank correlation. `table` is a frame with one observation per row."""

import warnings
from collections.abc import Hashable
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats

from kdutils.errors import StudyError
from kdutils.stats.estimates import Estimate, bootstrap, percentiles, widest_interval
from kdutils.stats.inputs import checked_choice, checked_groups, checked_table, column_list

COEFFICIENTS = ["term", "estimate", "standard_error", "statistic", "p", "low", "high"]


@dataclass(frozen=True)
class LinearModel:
    """Ordinary least squares: coefficients (columns COEFFICIENTS, statistic is t), F of all terms, R² from 0 to 1."""

    coefficients: pd.DataFrame
    F: float
    df: tuple[int, int]
    p: float
    r_squared: float
    n: int


@dataclass(frozen=True)
class MixedModel:
    """A linear mixed model; outcome is "converged", "boundary" (a variance is 0) or "not converged".

    coefficients: columns COEFFICIENTS, statistic is z. variances: component, variance (squared units of the value),
    share of their sum (the ICC if there is one random effect), share_error (standard error by the delta method; NaN
    unless converged). message: the warnings of the library. Both tables are empty if no model could be fitted.
    """

    outcome: str
    message: str
    coefficients: pd.DataFrame
    variances: pd.DataFrame
    log_likelihood: float
    n: int


def rank_correlation(table: pd.DataFrame, first: str, second: str, method: str = "spearman",
                     cluster: str | list[str] | None = None, within: str | None = None, resamples: int = 2000,
                     confidence: float = 0.95, seed: int = 0) -> Estimate:
    """Return Spearman's rho or Kendall's tau-b of two columns, from -1 to 1, with a bootstrap interval.

    `cluster`: rows of a cluster are resampled together (see bootstrap_interval). With several columns, the interval
    is estimates.widest_interval of them: where all raters of a text share one value of a measure, an interval over
    raters alone is too narrow. n is that of the fewest clusters. `within`: the
    result is the mean over groups of the correlation inside each group, weighted by rows - 1. Groups where a column
    does not vary are left out; groups are resampled, and n counts the groups that were used. Raises StudyError where no
    correlation is defined.
    """
    checked_choice("method", method, ("spearman", "kendall"))
    clusters = column_list(cluster or [])
    if clusters and within is not None and clusters != [within]:
        raise StudyError("a correlation within groups resamples those groups: give cluster or within, not both")
    data, codes = checked_table(table, [first, second], [*dict.fromkeys([*clusters, *([within] if within else [])])])
    values = data[[first, second]].to_numpy(float)
    if within is None:
        value = _correlation(values, method)
        if np.isnan(value):
            raise StudyError(f"{first!r} or {second!r} does not vary: their correlation is undefined")
        return Estimate(value, *widest_interval(lambda rows: _correlation(values[rows], method), len(values),
                                                [codes[name] for name in clusters], resamples, confidence, seed))
    groups = [values[codes[within] == code] for code in range(codes[within].max() + 1)]
    inside = np.array([(_correlation(rows, method), len(rows) - 1) for rows in groups])
    inside = inside[~np.isnan(inside[:, 0])]
    if len(inside) < 2:
        raise StudyError(f"{len(inside)} of {len(groups)} groups of {within!r} vary in both columns: two are needed")

    def weighted_mean(rows):
        return float(np.average(inside[rows, 0], weights=inside[rows, 1]))

    draws = bootstrap(weighted_mean, len(inside), None, resamples, seed)
    return Estimate(weighted_mean(slice(None)), *percentiles(draws, confidence), len(inside))


# --- models


def linear_model(table: pd.DataFrame, value: str, group: str, covariates: str | list[str] = (),
                 reference: Hashable = None, confidence: float = 0.95) -> LinearModel:
    """Return the model value ~ group + covariates; every level of `group` is compared with `reference`.

    Terms: "intercept" (the mean of the reference level where all covariates are 0), the other levels, the covariates.
    The default reference is the first level in the table. Rows are treated as independent; otherwise use mixed_model.
    Raises StudyError where the coefficients or the residual variance cannot be estimated.
    """
    from statsmodels.api import OLS

    target, design, _ = _design(table, value, group, covariates, reference)
    model = OLS(target, design).fit()
    if model.ssr <= 1e-12 * model.centered_tss:
        raise StudyError(f"the terms explain {value!r} fully: the residual variance is 0")
    return LinearModel(_coefficients(design, model.params, model.bse, stats.t(model.df_resid), confidence),
                       float(model.fvalue), (int(model.df_model), int(model.df_resid)), float(model.f_pvalue),
                       float(model.rsquared), len(target))


def mixed_model(table: pd.DataFrame, value: str, group: str, random: str | list[str],
                covariates: str | list[str] = (), reference: Hashable = None, confidence: float = 0.95) -> MixedModel:
    """Return the model value ~ group + covariates + a random intercept per level of each column of `random`.

    Random effects, for example ["rater", "item"], are crossed or nested. They are fitted by REML as variance components
    (statsmodels MixedLM) with dense matrices, so for up to some thousand rows. Terms and reference are those of
    linear_model. Standard errors are those of generalised least squares given the variances; p values and intervals are
    normal (Wald). Raises StudyError where the data cannot separate a random effect from another term or the residual.
    """
    random = column_list(random)
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
    # V = scale (I + Z Z'), inverted by Woodbury. MixedLM itself inverts a Hessian, which fails at a boundary.
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
    """Return (fit, whether it converged, warnings) by BFGS or, if that warns or fails, by Nelder-Mead.

    With a variance near 0, BFGS stopped far from the optimum in half of 150 simulated small studies and gave wrong
    values for the other variances, but always with a warning. Nelder-Mead is three times as slow and found the optimum
    in all of them.
    """
    from statsmodels.regression.mixed_linear_model import MixedLM, VCSpec

    parts = VCSpec(names, [[[str(i) for i in range(part.shape[1])]] for part in indicators],
                   [[part] for part in indicators])
    model = MixedLM(target.to_numpy(), design.to_numpy(), groups=np.zeros(len(target)), exog_vc=parts)
    # The default gtol of 1e-5 leaves four right digits of a variance.
    for method, options in (("bfgs", {"gtol": 1e-7}), ("nm", {})):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                fit = model.fit(reml=True, method=[method], **options)
            except np.linalg.LinAlgError:
                if method == "nm":
                    raise
                continue
        if fit.converged and not caught:
            break
    if not np.isfinite([*fit.vcomp, fit.scale, fit.llf]).all():
        raise np.linalg.LinAlgError("the variances are not finite numbers")
    return fit, bool(fit.converged), "; ".join(dict.fromkeys(str(item.message) for item in caught))


def _correlation(values, method):
    """Return the rank correlation of two columns, NaN where one does not vary."""
    if len(values) < 2 or (np.ptp(values, axis=0) == 0).any():
        return np.nan
    if method == "kendall":
        return float(stats.kendalltau(values[:, 0], values[:, 1]).statistic)
    return float(np.corrcoef(stats.rankdata(values, axis=0), rowvar=False)[0, 1])


def _design(table, value, group, covariates, reference, random=()):
    """Return (values, design matrix, codes of the random columns) of value ~ group + covariates."""
    covariates = column_list(covariates)
    data, codes = checked_table(table, [value, *covariates], dict.fromkeys([group, *random]))
    levels = list(checked_groups(table, value, group))
    reference = levels[0] if reference is None else reference
    if reference not in levels:
        raise StudyError(f"{group!r} has no level {reference!r}: it has {', '.join(map(str, levels))}")
    design = pd.DataFrame({"intercept": 1.0} | {str(level): (data[group] == level).astype(float)
                                                for level in levels if level != reference}
                          | {name: data[name] for name in covariates}, index=data.index)
    if design.shape[1] < len(levels) + len(covariates):
        raise StudyError(f"two of the terms {', '.join(map(str, ['intercept', *levels, *covariates]))} share a name")
    if np.ptp(data[value]) == 0:
        raise StudyError(f"every {value!r} is the same: there is no variation to model")
    # Columns are scaled: else a covariate in large units would look dependent on the others.
    if np.linalg.matrix_rank(design / np.maximum(design.abs().max(), 1e-300)) < design.shape[1]:
        raise StudyError(f"the terms {', '.join(design)} depend on one another (or do not vary): drop one")
    if len(data) <= design.shape[1]:
        raise StudyError(f"{len(data)} rows are too few for {design.shape[1]} coefficients")
    return data[value], design, codes


def _check_random(target, design, codes, group, indicators):
    """Raise StudyError if the data cannot separate a random effect (column: matrix of its levels) from another term."""
    for name, matrix in indicators.items():
        if matrix.shape[1] in (1, len(target)):
            raise StudyError(f"the random effect {name!r} has {matrix.shape[1]} levels in {len(target)} rows: it needs "
                             "two or more, some of them with several rows, to be separated from the residual")
        columns = np.hstack([design, matrix])
        rest = target - columns @ np.linalg.lstsq(columns, target)[0]
        if rest @ rest <= 1e-12 * np.sum((target - target.mean()) ** 2):
            raise StudyError(f"the terms and {name!r} explain every value: the residual variance is 0")
    for first, second in combinations([group, *indicators], 2):
        both = np.unique(np.c_[codes[first], codes[second]], axis=0)
        if len(both) == codes[first].max() + 1 == codes[second].max() + 1:
            raise StudyError(f"{first!r} and {second!r} divide the rows in the same way: give only one of them")


def _coefficients(design, estimates, errors, distribution, confidence):
    estimates, errors = np.asarray(estimates), np.asarray(errors)
    half, statistic = distribution.ppf(0.5 + confidence / 2) * errors, estimates / errors
    return pd.DataFrame(dict(zip(COEFFICIENTS, [list(design), estimates, errors, statistic,
                                                2 * distribution.sf(np.abs(statistic)), estimates - half,
                                                estimates + half], strict=True)))
