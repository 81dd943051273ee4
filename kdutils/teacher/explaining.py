"""From completions to the table of explanations."""

import re
from dataclasses import replace
from functools import partial

import pandas as pd

from kdutils.errors import StudyError
from kdutils.runs import write_text
from kdutils.teacher.cleaning import clean


def write_explanations(questions, dataset, backend, prompts, given_answer, settings, published, progress=None):
    """Return the explanations of `questions` from a backend, a frame of tables.EXPLANATIONS with attrs["notes"].

    `settings` (backend hf): model, quantization, token_budget, max_new_tokens, stop. `published` (backend
    published): teacher and folder. `progress`: a file for one line on how far it is. Raises StudyError for an
    unknown backend.
    """
    if backend == "published":
        from kdutils.teacher.published import published_explanations

        return published_explanations(questions, dataset, published["teacher"], "few_shot", published["folder"])
    if backend != "hf":
        raise StudyError(f"backend: unknown '{backend}'; known: hf, published")
    from kdutils.teacher.backends import HfTeacher

    teacher = HfTeacher(settings["model"], settings["quantization"], settings["token_budget"])
    report = partial(_say, progress) if progress else None
    done = teacher.complete(prompts, settings["max_new_tokens"], settings["stop"], report)
    answers = list(questions["answer"])
    if not given_answer:
        answers, done = split_answer(done)
    table = explanations_table(questions, answers, done, "rationale")
    table.attrs["notes"] = {"prompt tokens": sum(one.prompt_tokens for one in done),
                            "written tokens": sum(one.completion_tokens for one in done),
                            "cut off at max_new_tokens": sum(one.finish_reason == "length" for one in done)}
    return table


def _say(path, done, total):
    line = f"explained {done} of {total} questions"
    write_text(path, line + "\n")
    print(f"\r{line}", end="", flush=True)


def explanations_table(questions, answers, completions, stage):
    """Return a frame of tables.EXPLANATIONS: one row per question, its completion kept raw and cleaned.

    `answers`: the answer that each text argues for; `completions`: backends.Completion, in the order of
    `questions`; `stage`: rationale, critique, revision or counterfactual.
    """
    rows = []
    for question_id, answer, done in zip(questions["id"], answers, completions, strict=True):
        cleaned = clean(done.text, answer)
        rows.append({"id": question_id, "stage": stage, "answer": answer, "text": cleaned.text, "raw": done.text,
                     "changes": list(cleaned.changes), "problem": cleaned.problem, "finish_reason": done.finish_reason,
                     "prompt_tokens": done.prompt_tokens, "completion_tokens": done.completion_tokens})
    return pd.DataFrame(rows)


def split_answer(completions):
    """Return (answers, completions without them) where the teacher was asked for the answer itself.

    The prompt has begun the sentence "The answer is"; the answer is what comes before the first full stop that
    a space or the end follows.
    """
    answers, rest = [], []
    for done in completions:
        found = re.match(r"\s*(?:the answer is\s+)?(.+?)\.(?=\s|$)(.*)", done.text, re.IGNORECASE | re.DOTALL)
        answers.append(found[1] if found else "")
        rest.append(replace(done, text=found[2] if found else done.text))
    return answers, rest


def names_answer(text, answer):
    """Say whether the answer stands in the text as whole words, whatever its case."""
    return re.search(rf"(?<!\w){re.escape(answer)}(?!\w)", text, re.IGNORECASE) is not None


def quality_table(explanations, questions):
    """Return one row of counts and shares per stage: what a reader should know of a teacher's texts."""
    choices = dict(zip(questions["id"], questions["choices"], strict=True))
    rows = []
    for stage, group in explanations.groupby("stage", sort=False):
        usable = group[group["text"].notna()]
        others = [[c for c in choices[i] if c != a] for i, a in zip(usable["id"], usable["answer"], strict=True)]
        named = [any(names_answer(text, c) for c in wrong) for text, wrong in zip(usable["text"], others, strict=True)]
        rows.append({
            "stage": stage, "texts": len(group), "unusable": len(group) - len(usable),
            "cut off": int((group["finish_reason"] == "length").sum()),
            "answer named": _share(names_answer(t, a) for t, a in zip(usable["text"], usable["answer"], strict=True)),
            "a distractor named": _share(named), "words": usable["text"].str.split().str.len().mean(),
            "different texts": usable["text"].nunique(),
        })
    return pd.DataFrame(rows)


def _share(flags):
    flags = list(flags)
    return sum(flags) / len(flags) if flags else None
