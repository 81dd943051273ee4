"""The design of a study in which people judge explanations: what they are asked, and which texts they read.

    study = Study("cqa-2026", consent="…")
    pool, left_out = eligible_texts(predictions, questions)
    texts = draw_texts(pool, questions_needed(4, n_raters=24, items_per_rater=12, raters_per_text=2))
    plan = draw_plan(study, texts, n_raters=24, items_per_rater=12, raters_per_text=2)
    plan = write_study(folder, study, plan, texts)

Everything is drawn from seeds. The plan (plan.py) is the blinding key: only it links a text to its method. No file for
raters (forms.py) contains the name of a method, or a seed with which the ids could be drawn again. ratings.py reads
the answers back.

The five statements cover the constructs of Hendriks et al. (2025), in our own words:

- plausibility and contrastiveness: Hebenstreit, Praas and Samwald (2023), arXiv:2312.10059;
- understandability and completeness: Holzinger, Carrington and Müller (2020), System Causability Scale;
- satisfaction: Hoffman, Mueller, Klein and Litman (2023), Measures for explainable AI.

A sixth statement, on truth, is ours: an explanation can make sense and be false. It is reported beside the five and is
not part of their mean, so that `quality` stays that of the published study. Ratings without it can be read.

The task `simulation` is forward simulation (Doshi-Velez and Kim 2017; Hase and Bansal 2020): the rater reads
question and explanation and says what the model answered.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
import pandas as pd

from kdutils.data.answers import mask_answers
from kdutils.data.questions import full_question
from kdutils.data.tables import learnt_stage
from kdutils.errors import StudyError, printable, shown

SCALE = ("strongly disagree", "disagree", "neither agree nor disagree", "agree", "strongly agree")
CONSTRUCTS = {
    "plausibility": "The explanation makes sense: its reasoning is sound and it does not contradict itself.",
    "understandability": "I understand what the explanation says about this question and its choices.",
    "completeness": "The explanation mentions everything that matters for the answer, in enough detail.",
    "satisfaction": "I am satisfied with the way in which the model justifies its answer.",
    "contrastiveness": "The explanation shows why this answer was chosen and not one of the others.",
}
TRUTH = {"truth": "As far as I know, what the explanation says about the world is true."}
TASKS = {"rating": {**CONSTRUCTS, **TRUTH}, "simulation": {"simulation": "Which answer did the model give?"}}
ANSWERED = {  # which questions may be drawn, by the answers of the compared students
    "all_right": "every student was right", "any_right": "at least one student was right",
    "same": "every student gave the same answer", "any": "any answers"}
MASKED = ("none", "answer", "choices")
PAGE_SECONDS = 45  # what a page is assumed to take, until there are ratings with times
GAP = "[…]"  # replaces a masked answer in an explanation
BASELINE = "no explanation"  # the method of questions that are shown without an explanation
ASKABLE = {  # personal data that a form may ask for; an empty list is a free text field
    "age": ["18 to 24", "25 to 34", "35 to 44", "45 to 54", "55 to 64", "65 or older"],
    "gender": ["woman", "man", "another"],
    "education": ["no degree", "school leaving certificate", "vocational training", "bachelor", "master", "doctorate"],
    "country": [],
}
TEXT_COLUMNS = ["text", "question", "dataset", "method", "student_seed", "correct", "choices",
                "asked", "answer", "gold", "explanation"]
NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9_-])?"
NAME_RULE = ("a name of at most 64 letters, digits, '.', '_' and '-' that begins with a letter or digit and does not "
             "end with '.'")


@dataclass(frozen=True)
class Study:
    """What raters are asked and told. All texts are plain text; an empty line separates paragraphs.

    Raises StudyError for a value that is not allowed.
    """

    name: str  # for file names, see NAME_RULE
    task: str = "rating"  # or simulation
    title: str = ""  # "" stands for forms.TITLES
    instructions: str = ""  # "" stands for form/instructions_<task>.txt
    consent: str = ""  # the text that your ethics board approved; "" asks for no consent
    return_to: str = ""  # where raters send their file
    completion_code: str = ""  # shown at the end; "" stands for a code of the rater's own, forms.completion_code
    ask: tuple[str, ...] = ()  # keys of ASKABLE; by default nothing personal is asked

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not re.fullmatch(NAME, self.name):
            raise StudyError(f"study: {shown(self.name, 60)} is not {NAME_RULE}")
        _check_choice("task", self.task, TASKS)
        for key in ("title", "instructions", "consent", "return_to", "completion_code"):
            if not isinstance(getattr(self, key), str):
                raise StudyError(f"{key}: {shown(getattr(self, key), 60)} is not a text")
        for key in self.ask:
            _check_choice("ask", key, ASKABLE)


def _check_choice(name, value, allowed):
    if not isinstance(value, str) or value not in allowed:
        raise StudyError(f"{name}: {shown(value, 60)} is not one of {', '.join(allowed)}")


def label_methods(predictions: pd.DataFrame) -> pd.DataFrame:
    """Return `predictions` with labels in the column method that name all that is compared.

    A label joins the method with prompting, student and teacher, as far as more than one of each occurs.
    """
    varying = [name for name in ("prompting", "student", "teacher")
               if name in predictions and predictions[name].nunique() > 1]
    labels = predictions[["method", *varying]].astype(str).agg(" · ".join, axis=1)
    return predictions.assign(method=labels)


def teacher_rationales(explanations: pd.DataFrame) -> pd.DataFrame:
    """Return the teacher's text on each question: the first usable row of tables.learnt_stage.

    Critiques, counterfactual texts (for wrong answers) and soft labels (bare choices) are no such texts. Raises
    StudyError for a table that has only these; an empty table has no texts.
    """
    rows = learnt_stage(explanations)
    if len(explanations) and rows.empty:
        stages = ", ".join(sorted(set(explanations["stage"])))
        raise StudyError(f"explanations: the stages are {stages}; give a table with rationales or revisions")
    return rows[rows["text"].notna()].drop_duplicates("id")


def explanations_as_predictions(explanations: pd.DataFrame, questions: pd.DataFrame, method: str,
                                split: str = "test") -> pd.DataFrame:
    """Return a frame of tables.EXPLANATIONS as predictions of `method`, so that a teacher is rated like a student.

    The texts are those of teacher_rationales. Raises StudyError as it does, and without a text on the split `split`.
    """
    gold = questions.loc[questions["split"] == split, ["id", "split", "answer"]]
    table = teacher_rationales(explanations).merge(gold, on="id", suffixes=("", "_gold"))
    if table.empty:
        raise StudyError(f"explanations: no usable text on a question of the split {split!r}")
    right = table["answer"] == table["answer_gold"]
    return pd.DataFrame({"id": table["id"], "split": table["split"], "seed": 0, "answer": table["answer_gold"],
                         "generated": table["answer"], "predicted": table["answer"], "correct": right, "exact": right,
                         "explanation": table["text"], "method": method})


def eligible_texts(predictions: pd.DataFrame, questions: pd.DataFrame, answered: str = "all_right",
                   student_seeds: str = "lowest", task: str = "rating",
                   seed: int = 0) -> tuple[pd.DataFrame, dict[str, int]]:
    """Return (pool, left_out): the texts that may be rated, and {reason: number of questions left out}.

    A question is in the pool with every method or with none. The pool has TEXT_COLUMNS without `text`, and `position`
    (of the gold answer) and `n_choices`.

    `predictions`: tables.PREDICTIONS of all compared students with a column method (and dataset, else "-").
    `questions`: tables.QUESTIONS. `answered`: a key of ANSWERED. `student_seeds`: "lowest" takes one student per
    method; "drawn" draws one for each text, so that one lucky student does not stand for a method.
    """
    _check_choice("answered", answered, ANSWERED)
    _check_choice("student_seeds", student_seeds, ("lowest", "drawn"))
    _check_choice("task", task, TASKS)
    if not questions["id"].is_unique:
        raise StudyError("questions: duplicate id; data sets that share ids cannot be in one study")
    asked = questions.set_index("id")
    unknown = set(predictions["id"]) - set(asked.index)
    if unknown:
        raise StudyError(f"predictions: question {min(unknown)!r} is not in the table of questions")
    if "dataset" in predictions:  # missing for a teacher's texts
        predictions = predictions.assign(dataset=predictions.groupby("id")["dataset"].transform("first").fillna("-"))
    drawn = student_seeds == "drawn"
    ordered = predictions.sample(frac=1, random_state=seed) if drawn else predictions.sort_values("seed", kind="stable")
    chosen = ordered.drop_duplicates(["method", "id"]).sort_values(["id", "method"])
    for method, group in chosen.groupby("method"):
        if not group["explanation"].str.strip().any():
            raise StudyError(f"method {method!r} writes no explanations; remove it from the study")
    n_methods, rows, left_out = chosen["method"].nunique(), [], {}
    for key, group in chosen.groupby("id", sort=True):
        item = asked.loc[key]
        reason = _why_not(group, item, n_methods, answered, task)
        if reason:
            left_out[reason] = left_out.get(reason, 0) + 1
        else:
            rows += [_pool_row(row, key, item) for row in group.to_dict("records")]
    if not rows:
        raise StudyError(f"no question can be rated: {left_out}; another value of `answered` allows more")
    return pd.DataFrame(rows), left_out


def _why_not(group, item, n_methods, answered, task):
    """Return the reason why a question cannot be used, "" if it can."""
    if len(group) < n_methods:
        return "not answered by every method"
    if not group["explanation"].str.strip().all():
        return "a method wrote no explanation"
    fits = {"all_right": group["correct"].all(), "any_right": group["correct"].any(),
            "same": group["predicted"].nunique() == 1 and group["predicted"].iloc[0] != "", "any": True}
    if not fits[answered]:
        return f"not: {ANSWERED[answered]}"
    if task == "simulation" and not set(group["predicted"]) <= set(item["choices"]):
        return "an answer that is not one of the choices"
    return ""


def _pool_row(row, key, item):
    choices = list(item["choices"])
    return {"question": key, "dataset": row.get("dataset", "-"), "method": row["method"],
            "student_seed": int(row["seed"]), "correct": bool(row["correct"]), "choices": choices,
            "asked": full_question(item), "answer": row["predicted"], "gold": item["answer"],
            "explanation": row["explanation"].strip(),
            "position": choices.index(item["answer"]) if item["answer"] in choices else -1, "n_choices": len(choices)}


def draw_texts(pool: pd.DataFrame, count: int, strata: Sequence[str] = (), masked: str = "none",
               baseline: bool = False, seed: int = 0) -> pd.DataFrame:
    """Return the texts of `count` questions drawn from a pool, one per method: a frame with TEXT_COLUMNS.

    `strata`: columns of the pool (dataset, position, n_choices, correct …); the drawn questions are spread as evenly as
    the pool allows over the values of the first one, among the questions of each value over those of the second one,
    and so on. `masked`: "answer" replaces the student's answer by GAP, "choices" every
    choice. `baseline` adds the method BASELINE, which shows no explanation, as the control of a simulation; it needs
    questions to which all students gave the same answer.
    """
    _check_choice("masked", masked, MASKED)
    _check_strata(pool, list(strata))
    generator = np.random.default_rng([seed, 1])
    asked = pool.drop_duplicates("question").sample(frac=1, random_state=generator)
    if count > len(asked):
        raise StudyError(f"{count} questions are needed and the pool has {len(asked)}; "
                         "questions_needed with `available` says which sizes would work")
    texts = pool[pool["question"].isin(set(_in_turn(asked, list(strata))[:count]))].copy()
    if baseline:
        texts = pd.concat([texts, _baseline(texts)])
    texts["explanation"] = [
        mask_answers(explanation, {"none": [], "answer": [answer], "choices": [answer, *choices]}[masked], GAP)
        for explanation, answer, choices in texts[["explanation", "answer", "choices"]].to_numpy()]
    for name in ("asked", "answer", "gold", "explanation"):
        texts[name] = texts[name].map(printable)
    texts["choices"] = [[printable(choice) for choice in choices] for choices in texts["choices"]]
    texts["text"] = new_ids(len(texts), generator)
    return texts[TEXT_COLUMNS].sort_values("text", ignore_index=True)


def _in_turn(asked, strata):
    """Return the questions in an order that takes the values of the first stratum in turn, and so on within each."""
    if not strata:
        return list(asked["question"])
    rounds = zip_longest(*(_in_turn(group, strata[1:]) for _, group in asked.groupby(strata[0], sort=False)))
    return [key for line in rounds for key in line if key is not None]


def _check_strata(pool, strata):
    for name in strata:
        if name not in pool.columns:
            raise StudyError(f"strata: {name!r} is not a column of the pool: {', '.join(pool.columns)}")
        if pool.groupby("question")[name].nunique(dropna=False).max() > 1:
            raise StudyError(f"strata: {name!r} differs between the methods of one question")


def _baseline(texts):
    if (texts.groupby("question")["answer"].nunique() > 1).any():
        raise StudyError("baseline: students answered differently; draw with answered 'all_right' or 'same'")
    return texts.drop_duplicates("question").assign(method=BASELINE, explanation="", student_seed=-1)


def new_ids(count: int, generator: np.random.Generator) -> list[str]:
    """Return ids of eight consonants: not words, and never a number or a date to a spreadsheet."""
    ids = {}
    while len(ids) < count:
        ids["".join(generator.choice(list("bcdfghjklmnpqrstvwxz"), 8))] = True
    return list(ids)
