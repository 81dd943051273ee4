"""Explanations by a data set's own annotators.

A data set can have several texts per question: e-SNLI has three in dev and test, and QASC the two facts and the fact
that follows from them. Of ECQA the first one is the free text (taskB), the second one gives the facts for the right
answer (taskA_pos), and the third one those against the wrong answers (taskA_neg). No text by people is taught as a
counterfactual: those of taskA_neg say why the wrong answers are wrong, and a counterfactual argues for one of them.
"""

import pandas as pd

from kdutils.errors import StudyError
from kdutils.teacher.cleaning import Cleaned
from kdutils.teacher.published.joining import explanation_rows

PEOPLE = "people"


def human_explanations(questions: pd.DataFrame, dataset: str, samples: int = 1) -> pd.DataFrame:
    """Return the first `samples` human explanations of each of `questions`, one sample after the other.

    A question with fewer texts has rows without a text. StudyError where no question has one.
    """
    rows, cleaned = [], []
    for sample in range(samples):
        for question in questions.to_dict("records"):
            raw = dict(enumerate(filter(str.strip, question["human_explanations"]))).get(sample, "")
            text = " ".join(raw.split())  # the other cleaning rules are for the defects of models
            cleaned.append(Cleaned(text, ["joined_lines"] if text != raw.strip() else []) if raw
                           else Cleaned(None, [], "not published"))
            rows.append({"id": question["id"], "stage": "rationale", "sample": sample, "answer": question["answer"],
                         "raw": raw})
    if len(rows) and not any(row["raw"] for row in rows):
        raise StudyError(f"{dataset}-{PEOPLE}: none of the {len(questions)} questions has an explanation by people; "
                         "take another teacher, or a copy of the data set with explanations")
    return explanation_rows(rows, cleaned, {}, "")
