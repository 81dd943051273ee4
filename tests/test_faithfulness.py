"""The choice of attribution and number of words: against hand calculation, and single runs of a teacher."""

import json
import re

import numpy as np
import pandas as pd
import pytest
import torch

from kdutils.data.answers import format_answer
from kdutils.data.datasets import NLI_LABELS
from kdutils.data.tables import read_split
from kdutils.errors import StudyError
from kdutils.runs import PROJECT, read_json
from kdutils.student.methods import format_source
from kdutils.teacher import faithfulness
from kdutils.teacher.faithfulness import COLUMNS, choose, compare_choices, describe_choice
from kdutils.teacher.quality import read_answer_shares
from kdutils.teacher.settings import ExplainTokens
from kdutils.teacher.word_scores import SETTINGS, attribute_words, load_model, published_share

EXAMPLE = "kdutils/mini/example"


@pytest.fixture(scope="module")
def teacher():
    """A trained T5, and the dev questions that it answers rightly."""
    folder, table = f"{EXAMPLE}/students/seed-0", read_split(f"{EXAMPLE}/questions/questions.parquet", ["dev"])
    said = attribute_words(table, *texts_of(table), {"model": folder, "target": "own", "max_new_tokens": 16})
    table = table[said["answer"] == table["answer"]].head(8).reset_index(drop=True)
    assert len(table) == 8
    return folder, table


def texts_of(table):
    items = table.to_dict("records")
    return [format_source(item, "predict") for item in items], [format_answer(item["answer"]) for item in items]


def compared(teacher, attributions=("saliency",), numbers=(1, 2, 3), **settings):
    table = teacher[1]
    return compare_choices(table, *texts_of(table), {"model": teacher[0], **settings}, list(attributions), numbers)


def test_two_words_by_hand(monkeypatch):
    """p is 0.9 with both words, 0.8 with a alone, 0.2 with b alone, 0.1 with none."""
    p = {("a", "b"): 0.9, ("a",): 0.8, ("b",): 0.2, (): 0.1}
    scores = {"saliency": [["a", 2.0, 0, 1], ["B", 1.0, 2, 3]], "lime": [["a", 1.0, 0, 1], ["B", 2.0, 2, 3]]}
    questions = pd.DataFrame({"id": ["1"], "answer": ["B."]})

    def attributed(table, sources, targets, settings):
        return pd.DataFrame({"id": table["id"], "text": "a B", "raw": json.dumps(scores[settings["attribution"]])})

    monkeypatch.setattr(faithfulness, "attribute_words", attributed)
    monkeypatch.setattr(faithfulness, "_answer_probabilities", lambda *given: {
        (row, there): p[tuple(sorted(there))] for row, there in given[-1]})
    monkeypatch.setattr(faithfulness, "DRAWS", 4000)
    table = compare_choices(questions, ["a B"], ["B."], {}, ["saliency", "lime"], [1, 2, 3])
    assert list(table) == list(COLUMNS) and table["questions"].eq(1).all() and table["standard error"].isna().all()
    rows = table.set_index(["attribution", "k"])
    # the words are a, then B, a: 0.9 − 0.2 and 0.9 − 0.8; B: 0.9 − 0.8 and 0.9 − 0.2; both: 0.9 − 0.1 and 0
    assert rows.loc[("saliency", 1), "comprehensiveness":"sufficiency"].tolist() == pytest.approx([0.7, 0.1])
    assert rows.loc[("lime", 1), "comprehensiveness":"sufficiency"].tolist() == pytest.approx([0.1, 0.7])
    assert rows.loc[("lime", 2), "comprehensiveness":"sufficiency"].tolist() == pytest.approx([0.8, 0])
    # a random word is a or B, each in half of the draws: 0.6 / 2 − 0.6 / 2
    assert rows["gain"].tolist() == pytest.approx([0.6, 0, 0, -0.6, 0, 0], abs=0.05)
    assert rows.loc[("saliency", 1), "gain"] - rows.loc[("lime", 1), "gain"] == pytest.approx(1.2)
    assert rows["any answer word"].tolist() == [0, 1, 1, 1, 1, 1]
    assert rows.index[rows["chosen"]].tolist() == [("saliency", 1)]
    assert choose(table, "dev", "lime", 5) == ("saliency", 1) and choose(table, "", "lime", 5) == ("lime", 5)
    assert choose(table, "dev", "random", 5) == ("random", 1), "the control keeps its words and takes their number"
    assert describe_choice(table, ("lime", 5)) == (
        "Highest gain on 1 dev questions: saliency, k = 1. Used: lime, k = 5.")
    # of equal gains the smaller number wins, then the first attribution; here nothing beats random words
    equal = compare_choices(questions, ["a B"], ["B."], {}, ["lime", "saliency"], [3, 2])
    assert equal["gain"].eq(0).all() and equal.loc[equal["chosen"], ["attribution", "k"]].values.tolist() == [
        ["lime", 2]]
    assert "No choice is better than random words" in describe_choice(equal, ("lime", 2))


