"""The wording of a report: templates beside this module say what is stated, these functions turn numbers into text."""

import re
from functools import cache
from pathlib import Path
from typing import Any

from kdutils.stats.estimates import p_text

# The names are written out: source_code finds the files of a step by them.
TEMPLATES = {"answer": "answer.txt.j2", "summary": "summary.txt.j2"}


@cache
def wording(name: str) -> Any:
    """Return the macros and texts of a template, a key of TEMPLATES."""
    import jinja2

    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters |= {"percent": percent, "points": lambda x: signed(100 * x, 1),
                            "list": list, "p": p_text, "listed": listed}
    # No escaping: a sentence is plain text, which a table or a page escapes like all texts.
    return environment.from_string(Path(__file__).with_name(TEMPLATES[name]).read_text(encoding="utf-8")).module


def say(template: str, statement: str, **facts: Any) -> str:
    """Return what the macro `statement` says: a line break is a space, and nothing before a punctuation mark."""
    text = re.sub(r"\s*\n\s*(?=[.,:;])", "", getattr(wording(template), statement)(**facts))
    return re.sub(r"\s*\n\s*", " ", text).strip()


def percent(share: float) -> str:
    """Return a share from 0 to 1 in percent with one decimal."""
    return f"{round(100 * share, 6):.1f} %"  # a mean may be 0.20049999999 for 0.2005


def signed(number: float, digits: int) -> str:
    """Return a number with its sign and `digits` decimals: +2.3, −0.8."""
    return f"{round(number, digits) + 0.0:+.{digits}f}".replace("-", "−")  # no −0.0


def listed(texts: list[str], most: int = 4) -> str:
    """Return texts as a list of a sentence: "a", "a and b", "a, b and 3 more"."""
    rest = [f"{len(texts) - most} more"] if len(texts) > most else []
    shown = [*texts[:most], *rest]
    return " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else "".join(shown)
