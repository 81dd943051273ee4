"""From questions to the tensors of one optimiser step.

All rows of all tasks of a step are pooled, ordered by length whatever their task, and cut into chunks
under a budget of padded tokens. How a step is cut changes its cost and never its loss (trainer.py).
"""

from dataclasses import dataclass
from hashlib import blake2b

from kdutils.data.answers import CONCLUSION, format_answer, format_conclusion, is_right, parse_answer
from kdutils.data.texts import count_tokens_before, fold
from kdutils.errors import StudyError
from kdutils.student.methods import as_explained, method_of, rows_of, tasks_of
from kdutils.student.models import end_token

IGNORED = -100  # the label that no loss counts
SEPARATOR = "\n"  # between source and target of a causal student, which reads both as one text


@dataclass(frozen=True)
class TokenRow:
    """A row as token ids: `task` is the index of its task in the method's order.

    `target` holds the ids of the target prefix and of the target, end token included; no loss is due on the first
    `given` of them, which the decoder is forced through.
    """

    task: int
    source: list
    target: list
    given: int = 0

    @property
    def counted(self):
        """How many of the target's tokens count in the loss."""
        return len(self.target) - self.given


@dataclass(frozen=True)
class ChoiceRow:
    """A question for a classifier: the token ids of each (question, choice) pair; `gold` is the place of the answer.

    In a step it counts as one target token, so the loss of its task is a mean over questions.
    """

    task: int
    pairs: list
    types: list
    gold: int
    counted = 1
    given = 0

    @property
    def source(self):
        return [token for pair in self.pairs for token in pair]

    @property
    def target(self):
        return [self.gold]


class EpochRows:
    """The rows of every question as a map-style dataset of torch; set its `epoch` at each epoch's beginning.

    `entries`: what tokenize_rows returned; `ids`: the ids of the questions. ``self[i]`` is the list of rows of
    question i. Where an entry holds a tuple of alternatives, one is drawn, each equally likely, from a hash of seed,
    id and epoch: the draw depends neither on the order of the questions nor on where a training was resumed.
    """

    def __init__(self, entries, ids, seed):
        self.entries, self.ids, self.seed, self.epoch = entries, list(ids), seed, 0

    def __len__(self):
        return len(self.entries)

    def __getitem__(self, i):
        return [self._drawn(entry, self.ids[i]) if isinstance(entry, tuple) else entry for entry in self.entries[i]]

    def _drawn(self, alternatives, key):
        text = f"{self.seed}\t{key}\t{self.epoch}\t{alternatives[0].task}"
        return alternatives[int.from_bytes(blake2b(text.encode(), digest_size=8).digest()) % len(alternatives)]


def tokenize_rows(tokenizer, method, parameters, items, explained, max_source, max_target, kind="seq2seq",
                  context=None):
    """Return (entries, cuts): each question's rows as token ids, tokenised once and kept.

    `items`: records of tables.QUESTIONS; `explained`: {question id: Explained, or a rationale as text, or None};
    `kind` and `context`: models.model_kind and sources.model_context of the student. An entry is a list of TokenRows,
    with a tuple of them where a task has alternatives; for a classifier it is a list of one ChoiceRow.

    A source longer than `max_source` or a target longer than `max_target` tokens is cut and counted in `cuts`. Its
    end token is kept, and so is an answer that ends a target: the rationale before it is cut. Raises StudyError when
    an answer does not fit, since a student could then never write it, and when a row is longer than the context.
    """
    for name, limit in (("max_source_tokens", max_source), ("max_target_tokens", max_target)):
        if limit < 8:
            raise StudyError(f"{name}: {limit} is too short for any text; give at least 8")
    if kind == "classifier":
        return _choice_rows(tokenizer, method, items, max_source, context)
    tasks = tasks_of(method, parameters)
    numbers = {task.name: number for number, task in enumerate(tasks)}
    concluding = {task.name for task in tasks if task.concludes}
    _check_answers(tokenizer, items, format_conclusion if concluding else format_answer, max_target)
    groups = [rows_of(method, parameters, item, explained.get(item["id"])) for item in items]
    rows = [row for group in groups for row in group]
    sources = _encoded(encode_sources, tokenizer, [row.source for row in rows], kind)
    targets = _encoded(encode_targets, tokenizer, [_decoded(row) for row in rows])
    prefixed = [row for row in rows if row.target_prefix]
    given = dict(zip(prefixed, count_tokens_before(tokenizer, [_decoded(row) for row in prefixed],
                                             [len(row.target_prefix) for row in prefixed]), strict=True))
    end, cuts, entries = end_token(tokenizer), {"sources": 0, "targets": 0}, []
    for item, group in zip(items, groups, strict=True):
        found = {}
        for row in group:
            source, target = sources[row.source], [*targets[_decoded(row)], end]
            tail = _answer_tokens(tokenizer, row, target) if row.task in concluding and len(target) > max_target else 1
            _check_answer(tail, max_target, item)
            cuts["sources"] += len(source) > max_source
            cuts["targets"] += len(target) > max_target
            source, target = cut(source, max_source), cut(target, max_target, tail)
            _check_context(len(source), len(target), kind, context, item)
            found.setdefault(row.task, []).append(TokenRow(
                numbers[row.task], source, target, min(given.get(row, 0), len(target) - tail)))
        entries.append([same[0] if len(same) == 1 else tuple(same) for same in found.values()])
    return entries, cuts


