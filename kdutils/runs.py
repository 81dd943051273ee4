"""Start a run, finish a run: parameters, seeds, versions, timings, paths and the manifest.

A run is one execution of one notebook. Its folder holds

- what the notebook writes (tables, models, figures),
- ``run.json``: parameters, seed, versions, git revision, machine and timings,
- ``metrics.json``: results alone, equal byte for byte for equal inputs on the same machine,
- ``manifest.json``: size and SHA-256 of every file,
- ``notebook.ipynb``, written by papermill, and ``report.html``, rendered from it.

``metrics.json`` is written last: a folder without it is unfinished.
"""

import ast
import contextlib
import hashlib
import json
import math
import os
import platform
import random
import re
import subprocess
import sys
import time
import warnings
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import numpy as np

from kdutils.errors import StudyError, masked, printable, refuse_secrets

PROJECT = Path(__file__).resolve().parent.parent
PACKAGES = ("torch", "transformers", "accelerate", "datasets", "tokenizers", "safetensors", "bitsandbytes",
            "numpy", "pandas", "pyarrow", "scipy", "matplotlib", "papermill")
# What a spreadsheet may run: a text that begins with one of these (spaces and apostrophes aside) and is no number.
_FORMULA = re.compile(r"['\s\ufeff]*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_NUMBER = re.compile(r"[-+]?\d{1,300}([.,]\d{1,300})?([eE][-+]?\d{1,3})?")
UNLISTED = {"manifest.json", "notebook.ipynb", "report.html", "papermill.log", "progress.txt", "error.txt"}


def project_path(path):
    """Return `path` as absolute; a relative one counts from the project's root, wherever the kernel started."""
    path = Path(os.path.expanduser(os.path.expandvars(path)))  # of an unknown user ~name stays as it is
    return path if path.is_absolute() else PROJECT / path


def start_run(notebook, output, variables, seed=0):
    """Open the run folder `output` for `notebook` and return the Run.

    `variables` is the notebook's ``globals()``: called right after the parameters cell, its plain values (str, int,
    float, bool, list, dict) are the parameters, those alone that this cell or papermill has set (a start-up file of
    IPython may have set others). Seeds Python's and NumPy's generators with `seed`; training seeds torch itself, once
    per student. Raises StudyError, before anything is written, where a parameter holds a password or key.
    """
    names = _parameter_names(notebook, variables.get("In"))
    parameters = {name: value for name, value in variables.items()
                  if isinstance(value, (str, int, float, bool, list, dict))
                  and not name.startswith("_") and name not in ("In", "Out") and (names is None or name in names)}
    refuse_secrets(parameters, f"{notebook}: ")
    leave_process_group(always="get_ipython" in variables)
    warnings.filterwarnings("ignore", message="IProgress not found")  # progress is plain text here
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2 ** 32:
        raise StudyError(f"seed {seed!r}: a whole number from 0 to {2 ** 32 - 1} is needed")
    random.seed(seed)
    np.random.seed(seed)
    return Run(notebook, project_path(output), parameters, seed)


def _parameter_names(notebook, executed):
    """Return the names that the parameters cell of a notebook sets, None where the project has no such notebook.

    `executed`: the sources of the cells that ran until now (IPython's ``In``). Among them papermill's own cell and the
    parameters cell of a changed copy, both of which may set more.
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
    """One execution of one notebook; see the module's docstring for what its folder holds."""

    def __init__(self, notebook, folder, parameters, seed):
        self.notebook, self.folder, self.parameters, self.seed = notebook, folder, parameters, seed
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "metrics.json").unlink(missing_ok=True)
        (self.folder / "manifest.json").unlink(missing_ok=True)
        self.started = time.time()
        self.laps = {}

    def path(self, name):
        """Return the path of a file or folder of this run; the folders above it exist."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def lap(self, name, seconds):
        """Keep how long a step took, in seconds; timings go to run.json, never to metrics.json."""
        self.laps[name] = round(float(seconds), 3)

    def finish(self, metrics):
        """Write run.json, the manifest and, last, metrics.json; return the metrics as written.

        `metrics` is a dict of plain values; NaN and infinity become null with no loss of the key. The checksums
        of the run's tables and weights are added under "files": what builds on this run is out of date exactly
        when its metrics.json has changed.
        """
        written = {name: entry["sha256"] for name, entry in checksums(self.folder).items()
                   if name.endswith((".parquet", ".safetensors"))}
        metrics = {**_plain(metrics), "files": written}
        write_json(self.folder / "run.json", {
            "notebook": self.notebook, "parameters": _plain(self.parameters), "seed": self.seed,
            "inputs": self._inputs(), "versions": versions(), "git": git_revision(), "machine": machine(),
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
        """SHA-256 of every Parquet file, and of the metrics.json of every run, that a parameter names."""
        texts = [v for value in self.parameters.values() for v in (value if isinstance(value, list) else [value])]
        names = [text for text in texts if isinstance(text, str) and text.endswith(".parquet")]
        names += [f"{text}/metrics.json" for text in texts if isinstance(text, str) and "/" in text]
        return {name: sha256(project_path(name)) for name in names
                if project_path(name).is_file() and project_path(name).parent != self.folder}


def add_notebook_checksum(folder):
    """Add the executed notebook to the manifest of a finished run: its checksum exists only after the last cell."""
    folder = Path(folder)
    mask_run(folder)
    manifest = read_json(folder / "manifest.json")
    manifest["notebook.ipynb"] = _entry(folder / "notebook.ipynb")
    write_json(folder / "manifest.json", manifest)


def check_run(folder):
    """Return what is wrong with the finished run in `folder`, one line each; nothing wrong is an empty list."""
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


def checksums(folder):
    """Return size in bytes and SHA-256 of every file below `folder`, but for logs and pages."""
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): _entry(path) for path in files
            if path.name not in UNLISTED | {"metrics.json"} and not path.name.startswith(".")
            and "checkpoints" not in path.relative_to(folder).parts}


def mark_whole(folder):
    """Say of a folder that everything in it is written: ``whole.json`` lists its files with their checksums."""
    folder = Path(folder)
    (folder / "whole.json").unlink(missing_ok=True)
    write_json(folder / "whole.json", checksums(folder))


def is_whole(folder):
    """Say whether every file that `mark_whole` listed is there as it was written."""
    folder = Path(folder)
    try:
        listed = read_json(folder / "whole.json")
        return all((folder / name).is_file() and _entry(folder / name) == entry for name, entry in listed.items())
    except (StudyError, AttributeError):
        return False


def sha256(path):
    """Return the SHA-256 of a file as hexadecimal text."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_stamp(path):
    """Return (size, time of the last change in nanoseconds) of a file: equal where it was surely not rewritten."""
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns


