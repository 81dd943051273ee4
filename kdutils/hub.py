"""Find a model or vocabulary (folder, Hub, installed package), load it, and check that its files are complete."""

import contextlib
import json
import os
import re
import sys
from collections.abc import Callable, Collection, Iterator
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from kdutils.errors import StudyError, first_line
from kdutils.gguf import convert_gguf, gguf_file, some
from kdutils.packages import install_advice, package_folder
from kdutils.runs import project_path

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

# Hub id -> folder below KDUTILS_DATA with the same files: a vocabulary, enough for a tokenizer, not for weights
LOCAL_COPIES = dict.fromkeys(("google-t5/t5-small", "google/flan-t5-small", "google/flan-t5-xl",
                              "google/t5-v1_1-base", "google/t5-v1_1-large"), "tokenizers/t5")
HUB_ID = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*)(?:/[A-Za-z0-9_][A-Za-z0-9._-]*)?")
TOKENIZER_FILES = ("tokenizer.json", "spiece.model", "tokenizer.model", "vocab.txt", "vocab.json")
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
ADAPTER, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PICKLES = ("its weights are a pickle (pytorch_model.bin), which can run code when it is opened and is not read here; "
           "take a revision with model.safetensors (the Hub's Space safetensors/convert makes one) or, if you trust "
           "it, load it on a machine that has nothing to lose and write it with save_pretrained")
ADVICE = "give a complete model folder, or a Hub id that exists and can be reached"
HUB_TIMEOUT = 10  # seconds
# Names that wrappers add to tensor names: all of them in front, those of the first row also further in.
WRAPPERS = {"_orig_mod": "torch.compile", "_fsdp_wrapped_module": "FSDP",
            "module": "DataParallel", "base_model.model": "PEFT"}
WRAPPED = (r"^(?:(?:module|base_model\.model|_orig_mod|_fsdp_wrapped_module)\.)+",
           r"(?<=\.)(?:(?:_orig_mod|_fsdp_wrapped_module)\.)+")
# Tensors that the library computes; files of older versions may hold them.
COMPUTED = re.compile(r"(rotary_emb\.inv_freq|(^|\.)position_ids|\.(attn|attention)\.(masked_)?bias)$")
PACKED = (".qweight", ".qzeros", ".g_idx")  # ends of tensor names of GPTQ and AWQ
_IN_ADAPTER = re.compile(r"\.(lora_|base_layer\.)")


# Find

class ModelFiles(NamedTuple):
    """Where the files of a model are."""

    name: str  # for messages
    where: str  # folder or Hub id of config and weights; of an adapter, those of its base
    revision: str = ""
    adapter: str = ""  # folder of the adapter that is added to the weights


def locate_model(name: str, needs_weights: bool = True) -> str:
    """Return `name` as `from_pretrained` takes it: a folder or a Hub id.

    Searched in this order: a folder or GGUF file (relative to the project), an installed package with the model, a copy
    below KDUTILS_DATA (for a tokenizer or config alone), the Hub. A GGUF file is converted once (gguf.py). Raises
    StudyError for a path that does not exist and a folder without config or weights.
    """
    if not name:
        raise StudyError("model: the name is empty; give a folder or a Hub id such as google-t5/t5-small")
    folder, packed = project_path(name), gguf_file(name)
    if packed:
        return str(convert_gguf(packed))
    if folder.is_dir():
        return _checked(folder) if needs_weights else str(folder)
    if is_path(name) or name.endswith(".gguf"):
        raise StudyError(f"{name}: no such folder or file; give a model folder, a .gguf file or a Hub id")
    if package := package_folder(name):
        configs = package.rglob("config.json")
        return str(min(configs, key=lambda path: (len(path.parts), path)).parent)
    copy = Path(os.environ.get("KDUTILS_DATA", "/nonexistent")) / LOCAL_COPIES.get(name, "-")
    return str(copy) if not needs_weights and copy.is_dir() else name


@cache
def reach_hub() -> bool:
    """Return whether the Hub answers; if it does not, its library looks on this machine alone from now on.

    The library by itself repeats its request for each file of a model, which takes minutes before it gives up.
    """
    from huggingface_hub import constants, get_session

    if constants.is_offline_mode():
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=HUB_TIMEOUT)
    except Exception as error:  # the errors of the library's client have no public name
        print(f"{constants.ENDPOINT} does not answer ({first_line(error)}): only models and data on this machine are "
              "used", file=sys.stderr)
        constants.HF_HUB_OFFLINE = True
        return False
    return True


