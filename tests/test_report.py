"""The pages: hostile text stays text, nothing runs, nothing is fetched, every link leads somewhere."""

import base64
import json
import os
import re
import shutil
import subprocess
import threading
from contextlib import contextmanager
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pandas as pd
import pytest

from kdutils.errors import StudyError
from kdutils.report import index
from kdutils.report.answer_html import look_html
from kdutils.report.figures import (
    accuracy_by_method,
    interval_half_width,
    learning_curves,
    length_histogram,
    show,
)
from kdutils.report.notebook_pages import render_notebook
from kdutils.report.safe_html import environment, make_visible, sanitise_output
from kdutils.report.tables import show_table, table_html
from tests.chromium import Chromium

PNG = base64.b64encode(bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360f8cf"
    "c0f01f0005000201a5f645400000000049454e44ae426082")).decode()
RUN = "document.title='it ran';document.body.appendChild(document.createElement('it-ran'))"


def payloads(server):
    """Return hostile texts by name; those that fetch something fetch it from `server`."""
    return {
        "script": f"<script>{RUN};new Image().src='{server}/by-script'</script>",
        "script_src": f'<script src="{server}/script.js"></script>',
        "onerror": f'<img src="{server}/pixel.png" onerror="{RUN}">',
        "svg": f'<svg onload="{RUN}"><image href="{server}/svg.png"/></svg>',
        "cell_end": f"</td></tr></table></pre></details></div></section><script>{RUN}</script>",
        "link": f'<a href="javascript:{RUN}" onclick="{RUN}">a</a> [b](javascript:alert) ![i]({server}/md.png)',
        "frame": f'<iframe src="{server}/frame"></iframe><object data="{server}/object"></object>',
        "style": f'<style>@import "{server}/import.css";</style><link rel="stylesheet" href="{server}/style.css">',
        "inline_style": f'<div style="position:fixed;background:url({server}/background.png)">over everything</div>',
        "media": f'<video src="{server}/video" autoplay></video><form action="{server}/form"><input autofocus></form>',
        "jinja": "{{ 7 * 191 }} {% for x in y %} ${7*191}",
        "bidi": "\u202egnp.exe\u202c \u2066שלום\u2069 مرحبا",
        "long": "w" * 10_000,
        "control": "a\x00b\x1b[31mc\x07d\x1b]8;;http://x\x07e\ud800f\x9b",
    }


REDIRECT = '<meta http-equiv="refresh" content="0;url={}/redirect"><base href="{}/">'


def markdown(text):
    return {"cell_type": "markdown", "id": _id(), "metadata": {}, "source": text}


def code(source, *outputs, tags=(), **metadata):
    return {"cell_type": "code", "id": _id(), "metadata": {"tags": list(tags), **metadata}, "source": source,
            "execution_count": 1, "outputs": list(outputs)}


def _id(counter=iter(range(10**6))):  # noqa: B008  (one counter for the module)
    return f"c{next(counter)}"


def shown(metadata=None, **data):
    data = {name.replace("__", "/").replace("svg", "svg+xml"): value for name, value in data.items()}
    return {"output_type": "display_data", "metadata": metadata or {}, "data": data}


def stream(text, name="stdout"):
    return {"output_type": "stream", "name": name, "text": text}


def error(value, name="StudyError", traceback=("Traceback", "StudyError")):
    return {"output_type": "error", "ename": name, "evalue": value, "traceback": list(traceback)}


def write_notebook(path, *cells, **metadata):
    """Write a notebook as papermill leaves it; escaped JSON, so that a broken character survives."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": metadata, "cells": list(cells)}))
    return path


def hostile_notebook(path, server):
    texts = list(payloads(server).values()) + [REDIRECT.format(server, server)]
    everything = "\n\n".join(texts)
    frame = pd.DataFrame({"explanation": texts[:-3], texts[0]: texts[:-3]})
    return write_notebook(
        path,
        markdown(f"# {texts[0]}\n\n{everything}"), markdown(f"## {texts[2]}"),
        code("note = ''  # free text", tags=["parameters"]),
        code(f"note = {everything!r}", tags=["injected-parameters"]),
        code(f"# {everything}", stream(everything), stream(everything, "stderr"), shown(text__html=everything),
             shown(text__html=table_html(frame, caption=texts[0])), shown(text__html=frame.to_html()),
             shown(text__markdown=everything), shown(text__plain=everything),
             shown({"image/png": {"alt": f'"><script>{RUN}</script>'}}, image__png=PNG),
             shown(image__svg=f'<svg xmlns="http://www.w3.org/2000/svg" onload="{RUN}">{texts[0]}{texts[3]}</svg>'),
             shown(application__javascript=RUN, text__plain="a script"),
             shown(**{"application__vnd.jupyter.widget-view+json": {"model_id": "x"}, "text__plain": "a widget"}),
             error(everything, name=texts[0], traceback=[everything])))


class Page(HTMLParser):
    """What a test asks of a page: its tags with attributes, its text, its ids and links."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words, self.inside = [], [], ""
        self.feed(text)
        self.text = "".join(self.words)
        self.ids = [value["id"] for _, value in self.tags if "id" in value]
        self.links = [value["href"] for tag, value in self.tags if tag == "a" and "href" in value]

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.inside = tag

    def handle_data(self, data):
        if self.inside != "style":
            self.words.append(data)

    def named(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def read_page(path):
    return Page(Path(path).read_text(encoding="utf-8"))


def assert_harmless(page):
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "iframe", "object", "embed", "svg", "video", "audio", "link", "base", "form", "input"}
    assert len(page.named("style")) == 1 and len(page.named("meta")) == 4  # those of the template
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on") or name in ("srcset", "ping", "formaction")]
        assert re.fullmatch(r"(text-align:\s*\w+;?)?", attributes.get("style", ""))
        assert attributes.get("src", "data:image/png;").startswith(("data:image/png;", "data:image/svg+xml;"))
        assert re.match(r"https?://|#|[^:]*$", attributes.get("href", ""))
    policy = [value["content"] for value in page.named("meta") if "http-equiv" in value]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
                      "form-action 'none'"]


