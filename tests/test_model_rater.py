"""A model as rater: what it is asked, its points by hand calculation, its biases, and whether it tracks people."""

import json
import os
import re
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import spearmanr

from kdutils.errors import StudyError
from kdutils.human_study import model_rater
from kdutils.human_study.design import SCALE, TASKS, Study
from kdutils.human_study.forms import write_study
from kdutils.human_study.plan import draw_plan
from kdutils.human_study.ratings import describe_origin, mark_of, one_row_per_rating, read_ratings
from kdutils.human_study.simulated_raters import simulate_raters
from kdutils.stats.agreement import krippendorff_alpha
from kdutils.teacher.completion import Completion
from kdutils.teacher.hf import HfTeacher
from kdutils.teacher.points import next_word_probabilities, point_of_text, rate_points
from kdutils.teacher.served import ServedTeacher
from kdutils.teacher.store import Store
from kdutils.teacher.stored import StoredTeacher
from tests.test_human_study import METHODS, texts_for
from tests.test_soft_labels import Echo

ITEMS = TASKS["rating"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A study of four raters with texts of two methods: (plan, texts)."""
    folder, texts = tmp_path_factory.mktemp("rater"), texts_for(4, 2)
    return write_study(folder, Study("tiny-1"), draw_plan(Study("tiny-1"), texts, 4, 4, 2, seed=3), texts), texts


def one_hot(points):
    return np.eye(5)[np.array(points) - 1]


def test_each_text_is_asked_about_in_both_scales_and_orders(made):
    _, texts = made
    askings = model_rater.rating_prompts(texts, ITEMS)
    assert len(askings) == len(texts) * len(ITEMS) * 2 * 3 and not askings.duplicated().any()
    assert (askings.groupby(["text", "item"]).size() == 6).all()
    one = askings[askings["text"] == texts["text"][0]].set_index(["item", "scale", "place"])["prompt"]
    own = texts["explanation"][0]
    beside = texts[(texts["question"] == texts["question"][0]) & (texts["text"] != texts["text"][0])]
    other = beside["explanation"].iloc[0]
    rising, falling = (one["truth", scale, "alone"] for scale in model_rater.SCALES)
    assert f"1 = {SCALE[0]}" in rising and f"1 = {SCALE[4]}" in falling and ITEMS["truth"] in rising
    assert other not in rising and rising.endswith("Number:")
    first, second = (one["truth", "rising", place] for place in ("first", "second"))
    assert first.index(own) < first.index(other) and "about Explanation 1" in first
    assert second.index(other) < second.index(own) and "about Explanation 2" in second
    assert set(model_rater.rating_prompts(texts[texts["method"] == METHODS[0]], ITEMS)["place"]) == {"alone"}
    method_names = [name for name in METHODS if askings["prompt"].str.contains(name).any()]
    assert not method_names, "the model is blind too"


def test_points_are_turned_back_and_averaged_by_hand():
    askings = pd.DataFrame({"text": ["a"] * 4, "item": ["plausibility", "plausibility", "truth", "truth"],
                            "scale": ["rising", "falling"] * 2, "place": "alone", "prompt": "x"})
    probabilities = np.array([[0, 0, 0, 0.5, 0.5], [1, 0, 0, 0, 0], [0.2] * 5, [np.nan] * 5])
    scored = model_rater.expected_points(askings, probabilities)
    assert scored["score"].tolist()[:3] == pytest.approx([4.5, 5, 3]) and np.isnan(scored["score"][3])
    score = model_rater.score_texts(scored).iloc[0]
    assert [score["plausibility"], score["quality"]] == pytest.approx([4.75, 4.75])
    assert np.isnan(score["truth"])  # on one scale alone, a preference for high numbers would count


def test_a_bias_cancels_in_every_score_that_there_is(made):
    """All texts are worth 4; the rater gives 1 more on the rising scale, and 0.5 more to the second of two."""
    askings = model_rater.rating_prompts(made[1], ITEMS)
    biased = 4 + np.where(askings["scale"] == "rising", 1, -1) + askings["place"].map(
        {"alone": 0, "first": -0.5, "second": 0.5})
    unread = np.random.default_rng(0).random(len(askings)) < 0.02
    scores = model_rater.score_texts(askings.assign(score=biased.where(~unread))).set_index("text")
    assert scores[list(ITEMS)].stack().dropna().to_list() == pytest.approx([4] * int(scores[list(ITEMS)].count().sum()))
    lost = askings[unread].groupby("text")["item"].unique()
    assert unread.any() and all(scores.loc[text, names].isna().all() for text, names in lost.items())
    assert scores["quality"].notna().any()


def test_biases_that_were_put_in_are_found_and_none_where_there_is_none(made):
    _, texts = made
    askings = model_rater.rating_prompts(texts, ITEMS)
    measures = pd.DataFrame({"text": texts["text"], "characters": range(len(texts)), "copied": np.tile([0.0, 1.0], 4)})
    length = askings["text"].map(measures.set_index("text")["characters"])
    fair = askings.assign(score=3.0 + length / 10)
    biased = fair.assign(score=fair["score"] + 0.5 * (fair["place"] == "first") - 0.25 * (fair["scale"] == "falling"))
    for table, position, scale in ((fair, 0, 0), (biased, 0.5, 0.25)):
        found, said = model_rater.check_bias(table, model_rater.score_texts(table).merge(measures, on="text"))
        value = found.set_index("check")["value"]
        assert value["position"] == pytest.approx(position) and value["scale"] == pytest.approx(scale) and not said
        assert value["length"] == pytest.approx(1) and abs(value["copied"]) < 0.5
    alone = askings[askings["place"] == "alone"].assign(score=3.0)
    found, said = model_rater.check_bias(alone, model_rater.score_texts(alone).merge(measures, on="text"))
    assert list(found["check"]) == ["scale"] and any("two methods" in one for one in said) and len(said) == 3


def test_points_that_are_missing_are_no_bias(made):
    """Scores differ by text and item alone, and 60 % of the lowest have no point on the falling scale or as second."""
    askings = model_rater.rating_prompts(made[1], ITEMS)
    worth = askings.groupby(["text", "item"]).ngroup() / 48 * 4 + 1
    gone = (worth < 3) & (np.random.default_rng(0).random(len(askings)) < 0.6) & (
        (askings["scale"] == "falling") | (askings["place"] == "second"))
    scored = askings.assign(score=worth.where(~gone))
    measured = model_rater.score_texts(scored).assign(characters=range(8), copied=0)
    found = model_rater.check_bias(scored, measured)[0].set_index("check")
    assert found.loc[["scale", "position"], ["value", "low", "high"]].to_numpy().tolist() == [[0.0] * 3] * 2
    assert scored.groupby("scale")["score"].mean().diff().abs().max() > 0.2, "as the means of all points would have it"
    half = scored[scored["scale"] == "rising"]
    assert "The check of scale is left out: no two askings that differ in this alone have a point." in \
        model_rater.check_bias(half, measured)[1]


def test_two_explanations_of_different_answers_each_stand_below_their_own(made):
    texts = made[1][made[1]["question"] == made[1]["question"][0]].sort_values("method").reset_index(drop=True)
    same = model_rater.rating_prompts(texts.assign(answer="piano"), ITEMS)["prompt"]
    assert same.str.count("Answer of a model: piano\n").eq(1).all() and not same.str.contains("Answer 1").any()
    askings = model_rater.rating_prompts(texts.assign(answer=["piano", "book"]), ITEMS)
    own = askings[askings["text"] == texts["text"][0]].drop_duplicates("place").set_index("place")["prompt"]
    first, second = (" ".join(text.split()) for text in texts["explanation"])
    assert f"Answer of a model: piano\nExplanation: {first}\n" in own["alone"] and "Answer 2" not in own["alone"]
    assert (f"\nAnswer 1 of a model: piano\nExplanation 1: {first}\nAnswer 2 of a model: book\nExplanation 2: {second}"
            "\nStatement about Explanation 1: " in own["first"]) and "Answer of a model" not in own["first"]
    assert (f"\nAnswer 1 of a model: book\nExplanation 1: {second}\nAnswer 2 of a model: piano\nExplanation 2: {first}"
            "\nStatement about Explanation 2: " in own["second"])


def rated(made, tmp_path, effect):
    plan, texts = made
    simulate_raters(plan, tmp_path / "people", effects={METHODS[0]: effect}, seed=2)
    return one_row_per_rating(read_ratings(tmp_path / "people", plan).ratings)


def test_agreement_with_people_is_that_of_scipy_and_a_rater_that_does_not_track_is_called_that(made, tmp_path):
    wide = rated(made, tmp_path, -1.5)
    right = wide.groupby("text")[[*ITEMS, "quality"]].mean().reset_index()
    table, said = model_rater.compare_with_people(right, wide, [*ITEMS, "quality"])
    both = wide.merge(right, on="text", suffixes=("", "_model"))
    for name, value in table.set_index("construct")["spearman"].items():
        assert value == pytest.approx(spearmanr(both[name], both[f"{name}_model"]).statistic), name
    assert not said and model_rater.describe_rater(table, "quality").startswith("This rater tracks people")
    ranks, said = model_rater.rank_methods(right, wide, "quality")
    assert said == ["The model ranks the 2 methods as people do; a ranking by chance is as people's in 1 of 2 cases."]
    assert ranks["rank_people"].tolist() == [1, 2]
    wrong = right.assign(**{name: 6 - right[name] for name in [*ITEMS, "quality"]})
    table, _ = model_rater.compare_with_people(wrong, wide, ["quality"])
    assert table["spearman"][0] < 0 and "does not track people" in model_rater.describe_rater(table, "quality")
    _, said = model_rater.rank_methods(wrong, wide, "quality")
    assert said[0].startswith("The model ranks the 2 methods otherwise than people; ")
    some = right.assign(quality=right["quality"].where(right["text"].isin(wide["text"].unique()[:-1])))
    ranks, _ = model_rater.rank_methods(some, wide, "quality")
    scored = wide[wide["text"] != wide["text"].unique()[-1]].groupby("method")["quality"].mean()
    assert ranks.set_index("method")["people"].to_dict() == pytest.approx(scored.to_dict()), "of texts that both rated"
    one = right.assign(quality=right["quality"].where(right["text"].isin(wide.loc[
        wide["method"] == wide["method"].iloc[0], "text"])))
    assert model_rater.rank_methods(one, wide, "quality")[1] == [
        "A ranking needs rated texts of two methods or more; there is one."]
    same = right.assign(**{name: 3.0 for name in [*ITEMS, "quality"]})
    table, said = model_rater.compare_with_people(same, wide, ["quality"])
    assert said and "not known: the correlation of its scores with" in model_rater.describe_rater(table, "quality")
    assert model_rater.rank_methods(same, wide, "quality")[1][0].startswith("Some methods have the same mean")
    unsure = pd.DataFrame([dict.fromkeys(model_rater.AGREEMENT, 0.1) | {"construct": "quality", "low": -0.1}])
    assert model_rater.describe_rater(unsure, "quality").startswith("This rater is not shown to track people")
    nobody, said = model_rater.compare_with_people(right, wide.iloc[:0], ["quality"])
    assert not len(nobody) and len(said) == 1 and "not known" in model_rater.describe_rater(nobody, "quality")


def test_a_rater_that_follows_people_no_closer_than_length_does_is_called_that():
    draw = np.random.default_rng(4)
    length, noise = draw.permutation(60) + 20, draw.normal(size=(3, 60))
    wide = pd.DataFrame({"rater": np.arange(60) % 20, "text": np.arange(60), "method": "m", "characters": length,
                         "quality": length / 20 + noise[0]})
    for sign, what in ((1, "length"), (-1, "shortness")):
        people = wide.assign(quality=sign * wide["quality"])
        model = pd.DataFrame({"text": wide["text"], "quality": sign * length / 20 + 2 * noise[1]})
        table, said = model_rater.compare_with_people(model, people, ["quality"])
        row = table.iloc[0]
        assert row["length"] == pytest.approx(spearmanr(people["quality"], length).statistic) and not said
        assert row["length_low"] < row["length"] < row["length_high"] and 0 < row["low"]
        assert row["gain"] == pytest.approx(row["spearman"] - abs(row["length"]))
        verdict = model_rater.describe_rater(table, "quality")
        assert verdict.startswith("This rater is no better than a count of characters: its scores rise with people's")
        assert f"no more than the {what} of a text does (Spearman {abs(row['length']):.2f})" in verdict
    better = model.assign(quality=people["quality"] + noise[2] / 9)
    verdict = model_rater.describe_rater(model_rater.compare_with_people(better, people, ["quality"])[0], "quality")
    assert verdict.startswith("This rater tracks people") and "and more than the shortness of a text does" in verdict
    row = model_rater.compare_with_people(better, people, ["quality"])[0].iloc[0]
    assert 0 < row["gain_low"] < row["gain"] < row["gain_high"]
    little = model.assign(quality=people["quality"] + 1.1 * noise[2])
    table, _ = model_rater.compare_with_people(little, people, ["quality"])
    assert table["gain_low"][0] < 0 < table["gain"][0] and table["low"][0] > 0
    assert model_rater.describe_rater(table, "quality").startswith("Whether this rater is better than a count of char")
    unknown = model_rater.describe_rater(table.assign(gain=np.nan, gain_low=np.nan, gain_high=np.nan), "quality")
    assert "The difference has no interval." in unknown and "nan" not in unknown
    same = people.assign(characters=9)
    table, (said,) = model_rater.compare_with_people(better, same, ["quality"])
    assert "The correlation of length with ratings of quality is left out" in said
    assert model_rater.describe_rater(table, "quality").endswith(").") and np.isnan(table["length"][0])


def test_the_interval_of_alpha_is_the_wider_of_those_over_raters_and_texts():
    draw = np.random.default_rng(5)
    of_text, of_rater = draw.normal(size=12), draw.normal(size=8)
    wide = pd.DataFrame([{"rater": rater, "text": text, "characters": text, "quality": of_text[text] + of_rater[rater]}
                         for rater in range(8) for text in range(12)])
    model = pd.DataFrame({"text": range(12), "quality": of_text})
    row = model_rater.compare_with_people(model, wide, ["quality"])[0].iloc[0]
    pair = wide[["quality"]].assign(model=of_text[wide["text"]])
    ends = [krippendorff_alpha(pair, "interval", clusters=[wide[one]]) for one in ("rater", "text")]
    assert (row["alpha_low"], row["alpha_high"]) == (min(one.low for one in ends), max(one.high for one in ends))
    alone = krippendorff_alpha(pair, "interval")
    assert row["alpha"] == alone.value and row["alpha_high"] - row["alpha_low"] > alone.high - alone.low


def test_a_filled_plan_reads_back_marked_as_a_models(made, tmp_path):
    plan, texts = made
    askings = model_rater.rating_prompts(texts, ITEMS)
    scores = model_rater.score_texts(askings.assign(score=[1 + 4 * place / len(askings) for place in askings.index]))
    paths, said = model_rater.fill_plan(scores, plan, tmp_path, "a/model")
    assert len(paths) == 4 and not said
    ratings, problems, raters = read_ratings(tmp_path, plan)
    assert not len(problems) and set(raters["status"]) == {"kept"} and mark_of(ratings) == "RATED BY A MODEL"
    assert "a language model (a/model)" in describe_origin(ratings)
    points = scores.set_index("text")
    assert all(row.score == round(points.loc[row.text, row.construct]) for row in ratings.itertuples())
    simulate_raters(plan, tmp_path / "simulated")
    assert mark_of(read_ratings(tmp_path / "simulated", plan).ratings) == "SIMULATED"
    person = tmp_path / "tiny-1_other_model.json"
    person.write_text(json.dumps({**json.loads(paths[0].read_text()), "simulated": False}))
    some = scores[scores["text"].isin(plan.loc[plan["rater"] == plan["rater"].iloc[0], "text"])]
    left, said = model_rater.fill_plan(some, plan, tmp_path, "another/model")
    assert 0 < len(left) < 4 and set(tmp_path.glob("*.json")) == {*left, person}, "files of the other model are gone"
    assert said == [f"{4 - len(left)} of 4 raters of the plan have no answer file: {8 - len(some)} of its 8 texts were "
                    "not rated. Set most_texts to 8 or more for all raters."]
    assert model_rater.fill_plan(scores.assign(truth=np.nan), plan, tmp_path, "a/model") == ([], [
        "4 of 4 raters of the plan have no answer file: 8 of its 8 texts have a statement without a score."])


@pytest.mark.parametrize("text, point", [("4", 4), (" 5.", 5), ("I choose 2, because 3", 2), ("4/5", 4),
                                         ("4. I agree", 4), ("Answer 4", 4), ("Answer 1: 4", 4),
                                         ("Answer 2 is right so 4", 4),
                                         ("On a 5-point scale: Answer 4", 4), ("**4**", 4), ("Explanation 2: 4", 4),
                                         ("3 of 5", 3),
                                         ("On a scale of 1 to 5: 4", 4), ("From 1-5, 2", 2), ("2nd explanation: 4", 4),
                                         ("1. I strongly agree: 5", 5), ("Statement 1\uff1a3", 3), ("1 to 5", None),
                                         ("agree", None), ("7", None), ("10", None), ("3.5", None), ("", None),
                                         # the size of the scale
                                         ("On a 5-point scale: 3", 3), ("On a 5 point Likert scale, 2", 2),
                                         ("Out of 5, I'd give 3", 3), ("2 out of 5", 2), ("Score (/5): 3", 3),
                                         ("4 / 5", 4), ("On a scale of 5: 2", 2), ("A 4-point rating", 4),
                                         ("I give 4 points", 4), ("1 point", 1), ("5/5", 5),
                                         # its ends
                                         ("Between 1 and 5, I say 2", 2), ("1 through 5: 3", 3), ("[1..5] 4", 4),
                                         ("From 1 (strongly disagree) to 5 (strongly agree): 4", 4),
                                         ("between 1 and 5", None), ("1, 2, 3, 4 or 5? I choose 4", 4),
                                         # its meaning
                                         ("1 means strongly disagree, so 2", 2), ("5 being the highest, I say 4", 4),
                                         ("1 = strongly disagree, 5 = strongly agree. 4", 4), ("3 = neither", 3),
                                         ("4 = agree, because 3 claims hold", 4), ("4 means that I agree", 4),
                                         ("Where 5 is strongly agree: 3", 3), ("4 is my rating", 4),
                                         ("1 = strongly disagree to 5 = strongly agree: 2", 2),
                                         # no point at all, and other numbers
                                         ("-1", None), ("I say -1", None), ("\u22122", None), ("Answer:-3", 3),
                                         ("- 4", 4), ("Explanations 1 and 2 differ: 4", 4), ("1 to 5: 3", 3)])
def test_a_point_is_read_from_the_answer_of_a_server(text, point):
    found = point_of_text(text, 5)
    assert found == one_hot(point).tolist() if point else np.isnan(found).all()


@pytest.mark.parametrize("text, first, second", [
    ("Explanation 1: 4, Explanation 2: 2", 4, 2), ("explanation #2 = 5; Explanation 1 is 3", 3, 5),
    ("**Explanation 1:** 4", 4, None), ("Explanation 2: 2", None, 2), ("3", 3, 3), ("Explanation 1: 9", None, None),
    ("Explanations 1 and 2 differ: 4", 4, 4), ("Explanation 1 is better, so 5", 5, 5)])
def test_the_point_of_the_other_explanation_does_not_count(made, text, first, second):
    askings = model_rater.rating_prompts(made[1], ITEMS)
    for place, point in (("first", first), ("second", second)):
        found = point_of_text(text, 5, askings.loc[askings["place"] == place, "prompt"].iloc[0])
        assert found == one_hot(point).tolist() if point else np.isnan(found).all()


class Server:
    """A teacher without probabilities, as one behind a server."""

    teacher = None

    def complete(self, prompts, decoding, progress=None, keep=None):
        return [Completion(f"{prompt[-1]} is my answer", "stop", None, None) for prompt in prompts]


def test_a_teacher_without_probabilities_is_read_by_its_text():
    probabilities, source, notes = rate_points(Server(), ["say 4", "say 9"], 5)
    assert (source, notes) == ("text", [])
    assert probabilities[0].tolist() == one_hot(4).tolist() and np.isnan(probabilities[1]).all()
    assert rate_points(Server(), [], 5)[0].shape == (0, 5)


SHARES = {"good": [0.02, 0.02, 0.04, 0.08, 0.24], "bad": [0.2, 0.1, 0.05, 0.05, 0.0]}  # of all words, by hand


class Rater(Echo):
    """Gives the points of SHARES behind a prompt that ends with one of its words, and writes " 2" when asked to write.

    `way`: "no echo" refuses to repeat a text, "then broken" repeats only the first prompt.
    """

    def __init__(self, way=""):
        super().__init__(way)
        self.RequestHandlerClass = Rates

    def reply(self, body):
        if not body.get("echo"):
            return {"choices": [{"text": " 2", "finish_reason": "stop"}], "usage": {"completion_tokens": 1}}
        if self.way == "no echo" or (self.way == "then broken" and "bad" in body["prompt"]):
            return None
        quality, point = body["prompt"].split()[-2:]
        log_p = np.log(np.maximum(SHARES[quality][int(point) - 1], 1e-30)) + 0.5
        shown = {"tokens": ["<s>", quality, " ", point, " then"], "token_logprobs": [None, -7.0, -0.5, log_p, -9.0]}
        return {"choices": [{"text": "", "finish_reason": "length", "logprobs": shown}]}


class Rates(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append(body)
        reply = self.server.reply(body)
        self.send_response(200 if reply else 400)
        self.end_headers()
        refused = ", no chat_template_kwargs" * ("chat_template_kwargs" in body and self.server.way == "no switch")
        self.wfile.write(json.dumps(reply or {"error": {"message": f"Only no echo is supported{refused}"}}).encode())

    def log_message(self, *_):
        """A test needs no log."""


def test_a_server_that_gives_log_p_of_a_text_is_read_by_its_likelihoods(tmp_path):
    with Rater() as (server, teacher), Store(tmp_path / "store.sqlite") as store:
        found, source, notes = rate_points(StoredTeacher(teacher, store), ["It is good", "It is bad", "It is good"], 5)
    assert (source, notes) == ("likelihood", [])
    assert found[0] == pytest.approx([0.05, 0.05, 0.1, 0.2, 0.6]) and found[2].tolist() == found[0].tolist()
    assert found[1] == pytest.approx([0.5, 0.25, 0.125, 0.125, 0])
    assert sorted(body["prompt"] for body in server.seen) == sorted(
        f"It is {word} {point}" for word in SHARES for point in range(1, 6)), "each text is asked for once"
    askings = pd.DataFrame({"scale": ["rising", "rising", "falling"]})
    scores = model_rater.expected_points(askings, found)["score"]
    assert scores.tolist() == pytest.approx([4.25, 1.875, 1.75])  # by hand: .05 + .1 + .3 + .8 + 3, ..., 6 - 4.25


def test_a_server_that_refuses_is_read_by_its_text_and_this_is_said(tmp_path):
    with Rater("no echo") as (_, teacher), Store(tmp_path / "store.sqlite") as store:
        found, source, notes = rate_points(StoredTeacher(teacher, store), ["It is good", "It is bad"], 5)
    assert source == "text" and found.tolist() == [one_hot(2).tolist()] * 2
    (note,) = notes
    assert note.startswith("The written answers are read, because the server gives no likelihoods: m at http://127")
    assert "Only no echo is supported" in note and "take such a server (vLLM)" in note and note.endswith(".")


def test_a_server_that_breaks_in_between_is_an_error_and_no_mixture(tmp_path):
    with Rater("then broken") as (server, teacher), Store(tmp_path / "store.sqlite") as store:
        with pytest.raises(StudyError, match="Only no echo is supported"):
            rate_points(StoredTeacher(teacher, store), ["It is good", "It is bad"], 5)
    assert all(body.get("echo") for body in server.seen), "no answer is written"


class Chat(Rater):
    """A chat server: the first token of an answer has the probabilities FIRST, and the answer is "I say 2".

    `way`: "plain" leaves the log p out, "no log p" refuses to give them, "no switch" refuses to switch the thinking,
    "thinks" thinks first, up to the limit of tokens, if that is low.
    """

    FIRST = {"good": {"4": 0.3, " 4": 0.1, "5": 0.2, "7": 0.1, "Well": 0.3}, "bad": {"1": 0.006, "3": 0.003, "I": 0.9},
             "odd": {"I": 1.0}}
    ANSWER = "I say 2"

    def reply(self, body):
        asked, few = body["messages"][-1]["content"], body["max_tokens"] < 100
        if self.way == "no switch" and "chat_template_kwargs" in body or self.way == "no log p" and "logprobs" in body:
            return None
        thinks = self.way == "thinks"
        first = {"<think>": 0.9999, "4": 0.0001} if thinks else self.FIRST[asked.split()[-1]]
        content = "<think> 1 or 3?" + ("" if few else f"</think>{self.ANSWER}") if thinks else self.ANSWER
        top = [{"token": token, "logprob": float(np.log(share)), "bytes": None} for token, share in first.items()]
        shown = {"content": [{**top[0], "top_logprobs": top}]} if body.get("logprobs") and self.way != "plain" else None
        return {"choices": [{"message": {"content": content}, "logprobs": shown,
                             "finish_reason": "length" if few and thinks else "stop"}],
                "usage": {"prompt_tokens": 9, "completion_tokens": body["max_tokens"] if thinks and few else 3}}


def ask_chat(tmp_path, way, prompts, thinking="off"):
    """Return (what rate_points returns, the bodies of the requests) of a chat server."""
    with Chat(way) as (server, teacher), Store(tmp_path / "store.sqlite") as store:
        chat = ServedTeacher("m", teacher.base_url, retries=0, thinking=thinking)
        return rate_points(StoredTeacher(chat, store), prompts, 5), server.seen


FEW = "the points among the 20 most probable first tokens have together less than half of the probability"


def test_a_chat_is_read_by_the_points_among_its_probable_first_tokens(tmp_path):
    prompts = ["It is good", "It is bad", "It is good"]
    (found, source, notes), seen = ask_chat(tmp_path, "", prompts)
    assert source == "likelihood" and found[0] == pytest.approx([0, 0, 0, 0.4 / 0.6, 0.2 / 0.6])
    assert found[2].tolist() == found[0].tolist()
    assert found[1].tolist() == one_hot(2).tolist() and notes == [
        f"The written answers to 1 of 3 prompts are read, because {FEW}."]
    assert [(body["messages"][0]["content"], body["max_tokens"], body.get("top_logprobs")) for body in seen] == [
        ("It is good", 1, 20), ("It is bad", 1, 20), ("It is bad", 8, None)], "each is asked for once"
    assert all(body["chat_template_kwargs"] == {"enable_thinking": False, "thinking": False} for body in seen)
    again, seen = ask_chat(tmp_path / "again", "", ["It is good"])
    assert len(seen) == 1 and again[2] == []


@pytest.mark.parametrize(("way", "word", "said"), [
    ("plain", "good", "the server gives no likelihoods: m at http://127.*no log p of the first tokens.*"),
    ("", "odd", f"{FEW}, for each of the first prompts .2.."),
    ("no log p", "good", "the server gives no likelihoods: m at http://127.*Only no echo is supported.*")])
def test_a_chat_without_log_p_of_points_is_read_by_its_text(tmp_path, way, word, said):
    (found, source, notes), seen = ask_chat(tmp_path, way, [f"It is {word}", "It is bad"])
    assert source == "text" and found.tolist() == [one_hot(2).tolist()] * 2
    assert len(notes) == 1 and re.fullmatch(f"The written answers are read, because {said}", notes[0])
    assert [body["max_tokens"] for body in seen] == ([1, 8, 8] if way else [1, 1, 8, 8])


def test_a_first_answer_without_a_point_does_not_decide_for_all(tmp_path):
    (found, source, notes), seen = ask_chat(tmp_path, "", ["It is odd", "It is good"])
    assert source == "likelihood" and found[1] == pytest.approx([0, 0, 0, 0.4 / 0.6, 0.2 / 0.6])
    assert found[0].tolist() == one_hot(2).tolist() and notes == [
        f"The written answers to 1 of 2 prompts are read, because {FEW}."]


def test_a_chat_that_thinks_gets_room_for_it_and_its_first_tokens_are_no_points(tmp_path):
    prompts = ["It is good", "It is bad"]
    (found, source, notes), seen = ask_chat(tmp_path, "thinks", prompts)
    assert source == "text" and found.tolist() == [one_hot(2).tolist()] * 2
    assert notes[0].startswith(f"The written answers are read, because {FEW}") and notes[1:] == [
        "The model thinks in spite of `thinking: off`: 2 of 2 answers were asked for again, with 2048 tokens."]
    assert sorted(body["max_tokens"] for body in seen) == [1, 1, 8, 8, 2048, 2048]
    (found, source, notes), seen = ask_chat(tmp_path / "on", "thinks", prompts, "on")
    assert (source, notes) == ("text", []) and found.tolist() == [one_hot(2).tolist()] * 2
    assert [body["max_tokens"] for body in seen] == [2048, 2048] and seen[0]["chat_template_kwargs"]["thinking"]
    (found, _, notes), seen = ask_chat(tmp_path / "auto", "thinks", prompts, "auto")
    assert [body["max_tokens"] for body in seen] == [1, 1, 2048, 2048] and "chat_template_kwargs" not in seen[0]
    assert found.tolist() == [one_hot(2).tolist()] * 2 and len(notes) == 1


def test_a_server_that_cannot_switch_the_thinking_is_an_error_that_says_what_to_set(tmp_path):
    with pytest.raises(StudyError, match="set thinking: auto, which leaves this field out"):
        ask_chat(tmp_path, "no switch", ["It is good"])
    assert ask_chat(tmp_path / "auto", "no switch", ["It is good"], "auto")[0][1] == "likelihood"


def test_a_local_model_that_thinks_first_is_read_by_its_text(tmp_path, monkeypatch):
    opened = tmp_path / "opened.jinja"
    opened.write_text("{{ messages[0]['content'] }}\n<think>\n")
    monkeypatch.setattr(HfTeacher, "complete", lambda *_, **__: [Completion("3", "stop", 9, 9, "Hm")])
    for thinking, template in (("on", "{{ messages[0]['content'] }}"), ("off", opened.read_text())):
        (tmp_path / "chat.jinja").write_text(template)
        model = HfTeacher("kdutils/mini/teacher", chat=True, thinking=thinking,
                          chat_template=str(tmp_path / "chat.jinja"))
        with Store(tmp_path / f"{thinking}.sqlite") as store:
            found, source, _ = rate_points(StoredTeacher(model, store), ["It is good"], 5)
        assert source == "text" and found.tolist() == [one_hot(3).tolist()], thinking


def llama_tokenizer():
    """A vocabulary that takes a space alone for two: Llama's puts one before each text."""
    from tokenizers import Tokenizer, decoders, models, normalizers
    from transformers import PreTrainedTokenizerFast

    pieces = ["<unk>", "<s>", "</s>", "▁", "▁▁", *"0123456789:.?", *map(chr, range(65, 400))]
    own = Tokenizer(models.BPE({piece: number for number, piece in enumerate(pieces)}, [("▁", "▁")], unk_token="<unk>"))
    own.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    own.decoder = decoders.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=own, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


@pytest.fixture(params=["mini", "llama", "real llama"])
def causal_teacher(request, tmp_path):
    """A causal teacher, by the kind of its vocabulary."""
    if request.param == "mini":
        return HfTeacher("kdutils/mini/teacher", token_budget=200)
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    if request.param == "llama":
        tokenizer = llama_tokenizer()
        assert len(tokenizer(" 1")["input_ids"]) == len(tokenizer("1")["input_ids"]) == 2
    else:
        tokenizer = AutoTokenizer.from_pretrained(request.getfixturevalue("real_data") / "tokenizers/llama/derived")
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        initializer_range=1.0)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    return HfTeacher(str(tmp_path), token_budget=200)


