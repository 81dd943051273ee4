"""The analysis of ratings. Every part that these ratings do not allow is a sentence instead of an error.

Each function takes one row per rating (ratings.one_row_per_rating), of any number, none included, and returns
(result, sentences). If a result has no value, its table is empty or its model is None, and a sentence says why.
"""

from collections.abc import Callable, Iterable
from functools import partial
from itertools import combinations
from math import comb
from typing import TypeVar

import numpy as np
import pandas as pd

from kdutils.errors import StudyError
from kdutils.human_study.design import TRUTH
from kdutils.stats import agreement, groups, models, power
from kdutils.stats.accuracy import mean_interval

Result = TypeVar("Result")
MEANS = ["method", "construct", "n", "sd", "mean", "low", "high"]
AGREEMENT = ["construct", "alpha", "low", "high", "texts"]
TESTS = ["construct", "H", "df", "p", "effect", "p_corrected"]
ASSUMPTIONS = ["assumption", "method", "n", "statistic", "p"]
EFFECT_SIZES = ["first", "second", "difference", "low", "high", "g", "g_low", "g_high"]
POWER = ["construct", "power", "low", "high"]
NUMBERS = ("none", "one")
RESAMPLES = 1000  # of bootstrap intervals, and simulated studies of a power


def attempt(function: Callable[..., Result], *arguments: object, **options: object) -> tuple[Result | None, str]:
    """Return (result of `function`, "") or, if it raises a StudyError, (None, its message)."""
    try:
        return function(*arguments, **options), ""
    except StudyError as error:
        return None, str(error)


def _attempt_table(name, what, function, *arguments):
    """Return (the table of `function`, []) or (an empty table, a list of the sentence why `what` is left out)."""
    table, reason = attempt(function, *arguments)
    return pd.DataFrame() if table is None else table, left_out(what, {name: reason})


def say(sentences: Iterable[str]) -> None:
    """Print sentences, one per line."""
    for sentence in sentences:
        print(sentence)


def left_out(what: str, reasons: dict[str, str]) -> list[str]:
    """Return one sentence per reason: `what` of these names is left out; `reasons`: {name: reason or ""}."""
    names = {}
    for name, reason in reasons.items():
        if reason:
            names.setdefault(reason, []).append(str(name))
    return [f"{what} of {', '.join(those)} is left out: {reason.rstrip('.')}." for reason, those in names.items()]


def _too_few_methods(what, wide):
    """Return a sentence in a list if fewer than two methods have ratings, else an empty list."""
    methods = wide["method"].nunique()
    return [] if methods > 1 else [f"{what} needs two methods or more with ratings; there is {NUMBERS[methods]}."]


# Means and agreement


def means_by_method(wide: pd.DataFrame, rated: list[str]) -> tuple[pd.DataFrame, list[str]]:
    """Return (table of MEANS, sentences). low and high are Student's 95 % interval over ratings."""
    groups_of = [(method, name, group[name].dropna()) for method, group in wide.groupby("method") for name in rated]
    rows = [{"method": method, "construct": name, "n": len(scores), "sd": scores.std(),
             **dict(zip(("mean", "low", "high"), mean_interval(scores), strict=True))}
            for method, name, scores in groups_of if len(scores)]
    single = [str(method) for method, size in wide.groupby("method").size().items() if size < 2]
    sentences = [f"An interval needs two ratings; there is one of {', '.join(single)}."] if single else []
    return pd.DataFrame(rows, columns=MEANS), sentences or ([] if rows else ["Means need a rating; there is none."])


def raters_per_text(wide: pd.DataFrame) -> int:
    """Return the largest number of raters of one text, 0 without ratings."""
    return int(wide.groupby("text")["rater"].nunique().max()) if len(wide) else 0


def measure_agreement(wide: pd.DataFrame, rated: list[str], seed: int = 0) -> tuple[pd.DataFrame, list[str]]:
    """Return (Krippendorff's alpha per construct, columns AGREEMENT, sentences): ordinal, for `quality` interval.

    low and high: 95 %, the wider of the bootstrap intervals over texts and over raters. If raters cannot be resampled,
    as with fewer than three, it is over texts alone, and a sentence says so.
    """
    most = raters_per_text(wide)
    if most < 2:
        return pd.DataFrame(columns=AGREEMENT), [
            f"Agreement needs at least two raters per text; there is {NUMBERS[most]}."]
    rows, reasons, narrow = [], {}, {}
    for name in rated:
        given = (wide.pivot(index="text", columns="rater", values=name), "interval" if name == "quality" else "ordinal",
                 RESAMPLES)
        alpha, why = attempt(agreement.krippendorff_alpha, *given, seed=seed, raters=True)
        if not alpha:
            alpha, reasons[name] = attempt(agreement.krippendorff_alpha, *given, seed=seed)
            narrow[name] = why if alpha else ""
        if alpha:
            rows.append(dict(zip(AGREEMENT, (name, alpha.value, alpha.low, alpha.high, alpha.n), strict=True)))
    return pd.DataFrame(rows, columns=AGREEMENT), [
        *left_out("Krippendorff's alpha", reasons), *left_out("The interval of alpha over raters", narrow)]


