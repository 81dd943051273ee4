"""Training as a whole: repeatable, resumable, able to learn, and honest about what failed."""

import itertools
import os
import resource
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from kdutils import source_code
from kdutils.data.mini_world import true_rationale
from kdutils.errors import StudyError
from kdutils.report.training import show_training
from kdutils.runs import PROJECT, is_complete, mark_complete, read_json, write_json
from kdutils.student import checkpoints
from kdutils.student import loss as loss_module
from kdutils.student import trainer as trainer_module
from kdutils.student import training as training_module
from kdutils.student.checkpoints import newest_whole_checkpoint
from kdutils.student.loss import step_loss
from kdutils.student.methods import METHODS, Explained, explained_of
from kdutils.student.models import load_student, model_kind
from kdutils.student.predicting import predict_with
from kdutils.student.progress import Progress
from kdutils.student.trainer import StudyTrainer
from kdutils.student.training import Recipe, fingerprint, train_seeds, train_student, training_metrics

T5 = {"d_model": 48, "d_kv": 12, "d_ff": 96}
STUDENT = {"model": "kdutils/mini/student", "random_weights": True, "config": {**T5, "dropout_rate": 0.1}}
LLAMA = {"model_type": "llama", "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2,
         "num_attention_heads": 4}
TRAINING = {"epochs": 4, "questions_per_step": 6, "learning_rate": 3e-3, "warmup_steps": 2, "dev_evaluations": 6,
            "max_source_tokens": 128, "max_target_tokens": 128, "token_budget": 900}
# 24 questions: four steps an epoch, and with six evaluations a checkpoint every three, so inside of epochs too
METHOD = "combined"  # four tasks, one of them with a wrong answer drawn per epoch


@pytest.fixture(scope="module")
def explained(questions):
    """A rationale for the answer of every question and one for each wrong answer."""
    return {item["id"]: Explained(questions[1][item["id"]], {
        choice: true_rationale(item["question"], item["choices"], choice)
        for choice in item["choices"] if choice != item["answer"]}, soft=dict.fromkeys(item["choices"], 0.2))
        for item in questions[0].to_dict("records")}


@pytest.fixture(scope="module")
def train(questions, explained):
    def train(folder, method=METHOD, seed=0, progress=None, student=STUDENT, explained=explained, table=questions[0],
              **training):
        return train_student(folder, table[table["split"] != "test"], explained,
                             Recipe(method, student, {**TRAINING, **training}, {}, seed), progress)

    return train


class Killed(BaseException):
    pass


def at_step(number, action):
    """A replacement for Progress.on_step_end that does something at one step."""
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == number:
            action(state)

    return on_step_end


def kill(state):
    raise Killed


def weights(folder):
    return {name: tensor.clone() for name, tensor in load_file(folder / "model.safetensors").items()}


def same(first, second):
    return first.keys() == second.keys() and all(first[name].equal(second[name]) for name in first)


def without_cost(record):
    return {key: value for key, value in record.items() if key != "cost"}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, train):
    folder = tmp_path_factory.mktemp("undisturbed") / "seed-0"
    return folder, train(folder)


def test_the_same_seed_gives_the_same_weights_and_another_does_not(undisturbed, train, tmp_path):
    folder, record = undisturbed
    again = train(tmp_path / "again")
    assert same(weights(tmp_path / "again"), weights(folder)) and without_cost(again) == without_cost(record)
    train(tmp_path / "other", seed=1)
    assert not same(weights(tmp_path / "other"), weights(folder))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_can_be_trained_with_the_vocabulary_of_t5(train, tmp_path, method, questions):
    """Where an explanation's marker has several tokens, in the mini vocabulary it has two."""
    data = Path(os.environ.get("KDUTILS_DATA") or PROJECT.parent / "shared" / "data") / "tokenizers" / "t5"
    if not data.is_dir():
        pytest.skip("no T5 vocabulary: set KDUTILS_DATA to the folder that holds tokenizers/t5")
    few = questions[0].groupby("split").head(6)
    record = train(tmp_path / "seed-0", method, table=few, student={**STUDENT, "tokenizer": str(data)}, epochs=1,
                   dev_evaluations=1)
    assert record["steps"] == 1 and "failed" not in record and is_complete(tmp_path / "seed-0")


