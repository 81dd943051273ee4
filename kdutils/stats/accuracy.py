"""Accuracy of one method over seeds and questions, and the difference of two methods on the same questions."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, stats

from kdutils.errors import StudyError
from kdutils.stats.estimates import Estimate, HypothesisTest, bootstrap, percentiles
from kdutils.stats.inputs import checked_choice, checked_pairs

RESAMPLES = 4000  # of crossed_difference with one seed: the smallest p is 1 in about this number


def mean_interval(values: ArrayLike, confidence: float = 0.95) -> tuple[float, float, float]:
    """Return (mean, low, high) of independent values: Student's t interval; low and high are NaN for fewer than two."""
    values = np.asarray(values, dtype=float)
    mean = values.mean() if len(values) else np.nan
    if len(values) < 2:
        return float(mean), float("nan"), float("nan")
    half = stats.t.ppf(0.5 + confidence / 2, len(values) - 1) * stats.sem(values)
    return float(mean), float(mean - half), float(mean + half)


def bootstrap_mean(correct: ArrayLike, resamples: int = 2000, confidence: float = 0.95,
                   seed: int = 0) -> tuple[float, float, float]:
    """Return (mean, low, high) of `correct`, a matrix (seeds, questions) of values from 0 to 1.

    Percentile bootstrap. Every resample draws seeds and questions with replacement, so the interval covers other seeds
    and other questions of the same distribution. With few seeds it understates the variation between seeds. If all
    values are equal, resamples do not differ; then the interval is the exact binomial one over the questions (Clopper
    and Pearson 1934).
    """
    correct = np.asarray(correct, dtype=float)
    if correct.min() == correct.max():
        exact = stats.binomtest(round(correct[0].sum()), correct.shape[1]).proportion_ci(confidence, method="exact")
        return float(correct.mean()), float(exact.low), float(exact.high)
    generator = np.random.default_rng(seed)
    means = [correct[_draw(len(correct), generator)][:, _draw(correct.shape[1], generator)].mean()
             for _ in range(resamples)]
    return float(correct.mean()), *percentiles(means, confidence)


def bootstrap_difference(first: ArrayLike, second: ArrayLike, resamples: int = 2000, confidence: float = 0.95,
                         seed: int = 0) -> tuple[float, float, float]:
    """Return (difference of means, low, high) of two methods on the same questions, each a matrix (seeds, questions).

    Percentile bootstrap. A resample has the same questions for both methods; seeds are drawn for each method.
    """
    first, second = _same_questions(first, second)
    generator, differences = np.random.default_rng(seed), []
    for _ in range(resamples):
        seeds, questions = _draw(len(first), generator), _draw(first.shape[1], generator)
        other_seeds = _draw(len(second), generator)
        differences.append(first[seeds][:, questions].mean() - second[other_seeds][:, questions].mean())
    return float(first.mean() - second.mean()), *percentiles(differences, confidence)


def _draw(size, generator):
    return generator.integers(0, size, size)


def _same_questions(first, second):
    first, second = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if first.shape[-1] != second.shape[-1]:
        raise StudyError(f"not the same questions: {first.shape[-1]} and {second.shape[-1]}")
    return first, second


def paired_bootstrap(first: ArrayLike, second: ArrayLike, resamples: int = 2000, confidence: float = 0.95,
                     seed: int = 0) -> Estimate:
    """Return mean(first - second) of two students, each one score per question; questions are resampled.

    Percentile interval. p = (1 + k) / (1 + resamples), where k counts the resamples whose mean, shifted to a true
    difference of 0, is at least as far from 0 as the observed one (Efron and Tibshirani 1993, section 16.4). If all
    pairs differ by the same -1, 0 or 1, resamples do not differ: then the limits come from the exact binomial interval
    of the share of other pairs, and p is McNemar's. Any other constant difference raises StudyError.
    """
    first, second = checked_pairs(first, second)
    differences = first - second
    value, size = float(differences.mean()), len(differences)
    if np.ptp(differences) > 1e-12:
        means = bootstrap(lambda rows: differences[rows].mean(), size, None, resamples, seed)
        p = (1 + np.sum(np.abs(means - value) >= abs(value) - 1e-12)) / (1 + resamples)
        return Estimate(value, *percentiles(means, confidence), size, float(p))
    if value not in (-1, 0, 1):
        raise StudyError(f"every pair differs by the same {value:g}: without variation there is no interval")
    other = 1 - ((1 - confidence) / 2) ** (1 / size)  # Clopper and Pearson's limit for a share of 0 of `size`
    low, high = (-other, other) if value == 0 else sorted((value, value * (1 - other)))
    return Estimate(value, float(low), float(high), size, 1.0 if value == 0 else 2 * 0.5 ** size)


