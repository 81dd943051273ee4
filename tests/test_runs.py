"""A run's folder: written whole, checked by its manifest, free of secrets."""

import json

import numpy as np
import pandas as pd
import pytest

from kdutils import runs
from kdutils.data.tables import fill_columns, read_table, write_table
from kdutils.errors import StudyError


def finished_run(folder):
    run = runs.start_run("01_test", str(folder), {"alpha": 0.5, "names": ["a"], "_hidden": 1, "module": json}, seed=3)
    run.path("table.csv").write_text("a,b\n1,2\n")
    run.path("seed-0/model.safetensors").write_bytes(b"weights")
    run.finish({"accuracy": np.float64(0.5), "missing": float("nan"), "n": np.int64(3)})
    (folder / "notebook.ipynb").write_text("{}")
    runs.add_notebook_checksum(folder)
    return run


def test_a_finished_run_holds_parameters_versions_and_results(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secretsecret")
    finished_run(tmp_path / "run")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["parameters"] == {"alpha": 0.5, "names": ["a"]} and record["seed"] == 3
    assert record["versions"]["torch"].startswith("2.13") and record["seconds"] >= 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["accuracy"] == 0.5 and metrics["missing"] is None and metrics["n"] == 3
    assert list(metrics["files"]) == ["seed-0/model.safetensors"]
    written = "".join(path.read_text() for path in (tmp_path / "run").glob("*.json"))
    assert "hf_secretsecret" not in written
    assert runs.check_run(tmp_path / "run") == []


@pytest.mark.parametrize(("harm", "says"), [
    (lambda f: (f / "table.csv").write_text("a,b\n1,"), "table.csv: not the file that was written"),
    (lambda f: (f / "table.csv").write_text("a,b\n1,3\n"), "table.csv: not the file that was written"),
    (lambda f: (f / "seed-0" / "model.safetensors").unlink(), "model.safetensors: missing"),
    (lambda f: (f / "metrics.json").write_text("{}"), "metrics.json: not the file that was written"),
    (lambda f: (f / "notebook.ipynb").write_text("{"), "notebook.ipynb: not the file that was written"),
    (lambda f: (f / "manifest.json").write_text('{"metr'), "manifest.json: missing or broken"),
    (lambda f: (f / "manifest.json").write_text("[]"), "manifest.json: missing or broken"),
    (lambda f: (f / "manifest.json").write_text("{}"), "metrics.json: not in the manifest"),
])
def test_what_was_cut_short_altered_or_removed_is_found(tmp_path, harm, says):
    finished_run(tmp_path)
    harm(tmp_path)
    assert any(says in problem for problem in runs.check_run(tmp_path))


def test_a_write_that_fails_leaves_the_old_file_and_no_rest(tmp_path, monkeypatch):
    target = runs.write_text(tmp_path / "a.json", "old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(runs.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        runs.write_text(target, "new")
    assert target.read_text() == "old" and list(tmp_path.iterdir()) == [target]


def test_what_a_run_read_is_recorded_with_its_checksum(tmp_path):
    finished_run(tmp_path / "earlier")
    write_table(questions(), tmp_path / "t.parquet", "questions")
    run = runs.start_run("31", str(tmp_path / "later"), {"table": str(tmp_path / "t.parquet"), "text": "a / b\n",
                                                         "runs": [str(tmp_path / "earlier")]}, 0)
    run.finish({})
    assert json.loads((tmp_path / "later" / "run.json").read_text())["inputs"] == {
        str(tmp_path / "t.parquet"): runs.sha256(tmp_path / "t.parquet"),
        f"{tmp_path}/earlier/metrics.json": runs.sha256(tmp_path / "earlier" / "metrics.json")}


def test_code_versions_and_inputs_are_recorded_as_they_are_when_the_run_starts(tmp_path, monkeypatch):
    finished_run(tmp_path / "students")
    (tmp_path / "questions.parquet").write_text("questions")
    monkeypatch.setattr(runs, "git_revision", lambda: "first")
    monkeypatch.setattr(runs, "versions", lambda: {"torch": "1"})
    run = runs.start_run("31", str(tmp_path / "later"), {
        "questions": str(tmp_path / "questions.parquet"), "distilled_from": str(tmp_path / "students" / "seed-0")})
    before = {str(tmp_path / "questions.parquet"): runs.sha256(tmp_path / "questions.parquet"),
              f"{tmp_path}/students/metrics.json": runs.sha256(tmp_path / "students" / "metrics.json")}
    monkeypatch.setattr(runs, "git_revision", lambda: "committed meanwhile")
    monkeypatch.setattr(runs, "versions", lambda: {"torch": "2"})
    (tmp_path / "questions.parquet").write_text("other questions")
    run.finish({})
    found = json.loads((tmp_path / "later" / "run.json").read_text())
    assert (found["git"], found["versions"], found["inputs"]) == ("first", {"torch": "1"}, before)


def test_starting_again_takes_the_results_away_first(tmp_path):
    finished_run(tmp_path)
    runs.start_run("01_test", str(tmp_path), {}, 0)
    assert not (tmp_path / "metrics.json").exists()


def test_a_metric_that_is_no_plain_value_is_refused(tmp_path):
    with pytest.raises(TypeError, match="not DataFrame"):
        runs.start_run("01_test", str(tmp_path), {}, 0).finish({"a": pd.DataFrame()})
    assert not (tmp_path / "metrics.json").exists()


def test_variables_of_a_start_up_file_are_no_parameters(tmp_path, monkeypatch):
    """A real kernel, papermill, and a person's own start-up file."""
    import nbformat
    import papermill

    startup = tmp_path / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "00-mine.py").write_text("my_mail = 'me@example.org'\nfavourite = {'a': 1}\nmodel = 'gpt'\n")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("RANK", "3")
    notebook = nbformat.read(runs.PROJECT / "notebooks" / "02_explain_few_shot.ipynb", as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"][:2]
    assert "parameters" in cells[0].metadata["tags"] and ".start(globals())" in cells[1].source
    before = nbformat.v4.new_code_cell("earlier = my_mail")
    after = nbformat.v4.new_code_cell("import os\nrun.finish({'favourite': favourite['a'], "
                                      "'ranks': [name for name in os.environ if name == 'RANK']})")
    notebook.cells = [before, *cells, after]
    nbformat.write(notebook, tmp_path / "02.ipynb")
    papermill.execute_notebook(str(tmp_path / "02.ipynb"), str(tmp_path / "out.ipynb"), cwd=str(runs.PROJECT),
                               parameters={"output": str(tmp_path / "run"), "seed": 7},
                               progress_bar=False)
    assert json.loads((tmp_path / "run" / "metrics.json").read_text()) == {"favourite": 1, "files": {}, "ranks": []}
    found = json.loads((tmp_path / "run" / "run.json").read_text())["parameters"]
    from kdutils.experiments.steps import SETTINGS
    assert found == {**SETTINGS["02_explain_few_shot"].defaults(), "output": str(tmp_path / "run"), "seed": 7}


def test_the_parameters_are_those_of_the_notebook_or_of_a_changed_copy_of_it(tmp_path):
    given = {"seed": 1, "alpha": 0.5, "mine": "x", "output": "o"}

    def parameters(notebook, *executed):
        return set(runs.start_run(notebook, str(tmp_path / "run"), {**given, "In": ["", *executed]}).parameters)

    assert parameters("02_explain_few_shot") == {"seed", "output"}
    assert parameters("02_explain_few_shot", "mine = 'x'", "%matplotlib inline\nalpha = 1") == {"seed", "output"}
    assert parameters("02_explain_few_shot", "alpha: float = 0.5\noutput: str = 'o'") == {"seed", "output", "alpha"}
    assert parameters("02_explain_few_shot", "# Parameters\nalpha = 0.5\n") == {"seed", "output", "alpha"}
    assert parameters("no_such_notebook") == set(given)


@pytest.mark.parametrize(("environment", "found"), [
    ({}, (0, 1)), ({"RANK": "1"}, (0, 1)), ({"RANK": "1", "WORLD_SIZE": "2"}, (0, 1)),
    ({"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "host"}, (0, 1)),
    ({"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "host", "MASTER_PORT": "29500"}, (1, 2)),
    ({"RANK": "2", "WORLD_SIZE": "2", "MASTER_ADDR": "host", "MASTER_PORT": "29500"}, (0, 1)),
    ({"RANK": "one", "WORLD_SIZE": "2", "MASTER_ADDR": "host", "MASTER_PORT": "29500"}, (0, 1)),
    ({"RANK": "", "LOCAL_RANK": "0", "SLURM_PROCID": "0"}, (0, 1))])
def test_a_process_is_one_of_several_only_where_it_could_find_the_others(environment, found, monkeypatch):
    for name in runs.LEFT_OVER:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert runs.process_group() == found
    runs.leave_process_group()
    left = {name for name in environment if name in runs.os.environ}
    assert left == (set(environment) if found == (1, 2) else {"SLURM_PROCID"} & set(environment))
    runs.leave_process_group(always=True)
    assert not set(runs.LEFT_OVER) & set(runs.os.environ)


def test_a_job_of_an_experiment_is_one_process_whatever_a_scheduler_has_set(monkeypatch):
    from types import SimpleNamespace

    from kdutils.experiments.snakemake_runs import environment_of

    group = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "host", "MASTER_PORT": "29500",
             "PMI_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1"}
    for name, value in {**group, "SLURM_JOB_ID": "7"}.items():
        monkeypatch.setenv(name, value)
    environment = environment_of(SimpleNamespace(folder="x"))
    assert not set(group) & set(environment) and environment["SLURM_JOB_ID"] == "7"


def questions(**change):
    row = {"id": "1", "split": "train", "question": "q?", "choices": ["a", "b"], "answer": "a",
           "human_explanations": []}
    return pd.DataFrame([{**row, **change}])


def test_tables_come_back_as_they_were_written(tmp_path):
    table = questions(question="naïve 😀\n<script>", human_explanations=["x"])
    write_table(table, tmp_path / "t.parquet", "questions")
    assert read_table(tmp_path / "t.parquet", "questions").to_dict("records") == fill_columns(table).to_dict("records")
    first = (tmp_path / "t.parquet").read_bytes()
    write_table(table, tmp_path / "t.parquet", "questions")
    assert (tmp_path / "t.parquet").read_bytes() == first and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(("table", "says"), [
    (questions().drop(columns="answer"), "column 'answer' is missing"),
    (questions(answer=None), "row 0: field 'answer' is empty"),
    (questions(choices="a b"), "wrong type"),
    (questions(id=5), "wrong type"),
])
def test_a_wrong_table_is_named_and_not_written(tmp_path, table, says):
    with pytest.raises(StudyError, match=f"t.parquet.*{says}"):
        write_table(table, tmp_path / "t.parquet", "questions")
    assert list(tmp_path.iterdir()) == []


def test_a_broken_or_missing_table_is_named(tmp_path):
    with pytest.raises(StudyError, match="none.parquet: no such file; run the notebook that writes it first"):
        read_table(tmp_path / "none.parquet", "questions")
    write_table(questions(), tmp_path / "t.parquet", "questions")
    (tmp_path / "t.parquet").write_bytes((tmp_path / "t.parquet").read_bytes()[:-20])
    with pytest.raises(StudyError, match="t.parquet: not a readable Parquet file"):
        read_table(tmp_path / "t.parquet", "questions")
