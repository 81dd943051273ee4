"""A study in which people judge explanations: draw the texts, plan who rates what, write the forms.

    study = Study("cqa-2026", consent="…")
    pool, left_out = eligible_texts(predictions, questions)
    texts = draw_texts(pool, questions_needed(4, n_raters=24, items_per_rater=12, raters_per_text=2))
    plan = draw_plan(study, texts, n_raters=24, items_per_rater=12, raters_per_text=2)
    plan = write_study(folder, study, plan, texts)

Everything is drawn from seeds. The plan is the blinding key: only it joins a text to its method, and no file for
raters holds a method's name or a seed (with the seed and this code one could draw the ids again).
`kdutils.evaluation.ratings` reads the answers back.

The five statements cover the constructs of Hendriks et al. (2025), in words of our own:

- plausibility and contrastiveness: Hebenstreit, Praas and Samwald (2023), arXiv:2312.10059;
- understandability and completeness: Holzinger, Carrington and Müller (2020), System Causability Scale;
- satisfaction: Hoffman, Mueller, Klein and Litman (2023), Measures for explainable AI.

The task `simulation` is forward simulation (Doshi-Velez and Kim 2017; Hase and Bansal 2020): the rater reads
question and explanation and says what the model answered.
"""

import re
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
import pandas as pd

from kdutils.data.texts import replace_mentions
from kdutils.errors import StudyError

SCALE = ("strongly disagree", "disagree", "neither agree nor disagree", "agree", "strongly agree")
CONSTRUCTS = {
    "plausibility": "The explanation makes sense: its reasoning is sound and it does not contradict itself.",
    "understandability": "I understand what the explanation says about this question and its choices.",
    "completeness": "The explanation mentions everything that matters for the answer, in enough detail.",
    "satisfaction": "I am satisfied with the way in which the model justifies its answer.",
    "contrastiveness": "The explanation shows why this answer was chosen and not one of the others.",
}
TASKS = {"rating": CONSTRUCTS, "simulation": {"simulation": "Which answer did the model give?"}}
ANSWERED = {  # which questions may be drawn, by what the compared students answered
    "all_right": "every student was right", "any_right": "at least one student was right",
    "same": "every student gave the same answer", "any": "whatever was answered"}
MASKED = ("none", "answer", "choices")
GAP = "[…]"  # what stands in an explanation where an answer was masked
BASELINE = "no explanation"  # the method label of questions shown without an explanation
ASKABLE = {  # personal data that a form may ask for; an empty list is a free text
    "age": ["18 to 24", "25 to 34", "35 to 44", "45 to 54", "55 to 64", "65 or older"],
    "gender": ["woman", "man", "another"],
    "education": ["no degree", "school leaving certificate", "vocational training", "bachelor", "master", "doctorate"],
    "country": [],
}
TEXT_COLUMNS = ["text", "question", "dataset", "method", "student_seed", "correct", "choices",
                "asked", "answer", "gold", "explanation"]
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True)
class Study:
    """What raters read around the texts, and what they are asked. Texts are plain; an empty line parts paragraphs."""

    name: str  # goes into file names: letters, digits, dot, dash
    task: str = "rating"  # or simulation
    title: str = ""  # "" takes that of TITLES
    instructions: str = ""  # "" takes form/instructions_<task>.txt
    consent: str = ""  # "" asks for no consent: put the text that your ethics board approved
    return_to: str = ""  # where raters send their file
    ask: tuple = ()  # keys of ASKABLE; nothing personal is asked by default

    def __post_init__(self):
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name) or len(self.name) > 60:
            raise StudyError(f"study {brief(self.name)}: a name is made of letters, digits, dots and dashes, 60 at "
                             "most")
        _one_of("task", self.task, TASKS)
        for key in ("title", "instructions", "consent", "return_to"):
            if not isinstance(getattr(self, key), str):
                raise StudyError(f"{key}: {brief(getattr(self, key))} is not a text")
        for key in self.ask:
            _one_of("ask", key, ASKABLE)


def _one_of(name, value, known):
    if not isinstance(value, str) or value not in known:
        raise StudyError(f"{name}: {brief(value)} is none of {', '.join(known)}")


