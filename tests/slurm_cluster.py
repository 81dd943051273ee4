"""A Slurm cluster of one node on this machine: munged, slurmctld and slurmd, all of it below one folder.

``python tests/slurm_cluster.py COMMAND …`` starts it, runs the command in it and stops it again (with no command: a
shell). It needs root and Debian's packages slurm-wlm and munge, and takes no setting from /etc; nothing listens outside
the machine. Memory and two make-believe GPUs are counted, as a real cluster does, but no job is kept from using more.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd")
TOOLS = ("setpriv", "sbatch", "srun", "squeue", "scancel", "scontrol", "sinfo")
NODE = "node1"
WITH_US = ("setpriv", "--pdeathsig", "TERM")  # no daemon outlives a process that is killed before it can stop them
CONFIG = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
SlurmUser=root
SlurmdUser=root
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SlurmdParameters=config_overrides
SchedulerParameters=bf_interval=1,sched_min_interval=200000
ReturnToService=2
KillWait=3
MinJobAge=600
GresTypes=gpu
NodeName={node} NodeAddr=127.0.0.1 NodeHostname={host} CPUs=2 RealMemory=16000 Gres=gpu:2 State=UNKNOWN
PartitionName=all Nodes={node} Default=YES MaxTime=UNLIMITED State=UP
"""


def why_not():
    """Return why no cluster can be started here, "" where it can."""
    if os.getuid():
        return "a Slurm cluster of its own needs root"
    missing = [name for name in (*DAEMONS, *TOOLS) if not _program(name)]
    if missing:
        return f"not installed: {', '.join(missing)} (Debian's packages slurm-wlm and munge)"
    return ""


@contextlib.contextmanager
def cluster(folder):
    """Start a cluster below `folder` and stop it at the end; yield the environment of its commands."""
    folder = Path(folder)
    environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf"),
                   "PATH": f"{folder}/bin{os.pathsep}{os.environ.get('PATH', '')}"}
    started = []
    try:
        _write_settings(folder)
        munge = [f"--{name}={folder}/munge/{file}" for name, file in (
            ("key-file", "key"), ("socket", "socket"), ("log-file", "log"), ("pid-file", "pid"), ("seed-file", "seed"))]
        for words in (["munged", "--foreground", "--force", *munge], ["slurmctld", "-D", "-i"],
                      ["slurmd", "-D", "-N", NODE]):
            with open(folder / f"{words[0]}.out", "w") as out:
                started.append(subprocess.Popen([*WITH_US, _program(words[0]), *words[1:]], stdout=out, stderr=out,
                                                env=environment, start_new_session=True))
            _wait_until(_is_up[words[0]], folder, environment, started)
        yield environment
    finally:
        _stop(environment, started)


def _write_settings(folder):
    for name in ("munge", "state", "spool", "bin"):
        (folder / name).mkdir(parents=True)
        (folder / name).chmod(0o755)
    # Inside a job Snakemake takes SLURM_CONF away; on a real cluster srun looks for its settings in /etc.
    srun = folder / "bin" / "srun"
    srun.write_text(f'#!/bin/sh\nSLURM_CONF={folder}/slurm.conf exec {_program("srun")} "$@"\n')
    srun.chmod(0o755)
    key = folder / "munge" / "key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    ports = {"controller_port": _free_port(), "node_port": _free_port()}
    (folder / "slurm.conf").write_text(CONFIG.format(folder=folder, node=NODE, host=_host(), **ports))
    (folder / "gres.conf").write_text("".join(f"NodeName={NODE} Name=gpu File=/dev/{name}\n"
                                              for name in ("null", "zero")))


def _host():
    return socket.gethostname().partition(".")[0]


def _free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def _program(name):
    """Return the path of a program: daemons are in sbin, which not everybody has in PATH."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin")


def _says(environment, *words):
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    return done.stdout if done.returncode == 0 else ""


_is_up = {
    "munged": lambda folder, environment: (folder / "munge" / "socket").exists(),
    "slurmctld": lambda folder, environment: "UP" in _says(environment, "scontrol", "ping"),
    "slurmd": lambda folder, environment: "idle" in _says(environment, "sinfo", "--noheader", "--format=%t"),
}


def _wait_until(is_up, folder, environment, started, seconds=60):
    until = time.time() + seconds
    while not is_up(folder, environment):
        if started[-1].poll() is not None or time.time() > until:
            text = "".join(path.read_text() for path in sorted(folder.glob("*.out")))
            raise RuntimeError(f"Slurm did not start: {text[-2000:]}")
        time.sleep(0.2)


def _stop(environment, started):
    """Stop the jobs that are left, then what was started, in the opposite order."""
    if len(started) == len(DAEMONS):
        subprocess.run(["scancel", "--user=root", "--signal=KILL"], env=environment, capture_output=True)
        subprocess.run(["scancel", "--user=root"], env=environment, capture_output=True)
        until = time.time() + 20
        while time.time() < until and _says(environment, "squeue", "--noheader").strip():
            time.sleep(0.2)
    for process in reversed(started):
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


if __name__ == "__main__":
    if why_not():
        sys.exit(f"error: {why_not()}")
    with tempfile.TemporaryDirectory(prefix="slurm-") as scratch, cluster(scratch) as inside:
        sys.exit(subprocess.run(sys.argv[1:] or [os.environ.get("SHELL", "sh")], env=inside).returncode)
