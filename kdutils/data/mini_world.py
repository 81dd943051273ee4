"""Questions and true explanations, made from the facts in world.yaml.

A *key* is what a question asks: one or two (relation, value) facts, such as ``(("place", "farm"), ("part", "horns"))``.
Splits are drawn over keys. A question of one split is therefore in no other split in any wording, but the single facts
that it needs are in the train split.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import combinations, permutations
from pathlib import Path

import pandas as pd
import yaml

Fact = tuple[str, str]  # (relation, value)
Key = tuple[Fact, ...]  # one or two facts

RELATIONS = ("kind", "place", "part", "look", "use")
SPLIT_SHARES = {"train": 0.75, "dev": 0.10, "test": 0.15}  # of the keys
HALF_RIGHT = 2  # half-right distractors of a question, at least


@dataclass(frozen=True, eq=False)  # hashed by identity, for the caches
class World:
    """The facts: `concepts` maps a name to {relation: value}; `shot_keys` are in no split, for worked examples."""

    concepts: dict[str, dict[str, str]]
    relations: dict[str, dict[str, str]]
    wordings: dict[str, list[str]]
    shot_keys: frozenset[Key]

    def clause(self, relation: str, value: str) -> str:
        """Return a fact as words, such as ``is found in the farm``."""
        return self.relations[relation]["clause"].format(a=article(value), value=value)

    def fits(self, concept: str, fact: Fact) -> bool:
        """Say whether a fact is true of a concept."""
        relation, value = fact
        return self.concepts[concept][relation] == value

    @cache  # noqa: B019 - a process has one World
    def right(self, key: Key) -> list[str]:
        """Return the concepts that fit every fact of `key`, in the order of the file."""
        return [name for name in self.concepts if all(self.fits(name, fact) for fact in key)]

    @cache  # noqa: B019
    def half_right(self, key: Key, concept: str) -> list[str]:
        """Return the distractors that are half right for `key` if `concept` is the answer.

        If two facts are asked, such a distractor fits exactly one of them. If one is asked, it does not fit it but
        shares the kind of the answer, or another fact if the kind is asked.
        """
        return [name for name in self.concepts if self.shared_fact(key, concept, name) is not None]

    def shared_fact(self, key: Key, concept: str, other: str) -> Fact | None:
        """Return the fact that makes `other` half right (see `half_right`), or None."""
        fitting = [fact for fact in key if self.fits(other, fact)]
        if len(fitting) == len(key):
            return None
        if len(key) == 2:
            return fitting[0] if fitting else None
        asked = key[0][0]
        shared = [(relation, self.concepts[other][relation]) for relation in RELATIONS if relation != asked
                  and self.concepts[other][relation] == self.concepts[concept][relation]]
        if asked != "kind":
            shared = [fact for fact in shared if fact[0] == "kind"]
        return shared[0] if shared else None

    def texts(self, key: Key) -> list[str]:
        """Return every wording of a question about `key`."""
        clauses = [self.clause(*fact) for fact in key]
        if len(key) == 1:
            return [wording.format(one=clauses[0]) for wording in self.wordings["one"]]
        texts = [wording.format(one=clauses[0], two=clauses[1]) for wording in self.wordings["two"]]
        if key[0][0] == "kind":
            kind = key[0][1]
            texts += [wording.format(kind=kind, a=article(kind), two=clauses[1]) for wording in self.wordings["kind"]]
        return texts

    @cached_property
    def keys(self) -> dict[Key, list[str]]:
        """The keys with enough half-right distractors, each with the concepts that fit it."""
        keys = {}
        for name, facts in self.concepts.items():
            singles = [((relation, facts[relation]),) for relation in RELATIONS]
            pairs = [tuple((relation, facts[relation]) for relation in pair) for pair in combinations(RELATIONS, 2)]
            for key in singles + pairs:
                if len(self.half_right(key, name)) >= HALF_RIGHT:
                    keys.setdefault(key, []).append(name)
        return keys


@cache
def load_world() -> World:
    """Return the World of world.yaml."""
    raw = yaml.safe_load(Path(__file__).with_name("world.yaml").read_text(encoding="utf-8"))
    shots = frozenset(tuple((relation, raw["concepts"][shot["concept"]][relation]) for relation in shot["asked"])
                      for shot in raw["shots"])
    return World(raw["concepts"], raw["relations"], raw["wordings"], shots)


def article(noun: str) -> str:
    """Return the indefinite article of a noun, ``a`` or ``an``."""
    return "an" if noun[0] in "aeiou" else "a"


@cache
def split_keys(seed: int = 0) -> dict[str, list[tuple[Key, list[str]]]]:
    """Return {split: [(key, right concepts)]}: the keys without shot_keys, shuffled by `seed`, cut by SPLIT_SHARES."""
    world = load_world()
    keys = [item for item in world.keys.items() if item[0] not in world.shot_keys]
    random.Random(f"split {seed}").shuffle(keys)
    first, second = round(SPLIT_SHARES["train"] * len(keys)), round((1 - SPLIT_SHARES["test"]) * len(keys))
    return {"train": keys[:first], "dev": keys[first:second], "test": keys[second:]}


def draw_question(draw: random.Random, key: Key, concept: str) -> tuple[str, list[str]]:
    """Return (text, five choices) of a drawn question about `key`; `concept` is the only right choice."""
    world = load_world()
    half = draw.sample(world.half_right(key, concept), HALF_RIGHT)
    wrong = [name for name in world.concepts if name not in half and name not in world.right(key)]
    choices = [concept, *half, *draw.sample(wrong, 4 - HALF_RIGHT)]
    draw.shuffle(choices)
    return draw.choice(world.texts(key)), choices


def build_questions(train: int = 1500, dev: int = 200, test: int = 300, seed: int = 0) -> pd.DataFrame:
    """Return questions of the embedded world, drawn from `seed`, as a table of questions (tables.QUESTIONS).

    The keys of a split are asked in turn until the split is full; no question is repeated.
    """
    rows = []
    for split, count in {"train": train, "dev": dev, "test": test}.items():
        draw = random.Random(f"questions {split} {seed}")
        keys, seen = split_keys(seed)[split], set()
        while len(seen) < count:
            key, concepts = keys[len(seen) % len(keys)]
            concept = draw.choice(concepts)
            text, choices = draw_question(draw, key, concept)
            if (text, tuple(sorted(choices))) in seen:
                continue
            seen.add((text, tuple(sorted(choices))))
            rows.append({"id": f"mini-{seed}-{split}-{len(seen):04d}", "split": split, "question": text,
                         "context": "", "choices": choices, "answer": concept, "human_explanations": []})
    return pd.DataFrame(rows)


@cache
def _key_of_text():
    world = load_world()
    return {text: key for key in world.keys for text in world.texts(key)}


def find_key(question: str) -> Key:
    """Return the key that a question's text asks; KeyError if the world has no such question."""
    return _key_of_text()[question]


