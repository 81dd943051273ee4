"""The human study: balanced, blind, read back without loss, and nothing that comes back can break it."""

import base64
import hashlib
import html
import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kdutils.errors import StudyError
from kdutils.human_study import metric_validity
from kdutils.human_study.design import (
    BASELINE,
    CONSTRUCTS,
    GAP,
    SCALE,
    TASKS,
    Study,
    draw_texts,
    eligible_texts,
    explanations_as_predictions,
    label_methods,
)
from kdutils.human_study.forms import canonical, checksum, write_study
from kdutils.human_study.plan import draw_plan, plan_facts, questions_needed, read_plan, write_plan
from kdutils.human_study.ratings import (
    RATING_COLUMNS,
    count_problems,
    one_row_per_rating,
    read_ratings,
)
from kdutils.human_study.simulated_raters import (
    simulate_raters,
    simulate_scores,
)

RUN = "document.title='it ran'"
HOSTILE = (f"<script>{RUN}</script></script><!-- ' \" & </textarea> <img src=x onerror=\"{RUN}\"> \u202egnp.exe\u202c "
           "{{ 7 * 191 }} ${7*191} a\x00b\x9bc\x1b[31m =HYPERLINK(1) \u2028 שלום")
METHODS = ("zebra_method", "yak_method", "xerus_method", "wombat_method", "vole_method")
CHOICES = ["goldfish", "oak tree", "piano", "shovel", "book"]


def world(n_questions=12, n_methods=2, seeds=(0,), text="It is a {answer}, said {method}."):
    """Return (predictions, questions): every student right, but for question 0."""
    questions = [{"id": f"q{number:03d}", "split": "test", "question": f"Which one is number {number}?",
                  "choices": CHOICES, "answer": CHOICES[number % 5], "human_explanations": []}
                 for number in range(n_questions)]
    predictions = []
    for number, item in enumerate(questions):
        for place, method in enumerate(METHODS[:n_methods]):
            for seed in seeds:
                answer = item["answer"] if number or place else CHOICES[1]
                words = text.replace("{answer}", answer).replace("{method}", f"number {number * 7 + place * 3}")
                predictions.append({"id": item["id"], "split": "test", "seed": seed, "answer": item["answer"],
                                    "generated": answer, "predicted": answer, "correct": answer == item["answer"],
                                    "exact": True, "explanation": words, "method": method, "dataset": "tiny"})
    return pd.DataFrame(predictions), pd.DataFrame(questions)


