"""What the analysis of a human study shows. What is made from simulated ratings is marked and has no p values."""

from typing import TYPE_CHECKING

import pandas as pd

from kdutils.report.figures import COLORS, pyplot, show
from kdutils.report.tables import show_table
from kdutils.stats.estimates import p_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def show_rated(mark: str, table: pd.DataFrame, caption: str, decimals: int | None = None) -> None:
    """Display a table as tables.show_table does, p values as text; an empty one is left out.

    `mark`: human_study.ratings.mark_of, "" for ratings by people.
    """
    table = without_p(mark, table)
    if len(table):
        texts = {name: ["–" if value is None or value != value else p_text(value, "").strip().removeprefix("= ")
                        for value in table[name]] for name in _p_columns(table)}
        show_table(table.assign(**texts), f"{mark}: {caption}" if mark else caption, decimals)


def _p_columns(table):
    return [name for name in table if name == "p" or name.startswith("p_")]


def without_p(mark: str, table: pd.DataFrame) -> pd.DataFrame:
    """Return `table`, without its p values if ratings are marked: then a p value says nothing about people."""
    return table.drop(columns=_p_columns(table) if mark else [])


def marked(mark: str, table: pd.DataFrame) -> pd.DataFrame:
    """Return `table` as it is written to a file: from marked ratings without p values, with a column `mark`."""
    return without_p(mark, table).assign(mark=mark) if mark else table


def draw_means(mark: str, table: pd.DataFrame) -> "Figure":
    """Return a figure of mean ratings with their intervals, one row per construct, one colour per method.

    `table`: analysis.means_by_method. A mean of one rating has no interval.
    """
    constructs, methods = (list(dict.fromkeys(table[name])) for name in ("construct", "method"))
    figure, axis = pyplot().subplots(figsize=(8, 0.9 + len(constructs) * (0.3 + 0.16 * len(methods))))
    for number, (method, rows) in enumerate(table.groupby("method", sort=False)):
        shift = 0.16 * (number - (len(methods) - 1) / 2)
        places = [constructs.index(name) + shift for name in rows["construct"]]
        axis.hlines(places, rows["low"], rows["high"], color=f"C{number % COLORS}", linewidth=1.6)
        axis.plot(rows["mean"], places, "os^Dv"[number % 5], color=f"C{number % COLORS}", label=method)
    axis.set_yticks(range(len(constructs)), constructs)
    axis.set_ylim(len(constructs) - 0.4, -0.6)
    axis.grid(False, axis="y")
    axis.set_xlabel("mean rating in points, with 95 % interval")
    axis.set_title(f"{mark}: mean ratings" if mark else "Mean ratings")
    axis.legend(title="method", loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def show_means(mark: str, table: pd.DataFrame) -> None:
    """Display draw_means with its alternative text; nothing without a rating."""
    if len(table):
        last = table[table["construct"] == table["construct"].iloc[-1]]
        values = ", ".join(f"{row.method} {row.mean:.2f}" for row in last.itertuples())
        show(draw_means(mark, table), f"{mark + '. ' if mark else ''}Mean ratings with intervals. "
                                      f"{last['construct'].iloc[0]}: {values}.")
