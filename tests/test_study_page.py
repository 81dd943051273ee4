"""The page of a human study, what the start page links of it, and how ratings are handed back to an experiment."""

import re
from urllib.parse import unquote

import pandas as pd
import pytest
import yaml

from kdutils.__main__ import _report
from kdutils.errors import StudyError
from kdutils.experiments import execution, grid
from kdutils.experiments.loading import load_experiment, ratings_source
from kdutils.human_study.design import Study
from kdutils.human_study.forms import write_study
from kdutils.human_study.plan import draw_plan
from kdutils.report.index import write_index
from kdutils.report.ratings import draw_means, marked
from kdutils.report.study_page import write_study_page
from kdutils.runs import write_json
from tests.test_human_study import METHODS, texts_for

EXPERIMENT = {"name": "mini", "about": "", "needs": "", "command": "./run_all.sh mini"}


@pytest.fixture
def finished(tmp_path):
    """The folder of an experiment with a finished study and analysis, and its runs."""
    texts = texts_for(4, 2)
    plan = write_study(tmp_path / "human_study", Study("tiny"), draw_plan(Study("s"), texts, 4, 4, 2), texts)
    write_json(tmp_path / "human_study" / "metrics.json", {
        "study": "<b>tiny", "methods": list(METHODS[:2]), "version": "v", "codes": sorted(plan["rater"].unique()),
        "return_to": "",
        "plan": {"raters": 4, "texts": 8}})
    files = [path.relative_to(tmp_path / "human_study").as_posix() for path in (tmp_path / "human_study").rglob("*.*")]
    write_json(tmp_path / "human_study" / "manifest.json", dict.fromkeys(files, {}))
    analysed(tmp_path, True)
    runs = [{"name": name, "folder": tmp_path / name, "kind": "human_study", "notebook": notebook}
            for name, notebook in (("human_study", "22_make_human_study"), ("human_ratings", "23_analyse_human_study"))]
    return tmp_path, runs


def analysed(folder, simulated):
    write_json(folder / "human_ratings" / "metrics.json", {
        "simulated": simulated, "ratings": 16, "raters": {"kept": 4},
        "left_out": [{"what": "<b>unfinished", "times": 3, "left_out": 12}],
        "means": {method: {"quality": 3.25, "truth": 4.0, "characters": 20.0} for method in METHODS[:2]}})
    write_json(folder / "human_ratings" / "manifest.json", {})
    for name in ("problems.csv", "raters.csv"):
        (folder / "human_ratings" / name).write_text("")


def links(page):
    return [unquote(link) for link in re.findall(r'href="([^"#]+)"', page.read_text(encoding="utf-8"))]


def test_the_page_links_all_that_raters_get_and_not_the_key(finished):
    folder, runs = finished
    page = write_study_page(folder, runs, "./run_all.sh mini", "mini.yaml")
    found = links(page)
    given = ("form.html", "potato/config.yaml", "potato/README.txt", "potato/instructions.html", "survey/survey.csv",
             "survey/columns.txt")
    assert {f"human_study/{name}" for name in given} <= set(found)
    missing = [link for link in found if not (folder / link).exists()]
    assert set(missing) <= {"index.html", "human_study/report.html", "human_ratings/report.html"}, "pages come later"
    words = page.read_text(encoding="utf-8")
    assert "./run_all.sh mini --ratings FOLDER" in words and "PROLIFIC_PID={{%PROLIFIC_PID%}}" in words
    assert "the file of this experiment" in words and "<code>mini.yaml</code>" in words
    assert "return_to</code> is empty" in words and "the same id always gets the same" in " ".join(words.split())
    assert {"human_ratings/problems.csv", "human_ratings/raters.csv"} <= set(found)
    assert re.search("&lt;b&gt;unfinished</td>\\s*<td[^>]*>3</td>\\s*<td[^>]*>12</td>", words), "counts of problems"
    assert re.search('<a class="skip" href="#content".*<main id="content" tabindex="-1">', words, flags=re.DOTALL)
    assert "<b>tiny" not in words and "&lt;b&gt;tiny" in words and "<script" not in words
    write_index(folder, runs, EXPERIMENT)
    assert "human_study.html" in links(folder / "index.html")
    assert "human_study/survey/survey.csv" in links(folder / "index.html")
    for links_of_page in (found, links(folder / "index.html")):
        assert not [link for link in links_of_page if "key" in link]


