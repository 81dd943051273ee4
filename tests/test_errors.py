"""Where students err, on predictions small enough to count by hand."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t

from kdutils.data.datasets import nli_question
from kdutils.data.mini_world import build_questions, true_rationale
from kdutils.evaluation.error_analysis import (
    accuracy_by_question_group,
    by_likelihood,
    confusion,
    learnt_samples,
    question_type,
    rationale_effects,
    rationale_flags,
    won_and_lost,
)
from kdutils.student.methods import explained_of

QUESTIONS = pd.DataFrame({
    "id": ["1", "2", "3"], "question": ["a b c d e", "a b", "a b c"], "answer": ["x", "y", "z"],
    "choices": [["x", "y", "z"], ["w", "x", "y"], ["z", "x", "y"]]})


def said(*answers, seed=0, scores=None):
    right = list(QUESTIONS["answer"])
    return pd.DataFrame({"id": ["1", "2", "3"], "seed": seed, "answer": right, "predicted": answers,
                         "correct": [a == b for a, b in zip(answers, right, strict=True)],
                         "scores": scores or [[], [], []], "score_tokens": [[1, 2, 4]] * 3})


def explained(texts, changes=()):
    """Return explanations of {question id: text} of the right answers."""
    answers = QUESTIONS.set_index("id")["answer"]
    return pd.DataFrame([{"id": key, "stage": "rationale", "round": 0, "sample": 0, "raw": "", "answer": answers[key],
                          "text": text, "changes": list(changes)} for key, text in texts.items()])


def test_confusion_counts_places_and_what_is_no_choice():
    table = confusion(said("x", "w", "moon"), QUESTIONS)
    assert list(table.columns) == ["a", "b", "c", "none"]
    assert table.loc["a"].tolist() == [1, 0, 0, 1] and table.loc["c"].tolist() == [1, 0, 0, 0]
    same = QUESTIONS.assign(choices=[["x", "y", "z"]] * 3)
    assert list(confusion(said("x", "y", "z"), same).columns) == ["x", "y", "z", "none"]
    assert confusion(said("x", "y", "z"), QUESTIONS.assign(choices=[[]] * 3)).to_numpy().sum() == 0


def test_the_likeliest_choice_by_sum_and_per_token():
    scores = [[math.log(0.5), math.log(0.25), math.log(0.25)], [-2, -3, -2.4], [-800.0, -900.0, -3000.0]]
    rows = by_likelihood(said("x", "y", "z", scores=scores), QUESTIONS).set_index("id")
    assert rows["chosen"].tolist() == ["x", "w", "z"] and rows["correct"].tolist() == [True, False, True]
    # per token: -0.69, -0.69, -0.35 -> z; -2, -1.5, -0.6 -> y; -800, -450, -750 -> x
    assert rows["chosen_per_token"].tolist() == ["z", "y", "x"]
    assert rows.at["1", "probability"] == pytest.approx(0.5) and rows.at["3", "probability"] == pytest.approx(1)
    assert by_likelihood(said("x", "y", "z"), QUESTIONS).empty, "no scores, no rows"


def test_differences_are_broken_down_by_kind():
    flags = rationale_flags(explained({"1": "An x it is.", "2": "It is so."}), QUESTIONS)
    table = accuracy_by_question_group(said("x", "y", "q"), said("q", "y", "z"), QUESTIONS,
                                       flags).set_index("questions with")
    assert table.at["question of at most 3 words", "difference"] == -0.5
    assert table.at["question of more than 3 words", "difference"] == 1
    assert table.at["right choice at (a)", "questions"] == 2 and table.at["right choice at (c)", "difference"] == 0
    assert table.at["rationale names the answer", "difference"] == 1 and table.at["no rationale", "difference"] == -1


def test_without_a_common_question_there_is_no_group():
    flags = rationale_flags(explained({"1": "An x it is."}), QUESTIONS)
    assert accuracy_by_question_group(said("x", "y", "z"), said("x", "y", "z"), QUESTIONS[:0], flags).empty


def test_where_no_question_has_a_type_there_is_no_group_by_type():
    flags = rationale_flags(explained({"1": "An x it is."}), QUESTIONS)
    claims = QUESTIONS.assign(choices=[["true", "false"]] * 3, answer=["true", "false", "true"], question=[
        "A cow is an animal who moos.", "Paris lies where the Nile ends.", "Cats walk."])
    pairs = QUESTIONS.assign(question=[nli_question(text, "It rains when it pours.") for text in (
        "A man who sings.", "A dog runs.", "Who knows?")])
    for asked in (claims, pairs):
        table = accuracy_by_question_group(said("x", "y", "q"), said("q", "y", "z"), asked, flags)
        assert not table["questions with"].str.startswith("question word").any() and len(table) > 2
    mixed = pairs.assign(question=[pairs.at[0, "question"], "Who sings?", "Is there rain when it pours?"])
    table = accuracy_by_question_group(said("x", "y", "q"), said("q", "y", "z"), mixed, flags)
    assert table["questions with"].tolist()[:2] == ["question word: who", "question word: yes or no"]


@pytest.mark.parametrize(("question", "kind"), [
    ("Where would you find a seat?", "where"), ("If it rains, what gets wet?", "what"), ("Is water wet?", "yes or no"),
    ("WHO was it?", "who"), ("A light is refracted when", "other"),
    ("When an oak leaf falls to the ground, it is because of", "other"), ("A person who runs will", "other"),
    ("A desert is a place where", "other"), ("What is the largest planet", "what"), ("Which of these is wet", "which"),
    ("May was late. What did she do next?", "what"), ("Will smiled. Why did he smile?", "why"),
    ("The whale is a fish.", "other"), ("A man needs somewhat more,", "other"), ("", "other"),
    ("How and why does it rain?", "how"), ("何ですか?", "other"),
    ("Is there snow on the peak when the village has summer?", "yes or no"), ("Isn't it he who sang?", "yes or no"),
    ("does the river end where the town begins?", "yes or no"), ("“Can you say what it is?”", "yes or no"),
    ("Ann has 3 pens when she starts. She buys 2. How many pens has Ann now?", "how"),
    ("A baker, who sells bread, moved. Where did he go?", "where"), ("What U.S. state has a bayou?", "what"),
    ("To whom did she write?", "who"), ("Whose coat is it?", "who"), ("Does the sun", "other"),
    ("When he looked at the world from space, how did it look?", "how"),
    ("There are lows when suffering what?", "what"),
    ("When he was tired, where did the man go?", "where"), ("People who are tired do what to relax?", "what"),
    ("If a person is tired when at work, which drink helps?", "which"), ("When do people who are ill sleep?", "when"),
    ("Animals make up a large part of the?", "other"), ("He was late. Did he run when it rained?", "yes or no"),
    ("Quelle est la couleur?", "other"), ("The man who was late went where?", "where"),
    ("You sleep when you are tired", "other"), ("Where in the U.S. would you find a beach?", "where"),
    ("Mr. Ali could drive. What did Mrs. Ali do?", "what"),
    ("Isabel asked which road leads home?", "which"), ("The boat that he built could", "other")])
def test_the_type_of_a_question_is_the_word_that_asks(question, kind):
    assert question_type(question) == kind


def test_a_question_that_begins_with_an_auxiliary_asks_for_yes_or_no_whatever_follows():
    for verb in ("is are am was were do does did has have had can could will would should may might must".split()):
        for word in ("who", "what", "where", "when", "why", "how", "which"):
            for question in (f"{verb} it so {word} it rains?", f"{verb.capitalize()} they {word}? ", f"{verb} {word}?"):
                assert question_type(question) == "yes or no", question
            assert question_type(f"{word} {verb} it?") == word and question_type(f"{verb} it so {word} it") == "other"
            assert question_type(f"{word} {verb} it") == word


def test_a_claim_and_a_pair_of_sentences_have_no_type_whatever_their_words():
    for word in ("who", "what", "where", "when", "why", "how", "which", "is"):
        assert question_type(f"A bee is an insect {word} it flies.", ["true", "false"]) is None
        assert question_type(nli_question(f"A man {word} sings.", f"{word} is it?")) is None
        assert question_type(nli_question("A man sings.", f"{word} is it?"), ["yes", "no"]) is None
    assert question_type("What is the relationship?") == "what", "somebody else's question"
    assert question_type("Is a bee an insect?", ["True", "False"]) == "yes or no"
    assert question_type("A bee is what?", ["true", "false"]) == "what"
    assert question_type("A bee is what kind of", ["insect", "bird"]) == "what"


@pytest.mark.parametrize("choices", [["yes", "no"], ["true", "false"], ["entailment", "neutral", "contradiction"]])
def test_whether_an_answer_is_named_is_unknown_where_texts_use_its_word_anyway(choices):
    asked = QUESTIONS.assign(choices=[choices] * 3, answer=[choices[1], choices[0], choices[1]])
    told = explained({"1": "There is no neutral ferry, or is it true?", "2": "A yes.", "3": "Entailment."})
    told["answer"] = list(asked["answer"])
    flags = rationale_flags(told, asked)
    assert flags["names_answer"].isna().all() and flags["words"].notna().all()
    table = accuracy_by_question_group(said("x", "y", "q"), said("q", "y", "z"), asked, flags)["questions with"]
    assert not table.str.contains("name").any()
    effects = rationale_effects(said("x", "y", "q"), said("q", "y", "z"), flags).set_index("rationale")
    assert effects.loc["rationale names the answer", ["with", "without"]].tolist() == [0, 0]


def test_what_can_be_seen_of_a_rationale():
    table = explained({"1": "An x it is.", "2": "So the answer is w."}, changes=["cut_at_blank_line"])
    flags = rationale_flags(table, QUESTIONS)
    assert flags.index.tolist() == ["1", "2"] and flags["cut"].all() and flags["words"].tolist() == [4, 5]
    assert flags["names_answer"].tolist() == [True, False] and flags["argues_otherwise"].tolist() == [False, True]
    assert not flags["teacher_errs"].any()
    revised = pd.concat([table, table.assign(stage="revision", round=1, text=["No word.", None], changes=[[], []])])
    assert rationale_flags(revised, QUESTIONS)["words"].to_dict() == {"1": 2}, "what students learn from, and no more"
    assert rationale_flags(table.assign(answer=["q", "y"]), QUESTIONS)["teacher_errs"].tolist() == [True, False]
    assert rationale_flags(table.head(0), QUESTIONS).empty
    soft = pd.DataFrame([{"id": key, "stage": "choice", "raw": "[-1.0]", "answer": choice, "text": choice,
                          "probability": share} for key, choice, share in [
        ("1", "x", 0.6), ("1", "y", 0.4), ("2", "y", 0.3), ("2", "w", 0.7), ("3", "x", None)]])
    errs = rationale_flags(soft, QUESTIONS)
    assert errs["teacher_errs"].to_dict() == {"1": 0, "2": 1} and errs["words"].isna().all()
    words = rationale_flags(table.assign(raw='[["w", 0.5]]'), QUESTIONS)
    assert words["argues_otherwise"].isna().all() and words["names_answer"].tolist() == [True, False]


def test_the_rationale_is_the_first_that_students_learn_and_the_error_that_of_the_first_answer():
    samples = pd.DataFrame([{"id": key, "stage": "rationale", "round": 0, "sample": sample, "raw": "", "answer": answer,
                             "text": text, "changes": []} for key, sample, answer, text in [
        ("1", 0, "y", "It must be y."), ("2", 0, "y", None), ("3", 0, "x", "One x."),
        ("1", 1, "x", "The x it is, they say."), ("2", 1, "y", "A y."), ("3", 1, "y", "One y again."),
        ("1", 2, "x", "x."), ("9", 0, "x", "Nobody asked this.")]])
    flags = rationale_flags(samples, QUESTIONS)
    assert flags["teacher_errs"].to_dict() == {"1": 1, "2": 0, "3": 1}
    assert flags["words"].loc[["1", "2"]].tolist() == [6, 2] and math.isnan(flags.at["3", "words"])
    assert flags["names_answer"].loc[["1", "2"]].tolist() == [1, 1] and math.isnan(flags.at["3", "names_answer"])
    learnt = {key: one.rationale for key, one in explained_of(samples, QUESTIONS).items()}
    assert {key: row["text"] for key, row in learnt_samples(samples, QUESTIONS).items()} == {
        key: text for key, text in learnt.items() if text}
    table = accuracy_by_question_group(said("x", "y", "q"), said("q", "y", "z"), QUESTIONS, flags)
    counts = table.set_index("questions with")["questions"]
    assert (counts["teacher gives a wrong answer"], counts["rationale names the answer"], counts["no rationale"]) == (
        2, 2, 1)
    assert "rationale does not name it" not in counts and "rationale is wholly true" not in counts


def test_whether_a_rationale_is_true_is_known_in_the_embedded_world_alone():
    table = build_questions(3, 0, 0)
    true = [true_rationale(*row) for row in table[["question", "choices", "answer"]].itertuples(index=False)]
    other = next(name for name in table["choices"][1] if name != table["answer"][1])
    texts = [true[0], true[1].replace(table["answer"][1], other), "It is so."]
    told = pd.DataFrame({"id": table["id"], "stage": "rationale", "round": 0, "sample": 0, "raw": "",
                         "answer": table["answer"], "text": texts, "changes": [[]] * 3})
    flags = rationale_flags(told, table)["wholly_true"]
    assert flags.tolist()[:2] == [1, 0] and math.isnan(flags.iloc[2]), "the third states nothing"
    elsewhere = table.assign(question=[f"{asked} Why?" for asked in table["question"]])
    assert rationale_flags(told, elsewhere)["wholly_true"].isna().all()


def test_the_effect_of_a_rationale_is_a_difference_of_mean_gains_with_students_test():
    keys = [str(number) for number in range(48)]
    right = [1, 1, 0, 1, 1, 0] * 4 + [0, 0, 1, 0, 0, 0] * 4
    other = [0, 0, 0, 1, 0, 0] * 4 + [1, 0, 1, 1, 0, 0] * 4
    first, second = (pd.DataFrame({"id": keys, "seed": 0, "correct": flags}) for flags in (right, other))
    flags = pd.DataFrame({"names_answer": [True] * 24 + [False] * 24, "argues_otherwise": False, "cut": False,
                          "teacher_errs": False, "wholly_true": [1.0, 0.0, 1.0] + [math.nan] * 45,
                          "words": 7}, index=keys)
    row = rationale_effects(first, second, flags).set_index("rationale").loc["rationale names the answer"]
    having, lacking = [1, 1, 0, 0, 1, 0] * 4, [0 - 1, 0, 0, -1, 0, 0] * 4  # by hand: gains with and without
    effect = sum(having) / 24 - sum(lacking) / 24
    variances = [sum((x - sum(xs) / 24) ** 2 for x in xs) / 23 for xs in (having, lacking)]
    error, freedom = math.sqrt(sum(variances) / 2 * (1 / 24 + 1 / 24)), 46
    assert row["effect"] == pytest.approx(effect) and (row["with"], row["without"]) == (24, 24)
    assert row["p"] == pytest.approx(2 * t.sf(effect / error, freedom))
    assert row["high"] - row["low"] == pytest.approx(2 * t.ppf(0.975, freedom) * error)
    truth = rationale_effects(first, second, flags).set_index("rationale").loc["rationale is wholly true"]
    assert (truth["with"], truth["without"], truth["effect"]) == (2, 1, 0.5 - 1), "the others are not known"
    assert math.isnan(truth["p"]), "too few"
    empty = rationale_effects(first, second, flags).set_index("rationale").loc["rationale was cut off or ran on"]
    assert empty["with"] == 0 and math.isnan(empty["p"])
    assert rationale_effects(first, second, flags.head(0))["p"].isna().all()


def test_a_group_of_fewer_than_twenty_and_one_without_variation_have_no_p():
    keys = [str(number) for number in range(60)]
    draw = np.random.default_rng(1).random(60) < 0.5
    flags = pd.DataFrame({name: False for name in ("argues_otherwise", "cut", "wholly_true", "teacher_errs")},
                         index=keys).assign(words=7)
    for size, right, tested in ((19, draw, False), (20, draw, True), (20, [True] * 60, False)):
        first, second = (pd.DataFrame({"id": keys, "seed": 0, "correct": one}) for one in (right, [True] * 60))
        row = rationale_effects(first, second, flags.assign(names_answer=[True] * size + [False] * (60 - size))).iloc[0]
        assert (row["with"], row["without"], math.isnan(row["p"])) == (size, 60 - size, not tested)


def test_a_long_rationale_has_more_words_than_the_median():
    keys = list("12345")
    right = pd.DataFrame({"id": keys, "seed": 0, "correct": True})
    flags = pd.DataFrame({name: False for name in ("names_answer", "argues_otherwise", "cut", "wholly_true",
                                                   "teacher_errs")}, index=keys).assign(words=[2, 5, 5, 5, 9])
    row = rationale_effects(right, right, flags).set_index("rationale").loc["rationale has more than 5 words"]
    assert (row["with"], row["without"]) == (1, 4), "the three of the median are not longer"


@pytest.mark.parametrize(("change", "cut"), [("cut_at_blank_line", 1), ("unfinished_kept", 1), ("quotes_removed", 0)])
def test_a_rationale_that_ran_on_or_has_no_end_counts_as_cut(change, cut):
    assert rationale_flags(explained({"1": "An x it is"}, changes=[change]), QUESTIONS)["cut"].tolist() == [cut]


def test_groups_that_differ_by_chance_are_called_different_as_often_as_said():
    """A group of 20 in which few questions can differ: of equal groups, one in twenty has a p below 0.05."""
    rng, small, found = np.random.default_rng(0), 20, []
    keys = [str(number) for number in range(200)]
    flags = pd.DataFrame({name: [False] * 200 for name in ("argues_otherwise", "cut", "wholly_true", "teacher_errs")},
                         index=keys).assign(names_answer=[True] * small + [False] * 180, words=7)
    for _ in range(300):
        first, second = (pd.DataFrame({"id": keys, "seed": 0, "correct": right}) for right in (
            rng.random(200) < 0.92, [True] * 200))
        found.append(rationale_effects(first, second, flags)["p"].iloc[0] < 0.05)
    assert 0.01 < np.mean(found) < 0.09, "Welch's test has 0.18 here"


def test_a_group_of_at_most_so_many_words_holds_them():
    asked = pd.DataFrame({"id": list("1234"), "question": ["Go on", "Go on now", "Go on now so", "Go on now so as we"],
                          "choices": [["x", "y"]] * 4, "answer": "x"})
    right = pd.DataFrame({"id": list("1234"), "seed": 0, "correct": True})
    flags = rationale_flags(explained({"1": "It is x."}), asked)
    groups = accuracy_by_question_group(right, right, asked, flags).set_index("questions with")["questions"]
    assert groups["question of at most 3 words"] == groups["question of more than 3 words"] == 2, "median 3.5"


def test_won_and_lost_are_the_questions_that_differ():
    told = explained({"1": "An x it is.", "2": "It is so."})
    rows = won_and_lost(said("x", "y", "q"), said("q", "y", "z"), QUESTIONS, told, 5, seed=0)
    assert rows["verdict"].tolist() == ["won", "lost"] and rows["answer"].tolist() == ["x", "z"]
    assert rows["first says"].tolist() == ["x", "q"] and rows["second says"].tolist() == ["q", "z"]
    assert rows["teacher's rationale"].tolist() == ["An x it is.", "–"], "question 3 has none"
    assert won_and_lost(said("x", "y", "z"), said("x", "y", "z"), QUESTIONS, told, 5, seed=0).empty
