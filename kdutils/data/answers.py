"""The answer of a question as text: write it, read it back from what a model wrote, and compare it with the right one.

A target text states its answer as "The answer is …." or, after an explanation, as "So the answer is ….". The patterns
for reading an answer back stand here and nowhere else. Arithmetic answers (SVAMP) are numbers: see `parse_number`,
`format_number` and `evaluate_equation`.
"""

import ast
import math
import operator
import re
import string
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from kdutils.data.questions import LETTERS
from kdutils.data.texts import ACCENTS, WIDE_ENDS, compose, fold, join_characters, replace_mentions
from kdutils.errors import shown

MARKER = "Explanation:"
CONCLUSION = "So the answer is"
_ANSWER = re.compile(r"the answer is\s*(.*?)\s*(?:\.\s*explanation\s*:(.*))?$", re.IGNORECASE | re.DOTALL)
_CONCLUSION = re.compile(r"(?<!\w)so the answer is(?!\w)", re.IGNORECASE)
_SENTENCE = re.compile(rf"(.+?)(?:\.(?=\s)|[{WIDE_ENDS}])", re.DOTALL)
_LETTER = re.compile(r"\(?([A-Za-z])(?:\)?|\)\s*(.+))", re.DOTALL)  # b, (b) or (b) water
_NUMBER = re.compile(r"([-+]?)\s*[$€£]?\s*((?:\d{1,3}(?:,\d{3})+|\d+)\.?\d*|\.\d+)\s*%?")
_ASCII_MARKS = str.maketrans({"−": "-", "٫": ".", "٬": ",", "٪": "%"})
_PUNCTUATION = re.compile(rf"[^\w\s{ACCENTS}]|_")
_SIGN = re.compile(r"""  # punctuation that changes what an answer says
    [<>=^]                                          # x < 5, 2^3
    | (?<![\w)\]])-(?=[\d.(]|[^\W\d_]\b)             # -3 °C, -x; not of a list, a range or a word (well-known)
    | (?<=\w)-(?=[\s,.;)]|$)                         # O-
    | (?:(?<=[\w)\]+])|(?<!\S))\+(?!\s?\d) | (?<=[\w)\]])\s?\+  # O+, C++, x + 1; not +5
    | (?<=\w)\#                                     # F#
    """, re.VERBOSE)
_MARKS = " \t\n:*_`\"“”"  # around an answer
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


# Write

def format_answer(answer: str) -> str:
    """Return an answer as a target text."""
    return f"The answer is {answer}."


def format_conclusion(answer: str) -> str:
    """Return an answer as the end of a text that argues for it."""
    return f"{CONCLUSION} {answer}."


def format_number(value: float) -> str:
    """Return a number as an answer is written: ``8`` for 8.0, at most six decimals."""
    value = round(value, 6)
    return str(int(value)) if float(value).is_integer() else str(value)


def mask_answers(text: str, answers: Iterable[str], mask: str) -> str:
    """Return `text` with `mask` in place of every whole-word mention of an answer, in any case, the longest first."""
    for answer in sorted(filter(str.strip, dict.fromkeys(answers)), key=len, reverse=True):
        text = replace_mentions(text, answer, mask)
    return text


# Read back

def parse_answer(text: str, choices: Sequence[str] = ()) -> tuple[str, str]:
    """Return (answer, explanation) of a generated text; each is "" if the text does not contain it.

    - A text that begins with "The answer is": the answer follows; the explanation stands after MARKER.
    - Any other text: the answer follows the last "So the answer is" that has text behind it; the explanation stands
      before it. Without such a conclusion the answer follows "the answer is" anywhere in the text.

    The answer is matched to the choices (see `match_choice`), first the whole of it, then its first sentence. Without
    choices its first sentence is taken if that is a number (but see is_ordinal). An answer that matches nothing is
    returned as written.
    """
    text = text.strip()
    ends = [] if text.lower().startswith("the answer is") else list(_CONCLUSION.finditer(text))
    limits = [*(end.start() for end in ends[1:]), len(text)]
    for end, limit in reversed(list(zip(ends, limits, strict=False))):
        answer = text[end.end():limit].strip()
        if answer.strip(". "):
            return _matched(answer, choices), text[:end.start()].strip()
    stated = _ANSWER.search(text)
    return (_matched(stated[1].strip(), choices), (stated[2] or "").strip()) if stated else ("", "")


def _matched(answer, choices):
    """Return the choice or number that `answer` or its first sentence is, else `answer` without its full stop."""
    whole = answer.rstrip(".").rstrip()
    sentence = _SENTENCE.match(answer)
    candidates = ([answer] if choices else []) + [whole] + ([sentence[1]] if sentence else [])
    for candidate in candidates + [one.strip(_MARKS).rstrip(".") for one in candidates if choices]:
        choice = match_choice(candidate, choices)
        if choice in choices or not choices and parse_number(candidate) is not None and not (
                sentence and candidate == sentence[1] and is_ordinal(candidate, answer[sentence.end():])):
            return choice
    return answer if answer in choices else whole


def is_ordinal(number: str, rest: str) -> bool:
    """Say whether the full stop behind a number belongs to a name, as in "1. FC Köln", and ends no sentence.

    It does if a space follows, and all words of `rest` up to the next full stop begin with a capital or a digit, the
    first with a capital.
    """
    words = rest.partition(".")[0].split()
    return number.strip().isdigit() and rest[:1] == " " and bool(words) and words[0][0].isupper() and all(
        word[0].isupper() or word[0].isdigit() for word in words)