def half_right_choices(question: str, choices: Sequence[str], answer: str) -> list[str]:
    """Return the half-right distractors among `choices`, in their order."""
    world, key = load_world(), find_key(question)
    return [name for name in choices if world.shared_fact(key, answer, name)]


def true_rationale(question: str, choices: Sequence[str], answer: str, named: Sequence[str] | None = None) -> str:
    """Return an explanation that follows from the facts.

    It states the asked facts of `answer` and then, for each distractor in `named` (by default the first half-right
    choice), which fact fits and which does not. For a wrong `answer` it claims the asked facts for it nevertheless,
    and contrasts it with the right concept.
    """
    world, key = load_world(), find_key(question)
    claim = " and ".join(world.clause(*fact) for fact in key)
    sentences = [f"{article(answer).capitalize()} {answer} {claim}."]
    right = next(name for name in choices if name in world.right(key))
    if answer != right:
        return " ".join([*sentences, _aside(world, right, key)])
    named = half_right_choices(question, choices, answer)[:1] if named is None else named
    return " ".join(sentences + [_contrast(world, key, answer, name) for name in named])


def true_rationales(question: str, choices: Sequence[str], answer: str, contrasts: int = 1) -> list[str]:
    """Return every true explanation that names `contrasts` half-right distractors, in any order.

    A wrong `answer` has one explanation.
    """
    if answer not in load_world().right(find_key(question)):
        return [true_rationale(question, choices, answer)]
    return [true_rationale(question, choices, answer, list(named))
            for named in permutations(half_right_choices(question, choices, answer), contrasts)]


