"""Where students err: confused choices, the likeliest choice, and questions on which two methods differ."""

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import ttest_ind

from kdutils.data.answers import answered_right
from kdutils.data.mini_world import truth_of
from kdutils.data.questions import LETTERS, full_question
from kdutils.data.tables import CHOICE, learnt_rows, learnt_stage, word_lists
from kdutils.data.texts import CLOSERS, LAYOUT, argues_for, count_words, naming_score, split_sentences

LEAST = 20  # questions of a group whose loss is told or tested; of few questions, some lose much by chance


def by_likelihood(predictions: pd.DataFrame, questions: pd.DataFrame) -> pd.DataFrame:
    """Return one row per prediction that has scores: id, seed, the likeliest choice, its probability and correctness.

    ``chosen`` is the choice with the highest Σ log p, ``chosen_per_token`` the one with the highest mean over its
    tokens, which does not favour short choices. `probability` is that of `chosen` after a softmax over the choices.
    """
    choices, rows = dict(zip(questions["id"], questions["choices"], strict=True)), []
    for row in predictions.itertuples():
        if not len(row.scores):
            continue
        scores, names = np.asarray(row.scores, dtype=float), list(choices[row.id])
        shares = np.exp(scores - scores.max())
        best, per_token = int(scores.argmax()), int((scores / np.asarray(row.score_tokens)).argmax())
        rows.append({"id": row.id, "seed": row.seed, "chosen": names[best], "chosen_per_token": names[per_token],
                     "probability": float(shares[best] / shares.sum()), "correct": names[best] == row.answer,
                     "correct_per_token": names[per_token] == row.answer})
    return pd.DataFrame(rows, columns=["id", "seed", "chosen", "chosen_per_token", "probability", "correct",
                                       "correct_per_token"])


def confusion(predictions: pd.DataFrame, questions: pd.DataFrame) -> pd.DataFrame:
    """Return counts of predictions: a row per position of the right choice, a column per position of the predicted one.

    The last column, ``none``, counts answers that are not among the choices. Questions without choices do not count.
    Where all questions have the same choices (labels, yes and no), rows and columns carry their names, else letters.
    """
    lists = {row.id: list(row.choices) for row in questions.itertuples() if len(row.choices)}
    distinct = {tuple(names) for names in lists.values()}
    labels = list(distinct.pop()) if len(distinct) == 1 else list(LETTERS[:max(map(len, lists.values()), default=0)])
    table = pd.DataFrame(0, index=pd.Index(labels, name="right"), columns=[*labels, "none"])
    for row in predictions.itertuples():
        if row.id in lists:
            names = lists[row.id]
            column = names.index(row.predicted) if row.predicted in names else len(labels)
            table.iat[names.index(row.answer), column] += 1
    return table


QUESTION_WORDS = ("who", "what", "where", "when", "why", "how", "which")
_QUESTION_WORD = re.compile(rf"\b({'|'.join(QUESTION_WORDS)})(?:m|se)?\b")  # also whom and whose
_VERB = r"(?:is|are|am|was|were|do|does|did|has|have|had|can|could|will|would|should|may|might|must)(?:n?['’]t)?\b"
_AUXILIARY = re.compile(rf"\W*{_VERB}")
_ASKS = re.compile(rf"(?:\A\W*|[,;:–—]\s*)({'|'.join(QUESTION_WORDS)})(?:m|se)?\s+{_VERB}")  # at the head of a clause
_UNMARKED = re.compile(rf"\A\W*({'|'.join(QUESTION_WORDS)})(?:m|se)?\s+(?:{_VERB}|of\b)"  # without a question mark
                       r"|\bwhat(?:\s+(?:kind|type|sort)s?\s+of)?\W*\Z")
FLAGS = {"names_answer": ("rationale names the answer", "rationale does not name it"),
         "argues_otherwise": ("rationale argues for another choice", ""),
         "cut": ("rationale was cut off or ran on", ""),
         "wholly_true": ("rationale is wholly true", "rationale is not wholly true"),
         "teacher_errs": ("teacher gives a wrong answer", "")}  # column of rationale_flags: group with, group without

RATIONALE = "teacher's rationale"


