"""Prompts and the hf backend, against the library's plain calls on one prompt at a time."""

import pytest

from kdutils.data.texts import names_answer
from kdutils.errors import StudyError
from kdutils.teacher.completion import Completion, Decoding
from kdutils.teacher.explaining import explanations_table, split_answer
from kdutils.teacher.hf import HfTeacher
from kdutils.teacher.prompting import few_shot_prompts, fill, qualities, quality, template


@pytest.fixture(scope="module")
def teacher():
    return HfTeacher("kdutils/mini/teacher", token_budget=900)


@pytest.fixture(scope="module")
def prompts():
    from kdutils.data.mini_world import build_questions

    return few_shot_prompts(build_questions(6, 2, 2), "mini", seed=0)


def alone(teacher, prompt, tokens, stop):
    """Greedy continuation of one prompt by the library's plain call, cut at the first stop text."""
    ids = teacher.tokenizer(prompt, return_tensors="pt")["input_ids"]
    out = teacher.model.generate(ids, do_sample=False, max_new_tokens=tokens, pad_token_id=0)[0, ids.shape[1]:]
    text = teacher.tokenizer.decode(out, skip_special_tokens=True)
    found = [text.find(mark) for mark in stop if mark in text]
    return text[:min(found)] if found else text


def test_batched_completions_equal_each_prompt_alone(teacher, prompts):
    """Prompts of unlike length, padded on the left, one of them twice; each row stops by itself."""
    mixed = [*prompts, "A cow", prompts[0], "Question:"]
    done = teacher.complete(mixed, Decoding(40, ("\n\n",)))
    assert [one.text for one in done] == [alone(teacher, prompt, 40, ["\n\n"]) for prompt in mixed]
    assert done[0] == done[-2]
    assert [one.prompt_tokens for one in done] == [len(teacher.tokenizer(p)["input_ids"]) for p in mixed]


def test_a_finished_row_does_not_stop_the_others(teacher, prompts):
    short, long = "A cow is", prompts[0]
    full = teacher.complete([short, long], Decoding(30))
    mark = next(word for word in full[0].text.split() if word not in full[1].text)
    cut = teacher.complete([short, long], Decoding(30, (mark,)))
    assert cut[0].text == full[0].text[:full[0].text.index(mark)] and cut[0].finish_reason == "stop"
    assert cut[1].text == full[1].text


def test_a_completion_that_hits_the_limit_says_so(teacher, prompts):
    done = teacher.complete(prompts[:1], Decoding(3))[0]
    assert done.finish_reason == "length" and done.completion_tokens == 3


def test_a_prompt_longer_than_the_context_is_named_and_by_how_much(teacher):
    with pytest.raises(StudyError, match=r"prompt 1 takes \d+ tokens with the new ones, \d+ more than"):
        teacher.complete(["short", "cow " * 1100], Decoding(8))


@pytest.mark.parametrize("quantization", ["int8", "nf4"])
def test_quantised_teachers_load_and_write(quantization, prompts):
    done = HfTeacher("kdutils/mini/teacher", quantization).complete(prompts[:2], Decoding(8))
    assert all(one.completion_tokens > 0 for one in done)


def test_what_cannot_be_loaded_is_named(tmp_path):
    with pytest.raises(StudyError, match="unknown 'int3'; known: none, int8, nf4"):
        HfTeacher("kdutils/mini/teacher", "int3")
    with pytest.raises(StudyError, match="./nowhere: no such folder"):
        HfTeacher("./nowhere")
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(StudyError, match=r"a pickle \(pytorch_model.bin\), which can run code"):
        HfTeacher(str(tmp_path))
    (tmp_path / "pytorch_model.bin").unlink()
    with pytest.raises(StudyError, match=r"no weights \(model.safetensors .*\); other formats are not loaded"):
        HfTeacher(str(tmp_path))


def test_a_prompt_is_the_shots_and_then_the_item(prompts):
    shots, item = template("mini", "few_shot")
    assert shots.count("Question:") == 3 and "{question}" in item and shots.endswith("\n\n")
    assert all(prompt.startswith(shots) for prompt in prompts)
    assert prompts[0].endswith(".") and "The answer is" in prompts[0].splitlines()[-1]