# Hostile text -----------------------------------------------------------------------------------------------------


def test_a_hostile_notebook_becomes_a_harmless_page(tmp_path):
    texts = payloads("http://127.0.0.1:9")
    page = read_page(render_notebook(hostile_notebook(tmp_path / "n.ipynb", "http://127.0.0.1:9"), tmp_path / "n.html"))
    assert_harmless(page)
    for name in ("script", "onerror", "svg", "cell_end", "frame", "inline_style", "jinja", "bidi", "long"):
        # parameters show it as a Python text; code, stdout, stderr, plain text, error, own table and pandas as it is
        assert page.text.count(texts[name]) >= 6, name
    assert "1337" not in page.text
    assert page.text.count("a␀bc␇de\ufffdf\ufffd") >= 5
    assert "a script" in page.text and "a widget" in page.text
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", (tmp_path / "n.html").read_text(encoding="utf-8"))


def test_html_in_markdown_is_text(tmp_path):
    html = "<b>bold</b> <script>x()</script> <details>d</details>"
    notebook = write_notebook(tmp_path / "n.ipynb", markdown(f"# {html}\n\n{html}\n\n{html}"),
                              code("1", shown(text__markdown=html)))
    page = read_page(render_notebook(notebook, tmp_path / "n.html"))
    assert page.text.count(html) == 5 and not page.named("b")  # title, heading, two paragraphs and the output


def test_an_output_cannot_leave_its_box(tmp_path):
    cells = [code("1", shown(text__html='</div></section></main><p id="x" class="alarm">fake <table><td>cell')),
             code("2", stream("after"))]
    render_notebook(write_notebook(tmp_path / "n.ipynb", *cells), tmp_path / "n.html")
    text = (tmp_path / "n.html").read_text(encoding="utf-8")
    first = text[text.index('id="cell.0"'):text.index('id="cell.1"')]
    assert "fake" in first and first.count("</section>") == 1 and first.count("<div") == first.count("</div>")
    page = Page(text)
    assert "x" not in page.ids and not [value for value in page.named("p") if value.get("class") == "alarm"]


@pytest.mark.parametrize("link, kept", [
    ("https://example.org/a", True), ("#part", True), ("../index.html", True), ("data.csv", True),
    ("javascript:alert(1)", False), ("JaVaScRiPt:alert(1)", False), ("java\tscript:alert(1)", False),
    (" javascript:alert(1)", False), ("data:text/html,x", False), ("//example.org/x", False),
    ("\\\\example.org\\x", False), ("/\t/example.org", False), ("file:///etc/passwd", False), ("vbscript:x", False)])
def test_links(link, kept):
    assert ("href" in sanitise_output(f'<a href="{link}">x</a>')) == kept


@pytest.mark.parametrize("source, kept", [
    (f"data:image/png;base64,{PNG}", True), ("https://example.org/a.png", False), ("a.png", False),
    ("data:text/html;base64,PHA+", False), ("data:image/svg+xml,<svg onload=alert(1)>", False), ("//x/a.png", False)])
def test_images(source, kept):
    assert ("src" in sanitise_output(f'<img src="{source}" alt="x">')) == kept


def test_tables_keep_their_parts():
    table = ('<table class="dataframe evil"><caption>c</caption><thead><tr><th colspan="2" scope="col">h</th></tr>'
             '</thead><tbody><tr><td rowspan="2" style="text-align: right;color:red">1</td></tr></tbody></table>')
    clean = sanitise_output(table)
    assert '<table class="dataframe">' in clean and "<caption>c</caption>" in clean and 'colspan="2"' in clean
    assert 'rowspan="2"' in clean and "text-align" in clean and "color" not in clean


