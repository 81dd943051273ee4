"""One self-contained HTML page of an executed notebook.

Whatever a model, a data set or a notebook wrote is untrusted. Three layers keep it text:

1. plain text is escaped by the template, and HTML outputs are cut to a narrow list of tags, one by one,
   so that an output cannot close the box it stands in;
2. the finished body is cut to the tags and attributes that the templates use;
3. a Content-Security-Policy forbids scripts and every network address.
"""

import ast
import base64
import os
import re
from functools import cache
from pathlib import Path
from urllib.parse import quote

from kdutils.errors import CONTROL, StudyError, masked
from kdutils.runs import write_text

TEMPLATES = Path(__file__).parent / "templates"

TEXT_TAGS = {"p", "br", "hr", "h1", "h2", "h3", "h4", "h5", "h6", "a", "img", "ul", "ol", "li", "dl", "dt", "dd",
             "strong", "b", "em", "i", "u", "s", "del", "mark", "small", "sub", "sup", "code", "pre", "kbd", "samp",
             "blockquote", "div", "span", "bdi", "abbr",
             "table", "caption", "colgroup", "col", "thead", "tbody", "tfoot", "tr", "th", "td"}
PAGE_TAGS = TEXT_TAGS | {"header", "nav", "main", "section", "figure", "figcaption", "details", "summary"}
TEXT_ATTRIBUTES = {
    "a": {"href", "title"}, "img": {"src", "alt", "title", "width", "height"}, "abbr": {"title"},
    "th": {"colspan", "rowspan", "scope", "style"}, "td": {"colspan", "rowspan", "style"}, "ol": {"start"},
}
PAGE_ATTRIBUTES = TEXT_ATTRIBUTES | {"*": {"id", "class", "aria-label"}, "details": {"open"}}
TABLE_CLASSES = {"table": {"dataframe"}, "th": {"number", "text"}, "td": {"number", "text"}}

_LINK = re.compile(r"https?://|#|[\w.%-][^:\\]*$", re.IGNORECASE)
_IMAGE = re.compile(r"data:image/(png|jpeg|svg\+xml);base64,[A-Za-z0-9+/=\s]*$")
_ESCAPE_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_OVERWRITTEN = re.compile(r"[^\n]*\u240d(?!\n|$)")  # the symbol that visible() puts for a carriage return

IMAGES = ("image/svg+xml", "image/png", "image/jpeg")


def render_notebook(notebook_path, html_path, title=None, home=None):
    """Write the page of the executed notebook at `notebook_path` to `html_path`, whole or not at all; return the path.

    `title` defaults to the first heading, `home` is a relative link back to the index page. Raises StudyError
    when the notebook is missing or broken.
    """
    notebook = read_notebook(notebook_path)
    markdown = _Markdown()
    cells = _cells(notebook, markdown)
    name = title or (markdown.headings[0]["text"] if markdown.headings else Path(notebook_path).stem)
    body = environment().get_template("notebook.html.j2").render(
        cells=cells, headings=_contents(markdown.headings), title=title, home=home,
        failure=_failure(notebook), executed=_executed(notebook))
    return write_page(html_path, name, body)


def write_page(path, title, body):
    """Sanitise `body` (HTML), put it into the page template with the style sheet and write it to `path`."""
    page = environment().get_template("page.html.j2").render(
        title=title, css=(TEMPLATES / "style.css").read_text(encoding="utf-8"), body=sanitise_page(body))
    return write_text(path, page)


def read_notebook(path):
    """Return the notebook at `path` as nbformat 4 with control characters made visible; StudyError when unreadable."""
    import nbformat

    try:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
    except FileNotFoundError:
        raise StudyError(f"{path}: no such file") from None
    except Exception as error:  # nbformat raises a dozen kinds, depending on where the file is broken
        raise StudyError(f"{path}: not a readable notebook ({type(error).__name__})") from error
    return _map_texts(notebook, visible)


