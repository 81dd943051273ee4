"""What a student writes, by greedy generation, and the probability that it gives to each choice."""

import itertools
import weakref
from collections.abc import Callable
from functools import wraps
from inspect import signature
from os.path import commonprefix
from pathlib import Path

import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, StoppingCriteria, StoppingCriteriaList
from transformers.modeling_outputs import BaseModelOutput

from kdutils.data.answers import MARKER, answered_right
from kdutils.data.texts import count_tokens_before
from kdutils.errors import StudyError
from kdutils.hub import device, is_memory_error, model_context, unless_memory_runs_out
from kdutils.runs import is_complete, read_json
from kdutils.student.chunks import pad_choices, pad_inputs, padded
from kdutils.student.collating import choice_row, cut_source, encode_sources, encode_targets, shared, student_gaps
from kdutils.student.loss import loss_sums
from kdutils.student.methods import Method, asked_as, method_of
from kdutils.student.models import choice_logits, end_token, load_student, model_kind, output_layer_on
from kdutils.student.rows import IGNORED, TokenRow
from kdutils.student.sharing import shares_tokens

LEAST_READ = 8  # tokens: less is no question
LEAST_SHARED = 8  # tokens: to read less than that once for several texts is no gain
LEAST_BUDGET = 16  # tokens: with fewer, every text has been alone in its batch
SAME = 1e-4  # differences of log p below this are rounding
READS_ON = weakref.WeakKeyDictionary()  # {encoder-decoder: the answer of _reads_on}
SIMILAR = 8  # tokens by which the beginnings of the targets of a batch differ at most


def _less_at_a_time(function):
    """Let a function that has a `token_budget` try again with half of it where memory runs out."""
    @wraps(function)
    def within_memory(*arguments, **settings):
        given = signature(function).bind(*arguments, **settings)
        given.apply_defaults()
        while (found := unless_memory_runs_out(function, *given.args, **given.kwargs)) is None:
            given.arguments["token_budget"] //= 2
            if given.arguments["token_budget"] < LEAST_BUDGET:
                raise StudyError("memory is too small for the student's answer to one question; lower "
                                 "max_explanation_tokens, take precision bf16 or a smaller student")
        return found

    return within_memory


@_less_at_a_time
@torch.no_grad()
def generate(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, sources: list[str], max_new_tokens: int,
             token_budget: int = 4096, stop: str = "") -> list[str]:
    """Return the greedy continuation of each source text, in order.

    A text ends with the end token, after the text `stop`, or after `max_new_tokens`. Equal sources run once. Batches
    hold sources of similar length with at most `token_budget` padded tokens (source and new ones). A source longer than
    the model's context is cut.
    """
    model.eval()
    causal, texts = model_kind(model) == "causal", sorted(set(sources))
    ids = _read(model, tokenizer, texts, [max_new_tokens] * len(texts)) if texts else []
    read = dict(zip(texts, ids, strict=True))
    stopping = StoppingCriteriaList([_EndsWith(tokenizer, stop)] if stop else [])
    written = {}
    for batch in _batches(texts, lambda text: 0, lambda text: len(read[text]) + max_new_tokens, token_budget):
        pad = _padded_left if causal else pad_inputs
        tensors = _on(model, pad([read[text] for text in batch], model.config.pad_token_id))
        out = model.generate(**tensors, do_sample=False, num_beams=1, max_new_tokens=max_new_tokens,
                             stopping_criteria=stopping)
        known = tensors["input_ids"].shape[1] if causal else 1
        written |= dict(zip(batch, tokenizer.batch_decode(out[:, known:], skip_special_tokens=True), strict=True))
    return [written[text].strip() for text in sources]


@_less_at_a_time
@torch.no_grad()
def sample_tokens(model: PreTrainedModel, sources: list[list[int]], max_new_tokens: int, seed: int,
                  token_budget: int = 4096) -> list[list[int]]:
    """Return a continuation of each source of a causal student, drawn from its distribution, as token ids.

    It ends with the end token or after `max_new_tokens`. The draws depend on `seed` and the sources of the same batch;
    other random numbers are not changed.
    """
    model.eval()
    end, written = model.config.eos_token_id, {}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for batch in _batches(range(len(sources)), lambda i: 0, lambda i: len(sources[i]) + max_new_tokens,
                              token_budget):
            tensors = _on(model, _padded_left([sources[i] for i in batch], model.config.pad_token_id))
            out = model.generate(**tensors, do_sample=True, top_k=0, top_p=1.0, temperature=1.0, num_beams=1,
                                 max_new_tokens=max_new_tokens)
            for i, ids in zip(batch, out[:, tensors["input_ids"].shape[1]:].tolist(), strict=True):
                written[i] = ids[: ids.index(end) + 1] if end in ids else ids
    return [written[i] for i in range(len(sources))]


