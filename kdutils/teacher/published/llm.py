"""The published texts of Llama-2-13B and Qwen3-30B-A3B: found in a folder, or downloaded and kept."""

import http.client
import os
import urllib.request
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from kdutils.data.datasets import READERS
from kdutils.data.readers import to_question
from kdutils.data.records import read_arrow_stream, read_records
from kdutils.data.tables import path_kind
from kdutils.errors import StudyError, first_line
from kdutils.runs import atomic_write, project_path
from kdutils.teacher.published.joining import content_checksum, join_key, published_text, seen_choices

COMMIT = "c31e830512e352e6fa3e3f2f0ce728913d783a2b"
BASE_URL = f"https://raw.githubusercontent.com/DanielHendriks/llm-distillation/{COMMIT}/llm_outputs/consolidated"
TIMEOUT = 60  # seconds without an answer
STAGE_FOLDERS = {"rationale": "rationales", "revision": "rationales_revised",
                 "counterfactual": "rationales_counterfactual"}
COLUMNS = {"rationale": "few_shot_positive_rationale", "revision": "few_shot_revision",
           "counterfactual": "counterfactual_prompt_answer_{}_rationale"}  # {}: the choice, counted from 1
SHARDS = {"esnli-qwen-train": range(5, 10)}  # all others: 0 to 9; nobody here has seen the other five

# content_checksum of each table, over the rows of its ten shards in order, so that it holds for shards and for
# Parquet alike. No checksum of Qwen's tables is known: they are read, and their ``content`` says so.
CONTENT = {
    "cqa-llama-train": "0a6dda875ff96b03b8f01f7be212e2e0ff6a8bc0da5ff786ee0579a1a6708256",
    "cqa-llama-test": "69d79db963f1af6c46a94a11cc45dd4d37f5458cda2fb7b8bab318895689d3b8",
    "esnli-llama-train": "78acf2375737a2003deeaff806e2ef38b09af3a278a6ce8006237027699af339",
    "esnli-llama-test": "b6456062ddb3f096e643dd4b085e4da1566ec11683c3f3f110e51b261393670c",
    "strategyqa-llama-train": "ae5ee540aae1eeb226ee2a38cc070fe0623f97c96cbc080d814214029b39cc96",
    "strategyqa-llama-test": "aa8450aae9a739aa2a51ac1c02a926d29434003e5d81a1d2f4019ea7ee389b2a",
}

REFUSED = {
    ("esnli", "qwen", "counterfactual"):
        "60 to 65 % of these texts are byte for byte those of Llama, which two models do not write: the column is "
        "labelled with the wrong teacher",
}
CAUTIONS = {
    ("cqa", "llama", "rationale"): "10 % of the raw texts stop in mid-sentence, at the token limit",
    ("cqa", "llama", "counterfactual"): "15 % of the raw texts stop in mid-sentence; about 1 % are another question "
                                        "and no explanation",
    ("esnli", "llama", "revision"): "two examples of the prompt revise a right answer to 'neutral'",
    ("esnli", "qwen", "rationale"): "half of the training table is known (shards 5 to 9)",
    ("esnli", "qwen", "revision"): "half of the training table is known (shards 5 to 9); two examples of the "
                                   "prompt revise a right answer to 'neutral'",
    ("strategyqa", "qwen", "revision"): "94 % of the raw texts run on into other questions and stop in mid-sentence",
    ("strategyqa", "qwen", "counterfactual"): "at least a quarter of the raw texts argue for the other answer",
}


def identical_share(a, b):
    """Return which share of two equally long lists of texts is identical, row by row, byte for byte.

    Two teachers hardly ever write the same explanation: a share far from 0 says that a column carries
    the wrong name. Rows where a text is missing or empty are not counted; StudyError where none is left.
    """
    if len(a) != len(b):
        raise StudyError(f"identical_share: {len(a)} texts against {len(b)}; give the same questions in the same order")
    pairs = [(x, y) for x, y in zip(a, b, strict=True)
             if isinstance(x, str) and isinstance(y, str) and x.strip() and y.strip()]
    if not pairs:
        raise StudyError("identical_share: no two texts to compare")
    return sum(x == y for x, y in pairs) / len(pairs)


