"""On a Slurm cluster: what jobs may use, what an interrupted call leaves, what Slurm ends, and the same results.

One node is started here (slurm_cluster.py) where this is root and Slurm is installed. The run of an experiment on it
takes minutes and runs where KDUTILS_SLURM=1 is set.
"""

import hashlib
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from conftest import start
from slurm_cluster import cluster, why_not
from test_experiments import changed

from kdutils.__main__ import main
from kdutils.errors import StudyError
from kdutils.experiments import slurm
from kdutils.experiments.execution import RECORD, record
from kdutils.experiments.grid import resources_of
from kdutils.experiments.loading import experiment_names, load_experiment
from kdutils.experiments.snakemake_runs import snakemake_command

needs_slurm = pytest.mark.skipif(bool(why_not()), reason=why_not() or "it can be started")
needs_plugin = pytest.mark.skipif(not importlib.util.find_spec("snakemake_executor_plugin_slurm"),
                                  reason="Snakemake's executor for Slurm is not installed: pip install -e '.[slurm]'")

FEW = """
about: one method, few questions
needs: a CPU
datasets: {mini: {limits: {train: 24, dev: 8, test: 12}}}
teachers: {mini-llama: {promptings: [few_shot], model: kdutils/mini/teacher}}
promptings: {few_shot: {splits: [test]}}
methods: {label_only: {}}
students: {mini-t5: {model: kdutils/mini/student}}
seeds: [0, 1]
training: {epochs: 1, questions_per_step: 8, learning_rate: 0.001, warmup_steps: 1, dev_evaluations: 1}
evaluation: {max_explanation_tokens: 12}
resources: {memory_mb: 3000, minutes: 25, students: {gpus: 1, minutes: 40}}
"""


def wait_for(true, seconds=300):
    until = time.time() + seconds
    while not (found := true()):
        assert time.time() < until, "it did not come"
        time.sleep(0.3)
    return found


# What a job may use.

@pytest.mark.parametrize("value, message", [
    ({"colour": 1}, "key 'resources.colour': unknown; known are memory_mb, minutes, gpus, data, labels, teachers"),
    ({"memory_mb": "8 GB"}, "key 'resources.memory_mb': '8 GB' is not a whole number from 100 to "),
    ({"memory_mb": 8}, "key 'resources.memory_mb': 8 is not a whole number from 100 to "),
    ({"minutes": 0}, "key 'resources.minutes': 0 is not a whole number from 1 to "),
    ({"minutes": 1.5}, "key 'resources.minutes'"),
    ({"gpus": True}, "key 'resources.gpus'"),
    ({"gpus": -1}, "key 'resources.gpus'"),
    ({"gpus": 10 ** 12}, "key 'resources.gpus'"),
    ({"students": 1}, "key 'resources.students': give a mapping"),
    ({"students": {"gpu": 1}}, "key 'resources.students.gpu': unknown; known are memory_mb, minutes, gpus"),
    ({"students": {"evaluations": {}}}, "key 'resources.students.evaluations': unknown"),
    ({"evaluations": {"minutes": None}}, "key 'resources.evaluations.minutes': it is empty; leave the key out"),
    ([8000], "key 'resources': [8000] is not of type dict"),
])
def test_wrong_resources_are_refused(value, message, tmp_path, capsys):
    (tmp_path / "x.yaml").write_text(changed("resources", value))
    assert main(["run", str(tmp_path / "x.yaml"), "--dry-run"]) == 2
    assert message in capsys.readouterr().err


def test_every_kind_of_job_has_its_resources(tmp_path):
    """What is said for a kind comes before what is said for all, and that before what is usual."""
    (tmp_path / "x.yaml").write_text(changed("resources", {"minutes": 60, "students": {"gpus": 1}}))
    experiment = load_experiment(tmp_path / "x.yaml")
    kinds = {job.kind for job in experiment.jobs}
    assert kinds == {"data", "teachers", "explanations", "report", "students", "evaluations", "human_study",
                     "errors", "comparison"}
    for kind in kinds:
        assert resources_of(experiment.settings, kind) == {
            "memory_mb": 8000, "minutes": 60, "gpus": 1 if kind == "students" else 0}
        (tmp_path / "x.yaml").write_text(changed("resources", {kind: {"minutes": 5}}))
        load_experiment(tmp_path / "x.yaml")  # each kind of job that there is may be named


