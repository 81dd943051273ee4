"""Where students err: confusion between choices, answers by likelihood, and what one method gets and another loses."""

import numpy as np
import pandas as pd

from kdutils.data.questions import LETTERS
from kdutils.data.texts import count_words, names_answer


def by_likelihood(predictions, questions):
    """Return one row per prediction that has scores: id, seed, probability and correctness of the likeliest choice.

    Two readings of the same scores: ``chosen`` by Σ log p, ``chosen_per_token`` by its mean over the tokens, which does
    not favour short choices. `probability` is that of `chosen` after a softmax over the choices of the question.
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


def confusion(predictions, questions):
    """Return counts of predictions: rows the place of the right choice, columns that of the predicted one.

    The columns end with ``none``: an answer that is no choice. Questions without choices do not count. Where all
    questions have the same choices (labels, yes and no), rows and columns carry their names, else letters.
    """
    lists = {row.id: list(row.choices) for row in questions.itertuples() if len(row.choices)}
    kinds = {tuple(names) for names in lists.values()}
    labels = list(kinds.pop()) if len(kinds) == 1 else list(LETTERS[:max(map(len, lists.values()), default=0)])
    table = pd.DataFrame(0, index=pd.Index(labels, name="right"), columns=[*labels, "none"])
    for row in predictions.itertuples():
        if row.id in lists:
            names = lists[row.id]
            column = names.index(row.predicted) if row.predicted in names else len(labels)
            table.iat[names.index(row.answer), column] += 1
    return table


def difference_by_kind(first, second, questions, rationales):
    """Return how `first` differs from `second` in accuracy, by kinds of questions: percentage points and counts.

    `first`, `second`: frames of tables.PREDICTIONS over the same questions; `rationales`: {question id: text}.
    Kinds: length of the question (shorter or longer than the median), place of the right choice, and whether the
    rationale names the right answer. Each row: kind, questions, both accuracies, difference.
    """
    accuracy = {name: table.groupby("id")["correct"].mean() for name, table in (("first", first), ("second", second))}
    asked = questions[questions["id"].isin(accuracy["first"].index) & questions["id"].isin(accuracy["second"].index)]
    words = asked["question"].map(count_words)
    kinds = {f"question of at most {words.median():.0f} words": words <= words.median(),
             f"question of more than {words.median():.0f} words": words > words.median()}
    places = pd.Series([list(names).index(answer) if len(names) else -1 for names, answer
                        in zip(asked["choices"], asked["answer"], strict=True)], index=asked.index)
    if (places >= 0).any() and asked["choices"].map(len).max() > 2:
        kinds |= {f"right choice at ({LETTERS[place]})": places == place for place in sorted(set(places) - {-1})}
    texts = asked["id"].map(rationales)
    named = pd.Series([isinstance(text, str) and names_answer(text, answer) for text, answer
                       in zip(texts, asked["answer"], strict=True)], index=asked.index)
    kinds |= {"rationale names the answer": named, "rationale does not name it": texts.notna() & ~named,
              "no rationale": texts.isna()}
    rows = [{"questions with": kind, "questions": int(flags.sum()),
             **{name: float(accuracy[name][asked.loc[flags, "id"]].mean()) for name in accuracy}}
            for kind, flags in kinds.items() if flags.any()]
    table = pd.DataFrame(rows)
    return table.assign(difference=table["first"] - table["second"])


def won_and_lost(first, second, questions, count, seed):
    """Return up to `count` questions that `first` gets and `second` loses, and as many the other way round.

    Drawn from `seed` among the questions where the shares of right seeds differ; each row shows what both answered.
    """
    shares = {name: table.groupby("id")["correct"].mean() for name, table in (("first", first), ("second", second))}
    both = pd.DataFrame(shares).dropna()
    items, rows = questions.set_index("id"), []
    for verdict, keys in (("won", both.index[both["first"] > both["second"]]),
                          ("lost", both.index[both["first"] < both["second"]])):
        drawn = np.random.default_rng(seed).permutation(np.sort(keys.to_numpy()))[:count]
        for key in drawn:
            said = {name: ", ".join(sorted(set(table.loc[table["id"] == key, "predicted"].map(lambda a: a or "–"))))
                    for name, table in (("first says", first), ("second says", second))}
            rows.append({"verdict": verdict, "question": items.at[key, "question"], "choices": items.at[key, "choices"],
                         "answer": items.at[key, "answer"], **said})
    return pd.DataFrame(rows, columns=["verdict", "question", "choices", "answer", "first says", "second says"])
