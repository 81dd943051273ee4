"""The machine of a benchmark: its description, its clock, and figures for a file."""

import platform
import time
from pathlib import Path
from types import ModuleType

from kdutils.runs import machine, versions


def describe_machine() -> dict:
    """Return runs.machine() with the name of the processor, as far as the system gives it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    return {**machine(), "processor": name}


def show_machine(about: dict) -> None:
    """Print a description of describe_machine in one line, with the versions of torch and transformers."""
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
