"""Students: sequence-to-sequence models of the T5 family, and encoders warm-started into encoder-decoders."""

from pathlib import Path

from kdutils.data.sources import locate_model
from kdutils.errors import StudyError

TOKENIZER_FILES = ("tokenizer.json", "spiece.model", "tokenizer.model", "vocab.txt", "vocab.json")


def load_student(model, tokenizer="", random_weights=False, config=None, seed=0):
    """Return (model, tokenizer) of a student, in float32 and in evaluation mode.

    `model`: a folder or a Hub id. An encoder-decoder (T5 v1.0, v1.1, Flan-T5, a saved student) is loaded as
    it is; an encoder (BERT and its variants) becomes encoder and decoder of one model, the cross-attention
    drawn at random from `seed` (Rothe et al. 2020, "Leveraging pre-trained checkpoints", BERT2BERT).
    `random_weights`: take the shape alone and draw all weights from `seed`; `config` changes that shape.
    `tokenizer`: another folder or Hub id for the vocabulary. Raises StudyError where the vocabulary is
    larger than the model's, or where the model is of neither kind.
    """
    from transformers import AutoConfig, AutoModelForSeq2SeqLM, set_seed

    set_seed(seed)
    vocabulary = load_tokenizer(tokenizer or model)
    where = locate_model(model, needs_weights=not random_weights)
    shape = AutoConfig.from_pretrained(where, trust_remote_code=False, **(config or {}))
    if random_weights:
        shape.vocab_size = max(shape.vocab_size, len(vocabulary))
        student = AutoModelForSeq2SeqLM.from_config(shape)
    elif shape.is_encoder_decoder:
        student = _load(AutoModelForSeq2SeqLM, where)
    else:
        student = warm_start(where, vocabulary)
    _check_vocabulary(student, vocabulary, model)
    student.generation_config.max_length = None  # every call says how many new tokens it wants
    return student.eval(), vocabulary


def load_tokenizer(name):
    """Return the fast tokenizer of a folder or Hub id; StudyError where the folder holds none."""
    from transformers import AutoTokenizer

    where = locate_model(name, needs_weights=False)
    if Path(where).is_dir() and not any((Path(where) / file).is_file() for file in TOKENIZER_FILES):
        raise StudyError(f"{where}: no tokenizer ({', '.join(TOKENIZER_FILES)})")
    return AutoTokenizer.from_pretrained(where, trust_remote_code=False)


def _load(auto_class, where):
    import torch

    return auto_class.from_pretrained(where, dtype=torch.float32, use_safetensors=True, trust_remote_code=False)


def warm_start(where, tokenizer):
    """Return an encoder-decoder whose two halves start from one pretrained encoder."""
    import torch
    from transformers import EncoderDecoderModel

    model = EncoderDecoderModel.from_encoder_decoder_pretrained(
        where, where, encoder_use_safetensors=True, decoder_use_safetensors=True,
        encoder_dtype=torch.float32, decoder_dtype=torch.float32)
    start = tokenizer.cls_token_id if tokenizer.cls_token_id is not None else tokenizer.bos_token_id
    end = tokenizer.sep_token_id if tokenizer.sep_token_id is not None else tokenizer.eos_token_id
    if start is None or end is None or tokenizer.pad_token_id is None:
        raise StudyError(f"{where}: the tokenizer lacks a start, an end or a padding token")
    for settings in (model.config, model.generation_config):
        settings.decoder_start_token_id, settings.eos_token_id = start, end
        settings.pad_token_id = tokenizer.pad_token_id
    model.config.vocab_size = model.config.decoder.vocab_size
    return model


def _check_vocabulary(model, tokenizer, name):
    size = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > size:
        raise StudyError(f"{name}: the tokenizer has {len(tokenizer)} tokens, the model knows {size}; "
                         "take the tokenizer that belongs to the model")
    if len(tokenizer) < 200:
        raise StudyError(f"{name}: the tokenizer has {len(tokenizer)} tokens only; its vocabulary was not loaded")
