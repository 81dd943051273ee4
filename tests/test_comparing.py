"""The comparison of an experiment: folders of known runs, differences by hand, and sentences that claim no more."""

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from kdutils.comparison import answer, contrasts, errors, hypotheses, published_accuracies, runs_table, summary, tables
from kdutils.data.tables import write_table
from kdutils.errors import StudyError
from kdutils.evaluation.accuracy import correct_matrix
from kdutils.report.figures import accuracy_against_measure, difference_intervals, heat_map
from kdutils.results import document, keeping
from kdutils.runs import read_json
from kdutils.stats.accuracy import (
    RESAMPLES,
    CrossedTest,
    crossed_difference,
    crossed_test,
    difference_to_chance,
    mcnemar,
    paired_bootstrap,
)
from kdutils.stats.groups import correct_p_values
from kdutils.student.methods import METHODS

PROJECT = Path(__file__).resolve().parents[1]
CONTROL_OF = {name: method.control_of for name, method in METHODS.items()}
CHOICES = ["ant", "bee", "cow", "dog", "elk"]
SIZE = 40


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


class World:
    """Folders of an invented experiment below `root`, written as notebooks 21 and 1x write them."""

    def __init__(self, root, size=SIZE):
        self.root, self.size, self.evaluations, self.trainings = root, size, [], []
        self.ids = [f"q{number:03d}" for number in range(size)]
        for dataset in ("small", "other", "cqa"):
            write_table(pd.DataFrame([{
                "id": key, "split": "test", "question": f"Which animal is number {number} in the {dataset} zoo?",
                "choices": CHOICES, "answer": CHOICES[number % 5], "human_explanations": []}
                for number, key in enumerate(self.ids)]), self.questions(dataset), "questions")
        for name, ending in (("few_shot", ""), ("critique_revision", " It is not a bee or a cow.")):
            write_table(pd.DataFrame([{
                "id": key, "stage": "rationale", "round": 0, "answer": CHOICES[number % 5],
                "text": f"The {CHOICES[number % 5]} lives there.{ending}", "raw": "", "changes": [], "problem": "",
                "finish_reason": "stop", "prompt_tokens": 9, "completion_tokens": 5}
                for number, key in enumerate(self.ids)]), root / f"{name}.parquet", "explanations")

    def questions(self, dataset):
        return self.root / f"questions_{dataset}.parquet"

    def add(self, method, prompting="few_shot", right=(20,), failed=(), dataset="small", tested_on="", student="tiny",
            model="kdutils/mini/student", las=None, words=6, explains=True, exact=None, kind=None, gain=None,
            **settings):
        """Add a training and its evaluation: seed i answers the first ``right[i]`` questions, or those listed."""
        teacher, prompting = ("-", "-") if method == "label_only" else ("llama", prompting)
        labels = {"dataset": dataset, "teacher": teacher, "prompting": prompting, "method": method, "student": student}
        below = f"{dataset}/{teacher}/{prompting}/{method}/{student}"
        seeds = [seed for seed in range(len(right) + len(failed)) if seed not in failed]
        records = {str(seed): {"effective_batch": 16, "epochs": 2.0, "steps": 12, "questions": 96, "target_tokens": 900,
                               "model_parameters": 610336} for seed in seeds}
        records |= {str(seed): {"failed": "loss is nan at step 7"} for seed in failed}
        train = self.root / "students" / below
        write(train / "metrics.json", {"labels": labels, "method": kind or method, "seeds": records})
        write(train / "costs.json", {str(seed): {"seconds": 2.0 + seed, "peak_memory_mib": 600} for seed in seeds})
        write(train / "run.json", {"parameters": {"model": model, "random_weights": False, "config": {}, **settings}})
        if str(train) not in self.trainings:
            self.trainings.append(str(train))
        folder = self.root / "evaluations" / (below + (f"/{tested_on}" if tested_on else ""))
        tables = [self._predictions(seed, some, explains) for seed, some in zip(seeds, right, strict=True)]
        predictions = write_table(pd.concat(tables), folder / "predictions.parquet", "predictions")
        table = pd.read_parquet(predictions)
        metrics = {
            "labels": labels | ({"tested_on": tested_on} if tested_on else {}),
            "accuracy": {"chance": 0.2}, "calibration_error": 0.1,
            "seeds": {str(seed): {"accuracy": float(part["correct"].mean()),
                                  "exact": exact[place] if exact else float(part["exact"].mean()), "unread": 0.0,
                                  "no_choice": 0.25, "likelihood": 0.5, "per_token": 0.5}
                      for place, (seed, part) in enumerate(table.groupby("seed"))},
            "explanations": [{"seed": seed, "words": words + seed, "rouge_l_teacher": 0.4 + seed / 100,
                              "distractors": 0.1, "bertscore_human": None} for seed in seeds] if explains else [],
            "attribution_overlap": [] if gain is None else [
                {"seed": seed, "attributed": self.size // 2, "overlap": 0.3 + gain, "overlap_random": 0.3,
                 "overlap_gain": gain, "overlap_gain_other": None, "low": None, "high": None} for seed in seeds],
            "simulatability": [{"seed": seed, "simulated": 30, "las": value, "qbe": 0.0, "leaking": 0.5}
                               for seed, value in zip(seeds, las, strict=False)] if las else [],
            "probes": [{"seed": seed, "probe": "wrong", "questions": 9, "accuracy": 0.3, "asserted answer given": 0.6}
                       for seed in seeds] if method == "counterfactual" else []}
        write(folder / "metrics.json", metrics)
        texts = "" if method == "label_only" else str(self.root / f"{prompting}.parquet")
        write(folder / "run.json", {"parameters": {"questions": str(self.questions(tested_on or dataset)),
                                                   "explanations": texts, "students": str(train)}})
        if explains:
            scores = table[["id", "seed"]].assign(words=words + table["seed"] % 2 + np.arange(len(table)) % 3,
                                                  rouge_l_teacher=0.4 + np.arange(len(table)) % 7 / 50)
            scores.to_csv(folder / "explanation_scores.csv", index=False)
            if gain is not None:  # every second text was attributed
                shares = {"overlap": 0.3, "overlap_random": 0.3, "overlap_gain_other": 0.0}
                table[["id", "seed"]].assign(**shares, overlap_gain=gain + np.arange(len(table)) % 3 / 100)[::2].to_csv(
                    folder / "attribution_overlap.csv", index=False)
        else:
            (folder / "explanation_scores.csv").write_text("\n")
        self.evaluations.append(str(folder))
        return self

    def _predictions(self, seed, right, explains):
        right = set(range(right)) if isinstance(right, int) else set(right)
        return pd.DataFrame([{
            "id": key, "split": "test", "seed": seed, "answer": CHOICES[place % 5], "generated": "",
            "predicted": CHOICES[(place + (place not in right)) % 5], "correct": place in right,
            "exact": place in right, "explanation": f"It is {CHOICES[place % 5]} <b>." if explains else "",
            "scores": [-1.0] * 5, "score_tokens": [1] * 5} for place, key in enumerate(self.ids)])

    def read(self, missing=()):
        runs, predictions = runs_table.read_evaluations(self.evaluations, self.trainings, missing, CONTROL_OF)
        return runs, predictions, tables.accuracy_table(runs, predictions)

    def tests(self, tested=(), more=None, **settings):
        _, predictions, _ = self.read()
        return hypotheses.run_tests(predictions, runs_table.read_scores(self.evaluations),
                                    runs_table.read_measures(self.evaluations), tested, more, **settings)


def not_reached(method, student, *seeds, teacher="llama", prompting="few_shot"):
    """Return an entry of `missing` as an experiment gives it."""
    labels = {"dataset": "small", "teacher": teacher, "prompting": prompting, "method": method, "student": student}
    return {"folder": f"outputs/x/evaluations/{method}/{student}", "labels": labels, "seeds": list(seeds)}


