"""The line of progress of a training: in a file, and in a log from time to time."""

import contextlib
import os
import sys
import time

from transformers import TrainerCallback

from kdutils.runs import write_text

PRINT_SECONDS, PRINT_SHARE = 10, 0.02  # between two lines of progress in a log: at least this and of the time so far


class Progress(TrainerCallback):
    """How far a training is: a bar in a terminal and in JupyterLab, else now and then a line; and ``progress.txt``.

    Says the loss of each task, dev accuracy, questions per second and the time left.
    """

    def __init__(self, path, label, questions_per_step):
        self.path, self.label, self.questions_per_step = path, label, questions_per_step
        self.shown = self.printed = 0.0
        self.accuracy, self.first_step, self.bar = None, None, None

    def on_train_begin(self, args, state, control, **kwargs):
        self.started, self.first_step = time.time(), state.global_step
        if state.is_world_process_zero and _is_watched():
            from tqdm.auto import tqdm

            self.bar = tqdm(total=state.max_steps, initial=state.global_step, desc=self.label, unit="step",
                            dynamic_ncols=True)

    def on_step_end(self, args, state, control, **kwargs):
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
        dev = "" if self.accuracy is None else f", dev accuracy {self.accuracy:.3f}"
        news = f"loss {losses}{dev}, {rate * self.questions_per_step:.0f} questions/s"
        left = (state.max_steps - state.global_step) / max(1e-6, rate)
        line = f"{self.label}: step {state.global_step}/{state.max_steps}, {news}, {left:.0f} s left"
        with contextlib.suppress(OSError):  # a full disk is for the checkpoint to report
            write_text(self.path, line + "\n")
        if self.bar is not None:
            self.bar.set_postfix_str(news)
        elif last or self.shown - self.printed >= max(PRINT_SECONDS, PRINT_SHARE * (self.shown - self.started)):
            self.printed = self.shown
            print(line, flush=True)

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        self.accuracy = metrics["eval_accuracy"]

    def on_train_end(self, args, state, control, **kwargs):
        self.close()

    def close(self):
        """Leave the bar where it stands."""
        if self.bar is not None:
            self.bar.close()


def _is_watched():
    """Whether a person looks on as output comes: in a terminal, or in a kernel that JupyterLab started."""
    return sys.stderr.isatty() or "JPY_SESSION_NAME" in os.environ
