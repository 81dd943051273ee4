"""The notebooks of the promptings: each shows its own question, and what they share is in the package."""

import json
import re
import subprocess
import sys
from types import SimpleNamespace

import pandas as pd
import pytest

from kdutils.data.tables import read_split, read_table
from kdutils.report.explanations import show_cleaning, show_examples, show_notes, show_quality, show_question
from kdutils.runs import PROJECT, read_json
from kdutils.teacher.choices import BACKENDS, PROMPTINGS
from kdutils.teacher.explaining import PROMPTED, explain, write_explanations
from kdutils.teacher.prompting import FOLDER
from kdutils.teacher.quality import explanation_metrics

NOTEBOOKS = PROJECT / "notebooks"
EXAMPLE = PROJECT / "kdutils/mini/example"
ASKING = [entry.notebook for entry in PROMPTINGS.values() if entry.function]


def cells(name, kind):
    notebook = json.loads((NOTEBOOKS / f"{name}.ipynb").read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in notebook["cells"]
            if cell["cell_type"] == kind and "parameters" not in cell["metadata"].get("tags", [])]


def test_the_notebooks_that_ask_a_teacher_share_little_code():
    lines = [{line.strip() for source in cells(name, "code") for line in source.splitlines() if line.strip()}
             for name in ASKING]
    shared = set.intersection(*lines)
    assert len(shared) <= 22, sorted(shared)  # once 40


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("0[2-79]_*.ipynb")), ids=lambda path: path.stem)
def test_what_to_read_next_exists_and_learns_from_these_explanations(path):
    named = re.findall(r"`(\d\d_\w+)`", cells(path.stem, "markdown")[-1])
    assert named and all((NOTEBOOKS / f"{name}.ipynb").is_file() for name in named)
    assert path.stem not in named
    if path.stem == PROMPTINGS["tokens"].notebook:
        assert "15_train_token_rationale" in named


def test_every_prompting_has_its_notebook_its_prompts_and_its_function():
    assert list(PROMPTED) == [name for name, entry in PROMPTINGS.items() if entry.prompt_files]
    for name, entry in PROMPTINGS.items():
        labels = next(line for line in json.loads((NOTEBOOKS / f"{entry.notebook}.ipynb").read_text())["cells"][1][
            "source"] if line.startswith("labels"))
        assert f'"prompting": "{name}"' in labels
        assert entry.backends and set(entry.backends) <= set(BACKENDS)
        assert all((FOLDER / "mini" / f"{file}.txt").is_file() for file in entry.prompt_files), name
    assert [name for name, entry in PROMPTINGS.items() if not entry.teaches] == ["counterfactual", "soft_labels"]


def test_the_choices_of_an_experiment_are_imported_without_anything_heavy():
    code = ("import sys, kdutils.teacher.choices; "
            "print([name for name in ('torch', 'transformers', 'pandas', 'pyarrow') if name in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PROJECT)
    assert done.stdout.strip() == "[]"


def test_the_explanations_of_the_example_have_the_metrics_that_were_written(tmp_path):
    given, texts = read_json(EXAMPLE / "explanations/run.json")["parameters"], EXAMPLE / "explanations"
    questions = read_split(given["questions"], given["splits"])
    explanations = read_table(texts / "explanations.parquet", "explanations").astype({"round": "int64"})
    found = explanation_metrics(explanations, questions, given)
    written = read_json(texts / "metrics.json")
    assert set(written) == {*found, "files", "agrees_with_gold", "without_rationale", "train_questions"}
    for key in ("labels", "dataset", "backend", "texts", "unusable", "exactly_right"):
        assert found[key] == written[key], key
    stored = write_explanations(explanations, questions, tmp_path / "explanations.parquet")
    pd.testing.assert_frame_equal(stored, explanations, check_dtype=False)
    with pytest.raises(AssertionError):
        write_explanations(explanations, questions.head(3), tmp_path / "explanations.parquet")


@pytest.mark.parametrize(("notebook", "stage"), [("02_explain_few_shot", "rationale"),
                                                 ("03_explain_critique_revision", "revision")])
def test_the_questions_without_a_rationale_are_counted(notebook, stage):
    """By hand, of the five of train: b has a text for a wrong answer, d an unusable one, e none. c is right once."""
    table = pd.DataFrame({"id": list("abcdef"), "question": "?", "choices": [["x", "y"]] * 6, "answer": "x",
                          "split": ["train"] * 5 + ["test"]})
    rows = [("a", "x", "It is x."), ("b", "y", "It is y."), ("c", "y", "It is y."), ("c", "x", "It is x."),
            ("d", "x", None)]
    given = [("rationale", 0, *row) for row in ([(key, "x", "It is x.") for key in "abcdef"] if stage == "revision"
                                                else [])]
    stored = pd.DataFrame([*given, *((stage, int(stage == "revision"), *row) for row in rows)],
                          columns=["stage", "round", "id", "answer", "text"])
    (source,) = [one for one in cells(notebook, "code") if "learnt_metrics" in one]
    found = {"stored": stored, "table": table, "metrics": {}, "revised": pd.DataFrame(),
             "run": SimpleNamespace(finish=lambda metrics: metrics)}
    exec(compile(source, notebook, "exec"), found)
    assert found["metrics"] | {"revision_changes": 0} == {
        "agrees_with_gold": 3 / 5, "without_rationale": 3, "train_questions": 5, "revision_changes": 0}


def test_texts_of_a_teacher_are_shown_escaped(questions, monkeypatch):
    from test_explaining import PARAMETERS, Scripted

    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, **_: shown.append(data["text/html"]))
    table = questions[0].head(4).reset_index(drop=True)
    made = explain(table, "few_shot", PARAMETERS, Scripted(lambda prompt: " <b>A cow</b> moos. It has run"))
    for show in (show_examples, show_question):
        show(made, table, 0)
    show_cleaning(made)
    metrics = explanation_metrics(made, table, {**PARAMETERS, "labels": {}})
    show_quality(metrics["raw"], metrics["quality"])
    page = "".join(shown)
    assert "&lt;b&gt;A cow&lt;/b&gt;" in page and "<b>" not in page
    assert "unfinished_removed" in page and "answer followed" in page and len(shown) == 5


def test_what_is_known_of_published_texts_is_printed(capsys):
    table = pd.DataFrame()
    table.attrs = {"caution": "a defect", "content": {"x": "as published"}}
    show_notes(table)
    assert capsys.readouterr().out == "Caution: a defect\nContent: x as published\n"
