"""The sentences of a report, and its tests as tables and as rows of a figure.

Here are the numbers and the decisions; the wording is in summary.txt.j2. Every sentence gives the difference, its 95 %
interval and p, corrected within its family (hypotheses). Only a corrected p below hypotheses.LEVEL is called a
difference. With one seed a test compares two students, and the sentence says so.
"""

import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import pandas as pd

from kdutils.comparison.hypotheses import equivalent, significant, with_control
from kdutils.comparison.published_accuracies import QUESTIONS
from kdutils.comparison.runs_table import add_names, in_domain, student_label

MOST = 12  # sentences of a summary
P_NAMES = {"primary": "corrected p", "exploratory": "q", "plausibility": "p, one by one"}
FEW_SEEDS = 5  # with fewer, a summary says how little they can show
PAIRS = ("primary", "methods", "control", "protocol")  # in these, first and second are both named
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
            P_NAMES[row["family"]]: _cell(row["p_corrected_text"]),
            "smaller than the margin, p": _cell(_p(row["p_equivalent"])) if row["family"] == "primary" else "",
            "detectable": _signed(100 * row["detectable"], 1) if row["detectable"] == row["detectable"] else "",
            "seeds": row["n_seeds"],
            "McNemar, p per seed": "; ".join(_cell(_p(p)) for p in row["mcnemar"])
            if isinstance(row["mcnemar"], list) else ""} for row in _describe(rows)])
        hidden = [name for name in ("seeds", "measure") if table[name].nunique() == 1]
        hidden += ["second"] if comparison in ONE_SECOND else []
        hidden += [name for name in ("McNemar, p per seed", "smaller than the margin, p", "detectable")
                   if not table[name].any()]
        yield (f"{_wording().heads[comparison]}: {student_label(dataset, student)} ({_size(rows)})",
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
                         "group": rows["comparison"].map(_wording().heads), "significant": significant(rows)})


