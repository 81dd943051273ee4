"""The index page of an experiment: the answer, the failed runs, and links to every page and table.

    render_pages(folder, runs)
    write_index(folder, runs, experiment)

`runs` is a list of dicts with name, folder, kind (one of KINDS), notebook, parameters and labels. A finished run that
was made from something else than is there now has the reason under outdated. `experiment` is a dict with name, about,
needs, command, planned (sentences: what the runs will be able to show) and names (meanings).
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kdutils.errors import StudyError
from kdutils.report import notebook_pages, safe_html, study_page
from kdutils.report.answer_html import FIGURE, example_html, picture
from kdutils.report.notebook_pages import find_error, read_notebook, render_notebook
from kdutils.report.safe_html import TEMPLATES, environment, link_to, write_page
from kdutils.report.tables import duration
from kdutils.runs import read_json, sha256, write_json

KINDS = ("data", "labels", "teachers", "explanations", "report", "students", "evaluations", "human_study", "errors",
         "comparison")
LABELS = ("dataset", "teacher", "prompting", "method", "student", "seeds")
TABLES = (".parquet", ".csv", ".tsv")
KEY_METRICS = {  # kind of run -> {place of a metric: its words in the list of runs}
    "data": {"questions.train": "{} train", "questions.dev": "{} dev", "questions.test": "{} test questions"},
    "labels": {"asked": "{} asked", "answered by the teacher": "{} answered by the teacher"},
    "teachers": {"dev_accuracy": "{} right on dev"},
    "explanations": {"texts": "{} texts", "unusable": "{} unusable"},
    "report": {"texts": "{} texts"},
    "students": {"dev_accuracy": "{} right on dev"},
    "evaluations": {"accuracy.mean": "accuracy {}", "accuracy.chance": "chance {}"},
    "human_study": {"plan.raters": "{} raters", "plan.texts": "{} texts", "ratings": "{} ratings",
                    "raters.kept": "{} raters kept"},
}
STATES = ("done", "failed", "outdated", "stopped", "waiting")
PAGE, NOTEBOOK, PAGES = "report.html", "notebook.ipynb", "pages.json"


def state_of(folder: Path) -> tuple[str, str, list[str]]:
    """Return (state, last line of the error of a failed run, problems with its files) of the run in `folder`.

    The state is done, failed, stopped (or still running) or waiting; _view makes outdated of done.
    """
    if (folder / "metrics.json").is_file() and (folder / "manifest.json").is_file():
        return "done", "", []
    if not (folder / NOTEBOOK).is_file():
        return "waiting", "", []
    try:
        error = find_error(read_notebook(folder / NOTEBOOK))
    except StudyError:
        return "stopped", "", [f"{NOTEBOOK} is not readable"]
    if error and error["line"].startswith("KeyboardInterrupt"):  # Ctrl-C reached the kernel, too
        return "stopped", "", []
    if error:
        return "failed", error["line"], []
    message = folder / "error.txt"  # a kernel that died leaves no error in its notebook
    return ("failed", message.read_text(errors="replace").strip(), []) if message.is_file() else ("stopped", "", [])


def render_pages(folder: Path | str, runs: Sequence[Mapping[str, Any]]) -> list[Path]:
    """Render the page of every executed notebook that needs it; return the paths of the pages written.

    A page is rendered if it is missing, older than its notebook, the templates or the code, or if its SHA-256 differs
    from that in ``folder/pages.json``. A notebook that cannot be read has no page; the index says what is wrong.
    """
    folder = Path(folder)
    known, written = _read(folder / PAGES, []), []
    pages = {}
    for run in runs:
        page = Path(run["folder"]) / PAGE
        key = link_to(page, folder / PAGES)
        if _is_current(page, known.get(key)):
            pages[key] = known[key]
        elif _render(page, run, folder):
            pages[key] = sha256(page)
            written.append(page)
    if pages != known:
        write_json(folder / PAGES, pages)
    return written


def _is_current(page, digest):
    notebook = page.with_name(NOTEBOOK)
    if not page.is_file() or not notebook.is_file():
        return False
    made_from = [notebook, *map(Path, (notebook_pages.__file__, safe_html.__file__)), *TEMPLATES.iterdir()]
    return all(page.stat().st_mtime_ns >= file.stat().st_mtime_ns for file in made_from) and sha256(page) == digest


def _render(page, run, folder):
    """Render one page; without a readable notebook remove the page and return False."""
    try:
        render_notebook(page.with_name(NOTEBOOK), page, title=run["name"],
                        index_link=link_to(folder / "index.html", page))
    except StudyError:
        page.unlink(missing_ok=True)
        return False
    return True


def write_index(folder: Path | str, runs: Sequence[Mapping[str, Any]], experiment: Mapping[str, Any]) -> Path:
    """Write ``folder/index.html`` with all `runs`, done or not, and return its path.

    `experiment`: name, about, needs, command, planned (experiments.planned.power_lines) and names (name_meanings), each
    of which may be missing. Broken files of a run are named on the page and raise nothing.
    """
    page = Path(folder) / "index.html"
    views = [_view(run, page) for run in runs]
    kinds = [*KINDS, *sorted({view["kind"] for view in views} - set(KINDS))]
    body = environment().get_template("index.html.j2").render(
        experiment={key: experiment.get(key) or "" for key in ("name", "about", "needs", "command", "planned",
                                                                    "names")},
        answers=[answer for run, view in zip(runs, views, strict=True) if (answer := _answer(view, run["folder"]))],
        failed=[view for view in views if view["state"] == "failed"],
        counts=_counts(views), study=study_page.PAGE if (page.parent / study_page.PAGE).is_file() else "",
        groups=[_group(kind, views) for kind in kinds if any(view["kind"] == kind for view in views)])
    return write_page(page, f"{experiment.get('name') or 'experiment'}: results", body)


def _view(run, page):
    """Return what the template shows of one run: texts and links."""
    folder = Path(run["folder"])
    state, error, problems = state_of(folder)
    if state == "done" and run.get("outdated"):
        state, problems = "outdated", [run["outdated"]]
    metrics = _read(folder / "metrics.json", problems)
    manifest = _read(folder / "manifest.json", problems)
    seconds = _read(folder / "run.json", problems).get("seconds")
    links = [(text, link_to(folder / name, page)) for text, name in
             (("page", PAGE), ("notebook", NOTEBOOK), ("metrics", "metrics.json"), ("parameters", "run.json"))
             if (folder / name).is_file()]
    return {
        "name": run["name"], "kind": run["kind"], "notebook": run.get("notebook", ""),
        "mark": study_page.mark_of_result(metrics),
        "state": state, "error": error, "problems": problems, "links": links, "metrics": metrics,
        "page": dict(links).get("page", ""), "time": duration(seconds) if _is_number(seconds) else "",
        "tables": [(name, link_to(folder / name, page)) for name in _tables(manifest, folder)],
        "told": _key_metrics(run["kind"], metrics),
        "labels": {name: _word(value) for name, value in (run.get("labels") or {}).items()},
        "parameters": {name: _word(value) for name, value in (run.get("parameters") or {}).items()},
    }


def _read(path, problems):
    """Return the JSON object at `path`, {} if there is none; a broken file adds a line to `problems`."""
    if not path.is_file():
        return {}
    try:
        value = read_json(path)
    except (ValueError, RecursionError, OSError):  # StudyError and a number of 5000 digits are ValueErrors
        problems.append(f"{path.name} is not readable JSON")
        return {}
    if not isinstance(value, dict):
        problems.append(f"{path.name} is not a JSON object")
        return {}
    return value


def _tables(manifest, folder):
    """Return the names of the tables in the manifest that exist inside the run's folder, without the blinding key."""
    inside = folder.resolve()
    return [name for name in sorted(manifest) if name.endswith(TABLES) and name.isprintable()
            and Path(name).parts[0] != study_page.KEY
            and (folder / name).resolve().is_relative_to(inside) and (folder / name).is_file()]


