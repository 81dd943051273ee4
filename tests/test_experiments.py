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
    "unknown method": (changed("methods/magic", {}), "key 'methods.magic': unknown; known are label_only, "),
    "unknown prompting": (changed("promptings/guess", {}), "key 'promptings.guess': unknown"),
    "unknown parameter": (changed("training/epoch", 3), "has no such parameter; it has"),
    "parameter of one method": (changed("methods/standard/alpha", 0.5), "key 'methods.standard.alpha': 11_train"),
    "wrongly typed parameter": (changed("training/epochs", "ten"), "key 'training.epochs': 'ten' is not of type float"),
    "bool for a number": (changed("training/epochs", True), "key 'training.epochs': True is not of type float"),
    "number for a bool": (changed("students/mini-t5/random_weights", 1), "1 is not of type bool"),
    "parameter of the study": (changed("training/output", "x"), "key 'training.output': the study sets this"),
    "unknown reader": (changed("datasets/typo", {}), "key 'datasets.typo': no reader 'typo'"),
    "unknown split": (changed("datasets/mini/limits", {"tran": 5}), "key 'datasets.mini.limits': unknown split 'tran'"),
    "limit that is none": (changed("datasets/mini/limits", {"train": "all"}), "'all' is not a whole number of"),
    "unknown backend": (changed("teachers/mini-llama/backend", "magic"),
                        "unknown 'magic'; known are hf, openai, published"),
    "transfer to nowhere": (changed("transfer", ["moon"]), "key 'transfer': 'moon' is not among"),
    "promptings that are no list": (changed("teachers/mini-llama/promptings", "few_shot"), "is not of type list"),
    "prompting of another experiment": (changed("methods/standard/promptings", ["contrastive"]),
                                        "key 'methods.standard.promptings': 'contrastive' is not among"),
    "unknown parameter of a teacher's training": (changed("teachers/mini-t5-tuned/finetune/alpha", 0.5),
                                                  "key 'teachers.mini-t5-tuned.finetune.alpha': 10_train_label_only"),
    "parameter of another prompting": (changed("promptings/few_shot/rounds", 2), "02_explain_few_shot has no such"),
    "unknown quantization": (changed("teachers/mini-llama/quantization", "nf5"), "unknown 'nf5'"),
    "share above one": (changed("methods/multitask/alpha", 7.0), "7.0 is not between 0 and 1"),
    "path that is not there": (changed("students/mini-t5/model", "./nowhere"),
                               "key 'students.mini-t5.model': ./nowhere: no such file or folder"),
    "file that is not there": (changed("datasets/mini/files", {"train": "nowhere.parquet"}),
                               "key 'datasets.mini.files.train'"),
    "name that leaves the folder": (changed("students/..", {}), "key 'students...': a name may contain only letters"),
    "parameters that are none": (changed("methods/standard", "fast"), "key 'methods.standard': must be a mapping of"),
    "rationales of nowhere": (changed("methods/multitask", {"as": "shuffled", "rationales_of": "moon"}),
                              "key 'methods.multitask.rationales_of': 'moon' is not among this experiment's data sets"),
    "rationales of no name": (changed("methods/multitask", {"as": "shuffled", "rationales_of": 3}),
                              "key 'methods.multitask.rationales_of': 3 is not of type str"),
    "rationales of the only data set": (changed("methods/multitask", {"as": "shuffled", "rationales_of": "mini"}),
                                        "'mini' is the only data set; there is no other one"),
    "rationales for a method": (changed("methods/multitask/rationales_of", "mini"),
                                "key 'methods.multitask.rationales_of': the control 'shuffled' alone takes"),
    "a path of the study": (changed("methods/multitask", {"as": "shuffled", "other_explanations": "x"}),
                            "key 'methods.multitask.other_explanations': the study sets this"),
    "reader without a model": (changed("evaluation", {"reader": {"epochs": 2.0}}),
                               "key 'evaluation.reader': reader: it needs a model"),
    "reader of no kind": (changed("evaluation", {"reader": {"model": "kdutils/mini/student", "depth": 2}}),
                          "key 'evaluation.reader': reader: unknown 'depth'"),
    "reader of a wrong type": (changed("evaluation", {"reader": {"model": "kdutils/mini/student", "epochs": "two"}}),
                               "key 'evaluation.reader.epochs': 'two' is not of type float"),
    "reader that is not there": (changed("evaluation", {"reader": {"model": "./nowhere"}}),
                                 "key 'evaluation.reader.model': ./nowhere: no such file or folder"),
    "method of another experiment": (changed("students/mini-t5/methods", ["magic"]),
                                     "key 'students.mini-t5.methods': 'magic' is not among this experiment's methods"),
    "method without a student": (changed("students/mini-t5/methods", ["label_only"]),
                                 "key 'methods.combined': no student learns by it"),
    "methods that are none": (changed("students/mini-t5/methods", []), "key 'students.mini-t5.methods': empty; leave"),
    "methods that are no names": (changed("students/mini-t5/methods", [["a"]]), "['a']' is not among"),
    "a classifier that is to write": (changed("students/mini-t5/kind", "classifier"), "a classifier cannot write"),
    "no word to look for": (changed("evaluation/attributed_words", 0), "0 is less than 1"),
    "reader that is not trained": (changed("evaluation", {"reader": {"model": "kdutils/mini/student", "epochs": -1.0}}),
                                   "key 'evaluation.reader.epochs': -1.0 must be above 0"),
    "reader of an unknown kind": (changed("evaluation", {"reader": {"model": "kdutils/mini/student", "kind": "foo"}}),
                                  "key 'evaluation.reader': reader: kind: unknown 'foo'"),
    "no mapping": ("- 1\n- 2\n", "an experiment is a mapping"),
    "no YAML": ("a: [1, 2\n", "not readable YAML"),
    "key twice": ("about: a\nabout: b\n", "line 2: duplicate key 'about'"),
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


