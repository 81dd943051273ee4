"""The published chains of thought of PaLM-540B (Hsieh et al. 2023, "Distilling Step-by-Step").

They cover cqa, svamp, esnli and round 1 of anli, and were written without knowing the answer. There is one string per
question, in the order of the questions. It continues with made-up questions, so it is cut after the first answer. The
strings are in ``datasets.zip`` of the repository google-research/distilling-step-by-step (Apache-2.0). The unpacked
file is read; no download is known here.
"""

import difflib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from kdutils.data.answers import evaluate_equation, format_number
from kdutils.data.datasets import NLI_LABELS, READERS, content_key
from kdutils.data.questions import HALF, LETTERS, is_whole_text
from kdutils.data.readers import to_question
from kdutils.data.records import read_records
from kdutils.data.tables import path_kind
from kdutils.errors import StudyError
from kdutils.runs import project_path
from kdutils.teacher.cleaning import Cleaned, clean
from kdutils.teacher.published.joining import content_state, explanation_rows, join_key, published_text, seen_choices

PALM = "palm"

PALM_SPLITS = {  # data set -> its name in the files, split of a question -> split of the files
    "cqa": ("cqa", {"train": "train", "dev": "train", "test": "test"}),
    "svamp": ("svamp", {"train": "train", "dev": "train", "test": "test"}),
    "esnli": ("esnli", {"train": "train", "dev": "valid", "test": "test"}),
    "anli": ("anli1", {"train": "train", "dev": "valid", "test": "test"}),
}
PALM_OPTIONAL = {"esnli_train", "anli1_train"}  # in the zip file, but not in every unpacked copy
PALM_CAUTION = ("the teacher was not told the answer: a text argues for the answer in its row, which may be a wrong "
                "one; texts for a wrong answer are not trained on")
PALM_CONTENT = {  # content_checksum of the strings in order, each under the key "cot"
    "cqa_train": "527cda0342158b8a91b268eaba9886b8636c8c19a81eaa6ecafc2a46992255c4",
    "cqa_test": "fda3804027581c9bdc4a0a07a038bc68be02e476babf85d12651d6dfb05a7dc0",
    "svamp_train": "d1b5b952f6c0755cec50908c1fa4037376134199271a363f7a23a9b65cc9d105",
    "svamp_test": "34e6c7b513881e6ef6b46579360d5506ba0491de3c089477d9bf17f32b7a1cb4",
    "anli1_valid": "8bd6fb1ef0d2d52379d32f4aab240d1e31bc15af84eeacc1000896a715a51a70",
    "anli1_test": "f3d7dac2623616828b714a63557266f63d21d84a827c10dcf6080cc4c4396f7c",
    "esnli_valid": "c8b05574be0069a94d3a29961f3c4bf741166557ec7cd73462f91ab47661015f",
    "esnli_test": "48e0ea713adca8923b807ab4e67b1ef2b67d2e0b4f9360c140eadcf80f38e415",
}

_PALM_NEXT = re.compile(r"\n\s*\n|\n(?:Q|Premise):")  # a question that the teacher made up
_PALM_ANSWER = re.compile(r"(?:\bso )?\bthe answer is\b|(?:^|\n)Answer:", re.IGNORECASE)


def palm_folder(folder: str) -> Path:
    """Return the folder with the strings: `folder`, or with "" the one below KDUTILS_DATA; StudyError for neither."""
    data = os.environ.get("KDUTILS_DATA", "")
    if not folder and not (data and Path(data, "palm540b_dss").is_dir()):
        raise StudyError("PaLM-540B's chains of thought: no download is known; unpack datasets.zip of "
                         "google-research/distilling-step-by-step and give that `folder`, or set KDUTILS_DATA to a "
                         "folder that holds palm540b_dss")
    folder = project_path(folder or data)
    return folder / "palm540b_dss" if path_kind(folder / "palm540b_dss") == "folder" else folder


def palm_explanations(questions: pd.DataFrame, dataset: str, folder: Path) -> pd.DataFrame:
    """Return the explanations of `questions`, as published_explanations does."""
    name, splits = PALM_SPLITS[dataset]
    published, content = {}, {}
    for stem in dict.fromkeys(f"{name}_{splits[split]}" for split in questions["split"]):
        inputs, texts = _palm_table(stem, folder)
        if texts:
            content[stem] = content_state(({"cot": text} for text in texts), PALM_CONTENT.get(stem))
        for row, (record, text) in enumerate(zip(inputs, texts, strict=True)):
            for key, choices in _palm_key(dataset, record, f"{stem}: row {row}"):
                published.setdefault(key, (stem, choices, text))
    if not content:
        asked = ", ".join(dict.fromkeys(questions["split"]))
        raise StudyError(f"{folder}: no chains of thought for '{dataset}', split {asked}")
    rows, cleaned, right = [], [], {stem: [] for stem in content}
    for question in questions.to_dict("records"):
        stem, choices, raw = published.get(join_key(dataset, question), ("", [], ""))
        answer, text = parse_palm(dataset, raw, choices) if stem else ("", Cleaned(None, [], "not published"))
        rows.append({"id": question["id"], "stage": "rationale", "answer": answer, "raw": raw})
        cleaned.append(text)
        right.get(stem, []).append(answer == question["answer"])
    frame = explanation_rows(rows, cleaned, content, PALM_CAUTION)
    frame.attrs["notes"].update({f"{stem}: share of own answers that are right": round(sum(marks) / len(marks), 4)
                                 for stem, marks in right.items() if marks})
    return frame


