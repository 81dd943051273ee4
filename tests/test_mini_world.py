"""The embedded world keeps its promises, checked on the facts themselves."""

import re
from itertools import combinations

import yaml

from kdutils.data import mini_world as mini
from kdutils.data.mini_world import (
    build_questions,
    find_key,
    load_world,
    read_statements,
    true_rationale,
    true_rationales,
    truth_of,
)
from kdutils.data.questions import check_questions
from kdutils.teacher.prompting import FOLDER

FACTS = yaml.safe_load((FOLDER.parents[1] / "data" / "world.yaml").read_text())["concepts"]


def fits(name, key):
    return [FACTS[name][relation] == value for relation, value in key]


def test_sizes_and_determinism():
    table = build_questions()
    assert 60 <= len(FACTS) <= 80 and all(len(facts) == 5 for facts in FACTS.values())
    assert table["split"].value_counts().to_dict() == {"train": 1500, "test": 300, "dev": 200}
    assert table.equals(build_questions()) and not table.equals(build_questions(seed=1))
    check_questions(table, "mini")


def test_one_choice_is_right_and_two_are_half_right():
    asked = set()
    for item in build_questions().to_dict("records"):
        key = find_key(item["question"])
        asked.add(len(key))
        assert len(item["choices"]) == 5
        assert [name for name in item["choices"] if all(fits(name, key))] == [item["answer"]]
        if len(key) == 2:
            half = [name for name in item["choices"] if sum(fits(name, key)) == 1]
        else:
            half = [name for name in item["choices"] if name != item["answer"]
                    and any(FACTS[name][r] == FACTS[item["answer"]][r] for r in FACTS[name])]
        assert len(half) >= 2, item
    assert asked == {1, 2}


def test_no_question_of_one_split_is_asked_in_another_in_any_wording():
    table = build_questions()
    keys = {split: set(map(find_key, part["question"])) for split, part in table.groupby("split")}
    for first, second in combinations(keys, 2):
        assert not keys[first] & keys[second]


def test_shots_of_every_prompt_are_in_no_split():
    questions = set(build_questions()["question"])
    keys = set(map(find_key, questions))
    for path in (FOLDER / "mini").glob("*.txt"):
        shots = re.findall(r"^Question: ([^{].*)$", path.read_text(), re.MULTILINE)
        assert path.stem == "requests" or len(shots) >= 2
        for shot in shots:
            assert shot not in questions and find_key(shot) in load_world().shot_keys and find_key(shot) not in keys


def test_true_rationales_say_only_facts_and_name_what_the_answer_has():
    claim = re.compile(r"(?:A|An) (\w+) ")
    clauses = {name: {mini.load_world().clause(*fact) for fact in facts.items()} for name, facts in FACTS.items()}
    for item in build_questions(300, 10, 100).to_dict("records"):
        texts = true_rationales(item["question"], item["choices"], item["answer"])
        assert len(texts) >= 2 and true_rationale(item["question"], item["choices"], item["answer"]) in texts
        for text in texts:
            for sentence in re.findall(r"[^.]+\.", text):
                name = claim.match(sentence.strip())[1]
                said = re.split(r",? but | and ", sentence.strip().rstrip(".").split(f" {name} ", 1)[1])
                assert set(said) <= clauses[name], sentence


def test_an_explanation_for_a_wrong_answer_asserts_it():
    text = true_rationale("What has fur?", ["cat", "car", "owl", "bed", "saw"], "car")
    assert text.startswith("A car has fur.") and "cat" in text


def test_teacher_transcripts_ask_no_dev_or_test_question():
    import random

    from kdutils.mini.models import SHARES, transcript

    draw, train = random.Random(0), mini.split_keys()["train"]
    held_out = {key for split in ("dev", "test") for key, _ in mini.split_keys()[split]}
    for layout in SHARES:
        for _ in range(30):
            text = "".join(part for part, _ in transcript(draw, train, layout))
            asked = {find_key(question) for question in re.findall(r"^Question: (.*)$", text, re.MULTILINE)}
            assert asked and not asked & held_out


# Is a text true?

def test_statements_are_read_and_checked_against_the_facts():
    found = read_statements("A cow has horns and is good for milk. A goat is an animal, but is found in the sea. "
                            "The answer is cow. A car is a fruit and has wheels! A cow has seven horns. It rains.")
    assert [(one.concept, one.fact, one.true) for one in found] == [
        ("cow", ("part", "horns"), True), ("cow", ("use", "milk"), True), ("goat", ("kind", "animal"), True),
        ("goat", ("place", "sea"), False), ("car", ("kind", "fruit"), False), ("car", ("part", "wheels"), True),
        ("cow", ("", ""), None), ("", ("", ""), None)]
    assert read_statements("") == [] == read_statements("So the answer is cow.")


def test_every_true_rationale_is_wholly_true_and_a_changed_one_is_not():
    table = build_questions(60, 5, 30)
    for item in table.to_dict("records"):
        for text in true_rationales(item["question"], item["choices"], item["answer"]):
            assert truth_of(text, item["question"], item["answer"]) == {
                "states_facts": 1.0, "wholly_true": 1.0, "true_share": 1.0, "true_reason": 1.0}
        wrong = next(choice for choice in item["choices"] if choice != item["answer"])
        claim = true_rationale(item["question"], item["choices"], wrong)  # claims the asked facts of a wrong choice
        assert truth_of(claim, item["question"], wrong)["wholly_true"] == 0.0
        assert truth_of(f"The answer is {item['answer']}.", item["question"], item["answer"]) == {
            "states_facts": 0.0, "wholly_true": None, "true_share": None, "true_reason": 0.0}
        words = truth_of("goat goat wheels. lemon", item["question"], item["answer"])
        assert words["wholly_true"] is None and words["states_facts"] == 0, "words are neither true nor false"
    assert truth_of("A cow has horns.", "Where do people sit?", "cow") is None