def test_simulated_ratings_are_called_so_on_both_pages_and_those_of_people_are_not(finished):
    folder, runs = finished
    for simulated in (True, False):
        analysed(folder, simulated)
        for page in (write_study_page(folder, runs, "x"), write_index(folder, runs, EXPERIMENT)):
            assert ("SIMULATED" in page.read_text(encoding="utf-8")) == simulated, page.name
    assert "16 ratings by people" in (folder / "human_study.html").read_text(encoding="utf-8")


def test_without_a_study_there_is_no_page_and_a_study_without_ratings_has_one(finished):
    folder, runs = finished
    (folder / "human_ratings" / "metrics.json").unlink()
    assert "Results" not in write_study_page(folder, runs, "x").read_text(encoding="utf-8")
    (folder / "human_study" / "metrics.json").write_text("[1, 2")
    assert write_study_page(folder, runs, "x") is None and not (folder / "human_study.html").exists()
    assert "human_study.html" not in links(write_index(folder, runs, EXPERIMENT))


def test_figures_and_files_of_simulated_ratings_are_marked():
    table = pd.DataFrame({"method": ["a", "b"] * 2, "construct": ["x", "x", "y", "y"], "mean": [1.0, 2, 3, 4],
                          "low": [0.5, 1, 2, float("nan")], "high": [1.5, 3, 4, float("nan")]})
    axes = {mark: draw_means(mark, table).axes[0] for mark in ("SIMULATED", "")}
    titles = {mark: axis.get_title() or axis.get_title(loc="left") for mark, axis in axes.items()}  # as the style says
    assert titles["SIMULATED"].startswith("SIMULATED") and "SIMULATED" not in titles[""]
    tests = pd.DataFrame({"H": [1.0], "p": [0.0008], "p_corrected": [0.004]})
    assert list(marked("SIMULATED", tests)) == ["H", "mark"] and list(marked("", tests)) == list(tests)


# Handing ratings back ---------------------------------------------------------------------------------------------


@pytest.fixture
def outputs(tmp_path, monkeypatch):
    monkeypatch.setattr(grid, "OUTPUTS", tmp_path / "outputs")
    (tmp_path / "back").mkdir()
    return tmp_path


def ratings_of(experiment):
    return next(job for job in experiment.jobs if job.folder == "human_ratings").parameters.get("ratings", [])


def test_ratings_are_handed_back_once_and_stay(outputs, monkeypatch):
    back = str(outputs / "back")
    assert ratings_of(load_experiment("mini")) == []
    given = load_experiment("mini", ratings=[back])
    assert ratings_of(given) == [back]
    execution.record(load_experiment("mini"), given.folder / execution.RECORD)
    assert execution.check_folder(given).startswith("the ratings or their analysis have changed since the last run")
    execution.record(given, given.folder / execution.RECORD)
    assert ratings_of(load_experiment("mini")) == [back] and not execution.check_folder(load_experiment("mini"))
    assert ratings_of(load_experiment("mini", tiny=True)) == [], "its folder is another"
    monkeypatch.setenv("KDUTILS_CALLED_FROM", str(outputs))
    assert ratings_of(load_experiment("mini", ratings=["back"])) == [back], "it counts from where one calls"
    simulated = load_experiment("mini", ratings=[""])
    assert ratings_of(simulated) == []
    execution.record(simulated, simulated.folder / execution.RECORD)
    assert ratings_of(load_experiment("mini")) == []


