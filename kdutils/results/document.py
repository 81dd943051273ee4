"""Write RESULTS.md, and the results that README.md names, from what is kept in outputs/results (see keeping).

The wording is in RESULTS.md.j2 and, for single experiments and benchmarks, in ``sections/<name>.md.j2``. The numbers
are those of ``results.json``, which a section has as `result`. FORMATS is the one place where they are rounded.
``earlier/<name>.md`` is what an earlier version printed. It is quoted until there is a kept result of that name.

README.md names a result as ``<!-- result: mini.seconds | duration -->9 min 40 s<!-- /result -->``: the text between the
comments is replaced by the value of the expression. `results` is {name: results.json} of everything that is kept; a
name without a hyphen can be written alone.
"""

import re
import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from types import MappingProxyType
from typing import Any

import jinja2

from kdutils.comparison import wording
from kdutils.errors import StudyError
from kdutils.experiments.loading import experiment_file, experiment_names
from kdutils.experiments.yaml_file import read_settings
from kdutils.report.answer_html import example_rows
from kdutils.report.tables import duration
from kdutils.results.keeping import FIGURE, read_kept
from kdutils.runs import PROJECT, write_text

HERE = Path(__file__).parent
MARKED = re.compile(r"(?P<start><!-- result: (?P<value>.+?) -->).*?(?P<end><!-- /result -->)", re.DOTALL)
EARLIER = {  # benchmark -> the commit whose code printed earlier/<benchmark>.md, and its day
    "bench-teacher": ("5b73640", "2026-11-23"), "bench-training": ("25f3908", "2026-11-23")}
SHOWN = {  # measure of explanations -> its digits in RESULTS.md; results.json has all that the report has
    "wholly_true": 3, "las": 3, "qbe": 3, "overlap_gain": 3, "rouge_l_teacher": 3, "names_answer": 3, "words": 1}
LATER = {  # experiment -> the students (first of a contrast) that were planned when test results of it were known
    "soft-mini": {"soft_multitask (few_shot)", "soft_multitask_gold (few_shot)"},
    "token-kl-mini": {"on_policy (few_shot)"}}
SHORT_ANSWERS = {"exact_match": "exact match", "f1": "F1"}  # only of cells with short free-text answers
PARTS = {"dataset": "data set", "tested_on": "tested on", "student": "student", "teacher": "teacher",
         "method": "method", "prompting": "explanations", "n_seeds": "seeds"}
WIDTH = 120  # characters of a line of RESULTS.md
Rows = Sequence[Mapping[str, Any]]


def documents() -> dict[Path, str]:
    """Return {path: text} of RESULTS.md and README.md as the kept results say; StudyError if a template fails."""
    kept, readme = read_kept(), PROJECT / "README.md"
    return {PROJECT / "RESULTS.md": results_text(kept, experiment_names()),
            readme: fill_marks(readme.read_text(encoding="utf-8"), kept)}


def write_documents() -> list[Path]:
    """Write RESULTS.md and README.md; return the paths of those that have changed."""
    return [write_text(path, text) for path, text in documents().items()
            if not path.is_file() or path.read_text(encoding="utf-8") != text]


def results_text(kept: Mapping[str, dict], names: Iterable[str] = ()) -> str:
    """Return RESULTS.md for the kept results {name: results.json}; `names`: experiments that may not have been kept."""
    quoted = {name: (HERE / "earlier" / f"{name}.md").read_text(encoding="utf-8") for name in EARLIER}
    abouts = {name: read_settings(experiment_file(name))["about"] for name in experiment_names()}  # may be reworded
    text = _rendered(lambda environment: environment.get_template("RESULTS.md.j2").render(
        results=kept, abouts=abouts, not_kept=[name for name in names if name not in kept], quoted=quoted,
        earlier=EARLIER, figure=FIGURE), "RESULTS.md")
    return "\n\n".join(map(_filled, re.split(r"\n{2,}", text.strip()))) + "\n"


