"""Ratings and plans changed at random: never a traceback, never a hang, and a good file beside a broken one is kept.

Every input is drawn from a seed. KDUTILS_FUZZ_SECONDS makes the search longer; a failure prints the seed of its input,
and KDUTILS_FUZZ_SEED repeats that one alone.
"""

import copy
import json
import os
import random
import time

import pandas as pd
import pytest

from kdutils.errors import StudyError
from kdutils.human_study import analysis
from kdutils.human_study.design import CONSTRUCTS, Study
from kdutils.human_study.forms import canonical, checksum, write_study
from kdutils.human_study.plan import draw_plan, read_plan
from kdutils.human_study.ratings import (
    PROBLEM_COLUMNS,
    RATING_COLUMNS,
    constructs_of,
    describe_origin,
    describe_use,
    one_row_per_rating,
    read_ratings,
)
from kdutils.human_study.simulated_raters import simulate_raters, simulate_scores
from tests.test_human_study import form_table, texts_for

SECONDS = float(os.environ.get("KDUTILS_FUZZ_SECONDS", 4))  # both tests together
SLOWEST = 20  # seconds for one input; a hang, also on a busy machine
ODD = [None, True, False, 0, -1, 3, 5, 6, 2.5, -0.0, 1e308, float("nan"), float("inf"), 10 ** 30, "", " ", "4", "4,0",
       "5.0", "0", "-3", "³", "４", "agree", "A", "NaN", "None", "\x00", "\ud800", "\u202e", "😀", "=1+1", "'=1", '"',
       "a,b;c\td", "x" * 5000, "</script>", [], [[]], {}, {"a": []}, [4], {"scores": 4}, "R001A", "2026-01-01",
       "5f3c1a9e7b2d4c6e8f0a1b2c"]
