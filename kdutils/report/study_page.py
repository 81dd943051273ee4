"""The page of a human study: its forms, how to run it, how to hand ratings back, and what came back so far.

The blinding key is not linked: a reader of the page who rates should not meet it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kdutils.errors import StudyError
from kdutils.report.safe_html import environment, link_to, write_page
from kdutils.report.tables import table_html
from kdutils.runs import read_json

PAGE = "human_study.html"  # beside index.html
KEY = "key"  # the folder of the blinding key below that of the study
FORM = "form.html"
LISTS = ("problems.csv", "raters.csv")  # of the analysis
MAKE, ANALYSE = "22_make_human_study", "23_analyse_human_study"
FILES = {  # what raters and their tools get: file below the folder of the study: its description
    FORM: "The form: one file that works offline and sends nothing",
    "potato/instructions.html": "What raters are told, as a page for Potato",
    "potato/config.yaml": "The project for the annotation server Potato",
    "potato/README.txt": "How to start Potato",
    "survey/survey.csv": "All pages as a table, for a survey tool",
    "survey/columns.txt": "The columns of that table, and how to name the columns of an export"}


def write_study_page(folder: Path | str, runs: Sequence[Mapping[str, Any]], command: str,
                     file: str = "the experiment file") -> Path | None:
    """Write ``folder/human_study.html`` if a run of `runs` has made a study; return its path, else None.

    `runs`: as in index.write_index. `command`: the command that runs the experiment. `file`: its file.
    """
    page = Path(folder) / PAGE
    made = next((Path(run["folder"]) for run in runs if run.get("notebook") == MAKE), None)
    study = _metrics(made)
    if not study:
        page.unlink(missing_ok=True)
        return None
    analysed = next((Path(run["folder"]) for run in runs if run.get("notebook") == ANALYSE), None)
    result = _metrics(analysed)
    body = environment().get_template("human_study.html.j2").render(
        study=study, command=command, file=file, warn=study.get("return_to") == "",
        index="index.html", key=(made / KEY).relative_to(folder).as_posix(),
        files=[(text, link_to(made / name, page)) for name, text in FILES.items() if (made / name).is_file()],
        form=link_to(made / FORM, page), codes=[str(code) for code in study.get("codes", [])],
        result=result, mark=mark_of_result(result), means=_means(result),
        problems=_problems(result), lists=[(name, link_to(analysed / name, page)) for name in LISTS
                                           if result and (analysed / name).is_file()],
        notebook=link_to(made / "report.html", page),
        analysis=link_to(analysed / "report.html", page) if result else "")
    return write_page(page, f"{study.get('study', 'human study')}: human study", body)


def _metrics(folder):
    """Return the metrics of a finished run, {} if there are none."""
    try:
        found = read_json(folder / "metrics.json") if folder else {}
    except (StudyError, OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def mark_of_result(result: Mapping[str, Any]) -> str:
    """Return what marks the metrics of an analysis whose ratings do not come from people, "" for ratings by people."""
    return str(result.get("mark") or "SIMULATED") if result.get("simulated") else ""


def _problems(result):
    """Return the counts of the problems by kind as a table, "" if there are none."""
    import pandas as pd
    from markupsafe import Markup

    kinds = result.get("left_out")
    if not isinstance(kinds, list) or not kinds:
        return ""
    table = pd.DataFrame(kinds, columns=["what", "times", "left_out"]).sort_values("times", ascending=False)
    table = table.rename(columns={"what": "problem", "left_out": "rated pages left out"}).reset_index(drop=True)
    return Markup(table_html(table, "Problems by kind"))


def _means(result):
    """Return the mean ratings per method as a table, "" if there are none."""
    import pandas as pd
    from markupsafe import Markup

    means = result.get("means")
    if not isinstance(means, dict) or not means:
        return ""
    table = pd.DataFrame.from_dict(means, orient="index").drop(columns="characters", errors="ignore")
    mark = f"{mark_of_result(result)}: " if mark_of_result(result) else ""
    return Markup(table_html(table.rename_axis("method").reset_index(), f"{mark}Mean rating in points", decimals=2))
