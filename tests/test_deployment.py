"""Students leave the study: they are asked, exported for transformers alone, and what they cost to run is measured."""

import io
import json
import math
import os
import re
import shutil
import subprocess
import sys

import pandas as pd
import pytest
import torch
from conftest import PROJECT

from kdutils.__main__ import main
from kdutils.data.tables import read_table, write_table
from kdutils.deployment import asking, costs, export
from kdutils.deployment.asking import ask, load_to_ask, make_question, read_asked, reads_passages
from kdutils.errors import StudyError
from kdutils.experiments import trained
from kdutils.experiments.execution import record
from kdutils.experiments.grid import Experiment, Job, make_jobs
from kdutils.experiments.tiny import ENCODER
from kdutils.experiments.trained import Cell, select_cells, trained_cells
from kdutils.report.answers import answer_lines, answer_text, mark_words, marked_html
from kdutils.runs import read_json, write_json
from kdutils.student.methods import Explained, asked_as
from kdutils.student.predicting import load_trained, predict_questions, predict_with, written_answers
from kdutils.student.settings import TrainCombined
from kdutils.student.training import Recipe, train_student, training_metrics
from kdutils.teacher.word_scores import driving_words

EXAMPLE = PROJECT / "kdutils" / "mini" / "example"
STUDENT = EXAMPLE / "students" / "seed-0"
QUESTIONS = EXAMPLE / "questions" / "questions.parquet"
TRAINING = {"epochs": 1.0, "questions_per_step": 8, "learning_rate": 0.001, "warmup_steps": 1, "dev_evaluations": 1,
            "max_source_tokens": 128, "max_target_tokens": 64, "token_budget": 4000}
T5, LLAMA = {"model": "kdutils/mini/student"}, {"model": "kdutils/mini/teacher"}
STUDENTS = {  # name: (method, student, place of the tag)
    "causal": ("multitask", {**LLAMA, "lora": {"rank": 2}}, ""), "causal_before": ("standard", LLAMA, "before"),
    "one_text": ("standard", T5, ""), "explains_first": ("counterfactual", T5, "after"),
    "untagged": ("untagged", T5, ""),
    "classifier": ("label_only", {"model": "", "tokenizer": "kdutils/mini/student", "kind": "classifier",
                                  "random_weights": True, "config": ENCODER}, "")}
PASSAGES = {  # the same of students whose questions have a passage, but for some
    "causal_passages": ("multitask", LLAMA, ""), "one_text_passages": ("standard", T5, ""),
    "first_passages": ("counterfactual", T5, "after"), "classifier_passages": STUDENTS["classifier"]}


def questions(split, count, passages=False):
    table = read_table(QUESTIONS, "questions")
    if passages:
        table["context"] = [f"Question {number} is about {choices[0]} and {choices[-1]}." if number % 4 else ""
                            for number, choices in enumerate(table["choices"], 1)]
    return table[table["split"] == split].head(count).reset_index(drop=True)


def table_with_passages(folder):
    """Write the questions, with passages, into a new folder; return the path of the table."""
    folder.mkdir(parents=True, exist_ok=True)
    table = pd.concat([questions(split, 96, passages=True) for split in ("train", "dev", "test")], ignore_index=True)
    return write_table(table, folder / "questions.parquet", "questions")


def example_with_passages(folder):
    """Return the folder of a copy of the student that ships, as if its questions had passages."""
    shutil.copytree(STUDENT.parent, folder)
    run = read_json(folder / "run.json")
    run["parameters"]["questions"] = str(table_with_passages(folder / "questions"))
    write_json(folder / "run.json", run)
    return folder / STUDENT.name


def trained_as(folder, name):
    """Return the folder of a student that was trained for one step, with the record of its run beside it."""
    method, student, tag = {**STUDENTS, **PASSAGES}[name]
    table = pd.concat([questions("train", 8, name in PASSAGES), questions("dev", 2, name in PASSAGES)],
                      ignore_index=True)
    told = {item["id"]: Explained(f"It is {item['answer']}.", {one: f"It is {one}." for one in item["choices"]
                                                             if one != item["answer"]})
            for item in table.to_dict("records")}
    recipe = Recipe(method, student, {**TRAINING, "tag": tag}, {})
    train_student(folder / name / "seed-0", table, told, recipe)
    write_json(folder / name / "run.json", {"notebook": "x", "parameters": {
        **TrainCombined.defaults(), **student, "lora": student.get("lora", {}),
        "questions": str(table_with_passages(folder / name) if name in PASSAGES else QUESTIONS),
        "explanations": "", "labels": {"dataset": "mini", "method": method}}})
    return folder / name / "seed-0"


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """{name: (folder of the student, folder of its export)} of the example student and of one of each kind."""
    root, found = tmp_path_factory.mktemp("students"), {}
    for name in ("example", "example_passages", *STUDENTS, *PASSAGES):
        folder = STUDENT if name == "example" else example_with_passages(root / name) if name == "example_passages" \
            else trained_as(root, name)
        evaluations = [EXAMPLE / "evaluations"] if name == "example" else []
        found[name] = folder, export.export_student(folder, root / "exported" / name, f"try: {name}", evaluations)
    return found