def texts_for(n_questions, n_methods, text="It is a {answer}, said {method}.", **drawing):
    predictions, questions = world(n_questions, n_methods, text=text)
    return draw_texts(eligible_texts(predictions, questions, "any")[0], n_questions, **drawing)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A written rating study: (folder, plan, texts) of four raters with four texts and one check each."""
    folder = tmp_path_factory.mktemp("study")
    texts = texts_for(4, 2)
    study = Study("tiny-1", consent="I was told.\n\nAll of it.", return_to="us@example.org", ask=("age", "country"))
    return folder, write_study(folder, study, draw_plan(study, texts, 4, 4, 2, seed=3), texts), texts


# Drawing ----------------------------------------------------------------------------------------------------------


def test_questions_are_kept_with_every_method_or_with_none():
    predictions, questions = world()
    pool, left_out = eligible_texts(predictions, questions)
    assert left_out == {"not: every student was right": 1} and len(pool) == 22
    assert eligible_texts(predictions, questions, "any_right")[1] == {}
    assert eligible_texts(predictions, questions, "same")[1] == {"not: every student gave the same answer": 1}
    predictions.loc[2, "explanation"] = " "
    pool, left_out = eligible_texts(predictions.drop(index=4), questions, "any")
    assert left_out == {"a method wrote no explanation": 1, "not answered by every method": 1}
    assert (pool.groupby("question")["method"].nunique() == 2).all()
    predictions.loc[0, "predicted"] = "a tractor"
    left_out = eligible_texts(predictions, questions, "any", task="simulation")[1]
    assert left_out["an answer that is not one of the choices"]


@pytest.mark.parametrize("change, message", [
    (lambda p, q: (p.assign(explanation=p["explanation"].where(p["method"] == METHODS[0], "")), q), "writes no explan"),
    (lambda p, q: (p, q.iloc[1:]), "'q000' is not in the table of questions"),
    (lambda p, q: (p, pd.concat([q, q])), "duplicate id"),
    (lambda p, q: (p.assign(correct=False), q), "no question can be rated")])
def test_what_cannot_be_drawn_from_is_named(change, message):
    with pytest.raises(StudyError, match=message):
        eligible_texts(*change(*world()))


def test_drawing_is_spread_over_strata_and_repeats_with_its_seed():
    predictions, questions = world(60, 3)
    pool = eligible_texts(predictions, questions)[0]
    texts = draw_texts(pool, 20, strata=["position"], seed=5)
    counts = texts.drop_duplicates("question")["gold"].value_counts()
    assert len(texts) == 60 and set(counts) == {4}
    pd.testing.assert_frame_equal(texts, draw_texts(pool, 20, strata=["position"], seed=5))
    assert set(texts["question"]) != set(draw_texts(pool, 20, strata=["position"], seed=6)["question"])
    assert texts["text"].is_monotonic_increasing and texts["text"].is_unique
    assert texts["text"].str.fullmatch("[b-df-hj-np-tv-z]{8}").all()
    for strata, message in ((["colour"], "is not a column of the pool"), (["method"], "differs between the methods")):
        with pytest.raises(StudyError, match=message):
            draw_texts(pool, 20, strata=strata)
    with pytest.raises(StudyError, match="99 questions are needed and the pool has 59"):
        draw_texts(pool, 99)


def test_several_strata_are_even_one_after_the_other():
    """Two data sets, one of them with few questions at some positions: each gives half, and spreads its own half."""
    predictions, questions = world(100, 2)
    pool = eligible_texts(predictions, questions)[0]
    number = pool["question"].str[1:].astype(int)
    pool = pool.assign(dataset=np.where(number < 50, "A", "B"))[(number < 50) | (pool["position"] < 2)]
    for count in (4, 14, 20):
        drawn = draw_texts(pool, count, ["dataset", "position"], seed=count).drop_duplicates("question")
        both = pd.crosstab(drawn["dataset"], drawn["gold"])
        assert both.sum(axis=1).tolist() == [count // 2] * 2
        assert (both.max(axis=1) - both.where(both > 0).min(axis=1) <= 1).all() and (both.loc["B"] > 0).sum() == 2
    drawn = draw_texts(pool, 20, ["position", "dataset"]).drop_duplicates("question")
    assert drawn["gold"].value_counts().tolist() == [4] * 5


def test_students_of_several_seeds():
    predictions, questions = world(40, 2, seeds=(4, 7, 9))
    assert set(eligible_texts(predictions, questions)[0]["student_seed"]) == {4}
    pool = eligible_texts(predictions, questions, student_seeds="drawn", seed=1)[0]
    assert set(pool["student_seed"]) == {4, 7, 9} and not pool.duplicated(["question", "method"]).any()


def test_masks_and_a_baseline_without_explanation():
    texts = texts_for(5, 2, text="A {answer}: Goldfish, goldfishes or a book.", masked="answer")
    explained = texts.set_index(["answer", "method"]).loc[("goldfish", METHODS[1]), "explanation"]
    assert explained == f"A {GAP}: {GAP}, goldfishes or a book."
    texts = texts_for(5, 2, text="A {answer}: Goldfish or a book.", masked="choices")
    assert set(texts["explanation"]) == {f"A {GAP}: {GAP} or a {GAP}."}
    predictions, questions = world(6, 2)
    texts = draw_texts(eligible_texts(predictions, questions)[0], 5, baseline=True)
    assert set(texts.loc[texts["method"] == BASELINE, "explanation"]) == {""} and len(texts) == 15
    with pytest.raises(StudyError, match="students answered differently"):
        draw_texts(eligible_texts(predictions, questions, "any")[0], 6, baseline=True)


def test_labels_and_a_teacher_next_to_students():
    predictions, questions = world(6, 2)
    predictions = predictions.assign(prompting=["few_shot", "revised"] * 6, student="t5", teacher="llama")
    assert set(label_methods(predictions)["method"]) == {"zebra_method · few_shot", "yak_method · revised"}
    explanations = pd.DataFrame({"id": ["q000", "q001", "q002"], "answer": ["goldfish", "oak tree", "book"],
                                 "stage": "rationale", "text": ["Because.", None, "So it is."]})
    teacher = explanations_as_predictions(explanations, questions, "teacher")
    assert list(teacher["correct"]) == [True, False] and list(teacher["explanation"]) == ["Because.", "So it is."]
    assert set(eligible_texts(pd.concat([predictions, teacher]), questions, "any")[0]["question"]) == {"q000", "q002"}


def test_raters_see_the_text_that_students_learn_and_references_are_the_same():
    _, questions = world(4, 2)
    rows = [("q000", "rationale", 0, "A draft."), ("q000", "critique", 1, "Not good."),
            ("q000", "revision", 1, "Better."), ("q000", "critique", 2, "Not yet."), ("q000", "revision", 2, "Best."),
            ("q001", "rationale", 0, "Only a draft."), ("q001", "critique", 1, "Bad."), ("q001", "revision", 1, None),
            ("q002", "counterfactual", 0, "For a wrong answer."), ("q003", "choice", 0, "book")]
    table = pd.DataFrame(rows, columns=["id", "stage", "round", "text"]).assign(answer="goldfish")
    known = {("revision", "rationale", "critique", "counterfactual", "choice"): {"q000": "Best."},
             ("rationale", "counterfactual", "choice"): {"q000": "A draft.", "q001": "Only a draft."}}
    for stages, texts in known.items():
        part = table[table["stage"].isin(stages)]
        shown = explanations_as_predictions(part, questions, "teacher").set_index("id")["explanation"].to_dict()
        assert shown == texts == metric_validity._rationales(part), stages
    for stages in (["counterfactual"], ["choice"], ["critique"]):
        for function in (lambda part: explanations_as_predictions(part, questions, "t"), metric_validity._rationales):
            with pytest.raises(StudyError, match=f"the stages are {stages[0]}; give a table with rationales or revis"):
                function(table[table["stage"].isin(stages)])
    assert metric_validity._rationales(table[:0]) == {}
    with pytest.raises(StudyError, match="no usable text on a question of the split 'test'"):
        explanations_as_predictions(table, questions.assign(split="dev"), "teacher")


# The plan ---------------------------------------------------------------------------------------------------------

SIZES = [(methods, raters, methods * blocks, each) for methods in (1, 2, 3, 4, 5) for raters in (1, 4, 6, 7)
         for blocks in (1, 3) for each in (1, 2, 3)
         if each <= raters and (raters * methods * blocks) % (each * methods) == 0]


@pytest.mark.parametrize("methods, raters, items, each", SIZES)
def test_every_plan_is_balanced(methods, raters, items, each):
    needed = questions_needed(methods, raters, items, each)
    plan = draw_plan(Study("s"), texts_for(needed, methods), raters, items, each, checks=min(1, items - 1), seed=items)
    facts = plan_facts(plan)
    assert facts["ratings_per_text"] == [each, each] and facts["same_text_twice"] == 0
    assert facts["texts_per_method_and_rater"] == [items // methods] * 2
    assert facts["same_question_twice"] == raters * max(0, items - needed)
    assert facts["method_per_position_spread"] <= 1
    assert facts["texts"] == needed * methods and facts["raters"] == raters
    for _, pages in plan[~plan["is_check"]].groupby("rater"):
        order = list(pages.sort_values("position")["method"])
        assert all(len(set(order[at:at + methods])) == methods for at in range(0, items, methods))


def test_methods_follow_each_other_equally_often():
    for methods, raters in ((4, 8), (3, 6), (5, 10), (2, 4)):
        plan = draw_plan(Study("s"), texts_for(raters, methods), raters, methods, 1, checks=0)
        after = pd.Series(list(zip(plan["method"], plan.groupby("rater")["method"].shift(-1), strict=True)))
        counts = after[after.map(lambda pair: isinstance(pair[1], str))].value_counts()
        assert len(counts) == methods * (methods - 1) and counts.nunique() == 1


def test_the_size_of_the_published_study_and_a_repeated_seed():
    texts = texts_for(351, 4)
    plan = draw_plan(Study("s"), texts, 117, 12, 1, checks=2)
    assert plan_facts(plan)["same_question_twice"] == 0 and plan_facts(plan)["checks_per_rater"] == [2, 2]
    pd.testing.assert_frame_equal(plan, draw_plan(Study("s"), texts, 117, 12, 1, checks=2))
    assert list(plan["text"]) != list(draw_plan(Study("s"), texts, 117, 12, 1, checks=2, seed=1)["text"])


def test_checks_stand_between_texts_and_are_worded_clearly(written):
    folder, plan, _ = written
    texts = json.loads(Data(folder / "form.html").data)["texts"]
    for _, page in plan[plan["is_check"]].iterrows():
        assert 1 < page["position"] < 5 and f"“{SCALE[page['expected'] - 1]}”" in texts[page["text"]]["explanation"]
    plan = draw_plan(Study("s"), texts_for(4, 2), 4, 4, 2, checks=3, seed=1)
    assert not plan.duplicated(["rater", "text"]).any() and plan_facts(plan)["checks_per_rater"] == [3, 3]
    with pytest.raises(StudyError, match="checks 4: 0 to 3 would work"):
        draw_plan(Study("s"), texts_for(4, 2), 4, 4, 2, checks=4)


@pytest.mark.parametrize("sizes, works", [
    ((4, 10, 10, 1), [(4, 10, 8, 1), (4, 10, 12, 1)]), ((4, 5, 3, 1), [(4, 5, 4, 1)]),
    ((2, 3, 4, 4), [(2, 4, 4, 4)]), ((2, 5, 4, 4), [(2, 4, 4, 4), (2, 6, 4, 4), (2, 5, 4, 5), (2, 5, 4, 2)]),
    ((3, 7, 3, 2), [(3, 6, 3, 2), (3, 8, 3, 2), (3, 7, 3, 1), (3, 7, 3, 7)]),
    ((2, 8, 8, 1, 20), [(2, 5, 8, 1, 20), (2, 8, 4, 1, 20), (2, 8, 8, 2, 20)])])
def test_what_cannot_be_balanced_says_what_can(sizes, works):
    with pytest.raises(StudyError) as error:
        questions_needed(*sizes)
    for better in works:
        assert questions_needed(*better) > 0
        name, value = next((name, new) for name, new, old in zip(
            ("n_methods", "n_raters", "items_per_rater", "raters_per_text"), better, sizes, strict=False) if new != old)
        assert re.search(rf"{name} ([0-9]+ or )?{value}\b", str(error.value)), (better, str(error.value))
    with pytest.raises(StudyError, match="take a multiple of 3"):
        questions_needed(3, 1, 4, 2)


def test_a_plan_needs_the_texts_of_its_size():
    with pytest.raises(StudyError, match="need 8 questions, and texts of 6 were drawn: draw 8, or plan n_raters 6"):
        draw_plan(Study("s"), texts_for(6, 2), 8, 4, 2)
    with pytest.raises(StudyError, match="exactly one text of each method"):
        draw_plan(Study("s"), texts_for(6, 2).iloc[1:], 6, 4, 2)
    for wrong in ({"name": "a/b"}, {"name": "s", "task": "guess"}, {"name": "s", "ask": ("shoe size",)}):
        with pytest.raises(StudyError):
            Study(**wrong)
    with pytest.raises(StudyError, match="n_raters is 0"):
        questions_needed(2, 0, 4)


def design_with(**change):
    """Call the functions of the design with one argument changed."""
    given = {"answered": "all_right", "task": "rating", "student_seeds": "lowest", "masked": "none", "strata": (),
             "n_raters": 4, "items_per_rater": 4, "raters_per_text": 2, "checks": 1, "name": "s", "ask": (),
             "consent": "", **change}
    predictions, questions = world(6, 2)
    pool, _ = eligible_texts(predictions, questions, *(given[key] for key in ("answered", "student_seeds", "task")))
    texts = draw_texts(pool, 4, given["strata"], given["masked"])
    study = Study(given["name"], consent=given["consent"], ask=given["ask"])
    sizes = [given[key] for key in ("n_raters", "items_per_rater", "raters_per_text", "checks")]
    return draw_plan(study, texts, *sizes)


@pytest.mark.parametrize("change, message", [
    ({"n_raters": 0}, "n_raters is 0: at least 1"), ({"n_raters": -4}, "n_raters is -4: at least 1"),
    ({"n_raters": 2.5}, "n_raters: 2.5 is not a whole number"), ({"n_raters": "8"}, "n_raters: '8' is not a whole"),
    ({"items_per_rater": 0}, "items_per_rater is 0"), ({"raters_per_text": -1}, "raters_per_text is -1"),
    ({"checks": -1}, "checks is -1: at least 0"), ({"checks": True}, "checks: True is not a whole number"),
    ({"answered": "zzz"}, "answered: 'zzz' is not one of all_right"),
    ({"answered": []}, r"answered: \[\] is not one of"),
    ({"task": "zzz"}, "task: 'zzz' is not one of"), ({"masked": "zzz"}, "masked: 'zzz' is not one of"),
    ({"student_seeds": "zzz"}, "student_seeds: 'zzz' is not one of"),
    ({"strata": ["zzz"]}, "strata: 'zzz' is not a column"), ({"name": "../../x"}, "study: '../../x' is not a name of"),
    ({"name": "x" * 300}, "is not a name of at most 64"), ({"name": 2026}, "study: 2026 is not a name"),
    ({"ask": ["shoes"]}, "ask: 'shoes' is not one of"), ({"consent": 7}, "consent: 7 is not a text")])
def test_a_wrong_argument_of_the_design_is_one_clear_line(change, message):
    with pytest.raises(StudyError, match=message) as error:
        design_with(**change)
    assert len(str(error.value)) < 400 and str(error.value).isprintable()
    assert len(design_with()) == 20


# What is written --------------------------------------------------------------------------------------------------


class Data(HTMLParser):
    """The data block of a form, its tags and its visible text."""

    def __init__(self, path):
        super().__init__()
        self.data, self.text, self.tags, self.inside = "", "", [], ""
        self.feed(Path(path).read_text(encoding="utf-8") if isinstance(path, Path) else path)

    def handle_starttag(self, tag, attrs):
        self.inside = dict(attrs).get("id", tag)
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, data):
        if self.inside == "study":
            self.data += data
        elif self.inside not in ("script", "style"):
            self.text += data

    def of(self, name):
        return next(attributes for _, attributes in self.tags if attributes.get("id") == name)


def test_raters_see_no_method_and_nothing_that_tells_a_check(written):
    folder, plan, texts = written
    open_files = [path for path in folder.rglob("*") if path.is_file() and "key" not in path.parts]
    assert {path.name for path in open_files} == {"form.html", "config.yaml", "texts.jsonl", "instructions.html",
                                                  "README.txt", "survey.csv", "columns.txt"}
    for path in open_files:
        words = path.read_text(encoding="utf-8")
        for hidden in (*METHODS, "is_check", "expected", "student_seed", "correct", *texts["question"]):
            assert hidden not in words, (path.name, hidden)
    content = json.loads(Data(folder / "form.html").data)
    assert content["version"] == plan["version"].iloc[0] == checksum(
        {key: value for key, value in content.items() if key != "version"})[:16]
    assert list(content["texts"]) == sorted(content["texts"]) and set(content["texts"]) == set(plan["text"])
    for rater, pages in plan.groupby("rater"):
        assert content["orders"][rater] == list(pages.sort_values("position")["text"])


def test_the_form_may_run_its_own_script_alone_and_asks_what_was_asked_for(written):
    page = Data(written[0] / "form.html")
    policy = next(value["content"] for tag, value in page.tags if tag == "meta" and "http-equiv" in value)
    assert policy.startswith("default-src 'none'; script-src 'sha256-") and "unsafe" not in policy
    words = (written[0] / "form.html").read_text(encoding="utf-8")
    for kind, place in (("script", -1), ("style", 0)):
        source = re.findall(rf"<{kind}>(.*?)</{kind}>", words, re.DOTALL)[place]
        assert base64.b64encode(hashlib.sha256(source.encode()).digest()).decode() in policy
    assert not re.search(r"https?://|src=", words)
    assert {value["data-ask"] for _, value in page.tags if "data-ask" in value} == {"age", "country"}
    assert "I was told." in page.text and "us@example.org" in page.text
    assert "There are 5 pages. They take about 4 minutes." in page.text and "may be none of the choices" in page.text
    assert words.index('id="consent"') < words.index('data-ask="age"'), "consent comes before personal data"
    assert '<option value="">(no answer)</option>' in words and "<option>prefer not to say</option>" in words
    assert "It lacks your consent, your age and your country, the sentence ticked above" in " ".join(page.text.split())
    labelled = {value["for"] for tag, value in page.tags if tag == "label" and "for" in value}
    assert {value["id"] for tag, value in page.tags if tag in ("select", "textarea")} <= labelled
    names = [tag for tag, _ in page.tags]
    assert names.count("fieldset") == names.count("legend") == len(TASKS["rating"])


def test_by_default_nothing_personal_is_asked(tmp_path):
    write_study(tmp_path, Study("s"), draw_plan(Study("s"), texts_for(4, 2), 4, 4, 2), texts_for(4, 2))
    words = (tmp_path / "form.html").read_text(encoding="utf-8")
    assert "data-ask=" not in words and 'id="consent"' not in words and "shows us that pages are read" in words
    write_study(tmp_path, Study("s"), draw_plan(Study("s"), texts_for(4, 2), 4, 4, 2, checks=0), texts_for(4, 2))
    assert "pages are read" not in (tmp_path / "form.html").read_text(encoding="utf-8")


def test_the_plan_reads_back_from_both_files(written, tmp_path):
    folder, plan, _ = written
    for name in ("plan.parquet", "plan.csv"):
        pd.testing.assert_frame_equal(read_plan(folder / "key" / name), plan)
    odd = plan.assign(study="2026", method=plan["method"].replace(METHODS[0], "NA"), rater="1")
    write_plan(tmp_path, odd)
    pd.testing.assert_frame_equal(read_plan(tmp_path / "plan.csv"), odd)
    (tmp_path / "plan.parquet").write_text("no")
    (tmp_path / "plan.csv").write_text("a,b\n1,2\n")
    for path in (tmp_path / "none.csv", tmp_path / "plan.csv", tmp_path / "plan.parquet"):
        with pytest.raises(StudyError, match=path.name):
            read_plan(path)


def test_the_potato_project(written):
    import yaml

    folder, plan, texts = written
    config = yaml.safe_load((folder / "potato" / "config.yaml").read_text(encoding="utf-8"))
    assert [scheme["name"] for scheme in config["annotation_schemes"]] == list(TASKS["rating"])
    assert {(scheme["annotation_type"], scheme["size"]) for scheme in config["annotation_schemes"]} == {("likert", 5)}
    groups = {group["annotators"][0]: group["instances"] for group in config["batch_assignment"]["groups"]}
    assert groups == {rater: list(pages["text"]) for rater, pages in plan.groupby("rater")}
    lines = [json.loads(line) for line in (folder / config["data_files"][0].replace("data/", "potato/data/")).open()]
    assert {line["id"] for line in lines} == set(plan["text"])


def test_hostile_texts_stay_texts_everywhere(tmp_path):
    texts = texts_for(4, 2, text=HOSTILE)
    study = Study("s", title=HOSTILE, consent=HOSTILE, instructions=HOSTILE, return_to=HOSTILE)
    write_study(tmp_path, study, draw_plan(study, texts, 4, 4, 2), texts)
    page = Data(tmp_path / "form.html")
    assert [tag for tag, _ in page.tags].count("script") == 2 and not [tag for tag, _ in page.tags if tag == "img"]
    assert "{{ 7 * 191 }}" in page.text and "1337" not in page.text
    shown = {text["explanation"] for text in json.loads(page.data)["texts"].values()}
    assert texts["explanation"].iloc[0] in shown and "a\ufffdb\ufffdc\ufffd[31m" in texts["explanation"].iloc[0]
    for line in (tmp_path / "potato" / "data" / "texts.jsonl").read_text(encoding="utf-8").splitlines():
        assert set(re.findall(r"<[^>]*>", json.loads(line)["text"])) <= {"<b>", "</b>", "<br>"}
    assert "<script" not in (tmp_path / "potato" / "instructions.html").read_text(encoding="utf-8")
    texts = texts_for(4, 2, text="=1+1")
    write_study(tmp_path, study, draw_plan(study, texts, 4, 4, 2), texts)
    table = pd.read_csv(tmp_path / "survey" / "survey.csv")
    assert set(table["explanation"][~table["explanation"].str.startswith("Please")]) == {"'=1+1"}


WORDS = {"an emoji": "Take part? 😀 👩‍🔬", "right to left": "האם תרצו להשתתף? نعم (1)",
         "quotes": "\"He said\" 'no' « oui »", "a script": f"</script><script>{RUN}</script><!-- </textarea></style>",
         "braces": "{{ 7 * 191 }} {% if %} ${7*191}",
         "two halves of an emoji": "Take part? \ud83d\ude00", "a broken character": "a\ud800b", "a zero": "a\x00b",
         "very long": "word " * 20_000 + "w" * 20_000, "a formula": "=HYPERLINK(1)", "line ends": "a\u2028b\x85c"}


@pytest.mark.parametrize("kind", WORDS)
def test_what_raters_are_told_is_shown_as_it_is(tmp_path, kind):
    words, texts = WORDS[kind], texts_for(4, 2)
    study = Study("s", title=words, consent=f"{words}\n\nSecond.", instructions=words, return_to=words)
    plan = write_study(tmp_path, study, draw_plan(study, texts, 4, 4, 2), texts)
    shown = {"two halves of an emoji": "Take part? 😀", "a broken character": "a\ufffdb", "a zero": "a\ufffdb",
             "line ends": "a\u2028b\ufffdc"}.get(kind, words.strip())
    page = Data(tmp_path / "form.html")
    assert page.text.count(shown) == 6, "heading, title, instructions, consent, where to send the file (twice)"
    assert sum(tag == "script" for tag, _ in page.tags) == 2 and "1337" not in page.text
    content = json.loads(page.data)
    assert content["consent"] == [shown, "Second."] and content["title"] == shown == content["return_to"]
    assert content["version"] == plan["version"].iloc[0]
    for tag, attributes in page.tags:
        assert tag not in ("h1",) or attributes.get("dir") == "auto" or attributes.get("id")
    assert html.escape(shown) in (tmp_path / "potato" / "instructions.html").read_text(encoding="utf-8")


def test_consent_runs_nothing_in_a_browser_and_reads_in_its_own_direction(tmp_path):
    texts = texts_for(4, 2)
    study = Study("s", consent="\n\n".join(words for kind, words in WORDS.items() if kind != "very long"))
    write_study(tmp_path, study, draw_plan(study, texts, 4, 4, 2), texts)
    steps = """
    async function steps() {
      const lines = [...document.querySelectorAll(".consent p")];
      say("consent", lines.map((line) => line.textContent));
      say("direction", lines.map((line) => getComputedStyle(line).direction));
      say("title", document.title);
    }"""
    page = with_script(tmp_path / "form.html", tmp_path / "copy.html", DRIVER + steps)
    said, _ = browse(page.as_uri(), tmp_path / "profile")
    assert json.loads(said["consent"]) == json.loads(Data(tmp_path / "form.html").data)["consent"]
    assert json.loads(said["direction"])[1] == "rtl" and json.loads(said["direction"]).count("rtl") == 1
    assert said["title"] == "How good are these explanations?"


# Read back --------------------------------------------------------------------------------------------------------


def test_simulated_raters_come_back_without_loss(written, tmp_path):
    _, plan, _ = written
    scores = simulate_scores(plan, {METHODS[0]: 0.5}, seed=9)
    simulate_raters(plan, tmp_path, effects={METHODS[0]: 0.5}, seed=9)
    ratings, problems, raters = read_ratings(tmp_path, plan)
    assert not len(problems) and set(raters["status"]) == {"kept"} and ratings["simulated"].all()
    assert len(ratings) == 4 * 4 * 6 and list(ratings.columns) == RATING_COLUMNS
    wide = one_row_per_rating(ratings)
    both = wide.merge(scores, on=["rater", "text"], suffixes=("", "_drawn")).merge(plan, on=["rater", "text"])
    for name in TASKS["rating"]:
        assert (both[name] == both[f"{name}_drawn"]).all()
    assert (both["method_x"] == both["method_y"]).all() and (both["question_x"] == both["question_y"]).all()
    assert wide["quality"].to_list() == pytest.approx(wide[list(CONSTRUCTS)].mean(axis=1).to_list())
    assert ratings["seconds"].between(5, 500).all()


def test_known_effects_are_found_again():
    plan = draw_plan(Study("s"), texts_for(48, 2), 48, 8, 4, checks=0)
    for thresholds in ((1.5, 2.5, 3.5, 4.5), (1.0, 2.0, 3.2, 4.1)):
        scores = simulate_scores(plan, {METHODS[0]: {"plausibility": 0.8}}, mean=3.0, thresholds=thresholds)
        means = scores.merge(plan, on=["rater", "text"]).groupby("method")[["plausibility", "satisfaction"]].mean()
        difference = means.loc[METHODS[0]] - means.loc[METHODS[1]]
        assert difference["plausibility"] == pytest.approx(0.8, abs=0.25) and abs(difference["satisfaction"]) < 0.25
    spread = [simulate_scores(plan, rater_sd=sd, seed=2).groupby("rater")["plausibility"].mean().std()
              for sd in (0.0, 1.0)]
    assert spread[0] < 0.35 < spread[1]
    with pytest.raises(StudyError, match="'nobody' is not a method"):
        simulate_scores(plan, {"nobody": 1})


def test_careless_and_unfinished_raters_are_left_out_with_their_counts(tmp_path):
    study, texts = Study("s"), texts_for(16, 2)
    plan = draw_plan(study, texts, 8, 8, 2, checks=2)
    simulate_raters(plan, tmp_path, inattentive=0.25, unfinished=0.25)
    ratings, problems, raters = read_ratings([tmp_path], plan)
    assert raters["status"].value_counts().to_dict() == {"kept": 4, "failed attention check": 2, "unfinished": 2}
    assert ratings["rater"].nunique() == 4 and set(raters.loc[raters["status"] == "unfinished", "pages"]) == {5}
    counts = count_problems(problems).set_index("what")["left_out"].to_dict()
    assert counts == {"failed attention check": 16, "unfinished": 10}
    kept = read_ratings([tmp_path], plan, keep_unfinished=True)
    assert kept.ratings["rater"].nunique() == 6
    assert read_ratings([tmp_path], plan, failed_checks_allowed=2).ratings["rater"].nunique() == 6
    (tmp_path / f"s_{sorted(plan['rater'].unique())[0]}_simulated.json").unlink()
    assert "nothing came" in set(read_ratings(tmp_path, plan).raters["status"])


def test_forward_simulation_scores_the_models_answer(tmp_path):
    study = Study("sim", task="simulation")
    predictions, questions = world(13, 2)
    texts = draw_texts(eligible_texts(predictions, questions, "any", task="simulation")[0], 12, masked="answer")
    plan = write_study(tmp_path, study, draw_plan(study, texts, 6, 8, 2), texts)
    answers = texts.set_index("text")
    for page in plan[~plan["is_check"]].to_dict("records"):
        assert page["choices"][page["expected"] - 1] == answers.loc[page["text"], "answer"]
    content = json.loads(Data(tmp_path / "form.html").data)
    assert {text["answer"] for text in content["texts"].values()} == {""}
    assert "Which answer did the model give?" in Data(tmp_path / "form.html").text
    simulate_raters(plan, tmp_path / "back", mean=9.0)
    ratings, problems, _ = read_ratings(tmp_path / "back", plan)
    assert not len(problems) and set(ratings["score"]) == {1.0} and set(ratings["construct"]) == {"simulation"}
    assert (ratings["choice"] == ratings["text"].map(answers["answer"])).all()
    simulate_raters(plan, tmp_path / "back", mean=-9.0)
    assert set(read_ratings(tmp_path / "back", plan).ratings["score"]) == {0.0}
    table = pd.read_csv(tmp_path / "survey" / "survey.csv", dtype=str)
    table["simulation"] = [page["choices"][page["expected"] - 1] if number % 2 else chr(64 + page["expected"])
                           for number, page in enumerate(plan.to_dict("records"))]
    table.to_csv(tmp_path / "survey.csv", index=False)
    assert set(read_ratings(tmp_path / "survey.csv", plan).ratings["score"]) == {1.0}


@pytest.fixture
def returned(written, tmp_path):
    """The answer file of the first rater: (plan, path, what is in it)."""
    _, plan, _ = written
    path = simulate_raters(plan, tmp_path / "in")[0]
    for other in set(path.parent.iterdir()) - {path}:
        other.unlink()
    return plan, path, json.loads(path.read_text())


def sign(document):
    document.pop("checksum", None)
    return {**document, "checksum": checksum(canonical(document))}


def changed(document, number, **changes):
    document["answers"][number].update(changes)
    return sign(document)


def rescored(document, number, **scores):
    document["answers"][number]["scores"].update(scores)
    return sign(document)


@pytest.mark.parametrize("change, what, row, left", [
    (lambda d: rescored(d, 0, plausibility=6), "score out of range", 1, 3),
    (lambda d: rescored(d, 0, plausibility=0), "score out of range", 1, 3),
    (lambda d: rescored(d, 0, plausibility=2.5), "score out of range", 1, 3),
    (lambda d: rescored(d, 0, plausibility=True), "score out of range", 1, 3),
    (lambda d: rescored(d, 0, plausibility=10**400), "score out of range", 1, 3),
    (lambda d: rescored(d, 0, plausibility="<script>"), "score out of range", 1, 3),
    (lambda d: rescored(d, 0, plausibility=[4]), "score out of range", 1, 3),
    (lambda d: rescored(d, 0, plausibility=None), "missing score", 1, 3),
    (lambda d: changed(d, 0, text="nowhere"), "unknown text", 1, 0),
    (lambda d: changed(d, 0, text=["a"]), "unknown text", 1, 0),
    (lambda d: sign({**d, "answers": d["answers"] + d["answers"][:1]}), "the same rating twice", 6, 4),
    (lambda d: sign({**d, "answers": d["answers"] + [{**d["answers"][0], "scores": dict.fromkeys(CONSTRUCTS, 1)}]}),
     "two different ratings of one text", 1, 3),
    (lambda d: {**d, "answers": d["answers"][:-1]}, "checksum does not match", 0, 0),
    (lambda d: {**d, "rater": "R999X"}, "checksum does not match", 0, 0),
    (lambda d: sign({**d, "rater": "R999X"}), "unknown rater", 1, 0),
    (lambda d: sign({**d, "rater": {"a": []}}), "unknown rater", 1, 0),
    (lambda d: sign({**d, "study": HOSTILE}), "another study", 0, 0),
    (lambda d: sign({**d, "version": "0"}), "another version of the form", 0, 0),
    (lambda d: sign({**d, "complete": False}), "unfinished", 0, 0),
    (lambda d: sign({**d, "signed": False}), "not signed off", 0, 0),
    (lambda d: changed(d, 4, scores={}), "unfinished", 0, 0),
    (lambda d: sign({**d, "answers": d["answers"][1:]}), "unfinished", 0, 0),
    (lambda d: sign({**d, "answers": "none"}), "unknown layout", 0, 0),
    (lambda d: sign({**d, "answers": [1, None]}), "unknown layout", 0, 0),
    (lambda d: {**d, "format": "other"}, "unknown layout", 0, 0),
    (lambda d: [d], "unknown layout", 0, 0), (lambda d: 3, "unknown layout", 0, 0)])
def test_each_kind_of_bad_answer_is_named_and_left_out(returned, change, what, row, left):
    plan, path, document = returned
    path.write_text(json.dumps(change(document)))
    ratings, problems, raters = read_ratings(path, plan)
    assert what in set(problems["what"]) and row == problems.loc[problems["what"] == what, "row"].iloc[0]
    assert ratings["text"].nunique() == left and problems["file"].iloc[0] == path.name
    assert problems["detail"].map(lambda text: text.isprintable() and len(text) < 100).all()
    assert raters.loc[raters["ratings"] > 0, "ratings"].sum() == left


def test_a_failed_check_costs_all_ratings_of_the_rater(returned):
    plan, path, document = returned
    place = int(plan.loc[(plan["rater"] == document["rater"]) & plan["is_check"], "position"].iloc[0]) - 1
    asked = document["answers"][place]["scores"]["plausibility"]
    path.write_text(json.dumps(rescored(document, place, satisfaction=1 + asked % 5)))
    ratings, problems, _ = read_ratings(path, plan)
    assert not len(ratings) and problems[["what", "left_out"]].to_numpy().tolist() == [["failed attention check", 4]]
    assert read_ratings(path, plan, failed_checks_allowed=1).ratings["text"].nunique() == 4


@pytest.mark.parametrize("name, content, what", [
    ("a.json", "", "empty file"), ("a.json", " \n", "empty file"), ("a.json", '{"format": "kdutils', "broken JSON"),
    ("a.json", "[" * 100_000, "broken JSON"), ("a.json", "9" * 5000, "broken JSON"),
    ("a.json", '{"format": "kdutils-ratings-1", "answers": [{}]}', "checksum does not match"),
    ("a.json", "NaN", "unknown layout"),
    ("a.json", "<!doctype html><p>", "not ratings"), ("a.csv", "<html>", "not ratings"),
    ("a.json", b"\xff\xfe\x00", "wrong encoding"), ("a.csv", "rater;text\nMüller;x".encode("cp1252"), "wrong encoding"),
    ("a.csv", "a,b\n1,2\n", "unknown layout"), ("a.csv", "rater,text\nR,x\n", "unknown layout"),
    ("a.csv", 'rater,text,plausibility\n"R,x', "broken table"), ("a.csv", "\x00\x00", "unknown layout"),
    ("a.csv", "rater,text,plausibility\nR001A\n", "broken row"),
    ("a.csv", "rater,text,plausibility\nR,x,1\n", "unknown rater"),
    ("a.csv", "CASE,rationale_id,model,rationale_length\n1,2,3,4\n", "another study"),
    ("a.jsonl", '{"label_annotations": 3}\n{"label_annotations": {"a": 1}}\n', "unknown rater"),
    ("a.json", '{"instance_id_to_label_to_value": []}', "unknown layout"),
    ("a.json", '{"instance_id_to_label_to_value": {"x": [[3]], "y": 4}, "user_id": []}', "unknown rater"),
    ("a.csv", "rater,text,plausibility\n" + "x" * 200_000 + ",b,c\n", "broken table")])
def test_nonsense_is_a_named_problem(written, tmp_path, name, content, what):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    ratings, problems, _ = read_ratings([tmp_path / name, tmp_path / "not there.csv"], written[1])
    assert not len(ratings) and {what, "no such file"} <= set(problems["what"])


def test_an_empty_folder_of_ratings_is_a_named_problem(written, tmp_path):
    (tmp_path / "ratings").mkdir()
    (tmp_path / "ratings" / ".hidden").write_text("")
    ratings, problems, _ = read_ratings([tmp_path / "ratings"], written[1])
    assert not len(ratings) and problems[["file", "what"]].values.tolist() == [["ratings", "no file in this folder"]]


def test_hostile_words_about_a_rater_and_in_a_file_name(returned):
    plan, path, document = returned
    odd = path.with_name("<img src=x>\n.json")
    path.unlink()
    about = {"age": "\ud800" + "x" * 500, "country": ["<b>"], "\ud800": 1}
    odd.write_text(json.dumps(sign({**document, "about": about})))
    ratings, problems, raters = read_ratings(odd.parent, plan)
    assert not len(problems) and set(ratings["file"]) == {"'<img src=x>\\n.json'"}
    assert raters["about_country"].dropna().to_list() == ["['<b>']"]
    assert raters["about_age"].dropna().to_list() == ["\ufffd" + "x" * 59] and len(raters.columns) == 13


def test_without_a_plan_only_the_published_layout_can_be_read(returned):
    plan, path, _ = returned
    ratings, problems, raters = read_ratings(path)
    assert not len(ratings) and not len(raters) and list(problems["what"]) == ["no plan was given"]
    assert count_problems(problems)["times"].to_list() == [1]


def form_table(document, plan):
    """Return the CSV of the form for an answer file."""
    head = ["study", "version", "rater", "position", "text", *TASKS["rating"], "milliseconds"]
    lines = [",".join([*head, "checksum"])]
    for answer in document["answers"]:
        cells = [document["study"], document["version"], document["rater"], answer["position"], answer["text"],
                 *answer["scores"].values(), answer["milliseconds"]]
        cells = list(map(str, cells))
        lines.append(",".join([*cells, checksum("|".join(cells))[:16]]))
    return "\r\n".join(lines) + "\r\n"


def test_the_csv_of_the_form_and_a_row_that_a_spreadsheet_changed(returned):
    plan, path, document = returned
    right = read_ratings(path, plan).ratings
    table = form_table(document, plan)
    path.with_suffix(".csv").write_text(table)
    again = read_ratings(path.with_suffix(".csv"), plan)
    assert not len(again.problems)
    pd.testing.assert_frame_equal(*(frame.drop(columns=["file", "simulated"]) for frame in (again.ratings, right)))
    both = read_ratings(path.parent, plan)
    assert len(both.ratings) == len(right) and both.problems.to_numpy().tolist() == [
        [path.with_suffix(".csv").name, 0, document["rater"], "copy of another file",
         f"the same answers as in {path.name}", 5]]
    lines = table.split("\r\n")
    lines[2] = re.sub(r",\d,", ",5,", lines[2].replace(",5,", ",1,"), count=1)
    path.with_suffix(".csv").write_text("\r\n".join(lines))
    _, problems, _ = read_ratings(path.with_suffix(".csv"), plan)
    assert problems.iloc[0][["row", "what"]].to_list() == [3, "checksum does not match"]


@pytest.mark.parametrize("delimiter, coding", [(",", "utf-8"), (";", "utf-8-sig"), ("\t", "utf-16")])
def test_the_survey_table_as_spreadsheets_save_it(written, tmp_path, delimiter, coding):
    folder, plan, _ = written
    table = pd.read_csv(folder / "survey" / "survey.csv", dtype=str)
    for name in CONSTRUCTS:
        table[name] = ["4", "4.0", "agree", " Agree "] * 5
    for place, page in plan[plan["is_check"]].iterrows():
        table.loc[place, list(CONSTRUCTS)] = str(page["expected"])
    table.to_csv(tmp_path / "filled.csv", sep=delimiter, encoding=coding, index=False)
    ratings, problems, _ = read_ratings(tmp_path / "filled.csv", plan)
    assert not len(problems) and set(ratings["score"]) == {4.0} and len(ratings) == 80


def test_potato_output_of_both_versions(written, tmp_path):
    _, plan, _ = written
    for number, (rater, pages) in enumerate(plan.groupby("rater")):
        chosen = {page["text"]: page["expected"] if page["is_check"] else 4 for page in pages.to_dict("records")}
        home = tmp_path / "annotation_output" / rater
        home.mkdir(parents=True)
        (tmp_path / "annotation_output" / "pocket").mkdir(exist_ok=True)
        (tmp_path / "annotation_output" / "pocket" / "device_visits.json").write_text("{}")
        if number % 2:
            lines = [{"id": text, "displayed_text": "x", "label_annotations": {
                name: {f"scale_{score}": str(score)} for name in CONSTRUCTS}} for text, score in chosen.items()]
            (home / "annotated_instances.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
            (home / "annotation_order.txt").write_text("x")
        else:
            state = {"user_id": rater, "instance_id_to_label_to_value": {
                text: [[{"schema": name, "name": str(score)}, str(score)] for name in CONSTRUCTS]
                for text, score in chosen.items()}, "instance_id_to_behavioral_data": {
                text: {"total_time_ms": 5200} for text in chosen}}
            (home / "user_state.json").write_text(json.dumps(state))
            (home / "annotation_history.jsonl").write_text('{"action": 1}\n')
    ratings, problems, raters = read_ratings(tmp_path, plan)
    assert not len(problems) and set(ratings["score"]) == {4.0} and set(raters["status"]) == {"kept"}
    assert set(ratings["seconds"].dropna()) == {5.2}


# The published ratings --------------------------------------------------------------------------------------------


def test_the_published_ratings_have_the_published_means():
    folder = Path(os.environ.get("KDUTILS_DATA") or Path(__file__).parents[2] / "shared" / "data")
    path = folder / "human_study" / "study_ratings_no_demographics.csv"
    if not path.is_file():
        pytest.skip("no published ratings: set KDUTILS_DATA to the folder that holds human_study")
    ratings, problems, raters = read_ratings(path)
    wide = one_row_per_rating(ratings)
    assert not len(problems) and len(raters) == 117 and len(wide) == 1114 and wide["text"].is_unique
    assert wide["question"].nunique() == 375 and wide["position"].between(1, 12).all()
    assert raters["ratings"].agg(["min", "max"]).to_list() == [2, 12]
    counts = {"CF:Unrev": 277, "MT:Unrev": 276, "MT+CF:Unrev": 288, "MT+CF:Rev": 273}
    assert wide["method"].value_counts().to_dict() == counts
    printed = {"CF:Unrev": (4.029, 4.350, 3.830, 3.838, 3.538, 3.917, 246),
               "MT:Unrev": (4.239, 4.449, 4.018, 4.000, 3.652, 4.072, 215),
               "MT+CF:Unrev": (4.188, 4.365, 3.962, 3.962, 3.639, 4.023, 227),
               "MT+CF:Rev": (4.209, 4.458, 4.110, 4.000, 3.956, 4.147, 409)}
    means = wide.astype({"characters": float}).groupby("method")[[*CONSTRUCTS, "quality", "characters"]].mean()
    for method, values in printed.items():
        assert [round(value, 3) for value in means.loc[method][:-1]] == list(values[:-1]), method
        assert round(means.loc[method, "characters"]) == values[-1]


def test_bad_rows_of_the_published_layout(tmp_path):
    head = ("CASE,rationale,Completeness,Contrastiveness,Plausibility,Satisfaction,Understandability,rationale_id,"
            "model,rationale_length")
    rows = ["1,RE08,3,2,4,5,5,322,MT:PosRationales,155", "1,RE09,9,2,4,5,5,323,MT:PosRationales,155",
            "1,RE10,,2,4,5,5,324,MT:PosRationales,155", "1,RE11,3,2,4,5,5,322,MT:PosRationales,155",
            "2,RE08,3,2,4,5,5,1,new,x", "2,oops,3,2,4,5,5,1,new,7"]
    (tmp_path / "study.csv").write_text("\n".join([head, *rows]) + "\n")
    ratings, problems, _ = read_ratings(tmp_path / "study.csv")
    assert problems[["row", "what"]].to_numpy().tolist() == [
        [3, "score out of range"], [4, "missing score"], [6, "broken row"], [5, "the same rating twice"]]
    assert set(ratings["method"]) == {"MT:Unrev", "new"} and ratings["text"].nunique() == 2


# In a browser -----------------------------------------------------------------------------------------------------

DRIVER = r"""
const say = (name, value) => { const box = document.createElement("pre"); box.id = "said-" + name;
  box.textContent = typeof value === "string" ? value : JSON.stringify(value); document.body.append(box); };
