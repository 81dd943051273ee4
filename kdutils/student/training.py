"""Train students: from tables to a model folder, with the record of how the training went.

For several GPUs, or several processes on a CPU, start the same call in each of them with ``accelerate launch`` or
``torchrun``. They share every step, and the first process writes the folder.
"""

from __future__ import annotations

import hashlib
import json
import resource
import shutil
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from kdutils.errors import StudyError
from kdutils.hub import device, local_folders, locate_model
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
from kdutils.student.methods import (
    Explained,
    Row,
    apply_control,
    as_explained,
    one_of,
    rows_of,
    tag_place,
    task_weights,
    tasks_of,
    taught_method,
)
from kdutils.student.protocols import LAYOUTS

if TYPE_CHECKING:
    import pandas as pd

STUDENT_SETTINGS = ("model", "tokenizer", "kind", "random_weights", "config", "lora")  # of models.load_student
TRAINING_SETTINGS = ("epochs", "questions_per_step", "learning_rate", "warmup_steps", "dev_evaluations",
                     "max_source_tokens", "max_target_tokens", "token_budget", "tag", "precision", "tensorboard",
                     "max_steps", "checkpoint", "layout", "padding_loss")
WITHOUT_EFFECT = ("tensorboard",)  # settings of `training` that do not change the weights


@dataclass(frozen=True)
class Recipe:
    """All that decides a trained student, except the questions and the explanations.

    `method`: a name of methods.METHODS; `parameters`: those of the method (alpha …). `student`: see STUDENT_SETTINGS.
    `training`: see TRAINING_SETTINGS, where `token_budget` is how many padded tokens run at a time; and, if wanted,

    - tag: where the tag stands, one of methods.TAG_PLACES, or "" (the default) for what suits the student's kind;
    - precision: ``float32``, ``bf16`` (the products of a step in bfloat16, all else in float32), or "" (the default)
      for bf16 on a GPU that has it, else float32;
    - dev_accuracy: ``generation`` (the default) or ``scores``, see predicting.dev_accuracy;
    - tensorboard: write logs into ``tensorboard/``;
    - max_steps: the number of optimiser steps in place of `epochs`, 0 (the default) for none;
    - checkpoint: ``best`` on dev (the default), or the ``last``;
    - layout: ``study`` (the default), or the literal texts of a paper, see protocols.LAYOUTS;
    - padding_loss: whether padding counts in the loss, see collating.RowFormat.

    `other_texts`: texts of another data set for the control shuffled, see methods.train_texts.
    """

    method: str
    student: dict
    training: dict
    parameters: dict = field(default_factory=dict)
    seed: int = 0
    other_texts: tuple[str, ...] = ()

    def select_explanations(self, items: list[dict], explained: dict) -> dict[str, Explained]:
        """Return {question id: Explained} as this method reads them, see methods.apply_control."""
        return apply_control(self.method, self.parameters, items, explained, self.seed, self.other_texts)

    @property
    def tag(self) -> str:
        """Where the student reads the tag, one of methods.TAG_PLACES, or its layout, one of protocols.LAYOUTS."""
        from kdutils.student.models import student_kind

        if self.training.get("layout", "study") != "study":
            return one_of(self.training, "layout", tuple(LAYOUTS))
        wanted = self.training.get("tag", "")
        return tag_place(wanted, "" if wanted else student_kind(self.student))

    def rows(self, item: dict, explained: dict) -> list[Row]:
        """Return the Rows of one question as the student learns them; `explained`: from select_explanations."""
        return rows_of(self.method, self.parameters, item, explained.get(item["id"]), self.tag)


def recipe_from(settings: dict, method: str, parameters: dict, other_texts: Iterable[str] = ()) -> Recipe:
    """Return the Recipe of a method from the parameters of a notebook; its seed is the first of `seeds`, or 0."""
    student = {name: settings[name] for name in STUDENT_SETTINGS} | {"lora": settings["lora"] or None}
    training = {name: settings[name] for name in TRAINING_SETTINGS if name in settings}
    return Recipe(method, student, training, parameters, settings.get("seeds", [0])[0], tuple(other_texts))


