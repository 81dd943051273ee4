"""What the analysis of a human study shows. What is made from simulated ratings is marked and has no p values."""

from typing import TYPE_CHECKING

import pandas as pd

from kdutils.report.figures import COLORS, show
from kdutils.report.tables import show_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def show_rated(simulated: bool, table: pd.DataFrame, caption: str, decimals: int | None = None) -> None:
    """Display a table as tables.show_table does; `simulated`: whether any of the ratings in it is simulated."""
    show_table(without_p(simulated, table), f"SIMULATED: {caption}" if simulated else caption, decimals)


def without_p(simulated: bool, table: pd.DataFrame) -> pd.DataFrame:
    """Return `table`, without its p values if ratings are simulated: then a p value says nothing about people."""
    return table.drop(columns=[name for name in table if name == "p" or name.startswith("p_")] if simulated else [])


def marked(simulated: bool, table: pd.DataFrame) -> pd.DataFrame:
    """Return `table` as it is written to a file: from simulated ratings without p values, with a column `simulated`."""
    return without_p(simulated, table).assign(simulated=True) if simulated else table


def draw_means(simulated: bool, table: pd.DataFrame) -> "Figure":
    """Return a figure of mean ratings with their intervals, one row per construct, one colour per method.

    `table`: analysis.means_by_method. A mean of one rating has no interval.
    """
    from matplotlib import pyplot

    constructs, methods = (list(dict.fromkeys(table[name])) for name in ("construct", "method"))
    figure, axis = pyplot.subplots(figsize=(8, 0.9 + len(constructs) * (0.3 + 0.16 * len(methods))))
    for number, (method, rows) in enumerate(table.groupby("method", sort=False)):
        shift = 0.16 * (number - (len(methods) - 1) / 2)
        places = [constructs.index(name) + shift for name in rows["construct"]]
        axis.hlines(places, rows["low"], rows["high"], color=f"C{number % COLORS}", linewidth=1.6)
        axis.plot(rows["mean"], places, "os^Dv"[number % 5], color=f"C{number % COLORS}", label=method)
    axis.set_yticks(range(len(constructs)), constructs)
    axis.set_ylim(len(constructs) - 0.4, -0.6)
    axis.grid(False, axis="y")
    axis.set_xlabel("mean rating in points, with 95 % interval")
    axis.set_title("SIMULATED: ratings of simulated raters" if simulated else "Mean ratings")
    axis.legend(title="method", loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def show_means(simulated: bool, table: pd.DataFrame) -> None:
    """Display draw_means with its alternative text; nothing without a rating."""
    if len(table):
        last = table[table["construct"] == table["construct"].iloc[-1]]
        values = ", ".join(f"{row.method} {row.mean:.2f}" for row in last.itertuples())
        mark = "SIMULATED. " if simulated else ""
        show(draw_means(simulated, table), f"{mark}Mean ratings with intervals. {last['construct'].iloc[0]}: {values}.")
