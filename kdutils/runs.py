"""Start and finish a run; write files completely or not at all; describe the machine and the processes.

A run is one execution of one notebook. Its folder holds

- the files that the notebook writes (tables, models, figures),
- ``run.json``: parameters, seed, versions, git revision, machine and timings,
- ``metrics.json``: the results, byte for byte equal for equal inputs on the same machine,
- ``manifest.json``: size and SHA-256 of every file,
- ``notebook.ipynb``, written by papermill, and ``report.html``, made from it.

``metrics.json`` is written last: a folder without it is unfinished.
"""

import ast
import contextlib
import hashlib
import json
import logging
import math
import os
import platform
import random
import re
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator, MutableMapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kdutils.errors import StudyError, masked, printable, refuse_secrets

if TYPE_CHECKING:
    import pandas as pd

PROJECT = Path(__file__).resolve().parent.parent
PACKAGES = ("torch", "transformers", "accelerate", "datasets", "tokenizers", "safetensors", "bitsandbytes",
            "numpy", "pandas", "pyarrow", "scipy", "matplotlib", "papermill")
# A spreadsheet runs a text as a formula if it begins so (after spaces and apostrophes) and is no number.
_FORMULA = re.compile(r"['\s\ufeff]*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_NUMBER = re.compile(r"[-+]?\d{1,300}([.,]\d{1,300})?([eE][-+]?\d{1,3})?")
HIDDEN = re.compile(r"\.|~\$|Thumbs\.db$|desktop\.ini$|__MACOSX$")  # how names begin that systems and programs write
CODE = ("kdutils", "notebooks", "constraints.txt")  # what decides a result, for git
UNLISTED = {  # files of a run without a checksum: logs, pages, and what is written after the manifest
    "manifest.json", "notebook.ipynb", "report.html", "papermill.log", "progress.txt", "error.txt", "inputs.json"}


def project_path(path: Path | str) -> Path:
    """Return `path` as an absolute path; a relative one counts from the project's root, not from the working folder."""
    path = Path(os.path.expanduser(os.path.expandvars(path)))  # "~name" of an unknown user is kept
    return path if path.is_absolute() else PROJECT / path


def visible_files(folder: Path) -> list[Path]:
    """Return the files below a folder, sorted, without those that systems and programs write (HIDDEN)."""
    return sorted(path for path in folder.rglob("*")
                  if path.is_file() and not any(map(HIDDEN.match, path.relative_to(folder).parts)))


def called_path(path: Path | str) -> Path:
    """Return a path of a command line as an absolute path; a relative one counts from where run_all.sh was called."""
    return Path(os.environ.get("KDUTILS_CALLED_FROM") or ".").absolute() / os.path.expanduser(path)


def cache_folder() -> Path:
    """Return the folder for downloads: the environment variable KDUTILS_CACHE, or ~/.cache/kdutils."""
    return project_path(os.environ.get("KDUTILS_CACHE") or Path.home() / ".cache" / "kdutils")


def start_run(notebook: str, output: str, variables: dict[str, Any], seed: int = 0) -> "Run":
    """Open the run folder `output` for `notebook` and return the Run.

    `variables` is the notebook's ``globals()`` right after the parameters cell. Its plain values (str, int, float,
    bool, list, dict) are the parameters, if the parameters cell or papermill has set them; an IPython start-up file
    may have set others. Seeds Python's and NumPy's generators with `seed`; training seeds torch for every student.
    Raises StudyError, before anything is written, if a parameter holds a password or key.
    """
    names = _parameter_names(notebook, variables.get("In"))
    parameters = {name: value for name, value in variables.items()
                  if isinstance(value, (str, int, float, bool, list, dict))
                  and not name.startswith("_") and name not in ("In", "Out") and (names is None or name in names)}
    refuse_secrets(parameters, f"{notebook}: ")
    leave_process_group(always="get_ipython" in variables)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it warns of a kernel that only 4-bit models use
    warnings.filterwarnings("ignore", message="IProgress not found")  # progress is plain text here
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2 ** 32:
        raise StudyError(f"seed {seed!r}: give a whole number from 0 to {2 ** 32 - 1}")
    random.seed(seed)
    np.random.seed(seed)
    return Run(notebook, project_path(output), parameters, seed)


def _parameter_names(notebook, executed):
    """Return the names that the parameters cell of a notebook sets, None if the project has no such notebook.

    `executed`: the sources of the cells that have run (IPython's ``In``). Papermill's own cell and the parameters cell
    of a changed copy are among them; both may set more names.
    """
    try:
        cells = read_json(PROJECT / "notebooks" / f"{notebook}.ipynb")["cells"]
        sources = ["".join(cell["source"]) for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
    except (StudyError, OSError, LookupError, TypeError, AttributeError):
        return None
    names = set().union(*map(_assigned, sources))
    for source in executed if isinstance(executed, list) else []:
        more = _assigned(source) if isinstance(source, str) else set()
        names |= more if source.startswith("# Parameters\n") or "output" in more else set()
    return names


def injected_names(executed: object) -> set[str]:
    """Return the names that papermill's own cell sets. `executed`: the sources of the cells that have run, ``In``."""
    sources = executed if isinstance(executed, list) else []
    return set().union(*(_assigned(source) for source in sources
                         if isinstance(source, str) and source.startswith("# Parameters\n")))


def _assigned(source):
    """Return the names that the plain assignments of a cell set."""
    try:
        statements = ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # a cell may hold more than Python
        return set()
    targets = [target for one in statements if isinstance(one, (ast.Assign, ast.AnnAssign))
               for target in (one.targets if isinstance(one, ast.Assign) else [one.target])]
    return {target.id for target in targets if isinstance(target, ast.Name)}


class Run:
    """One execution of one notebook; the docstring of the module lists the files of its folder.

    Code, versions and inputs are recorded as they are when it starts: they may change while it runs.
    """

    def __init__(self, notebook: str, folder: Path, parameters: dict[str, Any], seed: int) -> None:
        self.notebook, self.folder, self.parameters, self.seed = notebook, folder, parameters, seed
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "metrics.json").unlink(missing_ok=True)
        (self.folder / "manifest.json").unlink(missing_ok=True)
        self.started = time.time()
        self.laps = {}
        self.began_with = {"git": git_revision(), "versions": versions(), "inputs": self._inputs()}

    def path(self, name: str) -> Path:
        """Return the path of a file or folder of this run, after making the folders above it."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def lap(self, name: str, seconds: float) -> None:
        """Record the duration of a step in seconds; timings go to run.json, never to metrics.json."""
        self.laps[name] = round(float(seconds), 3)

    def finish(self, metrics: dict[str, Any]) -> dict[str, Any]:
        """Write run.json, the manifest and, last, metrics.json; return the metrics as written.

        `metrics` is a dict of plain values; NaN and infinity become null. The checksums of the run's tables and
        weights are added under "files", so a run that was built on this one is out of date exactly if metrics.json
        has changed.
        """
        written = {name: entry["sha256"] for name, entry in checksums(self.folder).items()
                   if name.endswith((".parquet", ".safetensors"))}
        metrics = {**plain(metrics), "files": written}
        write_json(self.folder / "run.json", {
            "notebook": self.notebook, "parameters": plain(self.parameters), "seed": self.seed,
            **self.began_with, "machine": machine(),
            "started": datetime.fromtimestamp(self.started, UTC).isoformat(timespec="seconds"),
            "seconds": round(time.time() - self.started, 3), "laps": self.laps,
        })
        text = _dumps(metrics)
        manifest = checksums(self.folder)
        manifest["metrics.json"] = {"bytes": len(text.encode()), "sha256": hashlib.sha256(text.encode()).hexdigest()}
        write_json(self.folder / "manifest.json", manifest)
        write_text(self.folder / "metrics.json", text)
        return metrics

    def _inputs(self):
        """Return the SHA-256 of every Parquet file, and of the metrics.json of every run, that a parameter names.

        A parameter names a run by its folder, or by that of one of its students (``seed-<n>``).
        """
        values = [v for value in self.parameters.values() for v in (value if isinstance(value, list) else [value])]
        texts = [value for value in values if isinstance(value, str)]
        names = [text for text in texts if text.endswith(".parquet")]
        names += [f"{re.sub(r'/seed-[0-9]+$', '', text)}/metrics.json" for text in texts if "/" in text]
        return {name: sha256(project_path(name)) for name in names
                if project_path(name).is_file() and project_path(name).parent != self.folder}


# Manifests

def add_notebook_checksum(folder: Path | str) -> None:
    """Add the executed notebook to the manifest of a finished run; it is complete only after the last cell."""
    folder = Path(folder)
    mask_run(folder)
    manifest = read_json(folder / "manifest.json")
    manifest["notebook.ipynb"] = _entry(folder / "notebook.ipynb")
    write_json(folder / "manifest.json", manifest)


def check_run(folder: Path | str) -> list[str]:
    """Return what is wrong with the files of a finished run, one line each; an empty list if nothing is."""
    folder = Path(folder)
    try:
        manifest = read_json(folder / "manifest.json")
        files = {name: (entry["bytes"], entry["sha256"]) for name, entry in manifest.items()}
    except (StudyError, AttributeError, KeyError, TypeError):
        return [f"{folder / 'manifest.json'}: missing or broken"]
    problems = [f"{folder / name}: not in the manifest" for name in ("metrics.json", "notebook.ipynb")
                if name not in files]
    for name, (size, digest) in files.items():
        path = folder / name
        if not path.is_file():
            problems.append(f"{path}: missing")
        elif path.stat().st_size != size or sha256(path) != digest:
            problems.append(f"{path}: not the file that was written (checksum differs)")
    return problems


def checksums(folder: Path | str) -> dict[str, dict[str, Any]]:
    """Return {file below `folder`: {"bytes": size, "sha256": hexadecimal text}} without logs, pages and checkpoints."""
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): _entry(path) for path in files
            if path.name not in UNLISTED | {"metrics.json"} and not path.name.startswith(".")
            and "checkpoints" not in path.relative_to(folder).parts}


def mark_complete(folder: Path | str) -> None:
    """Mark a folder as completely written: ``whole.json`` lists its files with their checksums."""
    folder = Path(folder)
    (folder / "whole.json").unlink(missing_ok=True)
    write_json(folder / "whole.json", checksums(folder))


def is_complete(folder: Path | str) -> bool:
    """Say whether every file that `mark_complete` listed is unchanged."""
    folder = Path(folder)
    try:
        listed = read_json(folder / "whole.json")
        return all((folder / name).is_file() and _entry(folder / name) == entry for name, entry in listed.items())
    except (StudyError, AttributeError):
        return False


def sha256(path: Path | str) -> str:
    """Return the SHA-256 of a file as hexadecimal text."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_stamp(path: Path | str) -> tuple[int, int]:
    """Return (size in bytes, time of last change in nanoseconds) of a file; a rewritten file has another stamp."""
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns


def _entry(path):
    return {"bytes": path.stat().st_size, "sha256": sha256(path)}


# Files

@contextlib.contextmanager
def atomic_write(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path next to `path`; after the block, what was written there replaces `path`.

    After an error, a full disk or a kill, `path` is the complete old file or the complete new one. The standard
    library offers the steps (fsync, os.replace) but not the whole.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path | str, text: str) -> Path:
    """Write `text` to `path`, completely or not at all; return the path."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(path)


def write_json(path: Path | str, value: Any) -> Path:
    """Write `value` as JSON with sorted keys, completely or not at all; return the path."""
    return write_text(path, _dumps(value))


def write_csv(path: Path | str, frame: "pd.DataFrame", index: bool = False) -> Path:
    """Write a data frame as a CSV that is safe to open in a spreadsheet, completely or not at all; return the path.

    Every CSV of the study is written here. Cells and column names that a spreadsheet would run as a formula get an
    apostrophe in front, control characters become U+FFFD, and a line break inside a cell is one newline. Numbers, and
    texts that are numbers ("-3"), stay as they are. UTF-8 without a byte order mark; equal frames give equal bytes.
    `read_csv` removes the apostrophes.
    """
    import pandas as pd

    numeric = [pd.api.types.is_numeric_dtype(dtype) for dtype in frame.dtypes]
    columns = [frame.iloc[:, place] for place in range(frame.shape[1])]
    # The None, cut off again, keeps NumPy from making one array of several cells that are tuples.
    table = pd.DataFrame({place: values.array if number else np.array([*map(escape_cell, values), None], object)[:-1]
                          for place, (values, number) in enumerate(zip(columns, numeric, strict=True))},
                         index=frame.index)
    table.columns = frame.columns.map(escape_cell) if len(frame.columns) else frame.columns
    if index:
        table = table.rename(index=escape_cell).rename_axis(index=escape_cell)
    return write_text(path, table.to_csv(index=index, lineterminator="\n"))


def escape_cell(value: Any) -> Any:
    """Return a text as `write_csv` writes it; any other value unchanged, a tuple part by part."""
    if isinstance(value, tuple):
        return tuple(map(escape_cell, value))
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def unescape_cell(value: Any) -> Any:
    """Return a text without the apostrophe of `escape_cell`; any other value unchanged."""
    if isinstance(value, str) and value[:1] == "'" and _FORMULA.match(value) and not _NUMBER.fullmatch(value[1:]):
        return value[1:]
    return value


def read_csv(path: Path | str, **options: Any) -> "pd.DataFrame":
    """Return a CSV of `write_csv`, read by pandas with `options`, without the apostrophes of `escape_cell`."""
    import pandas as pd

    frame = pd.read_csv(path, **options)
    frame.columns = frame.columns.map(unescape_cell)
    for name in frame.columns[[not pd.api.types.is_numeric_dtype(dtype) for dtype in frame.dtypes]]:
        frame[name] = frame[name].map(unescape_cell)
    return frame


def read_json(path: Path | str) -> Any:
    """Return the JSON value at `path`; StudyError if it is missing or broken."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StudyError(f"{path}: no such file") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise StudyError(f"{path}: not readable JSON ({error})") from error


def mask_run(folder: Path | str) -> None:
    """Mask secrets in the files of a run that other programs wrote: error.txt, papermill.log, notebook.ipynb."""
    for name in ("error.txt", "papermill.log", "notebook.ipynb"):
        mask_file(Path(folder) / name)


def mask_file(path: Path | str) -> None:
    """Mask secrets in a text file or notebook; a file that holds none, is unreadable or missing is not touched."""
    try:
        text = Path(path).read_text(encoding="utf-8", errors="surrogateescape")
        safe = masked(text)
        if safe != text and Path(path).suffix == ".ipynb":  # text by text, so that no JSON escape is cut
            safe = json.dumps(_map_texts(json.loads(text), masked), indent=1, ensure_ascii=False) + "\n"
        if safe != text:
            with atomic_write(path) as temporary:
                temporary.write_text(safe, encoding="utf-8", errors="surrogateescape")
    except (OSError, ValueError, RecursionError):
        return


def _map_texts(value, function):
    if isinstance(value, dict):
        return {function(key): _map_texts(item, function) for key, item in value.items()}
    if isinstance(value, list):
        return [_map_texts(item, function) for item in value]
    return function(value) if isinstance(value, str) else value


def _dumps(value):
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def plain(value: Any) -> Any:
    """Return `value` in the types of JSON: NumPy's become Python's, NaN and infinity None; TypeError for others."""
    if isinstance(value, (np.generic, np.ndarray)):
        value = value.tolist()
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (str, bool, int)):
        return value
    raise TypeError(f"a metric or parameter must be a plain value, not {type(value).__name__}")


