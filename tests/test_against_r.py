"""Every statistic of kdutils.stats recomputed by R (against_r.R); skipped where R or one of its packages is missing.

``python -m tests.test_against_r`` prints the largest difference of every function, ``--simulate 100`` how the crossed
t test differs from lmerTest's. CONTRIBUTING.md says how R is installed.
"""

import argparse
import inspect
import json
import math
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, is_dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kdutils.stats import accuracy, agreement, calibration, error_rates, estimates, groups, models, power
from tests.test_stats import ITEMS, published

EXACT = 1e-9  # formulae; relative, below 0.001 relative to 0.001
QUADRATURE = 1e-6  # the studentised range, Shapiro and Wilk's p, quantiles of the noncentral t: two numerical routines
OPTIMISER = 1e-4  # REML
SCRIPT = Path(__file__).with_name("against_r.R")
NONE = math.nan


@dataclass(frozen=True)
class Case:
    """One call here and in R. `spread`: where both simulate, the difference that chance allows, as a value."""

    ours: partial
    r: str
    r_arguments: dict
    tolerance: float = EXACT
    spread: float = 0.0
    of: Callable | None = None  # the function of kdutils.stats, where `ours` calls it in another function

    @property
    def name(self):
        return name_of(self.of or self.ours.func)


def name_of(function):
    return f"{function.__module__.rsplit('.')[-1]}.{function.__qualname__}"


def values_of(result):
    """Return {name: numbers} of whatever a function returns; the p of a model's F is p_of_F."""
    if isinstance(result, tuple):
        return dict(zip(("value", "low", "high")[-len(result):], result, strict=True))
    if isinstance(result, pd.DataFrame):
        return result.to_dict("list")
    if not is_dataclass(result):
        return result if isinstance(result, dict) else {"value": result}
    tables = [one for one in vars(result).values() if isinstance(one, pd.DataFrame)]
    found = {"p_of_F" if tables and name == "p" else name: one for name, one in vars(result).items()}
    return {name: one for part in (found, *map(values_of, tables)) for name, one in part.items()}


def plain(value):
    """Return `value` as JSON that R reads: arrays as lists, NaN as null."""
    if isinstance(value, pd.DataFrame):
        return {name: plain(column.to_numpy()) for name, column in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def require_r():
    if not shutil.which("Rscript"):
        pytest.skip("no R: the command Rscript was not found")


def ask_r(cases, folder):
    """Return R's answers to {name: (function, arguments)}; skip where R or a package is missing."""
    require_r()
    (folder / "cases.json").write_text(json.dumps(
        {name: {"function": function, "arguments": plain(arguments)} for name, (function, arguments) in cases.items()}))
    done = subprocess.run(["Rscript", str(SCRIPT), str(folder / "cases.json"), str(folder / "results.json")],
                          capture_output=True, text=True)
    if done.returncode == 3:
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "results.json").read_text())


def differences(case, theirs):
    """Return {value: (largest difference, allowed difference)}.

    Differences are relative to R's value or, where that is below 0.001, to 0.001. What both simulate differs by
    `spread` or less.
    """
    assert "error_message" not in theirs, theirs
    ours, found = values_of(case.ours()), {}
    for name, value in theirs.items():
        mine, other = (np.array(np.ravel(one), dtype=float) for one in (ours[name], value))
        assert mine.shape == other.shape and (np.isnan(mine) == np.isnan(other)).all(), (case, name, mine, other)
        simulated = case.spread and name not in ("value", "n")
        gap = np.abs(mine - other) / (1 if simulated else np.maximum(np.abs(other), 1e-3))
        found[name] = float(np.nanmax(gap, initial=0)), case.spread if simulated else case.tolerance
    return found


# --- data


def rated(*sizes, seed=0, categories=5, rater=6):
    """Return ratings with ties and unequal groups: value, group, rater, words (a covariate) and fine (no ties)."""
    rng = np.random.default_rng(seed)
    group = np.repeat(list("abcdefgh"[:len(sizes)]), sizes)
    middle = rng.integers(0, 2, len(sizes))[np.unique(group, return_inverse=True)[1]]
    value = np.clip(rng.integers(1, categories, len(group)) + middle, 1, categories).astype(float)
    return pd.DataFrame({"value": value, "group": group, "rater": [f"r{i}" for i in rng.integers(0, rater, len(group))],
                         "words": rng.integers(3, 60, len(group)).astype(float),
                         "fine": value + rng.normal(0, 1, len(group)), "half": np.where(rng.random(len(group)) < .5,
                                                                                        "x", "y")})


