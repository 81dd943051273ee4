"""The answer at one look: verdicts that the tests support, nothing about methods where nothing can be said of them."""

import json
import re

import numpy as np
import pandas as pd
import pytest

from kdutils.comparison import answer, hypotheses, runs_table
from kdutils.experiments.loading import load_experiment
from kdutils.experiments.planned import power_lines
from kdutils.stats.accuracy import crossed_difference
from kdutils.stats.power import detectable_accuracy, simulate_answers
from kdutils.student.methods import METHODS, explained_of
from kdutils.teacher.quality import few_usable
from tests.test_comparing import SIZE, World, spread


def said_of(world, **more):
    """Return ({question: statement}, tests) of a World."""
    _, _, accuracies = world.read()
    tests = world.tests(more.pop("tested", ()), **({"primary": more.pop("primary")} if "primary" in more else {}))
    statements = answer.statements(accuracies, tests, **more)
    for one in statements:
        for text in (one["question"], one["verdict"], one["text"], *one["sure"], *filter(None, [one["more"]])):
            assert text and not re.search(r"\bnan\b|\s[.,;:)]|[(]\s|\s\s|\n|\.\.|[^.?]$", text), text
    return {one["question"]: one for one in statements}, tests


HELP, CONTENT, TRUE = ("Does explaining help?", "Does it matter what the explanations say?",
                       "Are the explanations true and useful?")


def test_an_effect_is_said_with_its_numbers(tmp_path):
    rng = np.random.default_rng(3)
    world = World(tmp_path).add("label_only", right=spread(18, 20, 19, rng=rng), explains=False)
    world.add("multitask", right=(36, 35, 37)).add("shuffled", right=spread(19, 21, 20, rng=rng))
    said, tests = said_of(world)
    assert [said[question]["verdict"] for question in (HELP, CONTENT, TRUE)] == ["Yes.", "Yes.", "Not measured."]
    assert said[HELP]["text"] == ("Students that also learned to explain gave more right answers than students that "
                                  "learned only the answers: multitask (few_shot) 90.0 % against label_only 47.5 %.")
    row = tests[tests["question"] == "explaining"].iloc[0]
    assert said[HELP]["sure"] == [
        f"Tested as planned: multitask (few_shot) minus label_only +42.5 points (95 % interval "
        f"+{100 * row['low']:.1f} to +{100 * row['high']:.1f}, p < 0.001)."]
    assert "gave fewer right answers than students that learned from the right explanations" in said[CONTENT]["text"]
    assert ". This need not be due to the reasons they give: " in said[CONTENT]["sure"][0] and not said[CONTENT]["more"]
    harm, _ = said_of(World(tmp_path / "harm").add("label_only", right=(36, 35, 37), explains=False).add(
        "multitask", right=spread(18, 20, 19, rng=rng)))
    assert harm[HELP]["verdict"] == "No, fewer right answers." and harm[CONTENT]["verdict"] == "Cannot be said."
    some, _ = said_of(World(tmp_path / "some").add("label_only", right=spread(34, 33, 35, rng=rng), explains=False).add(
        "multitask", right=spread(9, 11, 10, rng=rng)).add("combined", right=spread(34, 34, 33, rng=rng)).add(
        "shuffled", right=spread(34, 33, 34, rng=rng)))
    assert some[HELP]["verdict"] == "No, fewer right answers with multitask (few_shot)."
    assert some[HELP]["text"].startswith("multitask (few_shot) gave fewer right answers than students that ")
    assert some[CONTENT]["verdict"] == "Yes, but other texts did better.", "a difference is no 'No'"


@pytest.mark.parametrize("method", ["soft_multitask", "token_kl"])
def test_a_student_that_also_learns_probabilities_does_not_show_that_explaining_helps(tmp_path, method):
    world = World(tmp_path).add("label_only", right=spread(18, 20, 19, rng=np.random.default_rng(3)), explains=False)
    world.add("soft_label", right=(36, 35, 36), explains=False).add(method, right=(36, 35, 37))
    said, tests = said_of(world)
    assert said[HELP]["verdict"] == "Cannot be said."
    assert said[HELP]["text"].startswith("No student that learned answers and explanations alone ")
    assert not (tests["question"] == "explaining").any()