# Processes and machine

GROUP = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # torchrun and accelerate set all of them
LEFT_OVER = (*GROUP, "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "ROLE_RANK", "NODE_RANK",
             *(f"{start}_{end}" for start in ("PMI", "OMPI_COMM_WORLD", "MV2_COMM_WORLD")
               for end in ("RANK", "SIZE", "LOCAL_RANK", "LOCAL_SIZE")))


def process_group() -> tuple[int, int]:
    """Return (rank, number of processes) of the group that trains together; (0, 1) for a single process.

    A process belongs to a group only if all of GROUP is set. A RANK alone comes from another program or a scheduler.
    """
    try:
        rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    except (KeyError, ValueError):
        return 0, 1
    complete = all(os.environ.get(name) for name in GROUP) and 0 <= rank < size
    return (rank, size) if complete else (0, 1)


def leave_process_group(always: bool = False, environment: MutableMapping[str, str] = os.environ) -> None:
    """Remove from the environment what would make this process wait for others that do not exist.

    `always`: even if a complete group is set; a notebook is never one of several processes.
    """
    if always or process_group() == (0, 1):
        for name in LEFT_OVER:
            environment.pop(name, None)


def versions() -> dict[str, str]:
    """Return the versions of Python and of the installed PACKAGES."""
    installed = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            installed[name] = metadata.version(name)
    return installed


def git_revision() -> str:
    """Return the commit of the project, with ``-dirty`` if tracked files of CODE differ from it; "" outside git."""
    def git(*words):
        return subprocess.run(["git", "-C", str(PROJECT), *words], capture_output=True, text=True, check=True).stdout

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", *CODE).strip()
        return git("rev-parse", "HEAD").strip() + ("-dirty" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def machine() -> dict[str, Any]:
    """Return what timings depend on: system, processor, cores, GPU and threads; the host is not named."""
    torch = sys.modules.get("torch")
    gpu = torch.cuda.get_device_name(0) if torch and torch.cuda.is_available() else ""
    return {"system": f"{platform.system()} {platform.machine()}", "processor": _processor(),
            "cores": os.cpu_count(), "gpu": gpu,
            "threads": torch.get_num_threads() if torch else int(os.environ.get("OMP_NUM_THREADS", 0)) or None}


def _processor():
    """Return the name of the processor, as far as the system gives it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