TABLES = {"three groups": rated(9, 14, 6), "two small groups": rated(4, 5, seed=3),
          "five groups": rated(8, 3, 20, 11, 5, seed=4)}
GAPS = np.array([[1, 2, 3, 3, 2, 1, 4, 1, 2, NONE, NONE, NONE], [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NONE, 3],
                 [NONE, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NONE], [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NONE]]).T
WHOLE = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7.0]])
RATERS = pd.DataFrame([{"rater": f"r{r}", "item": f"i{i}", "group": "abc"[(r + i) % 3],
                        "words": float((7 * r + 3 * i) % 11)} for r in range(14) for i in range(9)])
LEVELS = [int(row.rater[1:]) % 4 / 2 + int(row.item[1:]) % 3 / 2 + 0.4 * (row.group == "b")
          for row in RATERS.itertuples()]
RATERS["value"] = np.round(np.random.default_rng(5).normal(3, 1, len(RATERS)) + LEVELS, 1)
SPARSE = RATERS.sample(70, random_state=1).sort_index()  # unbalanced, with gaps


def answers(seeds, questions, level, seed, binary=True):
    """Return a matrix (seeds, questions) whose values depend on both."""
    rng = np.random.default_rng(seed)
    scores = (level + rng.normal(0, .4, questions) + rng.normal(0, .2, (seeds, 1))
              + rng.normal(0, .5, (seeds, questions)))
    return (scores > 0) * 1.0 if binary else scores


FEW, MORE = answers(2, 9, .3, 1), answers(5, 9, .1, 2)
FINE = answers(4, 20, .3, 3, binary=False), answers(3, 20, 0, 4, binary=False)
SAME, ALIKE = np.repeat(FEW[:1], 2, axis=0), np.repeat(MORE[:1], 3, axis=0)  # seeds that do not differ
CROSSED = ((FEW, MORE), FINE, (FINE[0], FINE[1][0]), (SAME, MORE), (SAME, ALIKE))


# --- cases


def cases_of_accuracy():
    for values in ([.5, .62, .58], [.7, .71], list(np.linspace(0, 1, 30) ** 2)):
        yield Case(partial(accuracy.mean_interval, values, .9), "t_interval", {"values": values, "confidence": .9})
    for hits in (0, 12):
        bounds = {"hits": hits, "size": 12, "confidence": .95}
        same = np.full((3, 12), hits / 12)
        yield Case(partial(accuracy.bootstrap_mean, same), "binomial", bounds)
        yield Case(partial(accuracy.difference_to_chance, same, .2), "binomial", bounds | {"chance": .2})
    draws = {"resamples": 4000, "confidence": .95}
    yield Case(partial(accuracy.bootstrap_mean, FINE[0], 4000), "bootstrap_means", {"first": FINE[0], **draws},
               spread=.03)
    yield Case(partial(accuracy.bootstrap_difference, *FINE, 4000), "bootstrap_means",
               {"first": FINE[0], "second": FINE[1], **draws}, spread=.03)
    for first, second in ((FEW[0], MORE[0]), (FINE[0][0], FINE[1][0])):
        yield Case(partial(accuracy.paired_bootstrap, first, second, 4000), "bootstrap_pairs",
                   {"first": first, "second": second, **draws}, spread=.02)
    for value, second in ((0, np.ones(8)), (1, np.zeros(8))):
        yield Case(partial(accuracy.paired_bootstrap, np.ones(8), second), "constant_pairs",
                   {"value": value, "size": 8})
    for first, second in CROSSED:
        both = {"first": first, "second": second}
        yield Case(partial(accuracy.crossed_test, first, second), "crossed", both)
        test, one = accuracy.CrossedTest, accuracy.crossed_test(first, second)
        yield Case(partial(test.estimate, one, .9), "crossed_estimate", both | {"confidence": .9})
        yield Case(partial(accuracy.crossed_difference, first, second), "crossed_estimate", both | {"confidence": .95})
        yield Case(partial(test.p_equivalent, one, .1), "crossed_equivalent", both | {"margin": .1})
        yield Case(partial(test.detectable, one, .05, .8), "crossed_detectable", both | {"level": .05, "power": .8},
                   QUADRATURE)
    yield Case(partial(accuracy.crossed_difference, FINE[0][:1], FINE[1][:1]), "bootstrap_pairs",
               {"first": FINE[0][0], "second": FINE[1][0], **draws}, spread=.03)
    yield Case(partial(accuracy.difference_to_chance, MORE, .2), "crossed_estimate",
               {"first": MORE, "second": [.2] * 9, "confidence": .95})
    for first, second in ((FEW[0], MORE[0]), (FEW[0], FEW[0]), ([1] * 7 + [0] * 4, [0] * 6 + [1] * 5)):
        for method in ("exact", "mid-p", "corrected"):
            yield Case(partial(accuracy.mcnemar, first, second, method), "mcnemar",
                       {"first": first, "second": second, "method": method})


