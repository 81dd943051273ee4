"""What a teacher's texts are like: the numbers of the teacher report.

Two tables per prompting and stage. `raw_table` looks at what came from the teacher, before any cleaning: that is where
run-on text, cut-off text and empty first lines show. `text_table` looks at what is left for students to learn from.
None of these numbers says that a text is true.
"""

import re

import pandas as pd

from kdutils.data.texts import CLOSERS, WIDE_ENDS, argues_for, count_words, names_answer, word_triples
from kdutils.runs import project_path, read_json
from kdutils.teacher.prompting import FOLDER, template

NEW_ITEM = re.compile(r"Question:|Premise:|Briefly explain")  # the text has gone on to another item
SENTENCE_END = (".", "!", "?", "．", *WIDE_ENDS, *CLOSERS)
COPY = 0.6  # share of a text's three-word sequences that one shot has too, from which it is a near copy


def explanation_metrics(explanations: pd.DataFrame, questions: pd.DataFrame, parameters: dict) -> dict:
    """Return what an explaining notebook writes to metrics.json; `parameters` are those of the notebook.

    ``exactly_right`` is {stage: {split: share of texts that equal a true one word for word}}. It is empty for every
    data set but the embedded world, where the true texts are known.
    """
    from kdutils.data.mini_world import exactly_right

    dataset = parameters["dataset"]
    exact = {stage: exactly_right(questions, part) for stage, part in explanations.groupby("stage", sort=False)
             if dataset == "mini" and stage != "critique"}
    return {"labels": parameters["labels"], "dataset": dataset, "backend": parameters["backend"],
            "caution": explanations.attrs.get("caution", ""), "content": explanations.attrs.get("content", {}),
            "texts": len(explanations), "unusable": int(explanations["text"].isna().sum()),
            "raw": raw_table(explanations).to_dict("records"),
            "quality": text_table(explanations, questions, dataset).to_dict("records"), "exactly_right": exact}


