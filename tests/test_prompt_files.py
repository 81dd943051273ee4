"""The prompt files: layout, what the shots show, and that they share nothing with the data; and the README's recipe."""

import json
import re

import pandas as pd
import pytest

from kdutils.data.answers import evaluate_equation, is_right, parse_answer
from kdutils.data.datasets import NLI_LABELS, READERS, TRUE_FALSE, YES_NO, Reader, content_key
from kdutils.data.questions import check_questions, format_choices
from kdutils.data.readers import question_files, read_questions
from kdutils.errors import StudyError
from kdutils.experiments.grid import prompts_of
from kdutils.student.methods import rows_of
from kdutils.teacher import prompting
from kdutils.teacher.cleaning import clean
from kdutils.teacher.completion import Completion
from kdutils.teacher.explaining import explanations_table
from kdutils.teacher.prompting import critique_prompts, few_shot_prompts, fill, qualities, requests, revision_prompts

DATASETS = ("cqa", "esnli", "strategyqa", "anli", "svamp", "creak", "boolq", "mnli", "squad", "openbookqa", "qasc",
            "arc")
KINDS = ("few_shot", "critique", "revision")
SHOTS = {"few_shot": {"cqa": 7, "anli": 3, "svamp": 4}, "critique": {"cqa": 7}, "revision": {"cqa": 4}}  # others: 3
LABELS = {"few_shot": ["Question", "Choices", "Answer"],
          "critique": ["Question", "Choices", "Answer", "CritiqueRequest", "Critique"],
          "revision": ["Question", "Choices", "Answer", "Critique", "RevisionRequest", "Revision"]}
NLI, FREE, PASSAGES = ("esnli", "anli", "mnli"), ("svamp", "squad"), ("boolq", "squad")
PAIRS = {"strategyqa": YES_NO, "boolq": YES_NO, "creak": TRUE_FALSE}
CHOICES = {"cqa": 5, "openbookqa": 4, "arc": 4, "qasc": 8}  # choices that differ from question to question: how many
EACH = [(dataset, kind) for dataset in DATASETS for kind in KINDS]


def shots_of(dataset, kind):
    """Return the worked examples of a file, each as {label of the line: text}."""
    head, _ = prompting.template(dataset, kind)
    return [dict(line.split(": ", 1) for line in block.splitlines()) for block in head.strip().split("\n\n")]


def answer_line(shot):
    """Return (answer, rationale) of a line ``The answer is … . …``; the key of a few-shot answer has its qualities."""
    line = next(text for label, text in shot.items() if label.startswith("Answer"))
    return parted(line)


def parted(text):
    answer, _, rationale = text.removeprefix("The answer is ").partition(". ")
    return answer, rationale


def choices_of(shot):
    return re.findall(r"\([a-z]\) (.*?)(?= \([a-z]\) |$)", shot.get("Choices", ""))


def words(text):
    return len(text.split())


def names(text, words_):
    return re.search(rf"(?<!\w){re.escape(words_)}(?!\w)", text, re.IGNORECASE) is not None


# Layout

@pytest.mark.parametrize(("dataset", "kind"), EACH)
def test_every_shot_is_laid_out_as_the_item(dataset, kind):
    head, item = prompting.template(dataset, kind)
    blocks, shots = head.strip().split("\n\n"), shots_of(dataset, kind)
    assert len(blocks) == SHOTS[kind].get(dataset, 3)
    labels = [label for label in LABELS[kind] if label != "Choices" or dataset not in FREE]
    labels = ["Context", *labels] if dataset in PASSAGES else labels
    assert [line.split(":")[0].split(" (")[0] for line in item.splitlines()] == labels
    for block, shot in zip(blocks, shots, strict=True):
        answer, rationale = answer_line(shot)
        quality = "" if kind != "few_shot" else next(key for key in shot if key.startswith("Answer"))[8:-1]
        filled = fill(item, context=shot.get("Context", ""), question=shot["Question"],
                      choices=shot.get("Choices", ""), answer=answer, quality=quality, rationale=rationale,
                      critique_request=shot.get("CritiqueRequest", ""), critique=shot.get("Critique", ""),
                      revision_request=shot.get("RevisionRequest", ""))
        assert block.startswith(filled) and block[len(filled):].startswith(" ") and "\n" not in block[len(filled):]


@pytest.mark.parametrize(("dataset", "name"), [(d, f"{k}.txt") for d in DATASETS for k in (*KINDS, "requests")])
def test_files_are_plain_ascii_without_stray_space(dataset, name):
    text = (prompting.FOLDER / dataset / name).read_bytes().decode("ascii")
    assert text.endswith("\n") and not text.endswith("\n\n") and "\n\n\n" not in text
    assert not re.search(r"[ \t]$|  |\t|\r", text, re.MULTILINE)
    assert not re.search(r"[{}]", prompting.template(dataset, name[:-4])[0] if name != "requests.txt" else text)


