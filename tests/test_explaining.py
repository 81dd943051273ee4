"""The promptings in stages, with a scripted teacher: what is asked for, what is kept, and what a gap does."""

import collections

import pandas as pd
import pytest

from kdutils.data.tables import learnt_rows, read_table, write_table
from kdutils.errors import StudyError
from kdutils.student.methods import explained_of
from kdutils.teacher import prompting
from kdutils.teacher.completion import Completion, Decoding
from kdutils.teacher.explaining import PROMPTED, decoding_of, explain, split_answer
from kdutils.teacher.settings import ExplainCritiqueRevision, ExplainFewShot

PARAMETERS = {"backend": "hf", "dataset": "mini", "given_answer": True, "seed": 0, "rounds": 1, "wrong": -1,
              "max_new_tokens": 8, "max_critique_tokens": 9, "max_revision_tokens": 10, "stop": ["\n\n"],
              "temperature": 0.0, "top_p": 1.0, "against": "wrong", "strength": 0.5, "choice_temperature": 1.0}


class Scripted:
    """Answers by a function of the prompt's last line and keeps what it was asked."""

    identity, asked, kept = {"backend": "scripted"}, 0, 0

    def __init__(self, answer):
        self.answer, self.calls = answer, []

    def complete(self, prompts, decoding, progress=None, keep=None):
        self.calls.append((list(prompts), decoding))
        return [Completion(self.answer(prompt), "stop", 7, 3) for prompt in prompts]

    def contrast(self, prompts, against, decoding, strength, progress=None, keep=None):
        self.calls.append((list(zip(prompts, against, strict=True)), strength))
        return [Completion("A text.", "stop", 7, 3) for _ in prompts]

    def score(self, prompts, continuations, progress=None, keep=None):
        return [Completion("[-1.0, -0.5]", "stop", 7, 0) for _ in prompts]


@pytest.fixture(scope="module")
def table(questions):
    return questions[0].head(6).reset_index(drop=True)


def stage_of(prompt):
    last = prompt.rsplit("\n", 1)[-1]
    return "critique" if last.startswith("Critique:") else "revision" if last.startswith("Revision:") else "rationale"


def test_every_stage_sees_what_the_stage_before_wrote(table):
    numbers = collections.Counter()

    def answer(prompt):
        numbers[stage_of(prompt)] += 1
        return f" This is {stage_of(prompt)} number {numbers[stage_of(prompt)]}."

    teacher = Scripted(answer)
    made = explain(table, "critique_revision", {**PARAMETERS, "rounds": 2}, teacher)
    assert list(zip(made["stage"], made["round"], strict=True)) == [
        key for key in [("rationale", 0), ("critique", 1), ("revision", 1), ("critique", 2), ("revision", 2)]
        for _ in range(6)]
    first, critique, revision, second, _ = teacher.calls
    assert [call[1].max_new_tokens for call in teacher.calls] == [8, 9, 10, 9, 10]
    for row, question in enumerate(table["question"]):
        asked = critique[0][row][critique[0][row].index(f"Question: {question}"):]
        assert f"This is rationale number {row + 1}." in asked
        asked = revision[0][row][revision[0][row].index(f"Question: {question}"):]
        assert f"This is rationale number {row + 1}." in asked
        assert f"Critique: This is critique number {row + 1}." in asked
        assert f"This is revision number {row + 1}." in second[0][row]
    assert len(first[0]) == 6


def test_critique_and_revision_requests_belong_together(table):
    teacher = Scripted(lambda prompt: " A text.")
    explain(table, "critique_revision", PARAMETERS, teacher)
    pairs = dict(prompting.requests("mini"))
    for critique, revision in zip(teacher.calls[1][0], teacher.calls[2][0], strict=True):
        asked = critique.rsplit("CritiqueRequest: ", 1)[1].split("\n")[0]
        assert revision.rsplit("RevisionRequest: ", 1)[1].split("\n")[0] == pairs[asked]
    drawn = {prompting.request_pair("cqa", f"id{i}", 0) for i in range(200)}
    assert drawn == set(prompting.requests("cqa")), "a pair that is never drawn"


