"""Measures of a teacher's texts: the numbers of the teacher report.

There are two tables per prompting and stage. `raw_table` measures the texts as the teacher wrote them: run-on text,
cut-off text and empty first lines show there. `text_table` measures the cleaned texts, from which students learn. None
of these numbers says that a text is true.
"""

import re
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from kdutils.data.answers import answered_right
from kdutils.data.mini_world import truth_of
from kdutils.data.questions import full_question
from kdutils.data.tables import CHOICE, learnt_rows, learnt_stage, read_table, word_lists
from kdutils.data.texts import CLOSERS, WIDE_ENDS, argues_for, count_words, names_answer, naming_score, word_triples
from kdutils.errors import StudyError
from kdutils.fake_texts import FAKE, fake_texts, fooled_stages
from kdutils.runs import project_path, read_json
from kdutils.teacher.prompting import prompt_folder, prompts_named, template

STAGES = ("rationale", "revision", "counterfactual")  # of a teacher's texts: those that argue for an answer
NEW_ITEM = re.compile(r"Question:|Premise:|Briefly explain")  # the text continues with another item
SENTENCE_END = (".", "!", "?", "．", *WIDE_ENDS, *CLOSERS)
MANY_UNUSABLE = 0.2  # share of the texts of a run from which it is worth a warning
COPY = 0.6  # a text is a copy of a shot that has at least this share of its three-word sequences


def explanation_metrics(explanations: pd.DataFrame, questions: pd.DataFrame, parameters: dict) -> dict:
    """Return what an explaining notebook writes to metrics.json; `parameters` are those of the notebook.

    ``exactly_right`` is {stage: {split: share of texts that equal a true one word for word}}. It is empty for every
    data set but the embedded world, where the true texts are known. ``fooled``: see fooled_measures. ``texts``,
    ``unusable`` and ``problems`` count questions in a table of soft labels, which has a row per choice.
    """
    from kdutils.data.mini_world import exactly_right

    dataset, quality = parameters["dataset"], text_table(explanations, questions, prompts_named(parameters))
    exact = {stage: exactly_right(questions, part) for stage, part in explanations.groupby("stage", sort=False)
             if dataset == "mini" and stage not in ("critique", CHOICE)}
    soft = explanations["stage"].eq(CHOICE).all()
    counted = explanations.drop_duplicates("id") if soft else explanations
    lost = counted["text"].isna()
    return {"labels": parameters["labels"], "dataset": dataset, "backend": parameters["backend"],
            "caution": explanations.attrs.get("caution", ""), "content": explanations.attrs.get("content", {}),
            "texts": len(counted), "unusable": int(lost.sum()),
            "problems": counted.loc[lost, "problem"].value_counts().to_dict(),
            "raw": raw_table(explanations).to_dict("records"),
            "quality": quality.to_dict("records"), "fooled": fooled_measures(quality, explanations, questions),
            "exactly_right": exact}


def learnt_metrics(explanations: pd.DataFrame, questions: pd.DataFrame) -> dict:
    """Return what an explaining notebook adds to metrics.json about the texts that students learn from.

    ``agrees_with_gold``: the share of tables.learnt_stage (usable or not) whose answer is a right one.
    ``without_rationale``: of the ``train_questions``, the number without a row in tables.learnt_rows.
    """
    items = {item["id"]: item for item in questions.to_dict("records")}
    stage = learnt_stage(explanations)
    right = [answered_right(answer, items[key]) for key, answer in zip(stage["id"], stage["answer"], strict=True)]
    train = set(questions.loc[questions["split"] == "train", "id"])
    learnt = set(learnt_rows(explanations, questions)["id"])
    return {"agrees_with_gold": _mean(right), "without_rationale": len(train - learnt), "train_questions": len(train)}


