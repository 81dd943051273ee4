"""The one trainer: a transformers.Trainer whose step takes the pooled rows of all tasks.

Loss of a step, with T tasks, weights w_t, and N_t counted target tokens of task t in the whole step::

    L = Σ_t  w_t / N_t · Σ_{tokens of task t}  −log p(token)

N_t is counted over the step before any chunk is run, and over all processes, so the loss and its
gradient are the same however the step is cut. A chunk that does not fit in memory is met by halving the
token budget and running the step again from its start: the step itself never shrinks. (Dropout draws its
masks chunk by chunk, so with dropout the same cut is needed for the same numbers.)

What makes it fast: rows of like length run together whatever their task; the output layer sees counted
positions alone, a slice at a time, and the logits, the largest tensor of a step, are turned into their
gradient at once and never kept; the gradient of a vocabulary is written once a step and not once a chunk;
processes exchange gradients once a step; dropout and GELU take one kernel; memory that is free again
is kept for the next chunk.
"""

import contextlib
import ctypes
import math
import os
import random
import shutil
import sys
import time
import weakref
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from torch.nn import functional
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.activations import NewGELUActivation

from kdutils.errors import StudyError
from kdutils.runs import is_whole, leave_process_group, mark_whole, process_group, read_json, write_text
from kdutils.student.collating import IGNORED, StepCollator, pad_chunk
from kdutils.student.models import choice_losses, model_kind, output_layer_on

LOGITS = {"cpu": 8_000_000, "cuda": 64_000_000}  # of a slice
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
CHUNK_COST = 0.025  # of the token budget: what a chunk costs by itself
FAR = 1e-30  # a probability below it has lost digits; its logarithm is made from the logits
VOCABULARY = 1000  # entries from which an embedding is one
BUCKET = 2**25  # how many gradients the processes exchange at a time
PRINT_SECONDS, PRINT_SHARE = 10, 0.02  # between two lines of progress in a log: at least this and of the time so far


class Diverged(StudyError):
    """A loss or a gradient is no finite number any more: this student has failed, whatever is tried again."""


# The loss of a chunk

def step_loss(model, chunk, scale):
    """Return (Σ over the counted tokens of scale[task] · −log p, to call backward on; Σ −log p per task, (tasks,)).

    `chunk`: the tensors of pad_chunk. `scale`: w_t / N_t of each task, (tasks,): with it the first values of all
    chunks of a step add up to the loss of the step. A question of a classifier is one token. The sums are float64.
    """
    chunk = chunk if "of" in chunk else with_places(chunk)
    weights, head = scale[chunk["of"]], last_layer(model, chunk)
    if "choices" in chunk:
        losses, _ = choice_losses(model, chunk)
        total = (losses * weights.to(losses.dtype)).sum()
    elif head is not None:
        with _forward_of(head, lambda hidden: hidden.flatten(0, 1).index_select(0, chunk["places"])):
            hidden = _logits(model, chunk)
        total, losses = HeadLoss.apply(hidden, head.weight, head.bias, chunk["tokens"], weights,
                                       torch.is_grad_enabled())
    else:
        with output_layer_on(model, chunk["labels"] != IGNORED):
            logits = _logits(model, chunk)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))  # never a softmax in half precision
        losses = functional.cross_entropy(logits, chunk["tokens"], reduction="none")
        total = (losses * weights.to(losses.dtype)).sum()
    sums = torch.zeros(len(scale), dtype=torch.float64, device=losses.device)
    return total, sums.index_add(0, chunk["of"], losses.detach().double())


def with_places(chunk):
    """Add to the tensors of a chunk the counted tokens, their flat places and the task of each, (counted tokens,).

    Done before a chunk goes to the GPU: to count there would make the processor wait for it.
    """
    if "choices" in chunk:
        return {**chunk, "of": chunk["task"]}
    rows, columns = (chunk["labels"] != IGNORED).nonzero(as_tuple=True)
    return {**chunk, "places": rows * chunk["labels"].shape[1] + columns, "tokens": chunk["labels"][rows, columns],
            "of": chunk["task"][rows]}


