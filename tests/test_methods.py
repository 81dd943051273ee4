"""What a question becomes for a method, what the teacher's tables become, and how an answer is read back."""

import json
import random

import pandas as pd
import pytest
from scipy.stats import chisquare

from kdutils.data.answers import answered_right, is_right, match_choice, normalise_answer, parse_answer, parse_number
from kdutils.data.datasets import nli_question
from kdutils.data.texts import LAYOUT, WORDS, question_words
from kdutils.errors import StudyError
from kdutils.experiments.steps import SETTINGS
from kdutils.runs import PROJECT, read_json
from kdutils.student.collating import EpochRows
from kdutils.student.methods import (
    METHODS,
    Explained,
    Row,
    apply_control,
    explained_of,
    format_source,
    rows_of,
    task_weights,
    train_texts,
)
from kdutils.student.rows import TokenRow
from kdutils.teacher.choices import PROMPTINGS
from kdutils.teacher.word_scores import eligible_spans, words_of

ITEM = {"id": "1", "split": "train", "question": "What is wet?", "choices": ["the sun", "water", "sand"],
        "answer": "water"}
SOURCE = "Question: What is wet?\nChoices: (a) the sun (b) water (c) sand"
SOFT = {"the sun": 0.25, "water": 0.625, "sand": 0.125}
FULL = Explained("It flows.", {"the sun": "It shines.", "sand": "It trickles."}, soft=SOFT)


def texts(method, explained=FULL, item=ITEM, **parameters):
    return [(row.task, row.source, row.target, row.target_prefix)
            for row in rows_of(method, parameters, item, explained)]


def test_rows_of_the_methods_that_answer_first():
    predict = ("predict", f"[predict] {SOURCE}", "The answer is water.", "")
    assert texts("label_only") == [predict]
    assert texts("standard") == [(*predict[:2], "The answer is water. Explanation: It flows.", "")]
    assert texts("multitask") == texts("shuffled") == [predict, ("explain", f"[explain] {SOURCE}", "It flows.", "")]
    tokens = ("tokens", f"[tokens] {SOURCE}", "wet water", "")
    assert texts("token_rationale", "wet water") == texts("random_tokens", "wet water") == [predict, tokens]


def test_every_sample_of_a_rationale_is_an_alternative():
    several = Explained("It flows.", {}, ("It pours.",))
    plain = ("predict", f"[predict] {SOURCE}", "The answer is water.", "")
    explain = ("explain", f"[explain] {SOURCE}")
    assert texts("label_only", several) == [plain]
    assert texts("multitask", several) == [plain, (*explain, "It flows.", ""), (*explain, "It pours.", "")]
    assert [row[2] for row in texts("standard", several)] == [
        "The answer is water. Explanation: It flows.", "The answer is water. Explanation: It pours."]
    assert [row[2] for row in texts("untagged", several)] == [
        "It flows. So the answer is water.", "It pours. So the answer is water."]


def test_one_sample_is_drawn_per_epoch_and_in_the_long_run_each_equally_often():
    rows = [TokenRow(1, [1], [number]) for number in range(4)]
    epochs = EpochRows([[TokenRow(0, [1], [9]), tuple(rows)]], ["question"], seed=0)
    drawn = []
    for epochs.epoch in range(400):
        predict, explained = epochs[0]
        assert predict.task == 0 and explained in rows
        drawn.append(explained.target[0])
    counts = [drawn.count(number) for number in range(4)]
    assert chisquare(counts).pvalue > 0.01


def test_shuffled_exchanges_all_samples_of_a_question_together():
    items = [{**ITEM, "id": key} for key in "abcd"]
    given = {key: Explained(f"{key}0", {}, (f"{key}1", f"{key}2")) for key in "abcd"}
    found = apply_control("shuffled", {}, items, given, seed=1)
    origin = {key: {text[0] for text in one.rationales} for key, one in found.items()}
    assert all(len(keys) == 1 and keys != {key} for key, keys in origin.items())
    assert {text for one in found.values() for text in one.rationales} == {
        text for one in given.values() for text in one.rationales}
    words = apply_control("random_tokens", {}, items, given, seed=1)
    assert all(len(one.rationales) == 1 for one in words.values()), "there is one list of words"


