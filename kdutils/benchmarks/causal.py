"""Speed of training a causal student: this trainer against TRL's SFTTrainer and the library's Trainer.

    KDUTILS_DATA=... python -m kdutils.benchmarks.causal [--smoke] [--output outputs/bench/causal]

All train SmolLM2-135M with its own weights and vocabulary on the same rows of the same CommonsenseQA questions with the
published explanations of Llama-2-13B (unrevised, the tag after the question), with the same optimiser, precision and
number of questions per optimiser step.

- trl: SFTTrainer with packing, loss on the completions alone and no gradient checkpointing, one packed sequence at a
  time. The sequences of a step hold exactly the rows of its questions, uncut.
- plain: the library's Trainer, rows padded to the longest of their batch, sources and padding with the label -100.
- ours: StudyTrainer as train_student runs it. The rows of a question share its tokens (rows.SharedRows).

In place of all this, ``--compile`` measures ours with and without torch.compile, and ``--profile`` says on what a step
of ours spends its time.

The length of packed sequences and the number of rows of a batch are tried out first. The fastest ones are taken. Each
measurement has its own process, in alternating order. A round trains on its own questions: one step that is not timed,
then `steps` timed ones. Before the first update all must have the same loss per target token. This shows that they
train on the same tokens, and that packing and sharing keep the rows apart.

"less to compute" is the factor by which sharing alone lowers the multiplications of a step (attention scores left
out, no padding on either side). "matrix speed" is the share of this machine's own speed of matrix products that a step
of ours reaches: its multiplications per second, padding left out, divided by those of the same products alone. These
are the products of all linear layers, forward and backward, with the sizes that they have in the chunks of the step,
each with the faster one of PyTorch's libraries. They are timed in the same rounds.

Writes results.json to the output folder and prints the table. On a GPU: larger steps.
"""

import importlib.util
import os
import re
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from importlib import metadata
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from kdutils.benchmarks.machine import command_line, conditions, decimals, exit_code, now, show_machine, unevaluated
from kdutils.benchmarks.processes import Bench, StepTimes, peak_mib, pooled
from kdutils.benchmarks.training import load_questions
from kdutils.errors import StudyError
from kdutils.runs import PROJECT, machine, project_path, write_json

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer, TrainerCallback, TrainingArguments

    from kdutils.student.methods import Explained
    from kdutils.student.rows import TokenRow

MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
WAYS = ("trl", "plain", "ours")
COMPILED = ("ours", "compiled")  # what --compile compares
METHODS = ("label_only", "multitask", "combined")
RANK = 8  # of LoRA
TOKENS = 512  # limit of sources and of targets; no text reaches it
GOALS = {("multitask", "all", "float32"): 1.5, ("combined", "all", "float32"): 2.0}  # ours divided by trl
SPEED_GOAL = 0.8  # share of the speed of matrix products
SAME = {"float32": 1e-3, "bf16": 2e-2}  # relative difference of the first losses
LIKE_OURS = ("max_steps", "learning_rate", "lr_scheduler_type", "warmup_steps", "weight_decay", "max_grad_norm",
             "optim", "bf16", "use_cpu", "seed", "data_seed", "report_to", "disable_tqdm", "logging_steps",
             "logging_first_step", "eval_strategy", "save_strategy", "dataloader_num_workers", "dataloader_pin_memory")


PRELOADED = ("kdutils.student.trainer", "transformers.models.llama.modeling_llama", "peft", "trl.trainer.sft_trainer")


class Cell(NamedTuple):
    """What is measured: a method, ``all`` weights or ``LoRA``, ``float32`` or ``bf16``."""

    method: str
    weights: str
    precision: str


CELLS = [Cell(*cell) for cell in product(METHODS, ("all", "LoRA"), ("float32", "bf16"))]


# The rows

