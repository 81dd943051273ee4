"""The analysis of ratings ends well whatever came back: what can be computed is, the rest is a sentence."""

import contextlib
import io
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kdutils import stats
from kdutils.errors import StudyError
from kdutils.evaluation import analysing
from kdutils.evaluation import ratings as reading
from kdutils.evaluation.human_study import CONSTRUCTS, Study, canonical, checksum, draw_plan, read_plan, write_plan
from kdutils.evaluation.validating import metric_validity, text_measures, without_validity
from kdutils.runs import PROJECT
from tests.test_human_study import texts_for

KEY = PROJECT / "kdutils" / "mini" / "example" / "human_study" / "key"
RATED = [*CONSTRUCTS, "quality"]


def run_notebook(name, folder, **parameters):
    """Run the cells of a notebook in this process with other parameters; return (its variables, what it printed)."""
    from IPython.display import display

    cells = json.loads((PROJECT / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    variables, printed = {"display": display}, io.StringIO()
    with contextlib.redirect_stdout(printed):
        for cell in cells:
            if cell["cell_type"] == "code":
                exec(compile("".join(cell["source"]), name, "exec"), variables)
                if "parameters" in cell["metadata"].get("tags", []):
                    unknown = set(parameters) - set(variables)
                    assert not unknown, unknown
                    variables.update(parameters, output=str(folder / "run"))
    return variables, printed.getvalue()


def documents(plan, score=None):
    """Return {rater: an answer file of the form}, checks passed; `score`: (rater, text, construct) to a score."""
    found = {}
    for number, (rater, pages) in enumerate(plan.groupby("rater")):
        answers = []
        for page in pages.sort_values("position").to_dict("records"):
            scores = {name: int(page["expected"]) if page["is_check"] else 1 + (place * 7 + number * 3 + len(
                page["text"]) + ord(page["text"][0]) + ord(page["text"][1]) * place) % 5
                      for place, name in enumerate(CONSTRUCTS)}
            if score and not page["is_check"]:
                scores = {name: score(rater, page["text"], name) for name in CONSTRUCTS}
            answers.append({"position": page["position"], "text": page["text"], "scores": scores,
                            "milliseconds": 1000})
        found[rater] = {"format": reading.FORMAT, "study": plan["study"].iloc[0], "version": plan["version"].iloc[0],
                        "task": "rating", "rater": rater, "complete": True, "signed": True, "about": {},
                        "answers": answers}
    return found


def write_documents(folder, found):
    folder.mkdir(parents=True, exist_ok=True)
    for rater, document in found.items():
        content = {name: value for name, value in document.items() if name != "checksum"}
        (folder / f"{rater}.json").write_text(json.dumps({**content, "checksum": checksum(canonical(content))}))
    return folder


def small_plan(folder, n_methods=2, raters=4, items=4, each=2):
    """Write the key of a small study and return its path and plan."""
    texts = texts_for(raters * items // (each * n_methods), n_methods)
    plan = draw_plan(Study("s"), texts, raters, items, each, checks=1).assign(version="v")
    write_plan(folder / "key", plan)
    texts.to_parquet(folder / "key" / "texts.parquet")
    return folder / "key" / "plan.parquet", plan


def nothing(folder, plan):
    folder.mkdir()


def failing(folder, plan):
    found = documents(plan)
    for document in found.values():
        for answer in document["answers"]:
            if answer["text"] in set(plan.loc[plan["is_check"], "text"]):
                answer["scores"] = {name: 1 + value % 5 for name, value in answer["scores"].items()}
    write_documents(folder, found)


def unfinished(folder, plan):
    write_documents(folder, {rater: {**document, "complete": False} for rater, document in documents(plan).items()})


def of_raters(count, **options):
    return lambda folder, plan: write_documents(folder, dict(list(documents(plan, **options).items())[:count]))


def other_plan(folder, plan):
    write_documents(folder, documents(plan.assign(study="another")))
    (folder / "a.json").write_text("no JSON")
    (folder / "b.csv").write_bytes(b"\xff\x00\x81")


CASES = {  # what came back: (sizes of the study, who writes it, a sentence of the notebook, ratings that are used)
    "nothing": ({}, nothing, "nothing came (4)", 0),
    "all fail the attention check": ({}, failing, "failed attention check (4)", 0),
    "all unfinished": ({}, unfinished, "unfinished (4)", 0),
    "another study and broken files": ({}, other_plan, "another study (4)", 0),
    "one rater": ({}, of_raters(1), "The mixed model needs two raters or more; there is one.", 4),
    "two raters": ({}, of_raters(2), "2 of 4 raters and 8 ratings are used.", 8),
    "equal ratings": ({}, of_raters(4, score=lambda *page: 4), "every rating is 4", 16),
    "one rating that differs": ({}, of_raters(4, score=lambda rater, text, name: 3 + (text < "c")), "", 16),
    "one method": ({"n_methods": 1, "items": 2}, of_raters(4), "needs two methods or more with ratings", 8),
    "one rating per text": ({"each": 1}, of_raters(4),
                            "Agreement needs at least two raters per text; there is one.", 16),
    "one page per rater": ({"items": 2, "raters": 2, "each": 1}, of_raters(2), "The mixed model", 4),
}


@pytest.mark.parametrize("case", CASES)
def test_the_notebook_ends_well_whatever_came_back(tmp_path, case):
    sizes, write, sentence, used = CASES[case]
    path, plan = small_plan(tmp_path, **sizes)
    write(tmp_path / "back", plan)
    found, printed = run_notebook("23_analyse_human_study", tmp_path, ratings=[str(tmp_path / "back")], plan=str(path))
    assert sentence in printed, printed[-3000:]
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["ratings"] == used == len(found["wide"])
    assert all(line.endswith(".") and line.isprintable() and len(line) < 400 for line in metrics["lacking"])
    assert bool(used) == bool(len(found["table"]))