def spread(*counts, rng):
    """Return per seed a random set of as many right questions."""
    return tuple(sorted(rng.choice(SIZE, count, replace=False).tolist()) for count in counts)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Methods, promptings, three seeds, one failed, a control, a transfer: every branch of the comparison."""
    world, rng = World(tmp_path_factory.mktemp("study")), np.random.default_rng(3)
    world.add("label_only", right=spread(18, 20, 19, rng=rng), explains=False)
    world.add("multitask", right=(36, 35, 37), las=(0.11, 0.12, 0.14), gain=0.1)
    world.add("multitask", "critique_revision", right=(35, 36, 36), las=(0.30, 0.33, 0.31), words=14,
              gain=0.2)
    world.add("shuffled", right=spread(19, 21, 20, rng=rng), las=(0.0, 0.01, -0.02))
    world.add("standard", right=spread(22, 20, rng=rng), failed=(2,), las=(0.05, 0.02))
    world.add("counterfactual", right=(2, 1, 1), las=(0.4, 0.2, 0.3))
    world.add("multitask", right=(12, 13, 10), tested_on="other", las=(0.02, 0.0, 0.01))
    return world


@pytest.fixture(scope="module")
def tests(study):
    return study.tests(["words", "las"])


# --- one difference


def test_a_difference_over_seeds_and_questions_by_hand():
    first = np.array([[1, 1, 1, 0], [1, 0, 0, 0.0]])
    second = np.array([[0, 1, 0, 0], [0, 0, 0, 1.0]])
    found = crossed_difference(first, second)
    of_questions = np.var([1, 0, 0.5, -0.5], ddof=1) / 4
    # Seed means .75 and .25; beside rows and columns every answer of the first is .25 off: 8 · .0625 on 3 degrees.
    # The second method's seeds have equal means, and four answers are .5 off: 4 · .25 on 3 degrees.
    seeds, noise = 0.125 / 2, (0.5 + 1) / 3 / 4 / 2
    parts = [(of_questions - noise, 3), (max(seeds, noise), 1)]
    total = sum(part for part, _ in parts)
    freedom = total ** 2 / sum(part ** 2 / df for part, df in parts)
    t = 0.25 / np.sqrt(total)
    assert found.value == 0.25 and found.n == 4
    assert found.p == pytest.approx(2 * scipy_stats.t.sf(t, freedom))
    assert found.high - found.value == pytest.approx(scipy_stats.t.ppf(0.975, freedom) * np.sqrt(total))


@pytest.mark.parametrize("freedom", [1, 2, 3.5, 40])
def test_the_detectable_difference_is_found_as_often_as_it_says(freedom):
    """T = (Z + shift) / c, c = sqrt(chi² / freedom): the mean over c of P(Z > far · c - shift) is the power."""
    found = CrossedTest(0.0, 2.0, freedom, 10).detectable(0.01, 0.8) / 2  # in standard errors
    spread = np.sqrt(scipy_stats.chi2.ppf((np.arange(100_000) + 0.5) / 100_000, freedom) / freedom)
    far = scipy_stats.t.ppf(0.995, freedom)
    assert scipy_stats.norm.sf(far * spread - found).mean() == pytest.approx(0.8, abs=1e-6)
    shortcut = far + scipy_stats.t.ppf(0.8, freedom)
    assert found > 1.1 * shortcut if freedom < 3 else found == pytest.approx(shortcut, rel=0.1)


def test_seeds_that_agree_leave_the_paired_t_test_of_the_questions():
    rng = np.random.default_rng(0)
    first, second = (rng.random((1, 60)) < 0.6) * 1.0, (rng.random((1, 60)) < 0.4) * 1.0
    found = crossed_difference(np.repeat(first, 3, axis=0), np.repeat(second, 3, axis=0))
    assert found.p == pytest.approx(scipy_stats.ttest_rel(first[0], second[0]).pvalue)


def test_one_seed_is_the_bootstrap_over_questions_and_two_students_that_never_differ_the_exact_one():
    rng = np.random.default_rng(1)
    first, second = (rng.random((2, 50)) < 0.5) * 1.0
    found = crossed_difference(first[None], second[None])
    assert found == paired_bootstrap(first, second, RESAMPLES)
    same = crossed_difference(np.ones((3, 20)), np.ones((2, 20)))
    assert same.value == 0 and same.p == 1 and same.low < 0 < same.high
    with pytest.raises(StudyError, match="not the same questions: 20 and 19"):
        crossed_difference(np.ones((3, 20)), np.ones((3, 19)))


def test_equal_methods_differ_significantly_about_as_often_as_the_level_says():
    rng, found = np.random.default_rng(5), []
    for _ in range(400):
        skill = rng.normal(0, 1, 60)
        both = [(skill + rng.normal(0, 0.3, 60) + rng.normal(0, 0.3, (3, 1)) + rng.normal(0, 0.3, (3, 60)) > 0) * 1.0
                for _ in range(2)]
        found.append(crossed_difference(*both).p)
    assert scipy_stats.binomtest(int(np.sum(np.array(found) < 0.05)), 400, 0.05).pvalue > 0.01


def test_chance_is_tested_exactly_where_nothing_is_right():
    found = difference_to_chance(np.zeros((2, 30)), 0.2)
    assert found.p == pytest.approx(scipy_stats.binomtest(0, 30, 0.2).pvalue) and found.value == -0.2
    assert found.low == pytest.approx(-0.2) and found.high == pytest.approx(1 - 0.025 ** (1 / 30) - 0.2)
    some = difference_to_chance(np.array([[1, 1, 0, 1, 0, 1.0], [1, 1, 0, 1, 1, 1]]), 0.2)
    assert some.value == pytest.approx(9 / 12 - 0.2) and some.p < 0.05


# --- reading


def test_every_run_stays_in_the_table_with_its_state(study):
    runs, predictions, accuracies = study.read([
        not_reached("combined", "tiny", 0, 1), "elsewhere",
        not_reached("label_only", "big", 2, teacher="-", prompting="-")])
    states = runs.groupby(["method", "state"]).size().to_dict()
    assert states["standard", "failed: loss is nan at step 7"] == 1 and states["standard", "done"] == 2
    assert states["combined", "missing"] == 2 and states["label_only", "missing"] == 1
    assert states["counterfactual", "below chance"] == 3 and states["multitask", "done"] == 9
    assert runs.loc[runs["state"] == "missing", "accuracy"].isna().all() and len(runs) == 21 + 3
    lost = runs[runs["state"] == "missing"]
    assert lost["seed"].tolist() == [0, 1, 2] and set(lost["tested_on"]) == {"small"}
    assert lost["name"].tolist() == ["combined (few_shot)"] * 2 + ["label_only"]
    by_method = accuracies[accuracies["prompting"] != "critique_revision"].set_index("method")
    assert by_method.loc["standard", ["n_seeds", "n_failed"]].tolist() == [2, 1]
    assert by_method.loc["combined", ["n_seeds", "n_failed"]].tolist() == [0, 2]
    assert np.isnan(by_method.loc["combined", "mean"]) and len(predictions) == 20 * SIZE


def test_accuracy_of_cells_by_hand(study):
    _, _, accuracies = study.read()
    row = accuracies[(accuracies["method"] == "multitask") & (accuracies["prompting"] == "few_shot")
                     & (accuracies["tested_on"] == "small")].iloc[0]
    assert row["mean"] == pytest.approx((36 + 35 + 37) / 3 / SIZE) and row["low"] < row["mean"] < row["high"]
    assert row["sd"] == pytest.approx(1 / SIZE) and row["n_questions"] == SIZE and row["chance"] == 0.2
    assert row["likelihood"] == 0.5 and row["calibration_error"] == pytest.approx(0.1)


def test_exact_match_and_f1_of_short_answers_are_means_of_the_seeds_that_have_them(tmp_path):
    world = World(tmp_path).add("label_only", right=(18, 20), explains=False).add("multitask", right=(36, 35))
    [path] = tmp_path.glob("evaluations/**/label_only/**/metrics.json")
    metrics = read_json(path)
    for seed, (exact, f1) in {"0": (0.25, 0.5), "1": (0.75, 0.75)}.items():
        metrics["seeds"][seed] |= {"exact_match": exact, "f1": f1}
    write(path, metrics)
    table = world.read()[2].set_index("method")
    assert list(table.loc["label_only", ["exact_match", "f1"]]) == [0.5, 0.625]
    assert table.loc["multitask", ["exact_match", "f1"]].isna().all()
    assert "exact_match" not in World(tmp_path / "no").add("label_only", explains=False).read()[2]


def test_an_experiment_without_any_finished_seed_is_an_error(tmp_path):
    world = World(tmp_path).add("multitask", right=(20,))
    folder = Path(world.evaluations[0])
    write(folder / "metrics.json", json.loads((folder / "metrics.json").read_text()) | {"seeds": {}})
    with pytest.raises(StudyError, match="at least one evaluation with a result"):
        world.read()


def test_a_method_of_another_name_is_compared_as_what_it_is(tmp_path):
    world = World(tmp_path).add("mine", right=(30, 31), kind="multitask").add("shuffled", right=(29, 30))
    tests = world.tests()
    assert set(hypotheses.with_control(tests, {})["first"]) == {"mine (few_shot)"}


def test_controls_are_those_of_the_methods_table(tmp_path):
    controls = {name: method for name, method in CONTROL_OF.items() if method}
    assert {name for name, method in METHODS.items() if method.control} | {"untagged"} == set(controls)
    assert set(controls.values()) | {runs_table.BASELINE} <= set(METHODS)
    world = World(tmp_path)
    for method in ("label_only", *controls, *controls.values()):
        world.add(method, right=(20, 22), explains=method != "label_only")
    _, predictions, _ = world.read()
    assert predictions.groupby("method")["control_of"].unique().map(list).to_dict() == {
        method: [CONTROL_OF[method]] for method in set(predictions["method"])}
    tests = world.tests()
    pairs = hypotheses.with_control(tests, {})[["first", "second"]]
    assert dict(zip(pairs["second"].str.removesuffix(" (few_shot)"), pairs["first"].str.removesuffix(" (few_shot)"),
                    strict=True)) == controls
    unknown, _ = runs_table.read_evaluations(world.evaluations)[::-1]
    assert set(unknown["control_of"]) == {""}


# --- which comparisons, and their correction


def test_the_comparisons_of_a_study_are_these(study, tests):
    found = {(row.comparison, row.measure, row.first, row.second) for row in tests.itertuples()}
    explained = {"multitask (few_shot)", "multitask (critique_revision)", "shuffled (few_shot)", "standard (few_shot)",
                 "counterfactual (few_shot)"}
    plain, revised = "multitask (few_shot)", "multitask (critique_revision)"
    primary = tests[tests["family"] == "primary"]
    assert list(zip(primary["question"], primary["first"], primary["second"], strict=True)) == [
        ("explaining", plain, "label_only"), ("content", plain, "shuffled (few_shot)"), ("revision", revised, plain),
        ("counterfactual", plain, "counterfactual (few_shot)")]
    assert {item for item in found if item[0] == "label_only"} == {
        ("label_only", "accuracy", name, "label_only") for name in explained - {plain}}
    assert not [item for item in found if item[0] == "control"]
    assert {item[2:] for item in found if item[0] == "methods"} == {
        (plain, "standard (few_shot)"), ("standard (few_shot)", "counterfactual (few_shot)")}
    assert {item[1:] for item in found if item[0] == "revision"} == {
        (measure, revised, plain) for measure in ("words", "las")}
    assert {item[2] for item in found if item[0] == "chance"} == explained | {"label_only"}
    assert {item[2] for item in found if item[0] == "las"} == explained
    assert set(tests["dataset"]) == {"small"} and len(tests) == 4 + 4 + 2 + 2 + 6 + 5


def test_differences_are_those_of_the_means_and_each_family_is_corrected_by_itself(study, tests):
    row = tests[(tests["question"] == "explaining") & (tests["first"] == "multitask (few_shot)")].iloc[0]
    assert row["difference"] == pytest.approx((36 + 35 + 37 - 18 - 20 - 19) / 3 / SIZE)
    assert row["n_seeds"] == 3 and row["n_questions"] == SIZE and row["test"] == "t over seeds and questions"
    assert len(row["mcnemar"]) == 3
    las = tests[(tests["comparison"] == "revision") & (tests["measure"] == "las")].iloc[0]
    expected = scipy_stats.ttest_ind((0.30, 0.33, 0.31), (0.11, 0.12, 0.14), equal_var=False)
    assert las["p"] == pytest.approx(expected.pvalue) and las["difference"] == pytest.approx(0.94 / 3 - 0.37 / 3)
    zero = tests[(tests["comparison"] == "las") & (tests["first"] == "multitask (few_shot)")].iloc[0]
    assert zero["p"] == pytest.approx(scipy_stats.ttest_1samp((0.11, 0.12, 0.14), 0).pvalue)
    families = {name: part for name, part in tests[tests["p"].notna()].groupby("family")}
    assert {name: len(part) for name, part in families.items()} == {"primary": 4, "exploratory": 13, "plausibility": 6}
    for name, method in (("primary", "holm"), ("exploratory", "fdr_bh")):
        assert np.allclose(families[name]["p_corrected"], correct_p_values(families[name]["p"], method))
    assert families["plausibility"]["p_corrected"].equals(families["plausibility"]["p"])
    smallest = families["primary"].sort_values("p").iloc[0]
    assert smallest["p_corrected"] == pytest.approx(min(1, 4 * smallest["p"]))
    less = study.tests(["unheard_of"])
    assert less["p_corrected"].iloc[0] == tests["p_corrected"].iloc[0] and set(less["measure"]) == {"accuracy"}


def test_intervals_of_primary_contrasts_hold_together_and_small_differences_are_a_finding(study, tests):
    named = runs_table.add_names(study.read()[1].query("tested_on == 'small'"))
    matrices = {name: correct_matrix(part) for name, part in named.groupby("name")}
    row = tests[tests["question"] == "content"].iloc[0]
    both = matrices[row["first"]], matrices[row["second"]]
    assert (row["low"], row["high"]) == pytest.approx((lambda e: (e.low, e.high))(
        crossed_difference(*both, 1 - 0.05 / 4)))
    test = crossed_test(*both)
    assert row["detectable"] == test.detectable(0.05 / 4)
    one_sided = max(scipy_stats.t.sf((test.value + 0.02) / test.error, test.freedom),
                    scipy_stats.t.cdf((test.value - 0.02) / test.error, test.freedom))
    assert test.p_equivalent(0.02) == pytest.approx(one_sided)
    assert tests.loc[tests["family"] != "primary", "p_equivalent"].isna().all()


def test_primary_contrasts_can_be_written_out_and_are_six_at_most(tmp_path):
    world = World(tmp_path).add("label_only", right=(20, 21), explains=False)
    for method in ("standard", "multitask", "shuffled", "counterfactual", "combined", "token_rationale",
                   "random_tokens"):
        world.add(method, right=(22, 23))
    world.add("multitask", "critique_revision", right=(22, 25))
    cells = world.read()[1]
    found = contrasts.primary_contrasts(cells, list(contrasts.QUESTIONS))
    assert [(question, first[4], second[4]) for question, first, second in found] == [
        ("explaining", "multitask", "label_only"), ("explaining", "combined", "label_only"),
        ("content", "multitask", "shuffled"), ("content", "token_rationale", "random_tokens"),
        ("revision", "multitask", "multitask"), ("counterfactual", "multitask", "counterfactual")]
    written = ["standard (few_shot) minus label_only", "label_only minus standard (few_shot)", "content"]
    assert [(first[4], second[4]) for _, first, second in contrasts.primary_contrasts(cells, written)] == [
        ("standard", "label_only"), ("multitask", "shuffled"), ("token_rationale", "random_tokens")]
    [(question, *_), *_] = contrasts.primary_contrasts(cells, ["multitask (few_shot) minus shuffled (few_shot)"])
    assert question == "content", "a control that is written out is still known as one"
    with pytest.raises(StudyError, match="primary: 'standard minus label_only' is neither one of explaining"):
        contrasts.primary_contrasts(cells, ["standard minus label_only"])
    more = ["content", *(f"{method} (few_shot) minus label_only" for method in (
        "standard", "multitask", "combined", "shuffled", "token_rationale"))]
    with pytest.raises(StudyError, match="primary: 7 contrasts of small, tiny; at most 6 are tested as planned ones, so"
                                         " leave 1 out"):
        contrasts.primary_contrasts(cells, more)


def test_a_contrast_with_a_student_without_a_result_is_no_reason_to_stop(tmp_path):
    world = World(tmp_path).add("label_only", right=(20, 21), explains=False).add("multitask", right=(22, 23))
    _, predictions, _ = world.read()
    wanted = ["explaining", "multitask (few_shot) minus standard (few_shot)"]
    assert [first[4] for _, first, _ in contrasts.primary_contrasts(predictions, wanted, ["standard (few_shot)"])] == [
        "multitask"]
    primary = world.tests(primary=wanted, known=["standard (few_shot)"]).query("family == 'primary'")
    assert primary["question"].tolist() == ["explaining"]
    with pytest.raises(StudyError, match="neither one of explaining"):
        world.tests(primary=wanted)


def test_a_control_is_compared_with_the_method_of_its_own_settings(tmp_path):
    world = World(tmp_path).add("label_only", right=(20, 21), explains=False)
    world.add("soft_multitask", right=(30, 31), las=(0.30, 0.31)).add("soft_shuffled", right=(22, 23), las=(0.0, 0.1))
    world.add("mixed", right=(33, 34), kind="soft_multitask", hard=0.5, las=(0.30, 0.31))
    world.add("mixed_shuffled", right=(25, 26), kind="soft_shuffled", hard=0.5, las=(0.28, 0.29))
    pairs = {("soft_multitask", "soft_shuffled"), ("mixed", "mixed_shuffled")}
    cells = world.read()[1]
    assert {(first[4], second[4]) for _, first, second in contrasts.primary_contrasts(cells, ["content"])} == pairs
    assert {(first[4], second[4]) for comparison, first, second, _ in hypotheses.planned_comparisons(cells)
            if comparison == "control"} == pairs
    runs, _, accuracies = world.read()
    las = next(one for one in summary.summarise(accuracies, world.tests(["las"]), runs) if "+0.305" in one)
    assert "soft_multitask (few_shot) +0.305" in las and "its control +0.050" in las and "its control +0.285" in las


def test_the_settings_of_another_student_hide_no_control(tmp_path):
    """The student "big" has another model and no control: the one of "tiny" is compared all the same."""
    world = World(tmp_path)
    for student, model in (("tiny", "kdutils/mini/student"), ("big", "google/t5-v1_1-base")):
        world.add("label_only", right=(20, 21), explains=False, student=student, model=model)
        world.add("multitask", right=(30, 31), student=student, model=model)
        if student == "tiny":
            world.add("shuffled", right=(20, 22), model=model)
    found = contrasts.primary_contrasts(world.read()[1], ["content"])
    assert [(first[3:5], second[3:5]) for _, first, second in found] == [(("tiny", "multitask"), ("tiny", "shuffled"))]


def test_las_is_tested_over_seeds_and_questions_where_each_question_has_its_prediction(tmp_path):
    world, rng = World(tmp_path).add("label_only", right=(20, 21), explains=False), np.random.default_rng(0)
    world.add("multitask", right=(30, 31), las=(0.30, 0.30)).add("standard", right=(29, 28), las=(0.25, 0.25))
    before = world.tests(["las"]).query("comparison == 'las'").set_index("first")
    assert before["p"].isna().all(), "equal values of two seeds: over seeds alone there is no test"
    gains = {}
    for folder in world.evaluations[1:]:
        predictions = pd.read_parquet(Path(folder) / "predictions.parquet")
        hits = predictions[["id", "seed"]].assign(question=False, both=rng.random(len(predictions)) < 0.3,
                                                  explanation=True, masked=False)
        hits.to_csv(Path(folder) / "foreseen.csv", index=False)
        gains[folder] = hits.pivot(index="seed", columns="id", values="both").to_numpy(dtype=float)
    after = world.tests(["las"]).query("comparison == 'las'")
    assert set(after["test"]) == {"t over seeds and questions"} and set(after["n_questions"]) == {SIZE}
    for row, matrix in zip(after.itertuples(), gains.values(), strict=True):  # one group: LAS is the mean of the gains
        expected = crossed_difference(matrix, np.zeros(SIZE))
        assert (row.difference, row.low, row.high, row.p, row.n_seeds) == pytest.approx(
            (matrix.mean(), max(expected.low, -1), min(expected.high, 1), expected.p, 2))
    runs, _, accuracies = world.read()
    said = "\n".join(summary.summarise(accuracies, world.tests(["las"]), runs))
    assert "take the test questions as given" not in said and "(LAS)" in said


def test_a_control_that_learns_the_same_texts_is_no_measure_of_what_they_say(tmp_path):
    world = World(tmp_path).add("label_only", right=(20, 21), explains=False)
    world.add("counterfactual", right=(30, 31), las=(0.30, 0.31)).add("untagged", right=(29, 32), las=(0.3, 0.32))
    runs, _, accuracies = world.read()
    las = next(one for one in summary.summarise(accuracies, world.tests(["las"]), runs) if "+0.305" in one)
    assert "untagged (few_shot) +0.310" in las and "its control" not in las


def test_a_name_is_the_same_where_a_second_teacher_has_no_results(tmp_path):
    world = World(tmp_path).add("label_only", right=(20, 22), explains=False).add("multitask", right=(30, 31))
    missing = [not_reached("multitask", "tiny", 0, 1, teacher="other")]
    runs, _, accuracies = world.read(missing)
    measures = runs_table.with_names(runs_table.read_measures(world.evaluations), runs)
    assert set(measures["name"]) == {"multitask (llama, few_shot)"} <= set(accuracies["name"])


def test_texts_are_compared_one_by_one(study, tests):
    row = tests[tests["measure"] == "words"].iloc[0]
    assert row["difference"] == pytest.approx(8) and row["n_questions"] == SIZE and row["n_seeds"] == 3
    assert row["difference"] == pytest.approx(row["low"] / 2 + row["high"] / 2)


def test_mcnemar_stands_beside_a_single_seed(tmp_path):
    rng = np.random.default_rng(2)
    (first,), (second,) = spread(30, rng=rng), spread(20, rng=rng)
    world = World(tmp_path).add("label_only", right=(second,), explains=False).add("multitask", right=(first,))
    row = world.tests().iloc[0]
    flags = [[place in some for place in range(SIZE)] for some in (first, second)]
    assert row["mcnemar"] == [mcnemar(*flags).p] and row["test"] == "bootstrap over questions" and row["n_seeds"] == 1


def test_students_that_answered_different_questions_are_not_compared(tmp_path):
    world = World(tmp_path).add("multitask", right=(20, 20)).add("standard", right=(20, 21))
    _, predictions, _ = world.read()
    moved = predictions.assign(id=predictions["id"].where(predictions["method"] == "standard", "x" + predictions["id"]))
    with pytest.raises(StudyError, match="different questions"):
        hypotheses.run_tests(moved, pd.DataFrame(columns=runs_table.CELL), runs_table.read_measures(world.evaluations))


# --- sentences


def test_only_the_corrected_p_makes_a_difference_and_its_numbers_are_texts(tests):
    described = summary.describe(tests)
    for row in described:
        assert row["significant"] == (row["p_corrected"] < 0.05) and row["higher"] == (row["difference"] > 0)
        assert not row["significant"] or not row["low"] <= 0 <= row["high"]
        if row["tested"]:
            assert re.match("q " if row["family"] == "exploratory" else "p ", row["p_corrected_text"])
    assert described[0]["place"] == "tiny on small" and described[0]["value"] == "+42.5 points"
    [of_words] = summary.describe(tests[tests["measure"] == "words"])
    assert of_words["value"] == "+8.0" and of_words["significant"] and of_words["p_corrected_text"] == "q < 0.001"
    assert re.fullmatch(r"\+\d\.\d to \+\d\.\d", of_words["interval"])


def test_what_is_significant_only_before_the_correction_is_not_claimed():
    row = {"family": "primary", "comparison": "primary", "question": "explaining", "p_equivalent": 0.9,
           "detectable": 0.12, "dataset": "d", "student": "s", "measure": "accuracy", "first": "a",
           "second": "label_only", "difference": 0.1, "low": 0.02, "high": 0.18, "p": 0.03, "p_corrected": 0.3,
           "n_seeds": 3, "n_questions": 50}

    cells = pd.DataFrame([{"name": "a", "likelihood": 0.5, "no_choice": 0.0},
                          {"name": "label_only", "likelihood": 0.25, "no_choice": 0.005}])

    def said(cells=cells, **changed):
        return summary._primary("s on d", cells, pd.DataFrame([row | changed]), 0.02)

    start = "Does explaining help, s on d (%s, 50 questions): a minus label_only +10.0 points (%s): "
    interval = "+2.0 to +18.0, p = 0.%s"
    assert said() == [start % ("3 seeds", interval % "300") + "no difference shown; a true difference of 12.0 points "
                      "would be found with probability 0.8."]
    assert said(p_corrected=0.001) == [start % ("3 seeds", interval % "001") + "a difference."]
    assert said(cells.assign(no_choice=[0.0, 0.25]), p_corrected=0.001) == [
        start % ("3 seeds", interval % "001") + "a difference (0.0 % and 25.0 % of their answers are none of the "
        "choices; by likelihood 50.0 % and 25.0 % are right)."]
    assert said(cells.assign(no_choice=[0.0, np.nan]), p_corrected=0.001) == said(p_corrected=0.001), "free text"
    assert said(p_corrected=0.001, n_seeds=1) == [
        start % ("1 seed", interval % "001") + "one seed, which says nothing about the methods."]
    assert said(low=np.nan, high=np.nan, p=np.nan, p_corrected=np.nan, detectable=np.nan) == [
        start % ("3 seeds", "not tested: too few values or no variation") + "no difference shown."]


def test_the_summary_is_short_and_names_best_weak_and_failed(study, tests):
    missing = [not_reached("combined", "tiny", 0), "outputs/x"]
    runs, _, accuracies = study.read(missing)
    said = summary.summarise(accuracies, tests, runs, missing)
    assert len(said) <= summary.MOST and not any("nan" in sentence for sentence in said)
    assert said[0].startswith("tiny on small: multitask (few_shot) has the highest of 6 mean accuracies: 90.0 %")
    assert ", above chance (20.0 %, p < 0.001). The best of 6 is partly selection; see the contrasts." in said[0]
    assert said[1].startswith("Not above chance (20.0 %), tiny on small: ")
    assert "counterfactual (few_shot) 3.3 % (below it, p " in said[1]
    for question in ("Does explaining help", "Does the content of the explanations matter",
                     "Does the revision of explanations help", "Multitask or counterfactual training"):
        start = f"{question}, tiny on small (3 seeds, 40 questions): "
        assert sum(sentence.startswith(start) for sentence in said) == 1
    helps = next(sentence for sentence in said if sentence.startswith("Does explaining help"))
    assert re.search(r"multitask \(few_shot\) minus label_only \+42\.5 points \(.*\): a difference\.$", helps)
    revised = next(sentence for sentence in said if sentence.startswith("Does the revision"))
    assert re.search(r": no difference shown; a true difference of \d+\.\d points would be found with probability "
                     r"0\.8\.$", revised)
    assert any("2 runs failed or are missing and not included in any mean: standard (few_shot) seed 2, "
               "combined (few_shot) seed 0." in sentence for sentence in said)
    assert "1 evaluation with unknown labels is missing: outputs/x." in said
    assert said[-1].startswith(
        "Intervals are 95 % confidence intervals; those of the 4 primary contrasts hold together")
    assert "The 13 other comparisons are exploratory" in said[-1]
    assert not [sentence for sentence in said if re.search(r"\s[.,;:)]|[(]\s|\s\s|\n|[^.]$", sentence)], said


def test_runs_and_transfers_below_chance_are_counted_apart(tmp_path):
    world = World(tmp_path).add("label_only", right=(18, 20), explains=False)
    world.add("label_only", right=(0, 1), tested_on="other", explains=False)
    runs, _, accuracies = world.read()
    assert ("0 of 2 runs are below chance, and 2 of 2 transfers to another data set; all are included in the means."
            in summary.summarise(accuracies, world.tests(), runs))


def test_one_seed_is_said_to_say_nothing_of_methods(tmp_path):
    world = World(tmp_path).add("label_only", right=(5,), explains=False).add("multitask", right=(38,))
    runs, _, accuracies = world.read()
    said = summary.summarise(accuracies, world.tests(), runs)
    against = next(sentence for sentence in said if sentence.startswith("Does explaining help"))
    assert "multitask (few_shot) minus label_only +82.5 points" in against
    assert against.endswith("one seed, which says nothing about the methods.")


def test_one_seed_beside_others_that_have_more_says_nothing_either(tmp_path):
    world = World(tmp_path).add("label_only", right=(20, 22), explains=False).add("combined", right=(21, 22))
    world.add("multitask", right=(38,), failed=(1,))
    runs, _, accuracies = world.read()
    tests = world.tests()
    said = next(one for one in summary.summarise(accuracies, tests, runs) if one.startswith("Does explaining help"))
    first, second = said.split(";")[:2]
    assert "multitask (few_shot) minus label_only" in first and first.endswith("one seed, which says nothing about the "
                                                                               "methods")
    assert "combined (few_shot) minus label_only" in second
    statement = answer.statements(accuracies, tests)[0]
    assert statement["verdict"] == "No benefit shown." and "multitask" not in statement["text"]


def test_a_control_that_does_as_well_is_said_so(tmp_path):
    rng = np.random.default_rng(9)
    world = World(tmp_path).add("multitask", right=spread(20, 21, rng=rng))
    world.add("shuffled", right=spread(21, 19, rng=rng))
    runs, _, accuracies = world.read()
    said = summary.summarise(accuracies, world.tests(), runs)
    assert any("no evidence that the content of the explanations matters" in sentence for sentence in said)


def test_many_cells_leave_a_dozen_sentences(tmp_path):
    world = World(tmp_path, size=20)
    for dataset in ("small", "other"):
        for student in ("tiny", "big"):
            world.add("label_only", right=(5, 6), dataset=dataset, student=student, explains=False)
            world.add("multitask", right=(9, 8), dataset=dataset, student=student)
            world.add("standard", right=(9, 8), dataset=dataset, student=student)
    runs, _, accuracies = world.read()
    tests = world.tests()
    said = summary.summarise(accuracies, tests, runs)
    assert len(said) == summary.MOST and any(sentence.endswith(" more statements of this kind.") for sentence in said)
    few = next(sentence for sentence in said if sentence.startswith("2 seeds show little: the planned contrasts "))
    found = 100 * tests.loc[tests["family"] == "primary", "detectable"].dropna()
    ends = dict.fromkeys(f"{one:.0f}" for one in (found.min(), found.max()))
    assert f" differences of about {' to '.join(ends)} points or more with probability 0.8." in few


def test_an_exploratory_difference_names_both_cells_also_where_the_baseline_is_better(tmp_path):
    rng = np.random.default_rng(3)
    world = World(tmp_path).add("label_only", right=spread(36, 35, 37, rng=rng), explains=False)
    world.add("multitask", right=spread(36, 37, 35, rng=rng)).add("standard", right=spread(12, 11, 10, rng=rng))
    runs, _, accuracies = world.read()
    said = summary.summarise(accuracies, world.tests(), runs)
    more = next(sentence for sentence in said if sentence.startswith("Exploratory, tiny on small"))
    assert re.search(r"label_only minus standard \(few_shot\) \+\d\d\.\d points ", more)


def test_other_comparisons_are_exploratory_and_las_stands_beside_that_of_the_control(tmp_path):
    rng = np.random.default_rng(3)
    world = World(tmp_path).add("label_only", right=spread(18, 20, 19, rng=rng), explains=False)
    world.add("multitask", right=(36, 35, 37), las=(0.31, 0.32, 0.34))
    world.add("shuffled", right=spread(19, 21, 20, rng=rng), las=(0.30, 0.31, 0.32))
    world.add("standard", right=spread(22, 20, 21, rng=rng), las=(0.05, 0.02, 0.03))
    runs, _, accuracies = world.read()
    said = summary.summarise(accuracies, world.tests(["las"]), runs)
    more = next(sentence for sentence in said if sentence.startswith("Exploratory, tiny on small"))
    assert re.search(r"\(3 seeds, 40 questions\): 1 of 3 further comparisons of accuracy has q below 0\.05: "
                     r"multitask minus standard \(few_shot\) \+3\d\.\d points \(.*, q < 0\.001\)\. It is a hypothesis",
                     more)
    assert not [sentence for sentence in said if re.search(r"[a-z)]\.[A-Z]", sentence)]  # a space between sentences
    las = next(sentence for sentence in said if sentence.startswith("Do explanations help to predict"))
    assert "; its control +0.310; the intervals overlap, so a difference is not shown)" in las
    assert "standard (few_shot) +0.033 " in las and "; no control to judge it by)" in las and "shuffled" not in las
    better = [sentence for sentence in summary.summarise(accuracies, world.tests(["las"]).replace(
        {"low": {row["low"]: 0.5 for row in world.tests(["las"]).query("first == 'multitask (few_shot)' and "
                                                                       "comparison == 'las'").to_dict("records")}}),
        runs) if sentence.startswith("Do explanations help to predict")]
    assert "; its control +0.310, lower with intervals that do not overlap)" in better[0]
    table = world.tests(["las"])
    of_control = (table["comparison"] == "las") & table["first"].str.startswith("shuffled")
    table.loc[of_control, "difference"] = 0.5
    parts = pd.DataFrame([{**dict.fromkeys(runs_table.CELL, "-"), **row, "measure": measure, "value": value}
                          for row in accuracies[[*runs_table.CELL]].assign(seed=0).to_dict("records")
                          for measure, value in (("las_leaking", 0.7), ("las_other", -0.1))])
    fakes = parts.assign(fake="answer", measure="las", value=0.9)
    reached = next(one for one in summary.summarise(accuracies, table, runs, measures=parts, fakes=fakes)
                   if one.startswith("Do explanations help to predict"))
    assert "; +0.700 for texts that tell the answer without the question, −0.100 for others; " in reached
    assert "; its control reaches +0.500)" in reached
    assert reached.endswith("A text that only repeats the answer reaches +0.900; none of these is above it.")


def test_the_summary_says_whether_explanations_are_true_where_that_can_be_checked(tmp_path):
    world = World(tmp_path).add("label_only", right=(20, 22), explains=False).add("multitask", right=(30, 31))
    world.add("standard", right=(30, 31))
    runs, _, accuracies = world.read()
    shares = {"multitask": 0.05, "standard": 0.1}  # of all measures but states_facts
    measures = pd.DataFrame([{**{key: row[key] for key in [*runs_table.CELL, "kind", "seed"]},
                              "measure": measure, "value": shares[row["method"]] if measure != "states_facts" else 0.9}
                             for row in runs.to_dict("records") if row["method"] in shares
                             for measure in ("states_facts", "wholly_true", "true_share", "argues_for_other")])
    teachers = pd.DataFrame({"dataset": ["small", "small", "else"], "wholly true": [0.995, 0.0, 0.2],
                             "true statements": [1.0, None, 0.5], "contradicted": [0.1, 0.2, 0.9]})
    said = summary.summarise(accuracies, world.tests(), runs, measures=measures, teachers=teachers)
    assert ("Are the explanations true, tiny on small: wholly true, of the texts that state something, are 10.0 % of "
            "standard (few_shot), 5.0 % of multitask (few_shot); 99.5 % of the teachers'. Most explanations of these "
            "students are not wholly true.") in said
    assert not any("wholly true" in one for one in summary.summarise(accuracies, world.tests(), runs, measures=None))
    words = measures.assign(value=measures["value"].where(
        (measures["method"] != "standard") | (measures["measure"] != "states_facts"), 0.1))
    said = summary.summarise(accuracies, world.tests(), runs, measures=words, teachers=teachers)
    assert any("are 5.0 % of multitask (few_shot); 99.5" in one and one.endswith(
        "wholly true. Most texts of standard (few_shot) state nothing that can be checked.") for one in said)
    real = measures[measures["measure"] == "argues_for_other"]
    said = summary.summarise(accuracies, world.tests(), runs, measures=real, teachers=teachers)
    assert ("Whether the explanations are true cannot be checked, tiny on small. By a proxy, texts argue for another "
            "choice than the student's answer in 5.0 % (multitask (few_shot)), 10.0 % (standard (few_shot)); the "
            "teachers' in 10.0 % to 20.0 %.") in said


def test_nothing_right_is_no_order_of_methods(tmp_path):
    world = World(tmp_path).add("label_only", right=(0, 0), explains=False).add("multitask", right=(0, 0))
    runs, _, accuracies = world.read()
    said = summary.summarise(accuracies, world.tests(), runs)
    assert said[0].startswith("tiny on small: no answer of 2 cells is right; ") and "highest" not in said[0]


def test_a_single_cell_without_explanations_is_enough(tmp_path):
    world = World(tmp_path).add("label_only", right=(9,), explains=False)
    runs, predictions, accuracies = world.read()
    measures = runs_table.read_measures(world.evaluations)
    tests = world.tests(["words", "las"])
    assert tests["comparison"].tolist() == ["chance"]
    assert tables.choose_measure(measures) == "" and tables.transfer_table(accuracies, "mean").empty
    inputs = runs_table.read_inputs(world.evaluations)
    assert errors.difference_to_baseline(predictions, inputs).empty
    assert errors.won_and_lost_per_cell(predictions, inputs, 2, 0) == []
    said = summary.summarise(accuracies, tests, runs)
    assert said[0].startswith("tiny on small: no cell is above chance (20.0 %); the highest of 1 mean accuracy is 22.5")
    assert said[0].endswith("Students at chance say nothing about methods.")
    assert len(tables.side_by_side(inputs, {}, predictions, 2)) == 2


# --- published numbers


def test_published_numbers_are_those_of_the_facts():
    """shared/facts.md A7; the standard error of multitask base is .3449 there, printed .35."""
    every = {"counterfactual": ((53.17, 4.14, 6), (44.35, 4.55, 6), (66.28, 7.53, 6), (61.48, 10.36, 6)),
             "multitask": ((62.09, 5.59, 6), (57.45, 4.38, 6), (75.56, 0.77, 5), (67.44, 14.28, 5)),
             "combined": ((59.79, 2.78, 6), (61.94, 1.24, 6), (75.18, 1.63, 5), (74.13, 1.22, 6))}
    kept = {"counterfactual": ((51.70, 1.02, 5), 43.69, (69.32, 0.58, 5), 64.48),
            "multitask": ((64.36, 0.34, 5), 58.13, (75.56, 0.34, 5), 73.81),
            "combined": ((59.62, 0.20, 4), (61.94, 0.51, 6), (75.86, 0.35, 4), (73.66, 0.20, 5))}
    cells = [(prompting, size) for size in ("base", "large") for prompting in ("few_shot", "critique_revision")]
    assert len(published_accuracies.PUBLISHED) == 12
    for method in every:
        for (prompting, size), of_all, of_kept in zip(cells, every[method], kept[method], strict=True):
            one = published_accuracies.PUBLISHED[prompting, method, size]
            assert (one.mean, one.sd, one.n) == of_all
            assert (one.kept_mean, one.kept_error, one.kept_n) == of_kept or one.kept_mean == of_kept


def test_published_numbers_come_from_the_published_file():
    path = Path(os.environ.get("KDUTILS_DATA") or PROJECT.parent / "shared" / "data") / "human_study" / "experiment.csv"
    if not path.is_file():
        pytest.skip("no published study")
    from kdutils.stats.groups import iqr_outliers

    table = pd.read_csv(path).rename(columns={"test accuracy": "accuracy"})
    words = {"task-prefix": "multitask", "counterfactual-prefix": "counterfactual", "both": "combined", "220M": "base",
             "770M": "large", "few-shot-positive-rationale": "few_shot", "few-shot-revision": "critique_revision"}
    keys = ["target_rationale", "training_mode", "model_size"]
    left = ~iqr_outliers(table, "accuracy", keys)
    for cell, group in table.groupby(keys):
        one = published_accuracies.PUBLISHED[tuple(words[word] for word in cell)]
        whole, some = 100 * group["accuracy"], 100 * group.loc[left[group.index], "accuracy"]
        assert [one.mean, one.sd] == pytest.approx([whole.mean(), whole.std()], abs=0.0051) and one.n == len(whole)
        assert [one.kept_mean, one.kept_error] == pytest.approx([some.mean(), some.sem()], abs=0.0051)
        assert one.kept_n == len(some)


def test_only_matching_cells_have_a_published_counterpart(tmp_path):
    world = World(tmp_path)
    base = {"dataset": "cqa", "student": "t5-base", "model": "google/t5-v1_1-base", "right": (25, 26, 24)}
    world.add("multitask", exact=(0.60, 0.62, 0.64), **base).add("standard", **base)
    world.add("combined", "critique_revision", **base)
    world.add("multitask", dataset="small", student="t5-base", model="google/t5-v1_1-base", right=(20,))
    world.add("multitask", dataset="cqa", student="flan", model="google/flan-t5-base", right=(20,))
    sizes = published_accuracies.student_sizes(world.trainings)
    assert sizes == {"t5-base": "base"}
    runs, _, accuracies = world.read()
    table = published_accuracies.published_table(runs, accuracies, sizes)
    assert table["method"].tolist() == ["multitask", "combined"]
    row = table.iloc[0]
    expected = scipy_stats.ttest_ind_from_stats(62, 2, 3, 62.09, 5.59, 6, equal_var=False)
    assert row["exact"] == pytest.approx(62) and row["difference"] == pytest.approx(-0.09)
    assert row["p"] == pytest.approx(expected.pvalue) and row["low"] < -0.09 < row["high"]
    tests = world.tests(more=published_accuracies.published_rows(table))
    assert (tests["comparison"] == "published").sum() == 2
    said = summary.summarise(accuracies, tests, runs, published=table)
    assert any("published runs were tested on 1221 questions, these on 40" in sentence for sentence in said)
    assert published_accuracies.published_table(runs, accuracies, {}).empty
    assert not published_accuracies.published_rows(pd.DataFrame())


# --- explanations, errors, transfer, costs


def test_explanation_tables_show_mean_and_spread(study):
    measures = runs_table.read_measures(study.evaluations)
    table = tables.explanation_table(runs_table.in_domain(measures), ["words", "rouge_l_teacher"])
    row = table[(table["method"] == "multitask") & (table["prompting"] == "few_shot")].iloc[0]
    assert row["words"].split() == ["7.0", "±", "1.0"] and row["rouge_l_teacher"].split() == ["0.410", "±", "0.010"]
    assert "label_only" not in set(table["method"])
    probes = tables.measure_names(measures, tables.MEASURES["answers after forced explanations"])
    assert probes == ["behind wrong: right", "behind wrong: as asserted"]
    known = [name for pattern in tables.MEASURES.values() for name in tables.measure_names(measures, pattern)]
    assert set(measures["measure"]) - set(known) == {"simulated"}
    assert tables.choose_measure(measures) == "las"
    assert tables.choose_measure(measures, "words") == "words"
    assert tables.choose_measure(measures.iloc[:0]) == "", "nothing was measured: there is nothing to show"
    assert tables.choose_measure(measures[measures["measure"] != "las"]) == "rouge_l_teacher"


def test_attributed_words_are_in_the_tables_and_revision_is_tested_text_by_text(study):
    measures = runs_table.in_domain(runs_table.read_measures(study.evaluations))
    names = tables.measure_names(measures, tables.MEASURES["overlap with influential words"])
    assert names == ["overlap", "overlap_random", "overlap_gain"], "one without any value is not there"
    table = tables.explanation_table(measures, names)
    assert table["overlap_gain"].str.split().str[0].tolist() == ["0.200", "0.100"], "cells without it are left out"
    found = study.tests(["overlap_gain"]).query("measure == 'overlap_gain'")
    assert found["comparison"].tolist() == ["revision"] and found["n_questions"].tolist() == [SIZE // 2]
    assert found["difference"].iloc[0] == pytest.approx(0.1) and found["p"].iloc[0] < 0.001


def test_errors_are_counted_against_label_only(study):
    _, predictions, _ = study.read()
    inputs = runs_table.read_inputs(study.evaluations)
    inputs = {cell: (questions, explanations.assign(text=f"a {CHOICES[0]}"))
              for cell, (questions, explanations) in inputs.items()}
    kinds = errors.difference_to_baseline(predictions, inputs)
    assert set(kinds["name"]) == {"multitask (few_shot)", "multitask (critique_revision)", "standard (few_shot)",
                                  "counterfactual (few_shot)"}
    named = kinds[(kinds["name"] == "multitask (few_shot)")].set_index("questions with")
    assert named.loc["rationale names the answer", "questions"] == SIZE / 5
    own = predictions[(predictions["tested_on"] == "small") & (predictions["prompting"] != "critique_revision")]
    means = own[own["answer"] == "ant"].groupby("method")["correct"].mean()
    assert named.loc["rationale names the answer", "difference"] == pytest.approx(
        100 * (means["multitask"] - means["label_only"]))
    spread = errors.spread_methods(kinds.assign(difference=-0.04))
    assert "multitask (few_shot)" in spread and spread.iloc[0, 1].startswith("+0.0 (")
    captioned = errors.won_and_lost_per_cell(predictions, inputs, 3, 0)
    caption, lost = captioned[0]
    assert caption == "counterfactual (few_shot) against label_only: small, tiny"
    assert (lost["verdict"] == "lost").sum() == 3 and "label_only says" in lost
    assert set(lost["teacher's rationale"]) == {f"a {CHOICES[0]}"}


def test_examples_are_of_every_method_that_loses_a_question_and_a_transfer_has_its_own(tmp_path):
    world = World(tmp_path).add("label_only", right=(20,), explains=False).add("multitask", right=[range(1, 31)])
    world.add("standard", right=(25,)).add("counterfactual", right=[range(5, 20)])
    world.add("label_only", right=(30,), explains=False, tested_on="other")
    world.add("multitask", right=(10,), tested_on="other")
    _, predictions, _ = world.read()
    inputs = runs_table.read_inputs(world.evaluations)
    captioned = dict(errors.won_and_lost_per_cell(predictions, inputs, 50, 0))
    assert list(captioned) == [f"{name} (few_shot) against label_only: small, tiny{where}" for name, where in (
        ("counterfactual", ""), ("multitask", ""), ("multitask", ", tested on other"))], "standard loses none"
    counts = [table["verdict"].value_counts().to_dict() for table in captioned.values()]
    assert counts == [{"lost": 5}, {"won": 11, "lost": 1}, {"lost": 20}]
    lost = list(captioned.values())[1].set_index("verdict").loc["lost"]
    assert lost["question"] == "Which animal is number 0 in the small zoo?"
    assert (lost["teacher's rationale"], lost["multitask (few_shot) says"], lost["label_only says"]) == (
        "The ant lives there.", "bee", "ant")
    kinds = errors.difference_to_baseline(predictions, inputs).query("name == 'multitask (few_shot)'")
    every = kinds[kinds["questions"] == SIZE].drop_duplicates("tested_on").set_index("tested_on")["difference"]
    assert every.to_dict() == {"small": 100 * (30 - 20) / SIZE, "other": 100 * (10 - 30) / SIZE}
    losses = errors.largest_losses(errors.difference_to_baseline(predictions, inputs))
    large = errors.difference_to_baseline(predictions, inputs).query("questions >= 20")
    lowest = large.groupby(["name", "tested_on"])["difference"].min()
    assert losses.set_index(["name", "tested_on"])["difference"].to_dict() == lowest[lowest < 0].to_dict()
    assert (losses["questions"] >= 20).all() and len(lowest) == 4, "of three methods, and of the one tested elsewhere"
    assert errors.largest_losses(large.assign(difference=large["difference"].abs())).empty, "nothing is lost"
    assert errors.largest_losses(large.assign(difference=-2e-14)).empty, "nor by equal means, but for rounding"
    assert errors.largest_losses(large.assign(difference=-50, questions=19)).empty, "of few, some lose much by chance"
    some = {cell: (questions, explanations.assign(text=explanations["text"].where(explanations.index % 2 == 0, "No.")))
            for cell, (questions, explanations) in inputs.items()}
    effects = errors.effects_of_rationales(predictions, some)
    assert effects.query("rationale == 'rationale names the answer'")["name"].value_counts().to_dict() == {
        "multitask (few_shot)": 1, "standard (few_shot)": 1, "counterfactual (few_shot)": 1}, "no transfer"


def test_the_tests_of_rationales_are_corrected_by_benjamini_and_hochberg(tmp_path, monkeypatch):
    """By hand: 3 · 0.01, 3/2 · 0.02 and 0.03 are all 0.03; Holm's method has 0.03, 0.04 and 0.04."""
    world = World(tmp_path).add("label_only", right=(20,), explains=False).add("multitask", right=(30,))
    columns = ["rationale", "with", "without", "effect", "low", "high", "p"]
    monkeypatch.setattr(errors, "rationale_effects", lambda *_: pd.DataFrame(
        [[name, 20, 20, 0.1, 0.0, 0.2, p] for name, p in (("a", 0.01), ("b", 0.02), ("c", 0.03))], columns=columns))
    effects = errors.effects_of_rationales(world.read()[1], runs_table.read_inputs(world.evaluations))
    assert effects["q"].tolist() == pytest.approx([0.03] * 3)


