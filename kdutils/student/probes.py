"""Does the answer follow the explanation? Probes that put a text before the answer and see what the student then says.

After Wang et al. 2023 ("SCOTT"): a student that explains first and then answers is forced through a rationale that is
not its own. A probe reads no generated text: the answer is the choice that the student finds likeliest behind the
forced text and "So the answer is", so there always is one.

``own``: behind what the student wrote itself. ``none``: behind nothing. ``teacher``: behind the teacher's rationale for
the right answer. ``wrong``: behind the teacher's rationale for a wrong answer, drawn per question. ``perturbed``:
behind its own text with half of the tokens, drawn, replaced by others drawn from the vocabulary. ``told right`` and
``told wrong``: the teacher's two rationales in the source, as the task `counterfactual` of the style ``encoder`` has
them.

A student that answers before it explains, or in another text, has no path from the explanation to the answer: nothing
can be probed, and that is what is reported.
"""

import random
from pathlib import Path

import pandas as pd

from kdutils.data.answers import is_right
from kdutils.runs import read_json
from kdutils.student.methods import format_source, method_of
from kdutils.student.models import load_student, model_kind
from kdutils.student.predicting import likeliest, score_choices

REPLACED = 0.5  # share of tokens that `perturbed` replaces


def probe_answers(folder, questions, explained, predictions, seed):
    """Return one row per probe and question: id, seed, probe, asserted answer, chosen answer, correct.

    `folder`: a student of train_student. `explained`: {question id: methods.Explained}. `predictions`: what the student
    wrote, a frame of tables.PREDICTIONS of this seed. Empty where the method has no path from explanation to answer,
    and for questions without choices.
    """
    import torch

    about = read_json(Path(folder) / "student.json")
    method = probed_method(about["method"])
    items = [item for item in questions.to_dict("records") if len(item["choices"])]
    columns = ["id", "seed", "probe", "asserted", "chosen", "correct"]
    if method is None or not items:
        return pd.DataFrame(columns=columns)
    model, tokenizer = load_student(str(folder))
    if model_kind(model) == "classifier":
        return pd.DataFrame(columns=columns)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    own = dict(zip(predictions["id"], predictions["explanation"], strict=True))
    style = about["parameters"].get("counterfactual_style", "encoder")
    rows = []
    for probe, texts in forced_texts(items, explained, own, tokenizer, seed, style).items():
        asked_for = [item for item in items if item["id"] in texts]
        told = probe.startswith("told")
        tag = "counterfactual" if method_of(method).answer else ""
        sources = [format_source(item, tag, texts[item["id"]][0]) for item in asked_for] if told else None
        prefixes = None if told else [texts[item["id"]][0] for item in asked_for]
        scores, _ = score_choices(model, tokenizer, asked_for, method, prefixes, sources)
        for item, of_choices in zip(asked_for, scores, strict=True):
            chosen = likeliest(item, of_choices)
            rows.append([item["id"], seed, probe, texts[item["id"]][1], chosen,
                         is_right(chosen, item["answer"], item["choices"])])
    return pd.DataFrame(rows, columns=columns)


def probed_method(method):
    """Return the method whose texts a student can be forced through, None where explanation and answer are apart."""
    if method == "combined":  # its task factual explains first
        return "counterfactual"
    return method if method_of(method).explains_first else None


def forced_texts(items, explained, own, tokenizer, seed, style):
    """Return {probe: {question id: (text, the answer it asserts or "")}}; a question without a text is absent."""
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
    return {probe: found for probe, found in texts.items() if found}


def perturbed(text, tokenizer, seed):
    """Return `text` with REPLACED of its tokens, drawn from `seed`, replaced by ordinary tokens of the vocabulary."""
    draw = random.Random(f"perturbed {seed}")
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    ordinary = sorted(set(range(len(tokenizer))) - set(tokenizer.all_special_ids))
    for place in draw.sample(range(len(ids)), round(REPLACED * len(ids))):
        ids[place] = draw.choice(ordinary)
    return tokenizer.decode(ids, skip_special_tokens=True).strip()


def probe_table(probes):
    """Return one row per seed and probe: questions, accuracy, share that gave the asserted answer."""
    rows = []
    for (seed, probe), group in probes.groupby(["seed", "probe"], sort=False):
        asserts = group[group["asserted"] != ""]
        rows.append({"seed": int(seed), "probe": probe, "questions": len(group),
                     "accuracy": float(group["correct"].mean()),
                     "asserted answer given": float((asserts["chosen"] == asserts["asserted"]).mean())
                     if len(asserts) else None})
    return pd.DataFrame(rows, columns=["seed", "probe", "questions", "accuracy", "asserted answer given"])