const press = (key) => document.activeElement.dispatchEvent(
  new KeyboardEvent("keydown", {key, bubbles: true, cancelable: true}));
const el = (id) => document.getElementById(id);
const turn = () => new Promise((done) => {
  const pair = new MessageChannel(); pair.port1.onmessage = done; pair.port2.postMessage(0); });
const until = async (test) => { for (let n = 0; n < 300000 && !test(); n++) await turn(); };  // takes no virtual time
const come = async (promise) => {
  let value; promise.then((found) => { value = found; }); await until(() => value); return value; };
const saved = [];
URL.createObjectURL = (blob) => { saved.push(blob.text()); return "blob:x"; };
HTMLAnchorElement.prototype.click = () => {};
window.addEventListener("error", (event) => say("error", event.message));
window.addEventListener("load", () => setTimeout(() => steps().catch((error) => say("error", String(error))), 50));
"""


def with_script(form, path, script, before=False):
    """Copy a form with a script of the test, allowed by its hash, before or after the form's own."""
    words = form.read_text(encoding="utf-8")
    allowed = "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    words = words.replace("script-src '", f"script-src '{allowed}' '", 1)
    place = words.index("<script") if before else words.index("</body>")
    path.write_text(f"{words[:place]}<script>{script}</script>{words[place:]}", encoding="utf-8")
    return path


