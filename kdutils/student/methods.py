"""Methods of training a student. A method is a list of tasks; a task turns a question into pairs of source and target.

A new method needs a function that returns its tasks, one entry in METHODS and a notebook. The loss of a step is the sum
over tasks of weight · mean −log p over the task's target tokens (see trainer.py).

Texts have the format of arXiv 2504.16056 (task tags such as ``[predict]`` and ``[explain]``, lettered choices) with
three differences. Where an answer comes before its explanation in one target, the marker ``Explanation:`` separates
them, so that the end of the answer is known. Tags are in the source only. A causal student reads the tag behind the
question, so that a question is computed once for all of its tasks (rows.SharedRows). The literal texts of the papers
are in protocols.LAYOUTS.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from kdutils.data.answers import MARKER, format_answer, format_conclusion, is_right, parse_answer
from kdutils.data.questions import format_choices, format_question
from kdutils.data.tables import CHOICE, learnt_rows, read_explanations, word_lists
from kdutils.data.texts import count_words, question_words
from kdutils.errors import StudyError
from kdutils.runs import project_path, read_json
from kdutils.student.protocols import (
    LAYOUTS,
    literal_answer,
    literal_beginning,
    literal_source,
    literal_target,
    read_literal,
    texts_of,
)

if TYPE_CHECKING:
    import pandas as pd

TAG_PLACES = ("before", "after")  # the question
OWN = "own"  # the task of token_kl whose targets the student writes itself


@dataclass(frozen=True)
class Row:
    """One pair of texts to learn from; `task` names its term of the loss.

    The decoder is forced through `target_prefix` before it writes the target; the prefix does not count in the loss.
    Rows of one question and one task are alternatives: one of them is drawn per epoch (collating.EpochRows). Where the
    task keeps them together (Task.together), each counts with its `weight`; these add up to 1 over a question.
    """

    task: str
    source: str
    target: str
    target_prefix: str = ""
    weight: float = 1.0


@dataclass(frozen=True)
class Explained:
    """A teacher's texts on one question: the rationale of the right answer, and {wrong answer: its rationale}.

    `more`: further samples of the rationale, if the teacher wrote several. `soft`: {choice: the teacher's probability
    of it}, {} if it was not asked for them, None if it could not give them (a question that was too long).
    """

    rationale: str | None = None
    counterfactuals: dict[str, str] = field(default_factory=dict)
    more: tuple[str, ...] = ()
    soft: dict[str, float] | None = field(default_factory=dict)

    @property
    def rationales(self) -> tuple[str, ...]:
        """All samples of the rationale; () for a question without one."""
        return (self.rationale, *self.more) if self.rationale else ()


@dataclass(frozen=True)
class Task:
    """One term of the loss. ``texts(item, explained)`` returns [(source, target, target prefix, weight)] of its rows.

    Its sources do not hold the tag, which is the task's name unless `tag` says another one. `concludes`: its targets
    end with the answer. A target that is too long is then cut before that sentence. `written`: the task of
    protocols.LAYOUTS whose texts it has in a published layout, "" for its name. `follows`: it learns to follow the
    explanations of wrong answers; ``follows(item, explained)`` returns these as [(answer, text)]. `together`: all rows
    of a question count, each with its weight; else one of them is drawn per epoch.
    """

    name: str
    weight: float
    texts: Callable[[dict, Explained], list[tuple]]
    concludes: bool = False
    tag: str | None = None
    written: str = ""
    follows: Callable[[dict, Explained], list[tuple[str, str]]] | None = None
    together: bool = False

    def rows(self, item: dict, explained: Explained, place: str) -> list[Row]:
        """Return the Rows of one question, with the tag at `place` (one of TAG_PLACES), or in a published layout."""
        if place in LAYOUTS:
            return self._literal_rows(item, explained, texts_of(place, self.written or self.name))
        tag = self.name if self.tag is None else self.tag
        return [Row(self.name, place_tag(source, tag, place), *rest) for source, *rest in self.texts(item, explained)]

    def _literal_rows(self, item, explained, texts):
        if self.follows:
            return [Row(self.name, literal_source(texts, item, text), literal_target(texts, answer, text))
                    for answer, text in self.follows(item, explained)]
        without = [] if texts.target == "{rationale}" else [""]
        return [Row(self.name, literal_source(texts, item), literal_target(texts, item["answer"], rationale))
                for rationale in explained.rationales or without]


@dataclass(frozen=True)
class Method:
    """All that the study knows of a method.

    - `notebook`: the notebook that trains it.
    - `tasks`: a function of the method's parameters that returns its Tasks.
    - `answer`: the tag that asks a trained student for the answer.
    - `explanation`: the tag that asks for the explanation; None where none is learnt. Where both tags are the same, one
      text holds answer and explanation, the explanation first if `explains_first`.
    - `explained`: whether the method reads what a teacher wrote. `promptings`: the promptings (choices.PROMPTINGS) that
      it learns from, () for all that teach. `beside`: {parameter of its notebook: the prompting} of the tables of the
      same teacher that it reads besides, such as explanations of wrong answers.
    - `tag`: where a student was taught to read the tag, one of TAG_PLACES, or a layout of protocols.LAYOUTS; see
      taught_method().
    - `control_of`: the method whose control it is, "" for none. `control`: a function that changes what the teacher
      wrote, see apply_control(); None where a control differs in its tasks alone.
    - `learns`: what a student learns from, in words. `papers`: those that the method is from, besides arXiv 2504.16056.
    """

    notebook: str
    tasks: Callable[[dict], list[Task]]
    answer: str
    explanation: str | None = None
    explains_first: bool = False
    explained: bool = True
    promptings: tuple[str, ...] = ()
    beside: dict[str, str] = field(default_factory=dict)
    control_of: str = ""
    control: Callable | None = None
    tag: str = "before"
    learns: str = field(kw_only=True)
    papers: tuple[str, ...] = ()

    def source(self, item: dict, tag: str, rationale: str = "") -> str:
        """Return the source text with which a student of this method is asked; see format_source."""
        if self.tag in LAYOUTS:
            return literal_source(self._literal(tag), item, rationale)
        return format_source(item, tag, rationale, self.tag)

    def _literal(self, tag):
        """Return the Texts of the task with this tag in the published layout that the student learnt."""
        return texts_of(self.tag, next((task.written for task in self.tasks({}) if task.name == tag), "") or tag)

    @property
    def one_text(self) -> bool:
        """Whether answer and explanation are written as one text."""
        return self.answer == self.explanation

    @property
    def says(self) -> Callable[[str], str]:
        """The function that turns an answer into the sentence in which a student gives it."""
        if self.tag in LAYOUTS:
            return partial(literal_answer, self._literal(self.answer))
        return format_conclusion if self.explains_first else format_answer

    def before_answer(self, explanation: str) -> str:
        """Return what a student has written before the sentence of says(), with `explanation` before the answer."""
        beginning = literal_beginning(self._literal(self.answer)) if self.tag in LAYOUTS else ""
        return beginning + (f"{explanation} " if explanation else "")

    def read(self, text: str, choices: Sequence[str] = ()) -> tuple[str, str]:
        """Return (answer, explanation) of a generated text; see answers.parse_answer."""
        if self.tag in LAYOUTS:
            return read_literal(self._literal(self.answer), text, list(choices))
        return parse_answer(text, choices)


# The texts

def format_source(item: dict, tag: str = "", rationale: str = "", place: str = "before") -> str:
    """Return the source text of a question, with its context before it, a rationale to follow, if given, at its end,
    and the tag at its place.
    """
    choices = f"\nChoices: {format_choices(item['choices'])}" if item["choices"] else ""
    follow = f"\nRationale: {rationale}" if rationale else ""
    return place_tag(f"{format_question(item)}{choices}{follow}", tag, place)


def place_tag(source: str, tag: str, place: str) -> str:
    """Return a source text with a task tag ("" for none) ``before`` it, as published, or ``after`` it."""
    if not tag:
        return source
    return f"{source}\n[{tag}]" if place == "after" else f"[{tag}] {source}"


# The tasks. Each turns a question and its explanations into [(source, target, target prefix)].

def predict(item: dict, explained: Explained) -> list[tuple]:
    """From the question to the answer (label_only; the first task of multitask)."""
    return [(format_source(item), format_answer(item["answer"]))]


def predict_softly(item: dict, explained: Explained, hard: float) -> list[tuple]:
    """From the question to each choice, with the teacher's probability of it as the weight of the row (soft_label).

    With q(c) the probability of choice c, and the Kronecker delta of c and the gold answer, the weight is ::

        r(c) = (1 − hard) · q(c) + hard · δ(c, gold)

    and the loss of a step is Σ over questions and choices of r(c) · −log p(c) / Σ r(c) · |c|, where log p(c) is summed
    over the |c| target tokens of the choice. A one-hot r is label_only. Rows of weight 0 are left out.

    This is knowledge distillation (Hinton et al. 2015, section 2: cross-entropy with the soft targets, and a weighted
    mean with that of the right label) at the level of sequences (Kim and Rush 2016, section 3.2), where the sum over
    all sequences is over the choices alone. It differs from Hinton et al. in two ways. The student's p is that of a
    text among all texts and has no temperature, for it has to write the answer. So there is no factor T² either: that
    one makes up for gradients that a temperature of the student divides by T², and the teacher's alone does not.

    A question of which the teacher could not give them, as one that was too long for it (`leave_out_too_long`), is
    learnt by its gold answer, as in label_only.
    Raises StudyError for a question without choices, or for which no soft labels were asked.
    """
    key, choices, soft = item["id"], list(item["choices"]), explained.soft
    if soft is None:
        soft = {choice: float(choice == item["answer"]) for choice in choices}
    if not choices:
        raise StudyError(f"question {key!r} has no choices, so it has no soft labels; use label_only for this data set")
    if set(soft) != set(choices):
        raise StudyError(f"question {key!r}: {'soft labels of other choices' if soft else 'no soft labels'}; ask the "
                         "teacher with the prompting soft_labels, for the splits train and dev")
    weights = {choice: (1 - hard) * soft[choice] + hard * (choice == item["answer"]) for choice in choices}
    return [(format_source(item), format_answer(choice), "", weight) for choice, weight in weights.items() if weight]


def explain(item: dict, explained: Explained) -> list[tuple]:
    """From the question to the explanation (the second task of multitask): a row for each sample of it."""
    return [(format_source(item), rationale) for rationale in explained.rationales]


def predict_then_explain(item: dict, explained: Explained) -> list[tuple]:
    """From the question to the answer, then the explanation if there is one, in one target (standard)."""
    rests = [f" {MARKER} {rationale}" for rationale in explained.rationales] or [""]
    return [(format_source(item), format_answer(item["answer"]) + rest) for rest in rests]


def explain_then_predict(item: dict, explained: Explained) -> list[tuple]:
    """From the question to the explanation, if there is one, then the answer, in one target."""
    heads = [f"{rationale} " for rationale in explained.rationales] or [""]
    return [(format_source(item), head + format_conclusion(item["answer"])) for head in heads]


def wrong_rationales(item: dict, explained: Explained, drawn: str) -> list[tuple[str, str]]:
    """Return [(wrong answer, its rationale)] to follow.

    `drawn`: ``all`` wrong answers, or the ``first`` in the order of the choices. The published code always takes the
    first choice, which in a fifth of the questions is the right answer; not so here.
    """
    wrong = [answer for answer in item["choices"] or explained.counterfactuals
             if answer in explained.counterfactuals and not is_right(answer, item["answer"], item["choices"])]
    return [(answer, explained.counterfactuals[answer]) for answer in wrong[: 1 if drawn == "first" else None]]


def follow_rationale(item: dict, explained: Explained, style: str, follows: Callable) -> list[tuple]:
    """From the question and the rationale of a wrong answer to that answer: one row per wrong answer with a rationale.

    `style`: ``encoder`` puts the rationale into the source (arXiv 2504.16056), ``decoder`` forces the decoder through
    it (Wang et al. 2023, "SCOTT"). `follows`: see Task.
    """
    texts = follows(item, explained)
    if style == "encoder":
        return [(format_source(item, rationale=text), format_conclusion(answer)) for answer, text in texts]
    return [(format_source(item), format_conclusion(answer), text) for answer, text in texts]


# The methods. Each turns its parameters into its tasks.

def label_only(parameters: dict) -> list[Task]:
    return [Task("predict", 1.0, predict, written="label_only")]


def soft_label(parameters: dict) -> list[Task]:
    texts = partial(predict_softly, hard=share(parameters, "hard", 0.0))
    return [Task("predict", 1.0, texts, written="soft_label", together=True)]


def soft_multitask(parameters: dict) -> list[Task]:
    alpha = share(parameters, "alpha")
    return [*(replace(task, weight=alpha) for task in soft_label(parameters)), Task("explain", 1 - alpha, explain)]


def standard(parameters: dict) -> list[Task]:
    return [Task("predict", 1.0, predict_then_explain, written="standard")]


def multitask(parameters: dict) -> list[Task]:
    alpha = share(parameters, "alpha")
    return [Task("predict", alpha, predict), Task("explain", 1 - alpha, explain)]


def counterfactual(parameters: dict, tag: str | None = None) -> list[Task]:
    beta = share(parameters, "beta")
    weights = (1.0, 1.0) if parameters.get("unweighted", False) else (beta, 1 - beta)
    follows = partial(wrong_rationales, drawn=one_of(parameters, "wrong_answers", ("all", "first")))
    follow = partial(follow_rationale, style=one_of(parameters, "counterfactual_style", ("encoder", "decoder")),
                     follows=follows)
    written = "" if tag is None else "untagged"
    return [Task("factual", weights[0], explain_then_predict, concludes=True, tag=tag, written=written),
            Task("counterfactual", weights[1], follow, concludes=True, tag=tag, written=written, follows=follows)]


def combined(parameters: dict) -> list[Task]:
    gamma = share(parameters, "gamma")
    parts = ((gamma, multitask(parameters)), (1 - gamma, counterfactual(parameters)))
    return [replace(task, weight=part * task.weight) for part, tasks in parts for task in tasks]


def token_rationale(parameters: dict) -> list[Task]:
    """The rationale is the list of words to which the answer was attributed (arXiv 2409.12586)."""
    alpha = share(parameters, "alpha")
    return [Task("predict", alpha, predict), Task("tokens", 1 - alpha, explain)]


def token_kl(parameters: dict) -> list[Task]:
    """Multitask; for a share `on_policy` of the questions, the student itself writes the explanation that it learns.

    So the loss of explanations is (1 − on_policy) · that of the teacher's texts + on_policy · that of the student's own
    ones (Agarwal et al. 2024, "On-policy distillation of language models", section 3.1, GKD). The questions are drawn,
    so a step has another share than on_policy; there, each kind of text has its weight by its questions. The targets
    of the task `own` are replaced in every step (distilling.Distilled.with_own_texts); on dev they are the teacher's.
    """
    both, own = multitask(parameters), share({"on_policy": 0.0, **parameters}, "on_policy")
    if not own:
        return both
    answer, text = both
    return [answer, replace(text, weight=text.weight * (1 - own)),
            Task(OWN, text.weight * own, explain, tag="explain", written="explain")]


# The controls. Each changes the teacher's texts of one split, so that their content can no longer help.

def exchange_rationales(parameters: dict, items: list[dict], explained: dict[str, Explained], seed: int,
                        other_texts: Sequence[str]) -> dict[str, Explained]:
    """Give every explained question a rationale that is not its own, drawn from `seed`.

    It is that of another one of `items`, with all its samples, by a random cycle through them. With `other_texts`, of
    another data set, it is as many different ones of these as the question has, drawn for each question by itself: the
    style of an explanation, with nothing about the question. A dev question that alone has a rationale loses it.
    """
    order = [item["id"] for item in items if explained[item["id"]].rationale]
    if other_texts:
        given = [_drawn_texts(f"shuffled {seed} {key}", len(explained[key].rationales), other_texts) for key in order]
    elif len(order) == 1 and items[0]["split"] != "train":
        given = [Explained(None)]
    elif len(order) == 1:
        raise StudyError(f"question {order[0]!r} is the only train question with a rationale, so there is no other "
                         "rationale to exchange with it; explain more questions")
    else:
        random.Random(f"shuffled {seed}").shuffle(order)
        given = [explained[other] for other in order[1:] + order[:1]]
    return {**explained, **{key: replace(explained[key], rationale=other.rationale, more=other.more)
                            for key, other in zip(order, given, strict=True)}}


def _drawn_texts(seed, count, texts):
    first, *more = random.Random(seed).sample(texts, min(count, len(texts)))
    return Explained(first, more=tuple(more))


def draw_words(parameters: dict, items: list[dict], explained: dict[str, Explained], seed: int,
               other_texts: Sequence[str]) -> dict[str, Explained]:
    """Replace every rationale by as many distinct words of the question and its choices, drawn, in their order."""
    def drawn(item):
        words = {}
        for word in question_words(item):
            words.setdefault(word.casefold(), word)
        words = list(words.values())
        count = min(len(words), count_words(explained[item["id"]].rationale))
        chosen = random.Random(f"random_tokens {seed} {item['id']}").sample(range(len(words)), count)
        return " ".join(words[i] for i in sorted(chosen))

    return {**explained, **{item["id"]: replace(explained[item["id"]], rationale=drawn(item), more=())
                            for item in items if explained[item["id"]].rationale}}


CONTRARY, SOFT = {"counterfactuals": "counterfactual"}, {"soft_labels": "soft_labels"}
EXPLAINED = "answers and a teacher's explanations"
CONTRARILY = f"{EXPLAINED}, also of wrong answers"
PROBABILITIES = "the probabilities that a teacher gives to the choices"
HINTON, HSIEH = "Hinton et al. 2015, Distilling the Knowledge", "Hsieh et al. 2023, Distilling Step-by-Step"
WANG = "Wang et al. 2023, SCOTT"
BALLOUT = "Ballout et al. 2024, Efficient Knowledge Distillation, arXiv 2409.12586"
METHODS = {
    "label_only": Method("10_train_label_only", label_only, "predict", explained=False, learns="answers alone"),
    "standard": Method("11_train_standard", standard, "predict", "predict", learns=EXPLAINED),
    "multitask": Method("12_train_multitask", multitask, "predict", "explain", learns=EXPLAINED, papers=(HSIEH,)),
    "counterfactual": Method("13_train_counterfactual", counterfactual, "factual", "factual", explains_first=True,
                             beside=CONTRARY, learns=CONTRARILY, papers=(WANG,)),
    "combined": Method("14_train_combined", combined, "predict", "explain", beside=CONTRARY, learns=CONTRARILY,
                       papers=(HSIEH, WANG)),
    "token_rationale": Method("15_train_token_rationale", token_rationale, "predict", "tokens",
                              learns="answers and the words on which a teacher's answer depends", papers=(BALLOUT,)),
    "shuffled": Method("16_train_shuffled", multitask, "predict", "explain", control_of="multitask",
                       control=exchange_rationales, learns=f"{EXPLAINED} of other questions", papers=(HSIEH,)),
    "random_tokens": Method("17_train_random_tokens", token_rationale, "predict", "tokens",
                            control_of="token_rationale", control=draw_words,
                            learns="answers and random words of the question", papers=(BALLOUT,)),
    "untagged": Method("18_train_untagged", partial(counterfactual, tag=""), "", "", explains_first=True,
                       beside=CONTRARY, control_of="counterfactual", learns=CONTRARILY, papers=(WANG,)),
    "soft_label": Method("19_train_soft_label", soft_label, "predict", promptings=("soft_labels",),
                         learns=PROBABILITIES, papers=(HINTON,)),
    "soft_multitask": Method("20_train_soft_multitask", soft_multitask, "predict", "explain", beside=SOFT,
                             learns=f"{PROBABILITIES}, and its explanations", papers=(HINTON, HSIEH)),
    "soft_shuffled": Method("26_train_soft_shuffled", soft_multitask, "predict", "explain", beside=SOFT,
                            control_of="soft_multitask", control=exchange_rationales,
                            learns=f"{PROBABILITIES}, and its explanations of other questions", papers=(HINTON, HSIEH)),
    "token_kl": Method("24_train_token_kl", token_kl, "predict", "explain",
                       learns=f"{EXPLAINED}, with the probability of each token", papers=(HINTON, HSIEH)),
}


def share(parameters: dict, name: str, default: float = 0.5) -> float:
    """Return a weight from `parameters`; 0.5 if it is not given (arXiv 2504.16056). StudyError outside of 0 to 1."""
    value = parameters.get(name, default)
    if not 0 <= value <= 1:
        raise StudyError(f"{name}: {value} is not between 0 and 1")
    return value


def one_of(parameters: dict, name: str, known: Sequence[str]) -> str:
    """Return a word from `parameters`; the first of `known` if it is not given. StudyError where it is not known."""
    value = parameters.get(name, known[0])
    if value not in known:
        raise StudyError(f"{name}: unknown '{value}'; known: {', '.join(known)}")
    return value


def method_of(name: str | Method) -> Method:
    """Return the Method of a name, and a Method as it is; StudyError for an unknown one."""
    if isinstance(name, Method):
        return name
    if name not in METHODS:
        raise StudyError(f"method: unknown '{name}'; known: {', '.join(METHODS)}")
    return METHODS[name]


def taught_method(name: str, tag: str = "before") -> Method:
    """Return the Method by which a student was taught, with the place of its tag or its layout, as in student.json."""
    return replace(method_of(name), tag=tag)


def asked_as(folder: Path | str) -> Method:
    """Return the Method by which the student in `folder` was taught, and so is asked.

    A student.json without the place of its tag is older than `tag`: before. A model that was not trained here is asked
    as a student of label_only.
    """
    path = project_path(folder) / "student.json"
    about = read_json(path) if path.is_file() else {"method": "label_only"}
    return taught_method(about["method"], about.get("tag", "before"))


def learnt_word_lists(folder: Path | str) -> bool:
    """Say whether the students of a training run learnt lists of attributed words (tables.word_lists)."""
    run = project_path(folder) / "run.json"
    path = read_json(run)["parameters"].get("explanations", "") if run.is_file() else ""
    return bool(path) and project_path(path).is_file() and bool(word_lists(read_explanations(path)).any())


def tag_place(wanted: str, kind: str) -> str:
    """Return where a student of `kind` (models.KINDS) reads the tag: as `wanted`, and if that is empty by its kind.

    StudyError where `wanted` is unknown.
    """
    return one_of({"tag": wanted}, "tag", TAG_PLACES) if wanted else "after" if kind == "causal" else "before"


def tasks_of(method: str, parameters: dict) -> list[Task]:
    """Return the Tasks of a method; their order is that of the task numbers in TokenRow."""
    return method_of(method).tasks(parameters)


def task_weights(method: str, parameters: dict) -> dict[str, float]:
    """Return {name of the task: weight in the loss}."""
    return {task.name: task.weight for task in tasks_of(method, parameters)}


def rows_of(method: str, parameters: dict, item: dict, explained: Explained | str | None,
            tag: str = "before") -> list[Row]:
    """Return the Rows of one question (a record of tables.QUESTIONS), alternatives included.

    `explained`: see as_explained; for a control, what apply_control returned for the question. `tag`: the place of the
    tag, one of TAG_PLACES.
    """
    explained = as_explained(explained)
    return [row for task in tasks_of(method, parameters) for row in task.rows(item, explained, tag)]


def as_explained(explained: Explained | str | None) -> Explained:
    """Return an Explained; a text is taken as the rationale, None or "" as no explanation."""
    return explained if isinstance(explained, Explained) else Explained(explained or None)


# From the tables

def explained_of(explanations: pd.DataFrame, questions: pd.DataFrame,
                 *beside: pd.DataFrame) -> dict[str, Explained]:
    """Return {question id: Explained} for every question.

    `explanations`: a frame of tables.EXPLANATIONS; `beside`: further ones, of other promptings (Method.beside);
    `questions`: a frame of tables.QUESTIONS.

    - Rationales are the texts of tables.learnt_rows. Equal samples count once.
    - Counterfactuals are the usable texts of the stage ``counterfactual``, of all tables, for a wrong answer; where a
      question has choices, the answer is one of them.
    - Soft labels are the probabilities of the stage ``choice``, of all tables; None for a question whose rows of that
      stage have none.
    """
    items = {item["id"]: item for item in questions.to_dict("records")}
    rationales = {key: [] for key in items}
    for row in learnt_rows(explanations, questions).to_dict("records"):
        if row["text"] not in rationales[row["id"]]:
            rationales[row["id"]].append(row["text"])
    wrong, soft, too_long = {key: {} for key in items}, {key: {} for key in items}, set()
    for table in (explanations, *beside):
        for row in _usable(table[table["stage"] == CHOICE], items, "probability"):
            soft[row["id"]][row["answer"]] = row["probability"]
        too_long |= set(table.loc[table["stage"] == CHOICE, "id"]) & set(items)
        for row in _usable(table[table["stage"] == "counterfactual"], items):
            item = items[row["id"]]
            is_choice = row["answer"] in item["choices"] or not len(item["choices"])
            if is_choice and not is_right(row["answer"], item["answer"], item["choices"]):
                wrong[row["id"]][row["answer"]] = row["text"]
    too_long -= {key for key, shares in soft.items() if shares}
    return {key: Explained(texts[0] if texts else None, wrong[key], tuple(texts[1:]),
                           None if key in too_long else soft[key])
            for key, texts in rationales.items()}


def _usable(table, items, what="text"):
    if not len(table):  # a table of an earlier version may lack the column
        return []
    usable = table[table[what].notna() & table["id"].isin(list(items))]
    return usable[["id", "answer", what]].to_dict("records")


def train_texts(explanations: pd.DataFrame, questions: pd.DataFrame) -> list[str]:
    """Return the distinct rationales (all samples) of another data set's train questions, in the order of these.

    The control `shuffled` can draw from them (tables as in explained_of). StudyError where there are none.
    """
    train = questions[questions["split"] == "train"]
    texts = [text for one in explained_of(explanations, train).values() for text in one.rationales]
    if not texts:
        raise StudyError(f"shuffled: the other data set has no usable rationale ({len(train)} train questions, "
                         f"{len(explanations)} explanations); explain its train questions first")
    return list(dict.fromkeys(texts))


def apply_control(method: str, parameters: dict, items: list[dict], explained: dict, seed: int,
                  other_texts: Sequence[str] = ()) -> dict[str, Explained]:
    """Return {question id: Explained} as `method` reads it: changed if the method is a control, else as given.

    `items`: records of tables.QUESTIONS of any splits; texts are never exchanged between splits. `explained`: see
    as_explained. `seed`: that of the run. `other_texts`: for the control shuffled, see train_texts. Call this before
    rows_of, for every method.
    """
    explained = {item["id"]: as_explained(explained.get(item["id"])) for item in items}
    control = method_of(method).control
    if control:
        for split in dict.fromkeys(item["split"] for item in items):
            of_split = [item for item in items if item["split"] == split]
            explained = control(parameters, of_split, explained, seed, other_texts)
    return explained
