"""What the proxies of truth (evaluation.truth_proxies) are worth: people's ratings, and texts for wrong answers.

    python -m kdutils.benchmarks.proxies

First table: Spearman's correlation of each measure with people's ratings of a student's explanations, with the wider of
the bootstrap intervals over raters and over texts (arXiv 2504.16056; CommonsenseQA; only answers that were right were
rated). Second table: texts that LLaMA-2-13B wrote for the right answer and for a wrong one, both judged by the right
answer. A proxy of any use separates them: `apart` is the probability that it ranks a random pair rightly, ties counted
half (0.5 is chance).
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from kdutils.benchmarks.machine import exit_code
from kdutils.data.readers import read_questions
from kdutils.errors import StudyError
from kdutils.evaluation.published_students import data_folder, published_student
from kdutils.evaluation.settings import PROXIES
from kdutils.evaluation.text_metrics import explanation_scores
from kdutils.evaluation.truth_proxies import proxy_scores
from kdutils.human_study.metric_validity import metric_validity
from kdutils.human_study.published_texts import METHOD, STUDENT, join_rated_texts
from kdutils.human_study.ratings import one_row_per_rating, read_ratings
from kdutils.stats.groups import vargha_delaney
from kdutils.teacher.published.explanations import published_explanations

ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
DATASETS = ("cqa", "strategyqa")
RATINGS = ("quality", "plausibility")
SUPPORTS = ("support_human", "entailed_human")  # of these, more is better
ALSO = ("words", "repetition", "distractors")  # measures of the text to compare with


def against_ratings(folder: Path, encoder: str = "", nli: str = "") -> pd.DataFrame:
    """Return the correlations of PROXIES and ALSO with RATINGS: rating, measure, ratings, correlation, low, high.

    `folder`: see published_students.data_folder. A measure that does not vary over the rated texts has no correlation.
    """
    predictions, questions = published_student(STUDENT, folder)
    wide = one_row_per_rating(read_ratings(folder / "human_study" / "study_ratings_no_demographics.csv").ratings)
    rows = join_rated_texts(wide, predictions)
    rated = predictions.iloc[list(rows.values())]
    asked = questions.set_index("id").loc[rated["id"]]
    scores = explanation_scores(rated, questions, {})[list(ALSO)].join(proxy_scores(
        list(rated["explanation"]), list(rated["predicted"]), list(asked["choices"]), list(asked["human_explanations"]),
        encoder, nli)).assign(text=list(rows))
    measured = wide[wide["method"] == METHOD].merge(scores, on="text", validate="many_to_one")
    found = []
    for rating in RATINGS:
        table = metric_validity(measured, rating).query("scope == 'all'").set_index("measure")
        for name in (*(name for name in PROXIES if name in scores), *ALSO):
            row = table.loc[name] if name in table.index else {"ratings": len(measured)}
            found.append({"rating": rating, "measure": name, "mean": measured[name].mean(),
                          **{key: row.get(key, np.nan) for key in ("ratings", "correlation", "low", "high")}})
    return pd.DataFrame(found)


def right_and_wrong(folder: Path, dataset: str, count: int, encoder: str = "", nli: str = "") -> pd.DataFrame:
    """Return the means of PROXIES over texts for the right and for a wrong answer, and how well each is told apart.

    Of the first `count` test questions, those with both texts. Columns: dataset, measure, texts (pairs), for right, for
    wrong, apart, low, high (95 % interval of `apart`).
    """
    questions = read_questions(dataset, str(folder)).query("split == 'test'").head(count).reset_index(drop=True)
    texts = {stage: published_explanations(questions, dataset, "llama", stage, str(folder / "teacher_llama"))
             for stage in ("rationale", "counterfactual")}
    right = texts["rationale"].dropna(subset="text").set_index("id")["text"]
    wrong = texts["counterfactual"].dropna(subset="text").merge(questions[["id", "answer"]], on="id",
                                                                suffixes=("", "_right"))
    wrong = wrong[wrong["answer"] != wrong["answer_right"]].drop_duplicates("id").set_index("id")["text"]
    both = questions[questions["id"].isin(right.index) & questions["id"].isin(wrong.index)]
    if len(both) < 2:
        raise StudyError(f"{dataset}: fewer than two of {count} questions have texts for both answers; ask for more")
    scores = [proxy_scores(list(known[both["id"]]), list(both["answer"]), list(map(list, both["choices"])),
                           list(both["human_explanations"]), encoder, nli) for known in (right, wrong)]
    rows = []
    for name in scores[0]:
        pair = [table[name].dropna().to_numpy() for table in scores]
        if not all(map(len, pair)):
            continue
        apart = vargha_delaney(*(pair if name in SUPPORTS else pair[::-1]))
        rows.append({"dataset": dataset, "measure": name, "texts": len(both), "for right": pair[0].mean(),
                     "for wrong": pair[1].mean(), "apart": apart.value, "low": apart.low, "high": apart.high})
    return pd.DataFrame(rows)


def main(arguments: list[str] | None = None) -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(prog="python -m kdutils.benchmarks.proxies", description=__doc__.split("\n")[0])
    parser.add_argument("--questions", type=int, default=200, help="of the second table, per data set")
    parser.add_argument("--encoder", default=ENCODER, help="folder or Hub id, empty for none")
    parser.add_argument("--nli", default="", help="folder or Hub id of a model for natural language inference")
    parser.add_argument("--data", default="", help="folder of the published files (default: KDUTILS_DATA)")
    options = parser.parse_args(arguments)
    folder = data_folder(options.data)
    print(f"People's ratings of {METHOD}; encoder: {options.encoder or 'none'}; nli: {options.nli or 'none'}")
    _print(against_ratings(folder, options.encoder, options.nli))
    print("\nTexts for the right answer and for a wrong one, judged by the right answer")
    _print(pd.concat([right_and_wrong(folder, dataset, options.questions, options.encoder, options.nli)
                      for dataset in DATASETS]))


def _print(table):
    print(table.to_string(index=False, float_format="%.3f", na_rep="-"), flush=True)


if __name__ == "__main__":
    sys.exit(exit_code(main))
