"""The whole study on a handful of questions: finished, repeated, killed, altered, failed."""

import json
import os
import re
import signal
import time

import pytest
import yaml
from conftest import PROJECT

SECRET = "hf_thisIsNoRealTokenButLooksLikeOne"
TINY = {
    "about": "a test", "needs": "nothing", "datasets": {"mini": {"limits": {"train": 24, "dev": 8, "test": 8}}},
    "teachers": {"mini-llama": {"model": "kdutils/mini/teacher", "max_new_tokens": 24}},
    "promptings": {"few_shot": {}}, "methods": {"standard": {}, "multitask": {"alpha": 0.5}},
    "students": {"t5": {"model": "kdutils/mini/student", "random_weights": True, "config": {"d_model": 32, "d_kv": 8}}},
    "seeds": [0, 1], "seeds_per_job": 2, "evaluation": {"max_explanation_tokens": 12},
    "training": {"epochs": 2, "questions_per_step": 8, "dev_evaluations": 2},
}


def results(folder):
    """Return the bytes of everything that has to be equal between two runs of the same experiment."""
    root = folder / "outputs" / "tiny"
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*"))
            if path.name in ("metrics.json", "model.safetensors") or path.suffix in (".parquet", ".csv")
            and path.name not in ("costs.csv", "running_costs.csv")}


