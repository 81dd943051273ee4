"""The prompting `tokens`: the words on which a fine-tuned teacher's answer depends (Ballout et al. 2024).

The scores of the tokens are computed in attributions.py; here they become words, a table, and measures of the words.

arXiv 2409.12586 fine-tunes a sequence-to-sequence teacher on a task. It computes the gradient of each target token with
respect to the embeddings of the input tokens and averages over the target tokens. The k most influential input tokens
(k = 5) are the student's rationale. The paper leaves open the norm over the embedding dimensions, how sub-words become
words, which tokens are left out, and the order of the k words. The choices here: the gradient of log p of a target
token; its L2 norm; the score of a word is that of its best sub-word; only words of the question and of its choices
count; a word counts once; words keep the order of the input.

In shapes, S is the number of source tokens, T of target tokens (end token included).
"""

import json
import math
import random
import re
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import import_module
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from kdutils.data.questions import LETTERS, format_choices
from kdutils.data.texts import (
    LAYOUT,
    SEPARATOR,
    count_tokens_before,
    kept_tokens,
    locate_tokens,
    spans_between,
    split_characters,
)
from kdutils.errors import StudyError
from kdutils.hub import (
    check_vocabulary,
    device,
    find_model,
    load_weights,
    locate_model,
    model_context,
    read_config,
    read_tokenizer,
)
from kdutils.runs import is_complete
from kdutils.teacher.attributions import ATTRIBUTIONS, is_causal, padding
from kdutils.teacher.choices import ATTRIBUTION_TARGETS
from kdutils.teacher.progress import show_progress

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MERGE = max  # sub-words to word; a sum would favour long words, a mean would lower words with an uninformative ending
SETTINGS = {
    "model": "",  # folder or Hub id of a fine-tuned sequence-to-sequence model
    "attribution": "saliency",  # one of ATTRIBUTIONS
    "k": 5,  # words per question; the best of 1 to 10 in arXiv 2409.12586
    "target": "gold",  # explain the gold answer, or the teacher's own greedy prediction
    "frame": list(LAYOUT),  # texts inside the questions that are layout and never chosen, such as "Premise:"
    "steps": 64,  # points on the path of integrated gradients
    "evaluations": 512,  # of the model per question, of shapley_sampling and lime
    "random_weights": False,  # control: a teacher of the same shape that has learnt nothing
    "seed": 0,  # draws random words and random weights
    "max_source_tokens": 512,  # a longer source is an error: a word that is cut off could never be chosen
    "max_new_tokens": 64,  # for the teacher's own prediction
    "token_budget": 4096,  # tokens of a batch, padding included
}
# A word ends at white space and at these marks (not between digits: 1,000); other marks end it only at its edge.
_WORD = re.compile(r"""(?:[^\s,;:/!?…()\[\]{}<>"“”„«»|\\—–]|(?<=\d)[,:/](?=\d))+""")
PUBLISHED_SHARE, PUBLISHED_WORDS = 0.68, 5  # see answer_share
ANOTHER_SEED = ", another seed"  # behind the name of an attribution, see agreement
Word = tuple[str, float, int, int]  # (word, score, start, end); start and end are characters of the source


