"""Methods: each is a small table of tasks; a task turns a question into rows ``(source, target, weight)``.

Adding a method is one entry of METHODS and a notebook. The loss of a step is
``sum over tasks of weight · mean over the task's target tokens`` (see trainer.py).

Formats follow arXiv 2504.16056 (task tags ``[predict]`` and ``[explain]``, lettered choices) with one
difference: where answer and explanation share a target, the marker ``Explanation:`` parts them, so that
the answer can be read back without guessing where it ends.
"""

import re
from dataclasses import dataclass

from kdutils.data.questions import LETTERS, lettered
from kdutils.errors import StudyError

MARKER = "Explanation:"
ANSWER = re.compile(r"the answer is\s*(.*?)\s*(?:\.\s*explanation\s*:(.*))?$", re.IGNORECASE | re.DOTALL)
MARKS = re.compile(r"[^\w\s]|_")
ARTICLES = re.compile(r"\b(a|an|the)\b")


@dataclass(frozen=True)
class Row:
    """One pair of texts to learn from; `task` names the term of the loss that it belongs to."""

    task: str
    source: str
    target: str


def asked(item, tag):
    """Return the source text of a question under a task tag."""
    choices = f"\nChoices: {lettered(item['choices'])}" if item["choices"] else ""
    return f"[{tag}] Question: {item['question']}{choices}"


def answered(answer):
    """Return an answer as a target text."""
    return f"The answer is {answer}."


def predict(item, rationale):
    """Question to answer (label_only; the first task of multitask)."""
    return Row("predict", asked(item, "predict"), answered(item["answer"]))


def explain(item, rationale):
    """Question to explanation (the second task of multitask); no row where the teacher gave none."""
    return Row("explain", asked(item, "explain"), rationale) if rationale else None


def predict_then_explain(item, rationale):
    """Question to answer and explanation in one target (standard); the answer alone where the teacher gave none."""
    target = answered(item["answer"]) + (f" {MARKER} {rationale}" if rationale else "")
    return Row("predict", asked(item, "predict"), target)


def label_only(parameters):
    return [(predict, 1.0)]


def standard(parameters):
    return [(predict_then_explain, 1.0)]


def multitask(parameters):
    alpha = share(parameters, "alpha")
    return [(predict, alpha), (explain, 1 - alpha)]


METHODS = {"label_only": label_only, "standard": standard, "multitask": multitask}
EXPLAINS = {"label_only": "", "standard": "predict", "multitask": "explain"}  # the tag that brings the explanation


def share(parameters, name):
    """Return a weight between 0 and 1 from `parameters`, 0.5 where it is not given (arXiv 2504.16056)."""
    value = parameters.get(name, 0.5)
    if not 0 <= value <= 1:
        raise StudyError(f"{name}: {value} is not between 0 and 1")
    return value


def tasks_of(method, parameters):
    """Return [(task function, weight)] of a method; StudyError for an unknown one."""
    if method not in METHODS:
        raise StudyError(f"method: unknown '{method}'; known: {', '.join(METHODS)}")
    return METHODS[method](parameters)


def rows_of(method, parameters, item, rationale):
    """Return the rows of one question (a record of tables.QUESTIONS) and its rationale (None where unusable)."""
    rows = [task(item, rationale) for task, _ in tasks_of(method, parameters)]
    return [row for row in rows if row is not None]


def task_weights(method, parameters):
    """Return {name of the task: weight in the loss}."""
    item = {"question": "", "choices": [], "answer": ""}
    return {task(item, "-").task: weight for task, weight in tasks_of(method, parameters)}


def parse_answer(text, choices=()):
    """Return (answer, explanation) as read from a generated text; "" for what is not there.

    The answer is what follows "The answer is", up to the marker. Where there are choices it is matched to
    one of them: first as it stands, then by its letter, then normalised (see normalise); an answer that
    matches none is returned as written.
    """
    found = ANSWER.search(text.strip())
    if not found:
        return "", ""
    answer = found[1].strip()
    answer = answer if answer in choices else answer.rstrip(".").rstrip()
    return match_choice(answer, choices), (found[2] or "").strip()


def match_choice(answer, choices):
    """Return the choice that `answer` names, or `answer` itself where it names none or more than one."""
    if answer in choices or not choices:
        return answer
    letter = re.fullmatch(r"\(?([a-z])\)?", answer.strip().lower())
    if letter and LETTERS.index(letter[1]) < len(choices):
        return choices[LETTERS.index(letter[1])]
    same = [choice for choice in choices if normalise(choice) == normalise(answer)]
    return same[0] if len(same) == 1 else answer


def normalise(text):
    """Return `text` without case, punctuation, articles and extra space: what counts when answers are compared."""
    words = ARTICLES.sub(" ", MARKS.sub(" ", text.casefold()))
    return " ".join(words.split()) or " ".join(MARKS.sub(" ", text.casefold()).split())


def is_right(predicted, answer, choices=()):
    """Say whether a predicted answer is the gold one: the same choice, or the same text once normalised."""
    if not predicted:
        return False
    return match_choice(predicted, choices) == answer or (not choices and normalise(predicted) == normalise(answer))