def correlate_two_raters(wide: pd.DataFrame, rating: str) -> tuple[pd.DataFrame, list[str]]:
    """Return (intraclass correlations of the first two raters of each text that has two, sentences).

    ICC1 and ICC1k of agreement.intraclass_correlation alone: the two people are others for each text, so a column of
    the matrix is no rater.
    """
    several = wide[wide.groupby("text")["rater"].transform("size") >= 2].groupby("text").head(2)
    if several["text"].nunique() < 2:
        return pd.DataFrame(), ["The intraclass correlation needs two texts or more with two raters; there is "
                                f"{NUMBERS[several['text'].nunique()]}."]
    grid = several.assign(place=several.groupby("text").cumcount()).pivot(index="text", columns="place", values=rating)
    table, sentences = _attempt_table(rating, "The intraclass correlation", agreement.intraclass_correlation, grid)
    return table[table["kind"].isin(["ICC1", "ICC1k"])] if len(table) else table, sentences


def measure_reliability(wide: pd.DataFrame, constructs: list[str]) -> tuple[pd.DataFrame, list[str]]:
    """Return (Cronbach's alpha of the constructs of `quality` as a table of one row, sentences)."""
    constructs = [name for name in constructs if name not in TRUTH]
    if len(constructs) < 2:
        return pd.DataFrame(), ["Cronbach's alpha needs two constructs or more; there is one."]
    if len(wide) < 2:
        return pd.DataFrame(), [f"Cronbach's alpha needs two ratings or more; there is {NUMBERS[len(wide)]}."]
    alpha, reason = attempt(agreement.cronbach_alpha, wide[constructs])
    return pd.DataFrame([vars(alpha)] if alpha else []), left_out("Cronbach's alpha", {"the constructs": reason})


# Differences between methods


def compare_methods(wide: pd.DataFrame, rated: list[str]) -> tuple[pd.DataFrame, list[str]]:
    """Return (Kruskal-Wallis test per construct, columns TESTS, sentences); p_corrected: Holm over the constructs."""
    if few := _too_few_methods("A comparison", wide):
        return pd.DataFrame(columns=TESTS), few
    found, reasons = {}, {}
    for name in rated:
        found[name], reasons[name] = attempt(groups.kruskal, wide.dropna(subset=[name]), name, "method")
    table = pd.DataFrame([{"construct": name, "H": test.statistic, "df": test.df, "p": test.p, "effect": test.effect}
                          for name, test in found.items() if test], columns=TESTS[:-1])
    corrected = groups.correct_p_values(table["p"]) if len(table) else []
    return table.assign(p_corrected=corrected), left_out("Kruskal-Wallis", reasons)


def compare_pairs(wide: pd.DataFrame, rating: str) -> tuple[pd.DataFrame, list[str]]:
    """Return (Dunn's test of ranks and, beside it, Tukey's test of means for each pair of methods, sentences).

    The columns of groups.dunn, then difference (of means, in points), low, high and p_tukey. A missing rating is left
    out, as in compare_methods.
    """
    wide = wide.dropna(subset=[rating])
    ranks, sentences = _attempt_table(rating, "Dunn's test", groups.dunn, wide, rating, "method")
    means, more = _attempt_table(rating, "Tukey's test", groups.tukey, wide, rating, "method")
    if len(ranks) and len(means):
        ranks = ranks.merge(means.rename(columns={"p": "p_tukey"}), on=["first", "second"])
    return ranks, sentences + more


def analyse_variance(wide: pd.DataFrame, rating: str) -> tuple[pd.DataFrame, list[str]]:
    """Return (groups.two_way_anova of rating ~ method * data set, or method * rater in one data set, sentences)."""
    second = "dataset" if wide["dataset"].nunique() > 1 else "rater"
    return _attempt_table(rating, "The analysis of variance", groups.two_way_anova, wide, rating, "method", second)


