"""The data sets: where the files of each one lie, and how one of its rows becomes a question.

READERS is the only place that knows both. A data set of your own is one more entry::

    def _riddles(row):                        # row: one record of the file, as a dict
        return {"id": str(row["nr"]), "question": row["riddle"], "choices": row["options"],
                "answer": row["options"][row["solution"]], "human_explanations": [row["why"]]}

    READERS["riddles"] = Reader(_riddles, local={"train": "riddles/train.jsonl", "test": "riddles/test.jsonl"})

A normalise function returns the question as a dict, or a string: the reason why the row is left out. The dict may also
hold ``note``, which is counted in the notes, and ``place``, (split, position in it), for one file with all splits. A
KeyError (no such column) or ValueError is reported with file and row. A file that has the columns id, question,
choices and answer needs no code: read it as the data set ``table``.

Sources: CommonsenseQA 1.11 with CoS-E (Rajani et al. 2019), e-SNLI (Camburu et al. 2018), StrategyQA (Geva et al.
2021), in the splits of arXiv 2504.16056; the dev split of CommonsenseQA is that of Hsieh et al. (2023), a tenth of
train drawn with seed 0. ANLI is round 1 (Nie et al. 2020). SVAMP (Patel et al. 2021) is cut into 800 and 200 as by
Hsieh et al. (2023); one of the 800 is left out, so its dev split is drawn from 799. CREAK (Onoe et al. 2021): the
labels of its test split are not public, so its dev split is the test split here, and dev is drawn from train. The
same holds for BoolQ (Clark et al. 2019), MNLI (Williams et al. 2018; its matched dev split), QASC (Khot et al. 2020)
and SQuAD 1.1 (Rajpurkar et al. 2016). A dev split that is drawn shares no passage and no premise with train.
OpenBookQA (Mihaylov et al. 2018), ARC (Clark et al. 2018; its Challenge set, the Easy set by `files`) and ECQA
(Aggarwal et al. 2021) have their own three splits. ``boolq_dev`` is the dev split of BoolQ alone, cut into three by
passage.

Human explanations: of OpenBookQA and QASC the facts from which a question was written, and of ECQA three texts: the
free text, which says why the right answer is right and the others are wrong, the reasons for the right answer, and
those against the wrong ones. The files of ECQA are those that its authors' script makes from ecqa.jsonl and
CommonsenseQA. An answer of SQuAD is short and free; the answers of its other annotators are ``other_answers``.
Questions without an answer (of SQuAD 2.0) are left out.

A local folder lacks the training inputs of ANLI's round 1. The dev split of round 3 replaces them there (1,198
questions; the notes say so). For a result on ANLI read from the Hub, or name your own file in `files`.
"""

import hashlib
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import pandas as pd

from kdutils.data.answers import evaluate_equation, format_number
from kdutils.data.own_tables import OwnTable, understand
from kdutils.data.own_tables import text_of as _text
from kdutils.data.own_tables import texts_of as _texts
from kdutils.errors import shown

NLI_LABELS = ("entailment", "neutral", "contradiction")
YES_NO = ("yes", "no")
TRUE_FALSE = ("true", "false")
SPLIT_COLUMN = "all"  # key of `files` for one file of all splits


@dataclass(frozen=True)
class Reader:
    """Where a data set lies and how its rows become questions; everything has a default."""

    normalise: Callable[[dict], dict | str] | None = None  # row -> question, or why the row is left out
    local: dict[str, str] = field(default_factory=dict)  # split -> file below the data folder
    hub: str = ""  # repository on the Hugging Face Hub, "" for none
    config: str | None = None
    revision: str | None = None
    hub_splits: dict[str, str] = field(default_factory=dict)  # split -> split on the Hub
    hub_share: dict[str, int] = field(default_factory=dict)  # split -> n: the first 1/n after a shuffle with seed 42
    instead: dict[str, str] = field(default_factory=dict)  # files that are read where none of `local` is there
    stand_ins: dict[str, str] = field(default_factory=dict)  # split -> what its local file is instead, for notes
    unpack: Callable[[dict], list[dict]] | None = None  # record of a file -> its rows, where it holds several
    drop_repeats: bool = False  # drop repeated questions (test wins over dev over train); otherwise they are errors
    make: Callable[[int], pd.DataFrame] | None = None  # seed -> questions, for a data set made by a program
    prompts: str = ""  # the data set whose prompts and published explanations are used; "" for its own
    columns: tuple = ()  # all columns that are read, if the notes are to name the others
    understand: Callable[[list[dict], str], OwnTable] | None = None  # (all rows, file) -> how they are read, own tables