RUNNER = """
import contextlib, io, json, runpy, sys
sys.modules["kdutils"] = None  # to import it is an error
found = {}
for name, folder, items in json.load(sys.stdin):
    ask = runpy.run_path(folder + "/example.py")["ask"]
    found[name] = [ask(**item) for item in items]
    first = items[0]
    sys.argv = ["example.py", *([first["context"]] if "context" in first else []), first["question"], *first["choices"]]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        runpy.run_path(folder + "/example.py", run_name="__main__")
    found[name].append(printed.getvalue())
    if "context" in first:
        found[name + " without"] = [ask(item["question"], item["choices"]) for item in items]
print(json.dumps(found))
"""


def plain_items(table):
    """Return the arguments of `ask`; a passage is on two lines, and becomes one."""
    passages = (table["context"] != "").any()
    return [{"question": item["question"], "choices": list(item["choices"]),
             **({"context": item["context"].replace(" is", "\n is")} if passages else {})}
            for item in table.to_dict("records")]


def test_an_exported_student_gives_the_same_answers_without_this_package(exported):
    asked = {name: questions("test", 32 if "example" in name else 6, "passages" in name) for name in exported}
    given = [(name, str(folder), plain_items(asked[name])) for name, (_, folder) in exported.items()]
    done = subprocess.run([sys.executable, "-I", "-c", RUNNER], input=json.dumps(given), capture_output=True, text=True,
                          env={**os.environ, "HF_HUB_OFFLINE": "1"})
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(done.stdout.splitlines()[-1])
    for name, (folder, _) in exported.items():
        table = predict_with(folder, asked[name], 64, 0)
        assert said[name].pop() == "".join(f"{text}\n" for text in said[name][0])
        if "example" in name or "classifier" in name:  # these have learnt to answer, or can do nothing else
            assert [answer for answer, _ in said[name]] == list(table["predicted"])
        if name.removesuffix("_passages") not in ("causal_before", "one_text", "first", "explains_first", "untagged"):
            assert [text for _, text in said[name]] == list(table["explanation"])
            continue
        for (answer, explanation), row in zip(said[name], table.to_dict("records"), strict=True):
            assert answer in row["generated"] and explanation in row["generated"]
            if row["exact"]:
                assert (answer, explanation) == (row["predicted"], row["explanation"])
    assert said["example_passages"] != said["example_passages without"], "the passage is read"


def test_the_card_shows_the_place_of_a_passage_where_the_training_had_one(exported):
    for name, (student, folder) in exported.items():
        card, script = (folder / "README.md").read_text(), (folder / "example.py").read_text()
        assert reads_passages(student) == ("passages" in name) == ("PASSAGE" in card) == ("PASSAGE QUESTION" in script)
        if "passages" in name:
            item = questions("test", 1, passages=True).iloc[0]
            if name == "classifier_passages":
                assert "\nQUESTION\nPASSAGE\nCHOICE\n" in card and f"\n{item['question']}\n{item['context']}\n" in card
                continue
            assert "Context: PASSAGE\nQuestion: QUESTION\nChoices: (a) FIRST CHOICE" in card
            assert f"Context: {item['context']}\nQuestion: {item['question']}\nChoices: (a) " in card


def test_the_example_is_short_and_imports_transformers_alone(exported):
    for _, folder in exported.values():
        script = (folder / "example.py").read_text()
        assert len(script.splitlines()) <= 30 and max(map(len, script.splitlines())) <= 120
        imported = set(re.findall(r"^(?:import|from) (\w+)", script, re.MULTILINE))
        assert imported - set(sys.stdlib_module_names) <= {"torch", "transformers"}


def test_an_export_has_what_the_hub_wants_and_names_no_path_of_this_machine(exported):
    from huggingface_hub import ModelCard

    for name, (student, folder) in exported.items():
        files = {path.name: path for path in folder.iterdir()}
        assert {"model.safetensors", "config.json", "tokenizer.json", "README.md", "example.py"} <= set(files)
        assert not {"adapter_config.json", "student.json", "record.json"} & set(files)
        assert {oct(path.stat().st_mode & 0o777) for path in files.values()} == {"0o644"}
        assert folder.stat().st_mode & 0o777 == 0o755
        for path in files.values():
            if path.suffix in (".md", ".json", ".py"):
                text = path.read_text(encoding="utf-8")
                assert str(PROJECT) not in text and str(student.parent) not in text
        card = ModelCard.load(folder / "README.md")
        assert card.data.library_name == "transformers" and card.data.pipeline_tag and card.data.license in (
            ("mit",) if name == "example" else ("mit", "unknown"))
        asks = asked_as(student)
        assert ("[explain]" in card.text) == (asks.explanation == "explain") or name == "classifier"
        assert "hf upload" in card.text and "## Licences" in card.text and "## Limits" in card.text