@pytest.mark.parametrize("name", ["/models/Llama-3.1-8B-Instruct", "accounts/x/models/y", "./model", "~x/y", "a/b:c@d"])
def test_the_name_of_a_served_model_is_not_taken_for_a_path(name, tmp_path):
    path = tmp_path / "served.yaml"
    served = {"backend": "openai", "model": name, "promptings": ["few_shot", "critique_revision", "counterfactual"]}
    path.write_text(changed("teachers/mini-llama", served))
    asked = [job.parameters["model"] for job in load_experiment(path).jobs
             if job.kind == "explanations" and job.labels["teacher"] == "mini-llama"]
    assert asked == [name] * 3
    path.write_text(changed("teachers/mini-llama", {**served, "backend": "hf", "model": "./nowhere/at/all"}))
    with pytest.raises(StudyError, match="no such file or folder"):
        load_experiment(path)


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
    trained = [(job.labels["method"], job.labels["prompting"], seed) for job in jobs if job.kind == "students"
               for seed in job.parameters["seeds"]]
    cells = {(method, prompting) for method in MINI["methods"]
             for prompting in MINI["methods"][method].get("promptings", ["-"])}
    assert sorted(trained) == sorted((*cell, seed) for cell in cells for seed in range(5))
    assert jobs[-1].notebook == "31_compare_methods" and len(jobs[-1].parameters["evaluations"]) == 3 * len(cells)
    explained = [job.folder for job in jobs if job.kind == "explanations"]
    report = next(job for job in jobs if job.kind == "report")
    assert [path.removeprefix("outputs/mini/") for path in report.parameters["explained"]] == explained
    assert len(explained) == len(MINI["promptings"]), "each by the teachers that are asked for it, and by no other"


def test_a_teacher_that_the_study_fine_tunes_is_trained_first_and_then_attributed():
    jobs = {job.folder: job for job in load_experiment("mini").jobs}
    tokens = jobs["explanations/mini/mini-t5-tuned/tokens"]
    assert "teachers/mini/mini-t5-tuned" in tokens.needs
    assert tokens.parameters["model"] == "outputs/mini/teachers/mini/mini-t5-tuned/seed-0"
    assert jobs["teachers/mini/mini-t5-tuned"].notebook == "10_train_label_only"


