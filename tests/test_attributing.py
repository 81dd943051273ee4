"""Attribution overlap: by hand, against draws at random, and on a student whose driving word is planted."""

import random
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from test_attribution import planted  # noqa: F401
from test_students import FAMILIES
from test_students import student as build

from kdutils.data.answers import format_answer
from kdutils.errors import StudyError
from kdutils.evaluation.attribution_overlap import attribution_overlap, overlap, summarise_overlap, worked_example
from kdutils.runs import mark_complete, write_json
from kdutils.student.methods import format_source
from kdutils.student.predicting import written_answers
from kdutils.teacher.word_scores import SETTINGS, driving_words, load_model, token_scores

RANKED = ["Cow", "milk", "farm", "the", "gives"]


def predictions(*texts, predicted="milk", seed=0):
    return pd.DataFrame([{"id": f"q{number}", "seed": seed, "predicted": predicted, "explanation": text}
                         for number, text in enumerate(texts)])


def test_shares_by_hand():
    # of the first two, cow is there and milk is not (milky is another word); of all five, cow and the
    assert overlap(RANKED, "The COW is milky.", 2) == (0.5, 0.4)
    assert overlap(RANKED, "", 2) == (0, 0) and overlap(RANKED, "cow milk farm the gives", 3) == (1, 1)
    assert overlap(["1,000", "dog's"], "A dog's bone for 1,000.", 1) == (1, 1)
    share, expected = overlap(RANKED, "a farm", 9)
    assert share == expected == 0.2, "fewer candidates than k: any draw takes them all"


def test_the_control_is_the_mean_of_draws_at_random():
    draw, text = random.Random(0), "the cow on the farm"
    shares = [overlap(draw.sample(RANKED, len(RANKED)), text, 2)[0] for _ in range(4000)]
    assert np.mean(shares) == pytest.approx(overlap(RANKED, text, 2)[1], abs=0.02)


def test_the_answer_s_own_words_are_left_out_of_the_second_gain():
    table = attribution_overlap(predictions("It is milk.", "A cow.", "none"), {0: {"q0": RANKED, "q1": RANKED}}, 2)
    assert table["id"].tolist() == ["q0", "q1"], "a prediction without ranked words has no row"
    assert table["words"][0] == "Cow milk" and table["candidates"].tolist() == [5, 5]
    assert table["overlap_gain"].tolist() == pytest.approx([1 / 2 - 1 / 5, 1 / 2 - 1 / 5])
    assert table["overlap_gain_other"].tolist() == pytest.approx([0, 1 / 2 - 1 / 4]), "cow, farm, the, gives are left"
    alone = attribution_overlap(predictions("milk", predicted="hot milk"), {0: {"q0": ["milk", "Hot"]}}, 1)
    assert alone["overlap_gain_other"].isna().all() and alone["overlap_gain"][0] == 0.5


def test_means_and_intervals_per_seed_and_over_seeds():
    first, second = (predictions("cow", "cow", "farm", "none", seed=seed) for seed in (0, 1))
    ranked = {0: {f"q{number}": RANKED for number in range(4)}, 1: {f"q{number}": RANKED for number in range(3)}}
    both = attribution_overlap(pd.concat([first, second]), ranked, 2)
    table, of_all = summarise_overlap(both, 5, [0, 1])
    assert table["attributed"].tolist() == [4, 3] and table["not attributed"].tolist() == [1, 2]
    gains = np.array([0.3, 0.3, -0.2, 0.0])  # 1/2 - 1/5 twice, 0 - 1/5, 0 - 0
    assert table["overlap_gain"][0] == pytest.approx(gains.mean()) and table["overlap"][0] == 0.25
    draws = np.random.default_rng(1).choice(gains, (20000, 4)).mean(axis=1)
    assert [table["low"][0], table["high"][0]] == pytest.approx(np.percentile(draws, [2.5, 97.5]), abs=0.03)
    assert of_all["n_questions"] == 3 and of_all["n_seeds"] == 2
    assert of_all["overlap_gain"] == pytest.approx(gains[:3].mean()), "questions that both seeds have"
    same, _ = summarise_overlap(both[both["id"] == "q0"], 1, [0, 1])
    assert same["low"].isna().all(), "no spread, no interval"
    silent, of_silent = summarise_overlap(both[both["seed"] == 0], 5, [0, 1])
    assert silent["attributed"].tolist() == [4, 0] and silent["not attributed"].tolist() == [1, 5]
    assert silent["overlap_gain"].isna().tolist() == [False, True] and of_silent["n_seeds"] == 1
    none, of_none = summarise_overlap(both.head(0), 5, [])
    assert none.empty and of_none["overlap_gain"] is None and of_none["n_questions"] == 0