def device() -> str:
    """Return where models run on this machine: ``cuda`` where there is a GPU, else ``cpu``."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def is_path(name: str) -> bool:
    """Say whether `name` is a path and no Hub id: it begins with . / ~ or $, or has more than one slash."""
    return name.startswith((".", "/", "~", "$")) or name.count("/") > 1


def local_folders(name: str) -> list[Path]:
    """Return the folders on this machine that hold the model `name`, with its base for an adapter; of GGUF the file."""
    folder, packed = project_path(name), gguf_file(name)
    if packed:
        return [packed]
    if not folder.is_dir():
        return []
    with contextlib.suppress(StudyError):
        base = Path(find_model(name, needs_weights=False).where)
        return [folder, base] if base.is_dir() and base != folder else [folder]
    return [folder]


def find_model(name: str, needs_weights: bool = True, revision: str = "") -> ModelFiles:
    """Return where the files of the model `name` are; for an adapter (LoRA), those of its base as well.

    Raises StudyError as `locate_model` does, and for an adapter whose base is not named or not found.
    """
    where = locate_model(name, needs_weights)
    path = _file_of(where, ADAPTER, revision)
    if not path:
        return ModelFiles(name, where, revision)
    if _file_of(where, WEIGHTS, revision) or _file_of(where, INDEX, revision):
        raise StudyError(f"{name}: it holds a whole model and an adapter ({ADAPTER}); remove {ADAPTER} if the adapter "
                         "has been merged, else give the adapter a folder of its own")
    if needs_weights and not _file_of(where, ADAPTER_WEIGHTS, revision):
        raise StudyError(f"{name}: an adapter without {ADAPTER_WEIGHTS}; other formats are not loaded")
    config = _json_object(Path(path))
    base = config.get("base_model_name_or_path")
    if not base or not isinstance(base, str):
        raise StudyError(f"{name}: an adapter that does not name its base; write base_model_name_or_path into its "
                         f"{ADAPTER}, or give the merged model")
    try:
        base_where = locate_model(base, needs_weights)
    except StudyError as error:
        raise StudyError(f"{name}: an adapter whose base cannot be used ({error}); write where the base is as "
                         f"base_model_name_or_path into its {ADAPTER}, or give the merged model") from None
    base_revision = "" if Path(base_where).is_dir() else config.get("revision") or ""
    return ModelFiles(f"{name} (adapter of {base})", base_where, base_revision, str(Path(path).parent))


# Load

def read_config(files: ModelFiles, needs_weights: bool = True, **changes: Any) -> "PretrainedConfig":
    """Return the config of a model with `changes`.

    Raises StudyError if it cannot be read or, with `needs_weights`, if its weights are quantised in a way that this
    machine cannot load.
    """
    from transformers import AutoConfig

    with named_load_errors(files.name, where=files.where):
        config = AutoConfig.from_pretrained(files.where, trust_remote_code=False, **_revision_of(files), **changes)
    given = quantization_of(config)
    if given and needs_weights:
        _check_quantized(files.name, given)
    return config


def quantization_of(config: "PretrainedConfig") -> dict[str, Any]:
    """Return what a config says about the quantisation of its saved weights; {} if they are not quantised."""
    text = config.get_text_config(decoder=True)
    given = getattr(config, "quantization_config", None) or getattr(text, "quantization_config", None) or {}
    return given if isinstance(given, dict) else given.to_dict()


def read_tokenizer(name: str, revision: str = "") -> "PreTrainedTokenizerBase":
    """Return the tokenizer of a folder or Hub id; for an adapter without one, that of its base."""
    from transformers import AutoTokenizer

    files = ModelFiles(name, locate_model(name, needs_weights=False), revision)
    if not any(_file_of(files.where, file, revision) for file in TOKENIZER_FILES):
        if _file_of(files.where, ADAPTER, revision):
            files = find_model(name, needs_weights=False, revision=revision)
        elif Path(files.where).is_dir() and not has_tokenizer(Path(files.where)):
            raise StudyError(f"{files.where}: no tokenizer ({', '.join(TOKENIZER_FILES)})")
    with named_load_errors(files.name, "tokenizer: ", files.where):
        try:
            return AutoTokenizer.from_pretrained(files.where, trust_remote_code=False, **_revision_of(files))
        except (ImportError, ValueError) as error:
            if not re.search("sentencepiece|tiktoken", str(error), re.IGNORECASE):
                raise
            raise StudyError(f"{name}: its vocabulary is a SentencePiece file alone, which needs the package "
                             "sentencepiece; install it, or give a folder with a tokenizer.json") from error


def has_tokenizer(folder: Path) -> bool:
    """Say whether a folder holds a vocabulary. That of bytes (ByT5) has no file and is named in a config."""
    config = folder / "tokenizer_config.json"
    return any((folder / file).is_file() for file in TOKENIZER_FILES) or (
        config.is_file() and _json_object(config).get("tokenizer_class") == "ByT5Tokenizer")


def load_weights(auto_class: type, files: ModelFiles, new: Collection[str] = (), say: Callable[[str], Any] = print,
                 **settings: Any) -> "PreTrainedModel":
    """Return the model of `files` as `auto_class` loads it, with every tensor as its file has it.

    - `new`: parts that are drawn at random on purpose, each as a whole: ``head`` (everything outside the base model;
      heads for other tasks in the file are ignored), ``pooler``, ``crossattention``.
    - `settings` go to from_pretrained.
    - Names that a wrapper has added to tensor names (torch.compile, DataParallel) are removed; `say` gets one line.
    - An adapter is merged into the weights.

    Raises StudyError that names the tensors that the file lacks or the model does not have, and for files that cannot
    be read. Memory errors are passed on.
    """
    import torch

    settings = {"use_safetensors": True, "ignore_mismatched_sizes": True, "output_loading_info": True,
                **_revision_of(files), **settings}
    random_state = torch.get_rng_state()
    with named_load_errors(files.name), quiet_transformers():
        model, info = auto_class.from_pretrained(files.where, trust_remote_code=False, **settings)
        wrapped = _wrappers(info["unexpected_keys"])
        if wrapped:
            del model
            torch.set_rng_state(random_state)
            settings["key_mapping"] = dict.fromkeys(WRAPPED, "")
            model, info = auto_class.from_pretrained(files.where, trust_remote_code=False, **settings)
    _check_tensors(model, info, files.name, new)
    if wrapped:
        say(f"{files.name}: the names of its tensors hold {' and '.join(wrapped)}; read without")
    return _with_adapter(model, files) if files.adapter else model


def check_vocabulary(name: str, tokenizer: "PreTrainedTokenizerBase", rows: int, own: bool = True) -> dict[str, int]:
    """Return {token: id} of the added tokens that have no row in the model's embedding table of `rows` rows.

    Added tokens (padding, chat markers) may be new. A tokenizer that lacks rows for ordinary tokens belongs to another
    model: StudyError, as for a vocabulary that was not loaded. `own`: the tokenizer comes from the model's folder.
    """
    if len(tokenizer) < 200:
        raise StudyError(f"{name}: the tokenizer has {len(tokenizer)} tokens only; its vocabulary was not loaded: are "
                         "the tokenizer's files in the folder?")
    rowless = {token: number for token, number in tokenizer.get_vocab().items() if number >= rows}
    if set(rowless) - set(tokenizer.get_added_vocab()):
        advice = ("the two do not belong together: fetch the model again, config, weights and tokenizer from one place"
                  if own else "take the tokenizer that belongs to the model")
        raise StudyError(f"{name}: the tokenizer has {len(tokenizer)} tokens, the model knows {rows}; {advice}")
    return dict(sorted(rowless.items(), key=lambda pair: pair[1]))


# Errors

@contextlib.contextmanager
def named_load_errors(name: Path | str, what: str = "", where: Path | str = "", advice: str = ADVICE) -> Iterator[None]:
    """Turn any exception of the library inside the block into a StudyError that names the model; memory errors pass.

    `what` is put in front of the library's message. `where`: a folder that is searched for invalid JSON files.
    """
    try:
        yield
    except StudyError:
        raise
    except Exception as error:  # a broken file may raise any type, even a bare Exception (tokenizers)
        if is_memory_error(error):
            raise
        for file in ("config.json", "tokenizer.json", "tokenizer_config.json") if where else ():
            if (Path(where) / file).is_file():
                _json_object(Path(where) / file)
        if "use_safetensors" in str(error):
            raise StudyError(f"{name}: {PICKLES}") from error
        raise StudyError(f"{name}: cannot be loaded ({what}{first_line(error)}); {advice}"
                         f"{install_advice(str(name))}") from error


def is_memory_error(error: Exception) -> bool:
    """Say whether an exception reports too little memory."""
    words = ("can't allocate memory", "not enough memory", "out of memory")
    return isinstance(error, MemoryError) or isinstance(error, RuntimeError) and any(w in str(error) for w in words)


def unless_memory_runs_out(function: Callable, *arguments: object, **settings: object) -> Any:
    """Return what `function` returns, None where it ran out of memory."""
    import torch

    try:
        return function(*arguments, **settings)
    except (MemoryError, RuntimeError) as error:
        if not is_memory_error(error):
            raise
    torch.cuda.empty_cache()  # only here: until now the error kept the tensors of its frames alive
    return None


def _file_of(where, file, revision=""):
    """Return the path of a model's file, None if there is none or it cannot be reached."""
    if Path(where).is_dir():
        return str(Path(where) / file) if (Path(where) / file).is_file() else None
    from transformers.utils import cached_file

    reach_hub()
    with contextlib.suppress(OSError, ValueError):
        return cached_file(where, file, revision=revision or None, _raise_exceptions_for_gated_repo=False,
                           _raise_exceptions_for_missing_entries=False, _raise_exceptions_for_connection_errors=False)
    return None


