"""From questions to the table of explanations, one function per prompting.

``explain(questions, prompting, parameters)`` is what notebooks and the command line call: it opens the teacher that
`parameters` describe, behind the store of completions, and runs one of PROMPTED. A teacher's text is kept raw and
cleaned beside it. Where a later stage builds on an earlier one (a critique on a rationale), a question whose earlier
text is unusable has no later text, and its row says so.
"""

import re
import time
from dataclasses import replace
from functools import partial
from unicodedata import normalize

import pandas as pd

from kdutils.data.tables import EXPLANATIONS
from kdutils.data.texts import WIDE_ENDS, find_mentions
from kdutils.errors import StudyError
from kdutils.runs import write_text
from kdutils.teacher import prompting as prompts
from kdutils.teacher.backends import load_teacher
from kdutils.teacher.choices import CONTRASTS, PROMPTINGS
from kdutils.teacher.cleaning import clean
from kdutils.teacher.completion import Decoding


def explain(questions, prompting, parameters, teacher=None, progress=None):
    """Return the explanations of `questions` as a frame of tables.EXPLANATIONS.

    `parameters`: those of the prompting's notebook. `teacher`: one that is open already (backends.py), else the one
    of `parameters`, with every completion kept in the store. `progress`: a file for one line on how far it is.
    ``attrs["notes"]`` counts tokens, and completions that were asked for and that the store had; of published
    explanations ``attrs`` is what published_explanations says. Raises StudyError for an unknown backend.
    """
    if parameters["backend"] == "published":
        return _published(questions, prompting, parameters)
    teacher = teacher or open_teacher(parameters)
    begun = time.time()
    table = PROMPTED[prompting](teacher, questions, parameters, partial(_say, progress) if progress else None)
    if len(table) and table["text"].isna().all():
        raise StudyError(f"{parameters['model']}: not one usable text in {len(table)} ({table['problem'].iloc[0]}); "
                         "look at the prompt and at what the teacher writes to it, then run again")
    table.attrs["notes"] = {
        "prompt tokens": int(table["prompt_tokens"].sum()), "written tokens": int(table["completion_tokens"].sum()),
        "cut off at the token limit": int((table["finish_reason"] == "length").sum()),
        "completions asked for": teacher.asked, "completions from the store": teacher.kept}
    table.attrs["seconds"] = time.time() - begun
    return table


def open_teacher(parameters):
    """Return the teacher of `parameters` behind the store of completions."""
    from kdutils.teacher.store import Store, StoredTeacher, store_path

    return StoredTeacher(load_teacher(parameters), Store(store_path()))


def plan(questions, prompting, parameters):
    """Return what explaining would cost before any of it is asked: the store.Plan of all stages, None for no asking."""
    from kdutils.teacher.store import PlanningTeacher, Store, store_path

    if parameters["backend"] == "published":
        return None
    with Store(store_path(), read_only=True) as store:
        teacher = PlanningTeacher(load_teacher(parameters), store)
        PROMPTED[prompting](teacher, questions, parameters, None)
        return teacher.plan


def decoding_of(parameters, limit="max_new_tokens"):
    """Return the Decoding of a notebook's parameters; `limit` names the one that bounds its length.

    What greedy decoding does not look at stays at its default: it would only keep stored completions from being found.
    """
    sampling = (parameters["temperature"], parameters["top_p"], parameters["seed"]) if parameters["temperature"] else ()
    return Decoding(parameters[limit], tuple(parameters["stop"]), *sampling)


def few_shot(teacher, questions, parameters, progress=None):
    """Ask for a rationale of each question."""
    given, seed = parameters["given_answer"], parameters["seed"]
    asked = prompts.few_shot_prompts(questions, parameters["dataset"], seed, given)
    done = _complete(teacher, questions, asked, decoding_of(parameters), progress)
    answers, done = _answers(questions, done, given)
    return explanations_table(questions, answers, done, "rationale")


