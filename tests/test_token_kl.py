"""Token-level distillation: loss and gradients against plain PyTorch in float64, and what is refused."""

import copy
import itertools
import json
from dataclasses import replace

import pytest
import torch
from test_loss import SMALL, assert_equal, exact, loss_by_hand, step_with_trainer
from torch.nn import functional

from kdutils.errors import StudyError, StudyErrors
from kdutils.experiments import schema
from kdutils.experiments.grid import make_jobs
from kdutils.experiments.inputs import files_of
from kdutils.experiments.loading import load_experiment
from kdutils.experiments.schema import check_settings
from kdutils.experiments.tiny import causal_model, make_tiny
from kdutils.experiments.trials import student_key
from kdutils.experiments.yaml_file import FOLDER, read_settings
from kdutils.runs import project_path, read_json
from kdutils.student import distilling, loss
from kdutils.student.attention import attends_in_blocks
from kdutils.student.collating import EpochRows, RowFormat, tokenize_rows
from kdutils.student.distilling import Distilled, distilled_from, epoch_rows
from kdutils.student.loss import dev_losses
from kdutils.student.methods import task_weights
from kdutils.student.models import load_student, load_tokenizer, student_kind
from kdutils.student.predicting import sample_tokens
from kdutils.student.rows import TokenRow, single_rows
from kdutils.student.settings import TrainTokenKl
from kdutils.student.timing import Cell, time_student
from kdutils.student.trainer import StudyTrainer
from kdutils.student.training import Recipe, fingerprint, train_student, worked_loss
from kdutils.student.vocabularies import vocabulary_fault

TEACHER = "kdutils/mini/teacher"
TOKENS = 967  # of its vocabulary
PARAMETERS = {"alpha": 0.3, "distilled_from": TEACHER}
LLAMA = {"model_type": "llama", "num_key_value_heads": 2, **SMALL}
SHAPES = {  # ways that a model makes its logits and shares its tokens
    "plain": LLAMA,
    "scaled": {"model_type": "granite", "num_key_value_heads": 2, "logits_scaling": 3.0, **SMALL},
    "separate rows": {"model_type": "mistral", "num_key_value_heads": 2, "sliding_window": 6, **SMALL},
    "padded": {**LLAMA, "vocab_size": 1000},
}


@pytest.fixture(scope="module")
def models():
    """Students and teachers in float64: {name: model} of SHAPES, each drawn from two seeds."""
    return {(name, seed): exact(load_student("", TEACHER, random_weights=True, config=shape, seed=seed)[0])
            for name, shape in SHAPES.items() for seed in (1, 2)}


@pytest.fixture(scope="module")
def groups(questions):
    """The rows of six questions, as a causal student of token_kl learns them; the last one has no explanation."""
    items = questions[0][questions[0]["split"] == "train"].head(6).to_dict("records")
    told = {**questions[1], items[-1]["id"]: None}
    entries, _ = tokenize_rows(load_tokenizer(TEACHER), "token_kl", PARAMETERS, items, told,
                               RowFormat(128, 128, "causal", tag="after"))
    return [EpochRows(entries, [item["id"] for item in items], 0)[place] for place in range(6)]


def distilled_by_hand(model, teacher, groups, weights, temperature, hard):
    """Σ_t w_t · mean over the task's counted tokens of the mixed loss: row by row, with PyTorch's own kl_div."""
    sums, counts = [0.0] * len(weights), [0] * len(weights)
    for row in (row for group in groups for row in group):
        ids, places = torch.tensor([row.source + row.target]), slice(len(row.source) - 1, -1)
        own = model(input_ids=ids).logits[0, places]
        with torch.no_grad():
            theirs = teacher(input_ids=ids).logits[0, places]
        tokens = torch.tensor(row.target)
        divergence = functional.kl_div((own[:, :TOKENS] / temperature).log_softmax(-1),
                                       (theirs[:, :TOKENS] / temperature).softmax(-1), reduction="sum")
        sums[row.task] = sums[row.task] + hard * functional.cross_entropy(own, tokens, reduction="sum") \
            + (1 - hard) * temperature**2 * divergence
        counts[row.task] += len(tokens)
    return sum(weight * one / count for weight, one, count in zip(weights, sums, counts, strict=True) if count)