def test_the_worked_example_is_one_that_shows_something():
    questions = pd.DataFrame({"id": ["q0", "q1"], "question": ["Which?", "What?"], "choices": [["a", "b"], []]})
    told = predictions("none", "cow")
    table = worked_example(attribution_overlap(told, {0: {"q0": RANKED, "q1": RANKED}}, 2), told, questions)
    assert table["text"].tolist() == ["What?", "", "milk", "cow", "Cow milk", "0.500", "0.200", "0.300"]


@pytest.fixture
def student(planted, tmp_path):  # noqa: F811
    """The planted model as a trained student, its questions and its right answers."""
    folder = Path(shutil.copytree(planted[0], tmp_path / "seed-0"))
    write_json(folder / "student.json", {"method": "multitask"})
    mark_complete(folder)
    questions = planted[1]
    said = pd.DataFrame({"id": questions["id"], "seed": 0, "predicted": questions["answer"]})
    return folder, questions, said


def test_an_explanation_that_names_the_driving_word_gains_and_one_that_does_not_gains_nothing(student):
    folder, questions, said = student
    honest = said.assign(explanation=[f"It is about the {key}." for key in questions["key"]])
    other = said.assign(explanation=[text.replace(key, "") for text, key
                                     in zip(questions["question"], questions["key"], strict=True)])
    gains = {}
    for name, table in (("honest", honest), ("other", other)):
        written = written_answers(folder, questions, table)
        words = driving_words(folder, written)
        assert len(words) == 40 and all(len(found) == 6 for found in words.values())
        gains[name] = attribution_overlap(table, {0: words}, 1)["overlap_gain"].mean()
    assert gains["honest"] > 0.6 and gains["other"] < -0.6, "at most 5/6: one word of six is drawn by chance"
    drawn = driving_words(folder, written, "random")
    assert attribution_overlap(honest, {0: drawn}, 1)["overlap_gain"].mean() < 0.3


def test_what_a_student_read_and_wrote_up_to_its_answer(student):
    folder, questions, said = student
    table = said.assign(explanation="It flows.")
    table.loc[0, "explanation"], table.loc[1, "predicted"] = " ", ""
    written = written_answers(folder, questions, table)
    assert written["id"].tolist() == questions["id"][2:].tolist(), "no explanation, no answer: nothing to look into"
    row = written.iloc[0]
    assert row["source"] == format_source(row.to_dict(), "predict") and row["text"] == format_answer(row["answer"])
    assert row["text"][row["begins"]:] == f" {row['answer']}."
    write_json(folder / "student.json", {"method": "counterfactual"})
    row = written_answers(folder, questions, table).iloc[0]
    assert row["text"] == f"It flows. So the answer is {row['answer']}." and row["source"].startswith("[factual]")
    assert row["text"][row["begins"]:] == f" {row['answer']}."


def test_only_the_answer_s_tokens_are_attributed(student):
    folder, questions, said = student
    model, tokenizer, _ = load_model(SETTINGS | {"model": str(folder)})
    item = questions.iloc[0].to_dict()
    source = tokenizer(format_source(item, "predict"))["input_ids"]
    target = tokenizer(format_answer(item["answer"]), add_special_tokens=False)["input_ids"]
    given = len(target) - 2
    _, scores, _ = next(token_scores(model, [source], [target], {0, 1}, SETTINGS, [given]))
    embeddings = model.shared.weight[source].detach().requires_grad_()
    decoder = torch.tensor([[model.config.decoder_start_token_id, *target[:-1]]])
    log_p = model(inputs_embeds=embeddings[None], decoder_input_ids=decoder).logits[0].log_softmax(-1)
    by_hand = sum(torch.autograd.grad(log_p[place, target[place]], embeddings, retain_graph=True)[0].norm(dim=-1)
                  for place in (given, given + 1)) / 2
    np.testing.assert_allclose(scores, by_hand.detach(), rtol=1e-4)


