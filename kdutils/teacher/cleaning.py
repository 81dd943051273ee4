"""Cleaning of a teacher's text: only the explanation of this question, on one line, in whole sentences.

Some raw texts start with a newline, continue with another question, or stop in mid-sentence at the token limit. The
texts published with arXiv 2504.16056 have all three defects. Their first line, which the published training code takes,
is empty for every e-SNLI and StrategyQA rationale. The rules, in order, with their names in ``changes``:

1. ``stripped``: white space around the text is removed.
2. ``preamble_removed``: a beginning that only announces the text is removed ("Sure! Here's a brief explanation:").
3. ``cut_at_blank_line``: only the first paragraph is kept.
4. ``cut_at_marker``: the text is cut where a new item of the prompt begins (``Question:``, ``Premise:``,
   ``Critique:``, ``Briefly explain``, ...). This counts only at the start of a line or after a sentence, because these
   are ordinary words.
5. ``joined_lines``: line breaks become spaces.
6. ``answer_repeated``: a first sentence that only says "The answer is ..." is removed, as it is part of the prompt.
7. ``unfinished_removed``: a last sentence without an end is removed; ``unfinished_kept``: it is the only sentence.

A sentence ends with a full stop, question or exclamation mark or ellipsis, also those of Chinese and Japanese (。！？),
Arabic and Urdu (؟۔) and Hindi (।). Those of Chinese and Japanese need no space after them.

Where nothing is left, ``text`` is None, never an empty string, and ``problem`` says why. A refusal ("I'm sorry, but I
can't help with that.") is a problem, too.
"""

import re
from collections import Counter
from dataclasses import dataclass, field

from kdutils.data.texts import CLOSERS, ENDS, PAIRS, WIDE_ENDS

RULES_VERSION = 3

_BLANK_LINE = re.compile(r"\n[^\S\n]*\n")
_CLOSERS = f"[{re.escape(CLOSERS)}]*"
_MARKER = re.compile(
    rf"""(?:^|\n[^\S\n]*|[{ENDS}．]{_CLOSERS}\s+|[{WIDE_ENDS}]{_CLOSERS}\s*)   # start of a line, end of a sentence
        (?:(?:Question|Premise|Q|Critique|Revision|(?:Critique|Revision)[ ]?Request)(?:[ ]\d+)?[:：]
          |Choices[:：]
          |Assistant(?:[ ]\([^)\n]*\))?[:：]
          |Briefly[ ]explain\b)""", re.VERBOSE)
_SPACE = re.compile(r"\s*")
_TOPIC = r"(?:explanation|rationale|reason|reasoning|justification|critique|criticism|revision)s?"
_OPENER = re.compile(r"(?:sure(?: thing)?|certainly|of course|absolutely|okay|ok|alright|understood)"
                     r"(?: ?[.!]+(?=\s|\Z)|,?(?=\s+here\b))", re.IGNORECASE)
_ANNOUNCEMENT = re.compile(r"(?:here(?:['’]s| is| are)|below is|the following is) "
                           r"(?P<what>[^.!?:：\n]{0,150})[:：](?=\s|\Z)", re.IGNORECASE)
_LABEL = re.compile(rf"[*_#]*\s?(?:(?:brief|short|revised) )?{_TOPIC} ?[*_]*[:：][*_]*(?=\s|\Z)", re.IGNORECASE)
_SORRY = r"""(?:i['’]?m[ ](?:\w+[ ])?sorry|i[ ]am[ ](?:\w+[ ])?sorry|sorry|i[ ]apologi[sz]e|my[ ]apologies|unfortunately
               |as[ ]an[ ]ai\b[^.!?\n]{0,60}?)[,.]?[ ]+(?:but[ ])?(?:as[ ]an[ ]ai\b[^.!?\n]{0,60}?,[ ])?"""
_CANNOT = r"""i(?:[ ]can(?:not|['’]t|[ ]not)|[ ]won['’]t|[ ]will[ ]not|(?:['’]m|[ ]am)[ ](?:unable|not[ ]able)[ ]to
                |[ ]must[ ]decline[ ]to)[ ]"""
_REFUSAL = re.compile(  # people say "I can't explain why", too, which is not a refusal
    rf"""{_SORRY}{_CANNOT}(?!help[ ]but)
       |{_CANNOT}(?:help[ ]with|assist|provide|comply|fulfil|generate|create|write|discuss|engage|respond|do[ ]that)\b
       |(?:很?抱歉|对不起)[，,]?.{{0,8}}(?:无法|不能|没办法)""", re.VERBOSE | re.IGNORECASE)
_ANSWER_LEAD = re.compile(r"""(?:(?:So )?the (?:correct )?answer is |(?:所以|因此)?(?:正确)?答案[是为：:]\s*)"""
                          """["'“‘「]?""", re.IGNORECASE)
_ANSWER_END = re.compile(r"""["'”’」]?(?:\.["'”’]?(?:\s+|$)|[。।۔]["'”’」]?\s*)""")
_STOP = re.compile(f"[{ENDS}{WIDE_ENDS}．]+{_CLOSERS}")
_ABBREVIATION = re.compile(
    r"""(?:^|[\s("'“‘])(?:e\.g|i\.e|cf|vs|Dr|Mr|Mrs|Ms|Prof|Gen|Sen|Rep|Gov|Capt|Sgt|St|Mt|approx|Fig)\.$""")
