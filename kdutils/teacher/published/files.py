"""Which local files hold the published explanations of a teacher on a data set."""

from collections.abc import Iterable
from pathlib import Path

from kdutils.runs import project_path
from kdutils.teacher.published.palm import PALM_SPLITS


def published_files(dataset: str, teacher: str, folder: str, own: bool) -> Iterable[Path]:
    """Return the published files; `own`: `folder` holds them itself, else a folder inside it does."""
    if teacher == "palm":
        below = project_path(folder) / ("" if own else "palm540b_dss")
        return below.glob(f"{PALM_SPLITS[dataset][0]}_*.parquet") if dataset in PALM_SPLITS else []
    return (project_path(folder) / ("" if own else "teacher_llama")).rglob(f"*{dataset}-{teacher}-*.parquet")