def read_data(smoke: bool, count: int) -> "tuple[pd.DataFrame, dict[str, Explained]]":
    """Return (questions, {id: Explained}); with `smoke` those of the embedded world."""
    if not smoke:
        table, explained = load_questions(count)
        return table, explained[False]
    from kdutils.data.tables import read_table
    from kdutils.student.methods import explained_of

    folder = PROJECT / "kdutils" / "mini" / "example"
    table = read_table(folder / "questions" / "questions.parquet", "questions").head(count)
    texts = [read_table(folder / name / "explanations.parquet", "explanations")
             for name in ("explanations", "counterfactuals")]
    of_table = [frame[frame["id"].isin(table["id"])] for frame in texts]
    return table, explained_of(of_table[0], table, of_table[1])


def token_rows(tokenizer: "PreTrainedTokenizerBase", method: str, table: "pd.DataFrame",
               explained: "dict[str, Explained]") -> "list[list[TokenRow]]":
    """Return the rows of each question, the tag after the question; StudyError where a text would be cut."""
    from kdutils.student.collating import EpochRows, RowFormat, tokenize_rows

    items = table.to_dict("records")
    entries, cuts = tokenize_rows(tokenizer, method, {}, items, explained,
                                  RowFormat(TOKENS, TOKENS, "causal", None, "after"))
    if any(cuts.values()):
        raise StudyError(f"{method}: texts are longer than {TOKENS} tokens: {cuts}; the ways would differ in the cut")
    drawn = EpochRows(entries, [item["id"] for item in items], 0)
    return [drawn[i] for i in range(len(items))]


def labelled(row: "TokenRow") -> tuple[list[int], list[int]]:
    """Return (input ids, labels) of a row as the library takes them: not moved, -100 where nothing is counted."""
    from kdutils.student.rows import IGNORED

    return row.source + row.target, [IGNORED] * (len(row.source) + row.given) + row.target[row.given:]


# The three trainers

def trl_trainer(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", rows: "list[list[TokenRow]]",
                arguments: "TrainingArguments", settings: dict, *callbacks: "TrainerCallback") -> "Trainer":
    """Return TRL's trainer; StudyError where its packed sequences do not hold exactly the rows."""
    import datasets
    from trl import SFTConfig, SFTTrainer, pack_dataset

    from kdutils.student.rows import IGNORED

    datasets.disable_progress_bars()
    pairs = [labelled(row) for group in rows for row in group]
    columns = {"input_ids": [ids for ids, _ in pairs],
               "completion_mask": [[int(label != IGNORED) for label in labels] for _, labels in pairs]}
    data = datasets.Dataset.from_dict(columns)
    sequences = len(pack_dataset(data, settings["trl_length"], "bfd"))
    config = SFTConfig(
        **like_ours(arguments), output_dir=arguments.output_dir, per_device_train_batch_size=1,
        gradient_accumulation_steps=sequences, packing=True, packing_strategy="bfd", max_length=settings["trl_length"],
        completion_only_loss=True, gradient_checkpointing=False)
    trainer = SFTTrainer(model=model, args=config, train_dataset=data, processing_class=tokenizer,
                         callbacks=list(callbacks))
    if packed_rows(trainer.train_dataset) != Counter((tuple(ids), tuple(labels)) for ids, labels in pairs):
        raise StudyError(f"trl: its packed sequences do not hold the rows as they are; is trl_length "
                         f"({settings['trl_length']}) shorter than the longest row?")
    return trainer


def packed_rows(data: "Dataset") -> Counter:
    """Return how often each (input ids, labels) is in the packed sequences of TRL."""
    found = Counter()
    for sequence in data:
        first = 0
        for length in sequence["seq_lengths"]:
            part = slice(first, first + length)
            found[tuple(sequence["input_ids"][part]), tuple(sequence["labels"][part])] += 1
            first += length
    return found


