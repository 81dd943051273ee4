"""A language model in the place of raters: what it is asked, how it is biased, and whether it tracks people.

Each text is rated for each statement several times: with the scale in both directions and, if another method explained
the same question, beside that text in both orders. A score is the mean over these askings, in points, and is missing
if one kind of asking has no point: what moves the scores of one scale or order would not cancel.

The score of one asking is the expected point, s = Σ_k k · p(k), with p of teacher.points.rate_points. This is the
scoring function of G-Eval (Liu et al. 2023, "G-Eval: NLG Evaluation using GPT-4 with Better Human Alignment", section
2). Unlike there, the model writes no steps of evaluation first.
"""

import json
from collections.abc import Sequence
from math import factorial
from pathlib import Path

import numpy as np
import pandas as pd

from kdutils.data.tables import read_parquet
from kdutils.errors import StudyError
from kdutils.human_study.analysis import RESAMPLES, attempt, left_out
from kdutils.human_study.design import SCALE, TEXT_COLUMNS, TRUTH, Study
from kdutils.human_study.forms import canonical, checksum
from kdutils.human_study.plan import private_folder, study_texts
from kdutils.human_study.published_texts import METHOD, join_rated_texts
from kdutils.human_study.rating_files import FORMAT
from kdutils.human_study.simulated_raters import remove_simulated
from kdutils.runs import write_text
from kdutils.stats import agreement, groups
from kdutils.stats.models import rank_correlation

SCALES, PLACES = ("rising", "falling"), ("alone", "first", "second")
CHECKS = ["check", "value", "low", "high", "n"]
AGREEMENT = ["construct", "spearman", "low", "high", "length", "length_low", "length_high", "gain", "gain_low",
             "gain_high", "alpha", "alpha_low", "alpha_high", "ratings"]
RANKS = ["method", "people", "model", "rank_people", "rank_model", "texts"]


def rating_prompts(texts: pd.DataFrame, items: dict[str, str]) -> pd.DataFrame:
    """Return one row per asking: text, item, scale, place and prompt.

    `texts`: columns TEXT_COLUMNS of design. `place`: alone, or first or second of two explanations of one question. If
    the two explain different answers, each stands below its own.
    """
    rows = []
    for _, group in texts.groupby("question", sort=True):
        every = group.sort_values("method").to_dict("records")
        for number, row in enumerate(every):
            other = every[(number + 1) % len(every)]
            for place in PLACES if len(every) > 1 else PLACES[:1]:
                for item, statement in items.items():
                    rows += [{"text": row["text"], "item": item, "scale": scale, "place": place,
                              "prompt": _prompt(row, other, place, statement, scale)} for scale in SCALES]
    return pd.DataFrame(rows, columns=["text", "item", "scale", "place", "prompt"])


def _prompt(row, other, place, statement, scale):
    lines = [f"Question: {row['asked']}"]
    lines += [f"{chr(65 + number)}. {choice}" for number, choice in enumerate(row["choices"])]
    shown = {"alone": [row], "first": [row, other], "second": [other, row]}[place]
    names = ["Explanation"] if place == "alone" else ["Explanation 1", "Explanation 2"]
    differ = len({one["answer"] for one in shown}) > 1
    lines += [f"Answer of a model: {row['answer']}"] * (not differ)
    for number, (name, one) in enumerate(zip(names, shown, strict=True), 1):
        lines += [f"Answer {number} of a model: {one['answer']}"] * differ
        lines.append(f"{name}: {' '.join(one['explanation'].split())}")
    labels = SCALE if scale == "rising" else SCALE[::-1]
    points = ", ".join(f"{number} = {label}" for number, label in enumerate(labels, 1))
    judged = names[1] if place == "second" else names[0]
    return "\n".join([*lines, f"Statement about {judged}: {statement}",
                      f"How far do you agree? {points}.", "Number:"])


def expected_points(askings: pd.DataFrame, probabilities: np.ndarray) -> pd.DataFrame:
    """Return `askings` with a column score: the expected point, where 5 is always strong agreement.

    s = Σ_k k · p(k) on the rising scale, the scoring function of G-Eval (Liu et al. 2023, section 2). On the falling
    scale, where point k means 6 − k, it is Σ_k (6 − k) · p(k) = 6 − s. `probabilities`: p, [askings, points], of
    teacher.points.rate_points; a row of NaN gives NaN.
    """
    score = probabilities @ np.arange(1, probabilities.shape[1] + 1)
    falling = (askings["scale"] == "falling").to_numpy()
    return askings.assign(score=np.where(falling, probabilities.shape[1] + 1 - score, score))


