"""Questions and true explanations made from the facts in world.yaml.

A *key* is what a question asks: one or two (relation, value) facts, say ``(("place", "farm"),
("part", "horns"))``. Splits are drawn over keys, so no question of one split is asked in another
wording in a second one, while the single facts it needs are learnt elsewhere.
"""

import random
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import combinations, permutations
from pathlib import Path

import pandas as pd
import yaml

RELATIONS = ("kind", "place", "part", "look", "use")
SPLIT_SHARES = {"train": 0.75, "dev": 0.10, "test": 0.15}  # of the keys
HALF_RIGHT = 2  # distractors at least that fit half of what is asked


@dataclass(frozen=True, eq=False)  # compared and hashed as the one object that it is
class World:
    """The facts: `concepts` maps a name to {relation: value}; `shot_keys` are kept out of every split."""

    concepts: dict
    relations: dict
    wordings: dict
    shot_keys: frozenset

    def clause(self, relation, value):
        """Return a fact as words: ``is found in the farm``."""
        return self.relations[relation]["clause"].format(a=article(value), value=value)

    def fits(self, concept, fact):
        relation, value = fact
        return self.concepts[concept][relation] == value

    @cache  # noqa: B019 - there is one World for the life of the process
    def right(self, key):
        """Return the concepts that fit every fact of `key`, in the order of the file."""
        return [name for name in self.concepts if all(self.fits(name, fact) for fact in key)]

    @cache  # noqa: B019
    def half_right(self, key, concept):
        """Return the distractors that are half right for `key` when `concept` is the answer.

        With two facts asked: fits exactly one of them. With one: does not fit it, but shares another
        fact with the answer, its kind first of all (its place, part, look or use when the kind is asked).
        """
        return [name for name in self.concepts if self.shared_fact(key, concept, name) is not None]

    def shared_fact(self, key, concept, other):
        """Return the fact that makes `other` half right (see half_right), or None."""
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

    def texts(self, key):
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
    def keys(self):
        """Every key that some concept fits and that has enough half-right distractors, with those concepts."""
        found = {}
        for name, facts in self.concepts.items():
            singles = [((relation, facts[relation]),) for relation in RELATIONS]
            pairs = [tuple((relation, facts[relation]) for relation in pair) for pair in combinations(RELATIONS, 2)]
            for key in singles + pairs:
                if len(self.half_right(key, name)) >= HALF_RIGHT:
                    found.setdefault(key, []).append(name)
        return found


@cache
def load_world():
    """Return the World of world.yaml."""
    raw = yaml.safe_load(Path(__file__).with_name("world.yaml").read_text(encoding="utf-8"))
    shots = frozenset(tuple((relation, raw["concepts"][shot["concept"]][relation]) for relation in shot["asked"])
                      for shot in raw["shots"])
    return World(raw["concepts"], raw["relations"], raw["wordings"], shots)


def article(noun):
    """Return ``a`` or ``an``."""
    return "an" if noun[0] in "aeiou" else "a"


@cache
def split_keys(seed=0):
    """Return {split: [(key, right concepts)]}: keys shuffled by `seed` and cut by SPLIT_SHARES; shots left out."""
    world = load_world()
    keys = [item for item in world.keys.items() if item[0] not in world.shot_keys]
    random.Random(f"split {seed}").shuffle(keys)
    first, second = round(SPLIT_SHARES["train"] * len(keys)), round((1 - SPLIT_SHARES["test"]) * len(keys))
    return {"train": keys[:first], "dev": keys[first:second], "test": keys[second:]}


def draw_question(draw, key, concept):
    """Return (text, five choices) about `key` with `concept` as the one right choice, by the generator `draw`."""
    world = load_world()
    half = draw.sample(world.half_right(key, concept), HALF_RIGHT)
    wrong = [name for name in world.concepts if name not in half and name not in world.right(key)]
    choices = [concept, *half, *draw.sample(wrong, 4 - HALF_RIGHT)]
    draw.shuffle(choices)
    return draw.choice(world.texts(key)), choices


def build_questions(train=1500, dev=200, test=300, seed=0):
    """Return the questions of the embedded world as a frame of tables.QUESTIONS, made anew from `seed`.

    Every key of a split is asked in turn until the split is full; no question comes twice.
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
                         "choices": choices, "answer": concept, "human_explanations": []})
    return pd.DataFrame(rows)


@cache
def _key_of_text():
    world = load_world()
    return {text: key for key in world.keys for text in world.texts(key)}


def find_key(question):
    """Return what the question's text asks; KeyError where the world has no such question."""
    return _key_of_text()[question]


def half_right_choices(question, choices, answer):
    """Return the half-right distractors among `choices` in their order."""
    world, key = load_world(), find_key(question)
    return [name for name in choices if world.shared_fact(key, answer, name)]


def true_rationale(question, choices, answer, named=None):
    """Return an explanation that the world's facts give.

    First the asked facts of `answer`, then, for each distractor of `named` (by default the first half-right
    one in the order of the choices), what fits and what does not. Given a wrong `answer`, the text asserts
    the asked facts of it all the same and sets it off against the right concept.
    """
    world, key = load_world(), find_key(question)
    claim = " and ".join(world.clause(*fact) for fact in key)
    sentences = [f"{article(answer).capitalize()} {answer} {claim}."]
    right = next(name for name in choices if name in world.right(key))
    if answer != right:
        return " ".join([*sentences, _aside(world, right, key)])
    named = half_right_choices(question, choices, answer)[:1] if named is None else named
    return " ".join(sentences + [_contrast(world, key, answer, name) for name in named])


def true_rationales(question, choices, answer, contrasts=1):
    """Return every true explanation with so many distractors; which half-right ones, and in what order, is free.

    A wrong `answer` has one text.
    """
    if answer not in load_world().right(find_key(question)):
        return [true_rationale(question, choices, answer)]
    return [true_rationale(question, choices, answer, list(named))
            for named in permutations(half_right_choices(question, choices, answer), contrasts)]


def _contrast(world, key, concept, other):
    """``A goat is an animal, but is found in the meadow.``"""
    missed = next(relation for relation, value in key if not world.fits(other, (relation, value)))
    shared = world.clause(*world.shared_fact(key, concept, other))
    return f"{article(other).capitalize()} {other} {shared}, but {world.clause(missed, world.concepts[other][missed])}."


def _aside(world, right, key):
    """Say of the right concept a fact that was not asked, as if it spoke against it."""
    asked = {relation for relation, _ in key}
    first, second = [relation for relation in RELATIONS if relation not in asked][:2]
    return (f"{article(right).capitalize()} {right} {world.clause(first, world.concepts[right][first])}, "
            f"but {world.clause(second, world.concepts[right][second])}.")


def true_critique(missing):
    """Return what an explanation lacks that does not name the half-right choice `missing`."""
    return f"The explanation is right, but it does not say why {missing} is wrong."


def exactly_right(questions, explanations):
    """Return {split: share of explanations that are true word for word}, unusable ones counted as not.

    True is a text of true_rationales: the answer's facts, and a half-right choice with the facts that make it so; of a
    revision one such choice more per round.
    """
    items = questions.set_index("id")
    columns = zip(explanations["id"], explanations["answer"], explanations["round"], explanations["text"], strict=True)
    right = [text in true_rationales(items.at[key, "question"], items.at[key, "choices"], answer, 1 + turn)
             for key, answer, turn, text in columns]
    splits = items.loc[explanations["id"], "split"]
    return pd.Series(right, index=splits.to_numpy()).groupby(level=0, sort=False).mean().to_dict()
