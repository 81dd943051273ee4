"""Explanations by a data set's own annotators."""

from kdutils.errors import StudyError
from kdutils.teacher.cleaning import Cleaned
from kdutils.teacher.published.joining import explanation_rows

PEOPLE = "people"


# People

def human_explanations(questions, dataset):
    """Return what people wrote on `questions`; StudyError where nobody explained any of them."""
    rows, cleaned = [], []
    for question in questions.to_dict("records"):
        raw = next((text for text in question["human_explanations"] if text.strip()), "")
        text = " ".join(raw.split())  # the rules for what a model writes at its token limit are not for people
        cleaned.append(Cleaned(text, ["joined_lines"] if text != raw.strip() else []) if raw
                       else Cleaned(None, [], "not published"))
        rows.append({"id": question["id"], "stage": "rationale", "answer": question["answer"], "raw": raw})
    if len(rows) and not any(row["raw"] for row in rows):
        raise StudyError(f"{dataset}-{PEOPLE}: none of the {len(rows)} questions has an explanation by people; take "
                         "another teacher, or a copy of the data set that has them")
    return explanation_rows(rows, cleaned, {}, "")