def content_key(text: str) -> str:
    """Return the letters and digits of `text` in lower case: equal for two tokenisations of one text."""
    return re.sub(r"[\W_]+", "", text.casefold())


def repeat_key(text: str) -> str:
    """Return the content_key of a text and the signs between its numbers: 3 + 2 and 3 - 2 are two questions."""
    signs = re.findall(r"(?<=\d)(?:\s*([+*/×÷^<>=−])\s*|\s+(-)\s+)(?=\d)", text)
    return content_key(text) + "".join(map("".join, signs))


def nli_question(premise: str, hypothesis: str) -> str:
    """Return premise and hypothesis as one question, in the wording of arXiv 2504.16056."""
    return f"Premise: {premise} Hypothesis: {hypothesis} What is the relationship?"


# Fields

def _choices(row):
    choices = row["choices"]
    if not isinstance(choices, (list, tuple)) or not all(isinstance(choice, str) for choice in choices):
        raise ValueError("field 'choices' is not a list of texts")
    return [choice.strip() for choice in choices]


# One normalise function per data set

def _cqa(row):
    choices = _choices(row)
    return _chosen({"id": _text(row, "id"), "question": _text(row, "question"), "answer": _text(row, "answer"),
                    "human_explanations": _texts([row.get("abstractive_explanation")])}, choices)


def _esnli(row):
    """Accept the columns of SNLI, of e-SNLI's text files (s1, s2, expl_i; tokenised) and of its CSV files."""
    row = {name.casefold(): value for name, value in row.items()}
    plain = _detokenised if "s1" in row else str.strip
    question, label = _nli(row, plain)
    if label is None:
        return "no gold label"
    explanations = [row.get(f"{stem}_{i}") for i in (1, 2, 3) for stem in ("expl", "explanation")]
    return {"id": _id_of("esnli", question), "question": question, "choices": list(NLI_LABELS), "answer": label,
            "human_explanations": [plain(text) for text in _texts(explanations)]}


def _anli(row):
    """Accept the columns of the Hub, of ANLI's own files (context; labels e, n, c) and of its annotated dev splits."""
    question, label = _nli(row)
    if label is None:
        return "no gold label"
    return {"id": _text(row, "uid"), "question": question, "choices": list(NLI_LABELS), "answer": label,
            "human_explanations": _texts([row.get("reason")])}


def _nli(row, plain=str.strip):
    """Return (question, label as a word); premise, hypothesis and label have several column names."""
    premise, hypothesis = (plain(_text(row, _first(row, names))) for names in (
        ("premise", "s1", "sentence1", "context"), ("hypothesis", "s2", "sentence2", "statement")))
    return nli_question(premise, hypothesis), _nli_label(row[_first(row, ("label", "gold_label"))])


def _first(row, names):
    """Return the first of `names` that is a column of `row`; KeyError, naming the usual one, if none is."""
    for name in names:
        if name in row:
            return name
    raise KeyError(names[0])