def test_where_a_text_is_unusable_nothing_is_built_on_it(table, tmp_path):
    silent = table["question"][2]
    teacher = Scripted(lambda prompt: "\n" if f"Question: {silent}" in prompt else " A text.")
    made = explain(table, "critique_revision", PARAMETERS, teacher)
    assert [len(prompts) for prompts, _ in teacher.calls] == [6, 5, 5]
    gap = made[made["id"] == table["id"][2]].set_index("stage")
    assert gap["problem"].tolist() == ["empty", "nothing to criticise", "no critique to go by"]
    assert made.groupby("stage")["id"].apply(list).map(lambda ids: ids == list(table["id"])).all()
    write_table(made, tmp_path / "e.parquet", "explanations")
    assert read_table(tmp_path / "e.parquet", "explanations")["text"].isna().sum() == 3


def test_a_teacher_that_is_not_given_the_answer_may_change_its_mind(table):
    def answer(prompt):
        return {"rationale": " One choice. It fits.", "critique": " No.",
                "revision": " Another one. It fits."}[stage_of(prompt)]

    teacher = Scripted(answer)
    made = explain(table, "critique_revision", {**PARAMETERS, "given_answer": False}, teacher)
    assert all(prompt.endswith("The answer is") for prompt in teacher.calls[0][0] + teacher.calls[2][0])
    assert "The answer is One choice. It fits." in teacher.calls[1][0][0]
    assert set(made.loc[made["stage"] == "revision", "answer"]) == {"Another one"}
    assert set(made.loc[made["stage"] == "revision", "text"]) == {"It fits."}


def test_every_wrong_answer_is_asserted_once_and_never_the_right_one(table):
    teacher = Scripted(lambda prompt: " A text.")
    made = explain(table, "counterfactual", PARAMETERS, teacher)
    for item in table.to_dict("records"):
        asserted = made.loc[made["id"] == item["id"], "answer"].tolist()
        assert asserted == [choice for choice in item["choices"] if choice != item["answer"]]
    ends = [prompt.rsplit("The answer is ", 1)[1] for prompt in teacher.calls[0][0]]
    assert ends == [f"{answer}." for answer in made["answer"]]


def test_drawn_wrong_answers_are_each_drawn_about_as_often(table):
    item = table.head(1)
    drawn = collections.Counter(answer for seed in range(800)
                                for answer in prompting.wrong_answers(item, 1, seed)["answer"])
    assert set(drawn) == set(item["choices"][0]) - {item["answer"][0]}
    assert all(150 < count < 250 for count in drawn.values()), drawn  # 200 expected, standard deviation 12
    assert len(prompting.wrong_answers(item, 3, 0)) == 3
    with pytest.raises(StudyError, match="has no choices"):
        prompting.wrong_answers(item.assign(choices=[[]]), 1)


def test_contrast_sets_the_right_answer_off_against_a_wrong_one(table):
    teacher = Scripted(None)
    explain(table, "contrastive", PARAMETERS, teacher)
    pairs, strength = teacher.calls[0]
    assert strength == 0.5
    for (prompt, against), item in zip(pairs, table.to_dict("records"), strict=True):
        assert prompt.endswith(f"The answer is {item['answer']}.") and prompt != against
        assert against.rsplit("The answer is ", 1)[1][:-1] in item["choices"]
    explain(table, "contrastive", {**PARAMETERS, "against": "empty"}, teacher)
    assert all(against.endswith("The answer is .") for _, against in teacher.calls[1][0])
    with pytest.raises(StudyError, match="against: unknown 'none'"):
        explain(table, "contrastive", {**PARAMETERS, "against": "none"}, teacher)


def test_what_greedy_decoding_does_not_look_at_is_not_in_its_settings():
    greedy = decoding_of({**PARAMETERS, "seed": 5, "top_p": 0.9})
    assert greedy == Decoding(8, ("\n\n",)) and decoding_of(PARAMETERS) == greedy
    sampled = decoding_of({**PARAMETERS, "seed": 5, "top_p": 0.9, "temperature": 0.7})
    assert sampled == Decoding(8, ("\n\n",), 0.7, 0.9, 5)


