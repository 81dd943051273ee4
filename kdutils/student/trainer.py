"""The one trainer: a transformers.Trainer whose step takes the pooled rows of all tasks.

Loss of a step, with weights w_t and N_t counted target tokens of task t in the whole step::

    L = Σ_t  w_t / N_t · Σ_{tokens of task t}  r · −log p(token)

r is the weight of the token's row: 1, except for soft labels (methods.predict_softly); each token counts as r in N_t.
N_t is counted over the whole step and all processes before any chunk runs. So the loss and its gradient do not depend
on how the step is cut. If a chunk does not fit in memory, the token budget is halved and the step starts again; the
step itself never becomes smaller. With a teacher (distilling.Distilled), its loss of a token takes the place of
−log p. (Dropout draws its masks chunk by chunk, so with dropout equal numbers need equal
chunks. Rows that share a token share its dropout, too.)

What makes it fast: rows of similar length run together, whatever their task. The output layer sees only counted
positions, one slice at a time; the logits, the largest tensor of a step, are turned into their gradient at once and are
not kept. A causal student computes the tokens that the rows of a question share only once (rows.SharedRows), and
outside of attention without padding (attention.attend). On a CPU, large products in float32 take the faster of two
libraries (products.linear).
The gradient of a vocabulary is written once per step and not once per chunk. Processes exchange gradients
once per step. Dropout and GELU take one kernel. Freed memory is kept for the next chunk.
"""

import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from kdutils.errors import StudyError
from kdutils.hub import device, is_memory_error
from kdutils.runs import leave_process_group, process_group
from kdutils.settings import PRECISIONS
from kdutils.student.attention import attends_in_blocks
from kdutils.student.checkpoints import named_disk_errors
from kdutils.student.chunks import cut_rows, pad_chunk
from kdutils.student.collating import StepCollator, shared
from kdutils.student.distilling import Distilled
from kdutils.student.fast_layers import keep_memory, use_fast_layers, vocabularies
from kdutils.student.loss import add_places, dev_losses, move_chunk, step_loss
from kdutils.student.models import model_kind
from kdutils.student.progress import Progress
from kdutils.student.rows import of_task
from kdutils.student.sharing import shares_tokens, use_blocks

BUCKET = 2**25  # how many numbers of the gradient the processes exchange at a time


class Diverged(StudyError):
    """A loss or a gradient is not finite: this student has failed, and training it again would fail in the same way."""