def _nli_label(value):
    """Return the label as a word, None if the annotators did not agree (-1, "-")."""
    if isinstance(value, str):
        value = value.strip().casefold()
    elif isinstance(value, float) and value.is_integer():
        value = int(value)
    words = {"-1": None, "-": None} | {word: word for word in NLI_LABELS}
    words |= dict(zip("012enc", 2 * NLI_LABELS, strict=True))
    if not isinstance(value, (int, str)) or isinstance(value, bool) or str(value) not in words:
        raise ValueError(f"field 'label': {shown(value)} is none of {', '.join(NLI_LABELS)}, 0, 1, 2, -1")
    return words[str(value)]


def _detokenised(text):
    """Undo the tokenisation of e-SNLI's text files, because SNLI's train split is not tokenised."""
    text = re.sub(r" ([.,!?;:%)\]])", r"\1", " ".join(text.split()))
    text = re.sub(r"([(\[$#]) ", r"\1", text)
    text = re.sub(r" (n't|'s|'re|'m|'ll|'ve|'d)\b", r"\1", text)
    return re.sub(r"`` ?(.*?) ?(?:''|``)", r'"\1"', text)


def _strategyqa(row):
    facts = row.get("facts") or []
    if not isinstance(facts, (str, list, tuple)):
        raise ValueError(f"field 'facts': {shown(facts)} is neither a text nor a list of texts")
    return {"id": _text(row, "qid"), "question": _text(row, "question"), "choices": list(YES_NO),
            "answer": _yes_no(row["answer"]),
            "human_explanations": _texts([facts if isinstance(facts, str) else " ".join(_texts(facts))])}


def _creak(row):
    """Return a claim, to be judged true or false."""
    label = str(row["label"]).strip().casefold()
    if label not in TRUE_FALSE:
        raise ValueError(f"field 'label': {shown(row['label'])} is neither true nor false")
    return {"id": _text(row, "ex_id"), "question": _text(row, "sentence"), "choices": list(TRUE_FALSE), "answer": label,
            "human_explanations": _texts([row.get("explanation")])}


def _boolq(row):
    """Return a question on a passage. The layout of LLM-Adapters (Hu et al. 2023) has none; elsewhere this is noted."""
    if "instruction" in row:
        row = {**row, "question": _instructed(row, _BOOLQ_ASKED)[1]}
    question = _text(row, "question").rstrip("? ")
    question, passage = f"{question[:1].upper()}{question[1:]}?", row.get("passage") or ""
    item = {"id": _id_of("boolq", f"{passage} {question}"), "question": question, "context": passage,
            "choices": list(YES_NO), "answer": _yes_no(row["answer"]), "human_explanations": []}
    return item if passage or "instruction" in row else item | {"note": "no passage"}


_BOOLQ_ASKED = re.compile(r"Please answer the following question with true or false, question: (.+?)\s*"
                          "Answer format:.*", re.DOTALL)
_OPENBOOKQA_ASKED = re.compile(r"Please choose the correct answer to the question: (.+?)\s*Answer1: (.+?) "
                               r"Answer2: (.+?) Answer3: (.+?) Answer4: (.+?)\s*Answer format:.*", re.DOTALL)


def _instructed(row, layout):
    """Return the match of a row of LLM-Adapters, whose one text holds question and choices."""
    asked = layout.fullmatch(_text(row, "instruction"))
    if not asked:
        raise ValueError(f"field 'instruction': {shown(row['instruction'], 80)} is not laid out as in LLM-Adapters")
    return asked


def _mnli(row):
    """Accept the columns of the published JSON lines (sentence1, gold_label, pairID) and of the Hub."""
    question, label = _nli(row)
    if label is None:
        return "no gold label"
    given = row.get("pairID")
    return {"id": given if isinstance(given, str) and given else _id_of("mnli", question), "question": question,
            "choices": list(NLI_LABELS), "answer": label, "human_explanations": []}