def _filled(block):
    """Return a block of Markdown; the lines of a paragraph are filled, tables, lists and the like stay as they are."""
    block = block.strip()
    if re.match(r"[|#>!<]|```|([-*+]|\d+[.)]) ", block):
        return block
    return textwrap.fill(block, WIDTH, break_long_words=False, break_on_hyphens=False)


def fill_marks(text: str, kept: Mapping[str, dict]) -> str:
    """Return `text` with the value of every expression between its comments."""
    def filled(mark):
        value = _rendered(lambda environment: environment.from_string("{{ " + mark["value"] + " }}").render(
            {**kept, "results": kept}), f"'{mark['start']}'")
        return f"{mark['start']}{value}{mark['end']}"

    return MARKED.sub(filled, text)


def _rendered(render, where):
    try:
        return render(_environment())
    except jinja2.TemplateError as error:
        raise StudyError(f"{where}: {error}; correct the template, or keep the results that it names") from error


def _environment():
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(HERE), undefined=jinja2.StrictUndefined,
                                     trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    environment.filters |= FORMATS
    environment.tests["shown"] = is_shown
    return environment


# Numbers as texts

def percent(share: float | None) -> str:
    """Return a share from 0 to 1 in percent with one decimal, "–" for None."""
    return "–" if share is None else wording.percent(share)


def fixed(number: float | None, digits: int = 0) -> str:
    """Return a number with `digits` decimals and thousands separators, "–" for None."""
    return "–" if number is None else f"{round(number, digits) + 0.0:,.{digits}f}".replace("-", "−")  # no −0


def span(numbers: Iterable[float | None]) -> str:
    """Return "3" or "3 to 5": the smallest and the largest of some whole numbers."""
    known = [number for number in numbers if number is not None]
    return " to ".join(dict.fromkeys(fixed(end) for end in (min(known), max(known)))) if known else "–"


def commit(revision: str) -> str:
    """Return a revision of git (runs.git_revision) with the first ten digits of its commit."""
    return f"{revision[:10]}{revision[40:]}" or "not recorded"


def machine(about: Mapping[str, Any]) -> str:
    """Return a description of runs.machine as text."""
    parts = [about["system"], about.get("processor"), f"{about['cores']} cores", about["gpu"] or "no GPU",
             f"{about['threads']} thread{'s' if about['threads'] != 1 else ''}"]
    return ", ".join(part for part in parts if part)


def time_taken(result: Mapping[str, Any]) -> str:
    """Return how long the jobs of a kept experiment took in all, without their start, and on which machine."""
    machines = "; ".join(machine(about) for about in result["machines"])
    return f"{duration(result['seconds'])} in all jobs ({machines})"


# Tables

def table(rows: Rows) -> str:
    """Return rows of texts as a table in Markdown; columns of numbers are aligned on the right."""
    names = list(rows[0])
    number = re.compile(r"[+−]?\d[\d,.]*( %)?|–")
    right = [all(number.fullmatch(row[name]) for row in rows) for name in names]
    head, *body = (f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |"
                   for line in [names, *([row[name] for name in names] for row in rows)])
    return "\n".join([head, f"|{'|'.join('--:' if one else '---' for one in right)}|", *body])


def accuracy_rows(cells: Rows) -> list[dict[str, str]]:
    """Return the rows of the table of accuracies, in the order of `cells`; transfers have no cost."""
    shown = {key for cell in cells for key in SHORT_ANSWERS if cell.get(key) is not None}

    def row(cell):
        interval = "–" if cell["low"] is None else f"{fixed(100 * cell['low'], 1)} to {percent(cell['high'])}"
        texts = {"accuracy": percent(cell["mean"]), "95 % interval": interval,
                 **{title: percent(cell.get(key)) for key, title in SHORT_ANSWERS.items() if key in shown},
                 "by likelihood": percent(cell["likelihood"]), "no choice": percent(cell["no_choice"])}
        if "cost" in cell:
            texts |= {"training, s": fixed(cell["cost"].get("seconds")),
                      "peak, MiB": fixed(cell["cost"].get("peak_memory_mib"))}
        return texts

    return [{**names, **row(cell)} for names, cell in zip(_names(cells), cells, strict=True)]