def unusable_warning(metrics: dict) -> str:
    """Return how few explanations (or soft labels) of a run can be used, why, and what students learn instead.

    It is "" where few are lost.

    `metrics`: what explanation_metrics returned.
    """
    texts, lost = metrics.get("texts", 0), metrics.get("unusable", 0)
    if lost <= MANY_UNUSABLE * texts:
        return ""
    why = ", ".join(f"{problem}: {count}" for problem, count in metrics.get("problems", {}).items())
    soft = any(row["stage"] == CHOICE for row in metrics.get("raw", []))
    things, rest = ("questions have probabilities", "of the others, students learn the right answers") if soft else \
        ("explanations can be used", "students learn from these alone")
    return f"only {texts - lost} of {texts} {things}{f' ({why})' if why else ''}; {rest}"


def few_usable(cleaned: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of text_table of which so many texts cannot be used that it is worth a warning."""
    return cleaned[cleaned["unusable"] > MANY_UNUSABLE * cleaned["texts"]]


def raw_table(explanations: pd.DataFrame) -> pd.DataFrame:
    """Return one row per stage and round of the raw texts: their number, and shares with a defect.

    Columns: `starts with newline`, `empty first line` (nothing before the first line break), `run-on` (a blank line
    inside), `new item` (Question:, Premise: or Briefly explain), `truncated` (no sentence end, quote or bracket at the
    end), `at the token limit` (of texts with a known finish reason), `answer named` in the whole text and in its first
    line, and the mean number of words in the whole text and in its first paragraph. Soft labels have the number alone.
    """
    rows = []
    for (stage, turn), group in explanations.groupby(["stage", "round"], sort=False):
        written = group[:0] if stage == CHOICE else group[group["raw"].ne("")]
        texts, answers = list(written["raw"]), list(written["answer"])
        first = [text.split("\n")[0].strip() for text in texts]
        paragraphs = [re.split(r"\n\s*\n", text.strip())[0] for text in texts]
        known = group.loc[group["finish_reason"] != "unknown", "finish_reason"]
        rows.append({
            "stage": _stage(stage, turn), "texts": len(group), "empty": int(group["raw"].eq("").sum()),
            "starts with newline": _share(text.startswith("\n") for text in texts),
            "empty first line": _share(not line for line in first),
            "run-on": _share(re.search(r"\n\s*\n", text.strip()) is not None for text in texts),
            "new item": _share(NEW_ITEM.search(text) is not None for text in texts),
            "truncated": _share(not text.rstrip().endswith(SENTENCE_END) for text in texts),
            "at the token limit": _share(known == "length"),
            "answer named": _share(map(names_answer, texts, answers)),
            "answer named in first line": _share(map(names_answer, first, answers)),
            "words": _mean(map(count_words, texts)),
            "words of first paragraph": _mean(map(count_words, paragraphs)),
        })
    return pd.DataFrame(rows)


def text_table(explanations: pd.DataFrame, questions: pd.DataFrame, dataset: str = "") -> pd.DataFrame:
    """Return one row per stage and round of the cleaned texts; shares are of the usable texts.

    Columns: `unusable` (nothing left after cleaning, or never asked), `run-on cut`, `unfinished` (stopped in
    mid-sentence), `answer named`, `answer followed` and `contradicted` (see texts.argues_for; other texts do not show
    it; None for critiques and lists of words), `wholly true`, `true statements` and `true reason` (mini_world.truth_of;
    only for questions of the embedded world), `a distractor named`, `all distractors named`, `words`, `repeated`
    (another question has the same text), `same as earlier` (an earlier stage of the question has the same text), `copy
    of a shot` (see is_copy; None without `dataset`), and tokens read and written, where they are known. What is named
    is None where a mention shows nothing (texts.naming_score).
    """
    choices = dict(zip(questions["id"], questions["choices"], strict=True))
    asked = dict(zip(questions["id"], questions["question"], strict=True))
    shots, rows, earlier = shot_texts(dataset) if dataset else [], [], {}
    for (stage, turn), group in explanations.groupby(["stage", "round"], sort=False):
        known = group[group["text"].notna()]
        usable = known[:0] if stage == CHOICE else known  # a choice is no text of the teacher
        texts, answers = list(usable["text"]), list(usable["answer"])
        options = [list(choices[key]) for key in usable["id"]]
        named = [[names_answer(text, choice) for choice in names if choice != answer]
                 for text, answer, names in zip(texts, answers, options, strict=True)
                 if naming_score(text, answer, names) is not None]
        # A critique speaks of a text, and a list of words of nothing: they argue for no answer.
        argues = any(options) and stage != "critique" and not word_lists(usable).any()
        argued = [argues_for(*item) for item in zip(texts, answers, options, strict=True)] if argues else []
        cut = [bool({"cut_at_blank_line", "cut_at_marker"} & set(changes)) for changes in usable["changes"]]
        unfinished = [any(change.startswith("unfinished") for change in changes) for changes in usable["changes"]]
        rows.append({
            "stage": _stage(stage, turn), "texts": len(group), "unusable": len(group) - len(known),
            "run-on cut": _share(cut), "unfinished": _share(unfinished),
            "answer named": _known_mean(map(naming_score, texts, answers, options)),
            "answer followed": _share(item is True for item in argued),
            "contradicted": _share(item is False for item in argued),
            **_truth(usable, asked, stage),
            "a distractor named": _share(any(flags) for flags in named),
            "all distractors named": _share(bool(flags) and all(flags) for flags in named),
            "words": _mean(map(count_words, texts)),
            "repeated": _share(usable.groupby("text")["id"].transform("nunique") > 1),
            "same as earlier": _share(earlier.get(key) == text for key, text in zip(_keys(usable), texts, strict=True))
            if earlier else None,
            "copy of a shot": _share(is_copy(text, shots) for text in texts) if shots else None,
            "prompt tokens": group["prompt_tokens"].sum() if group["prompt_tokens"].notna().any() else None,
            "written tokens": group["completion_tokens"].sum() if group["completion_tokens"].notna().any() else None,
        })
        if stage in ("rationale", "revision"):
            earlier = dict(zip(_keys(usable), texts, strict=True))
    return pd.DataFrame(rows)


def _keys(table):
    """Return (question id, sample) of each row."""
    return list(zip(table["id"], table["sample"] if "sample" in table else [0] * len(table), strict=True))


def _truth(usable, asked, stage):
    """Return how many texts are wholly true, how many statements are, and how many texts give a true reason.

    Nothing is returned of texts in which nothing can be read as a statement, such as lists of words.
    """
    found = [truth_of(row.text, asked[row.id], row.answer) for row in usable.itertuples()] \
        if stage.startswith(("rationale", "revision", FAKE)) else []
    reasons = [one["true_reason"] for one in found if one]
    found = [one for one in found if one and one["states_facts"]]
    return {"wholly true": _mean(one["wholly_true"] for one in found),
            "true statements": _mean(one["true_share"] for one in found),
            "true reason": _mean(reasons)} if found else {}


def shot_texts(dataset: str) -> list[set]:
    """Return the three-word sequences of each shot of a data set's few-shot prompt, as sets; [] without a prompt."""
    if not (prompt_folder(dataset) / "few_shot.txt").is_file():  # for example, the explanations are by people
        return []
    return [set(word_triples(block)) for block in template(dataset, "few_shot")[0].split("\n\n") if block.strip()]


def is_copy(text: str, shots: list[set]) -> bool:
    """Return whether one of `shots` (see shot_texts) has a share of COPY or more of the three-word sequences."""
    sequences = set(word_triples(text))
    return bool(sequences) and any(len(sequences & shot) >= COPY * len(sequences) for shot in shots)


def revision_changes(explanations: pd.DataFrame, questions: pd.DataFrame) -> pd.DataFrame:
    """Return the effect of critique and revision: per measure its value before and after, and shares that changed.

    Only questions (samples of questions) count whose first rationale and last revision are both usable. Words and named
    distractors are means, the other measures shares of the texts. ``rose`` and ``fell`` are shares of texts.
    """
    choices = dict(zip(questions["id"], questions["choices"], strict=True))
    known = explanations[explanations["text"].notna()]
    rounds = explanations.loc[explanations["stage"] == "revision", "round"]
    first, last = (dict(zip(_keys(part), part.to_dict("records"), strict=True)) for part in (
        known[known["stage"] == "rationale"], known[(known["stage"] == "revision") & (known["round"] == rounds.max())]))
    both = [key for key in first if key in last]
    measures = {
        "words": lambda row, names: count_words(row["text"]),
        "distractors named": lambda row, names: None if naming_score("", row["answer"], names) is None else sum(
            names_answer(row["text"], choice) for choice in names if choice != row["answer"]),
        "answer named": lambda row, names: naming_score(row["text"], row["answer"], names),
        "argues for another answer": lambda row, names: argues_for(row["text"], row["answer"], names) is False,
        "cut off or run on": lambda row, names: any(c.startswith(("cut_at", "unfinished")) for c in row["changes"]),
    }
    rows = []
    for name, measure in measures.items():
        pairs = [(measure(first[key], choices[key[0]]), measure(last[key], choices[key[0]])) for key in both]
        pairs = [pair for pair in pairs if None not in pair]
        rows.append({"measure": name, "texts": len(pairs), "before": _mean(before for before, _ in pairs),
                     "after": _mean(after for _, after in pairs),
                     "rose": _share(after > before for before, after in pairs),
                     "fell": _share(after < before for before, after in pairs)})
    same = [first[key]["text"] == last[key]["text"] for key in both]
    moved = [first[key]["answer"] != last[key]["answer"] for key in both]
    rows += [{"measure": "text unchanged", "texts": len(both), "after": _share(same)},
             {"measure": "stated answer changed", "texts": len(both), "after": _share(moved)}]
    return pd.DataFrame(rows)


def _stage(stage, turn):
    return f"{stage} {turn}" if turn > 1 else stage


def _share(flags):
    flags = [bool(flag) for flag in flags]
    return sum(flags) / len(flags) if flags else None


def _known_mean(numbers):
    return _mean(number for number in numbers if number is not None)


def _mean(numbers):
    numbers = list(numbers)
    return sum(numbers) / len(numbers) if numbers else None


def read_reports(folders: Iterable[Path | str]) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Return (raw, cleaned, costs) of several explaining runs, each with the labels of the run in the first columns.

    `raw` and `cleaned` are raw_table and text_table. `costs` has one row per run: texts, seconds, tokens read and
    written, and the train questions without a text to learn from, where they are known. Raises StudyError for no
    folder, and for a folder without a finished run or texts.
    """
    raw, cleaned, costs = [], [], []
    if not (folders := list(folders)):
        raise StudyError("explained: no run to judge; give the folders of finished explaining runs")
    for folder in folders:
        metrics, about = (read_json(project_path(folder) / name) for name in ("metrics.json", "run.json"))
        labels = metrics["labels"]
        if not metrics["raw"]:
            raise StudyError(f"{folder}: the run has no texts; run its explaining notebook again")
        raw.append(pd.DataFrame(metrics["raw"]).assign(**labels))
        cleaned.append(pd.DataFrame(metrics["quality"]).assign(**labels))
        tokens = {name: cleaned[-1][name].sum(min_count=1) for name in ("prompt tokens", "written tokens")
                  if name in cleaned[-1]}
        without = {"questions without": f"{metrics['without_rationale']} of {metrics['train_questions']}"} \
            if "without_rationale" in metrics else {}
        costs.append({**labels, "texts": metrics["texts"], "seconds": about["laps"].get("explain"), **tokens,
                      **without})
    front = ["dataset", "teacher", "prompting", "stage"]
    whole = [pd.concat(tables, ignore_index=True) for tables in (raw, cleaned)]
    return *(table[front + [name for name in table if name not in front]] for table in whole), pd.DataFrame(costs)


def fooled_measures(quality: pd.DataFrame, explanations: pd.DataFrame, questions: pd.DataFrame) -> dict[str, str]:
    """Return {measure: the fakes that are at least as good as some texts, in words} (fake_texts).

    `quality`: the text_table of `explanations`.
    """
    fakes = text_table(fake_explanations(explanations, questions), questions)
    return fooled_stages(pd.concat([quality, fakes], ignore_index=True))


def fake_explanations(explanations: pd.DataFrame, questions: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Return a teacher's first usable text of each question (a frame of tables.EXPLANATIONS) with a fake in its place.

    There are as many rows for each fake but ``teacher``; their stage is ``fake: <name>``. Critiques, soft labels and
    lists of words (prompting tokens) are no texts for an answer: there are no fakes of them.
    """
    own = explanations[explanations["text"].notna() & explanations["stage"].isin(STAGES)
                       & ~word_lists(explanations)].drop_duplicates("id")
    rationales = dict(zip(own["id"], own["text"], strict=True))
    fakes = fake_texts(own.rename(columns={"answer": "predicted"}), questions, rationales, seed)
    return pd.concat([own[:0], *(own.assign(stage=FAKE + name, text=texts, round=1, changes=[[] for _ in texts])
                                 for name, texts in fakes.items() if name != "teacher")], ignore_index=True)


def read_fooled(folders: Iterable[Path | str]) -> dict[str, dict[str, str]]:
    """Return {dataset: fooled_measures} of several explaining runs; the first one with a measure gives its words."""
    found = {}
    for folder in map(project_path, folders):
        given = read_json(folder / "run.json")["parameters"]
        quality = pd.DataFrame(read_json(folder / "metrics.json")["quality"])
        of_run = fooled_measures(quality, read_table(folder / "explanations.parquet", "explanations"),
                                 read_table(project_path(given["questions"]), "questions"))
        of_data = found.setdefault(given["labels"]["dataset"], {})
        of_data.update({**of_run, **of_data})
    return found


def read_answer_shares(folders: Iterable[Path | str]) -> pd.DataFrame:
    """Return one row per run of notebook 05 in `folders`: how often its words are words of the right answer.

    Columns: the labels of the run, attribution, k, and for the questions with attributed words the shares of
    word_scores.answer_share. `expected at random` is that of `any answer word`. `published` is the one to compare with
    `any answer word` (arXiv 2409.12586, see word_scores.published_share); None where nothing is comparable.
    """
    rows = []
    for folder in folders:
        metrics = read_json(project_path(folder) / "metrics.json")
        if "published_share" not in metrics:
            continue  # other promptings, and runs of earlier versions
        attributed, at_random = metrics["answer_share"]
        rows.append({**metrics["labels"], **{name: metrics["choice"][name] for name in ("attribution", "k")},
                     **attributed, "expected at random": at_random["any answer word"],
                     "published": metrics["published_share"]})
    return pd.DataFrame(rows)


def examples_of(explanations: pd.DataFrame, questions: pd.DataFrame, count: int, seed: int) -> pd.DataFrame:
    """Return up to `count` texts with and `count` without a fault per stage, drawn from `seed`, with the faults.

    A fault: the text is unusable, was cut, or argues for another answer than the asserted one. Without a fault means
    only that none of these rules applies. Soft labels are left out. Raises StudyError for a text on none of these
    questions.
    """
    items, rows = questions.set_index("id"), []
    if unknown := sorted(set(explanations["id"]) - set(items.index)):
        raise StudyError(f"{len(unknown)} explained questions are not in the table of questions, such as "
                         f"{unknown[0]!r}: run the explaining notebook again with this table")
    texts = explanations[explanations["stage"] != CHOICE].assign(words=word_lists)
    for row in texts.sample(frac=1, random_state=seed).to_dict("records"):
        item = items.loc[row["id"]]
        faults = [change for change in row["changes"] if change.startswith(("cut_at", "unfinished"))]
        if row["problem"]:
            faults = [row["problem"]]
        elif row["stage"] != "critique" and not row["words"] and argues_for(
                row["text"], row["answer"], item["choices"]) is False:
            faults.append("argues for another answer")
        rows.append({"stage": row["stage"], "verdict": ", ".join(faults) or "nothing found",
                     "question": full_question(item), "choices": item["choices"], "asserted": row["answer"],
                     "raw": row["text"] if row["words"] else row["raw"],  # not the scores of its words
                     "faulty": bool(faults)})
    table = pd.DataFrame(rows, columns=["stage", "verdict", "question", "choices", "asserted", "raw", "faulty"])
    drawn = table.groupby(["stage", "faulty"], sort=False).head(count)
    return drawn.sort_values(["stage", "faulty"], kind="stable").drop(columns="faulty").reset_index(drop=True)
