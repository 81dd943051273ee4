"""The sentences of a report, and its tests as tables and as rows of a figure.

Here are the numbers and the decisions; the wording is in summary.txt.j2. Every sentence gives the difference, its 95 %
interval and p, corrected within its family (hypotheses). Only a corrected p below hypotheses.LEVEL is called a
difference. With one seed a test compares two students, and the sentence says so.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import pandas as pd

from kdutils.comparison.hypotheses import equivalent, significant, with_control
from kdutils.comparison.published_accuracies import QUESTIONS
from kdutils.comparison.runs_table import add_names, in_domain, student_label
from kdutils.comparison.wording import say, signed, wording
from kdutils.evaluation.settings import PROXIES, TRUTH
from kdutils.stats.estimates import p_text

MOST = 12  # sentences of a summary
P_NAMES = {"primary": "corrected p", "exploratory": "q", "plausibility": "p, one by one"}
FEW_SEEDS = 5  # with fewer, a summary says how little they can show
PAIRS = ("primary", "methods", "control", "protocol")  # in these, first and second are both named
ONE_SECOND = ("label_only", "chance", "las", "published")  # in these comparisons the second is always the same


def _say(statement, **facts):
    return say("summary", statement, **facts)


def tables_of_tests(tests: pd.DataFrame, margin: float = 0.02) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield (caption, table) per data set, student and comparison; differences of accuracy are in percentage points.

    `margin`: the smallest difference of interest with which `tests` were made (hypotheses.run_tests). A column with
    one value in all rows is in the caption or left out.
    """
    smaller = f"smaller than {100 * margin:g} points, p"
    for (dataset, student, comparison), rows in tests.groupby(["dataset", "student", "comparison"], sort=False):
        table = pd.DataFrame([{
            "measure": row["measure"], "first": row["first"], "second": row["second"],
            "difference": _cell(row["value"]), "95 % interval": _cell(row["interval"]), "p": _cell(p_text(row["p"])),
            P_NAMES[row["family"]]: _cell(row["p_corrected_text"]),
            smaller: _cell(p_text(row["p_equivalent"])) if row["family"] == "primary" else "",
            "detectable": signed(100 * row["detectable"], 1) if row["detectable"] == row["detectable"] else "",
            "seeds": row["n_seeds"],
            "McNemar, p per seed": "; ".join(_cell(p_text(p)) for p in row["mcnemar"])
            if isinstance(row["mcnemar"], list) else ""} for row in describe(rows)])
        hidden = [name for name in ("seeds", "measure") if table[name].nunique() == 1]
        hidden += ["second"] if comparison in ONE_SECOND else []
        hidden += [name for name in ("McNemar, p per seed", smaller, "detectable")
                   if not table[name].any()]
        yield (f"{wording('summary').heads[comparison]}: {student_label(dataset, student)} ({_size(rows)})",
               table.drop(columns=hidden))


def _cell(text):
    """Return a number or p value for a cell of a table, where it must not be broken over two lines."""
    return text.removeprefix("p ").removeprefix("q ").removeprefix("= ").replace(" ", "\N{NO-BREAK SPACE}")


