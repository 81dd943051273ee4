"""How fast this machine trains a student and lets it write: a trial on a few questions that leaves nothing behind."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from kdutils.hub import device, model_context, quiet_transformers
from kdutils.student.collating import RowFormat, tokenize_rows
from kdutils.student.distilling import Distilled, distilled_from, epoch_rows
from kdutils.student.methods import Method, task_weights, taught_method
from kdutils.student.models import load_student, model_kind
from kdutils.student.predicting import answer_tokens, predict_questions
from kdutils.student.rows import SharedRows
from kdutils.student.sharing import shares_tokens
from kdutils.student.trainer import StudyTrainer, training_arguments
from kdutils.student.training import Recipe

STEPS = 2  # that are timed, after one that is not: in that one memory is allocated
LONG = 5.0  # seconds: a first step that takes longer is timed, and is the only one
CHUNK = 1000  # tokens of a timed step, at most
ASKED = 16  # questions that the student is asked


@dataclass(frozen=True)
class Cell:
    """A student and what it learns: records of tables.QUESTIONS, and {question id: see methods.as_explained}."""

    recipe: Recipe
    items: list[dict]
    explained: dict

    @property
    def method(self) -> Method:
        """The Method by which the student is taught, with the place of its tag."""
        return taught_method(self.recipe.method, self.recipe.tag)


class Times(NamedTuple):
    """Seconds that a question takes: each time that it is trained on, in an evaluation on dev, and in notebook 21.

    There, it is `asked`, and some questions are `attributed`, too.
    """

    trained: float
    dev: float
    asked: float
    attributed: float


def time_student(cells: list[Cell], max_explanation_tokens: int, precision: str,
                 clock: Callable[[], float] = time.perf_counter) -> tuple[float, list[Times]]:
    """Return (seconds to load the student, the Times of each of `cells`), which differ in method and texts alone.

    A teacher from which tokens are distilled is the same for all of them.

    The cell with the most tokens per question is trained for STEPS steps, and its student is asked ASKED questions, to
    which it writes up to the limits. The times of the other cells are in proportion to their tokens: it is assumed that
    a trained student writes texts as long as the longest one that it learns from. `max_explanation_tokens` and
    `precision` are those of the evaluation. `clock` returns seconds.
    """
    begun = clock()
    model, tokenizer = load_student(**cells[0].recipe.student, seed=cells[0].recipe.seed)
    recipe = cells[0].recipe
    teacher = distilled_from(recipe.method, recipe.parameters, recipe.student, model, tokenizer,
                             recipe.training["max_target_tokens"])
    loaded, rows = clock() - begun, [_rows(model, tokenizer, cell) for cell in cells]
    sizes = [_tokens(model, of_cell) / len(of_cell) for of_cell in rows]
    longest = max(range(len(cells)), key=sizes.__getitem__)
    per_token, per_step = _time_steps(model, cells[longest].recipe, rows[longest], clock, teacher)
    model.to(device(), torch.bfloat16 if precision == "bf16" else torch.float32)
    per_written = _time_writing(model, tokenizer, cells[longest], max_explanation_tokens, clock)
    times = []
    for cell, of_cell, size in zip(cells, rows, sizes, strict=True):
        answer = answer_tokens(tokenizer, cell.method, cell.items)
        text = max(row.counted for of_item in of_cell for row in of_item)
        on_dev = answer + (text if cell.method.explains_first else 0)
        at_the_end = answer + (0 if cell.method.explanation is None else min(text, max_explanation_tokens))
        times.append(Times(size * per_token + per_step / cell.recipe.training["questions_per_step"],
                           size * per_token / 3 + on_dev * per_written,  # the dev loss needs no backward pass
                           at_the_end * per_written,
                           # A gradient per question, as in training; only a student that explains has one.
                           size * per_token if cell.method.explanation is not None else 0.0))
    return loaded, times


def _rows(model, tokenizer, cell):
    """Return the rows of each question in the first epoch."""
    recipe, training = cell.recipe, cell.recipe.training
    row_format = RowFormat(training["max_source_tokens"], training["max_target_tokens"], model_kind(model),
                           model_context(model), recipe.tag, training.get("padding_loss", False))
    entries, _ = tokenize_rows(tokenizer, recipe.method, recipe.parameters, cell.items,
                               recipe.select_explanations(cell.items, cell.explained), row_format)
    rows = epoch_rows(recipe.method, recipe.parameters, entries, [item["id"] for item in cell.items], recipe.seed)
    return [rows[place] for place in range(len(rows))]


def _tokens(model, rows):
    """Return how many tokens a step with these rows (a list per question) computes; shared ones count once."""
    if shares_tokens(model):
        return sum(len(SharedRows(of_item).ids) for of_item in rows)
    return sum(len(row.source) + len(row.target) for of_item in rows for row in of_item)


def _time_steps(model, recipe, rows, clock, teacher: Distilled | None):
    """Return the seconds of a step (per token of its rows, and for the update of the weights)."""
    few = max(1, CHUNK * len(rows) // _tokens(model, rows))
    rows = rows[: min(few, recipe.training["questions_per_step"])]
    weights, watch = task_weights(recipe.method, recipe.parameters), _Watch(clock)
    with TemporaryDirectory() as folder, quiet_transformers():
        arguments = training_arguments(folder, recipe.seed, STEPS + 2, len(rows), recipe.training["learning_rate"], 0,
                                       1, 1, recipe.training["precision"])
        StudyTrainer(model=model, args=arguments, train_dataset=rows, weights=list(weights.values()),
                     tasks=list(weights), token_budget=recipe.training["token_budget"], dev_rows=[],
                     dev_accuracy=lambda model: 0.0, start=getattr(model.config, "decoder_start_token_id", None),
                     pad=model.config.pad_token_id, distilled=teacher, callbacks=[watch]).train()
    passes, updates = zip(*watch.steps[-STEPS:], strict=True)
    return sum(passes) / len(passes) / _tokens(model, rows), sum(updates) / len(updates)


def _time_writing(model, tokenizer, cell, max_explanation_tokens, clock):
    """Return the seconds that a question takes per token that may be written to it."""
    if model_kind(model) != "classifier":
        model.generation_config.eos_token_id = None  # an untrained student may end at once, or never
    items, begun = cell.items[:ASKED], clock()
    predict_questions(model, tokenizer, cell.method, items, max_explanation_tokens)
    seconds = clock() - begun
    texts = 0 if cell.method.explanation is None else max_explanation_tokens
    return seconds / len(items) / (answer_tokens(tokenizer, cell.method, cell.items) + texts)


class _Watch(TrainerCallback):
    """Times the passes through the model and the update of each step; ends the training after enough of them."""

    def __init__(self, clock):
        self.clock, self.steps = clock, []

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs):
        self.begun = self.clock()

    def on_pre_optimizer_step(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs):
        self.passed = self.clock()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs):
        self.steps.append((self.passed - self.begun, self.clock() - self.passed))
        control.should_training_stop = len(self.steps) > STEPS or self.steps[0][0] > LONG