def measure_rows(cells: Rows, fooled: Mapping[str, str] = MappingProxyType({})) -> list[dict[str, str]]:
    """Return the rows of the table of explanations: means over seeds of the measures SHOWN; [] if there are none.

    `fooled`: comparison.tables.fooled; the names of these measures end with a star.
    """
    measured = [cell for cell in cells if set(SHOWN) & set(cell["measures"])]
    columns = [name for name in SHOWN if any(name in cell["measures"] for cell in measured)]
    return [{**names, **{f"{name} *" if name in fooled else name:
                         fixed(cell["measures"].get(name, {}).get("mean"), SHOWN[name]) for name in columns}}
            for names, cell in zip(_names(measured), measured, strict=True)]


def star_reasons(fooled: Mapping[str, str]) -> list[str]:
    """Return the reasons of the stars in the table of explanations: "las: at least as good as …"."""
    return [f"{name}: {fooled[name]}" for name in SHOWN if name in fooled]


def teacher_rows(teachers: Rows, fooled: Collection[str] = ()) -> list[dict[str, str]]:
    """Return the rows of the table of the teachers' texts; promptings with the same texts share a row.

    The names of `fooled` measures end with a star. `right`: accuracy per split of the teacher's most probable choice.
    `questions without`: train questions without a text that students learn from. Both only if some rows were kept with
    it.
    """
    found = {}
    for row in teachers:  # a rationale that is revised afterwards is the one of few_shot, in all of its values
        same = {name: value for name, value in row.items() if name not in ("prompting", "without")}
        found.setdefault(str(same), []).append(row)
    soft, lacking = (any(name in row for row in teachers) for name in ("accuracy", "without"))
    rows = []
    for same in found.values():
        row, promptings = same[0], ", ".join(one["prompting"] for one in same)
        shares = {f"{name} *" if name in fooled else name: percent(row[name])
                  for name in ("answer named", "contradicted", "repeated", "unfinished")}
        right = ", ".join(f"{split} {percent(share)}" for split, share in row.get("accuracy", ()))
        rows.append({"dataset": row["dataset"], "teacher": row["teacher"], PARTS["prompting"]: promptings,
                     "stage": row["stage"], **{name: fixed(row[name]) for name in ("texts", "unusable")},
                     **({"questions without": next((_without(one["without"]) for one in same if "without" in one), "–")}
                        if lacking else {}),
                     "words": fixed(row["words"], 1), **shares, **({"right": right or "–"} if soft else {})})
    return rows


def planned_differences(results: Mapping[str, Mapping[str, Any]]) -> tuple[str, list[dict[str, str]]]:
    """Return how many planned contrasts of kept experiments show a difference, and a row of a table for each of these.

    One seed says nothing about methods, so its contrasts do not count. Differences are in percentage points. A dagger
    marks the contrasts that were planned when test results of the experiment were known (LATER).
    """
    planned = [(name, row) for name, result in results.items() if result["kind"] == "experiment"
               for row in result["contrasts"] if row.get("family") == "primary" and row["n_seeds"] > 1]
    shown = [(name, row) for name, row in planned if is_shown(row)]
    rows = []
    for name, row in shown:
        cells = {cell["name"]: cell for cell in results[name]["cells"]
                 if (cell["dataset"], cell["student"]) == (row["dataset"], row["student"])}
        later = " †" if row["first"] in LATER.get(name, ()) else ""
        rows.append({"experiment": name, "student": row["student"],
                     "contrast": f"{row['first']} minus {row['second']}{later}", "accuracy": _points(row["difference"]),
                     **{title: _points(_change(cells, row, key))
                        for key, title in (("likelihood", "by likelihood"), ("no_choice", "no choice"))}})
    return (f"{len(shown)} of {len(planned)} planned contrasts of two seeds or more show a difference "
            "(corrected p below 0.05)"), rows