def test_the_card_states_the_results_of_the_evaluation(exported):
    card = (exported["example"][1] / "README.md").read_text(encoding="utf-8")
    metrics = read_json(EXAMPLE / "evaluations" / "metrics.json")["accuracy"]
    assert f"| mini | accuracy | {100 * metrics['mean']:.1f} % | " \
           f"{100 * metrics['low']:.1f} to {100 * metrics['high']:.1f} | {metrics['n_questions']} |" in card
    assert "| mini | explanations that name its answer * | " in card, "a text that repeats the answer does as well"
    assert "so this number is no evidence of good explanations." in card
    assert "A star" not in (exported["causal"][1] / "README.md").read_text(encoding="utf-8")
    assert "96 train, 32 dev and 32 test questions" in card and "kdutils/mini/teacher" in card
    assert "This student was not evaluated." in (exported["causal"][1] / "README.md").read_text(encoding="utf-8")
    assert "LoRA adapters, merged" in (exported["causal"][1] / "README.md").read_text(encoding="utf-8")


def test_an_export_overwrites_nothing_and_leaves_nothing_half_done(exported, tmp_path, monkeypatch):
    with pytest.raises(StudyError, match="there is something already; name a new folder"):
        export.export_student(STUDENT, exported["example"][1], "again")
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(StudyError, match="there is something already"):
        export.export_student(STUDENT, file, "again")
    monkeypatch.setattr(export, "_script", lambda *given: "\ud800")  # cannot be written
    with pytest.raises(UnicodeEncodeError):
        export.export_student(STUDENT, tmp_path / "new", "again")
    assert list(tmp_path.iterdir()) == [file] and file.read_text() == "mine"


def test_a_student_of_literal_texts_is_not_exported_with_other_texts(tmp_path):
    """example.py writes the texts of the study; a student of a published layout would be asked in a wrong format."""
    student = tmp_path / "seed-0"
    student.mkdir()
    write_json(student / "student.json", {**read_json(STUDENT / "student.json"), "tag": "published"})
    with pytest.raises(StudyError, match="layout published.*layout: study"):
        export.export_student(student, tmp_path / "away", "a student")
    assert not (tmp_path / "away").exists()


def test_a_fault_of_an_asked_question_is_at_its_own_place():
    from kdutils.deployment.asking import make_question

    with pytest.raises(StudyError, match="^f.txt: line 3: field 'choices'"):
        make_question({"question": "q", "choices": "a | | b"}, "f.txt: line 3")


def test_hostile_texts_stay_in_their_places(tmp_path, exported):
    from kdutils.deployment.card import model_card

    item = {**questions("test", 1).iloc[0].to_dict(), "question": "Is ``` or ```` a fence?\n---\n# No | yes"}
    said = {"generated": "The answer is |.", "explanation": "````\n# Owned"}
    card = model_card(STUDENT, "t", 1, "seq2seq", [], item, said)
    headings, fence = [], ""
    for line in card.splitlines():  # as a reader of Markdown goes through it
        if fence:
            fence = "" if line == fence else fence
        elif re.fullmatch("`{3,}", line):
            fence = line
        elif line.startswith("#"):
            headings.append(line)
    assert not fence and "# Owned" not in headings and not any("No | yes" in line for line in headings)


# What went into a student, as its card says it

def run_with(folder, parameters, student=None, notebook="x"):
    """Write a run of these parameters, and its student; return the folder of the student."""
    write_json(folder / "run.json", {"notebook": notebook, "parameters": parameters})
    write_json(folder / "metrics.json", {})
    if student is not None:
        shutil.copytree(STUDENT, folder / "seed-0", ignore=shutil.ignore_patterns("*.safetensors"), dirs_exist_ok=True)
        write_json(folder / "seed-0" / "student.json", {**read_json(STUDENT / "student.json"), **student})
    return folder / "seed-0"


