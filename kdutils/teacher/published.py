"""The teacher backend ``published``: explanations that the authors of arXiv 2504.16056 published.

Their repository holds, per data set, teacher and split, one table of ten Arrow shards: the questions and
one column of text per prompting. The tables are read from a local folder, as shards or as one Parquet
file each, or downloaded at a pinned commit and kept in a cache. The repository states no licence, so no
part of it is shipped.

What is wrong with the published tables is known here: texts are cleaned (``cleaning``), columns that are
not what their name says are refused (REFUSED), and other defects come along as notes (CAUTIONS).
"""

import hashlib
import http.client
import json
import os
import urllib.error
import urllib.request
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from kdutils.data.readers import READERS, content_key, read_arrow_stream, read_records, to_question
from kdutils.data.tables import EXPLANATIONS
from kdutils.errors import StudyError
from kdutils.runs import project_path, written_whole
from kdutils.teacher.cleaning import Cleaned, clean, count_changes

COMMIT = "c31e830512e352e6fa3e3f2f0ce728913d783a2b"
BASE_URL = f"https://raw.githubusercontent.com/DanielHendriks/llm-distillation/{COMMIT}/llm_outputs/consolidated"
TIMEOUT = 60  # seconds without an answer

DATASETS = ("cqa", "esnli", "strategyqa")
TEACHERS = {"llama": "Llama-2-13B", "qwen": "Qwen3-30B-A3B-Instruct-2507"}
STAGES = {"few_shot": "rationale", "critique_revision": "revision", "counterfactual": "counterfactual"}
COLUMNS = {"rationale": "few_shot_positive_rationale", "revision": "few_shot_revision",
           "counterfactual": "counterfactual_prompt_answer_{}_rationale"}  # {}: the choice, counted from 1
SHARDS = {"esnli-qwen-train": range(5, 10)}  # all others: 0 to 9

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
    ("esnli", "qwen", "rationale"): "half of the training table was published (shards 5 to 9)",
    ("esnli", "qwen", "revision"): "half of the training table was published (shards 5 to 9); two examples of the "
                                   "prompt revise a right answer to 'neutral'",
    ("strategyqa", "qwen", "revision"): "94 % of the raw texts run on into other questions and stop in mid-sentence",
    ("strategyqa", "qwen", "counterfactual"): "at least a quarter of the raw texts argue for the other answer",
}


def published_explanations(questions, dataset, teacher, prompting, folder="", base_url=BASE_URL):
    """Return the published explanations of `questions` as a frame with the columns of tables.EXPLANATIONS.

    `prompting` is few_shot, critique_revision or counterfactual, or the stage that it ends in (rationale,
    revision, counterfactual). One row per question, for counterfactual one per question and choice. Joined by
    id and content for cqa, else by the letters and digits of the question. A question that was not
    published, or for another gold answer, has a row with text None and the problem; nothing is left out.

    `folder` holds ``{dataset}-{teacher}-{split}.parquet`` or ``{dataset}-{teacher}-{split}/shard_{i}``; ""
    downloads from `base_url`. ``frame.attrs`` has ``notes`` (what cleaning did and what is missing, counted),
    ``content`` (per table, whether its rows are the pinned ones) and ``caution`` (known defects, or "").

    Raises StudyError for unknown names, unusable columns, tables that were never published, missing or
    broken files, and a download that fails or differs from the pinned content.
    """
    stage = STAGES.get(prompting, prompting)
    _check_names(dataset, teacher, stage)
    published, content = {}, {}
    for name in _table_names(questions, dataset, teacher):
        records = load_table(name, folder, base_url)
        content[name] = _content_state(name, records)
        for key, record in _keyed(dataset, records, name, stage):
            published.setdefault(key, record)
    rows, cleaned = [], []
    for question in questions.to_dict("records"):
        for answer, raw, problem in _texts(question, published.get(_join_key(dataset, question)), stage):
            cleaned.append(Cleaned(None, [], problem) if problem else clean(raw, answer))
            rows.append({"id": question["id"], "stage": stage, "answer": answer, "raw": raw})
    return _explanations(rows, cleaned, content, CAUTIONS.get((dataset, teacher, stage), ""))


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


def content_checksum(records):
    """Return the SHA-256 of a table's rows: per row, in order, JSON with sorted keys and no spaces, and a newline.

    All columns count, in any order; how the file packs them does not. Text is UTF-8, not escaped.
    """
    digest = hashlib.sha256()
    for record in records:
        line = json.dumps(record, sort_keys=True, ensure_ascii=False, separators=(",", ":")) + "\n"
        digest.update(line.encode("utf-8"))
    return digest.hexdigest()


def load_table(name, folder="", base_url=BASE_URL):
    """Return the rows of one published table, such as ``cqa-llama-train``, as a list of dicts.

    From `folder`, or with "" from ``teacher_llama`` below KDUTILS_DATA, or else from the cache, which a download
    fills. A local folder of shards may be incomplete.
    """
    if name == "cqa-qwen-train":
        raise StudyError(f"{name}: its consolidated table was never published; use the questions of another split, or "
                         "teacher 'llama'")
    folder = folder or _local_copy(name)
    return _from_folder(name, project_path(folder)) if folder else _from_cache(name, base_url)


# Files and downloads

def _local_copy(name):
    """Return the folder below KDUTILS_DATA that holds the table, "" where there is none."""
    data = os.environ.get("KDUTILS_DATA", "")
    return f"{data}/teacher_llama" if data and Path(data, "teacher_llama", f"{name}.parquet").is_file() else ""


