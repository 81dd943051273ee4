"""What raters get: the form as one HTML page, a project for Potato, and a table for survey tools."""

import base64
import hashlib
import html
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from kdutils.errors import printable
from kdutils.human_study.design import ASKABLE, PAGE_SECONDS, SCALE, TASKS, Study
from kdutils.human_study.plan import CHECK_CHOICES, keep_earlier_key, private_folder, write_plan
from kdutils.runs import atomic_write, write_csv, write_text

FORM = Path(__file__).parent / "form"
PARTICIPANT = {"participant", "participant_id", "prolific", "prolific_id", "prolific_pid", "user", "user_id", "worker",
               "worker_id", "workerid", "subject", "id"}  # names of an id of another source: of a column, or in the
#              address of the form; in any case
NO_ANSWER = "(no answer could be read)"
TITLES = {"rating": "How good are these explanations?", "simulation": "What did the model answer?"}


def write_study(folder: Path | str, study: Study, plan: pd.DataFrame, texts: pd.DataFrame) -> pd.DataFrame:
    """Write all files of a study below `folder` and return the plan with its version.

    ``form.html`` for raters, ``potato/`` for the Potato server, ``survey/`` for survey tools, and ``key/``: the plan
    and the texts with their methods, which no rater may see. The key of another form that was written there before is
    kept in ``key/<its version>/``.
    """
    folder, content = Path(folder), form_content(study, plan, texts)
    key = private_folder(folder / "key")
    plan = plan.assign(version=content["version"], completion_code=content["completion_code"])
    keep_earlier_key(key, folder / "form.html", content["version"])
    write_text(folder / "form.html", render_form(content))
    _write_potato(folder / "potato", content)
    _write_survey(folder / "survey", content)
    with atomic_write(key / "texts.parquet") as temporary:
        pq.write_table(pa.Table.from_pandas(texts, preserve_index=False), temporary)
    write_plan(key, plan)
    return plan


def form_content(study: Study, plan: pd.DataFrame, texts: pd.DataFrame) -> dict:
    """Return all that raters are shown, as plain values, and its checksum as `version`; no method and no seed."""
    shown = {row["text"]: {"question": row["asked"], "choices": list(row["choices"]),
                           "answer": (row["answer"] or NO_ANSWER) if study.task == "rating" else "",
                           "explanation": row["explanation"]}
             for row in texts.to_dict("records")}
    for row in plan[plan["is_check"]].drop_duplicates("text").to_dict("records"):
        shown[row["text"]] = _check_text(study.task, row["expected"])
    instructions = paragraphs(_form_file(f"instructions_{study.task}.txt"))
    if not plan["is_check"].any():
        instructions.pop()  # the paragraph about attention checks
    content = {
        "study": study.name, "task": study.task, "title": " ".join(paragraphs(study.title)) or TITLES[study.task],
        "instructions": paragraphs(study.instructions) or instructions,
        "consent": paragraphs(study.consent), "return_to": " ".join(paragraphs(study.return_to)),
        "completion_code": " ".join(paragraphs(study.completion_code)), "id_names": sorted(PARTICIPANT),
        "ask": {key: ASKABLE[key] for key in study.ask}, "items": TASKS[study.task], "scale": list(SCALE),
        "texts": dict(sorted(shown.items())),
        "orders": {rater: list(pages.sort_values("position")["text"]) for rater, pages in plan.groupby("rater")}}
    return {**content, "version": checksum(content)[:16]}


def _check_text(task, expected):
    if task == "simulation":
        return {"question": "This page only checks that pages are read.", "choices": CHECK_CHOICES, "answer": "",
                "explanation": f"Please choose “{CHECK_CHOICES[expected - 1]}”."}
    return {"question": "This page only checks that pages are read.", "choices": [], "answer": "",
            "explanation": f"Please choose “{SCALE[expected - 1]}” for each of the {len(TASKS[task])} statements."}


def paragraphs(text: str) -> list[str]:
    """Return the paragraphs of a plain text, each on one line."""
    parts = re.split(r"\n\s*\n", printable(text))
    return [" ".join(re.split(r"[ \t\n]+", part.strip())) for part in parts if part.strip()]


