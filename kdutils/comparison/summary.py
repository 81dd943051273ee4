"""What the tests of a report allow to be said, in sentences.

Every sentence carries its test: estimate, 95 % interval, p corrected for all comparisons of the report
(differences.py), seeds and questions. Two things are said to differ only where the corrected p is below
differences.LEVEL. With one seed a test compares two students, and the sentence says that nothing follows for the
methods.
"""

import pandas as pd

from kdutils.comparison.hypotheses import significant
from kdutils.comparison.published_accuracies import QUESTIONS
from kdutils.comparison.runs_table import in_domain, named, where

MOST = 12  # sentences of a summary
LISTED = 3  # items of each kind in one of them
HEADS = {"label_only": "Against label_only", "control": "Methods minus their controls",
         "methods": "Method against method", "revision": "Taught by revised minus unrevised texts",
         "las": "Do explanations help to foresee the answer (LAS)", "chance": "Against blind guessing",
         "published": "Against the published runs"}
AGAINST_ONE = ("label_only", "chance", "las", "published")  # the second of these comparisons is always the same


def sentences(tests):
    """Return one sentence per comparison of differences.all_tests, in its order."""
    return [_sentence(row, told) for row, told in zip(tests.to_dict("records"), significant(tests), strict=True)]


def _sentence(row, told):
    place = where(row["dataset"], row["student"])
    what = "" if row["measure"] in ("accuracy", "exact") else f" in {row['measure']}"
    if row["n_seeds"] < 2 and row["second"] not in ("chance", "0"):
        return (f"{place}, one seed: the student of {row['first']} {_verb(row, told)} that of {row['second']}{what}: "
                f"{_amount(row)}; nothing follows for the methods.")
    return f"{place}: {row['first']} {_verb(row, told)} {row['second']}{what}: {_amount(row)}."


def _verb(row, told):
    if not told:
        return "is not told from"
    if row["second"] in ("chance", "0"):
        return "is above" if row["difference"] > 0 else "is below"
    if row["measure"] in ("accuracy", "exact"):
        return "is ahead of" if row["difference"] > 0 else "is behind"
    return "is higher than" if row["difference"] > 0 else "is lower than"


def test_tables(tests):
    """Yield (caption, table) per data set, student and comparison; differences of accuracy are in points.

    What holds for every row stands in the caption or is left out.
    """
    for (dataset, student, comparison), rows in tests.groupby(["dataset", "student", "comparison"], sort=False):
        table = pd.DataFrame([{
            "measure": row["measure"], "first": row["first"], "second": row["second"],
            "difference": _unbroken(_value(row)), "95 % interval": _unbroken(_interval(row)),
            "p": _unbroken(_p(row["p"])), "corrected p": _unbroken(_p(row["p_corrected"])), "seeds": row["n_seeds"],
            "McNemar, p per seed": "; ".join(map(_unbroken, map(_p, row["mcnemar"])))
            if isinstance(row["mcnemar"], list) else ""} for row in rows.to_dict("records")])
        gone = [name for name in ("seeds", "measure") if table[name].nunique() == 1]
        gone += ["second"] if comparison in AGAINST_ONE else []
        gone += ["McNemar, p per seed"] if not table["McNemar, p per seed"].any() else []
        yield f"{HEADS[comparison]}: {where(dataset, student)} ({_size(rows)})", table.drop(columns=gone)


def _unbroken(text):
    """Return a number or a p as a cell of a table, which must not be broken over two lines."""
    return text.removeprefix("p ").removeprefix("= ").replace(" ", "\N{NO-BREAK SPACE}")


def figure_rows(tests):
    """Return what plots.difference_intervals draws of the differences of accuracy, in points, without chance."""
    rows = tests[tests["measure"].isin(["accuracy", "exact"]) & (tests["comparison"] != "chance")]
    points = {name: 100 * rows[name].astype(float) for name in ("difference", "low", "high")}
    labels = [_pair(row) if row["comparison"] in ("methods", "control") else row["first"]
              for row in rows.to_dict("records")]
    return pd.DataFrame({"dataset": rows["dataset"], "student": rows["student"], "label": labels, **points,
                         "group": rows["comparison"].map(HEADS), "told": significant(rows)})


