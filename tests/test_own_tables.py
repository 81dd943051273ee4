"""A user's own table: how it is understood, what is faulty in it, its cleaned copy, a new experiment for it, labels."""

import io
import json
import re
import zipfile

import pandas as pd
import pytest
import yaml

from kdutils.__main__ import main, say_costs
from kdutils.data.own_tables import find_columns, understand
from kdutils.data.readers import read_questions
from kdutils.data.table_check import check_table
from kdutils.errors import StudyError
from kdutils.experiments import duration
from kdutils.experiments.loading import load_experiment
from kdutils.experiments.new_experiment import new_experiment
from kdutils.student.methods import format_source
from kdutils.teacher.completion import Completion
from kdutils.teacher.labelling import agreement, to_answer, with_answers
from kdutils.teacher.prompting import check_prompts, few_shot_prompts

COLORS = ["red", "blue", "green"]


def first_question(rows, name="t.json", folder=None):
    (folder / name).write_text(json.dumps(rows) if name.endswith("json") else rows, encoding="utf-8")
    return read_questions("table", str(folder), {"test": name}).iloc[0]


# How it is understood: each writing of one question gives the same question

WRITINGS = {
    "list": {"choices": COLORS, "answer": "blue"},
    "bars": {"choices": "red | blue | green", "answer": "blue"},
    "lines": {"choices": "red\nblue\ngreen", "answer": "blue"},
    "semicolons": {"choices": "red; blue; green", "answer": "blue"},
    "JSON in a cell": {"choices": '["red", "blue", "green"]', "answer": "blue"},
    "Python in a cell": {"choices": "['red', 'blue', 'green']", "answer": "blue"},
    "NumPy in a cell": {"choices": "['red' 'blue' 'green']", "answer": "blue"},
    "brackets": {"options": "(a) red (b) blue (c) green", "answer": "(b)"},
    "MathQA": {"options": "a ) red , b ) blue , c ) green", "correct": "b"},
    "lettered lines": {"Options": "A. red\nB. blue\nC. green", "Correct Answer": "B"},
    "numbered": {"options": "1) red 2) blue 3) green", "answer": "blue"},
    "Hub": {"choices": {"text": COLORS, "label": ["A", "B", "C"]}, "answerKey": "B"},
    "Hub, numbers": {"choices": {"text": COLORS, "label": ["1", "2", "3"]}, "answerKey": "2"},
    "ARC": {"choices": [{"text": text, "label": label} for text, label in zip(COLORS, "ABC", strict=True)],
            "answerKey": "B"},
    "columns A B C": {"A": "red", "B": "blue", "C": "green", "answer": "B"},
    "columns with names": {"option1": "red", "option2": "blue", "option3": "green", "answer": "option2"},
    "columns, fewer": {"choice_a": "red", "choice_b": "blue", "choice_c": "green", "choice_d": "", "gold": "blue"},
    "MedMCQA": {"opa": "red", "opb": "blue", "opc": "green", "cop": "b"},
}


@pytest.mark.parametrize("writing", WRITINGS)
def test_a_question_is_the_same_however_it_is_written(writing, tmp_path):
    item = first_question([{"question": "Which is the colour of the sky?", **WRITINGS[writing]}], folder=tmp_path)
    assert (item["choices"], item["answer"]) == (COLORS, "blue")


@pytest.mark.parametrize(("answers", "expected"), [
    ([0, 2, 1], ["red", "green", "blue"]), ([1, 3, 2], ["red", "green", "blue"]),
    (["1", "3.0", "2"], ["red", "green", "blue"]), (["a", "C", "b)"], ["red", "green", "blue"])])
def test_the_rows_together_tell_how_answers_are_counted(answers, expected, tmp_path):
    rows = [{"question": f"Question {i}?", "choices": COLORS, "answer": answer} for i, answer in enumerate(answers)]
    (tmp_path / "t.json").write_text(json.dumps(rows))
    assert list(read_questions("table", str(tmp_path), {"test": "t.json"})["answer"]) == expected


