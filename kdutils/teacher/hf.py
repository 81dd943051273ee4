"""The backend ``hf``: a model of transformers as teacher, from a folder or the Hub."""

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from functools import cached_property, partial
from os.path import commonprefix
from pathlib import Path
from typing import TYPE_CHECKING

from kdutils.errors import StudyError, first_line
from kdutils.hub import (
    ADAPTER,
    check_vocabulary,
    device,
    find_model,
    load_weights,
    locate_model,
    quantization_of,
    read_config,
    read_tokenizer,
    unless_memory_runs_out,
)
from kdutils.runs import sha256
from kdutils.teacher.choices import QUANTIZATIONS
from kdutils.teacher.completion import Completion, Decoding, Keep, Progress
from kdutils.teacher.contrastive import contrast
from kdutils.teacher.prompting import read_template
from kdutils.teacher.thinking import answer_start, opens_thinking, special_marks, without_thinking

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

TODAY = datetime(2025, 1, 1)  # what a chat template that asks for the date is told
_DATE = re.compile(r"""strftime_now\(\s*(["'])(.*?)\1\s*\)""")
# The files of a model folder that determine what the model writes.
DECISIVE = ("*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json", "tokenizer*",
            "vocab*", "merges.txt", "*.model", "special_tokens_map.json", "added_tokens.json", "chat_template*",
            ADAPTER)
# The settings of a generation_config.json that are used; those of decoding (penalties, sampling) come from Decoding.
TOKEN_SETTINGS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "forced_bos_token_id")


