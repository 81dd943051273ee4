"""What a student costs to run: size, memory and time, with float32 and int8 weights, in PyTorch and in ONNX Runtime.

A student answers some questions one by one, on one CPU thread, as in an app that serves one person. Each form of its
weights has a process of its own. The int8 weights are those of torch's dynamic quantisation: the linear layers have
8-bit weights, and their inputs are rounded to 8 bits as they come; embeddings stay in float32. ONNX Runtime has its own
dynamic quantisation of the same layers (kdutils.deployment.onnx_runtime). Time and memory depend on the machine.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from kdutils.data.answers import MARKER, is_right, parse_answer
from kdutils.data.tables import read_table, write_table
from kdutils.deployment.onnx_runtime import compute_in_onnx_runtime, export_apart, last_line
from kdutils.errors import StudyError, first_line
from kdutils.hub import device
from kdutils.runs import PROJECT

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

FORMS = ("float32", "int8", "float32 on the GPU")  # in PyTorch
ONNX_FORMS = {"float32, ONNX Runtime": False, "int8, ONNX Runtime": True}  # form -> whether it is quantised
TIMED = 16  # questions that are answered and explained one by one
WARM = 3  # of them before, without counting
LONG = 1800  # seconds after which a measurement is given up
MIB = 2 ** 20


def running_costs(folder: Path | str, questions: pd.DataFrame, max_explanation_tokens: int, count: int,
                  onnx_runtime: bool = False, timeout: float = LONG) -> tuple[list[dict], list[str]]:
    """Return (records, notes): what the student in `folder` costs when it answers the first `count` of `questions`.

    One record per form of the weights (FORMS, the last one where there is a GPU; with `onnx_runtime` also ONNX_FORMS,
    which export the student first) with

    - parameters; bytes: size of the weights on disk, or of the graphs with them;
    - peak_memory_mib: the most memory of the process while the student, once loaded, answers one question at a time,
      and libraries_mib: what Python and its libraries take of it (on a GPU: its own peak, and 0);
    - answer_ms, explanation_ms: median milliseconds of processor time (on a GPU of the clock) until the answer, and
      until the explanation, of one of the first TIMED questions is written (of one text with both: until it is
      complete; None without explanations);
    - questions: how many were answered; accuracy (0 to 1); and how many answers are right that were wrong with float32
      weights (`gained`), and wrong that were right (`lost`).

    What cannot be measured has no record, and a note says why. Raises StudyError if `count` is less than 1.
    """
    if count < 1:
        raise StudyError(f"running costs: {count} questions; give at least 1")
    records, notes = [], []
    with tempfile.TemporaryDirectory() as scratch:
        write_table(questions.head(count), Path(scratch) / "questions.parquet", "questions")
        given = {"folder": str(Path(folder).resolve()), "questions": f"{scratch}/questions.parquet",
                 "max_explanation_tokens": max_explanation_tokens, "graphs": ""}
        for form in [*FORMS[:3 if device() == "cuda" else 2], *(ONNX_FORMS if onnx_runtime else [])]:
            try:
                if form in ONNX_FORMS:
                    given["graphs"] = str(Path(scratch) / form)
                    size = export_apart(given["folder"], given["graphs"], ONNX_FORMS[form], timeout)
                record = _measured({**given, "form": form}, timeout)
                records.append(record | ({"bytes": size} if form in ONNX_FORMS else {}))
            except StudyError as error:
                notes.append(f"{form}: not measured: {error}")
    return _compared(records), notes


def cost_record(folder: Path, items: list[dict], form: str, max_explanation_tokens: int, graphs: str = "") -> dict:
    """Return the record of one form of the weights (see running_costs), measured in this process.

    `graphs`: the folder of export_onnx, for a form in ONNX Runtime. `right` of the record says of each of `items`
    whether it was answered correctly.
    """
    from kdutils.student.methods import asked_as
    from kdutils.student.predicting import load_trained

    on_gpu = form == FORMS[2]
    clock = time.perf_counter if on_gpu else time.thread_time  # without the time that other programs take
    _import_architecture(folder)
    libraries = _memory()
    model, tokenizer = load_trained(folder, place="cuda" if on_gpu else "cpu")
    parameters = sum(weight.numel() for weight in model.parameters())
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    if form == "int8":
        model = quantize(model)
        size = _saved_size(model)
    elif graphs:
        compute_in_onnx_runtime(model, graphs)
    gc.collect()
    ask, explain = _tasks(model, tokenizer, asked_as(folder), items, max_explanation_tokens)
    for task in filter(None, (ask, explain)):
        _seconds(task, items[:WARM], clock)  # the first passes also allocate memory and choose kernels
    with _peak_memory(on_gpu) as peak:
        of_answers, of_texts = _seconds(ask, items[:TIMED], clock), _seconds(explain, items[:TIMED], clock)
    one_by_one = [[item] for item in items] if graphs else [items]  # graphs hold one text
    answers = [answer for asked in one_by_one for answer in ask(asked)]
    right = [is_right(answer, item["answer"], item["choices"]) for answer, item in zip(answers, items, strict=True)]
    return {"weights": form, "parameters": parameters, "bytes": size, "peak_memory_mib": round(peak[0], 1),
            "libraries_mib": 0.0 if on_gpu else round(libraries, 1), "answer_ms": _median_ms(of_answers),
            "explanation_ms": _median_ms(of_texts), "questions": len(items), "accuracy": sum(right) / len(right),
            "right": right}


def _import_architecture(folder):
    """Import the code of a student's architecture without its weights: it counts as libraries."""
    import torch
    from transformers import AutoConfig, AutoModel

    with torch.device("meta"), contextlib.suppress(ValueError, OSError):  # load_trained says what is wrong
        AutoModel.from_config(AutoConfig.from_pretrained(folder, trust_remote_code=False))


