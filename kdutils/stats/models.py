"""Linear and mixed models, and rank correlation."""

import warnings
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats

from kdutils.errors import StudyError
from kdutils.stats.accuracy import Estimate, bootstrap, percentiles
from kdutils.stats.inputs import checked_choice, checked_groups, checked_table, column_list

COEFFICIENTS = ["term", "estimate", "standard_error", "statistic", "p", "low", "high"]


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


def rank_correlation(table, first, second, method="spearman", cluster=None, within=None, resamples=2000,
                     confidence=0.95, seed=0):
    """Return the Estimate of Spearman's rho or Kendall's tau-b of two columns, from -1 to 1, with bootstrap interval.

    `cluster`: rows of a cluster are resampled together (see bootstrap_interval). `within`: the mean over groups of
    the correlation inside the group, weighted by rows - 1; groups in which a column does not vary say nothing and
    are left out; groups are resampled and n counts those that were used.
    """
    checked_choice("method", method, ("spearman", "kendall"))
    if cluster is not None and within is not None and cluster != within:
        raise StudyError("a correlation within groups resamples those groups: give cluster or within, not both")
    data, codes = checked_table(table, [first, second], [name for name in dict.fromkeys((cluster, within)) if name])
    values = data[[first, second]].to_numpy(float)
    if within is None:
        value = _correlation(values, method)
        if np.isnan(value):
            raise StudyError(f"{first!r} or {second!r} does not vary: their correlation is not defined")
        draws = bootstrap(lambda rows: _correlation(values[rows], method), len(values), codes.get(cluster),
                           resamples, seed)
        size = len(values) if cluster is None else int(codes[cluster].max()) + 1
        return Estimate(value, *percentiles(draws, confidence), size)
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