def test_of_several_samples_the_usable_and_right_ones_are_learnt_each_once():
    questions = pd.DataFrame([{**ITEM, "id": key} for key in "ab"])
    rows = [("a", 0, "water", "It flows."), ("a", 1, "the sun", "It shines."), ("a", 2, "water", None),
            ("a", 3, "water", "It pours."), ("a", 4, "water", "It flows."), ("b", 0, "sand", "It trickles."),
            ("b", 1, "sand", "It runs.")]
    table = pd.DataFrame(rows, columns=["id", "sample", "answer", "text"]).assign(stage="rationale", round=0)
    found = explained_of(table, questions)
    assert found["a"].rationales == ("It flows.", "It pours.") and found["b"].rationales == ()


@pytest.mark.parametrize(("answer", "item", "right"), [
    ("(b) water", ITEM, True), ("(c) water", ITEM, False),
    ("Water", ITEM, True), ("the water.", ITEM, True), ("(a)", ITEM, False),
    ("waters", ITEM, False), ("", ITEM, False),
    ("8.0", {**ITEM, "choices": [], "answer": "8"}, True), ("$8", {**ITEM, "choices": [], "answer": "8"}, True),
    ("9", {**ITEM, "choices": [], "answer": "8"}, False),
    ("Broncos", {**ITEM, "choices": [], "answer": "Denver Broncos", "other_answers": ["The Broncos"]}, True),
    ("Broncos", {**ITEM, "choices": [], "answer": "Denver Broncos", "other_answers": []}, False)])
def test_a_teachers_answer_is_right_where_a_students_would_be(answer, item, right):
    """By hand; the spellings of answers that chat models write: letters, brackets, articles, other numbers."""
    row = {"id": "a", "stage": "rationale", "round": 0, "answer": answer, "text": "It flows."}
    assert bool(explained_of(pd.DataFrame([row]), pd.DataFrame([{**item, "id": "a"}]))["a"].rationale) == right


def test_rows_of_a_counterfactual_in_both_styles():
    factual = ("factual", f"[factual] {SOURCE}", "It flows. So the answer is water.", "")
    asked, sun, sand = f"[counterfactual] {SOURCE}", "So the answer is the sun.", "So the answer is sand."
    assert texts("counterfactual") == [factual, ("counterfactual", f"{asked}\nRationale: It shines.", sun, ""),
                                       ("counterfactual", f"{asked}\nRationale: It trickles.", sand, "")]
    assert texts("counterfactual", counterfactual_style="decoder") == [
        factual, ("counterfactual", asked, sun, "It shines."), ("counterfactual", asked, sand, "It trickles.")]
    assert texts("counterfactual", wrong_answers="first") == texts("counterfactual")[:2]
    only = Explained("It flows.", {"sand": "It trickles."})
    assert texts("counterfactual", only, wrong_answers="first")[1][2] == sand  # the first that has a text
    assert texts("combined") == texts("multitask") + texts("counterfactual")


@pytest.mark.parametrize("style", ["encoder", "decoder"])
def test_without_tags_the_rationale_alone_can_drive_the_answer(style):
    tagged = texts("counterfactual", counterfactual_style=style)
    assert texts("untagged", counterfactual_style=style) == [
        (task, source.removeprefix(f"[{task}] "), *rest) for task, source, *rest in tagged]


def test_the_right_answer_is_never_a_counterfactual():
    own = Explained("It flows.", {"water": "It is wet.", "sand": "It trickles."})
    assert [row[2] for row in texts("counterfactual", own)] == ["It flows. So the answer is water.",
                                                                "So the answer is sand."]
    sums = {"id": "2", "question": "3 + 5?", "choices": [], "answer": "8"}
    own = Explained("It is 8.", {"8.0": "It is 8.0.", "9": "It is 9."})
    assert [row[2] for row in texts("counterfactual", own, sums)][1:] == ["So the answer is 9."]


