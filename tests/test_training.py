"""Training as a whole: repeatable, resumable, and able to learn."""

import pytest
from safetensors.torch import load_file

from kdutils.errors import StudyError
from kdutils.runs import is_whole, read_json
from kdutils.student.predicting import generate, predict_with
from kdutils.student.trainer import Progress
from kdutils.student.training import rationales_of, train_student, worked_loss

STUDENT = {"model": "kdutils/mini/student", "random_weights": True, "config": {"d_model": 48, "d_kv": 12, "d_ff": 96}}
TRAINING = {"epochs": 4, "questions_per_step": 6, "learning_rate": 3e-3, "warmup_steps": 2, "dev_evaluations": 4,
            "max_source_tokens": 128, "max_target_tokens": 128, "token_budget": 900}


def train(folder, questions, method="multitask", seed=0, progress=None, student=STUDENT, **training):
    table, rationales = questions
    return train_student(folder, table[table["split"] != "test"], rationales, method, seed, student,
                         {**TRAINING, **training}, {}, progress)


def weights(folder):
    return {name: tensor.clone() for name, tensor in load_file(folder / "model.safetensors").items()}


def same(first, second):
    return first.keys() == second.keys() and all(first[name].equal(second[name]) for name in first)


def without_cost(record):
    return {key: value for key, value in record.items() if key != "cost"}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, questions):
    folder = tmp_path_factory.mktemp("undisturbed") / "seed-0"
    return folder, train(folder, questions)


def test_the_same_seed_gives_the_same_weights_and_another_does_not(undisturbed, questions, tmp_path):
    folder, record = undisturbed
    again = train(tmp_path / "again", questions)
    assert same(weights(tmp_path / "again"), weights(folder)) and without_cost(again) == without_cost(record)
    train(tmp_path / "other", questions, seed=1)
    assert not same(weights(tmp_path / "other"), weights(folder))


@pytest.mark.parametrize("stop_at", [3, 6, 10])  # before the first checkpoint, inside an epoch, near the end
def test_an_interrupted_training_ends_with_the_same_weights(undisturbed, questions, tmp_path, monkeypatch, stop_at):
    """Four steps an epoch, a checkpoint every four: the process is gone in the middle of what comes after one."""
    class Killed(BaseException):
        pass

    def kill(self, args, state, control, **kwargs):
        if state.global_step == stop_at:
            raise Killed

    folder = tmp_path / "seed-0"
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Progress, "on_step_end", kill)
        train(folder, questions, progress=tmp_path / "progress.txt")
    assert not is_whole(folder)
    record = train(folder, questions)
    assert record["cost"]["resumed"] is (stop_at > 4)
    assert same(weights(folder), weights(undisturbed[0]))
    assert without_cost(record) == without_cost(undisturbed[1])
    assert not (folder / "checkpoints").exists()


@pytest.mark.parametrize("which", ["newest", "best"])
def test_a_checkpoint_cut_short_is_passed_over(undisturbed, questions, tmp_path, monkeypatch, which):
    """The best one counts too: it is what the training goes back to at its end."""
    class Killed(BaseException):
        pass

    def kill(self, args, state, control, **kwargs):
        if state.global_step == 14:
            folder = tmp_path / "seed-0" / "checkpoints"
            step = 12 if which == "newest" else state.best_global_step
            weights = folder / f"checkpoint-{step}" / "model.safetensors"
            broken = weights.read_bytes()[:-100] + bytes(100)
            weights.unlink()
            weights.write_bytes(broken)
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Progress, "on_step_end", kill)
        train(tmp_path / "seed-0", questions, progress=tmp_path / "progress.txt")
    train(tmp_path / "seed-0", questions)
    assert same(weights(tmp_path / "seed-0"), weights(undisturbed[0]))


@pytest.mark.parametrize("function", ["rmtree", "mark_whole"])
def test_a_kill_at_the_very_end_costs_no_training(undisturbed, questions, tmp_path, monkeypatch, function):
    from kdutils.student import training

    class Killed(BaseException):
        pass

    place = training.shutil if function == "rmtree" else training
    whole = getattr(place, function)

    def kill(path, *more, **options):
        if (tmp_path / "seed-0" / "student.json").is_file():
            raise Killed
        return whole(path, *more, **options)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(place, function, kill)
        train(tmp_path / "seed-0", questions)
    steps = []
    monkeypatch.setattr(Progress, "on_step_end", lambda self, args, state, control, **_: steps.append(1))
    train(tmp_path / "seed-0", questions, progress=tmp_path / "progress.txt")
    assert steps == [] and same(weights(tmp_path / "seed-0"), weights(undisturbed[0]))
    assert not (tmp_path / "seed-0" / "checkpoints").exists()


def test_an_answer_that_a_student_could_never_write_is_named(questions, tmp_path):
    with pytest.raises(StudyError, match=r"max_target_tokens: the answer of question 'mini-0-train-\d+' takes"):
        train(tmp_path / "seed-0", (questions[0].assign(answer=questions[0]["answer"] * 9), {}), max_target_tokens=9)


