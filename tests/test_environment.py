"""pyproject.toml, constraints.txt and environment.yml hold together, and with what is installed."""

import ast
import json
import re
import sys
import tomllib
from importlib import metadata

import yaml
from conftest import PROJECT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PINS = dict(re.findall(r"^([A-Za-z0-9._-]+)==(\S+)$", (PROJECT / "constraints.txt").read_text(), re.MULTILINE))
PINS = {canonicalize_name(name): version for name, version in PINS.items()}
PYPROJECT = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
NOT_IMPORTED = {  # declared dependencies that no code here imports: what uses them
    "bitsandbytes": "transformers, for 4-bit teachers", "tensorboard": "the Trainer, for its logs",
    "jupyterlab": "people, to open the notebooks",
    "snakemake": "the command line, in a process of its own", "onnx": "transformers, to export students",
    "scikit-learn": "captum, for LIME",
    "onnxscript": "transformers, to export students"}


def wanted():
    extras = PYPROJECT["optional-dependencies"]
    return [Requirement(text) for text in [*PYPROJECT["dependencies"], *extras["test"], *extras["minilm"]]]


def test_everything_that_is_wanted_is_pinned_once_and_installed_so():
    lines = [line for line in (PROJECT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert len(lines) == len(PINS), "a line that is no pin, or a package twice"
    for requirement in wanted():
        assert canonicalize_name(requirement.name) in PINS, requirement
        assert metadata.version(requirement.name).split("+")[0] == PINS[canonicalize_name(requirement.name)]
    assert PINS["torch"] == "2.13.0"


def test_extras_that_are_not_always_installed_are_pinned_too():
    extras = PYPROJECT["optional-dependencies"]
    assert canonicalize_name(Requirement(extras["slurm"][0]).name) == "snakemake-executor-plugin-slurm"
    for requirement in (Requirement(text) for texts in extras.values() for text in texts):
        assert canonicalize_name(requirement.name) in PINS, requirement
    assert "snakemake-executor-plugin-slurm-jobstep" in PINS  # without it none of its jobs begins


def code_cells(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


def imported_packages(*sources):
    """Return the distributions whose modules some Python sources import, standard library and package left out."""
    providers, names = metadata.packages_distributions(), set()
    for node in (node for source in sources for node in ast.walk(ast.parse(source))):
        if isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module.partition(".")[0])
        elif isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
    return {canonicalize_name(providers.get(name, [name])[0])  # a package that is not installed has its module's name
            for name in names - set(sys.stdlib_module_names) - {"kdutils"}}


def test_what_is_imported_is_declared_and_what_is_declared_is_used():
    modules = [path.read_text(encoding="utf-8") for path in (PROJECT / "kdutils").rglob("*.py")]
    notebooks = [code_cells(path) for path in (PROJECT / "notebooks").glob("*.ipynb")]
    assert len(modules) > 30 and len(notebooks) > 15
    imported = imported_packages(*modules, *notebooks)
    declared, bench = ({canonicalize_name(Requirement(text).name) for text in texts} for texts in (
        PYPROJECT["dependencies"], PYPROJECT["optional-dependencies"]["bench"]))
    assert imported - declared == bench, "imported, but not declared in pyproject.toml"
    assert declared - imported == set(NOT_IMPORTED), "declared in pyproject.toml, but not imported"


def test_environment_takes_its_pins_from_constraints():
    environment = yaml.safe_load((PROJECT / "environment.yml").read_text())
    conda = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    pip = next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    assert pip == ["-c constraints.txt", "-e .[test,minilm]"]
    python = next(entry for entry in conda if entry.startswith("python="))
    assert f">={python.removeprefix('python=')}," in PYPROJECT["requires-python"]
    assert {entry.split("=")[0] for entry in conda} == {"python", "pip"}  # no other place for a version


def test_the_packages_the_study_was_asked_for_are_there():
    names = {canonicalize_name(requirement.name) for requirement in wanted()}
    assert {"jupyterlab", "papermill", "transformers", "torch", "datasets", "bitsandbytes", "matplotlib",
            "nbval"} <= names


def test_importing_the_package_loads_nothing_heavy():
    import subprocess
    import sys

    code = ("import sys, kdutils, kdutils.runs, kdutils.experiments, kdutils.data.readers, kdutils.teacher.backends, "
            "kdutils.student.training, kdutils.report.notebook_pages; "
            "print([m for m in ('torch', 'transformers', 'datasets') if m in sys.modules])")
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PROJECT)
    assert out.stdout.strip() == "[]"