def _entry(path):
    return {"bytes": path.stat().st_size, "sha256": sha256(path)}


@contextlib.contextmanager
def written_whole(path):
    """Yield a temporary path beside `path`; what is written there takes its name once all of it is on disk.

    Whatever happens in between (an error, a full disk, a kill), `path` is the old file or the new one, never a part.
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


def write_text(path, text):
    """Write `text` to `path`, whole or not at all."""
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(path)


def write_json(path, value):
    """Write `value` as JSON with sorted keys, whole or not at all."""
    return write_text(path, _dumps(value))


def write_csv(path, frame, index=False):
    """Write a data frame as a CSV that people may open in a spreadsheet, whole or not at all; return the path.

    Every CSV of the study is written here. Cells and names of columns that a spreadsheet would run as a formula get
    an apostrophe before them, control characters become U+FFFD, line ends one newline; numbers stay numbers, and so
    does a text that is one ("-3"). UTF-8 without a byte order mark, commas, lines end in a newline: equal frames
    make equal bytes. `read_csv` takes the apostrophes away again.
    """
    import pandas as pd

    numbers = [pd.api.types.is_numeric_dtype(kind) for kind in frame.dtypes]
    columns = [frame.iloc[:, place] for place in range(frame.shape[1])]
    table = pd.DataFrame({place: values.array if number else np.array([*map(safe_cell, values), None], object)[:-1]
                          for place, (values, number) in enumerate(zip(columns, numbers, strict=True))},
                         index=frame.index)
    table.columns = frame.columns.map(safe_cell) if len(frame.columns) else frame.columns
    if index:
        table = table.rename(index=safe_cell).rename_axis(index=safe_cell)
    return write_text(path, table.to_csv(index=index, lineterminator="\n"))


def safe_cell(value):
    """Return a text as write_csv writes it; any other value as it is (of a tuple, its parts)."""
    if isinstance(value, tuple):
        return tuple(map(safe_cell, value))
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def plain_cell(value):
    """Return a text without the apostrophe that safe_cell put before it; any other value as it is."""
    if isinstance(value, str) and value[:1] == "'" and _FORMULA.match(value) and not _NUMBER.fullmatch(value[1:]):
        return value[1:]
    return value


def read_csv(path, **options):
    """Return a CSV of write_csv as pandas reads it with `options`, texts as they were before they were made safe."""
    import pandas as pd

    frame = pd.read_csv(path, **options)
    frame.columns = frame.columns.map(plain_cell)
    for name in frame.columns[[not pd.api.types.is_numeric_dtype(kind) for kind in frame.dtypes]]:
        frame[name] = frame[name].map(plain_cell)
    return frame


def read_json(path):
    """Return the JSON value at `path`; StudyError when it is missing or broken."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StudyError(f"{path}: no such file") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise StudyError(f"{path}: not readable JSON ({error})") from error


