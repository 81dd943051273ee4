"""Why a finished job runs again: each change is named in words, and what has not changed is not."""

import json
import shutil
from dataclasses import replace

import pytest
import yaml
from conftest import PROJECT

from kdutils import source_code
from kdutils.experiments import inputs, reruns
from kdutils.experiments.grid import Job
from kdutils.experiments.loading import load_experiment
from kdutils.experiments.steps import NOTEBOOKS, SETTINGS
from kdutils.teacher import prompting


@pytest.fixture
def finished(tmp_path, own_outputs):
    """A function that makes an experiment of two promptings, and that experiment with every job finished."""
    def make(**changes):
        settings = {
            "about": "a test", "needs": "nothing", "datasets": {"mini": {}},
            "teachers": {"own": {"model": "kdutils/mini/teacher"}},
            "promptings": {"few_shot": {}, "critique_revision": {}}, "methods": {"label_only": {}, "multitask": {}},
            "students": {"s": {"model": "kdutils/mini/student"}}, "seeds": [0], "training": {"epochs": 2.0}, **changes}
        (tmp_path / "x.yaml").write_text(yaml.safe_dump(settings))
        return load_experiment(tmp_path / "x.yaml")

    experiment = make()
    for job in experiment.jobs:
        folder = experiment.folder / job.folder
        folder.mkdir(parents=True)
        (folder / "metrics.json").write_text("{}")
        reruns.write_inputs(reruns.inputs_of(job), folder)
    return make, experiment


def folders_of(line):
    return line.split(":\n    ")[1].split(" and ")[0].split(", ")


def test_where_nothing_has_changed_nothing_is_said(finished):
    make, experiment = finished
    assert list(reruns.rerun_lines(make())) == []


def test_a_changed_parameter_is_named_with_both_values_and_its_jobs(finished):
    make, _ = finished
    changed = set()
    reason, following = reruns.rerun_lines(make(training={"epochs": 3.0, "learning_rate": 0.01}), changed)
    assert changed and all(folder.startswith("students/") for folder in changed)
    assert reason.startswith("runs again, because the parameter epochs was 2.0 and is 3.0; the parameter learning_rate "
                             "is new (0.01):\n    students/mini/")
    assert len(folders_of(reason)) == 3 and following.startswith("5 finished runs build on these")  # 3 and comparison
    reason, _ = reruns.rerun_lines(make(training={}))
    assert "because the parameter epochs is gone (it was 2.0):" in reason


def test_what_others_build_on_is_made_first_and_in_order(finished):
    _, experiment = finished
    data, explained, student, evaluation = (next(job.folder for job in experiment.jobs if job.kind == kind)
                                            for kind in ("data", "explanations", "students", "evaluations"))
    assert list(reruns.made_first(experiment, {evaluation, explained, data})) == [[data], [explained], [evaluation]]
    assert list(reruns.made_first(experiment, {student, "comparison"})) == [[student]]
    assert list(reruns.made_first(experiment, {job.folder for job in experiment.jobs})) == []
    for unfinished in ("comparison", "errors"):
        (experiment.folder / unfinished / "metrics.json").unlink()
    assert list(reruns.made_first(experiment, {evaluation})) == []


def test_a_long_list_is_compared_and_not_printed():
    old = [f"outputs/an-experiment/students/number-{number}" for number in range(3)]
    assert list(reruns._parameter_changes({"trainings": old}, {"trainings": [*old[1:], "other"]})) == [
        "the list in the parameter trainings has changed (1 more, 1 fewer)"]
    assert list(reruns._parameter_changes({"seeds": [0]}, {"seeds": [0, 1]})) == [
        "the parameter seeds was [0] and is [0, 1]"]


def test_a_job_that_is_not_finished_has_no_reason_and_what_is_finished_below_it_is_counted(finished):
    make, experiment = finished
    for job in experiment.jobs:
        if job.kind == "students":
            (experiment.folder / job.folder / "metrics.json").unlink()
    assert list(reruns.rerun_lines(make(training={"epochs": 3.0}))) == [
        "5 finished runs build on unfinished ones; they run again where the results of these have changed"]


@pytest.mark.parametrize(("file", "jobs"), [
    ("mini/few_shot.txt", ["few_shot", "critique_revision"]), ("mini/critique.txt", ["critique_revision"]),
    ("mini/requests.txt", ["critique_revision"]), ("qualities.txt", ["few_shot", "critique_revision"]),
    ("svamp/few_shot.txt", []), ("mini/a_new_one.txt", [])])
