"""A language model that reads explanations and predicts the student's answers, for LAS and QBE (Hase et al. 2020).

Hase, Zhang, Xie and Bansal ("Leakage-Adjusted Simulatability") fine-tune one T5 to predict a model's answer from the
question x, the explanation e, or both: in training x or e is left out at random. Here one model per fold serves all
readers of evaluation.simulatability. It learns every input that it will be asked about: x alone, e alone, both, and
both with the student's answer masked in e. Nothing is drawn: every prediction is taught in all four FORMS, which is the
average of such a draw without its noise.

The model is trained like a student: with the method `label_only`, the student's answer in place of the right one, and a
tenth of the predictions as dev split. Its prediction is the choice that it finds most likely.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from kdutils.data.answers import MARKER
from kdutils.errors import StudyError, StudyErrors
from kdutils.student.methods import Method, asked_as
from kdutils.student.settings import LmReader
from kdutils.student.training import Recipe, recipe_from, train_student

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

FORMS = ("question", "explanation", "both", "masked")
DEV_SHARE = 0.1


def check_reader(settings: dict) -> None:
    """Raise StudyErrors for all that is wrong with `settings`, some of those of student.settings.LmReader."""
    faults = LmReader.faults(settings) or list(LmReader(**settings).conflicts())
    if faults:
        raise StudyErrors([f"simulator.{key}: {what}" for key, what in faults])


def trained_reader(settings: dict) -> Callable[[list[dict], list[dict], int], dict[str, list[int]]]:
    """Return a function (taught, asked, seed) for evaluation.simulatability.measure_simulatability.

    `settings`: some of those of student.settings.LmReader, which has the defaults. The function trains a model on the
    predictions `taught` and returns, for each of FORMS, the place of the choice that it predicts for each of `asked`.
    """
    check_reader(settings)
    recipe = recipe_from(LmReader.defaults() | settings, "label_only", {})
    recipe = replace(recipe, training=recipe.training | {"dev_accuracy": "scores"})

    def read(taught, asked, seed):
        with tempfile.TemporaryDirectory(prefix="reader-") as folder:
            reader = _trained(Path(folder) / "reader", taught, replace(recipe, seed=seed))
        return {form: _predicted_places(*reader, [form_of(one, form) for one in asked]) for form in FORMS}

    return read


def form_of(prediction: dict, form: str) -> dict:
    """Return a prediction as a question with the student's answer; its text is only what a reader of `form` may see."""
    explanation = {"question": None, "masked": prediction["masked"]}.get(form, prediction["explanation"])
    parts = [] if form == "explanation" else [prediction["question"]]
    parts += [] if explanation is None else [f"{MARKER} {explanation}".strip()]
    return {"id": f"{prediction['id']} {form}", "split": "train", "question": "\n".join(parts),
            "choices": list(prediction["choices"]), "answer": prediction["answer"], "human_explanations": []}


def _trained(folder: Path, taught: list[dict],
             recipe: Recipe) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, Method]:
    """Return (model, tokenizer, its method) of a reader that has learnt to predict the answers of `taught`."""
    import pandas as pd

    from kdutils.student.predicting import load_trained

    places = list(range(len(taught)))
    random.Random(f"reader {recipe.seed}").shuffle(places)
    dev = set(places[: max(1, round(DEV_SHARE * len(places)))])
    rows = [form_of(one, form) | {"split": "dev" if place in dev else "train"}
            for place, one in enumerate(taught) for form in FORMS]
    record = train_student(folder, pd.DataFrame(rows), {}, recipe)
    if "failed" in record:
        raise StudyError(f"simulator: its training failed: {record['failed']}; lower its learning_rate")
    return *load_trained(folder), asked_as(folder)


def _predicted_places(model, tokenizer, asks, items):
    from kdutils.student.predicting import choose

    chosen = choose(model, tokenizer, items, asks)
    return [item["choices"].index(choice) for item, choice in zip(items, chosen, strict=True)]