def browse(address, profile, *options):
    """Return what a page of Chromium holds after its scripts have run: what the driver said, and the document."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if not browser:
        pytest.skip("no Chromium found: put chromium, chromium-browser or google-chrome on the PATH")
    done = subprocess.run(
        [browser, f"--user-data-dir={profile}", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync",
         "--virtual-time-budget=6000", *options, "--dump-dom", address], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "<body" in done.stdout, done.stderr[-2000:]
    said = {name: html.unescape(value) for name, value in
            re.findall(r'<pre id="said-([\w-]+)">(.*?)</pre>', done.stdout, re.DOTALL)}
    assert "error" not in said, said
    return said, Data(done.stdout)


def test_a_rater_fills_the_form_with_the_keyboard_stops_and_goes_on(written, tmp_path):
    folder, plan, _ = written
    rater = plan["rater"].iloc[0]
    steps = """
    async function steps() {
      const again = Object.keys(localStorage).some((name) => name.startsWith("kdutils:"));
      el("start-form").requestSubmit();
      if (!again) say("refused", el("start-error").textContent);
      el("consent").click();
      el("start-form").requestSubmit();
      if (!again) {
        press("Enter");
        if (!el("page-error").textContent.includes("6 answers")) throw "went on with all missing";
        for (const digit of "12345") press(digit);
        press("ArrowRight");
        if (!el("page-error").textContent.includes("One answer")) throw "went on with one missing";
        press("9");
        press("2");
        press("ArrowRight");
        press("ArrowLeft");
        if (document.querySelector("[name=completeness]:checked").value !== "3") throw "answers lost on the way back";
        press("ArrowRight");
        location.reload();
        return;
      }
      say("again", el("notice").textContent + "|" + el("heading").textContent);
      say("progress", el("progress").value);
      document.querySelectorAll("[name=plausibility]")[1].click();
      el("save-unfinished").click();
      say("unfinished", await come(saved.pop()));
      while (!el("page").hidden) { for (const digit of "244444") press(digit); press("ArrowRight"); }
      press("ArrowLeft");
      el("save").click();
      say("unsigned", el("finish-error").textContent + saved.length);
      el("sign").click();
      el("save").click();
      el("save-csv").click();
      say("json", await come(saved[0]));
      say("csv", await come(saved[1]));
      say("told", el("saved").textContent);
    }"""
    page = with_script(folder / "form.html", tmp_path / "form.html", DRIVER + steps)
    said, _ = browse(f"{page.as_uri()}?rater={rater.lower()}", tmp_path / "profile")
    assert said["again"] == "Welcome back: 1 of 5 pages were already answered in this browser.|Page 2 of 5"
    assert said["progress"] == "0.2" and said["unsigned"].startswith("Please tick") and said["unsigned"].endswith("0")
    assert "us@example.org" in said["told"]
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "unfinished.json").write_text(said["unfinished"])
    (tmp_path / "in" / "ratings.json").write_text(said["json"])
    (tmp_path / "in" / "ratings.csv").write_text(said["csv"], newline="")
    document = json.loads(said["json"])
    assert document["signed"] is document["complete"] is document["consent"] is True
    assert document["about"] == {"age": "", "country": ""}
    first = dict(zip(TASKS["rating"], (1, 2, 3, 4, 5, 2), strict=True))
    assert document["answers"][0]["scores"] == first and document["answers"][1]["milliseconds"] > 0
    for name in ("ratings.json", "ratings.csv"):
        ratings, problems, _ = read_ratings(tmp_path / "in" / name, plan, failed_checks_allowed=1)
        assert not len(problems) and ratings["text"].nunique() == 4, name
        assert ratings["score"].head(6).to_list() == [1, 2, 3, 4, 5, 2]
    _, problems, _ = read_ratings(tmp_path / "in" / "unfinished.json", plan)
    assert problems.iloc[0][["what", "left_out"]].to_list() == ["unfinished", 2]


def test_an_unfinished_file_goes_on_in_another_browser_and_missing_storage_is_said(written, tmp_path):
    folder, plan, _ = written
    rater, content = plan["rater"].iloc[0], json.loads(Data(folder / "form.html").data)
    order = content["orders"][rater]
    half = {"study": content["study"], "version": content["version"], "rater": rater, "consent": True, "answers": [
        {"text": order[0], "scores": dict.fromkeys(TASKS["rating"], 2), "milliseconds": 7},
        {"text": order[1], "scores": {"plausibility": 77, "satisfaction": "<b>"}}, {"text": "unknown", "scores": {}}]}
    steps = """
    async function steps() {
      const give = (text) => { const transfer = new DataTransfer(); transfer.items.add(new File([text], "a.json"));
        const before = el("start-error").textContent;
        el("import").files = transfer.files; el("import").dispatchEvent(new Event("change"));
        return until(() => el("start-error").textContent !== before); };
      say("storage", el("notice").textContent);
      el("rater").value = "R999X";
      el("start-form").requestSubmit();
      say("unknown", el("start-error").textContent);
      await give("{broken");
      say("broken", el("start-error").textContent);
      await give(HALF);
      say("read", el("notice").textContent + "|" + el("heading").textContent + "|" + !el("start").hidden);
      say("checked", document.querySelectorAll(":checked[type=radio]").length);
    }""".replace("HALF", json.dumps(json.dumps(half)).replace("<", "\\u003c"))
    page = with_script(folder / "form.html", tmp_path / "form.html", DRIVER + steps)
    denied = "Object.defineProperty(window, 'localStorage', {get() { throw new Error('denied'); }});"
    page = with_script(page, page, denied, before=True)
    said, _ = browse(page.as_uri(), tmp_path / "profile")
    assert "does not keep your answers" in said["storage"] and "not known" in said["unknown"]
    assert said["broken"] == "This is not an unfinished file of this form."
    assert said["read"].endswith("|Page 2 of 5|false") and said["checked"] == "0"


def test_hostile_texts_run_nothing_and_the_form_fits_a_phone(tmp_path):
    texts = texts_for(4, 2, text=HOSTILE + " " + "w" * 300)
    study = Study("s", title="Plain title", consent=HOSTILE)
    plan = write_study(tmp_path, study, draw_plan(study, texts, 4, 4, 2, checks=0), texts)
    steps = """
    async function steps() {
      el("consent").click();
      el("start-form").requestSubmit();
      const short = [...document.querySelectorAll("#items label, button:not([hidden])")]
        .filter((item) => item.offsetParent && item.getBoundingClientRect().height < 24).length;
      parent.postMessage({text: el("explanation").textContent, title: document.title, images: document.images.length,
        width: innerWidth, needed: document.documentElement.scrollWidth, short}, "*");
    }"""
    with_script(tmp_path / "form.html", tmp_path / "copy.html", DRIVER + steps)
    address = f"copy.html?rater={plan['rater'].iloc[0]}"
    (tmp_path / "phone.html").write_text(
        f"<!doctype html><body><iframe width=390 height=844 src='{address}'></iframe><script>"
        "onmessage = (event) => { const box = document.createElement('pre'); box.id = 'said-phone';"
        "box.textContent = JSON.stringify(event.data); document.body.append(box); };</script>", encoding="utf-8")
    said, _ = browse((tmp_path / "phone.html").as_uri(), tmp_path / "profile", "--allow-file-access-from-files")
    phone = json.loads(said["phone"])
    assert phone["text"] == texts["explanation"].iloc[0] and phone["title"] == "Plain title" and not phone["images"]
    assert phone["needed"] <= phone["width"] <= 390 and phone["short"] == 0
