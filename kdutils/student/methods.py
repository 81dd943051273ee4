"""Methods: each is a small table of tasks; a task turns a question into rows ``(source, target)`` with a weight.

Adding a method is a function of its tasks, one entry of METHODS and a notebook. The loss of a step is
``sum over tasks of weight · mean over the task's target tokens`` (see trainer.py).

Formats follow arXiv 2504.16056 (task tags such as ``[predict]`` and ``[explain]``, lettered choices) with two
differences: where an answer comes before its explanation in one target, the marker ``Explanation:`` parts them, so
that the answer can be read back without guessing where it ends; and tags stand in the source alone.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

from kdutils.data.answers import MARKER, format_answer, format_conclusion, is_right
from kdutils.data.questions import lettered
from kdutils.data.texts import count_words, question_words
from kdutils.errors import StudyError


@dataclass(frozen=True)
class Row:
    """One pair of texts to learn from; `task` names the term of the loss that it belongs to.

    The decoder is forced through `target_prefix` before the target; no loss is due on it. Rows of one question and
    the same task are alternatives: one of them is drawn per epoch (collating.EpochRows).
    """

    task: str
    source: str
    target: str
    target_prefix: str = ""


@dataclass(frozen=True)
class Explained:
    """What a teacher wrote on one question: a text for the right answer, and {wrong answer: text for it}."""

    rationale: str | None = None
    counterfactuals: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """One term of the loss. ``texts(item, explained)`` lists the (source, target, target prefix) of its rows.

    `concludes`: its targets end with the answer, so what is too long is shortened before that sentence.
    """

    name: str
    weight: float
    texts: Callable
    concludes: bool = False


@dataclass(frozen=True)
class Method:
    """All that the study knows of a method.

    - `notebook`: the notebook that trains it.
    - `tasks`: a function of the method's parameters that returns its Tasks.
    - `answer`: the tag that asks a trained student for the answer.
    - `explanation`: the tag that asks for the explanation; None where none is learnt. Where both tags are the same, one
      text holds answer and explanation, the explanation first if `explains_first`.
    - `explained`: whether the method reads explanations. `contrary`: whether it also reads explanations of wrong
      answers.
    - `control_of`: the method whose control it is, "" for none. `control`: a function that changes what the teacher
      wrote, see controlled(); None where a control differs in its tasks alone.
    """

    notebook: str
    tasks: Callable[[dict], list[Task]]
    answer: str
    explanation: str | None = None
    explains_first: bool = False
    explained: bool = True
    contrary: bool = False
    control_of: str = ""
    control: Callable | None = None

    @property
    def one_text(self):
        """Whether answer and explanation are written as one text."""
        return self.answer == self.explanation

    @property
    def says(self):
        """The function that turns an answer into the sentence in which the student gives it."""
        return format_conclusion if self.explains_first else format_answer


# The texts

def format_source(item, tag, rationale=""):
    """Return the source text of a question under a task tag ("" for none), the rationale to go by at its end."""
    head = f"[{tag}] " if tag else ""
    choices = f"\nChoices: {lettered(item['choices'])}" if item["choices"] else ""
    return f"{head}Question: {item['question']}{choices}" + (f"\nRationale: {rationale}" if rationale else "")


# The tasks: (item, explained) to a list of (source, target, target prefix)

def predict(item, explained):
    """Question to answer (label_only; the first task of multitask)."""
    return [(format_source(item, "predict"), format_answer(item["answer"]))]


def explain(item, explained, tag="explain"):
    """Question to explanation (the second task of multitask); no row where the teacher gave none."""
    return [(format_source(item, tag), explained.rationale)] if explained.rationale else []


def predict_then_explain(item, explained):
    """Question to answer and explanation in one target (standard); the answer alone where the teacher gave none."""
    rest = f" {MARKER} {explained.rationale}" if explained.rationale else ""
    return [(format_source(item, "predict"), format_answer(item["answer"]) + rest)]


def explain_then_predict(item, explained, tag="factual"):
    """Question to explanation and then the answer; the answer alone where the teacher gave no explanation."""
    head = f"{explained.rationale} " if explained.rationale else ""
    return [(format_source(item, tag), head + format_conclusion(item["answer"]))]


def follow(item, explained, style, drawn, tag="counterfactual"):
    """Question and a rationale for a wrong answer to that answer: one row for each wrong answer that has one.

    `style`: ``encoder`` gives the rationale in the source (arXiv 2504.16056), ``decoder`` forces the decoder through
    it (Wang et al. 2023, "SCOTT"). `drawn`: ``all`` of them, or the ``first`` in the order of the choices, which the
    published code takes every time (and with it, in a fifth of the questions, the right answer: not so here).
    """
    wrong = [answer for answer in item["choices"] or explained.counterfactuals
             if answer in explained.counterfactuals and not is_right(answer, item["answer"], item["choices"])]
    texts = [(answer, explained.counterfactuals[answer]) for answer in wrong[: 1 if drawn == "first" else None]]
    if style == "encoder":
        return [(format_source(item, tag, text), format_conclusion(answer)) for answer, text in texts]
    return [(format_source(item, tag), format_conclusion(answer), text) for answer, text in texts]


# The methods: parameters to a list of Tasks

def label_only(parameters):
    return [Task("predict", 1.0, predict)]


def standard(parameters):
    return [Task("predict", 1.0, predict_then_explain)]


def multitask(parameters):
    alpha = share(parameters, "alpha")
    return [Task("predict", alpha, predict), Task("explain", 1 - alpha, explain)]


def counterfactual(parameters, tags=("factual", "counterfactual")):
    beta = share(parameters, "beta")
    wrong = partial(follow, style=one_of(parameters, "counterfactual_style", ("encoder", "decoder")),
                    drawn=one_of(parameters, "wrong_answers", ("all", "first")), tag=tags[1])
    return [Task("factual", beta, partial(explain_then_predict, tag=tags[0]), concludes=True),
            Task("counterfactual", 1 - beta, wrong, concludes=True)]


def combined(parameters):
    gamma = share(parameters, "gamma")
    parts = ((gamma, multitask(parameters)), (1 - gamma, counterfactual(parameters)))
    return [replace(task, weight=part * task.weight) for part, tasks in parts for task in tasks]


def token_rationale(parameters):
    """The rationale is a list of words that the answer was attributed to (arXiv 2409.12586)."""
    alpha = share(parameters, "alpha")
    return [Task("predict", alpha, predict), Task("tokens", 1 - alpha, partial(explain, tag="tokens"))]


# The controls: what a method gains without the content of the teacher's texts

def other_rationales(parameters, items, explained, seed, others):
    """Give every explained question the rationale of another one, drawn from `seed`.

    That of another question of these `items` by a random cycle through them; or one of the texts `others`, of another
    data set, drawn for each question by itself: the words of a field, and nothing on the question.
    """
    if others:
        return {**explained, **{
            item["id"]: replace(explained[item["id"]],
                                rationale=random.Random(f"shuffled {seed} {item['id']}").choice(others))
            for item in items if explained[item["id"]].rationale}}
    order = [item["id"] for item in items if explained[item["id"]].rationale]
    if len(order) == 1:
        raise StudyError(f"shuffled: question {order[0]!r} is the only explained one of its split: there is no other "
                         "question's rationale to take")
    random.Random(f"shuffled {seed}").shuffle(order)
    return {**explained, **{key: replace(explained[key], rationale=explained[other].rationale)
                            for key, other in zip(order, order[1:] + order[:1], strict=True)}}


def random_words(parameters, items, explained, seed, others):
    """Replace every rationale by as many words drawn from question and choices, at most `k`, in their order there."""
    k = parameters.get("k", 5)
    if not isinstance(k, int) or k < 1:
        raise StudyError(f"k: {k!r} is not a number of words from 1 on")

    def drawn(item):
        words = question_words(item)
        count = min(k, len(words), count_words(explained[item["id"]].rationale))
        chosen = random.Random(f"random_tokens {seed} {item['id']}").sample(range(len(words)), count)
        return " ".join(words[i] for i in sorted(chosen))

    return {**explained, **{item["id"]: replace(explained[item["id"]], rationale=drawn(item))
                            for item in items if explained[item["id"]].rationale}}


METHODS = {
    "label_only": Method("10_train_label_only", label_only, "predict", explained=False),
    "standard": Method("11_train_standard", standard, "predict", "predict"),
    "multitask": Method("12_train_multitask", multitask, "predict", "explain"),
    "counterfactual": Method("13_train_counterfactual", counterfactual, "factual", "factual", explains_first=True,
                             contrary=True),
    "combined": Method("14_train_combined", combined, "predict", "explain", contrary=True),
    "token_rationale": Method("15_train_token_rationale", token_rationale, "predict", "tokens"),
    "shuffled": Method("16_train_shuffled", multitask, "predict", "explain", control_of="multitask",
                       control=other_rationales),
    "random_tokens": Method("17_train_random_tokens", token_rationale, "predict", "tokens",
                            control_of="token_rationale", control=random_words),
    "untagged": Method("18_train_untagged", partial(counterfactual, tags=("", "")), "", "", explains_first=True,
                       contrary=True, control_of="counterfactual"),
}


def share(parameters, name):
    """Return a weight between 0 and 1 from `parameters`, 0.5 where it is not given (arXiv 2504.16056)."""
    value = parameters.get(name, 0.5)
    if not 0 <= value <= 1:
        raise StudyError(f"{name}: {value} is not between 0 and 1")
    return value


def one_of(parameters, name, known):
    """Return one of the `known` words from `parameters`, the first where it is not given."""
    value = parameters.get(name, known[0])
    if value not in known:
        raise StudyError(f"{name}: unknown '{value}'; known: {', '.join(known)}")
    return value


def method_of(name):
    """Return the Method of a name; StudyError for an unknown one."""
    if name not in METHODS:
        raise StudyError(f"method: unknown '{name}'; known: {', '.join(METHODS)}")
    return METHODS[name]


def tasks_of(method, parameters):
    """Return the Tasks of a method, in the order of their numbers in TokenRow; StudyError for an unknown method."""
    return method_of(method).tasks(parameters)


def task_weights(method, parameters):
    """Return {name of the task: weight in the loss}."""
    return {task.name: task.weight for task in tasks_of(method, parameters)}


def rows_of(method, parameters, item, explained):
    """Return the Rows of one question (a record of tables.QUESTIONS), alternatives included.

    `explained`: an Explained, or the rationale alone as a text, None where there is none usable. Of a control, what
    controlled() returned.
    """
    explained = as_explained(explained)
    return [Row(task.name, *texts) for task in tasks_of(method, parameters) for texts in task.texts(item, explained)]


def as_explained(explained):
    """Return an Explained; a plain text or None is taken as the rationale."""
    return explained if isinstance(explained, Explained) else Explained(explained or None)


# From the tables

def explained_of(explanations, questions, counterfactuals=None):
    """Return {question id: Explained} of every question.

    `explanations`, `counterfactuals`: frames of tables.EXPLANATIONS; `questions`: one of tables.QUESTIONS.
    The rationale comes from the last round of the stage ``revision`` if the table has that stage, else from
    ``rationale``, never from both: where the revision is unusable the question has none. A text that argues for another
    answer than the gold one is no rationale. Counterfactuals are the usable texts of the stage ``counterfactual``, of
    either table, for a wrong answer (one of the choices, where there are any).
    """
    stage = "revision" if (explanations["stage"] == "revision").any() else "rationale"
    items = {item["id"]: item for item in questions.to_dict("records")}
    last = explanations[explanations["stage"] == stage]
    if "round" in last and len(last):
        last = last[last["round"] == last.groupby("id")["round"].transform("max")]
    rationales = {row["id"]: row["text"] for row in _usable(last, items) if row["answer"] == items[row["id"]]["answer"]}
    wrong = {key: {} for key in items}
    for table in (explanations, counterfactuals):
        if table is None:
            continue
        for row in _usable(table[table["stage"] == "counterfactual"], items):
            item = items[row["id"]]
            is_choice = row["answer"] in item["choices"] or not len(item["choices"])
            if is_choice and not is_right(row["answer"], item["answer"], item["choices"]):
                wrong[row["id"]][row["answer"]] = row["text"]
    return {key: Explained(rationales.get(key), wrong[key]) for key in items}


def _usable(table, items):
    usable = table[table["text"].notna() & table["id"].isin(list(items))]
    return usable[["id", "answer", "text"]].to_dict("records")


def train_texts(explanations, questions):
    """Return the distinct usable rationales of the train questions, in the order of the questions.

    What the control `shuffled` draws from where it takes its texts from another data set (tables as in explained_of).
    StudyError where there are none.
    """
    train = questions[questions["split"] == "train"]
    texts = [one.rationale for one in explained_of(explanations, train).values() if one.rationale]
    if not texts:
        raise StudyError(f"shuffled: the other data set has no usable rationale ({len(train)} train questions, "
                         f"{len(explanations)} explanations); explain its train questions first")
    return list(dict.fromkeys(texts))


def controlled(method, parameters, items, explained, seed, others=()):
    """Return {question id: Explained} as `method` is to read it: changed by a control, else as it is.

    `items`: records of tables.QUESTIONS, of one or more splits: a control never crosses from one to another. `seed`:
    that of the run. `others`: texts of another data set (train_texts) for the control shuffled. Give every method this
    before rows_of; it is the place where a control differs.
    """
    explained = {item["id"]: as_explained(explained.get(item["id"])) for item in items}
    control = method_of(method).control
    if control:
        for split in dict.fromkeys(item["split"] for item in items):
            explained = control(parameters, [item for item in items if item["split"] == split], explained, seed, others)
    return explained