class StudyTrainer(Trainer):
    """Trains on lists of rows, one list per question.

    `train_dataset`: a list, or a dataset with an attribute `epoch`, which is set before every epoch. `tasks`,
    `weights`: names and weights of the tasks, in order. `dev_rows`: a list of rows per dev question, for the loss.
    `dev_accuracy`: a function of the model that returns its accuracy on the dev questions. `start`, `pad`: ids of the
    decoder's start token and of padding. `distilled`: the teacher of token-level distillation, None for none. The
    checkpoint with the highest dev accuracy, and among equals the lowest dev loss, is kept, or the last one (see
    training_arguments).

    Raises Diverged when a loss or a gradient is not finite, before the weights change, and StudyError when a checkpoint
    cannot be written.
    """

    def __init__(self, *args: object, weights: Sequence[float], tasks: Sequence[str], token_budget: int,
                 dev_rows: Sequence, dev_accuracy: Callable[[torch.nn.Module], float], start: int | None, pad: int,
                 distilled: Distilled | None = None, **kwargs: object):
        questions = kwargs["train_dataset"]
        self.causal = model_kind(kwargs["model"]) == "causal"
        share = distilled.shares(kwargs["model"]) if distilled else shares_tokens(kwargs["model"])
        super().__init__(*args, data_collator=StepCollator(len(weights), share),
                         **{**kwargs, "train_dataset": _Filled(questions), "eval_dataset": dev_rows})
        self.weights, self.tasks, self.token_budget = torch.tensor(weights, dtype=torch.float64), tasks, token_budget
        self.dev_rows = shared(dev_rows) if share else [row for rows in dev_rows for row in rows]
        self.dev_accuracy, self.start, self.pad = dev_accuracy, start, pad
        self.distilled, self.targets_of = distilled, distilled.targets_of if distilled else None
        self.splits = 0  # how often the token budget was halved because memory ran out
        self.last_task_losses = {}
        self.train_losses = {task: [] for task in tasks}  # of the steps since the last evaluation
        self.step, self.step_weights = None, self.weights  # rows and losses, and weights, of the current step
        self.order = _Order(len(questions), self.args.data_seed, self._questions_per_step())
        self.remove_callback(PrinterCallback)  # Progress prints one line instead
        self.add_callback(_Epochs(questions, self.order))
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, Progress):
                callback.trainer = self
        use_fast_layers(self.model)
        if share:
            use_blocks(self.model)
        if distilled:
            distilled.join(self.model, self.args.device)
        keep_memory()

    def _questions_per_step(self):
        return self.args.per_device_train_batch_size * self.args.world_size

    def _get_train_sampler(self, train_dataset=None):
        return self.order

    def _run_epoch(self, *args, **kwargs):
        """Run an epoch, unless the last step is done: resumed there, the library would make one more step."""
        if self.state.global_step < self.state.max_steps:
            return super()._run_epoch(*args, **kwargs)
        self.control.should_training_stop = True

    def training_step(self, model: torch.nn.Module, inputs: dict, num_items_in_batch: object = None) -> torch.Tensor:
        """Run one step, chunk by chunk; return its loss over all processes and leave its gradients in the model."""
        model = self.accelerator.unwrap_model(model)  # gradients are summed here, not by the wrapper
        if self.distilled and self.distilled.own is not None:
            seed = f"own texts {self.args.seed} {self.state.global_step} {self.args.process_index}"
            inputs = self.data_collator(self.distilled.with_own_texts(model, inputs["rows"],
                                                                      random.Random(seed).getrandbits(63)))
        self.step_weights = self._weights_of(inputs["rows"])
        model.train()
        tokens = self._summed(inputs["task_tokens"].to(self.args.device))
        while (sums := self._run_chunks(model, inputs["rows"], tokens)) is None:
            if self.token_budget < 16:
                raise StudyError("out of memory with one row or question at a time; lower max_source_tokens or "
                                 "max_target_tokens, or use a smaller student")
            self.token_budget, self.splits = self.token_budget // 2, self.splits + 1
        self._sum_gradients(model)
        means = self._summed(sums) / tokens.clamp(min=1)
        self.step = {"rows": inputs["rows"], "tokens": tokens, "means": means}
        return (means * self.step_weights.to(means)).sum().float()

    def _weights_of(self, rows):
        """Return the weights of the tasks in this step, where own texts and the teacher's share theirs by questions."""
        if not self.distilled or self.distilled.own is None:
            return self.weights
        both = [self.tasks.index("explain"), self.distilled.own]
        numbers = [len(of_task(rows, number)) for number in both]
        questions = self._summed(torch.tensor(numbers, dtype=torch.float64, device=self.args.device)).to("cpu")
        weights = self.weights.clone()
        weights[both] = weights[both].sum() * questions / questions.sum().clamp(min=1)
        return weights

    def _run_chunks(self, model, rows, tokens):
        """Add the gradients of all chunks to the model; return Σ −log p per task, or None where memory ran out."""
        scale = self.step_weights.to(tokens) / tokens.clamp(min=1)
        sums, enough = torch.zeros_like(tokens), True
        for weight in vocabularies(model):
            weight.grad = torch.zeros_like(weight) if weight.grad is None else weight.grad
        try:
            for rows_of_chunk in cut_rows(rows, self.token_budget, self.causal):
                chunk = pad_chunk(rows_of_chunk, self.pad, self.start, self.causal, attends_in_blocks(model))
                chunk = self._to_device(add_places(chunk))
                with self.accelerator.autocast():  # the library does this in the model alone, HeadLoss is outside
                    total, per_task = step_loss(model, chunk, scale, self.targets_of)
                self.accelerator.backward(total)
                sums += per_task
        except (MemoryError, RuntimeError) as error:
            if not is_memory_error(error):
                raise
            enough = False
        if self.accelerator.num_processes > 1:  # either all of them run the step again, or none
            enough = self._summed(torch.tensor(float(not enough), device=self.args.device)).item() == 0
        if not enough:
            model.zero_grad()
            torch.cuda.empty_cache()
        return sums if enough else None

    def _summed(self, tensor):
        return self.accelerator.reduce(tensor, "sum") if self.accelerator.num_processes > 1 else tensor

    def _sum_gradients(self, model):
        """Sum the gradients over the processes; a process without a row for a parameter contributes zeros."""
        if self.accelerator.num_processes == 1:
            return
        waiting = [parameter for parameter in model.parameters() if parameter.requires_grad]
        while waiting:
            bucket, size = [], 0
            while waiting and (not bucket or size + waiting[0].numel() <= BUCKET):
                bucket.append(waiting.pop(0))
                size += bucket[-1].numel()
            flat = self._summed(torch.cat([(torch.zeros_like(one) if one.grad is None else one.grad).flatten()
                                           for one in bucket]))
            for one, gradient in zip(bucket, flat.split([one.numel() for one in bucket]), strict=True):
                one.grad = gradient.view_as(one)

    def _clip_grad_norm(self, model):
        """Clip the gradient; raise Diverged before the weights change if a loss or the gradient is not finite.

        Only here does the processor wait for a GPU in a step: losses and norm are copied together.
        """
        norm = super()._clip_grad_norm(model)
        *both, size = torch.cat([self.step["means"], self.step["tokens"], norm.detach().double().reshape(1)]).tolist()
        means, counts = both[: len(self.tasks)], both[len(self.tasks):]
        self.last_task_losses = dict(zip(self.tasks, means, strict=True))
        for task, mean in self.last_task_losses.items():
            self._check(mean, f"the loss became {mean}", task)
        if not math.isfinite(size):
            self._check(size, f"the gradient's norm became {size}", self._steepest_task(model))
        for task, count in zip(self.tasks, counts, strict=True):
            self.train_losses[task] += [self.last_task_losses[task]] if count else []
        self.step = None
        return norm

    def _check(self, value, what, task, when="step"):
        if not math.isfinite(value):
            number = self.state.global_step + (when == "step")
            raise Diverged(f"{what} at {when} {number}, task '{task}', learning rate {self._get_learning_rate():.3g}; "
                           "try a smaller learning rate")

    def _steepest_task(self, model):
        """Return the task whose own gradient is not finite; the names of all tasks if each alone has a finite one."""
        model = self.accelerator.unwrap_model(model)
        for number, task in enumerate(self.tasks):
            model.zero_grad()
            self._run_chunks(model, of_task(self.step["rows"], number), self.step["tokens"])
            self._sum_gradients(model)
            if not all(one.grad.isfinite().all() for one in model.parameters() if one.grad is not None):
                return task
        return "', '".join(self.tasks)

    def _to_device(self, chunk):
        return move_chunk(chunk, self.args.device)

    def evaluate(self, eval_dataset: object = None, ignore_keys: object = None,
                 metric_key_prefix: str = "eval") -> dict[str, float]:
        """Return and log dev losses (per task and weighted), dev accuracy and training losses since the last time."""
        model = self.model.eval()
        losses = dev_losses(model, self.dev_rows, len(self.tasks), self.token_budget, self.pad, self.start,
                            self.args.device, self.targets_of)
        for task, loss in zip(self.tasks, losses, strict=True):
            self._check(loss, f"the dev loss became {loss}", task, "the evaluation after step")
        accuracy = self.dev_accuracy(model)
        total = float(sum(loss * weight for loss, weight in zip(losses, self.weights.tolist(), strict=True)))
        metrics = {"eval_accuracy": accuracy, "eval_loss": total,
                   "eval_score": accuracy - 1e-9 * min(total, 1e3)}  # the loss only decides between equal accuracies
        metrics |= {f"eval_loss_{task}": loss for task, loss in zip(self.tasks, losses, strict=True)}
        metrics |= {f"train_loss_{task}": sum(seen) / len(seen) for task, seen in self.train_losses.items() if seen}
        self.train_losses = {task: [] for task in self.tasks}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, and add the losses per task of the last step to the library's mean loss."""
        if "loss" in logs:
            logs = {**logs, **{f"loss_{task}": loss for task, loss in self.last_task_losses.items()}}
        super().log(logs, start_time)

    def _save_checkpoint(self, model, trial):
        with named_disk_errors(f"the checkpoint of step {self.state.global_step}", self.args.output_dir):
            super()._save_checkpoint(model, trial)

    def floating_point_ops(self, inputs: dict) -> int:
        """Return 0: the library's estimate does not fit pooled rows."""
        return 0