@pytest.mark.parametrize(("promptings", "method", "says"), [
    ({"counterfactual": {}}, "multitask", "'methods.multitask': no teacher has explanations for it"),
    ({"few_shot": {}}, "combined", "'methods.combined': it needs explanations of wrong answers"),
])
def test_a_method_without_what_it_learns_from_is_refused(promptings, method, says, tmp_path):
    path = tmp_path / "wrong.yaml"
    small = {key: value for key, value in MINI.items() if key != "human_study"}
    path.write_text(yaml.safe_dump({**small, "teachers": {"mini-llama": {}}, "promptings": promptings,
                                    "methods": {method: {}}}))
    with pytest.raises(StudyError, match=says):
        load_experiment(path)


def test_methods_get_the_explanations_that_they_read():
    jobs = {job.folder: job for job in load_experiment("mini").jobs}
    plain = jobs["students/mini/label_only/mini-t5/seeds-0-1-2"]
    assert "explanations" not in plain.parameters and plain.labels["prompting"] == "-"
    wrong = "outputs/mini/explanations/mini/mini-llama/counterfactual/explanations.parquet"
    for folder, job in jobs.items():
        if job.kind == "students" and job.labels["method"] in ("counterfactual", "combined", "untagged"):
            assert job.parameters["counterfactuals"] == wrong and job.parameters["explanations"] != wrong, folder
            assert job.parameters["explanations"].endswith(f"{job.labels['prompting']}/explanations.parquet")
        elif job.kind == "students":
            assert "counterfactuals" not in job.parameters, folder


def test_a_control_gets_the_rationales_of_another_data_set_and_has_no_cell_there():
    jobs = {job.folder: job for job in load_experiment("published-all").jobs}
    below, root = "few_shot/shuffled-esnli/t5-v1.1-base/seeds-0", "outputs/published-all"
    train = jobs[f"students/cqa/llama-2-13b/{below}"]
    assert train.notebook == "16_train_shuffled" and "rationales_of" not in train.parameters
    assert train.parameters["explanations"] == f"{root}/explanations/cqa/llama-2-13b/few_shot/explanations.parquet"
    other = "explanations/esnli/llama-2-13b/few_shot"
    assert train.parameters["other_explanations"] == f"{root}/{other}/explanations.parquet"
    assert train.parameters["other_questions"] == f"{root}/data/esnli/questions.parquet"
    assert {other, "data/esnli"} <= set(train.needs)
    assert f"evaluations/strategyqa/llama-2-13b/{below}" in jobs
    assert f"students/esnli/llama-2-13b/{below}" not in jobs, "there the plain control is the one"
    plain = jobs["students/esnli/llama-2-13b/few_shot/shuffled/t5-v1.1-base/seeds-0"]
    assert "other_explanations" not in plain.parameters and "data/cqa" not in plain.needs
    seen = set()
    for folder, job in jobs.items():
        assert set(job.needs) <= seen and set(job.parameters) <= set(notebook_parameters(job.notebook)), folder
        seen.add(folder)


def test_a_student_learns_by_the_methods_that_it_names_alone():
    from kdutils.experiments import make_jobs

    students = {**MINI["students"], "chooser": {"model": "kdutils/mini/student", "methods": ["label_only"]}}
    trained = [job for job in make_jobs("mini", {**MINI, "students": students}) if job.kind == "students"]
    assert [job.labels["method"] for job in trained if job.labels["student"] == "chooser"] == ["label_only"]
    assert {job.labels["method"] for job in trained if job.labels["student"] == "mini-t5"} == set(MINI["methods"])
    assert not any("methods" in job.parameters for job in trained)


