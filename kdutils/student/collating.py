"""From questions to the tensors of one optimiser step: rows of token ids, padding, and what a vocabulary lacks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING

from kdutils.data.answers import CONCLUSION, format_answer, format_conclusion, is_right, parse_answer
from kdutils.data.texts import count_tokens_before, fold
from kdutils.errors import StudyError
from kdutils.student.methods import Row, as_explained, method_of, rows_of, tasks_of
from kdutils.student.models import end_token, load_tokenizer

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from transformers import PreTrainedTokenizerBase

IGNORED = -100  # the label of what does not count in the loss
SEPARATOR = "\n"  # between source and target of a causal student, which reads both as one text


@dataclass(frozen=True)
class TokenRow:
    """A Row as token ids; `task` is the number of its task in the method's order.

    `target`: the ids of target prefix and target, end token included. The first `given` ids are the prefix, which does
    not count in the loss.
    """

    task: int
    source: list[int]
    target: list[int]
    given: int = 0

    @property
    def counted(self) -> int:
        """How many of the target's tokens count in the loss."""
        return len(self.target) - self.given


@dataclass(frozen=True)
class ChoiceRow:
    """A question for a classifier: the token ids (and type ids) of each pair of question and choice.

    `gold` is the place of the right choice. A question counts as one target token, so the loss of its task is a mean
    over questions.
    """

    task: int
    pairs: list[list[int]]
    types: list[list[int]]
    gold: int
    counted = 1
    given = 0

    @property
    def source(self) -> list[int]:
        """The tokens of all pairs: what the question takes of a token budget."""
        return [token for pair in self.pairs for token in pair]

    @property
    def target(self) -> list[int]:
        """The place of the right choice, as the one target token."""
        return [self.gold]


@dataclass(frozen=True)
class RowFormat:
    """What rows have to fit. Longer sources and targets are cut to `max_source` and `max_target` tokens.

    `kind`: that of the student (models.model_kind). `context`: for how many tokens the model has positions
    (hub.model_context), None for any number.
    """

    max_source: int
    max_target: int
    kind: str = "seq2seq"
    context: int | None = None


class EpochRows:
    """The rows of all questions in one epoch, as a map-style dataset; ``self[i]`` is the list of rows of question i.

    `entries`: from tokenize_rows. `ids`: the ids of the questions. Set `epoch` at the beginning of each epoch. Of a
    tuple of alternatives one is drawn, all with the same probability, by a hash of seed, id and epoch. So a draw does
    not depend on the order of the questions or on where a training was resumed.
    """

    def __init__(self, entries: list, ids: Sequence[str], seed: int):
        self.entries, self.ids, self.seed, self.epoch = entries, list(ids), seed, 0

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, i: int) -> list[TokenRow | ChoiceRow]:
        return [self._drawn(entry, self.ids[i]) if isinstance(entry, tuple) else entry for entry in self.entries[i]]

    def _drawn(self, alternatives, key):
        text = f"{self.seed}\t{key}\t{self.epoch}\t{alternatives[0].task}"
        return alternatives[int.from_bytes(blake2b(text.encode(), digest_size=8).digest()) % len(alternatives)]