def test_a_question_without_explanation_keeps_its_answer():
    for nothing in (None, "", Explained()):
        assert [row.task for row in rows_of("multitask", {}, ITEM, nothing)] == ["predict"]
        assert rows_of("standard", {}, ITEM, nothing)[0].target == "The answer is water."
        assert rows_of("counterfactual", {}, ITEM, nothing) == [
            Row("factual", f"[factual] {SOURCE}", "So the answer is water.")]
    assert [row.task for row in rows_of("combined", {}, ITEM, "It flows.")] == ["predict", "explain", "factual"]


def test_weights_and_bad_parameters():
    assert task_weights("multitask", {"alpha": 0.25}) == {"predict": 0.25, "explain": 0.75}
    assert task_weights("counterfactual", {"beta": 0.25}) == {"factual": 0.25, "counterfactual": 0.75}
    combined = task_weights("combined", {"alpha": 0.3, "beta": 0.6, "gamma": 0.8})
    assert combined == pytest.approx({"predict": 0.24, "explain": 0.56, "factual": 0.12, "counterfactual": 0.08})
    for method in METHODS:
        assert sum(task_weights(method, {}).values()) == pytest.approx(1)
    for name in ("alpha", "beta", "gamma"):
        with pytest.raises(StudyError, match=f"{name}: 1.5 is not between 0 and 1"):
            task_weights("combined", {name: 1.5})
    with pytest.raises(StudyError, match="counterfactual_style: unknown 'both'; known: encoder, decoder"):
        task_weights("counterfactual", {"counterfactual_style": "both"})
    with pytest.raises(StudyError, match="wrong_answers: unknown 'some'; known: all, first"):
        task_weights("untagged", {"wrong_answers": "some"})
    with pytest.raises(StudyError, match="unknown 'magic'; known: label_only, standard, multitask"):
        task_weights("magic", {})


def test_every_method_says_how_it_is_asked():
    for name, method in METHODS.items():
        rows = rows_of(name, {}, ITEM, FULL)
        asks = [row for row in rows if row.source == rows_of(name, {}, ITEM, Explained(soft=SOFT))[0].source]
        assert any(method.says("water") in row.target for row in asks), name
        assert rows[0].source.startswith(f"[{method.answer}] " if method.answer else "Question: ")
        explains = [row for row in rows if "It flows." in row.target]
        assert bool(explains) == (method.explanation is not None)
        assert all(row.source.startswith(f"[{method.explanation}] " if method.explanation else "Question: ")
                   for row in explains if row.task != "factual" or name != "combined")
        assert method.one_text == any(method.says("water") in row.target for row in explains
                                      if row.task != "factual" or name != "combined")


def test_every_method_says_what_it_reads_and_which_notebook_trains_it():
    assert len({method.notebook for method in METHODS.values()}) == len(METHODS)
    for name, method in METHODS.items():
        assert (PROJECT / "notebooks" / f"{method.notebook}.ipynb").is_file() and method.notebook.endswith(name)
        assert method.explained == (method.explanation is not None or bool(method.promptings))
        assert ("counterfactuals" in method.beside) == ("counterfactual" in task_weights(name, {}))
        assert set(method.beside.values()) | set(method.promptings) <= set(PROMPTINGS)
        assert set(method.beside) <= SETTINGS[method.notebook].model_fields.keys()
        assert method.control_of in ("", *METHODS) and (not method.control or method.control_of)
        if method.control_of:
            plain = METHODS[method.control_of]
            assert not plain.control_of and task_weights(name, {}) == task_weights(method.control_of, {})


# Controls

def items_of(count, split="train"):
    return [{**ITEM, "id": f"{split}-{place}", "split": split} for place in range(count)]


