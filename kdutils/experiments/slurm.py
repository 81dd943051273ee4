"""What a run on Slurm needs besides Snakemake's executor; see snakemake_runs, and `run_experiment` in __main__.

Slurm keeps running its jobs when the call that submitted them is killed. The next call would submit them again, and two
jobs would write into one folder. So the next call first cancels the jobs of the interrupted one.
"""

import os
import re
import shutil
import subprocess
import time
from pathlib import Path

from kdutils.errors import StudyError

WAIT = 120  # seconds until cancelled jobs are gone; Slurm gives them half a minute to stop by themselves
RUN_ID = re.compile(r"^SLURM run ID: (\S+)$", re.MULTILINE)  # as the executor logs it; its jobs have it as their name
ENDED = re.compile(r"SLURM-job '(\d+)' failed, SLURM status is: '([A-Z_]+)")
REASONS = {"CANCELLED": "it was cancelled (scancel)", "TIMEOUT": "its time was over: give it more `minutes`",
           "OUT_OF_MEMORY": "it needed more memory than it may use: give it more `memory_mb`",
           "NODE_FAIL": "its node failed", "PREEMPTED": "another job took its place"}


def option_values(words: list[str], name: str, short: str) -> list[str]:
    """Return the values of an option in `words`, however it is written: --name x, --name=x, -n x, -nx, -n=x."""
    values = []
    for place, word in enumerate(words):
        if word in (name, short):
            values += words[place + 1:place + 2]
        elif word.startswith(f"{name}="):
            values.append(word.partition("=")[2])
        elif word.startswith(short) and not word.startswith("--"):
            values.append(word[len(short):].removeprefix("="))
    return values


def more_options(words: list[str], cores: int) -> list[str]:
    """Return the options that a run on Slurm needs besides those given: number of jobs, how to ask for status.

    Without them Snakemake starts nothing, or waits for ever if the cluster keeps no accounts.
    """
    if option_values(words, "--executor", "-e")[:1] != ["slurm"]:
        return []
    added = [] if option_values(words, "--jobs", "-j") else ["--jobs", str(cores)]
    if not any(word.startswith("--slurm-status-command") for word in words) and not _has_accounts():
        added += ["--slurm-status-command", "squeue"]
    return added


def _has_accounts():
    try:
        done = subprocess.run(["scontrol", "show", "config"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return True  # unknown: what the executor takes by itself
    kept = re.search(r"^AccountingStorageType\s*=\s*(\S+)", done.stdout, re.MULTILINE)
    return not kept or kept[1] not in ("accounting_storage/none", "(null)")


def stop_jobs(folder: Path) -> None:
    """Cancel the jobs on Slurm that an interrupted call of the experiment in `folder` left; wait until they are gone.

    Raises StudyError where Slurm may still have some and cannot be asked, or does not end them.
    """
    jobs = _jobs(folder)
    if not jobs:
        return
    subprocess.run(["scancel", *jobs], capture_output=True)
    print(f"cancelled on Slurm, where an interrupted call had left them: {len(jobs)} jobs", flush=True)
    until = time.time() + WAIT
    while set(_jobs(folder)) & set(jobs):
        if time.time() > until:
            raise StudyError(f"Slurm does not end job {jobs[0]} of an interrupted call, which writes into the same "
                             f"folders; see squeue, end it and run again")
        time.sleep(1)


def _jobs(folder):
    """Return the ids of the jobs on Slurm, waiting, running or ending, of the experiment in `folder`.

    They write their logs below it or, where that was set otherwise, are named by the run that its last log tells of.
    """
    logs = folder / ".snakemake" / "slurm_logs"
    last = folder / "snakemake.log"
    names = set(RUN_ID.findall(last.read_text(errors="replace"))) if last.is_file() else set()
    if not names and not logs.is_dir():
        return []
    queue, problem = _squeue()
    if problem:
        locks = folder / ".snakemake" / "locks"  # Snakemake's: it was killed
        if names and any(locks.glob("*")):
            raise StudyError(f"jobs of an interrupted call may still run on Slurm, which cannot be asked ({problem}); "
                             f"run this where it can, or delete {locks} if none runs any more")
        return []
    return [job for job, name, log in queue if name in names or log.startswith(f"{logs}{os.sep}")]


def _squeue():
    """Return [(id, name, path of the log)] of the user's jobs and "", or [] and why Slurm cannot be asked."""
    if not shutil.which("squeue"):
        return [], "squeue is not installed"
    widths = "JobArrayID:40,Name:160,STDOUT:4096"  # the name is a prefix of at most 50 characters and a run's id
    try:
        done = subprocess.run(["squeue", "--noheader", f"--user={os.getuid()}", f"--Format={widths}"],
                              capture_output=True, text=True, timeout=60)
    except subprocess.TimeoutExpired:
        return [], "squeue does not answer"
    if done.returncode:
        return [], " ".join(done.stderr.split())[:200] or "squeue failed"
    return [(line[:40].strip(), line[40:200].strip(), line[200:].strip()) for line in done.stdout.splitlines()], ""


def say_ended(folder: Path) -> None:
    """Print why Slurm ended jobs and write it into error.txt of their runs, which could not do that themselves."""
    log = (folder / "snakemake.log").read_text(errors="replace")
    for failure in log.split("Error in rule ")[1:]:
        ended = ENDED.search(failure)
        output = re.search(r"^ +output: (.+)/metrics\.json", failure, re.MULTILINE)
        if not ended or not output or not (folder / output[1]).is_dir():
            continue
        error, metrics = (folder / output[1] / name for name in ("error.txt", "metrics.json"))
        if not metrics.is_file() and (ended[2] in REASONS or not error.is_file()):
            reason = f"Slurm ended job {ended[1]}: {REASONS.get(ended[2], f'its status is {ended[2]}')}"
            error.write_text(f"{reason}\n")
            print(f"{output[1]}: {reason}", flush=True)