def _science(row, facts=()):
    """Return a question with lettered choices, as of OpenBookQA, QASC and ARC; `facts` explain its answer.

    In the published files the question holds stem and choices, on the Hub they are columns.
    """
    asked = row["question"] if isinstance(row.get("question"), dict) else {
        "stem": row["question_stem" if "question_stem" in row else "question"], "choices": row["choices"]}
    labels, texts = _lettered(asked["choices"])
    key = row.get("answerKey")
    if not key:
        return "no gold answer"
    if key not in labels:
        raise ValueError(f"field 'answerKey': {shown(key)} is none of {', '.join(labels)}")
    return _chosen({"id": _text(row, "id"), "question": _text(asked, "stem"), "answer": texts[labels.index(key)],
                    "human_explanations": _texts(facts)}, texts)


def _lettered(choices):
    """Return (labels, texts) of choices: a list of {label, text}, or the two lists under these names."""
    if isinstance(choices, dict):
        labels, texts = choices["label"], choices["text"]
    elif isinstance(choices, (list, tuple)) and all(isinstance(choice, dict) for choice in choices):
        labels, texts = [choice["label"] for choice in choices], [choice["text"] for choice in choices]
    else:
        raise ValueError(f"field 'choices': {shown(choices)} are no choices with label and text")
    if len(labels) != len(texts) or not all(isinstance(one, str) for one in (*labels, *texts)):
        raise ValueError("field 'choices': labels and texts do not belong together, or are no texts")
    return list(labels), [text.strip() for text in texts]


def _chosen(item, choices):
    """Return a question with its choices; one that is named twice is kept once, and this is noted."""
    item["choices"] = list(dict.fromkeys(choices))
    if len(item["choices"]) < len(choices):  # true of 146 questions of CommonsenseQA 1.11
        item["note"] = "a choice named twice, kept once"
    return item


def _openbookqa(row):
    """Accept the published JSON lines, the Hub, and LLM-Adapters (Hu et al. 2023), which has no ids and facts."""
    if "instruction" not in row:
        return _science(row, _sentences(row.get("fact1")))
    asked, named = _instructed(row, _OPENBOOKQA_ASKED), re.fullmatch("answer([1-4])", _text(row, "answer"))
    if not named:
        raise ValueError(f"field 'answer': {shown(row['answer'])} is none of answer1 to answer4")
    question, *choices = (text.strip() for text in asked.groups())
    return _chosen({"id": _id_of("openbookqa", " ".join([question, *choices])), "question": question,
                    "answer": choices[int(named[1]) - 1], "human_explanations": []}, choices)


def _qasc(row):
    facts = _sentences(row.get("fact1"), row.get("fact2"))
    return _science(row, [" ".join(facts), *_sentences(row.get("combinedfact"))])


def _sentences(*texts):
    """Return the texts that there are, each as a sentence."""
    texts = [text[:1].upper() + text[1:] for text in _texts(texts)]
    return [text if text[-1] in ".!?" else f"{text}." for text in texts]


def _ecqa(row):
    """Accept the files of the authors' script and the Hub; the lines of taskA_pos and taskA_neg are one text each."""
    choices = [_text(row, f"q_op{number}") for number in range(1, 6)]
    reasons = [" ".join(_sentences(*text.splitlines())) for name in ("taskA_pos", "taskA_neg")
               for text in _texts([row.get(name)])]
    return _chosen({"id": _text(row, "q_no"), "question": _text(row, "q_text"), "answer": _text(row, "q_ans"),
                    "human_explanations": _texts([row.get("taskB"), *reasons])}, choices)


def _squad_rows(record):
    """Return the questions of a published file of SQuAD, which is one object; a row of the Hub is one question."""
    if "data" not in record:
        return [record]
    return [{**question, "context": paragraph["context"]} for article in record["data"]
            for paragraph in article["paragraphs"] for question in paragraph["qas"]]


def _squad(row):
    answers = row["answers"]
    texts = answers["text"] if isinstance(answers, dict) else [answer["text"] for answer in answers]
    answers = list(dict.fromkeys(_texts(texts)))
    if not answers or row.get("is_impossible"):
        return "no answer in the passage"
    return {"id": _text(row, "id"), "question": _text(row, "question"), "context": _text(row, "context"), "choices": [],
            "answer": answers[0], "other_answers": answers[1:], "human_explanations": []}