def test_one_seed_that_is_left_says_nothing_beside_others_with_several(tmp_path):
    rng = np.random.default_rng(3)
    world = World(tmp_path).add("label_only", right=spread(18, 20, 19, rng=rng), explains=False)
    world.add("multitask", right=(36, 35, 37)).add("combined", right=(35, 35, 36))
    world.add("standard", right=(39,), failed=(1, 2))
    planned = ["multitask (few_shot) minus label_only", "standard (few_shot) minus multitask (few_shot)",
               "combined (few_shot) minus multitask (few_shot)"]
    said, tests = said_of(world, primary=planned)
    assert (tests["n_seeds"] == 1).any()
    other = said["What do the other planned contrasts show?"]
    assert other["verdict"] == "No difference shown."
    assert "(one seed, which says nothing about the methods)" in other["text"]
    assert not any("standard" in sentence for sentence in said[HELP]["sure"]), "no hint of one seed either"


def test_a_contrast_that_is_not_shown_is_named_where_another_of_the_method_is(tmp_path):
    rng = np.random.default_rng(3)
    world = World(tmp_path).add("label_only", right=spread(18, 20, 19, rng=rng), explains=False)
    world.add("multitask", right=(36, 35, 37)).add("shuffled", right=spread(19, 21, 20, rng=rng))
    world.add("lent", right=spread(36, 35, 36, rng=rng), kind="shuffled")
    said, _ = said_of(world)
    assert said[CONTENT]["text"].endswith(
        "The difference of multitask (few_shot) from lent (few_shot) is not shown.")


def test_every_method_that_also_learns_probabilities_is_known_as_such():
    assert set(runs_table.PROBABLE) == {name for name, method in METHODS.items() if method.explanation is not None
                                        and not method.control_of and "probabilit" in method.learns}


def test_a_control_without_its_method_is_no_student_that_learned_to_explain(tmp_path):
    world = World(tmp_path).add("label_only", right=(20, 21, 19), explains=False).add("shuffled", right=(36, 35, 37))
    said, tests = said_of(world)
    assert said[HELP]["verdict"] == "Cannot be said." and said[HELP]["text"].startswith("No student that learned ")
    assert answer.differences(world.read()[2], tests)["control"].tolist() == [True]


def test_no_difference_shown_says_what_would_have_been_found(tmp_path):
    rng = np.random.default_rng(9)
    world = World(tmp_path).add("label_only", right=spread(30, 29, 31, rng=rng), explains=False)
    world.add("multitask", right=spread(31, 30, 30, rng=rng))
    said, tests = said_of(world)
    assert said[HELP]["verdict"] == "No benefit shown."
    points = 100 * tests.loc[tests["question"] == "explaining", "detectable"].iloc[0]
    assert said[HELP]["sure"][0].startswith("Not sure: ")
    assert said[HELP]["sure"][0].endswith(f"a true difference of about {points:.0f} points would be found with "
                                          "probability 0.8, a smaller one less often.")


def test_a_difference_that_was_not_planned_is_a_hint(tmp_path):
    rng = np.random.default_rng(9)
    world = World(tmp_path).add("label_only", right=spread(34, 33, 35, rng=rng), explains=False)
    world.add("multitask", right=spread(34, 34, 33, rng=rng)).add("standard", right=spread(9, 11, 10, rng=rng))
    said, tests = said_of(world)
    row = tests[(tests["first"] == "standard (few_shot)") & (tests["second"] == "label_only")].iloc[0]
    assert row["family"] == "exploratory" and row["p_corrected"] < 0.05
    assert said[HELP]["verdict"] == "No benefit shown." and "standard" not in said[HELP]["text"]
    less = -100 * row["difference"]
    hint = f"Not planned, so only a hint: standard (few_shot) minus label_only −{less:.1f} points (q "
    assert hint in said[HELP]["sure"][0] and not any("hint" in one for one in said[CONTENT]["sure"])


def test_beside_a_difference_the_methods_without_one_are_named(tmp_path):
    rng = np.random.default_rng(5)
    world = World(tmp_path).add("label_only", right=spread(18, 20, 19, rng=rng), explains=False)
    world.add("multitask", right=(36, 35, 37)).add("shuffled", right=spread(19, 21, 20, rng=rng))
    world.add("random_tokens", right=spread(20, 22, 19, rng=rng))
    world.add("token_rationale", right=spread(21, 20, 22, rng=rng))
    said, _ = said_of(world)
    assert said[CONTENT]["verdict"].startswith("Yes, with multitask")
    assert said[CONTENT]["text"].endswith(" For token_rationale (few_shot), the difference is not shown.")
    assert "not shown" not in said[HELP]["text"], "one contrast alone is planned"