def step(model, groups, teacher, tmp_path, temperature=1.0, hard=0.5, budget=300):
    """Return (loss, gradients, trainer) of one step of the real trainer with a teacher."""
    weights = task_weights("token_kl", PARAMETERS)
    distilled = Distilled(teacher, temperature, (hard,) * len(weights))
    return step_with_trainer(model, groups, weights, tmp_path, budget,
                             lambda **given: StudyTrainer(distilled=distilled, **given))


def gradients_of(model):
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize(("student", "teacher", "in_blocks"), [
    ("plain", "plain", True), ("plain", "scaled", True), ("scaled", "plain", True), ("separate rows", "plain", False),
    ("plain", "separate rows", False), ("plain", "padded", True), ("padded", "plain", True)])
@pytest.mark.parametrize(("temperature", "hard"), [(1.0, 0.5), (2.5, 0.2), (0.7, 0.0)])
def test_loss_and_gradients_are_those_of_plain_pytorch(models, groups, student, teacher, in_blocks, temperature, hard,
                                                       tmp_path, monkeypatch):
    monkeypatch.setitem(loss.LOGITS, "cpu", 5000)  # slices of five tokens
    student, teacher = copy.deepcopy(models[student, 1]), copy.deepcopy(models[teacher, 2])
    wanted = distilled_by_hand(student, teacher, groups, [0.3, 0.7], temperature, hard)
    student.zero_grad()
    wanted.backward()
    gradients = gradients_of(student)
    found, of_trainer, trainer = step(student, groups, teacher.requires_grad_(False), tmp_path, temperature, hard)
    assert found == pytest.approx(wanted.item(), rel=1e-10)
    assert_equal(of_trainer, gradients)
    assert all(weight.grad is None for weight in teacher.parameters())
    assert attends_in_blocks(student) is in_blocks and trainer.data_collator.share is in_blocks


def test_with_the_token_alone_it_is_multitask(models, groups, tmp_path):
    student, teacher = copy.deepcopy(models["plain", 1]), copy.deepcopy(models["plain", 2])
    found, gradients, _ = step(student, groups, teacher, tmp_path / "a", hard=1.0)
    plain, wanted, _ = step_with_trainer(copy.deepcopy(models["plain", 1]), groups,
                                         task_weights("multitask", {"alpha": 0.3}), tmp_path / "b", 300)
    assert found == pytest.approx(plain, rel=1e-14)
    assert plain == pytest.approx(loss_by_hand(models["plain", 1], groups, [0.3, 0.7]).item(), rel=1e-10)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, wanted[name], rtol=1e-13, atol=1e-16)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("shape", ["plain", "scaled"])
def test_a_teacher_that_is_the_student_teaches_nothing(models, groups, shape, temperature, tmp_path):
    student = copy.deepcopy(models[shape, 1])
    found, gradients, _ = step(student, groups, copy.deepcopy(student), tmp_path, temperature, hard=0.0)
    assert abs(found) < 1e-13 and all(gradient.abs().max() < 1e-14 for gradient in gradients.values())


def test_the_loss_on_dev_is_that_of_training(models, groups):
    student, teacher = models["plain", 1], models["plain", 2]
    rows = [row for group in groups for row in group]
    found = dev_losses(student, rows, 2, 300, 0, None, "cpu", Distilled(teacher, 2.0, (0.4, 0.4)).targets_of)
    wanted = distilled_by_hand(student, teacher, groups, [0.3, 0.7], 2.0, 0.4).item()
    assert 0.3 * found[0] + 0.7 * found[1] == pytest.approx(wanted, rel=1e-10)


def test_the_logits_of_a_chunk_never_exist_at_once(models, groups, tmp_path, monkeypatch):
    monkeypatch.setitem(loss.LOGITS, "cpu", 5000)
    sizes = []
    for module in (loss, distilling):
        monkeypatch.setattr(module, "linear", lambda states, matrix, bias=None, plain=module.linear:
                            sizes.append(len(states) * len(matrix)) or plain(states, matrix, bias))
    student, vocabulary = copy.deepcopy(models["plain", 1]), len(load_tokenizer(TEACHER))
    step(student, groups, copy.deepcopy(models["plain", 2]), tmp_path, budget=10**6)
    tokens = sum(row.counted for group in groups for row in group)
    assert tokens * vocabulary > 20 * 5000 and max(size for size in sizes if size % vocabulary == 0) <= 6 * vocabulary


