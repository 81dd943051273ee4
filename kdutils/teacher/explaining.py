"""From questions to the table of explanations, one function per prompting.

Notebooks and the command line call ``explain(questions, prompting, parameters)``. It opens the teacher that
`parameters` describe, behind the store of completions, and runs the function of the prompting. The teacher's raw text
is kept beside the cleaned one. A later stage builds on an earlier one (a critique on a rationale). Where the earlier
text is unusable, a question has no later text, and its row gives the reason.
"""

import re
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from unicodedata import normalize

import pandas as pd

from kdutils.data.answers import is_ordinal, match_choice
from kdutils.data.questions import LETTERS
from kdutils.data.tables import CHOICE, EXPLANATIONS, read_table, write_table
from kdutils.data.texts import ENDS, WIDE_ENDS, find_mentions
from kdutils.errors import StudyError
from kdutils.teacher import prompting as prompts
from kdutils.teacher.backends import load_teacher
from kdutils.teacher.choices import CONTRASTS, PROMPTINGS
from kdutils.teacher.cleaning import Cleaned, clean, is_abbreviation, is_refusal, preamble_end
from kdutils.teacher.completion import Completion, Decoding, Progress, Teacher
from kdutils.teacher.progress import show_progress
from kdutils.teacher.soft_labels import NO_LETTER, as_scores, choices_table
from kdutils.teacher.thinking import thinks_first, without_thinking

if TYPE_CHECKING:
    from kdutils.teacher.store import Store
    from kdutils.teacher.stored import Plan, StoredTeacher