def encode_sources(tokenizer, texts, kind):
    """Return the token ids of source texts as a student of `kind` reads them.

    A causal student reads a separator behind the source and no end token: it is to go on with the target.
    """
    if kind != "causal":
        return tokenizer(texts)["input_ids"]
    end = end_token(tokenizer)
    encoded = tokenizer([text + SEPARATOR for text in texts])["input_ids"]
    return [ids[:-1] if ids[-1:] == [end] else ids for ids in encoded]


def encode_targets(tokenizer, texts):
    """Return the token ids of target texts, without the start and end tokens that some tokenizers add."""
    return tokenizer(text_target=texts, add_special_tokens=False)["input_ids"]


def vocabulary_gaps(tokenizer, method, items, explained=None):
    """Return what a student of this vocabulary cannot write of `items` (as of tokenize_rows); {} where it can all.

    ``count`` of ``questions``: right answers that do not come back from their tokens, case, width and spaces aside.
    ``wrong``: of these, those that count as wrong whatever the student learns, since what comes back of their sentence,
    read as a prediction is, is not the answer. ``choices``: other choices that do not come back. ``examples``: up to
    three such texts. ``explanations``: texts of ``explained`` that hold an unknown token.
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


def gap_lines(gaps, name=""):
    """Return the sentences that say what vocabulary_gaps returned of questions of a split `name`; [] for {}."""
    if not gaps:
        return []
    count, wrong = gaps["count"], gaps["wrong"]
    such, lines = "such as " + ", ".join(repr(text[:40]) for text in gaps["examples"]), []
    if count:
        verdict = "they count as wrong" if wrong == count else f"{wrong} of them count as wrong"
        lines.append(f"{count} of {gaps['questions']} {name}questions have an answer that this vocabulary cannot "
                     f"write, {such}; {verdict if wrong else 'what is left of it is still read as right'}.")
    if gaps["choices"]:
        which = "choice that is" if gaps["choices"] == 1 else "choices that are"
        lines.append(f"{gaps['choices']} {which} no answer cannot be written{'' if count else ', ' + such}.")
    if gaps["explanations"]:
        lines.append(f"{gaps['explanations']} of {gaps['explained']} explanations hold signs that this vocabulary does "
                     "not know; a student cannot learn to write these.")
    return lines


def _encoded(encode, tokenizer, texts, *more):
    """Return {text: token ids}, each text encoded once; equal ids are one object, a fifth of the memory."""
    distinct, shared = list(dict.fromkeys(texts)), {}
    encoded = encode(tokenizer, distinct, *more) if distinct else []
    return {text: [shared.setdefault(token, token) for token in ids]
            for text, ids in zip(distinct, encoded, strict=True)}


def _decoded(row):
    """The whole text that the decoder sees: prefix and target as one, so that the tokens are those of one text."""
    return f"{row.target_prefix} {row.target}" if row.target_prefix else row.target


def _answer_tokens(tokenizer, row, target):
    """Return how many tokens at the end of a concluding target are its answer sentence, end token included."""
    text = _decoded(row)
    return len(target) - count_tokens_before(tokenizer, [text], [text.rindex(CONCLUSION)])[0]


def cut(ids, limit, tail=1):
    """Return at most `limit` ids: where there are more, the first ones and the last `tail`."""
    return ids if len(ids) <= limit else ids[: limit - tail] + ids[-tail:]


def _check_answers(tokenizer, items, says, limit):
    for item, ids in zip(items, encode_targets(tokenizer, [says(item["answer"]) for item in items]), strict=True):
        _check_answer(len(ids) + 1, limit, item)


def _check_answer(tokens, limit, item):
    if tokens > limit:
        raise StudyError(f"max_target_tokens: the answer of question {item['id']!r} takes {tokens} tokens, "
                         f"more than {limit}; a student could never write it")


def _check_context(source, target, kind, context, item):
    needed = source + target if kind == "causal" else max(source, target)
    if context is not None and needed > context:
        raise StudyError(f"question {item['id']!r}: {source} tokens of source and {target} of target are more than the "
                         f"{context} that the model can place; lower max_source_tokens or max_target_tokens")


def _choice_rows(tokenizer, method, items, max_source, context):
    if method != "label_only":
        raise StudyError(f"method: '{method}' teaches to write, which a classifier cannot; it learns label_only alone")
    if context is not None:
        max_source = min(max_source, context)
    rows = [choice_row(tokenizer, item, max_source) for item in items]
    return [[row] for row, _ in rows], {"sources": sum(cuts for _, cuts in rows), "targets": 0}


def choice_row(tokenizer, item, max_source):
    """Return (the ChoiceRow of a question, whether its text was cut to `max_source` tokens a pair)."""
    if not item["choices"]:
        raise StudyError(f"question {item['id']!r}: it has no choices, and a classifier can only choose")
    texts = [item["question"]] * len(item["choices"]), list(item["choices"])
    pairs = tokenizer(*texts)
    too_long = max(map(len, pairs["input_ids"])) > max_source
    if too_long:
        pairs = tokenizer(*texts, truncation="only_first", max_length=max_source)
    return ChoiceRow(0, pairs["input_ids"], pairs.get("token_type_ids", []),
                     list(item["choices"]).index(item["answer"])), too_long


def pad_chunk(rows, pad, start, causal=False):
    """Return the tensors of a chunk, padded on the right: ids, masks and labels, (rows, length); task, (rows,).

    For an encoder-decoder, `decoder_input_ids` are the targets moved right by one behind the start token, and
    ``labels[:, i]`` is what the decoder is to write at its position i. Of a causal student, `input_ids` are source and
    target as one text and ``labels[:, i]`` is the token that position i is to predict, that is the one after it: the
    labels are moved already, a loss that moves them once more would be wrong. Labels are IGNORED on sources, on
    what a target has given, and on padding, which is told by lengths: the end token counts even where it is also
    the padding token. Rows of a classifier: see pad_choices.
    """
    import torch

    if isinstance(rows[0], ChoiceRow):
        return pad_choices(rows, pad)
    sources, targets = [row.source for row in rows], [row.target for row in rows]
    labels = [[IGNORED] * row.given + row.target[row.given:] for row in rows]
    task = torch.tensor([row.task for row in rows])
    if causal:
        sequences = [row.source + row.target for row in rows]
        labels = [[IGNORED] * (len(row.source) - 1) + known for row, known in zip(rows, labels, strict=True)]
        return {"input_ids": padded(sequences, pad),
                "attention_mask": padded([[1] * len(ids) for ids in sequences], 0),
                "labels": padded([known + [IGNORED] for known in labels], IGNORED), "task": task}
    return {
        "input_ids": padded(sources, pad),
        "attention_mask": padded([[1] * len(ids) for ids in sources], 0),
        "decoder_input_ids": padded([[start, *ids[:-1]] for ids in targets], pad),
        "labels": padded(labels, IGNORED),
        "task": task,
    }


def pad_choices(rows, pad):
    """Return the tensors of a chunk of ChoiceRows, for models.choice_losses.

    `input_ids`, `attention_mask` and, where the model takes them, `token_type_ids`: (pairs, length), the pairs of
    all questions in their order; `choices`: pairs per question, (questions,); `labels`: the place of the right one,
    (questions,); `task`, (questions,).
    """
    import torch

    pairs = [pair for row in rows for pair in row.pairs]
    types = [kind for row in rows for kind in row.types]
    chunk = {"input_ids": padded(pairs, pad), "attention_mask": padded([[1] * len(ids) for ids in pairs], 0),
             "choices": torch.tensor([len(row.pairs) for row in rows]),
             "labels": torch.tensor([row.gold for row in rows]), "task": torch.tensor([row.task for row in rows])}
    return chunk | ({"token_type_ids": padded(types, 0)} if types else {})


def padded(lists, filler):
    """Return lists of numbers as one tensor, (lists, longest), filled up on the right."""
    import torch

    width = max(map(len, lists))
    return torch.tensor([numbers + [filler] * (width - len(numbers)) for numbers in lists])


class StepCollator:
    """Collates the questions of one step (lists of rows) into ``{"rows": …, "task_tokens": …}``.

    `task_tokens` counts the target tokens of each task in the step that the loss counts, (tasks,): what each mean
    divides by.
    """

    def __init__(self, tasks):
        self.tasks = tasks

    def __call__(self, questions):
        import torch

        rows = [row for question in questions for row in question]
        counts = [sum(row.counted for row in rows if row.task == task) for task in range(self.tasks)]
        return {"rows": rows, "task_tokens": torch.tensor(counts, dtype=torch.float64)}
