"""Settings of notebook 01: which questions to read."""

from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field

from kdutils.data.questions import SPLITS
from kdutils.errors import quoted, short
from kdutils.settings import Folder, Inside, Seed, Settings, of_grid


def _limits(value: dict) -> dict:
    for split, limit in value.items():
        if split not in SPLITS:
            raise ValueError(f"unknown split {quoted(split)}; known are {', '.join(SPLITS)}")
        if isinstance(limit, bool) or not isinstance(limit, int):
            raise Inside(split, f"{quoted(limit)} is not a whole number of questions, -1 for all")
        if limit < 1 and limit != -1:
            raise Inside(split, f"{short(limit)} is less than 1 (or -1 for all)")
    return value


def _files(value: dict) -> dict:
    for split, file in value.items():
        if split not in (*SPLITS, "all"):
            raise ValueError(f"unknown split {quoted(split)}; known are {', '.join(SPLITS)}, all")
        if not isinstance(file, str) or not file.strip():
            raise Inside(split, f"{quoted(file)} is not the path of one file; join several files into one")
    return value


class LookAtTheData(Settings):
    """Which data set to read, from where, and how many of its questions."""

    notebook: ClassVar[str] = "01_look_at_the_data"
    dataset: str = of_grid("mini", "name of the data set")
    reader: str = Field(
        "", description="a data set of datasets.READERS, or table (your own file); empty means the data set")
    folder: Folder = Field("", description="folder of the files; empty means KDUTILS_DATA, or else the Hub")
    files: Annotated[dict, AfterValidator(_files)] = Field(
        {}, description="split to file below the folder; empty means the names that the reader knows")
    limits: Annotated[dict, AfterValidator(_limits)] = Field(
        {"train": 96, "dev": 32, "test": 32}, description="questions per split; a missing split has no limit")
    unlabelled: bool = Field(False, description="questions of train and dev may be without an answer")
    revision: str = Field("", description="commit, branch or tag on the Hub; empty means the pinned one, if any")
    seed: Seed = Field(0, description="draws the dev split where there is none, and the questions under a limit")
    output: str = of_grid("outputs/explore/01_look_at_the_data", "folder of this run")
