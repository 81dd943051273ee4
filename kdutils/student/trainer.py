"""The one trainer: a transformers.Trainer whose step takes the pooled rows of all tasks.

Loss of a step, with T tasks, weights w_t, and N_t target tokens of task t in the whole step::

    L = Σ_t  w_t / N_t · Σ_{tokens of task t}  −log p(token)

N_t is counted over the step before any chunk is run, and over all processes, so the loss and its
gradient are the same however the step is cut. A chunk that does not fit in memory is met by halving the
token budget and running the step again from its start: the step itself never shrinks.
"""

import contextlib
import math
import os
import shutil
import time
from pathlib import Path

import torch
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from kdutils.errors import StudyError
from kdutils.runs import is_whole, mark_whole, read_json, write_text
from kdutils.student.collating import IGNORED, StepCollator, cut_step, pad_chunk


def token_losses(model, chunk):
    """Return −log p of every target token of a chunk, (counted tokens,), and the row each belongs to."""
    counted = chunk["labels"] != IGNORED
    with _head_on(model, counted):
        logits = model(input_ids=chunk["input_ids"], attention_mask=chunk["attention_mask"],
                       decoder_input_ids=chunk["decoder_input_ids"], use_cache=False).logits
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))  # never a softmax in half precision
    losses = torch.nn.functional.cross_entropy(logits, chunk["labels"][counted], reduction="none")
    return losses, counted.nonzero()[:, 0]


@contextlib.contextmanager
def _head_on(model, counted):
    """Let the output layer see the counted positions alone: its logits come out as (counted tokens, vocabulary).

    With a vocabulary of 30,000 the output layer is the dearest part of a small student, and padding is up to
    half of a batch.
    """
    head = getattr(model, "module", model).get_output_embeddings()
    hook = head.register_forward_pre_hook(lambda module, inputs: (inputs[0][counted],))
    try:
        yield
    finally:
        hook.remove()


def task_sums(model, chunk, tasks):
    """Return Σ −log p over the target tokens of each task in a chunk, (tasks,)."""
    losses, rows = token_losses(model, chunk)
    return torch.zeros(tasks, dtype=losses.dtype, device=losses.device).index_add(0, chunk["task"][rows], losses)


class StudyTrainer(Trainer):
    """Trains on lists of TokenRows, one list per question; `weights` are those of the tasks, in order.

    `dev_rows`: rows of the dev questions, for the loss. `dev_accuracy`: a function of the model that returns
    the share of dev questions answered rightly. The checkpoint with the best dev accuracy, then the lowest
    dev loss, is the one that is kept.
    """

    def __init__(self, *args, weights, tasks, token_budget, dev_rows, dev_accuracy, start, pad, **kwargs):
        super().__init__(*args, data_collator=StepCollator(len(weights)), **kwargs)
        self.weights, self.tasks, self.token_budget = torch.tensor(weights, dtype=torch.float64), tasks, token_budget
        self.dev_rows, self.dev_accuracy, self.start, self.pad = dev_rows, dev_accuracy, start, pad
        self.splits = 0  # how often a step was cut finer for want of memory
        self.tokens_seen = 0
        self.last_task_losses = {}
        self.remove_callback(PrinterCallback)  # Progress says it in one line

    def training_step(self, model, inputs, num_items_in_batch=None):
        """Run one step, chunk by chunk, and return its loss."""
        model.train()
        tokens = self.accelerator.reduce(inputs["task_tokens"].to(self.args.device), "sum")
        while True:
            try:
                return self._run_step(model, inputs["rows"], tokens)
            except torch.OutOfMemoryError:
                if self.accelerator.num_processes > 1 or self.token_budget < 16:
                    raise
                model.zero_grad()
                torch.cuda.empty_cache()
                self.token_budget, self.splits = self.token_budget // 2, self.splits + 1

    def _run_step(self, model, rows, tokens):
        # A mean over processes follows (DDP), while the loss is a sum over them: hence the factor.
        scale = (self.weights.to(tokens) / tokens.clamp(min=1)) * self.accelerator.num_processes
        sums = torch.zeros(len(self.weights), dtype=torch.float64)
        chunks = cut_step(rows, self.token_budget)
        for number, rows_of_chunk in enumerate(chunks, 1):
            chunk = self._to_device(pad_chunk(rows_of_chunk, self.pad, self.start))
            last = number == len(chunks)
            with contextlib.nullcontext() if last else self.accelerator.no_sync(model):
                with self.compute_loss_context_manager():
                    per_task = task_sums(model, chunk, len(self.weights))
                self.accelerator.backward((per_task * scale.to(per_task.dtype)).sum())
            sums += per_task.detach().double().cpu()
        self.tokens_seen += int(sum(len(row.source) + len(row.target) for row in rows))
        means = sums / tokens.cpu().clamp(min=1)
        self.last_task_losses = dict(zip(self.tasks, means.tolist(), strict=True))
        return self._finite(means)

    def _finite(self, means):
        loss = (means * self.weights).sum()
        if not math.isfinite(loss):
            worst = next(name for name, value in self.last_task_losses.items() if not math.isfinite(value))
            raise StudyError(f"the loss became {loss.item()} at step {self.state.global_step + 1}, task '{worst}', "
                             f"learning rate {self._get_learning_rate():.3g}; try a smaller learning rate")
        return loss.to(self.args.device, torch.float32)

    def _to_device(self, chunk):
        return {name: tensor.to(self.args.device) for name, tensor in chunk.items()}

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix="eval"):
        """Measure dev loss (per task and weighted) and dev answer accuracy."""
        model = self.model.eval()
        losses = dev_losses(model, self.dev_rows, self.weights, self.token_budget, self.pad, self.start,
                            self.args.device)
        accuracy = self.dev_accuracy(model)
        total = float(sum(loss * weight for loss, weight in zip(losses, self.weights.tolist(), strict=True)))
        metrics = {"eval_accuracy": accuracy, "eval_loss": total,
                   "eval_score": accuracy - 1e-9 * min(total, 1e3)}  # accuracy first; loss only breaks a tie
        metrics |= {f"eval_loss_{task}": loss for task, loss in zip(self.tasks, losses, strict=True)}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def floating_point_ops(self, inputs):
        return 0  # the library's estimate does not know pooled rows


