"""What a student writes, by greedy generation, and how likely it finds each choice."""

from pathlib import Path

import pandas as pd
import torch
from transformers import StoppingCriteria, StoppingCriteriaList
from transformers.modeling_outputs import BaseModelOutput

from kdutils.data.answers import MARKER, is_right, parse_answer
from kdutils.data.texts import count_tokens_before
from kdutils.errors import StudyError
from kdutils.hub import model_context
from kdutils.runs import is_complete, read_json
from kdutils.student.collating import (
    IGNORED,
    choice_row,
    cut,
    encode_sources,
    encode_targets,
    pad_choices,
    padded,
    vocabulary_gaps,
)
from kdutils.student.methods import format_source, method_of
from kdutils.student.models import choice_logits, end_token, load_student, load_tokenizer, model_kind, output_layer_on


@torch.no_grad()
def generate(model, tokenizer, sources, max_new_tokens, token_budget=4096, prefixes=None, stop=""):
    """Return the greedy continuation of each source text, in their order.

    `prefixes`: a text per source that the student is forced through before it goes on by itself; it is not part of what
    is returned. Equal sources are run once; batches hold sources of like length, padded tokens (source, prefix and new
    ones) within `token_budget`. A sequence ends with its end token, behind the text `stop`, or after
    `max_new_tokens`. A source longer than the model's context is cut.
    """
    model.eval()
    causal = model_kind(model) == "causal"
    asked_for = list(zip(sources, prefixes or [""] * len(sources), strict=True))
    inputs = _inputs(model, tokenizer, sorted(set(asked_for)), max_new_tokens)
    stopping = StoppingCriteriaList([_Written(tokenizer, stop)] if stop else [])
    written = {}
    for batch in _batches(inputs, lambda key: len(inputs[key][1]),
                          lambda key: sum(map(len, inputs[key])) + max_new_tokens, token_budget):
        ids = [inputs[key][0] for key in batch]
        forced = torch.tensor([inputs[key][1] for key in batch], dtype=torch.long)
        tensors = _padded_left(ids, model.config.pad_token_id) if causal else _padded(ids, model.config.pad_token_id)
        if forced.numel():
            start = torch.full((len(batch), 1), model.config.decoder_start_token_id)
            tensors["decoder_input_ids"] = torch.cat([start, forced], dim=1)
        tensors = {name: tensor.to(model.device) for name, tensor in tensors.items()}
        out = model.generate(**tensors, do_sample=False, num_beams=1, max_new_tokens=max_new_tokens,
                             stopping_criteria=stopping)
        known = tensors["input_ids"].shape[1] if causal else 1 + forced.shape[1]
        written |= dict(zip(batch, tokenizer.batch_decode(out[:, known:], skip_special_tokens=True), strict=True))
    return [written[key].strip() for key in asked_for]


def _inputs(model, tokenizer, texts, max_new_tokens):
    """Return {(source, prefix): (ids read, ids the decoder is forced through)}; a causal student reads both."""
    if not texts:
        return {}
    prefixes = encode_targets(tokenizer, [prefix for _, prefix in texts])
    sources = _read(model, tokenizer, [source for source, _ in texts], [len(ids) + max_new_tokens for ids in prefixes])
    causal = model_kind(model) == "causal"
    return {text: (source + prefix, []) if causal else (source, prefix)
            for text, source, prefix in zip(texts, sources, prefixes, strict=True)}


def _read(model, tokenizer, sources, behind):
    """Return the token ids of sources, cut to the model's context: a causal student needs room for those `behind`."""
    context, kind = model_context(model), model_kind(model)
    encoded = encode_sources(tokenizer, sources, kind)
    if context is None:
        return encoded
    room = [context - length if kind == "causal" else context for length in behind]
    return [cut(ids, limit) for ids, limit in zip(encoded, room, strict=True)]


def _batches(keys, group, size, token_budget):
    """Cut `keys` into lists of one group and of like size, the largest first, rows · largest size within budget."""
    keys, batches = sorted(keys, key=lambda key: (group(key), size(key)), reverse=True), []
    for key in keys:
        last = batches[-1] if batches else []
        if last and group(last[0]) == group(key) and (len(last) + 1) * size(last[0]) <= token_budget:
            last.append(key)
        else:
            batches.append([key])
    return batches


def _padded(lists, pad):
    return {"input_ids": padded(lists, pad), "attention_mask": padded([[1] * len(ids) for ids in lists], 0)}


def _padded_left(lists, pad):
    return {name: tensor.flip(1) for name, tensor in _padded([ids[::-1] for ids in lists], pad).items()}


