"""Which automatic metric can stand in for people: measures of the rated texts beside their ratings."""

import numpy as np
import pandas as pd

from kdutils.data.tables import read_parquet
from kdutils.errors import StudyError
from kdutils.evaluation.text_metrics import explanation_scores
from kdutils.stats.models import rank_correlation

TEXTS = ("text", "question", "method", "asked", "choices", "answer", "gold", "explanation")


def text_measures(path, ratings, explanations, encoder=""):
    """Return `ratings` (ratings.one_row_per_rating) with a column per measure of the rated text.

    `path`: the texts of a study, ``key/texts.parquet`` of human_study.write_study, or None where there are ratings
    alone: then the length in characters is the one measure. `explanations`: the teacher's, a frame of
    tables.EXPLANATIONS, the references of likeness; texts of the teacher are not compared with themselves.
    """
    if path is None:
        return ratings
    texts = read_parquet(path)
    lacking = [name for name in TEXTS if name not in texts]
    if lacking:
        raise StudyError(f"{path}: column '{lacking[0]}' is missing from the texts of a study")
    texts = texts.drop_duplicates("text").reset_index(drop=True)
    unknown = set(ratings["text"]) - set(texts["text"])
    if unknown:
        raise StudyError(f"{path}: these are texts of another plan: {min(unknown)} is not among them")
    asked = texts.drop_duplicates("question")
    questions = pd.DataFrame({"id": asked["question"], "question": asked["asked"],
                              "choices": asked["choices"].map(list)})
    written = pd.DataFrame({"id": texts["question"], "seed": 0, "answer": texts["gold"], "predicted": texts["answer"],
                            "explanation": texts["explanation"]})
    usable = explanations[explanations["text"].notna() & (explanations["stage"] != "counterfactual")]
    known = usable.groupby("id")["text"].apply(lambda found: [found.iloc[-1]]).to_dict()
    scores = explanation_scores(written, questions, {"teacher": known} if known else {}, encoder)
    likeness = [name for name in scores if name.endswith("_teacher")]
    scores.loc[(texts["method"] == "teacher").to_numpy(), likeness] = np.nan
    return ratings.merge(scores.drop(columns=["id", "seed"]).assign(text=texts["text"].to_numpy()), on="text",
                         validate="many_to_one")


def metric_validity(measured, rating, seed=0):
    """Return per measure its Spearman correlation with `rating`: over all ratings, and within methods.

    Within methods: of what is left when the method's mean is taken from both. A measure that only tells methods apart
    has none there. Columns: measure, scope, ratings, correlation, low, high; intervals by bootstrap over raters. A
    measure that never varies has no correlation and is left out.
    """
    rows = []
    for name in measures_of(measured):
        table = measured[["rater", "method", rating, name]].dropna()
        table = table.assign(**{column: table[column].astype(float) for column in (name, rating)})
        # Rounded: what is left of equal values is 0, not the last bit of a mean.
        inside = table.assign(**{column: (table[column] - table.groupby("method")[column].transform("mean")).round(9)
                                 for column in (name, rating)})
        for scope, values in (("all", table), ("within methods", inside)):
            try:
                found = rank_correlation(values, name, rating, cluster="rater", resamples=500, seed=seed)
            except StudyError:  # constant, or too few of them: there is nothing to correlate
                continue
            rows.append({"measure": name, "scope": scope, "ratings": len(table), "correlation": found.value,
                         "low": found.low, "high": found.high})
    return pd.DataFrame(rows, columns=["measure", "scope", "ratings", "correlation", "low", "high"])


def measures_of(measured):
    """Return the columns of a table of ratings that are measures of the rated text."""
    own = ("characters", "words", "repetition", "names_answer", "names_gold", "distractors", "copied")
    return [name for name in measured.columns if name in own or name.endswith(("_teacher", "_human"))]


def without_validity(measured, validity):
    """Return sentences: which measures metric_validity could not correlate with the ratings."""
    gone = [name for name in measures_of(measured) if name not in set(validity["measure"])]
    return [f"No correlation with {', '.join(gone)}: it needs two raters or more, and a measure and ratings that "
            "vary."] if gone else []