def test_likelihoods_are_those_of_the_model_by_the_plain_way(causal_teacher):
    teacher, words = causal_teacher, [str(point) for point in range(1, 6)]
    prompts = [f"{asked}Number:" for asked in ("Question: Which one can swim?\n", "", "Which one?\n", "Who is it?\n")]
    found = next_word_probabilities(teacher, prompts, words)
    for prompt, row in zip(prompts, found, strict=True):
        probabilities, asked = [], teacher.tokenizer(prompt)["input_ids"]
        for word in words:
            ids = teacher.tokenizer(f"{prompt} {word}")["input_ids"]
            assert ids[:len(asked)] == asked
            with torch.no_grad():
                logs = teacher.model(torch.tensor([ids])).logits[0].float().log_softmax(-1)
            probabilities.append(sum(logs[place - 1, ids[place]].item() for place in range(len(asked), len(ids))))
        expected = np.exp(probabilities) / np.exp(probabilities).sum()
        assert row == pytest.approx(expected, abs=1e-5) and row.sum() == pytest.approx(1)
        assert row.max() - row.min() > 1e-3
    with pytest.raises(StudyError, match="begins say and another"):
        next_word_probabilities(teacher, prompts, ["say", "say"])
    with pytest.raises(StudyError, match="context"):
        next_word_probabilities(teacher, ["word " * 5000], words)


