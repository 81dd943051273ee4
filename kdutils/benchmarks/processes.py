"""Measurements of a benchmark, each in its own process, in alternating order."""

import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from kdutils.benchmarks.machine import now
from kdutils.errors import StudyError

PRELOADED = ("kdutils.student.training", "kdutils.student.trainer", "kdutils.student.predicting",
             "transformers.trainer_seq2seq", "transformers.models.t5.modeling_t5")


class StepTimes:
    """Records the time at the end of every step, by its `callback`."""

    def __init__(self) -> None:
        from transformers import TrainerCallback

        watch = self

        class Callback(TrainerCallback):
            def on_step_begin(self, args, state, control, **kwargs):
                watch.times = watch.times or [now()]

            def on_step_end(self, args, state, control, **kwargs):
                watch.times.append(now())

        self.times, self.callback = [], Callback()

    def steps(self) -> list[float]:
        """Return the seconds of each step."""
        return [after - before for before, after in zip(self.times, self.times[1:], strict=False)]


def peak_mib() -> float:
    """Return the peak memory of this process, in MiB."""
    from kdutils.student.training import peak_memory_mib

    return peak_memory_mib()


class OutOfMemory(StudyError):
    """A measurement ran out of memory, or the system killed its process for that reason."""


class Bench:
    """Runs measurements one after the other in new processes, so that each has its own peak memory."""

    def __init__(self, threads: int, preloaded: Sequence[str] = PRELOADED) -> None:
        import torch

        # A fork of a process that has imported everything starts at once; a GPU cannot be used after a fork.
        self.context = multiprocessing.get_context("spawn" if torch.cuda.is_available() else "forkserver")
        self.threads = threads
        if self.context.get_start_method() == "forkserver":
            self.context.set_forkserver_preload(list(preloaded))

    def measure(self, function: Callable, *arguments: object) -> Any:
        """Return the result of `function` in a new process; StudyError where the process ends without a result."""
        here, there = self.context.Pipe()
        process = self.context.Process(target=_child, args=(there, self.threads, function, arguments))
        process.start()
        there.close()
        try:
            found = here.recv()
        except EOFError:
            process.join()
            kind = OutOfMemory if process.exitcode == -signal.SIGKILL else StudyError
            raise kind(f"{function.__name__}: its process ended with code {process.exitcode}; out of memory?") from None
        process.join()
        if _no_memory(found):
            raise OutOfMemory(f"{function.__name__}: {found}")
        if isinstance(found, BaseException):
            raise found
        return found

    def alternate(self, function: Callable, ways: Sequence[str], *arguments: object,
                  rounds: int = 1) -> dict[str, dict]:
        """Return {way: measurement} of ``function(way, *arguments)``; every second round runs in the reverse order.

        The rounds are one measurement, see pooled().
        """
        return pooled([{way: self._measured(function, way, arguments) for way in (ways, ways[::-1])[turn % 2]}
                       for turn in range(rounds)])

    def _measured(self, function, way, arguments):
        try:
            return self.measure(function, way, *arguments)
        except OutOfMemory:
            return {"seconds": [], "peak_mib": None}


def pooled(rounds: list[dict[str, dict]]) -> dict[str, dict]:
    """Return {way: measurement} of several rounds: the seconds of all of them, the highest peak, the rest of the first.

    A way that ran out of memory has no seconds. This is a result, and the other ways are measured.
    """
    found = {}
    for way in rounds[0]:
        parts = [one[way] for one in rounds]
        lost = any(part["peak_mib"] is None for part in parts)
        found[way] = {"seconds": [], "peak_mib": None} if lost else {
            **parts[0], "seconds": [taken for part in parts for taken in part["seconds"]],
            "peak_mib": max(part["peak_mib"] for part in parts)}
    return found


def _child(pipe, threads, function, arguments):
    import torch
    from transformers.utils import logging

    from kdutils.hub import hide_progress

    torch.set_num_threads(threads)
    logging.set_verbosity_error()
    hide_progress()
    warnings.simplefilter("ignore")
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - hides the lines of the trainers
    try:
        pipe.send(function(*arguments))
    except BaseException as error:  # the parent process reports it
        pipe.send(error)
        raise


def _no_memory(found):
    import torch

    kinds = (MemoryError, torch.OutOfMemoryError)
    return isinstance(found, kinds) or isinstance(found, RuntimeError) and "can't allocate memory" in str(found)