def check_whole(name, value, least):
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise StudyError(f"{name}: {brief(value)} is not a whole number")
    if value < least:
        raise StudyError(f"{name} is {value}: at least {least} is needed")


def brief(value):
    text = ascii(value)
    return text if len(text) <= 60 else text[:57] + "..."


# Draw -------------------------------------------------------------------------------------------------------------


def label_methods(predictions):
    """Return predictions with `method` naming all that is compared: method, prompting, student, teacher where
    more than one of them occurs (columns of comparing.CELL)."""
    varying = [name for name in ("prompting", "student", "teacher")
               if name in predictions and predictions[name].nunique() > 1]
    labels = predictions[["method", *varying]].astype(str).agg(" · ".join, axis=1)
    return predictions.assign(method=labels)


def as_method(explanations, questions, method, split="test"):
    """Return a table of tables.EXPLANATIONS as predictions of `method`, so that a teacher is rated next to students."""
    table = explanations[explanations["text"].notna()].drop_duplicates("id")
    gold = questions.loc[questions["split"] == split, ["id", "split", "answer"]]
    table = table.merge(gold, on="id", suffixes=("", "_gold"))
    right = table["answer"] == table["answer_gold"]
    return pd.DataFrame({"id": table["id"], "split": table["split"], "seed": 0, "answer": table["answer_gold"],
                         "generated": table["answer"], "predicted": table["answer"], "correct": right, "exact": right,
                         "explanation": table["text"], "method": method})


def eligible_texts(predictions, questions, answered="all_right", student_seeds="lowest", task="rating", seed=0):
    """Return (pool, left_out): the texts that may be rated, and why questions are left out with their number.

    `predictions`: tables.PREDICTIONS of all compared students with a column method (and dataset, else "-").
    `questions`: tables.QUESTIONS. `student_seeds`: "lowest" takes one student per method, "drawn" draws one for each
    text, so that a method is not mistaken for one lucky student. A question is in the pool with every method or
    with none. The pool has TEXT_COLUMNS but `text`, and `position` of the gold answer and `n_choices`.
    """
    _one_of("answered", answered, ANSWERED)
    _one_of("student_seeds", student_seeds, ("lowest", "drawn"))
    _one_of("task", task, TASKS)
    if not questions["id"].is_unique:
        raise StudyError("questions: an id stands twice; data sets that share ids cannot be drawn from together")
    asked = questions.set_index("id")
    unknown = set(predictions["id"]) - set(asked.index)
    if unknown:
        raise StudyError(f"predictions: question {min(unknown)!r} is not in the table of questions")
    if "dataset" in predictions:  # a teacher's texts may lack it
        predictions = predictions.assign(dataset=predictions.groupby("id")["dataset"].transform("first").fillna("-"))
    drawn = student_seeds == "drawn"
    ordered = predictions.sample(frac=1, random_state=seed) if drawn else predictions.sort_values("seed")
    chosen = ordered.drop_duplicates(["method", "id"]).sort_values(["id", "method"])
    for method, group in chosen.groupby("method"):
        if not group["explanation"].str.strip().any():
            raise StudyError(f"method {method!r} writes no explanations: leave it out of the study")
    n_methods, rows, left_out = chosen["method"].nunique(), [], {}
    for key, group in chosen.groupby("id", sort=True):
        item = asked.loc[key]
        reason = _why_not(group, item, n_methods, answered, task)
        if reason:
            left_out[reason] = left_out.get(reason, 0) + 1
        else:
            rows += [_pool_row(row, key, item) for row in group.to_dict("records")]
    if not rows:
        raise StudyError(f"no question is left to draw from: {left_out}; another value of `answered` allows more")
    return pd.DataFrame(rows), left_out


def _why_not(group, item, n_methods, answered, task):
    """Return why a question cannot be used, "" where it can."""
    if len(group) < n_methods:
        return "not answered by every method"
    if not group["explanation"].str.strip().all():
        return "a method wrote no explanation"
    fits = {"all_right": group["correct"].all(), "any_right": group["correct"].any(),
            "same": group["predicted"].nunique() == 1 and group["predicted"].iloc[0] != "", "any": True}
    if not fits[answered]:
        return f"not: {ANSWERED[answered]}"
    if task == "simulation" and not set(group["predicted"]) <= set(item["choices"]):
        return "an answer that is none of the choices"
    return ""