@pytest.mark.parametrize(("dataset", "kind"), EACH)
def test_answers_are_among_choices_laid_out_as_those_of_a_question(dataset, kind):
    answers = []
    for shot in shots_of(dataset, kind):
        answer, choices = answer_line(shot)[0], choices_of(shot)
        if dataset in FREE:
            assert "Choices" not in shot
            assert float(answer) == int(answer) if dataset == "svamp" else answer in shot["Context"], "a span"
        else:
            assert format_choices(choices) == shot["Choices"] and answer in choices
            fixed = list(PAIRS.get(dataset, NLI_LABELS))
            assert len(set(choices)) == CHOICES[dataset] if dataset in CHOICES else choices == fixed
        answers.append(choices.index(answer) if choices else answer)
    assert len(set(answers)) >= (2 if dataset in PAIRS else 3)


@pytest.mark.parametrize("dataset", DATASETS)
def test_wanted_qualities_of_the_shots_are_those_that_are_drawn(dataset):
    for shot in shots_of(dataset, "few_shot"):
        pair = re.search(r"Answer \((.*) and (.*)\)", " ".join(shot)).groups()
        assert set(pair) <= set(qualities()) and pair[0] != pair[1]


@pytest.mark.parametrize(("dataset", "kind"), EACH)
def test_explanations_of_the_shots_need_no_cleaning(dataset, kind):
    for shot in shots_of(dataset, kind):
        answer, rationale = answer_line(shot)
        for text in (rationale, shot.get("Critique"), parted(shot["Revision"])[1] if "Revision" in shot else None):
            assert text is None or (clean(text, answer).text, clean(text, answer).changes) == (text, [])


# What critique and revision show

@pytest.mark.parametrize("dataset", DATASETS)
def test_ten_pairs_of_requests(dataset):
    pairs = requests(dataset)
    assert len(pairs) == len(set(pairs)) == 10
    for position in (0, 1):
        assert len({pair[position] for pair in pairs}) == 10
    assert all(pair[0].startswith("Say ") and all(part.endswith(".") for part in pair) for pair in pairs)


@pytest.mark.parametrize("dataset", DATASETS)
def test_shots_ask_what_is_asked_of_a_question(dataset):
    pairs = dict(requests(dataset))
    critiques = {shot["Question"]: shot for shot in shots_of(dataset, "critique")}
    for shot in critiques.values():
        assert shot["CritiqueRequest"] in pairs
    assert len({shot["CritiqueRequest"] for shot in critiques.values()}) == len(critiques)
    for shot in shots_of(dataset, "revision"):  # goes on where a shot of critique.txt ended
        before = critiques[shot["Question"]]
        assert all(shot[label] == before[label] for label in ("Answer", "Critique"))
        assert shot.get("Choices") == before.get("Choices")
        assert shot["RevisionRequest"] == pairs[before["CritiqueRequest"]]


@pytest.mark.parametrize("dataset", DATASETS)
def test_a_revision_keeps_the_answer(dataset):
    """Two of the published examples for e-SNLI revise a right answer to another one."""
    shots = shots_of(dataset, "revision")
    for shot in shots:
        (answer, rationale), (kept, revised) = answer_line(shot), parted(shot["Revision"])
        assert kept == answer and revised != rationale
        if dataset in NLI:
            others = [label for label in NLI_LABELS if label != answer and names(revised, label)]
            assert all(re.search(rf"\bnot {label}", revised) for label in others)
    if dataset in NLI:
        assert {answer_line(shot)[0] for shot in shots} == set(NLI_LABELS)


WRONG = {"cqa": "neck", "strategyqa": "France", "anli": "opened in 1957", "svamp": "multiplied", "esnli": "cable",
         "creak": "skins of seals", "boolq": "poisonous", "mnli": "bad picture", "squad": "last for four days",
         "openbookqa": "eats the seed", "arc": "through the rock", "qasc": "melted clay"}


def rules_out_the_others(dataset, shot, before, after):
    if dataset == "svamp":
        return names(after, "27") and not names(before, "27") and "not needed" in after
    if dataset in PAIRS:
        opposite = {"strategyqa": "no", "boolq": "yes", "creak": "true"}[dataset]
        return f"would be {opposite} if" in after and "would" not in before
    others = [choice for choice in choices_of(shot) if choice != answer_line(shot)[0]]
    return all(names(after, choice) for choice in others) and not any(names(before, choice) for choice in others)


