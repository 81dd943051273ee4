"""Clean what a teacher wrote: the explanation of this question alone, on one line, in whole sentences.

Teachers run on: they start with a newline, go on to a next question, or stop in mid-sentence at the
token limit. The outputs published with arXiv 2504.16056 show all three; taking their first line, as
the published training code does, leaves nothing of any e-SNLI or StrategyQA rationale. The rules,
in order, each with the name that it leaves in ``changes``:

1. ``stripped``: white space around the text goes.
2. ``cut_at_blank_line``: the first paragraph stays.
3. ``cut_at_marker``: the text ends where a new item of the prompt begins (``Question:``, ``Premise:``,
   ``Critique:``, ``Briefly explain``, ...). Only at the start of a line or after the end of a sentence:
   the words themselves are ordinary ones.
4. ``joined_lines``: line breaks become spaces.
5. ``answer_repeated``: a first sentence that only says "The answer is ..." goes; the prompt said it already.
6. ``unfinished_removed``: a last sentence without an end goes; or ``unfinished_kept`` where it is the only one.

A sentence ends at a full stop, question or exclamation mark or ellipsis, also those of Chinese and Japanese (。！？),
Arabic and Urdu (؟۔) and Hindi (।), of which the first need no space behind them.

A text of which nothing is left is never an empty string: ``text`` is None and ``problem`` says why.
"""

import re
from collections import Counter
from dataclasses import dataclass, field

from kdutils.data.texts import CLOSERS, ENDS, PAIRS, WIDE_ENDS

RULES_VERSION = 1

_BLANK_LINE = re.compile(r"\n[^\S\n]*\n")
_CLOSERS = f"[{re.escape(CLOSERS)}]*"
_MARKER = re.compile(
    rf"""(?:^|\n[^\S\n]*|[{ENDS}．]{_CLOSERS}\s+|[{WIDE_ENDS}]{_CLOSERS}\s*)   # start of a line, end of a sentence
        (?:(?:Question|Premise|Q|Critique|Revision|(?:Critique|Revision)[ ]?Request)(?:[ ]\d+)?[:：]
          |Choices[:：]
          |Assistant(?:[ ]\([^)\n]*\))?[:：]
          |Briefly[ ]explain\b)""", re.VERBOSE)
_ANSWER_LEAD = re.compile(r"""(?:(?:So )?the (?:correct )?answer is |(?:所以|因此)?(?:正确)?答案[是为：:]\s*)"""
                          """["'“‘「]?""", re.IGNORECASE)
_ANSWER_END = re.compile(r"""["'”’」]?(?:\.["'”’]?(?:\s+|$)|[。।۔]["'”’」]?\s*)""")
_STOP = re.compile(f"[{ENDS}{WIDE_ENDS}．]+{_CLOSERS}")
_ABBREVIATION = re.compile(
    r"""(?:^|[\s("'“‘])(?:e\.g|i\.e|cf|vs|Dr|Mr|Mrs|Ms|Prof|Gen|Sen|Rep|Gov|Capt|Sgt|St|Mt|approx|Fig)\.$""")
_NUMBERING = re.compile(r"(?:^|[.:;!?]\s+)\(?\d{1,2}\.$")  # "1." that opens an entry of a list
_INITIAL = re.compile(r"(?:^|[\s.(])[A-Z]\.$")  # J. K. Rowling, the U.S. Army


@dataclass(frozen=True)
class Cleaned:
    """A cleaned text, or None and the problem; `changes` names the rules that fired, in order."""

    text: str | None
    changes: list = field(default_factory=list)
    problem: str = ""


def clean(text, answer=""):
    """Return `text` (None counts as empty) as Cleaned; see the module's docstring for the rules.

    `answer` is the answer that the text argues for, for rule 5; "" leaves that rule out. Problems are
    ``empty`` (nothing is left) and ``only the answer``.
    """
    text, changes = (text or "").replace("\r\n", "\n"), []
    for name, rule in (("stripped", str.strip), ("cut_at_blank_line", _first_paragraph),
                       ("cut_at_marker", _before_marker), ("joined_lines", _one_line)):
        shorter = rule(text)
        if shorter != text:
            changes.append(name)
        text = shorter
    if not any(char.isalnum() for char in text):
        return Cleaned(None, changes, "empty")
    rest = _without_answer(text, answer)
    if not rest:
        return Cleaned(None, changes, "only the answer")
    changes += ["answer_repeated"] if rest != text else []
    whole = _whole_sentences(rest)
    if whole != rest:
        return Cleaned(whole, [*changes, "unfinished_removed"])
    return Cleaned(rest, changes if _is_finished(rest) else [*changes, "unfinished_kept"])


def count_changes(cleaned):
    """Return how often each rule fired and each problem arose in a list of Cleaned, sorted by name.

    ``texts`` is their number, ``unfinished_kept`` how many still end in mid-sentence.
    """
    counts = Counter({"texts": len(cleaned), "unfinished_kept": 0})
    for item in cleaned:
        counts.update(item.changes)
        counts.update([f"problem: {item.problem}"] if item.problem else [])
    return dict(sorted(counts.items()))


def _first_paragraph(text):
    return _BLANK_LINE.split(text, maxsplit=1)[0].rstrip()


def _before_marker(text):
    found = _MARKER.search(text)
    if not found:
        return text
    stop = _STOP.match(text, found.start())  # the end of the sentence before belongs to that sentence
    return text[:stop.end() if stop else found.start()].rstrip()


def _one_line(text):
    return re.sub(r"\s*\n\s*", " ", text)


def _without_answer(text, answer):
    lead, answer = _ANSWER_LEAD.match(text), answer.strip().rstrip(".")
    if not answer or not lead or text[lead.end():][:len(answer)].casefold() != answer.casefold():
        return text
    end = _ANSWER_END.match(text, lead.end() + len(answer))
    return text[end.end():] if end else text


def _is_finished(text):
    """Say whether `text` ends as a sentence ends; a closing quote or bracket alone is no end."""
    stops = [stop for stop in _STOP.finditer(text) if stop.end() == len(text)]
    return bool(stops) and not _is_inside_word(text, stops[-1])


def _is_inside_word(text, stop):
    """Say whether a full stop belongs to an abbreviation or to the number of an entry, not to a sentence."""
    before = text[:stop.end()][-12:]  # longer than any of them, with the space before it
    return bool(_ABBREVIATION.search(before) or _NUMBERING.search(before))


def _whole_sentences(text):
    """Return `text` up to its last finished sentence; all of it where there is none."""
    if _is_finished(text):
        return text
    ends = [stop.end() for stop in _STOP.finditer(text) if _is_sentence_end(text, stop)]
    return text[:ends[-1]] if ends else text


def _is_sentence_end(text, stop):
    """Say whether a sentence ends at `stop`, inside a text; in doubt it does not, so that none is cut in two."""
    before, after = text[:stop.end()], text[stop.end():]
    if stop[0][-1] in WIDE_ENDS or stop[0][-1] == "．" and not after[:1].isdigit():  # with a quote behind, in doubt
        return not _is_open(before)
    if not after[:1].isspace() or after.lstrip()[:1].islower():
        return False
    if before.endswith(" No.") and after.lstrip()[:1].isdigit():
        return False
    return not (_is_inside_word(text, stop) or _INITIAL.search(before[-4:]) or _is_open(before))


def _is_open(text):
    """Say whether a quote or bracket that opens in `text` does not close in it."""
    return text.count('"') % 2 == 1 or any(
        sum(map(text.count, left)) > sum(map(text.count, right)) for left, right in PAIRS)