def _pool_row(row, key, item):
    choices = list(item["choices"])
    return {"question": key, "dataset": row.get("dataset", "-"), "method": row["method"],
            "student_seed": int(row["seed"]), "correct": bool(row["correct"]), "choices": choices,
            "asked": item["question"], "answer": row["predicted"], "gold": item["answer"],
            "explanation": row["explanation"].strip(),
            "position": choices.index(item["answer"]) if item["answer"] in choices else -1, "n_choices": len(choices)}


def draw_texts(pool, count, strata=(), masked="none", baseline=False, seed=0):
    """Return the texts of `count` questions drawn from a pool, one for each method: a frame with TEXT_COLUMNS.

    `strata`: columns of the pool (dataset, position, n_choices, correct …); the drawn questions are spread over
    their values as evenly as the pool allows. `masked`: "answer" puts GAP in the place of the student's answer,
    "choices" of every choice. `baseline` adds the method BASELINE, which shows no explanation: the measure of a
    simulation without one; it needs questions to which all students gave the same answer.
    """
    _one_of("masked", masked, MASKED)
    _check_strata(pool, list(strata))
    generator = np.random.default_rng([seed, 1])
    asked = pool.drop_duplicates("question").sample(frac=1, random_state=generator)
    if count > len(asked):
        raise StudyError(f"{count} questions are wanted and {len(asked)} can be drawn from; "
                         "questions_needed with `available` says which sizes would work")
    groups = [list(group["question"]) for _, group in asked.groupby(list(strata), sort=False)] if len(strata) else []
    rounds = zip_longest(*groups) if groups else [asked["question"]]
    chosen = [key for line in rounds for key in line if key is not None][:count]
    texts = pool[pool["question"].isin(set(chosen))].copy()
    if baseline:
        texts = pd.concat([texts, _baseline(texts)])
    texts["explanation"] = [_mask(*row, masked) for row in texts[["explanation", "answer", "choices"]].to_numpy()]
    for name in ("asked", "answer", "gold", "explanation"):
        texts[name] = texts[name].map(printable)
    texts["choices"] = [[printable(choice) for choice in choices] for choices in texts["choices"]]
    texts["text"] = new_ids(len(texts), generator)
    return texts[TEXT_COLUMNS].sort_values("text", ignore_index=True)


def _check_strata(pool, strata):
    for name in strata:
        if name not in pool.columns:
            raise StudyError(f"strata: {name!r} is no column of the pool: {', '.join(pool.columns)}")
        if pool.groupby("question")[name].nunique(dropna=False).max() > 1:
            raise StudyError(f"strata: {name!r} differs between the methods of one question")


def _baseline(texts):
    if (texts.groupby("question")["answer"].nunique() > 1).any():
        raise StudyError("baseline: students answered differently; draw with answered 'all_right' or 'same'")
    return texts.drop_duplicates("question").assign(method=BASELINE, explanation="", student_seed=-1)


def _mask(explanation, answer, choices, masked):
    words = {"none": [], "answer": [answer], "choices": [answer, *choices]}[masked]
    for word in sorted({word for word in words if word.strip()}, key=len, reverse=True):
        explanation = replace_mentions(explanation, word, GAP)
    return explanation


def printable(text):
    """Return `text` with control characters and broken characters as U+FFFD; line ends become one newline.

    Two halves of a character beyond U+FFFF (an emoji as JSON writes it) become that character.
    """
    text = str(text).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return _UNPRINTABLE.sub("\ufffd", text.replace("\r\n", "\n").replace("\r", "\n"))


def new_ids(count, generator):
    """Return ids of eight consonants: no words, and nothing that a spreadsheet takes for a number or a date."""
    found = {}
    while len(found) < count:
        found["".join(generator.choice(list("bcdfghjklmnpqrstvwxz"), 8))] = True
    return list(found)