# Texts of the student's own

OWN = {**PARAMETERS, "on_policy": 0.5}


@pytest.fixture(scope="module")
def own_rows(questions):
    """The rows of all train questions with on_policy 0.5; one question has no explanation."""
    items = questions[0][questions[0]["split"] == "train"].to_dict("records")
    entries, _ = tokenize_rows(load_tokenizer(TEACHER), "token_kl", OWN, items, {**questions[1], items[0]["id"]: None},
                               RowFormat(128, 128, "causal", tag="after"))
    return epoch_rows("token_kl", OWN, entries, [item["id"] for item in items], 3)


def test_the_weights_are_those_of_gkd():
    assert task_weights("token_kl", PARAMETERS) == pytest.approx({"predict": 0.3, "explain": 0.7})
    assert task_weights("token_kl", {**OWN, "on_policy": 0.2}) == pytest.approx(
        {"predict": 0.3, "explain": 0.56, "own": 0.14})
    assert set(task_weights("token_kl", {})) == {"predict", "explain"}


def test_each_explained_question_has_one_of_the_two_tasks_in_an_epoch(own_rows):
    drawn = []
    for own_rows.epoch in range(40):
        tasks = [[row.task for row in own_rows[i]] for i in range(len(own_rows))]
        assert tasks[0] == [0] and all(of_one in ([0, 1], [0, 2]) for of_one in tasks[1:])
        assert tasks == [[row.task for row in own_rows[i]] for i in range(len(own_rows))]
        drawn += [of_one[1] for of_one in tasks[1:]]
    share = sum(task == 2 for task in drawn) / len(drawn)
    assert abs(share - 0.5) < 4 * (0.25 / len(drawn)) ** 0.5 and own_rows.entries[1][1].source == own_rows[1][1].source


def test_texts_are_drawn_from_the_student_token_by_token(models):
    student = models["plain", 1]
    source, end = [5, 6, 7, 8], student.config.eos_token_id
    found, = sample_tokens(student, [source], 12, seed=4)
    torch.manual_seed(4)
    text = []
    while len(text) < 12 and end not in text:
        with torch.no_grad():
            logits = student(input_ids=torch.tensor([source + text])).logits[0, -1]
        text.append(torch.multinomial(logits.float().softmax(-1)[None], 1).item())
    assert found == text
    state = torch.get_rng_state()
    assert sample_tokens(student, [source, [9, 10]], 12, 4) != sample_tokens(student, [source, [9, 10]], 12, 5)
    assert torch.equal(state, torch.get_rng_state())


def test_a_text_ends_with_its_end_token(models):
    student = copy.deepcopy(models["plain", 1])
    with torch.no_grad():
        student.lm_head.weight *= 0  # every token has the same probability, the end token too
    texts = sample_tokens(student, [[5, 6]] * 300, 20, seed=0, token_budget=10**6)
    end = student.config.eos_token_id
    ended = [text for text in texts if end in text]
    assert 0 < len(ended) < 20 and all(text.index(end) == len(text) - 1 for text in ended)
    assert all(len(text) == 20 for text in texts if end not in text)


@pytest.mark.parametrize("shape", ["plain", "separate rows"])
def test_a_step_learns_the_teachers_distribution_of_what_the_student_wrote(models, own_rows, shape, tmp_path):
    student, teacher = copy.deepcopy(models[shape, 1]), copy.deepcopy(models["plain", 2])
    own_rows.epoch = 0
    groups, weights = [own_rows[i] for i in range(8)], task_weights("token_kl", OWN)
    distilled = Distilled(teacher.requires_grad_(False), 2.0, (0.4, 0.4, 0.0), own=2, longest=9)
    found, gradients, trainer = step_with_trainer(student, groups, weights, tmp_path, 300, lambda **given: Watching(
        distilled=distilled, **given))
    written = [row for row in trainer.rows if row.task == 2]
    taught = {tuple(row.source): row.target for group in groups for row in group if row.task == 2}
    assert len(written) == len(taught) > 1 and all(0 < len(row.target) <= 9 for row in written)
    assert all(row.target != taught[tuple(row.source)] for row in written)
    counts = [sum(row.task == task for row in trainer.rows) for task in range(3)]
    assert 0 < counts[2] != counts[1] > 0
    both = [0.7 * count / (counts[1] + counts[2]) for count in counts[1:]]  # by questions; not 0.35 each
    student.zero_grad()
    parts = [distilled_by_hand(student, teacher, [[row for row in trainer.rows if row.task == task]],
                               [0] * task + [weight], 2.0, hard)
             for task, (weight, hard) in enumerate(zip([0.3, *both], (0.4, 0.4, 0.0), strict=True))]
    sum(parts).backward()
    assert found == pytest.approx(sum(parts).item(), rel=1e-10)
    assert_equal(gradients, gradients_of(student))