@torch.no_grad()
def dev_losses(model, rows, weights, token_budget, pad, start, device):
    """Return the mean −log p per target token of each task over `rows`, as floats."""
    sums, counts = torch.zeros(len(weights), dtype=torch.float64), torch.zeros(len(weights), dtype=torch.float64)
    for rows_of_chunk in cut_step(rows, token_budget):
        chunk = {name: tensor.to(device) for name, tensor in pad_chunk(rows_of_chunk, pad, start).items()}
        sums += task_sums(model, chunk, len(weights)).double().cpu()
        for row in rows_of_chunk:
            counts[row.task] += len(row.target)
    return (sums / counts.clamp(min=1)).tolist()


class Progress(TrainerCallback):
    """One line a person can follow, in the terminal or notebook and in ``progress.txt`` of the run."""

    def __init__(self, path, label, questions_per_step):
        self.path, self.label, self.questions_per_step = path, label, questions_per_step
        self.started, self.shown, self.accuracy = time.time(), 0.0, None
        self.first_step = None

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.first_step = state.global_step - 1 if self.first_step is None else self.first_step
        if time.time() - self.shown < 2 and state.global_step < state.max_steps:
            return
        self.shown = time.time()
        done = state.global_step - self.first_step
        rate = done / max(1e-6, time.time() - self.started)
        losses = " ".join(f"{task} {loss:.3f}" for task, loss in self.trainer.last_task_losses.items())
        dev = "" if self.accuracy is None else f", dev accuracy {self.accuracy:.3f}"
        left = (state.max_steps - state.global_step) / max(1e-6, rate)
        self.write(f"{self.label}: step {state.global_step}/{state.max_steps}, loss {losses}{dev}, "
                   f"{rate * self.questions_per_step:.0f} questions/s, {left:.0f} s left")

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        self.accuracy = metrics["eval_accuracy"]

    def write(self, line):
        write_text(self.path, line + "\n")
        print(f"\r{line}", end="", flush=True)


class WholeCheckpoints(TrainerCallback):
    """Adds a manifest to every checkpoint once it is written: only a whole one is ever resumed from."""

    def on_save(self, args, state, control, **kwargs):
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        mark_whole(folder)


def newest_whole_checkpoint(folder):
    """Return the newest checkpoint below `folder` whose files are all as written; broken ones are removed."""
    found = sorted(Path(folder).glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]), reverse=True)
    for path in found:
        if is_whole(path) and is_whole(_best_of(path)):
            return path
        shutil.rmtree(path)
    return None


def _best_of(checkpoint):
    """Return the folder of the best checkpoint so far, which the end of the training goes back to."""
    best = read_json(checkpoint / "trainer_state.json").get("best_global_step")
    return checkpoint.with_name(f"checkpoint-{best}") if best else checkpoint


def training_arguments(folder, seed, epochs, questions_per_step, learning_rate, warmup_steps, steps_per_epoch,
                       evaluations):
    """Return the library's arguments: AdamW, linear decay, clip at 1, evaluation and checkpoint together.

    `evaluations`: how many there are in the whole run, evenly spread, the last one at its end; the number of
    steps is rounded up so that they come out even. `questions_per_step` is that of the step, whatever the
    number of processes that share it.
    """
    processes = int(os.environ.get("WORLD_SIZE", 1))
    if questions_per_step % processes:
        raise StudyError(f"questions_per_step: {questions_per_step} cannot be shared evenly by {processes} processes")
    steps = max(1, math.ceil(epochs * steps_per_epoch))
    every = max(1, math.ceil(steps / max(1, evaluations)))
    on_gpu = torch.cuda.is_available()
    return TrainingArguments(
        output_dir=str(folder), seed=seed, data_seed=seed, max_steps=every * math.ceil(steps / every),
        per_device_train_batch_size=questions_per_step // processes, learning_rate=learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=warmup_steps, weight_decay=0.0, max_grad_norm=1.0, optim="adamw_torch",
        eval_strategy="steps", eval_steps=every, save_strategy="steps", save_steps=every, save_total_limit=2,
        load_best_model_at_end=True, metric_for_best_model="eval_score", greater_is_better=True,
        logging_steps=max(1, every // 5), report_to="none", disable_tqdm=True, remove_unused_columns=False,
        bf16=on_gpu and torch.cuda.is_bf16_supported(), use_cpu=not on_gpu, dataloader_num_workers=0,
        dataloader_pin_memory=False)