def test_a_rationale_that_goes_with_the_loss_is_found_and_told(tmp_path):
    world = World(tmp_path, size=80)
    world.add("label_only", right=[range(40)], explains=False).add("multitask", right=[range(20)])
    _, predictions, _ = world.read()
    questions, explanations = next(iter(runs_table.read_inputs(world.evaluations[1:]).values()))
    misleading = explanations["id"].isin(world.ids[20:40])  # exactly the questions that multitask loses
    wrong = ["The answer is " + next(name for name in CHOICES if name != answer) for answer in explanations["answer"]]
    changed = explanations.assign(text=explanations["text"].where(~misleading, wrong))
    inputs = {cell: (questions, changed) for cell in runs_table.read_inputs(world.evaluations)}
    effects = errors.effects_of_rationales(predictions, inputs).set_index("rationale")
    row = effects.loc["rationale argues for another choice"]
    assert (row["with"], row["without"], row["effect"]) == (20, 60, -100) and math.isnan(row["p"]), "no variation"
    changed.loc[changed["id"] == world.ids[70], "text"] = "The answer is " + CHOICES[1]  # one that is not lost
    effects = errors.effects_of_rationales(predictions, inputs)
    row = effects.set_index("rationale").loc["rationale argues for another choice"]
    assert row["effect"] == pytest.approx(-100 * 20 / 21) and row["q"] < 0.001
    tested = effects["p"].notna()
    corrected = scipy_stats.false_discovery_control(effects.loc[tested, "p"])
    assert effects.loc[tested, "q"].tolist() == pytest.approx(list(corrected))
    told = errors.effect_sentences(effects)
    begin = "multitask (few_shot) on small, tiny: the gain over label_only is 95.2 points lower where the rationale "
    assert any(line.startswith(begin) and "21 questions against 59" in line for line in told)
    nothing, what = errors.effect_sentences(effects.assign(q=0.5))
    assert nothing.startswith("None of ") and "rationale argues for another choice (21)" in what and told[-1] == what
    assert ("could not be tested" in what) == bool(effects["p"].isna().any())
    assert errors.effect_sentences(effects.head(0))[0].startswith("No test was possible")


