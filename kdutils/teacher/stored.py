"""Teachers that use the store of completions: one that asks for what is missing, and one that only counts it."""

from dataclasses import dataclass

from kdutils.teacher.completion import TOP_TOKENS, Completion, Decoding, Keep, Progress, Teacher
from kdutils.teacher.store import Request, Store

UNWRITTEN = "Unknown yet. This text is not written yet."  # usable as an answer and as an explanation in later prompts


class StoredTeacher:
    """A teacher behind a store: it is asked only for missing completions, and each new one is stored at once.

    `asked`: the number of completions that the teacher wrote now. `kept`: the number that the store had.
    `prompt_tokens` and `completion_tokens`: tokens of the new completions, where the teacher reports them.
    """

    def __init__(self, teacher: Teacher, store: Store) -> None:
        self.teacher, self.store, self.identity = teacher, store, teacher.identity
        self.asked = self.kept = self.prompt_tokens = self.completion_tokens = 0

    def complete(self, prompts: list[str], decoding: Decoding, progress: Progress | None = None,
                 keep: Keep | None = None) -> list[Completion]:
        """Return one Completion per prompt, in their order (see completion.Teacher)."""
        return self._answer([Request(self.identity, prompt, decoding) for prompt in prompts], progress, keep)

    def contrast(self, prompts: list[str], against: list[str], decoding: Decoding, strength: float = 0.5,
                 progress: Progress | None = None, keep: Keep | None = None) -> list[Completion]:
        """Return one Completion per prompt, decoded in contrast to the prompt beside it in `against`."""
        return self._answer([Request(self.identity, prompt, decoding, "contrast",
                                     {"against": other, "strength": strength})
                             for prompt, other in zip(prompts, against, strict=True)], progress, keep)

    def score(self, prompts: list[str], continuations: list[str], progress: Progress | None = None,
              keep: Keep | None = None) -> list[Completion]:
        """Return log p of the tokens of a text behind each prompt (see completion.Teacher); prompts may be repeated."""
        return self._answer([Request(self.identity, prompt, Decoding(1), "score", {"continuation": text})
                             for prompt, text in zip(prompts, continuations, strict=True)], progress, keep)

    def first_tokens(self, prompts: list[str], progress: Progress | None = None,
                     keep: Keep | None = None) -> list[Completion]:
        """Return the most probable first tokens of each answer of a chat on a server (ServedTeacher.first_tokens)."""
        return self._answer([Request(self.identity, prompt, Decoding(1), "first_tokens", {"top": TOP_TOKENS})
                             for prompt in prompts], progress, keep)

    def count_tokens(self, prompts: list[str]) -> list[int]:
        """Return the number of tokens of each prompt."""
        return self.teacher.count_tokens(prompts)

    def _answer(self, requests, progress, keep):
        distinct = {request.key: request for request in requests}
        found = self.store.get(distinct)
        there = len(found)
        self.kept += there
        if found and keep:
            keep([(distinct[key].prompt, done) for key, done in found.items()])
        if found and progress:
            progress(there, len(distinct))
        missing = [request for key, request in distinct.items() if key not in found]
        while missing:  # repeated where one prompt has several contrasts or texts, because `keep` names only prompts
            turn = {}
            for request in missing:
                turn.setdefault(request.prompt, request)
            missing = [request for request in missing if turn[request.prompt] is not request]
            asked = list(turn.values())
            reports = {"progress": _shifted(progress, there, len(distinct)) if progress else None,
                       "keep": lambda pairs, turn=turn: self._keep(turn, pairs, keep)}
            done = self._ask(asked, **reports)
            self._keep(turn, list(zip([request.prompt for request in asked], done, strict=True)), keep)
            there += len(asked)
        found = self.store.get(distinct)  # not the text just written: another process may have stored its own first
        return [found[request.key] for request in requests]

    def _ask(self, requests, **reports):
        """Return the teacher's completions of `requests`, which differ in nothing but their prompts."""
        one, prompts = requests[0], [request.prompt for request in requests]
        if one.kind == "complete":
            return self.teacher.complete(prompts, one.decoding, **reports)
        if one.kind == "first_tokens":
            return self.teacher.first_tokens(prompts, **reports)
        if one.kind == "score":
            return self.teacher.score(prompts, [request.options["continuation"] for request in requests], **reports)
        against = [request.options["against"] for request in requests]
        return self.teacher.contrast(prompts, against, one.decoding, one.options["strength"], **reports)

    def _keep(self, turn, pairs, keep):
        """Store the pairs that are still in `turn`, and remove them from it, so that each counts once."""
        new = [(prompt, done) for prompt, done in pairs if prompt in turn]
        self.store.put([(turn.pop(prompt), done) for prompt, done in new])
        self.asked += len(new)
        self.prompt_tokens += sum(done.prompt_tokens or 0 for _, done in new)
        self.completion_tokens += sum(done.completion_tokens or 0 for _, done in new)
        if new and keep:
            keep(new)


@dataclass(frozen=True)
class Plan:
    """Completions `stored` and `to_ask`, with the cost of the latter: `prompt_tokens` and at most `new_tokens`."""

    stored: int = 0
    to_ask: int = 0
    prompt_tokens: int = 0
    new_tokens: int = 0

    def __str__(self) -> str:
        kept = f"{self.stored} of {self.stored + self.to_ask} completions are in the store"
        return f"{kept}; {self.to_ask} to ask for, {self.prompt_tokens} prompt tokens and at most {self.new_tokens} new"


class PlanningTeacher(StoredTeacher):
    """A teacher that is never asked: `plan` counts the completions that the store lacks.

    Their text is UNWRITTEN, their finish reason "planned". So a prompting that is run with this teacher costs nothing
    and shows the cost of the real run. A prompt that contains an unwritten text counts as a completion to ask for, with
    the tokens of its known part. Of a contrast the tokens of both prompts count. `stored`: {key: Completion} of those
    that the store has.
    """

    def __init__(self, teacher: Teacher, store: Store) -> None:
        super().__init__(teacher, store)
        self.plan, self.stored, self._counted = Plan(), {}, set()

    def _answer(self, requests, progress, keep):
        distinct = {request.key: request for request in requests}
        done = self.store.get(distinct)
        self.stored |= done
        stored = len(done.keys() - self._counted)
        missing = {key: request for key, request in distinct.items() if key not in done}
        texts = [(key, text) for key, request in missing.items()
                 for text in (request.prompt, *filter(None, [request.options.get("against")]))]
        tokens = dict.fromkeys(missing, 0)
        for (key, _), count in zip(texts, self.teacher.count_tokens([text for _, text in texts]), strict=True):
            tokens[key] += count
        new = missing.keys() - self._counted
        self._counted |= distinct.keys()
        self.plan = Plan(self.plan.stored + stored, self.plan.to_ask + len(new),
                         self.plan.prompt_tokens + sum(tokens[key] for key in new),
                         self.plan.new_tokens + sum(missing[key].decoding.max_new_tokens for key in new))
        done |= {key: Completion(UNWRITTEN, "planned", tokens[key], 0) for key in missing}
        return [done[request.key] for request in requests]


def _shifted(progress, there, total):
    return lambda done, _: progress(there + done, total)
