"""A wrong value in a notebook is the same line as in an experiment file, before anything is done or written."""

import json

import pytest

from kdutils.errors import StudyErrors
from kdutils.experiments.execution import run_notebook
from kdutils.experiments.grid import Job
from kdutils.experiments.steps import NOTEBOOKS, SETTINGS

# What is wrong for a parameter of each type, whatever its bounds.
WRONG = {"str": [3, None, ["a"]], "int": ["many", 2.5, True, -7, None], "float": ["many", True, -7.0, float("nan")],
         "bool": ["yes", 1], "list": ["a", {}, None, [None]], "dict": ["a", ["a"], {"": 1}, {"a": {1, 2}}]}
BY_NAME = {"seeds": [[], [1, 1], ["0"], [-1]], "measure": ["lass"], "epochs": ["many", -1, -1.0], "output": [""],
           "split": ["tests"], "backend": ["openia"], "evaluations": [[], [3]], "trainings": [[]],
           "questions": ["", []], "splits": [["trian"]], "missing": [[3]],
           "simulator": [{"nope": 1}, {"model": "a/b", "epochs": -1}],
           "attribution": ["salience"], "tag": ["behind"], "request": [{"messages": []}], "lora": [{"rank": 0}]}


def code_cells(notebook):
    """Return the sources of a notebook's code cells, and the place of its parameters among them."""
    cells = [cell for cell in json.loads((NOTEBOOKS / f"{notebook}.ipynb").read_text())["cells"]
             if cell["cell_type"] == "code"]
    place = next(at for at, cell in enumerate(cells) if "parameters" in cell["metadata"].get("tags", []))
    return ["".join(cell["source"]) for cell in cells], place


def started(notebook, changes, output):
    """Run the first cells of a notebook with changed parameters; return what its settings say of them, line by line."""
    sources, place = code_cells(notebook)
    variables = {}
    exec(sources[place], variables)
    assert set(changes) <= set(variables)
    variables |= {"output": str(output), **changes}
    with pytest.raises(StudyErrors) as caught:
        exec(sources[place + 1], variables)
    return caught.value.lines


def wrong_values(notebook):
    """Yield (parameter, wrong value) for every parameter of a notebook."""
    for name, kind in SETTINGS[notebook].types().items():
        yield from ((name, value) for value in [*WRONG[kind], *BY_NAME.get(name, [])])


@pytest.mark.parametrize("notebook", SETTINGS)
def test_every_wrong_value_in_a_notebook_is_one_clear_line(notebook, tmp_path):
    model, seen = SETTINGS[notebook], set()
    for name, value in wrong_values(notebook):
        lines = started(notebook, {name: value}, tmp_path / "run")
        assert len(lines) == 1 and lines[0].startswith(f"{notebook}: parameter '{name}"), (name, value, lines)
        assert "\n" not in lines[0] and len(lines[0]) < 600
        faults = model.faults({name: value})
        assert not faults or lines == [f"{notebook}: parameter '{key}': {what}" for key, what in faults]
        seen.add(name)
    assert seen == set(model.model_fields) and not (tmp_path / "run").exists()


@pytest.mark.parametrize("notebook", SETTINGS)
def test_nothing_runs_before_the_parameters_are_checked(notebook):
    sources, place = code_cells(notebook)
    statements = [line for line in sources[place + 1].splitlines() if line and not line.startswith("#")]
    assert place == 0 and all(line.startswith("from kdutils.") for line in statements[:-1])
    assert statements[-1] == f"run = {SETTINGS[notebook].__name__}.start(globals())"


@pytest.mark.parametrize(("notebook", "changes", "line"), [
    ("12_train_multitask", {"seeds": []}, "parameter 'seeds': [] is empty"),
    ("12_train_multitask", {"epochs": "many"}, "parameter 'epochs': 'many' is not of type float"),
    ("12_train_multitask", {"epochs": -1}, "parameter 'epochs': -1 must be above 0"),
    ("31_compare_methods", {"measure": "lass"},
     "parameter 'measure': 'lass' is not a measure such as words, names_answer, rouge_l_teacher, las, qbe or "
     "overlap_gain"),
    ("21_evaluate_student", {"simulator": {"model": "a/b", "epochs": 0}},
     "parameter 'simulator.epochs': 0 must be above 0"),
    ("01_look_at_the_data", {"output": ""}, "parameter 'output': '' is empty")])
def test_the_values_that_users_tried(notebook, changes, line, tmp_path):
    assert started(notebook, changes, tmp_path / "run") == [f"{notebook}: {line}"]


def test_executed_by_papermill_the_line_is_the_reason_and_misspelt_parameters_are_named(tmp_path):
    job = Job("students", "students/x", "12_train_multitask", {"epoch": 3, "epochs": "many", "seeds": [],
                                                               "output": str(tmp_path / "run")})
    reason = run_notebook(job, tmp_path)
    assert reason.startswith("StudyErrors: 12_train_multitask: parameter 'epoch': unknown; known are model, ")
    assert reason.endswith("12_train_multitask: parameter 'epochs': 'many' is not of type float; 12_train_multitask: "
                           "parameter 'seeds': [] is empty")
    assert not (tmp_path / "run").exists()
