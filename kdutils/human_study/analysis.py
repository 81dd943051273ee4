"""What an analysis of ratings computes, and a sentence for each part that these ratings leave without a value.

Every function takes one row per rating (`ratings.one_row_per_rating`) of any size, none included, and returns
(result, sentences): a table may be empty and a model None, and then a sentence says why.
"""

import pandas as pd

from kdutils.errors import StudyError
from kdutils.stats.accuracy import mean_interval
from kdutils.stats.agreement import cronbach_alpha, intraclass_correlation, krippendorff_alpha
from kdutils.stats.groups import correct_p_values, iqr_outliers, kruskal
from kdutils.stats.models import linear_model, mixed_model
from kdutils.stats.power import minimal_detectable

MEANS = ["method", "construct", "n", "sd", "mean", "low", "high"]
AGREEMENT = ["construct", "alpha", "low", "high", "texts"]
TESTS = ["construct", "H", "df", "p", "effect", "p_corrected"]
NUMBERS = ("none", "one")


def attempt(function, *arguments, **options):
    """Return (what `function` returns, "") or, where it raises a StudyError, (None, its words)."""
    try:
        return function(*arguments, **options), ""
    except StudyError as error:
        return None, str(error)


def say(sentences):
    """Print sentences, one a line; nothing where there are none."""
    if sentences:
        print(*sentences, sep="\n")


def left_out(what, reasons):
    """Return a sentence per reason: `what` of these names is left out; `reasons`: {name: reason or ""}."""
    names = {}
    for name, reason in reasons.items():
        if reason:
            names.setdefault(reason, []).append(str(name))
    return [f"{what} of {', '.join(those)} is left out: {reason.rstrip('.')}." for reason, those in names.items()]


def means_by_method(wide, rated):
    """Return (table with MEANS, sentences): Student's interval over ratings, none for a method with one rating."""
    rows = [{"method": method, "construct": name, "n": len(group), "sd": group[name].std(),
             **dict(zip(("mean", "low", "high"), mean_interval(group[name]), strict=True))}
            for method, group in wide.groupby("method") for name in rated]
    single = [str(method) for method, size in wide.groupby("method").size().items() if size < 2]
    sentences = [f"An interval needs two ratings; there is one of {', '.join(single)}."] if single else []
    return pd.DataFrame(rows, columns=MEANS), sentences or ([] if rows else ["There is no rating to take a mean of."])


def raters_per_text(wide):
    """Return the largest number of raters of one text, 0 without ratings."""
    return int(wide.groupby("text")["rater"].nunique().max()) if len(wide) else 0


def agreement(wide, rated, seed=0):
    """Return (Krippendorff's alpha per construct with AGREEMENT, sentences); ordinal, but interval for a mean."""
    most = raters_per_text(wide)
    if most < 2:
        return pd.DataFrame(columns=AGREEMENT), [
            f"Agreement needs at least two raters per text; there is {NUMBERS[most]}."]
    rows, reasons = [], {}
    for name in rated:
        grid = wide.pivot(index="text", columns="rater", values=name)
        alpha, reasons[name] = attempt(krippendorff_alpha, grid, "interval" if name == "quality" else "ordinal",
                                       seed=seed)
        if alpha:
            rows.append(dict(zip(AGREEMENT, (name, alpha.value, alpha.low, alpha.high, alpha.n), strict=True)))
    return pd.DataFrame(rows, columns=AGREEMENT), left_out("Krippendorff's alpha", reasons)


def two_raters(wide, rating):
    """Return (intraclass correlations of the first two raters of every text that has two, sentences)."""
    several = wide[wide.groupby("text")["rater"].transform("size") >= 2].groupby("text").head(2)
    if several["text"].nunique() < 2:
        return pd.DataFrame(), ["The intraclass correlation needs two texts or more that two people rated; there is "
                                f"{NUMBERS[several['text'].nunique()]}."]
    grid = several.assign(place=several.groupby("text").cumcount()).pivot(index="text", columns="place", values=rating)
    found, reason = attempt(intraclass_correlation, grid)
    return pd.DataFrame() if reason else found, left_out("The intraclass correlation", {rating: reason})


