"""What the terminal tells: failures in full, Ctrl-C, one program's help, lines that fit, commands that work."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import psutil
import pytest
import yaml
from conftest import PROJECT

from kdutils import __main__ as command_line
from kdutils.errors import StudyError
from kdutils.experiments import grid, snakemake_runs
from kdutils.experiments.loading import experiment_file, load_experiment
from kdutils.experiments.snakemake_runs import heading_at_work
from kdutils.runs import write_json

LONG = "the server said " + "no " * 40 + "and nothing else"
NAMES = "a-data-set-with-a-name-of-more-than-forty-letters", "and-a-student-with-a-long-name-too"


def written(folder, **changes):
    """Write a small experiment whose names are long, and return its name."""
    settings = {
        "about": "a test", "needs": "nothing",
        "datasets": {NAMES[0]: {"reader": "mini", "limits": {"train": 4, "dev": 2, "test": 2}}},
        "teachers": {"mini-llama": {"model": "kdutils/mini/teacher"}}, "promptings": {"few_shot": {}},
        "methods": {"label_only": {}}, "students": {NAMES[1]: {"model": "kdutils/mini/student"}}, "seeds": [0]}
    (folder / "notebooks/experiments/long.yaml").write_text(yaml.safe_dump({**settings, **changes}))
    return "long"


def replace_code(folder, notebook, code):
    """Put `code` in the place of what a notebook does after it has opened its run."""
    path = folder / f"notebooks/{notebook}.ipynb"
    content = json.loads(path.read_text())
    cells = [cell for cell in content["cells"] if cell["cell_type"] == "code"]
    cells[2]["source"] = [code]
    path.write_text(json.dumps(content))


def run(folder, *words, cwd=None):
    """Start the command line of a copy of the project; Ctrl-C is not ignored, whatever the tests inherited."""
    return subprocess.Popen(
        [sys.executable, "-m", "kdutils", "run", *words], cwd=cwd or folder, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        env={**os.environ, "PYTHONPATH": str(folder), "KDUTILS_DATA": "", "COLUMNS": "80", "SOME_TOKEN": "the-token-1"})


def test_a_failure_is_told_in_full_with_its_page_and_ctrl_c_is_no_failure(copy_of_project):
    folder, _ = copy_of_project("terminal")
    name, job = written(folder), folder / "outputs/long/data" / NAMES[0]
    original = (folder / "notebooks/01_look_at_the_data.ipynb").read_text()
    replace_code(folder, "01_look_at_the_data", "import time\ntime.sleep(300)")
    stopped = run(folder, name, "--cores", "1")
    end = time.time() + 200
    while not (job / "notebook.ipynb").is_file():
        assert stopped.poll() is None and time.time() < end, stopped.communicate()
        time.sleep(0.1)
    time.sleep(1)
    os.killpg(stopped.pid, signal.SIGINT)
    out, err = stopped.communicate(timeout=100)
    assert stopped.returncode == 130 and "FAILED" not in out and "Traceback" not in err + out
    assert err.splitlines()[-2:] == ["stopped by Ctrl-C: 0 of 7 runs are finished and kept; the same command goes on "
                                     "from here:", "    ./run_all.sh long"]
    assert not (job / "error.txt").exists() and not list((folder / "outputs").rglob("metrics.json"))
    page = (folder / "outputs/long/index.html").read_text()
    assert "0 of 7 runs done, 1 stopped" in page, page[page.index("runs done") - 40:][:200]

    (folder / "notebooks/01_look_at_the_data.ipynb").write_text(original)
    fault = f"from kdutils.errors import StudyError\nraise StudyError({LONG + ' at the-token-1'!r})"
    replace_code(folder, "01_look_at_the_data", fault)
    failed = run(folder, name, "--cores", "1")
    out, err = failed.communicate(timeout=300)
    lines = out.splitlines()
    at = next(number for number, line in enumerate(lines) if "FAILED" in line)
    assert failed.returncode == 1 and len(lines[at]) <= 80 and lines[at].startswith("[1/7] FAILED data/a-data-")
    assert lines[at + 1] == f"    StudyError: {LONG} at ***" and lines[at + 2] == f"    page: {job / 'report.html'}"
    assert (job / "report.html").is_file() and "7 of 7 runs are not finished" in err


@pytest.mark.parametrize(("width", "text", "fits"), [
    (80, "students/mini/t/few_shot/multitask/t5/seeds-0", True), (80, "students/" + "x" * 90 + "/seeds-0", False),
    (40, "students/mini/t/few_shot/multitask/t5/seeds-0", False)])
def test_a_line_of_progress_fits_the_terminal_and_keeps_its_end(width, text, fits, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    line = snakemake_runs.fitted("[ 1/30] done   ", text)
    assert line.startswith("[ 1/30] done   student") and line.endswith("seeds-0") and len(line) <= width
    assert (text in line) == fits and ("…" in line) != fits and (fits or len(line) == width)


def test_runs_that_run_again_are_not_called_finished(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(grid, "OUTPUTS", tmp_path)
    experiment = load_experiment("mini")
    for job in experiment.jobs:
        write_json(experiment.folder / job.folder / "manifest.json", {"notebook.ipynb": {}})
        write_json(experiment.folder / job.folder / "metrics.json", {})
    total, over = len(experiment.jobs), SimpleNamespace(poll=lambda: 0)
    for changed, finished in ((set(), total), ({"human_ratings"}, total - 1)):
        snakemake_runs._follow(experiment, over, changed, say_finished=True)
        assert capsys.readouterr().out.startswith(f"{finished} of {total} runs are finished already\n")


class Closed(io.StringIO):
    """A terminal that takes some texts and is gone then, as a pipe that `head` has left or a disk that is full."""

    def __init__(self, takes, error):
        super().__init__()
        self.left, self.error = takes, error

    def write(self, text):
        self.left -= 1
        if self.left < 0:
            raise self.error
        return super().write(text)


@pytest.mark.parametrize("error", [BrokenPipeError(32, "Broken pipe"), OSError(28, "No space left on device")])
@pytest.mark.parametrize("takes", [0, 3])
def test_where_nothing_can_be_printed_any_more_the_runs_are_waited_for(takes, error, tmp_path, monkeypatch):
    jobs = [SimpleNamespace(folder=f"data/{name}", kind="data", labels={}) for name in "abc"]
    for job in jobs:
        write_json(tmp_path / job.folder / "manifest.json", {"notebook.ipynb": {}})
        write_json(tmp_path / job.folder / "metrics.json", {})
    code = "import pathlib, time; time.sleep(1); pathlib.Path('ended').write_text('')"
    monkeypatch.setattr(snakemake_runs, "snakemake_command", lambda *_, **__: [sys.executable, "-c", code])
    monkeypatch.setattr(sys, "stdout", stdout := Closed(takes, error))
    monkeypatch.setattr(sys, "stderr", Closed(0, error))
    monkeypatch.chdir(tmp_path)
    assert snakemake_runs.run_snakemake(SimpleNamespace(folder=tmp_path, jobs=jobs), None) == 0
    assert (tmp_path / "ended").is_file() and sys.stdout is stdout
    assert stdout.getvalue() == ("3 of 3 runs are finished already\n" if takes else "")


def test_an_unexpected_error_ends_snakemake_and_its_jobs(tmp_path, monkeypatch):
    code = ("import pathlib, subprocess, sys, time\n"
            "job = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(300)'])\n"
            "pathlib.Path('pid').write_text(str(job.pid)); time.sleep(300)")
    monkeypatch.setattr(snakemake_runs, "snakemake_command", lambda *_, **__: [sys.executable, "-c", code])
    monkeypatch.chdir(tmp_path)
    started = []

    def broken(experiment, process, *_, **__):
        started.append(process)
        while not (tmp_path / "pid").is_file() or not (tmp_path / "pid").read_text():
            time.sleep(0.05)
        raise RuntimeError("unforeseen")

    monkeypatch.setattr(snakemake_runs, "_follow", broken)
    with pytest.raises(RuntimeError, match="unforeseen"):
        snakemake_runs.run_snakemake(SimpleNamespace(folder=tmp_path, jobs=[]), None)
    assert started[0].poll() is not None
    job = int((tmp_path / "pid").read_text())
    assert not psutil.pid_exists(job) or psutil.Process(job).status() == psutil.STATUS_ZOMBIE


def test_ctrl_c_at_any_place_says_how_to_go_on(monkeypatch, capsys):
    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(command_line, "list_experiments", interrupted)
    assert command_line.main(["list"]) == 130
    assert "the same command goes on" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--helpp"], ["mini", "--dry"], ["mini", "--core", "2"]])
def test_an_unknown_option_is_one_line_and_no_usage_of_another_program(words, capsys):
    with pytest.raises(SystemExit) as left:
        command_line.main(["run", *words])
    error = capsys.readouterr().err
    assert left.value.code == 2 and error.count("\n") == 1 and "usage" not in error
    assert error.startswith("error: unrecognized arguments: ")
    assert error.endswith("; ./run_all.sh --help says what there is\n") and "python" not in error


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["mini", "--help"], ["--keep", "--help"], ["--bench", "-h"]])
def test_help_is_that_of_this_program_wherever_it_is_asked_for(words):
    done = subprocess.run([PROJECT / "run_all.sh", *words], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("usage: ./run_all.sh") and not done.stderr
    assert done.stdout.count("usage:") == 1
    run = command_line.parser()._subparsers._group_actions[0].choices["run"]
    options = [word for action in run._actions for word in action.option_strings if word.startswith("--")]
    assert not [word for word in options if word not in done.stdout], "the usage lists every option of a run"


def test_a_relative_file_counts_from_where_the_command_was_given(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    path = tmp_path / "mine" / "own.yaml"
    path.write_text((PROJECT / "notebooks/experiments/mini.yaml").read_text())
    monkeypatch.chdir(PROJECT)
    with pytest.raises(StudyError, match="no such experiment"):
        experiment_file("mine/own.yaml")
    monkeypatch.setenv("KDUTILS_CALLED_FROM", str(tmp_path))
    assert experiment_file("mine/own.yaml") == path
    assert load_experiment("mine/own.yaml").command == f"{PROJECT / 'run_all.sh'} {path}"
    assert load_experiment("mini").command == "./run_all.sh mini"


def test_the_heading_of_the_cell_that_runs_is_found(tmp_path):
    def cell(kind, text, status=None):
        return {"cell_type": kind, "source": text, "metadata": {"papermill": {"status": status}} if status else {}}

    path, cells = tmp_path / "notebook.ipynb", [
        cell("markdown", "# Evaluate"), cell("code", "1", "completed"), cell("markdown", ["## Accuracy\n", "Of all."]),
        cell("markdown", "A remark."), cell("code", "2", "running"), cell("markdown", "## Later"), cell("code", "3")]
    path.write_text(json.dumps({"cells": cells}))
    assert heading_at_work(path) == ["Accuracy"]
    path.write_text(json.dumps({"cells": cells[:4]}))
    assert heading_at_work(path) == []
    for broken in ('{"cells": [{"cell', '{"cells": [7]}', "[]"):
        path.write_text(broken)
        assert heading_at_work(path) == []
    assert heading_at_work(tmp_path / "none") == []
