"""What the explaining notebooks show of a teacher's texts."""

from collections.abc import Mapping
from types import MappingProxyType

import pandas as pd

from kdutils.fake_texts import STAR, starred
from kdutils.report.figures import length_histogram, show
from kdutils.report.tables import show_table

EXAMPLE = ("question", "choices", "answer", "raw", "text", "changes")


def show_split_sizes(questions: pd.DataFrame) -> None:
    """Show how many questions of each split there are."""
    show_table(questions.groupby("split", sort=False).size().reset_index(name="questions"), "Questions to explain")


def show_notes(explanations: pd.DataFrame) -> None:
    """Print known defects (published texts), whether the content is the published one, and what was counted."""
    for name in ("caution", "content", "notes"):
        if known := explanations.attrs.get(name):
            known = ", ".join(f"{key} {value}" for key, value in known.items()) if isinstance(known, dict) else known
            print(f"{name.capitalize()}: {known}")


def show_examples(explanations: pd.DataFrame, questions: pd.DataFrame, seed: int,
                  columns: tuple[str, ...] = EXAMPLE) -> None:
    """Show two explanations, drawn from `seed`, beside their questions."""
    joined = explanations.merge(questions[["id", "question", "choices"]], on="id", validate="many_to_one")
    show_table(joined.sample(min(2, len(joined)), random_state=seed)[list(columns)], "Two explanations")


def show_question(explanations: pd.DataFrame, questions: pd.DataFrame, seed: int) -> None:
    """Show every text about one question, drawn from `seed`."""
    item = questions.sample(1, random_state=seed).iloc[0]
    print(f"{item['question']} Right answer: {item['answer']}")
    texts = explanations[explanations["id"] == item["id"]]
    show_table(texts[["stage", "round", "answer", "raw", "text", "changes"]], "All texts about one question")


def show_cleaning(explanations: pd.DataFrame) -> None:
    """Show how many texts each cleaning rule changed, and how many are unusable, per stage."""
    changes = explanations.groupby("stage", sort=False)["changes"].apply(lambda rules: rules.explode().value_counts())
    problems = explanations[explanations["problem"] != ""].groupby("stage", sort=False)["problem"].value_counts()
    counted = pd.concat([changes, problems]).rename_axis(["stage", "rule or problem"]).reset_index(name="texts")
    show_table(counted, "Texts that a rule changed, and texts that are unusable")


def show_quality(raw: pd.DataFrame | list[dict], cleaned: pd.DataFrame | list[dict], key: str = "stage",
                 texts: str = "texts", fooled: Mapping[str, str] = MappingProxyType({})) -> None:
    """Show the raw_table and the text_table of teacher/quality.py, one measure per row, one column per `key`.

    The names of measures in `fooled` (fake_texts.fooled_stages) get a star, and the reasons are printed.
    """
    for table, name in ((raw, f"Raw {texts}"), (cleaned, f"Cleaned {texts}")):
        columns = pd.DataFrame(table).set_index(key).T
        rows = {measure: _as_counted(values) for measure, values in columns.iterrows()}
        columns = pd.DataFrame(rows.values(), index=pd.Index(rows, name="measure"), columns=columns.columns,
                               dtype=object)
        show_table(starred(columns.reset_index(), fooled), f"{name}, by stage")
    show_fooled(fooled)


def show_fooled(fooled: Mapping[str, str]) -> None:
    """Print why measures have a star: the fakes (kdutils.fake_texts) that are as good as a teacher's texts."""
    for measure, reason in fooled.items():
        print(f"{measure}{STAR}: no evidence of good texts, because a fake text is at least as good: {reason}.")


def _as_counted(values):
    """Return the values of a measure: whole numbers if all are and one is above 1 (counts), others rounded."""
    numbers = [float(value) if value is not None else float("nan") for value in values]
    known = [number for number in numbers if number == number]
    counts = bool(known) and max(known) > 1 and all(number.is_integer() for number in known)
    return [None if number != number else int(number) if counts else round(number, 3) for number in numbers]


def show_lengths(explanations: pd.DataFrame) -> None:
    """Show a histogram of the number of words of the usable texts, per stage."""
    usable = explanations[explanations["text"].notna()]
    lengths = {stage: part["text"].str.split().str.len() for stage, part in usable.groupby("stage", sort=False)}
    show(length_histogram(lengths, "words"), "Histogram of the number of words per text, one outline per stage")
