"""Published protocols: what the papers did where this study does something else, line by line, each with its source.

`protocol: published` in an experiment file, or in an entry of its `methods`, sets the parameters of one protocol below.
Parameters that the file sets itself take precedence. ``fair``, the default, sets nothing: every notebook has the
defaults of the study.

- ``published``: Hendriks et al., "Honey, I Shrunk the Language Model" (arXiv 2504.16056), the comparison that this
  study repeats. Its sources are the authors' files; a source "runs" is their export of the runs behind the paper.
- ``step_by_step``: Hsieh et al. 2023, "Distilling Step-by-Step". Its sources are the files of the authors' repository.

Not repeated, because it is no setting: memory decided how many questions a published step really had (3 to 48), run 0
had 10,000 steps, diverged runs are missing in the published file, and the published code for decoder-only students also
counts the prompt in the loss. Teachers' texts are those of the experiment.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from kdutils.data.answers import match_choice, parse_answer
from kdutils.data.questions import LETTERS, format_choices
from kdutils.errors import StudyError

# The literal texts

@dataclass(frozen=True)
class Texts:
    """Source and target of a task, with the places {question}, {choices}, {rationale} and {answer}.

    `choices`: the part of the source that a question without choices lacks. `one_per_line`: choices are on lines of
    their own.
    """

    source: str
    target: str
    choices: str = "\nChoices: {choices}"
    one_per_line: bool = False


_ASKED = "Question: {question}\nChoices: {choices}"
_HSIEH = "{question}\nAnswer Choices:\n{choices}"
_OF_HSIEH = {"choices": "\nAnswer Choices:\n{choices}", "one_per_line": True}

# {layout: {task: its texts}}. label_only and standard have texts of their own, see methods.Task.written.
LAYOUTS: dict[str, dict[str, Texts]] = {
    "published": {  # the strings for CommonsenseQA, with their trailing spaces
        "predict": Texts(f"[predict] {_ASKED} ", "[answer] The answer is {answer}"),  # cqa.py:300-312
        "explain": Texts(f"[explain] {_ASKED} ", "{rationale}"),  # cqa.py:300-312
        "factual": Texts(f"[factual] {_ASKED} ",  # cqa.py:331-358
                         "[factual] Answer: {rationale} So the answer is {answer}."),
        "counterfactual": Texts(f"[counterfactual] {_ASKED}\\Rationale: {{rationale}} ",  # \R: cqa.py:355
                                "[counterfactual] So the answer is {answer}."),
        "standard": Texts("[question] {question}\n[choices] {choices}",  # cqa.py:384-391
                          "[answer] The answer is {answer}. {rationale}", "\n[choices] {choices}"),
        # The authors have no such baseline. These are the texts of their task predict.
        "label_only": Texts(f"[predict] {_ASKED} ", "[answer] The answer is {answer}"),
    },
    "step_by_step": {
        "predict": Texts(f"predict: {_HSIEH}", "{answer}", **_OF_HSIEH),  # run.py:136-150, data_utils.py
        "explain": Texts(f"explain: {_HSIEH}", "{rationale}", **_OF_HSIEH),  # run.py:136-150
        "tokens": Texts(f"explain: {_HSIEH}", "{rationale}", **_OF_HSIEH),  # the loss of arXiv 2409.12586 is theirs
        "label_only": Texts(_HSIEH, "{answer}", **_OF_HSIEH),  # run.py, model type "standard": no prefix
    },
}


def texts_of(layout: str, task: str) -> Texts:
    """Return the Texts of a task in a layout; StudyError if the paper has none."""
    if task not in LAYOUTS[layout]:
        raise StudyError(f"layout: {layout} has no text for the task '{task}'; it has {', '.join(LAYOUTS[layout])}")
    return LAYOUTS[layout][task]


def literal_source(texts: Texts, item: dict, rationale: str = "") -> str:
    """Return the source of a question; `rationale` is the text to follow in the task counterfactual.

    A context, which the papers' data sets lack, stands on a line of its own before the question.
    """
    source = texts.source if item["choices"] else texts.source.replace(texts.choices, "")
    lines = "\n".join(f"({LETTERS[i]}) {choice}" for i, choice in enumerate(item["choices"]))
    choices = lines if texts.one_per_line else format_choices(item["choices"])
    asked = "\n".join(text for text in (item.get("context"), item["question"]) if text)
    return source.format(question=asked, choices=choices, rationale=rationale)


def literal_target(texts: Texts, answer: str, rationale: str) -> str:
    """Return the target; without a rationale the answer stands alone."""
    target = texts.target if rationale else texts.target.replace("{rationale} ", "").replace(" {rationale}", "")
    return target.format(answer=answer, rationale=rationale)


def literal_answer(texts: Texts, answer: str) -> str:
    """Return the part of the target that gives the answer: all of it but the rationale and what is before one."""
    part = next(part for part in texts.target.split("{rationale}") if "{answer}" in part)
    return part.strip().format(answer=answer)


def literal_beginning(texts: Texts) -> str:
    """Return what a target has before a rationale that comes before the answer, "" for other targets."""
    before, _, behind = texts.target.partition("{rationale}")
    return before if "{answer}" in behind else ""


def read_literal(texts: Texts, text: str, choices: list[str]) -> tuple[str, str]:
    """Return (answer, explanation) of a generated text, as answers.parse_answer does for the texts of this study."""
    if texts.target == "{answer}":
        return match_choice(text.strip(), choices), ""
    if texts.target.endswith("{rationale}"):  # the answer comes first
        said = next((choice for choice in sorted(choices, key=len, reverse=True)
                     if text.startswith(literal_answer(texts, choice))), None)
        if said is not None:
            return said, text[len(literal_answer(texts, said)):].strip()
        return parse_answer(text, choices)[0], text.partition(". ")[2].strip()
    beginning = literal_beginning(texts).strip()
    text = text.removeprefix(beginning).strip()
    answer, explanation = parse_answer(text, choices)
    return answer, explanation if answer or not beginning else text


# The protocols

class Line(NamedTuple):
    """One parameter that a protocol sets: in which step, to what, and who says so.

    `step`: training, evaluation or comparison. `only`: the method that it is for, "" for all that have the parameter.
    """

    step: str
    parameter: str
    value: object
    source: str
    only: str = ""


PROTOCOLS: dict[str, tuple[Line, ...]] = {
    "fair": (),
    "published": (
        Line("training", "layout", "published", "cqa.py:300-391: task tags before the question, in the target, too"),
        Line("training", "padding_loss", True, "cqa.py:314-380: labels padded per 1,000 questions, never set to -100"),
        Line("training", "max_steps", 5000, "runs 1 to 5; memory did not change the number of steps"),
        Line("training", "checkpoint", "last", "save_strategy 'no': the last weights are tested"),
        Line("training", "dev_evaluations", 20, "eval_steps 250 of 5,000"),
        Line("training", "questions_per_step", 48, "runs; halved where memory ran out, which is not repeated"),
        Line("training", "learning_rate", 5e-5, "default; AdamW, linear decay, gradients clipped at 1"),
        Line("training", "warmup_steps", 0, "default: no warm-up"),
        Line("training", "max_source_tokens", 300, "cqa.py: inputs"),
        Line("training", "max_target_tokens", 300, "cqa.py: labels of predict and explain"),
        Line("training", "max_target_tokens", 256, "cqa.py: labels of factual and counterfactual", "counterfactual"),
        Line("training", "precision", "float32", "runs: bf16 and fp16 off"),
        Line("training", "alpha", 0.5, "loss: alpha * predict + (1 - alpha) * explain"),
        Line("training", "unweighted", True, "custom_trainers.py:22: factual + counterfactual, both with weight 1"),
        Line("training", "beta", 0.5, "loss of combined: beta * factual + (1 - beta) * counterfactual", "combined"),
        Line("training", "gamma", 0.5, "loss of combined: gamma * multitask + (1 - gamma) * counterfactual"),
        Line("training", "counterfactual_style", "encoder", "cqa.py:331-358: the rationale is in the source"),
        Line("training", "wrong_answers", "first", "cqa.py:352: always choice (a), here the first wrong one"),
        Line("evaluation", "match", "exact", "custom_metrics.py:18-38: equal strings, in CF behind the last 'So the "
                                             "answer is'"),
        Line("evaluation", "max_explanation_tokens", 300, "gen_max_len 300, greedy"),
        Line("comparison", "outliers", "iqr", "performance.R: runs outside 1.5 interquartile ranges of the cell"),
    ),
    "step_by_step": (
        Line("training", "layout", "step_by_step", "run.py:136-150, data_utils.py: the bare answer is the target"),
        Line("training", "padding_loss", False, "run.py:136-150: padding is set to -100 by the collator"),
        Line("training", "max_steps", 10000, "run.py: default"),
        Line("training", "checkpoint", "last", "nothing is saved; the paper reads its numbers from curves of the test "
                                               "split (train_utils.py:92), which is not repeated"),
        Line("training", "dev_evaluations", 40, "run.py: eval_steps 250 of 10,000; here on dev"),
        Line("training", "questions_per_step", 64, "run.py: batch_size"),
        Line("training", "learning_rate", 5e-5, "run.py: default; AdamW, linear decay"),
        Line("training", "warmup_steps", 0, "run.py: no warm-up"),
        Line("training", "max_source_tokens", 1024, "run.py: max_input_length"),
        Line("training", "max_target_tokens", 256, "run.py: labels and rationales"),
        Line("training", "precision", "float32", "run.py: bf16 is off by default"),
        Line("training", "alpha", 0.5, "model_utils.py:54-60: alpha * label + (1 - alpha) * rationale"),
        Line("evaluation", "match", "exact", "metrics.py: equal strings"),
        Line("evaluation", "max_explanation_tokens", 64, "run.py: gen_max_len"),
    ),
}


def protocol_parameters(protocol: str, step: str, method: str = "", known: frozenset[str] | None = None) -> dict:
    """Return {parameter: value} that a protocol sets in a step; StudyError for an unknown protocol.

    `method`: a name of methods.METHODS. `known`: the parameters that the notebook has, None for any.
    """
    if protocol not in PROTOCOLS:
        raise StudyError(f"protocol: unknown '{protocol}'; known: {', '.join(PROTOCOLS)}")
    return {line.parameter: line.value for line in PROTOCOLS[protocol] if line.step == step
            and line.only in ("", method) and (known is None or line.parameter in known)}
