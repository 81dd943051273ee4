"""Models in the GGUF format: found as a file, in a folder or in an installed package, and converted once.

transformers reads a GGUF file as float32, slowly, and cannot save what it read. So the weights are copied once into a
folder of safetensors below the cache, under the SHA-256 of the file; after that the model is one like any other. A
quantised file (Q4_1, say) keeps the precision that it has: its weights are those that the quantisation left.
"""

import contextlib
import importlib.util
import re
import shutil
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from kdutils.errors import StudyError, first_line
from kdutils.packages import install_command, package_folder, pinned
from kdutils.runs import cache_folder, file_stamp, is_complete, mark_complete, project_path, sha256

# Tensors that llama.cpp computed for positions, no weights. The library computes its own: without the scaling of
# Llama 3.1, which rope_freqs holds.
_COMPUTED = re.compile(r"rope_freqs\.weight|blk\.\d+\.attn_rot_embd\.weight")


def gguf_file(name: str) -> Path | None:
    """Return the GGUF file of a path, of a folder that holds one and no config.json, or of a package; None for none.

    Raises StudyError for a folder with several GGUF files.
    """
    path = project_path(name)
    if path.suffix == ".gguf":
        return path if path.is_file() else None
    if path.is_dir() and not any((path / file).is_file() for file in ("config.json", "adapter_config.json")):
        return _only_file(path)
    package = None if path.exists() else package_folder(name)
    return _only_file(package) if package else None


def convert_gguf(path: Path) -> Path:
    """Return the folder with the converted model of a GGUF file; the first call converts, whole or not at all.

    Raises StudyError if the package gguf is missing, the file cannot be read, or its tensors are not those of the
    model: one is missing, of another size, or not known to the model.
    """
    from filelock import FileLock

    folder = cache_folder() / "gguf" / f"{path.stem}-{_digest(path, *file_stamp(path))}"
    if is_complete(folder):
        return folder
    check_gguf(path)
    if not importlib.util.find_spec("gguf"):
        raise StudyError(f"{path}: a GGUF file, which needs the package gguf: {install_command(pinned('gguf'))}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f"{folder.name}.lock")):
        if not is_complete(folder):
            print(f"converting {path.name} to safetensors in {folder} (once, about two minutes)", flush=True)
            temporary = Path(mkdtemp(dir=folder.parent, prefix="converting-"))
            try:
                _convert(path, temporary)
                mark_complete(temporary)
                shutil.rmtree(folder, ignore_errors=True)
                temporary.rename(folder)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
    return folder


def check_gguf(path: Path) -> None:
    """Raise StudyError for a file that does not begin as a GGUF file does."""
    with open(path, "rb") as file:
        if file.read(4) != b"GGUF":
            raise StudyError(f"{path}: cannot be read as GGUF (it does not begin with GGUF); fetch it again")


def some(names: Sequence[str]) -> str:
    """Return the first two of `names` and the number of the others, for a message."""
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return ", ".join(first_line(name, 80) for name in names[:2]) + more


@cache
def _digest(path, size, changed):
    return sha256(path)


def _only_file(folder):
    files = sorted(folder.glob("*.gguf"))
    if len(files) > 1:
        raise StudyError(f"{folder}: it holds several GGUF files; name one of {', '.join(file.name for file in files)}")
    return files[0] if files else None


def _convert(path, folder):
    """Write the model and vocabulary of a GGUF file into `folder`."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()
    try:
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, trust_remote_code=False)
        model, info = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32,
                                                           trust_remote_code=False, output_loading_info=True)
        unknown = _unknown_tensors(path, model)
    except Exception as error:  # a broken file may raise any type
        raise StudyError(f"{path}: cannot be read as GGUF ({first_line(error)}); fetch it again") from error
    faults = sorted({*info["missing_keys"], *info["unexpected_keys"], *map(str, info["mismatched_keys"]), *unknown})
    if faults:
        raise StudyError(f"{path}: its tensors are not those of the model: {some(faults)}")
    config = model.config
    with contextlib.suppress(AttributeError):
        del config.quantization_config  # the weights are whole numbers no longer
    plain = type(model)(config).to(torch.float32)
    plain.load_state_dict(model.state_dict())
    plain.generation_config = model.generation_config
    plain.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _unknown_tensors(path, model):
    """Return the names of the tensors in a GGUF file that have no place in the model and were left out silently."""
    from gguf import GGUFReader
    from transformers import modeling_gguf_pytorch_utils as library
    from transformers.integrations.gguf import is_gguf_arch_supported

    reader = GGUFReader(path)
    architecture = library.read_field(reader, "general.architecture")[0]
    if is_gguf_arch_supported(architecture):  # the library's newer way of reading: unexpected_keys has them
        return []
    processor = library.TENSOR_PROCESSORS.get(architecture, library.TensorProcessor)()
    known = library.get_gguf_hf_weights_map(model, processor)
    return [tensor.name for tensor in reader.tensors if not _is_computed(tensor)
            and not {tensor.name, tensor.name.removesuffix(".weight")} & known.keys()]  # experts: known without .weight


def _is_computed(tensor):
    """Say whether the model is the same without a tensor of llama.cpp; factors other than 1 scale its positions."""
    return bool(_COMPUTED.fullmatch(tensor.name)) and not (tensor.name.startswith("rope_freqs")
                                                           and (tensor.data != 1).any())