def reliability(wide, constructs):
    """Return (Cronbach's alpha of the constructs as a table, sentences)."""
    if len(constructs) < 2:
        return pd.DataFrame(), ["Cronbach's alpha needs two constructs or more; there is one."]
    if len(wide) < 2:
        return pd.DataFrame(), [f"Cronbach's alpha needs two ratings or more; there is {NUMBERS[len(wide)]}."]
    found, reason = attempt(cronbach_alpha, wide[constructs])
    table = pd.DataFrame([vars(found)]) if found else pd.DataFrame()
    return table, left_out("Cronbach's alpha", {"the constructs": reason})


def compare_methods(wide, rated):
    """Return (Kruskal-Wallis per construct with TESTS, p corrected by Holm over the constructs, sentences)."""
    found, reasons = {}, {}
    if wide["method"].nunique() < 2:
        return pd.DataFrame(columns=TESTS), ["A comparison needs two methods or more with ratings; there is "
                                             f"{NUMBERS[wide['method'].nunique()]}."]
    for name in rated:
        found[name], reasons[name] = attempt(kruskal, wide, name, "method")
    table = pd.DataFrame([{"construct": name, "H": test.statistic, "df": test.df, "p": test.p, "effect": test.effect}
                          for name, test in found.items() if test], columns=TESTS[:-1])
    corrected = correct_p_values(table["p"]) if len(table) else []
    return table.assign(p_corrected=corrected), left_out("Kruskal-Wallis", reasons)


def linear(wide, rating):
    """Return (stats.linear_model of rating ~ method + length, sentences); without length where it cannot be a term."""
    return _fitted("The linear model", [
        ((wide, rating, "method"), {"covariates": covariates}) for covariates in (["characters"], [])],
        linear_model)


def mixed(wide, rating):
    """Return (stats.mixed_model with raters and, where several rated one, texts as random effects, sentences)."""
    raters = wide["rater"].nunique()
    if raters < 2:
        return None, [f"The mixed model needs two raters or more; there is {NUMBERS[raters]}."]
    random = [["rater", "text"], ["rater"]] if raters_per_text(wide) > 1 else [["rater"]]
    return _fitted("The mixed model", [
        ((wide, rating, "method"), {"random": effects, "covariates": covariates})
        for effects in random for covariates in (["characters"], [])], mixed_model)


def _fitted(what, tries, function):
    """Return (the first model that these data allow, sentences on what it lacks of the first that was tried)."""
    wide, rating, _ = tries[0][0]
    if wide["method"].nunique() < 2:
        return None, [f"{what} needs two methods or more with ratings; there is {NUMBERS[wide['method'].nunique()]}."]
    reasons = []
    for arguments, options in tries:
        model, reason = attempt(function, *arguments, **options)
        if model:
            kept = ", ".join(["method", *options["covariates"], *options.get("random", [])])
            return model, [f"{what} has the terms {kept} alone: {reasons[0].rstrip('.')}."] if reasons else []
        reasons.append(reason)
    return None, left_out(what, {rating: reasons[-1]})


def with_and_without(wide, rating, whole):
    """Return (coefficients of the linear model of all ratings and of those that iqr_outliers keeps, sentences)."""
    if whole is None:
        return pd.DataFrame(), ["Without a linear model there is nothing to fit again without outliers."]
    kept = wide[~iqr_outliers(wide, rating, "method")]
    again, sentences = linear(kept, rating)
    tables = [(f"all {len(wide)}", whole), (f"{len(kept)} kept", again)]
    both = pd.concat([model.coefficients.assign(rule=rule) for rule, model in tables if model])
    columns = ["term", "rule", "estimate", "standard_error", "p"]
    return both[columns].sort_values("term", kind="stable"), sentences


def detectable(wide, rating):
    """Return (Detectable with as many ratings as the first and the last method have, or None, sentences)."""
    sizes = wide.groupby("method").size()
    if len(sizes) < 2:
        return None, [f"Power needs two methods or more with ratings; there is {NUMBERS[len(sizes)]}."]
    shares = wide[rating].value_counts(normalize=True).sort_index().tolist()
    if len(shares) < 2:
        return None, [f"Power is left out: every rating of {rating} is the same."]
    found, reason = attempt(minimal_detectable, shares, int(sizes.iloc[0]), int(sizes.iloc[-1]))
    return found, left_out("Power", {rating: reason})
