"""Attributions: against autograd by hand, finite differences, captum, hand-made models; and the words made of them."""

import itertools
import json
import math
import os
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from kdutils.data.answers import format_answer
from kdutils.data.tables import read_table, write_table
from kdutils.errors import StudyError
from kdutils.report.figures import token_heat_map
from kdutils.student.methods import explained_of, format_source
from kdutils.student.protocols import LAYOUTS, literal_source
from kdutils.teacher import choices, word_scores
from kdutils.teacher.attributions import ATTRIBUTIONS, Attribution, rollout
from kdutils.teacher.word_scores import (
    ANOTHER_SEED,
    SETTINGS,
    agreement,
    agreement_with_itself,
    answer_share,
    attribute_words,
    best_words,
    driving_words,
    eligible_spans,
    load_model,
    merge_words,
    part_spans,
    random_scores,
    token_scores,
    words_of,
)

PERTURBATIONS = ("occlusion", "shapley_sampling", "lime")  # attributions that leave words out and need no gradient
KEYS = {"cow": "milk", "cat": "wood", "owl": "honey", "carp": "water"}
SPECIAL = {0, 1}  # padding and end token of the tiny student


@pytest.fixture(scope="module")
def rows(tiny, questions):
    """Source and target ids of six questions of unlike length."""
    items = questions[0].head(6).to_dict("records")
    sources = tiny[1]([format_source(item, "predict") for item in items])["input_ids"]
    targets = tiny[1](text_target=[format_answer(item["answer"]) for item in items])["input_ids"]
    sources = [ids[place:] for place, ids in enumerate(sources)]
    return sources, [ids[place % 3:] for place, ids in enumerate(targets)]


def rationales_of(explanations, questions):
    """Return {question id: rationale} of what a student would learn."""
    return {key: one.rationale for key, one in explained_of(explanations, questions).items() if one.rationale}


def scores_of(model, rows, attribution, **settings):
    """Return [(scores, error)] in the order of the rows."""
    found = {row: (scores, error) for row, scores, error in token_scores(
        model, *rows, SPECIAL, SETTINGS | {"attribution": attribution} | settings)}
    return [found[row] for row in range(len(rows[0]))]


def log_p_by_hand(model, embeddings, target):
    """Return the list of log p of one question's target tokens, for embeddings (S, D), without a mask."""
    decoder = torch.tensor([[model.config.decoder_start_token_id, *target[:-1]]])
    logits = model(inputs_embeds=embeddings.unsqueeze(0), decoder_input_ids=decoder).logits[0]
    return [logits[place][token] - torch.logsumexp(logits[place], 0) for place, token in enumerate(target)]


@pytest.fixture
def eager(tiny):
    tiny[0].set_attn_implementation("eager")
    yield tiny[0]
    tiny[0].set_attn_implementation("sdpa")


@pytest.mark.parametrize("attribution", ["saliency", "input_x_gradient"])
def test_gradient_scores_equal_a_loop_over_target_tokens_by_hand(tiny, rows, attribution):
    model = tiny[0]
    for source, target, (scores, _) in zip(*rows, scores_of(model, rows, attribution), strict=True):
        embeddings = model.shared.weight[source].detach().requires_grad_()
        by_hand = torch.zeros(len(source))
        for log_p in log_p_by_hand(model, embeddings, target):
            gradient, = torch.autograd.grad(log_p, embeddings, retain_graph=True)
            for place, (one, vector) in enumerate(zip(gradient, embeddings.detach(), strict=True)):
                value = sum(g * g for g in one) ** 0.5 if attribution == "saliency" else abs(sum(one * vector))
                by_hand[place] += value / len(target)
        np.testing.assert_allclose(scores, by_hand, rtol=1e-5)


