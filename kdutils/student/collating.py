"""From questions to the tensors of one optimiser step: rows of token ids, padding, and what a vocabulary lacks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import TYPE_CHECKING

from kdutils.data.answers import CONCLUSION, answered_right, format_answer, format_conclusion
from kdutils.data.texts import SEPARATOR, count_tokens_before, fold, kept_tokens
from kdutils.errors import StudyError, quoted
from kdutils.student.methods import Method, Row, as_explained, method_of, rows_of, tasks_of, taught_method
from kdutils.student.models import end_token, load_tokenizer
from kdutils.student.protocols import LAYOUTS
from kdutils.student.rows import ChoiceRow, SharedRows, TokenRow, counted_tokens

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedTokenizerBase

PADDED = 1000  # questions whose targets are padded together, see RowFormat: the batch of a data set's map


@dataclass(frozen=True)
class RowFormat:
    """What rows have to fit. Longer sources and targets are cut to `max_source` and `max_target` tokens.

    `kind`: that of the student (models.model_kind). `context`: for how many tokens the model has positions
    (hub.model_context), None for any number. `tag`: where the tag stands, one of methods.TAG_PLACES, or a layout of
    protocols.LAYOUTS. `padding_loss`: padding counts in the loss as in the published code of arXiv 2504.16056
    (cqa.py:314-380): the targets of a task are padded to the longest of each PADDED questions.
    """

    max_source: int
    max_target: int
    kind: str = "seq2seq"
    context: int | None = None
    tag: str = "before"
    padding_loss: bool = False


class EpochRows:
    """The rows of all questions in one epoch, as a map-style dataset; ``self[i]`` is the list of rows of question i.

    `entries`: from tokenize_rows. `ids`: the ids of the questions. Set `epoch` at the beginning of each epoch. Of a
    tuple of n alternatives, such as sampled rationales, each is drawn with probability 1/n, by a hash of seed, id and
    epoch. So a draw does not depend on the order of the questions or on where a training was resumed. Ho et al. (2023,
    Fine-tune-CoT) and Li et al. (2023, SCoTD) train on all samples; one per epoch is a choice of this study, so that
    more samples do not mean more steps.
    """

    def __init__(self, entries: list, ids: Sequence[str], seed: int):
        self.entries, self.ids, self.seed, self.epoch = entries, list(ids), seed, 0

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, i: int) -> list[TokenRow | ChoiceRow]:
        return [self._drawn(entry, self.ids[i]) if isinstance(entry, tuple) else entry for entry in self.entries[i]]

    def _drawn(self, alternatives, key):
        return alternatives[self.draw(key, alternatives[0].task) % len(alternatives)]

    def draw(self, key: str, what: object) -> int:
        """Return a number below 2**64 for the question of the id `key` in this epoch; `what` names what is drawn."""
        text = f"{self.seed}\t{key}\t{self.epoch}\t{what}"
        return int.from_bytes(blake2b(text.encode(), digest_size=8).digest())


def tokenize_rows(tokenizer: PreTrainedTokenizerBase, method: str, parameters: dict, items: list[dict],
                  explained: dict, row_format: RowFormat) -> tuple[list, dict[str, int]]:
    """Return (entries, cuts): the rows of each question as token ids, and how many texts were cut.

    `items`: records of tables.QUESTIONS; `explained`: {question id: see methods.as_explained}. An entry is a list of
    TokenRows, with a tuple of them where a task has alternatives (methods.Task.together: none); for a classifier it is
    a list of one ChoiceRow.
    `cuts` counts the cut ``sources`` and ``targets``. A cut text keeps its end token, a tag at the end of a source, and
    an answer at the end of a target: what is before them is cut.

    Raises StudyError for an answer that does not fit, because a student could never write it, for another choice of a
    soft label that does not, and for a row longer than the model's context.
    """
    for name, limit in (("max_source_tokens", row_format.max_source), ("max_target_tokens", row_format.max_target)):
        if limit < 8:
            raise StudyError(f"{name}: {limit} is too short for any text; give at least 8")
    if row_format.padding_loss and row_format.kind != "seq2seq":
        raise StudyError(f"padding_loss: a {row_format.kind} student pads no targets; set it to false")
    if row_format.kind == "classifier":
        return _choice_rows(tokenizer, method, items, row_format)
    tasks = tasks_of(method, parameters)
    numbers = {task.name: number for number, task in enumerate(tasks)}
    concluding = {task.name for task in tasks if task.concludes}
    together = {numbers[task.name] for task in tasks if task.together}
    says = format_conclusion if concluding else format_answer
    if row_format.tag in LAYOUTS:
        says = taught_method(method, row_format.tag).says
    _check_answers(tokenizer, items, says, row_format.max_target)
    groups = [rows_of(method, parameters, item, explained.get(item["id"]), row_format.tag) for item in items]
    rows = [row for group in groups for row in group]
    sources = _encoded(encode_sources, tokenizer, [row.source for row in rows], row_format.kind)
    targets = _encoded(encode_targets, tokenizer, [_decoded(row) for row in rows])
    given = _given_tokens(tokenizer, rows)
    end, cuts, entries = end_token(tokenizer), {"sources": 0, "targets": 0}, []
    for item, group in zip(items, groups, strict=True):
        of_task = {}
        for row in group:
            source, target = sources[row.source], [*targets[_decoded(row)], end]
            cuts["sources"] += len(source) > row_format.max_source
            too_long = len(target) > row_format.max_target
            cuts["targets"] += too_long
            tail = _answer_tokens(tokenizer, row, target) if row.task in concluding and too_long else 1
            tail = len(target) if numbers[row.task] in together else tail
            _check_answer(tail, row_format.max_target, item,
                          row.target if numbers[row.task] in together else says(item["answer"]))
            source = cut_source(tokenizer, row.source, source, row_format.max_source)
            target = cut(target, row_format.max_target, tail)
            _check_context(len(source), len(target), row_format, item)
            of_task.setdefault(row.task, []).append(TokenRow(
                numbers[row.task], source, target, min(given.get(row, 0), len(target) - tail), row.weight))
        entries.append([one for same in of_task.values() for one in (
            same if len(same) == 1 or same[0].task in together else [tuple(same)])])
    return (_padded_targets(entries, tokenizer.pad_token_id) if row_format.padding_loss else entries), cuts


def _padded_targets(entries, pad):
    """Return entries with targets that end with padding, up to the longest of the task among PADDED questions."""
    padded = []
    for first in range(0, len(entries), PADDED):
        part, longest = entries[first:first + PADDED], {}
        for row in (row for entry in part for alternatives in entry for row in _alternatives(alternatives)):
            longest[row.task] = max(longest.get(row.task, 0), len(row.target))

        def filled(row, longest=longest):
            return replace(row, target=row.target + [pad] * (longest[row.task] - len(row.target)))

        padded += [[tuple(map(filled, one)) if isinstance(one, tuple) else filled(one) for one in entry]
                   for entry in part]
    return padded


def _alternatives(one):
    return one if isinstance(one, tuple) else (one,)


def encode_sources(tokenizer: PreTrainedTokenizerBase, texts: list[str], kind: str) -> list[list[int]]:
    """Return the token ids of source texts as a student of `kind` reads them.

    A causal student reads a separator after the source, and no end token: the target follows.
    """
    if kind != "causal":
        return tokenizer(texts)["input_ids"]
    end = end_token(tokenizer)
    encoded = tokenizer([text + SEPARATOR for text in texts])["input_ids"]
    return [ids[:-1] if ids[-1:] == [end] else ids for ids in encoded]


def encode_targets(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    """Return the token ids of target texts, without the start and end tokens that some tokenizers add."""
    return tokenizer(text_target=texts, add_special_tokens=False)["input_ids"]


# What a vocabulary cannot write

def student_gaps(student: dict, method: str | Method, questions: pd.DataFrame, explained: dict | None = None) -> dict:
    """Return the vocabulary_gaps of a student (arguments of models.load_student); {} for a classifier."""
    if student.get("kind") == "classifier":
        return {}
    tokenizer = load_tokenizer(student.get("tokenizer") or student["model"])
    return vocabulary_gaps(tokenizer, method, questions.to_dict("records"), explained)


def vocabulary_gaps(tokenizer: PreTrainedTokenizerBase, method: str | Method, items: list[dict],
                    explained: dict | None = None) -> dict:
    """Return what a student with this vocabulary cannot write of `items` and `explained` (see tokenize_rows).

    {} if it can write everything, else

    - ``count`` of ``questions``: right answers that change when they are encoded and decoded (apart from case, width
      and spaces). ``wrong``: those of them that always count as wrong, because the decoded sentence, read as a
      prediction, gives another answer;
    - ``choices``: other choices that change; ``examples``: up to three of these texts;
    - ``explanations`` of ``explained``: texts that contain an unknown token.
    """
    asks, unknown = method_of(method), tokenizer.unk_token_id
    says = asks.says
    answers = list(dict.fromkeys(text for item in items for text in [item["answer"], *item["choices"]]))
    written = dict(zip(answers, _written(tokenizer, [says(answer) for answer in answers]), strict=True))
    lost = {answer for answer, text in written.items() if _letters(text) != _letters(says(answer))}
    unread = {item["id"]: not answered_right(asks.read(written[item["answer"]], item["choices"])[0], item)
              for item in items}
    gone = [item for item in items if item["answer"] in lost or unread[item["id"]]]
    learnt = map(as_explained, (explained or {}).values()) if asks.explanation is not None else []
    texts = [text for one in learnt for text in [*one.rationales, *one.counterfactuals.values()] if text]
    ids = encode_targets(tokenizer, texts) if texts and unknown is not None else []
    others = lost - {item["answer"] for item in items}
    gaps = {"count": len(gone), "wrong": sum(unread.values()), "choices": len(others),
            "explanations": sum(unknown in row for row in ids)}
    if not any(gaps.values()):
        return {}
    return {**gaps, "questions": len(items), "explained": len(texts),
            "examples": list(dict.fromkeys([item["answer"] for item in gone] + sorted(others)))[:3]}


def _written(tokenizer, texts):
    """Return what a student that writes the tokens of each text is read as."""
    decoded = tokenizer.batch_decode(encode_targets(tokenizer, texts), skip_special_tokens=True) if texts else []
    return [text.strip() for text in decoded]


def _letters(text):
    return "".join(fold(text).split())


def gap_lines(gaps: dict, name: str = "") -> list[str]:
    """Return sentences on the vocabulary_gaps of the questions of a split `name`; [] for {}."""
    if not gaps:
        return []
    count, wrong = gaps["count"], gaps["wrong"]
    such, lines = "such as " + ", ".join(repr(text[:40]) for text in gaps["examples"]), []
    if count:
        verdict = f"{wrong} of them count{'s' * (wrong == 1)} as wrong" if wrong < count else \
            "it counts as wrong" if count == 1 else "they count as wrong"
        lines.append(f"{count} of {gaps['questions']} {name}questions {'has' if count == 1 else 'have'} an answer that "
                     f"this vocabulary cannot write, {such}; "
                     f"{verdict if wrong else 'what is left of it is still read as right'}.")
    if gaps["choices"]:
        lines.append(f"{gaps['choices']} other choice{'s' * (gaps['choices'] > 1)} cannot be written"
                     f"{'' if count else ', ' + such}.")
    if gaps["explanations"]:
        lines.append(f"{gaps['explanations']} of {gaps['explained']} explanations contain characters that this "
                     "vocabulary does not know; a student cannot learn to write them.")
    return lines


# Rows as token ids

def _encoded(encode, tokenizer, texts, *more):
    """Return {text: token ids}, each text encoded once; equal ids share one object: a fifth of the memory."""
    distinct, shared = list(dict.fromkeys(texts)), {}
    encoded = encode(tokenizer, distinct, *more) if distinct else []
    return {text: [shared.setdefault(token, token) for token in ids]
            for text, ids in zip(distinct, encoded, strict=True)}


def _given_tokens(tokenizer, rows):
    """Return {row with a target prefix: how many tokens of its decoder text are the prefix}."""
    prefixed = [row for row in rows if row.target_prefix]
    places = [len(row.target_prefix) for row in prefixed]
    tokens = count_tokens_before(tokenizer, [_decoded(row) for row in prefixed], places)
    return dict(zip(prefixed, tokens, strict=True))


def _decoded(row: Row) -> str:
    """The whole text of the decoder: prefix and target, encoded as one text."""
    return f"{row.target_prefix} {row.target}" if row.target_prefix else row.target


def _answer_tokens(tokenizer, row, target):
    """Return how many tokens at the end of a concluding target are its answer sentence, end token included."""
    text = _decoded(row)
    return len(target) - count_tokens_before(tokenizer, [text], [text.rindex(CONCLUSION)])[0]


def cut(ids: list[int], limit: int, tail: int = 1) -> list[int]:
    """Return at most `limit` ids: if there are more, the first ones and the last `tail`."""
    return ids if len(ids) <= limit else ids[: limit - tail] + ids[-tail:]


def cut_source(tokenizer: PreTrainedTokenizerBase, text: str, ids: list[int], limit: int) -> list[int]:
    """Return at most `limit` of the `ids` that encode_sources returned for `text`; a tag behind the text is kept."""
    return [ids[place] for place in kept_tokens(tokenizer, text, len(ids), limit)]


def _check_answers(tokenizer, items, sentence: Callable[[str], str], limit):
    texts = [sentence(item["answer"]) for item in items]
    for item, text, ids in zip(items, texts, encode_targets(tokenizer, texts), strict=True):
        _check_answer(len(ids) + 1, limit, item, text)


def _check_answer(tokens, limit, item, text):
    if tokens > limit:
        raise StudyError(f"max_target_tokens: {quoted(text)}, an answer or a choice of question {item['id']!r}, takes "
                         f"{tokens} tokens, more than {limit}; a student could never write it")


def _check_context(source, target, row_format, item):
    needed = source + target if row_format.kind == "causal" else max(source, target)
    if row_format.context is not None and needed > row_format.context:
        raise StudyError(f"question {item['id']!r}: {source} tokens of source and {target} of target are more than the "
                         f"{row_format.context} positions of the model; lower max_source_tokens or max_target_tokens")


def _choice_rows(tokenizer, method, items, row_format):
    if method != "label_only":
        raise StudyError(f"method: '{method}' teaches to write, which a classifier cannot; use label_only with a "
                         "classifier")
    limit = min(row_format.max_source, row_format.context or row_format.max_source)
    rows = [choice_row(tokenizer, item, limit) for item in items]
    return [[row] for row, _ in rows], {"sources": sum(was_cut for _, was_cut in rows), "targets": 0}


def choice_row(tokenizer: PreTrainedTokenizerBase, item: dict, max_source: int) -> tuple[ChoiceRow, bool]:
    """Return (the ChoiceRow of a question, whether its text was cut to `max_source` tokens per pair)."""
    if not item["choices"]:
        raise StudyError(f"question {item['id']!r}: it has no choices, and a classifier can only choose")
    asked = "\n".join(filter(None, [item["question"], item.get("context")]))  # the end is cut if it is too long
    texts = [asked] * len(item["choices"]), list(item["choices"])
    pairs = tokenizer(*texts)
    too_long = max(map(len, pairs["input_ids"])) > max_source
    if too_long:
        needed = max(map(len, tokenizer([""] * len(texts[1]), texts[1])["input_ids"]))
        if needed >= max_source:
            raise StudyError(f"question {item['id']!r}: its longest choice takes {needed} of max_source_tokens "
                             f"({max_source}), so no room is left for the question; raise max_source_tokens")
        pairs = tokenizer(*texts, truncation="only_first", max_length=max_source)
    return ChoiceRow(0, pairs["input_ids"], pairs.get("token_type_ids", []),
                     list(item["choices"]).index(item["answer"])), too_long


class StepCollator:
    """Collates the questions of one step (lists of rows) into ``{"rows": …, "task_tokens": …}``.

    `task_tokens`, (tasks,): the target tokens of each task in the step that count in the loss. The mean of the task's
    loss divides by them. `share`: the rows of a question become SharedRows (for models.shares_tokens).
    """

    def __init__(self, tasks: int, share: bool = False):
        self.tasks, self.share = tasks, share

    def __call__(self, questions: list[list]) -> dict:
        import torch

        rows = [row for question in questions for row in question]
        counts = torch.tensor(counted_tokens(rows, self.tasks), dtype=torch.float64)
        return {"rows": shared(questions) if self.share else rows, "task_tokens": counts}


def shared(questions: Sequence[list[TokenRow]]) -> list[SharedRows]:
    """Return the rows of each question as SharedRows; questions without rows are left out."""
    return [SharedRows(rows) for rows in questions if rows]