def test_a_verdict_on_comparisons_that_nobody_planned_is_a_hint(tmp_path):
    rng = np.random.default_rng(3)
    world = World(tmp_path).add("label_only", right=spread(18, 20, 19, rng=rng), explains=False)
    said, _ = said_of(world.add("multitask", right=(36, 35, 37)), primary=["content"])
    assert said[HELP]["verdict"] == "A hint only: yes."
    assert said[HELP]["sure"][0].startswith("Not planned, so only a hint: multitask (few_shot) +42.5 points (")
    said, _ = said_of(World(tmp_path / "harm").add("label_only", right=(36, 35, 37), explains=False).add(
        "multitask", right=spread(18, 20, 19, rng=rng)), primary=["content"])
    assert said[HELP]["verdict"] == "A hint only: fewer right answers."


def test_what_is_missing_is_said_before_anything_else(tmp_path):
    world = World(tmp_path).add("label_only", right=(8, 9), explains=False)
    _, _, accuracies = world.read()
    said = answer.statements(accuracies, world.tests(), missing=["evaluations/d/multitask"])
    assert [one["question"] for one in said] == ["Is the experiment finished?", "Did the students learn to answer?"]
    assert said[0]["text"] == ("1 evaluation failed or did not run yet. What follows is about the others and may "
                               "change.")
    assert "finished" not in answer.statements(accuracies, world.tests())[0]["question"]


def test_few_usable_texts_of_a_teacher_are_a_limit(tmp_path):
    world = World(tmp_path).add("label_only", explains=False).add("multitask")
    runs, _, accuracies = world.read()
    teachers = pd.DataFrame({"teacher": "t", "prompting": "few_shot", "stage": ["rationale", "revision"],
                             "texts": [120, 100], "unusable": [78, 20]})
    said = answer.limits(accuracies, world.tests(), runs, None, few_usable(teachers))
    assert "What more explanations would do: only 42 of 120 texts by t (few_shot, rationale) can be used." in said
    assert few_usable(teachers.assign(unusable=20)).empty
    assert not any("can be used" in one for one in answer.limits(accuracies, world.tests(), runs))


def test_a_small_difference_is_a_finding(tmp_path):
    _, tests = said_of(world := World(tmp_path).add("label_only", right=(30, 31, 29), explains=False).add(
        "multitask", right=(30, 29, 31)))
    same = tests.assign(p_equivalent=tests["p_equivalent"].where(tests["p_equivalent"].isna(), 0.01))
    first = answer.statements(world.read()[2], same, 0.02)[0]
    assert first["verdict"] == "No." and first["text"].startswith("Learning to explain changes the share of right "
                                                                  "answers by less than 2 points: ")


def test_one_seed_says_nothing_about_methods(tmp_path):
    world = World(tmp_path).add("label_only", right=(5,), explains=False).add("multitask", right=(38,))
    said, tests = said_of(world.add("shuffled", right=(20,)))
    for question in (HELP, CONTENT):
        assert said[question]["verdict"] == "Cannot be said." and not re.search(r"\d", said[question]["text"])
        assert said[question]["sure"] == ["Train with at least 5 seeds."]
    runs, _, accuracies = world.read()
    assert answer.differences(accuracies, tests).empty
    assert answer.limits(accuracies, tests, runs)[0].startswith("Differences between methods: with one seed each, ")


@pytest.mark.parametrize(("right", "text"), [
    ((0, 0), "No student gave a single right answer. So nothing can be said about explanations."),
    ((8, 9), "No student is shown to be above chance: the best answers 21.2 % right, a guess 20.0 %. So nothing can be "
             "said about "
             "explanations.")])
def test_students_that_did_not_learn_are_the_only_sentence(tmp_path, right, text):
    world = World(tmp_path).add("label_only", right=right, explains=False).add("multitask", right=right)
    said, tests = said_of(world)
    assert list(said) == ["Did the students learn to answer?"]
    assert said["Did the students learn to answer?"]["text"] == text
    assert answer.differences(world.read()[2], tests).empty


def test_a_method_whose_training_failed_is_named(tmp_path):
    world = World(tmp_path).add("label_only", right=(36, 35, 37), explains=False).add("multitask", right=(8, 7, 9))
    said, _ = said_of(world)
    assert said[HELP]["sure"][0].endswith(
        " Not shown to be above chance: multitask (few_shot). Contrasts with it say little.")


