"""Fake texts: what they are, and that a measure which they fool is marked."""

import pandas as pd
import pytest

from kdutils.comparison import runs_table, tables
from kdutils.evaluation.fake_measures import fake_measures
from kdutils.evaluation.text_metrics import rouge_l
from kdutils.fake_texts import FAKES, fake_texts, fooled_by, fooled_stages
from kdutils.human_study.metric_validity import fooled_measures
from kdutils.teacher.quality import fake_explanations, text_table
from tests.test_degenerate_ratings import run_notebook

QUESTIONS = pd.DataFrame([{"id": f"q{i}", "question": f"What is number {i} called?", "choices": [f"one{i}", f"two{i}"],
                           "answer": f"one{i}"} for i in range(12)])
RATIONALES = {f"q{i}": f"It is called one{i} by everybody in town." for i in range(12)}
PREDICTIONS = pd.DataFrame([
    {"id": f"q{i}", "seed": 0, "answer": f"one{i}", "predicted": f"{'one' if i % 3 else 'two'}{i}",
     "correct": bool(i % 3), "explanation": f"Number {i} has a name."} for i in range(12)])


NO_CONTROLS = pd.DataFrame(columns=[*runs_table.CELL, "control_of"])


def test_every_fake_is_what_its_name_says():
    texts = fake_texts(PREDICTIONS, QUESTIONS, RATIONALES)
    assert tuple(texts) == FAKES and all(len(one) == 12 for one in texts.values())
    assert set(texts["empty"]) == {""} and texts["question"][3] == "What is number 3 called?"
    assert texts["answer"][0] == "The answer is two0 because it is the best answer."
    assert texts["teacher"] == list(RATIONALES.values())
    assert all(text != own and text in RATIONALES.values() for text, own in zip(texts["other"], texts["teacher"],
                                                                              strict=True))
    assert texts == fake_texts(PREDICTIONS, QUESTIONS, RATIONALES)
    one = fake_texts(PREDICTIONS, QUESTIONS, {"q1": "Only one."})
    assert tuple(one) == ("empty", "question", "answer", "teacher")
    assert one["teacher"] == [None, "Only one.", *[None] * 10]
    assert tuple(fake_texts(PREDICTIONS, QUESTIONS, {})) == ("empty", "question", "answer")


def test_a_question_without_a_text_of_the_teacher_is_left_out_of_that_fake_alone():
    some = {"teacher": {key: [text] for key, text in RATIONALES.items() if key != "q0"}}
    values = pd.DataFrame(fake_measures(PREDICTIONS, QUESTIONS, some)).set_index(["fake", "measure"])["value"]
    assert values["teacher", "names_gold"] == 1 and values["teacher", "names_answer"] == pytest.approx(8 / 11)
    assert values["answer", "names_answer"] == 1


def test_fakes_have_the_overlap_with_the_words_that_drive_the_answer_by_hand():
    ranked = {0: {f"q{i}": [f"{'one' if i % 3 else 'two'}{i}", "called", "number", "what"] for i in range(12)}}
    found = pd.DataFrame(fake_measures(PREDICTIONS, QUESTIONS, {}, ranked=ranked, k=2))
    values = found.set_index(["fake", "measure"])["value"]
    # "answer" names the first of the two words, one of four at random; "question" all but the answer
    assert values["answer", "overlap"] == 0.5 and values["answer", "overlap_gain"] == 0.25
    assert values["question", "overlap_gain"] == 0.5 - 0.75 and values["empty", "overlap_gain"] == 0
    assert values["question", "overlap_gain_other"] == 0


def test_fakes_have_the_measures_of_a_text():
    found = pd.DataFrame(fake_measures(PREDICTIONS, QUESTIONS, {"teacher": {k: [v] for k, v in RATIONALES.items()}}))
    values = found.set_index(["fake", "measure"])["value"]
    assert values["empty", "words"] == 0 and values["answer", "names_answer"] == 1
    assert values["question", "copied"] == 1
    other = fake_texts(PREDICTIONS, QUESTIONS, RATIONALES)["other"]
    assert values["other", "rouge_l_teacher"] == pytest.approx(
        sum(rouge_l(text, [RATIONALES[key]]) for text, key in zip(other, PREDICTIONS["id"], strict=True)) / 12)
    assert ("teacher", "rouge_l_teacher") not in values and ("teacher", "words") in values
    assert ("answer", "las") in values and ("empty", "las") not in values