def attribute_words(questions: pd.DataFrame, sources: Sequence[str], targets: Sequence[str], settings: dict,
                    progress: Path | str | None = None, begins: Sequence[int] | None = None,
                    loaded: "tuple[PreTrainedModel, PreTrainedTokenizerBase, float] | None" = None) -> pd.DataFrame:
    """Return the attributed words of `questions` as rationales: a frame of tables.EXPLANATIONS.

    `questions`: a frame of tables.QUESTIONS. `sources`, `targets`: per question the text that the teacher was trained
    to read, and the gold text that it was trained to write. `settings`: see SETTINGS; missing ones keep their default.
    `progress`: a file for one line of progress. `begins`: per question the character of its target at which the
    explained part begins. The target is then the beginning of a text, without an end token, and a source is cut to the
    length that the model can read, as when a student is asked. Only then the model may be causal. `loaded`: the model
    of `settings` as load_model returns it for any attribution but `random`, if it is in memory already.

    `text` holds the words in input order, joined by one space. `raw` holds every eligible word as JSON,
    ``[[word, score, start, end], …]``, in characters of the source. `answer` is the answer that was explained, so that
    no student learns from the explanation of an own prediction that is wrong. ``attrs["notes"]`` has counts,
    ``attrs["completeness_errors"]`` {id: error} for integrated gradients, ``attrs["seconds"]`` the time taken, without
    that of loading the model and libraries. Raises StudyError for an unknown setting, an unsuitable model or tokenizer,
    a question without the gold answer that is to be explained, a source that is too long, and scores that are not
    finite.
    """
    settings, items = _checked(settings), questions.to_dict("records")
    sources, targets = list(sources), list(targets)
    if not len(items) == len(sources) == len(targets) > 0:
        raise StudyError(f"{len(items)} questions, {len(sources)} sources, {len(targets)} targets: give one each")
    if settings["target"] == "gold" and begins is None:
        if without := [item["id"] for item in items if not item["answer"]]:
            raise StudyError(f"question {without[0]!r} has no right answer to explain, and {len(without) - 1} more; "
                             "choose target: own, or label the questions first (notebook 08)")
    words = [words_of(source, eligible_spans(item, source, settings["frame"]))
             for item, source in zip(items, sources, strict=True)]
    model, tokenizer, context = loaded or load_model(settings, causal=begins is not None)
    attribution = ATTRIBUTIONS[settings["attribution"]]
    for library in attribution.libraries:
        import_module(library)
    started = time.perf_counter()
    encoded = _causal_sources(tokenizer, sources) if is_causal(model) else with_places(tokenizer, sources)
    if begins is None:
        _check_lengths(items, encoded["input_ids"], min(context, settings["max_source_tokens"]))
    else:
        encoded = _cut(tokenizer, sources, encoded, context)
    answers, errors = [item["answer"] for item in items], {}
    if attribution.scores is None:
        scored = [random_scores(found, settings["seed"], item["id"]) for found, item in zip(words, items, strict=True)]
    else:
        answers, target_ids, given = explained_targets(model, tokenizer, encoded, answers, targets, settings, begins)
        scored, errors = _scored(model, tokenizer, items, words, encoded, target_ids, given, settings, progress)
    table = pd.DataFrame([_record(item, answer, found, settings["k"], len(ids))
                          for item, answer, found, ids in zip(items, answers, scored, encoded["input_ids"],
                                                              strict=True)])
    table.attrs["seconds"] = time.perf_counter() - started
    table.attrs["notes"] = {
        "source tokens": sum(map(len, encoded["input_ids"])), "eligible words": sum(map(len, words)),
        "fewer than k words": int((table["completion_tokens"] < settings["k"]).sum()),
        "another answer than the gold one explained": int((table["answer"] != questions["answer"].values).sum())}
    if errors:
        table.attrs["notes"]["largest completeness error"] = max(map(abs, errors.values()))
        table.attrs["completeness_errors"] = errors
    return table


def driving_words(folder: Path | str, written: pd.DataFrame, attribution: str = "saliency") -> dict[str, list[str]]:
    """Return {question id: all candidate words, the most influential first} for the answers of a trained student.

    `written`: a frame of predicting.written_answers. Only the student's own answer is explained, without the words of
    its sentence before it and without an explanation in front of it. The result is {} where there is nothing to
    explain, and for a causal student where the attribution needs an encoder-decoder.
    """
    shape = read_config(find_model(str(folder), needs_weights=False)) if len(written) else None
    if shape is None or not (shape.is_encoder_decoder or ATTRIBUTIONS[attribution].causal):
        return {}
    settings = {"model": str(folder), "attribution": attribution, "k": 1}
    table = attribute_words(written, written["source"], written["text"], settings, begins=list(written["begins"]))
    return {key: [word for word, *_ in ranked_words(json.loads(raw))]
            for key, raw in zip(table["id"], table["raw"], strict=True)}


