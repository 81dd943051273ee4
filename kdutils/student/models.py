"""Students: encoder-decoders, causal models and, for comparison, classifiers, with pretrained or random weights."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING

from kdutils.errors import StudyError
from kdutils.hub import (
    check_vocabulary,
    find_model,
    load_weights,
    quantization_of,
    quiet_transformers,
    read_config,
    read_tokenizer,
)

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

KINDS = ("seq2seq", "causal", "classifier")
ADAPTERS = {"rank": 8, "alpha": 16, "dropout": 0.0, "targets": "all-linear"}  # defaults of LoRA


def load_student(model: str, tokenizer: str = "", random_weights: bool = False, config: dict | None = None,
                 seed: int = 0, kind: str = "", lora: dict | None = None,
                 ) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return (model, tokenizer) of a student, in float32 and in evaluation mode.

    `model`: a folder or a Hub id. `kind`; with "" the architecture decides:

    - ``seq2seq``: an encoder-decoder (T5 v1.0, v1.1, Flan-T5, T5Gemma, a saved student) is loaded as it is. An encoder
      (BERT and its variants) becomes encoder and decoder of one model; the cross-attention is drawn from `seed` (Rothe
      et al. 2020, "Leveraging pre-trained checkpoints", BERT2BERT).
    - ``causal``: Llama, Qwen, SmolLM, GPT-2 and similar models. Without a padding token, the end token pads.
    - ``classifier``, only on request: an encoder with one new output, which scores a pair of question and choice.

    `random_weights`: use the shape only and draw all weights from `seed`. With a ``model_type`` in `config`, `model`
    may be "". `config` changes the shape, or the dropout of pretrained weights. `tokenizer`: another folder or Hub id
    for the vocabulary. `lora`: train low-rank adapters only (Hu et al. 2022), with the keys of ADAPTERS; see merged().

    Tokens that were added to the tokenizer and have no row in the model's embedding get one, drawn from `seed`; this is
    printed. Raises StudyError if the vocabulary belongs to another model, was not loaded, or has no end or padding
    token, if the model is not of the kind, or if its weights are incomplete (see hub.load_weights).
    """
    from transformers import set_seed

    found = find_model(model, needs_weights=not random_weights) if model else None
    vocabulary = load_tokenizer(tokenizer or model)
    shape = _shape(found, random_weights, config or {}, vocabulary)
    name = model or shape.model_type
    kind = _checked_kind(kind, shape, name)
    set_seed(seed)  # not before: converting a GGUF file draws random numbers, and it is done once
    student = _at_random(shape, kind) if random_weights else _pretrained(found, shape, kind)
    _fit_vocabulary(student, vocabulary, name, own=not tokenizer)
    _settle_tokens(student, vocabulary, kind, name)
    if lora:
        student = _with_adapters(student, lora, kind, shape, name)
    return student.eval(), vocabulary


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a folder or Hub id; StudyError where there is none."""
    return read_tokenizer(name)


def end_token(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return the id of the token that ends a text: BERT's tokenizers call it separator, others end of sequence."""
    return tokenizer.sep_token_id if tokenizer.sep_token_id is not None else tokenizer.eos_token_id


def model_kind(model: torch.nn.Module) -> str:
    """Return ``seq2seq``, ``causal`` or ``classifier``, also of a model in a wrapper (adapters, several processes)."""
    plain = getattr(model, "module", model)
    plain = plain.get_base_model() if hasattr(plain, "get_base_model") else plain
    return _kind_of(plain.config, type(plain).__name__)


def student_kind(student: dict) -> str:
    """Return which of KINDS a student is that load_student would load with the arguments `student`."""
    if student.get("kind"):
        return student["kind"]
    if not student.get("model"):
        return _kind_of(_new_shape(student["config"]))
    shape = read_config(find_model(student["model"], needs_weights=False), False)
    return _kind_of(shape, (shape.architectures or [""])[0])


def merged(model: torch.nn.Module) -> PreTrainedModel:
    """Return the plain model, with trained adapters added to its weights in place; any other model as it is.

    It is saved like this, so that every student on disk is a plain model.
    """
    return model.merge_and_unload() if hasattr(model, "merge_and_unload") else model


@contextlib.contextmanager
def output_layer_on(model: torch.nn.Module, places: torch.Tensor) -> Iterator[None]:
    """Apply the output layer only to `places` of the flattened sequences, (n,): logits are (n, vocabulary).

    With a vocabulary of 30,000 the output layer is the most expensive part of a small student, and up to half of a
    batch is padding.
    """
    head = getattr(model, "module", model).get_output_embeddings()
    hook = head.register_forward_pre_hook(lambda module, inputs: (inputs[0].flatten(0, 1).index_select(0, places),))
    try:
        yield
    finally:
        hook.remove()


