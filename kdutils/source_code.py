"""Which code of this package decides a result, and a digest of it.

A step depends on the modules that it imports, on those that these import, and on the files beside them that they name
(a template, a world of facts). Imports inside functions count. Comments, docstrings and layout do not: a module is
digested as its syntax tree. Prompts are left out, because each data set has its own (see inputs.files_of).
"""

import ast
import hashlib
from functools import cache
from pathlib import Path

from kdutils.runs import PROJECT, file_stamp, sha256

ELSEWHERE = {"prompts", "example", "teacher", "student"}  # folders beside a module that are inputs of their own


def code_digests(source: str | Path) -> dict[str, str]:
    """Return {file of the package, relative to the project: digest} of all code that `source` imports.

    `source`: Python code, or the path of a module, which is then part of the result itself.
    """
    waiting = [source] if isinstance(source, Path) else sorted(_imported(ast.parse(source)))
    found = {}
    while waiting:
        path = waiting.pop()
        if path not in found:
            found[path], imported, named = _module(path, *file_stamp(path))
            found |= {file: sha256(file) for file in named}
            waiting += imported
    return {path.relative_to(PROJECT).as_posix(): found[path] for path in sorted(found)}


@cache
def _module(path, size, changed):
    """Return (digest, modules that it imports, files beside it that it names) of a module."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    named = [file for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
             for file in _beside(path, node.value)]
    imported = sorted(_imported(tree))
    return hashlib.sha256(ast.dump(_without_docstrings(tree)).encode()).hexdigest(), imported, named


def _imported(tree):
    """Return the paths of the package's modules that a syntax tree imports, at any depth."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {path for name in names if name.partition(".")[0] == "kdutils"
            for path in [PROJECT.joinpath(*name.split(".")).with_suffix(".py")] if path.is_file()}


def _beside(path, name):
    """Return the files that a constant names in the folder of its module, other modules and inputs left out."""
    if not name or "/" in name or "\n" in name or name.startswith(".") or len(name) > 100 or name in ELSEWHERE:
        return []
    there = path.with_name(name)
    files = [there] if there.is_file() else sorted(there.rglob("*")) if there.is_dir() else []
    return [file for file in files if file.is_file() and "__pycache__" not in file.parts and file.suffix != ".py"]


def _without_docstrings(tree):
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and \
                ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
    return tree