def _key_metrics(kind, metrics):
    """Return the KEY_METRICS of a run as text: floats are shares; a count of 0 is not worth a word."""
    told = []
    for place, words in KEY_METRICS.get(kind, {}).items():
        value = metrics
        for key in place.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        if _is_number(value) and (value or isinstance(value, float)):
            told.append(words.format(_percent(value) if isinstance(value, float) else value))
    return ", ".join(told)


def _answer(view, folder):
    """Return statements, example, figure and accuracy rows of a finished comparison, None for every other run."""
    if view["kind"] != "comparison" or view["state"] != "done":
        return None
    metrics = view["metrics"]
    summary, accuracy = metrics.get("summary") or [], metrics.get("accuracy") or []
    summary = summary if isinstance(summary, list) else [summary]
    rows = _dicts(accuracy)
    rows.sort(key=lambda row: -row["mean"] if _is_number(row.get("mean")) else 1)
    about = metrics.get("answer") if isinstance(metrics.get("answer"), dict) else {}  # not in older runs
    statements = [{**{key: _word(one.get(key)) for key in ("question", "verdict", "text")},
                   "sure": _words(one.get("sure")), "more": _word(one["more"]) if one.get("more") else ""}
                  for one in _dicts(about.get("statements"))]
    if not summary and not rows and not statements:
        return None
    return {"statements": statements, "limits": _words(about.get("limits")), "example": _example(about.get("example")),
            "sentences": [_word(sentence) for sentence in summary], "rows": [_accuracy_row(row) for row in rows],
            "figure": picture(Path(folder) / FIGURE) if about.get("figure") else "",
            "figure_text": _word(about.get("figure")), "page": view["page"]}