class _Written(StoppingCriteria):
    """Stops each sequence that ends with the tokens of a text, as they are behind another word."""

    def __init__(self, tokenizer, text):
        first = count_tokens_before(tokenizer, [f"a {text}"], [1])[0]
        self.ids = torch.tensor(encode_targets(tokenizer, [f"a {text}"])[0][first:])

    def __call__(self, input_ids, scores, **kwargs):
        if input_ids.shape[1] < len(self.ids):
            return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
        return (input_ids[:, -len(self.ids):] == self.ids.to(input_ids.device)).all(dim=1)


@torch.no_grad()
def score_choices(model, tokenizer, items, method="label_only", prefixes=None, sources=None, token_budget=4096):
    """Return (scores, tokens): for each question a list over its choices, empty where it has none.

    A score is Σ log p over the tokens of the choice in the sentence with which a student of `method` answers, its full
    stop and end token included: "bank" is then no part of "bank account". `tokens` counts them, for a score per token.
    The sentence's beginning is given, and before it the texts `prefixes`, one per question: what the student is to
    have written. `sources` replace the question as the method asks it. The source is read once for all choices.
    A classifier's scores are the log p of the choices, one token each.
    """
    model.eval()
    asked_for = [i for i, item in enumerate(items) if item["choices"]]
    if model_kind(model) == "classifier":
        found = _classifier_scores(model, tokenizer, [items[i] for i in asked_for], token_budget)
    else:
        found = _answer_scores(model, tokenizer, method_of(method), [items[i] for i in asked_for],
                               [sources[i] for i in asked_for] if sources else None,
                               [prefixes[i] for i in asked_for] if prefixes else None, token_budget)
    scores, tokens = [[] for _ in items], [[] for _ in items]
    for i, (of_choices, counts) in zip(asked_for, found, strict=True):
        scores[i], tokens[i] = of_choices, counts
    return scores, tokens


def _answer_scores(model, tokenizer, asks, items, sources, prefixes, token_budget):
    """Return [(scores, tokens)] of questions that have choices."""
    if not items:
        return []
    sources = sources or [format_source(item, asks.answer) for item in items]
    heads = [f"{prefix} " if prefix else "" for prefix in prefixes or [""] * len(items)]
    texts = [head + asks.says(choice) for head, item in zip(heads, items, strict=True) for choice in item["choices"]]
    begins = [_before_answer(asks, head) for head, item in zip(heads, items, strict=True) for _ in item["choices"]]
    ends = [] if asks.one_text and not asks.explains_first else [end_token(tokenizer)]
    targets = iter([(ids + ends, given) for ids, given in zip(
        encode_targets(tokenizer, texts), count_tokens_before(tokenizer, texts, begins), strict=True)])
    rows = {i: [next(targets) for _ in item["choices"]] for i, item in enumerate(items)}
    longest = [max(len(ids) for ids, _ in rows[i]) for i in rows]
    read = _read(model, tokenizer, sources, longest)
    sizes = {i: len(rows[i]) * (len(read[i]) + longest[i]) for i in rows}
    found = {}
    for batch in _batches(rows, lambda i: 0, sizes.get, token_budget):
        flat = [row for i in batch for row in rows[i]]
        of_row = [number for number, i in enumerate(batch) for _ in rows[i]]
        losses = iter(_log_likelihoods(model, [read[i] for i in batch], flat, of_row))
        found |= {i: ([next(losses) for _ in rows[i]], [len(ids) - given for ids, given in rows[i]]) for i in batch}
    return [found[i] for i in range(len(items))]


def _log_likelihoods(model, sources, targets, of_row):
    """Return Σ log p of each target, after its first `given` tokens, as floats.

    `sources`: token ids of each question; `targets`: (ids, given) of each row; `of_row`: the question of each row.
    """
    pad, index = model.config.pad_token_id, torch.tensor(of_row, device=model.device)
    labels = padded([[IGNORED] * given + ids[given:] for ids, given in targets], IGNORED).to(model.device)
    if model_kind(model) == "causal":
        inputs, labels = _after_the_prompt(model, sources, [ids for ids, _ in targets], index), labels[:, 1:]
    else:
        start = model.config.decoder_start_token_id
        read = {name: tensor.to(model.device) for name, tensor in _padded(sources, pad).items()}
        hidden = model.get_encoder()(**read).last_hidden_state
        inputs = {"encoder_outputs": BaseModelOutput(hidden[index]), "attention_mask": read["attention_mask"][index],
                  "decoder_input_ids": padded([[start, *ids[:-1]] for ids, _ in targets], pad).to(model.device)}
    counted = labels != IGNORED
    with output_layer_on(model, counted):
        logits = model(**inputs).logits
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    losses = torch.nn.functional.cross_entropy(logits, labels[counted], reduction="none").double()
    sums = torch.zeros(len(targets), dtype=torch.float64, device=model.device)
    return (-sums.index_add(0, counted.nonzero()[:, 0], losses)).tolist()


