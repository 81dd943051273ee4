"""The progress of a training: a bar, or a line in a file and, from time to time, in the log."""

import contextlib
import os
import sys
import time
from pathlib import Path

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from kdutils.runs import write_text

PRINT_SECONDS, PRINT_SHARE = 10, 0.02  # between two lines in a log: at least 10 s, and 2 % of the time so far


class Progress(TrainerCallback):
    """Shows a bar in a terminal and in JupyterLab, elsewhere a line from time to time; writes the line to `path`.

    The line has the time left, the dev accuracy, the questions per second and the loss of each task, the first ones
    first, because a narrow terminal cuts its end. `label` names the training. StudyTrainer sets `trainer`.
    """

    def __init__(self, path: Path | str, label: str, questions_per_step: int):
        self.path, self.label, self.questions_per_step = path, label, questions_per_step
        self.shown = self.printed = 0.0
        self.accuracy, self.first_step, self.bar = None, None, None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl,
                       **kwargs: object) -> None:
        self.started, self.first_step = time.time(), state.global_step
        if state.is_world_process_zero and _is_watched():
            from tqdm.auto import tqdm

            self.bar = tqdm(total=state.max_steps, initial=state.global_step, desc=self.label, unit="step",
                            dynamic_ncols=True)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl,
                    **kwargs: object) -> None:
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
        dev = "" if self.accuracy is None else f"dev accuracy {self.accuracy:.3f}, "
        news = f"{dev}{rate * self.questions_per_step:.0f} questions/s, loss {losses}"
        left = (state.max_steps - state.global_step) / max(1e-6, rate)
        line = f"{self.label}: step {state.global_step}/{state.max_steps}, {left:.0f} s left, {news}"
        with contextlib.suppress(OSError):  # writing the checkpoint reports a full disk
            write_text(self.path, line + "\n")
        if self.bar is not None:
            self.bar.set_postfix_str(news)
        elif last or self.shown - self.printed >= max(PRINT_SECONDS, PRINT_SHARE * (self.shown - self.started)):
            self.printed = self.shown
            print(line, flush=True)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl,
                    metrics: dict | None = None, **kwargs: object) -> None:
        self.accuracy = metrics["eval_accuracy"]

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl,
                     **kwargs: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the bar; it stays on the screen."""
        if self.bar is not None:
            self.bar.close()


def _is_watched():
    """Whether a person watches the output: in a terminal, or in a kernel that JupyterLab started."""
    return sys.stderr.isatty() or "JPY_SESSION_NAME" in os.environ