def find_error(notebook):
    """Return {"cell": position, "line": last line of the error} of the failed cell, or None.

    A kernel that was killed leaves no error output, only the mark that papermill set; position is then
    that of the marked cell or None.
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


def visible(text):
    """Return `text` without colour codes and secrets; control characters become symbols, broken ones U+FFFD."""
    return CONTROL.sub(_symbol, masked(_ESCAPE_SEQUENCE.sub("", str(text).replace("\r\n", "\n"))))


def link_to(target, page):
    """Return the relative link from the file `page` to the file `target`, quoted for a href."""
    return quote(Path(os.path.relpath(target, Path(page).parent)).as_posix())


def sanitise_output(html):
    """Return the safe rest of an HTML output: tables, text, lists, data images; no ids, styles or scripts."""
    return _output_cleaner().clean(html)


def sanitise_page(html):
    """Return `html` cut to what the templates of this package use."""
    return _page_cleaner().clean(html)


@cache
def environment():
    """Return the jinja environment: every text that a template prints is made visible and escaped, HTML is not."""
    import jinja2
    from markupsafe import Markup

    def show(value):
        return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    return jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, finalize=show,
                              trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)


@cache
def _output_cleaner():
    import nh3

    return nh3.Cleaner(tags=TEXT_TAGS, attributes=TEXT_ATTRIBUTES, allowed_classes=TABLE_CLASSES, **_rules())


@cache
def _page_cleaner():
    import nh3

    return nh3.Cleaner(tags=PAGE_TAGS, attributes=PAGE_ATTRIBUTES, **_rules())


def _rules():
    return {"clean_content_tags": {"script", "style", "template", "iframe", "object", "title"},
            "url_schemes": {"http", "https", "data"}, "filter_style_properties": {"text-align"},
            "attribute_filter": _safe_attribute}


def _safe_attribute(tag, name, value):
    """Keep links to http(s), relative files and anchors, and images that are part of the page itself."""
    if name == "href":
        return value if _LINK.match(value) else None
    if name == "src":
        return value if _IMAGE.match(value) else None
    return value


def _symbol(match):
    code = ord(match[0])
    if code < 0x20:
        return chr(0x2400 + code)  # the control pictures of Unicode: NUL is shown as one small "NUL"
    return "\u2421" if code == 0x7F else "\ufffd"


def _map_texts(node, function):
    """Apply `function` to every text in a notebook, in place; return the notebook."""
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in list(items):
        if isinstance(value, str):
            node[key] = function(value)
        elif isinstance(value, (dict, list)):
            _map_texts(value, function)
    return node


def _papermill(node):
    """Return what papermill noted about a cell or a notebook, {} where it noted nothing."""
    noted = node.metadata.get("papermill")
    return noted if isinstance(noted, dict) else {}


def _error_line(output):
    lines = [line for line in output.evalue.splitlines() if line.strip()]
    return f"{output.ename}: {lines[-1]}" if lines else output.ename


def _failure(notebook):
    """Return {"failed", "line", "anchor"} for the box at the top of a failed or unfinished notebook, or None."""
    error = find_error(notebook)
    if error:
        return {"failed": True, "line": error["line"], "anchor": _anchor(error["cell"])}
    for position, cell in enumerate(notebook.cells):
        if _papermill(cell).get("status") in ("pending", "running"):
            return {"failed": False, "line": "", "anchor": _anchor(position)}
    return None


def _anchor(position):
    """Return the id of a cell; the dot keeps it apart from ids of headings, which have none."""
    return "" if position is None else f"cell.{position}"


def _executed(notebook):
    """Return when the notebook ran and how long it took, as far as papermill noted it."""
    noted = _papermill(notebook)
    parts = [str(noted.get("start_time") or "")[:16].replace("T", " ")]
    if isinstance(noted.get("duration"), (int, float)):
        parts.append(f"{noted['duration']:.0f} s")
    return " · ".join(part for part in parts if part)


def _contents(headings):
    """Return the headings for the table of contents: all but the title, down to the third level."""
    return [heading for heading in headings[1:] if heading["level"] <= 3]


def _cells(notebook, markdown):
    """Return what the template needs of every cell that is shown: kind, anchor and safe contents."""
    shown, defaults = [], {}
    injected = any("injected-parameters" in _tags(cell) for cell in notebook.cells)
    for position, cell in enumerate(notebook.cells):
        view = {"anchor": _anchor(position), "kind": cell.cell_type, "parameters": {}, "outputs": []}
        if "papermill-error-cell-tag" in _tags(cell):
            continue  # papermill's own banner; the page has a better one
        if cell.cell_type == "markdown":
            view["html"] = markdown.render(cell.source)
        elif cell.cell_type == "code":
            if "parameters" in _tags(cell):
                defaults = _assignments(cell.source)
            if "injected-parameters" in _tags(cell) or ("parameters" in _tags(cell) and not injected):
                view["parameters"] = _parameters(defaults, _assignments(cell.source))
            view["code"] = _highlight(cell.source)
            view["outputs"] = [_output(output, markdown) for output in _joined(cell.outputs)]
        else:
            continue
        shown.append(view)
    return shown


def _tags(cell):
    return cell.metadata.get("tags", [])


def _assignments(source):
    """Return {name: (value as Python text, trailing comment)} of the plain assignments in a parameters cell."""
    try:
        statements = ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    lines = source.split("\n")
    found = {}
    for statement in statements:
        target = statement.targets[0] if isinstance(statement, ast.Assign) else getattr(statement, "target", None)
        if isinstance(target, ast.Name) and getattr(statement, "value", None) is not None:
            rest = lines[statement.end_lineno - 1].encode()[statement.end_col_offset:].decode()
            found[target.id] = (ast.unparse(statement.value), rest.partition("#")[2].strip())
    return found


def _parameters(defaults, given):
    """Return the rows of the parameters table: every default, overwritten where the run gave another value."""
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
    """Return {"kind", …} of one output: the richest form that is safe, or its plain text."""
    if output.output_type == "stream":
        return {"kind": output.name, "text": _overwrite(output.text)}
    if output.output_type == "error":
        return {"kind": "error", "text": "\n".join(output.traceback) or _error_line(output)}
    for mime in IMAGES:
        if mime in output.data:
            return _image(mime, output)
    rich = _rich(output.data, markdown)
    return {"kind": "html", "html": rich} if rich else {"kind": "text", "text": output.data.get("text/plain", "")}


def _joined(outputs):
    """Return the outputs with what was printed piece by piece put together, as long as nothing stands between."""
    found = []
    for output in outputs:
        last = found[-1] if found else None
        if last and output.output_type == last.output_type == "stream" and output.name == last.name:
            last.text += output.text
        else:
            found.append(output)
    return found


def _overwrite(text):
    """Return what a terminal would still show of a progress bar that is written over itself."""
    return _OVERWRITTEN.sub("", text)


def _image(mime, output):
    data = output.data[mime]
    if mime == "image/svg+xml":  # inside an <img> neither its scripts nor its links are followed
        data = base64.b64encode(data.encode()).decode()
    about = output.metadata.get(mime, {})
    return {"kind": "image", "source": f"data:{mime};base64,{data}",
            "alt": (about.get("alt") if isinstance(about, dict) else "") or "figure without a description"}


def _rich(data, markdown):
    """Return the sanitised HTML of an output that has an HTML or markdown form, "" where nothing of it is left."""
    from markupsafe import Markup

    if "text/html" in data:
        clean = sanitise_output(data["text/html"]).strip()
    elif "text/markdown" in data:
        clean = sanitise_output(markdown.render(data["text/markdown"], contents=False))
    else:
        return ""
    return Markup(clean)


class _Markdown:
    """Markdown as HTML: HTML in it is shown as text, headings get ids and are collected in `headings`."""

    def __init__(self):
        import mistune

        class Renderer(mistune.HTMLRenderer):
            def heading(renderer, text, level, **attributes):
                return self._heading(text, level)

        self.headings = []
        self._collect = True
        self._convert = mistune.create_markdown(renderer=Renderer(escape=True), plugins=["table", "strikethrough"])

    def render(self, text, contents=True):
        """Return safe HTML of `text`; `contents` says whether its headings go into the table of contents."""
        from markupsafe import Markup

        self._collect = contents
        html = self._convert(text).replace("<table>", '<div class="scroll"><table>').replace(
            "</table>", "</table></div>")  # a table in the text itself is escaped, so these are the renderer's
        return Markup(sanitise_page(html))

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
