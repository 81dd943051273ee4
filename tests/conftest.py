"""What several tests need: no hub, a tiny student, a copy of the project to run experiments in."""

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

os.environ.update({"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"})
os.environ.setdefault("OMP_NUM_THREADS", "1")

PROJECT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def tiny():
    """A T5 with random weights in float64 and without dropout, and its tokenizer."""
    from kdutils.student.models import load_student

    model, tokenizer = load_student("kdutils/mini/student", random_weights=True, seed=1,
                                    config={"d_model": 32, "d_kv": 8, "d_ff": 48})
    return model.double(), tokenizer


@pytest.fixture(scope="session")
def questions():
    """A few questions of the embedded world and the true rationale of each."""
    from kdutils.data.mini_world import build_questions, true_rationale

    table = build_questions(24, 8, 8)
    rationales = {item["id"]: true_rationale(item["question"], item["choices"], item["answer"])
                  for item in table.to_dict("records")}
    return table, rationales


@pytest.fixture(scope="session")
def real_data():
    """The folder with the real data sets; a test that needs it is skipped without it."""
    folder = Path(os.environ.get("KDUTILS_DATA") or PROJECT.parent / "shared" / "data")
    if not (folder / "cqa" / "train.parquet").is_file():
        pytest.skip("no real data: set KDUTILS_DATA to the folder that holds cqa/train.parquet")
    return folder


@pytest.fixture(scope="session")
def real_questions(real_data):
    """A function that reads a real data set, once in a session; its tables are not to be changed."""
    from kdutils.data.readers import read_questions

    return cache(lambda dataset: read_questions(dataset, str(real_data)))


@pytest.fixture
def own_outputs(tmp_path, monkeypatch):
    """The path of an outputs folder that is not there yet, in place of the project's own."""
    monkeypatch.setattr("kdutils.experiments.grid.OUTPUTS", tmp_path / "outputs")
    return tmp_path / "outputs"


@pytest.fixture(scope="session")
def copy_of_project(tmp_path_factory):
    """A function that copies the project into a new folder and returns a function to run its command line."""
    def copy(name):
        folder = tmp_path_factory.mktemp(name)
        for part in ("kdutils", "notebooks"):
            shutil.copytree(PROJECT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__", ".ipynb*"))
        (folder / "outputs").mkdir()
        return folder, lambda *words, **more: start(folder, *words, **more)

    return copy


def start(folder, *words, wait=True, cwd=None, **environment):
    """Run ``python -m kdutils <words>`` of the project in `folder`; return the finished or the running process.

    `cwd`: where it is run, the folder itself unless given.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "kdutils", *words], cwd=cwd or folder, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(folder), "KDUTILS_DATA": "", "PYTHONDONTWRITEBYTECODE": "",
             **environment})
    if not wait:
        return process
    out, err = process.communicate(timeout=600)
    return subprocess.CompletedProcess(words, process.returncode, out, err)
