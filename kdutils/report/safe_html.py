"""HTML that shows untrusted text and does nothing else.

Text from a model, a data set or a notebook may be hostile. Three layers keep it text:

1. Templates escape plain text. HTML outputs are reduced to a short list of tags, one output at a time, so that none can
   close the element that contains it.
2. The finished body is reduced to the tags and attributes that the templates use.
3. A Content-Security-Policy forbids scripts and all network addresses.
"""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from kdutils.errors import CONTROL, masked
from kdutils.runs import write_text

if TYPE_CHECKING:
    import jinja2

TEMPLATES = Path(__file__).parent / "templates"

TEXT_TAGS = {"p", "br", "wbr", "hr", "h1", "h2", "h3", "h4", "h5", "h6", "a", "img", "ul", "ol", "li", "dl", "dt", "dd",
             "strong", "b", "em", "i", "u", "s", "del", "mark", "small", "sub", "sup", "code", "pre", "kbd", "samp",
             "blockquote", "div", "span", "bdi", "abbr", "details", "summary", "figure", "figcaption",
             "table", "caption", "colgroup", "col", "thead", "tbody", "tfoot", "tr", "th", "td"}
PAGE_TAGS = TEXT_TAGS | {"header", "nav", "main", "section"}
TEXT_ATTRIBUTES = {
    "a": {"href", "title"}, "img": {"src", "alt", "title", "width", "height"}, "abbr": {"title"},
    "th": {"colspan", "rowspan", "scope", "style"}, "td": {"colspan", "rowspan", "style"}, "ol": {"start"},
}
PAGE_ATTRIBUTES = TEXT_ATTRIBUTES | {"*": {"id", "class", "aria-label", "tabindex"}, "details": {"open"}}
TABLE_CLASSES = {"table": {"dataframe", "wide"}, "th": {"number", "text"}, "td": {"number", "text", "right", "wrong"},
                 "div": {"look", "statement", "scroll", "example"}}

_LINK = re.compile(r"https?://|#|[\w.%-][^:\\]*$", re.IGNORECASE)
_IMAGE = re.compile(r"data:image/(png|jpeg|svg\+xml);base64,[A-Za-z0-9+/=\s]*$")
_ESCAPE_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")


def write_page(path: Path | str, title: str, body: str) -> Path:
    """Sanitise `body` (HTML), put it into the page template with the style sheet and write it to `path`."""
    page = environment().get_template("page.html.j2").render(
        title=title, css=(TEMPLATES / "style.css").read_text(encoding="utf-8"), body=sanitise_page(body))
    return write_text(path, page)


def make_visible(text: object) -> str:
    """Return `text` without colour codes and secrets; control characters become symbols, lone surrogates U+FFFD."""
    return CONTROL.sub(_symbol, masked(_ESCAPE_SEQUENCE.sub("", str(text).replace("\r\n", "\n"))))


def _symbol(match):
    code = ord(match[0])
    if code < 0x20:
        return chr(0x2400 + code)  # Unicode's control pictures: NUL becomes one small "NUL"
    return "\u2421" if code == 0x7F else "\ufffd"


def link_to(target: Path | str, page: Path | str) -> str:
    """Return the relative link from the file `page` to the file `target`, quoted for a href."""
    return quote(Path(os.path.relpath(target, Path(page).parent)).as_posix())


def sanitise_output(html: str) -> str:
    """Return an HTML output reduced to tables, text, lists and embedded images; no ids, styles or scripts."""
    return _cleaner(False).clean(html)


def sanitise_page(html: str) -> str:
    """Return `html` reduced to the tags and attributes that the templates of this package use."""
    return _cleaner(True).clean(html)


@cache
def environment() -> jinja2.Environment:
    """Return the jinja environment of the templates; it makes every text visible and escapes it, except safe HTML."""
    import jinja2
    from markupsafe import Markup

    def show(value):
        return make_visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    return jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, finalize=show,
                              trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)


@cache
def _cleaner(whole_page):
    import nh3

    allowed = {"tags": PAGE_TAGS, "attributes": PAGE_ATTRIBUTES} if whole_page else {
        "tags": TEXT_TAGS, "attributes": TEXT_ATTRIBUTES, "allowed_classes": TABLE_CLASSES}
    return nh3.Cleaner(clean_content_tags={"script", "style", "template", "iframe", "object", "title"},
                       url_schemes={"http", "https", "data"}, filter_style_properties={"text-align"},
                       attribute_filter=_safe_attribute, **allowed)


def _safe_attribute(tag, name, value):
    """Keep links to http(s), relative files and anchors, and images whose data is in the page."""
    if name == "href":
        return value if _LINK.match(value) else None
    if name == "src":
        return value if _IMAGE.match(value) else None
    return value