@dataclass(frozen=True)
class CrossedTest:
    """A difference of two mean accuracies with its standard error and degrees of freedom; n: the number of questions.

    All from Student's t with `freedom` degrees of freedom.
    """

    value: float
    error: float
    freedom: float
    n: int

    def estimate(self, confidence: float = 0.95) -> Estimate:
        """Return the difference with its interval and the two-sided p of no difference."""
        half = stats.t.ppf(0.5 + confidence / 2, self.freedom) * self.error
        return Estimate(self.value, float(self.value - half), float(self.value + half), self.n,
                        float(2 * stats.t.sf(abs(self.value) / self.error, self.freedom)))

    def p_equivalent(self, margin: float) -> float:
        """Return p of a true difference of at least `margin`: the larger of two one-sided tests (Schuirmann 1987)."""
        return float(stats.t.cdf((abs(self.value) - margin) / self.error, self.freedom))

    def detectable(self, level: float = 0.05, power: float = 0.8) -> float:
        """Return the difference that a test at `level` finds, as one in its direction, with probability `power`.

        Given this error. The distribution is the noncentral t. The sum of two quantiles of t, the usual shortcut, is 5
        to 15 % too small with 2 degrees of freedom.
        """
        far = stats.t.ppf(1 - level / 2, self.freedom)

        def gap(shift):  # scipy returns NaN where the probability is 0 or 1
            return np.nan_to_num(stats.nct.sf(far, self.freedom, shift), nan=float(shift > far)) - power

        return float(optimize.brentq(gap, 0, 5 * far + 10) * self.error)


def crossed_test(first: ArrayLike, second: ArrayLike) -> CrossedTest | None:
    """Return the test of mean(first) - mean(second) of two methods, each a matrix (seeds, questions).

    Seeds and questions are both a sample (crossed random effects: Searle, Casella and McCulloch 1992, chapter 5). The
    variance of the difference is the sum of two parts: that of the questions (paired, of means over seeds) and, for
    each method, that of its seeds, with Satterthwaite's degrees of freedom (Welch's for the seeds of two methods). If
    `second` has one dimension, it is known and not sampled. None where a sampled method has one seed or there is one
    question, which says nothing about others, and where nothing varies. Raises StudyError for unequal numbers of
    questions.

    Why not a bootstrap: it calls equal methods different too often, because it never sees other seeds. Why the part of
    the seeds always counts, also where it is estimated as zero: otherwise the test has the questions' degrees of
    freedom, more than a few seeds can support, and small p values come too often with 2 or 3 seeds. ``python -m
    kdutils.stats.error_rates`` simulates this test, with ``bootstraps`` beside both bootstraps.
    """
    first, second = _same_questions(first, second)
    sampled = [first] if second.ndim == 1 else [first, second]
    if min(*map(len, sampled), first.shape[1]) < 2:
        return None
    differences = first.mean(axis=0) - np.atleast_2d(second).mean(axis=0)
    count = len(differences)
    parts = [(*_seed_variance(matrix), len(matrix) - 1) for matrix in sampled]
    seen, noise = sum(part[0] for part in parts), sum(part[1] for part in parts)
    of_seeds = max(seen, noise)  # the noise of the answers is in both parts and counted once, here
    of_questions = max(differences.var(ddof=1) / count - noise, 0.0)
    total = of_seeds + of_questions
    if total <= 1e-18:
        return None
    seeds_df = seen ** 2 / sum(part ** 2 / df for part, _, df in parts) if seen > 0 else min(part[2] for part in parts)
    freedom = total ** 2 / (of_seeds ** 2 / seeds_df + of_questions ** 2 / max(count - 1, 1))
    return CrossedTest(float(differences.mean()), float(np.sqrt(total)), float(freedom), count)