def write_explanations(explanations: pd.DataFrame, questions: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Write the table of explanations to `path` and return it as read back.

    Checked are three facts: it covers exactly these questions, no text is blank, and a row has a problem where it has
    no text.
    """
    stored = read_table(write_table(explanations, path, "explanations"), "explanations")
    assert set(stored["id"]) == set(questions["id"])
    assert (stored["text"].isna() == (stored["problem"] != "")).all()
    assert stored["text"].dropna().str.strip().ne("").all()
    return stored


def explain(questions: pd.DataFrame, prompting: str, parameters: dict, teacher: "StoredTeacher | None" = None,
            progress: Path | str | None = None, for_answers: bool = False) -> pd.DataFrame:
    """Return the explanations of `questions` as a frame of tables.EXPLANATIONS.

    `parameters`: those of the prompting's notebook. `teacher`: an open teacher; without it, the one of `parameters`,
    behind the store. `progress`: a file for one line of progress. ``attrs["notes"]`` counts tokens, and completions
    that were asked for or found in the store; ``attrs["seconds"]`` is the time taken. For published explanations
    ``attrs`` are those of published_explanations. `for_answers`: only the teacher's answers are wanted. Raises
    StudyError for an unknown backend, and where no text at all is usable, unless only answers are wanted.
    """
    table = _published(questions, prompting, parameters) if parameters["backend"] == "published" \
        else _asked(questions, prompting, parameters, teacher or open_teacher(parameters), progress, for_answers)
    table["any_answer"] = parameters.get("keep") == "all"
    return table


def _asked(questions, prompting, parameters, teacher, progress, for_answers):
    started = time.time()
    report = None if progress is None else lambda done, total: show_progress(
        progress, done, total, f"explained {done} of {total} texts")
    table = _written(teacher, questions, prompting, parameters, report)
    if len(table) and table["text"].isna().all() and not for_answers:
        problem = table["problem"].mode().iloc[0]
        advice = {"cut off while thinking": "raise max_new_tokens, which thinking uses up, or set thinking: off",
                  NO_LETTER: "set thinking: off and a `system` message that asks for a letter alone, or chat: false",
                  "only thinking": "set the server up to tell thinking and text apart, or set thinking: off; then run "
                                   "again with --retry-unusable"}
        raise StudyError(f"{parameters['model']}: none of {len(table)} texts is usable ({problem}); " + advice.get(
            problem, "look at the prompt and at what the teacher writes to it, then run again"))
    problems = table.loc[table["problem"] != "", "problem"].value_counts().to_dict()
    table.attrs["notes"] = {
        **({"unusable": problems} if problems else {}),
        "prompt tokens": int(table["prompt_tokens"].sum()), "written tokens": int(table["completion_tokens"].sum()),
        "cut off at the token limit": int((table["finish_reason"] == "length").sum()),
        "completions asked for": teacher.asked, "completions from the store": teacher.kept}
    table.attrs["seconds"] = time.time() - started
    return table


def open_teacher(parameters: dict) -> "StoredTeacher":
    """Return the teacher of `parameters` behind the store of completions."""
    from kdutils.teacher.store import Store, store_path
    from kdutils.teacher.stored import StoredTeacher

    return StoredTeacher(load_teacher(parameters), Store(store_path()))


def plan(questions: pd.DataFrame, prompting: str, parameters: dict) -> "Plan | None":
    """Return the cost of explaining, all stages together, before anything is asked; None for published texts."""
    from kdutils.teacher.store import Store, store_path
    from kdutils.teacher.stored import PlanningTeacher

    if parameters["backend"] == "published":
        return None
    with Store(store_path(), read_only=True) as store:
        teacher = PlanningTeacher(load_teacher(parameters), store)
        _written(teacher, questions, prompting, parameters, None)
        return teacher.plan


def _written(teacher, questions, prompting, parameters, report):
    """Return the texts of a prompting, one sample after the other: the first of eight samples are those of four."""
    samples = [PROMPTED[prompting](teacher, questions, {**parameters, "sample": sample}, report).assign(sample=sample)
               for sample in range(parameters.get("samples", 1))]
    return pd.concat(samples, ignore_index=True)


def unusable_completions(questions: pd.DataFrame, prompting: str, parameters: dict, store: "Store") -> dict[str, str]:
    """Return {key: problem} of the stored completions of this explaining from which no text (or letter) can be read."""
    from kdutils.teacher.stored import PlanningTeacher

    teacher = PlanningTeacher(load_teacher(parameters), store)
    table = _written(teacher, questions, prompting, parameters, None)
    lost = table[table["problem"] != ""]
    first = {}
    if prompting == "soft_labels" or not parameters.get("given_answer", True):
        of_first = lost[lost["stage"].isin([CHOICE, "rationale"])]
        first = dict(_first_completions(of_first, questions, prompting, parameters, store))
    if prompting == "soft_labels":
        return first
    # With the question's answer, more texts are unusable ("only the answer"); these are known by their raw text.
    problems = {row.raw: row.problem for row in lost.itertuples() if row.raw}
    found = {key: problem_of(done) or problems.get(done.text, "") for key, done in teacher.stored.items()} | first
    return {key: problem for key, problem in found.items() if problem}


def _first_completions(lost, questions, prompting, parameters, store):
    """Yield (key, problem) of the stored completions behind the `lost` rows of the first stage of a prompting.

    Their raw text is not what is stored: the answer of the teacher, or the letters, were read from it.
    """
    from kdutils.teacher.stored import PlanningTeacher

    for (sample, problem), rows in lost.groupby(["sample", "problem"]):
        teacher = PlanningTeacher(load_teacher(parameters), store)
        asked = questions[questions["id"].isin(rows["id"])].reset_index(drop=True)
        PROMPTED[prompting](teacher, asked, {**parameters, "sample": sample}, None)
        yield from ((key, problem) for key in teacher.stored)


def problem_of(done: Completion) -> str:
    """Return why no explanation can be read from a completion, "" if one can."""
    return _cleaned(without_thinking(done), "").problem


def decoding_of(parameters: dict, limit: str = "max_new_tokens") -> Decoding:
    """Return the Decoding of a notebook's parameters; `limit` names the parameter that limits the new tokens.

    Greedy decoding uses neither `top_p` nor `seed` nor `sample`. They keep their defaults there, because another value
    would make another key in the store.
    """
    sampling = (parameters["temperature"], parameters["top_p"], parameters["seed"], parameters.get("sample", 0)) \
        if parameters["temperature"] else ()
    return Decoding(parameters[limit], tuple(parameters["stop"]), *sampling)


def few_shot(teacher: Teacher, questions: pd.DataFrame, parameters: dict,
             progress: Progress | None = None) -> pd.DataFrame:
    """Ask for a rationale of each question."""
    given, seed = parameters["given_answer"], parameters["seed"]
    asked = prompts.few_shot_prompts(questions, prompts.prompts_named(parameters), seed, given)
    done = _complete(teacher, questions, asked, parameters, progress=progress)
    answers, done = _answers(questions, done, given)
    return explanations_table(questions, answers, done, "rationale")


def critique_revision(teacher: Teacher, questions: pd.DataFrame, parameters: dict,
                      progress: Progress | None = None) -> pd.DataFrame:
    """Ask for a rationale, then `rounds` times for a critique and for a revision that takes the critique into account.

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
    asked = prompts.critique_prompts(questions[usable], prompts.prompts_named(parameters), parameters["seed"],
                                     before.loc[usable, "answer"], before.loc[usable, "text"], turn)
    done = _complete(teacher, questions[usable], asked, parameters, "max_critique_tokens", progress)
    return _with_gaps(questions, before["answer"], done, usable, "critique", turn, "nothing to criticise")


def _revision(teacher, questions, before, critique, parameters, turn, progress):
    usable = critique["text"].notna().to_numpy()
    given = parameters["given_answer"]
    asked = prompts.revision_prompts(
        questions[usable], prompts.prompts_named(parameters), parameters["seed"], before.loc[usable, "answer"],
        before.loc[usable, "text"], critique.loc[usable, "text"], turn, given)
    done = _complete(teacher, questions[usable], asked, parameters, "max_revision_tokens", progress)
    answers = before["answer"].copy()
    answers[usable], done = _answers(questions[usable], done, given)
    return _with_gaps(questions, answers, done, usable, "revision", turn, "no critique to go by")


def counterfactual(teacher: Teacher, questions: pd.DataFrame, parameters: dict,
                   progress: Progress | None = None) -> pd.DataFrame:
    """Ask for an explanation of wrong answers as if each were right: of all of them, or of `wrong` drawn ones."""
    asserted = prompts.wrong_answers(questions, parameters["wrong"], parameters["seed"])
    asked = prompts.few_shot_prompts(asserted, prompts.prompts_named(parameters), parameters["seed"])
    done = _complete(teacher, asserted, asked, parameters, progress=progress)
    return explanations_table(asserted, asserted["answer"], done, "counterfactual")


def contrastive(teacher: Teacher, questions: pd.DataFrame, parameters: dict,
                progress: Progress | None = None) -> pd.DataFrame:
    """Ask for rationales by contrastive decoding (Wang et al. 2023, "SCOTT"): see contrastive.py.

    `against`: ``wrong`` contrasts the right answer with one drawn wrong answer, ``empty`` with no answer.
    """
    asked, contrary = contrastive_prompts(questions, prompts.prompts_named(parameters), parameters["seed"],
                                          parameters["against"])
    done = _ask(lambda rows: teacher.contrast([asked[row] for row in rows], [contrary[row] for row in rows],
                                              decoding_of(parameters), parameters["strength"], progress),
                questions, asked, parameters.get("leave_out_too_long", False))
    return explanations_table(questions, questions["answer"], done, "rationale")


def contrastive_prompts(questions: pd.DataFrame, dataset: str, seed: int, against: str) -> tuple[list[str], list[str]]:
    """Return (prompts with the right answer, prompts with a drawn wrong answer or none), one of each per question."""
    if against not in CONTRASTS:
        raise StudyError(f"against: unknown '{against}'; known: {', '.join(CONTRASTS)}")
    answers = prompts.wrong_answers(questions, 1, seed)["answer"] if against == "wrong" else [""] * len(questions)
    return (prompts.few_shot_prompts(questions, dataset, seed),
            prompts.few_shot_prompts(questions, dataset, seed, answers=answers))


def asks_for_letters(parameters: dict) -> bool:
    """Return whether a teacher of soft labels is asked for the letter of the choice, as a chat on a server is."""
    return parameters["backend"] == "openai" and parameters.get("chat", False)


def soft_labels(teacher: Teacher, questions: pd.DataFrame, parameters: dict,
                progress: Progress | None = None) -> pd.DataFrame:
    """Return the teacher's probability of each choice: a row of the stage ``choice`` per question and choice.

    The prompt is the few-shot prompt up to "The answer is". Of each choice, log p of all that follows there in a prompt
    that gives it as the answer is summed over the tokens, full stop included: without it, a choice that begins another
    one would have its probability, too. See soft_labels.choice_probabilities for the rest.

    A server gives no log p of a given text in a chat. There the question stands alone, the model is asked for the
    letter of the choice, and p of a choice is that of its letter as the first token of the answer.
    """
    rows, dataset, seed = prompts.each_choice(questions), prompts.prompts_named(parameters), parameters["seed"]
    leave_out = parameters.get("leave_out_too_long", False)
    if asks_for_letters(parameters):
        asked = prompts.letter_prompts(questions)
        first = _ask(lambda some: teacher.first_tokens([asked[row] for row in some], progress), questions, asked,
                     leave_out, texts=False)
        done = [one for answer, choices in zip(first, questions["choices"], strict=True)
                for one in as_scores(answer, LETTERS[:len(choices)])]
        return choices_table(rows, done, parameters["choice_temperature"])
    asked = prompts.few_shot_prompts(rows, dataset, seed, given_answer=False)
    if any(thinks_first(teacher.teacher, prompt) for prompt in asked[:1]):
        raise StudyError("thinking: the chat template of this teacher begins the answer with thinking, so no choice "
                         "can follow; set thinking: off, or chat: false")
    behind = [whole[len(start):] for start, whole in zip(asked, prompts.few_shot_prompts(rows, dataset, seed),
                                                         strict=True)]
    done = _ask(lambda some: teacher.score([asked[row] for row in some], [behind[row] for row in some], progress),
                rows, asked, leave_out, texts=False)
    return choices_table(rows, done, parameters["choice_temperature"])


# The function of each prompting that asks a teacher.
PROMPTED = {name: globals()[entry.function] for name, entry in PROMPTINGS.items() if entry.function}


def _published(questions, prompting, parameters):
    """Read published explanations; for critique-revision both published stages, rationale and revision."""
    from kdutils.teacher.published.explanations import published_explanations

    stages = ("few_shot", "critique_revision") if prompting == "critique_revision" else (prompting,)
    parts = [published_explanations(questions, parameters["dataset"], parameters["published_teacher"], stage,
                                    parameters["published_folder"], samples=parameters.get("samples", 1))
             for stage in stages]
    table = pd.concat(parts, ignore_index=True)
    table.attrs = {"notes": {stage: part.attrs["notes"] for stage, part in zip(stages, parts, strict=True)},
                   "content": parts[-1].attrs["content"],
                   "caution": "; ".join(part.attrs["caution"] for part in parts if part.attrs["caution"])}
    return table


def _complete(teacher, questions, asked, parameters, limit="max_new_tokens", progress=None):
    """Return teacher.complete of the prompts `asked`, one per row of `questions`; an error names the questions."""
    decoding = decoding_of(parameters, limit)
    return _ask(lambda rows: teacher.complete([asked[row] for row in rows], decoding, progress), questions, asked,
                parameters.get("leave_out_too_long", False))


def _ask(ask, questions, asked, leave_out, texts=True):
    """Return `ask` of all rows; an error names the questions.

    `texts`: the completions are texts, of which thinking is cut off. `leave_out`: a prompt that does not fit into the
    teacher's context gets an empty Completion, and the rest is asked.
    """
    too_long = set()
    while True:
        try:
            done = ask([row for row, prompt in enumerate(asked) if prompt not in too_long])
            done = map(without_thinking, done) if texts else iter(done)
            return [Completion("", "too_long", None, None) if prompt in too_long else next(done) for prompt in asked]
        except StudyError as error:
            new = set(getattr(error, "too_long", ())) - too_long
            if not (leave_out and new):
                raise _with_questions(error, questions, asked) from None
            too_long |= new


def _with_questions(error, questions, asked):
    """Return a teacher's error with the ids of the questions whose prompts failed."""
    failed = set(getattr(error, "prompts", ()))
    keys = list(dict.fromkeys(key for key, prompt in zip(questions["id"], asked, strict=True) if prompt in failed))
    if not keys:
        return error
    named = ", ".join(repr(str(key)[:60]) for key in keys[:3]) + (f" and {len(keys) - 3} more" if keys[3:] else "")
    return StudyError(f"question{'s' if keys[1:] else ''} {named}: {error}")


def _answers(questions, completions, given):
    """Return (answers, completions without them): the gold answers where these were given, else the teacher's own."""
    return (list(questions["answer"]), completions) if given else split_answer(completions, questions["choices"])


def explanations_table(questions: pd.DataFrame, answers: Sequence[str], completions: list[Completion], stage: str,
                       turn: int = 0) -> pd.DataFrame:
    """Return a frame of tables.EXPLANATIONS: one row per question, its completion both raw and cleaned.

    `answers`: the answer that each text argues for. `completions`: in the order of `questions`. `stage`: rationale,
    critique, revision or counterfactual. `turn`: the round of critique and revision.
    """
    rows = []
    for question_id, answer, done in zip(questions["id"], answers, completions, strict=True):
        cleaned = _cleaned(done, answer)
        rows.append({"id": question_id, "stage": stage, "round": turn, "sample": 0, "answer": answer,
                     "text": cleaned.text, "raw": done.text, "changes": list(cleaned.changes),
                     "problem": cleaned.problem, "finish_reason": done.finish_reason,
                     "prompt_tokens": done.prompt_tokens, "completion_tokens": done.completion_tokens})
    return pd.DataFrame(rows, columns=EXPLANATIONS.names)


def _cleaned(done, answer):
    """Return clean() of a completion's text, with what the completion itself says of thinking and problems."""
    cleaned = clean(done.text, answer)
    changes = ["thinking_removed"] * bool(done.thinking) + cleaned.changes
    reasons = {"refusal": "refusal", "content_filter": "withheld by a content filter",
               "too_long": "too long for the context"}
    if done.finish_reason in reasons:
        return Cleaned(None, changes, reasons[done.finish_reason])
    problem = cleaned.problem
    if problem == "empty" and done.thinking:
        problem = "cut off while thinking" if done.finish_reason == "length" else "only thinking"
    return Cleaned(cleaned.text, changes, problem)


def _with_gaps(questions, answers, completions, usable, stage, turn, problem):
    """Return explanations_table over all questions; those that are not `usable` were not asked and have `problem`."""
    table = explanations_table(questions[usable], answers[usable], completions, stage, turn)
    gaps = [{"id": key, "stage": stage, "round": turn, "sample": 0, "answer": answer, "text": None, "raw": "",
             "changes": [], "problem": problem, "finish_reason": "unknown", "prompt_tokens": None,
             "completion_tokens": None}
            for key, answer in zip(questions.loc[~usable, "id"], answers[~usable], strict=True)]
    whole = pd.concat([table, pd.DataFrame(gaps, columns=table.columns)]) if gaps else table
    return whole.set_index("id").loc[questions["id"]].reset_index()[table.columns]


_LEAD = re.compile(r"[\s*_`]*(?:(?:(?:so,? )?the (?:(?:correct|right|best|final) )?answer is:?"
                   r"|(?:the )?(?:(?:correct|right|best|final) )?answer(?:\*\*)?:)[\s*_`]+)?", re.IGNORECASE)
_BOXED = re.compile(r"\$*\\boxed\{(?:\\text\{)?([^{}]*)\}*\$*")
_CHOSEN = re.compile(r"\(([A-Za-z])\)\s*[*_`]*\s*")  # "(b) ", before the text of a choice or alone
_AFTER_CHOICE = re.compile(rf"[*_`]*(?:\s*\([A-Za-z]\))?[*_`]*(?:\.(?=\s|[*_`]|$)|[{WIDE_ENDS}]|[!?,;:](?=\s|$)|(?=\n)"
                           r"|\s*[—–]\s*|\s+-\s+|$|(?=\s+(?:because|since)\b))[*_`]*")
_END = re.compile(rf"\.(?=\s|[*_`]+(?:\s|$)|$)[*_`]*|[{WIDE_ENDS}]|\n|$")


def split_answer(completions: list[Completion],
                 choices: Sequence[list[str]] | None = None) -> tuple[list[str], list[Completion]]:
    """Return (answers, completions without them) for prompts that end with "The answer is".

    The answer is the longest of the question's `choices` with which the text begins, if a sentence or clause ends
    there, also with its letter: ``(b) water``. Without such a choice it is the text before the first end of a sentence
    or line. Marks of Markdown and LaTeX around an answer do not count. A refusal is no answer.
    """
    answers, rest = [], []
    for row, done in enumerate(completions):
        answer, text = ("", done.text) if done.finish_reason in ("refusal", "content_filter") or is_refusal(done.text) \
            else _first_answer(normalize("NFC", done.text), list(choices[row]) if choices is not None else [])
        answers.append(answer)
        rest.append(replace(done, text=text))
    return answers, rest


def _first_answer(text, choices):
    """Return (the answer with which a text begins, the rest of the text); ("", text) where it is not clear."""
    begin = preamble_end(text)
    begin = _LEAD.match(text, begin).end()
    whole, text = text, _BOXED.sub(r"\1", text[begin:], count=1) if _BOXED.match(text, begin) else text[begin:]
    letter = _CHOSEN.match(text)
    start = letter.end() if letter else 0
    known = _begins_with(text[start:], choices)
    if known:
        choice, length = known
        if text[start + length - 1] in ENDS + WIDE_ENDS and re.match(r"[*_`]*(?:\s|$)", text[start + length:]):
            end = start + length
        elif after := _AFTER_CHOICE.match(text, start + length):
            end = after.end()
        else:
            return "", whole
        listed = text[start + length:end].strip().endswith((",", "-", "–", "—"))
        other = listed and _begins_with(text[end:].lstrip(), choices)
        if other or letter and match_choice(f"({letter[1]})", choices) != choice:
            return "", whole
        return choice, text[end:]
    for stop in _END.finditer(text):
        if stop.start() and not _goes_on(text[:stop.end()]) and not is_ordinal(text[:stop.start()], text[stop.end():]):
            return text[:stop.start()].strip().rstrip("*_`"), text[stop.end():]
    return "", whole


def _begins_with(text, choices):
    """Return (the longest of the choices with which a text begins, the length of its mention), None for none."""
    found = [(choice, mentions[0][1]) for choice in choices
             if (mentions := find_mentions(text, choice)) and mentions[0][0] == 0]
    return max(found, key=lambda one: len(one[0]), default=None)


def _goes_on(text):
    """Return whether the full stop at the end of a text belongs to an abbreviation or to the initial of a name."""
    before = re.search(r"(\S*)\s+[A-Z]\.$", text)  # vitamin C. ends there, George W. does not
    return is_abbreviation(text) and not (before and before[1][:1].islower())