_NUMBERING = re.compile(r"(?:^|[.:;!?]\s+)\(?(\d{1,2})\.$")  # "1." that opens an entry of a list
_INITIAL = re.compile(r"(?:^|[\s.(])[A-Z]\.$")  # J. K. Rowling, the U.S. Army


@dataclass(frozen=True)
class Cleaned:
    """A cleaned text, or None and the problem; `changes` names the rules that changed it, in order."""

    text: str | None
    changes: list = field(default_factory=list)
    problem: str = ""


def clean(text: str | None, answer: str = "") -> Cleaned:
    """Return `text` (None counts as empty) as Cleaned, by the rules in the module's docstring.

    `answer`: the answer for which the text argues, for rule 6; "" skips this rule. Problems are ``empty`` (nothing is
    left), ``only the answer`` and ``refusal``.
    """
    text, changes = (text or "").replace("\r\n", "\n"), []
    for name, rule in (("stripped", str.strip), ("preamble_removed", _without_preamble),
                       ("cut_at_blank_line", _first_paragraph), ("cut_at_marker", _before_marker),
                       ("joined_lines", _one_line)):
        shorter = rule(text)
        if shorter != text:
            changes.append(name)
        text = shorter
    if not any(char.isalnum() for char in text):
        return Cleaned(None, changes, "empty")
    if _REFUSAL.match(text):
        return Cleaned(None, changes, "refusal")
    rest = _without_answer(text, answer)
    if not rest:
        return Cleaned(None, changes, "only the answer")
    changes += ["answer_repeated"] if rest != text else []
    whole = _whole_sentences(rest)
    if whole != rest:
        return Cleaned(whole, [*changes, "unfinished_removed"])
    return Cleaned(rest, changes if _is_finished(rest) else [*changes, "unfinished_kept"])


def is_refusal(text: str) -> bool:
    """Return whether a raw text begins with a refusal, behind its preamble."""
    return bool(_REFUSAL.match(text, preamble_end(text)))


def is_abbreviation(text: str) -> bool:
    """Return whether a text ends with an abbreviation such as "Dr." or with an initial, and not with a sentence."""
    return bool(_ABBREVIATION.search(text) or _INITIAL.search(text[-4:]))


def count_changes(cleaned: list[Cleaned]) -> dict[str, int]:
    """Return how many texts each rule changed and each problem concerns, sorted by name.

    ``texts`` is the number of texts, ``unfinished_kept`` of those that still end in mid-sentence.
    """
    counts = Counter({"texts": len(cleaned), "unfinished_kept": 0})
    for item in cleaned:
        counts.update(item.changes)
        counts.update([f"problem: {item.problem}"] if item.problem else [])
    return dict(sorted(counts.items()))


def preamble_end(text: str, start: int = 0) -> int:
    """Return where the explanation begins in `text` from `start` on: behind white space and a preamble.

    A preamble is a word such as "Sure!", an announcement ("Here's a brief explanation:") and a label ("Explanation:"),
    or a part of these. An announcement without such a word before it must name what it announces.
    """
    end = _skip_space(text, start)
    opener = _OPENER.match(text, end)
    end = _skip_space(text, opener.end() if opener else end)
    found = _ANNOUNCEMENT.match(text, end)
    if found and (opener or re.search(rf"\b{_TOPIC}\b", found["what"], re.IGNORECASE)):
        end = _skip_space(text, found.end())
    label = _LABEL.match(text, end)
    return _skip_space(text, label.end()) if label else end


def _skip_space(text, start):
    return _SPACE.match(text, start).end()


def _without_preamble(text):
    return text[preamble_end(text):]


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
    """Return whether `text` ends with the end of a sentence; a closing quote or bracket alone is no end."""
    stops = [stop for stop in _STOP.finditer(text) if stop.end() == len(text)]
    return bool(stops) and not _is_inside_word(text, stops[-1])


def _is_inside_word(text, stop):
    """Return whether a full stop belongs to an abbreviation or to the number of a list entry, not to a sentence.

    Such a number is 1, or the one before it is in the text, too: "The result: 12." is a sentence.
    """
    before = text[:stop.end()]
    number = _NUMBERING.search(before[-12:])  # longer than any of them, with the space before it
    listed = number and (int(number[1]) == 1 or re.search(
        rf"(?:^|[.:;!?]\s+)\(?{int(number[1]) - 1}\.\s", before))
    return bool(listed or _ABBREVIATION.search(before[-12:]))


def _whole_sentences(text):
    """Return `text` up to the end of its last finished sentence; all of it where there is none."""
    if _is_finished(text):
        return text
    ends = [stop.end() for stop in _STOP.finditer(text) if _is_sentence_end(text, stop)]
    return text[:ends[-1]] if ends else text


def _is_sentence_end(text, stop):
    """Return whether a sentence ends at `stop`, inside a text; in doubt False, so that no sentence is cut in two."""
    before, after = text[:stop.end()], text[stop.end():]
    if stop[0][-1] in WIDE_ENDS or stop[0][-1] == "．" and not after[:1].isdigit():  # with a quote behind, in doubt
        return not _is_open(before)
    if not after[:1].isspace() or after.lstrip()[:1].islower():
        return False
    if before.endswith(" No.") and after.lstrip()[:1].isdigit():
        return False
    return not (_is_inside_word(text, stop) or _INITIAL.search(before[-4:]) or _is_open(before))


def _is_open(text):
    """Return whether a quote or bracket is opened in `text` but not closed."""
    return text.count('"') % 2 == 1 or any(
        sum(map(text.count, left)) > sum(map(text.count, right)) for left, right in PAIRS)