def test_the_measures_equal_single_runs_of_the_teacher(teacher):
    model, tokenizer, _ = load_model(SETTINGS | {"model": teacher[0]})
    sources, targets = texts_of(teacher[1])
    ranked = attribute_words(teacher[1], sources, targets, {"model": teacher[0]})

    def probability(item, source, target, there):
        """Leave out every word of question and choices that is not in `there`; no batch, no code of the package."""
        encoded, begin = tokenizer(source, return_offsets_mapping=True), source.index(item["question"])
        left_out = [found.span() for found in re.finditer(r"(?<!\()\b\w+\b(?!:)", source)  # no "(a)", no "Choices:"
                    if found.start() >= begin and found[0].casefold() not in there]
        ids = [tokenizer.pad_token_id if any(start < last and end > first for first, last in left_out) else token
               for token, (start, end) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)]
        labels = torch.tensor([tokenizer(target)["input_ids"]])
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), labels=labels).logits
        return float(logits.log_softmax(-1)[0, range(labels.shape[1]), labels[0]].sum().exp())

    by_hand = []
    for item, source, target, raw in zip(teacher[1].to_dict("records"), sources, targets, ranked["raw"], strict=True):
        words = set(re.findall(r"\w+", " ".join([item["question"], *item["choices"]]).casefold()))
        best = {}
        for word, score, *_ in json.loads(raw):
            best[word.casefold()] = max(score, best.get(word.casefold(), 0))
        assert set(best) == words
        first = set(sorted(best, key=best.get, reverse=True)[:2])
        whole, without, alone = (probability(item, source, target, part) for part in (words, words - first, first))
        by_hand.append((whole - without, whole - alone))
    row = compared(teacher, numbers=[2]).iloc[0]
    assert [row["comprehensiveness"], row["sufficiency"]] == pytest.approx(np.mean(by_hand, axis=0), abs=1e-5)
    assert row["comprehensiveness"] > 0.3, "the teacher needs these words"


def test_a_few_words_are_better_than_one_and_than_all(teacher):
    numbers = [1, 3, 6, 40]
    table = compared(teacher, ("attention_rollout", "saliency"), numbers)
    best = table[table["chosen"]].iloc[0]
    assert best["k"] in (3, 6) and best["gain"] == table["gain"].max() > 0.3
    whole = table[table["k"] == 40]  # no question has so many words
    assert whole["gain"].tolist() == whole["sufficiency"].tolist() == [0, 0]
    small = compared(teacher, numbers=numbers, token_budget=64)
    np.testing.assert_allclose(small["gain"], table.loc[table["attribution"] == "saliency", "gain"], atol=1e-5)
    other = compared(teacher, numbers=numbers, seed=1)
    assert other["sufficiency"].tolist() == pytest.approx(small["sufficiency"].tolist(), abs=1e-5)
    assert other["gain"].tolist() != small["gain"].tolist(), "other random words"


def test_questions_without_words_are_left_out_and_no_words_at_all_are_an_error(teacher):
    table = teacher[1].copy()
    table.at[0, "question"], table.at[0, "choices"] = "?!", []
    assert compared((teacher[0], table))["questions"].eq(7).all()
    with pytest.raises(StudyError, match="no dev question has words that every attribution ranks; tried: saliency"):
        compared((teacher[0], table.head(1)))