@pytest.mark.parametrize("seed", range(5))
def test_shuffled_gives_every_question_the_rationale_of_another_one_of_its_split(seed):
    items = items_of(9) + items_of(4, "dev") + items_of(2, "test")
    explained = {item["id"]: Explained(f"About {item['id']}.", {"sand": "It trickles."}) for item in items}
    explained["train-3"] = Explained()
    changed = apply_control("shuffled", {}, items, explained, seed)
    assert changed["train-3"] == Explained()
    for split in ("train", "dev", "test"):
        own = [item["id"] for item in items if item["split"] == split and item["id"] != "train-3"]
        assert all(changed[key].rationale != explained[key].rationale for key in own)
        assert sorted(changed[key].rationale for key in own) == sorted(explained[key].rationale for key in own)
    assert changed == apply_control("shuffled", {}, items, explained, seed)
    assert changed != apply_control("shuffled", {}, items, explained, seed + 1)
    assert apply_control("multitask", {}, items, explained, seed) == explained
    with pytest.raises(StudyError, match="question 'train-0' is the only train question with a rationale"):
        apply_control("soft_shuffled", {}, items_of(1), {"train-0": "It flows."}, 0)
    alone = apply_control("shuffled", {}, items_of(2) + items_of(1, "dev"), dict.fromkeys(
        ("train-0", "train-1", "dev-0"), "It flows."), 0)
    assert alone["dev-0"].rationale is None and alone["train-0"].rationale, "a dev question is no reason to stop"


def test_shuffled_takes_every_rationale_from_another_data_set_where_it_is_given_one():
    items, others = items_of(40) + items_of(3, "dev"), [f"Elsewhere {number}." for number in range(8)]
    explained = {item["id"]: Explained(f"About {item['id']}.", {"sand": "It trickles."}) for item in items}
    explained["train-3"] = Explained()
    changed = apply_control("shuffled", {}, items, explained, 0, others)
    assert changed["train-3"] == Explained(), "as many explanations to learn from as multitask has"
    drawn = [one.rationale for key, one in changed.items() if key != "train-3"]
    assert set(drawn) == set(others) and changed["dev-0"].counterfactuals == {"sand": "It trickles."}
    assert changed == apply_control("shuffled", {}, items, explained, 0, others)
    assert changed != apply_control("shuffled", {}, items, explained, 1, others)
    few = apply_control("shuffled", {}, items[5:9], explained, 0, others)
    assert all(few[key] == changed[key] for key in few), "a question's draw does not hang on the others"
    alone = apply_control("shuffled", {}, items_of(1, "dev"), {"dev-0": "It flows."}, 0, others)
    assert alone["dev-0"].rationale in others, "there need not be another question"
    assert apply_control("multitask", {}, items, explained, 0, others) == explained
    several = {"train-0": Explained("a", {}, ("b", "c")), "train-1": Explained("a", {}, tuple("bcdefghij"))}
    some = apply_control("shuffled", {}, items_of(2), several, 0, others)
    assert [len(set(some[key].rationales)) for key in ("train-0", "train-1")] == [3, 8], "as many as the question has"
    assert all(set(one.rationales) <= set(others) for one in some.values())


def test_the_texts_of_another_data_set_are_its_usable_train_rationales_for_the_right_answer():
    questions = pd.DataFrame([{**ITEM, "id": str(number), "split": split, "human_explanations": []}
                              for number, split in enumerate(["train", "train", "train", "dev", "train", "train"])])
    rows = [("0", "It flows.", "water"), ("1", None, "water"), ("2", "It trickles.", "sand"), ("3", "Wet.", "water"),
            ("4", "It runs.", "water"), ("5", "It flows.", "water")]
    explanations = pd.DataFrame([{"id": key, "stage": "rationale", "round": 0, "answer": answer, "text": text}
                                 for key, text, answer in rows])
    assert train_texts(explanations, questions) == ["It flows.", "It runs."]
    twice = explanations.assign(sample=0)
    twice = pd.concat([twice, twice[twice["id"] == "0"].assign(sample=1, text="It pours.")])
    assert train_texts(twice, questions) == ["It flows.", "It pours.", "It runs."]
    with pytest.raises(StudyError, match=r"the other data set has no usable rationale \(5 train questions, 0 exp"):
        train_texts(explanations.head(0), questions)