def test_saliency_equals_finite_differences(tiny, rows):
    model, source, target, step = tiny[0], rows[0][1], rows[1][1], 1e-2  # no smaller: T5's norm is float32
    scores, _ = scores_of(model, rows, "saliency")[1]
    embeddings = model.shared.weight[source].detach()
    for place in (0, len(source) // 2, len(source) - 1):
        slopes = torch.zeros(len(target), embeddings.shape[1], dtype=torch.float64)
        for dimension, sign in itertools.product(range(embeddings.shape[1]), (1, -1)):
            moved = embeddings.clone()
            moved[place, dimension] += sign * step
            with torch.no_grad():
                slopes[:, dimension] += sign * torch.stack(log_p_by_hand(model, moved, target)) / (2 * step)
        assert scores[place] == pytest.approx(float(slopes.norm(dim=1).mean()), rel=1e-3)


def test_integrated_gradients_add_up_and_equal_a_midpoint_sum_by_hand(tiny, rows):
    model = tiny[0]
    errors = {steps: max(abs(error) for _, error in scores_of(model, rows, "integrated_gradients", steps=steps))
              for steps in (2, 8, 32)}
    assert errors[32] < 1e-6 < errors[2] and errors[32] <= errors[8] <= errors[2]
    source, target = rows[0][2], rows[1][2]
    scores, error = scores_of(model, rows, "integrated_gradients")[2]
    end = model.shared.weight[source].detach()
    start = model.shared.weight[[token if token in SPECIAL else 0 for token in source]].detach()
    total, steps = torch.zeros_like(end), 100
    for share in (np.arange(steps) + 0.5) / steps:
        point = (start + share * (end - start)).requires_grad_()
        total += torch.autograd.grad(sum(log_p_by_hand(model, point, target)) / len(target), point)[0] / steps
    by_hand = ((end - start) * total).sum(-1)
    np.testing.assert_allclose(scores, by_hand.abs(), rtol=1e-3, atol=1e-6)
    assert scores[-1] == 0, "the end token is the baseline's too"
    with torch.no_grad():
        rise = float(sum(log_p_by_hand(model, end, target)) - sum(log_p_by_hand(model, start, target))) / len(target)
    assert float(by_hand.sum()) == pytest.approx(rise, abs=1e-4)
    assert abs(error) < 1e-6


def test_the_completeness_error_is_captum_s_convergence_delta(tiny, rows):
    from captum.attr import IntegratedGradients

    model, source, target = tiny[0], rows[0][0], rows[1][0]
    decoder = torch.tensor([[model.config.decoder_start_token_id, *target[:-1]]])

    def mean_log_p(embeddings):
        logits = model(inputs_embeds=embeddings, decoder_input_ids=decoder.expand(len(embeddings), -1)).logits
        return torch.stack([logits.log_softmax(-1)[:, place, token] for place, token in enumerate(target)]).mean(0)

    end = model.shared(torch.tensor([source])).detach()
    start = model.shared(torch.tensor([[token if token in SPECIAL else 0 for token in source]])).detach()
    parts, delta = IntegratedGradients(mean_log_p).attribute(end, start, n_steps=3, return_convergence_delta=True)
    scores, error = scores_of(model, rows, "integrated_gradients", steps=3)[0]
    with torch.no_grad():
        by_hand = float(parts.sum() - (mean_log_p(end) - mean_log_p(start)))
    assert error == pytest.approx(float(delta), rel=1e-4) == pytest.approx(by_hand, rel=1e-4) and abs(error) > 1e-9
    np.testing.assert_allclose(scores, parts.sum(-1).abs()[0], rtol=1e-4)


def test_attention_rollout_equals_a_hand_computation(eager, rows):
    first = torch.tensor([[[[1.0, 0.0], [0.5, 0.5]], [[0.5, 0.5], [0.5, 0.5]]]])  # two heads of one row
    second = torch.tensor([[[[0.0, 1.0], [1.0, 0.0]]]]).expand(1, 2, 2, 2)
    # over heads [[.75 .25] [.5 .5]] and [[0 1] [1 0]]; with the identity [[.875 .125] [.25 .75]] and [[.5 .5] [.5 .5]]
    torch.testing.assert_close(rollout([first, second]), torch.tensor([[[0.5625, 0.4375], [0.5625, 0.4375]]]))
    source, target = rows[0][3], rows[1][3]
    scores, _ = scores_of(eager, rows, "attention_rollout")[3]
    out = eager(input_ids=torch.tensor([source]), output_attentions=True,
                decoder_input_ids=torch.tensor([[eager.config.decoder_start_token_id, *target[:-1]]]))
    looks = np.eye(len(source))
    for layer in out.encoder_attentions:
        looks = (0.5 * layer[0].detach().numpy().mean(0) + 0.5 * np.eye(len(source))) @ looks
    cross = np.mean([layer[0].detach().numpy().mean(0) for layer in out.cross_attentions], axis=0)
    np.testing.assert_allclose(scores, cross.mean(0) @ looks, rtol=1e-6)
    assert sum(scores) == pytest.approx(1)


def coalitions_by_hand(model, source, target, parts):
    """Return {words that are there: mean log p} for every set of words; the others have the embedding of padding."""
    table, words, values = model.get_input_embeddings(), sorted(set(parts) - {-1}), {}
    for size in range(len(words) + 1):
        for there in itertools.combinations(words, size):
            ids = [token if part in (-1, *there) else 0 for token, part in zip(source, parts, strict=True)]
            with torch.no_grad():
                values[there] = float(sum(log_p_by_hand(model, table(torch.tensor(ids)), target)) / len(target))
    return values


def test_words_that_are_left_out_against_every_set_of_words(tiny, rows):
    """Occlusion exactly; Shapley values by their definition over all orders."""
    source, target = rows[0][0][:7] + [1], rows[1][0]
    parts = [0, 1, 1, -1, 2, 3, 3, -1]  # four words, two of them of two tokens
    values, words = coalitions_by_hand(tiny[0], source, target, parts), range(4)

    def found(attribution, evaluations):
        settings = SETTINGS | {"attribution": attribution, "evaluations": evaluations, "token_budget": 2000}
        [(_, scores, error)] = token_scores(tiny[0], [source], [target], SPECIAL, settings, parts=[parts])
        assert error is None and scores[3] == scores[7] == 0 and scores[1] == scores[2] and scores[5] == scores[6]
        return np.array([scores[parts.index(word)] for word in words])

    def without(word):
        return tuple(other for other in words if other != word)

    occlusion = [abs(values[tuple(words)] - values[without(word)]) for word in words]
    np.testing.assert_allclose(found("occlusion", 8), occlusion, rtol=1e-3, atol=1e-6)
    orders = list(itertools.permutations(words))
    until = {(order, word): order[:order.index(word)] for order in orders for word in words}
    shapley = [sum(values[tuple(sorted((*until[order, word], word)))] - values[tuple(sorted(until[order, word]))]
                   for order in orders) / len(orders) for word in words]
    np.testing.assert_allclose(found("shapley_sampling", 5 * 100), np.abs(shapley), atol=0.15 * max(np.abs(shapley)))


class ModelOfSets:
    """The log p of target token 1 is `value` of the words that are there; source token 0 is one that is left out."""

    device, config = "cpu", SimpleNamespace(decoder_start_token_id=0, pad_token_id=0)

    def __init__(self, value):
        self.value, self.table = value, torch.nn.Embedding.from_pretrained(torch.tensor([[0.0], *[[1.0]] * 20]))

    def get_input_embeddings(self):
        return self.table

    def __call__(self, inputs_embeds, **others):
        p = torch.tensor([[self.value(*row)] for row in inputs_embeds[..., 0].tolist()]).exp()
        return SimpleNamespace(logits=torch.cat([1 - p, p], 1).log()[:, None])


def test_sampled_shapley_values_are_those_of_all_orders_where_words_interact():
    """Exact values by hand of a sum of products: each product is shared equally by its words; occlusion differs."""
    def value(stays, a, b, c, d):
        return -3 + 0.5 * a + 1.5 * b * c - 0.9 * c * d * a - 0.4 * d

    exact = np.abs([0.5 - 0.3, 0.75, 0.75 - 0.3, -0.4 - 0.3])
    found = {}
    for attribution in ("shapley_sampling", "occlusion"):
        settings = SETTINGS | {"attribution": attribution, "evaluations": 10_000, "token_budget": 30_000}
        [(_, scores, _)] = token_scores(ModelOfSets(value), [[5, 6, 7, 8, 9]], [[1]], set(), settings,
                                        parts=[[-1, 0, 1, 2, 3]])
        found[attribution] = np.array(scores[1:])
    np.testing.assert_allclose(found["shapley_sampling"], exact, atol=0.03)
    np.testing.assert_allclose(found["occlusion"], [0.4, 1.5, 0.6, 1.3], atol=1e-4)


def test_lime_against_weighted_least_squares_over_all_sets_of_words():
    """The authors' distance (scikit-learn), kernel and odds of each set, and the fit of statsmodels without a penalty.

    Words interact, so that least squares without these weights give other values.
    """
    from sklearn.metrics.pairwise import cosine_distances
    from statsmodels.api import WLS, add_constant

    def value(stays, a, b, c, d):
        return -3 + 0.5 * a + 1.5 * b * c - 0.8 * c * d * a - 0.4 * d

    sets = np.array([one for one in itertools.product([0, 1], repeat=4) if sum(one) < 4], dtype=float)
    odds = np.array([1 / 4 / math.comb(4, int(one.sum())) for one in sets])
    kernel = np.sqrt(np.exp(-(100 * cosine_distances(sets, np.ones((1, 4)))[:, 0]) ** 2 / 25 ** 2))
    values = [value(1, *one) for one in sets]
    wanted, equal, halves = (np.abs(WLS(values, add_constant(sets), weights).fit().params[1:])
                             for weights in (odds * kernel, odds, np.ones(15)))
    settings = SETTINGS | {"attribution": "lime", "evaluations": 10_000, "token_budget": 30_000}
    [(_, scores, _)] = token_scores(ModelOfSets(value), [[5, 6, 7, 8, 9]], [[1]], set(), settings,
                                    parts=[[-1, 0, 1, 2, 3]])
    assert scores[0] == 0
    np.testing.assert_allclose(scores[1:], wanted, atol=0.02)
    assert np.abs(wanted - equal).max() > 0.1 and np.abs(wanted - halves).max() > 0.1


def test_perturbations_are_drawn_from_the_seed_and_leave_the_generator_alone(tiny, rows):
    state = torch.random.get_rng_state()
    first = scores_of(tiny[0], rows, "shapley_sampling", evaluations=64)
    assert torch.equal(state, torch.random.get_rng_state())
    assert scores_of(tiny[0], rows, "shapley_sampling", evaluations=64) == first
    assert scores_of(tiny[0], rows, "shapley_sampling", evaluations=64, seed=1) != first


@pytest.mark.parametrize("attribution", [name for name in ATTRIBUTIONS if name not in ("random", *PERTURBATIONS)])
def test_scores_do_not_depend_on_the_batch(eager, rows, attribution):
    wanted = scores_of(eager, rows, attribution, steps=6, token_budget=1)  # each row by itself, without padding
    assert [len(scores) for scores, _ in wanted] == [len(source) for source in rows[0]]
    for budget in (90, 200, 10**6):
        for (scores, error), (alone, error_alone) in zip(
                scores_of(eager, rows, attribution, steps=6, token_budget=budget), wanted, strict=True):
            np.testing.assert_allclose(scores, alone, rtol=1e-6, atol=1e-12)
            assert error == (error_alone and pytest.approx(error_alone, rel=1e-4, abs=1e-9))


@pytest.mark.parametrize("attribution", [name for name in ATTRIBUTIONS if name not in ("random", "attention_rollout")])
def test_without_a_padding_token_the_end_token_takes_its_place(attribution):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=20, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
        attn_implementation="eager")).eval()
    rows = [[3, 4, 5, 6], [7, 8]], [[9, 10], [11]]
    settings = {"steps": 4, "evaluations": 16}
    assert model.config.pad_token_id is None
    without = scores_of(model, rows, attribution, **settings)
    model.config.pad_token_id = 2
    assert without == scores_of(model, rows, attribution, **settings)
    assert np.isfinite([score for scores, _ in without for score in scores]).all()