def tokenize_rows(tokenizer: PreTrainedTokenizerBase, method: str, parameters: dict, items: list[dict],
                  explained: dict, row_format: RowFormat) -> tuple[list, dict[str, int]]:
    """Return (entries, cuts): the rows of each question as token ids, and how many texts were cut.

    `items`: records of tables.QUESTIONS; `explained`: {question id: see methods.as_explained}. An entry is a list of
    TokenRows, with a tuple of them where a task has alternatives; for a classifier it is a list of one ChoiceRow.
    `cuts` counts the cut ``sources`` and ``targets``. A cut text keeps its end token, and an answer at the end of a
    target: the rationale before it is cut.

    Raises StudyError for an answer that does not fit, because a student could never write it, and for a row longer
    than the model's context.
    """
    for name, limit in (("max_source_tokens", row_format.max_source), ("max_target_tokens", row_format.max_target)):
        if limit < 8:
            raise StudyError(f"{name}: {limit} is too short for any text; give at least 8")
    if row_format.kind == "classifier":
        return _choice_rows(tokenizer, method, items, row_format)
    tasks = tasks_of(method, parameters)
    numbers = {task.name: number for number, task in enumerate(tasks)}
    concluding = {task.name for task in tasks if task.concludes}
    _check_answers(tokenizer, items, format_conclusion if concluding else format_answer, row_format.max_target)
    groups = [rows_of(method, parameters, item, explained.get(item["id"])) for item in items]
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
            _check_answer(tail, row_format.max_target, item)
            source, target = cut(source, row_format.max_source), cut(target, row_format.max_target, tail)
            _check_context(len(source), len(target), row_format, item)
            of_task.setdefault(row.task, []).append(TokenRow(
                numbers[row.task], source, target, min(given.get(row, 0), len(target) - tail)))
        entries.append([same[0] if len(same) == 1 else tuple(same) for same in of_task.values()])
    return entries, cuts


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

def student_gaps(student: dict, method: str, questions: pd.DataFrame, explained: dict | None = None) -> dict:
    """Return the vocabulary_gaps of a student (arguments of models.load_student); {} for a classifier."""
    if student.get("kind") == "classifier":
        return {}
    tokenizer = load_tokenizer(student.get("tokenizer") or student["model"])
    return vocabulary_gaps(tokenizer, method, questions.to_dict("records"), explained)


def vocabulary_gaps(tokenizer: PreTrainedTokenizerBase, method: str, items: list[dict],
                    explained: dict | None = None) -> dict:
    """Return what a student with this vocabulary cannot write of `items` and `explained` (see tokenize_rows).

    {} if it can write everything, else

    - ``count`` of ``questions``: right answers that change when they are encoded and decoded (apart from case, width
      and spaces). ``wrong``: those of them that always count as wrong, because the decoded sentence, read as a
      prediction, gives another answer;
    - ``choices``: other choices that change; ``examples``: up to three of these texts;
    - ``explanations`` of ``explained``: texts that contain an unknown token.
    """
    says, unknown = method_of(method).says, tokenizer.unk_token_id
    answers = list(dict.fromkeys(text for item in items for text in [item["answer"], *item["choices"]]))
    written = dict(zip(answers, _written(tokenizer, [says(answer) for answer in answers]), strict=True))
    lost = {answer for answer, text in written.items() if _letters(text) != _letters(says(answer))}
    unread = {item["id"]: not is_right(parse_answer(written[item["answer"]], item["choices"])[0], item["answer"],
                                       item["choices"]) for item in items}
    gone = [item for item in items if item["answer"] in lost or unread[item["id"]]]
    learnt = map(as_explained, (explained or {}).values()) if method_of(method).explanation is not None else []
    texts = [text for one in learnt for text in [one.rationale, *one.counterfactuals.values()] if text]
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
        verdict = "they count as wrong" if wrong == count else f"{wrong} of them count as wrong"
        lines.append(f"{count} of {gaps['questions']} {name}questions have an answer that this vocabulary cannot "
                     f"write, {such}; {verdict if wrong else 'what is left of it is still read as right'}.")
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


def _check_answers(tokenizer, items, sentence: Callable[[str], str], limit):
    for item, ids in zip(items, encode_targets(tokenizer, [sentence(item["answer"]) for item in items]), strict=True):
        _check_answer(len(ids) + 1, limit, item)