def _from_folder(name, folder):
    if (folder / f"{name}.parquet").is_file():
        return read_records(folder / f"{name}.parquet")
    shards = [folder / name / f"shard_{i}" for i in _shards(name)]
    shards = [shard for shard in shards if shard.is_dir()]
    if not shards:
        raise StudyError(f"{folder}: neither {name}.parquet nor {name}/shard_0 in this folder")
    return [record for shard in shards for record in read_records(shard)]


def _shards(name):
    return SHARDS.get(name, range(10))


def _from_cache(name, base_url):
    """Return the rows in the cache; download them where they are not there or not what was published."""
    path = cache_folder() / "published" / COMMIT / f"{name}.parquet"
    try:
        records = read_records(path)
        if name not in CONTENT or content_checksum(records) == CONTENT[name]:
            return records
    except StudyError:
        pass  # not there yet, or broken: the download below replaces it
    table = _joined([_download_shard(name, i, base_url) for i in _shards(name)], f"{base_url}/{name}")
    found = content_checksum(table.to_pylist())
    if name in CONTENT and found != CONTENT[name]:
        raise StudyError(f"{base_url}/{name}: not the published content (SHA-256 of the rows is {found}, expected "
                         f"{CONTENT[name]}); nothing was kept")
    with written_whole(path) as temporary:  # another run may read the cache at the same time
        pq.write_table(table.replace_schema_metadata(None), temporary)
    return table.to_pylist()


def cache_folder():
    """Return the folder for downloads: the environment variable KDUTILS_CACHE, or ~/.cache/kdutils."""
    return project_path(os.environ.get("KDUTILS_CACHE") or Path.home() / ".cache" / "kdutils")


def _download_shard(name, index, base_url):
    url = f"{base_url}/{name}/shard_{index}/data-00000-of-00001.arrow"
    if not url.startswith(("https://", "http://")):
        raise StudyError(f"{url}: not an http address")
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
            return read_arrow_stream(response.read())
    except urllib.error.HTTPError as error:
        raise StudyError(f"{url}: the server answers {error.code} {error.reason}; nothing was kept") from error
    except (OSError, http.client.HTTPException) as error:
        raise StudyError(f"{url}: cannot be downloaded ({error}); give a local `folder` with the tables") from error
    except pa.ArrowException as error:
        raise StudyError(f"{url}: not Arrow data ({error}); nothing was kept") from error


def _joined(shards, where):
    try:
        return pa.concat_tables(shards)
    except pa.ArrowException as error:
        raise StudyError(f"{where}: the shards have different columns ({error}); nothing was kept") from error


def _content_state(name, records):
    if name not in CONTENT:
        return "no checksum known"
    return "as published" if content_checksum(records) == CONTENT[name] else "differs from what was published"


# Names, and the join to the study's questions

def _check_names(dataset, teacher, stage):
    for what, value, known in (("dataset", dataset, DATASETS), ("teacher", teacher, TEACHERS),
                               ("prompting", stage, (*STAGES, *COLUMNS))):
        if value not in known:
            raise StudyError(f"published explanations: {what} '{value}' is unknown; choose one of {', '.join(known)}")
    if (dataset, teacher, stage) in REFUSED:
        raise StudyError(f"{dataset}-{teacher}, {stage}: refused. {REFUSED[dataset, teacher, stage][0].upper()}"
                         f"{REFUSED[dataset, teacher, stage][1:]}")


def _table_names(questions, dataset, teacher):
    """Return the tables that hold these questions; the published train split includes the study's dev split."""
    splits = dict.fromkeys("test" if split == "test" else "train" for split in questions["split"])
    return [f"{dataset}-{teacher}-{split}" for split in splits]


def _join_key(dataset, question):
    """Return what identifies a question here and there; ids alone are not unique over data sets, content is."""
    key = content_key(question["question"])
    return (question["id"], key) if dataset == "cqa" else key


def _keyed(dataset, records, name, stage):
    """Yield (join key, record) where a record holds the published answer, the choices and the texts of `stage`."""
    for row, record in enumerate(records):
        item = to_question(READERS[dataset], record, f"{name}: row {row}")
        if isinstance(item, str):
            continue
        # a repeated choice is merged in the study's questions; its place counts in the names of the columns
        choices = [choice.strip() for choice in record.get("choices") or item["choices"]]
        columns = [COLUMNS[stage].format(i + 1) for i in range(len(choices))]
        for column in columns:
            if column not in record:
                raise StudyError(f"{name}: row {row}: no column '{column}'")
        yield _join_key(dataset, item), {"answer": item["answer"], "choices": choices,
                                         "texts": [record[column] or "" for column in columns]}


def _texts(question, published, stage):
    """Return (answer, raw text, problem) of each text that the stage has for a question."""
    answers = list(question["choices"]) if stage == "counterfactual" else [question["answer"]]
    if published is None:
        return [(answer, "", "not published") for answer in answers]
    if stage != "counterfactual" and published["answer"] != question["answer"]:
        return [(question["answer"], "", "published for another answer")]
    texts = dict(reversed(list(zip(published["choices"], published["texts"], strict=True))))  # the first one stays
    return [(answer, texts.get(answer, ""), "" if answer in texts else "not published") for answer in answers]


def _explanations(rows, cleaned, content, caution):
    frame = pd.DataFrame(rows, columns=["id", "stage", "answer", "raw"], dtype=object)
    for column in ("text", "changes", "problem"):
        frame[column] = pd.Series([getattr(item, column) for item in cleaned], dtype=object)
    frame["finish_reason"] = "unknown"
    for column in ("prompt_tokens", "completion_tokens"):
        frame[column] = pd.array([pd.NA] * len(frame), dtype="Int64")
    frame = frame[EXPLANATIONS.names]
    frame.attrs.update(notes=count_changes(cleaned), content=content, caution=caution)
    return frame
