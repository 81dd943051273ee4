"""Tables that are wider than the page scroll in a box of their own, which says so; seen in Chromium at two widths."""

import json
import re
from html.parser import HTMLParser

import nbformat
import pandas as pd
import pytest

from kdutils.report.index import write_index
from kdutils.report.notebook_pages import render_notebook
from kdutils.report.tables import table_html
from tests.chromium import Chromium

NOTEBOOK = nbformat.v4
TABLES = """[...document.querySelectorAll("table")].map(table => {
  const box = table.closest(".scroll"), before = getComputedStyle(box, "::before");
  const wide = box.scrollWidth > box.clientWidth + 1;
  box.scrollLeft = 1e6;
  const last = [...table.rows].map(row => row.cells[row.cells.length - 1].getBoundingClientRect().right);
  return {wide, hint: before.content, ink: before.color, overflow: getComputedStyle(box).overflowX,
          reached: Math.max(...last) <= box.getBoundingClientRect().right + 1} })"""
GROUND, FITS = "getComputedStyle(document.documentElement).backgroundColor", (
    "document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def of_columns(count, text="0.8542"):
    return pd.DataFrame([{f"measure {number}": text for number in range(count)}] * 2)


@pytest.fixture
def page(tmp_path):
    """A page with a narrow table, a table of 24 columns, one of unbroken long cells, one of markdown, one of pandas."""
    outputs = [NOTEBOOK.new_output("display_data", {"text/html": html, "text/plain": ""}) for html in (
        table_html(of_columns(2), "Narrow"), table_html(of_columns(24), "Wide"),
        table_html(of_columns(9, "x" * 60), "Long cells"), of_columns(24).to_html())]
    rows = [" | ".join(texts) for texts in (["name"] * 30, ["---"] * 30, ["value"] * 30)]
    cells = [NOTEBOOK.new_markdown_cell("# Tables\n\n" + "\n".join(f"| {row} |" for row in rows)),
             NOTEBOOK.new_code_cell("a = 1", metadata={"tags": ["parameters"]}),
             NOTEBOOK.new_code_cell("show()", outputs=outputs), NOTEBOOK.new_markdown_cell("## Next")]
    nbformat.write(NOTEBOOK.new_notebook(cells=cells), tmp_path / "notebook.ipynb")
    return render_notebook(tmp_path / "notebook.ipynb", tmp_path / "report.html")


@pytest.fixture
def start_page(tmp_path):
    runs = [{"name": "a very long name of a run " * 8, "folder": tmp_path / "run", "kind": "students",
             "notebook": "12_train_multitask", "labels": {f"label {number}": "value" * 5 for number in range(9)}}]
    return write_index(tmp_path, runs, {"name": "mini", "about": "", "needs": "", "command": "./run_all.sh mini"})


class Boxes(HTMLParser):
    """Counts tables, and those that are in no <div class="scroll …">."""

    def __init__(self, text):
        super().__init__()
        self.classes, self.tables, self.free = [], 0, 0
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag == "div":
            self.classes.append(dict(attrs).get("class") or "")
        elif tag == "table":
            self.tables += 1
            self.free += not any("scroll" in one.split() for one in self.classes)

    def handle_endtag(self, tag):
        if tag == "div":
            self.classes.pop()


def test_every_table_of_a_page_is_in_a_box(page, start_page):
    assert [(Boxes(path.read_text(encoding="utf-8")).tables, Boxes(path.read_text(encoding="utf-8")).free)
            for path in (page, start_page)] == [(6, 0), (1, 0)]
    assert Boxes("<div class='scroll'><table></table></div><table></table>").free == 1


def luminance(color):
    """Return the relative luminance of "rgb(…)" as WCAG 2 defines it."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", color)[:3]]
    parts = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), parts, strict=True))


def test_a_table_wider_than_the_page_scrolls_in_its_box_and_says_so(page, start_page, tmp_path):
    with Chromium(page.as_uri(), tmp_path / "browser") as browser:
        for scheme in ("light", "dark"):
            browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
            for width in (1280, 390):
                browser.call("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1,
                             mobile=False)
                browser.open(start_page.as_uri())
                assert browser.value(FITS), (scheme, width)
                browser.open(page.as_uri())
                browser.value('document.querySelectorAll("details").forEach(one => { one.open = true })')
                browser.value("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
                assert browser.value(FITS), (scheme, width)
                tables = browser.value(f"JSON.stringify({TABLES})")
                markdown, narrow, *wide, parameters = json.loads(tables)
                assert not narrow["wide"] and narrow["hint"] == "none" and len(wide) == 3
                assert not parameters["wide"] and all(one["wide"] for one in (markdown, *wide)), (scheme, width)
                for one in (markdown, *wide):
                    assert one["overflow"] == "auto" and one["reached"]
                    if browser.value('CSS.supports("container-type: scroll-state")'):
                        assert "scroll sideways" in one["hint"], (scheme, width)
                        light, dark = sorted((luminance(one["ink"]), luminance(browser.value(GROUND))), reverse=True)
                        assert (light + 0.05) / (dark + 0.05) > 4.5