class LinearModel:
    """Logits of every target token are linear in one source token's embedding: that token alone has influence."""

    device, config = "cpu", SimpleNamespace(decoder_start_token_id=0, pad_token_id=0)

    def __init__(self, place):
        torch.manual_seed(0)
        self.place, self.table = place, torch.nn.Embedding(20, 4).requires_grad_(False)

    def get_input_embeddings(self):
        return self.table

    def __call__(self, inputs_embeds, decoder_input_ids, **others):
        logits = inputs_embeds[:, self.place] @ self.table.weight.T
        return SimpleNamespace(logits=logits.unsqueeze(1).expand(-1, decoder_input_ids.shape[1], -1))


def test_on_a_linear_model_the_one_token_that_counts_has_all_of_the_score():
    model, source, target = LinearModel(2), [5, 6, 7, 8, 1], [9, 3]
    weight, vector = model.table.weight, model.table.weight[7]
    p = (weight @ vector).softmax(0)
    slopes = [weight[token] - p @ weight for token in target]  # d log softmax / d embedding
    wanted = {"saliency": sum(slope.norm() for slope in slopes) / 2,
              "input_x_gradient": sum((slope @ vector).abs() for slope in slopes) / 2,
              "integrated_gradients": abs(sum((weight @ vector).log_softmax(0)[target]
                                              - (weight @ weight[0]).log_softmax(0)[target]) / 2)}
    for attribution, value in wanted.items():
        (scores, _), = scores_of(model, ([source], [target]), attribution)
        assert scores == pytest.approx([0, 0, float(value), 0, 0], rel=1e-4)


