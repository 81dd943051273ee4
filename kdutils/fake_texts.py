"""Fake texts, which are nobody's reasons, measured in the same way as explanations of students and teachers.

A fake student gives the same answers as the real one. A measure by which a fake is as good as real students, or as a
teacher, does not show that their explanations are good. The fakes:

- ``empty``: nothing; ``question``: the question;
- ``answer``: "The answer is X because it is the best answer.", with the student's answer;
- ``other``: the teacher's explanation of another question, drawn;
- ``teacher``: the teacher's own explanation, for measures that do not compare with the teacher: what a text can reach
  that is not the student's own reason. Questions without one are left out.
"""

import random
import re
from collections.abc import Iterable, Mapping

import pandas as pd

FAKES = ("empty", "question", "answer", "other", "teacher")
HIGHER_IS_BETTER = (r"(bleu|rouge_l|bertscore)_(teacher|human)|names_(answer|gold)|las.*|qbe|wholly_true|true_.*"
                    r"|(support|entailed)_human|overlap(_gain.*)?"
                    r"|answer (named|named in first line|followed)|wholly true|true (statements|reason)")
LOWER_IS_BETTER = r"denies_answer|argues_for_other|contradicted_human|repetition|contradicted"
FAKE = "fake: "  # before the name of a fake, in the place of a method or of a stage
STAR = " *"  # behind the name of a measure that a fake reaches


def as_good(measure: str, fake: float, student: float) -> bool:
    """Return whether the value of a fake is at least as good as the student's.

    False for measures of which neither more nor less is better, such as the number of words, and where a value is NaN.
    """
    return bool(re.fullmatch(HIGHER_IS_BETTER, measure) and fake >= student
                or re.fullmatch(LOWER_IS_BETTER, measure) and fake <= student)


def fooled_by(student: Mapping[str, float], fakes: Iterable[Mapping]) -> dict[str, str]:
    """Return {measure: the fakes that are at least as good as the student, in words}, without measures that have none.

    `student`: {measure: its value}. `fakes`: records of fake_measures.
    """
    found = {}
    for row in fakes:
        if as_good(row["measure"], row["value"], student.get(row["measure"], float("nan"))):
            found.setdefault(row["measure"], []).append(f"'{row['fake']}' has {row['value']:.3f}")
    return {measure: ", ".join(of_measure) for measure, of_measure in found.items()}


def starred(table: pd.DataFrame, marked: Iterable[str]) -> pd.DataFrame:
    """Return `table` with a STAR behind the names of `marked` measures, as columns or in the column ``measure``."""
    names = {name: name + STAR for name in marked}
    table = table.rename(columns=names)
    return table.assign(measure=table["measure"].replace(names)) if "measure" in table else table


def fake_texts(predictions: pd.DataFrame, questions: pd.DataFrame, rationales: dict[str, str],
               seed: int = 0) -> dict[str, list[str | None]]:
    """Return {fake: a text for each row of `predictions`} (a frame of tables.PREDICTIONS); see the module.

    `rationales`: {question id: the teacher's explanation}. Without two of them there is no ``other``, and without one
    for any of the questions no ``teacher``, whose text is None for a question without one.
    """
    asked, texts = questions.set_index("id")["question"], {}
    texts["empty"] = [""] * len(predictions)
    texts["question"] = [asked[key] for key in predictions["id"]]
    texts["answer"] = [f"The answer is {answer} because it is the best answer." for answer in predictions["predicted"]]
    if len(rationales) > 1:
        keys = sorted(rationales)
        texts["other"] = [rationales[random.Random(f"fake {seed} {key}").choice([one for one in keys if one != key])]
                          for key in predictions["id"]]
    if set(predictions["id"]) & set(rationales):
        texts["teacher"] = [rationales.get(key) for key in predictions["id"]]
    return texts


def fooled_stages(table: pd.DataFrame) -> dict[str, str]:
    """Return {measure: the fakes that are at least as good as a stage of the teacher, in words}.

    `table`: one row per stage, those of quality.fake_explanations included, and one column per measure.
    """
    is_fake = table["stage"].str.startswith(FAKE)
    fakes = [{"fake": row["stage"].removeprefix(FAKE), "measure": name, "value": row[name]}
             for row in table[is_fake].to_dict("records") for name in row
             if name != "stage" and isinstance(row[name], (int, float))]
    found = {}
    for stage in table[~is_fake].to_dict("records"):
        known = {name: value for name, value in stage.items() if isinstance(value, (int, float))}
        found = {**fooled_by(known, fakes), **found}
    return found