def _check_answer(tokens, limit, item):
    if tokens > limit:
        raise StudyError(f"max_target_tokens: the answer of question {item['id']!r} takes {tokens} tokens, "
                         f"more than {limit}; a student could never write it")


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
    texts = [item["question"]] * len(item["choices"]), list(item["choices"])
    pairs = tokenizer(*texts)
    too_long = max(map(len, pairs["input_ids"])) > max_source
    if too_long:
        pairs = tokenizer(*texts, truncation="only_first", max_length=max_source)
    return ChoiceRow(0, pairs["input_ids"], pairs.get("token_type_ids", []),
                     list(item["choices"]).index(item["answer"])), too_long


# Tensors

def pad_chunk(rows: list, pad: int, start: int | None, causal: bool = False) -> dict[str, torch.Tensor]:
    """Return the tensors of a chunk of rows, padded on the right: ids, mask and labels, (rows, length); task, (rows,).

    Encoder-decoder: `decoder_input_ids` are the targets moved right by one, after the start token; ``labels[:, i]`` is
    the token to write at decoder position i. Causal: `input_ids` are source and target as one text, and
    ``labels[:, i]`` is the token after position i; the labels are already moved, a loss must not move them again.
    Sources, target prefixes and padding have the label IGNORED. Padding is known by the lengths, so an end token counts
    even where it is also the padding token. For ChoiceRows see pad_choices.
    """
    import torch

    if isinstance(rows[0], ChoiceRow):
        return pad_choices(rows, pad)
    labels = [[IGNORED] * row.given + row.target[row.given:] for row in rows]
    task = torch.tensor([row.task for row in rows])
    if causal:
        labels = [[IGNORED] * (len(row.source) - 1) + known + [IGNORED]
                  for row, known in zip(rows, labels, strict=True)]
        return {**pad_inputs([row.source + row.target for row in rows], pad), "labels": padded(labels, IGNORED),
                "task": task}
    return {**pad_inputs([row.source for row in rows], pad),
            "decoder_input_ids": padded([[start, *row.target[:-1]] for row in rows], pad),
            "labels": padded(labels, IGNORED), "task": task}


def pad_choices(rows: list[ChoiceRow], pad: int) -> dict[str, torch.Tensor]:
    """Return the tensors of a chunk of ChoiceRows, for models.choice_losses.

    `input_ids`, `attention_mask` and, if the model takes them, `token_type_ids`: (pairs, length), the pairs of all
    questions in order; `choices`: the number of pairs of each question, (questions,); `labels`: the place of the right
    pair, (questions,); `task`, (questions,).
    """
    import torch

    types = [ids for row in rows for ids in row.types]
    return {**pad_inputs([pair for row in rows for pair in row.pairs], pad),
            **({"token_type_ids": padded(types, 0)} if types else {}),
            "choices": torch.tensor([len(row.pairs) for row in rows]),
            "labels": torch.tensor([row.gold for row in rows]), "task": torch.tensor([row.task for row in rows])}


def pad_inputs(lists: list[list[int]], pad: int) -> dict[str, torch.Tensor]:
    """Return `input_ids` and `attention_mask` of lists of token ids, (lists, longest), padded on the right."""
    return {"input_ids": padded(lists, pad), "attention_mask": padded([[1] * len(ids) for ids in lists], 0)}


def padded(lists: list[list[int]], filler: int) -> torch.Tensor:
    """Return lists of numbers as one tensor, (lists, longest), filled up on the right."""
    import torch

    width = max(map(len, lists))
    return torch.tensor([numbers + [filler] * (width - len(numbers)) for numbers in lists])


class StepCollator:
    """Collates the questions of one step (lists of rows) into ``{"rows": …, "task_tokens": …}``.

    `task_tokens`, (tasks,): the target tokens of each task in the step that count in the loss. The mean of the task's
    loss divides by them.
    """

    def __init__(self, tasks: int):
        self.tasks = tasks

    def __call__(self, questions: list[list]) -> dict:
        import torch

        rows = [row for question in questions for row in question]
        counts = [sum(row.counted for row in rows if row.task == task) for task in range(self.tasks)]
        return {"rows": rows, "task_tokens": torch.tensor(counts, dtype=torch.float64)}