def test_numbers_that_may_count_from_0_or_from_1_are_refused(tmp_path):
    rows = [{"question": f"Question {i}?", "choices": COLORS, "answer": i} for i in (1, 2)]
    (tmp_path / "t.json").write_text(json.dumps(rows))
    checked = check_table(tmp_path / "t.json")
    assert checked.faulty and not checked.copy and not (tmp_path / "t.cleaned.jsonl").exists()
    assert "cannot be told whether 1 is the first or the second" in "\n".join(checked.lines)


def test_choices_that_are_numbers_are_not_taken_for_places():
    """The answers 1, 2 and 3 are choices themselves, and places only by chance."""
    rows = [{"question": "q", "choices": ["1", "2", "3"], "answer": answer} for answer in ("1", "2", "3")]
    assert understand(rows, "t").answers == "text"


@pytest.mark.parametrize(("answers", "choices"), [
    ([True, False], ["true", "false"]), (["Yes", "no"], ["yes", "no"]), (["TRUE", "false"], ["true", "false"])])
def test_truth_values_without_choices_become_the_choices(answers, choices, tmp_path):
    item = first_question([{"question": f"Is it {answer}?", "answer": answer} for answer in answers], folder=tmp_path)
    assert (item["choices"], item["answer"]) == (choices, choices[0])


def test_free_answers_stay_free(tmp_path):
    rows = [{"question": "2 + 2?", "answer": 4}, {"question": "Capital?", "answer": "Yes"}]
    item = first_question(rows, folder=tmp_path)
    assert (item["choices"], item["answer"]) == ([], "4")


def test_columns_are_found_by_their_usual_names():
    columns = find_columns(["ID", "Question Stem", "Passage", "A", "B", "C", "AnswerKey", "Explanation 1",
                            "explanation_2", "Topic", "Split"])
    assert columns == {"id": ("ID",), "split": ("Split",), "context": ("Passage",), "question": ("Question Stem",),
                       "choices": ("A", "B", "C"), "answer": ("AnswerKey",),
                       "human_explanations": ("Explanation 1", "explanation_2")}
    assert find_columns(["question", "answer", "answer1", "answer3"])["choices"] == (), "2 is missing"


def test_ids_are_made_of_the_text_and_stay_when_rows_move(tmp_path):
    rows = [{"question": f"Question {i}?", "answer": "x"} for i in range(4)]
    ids = []
    for order in (rows, rows[::-1]):
        (tmp_path / "t.json").write_text(json.dumps(order))
        frame = read_questions("table", str(tmp_path), {"test": "t.json"})
        ids.append(dict(zip(frame["question"], frame["id"], strict=True)))
    assert ids[0] == ids[1] and len(set(ids[0].values())) == 4


# A passage

def test_students_and_prompts_see_the_passage(tmp_path):
    item = first_question([{"question": "Is it so?", "passage": "It is so.", "answer": True},
                           {"question": "Is it so?", "passage": "It is not so.", "answer": False}],
                          folder=tmp_path).to_dict()
    assert format_source(item, "predict") == ("[predict] Context: It is so.\nQuestion: Is it so?\n"
                                              "Choices: (a) true (b) false")
    (tmp_path / "few_shot.txt").write_text("Question: {question}\nAnswer ({quality}): The answer is {answer}.\n")
    assert "Question: It is so.\nIs it so?\n" in few_shot_prompts(pd.DataFrame([item]), str(tmp_path), 0)[0]


def test_one_question_on_two_passages_is_two_questions(tmp_path):
    rows = [{"question": "Is it so?", "context": "A.", "answer": True},
            {"question": "Is it so?", "context": "B.", "answer": False}]
    (tmp_path / "t.json").write_text(json.dumps(rows))
    assert len(read_questions("table", str(tmp_path), {"test": "t.json"})) == 2


# Workbooks