@_less_at_a_time
@torch.no_grad()
def generate_each(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, sources: list[list[str]],
                  limits: list[int], token_budget: int = 4096) -> list[list[str]]:
    """Return the greedy continuations of several sources of each question: text k has at most ``limits[k]`` tokens.

    `sources`: for each question as many source texts as there are limits. The texts are those of generate(). A causal
    student with the tag behind the question reads what the sources of a question share once; others read each source.
    """
    kinds = list(zip(*sources, strict=True))
    ids = [_read(model, tokenizer, list(texts), [limit] * len(texts))
           for texts, limit in zip(kinds, limits, strict=True)] if len(limits) > 1 and shares_tokens(model) else []
    shared = [min(len(commonprefix(of_item)), *(len(one) - 1 for one in of_item)) for of_item in zip(*ids, strict=True)]
    if min(shared, default=0) < LEAST_SHARED:
        texts = [generate(model, tokenizer, list(texts), limit, token_budget)
                 for texts, limit in zip(kinds, limits, strict=True)]
        return [list(of_item) for of_item in zip(*texts, strict=True)]
    model.eval()
    written = [[""] * len(limits) for _ in sources]
    sizes = [max(len(of_kind[i]) + limit for of_kind, limit in zip(ids, limits, strict=True))
             for i in range(len(shared))]
    for batch in _batches(range(len(shared)), lambda i: 0, sizes.__getitem__, token_budget):
        begun = _on(model, _padded_left([ids[0][i][: shared[i]] for i in batch], model.config.pad_token_id))
        places = (begun["attention_mask"].cumsum(1) - 1).clamp(min=0)
        cache = model(**begun, position_ids=places, use_cache=True, logits_to_keep=1).past_key_values
        for kind, limit in enumerate(limits):
            rest = _on(model, _padded_left([ids[kind][i][shared[i]:] for i in batch], model.config.pad_token_id))
            whole = {name: torch.cat([begun[name], rest[name]], dim=1) for name in rest}
            out = model.generate(**whole, past_key_values=cache, do_sample=False, num_beams=1, max_new_tokens=limit)
            cache.crop(places.shape[1] - cache.get_seq_length())
            new = tokenizer.batch_decode(out[:, whole["input_ids"].shape[1]:], skip_special_tokens=True)
            for i, text in zip(batch, new, strict=True):
                written[i][kind] = text.strip()
    return written


def _on(model, tensors):
    return {name: tensor.to(model.device) for name, tensor in tensors.items()}


def _read(model, tokenizer, sources, behind):
    """Return the token ids of sources, cut to the model's context; a causal one needs room for those `behind`."""
    context, kind = model_context(model), model_kind(model)
    encoded = encode_sources(tokenizer, sources, kind)
    if context is None:
        return encoded
    most = context - LEAST_READ if kind == "causal" else context
    if max(behind, default=0) > most:
        raise StudyError(f"{max(behind)} tokens to write are too many for a model with {context} positions, which has "
                         f"room for {most}; lower max_explanation_tokens (in training: max_target_tokens)")
    room = [context - length if kind == "causal" else context for length in behind]
    return [cut_source(tokenizer, *one) for one in zip(sources, encoded, room, strict=True)]


def _batches(keys, group, size, token_budget):
    """Cut `keys` into lists of one group and similar size, the largest first; rows · largest size is in the budget."""
    keys, batches = sorted(keys, key=lambda key: (group(key), size(key)), reverse=True), []
    for key in keys:
        last = batches[-1] if batches else []
        if last and group(last[0]) == group(key) and (len(last) + 1) * size(last[0]) <= token_budget:
            last.append(key)
        else:
            batches.append([key])
    return batches


def _padded_left(lists, pad):
    return {name: tensor.flip(1) for name, tensor in pad_inputs([ids[::-1] for ids in lists], pad).items()}