DONE = {  # beginning of a request to revise -> whether a revision does it
    "Make the explanation shorter": lambda dataset, shot, before, after: words(after) < words(before) / 2,
    "Add the missing": lambda dataset, shot, before, after: words(after) > 1.3 * words(before),
    "Correct what is wrong": lambda dataset, shot, before, after: WRONG[dataset] in before and WRONG[
        dataset] not in after,
    "Use only what the": lambda dataset, shot, before, after: WRONG[dataset] in before and WRONG[dataset] not in after,
    "Say also": rules_out_the_others,
}


@pytest.mark.parametrize("dataset", DATASETS)
def test_a_revision_does_what_was_requested(dataset):
    for shot in shots_of(dataset, "revision"):
        [done] = [check for start, check in DONE.items() if shot["RevisionRequest"].startswith(start)]
        assert done(dataset, shot, answer_line(shot)[1], parted(shot["Revision"])[1]), shot["Question"]


def test_computations_are_right_and_come_last():
    checked = 0
    for kind in KINDS:
        for shot in shots_of("svamp", kind):
            answer, rationale = answer_line(shot)
            final = parted(shot["Revision"])[1] if kind == "revision" else rationale
            for text in {rationale, final}:
                for equation, value in re.findall(r"(\d+(?: [-+*/] \d+)+) = (\d+)", text):
                    assert evaluate_equation(equation) == int(value)
                    checked += 1
            assert kind == "critique" or re.search(rf"= {answer}\.$", final)
    assert checked >= 10


# The shots and the data

def texts_of(question):
    """Return the question and, of a pair of sentences, the premise and the hypothesis."""
    found = re.match(r"Premise: (.*) Hypothesis: (.*) What is the relationship\?$", question)
    return [question, *(found.groups() if found else ())]


@pytest.mark.parametrize("dataset", DATASETS)
def test_shots_share_no_question_with_any_split(dataset, real_data, real_questions):
    missing = [path.name for path in question_files(dataset, str(real_data)).values() if not path.is_file()]
    if missing:
        pytest.skip(f"KDUTILS_DATA has no {', '.join(missing)}")
    known = {content_key(text) for question in real_questions(dataset)["question"] for text in texts_of(question)}
    shots = {content_key(text) for kind in KINDS for shot in shots_of(dataset, kind)
             for text in texts_of(shot["Question"])}
    assert shots and known & shots == set()


def test_shots_of_the_files_of_a_data_set_are_different_questions():
    for dataset in DATASETS:
        few = {shot["Question"] for shot in shots_of(dataset, "few_shot")}
        assert not few & {shot["Question"] for shot in shots_of(dataset, "critique")}


def frame_of(**changes):
    import pandas as pd

    row = {"id": "1", "split": "train", "question": "How many?", "choices": [], "answer": "8", "human_explanations": []}
    return pd.DataFrame([{**row, **changes}])


def test_a_question_without_choices_has_no_line_for_them():
    table = frame_of()
    asked = [*few_shot_prompts(table, "svamp", 0), *critique_prompts(table, "svamp", 0, ["8"], ["4 + 4 = 8."]),
             *revision_prompts(table, "svamp", 0, ["8"], ["4 + 4 = 8."], ["It is short."])]
    for prompt in asked:
        assert "Choices" not in prompt and "Question: How many?\nAnswer" in prompt
    assert asked[0].endswith("The answer is 8.") and asked[2].endswith("\nRevision: The answer is 8.")
    assert few_shot_prompts(table, "svamp", 0, given_answer=False)[0].endswith("The answer is")


def test_every_data_set_has_prompts():
    names = {settings_name: prompts_of({"datasets": {settings_name: {}}}, settings_name) for settings_name in READERS}
    assert names.pop("table") == "table" and names.pop("mini") == "mini"
    assert set(names.values()) == set(DATASETS) and names["ecqa"] == "cqa"
    assert prompts_of({"datasets": {"mine": {"reader": "ecqa"}}}, "mine") == "cqa"
    assert prompts_of({"datasets": {"mine": {"reader": "table"}}}, "mine") == "mine"


# The README's recipe, followed for one more data set: BoolQ, a passage and a question with yes or no for an answer

PASSAGE = "Bamboo | a grass {sic}.\nIt \"grows\" a metre a day, e.g. in Japan."
LAYOUT = """Passage and question: Snails are animals. They have a shell. Do snails have a shell?
Choices: (a) yes (b) no
Answer (clear and correct): The answer is yes. The passage says that they have a shell.

Passage and question: {question}
Choices: {choices}
Answer ({quality}): The answer is {answer}.
"""