def summarise(accuracies, tests, runs, missing=(), published=None):
    """Return at most MOST sentences, the most important first; the whole is in `sentences` and the tables.

    `accuracies`: comparing.accuracy_table; `tests`: differences.all_tests; `runs`: comparing.read_evaluations;
    `missing`: evaluations that were not reached; `published`: published_table.
    """
    tests = tests.assign(told=significant(tests))
    groups = list(in_domain(accuracies).groupby(["dataset", "student"], sort=False))
    last = _cautions(tests, runs, missing)
    found = [said for write in (_best, _not_above_chance) for cell, cells in groups
             for said in write(where(*cell), cells, _of(tests, cell, "chance"))]
    for comparison in ("label_only", "control", "revision", "methods", "las", "published"):
        for cell, _ in groups:
            rows = _of(tests, cell, comparison)
            texts = (rows["measure"] != "accuracy") & (comparison == "revision")
            found += [_grouped(where(*cell), comparison, rows[~texts], published)] if (~texts).any() else []
            found += [_changed(where(*cell), rows[texts])] if texts.any() else []
    if len(found) > MOST - len(last):
        kept = MOST - len(last) - 1
        last.insert(0, f"{len(found) - kept} more statements of this kind stand on the page of the comparison.")
        found = found[:kept]
    return found + last


def _of(tests, cell, comparison):
    dataset, student = cell
    return tests[(tests["dataset"] == dataset) & (tests["student"] == student) & (tests["comparison"] == comparison)]


def _best(place, cells, tests):
    """Say which cell has the highest mean, and how that mean stands to chance."""
    known = named(cells[cells["mean"].notna()])
    if known.empty:
        return [f"{place}: no run was finished, so nothing can be said."]
    row = known.loc[known["mean"].idxmax()]
    several = f" has the highest mean accuracy of {len(known)}" if len(known) > 1 else ""
    luck = "; the highest of several owes a part to luck, so see what it is ahead of" if len(known) > 1 else ""
    return [f"{place}: {row['name']}{several}: {_percent(row['mean'])} (95 % interval "
            f"{_percent(row['low'])} to {_percent(row['high'])}, {_count(row['n_seeds'], 'seed')}, "
            f"{row['n_questions']} questions){_to_chance(row, tests)}{luck}."]


def _to_chance(row, tests):
    found = tests[tests["first"] == row["name"]]
    if found.empty:
        return ""
    test = found.iloc[0]
    level = ("above" if test["difference"] > 0 else "below") if test["told"] else "not told from"
    others = "" if level == "above" else f"; {_percent(row['no_choice'])} of its answers are none of the choices"
    return f", {level} chance ({_percent(row['chance'])}, {_p(test['p_corrected'])}){others}"


def _not_above_chance(place, cells, tests):
    """Name the cells that are at or below chance; the best one is named before."""
    known = named(cells[cells["mean"].notna()])
    weak = tests[~(tests["told"] & (tests["difference"] > 0))]
    best = known.loc[known["mean"].idxmax(), "name"] if len(known) else ""
    rows = known[known["name"].isin(weak["first"]) & (known["name"] != best)]
    if rows.empty:
        return []
    told = weak.set_index("first")
    items = [f"{row['name']} {_percent(row['mean'])} ({'below, ' if told.at[row['name'], 'told'] else ''}"
             f"{_p(told.at[row['name'], 'p_corrected'])}; {_percent(row['no_choice'])} of its answers are none of the "
             "choices)" for row in rows.to_dict("records")]
    return [f"Not above chance ({_percent(rows['chance'].iloc[0])}), {place}: {_listed(items, 4)}."]


def _grouped(place, comparison, rows, published):
    """Return one sentence on all comparisons of one kind: what is ahead, what behind, what is not told apart."""
    if comparison == "methods":  # of two methods the one with the higher mean stands first
        rows = _turned(rows)
    ahead, behind = (rows[rows["told"] & (sign * rows["difference"] > 0)] for sign in (1, -1))
    rest, parts = rows[~rows["told"]], []
    words = ("above 0", "below 0") if comparison == "las" else ("ahead", "behind")
    for word, part in zip(words, (ahead, behind), strict=True):
        ordered = part.reindex(part["difference"].abs().sort_values(ascending=False).index)
        parts += [f"{word}: {_listed([_item(row, comparison) for row in ordered.to_dict('records')])}"] \
            if len(part) else []
    if len(rest):
        largest = rest.loc[rest["difference"].abs().idxmax()].to_dict()
        parts.append(f"not told apart: {_item(largest, comparison)}" if len(rest) == 1 else
                     f"not told apart: {len(rest)}, of which the largest difference is {_item(largest, comparison)}")
    return f"{HEADS[comparison]}, {place} ({_size(rows)}): {'; '.join(parts)}." \
        + _meaning(comparison, rows) + _other_questions(comparison, published)


def _turned(rows):
    turn = rows["difference"] < 0
    turned = rows.rename(columns={"first": "second", "second": "first", "low": "high", "high": "low"})
    columns = ["difference", "low", "high"]
    turned[columns] = -turned[columns]
    return rows.where(~turn, turned[list(rows)])


def _meaning(comparison, rows):
    """Say what a comparison allows to be concluded, where that is not its own words."""
    if (rows["n_seeds"] < 2).all():
        return " One seed each: nothing follows for the methods."
    if comparison == "control" and not (rows["told"] & (rows["difference"] > 0)).any():
        return " So these runs do not show that what the texts say matters."
    return ""


