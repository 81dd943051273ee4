"""Settings are typed once: every parameters cell equals its model, and all faults are told at once."""

import ast
import io
import json
import re
import tokenize

import pytest

from kdutils.errors import StudyErrors
from kdutils.experiments.steps import NOTEBOOKS, SETTINGS
from kdutils.settings import Settings
from kdutils.student.settings import LmReader, TrainCombined
from kdutils.teacher.settings import ExplainContrastive, ExplainFewShot


def cell_of(notebook):
    """Return {parameter: (type, default, comment)} of a parameters cell, read with Python's own parser."""
    cells = json.loads((NOTEBOOKS / f"{notebook}.ipynb").read_text(encoding="utf-8"))["cells"]
    source = "".join(next(cell for cell in cells if "parameters" in cell["metadata"].get("tags", []))["source"])
    comments = {token.start[0]: token.string.removeprefix("# ")
                for token in tokenize.generate_tokens(io.StringIO(source).readline) if token.type == tokenize.COMMENT}
    return {node.target.id: (node.annotation.id, ast.literal_eval(node.value), comments[node.lineno])
            for node in ast.parse(source).body}


def test_every_notebook_has_a_model():
    assert {path.stem for path in NOTEBOOKS.glob("*.ipynb")} == set(SETTINGS)


@pytest.mark.parametrize("notebook", SETTINGS)
def test_a_parameters_cell_equals_its_model(notebook):
    model = SETTINGS[notebook]
    types, fields = model.types(), model.model_fields
    assert cell_of(notebook) == {name: (types[name], fields[name].default, fields[name].description)
                                 for name in fields}
    cells = json.loads((NOTEBOOKS / f"{notebook}.ipynb").read_text(encoding="utf-8"))["cells"]
    code = "".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    assert f"run = {model.__name__}.start(globals())" in code


@pytest.mark.parametrize("notebook", SETTINGS)
def test_papermill_reads_every_parameter_and_its_comment(notebook):
    from papermill import inspect_notebook

    read = inspect_notebook(str(NOTEBOOKS / f"{notebook}.ipynb"))
    assert {name: (entry["inferred_type_name"], ast.literal_eval(entry["default"]), entry["help"])
            for name, entry in read.items()} == cell_of(notebook)


@pytest.mark.parametrize("model", [*SETTINGS.values(), LmReader], ids=lambda model: model.__name__)
def test_the_defaults_of_every_model_are_right(model):
    given = {"model": "a/b"} if model is LmReader else {}
    assert model.faults({**model.defaults(), **given}) == [] and not list(model(**given).conflicts())
    assert all(field.description for field in model.model_fields.values())


def test_all_faults_are_told_at_once_with_the_key_and_what_would_be_right():
    faults = dict(TrainCombined.faults({
        "alpha": 1.5, "beta": -1, "epochs": "ten", "counterfactual_style": "x", "tensorboard": 1, "colour": 2,
        "lora": {"rank": 0}, "config": {"num_layers": -2}}))
    assert faults.pop("colour").startswith("unknown; known are model, tokenizer, kind, ")
    assert faults == {
        "alpha": "1.5 is more than 1", "beta": "-1 is less than 0", "epochs": "'ten' is not of type float",
        "counterfactual_style": "unknown 'x'; known are encoder, decoder",
        "tensorboard": "1 is not of type bool; write true or false", "lora.rank": "0 is less than 1",
        "config.num_layers": "-2 is not a whole number of at least 1"}


@pytest.mark.parametrize(("model", "values", "faults"), [
    (ExplainFewShot, {"backend": "openai", "model": "x", "quantization": "nf4"},
     [("backend", "a server decides on quantization and revision itself; leave both out")]),
    (ExplainFewShot, {"base_url": "http://localhost:1/v1"},
     [("base_url", "only a server has a base_url; set backend: openai")]),
    (ExplainContrastive, {"temperature": 0.5}, [("temperature", "contrastive decoding is greedy; set temperature: 0")]),
])
def test_what_cannot_go_together_is_told(model, values, faults):
    assert model.faults(values) == [] and list(model(**values).conflicts()) == faults


def test_a_notebook_tells_all_that_is_wrong_with_its_parameters(tmp_path):
    variables = {**TrainCombined.defaults(), "alpha": 2.0, "epochs": -1.0, "output": str(tmp_path / "run")}
    with pytest.raises(StudyErrors) as caught:
        TrainCombined.start(variables)
    assert caught.value.lines == ["14_train_combined: parameter 'epochs': -1.0 must be above 0",
                                  "14_train_combined: parameter 'alpha': 2.0 is more than 1"]
    assert str(caught.value) == "; ".join(caught.value.lines) and not (tmp_path / "run").exists()


def test_many_faults_are_counted_and_not_all_told():
    error = StudyErrors([f"fault {number}" for number in range(50)])
    assert error.lines[19:] == ["fault 19", "… and 30 more like these"]


def test_a_run_has_the_seed_of_its_settings(tmp_path):
    run = TrainCombined.start({**TrainCombined.defaults(), "seeds": [7, 8], "output": str(tmp_path / "run")})
    assert run.seed == 7 and issubclass(TrainCombined, Settings) and re.fullmatch(r"\d\d_\w+", TrainCombined.notebook)
