"""Checkpoints that are whole or not there, and disk errors that say where and how much room is left."""

import contextlib
import shutil
from pathlib import Path

from safetensors import SafetensorError
from transformers import TrainerCallback

from kdutils.errors import StudyError
from kdutils.runs import is_complete, mark_complete, read_json

# Checkpoints

class WholeCheckpoints(TrainerCallback):
    """Adds a manifest to every checkpoint once it is written, and only then removes all others but the best one."""

    def on_save(self, args, state, control, **kwargs):
        from accelerate import PartialState

        PartialState().wait_for_everyone()  # each process writes the state of its random numbers
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if state.is_world_process_zero:
            mark_complete(folder)
            for other in folder.parent.glob("checkpoint-*"):
                if other not in (folder, folder.with_name(f"checkpoint-{state.best_global_step}")):
                    shutil.rmtree(other)


def newest_whole_checkpoint(folder):
    """Return the newest checkpoint below `folder` whose files are all as written; broken ones are removed."""
    found = sorted(Path(folder).glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]), reverse=True)
    for path in found:
        if is_complete(path) and is_complete(_best_of(path)):
            return path
        shutil.rmtree(path)
    return None


def _best_of(checkpoint):
    """Return the folder of the best checkpoint so far, which the end of the training goes back to."""
    best = read_json(checkpoint / "trainer_state.json").get("best_global_step")
    return checkpoint.with_name(f"checkpoint-{best}") if best else checkpoint


@contextlib.contextmanager
def named_disk_errors(what, checkpoints):
    """Turn a failed write into a StudyError: what could not be written, how much room there is, what comes next.

    A checkpoint that was cut short is removed, so that its room is free again.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:  # torch and safetensors have errors of their own
        reason = str(error).splitlines()[0]
        if isinstance(error, RuntimeError) and "inline_container" not in reason and "PytorchStreamWriter" not in reason:
            raise
        last = newest_whole_checkpoint(checkpoints)
        after = f"step {last.name.split('-')[1]}, the last good checkpoint" if last else "its start"
        raise StudyError(f"{checkpoints}: {what} could not be written ({reason}); {room_mib(checkpoints)} MiB are free "
                         f"there. Make room and run again: the training goes on from {after}") from error


def room_mib(folder):
    """Return how much can still be written where `folder` is, in MiB."""
    return shutil.disk_usage(folder).free // 2**20
