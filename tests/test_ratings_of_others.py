"""Ratings as spreadsheets, survey tools and panels hand them back; where the key and simulated files belong."""

import json
import os
import re

import pandas as pd
import pytest
import yaml

from kdutils.__main__ import _remove_run
from kdutils.errors import StudyError
from kdutils.experiments.grid import FOLDER
from kdutils.experiments.loading import load_experiment
from kdutils.human_study.design import CONSTRUCTS, SCALE, TASKS, Study, draw_texts, eligible_texts
from kdutils.human_study.forms import write_study
from kdutils.human_study.metric_validity import text_measures
from kdutils.human_study.model_rater import texts_to_rate
from kdutils.human_study.plan import draw_plan, read_plan, write_plan
from kdutils.human_study.rating_values import place_of, possible_scores
from kdutils.human_study.ratings import (
    count_problems,
    one_row_per_rating,
    read_ratings,
)
from kdutils.human_study.simulated_raters import remove_simulated, simulate_raters
from tests.test_human_study import CHOICES, METHODS, form_table, sign, texts_for, world

PANEL = ["5f3c1a9e7b2d4c6e8f0a1b2c", "60d5ec49f1b2c8b1f8e4e1a7", "5e9f10293847566473829101", "5a0b1c2d3e4f506172839405"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A written study of four raters, four texts each, each text rated twice: (folder, plan)."""
    folder = tmp_path_factory.mktemp("others")
    texts = texts_for(4, 2)
    return folder, write_study(folder, Study("tiny-1"), draw_plan(Study("tiny-1"), texts, 4, 4, 2, seed=3), texts)


def survey(made, score="4"):
    """Return the survey table filled in, attention checks passed."""
    folder, plan = made
    table = pd.read_csv(folder / "survey" / "survey.csv", dtype=str, keep_default_na=False)
    pages = plan.set_index(["rater", "text"])
    for place, row in table.iterrows():
        page = pages.loc[(row["rater"], row["text"])]
        for name in CONSTRUCTS:
            table.loc[place, name] = str(page["expected"]) if page["is_check"] else score
    return table


def read(tmp_path, plan, text, name="a.csv", **options):
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    return read_ratings(tmp_path, plan, **options)


@pytest.mark.parametrize("score, delimiter", [("4,0", ";"), ("4,00", "\t"), ("4,0", ","), ("4,", ";"), ("4.", ",")])
def test_a_score_as_a_spreadsheet_writes_it(made, tmp_path, score, delimiter):
    table = survey(made, score)
    ratings, problems, _ = read(tmp_path, made[1], table.to_csv(index=False, sep=delimiter))
    assert not len(problems) and set(ratings["score"]) == {4.0} and len(ratings) == 80


@pytest.mark.parametrize("change", [
    lambda lines: [lines[0], *(line + "," for line in lines[1:])], lambda lines: [lines[0] + ",,", *lines[1:]],
    lambda lines: [lines[0] + ",", *lines[1:]], lambda lines: ["", *lines, "", ""],
    lambda lines: ["sep=,", *lines]])
def test_spare_cells_and_lines_cost_nothing(made, tmp_path, change):
    table = survey(made).drop(columns=["question", "choices", "explanation"])
    text = "\n".join(change(table.to_csv(index=False).splitlines())) + "\n"
    ratings, problems, _ = read(tmp_path, made[1], text)
    assert not len(problems) and len(ratings) == 80


def test_bad_rows_are_named_with_their_line_and_cost_no_other(made, tmp_path):
    lines = survey(made)[["rater", "text", *CONSTRUCTS]].to_csv(index=False).splitlines()
    checks = set(made[1].loc[made[1]["is_check"], "text"])
    places = [place for place, line in enumerate(lines) if place and line.split(",")[1] not in checks]
    wrong = {places[0]: lines[places[0]] + ",9", places[1]: lines[places[1]].replace(",4", ",9", 1),
             places[2]: lines[places[2]].replace(",4", ',"4"x', 1), places[3]: lines[places[3]].rsplit(",", 2)[0]}
    text = "\n".join(wrong.get(place, line) for place, line in enumerate(lines))
    ratings, problems, _ = read(tmp_path, made[1], text + "\n" + lines[places[5]], keep_unfinished=True)
    assert problems[["row", "what", "left_out"]].to_numpy().tolist() == [
        [places[0] + 1, "broken row", 1], [places[1] + 1, "score out of range", 1], [places[2] + 1, "broken table", 1],
        [places[3] + 1, "broken row", 1], [len(lines) + 1, "the same rating twice", 1]]
    assert set(problems["file"]) == {"a.csv"} and ratings["text"].size == 5 * (16 - 4)


def test_thousands_of_rows_and_one_broken_file_among_good_ones(made, tmp_path):
    table = survey(made)
    (tmp_path / "b.json").write_text("{")
    (tmp_path / "c.csv").write_bytes(b"\xff\xfe\xff")
    ratings, problems, _ = read(tmp_path, made[1], pd.concat([table] * 250).to_csv(index=False))
    assert len(ratings) == 80
    assert count_problems(problems).set_index("what")["times"].to_dict() == {
        "the same rating twice": 249 * 20, "broken JSON": 1, "wrong encoding": 1}
    twice = survey(made).iloc[:0].assign(plausibility=[]).to_csv(index=False).strip()
    _, problems, _ = read(tmp_path, made[1], twice + ",plausibility\n", "d.csv")
    assert "duplicate column plausibility" in set(problems["detail"])


def test_a_file_sent_twice_is_one_line_that_names_the_copy(made, tmp_path):
    folder, plan = made
    path = simulate_raters(plan, tmp_path)[1]
    for other in set(tmp_path.iterdir()) - {path}:
        other.unlink()
    document, original = json.loads(path.read_text()), tmp_path / "tiny_ratings.json"
    path.rename(original)
    (tmp_path / "tiny_ratings (1).json").write_text(original.read_text())
    (tmp_path / "a.csv").write_text(form_table(document, plan), newline="")
    ratings, problems, _ = read_ratings(tmp_path, plan)
    assert set(ratings["file"]) == {"tiny_ratings.json"} and len(ratings) == 24
    assert problems.to_numpy().tolist() == [
        [name, 0, document["rater"], "copy of another file", "the same answers as in tiny_ratings.json", 5]
        for name in ("a.csv", "tiny_ratings (1).json")]


def test_files_of_an_unknown_version_alone_are_called_so(made, tmp_path):
    folder, plan = made
    documents = [json.loads(path.read_text()) for path in simulate_raters(plan, tmp_path / "made")]
    old = [{**documents[0], "rater": "R999J", "version": "0" * 16}, {**documents[1], "version": "0" * 16}]
    (tmp_path / "a.json").write_text(json.dumps(sign(old[0])))
    (tmp_path / "b.csv").write_text(form_table(old[1], plan), newline="")
    _, problems, raters = read_ratings([tmp_path / "a.json", tmp_path / "b.csv"], plan)
    raters = raters.set_index("rater")
    assert raters.loc[["R999J", old[1]["rater"]], ["status", "pages", "of", "ratings"]].to_numpy().tolist() == [
        ["another version of the form", 5, 5, 0]] * 2 and (raters["status"] == "nothing came").sum() == 3
    assert problems[["file", "rater", "left_out"]].to_numpy().tolist() == [
        ["a.json", "R999J", 5], ["b.csv", old[1]["rater"], 5]]


@pytest.mark.parametrize("choices", [["2", "3", "4", "5", "1"], ["B", "A", "D", "C", "E"]])
def test_choices_that_are_numbers_or_letters_are_read_as_the_layout_means_them(tmp_path, choices):
    """The form writes the number of a choice and Potato its letter; a cell that people filled in may be ambiguous."""
    study, (predictions, questions) = Study("sim", task="simulation"), world(12, 2)
    new = dict(zip(CHOICES, choices, strict=True))
    predictions = predictions.assign(**{name: predictions[name].map(new) for name in ("answer", "predicted")})
    questions = questions.assign(choices=[choices] * 12, answer=questions["answer"].map(new))
    texts = draw_texts(eligible_texts(predictions, questions, "any", task="simulation")[0], 12)
    plan = write_study(tmp_path, study, draw_plan(study, texts, 6, 8, 2), texts)
    documents = [json.loads(path.read_text()) for path in simulate_raters(plan, tmp_path / "json")]
    right = read_ratings(tmp_path / "json", plan)
    assert set(right.ratings["choice"]) <= set(choices) and set(right.ratings["score"]) == {0.0, 1.0}
    (tmp_path / "csv").mkdir()
    for document in documents:
        rater, chosen = document["rater"], {one["text"]: one["scores"]["simulation"] for one in document["answers"]}
        letters = {text: chr(64 + place) for text, place in chosen.items()}
        table = form_table(document, plan).replace(",".join(TASKS["rating"]), "simulation")
        (tmp_path / "csv" / f"{rater}.csv").write_text(table, newline="")
        pairs = {text: [[{"schema": "simulation", "name": letter}, True]] for text, letter in letters.items()}
        lines = [{"id": text, "label_annotations": {"simulation": {letter: "x"}}} for text, letter in letters.items()]
        for name, file, content in (
                ("potato 2", "user_state.json", [{"user_id": rater, "instance_id_to_label_to_value": pairs}]),
                ("potato 1", "annotated_instances.jsonl", lines)):
            (tmp_path / name / rater).mkdir(parents=True)
            (tmp_path / name / rater / file).write_text("\n".join(map(json.dumps, content)))
    columns = ["rater", "text", "choice", "score"]
    for name in ("csv", "potato 1", "potato 2"):
        found = read_ratings(tmp_path / name, plan)
        assert not len(found.problems), found.problems
        pd.testing.assert_frame_equal(*(one.ratings[columns].sort_values(columns[:2], ignore_index=True)
                                        for one in (found, right)))
        if name == "csv":
            assert found.raters["completion_code"].equals(right.raters["completion_code"])
    filled = pd.read_csv(tmp_path / "survey" / "survey.csv", dtype=str)
    for label, ambiguous in ((lambda number: chr(64 + number), choices[0] == "B"), (str, choices[0] == "2"),
                             (lambda number: choices[number - 1], True)):
        filled["simulation"] = [label(page["expected"]) for page in plan.to_dict("records")]
        filled[~plan["is_check"].to_numpy()].to_csv(tmp_path / "filled.csv", index=False)
        ratings, problems, _ = read_ratings(tmp_path / "filled.csv", plan, keep_unfinished=True)
        assert (set(problems["what"]) == {"ambiguous score"}) == ambiguous == bool(len(problems))
        assert ratings["score"].eq(1).all() and len(ratings) + ambiguous * len(problems) == 48
    assert re.fullmatch(r"simulation = \S+ means \d or \d", problems["detail"][0])


def test_a_number_that_is_no_place_can_only_be_the_text_of_a_choice():
    assert possible_scores("5", ["2", "3", "4", "5"]) == {4} and possible_scores("2", ["2", "3"]) == {1, 2}
    assert possible_scores(2, ["2", "3"]) == {2} and possible_scores(" us", ["US", "us", "uk"]) == {2}
    assert possible_scores("Us", ["US", "us"]) == {1, 2} and possible_scores("x", ["x", "x"]) == {1, 2}
    assert possible_scores("a", SCALE) == possible_scores(True, SCALE) == possible_scores(float("inf"), SCALE) == set()
    assert possible_scores("4,0", SCALE) == {4} and possible_scores("Agree", SCALE) == {4}
    assert [place_of(one) for one in ("3,0", " 2", "b", 4, "")] == [3, 2, "b", 4, ""] and place_of("b", True) == 2


# Ids of another source --------------------------------------------------------------------------------------------


def scored(made, tmp_path, effect=0.7):
    """Return (plan, {code: what its form saved}, the ratings as they should be read)."""
    plan = made[1]
    paths = simulate_raters(plan, tmp_path / "right", effects={METHODS[0]: effect}, seed=4)
    found = [json.loads(path.read_text()) for path in paths]
    right = read_ratings(tmp_path / "right", plan).ratings
    return plan, {document["rater"]: document for document in found}, right


def same(ratings, right):
    columns = ["rater", "text", "construct", "score", "method", "quality"]
    pd.testing.assert_frame_equal(*(frame[columns].sort_values(columns[:3], ignore_index=True)
                                    for frame in (ratings, right)))


@pytest.mark.parametrize("layout", ["survey", "form table", "form file", "form file unsigned", "potato", "beside"])
def test_ids_of_a_panel_stand_for_the_codes_that_saw_their_texts(made, tmp_path, layout):
    plan, files, right = scored(made, tmp_path)
    home = tmp_path / "back"
    home.mkdir()
    for (code, document), person in zip(files.items(), PANEL, strict=True):
        answers = [{"rater": person, "text": answer["text"], **answer["scores"]} for answer in document["answers"]]
        if layout in ("survey", "beside"):
            table = pd.DataFrame(answers).assign(**({"slot": code} if layout == "beside" else {}))
            table.to_csv(home / f"{person}.csv", index=False)
        elif layout == "form table":
            (home / f"{person}.csv").write_text(form_table(document, plan).replace(code, person))
        elif layout == "potato":
            state = {"user_id": person, "instance_id_to_label_to_value": {
                answer["text"]: [[{"schema": name, "name": str(score)}, True] for name, score in
                                 answer["scores"].items()] for answer in document["answers"]}}
            (home / person).mkdir()
            (home / person / "user_state.json").write_text(json.dumps(state))
        else:
            changed = {**document, "rater": person}
            (home / f"{person}.json").write_text(json.dumps(sign(changed) if layout == "form file" else changed))
    ratings, problems, raters = read_ratings(home, plan)
    same(ratings, right)
    assert set(raters["status"]) == {"kept"} and set(problems["what"]) == {"id of another source"}
    said = dict(re.fullmatch(r"(\w+) stands for (\w+)", detail).groups() for detail in problems["detail"])
    assert said == dict(zip(PANEL, files, strict=True)) and not problems["left_out"].sum()


def test_a_table_says_which_code_an_id_stands_for(made, tmp_path):
    plan, files, _ = scored(made, tmp_path)
    home, code = tmp_path / "back", next(iter(files))
    home.mkdir()
    answer = files[code]["answers"][0]
    lines = ["participant,text," + ",".join(CONSTRUCTS), f"x1,{answer['text']},4,4,4,4,4"]
    (home / "a.csv").write_text("\n".join(lines).replace("participant", "rater"))
    assert set(read_ratings(home, plan, keep_unfinished=True).problems["what"]) & {"unknown rater"}
    (home / "codes.csv").write_text(f"Prolific_PID;rater\nx1;{code}\nx2;nobody\n")
    ratings, problems, _ = read_ratings(home, plan, keep_unfinished=True)
    assert set(ratings["rater"]) <= {code} and f"x1 stands for {code}" in set(problems["detail"])
    assert problems.loc[problems["what"] == "unknown rater", ["file", "row"]].to_numpy().tolist() == [["codes.csv", 3]]


def test_an_id_that_fits_no_code_or_several_is_a_clear_line(made, tmp_path):
    plan, files, _ = scored(made, tmp_path)
    code = next(iter(files))
    table = survey(made)
    mine = table[table["rater"] == code]
    text = pd.concat([mine.assign(rater=PANEL[0]), mine.assign(rater=PANEL[1])]).to_csv(index=False)
    ratings, problems, _ = read(tmp_path / "right", plan, text)
    assert len(problems) == 10 and set(problems["what"]) == {"unknown rater"}
    assert problems["detail"].iloc[0] == f"{PANEL[0]}: no free code of the plan saw its texts"
    (tmp_path / "two").mkdir()
    ratings, problems, _ = read(tmp_path / "two", plan, text)
    assert problems["detail"].iloc[0] == f"{PANEL[0]}: fits {code}, as others do" and not len(ratings)
    (tmp_path / "mixed").mkdir()
    everything = table.assign(rater=PANEL[2])
    assert set(read(tmp_path / "mixed", plan, everything.to_csv(index=False)).problems["what"]) == {"unknown rater"}
    (tmp_path / "other").mkdir()
    text = mine.assign(rater="R999X").to_csv(index=False)
    assert set(read(tmp_path / "other", plan, text).problems["what"]) == {"unknown rater"}, "a code of another plan"


def test_people_who_saw_the_same_texts_are_told_apart_and_a_code_may_be_written_small(tmp_path):
    texts = texts_for(2, 2)
    plan = draw_plan(Study("s"), texts, 4, 4, 4, checks=0).assign(version="v")
    write_plan(tmp_path / "key", plan)
    home = tmp_path / "back"
    home.mkdir()
    codes = sorted(plan["rater"].unique())
    for number, person in enumerate(PANEL[:3]):
        table = pd.DataFrame([{"rater": person, "text": text, **dict.fromkeys(CONSTRUCTS, number + 1)}
                              for text in texts["text"]])
        table.to_csv(home / f"{number}.csv", index=False)
    table.assign(rater=f" {codes[3].lower()} ").to_csv(home / "3.csv", index=False)
    ratings, _, raters = read_ratings(home, plan)
    assert set(raters["status"]) == {"kept"} and ratings.groupby("rater")["score"].nunique().eq(1).all()
    assert sorted(ratings.groupby("rater")["score"].first()) == [1, 2, 3, 3]


def test_a_row_of_the_form_that_a_spreadsheet_wrote_with_decimals_is_whole(made, tmp_path):
    plan, files, right = scored(made, tmp_path)
    (tmp_path / "back").mkdir()
    for code, document in files.items():
        lines = [line.split(",") for line in form_table(document, plan).split("\r\n")]
        text = "\r\n".join(";".join(re.sub(r"^(\d)$", r"\1,0", cell) for cell in line) for line in lines)
        (tmp_path / "back" / f"{code}.csv").write_text(text)
    ratings, problems, _ = read_ratings(tmp_path / "back", plan)
    assert not len(problems)
    same(ratings, right)


# The key and simulated files --------------------------------------------------------------------------------------


@pytest.mark.skipif(os.name != "posix", reason="permissions of this kind are POSIX")
def test_the_key_is_for_its_owner_alone_also_where_it_was_there_before(tmp_path):
    texts = texts_for(4, 2)
    (tmp_path / "key").mkdir(mode=0o755)
    (tmp_path / "key" / "old.csv").write_text("x")
    (tmp_path / "key" / "plan.csv").write_text("x")
    for path in (tmp_path / "key").iterdir():
        path.chmod(0o666)
    (tmp_path / "key").chmod(0o777)
    write_study(tmp_path, Study("s"), draw_plan(Study("s"), texts, 4, 4, 2), texts)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "key").iterdir()}
    assert modes == dict.fromkeys(["old.csv", "plan.csv", "plan.parquet", "texts.parquet"], 0o600)
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "form.html").stat().st_mode & 0o044, "raters' files may be read"


def test_ratings_of_an_earlier_form_are_read_with_its_own_key(tmp_path):
    folder, back, texts = tmp_path / "human_study", tmp_path / "back", texts_for(4, 2)

    def make(study, seed, texts):
        plan = write_study(folder, study, draw_plan(study, texts, 4, 4, 2, seed=seed), texts)
        return plan, [json.loads(path.read_text()) for path in simulate_raters(plan, tmp_path / "made", seed=seed)]

    first, documents = make(Study("tiny-1"), 3, texts)
    sent = (folder / "form.html").read_bytes()
    back.mkdir()
    for place in (0, 1):
        (back / f"first {place}.json").write_text(json.dumps(documents[place]))
    (back / "first.csv").write_text(form_table(documents[2], first), newline="")
    right = read_ratings(back, folder / "key" / "plan.parquet").ratings
    assert len(right) == 3 * 4 * 6

    other = texts_for(4, 2, "Nobody knows {answer}, said {method}.", seed=9)
    other["text"] = sorted(texts["text"])  # the worst case: equal ids of other texts
    second, documents = make(Study("tiny-1"), 5, other)
    (back / "second.json").write_text(json.dumps(documents[0]))
    version, key = first["version"].iloc[0], folder / "key"
    assert (key / version / "form.html").read_bytes() == sent and os.stat(key / version).st_mode & 0o777 == 0o700
    ratings, problems, raters = read_ratings(back, key / "plan.parquet")
    old = ratings[ratings["rater"].str.endswith(version[:8])]
    columns = ["question", "method", "construct", "score", "characters"]
    assert sorted(map(tuple, old[columns].astype(str).to_numpy())) == sorted(
        map(tuple, right[columns].astype(str).to_numpy())), "as before the study was changed"
    assert len(ratings) == 4 * 4 * 6 and not set(old["text"]) & set(texts["text"])
    assert problems[["file", "what"]].to_numpy().tolist() == [
        [name, "of an earlier form"] for name in ("first 0.json", "first 1.json", "first.csv")]
    assert list(raters["status"]) == ["kept", *["nothing came"] * 3, *["kept"] * 3] and raters["rater"].is_unique
    measured = text_measures(key / "texts.parquet", one_row_per_rating(ratings), None)
    assert len(measured) == 16 and measured["words"].notna().all()
    asked = texts_to_rate(key / "texts.parquet", ratings, False, 1000)
    assert set(ratings["text"]) <= set(asked["text"]), "a model rates the texts of the earlier form, too"
    _, problems, _ = read_ratings(back, second)
    assert list(problems["what"].unique()) == ["another version of the form"], "without the keys"

    make(Study("tiny-1", return_to="us@example.org"), 5, other)  # only a sentence of the form changes
    texts_now = set(read_ratings(back, key / "plan.parquet").ratings["text"])
    assert len(list(key.glob("*/plan.parquet"))) == 2 and len(texts_now & set(texts["text"])) == 4


def test_everything_again_keeps_the_keys_of_a_study(tmp_path):
    write_study(tmp_path / "a", Study("s"), draw_plan(Study("s"), texts_for(4, 2), 4, 4, 2), texts_for(4, 2))
    for name in ("a/metrics.json", "b/metrics.json", "b/key.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    for name in "abc":
        _remove_run(tmp_path / name)
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["form.html", "key"]
    assert len(list((tmp_path / "a" / "key").iterdir())) == 3 and not (tmp_path / "b").exists()


def test_simulated_files_of_an_earlier_plan_go_and_files_of_people_stay(made, tmp_path):
    plan = made[1]
    old = plan.assign(rater=plan["rater"] + "9", version="earlier")
    first = simulate_raters(old, tmp_path)
    person = sign({**json.loads(first[0].read_text()), "simulated": False})
    (tmp_path / "a_simulated.json").write_text(json.dumps(person))
    (tmp_path / "b_simulated.json").write_text("no JSON")
    second = simulate_raters(plan, tmp_path)
    kept = {path.name for path in tmp_path.iterdir()}
    assert kept == {path.name for path in second} | {"a_simulated.json", "b_simulated.json"}
    remove_simulated(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"a_simulated.json", "b_simulated.json"}


def test_a_plan_that_a_spreadsheet_saved_reads_back_and_a_broken_one_is_named(made, tmp_path):
    folder, plan = made
    words = (folder / "key" / "plan.csv").read_text(encoding="utf-8").replace("True", "TRUE").replace("False", "FALSE")
    table = pd.read_csv(folder / "key" / "plan.csv", dtype=str, keep_default_na=False)
    (tmp_path / "a.csv").write_text("\ufeff" + words, encoding="utf-8")
    table.to_csv(tmp_path / "b.csv", index=False, sep=";")
    for name in ("a.csv", "b.csv"):
        pd.testing.assert_frame_equal(read_plan(tmp_path / name), plan)
    for change, message in ((table.iloc[:0], "it has no rows"), (table.assign(task="zzz"), "unknown task 'zzz'"),
                            (table.assign(study=[*table["study"][1:], "b"]), "column 'study' holds several"),
                            (table.assign(expected="9"), "is not one of its points"),
                            (table.assign(is_check="perhaps"), "not a readable plan"),
                            (table.assign(choices="[1"), "not a readable plan")):
        change.to_csv(tmp_path / "c.csv", index=False)
        with pytest.raises(StudyError, match=f"c.csv: .*{message}"):
            read_plan(tmp_path / "c.csv")


def test_odd_plan_cells_come_back_from_the_csv_as_they_were(made, tmp_path):
    plan = made[1].assign(question=["=1+1", "-x", "'@y", "'", "+49", "-3", "a\nb", " =z"] * 2 + ["@"] * 4)
    write_plan(tmp_path, plan)
    assert not re.search(r"(^|,)\"?[=@]", (tmp_path / "plan.csv").read_text(encoding="utf-8"), re.MULTILINE)
    pd.testing.assert_frame_equal(read_plan(tmp_path / "plan.csv"), plan)


@pytest.mark.parametrize("key, entry, message", [
    ("human_study", {"methods": "standard"}, "key 'human_study.methods': 'standard' is not of type list"),
    ("human_study", {"methods": []}, "key 'human_study.methods': empty"),
    ("human_study", {"promptings": ["zzz"]}, "key 'human_study.promptings': 'zzz' is not among")])
def test_a_message_names_the_key_as_it_stands_in_the_file(tmp_path, key, entry, message):
    settings = yaml.safe_load((FOLDER / "mini.yaml").read_text(encoding="utf-8"))
    (tmp_path / "a.yaml").write_text(yaml.safe_dump({**settings, key: entry}))
    with pytest.raises(StudyError, match=re.escape(message)) as error:
        load_experiment(str(tmp_path / "a.yaml"))
    assert ".." not in str(error.value).partition("key '")[2]
