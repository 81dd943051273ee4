"""How jobs get their parameters, what makes them run again, and whose folder an experiment writes to."""

import json
import math
import os
import random
import shutil
import subprocess

import nbformat
import pytest
import yaml
from conftest import PROJECT, start

from kdutils.__main__ import main
from kdutils.errors import StudyError
from kdutils.experiments import execution, inputs
from kdutils.experiments.grid import FOLDER, Experiment, Job, make_jobs
from kdutils.experiments.loading import experiment_names, load_experiment
from kdutils.experiments.steps import NOTEBOOKS, SETTINGS

VALUES = [0, -7, 2**70, 5e-05, 0.00005, 1e22, -0.0, 1e-320, 0.1, math.inf, -math.inf, math.nan, True, False, "", " ",
          "5e-05", "1_0", "no", "on", "null", "~", "0x1F", "2026-11-25", "12:30:00", "=", "<<", "!x", "*a", "a: b",
          "c #d", "- e", "{f}", "[g]", "h'i", 'j"k', "\\", "\\n", "l\nm", "\tn", "o\r\np", "q\u2028r", "\x7f\x85\x1b",
          "😀 é 蓝色 שלום", "{0}", "%s", "$HOME", "'''", '"""', "#", "x" * 5000]


def drawn(generator, depth=3):
    """Return a random value of the kinds that a parameter may have."""
    if depth and generator.random() < 0.4:
        size = generator.randrange(4)
        if generator.random() < 0.5:
            return [drawn(generator, depth - 1) for _ in range(size)]
        return {str(generator.choice(VALUES)): drawn(generator, depth - 1) for _ in range(size)}
    if generator.random() < 0.3:
        return "".join(chr(generator.choice((generator.randrange(1, 0xD800), generator.randrange(0xE000, 0x110000))))
                       for _ in range(generator.randrange(8)))
    if generator.random() < 0.3:
        return generator.uniform(-1, 1) * 10 ** generator.randrange(-300, 300)
    return generator.choice(VALUES)


def arrived(job, folder):
    """Return the parameters of a job as its notebook sees them: through papermill's own reading and writing."""
    from papermill.iorw import load_notebook_node, read_yaml_file
    from papermill.parameterize import parameterize_notebook

    given = read_yaml_file(str(execution.write_parameters(job, folder)))
    notebook = load_notebook_node(str(NOTEBOOKS / f"{job.notebook}.ipynb"))
    cells = parameterize_notebook(notebook, given).cells
    seen = {}
    for tag in ("parameters", "injected-parameters"):
        exec(next(cell.source for cell in cells if tag in cell.metadata.get("tags", [])), seen)
    return seen


def same(one, other):
    """Say whether two values are equal in value and in every type within; NaN equals NaN, 0.0 is not -0.0."""
    return repr(one) == repr(other)


@pytest.mark.parametrize("seed", range(4))
def test_any_value_arrives_in_the_notebook_as_it_was(seed, tmp_path):
    generator = random.Random(seed)
    values = {f"p{i}": drawn(generator) for i in range(150)} | {f"v{i}": value for i, value in enumerate(VALUES)}
    seen = arrived(Job("data", "data/x", "01_look_at_the_data", values), tmp_path)
    different = {name: (value, seen[name]) for name, value in values.items() if not same(value, seen[name])}
    assert not different


TYPES = {"str": str, "int": int, "float": float, "bool": bool, "list": list, "dict": dict}


@pytest.mark.parametrize("tiny", [False, True])
@pytest.mark.parametrize("name", experiment_names())
def test_every_parameter_of_every_shipped_job_arrives_with_its_type(name, tiny, tmp_path, monkeypatch):
    monkeypatch.delenv("KDUTILS_DATA", raising=False)
    jobs = load_experiment(name, tiny).jobs
    for job in jobs:
        known, seen = SETTINGS[job.notebook].types(), arrived(job, tmp_path)
        for key, value in job.parameters.items():
            assert type(seen[key]) is TYPES[known[key]], (job.folder, key, seen[key])
            assert same(seen[key], value), (job.folder, key)
    assert {"01_look_at_the_data", "21_evaluate_student", "31_compare_methods"} <= {job.notebook for job in jobs}