@pytest.mark.parametrize("student", [STUDENT, {"model": "", "tokenizer": STUDENT["model"], "random_weights": True,
                                               "config": LLAMA}], ids=["t5", "llama"])
def test_products_in_bf16_train_weights_in_float32(train, tmp_path, student, explained, questions):
    found = {}
    for precision in ("float32", "bf16"):
        record = train(tmp_path / precision, student=student, precision=precision, epochs=2, dev_evaluations=2,
                       learning_rate=1e-2)
        found[precision] = [point["loss"] for point in record["curve"]]
        assert {tensor.dtype for tensor in weights(tmp_path / precision).values()} == {torch.float32}
    assert found["bf16"][-1] < 0.9 * found["bf16"][0]
    assert found["bf16"] == pytest.approx(found["float32"], rel=0.05) and found["bf16"] != found["float32"]
    prints = [fingerprint(questions[0], explained, Recipe(METHOD, student, {**TRAINING, **changed}))
              for changed in ({"precision": "bf16"}, {"precision": "float32"}, {}, {"tag": "after"}, {"tag": "before"})]
    assert all(one != other for place, one in enumerate(prints) for other in prints[:place])
    with pytest.raises(StudyError, match="precision: unknown 'fp16'; known: float32, bf16"):
        train(tmp_path / "unknown", student=student, precision="fp16")


def test_the_record_tells_dev_and_training_losses_of_every_task(undisturbed):
    record = undisturbed[1]
    assert record["steps"] == 18 and [point["step"] for point in record["curve"]] == [3, 6, 9, 12, 15, 18]
    for point in record["curve"]:
        for task in ("predict", "explain", "factual", "counterfactual"):
            assert 0 < point[f"loss_{task}"] < 20 and 0 < point[f"train_loss_{task}"] < 20
    first, last = record["curve"][0], record["curve"][-1]
    assert last["train_loss_explain"] < first["train_loss_explain"]
    assert record["effective_batch"] == 6 and record["epochs"] == 4.5 and record["rows"] == 24 * 4


@pytest.mark.parametrize("stop_at", [2, 5, 13])  # before the first checkpoint, in the first epoch, near the end
def test_an_interrupted_training_ends_with_the_same_weights(undisturbed, train, tmp_path, monkeypatch, stop_at):
    """It goes on in the middle of an epoch: order of the questions, drawn wrong answers and dropout are as before."""
    folder = tmp_path / "seed-0"
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Progress, "on_step_end", at_step(stop_at, kill))
        train(folder, progress=tmp_path / "progress.txt")
    assert not is_complete(folder)
    if stop_at > 3:
        for kept in folder.glob("checkpoints/checkpoint-*/seconds.json"):
            write_json(kept, {"seconds": 10_000 + read_json(kept)["seconds"]})
            mark_complete(kept.parent)
    record = train(folder)
    assert record["cost"]["resumed"] is (stop_at > 3)
    assert (record["cost"]["seconds"] > 10_000) is (stop_at > 3), "also what it took before"
    assert same(weights(folder), weights(undisturbed[0]))
    assert without_cost(record) == without_cost(undisturbed[1])
    assert not (folder / "checkpoints").exists()