@pytest.fixture
def studied(tmp_path):
    """A function that returns the card of the student that ships, had its training had other parameters."""
    from kdutils.deployment.card import model_card

    def table(folder, source, notebook="x", **parameters):
        """Write a run whose table is a copy of one that ships; return the path of the table."""
        shutil.copytree(EXAMPLE / source, tmp_path / folder, dirs_exist_ok=True)
        given = read_json(EXAMPLE / source / "run.json")["parameters"]
        run_with(tmp_path / folder, {**given, **parameters}, notebook=notebook)
        return str(next((tmp_path / folder).glob("*.parquet")))

    def card(method="multitask", **parameters):
        given = {**read_json(STUDENT.parent / "run.json")["parameters"], **parameters}
        folder = run_with(tmp_path / "students", given, {"method": method})
        item = questions("test", 1).iloc[0].to_dict()
        return model_card(folder, "t", 1, "seq2seq", [], item, {"generated": "g", "explanation": "e"})

    foreign = tmp_path / "foreign-model"
    foreign.mkdir()
    (foreign / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n")
    (foreign / "config.json").write_text("{}")
    return tmp_path, str(foreign), table, card


def test_the_card_says_how_long_a_training_was(studied):
    *_, card = studied
    assert "| training | 32 epochs, 8 questions per step" in card() and "| training | 32 epochs" in card(max_steps=0)
    assert "| training | 40 steps, 8 questions per step" in card(max_steps=40) and "epochs" not in card(max_steps=40)


def test_the_card_names_all_that_only_some_methods_have(studied):
    _, _, table, card = studied
    softly = table("softly", "explanations", choice_temperature=2.0)
    hard, soft = (card("soft_label", explanations=softly, hard=share) for share in (0.5, 0.0))
    assert "It learnt from the right answers and the probabilities that a teacher" in hard and ", hard 0.5 |" in hard
    assert "It learnt from the probabilities that a teacher gives" in soft and ", hard 0.0 |" in soft
    assert "(prompting few_shot, temperature of the choices 2) |" in soft
    tokens = card("token_kl", hard=0.5, on_policy=0.25, temperature=3.0, wrong_answers="first")
    assert ", hard 0.5, on_policy 0.25, temperature 3.0, wrong_answers first |" in tokens
    assert "| method | multitask, alpha 0.5 |" in card()


def test_a_card_is_mit_only_if_all_that_went_into_the_student_is(studied):
    """Each way in which texts, tokens or answers of a foreign model, or data, reach a student, alone."""
    root, foreign, table, card = studied
    assert "license: mit" in card() and "| teacher | kdutils/mini/teacher (prompting few_shot) |" in card()
    tuned = run_with(root / "tuned", {"model": foreign, "questions": str(QUESTIONS)}, {"student": {"model": foreign}})
    taught = run_with(root / "taught", {"model": "kdutils/mini/teacher", "questions": str(QUESTIONS),
                                        "distilled_from": foreign}, {"student": {"model": "kdutils/mini/teacher"}})
    told = table("told", "explanations", model=foreign)
    answered = table("answered", "questions", "08_label_questions", model=foreign, questions=str(QUESTIONS),
                     labels={"teacher": "f"})
    unknown = table("unknown", "explanations")
    (root / "unknown" / "run.json").unlink()
    named = "cc-by-nc-4.0"
    for parameters, teacher, licence in (
            ({"model": foreign}, "| base model | foreign-model |", f"- base model: {named}"),
            ({"model": str(tuned)}, "| base model | foreign-model fine-tuned on the train questions |",
             f"- base model: {named}"),
            ({"tokenizer": foreign}, "", f"- vocabulary: {named}"),
            ({"explanations": told}, "| teacher | foreign-model (prompting few_shot) |", f"- teacher: {named}"),
            ({"counterfactuals": told}, "(prompting few_shot); foreign-model (prompt", f"- teacher: {named}"),
            ({"soft_labels": told}, "(prompting few_shot); foreign-model (prompt", f"- teacher: {named}"),
            ({"other_explanations": told, "other_questions": str(QUESTIONS)},
             "| teacher | foreign-model (prompting few_shot) |", f"- teacher: {named}"),
            ({"explanations": table("own", "explanations", model=str(tuned))},
             "| teacher | foreign-model fine-tuned on the train questions (prompting few_shot) |", f"teacher: {named}"),
            ({"explanations": table("bought", "explanations", model="m", backend="openai")},
             "| teacher | m on a server (prompting few_shot) |", "- teacher: that of the model and the terms of its"),
            ({"explanations": unknown}, "| teacher | not recorded |", "- teacher: not recorded"),
            ({"explanations": "", "questions": answered}, "| teacher | foreign-model (answers of questions that had no",
             f"- teacher: {named}"),
            ({"distilled_from": foreign}, "| teacher of tokens | foreign-model |", f"- teacher of tokens: {named}"),
            ({"distilled_from": str(taught)}, "| teacher of tokens | kdutils/mini/teacher fine-tuned on the train",
             f"- teacher of tokens: {named}"),
            ({"questions": table("data", "questions", dataset="esnli")}, "", "- data: that of the data set esnli"),
            ({"other_explanations": table("lent", "explanations"), "other_questions": table(
                "lent-data", "questions", dataset="esnli")}, "", "- data: that of the data set esnli, not recorded")):
        text = card(**parameters)
        assert "license: unknown" in text and licence in text and teacher in text, (parameters, text)
        assert str(root) not in text
    assert "- data: MIT" in card(explanations="", questions=answered), "the questions are those that were read"
    assert "license: mit" in card(distilled_from="kdutils/mini/teacher")


def test_random_weights_are_of_no_base_model(studied):
    *_, card = studied
    assert "base_model: google-t5/t5-small" in card(model="google-t5/t5-small")
    assert "base_model" not in card(model="google-t5/t5-small", random_weights=True)


# Ask

@pytest.fixture(scope="module")
def example():
    return load_to_ask("multitask", STUDENT)


def test_a_student_says_to_a_question_what_it_said_in_the_evaluation(example):
    table = questions("test", 4)
    known = predict_with(STUDENT, table, 64, 0).to_dict("records")
    ranked = driving_words(STUDENT, written_answers(STUDENT, table, pd.DataFrame(known)))
    for item, row in zip(table.to_dict("records"), known, strict=True):
        said = ask(example, make_question({"question": item["question"], "choices": list(item["choices"])}))
        assert (said["answer"], said["explanation"]) == (row["predicted"], row["explanation"])
        shares = [math.exp(score) for score in row["scores"]]
        assert said["probabilities"] == pytest.approx([share / sum(shares) for share in shares], rel=1e-3)
        assert said["likeliest"] == item["choices"][shares.index(max(shares))]
        assert [word["word"] for word in said["words"]] == ranked[item["id"]][:5]
        assert all(said["text"][word["start"]:word["end"]] == word["word"] for word in said["words"])
        assert json.loads(json.dumps(said)) == said


def test_words_are_found_where_a_question_repeats_its_layout(example):
    question = "Which of these has wheels? Question: Choices: (a) car (b) bus"
    said = ask(example, make_question({"question": question, "choices": ["car", "bus"]}), marked=100)
    assert said["text"] == f"{question}\n(a) car (b) bus" and len(said["words"]) > 5, said
    assert all(said["text"][word["start"]:word["end"]] == word["word"] for word in said["words"])


@pytest.mark.parametrize(("question", "choices"), [
    ("Which of these is red?", ["car", "bus"]), ("Which of these is red?", []), ("A red car", ["A red car", "red"])])
def test_words_of_a_passage_are_marked_in_their_places(example, question, choices):
    """The passage repeats the question and a choice, and has two lines, which become one."""
    item = make_question({"question": question, "choices": choices, "context": f"{question} \n (a) A blue bus."})
    said = ask(example, item, marked=100)
    passage = f"{question} (a) A blue bus."
    assert said["context"] == passage and said["text"].splitlines()[:2] == [passage, question]
    assert all(said["text"][word["start"]:word["end"]] == word["word"] for word in said["words"])
    places = [word["start"] for word in said["words"]]
    assert min(places) >= 0 and any(said["text"][place:].startswith("blue bus.\n") for place in places)
    marked = next(line for line in answer_lines(said) if "driving words" in line)
    assert "*blue* " in marked and "<mark>blue</mark> " in marked_html(said)


@pytest.mark.parametrize(("name", "choices", "note"), [
    ("causal", ["a", "b"], ""), ("explains_first", ["a", "b"], ""), ("untagged", [], "asked without choices"),
    ("classifier", ["a", "b"], "words can be marked only for a student that writes")])
def test_every_kind_of_student_can_be_asked(exported, name, choices, note):
    said = ask(load_to_ask(name, exported[name][0]), make_question({"question": "Who is it?", "choices": choices}), 8)
    assert len(said["probabilities"]) == len(choices) and sum(said["probabilities"]) == pytest.approx(len(choices[:1]))
    assert said["note"] in (note, "; ".join(filter(None, [note, "no answer was found in what it wrote"])))
    assert note or not said["answer"] or said["words"]
    assert answer_lines(said)[0].startswith(f"{name}: ")


def test_a_classifier_needs_choices(exported):
    with pytest.raises(StudyError, match="it can only choose; give the question choices"):
        ask(load_to_ask("it", exported["classifier"][0]), make_question({"question": "Who?"}))


@pytest.mark.parametrize(("given", "message"), [
    ({}, "no question in it"), ({"question": " "}, "no question in it"), ({"question": 3}, "no question in it"),
    ({"question": "Who?", "choices": ["a"]}, "a list of one"), ({"question": "Who?", "choices": ["a", "a"]}, "twice"),
    ({"question": "Who?", "choices": ["a", ""]}, "empty choice"), ({"question": "Who\ud800?"}, "half of a character"),
    ({"question": "Who?", "choices": [f"{number}" for number in range(27)]}, "27 choices")])
def test_what_is_no_question_is_one_clear_line(given, message):
    with pytest.raises(StudyError, match=message):
        make_question(given)


def test_questions_are_read_from_lines_and_tables(tmp_path):
    text = tmp_path / "asked.txt"
    text.write_text('\ufeffWho? | a | b c\n\n{"question": "Why | not?", "choices": ["x", "y"]}\nWhere?\n', "utf-8")
    table = tmp_path / "asked.csv"
    table.write_text("question,choices\nWho?,a|b c\nWhy | not?,\"[\"\"x\"\", \"\"y\"\"]\"\nWhere?,\n")
    for path in (text, table):
        assert [(item["question"], list(item["choices"])) for item in read_asked(path)] == [
            ("Who?", ["a", "b c"]), ("Why | not?", ["x", "y"]), ("Where?", [])]
    text.write_text('{"question": "Is it?", "choices": ["yes", "no"], "context": "It\\n is."}\nIs it? | yes | no\n')
    table.write_text('question,choices,Passage\nIs it?,yes|no,"It\n is."\nIs it?,yes|no,\n')
    for path in (text, table):
        asked = [(item["question"], item["context"]) for item in read_asked(path)]
        assert asked == [("Is it?", "It is."), ("Is it?", "")]
    table.write_text("question,A,B,C\nWho?,a,b c,d\nWhere?,x,y,\nWhy?,,,\n")
    assert [list(item["choices"]) for item in read_asked(table)] == [["a", "b c", "d"], ["x", "y"], []]
    text.write_text('{"question": ')
    with pytest.raises(StudyError, match="asked.txt: line 1: not readable JSON"):
        list(read_asked(text))
    with pytest.raises(StudyError, match="cannot be read"):
        list(read_asked(tmp_path / "none.txt"))


def test_relative_paths_of_asking_and_exporting_count_from_where_it_was_called(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("KDUTILS_CALLED_FROM", str(tmp_path))
    (tmp_path / "asked.txt").write_text("Which is a fruit? | pear | piano\n")
    assert main(["ask", "example", "--from", "asked.txt"]) == 0 and "pear" in capsys.readouterr().out
    assert main(["export", "example", "--to", "away"]) == 0 and (tmp_path / "away" / "example.py").is_file()


ANSWER = {"student": "<b>", "answer": "a", "explanation": "", "choices": ["a", "<i>"], "seconds": 0.5,
          "probabilities": [0.75, 0.25], "text": "Is <i> a & b?", "note": "<script>", "likeliest": "a",
          "words": [{"word": "a", "score": 2.0, "start": 7, "end": 8},
                    {"word": "Is", "score": 1.0, "start": 0, "end": 2}]}


def test_marks_and_texts_of_an_answer_are_escaped():
    answer = ANSWER
    assert marked_html(answer) == ("<p><b>&lt;b&gt;</b>: <mark>Is</mark> &lt;i&gt; <mark>a</mark> &amp; b?"
                                   "<br><small>&lt;script&gt;</small></p>")
    assert mark_words(answer, "*", "*") == "*Is* <i> *a* & b?"
    assert "     75% ███████████████      a" in answer_lines(answer) and answer_lines(answer)[-1] == "    500 ms"


HOSTILE = "\x1b]0;owned\x07\x9b2Jpear"  # it sets the title of a terminal and clears it


def test_a_terminal_is_given_no_control_characters_of_models_and_files(tmp_path, capsys):
    said = {**ANSWER, "student": HOSTILE, "answer": HOSTILE, "explanation": HOSTILE, "choices": [HOSTILE, "b"],
            "text": HOSTILE, "note": HOSTILE}
    assert not [line for line in answer_lines(said) if not line.isprintable()]
    path = tmp_path / "asked.txt"
    path.write_text(f"Which is a fruit? {HOSTILE} | pear | piano{HOSTILE}\n", "utf-8")
    assert main(["ask", "example", "--from", str(path)]) == 0
    assert not [line for line in capsys.readouterr().out.splitlines() if not line.isprintable()]
    assert main(["ask", "example", "--json", "--from", str(path)]) == 0
    line = capsys.readouterr().out.rstrip("\n")
    assert line.isprintable() and json.loads(line)["question"].endswith(HOSTILE)


@pytest.mark.parametrize(("answer", "choices", "text"), [
    ("pear", ["pear", "piano"], "pear"), ("plum", ["pear", "piano"], "plum (none of the choices)"),
    ("plum", [], "plum"), ("", ["pear", "piano"], "(no answer found)")])
def test_an_answer_that_is_none_of_the_choices_is_called_that(answer, choices, text):
    assert answer_text({"answer": answer, "choices": choices}) == text


def test_the_command_asks_from_a_file_and_from_the_standard_input(tmp_path, capsys, monkeypatch):
    path = tmp_path / "asked.txt"
    path.write_text("Which has wheels? | car | onion\n")
    assert main(["ask", "example", "--json", "--from", str(path)]) == 0
    from_file = json.loads(capsys.readouterr().out)
    monkeypatch.setattr(sys, "stdin", io.StringIO(path.read_text()))
    assert main(["ask", "example", "--json"]) == 0
    from_input = json.loads(capsys.readouterr().out)
    assert {**from_file, "seconds": 0} == {**from_input, "seconds": 0} and from_file["student"] == "multitask"
    monkeypatch.setattr(sys, "stdin", io.StringIO("Who? | a | a\n"))
    assert main(["ask", "example"]) == 2 and "standard input: line 1" in capsys.readouterr().err
    assert main(["export", "example", "--seed", "7", "--to", str(tmp_path / "x")]) == 2
    assert "--seed 7: multitask has students of the seeds 0" in capsys.readouterr().err


class Terminal(io.StringIO):
    """A keyboard: what is typed on it."""

    def isatty(self):
        return True


def test_the_keyboard_asks_for_a_passage_where_the_training_had_one(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", Terminal("Which has wheels?\ncar | onion\n\n"))
    assert main(["ask", "example"]) == 0
    said = capsys.readouterr()
    assert "passage" not in said.err and said.out.startswith("Which has wheels?\n")
    cell = Cell("multitask", {}, "multitask", {0: example_with_passages(tmp_path / "copy")}, {0: 0.5})
    monkeypatch.setattr(trained, "trained_cells", lambda experiment: [cell])
    monkeypatch.setattr(sys, "stdin", Terminal("Which has wheels?\nA blue car.\ncar | onion\nWhich?\n\na | b\n\n"))
    assert main(["ask", "copy"]) == 0
    said = capsys.readouterr()
    assert said.err.count("its passage, on one line (empty for none): ") == 2
    assert said.out.startswith("A blue car.\nWhich has wheels?\n") and "\nWhich?\n" in said.out
    (tmp_path / "copy" / "questions" / "questions.parquet").unlink()  # asking went on without it
    monkeypatch.setattr(sys, "stdin", Terminal("Which has wheels?\ncar | onion\n\n"))
    assert main(["ask", "copy", "--json"]) == 0 and json.loads(capsys.readouterr().out)["context"] == ""


# The students of an experiment

def test_cells_are_found_named_and_chosen_by_dev_alone(own_outputs):
    labels = {"dataset": "d", "teacher": "t", "prompting": "few_shot", "student": "s"}
    grid = {("multitask", "few_shot"): [0.5, 0.7], ("multitask", "critique_revision"): [0.6, 0.8],
            ("shuffled", "few_shot"): [0.9, 0.9], ("label_only", "-"): [0.95, 0.95], ("standard", "few_shot"): []}
    jobs = []
    for (method, prompting), accuracies in grid.items():
        folder = f"students/{method}-{prompting}"
        jobs.append(Job("students", folder, "", {"output": folder}))
        write_json(own_outputs / "try" / folder / "metrics.json", {
            "method": method, "labels": {**labels, "method": method, "prompting": prompting},
            "seeds": {str(seed): {"curve": [{"accuracy": 0.1}, {"accuracy": value}]}
                      for seed, value in enumerate(accuracies)} | {"9": {"failed": "nan"}}})
    cells = trained._named(trained._cells(own_outputs / "try", [*jobs, Job("students", "later", "", {"output": "x"})]))
    assert [cell.name for cell in cells] == ["multitask (few_shot)", "multitask (critique_revision)",
                                             "shuffled (few_shot)", "label_only"]
    assert select_cells(cells) == [cells[1]]  # no control, and it explains
    assert cells[0].best_seed == 1 and cells[2].best_seed == 0 and set(cells[0].folders) == {0, 1}
    assert select_cells(cells, ["multitask (few_shot)", "label_only"]) == [cells[0], cells[3]]
    assert select_cells(cells, ["Few_shot multitask"]) == [cells[0]] and select_cells(cells, ["all"]) == cells
    assert select_cells(cells, ["few_shot"]) == [cells[0], cells[2]] and select_cells(cells[3:]) == cells[3:]
    for name in ("", "few", "nothing", "../x"):
        with pytest.raises(StudyError, match="no such cell; there are: multitask"):
            select_cells(cells, [name])


@pytest.mark.parametrize("checkpoint", ["best", "last"])
def test_the_best_seed_on_dev_is_that_of_the_weights_that_were_kept(checkpoint, tmp_path):
    """By the mean that the training itself writes."""
    records = {seed: {"curve": [{"accuracy": share} for share in curve]}
               for seed, curve in enumerate(((0.9, 0.5), (0.6, 0.7), (0.99,)))}
    records[2]["failed"] = "nan"
    recipe = Recipe("multitask", T5, {**TRAINING, "checkpoint": checkpoint}, {"alpha": 0.5})
    metrics, labels = training_metrics(recipe, records), {"dataset": "d", "method": "multitask"}
    write_json(tmp_path / "students" / "metrics.json", {**metrics, "labels": labels})
    write_json(tmp_path / "students" / "run.json", {"parameters": {"checkpoint": checkpoint}})
    cell, = trained._cells(tmp_path, [Job("students", "students", "", {"output": "students"})])
    assert cell.best_seed == {"best": 0, "last": 1}[checkpoint]
    assert sum(cell.dev_accuracy.values()) / 2 == pytest.approx(metrics["dev_accuracy"])


def test_an_experiment_without_students_is_one_clear_line(own_outputs):
    with pytest.raises(StudyError, match="nope: no such experiment was run; there are: example"):
        trained_cells("nope")
    with pytest.raises(StudyError, match="no such experiment was run"):
        trained_cells("../mini")
    record(Experiment("new", {"datasets": {}, "teachers": {}, "methods": {}, "students": {}, "seeds": [0],
                              "promptings": {}}, []), own_outputs / "new" / "experiment.yaml")
    with pytest.raises(StudyError, match="new.yaml: no trained student yet; run the experiment first"):
        trained_cells("new.yaml")
    assert [cell.name for cell in trained_cells("example")] == ["multitask"]
    assert trained_cells("example")[0].evaluations == (EXAMPLE / "evaluations",)
    assert Cell("x", {}, "m", {3: STUDENT}, {3: 0.5}).seed() == 3


def test_students_whose_training_is_to_run_again_are_named(own_outputs, capsys):
    settings = {"datasets": {"mini": {}}, "teachers": {"mini-llama": {"model": "kdutils/mini/teacher"}},
                "promptings": {"few_shot": {}}, "methods": {"label_only": {}, "multitask": {}},
                "students": {"t5": {"model": "kdutils/mini/student"}}, "seeds": [0]}
    experiment = Experiment("new", settings, list(make_jobs("new", settings)), "notebooks/experiments/new.yaml")
    record(experiment, experiment.folder / "experiment.yaml")
    for job in experiment.jobs:
        if job.kind == "students":
            (experiment.folder / job.folder / "seed-0").mkdir(parents=True)
            (experiment.folder / job.folder / "seed-0" / "model.safetensors").write_bytes(b"")
            if job.labels["method"] == "label_only":
                write_json(experiment.folder / job.folder / "metrics.json", {
                    "labels": job.labels, "method": "label_only", "seeds": {"0": {"curve": [{"accuracy": 0.5}]}}})
    assert [cell.name for cell in trained_cells("new")] == ["label_only"]
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == ("left out, because their training is to run again or has not ended: multitask (few_shot); "
                        "run ./run_all.sh new\n")


# What a student costs to run

def test_int8_weights_are_close_to_the_float_weights():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.Tanh(), torch.nn.Linear(32, 8))
    inputs = torch.randn(5, 64)
    with torch.no_grad():
        before = model(inputs)
        after = costs.quantize(model)(inputs)
    assert 0 < (after - before).abs().max() < 0.05 * before.abs().max()
    with pytest.raises(StudyError, match="no linear layers"):
        model = torch.nn.ReLU()
        model.config = type("Config", (), {"model_type": "gpt"})
        costs.quantize(model)


def test_the_running_costs_of_a_student_are_those_of_its_files_and_answers(tmp_path):
    table = questions("test", 20)
    records, notes = costs.running_costs(STUDENT, table, 16, 12, onnx_runtime=True)
    assert notes == [] and [record["weights"] for record in records] == ["float32", "int8", *costs.ONNX_FORMS]
    plain, int8, in_onnx, int8_in_onnx = records
    model, tokenizer = load_trained(STUDENT)
    assert plain["parameters"] == int8["parameters"] == sum(weight.numel() for weight in model.parameters())
    assert plain["bytes"] == (STUDENT / "model.safetensors").stat().st_size > int8["bytes"] > plain["parameters"]
    said = predict_questions(model, tokenizer, asked_as(STUDENT), table.head(12).to_dict("records"), 16)
    assert plain["accuracy"] == sum(row["correct"] for row in said) / 12 and plain["questions"] == 12
    assert (plain["gained"], plain["lost"]) == (0, 0)
    assert in_onnx["accuracy"] == plain["accuracy"] and (in_onnx["gained"], in_onnx["lost"]) == (0, 0)
    assert in_onnx["parameters"] == plain["parameters"] and in_onnx["bytes"] > int8_in_onnx["bytes"] > int8["bytes"]
    for quantised in (int8, int8_in_onnx):
        assert quantised["accuracy"] == pytest.approx(
            plain["accuracy"] + (quantised["gained"] - quantised["lost"]) / 12)
    assert all(record["peak_memory_mib"] > record["libraries_mib"] > 50 for record in records)
    assert all(record["answer_ms"] > 0 and record["explanation_ms"] > 0 for record in records)


def test_what_a_student_gained_and_lost_is_counted():
    records = costs._compared([{"weights": "float32", "right": [True, True, False, False]},
                               {"weights": "int8", "right": [True, False, True, False]}])
    assert records == [{"weights": "float32", "gained": 0, "lost": 0}, {"weights": "int8", "gained": 1, "lost": 1}]
    alone = costs._compared([{"weights": "int8", "right": [True]}])
    assert alone == [{"weights": "int8", "gained": None, "lost": None}]


def test_costs_that_cannot_be_measured_have_a_reason(tmp_path, monkeypatch, capsys):
    given = {"folder": str(tmp_path / "nobody"), "questions": str(QUESTIONS), "form": "int8", "graphs": "",
             "max_explanation_tokens": 8}
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(given)))
    assert costs.main() == 1 and re.fullmatch(r".*nobody.*\n", capsys.readouterr().err)
    records, notes = costs.running_costs(STUDENT, questions("test", 1), 8, 1, onnx_runtime=True, timeout=0.01)
    assert records == [] and len(notes) == 4 and notes[0].endswith("it takes more than 0 s; lower timed_questions")
    assert notes[3] == "int8, ONNX Runtime: not measured: the export takes more than 0 s"
    monkeypatch.setattr(costs.sys, "executable", "/bin/false")
    records, notes = costs.running_costs(STUDENT, questions("test", 1), 8, 1)
    assert records == [] and notes == [f"{form}: not measured: its process ended with 1" for form in costs.FORMS[:2]]
    with pytest.raises(StudyError, match="give at least 1"):
        costs.running_costs(STUDENT, questions("test", 1), 8, 0)


def test_a_question_without_choices_ends_after_a_few_tokens(example):
    said = ask(example, make_question({"question": "What is it?"}))
    assert said["probabilities"] == [] and said["likeliest"] == ""
    assert len(example.tokenizer(said["generated"])["input_ids"]) <= asking.ANSWER_TOKENS + 1