class _EndsWith(StoppingCriteria):
    """Stops each sequence that ends with the tokens of a text, as they are after another word.

    The library's StopStringCriteria compares characters: a vocabulary in lower case (BERT) would never stop, and its
    table of a vocabulary of 32,000 takes 0.2 s in every call.
    """

    def __init__(self, tokenizer, text):
        first = count_tokens_before(tokenizer, [f"a {text}"], [1])[0]
        self.ids = torch.tensor(encode_targets(tokenizer, [f"a {text}"])[0][first:])

    def __call__(self, input_ids, scores, **kwargs):
        if input_ids.shape[1] < len(self.ids):
            return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
        return (input_ids[:, -len(self.ids):] == self.ids.to(input_ids.device)).all(dim=1)


@_less_at_a_time
@torch.no_grad()
def score_choices(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, items: list[dict],
                  method: str | Method = "label_only", prefixes: list[str] | None = None,
                  sources: list[str] | None = None,
                  token_budget: int = 4096) -> tuple[list[list[float]], list[list[int]]]:
    """Return (scores, tokens): for each question a list over its choices, empty where it has none.

    A score is Σ log p over the tokens of the choice in the sentence with which a student of `method` answers, full stop
    and end token included, so that "bank" does not count as the beginning of "bank account". `tokens` is the number of
    these tokens, for scores per token. The beginning of the sentence is given, and before it the text of `prefixes`,
    one per question, as if the student had written it. `sources` replace the question as the method asks it. Source
    and forced text are read once for all choices, where the model allows it. The scores of a classifier are log p of
    the choices, one token each.
    """
    model.eval()
    places = [i for i, item in enumerate(items) if item["choices"]]
    asked = [items[i] for i in places]
    if model_kind(model) == "classifier":
        results = _classifier_scores(model, tokenizer, asked, token_budget)
    else:
        results = _answer_scores(model, tokenizer, method_of(method), asked,
                                 [sources[i] for i in places] if sources else None,
                                 [prefixes[i] for i in places] if prefixes else None, token_budget)
    scores, tokens = [[] for _ in items], [[] for _ in items]
    for i, (of_choices, counts) in zip(places, results, strict=True):
        scores[i], tokens[i] = of_choices, counts
    return scores, tokens


def choose(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, items: list[dict], *args: object) -> list[str]:
    """Return the most likely choice of each of `items`, which all have choices; `args` as of score_choices."""
    return [likeliest(item, scores)
            for item, scores in zip(items, score_choices(model, tokenizer, items, *args)[0], strict=True)]


def _answer_scores(model, tokenizer, asks, items, sources, prefixes, token_budget):
    """Return [(scores, tokens)] of questions that have choices."""
    if not items:
        return []
    sources = sources or [asks.source(item, asks.answer) for item in items]
    heads = [asks.before_answer(prefix) for prefix in prefixes or [""] * len(items)]
    texts = [head + asks.says(choice) for head, item in zip(heads, items, strict=True) for choice in item["choices"]]
    begins = [_before_answer(asks, head) for head, item in zip(heads, items, strict=True) for _ in item["choices"]]
    ends = [] if asks.one_text and not asks.explains_first else [end_token(tokenizer)]
    targets = iter([(ids + ends, given) for ids, given in zip(
        encode_targets(tokenizer, texts), count_tokens_before(tokenizer, texts, begins), strict=True)])
    rows = [[next(targets) for _ in item["choices"]] for item in items]
    longest = [max(len(ids) for ids, _ in of_item) for of_item in rows]
    read = _read(model, tokenizer, sources, longest)
    counts = [[len(ids) - given for ids, given in of_item] for of_item in rows]
    likelihoods = _causal_likelihoods if model_kind(model) == "causal" else _seq2seq_likelihoods
    return list(zip(likelihoods(model, read, rows, token_budget), counts, strict=True))


def _causal_likelihoods(model, read, rows, token_budget):
    """Return Σ log p of each target, after its first `given` tokens: for each question a list over its rows.

    `read`: token ids of each question; `rows`: [(token ids, given)] of each question.
    """
    numbers = itertools.count()
    questions = [[TokenRow(next(numbers), source, ids, given) for ids, given in of_item]
                 for source, of_item in zip(read, rows, strict=True)]
    flat = [row for of_item in questions for row in of_item]
    sums = iter(loss_sums(model, shared(questions) if shares_tokens(model) else flat, len(flat), token_budget,
                          model.config.pad_token_id, None, model.device).tolist())
    return [[-next(sums) for _ in of_item] for of_item in questions]