def workbook(rows):
    """Return the bytes of a minimal .xlsx: numbers and truth values as such, all else as texts in the cells."""
    def cell(value):
        if isinstance(value, bool):
            return f'<c t="b"><v>{int(value)}</v></c>'
        if isinstance(value, (int, float)):
            return f"<c><v>{value}</v></c>"
        return f'<c t="inlineStr"><is><t>{value}</t></is></c>'

    sheet = "".join(f"<row>{''.join(map(cell, row))}</row>" for row in rows)
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    rel = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    package = "http://schemas.openxmlformats.org/package/2006"
    links, application = f'<Relationships xmlns="{package}/relationships"><Relationship Id="r1"', "application/vnd."
    kind = f"{application}openxmlformats-officedocument.spreadsheetml"
    files = {
        "[Content_Types].xml": f'<Types xmlns="{package}/content-types"><Default Extension="rels" '
                               f'ContentType="{application}openxmlformats-package.relationships+xml"/>'
                               '<Override PartName="/xl/workbook.xml" '
                               f'ContentType="{kind}.sheet.main+xml"/><Override PartName="/xl/worksheets/sheet1.xml" '
                               f'ContentType="{kind}.worksheet+xml"/></Types>',
        "_rels/.rels": f'{links} Type="{rel}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook xmlns="{main}" xmlns:r="{rel}"><sheets>'
                           '<sheet name="Data" sheetId="1" r:id="r1"/></sheets></workbook>',
        "xl/_rels/workbook.xml.rels": f'{links} Type="{rel}/worksheet" '
                                      'Target="worksheets/sheet1.xml"/></Relationships>',
        "xl/worksheets/sheet1.xml": f'<worksheet xmlns="{main}"><sheetData>{sheet}</sheetData></worksheet>'}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as package_file:
        for name, text in files.items():
            package_file.writestr(name, text)
    return buffer.getvalue()


def test_a_workbook_reads_like_the_same_csv(tmp_path):
    pytest.importorskip("python_calamine", reason="python-calamine is missing: pip install -c constraints.txt -e .")
    rows = [["id", "question", "A", "B", "answer"], [7, "2 + 2?", 3, 4, "B"], [8, "2 + 3?", 5, 6.5, "A"]]
    (tmp_path / "t.xlsx").write_bytes(workbook(rows))
    (tmp_path / "t.csv").write_text("\n".join(",".join(map(str, row)) for row in rows))
    frames = [read_questions("table", str(tmp_path), {"test": name}).to_dict("records") for name in ("t.xlsx", "t.csv")]
    assert frames[0] == frames[1] and frames[0][0]["choices"] == ["3", "4"] and frames[0][0]["id"] == "7"


# Faults and the cleaned copy

FAULTY = [
    {"id": "a", "split": "train", "question": "Q0?", "choices": COLORS, "answer": "red"},
    {"id": "b", "split": "train", "question": "Q1?", "choices": ["red", "red", "blue"], "answer": "blue"},  # repaired
    {"id": "c", "split": "train", "question": "Q2?", "choices": COLORS, "answer": "pink"},  # left out
    {"id": "d", "split": "training", "question": "Q3?", "choices": COLORS, "answer": ""},  # left out
    {"id": "a", "split": "train", "question": "Q4?", "choices": COLORS, "answer": "red"},  # a new id
    {"id": "e", "split": "train", "question": "q5? ", "choices": COLORS[::-1], "answer": "red"},  # also in test
    {"id": "f", "split": "test", "question": "Q5?", "choices": COLORS, "answer": "red"},
    {"id": "g", "split": "train", "question": "Q6?", "choices": COLORS, "answer": "red"},  # with the next: contrary
    {"id": "h", "split": "train", "question": "Q6?", "choices": COLORS, "answer": "blue"},
    {"id": "i", "split": "train", "question": "Q0?", "choices": COLORS, "answer": "red"},  # the first again
    {"id": "j", "split": "validation", "question": "Q7?", "choices": COLORS, "answer": "red"},
    {"id": "k", "split": "somewhere", "question": "Q8?", "choices": COLORS, "answer": "red"},  # left out
]


def test_all_faulty_rows_are_listed_and_the_copy_can_be_used(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(map(json.dumps, FAULTY)))
    checked = check_table(path)
    told = {int(line.split()[1].strip(":")) for line in checked.lines if line.startswith("  row ")}
    assert checked.faulty and told == {1, 2, 3, 4, 6, 8, 11}
    frame = read_questions("table", str(tmp_path), {"all": "t.cleaned.jsonl"})
    assert sorted(zip(frame["question"], frame["split"], strict=True)) == [
        ("Q0?", "train"), ("Q1?", "train"), ("Q4?", "train"), ("Q5?", "test"), ("Q7?", "dev")]
    assert frame["id"].is_unique and {"a", "b", "f", "j"} < set(frame["id"])
    assert frame.set_index("question").loc["Q1?", "choices"] == ["red", "blue"]
    counts = {line.rsplit(": ", 1)[0].strip(): int(line.rsplit(": ", 1)[1]) for line in checked.lines[-5:]}
    assert counts == {"faulty, left out": 3, "a choice named twice, kept once": 1,
                      "the same question with another answer, all left out": 2, "the same question again, kept once": 2,
                      "an id that was not unique, given anew": 1}
    assert not check_table(tmp_path / "t.cleaned.jsonl").faulty
    assert check_table(path).copy == str(tmp_path / "t.cleaned.jsonl"), "the same copy again"