PARTS = [b"", b"\x00", b"\xff", b"\xfe\xff", b"\xef\xbb\xbf", b'"', b"'", b",", b";", b"\t", b"\n", b"\r", b"\r\n",
         b"{", b"}", b"[", b"]", b"[" * 3000, b'{"a":' * 500, b"9" * 5000, b"1e999", b"\\ud800", b"\\u0000", b"NaN",
         b"null", b"-Infinity", b"sep=;\n", b"rater", b"text", b"checksum", b"\xf0\x9f\x98\x80", b"=1+1",
         b",,,,,", b"4,0"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A study, the good file of its first rater, a file of each layout by the second: (folder, plan, good, files)."""
    folder, texts = tmp_path_factory.mktemp("fuzz"), texts_for(4, 2)
    plan = write_study(folder, Study("s"), draw_plan(Study("s"), texts, 4, 4, 2, seed=3), texts)
    good, second, *_ = simulate_raters(plan, folder / "good", seed=1)
    document = json.loads(second.read_text())
    answers = {answer["text"]: answer["scores"] for answer in document["answers"]}
    rater, panel = document["rater"], "60d5ec49f1b2c8b1f8e4e1a7"
    survey = pd.read_csv(folder / "survey" / "survey.csv", dtype=str, keep_default_na=False)
    survey = survey[survey["rater"] == rater]
    survey = survey.assign(**{name: [str(answers[text][name]) for text in survey["text"]] for name in CONSTRUCTS})
    state = {"user_id": rater, "instance_id_to_label_to_value": {
        text: [[{"schema": name, "name": str(score)}, True] for name, score in scores.items()]
        for text, scores in answers.items()}, "instance_id_to_behavioral_data": {
        text: {"total_time_ms": 10} for text in answers}}
    lines = [json.dumps({"id": text, "user": rater, "label_annotations": {
        name: {f"scale_{score}": str(score)} for name, score in scores.items()}}) for text, scores in answers.items()]
    published = ("CASE,rationale,Completeness,Contrastiveness,Plausibility,Satisfaction,Understandability,rationale_id,"
                 "model,rationale_length\n1,RE08,3,2,4,5,5,322,MT:PosRationales,155\n1,RE09,3,2,4,5,5,323,new,15\n")
    files = {"form.json": json.dumps(document), "form.csv": form_table(document, plan),
             "survey.csv": survey.to_csv(index=False), "semicolons.csv": survey.to_csv(index=False, sep=";"),
             "panel.csv": survey.assign(rater=panel).to_csv(index=False, sep="\t"),
             "panel.json": json.dumps({**document, "rater": panel}), "user_state.json": json.dumps(state),
             "annotated_instances.jsonl": "\n".join(lines), "codes.csv": f"participant,rater\n{panel},{rater}\n",
             "study.csv": published, **exports(answers, rater, panel)}
    return folder, plan, good, {name: text.encode() for name, text in files.items()}


def exports(answers, rater, panel):
    """Return exports of survey tools with what this rater answered: {file: text}."""
    pairs = [(text, item) for text in answers for item in answers[text]]
    names = [f"{text}_{item}" for text, item in pairs]
    scores = [str(answers[text][item]) for text, item in pairs]
    table = [["ResponseId", "Status", "PROLIFIC_PID", *names], ["Response ID", "Response Type", "PROLIFIC_PID", *names],
             [f'"{{""ImportId"":""{name}""}}"' for name in ["_recordId", "status", "pid", *names]],
             ["R_1", "IP Address", panel, *scores]]
    wide = [["id", "submitdate", "token", *(f"{text}[{item[:5]}]" for text, item in pairs)],
            ["1", "2026-11-28", rater, *(f"A{score}" for score in scores)]]
    records = [{"id": text, "responses": {item: [{"value": score, "user_id": panel}] for item, score in given.items()}}
               for text, given in answers.items()]
    flat = [{"id": text, **{f"{item}.responses": [score] for item, score in given.items()},
             **{f"{item}.responses.users": [panel] for item in given}} for text, given in answers.items()]
    first = [{"external_id": text, "responses": [{"user_id": panel, "status": "submitted", "values": {
        item: {"value": score} for item, score in given.items()}}]} for text, given in answers.items()]
    return {"qualtrics.csv": "\n".join(map(",".join, table)), "limesurvey.csv": "\n".join(map(";".join, wide)),
            "argilla.json": json.dumps(records), "flat.jsonl": "\n".join(map(json.dumps, flat)),
            "first.json": json.dumps(first), "prolific.csv": "Submission id,Participant id,Status,Completion code\n"
            f"1,{panel},APPROVED,AB12\n2,x,RETURNED,\n"}


def changed_bytes(draw, data):
    for _ in range(draw.choice([1, 1, 1, 2, 4, 16])):
        place, end = sorted(draw.randrange(len(data) + 1) for _ in range(2))
        data = draw.choice([
            lambda place=place, data=data: data[:place] + draw.choice(PARTS) + data[place:],
            lambda place=place, data=data: data[:place] + bytes([draw.randrange(256)]) + data[place + 1:],
            lambda place=place, data=data: data[:place] + draw.choice(PARTS) + data[place + 1:],
            lambda place=place, end=end, data=data: data[:place] + data[end:],
            lambda place=place, end=end, data=data: data[:end] + data[place:],
            lambda place=place, data=data: data[:place]])()
    return draw.choice([lambda: data] * 9 + [lambda: data.decode("latin-1").encode("utf-16")])()


def changed_cells(draw, data):
    """Change cells, rows and columns of a table."""
    text = data.decode()
    delimiter = max(",;\t", key=text.splitlines()[0].count)
    rows = [line.split(delimiter) for line in text.splitlines()]
    for _ in range(draw.choice([1, 1, 2, 5])):
        row, kind = draw.choice(rows), draw.randrange(7)
        if kind < 3 and row:
            row[draw.randrange(len(row))] = cell(draw, draw.choice(ODD))
        elif kind == 3:
            row.insert(draw.randrange(len(row) + 1), cell(draw, draw.choice(ODD)))
        elif kind == 4 and row:
            del row[draw.randrange(len(row))]
        elif kind == 5:
            rows.insert(draw.randrange(len(rows)), list(row))
        else:
            draw.shuffle(rows)
    return draw.choice(["\n", "\r\n", "\r"]).join(map(delimiter.join, rows)).encode("utf-8", "surrogatepass")


def cell(draw, value):
    text = str(value)
    return f'"{text}"' if draw.random() < 0.5 else text


def changed_values(draw, data):
    """Change values, keys and lengths of JSON; a file of the form is signed again half of the times."""
    try:
        documents = [json.loads(data)]
    except ValueError:
        documents = [json.loads(line) for line in data.splitlines()]
    documents = copy.deepcopy(documents)
    for _ in range(draw.choice([1, 1, 2, 5])):
        where = draw.choice(list(containers(documents)))
        keys = list(where) if isinstance(where, dict) else list(range(len(where)))
        key, kind = draw.choice(keys) if keys else None, draw.randrange(5)
        if key is None or kind == 0:
            where.update({draw.choice(["rater", "participant", "scores", "a", ""]): draw.choice(ODD)}) if isinstance(
                where, dict) else where.append(draw.choice(ODD))
        elif kind == 1:
            del where[key]
        elif kind == 2 and isinstance(where, list):
            where.append(where[key])
        else:
            where[key] = copy.deepcopy(draw.choice(ODD))
    if len(documents) == 1 and isinstance(documents[0], dict) and draw.random() < 0.5:
        content = {name: value for name, value in documents[0].items() if name != "checksum"}
        documents[0] = {**content, "checksum": checksum(canonical(content))}
    return "\n".join(map(json.dumps, documents)).encode()


def containers(value):
    if isinstance(value, (dict, list)):
        yield value
        for item in value.values() if isinstance(value, dict) else value:
            yield from containers(item)


def changed(draw, name, data):
    """Return a file changed in one of the ways that fit it."""
    typed = changed_values if name.endswith((".json", ".jsonl")) else changed_cells
    return draw.choice([changed_bytes, typed, typed])(draw, data)


def seeds():
    """Yield seeds until the time is up, fifty at least; the one of KDUTILS_FUZZ_SEED alone."""
    if os.environ.get("KDUTILS_FUZZ_SEED"):
        yield int(os.environ["KDUTILS_FUZZ_SEED"])
        return
    started, number = time.monotonic(), 0
    while time.monotonic() - started < SECONDS / 2 or number < 50:
        yield number
        number += 1


def check(found, problems, raters, good, plan):
    """Check what must hold of every reading, whatever was in the other file."""
    assert list(found.columns) == RATING_COLUMNS and list(problems.columns) == PROBLEM_COLUMNS
    assert found["score"].between(1, 5).all() and not found.duplicated(["rater", "text", "construct"]).any()
    assert set(found["rater"]) <= set(raters["rater"])
    planned = raters["rater"].str.partition(".")[0].isin(plan["rater"])
    assert set(raters.loc[planned, "rater"]) >= set(plan["rater"]) and raters["rater"].is_unique
    assert set(raters.loc[~planned, "status"]) <= {"another version of the form"}
    assert found.groupby("rater")["text"].nunique().sum() == raters["ratings"].sum()
    for text in [*problems["file"], *problems["what"], *problems["detail"], *problems["rater"]]:
        assert isinstance(text, str) and text.isprintable() and len(text) <= 200, ascii(text)
    if len(found) != 24:  # the good file alone needs no second look
        wide = one_row_per_rating(found)
        assert len(analysis.means_by_method(wide, constructs_of(found, plan)[:1])[0]) or not len(wide)
    assert describe_use(raters, found).endswith(".") and describe_origin(found).endswith(".")
    rows = found[found["rater"] == good]
    assert len(rows) == 24 or problems["rater"].eq(good).any(), "a good file was lost without a word"


def test_ratings_changed_at_random(made, tmp_path, capsys):
    _, plan, good, files = made
    rater = json.loads(good.read_text())["rater"]
    count, used = 0, 0
    folders = [tmp_path / str(place) for place in range(16)]  # made once: a system takes its time to remove folders
    for folder in folders:
        folder.mkdir()
    for seed in seeds():
        draw = random.Random(seed)
        names = draw.choices(list(files), k=draw.choice([1, 8, 16]))
        for path in (path for folder in folders for path in folder.iterdir()):
            path.unlink()
        for folder, name in zip(folders, names, strict=False):
            (folder / draw.choice([name, name, name, "a.csv", "a.json", "a.txt"])).write_bytes(
                changed(draw, name, files[name]))
        started = time.monotonic()
        try:
            found, problems, raters = read_ratings(
                [good, tmp_path], plan, draw.choice([0, 0, 1]), draw.random() < 0.5)
            check(found, problems, raters, rater, plan)
            for path in tmp_path.rglob("study.csv") if draw.random() < 0.1 else ():
                read_ratings(path)
            used += found["rater"].nunique() > 1
        except Exception as error:
            raise AssertionError(f"KDUTILS_FUZZ_SEED={seed}: {type(error).__name__}: {ascii(error)}") from error
        assert time.monotonic() - started < SLOWEST, f"KDUTILS_FUZZ_SEED={seed}: slow"
        count += len(names)
    with capsys.disabled():
        print(f" [{count} files of ratings; {used} times some were of use]", end="")
    assert used or seed < 20, "no changed file could be used: the changes are too coarse to try anything"


def test_plans_changed_at_random(made, tmp_path, capsys):
    folder, plan, _, _ = made
    files = {name: (folder / "key" / name).read_bytes() for name in ("plan.csv", "plan.parquet")}
    count, good = 0, 0
    for seed in seeds():
        draw = random.Random(seed)
        name = draw.choice(list(files))
        path = tmp_path / name
        make = changed_bytes if name == "plan.parquet" else draw.choice([changed_bytes, changed_cells])
        path.write_bytes(make(draw, files[name]))
        started = time.monotonic()
        try:
            found = read_plan(path)
            simulate_scores(found)
            read_ratings([], found)
            good += 1
        except StudyError as error:
            assert str(error).isprintable() and len(str(error)) < 600, f"KDUTILS_FUZZ_SEED={seed}: {ascii(str(error))}"
        except Exception as error:
            raise AssertionError(f"KDUTILS_FUZZ_SEED={seed} ({name}): {type(error).__name__}: {error}") from error
        assert time.monotonic() - started < SLOWEST, f"KDUTILS_FUZZ_SEED={seed} ({name}): slow"
        count += 1
    with capsys.disabled():
        print(f" [{count} plans, {good} of them of use]", end="")
    assert good or count == 1, "no changed plan could be used: the changes are too coarse to try anything"
