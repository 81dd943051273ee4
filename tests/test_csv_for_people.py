"""Tables that people open in a spreadsheet: nothing in them runs, numbers stay numbers, texts come back."""

import csv
import json
import os
import re

import numpy as np
import pandas as pd
import pytest

from kdutils.comparison import runs_table
from kdutils.human_study.design import Study
from kdutils.human_study.forms import write_study
from kdutils.human_study.plan import draw_plan, read_plan
from kdutils.runs import PROJECT, escape_cell, read_csv, unescape_cell, write_csv
from tests.test_degenerate_ratings import documents, run_notebook, small_plan, write_documents
from tests.test_human_study import texts_for

FORMULAS = ["=1+1", "+1-1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", " =1", "'=1", "''=1", "\uff1d1", "\ufeff=1",
            "=cmd|' /C calc'!A0", "- a list", "+49 30 1", "-", "="]
TEXTS = ["a", "", "'", "'a", "a=1", "1", "-3", "+2.5", "-1e-05", "-0,5", "a\nb", "a\tb", "שלום", "😀",
         'a"b,c;d', "12 -3"]


def cells(path):
    """Return every cell of a CSV but those that are numbers."""
    with open(path, encoding="utf-8", newline="") as file:
        found = [cell for row in csv.reader(file) for cell in row]
    return [cell for cell in found if not re.fullmatch(r"[-+]?\d+([.,]\d+)?(e[-+]?\d+)?", cell)]


