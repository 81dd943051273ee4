"""The analysis of ratings beside simulations with a known truth and calculations by another way."""

import numpy as np
import pandas as pd
import pytest

from kdutils.human_study import analysis
from kdutils.stats.agreement import krippendorff_alpha
from kdutils.stats.estimates import bootstrap, percentiles
from kdutils.stats.groups import bootstrap_interval
from kdutils.stats.power import minimal_detectable, study_power

SHARES = [0.05, 0.1, 0.2, 0.4, 0.25]


def study(seed=0, raters=8, texts=12, methods="ab", text_sd=0.8, noise=0.5, levels=(0, 0, 0, 0)):
    """Return one row per rating of a study in which everybody rates all texts, each of one method in turn."""
    draw = np.random.default_rng(seed)
    of_text, of_rater = draw.normal(0, text_sd, texts), draw.normal(0, 0.5, raters)
    return pd.DataFrame([
        {"rater": f"r{rater}", "text": f"t{text}", "method": methods[text % len(methods)], "characters": 50 + text,
         "quality": 3 + of_text[text] + of_rater[rater] + levels[text % len(methods)] + draw.normal(0, noise)}
        for rater in range(raters) for text in range(texts)])


# Differences


def test_equal_methods_whose_raters_share_texts_are_seldom_found_to_differ(monkeypatch):
    monkeypatch.setattr(analysis, "RESAMPLES", 100)
    found = raters_alone = 0
    for seed in range(24):
        wide = study(seed)
        row = analysis.effect_sizes(wide, "quality", seed)[0].iloc[0]
        found += not row["low"] <= 0 <= row["high"]
        gap = wide.groupby(["rater", "method"])["quality"].mean().unstack()
        raters_alone += abs((gap["a"] - gap["b"]).mean()) > 2 * (gap["a"] - gap["b"]).sem()
    assert found <= 5 < 12 < raters_alone, "12 texts make a bootstrap somewhat too narrow, raters alone far too narrow"


def test_the_interval_of_a_difference_is_the_wider_of_those_over_raters_and_texts(monkeypatch):
    monkeypatch.setattr(analysis, "RESAMPLES", 100)
    wide = study(3)

    def gap(table):
        means = table.groupby("method")["quality"].mean()
        return means["a"] - means["b"]

    ends = [bootstrap_interval(wide, gap, one, 100) for one in ("rater", "text")]
    row = analysis.effect_sizes(wide, "quality")[0].iloc[0]
    assert (row["low"], row["high"]) == pytest.approx((min(one.low for one in ends), max(one.high for one in ends)))
    both = bootstrap_interval(wide, gap, ["rater", "text"], 100)
    assert both.n == 8 and both.high - both.low > ends[0].high - ends[0].low


def test_a_missing_rating_costs_no_test_of_pairs():
    wide = study(1, levels=(0, 1))
    wide.loc[[0, 7], "quality"] = np.nan
    whole, without = analysis.compare_pairs(wide.dropna(), "quality"), analysis.compare_pairs(wide, "quality")
    assert not without[1] and {"z", "p_tukey"} <= set(without[0])
    pd.testing.assert_frame_equal(without[0], whole[0])
    assert not analysis.effect_sizes(wide, "quality")[1] and not analysis.find_detectable(wide.round(), "quality")[1]


def test_a_method_that_only_writes_longer_texts_differs_but_not_at_equal_length():
    """Quality is the length alone, 0.05 points per character; texts of b are 20 characters longer on average."""
    draw, wide = np.random.default_rng(2), study(2, texts=40, text_sd=0)
    length = draw.integers(40, 80, 40) + np.tile([0, 20], 20)
    wide["characters"] = length[wide["text"].str[1:].astype(int)]
    wide["quality"] += 0.05 * wide["characters"]
    (free, said), (equal, more) = (analysis.fit_mixed(wide, "quality", one) for one in (False, True))
    rows = [one.coefficients.set_index("term").loc["b"] for one in (free, equal)]
    means = wide.groupby("method")["quality"].mean()
    assert not said + more and rows[0]["estimate"] == pytest.approx(means["b"] - means["a"]) and rows[0]["p"] < 0.001
    assert rows[1]["low"] < 0 < rows[1]["high"] and abs(rows[1]["estimate"]) < 0.3
    assert "characters" not in set(free.coefficients["term"]) and "characters" in set(equal.coefficients["term"])
    _, said = analysis.fit_mixed(wide.assign(characters=9), "quality", at_equal_length=True)
    assert len(said) == 1 and said[0].startswith("The mixed model at equal length of quality is left out: ")


# Agreement


def brute_alpha(ratings, columns):
    """Return interval alpha by its definition, over pairs of different raters; `columns`: the drawn raters."""
    within, values = [], []  # values: ((unit, rater), rating), where copies of a rater have one name
    for unit, row in enumerate(ratings):
        own = [((unit, rater), row[rater]) for rater in columns if not np.isnan(row[rater])]
        if gaps := [(x - y) ** 2 for one, x in own for other, y in own if one != other]:
            within.append(len(own) * np.mean(gaps))
            values += own
    if len(within) < 2:
        return np.nan
    between = np.mean([(x - y) ** 2 for one, x in values for other, y in values if one != other])
    return 1 - sum(within) / len(values) / between


