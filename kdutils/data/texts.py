"""What a text says about the choices of its question: the one place where answers are looked for in explanations."""

import re

CONTRAST = re.compile(r"n't\b|\b(?:not?|never|cannot|neither|nor|wrong|incorrect|unlike|while|although|but|instead)\b",
                      re.IGNORECASE)
STATED = re.compile(r"\banswer is:? [\"'“‘]?([^.,;\n\"”’]+)", re.IGNORECASE)


def names_answer(text, answer):
    """Say whether the answer stands in the text as whole words, whatever its case."""
    return bool(answer) and re.search(rf"(?<!\w){re.escape(answer)}(?!\w)", text, re.IGNORECASE) is not None


def follows(text, answer, choices):
    """Say whether `text` argues for `answer`: True, False, or None where the text does not show it.

    What decides is the last answer that the text states ("the answer is …"; a yes or no as first word), else the one
    choice that its first sentence names without a word of contrast, else the one choice that it names at all; any other
    text shows nothing. Choices of yes and no are not looked for inside the text: both are ordinary words.
    """
    stated = [name for name in STATED.findall(text) if _choice_in(name, choices)]
    if stated:
        return _choice_in(stated[-1], choices) == answer
    if {choice.casefold() for choice in choices} == {"yes", "no"}:
        first = re.match(r"\W*(yes|no)\b", text, re.IGNORECASE)
        return first[1].casefold() == answer.casefold() if first else None
    first = re.split(r"(?<=[.!?])\s", text, maxsplit=1)[0]
    for part in ([] if CONTRAST.search(first) else [first]) + [text]:
        named = [choice for choice in choices if names_answer(part, choice)]
        if len(named) == 1:
            return named[0] == answer
    return None


def _choice_in(text, choices):
    """Return the choice that `text` names first (the longest one of those at that place), or None."""
    found = [(match.start(), -len(choice), choice) for choice in choices
             if (match := re.search(rf"(?<!\w){re.escape(choice)}(?!\w)", text, re.IGNORECASE))]
    return min(found)[2] if found else None


def lower_words(text):
    """Return the words of a text in lower case, of any script, without punctuation."""
    return re.findall(r"\w+", text.casefold())


def triples(text):
    """Return the three-word sequences of a text in order."""
    words = lower_words(text)
    return list(zip(words, words[1:], words[2:], strict=False))