def vocabulary_lines(recipe: Recipe, questions: pd.DataFrame, explained: dict) -> list[str]:
    """Return sentences on what the student can never write of the questions and explanations; usually none."""
    from kdutils.student.collating import gap_lines, student_gaps

    read = recipe.select_explanations(questions.to_dict("records"), explained)
    return gap_lines(student_gaps(recipe.student, taught_method(recipe.method, recipe.tag), questions, read))


# The loss of one question, computed by hand

def worked_loss(recipe: Recipe, item: dict, explained: dict) -> tuple[pd.DataFrame, float, float]:
    """Compute the loss of one question by hand, with the untrained student; return (table, total, trainer's loss).

    `explained`: what select_explanations returned. The table has a row per task: the counted target tokens, the sum and
    mean of −log p, the weight and the weighted mean, all computed row by row from the probabilities. With a teacher,
    the sums of −log p and of T² · KL come first, and their mixture takes the place of −log p. For soft labels it has a
    row per choice, with its probability, and the last column is the choice's part of the weighted mean. `total` is the
    sum of the last column. The trainer's loss comes from the trainer's own functions, for the same rows in one padded
    chunk. Of alternatives (wrong answers) those of the first epoch are used.
    """
    import pandas as pd
    import torch

    from kdutils.hub import model_context
    from kdutils.student.collating import EpochRows, RowFormat, tokenize_rows
    from kdutils.student.distilling import distilled_from
    from kdutils.student.loss import dev_losses
    from kdutils.student.models import load_student, model_kind

    model, tokenizer = load_student(**recipe.student, seed=recipe.seed)
    teacher = distilled_from(recipe.method, recipe.parameters, recipe.student, model, tokenizer)
    weights, kind = task_weights(recipe.method, recipe.parameters), model_kind(model)
    limits = recipe.training["max_source_tokens"], recipe.training["max_target_tokens"]
    entries, _ = tokenize_rows(tokenizer, recipe.method, recipe.parameters, [item], explained,
                               RowFormat(*limits, kind, model_context(model), recipe.tag))
    rows, table = EpochRows(entries, [item["id"]], recipe.seed)[0], []
    together = any(task.together for task in tasks_of(recipe.method, recipe.parameters))
    tokens = [sum(row.weight * row.counted for row in rows if row.task == task) for task in range(len(weights))]
    for row in rows:
        with torch.no_grad():
            total, parts = -_log_probabilities(model, row, kind).sum().item(), {}
            if teacher:
                soft = _soft_loss(model, row, teacher)
                parts = {"sum of −log p": total, "sum of T² · KL": soft}
                total = teacher.hard[row.task] * total + (1 - teacher.hard[row.task]) * soft
        name, weight = list(weights.items())[row.task]
        table.append({"task": name, **({"probability": row.weight} if together else {}), "target tokens": row.counted,
                      **parts, "sum": total, "mean": total / row.counted, "weight": weight,
                      "weight · mean": weight * row.weight * total / tokens[row.task]})
    losses = dev_losses(model, rows, len(weights), 10**6, model.config.pad_token_id, _start(model), "cpu",
                        teacher and teacher.targets_of)
    loss = sum(loss * weight for loss, weight in zip(losses, weights.values(), strict=True))
    return pd.DataFrame(table), sum(row["weight · mean"] for row in table), loss


def _log_probabilities(model, row, kind):
    """Return log p of each counted token of one row, in float64, from the model run on this row alone, unpadded."""
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


def _soft_loss(model, row, teacher):
    """Return Σ T² · KL(teacher ‖ student) over the counted tokens of one row, from probabilities in float64."""
    import torch

    places = slice(len(row.source) - 1 + row.given, -1)
    theirs, own = ((one(input_ids=torch.tensor([row.source + row.target])).logits[0, places].double()
                    / teacher.temperature).softmax(-1) for one in (teacher.model, model))
    return teacher.temperature**2 * (theirs * (theirs / own).log()).sum().item()


def _start(model):
    return getattr(model.config, "decoder_start_token_id", None)


# Training

