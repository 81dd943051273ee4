"""The texts of the published ratings of arXiv 2504.16056, as far as the published files show which text was rated.

The table of ratings names a text by a number and its length in characters, not by its question. The numbers follow the
order of the predictions, and only right answers were rated. For the students of one training (multitask and
counterfactual tasks, revised explanations) the predictions are published too, so most of its rated texts are known:
those whose place is the same in every assignment of texts to numbers that keeps order and lengths.
"""

import pandas as pd

from kdutils.errors import StudyError

METHOD = "MT+CF:Rev"  # of the ratings (ratings.read_ratings) whose texts are known
STUDENT = "revised"  # the student of evaluation.published_students that wrote them


def join_rated_texts(wide: pd.DataFrame, predictions: pd.DataFrame) -> dict[str, int]:
    """Return {text of the ratings: row of `predictions`} of the rated texts that can only be one prediction.

    `wide`: the published ratings, of ratings.read_ratings or one_row_per_rating. `predictions`: those of STUDENT, in
    published order. Raises StudyError if there are no ratings of METHOD, or if no assignment keeps order and lengths.
    """
    rated = wide[wide["method"] == METHOD].drop_duplicates("text")
    rated = rated.assign(number=rated["question"].astype(int)).sort_values("number")
    if rated.empty:
        raise StudyError(f"these ratings have no texts of {METHOD}; give the published table of ratings")
    lengths = list(rated["characters"].astype(int))
    written = [len(text) if right else -1 for text, right in zip(predictions["explanation"], predictions["correct"],
                                                                strict=True)]
    first = _places(lengths, written)
    last = [len(written) - 1 - place for place in _places(lengths[::-1], written[::-1])[::-1]]
    return {text: one for text, one, other in zip(rated["text"], first, last, strict=True) if one == other}


def _places(lengths, written):
    """Return the earliest places of `lengths` in `written`, in this order."""
    places, at = [], 0
    for length in lengths:
        while at < len(written) and written[at] != length:
            at += 1
        if at == len(written):
            raise StudyError("these are not the texts that were rated: their lengths do not fit the predictions; give "
                             "the files of one version")
        places.append(at)
        at += 1
    return places
