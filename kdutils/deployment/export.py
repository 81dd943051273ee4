"""Export a student: a folder with weights, tokenizer, model card and example that needs transformers alone."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from kdutils.data.tables import read_table
from kdutils.deployment.asking import reads_passages
from kdutils.deployment.card import environment, model_card, runs_of_student
from kdutils.errors import StudyError
from kdutils.hub import exists, hide_progress
from kdutils.runs import project_path, read_json
from kdutils.student.collating import SEPARATOR
from kdutils.student.methods import Method, asked_as
from kdutils.student.models import end_token, model_kind
from kdutils.student.protocols import LAYOUTS

AUTO_CLASSES = {"seq2seq": "AutoModelForSeq2SeqLM", "causal": "AutoModelForCausalLM",
                "classifier": "AutoModelForSequenceClassification"}


def export_student(folder: Path | str, target: Path | str, title: str, evaluations: Sequence[Path] = ()) -> Path:
    """Write the student in `folder` (that train_student wrote) into the new folder `target`; return its path.

    It holds the weights (safetensors, adapters merged), the tokenizer, ``README.md`` (the model card) and
    ``example.py``, all readable by everyone. `title`: the heading of the card. `evaluations`: folders of evaluation
    runs of this student, whose results the card states. Raises StudyError if `target` is not an empty or new folder,
    and for a student of a published layout.
    """
    from kdutils.student.predicting import load_trained

    folder, target = Path(folder), project_path(target)
    if exists(target) and not (target.is_dir() and not any(target.iterdir())):
        raise StudyError(f"{target}: there is something already; name a new folder")
    if (layout := asked_as(folder).tag) in LAYOUTS:
        raise StudyError(f"{folder}: this student reads the literal texts of a paper (layout {layout}), which "
                         "example.py does not write; export a student that was trained with layout: study")
    hide_progress()
    model, tokenizer = load_trained(folder, place="cpu")
    card, script = _texts(folder, title, evaluations, model, tokenizer)
    scratch = target.with_name(f".{target.name}.partial")
    shutil.rmtree(scratch, ignore_errors=True)
    model.config.use_cache = True  # the trainer switches it off
    try:
        model.save_pretrained(scratch)
        tokenizer.save_pretrained(scratch)
        (scratch / "README.md").write_text(card, encoding="utf-8")
        (scratch / "example.py").write_text(script, encoding="utf-8")
        for path in scratch.iterdir():
            path.chmod(0o644)
        scratch.chmod(0o755)
        if target.is_dir():
            target.rmdir()
        scratch.rename(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return target


def _texts(folder, title, evaluations, model, tokenizer):
    """Return (model card, example script)."""
    from kdutils.student.predicting import predict_questions

    asks, measured = asked_as(folder), runs_of_student(evaluations, folder)
    questions = read_table(project_path(read_json(folder.parent / "run.json")["parameters"]["questions"]), "questions")
    asked = measured[0].given if measured else {"split": "test", "max_explanation_tokens": 64}
    items = questions[questions["split"] == asked["split"]].to_dict("records")
    most = asked["max_explanation_tokens"]
    record = predict_questions(model, tokenizer, asks, items[:1], most)[0]
    card = model_card(folder, title, sum(weight.numel() for weight in model.parameters()), model_kind(model), measured,
                      items[0], record)
    return card, _script(model, tokenizer, asks, items, most, reads_passages(folder))


def _script(model, tokenizer, asks: Method, items, max_explanation_tokens, passages):
    """Return the example script, with the limits that the evaluation has for `items`; `passages`: it can read them."""
    from kdutils.student.predicting import answer_tokens

    kind = model_kind(model)
    tokens = 0 if kind == "classifier" else answer_tokens(tokenizer, asks, items)
    return environment().get_template("example.py.j2").render(
        kind=kind, passages=passages, auto_class=AUTO_CLASSES[kind], source=_source_code(asks, kind),
        explains_first=asks.explains_first,
        drops_end=kind == "causal" and tokenizer("text")["input_ids"][-1:] == [end_token(tokenizer)], tag=asks.answer,
        explanation_tag="" if asks.one_text or asks.explanation is None else asks.explanation,
        answer_tokens=tokens + (max_explanation_tokens if asks.one_text else 0),
        explanation_tokens=max_explanation_tokens)


def _source_code(asks, kind):
    """Return the Python expression of the text that the student reads; `text` is the question with its choices."""
    end = SEPARATOR.encode("unicode_escape").decode() if kind == "causal" else ""
    if asks.answer:
        return f'f"[{{tag}}] {{text}}{end}"' if asks.tag == "before" else f'f"{{text}}\\n[{{tag}}]{end}"'
    return f'text + "{end}"' if end else "text"
