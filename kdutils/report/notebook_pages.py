"""One self-contained HTML page of an executed notebook; safe_html keeps untrusted text harmless.

nbconvert is not used. Its templates print HTML, SVG and markdown outputs unchanged, so almost every block and filter
would have to be replaced to be safe. Here only what _output and _cells select reaches a page. A page also has what
nbconvert lacks: a table of parameters, the error at the top, and links to the index.

What a reader does not look for is out of the way. The parameters are at the end. A result that is only Python's text of
a value (the last line of a cell) is for the notebook and not shown. A section whose heading has the tag ``fold`` is
closed until it is opened. With ``{"kdutils": {"code": "end"}}`` in the metadata of a notebook, its code is at the end
of the page and not beside the outputs.
"""

from __future__ import annotations

import ast
import base64
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdutils.errors import StudyError
from kdutils.report.safe_html import environment, make_visible, sanitise_output, sanitise_page, write_page

if TYPE_CHECKING:
    from markupsafe import Markup
    from nbformat import NotebookNode

_OVERWRITTEN = re.compile(r"[^\n]*\u240d(?!\n|$)")  # make_visible() has put this symbol for a carriage return

_HEADING = re.compile(r"\s*<h[12][^>]*>.*?</h[12]>\s*", re.DOTALL)

NARROW = 640  # pixels; on a phone a wider figure is not made smaller, because its letters would be too small
IMAGES = ("image/svg+xml", "image/png", "image/jpeg")


def render_notebook(notebook_path: Path | str, html_path: Path | str, title: str | None = None,
                    index_link: str | None = None) -> Path:
    """Write the page of the executed notebook at `notebook_path` to `html_path`, whole or not at all; return the path.

    `title` defaults to the first heading. `index_link` is a relative link to the index page. Raises StudyError if the
    notebook is missing or broken.
    """
    notebook = read_notebook(notebook_path)
    markdown = _Markdown()
    cells, failure = _cells(notebook, markdown), _failure(notebook)
    parts = _parts(cells, markdown, failure)
    name = title or (markdown.headings[0]["text"] if markdown.headings else Path(notebook_path).stem)
    contents = [heading for heading in markdown.headings[1:] if heading["level"] <= 3]  # all but the title
    body = environment().get_template("notebook.html.j2").render(
        parts=parts, headings=contents, title=title, index_link=index_link, failure=failure,
        executed=_executed(notebook), parameters=next((cell["parameters"] for cell in cells if cell["parameters"]), []),
        code_at_end=notebook.metadata.get("kdutils") == {"code": "end"})
    return write_page(html_path, name, body)


def read_notebook(path: Path | str) -> NotebookNode:
    """Return the notebook at `path` as nbformat 4 with control characters made visible; StudyError if unreadable."""
    import nbformat

    try:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
    except FileNotFoundError:
        raise StudyError(f"{path}: no such file") from None
    except Exception as error:  # nbformat raises many types of errors, depending on where the file is broken
        raise StudyError(f"{path}: not a readable notebook ({type(error).__name__})") from error
    _make_texts_visible(notebook)
    return notebook


def find_error(notebook: NotebookNode) -> dict[str, Any] | None:
    """Return {"cell": position, "line": last line of the error} of the failed cell, None if no cell failed.

    A killed kernel leaves no error output, only a mark by papermill: then position is that of the marked cell, or None.
    """
    for position, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                return {"cell": position, "line": _error_line(output)}
    killed = "no error output: the kernel was stopped or killed (out of memory?)"
    for position, cell in enumerate(notebook.cells):
        if _papermill(cell).get("exception"):
            return {"cell": position, "line": killed}
    if _papermill(notebook).get("exception"):
        return {"cell": None, "line": killed}
    return None


def _make_texts_visible(node):
    """Replace every text in a notebook by make_visible of it, in place."""
    for key, value in list(node.items() if isinstance(node, dict) else enumerate(node)):
        if isinstance(value, str):
            node[key] = make_visible(value)
        elif isinstance(value, (dict, list)):
            _make_texts_visible(value)


def _papermill(node):
    """Return papermill's notes on a cell or a notebook, {} if there are none."""
    noted = node.metadata.get("papermill")
    return noted if isinstance(noted, dict) else {}


def _error_line(output):
    lines = [line for line in output.evalue.splitlines() if line.strip()]
    return f"{output.ename}: {lines[-1]}" if lines else output.ename