def test_the_interval_of_alpha_over_raters_is_that_of_pairs_of_different_raters():
    draw = np.random.default_rng(0)
    ratings = draw.integers(1, 6, (9, 4)).astype(float)
    ratings[[0, 3, 5, 8], [1, 2, 0, 3]] = np.nan
    drawn = bootstrap(lambda columns: brute_alpha(ratings, columns), 4, None, 80, 5)
    ends = percentiles(drawn, 0.95)
    alone = krippendorff_alpha(ratings, "interval", 80, seed=5)
    both = krippendorff_alpha(ratings, "interval", 80, seed=5, raters=True)
    assert both.value == alone.value == pytest.approx(brute_alpha(ratings, range(4)))
    assert (both.low, both.high) == pytest.approx((min(alone.low, ends[0]), max(alone.high, ends[1]))) and both.n == 9


def test_few_strict_and_lenient_raters_make_the_interval_of_alpha_wide():
    """Of normal ratings alpha is the share of the variance that is the texts'."""
    truth, hits = 0.36 / (0.36 + 0.81 + 0.36), np.zeros(2)
    for seed in range(30):
        draw = np.random.default_rng(seed)
        ratings = draw.normal(0, 0.6, (40, 1)) + draw.normal(0, 0.9, 4) + draw.normal(0, 0.6, (40, 4))
        found = [krippendorff_alpha(ratings, "interval", 100, seed=seed, raters=raters) for raters in (False, True)]
        hits += [one.low <= truth <= one.high for one in found]
    assert hits[0] < 21 < 24 <= hits[1], hits


def test_the_interval_of_agreement_is_over_raters_too_and_two_raters_are_a_sentence():
    wide = study(4, raters=5)
    table, said = analysis.measure_agreement(wide, ["quality"])
    grid = wide.pivot(index="text", columns="rater", values="quality")
    found = krippendorff_alpha(grid, "interval", analysis.RESAMPLES, raters=True)
    assert not said and table.iloc[0][["low", "high"]].tolist() == [found.low, found.high]
    assert found.high - found.low > np.ptp(list(vars(krippendorff_alpha(grid, "interval")).values())[1:3])
    table, said = analysis.measure_agreement(wide[wide["rater"] < "r2"], ["quality"])
    assert len(table) == 1 and said == ["The interval of alpha over raters of quality is left out: an interval over "
                                        "raters needs three raters or more; there are 2."]


def test_texts_with_other_raters_each_have_the_correlation_of_one_way_alone():
    wide = study(5, raters=6)
    wide = wide[[(int(row.rater[1:]) + int(row.text[1:])) % 3 == 0 for row in wide.itertuples()]]
    table, said = analysis.correlate_two_raters(wide, "quality")
    pairs = np.array([group["quality"].tolist() for _, group in wide.groupby("text")])
    between = 2 * pairs.mean(axis=1).var(ddof=1)
    within = np.sum((pairs - pairs.mean(axis=1, keepdims=True)) ** 2) / len(pairs)
    assert not said and table["kind"].tolist() == ["ICC1", "ICC1k"]
    assert table["value"].tolist() == pytest.approx([(between - within) / (between + within), 1 - within / between])


# Power


def test_the_detectable_difference_is_that_of_the_plan_for_all_pairs():
    points = np.repeat([1, 2, 3, 4, 5], (np.array(SHARES) * 60).astype(int))
    wide = pd.DataFrame({"rater": "r", "text": range(180), "method": np.repeat(list("abc"), 60),
                         "quality": np.tile(points, 3)})
    found, said = analysis.find_detectable(wide, "quality", 0.04)
    planned = minimal_detectable(SHARES, 60, level=0.04 / 3)
    assert not said and vars(found) == pytest.approx(vars(planned)) and analysis.count_pairs(3) == 3
    assert found.points > minimal_detectable(SHARES, 60, level=0.04).points and analysis.count_pairs(1) == 1


def test_strict_raters_cost_no_power_and_a_stricter_level_does():
    shares = {"a": SHARES, "b": [0.1, 0.2, 0.25, 0.3, 0.15]}
    powers = [study_power(shares, 12, 8, correlation, simulations=600).overall.value for correlation in (0, 0.5)]
    assert powers[1] > powers[0] - 0.02, "each rates every method equally often"
    wide = study(6, raters=4, text_sd=0.2, noise=0.8, levels=(0, 0.4)).round()
    powers = [analysis.power_of_study(wide, ["quality"], level=level)[0]["power"][0] for level in (0.05, 0.05 / 7)]
    assert powers[1] < powers[0]
    wide = wide.assign(truth=wide["quality"].where(wide["rater"] < "r2"))
    table, _ = analysis.power_of_study(wide, ["truth"])
    pd.testing.assert_frame_equal(table, analysis.power_of_study(wide.dropna(), ["truth"])[0])