def score_texts(scored: pd.DataFrame) -> pd.DataFrame:
    """Return the mean score of each text: columns text, each item, and quality, the mean of the items without truth.

    An item's score is the mean of expected_points over its scales and places, NaN if one of them has no point.
    """
    means = scored.groupby(["text", "item", "scale", "place"])["score"].mean().groupby(["text", "item"])
    table = means.mean().where(means.count() == means.size()).unstack()
    own = [name for name in table if name not in TRUTH]
    return table.assign(quality=table[own].mean(axis=1, skipna=False)).reset_index().rename_axis(columns=None)


# Bias


def check_bias(scored: pd.DataFrame, measured: pd.DataFrame, seed: int = 0) -> tuple[pd.DataFrame, list[str]]:
    """Return (table of CHECKS, sentences): what moves the scores besides what a text says.

    scale: rising minus falling, position: first minus second of two, in points; each is the mean over pairs of askings
    that differ in nothing else and both have a point. length and copied: Spearman's correlation of quality with the
    characters of a text and with its share of copied words. Intervals are 95 % bootstrap intervals over texts.
    `measured`: score_texts with the columns characters and copied.
    """
    found = {}
    for check, column, other, pair in (("scale", "scale", "place", SCALES), ("position", "place", "scale", PLACES[1:])):
        asked = scored[scored[column].isin(pair)]
        wide = asked.pivot(index=["text", "item", other], columns=column, values="score")
        wide = wide.reindex(columns=pair).dropna().reset_index()
        lacking = "no two askings that differ in this alone have a point" if len(asked) else \
            "no question has texts of two methods"
        found[check] = attempt(groups.bootstrap_interval, wide.assign(gap=wide[pair[0]] - wide[pair[1]]), _mean_of_gap,
                               "text", RESAMPLES, seed=seed) if len(wide) else (None, lacking)
    for check, column in (("length", "characters"), ("copied", "copied")):
        found[check] = attempt(rank_correlation, measured.dropna(subset=["quality"]), "quality", column,
                               resamples=RESAMPLES, seed=seed)
    rows = [[check, one.value, one.low, one.high, one.n] for check, (one, _) in found.items() if one]
    return pd.DataFrame(rows, columns=CHECKS), [f"The check of {check} is left out: {reason.rstrip('.')}."
                                                for check, (one, reason) in found.items() if not one]


def _mean_of_gap(rows):
    return rows["gap"].mean()


# Agreement with people


def compare_with_people(scores: pd.DataFrame, wide: pd.DataFrame, rated: Sequence[str],
                        seed: int = 0) -> tuple[pd.DataFrame, list[str]]:
    """Return (table of AGREEMENT, sentences) of the model with each rating by a person.

    spearman: of the ratings with the model's scores. length: of the ratings with the characters of a text, the baseline
    of a rater that sees nothing else. gain: spearman minus the size of length. alpha: Krippendorff's ordinal alpha of
    person and model, whose scores are rounded to points (interval alpha for quality). low and high: the wider of the
    bootstrap intervals over raters and over texts (all raters of a text share the model's one score, so an interval
    over raters alone is too narrow).
    """
    both = wide.merge(scores, on="text", suffixes=("", "_model"))
    if not len(both):
        return pd.DataFrame(columns=AGREEMENT), ["Agreement needs texts that people have rated too; there is none."]
    rows = []
    reasons = {"Spearman's correlation": {}, "The correlation of length with ratings": {}, "Krippendorff's alpha": {}}
    for name in [name for name in rated if f"{name}_model" in both]:
        table = both[["rater", "text", "characters", name, f"{name}_model"]].dropna()
        pair, clusters = table[[name, f"{name}_model"]], ["rater", "text"]
        drawn = {"resamples": RESAMPLES, "seed": seed}
        tried = [attempt(rank_correlation, table, name, f"{name}_model", cluster=clusters, **drawn),
                 attempt(rank_correlation, table, name, "characters", cluster=clusters, **drawn),
                 attempt(agreement.krippendorff_alpha, pair if name == "quality" else pair.round(),
                         "interval" if name == "quality" else "ordinal", clusters=[table[one] for one in clusters],
                         **drawn)]
        for what, (_, reason) in zip(reasons, tried, strict=True):
            reasons[what][name] = reason
        tried.insert(2, attempt(_gain_over_length, table, name, clusters, **drawn))  # missing where one of the two is
        found = [[one.value, one.low, one.high] if one else [np.nan] * 3 for one, _ in tried]
        rows.append([name, *(value for three in found for value in three), len(table)])
    return pd.DataFrame(rows, columns=AGREEMENT), [one for what, why in reasons.items() for one in left_out(what, why)]


