"""The sentences of a report, and its tests as tables and as rows of a figure.

Here are the numbers and the decisions; the wording is in summary.txt.j2. Every sentence gives the difference, its 95 %
interval and p, corrected for all comparisons of the report (hypotheses). Only a corrected p below hypotheses.LEVEL is
called a difference. With one seed a test compares two students, and the sentence says so.
"""

import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import pandas as pd

from kdutils.comparison.hypotheses import significant
from kdutils.comparison.published_accuracies import QUESTIONS
from kdutils.comparison.runs_table import add_names, in_domain, student_label

MOST = 12  # sentences of a summary
ONE_SECOND = ("label_only", "chance", "las", "published")  # in these comparisons the second is always the same


@cache
def _wording():
    """Return the macros and texts of the template."""
    import jinja2

    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters["percent"] = lambda share: f"{100 * share:.1f} %"
    # No escaping: a sentence is plain text, which a table or a page escapes like all texts.
    return environment.from_string(Path(__file__).with_name("summary.txt.j2").read_text(encoding="utf-8")).module


def _say(statement, **facts):
    text = re.sub(r"\s*\n\s*(?=[.,:;])", "", getattr(_wording(), statement)(**facts))
    return re.sub(r"\s*\n\s*", " ", text).strip()


def sentences(tests: pd.DataFrame) -> list[str]:
    """Return one sentence per row of hypotheses.run_tests, in its order."""
    return [_say("comparison", row=row) for row in _describe(tests)]