def choice_logits(model: torch.nn.Module, chunk: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return a classifier's score of each choice, (questions, most choices), −inf where a question has fewer choices.

    `chunk`: the tensors of collating.pad_choices.
    """
    import torch

    inputs = {name: chunk[name] for name in ("input_ids", "attention_mask", "token_type_ids") if name in chunk}
    scores = model(**inputs).logits[:, 0]
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    rows = scores.split(chunk["choices"].tolist())
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=float("-inf"))


def choice_losses(model: torch.nn.Module, chunk: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return −log p of the right choice of every question of a chunk, (questions,)."""
    import torch

    return torch.nn.functional.cross_entropy(choice_logits(model, chunk), chunk["labels"], reduction="none")


def _new_shape(config, **defaults):
    """Return the shape of a student without a model; StudyError where `config` names no known model_type."""
    from transformers import CONFIG_MAPPING, AutoConfig

    if config.get("model_type") not in CONFIG_MAPPING:
        raise StudyError("config: without a model it must name a model_type, such as t5 or llama"
                         + (f"; {config['model_type']!r} is none" if "model_type" in config else ""))
    return AutoConfig.for_model(**{**defaults, **config})


def _shape(found, random_weights, config, vocabulary):
    config = dict(config)
    if random_weights and not found:
        return _new_shape(config, vocab_size=len(vocabulary), **_tokens(vocabulary))
    if not found:
        raise StudyError("model: the name is empty; give a folder or a Hub id such as google-t5/t5-small")
    shape = read_config(found, not random_weights)
    unknown = [name for name in config if not hasattr(shape, name)]
    if unknown:
        raise StudyError(f"config: {found.where}: a {shape.model_type} has no setting '{unknown[0]}'")
    shape = read_config(found, not random_weights, **config)
    if quantization_of(shape) and not random_weights:
        raise StudyError(f"{found.name}: its weights are quantised and cannot be trained; give the model before it was "
                         "quantised")
    if random_weights:
        vars(shape).pop("quantization_config", None)
        shape.update({"vocab_size": max(shape.vocab_size, len(vocabulary)), **_tokens(vocabulary)})
    return shape


def _tokens(vocabulary):
    end = end_token(vocabulary)
    pad = end if vocabulary.pad_token_id is None else vocabulary.pad_token_id
    return {"eos_token_id": end, "pad_token_id": pad, "bos_token_id": vocabulary.bos_token_id}


def _kind_of(shape, architecture=""):
    """Return which of KINDS an architecture is; StudyError where it is none of them."""
    from transformers.models.auto import modeling_auto as known

    if architecture.endswith("ForSequenceClassification") and shape.num_labels == 1:
        return "classifier"
    if getattr(shape, "is_encoder_decoder", False) or shape.model_type in known.MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        return "seq2seq"
    if shape.model_type in known.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        return "causal"
    raise StudyError(f"model: a {shape.model_type} is not an encoder-decoder, an encoder or a causal model; give one "
                     "of these")


def _checked_kind(kind, shape, name):
    from transformers.models.auto import modeling_auto as known

    own = _kind_of(shape, (shape.architectures or [""])[0])
    kind = kind or own
    encoder = shape.model_type in known.MODEL_FOR_MASKED_LM_MAPPING_NAMES and not _has_decoder(shape)
    if kind not in KINDS:
        raise StudyError(f"kind: unknown '{kind}'; known: {', '.join(KINDS)}")
    if kind == "classifier" and not encoder or kind != "classifier" and kind != own:
        raise StudyError(f"{name}: a {shape.model_type} is not a {kind} student; leave kind empty or change the model")
    if kind == "seq2seq" and encoder and shape.model_type not in known.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise StudyError(f"{name}: a {shape.model_type} cannot write, so no decoder can start from it; use it as kind "
                         "'classifier', or use another encoder such as BERT")
    return kind


def _has_decoder(shape):
    return getattr(shape, "is_encoder_decoder", False)


def _at_random(shape, kind):
    import transformers as library

    if kind == "seq2seq" and not _has_decoder(shape):
        both = library.EncoderDecoderConfig.from_encoder_decoder_configs(shape, copy.deepcopy(shape))
        return library.EncoderDecoderModel(config=both)
    if kind == "classifier":
        shape.num_labels = 1
    return _auto_class(kind).from_config(shape)


def _pretrained(found, shape, kind):
    import torch

    if kind == "seq2seq" and not _has_decoder(shape):
        return _warm_started(found, shape)
    new = ()
    if kind == "classifier" and _kind_of(shape, (shape.architectures or [""])[0]) != "classifier":
        shape.num_labels, new = 1, ("head", "pooler")
    return load_weights(_auto_class(kind), found, new, config=shape, dtype=torch.float32)


def _auto_class(kind):
    import transformers as library

    return {"seq2seq": library.AutoModelForSeq2SeqLM, "causal": library.AutoModelForCausalLM,
            "classifier": library.AutoModelForSequenceClassification}[kind]


def _warm_started(found, shape):
    """Return an encoder-decoder with both halves initialised from one pretrained encoder."""
    import torch
    from transformers import AutoModel, AutoModelForCausalLM, EncoderDecoderModel

    decoder = copy.deepcopy(shape)
    decoder.is_decoder = decoder.add_cross_attention = True
    encoder = load_weights(AutoModel, found, ("head", "pooler"), config=shape, dtype=torch.float32)
    decoder = load_weights(AutoModelForCausalLM, found, ("head", "pooler", "crossattention"), say=lambda line: None,
                           config=decoder, dtype=torch.float32)
    return EncoderDecoderModel.from_encoder_decoder_pretrained(encoder_model=encoder, decoder_model=decoder)


def _fit_vocabulary(model, tokenizer, name, own):
    """Give every token a row in the model's embedding: tokens that were added to the tokenizer get new ones."""
    beyond = check_vocabulary(name, tokenizer, model.get_input_embeddings().num_embeddings, own)
    if not beyond:
        return
    pair = model.config.model_type == "encoder-decoder"
    with quiet_transformers():
        for part in (model.encoder, model.decoder) if pair else (model,):
            part.resize_token_embeddings(max(beyond.values()) + 1)
    names = ", ".join(repr(token)[:40] for token in list(beyond)[:3]) + " …" * (len(beyond) > 3)
    print(f"{name}: {len(beyond)} of the tokenizer's {len(tokenizer)} tokens ({names}) "
          "had no row in the model's embedding; new rows are drawn from the seed")


def _settle_tokens(model, tokenizer, kind, name):
    """Make model and tokenizer agree on start, end and padding, and drop a checkpoint's settings for sampling."""
    from transformers import GenerationConfig

    end = end_token(tokenizer)
    if end is None and kind != "classifier":
        raise StudyError(f"{name}: the tokenizer has no end token; a student would never learn to stop")
    if tokenizer.pad_token_id is None and kind == "causal":
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(end)  # padding is known by the lengths of rows
    if tokenizer.pad_token_id is None:
        raise StudyError(f"{name}: the tokenizer has no padding token")
    model.config.pad_token_id = tokenizer.pad_token_id
    if kind == "classifier":
        return
    model.config.eos_token_id = end
    if kind == "seq2seq":
        known = (getattr(model.config, "decoder_start_token_id", None), tokenizer.cls_token_id, tokenizer.bos_token_id,
                 tokenizer.pad_token_id)
        model.config.decoder_start_token_id = next(token for token in known if token is not None)
        if model.config.model_type == "encoder-decoder":
            model.config.vocab_size = model.config.decoder.vocab_size
    model.generation_config = GenerationConfig(
        eos_token_id=end, pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id,
        decoder_start_token_id=getattr(model.config, "decoder_start_token_id", None),
        max_length=None)  # every call gives its number of new tokens


def _with_adapters(model, lora, kind, shape, name):
    from peft import LoraConfig, get_peft_model

    unknown = [key for key in lora if key not in ADAPTERS]
    if unknown:
        raise StudyError(f"lora: unknown '{unknown[0]}'; known: {', '.join(ADAPTERS)}")
    if kind == "classifier" or kind == "seq2seq" and not _has_decoder(shape):
        raise StudyError(f"lora: {name} starts with new random layers, which adapters alone cannot train; leave lora "
                         "empty")
    settings = {**ADAPTERS, **lora}
    return get_peft_model(model, LoraConfig(
        r=settings["rank"], lora_alpha=settings["alpha"], lora_dropout=settings["dropout"],
        target_modules=settings["targets"], task_type="CAUSAL_LM" if kind == "causal" else "SEQ_2_SEQ_LM"))