def boolq(row):
    return {"id": f"boolq-{row['number']}", "question": f"{row['passage']} {row['question'].capitalize()}?",
            "choices": ["yes", "no"], "answer": "yes" if row["answer"] else "no"}


@pytest.fixture
def prompts_of_ones_own(tmp_path, monkeypatch):
    """A folder of prompts beside a data set's; the project's own is left alone."""
    monkeypatch.setattr(prompting, "FOLDER", tmp_path)
    (tmp_path / "qualities.txt").write_text("clear\ncorrect\n")
    for name in ("mine", "boolq"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "few_shot.txt").write_text(LAYOUT)
    prompting.qualities.cache_clear()
    yield
    prompting.qualities.cache_clear()


def ask_and_learn(table, dataset):
    """Take questions through prompt, completion, cleaning and training rows to a parsed answer."""
    check_questions(table, dataset)
    asked = few_shot_prompts(table, dataset, seed=0)
    assert all(prompt.startswith("Passage and question: Snails") and prompt.count("Passage and question: ") == 2
               for prompt in asked)
    assert PASSAGE in asked[0] and asked[0].endswith(f"The answer is {table['answer'][0]}.")
    done = [Completion(" The passage says so.\n\nPassage and question: More", "stop", 9, 9) for _ in asked]
    explained = explanations_table(table, table["answer"], done, "rationale")
    assert set(explained["text"]) == {"The passage says so."}
    item = table.to_dict("records")[0]
    [row] = rows_of("standard", {}, item, explained["text"][0])
    assert PASSAGE in row.source and row.source.endswith("\nChoices: (a) yes (b) no")
    assert parse_answer(row.target, item["choices"]) == (item["answer"], "The passage says so.")
    assert is_right("Yes" if item["answer"] == "yes" else "(b)", item["answer"], item["choices"])


def test_one_more_data_set_by_a_reader(tmp_path, monkeypatch, prompts_of_ones_own):
    rows = [{"number": n, "passage": PASSAGE, "question": f"does it grow {n} times", "answer": n % 2 == 0}
            for n in range(20)]
    for name, part in (("train", rows[:16]), ("dev", rows[16:])):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, part)))
    monkeypatch.setitem(READERS, "boolq", Reader(boolq, local={"train": "train.jsonl", "test": "dev.jsonl"}))
    table = read_questions("boolq", str(tmp_path))
    assert table["split"].value_counts().to_dict() == {"train": 14, "dev": 2, "test": 4}
    ask_and_learn(table, "boolq")
    with pytest.raises(StudyError, match=r"boolq/(requests|critique)\.txt: no "):  # the recipe is for few_shot
        critique_prompts(table, "boolq", 0, table["answer"], table["answer"])


def test_one_more_data_set_as_a_table(tmp_path, prompts_of_ones_own):
    import pandas as pd

    rows = [{"id": n, "question": f"{PASSAGE} Does it grow {n} times?", "choices": "yes|no", "answer": "yes",
             "split": ("train", "dev", "test")[n % 3]} for n in range(6)]
    pd.DataFrame(rows).to_csv(tmp_path / "questions.csv", index=False)
    ask_and_learn(read_questions("table", str(tmp_path), {"all": "questions.csv"}), "mine")


def test_a_table_of_ones_own_may_have_free_answers(tmp_path):
    (tmp_path / "questions.csv").write_text("id,question,choices,answer,split\n1,How many?,,8,test\n2,Who?,,Ann,test\n")
    table = read_questions("table", str(tmp_path), {"all": "questions.csv"})
    assert table["choices"].tolist() == [[], []] and table["answer"].tolist() == ["8", "Ann"]


def test_a_prompt_may_be_in_a_file_of_another_name(tmp_path, monkeypatch):
    for name, text in (("few_shot", "Q: {question} ({choices}) Why ({quality})? The answer is {answer}."),
                       ("short", "In a word, {question} ({choices}, {quality}): the answer is {answer}.")):
        (tmp_path / "mine").mkdir(exist_ok=True)
        (tmp_path / "mine" / f"{name}.txt").write_text(f"An example.\n\n{text}\n")
    assert qualities()  # read before the folder is another one
    monkeypatch.setattr(prompting, "FOLDER", tmp_path)
    question = pd.DataFrame([{"id": "1", "question": "Which flies?", "choices": ["cow", "kite"], "answer": "kite"}])
    prompt = prompting.few_shot_prompts(question, "mine", 0, file="short")[0]
    assert prompt.startswith("An example.\n\nIn a word, Which flies?") and "the answer is kite." in prompt
