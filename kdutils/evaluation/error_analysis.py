"""Where students err: confused choices, the likeliest choice, and questions on which two methods differ."""

import numpy as np
import pandas as pd

from kdutils.data.questions import LETTERS, full_question
from kdutils.data.texts import count_words, names_answer


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


def accuracy_by_question_group(first: pd.DataFrame, second: pd.DataFrame, questions: pd.DataFrame,
                               rationales: dict[str, str]) -> pd.DataFrame:
    """Return the accuracies of `first` and `second` and their difference for groups of questions, as shares.

    `first`, `second`: frames of tables.PREDICTIONS over the same questions; `rationales`: {question id: text}. Groups:
    length of the question (up to the median, or longer), position of the right choice, and whether the rationale
    names the right answer. Columns: questions with (the group), questions (their number), first, second, difference.
    """
    accuracy = _accuracy_per_question(first, second)
    asked = questions[questions["id"].isin(accuracy.dropna().index)]
    words = asked["question"].map(count_words)
    groups = {f"question of at most {words.median():.0f} words": words <= words.median(),
              f"question of more than {words.median():.0f} words": words > words.median()}
    places = pd.Series([list(names).index(answer) if len(names) else -1 for names, answer
                        in zip(asked["choices"], asked["answer"], strict=True)], index=asked.index)
    if (places >= 0).any() and asked["choices"].map(len).max() > 2:
        groups |= {f"right choice at ({LETTERS[place]})": places == place for place in sorted(set(places) - {-1})}
    texts = asked["id"].map(rationales)
    named = pd.Series([isinstance(text, str) and names_answer(text, answer) for text, answer
                       in zip(texts, asked["answer"], strict=True)], index=asked.index)
    groups |= {"rationale names the answer": named, "rationale does not name it": texts.notna() & ~named,
               "no rationale": texts.isna()}
    table = pd.DataFrame([{"questions with": group, "questions": int(flags.sum()),
                           **{name: float(accuracy[name][asked.loc[flags, "id"]].mean()) for name in accuracy}}
                          for group, flags in groups.items() if flags.any()])
    return table.assign(difference=table["first"] - table["second"])


def _accuracy_per_question(first, second):
    """Return a frame with a row per question id: the share of seeds that are right, for `first` and `second`."""
    return pd.DataFrame({name: table.groupby("id")["correct"].mean()
                         for name, table in (("first", first), ("second", second))})


def won_and_lost(first: pd.DataFrame, second: pd.DataFrame, questions: pd.DataFrame, count: int,
                 seed: int) -> pd.DataFrame:
    """Return up to `count` questions on which `first` has the higher share of right seeds, and as many with the lower.

    The questions are drawn with `seed`. Columns: verdict (won or lost), question, choices, answer, first says,
    second says.
    """
    both = _accuracy_per_question(first, second).dropna()
    items, rows = questions.set_index("id"), []
    for verdict, keys in (("won", both.index[both["first"] > both["second"]]),
                          ("lost", both.index[both["first"] < both["second"]])):
        drawn = np.random.default_rng(seed).permutation(np.sort(keys.to_numpy()))[:count]
        for key in drawn:
            said = {name: ", ".join(sorted(set(table.loc[table["id"] == key, "predicted"].map(lambda a: a or "–"))))
                    for name, table in (("first says", first), ("second says", second))}
            rows.append({"verdict": verdict, "question": full_question(items.loc[key]),
                         "choices": items.at[key, "choices"], "answer": items.at[key, "answer"], **said})
    return pd.DataFrame(rows, columns=["verdict", "question", "choices", "answer", "first says", "second says"])