def test_every_epoch_draws_its_own_wrong_answers_and_order(train, tmp_path, monkeypatch):
    seen, run = [], StudyTrainer.training_step

    def watched(self, model, inputs, *more):
        seen.append([(tuple(row.source), tuple(row.target)) for row in inputs["rows"] if row.task == 1])
        return run(self, model, inputs, *more)

    monkeypatch.setattr(StudyTrainer, "training_step", watched)
    train(tmp_path / "seed-0", "counterfactual", epochs=2, dev_evaluations=1)
    epochs = [[row for step in seen[start: start + 4] for row in step] for start in (0, 4)]
    assert len(seen) == 8 and all(len(set(epoch)) == 24 for epoch in epochs)
    assert 0 < len(set(epochs[0]) & set(epochs[1])) < 24 and epochs[0] != epochs[1]


@pytest.mark.parametrize("which", ["newest", "best"])
def test_a_checkpoint_cut_short_is_passed_over(undisturbed, train, tmp_path, monkeypatch, which):
    """The best one counts too: it is what the training goes back to at its end."""
    def cut_short_and_kill(state):
        step = 12 if which == "newest" else state.best_global_step
        file = tmp_path / "seed-0" / "checkpoints" / f"checkpoint-{step}" / "model.safetensors"
        broken = file.read_bytes()[:-100] + bytes(100)
        file.unlink()
        file.write_bytes(broken)
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Progress, "on_step_end", at_step(14, cut_short_and_kill))
        train(tmp_path / "seed-0", progress=tmp_path / "progress.txt")
    train(tmp_path / "seed-0")
    assert same(weights(tmp_path / "seed-0"), weights(undisturbed[0]))


def test_old_checkpoints_go_when_the_new_one_is_whole_and_the_best_one_stays(train, tmp_path, monkeypatch):
    """Killed while a checkpoint is being declared whole: the one before it is still there."""
    marked = []

    def mark(folder):
        if folder.name == "checkpoint-9":
            raise Killed
        marked.append(sorted(int(path.name.split("-")[1]) for path in folder.parent.glob("checkpoint-*")))
        return mark_complete(folder)

    mark_complete = checkpoints.mark_complete
    monkeypatch.setattr(checkpoints, "mark_complete", mark)
    with pytest.raises(Killed):
        train(tmp_path / "seed-0")
    assert marked[0] == [3] and marked[1] == [3, 6]
    assert newest_whole_checkpoint(tmp_path / "seed-0" / "checkpoints").name == "checkpoint-6"


@pytest.mark.parametrize("function", ["rmtree", "mark_complete"])
def test_a_kill_at_the_very_end_costs_no_training(undisturbed, train, tmp_path, monkeypatch, function):
    place = training_module.shutil if function == "rmtree" else training_module
    whole = getattr(place, function)

    def killed(path, *more, **options):
        if (tmp_path / "seed-0" / "student.json").is_file():
            raise Killed
        return whole(path, *more, **options)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(place, function, killed)
        train(tmp_path / "seed-0")
    steps = []
    monkeypatch.setattr(Progress, "on_step_end", lambda self, args, state, control, **_: steps.append(1))
    train(tmp_path / "seed-0", progress=tmp_path / "progress.txt")
    assert steps == [] and same(weights(tmp_path / "seed-0"), weights(undisturbed[0]))
    assert not (tmp_path / "seed-0" / "checkpoints").exists()