def test_transfer_is_a_matrix_beside_the_own_data_set(study, tests):
    _, _, accuracies = study.read()
    table = tables.transfer_table(accuracies, "mean")
    assert list(table.index) == ["multitask (few_shot) of small"] and list(table.columns) == ["small", "other"]
    assert table.iloc[0].tolist() == pytest.approx([0.9, (12 + 13 + 10) / 3 / SIZE])
    assert set(tests["dataset"]) == {"small"} and (tests["n_seeds"] <= 3).all()  # a transfer is in no comparison


def test_costs_count_students_that_were_trained_to_the_end(study):
    costs = runs_table.cost_table(study.trainings)
    assert (costs["state"] == "failed").sum() == 1 and len(costs) == 18
    means = tables.mean_costs(costs)
    assert means.loc[means["method"] == "standard", ["seconds", "n_seeds"]].iloc[0].tolist() == [2.5, 2]
    assert tables.unequal_training(costs) == ""
    changed = costs.assign(effective_batch=np.where(costs["method"] == "standard", 8, costs["effective_batch"]))
    assert tables.unequal_training(changed) == "effective_batch of small, tiny"


@pytest.mark.parametrize("label", ["a", "multitask (critique_revision)", "token_rationale (integrated_gradients)"])
def test_the_texts_of_a_narrow_figure_are_inside_it(label):
    import matplotlib.pyplot as plt

    rows = pd.DataFrame({"group": "mini-t5 on mini (label_only: 87.2 % right)", "label": [label], "difference": [2.0],
                         "low": [1.0], "high": [3.0], "significant": [True]})
    figure = difference_intervals(rows, "← fewer right answers     more →\n(percentage points)", width=5.4)
    figure.draw_without_rendering()
    for text in (figure.axes[0]._left_title, figure.axes[0].xaxis.label):
        extent = text.get_window_extent()
        assert extent.x0 >= 0 and extent.x1 <= figure.bbox.x1
    plt.close("all")


