"""The tiny models: shape and vocabulary as stated, and made anew the same every time."""

import pytest
import torch

from kdutils.data import mini_world
from kdutils.mini import models


@pytest.fixture(scope="module")
def tokenizer():
    return models.make_tokenizer()


def test_the_same_seed_makes_the_same_teacher(tokenizer):
    first, second = (models.train_teacher(tokenizer, 2, batch=2, report=lambda line: None) for _ in range(2))
    assert first[1] == second[1]
    assert all(a.equal(b) for a, b in zip(first[0].parameters(), second[0].parameters(), strict=True))
    other, _ = models.train_teacher(tokenizer, 2, batch=2, seed=1, report=lambda line: None)
    assert not all(a.equal(b) for a, b in zip(first[0].parameters(), other.parameters(), strict=True))


def test_the_same_seed_makes_the_same_student(tokenizer):
    reads = models.student_tokenizer(tokenizer)
    first, second = (models.pretrain_student(reads, 2, batch=2, report=lambda line: None) for _ in range(2))
    assert first[1] == second[1]
    assert all(a.equal(b) for a, b in zip(first[0].parameters(), second[0].parameters(), strict=True))
    other, _ = models.pretrain_student(reads, 2, batch=2, seed=1, report=lambda line: None)
    assert not all(a.equal(b) for a, b in zip(first[0].parameters(), other.parameters(), strict=True))


def test_a_passage_with_its_gaps_filled_says_true_things_and_asks_nothing():
    import random

    true, draw = set(models.world_sentences()), random.Random(1)
    for _ in range(200):
        passage, filled = models.draw_passage(draw)
        head, _, told = passage.rpartition(": ")
        gaps = filled.split(f"{models.GAP} ")
        assert gaps[0] == "" and told.count(models.GAP) == len(gaps) - 1
        for words in gaps[1:]:
            told = told.replace(models.GAP, words.strip(), 1)
        assert {f"{sentence.removesuffix('.')}." for sentence in told.split(". ")} <= true
        assert "?" not in passage and (not head or len(head.split(", ")) == 5)


def test_the_shipped_student_knows_the_world():
    import random

    from transformers import AutoTokenizer, T5ForConditionalGeneration

    model, reads = T5ForConditionalGeneration.from_pretrained(models.STUDENT), AutoTokenizer.from_pretrained(
        models.STUDENT, trust_remote_code=False)
    draw, facts, right = random.Random("not drawn in training"), mini_world.load_world(), []
    while len(right) < 40:
        names = draw.sample(list(facts.concepts), 5)
        asked = draw.sample(list(facts.concepts[names[0]].items()), 2)
        if sum(all(facts.fits(name, fact) for fact in asked) for name in names) == 1:
            told = " and ".join(facts.clause(*fact) for fact in asked)
            text = f"{', '.join(sorted(names))}: {models.GAP} {told}."
            found = model.generate(**reads(text, return_tensors="pt"), max_new_tokens=8)[0]
            right.append(reads.decode(found, skip_special_tokens=True).split()[-1] == names[0])
    assert sum(right) > 30  # 8 by chance


def test_the_loss_is_the_library_s_over_the_teacher_s_own_tokens(tokenizer):
    import random

    from transformers import LlamaForCausalLM

    torch.manual_seed(0)
    model = LlamaForCausalLM(models.teacher_config(tokenizer)).double()
    draw, keys = random.Random(0), mini_world.split_keys()["train"]
    rows = [models._row(draw, keys, models.world_sentences(), tokenizer) for _ in range(3)]
    tensors = models._pad(rows, tokenizer.pad_token_id)
    assert models._own_loss(model, tensors).item() == pytest.approx(model(**tensors).loss.item(), rel=1e-6)


def test_the_teacher_s_own_part_is_learnt_and_nothing_else(tokenizer):
    import random

    draw, keys = random.Random(3), mini_world.split_keys()["train"]
    for layout in models.SHARES:
        parts = models.transcript(draw, keys, layout)
        assert [own for _, own in parts] == [False, True] * (len(parts) // 2)
        assert all("Question:" not in text and "Request:" not in text for text, own in parts if own)
    given, own = models.transcript(draw, keys, "counterfactual")[-2:]
    assert "The answer is" in given[0] and "The answer is" not in own[0]


def test_every_word_of_the_world_is_one_token_and_any_text_comes_back(tokenizer):
    sentences = [sentence.rstrip(".").replace(",", "") for sentence in models.world_sentences()]
    words = {word for sentence in sentences for word in sentence.split()[1:]}
    assert len(words) > 150 and all(len(tokenizer.tokenize(f" {word}")) == 1 for word in words)
    for text in ("naïve 😀 <b>", "\n\n\t x", "עברית"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_the_shipped_models_are_those_shapes_and_small(tokenizer):
    from transformers import AutoConfig

    shipped = AutoConfig.from_pretrained(models.TEACHER)
    assert shipped.model_type == "llama" and shipped.vocab_size == len(tokenizer)
    assert sum(path.stat().st_size for path in models.TEACHER.iterdir()) < 8e6
    assert {path.suffix for path in models.TEACHER.iterdir()} == {".json", ".safetensors"}
    assert models.student_tokenizer(tokenizer)("a cow")["input_ids"][-1] == tokenizer.eos_token_id
    assert AutoConfig.from_pretrained(models.STUDENT).vocab_size == len(tokenizer)
    assert {path.suffix for path in models.STUDENT.iterdir()} == {".json", ".safetensors"}


def test_no_code_of_others_and_no_pickle_is_loaded():
    import re

    from kdutils.runs import PROJECT

    for path in [*(PROJECT / "kdutils").rglob("*.py"), *(PROJECT / "notebooks").glob("*.ipynb")]:
        text = path.read_text()
        assert not re.search(r"trust_remote_code\s*=\s*True|import pickle|torch\.load\(|(?<![\w.])(eval|exec)\(",
                             text), path
        for call in re.findall(r"\bAuto\w+\.from_pretrained\([^)]*\)|auto_class\.from_pretrained\([^)]*\)", text):
            assert "trust_remote_code=False" in call, (path, call)
