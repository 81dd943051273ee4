"""Contrastive decoding, against a loop over one pair at a time with two whole forwards per token."""

import pytest
import torch
import transformers

from kdutils.data.mini_world import build_questions
from kdutils.errors import StudyError
from kdutils.teacher.completion import Decoding
from kdutils.teacher.contrastive import contrast
from kdutils.teacher.hf import HfTeacher
from kdutils.teacher.prompting import few_shot_prompts

MINI = "kdutils/mini/teacher"
TINY = {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "bos_token_id": None}


@pytest.fixture(scope="module")
def pairs():
    """Few-shot prompts with the right answer, and the same with the next wrong one."""
    questions = build_questions(5, 2, 2).iloc[:5]
    wrong = [next(choice for choice in row["choices"] if choice != row["answer"])
             for row in questions.to_dict("records")]
    return few_shot_prompts(questions, "mini", 0), few_shot_prompts(questions, "mini", 0, answers=wrong)


@pytest.fixture(scope="module")
def teacher():
    return HfTeacher(MINI)


def folder_of(config, folder):
    torch.manual_seed(2)
    auto = transformers.AutoModelForSeq2SeqLM if config.is_encoder_decoder else transformers.AutoModelForCausalLM
    model = auto.from_config(config)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(MINI).save_pretrained(folder)
    return str(folder)


def by_hand(teacher, prompt, against, limit, strength, stop=()):
    """Return (text, finish reason) of one pair: log-probabilities of both whole texts, anew for every token."""
    def log_chances(text, written):
        if teacher.config.is_encoder_decoder:
            inputs = {"input_ids": torch.tensor([teacher.tokenizer(text)["input_ids"]]),
                      "decoder_input_ids": torch.tensor([[teacher.config.decoder_start_token_id, *written]])}
        else:
            inputs = {"input_ids": torch.tensor([teacher.tokenizer(text)["input_ids"] + written])}
        with torch.inference_mode():
            return teacher.model(**inputs).logits[0, -1].log_softmax(-1)

    written = []
    while len(written) < limit:
        token = int((log_chances(prompt, written) - strength * log_chances(against, written)).argmax())
        if token == teacher.tokenizer.eos_token_id:
            return teacher.tokenizer.decode(written, skip_special_tokens=True), "stop"
        written.append(token)
        text = teacher.tokenizer.decode(written, skip_special_tokens=True)
        found = [text.find(mark) for mark in stop if mark in text]
        if found:
            return text[:min(found)], "stop"
    return text, "length"


def told(done):
    return [(one.text, one.finish_reason) for one in done]


@pytest.mark.parametrize(("strength", "scores", "token"), [
    (0, (-0.6931, -0.9163, -2.3026), 0), (0.1, (-0.6708, -0.6860, -2.0723), 0), (0.5, (-0.5816, 0.2350, -1.1513), 1),
    (1, (-0.4700, 1.3863, 0.0), 1)])
def test_the_score_of_a_token_worked_by_hand(strength, scores, token):
    """Three tokens, p = .5, .4, .1 after the right, .8, .1, .1 after the wrong answer: log .4 - .5 log .1 = .235."""
    class Writes:
        def write(self, pairs, decoding, score, progress, keep):
            self.score = score
            return {pairs[0]: None}

    teacher, p = Writes(), torch.tensor([[0.5, 0.4, 0.1], [0.8, 0.1, 0.1]])
    contrast(teacher, ["right"], ["wrong"], Decoding(1), strength)
    found = teacher.score(p.log())
    torch.testing.assert_close(found, torch.tensor(scores), atol=1e-4, rtol=0)
    assert int(teacher.score(p.log() + 3).argmax()) == int(found.argmax()) == token, "logits do as well as log p"


@pytest.mark.parametrize(("strength", "limit"), [(0.5, 30), (1, 10)])
def test_each_pair_as_by_hand(teacher, pairs, strength, limit):
    prompts, against = pairs[0][:3], pairs[1][:3]
    done = teacher.contrast(prompts, against, Decoding(limit, ("\n\n", ", ")), strength)
    assert told(done) == [by_hand(teacher, *pair, limit, strength, ("\n\n", ", "))
                          for pair in zip(prompts, against, strict=True)]
    assert [one.prompt_tokens for one in done] == teacher.count_tokens(prompts)