def explained_targets(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", encoded: dict[str, list],
                      answers: list[str], targets: list[str], settings: dict, begins: Sequence[int] | None = None
                      ) -> tuple[list[str], list[list[int]], list[int] | None]:
    """Return (answers to explain, target ids of each, how many of these ids are given and not explained or None).

    `encoded`: with_places of the sources. `answers`, `targets`, `begins`: see attribute_words. All `settings` are set.
    """
    if begins is not None:
        target_ids = tokenizer(text_target=targets, add_special_tokens=False)["input_ids"]
        given = count_tokens_before(tokenizer, targets, begins)
    else:
        target_ids, given = _target_ids(tokenizer, targets), None
    if settings["target"] == "own":
        gold, target_ids = target_ids, own_predictions(model, encoded["input_ids"], settings)
        answers = _own_answers(tokenizer, answers, targets, gold, target_ids)
    return answers, target_ids, given


def _scored(model, tokenizer, items, words, encoded, target_ids, given, settings, progress):
    """Return (scored words per question, {question id: completeness error})."""
    special, offsets = _special_ids(tokenizer), word_offsets(tokenizer, encoded)
    scored, errors = [None] * len(items), [None] * len(items)
    for done, (row, scores, error) in enumerate(
            token_scores(model, encoded["input_ids"], target_ids, special, settings, given,
                         [word_numbers(*row) for row in zip(words, offsets, strict=True)]), 1):
        if not all(map(math.isfinite, scores)):
            raise StudyError(f"question {items[row]['id']!r}: its {settings['attribution']} scores are not finite "
                             "numbers; look at the teacher's weights and training")
        scored[row], errors[row] = merge_words(words[row], offsets[row], scores), error
        if progress and (done % 100 == 0 or done == len(items)):
            show_progress(progress, done, len(items), f"attributed {done} of {len(items)} questions")
    return scored, {item["id"]: error for item, error in zip(items, errors, strict=True) if error is not None}


def _own_answers(tokenizer, answers, targets, gold, own):
    """Return the answer in each list of target ids `own`: the text at the place of the gold answer in `targets`."""
    named = []
    for answer, target, wanted, ids in zip(answers, targets, gold, own, strict=True):
        text, (before, _, after) = tokenizer.decode(ids, skip_special_tokens=True).strip(), target.rpartition(answer)
        framed = text.startswith(before) and text.endswith(after)
        other = text[len(before):len(text) - len(after)] if framed else text
        named.append(answer if ids == wanted else other)
    return named


def _checked(settings):
    """Return `settings` with defaults for missing ones; StudyError for an unknown or wrong one."""
    unknown = sorted(set(settings) - set(SETTINGS))
    if unknown:
        raise StudyError(f"settings: unknown '{unknown[0]}'; known: {', '.join(SETTINGS)}")
    settings = SETTINGS | settings
    for name, known in (("attribution", ATTRIBUTIONS), ("target", ATTRIBUTION_TARGETS)):
        if settings[name] not in known:
            raise StudyError(f"{name}: unknown '{settings[name]}'; known: {', '.join(known)}")
    for name in ("k", "steps", "evaluations", "token_budget", "max_source_tokens", "max_new_tokens"):
        if not isinstance(settings[name], int) or settings[name] < 1:
            raise StudyError(f"{name}: {settings[name]!r} is not a whole number of at least 1")
    if not isinstance(settings["frame"], list) or not all(settings["frame"]):
        raise StudyError(f"frame: {settings['frame']!r} is not a list of texts")
    return settings


def _record(item, answer, scored, k, source_tokens):
    best = best_words(scored, k)
    problem = "no eligible words" if not scored else "" if best else "all scores are zero"
    return {"id": item["id"], "stage": "rationale", "round": 0, "answer": answer, "text": " ".join(best) or None,
            "raw": json.dumps([[word, float(f"{score:.6g}"), start, end] for word, score, start, end in scored],
                              ensure_ascii=False),
            "changes": [], "problem": problem, "finish_reason": "stop", "prompt_tokens": source_tokens,
            "completion_tokens": len(best)}