class HeadLoss(torch.autograd.Function):
    """Σ weight · −log p of tokens under an output layer, and −log p of each; its gradients are made on the way.

    With a vocabulary of 32,000 the logits of a step take gigabytes and their softmax more time than most layers. Here
    they exist a slice of tokens at a time: the softmax of a slice less one at each token is its gradient, from which
    those of the layer and of its input follow at once (as in "Cut your losses", Wijmans et al. 2025, and Liger).
    On a CPU, the layer's are added straight to a ``grad`` that stands, so backward must follow, on the sum itself.
    """

    @staticmethod
    def forward(ctx, hidden, weight, bias, tokens, weights, with_gradients):
        """(N, d), (V, d), (V,) or None, (N,), (N,), bool to a number and (N,); both in float32 or better."""
        inputs = hidden, weight, bias
        device = hidden.device.type
        half = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
        states_of_all, matrix = hidden.to(half), weight.to(half)
        exact = torch.promote_types(hidden.dtype, torch.float32)
        weights = weights.to(exact)[:, None]
        standing = [_standing(tensor, exact) for tensor in inputs]
        wanted = [(torch.zeros_like(tensor, dtype=exact) if grad is None else grad) if with_gradients and needed
                  else None for tensor, grad, needed in zip(inputs, standing, ctx.needs_input_grad, strict=False)]
        losses = torch.empty(len(tokens), dtype=exact, device=hidden.device)
        slices = math.ceil(len(tokens) * len(matrix) / LOGITS.get(device, LOGITS["cuda"]))
        size = max(1, math.ceil(len(tokens) / max(1, slices)))  # all alike
        for first in range(0, len(tokens), size):
            part = slice(first, first + size)
            token, states = tokens[part, None], states_of_all[part]
            logits = functional.linear(states, matrix, bias).to(exact)
            slope = torch.softmax(logits, dim=1)
            right = slope.gather(1, token)
            losses[part] = -right[:, 0].log()
            far = (right[:, 0] < FAR).nonzero()[:, 0]  # few or none
            losses[first + far] = logits[far].logsumexp(1) - logits[far].gather(1, token[far])[:, 0]
            slope.scatter_add_(1, token, torch.full_like(right, -1))
            _add_gradients(wanted, part, slope, states, matrix, weights[part])
        ctx.added_to = [(tensor, grad) for tensor, one, grad in zip(inputs, wanted, standing, strict=True)
                        if one is not None and one is grad]
        ctx.gradients = [None if one is None or one is grad else one.to(tensor.dtype)
                         for one, grad, tensor in zip(wanted, standing, inputs, strict=True)]
        ctx.mark_non_differentiable(losses)
        return (losses * weights[:, 0]).sum(), losses

    @staticmethod
    def backward(ctx, slope, _):
        gradients, ctx.gradients = ctx.gradients, None  # used up: they are scaled in place
        if ctx.added_to and (slope != 1 or any(tensor.grad is not grad for tensor, grad in ctx.added_to)):
            raise RuntimeError("HeadLoss: its gradients went straight to those that stood before it; since then they "
                               "were replaced, or its sum was scaled")
        return *[None if one is None else one.mul_(slope.to(one.dtype)) for one in gradients], None, None, None


def _standing(tensor, dtype):
    """Return the gradient of a weight that is there already and can be added to in place, on a CPU; else None."""
    grad = tensor.grad if tensor is not None and tensor.is_leaf and not tensor.is_cuda else None
    return grad if grad is not None and grad.dtype == dtype else None


def _add_gradients(wanted, part, slope, states, matrix, weights):
    """Add what a slice of tokens gives to the gradients of states, matrix and bias, where they are wanted."""
    of_states, of_matrix, of_bias = wanted
    narrow = slope.to(states.dtype)
    if of_states is not None:
        of_states[part] = (narrow @ matrix).to(weights.dtype) * weights
    if of_matrix is not None and narrow.dtype == of_matrix.dtype:
        of_matrix.addmm_(narrow.t(), states * weights)
    elif of_matrix is not None:
        of_matrix += narrow.t() @ (states * weights).to(states.dtype)
    if of_bias is not None:
        of_bias += (slope * weights).sum(0)


LAST = weakref.WeakKeyDictionary()  # model: whether its logits are what the output layer returns


