"""One process and two: the same loss, the same gradients, the same student (gloo on the CPU)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from kdutils.runs import is_complete, read_json

# 14 questions, 8 a step: the last step of an epoch has six, which leaves the second process two of its four.
# And 13 a step of 12 … see STEPS: one of them leaves the second process none at all.
SCRIPT = '''
import os, sys
import torch
torch.set_num_threads(1)
from kdutils.data.mini_world import build_questions, true_rationale
from kdutils.student import models, trainer, training
from kdutils.student.methods import Explained

load = models.load_student
def in_float64(*words, **settings):
    model, tokenizer = load(*words, **settings)
    return model.double(), tokenizer
models.load_student = in_float64

table = build_questions(14, 4, 4)
texts = {item["id"]: Explained(true_rationale(item["question"], item["choices"], item["answer"]), {
    choice: true_rationale(item["question"], item["choices"], choice)
    for choice in item["choices"] if choice != item["answer"]}, soft=dict(zip(item["choices"], (.4, .3, .15, .1, .05))))
    for item in table.to_dict("records")}
student = {"model": "kdutils/mini/student", "random_weights": True, "config": {"d_model": 32, "d_kv": 8, "d_ff": 48}}
llama = {**student, "model": "", "tokenizer": "kdutils/mini/student", "config": {
    "model_type": "llama", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "tie_word_embeddings": True}}
distilled = {"model": "kdutils/mini/teacher", "random_weights": True, "config": {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "head_dim": 8}}
kl = {"distilled_from": "kdutils/mini/teacher", "temperature": 2.0}
folder, seen = sys.argv[1], set()

step = trainer.StudyTrainer.training_step
def watched(self, model, inputs, *more):
    loss = step(self, model, inputs, *more)
    plain = self.accelerator.unwrap_model(model)
    kind = plain.config.model_type
    if kind not in seen and self.is_world_process_zero():
        torch.save({"loss": loss, "means": self.step["means"],
                    **{name: weight.grad for name, weight in plain.named_parameters()}}, f"{folder}.{kind}")
    seen.add(kind)
    return loss
trainer.StudyTrainer.training_step = watched

for name, method, questions_per_step, student, more in (
        ("even", "combined", 8, student, {}), ("odd", "combined", 12, student, {}),
        ("causal", "combined", 12, llama, {}), ("soft", "soft_label", 12, llama, {}),
        ("kl", "token_kl", 12, distilled, kl), ("own", "token_kl", 12, distilled, {**kl, "on_policy": 0.5})):
    record = training.train_student(
        f"{folder}/{name}", table[table["split"] != "test"], texts, training.Recipe(method, student, {
            "epochs": 2, "questions_per_step": questions_per_step, "learning_rate": 1e-3, "warmup_steps": 1,
            "dev_evaluations": 2, "max_source_tokens": 128, "max_target_tokens": 128, "token_budget": 900},
            {"alpha": 0.3, **more}), f"{folder}/progress.txt")
    assert record["cost"]["processes"] == int(os.environ.get("WORLD_SIZE", 1))
'''

LEFT = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "PMI_SIZE": "2", "PMI_RANK": "1"}  # by another program


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folders of the same training by one and by two processes."""
    folder = tmp_path_factory.mktemp("processes")
    (folder / "script.py").write_text(SCRIPT)
    project = Path(__file__).resolve().parents[1]
    both = [[sys.executable], [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone"]]
    started = [subprocess.Popen([*command, str(folder / "script.py"), str(folder / name)], cwd=folder,
                                env={**os.environ, **left, "PYTHONPATH": str(project)}, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, text=True)
               for command, name, left in zip(both, ("one", "two"), (LEFT, {}), strict=True)]
    for process in started:
        out = process.communicate(timeout=300)[0]
        assert process.returncode == 0, out
    return folder


@pytest.mark.parametrize("kind", ["t5", "llama"])
def test_a_step_shared_by_two_processes_has_the_same_loss_and_gradients(runs, kind):
    one, two = (torch.load(runs / f"{name}.{kind}") for name in ("one", "two"))
    assert one.keys() == two.keys() and len(one) > 10
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["even", "odd", "causal", "soft", "kl"])
def test_two_processes_train_the_same_student(runs, name):
    """Steps that do not come out even included: no question is taken twice, and one process may be left with none."""
    one, two = runs / "one" / name, runs / "two" / name
    assert is_complete(one) and is_complete(two) and not (two / "checkpoints").exists()
    for weight, value in load_file(one / "model.safetensors").items():
        assert value.dtype == torch.float64
        torch.testing.assert_close(load_file(two / "model.safetensors")[weight], value, rtol=1e-7, atol=1e-9)
    records = [read_json(folder / "record.json") for folder in (one, two)]
    for first, second in zip(*(record["curve"] for record in records), strict=True):
        assert first == pytest.approx(second, rel=1e-7)
    assert records[0]["effective_batch"] == records[1]["effective_batch"]


def test_texts_that_the_student_writes_itself_differ_between_processes_and_the_training_ends(runs):
    """Each process draws with random numbers of its own, so two of them do not train the student of one."""
    folders = [runs / name / "own" for name in ("one", "two")]
    assert all(map(is_complete, folders))
    records = [read_json(folder / "record.json") for folder in folders]
    assert len(records[0]["curve"]) == len(records[1]["curve"]) and records[0]["curve"] != records[1]["curve"]


def test_a_rank_that_was_left_in_the_environment_is_no_second_process(runs):
    """The one process had LEFT in its environment; the first of two writes the folder, the second alone never does."""
    assert all(is_complete(runs / "one" / name) for name in ("even", "odd", "causal"))
    assert read_json(runs / "one" / "even" / "record.json")["cost"]["processes"] == 1
    assert read_json(runs / "two" / "even" / "record.json")["cost"]["processes"] == 2