def harmless(path):
    """Say whether no cell is one that OWASP's list of CSV injection names, or holds a control character."""
    return not [cell for cell in cells(path) if cell.lstrip()[:1] in tuple("=+-@") or cell[:1] in ("\t", "\r", "\n")
                or re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", cell)]


def test_what_a_spreadsheet_would_run_is_a_text_and_comes_back(tmp_path):
    frame = pd.DataFrame({"=name": FORMULAS, "@number": np.linspace(-1, 1, len(FORMULAS)), "b": [None] * len(FORMULAS)})
    path = write_csv(tmp_path / "new" / "a.csv", frame)
    assert harmless(path) and not list(path.parent.glob(".*"))
    back = read_csv(path)
    assert list(back.columns) == list(frame.columns) and back["@number"].dtype == float
    expected = [text.replace("\r", "\n") for text in FORMULAS]
    assert [text.lstrip("\ufeff") for text in back["=name"]] == [text.lstrip("\ufeff") for text in expected]
    assert (back["@number"] == frame["@number"]).all() and back["b"].isna().all()


def test_numbers_stay_numbers_and_plain_texts_stay_as_they_are(tmp_path):
    frame = pd.DataFrame({"d": [-0.3, np.nan, 2.0], "n": pd.array([-1, None, 3], "Int64"), "t": [True, False, True],
                          "mixed": [-5, None, "-x"], "part": pd.Categorical(["-a", "b", "-a"])})
    text = write_csv(tmp_path / "a.csv", frame).read_bytes()
    assert text == b"d,n,t,mixed,part\n-0.3,-1,True,-5,'-a\n,,False,,b\n2.0,3,True,'-x,'-a\n"
    assert write_csv(tmp_path / "b.csv", frame.copy()).read_bytes() == text
    assert [escape_cell(value) for value in TEXTS] == TEXTS
    assert write_csv(tmp_path / "c.csv", pd.DataFrame()).read_text() == "\n"
    indexed = pd.DataFrame({("a", "=b"): [1]}, index=["-r"])
    assert write_csv(tmp_path / "d.csv", indexed, index=True).read_text().splitlines()[-1] == "'-r,1"
    assert harmless(tmp_path / "d.csv")


def test_any_text_comes_back():
    generator = np.random.default_rng(5)
    signs = list("'=+-@\t\n 1a3.,e") + ["\uff1d", "\ufeff", "😀", "\u202e"]
    for _ in range(20_000):
        text = "".join(generator.choice(signs, generator.integers(0, 7)))
        written = escape_cell(text)
        assert unescape_cell(written) == text and written in (text, f"'{text}")
    assert escape_cell("a\x00b\x1b[31m\r\nc\ud800") == "a\ufffdb\ufffd[31m\nc\ufffd"


def test_a_file_that_cannot_be_written_whole_is_the_old_one(tmp_path, monkeypatch):
    path = write_csv(tmp_path / "a.csv", pd.DataFrame({"a": [1]}))
    monkeypatch.setattr(os, "fsync", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError):
        write_csv(path, pd.DataFrame({"a": [2]}))
    assert path.read_text() == "a\n1\n" and [item.name for item in tmp_path.iterdir()] == ["a.csv"]


def test_every_csv_is_written_by_one_function():
    sources = {path: path.read_text(encoding="utf-8") for path in (PROJECT / "kdutils").rglob("*.py")}
    for path in (PROJECT / "notebooks").glob("*.ipynb"):
        found = json.loads(path.read_text(encoding="utf-8"))["cells"]
        sources[path] = "\n".join("".join(cell["source"]) for cell in found if cell["cell_type"] == "code")
    written = re.compile(r"\.to_csv\(|csv\.writer|DictWriter|\.to_excel\(|to_clipboard|pyarrow\.csv|pa\.csv")
    places = {path.name: len(written.findall(text)) for path, text in sources.items() if written.search(text)}
    assert places == {"runs.py": 1}
    assert sum("write_csv(" in text for text in sources.values()) >= 6


def test_the_tables_of_the_analysis_hold_no_formula_of_a_rater(tmp_path):
    path, plan = small_plan(tmp_path)
    found = documents(plan)
    for document, about in zip(found.values(), FORMULAS, strict=False):
        document["about"] = {"country": about, "age": "-1+cmd|' /C calc'!A0"}
    folder = write_documents(tmp_path / "back", found)
    (folder / "=HYPERLINK(1).json").write_text("{")
    (folder / "@x.csv").write_text("rater,text,plausibility\n=1+1,-2+3,4\n")
    run_notebook("23_analyse_human_study", tmp_path, ratings=[str(folder)], plan=str(path))
    tables = sorted((tmp_path / "run").glob("*.csv"))
    assert [table.name for table in tables] == ["problems.csv", "raters.csv", "tests.csv", "validity.csv"]
    assert all(map(harmless, tables))
    assert {"=HYPERLINK(1).json", "@x.csv"} <= set(read_csv(tables[0])["file"])
    assert "-1+cmd|' /C calc'!A0" in set(read_csv(tables[1])["about_age"])


def test_the_plan_and_the_survey_hold_no_formula_of_a_text(tmp_path):
    texts = texts_for(4, 2, text="=1+1\x00 {answer}")
    texts["choices"] = [["=a", "-b", "@c"]] * len(texts)
    texts["question"] = ["=" + name for name in texts["question"]]
    plan = write_study(tmp_path, Study("s"), draw_plan(Study("s"), texts, 4, 4, 2), texts)
    assert harmless(tmp_path / "key" / "plan.csv") and harmless(tmp_path / "survey" / "survey.csv")
    pd.testing.assert_frame_equal(read_plan(tmp_path / "key" / "plan.csv"), plan)


def test_ids_that_look_like_formulas_join_again(tmp_path):
    ids = ["=1+1", "-x", "'@y", "plain"]
    scores = pd.DataFrame({"id": ids, "seed": 0, "words": [1, 2, 3, 4]})
    overlaps = pd.DataFrame({"id": ids, "seed": 0, **{name: [0.1, 0.2, 0.3, 0.4] for name in runs_table.OVERLAPS}})
    write_csv(tmp_path / "explanation_scores.csv", scores)
    write_csv(tmp_path / "attribution_overlap.csv", overlaps)
    (tmp_path / "metrics.json").write_text(json.dumps({"labels": {"dataset": "d"}}))
    table = runs_table.read_scores([str(tmp_path)])
    assert list(table["id"]) == ids and list(table[runs_table.OVERLAPS[0]]) == [0.1, 0.2, 0.3, 0.4]
