"""Checks of the arguments of this package. Each raises StudyError and says which argument is wrong and how."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from kdutils.errors import StudyError


def column_list(names: str | Iterable[str]) -> list[str]:
    """Return `names` as a list; a string is one name."""
    return [names] if isinstance(names, str) else list(names)


def checked_table(table: pd.DataFrame, numbers: Iterable[str],
                  labels: Iterable[str]) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Return (table with the columns `numbers` as floats, {column of `labels`: codes in order of appearance}).

    All numbers must be finite, and no label may be missing.
    """
    lacking = [name for name in [*numbers, *labels] if name not in table]
    if lacking:
        raise StudyError(f"no column {', '.join(map(repr, lacking))} in a table of {', '.join(map(str, table))}")
    if not len(table):
        raise StudyError("the table has no rows")
    data = table.reset_index(drop=True)
    for name in numbers:
        data[name] = pd.to_numeric(data[name], errors="coerce").astype(float)
        if not np.isfinite(data[name]).all():
            raise StudyError(f"{int((~np.isfinite(data[name])).sum())} of {len(data)} values of {name!r} are missing "
                             "or not a finite number")
    for name in labels:
        if data[name].isna().any():
            raise StudyError(f"{int(data[name].isna().sum())} of {len(data)} rows have no {name!r}")
    return data, {name: pd.factorize(data[name])[0] for name in labels}


def checked_groups(table: pd.DataFrame, value: str, group: str | Iterable[str], least: int = 1, groups: int = 2,
                   varying: bool = False) -> dict[str, np.ndarray]:
    """Return {group: values} in order of appearance: at least `groups` groups of at least `least` values each.

    If `group` is several columns, a group is named by its labels, joined. `varying`: the values must not be all equal.
    """
    columns = column_list(group)
    data, _ = checked_table(table, [value], columns)
    names = data[columns[0]] if len(columns) == 1 else data[columns].astype(str).agg(" × ".join, axis=1)
    by_name = {name: values.to_numpy() for name, values in data.groupby(names, sort=False, observed=True)[value]}
    if len(by_name) < groups:
        raise StudyError(f"{len(by_name)} group of {' × '.join(columns)}: {groups} are needed for a comparison")
    small = [str(name) for name, values in by_name.items() if len(values) < least]
    if small:
        raise StudyError(f"fewer than {least} values of {value!r} in {', '.join(small)}")
    if varying and np.ptp(data[value]) == 0:
        raise StudyError(f"every {value!r} is the same: ranks cannot be compared")
    return by_name


def checked_floats(values: ArrayLike | pd.DataFrame | pd.Series, name: str) -> np.ndarray:
    """Return `values` as an array of floats, NaN where one is missing."""
    try:
        return (values.to_numpy(float, na_value=np.nan) if isinstance(values, pd.DataFrame | pd.Series)
                else np.asarray(values, dtype=float))
    except (TypeError, ValueError):
        raise StudyError(f"{name}: some values are not numbers, or the rows differ in length") from None


def checked_numbers(values: ArrayLike, name: str, least: int = 1) -> np.ndarray:
    """Return a list of at least `least` finite numbers as an array."""
    values = checked_floats(values, name)
    if values.ndim != 1 or len(values) < least:
        raise StudyError(f"{name}: a list of {least} or more numbers is needed, not {values.size}")
    if not np.isfinite(values).all():
        raise StudyError(f"{name}: {int((~np.isfinite(values)).sum())} of {len(values)} are missing or not finite")
    return values


def checked_pairs(first: ArrayLike, second: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return two lists of finite numbers of the same length as arrays."""
    first, second = checked_numbers(first, "first"), checked_numbers(second, "second")
    if len(first) != len(second):
        raise StudyError(f"not the same questions: {len(first)} and {len(second)}")
    return first, second


def checked_finite(value: float, name: str) -> float:
    """Return a number that must not be NaN or infinite."""
    if not np.isfinite(value):
        raise StudyError(f"{name} is not defined on these values")
    return float(value)


def checked_choice(name: str, value: str, allowed: Iterable[str]) -> None:
    """Raise StudyError unless the argument `name` has one of the allowed values."""
    if value not in allowed:
        raise StudyError(f"{name} is {value!r}; it must be one of {', '.join(allowed)}")
