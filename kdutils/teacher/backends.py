"""Backends reach a teacher: texts in, texts out, with finish reason and token counts.

``hf``: any causal or sequence-to-sequence model of transformers, from a folder or the Hub (here).
``published``: what the authors of arXiv 2504.16056 published (published.py); it needs no prompts.
"""

from dataclasses import dataclass

from kdutils.data.sources import locate_model
from kdutils.errors import StudyError

QUANTIZATIONS = ("none", "int8", "nf4")


@dataclass(frozen=True)
class Completion:
    """What a teacher wrote after one prompt; `finish_reason` is stop (by itself) or length (cut off)."""

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int


class HfTeacher:
    """A model of transformers as teacher: greedy completions, batched by padded tokens."""

    def __init__(self, model, quantization="none", token_budget=8192):
        """Load `model` (a folder or Hub id) in float32 on a CPU, in bf16 on a GPU, or quantised by bitsandbytes.

        Only safetensors are read and no code of the model's author is run. `token_budget`: tokens of a batch,
        padding and new ones included.
        """
        from transformers import AutoConfig, AutoTokenizer

        where = locate_model(model)
        shape = AutoConfig.from_pretrained(where, trust_remote_code=False)
        self.name, self.token_budget, self.seq2seq = model, token_budget, shape.is_encoder_decoder
        self.tokenizer = AutoTokenizer.from_pretrained(where, trust_remote_code=False)
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.model = _load(where, self.seq2seq, quantization).eval()
        self.context = getattr(shape, "max_position_embeddings", None)

    def complete(self, prompts, max_new_tokens, stop=(), progress=None):
        """Return one Completion per prompt, in their order.

        Equal prompts are run once. Each sequence ends by itself: with the model's end token or with one of
        the `stop` texts, which is cut off; one finished sequence never stops the others. `progress` is called
        with (done, all). Raises StudyError naming the prompt that does not fit into the model's context.
        """
        distinct = sorted(set(prompts))
        encoded = dict(zip(distinct, self.tokenizer(distinct)["input_ids"], strict=True)) if distinct else {}
        self._check_lengths(prompts, encoded, max_new_tokens)
        waiting = sorted(distinct, key=lambda prompt: (len(encoded[prompt]), prompt))
        written = {}
        while waiting:
            size = max(1, self.token_budget // (len(encoded[waiting[-1]]) + max_new_tokens))
            batch, waiting = waiting[-size:], waiting[:-size]
            written |= zip(batch, self._complete_batch([encoded[p] for p in batch], max_new_tokens, stop), strict=True)
            if progress:
                progress(len(written), len(distinct))
        return [written[prompt] for prompt in prompts]

    def _check_lengths(self, prompts, encoded, max_new_tokens):
        for row, prompt in enumerate(prompts):
            needed = len(encoded[prompt]) + (0 if self.seq2seq else max_new_tokens)
            if self.context and needed > self.context:
                raise StudyError(f"{self.name}: prompt {row} takes {needed} tokens with what is to be written, "
                                 f"{needed - self.context} more than the context of {self.context}")

    def _complete_batch(self, ids, max_new_tokens, stop):
        import torch

        inputs = self.tokenizer.pad({"input_ids": ids}, padding_side="left", return_tensors="pt").to(self.model.device)
        stopping = {"stop_strings": list(stop), "tokenizer": self.tokenizer} if stop else {}
        with torch.no_grad():
            out = self.model.generate(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"],
                                      do_sample=False, num_beams=1, max_new_tokens=max_new_tokens,
                                      pad_token_id=self.tokenizer.pad_token_id, **stopping)
        new = out if self.seq2seq else out[:, inputs["input_ids"].shape[1]:]
        return [self._completion(row.tolist(), len(prompt), stop) for row, prompt in zip(new, ids, strict=True)]

    def _completion(self, ids, prompt_tokens, stop):
        ends = [i for i, token in enumerate(ids) if token == self.tokenizer.eos_token_id]
        kept = ids[:ends[0]] if ends else ids
        text = self.tokenizer.decode(kept, skip_special_tokens=True)
        cuts = [text.find(mark) for mark in stop if mark in text]
        finished = bool(ends) or bool(cuts)
        padding = 0 if ends else sum(1 for token in kept if token == self.tokenizer.pad_token_id)
        return Completion(text[:min(cuts)] if cuts else text, "stop" if finished else "length", prompt_tokens,
                          len(kept) - padding)


def _load(where, seq2seq, quantization):
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, BitsAndBytesConfig

    if quantization not in QUANTIZATIONS:
        raise StudyError(f"quantization: unknown '{quantization}'; known: {', '.join(QUANTIZATIONS)}")
    auto_class = AutoModelForSeq2SeqLM if seq2seq else AutoModelForCausalLM
    gpu = torch.cuda.is_available()
    dtype = torch.bfloat16 if gpu else torch.float32
    settings = {
        "none": None,
        "int8": BitsAndBytesConfig(load_in_8bit=True),
        "nf4": BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype),
    }[quantization]
    placement = {"device_map": "auto"} if gpu else {}
    return auto_class.from_pretrained(where, dtype=dtype, quantization_config=settings, use_safetensors=True,
                                      trust_remote_code=False, **placement)
