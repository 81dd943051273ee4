"""Every interval, test and effect size that a report prints, on numpy, scipy and statsmodels."""
