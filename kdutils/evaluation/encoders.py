"""Encoders that compare texts: BERTScore, the cosines of the conditional logit and the support of explanations."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from kdutils.errors import StudyError
from kdutils.hub import model_context

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LONGEST_READ = 512  # tokens that an encoder reads at most


def encoder_limit(model: PreTrainedModel) -> int:
    """Return how many tokens an encoder reads: its number of positions, at most LONGEST_READ."""
    return min(LONGEST_READ, model_context(model) or LONGEST_READ)


@lru_cache(1)
def load_encoder(name: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return (encoder, tokenizer) of a folder or Hub id, in float32.

    Raises StudyError where the tokenizer has tokens without rows in the embedding table.
    """
    import torch
    from transformers import AutoModel

    from kdutils.hub import check_vocabulary, find_model, load_weights, read_config, read_tokenizer

    found = find_model(name)
    model = load_weights(AutoModel, found, ("head", "pooler"), config=read_config(found), dtype=torch.float32)
    tokenizer = read_tokenizer(name)
    if check_vocabulary(name, tokenizer, model.get_input_embeddings().num_embeddings):
        raise StudyError(f"{name}: the tokenizer has tokens without rows in the model's embedding table; resize the "
                         "table (resize_token_embeddings) and save the model, or use another encoder")
    return model.eval(), tokenizer