def _gain_over_length(table, name, clusters, **drawn):
    """Return the Estimate of Spearman's correlation of `name` with the model minus the size of that with characters."""
    sign = np.sign(table[name].rank().corr(table["characters"].rank())) or 1.0

    def gain(rows):
        ranks = rows[[name, f"{name}_model", "characters"]].rank()
        return ranks[name].corr(ranks[f"{name}_model"]) - sign * ranks[name].corr(ranks["characters"])

    return groups.bootstrap_interval(table, gain, clusters, **drawn)


def rank_methods(scores: pd.DataFrame, wide: pd.DataFrame, rating: str) -> tuple[pd.DataFrame, list[str]]:
    """Return (table of RANKS over the texts that both rated, sentences): mean points of each method, rank 1 is best."""
    both = wide.merge(scores[["text", rating]], on="text", suffixes=("", "_model"))
    both = both.dropna(subset=[rating, f"{rating}_model"])
    means = both.groupby("method").agg(people=(rating, "mean"), model=(f"{rating}_model", "mean"),
                                       texts=("text", "nunique")).reset_index()
    table = means.assign(rank_people=means["people"].rank(ascending=False).astype(float),
                         rank_model=means["model"].rank(ascending=False).astype(float))[RANKS]
    if len(table) < 2:
        return table, ["A ranking needs rated texts of two methods or more; there is "
                       f"{'one' if len(table) else 'none'}."]
    if table["rank_people"].duplicated().any() or table["rank_model"].duplicated().any():
        return table, ["Some methods have the same mean, so the two rankings are not compared."]
    same = table["rank_people"].equals(table["rank_model"])
    return table, [f"The model ranks the {len(table)} methods {'as people do' if same else 'otherwise than people'}; a "
                   f"ranking by chance is as people's in 1 of {factorial(len(table))} cases."]


def describe_rater(table: pd.DataFrame, rating: str) -> str:
    """Return the sentence that says whether the model tracks people; `table`: compare_with_people.

    It does if the intervals of Spearman's correlation and of what it has ahead of length alone are above 0. It does not
    if the interval of the correlation has no value above 0.
    """
    row = table[table["construct"] == rating]
    if not len(row) or not row["ratings"].iloc[0]:
        return "Whether this rater tracks people is not known: no text has ratings by people that can be compared."
    if not np.isfinite(row["spearman"].iloc[0]):
        return "Whether this rater tracks people is not known: the correlation of its scores with " \
               f"{row['ratings'].iloc[0]:.0f} ratings of {rating} by people has no interval."
    value, low, high, length, gain, *ends = row[["spearman", "low", "high", "length", "gain", "gain_low",
                                                 "gain_high"]].iloc[0]
    interval = f"Spearman {value:.2f}, 95 % interval {low:.2f} to {high:.2f}"
    if not low > 0:
        does = "is not shown to track" if high > 0 else "does not track"
        return f"This rater {does} people ({interval} for {rating}). Do not use it in their place."
    rises = f"its scores rise with people's ratings of {rating} ({interval})"
    size = f"the {'length' if length > 0 else 'shortness'} of a text"
    than = f"{size} does (Spearman {abs(length):.2f})"
    if gain <= 0:
        return f"This rater is no better than a count of characters: {rises}, but no more than {than}. Do not use it " \
               "in their place."
    if np.isfinite(length) and not ends[0] > 0:
        lead = f"is {gain:.2f} ({ends[0]:.2f} to {ends[1]:.2f})" if np.isfinite(ends).all() else "has no interval"
        return f"Whether this rater is better than a count of characters is not shown: {rises}, and so does {size} " \
               f"(Spearman {abs(length):.2f}). The difference {lead}. Do not use it in their place."
    return f"This rater tracks people: {rises}{f', and more than {than}' if np.isfinite(length) else ''}."


# Texts and files


def texts_to_rate(path: Path | str, ratings: pd.DataFrame | None, published: bool, most: int,
                  seed: int = 0) -> pd.DataFrame:
    """Return the texts, columns TEXT_COLUMNS, that a model rates: all of at most about `most`, drawn by question.

    `ratings`: by people, or None; texts that people rated come first. `published`: see published_texts. Raises
    StudyError for a file that holds no texts of a study.
    """
    if published:
        texts = published_texts(ratings, path)
    else:
        texts = study_texts(path, [] if ratings is None else ratings["text"])
    known = set() if ratings is None else set(ratings["text"])
    asked = texts.assign(rated=texts["text"].isin(known)).groupby("question")["rated"].max()
    order = asked.sample(frac=1, random_state=seed).sort_values(ascending=False, kind="stable").index
    sizes = texts.groupby("question").size().loc[order].cumsum()
    chosen = order[:max(1, int((sizes <= most).sum()))]
    return texts[texts["question"].isin(set(chosen))].reset_index(drop=True)


