"""Write an experiment on a user's own table: its YAML file and its prompt, both beside the table, to be edited."""

import json
import random
import re
import shlex
from pathlib import Path

import pandas as pd

from kdutils.data.questions import SPLITS, format_choices, raise_faults
from kdutils.data.readers import Examined, examine_questions
from kdutils.errors import StudyError, refuse_secrets
from kdutils.experiments.grid import EXAMPLE, OUTPUTS
from kdutils.experiments.loading import experiment_names
from kdutils.experiments.schema import NAME, NAMED
from kdutils.packages import MODELS
from kdutils.runs import write_text
from kdutils.student.methods import format_source
from kdutils.teacher.prompting import UNWRITTEN
from kdutils.teacher.served import server_address

SMALL = "HuggingFaceTB/SmolLM2-135M-Instruct"  # student, and teacher if the user names none: a package ships it
LIMITS = {"train": 100, "dev": 20, "test": 60}  # of a first try of some minutes on two cores
SHOTS = 3
CHARACTERS = 3  # of a token, at the least on average
MOST_TOKENS = 1024  # of a question with its context; longer ones are cut and counted
GAP = f"{UNWRITTEN}, in one or two sentences, why this answer is right and the others are wrong>"
PROMPT = "Every answer is followed by an explanation: one or two sentences that say why it is right and the others " \
         "are wrong.\n\n"
SYSTEM = "Answer with the explanation alone, in one or two sentences."  # chat models tend to repeat the answer alone
YAML = """\
# Written by ./run_all.sh --new. Every value is a parameter of a notebook; the README explains the keys.
about: {about}
needs: {needs}
extras: [{extra}]
datasets:
  {name}:
    reader: table
    folder: {folder}
    files: {{all: {file}}}{more}
    # A first try. Take more questions if the dry run says that there is time; -1 takes all.
    limits: {limits}
teachers:
  {teacher}
promptings:
  # Only what students learn from is explained. Add test to compare a student's texts with the teacher's.
  few_shot: {{splits: [train]{asking}}}
methods: {{label_only: {{}}, multitask: {{}}, shuffled: {{}}}}  # shuffled: the control, with texts of other questions
students:
  smollm2-135m: {{model: {model}, kind: causal}}
seeds: [0]  # take at least five for a result
training: {{epochs: 2, questions_per_step: 8, learning_rate: 0.0001, warmup_steps: 10, dev_evaluations: 2, \
max_source_tokens: {source}, max_target_tokens: 192, token_budget: 2000}}
evaluation: {{max_explanation_tokens: 64, attributed_questions: 20}}
"""


def new_experiment(name: str, table: Path, server: str = "", model: str = "", unlabelled: bool = False) -> list[str]:
    """Write ``<name>.yaml`` and, for a teacher that is asked, ``<name>-prompts/few_shot.txt`` beside `table`.

    Returns lines for a person: what was written, what is to be edited, the next command. `server`: address of a server
    with the OpenAI API. `model`: the teacher's model there or, without a server, a folder or Hub id. Without both the
    teacher is the people who wrote explanations in the table, or else SMALL. `unlabelled`: the teacher answers
    questions without an answer. Raises StudyError for a faulty table, a name that is taken, and files that exist.
    """
    _check_name(name)
    read = examine_questions("table", str(table.parent), {"all": table.name}, unlabelled=unlabelled)
    raise_faults(read.faults, read.advice)
    questions = read.questions(0)
    if missing := [split for split in SPLITS if split not in set(questions["split"])]:
        raise StudyError(f"{table}: no questions in the split {' and '.join(missing)}; name them in the column 'split' "
                         "or leave the column out")
    if few := [split for split in ("train", "dev") if (questions["split"] == split).sum() < 2]:
        raise StudyError(f"{table}: {len(questions)} usable questions, with one in the split {' and '.join(few)}, are "
                         "too few; give two or more per split, or about 20 where splits are drawn")
    file, prompts = table.parent / f"{name}.yaml", table.parent / f"{name}-prompts"
    people = not server and not model and _explained(questions) and not unlabelled
    teacher = _teacher(server, model, people, unlabelled)
    text = YAML.format(
        about=_quoted(f"Does explaining help on {table.name}?"), needs=_quoted(_needs(server, people)),
        extra=MODELS[SMALL][0], name=name, folder=_quoted(str(table.parent)), file=_quoted(table.name), model=SMALL,
        more=("" if people else f"\n    prompts: {_quoted(str(prompts))}") + "\n    labels: teacher" * unlabelled,
        limits=_flow(_limits(questions)), teacher=teacher, asking=", given_answer: false" * unlabelled,
        source=_source_tokens(questions))
    refuse_secrets({"teacher": teacher}, f"{file}: ")
    for path in (file, prompts):
        if path.exists():
            raise StudyError(f"{path}: exists already; choose another name, or delete it")
    lines = [f"written: {file}"]
    if not people:
        prompt = write_text(prompts / "few_shot.txt", few_shot_file(read, questions))
        gaps = prompt.read_text(encoding="utf-8").count(UNWRITTEN)
        lines += [f"written: {prompt}", f"  edit it: write {gaps} explanations where it says {UNWRITTEN} …>, or delete "
                  "these examples" if gaps else "  read it: its examples are from train"]
    write_text(file, text)
    if not (server or model or people):
        lines.append(f"  the teacher is {SMALL}: small, and only for a try; --teacher or --model name a better one")
    return [*lines, f"next: ./run_all.sh {shlex.quote(str(file))} --dry-run"]


