"""Does the answer follow the explanation? A probe puts a text before the answer and records the answer after it.

After Wang et al. 2023 ("SCOTT"): a student that explains first and then answers is forced through another rationale
than its own. No text is generated: the answer is the most likely choice after the forced text and "So the answer is",
so there always is one. The probes, by the text before the answer:

- ``none``: no text; ``own``: the student's own explanation;
- ``perturbed``: its own explanation, with half of the tokens replaced by random ones of the vocabulary;
- ``teacher``: the teacher's rationale of the right answer; ``wrong``: that of a wrong answer, drawn per question;
- ``told right``, ``told wrong``: the same two rationales, but in the source, as in the task `counterfactual` with the
  style ``encoder``.

``asserted answer given`` is the mean of 1[answer after the text = answer that the text asserts].

Different from the paper: its students write the answer, so an answer may be missing; here the choices are scored, and
every probe has an answer to compare. The paper forces the teacher's rationale (``teacher``, there "oracle") and the
perturbed one; ``none``, ``wrong`` and the two in the source are this study's own. ``wrong`` tells whether a student
follows a text where the question contradicts it.

A student that answers first, or explains in another text, has no path from explanation to answer; there are no probes.
"""

import random
from dataclasses import replace
from pathlib import Path

import pandas as pd
from transformers import PreTrainedTokenizerBase

from kdutils.data.answers import is_right
from kdutils.runs import read_json
from kdutils.student.methods import Explained, method_of, taught_method
from kdutils.student.models import model_kind
from kdutils.student.predicting import choose, load_trained

REPLACED = 0.5  # share of tokens that the probe `perturbed` replaces


def probe_answers(folder: Path | str, questions: pd.DataFrame, explained: dict[str, Explained],
                  predictions: pd.DataFrame, seed: int, precision: str = "float32") -> pd.DataFrame:
    """Return one row per probe and question: id, seed, probe, asserted (the text's answer or ""), chosen, correct.

    `folder`: that of a student. `predictions`: what the student wrote, a frame of tables.PREDICTIONS of this seed.
    `precision`: see predicting.predict_with. The result is empty for a method without a path from explanation to
    answer, and for questions without choices.
    """
    about = read_json(Path(folder) / "student.json")
    method = probed_method(about["method"])
    items = [item for item in questions.to_dict("records") if len(item["choices"])]
    columns = ["id", "seed", "probe", "asserted", "chosen", "correct"]
    if method is None or not items:
        return pd.DataFrame(columns=columns)
    model, tokenizer = load_trained(folder, precision)
    if model_kind(model) == "classifier":
        return pd.DataFrame(columns=columns)
    own = dict(zip(predictions["id"], predictions["explanation"], strict=True))
    style = about["parameters"].get("counterfactual_style", "encoder")
    rows = []
    for probe, texts in forced_texts(items, explained, own, tokenizer, seed, style).items():
        asked = [item for item in items if item["id"] in texts]
        asks = taught_method(method, about.get("tag", "before"))
        tag = "counterfactual" if asks.answer else ""
        in_source, given = probe.startswith("told"), [texts[item["id"]][0] for item in asked]
        sources = [asks.source(item, tag, text) for item, text in zip(asked, given, strict=True)]
        if in_source:  # a published layout has another target in the task that follows the source
            asks = replace(asks, answer=tag, explanation=tag)
        answers = choose(model, tokenizer, asked, asks, *((None, sources) if in_source else (given, None)))
        for item, chosen in zip(asked, answers, strict=True):
            rows.append([item["id"], seed, probe, texts[item["id"]][1], chosen,
                         is_right(chosen, item["answer"], item["choices"])])
    return pd.DataFrame(rows, columns=columns)


def probed_method(method: str) -> str | None:
    """Return the method with whose texts a student is probed, None if it does not explain before the answer."""
    if method == "combined":  # its task factual explains first
        return "counterfactual"
    return method if method_of(method).explains_first else None


def forced_texts(items: list[dict], explained: dict[str, Explained], own: dict[str, str],
                 tokenizer: PreTrainedTokenizerBase, seed: int, style: str) -> dict[str, dict[str, tuple[str, str]]]:
    """Return {probe: {question id: (text, the answer that it asserts or "")}}; a question without a text is absent.

    `own`: {question id: the student's explanation}. `style`: the method's parameter counterfactual_style.
    """
    texts = {"none": {}, "own": {}, "perturbed": {}, "teacher": {}, "wrong": {}, "told right": {}, "told wrong": {}}
    for item in items:
        key, known = item["id"], explained[item["id"]]
        texts["none"][key] = ("", "")
        if own.get(key):
            texts["own"][key] = (own[key], "")
            texts["perturbed"][key] = (perturbed(own[key], tokenizer, f"{seed} {key}"), "")
        if known.rationale:
            texts["teacher"][key] = texts["told right"][key] = (known.rationale, item["answer"])
        if known.counterfactuals:
            wrong = random.Random(f"probe {seed} {key}").choice(sorted(known.counterfactuals))
            texts["wrong"][key] = texts["told wrong"][key] = (known.counterfactuals[wrong], wrong)
    if style != "encoder":
        del texts["told right"], texts["told wrong"]
    return {probe: of_probe for probe, of_probe in texts.items() if of_probe}


def perturbed(text: str, tokenizer: PreTrainedTokenizerBase, seed: str) -> str:
    """Return `text` with the share REPLACED of its tokens, drawn, replaced by ordinary tokens that are drawn, too."""
    draw = random.Random(f"perturbed {seed}")
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    ordinary = sorted(set(range(len(tokenizer))) - set(tokenizer.all_special_ids))
    for place in draw.sample(range(len(ids)), round(REPLACED * len(ids))):
        ids[place] = draw.choice(ordinary)
    return tokenizer.decode(ids, skip_special_tokens=True).strip()


def probe_table(probes: pd.DataFrame) -> pd.DataFrame:
    """Return one row per seed and probe: questions, accuracy, share that gave the asserted answer (or None)."""
    rows = []
    for (seed, probe), group in probes.groupby(["seed", "probe"], sort=False):
        asserts = group[group["asserted"] != ""]
        rows.append({"seed": int(seed), "probe": probe, "questions": len(group),
                     "accuracy": float(group["correct"].mean()),
                     "asserted answer given": float((asserts["chosen"] == asserts["asserted"]).mean())
                     if len(asserts) else None})
    return pd.DataFrame(rows, columns=["seed", "probe", "questions", "accuracy", "asserted answer given"])