def test_snakemake_is_told_the_resources(tmp_path):
    """As its own plan of the jobs shows them; nothing of it limits a run on this machine."""
    (tmp_path / "few.yaml").write_text(FEW + "threads_per_job: 2\n")
    experiment = load_experiment(tmp_path / "few.yaml")
    options = SimpleNamespace(experiment=tmp_path / "few.yaml", tiny=False, cores=2, snakemake=[])
    command = snakemake_command(experiment, options, "--dry-run")
    command[command.index("--directory") + 1] = str(tmp_path / "run")
    record(experiment, tmp_path / "run" / RECORD)
    plan = subprocess.run(command, capture_output=True, text=True).stdout
    told = {folder: rest for folder, rest in re.findall(
        r"wildcards: folder=(\S+)\n((?: +(?:threads|resources): .*\n)+)", plan)}
    assert set(told) == {job.folder for job in experiment.jobs}
    for job in experiment.jobs:
        training = job.kind == "students"
        assert "threads: 2" in told[job.folder] and "mem_mb=3000" in told[job.folder]
        assert f"runtime={40 if training else 25}," in told[job.folder]
        assert re.search(f"gpu={int(training)}\\b", told[job.folder])


@pytest.mark.parametrize("name", experiment_names())
def test_an_experiment_that_needs_a_gpu_asks_the_cluster_for_one(name):
    """For students and what reads them, and for every model that explains or is tuned to; for tables never."""
    experiment = load_experiment(name)
    teachers = experiment.settings["teachers"].values()
    asks = {job.kind for job in experiment.jobs if resources_of(experiment.settings, job.kind)["gpus"]}
    wanted = {"students", "evaluations"}
    wanted |= {"explanations"} if any(entry.get("backend") != "published" for entry in teachers) else set()
    wanted |= {"teachers"} if any("finetune" in entry for entry in teachers) else set()
    assert asks == (wanted if "GPU" in experiment.settings["needs"] else set())


# The command line.