def few_shot_file(read: Examined, questions: pd.DataFrame) -> str:
    """Return a few-shot prompt with worked examples drawn from train; where nobody wrote an explanation, a gap is left.

    Short questions with an explanation by people are preferred.
    """
    train = questions[(questions["split"] == "train") & (questions["answer"] != "")]
    train = train[train["human_explanations"].map(len) > 0] if _explained(train) else train
    short = train[train["context"].str.len() <= train["context"].str.len().median()]
    drawn = random.Random(0).sample(short.to_dict("records"), min(SHOTS, len(short)))
    qualities = ("clear and correct", "helpful and precise", "logical and concise")
    shots = [_block(item, quality, item["answer"], f" {next(iter(item['human_explanations']), GAP)}")
             for item, quality in zip(drawn, qualities, strict=False)]
    slots = {"question": "{question}", "choices": [],
             "context": "{context}" if (questions["context"] != "").any() else ""}
    item = _block(slots, "{quality}", "{answer}", "", "{choices}" if questions["choices"].map(len).any() else "")
    return PROMPT + "".join(f"{shot}\n\n" for shot in shots) + item + "\n"


def _block(item, quality, answer, explanation, choices=""):
    """Return a question of a prompt on lines of its own; blank lines would end it."""
    choices = choices or format_choices(item["choices"])
    lines = [*([f"Context: {item['context']}"] if item["context"] else []), f"Question: {item['question']}",
             *([f"Choices: {choices}"] if choices else []), f"Answer ({quality}): The answer is {answer}.{explanation}"]
    return "\n".join(" ".join(line.split()) for line in lines)


def _check_name(name):
    if not NAME.fullmatch(name):
        raise StudyError(f"{name[:80]!r}: the name {NAMED}")
    if name == EXAMPLE or name in experiment_names() or (OUTPUTS / name).exists():
        raise StudyError(f"{name}: an experiment of this name exists; choose another name")


def _teacher(server, model, people, unlabelled):
    """Return the entry of the teacher, its name and parameters, as YAML."""
    if people:
        return "people: {backend: published, published_teacher: people}"
    if server:
        server_address(server)
        if not model:
            raise StudyError(f"--teacher {server}: which of its models? Name it with --model")
        return f"{_name_of(model)}: " + _flow({"backend": "openai", "model": model, "base_url": server, "chat": True,
                                               **({} if unlabelled else {"system": SYSTEM}), "max_new_tokens": 128})
    return f"{_name_of(model or SMALL)}: " + _flow({"model": model or SMALL, "max_new_tokens": 64})


def _name_of(model):
    """Return a name for a model, of letters and digits that may name a folder."""
    return re.sub(r"[^a-z0-9]+", "-", Path(model).name.lower()).strip("-")[:40] or "teacher"


def _needs(server, people):
    return "this table" + ("" if people else " and the model server" if server else " and the teacher's model")


def _explained(questions):
    """Return whether people have explained most of the train questions."""
    train = questions[questions["split"] == "train"]
    return bool(len(train)) and (train["human_explanations"].map(len) > 0).mean() >= 0.5


def _limits(questions):
    sizes = questions["split"].value_counts()
    return {split: min(most, int(sizes[split])) for split, most in LIMITS.items()}


def _source_tokens(questions):
    """Return a limit that nearly every question fits, in steps of 64 tokens."""
    lengths = [len(format_source(item, "explain")) for item in questions.to_dict("records")]
    wanted = float(pd.Series(lengths).quantile(0.99)) / CHARACTERS
    return int(min(MOST_TOKENS, 64 * -(-max(wanted, 64) // 64)))


def _quoted(text):
    return json.dumps(text, ensure_ascii=False)


def _flow(entry):
    """Return a mapping of plain values on one line of YAML."""
    return "{" + ", ".join(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in entry.items()) + "}"