def _dicts(value):
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def _words(value):
    return [_word(item) for item in value] if isinstance(value, list) else []


def _example(value):
    """Return the HTML of an example, "" where there is none or it is not as a comparison writes it."""
    rows = _dicts(value.get("rows")) if isinstance(value, dict) else []
    if not rows:
        return ""
    rows = [{key: _word(item) for key, item in row.items()} for row in rows]
    return example_html({key: _word(value.get(key)) for key in ("question", "answer", "note")}
                        | {"choices": _words(value.get("choices")), "rows": rows})


def _accuracy_row(row):
    """Return one row of the accuracy table as texts; a missing key becomes a dash."""
    texts = {name: _word(row.get(name)) for name in ("dataset", "student", "prompting", "method", "n_seeds")}
    low, high = _percent(row.get("low")), _percent(row.get("high"))
    return texts | {"mean": _percent(row.get("mean")), "chance": _percent(row.get("chance")),
                    "interval": f"{low} to {high}" if "–" not in (low, high) else "–"}


def _counts(views):
    states = [view["state"] for view in views]
    parts = [f"{states.count(state)} {state}" for state in STATES[1:] if state in states]
    return ", ".join([f"{states.count('done')} of {len(states)} runs done", *parts])


def _group(kind, views):
    """Return the runs of one kind and the labels that any of them has, as columns."""
    runs = [view for view in views if view["kind"] == kind]
    used = {name for view in runs for name in view["labels"]}
    order = [name for name in LABELS if name in used] + sorted(used - set(LABELS))
    states = {state: sum(view["state"] == state for view in runs) for state in STATES}
    return {"kind": kind, "runs": runs, "labels": order, "title": kind.replace("_", " ").capitalize(),
            "state": ", ".join(f"{count} {state}" for state, count in states.items() if count),
            "open": bool(states["failed"])}


def _word(value):
    """Return a label or parameter as text: strings unchanged, other values as JSON."""
    if value is None or value == "":
        return "–"
    if isinstance(value, list) and all(isinstance(item, (str, int)) for item in value):
        return ", ".join(map(str, value)) or "[]"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _is_number(value):
    """Return whether `value` is a number that can be shown: not a bool, NaN or infinite, and below 1e15."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e15


def _percent(value):
    return f"{100 * value:.1f} %" if _is_number(value) else _word(value)