def test_a_cleaned_copy_overwrites_no_other_file_and_not_the_table_itself(tmp_path):
    before = "\n".join(map(json.dumps, FAULTY))
    (tmp_path / "t.cleaned.jsonl").write_text(before)
    assert check_table(tmp_path / "t.cleaned.jsonl").copy == str(tmp_path / "t.cleaned-2.jsonl")
    (tmp_path / "t.jsonl").write_text(before)
    (tmp_path / "t.cleaned-2.jsonl").write_text("corrected by hand")
    assert check_table(tmp_path / "t.jsonl").copy == str(tmp_path / "t.cleaned-3.jsonl")
    assert (tmp_path / "t.cleaned.jsonl").read_text() == before
    assert (tmp_path / "t.cleaned-2.jsonl").read_text() == "corrected by hand"


@pytest.mark.parametrize(("cell", "texts"), [
    ("As |x| = 3, the answer follows.", ["As |x| = 3, the answer follows."]), ("One. | Two.", ["One.", "Two."]),
    ("[The] river is long.", ["[The] river is long."]), ('["One.", "Two."]', ["One.", "Two."]), ("", []),
    (["One."], ["One."]), (None, [])])
def test_an_explanation_is_cut_only_where_several_are_written(tmp_path, cell, texts):
    path = write_rows(tmp_path, [{**row, "explanation": cell if number == 0 else "It is so."}
                                 for number, row in enumerate(plain_rows(4))])
    frame = read_questions("table", str(path.parent), {"all": path.name})
    assert [text.strip() for text in frame["human_explanations"].iloc[0]] == texts


def test_choices_may_begin_with_a_bracket(tmp_path):
    rows = [{**row, "choices": "[1] red | [2] blue", "answer": "[1] red"} for row in plain_rows(4)]
    path = write_rows(tmp_path, rows)
    assert list(read_questions("table", str(path.parent), {"all": path.name})["choices"].iloc[0]) == [
        "[1] red", "[2] blue"]