def test_ratings_of_an_earlier_call_stop_no_later_one_that_has_no_study_for_them(outputs):
    settings, back = yaml.safe_load((grid.FOLDER / "mini.yaml").read_text(encoding="utf-8")), outputs / "back"
    file, plain = outputs / "a.yaml", {key: value for key, value in settings.items() if key != "human_study"}
    file.write_text(yaml.safe_dump(settings))
    given = load_experiment(file, ratings=[str(back)])
    execution.record(given, given.folder / execution.RECORD)
    file.write_text(yaml.safe_dump(plain))
    without = load_experiment(file)
    assert "human_ratings" not in without.settings and ratings_source(without, False) == ""
    with pytest.raises(StudyError, match="--ratings: .*a.yaml has no human study"):
        load_experiment(file, ratings=[str(back)])
    execution.record(without, without.folder / execution.RECORD)
    file.write_text(yaml.safe_dump(settings))
    assert ratings_of(load_experiment(file)) == [str(back)], "the study is back, and so are its ratings"
    back.rmdir()
    with pytest.raises(StudyError, match="an earlier --ratings .*back: no such file or folder; .* --ratings '' for"):
        load_experiment(file)


def test_the_terminal_says_which_ratings_are_used_and_how_many(outputs, capsys):
    back, own = str(outputs / "back"), str(outputs / "own")
    (outputs / "own").mkdir()
    settings = yaml.safe_load((grid.FOLDER / "mini.yaml").read_text(encoding="utf-8"))
    file = outputs / "a.yaml"
    file.write_text(yaml.safe_dump({**settings, "human_ratings": {"ratings": [own]}}))
    experiment = load_experiment(file)
    assert ratings_source(experiment, False) == f"ratings: {own} (human_ratings of {file})"
    experiment = load_experiment(file, ratings=[back])
    assert ratings_source(experiment, True) == f"ratings: {back}"
    execution.record(experiment, experiment.folder / execution.RECORD)
    experiment = load_experiment(file)
    source = ratings_source(experiment, False)
    assert source.startswith(f"ratings: {back} (named by an earlier --ratings and used in the place of ")
    assert source.endswith(f"human_ratings of {file}; --ratings '' forgets it)")
    _report(experiment, 0, "page", 1.0)
    assert "ratings" not in capsys.readouterr().out, "before the analysis"
    for raters, ratings, problems, words in (
            ({"kept": 5, "kept unfinished": 1, "nothing came": 2}, 47, [{"what": "a", "times": 14}, {
                "what": "b", "times": 2}], "6 of 8 raters kept, 47 ratings used, 16 problems"),
            ({"nothing came": 8}, 0, [], "0 of 8 raters kept, 0 ratings used, 0 problems")):
        write_json(experiment.folder / "human_ratings" / "metrics.json", {
            "raters": raters, "ratings": ratings, "left_out": problems})
        _report(experiment, 0, "page", 1.0)
        assert f"ratings: {words}: {experiment.folder / 'human_study.html'}\n" in capsys.readouterr().out
    for more, mark in (({"simulated": True, "mark": "RATED BY A MODEL"}, "RATED BY A MODEL: "), (
            {"simulated": True}, "SIMULATED: "), ({"simulated": False, "mark": ""}, "")):
        write_json(experiment.folder / "human_ratings" / "metrics.json", {
            "raters": {"kept": 8}, "ratings": 64, "left_out": [], **more})
        _report(experiment, 0, "page", 1.0)
        assert f"ratings: {mark}8 of 8 raters kept, 64 ratings used, " in capsys.readouterr().out
    assert not ratings_source(load_experiment("mini"), False)
    _report(load_experiment("mini"), 0, "page", 1.0)
    assert "ratings" not in capsys.readouterr().out, "simulated raters"


def test_ratings_that_cannot_be_handed_back_are_one_clear_line(outputs):
    with pytest.raises(StudyError, match="--ratings .*nowhere: no such file or folder; name its place"):
        load_experiment("mini", ratings=[str(outputs / "nowhere")])
    settings = yaml.safe_load((grid.FOLDER / "mini.yaml").read_text(encoding="utf-8"))
    del settings["human_study"]
    (outputs / "a.yaml").write_text(yaml.safe_dump(settings))
    with pytest.raises(StudyError, match=r"--ratings: .*a.yaml has no human study \(key human_study\)"):
        load_experiment(outputs / "a.yaml", ratings=[str(outputs / "back")])