@pytest.mark.parametrize(("text", "choices", "answer", "rest"), [
    (" a u.s. cow. It moos.", ["cow", "a u.s. cow", "a u"], "a u.s. cow", " It moos."),
    ("The answer is Cow. It moos.", ["cow", "cat"], "cow", " It moos."),
    (" cowboy. He rides.", ["cow", "cat"], "cowboy", " He rides."),
    (" 8. 4 and 4 is 8.", [], "8", " 4 and 4 is 8."),
    (" dog", ["cow"], "dog", ""), ("", ["cow"], "", ""),
    (" The door has iron. It sticks.", ["The door has iron.", "It is wood."], "The door has iron.", " It sticks."),
    (" The door has iron.", ["The door has iron."], "The door has iron.", ""),
    (" water because it is wet.", ["water", "sand"], "water", " because it is wet."),
    (" water, because it is wet.", ["water", "sand"], "water", " because it is wet."),
    (" water\nIt is wet.", ["water", "sand"], "water", "\nIt is wet."),
    (" water! It is wet.", ["water", "sand"], "water", " It is wet."),
    (" no, because it is dry.", ["yes", "no"], "no", " because it is dry."),
    (" water (b). It is wet.", ["sand", "water"], "water", " It is wet."),
    (" (b) water. It is wet.", ["sand", "water"], "water", " It is wet."),
    (" **(b) water**. It is wet.", ["sand", "water"], "water", " It is wet."),
    (" **water.** It is wet.", ["sand", "water"], "water", " It is wet."),
    ("**The answer is water.** It is wet.", ["sand", "water"], "water", " It is wet."),
    ("So the correct answer is: water. It is wet.", ["sand", "water"], "water", " It is wet."),
    (" (b). It is wet.", ["sand", "water"], "(b)", " It is wet."),
    (" (b) the U.S. Army. It did.", ["the navy", "the U.S. Army"], "the U.S. Army", " It did."),
    (" (a) water. It is wet.", ["sand", "water"], "", " (a) water. It is wet."),
    (" water or sand. Who knows?", ["sand", "water"], "", " water or sand. Who knows?"),
    (" water, sand. Who knows?", ["sand", "water"], "", " water, sand. Who knows?"),
    (" water bottles. They hold it.", ["sand", "water"], "", " water bottles. They hold it."),
    ("Answer: water. It is wet.", ["sand", "water"], "water", " It is wet."),
    ("**Answer: water**. It is wet.", ["sand", "water"], "water", " It is wet."),
    ("**Correct answer:** (b) water. It is wet.", ["sand", "water"], "water", " It is wet."),
    (" water - it is wet.", ["sand", "water"], "water", "it is wet."),
    (" water—it is wet.", ["sand", "water"], "water", "it is wet."),
    (" water - sand. Who knows?", ["sand", "water"], "", " water - sand. Who knows?"),
    (" water-based ink. It is.", ["sand", "water"], "", " water-based ink. It is."),
    (" Dr. King. He said so.", [], "Dr. King", " He said so."),
    (" J. K. Rowling. She wrote it.", [], "J. K. Rowling", " She wrote it."),
    (" U.S. Army. It is one.", [], "U.S. Army", " It is one."),
    (" vitamin C. It is in fruit.", [], "vitamin C", " It is in fruit."),
    (" 19\nBecause 48 - 29 = 19.", [], "19", "Because 48 - 29 = 19."),
    (" $\\boxed{19}$. It is 48 - 29.", [], "19", " It is 48 - 29."),
    (" 3.5. It is half of 7.", [], "3.5", " It is half of 7."),
    (" 1. FC Köln. The club won.", [], "1. FC Köln", " The club won."), (" 8. He left.", [], "8", " He left."),
    (" 19\nTwelve.", [], "19", "Twelve."), (" 8。Yes。", [], "8", "Yes。"),
    (" I'm sorry, but I can't help with that. It is about weapons.", [], "",
     " I'm sorry, but I can't help with that. It is about weapons."),
    (" I cannot assist. Sorry.", ["yes", "no"], "", " I cannot assist. Sorry."),
])
def test_the_teachers_own_answer_is_the_choice_that_its_text_begins_with(text, choices, answer, rest):
    answers, left = split_answer([Completion(text, "stop", 1, 1)], [choices])
    assert answers == [answer] and left[0].text == rest