def load_table(name, folder="", base_url=BASE_URL, stage=""):
    """Return the rows of one published table, such as ``cqa-llama-train``, as a list of dicts.

    From `folder`, or with "" from ``teacher_llama`` below KDUTILS_DATA, or else from the cache, which a download
    fills. A local folder of shards may be incomplete. With a `stage` (rationale, revision, counterfactual) the
    table of that stage alone is taken where the consolidated one is missing.
    """
    return find_table(name, folder, base_url, stage)[1]


# Files and downloads

class NotFound(StudyError):
    """Neither the consolidated table nor that of the stage is where it was looked for."""


def find_table(name, folder, base_url, stage):
    """Return (name of the source, its rows); the table of a stage is called ``rationales__cqa-qwen-train``."""
    data = os.environ.get("KDUTILS_DATA", "")
    if folder:
        return _from_folder(name, project_path(folder), stage)
    if data and Path(data, "teacher_llama").is_dir():
        try:
            return _from_folder(name, Path(data, "teacher_llama"), stage)
        except NotFound:
            if name.endswith("-validation"):
                raise  # an extra is not worth a download where the rest is local
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
    """Return (name of the source, its rows) from the cache; download what is not there or not what was published."""
    stage_folder = STAGE_FOLDERS.get(stage, "")
    sources = [] if name.endswith("-validation") else [(name, f"{base_url}/{name}")]  # consolidated: train and test
    if stage and name not in CONTENT:
        sources.append((f"{stage_folder}__{name}", f"{base_url.removesuffix('/consolidated')}/{stage_folder}/{name}"))
    for source, _ in sources:
        try:
            records = read_records(_cached(source))
        except StudyError:
            continue  # not there yet, or broken: the download below replaces it
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


def cache_folder():
    """Return the folder for downloads: the environment variable KDUTILS_CACHE, or ~/.cache/kdutils."""
    return project_path(os.environ.get("KDUTILS_CACHE") or Path.home() / ".cache" / "kdutils")


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
    except Exception as error:  # a dozen unrelated types, by the byte that is wrong
        raise StudyError(f"{url}: not Arrow data ({first_line(error)}); nothing was kept") from error


def _joined(shards, where):
    try:
        return pa.concat_tables(shards)
    except pa.ArrowException as error:
        raise StudyError(f"{where}: the shards have different columns ({error}); nothing was kept") from error


def content_state(name, records):
    if name not in CONTENT:
        return "no checksum known"
    return "as published" if content_checksum(records) == CONTENT[name] else "differs from what was published"


def table_names(questions, dataset, teacher):
    """Return the tables that hold these questions; the study's dev split is a part of the published train split.

    For esnli it may also be the tenth of SNLI's validation split that was published (per stage, as -validation).
    """
    splits = dict.fromkeys("test" if split == "test" else "train" for split in questions["split"])
    if dataset == "esnli" and (questions["split"] == "dev").any():
        splits["validation"] = None
    return [f"{dataset}-{teacher}-{split}" for split in splits]


def keyed_table(dataset, records, name, stage):
    """Yield (join key, record) where a record holds the published answer, the choices and the texts of `stage`."""
    for row, record in enumerate(records):
        item = to_question(READERS[dataset], record, f"{name}: row {row}")
        if isinstance(item, str):
            continue
        # a repeated choice is merged in the study's questions; its place counts in the names of the columns
        choices = seen_choices(record, item, f"{name}: row {row}")
        columns = [COLUMNS[stage].format(i + 1) for i in range(len(choices))]
        texts = [published_text(record, column, f"{name}: row {row}") for column in columns]
        yield join_key(dataset, item), {"answer": item["answer"], "choices": choices, "texts": texts}


def published_texts(question, published, stage):
    """Return (answer, raw text, problem) of each text that the stage has for a question."""
    answers = list(question["choices"]) if stage == "counterfactual" else [question["answer"]]
    if published is None:
        return [(answer, "", "not published") for answer in answers]
    if stage != "counterfactual" and published["answer"] != question["answer"]:
        return [(question["answer"], "", "published for another answer")]
    texts = dict(reversed(list(zip(published["choices"], published["texts"], strict=True))))  # the first one stays
    return [(answer, texts.get(answer, ""), "" if answer in texts else "not published") for answer in answers]
