"""Experiment files at random: each loads and what it plans can run, or it is refused in one short line.

Seeded. KDUTILS_FUZZ_SECONDS lengthens the search (15 seconds where it is not set). What loads is held against the
checks of the code that would run, which know nothing of the settings models.
"""

import copy
import json
import os
import random
import re
import time

import numpy as np
import pytest
import yaml

from kdutils.errors import StudyError
from kdutils.experiments.grid import FOLDER, make_jobs
from kdutils.experiments.loading import experiment_names, load_experiment
from kdutils.experiments.schema import check_settings
from kdutils.experiments.steps import SETTINGS

SECONDS = float(os.environ.get("KDUTILS_FUZZ_SECONDS", "15"))
SLOWEST = 30  # seconds of one input, on a busy machine
FOLDER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
VALUES = [None, True, False, 0, -1, 1, 2, 3, -7, 2**31, 2**32, 2**63, 10**30, 0.0, 0.5, -0.5, 1.5, 5e-5, 1e300,
          float("nan"), float("inf"), float("-inf"), "", " ", "zzz", "no", "10", "../../x", "/etc", "/nowhere",
          "~nosuch/x", "$HOME", "a\x00b", "a\x1b[31mb", "a\nb", "\u202eabc", "é" * 300, "x" * 30_000, "\ud83d", "😀",
          [], ["zzz"], [3],
          [None], [[]], [["a"]], [{}], [True], [1, 1], ["train"], ["train", "train"], {}, {"zzz": 1}, {"train": True},
          {"train": "x"}, {"train": 0}, {"a": {"b": {}}}, {"../x": 1}, {"a\x00": 1}, {"": 1}]
NAMES = ["zzz", "no", "", "..", "a.", "a b", "x" * 65, "x" * 300, "a\x00", "ü", "A", "-", "<<", "label_only", "model",
         "epochs", "config", "lora", "reader", "seed", "splits", "base_url", "finetune", "as", "output"]
PIECES = ["[", "]", "{", "}", ":", ": ", "- ", "? ", "&a ", "*a", "<<: *a", "!!binary ", "!!int ", "!x ", "'", '"',
          "|\n", "\t", "\r", "\x00", "\x07", "\ufeff", "\u2028", "\n---\n", "\n...\n", "%YAML 1.1\n", "#", "\\ud83d",
          "\\U00ffffff", "1e999", "0x", "1_0", "~", "2026-11-25", "[" * 300, "- " * 300, "9" * 5000, "a: &b [*b]",
          "\n  ", "\n"]
FILES = {name: (FOLDER / f"{name}.yaml").read_text()
         for name in experiment_names()}