def test_random_tokens_are_words_of_the_question_in_its_order_as_many_as_the_rationale_has():
    draw, words = random.Random(0), [f"word{number}" for number in range(12)]
    seen = set()
    for turn in range(300):
        item = {**ITEM, "id": str(turn), "question": f"{' '.join(words[:8])}?", "choices": words[8:]}
        length = draw.randint(1, 9)
        chosen = apply_control("random_tokens", {}, [item], {item["id"]: " ".join(["x"] * length)}, 1)[item["id"]]
        picked = chosen.rationale.split()
        assert len(picked) == length and picked == sorted(set(picked), key=words.index)
        seen |= set(picked)
    assert seen == set(words)
    wordy = {**ITEM, "question": "The cow, the grass and the farm?", "choices": ["the cow"]}
    for seed in range(20):
        picked = apply_control("random_tokens", {}, [wordy], {"1": "a b c d"}, seed)["1"].rationale.split()
        assert len({word.casefold() for word in picked}) == 4, "attributed words are distinct, too"
    assert apply_control("random_tokens", {}, [wordy], {"1": "x " * 99}, 0)["1"].rationale == "The cow grass and farm"
    assert apply_control("random_tokens", {}, [ITEM], {"1": None}, 0)["1"].rationale is None
    assert WORDS.findall("don't half-way, (b) 3.5?") == ["don't", "half-way", "b", "3", "5"]


def test_random_tokens_leaves_out_the_layout_that_the_attribution_random_leaves_out():
    item = {**ITEM, "question": nli_question("A cow eats grass.", "Its premise is: the relationship."),
            "choices": ["entailment", "neutral"]}
    words = "A cow eats grass Its premise is the relationship entailment neutral"
    assert question_words(item) == words.split()
    source = format_source(item, "predict")
    assert [word for word, *_ in words_of(source, eligible_spans(item, source, LAYOUT))] == words.split()
    drawn = {word for seed in range(40) for word in
             apply_control("random_tokens", {}, [item], {"1": "a b c d e"}, seed)["1"].rationale.split()}
    assert drawn == set(words.split())
    cells = read_json(PROJECT / "notebooks" / "05_explain_tokens.ipynb")["cells"]
    line, = [line for cell in cells for line in cell["source"] if line.startswith("frame: list")]
    assert f"= {json.dumps(list(LAYOUT))} " in line


# From tables

QUESTIONS = pd.DataFrame([{**ITEM, "id": key, "human_explanations": []} for key in "abc"])


def explanations(*rows):
    return pd.DataFrame([dict(zip(("id", "stage", "round", "answer", "text"), row, strict=True)) for row in rows])


def test_the_last_revision_is_read_and_never_mixed_with_what_was_written_first():
    first = [(key, "rationale", 0, "water", "first") for key in "abc"]
    assert {key: one.rationale for key, one in explained_of(explanations(*first), QUESTIONS).items()} == {
        "a": "first", "b": "first", "c": "first"}
    table = explanations(*first, ("a", "revision", 2, "water", "second"), ("a", "revision", 1, "water", "once"),
                         ("b", "revision", 1, "water", "once"), ("b", "revision", 2, "water", None),
                         ("c", "critique", 1, "water", "a critique"), ("c", "revision", 1, "sand", "for another"))
    assert {key: one.rationale for key, one in explained_of(table, QUESTIONS).items()} == {
        "a": "second", "b": None, "c": None}
    old = table[table["round"] == 1].drop(columns="round")  # a table from before there were rounds
    assert explained_of(old, QUESTIONS)["b"].rationale == "once"