def test_several_students_are_told_apart(tmp_path):
    rng, world = np.random.default_rng(3), World(tmp_path)
    for student, right in (("good", (36, 35, 37)), ("same", spread(20, 19, 18, rng=rng)), ("none", (0, 0, 0))):
        base = (0, 0, 0) if student == "none" else spread(18, 20, 19, rng=rng)
        world.add("label_only", right=base, explains=False, student=student)
        world.add("multitask", right=right, student=student)
    said, _ = said_of(world)
    assert said["Did the students learn to answer?"]["text"].startswith("none on small: no student gave a single right")
    assert said[HELP]["verdict"] == "It depends."
    assert said[HELP]["text"] == "Yes for good on small (1 of 2); no benefit shown for same on small (1 of 2)."
    assert [one.partition(":")[0] for one in said[HELP]["sure"]] == ["good on small", "same on small"]


def measured(world, shares):
    """Return measures of truth, the same in every seed: {method: (wholly true, true share, states facts, reason)}."""
    runs, _, _ = world.read()
    return pd.DataFrame([{**{key: row[key] for key in [*runs_table.CELL, "kind", "seed"]}, "measure": name,
                          "value": value} for row in runs.to_dict("records") if row["method"] in shares
                         for name, value in zip(("wholly_true", "true_share", "states_facts", "true_reason"),
                                                shares[row["method"]], strict=False) if value is not None])


def test_true_explanations_of_which_many_state_no_fact_are_said_to_be_so(tmp_path):
    world = World(tmp_path).add("label_only", right=(36, 35), explains=False).add("multitask", right=(36, 36))
    for stating, begin in ((0.6, "Nearly all explanations that state a fact are true, but many state none: "),
                           (1.0, "Nearly all explanations are true")):
        said, _ = said_of(world, measures=measured(world, {"multitask": (1.0, 1.0, stating)}))
        assert said[TRUE]["text"].startswith(begin) and "100.0 %" in said[TRUE]["text"]


def test_students_that_answer_well_and_explain_falsely_are_said_to(tmp_path):
    world = World(tmp_path).add("label_only", right=(36, 35), explains=False)
    world.add("multitask", right=(36, 36), las=(0.3, 0.31)).add("shuffled", right=(34, 35), las=(0.3, 0.31))
    world.add("standard", right=(38, 38)).add("token_rationale", "tokens", right=(37, 37))
    measures = measured(world, {"multitask": (0.05, 0.3, 1), "standard": (0.1, 0.4, 1), "shuffled": (0.0, 0.2, 1),
                                "token_rationale": (1.0, 1.0, 0.02)})
    teachers = pd.DataFrame({"dataset": ["small", "small"], "wholly true": [0.995, 0.0],
                             "true statements": [0.999, None]})
    said, _ = said_of(world, measures=measures, teachers=teachers, tested=["las"])
    assert said[TRUE]["verdict"] == "Mostly not true; no use shown."
    assert said[TRUE]["text"] == (
        "The students answer well, but few of their explanations are wholly true: 90.0 % to 95.0 % of their answers "
        "are right, and of their explanations only 5.0 % to 10.0 % are wholly true.")
    assert said[TRUE]["sure"] == ["Quite sure of these shares: every statement that can be read was compared with "
                                  "the facts. A text with another statement does not count as wholly true."]
    assert said[TRUE]["more"].startswith(
        "Compared were 40 texts per student and seed (2 seeds). Of the teacher's explanations, 99.5 % are wholly true. "
        "Most texts of token_rationale (tokens) state nothing that can be checked. It is not shown that the "
        "explanations help to predict what a student answers more than the texts of a control do. LAS measures ")
    true, _ = said_of(world, measures=measured(world, {"multitask": (0.95, 0.97, 0.9)}))
    assert true[TRUE]["verdict"] == "True." and "Nearly all explanations are true" in true[TRUE]["text"]
    assert ("of their explanations that state a fact (90.0 % or more of each student's) 95.0 % are wholly true."
            in true[TRUE]["text"])
    half, _ = said_of(world, measures=measured(world, {"multitask": (0.97, 0.98, 0.55)}))
    assert half[TRUE]["verdict"].startswith("Partly true"), "what states nothing is not true"
    two = teachers.assign(**{"wholly true": [0.6, 0.95], "true statements": 0.9})
    both, _ = said_of(world, measures=measures, teachers=two)
    assert "Of the teacher's explanations, 60.0 % to 95.0 % are wholly true." in both[TRUE]["more"]
    beside, _ = said_of(world, measures=measured(world, {"multitask": (0.95, 0.97, 1, 0.02)}))
    assert beside[TRUE]["verdict"] == "True, but often no reason for the answer."
    assert "but many give no reason for the answer: 90.0 % of" in beside[TRUE]["text"]
    assert "are wholly true, and 2.0 % give a true reason for the answer." in beside[TRUE]["text"]