def _seq2seq_likelihoods(model, read, rows, token_budget, share=None):
    """Return the same of an encoder-decoder: what the rows of a question share is computed once for all of them.

    The encoder reads the source, and the decoder the beginning of the targets up to what counts. The questions of a
    batch have beginnings of similar length, and what goes beyond the shortest is read for each row. So no padding
    stands between the beginning and the rest, where models with relative positions would count it. `share`: whether
    beginnings are read once; None for models that compute the same then.
    """
    sizes = [len(of_item) * (len(source) + max(len(ids) for ids, _ in of_item))
             for source, of_item in zip(read, rows, strict=True)]
    pad, start, results = model.config.pad_token_id, model.config.decoder_start_token_id, {}
    share = _reads_on(model) if share is None else share
    begun = [min(1 + len(commonprefix([ids for ids, _ in of_item])), *(given for _, given in of_item)) if share else 0
             for of_item in rows]
    for batch in _batches(range(len(rows)), lambda i: begun[i] // SIMILAR, sizes.__getitem__, token_budget):
        targets, known = [row for i in batch for row in rows[i]], min(begun[i] for i in batch)
        inputs = padded([[start, *ids[:-1]][known:] for ids, _ in targets], pad).to(model.device)
        labels = padded([([IGNORED] * given + ids[given:])[known:] for ids, given in targets], IGNORED).to(model.device)
        index = torch.tensor([number for number, i in enumerate(batch) for _ in rows[i]], device=model.device)
        source = _on(model, pad_inputs([read[i] for i in batch], pad))
        hidden, mask = model.get_encoder()(**source).last_hidden_state, source["attention_mask"]
        places, cache = (labels != IGNORED).flatten().nonzero()[:, 0], None
        if known:
            beginnings = torch.tensor([[start, *rows[i][0][0][: known - 1]] for i in batch], device=model.device)
            with output_layer_on(model, places[:0]):
                cache = model(encoder_outputs=BaseModelOutput(hidden), attention_mask=mask, use_cache=True,
                              decoder_input_ids=beginnings).past_key_values
            cache.batch_select_indices(index)
        with output_layer_on(model, places):
            logits = model(encoder_outputs=BaseModelOutput(hidden[index]), attention_mask=mask[index],
                           decoder_input_ids=inputs, past_key_values=cache, use_cache=True).logits
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        losses = torch.nn.functional.cross_entropy(logits, labels.flatten()[places], reduction="none").double()
        sums = torch.zeros(len(targets), dtype=torch.float64, device=model.device)
        found = iter((-sums.index_add(0, places // labels.shape[1], losses)).tolist())
        results |= {i: [next(found) for _ in rows[i]] for i in batch}
    return [results[i] for i in range(len(rows))]


def _reads_on(model):
    """Return whether the decoder of a model computes the same if it reads a target in two parts.

    Some architectures do not (positions that count padding, sparse attention). Both ways are computed once, for made
    targets. Only float32 can tell (see sharing.shares_tokens).
    """
    if model_kind(model) != "seq2seq":
        return False
    if model not in READS_ON and torch.finfo(model.dtype).eps <= torch.finfo(torch.float32).eps:
        read = [[11, 12, 13, 14], [15, 16]]
        rows = [[([17, 18, 19, 20, 21, 22], 4), ([17, 18, 19, 20, 23], 4)], [([24, 25, 26], 2), ([24, 25, 27, 17], 2)]]
        try:
            with torch.autocast(model.device.type, enabled=False):
                apart, together = (list(itertools.chain(*_seq2seq_likelihoods(model, read, rows, 10**4, share)))
                                   for share in (False, True))
            READS_ON[model] = all(abs(one - other) < SAME for one, other in zip(apart, together, strict=True))
        except Exception as error:  # every architecture refuses in its own way
            if is_memory_error(error):
                raise
            READS_ON[model] = False
    return READS_ON.get(model, False)


def _classifier_scores(model, tokenizer, items, token_budget):
    """Return [(log p of each choice, 1 each)] of questions that have choices."""
    context, results = model_context(model), {}
    rows = [choice_row(tokenizer, item, context or 10**9)[0] for item in items]
    for batch in _batches(range(len(rows)), lambda i: 0, lambda i: len(rows[i].source), token_budget):
        chunk = pad_choices([rows[i] for i in batch], model.config.pad_token_id)
        scores = choice_logits(model, _on(model, chunk))
        of_choices = scores.double().log_softmax(dim=1).tolist()
        results |= {i: (of_choices[number][: len(rows[i].pairs)], [1] * len(rows[i].pairs))
                    for number, i in enumerate(batch)}
    return [results[i] for i in range(len(items))]


def answer_tokens(tokenizer: PreTrainedTokenizerBase, method: str | Method, items: list[dict]) -> int:
    """Return the most tokens that an answer to one of `items` takes, with the marker of an explanation after it."""
    answers = {answer for item in items for answer in [*item["choices"], item["answer"]]}
    texts = [f" {method_of(method).says(answer)} {MARKER}" for answer in sorted(answers)]
    return 1 + max(map(len, encode_targets(tokenizer, texts)))


def dev_accuracy(tokenizer: PreTrainedTokenizerBase, items: list[dict], method: str | Method = "label_only",
                 by: str = "generation", max_explanation_tokens: int = 128) -> Callable[[PreTrainedModel], float]:
    """Return a function of the model that returns its accuracy on `items` (records of tables.QUESTIONS).

    `by` generation: the student writes as many tokens as an answer can take, and an explanation of at most
    `max_explanation_tokens` only if it comes before the answer. `by` scores: the answer is the most likely choice; this
    needs a method that answers first and questions with choices. A classifier always chooses.
    """
    asks = method_of(method)
    if by not in ("generation", "scores"):
        raise StudyError(f"dev_accuracy: unknown '{by}'; known: generation, scores")
    if by == "scores" and (asks.explains_first or not all(item["choices"] for item in items)):
        raise StudyError("dev_accuracy: scores need choices and an answer that comes first; the method or the "
                         "data set lacks one of them; use generation")
    sources, stop = [asks.source(item, asks.answer) for item in items], MARKER if asks.one_text else ""
    limit = answer_tokens(tokenizer, method, items) + (max_explanation_tokens if asks.explains_first else 0)

    def accuracy(model):
        if by == "scores" or model_kind(model) == "classifier":
            answers = choose(model, tokenizer, items, asks)
        else:
            texts = generate(model, tokenizer, sources, limit, stop=stop)
            answers = [asks.read(text, item["choices"])[0] for text, item in zip(texts, items, strict=True)]
        right = [answered_right(answer, item) for answer, item in zip(answers, items, strict=True)]
        return sum(right) / len(right)

    return accuracy


def likeliest(item: dict, scores: list[float]) -> str:
    """Return the choice of a question with the highest score; the first of them if several are equal."""
    return item["choices"][scores.index(max(scores))]


def predict_questions(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, method: str | Method,
                      items: list[dict], max_explanation_tokens: int, max_answer_tokens: int = 0) -> list[dict]:
    """Return one record per question with what the student wrote, see tables.PREDICTIONS (without seed).

    `max_answer_tokens`: where the right answers are not known; 0 for as many as the longest of them takes.
    The method decides which tags ask for the answer and for the explanation, and whether one text holds both. `scores`
    and `score_tokens` are from score_choices, after the student's own explanation if the method explains first.
    """
    if model_kind(model) == "classifier":
        return _classify(model, tokenizer, items)
    asks = method_of(method)
    limit = max_answer_tokens or answer_tokens(tokenizer, method, items)
    limit += max_explanation_tokens if asks.one_text else 0
    tags = {asks.answer: limit} | ({} if asks.explanation is None or asks.one_text else
                                   {asks.explanation: max_explanation_tokens})
    texts = generate_each(model, tokenizer, [[asks.source(item, tag) for tag in tags] for item in items],
                          list(tags.values()))
    sentences = _decoded_sentences(tokenizer, asks, items)
    records = [_record(asks, item, sentence, *of_item)
               for item, sentence, of_item in zip(items, sentences, texts, strict=True)]
    before = [record["explanation"] for record in records] if asks.explains_first else None
    scores, tokens = score_choices(model, tokenizer, items, asks, before)
    return [{**record, "scores": of_choices, "score_tokens": counts}
            for record, of_choices, counts in zip(records, scores, tokens, strict=True)]


def _decoded_sentences(tokenizer, asks, items):
    """Return the sentence of each right answer as this vocabulary decodes it: what a text has to equal."""
    sentences = [asks.says(item["answer"]) for item in items]
    decoded = tokenizer.batch_decode(encode_targets(tokenizer, sentences), skip_special_tokens=True) if items else []
    return [text.strip() for text in decoded]


def _record(asks: Method, item, sentence, text, explanation=None):
    predicted, beside = asks.read(text, item["choices"])
    if asks.explains_first:
        exact, beside = text.endswith(sentence), beside if predicted else beside or text  # without an answer all of it
    else:
        exact = text.startswith(sentence) if asks.one_text else text == sentence
    if explanation is None:
        explanation = beside if asks.one_text else ""
    return _as_record(item, text, predicted, exact, explanation)


def _as_record(item, generated, predicted, exact, explanation):
    return {"id": item["id"], "split": item["split"], "answer": item["answer"], "generated": generated,
            "predicted": predicted, "correct": answered_right(predicted, item), "exact": exact,
            "explanation": explanation}


def _classify(model, tokenizer, items):
    scores, tokens = score_choices(model, tokenizer, items)
    chosen = [likeliest(item, of_choices) for item, of_choices in zip(items, scores, strict=True)]
    return [{**_as_record(item, answer, answer, answer == item["answer"], ""), "scores": of_choices,
             "score_tokens": counts}
            for item, answer, of_choices, counts in zip(items, chosen, scores, tokens, strict=True)]


def written_answers(folder: Path | str, questions: pd.DataFrame, predictions: pd.DataFrame) -> pd.DataFrame:
    """Return what the student in `folder` read and wrote up to the end of each answer, to attribute the answers.

    `predictions`: those of one seed. The result has one row per prediction with an answer and an explanation: the
    columns of `questions` with the student's `answer`, the `source`, the `text` up to the end of the sentence with the
    answer (the explanation is before it if the method explains first), and `begins`: after how many characters of
    `text` the answer itself begins.
    """
    asks = asked_as(folder)
    said = predictions[(predictions["predicted"] != "") & (predictions["explanation"].str.strip() != "")]
    table = questions.drop(columns="answer").merge(
        said[["id", "predicted", "explanation"]].rename(columns={"predicted": "answer"}), on="id")
    written = [written_answer(asks, item, item["answer"], item["explanation"]) for item in table.to_dict("records")]
    return table.assign(**{name: list(values) for name, values in zip(
        ("source", "text", "begins"), zip(*written, strict=True) if written else ([], [], []), strict=True)})


def written_answer(asks: Method, item: dict, answer: str, explanation: str) -> tuple[str, str, int]:
    """Return (source, text, begins) of an answer as a student wrote it; see written_answers."""
    head = asks.before_answer(explanation) if asks.explains_first else ""
    return asks.source(item, asks.answer), head + asks.says(answer), _before_answer(asks, head)


def _before_answer(asks, head):
    """Return how many characters come before an answer: `head` and the beginning of the sentence with the answer."""
    return len(head + asks.says("\0").partition("\0")[0].rstrip())


def gaps_of(folder: Path | str, questions: pd.DataFrame) -> dict:
    """Return the collating.student_gaps of `questions` for the student in `folder`."""
    about = read_json(Path(folder) / "student.json")
    return student_gaps({**about.get("student", {}), "model": str(folder), "tokenizer": ""}, asked_as(folder),
                        questions)


def load_trained(folder: Path | str, precision: str = "float32",
                 place: str = "") -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return (model, tokenizer) of the student in `folder`, with weights in `precision`.

    `place`: ``cpu`` or ``cuda``; "" for a GPU if there is one.
    """
    model, tokenizer = load_student(str(folder))
    for finds_out in (shares_tokens, _reads_on):  # once for a model, and only float32 can tell
        finds_out(model)
    return model.to(place or device(), {"float32": torch.float32, "bf16": torch.bfloat16}[precision]), tokenizer


def predict_with(folder: Path | str, questions: pd.DataFrame, max_explanation_tokens: int, seed: int,
                 precision: str = "float32") -> pd.DataFrame:
    """Return the predictions of the student that train_student wrote into `folder`, a frame of tables.PREDICTIONS.

    `precision` of the weights: float32, or bf16, which takes a third of the time on a processor with instructions for
    it. Raises StudyError if the folder does not hold a complete student.
    """
    folder = Path(folder)
    if not is_complete(folder):
        raise StudyError(f"{folder}: no complete student here; run the training notebook first, or again")
    model, tokenizer = load_trained(folder, precision)
    records = predict_questions(model, tokenizer, asked_as(folder), questions.to_dict("records"),
                                max_explanation_tokens)
    return pd.DataFrame(records).assign(seed=seed)