def test_a_step_without_own_texts_gives_their_weight_to_those_of_the_teacher(models, own_rows, tmp_path):
    student, teacher = (copy.deepcopy(models["plain", seed]) for seed in (1, 2))
    groups = [[row for row in rows if row.task != 2] for rows in (own_rows.entries[1], own_rows.entries[2])]
    distilled = Distilled(teacher.requires_grad_(False), 2.0, (0.4, 0.4, 0.0), own=2, longest=9)
    found, *_ = step_with_trainer(student, groups, task_weights("token_kl", OWN), tmp_path, 300,
                                  lambda **given: StudyTrainer(distilled=distilled, **given))
    wanted = distilled_by_hand(student, teacher, groups, [0.3, 0.7], 2.0, 0.4)
    assert found == pytest.approx(wanted.item(), rel=1e-10)


class Watching(StudyTrainer):
    """Keeps the rows of its step."""

    def _clip_grad_norm(self, model):
        self.rows = single_rows(self.step["rows"])
        return super()._clip_grad_norm(model)


def test_a_source_without_room_for_a_text_is_refused(models):
    student, source = models["plain", 1], list(range(5, 25))
    small = exact(load_student(TEACHER, random_weights=True, config={"max_position_embeddings": 20})[0])
    with pytest.raises(StudyError, match="on_policy: a source takes all 20 positions of the student or of short"):
        Distilled(small, 1.0, (0.5,), "short", 0).with_own_texts(student, [TokenRow(0, source, [1])], 0)


# A training

@pytest.fixture(scope="module")
def recipe():
    return Recipe("token_kl", {"model": TEACHER, "random_weights": True, "config": {
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "head_dim": 8}},
        {"epochs": 1, "questions_per_step": 8, "learning_rate": 0.01, "warmup_steps": 0, "dev_evaluations": 2,
         "max_source_tokens": 128, "max_target_tokens": 128, "token_budget": 3000, "dev_accuracy": "scores"},
        {**PARAMETERS, "temperature": 2.0})


def test_the_notebooks_own_computation_agrees(recipe, questions):
    item = questions[0].to_dict("records")[0]
    table, total, of_trainer = worked_loss(recipe, item, questions[1])
    assert of_trainer == pytest.approx(total, rel=1e-5)
    assert table["sum"].tolist() == pytest.approx(
        (0.5 * table["sum of −log p"] + 0.5 * table["sum of T² · KL"]).tolist()) and table["sum of T² · KL"].min() > 0


def test_a_training_is_recorded_and_depends_on_its_teacher(recipe, questions, tmp_path):
    record = train_student(tmp_path / "a", *questions, recipe)
    again = train_student(tmp_path / "b", *questions, recipe)
    assert record["curve"] == again["curve"] and len(record["curve"]) == 2
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in "ab"]
    assert weights[0] == weights[1]
    about = read_json(tmp_path / "a" / "student.json")
    assert about["parameters"]["distilled_from"] == TEACHER and about["parameters"]["temperature"] == 2.0
    assert "model.safetensors" in about["fingerprint"]["teacher_files"] and about["tag"] == "after"
    assert "teacher_files" not in fingerprint(*questions, Recipe("multitask", recipe.student, recipe.training))


