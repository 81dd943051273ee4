"""The published tables of Llama-2-13B and Qwen3-30B-A3B: from a folder, the cache, or a download.

The authors' repository holds one table of ten Arrow shards per data set, teacher and split: the questions, and one
column of texts per prompting ("consolidated"). A second layout holds one table per stage (STAGE_FOLDERS), with the same
columns. It is read where a consolidated table is missing. Downloads are pinned to a commit and kept in a cache. The
repository states no licence, so no part of it is shipped.
"""

import http.client
import os
import urllib.request
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from kdutils.data.records import read_arrow_stream, read_records
from kdutils.data.tables import first_line, path_kind
from kdutils.errors import StudyError
from kdutils.runs import atomic_write, cache_folder, project_path
from kdutils.teacher.published.joining import content_checksum

COMMIT = "c31e830512e352e6fa3e3f2f0ce728913d783a2b"
BASE_URL = f"https://raw.githubusercontent.com/DanielHendriks/llm-distillation/{COMMIT}/llm_outputs/consolidated"
TIMEOUT = 60  # seconds without an answer
STAGE_FOLDERS = {"rationale": "rationales", "revision": "rationales_revised",
                 "counterfactual": "rationales_counterfactual"}
SHARDS = {"esnli-qwen-train": range(5, 10)}  # all others: 0 to 9; the other five are not known

# content_checksum of each table, over the rows of its ten shards in order, so that it is the same for shards and for
# Parquet. No checksum of Qwen's tables is known: they are read, and their ``content`` says so.
CONTENT = {
    "cqa-llama-train": "0a6dda875ff96b03b8f01f7be212e2e0ff6a8bc0da5ff786ee0579a1a6708256",
    "cqa-llama-test": "69d79db963f1af6c46a94a11cc45dd4d37f5458cda2fb7b8bab318895689d3b8",
    "esnli-llama-train": "78acf2375737a2003deeaff806e2ef38b09af3a278a6ce8006237027699af339",
    "esnli-llama-test": "b6456062ddb3f096e643dd4b085e4da1566ec11683c3f3f110e51b261393670c",
    "strategyqa-llama-train": "ae5ee540aae1eeb226ee2a38cc070fe0623f97c96cbc080d814214029b39cc96",
    "strategyqa-llama-test": "aa8450aae9a739aa2a51ac1c02a926d29434003e5d81a1d2f4019ea7ee389b2a",
}


class NotFound(StudyError):
    """Neither the consolidated table nor that of the stage exists at the place given."""


def find_table(name: str, folder: str, base_url: str, stage: str) -> tuple[str, list[dict]]:
    """Return (name of the source, its rows as dicts) of one published table, such as ``cqa-llama-train``.

    It comes from `folder`; with "" from ``teacher_llama`` below KDUTILS_DATA, else from the cache, which a download
    fills. A local folder of shards may be incomplete. Where the consolidated table is missing, that of the `stage`
    (rationale, revision, counterfactual) is read; its name is ``rationales__cqa-qwen-train``.
    """
    data = os.environ.get("KDUTILS_DATA", "")
    if folder:
        return _from_folder(name, project_path(folder), stage)
    if data and Path(data, "teacher_llama").is_dir():
        try:
            return _from_folder(name, Path(data, "teacher_llama"), stage)
        except NotFound:
            if name.endswith("-validation"):
                raise  # optional: not downloaded where the rest is local
    return _from_cache(name, base_url, stage)


def _from_folder(name, folder, stage):
    stage_folder = STAGE_FOLDERS.get(stage, "")
    in_stage = f"{stage_folder}__{name}"
    for source, path in ((name, folder / f"{name}.parquet"), (in_stage, folder / f"{in_stage}.parquet"),
                         (in_stage, folder / "stages" / f"{in_stage}.parquet")):
        if path_kind(path) == "file":
            return source, read_records(path)
    for source, path in ((name, folder / name), (in_stage, folder / stage_folder / name),
                         (in_stage, folder.parent / stage_folder / name)):  # beside the folder "consolidated"
        shards = [path / f"shard_{i}" for i in range(10) if path_kind(path / f"shard_{i}") == "folder"]
        if shards:
            return source, [record for shard in shards for record in read_records(shard)]
    raise NotFound(f"{folder}: neither {name}.parquet nor {name}/shard_0 in this folder"
                    + (f", nor {in_stage}.parquet or {stage_folder}/{name}/shard_0" if stage else ""))


def _from_cache(name, base_url, stage):
    """Return (name of the source, its rows) from the cache; a missing or altered table is downloaded first."""
    stage_folder = STAGE_FOLDERS.get(stage, "")
    sources = [] if name.endswith("-validation") else [(name, f"{base_url}/{name}")]  # consolidated: train and test
    if stage and name not in CONTENT:
        sources.append((f"{stage_folder}__{name}", f"{base_url.removesuffix('/consolidated')}/{stage_folder}/{name}"))
    for source, _ in sources:
        try:
            records = read_records(_cached(source))
        except StudyError:
            continue  # missing or broken: the download below replaces it
        if source not in CONTENT or content_checksum(records) == CONTENT[source]:
            return source, records
    missing = []
    for source, url in sources:
        try:
            return source, _download(source, url, SHARDS.get(name, range(10)))
        except NotFound as error:
            missing.append(str(error))
    raise NotFound("; ".join(missing))


def _cached(source):
    return cache_folder() / "published" / COMMIT / f"{source}.parquet"


def _download(source, url, shards):
    table = _joined([_download_shard(f"{url}/shard_{i}/data-00000-of-00001.arrow") for i in shards], url)
    found = content_checksum(table.to_pylist())
    if source in CONTENT and found != CONTENT[source]:
        raise StudyError(f"{url}: not the published content (SHA-256 of the rows is {found}, expected "
                         f"{CONTENT[source]}); nothing was kept")
    with atomic_write(_cached(source)) as temporary:  # another run may read the cache at the same time
        pq.write_table(table.replace_schema_metadata(None), temporary)
    return table.to_pylist()


def _download_shard(url):
    if not url.startswith(("https://", "http://")):
        raise StudyError(f"{url}: not an http address")
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
            return read_arrow_stream(response.read())
    except urllib.error.HTTPError as error:
        kind = NotFound if error.code == 404 else StudyError
        raise kind(f"{url}: the server answers {error.code} {error.reason}; nothing was kept") from error
    except (OSError, http.client.HTTPException) as error:
        raise StudyError(f"{url}: cannot be downloaded ({error}); give a local `folder` with the tables") from error
    except Exception as error:  # many unrelated types, depending on the broken byte
        raise StudyError(f"{url}: not Arrow data ({first_line(error)}); nothing was kept") from error


def _joined(shards, where):
    try:
        return pa.concat_tables(shards)
    except pa.ArrowException as error:
        raise StudyError(f"{where}: the shards have different columns ({error}); nothing was kept") from error
