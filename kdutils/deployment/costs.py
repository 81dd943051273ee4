"""What a student costs to run: size, memory and time, with float32 and int8 weights, in PyTorch and in ONNX Runtime.

A student answers some questions one by one, in a process of its own and on one CPU thread, as in an app that serves one
person. The int8 weights are those of torch's dynamic quantisation: the linear layers have 8-bit weights, and their
inputs are rounded to 8 bits as they come; embeddings stay in float32. ONNX Runtime has its own dynamic quantisation of
the same layers (kdutils.deployment.onnx_runtime). Time and memory depend on the machine.
"""

from __future__ import annotations

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
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from kdutils.data.answers import MARKER, is_right, parse_answer
from kdutils.data.tables import read_table, write_table
from kdutils.deployment.onnx_runtime import compute_in_onnx_runtime, export_apart
from kdutils.errors import StudyError, first_line, masked
from kdutils.hub import device
from kdutils.runs import PROJECT

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

FORMS = ("float32", "int8", "float32 on the GPU")  # in PyTorch
ONNX_FORMS = {"float32, ONNX Runtime": False, "int8, ONNX Runtime": True}  # form -> whether it is quantised
TIMED = 16  # questions that are answered and explained one by one
LONG = 1800  # seconds after which a measurement is given up
MIB = 2 ** 20


def running_costs(folder: Path | str, questions: pd.DataFrame, max_explanation_tokens: int, count: int,
                  onnx_runtime: bool = False, timeout: float = LONG) -> tuple[list[dict], list[str]]:
    """Return (records, notes): what the student in `folder` costs when it answers the first `count` of `questions`.

    One record per form of the weights (FORMS, the last one where there is a GPU; with `onnx_runtime` also ONNX_FORMS,
    which export the student first) with

    - parameters; bytes: size of the weights on disk, or of the graphs with them;
    - peak_memory_mib: the most memory of the process while the student answers one question at a time, and
      libraries_mib: what Python and its libraries take of it before a model is loaded (on a GPU: its own peak, and 0);
    - answer_ms, explanation_ms: median milliseconds until the answer, and until the explanation, of one of the first
      TIMED questions is written (of one text with both: until it is complete; None without explanations);
    - questions: how many were answered; accuracy (0 to 1); and how many answers are right that were wrong with float32
      weights (`gained`), and wrong that were right (`lost`).

    What cannot be measured has no record, and a note says why. Raises StudyError if `count` is less than 1.
    """
    if count < 1:
        raise StudyError(f"running costs: {count} questions; give at least 1")
    forms = FORMS if device() == "cuda" else FORMS[:2]
    with tempfile.TemporaryDirectory() as scratch:
        write_table(questions.head(count), Path(scratch) / "questions.parquet", "questions")
        given = {"folder": str(Path(folder).resolve()), "questions": f"{scratch}/questions.parquet",
                 "max_explanation_tokens": max_explanation_tokens}
        lines = _measured({**given, "forms": forms}, timeout)
        lines += _measured({**given, "forms": [*ONNX_FORMS]}, timeout) if onnx_runtime else []
    reasons = {line["weights"]: line["failed"] for line in lines if "failed" in line}
    records = [line for line in lines if "failed" not in line]
    return _compared(records), [f"{form}: not measured: {reason}" for form, reason in reasons.items()]


def cost_record(folder: Path, items: list[dict], form: str, max_explanation_tokens: int, libraries: float) -> dict:
    """Return the record of one form of the weights (see running_costs), measured in this process.

    `libraries`: memory of the process before a model was loaded, in MiB. `right` of the record says of each of `items`
    whether it was answered correctly.
    """
    from kdutils.student.methods import asked_as
    from kdutils.student.predicting import load_trained

    on_gpu = form == FORMS[2]
    clock = time.perf_counter if on_gpu else time.thread_time  # without the time that other programs take
    model, tokenizer = load_trained(folder, place="cuda" if on_gpu else "cpu")
    parameters = sum(weight.numel() for weight in model.parameters())
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    with tempfile.TemporaryDirectory() as graphs:
        if form == "int8":
            model = quantize(model)
            size = _saved_size(model)
        elif form in ONNX_FORMS:
            size = export_apart(folder, graphs, ONNX_FORMS[form])
            compute_in_onnx_runtime(model, graphs)
        gc.collect()
        ask, explain = _tasks(model, tokenizer, asked_as(folder), items, max_explanation_tokens)
        ask(items[:1])  # the first pass also allocates memory and chooses kernels
        with _peak_memory(on_gpu) as peak:
            of_answers, of_texts = _seconds(ask, items[:TIMED], clock), _seconds(explain, items[:TIMED], clock)
        one_by_one = [[item] for item in items] if form in ONNX_FORMS else [items]  # its graphs hold one text
        answers = [answer for asked in one_by_one for answer in ask(asked)]
    right = [is_right(answer, item["answer"], item["choices"]) for answer, item in zip(answers, items, strict=True)]
    return {"weights": form, "parameters": parameters, "bytes": size, "peak_memory_mib": round(peak[0], 1),
            "libraries_mib": 0.0 if on_gpu else round(libraries, 1), "answer_ms": _median_ms(of_answers),
            "explanation_ms": _median_ms(of_texts), "questions": len(items), "accuracy": sum(right) / len(right),
            "right": right}


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


@contextmanager
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
    """Return what a process of its own printed of each form; a form that it did not reach has failed."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    with subprocess.Popen([sys.executable, "-m", "kdutils.deployment.costs"], stdin=subprocess.PIPE, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, cwd=PROJECT) as process:
        try:
            printed, errors = process.communicate(json.dumps(given), timeout=timeout)
            told = errors.strip().splitlines()
            problem = masked(told[-1][:300]) if told else f"its process ended with {process.returncode}"
        except subprocess.TimeoutExpired:
            process.kill()
            printed, _ = process.communicate()
            problem = f"all takes more than {timeout:.0f} s; lower timed_questions"
    lines = [json.loads(line) for line in printed.splitlines() if line.startswith('{"')]
    reached = {line["weights"] for line in lines}
    return lines + [{"weights": form, "failed": problem} for form in given["forms"] if form not in reached]


def _compared(records):
    """Return the records with what the form of the weights changed in the answers, in the place of `right`."""
    own = next((record["right"] for record in records if record["weights"] == FORMS[0]), None)
    for record in records:
        right = record.pop("right")
        pairs = list(zip(own or right, right, strict=True))
        record |= {"gained": pairs.count((False, True)) if own else None,
                   "lost": pairs.count((True, False)) if own else None}
    return records


def main() -> None:
    """Read what to measure as JSON from the standard input; print one record per form of the weights, a line each."""
    import torch

    import kdutils.student.predicting  # noqa: F401 (its memory counts as that of the libraries)

    given = json.load(sys.stdin)
    if set(given["forms"]) & set(ONNX_FORMS):
        from transformers.exporters import OnnxExporter, runners  # noqa: F401 (likewise)
    torch.set_num_threads(1)
    items = read_table(given["questions"], "questions").to_dict("records")
    libraries = _memory()
    for form in given["forms"]:
        gc.collect()
        try:
            record = cost_record(Path(given["folder"]), items, form, given["max_explanation_tokens"], libraries)
        except StudyError as error:
            record = {"weights": form, "failed": str(error)}
        print(json.dumps(record), flush=True)


if __name__ == "__main__":
    main()