def raw_table(explanations: pd.DataFrame) -> pd.DataFrame:
    """Return one row per stage and round of the raw texts: texts, and shares of those that show a defect.

    `starts with newline`, `empty first line` (nothing before the first line break), `run-on` (a blank line inside),
    `new item` (Question:, Premise: or Briefly explain), `truncated` (the end is no sentence end, quote or bracket),
    `at the token limit` (of those whose source says it), `answer named` in the whole text and in its first line, and
    the mean number of words, whole and first paragraph.
    """
    rows = []
    for (stage, turn), group in explanations.groupby(["stage", "round"], sort=False):
        texts = [text for text in group["raw"] if text]
        answers = [answer for answer, text in zip(group["answer"], group["raw"], strict=True) if text]
        first = [text.split("\n")[0].strip() for text in texts]
        paragraphs = [re.split(r"\n\s*\n", text.strip())[0] for text in texts]
        known = group.loc[group["finish_reason"] != "unknown", "finish_reason"]
        rows.append({
            "stage": _stage(stage, turn), "texts": len(group), "empty": len(group) - len(texts),
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


def text_table(explanations, questions, dataset=""):
    """Return one row per stage and round of the cleaned texts; shares are of the usable ones.

    `unusable` (nothing left after cleaning, or never asked), `run-on cut` and `unfinished` (ended in mid-sentence: the
    last part removed, or kept where it was all), `answer named`, `answer followed` and `contradicted` (see follows;
    the rest does not show it; None for critiques), `a distractor named`, `all distractors named`, `words`, `repeated`
    (texts that another question has too), `same as earlier` (texts equal to an earlier stage of the question), `copy
    of a shot` (share of texts with COPY of their three-word sequences in one shot of the data set's prompt; None
    without `dataset`), and tokens read and written where they are known.
    """
    choices = dict(zip(questions["id"], questions["choices"], strict=True))
    shots, rows, earlier = shot_texts(dataset) if dataset else [], [], {}
    for (stage, turn), group in explanations.groupby(["stage", "round"], sort=False):
        usable = group[group["text"].notna()]
        texts, answers = list(usable["text"]), list(usable["answer"])
        options = [list(choices[key]) for key in usable["id"]]
        named = [[names_answer(text, choice) for choice in names if choice != answer]
                 for text, answer, names in zip(texts, answers, options, strict=True)]
        argues = any(options) and stage != "critique"  # which speaks of a text and argues for no answer
        argued = [argues_for(*item) for item in zip(texts, answers, options, strict=True)] if argues else []
        cut = [bool({"cut_at_blank_line", "cut_at_marker"} & set(changes)) for changes in usable["changes"]]
        unfinished = [any(change.startswith("unfinished") for change in changes) for changes in usable["changes"]]
        rows.append({
            "stage": _stage(stage, turn), "texts": len(group), "unusable": len(group) - len(usable),
            "run-on cut": _share(cut), "unfinished": _share(unfinished),
            "answer named": _share(map(names_answer, texts, answers)),
            "answer followed": _share(item is True for item in argued),
            "contradicted": _share(item is False for item in argued),
            "a distractor named": _share(any(flags) for flags in named),
            "all distractors named": _share(bool(flags) and all(flags) for flags in named),
            "words": _mean(map(count_words, texts)),
            "repeated": _share(usable["text"].duplicated(keep=False)),
            "same as earlier": _share(earlier.get(key) == text for key, text in zip(usable["id"], texts, strict=True))
            if earlier else None,
            "copy of a shot": _share(is_copy(text, shots) for text in texts) if shots else None,
            "prompt tokens": group["prompt_tokens"].sum() if group["prompt_tokens"].notna().any() else None,
            "written tokens": group["completion_tokens"].sum() if group["completion_tokens"].notna().any() else None,
        })
        if stage in ("rationale", "revision"):
            earlier = dict(zip(usable["id"], texts, strict=True))
    return pd.DataFrame(rows)


def shot_texts(dataset):
    """Return the three-word sequences of each worked example of a data set's few-shot prompt, as sets; [] for none."""
    if not (FOLDER / dataset / "few_shot.txt").is_file():  # as where the texts are people's and nobody was prompted
        return []
    return [set(word_triples(block)) for block in template(dataset, "few_shot")[0].split("\n\n") if block.strip()]


def is_copy(text, shots):
    """Say whether COPY or more of the three-word sequences of `text` stand in one of `shots` (see shot_texts)."""
    sequences = set(word_triples(text))
    return bool(sequences) and any(len(sequences & shot) >= COPY * len(sequences) for shot in shots)


def revision_changes(explanations, questions):
    """Return what critique and revision changed: one row per measure, before, after, and the share that moved.

    Only questions whose first rationale and last revision are both usable count. Words and named distractors as means;
    truncated, and the answer that the text argues for (follows), as shares of the texts.
    """
    choices = dict(zip(questions["id"], questions["choices"], strict=True))
    first = explanations[(explanations["stage"] == "rationale") & explanations["text"].notna()].set_index("id")
    last = explanations[explanations["stage"] == "revision"]
    last = last[(last["round"] == last["round"].max()) & last["text"].notna()].set_index("id")
    both = [key for key in first.index if key in last.index]
    measures = {
        "words": lambda row, names: count_words(row["text"]),
        "distractors named": lambda row, names: sum(names_answer(row["text"], c) for c in names if c != row["answer"]),
        "answer named": lambda row, names: names_answer(row["text"], row["answer"]),
        "argues for another answer": lambda row, names: argues_for(row["text"], row["answer"], names) is False,
        "cut off or run on": lambda row, names: any(c.startswith(("cut_at", "unfinished")) for c in row["changes"]),
    }
    rows = []
    for name, measure in measures.items():
        before = [measure(first.loc[key], choices[key]) for key in both]
        after = [measure(last.loc[key], choices[key]) for key in both]
        rows.append({"measure": name, "texts": len(both), "before": _mean(before), "after": _mean(after),
                     "rose": _share(b > a for a, b in zip(before, after, strict=True)),
                     "fell": _share(b < a for a, b in zip(before, after, strict=True))})
    same = [first.at[key, "text"] == last.at[key, "text"] for key in both]
    moved = [first.at[key, "answer"] != last.at[key, "answer"] for key in both]
    rows += [{"measure": "text unchanged", "texts": len(both), "after": _share(same)},
             {"measure": "stated answer changed", "texts": len(both), "after": _share(moved)}]
    return pd.DataFrame(rows)


def _stage(stage, turn):
    return f"{stage} {turn}" if turn > 1 else stage


def _share(flags):
    flags = [bool(flag) for flag in flags]
    return sum(flags) / len(flags) if flags else None


def _mean(numbers):
    numbers = list(numbers)
    return sum(numbers) / len(numbers) if numbers else None


def read_reports(folders):
    """Return (raw, cleaned, costs) of several explanation runs: their tables with the labels of each run in front.

    `costs` has one row per run: texts, seconds, and tokens read and written as far as they are known. Raises StudyError
    for a folder without a finished run.
    """
    raw, cleaned, costs = [], [], []
    for folder in folders:
        metrics, about = (read_json(project_path(folder) / name) for name in ("metrics.json", "run.json"))
        labels = metrics["labels"]
        raw.append(pd.DataFrame(metrics["raw"]).assign(**labels))
        cleaned.append(pd.DataFrame(metrics["quality"]).assign(**labels))
        tokens = {name: cleaned[-1][name].sum(min_count=1) for name in ("prompt tokens", "written tokens")
                  if name in cleaned[-1]}
        costs.append({**labels, "texts": metrics["texts"], "seconds": about["laps"].get("explain"), **tokens})
    front = ["dataset", "teacher", "prompting", "stage"]
    whole = [pd.concat(tables, ignore_index=True) for tables in (raw, cleaned)]
    return *(table[front + [name for name in table if name not in front]] for table in whole), pd.DataFrame(costs)


def examples_of(explanations, questions, count, seed):
    """Return up to `count` sound and `count` faulty texts of each stage, drawn from `seed`, with what is wrong.

    Faulty: unusable, cut, or arguing for another answer than asserted. Sound is only what none of these rules catches.
    """
    items, rows = questions.set_index("id"), []
    for row in explanations.sample(frac=1, random_state=seed).to_dict("records"):
        item = items.loc[row["id"]]
        faults = [change for change in row["changes"] if change.startswith(("cut_at", "unfinished"))]
        if row["problem"]:
            faults = [row["problem"]]
        elif row["stage"] != "critique" and argues_for(row["text"], row["answer"], item["choices"]) is False:
            faults.append("argues for another answer")
        rows.append({"stage": row["stage"], "verdict": ", ".join(faults) or "nothing found",
                     "question": item["question"], "choices": item["choices"], "asserted": row["answer"],
                     "raw": row["text"] if row["raw"].startswith("[[") else row["raw"],  # not the scores of its words
                     "faulty": bool(faults)})
    drawn = pd.DataFrame(rows).groupby(["stage", "faulty"], sort=False).head(count)
    return drawn.sort_values(["stage", "faulty"], kind="stable").drop(columns="faulty").reset_index(drop=True)
