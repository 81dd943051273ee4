"""Train one student: from tables to a model folder, with the record of how it went."""

import shutil
import time
from pathlib import Path

from kdutils.errors import StudyError
from kdutils.runs import PROJECT, is_whole, mark_whole, project_path, read_json, sha256, versions, write_json
from kdutils.student.methods import task_weights

CODE = ("student", "data")  # the folders of kdutils that decide what a student becomes


def rationales_of(explanations, questions, stage="rationale"):
    """Return {question id: text} of the usable explanations of one stage that argue for the gold answer.

    `explanations`: a frame of tables.EXPLANATIONS; `questions`: one of tables.QUESTIONS.
    """
    gold = dict(zip(questions["id"], questions["answer"], strict=True))
    usable = explanations[(explanations["stage"] == stage) & explanations["text"].notna()]
    return {key: text for key, answer, text in zip(usable["id"], usable["answer"], usable["text"], strict=True)
            if gold.get(key) == answer}


def worked_loss(student, method, parameters, item, rationales, seed):
    """Work the loss of one question out by hand, on the untrained student.

    Returns (table, total, loss): per task the target tokens, the sum and mean of −log p and the weighted
    mean, computed row by row from the probabilities; their sum; and what the trainer's own functions give
    for the same rows in one padded chunk.
    """
    import pandas as pd
    import torch

    from kdutils.student.collating import TokenRow, pad_chunk, tokenize_rows
    from kdutils.student.models import load_student
    from kdutils.student.trainer import dev_losses

    model, tokenizer = load_student(**student, seed=seed)
    weights = task_weights(method, parameters)
    rows = tokenize_rows(tokenizer, method, parameters, [item], rationales, 512, 512)[0][0]
    start, pad = model.config.decoder_start_token_id, model.config.pad_token_id
    table = []
    for name, row in zip(weights, rows, strict=False):
        chunk = pad_chunk([TokenRow(0, row.source, row.target)], pad, start)
        with torch.no_grad():
            logits = model(input_ids=chunk["input_ids"], decoder_input_ids=chunk["decoder_input_ids"]).logits[0]
        probabilities = logits.double().softmax(-1)[range(len(row.target)), row.target]
        total = float(-probabilities.log().sum())
        table.append({"task": name, "target tokens": len(row.target), "sum": total, "mean": total / len(row.target),
                      "weight": weights[name], "weight · mean": weights[name] * total / len(row.target)})
    losses = dev_losses(model, rows, list(weights.values()), 10**6, pad, start, "cpu")
    loss = sum(loss * weight for loss, weight in zip(losses, weights.values(), strict=True))
    return pd.DataFrame(table), sum(row["weight · mean"] for row in table), loss


def train_student(folder, questions, rationales, method, seed, student, training, parameters, progress=None):
    """Train a student into `folder` and return its record; one that stands there whole is not trained again.

    `questions`: a frame of tables.QUESTIONS with the splits train and dev. `rationales`: {id: text}.
    `student`: the arguments of models.load_student. `training`: epochs, questions_per_step, learning_rate,
    warmup_steps, dev_evaluations, max_source_tokens, max_target_tokens, token_budget. `parameters`: those of the
    method (alpha …). An interrupted training goes on from its last whole checkpoint.

    The record holds: curve (per evaluation: step, dev accuracy and losses), best step, epochs, steps,
    effective batch (questions per step), tokens, cut texts, parameters of the model, splits of steps, and
    under "cost" seconds and peak memory in MiB.
    """
    folder = Path(folder)
    wanted = fingerprint(questions, rationales, method, seed, student, training, parameters)
    checkpoints = folder / "checkpoints"
    if is_whole(folder) and read_json(folder / "student.json")["fingerprint"] == wanted:
        shutil.rmtree(checkpoints, ignore_errors=True)
        return read_json(folder / "record.json")
    if not _same_training(checkpoints, wanted):
        shutil.rmtree(folder, ignore_errors=True)
        write_json(checkpoints / "fingerprint.json", wanted)
    record, model, tokenizer = _train(checkpoints, questions, rationales, method, seed, student, training,
                                      parameters, progress)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_json(folder / "record.json", record)
    write_json(folder / "student.json", {"method": method, "seed": seed, "parameters": parameters, "student": student,
                                         "training": training, "fingerprint": wanted})
    mark_whole(folder)
    shutil.rmtree(checkpoints)
    return record