def _contrast(world, key, concept, other):
    """Return a sentence such as ``A goat is an animal, but is found in the meadow.``"""
    missed = next(relation for relation, value in key if not world.fits(other, (relation, value)))
    shared = world.clause(*world.shared_fact(key, concept, other))
    return f"{article(other).capitalize()} {other} {shared}, but {world.clause(missed, world.concepts[other][missed])}."


def _aside(world, right, key):
    """Return a sentence that uses two facts that were not asked as if they spoke against the right concept."""
    asked = {relation for relation, _ in key}
    first, second = [relation for relation in RELATIONS if relation not in asked][:2]
    return (f"{article(right).capitalize()} {right} {world.clause(first, world.concepts[right][first])}, "
            f"but {world.clause(second, world.concepts[right][second])}.")


def true_critique(missing: str) -> str:
    """Return the critique of an explanation that does not name the half-right choice `missing`."""
    return f"The explanation is right, but it does not say why {missing} is wrong."


def exactly_right(questions: pd.DataFrame, explanations: pd.DataFrame) -> dict[str, float]:
    """Return {split: share of explanations that are one of the `true_rationales`, word for word}.

    A rationale names one half-right choice, a revision one more per round. Unusable explanations count as not right.
    """
    items = questions.set_index("id")
    columns = zip(explanations["id"], explanations["answer"], explanations["round"], explanations["text"], strict=True)
    right = [text in true_rationales(items.at[key, "question"], items.at[key, "choices"], answer, 1 + int(turn))
             for key, answer, turn, text in columns]
    splits = items.loc[explanations["id"], "split"]
    return pd.Series(right, index=splits.to_numpy()).groupby(level=0, sort=False).mean().to_dict()


# Is a text true?

@dataclass(frozen=True)
class Statement:
    """What a text says of a concept: a fact, and whether it is true of it; `true` is None where no fact was read."""

    text: str
    concept: str = ""
    fact: Fact = ("", "")
    true: bool | None = None


def read_statements(text: str) -> list[Statement]:
    """Return the statements of a text about the world, in its words.

    A sentence is read if it is a concept followed by clauses of the relations, joined by "and", "but" or a comma. A
    clause with a value that no concept has, a sentence about anything else, and a part that is no clause are not read.
    Sentences that only give the answer ("The answer is cow.") are left out.
    """
    found = []
    for sentence in re.split(r"(?<=[.!?])\s+", text.strip()):
        plain = " ".join(sentence.lower().strip(" .!?").split())
        if not plain or plain.startswith(("the answer is", "so the answer is")):
            continue
        match = re.match(r"(?:an?|the) (\w+) (.+)", plain)
        if not match or match[1] not in load_world().concepts:
            found.append(Statement(sentence))
            continue
        found += [_read_clause(match[1], clause) for clause in re.split(r",? (?:and|but) |, ", match[2])]
    return found


def _read_clause(concept, clause):
    fact = _fact_of_clause().get(clause)
    return Statement(clause, concept, fact, load_world().fits(concept, fact)) if fact else Statement(clause, concept)


@cache
def _fact_of_clause():
    world = load_world()
    return {world.clause(*fact): fact for facts in world.concepts.values() for fact in facts.items()}


def truth_of(text: str, question: str, answer: str) -> dict[str, float | None] | None:
    """Return how true an explanation is, or None where the question is not one of the world.

    ``states_facts``: 1 if it makes a statement that is read. The others are about texts that do: ``wholly_true``, 1 if
    all of its statements are read and true, and ``true_share``, the share of true ones among those that are read; both
    are None for other texts, which are neither true nor false. ``true_reason``: 1 if it says of `answer` a true fact
    that the question asks.
    """
    try:
        asked = find_key(question)
    except KeyError:
        return None
    statements = read_statements(text)
    read = [one for one in statements if one.true is not None]
    return {"states_facts": float(bool(read)),
            "wholly_true": float(all(one.true for one in statements)) if read else None,
            "true_share": sum(one.true for one in read) / len(read) if read else None,
            "true_reason": float(any(one.true and one.concept == answer and one.fact in asked for one in read))}