def check_assumptions(wide: pd.DataFrame, rating: str) -> tuple[pd.DataFrame, list[str]]:
    """Return (tests of what an analysis of variance assumes, columns ASSUMPTIONS, sentences).

    Equal variances by Levene's test around the median; normal residuals within each method by Shapiro and Wilk's test.
    A small p speaks against the assumption.
    """
    if few := _too_few_methods("A test of assumptions", wide):
        return pd.DataFrame(columns=ASSUMPTIONS), few
    equal, reason = attempt(groups.levene, wide, rating, "method")
    sentences = left_out("Levene's test", {rating: reason})
    normal, more = _attempt_table(rating, "Shapiro and Wilk's test", groups.shapiro, wide, rating, "method")
    rows = [["equal variances", "all", equal.n, equal.statistic, equal.p]] if equal else []
    rows += [["normal residuals", *row] for row in normal.itertuples(index=False)]
    return pd.DataFrame(rows, columns=ASSUMPTIONS), sentences + more


def effect_sizes(wide: pd.DataFrame, rating: str, seed: int = 0) -> tuple[pd.DataFrame, list[str]]:
    """Return (a row per pair of methods, columns EFFECT_SIZES, sentences).

    difference: of the means, in points, with a 95 % bootstrap interval, the wider of those over raters and over texts
    (all raters of a text share its quality, so an interval over raters alone is too narrow). g: the difference over the
    pooled standard deviation (Hedges), with an interval that takes ratings as independent.
    """
    wide = wide.dropna(subset=[rating])
    if few := _too_few_methods("An effect size", wide):
        return pd.DataFrame(columns=EFFECT_SIZES), few
    rows, reasons = [], {"difference": {}, "g": {}}
    for first, second in combinations(dict.fromkeys(wide["method"]), 2):
        both, pair = wide[wide["method"].isin([first, second])], f"{first} and {second}"
        gap = partial(_mean_gap, rating=rating, first=first)
        found, reasons["difference"][pair] = attempt(
            groups.bootstrap_interval, both, gap, ["rater", "text"], RESAMPLES, seed=seed)
        g, reasons["g"][pair] = attempt(groups.standardised_difference, *(
            both.loc[both["method"] == name, rating] for name in (first, second)))
        estimates = [[one.value, one.low, one.high] if one else [np.nan] * 3 for one in (found, g)]
        if found or g:
            rows.append([first, second, *estimates[0], *estimates[1]])
    return pd.DataFrame(rows, columns=EFFECT_SIZES), [
        *left_out("The difference", reasons["difference"]), *left_out("Hedges' g", reasons["g"])]


def _mean_gap(table, rating, first):
    """Return the mean of one method minus that of the other, NaN where a resample lacks one of them."""
    values, own = table[rating].to_numpy(float), (table["method"] == first).to_numpy()
    return values[own].mean() - values[~own].mean() if own.any() and not own.all() else np.nan


# Models


def fit_linear(wide: pd.DataFrame, rating: str) -> tuple[models.LinearModel | None, list[str]]:
    """Return (the linear model rating ~ method + characters, sentences); without characters if that term cannot be."""
    return _fit_first("The linear model", models.linear_model, wide, rating, [{"covariates": ["characters"]}, {}])


def fit_mixed(wide: pd.DataFrame, rating: str,
              at_equal_length: bool = False) -> tuple[models.MixedModel | None, list[str]]:
    """Return (the mixed model, sentences): method, random raters and, if several rated one, random texts.

    It is the test of methods. With `at_equal_length`, characters are a covariate, and the differences between methods
    are those between texts of equal length.
    """
    what, raters = f"The mixed model{' at equal length' * at_equal_length}", wide["rater"].nunique()
    if raters < 2:
        return None, [f"{what} needs two raters or more; there is {NUMBERS[raters]}."]
    effects = [["rater", "text"], ["rater"]] if raters_per_text(wide) > 1 else [["rater"]]
    return _fit_first(what, models.mixed_model, wide, rating, [
        {"random": random, "covariates": ["characters"] * at_equal_length} for random in effects])


def describe_outcome(model: models.MixedModel) -> str:
    """Return a sentence that says what the outcome of a mixed model means, "" if it is as it should be."""
    if model.outcome == "boundary":
        none = " and ".join(f"{name}s" for name in model.variances.loc[model.variances["share"] < 1e-6, "component"])
        return f"The mixed model is at a boundary: the variance between {none} is 0. Its estimates can be used."
    return "" if model.outcome == "converged" else f"The mixed model has not converged; do not use it. {model.message}"