def tables_of_tests(tests: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield (caption, table) per data set, student and comparison; differences of accuracy are in percentage points.

    A column with one value in all rows is in the caption or left out.
    """
    for (dataset, student, comparison), rows in tests.groupby(["dataset", "student", "comparison"], sort=False):
        table = pd.DataFrame([{
            "measure": row["measure"], "first": row["first"], "second": row["second"],
            "difference": _cell(row["value"]), "95 % interval": _cell(row["interval"]), "p": _cell(_p(row["p"])),
            "corrected p": _cell(row["p_corrected_text"]), "seeds": row["n_seeds"],
            "McNemar, p per seed": "; ".join(_cell(_p(p)) for p in row["mcnemar"])
            if isinstance(row["mcnemar"], list) else ""} for row in _describe(rows)])
        hidden = [name for name in ("seeds", "measure") if table[name].nunique() == 1]
        hidden += ["second"] if comparison in ONE_SECOND else []
        hidden += ["McNemar, p per seed"] if not table["McNemar, p per seed"].any() else []
        yield (f"{_wording().heads[comparison]}: {student_label(dataset, student)} ({_size(rows)})",
               table.drop(columns=hidden))


def _cell(text):
    """Return a number or p value for a cell of a table, where it must not be broken over two lines."""
    return text.removeprefix("p ").removeprefix("= ").replace(" ", "\N{NO-BREAK SPACE}")


def figure_rows(tests: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of figures.difference_intervals for differences of accuracy, in points, without chance."""
    rows = tests[tests["measure"].isin(["accuracy", "exact"]) & (tests["comparison"] != "chance")]
    points = {name: 100 * rows[name].astype(float) for name in ("difference", "low", "high")}
    labels = [_pair(row) if row["comparison"] in ("methods", "control") else row["first"]
              for row in rows.to_dict("records")]
    return pd.DataFrame({"dataset": rows["dataset"], "student": rows["student"], "label": labels, **points,
                         "group": rows["comparison"].map(_wording().heads), "significant": significant(rows)})


def summarise(accuracies: pd.DataFrame, tests: pd.DataFrame, runs: pd.DataFrame, missing: Sequence[str | dict] = (),
              published: pd.DataFrame | None = None) -> list[str]:
    """Return at most MOST sentences, the most important first; `sentences` and the tables have all tests.

    `accuracies`: tables.accuracy_table. `tests`: hypotheses.run_tests. `runs` and `missing`: see
    runs_table.read_evaluations. `published`: published_accuracies.published_table.
    """
    students = list(in_domain(accuracies).groupby(["dataset", "student"], sort=False))
    statements = [text for state in (_best, _not_above_chance) for student, cells in students
                  for text in state(student_label(*student), add_names(cells[cells["mean"].notna()]),
                                    {row["first"]: row for row in _describe(_of(tests, student, "chance"))})]
    for comparison in ("label_only", "control", "revision", "methods", "las", "published"):
        for student, _ in students:
            rows = _of(tests, student, comparison)
            of_texts = (rows["measure"] != "accuracy") & (comparison == "revision")
            statements += _groups(student_label(*student), comparison, rows[~of_texts], published)
            statements += _revised_explanations(student_label(*student), rows[of_texts])
    last = _cautions(tests, runs, missing)
    if len(statements) > MOST - len(last):
        kept = MOST - len(last) - 1
        last.insert(0, _say("further", statements=len(statements) - kept))
        statements = statements[:kept]
    return statements + last


def _of(tests, student, comparison):
    return tests[(tests[["dataset", "student"]] == list(student)).all(axis=1) & (tests["comparison"] == comparison)]


def _best(place, cells, against_chance):
    if cells.empty:
        return [_say("no_result", place=place)]
    cell = cells.loc[cells["mean"].idxmax()].to_dict()
    return [_say("best", place=place, cell=cell, cells=len(cells), chance=against_chance.get(cell["name"]))]


def _not_above_chance(place, cells, against_chance):
    """State the cells that are not significantly above chance, without the best one, which has its own statement."""
    others = cells.drop(index=cells["mean"].idxmax()).to_dict("records") if len(cells) else []
    weak = [(cell, test) for cell in others if (test := against_chance.get(cell["name"]))
            and not (test["significant"] and test["higher"])]
    return [_say("not_above_chance", place=place, chance=weak[0][0]["chance"], cells=weak)] if weak else []


def _groups(place, comparison, rows, published):
    """State all comparisons of one kind: the significant ones by size and direction, then the largest other one."""
    if rows.empty:
        return []
    if comparison == "methods":
        rows = _higher_first(rows)
    described = _describe(rows.reindex(rows["difference"].abs().sort_values(ascending=False, kind="stable").index))
    higher, lower = ([row for row in described if row["significant"] and row["higher"] == up] for up in (True, False))
    other = comparison == "published" and published is not None and (published["n_questions"] != QUESTIONS).any()
    return [_say("group", kind=comparison, place=place, size=_size(rows), higher=higher, lower=lower,
                 unchanged=[row for row in described if not row["significant"]],
                 one_seed=(rows["n_seeds"] < 2).all(), no_content_effect=comparison == "control" and not higher,
                 other_questions=(QUESTIONS, published["n_questions"].min()) if other else None)]


def _higher_first(rows):
    """Return the comparisons with first and second exchanged where the second has the higher mean."""
    exchanged = rows.rename(columns={"first": "second", "second": "first", "low": "high", "high": "low"})
    exchanged[["difference", "low", "high"]] *= -1
    return rows.where(~(rows["difference"] < 0), exchanged[list(rows)])


def _revised_explanations(place, rows):
    changed = [row for row in _describe(rows) if row["significant"]]
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
    if low := int((runs["state"] == "below chance").sum()):
        statements.append(_say("below_chance", low=low, total=int(ended.sum())))
    if (tests["n_seeds"] < 2).any():
        statements.append(_say("one_seed"))
    if tested := int(tests["p_corrected"].notna().sum()):
        statements.append(_say("correction", tested=tested, differ=int(significant(tests).sum())))
    return statements


# --- numbers as texts


def _describe(tests):
    """Return the tests as dicts with numbers as texts and with the decisions that the template needs."""
    return [{**row, "place": student_label(row["dataset"], row["student"]), "label": _label(row),
             "text_measure": "" if row["measure"] in ("accuracy", "exact") else row["measure"],
             "significant": differs, "higher": row["difference"] > 0, "tested": row["low"] == row["low"],
             "one_seed": row["n_seeds"] < 2 and row["second"] not in ("chance", "0"),
             "n_questions": int(row["n_questions"]) if row["n_questions"] == row["n_questions"] else None,
             "value": _number(row, "difference", " points"), "p_corrected_text": _p(row["p_corrected"]),
             "interval": "–" if row["low"] != row["low"] else f"{_number(row, 'low')} to {_number(row, 'high')}"}
            for row, differs in zip(tests.to_dict("records"), significant(tests), strict=True)]


def _label(row):
    if row["comparison"] in ("methods", "control"):
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
        return _signed(100 * row[key], 1) + unit
    return _signed(row[key], 1 if row["measure"] == "words" else 3)


def _signed(number, digits):
    return f"{number:+.{digits}f}".replace("-", "−")


def _p(value):
    if value != value:
        return "no test"
    return "p < 0.001" if value < 0.001 else "p = 1" if value > 0.9995 else f"p = {value:.3f}"


def _size(rows):
    """Return the numbers of seeds and questions of some comparisons, as ranges where they differ."""
    counts = [(rows["n_seeds"].astype(int), "seed"), (rows["n_questions"].dropna().astype(int), "question")]
    return ", ".join(_say("range_of", low=values.min(), high=values.max(), noun=noun)
                     for values, noun in counts if len(values))