def test_the_contrast_changes_what_is_written(teacher, pairs):
    greedy, contrasted = teacher.complete(pairs[0], Decoding(20)), teacher.contrast(*pairs, Decoding(20), 0.9)
    assert sum(one.text != other.text for one, other in zip(greedy, contrasted, strict=True)) > len(greedy) // 2


def test_strength_nought_is_greedy(teacher, pairs):
    assert teacher.contrast(*pairs, Decoding(25, ("\n\n",)), 0) == teacher.complete(pairs[0], Decoding(25, ("\n\n",)))


@pytest.mark.parametrize("strength", [0.25, 0.5, 0.9])
def test_a_prompt_against_itself_is_greedy(teacher, pairs, strength):
    """Then the score is (1 − λ) · log p, which has the same maximum."""
    assert teacher.contrast(pairs[0], pairs[0], Decoding(20), strength) == teacher.complete(pairs[0], Decoding(20))


def test_the_batch_does_not_matter(teacher, pairs):
    """Also where rows end at different times, and for a pair that is asked twice."""
    decoding = Decoding(25, (".",))
    together = teacher.contrast(*pairs, decoding)
    assert len({one.completion_tokens for one in together}) > 1
    assert HfTeacher(MINI, token_budget=1).contrast(*pairs, decoding) == together
    assert [teacher.contrast([one], [other], decoding)[0] for one, other in zip(*pairs, strict=True)] == together
    twice = teacher.contrast([pairs[0][0], *pairs[0]], [pairs[1][0], *pairs[1]], decoding)
    assert twice == [together[0], *together]


def test_one_prompt_against_two_others(teacher, pairs):
    prompts, against = [pairs[0][0]] * 2, [pairs[1][0], "A cow is"]
    done = teacher.contrast(prompts, against, Decoding(15), 0.9)
    assert told(done) == [by_hand(teacher, *pair, 15, 0.9) for pair in zip(prompts, against, strict=True)]
    assert done[0] != done[1]


@pytest.mark.parametrize("family", ["GPT2", "Mistral", "T5"])
def test_other_families_as_by_hand(tmp_path, family):
    """Positions that are learnt; a window, read whole; an encoder, where both contexts are texts to encode."""
    shape = {"GPT2": {"n_embd": 48, "n_layer": 2, "n_head": 4, "bos_token_id": None},
             "Mistral": {**TINY, "sliding_window": 8},
             "T5": {"d_model": 48, "d_kv": 12, "d_ff": 64, "num_layers": 2, "num_heads": 4,
                    "decoder_start_token_id": 0}}[family]
    config = getattr(transformers, f"{family}Config")(vocab_size=967, pad_token_id=0, eos_token_id=1, **shape)
    teacher = HfTeacher(folder_of(config, tmp_path))
    prompts = [f"Which of these is {what}? The answer is" for what in ("an animal and often grey", "a tool", "red")]
    against = [f"{prompt} a goat" for prompt in prompts]
    assert teacher.shares_prefix == (family == "GPT2")
    assert told(teacher.contrast(prompts, against, Decoding(10), 0.6)) == [
        by_hand(teacher, *pair, 10, 0.6) for pair in zip(prompts, against, strict=True)]


def test_progress_and_what_is_kept(pairs):
    steps, kept = [], []
    teacher = HfTeacher(MINI, token_budget=600)
    done = teacher.contrast(*pairs, Decoding(5), 0.5, lambda *step: steps.append(step), kept.extend)
    assert len(steps) > 1 and steps[-1] == (5, 5) and dict(kept) == dict(zip(pairs[0], done, strict=True))


@pytest.mark.parametrize("strength", [-0.1, float("nan"), float("inf"), "0.5"])
def test_a_strength_that_is_none_is_refused(teacher, strength):
    with pytest.raises(StudyError, match="strength: .* is not a number of 0 or more"):
        teacher.contrast(["A"], ["B"], Decoding(3), strength)


def test_what_makes_no_contrast_is_refused(teacher):
    with pytest.raises(StudyError, match="2 prompts, but 1 in `against`; give one each"):
        teacher.contrast(["A", "B"], ["C"], Decoding(3))
    with pytest.raises(StudyError, match="contrastive decoding is greedy; set 0"):
        teacher.contrast(["A"], ["B"], Decoding(3, temperature=0.7))
    with pytest.raises(StudyError, match="prompt 0 takes 1.* more than the context"):
        teacher.contrast(["A"], ["cow " * 1100], Decoding(3))
    assert teacher.contrast([], [], Decoding(3)) == []