@pytest.fixture
def commands(tmp_path, monkeypatch):
    """A function that puts commands of its own, as shell scripts, in the place of Slurm's."""
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    (tmp_path / "bin").mkdir()

    def write(**scripts):
        for name, text in scripts.items():
            (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
            (tmp_path / "bin" / name).chmod(0o755)

    return write


@pytest.mark.parametrize("words", [["--executor", "slurm"], ["--executor=slurm"], ["-e", "slurm"], ["-eslurm"]])
def test_slurm_as_executor_needs_no_other_option(words, commands):
    """How many jobs is said by --cores; a cluster without accounts is asked by squeue, or the run would never end."""
    commands(scontrol="echo 'AccountingStorageType   = accounting_storage/none'")
    assert slurm.more_options(words, 3) == ["--jobs", "3", "--slurm-status-command", "squeue"]
    for given in (["--jobs", "9"], ["-j9"], ["--jobs=9"], ["-j", "9"]):
        assert slurm.more_options([*words, *given], 3) == ["--slurm-status-command", "squeue"]
    assert slurm.more_options([*words, "--slurm-status-command=sacct"], 3) == ["--jobs", "3"]
    commands(scontrol="echo 'AccountingStorageType   = accounting_storage/slurmdbd'")
    assert slurm.more_options(words, 3) == ["--jobs", "3"]


@pytest.mark.parametrize("words", [[], ["--executor", "local"], ["--jobs", "slurm"], ["--executor"]])
def test_without_slurm_nothing_is_added(words):
    assert slurm.more_options(words, 3) == []


# What an interrupted call left.

RUN = "11111111-2222-3333-4444-555555555555"


@pytest.fixture
def folder(tmp_path):
    """The folder of an experiment whose call was killed while its jobs were on Slurm."""
    folder = tmp_path / "outputs" / "x"
    (folder / ".snakemake" / "slurm_logs").mkdir(parents=True)
    (folder / ".snakemake" / "locks").mkdir()
    (folder / ".snakemake" / "locks" / "0.input.lock").touch()
    (folder / "snakemake.log").write_text(f"Building DAG of jobs...\nSLURM run ID: {RUN}\nUsing shell\n")
    return folder


def queue(folder, *jobs):
    """Return a squeue that lists [(id, name, log)] until scancel is called, and a scancel that takes words down."""
    lines = "\n".join(f"{job:<40}{name:<160}{log:<300}" for job, name, log in jobs)
    (folder.parent / "queue").write_text(lines + "\n")
    return {"squeue": f"cat {folder.parent}/queue", "scancel": f"echo $* > {folder.parent}/cancelled; "
                                                               f": > {folder.parent}/queue"}


def test_jobs_of_the_interrupted_call_are_cancelled_and_no_others(folder, commands, capsys):
    logs = folder / ".snakemake" / "slurm_logs"
    commands(**queue(folder, ("3", "a", f"{logs}/rule_execute/data_mini/%j.log"), ("4", RUN, "/elsewhere/%j.log"),
                     ("5", "b", f"{folder}-tiny/.snakemake/slurm_logs/%j.log"), ("6", "c", "/dev/null"),
                     ("7_[1-3]", f"prefix_{RUN[::-1]}", f"{logs}/8.log")))
    slurm.stop_jobs(folder)
    assert (folder.parent / "cancelled").read_text().split() == ["3", "4", "7_[1-3]"]
    assert capsys.readouterr().out == "cancelled on Slurm, where an interrupted call had left them: 3 jobs\n"


def test_nothing_is_cancelled_where_nothing_is_left(folder, commands, capsys):
    commands(**queue(folder, ("5", "b", "/elsewhere/5.log")))
    slurm.stop_jobs(folder)
    assert not (folder.parent / "cancelled").exists() and capsys.readouterr().out == ""


def test_an_experiment_that_was_never_on_slurm_does_not_ask_it(tmp_path, commands):
    commands(squeue=f"touch {tmp_path}/asked")
    (tmp_path / "snakemake.log").write_text("Building DAG of jobs...\n")
    slurm.stop_jobs(tmp_path)
    assert not (tmp_path / "asked").exists()


def test_a_run_waits_where_slurm_cannot_be_asked(folder, commands):
    """Jobs may go on that nobody sees. After a call that ended by itself, as its lock says, there are none."""
    commands(squeue="echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(StudyError, match=r"jobs of an interrupted call .* \(slurm_load_jobs error: Unable to contact"):
        slurm.stop_jobs(folder)
    (folder / ".snakemake" / "locks" / "0.input.lock").unlink()
    slurm.stop_jobs(folder)


def test_a_job_that_does_not_end_is_an_error(folder, commands, monkeypatch):
    commands(**queue(folder, ("4", RUN, "/elsewhere/%j.log")) | {"scancel": "exit 1"})
    monkeypatch.setattr(slurm, "WAIT", 0.1)
    with pytest.raises(StudyError, match="Slurm does not end job 4 of an interrupted call"):
        slurm.stop_jobs(folder)


@needs_slurm
def test_a_real_queue_is_read_and_cancelled(tmp_path):
    """Two jobs of this experiment, one of another; one of the two waits, since the node has two processors."""
    logs, other = tmp_path / "blau ä b" / ".snakemake" / "slurm_logs", tmp_path / "other" / ".snakemake" / "slurm_logs"
    for one in (logs, other):
        (one / "rule_execute").mkdir(parents=True)
    with cluster(tmp_path / "cluster") as environment:
        def slurm_says(*words):
            return subprocess.run(words, env=environment, capture_output=True, text=True, check=True).stdout

        sleeping = [slurm_says("sbatch", "--parsable", f"--output={where}/rule_execute/%j.log", "--job-name", "a" * 87,
                               "--mem=1000", "--wrap=sleep 300").strip() for where in (logs, other, logs)]
        states = ["squeue", "--noheader", "--sort=i", "--format=%T"]
        wait_for(lambda: slurm_says(*states).split() == ["RUNNING", "RUNNING", "PENDING"])
        asked = subprocess.run(
            [sys.executable, "-c", "import pathlib, sys; from kdutils.experiments import slurm; "
                                   "slurm.stop_jobs(pathlib.Path(sys.argv[1]))", str(logs.parents[1])],
            env=environment, capture_output=True, text=True)
        assert asked.returncode == 0, asked.stderr
        assert asked.stdout == "cancelled on Slurm, where an interrupted call had left them: 2 jobs\n"
        assert slurm_says("squeue", "--noheader", "--format=%i %T").split() == [sleeping[1], "RUNNING"]


# What Slurm ended.

FAILURE = """[Wed Nov 25 13:18:13 2026]
Error in rule execute:
    message: SLURM-job '{job}' failed, SLURM status is: '{status}'. Detailed failure reason unavailable.
    jobid: 1
    input: /x/01.ipynb
    output: {output}/metrics.json
    log: {output}/notebook.ipynb, /x/{job}.log (check log file(s) for error details)
    external_jobid: {job}

"""


@pytest.mark.parametrize("status, sentence", [
    ("TIMEOUT", "Slurm ended job 7: its time was over: give it more `minutes`"),
    ("OUT_OF_MEMORY", "Slurm ended job 7: it needed more memory than it may use: give it more `memory_mb`"),
    ("CANCELLED", "Slurm ended job 7: it was cancelled (scancel)"),
    ("BOOT_FAIL", "Slurm ended job 7: its status is BOOT_FAIL")])
def test_a_run_that_slurm_ended_says_why(tmp_path, capsys, status, sentence):
    for name in ("data/mini", "students/a b", "report"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "report" / "metrics.json").write_text("{}")
    (tmp_path / "snakemake.log").write_text("".join(
        FAILURE.format(job=7, status=status, output=name) for name in ("data/mini", "students/a b", "report", "gone")))
    slurm.say_ended(tmp_path)
    for name in ("data/mini", "students/a b"):
        assert (tmp_path / name / "error.txt").read_text() == sentence + "\n"
    assert capsys.readouterr().out.splitlines() == [f"data/mini: {sentence}", f"students/a b: {sentence}"]
    assert not (tmp_path / "report" / "error.txt").exists() and not (tmp_path / "gone").exists()


def test_an_error_of_the_run_itself_stays(tmp_path):
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "error.txt").write_text("StudyError: no table\n")
    (tmp_path / "snakemake.log").write_text(FAILURE.format(job=7, status="FAILED", output="report"))
    slurm.say_ended(tmp_path)
    assert (tmp_path / "report" / "error.txt").read_text() == "StudyError: no table\n"


# The whole of it.

def files(folder, *patterns):
    """Return {path: checksum} of the files below `folder` that fit a pattern."""
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for pattern in patterns for path in sorted(folder.rglob(pattern)) if ".snakemake" not in path.parts}


@needs_slurm
@needs_plugin
@pytest.mark.skipif(os.environ.get("KDUTILS_SLURM") != "1", reason="takes minutes; KDUTILS_SLURM=1 runs it")
def test_an_experiment_on_slurm_cancelled_killed_and_gone_on_gives_the_same_results(copy_of_project, tmp_path):
    """A job is cancelled, then the call killed while a job is at work; the third call ends, as a run here does."""
    folder, _ = copy_of_project("slurm")
    (folder / "few.yaml").write_text(FEW)
    words = ("run", "few.yaml", "--cores", "2", "--", "--executor", "slurm",
             "--slurm-init-seconds-before-status-checks", "3")
    with cluster(tmp_path / "cluster") as environment:
        def slurm_says(*words):
            return subprocess.run(words, env=environment, capture_output=True, text=True, check=True).stdout

        def at_work(kind, notebook):
            """Return the ids of jobs of a kind whose notebook has begun."""
            for line in slurm_says("squeue", "--noheader", "--states=RUNNING", "--format=%i|%k").splitlines():
                job, _, comment = line.partition("|")
                if kind in comment and (folder / "outputs" / "few" / notebook).is_file():
                    return job
            return ""

        settings = {key: environment[key] for key in ("SLURM_CONF", "PATH")}
        call = start(folder, *words, wait=False, **settings)
        job = wait_for(lambda: at_work("data", "data/mini/papermill.log"))
        slurm_says("scancel", job)
        out, err = call.communicate(timeout=300)
        assert call.returncode == 1, err
        assert (folder / "outputs/few/data/mini/error.txt").read_text() == (
            f"Slurm ended job {job}: it was cancelled (scancel)\n")

        call = start(folder, *words, wait=False, **settings)
        training = "students/mini/label_only/mini-t5/seeds-0-1"
        job = wait_for(lambda: at_work("students", f"{training}/papermill.log"))
        shown = slurm_says("scontrol", "show", "job", job)
        assert "TimeLimit=00:40:00" in shown and "mem=3000M" in shown and re.search(r"gres.gpu[=:]1", shown)
        call.send_signal(signal.SIGKILL)
        call.wait()
        left = slurm_says("squeue", "--noheader", "--format=%i").split()
        assert job in left  # Slurm goes on with it, and perhaps with another one

        third = start(folder, *words, **settings)
        assert third.returncode == 0, third.stderr
        assert re.search(r"cancelled on Slurm, where an interrupted call had left them: [12] jobs", third.stdout)
        for one in left:
            assert re.search(r"JobState=(CANCELLED|COMPLETED)", slurm_says("scontrol", "show", "job", one))
        assert not slurm_says("squeue", "--noheader").strip()
    here, run = copy_of_project("local")
    (here / "few.yaml").write_text(FEW)
    assert run("run", "few.yaml", "--cores", "1").returncode == 0
    made = [files(one / "outputs" / "few", "metrics.json", "*.parquet", "*.safetensors") for one in (folder, here)]
    assert made[0] == made[1] and len(made[0]) == 11  # six jobs, three tables, two students
    metrics = json.loads((folder / "outputs/few/comparison/metrics.json").read_text())
    assert metrics["summary"]
