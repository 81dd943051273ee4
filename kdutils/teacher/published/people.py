"""Explanations by a data set's own annotators.

Only the first text of a question is taught. The others are read as references of evaluation (text_metrics,
truth_proxies) and not taught. Of ECQA the free text (taskB) is taught, and the facts (taskA_pos for the right answer,
taskA_neg against the wrong ones) are not. No text by people is taught as a counterfactual: those of taskA_neg say why
the wrong answers are wrong, and a counterfactual argues for one of them.
"""

import pandas as pd

from kdutils.errors import StudyError
from kdutils.teacher.cleaning import Cleaned
from kdutils.teacher.published.joining import explanation_rows

PEOPLE = "people"


def human_explanations(questions: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """Return the first human explanation of each of `questions`; StudyError where no question has one."""
    rows, cleaned = [], []
    for question in questions.to_dict("records"):
        raw = next((text for text in question["human_explanations"] if text.strip()), "")
        text = " ".join(raw.split())  # the other cleaning rules are for the defects of models
        cleaned.append(Cleaned(text, ["joined_lines"] if text != raw.strip() else []) if raw
                       else Cleaned(None, [], "not published"))
        rows.append({"id": question["id"], "stage": "rationale", "answer": question["answer"], "raw": raw})
    if len(rows) and not any(row["raw"] for row in rows):
        raise StudyError(f"{dataset}-{PEOPLE}: none of the {len(rows)} questions has an explanation by people; take "
                         "another teacher, or a copy of the data set with explanations")
    return explanation_rows(rows, cleaned, {}, "")