def test_the_command_fails_for_faults_and_not_for_a_good_table(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("KDUTILS_CALLED_FROM", str(tmp_path))
    rows = [*FAULTY[:1], {**FAULTY[0], "theme": "x"}, *FAULTY[2:3]]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert main(["check-data", "t.jsonl"]) == 2
    printed = capsys.readouterr().out
    assert "not used           column 'theme'" in printed and "the same question again, kept once: 1" in printed
    assert f"next: ./run_all.sh --new NAME --data {tmp_path / 't.cleaned.jsonl'}" in printed
    assert main(["check-data", "t.cleaned.jsonl"]) == 0
    assert main(["check-data", "nothing.csv"]) == 2


def test_rows_with_an_unusual_number_of_choices_are_named(tmp_path):
    head, row = "question,A,B,C,D,answer\n", "What is {0}?,a,b,c,d,A\n"
    lines = [row.format(number) for number in range(40)]
    lines[7], lines[9] = "What is 7?,,,,,7\n", "What is 9?,a,b,c,,A\n"
    (tmp_path / "t.csv").write_text(head + "".join(lines))
    found = [line.strip() for line in check_table(tmp_path / "t.csv").lines if "look at these" in line]
    assert found == ["look at these: 1 row has no choices, the others 4: row 7",
                     "look at these: 1 row has 3 choices, the others 4: row 9"]
    lines[8] = "What is 8?,,,,,(B)\n"
    (tmp_path / "t.csv").write_text(head + "".join(lines))
    checked = check_table(tmp_path / "t.csv")
    assert checked.faulty and any("field 'choices': empty, but the answer '(B)' is the letter of a choice" in line
                                  for line in checked.lines), "else students learn that the answer is (B)"
    lines[5] = "What is 5?,a,b,c,d,x\n"
    (tmp_path / "t.csv").write_text(head + "".join(lines))
    assert any("a spreadsheet shows row 0 in line 2" in line for line in check_table(tmp_path / "t.csv").lines)
    half = [row.format(number) if number % 2 else f"What is {number}?,,,,,{number}\n" for number in range(40)]
    (tmp_path / "t.csv").write_text(head + "".join(half))
    assert not any("look at these" in line for line in check_table(tmp_path / "t.csv").lines), "two kinds, on purpose"


def test_choices_with_commas_between_them_are_to_be_separated_otherwise(tmp_path):
    rows = ["hat; dog", '"hat, dog"', "hat", '"[""hat, dog""]"']
    (tmp_path / "t.csv").write_text("question,choices,answer\n" + "".join(
        f"Which is worn? {number},{cell},hat\n" for number, cell in enumerate(rows)))
    told = [line.rsplit(": ", 1)[1] for line in check_table(tmp_path / "t.csv").lines if "a list of one" in line]
    other = "not in the copy; add the other choices"
    assert told == ["not in the copy; separate the choices by | (a comma does not separate them)", other, other]
    cell = "a list of one, or so"  # a text that names the fault is not the fault
    (tmp_path / "u.csv").write_text(f'question,choices,answer\nWho?,a | b,"{cell}"\nWhy?,a | b,a\n')
    assert any("not in the copy; write one of its choices" in line for line in check_table(tmp_path / "u.csv").lines)


def test_one_row_and_one_choice_are_singular(tmp_path):
    rows = ["a | b | c"] * 20 + ["a"]
    (tmp_path / "t.csv").write_text("question,choices,answer\n" + "".join(
        f"Which? {number},{cell},a\n" for number, cell in enumerate(rows)))
    lines = [line.strip() for line in check_table(tmp_path / "t.csv").lines]
    assert "look at these: 1 row has 1 choice, the others 3: row 20" in lines
    assert any(line.startswith("1 faulty row (counted from 0") for line in lines)


def test_every_broken_line_of_a_csv_is_listed(tmp_path):
    (tmp_path / "t.csv").write_text("question,answer\n" + "a,b,c\n" * 30)
    checked = check_table(tmp_path / "t.csv")
    assert checked.faulty and sum(line.startswith("  row ") for line in checked.lines) == 30


def test_a_run_names_the_command_that_lists_all_faults(tmp_path):
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, FAULTY)))
    wanted = r"7 faulty rows: .*; \./run_all\.sh --check-data .*t\.jsonl lists them all"
    with pytest.raises(StudyError, match=wanted) as error:
        read_questions("table", str(tmp_path), {"all": "t.jsonl"})
    assert len(str(error.value)) <= 600


# Splits that are drawn

def plain_rows(count, **more):
    return [{"question": f"What is {number} plus one?", "choices": [str(number), str(number + 1)],
             "answer": str(number + 1), **more} for number in range(count)]


def test_without_a_split_test_and_dev_are_drawn_after_repeats_are_dropped(tmp_path):
    rows = plain_rows(100)
    (tmp_path / "t.json").write_text(json.dumps(rows + rows[:50]))
    frame = read_questions("table", str(tmp_path), {"all": "t.json"})
    assert frame["split"].value_counts().to_dict() == {"train": 81, "test": 10, "dev": 9}
    assert frame.attrs["notes"] == {"train: question repeated in the split": 50} and frame["question"].is_unique


# A new experiment

def write_rows(folder, rows, name="t.json"):
    (folder / name).write_text(json.dumps(rows))
    return folder / name


