"""What the analysis of a human study shows. Tables made from simulated ratings are marked and have no p values."""

import pandas as pd

from kdutils.report.tables import show_table


def show_rated(simulated: bool, table: pd.DataFrame, caption: str, decimals: int | None = None) -> None:
    """Display a table as tables.show_table does; `simulated`: whether any of the ratings in it is simulated."""
    show_table(without_p(simulated, table), f"SIMULATED: {caption}" if simulated else caption, decimals)


def without_p(simulated: bool, table: pd.DataFrame) -> pd.DataFrame:
    """Return `table`, without its p values if ratings are simulated: then a p value says nothing about people."""
    return table.drop(columns=[name for name in table if name == "p" or name.startswith("p_")] if simulated else [])