def summarise(accuracies: pd.DataFrame, tests: pd.DataFrame, runs: pd.DataFrame, missing: Sequence[str | dict] = (),
              published: pd.DataFrame | None = None, margin: float = 0.02, measures: pd.DataFrame | None = None,
              teachers: pd.DataFrame | None = None, fakes: pd.DataFrame | None = None) -> list[str]:
    """Return at most MOST sentences, the most important first; `sentences` and the tables have all tests.

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
    for state in (_revised_explanations, _simulatability, _exploratory):
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
    chances = {row["first"]: row for row in _describe(_of(rows, "chance"))}
    above = [name for name, row in chances.items() if row["significant"] and row["higher"]]
    cell = cells.loc[cells["mean"].idxmax()].to_dict()
    if cell["mean"] == 0 or chances and not above:
        return [_say("none_above_chance", place=place, cell=cell, cells=len(cells), chance=chances.get(cell["name"]))]
    alike = int((cells["mean"] > cell["mean"] - 1e-12).sum())
    return [_say("best", place=place, cell=cell, cells=len(cells), alike=alike, chance=chances.get(cell["name"]))]


def _not_above_chance(place, cells, rows, margin):
    """State the cells that are not above chance, without the best one, which has its own statement."""
    chances = {row["first"]: row for row in _describe(_of(rows, "chance"))}
    others = cells.drop(index=cells["mean"].idxmax()).to_dict("records") if len(cells) else []
    weak = [(cell, test) for cell in others if (test := chances.get(cell["name"]))
            and not (test["significant"] and test["higher"])]
    return [_say("not_above_chance", place=place, chance=weak[0][0]["chance"], cells=weak)] if weak else []


def _primary(place, cells, rows, margin):
    """State the answer to each primary question."""
    primary = _of(rows, "primary")
    return [_say("primary", place=place, question=question, rows=_describe(part), size=_size(part),
                 margin=100 * margin, one_seed=(part["n_seeds"] < 2).all(), family=len(primary))
            for question, part in primary.groupby("question", sort=False)]


def _truth(measures, teachers):
    """State how many explanations are wholly true, of each cell and of the teachers."""
    if measures is None or "wholly_true" not in set(measures["measure"]):
        return []
    known = add_names(in_domain(measures[measures["measure"].isin(["wholly_true", "true_share"])]))
    said = []
    for (dataset, student), rows in known.groupby(["dataset", "student"], sort=False):
        means = rows.pivot_table(index="name", columns="measure", values="value").sort_values(
            "wholly_true", ascending=False)
        own = teachers[teachers["dataset"] == dataset] if teachers is not None and "wholly true" in teachers else None
        own = [] if own is None else own["wholly true"].dropna()
        said.append(_say("truth", place=student_label(dataset, student), teachers=list(own),
                         cells=means.reset_index().to_dict("records")))
    return said


def _exploratory(place, cells, rows, fakes):
    """State how many of the other comparisons of accuracies show a difference, and the largest ones."""
    rows = rows[(rows["family"] == "exploratory") & (rows["measure"] == "accuracy")]
    if rows.empty:
        return []
    described = _describe(_higher_first(rows.reindex(rows["difference"].abs().sort_values(ascending=False,
                                                                                          kind="stable").index)))
    return [_say("exploratory", place=place, size=_size(rows), rows=described,
                 differ=[row for row in described if row["significant"]], one_seed=(rows["n_seeds"] < 2).all())]


def _simulatability(place, cells, rows, fakes):
    """State LAS beside that of the control: what explanations without content reach is no merit of an explanation."""
    described = {row["first"]: row for row in _describe(_of(rows, "las"))}
    pairs = with_control(rows)
    controls = {first: described[second] for first, second in zip(pairs["first"], pairs["second"], strict=True)
                if second in described}
    found = [row | {"control": controls.get(name), "exceeds": row["significant"] and name in controls
                    and row["low"] > controls[name]["high"]}
             for name, row in described.items() if name not in set(pairs["second"])]
    repeats = [] if fakes is None else in_domain(fakes).query("fake == 'answer' and measure == 'las'")
    repeats = [row["value"] for row in (repeats.to_dict("records") if len(repeats) else [])
               if [row["dataset"], row["student"]] == list(rows[["dataset", "student"]].iloc[0])]
    repeats = _signed(sum(repeats) / len(repeats), 3) if repeats else ""
    return [_say("simulatability", place=place, rows=found, repeats=repeats)] if found else []


def _published(place, rows, published):
    rows = _of(rows, "published")
    if rows.empty:
        return []
    other = published is not None and (published["n_questions"] != QUESTIONS).any()
    return [_say("published", place=place, size=_size(rows), rows=_describe(rows),
                 other_questions=(QUESTIONS, published["n_questions"].min()) if other else None)]


def _higher_first(rows):
    """Return the comparisons with first and second exchanged where the second has the higher mean."""
    exchanged = rows.rename(columns={"first": "second", "second": "first", "low": "high", "high": "low"})
    exchanged[["difference", "low", "high"]] *= -1
    return rows.where(~(rows["difference"] < 0), exchanged[list(rows)])


def _revised_explanations(place, cells, rows, fakes):
    rows = rows[(rows["comparison"] == "revision") & (rows["measure"] != "accuracy")]
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
    primary = tests[tests["family"] == "primary"]
    if (tests["n_seeds"] < 2).any():
        statements.append(_say("one_seed"))
    elif len(primary) and primary["n_seeds"].min() < FEW_SEEDS:
        statements.append(_say("few_seeds", seeds=int(primary["n_seeds"].min()), enough=FEW_SEEDS,
                               detectable=100 * primary["detectable"].max()))
    if tests["p_corrected"].notna().any():
        statements.append(_say("correction", families=tests["family"].value_counts().to_dict()))
    return statements


# --- numbers as texts


def _describe(tests):
    """Return the tests as dicts with numbers as texts and with the decisions that the template needs."""
    return [{**row, "place": student_label(row["dataset"], row["student"]), "label": _label(row),
             "text_measure": "" if row["measure"] in ("accuracy", "exact") else row["measure"],
             "significant": differs, "equivalent": same, "higher": row["difference"] > 0,
             "tested": row["low"] == row["low"],
             "one_seed": row["n_seeds"] < 2 and row["second"] not in ("chance", "0"),
             "n_questions": int(row["n_questions"]) if row["n_questions"] == row["n_questions"] else None,
             "value": _number(row, "difference", " points"),
             "p_corrected_text": _p(row["p_corrected"], "q" if row["family"] == "exploratory" else "p"),
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
        return _signed(100 * row[key], 1) + unit
    return _signed(row[key], 1 if row["measure"] == "words" else 3)


def _signed(number, digits):
    return f"{number:+.{digits}f}".replace("-", "−")


def _p(value, name="p"):
    if value != value:
        return "no test"
    return f"{name} < 0.001" if value < 0.001 else f"{name} = 1" if value > 0.9995 else f"{name} = {value:.3f}"


def _size(rows):
    """Return the numbers of seeds and questions of some comparisons, as ranges where they differ."""
    counts = [(rows["n_seeds"].astype(int), "seed"), (rows["n_questions"].dropna().astype(int), "question")]
    return ", ".join(_say("range_of", low=values.min(), high=values.max(), noun=noun)
                     for values, noun in counts if len(values))