class _Filled(torch.utils.data.Dataset):
    """The questions' rows; an index after the last question has no rows."""

    def __init__(self, questions):
        self.questions = questions

    def __len__(self):
        return len(self.questions)

    def __getitem__(self, index):
        return self.questions[index] if index < len(self.questions) else []


class _Order(torch.utils.data.Sampler):
    """The order of the questions in an epoch. It depends on seed and epoch alone, so resuming does not change it.

    It is filled up to whole steps with indices after the last question. So several processes share the last step of an
    epoch without repeating a question (accelerate would repeat the first ones).
    """

    def __init__(self, questions, seed, questions_per_step):
        self.questions, self.seed, self.epoch = questions, seed, 0
        self.size = math.ceil(questions / questions_per_step) * questions_per_step

    def __len__(self):
        return self.size

    def __iter__(self):
        order = list(range(self.questions))
        random.Random(f"order {self.seed} {self.epoch}").shuffle(order)
        yield from order
        yield from range(self.questions, self.size)


class _Epochs(TrainerCallback):
    """Sets the epoch of order and rows, also when a training resumes in the middle of an epoch."""

    def __init__(self, questions, order):
        self.questions, self.order = questions, order

    def on_epoch_begin(self, args, state, control, **kwargs):
        steps = self.order.size // (args.per_device_train_batch_size * args.world_size)
        self.order.epoch = state.global_step // steps
        if hasattr(self.questions, "epoch"):
            self.questions.epoch = self.order.epoch