def test_the_figure_has_differences_of_means_sorted_and_controls_marked(tmp_path):
    rng = np.random.default_rng(3)
    rights = {"label_only": spread(18, 20, 19, rng=rng), "shuffled": spread(24, 23, 25, rng=rng),
              "standard": spread(19, 18, 17, rng=rng), "multitask": (36, 35, 37)}
    world = World(tmp_path)
    for method, right in rights.items():
        world.add(method, right=right, explains=method != "label_only")
    rows = answer.differences(world.read()[2], world.tests())
    assert rows["label"].tolist() == ["multitask (few_shot)", "shuffled (few_shot)", "standard (few_shot)"]
    mean = {method: np.mean([len(one) if isinstance(one, list) else one for one in right]) / SIZE
            for method, right in rights.items()}
    assert rows["difference"].tolist() == pytest.approx(
        [100 * (mean[method] - mean["label_only"]) for method in ("multitask", "shuffled", "standard")])
    assert rows["control"].tolist() == [False, True, False]
    assert answer.describe_differences(rows).startswith(
        "Accuracy minus that of label_only, in percentage points, with 95 % intervals: multitask (few_shot) +42.5 (a "
        "difference), shuffled (few_shot) (control) +12.5")


def test_the_example_is_a_question_on_which_students_differ_with_every_answer_marked(tmp_path):
    world = World(tmp_path).add("label_only", right=(20, 40), explains=False).add("multitask", right=(30, 0))
    world.add("shuffled", right=([*range(10), 39],))
    _, predictions, accuracies = world.read()
    inputs = runs_table.read_inputs(world.evaluations)
    texts = {cell: {key: one.rationale for key, one in explained_of(explanations, questions).items() if one.rationale}
             for cell, (questions, explanations) in inputs.items()}
    scores = runs_table.read_scores(world.evaluations)
    scores = scores.assign(wholly_true=1.0, true_share=1.0)
    scores.loc[scores["method"] == "shuffled", ["wholly_true", "true_share"]] = (0.0, 0.5)
    asked = set()
    for seed in range(12):
        found = answer.example(accuracies, world.tests(), predictions, inputs, texts, scores, seed, lambda text, *_: {
            "wholly_true": 1.0, "true_share": 1.0} if text.startswith("The ") else None)
        key = int(re.search(r"number (\d+) in the small zoo", found["question"])[1])
        asked.add(key)
        right = {"label_only": key < 20, "multitask (few_shot)": key < 30, "shuffled (few_shot)": key < 10 or key == 39}
        assert len(set(right.values())) == 2
        who, *students = found["rows"]
        assert who["who"] == "teacher llama" and who["explanation"].startswith(f"The {found['answer']} lives")
        assert who["true"] == "✓ true"
        assert {row["who"]: row["answer"][0] == "✓" for row in students} == right
        assert {row["who"]: row["true"] for row in students} == {
            "label_only": "–", "multitask (few_shot)": "✓ true", "shuffled (few_shot)": "✗ not wholly true"}
        assert found["note"] == ("Drawn at random from the 21 of 40 test questions on which these students differ. The "
                                 "students are those of the lowest seed (0).")
        json.dumps(found)
    assert len(asked) > 4 and asked <= {*range(10, 30), 39}


def test_before_any_run_the_detectable_difference_is_that_of_a_simulation():
    for seeds, questions, level in ((3, 200, 0.05 / 4), (5, 600, 0.05 / 3)):
        simulated = detectable_accuracy(seeds, questions, answer.ASSUMED, answer.SPREAD, level=level, simulations=150)
        assert answer.expected_detectable(seeds, questions, level) == pytest.approx(simulated, rel=0.15)
    assert answer.before_any_run(["s on d"], 1, 100, 2) == ("s on d: one seed will say nothing about methods. Take at "
                                                            "least 5 seeds.")
    assert "the questions are not on this machine yet" in answer.before_any_run(["s on d"], 3, 0, 2)


