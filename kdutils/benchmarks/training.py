"""Speed of training: this trainer against the published training code, written anew on Seq2SeqTrainer.

    KDUTILS_DATA=... python -m kdutils.benchmarks.training [--smoke] [--output outputs/bench/training]

Both train the same model (T5 shapes with the T5 vocabulary and random weights) on the same rows of the same
CommonsenseQA questions with the published explanations of Llama-2-13B, 48 questions per step, dropout 0.1. Each
measurement has its own process, in alternating order. "plain" is the published method (arXiv 2504.16056 and Hsieh et
al. 2023): one forward pass per task and step, inputs and labels padded to the longest of 1,000 rows, padding counted in
the loss, and at every evaluation a generated text of up to 300 tokens per task. "ours" is StudyTrainer as train_student
runs it.

- steps: one training step, multitask and combined, unrevised and revised, three sizes; the peak memory of the process;
  and the factor by which a step needs fewer multiplications, with our padding and without any padding. The rest of a
  ratio comes from faster computation.
- runs: from texts to a trained student with its evaluations, with one dev question per 12 training questions as
  published. Ours writes its checkpoints and generates the explanations of the dev questions once, at the end. Random
  weights never end a text, so there are two rows. In "ends" a generated text has the length of the text that the
  student learns, as after training. In "endless" every text reaches its limit, as before training.
- growth: a step over the length of the targets, a run over the number of questions (figure growth.png).

Writes results.json and growth.png to the output folder and prints the tables. On a GPU: the shapes of T5 v1.1 base and
large, bf16.
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kdutils.benchmarks.machine import command_line, conditions, decimals, exit_code, now, show_machine, unevaluated
from kdutils.benchmarks.processes import Bench, StepTimes, peak_mib
from kdutils.errors import StudyError
from kdutils.report import figures
from kdutils.runs import machine, project_path, write_json
from kdutils.student.methods import METHODS, explained_of, format_source

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedModel, Seq2SeqTrainer

    from kdutils.student.methods import Explained
    from kdutils.student.rows import TokenRow

BLOCK = 1000  # rows that the published code pads to the longest one
LIMITS = {"sources": 300, "multitask": 300, "combined": 256}  # tokens, as published
CELLS = [(method, revised) for method in ("multitask", "combined") for revised in (False, True)]
GOALS = {"steps": {("multitask", False): 2.5, ("combined", True): 4.0},
         "runs": {("multitask", False): 3.0, ("combined", True): 8.0}}
T5 = {"model_type": "t5", "vocab_size": 32128, "feed_forward_proj": "gated-gelu", "dropout_rate": 0.1,
      "decoder_start_token_id": 0}
SIZES = {  # named by their number of parameters without the embeddings
    "1M": {"d_model": 128, "d_kv": 32, "num_heads": 4, "d_ff": 384, "num_layers": 2},
    "8M": {"d_model": 256, "d_kv": 64, "num_heads": 4, "d_ff": 768, "num_layers": 4},
    "30M": {"d_model": 512, "d_kv": 64, "num_heads": 8, "d_ff": 1024, "num_layers": 5},
}
GPU_SIZES = {
    "base": {"d_model": 768, "d_kv": 64, "num_heads": 12, "d_ff": 2048, "num_layers": 12},
    "large": {"d_model": 1024, "d_kv": 64, "num_heads": 16, "d_ff": 2816, "num_layers": 24},
}
WAYS = ("plain", "ours")


# The data

def load_questions(count: int) -> "tuple[pd.DataFrame, dict[bool, dict[str, Explained]]]":
    """Return (frame of tables.QUESTIONS, {revised: {id: Explained}}) of questions that have every explanation."""
    from kdutils.data.readers import read_questions
    from kdutils.teacher.published.explanations import published_explanations

    if not tokenizer_folder().is_dir():
        raise StudyError("KDUTILS_DATA: set it to the folder with cqa/, teacher_llama/ (the published explanations) "
                         "and tokenizers/t5/; the benchmark trains on real questions")
    table = read_questions("cqa")
    table = table[table["split"] == "train"].sample(min(len(table), count + count // 10), random_state=0)
    wrong, explained = published_explanations(table, "cqa", "llama", "counterfactual"), {}
    for revised, prompting in ((False, "few_shot"), (True, "critique_revision")):
        explained[revised] = explained_of(published_explanations(table, "cqa", "llama", prompting), table, wrong)
    whole = [key for key in table["id"] if all(texts[key].rationale and texts[key].counterfactuals
                                               for texts in explained.values())]
    return table[table["id"].isin(whole[:count])].reset_index(drop=True), explained


def tokenizer_folder() -> Path:
    """Return the folder of the T5 vocabulary; it may be missing."""
    return Path(os.environ.get("KDUTILS_DATA") or "/nonexistent") / "tokenizers" / "t5"


# The published method

def plain_trainer(model: "PreTrainedModel", rows: "list[dict[str, TokenRow]]", dev_rows: "list[dict[str, TokenRow]]",
                  weights: dict[str, float], widths: dict[str, tuple[int, int]], questions_per_step: int, steps: int,
                  evaluations: int, callbacks: Sequence = ()) -> "Seq2SeqTrainer":
    """Return a Seq2SeqTrainer that trains as the published code does; `rows`: {task: row} per question.

    `widths`: the block_widths of a whole block of questions, also where only a part of it is trained on.
    """
    import torch
    from transformers import PrinterCallback, Seq2SeqTrainer, Seq2SeqTrainingArguments

    class PlainTrainer(Seq2SeqTrainer):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            return sum(weight * model(**inputs[task]).loss for task, weight in weights.items())

        def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None, **gen_kwargs):
            found = [super(PlainTrainer, self).prediction_step(model, inputs[task], False, ignore_keys, **gen_kwargs)
                     for task in weights]
            return found[0]

    on_gpu = torch.cuda.is_available()
    arguments = Seq2SeqTrainingArguments(
        output_dir=tempfile.mkdtemp(), max_steps=steps, per_device_train_batch_size=questions_per_step,
        per_device_eval_batch_size=questions_per_step, learning_rate=5e-5, lr_scheduler_type="linear",
        predict_with_generate=True, generation_max_length=300, eval_strategy="steps" if evaluations else "no",
        eval_steps=steps // evaluations if evaluations else None, save_strategy="no", report_to="none",
        disable_tqdm=True, remove_unused_columns=False, bf16=on_gpu, use_cpu=not on_gpu, seed=0)
    trainer = PlainTrainer(model=model, args=arguments, train_dataset=padded_to(widths, rows),
                           eval_dataset=padded_to(widths, dev_rows), data_collator=stack, callbacks=list(callbacks))
    trainer.remove_callback(PrinterCallback)
    return trainer


def block_widths(rows: "list[dict[str, TokenRow]]", limit: int) -> dict[str, tuple[int, int]]:
    """Return {task: (longest source, longest target)} of a block of questions, targets cut to `limit`, as published."""
    block = rows[:BLOCK]
    return {task: (min(LIMITS["sources"], max(len(row[task].source) for row in block)),
                   min(limit, max(len(row[task].target) for row in block))) for task in block[0]}


def padded_to(widths: dict[str, tuple[int, int]], rows: "list[dict[str, TokenRow]]") -> list[dict]:
    """Return per question {task: tensors}, padded to the widths of their block, labels with 0."""
    import torch

    padded = []
    for row in rows:
        tensors = {}
        for task, (wide, long) in widths.items():
            source, target = row[task].source[:wide], row[task].target[:long]
            tensors[task] = {
                "input_ids": torch.tensor(source + [0] * (wide - len(source))),
                "attention_mask": torch.tensor([1] * len(source) + [0] * (wide - len(source))),
                "labels": torch.tensor(target + [0] * (long - len(target)))}
        padded.append(tensors)
    return padded


def stack(questions: list[dict]) -> dict:
    """Return the batch of padded questions, {task: {name: tensor}}."""
    import torch

    return {task: {name: torch.stack([question[task][name] for question in questions])
                   for name in questions[0][task]} for task in questions[0]}


# The number of multiplications

def multiplications(shape: dict, sources: int, targets: int, counted: int) -> int:
    """Return the multiplications of T5's layers in a forward pass, attention scores left out (a step: times 3).

    `sources`, `targets`: tokens in encoder and decoder, padding included. `counted`: target tokens in the output layer.
    """
    width, inner = shape["d_model"], shape["num_heads"] * shape["d_kv"]
    attention, feed_forward = 4 * width * inner, 3 * width * shape["d_ff"]  # gated: three matrices
    read_by_decoder = 2 * width * inner  # keys and values of a source; queries and output of a target
    of_layer = (sources + targets) * (attention + feed_forward + read_by_decoder)
    return shape["num_layers"] * of_layer + counted * width * T5["vocab_size"]


def arithmetic(method: str, table: "pd.DataFrame", explained: "dict[str, Explained]", shape: dict,
               questions_per_step: int, budget: int) -> tuple[float, float]:
    """Return (plain / ours, plain / no padding) of the multiplications of the steps of an epoch."""
    from kdutils.student.chunks import cut_rows
    from kdutils.student.methods import task_weights

    rows = tokenized(method, table, explained)["train"]
    widths = block_widths(by_task(rows, list(task_weights(method, {}))), LIMITS[method]).values()
    padded = [len(rows) * sum(width[side] for width in widths) for side in (0, 1)]
    pooled = [row for group in rows for row in group]
    counted = sum(row.counted for row in pooled)
    ours = [0, 0]
    for first in range(0, len(rows), questions_per_step):
        for chunk in cut_rows([row for group in rows[first: first + questions_per_step] for row in group], budget):
            ours[0] += len(chunk) * max(len(row.source) for row in chunk)
            ours[1] += len(chunk) * max(len(row.target) for row in chunk)
    bare = [sum(len(row.source) for row in pooled), sum(len(row.target) for row in pooled)]
    plain = multiplications(shape, *padded, padded[1])
    return tuple(plain / multiplications(shape, *tokens, counted) for tokens in (ours, bare))


# The measurements, each in its own process

def tokenized(method: str, table: "pd.DataFrame", explained: "dict[str, Explained]") -> "dict[str, list]":
    """Return {split: rows} of the questions: per question a list with one TokenRow per task."""
    from kdutils.student.collating import EpochRows, RowFormat, tokenize_rows
    from kdutils.student.models import load_tokenizer

    tokenizer, rows = load_tokenizer(str(tokenizer_folder())), {}
    for split in dict.fromkeys(table["split"]):
        items = table[table["split"] == split].to_dict("records")
        entries, _ = tokenize_rows(tokenizer, method, {}, items, explained,
                                   RowFormat(LIMITS["sources"], LIMITS[method]))
        drawn = EpochRows(entries, [item["id"] for item in items], 0)
        rows[split] = [drawn[i] for i in range(len(items))]
    return rows


def by_task(rows: "list[list[TokenRow]]", tasks: list[str]) -> "list[dict[str, TokenRow]]":
    """Return {task: row} per question."""
    return [{tasks[row.task]: row for row in group} for group in rows]


def new_model(shape: dict) -> "PreTrainedModel":
    """Return a T5 of this shape with random weights, in training mode."""
    from kdutils.student.models import load_student

    return load_student("", str(tokenizer_folder()), random_weights=True, config={**T5, **shape}, seed=0)[0].train()


def time_steps(way: str, method: str, table: "pd.DataFrame", explained: "dict[str, Explained]", shape: dict,
               questions_per_step: int, steps: int, budget: int, lengthen: float = 1.0) -> dict:
    """Return {"seconds" of each of `steps` training steps, "target_tokens" per question, "peak_mib"}.

    One more step runs before them, because the first step of a process allocates its memory and the optimiser's state.
    `lengthen`: the factor by which targets are cut or repeated.
    """
    from kdutils.student.methods import task_weights
    from kdutils.student.rows import TokenRow
    from kdutils.student.trainer import StudyTrainer, training_arguments

    rows, weights, watch = tokenized(method, table, explained)["train"], task_weights(method, {}), StepTimes()
    if lengthen != 1:
        rows = [[TokenRow(row.task, row.source, (row.target * 3)[: max(2, round(lengthen * len(row.target)))])
                 for row in group] for group in rows]
    tokens = statistics.mean(sum(row.counted for row in group) for group in rows)
    model = new_model(shape)
    if way == "plain":
        rows = by_task(rows, list(weights))
        study = plain_trainer(model, rows, rows[:1], weights,
                              block_widths(rows, LIMITS[method] if lengthen == 1 else 10**6), questions_per_step,
                              steps + 1, 0, [watch.callback])
    else:
        arguments = unevaluated(
            training_arguments(tempfile.mkdtemp(), 0, 1, questions_per_step, 5e-5, 0, steps + 1, 1))
        study = StudyTrainer(
            model=model, args=arguments, train_dataset=rows, weights=list(weights.values()), tasks=list(weights),
            token_budget=budget, dev_rows=rows[:1], dev_accuracy=None, start=0, pad=0, callbacks=[watch.callback])
    study.train()
    return {"seconds": watch.steps()[1:], "target_tokens": tokens, "peak_mib": peak_mib()}


def time_run(way: str, method: str, table: "pd.DataFrame", explained: "dict[str, Explained]", shape: dict,
             questions_per_step: int, counts: tuple[int, int], budget: int, ends: bool = True) -> dict:
    """Return {"seconds" of a whole run from texts to a trained student with one evaluation, "peak_mib"}.

    `counts`: the numbers of training and dev questions. The plain method pads them to their whole block, `table`, as in
    a run over all of it. `ends`: see set_ends.
    """
    from kdutils.student import predicting
    from kdutils.student.methods import task_weights
    from kdutils.student.training import Recipe, train_student

    weights = task_weights(method, {})
    widths = block_widths(by_task(tokenized(method, table, explained)["train"], list(weights)), LIMITS[method])
    table = split(table, *counts)
    set_ends(tokenized(method, table, explained) if ends else {})
    started = now()
    if way == "plain":
        rows = {part: by_task(found, list(weights)) for part, found in tokenized(method, table, explained).items()}
        steps = -(-len(rows["train"]) // questions_per_step)
        plain_trainer(new_model(shape), rows["train"], rows["dev"], weights, widths, questions_per_step, steps,
                      1).train()
        return {"seconds": [now() - started], "peak_mib": peak_mib()}
    with tempfile.TemporaryDirectory() as folder:
        student = {"model": "", "tokenizer": str(tokenizer_folder()), "random_weights": True,
                   "config": {**T5, **shape}}
        recipe = Recipe(method, student, {
            "epochs": 1, "questions_per_step": questions_per_step, "learning_rate": 5e-5, "warmup_steps": 0,
            "dev_evaluations": 1, "max_source_tokens": LIMITS["sources"], "max_target_tokens": LIMITS[method],
            "token_budget": budget})
        train_student(Path(folder) / "student", table, explained, recipe, Path(folder) / "progress.txt")
        model, tokenizer = predicting.load_trained(Path(folder) / "student")
        dev = table[table["split"] == "dev"].to_dict("records")
        predicting.generate(model, tokenizer, [format_source(item, METHODS[method].explanation) for item in dev], 300,
                            token_budget=16_384)
    return {"seconds": [now() - started], "peak_mib": peak_mib()}


def set_ends(rows: dict[str, list]) -> None:
    """Give every generated text of this process the length of its source's target in `rows`, or else no end."""
    import torch
    from transformers import GenerationMixin, LogitsProcessor, LogitsProcessorList

    lengths = {tuple(row.source): len(row.target) for found in rows.values() for group in found for row in group}
    plain = GenerationMixin.generate

    class Ends(LogitsProcessor):
        def __init__(self, wanted):
            self.wanted, self.written = torch.tensor(wanted), 0

        def __call__(self, input_ids, scores):
            self.written += 1
            over = (self.written >= self.wanted.to(scores.device))[:, None]
            end = torch.nn.functional.one_hot(torch.tensor(1, device=scores.device), scores.shape[1]).bool()
            return scores.masked_fill(over ^ end, float("-inf"))

    def generate(self, **inputs):
        wanted = [lengths.get(tuple(ids[mask.bool()].tolist()), 10**6)
                  for ids, mask in zip(inputs["input_ids"].cpu(), inputs["attention_mask"].cpu(), strict=True)]
        return plain(self, **inputs, logits_processor=LogitsProcessorList([Ends(wanted)]))

    GenerationMixin.generate = generate


