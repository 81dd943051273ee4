"""The teacher backend ``published``: explanations that others published, and nobody has to generate again.

**Llama-2-13B and Qwen3-30B-A3B** (arXiv 2504.16056). The authors' repository holds, per data set, teacher and
split, one table of ten Arrow shards: the questions and one column of text per prompting ("consolidated"). A second
layout holds one table per stage (STAGE_FOLDERS), under the same columns; it is read where a consolidated table is
missing. Tables come from a local folder, as shards or as one Parquet file each, or are downloaded at a pinned
commit and kept in a cache. The repository states no licence, so no part of it is shipped.

**PaLM-540B** (Hsieh et al. 2023, "Distilling Step-by-Step"): chains of thought for cqa, svamp, esnli and round 1
of anli, written without knowing the answer. One string per question, in the order of the questions, which runs on
into made-up questions: the first answer ends it. They are in ``datasets.zip`` of the repository
google-research/distilling-step-by-step (Apache-2.0), which is read unpacked; no download is known here.

**People**: what a data set's own annotators wrote (the column human_explanations of the questions), where it has that.

What is wrong with the published texts is known here: they are cleaned (``cleaning``), columns that are not what
their name says are refused (REFUSED), and other defects come along as notes (CAUTIONS).
"""

from kdutils.errors import StudyError
from kdutils.teacher.choices import PUBLISHED_TEACHERS
from kdutils.teacher.cleaning import Cleaned, clean
from kdutils.teacher.published.joining import explanation_rows, join_key
from kdutils.teacher.published.llm import (
    BASE_URL,
    CAUTIONS,
    COLUMNS,
    REFUSED,
    NotFound,
    content_state,
    find_table,
    keyed_table,
    published_texts,
    table_names,
)
from kdutils.teacher.published.palm import PALM, PALM_SPLITS, palm_explanations, palm_folder
from kdutils.teacher.published.people import PEOPLE, human_explanations

DATASETS = ("cqa", "esnli", "strategyqa")
STAGES = {"few_shot": "rationale", "critique_revision": "revision", "counterfactual": "counterfactual"}


def published_explanations(questions, dataset, teacher, prompting, folder="", base_url=BASE_URL):
    """Return the published explanations of `questions` as a frame with the columns of tables.EXPLANATIONS.

    `prompting` is few_shot, critique_revision or counterfactual, or the stage that it ends in (rationale,
    revision, counterfactual). One row per question, for counterfactual one per question and choice. Joined by
    id and content for cqa, else by the letters and digits of the question. A question that was not
    published, or for another gold answer, has a row with text None and the problem; nothing is left out.

    `teacher` llama or qwen: `folder` holds ``{dataset}-{teacher}-{split}`` as a Parquet file or as a folder of
    ``shard_{i}``, or the same of one stage (``rationales__{dataset}-{teacher}-{split}.parquet``, also below
    ``stages``, or ``rationales/{dataset}-{teacher}-{split}/shard_{i}``); "" downloads from `base_url`.
    `teacher` palm: only few_shot; `folder` holds ``{dataset}_{split}_CoT.parquet`` or the unpacked ``datasets.zip``;
    "" is ``palm540b_dss`` below KDUTILS_DATA. The answer of a row is PaLM's own, "" where it gave none.
    `teacher` people: only few_shot, any data set whose questions have explanations by people, the first one each.

    ``frame.attrs`` has ``notes`` (what cleaning did and what is missing, counted; for palm also the share of
    answers that are right, per file), ``content`` (per table, whether its rows are the pinned ones) and
    ``caution`` (known defects, or "").

    Raises StudyError for unknown names, unusable columns, missing or broken files, and a download that fails or
    differs from the pinned content.
    """
    stage = STAGES.get(prompting, prompting)
    _check_names(dataset, teacher, stage)
    if teacher == PEOPLE:
        return human_explanations(questions, dataset)
    if teacher == PALM:
        return palm_explanations(questions, dataset, palm_folder(folder))
    published, content = {}, {}
    for name in table_names(questions, dataset, teacher):
        try:
            source, records = find_table(name, folder, base_url, stage)
        except NotFound:
            if name.endswith("-validation"):
                continue  # an extra: these questions are "not published" then
            raise
        content[source] = content_state(source, records)
        for key, record in keyed_table(dataset, records, source, stage):
            published.setdefault(key, record)
    rows, cleaned = [], []
    for question in questions.to_dict("records"):
        for answer, raw, problem in published_texts(question, published.get(join_key(dataset, question)), stage):
            cleaned.append(Cleaned(None, [], problem) if problem else clean(raw, answer))
            rows.append({"id": question["id"], "stage": stage, "answer": answer, "raw": raw})
    return explanation_rows(rows, cleaned, content, CAUTIONS.get((dataset, teacher, stage), ""))


# Names, and the join to the study's questions

def check_published(dataset, teacher, prompting, folder=""):
    """Raise StudyError where no explanations of this kind were published, or where they are cannot be known."""
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
                         "rationales alone")
    if (dataset, teacher, stage) in REFUSED:
        raise StudyError(f"{dataset}-{teacher}, {stage}: refused. {REFUSED[dataset, teacher, stage][0].upper()}"
                         f"{REFUSED[dataset, teacher, stage][1:]}")
