"""The analysis of any set of returned ratings: what can be computed is computed, the rest is a sentence."""

import contextlib
import io
import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from kdutils.errors import StudyError
from kdutils.human_study import analysis
from kdutils.human_study import metric_validity as validity_module
from kdutils.human_study.analysis import describe_detectable, describe_outcome
from kdutils.human_study.design import CONSTRUCTS, Study
from kdutils.human_study.forms import canonical, checksum
from kdutils.human_study.metric_validity import metric_validity, text_measures, without_validity
from kdutils.human_study.plan import draw_plan, read_plan, write_plan
from kdutils.human_study.rating_files import FORMAT
from kdutils.human_study.ratings import describe_origin, one_row_per_rating, read_ratings
from kdutils.human_study.simulated_raters import simulate_scores
from kdutils.report.ratings import show_rated
from kdutils.runs import PROJECT
from kdutils.stats.agreement import krippendorff_alpha
from kdutils.stats.groups import dunn, standardised_difference
from kdutils.stats.models import MixedModel
from kdutils.stats.power import Detectable
from tests.test_human_study import texts_for

KEY = PROJECT / "kdutils" / "mini" / "example" / "human_study" / "key"
RATED = [*CONSTRUCTS, "quality"]


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    """These tests look at which values there are, not at the width of their intervals."""
    monkeypatch.setattr(analysis, "RESAMPLES", 60)
    monkeypatch.setattr(validity_module, "RESAMPLES", 60)