@pytest.mark.parametrize(("step", "limit", "what", "after"), [
    (4, 100_000, "the checkpoint of step 6", "step 3, the last good checkpoint"),  # its weights do not fit
    (1, 2**20, "the checkpoint of step 3", "its start"),  # its weights fit, the state of the optimizer does not
    (18, 100_000, "the trained student", "step 18, the last good checkpoint"),
])
def test_a_full_disk_is_named_and_the_next_call_goes_on(undisturbed, train, tmp_path, monkeypatch, step, limit, what,
                                                        after):
    """No file can grow beyond a limit: what a full disk does to torch, safetensors and plain files."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(*_, **__):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, old[1]))

    with monkeypatch.context() as patch, pytest.raises(StudyError) as error:
        if step < 18:
            patch.setattr(Progress, "on_step_end", at_step(step, fill))
        else:
            patch.setattr(training_module, "_keep", lambda *parts, keep=training_module._keep: (fill(), keep(*parts)))
        try:
            train(tmp_path / "seed-0", progress=tmp_path / "progress.txt")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, old)
    said = str(error.value)
    assert f"{what} could not be written (" in said and "MiB are free there. Free some space and run again" in said
    assert said.endswith(f"the training continues from {after}") and "\n" not in said
    assert train(tmp_path / "seed-0")["cost"]["resumed"] is (step > 3)
    assert same(weights(tmp_path / "seed-0"), weights(undisturbed[0]))


def test_an_answer_that_a_student_could_never_write_is_named(questions, train, tmp_path):
    table = questions[0].assign(answer=questions[0]["answer"] * 9)
    with pytest.raises(StudyError, match=r"max_target_tokens: .*, an answer or a choice of question 'mini-0-tr.*takes"):
        train(tmp_path / "seed-0", "label_only", table=table, max_target_tokens=9)


def test_a_task_without_anything_to_learn_from_is_named(questions, train, tmp_path):
    with pytest.raises(StudyError, match="method combined: no train question has what the task 'counterfactual'"):
        train(tmp_path / "seed-0", explained=questions[1])


def test_a_whole_student_is_not_trained_again_and_an_altered_one_is(train, tmp_path):
    folder, train = tmp_path / "seed-0", partial(train, method="multitask", dev_evaluations=1)
    record = train(folder, epochs=1)
    before = weights(folder)
    assert train(folder, epochs=1) == record  # seconds included: read back, not trained
    assert train(folder, epochs=1, tensorboard=True) == record  # without effect on the weights
    assert read_json(folder / "student.json")["method"] == "multitask"
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").write_bytes(b"cut short")
    train(folder, epochs=1)
    assert same(weights(folder), before)
    assert train(folder, epochs=2)["steps"] == 8  # other settings: another student


def test_what_a_student_is_made_from_includes_the_texts_for_wrong_answers(questions, explained):
    key = questions[0]["id"].iloc[0]
    changed = {**explained, key: Explained(explained[key].rationale, {"other": "Another text."})}
    made = [fingerprint(questions[0], texts, Recipe(METHOD, STUDENT, TRAINING)) for texts in (explained, changed)]
    assert made[0]["data"] != made[1]["data"]
    plain = {key: one.rationale for key, one in explained.items()}
    both = [fingerprint(questions[0], texts, Recipe(METHOD, STUDENT, TRAINING))["data"]
            for texts in (plain, {key: Explained(text) for key, text in plain.items()})]
    assert both[0] == both[1]  # a text alone is the rationale


def test_a_student_depends_on_the_files_of_its_tokenizer(questions, explained, tmp_path):
    load_student(**STUDENT)[1].save_pretrained(tmp_path)
    recipe = Recipe(METHOD, {**STUDENT, "tokenizer": str(tmp_path)}, TRAINING)
    before = fingerprint(questions[0], explained, recipe)
    assert before == fingerprint(questions[0], explained, recipe)
    (tmp_path / "tokenizer.json").write_text((tmp_path / "tokenizer.json").read_text() + " ")
    assert before != fingerprint(questions[0], explained, recipe)


def test_the_fingerprint_depends_on_the_code_and_not_on_its_wording(tmp_path, monkeypatch):
    copied = shutil.copytree(PROJECT / "kdutils", tmp_path / "kdutils", ignore=shutil.ignore_patterns(
        "__pycache__", "*.safetensors", "*.parquet"))
    monkeypatch.setattr(source_code, "PROJECT", tmp_path)

    def digests_after(name, old, new):
        if name:
            text = (copied / name).read_text(encoding="utf-8")
            assert old in text
            (copied / name).write_text(text.replace(old, new, 1), encoding="utf-8")
        return source_code.code_digests(copied / "student" / "training.py")

    before = digests_after("", "", "")
    modules = ("training", "trainer", "loss", "collating", "methods")
    assert {f"kdutils/student/{name}.py" for name in modules} <= set(before)
    assert digests_after("student/loss.py", "# usually none", "# none, as a rule") == before
    assert digests_after("student/loss.py", '"""The exact loss', '"""Exactly the loss') == before
    assert digests_after("student/training.py", '    """Return (record, model, tokenizer)."""', "") == before
    assert digests_after("benchmarks/training.py", "import", "import this, antigravity\nimport") == before
    changed = digests_after("student/loss.py", "FAR = 1e-30", "FAR = 1e-20")
    assert {name for name in before if changed[name] != before[name]} == {"kdutils/student/loss.py"}


# What fails stays in the table

def test_a_student_that_diverges_is_marked_and_the_next_seed_goes_on(train, tmp_path, monkeypatch):
    folder, calls = tmp_path / "seed-0", []

    def poisoned(model, chunk, scale, *more):
        total, sums = step_loss(model, chunk, scale)
        calls.append(bool(scale.any()))  # in an evaluation it is 0
        return (total, sums * torch.nan) if calls[-1] and False in calls else (total, sums)

    with monkeypatch.context() as patch:
        patch.setattr(trainer_module, "step_loss", poisoned)
        patch.setattr(loss_module, "step_loss", poisoned)
        record = train(folder, "multitask")
    assert record["failed"].startswith("the loss became nan at step ") and "task 'predict'" in record["failed"]
    kept = read_json(folder / "failed.json")
    assert kept["reason"] == record["failed"] and kept["record"] == record
    assert not is_complete(folder) and not (folder / "model.safetensors").exists()
    good = newest_whole_checkpoint(folder / "checkpoints")
    assert record["curve"][-1]["step"] == int(good.name.split("-")[1]) < record["steps"] == 18
    assert all(tensor.isfinite().all() for tensor in load_file(good / "model.safetensors").values())
    assert train(folder, "multitask") == record  # the same settings fail the same way: told again, not tried again
    assert "failed" not in train(tmp_path / "seed-1", "multitask", seed=1)
    assert "failed" not in train(folder, "multitask", learning_rate=1e-3)  # another setting is tried
    assert not (folder / "failed.json").exists() and is_complete(folder)


def test_a_learning_rate_that_blows_the_weights_up_is_said(train, tmp_path):
    record = train(tmp_path / "seed-0", "multitask", learning_rate=1e30, warmup_steps=0)
    assert "at step 2, task 'predict', learning rate 9.44e+29; try a smaller learning rate" in record["failed"]
    assert record["curve"] == [] and record["best_step"] is None


def test_a_dev_loss_that_is_not_a_number_is_no_checkpoint(train, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer_module, "dev_losses", lambda *_: [1.0, float("inf")])
    record = train(tmp_path / "seed-0", "multitask")
    assert record["failed"].startswith("the dev loss became inf at the evaluation after step 3, task 'explain'")
    assert newest_whole_checkpoint(tmp_path / "seed-0" / "checkpoints") is None


# Following a run

@pytest.mark.parametrize(("tick", "fewest", "most"), [(0.1, 2, 2), (2.0, 4, 12)])
def test_a_log_gets_few_lines_and_the_runner_gets_the_latest(train, tmp_path, capsys, monkeypatch, tick, fewest, most):
    """18 fast steps get the first and the last line, slow ones some more; `tick`: seconds per look at the clock."""
    clock = itertools.count(1000, tick)
    monkeypatch.setattr("kdutils.student.progress.time", SimpleNamespace(time=lambda: next(clock)))
    train(tmp_path / "seed-0", "multitask", progress=tmp_path / "progress.txt")
    out, err = capsys.readouterr()
    lines = [line for line in out.splitlines() if line.strip()]
    assert fewest <= len(lines) <= most and err == ""
    for text in (lines[-1], (tmp_path / "progress.txt").read_text().strip()):
        assert text.startswith("multitask, seed 0: step 18/18, 0 s left, dev accuracy 0.")
        for part in (" questions/s", ", loss predict ", " explain "):
            assert part in text


def test_a_person_who_looks_on_sees_a_bar(train, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("JPY_SESSION_NAME", "12_train.ipynb")  # what JupyterLab gives its kernels
    train(tmp_path / "seed-0", "multitask", progress=tmp_path / "progress.txt")
    out, err = capsys.readouterr()
    assert out == "" and "multitask, seed 0: 100%" in err.split("\r")[-1]
    assert "18/18" in err and "loss predict" in err and "dev accuracy" in err and "questions/s" in err


def test_tensorboard_shows_the_loss_of_every_task(train, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(tmp_path / "seed-0", "multitask", tensorboard=True)
    events = EventAccumulator(str(tmp_path / "seed-0" / "tensorboard"))
    events.Reload()
    tags = events.Tags()["scalars"]
    assert {"train/loss", "train/loss_predict", "train/loss_explain", "eval/accuracy", "eval/loss_predict"} <= set(tags)
    assert [event.step for event in events.Scalars("eval/accuracy")] == [3, 6, 9, 12, 15, 18]


# Every family learns

SMALL = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
         "max_position_embeddings": 256, "initializer_range": 0.1}
LLAMA = {"num_key_value_heads": 2, **SMALL}
BERT = {"model_type": "bert", "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, **SMALL}
FAMILIES = {
    "t5": {"model_type": "t5", "num_layers": 2, "num_heads": 4, "dropout_rate": 0.0, **T5},
    "t5-v1.1": {"model_type": "t5", "num_layers": 2, "num_heads": 4, "dropout_rate": 0.0,
                "feed_forward_proj": "gated-gelu", **T5},
    "warm-started": BERT, "llama": {"model_type": "llama", **LLAMA},
    "qwen3": {"model_type": "qwen3", "head_dim": 12, **LLAMA}, "smollm3": {"model_type": "smollm3", **LLAMA},
    "classifier": BERT,
}


@pytest.fixture(scope="module")
def by_heart(questions):
    """Twenty questions to learn, which the dev split asks again, and their rationales under both ids."""
    few = questions[0][questions[0]["split"] == "train"].head(20)
    dev = few.assign(split="dev", id=few["id"] + "-dev")
    rationales = {f"{key}{end}": text for key, text in questions[1].items() for end in ("", "-dev")}
    return pd.concat([few, dev]), dev, rationales


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_learns_twenty_questions_by_heart(family, by_heart, tmp_path, tmp_path_factory):
    config, kind = FAMILIES[family], "classifier" if family == "classifier" else ""
    student = {"model": "", "tokenizer": "kdutils/mini/student", "random_weights": True, "config": config, "kind": kind}
    if family == "warm-started":  # through a folder of an encoder, as a pretrained one comes
        from transformers import AutoConfig, AutoModel

        _, tokenizer = load_student(**student)
        shape = AutoConfig.for_model(**config, vocab_size=len(tokenizer))
        AutoModel.from_config(shape).save_pretrained(tmp_path / "it")
        tokenizer.save_pretrained(tmp_path / "it")
        student = {"model": str(tmp_path / "it")}
    method = "label_only" if kind else "multitask"
    record = train_student(tmp_path / "seed-0", by_heart[0], by_heart[2], Recipe(method, student, {
        **TRAINING, "epochs": 45, "questions_per_step": 10, "learning_rate": 6e-3, "dev_evaluations": 1,
        "token_budget": 3000}))
    assert record["curve"][-1]["accuracy"] == 1.0
    said = predict_with(tmp_path / "seed-0", by_heart[1], 64, 0)
    assert said["correct"].all() and said["exact"].all()
    assert model_kind(load_student(str(tmp_path / "seed-0"))[0]) == (kind or model_kind(load_student(**student)[0]))


def test_adapters_learn_and_are_saved_as_a_plain_student(by_heart, tmp_path):
    base, tokenizer = load_student("", "kdutils/mini/student", random_weights=True, config=FAMILIES["llama"])
    base.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    student = {"model": str(tmp_path / "base"), "lora": {"rank": 4}}
    record = train_student(tmp_path / "seed-0", by_heart[0], by_heart[2], Recipe("multitask", student, {
        **TRAINING, "epochs": 4, "learning_rate": 1e-2, "dev_evaluations": 2}))
    assert record["curve"][-1]["loss"] < record["curve"][0]["loss"]
    trained, before = load_student(str(tmp_path / "seed-0"))[0], load_student(str(tmp_path / "base"))[0]
    assert type(trained) is type(before) and not (tmp_path / "seed-0" / "adapter_config.json").exists()
    moved = {name for name, weight in trained.named_parameters() if not weight.equal(before.get_parameter(name))}
    assert moved and all("_proj" in name for name in moved)


def test_only_usable_rationales_for_the_gold_answer_are_learnt(questions):
    table = questions[0].head(3)
    explanations = pd.DataFrame({"id": table["id"], "stage": "rationale", "text": ["good", None, "for another"],
                                 "answer": [table["answer"].iloc[0], table["answer"].iloc[1], "something else"]})
    read = explained_of(explanations, table)
    assert {key: one.rationale for key, one in read.items() if one.rationale} == {table["id"].iloc[0]: "good"}


# Several seeds

def test_a_failed_seed_leaves_the_others_and_all_failed_seeds_are_an_error(questions, tmp_path, monkeypatch, capsys):
    table = questions[0][questions[0]["split"] != "test"]
    done = {"questions": 24, "cost": {"seconds": 2.0}, "cut_texts": {"sources": 0, "targets": 1},
            "curve": [{"step": 3, "accuracy": 0.5, "loss": 1.0}, {"step": 6, "accuracy": 0.75, "loss": 0.5}]}
    called = []

    def train(folder, questions, explained, recipe, progress):
        called.append((folder.name, recipe.seed, progress.name))
        (folder / "model.safetensors").parent.mkdir()
        (folder / "model.safetensors").touch()
        return {"failed": "the loss became nan", "curve": []} if recipe.seed in failing else dict(done)

    monkeypatch.setattr(training_module, "train_student", train)
    recipe, failing = Recipe("multitask", STUDENT, TRAINING, {"alpha": 0.25}), {1}
    records = train_seeds(tmp_path, recipe, [0, 1, 10], table, {})
    assert called == [(f"seed-{seed}", seed, "progress.txt") for seed in (0, 1, 10)] and list(records) == [0, 1, 10]
    assert read_json(tmp_path / "costs.json") == {"0": {"seconds": 2.0}, "10": {"seconds": 2.0}}
    metrics = training_metrics(recipe, records)
    assert metrics["dev_accuracy"] == 0.75
    falling = {seed: {**one, "curve": one["curve"][::-1]} for seed, one in records.items()}
    of_last = [training_metrics(replace(recipe, training={**TRAINING, "checkpoint": kept}), falling)["dev_accuracy"]
               for kept in ("best", "last")]
    assert of_last == [0.75, 0.5], "that of the weights that are kept"
    assert metrics["seeds"][1] == {"failed": "the loss became nan", "curve": []}
    assert set(metrics) == {"method", "parameters", "dev_accuracy", "tasks", "seeds"}
    assert metrics["tasks"] == {"predict": 0.25, "explain": 0.75} and "cost" not in metrics["seeds"][0]
    show_training(records)
    shown = capsys.readouterr().out
    assert all(words in shown for words in ("Students that failed", "the loss became nan", "Facts and costs"))
    failing, other = {0, 1}, tmp_path / "other"
    other.mkdir()
    with pytest.raises(StudyError, match="multitask: the training of every student failed; seed 0: the loss became"):
        train_seeds(other, recipe, [0, 1], table, {})
    assert not (other / "costs.json").exists()