def test_names_leave_out_what_is_the_same_everywhere(study):
    _, _, accuracies = study.read()
    assert runs_table.shorten(accuracies).columns[:3].tolist() == ["tested_on", "cell", "mean"]
    two = accuracies[accuracies["method"] != "label_only"].head(2).assign(prompting="few_shot", teacher=["a", "b"])
    names = runs_table.add_names(two.drop(columns="name"))["name"].tolist()
    assert names == ["multitask (a, few_shot)", "multitask (b, few_shot)"]


def test_figures_name_their_parts(study, tests):
    import matplotlib.pyplot as plt

    runs, _, accuracies = study.read()
    rows = tests.assign(group=tests["comparison"], label=tests["first"], significant=hypotheses.significant(tests))
    figure = difference_intervals(rows, "points")
    titles = [axis.get_title("left") for axis in figure.axes]
    assert titles == ["primary", "label_only", "methods", "revision", "chance", "las"]
    measures = runs_table.read_measures(study.evaluations)
    both = tables.accuracy_and_measure(runs_table.in_domain(runs), measures, "las")
    figure = accuracy_against_measure(both, "las", {("small", "tiny"): 0.4})
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "multitask · critique_revision" in labels and "label_only, no explanations" in labels
    figure = heat_map(tables.transfer_table(accuracies, "mean"), "accuracy")
    assert [text.get_text() for text in figure.axes[0].texts] == ["0.90", "0.29"]
    with pytest.raises(StudyError, match="at least one number"):
        heat_map(pd.DataFrame({"a": [None]}), "accuracy")
    plt.close("all")