def figure_rows(tests: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of figures.difference_intervals for differences of accuracy, in points, without chance."""
    rows = tests[tests["measure"].isin(["accuracy", "exact"]) & (tests["comparison"] != "chance")]
    points = {name: 100 * rows[name].astype(float) for name in ("difference", "low", "high")}
    labels = [_pair(row) if row["comparison"] in PAIRS else row["first"]
              for row in rows.to_dict("records")]
    return pd.DataFrame({"dataset": rows["dataset"], "student": rows["student"], "label": labels, **points,
                         "group": rows["comparison"].map(wording("summary").heads), "significant": significant(rows)})


def summarise(accuracies: pd.DataFrame, tests: pd.DataFrame, runs: pd.DataFrame, missing: Sequence[str | dict] = (),
              published: pd.DataFrame | None = None, margin: float = 0.02, measures: pd.DataFrame | None = None,
              teachers: pd.DataFrame | None = None, fakes: pd.DataFrame | None = None) -> list[str]:
    """Return at most MOST sentences, the most important first; the tables have all tests.

    `accuracies`: tables.accuracy_table. `tests`, `margin`: hypotheses.run_tests. `runs` and `missing`: see
    runs_table.read_evaluations. `published`: published_accuracies.published_table. `measures`:
    runs_table.read_measures; `teachers`: the cleaned texts of teacher.quality.read_reports. The last two say whether
    explanations are true, where that can be checked. `fakes`: runs_table.read_fakes.
    """
    students = [(student_label(*student), add_names(cells),
                 tests[(tests[["dataset", "student"]] == list(student)).all(axis=1)])
                for student, cells in in_domain(accuracies).groupby(["dataset", "student"], sort=False)]
    statements = [text for state in (_best, _not_above_chance, _primary) for place, cells, rows in students
                  for text in state(place, cells[cells["mean"].notna()], rows, margin)]
    statements += _truth(measures, teachers)
    statements += _proxies(measures, teachers)
    for state in (_revised_explanations, partial(_simulatability, measures=measures), _exploratory):
        statements += [text for place, cells, rows in students for text in state(place, cells, rows, fakes)]
    statements += [text for place, _, rows in students for text in _published(place, rows, published)]
    last = _cautions(tests, runs, missing)
    if len(statements) > MOST - len(last):
        kept = MOST - len(last) - 1
        last.insert(0, _say("further", statements=len(statements) - kept))
        statements = statements[:kept]
    return statements + last


def _of(rows, comparison):
    return rows[rows["comparison"] == comparison]


def _best(place, cells, rows, margin):
    """State the highest mean accuracy, or that no cell is above chance, where the order of the means says nothing."""
    if cells.empty:
        return [_say("no_result", place=place)]
    chances = {row["first"]: row for row in describe(_of(rows, "chance"))}
    above = [name for name, row in chances.items() if row["significant"] and row["higher"]]
    cell = cells.loc[cells["mean"].idxmax()].to_dict()
    if cell["mean"] == 0 or chances and not above:
        return [_say("none_above_chance", place=place, cell=cell, cells=len(cells), chance=chances.get(cell["name"]))]
    alike = int((cells["mean"] > cell["mean"] - 1e-12).sum())
    return [_say("best", place=place, cell=cell, cells=len(cells), alike=alike, chance=chances.get(cell["name"]))]


def _not_above_chance(place, cells, rows, margin):
    """State the cells that are not above chance, without the best one, which has its own statement."""
    chances = {row["first"]: row for row in describe(_of(rows, "chance"))}
    others = cells.drop(index=cells["mean"].idxmax()).to_dict("records") if len(cells) else []
    weak = [(cell, test) for cell in others if (test := chances.get(cell["name"]))
            and not (test["significant"] and test["higher"])]
    return [_say("not_above_chance", place=place, chance=weak[0][0]["chance"], cells=weak)] if weak else []


def _primary(place, cells, rows, margin):
    """State the answer to each primary question."""
    primary, known = _of(rows, "primary"), {cell["name"]: cell for cell in cells.to_dict("records")}
    return [_say("primary", place=place, question=question, size=_size(part),
                 rows=[row | {"outside": outside(known[row["first"]], known[row["second"]])} for row in describe(part)],
                 margin=100 * margin, one_seed=(part["n_seeds"] < 2).all(), family=len(primary))
            for question, part in primary.groupby("question", sort=False)]


def outside(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Return what a difference of two cells (tables.accuracy_table) owes to answers that are none of the choices.

    "" where their shares of such answers differ by less than a point, and where a likelihood was not measured.
    """
    known = [cell[key] for cell in (one, other) for key in ("no_choice", "likelihood")]
    if any(value is None or value != value for value in known) or abs(known[0] - known[2]) < 0.01 - 1e-9:
        return ""
    return _say("outside", one=one, other=other)


def _truth(measures, teachers):
    """State how many explanations are wholly true, of each cell and of the teachers."""
    return [_say("truth", place=student_label(*student), **shares)
            for student, shares in true_shares(measures, teachers).items()]


def true_shares(measures: pd.DataFrame | None, teachers: pd.DataFrame | None) -> dict[tuple[str, str], dict]:
    """Return {(dataset, student): {cells, unread, teachers}}, {} where truth was not measured.

    cells: dicts of name and the measures of TRUTH (means over seeds), the most true first. unread: names of the cells
    most of whose texts make no statement that can be read, such as lists of words; these are neither true nor false.
    teachers: the shares of wholly true texts of the teachers. All shares are of the texts that state something.
    """
    if measures is None or "wholly_true" not in set(measures["measure"]):
        return {}
    known, shares = add_names(in_domain(measures[measures["measure"].isin(TRUTH)])), {}
    for (dataset, student), rows in known.groupby(["dataset", "student"], sort=False):
        means = rows.pivot_table(index="name", columns="measure", values="value").reindex(
            columns=list(TRUTH)).sort_values("wholly_true", ascending=False)
        unread = means["true_share"].isna() | (means["states_facts"] < 0.5)
        own = _of_teachers(teachers, dataset, "wholly true")
        own = own[_of_teachers(teachers, dataset, "true statements").reindex(own.index).notna()]
        shares[dataset, student] = {"cells": means[~unread].reset_index().to_dict("records"),
                                    "unread": list(means.index[unread]), "teachers": list(own)}
    return shares


def _proxies(measures, teachers):
    """State the proxies of truth by rule, of the cells and the teachers of a data set without known facts."""
    return [_say("proxies", place=student_label(*student), cells=cells,
                 teachers=list(_of_teachers(teachers, student[0], "contradicted")))
            for student, cells in proxy_shares(measures).items()]


def proxy_shares(measures: pd.DataFrame | None) -> dict[tuple[str, str], list[dict]]:
    """Return {(dataset, student): its cells}, with the means of the proxies of truth where facts are not known.

    A cell is a dict of name and the measures of PROXIES; that whose texts argue least for another choice is first.
    """
    if measures is None:
        return {}
    known, shares = add_names(in_domain(measures)), {}
    for student, rows in known.groupby(["dataset", "student"], sort=False):
        if {"wholly_true"} & set(rows["measure"]) or "argues_for_other" not in set(rows["measure"]):
            continue
        means = rows[rows["measure"].isin(PROXIES)].pivot_table(index="name", columns="measure", values="value")
        means = means.dropna(subset="argues_for_other").sort_values("argues_for_other")  # lists of words have none
        shares[student] = means.reset_index().to_dict("records")
    return shares


def _of_teachers(teachers, dataset, column):
    """Return a column of the teachers' texts on a data set, without the rows that have no value of it."""
    if teachers is None or column not in teachers:
        return pd.Series(dtype=float)
    return teachers.loc[teachers["dataset"] == dataset, column].dropna()


def _exploratory(place, cells, rows, fakes):
    """State how many of the other comparisons of accuracies show a difference, and the largest ones."""
    rows = rows[(rows["family"] == "exploratory") & (rows["measure"] == "accuracy")]
    if rows.empty:
        return []
    largest_first = rows.reindex(rows["difference"].abs().sort_values(ascending=False, kind="stable").index)
    described = [row | {"label": _pair(row)} for row in describe(_higher_first(largest_first))]
    return [_say("exploratory", place=place, size=_size(rows), rows=described,
                 differ=[row for row in described if row["significant"]], one_seed=(rows["n_seeds"] < 2).all())]


def _simulatability(place, cells, rows, fakes, measures=None):
    found, repeats = simulatability(rows, dict(zip(cells["name"], cells["kind"], strict=True)), fakes, measures)
    below = repeats is not None and all(row["difference"] <= repeats for row in found)
    return [_say("simulatability", place=place, rows=found, below=below,
                 repeats="" if repeats is None else signed(repeats, 3))] if found else []


def simulatability(rows: pd.DataFrame, kinds: Mapping[str, str], fakes: pd.DataFrame | None,
                   measures: pd.DataFrame | None = None) -> tuple[list[dict], float | None]:
    """Return (LAS of each method beside that of its control, LAS of a text that only repeats the answer).

    Nothing is claimed for a LAS unless it is above 0 and its interval lies above that of the control. `rows`: the tests
    of one student on one data set. `kinds`: {name of a cell: registered method}. A row is one of `describe`
    with ``control`` (such a row, or None), ``verdict`` (see _beside_control) and ``parts`` (LAS of leaking and of other
    texts, as texts).
    """
    described = {row["first"]: row for row in describe(_of(rows, "las"))}
    pairs, controls = with_control(rows, kinds), {}
    for first, second in zip(pairs["first"], pairs["second"], strict=True):
        if second in described:
            controls.setdefault(first, described[second])
    where = rows[["dataset", "student"]].iloc[0].tolist() if len(rows) else []
    parts = {}
    if measures is not None and where:
        own = add_names(in_domain(measures[measures["measure"].isin(["las_leaking", "las_other"])]))
        own = own[(own[["dataset", "student"]] == where).all(axis=1)]
        parts = {key: signed(value, 3) for key, value in own.groupby(["name", "measure"])["value"].mean().items()}
    found = [row | {"verdict": _beside_control(row, controls.get(name)), "control": controls.get(name),
                    "parts": [parts.get((name, part), "none") for part in ("las_leaking", "las_other") if parts]}
             for name, row in described.items() if name not in set(pairs["second"])]
    repeats = [] if fakes is None else in_domain(fakes).query("fake == 'answer' and measure == 'las'")
    repeats = [row["value"] for row in (repeats.to_dict("records") if len(repeats) else [])
               if [row["dataset"], row["student"]] == where]
    return found, sum(repeats) / len(repeats) if repeats else None


def _beside_control(row, control):
    """Return what the numbers allow to say of a LAS beside that of its control: a key of the wording."""
    if not control:
        return "none"
    if control["difference"] >= row["difference"]:
        return "reached"
    if not (row["tested"] and control["tested"]):
        return "untested"
    return "above" if row["significant"] and row["higher"] and row["low"] > control["high"] else "overlap"


def _published(place, rows, published):
    rows = _of(rows, "published")
    if rows.empty:
        return []
    other = published is not None and (published["n_questions"] != QUESTIONS).any()
    return [_say("published", place=place, size=_size(rows), rows=describe(rows),
                 other_questions=(QUESTIONS, published["n_questions"].min()) if other else None)]


def _higher_first(rows):
    """Return the comparisons with first and second exchanged where the second has the higher mean."""
    exchanged = rows.rename(columns={"first": "second", "second": "first", "low": "high", "high": "low"})
    exchanged[["difference", "low", "high"]] *= -1
    return rows.where(~(rows["difference"] < 0), exchanged[list(rows)])


def _revised_explanations(place, cells, rows, fakes):
    rows = rows[(rows["comparison"] == "revision") & (rows["measure"] != "accuracy")]
    changed = [row for row in describe(rows) if row["significant"]]
    unchanged = sorted(set(rows["measure"]) - {row["measure"] for row in changed})
    return [_say("revised_explanations", place=place, changed=changed, unchanged=unchanged)] if len(rows) else []


def _cautions(tests, runs, missing):
    """State what holds for the whole report: failed and missing runs, single seeds, the correction."""
    statements, ended = [], runs["accuracy"].notna()
    lost = add_names(runs[~ended])
    if len(lost):
        names = [f"{name} seed {seed}" for name, seed in zip(lost["name"], lost["seed"], strict=True)]
        statements.append(_say("without_result", count_runs=len(lost), names=names))
    if unknown := [folder for folder in missing if isinstance(folder, str)]:
        statements.append(_say("unknown_missing", folders=unknown))
    if (below := runs["state"] == "below chance").any():
        other = runs["tested_on"] != runs["dataset"]
        statements.append(_say("below_chance", low=[int((below & part).sum()) for part in (~other, other)],
                               total=[int((ended & part).sum()) for part in (~other, other)]))
    primary = tests[tests["family"] == "primary"]
    if (tests["n_seeds"] < 2).any():
        statements.append(_say("one_seed"))
    elif len(primary) and primary["n_seeds"].min() < FEW_SEEDS:
        found = 100 * primary["detectable"].dropna()
        statements.append(_say("few_seeds", seeds=int(primary["n_seeds"].min()), enough=FEW_SEEDS,
                               found=[f"{one:.0f}" for one in (found.min(), found.max())] if len(found) else []))
    if tests["p_corrected"].notna().any():
        statements.append(_say("correction", families=tests["family"].value_counts().to_dict()))
    return statements


# --- numbers as texts


def describe(tests: pd.DataFrame) -> list[dict]:
    """Return the tests as dicts with numbers as texts and with the decisions that the template needs."""
    return [{**row, "place": student_label(row["dataset"], row["student"]), "label": _label(row),
             "significant": differs, "equivalent": same, "higher": row["difference"] > 0,
             "tested": row["low"] == row["low"],
             "one_seed": row["n_seeds"] < 2 and row["second"] not in ("chance", "0"),
             "value": _number(row, "difference", " points"),
             "p_corrected_text": p_text(row["p_corrected"], "q" if row["family"] == "exploratory" else "p"),
             "interval": "–" if row["low"] != row["low"] else f"{_number(row, 'low')} to {_number(row, 'high')}"}
            for row, differs, same in zip(tests.to_dict("records"), significant(tests), equivalent(tests), strict=True)]


def _label(row):
    if row["comparison"] in PAIRS:
        return _pair(row)
    if row["comparison"] == "revision":
        return row["first"].replace(" (critique_revision)", "").replace(", critique_revision", "")
    return row["first"]


def _pair(row):
    """Return "first minus second"; what both were trained on is written once."""
    first, second = (row[key].partition(" (") for key in ("first", "second"))
    if first[2] == second[2]:
        return f"{first[0]} minus {''.join(second)}"
    return f"{row['first']} minus {row['second']}"


def _number(row, key, unit=""):
    if row["measure"] in ("accuracy", "exact"):
        return signed(100 * row[key], 1) + unit
    return signed(row[key], 1 if row["measure"] == "words" else 3)


def _size(rows):
    """Return the numbers of seeds and questions of some comparisons, as ranges where they differ."""
    counts = [(rows["n_seeds"].astype(int), "seed"), (rows["n_questions"].dropna().astype(int), "question")]
    return ", ".join(_say("range_of", low=values.min(), high=values.max(), noun=noun)
                     for values, noun in counts if len(values))