# The whole benchmark

SETTINGS = {  # of a machine without a GPU, with one, and of --smoke; "runs": (method, revised): (steps, dev questions)
    "cpu": {"sizes": SIZES, "questions_per_step": 48, "steps": {"1M": 2, "8M": 1, "30M": 1}, "budget": 3000,
            "questions": 1000, "run_size": "8M", "runs": {("multitask", False): (8, 32), ("combined", True): (4, 16)},
            "growth_size": "1M", "lengths": (0.5, 1, 2), "counts": (48, 96, 192)},
    "gpu": {"sizes": GPU_SIZES, "questions_per_step": 48, "steps": {"base": 5, "large": 5}, "budget": 60_000,
            "questions": 1000, "run_size": "base", "runs": dict.fromkeys(GOALS["runs"], (12, 48)),
            "growth_size": "base", "lengths": (0.25, 0.5, 1, 2), "counts": (96, 192, 384, 768)},
    "smoke": {"sizes": {"tiny": {"d_model": 32, "d_kv": 16, "num_heads": 2, "d_ff": 32, "num_layers": 1}},
              "questions_per_step": 4, "steps": {"tiny": 1}, "budget": 4000, "questions": 20, "run_size": "tiny",
              "runs": dict.fromkeys(GOALS["runs"], (1, 2)), "growth_size": "tiny", "lengths": (0.5, 1),
              "counts": (4,)},
}