def plain_trainer(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", rows: "list[list[TokenRow]]",
                  arguments: "TrainingArguments", settings: dict, *callbacks: "TrainerCallback") -> "Trainer":
    """Return the library's Trainer, with rows padded to the longest of their batch."""
    from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

    pairs = [labelled(row) for group in rows for row in group]
    batch = settings["plain_rows"]
    config = TrainingArguments(**like_ours(arguments), output_dir=arguments.output_dir,
                               per_device_train_batch_size=batch, gradient_accumulation_steps=-(-len(pairs) // batch))
    return Trainer(model=model, args=config, data_collator=DataCollatorForSeq2Seq(tokenizer, padding=True),
                   train_dataset=[{"input_ids": ids, "labels": labels} for ids, labels in pairs],
                   callbacks=list(callbacks))


def study_trainer(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", rows: "list[list[TokenRow]]",
                  arguments: "TrainingArguments", settings: dict, *callbacks: "TrainerCallback") -> "Trainer":
    """Return our trainer, set up as train_student does."""
    from kdutils.student.fast_layers import compile_stacks
    from kdutils.student.methods import task_weights
    from kdutils.student.trainer import StudyTrainer

    weights = task_weights(settings["method"], {})
    trainer = StudyTrainer(
        model=model, args=arguments, train_dataset=rows, weights=list(weights.values()), tasks=list(weights),
        token_budget=settings["budget"], dev_rows=rows[:1], dev_accuracy=None, start=None,
        pad=model.config.pad_token_id, callbacks=list(callbacks))
    if settings["compile"]:
        compile_stacks(model)
    return trainer


def arguments_of(folder: Path | str, questions: int, steps: int, precision: str) -> "TrainingArguments":
    """Return the arguments of our trainer for `steps` steps, without evaluations and checkpoints."""
    from kdutils.student.trainer import training_arguments

    arguments = unevaluated(training_arguments(folder, 0, 1, questions, 5e-5, 0, steps, 1, precision))
    arguments.logging_first_step, arguments.logging_steps = True, 10**6  # later losses are not needed
    return arguments


def like_ours(arguments: "TrainingArguments") -> dict:
    """Return the settings that all three trainers have in common."""
    return {name: getattr(arguments, name) for name in LIKE_OURS}


TRAINERS = {"trl": trl_trainer, "plain": plain_trainer, "compiled": study_trainer, "ours": study_trainer}


def time_steps(way: str, cell: Cell, table: "pd.DataFrame", explained: "dict[str, Explained]",
               settings: dict, *watching: "TrainerCallback") -> dict:
    """Return {"first": seconds of the step before, "seconds" of each timed step, "loss", "target_tokens", "peak_mib"}.

    `way`: one of WAYS or COMPILED; for "products" see time_products. All steps train on the questions of `table`.
    "loss": the mean −log p of the target tokens before the first update; "target_tokens": how many a question has.
    `watching`: callbacks of the trainer.
    """
    from kdutils.student.models import load_student

    model, tokenizer = load_student(settings["model"], lora={"rank": RANK} if cell.weights == "LoRA" else None)
    rows = token_rows(tokenizer, cell.method, table, explained)
    if way == "products":
        return time_products(model, rows, settings["budget"], cell.precision)
    watch = StepTimes()
    arguments = arguments_of(tempfile.mkdtemp(), len(rows), settings["steps"] + 1, cell.precision)
    settings = {**settings, "method": cell.method, "compile": way == "compiled"}
    trainer = TRAINERS[way](model, tokenizer, rows, arguments, settings, watch.callback, *watching)
    trainer.train()
    counted = [row.counted for group in rows for row in group]
    first, *seconds = watch.steps()
    return {"first": first, "seconds": seconds, "loss": first_loss(trainer.state.log_history[0], rows, cell.method),
            "target_tokens": sum(counted) / len(rows), "peak_mib": peak_mib()}


def first_loss(logged: dict[str, float], rows: "list[list[TokenRow]]", method: str) -> float:
    """Return the mean −log p of all target tokens, from what a trainer has logged after its first step."""
    from kdutils.student.methods import task_weights
    from kdutils.student.rows import counted_tokens

    tasks = list(task_weights(method, {}))
    if f"loss_{tasks[0]}" not in logged:
        return logged["loss"]
    counts = counted_tokens([row for group in rows for row in group], len(tasks))
    return sum(logged[f"loss_{task}"] * count for task, count in zip(tasks, counts, strict=True)) / sum(counts)


# The multiplications of a step

class Layer(NamedTuple):
    """A linear layer: the sizes of its output and input, and how often a step multiplies them per token.

    `passes`: the forward pass, the gradient of the input and, where the weight is trained, the gradient of the weight.
    `head`: whether it is the output layer, which runs on counted tokens alone.
    """

    out: int
    inner: int
    passes: int
    head: bool


def linear_layers(model: "PreTrainedModel") -> Counter:
    """Return {Layer: how many of them the model has}."""
    import torch

    head = model.get_output_embeddings()
    return Counter(Layer(*module.weight.shape, 2 + module.weight.requires_grad, module is head)
                   for module in model.modules() if isinstance(module, torch.nn.Linear))


def multiplications(layers: Counter, tokens: int, counted: int) -> int:
    """Return the multiplications of a step, attention scores left out; `tokens` run, `counted` have a loss."""
    return sum(number * layer.passes * layer.out * layer.inner * (counted if layer.head else tokens)
               for layer, number in layers.items())


def time_products(model: "PreTrainedModel", rows: "list[list[TokenRow]]", budget: int, precision: str) -> dict:
    """Return {"seconds": [of the matrix products of a step of ours alone], "multiplications": {…}, "peak_mib"}.

    The multiplications are those of the products (``run``) and, without padding, those of our step (``shared``) and of
    separate rows (``separate``).
    """
    import torch

    from kdutils.student.attention import attends_in_blocks
    from kdutils.student.chunks import cut_rows, pad_chunk
    from kdutils.student.rows import SharedRows
    from kdutils.student.sharing import use_blocks

    use_blocks(model)
    layers, seconds, run = linear_layers(model), 0.0, 0
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    shared = [SharedRows(group) for group in rows]
    for part in cut_rows(shared, budget, True):
        chunk = pad_chunk(part, 0, None, True, attends_in_blocks(model))
        tokens, counted = chunk["input_ids"].numel(), len(chunk["places"])
        seconds += sum(number * time_layer(layer, counted if layer.head else tokens, kind)
                       for layer, number in layers.items())
        run += multiplications(layers, tokens, counted)
    separate = [SharedRows([row]) for group in rows for row in group]
    counts = {name: multiplications(layers, sum(len(row.ids) for row in some), sum(len(row.counted) for row in some))
              for name, some in (("shared", shared), ("separate", separate))}
    return {"seconds": [seconds], "multiplications": {"run": run, **counts}, "peak_mib": peak_mib()}


def time_layer(layer: Layer, tokens: int, kind: "torch.dtype") -> float:
    """Return the seconds of the products of one layer for this many tokens, each by its fastest kernel."""
    import torch
    from torch.nn import functional

    from kdutils.hub import device
    from kdutils.student.products import linear

    inputs, weight, slope = (torch.randn(*size, device=device()).to(kind) for size in (
        (tokens, layer.inner), (layer.out, layer.inner), (tokens, layer.out)))
    pairs = [(inputs, weight), (slope, weight.t()), (slope.t(), inputs.t())][: layer.passes]
    return sum(min(median_time(kernel, *pair) for kernel in (functional.linear, linear)) for pair in pairs)


def median_time(function: Callable, *arguments: object, repeats: int = 3) -> float:
    """Return the median of the seconds of a call, after one that is not timed."""
    seconds = []
    for _ in range(repeats + 1):
        started = now()
        function(*arguments)
        seconds.append(now() - started)
    return statistics.median(seconds[1:])


# The whole benchmark

SETTINGS = {  # of a machine without a GPU, with one, and of --smoke; "tried": what the others try out first
    "cpu": {"model": MODEL, "cells": CELLS, "questions_per_step": 16, "steps": 2, "rounds": 2, "budget": 2000,
            "tried": {"trl_length": (256, 512, 1024), "plain_rows": (4, 8, 16)}},
    "gpu": {"model": MODEL, "cells": CELLS, "questions_per_step": 128, "steps": 5, "rounds": 2, "budget": 16_000,
            "tried": {"trl_length": (1024, 4096, 16_384), "plain_rows": (32, 64, 128)}},
    "smoke": {"model": "kdutils/mini/teacher", "cells": [CELLS[7], CELLS[8]], "questions_per_step": 3, "steps": 1,
              "rounds": 1, "budget": 300, "tried": {"trl_length": (512,), "plain_rows": (4,)}},
}


def measure_compile(smoke: bool = False, threads: int = 0) -> list[dict]:
    """Print and return the speed of our trainer on multitask, as it is and with torch.compile."""
    import torch

    settings = SETTINGS["smoke" if smoke else "gpu" if torch.cuda.is_available() else "cpu"]
    threads, at_once = threads or os.cpu_count(), settings["questions_per_step"]
    table, explained = read_data(smoke, at_once)
    show_machine({**machine(), "threads": threads})
    print(f"\nmultitask, a step of {at_once} questions, all weights\n| precision | ours, questions/s | compiled, "
          "questions/s | compiled / ours | first step ours, s | first step compiled, s |\n|---|" + 5 * "--:|")
    bench, rows = Bench(threads, PRELOADED), []
    for precision in ("float32", "bf16"):
        found = bench.alternate(time_steps, COMPILED, Cell("multitask", "all", precision), table, explained, settings,
                                rounds=2)
        speed = [at_once / statistics.median(found[way]["seconds"]) for way in COMPILED]
        rows.append({"precision": precision, "ours": speed[0], "compiled": speed[1], "ratio": speed[1] / speed[0],
                     **{f"first_{way}": found[way]["first"] for way in COMPILED}})
        print(f"| {precision} | {' | '.join(decimals(value) for value in list(rows[-1].values())[1:])} |", flush=True)
    return rows


OPERATIONS = {  # of PyTorch, by what they do in a step; the rest is arithmetic on single numbers
    "products of linear layers": r"aten::(mm|addmm)|mkldnn::.*linear.*|.*mkldnn_linear.*",
    "attention": r"aten::(bmm|baddbmm|_softmax|_softmax_backward_data|masked_fill_?)|KeptWeights.*|.*scaled_dot.*",
    "changes of precision, copies": r"aten::(copy_|_to_copy|fill_|empty.*|zero_|cat)",
    "optimiser, clipping": r"aten::(_fused_adamw_|linalg_vector_norm|_foreach.*)",
}


def profile_steps(smoke: bool = False, threads: int = 0) -> list[dict]:
    """Print and return the share of each kind of operation in a step of ours: multitask, all weights, per precision."""
    import torch

    settings = SETTINGS["smoke" if smoke else "gpu" if torch.cuda.is_available() else "cpu"]
    threads, rows = threads or os.cpu_count(), []
    table, explained = read_data(smoke, settings["questions_per_step"])
    show_machine({**machine(), "threads": threads})
    print(f"\nmultitask, a step of {settings['questions_per_step']} questions, all weights\n| precision | step, s | "
          f"{' | '.join(OPERATIONS)} | the rest |\n|---|--:|" + (len(OPERATIONS) + 1) * "--:|")
    bench = Bench(threads, PRELOADED)
    for precision in ("float32", "bf16"):
        found = bench.alternate(time_operations, ["ours"], Cell("multitask", "all", precision), table, explained,
                                settings, rounds=1)["ours"]
        rows.append({"precision": precision, "seconds": found["seconds"][0], "shares": found["shares"]})
        print(f"| {precision} | {found['seconds'][0]:.2f} | "
              f"{' | '.join(f'{share:.0%}' for share in found['shares'].values())} |", flush=True)
    return rows


def time_operations(way: str, cell: Cell, table: "pd.DataFrame", explained: "dict[str, Explained]",
                    settings: dict) -> dict:
    """Return {"seconds": [of a profiled step], "shares": {kind of operation: its share of the time}, "peak_mib"}."""
    from torch.profiler import profile
    from transformers import TrainerCallback

    class Profiled(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == 1:  # after the step that is not timed
                self.profile = profile()
                self.profile.__enter__()

        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 2:
                self.profile.__exit__(None, None, None)

    watch, spent = Profiled(), Counter()
    found = time_steps(way, cell, table, explained, {**settings, "steps": 1}, watch)
    for event in watch.profile.key_averages():
        kind = next((kind for kind, names in OPERATIONS.items() if re.fullmatch(names, event.key)), "the rest")
        spent[kind] += event.self_device_time_total or event.self_cpu_time_total
    return {"seconds": found["seconds"], "peak_mib": found["peak_mib"],
            "shares": {kind: spent[kind] / sum(spent.values()) for kind in (*OPERATIONS, "the rest")}}


def run(output: Path, smoke: bool = False, threads: int = 0, methods: Sequence[str] = METHODS) -> dict:
    """Run the benchmark, print its table and write results.json to `output`; return the results.

    Raises StudyError where TRL or the model is missing, or where the ways train on different losses.
    """
    import torch
    from transformers.utils import logging

    from kdutils.student.models import load_student

    if not importlib.util.find_spec("trl"):
        raise StudyError("trl is not installed, and this benchmark compares with it; pip install -c constraints.txt "
                         "-e '.[bench]'")
    settings = SETTINGS["smoke" if smoke else "gpu" if torch.cuda.is_available() else "cpu"]
    threads, started, at_once = threads or os.cpu_count(), time.time(), settings["questions_per_step"]
    table, explained = read_data(smoke, at_once * settings["rounds"])
    parts = [table.iloc[turn * at_once: (turn + 1) * at_once] for turn in range(settings["rounds"])]
    logging.disable_progress_bar()
    load_student(settings["model"])  # a missing model is an error before anything is measured
    about = {**machine(), "threads": threads}
    begun = conditions(about)
    show_machine(about)
    bench, rows = Bench(threads, PRELOADED), []
    settings = {**settings, **fastest(bench, parts[0], explained, settings)}
    found = {**begun, "smoke": smoke, "settings": settings, "steps": rows, "seconds": 0}
    found["versions"] |= {"trl": metadata.version("trl")}
    output.mkdir(parents=True, exist_ok=True)
    show_head(at_once)
    for cell in settings["cells"]:
        if cell.method not in methods:
            continue
        rounds = []
        for turn, part in enumerate(parts):
            ways = (*WAYS, "products")[:: 1 if turn % 2 == 0 else -1]
            rounds.append(bench.alternate(time_steps, ways, cell, part, explained, settings))
            check_losses(cell, rounds[-1])
        rows.append(show_row(cell, rounds, at_once))
        found["seconds"] = round(time.time() - started)
        write_json(output / "results.json", found)  # each time: a run of an hour may be stopped
    print(f"\n{found['seconds']} s; written: {output / 'results.json'}")
    return found


def fastest(bench: Bench, table: "pd.DataFrame", explained: "dict[str, Explained]", settings: dict) -> dict[str, int]:
    """Return {setting: value} that makes a step of multitask fastest for trl and plain; print what was tried.

    A single value is taken untried.
    """
    best, cell = {}, Cell("multitask", "all", "float32")
    for name, values in settings["tried"].items():
        way, seconds = name.partition("_")[0], {}
        for value in values if len(values) > 1 else ():
            found = bench.alternate(time_steps, [way], cell, table, explained, {**settings, name: value, "steps": 1})
            if found[way]["seconds"]:  # it did not run out of memory
                seconds[value] = found[way]["seconds"][0]
                print(f"{name} {value}: {seconds[value]:.2f} s")
        best[name] = min(seconds, key=seconds.get, default=values[0])
    return best


def check_losses(cell: Cell, found: dict[str, dict]) -> None:
    """Raise StudyError unless all ways began with the same loss on the same number of target tokens."""
    losses = {way: (found[way]["loss"], found[way]["target_tokens"]) for way in WAYS if found[way]["seconds"]}
    values = [loss for loss, _ in losses.values()]
    if len({tokens for _, tokens in losses.values()}) > 1 or values and max(values) - min(values) > SAME[
            cell.precision] * min(values):
        raise StudyError(f"{', '.join(cell)}: the ways do not train on the same; (loss, target tokens): {losses}")


def show_head(questions: int) -> None:
    """Print the head of the table."""
    print(f"\na step of {questions} questions\n| method | weights | precision | trl, questions/s | "
          "plain, questions/s | ours, questions/s | ours / trl | goal | ours / plain | less to compute | "
          "matrix speed | goal | trl, MiB | plain, MiB | ours, MiB |\n|---|---|---|" + 12 * "--:|")


def show_row(cell: Cell, rounds: list[dict[str, dict]], questions: int) -> dict:
    """Print a row of the table and return it as a dict; `rounds`: the measurements of each round."""
    found, goal = pooled(rounds), GOALS.get(cell)
    speed = {way: questions / statistics.median(found[way]["seconds"]) if found[way]["seconds"] else None
             for way in WAYS}
    ratios = {way: speed["ours"] / speed[way] if speed["ours"] and speed[way] else None for way in WAYS[:2]}
    share = matrix_share(rounds)
    counts = [one["products"]["multiplications"] for one in rounds]
    less = sum(one["separate"] for one in counts) / sum(one["shared"] for one in counts)
    row = {**cell._asdict(), "goal": goal, "ratio_trl": ratios["trl"], "ratio_plain": ratios["plain"],
           "less_to_compute": less, "matrix_share": share, "matrix_goal": SPEED_GOAL,
           **{f"{way}_per_second": speed[way] for way in WAYS},
           **{f"{way}_{name}": found[way].get(name) for way in WAYS
              for name in ("seconds", "peak_mib", "loss", "target_tokens")},
           "products_seconds": found["products"]["seconds"], "multiplications": counts}
    cells = [*cell, *(decimals(speed[way]) for way in WAYS), decimals(ratios["trl"]), f"≥ {goal:g}" if goal else "–",
             decimals(ratios["plain"]), decimals(less), "–" if share is None else f"{share:.0%}", f"≥ {SPEED_GOAL:.0%}",
             *(found[way]["peak_mib"] or "out of memory" for way in WAYS)]
    print(f"| {' | '.join(map(str, cells))} |", flush=True)
    return row


def matrix_share(rounds: list[dict[str, dict]]) -> float | None:
    """Return the median over the rounds of the speed of our step divided by that of its products alone."""
    shares = []
    for one in rounds:
        if not one["ours"]["seconds"]:
            return None
        counts, alone = one["products"]["multiplications"], one["products"]["seconds"][0]
        reached = counts["shared"] / statistics.median(one["ours"]["seconds"])
        shares.append(reached / (counts["run"] / alone))
    return statistics.median(shares)


def main(words: list[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    parser = command_line("causal", __doc__)
    parser.add_argument("--methods", default=",".join(METHODS), help="methods, with commas (default: all three)")
    parser.add_argument("--compile", action="store_true", help="what torch.compile gives; nothing is written")
    parser.add_argument("--profile", action="store_true", help="on what a step spends its time; nothing is written")
    options = parser.parse_args(words)
    if options.compile or options.profile:
        instead = measure_compile if options.compile else profile_steps
        return exit_code(lambda: instead(options.smoke, options.threads))
    return exit_code(lambda: run(project_path(options.output), options.smoke, options.threads,
                                 options.methods.split(",")))


if __name__ == "__main__":
    sys.exit(main())
