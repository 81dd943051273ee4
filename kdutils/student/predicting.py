"""What a student writes: answers and explanations by greedy generation."""

from pathlib import Path

import pandas as pd
import torch

from kdutils.errors import StudyError
from kdutils.runs import is_whole, read_json
from kdutils.student.methods import EXPLAINS, MARKER, answered, asked, is_right, parse_answer
from kdutils.student.models import load_student


@torch.no_grad()
def generate(model, tokenizer, sources, max_new_tokens, token_budget=4096):
    """Return the greedy continuation of each source text, in their order.

    Equal sources are run once; batches hold sources of like length, padded tokens (source and new ones)
    within `token_budget`. A sequence ends with its end token or after `max_new_tokens`.
    """
    model.eval()
    distinct = sorted(set(sources))
    encoded = dict(zip(distinct, tokenizer(distinct)["input_ids"], strict=True)) if distinct else {}
    distinct.sort(key=lambda text: (len(encoded[text]), text))
    written = {}
    while distinct:
        size = max(1, token_budget // (len(encoded[distinct[-1]]) + max_new_tokens))
        batch, distinct = distinct[-size:], distinct[:-size]
        inputs = tokenizer.pad({"input_ids": [encoded[text] for text in batch]}, padding_side="right",
                               return_tensors="pt").to(model.device)
        out = model.generate(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], do_sample=False,
                             num_beams=1, max_new_tokens=max_new_tokens)
        written |= dict(zip(batch, tokenizer.batch_decode(out, skip_special_tokens=True), strict=True))
    return [written[source].strip() for source in sources]


def answer_tokens(tokenizer, answers):
    """Return how many tokens an answer takes at most, marker of a following explanation included."""
    texts = sorted({f"{answered(answer)} {MARKER}" for answer in answers})
    return max(len(ids) for ids in tokenizer(texts)["input_ids"])


def dev_accuracy(tokenizer, items):
    """Return a function of the model: the share of `items` (records of tables.QUESTIONS) answered rightly.

    Only as many tokens are generated as an answer can take; explanations are not.
    """
    sources = [asked(item, "predict") for item in items]
    limit = answer_tokens(tokenizer, [choice for item in items for choice in [*item["choices"], item["answer"]]])

    def accuracy(model):
        texts = generate(model, tokenizer, sources, limit)
        right = [is_right(parse_answer(text, item["choices"])[0], item["answer"], item["choices"])
                 for text, item in zip(texts, items, strict=True)]
        return sum(right) / len(right)

    return accuracy


def predict_questions(model, tokenizer, method, items, max_explanation_tokens):
    """Return one record per question with what the student wrote: see tables.PREDICTIONS (without seed).

    The answer is read from the ``[predict]`` task; the explanation comes from the same text (standard) or
    from its own task (multitask).
    """
    limit = answer_tokens(tokenizer, [choice for item in items for choice in [*item["choices"], item["answer"]]])
    together = EXPLAINS[method] == "predict"
    answers = generate(model, tokenizer, [asked(item, "predict") for item in items],
                       limit + max_explanation_tokens if together else limit)
    explanations = [""] * len(items)
    if EXPLAINS[method] and not together:
        sources = [asked(item, EXPLAINS[method]) for item in items]
        explanations = generate(model, tokenizer, sources, max_explanation_tokens)
    return [_record(item, answer, explanation, together)
            for item, answer, explanation in zip(items, answers, explanations, strict=True)]


def _record(item, text, explanation, together):
    predicted, rest = parse_answer(text, item["choices"])
    return {"id": item["id"], "split": item["split"], "answer": item["answer"], "generated": text,
            "predicted": predicted, "correct": is_right(predicted, item["answer"], item["choices"]),
            "exact": text.startswith(answered(item["answer"])) if together else text == answered(item["answer"]),
            "explanation": rest if together else explanation}


def predict_with(folder, questions, max_explanation_tokens, seed):
    """Load the student that train_student wrote into `folder` and return its predictions: tables.PREDICTIONS.

    Runs on a GPU where there is one. Raises StudyError when the folder is not a whole student.
    """
    folder = Path(folder)
    if not is_whole(folder):
        raise StudyError(f"{folder}: no whole student here; run the training notebook first, or again")
    model, tokenizer = load_student(str(folder))
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    method = read_json(folder / "student.json")["method"]
    records = predict_questions(model, tokenizer, method, questions.to_dict("records"), max_explanation_tokens)
    return pd.DataFrame(records).assign(seed=seed)