def test_braces_in_a_question_are_text_and_not_slots():
    filled = fill("Q: {question} A: {answer}", question="{answer} {0} {{x}}", answer="42")
    assert filled == "Q: {answer} {0} {{x}} A: 42"
    with pytest.raises(StudyError, match="no value for the slot {answer}"):
        fill("{answer}")


def test_wanted_qualities_are_drawn_per_question_from_the_seed():
    drawn = {quality(f"id{i}", 0) for i in range(60)}
    assert len(drawn) > 20 and quality("id1", 0) == quality("id1", 0)
    assert any(quality(f"id{i}", 0) != quality(f"id{i}", 1) for i in range(5))
    assert all(len(set(pair.split(" and "))) == 2 and set(pair.split(" and ")) <= set(qualities()) for pair in drawn)
    assert len(qualities()) == 18


def test_without_the_answer_the_teacher_is_asked_for_it():
    from kdutils.data.mini_world import build_questions

    table = build_questions(1, 1, 1)
    assert few_shot_prompts(table, "mini", 0, given_answer=False)[0].endswith("The answer is")
    answers, rest = split_answer([Completion(" a u.s. cow. It moos.", "stop", 1, 1), Completion("", "stop", 1, 1)])
    assert answers == ["a u.s", ""] or answers == ["a u.s. cow", ""]
    assert rest[0].text.endswith("It moos.")


def test_the_table_keeps_raw_text_and_states_what_is_unusable():
    import pandas as pd

    questions = pd.DataFrame({"id": ["1", "2"], "answer": ["cow", "cat"], "choices": [["cow", "cat"], ["cow", "cat"]]})
    done = [Completion("\nA cow moos, a cat does not.\n\nQuestion: x", "stop", 5, 9), Completion(" \n", "stop", 5, 1)]
    table = explanations_table(questions, questions["answer"], done, "rationale")
    assert table["text"][0] == "A cow moos, a cat does not." and pd.isna(table["text"][1])
    assert table["raw"].tolist() == [one.text for one in done] and table["problem"].tolist() == ["", "empty"]


def test_an_answer_is_named_as_whole_words():
    assert names_answer("The CAR stops.", "car") and not names_answer("A card.", "car")
    assert names_answer("in the u.s. today", "u.s.") and not names_answer("", "car")


@pytest.mark.parametrize(("dataset", "shots"), [("mini", 3), ("cqa", 7), ("esnli", 3), ("strategyqa", 3)])
def test_every_data_set_has_its_shots_in_the_layout_of_the_item(dataset, shots):
    head, item = template(dataset, "few_shot")
    blocks = head.strip().split("\n\n")
    assert len(blocks) == shots
    for block in blocks:
        question, choices, answer = block.splitlines()
        filled = fill(item, question=question.removeprefix("Question: "), choices=choices.removeprefix("Choices: "),
                      quality=answer.split("(", 1)[1].split(")")[0],
                      answer=answer.split("The answer is ", 1)[1].split(". ")[0])
        assert block.startswith(filled), "a shot that is laid out otherwise than the item"
        assert filled.split("The answer is ")[1][:-1] in choices


@pytest.mark.parametrize("dataset", ["cqa", "esnli", "strategyqa"])
def test_shots_share_no_question_with_any_split(dataset):
    import os
    from pathlib import Path

    from kdutils.data.datasets import content_key
    from kdutils.data.readers import read_questions

    folder = os.environ.get("KDUTILS_DATA") or Path(__file__).parents[2] / "shared" / "data"
    if not (Path(folder) / "cqa").is_dir():
        pytest.skip("no real data: set KDUTILS_DATA to the folder that holds it")
    asked = set(map(content_key, read_questions(dataset, str(folder))["question"]))
    shots = [line.removeprefix("Question: ") for line in template(dataset, "few_shot")[0].splitlines()
             if line.startswith("Question: ")]
    assert shots and not asked & set(map(content_key, shots))