def run(output: Path, smoke: bool = False, threads: int = 0, sizes: Sequence[str] = ()) -> dict:
    """Run the benchmark, print its tables, write results.json and growth.png to `output`; return the results.

    `sizes`: the models whose steps are measured (default: all).
    """
    import torch

    gpu = torch.cuda.is_available()
    settings, threads = SETTINGS["smoke" if smoke else "gpu" if gpu else "cpu"], threads or os.cpu_count()
    about, started = {**machine(), "threads": threads}, time.time()
    begun = conditions(about)
    table, explained = load_questions(settings["questions"])
    show_machine(about)
    bench, at_once = Bench(threads), settings["questions_per_step"]
    steps, runs = [], []
    show_head(f"a step of {at_once} questions")
    for size in sizes or settings["sizes"]:
        shape, count = settings["sizes"][size], settings["steps"][size]
        for method, revised in CELLS:
            found = bench.alternate(time_steps, WAYS, method, table, explained[revised], shape, at_once, count,
                                    settings["budget"], rounds=2 if count > 1 else 1)
            less = arithmetic(method, table, explained[revised], shape, at_once, settings["budget"])
            steps.append(show_row("steps", size, method, revised, found, at_once, less))
    show_head("a whole run, from texts to a trained student")
    size = settings["run_size"]
    for (method, revised), (count, dev) in settings["runs"].items():
        for ends in (True, False):
            found = bench.alternate(time_run, WAYS, method, table, explained[revised], settings["sizes"][size],
                                    at_once, (count * at_once, dev), settings["budget"], ends)
            runs.append({"ends": ends, **show_row("runs", f"{size}, {'ends' if ends else 'endless'}", method, revised,
                                                  found, count * at_once)})
    growth = measure_growth(bench, table, explained, settings)
    shown = {**settings, "runs": [[*cell, *counts] for cell, counts in settings["runs"].items()]}
    found = {**begun, "smoke": smoke, "settings": shown, "steps": steps, "runs": runs, "growth": growth,
             "seconds": round(time.time() - started)}
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / "results.json", found)
    draw(growth, output / "growth.png", at_once)
    print(f"\n{found['seconds']} s; written: {output / 'results.json'}, {output / 'growth.png'}")
    return found