def critique_revision(teacher, questions, parameters, progress=None):
    """Ask for a rationale, then `rounds` times for a critique of it and a revision with that critique in view.

    Every stage stays in the table. The published runs (arXiv 2504.16056) have one round and give the right answer.
    """
    stages = [few_shot(teacher, questions, parameters, progress)]
    for turn in range(1, parameters["rounds"] + 1):
        before = stages[-1]
        critique = _critique(teacher, questions, before, parameters, turn, progress)
        stages += [critique, _revision(teacher, questions, before, critique, parameters, turn, progress)]
    return pd.concat(stages, ignore_index=True)


def _critique(teacher, questions, before, parameters, turn, progress):
    usable = before["text"].notna().to_numpy()
    asked = prompts.critique_prompts(questions[usable], parameters["dataset"], parameters["seed"],
                                     before.loc[usable, "answer"], before.loc[usable, "text"], turn)
    done = _complete(teacher, questions[usable], asked, decoding_of(parameters, "max_critique_tokens"), progress)
    return _with_gaps(questions, before["answer"], done, usable, "critique", turn, "nothing to criticise")


def _revision(teacher, questions, before, critique, parameters, turn, progress):
    usable = critique["text"].notna().to_numpy()
    given = parameters["given_answer"]
    asked = prompts.revision_prompts(
        questions[usable], parameters["dataset"], parameters["seed"], before.loc[usable, "answer"],
        before.loc[usable, "text"], critique.loc[usable, "text"], turn, given)
    done = _complete(teacher, questions[usable], asked, decoding_of(parameters, "max_revision_tokens"), progress)
    answers = before["answer"].copy()
    answers[usable], done = _answers(questions[usable], done, given)
    return _with_gaps(questions, answers, done, usable, "revision", turn, "no critique to go by")


def counterfactual(teacher, questions, parameters, progress=None):
    """Ask for an explanation of each wrong answer, or of `wrong` drawn ones, as if it were the right one."""
    asserted = prompts.wrong_answers(questions, parameters["wrong"], parameters["seed"])
    asked = prompts.few_shot_prompts(asserted, parameters["dataset"], parameters["seed"])
    done = _complete(teacher, asserted, asked, decoding_of(parameters), progress)
    return explanations_table(asserted, asserted["answer"], done, "counterfactual")


def contrastive(teacher, questions, parameters, progress=None):
    """Ask for rationales by contrastive decoding (Wang et al. 2023, "SCOTT"): see contrastive.py.

    `against`: ``wrong`` sets the right answer off against one drawn wrong answer, ``empty`` against none.
    """
    dataset, seed = parameters["dataset"], parameters["seed"]
    if parameters["against"] not in CONTRASTS:
        raise StudyError(f"against: unknown '{parameters['against']}'; known: {', '.join(CONTRASTS)}")
    drawn = prompts.wrong_answers(questions, 1, seed)["answer"] if parameters["against"] == "wrong" else [""] * len(
        questions)
    asked = prompts.few_shot_prompts(questions, dataset, seed)
    contrary = prompts.few_shot_prompts(questions, dataset, seed, answers=drawn)
    done = teacher.contrast(asked, contrary, decoding_of(parameters), parameters["strength"], progress)
    return explanations_table(questions, questions["answer"], done, "rationale")


# The promptings that ask a teacher, and their functions here.
PROMPTED = {name: globals()[entry.function] for name, entry in PROMPTINGS.items() if entry.function}


def _published(questions, prompting, parameters):
    """Read published explanations; of critique-revision both stages that were published, rationale and revision."""
    from kdutils.teacher.published.explanations import published_explanations

    stages = ("few_shot", "critique_revision") if prompting == "critique_revision" else (prompting,)
    parts = [published_explanations(questions, parameters["dataset"], parameters["published_teacher"], stage,
                                    parameters["published_folder"]) for stage in stages]
    table = pd.concat(parts, ignore_index=True)
    table.attrs = {"notes": {stage: part.attrs["notes"] for stage, part in zip(stages, parts, strict=True)},
                   "content": parts[-1].attrs["content"],
                   "caution": "; ".join(part.attrs["caution"] for part in parts if part.attrs["caution"])}
    return table