# The published ratings --------------------------------------------------------------------------------------------


def published(tmp_path, lengths, rated, answers=None):
    """Write a file of published texts and ratings of some of them; return (ratings, path)."""
    answers = answers or ["yes"] * len(lengths)
    asked = [f"[predict] Question: Number {number}? Choices: (a) yes (b) no" for number in range(len(lengths))]
    table = pd.DataFrame({
        "input_predict": asked,
        "answers_preds": [f"The answer is {answer}" for answer in answers], "answers_labels": "The answer is yes",
        "rationales_preds": ["x" * length for length in lengths]})
    table.to_parquet(tmp_path / "texts.parquet")
    head = ("CASE,rationale,Completeness,Contrastiveness,Plausibility,Satisfaction,Understandability,rationale_id,"
            "model,rationale_length")
    lines = [f"1,RE{place + 8:02d},3,2,4,5,5,{place},MT+CF:RevRationales,{length}"
             for place, length in enumerate(rated)]
    (tmp_path / "study.csv").write_text("\n".join([head, *lines]) + "\n")
    return read_ratings(tmp_path / "study.csv").ratings, tmp_path / "texts.parquet"


def test_published_texts_are_found_by_order_and_length_and_doubtful_ones_left_out(tmp_path):
    ratings, path = published(tmp_path, [5, 7, 9, 9, 6, 7], [5, 9, 7], ["yes", "no", "yes", "yes", "yes", "yes"])
    texts = model_rater.published_texts(ratings, path)
    assert texts["asked"].tolist() == ["Number 0?", "Number 5?"], "the wrong answer is none, and one 9 is either"
    assert texts["choices"][0] == ["yes", "no"] and texts["answer"].tolist() == ["yes", "yes"]
    assert set(texts["text"]) <= set(ratings["text"])
    ratings, path = published(tmp_path, [5, 7], [7, 5])
    with pytest.raises(StudyError, match="their lengths do not fit"):
        model_rater.published_texts(ratings, path)
    pd.DataFrame({"a": [1]}).to_parquet(path)
    with pytest.raises(StudyError, match="is missing; the texts are those of"):
        model_rater.published_texts(ratings, path)