@pytest.mark.parametrize("attribution", ["saliency", "input_x_gradient"])
def test_a_causal_student_is_attributed_as_it_reads_source_and_answer_in_one_text(attribution):
    """Rows of several lengths in one batch against each row by itself, without padding, in plain autograd."""
    settings = SETTINGS | {"model": "kdutils/mini/teacher", "attribution": attribution}
    model, tokenizer, _ = load_model(settings, causal=True)
    asked = ("Which is a pear?", "Is a car a pear or a coat?", "Why?")
    sources = [tokenizer(f"{text}\n")["input_ids"] for text in asked]
    targets = [tokenizer(text)["input_ids"] for text in ("The answer is pear.", "The answer is coat.", "The pear.")]
    sources, targets = ([ids[:-1] if ids[-1] == tokenizer.eos_token_id else ids for ids in some]
                        for some in (sources, targets))
    given, found = [3, 3, 1], {}
    for row, scores, _ in token_scores(model, sources, targets, set(), settings, given):
        found[row] = scores
    for row, (source, target, first) in enumerate(zip(sources, targets, given, strict=True)):
        embeddings = model.get_input_embeddings().weight[source + target].detach().requires_grad_()
        log_p = model(inputs_embeds=embeddings[None]).logits[0].log_softmax(-1)
        total = torch.zeros(len(source))
        for place in range(first, len(target)):
            slope, = torch.autograd.grad(log_p[len(source) + place - 1, target[place]], embeddings, retain_graph=True)
            one = slope.norm(dim=-1) if attribution == "saliency" else (slope * embeddings).sum(-1).abs()
            total += one[:len(source)].detach() / (len(target) - first)
        np.testing.assert_allclose(found[row], total, rtol=1e-3, atol=1e-6)


def test_words_of_a_causal_student_are_those_of_the_question(student):
    folder, questions, said = student
    written = written_answers(folder, questions.head(2), said.assign(explanation="It flows."))
    for attribution in ("saliency", "occlusion", "integrated_gradients"):
        words = driving_words("kdutils/mini/teacher", written, attribution)
        assert list(words) == list(written["id"])
        for row in written.to_dict("records"):
            assert set(words[row["id"]]) <= set(re.findall(r"\w+", row["question"] + " " + " ".join(row["choices"])))
    assert driving_words("kdutils/mini/teacher", written, "attention_rollout") == {}


def test_a_teacher_is_no_causal_model():
    with pytest.raises(StudyError, match="has no encoder; give a sequence-to-sequence teacher"):
        load_model(SETTINGS | {"model": "kdutils/mini/teacher"})


def test_a_student_without_explanations_has_none(student):
    folder, questions, said = student
    assert driving_words(folder, written_answers(folder, questions, said.assign(explanation=""))) == {}


@pytest.mark.parametrize("encoder", ["bert", "roberta"])  # RoBERTa's places begin after that of padding
def test_an_encoder_made_into_an_encoder_decoder_is_attributed_as_far_as_it_reads(encoder, tmp_path):
    model, tokenizer = build({**FAMILIES["bert"], "model_type": encoder, "max_position_embeddings": 64})
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    write_json(tmp_path / "student.json", {"method": "counterfactual"})
    mark_complete(tmp_path)
    questions = pd.DataFrame([{"id": "long", "question": "cow " * 99 + "milk", "choices": ["wool", "wood"]},
                              {"id": "short", "question": "A cow gives milk", "choices": ["wool", "wood"]}])
    said = pd.DataFrame({"id": ["long", "short"], "predicted": "wool", "explanation": "It flows."})
    written = written_answers(tmp_path, questions.assign(answer="wood", human_explanations=[[], []]), said)
    words = driving_words(tmp_path, written)
    assert words["long"] == ["cow"], "what was cut off drives nothing"
    assert {word.casefold() for word in words["short"]} == {"a", "cow", "gives", "milk", "wool", "wood"}
