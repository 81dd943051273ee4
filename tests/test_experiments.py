"""Experiments are checked before anything runs; every one that ships is right."""

import pytest
import yaml

from kdutils.__main__ import main
from kdutils.errors import StudyError
from kdutils.experiments import FOLDER, NOTEBOOKS, experiment_names, load_experiment, notebook_parameters

MINI = yaml.safe_load((FOLDER / "mini.yaml").read_text())


def changed(path, value):
    """Return the text of mini.yaml with the key at `path` (dotted) set to `value`, or removed where it is None."""
    settings = yaml.safe_load((FOLDER / "mini.yaml").read_text())
    *above, last = path.split("/")
    inner = settings
    for key in above:
        inner = inner[key]
    if value is None:
        del inner[last]
    else:
        inner[last] = value
    return yaml.safe_dump(settings)


BAD = {
    "unknown key": (changed("colour", 1), "key 'colour': unknown"),
    "missing key": (changed("seeds", None), "key 'seeds': missing or empty"),
    "empty grid": (changed("methods", {}), "key 'methods': missing or empty"),
    "wrong type": (changed("seeds", 3), "key 'seeds': 3 is not of type list"),
    "wrong seed": (changed("seeds", [0, "one"]), "key 'seeds'"),
    "seed twice": (changed("seeds", [1, 1]), "holds a seed twice"),
    "no seed at a time": (changed("seeds_per_job", 0), "key 'seeds_per_job': 0 is less than 1"),
    "unknown method": (changed("methods/magic", {}), "key 'methods.magic': unknown; known are standard, "),
    "unknown prompting": (changed("promptings/guess", {}), "key 'promptings.guess': unknown"),
    "unknown parameter": (changed("training/epoch", 3), "key 'training.epoch': 12_train_multitask has no such"),
    "parameter of one method": (changed("methods/standard/alpha", 0.5), "key 'methods.standard.alpha': 11_train"),
    "wrongly typed parameter": (changed("training/epochs", "ten"), "key 'training.epochs': 'ten' is not of type float"),
    "bool for a number": (changed("training/epochs", True), "key 'training.epochs': True is not of type float"),
    "number for a bool": (changed("students/mini-t5/random_weights", 1), "1 is not of type bool"),
    "parameter of the study": (changed("training/output", "x"), "key 'training.output': the study sets this"),
    "unknown reader": (changed("datasets/typo", {}), "key 'datasets.typo': no reader 'typo'"),
    "unknown split": (changed("datasets/mini/limits", {"tran": 5}), "key 'datasets.mini.limits': unknown split 'tran'"),
    "limit that is none": (changed("datasets/mini/limits", {"train": "all"}), "whole numbers please"),
    "unknown backend": (changed("teachers/mini-llama/backend", "magic"), "unknown 'magic'; known are hf, published"),
    "unknown quantization": (changed("teachers/mini-llama/quantization", "nf5"), "unknown 'nf5'"),
    "share above one": (changed("methods/multitask/alpha", 7.0), "7.0 is not between 0 and 1"),
    "path that is not there": (changed("students/mini-t5/model", "./nowhere"),
                               "key 'students.mini-t5.model': ./nowhere: no such file or folder"),
    "file that is not there": (changed("datasets/mini/files", {"train": "nowhere.parquet"}),
                               "key 'datasets.mini.files.train'"),
    "name that leaves the folder": (changed("students/..", {}), "key 'students...': a name of letters"),
    "parameters that are none": (changed("methods/standard", "fast"), "key 'methods.standard': parameters as a"),
    "no mapping": ("- 1\n- 2\n", "an experiment is a mapping"),
    "no YAML": ("a: [1, 2\n", "not readable YAML"),
    "key twice": ("about: a\nabout: b\n", "the key 'about' stands twice"),
    "code": ("about: !!python/object/apply:os.system ['true']\n", "not readable YAML"),
    "not text": (b"\xff\xfe\x00", "not readable YAML"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_experiment_is_one_line_exit_code_2_and_nothing_written(name, tmp_path, capsys):
    text, says = BAD[name]
    path = tmp_path / "bad.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    before = sorted((NOTEBOOKS.parent / "outputs").iterdir())
    assert main(["run", str(path)]) == 2
    error = capsys.readouterr().err.strip()
    assert error.count("\n") == 0 and str(path) in error and says in error
    assert sorted((NOTEBOOKS.parent / "outputs").iterdir()) == before


def test_an_unknown_experiment_is_named_with_those_there(capsys):
    assert main(["run", "nothing"]) == 2
    assert "no such experiment; there are: mini" in capsys.readouterr().err


@pytest.mark.parametrize("name", experiment_names())
def test_every_experiment_is_right_and_its_graph_holds(name, capsys, monkeypatch):
    monkeypatch.delenv("KDUTILS_DATA", raising=False)
    assert main(["run", name, "--dry-run"]) == 0
    out = capsys.readouterr().out
    experiment = load_experiment(name)
    assert f"{len(experiment.jobs)} jobs" in out and "comparison" in out


def test_what_follows_two_dashes_goes_to_snakemake(capsys):
    assert main(["run", "mini", "--dry-run", "--", "--until", "execute"]) == 0
    assert main(["run", "mini", "--dry-run", "--", "--no-such-option"]) == 1
    assert "no-such-option" in capsys.readouterr().err


def test_the_grid_is_complete_and_in_order():
    settings = {**MINI, "seeds": [0, 1, 2, 3, 4], "seeds_per_job": 2}
    from kdutils.experiments import make_jobs

    jobs = list(make_jobs("mini", settings))
    seen = set()
    for job in jobs:
        assert set(job.needs) <= seen
        assert set(job.parameters) <= set(notebook_parameters(job.notebook))
        seen.add(job.folder)
    trained = [(job.labels["method"], seed) for job in jobs if job.kind == "students"
               for seed in job.parameters["seeds"]]
    assert sorted(trained) == [(method, seed) for method in ("multitask", "standard") for seed in range(5)]
    assert jobs[-1].notebook == "31_compare_methods" and len(jobs[-1].parameters["evaluations"]) == 6


def test_published_cqa_names_the_published_students_and_five_seeds():
    settings = load_experiment("published-cqa").settings
    assert {student["model"] for student in settings["students"].values()} == \
        {"google/t5-v1_1-base", "google/t5-v1_1-large"}
    assert len(settings["seeds"]) == 5


def test_notebooks_have_parameters_that_papermill_can_read():
    for path in NOTEBOOKS.glob("*.ipynb"):
        found = notebook_parameters(path.stem)
        assert "output" in found and set(found.values()) <= {"str", "int", "float", "bool", "list", "dict"}, path


def test_a_path_of_the_environment_is_checked(tmp_path, monkeypatch):
    monkeypatch.setenv("KDUTILS_DATA", str(tmp_path / "none"))
    with pytest.raises(StudyError, match="KDUTILS_DATA names .*none, which is no folder"):
        load_experiment("published-cqa-small")
