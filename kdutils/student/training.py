"""Train one student: from tables to a model folder, with the record of how it went.

Several GPUs, or several processes on a CPU: start the same call in each of them with ``accelerate launch`` or
``torchrun``; they share every step, and the first one writes the folder.
"""

import shutil
import time
from dataclasses import asdict
from pathlib import Path

from kdutils.errors import StudyError
from kdutils.hub import local_folders, locate_model
from kdutils.runs import (
    is_complete,
    leave_process_group,
    mark_complete,
    process_group,
    project_path,
    read_json,
    sha256,
    versions,
    write_json,
)
from kdutils.source_code import code_digests
from kdutils.student.methods import as_explained, controlled, explained_of, task_weights, tasks_of

WITHOUT_EFFECT = ("tensorboard",)  # settings of `training` that leave the weights as they are


def rationales_of(explanations, questions):
    """Return {question id: text} of the usable rationales: the texts alone of what explained_of returns."""
    found = explained_of(explanations, questions)
    return {key: explained.rationale for key, explained in found.items() if explained.rationale}


def vocabulary_lines(student, method, questions, explained):
    """Return the sentences on what a student could never write of these questions and explanations; mostly none.

    `student`: the arguments of models.load_student; `explained`: {question id: Explained} as `method` reads it.
    """
    from kdutils.student.collating import gap_lines, vocabulary_gaps
    from kdutils.student.models import load_tokenizer

    if student.get("kind") == "classifier":
        return []
    tokenizer = load_tokenizer(student.get("tokenizer") or student["model"])
    return gap_lines(vocabulary_gaps(tokenizer, method, questions.to_dict("records"), explained))


def worked_loss(student, method, parameters, item, explained, seed):
    """Work the loss of one question out by hand, on the untrained student.

    `explained`: {question id: Explained, or the rationale as text}. Returns (table, total, loss): per task the
    counted target tokens, the sum and mean of −log p and the weighted mean, computed row by row from the
    probabilities; their sum; and what the trainer's own functions give for the same rows in one padded chunk.
    Of alternatives (wrong answers) those of the first epoch are taken.
    """
    import pandas as pd
    import torch

    from kdutils.hub import model_context
    from kdutils.student.collating import EpochRows, tokenize_rows
    from kdutils.student.loss import dev_losses
    from kdutils.student.models import load_student, model_kind

    model, tokenizer = load_student(**student, seed=seed)
    weights, kind = task_weights(method, parameters), model_kind(model)
    entries, _ = tokenize_rows(tokenizer, method, parameters, [item], explained, 512, 512, kind, model_context(model))
    rows, table = EpochRows(entries, [item["id"]], seed)[0], []
    for row in rows:
        with torch.no_grad():
            total = -_log_probabilities(model, row, kind).sum().item()
        name, weight = list(weights.items())[row.task]
        table.append({"task": name, "target tokens": row.counted, "sum": total, "mean": total / row.counted,
                      "weight": weight, "weight · mean": weight * total / row.counted})
    losses = dev_losses(model, rows, len(weights), 10**6, model.config.pad_token_id, _start(model), "cpu")
    loss = sum(loss * weight for loss, weight in zip(losses, weights.values(), strict=True))
    return pd.DataFrame(table), sum(row["weight · mean"] for row in table), loss


def _log_probabilities(model, row, kind):
    """Return log p of each counted token of one row, in float64: the model alone on it, its softmax, nothing padded."""
    import torch

    if kind == "classifier":
        types = [{"token_type_ids": torch.tensor([one])} for one in row.types] or [{}] * len(row.pairs)
        scores = [model(input_ids=torch.tensor([pair]), **more).logits[0, 0]
                  for pair, more in zip(row.pairs, types, strict=True)]
        return torch.stack(scores).double().softmax(0)[row.gold].log()
    if kind == "causal":
        logits = model(input_ids=torch.tensor([row.source + row.target])).logits[0, len(row.source) - 1: -1]
    else:
        before = torch.tensor([[_start(model), *row.target[:-1]]])
        logits = model(input_ids=torch.tensor([row.source]), decoder_input_ids=before).logits[0]
    places = range(row.given, len(row.target))
    return logits.double().softmax(-1)[places, row.target[row.given:]].log()


def _start(model):
    return getattr(model.config, "decoder_start_token_id", None)