def train_seeds(folder: Path | str, recipe: Recipe, seeds: list[int], questions: pd.DataFrame,
                explained: dict) -> dict[int, dict]:
    """Train one student per seed into ``folder/seed-<n>/`` and return {seed: record}; see train_student.

    A failed student does not stop the others. ``folder/costs.json`` gets the cost of each trained student. What the
    vocabulary cannot write is printed. Raises StudyError if all students fail.
    """
    folder = Path(folder)
    for line in vocabulary_lines(recipe, questions, explained):
        print(line)
    records = {seed: train_student(folder / f"seed-{seed}", questions, explained, replace(recipe, seed=seed),
                                   folder / "progress.txt") for seed in seeds}
    trained = {seed: record for seed, record in records.items() if "failed" not in record}
    if not trained:
        raise StudyError(f"{recipe.method}: the training of every student failed; seed {seeds[0]}: "
                         f"{records[seeds[0]]['failed']}")
    for seed, record in trained.items():
        assert record["questions"] == (questions["split"] == "train").sum(), f"seed {seed}: questions are missing"
        assert all(point["loss"] == point["loss"] for point in record["curve"]), f"seed {seed}: a dev loss is missing"
        assert (folder / f"seed-{seed}" / "model.safetensors").is_file(), f"seed {seed}: the model is missing"
    write_json(folder / "costs.json", {str(seed): record["cost"] for seed, record in trained.items()})
    return records


def training_metrics(recipe: Recipe, records: dict[int, dict]) -> dict:
    """Return the results of train_seeds for metrics.json: no costs, which differ from run to run.

    dev_accuracy: the mean over seeds, of the checkpoint that was kept.
    """
    curves = [record["curve"] for record in records.values() if "failed" not in record]
    last = recipe.training.get("checkpoint", "best") == "last"
    kept = [curve[-1]["accuracy"] if last else max(point["accuracy"] for point in curve) for curve in curves]
    return {"method": recipe.method, "parameters": recipe.parameters, "dev_accuracy": sum(kept) / len(kept),
            "tasks": task_weights(recipe.method, recipe.parameters),
            "seeds": {seed: {name: value for name, value in record.items() if name != "cost"}
                      for seed, record in records.items()}}


def train_student(folder: Path | str, questions: pd.DataFrame, explained: dict, recipe: Recipe,
                  progress: Path | str | None = None) -> dict:
    """Train a student into `folder` and return its record; a complete student of the same data and recipe is kept.

    `questions`: a frame of tables.QUESTIONS with the splits train and dev. `explained`: {question id: see
    methods.as_explained}, such as methods.explained_of returns. `progress`: the file for the line of progress. An
    interrupted training continues from its last complete checkpoint.

    The record holds: curve (per evaluation: step, dev accuracy and losses, and per task the mean training loss since
    the evaluation before), best step, epochs, steps, effective batch (questions per step), tokens, cut texts,
    parameters of the model, how often a step was split, under "cost" seconds and peak memory in MiB and, if the
    vocabulary lacks characters, under "unwritable_answers" the collating.vocabulary_gaps.

    A loss or gradient that is not finite ends the training. The record then has the reason under "failed";
    ``failed.json`` keeps it beside the last good checkpoint, and no student is saved. Other faults raise StudyError.
    After a full disk the same call continues from the last good checkpoint.
    """
    folder = Path(folder)
    leave_process_group()
    wanted = fingerprint(questions, explained, recipe)
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
    record, model, tokenizer = _train(checkpoints, questions, explained, recipe, progress)
    if first:
        settings = {key: value for key, value in asdict(recipe).items() if key != "other_texts"}
        _keep(folder, record, model, tokenizer, {**settings, "tag": recipe.tag, "fingerprint": wanted})
    _wait()
    return record


def _keep(folder, record, model, tokenizer, settings):
    """Write a student, or the reason why it failed; remove the checkpoints once the student is complete."""
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


def fingerprint(questions: pd.DataFrame, explained: dict, recipe: Recipe) -> dict:
    """Return what decides the trained weights: settings, data, a local model's files, package versions and the code."""
    texts = {key: asdict(as_explained(one)) for key, one in explained.items()}
    data = json.dumps([questions.to_dict("records"), sorted(texts.items()), *recipe.other_texts], ensure_ascii=False)
    teacher = recipe.parameters.get("distilled_from")
    return {"method": recipe.method, "seed": recipe.seed, "student": recipe.student,
            "model_files": _model_files(recipe.student["model"]),
            "tokenizer_files": _model_files(recipe.student.get("tokenizer", "")),
            **({"teacher_files": _model_files(teacher)} if teacher else {}),
            "training": {key: value for key, value in recipe.training.items() if key not in WITHOUT_EFFECT},
            "parameters": recipe.parameters, "data": hashlib.sha256(data.encode()).hexdigest(),
            "versions": versions(), "code": code_digests(Path(__file__))}