def question_type(question: str, choices: Sequence[str] = ()) -> str | None:
    """Return the question word of an English question, ``yes or no`` or ``other``; None for texts without a type.

    A question that begins with an auxiliary verb asks for yes or no, whatever words follow. Otherwise the type is a
    question word of the last sentence that has one, because a story before the question may have a "who" or "when".
    Without a question mark, a text is a question only if it begins with a question word and its verb ("What is the
    largest planet", "Which of these") or ends with "what" ("A bee is what kind of"), else a sentence to complete, of
    the type ``other`` ("A plant wilts when"). Of several, "when he left, the man who was late did what?", it is the one
    at the end, else one that begins a clause and has an auxiliary behind it, else the first that is seldom a
    conjunction or a relative pronoun (what, why, how), else the first but "when". A claim to be judged true or false
    has no type. Nor have premise and hypothesis: their question is the same for all and was added by this project
    (texts.LAYOUT).
    """
    text = question.strip()
    asks, laid_out = text.rstrip(CLOSERS).endswith("?"), text.startswith(LAYOUT[0]) and text.endswith(LAYOUT[-1])
    if laid_out or not asks and set(map(str.lower, choices)) == {"true", "false"}:
        return None
    sentences = list(map(str.lower, split_sentences(text)))
    if any(_AUXILIARY.match(one) for one in (sentences[:1] + sentences[-1:]) if one.rstrip(CLOSERS).endswith("?")):
        return "yes or no"
    if not asks:
        found = _UNMARKED.search(sentences[-1]) if sentences else None
        return "other" if not found else found[1] or "what"
    for sentence in reversed(sentences):
        if found := list(_QUESTION_WORD.finditer(sentence)):
            words = [one[1] for one in found]
            if not re.search(r"\w", sentence[found[-1].end():]):
                return words[-1]
            head = _ASKS.search(sentence)
            return head[1] if head else next(
                (word for wanted in (("what", "why", "how"), set(QUESTION_WORDS) - {"when"}) for word in words
                 if word in wanted), words[0])
    return "other"


def learnt_samples(explanations: pd.DataFrame, questions: pd.DataFrame) -> dict[str, dict]:
    """Return {question id: the first of its rows in tables.learnt_rows}, without questions that have none."""
    rows = learnt_rows(explanations, questions).drop_duplicates("id")
    return {row["id"]: row for row in rows.to_dict("records")}


def _usable(explanations):
    learnt = learnt_stage(explanations)
    return learnt[learnt["text"].notna()].to_dict("records")


def rationale_flags(explanations: pd.DataFrame, questions: pd.DataFrame) -> pd.DataFrame:
    """Return what can be seen of each question's rationale: a row per question with a usable text, by id.

    Columns, as floats: the keys of FLAGS (1 or 0) and ``words``, the number of words. ``teacher_errs`` is about the
    answer of the first usable sample: a teacher that was not given the right one gave another. Of a teacher that gave
    soft labels alone, it is about the most probable choice. The others are about the teacher's rationale of the
    question (learnt_samples), and NaN where there is none: see texts.naming_score, texts.argues_for and
    mini_world.truth_of. ``names_answer`` is also NaN where a mention of the answer shows nothing, as of yes or no,
    ``argues_otherwise`` for a list of words, and ``wholly_true`` where no fact is stated that can be checked, as for
    all questions that are not of the embedded world.
    """
    items, rows = {item["id"]: item for item in questions.to_dict("records")}, {}
    for row in _usable(explanations):
        item = items.get(row["id"])
        if item and row["id"] not in rows:
            rows[row["id"]] = {"teacher_errs": not answered_right(row["answer"], item)}
    soft = explanations[(explanations["stage"] == CHOICE) & explanations["id"].isin(list(items))]
    if len(soft) and not rows:
        probable = soft.dropna(subset="probability").sort_values("probability", ascending=False).drop_duplicates("id")
        rows = {key: {"teacher_errs": not answered_right(answer, items[key])}
                for key, answer in zip(probable["id"], probable["answer"], strict=True)}
    of_words = set(explanations.loc[word_lists(explanations), "id"])
    for key, row in learnt_samples(explanations, questions).items():
        item, text = items[key], row["text"]
        answer, choices = item["answer"], list(item["choices"])
        rows[key] |= {"names_answer": naming_score(text, answer, choices),
                      "argues_otherwise": None if key in of_words else
                      bool(choices) and argues_for(text, answer, choices) is False,
                      "cut": any(change.startswith(("cut_at", "unfinished")) for change in row["changes"]),
                      "wholly_true": (truth_of(text, item["question"], answer) or {}).get("wholly_true"),
                      "words": count_words(text)}
    return pd.DataFrame.from_dict(rows, orient="index").reindex(columns=[*FLAGS, "words"]).astype(float)


def accuracy_by_question_group(first: pd.DataFrame, second: pd.DataFrame, questions: pd.DataFrame,
                               flags: pd.DataFrame) -> pd.DataFrame:
    """Return the accuracies of `first` and `second` and their difference for groups of questions, as shares.

    `first`, `second`: frames of tables.PREDICTIONS over the same questions; `flags`: see rationale_flags. Groups:
    question_type, length of the question (up to the median, or longer), position of the right choice, and what can be
    seen of the rationale. Columns: questions with (the group), questions (their number), first, second, difference.
    """
    accuracy = _accuracy_per_question(first, second)
    asked = questions[questions["id"].isin(accuracy.dropna().index)]
    if asked.empty:
        return pd.DataFrame(columns=["questions with", "questions", "first", "second", "difference"])
    words, kinds = asked["question"].map(count_words), pd.Series(
        map(question_type, asked["question"], asked["choices"]), index=asked.index, dtype=object)
    groups = {f"question word: {kind}": kinds == kind for kind in (*QUESTION_WORDS, "yes or no", "other")} \
        if kinds.nunique() > 1 else {}
    groups |= {f"question of at most {int(words.median())} words": words <= words.median(),
               f"question of more than {int(words.median())} words": words > words.median()}
    places = pd.Series([list(names).index(answer) if len(names) else -1 for names, answer
                        in zip(asked["choices"], asked["answer"], strict=True)], index=asked.index)
    if (places >= 0).any() and asked["choices"].map(len).max() > 2:
        groups |= {f"right choice at ({LETTERS[place]})": places == place for place in sorted(set(places) - {-1})}
    for name, (those_with, those_without) in FLAGS.items():
        flag = asked["id"].map(flags[name])
        groups |= {those_with: flag == 1, **({those_without: flag == 0} if those_without else {})}
    groups["no rationale"] = asked["id"].map(flags["words"]).isna()
    table = pd.DataFrame([{"questions with": group, "questions": int(chosen.sum()),
                           **{name: float(accuracy[name][asked.loc[chosen, "id"]].mean()) for name in accuracy}}
                          for group, chosen in groups.items() if chosen.any()])
    return table.assign(difference=table["first"] - table["second"])


