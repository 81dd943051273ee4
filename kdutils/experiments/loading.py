"""From the name or file of an experiment to the checked experiment with its jobs."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from kdutils.errors import StudyError, refuse_secrets, short
from kdutils.experiments.yaml_file import FOLDER, read_settings
from kdutils.hub import exists
from kdutils.packages import EXTRAS
from kdutils.runs import PROJECT, called_path, project_path

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


def load_experiment(name: str | Path, tiny: bool = False, ratings: list[str] | None = None,
                    leave_out_too_long: bool | None = None) -> "Experiment":
    """Return the Experiment of a name or of a path to a YAML file; StudyError naming file and key.

    `tiny`: with tiny models and few questions (tiny.py), under a name of its own. `ratings`: files and folders that
    take the place of those in the file, as in later runs; None takes those of the last run as long as the file has a
    human study, [""] simulates raters.
    `leave_out_too_long`: the parameter of this name is set for every prompting that asks a teacher; None does what the
    last run did.
    """
    from kdutils.experiments.execution import RECORD
    from kdutils.experiments.grid import EXAMPLE, OUTPUTS, Experiment, make_jobs, prompting_of
    from kdutils.experiments.schema import NAME, check_settings

    path = experiment_file(name)
    settings = read_settings(path)
    refuse_secrets(settings, f"{path}: ")
    last = _last_run(OUTPUTS / (path.stem + "-tiny" * tiny) / RECORD)
    given = tuple(map(_as_called, filter(None, ratings))) if ratings is not None else last.ratings if last else ()
    if leave_out_too_long is None:
        leave_out_too_long = bool(last and last.leave_out_too_long)
    if given and (ratings is not None or isinstance(settings, dict) and "human_study" in settings):
        settings = _with_ratings(settings, given, path, "--ratings" if ratings is not None else "an earlier --ratings")
    check_settings(settings, path)
    if not NAME.fullmatch(path.stem):
        raise StudyError(f"{path}: the file name names a folder: use only letters, digits, '.', '_' and '-'")
    if path.stem == EXAMPLE:
        raise StudyError(f"{path}: {EXAMPLE} is the student that ships with the project; give the file another name")
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
    return Experiment(name, settings, list(make_jobs(name, settings)), file, tiny, given, leave_out_too_long)


def ratings_source(experiment: "Experiment", named: bool) -> str:
    """Return a line that says which ratings an experiment uses and who named them, "" where raters are simulated.

    `named`: whether --ratings was given in this call. Else it may be that of an earlier one.
    """
    used = experiment.settings.get("human_ratings", {}).get("ratings", [])
    if not used or "human_study" not in experiment.settings:
        return ""
    line = f"ratings: {', '.join(map(str, used))}"
    if not experiment.ratings:
        return f"{line} (human_ratings of {experiment.file})"
    if named:
        return line
    own = read_settings(project_path(experiment.file)).get("human_ratings") or {}
    instead = f" and used in the place of human_ratings of {experiment.file}" if own.get("ratings") else ""
    return f"{line} (named by an earlier --ratings{instead}; --ratings '' forgets it)"


def _last_run(record):
    """Return the Experiment of this record, None where there is none."""
    from kdutils.experiments.execution import recorded

    try:
        return recorded(record)
    except StudyError:
        return None


def _as_called(path):
    """Return a path of a command line as it counts in the project: absolute, if it is one of another folder."""
    called = called_path(path)
    return str(called) if exists(called) and called != project_path(path) else path


def _with_ratings(settings, given, path, option):
    """Return `settings` with these files and folders as ratings of the human study; `option`: what has named them."""
    if not isinstance(settings, dict) or "human_study" not in settings:
        raise StudyError(f"--ratings: {short(str(path), 200)} has no human study (key human_study)")
    for one in given:
        if not exists(project_path(one)):
            raise StudyError(f"{option} {short(one, 200)}: no such file or folder; name its place, or give "
                             "--ratings '' for simulated raters")
    analysis = settings.get("human_ratings")
    return {**settings, "human_ratings": {**(analysis if isinstance(analysis, dict) else {}), "ratings": list(given)}}
