"""The texts behind the published ratings, and the command that compares proxies of truth with people."""

import os
from pathlib import Path

import pandas as pd
import pytest

from kdutils.errors import StudyError
from kdutils.evaluation.published_students import data_folder, published_student
from kdutils.human_study.published_texts import METHOD, join_rated_texts
from kdutils.human_study.ratings import one_row_per_rating, read_ratings

DATA = Path(os.environ.get("KDUTILS_DATA") or "-")
needs_data = pytest.mark.skipif(not (DATA / "human_study").is_dir(), reason="needs the published ratings")


def rated(*numbers_and_lengths, method=METHOD):
    return pd.DataFrame([{"method": method, "text": f"t{number}", "question": str(number), "characters": length}
                         for number, length in numbers_and_lengths])


def written(*texts, wrong=()):
    return pd.DataFrame({"explanation": texts, "correct": [place not in wrong for place in range(len(texts))]})


def test_a_text_is_joined_where_order_and_length_leave_one_prediction():
    predictions = written("aa", "bbb", "aa", "cccc", "bbb")
    # 3 and 9 are the only pair of lengths 2, 4 in this order: length 2 may be row 0 or 2, length 4 is row 3
    assert join_rated_texts(rated((9, 4), (3, 2)), predictions) == {"t9": 3}
    assert join_rated_texts(rated((3, 2), (4, 2), (9, 4)), predictions) == {"t3": 0, "t4": 2, "t9": 3}
    assert join_rated_texts(rated((3, 2), (9, 4)), written("aa", "bbb", "aa", "cccc", wrong=(0,))) == {"t3": 2, "t9": 3}


def test_ratings_that_do_not_fit_are_refused():
    with pytest.raises(StudyError, match="do not fit the predictions"):
        join_rated_texts(rated((1, 4), (2, 2)), written("aa", "cccc"))
    with pytest.raises(StudyError, match="no texts of MT\\+CF:Rev"):
        join_rated_texts(rated((1, 2), method="MT:Unrev"), written("aa"))


def test_without_a_folder_the_command_says_what_to_set(monkeypatch):
    monkeypatch.delenv("KDUTILS_DATA", raising=False)
    with pytest.raises(StudyError, match="set KDUTILS_DATA to the folder"):
        data_folder()


@needs_data
def test_the_published_ratings_belong_to_271_of_273_texts():
    predictions, questions = published_student("revised", DATA)
    assert len(questions) == 1221 and predictions["correct"].mean() == pytest.approx(0.7649, abs=0.002)
    wide = one_row_per_rating(read_ratings(DATA / "human_study" / "study_ratings_no_demographics.csv").ratings)
    rows = join_rated_texts(wide, predictions)
    assert len(rows) == 271 and predictions.iloc[list(rows.values())]["correct"].all()
    unrevised, _ = published_student("unrevised", DATA)
    with pytest.raises(StudyError, match="do not fit"):
        join_rated_texts(wide, unrevised)
