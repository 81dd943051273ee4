"""Whether a causal model computes the same with SharedRows as with separate rows."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

from kdutils.hub import is_memory_error
from kdutils.student.attention import set_blocks
from kdutils.student.chunks import pad_chunk
from kdutils.student.models import model_kind, output_layer_on
from kdutils.student.rows import SharedRows, TokenRow

if TYPE_CHECKING:
    import torch

# Settings of layers that see only near or only selected tokens: they count places, and their limits are longer than the
# two questions by which the rest is found out.
LOCAL = ("sliding_window", "window_size", "attention_chunk_size", "keep_window_size", "index_topk", "index_topk_blocks")
KNOWN = weakref.WeakKeyDictionary()  # {model: the answer}


def shares_tokens(model: torch.nn.Module) -> bool:
    """Return whether the rows of a question may run in one sequence (rows.SharedRows) of this model.

    That takes a causal model that obeys a mask for each token and restarted positions. Models with a recurrent state
    (Mamba), with positions of their own (ALiBi) or with local attention do not. Both ways are computed once, for two
    made questions, and their logits are compared. In half precision rounding may hide a difference, so the answer is
    no, unless it was found out before the weights were rounded (see predicting.load_trained).
    """
    import torch

    if model_kind(model) != "causal" or any(getattr(_config(model), name, None) for name in LOCAL):
        return False
    if model not in KNOWN and torch.finfo(model.dtype).eps > torch.finfo(torch.float32).eps:
        return False
    if model not in KNOWN:
        KNOWN[model] = _computes_the_same(model)
    return KNOWN[model]


def use_blocks(model: torch.nn.Module) -> None:
    """Let a model that shares tokens run its chunks without padding (attention.attend), in place, if it can.

    It is tried out as in shares_tokens.
    """
    if set_blocks(model) and not _computes_the_same(model, blocks=True):
        set_blocks(model, False)


def _config(model):
    config = getattr(model, "module", model).config
    return config.get_text_config() if hasattr(config, "get_text_config") else config


def _computes_the_same(model, blocks=False):
    import torch

    questions = [[TokenRow(0, [11, 12, 13, 14], [15, 16, 17]), TokenRow(1, [11, 12, 13, 18], [19, 20, 21])],
                 [TokenRow(0, [22, 23], [27, 24]), TokenRow(1, [22, 23], [27, 25, 26])]]
    training, pad = model.training, model.config.pad_token_id or 0
    together = pad_chunk([SharedRows(rows) for rows in questions], pad, None, blocks=blocks)
    try:
        with torch.no_grad(), torch.autocast(model.device.type, enabled=False):
            model.eval()
            found = {(task, token): logits for task, token, logits in _counted(model, together)}
            apart = [one for rows in questions for row in rows
                     for one in _counted(model, pad_chunk([SharedRows([row])], pad, None) | {"attention_mask": None})]
    except Exception as error:  # every architecture refuses a mask or positions in its own way
        if is_memory_error(error):
            raise
        return False
    finally:
        model.train(training)
    # Of the logits' standard deviation: far above rounding, far below what a wrong token does.
    tolerance = torch.finfo(torch.float32).eps ** 0.5
    pairs = [(found[task, token], logits) for task, token, logits in apart]
    return all((one - other).abs().max() <= tolerance * other.std() for one, other in pairs)


def _counted(model, chunk):
    """Return (task, next token, logits) of every counted token of a chunk."""
    places = chunk["places"].to(model.device)
    inputs = {name: chunk[name].to(model.device) for name in (
        "input_ids", "attention_mask", "position_ids", "block_places") if chunk.get(name) is not None}
    with output_layer_on(model, places):
        logits = model(**inputs, use_cache=False).logits
    return list(zip(chunk["of"].tolist(), chunk["tokens"].tolist(), logits.double(), strict=True))
