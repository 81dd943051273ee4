"""The answer at one look (comparison.answer), as it is shown by notebook 31 and by the start page of an experiment."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from kdutils.report.safe_html import environment
from kdutils.report.tables import table_html

FIGURE = "differences.png"  # in the folder of a comparison: the figure of the start page
COLUMNS = {"who": "student", "answer": "answer", "explanation": "explanation", "true": "what it says"}
NARROW = 4.5  # inches: a figure beside sentences, and readable on a phone


def look_html(statements: Sequence[Mapping[str, Any]], figure: Path | str, about: str) -> Markup:
    """Return the statements of comparison.answer.statements as HTML, with the picture in the file `figure` beside them.

    `about`: the alternative text of the figure; without one there is no figure. Every text is escaped.
    """
    return Markup(_macros().look(_macros().statements(statements), picture(figure) if about else "", about))


def picture(path: Path | str) -> str:
    """Return a PNG file as an address that holds all of it, "" where there is none."""
    path = Path(path)
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}" if path.is_file() else ""


def example_rows(example: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return the rows of comparison.answer.example; one without an answer, the teacher's, says what it explains."""
    return [{**row, "answer": f"explains {example['answer']}"} if row.get("answer") == "–" else row
            for row in example["rows"]]


def example_html(example: Mapping[str, Any]) -> Markup:
    """Return what comparison.answer.example found as HTML: a question and a table of answers and explanations."""
    rows = pd.DataFrame(example_rows(example))
    rows = rows[[name for name in COLUMNS if name in rows]].rename(columns=COLUMNS)
    return Markup(_macros().example(example, Markup(table_html(rows))))


def limits_html(limits: Sequence[str]) -> Markup:
    """Return the sentences of comparison.answer.limits as an HTML list."""
    return Markup(_macros().limits(limits))


def show_html(html: Markup) -> None:
    """Display what a function of this module returned in a notebook."""
    from IPython.display import display

    display({"text/html": str(html), "text/plain": " ".join(html.striptags().split())}, raw=True)


def _macros():
    return environment().get_template("answer.html.j2").module
