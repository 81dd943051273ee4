"""A student in ONNX Runtime: the exporter of transformers writes its forward passes as graphs, for one text at a time.

The loop that writes a text token by token remains that of the library, and the tokenizer too. So a student writes the
same text in ONNX Runtime as in PyTorch, up to rounding.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import subprocess
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from kdutils.errors import StudyError, first_line, masked
from kdutils.hub import model_context
from kdutils.runs import PROJECT

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SAMPLE = "Which of these has pockets?\ncoat\ntiger"  # the exporter runs the student once; any text will do
LINEAR = ["MatMul", "Gemm"]  # operators of linear layers in a graph


def export_onnx(folder: Path | str, target: Path | str, int8: bool = False) -> None:
    """Write the student in `folder` as ONNX graphs into the folder `target`.

    `int8`: with 8-bit weights in its linear layers (dynamic quantisation of ONNX Runtime). A causal student is one
    graph, which goes on from a cache of keys and values. An encoder-decoder is three: the encoder, the first step of
    the decoder, and its further steps, so that the weights of the decoder are written twice. Raises StudyError for a
    student that cannot be exported.
    """
    import torch
    from transformers.exporters import OnnxConfig, OnnxExporter, OnnxRuntimeDynamicConfig, OnnxRuntimeQuantizer

    from kdutils.student.models import model_kind
    from kdutils.student.predicting import load_trained

    model, tokenizer = load_trained(folder, place="cpu")
    kind = model_kind(model)
    if kind == "classifier":
        raise StudyError("a classifier is not exported; students that write are")
    read = tokenizer(SAMPLE, return_tensors="pt")
    read = {name: read[name][:, : model_context(model)] for name in ("input_ids", "attention_mask")}
    quantizer = OnnxRuntimeQuantizer(OnnxRuntimeDynamicConfig(op_types_to_quantize=LINEAR)) if int8 else None
    config, parts = OnnxConfig(dynamic=True, quantizer=quantizer), {}
    try:
        if kind == "causal":
            model_part = OnnxExporter().export_for_generation(model, read, config, multi_token_decode=True)
            del model_part.components["prefill"]  # the other graph reads from an empty cache, too
        else:
            # Two tokens for the decoder: an axis of length one would be fixed in the graph.
            begun = torch.full((1, 2), model.config.decoder_start_token_id)
            model_part = OnnxExporter().export_for_generation(model, {**read, "decoder_input_ids": begun}, config)
            parts["encoder"] = OnnxExporter().export(model.get_encoder(), read, config)
        parts["model"] = model_part
        for name, part in parts.items():
            part.save_pretrained(Path(target) / name)
    except Exception as error:  # every architecture fails in its own way
        cause = error.__cause__ or error
        raise StudyError(f"a {model.config.model_type} does not export to ONNX ({first_line(cause)})") from error


def compute_in_onnx_runtime(model: PreTrainedModel, graphs: Path | str) -> None:
    """Make ``model.generate`` compute in ONNX Runtime, on one thread and for one text at a time.

    `graphs`: what export_onnx wrote of this student. The model loses its own weights.
    """
    import onnxruntime
    import torch
    from transformers.exporters import ExportedModel

    from kdutils.student.models import model_kind

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    for weight in model.parameters():
        weight.data = weight.data.new_empty(0)
    parts = {path.name: ExportedModel.from_pretrained(path, device="cpu", session_options=options,
                                                      trust_remote_code=False).runners
             for path in Path(graphs).iterdir()}
    config, causal = model.config, model_kind(model) == "causal"

    def compute(runner, given):
        return runner(**{name: value for name, value in given.items() if name in runner.metadata.kwargs})

    def forward(**given):
        if given.get("past_key_values") is None:
            raise StudyError(f"a {config.model_type} keeps no cache that a graph can read")
        begun = given["past_key_values"].get_seq_length() > 0
        if causal and not begun:
            heads = getattr(config, "num_key_value_heads", config.num_attention_heads)
            size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
            nothing = torch.empty(1, heads, 0, size)
            for layer in range(config.num_hidden_layers):
                given["past_key_values"].update(nothing, nothing, layer)
        return compute(parts["model"]["decode" if causal or begun else "prefill"], given)

    model.forward = functools.wraps(model.forward)(forward)  # the library looks at the names of its arguments
    if "encoder" in parts:
        encoder = model.get_encoder()
        encoder.forward = functools.wraps(encoder.forward)(lambda **given: compute(parts["encoder"]["model"], given))


def export_apart(folder: Path | str, target: Path | str, int8: bool, timeout: float) -> int:
    """Run export_onnx in a process of its own, whose memory is not that of a student that runs; return bytes written.

    Raises StudyError with the reason if the export fails, or takes more than `timeout` seconds.
    """
    command = [sys.executable, "-m", "kdutils.deployment.onnx_runtime", str(folder), str(target)]
    try:
        ended = subprocess.run([*command, *(["int8"] if int8 else [])], cwd=PROJECT, text=True, capture_output=True,
                               timeout=timeout)
    except subprocess.TimeoutExpired as error:
        raise StudyError(f"the export takes more than {timeout:.0f} s") from error
    if ended.returncode:
        raise StudyError(last_line(ended))
    return sum(path.stat().st_size for path in Path(target).rglob("*.onnx*"))


def last_line(ended: subprocess.CompletedProcess) -> str:
    """Return the last line that a process wrote to its standard error, or with what code it ended."""
    said = ended.stderr.strip().splitlines()
    return masked(said[-1])[:300] if said else f"its process ended with {ended.returncode}"


def main(arguments: list[str]) -> int:
    """Export the student in a folder into another one: [folder, target, int8]; return the exit code."""
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    try:
        with contextlib.redirect_stdout(None):  # the exporter of torch reports its steps
            export_onnx(*arguments[:2], int8=arguments[2:] == ["int8"])
    except StudyError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