SIZES = {"limits", "epochs", "max_steps", "questions_per_step", "warmup_steps", "dev_evaluations", "token_budget",
         "max_new_tokens", "max_critique_tokens", "max_revision_tokens", "max_explanation_tokens", "seeds", "output",
         "questions", "explanations", "counterfactuals", "other_questions", "other_explanations", "experiment",
         "evaluations", "soft_labels", "students", "trainings", "explained", "plan", "texts", "timed_questions"}
MODELS = {"model", "tokenizer", "encoder", "nli", "random_weights", "backend", "base_url", "request", "quantization",
          "revision", "chat_template", "distilled_from"}


def by_cell(experiment, tiny=False):
    """Return {cell: parameters} of the jobs of an experiment."""
    return {(job.notebook, *map(str, {**job.labels, "seeds": ""}.items())): job.parameters
            for job in load_experiment(experiment, tiny).jobs}


def kept_by_tiny(parameters):
    """Return what is neither size nor model: also of a simulator inside it, and of a shape the dropout."""
    kept = {key: value for key, value in parameters.items() if key not in SIZES | MODELS | {"config", "simulator"}}
    kept["dropout"] = {key: value for key, value in parameters.get("config", {}).items() if "dropout" in key}
    return kept | ({"simulator": kept_by_tiny(parameters["simulator"])} if parameters.get("simulator") else {})


@pytest.mark.parametrize("name", experiment_names())
def test_tiny_changes_sizes_and_models_alone(name):
    whole, small = by_cell(name), by_cell(name, tiny=True)
    assert whole.keys() == small.keys()
    for cell, parameters in whole.items():
        assert kept_by_tiny(parameters) == kept_by_tiny(small[cell]), cell


@pytest.fixture
def with_everything(tmp_path):
    """The file of an experiment that sets dropout, a simulator and a teacher on a server."""
    simulator = {"model": "kdutils/mini/student", "epochs": 9.0, "learning_rate": 0.003, "checkpoint": "last",
                 "config": {"dropout_rate": 0.4, "d_ff": 96}}
    shapes = {"t5": {"model": "kdutils/mini/student", "config": {"dropout_rate": 0.2, "d_ff": 96}},
              "llama": {"model": "kdutils/mini/teacher", "kind": "causal", "random_weights": True,
                        "config": {"attention_dropout": 0.1, "num_hidden_layers": 3}, "lora": {"dropout": 0.3}},
              "bert": {"kind": "classifier", "random_weights": True, "model": "", "tokenizer": "kdutils/mini/student",
                       "methods": ["label_only"], "config": {"model_type": "bert", "hidden_dropout_prob": 0.05}}}
    served = {"backend": "openai", "model": "x", "base_url": "http://localhost:1/v1", "chat": True, "thinking": "off",
              "system": "Be brief.", "request": {"seed": 1}, "temperature": 0.7, "top_p": 0.9, "timeout": 5,
              "chat_template": "pyproject.toml"}
    return written(tmp_path / "everything.yaml", human_study=None, promptings={"few_shot": {}},
                   teachers={"served": served}, methods={"label_only": {}, "multitask": {}}, students=shapes,
                   evaluation={"simulator": simulator})


def test_tiny_keeps_dropout_a_simulator_and_the_chat_of_a_served_teacher(with_everything):
    whole, small = by_cell(with_everything), by_cell(with_everything, tiny=True)
    kept = [kept_by_tiny(parameters) for parameters in whole.values()]
    assert [kept_by_tiny(small[cell]) for cell in whole] == kept
    told = json.dumps(kept)
    for value in ('"dropout_rate": 0.4', '"learning_rate": 0.003', '"dropout_rate": 0.2', '"attention_dropout": 0.1',
                  '"hidden_dropout_prob": 0.05', '"system": "Be brief."', '"thinking": "off"', '"chat": true'):
        assert value in told, "the experiment sets it"
    simulators = [one["simulator"] for one in small.values() if one.get("simulator")]
    assert simulators and all(one["epochs"] == 1.0 and one["config"]["d_ff"] == 128 for one in simulators)
    asked = next(one for cell, one in small.items() if cell[0] == "02_explain_few_shot")
    assert not {"base_url", "request", "chat_template"} & asked.keys() and asked["backend"] == "hf"


