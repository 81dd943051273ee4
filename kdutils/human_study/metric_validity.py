"""Which automatic metric agrees with people: measures of the rated texts, compared with their ratings."""

from collections.abc import Collection
from pathlib import Path

import numpy as np
import pandas as pd

from kdutils.errors import StudyError
from kdutils.evaluation.settings import OWN, PROXIES
from kdutils.evaluation.text_metrics import explanation_scores
from kdutils.fake_texts import fake_texts, fooled_by
from kdutils.human_study.design import teacher_rationales
from kdutils.human_study.plan import study_texts
from kdutils.stats.models import rank_correlation

RESAMPLES = 500  # of the bootstrap intervals


def text_measures(path: Path | str | None, ratings: pd.DataFrame, explanations: pd.DataFrame,
                  encoder: str = "") -> pd.DataFrame:
    """Return `ratings` (ratings.one_row_per_rating) with a column per measure of the rated text.

    `path`: the texts of the study, ``key/texts.parquet`` of forms.write_study, beside those of earlier forms. If it is
    None, the length in characters is the only measure. `explanations`: the teacher's, a frame of tables.EXPLANATIONS;
    design.teacher_rationales are the references. A text of the teacher is not compared with itself. Raises StudyError
    if `path` is not a file with all rated texts, and as teacher_rationales does.
    """
    if path is None:
        return ratings
    texts = study_texts(path, ratings["text"])
    unknown = set(ratings["text"]) - set(texts["text"])
    if unknown:
        raise StudyError(f"{path}: it has the texts of another plan, without {min(unknown)}")
    return ratings.merge(texts_measured(texts, explanations, encoder), on="text", validate="many_to_one")


def texts_measured(texts: pd.DataFrame, explanations: pd.DataFrame | None = None, encoder: str = "") -> pd.DataFrame:
    """Return a column per measure of `texts` (TEXT_COLUMNS), beside the column text; arguments as in text_measures."""
    references = {} if explanations is None else {key: [text] for key, text in _rationales(explanations).items()}
    scores = explanation_scores(_as_predictions(texts), _asked(texts), {"teacher": references} if references else {},
                                encoder)
    likeness = [name for name in scores if name.endswith("_teacher")]
    scores.loc[(texts["method"] == "teacher").to_numpy(), likeness] = np.nan
    return scores.drop(columns=["id", "seed"]).assign(text=texts["text"].to_numpy())


def fooled_measures(path: Path | str | None, ratings: pd.DataFrame, explanations: pd.DataFrame | None = None,
                    encoder: str = "", left_out: Collection[str] = ()) -> dict[str, str]:
    """Return {measure: the fakes (fake_texts) that are at least as good as the rated texts of a method, in words}.

    `left_out`: methods whose texts do not count (controls); those of the teacher do not either. Other arguments as in
    text_measures.
    """
    if path is None:
        return {}
    texts = study_texts(path, ratings["text"])
    methods = texts["method"].str.split(" · ").str[0]  # label_methods joins prompting, student and teacher to it
    texts = texts[texts["text"].isin(ratings["text"]) & ~methods.isin({"teacher", *left_out})]
    rationales = {} if explanations is None else _rationales(explanations)
    found = {}
    for _, own in texts.groupby("method", sort=False):
        values = texts_measured(own, explanations, encoder).mean(numeric_only=True).to_dict()
        for fake, written in fake_texts(_as_predictions(own), _asked(own), rationales).items():
            changed = own.assign(explanation=written, method=own["method"] if fake != "teacher" else "teacher")
            means = texts_measured(changed.dropna(subset="explanation"), explanations, encoder).mean(numeric_only=True)
            for measure, reason in fooled_by(values, [{"fake": fake, "measure": name, "value": value}
                                                      for name, value in means.items()]).items():
                found.setdefault(measure, {}).setdefault(fake, reason)
    return {measure: ", ".join(reasons.values()) for measure, reasons in found.items()}


def _rationales(explanations):
    """Return {question id: the teacher's text}."""
    return teacher_rationales(explanations).set_index("id")["text"].to_dict()


def _asked(texts):
    asked = texts.drop_duplicates("question")
    return pd.DataFrame({"id": asked["question"], "question": asked["asked"], "choices": asked["choices"].map(list)})


def _as_predictions(texts):
    return pd.DataFrame({"id": texts["question"], "seed": 0, "answer": texts["gold"], "predicted": texts["answer"],
                         "explanation": texts["explanation"]}).reset_index(drop=True)


def metric_validity(measured: pd.DataFrame, rating: str, seed: int = 0) -> pd.DataFrame:
    """Return the Spearman correlation of each measure with `rating`, over all ratings and within methods.

    Within methods, the mean of the method is subtracted from both. A measure that differs only between methods has no
    correlation there. Columns: measure, scope, ratings, correlation, low, high (95 %, the wider of the bootstrap
    intervals over raters and over texts). A measure without a correlation, because it does not vary, has no row.
    """
    rows = []
    for name in measures_of(measured):
        table = measured[["rater", "text", "method", rating, name]].dropna()
        table = table.assign(**{column: table[column].astype(float) for column in (name, rating)})
        # Rounded, so that equal values give 0 and not the last bit of a mean.
        inside = table.assign(**{column: (table[column] - table.groupby("method")[column].transform("mean")).round(9)
                                 for column in (name, rating)})
        for scope, values in (("all", table), ("within methods", inside)):
            try:
                found = rank_correlation(values, name, rating, cluster=["rater", "text"], resamples=RESAMPLES,
                                         seed=seed)
            except StudyError:  # constant or too few values
                continue
            rows.append({"measure": name, "scope": scope, "ratings": len(table), "correlation": found.value,
                         "low": found.low, "high": found.high})
    return pd.DataFrame(rows, columns=["measure", "scope", "ratings", "correlation", "low", "high"])


def measures_of(measured: pd.DataFrame) -> list[str]:
    """Return the columns of a table of ratings that are measures of the rated text."""
    own = ("characters", *OWN, *PROXIES)
    return [name for name in measured if name in own or name.endswith(("_teacher", "_human"))]


def without_validity(measured: pd.DataFrame, validity: pd.DataFrame) -> list[str]:
    """Return a sentence in a list that names the measures without a correlation, an empty list if there are none."""
    without = [name for name in measures_of(measured) if name not in set(validity["measure"])]
    return [f"No correlation with {', '.join(without)}: it needs two raters or more, and a measure and ratings that "
            "vary."] if without else []
