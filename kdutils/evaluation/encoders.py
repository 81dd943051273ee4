"""Encoders that compare texts: BERTScore, the cosines of the conditional logit and the support of explanations."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from kdutils.errors import StudyError
from kdutils.hub import model_context

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LONGEST_READ = 512  # tokens that an encoder reads at most
BATCH = 32  # texts that are read together


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


def read_batches(texts: list[str], encoder: str) -> Iterator[tuple]:
    """Yield (texts of a batch, last hidden states, mask of their tokens, mask of added tokens), the shortest first.

    Shapes: (texts, tokens, size) of the states, (texts, tokens) of the masks. A text is read up to encoder_limit.
    """
    import torch

    model, tokenizer = load_encoder(encoder)
    for batch in batches(sorted(texts, key=len)):
        inputs = tokenizer(batch, return_tensors="pt", padding=True, truncation=True, max_length=encoder_limit(model),
                           return_special_tokens_mask=True)
        with torch.no_grad():
            hidden = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).last_hidden_state
        yield batch, hidden, inputs["attention_mask"], inputs["special_tokens_mask"]


def batches(items: list) -> list[list]:
    """Return `items` cut into lists of BATCH, in their order."""
    return [items[start:start + BATCH] for start in range(0, len(items), BATCH)]


def token_states(texts: list[str], encoder: str) -> dict[str, np.ndarray]:
    """Return {text: the unit vectors of its tokens, (tokens, size)}: last hidden states, without added tokens."""
    import torch

    states = {}
    for batch, hidden, mask, added in read_batches(texts, encoder):
        vectors = torch.nn.functional.normalize(hidden.double(), dim=-1)
        states |= {text: vectors[row][(mask[row] == 1) & (added[row] == 0)].numpy() for row, text in enumerate(batch)}
    return states