def _yes_no(value):
    words = {"true": "yes", "false": "no", "yes": "yes", "no": "no"}
    text = str(value).strip().casefold() if isinstance(value, (str, bool)) else ""
    if text not in words:
        raise ValueError(f"field 'answer': {shown(value)} is neither yes nor no")
    return words[text]


def _svamp(row):
    """Return a question whose answer is a number. Its equation is checked and not kept, because no person wrote it."""
    answer = _number(row, "Answer")
    try:
        value = evaluate_equation(_text(row, "Equation"))
    except ValueError as error:
        raise ValueError(f"field 'Equation': {error}") from error
    if not math.isclose(value, answer, abs_tol=1e-6):
        return "the equation does not give the answer"
    identifier = _text(row, "ID")
    return {"id": identifier, "question": f"{_text(row, 'Body')} {_text(row, 'Question')}", "choices": [],
            "answer": format_number(answer), "place": _svamp_places().get(identifier)}


def _number(row, name):
    """Return a number, which is a text in CSV files, as float."""
    value = row[name]
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"field '{name}': {shown(value)} is not a number")
    return number


@cache
def _svamp_places():
    """Return id -> (split, position in it): 800 and 200 of the permuted questions, as cut by Hsieh et al. (2023)."""
    order = np.random.RandomState(0).permutation(1000)
    return {f"chal-{number + 1}": ("train", i) if i < 800 else ("test", i - 800) for i, number in enumerate(order)}


def _id_of(dataset, question):
    """Return an id for data sets that have none, made from the repeat_key of the question."""
    return f"{dataset}-{hashlib.sha256(repeat_key(question).encode()).hexdigest()[:16]}"


def _mini(seed):
    """Return the questions of the embedded world."""
    from kdutils.data.mini_world import build_questions

    return build_questions(seed=seed)


