"""The training notebooks are thin: each shows what is special about its method, the package does the rest."""

import json

import pytest

from kdutils.runs import PROJECT
from kdutils.student.methods import METHODS

MOST_SHARED, MOST_LINES, MOST_IN_A_CELL = 25, 32, 14


def lines_of(notebook):
    """Return the lines of code of each cell but the parameters cell, without empty lines."""
    cells = json.loads((PROJECT / "notebooks" / f"{notebook}.ipynb").read_text(encoding="utf-8"))["cells"]
    return [[line.strip() for line in "".join(cell["source"]).splitlines() if line.strip()] for cell in cells
            if cell["cell_type"] == "code" and "parameters" not in cell["metadata"].get("tags", [])]


def test_the_training_notebooks_share_few_lines_of_code():
    lines = [{line for cell in lines_of(method.notebook) for line in cell} for method in METHODS.values()]
    shared = set.intersection(*lines)
    assert 5 < len(shared) <= MOST_SHARED, sorted(shared)


@pytest.mark.parametrize("method", METHODS)
def test_a_training_notebook_is_short_and_names_its_method(method):
    cells = lines_of(METHODS[method].notebook)
    assert sum(map(len, cells)) <= MOST_LINES and all(len(cell) <= MOST_IN_A_CELL for cell in cells)
    assert any(f'recipe_from(run.parameters, "{method}", {{' in line for cell in cells for line in cell)
