"""From the name or file of an experiment to the checked experiment with its jobs."""

from pathlib import Path

from kdutils.errors import StudyError, refuse_secrets, short
from kdutils.experiments.grid import FOLDER, Experiment, make_jobs
from kdutils.experiments.schema import NAME, check_settings
from kdutils.experiments.yaml_file import read_settings
from kdutils.hub import exists
from kdutils.runs import PROJECT


def experiment_names() -> list[str]:
    """Return the names of the experiments that ship with the project."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_experiment(name: str | Path, tiny: bool = False) -> Experiment:
    """Return the Experiment of a name or of a path to a YAML file; StudyError naming file and key.

    `tiny`: with tiny models and few questions (tiny.py), under a name of its own.
    """
    path = Path(name) if str(name).endswith((".yaml", ".yml")) else FOLDER / f"{name}.yaml"
    if not exists(path) or not path.is_file():
        raise StudyError(f"{short(str(path), 200)}: no such experiment; there are: "
                         f"{short(', '.join(experiment_names()), 400)}")
    settings = read_settings(path)
    refuse_secrets(settings, f"{path}: ")
    check_settings(settings, path)
    if not NAME.fullmatch(path.stem):
        raise StudyError(f"{path}: the file name names a folder: use only letters, digits, '.', '_' and '-'")
    name = path.stem
    if tiny:
        from kdutils.experiments.tiny import make_tiny

        name, settings = f"{name}-tiny", make_tiny(settings)
    full = path.resolve()
    file = str(full.relative_to(PROJECT) if full.is_relative_to(PROJECT) else full)
    return Experiment(name, settings, list(make_jobs(name, settings)), file, tiny)