READERS = {
    "mini": Reader(None, make=_mini),
    "cqa": Reader(
        _cqa, local={"train": "cqa/train.parquet", "test": "cqa/validation.parquet"},
        hub="Salesforce/cos_e", config="v1.11", hub_splits={"train": "train", "test": "validation"}),
    "esnli": Reader(
        _esnli, drop_repeats=True,
        # train: the 1/50 sample of SNLI's train that the published explanations were written for
        local={"train": "teacher_llama/esnli-llama-train.parquet", "dev": "esnli_original/dev.parquet",
               "test": "esnli_original/test.parquet"},
        hub="stanfordnlp/snli", config="plain_text", revision="cdb5c3d5eed6ead6e5a341c8e56e669bb666725b",
        hub_splits={"train": "train", "dev": "validation", "test": "test"}, hub_share={"train": 50, "dev": 10}),
    "strategyqa": Reader(
        _strategyqa, drop_repeats=True,
        local={"train": "teacher_llama/strategyqa-llama-train.parquet",
               "test": "teacher_llama/strategyqa-llama-test.parquet"},
        hub="ChilleD/StrategyQA", revision="705562638fe1d8ca6bb98c66fc8f94d45fda8c83",
        hub_splits={"train": "train", "test": "test"}),
    "anli": Reader(  # round 1
        _anli, drop_repeats=True,
        local={"train": "anli/r3_dev_annotated.parquet", "dev": "palm540b_dss/anli1_valid_inputs.parquet",
               "test": "palm540b_dss/anli1_test_inputs.parquet"},
        stand_ins={"train": "the dev split of round 3 stands in for the training split of round 1"},
        hub="facebook/anli", revision="8e4813d81f46d313dac7892e1c28076917cfcdf9",
        hub_splits={"train": "train_r1", "dev": "dev_r1", "test": "test_r1"}),
    "svamp": Reader(  # the Hub's splits (700 and 300) are joined and cut again by id
        _svamp, local={SPLIT_COLUMN: "svamp/SVAMP.parquet"},
        hub="ChilleD/SVAMP", revision="5e0bf1e5e7c0e9c4bc39180d224f41f3f801b7ef",
        hub_splits={SPLIT_COLUMN: "train+test"}),
    "creak": Reader(  # the labels of its test split are not public: dev is the test split, dev is drawn from train
        _creak, drop_repeats=True, local={"train": "creak/train.json", "test": "creak/dev.json"}),
    "boolq": Reader(
        _boolq, drop_repeats=True, local={"train": "boolq/train.jsonl", "test": "boolq/dev.jsonl"},
        instead={"train": "boolq/llm_adapters_train.parquet", "test": "boolq/llm_adapters_test.parquet"},
        stand_ins=dict.fromkeys(("train", "test"), "the question without its passage, from LLM-Adapters"),
        hub="google/boolq", revision="35b264d03638db9f4ce671b711558bf7ff0f80d5",
        hub_splits={"train": "train", "test": "validation"}),
    "boolq_dev": Reader(  # the published dev file alone, cut into three: a small BoolQ with passages
        _boolq, drop_repeats=True, prompts="boolq", local={SPLIT_COLUMN: "boolq/dev_with_passages.parquet"},
        hub="google/boolq", revision="35b264d03638db9f4ce671b711558bf7ff0f80d5",
        hub_splits={SPLIT_COLUMN: "validation"}),
    "mnli": Reader(
        _mnli, drop_repeats=True,
        local={"train": "mnli/multinli_1.0_train.jsonl", "test": "mnli/multinli_1.0_dev_matched.jsonl"},
        hub="nyu-mll/multi_nli", revision="da70db2af9d09693783c3320c4249840212ee221",
        hub_splits={"train": "train", "test": "validation_matched"}),
    "squad": Reader(
        _squad, drop_repeats=True, unpack=_squad_rows,
        local={"train": "squad/train-v1.1.json", "test": "squad/dev-v1.1.json"},
        hub="rajpurkar/squad", revision="7b6d24c440a36b6815f21b70d25016731768db1f",
        hub_splits={"train": "train", "test": "validation"}),
    "openbookqa": Reader(  # with the facts, which its files "Additional" have
        _openbookqa, drop_repeats=True,
        local={split: f"openbookqa/{split}_complete.jsonl" for split in ("train", "dev", "test")},
        instead={"train": "openbookqa/llm_adapters_train.parquet", "test": "openbookqa/llm_adapters_test.parquet"},
        stand_ins=dict.fromkeys(("train", "test"), "the question without its fact, from LLM-Adapters"),
        hub="allenai/openbookqa", config="additional", revision="388097ea7776314e93a529163e0fea805b8a6454",
        hub_splits={"train": "train", "dev": "validation", "test": "test"}),
    "qasc": Reader(
        _qasc, drop_repeats=True, local={"train": "qasc/train.jsonl", "test": "qasc/dev.jsonl"},
        hub="allenai/qasc", revision="a34ba204eb9a33b919c10cc08f4f1c8dae5ec070",
        hub_splits={"train": "train", "test": "validation"}),
    "arc": Reader(
        _science, drop_repeats=True,
        local={split: f"arc/ARC-Challenge-{split.capitalize()}.jsonl" for split in ("train", "dev", "test")},
        hub="allenai/ai2_arc", config="ARC-Challenge", revision="210d026faf9955653af8916fad021475a3f00453",
        hub_splits={"train": "train", "dev": "validation", "test": "test"}),
    "ecqa": Reader(
        _ecqa, drop_repeats=True, prompts="cqa",  # the questions are those of CommonsenseQA
        local={"train": "ecqa/cqa_data_train.csv", "dev": "ecqa/cqa_data_val.csv", "test": "ecqa/cqa_data_test.csv"},
        hub="yangdong/ecqa", hub_splits={"train": "train", "dev": "validation", "test": "test"}),
    "table": Reader(understand=understand),
}