def test_an_interrupted_training_ends_with_the_same_weights(recipe, questions, tmp_path, monkeypatch):
    recipe = replace(recipe, parameters={**recipe.parameters, "on_policy": 0.5})
    train_student(tmp_path / "whole", *questions, recipe)

    def stop(trainer, *args, plain=StudyTrainer.training_step):
        if trainer.state.global_step == 2:
            raise KeyboardInterrupt
        return plain(trainer, *args)

    monkeypatch.setattr(StudyTrainer, "training_step", stop)
    with pytest.raises(KeyboardInterrupt):
        train_student(tmp_path / "cut", *questions, recipe)
    monkeypatch.undo()
    assert (tmp_path / "cut" / "checkpoints" / "checkpoint-2").is_dir()
    record = train_student(tmp_path / "cut", *questions, recipe)
    assert record["cost"]["resumed"]
    assert (tmp_path / "cut" / "model.safetensors").read_bytes() == (
        tmp_path / "whole" / "model.safetensors").read_bytes()


# What is refused

def own_vocabulary(folder, change):
    """Return a folder with the teacher's files and a changed vocabulary."""
    model, tokenizer = load_student(TEACHER)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    change(content["model"]["vocab"])
    (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    return str(folder)


def test_models_of_other_vocabularies_are_refused_by_name(recipe, questions, tmp_path):
    def exchange(vocabulary):
        first, second = [token for token in vocabulary if token.isalpha()][:2]
        vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]

    other = own_vocabulary(tmp_path / "other", exchange)
    tokens = sorted((place, token) for token, place in load_tokenizer(TEACHER).get_vocab().items())
    first = next(token for place, token in tokens if load_tokenizer(other).get_vocab()[token] != place)
    words = f"the vocabularies of {other} and {TEACHER} differ; the first token that does is '{first}': "
    student, tokenizer = load_student(TEACHER)
    with pytest.raises(StudyError, match="token_kl: the vocabularies") as caught:
        distilled_from("token_kl", {"distilled_from": other}, {"model": TEACHER}, student, tokenizer)
    assert words in str(caught.value) and f" in {TEACHER}. Give two models of one vocabulary" in str(caught.value)
    found = list(TrainTokenKl(model=TEACHER, distilled_from=other).conflicts())
    assert [key for key, _ in found] == ["distilled_from"] and found[0][1].startswith(words)


def test_the_first_token_that_differs_is_named():
    same = {"a": 0, "b": 1, "c": 2}
    assert vocabulary_fault("t", same, "s", dict(reversed(same.items()))) == ""
    assert "'b': 1 in t and 2 in s." in vocabulary_fault("t", same, "s", {"a": 0, "c": 1, "b": 2})
    assert "'c': 2 in t and missing in s." in vocabulary_fault("t", same, "s", {"a": 0, "b": 1})
    assert "'d': missing in t and 3 in s." in vocabulary_fault("t", same, "s", {**same, "d": 3})


def test_a_padded_output_layer_is_refused_where_a_token_may_be_missing():
    student, tokenizer = load_student(TEACHER, random_weights=True, config={"vocab_size": 1000})
    assert distilled_from("token_kl", PARAMETERS, {"model": TEACHER}, student, tokenizer).name == TEACHER
    with pytest.raises(StudyError, match=rf"output layer of {TEACHER} has 967 tokens and that of {TEACHER} 1000; the"):
        distilled_from("token_kl", PARAMETERS | {"on_policy": 0.5}, {"model": TEACHER}, student, tokenizer)


@pytest.mark.parametrize(("given", "key", "words"), [
    ({"model": "kdutils/mini/student"}, "kind", "kdutils/mini/student is a seq2seq model; "),
    ({"model": "a/b", "kind": "seq2seq"}, "kind", "a/b is a seq2seq model; "),
    ({"model": "a/b", "kind": "classifier"}, "kind", "a/b is a classifier model; "),
    ({"model": "", "config": {"model_type": "t5"}, "tokenizer": TEACHER, "random_weights": True}, "kind",
     "t5 is a seq2seq model; "),
    ({"distilled_from": "kdutils/mini/student"}, "distilled_from", "kdutils/mini/student is a seq2seq model; "),
    ({"distilled_from": ""}, "distilled_from", "empty; "), ({"model": ""}, "model", "empty; "),
])
def test_what_cannot_be_distilled_is_told_before_anything_runs(given, key, words):
    assert TrainTokenKl.faults(given) == []
    found = list(TrainTokenKl(**given).conflicts())
    assert [name for name, _ in found] == [key] and found[0][1].startswith(words)


