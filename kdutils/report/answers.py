"""What students say to one question, side by side: answer, explanation, probabilities, driving words, time.

An answer is a record of deployment.asking.ask.
"""

import html
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from kdutils.errors import printable
from kdutils.report.figures import share_bars, show
from kdutils.report.tables import LONG_TEXT, show_table


def show_answers(answers: Sequence[Mapping[str, Any]]) -> None:
    """Display what students say to the same question: a table, a panel of bars for each, the words that are marked."""
    from IPython.display import display

    if not answers:
        print("No student is chosen.")
        return
    show_table(pd.DataFrame([{
        "student": answer["student"], "answer": answer_text(answer),
        "explanation": answer["explanation"] or "(none)", "milliseconds": f"{1000 * answer['seconds']:.0f}"}
        for answer in answers]), answers[0]["question"])
    if answers[0]["choices"]:
        bars = pd.DataFrame({answer["student"]: answer["probabilities"] for answer in answers})
        bars.index = [choice if len(choice) <= LONG_TEXT else f"{choice[:LONG_TEXT - 1]}…"
                      for choice in answers[0]["choices"]]
        show(share_bars(bars), "Probability of each choice: " + "; ".join(
            f"{answer['student']}: {answer['likeliest']} {max(answer['probabilities']):.0%}" for answer in answers))
    for answer in answers:
        display({"text/html": marked_html(answer), "text/plain": "\n".join(answer_lines(answer))}, raw=True)


def marked_html(answer: Mapping[str, Any]) -> str:
    """Return the HTML of passage, question and choices with the driving words marked; every text is escaped."""
    text = mark_words(answer, "<mark>", "</mark>", html.escape).replace("\n", "<br>")
    note = f"<br><small>{html.escape(answer['note'])}</small>" if answer["note"] else ""
    return f"<p><b>{html.escape(answer['student'])}</b>: {text}{note}</p>"


def answer_text(record: Mapping[str, Any]) -> str:
    """Return an answer, and in brackets whether there is none or it is none of the choices."""
    outside = record["answer"] and record["choices"] and record["answer"] not in record["choices"]
    return f"{record['answer'] or '(no answer found)'}{' (none of the choices)' if outside else ''}"


def answer_lines(record: Mapping[str, Any]) -> list[str]:
    """Return an answer as lines for a terminal, without control characters; driving words stand between asterisks."""
    lines = [f"{record['student']}: {answer_text(record)}"]
    lines += [f"    explanation: {record['explanation']}"] if record["explanation"] else []
    for choice, share in zip(record["choices"], record["probabilities"], strict=True):
        lines.append(f"    {share:4.0%} {'█' * round(20 * share):<20} {choice}")
    if record["words"]:
        lines.append(f"    driving words: {mark_words(record, '*', '*')}".replace("\n", " "))
    lines += [f"    {record['note']}"] if record["note"] else []
    return list(map(printable, [*lines, f"    {1000 * record['seconds']:.0f} ms"]))


def mark_words(record: Mapping[str, Any], before: str, after: str, escape: Callable[[str], str] = str) -> str:
    """Return the text of an answer with `before` and `after` around each driving word; all other text is escaped."""
    text, shown, done = record["text"], "", 0
    for place in sorted(record["words"], key=lambda place: place["start"]):
        if place["start"] < done:  # a part of a word that is marked already
            continue
        shown += escape(text[done:place["start"]]) + before + escape(text[place["start"]:place["end"]]) + after
        done = place["end"]
    return shown + escape(text[done:])