def test_the_notebook_runs_on_such_a_study(study, tmp_path):
    parameters = {"experiment": "x", "evaluations": study.evaluations, "trainings": study.trainings,
                  "missing": [not_reached("combined", "tiny", 0, 1)],
                  "output": str(tmp_path)}
    code = ("import sys, json, papermill; papermill.execute_notebook(sys.argv[1], sys.argv[2], "
            "parameters=json.loads(sys.argv[3]), progress_bar=False, cwd=sys.argv[4])")
    done = subprocess.run([sys.executable, "-c", code, str(PROJECT / "notebooks/31_compare_methods.ipynb"),
                           str(tmp_path / "notebook.ipynb"), json.dumps(parameters), str(PROJECT)],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert 3 < len(metrics["summary"]) <= summary.MOST
    assert {"dataset", "student", "prompting", "method", "mean", "low", "high", "chance", "n_seeds"} <= set(
        metrics["accuracy"][0])
    assert sum(row["method"] == "combined" and row["mean"] is None for row in metrics["accuracy"]) == 1
    assert all(row["dataset"] == row["tested_on"] for row in metrics["accuracy"])


def test_without_outliers_shows_what_the_published_rule_would_drop():
    runs = pd.DataFrame([("d", "t", "few_shot", "s", method, "d") for method in ["a"] * 6 + ["b"]],
                        columns=runs_table.CELL).assign(
        accuracy=[0.5, 0.52, 0.51, 0.5, 0.51, 0.1, None])
    row = tables.without_outliers(runs).iloc[0]
    assert (row["seeds"], row["outliers"]) == (6, 1)
    assert row["all"] == pytest.approx(0.44) and row["kept"] == pytest.approx(0.508)


def test_a_seed_without_any_value_leaves_the_test_of_a_measure_to_the_others():
    draw = np.random.default_rng(0)
    cells = [("d", "t", prompting, "s", "multitask", "d") for prompting in ("few_shot", "critique_revision")]
    scores = pd.concat([pd.DataFrame([cell] * 20, columns=runs_table.CELL).assign(
        id=[f"q{number}" for number in range(20)], seed=seed, overlap_gain=draw.normal(place, 0.2, 20))
        for place, cell in enumerate(cells) for seed in range(3)], ignore_index=True)
    all_there = hypotheses._measure_row(scores, pd.DataFrame(), "overlap_gain", *cells)
    scores.loc[(scores["seed"] == 2) & (scores["prompting"] == "few_shot"), "overlap_gain"] = np.nan
    less = hypotheses._measure_row(scores, pd.DataFrame(), "overlap_gain", *cells)
    assert all_there["n_seeds"] == 3 and less["n_seeds"] == 2 and less["n_questions"] == 20
    kept = scores.dropna().groupby("prompting")["overlap_gain"].mean()
    assert less["difference"] == pytest.approx(kept["few_shot"] - kept["critique_revision"]) and less["p"] < 0.05


def test_kept_running_costs_are_medians_and_the_mean_change_of_accuracy():
    cells = [dict(zip(runs_table.CELL, ("d", "t", "few_shot", "s", method, "d"), strict=True)) for method in "abc"]
    record = {"parameters": 2e6, "bytes": 8e6, "libraries_mib": 450.0, "peak_memory_mib": 600.0, "questions": 10}
    running = pd.DataFrame([
        {**cell, **record, "weights": form, "answer_ms": ms, "explanation_ms": None, "gained": gained, "lost": lost}
        for cell, ms, gained, lost in zip(cells, (5.0, 9.0, 6.0), (0, 1, 0), (1, 3, 0), strict=True)
        for form in ("float32", "int8")])
    first, second = keeping.running_summary(running)
    assert first == {"dataset": "d", "student": "s", "weights": "float32", "cells": 3, "parameters": 2e6, "bytes": 8e6,
                     "libraries_mib": 450.0, "peak_memory_mib": 600.0, "answer_ms": 6.0, "explanation_ms": None,
                     "change": -0.1} and second["weights"] == "int8"
    [_, shown] = document.running_rows([first, second])
    assert shown == {"weights": "int8", "million parameters": "2.00", "MB": "8.0", "peak, MiB": "600",
                     "libraries, MiB": "450", "ms per answer": "6.0", "ms per explanation": "–",
                     "change of accuracy": "−10.0 points"}
    assert keeping.running_summary(running.iloc[:0]) == []


def test_running_costs_stand_beside_accuracy_and_explanations_best_first():
    cells = [dict(zip(runs_table.CELL, ("d", "t", "few_shot", "s", method, "d"), strict=True)) for method in ("a", "b")]
    record = {"parameters": 2_500_000, "bytes": 10_240_000, "peak_memory_mib": 700.4, "libraries_mib": 450.2,
              "answer_ms": 12.34, "explanation_ms": None, "questions": 8, "accuracy": 0.625, "gained": 0, "lost": 0}
    running = pd.DataFrame([{**cell, "weights": form, **record, "lost": lost}
                            for cell in cells for form, lost in (("float32", 0), ("int8", 2))])
    accuracies = pd.DataFrame([{**cell, "mean": mean} for cell, mean in zip(cells, (0.5, 0.61234), strict=True)])
    measures = pd.DataFrame([{**cell, "measure": "true_share", "value": value}
                             for cell in cells for value in (0.2, 0.3)])
    table = tables.running_cost_table(running, accuracies, measures)
    assert list(zip(table["method"], table["weights"], strict=True)) == [
        ("b", "float32"), ("b", "int8"), ("a", "float32"), ("a", "int8")]
    first = table.iloc[0].drop(runs_table.CELL).to_dict()
    assert pd.isna(first.pop("ms per explanation"))
    assert first == {"weights": "float32", "accuracy over seeds, %": 61.2, "true_share": 0.25,
                     "million parameters": 2.5, "MB": 10.2, "peak MiB": 700, "of which libraries": 450,
                     "ms per answer": 12.3,
                     "accuracy measured, %": 62.5, "newly right": 0, "newly wrong": 0}
    assert table["newly wrong"].tolist() == [0, 2, 0, 2] and table["true_share"].isna().tolist() == [False, True] * 2