def load_model(settings: dict,
               causal: bool = False) -> "tuple[PreTrainedModel | None, PreTrainedTokenizerBase, float]":
    """Return (model, tokenizer, most source tokens it can read); the model is None where words are drawn at random.

    `causal`: whether the model may be a causal one, as students are, and not only an encoder-decoder.

    Weights are float32, also on a GPU: a fine-tuned teacher is sure of its answer, and in half precision the gradient
    of a sure answer is zero. The model is in evaluation mode (no dropout), and its weights need no gradients.
    """
    name, random_words = settings["model"], ATTRIBUTIONS[settings["attribution"]].scores is None
    where = locate_model(name, needs_weights=False)
    if (Path(where) / "student.json").is_file() and not is_complete(where):
        raise StudyError(f"{where}: the teacher is incomplete; run the notebook that trains it again")
    found = find_model(name, needs_weights=not (settings["random_weights"] or random_words))
    shape = read_config(found)
    if not (shape.is_encoder_decoder or causal):
        raise StudyError(f"{name}: a {shape.model_type} model has no encoder; give a sequence-to-sequence teacher (T5)")
    tokenizer = read_tokenizer(name)
    if random_words:
        context = getattr(getattr(shape, "encoder", shape), "max_position_embeddings", None)
        return None, tokenizer, context or math.inf
    model = _load_weights(found, shape, settings)
    if check_vocabulary(name, tokenizer, model.get_input_embeddings().num_embeddings):
        raise StudyError(f"{name}: tokens were added to its tokenizer, but the model's table has no rows for them; "
                         "resize the table (resize_token_embeddings) and save it, or take another teacher")
    return model, tokenizer, model_context(model) or math.inf


def _load_weights(found, shape, settings):
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, set_seed

    kind = AutoModelForSeq2SeqLM if shape.is_encoder_decoder else AutoModelForCausalLM
    set_seed(settings["seed"])
    if settings["random_weights"]:
        model = kind.from_config(shape, dtype=torch.float32)
    else:
        model = load_weights(kind, found, config=shape, dtype=torch.float32)
    model.generation_config.max_length = None
    return model.to(device()).eval().requires_grad_(False)


def _check_lengths(items, source_ids, limit):
    for item, ids in zip(items, source_ids, strict=True):
        if len(ids) > limit:
            raise StudyError(f"question {item['id']!r}: its source takes {len(ids)} tokens, {len(ids) - limit} more "
                             f"than {limit}; raise max_source_tokens if the model reads more, or leave it out")


def _target_ids(tokenizer, texts):
    """Return target texts as token ids, without the start token of BERT's tokenizers, as in training."""
    rows = tokenizer(text_target=texts)["input_ids"]
    return [ids[1:] if tokenizer.cls_token_id is not None and ids[:1] == [tokenizer.cls_token_id] else ids
            for ids in rows]


def with_places(tokenizer: "PreTrainedTokenizerBase", texts: list[str]) -> dict[str, list]:
    """Return {"input_ids", "offset_mapping"} of texts; for a slow tokenizer the places are reconstructed."""
    if tokenizer.is_fast:
        return tokenizer(texts, return_offsets_mapping=True)
    ids = tokenizer(texts)["input_ids"]
    return {"input_ids": ids, "offset_mapping": [locate_tokens(tokenizer, text, row)
                                                 for text, row in zip(texts, ids, strict=True)]}


def _causal_sources(tokenizer, sources):
    """Return with_places of sources as a causal student reads them: a separator behind, and no end token."""
    encoded = with_places(tokenizer, [source + SEPARATOR for source in sources])
    ends = [ids[-1:] == [tokenizer.eos_token_id] for ids in encoded["input_ids"]]
    return {key: [row[:-1] if end else row for row, end in zip(encoded[key], ends, strict=True)]
            for key in ("input_ids", "offset_mapping")}