def cases_of_estimates():
    values = np.random.default_rng(0).exponential(size=37)
    yield Case(partial(estimates.percentiles, values, .9), "quantile", {"values": values, "confidence": .9})
    yield Case(partial(drawn_means, values), "normal_bootstrap", {"values": values, "resamples": 4000},
               spread=.01, of=estimates.bootstrap)
    table = TABLES["five groups"]
    for cluster in (None, "rater"):
        yield Case(partial(mean_of_clusters, table, cluster), "bootstrap_clusters",
                   {"table": table, "value": "value", "resamples": 4000, "confidence": .95}
                   | ({"cluster": cluster} if cluster else {}), spread=.06, of=estimates.widest_interval)


def drawn_means(values):
    """Return mean and standard deviation of the draws of estimates.bootstrap."""
    draws = estimates.bootstrap(lambda rows: values[rows].mean(), len(values), None, 4000, 0)
    return {"mean": draws.mean(), "sd": draws.std(ddof=1)}


def mean_of_clusters(table, cluster):
    """Return the mean of the values with estimates.widest_interval over one column of clusters, or over rows."""
    values, codes = table["value"].to_numpy(), [pd.factorize(table[cluster])[0]] if cluster else []
    found = estimates.widest_interval(lambda rows: values[rows].mean(), len(values), codes, 2000, .95, 0)
    return {"value": values.mean(), **dict(zip(("low", "high", "n"), found, strict=True))}


def cases_of_agreement():
    for level in ("nominal", "ordinal", "interval"):
        for ratings in (GAPS, WHOLE, np.array([[1, 1], [1, 2.0]])):
            if ratings is not GAPS or level != "ordinal":
                yield Case(partial(agreement.krippendorff_alpha, ratings, level, 20), "krippendorff",
                           {"ratings": ratings, "level": level})
    yield Case(partial(agreement.krippendorff_alpha, GAPS, "ordinal", 4000), "krippendorff",
               {"ratings": GAPS, "level": "ordinal", "resamples": 1000, "confidence": .95}, spread=.05)
    for ratings in (WHOLE, WHOLE[:2], np.round(WHOLE / 3)):
        of_all = {"confidence": .9}
        yield Case(partial(agreement.intraclass_correlation, ratings, .9), "icc", of_all | {"ratings": ratings})
        yield Case(partial(agreement.cronbach_alpha, ratings, .9), "cronbach", of_all | {"items": ratings})


def cases_of_calibration():
    rng = np.random.default_rng(6)
    probabilities = np.concatenate([np.round(rng.random(60), 1), rng.random(30) ** 2, [0.0, 1.0]])
    correct = (rng.random(92) < probabilities) * 1.0
    for bins, equal_mass in ((10, False), (3, False), (10, True), (4, True)):
        arguments = {"probabilities": probabilities, "correct": correct, "bins": bins, "equal_mass": equal_mass}
        yield Case(partial(calibration.calibration_bins, **arguments), "calibration", arguments)
        yield Case(partial(calibration.expected_calibration_error, **arguments), "calibration_error", arguments)