def _model_files(name):
    folders = [project_path(locate_model(name, needs_weights=False)), *local_folders(name)[1:]] if name else []
    return {("base of " * at) + path.name: sha256(path) for at, folder in enumerate(folders)
            for path in sorted(folder.glob("*")) if path.is_file()}


def _same_training(path, wanted):
    try:
        return read_json(path)["fingerprint"] == wanted
    except (StudyError, KeyError):
        return False


class _Data(NamedTuple):
    """What a student learns from: dev questions, rows of train and dev, and facts for the record."""

    dev_items: list
    train: object
    dev: object
    cut_texts: dict
    unexplained: int
    gaps: dict


def _train(folder, questions, explained, recipe, progress):
    """Return (record, model, tokenizer)."""
    from transformers.utils import logging

    from kdutils.student.checkpoints import newest_whole_checkpoint
    from kdutils.student.distilling import distilled_from
    from kdutils.student.models import load_student
    from kdutils.student.trainer import Diverged

    logging.disable_progress_bar()
    logging.set_verbosity_error()  # the library reports tied weights as missing whenever it reads a checkpoint
    model, tokenizer = load_student(**recipe.student, seed=recipe.seed)
    teacher = distilled_from(recipe.method, recipe.parameters, recipe.student, model, tokenizer,
                             recipe.training["max_target_tokens"])
    data = _tokenized(model, tokenizer, recipe, questions, explained)
    for of_split in (data.train, data.dev) if teacher else ():
        teacher.check_rows(of_split)
    callbacks = _callbacks(folder, recipe, progress)
    trainer = _trainer(folder, model, tokenizer, recipe, data, callbacks, teacher)
    failed = {}
    _wait()  # until the first process has prepared the folder
    checkpoint = newest_whole_checkpoint(folder) if trainer.args.should_save else None
    _wait()
    checkpoint = checkpoint or newest_whole_checkpoint(folder)
    clock = callbacks[0]
    clock.start(checkpoint)
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except Diverged as error:
        failed = {"failed": str(error)}
    finally:
        if progress:
            callbacks[-1].close()
    cost = {"seconds": round(clock.seconds(), 1), "resumed": bool(checkpoint)}
    return {**_record(trainer, data, cost), **failed}, trainer.model, tokenizer


def _tokenized(model, tokenizer, recipe, questions, explained):
    """Return the _Data of a recipe. Its dev rows depend on the seed only where a control draws what they say."""
    from kdutils.hub import model_context
    from kdutils.student.collating import EpochRows, RowFormat, tokenize_rows, vocabulary_gaps
    from kdutils.student.distilling import epoch_rows
    from kdutils.student.models import model_kind

    items = {split: questions[questions["split"] == split].to_dict("records") for split in ("train", "dev")}
    for split, of_split in items.items():
        if not of_split:
            raise StudyError(f"questions: the split '{split}' is empty; a student needs train and dev questions")
    both = items["train"] + items["dev"]
    explained = recipe.select_explanations(both, explained)
    kind, rows, cuts = model_kind(model), {}, {}
    row_format = RowFormat(recipe.training["max_source_tokens"], recipe.training["max_target_tokens"], kind,
                           model_context(model), recipe.tag, recipe.training.get("padding_loss", False))
    for split, of_split in items.items():
        entries, cuts[split] = tokenize_rows(tokenizer, recipe.method, recipe.parameters, of_split, explained,
                                             row_format)
        ids = [item["id"] for item in of_split]
        rows[split] = (epoch_rows(recipe.method, recipe.parameters, entries, ids, recipe.seed) if split == "train" else
                       EpochRows(entries, ids, 0))
    learnt = {(one[0] if isinstance(one, tuple) else one).task for entry in rows["train"].entries for one in entry}
    for number, task in enumerate(tasks_of(recipe.method, recipe.parameters)):
        if task.weight and number not in learnt and kind != "classifier":
            raise StudyError(f"method {recipe.method}: no train question has what the task '{task.name}' learns from; "
                             "give explanations that fit the method")
    asks = taught_method(recipe.method, recipe.tag)
    gaps = {} if kind == "classifier" else vocabulary_gaps(tokenizer, asks, both, explained)
    unexplained = sum(not explained[item["id"]].rationale for item in items["train"])
    return _Data(items["dev"], rows["train"], rows["dev"], cuts["train"], unexplained, gaps)