def _after_the_prompt(model, sources, targets, index):
    """Return what a causal model reads of the targets, last token left out, behind prompts that it read once."""
    pad = model.config.pad_token_id
    prompt = {name: tensor.to(model.device) for name, tensor in _padded_left(sources, pad).items()}
    places = (prompt["attention_mask"].cumsum(1) - 1).clamp(min=0)
    cache = model(**prompt, position_ids=places, use_cache=True, logits_to_keep=1).past_key_values
    cache.batch_select_indices(index)
    ids = padded([ids[:-1] for ids in targets], pad).to(model.device)
    known = padded([[1] * (len(ids) - 1) for ids in targets], 0).to(model.device)
    mask = torch.cat([prompt["attention_mask"][index], known], dim=1)
    return {"input_ids": ids, "attention_mask": mask, "past_key_values": cache,
            "position_ids": (mask.cumsum(1) - 1)[:, -ids.shape[1]:]}


def _classifier_scores(model, tokenizer, items, token_budget):
    """Return [(log p of each choice, 1 each)] of questions that have choices."""
    context, found = model_context(model), {}
    rows = [choice_row(tokenizer, item, context or 10**9)[0] for item in items]
    for batch in _batches(range(len(rows)), lambda i: 0, lambda i: len(rows[i].source), token_budget):
        chunk = pad_choices([rows[i] for i in batch], model.config.pad_token_id)
        scores = choice_logits(model, {name: tensor.to(model.device) for name, tensor in chunk.items()})
        of_choices = scores.double().log_softmax(dim=1).tolist()
        found |= {i: (of_choices[number][: len(rows[i].pairs)], [1] * len(rows[i].pairs))
                  for number, i in enumerate(batch)}
    return [found[i] for i in range(len(items))]


def answer_tokens(tokenizer, method, items):
    """Return how many tokens an answer to one of `items` takes at most, marker of a following explanation included."""
    answers = {answer for item in items for answer in [*item["choices"], item["answer"]]}
    texts = [f" {method_of(method).says(answer)} {MARKER}" for answer in sorted(answers)]
    return 1 + max(map(len, encode_targets(tokenizer, texts)))


def dev_accuracy(tokenizer, items, method="label_only", by="generation", max_explanation_tokens=128):
    """Return a function of the model: the share of `items` (records of tables.QUESTIONS) answered rightly.

    `by` generation: only as many tokens are generated as an answer can take; an explanation is written only where
    it comes before the answer, at most `max_explanation_tokens` of it. `by` scores: the likeliest choice is the answer;
    for methods that answer first and questions that have choices. A classifier is always asked for its choice.
    """
    asks = method_of(method)
    if by not in ("generation", "scores"):
        raise StudyError(f"dev_accuracy: unknown way '{by}'; known: generation, scores")
    if by == "scores" and (asks.explains_first or not all(item["choices"] for item in items)):
        raise StudyError(f"dev_accuracy: scores need choices and an answer that comes first; method '{method}' or the "
                         "data set has not both")
    sources, stop = [format_source(item, asks.answer) for item in items], MARKER if asks.one_text else ""
    limit = answer_tokens(tokenizer, method, items) + (max_explanation_tokens if asks.explains_first else 0)

    def accuracy(model):
        if by == "scores" or model_kind(model) == "classifier":
            scores, _ = score_choices(model, tokenizer, items, method)
            answers = [likeliest(item, of_choices) for item, of_choices in zip(items, scores, strict=True)]
        else:
            texts = generate(model, tokenizer, sources, limit, stop=stop)
            answers = [parse_answer(text, item["choices"])[0] for text, item in zip(texts, items, strict=True)]
        right = [is_right(answer, item["answer"], item["choices"]) for answer, item in zip(answers, items, strict=True)]
        return sum(right) / len(right)

    return accuracy


def likeliest(item, scores):
    """Return the choice of a question with the highest score, the first of them where they are equal."""
    return item["choices"][scores.index(max(scores))]