def test_the_tiny_models_take_what_is_kept(with_everything):
    from kdutils.student.models import load_student
    from kdutils.student.training import STUDENT_SETTINGS
    from kdutils.teacher.hf import HfTeacher

    small = by_cell(with_everything, tiny=True)
    students = {one["labels"]["student"]: one for one in small.values() if "student" in one.get("labels", {})
                and "learning_rate" in one}
    loaded = {name: load_student(**{key: given[key] for key in STUDENT_SETTINGS if key in given})[0].config
              for name, given in students.items()}
    assert loaded["t5"].dropout_rate == 0.2 and loaded["llama"].attention_dropout == 0.1
    assert loaded["bert"].hidden_dropout_prob == 0.05
    asked = next(one for cell, one in small.items() if cell[0] == "02_explain_few_shot")
    teacher = HfTeacher(asked["model"], chat=asked["chat"], thinking=asked["thinking"], system=asked["system"])
    assert teacher.in_chat("Why?") == "Be brief.\n\nWhy?"


def test_a_comparison_of_1440_cells_starts(copy_of_project):
    """No argument of a process holds more than 131,072 characters; the folders of so many cells are longer."""
    folder, _ = copy_of_project("many")
    settings = yaml.safe_load((folder / "notebooks/experiments/mini.yaml").read_text()) | {
        "seeds": list(range(120)), "seeds_per_job": 1, "methods": {name: {} for name in ("label_only", "standard",
                                                                                        "multitask")},
        "students": {f"mini-t5-{i}": {"model": "kdutils/mini/student"} for i in range(4)}}
    del settings["human_study"]
    settings["promptings"], settings["teachers"] = {"few_shot": {}}, {"mini-llama": {"model": "kdutils/mini/teacher"}}
    path = folder / "notebooks/experiments/many.yaml"
    path.write_text(yaml.safe_dump(settings, sort_keys=False))
    cells = [nbformat.v4.new_code_cell("evaluations = []\noutput = ''", metadata={"tags": ["parameters"]}),
             nbformat.v4.new_code_cell("print(len(evaluations), sum(map(len, evaluations)))"),
             nbformat.v4.new_code_cell("from kdutils.runs import start_run\n"
                                       "start_run('31_compare_methods', output, globals()).finish({})")]
    comparison = folder / "notebooks/31_compare_methods.ipynb"
    metadata = nbformat.read(comparison, as_version=4).metadata
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), comparison)
    target = folder / "outputs/many"
    target.mkdir()
    experiment = Experiment("many", settings, [], "notebooks/experiments/many.yaml")
    execution.record(experiment, target / execution.RECORD)
    done = start(folder, "execute", "comparison", cwd=target)
    assert done.returncode == 0, done.stdout + done.stderr
    shown = nbformat.read(target / "comparison/notebook.ipynb", as_version=4).cells[2].outputs[0].text.split()
    assert shown[0] == "1440" and int(shown[1]) > 131_072 / 2
    assert (target / "comparison" / execution.PARAMETERS).stat().st_size > 131_072


def test_a_job_that_fails_leaves_its_reason_in_one_line(copy_of_project):
    folder, _ = copy_of_project("reason")
    experiment = load_experiment("mini")
    execution.record(experiment, folder / "outputs/mini/experiment.yaml")
    failed = start(folder, "execute", "report", cwd=folder / "outputs/mini")  # nothing is explained yet
    assert failed.returncode == 1
    reason = (folder / "outputs/mini/report/error.txt").read_text()
    assert reason.count("\n") == 1 and reason.startswith("StudyError: ") and "no such file" in reason
    assert "Traceback" in (folder / "outputs/mini/report/papermill.log").read_text()
    unknown = start(folder, "execute", "nothing", cwd=folder / "outputs/mini")
    assert unknown.returncode == 2 and unknown.stderr == "error: nothing: no job of the experiment mini\n"


# Whose folder it is

@pytest.fixture
def outputs(own_outputs):
    """An empty outputs folder, in place of the project's own."""
    own_outputs.mkdir()
    return own_outputs


def written(path, **changes):
    """Write mini.yaml with `changes` to `path`, without the keys that are None there, and return the path."""
    settings = yaml.safe_load((FOLDER / "mini.yaml").read_text()) | changes
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump({key: value for key, value in settings.items() if value is not None},
                                   sort_keys=False))
    return path


