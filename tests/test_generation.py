"""Decoding after a shared prefix: equal to the library's plain calls on one prompt at a time, whatever the batch."""

import json
import os
import random
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from kdutils.errors import StudyError
from kdutils.teacher import prefix_decoding
from kdutils.teacher.completion import Decoding
from kdutils.teacher.hf import HfTeacher
from kdutils.teacher.prefix_decoding import Draft, Endings, Prefix

MINI = str(Path(__file__).parents[1] / "kdutils" / "mini" / "teacher")
SMALL = {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
GQA = {**SMALL, "num_key_value_heads": 2}
SHARED = {  # family -> shape; the prefix is read once
    "Llama": GQA, "Qwen3": {**GQA, "head_dim": 16}, "GPT2": {"n_embd": 48, "n_layer": 2, "n_head": 4}, "GPTNeoX": SMALL,
    "OPT": {"hidden_size": 48, "word_embed_proj_dim": 48, "ffn_dim": 64, "num_hidden_layers": 2,
            "num_attention_heads": 4},
    "Qwen3Moe": {**GQA, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
}
PLAIN = {  # family -> shape and why its prompts are read whole
    "Mistral": {**GQA, "sliding_window": 16},  # keys fall out of the window
    "Gemma2": {**GQA, "head_dim": 16, "layer_types": ["full_attention"] * 2},  # scores are capped
    "Mamba": {"hidden_size": 48, "num_hidden_layers": 2},  # a state and no keys
    "Bloom": {"hidden_size": 48, "n_layer": 2, "n_head": 4},  # its own attention, biased by distance
    "T5": {"d_model": 48, "d_kv": 12, "d_ff": 64, "num_layers": 2, "num_heads": 4},  # encoder and decoder
    "Bart": {"d_model": 48, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 4,
             "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64,
             "max_position_embeddings": 200},
}
HEAD = "Question: Which of these is an animal and is often grey?\nChoices: (a) rake (b) mouse\nAnswer: mouse.\n\n"
PROMPTS = [HEAD + end for end in ("Question: What has seeds?", "Question: Which of these is yellow and has a handle?",
                                  "Question:", "Question: What is found in the field and is good for soup, a bus or",
                                  "Answer")]


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory):
    """Return a function that writes a model of random weights with the mini tokenizer: family -> folder."""
    @cache
    def write(family, **changes):
        torch.manual_seed(1)
        tokenizer = transformers.AutoTokenizer.from_pretrained(MINI)
        shape = {"vocab_size": len(tokenizer), "bos_token_id": None, "pad_token_id": 0, "eos_token_id": 1,
                 **(SHARED | PLAIN)[family], **changes}
        if family in ("T5", "Bart"):
            shape |= {"decoder_start_token_id": 0}
        config = getattr(transformers, f"{family}Config")(**shape)
        auto = (transformers.AutoModelForSeq2SeqLM if config.is_encoder_decoder else transformers.AutoModelForCausalLM)
        model = auto.from_config(config)
        for parameter in model.parameters():
            if parameter.dim() > 1:  # far from nothing, so that every token before makes a difference
                torch.nn.init.normal_(parameter, std=0.2)
        folder = tmp_path_factory.mktemp(family)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return str(folder)

    return write


@pytest.fixture(scope="module")
def mini():
    return HfTeacher(MINI)


def alone(teacher, prompt, limit, stop=()):
    """Return what the library's plain call writes after one prompt, cut at the first of `stop`."""
    ids = teacher.tokenizer(prompt, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        out = teacher.model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False,
                                     max_new_tokens=limit, pad_token_id=0)[0]
    new = (out if teacher.config.is_encoder_decoder else out[ids.shape[1]:]).tolist()
    ends = teacher.model.generation_config.eos_token_id
    ends = [place for place, token in enumerate(new) if token in (ends if isinstance(ends, list) else [ends])]
    text = teacher.tokenizer.decode(new[:min(ends, default=len(new))], skip_special_tokens=True)
    return text[:min((text.find(mark) for mark in stop if mark in text), default=len(text))]


def texts(completions):
    return [one.text for one in completions]


@pytest.mark.parametrize("family", [*SHARED, *PLAIN])
def test_every_family_writes_what_the_library_writes_after_one_prompt(folder_of, family):
    """Unlike lengths in small batches, a prompt twice; the route is the one that is right for the family."""
    teacher = HfTeacher(folder_of(family), token_budget=180)
    assert teacher.shares_prefix == (family in SHARED)
    prompts = [*PROMPTS, PROMPTS[1]]
    done = teacher.complete(prompts, Decoding(12))
    assert texts(done) == [alone(teacher, prompt, 12) for prompt in prompts]
    assert len(set(texts(done))) > 2, "a model that does not look at its prompt tests nothing"
    assert [one.prompt_tokens for one in done] == [len(teacher.tokenizer(prompt)["input_ids"]) for prompt in prompts]


@pytest.mark.parametrize("family", [family for family in SHARED if family != "Qwen3Moe"])  # torch: not in double
def test_logits_are_those_of_the_whole_prompt(folder_of, family):
    """In double precision, at every step, for rows of unlike length, some of which leave on the way."""
    teacher = HfTeacher(folder_of(family))
    model, rows = teacher.model.double(), teacher.tokenizer(PROMPTS)["input_ids"]
    shared, seen, draw = prefix_decoding.shared_length(rows), [], random.Random(0)
    lengths = dict(zip(range(len(rows)), (3, 1, 6, 2, 6), strict=True))
    drafts = [Draft(Endings(None, frozenset([1]), (), 6)) for _ in rows]

    def choose(logits, live):
        places = [next(at for at, one in enumerate(drafts) if one is draft) for draft in live]
        tokens = [1 if len(drafts[at].ids) == lengths[at] else draw.randrange(2, 300) for at in places]
        seen.append([(at, list(drafts[at].ids), logits[0, row]) for row, at in enumerate(places)])
        return tokens

    prefix_decoding.write_after_prefix(model, prefix_decoding.read_prefix(model, rows[0][:shared]),
                                  [[row[shared:] for row in rows]], drafts, choose)
    assert [len(step) for step in seen] == [5, 5, 4, 3, 2, 2]
    for at, written, logits in (one for step in seen for one in step):
        with torch.inference_mode():
            whole = model(input_ids=torch.tensor([rows[at] + written])).logits[0, -1]
        torch.testing.assert_close(logits, whole, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("heads", "key_heads", "new", "own", "prefix"),
                         [(4, 4, 1, 9, 30), (4, 2, 1, 9, 30), (4, 1, 40, 40, 200), (4, 4, 5, 7, 0)])
def test_attention_equals_the_librarys_over_all_keys(heads, key_heads, new, own, prefix):
    """Against scaled_dot_product_attention over prefix and own keys together; also where rows are taken in pieces."""
    rows, size = 40, 8
    torch.manual_seed(0)
    query = torch.randn(rows, heads, new, size, dtype=torch.double)
    key, value = torch.randn(2, rows, key_heads, own, size, dtype=torch.double)
    keys, values = torch.randn(2, key_heads, prefix, size, dtype=torch.double)
    mask = torch.zeros(rows, 1, new, own, dtype=torch.double)
    mask[::3, :, :, :own // 2 - 1] = torch.finfo(torch.double).min
    module = torch.nn.Module()
    module.layer_idx = 0
    read = Prefix(tuple(range(prefix)), [keys], [values])
    out, _ = prefix_decoding.attend(module, query, key, value, mask, 0.3, read)
    whole_keys, whole_values = (torch.cat([every.expand(rows, -1, -1, -1), one], dim=2)
                                for every, one in ((keys, key), (values, value)))
    expected = torch.nn.functional.scaled_dot_product_attention(
        query, whole_keys, whole_values, attn_mask=torch.nn.functional.pad(mask, (prefix, 0)), scale=0.3,
        enable_gqa=True).transpose(1, 2)
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)


def test_attention_refuses_what_it_does_not_compute():
    with pytest.raises(NotImplementedError, match="attention with softcap"):
        prefix_decoding.attend(None, None, None, None, None, softcap=30.0)


@pytest.mark.parametrize("prompts", [
    ["A cow is"], ["A cow is"] * 3, ["A cow is", "A cow is often"], ["A cow", "Which of these", "Question"],
    ["A", "A", "A cow"], ["A"],
], ids=["one prompt", "all equal", "one begins another", "nothing in common", "one token", "one token alone"])
def test_whatever_the_prompts_have_in_common(mini, prompts):
    assert texts(mini.complete(prompts, Decoding(15))) == [alone(mini, prompt, 15) for prompt in prompts]


def test_no_prompt_no_completion(mini):
    assert mini.complete([], Decoding(5)) == [] and mini.count_tokens([]) == []


@pytest.mark.parametrize(("rows", "length"), [([[1, 2, 3], [1, 2, 4]], 2), ([[1, 2], [1, 2, 3]], 1), ([[1], [1, 2]], 0),
                                              ([[4, 2], [1, 2]], 0), ([[1, 2, 3]] * 3, 2), ([[7]], 0)])
def test_the_shared_length_leaves_each_prompt_a_token(rows, length):
    assert prefix_decoding.shared_length(rows) == length


def test_the_prefix_runs_through_the_model_once(mini, monkeypatch):
    """Counted at the embedding: shared tokens once, own tokens (and their padding) once, then one token per row."""
    seen = []
    hook = mini.model.get_input_embeddings().register_forward_hook(lambda _, ids, out: seen.append(tuple(ids[0].shape)))
    rows = mini.tokenizer(PROMPTS)["input_ids"]
    shared, longest = prefix_decoding.shared_length(rows), max(map(len, rows))
    assert mini.shares_prefix  # its trial is not to be counted
    seen.clear()
    mini.complete(PROMPTS, Decoding(3))
    hook.remove()
    assert shared > 30 and seen == [(1, shared), (len(rows), longest - shared), (len(rows), 1), (len(rows), 1)]


def test_finished_rows_leave_the_batch_and_stop_no_other(mini, monkeypatch):
    full = mini.complete(PROMPTS, Decoding(40))
    mark = full[0].text.split()[2]
    live, take = [], prefix_decoding.next_tokens
    monkeypatch.setattr(prefix_decoding, "next_tokens",
                        lambda scores, *rest: live.append(len(scores)) or take(scores, *rest))
    done = mini.complete(PROMPTS, Decoding(40, (mark, "\n\n")))
    assert texts(done) == [alone(mini, prompt, 40, (mark, "\n\n")) for prompt in PROMPTS]
    assert live[0] == len(PROMPTS) > live[-1] and live == sorted(live, reverse=True)
    assert {one.finish_reason for one in done} <= {"stop", "length"} and done[0].finish_reason == "stop"


def test_an_end_token_ends_a_row_and_is_not_counted(mini):
    plain = mini.complete(PROMPTS, Decoding(20))
    ids = mini.tokenizer(plain[0].text)["input_ids"]
    before = mini.model.generation_config.eos_token_id
    mini.model.generation_config.eos_token_id = [1, ids[4]]
    try:
        done = mini.complete(PROMPTS, Decoding(20))
        assert texts(done) == [alone(mini, prompt, 20) for prompt in PROMPTS]
    finally:
        mini.model.generation_config.eos_token_id = before
    first = ids.index(ids[4])
    assert (done[0].finish_reason, done[0].completion_tokens) == ("stop", first)
    assert done[0].text == mini.tokenizer.decode(ids[:first])


def spaced_tokenizer():
    """Return a tokenizer that, as Llama 2's, writes a space as ▁ before a word and drops the first one."""
    pieces = ["▁a", "▁b", "a", "b", "▁", ".", "\n", "ab", "▁b.", "<pad>"]
    tokenizer = Tokenizer(models.WordLevel({piece: at for at, piece in enumerate(pieces)}, unk_token="<pad>"))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>"), range(9)


def byte_tokenizer():
    """Return the mini tokenizer and tokens of it: bytes of which two are one character, and line ends."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(MINI)
    return tokenizer, [*tokenizer("é\n\n.ü a")["input_ids"], *tokenizer(" cow")["input_ids"]]


@pytest.mark.parametrize("make", [spaced_tokenizer, byte_tokenizer])
@pytest.mark.parametrize("stop", [("\n\n",), ("a b",), (" b",), ("a ",), (".", "b a"), ("é", "ü"), ("\n", "é.")])
def test_a_stop_text_is_found_at_the_token_that_completes_it(make, stop):
    """Against decoding and searching the whole text after every token, on random tokens."""
    tokenizer, tokens = make()
    draw = random.Random(0)
    for _ in range(60):
        drawn = draw.choices(tokens, k=12)
        draft = Draft(Endings(tokenizer, frozenset(), stop, 12))
        for token in drawn:
            draft.add(token)
        ends = [length for length in range(1, 13) if any(mark in tokenizer.decode(drawn[:length]) for mark in stop)]
        assert draft.ids == drawn[:min(ends, default=12)]
        assert draft.finish_reason == ("stop" if ends else "length")
        assert not any(mark in draft.text for mark in stop) and tokenizer.decode(drawn).startswith(draft.text)


def test_the_text_is_decoded_only_where_a_stop_text_may_end(mini):
    class Counting:
        calls = 0

        def decode(self, ids, **settings):
            Counting.calls += len(ids) > 1
            return mini.tokenizer.decode(ids, **settings)

    ids = mini.tokenizer("A cow is an animal. A cow is often white.")["input_ids"]
    draft = Draft(Endings(Counting(), frozenset(), ("\n\n",), 100))
    for token in ids * 5:
        draft.add(token)
    assert len(draft.ids) == 5 * len(ids) and Counting.calls == 0


def test_sampling_depends_on_seed_sample_and_prompt_and_not_on_the_batch(mini, folder_of):
    warm = Decoding(12, (), 1.2, 0.95, seed=3)
    together = texts(mini.complete(PROMPTS, warm))
    for teacher, prompts in ((HfTeacher(MINI, token_budget=1), PROMPTS), (mini, PROMPTS[::-1]), (mini, PROMPTS[1:4])):
        written = dict(zip(prompts, texts(teacher.complete(prompts, warm)), strict=True))
        assert all(together[PROMPTS.index(prompt)] == text for prompt, text in written.items())
    assert together != texts(mini.complete(PROMPTS, Decoding(12, (), 1.2, 0.95, seed=3, sample=1)))
    assert together != texts(mini.complete(PROMPTS, Decoding(12, (), 1.2, 0.95, seed=4)))
    assert together != texts(mini.complete(PROMPTS, Decoding(12)))
    plain = HfTeacher(folder_of("Mistral"), token_budget=1), HfTeacher(folder_of("Mistral"))
    assert texts(plain[0].complete(PROMPTS, warm)) == texts(plain[1].complete(PROMPTS, warm))


@pytest.mark.parametrize("top_p", [1.0, 0.8])
def test_tokens_are_drawn_as_often_as_they_are_probable(top_p):
    """20,000 draws against softmax(scores / temperature), cut to the smallest set that reaches top_p."""
    from scipy.stats import chisquare

    scores = torch.tensor([1.0, 3.0, -1.0, 2.5, 0.0, 2.0])
    chances = (scores.double() / 1.5).softmax(0)
    order = chances.argsort(descending=True)
    kept = order[: 1 + int((chances[order].cumsum(0) < top_p - 1e-12).sum())]
    expected = torch.zeros_like(chances).scatter(0, kept, chances[kept])
    drafts = [Draft(Endings(None, frozenset(), (), 1), f"{number}") for number in range(20_000)]
    drawn = prefix_decoding.next_tokens(scores.expand(20_000, -1), drafts, 1.5, top_p)
    counts = torch.tensor(drawn).bincount(minlength=6)
    assert (counts[expected == 0] == 0).all() and (len(kept) < 6) == (top_p < 1)
    assert chisquare(counts[kept], 20_000 * expected[kept] / expected.sum()).pvalue > 1e-3


def short_of_memory(monkeypatch, most, error, name="write_after_prefix"):
    """Let batches of more than `most` rows fail with `error`; return the list of the sizes that were tried."""
    tried, write = [], getattr(prefix_decoding, name)

    def limited(model, prefix, contexts, drafts, choose):
        tried.append(len(drafts))
        if len(drafts) > most:
            raise error
        return write(model, prefix, contexts, drafts, choose)

    monkeypatch.setattr(prefix_decoding, name, limited)
    return tried


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError(),
                                   RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate")])
def test_where_memory_runs_out_the_batch_is_halved(mini, monkeypatch, error):
    expected = mini.complete(PROMPTS, Decoding(6))
    tried = short_of_memory(monkeypatch, 1, error)
    kept = []
    assert mini.complete(PROMPTS, Decoding(6), keep=kept.extend) == expected
    assert tried == [5, 2, 1, 1, 1, 1, 1] and len(kept) == 5


def test_memory_that_does_not_suffice_for_one_prompt_is_told(mini, monkeypatch):
    short_of_memory(monkeypatch, 0, torch.OutOfMemoryError("out of memory"))
    with pytest.raises(StudyError, match=r"memory is too small for one prompt of \d+ tokens with 6 new ones; take"):
        mini.complete(PROMPTS, Decoding(6))


def test_another_error_is_not_taken_for_a_lack_of_memory(mini, monkeypatch):
    short_of_memory(monkeypatch, 0, RuntimeError("sizes do not match"))
    with pytest.raises(RuntimeError, match="sizes do not match"):
        mini.complete(PROMPTS, Decoding(6))


def test_the_model_attends_as_before_when_a_call_has_failed(mini):
    before = mini.model.config._attn_implementation

    def fail(logits, drafts):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prefix_decoding.write_after_prefix(mini.model, prefix_decoding.read_prefix(mini.model, [5]), [[[6]]],
                                      [Draft(Endings(None, frozenset(), (), 2))], fail)
    assert mini.model.config._attn_implementation == before != prefix_decoding.NAME


def test_progress_and_what_is_kept_come_batch_by_batch():
    teacher, steps, kept = HfTeacher(MINI, token_budget=90), [], []
    done = teacher.complete([*PROMPTS, PROMPTS[0]], Decoding(8), lambda *step: steps.append(step), kept.append)
    assert len(steps) == len(kept) > 1 and steps[-1] == (6, 6) and sorted(set(steps)) == steps
    assert dict(sum(kept, [])) == dict(zip(PROMPTS, done, strict=False)) and sum(map(len, kept)) == len(PROMPTS)


def test_a_batch_holds_what_the_budget_says(mini, monkeypatch):
    """The shared tokens once, own and new tokens per row; the batches are of like size."""
    sizes, write = [], prefix_decoding.write_after_prefix
    monkeypatch.setattr(prefix_decoding, "write_after_prefix",
                        lambda model, prefix, contexts, drafts, choose: sizes.append(
                            len(prefix.ids) + len(drafts) * (max(map(len, contexts[0])) + 10))
                        or write(model, prefix, contexts, drafts, choose))
    HfTeacher(MINI, token_budget=120).complete(PROMPTS, Decoding(10))
    assert len(sizes) > 1 and max(sizes) <= 120


def test_quantised_weights_write_what_the_library_writes():
    teacher = HfTeacher(MINI, "nf4")
    assert teacher.shares_prefix
    assert texts(teacher.complete(PROMPTS, Decoding(10))) == [alone(teacher, prompt, 10) for prompt in PROMPTS]
    assert HfTeacher(MINI, "int8").shares_prefix


def test_the_identity_tells_models_apart_without_loading_one(folder_of, tmp_path):
    def identity_after(change, **settings):
        folder = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        shutil.copytree(folder_of("Llama"), folder)
        change(folder)
        teacher = HfTeacher(str(folder), **settings)
        identity = {**teacher.identity, "model": ""}
        assert "model" not in teacher.__dict__, "the weights were loaded"
        return identity

    def append(name):
        return lambda folder: (folder / name).write_bytes((folder / name).read_bytes() + b" ")

    def other_weight(folder):
        path = folder / "model.safetensors"
        path.write_bytes(path.read_bytes()[:-1] + b"\x01")

    same = identity_after(lambda folder: None)
    assert same == identity_after(lambda folder: (folder / "README.md").write_text("words"))
    assert {"backend", "model", "revision", "sha256", "quantization", "chat", "dtype"} <= set(same)
    changed = [identity_after(append(name)) for name in ("config.json", "tokenizer.json")]
    changed += [identity_after(other_weight)]
    changed += [identity_after(lambda folder: None, quantization="nf4"), same]
    for text in ("{{ messages }}", "{{ messages[0] }}"):
        changed.append(identity_after(lambda folder, text=text: (folder / "chat_template.jinja").write_text(text),
                                      chat=True))
    assert all(one != other for at, one in enumerate(changed) for other in changed[:at])


def test_in_a_chat_the_prompt_is_the_message_of_a_user(folder_of, tmp_path):
    shutil.copytree(folder_of("Llama"), tmp_path / "chat")
    (tmp_path / "chat" / "chat_template.jinja").write_text(
        "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}")
    teacher = HfTeacher(str(tmp_path / "chat"), chat=True)
    laid_out = [f"[user] {prompt}\n[assistant]" for prompt in PROMPTS]
    assert texts(teacher.complete(PROMPTS, Decoding(8))) == [alone(teacher, text, 8) for text in laid_out]
    assert teacher.count_tokens(PROMPTS) == [len(teacher.tokenizer(text)["input_ids"]) for text in laid_out]
    with pytest.raises(StudyError, match="no chat template; set chat to false"):
        HfTeacher(MINI, chat=True)


def test_a_penalty_of_the_models_own_settings_is_not_applied(folder_of, tmp_path):
    for family in ("Llama", "Mistral"):
        shutil.copytree(folder_of(family), tmp_path / family)
        transformers.GenerationConfig(repetition_penalty=3.0, do_sample=True, temperature=5.0, eos_token_id=1,
                                      pad_token_id=0).save_pretrained(tmp_path / family)
        plain, changed = HfTeacher(folder_of(family)), HfTeacher(str(tmp_path / family))
        assert texts(changed.complete(PROMPTS, Decoding(8))) == texts(plain.complete(PROMPTS, Decoding(8)))


def test_what_does_not_fit_is_named(mini, folder_of):
    with pytest.raises(StudyError, match=r"prompt 1 takes 1\d+ tokens .* the context of 1024; it begins 'cow cow"):
        mini.complete(["A", "cow " * 1020], Decoding(8))
    with pytest.raises(StudyError, match="prompt 1 is empty"):
        mini.complete(["A", ""], Decoding(8))
    bart = HfTeacher(folder_of("Bart"))
    told = r"prompt 0 takes \d+ tokens, \d+ more than .* of 200; .* shorten it, or leave out"
    with pytest.raises(StudyError, match=told):
        bart.complete(["cow " * 250], Decoding(8))
    with pytest.raises(StudyError, match="max_new_tokens is 300; the model writes 199 at most"):
        bart.complete(["cow"], Decoding(300))
    assert HfTeacher(folder_of("T5")).complete(["cow " * 600], Decoding(3))  # relative positions: no limit


@pytest.mark.parametrize("wrong", [{"max_new_tokens": 0}, {"temperature": -1.0}, {"top_p": 0.0}, {"top_p": 1.5}])
def test_a_decoding_that_cannot_be_is_refused(mini, wrong):
    with pytest.raises(StudyError, match="decoding: max_new_tokens"):
        mini.complete(["A"], Decoding(**{"max_new_tokens": 3, **wrong}))


@pytest.mark.parametrize("stop", ["\n\n", ("a", "")])
def test_stop_texts_that_would_stop_everything_are_refused(mini, stop):
    with pytest.raises(StudyError, match="is not a list of non-empty texts"):
        mini.complete(["A"], Decoding(3, stop))


def test_a_vocabulary_that_is_not_the_models_is_refused(folder_of, tmp_path):
    shutil.copytree(folder_of("Llama", vocab_size=500), tmp_path / "small")
    with pytest.raises(StudyError, match="the tokenizer has 967 tokens, the model knows 500"):
        HfTeacher(str(tmp_path / "small"))
    shutil.copytree(folder_of("Llama"), tmp_path / "few")
    spaced_tokenizer()[0].save_pretrained(tmp_path / "few")
    with pytest.raises(StudyError, match="the tokenizer has 10 tokens only; its vocabulary was not loaded"):
        HfTeacher(str(tmp_path / "few"))


def test_files_that_are_broken_are_named(folder_of, tmp_path):
    shutil.copytree(folder_of("Llama"), tmp_path / "cut")
    weights = tmp_path / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(StudyError, match=r"cut: cannot be loaded \(.*; give a complete model folder"):
        HfTeacher(str(tmp_path / "cut")).complete(["A"], Decoding(2))
    (tmp_path / "cut" / "config.json").write_text("{")
    with pytest.raises(StudyError, match="cut: cannot be loaded"):
        HfTeacher(str(tmp_path / "cut"))
    with pytest.raises(StudyError, match="revision: 'main' of the folder .*; only a Hub id has"):
        HfTeacher(MINI, revision="main")


def test_a_model_of_the_hub_is_known_by_its_commit(tmp_path):
    """In a process of its own, as the place of the Hub's cache is read once; its layout is made by hand."""
    commit, cache = "a" * 40, tmp_path / "hub" / "models--me--mini"
    shutil.copytree(MINI, cache / "snapshots" / commit)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(commit)
    code = "import json; from kdutils.teacher.hf import HfTeacher; print(json.dumps(HfTeacher('me/mini').identity))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                         env={**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}).stdout
    assert json.loads(out.splitlines()[-1])["revision"] == commit


def test_a_model_that_the_hub_does_not_give_is_named():
    with pytest.raises(StudyError, match=r"nobody/nothing: cannot be loaded \(.*; give a complete model folder"):
        HfTeacher("nobody/nothing")