def _other_questions(comparison, published):
    if comparison != "published" or published is None or (published["n_questions"] == QUESTIONS).all():
        return ""
    return (f" The published runs answered {QUESTIONS} questions, these "
            f"{published['n_questions'].min()}: a part of the difference may be that.")


def _changed(place, rows):
    """Return one sentence on what critique-revision changes in the explanations of students."""
    told = rows[rows["told"]]
    items = [f"{row['measure']} of {_unrevised(row['first'])} {_value(row)} ({_span(row)})"
             for row in told.to_dict("records")]
    rest = sorted(set(rows["measure"]) - set(told["measure"]))
    parts = [_listed(items, 4)] if items else []
    parts += [f"not told apart: {', '.join(rest)}"] if rest else []
    return f"Revised minus unrevised in the students' explanations, {place}: {'; '.join(parts)}."


def _cautions(tests, runs, missing):
    """Return what holds for the whole report: failed runs, single seeds, the number of comparisons."""
    found = []
    ended = runs["accuracy"].notna()
    if (~ended).any() or missing:
        lost = named(runs[~ended])
        names = [f"{row.name}, seed {row.seed}" for row in lost[["name", "seed"]].itertuples(index=False, name="Row")]
        count = len(lost) or len(missing)
        found.append(f"{_count(count, 'run')} failed or {'is' if count == 1 else 'are'} missing and "
                     f"{'is' if count == 1 else 'are'} in no mean: {_listed(names or list(missing), 4)}.")
    low = int((runs["state"] == "below chance").sum())
    if low:
        found.append(f"{_count(low, 'run')} of {int(ended.sum())} {'lies' if low == 1 else 'lie'} below chance; none "
                     "is dropped from a mean.")
    if len(tests) and (tests["n_seeds"] < 2).any():
        found.append("Where there is one seed a test compares two students: nothing follows for their methods.")
    counted = int(tests["p_corrected"].notna().sum())
    if counted:
        found.append(f"Intervals are of 95 %; every p is corrected (Holm) for {_count(counted, 'comparison')}, all of "
                     f"the report; told apart: {int(tests['told'].sum())}. Not told apart does not mean equal.")
    return found


# --- words


def _item(row, comparison):
    name = row["first"]
    if comparison in ("methods", "control"):
        name = _pair(row)
    elif comparison == "revision":
        name = _unrevised(name)
    return f"{name} {_value(row)} ({_span(row)}{', one seed' if row['n_seeds'] < 2 else ''})"


def _pair(row):
    """Return "first minus second", what both were trained on said once."""
    first, second = (row[key].partition(" (") for key in ("first", "second"))
    if first[2] == second[2]:
        return f"{first[0]} minus {''.join(second)}"
    return f"{row['first']} minus {row['second']}"


def _unrevised(name):
    return name.replace(" (critique_revision)", "").replace(", critique_revision", "")


def _amount(row):
    questions = f", {int(row['n_questions'])} questions" if row["n_questions"] == row["n_questions"] else ""
    return f"{_value(row)} ({_span(row, whole=True)}, {_count(row['n_seeds'], 'seed')}{questions})"


def _value(row, key="difference"):
    if row["measure"] in ("accuracy", "exact"):
        return _signed(100 * row[key], 1) + (" points" if key == "difference" else "")
    return _signed(row[key], 1 if row["measure"] == "words" else 3)


def _span(row, whole=False):
    if row["low"] != row["low"]:
        return "no test: too few values, or no spread"
    words = ("95 % interval ", "corrected ") if whole else ("", "")
    return f"{words[0]}{_interval(row)}, {words[1]}{_p(row['p_corrected'])}"


def _interval(row):
    return "–" if row["low"] != row["low"] else f"{_value(row, 'low')} to {_value(row, 'high')}"


def _size(rows):
    seeds, questions = rows["n_seeds"].astype(int), rows["n_questions"].dropna().astype(int)
    parts = [_between(seeds, "seed")] + ([_between(questions, "question")] if len(questions) else [])
    return ", ".join(parts)


def _between(numbers, word):
    low, high = numbers.min(), numbers.max()
    return _count(low, word) if low == high else f"{low} to {high} {word}s"


def _count(number, word):
    return f"{int(number)} {word}{'' if number == 1 else 's'}"


def _listed(items, most=LISTED):
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")


def _percent(share):
    return f"{100 * share:.1f} %"


def _signed(number, digits):
    return f"{number:+.{digits}f}".replace("-", "−")


def _p(value):
    if value != value:
        return "no test"
    return "p < 0.001" if value < 0.001 else "p = 1" if value > 0.9995 else f"p = {value:.3f}"