def test_a_new_experiment_runs_once_its_explanations_are_written(tmp_path, own_outputs):
    lines = new_experiment("mine", write_rows(tmp_path, plain_rows(60)), model="kdutils/mini/teacher")
    assert lines[-1] == f"next: ./run_all.sh {tmp_path / 'mine.yaml'} --dry-run" and "write 3 explanations" in lines[2]
    prompt = tmp_path / "mine-prompts" / "few_shot.txt"
    with pytest.raises(StudyError, match=r"few_shot\.txt: line 5: an explanation is not written yet"):
        load_experiment(tmp_path / "mine.yaml")
    assert main(["run", str(tmp_path / "mine.yaml"), "--dry-run"]) == 2
    train = read_questions("table", str(tmp_path), {"all": "t.json"}).query("split == 'train'")
    shots = re.findall(r"^Question: (What.*)$", prompt.read_text(), re.MULTILINE)
    assert len(shots) == 3 and set(shots) < set(train["question"])
    prompt.write_text(re.sub("<write here.*>", "One more is the next number.", prompt.read_text()))
    loaded = load_experiment(tmp_path / "mine.yaml")
    explaining = next(job for job in loaded.jobs if job.kind == "explanations")
    assert explaining.parameters["splits"] == ["train"] and explaining.parameters["prompts"] == str(prompt.parent)
    with pytest.raises(StudyError, match="exists already"):
        new_experiment("mine", tmp_path / "t.json", model="kdutils/mini/teacher")


def test_people_who_explained_are_the_teacher(tmp_path, own_outputs):
    rows = plain_rows(40, explanation="It is the next number.")
    lines = new_experiment("ours", write_rows(tmp_path, rows))
    assert len(lines) == 2 and not (tmp_path / "ours-prompts").exists()
    assert load_experiment(tmp_path / "ours.yaml").settings["teachers"] == {
        "people": {"backend": "published", "published_teacher": "people"}}


def test_a_server_is_the_teacher(tmp_path, own_outputs):
    rows = plain_rows(40, explanation="It is the next number.")
    new_experiment("served", write_rows(tmp_path, rows), "http://localhost:8000/v1", "org/Model-8B")
    assert load_experiment(tmp_path / "served.yaml").settings["teachers"]["model-8b"]["base_url"] == "http://localhost:8000/v1"
    assert "is the next number" in (tmp_path / "served-prompts" / "few_shot.txt").read_text()


@pytest.mark.parametrize(("name", "more", "message"), [
    ("mini", {}, "an experiment of this name exists"), ("example", {}, "an experiment of this name exists"),
    ("a/b", {}, "may contain only letters"),
    ("x", {"server": "http://localhost:1/v1"}, "which of its models"),
    ("x", {"server": "http://me:password123@host/v1", "model": "m"}, "password|user"),
    ("x", {"server": "not an address", "model": "m"}, "address|http")])
def test_what_cannot_be_an_experiment_writes_nothing(name, more, message, tmp_path, own_outputs):
    table = write_rows(tmp_path, plain_rows(40))
    with pytest.raises(StudyError, match=message):
        new_experiment(name, table, **more)
    assert [path.name for path in tmp_path.iterdir()] == ["t.json"]


def test_hostile_text_stays_text(tmp_path, own_outputs):
    """Braces, quotation marks, colons and blank lines in questions and names break neither the prompt nor the YAML."""
    folder = tmp_path / 'a "b": {c} #d'
    folder.mkdir()
    rows = plain_rows(40)
    rows = [{**row, "question": f"{row['question']}\n\n{{answer}} \"<b>\": '"} for row in rows]
    new_experiment("odd", write_rows(folder, rows, "q: {x}.json"), model="kdutils/mini/teacher")
    prompt = folder / "odd-prompts" / "few_shot.txt"
    assert yaml.safe_load((folder / "odd.yaml").read_text())["datasets"]["odd"]["files"] == {"all": "q: {x}.json"}
    text = re.sub("<write here.*>", "Because.", prompt.read_text())
    prompt.write_text(text)
    assert load_experiment(folder / "odd.yaml").name == "odd"
    asked = few_shot_prompts(pd.DataFrame([{**rows[0], "id": "a", "context": ""}]), str(prompt.parent), 0)[0]
    assert asked.count("{answer}") == 4 and asked.endswith("The answer is 1.")


@pytest.mark.parametrize(("text", "message"), [
    ("Question: {question}\n", "needs the slots"), ("{question} {answer} {why}\n", "unknown slot {why}"),
    ("Question: <write here, why>\n\n{question} {answer}\n", "line 1: an explanation is not written yet"),
    ("Q\n\n{question} {answer}".encode("utf-16"), "not a readable UTF-8 text")])