def _failure(notebook):
    """Return {"failed", "line", "anchor"} for the box at the top of a failed or unfinished notebook, else None."""
    error = find_error(notebook)
    if error:
        return {"failed": True, "line": error["line"], "anchor": _anchor(error["cell"])}
    for position, cell in enumerate(notebook.cells):
        if _papermill(cell).get("status") in ("pending", "running"):
            return {"failed": False, "line": "", "anchor": _anchor(position)}
    return None


def _anchor(position):
    """Return the id of a cell; ids of headings have no dot, so the two never collide."""
    return "" if position is None else f"cell.{position}"


def _executed(notebook):
    """Return when the notebook was executed and how long it took, if papermill noted it."""
    noted = _papermill(notebook)
    parts = [str(noted.get("start_time") or "")[:16].replace("T", " ")]
    if isinstance(noted.get("duration"), (int, float)):
        parts.append(f"{noted['duration']:.0f} s")
    return " · ".join(part for part in parts if part)


def _cells(notebook, markdown):
    """Return what the template needs of every cell that is shown: anchor, type, parameters, safe HTML and outputs."""
    shown, defaults = [], {}
    injected = any("injected-parameters" in _tags(cell) for cell in notebook.cells)
    for position, cell in enumerate(notebook.cells):
        view = {"anchor": _anchor(position), "type": cell.cell_type, "parameters": [], "outputs": [],
                "fold": "fold" in _tags(cell), "code": ""}
        if "papermill-error-cell-tag" in _tags(cell):
            continue  # papermill's error banner; the page has its own
        if cell.cell_type == "markdown":
            view["html"] = markdown.render(cell.source)
        elif cell.cell_type == "code":
            if "parameters" in _tags(cell):
                defaults = _assignments(cell.source)
            if "injected-parameters" in _tags(cell) or ("parameters" in _tags(cell) and not injected):
                view["parameters"] = _parameters(defaults, _assignments(cell.source))
            view["code"] = _highlight(cell.source)
            view["outputs"] = [_output(output, markdown) for output in _joined(cell.outputs) if not _is_value(output)]
        else:
            continue
        shown.append(view)
    return shown


def _parts(cells, markdown, failure):
    """Return the cells in parts: {"folded", "heading", "open", "cells"}; a folded part without content is left out.

    A folded part begins with a cell that is tagged so and ends before the next heading of level 1 or 2.
    """
    from markupsafe import Markup

    parts = [{"folded": False, "heading": "", "cells": []}]
    for cell in cells:
        heading = _HEADING.match(cell.get("html", ""))
        if heading:
            parts.append({"folded": cell["fold"], "heading": "", "cells": []})
            if cell["fold"]:
                parts[-1]["heading"] = Markup(heading[0])
                cell = {**cell, "html": cell["html"][heading.end():]}
        parts[-1]["cells"].append(cell)
    for part in parts:
        part["open"] = bool(failure) and failure["anchor"] in [cell["anchor"] for cell in part["cells"]]
        if part["folded"] and not any(cell.get("html") or cell["outputs"] for cell in part["cells"]):
            empty = re.findall(r'id="([^"]+)"', part["heading"])
            markdown.headings = [heading for heading in markdown.headings if heading["id"] not in empty]
            part["folded"], part["cells"] = False, [cell for cell in part["cells"] if cell["type"] == "code"]
    return parts


def _is_value(output):
    """Return whether an output is the text of a cell's last value, which says nothing to a reader of the page."""
    return output.output_type == "execute_result" and set(output.data) <= {"text/plain"}


def _tags(cell):
    return cell.metadata.get("tags", [])


def _assignments(source):
    """Return {name: (value as Python text, trailing comment)} of the plain assignments in a parameters cell."""
    try:
        statements = ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    lines = source.split("\n")
    assigned = {}
    for statement in statements:
        target = statement.targets[0] if isinstance(statement, ast.Assign) else getattr(statement, "target", None)
        if isinstance(target, ast.Name) and getattr(statement, "value", None) is not None:
            rest = lines[statement.end_lineno - 1].encode()[statement.end_col_offset:].decode()
            assigned[target.id] = (ast.unparse(statement.value), rest.partition("#")[2].strip())
    return assigned