def test_answers_without_explanations_are_enough_where_only_answers_are_wanted(table):
    asked, teacher = {**PARAMETERS, "given_answer": False, "model": "m"}, Scripted(lambda prompt: " (b).")
    found = explain(table, "few_shot", asked, teacher, for_answers=True)
    assert found["text"].isna().all() and set(found["answer"]) == {"(b)"}
    with pytest.raises(StudyError, match="m: none of 6 texts is usable"):
        explain(table, "few_shot", asked, teacher)


def test_nothing_behind_the_first_answer_of_a_prompt_is_told(table, tmp_path):
    """A layout may name the answer twice; with given_answer false the teacher is to find it."""
    folder = tmp_path / "prompts"
    folder.mkdir()
    layout = "Question: {question}\nChoices: {choices}\nAnswer: The answer is {answer}. Why is {answer} right?"
    (folder / "few_shot.txt").write_text(f"Shots.\n\n{layout}\n")
    teacher = Scripted(lambda prompt: " (a). It is so.")
    asked = {**PARAMETERS, "prompts": str(folder), "given_answer": False}
    explain(table, "few_shot", asked, teacher)
    assert all(prompt.endswith("\nAnswer: The answer is") for prompt in teacher.calls[0][0])
    (folder / "few_shot.txt").write_text("Shots.\n\nThe answer is {answer}.\nQuestion: {question}\n")
    with pytest.raises(StudyError, match="has {question} behind {answer}"):  # and an edited file is read again
        explain(table, "few_shot", asked, teacher)


def test_an_unknown_backend_is_named(table):
    with pytest.raises(StudyError, match="backend: unknown 'magic'; known: hf, openai"):
        explain(table, "few_shot", {**PARAMETERS, "backend": "magic"})


def test_every_prompting_is_planned_without_asking(table, tmp_path, monkeypatch):
    """A plan counts what the run then asks for, and nothing once that is in the store."""
    from kdutils.teacher import explaining

    class Counted(Scripted):
        def count_tokens(self, prompts):
            return [len(prompt.split()) for prompt in prompts]

    monkeypatch.setenv("KDUTILS_STORE", str(tmp_path / "store.sqlite"))
    monkeypatch.setattr(explaining, "load_teacher", lambda parameters: Counted(lambda prompt: " A text of its own."))
    expected = {"few_shot": 6, "critique_revision": 12, "counterfactual": 24, "contrastive": 6,  # 6 rationales are kept
                "soft_labels": 30}
    for name in PROMPTED:
        before = explaining.plan(table, name, PARAMETERS)
        made = explain(table, name, PARAMETERS)
        after = explaining.plan(table, name, PARAMETERS)
        assert before.to_ask == expected[name] == made.attrs["notes"]["completions asked for"], name
        assert before.prompt_tokens > 0 and before.new_tokens >= (1 if name == "soft_labels" else 8) * before.to_ask
        assert after.to_ask == 0 and after.stored == before.stored + before.to_ask
    assert isinstance(made, pd.DataFrame)


def test_progress_is_one_line_that_ends_when_it_is_done(tmp_path, capsys):
    from kdutils.teacher.progress import show_progress

    for done in (1, 2):
        show_progress(tmp_path / "progress.txt", done, 2, f"explained {done} of 2 texts")
    assert capsys.readouterr().out == "\rexplained 1 of 2 texts\rexplained 2 of 2 texts\n"
    assert (tmp_path / "progress.txt").read_text() == "explained 2 of 2 texts\n"


# --- several texts per question


SAMPLED = {**PARAMETERS, "temperature": 0.7, "samples": 3}