def cases_of_groups(tables=TABLES, value="value", group="group", fine="fine", half="half"):
    """Every test of groups on every table; `fine`: a column without ties; `half`: a second factor."""
    for table in tables.values():
        table = table.assign(**{group: table[group].astype(str)})
        of = {"table": table, "value": value, "group": [group]}
        yield Case(partial(groups.iqr_outliers, table, value, group), "outliers", of)
        for center in ("median", "mean"):
            yield Case(partial(groups.levene, table, value, group, center), "levene", of | {"center": center})
        yield Case(partial(groups.shapiro, table, fine, group), "normality", of | {"value": fine}, QUADRATURE)
        yield Case(partial(groups.tukey, table, value, group, .9), "tukey", of | {"confidence": .9}, QUADRATURE)
        yield Case(partial(groups.kruskal, table, value, group), "kruskal", of)
        yield Case(partial(groups.dunn, table, value, group, "holm"), "dunn",
                   of | {"correction": "holm", "confidence": .95})
        if half and (pd.crosstab(table[group], table[half]) > 0).all(axis=None):
            yield Case(partial(groups.two_way_anova, table, value, group, half), "anova_two",
                       {"table": table, "value": value, "first": group, "second": half})
        first, second = (part[value].to_numpy() for _, part in list(table.groupby(group, sort=False))[:2])
        both = {"first": first, "second": second, "confidence": .9}
        yield Case(partial(groups.vargha_delaney, first, second, .9), "stochastic",
                   {"x": first, "y": second, "confidence": .9})
        yield Case(partial(groups.mean_difference, first, second, .9), "welch", both)
        for corrected in (True, False):
            yield Case(partial(groups.standardised_difference, first, second, corrected, .9), "smd",
                       both | {"corrected": corrected}, QUADRATURE)


def cases_of_groups_alone():
    for p in ([.01, .04, .03, .005, .04], [.2], [1, 0, .5, .5]):
        for method, name in (("bonferroni", "bonferroni"), ("holm", "holm"), ("fdr_bh", "BH")):
            yield Case(partial(groups.correct_p_values, p, method), "p.adjust", {"p": p, "method": name})
        yield Case(partial(power.holm, np.array(p)), "p.adjust", {"p": p, "method": "holm"})
    for first, second in (([5, 6, 7.0], [1, 2.0]), ([3, 3.0], [3, 3, 3.0])):
        yield Case(partial(groups.vargha_delaney, first, second), "stochastic",
                   {"x": first, "y": second, "confidence": .95})
    table = TABLES["five groups"]
    for cluster in (None, "rater"):
        yield Case(partial(groups.bootstrap_interval, table, mean_of_values, cluster, 2000), "bootstrap_clusters",
                   {"table": table, "value": "value", "resamples": 4000, "confidence": .95}
                   | ({"cluster": cluster} if cluster else {}), spread=.06)


def mean_of_values(table):
    return table["value"].mean()


def cases_of_models():
    table = TABLES["five groups"]
    draws = {"table": table, "first": "value", "second": "words", "confidence": .95}
    for method in ("spearman", "kendall"):
        yield Case(partial(models.rank_correlation, table, "value", "words", method), "correlation",
                   draws | {"method": method, "resamples": 2000}, spread=.03)
    yield Case(partial(models.rank_correlation, table, "value", "words", "spearman", "rater"), "correlation",
               draws | {"method": "spearman", "cluster": "rater", "resamples": 1000}, spread=.05)
    yield Case(partial(models.rank_correlation, table, "value", "words", "kendall", None, "rater"), "correlation",
               draws | {"method": "kendall", "within": "rater", "resamples": 4000}, spread=.04)
    for table in TABLES.values():
        for covariates, reference in (([], "b"), (["words"], "a")):
            yield from model_cases(models.linear_model, "linear", table, "value", "group", [], covariates, reference)
    for table, random in ((RATERS, ["rater", "item"]), (RATERS, ["rater"]), (SPARSE, ["rater", "item"])):
        for covariates, reference in (([], "b"), (["words"], "a")):
            yield from model_cases(models.mixed_model, "mixed", table, "value", "group", random, covariates, reference)


def model_cases(function, r, table, value, group, random, covariates, reference, **more):
    arguments = {"table": table, "value": value, "group": group, "covariates": covariates, "reference": reference,
                 "confidence": .9} | ({"random": random} if random else {})
    yield Case(partial(function, **arguments), r,
               {name: one for name, one in arguments.items() if name != "covariates" or one} | more,
               OPTIMISER if random else EXACT)