def test_a_prompt_file_is_checked_before_a_run(text, message, tmp_path):
    (tmp_path / "few_shot.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(StudyError, match=message):
        check_prompts(str(tmp_path), "few_shot")


# Labels of a teacher

def half_labelled(tmp_path):
    rows = [{**row, "answer": row["answer"] if number % 2 else ""} for number, row in enumerate(plain_rows(100))]
    return write_rows(tmp_path, rows)


def test_unlabelled_questions_are_faults_unless_a_teacher_answers_them(tmp_path):
    half_labelled(tmp_path)
    with pytest.raises(StudyError, match="50 faulty rows: .*field 'answer' is empty"):
        read_questions("table", str(tmp_path), {"all": "t.json"})
    frame = read_questions("table", str(tmp_path), {"all": "t.json"}, unlabelled=True)
    gaps = frame[frame["answer"] == ""]
    assert len(gaps) == 50 and set(gaps["split"]) == {"train", "dev"}, "the test split has answers"


def test_the_teacher_fills_the_gaps_and_agreement_counts_known_answers(tmp_path):
    half_labelled(tmp_path)
    frame = read_questions("table", str(tmp_path), {"all": "t.json"}, unlabelled=True)
    asked = to_answer(frame, ["test"])
    gaps = frame[frame["answer"] == ""]["id"]
    assert set(asked["id"]) == set(gaps) | set(frame.query("split == 'test'")["id"])
    test = frame.query("split == 'test'")
    answers = {row.id: row.choices[1] for row in asked.itertuples()}
    unknown = list(gaps)[0]
    answers |= {unknown: "", test["id"].iloc[0]: test["choices"].iloc[0][0]}  # one without an answer, one wrong
    filled = with_answers(frame, answers)
    assert len(filled) == len(frame) - 1 and unknown not in set(filled["id"])
    kept = filled.set_index("id").loc[frame.query("answer != ''")["id"], "answer"]
    assert list(kept) == list(frame.query("answer != ''")["answer"])
    found = agreement(frame, answers)
    assert set(found) == {"test"} and found["test"]["share"] == pytest.approx((len(test) - 1) / len(test))


def test_an_experiment_learns_from_the_labels(tmp_path, own_outputs):
    lines = new_experiment("labelled", half_labelled(tmp_path), model="kdutils/mini/teacher", unlabelled=True)
    prompt = tmp_path / "labelled-prompts" / "few_shot.txt"
    prompt.write_text(re.sub("<write here.*>", "It is the next number.", prompt.read_text()))
    experiment = load_experiment(tmp_path / "labelled.yaml")
    jobs = {job.kind: job for job in experiment.jobs}
    assert lines and jobs["data"].parameters["unlabelled"] and jobs["labels"].needs == ("data/labelled",)
    assert jobs["students"].parameters["questions"] == "outputs/labelled/labels/labelled/questions.parquet"
    assert jobs["explanations"].parameters["given_answer"] is False
    assert "labels/labelled" in jobs["students"].needs
    plans, _ = say_costs(experiment, [jobs["labels"], jobs["explanations"]])
    parts = duration.job_parts(experiment, [jobs["labels"], jobs["explanations"]], plans, 1)
    first, second = (plans[jobs[kind].folder].new_tokens for kind in ("labels", "explanations"))
    answers, texts = (parts[jobs[kind].folder] for kind in ("labels", "explanations"))
    assert answers.what == "answers of teacher" and answers.seconds > 0
    assert texts.seconds == pytest.approx(answers.seconds * (second - first) / first), "the rest is written by then"


def test_a_table_that_is_too_small_is_refused_before_a_file_is_written(tmp_path):
    with pytest.raises(StudyError, match="6 usable questions, with one in the split dev, are too few; give two"):
        new_experiment("small", write_rows(tmp_path, plain_rows(6)), model="kdutils/mini/teacher")
    assert [path.name for path in tmp_path.iterdir()] == ["t.json"]
    new_experiment("large", write_rows(tmp_path, plain_rows(20)), model="kdutils/mini/teacher")


def test_what_a_vocabulary_cannot_write_is_said_before_a_teacher_is_asked(tmp_path, own_outputs, real_data, capsys,
                                                                          monkeypatch):
    """By hand: one question has an answer in Chinese, which T5's vocabulary lacks."""
    monkeypatch.setenv("KDUTILS_DATA", str(real_data))
    rows = plain_rows(100)
    rows[3] = {**rows[3], "choices": ["水", "red"], "answer": "水"}
    new_experiment("braces", write_rows(tmp_path, rows), model="kdutils/mini/teacher")
    prompt = tmp_path / "braces-prompts" / "few_shot.txt"
    prompt.write_text(re.sub("<write here.*>", "It is the next number.", prompt.read_text()))
    prompt = tmp_path / "braces-prompts" / "few_shot.txt"
    prompt.write_text(re.sub("<write here.*>", "It is the next number.", prompt.read_text()))
    settings = yaml.safe_load((tmp_path / "braces.yaml").read_text())
    settings["students"] = {"t5": {"model": "google-t5/t5-small"}, "mini": {"model": "kdutils/mini/student"}}
    (tmp_path / "braces.yaml").write_text(yaml.safe_dump(settings))
    experiment = load_experiment(tmp_path / "braces.yaml")
    say_costs(experiment, experiment.jobs)
    said = capsys.readouterr().out
    assert said.count("t5-small: 1 of 100 questions has an answer that this vocabulary cannot write, such as '水'; "
                      "it counts as wrong.") == 1
    assert "mini/student:" not in said and said.index("t5-small") < said.index("completions are in the store")


def test_labels_need_one_teacher_who_can_answer(tmp_path, own_outputs):
    new_experiment("twice", half_labelled(tmp_path), model="kdutils/mini/teacher", unlabelled=True)
    settings = yaml.safe_load((tmp_path / "twice.yaml").read_text())
    settings["teachers"]["other"] = {"model": "kdutils/mini/teacher"}
    settings["datasets"]["twice"]["prompts"] = "kdutils/teacher/prompts/mini"
    (tmp_path / "twice.yaml").write_text(json.dumps(settings))
    with pytest.raises(StudyError, match="twice.labels': it is not clear who answers"):
        load_experiment(tmp_path / "twice.yaml")


def test_a_teachers_answer_is_read_as_a_choice(tmp_path, monkeypatch):
    from kdutils.teacher import labelling
    from kdutils.teacher.explaining import explanations_table, split_answer

    def explained(questions, prompting, parameters, progress=None, for_answers=False):
        assert for_answers and prompting == "few_shot" and parameters["given_answer"] is False
        written = [Completion(text, "stop", 1, 1) for text in (" 1. It follows.", " (b) 2. So.", " none of these. Hm.")]
        answers, rest = split_answer(written, questions["choices"])
        return explanations_table(questions, answers, rest, "rationale")

    monkeypatch.setattr(labelling, "explain", explained)
    questions = pd.DataFrame([{**row, "id": f"q{number}"} for number, row in enumerate(plain_rows(3))])
    assert labelling.teacher_answers(questions, {}) == {"q0": "1", "q1": "2", "q2": ""}


def test_a_dry_run_fails_where_the_run_would(tmp_path, own_outputs, capsys):
    """Wrong answers cannot be explained where there are no choices; the job would stop after others have run."""
    rows = [{"question": f"What is {number} plus one?", "answer": str(number + 1)} for number in range(40)]
    new_experiment("free", write_rows(tmp_path, rows), model="kdutils/mini/teacher")
    prompt = tmp_path / "free-prompts" / "few_shot.txt"
    prompt.write_text(re.sub("<write here.*>", "It is the next number.", prompt.read_text()))
    settings = yaml.safe_load((tmp_path / "free.yaml").read_text())
    settings["promptings"]["counterfactual"] = {}
    (tmp_path / "free.yaml").write_text(json.dumps(settings))
    assert main(["run", str(tmp_path / "free.yaml"), "--dry-run"]) == 2
    assert "a run would fail: 1 of" in capsys.readouterr().err
    assert main(["run", str(tmp_path / "free.yaml"), "--dry-run", "--", "--quiet"]) == 2, "the plan is read"
    assert "a run would fail: 1 of" in capsys.readouterr().err
    assert main(["index", str(tmp_path / "free.yaml")]) == 2 and "was never run" in capsys.readouterr().err
    assert not (own_outputs / "free").exists(), "an index alone would stand in the way of a run"
