"""Students whose tokenizer is a slow one, which does not say where its tokens stand: bytes (ByT5), or made by hand."""

import random

import pandas as pd
import pytest
import torch
from transformers import AutoTokenizer, ByT5Tokenizer

from kdutils.data.answers import mask_answers
from kdutils.data.texts import count_tokens_before, locate_tokens, names_answer
from kdutils.errors import StudyError
from kdutils.evaluation.attribution_overlap import attribution_overlap
from kdutils.runs import read_json
from kdutils.student.collating import RowFormat, tokenize_rows, vocabulary_gaps
from kdutils.student.methods import Explained
from kdutils.student.models import load_student, load_tokenizer
from kdutils.student.predicting import predict_with, score_choices, written_answers
from kdutils.student.probes import perturbed, probe_answers, probe_table
from kdutils.student.training import Recipe, train_student
from kdutils.teacher.word_scores import driving_words, with_places

T5 = {"model_type": "t5", "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 1, "num_heads": 2, "dropout_rate": 0.0}
TRAINING = {"epochs": 1.0, "questions_per_step": 4, "learning_rate": 0.01, "warmup_steps": 1, "dev_evaluations": 1,
            "max_source_tokens": 200, "max_target_tokens": 120, "token_budget": 4000}


@pytest.fixture(scope="module")
def byt5(tmp_path_factory):
    """The folder of a vocabulary of bytes as it is published: no file of a vocabulary is in it."""
    folder = tmp_path_factory.mktemp("byt5")
    ByT5Tokenizer().save_pretrained(folder)
    (folder / "added_tokens.json").unlink()
    return str(folder)


def questions():
    names = ["red", "蓝色", "x < 3", "{1, 2}", "été", "สีฟ้า"]
    draw, rows = random.Random(0), []
    for number in range(16):
        choices = draw.sample(names, 3)
        split = ("train", "dev", "test")[max(0, number - 11) // 2] if number > 11 else "train"
        rows.append({"id": f"q{number}", "split": split, "question": f"Which is number {number}?", "choices": choices,
                     "answer": choices[0], "human_explanations": []})
    rows[-2]["split"], rows[-1]["split"] = "test", "test"
    explained = {row["id"]: Explained(f"It is {row['answer']}.", {row["choices"][1]: f"It is {row['choices'][1]}."})
                 for row in rows}
    return pd.DataFrame(rows), explained


def test_a_student_of_bytes_trains_answers_and_is_evaluated_as_any_other(byt5, tmp_path):
    table, explained = questions()
    student = {"model": "", "tokenizer": byt5, "kind": "", "random_weights": True, "config": T5, "lora": None}
    record = train_student(tmp_path, table, explained,
                           Recipe("counterfactual", student, TRAINING, {"counterfactual_style": "decoder"}))
    assert "failed" not in record and "unwritable_answers" not in record, "bytes write everything"
    asked = table[table["split"] == "test"].reset_index(drop=True)
    said = predict_with(tmp_path, asked, 12, 0)
    assert len(said) == len(asked) and all(len(scores) == 3 for scores in said["scores"])
    said = said.assign(predicted=asked["answer"], explanation=[f"It is {a}." for a in asked["answer"]])
    ranked = driving_words(tmp_path, written_answers(tmp_path, asked, said))
    assert set(ranked) == set(asked["id"])
    for item in asked.to_dict("records"):
        assert {"Which", "is", "number", item["id"][1:]} <= set(ranked[item["id"]]), "every word has its tokens"
    overlaps = attribution_overlap(said, {0: ranked}, 3)
    assert len(overlaps) == len(asked) and overlaps["overlap_random"].between(0, 1).all()
    probes = probe_answers(tmp_path, asked, explained, said, 0)
    assert {"none", "own", "perturbed", "teacher", "wrong"} == set(probe_table(probes)["probe"])
    assert all(mask_answers(text, [answer], "___") == "It is ___."
               for text, answer in zip(said["explanation"], said["predicted"], strict=True))
    assert (tmp_path / "tokenizer_config.json").is_file() and not (tmp_path / "tokenizer.json").is_file()
    assert read_json(tmp_path / "student.json")["student"]["tokenizer"] == byt5


def test_the_answer_s_bytes_are_counted_as_the_answer_and_no_more(byt5):
    model, tokenizer = load_student("", byt5, random_weights=True, config=T5)
    items = questions()[0].head(3).to_dict("records")
    _, counts = score_choices(model, tokenizer, items, "multitask")
    for item, of_choices in zip(items, counts, strict=True):  # its bytes, the space, the full stop and the end
        assert of_choices == [len(f" {choice}.".encode()) + 1 for choice in item["choices"]]
    assert vocabulary_gaps(tokenizer, "multitask", items, {}) == {}
    row, _ = tokenize_rows(tokenizer, "counterfactual", {}, items[:1], {items[0]["id"]: "é" * 90}, RowFormat(99, 64))
    assert tokenizer.decode(row[0][0].target[-30:-1]).endswith(f"So the answer is {items[0]['answer']}."), "never cut"


TEXTS = ["The cow's 3.5 kg, (b) red", "蓝色 is café", "a  b\ta b", "x < 3 and {1, 2}", "สีฟ้า 😀!", ""]


def test_every_byte_stands_where_its_character_does(byt5):
    tokenizer = load_tokenizer(byt5)
    for text, ids, places in zip(TEXTS, tokenizer(TEXTS)["input_ids"], with_places(tokenizer, TEXTS)["offset_mapping"],
                                 strict=True):
        by_hand = [(place, place + 1) for place, char in enumerate(text) for _ in char.encode()]
        assert places == [*by_hand, (0, 0)] and len(ids) == len(places), "the end token stands nowhere"
        for place in range(len(text) + 1):
            assert count_tokens_before(tokenizer, [text], [place]) == [len(text[:place].encode())]


@pytest.mark.parametrize("name", ["kdutils/mini/student", "t5"])
def test_places_found_without_offsets_are_those_of_the_fast_tokenizer(name):
    """What a tokenizer with offsets says itself is the reference; spaces at the edge of a token aside."""
    if name == "t5":
        name = real_t5()
    tokenizer = AutoTokenizer.from_pretrained(name)
    for text in ["The cow's 3.5 kg, (b) red", "Question: What is it?\nChoices: (a) unbelievable (b) wool", "a b a b a"]:
        encoded = tokenizer(text, return_offsets_mapping=True)
        places = locate_tokens(tokenizer, text, encoded["input_ids"])
        for token, found, told in zip(encoded["input_ids"], places, encoded["offset_mapping"], strict=True):
            if tokenizer.decode([token], skip_special_tokens=True).strip():  # a space alone is told to be what follows
                assert text[slice(*found)] == text[slice(*told)].strip()


def real_t5():
    import os
    from pathlib import Path

    folder = Path(os.environ.get("KDUTILS_DATA") or Path(__file__).parents[2] / "shared" / "data") / "tokenizers" / "t5"
    if not folder.is_dir():
        pytest.skip("the vocabulary of T5 is not here: set KDUTILS_DATA to the folder that holds tokenizers/t5")
    return str(folder)


def test_half_of_a_text_of_bytes_can_be_replaced(byt5):
    tokenizer = load_tokenizer(byt5)
    text = "It is the colour of a clear sky."
    changed = perturbed(text, tokenizer, "0 q1")
    assert changed != text and changed == perturbed(text, tokenizer, "0 q1") and not names_answer(changed, "colour")


def test_a_vocabulary_that_is_not_there_or_cannot_be_read_is_one_line(tmp_path):
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "T5Tokenizer"}')
    with pytest.raises(StudyError, match="no tokenizer"):
        load_tokenizer(str(tmp_path))
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "BertGenerationTokenizer"}')
    (tmp_path / "spiece.model").write_bytes(b"\x0a\x05")
    try:
        import sentencepiece  # noqa: F401
    except ImportError:
        with pytest.raises(StudyError, match="needs the package sentencepiece") as found:
            load_tokenizer(str(tmp_path))
        assert "\n" not in str(found.value)


class ByWord:
    """The least that a slow tokenizer of words is: read back by itself, every token has a space around it."""

    is_fast, unk_token_id, all_special_ids = False, 0, [0, 1]

    def __init__(self, *texts):
        self.words = ["<unk>", "</s>", *dict.fromkeys(word for text in texts for word in text.split())]

    def __call__(self, texts=None, text_target=None, add_special_tokens=True):
        return {"input_ids": [[self.words.index(word) if word in self.words else 0 for word in text.split()]
                              + [1] * add_special_tokens for text in (texts or text_target)]}

    def decode(self, ids, **_):
        return " ".join(self.words[token] for token in ids) + " "


def test_a_word_unknown_to_a_slow_tokenizer_stands_between_its_neighbours():
    tokenizer, text = ByWord("a cow gives"), "a cow  gives milk, cow"
    encoded = with_places(tokenizer, [text])
    assert [text[slice(*place)] for place in encoded["offset_mapping"][0]] == ["a", "cow", "gives", "milk,", "cow", ""]
    assert count_tokens_before(tokenizer, [text, text], [5, 12]) == [2, 3]
    with torch.no_grad():
        assert torch.tensor(encoded["input_ids"]).shape == (1, 6)
