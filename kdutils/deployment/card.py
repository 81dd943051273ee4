"""The model card of an exported student, in Markdown with the metadata of the Hugging Face Hub.

It is written from what the runs recorded. It names no path of this machine: a model in a folder is named by the last
part of its path.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import yaml

from kdutils.data.datasets import READERS
from kdutils.data.questions import LETTERS
from kdutils.data.tables import read_table
from kdutils.deployment.asking import reads_passages
from kdutils.errors import StudyError, masked
from kdutils.evaluation.accuracy import cell_accuracy
from kdutils.evaluation.settings import TRUTH
from kdutils.fake_texts import STAR, fooled_by
from kdutils.hub import HUB_ID, exists, locate_model
from kdutils.runs import PROJECT, project_path, read_csv, read_json
from kdutils.stats.accuracy import bootstrap_mean
from kdutils.student.methods import PROBABILITIES, asked_as, format_source
from kdutils.student.settings import own_settings
from kdutils.teacher.choices import PUBLISHED_TEACHERS
from kdutils.teacher.quality import unusable_warning
from kdutils.teacher.settings import LabelQuestions

if TYPE_CHECKING:
    import jinja2

TEMPLATES = Path(__file__).parent / "templates"
EMBEDDED = "kdutils/mini/"  # models that were made for this project
MEASURES = {  # of explanations, from 0 to 1: what the card calls them
    "true_share": "share of its statements that are true",
    "wholly_true": "explanations of which every statement can be read and is true",
    "names_answer": "explanations that name its answer", "rouge_l_teacher": "ROUGE-L to the teacher's explanation"}


class Measured(NamedTuple):
    """A finished evaluation run: its folder, its parameters and metrics, and the machine that it ran on."""

    folder: Path
    given: dict
    metrics: dict
    machine: dict


def model_card(folder: Path, title: str, parameters: int, kind: str, measured: Sequence[Measured], item: dict,
               record: dict) -> str:
    """Return the model card of the student in `folder`.

    `title`: its heading. `parameters`: how many the model has. `kind`: see models.KINDS. `measured`: its evaluations
    (runs_of_student). `item`: a question, and `record`: what the student says to it (predicting.predict_questions).
    """
    asks, about, given = asked_as(folder), read_json(folder / "student.json"), _parameters(folder.parent)
    data, licences = [run for run, _ in _question_runs(given)], _licences(given)
    own, soft = all(text.startswith("MIT") for _, text in licences), asks.learns.startswith(PROBABILITIES)
    results, passages = _results(measured, about["seed"]), reads_passages(folder)
    rows, machine = _costs(measured)
    card = environment().get_template("card.md.j2").render(
        title=title, metadata=_metadata(title, given, data, kind, measured, about["seed"], "mit" if own else "unknown"),
        parameters=parameters, explains=asks.explanation is not None,
        learns=f"the right answers and {asks.learns}" if soft and given.get("hard") else asks.learns,
        facts=_facts(given, data[0], about["seed"]), formats=_formats(asks, kind, passages),
        format_note=_format_note(asks, kind, passages), passages=passages, split=item["split"],
        example=_example(item, record, asks, kind), results=results,
        starred=any(row["what"].endswith(STAR) for row in results), chance=_chance(measured),
        costs=rows, machine=machine, limits=_known_limits(measured, asks, given),
        licences=licences, citation=_citation(),
        sources=["Hendriks et al., Honey, I Shrunk the Language Model, arXiv 2504.16056", *asks.papers])
    return masked(card)


def runs_of_student(folders: Sequence[Path], student: Path) -> list[Measured]:
    """Return the evaluations among `folders` that asked the student in the folder `student`.

    The one on the data set of its training is the first.
    """
    runs = []
    for folder in folders:
        run, metrics = read_json(folder / "run.json"), read_json(folder / "metrics.json")
        asked = project_path(run["parameters"]["students"]) == student.parent
        if asked and f"seed-{student.name.removeprefix('seed-')}" in {f"seed-{seed}" for seed in metrics["seeds"]}:
            runs.append(Measured(folder, run["parameters"], metrics, run.get("machine", {})))
    return sorted(runs, key=lambda run: "tested_on" in run.metrics["labels"])


def _parameters(folder):
    return read_json(folder / "run.json")["parameters"]


def _parameters_of(table):
    """Return the parameters of the run that wrote a table; {} without one."""
    folder = project_path(table).parent
    return _parameters(folder) if table and (folder / "run.json").is_file() else {}


def _text_tables(given):
    """Return the tables of texts and probabilities that a training learns from, as its parameters name them."""
    tables = [given.get("other_explanations") or given.get("explanations", ""), given.get("counterfactuals", ""),
              given.get("soft_labels", "")]
    return [table for table in tables if table]


def _question_runs(given):
    """Return [(parameters of the run that read questions, of the run that answered them)].

    They are the questions of a training and those of the texts of another data set. A teacher has answered questions of
    notebook 08; there is {} for all others.
    """
    found = []
    for table in filter(None, (given["questions"], given.get("other_questions", ""))):
        path = project_path(table).parent / "run.json"
        run = read_json(path) if path.is_file() else {"notebook": "", "parameters": {}}
        by_teacher = run["notebook"] == LabelQuestions.notebook
        found.append((_parameters_of(run["parameters"]["questions"]), run["parameters"]) if by_teacher else
                     (run["parameters"], {}))
    return found


def _teachers(given):
    """Return [(parameters of a run that asked a teacher, what it wrote besides explanations)] behind a training."""
    answered = [(run, " (answers of questions that had none)") for _, run in _question_runs(given) if run]
    return [(_parameters_of(table), "") for table in _text_tables(given)] + answered


def _licences(given, role="base model"):
    """Return [(what, its licence)] of all that went into a student, each once; `role`: what its own model is called."""
    found = _model_licences(given["model"], role)
    for run, _ in _teachers(given):
        found += [("teacher", said)] if (said := _teacher_terms(run)) else _model_licences(run["model"], "teacher")
    for key, what in (("distilled_from", "teacher of tokens"), ("tokenizer", "vocabulary")):
        found += _model_licences(given[key], what) if given.get(key) else []
    return list(dict.fromkeys([*found, *(("data", _data_licence(run)) for run, _ in _question_runs(given))]))


def _model_licences(model, role):
    """Return the licence of a model; for one that the study has trained those of all that went into it."""
    folder = project_path(model)
    if model and (folder / "student.json").is_file() and (folder.parent / "run.json").is_file():
        return _licences(_parameters(folder.parent), role)
    return [(role, _licence(model))]


def _example(item, record, asks, kind):
    """Return a question as the student reads it, and what it wrote."""
    source = "\n".join(filter(None, [item["question"], item.get("context")])) if kind == "classifier" else \
        asks.source(item, asks.answer)
    written = record["generated"]
    if record["explanation"] and not asks.one_text:
        written = f"[{asks.answer}] {written}\n[{asks.explanation}] {record['explanation']}"
    return {"answer": item["answer"], "source": source, "written": written}


def _reader(data):
    """Return the Reader's name of the data set that a run of notebook 01 read; "table" for one of the user's own."""
    name = data.get("reader") or data.get("dataset", "")
    return name if name in READERS else "table"


def _public_name(model):
    """Return the name of a model as others may read it: a Hub id, a name of this project, or the end of a path."""
    return model if model.startswith(EMBEDDED) or _is_on_hub(model) else Path(model).name or "random weights"


def _is_on_hub(model):
    """Return whether a name is a Hub id and neither a model of this project nor a folder."""
    return bool(HUB_ID.fullmatch(model)) and not model.startswith(EMBEDDED) and not exists(project_path(model))


def _named(model):
    """Return the public name of a model; of one that the study has trained, what it was before."""
    path = project_path(model) / "student.json"
    if not model or not path.is_file():
        return _public_name(model)
    before = read_json(path)["student"]
    own = "random weights" if before.get("random_weights") else _named(before["model"])
    return f"{own} fine-tuned on the train questions"


def _teacher(given):
    """Return who wrote texts, from the parameters of the run that asked; {}: there is none."""
    if not given:
        return "not recorded"
    softer = f", temperature of the choices {heat:g}" if (heat := given.get("choice_temperature", 1)) != 1 else ""
    how = f" (prompting {given['labels']['prompting']}{softer})" if "prompting" in given["labels"] else ""
    if given.get("backend") == "published":
        return f"{PUBLISHED_TEACHERS[given['published_teacher']]}, as published by the authors{how}"
    if given.get("backend") == "openai":
        return f"{_public_name(given['model'])} on a server{how}"
    return f"{_named(given['model'])}{how}"


def _teacher_terms(given):
    """Return what is known of the licence of texts that no model here wrote, "" where one did."""
    if not given:
        return "not recorded"
    if given.get("backend") == "published":
        return "the authors state no licence for the published texts"
    if given.get("backend") == "openai":
        return "that of the model and the terms of its server, not recorded"
    return ""


def _licence(model):
    """Return what is known of the licence of a model: from its README where that is on this machine."""
    from huggingface_hub import metadata_load

    if model.startswith(EMBEDDED):
        return "MIT (made for the study)"
    try:
        readme = Path(locate_model(model, needs_weights=False)) / "README.md"
        said = (metadata_load(readme) or {}).get("license") if readme.is_file() else None
    except (StudyError, OSError, ValueError, yaml.YAMLError):
        said = None
    if isinstance(said, str):
        return said
    link = f"; see https://huggingface.co/{model}" if _is_on_hub(model) else ""
    return f"not recorded{link}"


def _data_licence(data):
    name = _reader(data)
    if name == "mini":
        return "MIT (made for the study)"
    if name == "table":
        return "your own table"
    where = f"; see https://huggingface.co/datasets/{_hub_of(data)}" if _hub_of(data) else ""
    return f"that of the data set {name}, not recorded{where}"


def _metadata(title, given, data, kind, measured, seed, licence):
    """Return the metadata of the Hub as YAML; `data`: the parameters of the runs that read questions, its own first."""
    from huggingface_hub import EvalResult, ModelCardData

    task, base = "multiple-choice" if kind == "classifier" else "text-generation", given["model"]
    hubs = list(dict.fromkeys(filter(None, map(_hub_of, data))))
    results = [EvalResult(
        task_type=task, dataset_type=_hub_of(data[0]) or _data_of(run), dataset_name=_data_of(run),
        dataset_split=run.given["split"], metric_type="accuracy", metric_name="accuracy",
        metric_value=round(run.metrics["seeds"][str(seed)]["accuracy"], 4)) for run in measured[:1]]
    return ModelCardData(
        license=licence, library_name="transformers", pipeline_tag=task, model_name=title,
        tags=["explanation-distillation", "knowledge-distillation"],
        base_model=base if _is_on_hub(base) and not given["random_weights"] else None, datasets=hubs or None,
        eval_results=results or None).to_yaml() + "\n"


def _hub_of(data):
    return READERS[_reader(data)].hub


def _data_of(run):
    labels = run.metrics["labels"]
    return labels.get("tested_on", labels.get("dataset", "-"))


def _results(measured, seed):
    """Return the rows of the table of results: of this student, and of all seeds of its cell.

    A star marks a measure of explanations on which a fake text is as good.
    """
    rows = []
    for run in measured:
        predictions = read_table(run.folder / "predictions.parquet", "predictions")
        questions = read_table(project_path(run.given["questions"]), "questions")
        own = predictions[predictions["seed"] == seed]
        rows.append(_row(run, "accuracy", *_interval(cell_accuracy(own, questions))))
        if len(run.metrics["seeds"]) > 1:
            rows.append(_row(run, f"accuracy, mean of {len(run.metrics['seeds'])} students that differ in their seed",
                             *_interval(run.metrics["accuracy"])))
        values = _explanation_scores(run.folder, seed)
        marked = fooled_by({name: value for name, (value, *_) in values.items()}, run.metrics.get("fakes") or [])
        rows += [_row(run, MEASURES[name] + STAR * (name in marked), *value) for name, value in values.items()]
    return rows


def _interval(accuracy):
    return accuracy["mean"], accuracy["low"], accuracy["high"], accuracy["n_questions"]


def _row(run, what, value, low, high, questions):
    return {"data": _data_of(run), "what": what, "value": f"{100 * value:.1f} %",
            "interval": f"{100 * low:.1f} to {100 * high:.1f}", "questions": questions}


def _explanation_scores(folder, seed):
    """Return {measure: (mean, low, high, questions)} of the explanations of a student."""
    path = folder / "explanation_scores.csv"
    if not path.is_file() or not path.read_text(encoding="utf-8").strip():
        return {}
    table = read_csv(path, dtype={"id": str})
    values = {name: table.loc[table["seed"] == seed, name].dropna() for name in MEASURES if name in table}
    return {name: (*bootstrap_mean([found.to_list()]), len(found)) for name, found in values.items() if len(found)}


def _chance(measured):
    chance = measured[0].metrics["accuracy"]["chance"] if measured else None
    return f"Guessing would be right in {100 * chance:.1f} %." if chance else ""


def _costs(measured):
    """Return (rows of running costs, the processor); ([], "") where none were measured."""
    path = measured[0].folder / "running_costs.json" if measured else Path("-")
    records = read_json(path) if path.is_file() else []
    if not records:
        return [], ""
    rows = [{"weights": record["weights"], "size": f"{record['bytes'] / 1e6:.1f} MB",
             "memory": f"{record['peak_memory_mib']:.0f} MiB", "libraries": f"{record['libraries_mib']:.0f} MiB",
             "answer": _ms(record["answer_ms"]), "explanation": _ms(record["explanation_ms"]),
             "accuracy": f"{100 * record['accuracy']:.1f} % of {record['questions']}"} for record in records]
    return rows, measured[0].machine.get("processor") or "processor unknown"


def _ms(value):
    return "–" if value is None else f"{value:.0f} ms"


def _facts(given, data, seed):
    """Return [(name, text)] of how the student was made; `data`: the parameters of the run that read its questions."""
    counts = read_table(project_path(given["questions"]), "questions")["split"].value_counts()
    labels, adapted = given["labels"], "LoRA adapters, merged" if given["lora"] else "all weights"
    settings = [f"{name} {value}" for name, value in own_settings(given).items()]
    teachers = "; ".join(dict.fromkeys(_teacher(run) + what for run, what in _teachers(given))) or "none"
    tokens = [("teacher of tokens", _named(given["distilled_from"]))] if given.get("distilled_from") else []
    length = f"{given['max_steps']} steps" if given.get("max_steps") else f"{given['epochs']:g} epochs"
    rows = [("base model", "random weights" if given["random_weights"] else _named(given["model"])),
            ("data", f"{labels.get('dataset', '-')}: {counts.get('train', 0)} train, {counts.get('dev', 0)} dev and "
                     f"{counts.get('test', 0)} test questions"),
            ("teacher", teachers), *tokens, ("method", ", ".join([labels.get("method", "-"), *settings])),
            ("training", f"{length}, {given['questions_per_step']} questions per step, learning rate "
                         f"{given['learning_rate']:g}, {adapted}, seed {seed}")]
    return rows + ([("revision of the data", data["revision"])] if data.get("revision") else [])


def _formats(asks, kind, passages):
    """Return [(what for, the text that the student reads)]; `passages`: it can read a passage."""
    if kind == "classifier":
        pair = "A pair of texts for each choice" + " (the first has question and passage, one line each)" * passages
        return [(f"{pair}; the choice with the highest score is the answer",
                 "QUESTION\n" + "PASSAGE\n" * passages + "CHOICE")]
    item = {"context": "PASSAGE" * passages, "question": "QUESTION", "choices": ["FIRST CHOICE", "SECOND CHOICE", "…"]}
    texts = {"To ask for the answer": asks.answer}
    if asks.one_text:
        texts = {"To ask for explanation and answer" if asks.explains_first else "To ask for answer and explanation":
                 asks.answer}
    elif asks.explanation is not None:
        texts["To ask for the explanation"] = asks.explanation
    return [(name, format_source(item, tag, place=asks.tag)) for name, tag in texts.items()]


def _format_note(asks, kind, passages):
    if kind == "classifier":
        return ""
    says = asks.says("ANSWER")
    written = f"EXPLANATION {says}" if asks.explains_first else f"{says} Explanation: EXPLANATION" if asks.one_text \
        else says
    without = ", and one without a passage has no line `Context:`" * passages
    behind = " A line break follows, and then the model writes." if kind == "causal" else ""
    return (f"Choices are lettered from (a) to at most ({LETTERS[-1]}); a question without choices has no line "
            f"`Choices:`{without}.{behind} The model answers with `{written}`. Decode greedily (`do_sample=False`).")


def _known_limits(measured, asks, given):
    """Return sentences on what the student cannot do."""
    told = project_path(next(iter(_text_tables(given)), "-")).parent / "metrics.json"
    few = unusable_warning(read_json(told)) if told.is_file() else ""
    limits = ["It was tested only on the questions named above. On others, and in other languages, it may be no better "
              "than guessing.",
              "It always answers, also when it cannot know.",
              "It repeats what its base model, its data and its teacher got wrong or treat unfairly. Do not use it for "
              "decisions about people."]
    if asks.explanation is not None:
        records = measured[0].metrics.get("explanations") or [] if measured else []
        truth = any(name in record for record in records for name in TRUTH)
        limits.insert(0, "An explanation that reads well can be false. "
                      + ("The results say how often it is." if truth else "No measure here says how often it is.")
                      + " It does not show why the model gave its answer.")
    limits += [f"Of what its teacher gave, {few}."] if few else []
    return [*limits, "`example.py` does not shorten a question that is longer than the model's context."]


def _citation():
    cite = yaml.safe_load((PROJECT / "CITATION.cff").read_text(encoding="utf-8"))
    authors = "; ".join(one.get("name") or f"{one.get('given-names', '')} {one.get('family-names', '')}".strip()
                        for one in cite["authors"])
    link = f" {cite['repository-code']}." if cite.get("repository-code") else ""
    return f"{authors}: {cite['title']}, version {cite['version']}.{link}"


def environment() -> jinja2.Environment:
    """Return the environment of the templates of this room; texts of data cannot end a block or a table cell."""
    import jinja2

    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES), undefined=jinja2.StrictUndefined,
                                     trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    environment.filters |= {"block": _block, "cell": lambda text: " ".join(str(text).split()).replace("|", "\\|"),
                            "whole": lambda number: f"{number:,}"}
    return environment


def _block(text):
    """Return a text as a block of code whose fence is longer than any in the text."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}\n{text}\n{fence}"
