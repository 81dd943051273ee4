"""The loss of a step: against a float64 computation by hand, and equal however the step is cut."""

import copy
import math

import pytest
import torch

from kdutils.errors import StudyError
from kdutils.student.collating import IGNORED, TokenRow, cut_step, pad_chunk, tokenize_rows
from kdutils.student.methods import METHODS, task_weights
from kdutils.student.trainer import StudyTrainer, task_sums, training_arguments


def rows_for(tiny, questions, method, count=6, parameters=None):
    table, rationales = questions
    items = table[table["split"] == "train"].head(count).to_dict("records")
    groups, _ = tokenize_rows(tiny[1], method, parameters or {}, items, rationales, 128, 128)
    return groups


def loss_by_hand(model, groups, weights):
    """Σ_t w_t · mean over the task's target tokens of −log p: row by row, no padding, plain log-softmax."""
    nll, count = [0.0] * len(weights), [0] * len(weights)
    for row in (row for group in groups for row in group):
        decoder = torch.tensor([[model.config.decoder_start_token_id, *row.target[:-1]]])
        logits = model(input_ids=torch.tensor([row.source]), decoder_input_ids=decoder).logits[0]
        for position, token in enumerate(row.target):
            nll[row.task] = nll[row.task] - (logits[position][token] - torch.logsumexp(logits[position], 0))
            count[row.task] += 1
    return sum(w * n / c for w, n, c in zip(weights, nll, count, strict=True))


def step_with_trainer(model, groups, method, tmp_path, budget, parameters=None, trainer_class=StudyTrainer):
    """Return (loss, gradients, trainer) of one training step of the real trainer."""
    weights = task_weights(method, parameters or {})
    model.zero_grad()
    trainer = trainer_class(
        model=model, args=training_arguments(tmp_path, 0, 1, len(groups), 1e-3, 0, 1, 1), train_dataset=groups,
        eval_dataset=groups, weights=list(weights.values()), tasks=list(weights), token_budget=budget, dev_rows=[],
        dev_accuracy=None, start=model.config.decoder_start_token_id, pad=model.config.pad_token_id)
    trainer.create_optimizer_and_scheduler(10)
    loss = trainer.training_step(model, trainer.data_collator(groups))
    return float(loss), {name: weight.grad.clone() for name, weight in model.named_parameters()}, trainer


@pytest.mark.parametrize("method", METHODS)
def test_loss_and_gradients_equal_a_computation_by_hand(tiny, questions, method, tmp_path):
    model = tiny[0]
    groups, parameters = rows_for(tiny, questions, method), {"alpha": 0.3}
    model.zero_grad()
    expected = loss_by_hand(model, groups, list(task_weights(method, parameters).values()))
    expected.backward()
    wanted = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    loss, gradients, _ = step_with_trainer(model, groups, method, tmp_path, 3000, parameters)
    assert loss == pytest.approx(expected.item(), rel=1e-6)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, wanted[name], rtol=1e-8, atol=1e-11)


def test_cutting_a_step_changes_neither_loss_nor_gradients(tiny, questions, tmp_path):
    groups = rows_for(tiny, questions, "multitask")
    rows = [row for group in groups for row in group]
    sizes = {budget: len(cut_step(rows, budget)) for budget in (10**6, 700, 300, 1)}
    assert sizes[10**6] == 1 and sizes[1] == len(rows) and len(set(sizes.values())) == 4
    whole_loss, whole, _ = step_with_trainer(tiny[0], groups, "multitask", tmp_path, 10**6)
    for budget in (700, 300, 1):
        loss, gradients, _ = step_with_trainer(tiny[0], groups, "multitask", tmp_path, budget)
        assert loss == pytest.approx(whole_loss, rel=1e-12)
        for name, gradient in gradients.items():
            torch.testing.assert_close(gradient, whole[name], rtol=1e-9, atol=1e-12)


def test_running_out_of_memory_splits_the_step_and_does_not_change_it(tiny, questions, tmp_path):
    class SmallMachine(StudyTrainer):
        def _to_device(self, chunk):
            if chunk["input_ids"].numel() + chunk["labels"].numel() > 500:
                raise torch.OutOfMemoryError("simulated")
            return super()._to_device(chunk)

    groups = rows_for(tiny, questions, "multitask")
    loss, gradients, _ = step_with_trainer(tiny[0], groups, "multitask", tmp_path, 10**6)
    small_loss, small, trainer = step_with_trainer(tiny[0], groups, "multitask", tmp_path, 10**4,
                                                   trainer_class=SmallMachine)
    assert trainer.splits > 0 and trainer.token_budget < 10**4
    assert small_loss == pytest.approx(loss, rel=1e-12)
    for name, gradient in small.items():
        torch.testing.assert_close(gradient, gradients[name], rtol=1e-9, atol=1e-12)


def test_every_row_is_in_one_chunk_and_no_chunk_exceeds_the_budget():
    rows = [TokenRow(i % 2, [1] * (5 + i % 7), [2] * (3 + (i * i) % 11)) for i in range(50)]
    chunks = cut_step(rows, 120)
    assert sorted(id(row) for chunk in chunks for row in chunk) == sorted(map(id, rows))
    for chunk in chunks:
        padded = len(chunk) * (max(len(r.source) for r in chunk) + max(len(r.target) for r in chunk))
        assert padded <= 120
    assert cut_step([], 100) == []
    assert [len(chunk) for chunk in cut_step(rows[:1], 1)] == [1]


def test_padding_has_no_part_in_the_loss(tiny):
    model = tiny[0]
    short, long = TokenRow(0, [5, 6, 1], [7, 1]), TokenRow(0, [8] * 30, [9] * 40)
    alone = task_sums(model, pad_chunk([short], 0, 0), 1)
    chunk = pad_chunk([short, long], 0, 0)
    assert (chunk["labels"][0] == IGNORED).sum() == 38
    together = task_sums(model, chunk, 1) - task_sums(model, pad_chunk([long], 0, 0), 1)
    assert together.item() == pytest.approx(alone.item(), rel=1e-9)


def test_labels_are_moved_right_by_one_behind_the_start_token():
    chunk = pad_chunk([TokenRow(1, [5], [7, 8, 1]), TokenRow(0, [5, 6], [9])], pad=0, start=3)
    assert chunk["decoder_input_ids"].tolist() == [[3, 7, 8], [3, 0, 0]]
    assert chunk["labels"].tolist() == [[7, 8, 1], [9, IGNORED, IGNORED]]
    assert chunk["attention_mask"].tolist() == [[1, 0], [1, 1]]
    assert chunk["task"].tolist() == [1, 0]


def test_a_loss_that_is_not_a_number_stops_with_step_task_and_rate(tiny, questions, tmp_path):
    broken = copy.deepcopy(tiny[0])
    torch.nn.init.constant_(broken.get_output_embeddings().weight, math.nan)
    with pytest.raises(StudyError, match=r"became nan at step 1, task 'predict', learning rate"):
        step_with_trainer(broken, rows_for(tiny, questions, "multitask", count=2), "multitask", tmp_path, 1000)