def test_another_experiment_of_the_same_name_never_takes_a_folder_over(outputs, tmp_path, capsys):
    first = load_experiment(written(tmp_path / "one/kill.yaml"))
    assert execution.check_folder(first) == ""
    execution.record(first, outputs / "kill" / execution.RECORD)
    (outputs / "kill" / "notes.txt").write_text("a result")
    assert execution.check_folder(first) == ""

    same_content = load_experiment(written(tmp_path / "two/kill.yaml"))
    assert execution.check_folder(same_content) == ""
    edited = load_experiment(written(tmp_path / "one/kill.yaml", seeds=[7]))
    assert execution.check_folder(edited).endswith("kill.yaml has changed since its last run: what depends on the "
                                                   "changes is run again")
    before = {path: path.read_bytes() for path in outputs.rglob("*") if path.is_file()}
    other = written(tmp_path / "two/kill.yaml", seeds=[8])
    for more in ([], ["--dry-run"], ["--force"]):
        assert main(["run", str(other), *more]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and "holds the runs of another experiment, " in error
        assert str(tmp_path / "one/kill.yaml") in error and "rename" in error
    assert before == {path: path.read_bytes() for path in outputs.rglob("*") if path.is_file()}


def test_tiny_and_a_file_of_that_name_do_not_share_a_folder(outputs, tmp_path):
    small = load_experiment(written(tmp_path / "x.yaml"), tiny=True)
    execution.record(small, outputs / "x-tiny" / execution.RECORD)
    with pytest.raises(StudyError, match="another experiment, .*x.yaml with --tiny; rename"):
        execution.check_folder(load_experiment(written(tmp_path / "x-tiny.yaml")))


def test_a_folder_that_is_no_experiment_is_left_alone(outputs, tmp_path):
    (outputs / "kill").mkdir()
    experiment = load_experiment(written(tmp_path / "kill.yaml"))
    assert execution.check_folder(experiment) == "", "an empty folder belongs to nobody"
    (outputs / "kill" / "thesis.tex").write_text("years of work")
    with pytest.raises(StudyError, match="holds something that is no experiment"):
        execution.check_folder(experiment)
    (outputs / "kill" / ".lock").write_text("1")  # of a version that kept no record
    assert execution.check_folder(experiment) == ""
    (outputs / "kill" / execution.RECORD).write_text("- broken: [")
    assert execution.check_folder(experiment) == ""


def test_an_experiment_runs_as_it_was_when_it_was_started(outputs, tmp_path):
    started = load_experiment(written(tmp_path / "x.yaml", seeds=[3, 1], evaluation={"max_explanation_tokens": 5}))
    execution.record(started, outputs / "x" / execution.RECORD)
    written(tmp_path / "x.yaml", seeds=[9])
    again = execution.recorded(outputs / "x" / execution.RECORD)
    assert [(job.folder, job.parameters, job.needs) for job in again.jobs] == \
        [(job.folder, job.parameters, job.needs) for job in started.jobs]


SMALL = {"datasets": {"mini": {"limits": {"train": 8, "dev": 4, "test": 4}}}, "promptings": {"few_shot": {}},
         "teachers": {"mini-llama": {"model": "kdutils/mini/teacher"}}, "methods": {"multitask": {}},
         "human_study": None}


@pytest.mark.parametrize("path", ["a: b/x.yaml", "c #d/x.yaml", "001.yaml", "2026_11_25.yaml", "1e3.yaml", "no.yaml",
                                  "it's {here}/$HOME.d/x.yaml", "[1]/x.yaml"])
def test_a_path_of_any_name_is_found_and_shown_as_a_shell_reads_it(path, outputs, tmp_path, capsys):
    file = written(tmp_path / path, **SMALL)
    if path.startswith(("a: b", "c #d", "001")):
        assert main(["run", str(file), "--dry-run"]) == 0
        assert "7 jobs, 7 of them to do" in capsys.readouterr().out and not list(outputs.iterdir())
    experiment = load_experiment(str(file))
    assert experiment.name == file.stem
    shown = subprocess.run(["bash", "-c", f"printf '%s\\n' {experiment.command}"], capture_output=True, text=True)
    assert shown.stdout.splitlines() == [str(PROJECT / "run_all.sh"), str(file)], "it works in every folder"


def test_the_command_of_a_shipped_experiment_is_short():
    assert load_experiment("mini").command == "./run_all.sh mini"
    assert load_experiment("mini", tiny=True).command == "./run_all.sh mini --tiny"


# What makes a job run again

@pytest.fixture
def everything(tmp_path, monkeypatch, outputs):
    """An experiment in which every kind of input outside the experiment occurs, and the folder it lies in."""
    data = tmp_path / "data"
    (data / "teacher_llama").mkdir(parents=True)
    for name in ("cqa-llama-train.parquet", "cqa-llama-test.parquet", "esnli-llama-train.parquet"):
        (data / "teacher_llama" / name).write_bytes(b"published " + name.encode())
    (data / "own").mkdir()
    (data / "own" / "train.jsonl").write_text("{}")
    (data / "own" / "test").mkdir()
    (data / "own" / "test" / "data-00000-of-00001.arrow").write_bytes(b"arrow")
    for name in ("teacher", "tuned", "student", "words", "encoder", "nli", "simulator"):
        shutil.copytree(PROJECT / "kdutils/mini" / ("teacher" if name == "teacher" else "student"), data / name)
    (data / "told").mkdir()
    (data / "told" / "shown.parquet").write_bytes(b"shown")
    (data / "told" / "like.parquet").write_bytes(b"like")
    (data / "ratings").mkdir()
    (data / "ratings" / "one.json").write_text("{}")
    monkeypatch.setenv("KDUTILS_DATA", str(data))
    settings = {
        "about": "a test", "needs": "nothing",
        "datasets": {"cqa": {"reader": "table", "files": {"train": "own/train.jsonl", "test": "own/test"}},
                     "mini": {}},
        "teachers": {"own": {"model": str(data / "teacher"), "promptings": ["few_shot"]},
                     "published": {"backend": "published", "promptings": ["few_shot"]},
                     "tuned": {"promptings": ["tokens"], "finetune": {"model": str(data / "tuned")}}},
        "promptings": {"few_shot": {}, "tokens": {}},
        "methods": {"label_only": {}, "multitask": {"promptings": ["few_shot"]}},
        "students": {"s": {"model": str(data / "student"), "tokenizer": str(data / "words")}}, "seeds": [0],
        "evaluation": {"encoder": str(data / "encoder"), "nli": str(data / "nli"),
                       "simulator": {"model": str(data / "simulator")}},
        "human_study": {"methods": ["multitask"], "explanations": str(data / "told" / "shown.parquet")},
        "human_ratings": {"ratings": [str(data / "ratings")], "explanations": str(data / "told" / "like.parquet")},
    }
    return data, list(make_jobs("everything", settings))


def state(jobs):
    inputs._file_digest.cache_clear()  # it lasts for one process: here one file changes twice within a clock tick
    return {job.folder: inputs.depends_on(job) for job in jobs}


def runs_again(jobs, before):
    """Return the kinds of jobs, explanations with their teacher, whose inputs are no longer those of `before`."""
    after = state(jobs)
    return {"/".join(part for part in job.folder.split("/")[:3:2]) if job.kind == "explanations"
            else job.folder.split("/")[0] for job in jobs if after[job.folder] != before[job.folder]}


CHANGED = {  # file below the data -> what runs again by itself (what builds on its results does so by their checksums)
    "own/train.jsonl": {"data"}, "own/test/data-00000-of-00001.arrow": {"data"},
    "teacher/model.safetensors": {"explanations/own"}, "tuned/model.safetensors": {"teachers"},
    "teacher_llama/cqa-llama-train.parquet": {"explanations/published"},
    "student/config.json": {"students"}, "words/tokenizer.json": {"students"},
    "encoder/model.safetensors": {"evaluations", "report"}, "nli/model.safetensors": {"evaluations", "report"},
    "simulator/model.safetensors": {"evaluations"},
    "ratings/one.json": {"human_ratings"}, "ratings/two.json": {"human_ratings"},
    "told/shown.parquet": {"human_study"}, "told/like.parquet": {"human_ratings"},
    "ratings/late/three.json": {"human_ratings"}, "teacher_llama/esnli-llama-train.parquet": set(),
}


@pytest.mark.parametrize("file", CHANGED)
def test_a_changed_input_makes_the_right_jobs_run_again_and_a_touched_one_none(file, everything):
    data, jobs = everything
    before, path = state(jobs), data / file
    if path.exists():
        os.utime(path)
        assert runs_again(jobs, before) == set()
        path.write_bytes(path.read_bytes())
        assert runs_again(jobs, before) == set()
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(path.read_bytes()[:-1] + b"\n~" if path.exists() else b"new")
    assert runs_again(jobs, before) == CHANGED[file]


def test_every_file_that_a_job_reads_is_listed_with_it(everything):
    data, jobs = everything
    listed = {file.relative_to(data).parts[0] for job in jobs for file in inputs.files_of(job)
              if file.is_relative_to(data)}
    assert listed == {"own", "teacher", "tuned", "student", "words", "encoder", "nli", "simulator", "ratings",
                      "teacher_llama", "told"}


def test_a_table_that_is_named_with_its_full_path_alone_is_tracked(tmp_path, monkeypatch):
    monkeypatch.delenv("KDUTILS_DATA", raising=False)
    table, seen = tmp_path / "t.csv", []
    for text in ("question,answer\nA?,a\n", "question,answer\nB?,b\n"):
        table.write_text(text)
        inputs._file_digest.cache_clear()
        job = Job("data", "data/own", "01_look_at_the_data", {
            "dataset": "own", "reader": "table", "files": {"all": str(table)}, "output": "outputs/x/data/own"})
        assert inputs.files_of(job) == [table]
        seen.append(inputs.depends_on(job)["files"])
    assert seen[0] != seen[1]


def test_prompts_count_for_their_own_data_set_alone(everything, tmp_path, monkeypatch):
    from kdutils.teacher import prompting

    _, jobs = everything
    folder = shutil.copytree(prompting.FOLDER, tmp_path / "prompts")
    monkeypatch.setattr(prompting, "FOLDER", folder)
    before = state(jobs)
    for file in (folder / "svamp/few_shot.txt", folder / "riddles/few_shot.txt"):
        file.parent.mkdir(exist_ok=True)
        file.write_text("changed")
        assert runs_again(jobs, before) == set()
    (folder / "mini/few_shot.txt").write_text("changed")
    after = state(jobs)
    changed = {folder for folder in after if after[folder] != before[folder]}
    assert changed == {"explanations/mini/own/few_shot"}


def test_a_notebook_counts_by_its_cells_and_not_by_what_was_saved_with_them(everything, tmp_path, monkeypatch):
    _, jobs = everything
    folder = shutil.copytree(NOTEBOOKS, tmp_path / "notebooks")
    monkeypatch.setattr(inputs, "NOTEBOOKS", folder)
    before, path = state(jobs), folder / "12_train_multitask.ipynb"
    notebook = json.loads(path.read_text())
    code = next(cell for cell in notebook["cells"] if cell["cell_type"] == "code")
    code["outputs"] = [{"output_type": "stream", "name": "stdout", "text": ["saved"]}]
    code["execution_count"], notebook["metadata"]["widgets"] = 7, {"state": {}}
    path.write_text(json.dumps(notebook))
    assert runs_again(jobs, before) == set()
    notebook["cells"][-1]["source"] = ["Something else to read next."]
    path.write_text(json.dumps(notebook))
    after = state(jobs)
    changed = {folder for folder in after if after[folder] != before[folder]}
    assert changed and all("/multitask/" in folder and folder.startswith("students") for folder in changed)


# Disks

@pytest.fixture
def small_disk(copy_of_project):
    """A copy of the project whose outputs lie on a disk of 300 kB, and the options to mount it anew."""
    folder, run = copy_of_project("disk")

    def mount(options):
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder / "outputs"], capture_output=True)
        if done.returncode:
            pytest.skip("no right to mount a file system of its own")

    mount("size=300k")
    yield folder, run, mount
    subprocess.run(["umount", "-l", folder / "outputs"], capture_output=True)


def test_a_full_or_read_only_disk_is_one_line(small_disk):
    folder, run, mount = small_disk
    (folder / "outputs" / "fill").write_bytes(b"x" * 290_000)
    for what, words in {"full": ("No space left", "make room"),
                        "read-only": ("Read-only file system", "write where")}.items():
        if what == "read-only":
            mount("remount,ro")
        done = run("run", "mini", "--cores", "1")
        assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
        lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1 and all(word in lines[0] for word in words), done.stderr
        assert "outputs" in lines[0] and "the same command again" in lines[0]


def test_what_is_left_out_stays_left_out_until_it_is_ended(own_outputs):
    def left_out(**given):
        experiment = load_experiment("mini", **given)
        execution.record(experiment, experiment.folder / execution.RECORD)
        return [job.parameters.get("leave_out_too_long", False) for job in experiment.jobs
                if job.kind == "explanations"]

    assert not any(left_out()) and any(left_out(leave_out_too_long=True)) and any(left_out())
    assert not any(left_out(leave_out_too_long=False)) and not any(left_out())