def rationale_effects(first: pd.DataFrame, second: pd.DataFrame, flags: pd.DataFrame) -> pd.DataFrame:
    """Test whether the difference between two methods depends on what can be seen of the teacher's rationale.

    Per question, the difference is the share of seeds of `first` that are right minus that of `second`. Its mean m1
    over the n1 questions with a flag is compared with its mean m2 over the n2 without it; a question is one
    observation, and the seeds are taken as given. With the variances s1² and s2², Student's t test (Student 1908) is ::

        s² = ((n1 − 1) s1² + (n2 − 1) s2²) / (n1 + n2 − 2)
        t = (m1 − m2) / (s · sqrt(1/n1 + 1/n2)),  df = n1 + n2 − 2

    The variance is that of both groups together, because most gains are 0: Welch's test takes the variance of a small
    group in which nothing differs for 0, and calls equal groups different several times too often.

    Long rationales are those of more words than the median. Questions for which a flag is not known are not in its
    test. Columns: rationale (the group), with and without (numbers of questions), effect, low, high (95 %; shares), p;
    a group of fewer than LEAST questions has no p, and neither have two groups without any variation. A low p shows
    that both go together, not why.
    """
    accuracy = _accuracy_per_question(first, second).dropna()
    accuracy = accuracy[accuracy.index.isin(flags.index)]
    gain, of = accuracy["first"] - accuracy["second"], flags.loc[accuracy.index]
    tested = {FLAGS[name][0]: of[name] for name in FLAGS}
    if (known := of["words"].dropna()).size:
        tested[f"rationale has more than {int(known.median())} words"] = known.gt(known.median()).reindex(of.index)
    rows = []
    for name, flag in tested.items():
        having, lacking = gain[flag == 1].to_numpy(), gain[flag == 0].to_numpy()
        row = {"rationale": name, "with": len(having), "without": len(lacking)}
        if len(having) and len(lacking):
            row["effect"] = having.mean() - lacking.mean()
        if min(len(having), len(lacking)) >= LEAST and having.var() + lacking.var() > 0:
            test = ttest_ind(having, lacking)
            interval = test.confidence_interval(0.95)
            row |= {"low": interval.low, "high": interval.high, "p": test.pvalue}
        rows.append(row)
    return pd.DataFrame(rows, columns=["rationale", "with", "without", "effect", "low", "high", "p"])


def _accuracy_per_question(first, second):
    """Return a frame with a row per question id: the share of seeds that are right, for `first` and `second`."""
    return pd.DataFrame({name: table.groupby("id")["correct"].mean()
                         for name, table in (("first", first), ("second", second))})


def won_and_lost(first: pd.DataFrame, second: pd.DataFrame, questions: pd.DataFrame, explanations: pd.DataFrame,
                 count: int, seed: int) -> pd.DataFrame:
    """Return up to `count` questions on which `first` has the higher share of right seeds, and as many with the lower.

    The questions are drawn with `seed`. Columns: verdict (won or lost), question, choices, answer, teacher's rationale
    (of this question, see learnt_samples, or a dash), first says, second says.
    """
    both, samples = _accuracy_per_question(first, second).dropna(), learnt_samples(explanations, questions)
    items, rows = questions.set_index("id"), []
    for verdict, keys in (("won", both.index[both["first"] > both["second"]]),
                          ("lost", both.index[both["first"] < both["second"]])):
        drawn = np.random.default_rng(seed).permutation(np.sort(keys.to_numpy()))[:count]
        for key in drawn:
            said = {name: ", ".join(sorted(set(table.loc[table["id"] == key, "predicted"].map(lambda a: a or "–"))))
                    for name, table in (("first says", first), ("second says", second))}
            rows.append({"verdict": verdict, "question": full_question(items.loc[key]),
                         "choices": items.at[key, "choices"], "answer": items.at[key, "answer"],
                         RATIONALE: samples.get(key, {"text": "–"})["text"], **said})
    return pd.DataFrame(rows, columns=["verdict", "question", "choices", "answer", RATIONALE, "first says",
                                       "second says"])
