"""Checkpoints that are complete or absent, and disk errors that say where and how much space is left."""

import contextlib
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from kdutils.errors import StudyError
from kdutils.runs import is_complete, mark_complete, read_json, write_json

SECONDS = "seconds.json"


class WholeCheckpoints(TrainerCallback):
    """Marks every checkpoint as complete once it is written, and only then removes the others except the best one.

    A checkpoint holds the seconds of the training so far, also those before an interruption.
    """

    def start(self, checkpoint: Path | None) -> None:
        """Start the clock, with the seconds that a checkpoint to go on from holds (0 in one of an earlier version)."""
        kept = checkpoint / SECONDS if checkpoint else None
        self.started = time.monotonic() - (read_json(kept)["seconds"] if kept and kept.is_file() else 0)

    def seconds(self) -> float:
        """Return the seconds of the training so far, without pieces that were lost in an interruption."""
        return time.monotonic() - self.started

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        from accelerate import PartialState

        PartialState().wait_for_everyone()  # each process writes the state of its random numbers
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if state.is_world_process_zero:
            write_json(folder / SECONDS, {"seconds": self.seconds()})
            mark_complete(folder)
            for other in folder.parent.glob("checkpoint-*"):
                if other not in (folder, folder.with_name(f"checkpoint-{state.best_global_step}")):
                    shutil.rmtree(other)


def newest_whole_checkpoint(folder: Path | str) -> Path | None:
    """Return the newest complete checkpoint below `folder`, None if there is none; damaged ones are removed."""
    for path in sorted(Path(folder).glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]), reverse=True):
        if is_complete(path) and is_complete(_best_of(path)):
            return path
        shutil.rmtree(path)
    return None


def _best_of(checkpoint):
    """Return the folder of the best checkpoint so far, which is loaded at the end of the training."""
    best = read_json(checkpoint / "trainer_state.json").get("best_global_step")
    return checkpoint.with_name(f"checkpoint-{best}") if best else checkpoint


@contextlib.contextmanager
def named_disk_errors(what: str, checkpoints: Path | str) -> Iterator[None]:
    """Turn a failed write into a StudyError: what could not be written, how much space is free, what happens next.

    An incomplete checkpoint is removed, so that its space is free again.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:  # torch and safetensors have errors of their own
        reason = str(error).splitlines()[0]
        if isinstance(error, RuntimeError) and "inline_container" not in reason and "PytorchStreamWriter" not in reason:
            raise
        last = newest_whole_checkpoint(checkpoints)
        after = f"step {last.name.split('-')[1]}, the last good checkpoint" if last else "its start"
        free = shutil.disk_usage(checkpoints).free // 2**20
        raise StudyError(f"{checkpoints}: {what} could not be written ({reason}); {free} MiB are free there. Free some "
                         f"space and run again: the training continues from {after}") from error