def is_shown(contrast: Mapping[str, Any]) -> bool:
    """Return whether a contrast shows a difference; it has no corrected p where nothing varies."""
    return contrast["p_corrected"] is not None and contrast["p_corrected"] < 0.05


def _change(cells, row, key):
    """Return the difference of two cells in `key`, first minus second; None where one has no value."""
    first, second = (cells[row[end]][key] for end in ("first", "second"))
    return None if None in (first, second) else first - second


def _points(difference):
    return "–" if difference is None else wording.signed(100 * difference, 1)


def _without(kept):
    """Return a number of questions as text, with that of all; a result of an earlier version was kept without that."""
    return " of ".join(map(fixed, kept)) if isinstance(kept, list) else fixed(kept)


def attribution_rows(attributions: Rows) -> list[dict[str, str]]:
    """Return the rows of the table of attributions, of the run that compared the most of them; [] for fewer than two.

    ``words of the answer`` has a column per number of words that a run chose, with "–" where no run compared the
    attribution at it. ``with the others``: means over the other attributions of word_scores.agreement, in the one run;
    ``with itself``: of a sampled attribution under another seed, where it was measured.
    """
    most = _most_compared(attributions)
    shares = {}
    for run in attributions:
        for row in run["costs"]:
            shares.setdefault(run["choice"]["k"], {}).setdefault(row["attribution"], row["any answer word"])
    rows = []
    for row in most["costs"]:
        names = [one["attribution"] for one in most["costs"]]
        pairs = [pair for pair in most["agreement"] if row["attribution"] in (pair["first"], pair["second"])
                 and pair["second"] in names]
        again = [pair for pair in most["agreement"] if row["attribution"] == pair["first"]
                 and pair["second"] not in names]
        found = {name: [pair[name] for pair in pairs if pair[name] is not None] for name in ("spearman", "jaccard")}
        means = {name: fmean(values) if values else None for name, values in found.items()}
        rows.append({"attribution": row["attribution"], "seconds per question": fixed(row["seconds per question"], 3),
                     **{f"words of the answer, k = {k}": percent(shares[k].get(row["attribution"]))
                        for k in sorted(shares, reverse=True)},
                     "Spearman with the others": fixed(means["spearman"], 2),
                     "Jaccard with the others": fixed(means["jaccard"], 2),
                     **{f"{name.title()} with itself": fixed(again[0][name], 2) if again else "–"
                        for name in (("spearman", "jaccard") if _with_itself(most) else ())}})
    return rows if rows[1:] else []


def _with_itself(run):
    names = {one["attribution"] for one in run["costs"]}
    return any(pair["second"] not in names for pair in run["agreement"])


def compared_words(attributions: Rows) -> int:
    """Return the number of words by which attribution_rows tells how alike attributions are."""
    return _most_compared(attributions)["choice"]["k"]


def _most_compared(attributions):
    return max(attributions, key=lambda run: len(run["costs"]), default={"costs": []})


def loss_rows(losses: Rows) -> list[dict[str, str]]:
    """Return the rows of the table of largest losses (comparison.errors.largest_losses)."""
    several = {key: len({row[key] for row in losses}) > 1 for key in ("dataset", "student", "tested_on")}
    return [{**{key.replace("_", " "): row[key] for key, shown in several.items() if shown}, "method": row["name"],
             "group": row["questions with"], "questions": fixed(row["questions"]),
             "points": fixed(row["difference"], 1)} for row in losses]


def chosen_words(attributions: Rows) -> list[str]:
    """Return what each run that had a choice of attributions or numbers of words took."""
    return [f"{run['prompting']} ({run['dataset']}) took {run['choice']['k']} words by {run['choice']['attribution']}"
            for run in attributions if run["choice"]["choose_on"] == "dev"]


def best_on_dev(cells: Rows) -> dict[str, Any] | None:
    """Return the cell with the highest mean dev accuracy, under ``dev``; None where a seed has none kept.

    A seed's is that of the weights that were kept; in results of an earlier version the highest of its training.
    """
    known = cells and all(seed.get("dev") for cell in cells for seed in cell["seeds"].values())
    means = [{**cell, "dev": fmean(seed.get("dev_accuracy", max(share for _, share in seed["dev"]))
                                   for seed in cell["seeds"].values())}
             for cell in cells if known]
    return max(means, key=lambda cell: cell["dev"], default=None)


