"""The primary questions of a report and the contrasts that answer them. The experiment file names both before a run.

A family of six or fewer contrasts per data set and student is corrected by Holm's method. All other comparisons are
exploratory (hypotheses). With every comparison in one family, a report could show hardly any difference.
"""

from collections.abc import Callable, Collection, Iterator

import pandas as pd

from kdutils.comparison.runs_table import BASELINE, CELL, PROBABLE, UNEXPLAINED, add_names, in_domain
from kdutils.errors import StudyError

MOST_PRIMARY = 6
MINUS = " minus "  # in a contrast that an experiment writes out, "multitask (few_shot) minus label_only"
SAME_TEXTS = ("untagged",)  # controls that change the tags; the explanations are those of the method


def primary_contrasts(cells: pd.DataFrame, wanted: list[str],
                      known: Collection[str] = ()) -> list[tuple[str, tuple, tuple]]:
    """Return (question, first cell, second cell) for each data set and student: at most MOST_PRIMARY of each.

    `cells` has the columns CELL, kind and control_of. `wanted`: names of QUESTIONS, or contrasts written out as "first
    minus second" with names as in the tables (runs_table.add_names). A returned cell is a tuple in the order of CELL.
    Where a teacher wrote both revised and unrevised explanations, the unrevised ones are compared; of several teachers
    the first. A question compares cells of the same protocol (column `protocol`, if there is one); a contrast that is
    written out may compare two. A method minus its control has the question ``content``, also when it is written out.
    `known`: names of further cells, which have no result: their contrasts are left out. Raises StudyError for an
    unknown name, and for more than MOST_PRIMARY contrasts if some are written out.
    """
    found, named = [], in_domain(add_names(cells)).drop_duplicates(CELL)
    for one in wanted:
        if one not in QUESTIONS:
            _check_written_out(one, {*named["name"], *known})
    for _, group in named.groupby(["dataset", "student"], sort=False):
        rows, family = group.to_dict("records"), []
        for one in wanted:
            if one in QUESTIONS:
                family += [(one, key_of(first), key_of(second)) for part in by_protocol(rows)
                           for first, second in QUESTIONS[one](part)]
            else:
                family += [("content" if _is_content(first, second) else one, key_of(first), key_of(second))
                           for first, second in _written_out(one, rows)]
        unique = {frozenset(contrast[1:]): contrast for contrast in reversed(family)}
        if len(unique) > MOST_PRIMARY and not set(wanted) <= set(QUESTIONS):
            raise StudyError(f"primary: {len(unique)} contrasts of {rows[0]['dataset']}, {rows[0]['student']}; at most "
                             f"{MOST_PRIMARY} are tested as planned ones, so leave {len(unique) - MOST_PRIMARY} out")
        found += list(reversed(unique.values()))[:MOST_PRIMARY]
    return found


def by_protocol(rows: list[dict]) -> list[list[dict]]:
    """Return rows in lists of the same protocol, in order of appearance."""
    parts = {}
    for row in rows:
        parts.setdefault(row.get("protocol", "fair"), []).append(row)
    return list(parts.values())


def key_of(row: dict) -> tuple:
    """Return the cell of a row as a tuple in the order of CELL."""
    return tuple(row[key] for key in CELL)


def nearest_baseline(row: dict, baselines: list[dict]) -> dict:
    """Return the label_only row with the teacher and prompting of `row` if there is one, else the first."""
    return next((one for one in baselines if alike(row, one, "teacher", "prompting")), baselines[0])


def alike(first: dict, second: dict, *keys: str) -> bool:
    """Return whether two rows have the same values under all `keys`."""
    return all(first[key] == second[key] for key in keys)


def _distilled(rows):
    """Return the methods with explanations that are no control, those on unrevised explanations first."""
    methods = [row for row in rows if row["kind"] not in UNEXPLAINED and not row["control_of"]]
    return sorted(methods, key=lambda row: row["prompting"] == "critique_revision")


def _first_of(rows, *kinds):
    return [next(row for row in rows if row["kind"] == kind) for kind in kinds if kind in {one["kind"] for one in rows}]


def _explaining(rows) -> Iterator[tuple[dict, dict]]:
    baselines, methods = [row for row in rows if row["kind"] == BASELINE], _distilled(rows)
    methods = [row for row in methods if row["kind"] not in PROBABLE]
    chosen = _first_of(methods, "multitask", "combined") or methods[:2]
    yield from ((row, nearest_baseline(row, baselines)) for row in chosen if baselines)


def _content(rows) -> Iterator[tuple[dict, dict]]:
    for control in rows:
        of_same = [row for row in _distilled(rows) if _is_content(row, control)]
        yield from ((row, control) for row in of_same[:1])


def _is_content(method, control):
    """Return whether `control` has no other difference from `method` than what its explanations say."""
    return control["kind"] not in SAME_TEXTS and is_control(control, method)


def is_control(control: dict, method: dict) -> bool:
    """Return whether a row is the control of another one: the same texts and settings, but for what the control is.

    The rows have the keys of CELL, kind, control_of and, if they are known, protocol and settings
    (student.settings.chosen_settings); settings that only one of the two methods takes may differ.
    """
    both = [row.get("settings") or {} for row in (control, method)]
    return (control["control_of"] == method["kind"] and alike(method, control, "teacher", "prompting")
            and method.get("protocol", "fair") == control.get("protocol", "fair")
            and all(both[0][key] == both[1][key] for key in both[0].keys() & both[1].keys()))


def _revision(rows) -> Iterator[tuple[dict, dict]]:
    pairs = [(row, plain) for row in _distilled(rows) for plain in _distilled(rows)
             if (row["prompting"], plain["prompting"]) == ("critique_revision", "few_shot")
             and alike(row, plain, "teacher", "method")]
    pairs.sort(key=lambda pair: pair[0]["kind"] != "multitask")
    yield from pairs[:1]


def _counterfactual(rows) -> Iterator[tuple[dict, dict]]:
    both = _first_of(_distilled(rows), "multitask", "counterfactual")
    if len(both) == 2 and alike(*both, "teacher", "prompting"):
        yield tuple(both)


QUESTIONS: dict[str, Callable] = {
    "explaining": _explaining, "content": _content, "revision": _revision, "counterfactual": _counterfactual}


def _check_written_out(contrast, names):
    parts = contrast.split(MINUS)
    unknown = [name for name in parts if name not in names]
    if len(parts) != 2 or unknown:
        raise StudyError(f"primary: '{contrast[:100]}' is neither one of {', '.join(QUESTIONS)} nor 'first minus "
                         f"second' with two of these cells: {', '.join(sorted(names))}")


def _written_out(contrast, rows):
    of_name = {row["name"]: row for row in rows}
    pair = [of_name.get(name) for name in contrast.split(MINUS)]
    return [pair] if all(pair) else []