def _special_ids(tokenizer):
    return set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}


def word_offsets(tokenizer: "PreTrainedTokenizerBase", encoded: dict[str, list]) -> list[list[tuple[int, int]]]:
    """Return (start, end) of each token in its text, per row of `encoded` (with_places); (0, 0) for a special token."""
    special = _special_ids(tokenizer)
    return [[(0, 0) if token in special else place for token, place in zip(ids, places, strict=True)]
            for ids, places in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)]


def _cut(tokenizer, sources, encoded, limit):
    """Return `encoded` with at most `limit` tokens per source, as a student reads it."""
    kept = [kept_tokens(tokenizer, text, len(ids), limit)
            for text, ids in zip(sources, encoded["input_ids"], strict=True)]
    return {key: [[row[place] for place in places] for row, places in zip(encoded[key], kept, strict=True)]
            for key in ("input_ids", "offset_mapping")}


# Words

def eligible_spans(item: dict, source: str, frame: Iterable[str] = ()) -> list[tuple[int, int]]:
    """Return [(start, end)], in characters of `source`: the text of context, question and each of the choices.

    The rest is layout (task tag, ``Context:``, ``Question:``, ``Choices:``, letters) and is never chosen. Neither are
    the texts of `frame` inside the question. `source` must be as part_spans says.
    """
    spans = part_spans(item, source)
    place = 1 if item.get("context") else 0
    return [*spans[:place], *spans_between(source, frame, *spans[place]), *spans[place + 1:]]


def part_spans(item: dict, source: str) -> list[tuple[int, int]]:
    """Return [(start, end)] of the context, if there is one, the question and each of the choices in `source`.

    They are searched from the end, because a context may repeat the question, and before the names that the layouts
    give to these parts: "ice" is not that of "Choices:". Raises StudyError unless `source` holds the context, the
    question and, behind it, the lettered choices, on one line or on one line each.
    """
    choices, context = list(item["choices"]), item.get("context") or ""
    listed = format_choices(choices)
    if listed not in source:
        listed = "\n".join(f"({LETTERS[number]}) {choice}" for number, choice in enumerate(choices))
    place = source.rfind(listed)
    start = _last(item["question"], source[:max(place, 0)], "(?:answer )?choices:")
    before = _last(context, source[:max(start, 0)], "question:")
    if min(place, start, before) < 0:
        raise StudyError(f"question {item['id']!r}: its source does not hold the question followed by the choices as "
                         "'(a) … (b) …', with the context before it; pass the text that the teacher was trained on")
    spans = [(before, before + len(context))] if context else []
    spans.append((start, start + len(item["question"])))
    for choice in choices:
        place += len("(a) ")
        spans.append((place, place + len(choice)))
        place += len(choice) + 1
    return spans


def _last(text, source, name):
    """Return where `text` begins last in `source`, if possible before the name or [tag] at its end; -1 for nowhere."""
    found = re.search(rf"\s*(?:\[\w+\]|{name})\s*\Z", source, re.IGNORECASE)
    start = source.rfind(text, 0, found.start()) if found else -1
    return start if start >= 0 else source.rfind(text)


def words_of(text: str, spans: list[tuple[int, int]] | None = None) -> list[tuple[str, int, int]]:
    """Return [(word, start, end)] of the words within `spans` (all of `text` by default).

    Punctuation at the edge of a word is removed, and so are words of punctuation alone. In a script without spaces
    between words each character is a word (see kdutils.data.texts).
    """
    words = []
    for first, last in [(0, len(text))] if spans is None else spans:
        for found in _WORD.finditer(text, first, last):
            start, end = found.span()
            while start < end and _is_mark(text[start]):
                start += 1
            while start < end and _is_mark(text[end - 1]):
                end -= 1
            words += [part for part in split_characters(text[start:end], start) if not all(map(_is_mark, part[0]))]
    return words


def _is_mark(char):
    return unicodedata.category(char)[0] in "PSC"