def test_a_measure_by_which_a_fake_is_as_good_as_students_gets_a_star():
    cell = {"dataset": "d", "teacher": "t", "prompting": "p", "student": "s", "tested_on": "d"}
    rows = [{**cell, "method": method, "seed": seed, "measure": measure, "value": value + seed / 100}
            for method, values in (("multitask", {"las": 0.3, "qbe": 0.5, "words": 5}),
                                   ("standard", {"las": 0.1, "qbe": 0.4, "words": 9}))
            for measure, value in values.items() for seed in (0, 1)]
    fakes = pd.DataFrame([{**cell, "method": method, "fake": "answer", "measure": measure, "value": value}
                          for method in ("multitask", "standard")
                          for measure, value in (("las", 0.2), ("qbe", 0.1), ("words", 50))])
    measures = pd.DataFrame(rows)
    marked = tables.fooled(measures, fakes, NO_CONTROLS)
    assert marked == {"las": "at least as good as a student: 'answer' in 1 of 2 cells"}
    controls = pd.DataFrame([{**cell, "method": method, "control_of": control_of}
                             for method, control_of in (("multitask", ""), ("standard", "multitask"))])
    assert tables.fooled(measures, fakes, controls) == {}, "only a control is beaten"
    shown = tables.explanation_table(measures, ["las", "qbe"], fakes, marked)
    assert shown["method"].tolist() == ["multitask", "standard", "fake: answer"]
    assert shown["las *"].tolist()[2] == "0.200" and list(shown)[-2:] == ["las *", "qbe"]
    two = pd.concat([fakes, fakes.assign(teacher="other", value=0.0)], ignore_index=True)
    names = runs_table.shorten(tables.explanation_table(measures, ["las"], two))["cell"].tolist()
    assert names == ["multitask (p)", "standard (p)", "fake: answer (t)", "fake: answer (other)"], "each by itself"
    assert tables.fooled(measures, fakes.iloc[:0], NO_CONTROLS) == {} and list(runs_table.read_fakes([])) == [
        *runs_table.CELL, "fake", "measure", "value"]


def test_a_fake_is_compared_with_the_students_whose_answers_and_references_it_has():
    """Texts of one prompting are far more like their teacher's than those of the other; no fake reaches its own."""
    cell = {"dataset": "d", "teacher": "t", "student": "s", "tested_on": "d"}
    values = {"few_shot": (0.6, 0.4), "tokens": (0.15, 0.1)}  # of the student, of the fake
    measures, fakes = (pd.DataFrame([
        {**cell, "method": "multitask", "prompting": prompting, "seed": 0, "fake": "question",
         "measure": "rouge_l_teacher", "value": pair[place]} for prompting, pair in values.items()])
        for place in (0, 1))
    assert tables.fooled(measures.drop(columns="fake"), fakes.drop(columns="seed"), NO_CONTROLS) == {}


def test_a_fake_also_beats_students_where_less_is_better():
    """An empty text argues for no other answer; the number of words is neither good nor bad."""
    cell = {"dataset": "d", "teacher": "t", "prompting": "p", "student": "s", "method": "multitask", "tested_on": "d"}
    measures = pd.DataFrame([{**cell, "seed": 0, "measure": name, "value": 0.2}
                             for name in ("argues_for_other", "names_gold", "words")])
    fakes = pd.DataFrame([{**cell, "fake": fake, "measure": name, "value": value} for fake, value
                          in (("empty", 0.0), ("other", 0.1), ("question", 0.3))
                          for name in ("argues_for_other", "words")])
    assert tables.fooled(measures, fakes, NO_CONTROLS) == {
        "argues_for_other": "at least as good as a student: 'empty' in 1 of 1 cell, 'other' in 1 of 1 cell"}
    own = {"argues_for_other": 0.2, "words": 4.0, "las": float("nan")}
    assert fooled_by(own, [*fakes.to_dict("records"), {"fake": "answer", "measure": "las", "value": 0.9}]) == {
        "argues_for_other": "'empty' has 0.000, 'other' has 0.100"}