def test_a_changed_limit_is_in_the_planned_cost_before_the_data_are_made_again(tmp_path, monkeypatch):
    from kdutils.data.readers import limit_questions, read_questions
    from kdutils.data.tables import write_table
    from kdutils.experiments import DATA, notebook_defaults, planned_cost
    from kdutils.runs import write_json

    monkeypatch.setenv("KDUTILS_STORE", str(tmp_path / "store.sqlite"))
    path = tmp_path / "small.yaml"
    path.write_text(changed("datasets/mini/limits", {"train": 3, "dev": 2, "test": 1}))
    experiment = load_experiment(path)
    data, job = (next(job for job in experiment.jobs if job.kind == kind) for kind in ("data", "explanations"))
    folder = tmp_path / "data"
    folder.mkdir()
    job.parameters["questions"] = str(folder / "questions.parquet")
    table = limit_questions(read_questions("mini"), {"train": 1, "dev": 1, "test": 1}, 0)
    write_table(table, folder / "questions.parquet", "questions")
    given = {**notebook_defaults(DATA), **data.parameters}
    for limits, asked in (({"train": 1, "dev": 1, "test": 1}, 6), (data.parameters["limits"], 3)):
        write_json(folder / "run.json", {"parameters": {**given, "limits": limits}})
        assert planned_cost(experiment, job).to_ask == asked, limits


def test_one_prompting_in_several_forms_has_a_name_for_each(tmp_path):
    jobs = {job.folder: job for job in load_experiment("tokens-ablation").jobs}
    three = jobs["explanations/cqa/flan-t5-xl/saliency-3"]
    assert three.notebook == "05_explain_tokens" and three.parameters["k"] == 3 and "as" not in three.parameters
    assert jobs["explanations/cqa/flan-t5-xl/random-5"].parameters["attribution"] == "random"


def test_tiny_keeps_the_grid_and_changes_models_and_sizes(monkeypatch):
    monkeypatch.delenv("KDUTILS_DATA", raising=False)
    for name in experiment_names():
        whole, small = load_experiment(name), load_experiment(name, tiny=True)
        assert small.name == f"{name}-tiny" and small.folder != whole.folder
        cells = [{(job.kind, job.notebook, *sorted((key, value) for key, value in job.labels.items() if key != "seeds"))
                  for job in one.jobs} for one in (whole, small)]
        assert cells[0] == cells[1], name
        for job in small.jobs:
            model = job.parameters.get("model", "")
            assert not model or "tiny-models" in model or model.startswith(("kdutils/mini", "outputs/")), model


def test_tiny_makes_the_reader_of_explanations_tiny_too():
    from kdutils.student.simulator import check_reader
    from kdutils.tiny import tiny

    small = tiny({**MINI, "evaluation": {"reader": {"model": "google/t5-v1_1-base", "epochs": 9.0}}})["evaluation"]
    check_reader(small["reader"])
    assert small["reader"]["model"] == "kdutils/mini/student" and small["reader"]["epochs"] == 1.0
    assert small["reader"]["random_weights"] and tiny(MINI)["evaluation"].get("reader", {}) == {}
    chooser = {"model": "sentence-transformers/all-MiniLM-L6-v2", "kind": "classifier"}
    check_reader(tiny({**MINI, "evaluation": {"reader": chooser}})["evaluation"]["reader"])


def test_published_cqa_names_the_published_students_cells_and_five_seeds():
    settings = load_experiment("published-cqa").settings
    assert {student["model"] for student in settings["students"].values()} == \
        {"google/t5-v1_1-base", "google/t5-v1_1-large"}
    assert len(settings["seeds"]) == 5
    cells = {(job.labels["method"], job.labels["prompting"]) for job in load_experiment("published-cqa").jobs
             if job.kind == "students"}
    assert {(method, prompting) for method in ("multitask", "counterfactual", "combined")
            for prompting in ("few_shot", "critique_revision")} <= cells


def test_notebooks_have_parameters_that_papermill_can_read():
    for path in NOTEBOOKS.glob("*.ipynb"):
        found = notebook_parameters(path.stem)
        assert "output" in found and set(found.values()) <= {"str", "int", "float", "bool", "list", "dict"}, path


def test_a_path_of_the_environment_is_checked(tmp_path, monkeypatch):
    monkeypatch.setenv("KDUTILS_DATA", str(tmp_path / "none"))
    with pytest.raises(StudyError, match="KDUTILS_DATA names .*none, which is no folder"):
        load_experiment("published-cqa-small")
