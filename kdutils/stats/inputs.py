"""Checks of what the functions of this package are given; each raises StudyError and says what is wrong."""

import numpy as np
import pandas as pd

from kdutils.errors import StudyError


def column_list(names):
    return [names] if isinstance(names, str) else list(names)


def checked_table(table, numbers, labels):
    """Return the table, its columns of numbers as floats, and {label: codes in order of appearance}; both checked."""
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
                             "or no finite number")
    for name in labels:
        if data[name].isna().any():
            raise StudyError(f"{int(data[name].isna().sum())} of {len(data)} rows have no {name!r}")
    return data, {name: pd.factorize(data[name])[0] for name in labels}


def checked_groups(table, value, group, least=1, groups=2, varying=False):
    """Return {name: values} in order of appearance; the name of a cell of several columns joins their labels."""
    columns = column_list(group)
    data, _ = checked_table(table, [value], columns)
    names = data[columns[0]] if len(columns) == 1 else data[columns].astype(str).agg(" × ".join, axis=1)
    found = {name: values.to_numpy() for name, values in data.groupby(names, sort=False, observed=True)[value]}
    if len(found) < groups:
        raise StudyError(f"{len(found)} group of {' × '.join(columns)}: {groups} are needed to compare")
    small = [str(name) for name, values in found.items() if len(values) < least]
    if small:
        raise StudyError(f"fewer than {least} values of {value!r} in {', '.join(small)}")
    if varying and np.ptp(data[value]) == 0:
        raise StudyError(f"every {value!r} is the same: there are no ranks to compare")
    return found


def checked_floats(values, name):
    try:
        return (values.to_numpy(float, na_value=np.nan) if isinstance(values, pd.DataFrame | pd.Series)
                else np.asarray(values, dtype=float))
    except (TypeError, ValueError):
        raise StudyError(f"{name}: not all of it is numbers, or the rows differ in length") from None


def checked_numbers(values, name, least=1):
    values = checked_floats(values, name)
    if values.ndim != 1 or len(values) < least:
        raise StudyError(f"{name}: a list of {least} or more numbers is needed, not {values.size}")
    if not np.isfinite(values).all():
        raise StudyError(f"{name}: {int((~np.isfinite(values)).sum())} of {len(values)} are missing or not finite")
    return values


def checked_pairs(first, second):
    first, second = checked_numbers(first, "first"), checked_numbers(second, "second")
    if len(first) != len(second):
        raise StudyError(f"not the same questions: {len(first)} and {len(second)}")
    return first, second


def checked_finite(value, name):
    if not np.isfinite(value):
        raise StudyError(f"{name} is not defined on these values")
    return float(value)


def checked_choice(name, value, allowed):
    if value not in allowed:
        raise StudyError(f"{name} is {value!r}; it is one of {', '.join(allowed)}")