# Words

def test_words_end_at_white_space_and_marks():
    text = "Don't pay $1,000 (50%) at 3:30—the ice-cream's u.s. price/cost is ___ \"high\"… -- naïve,right?"
    assert [word for word, *_ in words_of(text)] == [
        "Don't", "pay", "1,000", "50", "at", "3:30", "the", "ice-cream's", "u.s", "price", "cost", "is", "high",
        "naïve", "right"]
    assert all(text[start:end] == word for word, start, end in words_of(text))
    assert words_of("?! … — ’") == [] and words_of("हिन्दी में")[0][0] == "हिन्दी"


def test_layout_is_never_eligible():
    """Task tag, Question:, Choices: and letters are left out, even where question and choices hold the same words."""
    item = {"id": "1", "question": "predict: which Choices (a) is a Question?", "choices": ["a", "b (c)", "Choices"]}
    source = format_source(item, "predict")
    spans = eligible_spans(item, source)
    assert [source[start:end] for start, end in spans] == [item["question"], *item["choices"]]
    free = {"id": "2", "question": "Premise: A cow. Hypothesis: A premise. What is the relationship?", "choices": []}
    source = format_source(free, "predict")
    assert [word for word, *_ in words_of(source, eligible_spans(free, source))][:2] == ["Premise", "A"]
    frame = ["Premise:", "Hypothesis:", "What is the relationship?"]
    assert [word for word, *_ in words_of(source, eligible_spans(free, source, frame))] == ["A", "cow", "A", "premise"]
    with pytest.raises(StudyError, match="question '1': its source does not hold the question followed by the choices"):
        eligible_spans(item, "another text")