def test_a_job_depends_on_the_prompt_files_that_it_uses_alone(file, jobs, finished, tmp_path, monkeypatch):
    _, experiment = finished
    folder = shutil.copytree(prompting.FOLDER, tmp_path / "prompts")
    monkeypatch.setattr(prompting, "FOLDER", folder)
    for job in experiment.jobs:
        reruns.write_inputs(reruns.inputs_of(job), experiment.folder / job.folder)
    (folder / file).write_text("changed")
    lines = list(reruns.rerun_lines(experiment))
    assert [path.split("/")[-1] for line in lines[:1] for path in folders_of(line)] == jobs
    assert not jobs or lines[0].startswith(f"runs again, because {folder / file} has changed:")


def test_a_notebook_saved_with_outputs_is_no_change_and_an_edited_cell_is(finished, tmp_path, monkeypatch):
    _, experiment = finished
    folder = shutil.copytree(NOTEBOOKS, tmp_path / "notebooks")
    monkeypatch.setattr(inputs, "NOTEBOOKS", folder)
    path = folder / "12_train_multitask.ipynb"
    notebook = json.loads(path.read_text())
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell |= {"outputs": [{"output_type": "stream", "name": "stdout", "text": ["saved"]}], "execution_count": 4}
    path.write_text(json.dumps(notebook))
    assert list(reruns.rerun_lines(experiment)) == []
    notebook["cells"][4]["source"].append("\n1 + 1")
    path.write_text(json.dumps(notebook))
    reason = next(reruns.rerun_lines(experiment))
    assert reason.startswith("runs again, because the cells of notebooks/12_train_multitask.ipynb have changed:")
    assert {folder.split("/")[-3] for folder in folders_of(reason)} == {"multitask"}


def test_code_that_a_step_imports_counts_and_other_code_does_not(finished, monkeypatch):
    _, experiment = finished
    plain = source_code._module

    def changed(path, *stamp):
        digest, *rest = plain(path, *stamp)
        return (digest[::-1] if path == PROJECT / "kdutils/student/loss.py" else digest), *rest

    monkeypatch.setattr(source_code, "_module", changed)
    reason, following = reruns.rerun_lines(experiment)
    assert reason.startswith("runs again, because kdutils/student/loss.py has changed:\n    students/")
    kinds = {job.kind for job in experiment.jobs if reruns.changes_of(job, reruns.inputs_of(job)) == []}
    assert kinds == {job.kind for job in experiment.jobs}
    direct = {job.kind for job in experiment.jobs if reruns.changes_of(
        job, json.loads((experiment.folder / job.folder / reruns.INPUTS).read_text()))}
    assert "students" in direct and not direct & {"data", "report", "comparison"}


@pytest.mark.parametrize("notebook", SETTINGS)
def test_the_templates_that_a_notebook_renders_are_among_its_code(notebook):
    """Those beside a module that uses jinja2, or in a folder there."""
    code = inputs.code_of(Job("any", "any", notebook, {}))
    rendering = [path for path in map(PROJECT.joinpath, code)
                 if path.suffix == ".py" and "import jinja2" in path.read_text()]
    templates = {path.relative_to(PROJECT).as_posix() for module in rendering for path in module.parent.rglob("*.j2")}
    assert templates <= code.keys()
    assert notebook != "31_compare_methods" or len([name for name in templates if "/comparison/" in name]) == 2


def test_every_file_beside_a_module_belongs_to_the_code_of_one():
    package = PROJECT / "kdutils"
    files = [path for path in package.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc", ".png")]
    apart = {*source_code.ELSEWHERE, "results"}  # inputs of their own, and documents that are no step
    wanted = {path.relative_to(PROJECT).as_posix() for path in files
              if not apart & set(path.relative_to(package).parts)}
    known = set().union(*(source_code.code_digests(path) for path in package.rglob("*.py")))
    assert wanted and wanted <= known, wanted - known


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"digests": {}}', '{"digests": [], "code": 3}'])
def test_without_a_readable_record_that_is_said(content, finished):
    _, experiment = finished
    path = experiment.folder / experiment.jobs[0].folder / reruns.INPUTS
    path.write_text(content)
    line, = reruns.rerun_lines(experiment)
    assert line.startswith("1 finished runs have no record")
    path.unlink()
    assert list(reruns.rerun_lines(experiment)) == [line]


def test_many_changes_are_counted_and_hostile_values_are_one_line(finished):
    _, experiment = finished
    job = next(job for job in experiment.jobs if job.kind == "students")
    kept = reruns.inputs_of(job)
    kept["digests"] = dict.fromkeys(kept["digests"], "")
    kept["code"] = dict.fromkeys([*kept["code"], "a", "b"], "")
    changes = reruns.changes_of(replace(job, parameters={**job.parameters, "tag": "x\n\x1b[1m" * 99}), kept)
    assert not [change for change in changes if "\n" in change or "\x1b" in change or len(change) > 200]
    assert any(change.endswith("more files have changed") for change in changes)