def _palm_table(stem, folder):
    """Return (inputs, texts), one row per question; two empty lists for an optional file that is missing."""
    name, split = stem.split("_")
    packed, parts = folder / f"{stem}_CoT.parquet", _palm_parts(folder / name / "llm", split)
    if path_kind(packed) == "file":
        texts = [record.get("cot") for record in read_records(packed)]
        source = folder / f"{stem}_inputs.parquet"
        if name == "cqa":  # these inputs are CommonsenseQA itself
            source = folder.parent / "cqa" / {"train": "train.parquet", "test": "validation.parquet"}[split]
    elif parts:
        texts = [text for part in parts for text in _json_texts(part)]
        source = folder / name / f"{stem}.json"
    elif stem in PALM_OPTIONAL:
        return [], []
    else:
        raise StudyError(f"{folder}: neither {packed.name} nor {name}/llm/{split}_CoT_0.json in this folder")
    inputs = read_records(source)
    if len(inputs) != len(texts):
        raise StudyError(f"{source}: {len(inputs)} rows, but {stem}_CoT has {len(texts)}; they are joined row by row")
    wrong = next((row for row, text in enumerate(texts) if not isinstance(text, str) or not is_whole_text(text)), None)
    if wrong is not None:
        raise StudyError(f"{stem}_CoT: row {wrong}: field 'cot' is not a text" if not isinstance(texts[wrong], str)
                         else f"{stem}_CoT: row {wrong}: field 'cot': {HALF}")
    return inputs, texts


def _palm_parts(folder, split):
    """Return the parts of a split in their order, {split}_CoT_0.json and so on; StudyError where one is missing."""
    parts = {path.stem.rpartition("_")[2]: path for path in folder.glob(f"{split}_CoT_*.json")}
    for number in map(str, range(len(parts))):
        if number not in parts:
            raise StudyError(f"{folder}: {len(parts)} parts {split}_CoT_*.json, but {split}_CoT_{number}.json is not "
                             "among them")
    return [parts[str(number)] for number in range(len(parts))]


def _json_texts(path):
    if path_kind(path) != "file":
        raise StudyError(f"{path}: not a file")
    try:
        texts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise StudyError(f"{path}: not readable JSON ({error})") from error
    if not isinstance(texts, list):
        raise StudyError(f"{path}: not a list of texts")
    return texts


def _palm_key(dataset, record, where):
    """Yield (join key, choices that the teacher saw) of one row of the inputs; nothing for a row without a label."""
    if dataset == "svamp" and "input" in record:
        yield content_key(published_text(record, "input", where)), []
        return
    item = to_question(READERS[dataset], record, where)
    if not isinstance(item, str):
        yield join_key(dataset, item), seen_choices(record, item, where)


def parse_palm(dataset: str, text: str, choices: Sequence[str] = ()) -> tuple[str, Cleaned]:
    """Return (PaLM's own answer, Cleaned rationale) of one string, cut at the first made-up question.

    The rationale is the text before "So the answer is" ("The answer is" for svamp, "Answer:" for esnli). The answer is
    one of `choices`, as the teacher saw them, or for svamp the value of its equation. Without an answer, or with more
    than one, it is "" and the rationale has a problem.
    """
    text = _PALM_NEXT.split(text, maxsplit=1)[0]
    found = list(_PALM_ANSWER.finditer(text))
    if not found:
        return "", Cleaned(None, [], "no answer")
    rationale, said = text[:found[-1].start()].strip(), text[found[-1].end():].strip().rstrip(".!").strip()
    try:
        answer = _palm_number(said) if dataset == "svamp" else _palm_choice(said, choices or NLI_LABELS)
    except ValueError as error:
        return "", Cleaned(None, [], str(error))
    changes = ["cut_at_answer"]
    if rationale[-1:].isalnum() or rationale.endswith(","):  # the answer came next, so the sentence is complete
        rationale = f"{rationale.removesuffix(',')}."
        changes.append("full_stop_added")
    cleaned = clean(rationale, answer)
    return answer, Cleaned(cleaned.text, [*changes, *cleaned.changes], cleaned.problem)


def _palm_number(said):
    said = re.sub(r"(?<=\d),(?=\d{3}\b)", "", said.replace("$", ""))  # $1,200
    try:
        return format_number(evaluate_equation(said))
    except ValueError:
        raise ValueError("answer is not a number") from None


def _palm_choice(said, choices):
    """Return the choice that ``(c) tuna`` or ``tuna`` names: by its words, else by its letter if words are similar."""
    letters = re.findall(r"\(([a-z])\)", said)
    if len(set(letters)) > 1:
        raise ValueError("more than one answer")
    words = said.rpartition(")")[2].strip().casefold()
    named = [choice for choice in choices if content_key(choice) == content_key(words)]
    if named:
        return named[0]
    lettered = [choices[LETTERS.index(letter)] for letter in letters if LETTERS.index(letter) < len(choices)]
    if not lettered or difflib.SequenceMatcher(None, words, lettered[0].casefold()).ratio() < 0.6:
        raise ValueError("answer is none of the choices")
    return lettered[0]