@pytest.mark.parametrize("item", [
    {"id": "1", "question": "ice", "choices": ["milk", "tea"]},
    {"id": "1", "question": "question", "choices": ["choices", "a"], "context": "Question"},
    {"id": "1", "question": "Which [thing]", "choices": []},
    {"id": "1", "question": "predict", "choices": [], "context": "What is the predict?"}])
def test_parts_are_found_in_every_layout_and_not_in_its_words(item):
    sources = [format_source(item, "predict", place=place) for place in ("before", "after")]
    sources += [literal_source(texts, item) for layout in LAYOUTS.values() for task, texts in layout.items()
                if task != "counterfactual"]
    parts = [text for text in (item.get("context"), item["question"], *item["choices"]) if text]
    for source in sources:
        spans, marked = part_spans(item, source), source
        assert [source[start:end] for start, end in spans] == parts
        for start, end in reversed(spans):  # what is left is the layout alone, the same as for other texts
            marked = marked[:start] + "@" + marked[end:]
        other = {**item, **{key: "@" for key in ("question", "context") if key in item},
                 "choices": ["@"] * len(item["choices"])}
        written = [format_source(other, "predict", place=place) for place in ("before", "after")]
        written += [literal_source(texts, other) for layout in LAYOUTS.values() for texts in layout.values()]
        assert marked in written


def test_a_sampled_attribution_is_compared_with_itself_under_another_seed():
    asked = read_table("kdutils/mini/example/questions/questions.parquet", "questions").query("split == 'test'").head(6)
    sources, targets = ([write(item) for item in asked.to_dict("records")] for write in (
        lambda item: format_source(item, "predict"), lambda item: format_answer(item["answer"])))

    def attribute(changed):
        settings = {"model": "kdutils/mini/example/students/seed-0", "k": 3, "evaluations": 32, "seed": 0, **changed}
        return attribute_words(asked, sources, targets, settings)

    tables = {name: attribute({"attribution": name}) for name in ("saliency", "occlusion", "lime", "random")}
    table = agreement_with_itself(tables, attribute)
    assert table["first"].tolist() == ["lime", "random"] and (table["second"] == table["first"] + ANOTHER_SEED).all()
    for name in tables:  # the others are the same under any seed
        again = agreement({name: tables[name], "again": attribute({"attribution": name, "seed": 5})}).iloc[0]
        assert (again["jaccard"] == 1) == (name not in set(table["first"])), name
    assert agreement_with_itself({"saliency": tables["saliency"]}, attribute).empty


def test_a_question_without_a_right_answer_has_no_gold_answer_to_explain():
    asked = read_table("kdutils/mini/example/questions/questions.parquet", "questions").head(2).assign(answer=["x", ""])
    with pytest.raises(StudyError, match="has no right answer to explain, and 0 more; choose target: own"):
        attribute_words(asked, ["", ""], ["", ""], {"attribution": "random"})


def test_sub_words_become_words_by_their_best_token():
    text = "unbelievable cats, u.s."
    words = words_of(text)
    offsets = [(0, 2), (2, 12), (12, 17), (17, 18), (18, 20), (20, 23), (0, 0)]
    merged = merge_words(words, offsets, [0.1, 0.7, 0.3, 9.0, 0.2, 0.4, 5.0])
    assert merged == [("unbelievable", 0.7, 0, 12), ("cats", 0.3, 13, 17), ("u.s", 0.4, 19, 22)]
    assert merge_words(words, [(0, 12), (0, 0)], [1.0, 2.0]) == [("unbelievable", 1.0, 0, 12)], "no token, no word"


def test_sub_words_of_the_real_t5_vocabulary():
    from transformers import AutoTokenizer

    folder = Path(os.environ.get("KDUTILS_DATA") or Path(__file__).parents[2] / "shared" / "data") / "tokenizers" / "t5"
    if not folder.is_dir():
        pytest.skip("no T5 vocabulary: set KDUTILS_DATA to the folder that holds tokenizers/t5")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = "[predict] Question: Unmistakable  ice-cream costs\u00a01,000?\nChoices: (a) the u.s. (b) café {x} ﬁsh"
    encoded = tokenizer(text, return_offsets_mapping=True)
    words = words_of(text)
    tokens = tokenizer.convert_ids_to_tokens(encoded["input_ids"])
    pieces = {word: [token for token, (first, last) in zip(tokens, encoded["offset_mapping"], strict=True)
                     if first < last and first < end and last > start] for word, start, end in words}
    rebuilt = {word: "".join(found).replace("▁", "") for word, found in pieces.items()}
    assert len(pieces["Unmistakable"]) > 1 and rebuilt.pop("ﬁsh") == "fish"  # the vocabulary writes the ligature out
    assert rebuilt == {word: word for word in rebuilt}
    scores = list(range(len(tokens)))
    for word, score, *_ in merge_words(words, encoded["offset_mapping"], scores):
        assert tokens[score] == pieces[word][-1], "the last piece has the highest place"


