"""From the name or file of an experiment to the checked experiment with its jobs."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from kdutils.errors import StudyError, refuse_secrets, short
from kdutils.experiments.yaml_file import FOLDER, read_settings
from kdutils.hub import exists
from kdutils.packages import EXTRAS
from kdutils.runs import PROJECT

if TYPE_CHECKING:
    from kdutils.experiments.grid import Experiment


def experiment_names() -> list[str]:
    """Return the names of the experiments that ship with the project."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def experiment_file(name: str | Path) -> Path:
    """Return the YAML file of an experiment, by its name or path; StudyError if there is none."""
    path = Path(name) if str(name).endswith((".yaml", ".yml")) else FOLDER / f"{name}.yaml"
    called_from = os.environ.get("KDUTILS_CALLED_FROM", "")  # run_all.sh itself works in the folder of the project
    if called_from and exists(Path(called_from) / path):
        path = Path(called_from) / path
    if not exists(path) or not path.is_file():
        raise StudyError(f"{short(str(path), 200)}: no such experiment; there are: "
                         f"{short(', '.join(experiment_names()), 400)}")
    return path


def extras_of(name: str | Path) -> list[str]:
    """Return the known `extras` of an experiment, without checking the rest of its file; StudyError if unreadable."""
    settings = read_settings(experiment_file(name))
    extras = settings.get("extras") if isinstance(settings, dict) else None
    return [extra for extra in EXTRAS if isinstance(extras, list) and extra in extras]


def load_experiment(name: str | Path, tiny: bool = False, leave_out_too_long: bool = False) -> "Experiment":
    """Return the Experiment of a name or of a path to a YAML file; StudyError naming file and key.

    `tiny`: with tiny models and few questions (tiny.py), under a name of its own. `leave_out_too_long`: the
    parameter of this name is set for every prompting that asks a teacher.
    """
    from kdutils.experiments.grid import Experiment, make_jobs, prompting_of
    from kdutils.experiments.schema import NAME, check_settings

    path = experiment_file(name)
    settings = read_settings(path)
    refuse_secrets(settings, f"{path}: ")
    check_settings(settings, path)
    if not NAME.fullmatch(path.stem):
        raise StudyError(f"{path}: the file name names a folder: use only letters, digits, '.', '_' and '-'")
    name = path.stem
    if tiny:
        from kdutils.experiments.tiny import make_tiny

        name, settings = f"{name}-tiny", make_tiny(settings)
    if leave_out_too_long:
        settings["promptings"] = {
            key: {**entry, "leave_out_too_long": True} if prompting_of(settings, key).function else entry
            for key, entry in settings["promptings"].items()}
    full = path.resolve()
    file = str(full.relative_to(PROJECT) if full.is_relative_to(PROJECT) else full)
    return Experiment(name, settings, list(make_jobs(name, settings)), file, tiny)
