"""The backend ``published``: explanations that others published.

**Llama-2-13B and Qwen3-30B-A3B** (arXiv 2504.16056), see llm.py. **PaLM-540B** (Hsieh et al. 2023, "Distilling
Step-by-Step"), see palm.py. **People**: the explanations of a data set's own annotators (the column human_explanations
of the questions), see people.py.

The published texts have known defects. They are cleaned (``cleaning``). Columns that are not what their name says are
refused (llm.REFUSED). Other defects come along as notes (llm.CAUTIONS).
"""

import pandas as pd

from kdutils.errors import StudyError
from kdutils.teacher.choices import PUBLISHED_TEACHERS
from kdutils.teacher.published.llm import COLUMNS, REFUSED, llm_explanations
from kdutils.teacher.published.llm_tables import BASE_URL
from kdutils.teacher.published.palm import PALM, PALM_SPLITS, palm_explanations, palm_folder
from kdutils.teacher.published.people import PEOPLE, human_explanations

DATASETS = ("cqa", "esnli", "strategyqa")  # of Llama and Qwen
STAGES = {"few_shot": "rationale", "critique_revision": "revision", "counterfactual": "counterfactual"}


def published_explanations(questions: pd.DataFrame, dataset: str, teacher: str, prompting: str, folder: str = "",
                           base_url: str = BASE_URL, samples: int = 1) -> pd.DataFrame:
    """Return the published explanations of `questions` as a frame with the columns of tables.EXPLANATIONS.

    `prompting` is few_shot, critique_revision or counterfactual, or its last stage (rationale, revision,
    counterfactual). There is one row per question, for counterfactual one per question and choice. No question is left
    out: one that was not published, or was published for another gold answer, has a row with text None and the problem.
    Rows are joined by id and content for cqa, else by the letters and digits of the question.

    `teacher` llama or qwen: `folder` holds ``{dataset}-{teacher}-{split}`` as a Parquet file or as a folder of
    ``shard_{i}``, or the same of one stage (``rationales__{dataset}-{teacher}-{split}.parquet``, also below
    ``stages``, or ``rationales/{dataset}-{teacher}-{split}/shard_{i}``); "" downloads from `base_url`.
    `teacher` palm: only few_shot; `folder` holds ``{dataset}_{split}_CoT.parquet`` or the unpacked ``datasets.zip``;
    "" is ``palm540b_dss`` below KDUTILS_DATA. The answer of a row is PaLM's own, "" where it gave none.
    `teacher` people: only few_shot, the first `samples` explanations of each question.

    ``frame.attrs`` has ``notes`` (counts of what cleaning changed and of what is missing; for palm also the share of
    right answers per file), ``content`` (per table, whether its rows are the pinned ones) and ``caution`` (known
    defects, or "").

    Raises StudyError for unknown names, unusable columns, missing or broken files, and a download that fails or
    differs from the pinned content.
    """
    stage = STAGES.get(prompting, prompting)
    _check_names(dataset, teacher, stage)
    if teacher == PEOPLE:
        return human_explanations(questions, dataset, samples)
    if teacher == PALM:
        return palm_explanations(questions, dataset, palm_folder(folder))
    return llm_explanations(questions, dataset, teacher, stage, folder, base_url)


def check_published(dataset: str, teacher: str, prompting: str, folder: str = "") -> None:
    """Raise StudyError where no such explanations were published, or where their folder is unknown."""
    _check_names(dataset, teacher, STAGES.get(prompting, prompting))
    if teacher == PALM:
        palm_folder(folder)


def _check_names(dataset, teacher, stage):
    datasets = {PALM: PALM_SPLITS, PEOPLE: (dataset,)}.get(teacher, DATASETS)
    for what, value, known in (("teacher", teacher, PUBLISHED_TEACHERS), ("dataset", dataset, datasets),
                               ("prompting", stage, (*STAGES, *COLUMNS))):
        if value not in known:
            whose = f" for teacher '{teacher}'" if what == "dataset" else ""
            raise StudyError(f"published explanations: {what} '{value}' is unknown{whose}; choose one of "
                             f"{', '.join(known)}")
    if teacher in (PALM, PEOPLE) and stage != "rationale":
        raise StudyError(f"{dataset}-{teacher}, {stage}: never published; {PUBLISHED_TEACHERS[teacher]} wrote few_shot "
                         "rationales only")
    if (dataset, teacher, stage) in REFUSED:
        raise StudyError(f"{dataset}-{teacher}, {stage}: refused: {REFUSED[dataset, teacher, stage]}")