def merge_words(words: list[tuple[str, int, int]], offsets: list[tuple[int, int]],
                scores: Sequence[float]) -> list[Word]:
    """Return [(word, score, start, end)]: the score of a word is the MERGE of the scores of its tokens.

    `offsets`: (start, end) of each token in the text, start = end for a special token. A token that covers two words
    counts for both. A word without a token (the tokenizer dropped it) is left out.
    """
    merged = []
    for word, start, end in words:
        inside = [score for (first, last), score in zip(offsets, scores, strict=True)
                  if first < last and first < end and last > start]
        if inside:
            merged.append((word, MERGE(inside), start, end))
    return merged


def word_numbers(words: list[tuple[str, int, int]], offsets: list[tuple[int, int]]) -> list[int]:
    """Return the number of the word to which each token belongs, -1 for none; of two words in a token, the first."""
    return [next((number for number, (_, start, end) in enumerate(words)
                  if first < last and first < end and last > start), -1) for first, last in offsets]


def best_words(scored: list[Word], k: int) -> list[str]:
    """Return the k best words of ranked_words, in input order; fewer where there are fewer."""
    return [place[0] for place in sorted(ranked_words(scored)[:k], key=lambda place: place[2])]


def ranked_words(scored: list[Word]) -> list[Word]:
    """Return [(word, score, start, end)] of distinct words, the highest score first.

    A repeated word, in any case, counts once, at its best place. Of equal scores the earlier place wins. Where every
    score is zero, no word is better than another, and none is returned.
    """
    if not any(score for _, score, *_ in scored):
        return []
    best = {}
    for place in sorted(scored, key=lambda place: (-place[1], place[2])):
        best.setdefault(place[0].casefold(), place)
    return list(best.values())


def random_scores(words: list[tuple[str, int, int]], seed: int, question_id: str) -> list[Word]:
    """Return [(word, score, start, end)]; each distinct word has a score drawn from (0, 1] by `seed` and question."""
    draw, drawn = random.Random(f"random words {seed} {question_id}"), {}
    return [(word, drawn.setdefault(word.casefold(), 1 - draw.random()), start, end) for word, start, end in words]


# Scores of tokens

def token_scores(model: "PreTrainedModel", sources: list[list[int]], targets: list[list[int]], special: set[int],
                 settings: dict, given: list[int] | None = None,
                 parts: list[list[int]] | None = None) -> Iterator[tuple[int, list[float], float | None]]:
    """Yield (row, S scores, completeness error) for each row of `sources` and `targets`, lists of token ids.

    A batch has rows of similar length and at most settings["token_budget"] tokens, padding included. The scores of a
    row do not depend on its batch. The error is None for an attribution that has none. `special`: the tokens that the
    baseline of integrated gradients keeps. `given`: how many tokens at the beginning of each target are read but not
    explained (default: none). `parts`: per source the number of the word of each token, -1 for a token that is never
    left out; some attributions leave out whole words (default: each token that is not `special`).
    """
    attribution = ATTRIBUTIONS[settings["attribution"]]
    parts = parts or [[-1 if token in special else place for place, token in enumerate(source)] for source in sources]
    given = given or [0] * len(targets)
    for rows in similar_lengths([len(source) + len(target) for source, target in zip(sources, targets, strict=True)],
                         settings["token_budget"]):
        batch = padded_batch(model, [sources[row] for row in rows], [targets[row] for row in rows],
                             [given[row] for row in rows])
        more = settings | {"special": special, "parts": [parts[row] for row in rows]}
        found = attribution.scores(model, batch, **{name: more[name] for name in attribution.takes})
        scores, errors = found if isinstance(found, tuple) else (found, [None] * len(rows))
        for row, one, error in zip(rows, scores.tolist(), errors, strict=True):
            yield row, one[:len(sources[row])], error


