"""Intervals of means over seeds and questions, and of the difference of two students on the same questions."""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from kdutils.errors import StudyError
from kdutils.stats.inputs import checked_pairs


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
    return float(correct.mean()), *percentiles(means, confidence)


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
    return float(first.mean() - second.mean()), *percentiles(differences, confidence)


def paired_bootstrap(first, second, resamples=2000, confidence=0.95, seed=0):
    """Return the Estimate of mean(first - second) of two students, one score per question, questions resampled.

    Percentile interval; p = (1 + resamples whose mean, shifted to a true difference of 0, is as far from 0 as the
    one seen) / (1 + resamples) (Efron and Tibshirani 1993, 16.4). Where all pairs differ by the same -1, 0 or 1
    no resample differs: the limits are those of the exact binomial share of other pairs, and p is McNemar's.
    """
    first, second = checked_pairs(first, second)
    differences = first - second
    value, size = float(differences.mean()), len(differences)
    if np.ptp(differences) > 1e-12:
        means = bootstrap(lambda rows: differences[rows].mean(), size, None, resamples, seed)
        p = (1 + np.sum(np.abs(means - value) >= abs(value) - 1e-12)) / (1 + resamples)
        return Estimate(value, *percentiles(means, confidence), size, float(p))
    if value not in (-1, 0, 1):
        raise StudyError(f"every pair differs by the same {value:g}: there is no spread to draw an interval from")
    other = 1 - ((1 - confidence) / 2) ** (1 / size)  # Clopper and Pearson's limit for a share of 0 of `size`
    low, high = (-other, other) if value == 0 else sorted((value, value * (1 - other)))
    return Estimate(value, float(low), float(high), size, 1.0 if value == 0 else 2 * 0.5 ** size)


# --- what the functions above share


def _draw(shape, generator):
    return generator.integers(0, shape[0], shape[0]), generator.integers(0, shape[1], shape[1])


def _resampled(values, rows, columns):
    return values[rows][:, columns]


def percentiles(values, confidence):
    low, high = np.percentile(values, [50 - 50 * confidence, 50 + 50 * confidence])
    return float(low), float(high)


def bootstrap(statistic, size, codes, resamples, seed):
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