def predict_questions(model, tokenizer, method, items, max_explanation_tokens):
    """Return one record per question with what the student wrote: see tables.PREDICTIONS (without seed).

    The method says which tags ask for the answer and for the explanation, and whether one text holds both. Beyond the
    table, `scores` and `score_tokens` hold what score_choices returns, behind the student's own explanation where the
    method explains first.
    """
    if model_kind(model) == "classifier":
        return _choose(model, tokenizer, items)
    asks = method_of(method)
    limit = answer_tokens(tokenizer, method, items) + (max_explanation_tokens if asks.one_text else 0)
    texts = generate(model, tokenizer, [format_source(item, asks.answer) for item in items], limit)
    explanations = [None] * len(items)
    if asks.explanation is not None and not asks.one_text:
        explanations = generate(model, tokenizer, [format_source(item, asks.explanation) for item in items],
                                max_explanation_tokens)
    records = [_record(asks, *one) for one in zip(items, texts, explanations, strict=True)]
    before = [record["explanation"] for record in records] if asks.explains_first else None
    scores, tokens = score_choices(model, tokenizer, items, method, before)
    return [{**record, "scores": of_choices, "score_tokens": counts}
            for record, of_choices, counts in zip(records, scores, tokens, strict=True)]


def _record(asks, item, text, explanation):
    predicted, beside = parse_answer(text, item["choices"])
    sentence = asks.says(item["answer"])
    if asks.explains_first:
        exact, beside = text.endswith(sentence), beside if predicted else text  # one that never comes to an end
    else:
        exact = text.startswith(sentence) if asks.one_text else text == sentence
    if explanation is None:
        explanation = beside if asks.one_text else ""
    return _as_record(item, text, predicted, exact, explanation)


def _as_record(item, generated, predicted, exact, explanation):
    return {"id": item["id"], "split": item["split"], "answer": item["answer"], "generated": generated,
            "predicted": predicted, "correct": is_right(predicted, item["answer"], item["choices"]), "exact": exact,
            "explanation": explanation}


def _choose(model, tokenizer, items):
    scores, tokens = score_choices(model, tokenizer, items)
    chosen = [likeliest(item, of_choices) for item, of_choices in zip(items, scores, strict=True)]
    return [{**_as_record(item, answer, answer, answer == item["answer"], ""), "scores": of_choices,
             "score_tokens": counts}
            for item, answer, of_choices, counts in zip(items, chosen, scores, tokens, strict=True)]


def written_answers(folder, questions, predictions):
    """Return, for what wants to look into an answer, what the student of `folder` read and wrote up to it.

    One row per prediction with an answer and an explanation (`predictions`: of one seed), columns of `questions` with
    the student's own `answer`, `source`, `text` (to the end of the sentence that gives the answer; the explanation
    before it where the method explains first) and `begins`: where in the text the answer itself begins.
    """
    asks = method_of(read_json(Path(folder) / "student.json")["method"])
    said = predictions[(predictions["predicted"] != "") & (predictions["explanation"].str.strip() != "")]
    table = questions.drop(columns="answer").merge(
        said[["id", "predicted", "explanation"]].rename(columns={"predicted": "answer"}), on="id")
    heads = [f"{text} " if asks.explains_first else "" for text in table["explanation"]]
    return table.assign(
        source=[format_source(item, asks.answer) for item in table.to_dict("records")],
        text=[head + asks.says(answer) for head, answer in zip(heads, table["answer"], strict=True)],
        begins=[_before_answer(asks, head) for head in heads])


def _before_answer(asks, head):
    """Return how many characters of the sentence that gives an answer, `head` before it, come before the answer."""
    return len(head + asks.says("")) - len(" .")


def gaps_of(folder, questions):
    """Return vocabulary_gaps of `questions` for the student in `folder`; {} for a classifier, which writes nothing."""
    about = read_json(Path(folder) / "student.json")
    if about.get("student", {}).get("kind") == "classifier":
        return {}
    return vocabulary_gaps(load_tokenizer(str(folder)), about["method"], questions.to_dict("records"))


def predict_with(folder, questions, max_explanation_tokens, seed):
    """Load the student that train_student wrote into `folder` and return its predictions: tables.PREDICTIONS.

    Runs on a GPU where there is one. Raises StudyError when the folder is not a whole student.
    """
    folder = Path(folder)
    if not is_complete(folder):
        raise StudyError(f"{folder}: no whole student here; run the training notebook first, or again")
    model, tokenizer = load_student(str(folder))
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    method = read_json(folder / "student.json")["method"]
    records = predict_questions(model, tokenizer, method, questions.to_dict("records"), max_explanation_tokens)
    return pd.DataFrame(records).assign(seed=seed)
