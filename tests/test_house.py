"""The rules of the package: which room may import which, and that every public name is annotated and explained.

A *room* is a module or folder directly below ``kdutils``. Imports inside functions count; of those that only a type
checker follows (``if TYPE_CHECKING``) only the direction is checked. ``python tests/test_house.py`` prints the modules
that are not finished: the value of UNFINISHED.
"""

import ast
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "kdutils"
GROUND = {  # every room may import these
    "errors": set(), "runs": {"errors"}, "packages": {"runs"}, "source_code": {"errors", "runs"},
    "settings": {"errors", "runs"}, "fake_texts": set()}
ROOMS = {  # room -> the rooms that it may import besides GROUND; benchmarks stands in none of the lists
    "stats": set(), "gguf": set(), "hub": {"gguf"}, "data": {"hub"},
    "report": {"stats"},
    "teacher": {"data", "hub", "stats"}, "student": {"data", "hub"}, "evaluation": {"data", "hub", "stats"},
    "comparison": {"evaluation", "stats"}, "human_study": {"data", "evaluation", "stats"},
    "mini": {"data", "teacher"},
    "deployment": {"data", "hub", "stats", "teacher", "student", "evaluation"},
    "experiments": {"data", "gguf", "hub", "teacher", "student", "evaluation", "human_study", "comparison", "mini",
                    "deployment"},
    "results": {"comparison", "experiments", "report"},
    "__main__": {"data", "deployment", "experiments", "report", "results", "teacher"},
    "benchmarks": {"data", "evaluation", "experiments", "hub", "human_study", "mini", "report", "stats", "student",
                   "teacher"},
}
EXCEPTIONS = {  # (module, imported module) -> why this import is allowed all the same
    ("evaluation.settings", "student.settings"): "a simulator is trained as a student is",
    ("comparison.runs_table", "student.methods"): "the registry says which methods learn to explain",
    ("comparison.runs_table", "student.settings"): "a control has the settings of its method",
    ("comparison.runs_table", "data.tables"): "it reads the tables of predictions and explanations",
    ("human_study.settings", "teacher.settings"): "a model as rater is reached as a teacher is",
    ("evaluation.settings", "teacher.choices"): "students and teachers are attributed in the same ways",
}
UNFINISHED = """
__main__
benchmarks.training
human_study.settings
student.loss
student.methods
student.settings
teacher.prefix_decoding
teacher.settings
"""


def name_of(path):
    """Return the name of a module below kdutils: ``data.tables``; "" for the package itself."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def room_of(module):
    return module.partition(".")[0]


@cache
def tree_of(module):
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


def type_only(tree):
    """Return the nodes of a syntax tree that only a type checker runs."""
    blocks = [node for node in ast.walk(tree) if isinstance(node, ast.If)]
    return {part for block in blocks if getattr(block.test, "id", "") == "TYPE_CHECKING" for part in ast.walk(block)}


@cache
def imports_of(module, with_types=False):
    """Return {(imported module, name imported from it or "")} of all imports."""
    found, skipped = set(), set() if with_types else type_only(tree_of(module))
    for node in set(ast.walk(tree_of(module))) - skipped:
        if isinstance(node, ast.Import):
            found |= {(alias.name, "") for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module}: line {node.lineno}: write the whole name of the module"
            found |= {(f"{node.module}.{alias.name}", "") if f"{node.module}.{alias.name}".removeprefix("kdutils.")
                      in MODULES else (node.module, alias.name) for alias in node.names}
    return {(target.removeprefix("kdutils").removeprefix("."), name) for target, name in found
            if target.partition(".")[0] == "kdutils"}


def public(nodes):
    return [node for node in nodes if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
            and not node.name.startswith("_")]


def called_by_a_library(part, owner):
    """Say whether a method replaces one of a library's class, which says what it does: a callback, a layer, a cache."""
    return owner.bases and (part.name.startswith("on_") or part.name in ("forward", "backward", "update"))


def unfinished_names(module):
    """Return what a module's public functions, methods and classes lack, one line each."""
    faults = []
    for node in public(tree_of(module).body):
        methods = public(node.body) if isinstance(node, ast.ClassDef) else []
        for part, name in [(node, node.name), *((method, f"{node.name}.{method.name}") for method in methods)]:
            if ast.get_docstring(part) is None and not (part in methods and called_by_a_library(part, node)):
                faults.append(f"{name}: no docstring")
            if isinstance(part, ast.ClassDef):
                continue
            static = any(getattr(decorator, "id", "") == "staticmethod" for decorator in part.decorator_list)
            arguments = [*part.args.posonlyargs, *part.args.args][part in methods and not static:]
            arguments += [*part.args.kwonlyargs, *filter(None, (part.args.vararg, part.args.kwarg))]
            faults += [f"{name}: {argument.arg} has no type" for argument in arguments
                       if not argument.annotation and argument.arg.strip("_")]
            faults += [] if part.returns else [f"{name}: the result has no type"]
    return faults


def test_no_import_runs_against_the_arrows():
    wrong, used = [], set()
    for module in filter(None, MODULES):
        room = room_of(module)
        assert room in ROOMS or room in GROUND, f"{room}: a new room; say in ROOMS what it may import"
        allowed = GROUND[room] if room in GROUND else ROOMS[room] | set(GROUND)
        for target, _ in imports_of(module, with_types=True):
            if target and room_of(target) not in allowed | {room}:
                used.add((module, target))
                wrong += [] if (module, target) in EXCEPTIONS else [f"{module} imports {target}"]
    assert not wrong, wrong
    assert used == set(EXCEPTIONS), f"not needed any more: {set(EXCEPTIONS) - used}"


def test_no_module_imports_itself_by_a_detour():
    TopologicalSorter({module: {target for target, _ in imports_of(module)} for module in MODULES}).prepare()


def test_the_benchmarks_are_imported_by_nobody():
    assert not [module for module in MODULES if room_of(module) != "benchmarks"
                and any(room_of(target) == "benchmarks" for target, _ in imports_of(module))]


@pytest.mark.parametrize("module", MODULES)
def test_no_private_name_is_taken_from_another_module(module):
    names = {name.asname or name.name for node in ast.walk(tree_of(module)) if isinstance(node, ast.ImportFrom)
             for name in node.names if f"{node.module}.{name.name}".removeprefix("kdutils.") in MODULES}
    taken = [name for _, name in imports_of(module) if name.startswith("_") and not name.startswith("__")]
    taken += [f"{node.value.id}.{node.attr}" for node in ast.walk(tree_of(module)) if isinstance(node, ast.Attribute)
              and isinstance(node.value, ast.Name) and node.value.id in names
              and node.attr.startswith("_") and not node.attr.startswith("__")]
    assert not taken


@pytest.mark.parametrize("module", [name for name in MODULES if name not in UNFINISHED.split()])
def test_every_public_name_has_types_and_a_docstring(module):
    assert ast.get_docstring(tree_of(module)), "the module has no docstring"
    assert not unfinished_names(module)


if __name__ == "__main__":
    print("\n".join(name for name in MODULES if unfinished_names(name)))