def last_layer(model, chunk):
    """Return the output layer where HeadLoss may stand in for it: a plain linear layer that nothing comes after.

    Some models scale or bound their logits, adapters wrap the layer: that is seen on one row of the first chunk.
    """
    head = model.get_output_embeddings() if "choices" not in chunk else None
    if type(head) is not torch.nn.Linear:
        return None
    if model not in LAST:
        seen = []
        handle = head.register_forward_hook(lambda module, inputs, output: seen.append(output))
        training = model.training
        with torch.no_grad(), torch.autocast(chunk["labels"].device.type, enabled=False):
            logits = _logits(model.eval(), {name: tensor[:1] for name, tensor in chunk.items()})
        handle.remove()
        model.train(training)
        LAST[model] = len(seen) == 1 and torch.equal(seen[0].to(logits.dtype), logits)
    return head if LAST[model] else None


def _logits(model, chunk):
    inputs = {name: chunk[name] for name in ("input_ids", "attention_mask", "decoder_input_ids") if name in chunk}
    return model(**inputs, use_cache=False).logits


@contextlib.contextmanager
def _forward_of(module, function):
    module.forward = function
    try:
        yield
    finally:
        del module.forward


@torch.no_grad()
def dev_losses(model, rows, tasks, token_budget, pad, start, device):
    """Return the mean −log p per counted target token of each of `tasks` (a number of them) over `rows`, as floats."""
    causal = model_kind(model) == "causal"
    sums, counts = torch.zeros(tasks, dtype=torch.float64, device=device), [0] * tasks
    for rows_of_chunk in cut_rows(rows, token_budget, causal):
        chunk = _moved(with_places(pad_chunk(rows_of_chunk, pad, start, causal)), device)
        sums += step_loss(model, chunk, torch.zeros(tasks, device=device))[1]
        for row in rows_of_chunk:
            counts[row.task] += row.counted
    return [total / max(1, count) for total, count in zip(sums.tolist(), counts, strict=True)]


def _moved(chunk, device):
    if torch.device(device).type == "cuda":  # from pinned memory, so that the processor need not wait
        return {name: tensor.pin_memory().to(device, non_blocking=True) for name, tensor in chunk.items()}
    return {name: tensor.to(device) for name, tensor in chunk.items()}


# How a step is cut

def cut_rows(rows, token_budget, causal=False):
    """Cut the rows of a step into chunks of like length; return them as lists of rows, each row in exactly one.

    A chunk's size is rows · (longest source + longest target), padding included, of a causal student rows · longest
    (source + target); it stays at or under `token_budget` unless a single row is larger. Rows are ordered by source
    or by target and cut in two where that costs least, and so on with both parts, until a part is within the budget
    and another cut would cost more than it saves. What is to cost least is the padded tokens and, for each chunk,
    CHUNK_COST of the budget.
    """
    if not rows:
        return []
    sources, targets = (np.array([len(getattr(row, side)) for row in rows]) for side in ("source", "target"))
    if causal:
        sources, targets = sources + targets, np.zeros_like(targets)

    def cost(sizes):
        return sizes + CHUNK_COST * token_budget * np.ceil(sizes / token_budget)

    def best_cut(order):
        def sizes(order):
            widths = np.maximum.accumulate(sources[order]) + np.maximum.accumulate(targets[order])
            return np.arange(1, len(order)) * widths[:-1]

        costs = cost(sizes(order)) + cost(sizes(order[::-1])[::-1])
        at = int(costs.argmin()) + 1
        return costs[at - 1], order[:at], order[at:]

    def parts(chosen):
        size = len(chosen) * (sources[chosen].max() + targets[chosen].max())
        if len(chosen) == 1:
            return [chosen]
        cuts = [best_cut(chosen[np.lexsort((chosen, *keys))])
                for keys in ((targets[chosen], sources[chosen]), (sources[chosen], targets[chosen]))]
        of_both, first, second = min(cuts, key=lambda cut: cut[0])
        if size <= token_budget and cost(size) <= of_both:
            return [chosen]
        return parts(first) + parts(second)

    return [[rows[i] for i in chosen] for chosen in parts(np.arange(len(rows)))]


# Equivalents that are faster

