"""Exports of survey tools and panels, as Qualtrics, LimeSurvey, Argilla and Prolific write them."""

import csv
import json
import uuid

import pytest

from kdutils.human_study.design import SCALE, TASKS, Study
from kdutils.human_study.forms import write_study
from kdutils.human_study.plan import draw_plan, read_plan
from kdutils.human_study.ratings import describe_origin, describe_use, mark_of, read_ratings
from kdutils.human_study.simulated_raters import simulate_raters
from tests.test_human_study import METHODS, form_table, sign, texts_for
from tests.test_own_tables import workbook
from tests.test_ratings_of_others import PANEL, same

ITEMS = TASKS["rating"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A study of four raters with texts of their own: (plan, {code: answers}, ratings as they should be read)."""
    folder, texts = tmp_path_factory.mktemp("exports"), texts_for(8, 2)
    plan = write_study(folder, Study("tiny-1"), draw_plan(Study("tiny-1"), texts, 4, 4, 1, seed=3), texts)
    paths = simulate_raters(plan, folder / "right", effects={METHODS[0]: 0.7}, seed=4)
    answers = {document["rater"]: {answer["text"]: answer["scores"] for answer in document["answers"]}
               for document in (json.loads(path.read_text()) for path in paths)}
    return plan, answers, read_ratings(folder / "right", plan).ratings


def write(path, rows, delimiter=","):
    path.parent.mkdir(exist_ok=True)
    with open(path, "w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)
    return path


def wide(answers, text_ids, head, column, value, people):
    """Return the names of the columns, [(text, item)] of them, and one row of cells per rater."""
    pairs = [(text, item) for text in text_ids for item in ITEMS]
    rows = [[*head(code, person), *(value(mine[text][item]) if text in mine else "" for text, item in pairs)]
            for (code, mine), person in zip(answers.items(), people, strict=True)]
    return [column(text, item) for text, item in pairs], pairs, rows


def text_ids(plan):
    return sorted(plan["text"].unique())


@pytest.mark.parametrize("style", ["tag and number", "names", "statements in labels", "rater and panel"])
def test_a_wide_table_of_qualtrics(made, tmp_path, style):
    plan, answers, right = made
    numbers = {item: number for number, item in enumerate(ITEMS, 1)}
    known = style == "rater and panel"

    def column(text, item):
        place = text_ids(plan).index(text) + 1
        return {"names": f"{text}_{item}", "statements in labels": f"Q{place}_{numbers[item]}"}.get(
            style, f"{text}_{numbers[item]}")

    value = (lambda score: SCALE[score - 1].capitalize()) if style == "names" else str
    extra = ["rater"] if known else []
    names, pairs, rows = wide(answers, text_ids(plan), lambda code, person: [
        "2026-11-28 10:00:00", "IP Address", "100", "120", "True", f"R_{person[:8]}", person, *[code] * known],
        column, value, PANEL)
    head = ["StartDate", "Status", "Progress", "Duration (in seconds)", "Finished", "ResponseId", "PROLIFIC_PID",
            *extra]
    labels = ["Start Date", "Response Type", "Progress", "Duration (in seconds)", "Finished", "Response ID",
              "PROLIFIC_PID", *extra, *(f"Please read under which text, {text}.\nAnd rate it; 5 is best - {ITEMS[item]}"
                                        for text, item in pairs)]
    imports = [json.dumps({"ImportId": name}) for name in [*head, *names]]
    preview = ["2026-11-27 10:00:00", "Survey Preview", *rows[0][2:]]
    path = write(tmp_path / "back" / "export.csv", [[*head, *names], labels, imports, preview, *rows])
    ratings, problems, raters = read_ratings(path, plan)
    same(ratings, right)
    assert set(raters["status"]) == {"kept"} and list(raters["participant"]) == PANEL
    assert set(problems["what"]) == {"preview of the survey"} | (set() if known else {"id of another source"})


@pytest.mark.parametrize("heads, value, delimiter", [
    ("codes", "A{}".format, ";"), ("codes", "AO0{}".format, ","), ("numbers", "{},0".format, ";"),
    ("full", lambda score: SCALE[score - 1], ",")])
def test_a_wide_table_of_limesurvey(made, tmp_path, heads, value, delimiter):
    plan, answers, right = made
    columns = {"codes": lambda text, item: f"{text}[{item[:5]}]",
               "numbers": lambda text, item: f"{text}_SQ00{list(ITEMS).index(item) + 1}",
               "full": lambda text, item: f"Text {text}, please rate [{ITEMS[item]}]"}
    names, _, rows = wide(answers, text_ids(plan), lambda code, person: [
        str(PANEL.index(person) + 1), "2026-11-28 10:00:00", "9", code], columns[heads], value, PANEL)
    head = ["Response ID", "Date submitted", "Last page", "rater"] if heads == "full" else [
        "id", "submitdate", "lastpage", "rater"]
    rows[1] = [cell or "N/A" for cell in rows[1]]
    ratings, problems, raters = read_ratings(
        write(tmp_path / "back" / "results.csv", [[*head, *names], *rows], delimiter), plan)
    same(ratings, right)
    assert not len(problems) and set(raters["status"]) == {"kept"}


def test_workbooks_are_read_and_no_file_of_another_kind_is_passed_over(made, tmp_path):
    plan, answers, right = made
    names, _, rows = wide(answers, text_ids(plan), lambda code, _: [code], lambda text, item: f"{text}_{item}",
                          lambda score: score, PANEL)
    (tmp_path / "back" / "__MACOSX").mkdir(parents=True)
    (tmp_path / "back" / "survey R002D.xlsx").write_bytes(workbook([["rater", *names], *rows]))
    for name in (".DS_Store", "Thumbs.db", "~$survey R002D.xlsx", "__MACOSX/._survey.csv", "photo.jpg", "notes.docx"):
        (tmp_path / "back" / name).write_bytes(b"\x00\xff")
    ratings, problems, _ = read_ratings(tmp_path / "back", plan)
    same(ratings, right)
    assert problems[["file", "what", "detail"]].to_numpy().tolist() == [
        [name, "unknown kind of file", "save it as CSV (UTF-8)"] for name in ("notes.docx", "photo.jpg")]
    (tmp_path / "back" / "broken.xlsx").write_bytes(b"PK\x03\x04 cut short")
    assert list(read_ratings(tmp_path / "back" / "broken.xlsx", plan).problems["what"]) == ["broken workbook"]


def test_a_wide_table_with_faults_names_them(made, tmp_path):
    plan, answers, _ = made
    names, _, rows = wide(answers, text_ids(plan), lambda code, _: [code], lambda text, item: f"{text}_{item}", str,
                          PANEL)
    first = next(place for place, cell in enumerate(rows[0]) if place and cell)
    rows[0][first], rows[1] = "7", rows[1][:3]
    table = [["rater", *names, f"{text_ids(plan)[0]}_colour"], *(row + [""] for row in rows)]
    ratings, problems, raters = read_ratings(write(tmp_path / "a.csv", table), plan)
    found = problems.set_index("what")["detail"]
    assert found["column of a text without a construct"] == f"{text_ids(plan)[0]}_colour"
    assert found["score out of range"].endswith("= 7") and "broken row" in found
    assert raters["status"].value_counts()["kept"] >= 2 and len(ratings)
    doubled = [[*names, names[0]], ["1"] * (len(names) + 1)]
    found = read_ratings(write(tmp_path / "b.csv", doubled), plan).problems
    assert found["detail"][0] == f"duplicate column {names[0]}"


def argilla(answers, layout):
    """Return records of Argilla with the responses of all raters, whose ids are of Argilla."""
    users = {code: str(uuid.UUID(int=number)) for number, code in enumerate(answers)}
    records = []
    for text in sorted({text for mine in answers.values() for text in mine}):
        given = [(users[code], mine[text]) for code, mine in answers.items() if text in mine]
        if layout == "version 1":
            record = {"fields": {"question": "?"}, "external_id": text, "responses": [
                {"user_id": user, "status": "submitted", "values": {item: {"value": score} for item, score in
                                                                    scores.items()}} for user, scores in given]}
            record["responses"].append({"user_id": next(iter(users.values())), "status": "discarded", "values": {
                "plausibility": {"value": 1}}})
        elif layout == "version 2":
            record = {"id": text, "status": "completed", "fields": {"question": "?"}, "metadata": {}, "suggestions": {},
                      "responses": {item: [{"value": scores[item], "user_id": user} for user, scores in given]
                                    for item in ITEMS}}
        else:
            record = {"id": str(uuid.uuid4()), "text": text, "status": "completed"}
            for item in ITEMS:
                record[f"{item}.responses"] = [scores[item] for _, scores in given]
                record[f"{item}.responses.users"] = [user for user, _ in given]
                record[f"{item}.responses.status"] = ["submitted"] * len(given)
        records.append(record)
    return records


@pytest.mark.parametrize("layout", ["version 1", "version 2", "flattened"])
def test_records_of_argilla(made, tmp_path, layout):
    plan, answers, right = made
    records = argilla(answers, layout)
    path = tmp_path / "records.json"
    path.write_text(json.dumps(records) if layout != "flattened" else "\n".join(map(json.dumps, records)))
    ratings, problems, raters = read_ratings(path, plan)
    same(ratings, right)
    assert set(raters["status"]) == {"kept"} and set(problems["what"]) <= {"id of another source",
                                                                            "response not submitted"}


def submissions(rows):
    head = ["Submission id", "Participant id", "Status", "Started at", "Completed at", "Time taken", "Completion code"]
    return [head, *([f"s{number}", person, status, "", "", "600", code]
                    for number, (person, status, code) in enumerate(rows))]


@pytest.mark.parametrize("tag", ["time", "timing", "T1"])
def test_timers_of_qualtrics_cost_no_rating(made, tmp_path, tag):
    plan, answers, right = made
    names, _, rows = wide(answers, text_ids(plan), lambda code, person: [person], lambda text, item: f"{text}_{item}",
                          str, PANEL)
    timers = [f"{text}_{tag}_{part}" for text in text_ids(plan) for part in (
        "First Click", "Last Click", "Page Submit", "Click Count")]
    path = write(tmp_path / "back" / "export.csv", [["PROLIFIC_PID", *names, *timers], *(
        [*row, *["1.0", "3.0", "20.5", "4"] * len(text_ids(plan))] for row in rows)])
    ratings, problems, _ = read_ratings(path, plan)
    same(ratings, right)
    assert set(problems["what"]) == {"id of another source"} and (ratings["seconds"] == 20.5).all()


def test_who_withdrew_is_found_by_the_id_of_the_panel_where_the_code_is_left_open(made, tmp_path):
    plan, answers, right = made
    names, _, rows = wide(answers, text_ids(plan), lambda code, person: [person, "" if person == PANEL[1] else code],
                          lambda text, item: f"{text}_{item}", str, PANEL)
    write(tmp_path / "back" / "survey.csv", [["PROLIFIC_PID", "rater", *names], *rows])
    write(tmp_path / "back" / "prolific.csv", submissions([
        (person, "RETURNED" if person == PANEL[1] else "APPROVED", "") for person in PANEL]))
    ratings, _, raters = read_ratings(tmp_path / "back", plan)
    assert raters["status"].tolist() == ["kept", "returned at Prolific", "kept", "kept"]
    same(ratings, right[right["rater"] != list(answers)[1]])


def test_the_list_of_prolific_says_who_is_who_and_who_withdrew(made, tmp_path):
    plan, answers, right = made
    names, _, rows = wide(answers, text_ids(plan), lambda code, person: [person], lambda text, item: f"{text}_{item}",
                          str, PANEL)
    write(tmp_path / "back" / "survey.csv", [["PROLIFIC_PID", *names], *rows])
    own = read_ratings(tmp_path / "back", plan).raters["completion_code"].tolist()
    write(tmp_path / "back" / "prolific.csv", submissions([
        (PANEL[0], "APPROVED", own[0]), (PANEL[1], "RETURNED", ""), (PANEL[2], "AWAITING REVIEW", "NOCODE"),
        ("5" * 24, "TIMED-OUT", "")]))
    ratings, problems, raters = read_ratings(tmp_path / "back", plan)
    assert list(raters["status"]) == ["kept", "returned at Prolific", "kept", "kept"]
    gone = raters["rater"][1]
    same(ratings, right[right["rater"] != gone])
    assert problems.loc[problems["what"] == "returned at Prolific", ["rater", "left_out"]].to_numpy().tolist() == [
        [gone, 4]]


def test_a_person_whom_the_list_has_twice_has_withdrawn_if_one_row_says_so(made, tmp_path):
    plan, *_ = made
    for path, person in zip(simulate_raters(plan, tmp_path / "back", seed=4), PANEL, strict=True):
        path.write_text(json.dumps(sign({**json.loads(path.read_text()), "participant": person})))
    codes = read_ratings(tmp_path / "back", plan).raters["completion_code"]
    write(tmp_path / "back" / "prolific.csv", submissions([
        (PANEL[0], "RETURNED", ""), (PANEL[0], "APPROVED", codes[0]), (PANEL[1], "APPROVED", codes[1]),
        (PANEL[1], "RETURNED", ""), (PANEL[2], "AWAITING REVIEW", codes[2]), (PANEL[2], "APPROVED", codes[2])]))
    _, problems, raters = read_ratings(tmp_path / "back", plan)
    assert list(raters["status"]) == ["returned at Prolific"] * 2 + ["kept"] * 2
    told = problems[problems["what"] == "participant listed twice"]
    assert told["row"].tolist() == [3, 5] and told["detail"].str.endswith("; used as RETURNED").all()


def test_the_completion_code_finds_the_person_of_a_file_without_an_id(made, tmp_path):
    plan, answers, _ = made
    paths = simulate_raters(plan, tmp_path / "back", seed=4)
    codes = read_ratings(tmp_path / "back", plan).raters.set_index("rater")["completion_code"]
    assert codes.is_unique and codes.str.fullmatch("[0-9A-F]{8}").all() and len(paths) == 4
    write(tmp_path / "back" / "prolific.csv", submissions([
        (person, "APPROVED", code.lower()) for person, code in zip(PANEL, codes, strict=True)]))
    assert list(read_ratings(tmp_path / "back", plan).raters["participant"]) == PANEL


def test_a_list_with_blank_and_unknown_completion_codes_names_nobody_wrongly(made, tmp_path):
    plan, *_ = made
    paths = simulate_raters(plan, tmp_path / "back", seed=4)
    documents = [json.loads(path.read_text()) for path in paths]
    code = documents[1]["rater"]
    for path, document in zip(paths, [sign({**documents[0], "complete": False,
                                             "answers": documents[0]["answers"][:3]}),
                                      sign({**documents[1], "participant": PANEL[1]})], strict=False):
        path.write_text(json.dumps(document))
    shown = read_ratings(tmp_path / "back", plan).raters.set_index("rater")["completion_code"]
    write(tmp_path / "back" / "prolific.csv", submissions([
        (PANEL[0], "RETURNED", ""), (PANEL[1], "APPROVED", "WRONG123"), (PANEL[2], "TIMED-OUT", ""),
        (PANEL[3], "APPROVED", "NOSUCH"), ("5" * 24, "RETURNED", "NOCODE"), ("6" * 24, "APPROVED", shown.iloc[2]),
        ("7" * 24, "APPROVED", shown.iloc[3]), ("8" * 24, "APPROVED", shown.iloc[3])]))
    _, problems, raters = read_ratings(tmp_path / "back", plan, keep_unfinished=True)
    assert list(raters["participant"]) == ["", PANEL[1], "6" * 24, ""], "a blank or doubtful code stands for nobody"
    assert list(raters["status"]) == ["kept unfinished", *["kept"] * 3] and raters["ratings"][0] >= 2
    told = problems[problems["file"] == "prolific.csv"]
    assert told[["row", "what", "rater"]].to_numpy().tolist() == [
        [3, "another completion code", code], [5, "completion code without a file", ""],
        [8, "completion code without a file", ""], [9, "completion code without a file", ""]]
    assert f"{PANEL[1]}: the list has WRONG123, the file {shown[code]}" == told["detail"].iloc[0]
    assert f"{PANEL[3]}: the list has NOSUCH, which fits no file" == told["detail"].iloc[1]


def test_the_code_of_a_panel_is_listed_as_it_was_shown(tmp_path):
    study, texts = Study("tiny-1", completion_code="c1a2b3"), texts_for(8, 2)
    plan = write_study(tmp_path / "study", study, draw_plan(study, texts, 4, 4, 1, seed=3), texts)
    for name in ("plan.parquet", "plan.csv"):
        assert set(read_plan(tmp_path / "study" / "key" / name)["completion_code"]) == {"c1a2b3"}
    paths = simulate_raters(plan, tmp_path / "back", seed=4)
    document = json.loads(paths[0].read_text())
    paths[0].write_text(json.dumps(sign({**document, "participant": PANEL[0]})))
    paths[3].unlink()
    write(tmp_path / "back" / "prolific.csv", submissions([
        (PANEL[0], "APPROVED", "C1A2B3"), (PANEL[1], "APPROVED", "C1A2B3")]))
    _, problems, raters = read_ratings(tmp_path / "back", plan)
    assert list(raters["completion_code"]) == ["c1a2b3"] * 3 + [""] and list(raters["participant"]) == [
        PANEL[0], "", "", ""], "a code that all share finds nobody"
    assert problems["detail"].to_list() == [f"{PANEL[1]}: the list has C1A2B3, which fits all, but no file has this id"]


def test_fast_and_equal_answers_are_flagged_and_kept(made, tmp_path):
    plan, *_ = made
    paths = simulate_raters(plan, tmp_path / "back", seed=4)
    documents = [json.loads(path.read_text()) for path in paths]
    checks = set(plan.loc[plan["is_check"], "text"])
    for path, document, milliseconds, point in zip(paths, documents, (1003, 60_000, 4999, 5001), (None, 3, 4, None),
                                                   strict=True):
        for answer in document["answers"]:
            answer["milliseconds"] = milliseconds
            if point and answer["text"] not in checks:
                answer["scores"] = dict.fromkeys(ITEMS, point)
        path.write_text(json.dumps(sign(document)))
    raters = read_ratings(tmp_path / "back", plan).raters
    fast = "fast: under 5 seconds per page"
    assert list(raters["flag"]) == [fast, "all answers equal", f"{fast}; all answers equal", ""]
    assert list(raters["status"]) == ["kept"] * 4 and list(raters["seconds_per_page"]) == [1.0, 60.0, 5.0, 5.0]
    assert raters["seconds"].map(str).to_list() == ["5.015", "300.0", "24.995", "25.005"]


def test_two_people_with_one_code_are_two_raters(made, tmp_path):
    plan, answers, right = made
    paths = simulate_raters(plan, tmp_path / "back", effects={METHODS[0]: 0.7}, seed=4)
    document = json.loads(paths[0].read_text())
    code = document["rater"]
    for number, person in enumerate(PANEL[:2]):
        answers = [{**answer, "scores": dict.fromkeys(ITEMS, 1 + number) if answer["text"] in set(right["text"])
                    else answer["scores"]} for answer in document["answers"]]
        copy = sign({**document, "participant": person, "answers": answers})
        (tmp_path / "back" / f"{number}.json").write_text(json.dumps(copy))
        (tmp_path / "back" / f"{number} again.json").write_text(json.dumps(copy))
    paths[0].unlink()
    ratings, problems, raters = read_ratings(tmp_path / "back", plan)
    assert list(raters["rater"]) == [*sorted(set(plan["rater"])), f"{code}.2"]
    assert raters.set_index("rater")["participant"][[code, f"{code}.2"]].tolist() == PANEL[:2]
    assert ratings[ratings["rater"] == code]["score"].eq(1).all() and ratings[ratings["rater"] == f"{code}.2"][
        "score"].eq(2).all()
    assert problems[["file", "what", "detail"]].to_numpy().tolist() == [
        [f"{number} again.json", "copy of another file", f"the same answers as in {number}.json"] for number in (0, 1)]
    assert raters["completion_code"].is_unique


def all_at(point, document, plan):
    """Return the answers of a document with the same point for all statements, attention checks passed."""
    checks = set(plan.loc[plan["is_check"], "text"])
    return [one if one["text"] in checks else {**one, "scores": dict.fromkeys(ITEMS, point)}
            for one in document["answers"]]


@pytest.fixture
def first(made, tmp_path):
    """The answers of the first rater, as two people without an id gave them: (plan, code, two documents)."""
    plan, *_ = made
    document = json.loads(simulate_raters(plan, tmp_path / "made", seed=4)[0].read_text())
    (tmp_path / "back").mkdir()
    return plan, document["rater"], [
        sign({**document, "started": f"2026-11-28T1{point}:00:00Z", "simulated": False,
              "answers": all_at(point, document, plan)}) for point in (1, 2)]


def save(folder, name, document, plan):
    (folder / name).write_text(form_table(document, plan) if name.endswith("csv") else json.dumps(document), newline="")


@pytest.mark.parametrize("names", [("a.json", "b.json"), ("a.csv", "b.csv"), ("a.json", "b.csv"), ("a.csv", "b.json"),
                                   ("b.csv", "b.json", "a.csv", "a.json")])
def test_two_people_with_one_code_and_no_id_cost_each_other_nothing(first, tmp_path, names):
    plan, code, people = first
    for name in names:
        save(tmp_path / "back", name, people[name[0] == "b"], plan)
    ratings, problems, raters = read_ratings(tmp_path / "back", plan)
    kept = raters[raters["ratings"] > 0]
    assert list(kept["rater"]) == [code, f"{code}.2"] and list(kept["status"]) == ["kept"] * 2
    assert list(kept["ratings"]) == [4, 4] and kept["completion_code"].is_unique
    assert sorted(ratings.groupby("rater")["score"].agg(["min", "max"]).to_numpy().tolist()) == [[1, 1], [2, 2]]
    assert (problems["what"] == "copy of another file").sum() == len(problems) == len(names) - 2


def test_people_and_a_model_that_answered_with_their_codes_are_different_raters(made, tmp_path):
    plan, *_ = made
    for path in simulate_raters(plan, tmp_path / "made", seed=4):
        document = json.loads(path.read_text())
        for name, more in (("people", {"simulated": False, "started": "2026-11-28T10:00:00Z"}),
                           ("answers", {"model": "a/model"}), ("more answers", {"model": "another/model"})):
            (tmp_path / "back" / name).mkdir(parents=True, exist_ok=True)
            own = sign({**document, **more, "answers": all_at(len(name) % 5 + 1, document, plan)})
            (tmp_path / "back" / name / path.name).write_text(json.dumps(own))
    ratings, problems, raters = read_ratings(tmp_path / "back", plan)
    assert not len(problems) and list(raters["status"]) == ["kept"] * 12 and list(raters["ratings"]) == [4] * 12
    assert mark_of(ratings) == "RATED BY A MODEL" and ratings.groupby("rater")["model"].nunique().eq(1).all()
    assert ratings.drop_duplicates("rater")["model"].value_counts().to_dict() == {
        "": 4, "a/model": 4, "another/model": 4}
    assert describe_origin(ratings).startswith("**8 of 12 raters are a language model (a/model, another/model).**")


def test_a_rater_without_a_rating_that_can_be_used_is_not_kept(first, tmp_path):
    plan, code, people = first
    for number, document in enumerate(people):  # one person, who began once and saved two files
        save(tmp_path / "back", f"{number}.json", sign({**document, "started": "2026-11-28T10:00:00Z"}), plan)
    ratings, problems, raters = read_ratings(tmp_path / "back", plan)
    assert not len(ratings) and set(problems["what"]) == {"two different ratings of one text"} | {
        "copy of another file"}
    mine = raters.set_index("rater").loc[code]
    assert (mine["status"], mine["ratings"]) == ("no rating that can be used", 0)
    assert describe_use(raters, ratings).startswith("0 of 4 raters and 0 ratings are used: ")


def test_one_person_who_changed_an_answer_between_two_files_stays_one(first, tmp_path):
    plan, code, (document, _) = first
    save(tmp_path / "back", "a.json", document, plan)
    answers = [{**one, "scores": dict(one["scores"])} for one in document["answers"]]
    checks = set(plan.loc[plan["is_check"], "text"])
    changed = next(one for one in answers if one["text"] not in checks)
    changed["scores"]["truth"] = 5
    save(tmp_path / "back", "b.csv", {**document, "answers": answers}, plan)
    _, problems, raters = read_ratings(tmp_path / "back", plan)
    mine = raters.set_index("rater").loc[code]
    assert (mine["status"], mine["ratings"]) == ("kept", 3)
    assert len(raters) == 4 and problems["what"].value_counts()["two different ratings of one text"] == 2


def test_two_people_with_one_code_in_a_wide_table_are_two_raters(made, tmp_path):
    plan, answers, right = made
    names, pairs, rows = wide(answers, text_ids(plan), lambda code, _: [code], lambda text, item: f"{text}_{item}",
                              str, PANEL)
    checks = set(plan.loc[plan["is_check"], "text"])
    second = [rows[0][0], *("1" if cell and text not in checks else cell
                            for (text, _), cell in zip(pairs, rows[0][1:], strict=True))]
    ratings, problems, raters = read_ratings(
        write(tmp_path / "back" / "a.csv", [["rater", *names], *rows, second]), plan)
    assert not len(problems) and list(raters["rater"]) == [*answers, f"{rows[0][0]}.2"]
    same(ratings[ratings["rater"] != f"{rows[0][0]}.2"], right)
    assert ratings.loc[ratings["rater"] == f"{rows[0][0]}.2", "score"].eq(1).all() and len(ratings) == len(right) + 24


def test_truth_is_beside_the_five_and_may_be_missing(made, tmp_path):
    plan, answers, right = made
    quality = right[right["construct"] != "truth"].groupby(["rater", "text"])["score"].mean()
    assert quality.to_list() == pytest.approx(right.groupby(["rater", "text"])["quality"].first().to_list())
    assert list(ITEMS)[-1] == "truth" and set(right["construct"]) == set(ITEMS)
    names, pairs, rows = wide(answers, text_ids(plan), lambda code, _: [code], lambda text, item: f"{text}_{item}", str,
                              PANEL)
    kept = [0, *(place for place, (_, item) in enumerate(pairs, 1) if item != "truth")]
    table = [[["rater", *names][place] for place in kept], *([row[place] for place in kept] for row in rows)]
    ratings, problems, raters = read_ratings(write(tmp_path / "a.csv", table), plan)
    assert not len(problems) and set(raters["status"]) == {"kept"} and "truth" not in set(ratings["construct"])
    same(ratings, right[right["construct"] != "truth"])
