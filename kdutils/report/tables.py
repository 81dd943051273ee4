"""Tables of a page: rounded, aligned, escaped."""

import html
import math

LONG_TEXT = 40  # characters from which a column gets the width of a text


def show_table(frame, caption="", decimals=None):
    """Display a data frame as an HTML table: every cell, name and the caption escaped, long text wrapped.

    All rows are shown (pass ``frame.head(20)`` for fewer); floats get `decimals` places, by default four
    significant digits; missing values are a dash. The index is shown unless it only counts the rows.
    """
    from IPython.display import display

    plain = frame.to_string(index=_has_index(frame), max_colwidth=60)
    display({"text/html": table_html(frame, caption, decimals), "text/plain": f"{caption}\n{plain}".lstrip("\n")},
            raw=True)


def table_html(frame, caption="", decimals=None):
    """Return the HTML of `frame` as show_table displays it."""
    columns = [_Column(name, values, decimals) for name, values in _columns(frame)]
    head = "".join(column.head() for column in columns)
    rows = "\n".join("<tr>" + "".join(column.cell(row) for column in columns) + "</tr>" for row in range(len(frame)))
    above = f"<caption>{html.escape(caption)}</caption>" if caption else ""
    return f'<table class="dataframe">{above}\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody></table>'


class _Column:
    """One column of a table: its cells as text, and whether they are numbers, words or long texts."""

    def __init__(self, name, values, decimals):
        self.name = " / ".join(map(str, name)) if isinstance(name, tuple) else str(name)
        self.texts = [_text(value, decimals) for value in values]
        numbers = [_is_number(value) or _is_missing(value) for value in values]
        self.kind = "number" if numbers and all(numbers) else (
            "text" if any(len(text) > LONG_TEXT for text in self.texts) else "")

    def head(self):
        return f"<th{self._attributes()}>{html.escape(self.name)}</th>"

    def cell(self, row):
        return f"<td{self._attributes()}>{html.escape(self.texts[row])}</td>"

    def _attributes(self):
        name = f' class="{self.kind}"' if self.kind else ""
        side = "right" if self.kind == "number" else "left"
        return f'{name} style="text-align: {side}"'  # the style is for a notebook that is open in Jupyter


def _has_index(frame):
    import pandas as pd

    return not (isinstance(frame.index, pd.RangeIndex) and frame.index.name is None)


def _columns(frame):
    """Return (name, list of values) of the index levels that say something and of every column, duplicates too."""
    levels = range(frame.index.nlevels) if _has_index(frame) else ()
    index = [(frame.index.names[level] or "", list(frame.index.get_level_values(level))) for level in levels]
    return index + [(name, list(frame.iloc[:, place])) for place, name in enumerate(frame.columns)]


def _is_number(value):
    import numbers

    return isinstance(value, numbers.Number) and not isinstance(value, bool)


def _is_missing(value):
    import pandas as pd

    return value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and math.isnan(value))


def _text(value, decimals):
    """Return a cell as text; the items of a list are set apart by semicolons."""
    import numpy as np

    if _is_missing(value):
        return "–"
    if isinstance(value, (float, np.floating)):
        return f"{value:.4g}" if decimals is None else f"{value:.{decimals}f}"
    if isinstance(value, (list, tuple, np.ndarray)):
        return "; ".join(_text(item, decimals) for item in value)
    return str(value)