def test_without_dev_questions_nothing_can_be_chosen(teacher):
    for table in (compared((teacher[0], teacher[1].head(0))), compared(teacher, ()), compared(teacher, numbers=())):
        assert list(table) == list(COLUMNS) and not len(table)
        assert choose(table, "", "saliency", 5) == ("saliency", 5)
        assert describe_choice(table, ("saliency", 5)) == "Nothing to compare. Used: saliency, k = 5."
        with pytest.raises(StudyError, match="choose_on: the split dev has no questions; add some, or set attribution"):
            choose(table, "dev", "saliency", 5)


def test_own_answers_are_compared_as_they_are_attributed(teacher):
    wrong = (teacher[0], teacher[1].assign(answer="nothing"))  # what the teacher never says
    own, gold = compared(wrong, target="own").iloc[0], compared(teacher).iloc[0]
    assert own["comprehensiveness"] == pytest.approx(gold["comprehensiveness"], abs=1e-6)
    assert compared(wrong).iloc[0]["comprehensiveness"] < 0.1 < own["comprehensiveness"]


def test_what_cannot_be_chosen_is_told_before_a_run():
    for given, fault in (({"choose_k": []}, ("choose_k", "empty, but choose_on needs numbers of words to choose from")),
                         ({"attribution": "random", "compare": ["random"]},
                          ("compare", "empty or random only; choose_on needs an attribution other than random"))):
        assert list(ExplainTokens(**given).conflicts()) == []
        assert list(ExplainTokens(choose_on="dev", **given).conflicts()) == [fault]
    assert list(ExplainTokens(choose_on="dev", attribution="random").conflicts()) == []
    assert dict(ExplainTokens.faults({"choose_on": "test", "choose_k": [3, 3], "k": 0})) == {
        "choose_on": "unknown 'test'; known are '', dev", "choose_k": "3 is listed twice", "k": "0 is less than 1"}


def test_the_notebook_uses_what_was_chosen_and_writes_it_down(tmp_path, capsys):
    cells = read_json(PROJECT / "notebooks/05_explain_tokens.ipynb")["cells"]
    parameters, *code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    names = {}
    exec(parameters, names)
    names |= {"choose_on": "dev", "compare_questions": 12, "splits": ["test"], "output": str(tmp_path)}
    for source in code:
        exec(source, names)
    metrics = read_json(tmp_path / "metrics.json")
    best, = [row for row in metrics["faithfulness"] if row["chosen"]]
    assert metrics["choice"] == {"choose_on": "dev", "attribution": best["attribution"], "k": best["k"]}
    assert len(metrics["faithfulness"]) == 20 and best["questions"] == 12
    texts = pd.read_parquet(tmp_path / "explanations.parquet")["text"].dropna()
    assert texts.str.split().str.len().max() == best["k"]
    assert f"Used: {best['attribution']}, k = {best['k']}." in capsys.readouterr().out
    shares = read_answer_shares([tmp_path, PROJECT / "kdutils/mini/example/explanations"])  # the second has none
    assert shares["k"].tolist() == [best["k"]] and shares["published"].tolist() == [
        0.68 if best["k"] == 5 else None]
    assert shares["any answer word"].tolist() == [metrics["answer_share"][0]["any answer word"]]
    assert shares["expected at random"].tolist() == [metrics["answer_share"][1]["any answer word"]]
    assert shares["prompting"].tolist() == ["tokens"]


def test_the_published_share_is_for_five_words_of_questions_with_choices_of_their_own():
    for choices, share in (([["a", "b"], ["c", "d"]], 0.68), ([["a", "b"], ["a", "c"]], 0.68), ([[], []], None),
                           ([["a", "b"], []], None), ([NLI_LABELS] * 2, None), ([["yes", "no"], ["no", "yes"]], None)):
        assert published_share(pd.DataFrame({"choices": choices}), 5) == share
        assert published_share(pd.DataFrame({"choices": choices}), 2) is None
    assert not len(read_answer_shares([]))