def test_the_best_words_stand_in_input_order_once_each():
    scored = [("The", 0.5, 0, 3), ("cow", 0.2, 4, 7), ("the", 0.9, 8, 11), ("owl", 0.9, 12, 15), ("a", 0.1, 16, 17)]
    assert best_words(scored, 2) == ["the", "owl"] and best_words(scored, 3) == ["cow", "the", "owl"]
    assert best_words(scored, 99) == ["cow", "the", "owl", "a"]
    assert best_words([], 3) == [] and best_words([("a", 0.0, 0, 1), ("b", 0.0, 2, 3)], 1) == []
    assert best_words([("a", 1.0, 0, 1), ("b", 1.0, 2, 3)], 1) == ["a"]


def test_random_words_are_uniform_over_distinct_words_and_seeded():
    words = words_of("a cow and A cow and a cow or an owl")
    chosen = [word.casefold() for number in range(3000) for word in best_words(random_scores(words, 0, number), 2)]
    counts = Counter(chosen)
    assert len(counts) == 6
    assert all(abs(count - 1000) < 5 * (3000 * (1 / 3) * (2 / 3)) ** 0.5 for count in counts.values())
    assert random_scores(words, 1, "q") == random_scores(words, 1, "q") != random_scores(words, 2, "q")


# The whole way, with a teacher of its own

