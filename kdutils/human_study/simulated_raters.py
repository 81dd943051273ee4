"""Simulated raters, to try an analysis before people have rated. Simulated ratings are not evidence about people."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from kdutils.errors import StudyError
from kdutils.human_study.design import PAGE_SECONDS, SCALE, TASKS
from kdutils.human_study.forms import canonical, checksum
from kdutils.human_study.rating_files import FORMAT
from kdutils.human_study.rating_values import shortened
from kdutils.runs import write_text

Effects = dict[str, float | dict[str, float]]


def simulate_scores(plan: pd.DataFrame, effects: Effects | None = None, mean: float = 4.0, rater_sd: float = 0.5,
                    question_sd: float = 0.2, text_sd: float = 0.3, rating_sd: float = 0.4, residual_sd: float = 0.6,
                    thresholds: tuple[float, ...] = (1.5, 2.5, 3.5, 4.5), seed: int = 0) -> pd.DataFrame:
    """Return the answers of simulated raters who pass every check: rater, text, position and one column per item.

    latent = mean + effect of the method + rater + question + text + rating + residual, in points; all but the first two
    are normal with mean 0. The residual is drawn per construct, the rest is shared by the constructs of a rating. The
    score is 1 + the number of `thresholds` below the latent value: thresholds at half points make a rounded linear
    model, others a cut-point model (McKelvey and Zavoina 1975). `effects`: {method: points or {construct: points}}, 0
    if missing. In a simulation the rater chooses the model's answer if the latent value is above the third threshold,
    else another choice. Raises StudyError for an effect that is not a number or of a method that is not in the plan.
    """
    for effect in (effects or {}).values():
        for value in effect.values() if isinstance(effect, dict) else [effect]:
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not np.isfinite(value):
                raise StudyError(f"effects: {shortened(value)} is not a number of points")
    unknown = set(effects or {}) - set(plan["method"])
    if unknown:
        raise StudyError(f"effects: {min(unknown)!r} is not a method of the plan")
    generator = np.random.default_rng([seed, 3])
    drawn = {name: dict(zip(values, generator.normal(0, sd, len(values)), strict=True))
             for name, sd in (("rater", rater_sd), ("question", question_sd), ("text", text_sd))
             for values in [sorted(plan[name].unique())]}
    items = list(TASKS[plan["task"].iloc[0]])
    rows = []
    for page in plan.to_dict("records"):
        shared = mean + sum(drawn[name][page[name]] for name in drawn) + generator.normal(0, rating_sd)
        effect = (effects or {}).get(page["method"], 0.0)
        latent = {item: shared + (effect.get(item, 0.0) if isinstance(effect, dict) else effect)
                  + generator.normal(0, residual_sd) for item in items}
        other = generator.integers(1, max(len(page["choices"]), 2))
        rows.append({"rater": page["rater"], "text": page["text"], "position": page["position"],
                     **{item: _simulated_score(page, value, thresholds, other) for item, value in latent.items()}})
    return pd.DataFrame(rows)


def _simulated_score(page, latent, thresholds, other):
    if page["is_check"]:
        return int(page["expected"])
    if page["task"] == "simulation":
        wrong = int(other if other < page["expected"] else other + 1)
        return int(page["expected"]) if latent > thresholds[2] else wrong
    return 1 + sum(latent > threshold for threshold in thresholds)


def simulate_raters(plan: pd.DataFrame | None, folder: Path | str, inattentive: float = 0.0, unfinished: float = 0.0,
                    seconds: float = PAGE_SECONDS, seed: int = 0, **parameters: object) -> list[Path]:
    """Write answer files of simulated raters as the form saves them, marked as simulated; return their paths.

    `inattentive` and `unfinished` are shares of raters: the first choose at random and fail a check, the second stop
    half way. `seconds`: the median time of a page. `parameters` go to simulate_scores. Earlier files of simulated
    raters are removed from the folder. Raises StudyError without a plan.
    """
    if plan is None:
        raise StudyError("neither ratings nor a plan is given: raters are simulated from the plan of "
                         "22_make_human_study")
    remove_simulated(folder)
    generator = np.random.default_rng([seed, 4])
    scores = simulate_scores(plan, seed=seed, **parameters)
    items = [name for name in scores.columns if name not in ("rater", "text", "position")]
    raters = sorted(plan["rater"].unique())
    careless, _, stopping = np.split(generator.permutation(raters), [round(inattentive * len(raters)),
                                                                    len(raters) - round(unfinished * len(raters))])
    n_choices = {(page["rater"], page["text"]): len(page["choices"]) or len(SCALE) for page in plan.to_dict("records")}
    paths = []
    for rater, pages in scores.sort_values("position").groupby("rater"):
        answers = [{"position": int(page["position"]), "text": page["text"],
                    "scores": {item: int(page[item]) for item in items},
                    "milliseconds": int(1000 * seconds * generator.lognormal(0, 0.5))}
                   for page in pages.to_dict("records")]
        if rater in careless:
            for answer in answers:
                options = n_choices[rater, answer["text"]] if "simulation" in items else len(SCALE)
                answer["scores"] = {item: int(generator.integers(1, options + 1)) for item in items}
            _fail_a_check(answers, plan[(plan["rater"] == rater) & plan["is_check"]])
        if rater in stopping:
            for answer in answers[len(answers) // 2:]:
                answer.update(scores={}, milliseconds=0)
        finished = rater not in stopping
        content = {"format": FORMAT, "study": plan["study"].iloc[0], "version": plan["version"].iloc[0],
                   "task": plan["task"].iloc[0], "rater": rater, "started": "simulated", "saved": "simulated",
                   "simulated": True, "complete": finished, "signed": finished, "consent": True, "about": {},
                   "answers": answers}
        text = json.dumps({**content, "checksum": checksum(canonical(content))}, indent=1) + "\n"
        paths.append(write_text(Path(folder) / f"{content['study']}_{rater}_simulated.json", text))
    return paths


def remove_simulated(folder: Path | str, ending: str = "simulated") -> None:
    """Remove the answer files of simulated raters from a folder or, with `ending` "model", those of a model."""
    for path in sorted(Path(folder).glob(f"*_{ending}.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(content, dict) and content.get("format") == FORMAT and content.get("simulated") is True:
            path.unlink()


def _fail_a_check(answers, checks):
    """Change the answers to all checks to wrong ones: random choices could pass every check by luck."""
    for answer in answers:
        expected = checks.loc[checks["text"] == answer["text"], "expected"]
        if len(expected):
            answer["scores"] = {item: 1 + int(expected.iloc[0]) % len(SCALE) for item in answer["scores"]}