def quantize(model: PreTrainedModel) -> PreTrainedModel:
    """Return the model with int8 weights in its linear layers, changed in place; StudyError if that is not possible."""
    import torch

    linear = [layer for layer in model.modules() if isinstance(layer, torch.nn.Linear)]
    if not linear:
        raise StudyError(f"a {model.config.model_type} has no linear layers that torch can quantise")
    try:
        with warnings.catch_warnings(action="ignore"):  # torch announces a successor that is another package
            return torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8, inplace=True)
    except (AttributeError, ImportError, RuntimeError) as error:  # no such function, no engine for this processor
        raise StudyError(f"torch cannot quantise on this machine ({first_line(error)})") from error


def _tasks(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, asks, items, max_explanation_tokens):
    """Return (function that answers questions, function that explains them or None)."""
    from kdutils.student.models import model_kind
    from kdutils.student.predicting import answer_tokens, choose, generate

    if model_kind(model) == "classifier":
        return lambda asked: choose(model, tokenizer, asked, asks), None
    limit = answer_tokens(tokenizer, asks, items) + (max_explanation_tokens if asks.explains_first else 0)
    longest = max_explanation_tokens + (answer_tokens(tokenizer, asks, items) if asks.one_text else 0)
    stop = MARKER if asks.one_text and not asks.explains_first else ""

    def answer(asked):
        texts = generate(model, tokenizer, [asks.source(item, asks.answer) for item in asked], limit, stop=stop)
        return [parse_answer(text, item["choices"])[0] for text, item in zip(texts, asked, strict=True)]

    def explain(asked):
        return generate(model, tokenizer, [asks.source(item, asks.explanation) for item in asked], longest)

    return answer, None if asks.explanation is None else explain


def _seconds(function, items, clock):
    """Return the seconds that a function takes for each of `items` alone; [] without a function."""
    seconds = []
    for item in items if function else []:
        begun = clock()
        function([item])
        seconds.append(clock() - begun)
    return seconds


def _median_ms(seconds):
    return round(1000 * float(pd.Series(seconds).median()), 2) if seconds else None


def _memory():
    """Return the resident memory of this process in MiB."""
    import psutil

    return psutil.Process().memory_info().rss / MIB


@contextlib.contextmanager
def _peak_memory(on_gpu: bool) -> Iterator[list[float]]:
    """Yield a list whose one entry is, after the block, the most memory in use during it, in MiB."""
    import torch

    peak, done = [_memory()], threading.Event()

    def watch():
        while not done.wait(0.002):
            peak[0] = max(peak[0], _memory())

    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
        yield peak
        peak[0] = torch.cuda.max_memory_allocated() / MIB
        return
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()


def _saved_size(model: torch.nn.Module) -> int:
    """Return how many bytes the weights take in a file."""
    import torch

    with tempfile.TemporaryFile() as file:
        torch.save(model.state_dict(), file)
        return file.tell()


def _measured(given, timeout):
    """Return what a process of its own measured of one form; StudyError with the reason if it did not."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    try:
        ended = subprocess.run([sys.executable, "-m", "kdutils.deployment.costs"], input=json.dumps(given), text=True,
                               capture_output=True, env=environment, cwd=PROJECT, timeout=timeout)
    except subprocess.TimeoutExpired as error:
        raise StudyError(f"it takes more than {timeout:.0f} s; lower timed_questions") from error
    if ended.returncode:
        raise StudyError(last_line(ended))
    return json.loads(ended.stdout.strip().splitlines()[-1])


def _compared(records):
    """Return the records with what the form of the weights changed in the answers, in the place of `right`."""
    own = next((record["right"] for record in records if record["weights"] == FORMS[0]), None)
    for record in records:
        right = record.pop("right")
        pairs = list(zip(own or right, right, strict=True))
        record |= {"gained": pairs.count((False, True)) if own else None,
                   "lost": pairs.count((True, False)) if own else None}
    return records


def main() -> int:
    """Read what to measure as JSON from the standard input, and print its record; return the exit code."""
    import torch

    import kdutils.student.predicting  # noqa: F401 (its memory counts as that of the libraries)

    given = json.load(sys.stdin)
    if given["graphs"]:
        from transformers.exporters import OnnxExporter, runners  # noqa: F401 (likewise)
    torch.set_num_threads(1)
    items = read_table(given["questions"], "questions").to_dict("records")
    try:
        record = cost_record(Path(given["folder"]), items, given["form"], given["max_explanation_tokens"],
                             given["graphs"])
    except StudyError as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps(record))
    return 0


if __name__ == "__main__":
    sys.exit(main())