def mask_run(folder):
    """Mask what other programs wrote into a run's folder (error.txt, papermill.log, notebook.ipynb): see masked."""
    for name in ("error.txt", "papermill.log", "notebook.ipynb"):
        mask_file(Path(folder) / name)


def mask_file(path):
    """Mask the secrets in a text file or notebook; one without secrets, unreadable or missing stays as it is."""
    try:
        text = Path(path).read_text(encoding="utf-8", errors="surrogateescape")
        whole = masked(text)
        if whole != text and Path(path).suffix == ".ipynb":  # text by text: what is masked may hold an escape
            whole = json.dumps(_map_texts(json.loads(text), masked), indent=1, ensure_ascii=False) + "\n"
        if whole != text:
            with written_whole(path) as temporary:
                temporary.write_text(whole, encoding="utf-8", errors="surrogateescape")
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


def _plain(value):
    """Return `value` in plain Python types; NaN and infinity become None."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(item) for item in value]
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, str):
        return value
    raise TypeError(f"a metric or parameter must be a plain value, not {type(value).__name__}")


GROUP = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # all that torchrun and accelerate set
LEFT_OVER = (*GROUP, "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "ROLE_RANK", "NODE_RANK",
             *(f"{start}_{end}" for start in ("PMI", "OMPI_COMM_WORLD", "MV2_COMM_WORLD")
               for end in ("RANK", "SIZE", "LOCAL_RANK", "LOCAL_SIZE")))


def process_group():
    """Return (rank, number of processes) of this process among those that share a training; (0, 1) for one alone.

    It is one of several only where everything is set that these need to find each other. A RANK alone is left over
    from another program or set by a scheduler.
    """
    try:
        rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    except (KeyError, ValueError):
        return 0, 1
    whole = all(os.environ.get(name) for name in GROUP) and 0 <= rank < size
    return (rank, size) if whole else (0, 1)


def leave_process_group(always=False, environment=os.environ):
    """Take out of the environment what would make this process wait for others that are not there.

    `always`: even where a whole group is named; a notebook is never one of several processes.
    """
    if always or process_group() == (0, 1):
        for name in LEFT_OVER:
            environment.pop(name, None)


def versions():
    """Return the versions of Python and of the packages that results depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def git_revision():
    """Return the commit of the project with ``+changes`` where the working tree differs; "" outside git."""
    def git(*words):
        return subprocess.run(["git", "-C", str(PROJECT), *words], capture_output=True, text=True, check=True).stdout

    try:
        changed = git("status", "--porcelain", "--untracked-files=no").strip()
        return git("rev-parse", "HEAD").strip() + ("+changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def machine():
    """Return what timings depend on: system, processor, cores and threads in use; no name of the host."""
    torch = sys.modules.get("torch")
    gpu = torch.cuda.get_device_name(0) if torch and torch.cuda.is_available() else ""
    return {"system": f"{platform.system()} {platform.machine()}", "cores": os.cpu_count(), "gpu": gpu,
            "threads": torch.get_num_threads() if torch else int(os.environ.get("OMP_NUM_THREADS", 0)) or None}