class HfTeacher:
    """A model of transformers as teacher. It writes in batches and computes the shared prefix of all prompts once.

    Tokenizer and config are loaded at once, the weights with the first completion.
    """

    def __init__(self, model: str, quantization: str = "none", token_budget: int = 8192, chat: bool = False,
                 revision: str = "", thinking: str = "auto", system: str = "", chat_template: str = "") -> None:
        """Prepare `model` (a folder or Hub id): float32 on a CPU, bf16 on a GPU, or quantised by bitsandbytes.

        Only safetensors are read, and no code of the model's author is run. `token_budget`: tokens of a batch, padding
        and new tokens included; the shared prefix counts once. `chat`: each prompt becomes a user's message in the
        tokenizer's chat template, or in `chat_template` (a Jinja file), after the message `system`. `thinking`: on or
        off is handed to the template. `revision`: branch, tag or commit of a Hub id. Raises StudyError for a model that
        cannot be read, a vocabulary that does not belong to it, and a missing or broken chat template.
        """
        if quantization not in QUANTIZATIONS:
            raise StudyError(f"quantization: unknown '{quantization}'; known: {', '.join(QUANTIZATIONS)}")
        self.name, self.quantization, self.token_budget, self.chat = model, quantization, token_budget, chat
        self.revision = revision
        if revision and Path(locate_model(model, needs_weights=False)).is_dir():
            raise StudyError(f"revision: '{revision}' of the folder {model}; only a Hub id has revisions")
        self.location = find_model(model, revision=revision)
        if self.location.adapter and quantization != "none":
            raise StudyError(f"{self.location.name}: an adapter cannot be merged into quantised weights; set "
                             "quantization to none, or merge it (merge_and_unload), save the model and give that")
        self.config = read_config(self.location)
        given = quantization_of(self.config)
        if given and quantization not in ("none", _name_of(given)):
            raise StudyError(f"{model}: its weights are quantised already ({given.get('quant_method')}), not as "
                             f"{quantization}; set quantization to none")
        self.tokenizer = read_tokenizer(model, revision)
        rows = getattr(self.config.get_text_config(), "vocab_size", None) or len(self.tokenizer)
        self.without_row = check_vocabulary(model, self.tokenizer, rows)
        if chat_template:
            self.tokenizer.chat_template = read_template(chat_template)
        if chat and not self.tokenizer.chat_template:
            raise StudyError(f"{model}: the tokenizer has no chat template; set chat to false, give a chat_template or "
                             "take a chat model")
        self.thinking, self.system = thinking, system

    @cached_property
    def identity(self) -> dict:
        """Everything that could change what this teacher writes, as plain values; no weights are loaded for it."""
        from transformers.utils import cached_file

        identity = {"backend": "hf", "model": self.name, "quantization": self.quantization, "chat": self.chat,
                    "revision": self.revision, "dtype": "bfloat16" if device() == "cuda" else "float32"}
        where, revision = self.location.where, self.location.revision
        if not Path(where).is_dir():  # the Hub's cache has a folder per commit: .../snapshots/<commit>/config.json
            snapshot = Path(cached_file(where, "config.json", revision=revision or None)).parent
            identity["revision"] = snapshot.name if snapshot.parent.name == "snapshots" else revision
        else:
            identity["sha256"] = _sha256_of(where)
        if self.location.adapter:
            identity["adapter"] = _sha256_of(self.location.adapter)
        if self.chat:
            template = str(self.tokenizer.chat_template)
            identity["chat_template"] = hashlib.sha256(template.encode()).hexdigest()
            identity |= {"date": f"{TODAY:%Y-%m-%d}"} if "strftime_now" in template else {}
        given = {"thinking": self.thinking if self.thinking != "auto" else "", "system": self.system}
        identity |= {name: value for name, value in given.items() if value}
        return identity

    @cached_property
    def model(self) -> "PreTrainedModel":
        """The model in evaluation mode, loaded on first use."""
        import torch
        from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, BitsAndBytesConfig, GenerationConfig

        gpu = device() == "cuda"
        dtype = torch.bfloat16 if gpu else torch.float32
        settings = {
            "none": None,
            "int8": BitsAndBytesConfig(load_in_8bit=True),
            "nf4": BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype),
        }[self.quantization]
        auto_class = AutoModelForSeq2SeqLM if self.config.is_encoder_decoder else AutoModelForCausalLM
        settings = {"dtype": dtype, "quantization_config": settings, **({"device_map": "auto"} if gpu else {})}
        model = unless_memory_runs_out(load_weights, auto_class, self.location, config=self.config, **settings)
        if model is None:
            raise StudyError(f"{self.name}: the weights do not fit into memory; take a smaller model or quantization "
                             "nf4")
        given = model.generation_config
        if self.config.is_encoder_decoder and given.decoder_start_token_id is None and given.bos_token_id is None:
            raise StudyError(f"{self.name}: config.json names no decoder_start_token_id, so its decoder cannot begin; "
                             "add it there (0 for T5)")
        model.generation_config = GenerationConfig(**{name: getattr(given, name, None) for name in TOKEN_SETTINGS})
        return model.eval()

    @property
    def pad(self) -> int:
        """The id that fills up the rows of a batch; it is masked, so any token that the model knows is fine."""
        pad = self.tokenizer.pad_token_id
        return 0 if pad is None or pad in self.without_row.values() else pad

    @cached_property
    def shares_prefix(self) -> bool:
        """Whether the shared prefix of all prompts is computed once (prefix_decoding.shares_prefix)."""
        from kdutils.teacher.prefix_decoding import shares_prefix

        return shares_prefix(self.model)

    def count_tokens(self, prompts: list[str]) -> list[int]:
        """Return the number of tokens of each prompt, chat template included."""
        return [len(ids) for ids in self._encode(prompts)]

    def encode(self, prompts: list[str], new: int) -> list[list[int]]:
        """Return the token ids of each prompt; StudyError if one and `new` tokens do not fit into the context."""
        rows = self._encode(prompts)
        texts = [(prompt,) for prompt in prompts]
        self._check_lengths(texts, {text: (ids,) for text, ids in zip(texts, rows, strict=True)}, new)
        return rows

    def complete(self, prompts: list[str], decoding: Decoding, progress: Progress | None = None,
                 keep: Keep | None = None) -> list[Completion]:
        """Return one Completion per prompt, in their order (see completion.Teacher).

        Greedy decoding takes the most probable token; penalties in a model's generation_config.json are not applied.
        Raises StudyError naming the prompt that does not fit into the model's context, or when a single prompt does
        not fit into memory.
        """
        done = self.write([(prompt,) for prompt in prompts], decoding, lambda logits: logits[0], progress, keep)
        return [done[prompt,] for prompt in prompts]

    contrast = contrast

    def score(self, prompts: list[str], continuations: list[str], progress: Progress | None = None,
              keep: Keep | None = None) -> list[Completion]:
        """Return log p of the tokens of a text behind each prompt (see completion.Teacher)."""
        texts, encoded, forced = [(prompt,) for prompt in prompts], {}, {}
        for text, (before, behind) in zip(texts, self.split(prompts, continuations), strict=True):
            encoded[text], forced[text] = (before,), behind
        most = max(map(len, forced.values()), default=1)
        self._check_lengths(texts, encoded, most)
        done = self._run(_Scoring(self, encoded, Decoding(most), forced), texts, progress, keep)
        return [done[text] for text in texts]

    def split(self, prompts: list[str], continuations: list[str]) -> list[tuple[list[int], list[int]]]:
        """Return (token ids of the prompt, token ids of the text behind it) of each prompt.

        A causal model reads both as one text, because tokenizers treat the space between them in different ways.
        """
        rows = self._encode(prompts)
        if self.config.is_encoder_decoder:
            texts = [text.lstrip() for text in continuations]
            return list(zip(rows, self.tokenizer(text_target=texts, add_special_tokens=False)["input_ids"] if texts
                            else [], strict=True))
        if self.chat:
            prompts, continuations = [self.in_chat(one) for one in prompts], [text.lstrip() for text in continuations]
        texts = [prompt + text for prompt, text in zip(prompts, continuations, strict=True)]
        wholes = self.tokenizer(texts, add_special_tokens=not self.chat)["input_ids"] if texts else []
        shared = [len(commonprefix(both)) for both in zip(rows, wholes, strict=True)]
        return [(whole[:same], whole[same:]) for whole, same in zip(wholes, shared, strict=True)]

    def write(self, texts: list[tuple[str, ...]], decoding: Decoding,
              score: "Callable[[torch.Tensor], torch.Tensor]", progress: Progress | None = None,
              keep: Keep | None = None) -> dict[tuple[str, ...], Completion]:
        """Return {text: Completion} for `texts`, a list of tuples of prompts; equal ones are written once.

        The prompts of a tuple are the contexts of one completion. ``score`` turns the logits of the next token,
        [contexts, completions, vocabulary], into the scores [completions, vocabulary] by which the token is chosen.
        `progress` and `keep` as in completion.Teacher; `keep` gets the first prompt of the tuple.
        """
        _check(decoding)
        counts = Counter(texts)
        columns = [self._encode(column) for column in zip(*counts, strict=True)]
        encoded = dict(zip(counts, zip(*columns, strict=True), strict=True))
        self._check_lengths(texts, encoded, decoding.max_new_tokens)
        return self._run(_Call(self, encoded, decoding, score), texts, progress, keep)

    def _run(self, call, texts, progress, keep):
        """Return {text: Completion} of a _Call for `texts`, batch by batch."""
        counts, encoded = Counter(texts), call.encoded
        waiting = sorted(counts, key=lambda text: (max(map(len, encoded[text])), text))
        done, most = {}, len(waiting)
        while waiting:  # the longest first, so that a lack of memory shows at once
            batch = waiting[-min(most, call.rows(waiting)):]
            written = unless_memory_runs_out(call.write, batch)
            if written is None:
                most = len(batch) // 2
                if not most:
                    raise StudyError(f"{self.name}: memory is too small for one prompt of "
                                     f"{len(encoded[batch[0]][0])} tokens with {call.decoding.max_new_tokens} new "
                                     "ones; take a smaller model, quantization nf4 or shorter prompts")
                continue
            del waiting[-len(batch):]
            done |= written
            if keep:
                keep([(text[0], one) for text, one in written.items()])
            if progress:
                progress(sum(counts[text] for text in done), len(texts))
        return done

    def in_chat(self, prompt: str) -> str:
        """Return `prompt` as the user's message in the chat template, with the system message if there is one."""
        from jinja2 import TemplateError

        messages = [{"role": "system", "content": self.system}] if self.system else []
        # Templates name it in one of two ways, and ignore what they do not know.
        given = {} if self.thinking == "auto" else dict.fromkeys(("enable_thinking", "thinking"), self.thinking == "on")
        template = self.tokenizer.chat_template
        if "strftime_now" in str(template):  # the same prompt on every day, so that a run can be continued
            given["chat_template"] = _DATE.sub(lambda asked: repr(f"{TODAY:{asked[2]}}"), str(template))
        try:
            return self.tokenizer.apply_chat_template([*messages, {"role": "user", "content": prompt}], tokenize=False,
                                                      add_generation_prompt=True, **given)
        except TemplateError as error:
            raise StudyError(f"{self.name}: its chat template cannot take this prompt ({first_line(error)}); give "
                             "another chat_template, or leave `system` out") from None

    def _encode(self, prompts):
        """Return the token ids of each prompt, special tokens and chat template included."""
        if self.chat:
            prompts = [self.in_chat(prompt) for prompt in prompts]
        rows = self.tokenizer(list(prompts), add_special_tokens=not self.chat)["input_ids"] if prompts else []
        self._check_rows(rows)
        return rows

    def _check_rows(self, rows):
        """Raise StudyError where a prompt has a token for which the model's table has no row."""
        without = {number: token for token, number in self.without_row.items()}
        for place, ids in enumerate(rows if without else []):
            held = next((number for number in ids if number in without), None)
            if held is not None:
                raise StudyError(f"{self.name}: prompt {place} holds the token {without[held]!r}, which was added to "
                                 "the tokenizer without a row in the model's table; take it out of the prompt, or take "
                                 "a model whose table has been resized")

    def _check_lengths(self, texts, encoded, new):
        seq2seq = self.config.is_encoder_decoder
        context, too_long, error = _positions(self.config, "encoder"), [], None
        for row, text in enumerate(texts):
            for prompt, ids in zip(text, encoded[text], strict=True):
                needed = len(ids) + (0 if seq2seq else new)
                if not ids:
                    raise StudyError(f"{self.name}: prompt {row} is empty: there is no token to continue")
                if context and needed > context:
                    what, instead = ("", "") if seq2seq else (" with the new ones", ", lower max_new_tokens")
                    too_long.append(text[0])
                    error = error or StudyError(
                        f"{self.name}: prompt {row} takes {needed} tokens{what}, {needed - context} more than the "
                        f"context of {context}; it begins {prompt[:60]!r}; shorten it{instead}, or leave out "
                        "what does not fit (leave_out_too_long: true)")
        if error:
            error.prompts = error.too_long = list(dict.fromkeys(too_long))
            raise error
        room = _positions(self.config, "decoder")
        if seq2seq and room and new >= room:
            raise StudyError(f"{self.name}: max_new_tokens is {new}; the model writes {room - 1} at most")