def test_counterfactuals_come_from_either_table_and_argue_for_a_wrong_choice():
    table = explanations(("a", "rationale", 0, "water", "true"), ("b", "rationale", 0, "sand", "teacher was wrong"),
                         ("a", "counterfactual", 0, "sand", "for sand"), ("a", "counterfactual", 0, "water", "gold"),
                         ("a", "counterfactual", 0, "the sun", None), ("c", "counterfactual", 0, "fire", "no choice"),
                         ("zz", "counterfactual", 0, "sand", "another question"))
    more = explanations(("a", "counterfactual", 0, "the sun", "for the sun"), ("a", "rationale", 0, "water", "other"))
    assert explained_of(table, QUESTIONS) == {"a": Explained("true", {"sand": "for sand"}), "b": Explained(),
                                              "c": Explained()}
    assert explained_of(table, QUESTIONS, more)["a"] == Explained("true", {"sand": "for sand",
                                                                           "the sun": "for the sun"})


# Reading back

@pytest.mark.parametrize(("text", "choices", "answer", "explanation"), [
    ("The answer is water. Explanation: It flows. The answer is x.", ["sun", "water"], "water",
     "It flows. The answer is x."),
    ("the answer is water . explanation : it flows .", ["sun", "Water"], "Water", "it flows ."),  # uncased decoding
    ("The answer is u.s. Explanation: no.", ["u.s.", "uk"], "u.s.", "no."),
    ("The answer is u.s..", ["u.s.", "uk"], "u.s.", ""),
    ("The answer is (b).", ["sun", "water"], "water", ""),
    ("The answer is (b) water.", ["sun", "water"], "water", ""),
    ("The answer is (a) water.", ["sun", "water"], "(a) water", ""),  # letter and text disagree
    ("The answer is the  Water!", ["sun", "water"], "water", ""),
    ("The answer is water. It flows.", ["sun", "water"], "water", ""),
    ("The answer is fire.", ["sun", "water"], "fire", ""),
    ("The answer is 42.", [], "42", ""),
    ("The answer is 8. Because 3 + 5 is 8.", [], "8", ""),
    ("The answer is -8.5.", [], "-8.5", ""),
    ("The answer is 4. Infantry Division.", [], "4. Infantry Division", ""),
    ("The answer is 3. Oktober 1990.", [], "3. Oktober 1990", ""), ("The answer is 1. FC Köln.", [], "1. FC Köln", ""),
    ("The answer is 8. He left. Ann Lee too.", [], "8", ""), ("The answer is 8. 8.", [], "8", ""),
    ("The answer is 4. Infantry Division.", ["4", "5"], "4", ""),
    ("It flows. So the answer is water.", ["sun", "water"], "water", "It flows."),
    ("it flows . so the answer is water .", ["sun", "water"], "water", "it flows ."),
    ("The answer is hot? No: so the answer is water.", ["sun", "water"],
     "hot? No: so the answer is water", ""),  # it began with an answer
    ("Not so the answer is sun. So the answer is (b). So the answer is", ["sun", "water"], "water",
     "Not so the answer is sun."),
    ("So the answer is water.", ["sun", "water"], "water", ""),
    ("3 + 5 is 8. So the answer is 8.", [], "8", "3 + 5 is 8."),
    ("So the answer is", ["sun", "water"], "", ""),
    ("It flows and flows", ["sun", "water"], "", ""),
    ("water", ["sun", "water"], "", ""),
    ("", ["sun", "water"], "", ""),
    ("The answer is ", ["sun", "water"], "", ""),
])
def test_answers_are_read_back(text, choices, answer, explanation):
    assert parse_answer(text, choices) == (answer, explanation)