def test_271_of_the_published_texts_are_found():
    folder = Path(os.environ.get("KDUTILS_DATA") or Path(__file__).parents[2] / "shared" / "data") / "human_study"
    if not (folder / "revised_explanation_sample.parquet").is_file():
        pytest.skip("no published texts: set KDUTILS_DATA to the folder that holds human_study")
    ratings = read_ratings(folder / "study_ratings_no_demographics.csv").ratings
    texts = model_rater.texts_to_rate(folder / "revised_explanation_sample.parquet", ratings, True, 10 ** 6)
    assert len(texts) == 271 and texts["text"].is_unique
    both = texts.merge(ratings.drop_duplicates("text"), on="text")
    assert (both["explanation"].str.len() == both["characters"]).all() and len(both) == 271
    assert texts["choices"].map(len).eq(5).all()


def test_texts_that_people_rated_come_first_and_questions_stay_whole(made, tmp_path):
    _, texts = made
    texts.to_parquet(tmp_path / "texts.parquet")
    known = pd.DataFrame({"text": texts.loc[texts["question"] == texts["question"][0], "text"]})
    chosen = model_rater.texts_to_rate(tmp_path / "texts.parquet", known, False, 3)
    assert set(chosen["text"]) == set(known["text"]), "two of three fit, and a question is not cut"
    assert len(model_rater.texts_to_rate(tmp_path / "texts.parquet", None, False, 100)) == len(texts)
    texts.drop(columns="asked").to_parquet(tmp_path / "texts.parquet")
    with pytest.raises(StudyError, match="column 'asked' is missing"):
        model_rater.texts_to_rate(tmp_path / "texts.parquet", None, False, 3)