class Sampling(Scripted):
    """Writes a text that tells the sample and the prompt apart."""

    def complete(self, prompts, decoding, progress=None, keep=None):
        self.calls.append((list(prompts), decoding))
        return [Completion(f" Text {decoding.sample} on {prompt[-30:]!r}.", "stop", 7, 3) for prompt in prompts]


@pytest.mark.parametrize("name", ["few_shot", "critique_revision"])
def test_each_question_gets_as_many_samples_as_are_wanted_and_fewer_are_the_first_of_more(table, tmp_path, name):
    teacher = Sampling(None)
    made = explain(table, name, SAMPLED, teacher)
    assert made.groupby(["stage", "id"])["sample"].apply(list).map(lambda found: found == [0, 1, 2]).all()
    assert all(f"Text {row.sample} on" in row.text for row in made.itertuples())
    assert {decoding.sample for _, decoding in teacher.calls} == {0, 1, 2}
    for prompts, decoding in teacher.calls:  # a later stage builds on its own sample
        said = {f"Text {other} on" in prompt for prompt in prompts for other in range(3) if other != decoding.sample}
        assert said == {False}
    two = explain(table, name, {**SAMPLED, "samples": 2}, Sampling(None))
    pd.testing.assert_frame_equal(two, made[made["sample"] < 2].reset_index(drop=True))
    write_table(made, tmp_path / "e.parquet", "explanations")
    assert read_table(tmp_path / "e.parquet", "explanations")["sample"].tolist() == made["sample"].tolist()


def test_a_table_without_samples_is_one_of_first_samples(table, tmp_path):
    made = explain(table, "few_shot", PARAMETERS, Scripted(lambda prompt: " A text."))
    write_table(made.drop(columns="sample"), tmp_path / "e.parquet", "explanations")
    assert set(read_table(tmp_path / "e.parquet", "explanations")["sample"]) == {0}


def test_without_a_temperature_the_sample_is_no_part_of_the_key_in_the_store():
    assert decoding_of({**PARAMETERS, "sample": 2}) == decoding_of(PARAMETERS)
    assert decoding_of({**SAMPLED, "sample": 2}).sample == 2


@pytest.mark.parametrize(("values", "fault"), [
    ({"samples": 2}, "greedy decoding writes the same text each time; set a temperature above 0"),
    ({"samples": 2, "backend": "published", "temperature": 1.0},
     "there is one published text per question; set samples: 1"),
    ({"samples": 2, "backend": "published", "published_teacher": "people"}, None),
    ({"keep": "all"}, "a teacher that is told the right answer explains no other; set given_answer: false"),
    ({"keep": "all", "given_answer": False}, None),
    ({"keep": "all", "backend": "published", "published_teacher": "palm"}, None),
    ({"samples": 2, "temperature": 1.0}, None), ({}, None)])
@pytest.mark.parametrize("model", [ExplainFewShot, ExplainCritiqueRevision])
def test_samples_need_a_teacher_that_can_write_them(model, values, fault):
    assert list(model(**values).conflicts()) == ([(next(iter(values)), fault)] if fault else [])


def test_texts_for_wrong_answers_are_learnt_only_if_the_experiment_keeps_all(table, tmp_path):
    own = {**PARAMETERS, "given_answer": False}
    wrong = next(choice for choice in table["choices"][0] if choice != table["answer"][0])
    teacher = Scripted(lambda prompt: f" {wrong}. Because it is {wrong} that does it.")
    for keep, learnt in (("right", table["answer"] == wrong), ("all", [True] * len(table))):
        made = explain(table, "few_shot", {**own, "keep": keep}, teacher)
        write_table(made, tmp_path / "e.parquet", "explanations")
        stored = read_table(tmp_path / "e.parquet", "explanations")
        assert stored["text"].notna().all() and set(stored["answer"]) == {wrong}
        assert sorted(learnt_rows(stored, table)["id"]) == sorted(table.loc[learnt, "id"])
        assert [one.rationale for one in explained_of(stored, table).values()] == [
            text if kept else None for text, kept in zip(stored["text"], learnt, strict=True)]
