"""The published explanations of Llama-2-13B and Qwen3-30B-A3B (arXiv 2504.16056), and their known defects."""

from collections.abc import Iterator

import pandas as pd

from kdutils.data.readers import READERS, to_question
from kdutils.teacher.cleaning import Cleaned, clean
from kdutils.teacher.published.joining import content_state, explanation_rows, join_key, published_text, seen_choices
from kdutils.teacher.published.llm_tables import BASE_URL, CONTENT, NotFound, find_table

COLUMNS = {"rationale": "few_shot_positive_rationale", "revision": "few_shot_revision",
           "counterfactual": "counterfactual_prompt_answer_{}_rationale"}  # {}: the choice, counted from 1
REFUSED = {
    ("esnli", "qwen", "counterfactual"):
        "60 to 65 % of these texts equal those of Llama byte for byte, which two models would not write; the column "
        "has the name of the wrong teacher",
}
CAUTIONS = {
    ("cqa", "llama", "rationale"): "10 % of the raw texts stop in mid-sentence, at the token limit",
    ("cqa", "llama", "counterfactual"): "15 % of the raw texts stop in mid-sentence; about 1 % are another question "
                                        "and no explanation",
    ("esnli", "llama", "revision"): "two examples of the prompt revise a right answer to 'neutral'",
    ("esnli", "qwen", "rationale"): "half of the training table is known (shards 5 to 9)",
    ("esnli", "qwen", "revision"): "half of the training table is known (shards 5 to 9); two examples of the "
                                   "prompt revise a right answer to 'neutral'",
    ("strategyqa", "qwen", "revision"): "94 % of the raw texts run on into other questions and stop in mid-sentence",
    ("strategyqa", "qwen", "counterfactual"): "at least a quarter of the raw texts argue for the other answer",
}


def llm_explanations(questions: pd.DataFrame, dataset: str, teacher: str, stage: str, folder: str = "",
                     base_url: str = BASE_URL) -> pd.DataFrame:
    """Return the explanations of `questions` at a `stage`, as published_explanations does."""
    published, content = {}, {}
    for name in table_names(questions, dataset, teacher):
        try:
            source, records = find_table(name, folder, base_url, stage)
        except NotFound:
            if name.endswith("-validation"):
                continue  # optional: its questions are "not published" then
            raise
        content[source] = content_state(records, CONTENT.get(source))
        for key, record in keyed_table(dataset, records, source, stage):
            published.setdefault(key, record)
    rows, cleaned = [], []
    for question in questions.to_dict("records"):
        for answer, raw, problem in published_texts(question, published.get(join_key(dataset, question)), stage):
            cleaned.append(Cleaned(None, [], problem) if problem else clean(raw, answer))
            rows.append({"id": question["id"], "stage": stage, "answer": answer, "raw": raw})
    return explanation_rows(rows, cleaned, content, CAUTIONS.get((dataset, teacher, stage), ""))


def table_names(questions: pd.DataFrame, dataset: str, teacher: str) -> list[str]:
    """Return the names of the tables with these questions. The study's dev split is part of the published train split.

    For esnli it can also be the tenth of SNLI's validation split that was published (per stage, as -validation).
    """
    splits = dict.fromkeys("test" if split == "test" else "train" for split in questions["split"])
    if dataset == "esnli" and (questions["split"] == "dev").any():
        splits["validation"] = None
    return [f"{dataset}-{teacher}-{split}" for split in splits]


def keyed_table(dataset: str, records: list[dict], name: str, stage: str) -> Iterator[tuple]:
    """Yield (join key, {"answer", "choices", "texts"}) of each usable row: the published texts of `stage`."""
    for row, record in enumerate(records):
        item = to_question(READERS[dataset], record, f"{name}: row {row}")
        if isinstance(item, str):
            continue
        # The study merges a repeated choice, but the names of the columns count it.
        choices = seen_choices(record, item, f"{name}: row {row}")
        columns = [COLUMNS[stage].format(i + 1) for i in range(len(choices))]
        texts = [published_text(record, column, f"{name}: row {row}") for column in columns]
        yield join_key(dataset, item), {"answer": item["answer"], "choices": choices, "texts": texts}


def published_texts(question: dict, published: dict | None, stage: str) -> list[tuple[str, str, str]]:
    """Return (answer, raw text, problem) of each text of the stage for a question; `published` as in keyed_table."""
    answers = list(question["choices"]) if stage == "counterfactual" else [question["answer"]]
    if published is None:
        return [(answer, "", "not published") for answer in answers]
    if stage != "counterfactual" and published["answer"] != question["answer"]:
        return [(question["answer"], "", "published for another answer")]
    # Reversed, so that the first of several equal choices stays.
    texts = dict(reversed(list(zip(published["choices"], published["texts"], strict=True))))
    return [(answer, texts.get(answer, ""), "" if answer in texts else "not published") for answer in answers]