def fingerprint(questions, rationales, method, seed, student, training, parameters):
    """Return what decides the trained weights: settings, data, a local model's files, package versions, the code."""
    import hashlib
    import json

    data = json.dumps([questions.to_dict("records"), sorted(rationales.items())], ensure_ascii=False)
    code = {path.relative_to(PROJECT).as_posix(): sha256(path)
            for part in CODE for path in sorted((PROJECT / "kdutils" / part).glob("*.py"))}
    base = project_path(student["model"])
    files = {path.name: sha256(path) for path in sorted(base.glob("*")) if path.is_file()}
    return {"method": method, "seed": seed, "student": student, "model_files": files,
            "training": training, "parameters": parameters,
            "data": hashlib.sha256(data.encode()).hexdigest(), "versions": versions(), "code": code}


def _same_training(checkpoints, wanted):
    try:
        return read_json(checkpoints / "fingerprint.json") == wanted
    except StudyError:
        return False


def _train(folder, questions, rationales, method, seed, student, training, parameters, progress):
    import torch
    from transformers import set_seed
    from transformers.utils import logging

    from kdutils.student import predicting, trainer
    from kdutils.student.collating import tokenize_rows
    from kdutils.student.models import load_student

    logging.disable_progress_bar()
    logging.set_verbosity_error()  # tied weights are reported as missing whenever a checkpoint is read back
    model, tokenizer = load_student(**student, seed=seed)
    weights = task_weights(method, parameters)
    items = {split: questions[questions["split"] == split].to_dict("records") for split in ("train", "dev")}
    for split, found in items.items():
        if not found:
            raise StudyError(f"questions: the split '{split}' is empty; a student needs train and dev questions")
    lengths = training["max_source_tokens"], training["max_target_tokens"]
    rows, cuts = tokenize_rows(tokenizer, method, parameters, items["train"], rationales, *lengths)
    dev_rows, _ = tokenize_rows(tokenizer, method, parameters, items["dev"], rationales, *lengths)
    arguments = trainer.training_arguments(
        folder, seed, training["epochs"], training["questions_per_step"], training["learning_rate"],
        training["warmup_steps"], -(-len(rows) // training["questions_per_step"]), training["dev_evaluations"])
    set_seed(seed)
    study = trainer.StudyTrainer(
        model=model, args=arguments, train_dataset=rows, eval_dataset=dev_rows, weights=list(weights.values()),
        tasks=list(weights), token_budget=training["token_budget"],
        dev_rows=[row for group in dev_rows for row in group],
        dev_accuracy=predicting.dev_accuracy(tokenizer, items["dev"]), start=model.config.decoder_start_token_id,
        pad=model.config.pad_token_id, callbacks=[trainer.WholeCheckpoints()])
    if progress:
        line = trainer.Progress(progress, f"{method}, seed {seed}", training["questions_per_step"])
        line.trainer = study
        study.add_callback(line)
    started = time.time()
    checkpoint = trainer.newest_whole_checkpoint(folder)
    study.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    curve = [{name.removeprefix("eval_"): value for name, value in entry.items()
              if name == "step" or name in ("eval_accuracy", "eval_loss") or name.startswith("eval_loss_")}
             for entry in study.state.log_history if "eval_accuracy" in entry]
    record = {
        "curve": curve, "best_step": study.state.best_global_step, "steps": study.state.max_steps,
        "questions": len(rows), "effective_batch": training["questions_per_step"],
        "epochs": study.state.max_steps / -(-len(rows) // training["questions_per_step"]),
        "rows": sum(len(group) for group in rows), "cut_texts": cuts,
        "without_explanation": sum(item["id"] not in rationales for item in items["train"]),
        "target_tokens": sum(len(row.target) for group in rows for row in group),
        "model_parameters": sum(weight.numel() for weight in model.parameters()), "finer_cuts": study.splits,
        "cost": {"seconds": round(time.time() - started, 1), "peak_memory_mib": peak_memory_mib(),
                 "resumed": bool(checkpoint), "threads": torch.get_num_threads()},
    }
    return record, study.model, tokenizer


def peak_memory_mib():
    """Return the peak memory so far in MiB: of the GPU where there is one, else of this process."""
    import resource
    import sys

    import torch

    if torch.cuda.is_available():
        return round(torch.cuda.max_memory_allocated() / 2**20)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10))