class _Call:
    """One call of HfTeacher.write: what all its batches share."""

    def __init__(self, teacher, encoded, decoding, score):
        self.teacher, self.encoded, self.decoding, self.score = teacher, encoded, decoding, score

    @cached_property
    def endings(self):
        from kdutils.teacher.prefix_decoding import Endings

        tokenizer, ends = self.teacher.tokenizer, self.teacher.model.generation_config.eos_token_id
        ends = {tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])} - {None}
        return Endings(tokenizer, frozenset(ends), tuple(self.decoding.stop), self.decoding.max_new_tokens,
                       partial(answer_start, opened=self.opened) if self.teacher.chat else None,
                       special_marks(tokenizer) if self.teacher.chat else {})

    @cached_property
    def opened(self):
        """Whether the chat template begins the thinking, so that the text has its end alone."""
        return self.teacher.chat and opens_thinking(self.teacher.in_chat(next(iter(self.encoded))[0]))

    @cached_property
    def shared(self):
        """The tokens of the shared prefix of all prompts."""
        from kdutils.teacher.prefix_decoding import shared_length

        rows = [ids for contexts in self.encoded.values() for ids in contexts]
        return rows[0][:shared_length(rows)] if self.teacher.shares_prefix else []

    @cached_property
    def prefix(self):
        from kdutils.teacher.prefix_decoding import read_prefix

        return read_prefix(self.teacher.model, self.shared)

    def rows(self, waiting):
        """Return how many texts at the end of `waiting` form the next batch; batches are of about equal size."""
        longest = self.encoded[waiting[-1]]
        width = max(map(len, longest)) - len(self.shared) + self.decoding.max_new_tokens
        fitting = max(1, (self.teacher.token_budget - len(self.shared)) // (len(longest) * width))
        if getattr(self.teacher.model, "_is_stateful", False):  # padding would change a state: rows of one length
            lengths = [list(map(len, self.encoded[text])) for text in waiting]
            return min(fitting, lengths.count(lengths[-1]))
        return math.ceil(len(waiting) / math.ceil(len(waiting) / fitting))

    def write(self, batch):
        """Return {text: Completion} of a batch."""
        from kdutils.teacher import prefix_decoding

        teacher, decoding = self.teacher, self.decoding
        drafts = [prefix_decoding.Draft(self.endings, f"{decoding.seed} {decoding.sample} {text[0]}") for text in batch]

        def choose(logits, drafts):
            return prefix_decoding.next_tokens(self.score(logits), drafts, decoding.temperature, decoding.top_p)

        self.write_drafts(batch, drafts, choose)
        done = {text: Completion(draft.text, draft.finish_reason, len(self.encoded[text][0]), len(draft.ids))
                for text, draft in zip(batch, drafts, strict=True)}
        return {text: without_thinking(one, self.opened) for text, one in done.items()} if teacher.chat else done

    def write_drafts(self, batch, drafts, choose):
        """Write the drafts of a batch to their end; ``choose`` as in prefix_decoding."""
        from kdutils.teacher import prefix_decoding

        teacher = self.teacher
        contexts = [[ids[len(self.shared):] for ids in column]
                    for column in zip(*(self.encoded[text] for text in batch), strict=True)]
        if teacher.shares_prefix:
            prefix_decoding.write_after_prefix(teacher.model, self.prefix, contexts, drafts, choose)
        else:
            prefix_decoding.write_plainly(teacher.model, contexts, drafts, choose, teacher.pad)


class _Scoring(_Call):
    """One call of HfTeacher.score: drafts whose tokens are given, so that only their log p is new."""

    def __init__(self, teacher, encoded, decoding, forced):
        super().__init__(teacher, encoded, decoding, None)
        self.forced = forced

    def write(self, batch):
        """Return {text: Completion} of a batch."""
        from kdutils.teacher.prefix_decoding import Draft, Endings

        batch = sorted(batch, key=lambda text: -len(self.forced[text]))  # the first draft has room for all
        drafts = {Draft(Endings(None, frozenset(), (), len(self.forced[text]))): text for text in batch}
        found = {text: [] for text in batch}

        def choose(logits, live):
            tokens = [self.forced[drafts[draft]][-1 if draft.finish_reason else len(draft.ids)] for draft in live]
            log_p = logits[0].float().log_softmax(-1).gather(1, logits.new_tensor(tokens, dtype=int)[:, None])[:, 0]
            for draft, value in zip(live, log_p.tolist(), strict=True):
                if not draft.finish_reason:
                    found[drafts[draft]].append(value)
            return tokens

        self.write_drafts(batch, list(drafts), choose)
        return {text: Completion(json.dumps(found[text]), "stop", len(self.encoded[text][0]), 0) for text in batch}


def _name_of(given):
    """Return the QUANTIZATIONS entry of a config's quantised weights, "" for other methods."""
    four = given.get("load_in_4bit") and given.get("bnb_4bit_quant_type") == "nf4"
    return "nf4" if four else "int8" if given.get("load_in_8bit") else ""


def _sha256_of(folder):
    """Return the SHA-256 over the names and contents of a model folder's DECISIVE files."""
    files = sorted({path for pattern in DECISIVE for path in Path(folder).glob(pattern) if path.is_file()})
    return hashlib.sha256("".join(f"{sha256(path)}  {path.name}\n" for path in files).encode()).hexdigest()


def _positions(config, half):
    """Return the number of positions of a model, or of that half of an encoder-decoder; None for no limit."""
    part = getattr(config, half, None) if config.is_encoder_decoder else None
    return getattr(part or config.get_text_config(), "max_position_embeddings", None)


def _check(decoding):
    if isinstance(decoding.stop, str) or not all(decoding.stop):
        raise StudyError(f"stop: {decoding.stop!r} is not a list of non-empty texts")
    if decoding.max_new_tokens < 1 or decoding.temperature < 0 or not 0 < decoding.top_p <= 1:
        raise StudyError(f"decoding: max_new_tokens {decoding.max_new_tokens}, temperature {decoding.temperature} and "
                         f"top_p {decoding.top_p} must be at least 1, at least 0, and above 0 up to 1")
