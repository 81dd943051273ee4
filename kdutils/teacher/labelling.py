"""Questions without an answer: a teacher answers them, and is compared with the answers that are there."""

from pathlib import Path

import pandas as pd

from kdutils.data.answers import answered_right, match_choice
from kdutils.errors import StudyError
from kdutils.stats.accuracy import bootstrap_mean
from kdutils.teacher.explaining import explain


def to_answer(questions: pd.DataFrame, splits: list[str]) -> pd.DataFrame:
    """Return the questions that a teacher is asked: those without an answer, and those with one in `splits`."""
    asked = (questions["answer"] == "") | questions["split"].isin(splits)
    return questions[asked].reset_index(drop=True)


def teacher_answers(questions: pd.DataFrame, parameters: dict, progress: Path | str | None = None) -> dict[str, str]:
    """Return {question id: the teacher's answer}, "" where it gave none or none of the choices.

    `parameters`: those of notebook 08. The prompt is the few-shot prompt without an answer. Its completions are
    those of the prompting few_shot with ``given_answer: false``, so they are paid for once.
    """
    written = explain(questions, "few_shot", {**parameters, "given_answer": False}, progress=progress,
                      for_answers=True)
    choices = dict(zip(questions["id"], questions["choices"], strict=True))
    found = {row.id: match_choice(row.answer.strip(), choices[row.id]) for row in written.itertuples()}
    return {key: answer if answer in choices[key] or not len(choices[key]) else "" for key, answer in found.items()}


def with_answers(questions: pd.DataFrame, answers: dict[str, str]) -> pd.DataFrame:
    """Return `questions` with the teacher's answer where there was none; questions that have none then are left out.

    Raises StudyError if no train question is left.
    """
    gaps = questions["answer"] == ""
    filled = questions.assign(answer=[answers.get(key, "") if gap else answer for key, answer, gap in
                                      zip(questions["id"], questions["answer"], gaps, strict=True)])
    filled = filled[filled["answer"] != ""].reset_index(drop=True)
    if not (filled["split"] == "train").any():
        raise StudyError(f"the teacher gave a usable answer to none of {int(gaps.sum())} questions; look at the prompt "
                         "and at what the teacher writes to it")
    return filled


def agreement(questions: pd.DataFrame, answers: dict[str, str]) -> dict[str, dict]:
    """Return {split: {"questions", "share", "low", "high"}}: how often the teacher gives the answer that is there.

    Only questions that have an answer and were asked count. `low`, `high`: 95 % bootstrap interval of the share.
    """
    found = {}
    known = questions[(questions["answer"] != "") & questions["id"].isin(list(answers))]
    for split, part in known.groupby("split", sort=False):
        right = [float(answered_right(answers[item["id"]], item)) for item in part.to_dict("records")]
        share, low, high = bootstrap_mean([right])
        found[split] = {"questions": len(right), "share": share, "low": low, "high": high}
    return found