def cases_of_power():
    shares = {"a": [.1, .2, .3, .4], "b": [.1, .3, .3, .3], "c": [.3, .3, .2, .2]}
    study = {"shares": shares, "raters": 10, "ratings": 9, "rater_correlation": .3, "level": .05}
    yield Case(partial(shares_found, **study), "study_power", study | {"simulations": 500}, spread=.07,
               of=power.study_power)
    for first, second in ((60, 60), (30, 90)):
        sizes = {"shares": [.1, .2, .3, .4], "first_size": first, "second_size": second, "power": .8, "level": .01}
        yield Case(partial(power.minimal_detectable, **sizes), "detectable_shift", sizes)
    yield Case(partial(shares_right, .7), "both_right", {"accuracy": .7, "shares": power.SHARES}, spread=.01,
               of=power.simulate_answers)
    experiment = {"seeds": 3, "questions": 60, "spread": .02, "shares": power.SHARES, "level": .05, "simulations": 1000}
    found = power.detectable_accuracy(3, 60, .6, .02, simulations=150)
    yield Case(partial(dict, power=.8), "power_of_accuracy", experiment | {"accuracies": [.6, .6 + found]}, spread=.1,
               of=power.detectable_accuracy)
    rates = error_rates.error_rates(3, 60, [.02] * 5, 100)
    yield Case(partial(dict, power=rates["single"]), "power_of_accuracy", experiment | {"accuracies": [.6, .6]},
               spread=.025, of=error_rates.error_rates)


def shares_found(**study):
    found = power.study_power(**study, simulations=2000)
    return {"overall": found.overall.value, "pairs": found.pairs["power"]}


def shares_right(level):
    """Return the shares of answers that are right in one seed, in two seeds, and in two methods."""
    first, second = power.simulate_answers([level, level], 2, 400_000, [0, 0], np.random.default_rng(0))
    return {"one": first[0].mean(), "seeds": (first[0] & first[1]).mean(), "methods": (first[0] & second[1]).mean()}


def cases_of_the_published_study():
    ratings = published("study_ratings_no_demographics.csv").rename(columns={"rationale_length": "length"})
    ratings["Quality"] = ratings[ITEMS].mean(axis=1)
    for item in [*ITEMS, "Quality"]:
        yield from cases_of_groups({item: ratings}, item, "model", "Quality", None)
    yield Case(partial(agreement.cronbach_alpha, ratings[ITEMS]), "cronbach",
               {"items": ratings[ITEMS].to_numpy(), "confidence": .95})
    yield Case(partial(agreement.intraclass_correlation, ratings[ITEMS]), "icc",
               {"ratings": ratings[ITEMS].to_numpy(), "confidence": .95})
    of = (ratings, "Quality", "model")
    yield from model_cases(models.linear_model, "linear", *of, [], ["length"], "CF:PosRationales")
    yield from model_cases(models.mixed_model, "mixed", *of, ["CASE"], ["length"], "CF:PosRationales")
    runs = published("experiment.csv").rename(columns={"test accuracy": "accuracy"})
    runs["method"] = runs["training_mode"] + runs["target_rationale"]
    yield from cases_of_groups({"runs": runs}, "accuracy", "method", "accuracy", "model_size")


def made_cases():
    for make in (cases_of_accuracy, cases_of_estimates, cases_of_agreement, cases_of_calibration, cases_of_groups,
                 cases_of_groups_alone, cases_of_models, cases_of_power):
        yield from make()


# A command, a check, a record, and simulations whose tests are compared one by one
NOT_COMPARED = {"error_rates.main", "power.check_shares", "accuracy.CrossedTest", "error_rates.tail_rates",
                "error_rates.bootstrap_errors", "estimates.p_text"}


def public_functions():
    """Return the names of all functions of kdutils.stats that compute something."""
    found = []
    for module in (accuracy, agreement, calibration, error_rates, estimates, groups, models, power):
        own = [one for name, one in vars(module).items() if inspect.isfunction(one) and name[0] != "_"
               and one.__module__ == module.__name__]
        found += [name_of(one) for one in own]
    methods = [one for name, one in vars(accuracy.CrossedTest).items() if inspect.isfunction(one) and name[0] != "_"]
    return [name for name in (*found, *map(name_of, methods)) if name not in NOT_COMPARED]


def compared(cases, folder):
    """Return [(case, differences)]."""
    require_r()
    cases = list(cases)
    answers = ask_r({str(place): (case.r, case.r_arguments) for place, case in enumerate(cases)}, folder)
    return [(case, differences(case, answers[str(place)])) for place, case in enumerate(cases)]


def check(comparisons):
    for case, found in comparisons:
        assert all(difference <= allowed for difference, allowed in found.values()), (case.r, case.ours, found)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return compared(made_cases(), tmp_path_factory.mktemp("r"))


@pytest.mark.parametrize("function", public_functions())
def test_r_finds_the_same(made, function):
    mine = [comparison for comparison in made if comparison[0].name == function]
    assert mine, f"no comparison of {function} with R"
    check(mine)


