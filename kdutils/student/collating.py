"""From questions to the tensors of one optimiser step.

All rows of all tasks of a step are pooled, ordered by length whatever their task, and cut into chunks
under a budget of padded tokens. How a step is cut changes its cost and never its loss (trainer.py).
"""

from dataclasses import dataclass

from kdutils.errors import StudyError
from kdutils.student.methods import answered, rows_of, task_weights

IGNORED = -100  # the label that no loss counts


@dataclass(frozen=True)
class TokenRow:
    """A row as token ids: `task` is the index of its task in the method's order."""

    task: int
    source: list
    target: list


def tokenize_rows(tokenizer, method, parameters, items, rationales, max_source, max_target):
    """Return (rows per question, cuts): each question's rows as TokenRows, tokenised once and kept.

    `items`: records of tables.QUESTIONS; `rationales`: {question id: text or None}. A text longer than
    `max_source` or `max_target` tokens is cut, its end token kept, and counted in `cuts`. Raises StudyError
    when an answer does not fit, since a student could then never write it.
    """
    tasks = list(task_weights(method, parameters))
    rows = [rows_of(method, parameters, item, rationales.get(item["id"])) for item in items]
    flat = [row for group in rows for row in group]
    sources = tokenizer([row.source for row in flat])["input_ids"]
    targets = tokenizer(text_target=[row.target for row in flat])["input_ids"]
    cuts = {"sources": 0, "targets": 0}
    _check_answers(tokenizer, items, max_target)
    encoded = iter([TokenRow(tasks.index(row.task), _cut(source, max_source, cuts, "sources"),
                             _cut(_target_ids(target, tokenizer), max_target, cuts, "targets"))
                    for row, source, target in zip(flat, sources, targets, strict=True)])
    return [[next(encoded) for _ in group] for group in rows], cuts


def _check_answers(tokenizer, items, limit):
    lengths = tokenizer(text_target=[answered(item["answer"]) for item in items])["input_ids"]
    for item, ids in zip(items, lengths, strict=True):
        if len(_target_ids(ids, tokenizer)) > limit:
            raise StudyError(f"max_target_tokens: the answer of question {item['id']!r} takes {len(ids)} tokens, "
                             f"more than {limit}; a student could never write it")


def _target_ids(ids, tokenizer):
    """Drop the start token that BERT's tokenizers write: the decoder gets its own, and no loss is due on it."""
    return ids[1:] if tokenizer.cls_token_id is not None and ids[:1] == [tokenizer.cls_token_id] else ids


def _cut(ids, limit, cuts, kind):
    if limit < 8:
        raise StudyError(f"max_{kind[:-1]}_tokens: {limit} is too short for any text; give at least 8")
    if len(ids) <= limit:
        return ids
    cuts[kind] += 1
    return ids[: limit - 1] + ids[-1:]


def cut_step(rows, token_budget):
    """Cut the rows of a step into chunks of like length.

    A chunk's size is rows · (longest source + longest target), padding included; it stays at or under
    `token_budget` unless a single row is larger. Every row is in exactly one chunk.
    """
    chunks, current, longest = [], [], (0, 0)
    for row in sorted(rows, key=lambda row: (len(row.target), len(row.source))):
        wider = (max(longest[0], len(row.source)), max(longest[1], len(row.target)))
        if current and (len(current) + 1) * sum(wider) > token_budget:
            chunks.append(current)
            current, wider = [], (len(row.source), len(row.target))
        current.append(row)
        longest = wider
    return chunks + [current] if current else chunks


def pad_chunk(rows, pad, start):
    """Return the tensors of a chunk, padded on the right: ids, masks and labels, (rows, length); task, (rows,).

    `decoder_input_ids` are the labels moved right by one behind the start token; labels are IGNORED where padded.
    """
    import torch

    def padded(lists, filler):
        width = max(map(len, lists))
        return torch.tensor([ids + [filler] * (width - len(ids)) for ids in lists])

    sources, targets = [row.source for row in rows], [row.target for row in rows]
    return {
        "input_ids": padded(sources, pad),
        "attention_mask": padded([[1] * len(ids) for ids in sources], 0),
        "decoder_input_ids": padded([[start, *ids[:-1]] for ids in targets], pad),
        "labels": padded(targets, IGNORED),
        "task": torch.tensor([row.task for row in rows]),
    }


class StepCollator:
    """Collates the questions of one step (lists of TokenRows) into ``{"rows": …, "task_tokens": …}``.

    `task_tokens` counts the target tokens of each task in the step, (tasks,): what each mean divides by.
    """

    def __init__(self, tasks):
        self.tasks = tasks

    def __call__(self, questions):
        import torch

        rows = [row for question in questions for row in question]
        counts = [sum(len(row.target) for row in rows if row.task == task) for task in range(self.tasks)]
        return {"rows": rows, "task_tokens": torch.tensor(counts, dtype=torch.float64)}