def test_an_unknown_shape_is_named():
    nonsense = {"model": "", "random_weights": True, "tokenizer": TEACHER}
    for config, words in (({}, "such as t5 or llama$"), ({"model_type": "x"}, "such as t5 or llama; 'x' is none")):
        for read in (student_kind, lambda student: load_student(**student)):
            with pytest.raises(StudyError, match=f"config: without a model it must name a model_type, {words}"):
                read({**nonsense, "config": config})


def test_models_that_are_not_here_are_checked_when_they_are_loaded():
    assert list(TrainTokenKl(model="a/b", kind="causal", distilled_from="c/d").conflicts()) == []


@pytest.mark.parametrize(("model", "parameters"), [("kdutils/mini/student", PARAMETERS),
                                                   (TEACHER, {"distilled_from": "kdutils/mini/student"})])
def test_other_kinds_are_refused_when_they_are_loaded_too(model, parameters):
    student, tokenizer = load_student(model)
    with pytest.raises(StudyError, match="token_kl: kdutils/mini/student is a seq2seq model; "):
        distilled_from("token_kl", parameters, {"model": model}, student, tokenizer)


def test_a_row_longer_than_the_teachers_context_is_refused(recipe, questions, tmp_path):
    small, tokenizer = load_student(TEACHER, random_weights=True, config={"max_position_embeddings": 20})
    small.save_pretrained(tmp_path / "small")
    tokenizer.save_pretrained(tmp_path / "small")
    short = Recipe("token_kl", recipe.student, recipe.training, {"distilled_from": str(tmp_path / "small")})
    with pytest.raises(StudyError, match=r"small has 20 positions, and a row of the student has \d+ tokens"):
        train_student(tmp_path / "run", *questions, short)


def test_a_gguf_file_is_a_teacher(tmp_path, monkeypatch):
    pytest.importorskip("gguf", reason="the package gguf is not installed")
    from test_gguf import write_gguf

    monkeypatch.setenv("KDUTILS_CACHE", str(tmp_path / "cache"))
    packed = str(write_gguf(tmp_path / "packed.gguf"))
    assert list(TrainTokenKl(distilled_from=packed).conflicts()) == []
    assert not (tmp_path / "cache").exists(), "it is not converted before it is used"
    student, tokenizer = load_student(packed)
    found = distilled_from("token_kl", {"distilled_from": packed}, {"model": packed}, student, tokenizer)
    weights = found.model.state_dict()
    rows = 967  # the converted tokenizer has one token more, whose row is drawn
    assert all(torch.equal(weight[:rows], weights[name][:rows]) for name, weight in student.state_dict().items())


# An experiment

@pytest.fixture
def experiment():
    """The experiment token-kl-mini, and a function that returns what is wrong with it after a change of its student."""
    path = FOLDER / "token-kl-mini.yaml"

    def faults(**student):
        settings = read_settings(path)
        settings["students"] = {"other": student}
        with pytest.raises(StudyErrors) as caught:
            check_settings(settings, "x.yaml")
        return caught.value.lines

    return load_experiment(path), faults


def test_a_student_that_cannot_be_distilled_to_is_one_line_before_anything_runs(experiment):
    line = "x.yaml: key 'methods.token_kl.kind': {} is a {} model; token-level distillation takes a causal student and "
    for model, kind, given in (("kdutils/mini/student", "seq2seq", {}), ("a/b", "classifier", {"kind": "classifier"})):
        lines = [one for one in experiment[1](model=model, **given) if "methods.token_kl" in one]
        assert len(lines) == 1 and lines[0].startswith(line.format(model, kind))


def test_the_jobs_of_an_experiment_know_the_teacher(experiment):
    jobs = {job.labels["method"]: job for job in experiment[0].jobs if job.labels.get("student") == "mini-llama-small"
            and job.kind == "students"}
    other = {**jobs["token_kl"].parameters, "model": "a/b", "distilled_from": TEACHER}
    files = files_of(replace(jobs["token_kl"], parameters=other))
    assert project_path(TEACHER) / "model.safetensors" in files
    keys = {method: student_key(job) for method, job in jobs.items()}
    assert keys["multitask"] == keys["label_only"] != keys["token_kl"], "a trial of its own: its teacher takes time"
    assert "token_kl (few_shot) minus multitask (few_shot)" in experiment[0].settings["comparison"]["primary"]
    settings = experiment[0].settings
    other = {"other": {"as": "token_kl", "distilled_from": "a/b"}}
    small = make_tiny({**settings, "methods": {**settings["methods"], **other}})
    assert [small["methods"][name].get("distilled_from") for name in ("token_kl", "other", "multitask")] == [
        "mini-llama-tuned", str(causal_model()), None]


