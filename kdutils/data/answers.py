"""Answers as text: how one is written, read back from what a student wrote, and compared with the right one."""

import re
from collections.abc import Iterable

from kdutils.data.questions import LETTERS
from kdutils.data.texts import ACCENTS, WIDE_ENDS, composed, folded, tight, without_mentions

MARKER = "Explanation:"
CONCLUSION = "So the answer is"
ANSWER = re.compile(r"the answer is\s*(.*?)\s*(?:\.\s*explanation\s*:(.*))?$", re.IGNORECASE | re.DOTALL)
CONCLUDED = re.compile(r"(?<!\w)so the answer is(?!\w)", re.IGNORECASE)
NUMBER = re.compile(r"([-+]?)\s*[$€£]?\s*((?:\d{1,3}(?:,\d{3})+|\d+)\.?\d*|\.\d+)\s*%?")
MARKS = re.compile(rf"[^\w\s{ACCENTS}]|_")
ARTICLES = re.compile(r"\b(a|an|the)\b")
SENTENCE = re.compile(rf"(.+?)(?:\.(?=\s)|[{WIDE_ENDS}])", re.DOTALL)
DIGIT_MARKS = str.maketrans({"−": "-", "٫": ".", "٬": ",", "٪": "%"})


def format_answer(answer):
    """Return an answer as a target text."""
    return f"The answer is {answer}."


def format_conclusion(answer):
    """Return an answer as the end of a text that argues for it."""
    return f"{CONCLUSION} {answer}."


def mask_answers(text: str, answers: Iterable[str], mask: str) -> str:
    """Return `text` with `mask` in place of every whole-word mention of an answer, in any case, the longest first."""
    for answer in sorted(filter(str.strip, dict.fromkeys(answers)), key=len, reverse=True):
        text = without_mentions(text, answer, mask)
    return text


# Reading an answer back

def parse_answer(text, choices=()):
    """Return (answer, explanation) as read from a generated text; "" for what is not there.

    In a text that begins with "The answer is", the answer is what follows up to the marker, and the explanation what
    comes after it. Else the answer follows the last "So the answer is" behind which anything stands, and the
    explanation comes before; or it follows "the answer is" wherever that stands. The answer is matched to the
    choices by match_choice, as a whole or else its first sentence; without choices a sentence that is a number is
    read as one. What matches nothing is returned as written.
    """
    text = text.strip()
    ends = [] if text.lower().startswith("the answer is") else list(CONCLUDED.finditer(text))
    for one, after in reversed(list(zip(ends, [*(end.start() for end in ends[1:]), len(text)], strict=False))):
        said = text[one.end(): after].strip()
        if said.strip(". "):
            return without_lead(said, choices), text[: one.start()].strip()
    found = ANSWER.search(text)
    return (without_lead(found[1].strip(), choices), (found[2] or "").strip()) if found else ("", "")


def without_lead(answer, choices):
    whole = answer.rstrip(".").rstrip()
    sentence = SENTENCE.match(answer)
    for candidate in ([answer] if choices else []) + [whole] + ([sentence[1]] if sentence else []):
        named = match_choice(candidate, choices)
        if named in choices or not choices and number(candidate) is not None:
            return named
    return answer if answer in choices else whole


def match_choice(answer, choices):
    """Return the choice that `answer` names, or `answer` itself where it names none or more than one.

    A choice is named as it stands, else by its letter, ``b``, ``(b)`` or ``(b) water``, or by the same text or number
    (see same).
    """
    if answer in choices or not choices:
        return answer
    named = {choice for choice in choices if same(choice, answer)}
    letter = re.fullmatch(r"\(?([A-Za-z])(?:\)?|\)\s*(.+))", composed(answer).strip(), re.DOTALL)
    place = LETTERS.index(letter[1].lower()) if letter else len(choices)
    if place < len(choices):
        chosen = choices[place]
        if letter[2] is None:
            named.add(chosen)
        else:  # letter and text have to agree; "(a) water" is not the article
            named = {chosen} if same(letter[2], chosen) else set()
    return named.pop() if len(named) == 1 else answer


def same(one, other):
    """Say whether two answers are the same: numbers by their value (8 and 8.0), other texts once normalised."""
    first, second = number(one), number(other)
    if first is not None and second is not None:
        return first == second
    return normalise(one) == normalise(other) or (not (one.isascii() and other.isascii())
                                                  and normalise(_turkish(one)) == normalise(_turkish(other)))


def _turkish(text):
    """Return `text` with its I as Turkish and Azeri write them small: I is the capital of ı, İ of i."""
    return composed(text).replace("İ", "i").replace("I", "ı")


def number(text):
    """Return the value of a text that is a number, such as ``-8.0``, ``$1,200`` or ``5 %``; None for any other."""
    found = NUMBER.fullmatch(composed(text).strip().translate(DIGIT_MARKS))
    return float(found[1] + found[2].replace(",", "")) if found else None


def normalise(text):
    """Return `text` without case, punctuation, articles and extra space: what counts when answers are compared.

    Nor do width and composition of characters count, nor spaces beside a character of a script that has none.
    """
    words = MARKS.sub(" ", folded(text))
    return tight(" ".join(ARTICLES.sub(" ", words).split()) or " ".join(words.split()))


def is_right(predicted, answer, choices=()):
    """Say whether a predicted answer is the gold one: the same choice, or the same text or number without choices."""
    if not predicted:
        return False
    return match_choice(predicted, choices) == answer or (not choices and same(predicted, answer))