def _complete(teacher, questions, asked, decoding, progress):
    """Return teacher.complete of the prompts `asked`, one per row of `questions`; an error names those it is about."""
    try:
        return teacher.complete(asked, decoding, progress)
    except StudyError as error:
        failed = set(getattr(error, "prompts", ()))
        keys = list(dict.fromkeys(key for key, prompt in zip(questions["id"], asked, strict=True) if prompt in failed))
        if not keys:
            raise
        named = ", ".join(repr(str(key)[:60]) for key in keys[:3]) + (f" and {len(keys) - 3} more" if keys[3:] else "")
        raise StudyError(f"question{'s' if keys[1:] else ''} {named}: {error}") from None


def _say(path, done, total):
    line = f"explained {done} of {total} texts"
    write_text(path, line + "\n")
    print(f"\r{line}", end="", flush=True)


def _answers(questions, completions, given):
    """Return (answers, completions without them): the gold ones where they were given, else the teacher's own."""
    return (list(questions["answer"]), completions) if given else split_answer(completions, questions["choices"])


def explanations_table(questions, answers, completions, stage, turn=0):
    """Return a frame of tables.EXPLANATIONS: one row per question, its completion kept raw and cleaned.

    `answers`: the answer that each text argues for; `completions`: backends.Completion, in the order of
    `questions`; `stage`: rationale, critique, revision or counterfactual; `turn`: of critique and revision.
    """
    rows = []
    for question_id, answer, done in zip(questions["id"], answers, completions, strict=True):
        cleaned = clean(done.text, answer)
        rows.append({"id": question_id, "stage": stage, "round": turn, "answer": answer, "text": cleaned.text,
                     "raw": done.text, "changes": list(cleaned.changes), "problem": cleaned.problem,
                     "finish_reason": done.finish_reason, "prompt_tokens": done.prompt_tokens,
                     "completion_tokens": done.completion_tokens})
    return pd.DataFrame(rows, columns=EXPLANATIONS.names)


def _with_gaps(questions, answers, completions, usable, stage, turn, problem):
    """Return explanations_table over all questions: those that are not `usable` were not asked, for `problem`."""
    table = explanations_table(questions[usable], answers[usable], completions, stage, turn)
    gaps = [{"id": key, "stage": stage, "round": turn, "answer": answer, "text": None, "raw": "", "changes": [],
             "problem": problem, "finish_reason": "unknown", "prompt_tokens": None, "completion_tokens": None}
            for key, answer in zip(questions.loc[~usable, "id"], answers[~usable], strict=True)]
    whole = pd.concat([table, pd.DataFrame(gaps, columns=table.columns)]) if gaps else table
    return whole.set_index("id").loc[questions["id"]].reset_index()[table.columns]


def split_answer(completions, choices=None):
    """Return (answers, completions without them) where the teacher was asked for the answer itself.

    The prompt has begun the sentence "The answer is". The answer is the longest of the question's `choices` that the
    text begins with; else what comes before the first full stop that a space or the end follows.
    """
    answers, rest = [], []
    for row, done in enumerate(completions):
        text = re.sub(r"^\s*(?:the answer is\s+)?", "", normalize("NFC", done.text), flags=re.IGNORECASE)
        known = [choice for choice in (list(choices)[row] if choices is not None else [])
                 if any(start == 0 for start, _ in find_mentions(text, choice))]
        begin = find_mentions(text, max(known, key=len))[0][1] if known else 0
        end = re.compile(rf"({'' if known else '.+?'})(?:\.(?=\s|$)|[{WIDE_ENDS}]|$)(.*)", re.DOTALL)
        found = end.match(text, begin)
        answers.append(max(known, key=len) if known and found else found[1] if found else "")
        rest.append(replace(done, text=found[2] if found else done.text))
    return answers, rest