def similar_lengths(lengths: Sequence[int], token_budget: int) -> list[list[int]]:
    """Return the rows of each batch, the longest rows first, so that a lack of memory shows at once."""
    waiting, batches = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row)), []
    while waiting:
        size = max(1, token_budget // lengths[waiting[0]])
        batches.append(waiting[:size])
        waiting = waiting[size:]
    return batches


def padded_batch(model: "PreTrainedModel", sources: list[list[int]], targets: Sequence[Sequence[int]] = ((0,),),
                 given: Sequence[int] = (0,)) -> "dict[str, torch.Tensor]":
    """Return a batch's tensors, padded on the right: source and target ids, (rows, S) and (rows, T), and masks.

    `given`: see token_scores.
    """
    import torch

    def padded(lists, filler):
        width = max(map(len, lists))
        return torch.tensor([[*ids, *[filler] * (width - len(ids))] for ids in lists], device=model.device)

    start, pad = getattr(model.config, "decoder_start_token_id", None), padding(model)
    return {"source": padded(sources, pad), "mask": padded([[1] * len(ids) for ids in sources], 0),
            "decoder": padded([[start or 0, *ids[:-1]] for ids in targets], pad),  # a causal model does without it
            "target": padded(targets, pad),
            "counted": padded([[0] * start + [1] * (len(ids) - start)
                               for ids, start in zip(targets, given, strict=True)], 0)}


def own_predictions(model: "PreTrainedModel", source_ids: list[list[int]], settings: dict) -> list[list[int]]:
    """Return the teacher's greedy prediction of each source as token ids, up to its end token."""
    import torch

    limit, end, written = settings["max_new_tokens"], model.generation_config.eos_token_id, {}
    ends = set(end if isinstance(end, list) else [end])
    for rows in similar_lengths([len(ids) + limit for ids in source_ids], settings["token_budget"]):
        batch = padded_batch(model, [source_ids[row] for row in rows])
        with torch.no_grad():
            out = model.generate(input_ids=batch["source"], attention_mask=batch["mask"], do_sample=False, num_beams=1,
                                 max_new_tokens=limit)
        for row, ids in zip(rows, out[:, 1:].tolist(), strict=True):
            stop = next((place for place, token in enumerate(ids) if token in ends), len(ids) - 1)
            written[row] = ids[:stop + 1]
    return [written[row] for row in range(len(source_ids))]


# Measures of the chosen words

def answer_share(explanations: pd.DataFrame, questions: pd.DataFrame) -> pd.DataFrame:
    """Return the share of the answer among the attributed words, and the expectation for random words: two rows.

    Columns: `questions` with attributed words and words in the answer, `words in the answer` (share of all attributed
    words that occur in the gold answer), and the shares of questions with `any answer word` and with `every answer
    word` among the attributed words. The second row is the expectation for the same number of distinct eligible words,
    drawn without replacement.

    arXiv 2409.12586 reports 68 % (PUBLISHED_SHARE) for its fine-tuned T5 teacher of about 3B parameters, over "cases"
    of its data sets whose answer is part of the input (multiple choice: CQA, not ANLI, e-SNLI and SVAMP). It does not
    define a case. With its five words (PUBLISHED_WORDS) and answers of one or two words it cannot be a share of the
    words, so `any answer word` is the one to compare.
    """
    gold, rows = dict(zip(questions["id"], questions["answer"], strict=True)), []
    for key, text, raw in zip(explanations["id"], explanations["text"], explanations["raw"], strict=True):
        if not isinstance(text, str):
            continue
        if not (answer := _distinct(word for word, *_ in words_of(gold[key]))):
            continue  # "+", or a question without an answer
        eligible, chosen = _distinct(word for word, *_ in json.loads(raw)), _distinct(text.split())
        n, k, there, wanted = len(eligible), len(chosen), len(eligible & answer), len(answer)
        missed = math.comb(n - there, k) / math.comb(n, k)
        every = math.comb(n - wanted, k - wanted) / math.comb(n, k) if there == wanted <= k else 0.0
        rows.append((k, len(chosen & answer), bool(chosen & answer), answer <= chosen,
                     k * there / n, 1 - missed, every))
    if not rows:
        raise StudyError("the share of the answer: no question has attributed words")
    words, *sums = (sum(column) for column in zip(*rows, strict=True))
    table = [{"questions": len(rows), "words in the answer": part / words, "any answer word": some / len(rows),
              "every answer word": every / len(rows)} for part, some, every in (sums[:3], sums[3:])]
    return pd.DataFrame(table, index=["attributed", "expected at random"])


def published_share(questions: pd.DataFrame, k: int) -> float | None:
    """Return PUBLISHED_SHARE for questions that have choices of their own in the input; None where it says nothing.

    It says nothing about another number `k` of words than PUBLISHED_WORDS, about questions without choices, and about
    labels that are the same for all questions, such as those of ANLI and e-SNLI: this study lists them in the input,
    the paper does not.
    """
    choices = questions["choices"].map(frozenset)
    return PUBLISHED_SHARE if k == PUBLISHED_WORDS and choices.map(bool).all() and choices.nunique() > 1 else None


def cost_and_share(explanations: dict[str, pd.DataFrame], questions: pd.DataFrame) -> pd.DataFrame:
    """Return one row per attribution in {name: frame of attribute_words}: its answer_share and seconds per question."""
    rows = [{"attribution": name, **answer_share(table, questions).loc["attributed"],
             "seconds per question": table.attrs["seconds"] / len(table)} for name, table in explanations.items()]
    return pd.DataFrame(rows)


def _distinct(words):
    return {word.casefold() for word in words}


def agreement(explanations: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Return one row per pair of attributions in {name: frame of attribute_words}: do they choose the same words?

    `spearman`: mean over questions of the rank correlation over the words that both scored; a question with fewer than
    three of them, or with equal scores, is left out. `jaccard`: mean over questions of shared chosen words divided by
    all chosen words. `questions`: those with attributed words in both. A sampled attribution agrees with others at most
    about as well as with itself under another seed (agreement_with_itself).
    """
    from scipy.stats import spearmanr

    rows = []
    for (first, one), (second, other) in combinations(explanations.items(), 2):
        both = one.dropna(subset="text").merge(other.dropna(subset="text"), on="id", validate="one_to_one")
        if not len(both):
            raise StudyError(f"agreement of {first} and {second}: no question with attributed words in both")
        ranks, overlaps = [], []
        for left, right, text, other_text in zip(both["raw_x"], both["raw_y"], both["text_x"], both["text_y"],
                                                 strict=True):
            scores = [{(start, end): score for _, score, start, end in json.loads(raw)} for raw in (left, right)]
            pairs = [(scores[0][place], scores[1][place]) for place in scores[0] if place in scores[1]]
            if len(pairs) > 2 and all(len(set(values)) > 1 for values in zip(*pairs, strict=True)):
                ranks.append(float(spearmanr(*zip(*pairs, strict=True)).statistic))
            chosen, others = _distinct(text.split()), _distinct(other_text.split())
            overlaps.append(len(chosen & others) / len(chosen | others))
        rows.append({"first": first, "second": second, "questions": len(both),
                     "spearman": sum(ranks) / len(ranks) if ranks else None,
                     "jaccard": sum(overlaps) / len(overlaps)})
    return pd.DataFrame(rows, columns=["first", "second", "questions", "spearman", "jaccard"])


def agreement_with_itself(explanations: dict[str, pd.DataFrame],
                          attribute: Callable[[dict], pd.DataFrame]) -> pd.DataFrame:
    """Return one row per sampled attribution of {name: frame of attribute_words}: its agreement under another seed.

    `attribute` returns attribute_words of the same questions with the given settings {attribution, seed} in place of
    its own. Columns as of agreement; second is the name with ANOTHER_SEED behind it.
    """
    rows = [agreement({name: one, name + ANOTHER_SEED: attribute({"attribution": name, "seed": 2**31 - 1})})
            for name, one in explanations.items() if ATTRIBUTIONS[name].sampled]
    return pd.concat(rows, ignore_index=True) if rows else agreement({})