def test_control_characters_are_made_visible():
    assert make_visible("\x1b[1;31mred\x1b[0m\r\nnext\tend\x00\x7f\udcff") == "red\nnext\tend␀␡\ufffd"


# In a browser -----------------------------------------------------------------------------------------------------


@contextmanager
def listening():
    """A server on this machine that keeps the paths it was asked for."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def browse(page, profile):
    """Return the document of `page` as it stands after its scripts, had it any, have run."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if not browser:
        pytest.skip("no Chromium found: put chromium, chromium-browser or google-chrome on the PATH")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
               "--disable-component-update", "--disable-sync", "--no-first-run", "--virtual-time-budget=3000"]
    done = subprocess.run([browser, f"--user-data-dir={profile}", *options, "--dump-dom", page.as_uri()],
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "<body" in done.stdout, done.stderr[-2000:]
    return Page(done.stdout)


def title(page):
    return next((word for word in page.words if word.strip()), "").strip()


def test_nothing_runs_and_nothing_is_fetched_in_a_browser(tmp_path):
    with listening() as (server, asked):
        texts = payloads(server)
        bait = "".join(texts[name] for name in ("script", "script_src", "onerror", "svg", "style", "frame"))

        control = tmp_path / "control.html"
        control.write_text(f"<!doctype html><title>quiet</title><body>{bait}", encoding="utf-8")
        page = browse(control, tmp_path / "profile")
        assert title(page) == "it ran" and page.named("it-ran"), "the control must run: else this test proves nothing"
        assert {"/by-script", "/script.js", "/pixel.png", "/frame", "/style.css"} <= set(asked)

        asked.clear()
        policy_alone = tmp_path / "policy.html"
        policy_alone.write_text(environment().get_template("page.html.j2").render(title="quiet", css="", body=bait))
        page = browse(policy_alone, tmp_path / "profile")
        assert page.named("script") and title(page) == "quiet" and not page.named("it-ran")
        assert asked == [], "the policy alone must hold, should something slip through the sanitiser"

        notebook = hostile_notebook(tmp_path / "a" / "notebook.ipynb", server)
        render_notebook(notebook, tmp_path / "a" / "report.html", title="quiet", index_link="../index.html")
        hostile_index(tmp_path, server)
        for path in (tmp_path / "a" / "report.html", tmp_path / "index.html"):
            page = browse(path, tmp_path / "profile")
            assert title(page).startswith("quiet") and not page.named("it-ran")
            assert_harmless(page)
            assert asked == []


# The page of a notebook -------------------------------------------------------------------------------------------


def test_contents_alternative_texts_parameters_and_collapsed_code(tmp_path):
    notebook = write_notebook(
        tmp_path / "n.ipynb",
        markdown("# The title\n\n| a | b |\n|--|--:|\n| 1 | 2 |"),
        code("alpha = 0.5  # weight of predict\nseeds = [0, 1]  # students\nname = 'x # y'  # a text",
             tags=["parameters"]),
        code("# Parameters\nalpha = 0.25\n", tags=["injected-parameters"]),
        markdown("## Same"), markdown("## Same\n\n### Cell.3\n\n#### too deep"),
        code("print('hello')", shown({"image/png": {"alt": "a rising line"}}, image__png=PNG), shown(image__png=PNG),
             stream("10%\r50%"), stream("\r100%\ndone\n"), stream("careful", "stderr")),
        papermill={"start_time": "2026-01-02T03:04:05.6+00:00", "duration": 61.2})
    page = read_page(render_notebook(notebook, tmp_path / "n.html", index_link="index.html"))
    assert title(page) == "The title"
    assert len(page.ids) == len(set(page.ids))
    anchors = [link[1:] for link in page.links if link.startswith("#")]
    assert anchors == ["content", "contents", "same", "same-2", "cell-3"] and set(anchors) <= set(page.ids)
    assert [image["alt"] for image in page.named("img")] == ["a rising line", "figure without a description"]
    assert page.named("details") and all("open" not in value for value in page.named("details"))
    words = " ".join(" ".join(page.words).split())
    assert "Parameters of this run name value meaning alpha 0.25 (not the default) weight of predict" in words
    assert words.index("done careful") < words.index("Parameters of this run") < words.rindex("Contents")
    assert "seeds [0, 1] students" in words and "name 'x # y' a text" in words
    assert [value["class"] for value in page.named("pre") if "class" in value] == ["output stdout", "output stderr"]
    assert "100%\ndone" in page.text and "50%" not in page.text
    assert "executed 2026-01-02 03:04 · 61 s" in words and "index.html" in page.links


def test_sections_are_folded_values_left_out_and_code_put_at_the_end_where_a_notebook_says_so(tmp_path):
    def fold(text):
        return {**markdown(text), "metadata": {"tags": ["fold"]}}

    value = {"output_type": "execute_result", "execution_count": 1, "metadata": {}, "data": {"text/plain": "8"}}
    frame = shown(text__html="<table><thead><tr><th></th><th>a</th></tr></thead><tbody><tr><th>0</th></tr>"
                             "</tbody></table>")
    cells = [markdown("# Title"), code("answer()", stream("the answer")), fold("## More <b>\n\nProse."),
             code("table()", frame, value), fold("## Check"), code("assert_it()", value), markdown("## Next\n\nRead.")]
    path = write_notebook(tmp_path / "n.ipynb", *cells, kdutils={"code": "end"})
    page = read_page(render_notebook(path, tmp_path / "n.html"))
    assert_harmless(page)
    words = "".join(page.text.split())
    assert words.endswith("TitletheanswerMore<b>Prose.a0NextRead.Codeanswer()table()assert_it()ContentsMore<b>Next")
    assert "8" not in words and "Check" not in words and "check" not in page.ids
    assert [value.get("class") for value in page.named("details")] == ["fold", "fold"]
    assert [value["scope"] for value in page.named("th")] == ["col", "col", "row"]
    assert [link for link in page.links if link.startswith("#")] == ["#content", "#contents", "#more-b", "#next"]
    failed = write_notebook(tmp_path / "f.ipynb", *cells[:3], code("bad()", error("no")), kdutils={"code": "end"})
    page = read_page(render_notebook(failed, tmp_path / "f.html"))
    assert "open" in page.named("details")[0] and "#cell.3" in page.links  # the fault is in sight
    assert "code" in read_page(render_notebook(write_notebook(tmp_path / "b.ipynb", *cells), tmp_path / "b.html")).text


def test_a_failed_notebook_says_so_at_the_top_and_links_to_the_cell(tmp_path):
    notebook = write_notebook(
        tmp_path / "n.ipynb", markdown("# Title"), code("fine"),
        code("bad", error("first\nq.parquet: row 3 is <empty>\n", traceback=["\x1b[31mTraceback\x1b[0m", "end"])))
    page = read_page(render_notebook(notebook, tmp_path / "n.html"))
    assert page.text.index("This run failed.") < page.text.rindex("Title")
    assert "StudyError: q.parquet: row 3 is <empty>" in page.text and "Traceback\nend" in page.text
    assert "#cell.2" in page.links and "cell.2" in page.ids


def test_an_unfinished_notebook_says_so(tmp_path):
    notebook = write_notebook(tmp_path / "n.ipynb", code("done", papermill={"status": "completed"}),
                              code("next", papermill={"status": "pending"}))
    page = read_page(render_notebook(notebook, tmp_path / "n.html"))
    assert "did not run to its end" in page.text and "#cell.1" in page.links


def test_a_run_without_other_parameters_shows_its_defaults(tmp_path):
    notebook = write_notebook(tmp_path / "n.ipynb", code("seeds: list = [1]  # students", tags=["parameters"]))
    assert "Parameters of this run" in read_page(render_notebook(notebook, tmp_path / "n.html")).text


@pytest.mark.parametrize("text", ["", "{", "[]", '{"cells": 3}', '{"nbformat": 4, "metadata": {}, "cells": [{}]}'])
def test_a_broken_notebook_is_an_error_a_person_can_read(tmp_path, text):
    (tmp_path / "n.ipynb").write_text(text)
    with pytest.raises(StudyError, match="n.ipynb: not a readable notebook"):
        render_notebook(tmp_path / "n.ipynb", tmp_path / "n.html")
    with pytest.raises(StudyError, match="no such file"):
        render_notebook(tmp_path / "none.ipynb", tmp_path / "n.html")
    assert not (tmp_path / "n.html").exists()


# The index --------------------------------------------------------------------------------------------------------


def make_run(root, name, *cells, kind="students", metrics=None, files=(), labels=None, parameters=None, **metadata):
    """Make a run folder as a notebook leaves it and return what the index is told about it."""
    folder = root / name
    folder.mkdir(parents=True)
    if cells:
        write_notebook(folder / "notebook.ipynb", *cells, **metadata)
    if metrics is not None:
        for file in files:
            (folder / file).write_text("x")
        (folder / "metrics.json").write_text(json.dumps(metrics))
        (folder / "run.json").write_text(json.dumps({"seconds": 200.4}))
        (folder / "manifest.json").write_text(json.dumps({file: {} for file in ("metrics.json", *files)}))
    return {"name": name, "folder": folder, "kind": kind, "notebook": "12_train_multitask",
            "parameters": parameters or {}, "labels": labels or {}}


def hostile_index(root, server):
    everything = "\n".join(payloads(server).values())
    comparison = {"summary": [everything, 3, None], "accuracy": [{"method": everything, "mean": everything}, 7, {}]}
    runs = [make_run(root, "comparison", code("1"), kind="comparison", metrics=comparison),
            make_run(root, "bad", code("1", error(everything, name=everything))),
            make_run(root, "odd", code("1"), kind=everything, metrics={everything: 1.5, "x": everything},
                     labels={everything: everything, "seeds": [everything]}, parameters={everything: everything})]
    (root / "odd" / "manifest.json").write_text(json.dumps(
        {everything + ".csv": {}, "../outside.csv": {}, "/etc/x.csv": {}, "javascript:alert(1)//.csv": {}}))
    (root / "outside.csv").write_text("not of this run")
    runs.append({**make_run(root, "named", code("1")), "name": everything, "notebook": everything})
    index.render_pages(root, runs)
    return index.write_index(root, runs, {"name": "quiet", "about": everything, "needs": everything,
                                          "command": everything})


def test_hostile_labels_metrics_and_errors_are_text_on_the_index(tmp_path):
    texts = payloads("http://127.0.0.1:9")
    page = read_page(hostile_index(tmp_path, "http://127.0.0.1:9"))
    assert_harmless(page)
    for name in ("script", "onerror", "svg", "cell_end", "frame", "jinja", "bidi", "long"):
        assert page.text.count(texts[name]) >= 8, name
    assert "1337" not in page.text and not [link for link in page.links if ".csv" in link]
    for path in tmp_path.rglob("report.html"):
        assert_harmless(read_page(path))


def some_runs(root):
    return [
        make_run(root, "data/mini", code("1", stream("x")), kind="data", metrics={"rows": 300},
                 files=["questions.parquet"], labels={"dataset": "mini"}),
        make_run(root, "students/a b#1%20ü", markdown("# Train\n\n## Part"), kind="students",
                 metrics={"loss": 2.5, "dev_accuracy": 0.6123, "text": "no"}, files=["c u#rves.csv", "model.bin"],
                 labels={"method": "multitask", "seeds": [0, 1]}, parameters={"alpha": 0.25}),
        make_run(root, "students/failed", code("1", error("row 3: field 'answer' is empty"))),
        make_run(root, "students/killed", code("1"), papermill={"exception": True}),
        make_run(root, "students/stopped", code("1")),
        make_run(root, "students/waiting"),
        make_run(root, "comparison", code("1"), kind="comparison", metrics={
            "summary": ["Multitask leads by 4 points."],
            "accuracy": [{"dataset": "mini", "student": "t5", "prompting": "few_shot", "method": "multitask",
                          "mean": 0.612, "low": 0.58, "high": 0.64, "n_seeds": 5, "chance": 0.2},
                         {"dataset": "mini", "method": "label_only", "mean": 0.55, "low": None, "n_seeds": 1}]}),
    ]


ANSWER = {
    "statements": [{"question": "Does explaining help?", "verdict": "No benefit shown.", "text": "Both 61.2 % right.",
                    "sure": ["Not sure: 3 seeds."], "more": "LAS +0.3 & more."},
                   {"question": "Several?", "verdict": "It depends.", "text": "a", "sure": ["s: one.", "t: two."]}],
    "figure": "A figure of differences", "limits": ["Other data: it is about mini."],
    "example": {"question": "What flies?", "choices": ["bee", "cow"], "answer": "bee", "note": "Drawn at random.",
                "rows": [{"who": "teacher", "answer": "–", "explanation": "A bee flies."},
                         {"who": "multitask", "answer": "✗ cow", "explanation": "A cow flies.", "true": "✗ false"}]}}


def test_the_answer_is_the_first_thing_on_the_index_and_the_rest_is_folded(tmp_path):
    runs = some_runs(tmp_path)
    metrics = tmp_path / "comparison" / "metrics.json"
    metrics.write_text(json.dumps(json.loads(metrics.read_text()) | {"answer": ANSWER}))
    (tmp_path / "comparison" / "differences.png").write_bytes(base64.b64decode(PNG))
    page = read_page(index.write_index(tmp_path, runs, {"name": "mini", "planned": ["not shown any more"],
                                                       "names": [("<b>mine", "Answers & more.")]}))
    assert_harmless(page)
    words = " ".join(" ".join(page.words).split())
    order = ["Does explaining help? No benefit shown.", "Not sure: 3 seeds.", "Details LAS +0.3 & more.",
             "How sure, for each student s: one. t: two.", "What the names mean", "<b>mine : Answers & more.",
             "What flies? (a) bee (b) cow. Right answer: bee .",
             "teacher explains bee A bee flies. –", "multitask ✗ cow A cow flies. ✗ false",
             "Drawn at random.", "What this experiment cannot say Other data: it is about mini.", "multitask 61.2 %",
             "Multitask leads by 4 points.", "Data (1 done)", "Students (1 done, 2 failed, 1 stopped, 1 waiting)"]
    places = [words.index(text) for text in order]
    assert places == sorted(places) and "not shown any more" not in words
    picture, = page.named("img")
    assert picture == {"src": f"data:image/png;base64,{PNG}", "alt": "A figure of differences"}
    assert [value.get("open") is not None for value in page.named("details")[:5]] == [False] * 5
    assert sum("open" in value for value in page.named("details")) == 1  # the kind with failed runs
    assert {value.get("class") for value in page.named("td")} >= {"wrong"}
    assert all(value["scope"] == "col" for value in page.named("th"))
    first = next(value for tag, value in page.tags if tag == "a")
    assert first["href"] == "#content" and "content" in page.ids


def look_page(folder, figure="f.png", about='A "<b>figure'):
    """Return the page of a notebook that shows the statements of ANSWER with a figure, as notebook 31 does."""
    (folder / "f.png").write_bytes(base64.b64decode(PNG))
    html = str(look_html(ANSWER["statements"][:1], folder / figure, about))
    write_notebook(folder / "n.ipynb", markdown("# Compare\n\n## The answer"), code("1", shown(text__html=html)))
    return render_notebook(folder / "n.ipynb", folder / "n.html")


def test_the_answer_on_the_page_of_a_notebook_has_its_figure_and_its_details(tmp_path):
    page = read_page(look_page(tmp_path))
    assert_harmless(page)
    assert page.named("img") == [{"src": f"data:image/png;base64,{PNG}", "alt": 'A "<b>figure'}]
    assert "Details" in page.text and "LAS +0.3 & more." in page.text and "filled dot" in page.text
    for missing in ({"about": ""}, {"figure": "none.png"}):
        page = read_page(look_page(tmp_path, **missing))
        assert not page.named("img") and "filled dot" not in page.text and "Both 61.2\u00a0% right." in page.text


def test_the_figure_is_beside_the_answer_and_below_it_on_a_phone(tmp_path):
    places = """JSON.stringify([".look > div", ".look > figure"].map(one => {
        const box = document.querySelector(one).getBoundingClientRect()
        return [box.left, box.right, box.top, box.bottom]}))"""
    with Chromium(look_page(tmp_path).as_uri(), tmp_path / "browser") as browser:
        for width in (1280, 390):
            browser.call("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1,
                         mobile=False)
            text, figure = json.loads(browser.value(places))
            beside, below = figure[0] >= text[1], figure[2] >= text[3]
            assert (beside, below) == (width == 1280, width == 390) and figure[1] <= width, (text, figure)


@pytest.mark.parametrize("broken", [
    3, [], {"statements": 3, "example": [], "limits": {}, "figure": 5}, {"statements": [3, {}], "limits": [None]},
    {"example": {"rows": [{}, 3]}}, {"example": {"rows": [{"who": ["x"]}], "choices": "bee"}}])
def test_an_answer_of_another_shape_stops_nothing(tmp_path, broken):
    runs = [make_run(tmp_path, "comparison", code("1"), kind="comparison",
                     metrics={"summary": ["Multitask leads."], "answer": broken})]
    assert "Multitask leads." in read_page(index.write_index(tmp_path, runs, {"name": "mini"})).text


def test_before_there_is_a_result_the_index_says_what_the_runs_can_show(tmp_path):
    page = read_page(index.write_index(tmp_path, some_runs(tmp_path)[:2], {"planned": ["About 14 points <and> more."]}))
    assert "About 14 points <and> more." in page.text and "no result, or an outdated one" in page.text


def test_states(tmp_path):
    states = {Path(run["folder"]).name: index.state_of(Path(run["folder"]))[0] for run in some_runs(tmp_path)}
    assert states == {"mini": "done", "a b#1%20ü": "done", "failed": "failed", "killed": "failed",
                      "stopped": "stopped", "waiting": "waiting", "comparison": "done"}


def test_an_outdated_run_says_why_and_an_outdated_comparison_is_no_answer(tmp_path):
    data, student, *_, comparison = some_runs(tmp_path)
    student["outdated"] = "was made from another <table>"
    page = read_page(index.write_index(tmp_path, [data, student, comparison], {"name": "mini"}))
    words = " ".join(" ".join(page.words).split())
    assert "2 of 3 runs done, 1 outdated." in words and "↻ outdated" in words and "another <table>" in words
    assert "Multitask leads" in words and "61.2 % right on dev" in words, "it is kept, with its page"
    comparison["outdated"] = "builds on students/a, which is to be made again"
    page = read_page(index.write_index(tmp_path, [data, student, comparison], {"name": "mini"}))
    assert "Multitask leads" not in page.text and "no result, or an outdated one" in page.text


def test_the_index_leads_to_everything(tmp_path):
    runs = some_runs(tmp_path)
    assert len(index.render_pages(tmp_path, runs)) == 6
    path = index.write_index(tmp_path, runs, {"name": "mini", "about": "Which way?", "needs": "nothing",
                                              "command": "./run_all.sh mini"})
    page = read_page(path)
    assert_harmless(page)
    words = " ".join(" ".join(page.words).split())
    assert "3 of 7 runs done, 2 failed, 1 stopped, 1 waiting." in words and "./run_all.sh mini" in words
    assert "StudyError: row 3: field 'answer' is empty" in words and "students/failed/report.html" in page.links
    assert "the kernel was stopped or killed" in words
    assert "Multitask leads by 4 points." in words and "multitask 61.2 % 58.0 % to 64.0 % 5 20.0 %" in words
    assert "label_only 55.0 % – 1 –" in words
    assert "61.2 % right on dev" in words and "3 min 20 s" in words and "alpha 0.25" in words and "0, 1" in words
    linked = {unquote(link) for link in page.links}
    assert {"data/mini/questions.parquet", "students/a b#1%20ü/c u#rves.csv", "data/mini/run.json",
            "data/mini/metrics.json", "data/mini/notebook.ipynb"} <= linked
    assert "students/a b#1%20ü/model.bin" not in linked
    for target in [path, *tmp_path.rglob("report.html")]:
        assert_links_resolve(target)


@pytest.mark.parametrize(("kind", "metrics", "said"), [
    ("data", {"questions": {"train": 320, "test": 200}, "left_out": {"dev: left out by the limit": 152}},
     "320 train, 200 test questions"),
    ("explanations", {"texts": 568, "unusable": 12, "notes": {"eligible words": 7866}}, "568 texts, 12 unusable"),
    ("explanations", {"texts": 568, "unusable": 0}, "568 texts"),
    ("students", {"dev_accuracy": 1.0, "tasks": {"predict": 1.0}}, "100.0 % right on dev"),
    ("evaluations", {"accuracy": {"mean": 0.0, "chance": None}, "calibration_error": 0.1}, "accuracy 0.0 %"),
    ("human_study", {"detectable_vda": 0.692, "plan": {"raters": 8, "texts": 32, "method_per_position_spread": 0}},
     "8 raters, 32 texts"),
    ("human_study", {"ratings": 64, "raters": {"kept": 7, "excluded": 1}, "simulated": True},
     "SIMULATED 64 ratings, 7 raters kept"),
    ("comparison", {"tests": []}, "–"), ("students", {"dev_accuracy": "<b>"}, "–"),
    ("data", {"questions": 3}, "–")])
def test_the_list_of_runs_says_in_words_what_is_worth_saying(tmp_path, kind, metrics, said):
    runs = [make_run(tmp_path, "one", code("1"), kind=kind, metrics=metrics)]
    words = " ".join(" ".join(read_page(index.write_index(tmp_path, runs, {"name": "mini"})).words).split())
    assert f"3 min 20 s {said} notebook" in words


def assert_links_resolve(path):
    page = read_page(path)
    for link in page.links:
        if link.startswith("#"):
            assert link[1:] in page.ids
        elif not link.startswith("http"):
            assert (path.parent / unquote(link)).is_file(), link


def test_pages_are_rendered_again_only_where_needed(tmp_path):
    runs = some_runs(tmp_path)[:3]
    pages = [Path(run["folder"]) / "report.html" for run in runs]
    assert index.render_pages(tmp_path, runs) == pages
    assert index.render_pages(tmp_path, runs) == []
    pages[0].write_text(pages[0].read_text() + "altered")
    pages[1].unlink()
    assert index.render_pages(tmp_path, runs) == pages[:2]
    assert "altered" not in pages[0].read_text()
    later = pages[2].stat().st_mtime + 10
    os.utime(pages[2].with_name("notebook.ipynb"), (later, later))
    assert index.render_pages(tmp_path, runs) == pages[2:]
    long_ago = 1_000_000_000  # before the templates were written
    for page in pages[:2]:
        os.utime(page.with_name("notebook.ipynb"), (long_ago - 9, long_ago - 9))
        os.utime(page, (long_ago, long_ago))
    os.utime(pages[2], (later, later))
    assert index.render_pages(tmp_path, runs) == pages[:2]
    (tmp_path / "pages.json").write_text("{broken")
    assert index.render_pages(tmp_path, runs) == pages


def test_an_index_without_runs(tmp_path):
    page = read_page(index.write_index(tmp_path / "new", [], {"name": "mini"}))
    assert "There are no runs" in page.text and "0 of 0 runs done" in page.text


@pytest.mark.parametrize("broken", ["{", "[1]", "", "\x00", "9" * 5000])
def test_broken_files_are_named_and_stop_nothing(tmp_path, broken):
    run = make_run(tmp_path, "comparison", code("1"), kind="comparison", metrics={})
    for name in ("metrics.json", "manifest.json", "run.json"):
        (run["folder"] / name).write_text(broken)
    torn = make_run(tmp_path, "torn", code("1"))
    (torn["folder"] / "notebook.ipynb").write_text(broken)
    index.render_pages(tmp_path, [run, torn])
    page = read_page(index.write_index(tmp_path, [run, torn], {"name": "mini"}))
    for name in ("metrics.json", "manifest.json", "run.json", "notebook.ipynb"):
        assert f"{name} is not" in page.text, name
    assert index.state_of(torn["folder"])[0] == "stopped" and not (torn["folder"] / "report.html").exists()


# Figures and tables -----------------------------------------------------------------------------------------------


@pytest.fixture
def displayed(monkeypatch):
    """What a notebook would be sent: a list of (data, metadata)."""
    import IPython.display
    import matplotlib

    matplotlib.use("Agg")
    sent = []

    def display(data, metadata=None, raw=False):
        sent.append((data, metadata))

    monkeypatch.setattr(IPython.display, "display", display)
    return sent


def accuracies():
    rows = [("multitask", "few_shot", seed, 0.6 + 0.01 * seed) for seed in range(5)] + [("a$b^$", "", 0, 0.5)]
    return pd.DataFrame([{"method": method, "student": "t5", "dataset": "mini", "prompting": prompting, "seed": seed,
                          "accuracy": accuracy} for method, prompting, seed, accuracy in rows])


def test_a_figure_needs_an_alternative_text_and_stays_small(displayed):
    import matplotlib.pyplot as plt

    plt.close("all")
    figure = accuracy_by_method(accuracies(), chance={"mini": 0.2})
    for alt in ("", "  ", None):
        with pytest.raises(ValueError, match="alternative text"):
            show(figure, alt)
    show(figure, "multitask leads")
    curves = pd.DataFrame([{"seed": seed, "step": step, "dev_accuracy": step / 100, "dev_loss": 1 / (1 + step),
                            "loss_predict": 1.0, "loss_explain": None if step % 2 else 2.0}
                           for seed in range(5) for step in range(50)])
    show(learning_curves(curves), "curves")
    show(length_histogram({"rationale": range(90), "revision": []}, "words"), "lengths")
    for data, metadata in displayed:
        assert metadata["image/png"]["alt"] == data["text/plain"] != ""
        assert 5_000 < len(base64.b64decode(data["image/png"])) < 100_000
    assert not plt.get_fignums()


def test_accuracy_by_method_says_how_many_seeds_and_what_chance_is(displayed):
    axis = accuracy_by_method(accuracies(), chance=0.2).axes[0]
    labels = [label.get_text() for label in axis.get_yticklabels()]
    assert labels == ["multitask · few_shot (n = 5)", "a$b^$ (n = 1, no interval)"]
    assert [text.get_text() for text in axis.texts] == ["← chance 0.20"] and axis.get_xlim()[0] > 0.4  # fitted
    near, weak = accuracy_by_method(accuracies(), chance=0.55).axes[0], accuracies()[::-1].assign(method="x")
    assert [text.get_text() for text in near.texts] == ["chance 0.55"] and near.lines[-1].get_xdata() == [0.55, 0.55]
    weak.loc[weak["prompting"] != "", "method"] = "y"  # the highest mean is first, in whatever order the rows are
    assert accuracy_by_method(weak, 0.5).axes[0].get_yticklabels()[0].get_text().startswith("y ·")
    dots = [line for line in axis.get_lines() if line.get_marker() == "o"]
    assert [len(line.get_xdata()) for line in dots] == [5, 1]
    assert interval_half_width([0.6, 0.7]) == pytest.approx(12.7062 * 0.05, rel=1e-4)  # t(0.975, 1) times s / sqrt(2)
    assert interval_half_width([0.6]) is None


@pytest.mark.parametrize("draw", [
    lambda: accuracy_by_method(accuracies().drop(columns="seed"), 0.2),
    lambda: accuracy_by_method(accuracies()[:0], 0.2),
    lambda: learning_curves(pd.DataFrame({"seed": [1]})), lambda: length_histogram({"a": []}, "words")])
def test_figures_without_data_are_errors_a_person_can_read(draw):
    with pytest.raises(StudyError):
        draw()


def test_show_table_escapes_every_place_and_falls_back_to_plain_text(displayed):
    bad = "<script>x</script>"
    frame = pd.DataFrame([[bad, 0.123456, None, ["a", bad]], ["w" * 99, 2.0, 3, []]], columns=[bad, "n", "n", "list"],
                         index=pd.Index([bad, "b"], name=bad))
    show_table(frame, caption=bad, decimals=2)
    data, _ = displayed[0]
    assert "<script" not in data["text/html"] and data["text/html"].count("&lt;script&gt;") == 6
    page = Page(sanitise_output(data["text/html"]))
    assert page.text.count(bad) == 6 and "0.12" in page.text and "–" in page.text and f"a; {bad}" in page.text
    assert {value.get("class") for value in page.named("td")} == {None, "number", "text"}
    assert data["text/plain"].startswith(bad)
    show_table(frame[:0])
    assert "<tbody>" in displayed[1][0]["text/html"]