@pytest.mark.parametrize(("questions", "accuracies", "says", "found"), [
    (200, (0.1, 0.6), "show only very large differences between methods, of more than about 50 points", True),
    (200, (0.1, 0.96), "show only very large differences between methods, of more than about 50 points", True),
    (30, (0.1, 0.6), "may miss even the largest differences between methods", False)])
def test_two_seeds_show_very_large_differences_alone(questions, accuracies, says, found):
    """Simulated without the formula: differences of 50 and 86 points are found with 200 questions, not with 30."""
    assert f"2 seeds and {questions} test questions {says} (" in answer.before_any_run(["s on d"], 2, questions, 6)
    generator, hits = np.random.default_rng(0), 0
    for _ in range(100):
        weak, strong = simulate_answers(list(accuracies), 2, questions, [answer.SPREAD] * 2, generator)
        hits += crossed_difference(strong, weak).p < hypotheses.LEVEL / 6
    assert (hits >= 80) == found


def test_the_difference_that_mini_can_show_is_known_before_it_runs():
    line, = power_lines(load_experiment("mini"))
    points = int(re.search(r"^mini-t5 on mini: 3 seeds and 200 test questions show differences between methods of "
                           r"about (\d+) points and more with probability 0.8, smaller ones less often \(6 primary "
                           r"contrasts; .*Take at least 5 seeds\.$", line)[1])
    assert points == round(100 * answer.expected_detectable(3, 200, hypotheses.LEVEL / 6))
    assert power_lines(load_experiment("mini", tiny=True)) == []


def test_where_facts_are_not_known_the_proxy_is_said_and_called_so(tmp_path):
    world = World(tmp_path).add("label_only", right=(36, 35), explains=False).add("multitask", right=(36, 36))
    measures = measured(world, {"multitask": (0.2,)}).replace({"measure": {"wholly_true": "argues_for_other"}})
    said, _ = said_of(world, measures=measures)
    assert said[TRUE]["verdict"] == "Cannot be checked."
    assert said[TRUE]["text"] == ("Whether they are true cannot be checked; by a proxy, 20.0 % argue for another "
                                  "answer than the student's.")


def test_contrasts_that_an_experiment_writes_out_are_on_the_start_page(tmp_path):
    rng = np.random.default_rng(3)
    world = World(tmp_path).add("label_only", right=spread(18, 20, 19, rng=rng), explains=False)
    world.add("multitask", right=(36, 35, 37)).add("standard", right=spread(19, 18, 17, rng=rng))
    said, _ = said_of(world, primary=["explaining", "multitask (few_shot) minus standard (few_shot)",
                                      "standard (few_shot) minus label_only"])
    planned = said["What do the other planned contrasts show?"]
    assert planned["verdict"] == "A difference."
    assert re.fullmatch(r"multitask minus standard \(few_shot\) \+4\d\.\d points \(95 % interval \+\d.*, p < 0\.001"
                        r"\)\.", planned["text"])
    [path] = tmp_path.glob("evaluations/**/standard/**/metrics.json")
    path.write_text(path.read_text(encoding="utf-8").replace('"no_choice": 0.25', '"no_choice": 0.5'), encoding="utf-8")
    said = said_of(world, primary=["explaining", "multitask (few_shot) minus standard (few_shot)",
                                   "standard (few_shot) minus label_only"])[0]
    made_of = "25.0 % and 50.0 % of their answers are none of the choices; by likelihood 50.0 % and 50.0 % are right"
    assert said["What do the other planned contrasts show?"]["text"].endswith(f"p < 0.001; {made_of}).")
    explaining = " ".join(said["Does explaining help?"]["sure"])
    assert f"For multitask (few_shot) minus label_only: {made_of[:6]}" not in explaining, "equal shares"
    assert "standard (few_shot) minus label_only −" in explaining, "told there, and not twice"
    for primary in ([], ["explaining", "standard (few_shot) minus label_only"]):
        assert "What do the other planned contrasts show?" not in said_of(world, primary=primary)[0]


def test_an_interval_holds_no_impossible_difference_and_none_is_called_detectable(tmp_path):
    world = World(tmp_path).add("label_only", right=(10, 30), explains=False).add("multitask", right=(39, 5))
    _, tests = said_of(world)
    row = tests[tests["family"] == "primary"].iloc[0]
    assert (row["low"], row["high"]) == (-1, 1) and row["detectable"] != row["detectable"]