def training_arguments(folder: Path | str, seed: int, epochs: float, questions_per_step: int, learning_rate: float,
                       warmup_steps: int, steps_per_epoch: int, evaluations: int,
                       precision: str = "", max_steps: int = 0, checkpoint: str = "best") -> TrainingArguments:
    """Return the library's arguments: AdamW, linear decay, gradients clipped at 1, a checkpoint at every evaluation.

    `evaluations`: how many there are in the whole run. They are evenly spread and the last one is at the end, so the
    number of steps is rounded up. `questions_per_step` is that of all processes together. `precision`, `max_steps`,
    `checkpoint`: see training.Recipe.
    """
    leave_process_group()  # the library would wait for processes that do not exist
    processes = process_group()[1]
    if precision not in ("", *PRECISIONS):
        raise StudyError(f"precision: unknown '{precision}'; known: {', '.join(PRECISIONS)}")
    if questions_per_step % processes:
        raise StudyError(f"questions_per_step: {questions_per_step} cannot be shared evenly by {processes} processes")
    if max_steps % max(1, evaluations):
        raise StudyError(f"max_steps: {max_steps} is no multiple of the {evaluations} evaluations on dev; the last one "
                         "is at the end")
    if checkpoint not in ("best", "last"):
        raise StudyError(f"checkpoint: unknown '{checkpoint}'; known: best, last")
    best = {"load_best_model_at_end": True, "metric_for_best_model": "eval_score", "greater_is_better": True}
    steps = max_steps or max(1, math.ceil(epochs * steps_per_epoch))
    every = max(1, math.ceil(steps / max(1, evaluations)))
    on_gpu = device() == "cuda"
    arguments = TrainingArguments(
        output_dir=str(folder), seed=seed, data_seed=seed, max_steps=every * math.ceil(steps / every),
        per_device_train_batch_size=questions_per_step // processes, learning_rate=learning_rate,
        lr_scheduler_type="linear", warmup_steps=warmup_steps, weight_decay=0.0, max_grad_norm=1.0,
        optim="adamw_torch_fused", eval_strategy="steps", eval_steps=every, save_strategy="steps", save_steps=every,
        **(best if checkpoint == "best" else {}),
        logging_steps=max(1, every // 5), logging_nan_inf_filter=False, report_to="none", disable_tqdm=True,
        remove_unused_columns=False, use_cpu=not on_gpu,
        bf16=precision == "bf16" or not precision and on_gpu and torch.cuda.is_bf16_supported(),
        dataloader_num_workers=0, dataloader_pin_memory=False)
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1  # one GPU per process; several GPUs are for accelerate, which keeps the size of a step
    return arguments