def _callbacks(folder, recipe, progress):
    """Return the callbacks of a training; Progress, if there is one, is the last."""
    from transformers.integrations import TensorBoardCallback

    from kdutils.student.checkpoints import WholeCheckpoints
    from kdutils.student.progress import Progress

    callbacks = [WholeCheckpoints()]
    if recipe.training.get("tensorboard", False):
        from torch.utils.tensorboard import SummaryWriter

        callbacks.append(TensorBoardCallback(SummaryWriter(str(folder.parent / "tensorboard"))))
    label = f"{recipe.method}, seed {recipe.seed}"
    return callbacks + ([Progress(progress, label, recipe.training["questions_per_step"])] if progress else [])


def _trainer(folder, model, tokenizer, recipe, data, callbacks, teacher):
    """Return the StudyTrainer of a recipe, with all random numbers seeded."""
    from transformers import set_seed

    from kdutils.student import predicting
    from kdutils.student.trainer import StudyTrainer, training_arguments

    training, weights = recipe.training, task_weights(recipe.method, recipe.parameters)
    arguments = training_arguments(
        folder, recipe.seed, training["epochs"], training["questions_per_step"], training["learning_rate"],
        training["warmup_steps"], -(-len(data.train) // training["questions_per_step"]), training["dev_evaluations"],
        training.get("precision", ""), training.get("max_steps", 0), training.get("checkpoint", "best"))
    accuracy = predicting.dev_accuracy(tokenizer, data.dev_items, taught_method(recipe.method, recipe.tag),
                                       training.get("dev_accuracy", "generation"), training["max_target_tokens"])
    trainer = StudyTrainer(
        model=model, args=arguments, train_dataset=data.train, weights=list(weights.values()), tasks=list(weights),
        token_budget=training["token_budget"], dev_rows=[data.dev[i] for i in range(len(data.dev))],
        dev_accuracy=accuracy, start=_start(model), pad=model.config.pad_token_id, distilled=teacher,
        callbacks=callbacks)
    set_seed(recipe.seed + process_group()[0])  # processes that share a step draw different dropout
    return trainer


def _record(trainer, data, cost):
    """Return the record of a training that has ended, see train_student."""
    import torch

    kept = ("eval_accuracy", "eval_loss", "train_loss_")
    curve = [{name.removeprefix("eval_"): value for name, value in entry.items()
              if name == "step" or name.startswith(kept)}
             for entry in trainer.state.log_history if "eval_accuracy" in entry]
    rows = [row for i in range(len(data.train)) for row in data.train[i]]
    state, batch = trainer.state, trainer.args.per_device_train_batch_size * trainer.args.world_size
    return {
        "curve": curve, "best_step": state.best_global_step, "steps": state.max_steps,
        "questions": len(data.train), "effective_batch": batch,
        "epochs": state.max_steps / -(-len(data.train) // batch), "rows": len(rows), "cut_texts": data.cut_texts,
        "without_explanation": data.unexplained, "target_tokens": sum(row.counted for row in rows),
        "model_parameters": sum(weight.numel() for weight in trainer.model.parameters()), "finer_cuts": trainer.splits,
        "cost": {**cost, "peak_memory_mib": peak_memory_mib(), "threads": torch.get_num_threads(),
                 "processes": trainer.accelerator.num_processes},
        **({"unwritable_answers": data.gaps} if data.gaps else {}),
    }


def peak_memory_mib() -> int:
    """Return the peak memory so far in MiB: of the GPU if there is one, else of this process."""
    import torch

    if device() == "cuda":
        return round(torch.cuda.max_memory_allocated() / 2**20)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10))