def write_experiment(folder, settings):
    (folder / "notebooks" / "experiments" / "tiny.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))


def wait_for(condition, process, seconds=240):
    end = time.time() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.time() < end, "it never came"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def finished(copy_of_project):
    folder, run = copy_of_project("undisturbed")
    write_experiment(folder, TINY)
    done = run("run", "tiny", "--cores", "2", HF_TOKEN=SECRET, OPENAI_API_KEY=SECRET)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, run, done


def test_a_run_ends_with_every_folder_whole_and_says_where_the_report_is(finished):
    folder, _, done = finished
    root = folder / "outputs" / "tiny"
    *_, took, report = done.stdout.splitlines()
    assert re.fullmatch(r"took (\d+ s|\d+ min \d\d s)", took) and report == f"report: {root / 'index.html'}"
    assert "[9/9] done   comparison" in done.stdout
    runs = [path.parent for path in root.rglob("metrics.json")]
    assert len(runs) == 9
    for run in runs:
        assert {"manifest.json", "run.json", "notebook.ipynb", "report.html"} <= {path.name for path in run.iterdir()}
        record = json.loads((run / "run.json").read_text())
        assert record["seconds"] > 0 and record["versions"]["python"] and record["parameters"]["output"]
    page = (root / "index.html").read_text()
    assert "comparison/report.html" in page and "chance" in page


def test_no_secret_of_the_environment_is_written_anywhere(finished):
    folder, _, done = finished
    assert SECRET not in done.stdout + done.stderr
    files = [path for path in (folder / "outputs").rglob("*") if path.is_file()]
    assert len(files) > 50 and not [path for path in files if SECRET.encode() in path.read_bytes()]


def test_a_second_call_runs_nothing(finished):
    folder, run, _ = finished
    before = {path: path.stat().st_mtime_ns for path in (folder / "outputs").rglob("notebook.ipynb")}
    again = run("run", "tiny", "--cores", "2")
    assert again.returncode == 0 and again.stdout.startswith("9 of 9 runs are finished already")
    assert before == {path: path.stat().st_mtime_ns for path in (folder / "outputs").rglob("notebook.ipynb")}


def test_only_a_change_of_what_a_job_reads_makes_it_run_again(finished):
    folder, run, _ = finished
    prompts, notebook = folder / "kdutils/teacher/prompts", folder / "notebooks/11_train_standard.ipynb"
    os.utime(prompts / "mini/few_shot.txt")
    (prompts / "svamp/few_shot.txt").write_text("another data set's")
    saved = json.loads(notebook.read_text())
    for cell in saved["cells"]:
        cell |= {"outputs": [], "execution_count": 3} if cell["cell_type"] == "code" else {}
    notebook.write_text(json.dumps(saved))
    planned = run("run", "tiny", "--dry-run").stdout
    assert "9 jobs, 0 of them to do" in planned and "again" not in planned
    text = (prompts / "mini/few_shot.txt").read_text()
    (prompts / "mini/few_shot.txt").write_text(text.replace("?", " ?", 1))
    planned = run("run", "tiny", "--dry-run").stdout
    assert "9 jobs, 8 of them to do" in planned and "done   01_look_at_the_data" in planned
    assert planned.startswith("runs again, because kdutils/teacher/prompts/mini/few_shot.txt has changed:\n"
                              "    explanations/mini/mini-llama/few_shot\n7 finished runs build on these; they run "
                              "again where the results of these have changed\n"), planned
    (prompts / "mini/few_shot.txt").write_text(text)


def test_what_builds_on_a_run_that_comes_back_the_same_is_left_alone(finished):
    folder, run, _ = finished
    before = {path: path.stat().st_mtime_ns for path in (folder / "outputs").rglob("notebook.ipynb")}
    notebook = folder / "notebooks/02_explain_few_shot.ipynb"
    saved = json.loads(notebook.read_text())
    next(cell for cell in saved["cells"] if cell["cell_type"] == "code")["source"] += "\n# another comment"
    text = notebook.read_text()
    notebook.write_text(json.dumps(saved))
    done = run("run", "tiny", "--cores", "2")
    assert done.returncode == 0 and "the cells of notebooks/02_explain_few_shot.ipynb have changed" in done.stdout
    made = [path.parent.name for path, time in before.items() if path.stat().st_mtime_ns != time]
    assert made == ["few_shot"] and "9 of 9 runs are finished already" in done.stdout, done.stdout
    notebook.write_text(text)
    run("run", "tiny", "--cores", "2")


def test_killed_twice_it_goes_on_and_ends_with_equal_results(finished, copy_of_project):
    """First the whole process group goes, notebook kernels excepted; then the first process alone."""
    folder, run = copy_of_project("killed")
    write_experiment(folder, TINY)
    root = folder / "outputs" / "tiny"

    first = run("run", "tiny", "--cores", "2", wait=False)
    wait_for((root / "explanations/mini/mini-llama/few_shot/notebook.ipynb").is_file, first)
    refused = run("run", "tiny")
    assert refused.returncode == 3 and f"already being run by process {first.pid}" in refused.stderr
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()

    second = run("run", "tiny", "--cores", "2", wait=False)
    wait_for(lambda: any(root.glob("students/**/progress.txt")), second)
    second.kill()
    second.wait()

    third = run("run", "tiny", "--cores", "2")
    assert third.returncode == 0, third.stdout + third.stderr
    assert "processes that an interrupted call had left" in third.stdout
    assert results(folder) == results(finished[0])


def test_files_cut_short_or_altered_are_found_and_made_again(finished):
    folder, run, _ = finished
    before = results(folder)
    untouched = [path for path in (folder / "outputs").rglob("notebook.ipynb")
                 if "data" not in path.parts and "standard" not in path.parts]
    times = [path.stat().st_mtime_ns for path in untouched]
    table = folder / "outputs/tiny/data/mini/questions.parquet"
    student = next((folder / "outputs/tiny/students").rglob("standard/**/seed-1/model.safetensors"))
    for path in (table, student):
        path.write_bytes(path.read_bytes()[:-7])
    done = run("run", "tiny", "--cores", "2")
    assert done.returncode == 0 and done.stdout.count("to be made again") == 2, done.stdout + done.stderr
    assert results(folder) == before
    assert len(untouched) == 6 and times == [path.stat().st_mtime_ns for path in untouched]


def test_a_failed_notebook_is_kept_shown_in_red_and_does_not_stop_the_others(finished):
    folder, run, _ = finished
    broken = {"model": "kdutils/mini/student", "random_weights": True, "config": {"dense_act_fn": "zzz"}}
    write_experiment(folder, {**TINY, "students": {"broken": broken, **TINY["students"]},
                              "methods": {"multitask": {"alpha": 0.5}, "standard": {}}})
    kept = results(folder)
    done = run("run", "tiny", "--cores", "2")
    assert done.returncode == 1 and "FAILED students/mini/mini-llama/few_shot/standard/broken" in done.stdout
    assert "runs are not finished; the report and " in done.stderr
    failed = folder / "outputs/tiny/students/mini/mini-llama/few_shot/standard/broken/seeds-0-1"
    notebook = json.loads((failed / "notebook.ipynb").read_text())
    assert any(output["output_type"] == "error" for cell in notebook["cells"] for output in cell.get("outputs", []))
    page = (folder / "outputs/tiny/index.html").read_text()
    assert "failed" in page and "standard/broken/seeds-0-1/report.html" in page and (failed / "report.html").is_file()
    compared = json.loads((folder / "outputs/tiny/comparison/metrics.json").read_text())
    assert [row["mean"] is None for row in compared["accuracy"]].count(False) == 2, "missing cells stay, without a mean"
    assert [name.split("/")[-3] for name in compared["missing"]] == ["multitask", "standard"]
    students = {name: data for name, data in kept.items() if name.startswith("students/")}
    assert students.items() <= results(folder).items()


def test_forced_everything_is_made_anew_and_comes_out_equal(finished):
    folder, run, _ = finished
    write_experiment(folder, TINY)
    assert run("run", "tiny", "--cores", "2").returncode == 0
    before = results(folder)
    students = {path: path.stat().st_mtime_ns for path in (folder / "outputs/tiny/students").rglob("t5/**/record.json")}
    done = run("run", "tiny", "--cores", "2", "--force")
    assert done.returncode == 0 and done.stdout.count(" done ") == 9, done.stdout + done.stderr
    assert len(students) == 4 and all(path.stat().st_mtime_ns > time for path, time in students.items())
    assert results(folder) == before


def test_a_kernel_that_dies_is_a_failure_and_the_old_comparison_is_not_shown_any_more(finished):
    folder, run, _ = finished
    path = folder / "notebooks" / "21_evaluate_student.ipynb"
    notebook = json.loads(path.read_text())
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    code[-1]["source"] = ["import os, signal\n", "os.kill(os.getpid(), signal.SIGKILL)"]
    path.write_text(json.dumps(notebook))
    other = folder / "outputs/tiny/report/metrics.json"
    other.unlink()
    done = run("run", "tiny", "--cores", "2")
    assert done.returncode == 1 and done.stdout.count("FAILED evaluations/") == 2, done.stdout + done.stderr
    assert other.is_file(), "what does not need the failed runs was not made"
    page = (folder / "outputs/tiny/index.html").read_text()
    assert "DeadKernelError" in page and "above chance" not in page
    assert (folder / "outputs/tiny/comparison/metrics.json").is_file() and "2 failed, 2 outdated" in page


def test_the_shell_command_helps_lists_and_refuses_nonsense():
    import subprocess

    def shell(*words):
        return subprocess.run(["./run_all.sh", *words], cwd=PROJECT, capture_output=True, text=True)

    assert "usage: ./run_all.sh" in shell("--help").stdout
    listed = shell("--list")
    assert "mini: " in listed.stdout and "published-cqa: " in listed.stdout and "needs: " in listed.stdout
    assert shell("mini", "--cores", "none").returncode == 2
    assert shell("nothing").returncode == 2
