"""The teacher backend ``published``: explanations that others published, and nobody has to generate again.

**Llama-2-13B and Qwen3-30B-A3B** (arXiv 2504.16056). The authors' repository holds, per data set, teacher and
split, one table of ten Arrow shards: the questions and one column of text per prompting ("consolidated"). A second
layout holds one table per stage (STAGE_FOLDERS), under the same columns; it is read where a consolidated table is
missing. Tables come from a local folder, as shards or as one Parquet file each, or are downloaded at a pinned
commit and kept in a cache. The repository states no licence, so no part of it is shipped.

**PaLM-540B** (Hsieh et al. 2023, "Distilling Step-by-Step"): chains of thought for cqa, svamp, esnli and round 1
of anli, written without knowing the answer. One string per question, in the order of the questions, which runs on
into made-up questions: the first answer ends it. They are in ``datasets.zip`` of the repository
google-research/distilling-step-by-step (Apache-2.0), which is read unpacked; no download is known here.

**People**: what a data set's own annotators wrote (the column human_explanations of the questions), where it has that.

What is wrong with the published texts is known here: they are cleaned (``cleaning``), columns that are not what
their name says are refused (REFUSED), and other defects come along as notes (CAUTIONS).
"""

import difflib
import hashlib
import http.client
import json
import math
import os
import re
import urllib.error
import urllib.request
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from kdutils.data.questions import HALF, LETTERS, evaluate, is_whole_text, number_text
from kdutils.data.readers import NLI_LABELS, READERS, content_key, read_arrow_stream, read_records, to_question
from kdutils.data.tables import EXPLANATIONS, first_line, path_kind
from kdutils.errors import StudyError, shown
from kdutils.runs import project_path, written_whole
from kdutils.teacher.cleaning import Cleaned, clean, count_changes

COMMIT = "c31e830512e352e6fa3e3f2f0ce728913d783a2b"
BASE_URL = f"https://raw.githubusercontent.com/DanielHendriks/llm-distillation/{COMMIT}/llm_outputs/consolidated"
TIMEOUT = 60  # seconds without an answer

DATASETS = ("cqa", "esnli", "strategyqa")
PALM = "palm"
PEOPLE = "people"
TEACHERS = {"llama": "Llama-2-13B", "qwen": "Qwen3-30B-A3B-Instruct-2507", PALM: "PaLM-540B", PEOPLE: "people"}
STAGES = {"few_shot": "rationale", "critique_revision": "revision", "counterfactual": "counterfactual"}
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

PALM_SPLITS = {  # data set -> its name in the files, split of a question -> split of the files
    "cqa": ("cqa", {"train": "train", "dev": "train", "test": "test"}),
    "svamp": ("svamp", {"train": "train", "dev": "train", "test": "test"}),
    "esnli": ("esnli", {"train": "train", "dev": "valid", "test": "test"}),
    "anli": ("anli1", {"train": "train", "dev": "valid", "test": "test"}),
}
PALM_OPTIONAL = {"esnli_train", "anli1_train"}  # in the zip file, not among the unpacked copies that are known
PALM_CAUTION = ("the teacher was not told the answer: a text argues for the answer in its row, which may be a wrong "
                "one; texts for a wrong answer are not trained on")
PALM_CONTENT = {  # content_checksum of the strings in order, each under the key "cot"
    "cqa_train": "527cda0342158b8a91b268eaba9886b8636c8c19a81eaa6ecafc2a46992255c4",
    "cqa_test": "fda3804027581c9bdc4a0a07a038bc68be02e476babf85d12651d6dfb05a7dc0",
    "svamp_train": "d1b5b952f6c0755cec50908c1fa4037376134199271a363f7a23a9b65cc9d105",
    "svamp_test": "34e6c7b513881e6ef6b46579360d5506ba0491de3c089477d9bf17f32b7a1cb4",
    "anli1_valid": "8bd6fb1ef0d2d52379d32f4aab240d1e31bc15af84eeacc1000896a715a51a70",
    "anli1_test": "f3d7dac2623616828b714a63557266f63d21d84a827c10dcf6080cc4c4396f7c",
    "esnli_valid": "c8b05574be0069a94d3a29961f3c4bf741166557ec7cd73462f91ab47661015f",
    "esnli_test": "48e0ea713adca8923b807ab4e67b1ef2b67d2e0b4f9360c140eadcf80f38e415",
}


