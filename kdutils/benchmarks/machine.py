"""The machine of a benchmark: its description, its clock, and figures for a file."""

import time
from datetime import UTC, datetime
from types import ModuleType

from kdutils.runs import git_revision, versions


def conditions(about: dict) -> dict:
    """Return what results.json of a benchmark says beside its numbers: machine (`about`), versions, commit and date."""
    return {"machine": about, "versions": versions(), "git": git_revision(), "date": f"{datetime.now(UTC):%Y-%m-%d}"}


def show_machine(about: dict) -> None:
    """Print a description of runs.machine in one line, with the versions of torch and transformers."""
    packages = versions()
    print(f"{about['system']}, {about['processor']}, {about['gpu'] or 'no GPU'}, {about['cores']} cores, "
          f"{about['threads']} threads; torch {packages['torch']}, transformers {packages['transformers']}")


def now() -> float:
    """Return the time in seconds, after a GPU has finished its work."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def pyplot() -> ModuleType:
    """Return matplotlib.pyplot with the style of the study, for figures that go to a file."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from kdutils.report.figures import STYLE

    plt.style.use(STYLE)
    return plt