def test_every_table_of_a_student_marks_the_measures_that_a_fake_reaches(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr("kdutils.report.tables.show_table", lambda table, *_, **__: shown.append(table))
    found, _ = run_notebook("21_evaluate_student", tmp_path, timed_questions=0)
    fooled = found["fooled"]
    assert "'answer' has " in fooled["las"] and "'empty' has 0.000" in fooled["argues_for_other"]
    assert {"overlap_gain"} <= {row["measure"] for row in found["fakes"]}
    names = [{*table, *table.get("measure", ())} for table in shown]
    assert not any(set(fooled) & some for some in names)
    assert sum("las *" in some for some in names) > 1 and sum("argues_for_other *" in some for some in names) > 1
    [beside] = [table for table in shown if "reached by" in table]
    assert all(beside["measure"].str.endswith(" *") == beside["reached by"].ne(""))


def test_measures_of_a_teachers_texts_are_marked_where_a_fake_is_as_good_by_hand():
    texts = pd.DataFrame({"id": QUESTIONS["id"], "stage": "rationale", "round": 0, "sample": 0,
                          "answer": QUESTIONS["answer"], "text": list(RATIONALES.values()), "raw": "as written",
                          "changes": [[]] * 12, "finish_reason": "stop", "prompt_tokens": None,
                          "completion_tokens": None})
    texts.loc[0, "text"] = "It is called two0, for sure."  # names another choice, and not the answer
    fakes = fake_explanations(texts, QUESTIONS)
    assert fakes["stage"].unique().tolist() == ["fake: empty", "fake: question", "fake: answer", "fake: other"]
    table = text_table(pd.concat([texts, fakes]), QUESTIONS).set_index("stage")
    named = table["answer named"]
    assert named["rationale"] == 11 / 12 and named["fake: answer"] == 1 and named["fake: other"] == 0
    found = fooled_stages(table.reset_index())
    assert found["answer named"] == "'answer' has 1.000"
    assert "'empty' has 0.000" in found["contradicted"], "a text that says nothing contradicts nothing"
    assert not {"words", "texts", "a distractor named"} & set(found), "neither more nor less is better"
    words = texts.assign(raw='[["two0", 0.5, 0, 4]]')
    assert fake_explanations(words, QUESTIONS).empty and fooled_stages(table[:1].reset_index()) == {}


def test_measures_beside_peoples_ratings_are_marked_where_a_fake_is_as_good(tmp_path):
    texts = pd.DataFrame({
        "text": [f"t{i}" for i in range(24)], "question": [f"q{i % 12}" for i in range(24)], "dataset": "d",
        "method": ["multitask"] * 12 + ["shuffled"] * 12, "student_seed": 0, "correct": True,
        "choices": list(QUESTIONS["choices"]) * 2, "asked": list(QUESTIONS["question"]) * 2,
        "answer": list(QUESTIONS["answer"]) * 2, "gold": list(QUESTIONS["answer"]) * 2,
        "explanation": list(RATIONALES.values()) + ["Nothing to say."] * 12})
    texts.to_parquet(tmp_path / "texts.parquet")
    rated = pd.DataFrame({"text": texts["text"]})
    teacher = pd.DataFrame({"id": QUESTIONS["id"], "stage": "rationale", "text": list(RATIONALES.values())})
    found = fooled_measures(tmp_path / "texts.parquet", rated, teacher, left_out=["shuffled"])
    assert found["names_answer"] == "'answer' has 1.000, 'teacher' has 1.000"
    assert "rouge_l_teacher" not in found, "the student's texts are the teacher's; the control's would be beaten"
    assert "rouge_l_teacher" in fooled_measures(tmp_path / "texts.parquet", rated, teacher)
    texts.assign(method=texts["method"] + " · few_shot").to_parquet(tmp_path / "texts.parquet")
    assert fooled_measures(tmp_path / "texts.parquet", rated, teacher, left_out=["shuffled"]) == found, "joined labels"
    worse = texts.assign(explanation=["Nothing to say."] * 24)
    worse.to_parquet(tmp_path / "texts.parquet")
    found = fooled_measures(tmp_path / "texts.parquet", rated, teacher, left_out=["shuffled"])
    assert "'other' has" in found["rouge_l_teacher"]