def run_notebook(name, folder, **parameters):
    """Run the cells of a notebook in this process with other parameters; return (its variables, what it printed)."""
    from IPython.display import display

    cells = json.loads((PROJECT / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    variables, printed = {"display": display}, io.StringIO()
    with contextlib.redirect_stdout(printed):
        for cell in cells:
            if cell["cell_type"] == "code":
                exec(compile("".join(cell["source"]), name, "exec"), variables)
                if "parameters" in cell["metadata"].get("tags", []):
                    unknown = set(parameters) - set(variables)
                    assert not unknown, unknown
                    variables.update(parameters, output=str(folder / "run"))
    return variables, printed.getvalue()


def documents(plan, score=None):
    """Return {rater: an answer file of the form}, checks passed; `score`: (rater, text, construct) to a score."""
    found = {}
    for number, (rater, pages) in enumerate(plan.groupby("rater")):
        answers = []
        for page in pages.sort_values("position").to_dict("records"):
            scores = {name: int(page["expected"]) if page["is_check"] else 1 + (place * 7 + number * 3 + len(
                page["text"]) + ord(page["text"][0]) + ord(page["text"][1]) * place) % 5
                      for place, name in enumerate(CONSTRUCTS)}
            if score and not page["is_check"]:
                scores = {name: score(rater, page["text"], name) for name in CONSTRUCTS}
            answers.append({"position": page["position"], "text": page["text"], "scores": scores,
                            "milliseconds": 1000})
        found[rater] = {"format": FORMAT, "study": plan["study"].iloc[0], "version": plan["version"].iloc[0],
                        "task": "rating", "rater": rater, "complete": True, "signed": True, "about": {},
                        "answers": answers}
    return found


def write_documents(folder, found):
    folder.mkdir(parents=True, exist_ok=True)
    for rater, document in found.items():
        content = {name: value for name, value in document.items() if name != "checksum"}
        (folder / f"{rater}.json").write_text(json.dumps({**content, "checksum": checksum(canonical(content))}))
    return folder


def small_plan(folder, n_methods=2, raters=4, items=4, each=2):
    """Write the key of a small study and return its path and plan."""
    texts = texts_for(raters * items // (each * n_methods), n_methods)
    plan = draw_plan(Study("s"), texts, raters, items, each, checks=1).assign(version="v")
    write_plan(folder / "key", plan)
    texts.to_parquet(folder / "key" / "texts.parquet")
    return folder / "key" / "plan.parquet", plan


def nothing(folder, plan):
    folder.mkdir()


def failing(folder, plan):
    found = documents(plan)
    for document in found.values():
        for answer in document["answers"]:
            if answer["text"] in set(plan.loc[plan["is_check"], "text"]):
                answer["scores"] = {name: 1 + value % 5 for name, value in answer["scores"].items()}
    write_documents(folder, found)


def unfinished(folder, plan):
    write_documents(folder, {rater: {**document, "complete": False} for rater, document in documents(plan).items()})


def of_raters(count, **options):
    return lambda folder, plan: write_documents(folder, dict(list(documents(plan, **options).items())[:count]))


def other_plan(folder, plan):
    write_documents(folder, documents(plan.assign(study="another")))
    (folder / "a.json").write_text("no JSON")
    (folder / "b.csv").write_bytes(b"\xff\x00\x81")


CASES = {  # what came back: (sizes of the study, who writes it, a sentence of the notebook, ratings that are used)
    "nothing": ({}, nothing, "nothing came (4)", 0),
    "all fail the attention check": ({}, failing, "failed attention check (4)", 0),
    "all unfinished": ({}, unfinished, "unfinished (4)", 0),
    "another study and broken files": ({}, other_plan, "another study (4)", 0),
    "one rater": ({}, of_raters(1), "The mixed model needs two raters or more; there is one.", 4),
    "two raters": ({}, of_raters(2), "2 of 4 raters and 8 ratings are used.", 8),
    "equal ratings": ({}, of_raters(4, score=lambda *page: 4), "every rating is 4", 16),
    "one rating that differs": ({}, of_raters(4, score=lambda rater, text, name: 3 + (text < "c")), "", 16),
    "one method": ({"n_methods": 1, "items": 2}, of_raters(4), "needs two methods or more with ratings", 8),
    "one rating per text": ({"each": 1}, of_raters(4),
                            "Agreement needs at least two raters per text; there is one.", 16),
    "one page per rater": ({"items": 2, "raters": 2, "each": 1}, of_raters(2), "The mixed model", 4),
}


@pytest.mark.parametrize("case", CASES)
def test_the_notebook_ends_well_whatever_came_back(tmp_path, case):
    sizes, write, sentence, used = CASES[case]
    path, plan = small_plan(tmp_path, **sizes)
    write(tmp_path / "back", plan)
    found, printed = run_notebook("23_analyse_human_study", tmp_path, ratings=[str(tmp_path / "back")], plan=str(path))
    assert sentence in printed, printed[-3000:]
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["ratings"] == used == len(found["wide"])
    assert all(line.endswith(".") and line.isprintable() and len(line) < 400 for line in metrics["lacking"])
    assert bool(used) == bool(len(found["table"])) == ("Two ratings" in printed)
    assert r"<tbody>\n\n</tbody>" not in printed, "no empty table"


def test_without_any_part_of_the_key_but_the_plan_the_measures_are_a_sentence(tmp_path):
    path, plan = small_plan(tmp_path)
    write_documents(tmp_path / "back", documents(plan))
    other = pd.read_parquet(path.with_name("texts.parquet"))
    for broken, sentence in ((None, "no such file"), ("no Parquet", "not a readable Parquet file"),
                             (other.assign(text="other"), "texts of another plan"),
                             (other.drop(columns="gold"), "column 'gold' is missing")):
        texts = path.with_name("texts.parquet")
        texts.unlink(missing_ok=True)
        if isinstance(broken, pd.DataFrame):
            broken.to_parquet(texts)
        elif broken:
            texts.write_text(broken)
        wide = one_row_per_rating(read_ratings(tmp_path / "back", plan).ratings)
        measured, reason = analysis.attempt(text_measures, texts, wide, other.iloc[:0])
        assert measured is None and sentence in reason and str(texts) in reason
    _, printed = run_notebook("23_analyse_human_study", tmp_path, ratings=[str(tmp_path / "back")], plan=str(path))
    assert "Measures of the texts are left out: " in printed and "texts.parquet: column 'gold' is missing" in printed


def test_ratings_of_people_take_the_place_of_simulated_ones_of_an_earlier_run(tmp_path):
    path, plan = small_plan(tmp_path)
    found, printed = run_notebook("23_analyse_human_study", tmp_path, plan=str(path))
    assert found["mark"] == "SIMULATED" and len(list((tmp_path / "run" / "simulated").iterdir())) == 4
    assert "4 of 4 raters and 16 ratings are used." in printed
    write_documents(tmp_path / "back", documents(plan))
    found, _ = run_notebook("23_analyse_human_study", tmp_path, ratings=[str(tmp_path / "back")], plan=str(path))
    assert not found["mark"] and not list((tmp_path / "run" / "simulated").iterdir())
    assert describe_origin(found["found"]) == "Ratings by people."
    mixed = found["found"].assign(simulated=found["found"]["rater"] == plan["rater"].iloc[0])
    assert describe_origin(mixed).startswith("**1 of 4 raters are simulated.**")


def test_tables_of_simulated_ratings_are_marked_and_have_no_p_values(tmp_path):
    path, plan = small_plan(tmp_path)
    captions, heads = {}, {}
    for simulated in (True, False):
        written = write_documents(tmp_path / "back", documents(plan))
        _, printed = run_notebook("23_analyse_human_study", tmp_path, plan=str(path),
                                  ratings=[] if simulated else [str(written)])
        captions[simulated] = re.findall("<caption>(.*?)</caption>", printed)
        heads[simulated] = set(re.findall("<th[^>]*>(p|p_[a-z]+)</th>", printed.replace("<wbr>", "")))
        metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
        assert ("p_corrected" in metrics["kruskal"][0]) is not simulated and "H" in metrics["kruskal"][0]
        assert ("p_corrected" in pd.read_csv(tmp_path / "run" / "tests.csv")) is not simulated
        assert ("so no p value is shown" in describe_origin(pd.read_parquet(tmp_path / "run" / "ratings.parquet"))
                ) is simulated
    assert len(captions[True]) > 10 and all(caption.startswith("SIMULATED: ") for caption in captions[True])
    assert not any("SIMULATED" in caption for caption in captions[False])
    assert heads[True] == set() and heads[False] == {"p", "p_corrected"}


@pytest.mark.parametrize("parameters, message", [
    ({"ratings": ["not/there"]}, "ratings: .*not/there: no such file or folder"),
    ({"ratings": "not/there"}, "parameter 'ratings': 'not/there' is not of type list"),
    ({"ratings": [3]}, "parameter 'ratings': 3 is not of type str"),
    ({"ratings": ["a" * 3000]}, "ratings: .*no such file or folder"),
    ({"plan": ""}, "neither ratings nor a plan"), ({"plan": "not/there.parquet"}, "there.parquet: no such file"),
    ({"seed": -1}, "parameter 'seed': -1 is less than 0"), ({"seed": 2 ** 32}, "'seed': 4294967296 is more than"),
    ({"simulated_effects": {"nobody": 1}}, "'nobody' is not a method"),
    ({"simulated_effects": {"nobody": "much"}}, "'simulated_effects.nobody': 'much' is not of type float"),
    ({"explanations": "not/there.parquet"}, "there.parquet: no such file")])
def test_a_wrong_parameter_of_the_analysis_is_one_clear_line(tmp_path, parameters, message):
    with pytest.raises(StudyError, match=message) as error:
        run_notebook("23_analyse_human_study", tmp_path, **parameters)
    assert len(str(error.value)) < 400 and str(error.value).isprintable()


@pytest.mark.parametrize("parameters, message", [
    ({"n_raters": 0}, "'n_raters': 0 is less than 1"), ({"n_raters": -4}, "'n_raters': -4 is less than 1"),
    ({"n_raters": 2.5}, "'n_raters': 2.5 is not of type int"),
    ({"n_raters": "8"}, "'n_raters': '8' is not of type int"),
    ({"texts_per_method": 0}, "'texts_per_method': 0 is less"),
    ({"raters_per_text": -1}, "'raters_per_text': -1 is less"),
    ({"checks": -1}, "'checks': -1 is less than 0"), ({"checks": True}, "'checks': True is not of type int"),
    ({"answered": "zzz"}, "'answered': unknown 'zzz'; known are all_right"),
    ({"answered": []}, "'answered': unknown \\[\\]; known"), ({"task": "zzz"}, "'task': unknown 'zzz'"),
    ({"masked": "zzz"}, "'masked': unknown 'zzz'"), ({"student_seeds": "zzz"}, "'student_seeds': unknown 'zzz'"),
    ({"strata": ["zzz"]}, "'strata': unknown 'zzz'"), ({"study": "../../x"}, "'study': '../../x' is not a name of"),
    ({"study": "x" * 300}, "is not a name of at most 64"), ({"study": 2026}, "'study': 2026 is not of type str"),
    ({"ask": ["shoes"]}, "'ask': unknown 'shoes'"), ({"consent": 7}, "'consent': 7 is not of type str"),
    ({"expected": [0.5, 0.1]}, "'expected': .* shares that add up to 1"),
    ({"expected": "much"}, "'expected': 'much' is not of type list"), ({"seed": -3}, "'seed': -3 is less than 0")])
def test_a_wrong_parameter_of_the_study_is_one_clear_line(tmp_path, parameters, message):
    with pytest.raises(StudyError, match=message) as error:
        run_notebook("22_make_human_study", tmp_path, **parameters)
    assert len(str(error.value)) < 400 and str(error.value).isprintable()


def test_the_smallest_study_is_made_and_says_that_its_power_is_not_known(tmp_path):
    sizes = {"n_raters": 1, "texts_per_method": 1, "raters_per_text": 1, "checks": 0}
    _, printed = run_notebook("22_make_human_study", tmp_path, **sizes)
    assert "two ratings per group or more" in printed and (tmp_path / "run" / "form.html").is_file()
    assert "warning: return_to is empty" in printed
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["detectable_vda"] is None


def test_what_can_be_detected_and_a_boundary_are_sentences():
    assert describe_detectable(Detectable(0.6915149285710892, 0.6894, 3.2)) == (
        "Such a study detects differences of 0.69 points or more (probability of a higher rating 0.69 or more).")
    variances = pd.DataFrame({"component": ["rater", "text", "residual"], "share": [0.0, 0.2, 0.8]})
    model = MixedModel("boundary", "", pd.DataFrame(), variances, 0.0, 8)
    assert describe_outcome(model) == (
        "The mixed model is at a boundary: the variance between raters is 0. Its estimates can be used.")
    assert describe_outcome(replace(model, outcome="converged")) == ""


def test_p_values_of_a_table_are_texts(capsys):
    show_rated("", pd.DataFrame({"H": [9.0, 1.0, 2.0], "p": [1e-9, 0.0314, None], "p_corrected": [0.00099, 1.0, 0.5]}),
               "Tests", decimals=4)
    cells = re.findall("<td[^>]*>(.*?)</td>", capsys.readouterr().out)
    assert cells == ["9.0000", "&lt; 0.001", "&lt; 0.001", "1.0000", "0.031", "1", "2.0000", "–", "0.500"]
    show_rated("", pd.DataFrame(columns=["H", "p"]), "Tests")
    assert not capsys.readouterr().out, "a sentence stands for it"


def test_every_part_of_the_analysis_gives_a_value_or_a_reason():
    """Small tables of every kind: few raters, one method, equal, missing and infinite values."""
    generator = np.random.default_rng(7)

    def drawn(size):
        values = generator.integers(1, 6, size).astype(float)
        return (values, np.full(size, 4.0), np.where(generator.random(size) < 0.3, np.nan, values),
                np.where(generator.random(size) < 0.2, np.inf, values), 4 + values * 1e-16)[generator.integers(5)]

    said = 0
    for size in (0, 0, 1, 1, 2, 2, 3, 3, 4, 5, 6, 8, 10, 12):
        wide = pd.DataFrame({name: [f"{name}{place}" for place in generator.integers(0, generator.integers(1, n), size)]
                             for name, n in (("rater", 5), ("text", 8), ("method", 4))})
        wide = wide.assign(dataset="d", **{name: drawn(size) for name in ("characters", "a", "b", "quality")})
        wide = wide.drop_duplicates(["rater", "text"], ignore_index=True)
        line, mixed = analysis.fit_linear(wide, "quality"), analysis.fit_mixed(wide, "quality")
        validity = metric_validity(wide, "quality")
        for found, sentences in (
                analysis.means_by_method(wide, ["a"]), analysis.measure_agreement(wide, ["a", "quality"]),
                analysis.correlate_two_raters(wide, "quality"), analysis.measure_reliability(wide, ["a", "b"]),
                analysis.compare_methods(wide, ["a", "b"]), line, mixed,
                analysis.with_and_without_outliers(wide, "quality", line[0]), analysis.find_detectable(wide, "a"),
                analysis.compare_pairs(wide, "quality"), analysis.analyse_variance(wide, "quality"),
                analysis.check_assumptions(wide, "quality"), analysis.effect_sizes(wide, "quality"),
                analysis.power_of_study(wide, ["a", "b"], mixed[0]),
                (validity, without_validity(wide, validity))):
            there = found is not None and bool(len(found) if isinstance(found, pd.DataFrame) else True)
            assert there or sentences
            assert all(line.endswith(".") and line[0].isupper() for line in sentences), sentences
            said += len(sentences)
    assert said > 50


def test_normal_ratings_are_analysed_in_full_and_nothing_is_said():
    plan = read_plan(KEY / "plan.parquet")
    scores = simulate_scores(plan, seed=3)
    wide = scores.merge(plan[~plan["is_check"]], on=["rater", "text", "position"])
    wide["quality"] = wide[list(CONSTRUCTS)].mean(axis=1)
    line, mixed = analysis.fit_linear(wide, "quality"), analysis.fit_mixed(wide, "quality")
    parts = [analysis.means_by_method(wide, RATED), analysis.measure_agreement(wide, RATED),
             analysis.correlate_two_raters(wide, "quality"), analysis.measure_reliability(wide, list(CONSTRUCTS)),
             analysis.compare_methods(wide, RATED), line, analysis.with_and_without_outliers(wide, "quality", line[0]),
             mixed, analysis.find_detectable(wide, "plausibility"), analysis.compare_pairs(wide, "quality"),
             analysis.analyse_variance(wide, "quality"), analysis.check_assumptions(wide, "quality"),
             analysis.effect_sizes(wide, "quality"), analysis.power_of_study(wide, list(CONSTRUCTS), mixed[0])]
    assert [sentences for _, sentences in parts] == [[]] * len(parts)
    alpha = parts[1][0].set_index("construct").loc["quality"]
    grid = wide.pivot(index="text", columns="rater", values="quality")
    assert alpha["alpha"] == krippendorff_alpha(grid, "interval").value
    assert len(parts[4][0]) == len(RATED) and parts[7][0].outcome in ("converged", "boundary")
    assert set(parts[7][0].variances["component"]) == {"rater", "text", "residual"}
    assert list(parts[12][0].columns) == analysis.EFFECT_SIZES and len(parts[12][0]) == len(parts[9][0]) == 1
    assert list(parts[13][0]["construct"]) == list(CONSTRUCTS) and parts[13][0]["power"].between(0, 1).all()


def test_what_equal_ratings_leave_is_no_correlation():
    """Within methods nothing is left of ratings that are equal there; the last bits of a mean are no ratings."""
    generator = np.random.default_rng(0)
    method = np.repeat(["a", "b", "c"], 40)
    table = pd.DataFrame({"rater": [f"r{place % 8}" for place in range(120)], "method": method,
                          "text": [f"t{place}" for place in range(120)],
                          "quality": pd.Series(method).map({"a": 4.2, "b": 3.3, "c": 2.1}).to_numpy() * np.tile(
                              [1, 1 + 2e-16], 60), "words": generator.integers(5, 40, 120)})
    found = metric_validity(table, "quality")
    assert list(found["scope"]) == ["all"]
    assert without_validity(table.assign(characters=7), found)[0].startswith("No correlation with characters: ")


def test_pairs_variance_and_power_by_other_routes():
    """Three methods that differ by known amounts, six raters with four ratings of each, two data sets."""
    generator = np.random.default_rng(3)
    wide = pd.DataFrame([{"rater": f"r{rater}", "method": method, "dataset": f"d{rating % 2}",
                          "text": f"{rater}{rating}",
                          "quality": float(np.clip(round(level + generator.normal(0, 0.7)), 1, 5))}
                         for rater in range(6) for method, level in (("a", 2), ("b", 3), ("c", 4))
                         for rating in range(4)])
    pairs, said = analysis.compare_pairs(wide, "quality")
    means = wide.groupby("method")["quality"].mean()
    assert not said and pairs["difference"].tolist() == pytest.approx(
        [means["a"] - means["b"], means["a"] - means["c"], means["b"] - means["c"]])
    assert pairs["z"].tolist() == dunn(wide, "quality", "method")["z"].tolist() and (pairs["p_tukey"] < 0.01).all()
    sizes, said = analysis.effect_sizes(wide, "quality")
    assert not said and sizes["difference"].tolist() == pytest.approx(pairs["difference"].tolist())
    assert (sizes["low"] < sizes["difference"]).all() and (sizes["difference"] < sizes["high"]).all()
    values = {name: group["quality"] for name, group in wide.groupby("method")}
    assert sizes["g"].tolist() == [standardised_difference(values[a], values[b]).value for a, b in ("ab", "ac", "bc")]
    table, said = analysis.analyse_variance(wide, "quality")
    assert not said and list(table["source"]) == ["method", "dataset", "method × dataset"] and table["p"][0] < 1e-6
    table, _ = analysis.analyse_variance(wide[wide["dataset"] == "d0"], "quality")
    assert list(table["source"]) == ["method", "rater", "method × rater"], "one data set: does it depend on the rater"
    power, said = analysis.power_of_study(wide, ["quality"])
    assert not said and power["power"][0] > 0.9
    alike = wide.assign(quality=wide["text"].map(lambda text: 1.0 + int(text[-1])))
    assert analysis.power_of_study(alike, ["quality"])[0]["power"][0] < 0.25, "methods do not differ: the level"
    one, said = analysis.effect_sizes(wide[(wide["method"] == "a") | (wide["rater"] == "r0")], "quality")
    assert one["low"].isna().tolist() == [False, False, True], "one person alone rated b and c"
    assert len(said) == 1 and said[0].startswith("The difference of b and c is left out: ")
    single, said = analysis.effect_sizes(wide[wide["rater"] == "r0"], "quality")
    assert single["low"].isna().all() and len(said) == 1 and said[0].startswith("The difference of a and b, a and c")
