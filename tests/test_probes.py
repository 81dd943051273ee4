"""The probes: which text is put before an answer, and the table of what was answered, by hand."""

import pandas as pd
import pytest

from kdutils.student.methods import METHODS, Explained
from kdutils.student.probes import forced_texts, perturbed, probe_table, probed_method

ITEMS = [{"id": "a", "answer": "cow", "choices": ["cow", "owl", "ant"]},
         {"id": "b", "answer": "owl", "choices": ["cow", "owl", "ant"]}]
EXPLAINED = {"a": Explained("It gives milk.", {"owl": "It flies.", "ant": "It crawls."}), "b": Explained(None, {})}


class Words:
    """A tokenizer whose tokens are the words of a sentence: 0 to 99, of which 0 and 1 are special."""

    all_special_ids = [0, 1]

    def __len__(self):
        return 100

    def __call__(self, text, add_special_tokens):
        return {"input_ids": [int(word) for word in text.split()]}

    def decode(self, ids, skip_special_tokens):
        return " ".join(map(str, ids))


def test_the_table_of_probes_by_hand():
    rows = [("teacher", "cow", "cow", True), ("teacher", "owl", "ant", False), ("teacher", "ant", "cow", False),
            ("own", "", "cow", True), ("own", "", "owl", False), ("wrong", "owl", "owl", False),
            ("wrong", "ant", "cow", True), ("wrong", "ant", "ant", False), ("wrong", "owl", "owl", False)]
    probes = pd.DataFrame([{"id": str(place), "seed": 3, "probe": probe, "asserted": asserted, "chosen": chosen,
                            "correct": right} for place, (probe, asserted, chosen, right) in enumerate(rows)])
    table = probe_table(probes).set_index("probe")
    assert table["questions"].to_dict() == {"teacher": 3, "own": 2, "wrong": 4} and set(table["seed"]) == {3}
    assert table["accuracy"].tolist() == pytest.approx([1 / 3, 1 / 2, 1 / 4])
    assert table["asserted answer given"].tolist()[::2] == pytest.approx([1 / 3, 3 / 4])
    assert pd.isna(table.loc["own", "asserted answer given"]), "an own explanation asserts nothing that is known"
    assert list(probe_table(probes.iloc[:0])) == ["seed", "probe", "questions", "accuracy", "asserted answer given"]


def test_which_text_a_probe_forces():
    texts = forced_texts(ITEMS, EXPLAINED, {"a": "7 8 9 10", "b": ""}, Words(), 0, "encoder")
    assert texts["none"] == {"a": ("", ""), "b": ("", "")} and texts["own"] == {"a": ("7 8 9 10", "")}
    assert texts["teacher"] == texts["told right"] == {"a": ("It gives milk.", "cow")}
    assert texts["wrong"] == texts["told wrong"]
    assert texts["wrong"]["a"] in (("It flies.", "owl"), ("It crawls.", "ant"))
    assert list(texts["perturbed"]) == ["a"] and texts["perturbed"]["a"][1] == ""
    drawn = {forced_texts(ITEMS, EXPLAINED, {}, Words(), seed, "decoder")["wrong"]["a"][1] for seed in range(20)}
    assert drawn == {"owl", "ant"}, "the wrong answer depends on the seed"
    assert set(forced_texts(ITEMS, EXPLAINED, {}, Words(), 0, "decoder")) == {"none", "teacher", "wrong"}


@pytest.mark.parametrize(("count", "replaced"), [(1, 0), (2, 1), (3, 2), (10, 5), (11, 6)])
def test_half_of_the_tokens_are_replaced_by_ordinary_ones(count, replaced):
    """Python rounds .5, 1.5 and 5.5 to the even numbers 0, 2 and 6; a draw may hit the token that was there."""
    text = " ".join(str(2 + place) for place in range(count))
    found = [perturbed(text, Words(), str(seed)).split() for seed in range(30)]
    changes = [sum(new != old for new, old in zip(words, text.split(), strict=True)) for words in found]
    assert max(changes) == replaced and all(2 <= int(word) < 100 for words in found for word in words)
    assert sum(changes) >= 0.9 * 30 * replaced
    places = {place for words in found for place, (new, old) in enumerate(zip(words, text.split(), strict=True))
              if new != old}
    assert len(places) == (count if replaced else 0), "any place can be hit"


def test_a_student_without_a_path_from_explanation_to_answer_is_not_probed():
    found = {name: probed_method(name) for name in METHODS}
    assert found["combined"] == found["counterfactual"] == "counterfactual"
    assert [found[name] for name in ("label_only", "multitask", "shuffled", "token_rationale")] == [None] * 4