@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A teacher trained so that one word of the question decides on the answer; its folder and 40 questions."""
    from kdutils.student.models import load_student

    model, tokenizer = load_student("kdutils/mini/student", random_weights=True, seed=1,
                                    config={"d_model": 48, "d_kv": 12, "d_ff": 96})
    draw, fillers = random.Random(0), "what has a very big one that can be used on some".split()

    def item(number):
        key, words = draw.choice(list(KEYS)), draw.sample(fillers, 5)
        words.insert(draw.randrange(6), key)
        return {"id": f"q{number}", "split": "train", "question": " ".join(words) + "?", "choices": [],
                "answer": KEYS[key], "human_explanations": [], "key": key}

    optimizer = torch.optim.AdamW(model.train().parameters(), lr=5e-3)
    for _ in range(60):
        items = [item(number) for number in range(24)]
        inputs = tokenizer([format_source(one, "predict") for one in items], padding=True, return_tensors="pt")
        answers = [format_answer(one["answer"]) for one in items]
        labels = tokenizer(answers, padding=True, return_tensors="pt")["input_ids"]
        model(**inputs, labels=labels.masked_fill(labels == tokenizer.pad_token_id, -100)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    folder = tmp_path_factory.mktemp("teacher")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder), pd.DataFrame([item(number) for number in range(40)])


def write(planted, table=None, progress=None, loaded=None, **settings):
    table = planted[1] if table is None else table
    items = table.to_dict("records")
    return attribute_words(table, [format_source(item, "predict") for item in items],
                              [format_answer(item["answer"]) for item in items],
                              {"model": planted[0], "max_new_tokens": 16, **settings}, progress, loaded=loaded)


@pytest.mark.parametrize("attribution", ATTRIBUTIONS)
def test_a_teacher_that_hangs_on_one_word_is_seen_to(planted, attribution):
    found = write(planted, attribution=attribution, k=1, steps=8, evaluations=64)
    share, least = (found["text"] == planted[1]["key"]).mean(), {"random": 0, "input_x_gradient": 0.3}
    assert share > least.get(attribution, 0.7) and (attribution != "random" or share < 0.4)  # it is one word in six
    untaught = write(planted, attribution=attribution, k=1, steps=8, evaluations=64, random_weights=True)
    assert (untaught["text"] == planted[1]["key"]).mean() < 0.45
    if attribution not in ("integrated_gradients", *PERTURBATIONS):  # the slowest
        again = write(planted, attribution=attribution, random_weights=True)
        assert untaught["raw"].tolist() == again["raw"].tolist()


def test_the_table_is_one_of_explanations_and_feeds_a_student(planted, tmp_path):
    found = write(planted, k=3, progress=tmp_path / "progress.txt")
    write_table(found, tmp_path / "explanations.parquet", "explanations")
    stored = read_table(tmp_path / "explanations.parquet", "explanations")
    assert rationales_of(stored, planted[1]) == dict(zip(planted[1]["id"], found["text"], strict=True))
    assert (tmp_path / "progress.txt").read_text() == "attributed 40 of 40 questions\n"
    for text, raw, question in zip(stored["text"], stored["raw"], planted[1]["question"], strict=True):
        words = question.rstrip("?").split()
        assert [word for word, *_ in json.loads(raw)] == words
        assert text.split() == [word for word in words if word in text.split()] and len(text.split()) == 3
    assert set(stored["problem"]) == {""} and set(stored["completion_tokens"]) == {3}


def test_an_own_prediction_that_is_wrong_reaches_no_student(planted):
    table = planted[1].copy()
    table.loc[:9, "answer"] = "gold"  # what the teacher never says
    found = write(planted, table, target="own")
    assert found["answer"].tolist() == planted[1]["answer"].tolist(), "what the teacher says, read from its text"
    assert set(rationales_of(found, table)) == set(table["id"][10:])
    assert found.attrs["notes"]["another answer than the gold one explained"] == 10
    assert found["raw"][:9].tolist() == write(planted, target="gold")["raw"][:9].tolist()


def test_a_question_without_eligible_words_says_so(planted):
    table = planted[1].head(2).assign(question=["?!", "a cow"])
    found = write(planted, table)
    assert found["text"].isna().tolist() == [True, False] and found["text"][1] == "a cow"
    assert found["problem"].tolist() == ["no eligible words", ""]
    assert found.attrs["notes"]["fewer than k words"] == 2
    literal = write(planted, planted[1].head(1).assign(question=["a <eos> cow"]))
    assert [word for word, *_ in json.loads(literal["raw"][0])] == ["a", "cow"], "a special token is no word"


def test_completeness_errors_come_per_question(planted):
    found = write(planted, planted[1].head(5), attribution="integrated_gradients", steps=16)
    errors = found.attrs["completeness_errors"]
    assert list(errors) == planted[1]["id"][:5].tolist()
    assert found.attrs["notes"]["largest completeness error"] == max(map(abs, errors.values()))


def test_the_time_taken_is_without_loading_and_a_loaded_model_serves_all_attributions(planted, monkeypatch):
    """By a clock that only loading (100 s) and scoring a batch (7 s) move."""
    now, attention = [0.0], ATTRIBUTIONS["attention_rollout"]

    def slower(function, seconds):
        def called(*args, **kinds):
            now[0] += seconds
            return function(*args, **kinds)
        return called

    monkeypatch.setattr(word_scores, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setattr(word_scores, "load_model", slower(word_scores.load_model, 100))
    monkeypatch.setitem(ATTRIBUTIONS, "attention_rollout", replace(attention, scores=slower(attention.scores, 7)))
    few, loaded = (planted[0], planted[1].head(2)), load_model(SETTINGS | {"model": planted[0]})
    alone = {name: write(few, attribution=name, evaluations=8, steps=4) for name in ATTRIBUTIONS}
    assert {name: table.attrs["seconds"] for name, table in alone.items()} == {
        name: 7 if name == "attention_rollout" else 0 for name in ATTRIBUTIONS} and now[0] > 100
    monkeypatch.delattr(word_scores, "load_model")
    for name, table in reversed(alone.items()):
        again = write(few, attribution=name, evaluations=8, steps=4, loaded=loaded)
        assert again["raw"].tolist() == table["raw"].tolist()


def test_what_cannot_be_done_is_named(planted, tmp_path):
    for settings, message in (
            ({"k": 0}, "k: 0 is not a whole number of at least 1"), ({"frame": "Premise:"}, "is not a list of texts"),
            ({"attribution": "tarot"}, "attribution: unknown 'tarot'; known: saliency, input_x_gradient"),
            ({"target": "wrong"}, "target: unknown 'wrong'; known: gold, own"), ({"top": 5}, "settings: unknown 'top'"),
            ({"model": "kdutils/mini/teacher"}, "a llama model has no encoder; give a sequence-to-sequence teacher"),
            ({"max_source_tokens": 9}, r"question 'q0': its source takes \d+ tokens, \d+ more than 9; raise")):
        with pytest.raises(StudyError, match=message):
            write(planted, **settings)
    with pytest.raises(StudyError, match="1 questions, 0 sources, 1 targets: give one each"):
        attribute_words(planted[1].head(1), [], ["x"], {"model": planted[0]})
    broken = tmp_path / "broken"
    model, tokenizer, _ = load_model(SETTINGS | {"model": planted[0]})
    assert not model.training and not any(weight.requires_grad for weight in model.parameters())
    torch.nn.init.constant_(model.encoder.final_layer_norm.weight, math.nan)
    model.save_pretrained(broken)
    tokenizer.save_pretrained(broken)
    with pytest.raises(StudyError, match="question 'q0': its saliency scores are not finite numbers"):
        write((str(broken), planted[1].head(1)))
    (broken / "student.json").write_text("{}")
    with pytest.raises(StudyError, match="the teacher is incomplete"):
        write((str(broken), planted[1]))


def test_a_new_attribution_is_one_entry(planted, monkeypatch):
    """It gets what it takes, and its errors are told; here the last token of a word counts most."""
    def place(model, batch, k, parts):
        scores = torch.arange(batch["source"].shape[1]).float().expand(batch["source"].shape)
        assert k == 2 and [max(words) for words in parts] == [5] * len(parts)
        return scores, [0.5] * len(scores)

    assert choices.ATTRIBUTIONS == tuple(ATTRIBUTIONS)
    monkeypatch.setitem(ATTRIBUTIONS, "place", Attribution(place, ("k", "parts"), ("colorsys",), causal=False))
    found = write(planted, planted[1].head(5), attribution="place", k=2)
    assert found["text"].tolist() == [" ".join(one.rstrip("?").split()[-2:]) for one in planted[1]["question"][:5]]
    assert found.attrs["notes"]["largest completeness error"] == 0.5
    assert driving_words("kdutils/mini/teacher", planted[1].head(1), "place") == {}


# What is reported

def explained(rows):
    """Return a frame as attribute_words makes it from {id: [(word, score)]}, the two best words chosen."""
    records = []
    for key, words in rows.items():
        scored = [(word, score, 10 * place, 10 * place + len(word)) for place, (word, score) in enumerate(words)]
        records.append({"id": key, "text": " ".join(best_words(scored, 2)) or None, "raw": json.dumps(scored)})
    return pd.DataFrame(records)


def test_the_share_of_the_answer_and_what_random_words_would_give():
    questions = pd.DataFrame({"id": ["1", "2", "3"], "answer": ["Red Cow.", "owl", "gold"]})
    found = explained({"1": [("a", 1), ("cow", 5), ("red", 4), ("cat", 0.5), ("Cow", 1)],
                       "2": [("owl", 1), ("is", 3), ("it", 2)], "3": []})
    table = answer_share(found, questions)
    assert table.loc["attributed"].tolist() == [2, 2 / 4, 1 / 2, 1 / 2]
    draws = np.random.default_rng(0)
    drawn = [[set(draws.choice(words, 2, replace=False)) for _ in range(20_000)]
             for words in (["a", "cow", "red", "cat"], ["owl", "is", "it"])]
    for column, share in (
            ("words in the answer", lambda words, answer: len(words & answer) / 2),
            ("any answer word", lambda words, answer: bool(words & answer)),
            ("every answer word", lambda words, answer: answer <= words)):
        simulated = np.mean([[share(words, answer) for words in sets]
                             for sets, answer in zip(drawn, ({"red", "cow"}, {"owl"}), strict=True)])
        assert table.loc["expected at random", column] == pytest.approx(simulated, abs=0.01)
    with pytest.raises(StudyError, match="no question has attributed words"):
        answer_share(found.tail(1), questions)


def test_agreement_of_two_attributions():
    one = explained({"1": [("a", 1), ("b", 2), ("c", 3), ("d", 4)], "2": [("a", 1), ("b", 2)]})
    other = explained({"2": [("a", 5), ("b", 6)], "1": [("a", 4), ("b", 3), ("c", 2), ("d", 1)]})
    third = explained({"1": [("a", 1), ("b", 2), ("c", 4), ("d", 3)]})
    table = agreement({"one": one, "other": other, "third": third}).set_index(["first", "second"])
    assert table.loc[("one", "other")].tolist() == [2, -1.0, (0 + 1) / 2]  # two words alone have no rank correlation
    assert table.loc[("one", "third")].tolist() == pytest.approx([1, 0.8, 1.0])  # 1 − 6·2 / (4·15)
    with pytest.raises(StudyError, match="agreement of one and none: no question with attributed words in both"):
        agreement({"one": one, "none": explained({"9": [("a", 1), ("b", 2)]})})


def test_the_heat_map_stays_on_the_page_and_darkens_with_the_score():
    words = [["cow"] * 60, ["$x_1$", "w" * 10_000], []]
    figure = token_heat_map(words, [[*range(60)], [0, 0], []], ["first", "second", "third"], title="Saliency")
    renderer = figure.canvas.get_renderer()
    boxes = [text.get_window_extent(renderer) for text in figure.texts]
    assert all(0 <= box.x0 and box.x1 <= figure.bbox.x1 and 0 <= box.y0 and box.y1 <= figure.bbox.y1 for box in boxes)
    cows = [text for text in figure.texts if text.get_text() == "cow"]
    shades = [sum(text.get_bbox_patch().get_facecolor()[:3]) for text in cows]
    assert len(cows) == 60 and len({text.get_position()[1] for text in cows}) > 3 and shades == sorted(shades)[::-1]
    with pytest.raises(StudyError, match="as many scores as words in every row"):
        token_heat_map([["a"]], [[1, 2]], ["x"])


def test_shapley_values_of_a_sum_are_its_terms():
    """A word that adds the same to every set of the others has this as its Shapley value, in every order."""
    from kdutils.teacher.attributions import _shapley

    terms = torch.tensor([3.0, -2.0, 0.01, 0.0, 1.0])
    method, given = _shapley(lambda there: (there * terms).sum(dim=1), len(terms), 64)
    found = method.attribute(torch.ones(1, len(terms)), **given)
    torch.testing.assert_close(found[0], terms)
