"""Tables of a page: rounded, aligned, escaped.

The HTML is not from pandas. ``DataFrame.to_html`` has no caption and no class per column. ``Styler`` does not escape
column names, cannot style duplicate ones, and aligns by a style sheet, which the sanitiser of the pages removes.
"""

import html
from numbers import Number
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

MARKS = {"✓": "right", "✗": "wrong"}  # how a cell begins: its class, which gives it a colour
WIDE = 8  # columns; a table with more is set smaller, so that a page of usual width holds it
LONG_TEXT = 40  # characters; a column with a longer text is set as text, a longer label in a figure is shortened


def show_table(frame: "pd.DataFrame", caption: str = "", decimals: int | None = None, folded: bool = False) -> None:
    """Display a data frame as an HTML table; every cell, name and the caption is escaped, long texts are wrapped.

    All rows are shown (pass ``frame.head(20)`` for fewer). Floats have `decimals` places, by default four significant
    digits. Missing values are a dash. The index is shown unless it only counts the rows. `folded`: only the caption is
    shown until it is opened.
    """
    from IPython.display import display

    plain = frame.to_string(index=_has_index(frame), max_colwidth=60)
    table = table_html(frame, "" if folded else caption, decimals)
    table = f"<details><summary>{html.escape(caption)}</summary>{table}</details>" if folded else table
    display({"text/html": table, "text/plain": f"{caption}\n{plain}".lstrip("\n")},
            raw=True)


def table_html(frame: "pd.DataFrame", caption: str = "", decimals: int | None = None) -> str:
    """Return the HTML of `frame` as show_table displays it."""
    columns = [_column(name, values, decimals) for name, values in _columns(frame)]
    above = f"<caption>{html.escape(caption)}</caption>" if caption else ""
    head, *rows = ("".join(cells) for cells in zip(*columns, strict=True)) if columns else [""]
    body = "\n".join(f"<tr>{row}</tr>" for row in rows)
    wide = " wide" if len(columns) > WIDE else ""
    return f'<table class="dataframe{wide}">{above}\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table>'


def duration(seconds: float) -> str:
    """Return a duration in seconds as text: 41 s, 3 min 20 s, 2 h 05 min."""
    if round(seconds) < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _column(name, values, decimals):
    """Return the cells of a column as HTML, the head first; its class says whether it is of numbers or long texts."""
    texts = [_text(value, decimals) for value in values]
    numbers = [_is_missing(value) or (isinstance(value, Number) and not isinstance(value, bool)) for value in values]
    kind, side = ("number", "right") if numbers and all(numbers) else (
        ("text", "left") if any(len(text) > LONG_TEXT for text in texts) else ("", "left"))
    head = " / ".join(map(str, name)) if isinstance(name, tuple) else str(name)
    return [_cell("th", head, kind, side, ' scope="col"'),
            *(_cell("td", text, MARKS.get(text[:1], kind), side) for text in texts)]


def _cell(tag, text, kind, side, more=""):
    look = f' class="{kind}"' if kind else ""  # the style is for a notebook that is open in Jupyter
    text = html.escape(text)
    if tag == "th":
        text = text.replace("_", "_<wbr>")  # where the name of a column may be broken
    return f'<{tag}{more}{look} style="text-align: {side}">{text}</{tag}>'


def _has_index(frame):
    import pandas as pd

    return not (isinstance(frame.index, pd.RangeIndex) and frame.index.name is None)


def _columns(frame):
    """Return (name, values) of every column, duplicates too, after the levels of an index that is shown."""
    levels = range(frame.index.nlevels) if _has_index(frame) else ()
    index = [(frame.index.names[level] or "", list(frame.index.get_level_values(level))) for level in levels]
    return index + [(name, list(frame.iloc[:, place])) for place, name in enumerate(frame.columns)]


def _is_missing(value):
    import pandas as pd

    return value is pd.NA or value is None or (pd.api.types.is_scalar(value) and pd.isna(value))


def _text(value: Any, decimals):
    """Return a cell as text; the items of a list are separated by semicolons."""
    import numpy as np

    if _is_missing(value):
        return "–"
    if isinstance(value, (float, np.floating)):
        return f"{value:.4g}" if decimals is None else f"{value:.{decimals}f}"
    if isinstance(value, (list, tuple, np.ndarray)):
        return "; ".join(_text(item, decimals) for item in value)
    return str(value)