def test_r_finds_the_same_in_the_published_study(tmp_path):
    check(compared(cases_of_the_published_study(), tmp_path))


# --- the crossed test beside linear mixed models


def against_mixed_models(simulations, folder, seeds=4, questions=30, spreads=(.3, .6), effect=.3, kenward_roger=True):
    """Return a frame, a row per simulated pair of methods: crossed_test, lmerTest (Satterthwaite), Kenward and Roger.

    `spreads`: standard deviations between seeds, and of question and method; that of a question and of noise is 1.
    """
    rng, pairs = np.random.default_rng(0), []
    for _ in range(simulations):
        common = rng.normal(0, 1, questions)
        pairs.append([common + level + rng.normal(0, spreads[1], questions) + rng.normal(0, spreads[0], (seeds, 1))
                      + rng.normal(0, 1, (seeds, questions)) for level in (effect, 0)])
    theirs = ask_r({str(place): ("lmer_tests", {"first": first, "second": second, "kenward_roger": kenward_roger})
                    for place, (first, second) in enumerate(pairs)}, folder)
    rows = []
    for place, both in enumerate(pairs):
        ours = accuracy.crossed_test(*both)
        rows.append({"value": ours.value, "error": ours.error, "freedom": ours.freedom, "p": ours.estimate().p}
                    | {f"lmer_{name}": one for name, one in theirs[str(place)].items()})
    return pd.DataFrame(rows)


def test_the_crossed_test_is_that_of_a_mixed_model(tmp_path):
    """Where no variance is 0, the standard errors are equal. The degrees of freedom are Welch's, not pooled."""
    table = against_mixed_models(12, tmp_path, questions=20)
    table = table[table["lmer_singular"] == 0]
    assert len(table) > 6 and np.allclose(table["value"], table["lmer_value"], rtol=1e-6)
    assert np.allclose(table["error"], table["lmer_error"], rtol=1e-3)
    for p in (table["lmer_p"], table["lmer_kenward_roger_p"]):
        assert np.corrcoef(np.log(table["p"]), np.log(p))[0, 1] > .98


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.test_against_r", description=__doc__.split("\n")[0])
    parser.add_argument("--simulate", type=int, default=0, help="pairs of methods per row, beside lmerTest")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.simulate:
            print_simulations(options.simulate, Path(folder))
        else:
            print_differences(compared([*made_cases(), *cases_of_the_published_study()], Path(folder)))


def print_differences(comparisons):
    print("| function | R | cases | largest difference | allowed |\n|---|---|--:|--:|--:|")
    for function in public_functions():
        mine = [(case, one) for case, found in comparisons if case.name == function for one in found.values()]
        for allowed in sorted({allowed for _, (_, allowed) in mine if allowed < 0.01} | {1}):
            some = [(case, difference) for case, (difference, limit) in mine
                    if limit == allowed or allowed == 1 and limit >= 0.01]
            if some:
                calls, count = ", ".join(dict.fromkeys(case.r for case, _ in some)), len({id(case) for case, _ in some})
                largest = max(difference for _, difference in some)
                print(f"| {function}{', simulated' * (allowed == 1)} | {calls} | {count} | {largest:.1e} | "
                      f"{allowed if allowed < 1 else 'chance'} |")


def print_simulations(count, folder):
    print("| seeds | between seeds | clear | error | freedom | log p, Satterthwaite | log p, Kenward-Roger | p < .05: "
          "crossed, Satterthwaite, Kenward-Roger |\n|--:|--:|--:|--:|--:|--:|--:|---|")
    for seeds in (2, 3, 5, 10):
        for spread in (.1, .3):
            table = against_mixed_models(count, folder, seeds, spreads=(spread, .6))
            clear = table[table["lmer_singular"] == 0]
            error = np.abs(clear["error"] / clear["lmer_error"] - 1).max()
            freedom = (clear["freedom"] / clear["lmer_freedom"]).median()
            logs = [np.corrcoef(np.log(clear["p"]), np.log(clear[name]))[0, 1]
                    for name in ("lmer_p", "lmer_kenward_roger_p")]
            found = [(table[name] < .05).mean() for name in ("p", "lmer_p", "lmer_kenward_roger_p")]
            print(f"| {seeds} | {spread} | {len(clear)} of {count} | {error:.1e} | {freedom:.2f} | {logs[0]:.3f} | "
                  f"{logs[1]:.3f} | {', '.join(f'{one:.2f}' for one in found)} |", flush=True)


if __name__ == "__main__":
    main()