def published_texts(ratings: pd.DataFrame, path: Path | str) -> pd.DataFrame:
    """Return the texts, columns TEXT_COLUMNS, of those published ratings whose texts were published.

    `ratings`: ratings.read_ratings of the published table. `path`: revised_explanation_sample of Hendriks et al.
    (2025). A text is found as join_rated_texts says. Raises StudyError if the file is another one.
    """
    table = read_parquet(path)
    missing = {"input_predict", "answers_preds", "answers_labels", "rationales_preds"} - set(table)
    if missing:
        raise StudyError(f"{path}: column '{min(missing)}' is missing; the texts are those of "
                         "revised_explanation_sample")
    written = pd.DataFrame({"explanation": table["rationales_preds"].fillna(""),
                            "correct": table["answers_preds"].str.strip() == table["answers_labels"].str.strip()})
    try:
        places = join_rated_texts(ratings, written)
    except StudyError as error:
        raise StudyError(f"{path}: {error}") from None
    return pd.DataFrame([_published_text(text, table.iloc[place]) for text, place in places.items()],
                        columns=TEXT_COLUMNS)


def _published_text(text, row):
    asked, _, choices = row["input_predict"].removeprefix("[predict] Question: ").partition(" Choices: ")
    marks = [f"({letter}) " for letter in "abcde"]
    for mark in marks:
        choices = choices.replace(mark, "\n")
    answer = row["answers_preds"].strip().removeprefix("The answer is ")
    return {"text": text, "question": text.partition("/")[2], "dataset": "cqa", "method": METHOD,
            "student_seed": 0, "correct": True, "choices": [one.strip() for one in choices.split("\n") if one.strip()],
            "asked": asked, "answer": answer, "gold": answer, "explanation": row["rationales_preds"]}


def fill_plan(scores: pd.DataFrame, plan: pd.DataFrame, folder: Path | str,
              model: str) -> tuple[list[Path], list[str]]:
    """Write answer files for a plan as the form saves them, with the model's points; return (their paths, sentences).

    Each file names the model, and 23_analyse_human_study marks what is made from it. Earlier files of any model are
    removed from the folder. Attention checks get the point that they ask for. A rater with a text without a score gets
    no file, and a sentence says why.
    """
    folder, paths = private_folder(folder), []
    Study(plan["study"].iloc[0])
    remove_simulated(folder, "model")
    points = scores.set_index("text").drop(columns="quality").round().clip(1, len(SCALE))
    for rater, pages in plan.sort_values("position").groupby("rater"):
        rated = pages.loc[~pages["is_check"], "text"]
        if not set(rated) <= set(points.index) or points.loc[rated].isna().any(axis=None):
            continue
        answers = [{"position": int(page["position"]), "text": page["text"], "milliseconds": 0,
                    "scores": dict.fromkeys(points, int(page["expected"])) if page["is_check"] else
                    {item: int(point) for item, point in points.loc[page["text"]].items()}}
                   for page in pages.to_dict("records")]
        content = {"format": FORMAT, "study": plan["study"].iloc[0], "version": plan["version"].iloc[0],
                   "task": "rating", "rater": rater, "started": "by a model", "saved": "by a model", "simulated": True,
                   "model": model, "complete": True, "signed": True, "consent": True, "about": {}, "answers": answers}
        text = json.dumps({**content, "checksum": checksum(canonical(content))}, indent=1) + "\n"
        paths.append(write_text(folder / f"{content['study']}_{rater}_model.json", text))
    return paths, _why_not_filled(points, plan, len(paths))


def _why_not_filled(points, plan, filled):
    """Return sentences that say why raters of a plan have no answer file."""
    texts, raters = set(plan.loc[~plan["is_check"], "text"]), plan["rater"].nunique()
    lacking, unread = texts - set(points.index), texts & set(points.index[points.isna().any(axis=1)])
    gap = f"{raters - filled} of {raters} raters of the plan have no answer file:"
    return [*[f"{gap} {len(lacking)} of its {len(texts)} texts were not rated. Set most_texts to {len(texts)} or more "
              "for all raters."] * bool(lacking),
            *[f"{gap} {len(unread)} of its {len(texts)} texts have a statement without a score."] * bool(unread)]