def canonical(value: object) -> str:
    """Return `value` as JSON with sorted keys and without spaces; Python and the form compute checksums of it."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def checksum(value: object) -> str:
    """Return the SHA-256 of a text, or of canonical() of another value. It detects accidental changes, not cheating."""
    text = value if isinstance(value, str) else canonical(value)
    return hashlib.sha256(text.encode("utf-8", errors="surrogatepass")).hexdigest()


def completion_code(study: str, version: str, rater: str, answers: Mapping[str, Mapping[str, int]]) -> str:
    """Return the code that the form shows at the end to a rater of a study without a code of its own.

    It is made of all answers {text: {item: score}}, so that nobody knows it before the last page. The form computes it
    too, and ratings.read_ratings lists it beside each rater.
    """
    return checksum({"study": study, "version": version, "rater": rater, "answers": answers})[:8].upper()


def render_form(content: dict) -> str:
    """Return the form as one HTML page. It loads nothing: its policy allows only its own style and script."""
    import jinja2

    style, script = _form_file("style.css"), _form_file("form.js")
    data = json.dumps(content).translate({ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&"})
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(FORM), autoescape=True, trim_blocks=True,
                                     lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    pages = max(map(len, content["orders"].values()))
    about = " and ".join(f"your {key}" for key in content["ask"])
    lacks = [*["your consent"] * bool(content["consent"]), *([about] if about else []), "the sentence ticked above"]
    return environment.get_template("form.html.j2").render(
        pages=pages, minutes=math.ceil(pages * PAGE_SECONDS / 60), lacks=", ".join(lacks),
        content=content, data=data, style=style, script=script, style_hash=_source_hash(style),
        script_hash=_source_hash(script))


def _form_file(name):
    return (FORM / name).read_text(encoding="utf-8")


def _source_hash(text):
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _lettered_choices(text):
    return [f"{chr(65 + place)}. {choice}" for place, choice in enumerate(text["choices"])]


def _write_potato(folder, content):
    """Write a project for Potato 2 (potato-annotation, tested with 2.12.1); `batch` fixes the order for each rater.

    Potato shows texts as HTML and would run scripts in them, so they are escaped here.
    """
    import yaml

    raters = list(content["orders"])
    config = {
        "annotation_task_name": content["title"], "task_dir": ".", "data_files": ["data/texts.jsonl"],
        "item_properties": {"id_key": "id", "text_key": "text"}, "output_annotation_dir": "annotation_output/",
        "user_config": {"allow_all_users": False, "users": raters},
        "require_password": False, "assignment_strategy": "batch", "max_annotations_per_item": -1,
        "max_annotations_per_user": max(map(len, content["orders"].values())), "jumping_to_id_disabled": True,
        "batch_assignment": {"groups": [{"name": rater, "annotators": [rater], "instances": order}
                                        for rater, order in content["orders"].items()]},
        "phases": {"order": ["instructions", "annotation"],
                   "instructions": {"type": "instructions", "file": "instructions.html"}},
        "annotation_schemes": _potato_schemes(content)}
    write_text(folder / "config.yaml", yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
    lines = [json.dumps({"id": key, "text": _potato_text(text, content)}) for key, text in content["texts"].items()]
    write_text(folder / "data" / "texts.jsonl", "\n".join(lines) + "\n")
    parts = [*content["instructions"], *content["consent"]]
    write_text(folder / "instructions.html", "".join(f"<p>{html.escape(part)}</p>\n" for part in parts))
    about = f"Study {content['study']}, form {content['version']}."
    write_text(folder / "README.txt", f"{about}\n{_form_file('potato.txt')}")


def _potato_schemes(content):
    required = {"label_requirement": {"required": True}}
    if content["task"] == "simulation":
        letters = [chr(65 + place) for place in range(max(len(text["choices"]) for text in content["texts"].values()))]
        return [{"annotation_type": "radio", "name": name, "description": statement, "labels": letters, **required}
                for name, statement in content["items"].items()]
    return [{"annotation_type": "likert", "name": name, "description": statement, "size": len(SCALE),
             "min_label": SCALE[0], "max_label": SCALE[-1], **required} for name, statement in content["items"].items()]


def _potato_text(text, content):
    parts = [f"<b>Question</b><br>{_as_html(text['question'])}"]
    if text["choices"]:
        parts.append("<br>".join(map(_as_html, _lettered_choices(text))))
    if text["answer"]:
        parts.append(f"<b>The model’s answer</b><br>{_as_html(text['answer'])}")
    parts.append(f"<b>The model’s explanation</b><br>{_as_html(text['explanation'] or '(no explanation is shown)')}")
    return "<br><br>".join(parts)


def _as_html(text):
    return html.escape(text).replace("\n", "<br>")


def _write_survey(folder, content):
    """Write a table with one row per rater and page and empty scores, and a description of its columns."""
    columns = ["study", "version", "rater", "position", "text", "question", "choices", "answer", "explanation",
               *content["items"]]
    rows = []
    for rater, order in content["orders"].items():
        for position, key in enumerate(order, 1):
            text = content["texts"][key]
            words = [text["question"], " | ".join(_lettered_choices(text)), text["answer"], text["explanation"]]
            rows.append([content["study"], content["version"], rater, position, key, *words,
                         *[""] * len(content["items"])])
    write_csv(folder / "survey.csv", pd.DataFrame(rows, columns=columns))
    meaning = {"simulation": "the letter, number or text of the choice that the model took; a letter or number that is "
                             "also the text of another choice is refused"} \
        if content["task"] == "simulation" else {name: f"1 to {len(SCALE)} ({SCALE[0]} to {SCALE[-1]}): {statement}"
                                                 for name, statement in content["items"].items()}
    lines = "".join(f"{name}: {about}\n" for name, about in meaning.items())
    write_text(folder / "columns.txt", f"{_form_file('survey.txt')}{lines}\n{_form_file('wide.txt')}")