def _parameters(defaults, given):
    """Return the rows of the parameters table: every default, or the value that the run gave instead."""
    return [{"name": name, "value": given.get(name, defaults.get(name))[0],
             "changed": name in defaults and name in given and given[name][0] != defaults[name][0],
             "about": defaults.get(name, given.get(name))[1]} for name in {**defaults, **given}]


def _highlight(source):
    from markupsafe import Markup
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer

    return Markup(highlight(source, PythonLexer(), HtmlFormatter(nowrap=True)))  # Pygments escapes the source


def _output(output, markdown):
    """Return {"type", …} of one output: the richest form that is safe, or its plain text."""
    if output.output_type == "stream":
        return {"type": output.name, "text": _overwrite(output.text)}
    if output.output_type == "error":
        return {"type": "error", "text": "\n".join(output.traceback) or _error_line(output)}
    for mime in IMAGES:
        if mime in output.data:
            return _image(mime, output)
    rich = _rich(output.data, markdown)
    return {"type": "html", "html": rich} if rich else {"type": "text", "text": output.data.get("text/plain", "")}


def _joined(outputs):
    """Return the outputs; consecutive pieces of the same stream become one."""
    joined = []
    for output in outputs:
        last = joined[-1] if joined else None
        if last and output.output_type == last.output_type == "stream" and output.name == last.name:
            last.text += output.text
        else:
            joined.append(output)
    return joined


def _overwrite(text):
    """Return what a terminal would show of a progress bar that overwrites itself."""
    return _OVERWRITTEN.sub("", text)


def _image(mime, output):
    data = output.data[mime]
    if mime == "image/svg+xml":  # in an <img>, a browser runs no scripts and follows no links
        data = base64.b64encode(data.encode()).decode()
    about = output.metadata.get(mime, {})
    head = base64.b64decode(data[:32] + "=" * (-len(data[:32]) % 4)) if mime == "image/png" else b""
    return {"type": "image", "source": f"data:{mime};base64,{data}",
            "narrow": 0 < int.from_bytes(head[16:20], "big") <= NARROW,  # the width in the head of a PNG
            "alt": (about.get("alt") if isinstance(about, dict) else "") or "figure without a description"}


def _rich(data, markdown):
    """Return the sanitised HTML of an output with an HTML or markdown form, "" if nothing of it is left."""
    from markupsafe import Markup

    if "text/html" in data:
        clean = _add_scope(sanitise_output(data["text/html"]).strip())
    elif "text/markdown" in data:
        clean = sanitise_output(markdown.render(data["text/markdown"], contents=False))
    else:
        return ""
    return Markup(clean)


def _add_scope(html):
    """Return the HTML of tables whose heads all say of what they are the head; those of pandas do not."""
    plain = r"<th(?=[ >])(?![^>]*\bscope=)"
    html = re.sub(r"<tbody>.*?</tbody>", lambda body: re.sub(plain, '<th scope="row"', body[0]), html, flags=re.DOTALL)
    return re.sub(plain, '<th scope="col"', html)


class _Markdown:
    """Converts markdown to HTML: HTML in it is shown as text; headings get ids and are collected in `headings`."""

    def __init__(self):
        import mistune

        class Renderer(mistune.HTMLRenderer):
            def heading(renderer, text, level, **attributes):
                return self._heading(text, level)

        self.headings = []
        self._collect = True
        self._convert = mistune.create_markdown(renderer=Renderer(escape=True), plugins=["table", "strikethrough"])

    def render(self, text: str, contents: bool = True) -> Markup:
        """Return safe HTML of `text`; if `contents`, its headings go into the table of contents."""
        from markupsafe import Markup

        self._collect = contents
        html = self._convert(text).replace("<table>", '<div class="scroll"><table>').replace(
            "</table>", "</table></div>")  # HTML tables in the text are escaped, so these come from the renderer
        return Markup(sanitise_page(_add_scope(html)))

    def _heading(self, html, level):
        from markupsafe import Markup

        if not self._collect:
            return f"<h{level}>{html}</h{level}>\n"
        text = Markup(html).striptags()
        slug = re.sub(r"\W+", "-", text.lower()).strip("-")[:60] or "section"
        used = {heading["id"] for heading in self.headings}
        name = next(name for number in range(1, len(used) + 2)
                    if (name := slug if number == 1 else f"{slug}-{number}") not in used)
        self.headings.append({"id": name, "text": text, "level": level})
        return f'<h{level} id="{name}">{html}</h{level}>\n'
