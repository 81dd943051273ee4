"""The measures of fake explanations (kdutils/fake_texts.py) with a student's answers."""

import pandas as pd

from kdutils.evaluation.attribution_overlap import MEASURES as OVERLAPS
from kdutils.evaluation.attribution_overlap import attribution_overlap
from kdutils.evaluation.simulatability import Simulator, measure_simulatability
from kdutils.evaluation.text_metrics import explanation_scores, summarise_scores
from kdutils.fake_texts import fake_texts


def fake_measures(predictions: pd.DataFrame, questions: pd.DataFrame, references: dict[str, dict[str, list[str]]],
                  encoder: str = "", simulator: Simulator | None = None, nli: str = "",
                  ranked: dict[int, dict[str, list[str]]] | None = None, k: int = 5) -> list[dict]:
    """Return [{fake, measure, value}] of every fake and every measure of a text that it has.

    `predictions`: those of one seed. `references`, `encoder`, `nli`: see text_metrics.explanation_scores. `simulator`:
    see simulatability.measure_simulatability. `ranked`, `k`: see attribution_overlap.attribution_overlap.
    """
    rationales, rows = {key: known[0] for key, known in references.get("teacher", {}).items()}, []
    for fake, texts in fake_texts(predictions, questions, rationales).items():
        changed = predictions.assign(explanation=texts).dropna(subset="explanation")
        values = summarise_scores(explanation_scores(changed, questions, references, encoder, nli), changed)
        values = values.drop(columns="seed").iloc[0].to_dict()
        values |= attribution_overlap(changed, ranked or {}, k)[list(OVERLAPS)].astype(float).mean().to_dict()
        if fake != "empty":
            las, _ = measure_simulatability(changed, questions, encoder, simulator=simulator)
            values |= las.drop(columns=["seed", "simulated", "left out"]).iloc[0].to_dict()
        rows += [{"fake": fake, "measure": name, "value": float(value)} for name, value in values.items()
                 if value is not None and value == value and not (fake == "teacher" and name.endswith("_teacher"))]
    return rows
