"""Calibration: are students as often right as they are sure?"""

import numpy as np
import pandas as pd

from kdutils.errors import StudyError
from kdutils.stats.inputs import checked_pairs

# --- calibration


def calibration_bins(probabilities, correct, bins=10, equal_mass=False):
    """Return per bin that holds answers: low, high, n, probability (mean), accuracy, gap = accuracy - probability.

    Bins are (low, high], the first one closed; of equal width (Guo et al. 2017) or, with equal_mass, between
    quantiles (Naeini et al. 2015; equal probabilities stay together, so there may be fewer bins).
    """
    probabilities, correct = checked_pairs(probabilities, correct)
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