def split(table: "pd.DataFrame", train: int, dev: int) -> "pd.DataFrame":
    """Return the first `train` questions as train split and the last `dev` ones as dev split."""
    import pandas as pd

    few = table.head(min(train, len(table) - dev))
    return pd.concat([few.assign(split="train"), table.tail(dev).assign(split="dev")])


def measure_growth(bench: Bench, table: "pd.DataFrame", explained: dict, settings: dict) -> list[dict]:
    """Measure a step over the length of the targets (multitask, revised), and a run over the number of questions."""
    shape, points = settings["sizes"][settings["growth_size"]], []
    at_once, budget = settings["questions_per_step"], settings["budget"]
    for lengthen in settings["lengths"]:
        found = bench.alternate(time_steps, WAYS, "multitask", table, explained[True], shape, at_once, 1, budget,
                                lengthen)
        points.append({"over": "target tokens", "at": found["ours"].get("target_tokens", 0), **seconds_of(found)})
    for count in settings["counts"]:
        found = bench.alternate(time_run, WAYS, "multitask", table, explained[False], shape, at_once,
                                (count, max(1, count // 12)), budget)
        points.append({"over": "questions", "at": count, **seconds_of(found)})
    points = [point for point in points if point["plain"] and point["ours"]]  # both had enough memory
    for point in points:
        print(f"growth: {point['at']:.0f} {point['over']}: plain {point['plain']:.2f} s, ours {point['ours']:.2f} s, "
              f"{point['plain'] / point['ours']:.1f} times")
    return points


def seconds_of(found: dict[str, dict]) -> dict[str, float | None]:
    """Return {way: median of its seconds}, None where it ran out of memory."""
    return {way: statistics.median(found[way]["seconds"]) if found[way]["seconds"] else None for way in WAYS}


def show_head(what: str) -> None:
    """Print the head of a table."""
    print(f"\n{what}\n| model | method | explanations | plain, questions/s | ours, questions/s | ratio | goal | "
          "less to compute | without padding | plain, MiB | ours, MiB |\n|---|---|---|" + 8 * "--:|")


def show_row(kind: str, size: str, method: str, revised: bool, found: dict[str, dict], questions: int,
             less: tuple[float | None, float | None] = (None, None)) -> dict:
    """Print a row of a table and return it as a dict. `kind`: steps or runs; `less`: the arithmetic() of steps."""
    taken, goal = seconds_of(found), GOALS[kind].get((method, revised))
    speed = {way: questions / taken[way] if taken[way] else None for way in WAYS}
    row = {"size": size, "method": method, "revised": revised, "goal": goal, "less_to_compute": less[0],
           "without_padding": less[1],
           "ratio": speed["ours"] / speed["plain"] if all(speed.values()) else None,
           **{f"{way}_per_second": speed[way] for way in WAYS},
           **{f"{way}_{name}": found[way][name] for way in WAYS for name in ("seconds", "peak_mib")}}
    cells = [size, method, "revised" if revised else "unrevised", *(decimals(speed[way]) for way in WAYS),
             decimals(row["ratio"]), f"≥ {goal:g}" if goal else "–", *map(decimals, less),
             *(found[way]["peak_mib"] or "out of memory" for way in WAYS)]
    print(f"| {' | '.join(map(str, cells))} |", flush=True)
    return row


def draw(points: list[dict], path: Path, questions_per_step: int) -> None:
    """Draw seconds over the length of the targets and over the number of questions, a line per method, to a PNG."""
    figure, axes = figures.pyplot().subplots(1, 2, figsize=(9, 3.4))
    for axis, over, title in zip(axes, ("target tokens", "questions"), (
            f"A step of {questions_per_step} questions", "A run of one epoch with its evaluation"), strict=True):
        rows = [point for point in points if point["over"] == over]
        for way, line in zip(WAYS, ("--", "-"), strict=True):
            axis.plot([row["at"] for row in rows], [row[way] for row in rows], marker="o", linestyle=line, label=way)
        axis.set(xlabel={"target tokens": "target tokens per question", "questions": "training questions"}[over],
                 ylabel="seconds", title=title, xlim=(0, None), ylim=(0, None))
        axis.legend()
    figures.save(figure, path)


def main(words: list[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    parser = command_line("training", __doc__, files="results.json and growth.png")
    parser.add_argument("--sizes", default="", help="models whose steps are measured, with commas (default: all)")
    options = parser.parse_args(words)
    return exit_code(lambda: run(project_path(options.output), options.smoke, options.threads,
                                 [size for size in options.sizes.split(",") if size]))


if __name__ == "__main__":
    sys.exit(main())