def test_a_whole_student_is_not_trained_again_and_an_altered_one_is(questions, tmp_path, monkeypatch):
    folder = tmp_path / "seed-0"
    record = train(folder, questions, epochs=1)
    before = weights(folder)
    assert train(folder, questions, epochs=1) == record  # seconds included: read back, not trained
    assert read_json(folder / "student.json")["method"] == "multitask"
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").write_bytes(b"cut short")
    train(folder, questions, epochs=1)
    assert same(weights(folder), before)
    assert train(folder, questions, epochs=2)["steps"] == 8  # other settings: another student


@pytest.mark.parametrize("method", ["standard", "multitask"])
def test_a_student_learns_twenty_questions_by_heart(method, questions, tmp_path):
    table, rationales = questions
    table = table[table["split"] != "test"].copy()
    few = table[table["split"] == "train"].head(20)
    both = (few.assign(split="train"), few.assign(split="dev", id=few["id"] + "-dev"))
    import pandas as pd

    rationales = {**rationales, **{f"{key}-dev": text for key, text in rationales.items()}}
    record = train(tmp_path / "seed-0", (pd.concat(both), rationales), method, epochs=60, questions_per_step=5,
                   learning_rate=5e-3, student={**STUDENT, "config": {}})
    assert max(point["accuracy"] for point in record["curve"]) == 1.0
    said = predict_with(tmp_path / "seed-0", both[1], 64, 0)
    assert said["correct"].all() and said["exact"].all()
    assert (said["explanation"] == [rationales[key] for key in said["id"]]).mean() > 0.8


def test_generation_equals_the_library_run_on_each_text_alone(tiny):
    model, tokenizer = tiny
    sources = ["What?", "[predict] Question: What has fur and wings?", "What?", "a b c d e f g h"]
    written = generate(model, tokenizer, sources, 12, token_budget=60)
    for source, text in zip(sources, written, strict=True):
        ids = tokenizer(source, return_tensors="pt")["input_ids"]
        alone = model.generate(input_ids=ids, do_sample=False, max_new_tokens=12)
        assert text == tokenizer.decode(alone[0], skip_special_tokens=True).strip()


def test_the_worked_loss_is_that_of_the_trainer(questions):
    table, rationales = questions
    item = table.iloc[0].to_dict()
    rows, total, loss = worked_loss(STUDENT, "multitask", {"alpha": 0.2}, item, rationales, 0)
    assert list(rows["weight"]) == [0.2, 0.8] and total == pytest.approx(loss, rel=1e-5)


def test_only_usable_rationales_for_the_gold_answer_are_learnt(questions):
    import pandas as pd

    table = questions[0].head(3)
    explanations = pd.DataFrame({"id": table["id"], "stage": "rationale", "text": ["good", None, "for another"],
                                 "answer": [table["answer"].iloc[0], table["answer"].iloc[1], "something else"]})
    assert rationales_of(explanations, table) == {table["id"].iloc[0]: "good"}


def test_a_vocabulary_that_does_not_fit_is_named(tmp_path):
    from kdutils.student.models import load_student

    model, tokenizer = load_student(**STUDENT)
    size = len(tokenizer)
    tokenizer.add_tokens([f"extra{i}" for i in range(5)])
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(StudyError, match=f"the tokenizer has {size + 5} tokens, the model knows {size}"):
        load_student(str(tmp_path))


def test_an_encoder_becomes_an_encoder_decoder_and_comes_back_from_disk(tmp_path):
    """A BERT made here with random weights: the same path as a pretrained one."""
    import torch
    from transformers import BertConfig, BertModel

    from kdutils.student.models import load_student, load_tokenizer

    tokenizer = load_tokenizer("kdutils/mini/student")
    tokenizer.add_special_tokens({"cls_token": "<cls>", "sep_token": "<sep>"})
    BertModel(BertConfig(vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
                         intermediate_size=48)).save_pretrained(tmp_path / "bert")
    tokenizer.save_pretrained(tmp_path / "bert")
    model, tokenizer = load_student(str(tmp_path / "bert"), seed=3)
    again, _ = load_student(str(tmp_path / "bert"), seed=3)
    assert all(a.equal(b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    source = load_file(tmp_path / "bert" / "model.safetensors")
    assert model.encoder.embeddings.word_embeddings.weight.equal(source["embeddings.word_embeddings.weight"])
    assert model.config.decoder_start_token_id == tokenizer.cls_token_id
    model.save_pretrained(tmp_path / "saved")
    tokenizer.save_pretrained(tmp_path / "saved")
    saved, _ = load_student(str(tmp_path / "saved"))
    ids = torch.tensor([[5, 6, 7]])
    assert model(input_ids=ids, decoder_input_ids=ids).logits.equal(saved(input_ids=ids, decoder_input_ids=ids).logits)