def places(value, path=()):
    """Return the path of every value inside `value`."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else []
    return [path, *(found for key, one in inside for found in places(one, (*path, key)))]


def with_parameter(settings, draw):
    """Set a parameter of a notebook, where an experiment may set it, to a value of its type or to any value."""
    place, notebook = draw.choice([
        (("teachers",), "02_explain_few_shot"), (("promptings",), "03_explain_critique_revision"),
        (("promptings",), "05_explain_tokens"), (("promptings",), "06_explain_contrastive"),
        (("students",), "11_train_standard"), (("methods",), "14_train_combined"),
        (("datasets",), "01_look_at_the_data"), ("training", "12_train_multitask"),
        ("evaluation", "21_evaluate_student"), ("report", "07_judge_explanations"),
        ("human_study", "22_make_human_study"), ("human_ratings", "23_analyse_human_study"),
        ("comparison", "31_compare_methods")])
    entry = settings.setdefault(place, {}) if isinstance(place, str) else settings.get(place[0])
    if isinstance(place, tuple) and isinstance(entry, dict) and entry:
        entry = entry[draw.choice(list(entry))]
    name, usual = draw.choice(list(SETTINGS[notebook].defaults().items()))
    alike = [value for value in VALUES if type(value) is type(usual)] or [True, False]
    if isinstance(entry, dict):
        entry[name] = copy.deepcopy(draw.choice([usual, draw.choice(alike), draw.choice(alike), draw.choice(VALUES)]))
    return settings


def mutated(settings, draw):
    """Return `settings` with one value or key changed, taken out, or put somewhere else."""
    settings = copy.deepcopy(settings)
    *above, last = draw.choice(places(settings)[1:])
    inner = settings
    for key in above:
        inner = inner[key]
    kind = draw.randrange(9)
    if kind > 5:
        return with_parameter(settings, draw)
    if kind == 0 and isinstance(inner, dict):
        inner[draw.choice(NAMES)] = inner.pop(last)
    elif kind == 1 and isinstance(inner, dict):
        inner[draw.choice(NAMES)] = copy.deepcopy(draw.choice(VALUES))
    elif kind == 2:
        del inner[last]
    elif kind == 3 and isinstance(inner[last], (int, float)):
        inner[last] = inner[last] * draw.choice([-1, 0, 0.001, 10, 1e6, 1e12])
    else:
        inner[last] = copy.deepcopy(draw.choice(VALUES))
    return settings


def scrambled(data, draw):
    """Return the bytes of a file with a few bytes or lines changed, or a piece of YAML put in."""
    for _ in range(draw.randint(1, 4)):
        lines, kind = data.split(b"\n"), draw.randrange(7)
        place, line = draw.randrange(len(data) + 1), draw.randrange(len(lines))
        if kind == 0:
            data = data[:place] + bytes([draw.randrange(256)]) + data[place + 1:]
        elif kind == 1:
            data = data[:place] + draw.choice(PIECES).encode() + data[place:]
        elif kind == 2:
            data = data[:place] + data[place + draw.randint(1, 40):]
        elif kind == 3:
            data = b"\n".join(lines[:line] + [draw.choice(lines)] + lines[line:])
        elif kind == 4:
            data = b"\n".join([*lines[:line], b" " * draw.randrange(9) + lines[line].lstrip(), *lines[line + 1:]])
        elif kind == 5:
            data = re.sub(rb"(: )([^\s,}]+)", lambda found: found[1] + draw.choice(PIECES).encode(), data, count=1) \
                if draw.randrange(2) else data.replace(b": ", b":", 1)
        else:
            data = data.replace(draw.choice([b"0", b"1", b"true", b"train", b"{}", b"few_shot"]),
                                draw.choice(PIECES).encode(), 1)
    return data


def assert_one_short_line(error, path):
    text = str(error).replace(str(path), "")
    assert len(text) < 900 and text.isprintable(), text[:900]


def assert_can_run(jobs):
    """Hold jobs against what the notebooks and the code behind them can take."""
    from kdutils.data.mini_world import build_questions
    from kdutils.data.readers import limit_questions
    from kdutils.human_study.design import Study
    from kdutils.human_study.plan import questions_needed
    from kdutils.student.methods import METHODS, method_of, task_weights
    from kdutils.teacher.completion import Decoding
    from kdutils.teacher.hf import _check
    from kdutils.teacher.word_scores import SETTINGS as WORD_SETTINGS
    from kdutils.teacher.word_scores import _checked

    json.dumps([job.parameters for job in jobs], allow_nan=False).encode()
    assert len({job.folder for job in jobs}) == len(jobs)
    for job in {json.dumps([job.notebook, job.parameters], sort_keys=True): job for job in jobs}.values():
        assert all(FOLDER_NAME.fullmatch(part) for part in job.folder.split("/")), job.folder
        usual = SETTINGS[job.notebook].defaults()
        for name, value in job.parameters.items():
            wanted = (int, float) if isinstance(usual[name], float) else type(usual[name])
            assert isinstance(value, wanted) and isinstance(value, bool) == isinstance(usual[name], bool), (name, value)
        given = {**usual, **job.parameters}
        for seed in given.get("seeds", [given.get("seed", 0)]):
            np.random.RandomState(seed + 100)
        if job.kind == "data":
            limit_questions(build_questions(4, 2, 2), given["limits"])
        if job.notebook == "05_explain_tokens":
            _checked({name: given[name] for name in WORD_SETTINGS})
            assert all(_checked({"attribution": name}) for name in given["compare"]) and given["compare_questions"] > 0
        elif job.kind == "explanations":
            _check(Decoding(given["max_new_tokens"], tuple(given["stop"]), given["temperature"], given["top_p"]))
        if job.kind in ("students", "teachers"):
            method = next(name for name, one in METHODS.items() if one.notebook == job.notebook)
            assert method_of(method) and min(task_weights(method, given).values()) >= 0
            assert given["epochs"] > 0 and given["learning_rate"] > 0 and given["questions_per_step"] > 0
            assert given["token_budget"] > 0 and min(given["max_source_tokens"], given["max_target_tokens"]) >= 8
        if job.folder == "human_study":
            Study(given["study"], given["task"], ask=tuple(given["ask"]))
            methods = len({part.split("/seeds-")[0] for part in given["evaluations"]})
            questions_needed(methods, given["n_raters"], given["texts_per_method"] * methods, given["raters_per_text"])
            assert abs(sum(given["expected"]) - 1) < 1e-6


@pytest.fixture
def deadline():
    return time.monotonic() + SECONDS / 2


def test_changed_values_run_or_are_refused_in_one_line(deadline, tmp_path):
    draw, path, counts = random.Random("values"), tmp_path / "x.yaml", {"loads": 0, "refused": 0}
    settings = {name: yaml.safe_load(text) for name, text in FILES.items()}
    while time.monotonic() < deadline or sum(counts.values()) < 200:
        changed, begun = settings[draw.choice([*FILES, "mini", "mini", "mini"])], time.monotonic()
        for _ in range(draw.choice([1, 1, 1, 2, 3])):
            changed = mutated(changed, draw)
        try:
            check_settings(changed, path)
            jobs = list(make_jobs("x", changed))
        except StudyError as error:
            counts["refused"] += 1
            assert_one_short_line(error, path)
        else:
            counts["loads"] += 1
            assert_can_run(jobs)
        assert time.monotonic() - begun < SLOWEST, changed
    print(counts)
    assert min(counts.values()) > 0


def test_scrambled_files_load_or_are_refused_in_one_line(deadline, tmp_path):
    draw, path, counts = random.Random("text"), tmp_path / "x.yaml", {"loads": 0, "refused": 0}
    while time.monotonic() < deadline or sum(counts.values()) < 50:
        data, begun = scrambled(draw.choice(list(FILES.values())).encode(), draw), time.monotonic()
        path.write_bytes(data)
        try:
            experiment = load_experiment(path)
        except StudyError as error:
            counts["refused"] += 1
            assert str(error).startswith(str(path))
            assert_one_short_line(error, path)
        else:
            counts["loads"] += 1
            assert_can_run(experiment.jobs)
        assert time.monotonic() - begun < SLOWEST, data
    print(counts)
    assert min(counts.values()) > 0