def train_student(folder, questions, explained, method, seed, student, training, parameters, progress=None, others=()):
    """Train a student into `folder` and return its record; one that stands there whole is not trained again.

    `questions`: a frame of tables.QUESTIONS with the splits train and dev. `explained`: what methods.explained_of
    returned, or {id: rationale as text}. `student`: the arguments of models.load_student. `training`: epochs,
    questions_per_step, learning_rate, warmup_steps, dev_evaluations, max_source_tokens, max_target_tokens,
    token_budget (padded tokens run at a time); and, if wanted, dev_accuracy (``generation`` or ``scores``, see
    predicting.dev_accuracy), tensorboard (logs below ``tensorboard/``), compile (torch.compile: minutes to begin with,
    for long runs on a GPU), gradient_checkpointing (less memory, a third slower). `parameters`: those of the method
    (alpha …). `progress`: the file for the line of progress. `others`: see methods.controlled. An interrupted training
    goes on from its last whole checkpoint.

    The record holds: curve (per evaluation: step, dev accuracy and losses, and per task the mean training loss since
    the one before), best step, epochs, steps, effective batch (questions per step), tokens, cut texts, parameters of
    the model, splits of steps, under "cost" seconds and peak memory in MiB and, where the vocabulary lacks signs, under
    "unwritable_answers" what collating.vocabulary_gaps returns.

    A loss or gradient that is not finite ends the training: the record then has the reason under "failed", which
    ``failed.json`` keeps beside the last good checkpoint, and no student is saved. Everything else that is wrong
    raises StudyError; after a full disk the same call goes on from the last good checkpoint.
    """
    folder = Path(folder)
    leave_process_group()
    wanted = fingerprint(questions, explained, method, seed, student, training, parameters, others)
    checkpoints, first = folder / "checkpoints", process_group()[0] == 0
    if is_complete(folder) and read_json(folder / "student.json")["fingerprint"] == wanted:
        if first:
            shutil.rmtree(checkpoints, ignore_errors=True)
        return read_json(folder / "record.json")
    if _same_training(folder / "failed.json", wanted):
        return read_json(folder / "failed.json")["record"]
    if first and not _same_training(checkpoints / "fingerprint.json", wanted):
        shutil.rmtree(folder, ignore_errors=True)
        write_json(checkpoints / "fingerprint.json", {"fingerprint": wanted})
    record, model, tokenizer = _train(checkpoints, questions, explained, method, seed, student, training,
                                      parameters, progress, others)
    if first:
        _keep(folder, record, model, tokenizer, {
            "method": method, "seed": seed, "parameters": parameters, "student": student, "training": training,
            "fingerprint": wanted})
    _wait()
    return record


def _keep(folder, record, model, tokenizer, settings):
    """Write a student, or of a failed one the reason; checkpoints go once the student is whole."""
    from kdutils.student.checkpoints import named_disk_errors
    from kdutils.student.models import merged

    checkpoints = folder / "checkpoints"
    if "failed" in record:
        write_json(folder / "failed.json", {"reason": record["failed"], "record": record, **settings})
        return
    with named_disk_errors("the trained student", checkpoints):
        merged(model).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        write_json(folder / "record.json", record)
        write_json(folder / "student.json", settings)
        mark_complete(folder)
    shutil.rmtree(checkpoints)


def _wait():
    from accelerate import PartialState

    PartialState().wait_for_everyone()


def fingerprint(questions, explained, method, seed, student, training, parameters, others=()):
    """Return what decides the trained weights: settings, data, a local model's files, package versions, the code."""
    import hashlib
    import json

    texts = {key: asdict(as_explained(one)) for key, one in explained.items()}
    data = json.dumps([questions.to_dict("records"), sorted(texts.items()), *others], ensure_ascii=False)
    return {"method": method, "seed": seed, "student": student, "model_files": _model_files(student["model"]),
            "training": {key: value for key, value in training.items() if key not in WITHOUT_EFFECT},
            "parameters": parameters, "data": hashlib.sha256(data.encode()).hexdigest(), "versions": versions(),
            "code": code_digests(Path(__file__))}


def _model_files(name):
    folders = [project_path(locate_model(name, needs_weights=False)), *local_folders(name)[1:]] if name else []
    return {("base of " * at) + path.name: sha256(path) for at, folder in enumerate(folders)
            for path in sorted(folder.glob("*")) if path.is_file()}


def _same_training(path, wanted):
    try:
        return read_json(path)["fingerprint"] == wanted
    except (StudyError, KeyError):
        return False


