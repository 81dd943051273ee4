"""The published predictions of two students of arXiv 2504.16056: their answers and explanations.

Both are T5 v1.1 large, trained on CommonsenseQA with multitask and counterfactual tasks, one on unrevised and one on
revised explanations of Llama-2-13B. They answered the 1,221 questions of the official dev split, in its order. Texts of
the second one were rated by people (human_study.published_texts).
"""

import os
from pathlib import Path

import pandas as pd

from kdutils.data.answers import parse_answer
from kdutils.data.datasets import READERS, content_key
from kdutils.data.readers import to_question
from kdutils.data.records import read_records
from kdutils.data.tables import path_kind
from kdutils.errors import StudyError

STUDENTS = ("unrevised", "revised")  # the explanations that a student learnt from
ENDINGS = (".parquet", ".csv")  # a table of the authors is CSV


def data_folder(given: str = "") -> Path:
    """Return the folder `given`, or that of KDUTILS_DATA; StudyError if there is none."""
    if not (name := given or os.environ.get("KDUTILS_DATA", "")):
        raise StudyError("no data: set KDUTILS_DATA to the folder that holds cqa/ and human_study/")
    return Path(name)


def published_student(which: str, folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return (predictions, questions) of one of STUDENTS.

    `folder` holds ``human_study/<which>_explanation_sample`` (.parquet, or .csv as published) and the questions,
    ``cqa/validation.parquet``. `predictions` has the columns id, seed (0), answer, predicted, correct and explanation
    of tables.PREDICTIONS. Raises StudyError where a file is missing or is not about these questions.
    """
    stem = folder / "human_study" / f"{which}_explanation_sample"
    files = [stem.with_suffix(ending) for ending in ENDINGS]
    file = next((file for file in files if path_kind(file) == "file"), files[0])
    rows, reader = read_records(file), READERS["cqa"]
    asked = folder / reader.local["test"]
    items = [to_question(reader, record, str(asked)) for record in read_records(asked)]
    questions = pd.DataFrame([{"human_explanations": [], "split": "test", **item} for item in items])
    if len(rows) != len(items):
        raise StudyError(f"{file}: {len(rows)} rows, {asked}: {len(items)} questions; give the files of one version")
    predictions = []
    for number, (row, item) in enumerate(zip(rows, items, strict=True)):
        if content_key(item["question"]) not in content_key(str(row.get("input_predict"))):
            raise StudyError(f"{file}: row {number} is not about the question of row {number} in {asked}")
        predicted, _ = parse_answer(str(row["answers_preds"]), item["choices"])
        predictions.append({"id": item["id"], "seed": 0, "answer": item["answer"], "predicted": predicted,
                            "correct": predicted == item["answer"], "explanation": str(row["rationales_preds"])})
    return pd.DataFrame(predictions), questions