def _revision_of(files):
    return {"revision": files.revision} if files.revision else {}


# Checks of files


def _checked(folder):
    """Return a model folder as text; StudyError if its configs or the headers of its weights show a fault."""
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
    """Return the JSON object in a file; StudyError if the file holds anything else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise StudyError(f"{path.parent}: cannot be loaded ({path.name} is not valid JSON: {first_line(error)}); "
                         f"{ADVICE}") from None
    if not isinstance(value, dict):
        raise StudyError(f"{path.parent}: cannot be loaded ({path.name} is not a JSON object); {ADVICE}")
    return value


def _weight_files(folder):
    """Return the weight files of a folder that the library would load; StudyError if there are none."""
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if not (folder / INDEX).is_file():
        if any(folder.glob("pytorch_model*.bin")):
            raise StudyError(f"{folder}: {PICKLES}")
        raise StudyError(f"{folder}: no weights ({WEIGHTS} or {INDEX}); other formats are not loaded")
    named = _json_object(folder / INDEX).get("weight_map")
    if not isinstance(named, dict) or not named or not all(isinstance(name, str) for name in named.values()):
        raise StudyError(f"{folder}: cannot be loaded ({INDEX} names no files); {ADVICE}")
    files = sorted(set(named.values()))
    missing = [name for name in files if not (folder / name).is_file()]
    if missing:
        raise StudyError(f"{folder}: cannot be loaded ({INDEX} names files that are not there: "
                         f"{some(missing)}); {ADVICE}")
    return [folder / name for name in files]


def _tensor_names(path):
    from safetensors import safe_open

    with named_load_errors(path.parent, f"{path.name}: "), safe_open(path, framework="np") as file:
        return list(file.keys())


def _check_quantized(name, given):
    """Raise StudyError if quantised weights cannot be loaded on this machine; the message says what is missing."""
    import torch
    from transformers.quantizers.auto import AutoHfQuantizer

    given, method = deepcopy(given), first_line(given.get("quant_method") or "by an unnamed method", 40)
    try:
        with quiet_transformers():
            known = AutoHfQuantizer.supports_quant_method(given)
        if not known:
            raise StudyError("the library does not know that method")
        quantizer = AutoHfQuantizer.from_config(given, pre_quantized=True)
        quantizer.validate_environment(device_map="auto" if torch.cuda.is_available() else None, weights_only=True)
    except Exception as error:  # every method reports missing packages in its own way
        raise StudyError(f"{name}: its weights are quantised ({method}) and cannot be read here ({first_line(error)}); "
                         "install what that asks for, or give the model before it was quantised") from error


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Suppress the warnings of transformers inside the block; the package prints its own."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def hide_progress() -> None:
    """Show no progress bars of transformers, and no warning of bitsandbytes about a kernel of 4-bit models."""
    import logging

    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


# Checks of tensors


def _wrappers(keys):
    """Return descriptions of the wrappers that have changed tensor names; [] if an adapter was not merged either."""
    if any(map(_IN_ADAPTER.search, keys)):
        return []
    added = {part for key in keys for pattern in WRAPPED for part in re.findall(pattern, key)}
    return [f"'{word}.' ({maker})" for word, maker in WRAPPERS.items() if any(f"{word}." in part for part in added)]


def _check_tensors(model, info, name, new):
    """Raise StudyError for tensors that the files lack or the model does not have; for `new` see `load_weights`."""
    prefix = model.base_model_prefix
    base = getattr(model, prefix, None) if prefix else None

    def new_part(key):
        """Return the part of `new` that a tensor belongs to, a head by its name; None if the tensor may not be new."""
        parts = key.split(".")
        if base is not None and parts[0] != prefix:
            return f"head {parts[0]}" if "head" in new else None
        return next((part for part in ("crossattention", "pooler") if part in parts and part in new), None)

    tied = getattr(model, "all_tied_weights_keys", {})
    mismatched = {key: (tuple(theirs), tuple(ours)) for key, theirs, ours in info["mismatched_keys"]}
    not_loaded = {*info["missing_keys"], *mismatched, *tied, *tied.values()}
    loaded = {None, *(new_part(key) for key in model.state_dict() if key not in not_loaded)}
    missing = sorted(key for key in set(info["missing_keys"]) - set(mismatched)
                     if not COMPUTED.search(key) and new_part(key) in loaded)
    other_size = sorted(f"{key} {list(theirs)} for {list(ours)}" for key, (theirs, ours) in mismatched.items()
                        if new_part(key) is None)
    renamed = tuple(f".{key.removeprefix(f'{prefix}.')}" for key in missing)  # the same tensor under another name
    children = (f"{child}." for child, _ in (model if base is None else base).named_children())
    of_base = (*([] if base is None else [f"{prefix}."]), *children)
    ignored = [key for key in info["unexpected_keys"] if COMPUTED.search(key) or not key.endswith(renamed) and (
        "pooler" in new and ".pooler." in f".{key}" or "head" in new and not key.startswith(of_base))]
    unknown = sorted(set(info["unexpected_keys"]) - set(ignored))
    faults = _listed(("not in its files", missing), ("of another size", other_size),
                     ("not known to the model", unknown))
    if faults:
        raise StudyError(f"{name}: its weights do not fit {type(model).__name__}; tensors {faults}; "
                         f"{_advice(missing + unknown)}")


def _listed(*groups):
    """Return the groups (words, names) that have names, as one text."""
    return "; ".join(f"{words}: {some(names)}" for words, names in groups if names)


def _advice(keys):
    if any(map(_IN_ADAPTER.search, keys)):
        return "an adapter was saved with the model; merge it (merge_and_unload) and save again"
    if any(key.endswith(PACKED) for key in keys):
        return "they were quantised by GPTQ or AWQ; give the model before that"
    return "give weights and config.json that belong together"


def _with_adapter(model, files):
    """Return the model with the adapter merged into its weights; StudyError if the two do not fit."""
    import warnings

    from peft import PeftConfig, PeftModel

    advice = "give a complete adapter that was trained on this base"
    with named_load_errors(files.name, "the adapter: ", advice=advice), warnings.catch_warnings(action="ignore"):
        config = PeftConfig.from_pretrained(files.adapter)
        if config.is_prompt_learning:
            raise StudyError(f"{files.name}: an adapter of type {config.peft_type.value} cannot be merged into "
                             "weights; give one of LoRA, or a whole model")
        config.inference_mode = True
        wrapped = PeftModel(model, config)
        loaded = wrapped.load_adapter(files.adapter, "default", autocast_adapter_dtype=False)
        missing, unknown = (sorted(key.removeprefix("base_model.model.") for key in keys)
                            for keys in (loaded.missing_keys, loaded.unexpected_keys))
        faults = _listed(("not in its file", missing), ("not known to the base", unknown))
        if faults:
            raise StudyError(f"{files.name}: the adapter does not fit; tensors {faults}; {advice}")
        merged = wrapped.merge_and_unload()
    for weight in merged.parameters():  # the library froze them
        weight.requires_grad_(weight.is_floating_point())
    return merged


def model_context(model: "PreTrainedModel") -> int | None:
    """Return the number of positions of a model in tokens, None if positions are relative (T5).

    A causal model shares them between source and target; other models have as many for each.
    """
    config = model.config
    configs = [config.encoder, config.decoder] if config.model_type == "encoder-decoder" else [config]
    positions = [getattr(one, "max_position_embeddings", None) for one in configs]
    offsets = [module.padding_idx + 1 for name, module in model.named_modules()  # RoBERTa counts positions from here
               if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None]
    return None if None in positions else min(positions) - max(offsets, default=0)



def exists(path: Path) -> bool:
    """Return whether a path exists; one that no file system can hold, or that may not be looked at, does not."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False