def running_rows(running: Rows) -> list[dict[str, str]]:
    """Return the rows of the table of what students cost to run (keeping.running_summary)."""
    several = len({(row["dataset"], row["student"]) for row in running}) > 1
    return [{**({"data set": row["dataset"], "student": row["student"]} if several else {}), "weights": row["weights"],
             "million parameters": fixed(row["parameters"] / 1e6, 2), "MB": fixed(row["bytes"] / 1e6, 1),
             "peak, MiB": fixed(row["peak_memory_mib"]), "libraries, MiB": fixed(row["libraries_mib"]),
             "ms per answer": fixed(row["answer_ms"], 1), "ms per explanation": fixed(row["explanation_ms"], 1),
             "change of accuracy": "–" if row["weights"] == "float32" or row["change"] is None
             else f"{fixed(100 * row['change'], 1)} points"} for row in running]


def worked_example(example: Mapping[str, Any] | None) -> str:
    """Return a question with what the teacher and some students say (comparison.answer.example) as Markdown.

    One student for each kind of answer and explanation: right or wrong, with a true, a false or an unchecked text.
    """
    if not example:
        return ""
    choices = f" ({', '.join(example['choices'])})" if example["choices"] else ""
    kinds = {(row["answer"][0], row.get("true", "–")): row for row in reversed(example_rows(example))}
    chosen = sorted(kinds.values(), key=lambda row: "✓✗".find(row["answer"][0]))  # the teacher first
    rows = [{"who": one["who"], "answer": one["answer"], "explanation": " ".join(one["explanation"].split()),
             **({"what it says": one.get("true", "–")} if any("true" in row for row in chosen) else {})}
            for one in chosen]
    text = f"\n\n> {example['question']}{choices}\n\n{table(rows)}\n\n{example.get('note', '')}\n\n"
    return re.sub("<(?=[!/a-z])", "&lt;", text, flags=re.IGNORECASE)  # a model's text is no comment and no tag


def same_in_all(cells: Rows) -> list[str]:
    """Return what is the same in all cells, and therefore not in their table: "student mini-t5", "3 seeds"."""
    same = {key: next(iter(values)) for key, values in _values(cells).items() if len(values) == 1}
    return [f"{value} seed{'s' * (value > 1)}" if key == "n_seeds" else f"{PARTS[key]} {value}"
            for key, value in same.items() if key not in ("method", "tested_on")]


def _names(cells):
    """Return what tells cells apart, as texts: the method, and each other part that is not the same in all cells."""
    kept = [key for key, values in _values(cells).items() if key == "method" or len(values) > 1]
    if any(cell["tested_on"] != cell["dataset"] for cell in cells):
        kept.insert(0, "tested_on")
    return [{PARTS[key]: "–" if cell[key] == "-" else str(cell[key]) for key in dict.fromkeys(kept)} for cell in cells]


def _values(cells):
    """Return {part of a cell: its values}; a method without explanations has no teacher and no prompting."""
    values = {key: {cell[key] for cell in cells} for key in PARTS if key != "tested_on"}
    return values | {key: values[key] - {"-"} for key in ("teacher", "prompting")}


FORMATS = {"percent": percent, "fixed": fixed, "span": span, "duration": duration, "commit": commit, "machine": machine,
           "table": table, "accuracy_rows": accuracy_rows, "measure_rows": measure_rows, "star_reasons": star_reasons,
           "teacher_rows": teacher_rows, "running_rows": running_rows, "same_in_all": same_in_all,
           "worked_example": worked_example, "attribution_rows": attribution_rows,
           "compared_words": compared_words, "loss_rows": loss_rows,
           "chosen_words": chosen_words, "planned_differences": planned_differences, "best_on_dev": best_on_dev}