def parse_number(text: str) -> float | None:
    """Return the value of a text that is a number, such as ``-8.0``, ``$1,200`` or ``5 %``; None for any other text."""
    number = _NUMBER.fullmatch(compose(text).strip().translate(_ASCII_MARKS))
    return float(number[1] + number[2].replace(",", "")) if number else None


# Compare

def match_choice(answer: str, choices: Sequence[str]) -> str:
    """Return the choice that `answer` names, or `answer` itself if it names no choice or several.

    A choice is named by its exact text, by its letter (``b``, ``(b)`` or ``(b) water``), or by the same text or number
    (see `same_answer`).
    """
    if answer in choices or not choices:
        return answer
    named = {choice for choice in choices if same_answer(choice, answer)}
    letter = _LETTER.fullmatch(compose(answer).strip())
    place = LETTERS.index(letter[1].lower()) if letter else len(choices)
    if place < len(choices):
        choice = choices[place]
        if letter[2] is None:
            named.add(choice)
        else:  # letter and text have to agree: the "(a)" of "(a) water" is no article
            named = {choice} if same_answer(letter[2], choice) else set()
    return named.pop() if len(named) == 1 else answer


def same_answer(one: str, other: str) -> bool:
    """Say whether two answers are equal: numbers by value (8 and 8.0), other texts after `normalise_answer`.

    Signs that change what a text says have to be the same: -3 °C is not 3 °C, and O- is not O+.
    """
    first, second = parse_number(one), parse_number(other)
    if first is not None and second is not None:
        return first == second
    alike = normalise_answer(one) == normalise_answer(other) or not (one.isascii() and other.isascii()) and (
        normalise_answer(_turkish_lower(one)) == normalise_answer(_turkish_lower(other)))
    return alike and _signs(one) == _signs(other)


def _signs(text):
    """Return the signs of a text in their order, without the spaces around them."""
    plain = compose(text).strip().translate(_ASCII_MARKS).replace("–", "-")
    return [sign.strip() for sign in _SIGN.findall(plain)]


def _turkish_lower(text):
    """Return `text` with I as ı and İ as i: the lower case of these two letters in Turkish and Azeri."""
    return compose(text).replace("İ", "i").replace("I", "ı")


def normalise_answer(text: str) -> str:
    """Return `text` without case, punctuation, articles and extra spaces.

    Width and composition of characters are removed too (see `texts.fold`), and spaces next to characters of a script
    that is written without spaces. A text of articles alone keeps them.
    """
    words = _PUNCTUATION.sub(" ", fold(text))
    return join_characters(" ".join(_ARTICLES.sub(" ", words).split()) or " ".join(words.split()))


def is_right(predicted: str, answer: str, choices: Sequence[str] = ()) -> bool:
    """Say whether a predicted answer is the gold one: the same choice or, without choices, the same text or number."""
    if not predicted:
        return False
    return match_choice(predicted, choices) == answer or (not choices and same_answer(predicted, answer))


def answered_right(predicted: str, item: Mapping) -> bool:
    """Say whether a predicted answer of a question (a record of tables.QUESTIONS) is one of its right answers."""
    return is_right(predicted, item["answer"], item["choices"]) or any(
        is_right(predicted, other) for other in item.get("other_answers", ()))


# Short answers, as the authors of SQuAD compare them (Rajpurkar et al. 2016, section 6.1)

def exact_match(predicted: str, answers: Iterable[str]) -> float:
    """Return 1.0 if a prediction and one of the right `answers` have the same words in the same order, else 0.0.

    Words are those of `short_answer_words`.
    """
    return float(any(short_answer_words(predicted) == short_answer_words(answer) for answer in answers))


def overlap_f1(predicted: str, answers: Iterable[str]) -> float:
    """Return the F1 (0 to 1) of the words of a prediction and of a right answer, whose order does not count.

    Of several right `answers` the one with the highest F1 counts.
    """
    return max((_f1(short_answer_words(predicted), short_answer_words(answer)) for answer in answers), default=0.0)


def _f1(predicted, right):
    same = (Counter(predicted) & Counter(right)).total()
    return 2 * same / (len(predicted) + len(right)) if same else 0.0  # 2PR / (P + R), P and R with the same numerator


def short_answer_words(text: str) -> list[str]:
    """Return the words between spaces of a text in lower case, without ASCII punctuation and then without articles.

    Unlike in `normalise_answer`, punctuation inside a word is taken out and not replaced by a space: ``U.S.`` is us.
    """
    plain = text.lower().translate(_NO_PUNCTUATION)
    return [word for word in _ARTICLES.sub(" ", plain).split() if word]


# Equations

_OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
              ast.USub: operator.neg, ast.UAdd: operator.pos}


def evaluate_equation(equation: str) -> float:
    """Return the value of an equation such as ``( 8.0 - 2.0 ) * 3``: numbers, + - * / and brackets.

    No code is run. Raises ValueError for anything else, a division by zero and a value that is not finite.
    """
    try:
        value = _value_of(ast.parse(equation.strip(), mode="eval").body) if len(equation) <= 300 else math.nan
    except (SyntaxError, ArithmeticError, RecursionError, MemoryError, ValueError) as error:
        raise ValueError(f"{shown(equation, 40)} is not made of numbers, + - * / and brackets ({error})") from error
    if not math.isfinite(value):
        raise ValueError(f"{shown(equation, 40)} has no finite value, or more than 300 characters")
    return value


def _value_of(node):
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return float(node.value)
    parts = {ast.BinOp: ("left", "right"), ast.UnaryOp: ("operand",)}.get(type(node))
    if not parts or type(node.op) not in _OPERATORS:
        raise ValueError(f"{type(node).__name__} is not allowed")
    return _OPERATORS[type(node.op)](*(_value_of(getattr(node, part)) for part in parts))