class QuickDropout(torch.nn.Dropout):
    """Dropout that draws 16 random bits per number where the library, on a CPU, draws a whole double.

    The probability is rounded to 1/65536, and what is kept is scaled by the rounded one, so means stay exact.
    """

    def forward(self, numbers):
        if numbers.is_cuda or not self.training or self.p == 0:
            return super().forward(numbers)
        bits = torch.empty((numbers.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
        dropped = min(round(self.p * 2**16), 2**16 - 1)
        kept = (bits[: numbers.numel()].view(numbers.shape) >= dropped - 2**15).to(numbers.dtype)
        return numbers * kept.mul_(2**16 / (2**16 - dropped))


class QuickEmbedding(torch.nn.Embedding):
    """An embedding whose gradient, where one stands already, is added to in the rows that were read.

    The library makes one of the whole vocabulary for every chunk and adds it up: a hundred megabytes read and written.
    """

    def forward(self, ids):
        return _Lookup.apply(ids, self.weight, self.padding_idx)


class _Lookup(torch.autograd.Function):
    @staticmethod
    def forward(ctx, ids, weight, padding):
        ctx.save_for_backward(ids)
        ctx.weight, ctx.padding = weight, padding
        return functional.embedding(ids, weight)

    @staticmethod
    def backward(ctx, slope):
        ids, = ctx.saved_tensors
        standing = _standing(ctx.weight, slope.dtype)
        gradient = torch.zeros_like(ctx.weight) if standing is None else standing
        if ctx.padding is not None:
            slope = slope.masked_fill((ids == ctx.padding)[..., None], 0)
        gradient.index_add_(0, ids.flatten(), slope.flatten(0, -2))
        return None, gradient if standing is None else None, None


def quicken(model):
    """Put faster equivalents into a model, in place, of GELU's tanh form, and on a CPU of dropout and embeddings.

    What they compute is the same, but for the bits that a dropout draws.
    """
    on_cpu = not next(model.parameters()).is_cuda
    for module in list(model.modules()):
        if on_cpu and type(module) is torch.nn.Embedding and _is_plain(module):
            module.__class__ = QuickEmbedding  # it stays the same object, which a model has in several places
        for name, part in list(module.named_children()):
            if type(part) is NewGELUActivation:
                setattr(module, name, torch.nn.GELU(approximate="tanh"))
            elif type(part) is torch.nn.Dropout and part.p < 1:
                setattr(module, name, QuickDropout(part.p).train(part.training))
    return model


def _is_plain(embedding):
    return embedding.num_embeddings >= VOCABULARY and embedding.max_norm is None and not embedding.scale_grad_by_freq


def vocabularies(model):
    """Return the weights over a vocabulary, to which chunks add their gradients where a ``grad`` is there already."""
    modules = [module for module in model.modules() if type(module) is QuickEmbedding]
    head = model.get_output_embeddings()
    modules += [head] if type(head) is torch.nn.Linear and not head.weight.is_cuda else []
    return [weight for weight in {id(module.weight): module.weight for module in modules}.values()
            if weight.requires_grad]


def keep_memory():
    """Have glibc keep what is freed for the next chunk, a gigabyte at most: to get new pages takes time in every one.

    Where there is no glibc, nothing is done.
    """
    with contextlib.suppress(AttributeError, OSError):
        change = ctypes.CDLL(None).mallopt
        for parameter in (M_TRIM_THRESHOLD, M_MMAP_THRESHOLD):
            change(parameter, 2**30)


def compile_stacks(model):
    """Compile the layers below the output layer, in place, for lengths of every kind (torch.compile, Inductor)."""
    plain = model.get_base_model() if hasattr(model, "get_base_model") else model
    stacks = (plain.get_encoder(), plain.get_decoder()) if model_kind(model) == "seq2seq" else (plain,)
    for stack in stacks:
        stack.base_model.compile(dynamic=True)


# The trainer

class StudyTrainer(Trainer):
    """Trains on lists of rows, one list per question; `weights` are those of the tasks, in order.

    `train_dataset`: a list, or a dataset with an attribute `epoch` that is set before every epoch.
    `dev_rows`: rows of the dev questions, for the loss. `dev_accuracy`: a function of the model that returns
    the share of dev questions answered rightly. The checkpoint with the best dev accuracy, then the lowest
    dev loss, is the one that is kept. Raises Diverged when a loss or a gradient is not finite, before it
    reaches the weights, and StudyError when a checkpoint cannot be written.
    """

    def __init__(self, *args, weights, tasks, token_budget, dev_rows, dev_accuracy, start, pad, **kwargs):
        questions = kwargs["train_dataset"]
        super().__init__(*args, data_collator=StepCollator(len(weights)),
                         **{**kwargs, "train_dataset": _Filled(questions), "eval_dataset": dev_rows})
        self.weights, self.tasks, self.token_budget = torch.tensor(weights, dtype=torch.float64), tasks, token_budget
        self.dev_rows, self.dev_accuracy, self.start, self.pad = dev_rows, dev_accuracy, start, pad
        self.causal = model_kind(self.model) == "causal"
        self.splits = 0  # how often a step was cut finer for want of memory
        self.last_task_losses = {}
        self.train_losses = {task: [] for task in tasks}  # of the steps since the last evaluation
        self.step = None  # rows and losses of the step at work
        self.order = _Order(len(questions), self.args.data_seed, self._questions_per_step())
        self.remove_callback(PrinterCallback)  # Progress says it in one line
        self.add_callback(_Epochs(questions, self.order))
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, Progress):
                callback.trainer = self
        quicken(self.model)
        keep_memory()

    def _questions_per_step(self):
        return self.args.per_device_train_batch_size * self.args.world_size

    def _get_train_sampler(self, train_dataset=None):
        return self.order

    def _run_epoch(self, *args, **kwargs):
        """Run an epoch, but not where the last step is done: resumed there, the library would make one step more."""
        if self.state.global_step < self.state.max_steps:
            return super()._run_epoch(*args, **kwargs)
        self.control.should_training_stop = True

    def training_step(self, model, inputs, num_items_in_batch=None):
        """Run one step, chunk by chunk, and return its loss over all processes; gradients are those of the whole."""
        model = self.accelerator.unwrap_model(model)  # gradients are summed here and not by the wrapper
        model.train()
        tokens = self._summed(inputs["task_tokens"].to(self.args.device))
        while (sums := self._run_chunks(model, inputs["rows"], tokens)) is None:
            if self.token_budget < 16:
                raise StudyError("out of memory with one row at a time; lower max_source_tokens or max_target_tokens, "
                                 "or take a smaller student")
            self.token_budget, self.splits = self.token_budget // 2, self.splits + 1
        self._sum_gradients(model)
        means = self._summed(sums) / tokens.clamp(min=1)
        self.step = {"rows": inputs["rows"], "tokens": tokens, "means": means}
        return (means * self.weights.to(means)).sum().float()

    def _run_chunks(self, model, rows, tokens):
        """Add the gradients of all chunks to the model; return Σ −log p per task, or None where memory ran out."""
        scale = self.weights.to(tokens) / tokens.clamp(min=1)
        sums, enough = torch.zeros_like(tokens), True
        for weight in vocabularies(model):
            weight.grad = torch.zeros_like(weight) if weight.grad is None else weight.grad
        try:
            for rows_of_chunk in cut_rows(rows, self.token_budget, self.causal):
                chunk = self._to_device(with_places(pad_chunk(rows_of_chunk, self.pad, self.start, self.causal)))
                with self.compute_loss_context_manager():
                    total, per_task = step_loss(model, chunk, scale)
                self.accelerator.backward(total)
                sums += per_task
        except RuntimeError as error:
            if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
                raise
            enough = False
        if self.accelerator.num_processes > 1:  # all of them run the step again, or none
            enough = self._summed(torch.tensor(float(not enough), device=self.args.device)).item() == 0
        if not enough:
            model.zero_grad()
            torch.cuda.empty_cache()
        return sums if enough else None

    def _summed(self, tensor):
        return self.accelerator.reduce(tensor, "sum") if self.accelerator.num_processes > 1 else tensor

    def _sum_gradients(self, model):
        """Sum the gradients over the processes; one that had no row for a parameter gives zeros."""
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
        """Clip, and stop before the weights are changed where a loss or the gradient is not finite.

        The one place of a step where the processor waits for a GPU: losses and norm come over together.
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
        """Return the task whose own gradient is not finite, or all their names where each one alone is."""
        model = self.accelerator.unwrap_model(model)
        for number, task in enumerate(self.tasks):
            model.zero_grad()
            self._run_chunks(model, [row for row in self.step["rows"] if row.task == number], self.step["tokens"])
            self._sum_gradients(model)
            if not all(one.grad.isfinite().all() for one in model.parameters() if one.grad is not None):
                return task
        return "', '".join(self.tasks)

    def _to_device(self, chunk):
        return _moved(chunk, self.args.device)

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix="eval"):
        """Measure dev loss (per task and weighted) and dev answer accuracy; log training losses since the last time."""
        model = self.model.eval()
        losses = dev_losses(model, self.dev_rows, len(self.tasks), self.token_budget, self.pad, self.start,
                            self.args.device)
        for task, loss in zip(self.tasks, losses, strict=True):
            self._check(loss, f"the dev loss became {loss}", task, "the evaluation after step")
        accuracy = self.dev_accuracy(model)
        total = float(sum(loss * weight for loss, weight in zip(losses, self.weights.tolist(), strict=True)))
        metrics = {"eval_accuracy": accuracy, "eval_loss": total,
                   "eval_score": accuracy - 1e-9 * min(total, 1e3)}  # accuracy first; loss only breaks a tie
        metrics |= {f"eval_loss_{task}": loss for task, loss in zip(self.tasks, losses, strict=True)}
        metrics |= {f"train_loss_{task}": sum(found) / len(found) for task, found in self.train_losses.items() if found}
        self.train_losses = {task: [] for task in self.tasks}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def log(self, logs, start_time=None):
        """Log, with the losses per task of the last step beside the library's mean loss."""
        if "loss" in logs:
            logs = {**logs, **{f"loss_{task}": loss for task, loss in self.last_task_losses.items()}}
        super().log(logs, start_time)

    def _save_checkpoint(self, model, trial):
        with named_disk_errors(f"the checkpoint of step {self.state.global_step}", self.args.output_dir):
            super()._save_checkpoint(model, trial)

    def floating_point_ops(self, inputs):
        return 0  # the library's estimate does not know pooled rows


class _Filled(torch.utils.data.Dataset):
    """The questions' rows; an index behind the last question has no rows."""

    def __init__(self, questions):
        self.questions = questions

    def __len__(self):
        return len(self.questions)

    def __getitem__(self, index):
        return self.questions[index] if index < len(self.questions) else []


class _Order(torch.utils.data.Sampler):
    """The order of the questions in an epoch, from seed and epoch alone: the same wherever a training is resumed.

    It is filled up to whole steps with indices behind the last question, so that several processes share the last step
    of an epoch without a question twice (left to itself, accelerate fills it with the first ones again).
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
    """Tells order and rows which epoch it is, also where a training goes on in the middle of one."""

    def __init__(self, questions, order):
        self.questions, self.order = questions, order

    def on_epoch_begin(self, args, state, control, **kwargs):
        steps = self.order.size // (args.per_device_train_batch_size * args.world_size)
        self.order.epoch = state.global_step // steps
        if hasattr(self.questions, "epoch"):
            self.questions.epoch = self.order.epoch


class Progress(TrainerCallback):
    """How far a training is: a bar in a terminal and in JupyterLab, else now and then a line; and ``progress.txt``.

    Says the loss of each task, dev accuracy, questions per second and the time left.
    """

    def __init__(self, path, label, questions_per_step):
        self.path, self.label, self.questions_per_step = path, label, questions_per_step
        self.shown = self.printed = 0.0
        self.accuracy, self.first_step, self.bar = None, None, None

    def on_train_begin(self, args, state, control, **kwargs):
        self.started, self.first_step = time.time(), state.global_step
        if state.is_world_process_zero and _is_watched():
            from tqdm.auto import tqdm

            self.bar = tqdm(total=state.max_steps, initial=state.global_step, desc=self.label, unit="step",
                            dynamic_ncols=True)

    def on_step_end(self, args, state, control, **kwargs):
        if not state.is_world_process_zero:
            return
        last = state.global_step >= state.max_steps
        if self.bar is not None:
            self.bar.update(state.global_step - self.bar.n)
        if time.time() - self.shown < 2 and not last:
            return
        self.shown = time.time()
        rate = (state.global_step - self.first_step) / max(1e-6, self.shown - self.started)
        losses = " ".join(f"{task or 'answer'} {loss:.3f}" for task, loss in self.trainer.last_task_losses.items())
        dev = "" if self.accuracy is None else f", dev accuracy {self.accuracy:.3f}"
        news = f"loss {losses}{dev}, {rate * self.questions_per_step:.0f} questions/s"
        left = (state.max_steps - state.global_step) / max(1e-6, rate)
        line = f"{self.label}: step {state.global_step}/{state.max_steps}, {news}, {left:.0f} s left"
        with contextlib.suppress(OSError):  # a full disk is for the checkpoint to report
            write_text(self.path, line + "\n")
        if self.bar is not None:
            self.bar.set_postfix_str(news)
        elif last or self.shown - self.printed >= max(PRINT_SECONDS, PRINT_SHARE * (self.shown - self.started)):
            self.printed = self.shown
            print(line, flush=True)

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        self.accuracy = metrics["eval_accuracy"]

    def on_train_end(self, args, state, control, **kwargs):
        self.close()

    def close(self):
        """Leave the bar where it stands."""
        if self.bar is not None:
            self.bar.close()


def _is_watched():
    """Whether a person looks on as output comes: in a terminal, or in a kernel that JupyterLab started."""
    return sys.stderr.isatty() or "JPY_SESSION_NAME" in os.environ


# Checkpoints

class WholeCheckpoints(TrainerCallback):
    """Adds a manifest to every checkpoint once it is written, and only then removes all others but the best one."""

    def on_save(self, args, state, control, **kwargs):
        from accelerate import PartialState

        PartialState().wait_for_everyone()  # each process writes the state of its random numbers
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if state.is_world_process_zero:
            mark_whole(folder)
            for other in folder.parent.glob("checkpoint-*"):
                if other not in (folder, folder.with_name(f"checkpoint-{state.best_global_step}")):
                    shutil.rmtree(other)


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


@contextlib.contextmanager
def named_disk_errors(what, checkpoints):
    """Turn a failed write into a StudyError: what could not be written, how much room there is, what comes next.

    A checkpoint that was cut short is removed, so that its room is free again.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:  # torch and safetensors have errors of their own
        reason = str(error).splitlines()[0]
        if isinstance(error, RuntimeError) and "inline_container" not in reason and "PytorchStreamWriter" not in reason:
            raise
        last = newest_whole_checkpoint(checkpoints)
        after = f"step {last.name.split('-')[1]}, the last good checkpoint" if last else "its start"
        raise StudyError(f"{checkpoints}: {what} could not be written ({reason}); {room_mib(checkpoints)} MiB are free "
                         f"there. Make room and run again: the training goes on from {after}") from error


def room_mib(folder):
    """Return how much can still be written where `folder` is, in MiB."""
    return shutil.disk_usage(folder).free // 2**20


def training_arguments(folder, seed, epochs, questions_per_step, learning_rate, warmup_steps, steps_per_epoch,
                       evaluations):
    """Return the library's arguments: AdamW, linear decay, clip at 1, evaluation and checkpoint together.

    `evaluations`: how many there are in the whole run, evenly spread, the last one at its end; the number of
    steps is rounded up so that they come out even. `questions_per_step` is that of the step, whatever the
    number of processes that share it.
    """
    leave_process_group()  # the library would wait for the others of a half-named one
    processes = process_group()[1]
    if questions_per_step % processes:
        raise StudyError(f"questions_per_step: {questions_per_step} cannot be shared evenly by {processes} processes")
    steps = max(1, math.ceil(epochs * steps_per_epoch))
    every = max(1, math.ceil(steps / max(1, evaluations)))
    on_gpu = torch.cuda.is_available()
    arguments = TrainingArguments(
        output_dir=str(folder), seed=seed, data_seed=seed, max_steps=every * math.ceil(steps / every),
        per_device_train_batch_size=questions_per_step // processes, learning_rate=learning_rate,
        lr_scheduler_type="linear", warmup_steps=warmup_steps, weight_decay=0.0, max_grad_norm=1.0,
        optim="adamw_torch_fused", eval_strategy="steps", eval_steps=every, save_strategy="steps", save_steps=every,
        load_best_model_at_end=True, metric_for_best_model="eval_score", greater_is_better=True,
        logging_steps=max(1, every // 5), logging_nan_inf_filter=False, report_to="none", disable_tqdm=True,
        remove_unused_columns=False, bf16=on_gpu and torch.cuda.is_bf16_supported(), use_cpu=not on_gpu,
        dataloader_num_workers=0, dataloader_pin_memory=False)
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1  # one process takes one GPU; several are for accelerate, which keeps the step's size
    return arguments