def published_explanations(questions, dataset, teacher, prompting, folder="", base_url=BASE_URL):
    """Return the published explanations of `questions` as a frame with the columns of tables.EXPLANATIONS.

    `prompting` is few_shot, critique_revision or counterfactual, or the stage that it ends in (rationale,
    revision, counterfactual). One row per question, for counterfactual one per question and choice. Joined by
    id and content for cqa, else by the letters and digits of the question. A question that was not
    published, or for another gold answer, has a row with text None and the problem; nothing is left out.

    `teacher` llama or qwen: `folder` holds ``{dataset}-{teacher}-{split}`` as a Parquet file or as a folder of
    ``shard_{i}``, or the same of one stage (``rationales__{dataset}-{teacher}-{split}.parquet``, also below
    ``stages``, or ``rationales/{dataset}-{teacher}-{split}/shard_{i}``); "" downloads from `base_url`.
    `teacher` palm: only few_shot; `folder` holds ``{dataset}_{split}_CoT.parquet`` or the unpacked ``datasets.zip``;
    "" is ``palm540b_dss`` below KDUTILS_DATA. The answer of a row is PaLM's own, "" where it gave none.
    `teacher` people: only few_shot, any data set whose questions have explanations by people, the first one each.

    ``frame.attrs`` has ``notes`` (what cleaning did and what is missing, counted; for palm also the share of
    answers that are right, per file), ``content`` (per table, whether its rows are the pinned ones) and
    ``caution`` (known defects, or "").

    Raises StudyError for unknown names, unusable columns, missing or broken files, and a download that fails or
    differs from the pinned content.
    """
    stage = STAGES.get(prompting, prompting)
    _check_names(dataset, teacher, stage)
    if teacher == PEOPLE:
        return _human_explanations(questions, dataset)
    if teacher == PALM:
        return _palm_explanations(questions, dataset, _palm_folder(folder))
    published, content = {}, {}
    for name in _table_names(questions, dataset, teacher):
        try:
            source, records = _find_table(name, folder, base_url, stage)
        except _NotThere:
            if name.endswith("-validation"):
                continue  # an extra: these questions are "not published" then
            raise
        content[source] = _content_state(source, records)
        for key, record in _keyed(dataset, records, source, stage):
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

    All columns count, in any order; how the file packs them does not. Text is UTF-8, not escaped. A value that JSON
    does not have, such as a date, counts as Python writes it.
    """
    digest = hashlib.sha256()
    for record in records:
        line = json.dumps(record, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str) + "\n"
        digest.update(line.encode("utf-8", errors="surrogatepass"))
    return digest.hexdigest()


def load_table(name, folder="", base_url=BASE_URL, stage=""):
    """Return the rows of one published table, such as ``cqa-llama-train``, as a list of dicts.

    From `folder`, or with "" from ``teacher_llama`` below KDUTILS_DATA, or else from the cache, which a download
    fills. A local folder of shards may be incomplete. With a `stage` (rationale, revision, counterfactual) the
    table of that stage alone is taken where the consolidated one is missing.
    """
    return _find_table(name, folder, base_url, stage)[1]


# Files and downloads

class _NotThere(StudyError):
    """Neither the consolidated table nor that of the stage is where it was looked for."""


def _find_table(name, folder, base_url, stage):
    """Return (name of the source, its rows); the table of a stage is called ``rationales__cqa-qwen-train``."""
    data = os.environ.get("KDUTILS_DATA", "")
    if folder:
        return _from_folder(name, project_path(folder), stage)
    if data and Path(data, "teacher_llama").is_dir():
        try:
            return _from_folder(name, Path(data, "teacher_llama"), stage)
        except _NotThere:
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
    raise _NotThere(f"{folder}: neither {name}.parquet nor {name}/shard_0 in this folder"
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
        except _NotThere as error:
            missing.append(str(error))
    raise _NotThere("; ".join(missing))


def _cached(source):
    return cache_folder() / "published" / COMMIT / f"{source}.parquet"


def _download(source, url, shards):
    table = _joined([_download_shard(f"{url}/shard_{i}/data-00000-of-00001.arrow") for i in shards], url)
    found = content_checksum(table.to_pylist())
    if source in CONTENT and found != CONTENT[source]:
        raise StudyError(f"{url}: not the published content (SHA-256 of the rows is {found}, expected "
                         f"{CONTENT[source]}); nothing was kept")
    with written_whole(_cached(source)) as temporary:  # another run may read the cache at the same time
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
        kind = _NotThere if error.code == 404 else StudyError
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


def _content_state(name, records):
    if name not in CONTENT:
        return "no checksum known"
    return "as published" if content_checksum(records) == CONTENT[name] else "differs from what was published"


# Names, and the join to the study's questions

def check_published(dataset, teacher, prompting, folder=""):
    """Raise StudyError where no explanations of this kind were published, or where they are cannot be known."""
    _check_names(dataset, teacher, STAGES.get(prompting, prompting))
    if teacher == PALM:
        _palm_folder(folder)


def _check_names(dataset, teacher, stage):
    datasets = {PALM: PALM_SPLITS, PEOPLE: (dataset,)}.get(teacher, DATASETS)
    for what, value, known in (("teacher", teacher, TEACHERS), ("dataset", dataset, datasets),
                               ("prompting", stage, (*STAGES, *COLUMNS))):
        if value not in known:
            whose = f" for teacher '{teacher}'" if what == "dataset" else ""
            raise StudyError(f"published explanations: {what} '{value}' is unknown{whose}; choose one of "
                             f"{', '.join(known)}")
    if teacher in (PALM, PEOPLE) and stage != "rationale":
        raise StudyError(f"{dataset}-{teacher}, {stage}: never published; {TEACHERS[teacher]} wrote few_shot "
                         "rationales alone")
    if (dataset, teacher, stage) in REFUSED:
        raise StudyError(f"{dataset}-{teacher}, {stage}: refused. {REFUSED[dataset, teacher, stage][0].upper()}"
                         f"{REFUSED[dataset, teacher, stage][1:]}")


def _table_names(questions, dataset, teacher):
    """Return the tables that hold these questions; the study's dev split is a part of the published train split.

    For esnli it may also be the tenth of SNLI's validation split that was published (per stage, as -validation).
    """
    splits = dict.fromkeys("test" if split == "test" else "train" for split in questions["split"])
    if dataset == "esnli" and (questions["split"] == "dev").any():
        splits["validation"] = None
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
        choices = _seen_choices(record, item, f"{name}: row {row}")
        columns = [COLUMNS[stage].format(i + 1) for i in range(len(choices))]
        texts = [_published_text(record, column, f"{name}: row {row}") for column in columns]
        yield _join_key(dataset, item), {"answer": item["answer"], "choices": choices, "texts": texts}


def _seen_choices(record, item, where):
    """Return the choices as the teacher saw them: those of the published record, where it has any."""
    choices = record.get("choices")
    if choices is None or choices == []:
        return list(item["choices"])
    if not isinstance(choices, list) or not all(isinstance(choice, str) and is_whole_text(choice)
                                                for choice in choices):
        raise StudyError(f"{where}: field 'choices': {shown(choices)} is not a list of texts")
    return [choice.strip() for choice in choices]


def _published_text(record, column, where):
    """Return the text in a column of a record, "" for a missing one; StudyError for what is no text."""
    if column not in record:
        raise StudyError(f"{where}: no column '{column}'")
    text = record[column]
    if text is None or isinstance(text, float) and math.isnan(text):
        return ""  # counted as empty
    if not isinstance(text, str):
        raise StudyError(f"{where}: column '{column}': {shown(text)} is not a text")
    if not is_whole_text(text):
        raise StudyError(f"{where}: column '{column}': {HALF}")
    return text


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
    frame["round"] = (frame["stage"] == "revision").astype(int)  # the published runs have one round
    for column in ("prompt_tokens", "completion_tokens"):
        frame[column] = pd.array([pd.NA] * len(frame), dtype="Int64")
    frame = frame[EXPLANATIONS.names]
    frame.attrs.update(notes=count_changes(cleaned), content=content, caution=caution)
    return frame


# People

def _human_explanations(questions, dataset):
    """Return what people wrote on `questions`; StudyError where nobody explained any of them."""
    rows, cleaned = [], []
    for question in questions.to_dict("records"):
        raw = next((text for text in question["human_explanations"] if text.strip()), "")
        text = " ".join(raw.split())  # the rules for what a model writes at its token limit are not for people
        cleaned.append(Cleaned(text, ["joined_lines"] if text != raw.strip() else []) if raw
                       else Cleaned(None, [], "not published"))
        rows.append({"id": question["id"], "stage": "rationale", "answer": question["answer"], "raw": raw})
    if len(rows) and not any(row["raw"] for row in rows):
        raise StudyError(f"{dataset}-{PEOPLE}: none of the {len(rows)} questions has an explanation by people; take "
                         "another teacher, or a copy of the data set that has them")
    return _explanations(rows, cleaned, {}, "")


# PaLM-540B

_PALM_NEXT = re.compile(r"\n\s*\n|\n(?:Q|Premise):")  # the teacher goes on to a question of its own
_PALM_ANSWER = re.compile(r"(?:\bso )?\bthe answer is\b|(?:^|\n)Answer:", re.IGNORECASE)


def _palm_folder(folder):
    data = os.environ.get("KDUTILS_DATA", "")
    if not folder and not (data and Path(data, "palm540b_dss").is_dir()):
        raise StudyError("PaLM-540B's chains of thought: no download is known; unpack datasets.zip of "
                         "google-research/distilling-step-by-step and give that `folder`, or set KDUTILS_DATA to a "
                         "folder that holds palm540b_dss")
    folder = project_path(folder or data)
    return folder / "palm540b_dss" if path_kind(folder / "palm540b_dss") == "folder" else folder


def _palm_explanations(questions, dataset, folder):
    name, splits = PALM_SPLITS[dataset]
    published, content = {}, {}
    for stem in dict.fromkeys(f"{name}_{splits[split]}" for split in questions["split"]):
        inputs, texts = _palm_table(stem, folder)
        if texts:
            content[stem] = _palm_content(stem, texts)
        for row, (record, text) in enumerate(zip(inputs, texts, strict=True)):
            for key, choices in _palm_key(dataset, record, f"{stem}: row {row}"):
                published.setdefault(key, (stem, choices, text))
    if not content:
        asked = ", ".join(dict.fromkeys(questions["split"]))
        raise StudyError(f"{folder}: no chains of thought for '{dataset}', split {asked}")
    rows, cleaned, right = [], [], {stem: [] for stem in content}
    for question in questions.to_dict("records"):
        stem, choices, raw = published.get(_join_key(dataset, question), ("", [], ""))
        answer, text = parse_palm(dataset, raw, choices) if stem else ("", Cleaned(None, [], "not published"))
        rows.append({"id": question["id"], "stage": "rationale", "answer": answer, "raw": raw})
        cleaned.append(text)
        right.get(stem, []).append(answer == question["answer"])
    frame = _explanations(rows, cleaned, content, PALM_CAUTION)
    frame.attrs["notes"].update({f"{stem}: share of own answers that are right": round(sum(marks) / len(marks), 4)
                                 for stem, marks in right.items() if marks})
    return frame


def _palm_table(stem, folder):
    """Return (inputs, texts), row by row of one question; two empty lists for a file that may be missing."""
    name, split = stem.split("_")
    packed, parts = folder / f"{stem}_CoT.parquet", _palm_parts(folder / name / "llm", split)
    if path_kind(packed) == "file":
        texts = [record.get("cot") for record in read_records(packed)]
        source = folder / f"{stem}_inputs.parquet"
        if name == "cqa":  # these inputs are CommonsenseQA itself
            source = folder.parent / "cqa" / {"train": "train.parquet", "test": "validation.parquet"}[split]
    elif parts:
        texts = [text for part in parts for text in _json_texts(part)]
        source = folder / name / f"{stem}.json"
    elif stem in PALM_OPTIONAL:
        return [], []
    else:
        raise StudyError(f"{folder}: neither {packed.name} nor {name}/llm/{split}_CoT_0.json in this folder")
    inputs = read_records(source)
    if len(inputs) != len(texts):
        raise StudyError(f"{source}: {len(inputs)} rows, but {stem}_CoT has {len(texts)}; they are joined row by row")
    wrong = next((row for row, text in enumerate(texts) if not isinstance(text, str) or not is_whole_text(text)), None)
    if wrong is not None:
        raise StudyError(f"{stem}_CoT: row {wrong}: field 'cot' is not a text" if not isinstance(texts[wrong], str)
                         else f"{stem}_CoT: row {wrong}: field 'cot': {HALF}")
    return inputs, texts


def _palm_parts(folder, split):
    """Return the parts of a split in their order, {split}_CoT_0.json and so on; StudyError where one is missing."""
    parts = {path.stem.rpartition("_")[2]: path for path in folder.glob(f"{split}_CoT_*.json")}
    for number in map(str, range(len(parts))):
        if number not in parts:
            raise StudyError(f"{folder}: {len(parts)} parts {split}_CoT_*.json, but {split}_CoT_{number}.json is not "
                             "among them")
    return [parts[str(number)] for number in range(len(parts))]


def _json_texts(path):
    if path_kind(path) != "file":
        raise StudyError(f"{path}: not a file")
    try:
        texts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise StudyError(f"{path}: not readable JSON ({error})") from error
    if not isinstance(texts, list):
        raise StudyError(f"{path}: not a list of texts")
    return texts


def _palm_content(stem, texts):
    if stem not in PALM_CONTENT:
        return "no checksum known"
    found = content_checksum({"cot": text} for text in texts)
    return "as published" if found == PALM_CONTENT[stem] else "differs from what was published"


def _palm_key(dataset, record, where):
    """Yield (join key, choices as the teacher saw them) of one row of the inputs; nothing for a row without a label."""
    if dataset == "svamp" and "input" in record:
        yield content_key(_published_text(record, "input", where)), []
        return
    item = to_question(READERS[dataset], record, where)
    if not isinstance(item, str):
        yield _join_key(dataset, item), _seen_choices(record, item, where)


def parse_palm(dataset, text, choices=()):
    """Return (own answer, Cleaned rationale) of one of PaLM's strings, cut at the first made-up question.

    The rationale is what stands before "So the answer is" ("The answer is" for svamp, "Answer:" for esnli). The answer
    is one of `choices`, as the teacher saw them, or for svamp the value of its equation; "" with a problem where
    there is none, or more than one.
    """
    text = _PALM_NEXT.split(text, maxsplit=1)[0]
    found = list(_PALM_ANSWER.finditer(text))
    if not found:
        return "", Cleaned(None, [], "no answer")
    rationale, said = text[:found[-1].start()].strip(), text[found[-1].end():].strip().rstrip(".!").strip()
    try:
        answer = _palm_number(said) if dataset == "svamp" else _palm_choice(said, choices or NLI_LABELS)
    except ValueError as error:
        return "", Cleaned(None, [], str(error))
    changes = ["cut_at_answer"]
    if rationale[-1:].isalnum() or rationale.endswith(","):  # the answer follows: the sentence is a whole one
        rationale = f"{rationale.removesuffix(',')}."
        changes.append("full_stop_added")
    cleaned = clean(rationale, answer)
    return answer, Cleaned(cleaned.text, [*changes, *cleaned.changes], cleaned.problem)


def _palm_number(said):
    said = re.sub(r"(?<=\d),(?=\d{3}\b)", "", said.replace("$", ""))  # $1,200
    try:
        return number_text(evaluate(said))
    except ValueError:
        raise ValueError("answer is not a number") from None


def _palm_choice(said, choices):
    """Return the choice that ``(c) tuna`` or ``tuna`` names: by its words, else by its letter where they are alike."""
    letters = re.findall(r"\(([a-z])\)", said)
    if len(set(letters)) > 1:
        raise ValueError("more than one answer")
    words = said.rpartition(")")[2].strip().casefold()
    named = [choice for choice in choices if content_key(choice) == content_key(words)]
    if named:
        return named[0]
    lettered = [choices[LETTERS.index(letter)] for letter in letters if LETTERS.index(letter) < len(choices)]
    if not lettered or difflib.SequenceMatcher(None, words, lettered[0].casefold()).ratio() < 0.6:
        raise ValueError("answer is none of the choices")
    return lettered[0]