@pytest.mark.parametrize("method", METHODS)
def test_what_a_method_teaches_is_read_back(method):
    for choices, gold in ((["u.s.", "the u.k.", "a b"], "u.s."), (["8", "-8", "8.5"], "8"), ([], "8.0"), ([], "U. S.")):
        item = {"id": "1", "question": "?", "choices": choices, "answer": gold}
        if not choices and any(task.together for task in METHODS[method].tasks({})):
            continue  # a soft label is one of choices
        row = rows_of(method, {}, item, Explained("It. Is so.", soft={choice: float(choice == gold)
                                                                     for choice in choices}))[0]
        answer, explanation = parse_answer(row.target, choices)
        assert is_right(answer, gold, choices) and not choices or answer == gold
        assert explanation == ("It. Is so." if METHODS[method].one_text else "")


def test_an_answer_inside_a_longer_word_is_not_right():
    assert not is_right("cardboard", "card", ["card", "board"])  # a substring match would count it
    assert not is_right("", "card", ["card", "board"])
    assert is_right("Card.", "card", ["card", "board"])
    assert is_right("The 12 apples", "12 apples")


@pytest.mark.parametrize(("one", "other", "equal"), [
    ("8", "8.0", True), ("8", "8.", True), ("1,000", "1000", True), ("$5", "5", True), ("50 %", "50", True),
    ("-8", "8", False), ("−8", "-8.0", True), ("1.5", "15", False), ("1,2", "12", False), (".5", "0.50", True),
    ("8 apples", "8", False), ("nan", "nan", True), ("12", "twelve", False)])
def test_numbers_are_compared_by_their_value(one, other, equal):
    assert is_right(one, other) is equal
    assert parse_number("nan") is None and parse_number("inf") is None and parse_number("$-5") is None


@pytest.mark.parametrize(("predicted", "gold", "same"), [
    ("-3 °C", "3 °C", False), ("−3 °C", "3 °C", False), ("−3 °C", "-3 °C", True), ("(-3) m", "-3 m", True),
    ("-5 dollars", "5 dollars", False), ("+5 dollars", "5 dollars", True), ("$5 bill", "5 bill", True),
    ("O-", "O+", False), ("o+", "O+", True), ("C", "C++", False), ("C#", "C", False), ("F#", "F", False),
    ("x < 5", "x > 5", False), ("x=5", "x = 5", True), ("x+1", "x-1", False), ("x + 1", "x+1", True),
    ("-x", "x", False), ("2^-1", "2^1", False), ("2^3", "23", False), ("-", "+", False),
    ("well-known", "well known", True), ("- fire", "fire", True), ("10-20", "10 20", True),
    ("1990–1995", "1990-1995", True),
    ("Jean - Luc", "Jean-Luc", True), ("“fire”", "fire", True), ("the U.S.", "U.S", True), ("8.0", "8", True)])
def test_signs_that_change_what_an_answer_says_have_to_be_the_same(predicted, gold, same):
    read = parse_answer(f"The answer is {predicted}.")[0]
    assert answered_right(read, {"answer": gold, "choices": []}) is same
    assert is_right(gold, predicted) is same, "in both directions"


@pytest.mark.parametrize("stated", [": (b) water.", "**(b) water**.", "**water**.", '"water".', "`water`"])
def test_marks_around_a_stated_choice_do_not_count(stated):
    assert parse_answer(f"The answer is {stated}", ["fire", "water", "ice"])[0] == "water"


def test_choices_that_only_differ_in_case_or_article_are_told_apart():
    assert match_choice("the bank", ["bank", "the bank"]) == "the bank"
    assert match_choice("The  BANK", ["bank", "the bank"]) == "The  BANK"  # either one: no guess
    assert match_choice("b", ["B", "C"]) == "b"  # its letter says C, its text says B
    assert match_choice("B", ["A", "B"]) == "B" and match_choice("b)", ["x", "y"]) == "y"
    assert match_choice("z", ["x", "y"]) == "z" and match_choice("ſ", ["x", "y"]) == "ſ"
    assert match_choice("8.0", ["-8", "8"]) == "8"
    assert normalise_answer("The  U.S.!") == "u s"
    assert normalise_answer("A") == "a"  # an answer that is an article is not emptied
