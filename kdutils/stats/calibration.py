"""Calibration: whether the probability that a student gives its answer is the share of such answers that are right."""

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from kdutils.errors import StudyError
from kdutils.stats.inputs import checked_pairs


def calibration_bins(probabilities: ArrayLike, correct: ArrayLike, bins: int = 10,
                     equal_mass: bool = False) -> pd.DataFrame:
    """Return one row per bin with answers: low, high, n, probability (mean), accuracy, gap = accuracy - probability.

    Bins are open at low and closed at high; the first is closed at both. They have equal width (Guo et al. 2017) or,
    with equal_mass, lie between quantiles (Naeini et al. 2015); equal probabilities stay in one bin, so there may be
    fewer bins. Probabilities and accuracies are from 0 to 1, `correct` is 0 or 1; anything else raises StudyError.
    """
    probabilities, correct = checked_pairs(probabilities, correct)
    if probabilities.min() < 0 or probabilities.max() > 1 or not np.isin(correct, (0, 1)).all():
        raise StudyError("calibration takes probabilities from 0 to 1 and answers that are right (1) or wrong (0)")
    if bins < 1:
        raise StudyError(f"{bins} bins: at least one is needed")
    ends = np.linspace(0, 1, bins + 1)[1:]
    if equal_mass:
        ends = np.unique(np.quantile(probabilities, ends, method="inverted_cdf"))
    place = np.searchsorted(ends, probabilities)
    rows = [{"low": ends[i - 1] if i else 0.0, "high": ends[i], "n": int(np.sum(place == i)),
             "probability": probabilities[place == i].mean(), "accuracy": correct[place == i].mean()}
            for i in np.unique(place)]
    return pd.DataFrame(rows).assign(gap=lambda table: table["accuracy"] - table["probability"])


def expected_calibration_error(probabilities: ArrayLike, correct: ArrayLike, bins: int = 10,
                               equal_mass: bool = False) -> float:
    """Return Σ n_bin / n · |accuracy - mean probability| over calibration_bins, from 0 (calibrated) to 1.

    Equation 3 of Guo et al. (2017), whose tables have 15 bins; here 10, because a test split of a few hundred questions
    leaves too few answers in narrower bins. A report gives it the softmax over the choices (error_analysis.
    by_likelihood), as if the student had only these to say.
    """
    table = calibration_bins(probabilities, correct, bins, equal_mass)
    return float(np.average(table["gap"].abs(), weights=table["n"]))