def _train(folder, questions, explained, method, seed, student, training, parameters, progress, others):
    """Return (record, model, tokenizer)."""
    import torch
    from transformers import set_seed
    from transformers.utils import logging

    from kdutils.student import predicting
    from kdutils.student.checkpoints import newest_whole_checkpoint
    from kdutils.student.fast_layers import compile_stacks
    from kdutils.student.models import load_student
    from kdutils.student.progress import Progress
    from kdutils.student.trainer import Diverged, StudyTrainer, training_arguments

    logging.disable_progress_bar()
    logging.set_verbosity_error()  # tied weights are reported as missing whenever a checkpoint is read back
    model, tokenizer = load_student(**student, seed=seed)
    weights = task_weights(method, parameters)
    items = {split: questions[questions["split"] == split].to_dict("records") for split in ("train", "dev")}
    for split, found in items.items():
        if not found:
            raise StudyError(f"questions: the split '{split}' is empty; a student needs train and dev questions")
    explained = controlled(method, parameters, items["train"] + items["dev"], explained, seed, others)
    rows, dev, cuts, gaps = _tokenized(model, tokenizer, method, parameters, items, explained, seed, training)
    steps = -(-len(rows) // training["questions_per_step"])
    arguments = training_arguments(
        folder, seed, training["epochs"], training["questions_per_step"], training["learning_rate"],
        training["warmup_steps"], steps, training["dev_evaluations"])
    accuracy = predicting.dev_accuracy(tokenizer, items["dev"], method, training.get("dev_accuracy", "generation"),
                                       training["max_target_tokens"])
    study = StudyTrainer(
        model=model, args=arguments, train_dataset=rows, weights=list(weights.values()), tasks=list(weights),
        token_budget=training["token_budget"], dev_rows=[row for i in range(len(dev)) for row in dev[i]],
        dev_accuracy=accuracy, start=_start(model), pad=model.config.pad_token_id,
        callbacks=_callbacks(folder, training, progress, f"{method}, seed {seed}"))
    if training.get("gradient_checkpointing", False):
        model.gradient_checkpointing_enable({"use_reentrant": False})
    if training.get("compile", False):
        compile_stacks(model)
    set_seed(seed + process_group()[0])  # processes that share a step draw their dropout apart
    started, failed = time.time(), {}
    _wait()  # the first process has put the folder in order
    checkpoint = newest_whole_checkpoint(folder) if arguments.should_save else None
    _wait()
    checkpoint = checkpoint or newest_whole_checkpoint(folder)
    try:
        study.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except Diverged as error:
        failed = {"failed": str(error)}
    finally:
        for callback in study.callback_handler.callbacks:
            if isinstance(callback, Progress):
                callback.close()
    return {
        "curve": curve_of(study.state.log_history), "best_step": study.state.best_global_step,
        "steps": study.state.max_steps, "questions": len(rows), "effective_batch": training["questions_per_step"],
        "epochs": study.state.max_steps / steps,
        "rows": sum(len(rows[i]) for i in range(len(rows))), "cut_texts": cuts,
        "without_explanation": sum(not explained[item["id"]].rationale for item in items["train"]),
        "target_tokens": sum(row.counted for i in range(len(rows)) for row in rows[i]),
        "model_parameters": sum(weight.numel() for weight in model.parameters()), "finer_cuts": study.splits,
        "cost": {"seconds": round(time.time() - started, 1), "peak_memory_mib": peak_memory_mib(),
                 "resumed": bool(checkpoint), "threads": torch.get_num_threads(),
                 "processes": study.accelerator.num_processes},
        **({"unwritable_answers": gaps} if gaps else {}), **failed,
    }, study.model, tokenizer


def _tokenized(model, tokenizer, method, parameters, items, explained, seed, training):
    """Return (rows of train, rows of dev, cut texts of train, vocabulary gaps of both).

    The dev rows are the same for every seed.
    """
    from kdutils.hub import model_context
    from kdutils.student.collating import EpochRows, tokenize_rows, vocabulary_gaps
    from kdutils.student.models import model_kind

    entries, cuts = {}, {}
    for split, found in items.items():
        entries[split], cuts[split] = tokenize_rows(
            tokenizer, method, parameters, found, explained, training["max_source_tokens"],
            training["max_target_tokens"], model_kind(model), model_context(model))
    rows = {split: EpochRows(entries[split], [item["id"] for item in found], seed if split == "train" else 0)
            for split, found in items.items()}
    learnt = {row.task for i in range(len(rows["train"])) for row in rows["train"][i]}
    for number, task in enumerate(tasks_of(method, parameters)):
        if task.weight and number not in learnt and model_kind(model) != "classifier":
            raise StudyError(f"method {method}: no train question has what the task '{task.name}' learns from; give "
                             "explanations that fit the method")
    gaps = {} if model_kind(model) == "classifier" else vocabulary_gaps(
        tokenizer, method, items["train"] + items["dev"], explained)
    return rows["train"], rows["dev"], cuts["train"], gaps


def _callbacks(folder, training, progress, label):
    from transformers.integrations import TensorBoardCallback

    from kdutils.student.checkpoints import WholeCheckpoints
    from kdutils.student.progress import Progress

    callbacks = [WholeCheckpoints()]
    if training.get("tensorboard", False):
        from torch.utils.tensorboard import SummaryWriter

        callbacks.append(TensorBoardCallback(SummaryWriter(str(folder.parent / "tensorboard"))))
    return callbacks + ([Progress(progress, label, training["questions_per_step"])] if progress else [])


def curve_of(history):
    """Return one entry per evaluation of a trainer's log: step, dev accuracy and losses, training losses per task."""
    kept = ("eval_accuracy", "eval_loss", "train_loss_")
    return [{name.removeprefix("eval_"): value for name, value in entry.items()
             if name == "step" or name.startswith(kept)}
            for entry in history if "eval_accuracy" in entry]


def peak_memory_mib():
    """Return the peak memory so far in MiB: of the GPU where there is one, else of this process."""
    import resource
    import sys

    import torch

    if torch.cuda.is_available():
        return round(torch.cuda.max_memory_allocated() / 2**20)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10))
