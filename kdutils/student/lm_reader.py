"""A language model as the reader of LAS and QBE: trained to foresee what a student answered (Hase et al. 2020).

Hase, Zhang, Xie and Bansal ("Leakage-Adjusted Simulatability") fine-tune a T5 to say what a model answered, from the
question x, the explanation e, or both; one simulator learns all of it, since in training x or e is left out at
random. So here: one model per fold serves the readers of evaluation.simulating, and it learns each kind of input
that it will be asked: x alone, e alone, both, and both with the student's answer masked in e. Instead of drawing which
part is left out, every prediction is taught in all four FORMS: what a draw would give on average, without its noise.

The training is the study's own: the method `label_only` with the student's answer in the place of the right one, a
tenth of the predictions kept apart to choose the checkpoint. What the reader foresees is the choice that it finds
likeliest, so it always foresees one.
"""

import random
import tempfile
from pathlib import Path

from kdutils.data.answers import MARKER
from kdutils.errors import StudyError
from kdutils.student.models import KINDS

FORMS = ("question", "explanation", "both", "masked")
DEV_SHARE = 0.1
STUDENT = {"model": "", "tokenizer": "", "kind": "", "random_weights": False, "config": {}, "lora": {}}
TRAINING = {"epochs": 3.0, "questions_per_step": 32, "learning_rate": 0.0003, "warmup_steps": 10, "dev_evaluations": 2,
            "max_source_tokens": 384, "max_target_tokens": 64, "token_budget": 6000}  # a question here is a form of one


def check_reader(settings):
    """Raise StudyError where `settings` name no model or something that is in neither STUDENT nor TRAINING."""
    if settings.get("kind") and settings["kind"] not in KINDS:
        raise StudyError(f"reader: kind: unknown '{settings['kind']}'; known: {', '.join(KINDS)}")
    unknown = [name for name in settings if name not in STUDENT | TRAINING]
    if unknown:
        raise StudyError(f"reader: unknown '{unknown[0]}'; known: {', '.join(STUDENT | TRAINING)}")
    if not settings.get("model") and not settings.get("tokenizer"):  # a shape of its own has a tokenizer at least
        raise StudyError("reader: it needs a model, a folder or Hub id; leave it empty for the conditional logit")


def trained_reader(settings):
    """Return a function (taught, asked, seed) for evaluation.simulating.simulate, of a model by `settings`.

    `settings`: of STUDENT and TRAINING, what is not given keeps its value there. The function trains a reader on the
    predictions `taught` and returns, for each of FORMS, the place of the choice that it foresees for each of `asked`.
    """
    check_reader(settings)
    given = STUDENT | TRAINING | settings
    student = {name: given[name] for name in STUDENT} | {"lora": given["lora"] or None}
    training = {name: given[name] for name in TRAINING} | {"dev_accuracy": "scores"}

    def read(taught, asked, seed):
        with tempfile.TemporaryDirectory(prefix="reader-") as folder:
            model, tokenizer = _taught(Path(folder) / "reader", taught, student, training, seed)
        return {form: _foresees(model, tokenizer, [form_of(one, form) for one in asked]) for form in FORMS}

    return read


def form_of(prediction, form):
    """Return a prediction as a question whose answer is the student's: only what a reader of `form` is shown."""
    explanation = {"question": None, "masked": prediction["masked"]}.get(form, prediction["explanation"])
    parts = [] if form == "explanation" else [prediction["question"]]
    parts += [] if explanation is None else [f"{MARKER} {explanation}".strip()]
    return {"id": f"{prediction['id']} {form}", "split": "train", "question": "\n".join(parts),
            "choices": list(prediction["choices"]), "answer": prediction["answer"], "human_explanations": []}


def _taught(folder, taught, student, training, seed):
    """Return (model, tokenizer) of a reader that has learnt to foresee the answers of `taught`."""
    import pandas as pd
    import torch

    from kdutils.student.models import load_student
    from kdutils.student.training import train_student

    places = list(range(len(taught)))
    random.Random(f"reader {seed}").shuffle(places)
    dev = set(places[: max(1, round(DEV_SHARE * len(places)))])
    rows = [form_of(one, form) | {"split": "dev" if place in dev else "train"}
            for place, one in enumerate(taught) for form in FORMS]
    record = train_student(folder, pd.DataFrame(rows), {}, "label_only", seed, student, training, {})
    if "failed" in record:
        raise StudyError(f"reader: its training failed: {record['failed']}; lower its learning_rate")
    model, tokenizer = load_student(str(folder))
    return model.to("cuda" if torch.cuda.is_available() else "cpu"), tokenizer


def _foresees(model, tokenizer, items):
    from kdutils.student.predicting import likeliest, score_choices

    scores, _ = score_choices(model, tokenizer, items)
    return [item["choices"].index(likeliest(item, of_choices)) for item, of_choices in zip(items, scores, strict=True)]
