"""Every interval and test that a report prints, on scipy and numpy."""

import numpy as np
from scipy import stats


def mean_interval(values, confidence=0.95):
    """Return (mean, low, high) of independent values: Student's t interval; low and high are NaN for fewer than two."""
    values = np.asarray(values, dtype=float)
    mean = values.mean()
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


def _draw(shape, generator):
    return generator.integers(0, shape[0], shape[0]), generator.integers(0, shape[1], shape[1])


def _resampled(values, rows, columns):
    return values[rows][:, columns]


def _percentiles(values, confidence):
    low, high = np.percentile(values, [50 - 50 * confidence, 50 + 50 * confidence])
    return float(low), float(high)