def _fit_first(what, function, wide, rating, tries):
    """Return (the first of the models that these ratings allow, sentences about the terms that were left out)."""
    if few := _too_few_methods(what, wide):
        return None, few
    reasons = []
    for options in tries:
        model, reason = attempt(function, wide, rating, "method", **options)
        if model:
            kept = ", ".join(["method", *options.get("covariates", []), *options.get("random", [])])
            return model, [f"{what} has only the terms {kept}: {reasons[0].rstrip('.')}."] if reasons else []
        reasons.append(reason)
    return None, left_out(what, {rating: reasons[-1]})


def with_and_without_outliers(wide: pd.DataFrame, rating: str,
                              whole: models.LinearModel | None) -> tuple[pd.DataFrame, list[str]]:
    """Return (coefficients of `whole` and of the same model without the outliers of groups.iqr_outliers, sentences)."""
    if whole is None:
        return pd.DataFrame(), ["Without a linear model of all ratings there is none without outliers."]
    kept = wide[~groups.iqr_outliers(wide, rating, "method")]
    again, sentences = fit_linear(kept, rating)
    tables = [(f"all {len(wide)}", whole), (f"{len(kept)} kept", again)]
    both = pd.concat([model.coefficients.assign(rule=rule) for rule, model in tables if model])
    columns = ["term", "rule", "estimate", "standard_error", "p"]
    return both[columns].sort_values("term", kind="stable"), sentences


# Power


def count_pairs(methods: int) -> int:
    """Return how many pairs `methods` make, at least 1: by this number the level of one comparison is divided."""
    return max(1, comb(methods, 2))


def find_detectable(wide: pd.DataFrame, rating: str,
                    level: float = 0.05) -> tuple[power.Detectable | None, list[str]]:
    """Return (the smallest shift between the first and the last method that is found with power 0.8, sentences).

    `level` is that of all pairs of methods together (Bonferroni).
    """
    wide = wide.dropna(subset=[rating])
    if few := _too_few_methods("Power", wide):
        return None, few
    sizes = wide.groupby("method").size()
    shares = wide[rating].value_counts(normalize=True).sort_index()
    if len(shares) < 2:
        return None, [f"Power is left out: every rating of {rating} is the same."]
    found, reason = attempt(power.minimal_detectable, shares.tolist(), int(sizes.iloc[0]), int(sizes.iloc[-1]),
                            level=level / count_pairs(len(sizes)),
                            points=shares.index.tolist())  # nobody need have given every point
    return found, left_out("Power", {rating: reason})


def describe_detectable(found: power.Detectable) -> str:
    """Return a sentence with the smallest difference that is found with a power of 0.8."""
    return (f"Such a study detects differences of {found.points:.2f} points or more (probability of a higher rating "
            f"{found.vda:.2f} or more).")


def power_of_study(wide: pd.DataFrame, constructs: list[str], model: models.MixedModel | None = None,
                   level: float = 0.05, seed: int = 0) -> tuple[pd.DataFrame, list[str]]:
    """Return (power of Kruskal-Wallis per construct by power.study_power, columns POWER, sentences).

    It is the power of a study with as many raters and ratings, if the methods truly differed as much as they do here.
    `model`: fit_mixed of these ratings; its share of variance of the raters is their correlation, else it is 0.
    `level`: of each test, after a correction for several. No text is simulated twice: where raters share texts, a test
    that takes this into account has less power.
    """
    if few := _too_few_methods("The power of the study", wide):
        return pd.DataFrame(columns=POWER), few
    parts = {} if model is None else dict(zip(model.variances["component"], model.variances["share"], strict=True))
    rows, reasons = [], {}
    for name in constructs:
        rated = wide.dropna(subset=[name])
        counts, raters = pd.crosstab(rated["method"], rated[name]), max(1, rated["rater"].nunique())
        shares = {method: (row / row.sum()).tolist() for method, row in counts.iterrows()}
        found, reasons[name] = attempt(power.study_power, shares, raters, max(1, round(len(rated) / raters)),
                                       parts.get("rater", 0.0), level, RESAMPLES, seed)
        if found:
            rows.append([name, found.overall.value, found.overall.low, found.overall.high])
    return pd.DataFrame(rows, columns=POWER), left_out("The power", reasons)