def test_a_student_of_the_experiment_can_be_the_teacher(experiment):
    folder = "students/mini/mini-llama/few_shot/multitask/mini-llama-tuned/seeds-0-1-2-3-4"
    settings, seen = experiment[0].settings, []
    settings["methods"] = dict(reversed(settings["methods"].items()))
    for job in make_jobs("name", settings):
        assert set(job.needs) <= set(seen), "each job after those it needs"
        seen.append(job.folder)
        if job.kind == "students" and job.labels["method"] == "token_kl":
            assert folder in job.needs and job.parameters["distilled_from"] == f"outputs/name/{folder}/seed-0"
    for name, change in (("token_kl", {}), ("multitask", {"promptings": ["few_shot"]})):
        settings["methods"]["token_kl"]["promptings"] = ["few_shot", "more"]
        settings["promptings"] = {"few_shot": {}, "more": {"as": "few_shot"}}
        settings["methods"]["multitask"] = change
        settings["students"]["mini-llama-tuned"]["methods"] = [name]
        with pytest.raises(StudyErrors) as caught:
            check_settings(settings, "x.yaml")
        assert (f"x.yaml: key 'methods.token_kl.distilled_from': the first method of the student 'mini-llama-tuned' "
                f"('{name}') must be another one, with the explanations of 'token_kl'; name it under its `methods`"
                ) in caught.value.lines


@pytest.mark.parametrize("lender", [None, "mini", "other"])
def test_an_experiment_that_passes_the_check_has_every_job_that_another_one_needs(lender, experiment):
    """All ways in which three students can teach each other, with a control that has no student on a data set."""
    settings = experiment[0].settings
    llama, students = settings["students"]["mini-llama-tuned"]["model"], ("big", "mid", "small")
    settings = {**settings, "datasets": {"mini": {}, "other": {"reader": "mini"}}, "seeds": [0, 1], "seeds_per_job": 1,
                "comparison": {}}
    firsts, taught = [("control",), ("multitask", "control"), ("kl-a",), ("kl-b", "multitask")], ("big", "mid", TEACHER)
    passed = 0
    for chosen in itertools.product(firsts, repeat=len(students)):
        for one, other in itertools.product(taught, repeat=2):
            methods = {"kl-b": {"as": "token_kl", "distilled_from": other}, "multitask": {}, "control": {
                "as": "shuffled", **({"rationales_of": lender} if lender else {})},
                "kl-a": {"as": "token_kl", "distilled_from": one}}
            used = {name: entry for name, entry in methods.items() if name in sum(chosen, ())}
            changed = {**settings, "methods": used, "students": {
                name: {"model": llama, "methods": list(own)} for name, own in zip(students, chosen, strict=True)}}
            if list(schema._cell_faults(changed)):
                continue
            passed, seen = passed + 1, set()
            for job in make_jobs("name", changed):
                assert set(job.needs) <= seen, (changed["methods"], changed["students"], job.folder)
                seen.add(job.folder)
    assert passed > 20


def test_a_trial_times_the_teacher_too(recipe, questions, monkeypatch):
    seen = []
    monkeypatch.setattr(Distilled, "targets_of", lambda self, chunk, plain=Distilled.targets_of:
                        seen.append(self.name) or plain(self, chunk))
    recipe = replace(recipe, parameters={**OWN, "on_policy": 1.0},
                     training={**recipe.training, "max_target_tokens": 24, "precision": ""})
    items = questions[0].to_dict("records")[:4]
    loaded, times = time_student([Cell(recipe, items, questions[1])], 4, "float32")
    assert set(seen) == {TEACHER} and loaded > 0 and times[0].trained > 0


def test_in_bf16_the_teacher_computes_in_bf16_too(recipe, questions, tmp_path):
    curves = [train_student(tmp_path / precision, *questions, replace(
        recipe, training={**recipe.training, "precision": precision}))["curve"] for precision in ("float32", "bf16")]
    losses = [[point[f"train_loss_{task}"] for point in curve for task in ("predict", "explain")] for curve in curves]
    assert losses[0] != losses[1] and losses[1] == pytest.approx(losses[0], rel=0.03)