def crossed_difference(first: ArrayLike, second: ArrayLike, confidence: float = 0.95) -> Estimate:
    """Return mean(first) - mean(second) with its interval and p by crossed_test.

    Where that gives no test, only questions are resampled (paired_bootstrap).
    """
    test = crossed_test(first, second)
    if test:
        return test.estimate(confidence)
    first, second = _same_questions(first, second)
    return paired_bootstrap(first.mean(axis=0), np.atleast_2d(second).mean(axis=0), RESAMPLES, confidence)


def _seed_variance(matrix):
    """Return the variance of the mean over seeds as the seeds show it, and the part of it that questions bring in."""
    seeds, questions = matrix.shape
    means = matrix.mean(axis=1)
    rest = matrix - means[:, None] - matrix.mean(axis=0) + matrix.mean()
    noise = np.sum(rest ** 2) / ((seeds - 1) * max(questions - 1, 1)) / questions
    return means.var(ddof=1) / seeds, noise / seeds


def difference_to_chance(correct: ArrayLike, chance: float) -> Estimate:
    """Return accuracy minus `chance` of a matrix (seeds, questions) of 0 and 1.

    The test is crossed_difference. If all answers are right or all are wrong, it is the exact binomial test over the
    questions, with the interval of Clopper and Pearson (1934).
    """
    correct = np.asarray(correct, dtype=float)
    if correct.min() < correct.max():
        return crossed_difference(correct, np.full(correct.shape[1], chance))
    mean, low, high = bootstrap_mean(correct)
    p = stats.binomtest(int(correct[0].sum()), correct.shape[1], chance).pvalue
    return Estimate(mean - chance, low - chance, high - chance, correct.shape[1], float(p))


def mcnemar(first: ArrayLike, second: ArrayLike, method: str = "mid-p") -> HypothesisTest:
    """Return McNemar's test of two students on the same questions; the arguments say which answers were right (0, 1).

    b questions are right only for the first student, c only for the second. `method`: "exact" is twice the binomial
    tail of min(b, c) of b + c at one half. "mid-p" subtracts the probability of min(b, c); Fagerland, Lydersen and
    Laake (2013) recommend it as closer to its nominal level. "corrected" is chi² = (|b - c| - 1)² / (b + c) with 1
    degree of freedom. statistic: min(b, c) or chi². effect: (b - c) / n, the difference of accuracies. p is 1 if b = c.
    """
    from statsmodels.stats.contingency_tables import mcnemar as library

    checked_choice("method", method, ("exact", "mid-p", "corrected"))
    first, second = checked_pairs(first, second)
    if not np.isin([first, second], (0, 1)).all():
        raise StudyError("McNemar's test takes answers that are right (1) or wrong (0), no other values")
    size, only_first, only_second = len(first), int(np.sum(first > second)), int(np.sum(second > first))
    fewer, total = min(only_first, only_second), only_first + only_second
    df, statistic, p = ((1,), 0.0, 1.0) if method == "corrected" else ((), float(fewer), 1.0)
    if only_first != only_second:  # else chi² is 0/0, or the correction is applied to no difference
        result = library([[0, only_first], [only_second, 0]], exact=method != "corrected", correction=True)
        statistic = float(result.statistic)
        p = float(result.pvalue - (stats.binom.pmf(fewer, total, 0.5) if method == "mid-p" else 0))
    return HypothesisTest(f"McNemar, {method}", statistic, df, p, size, (only_first - only_second) / size)
