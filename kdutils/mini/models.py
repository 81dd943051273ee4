"""The tiny models of the embedded world: a tokenizer, a teacher (causal LM) and a pretrained student (T5).

The teacher is trained on true sentences about the world and on transcripts in the layouts of
``kdutils/teacher/prompts/mini``, so it is prompted by the same code as a 13B model. Its transcripts ask keys of the
train split alone; it has not seen what it is asked about dev and test questions.

The student is pretrained as T5 was (Raffel et al. 2020, section 3.1): it fills gaps in sentences. They state the facts
of the whole world, including those that dev and test questions ask for, as the pretraining text of a real student
does. They hold no question, no list of choices and no explanation.
"""

import copy
import math
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdutils.data import mini_world as mini
from kdutils.data.questions import format_choices
from kdutils.teacher.prompting import fill, qualities, requests, template

if TYPE_CHECKING:
    from transformers import LlamaConfig, PreTrainedModel, PreTrainedTokenizerFast, T5Config

TEACHER = Path(__file__).with_name("teacher")
STUDENT = Path(__file__).with_name("student")
END = "<eos>"
SHARES = {"few_shot": 0.5, "counterfactual": 0.2, "critique": 0.12, "revision": 0.18}  # of transcripts
SHOTS = {"few_shot": 3, "counterfactual": 3, "critique": 2, "revision": 2}
GAP = "_"  # replaces the words that are left out of a passage
Keys = list[tuple[mini.Key, list[str]]]  # as split_keys returns them


def world_sentences() -> list[str]:
    """Return the facts of the world as sentences: each alone, and every two of one concept joined."""
    world, sentences = mini.load_world(), []
    for name, facts in world.concepts.items():
        subject = f"{mini.article(name).capitalize()} {name}"
        clauses = [world.clause(*fact) for fact in facts.items()]
        sentences += [f"{subject} {clause}." for clause in clauses]
        sentences += [f"{subject} {one}{join} {two}." for one in clauses for two in clauses if one != two
                      for join in (" and", ", but")]
    return sentences


def draw_passage(draw: random.Random) -> tuple[str, str]:
    """Return (passage with gaps, words that fill them), drawn to pretrain the student.

    A passage has one to three sentences; each states one or two facts of one concept. Four passages in five begin with
    the names of five concepts, theirs among them. In each sentence the subject or one to four words are left out.
    """
    world = mini.load_world()
    names = draw.sample(list(world.concepts), 5)
    sentences, filled = [], []
    for name in draw.sample(names, draw.randint(1, 3)):
        facts = draw.sample(list(world.concepts[name].items()), draw.randint(1, 2))
        clauses = draw.choice((" and ", ", but ")).join(world.clause(*fact) for fact in facts)
        words = f"{mini.article(name).capitalize()} {name} {clauses}".split()
        start, length = (0, 2) if draw.random() < 0.5 else (draw.randrange(len(words)), draw.randint(1, 4))
        filled.append(" ".join([GAP, *words[start:start + length]]))
        sentences.append(" ".join([*words[:start], GAP, *words[start + length:]]) + ".")
    head = f"{', '.join(names)}: " if draw.random() < 0.8 else ""
    return head + " ".join(sentences), " ".join(filled)


def draw_item(draw: random.Random, keys: Keys) -> dict[str, Any]:
    """Return a question about one of `keys` and the true texts that the layouts need; keys are their placeholders."""
    key, concepts = draw.choice(keys)
    answer = draw.choice(concepts)
    question, choices = mini.draw_question(draw, key, answer)
    critique_request, revision_request = draw.choice(requests("mini"))
    half = mini.half_right_choices(question, choices, answer)
    draw.shuffle(half)
    return {"question": question, "choices": format_choices(choices), "answer": answer,
            "rationale": mini.true_rationale(question, choices, answer, half[:1]),
            "critique": mini.true_critique(half[1]),
            "revision": mini.true_rationale(question, choices, answer, half[:2]),
            "wrong": draw.choice([name for name in choices if name != answer]), "names": choices,
            "quality": " and ".join(draw.sample(qualities(), 2)),
            "critique_request": critique_request, "revision_request": revision_request}


def transcript(draw: random.Random, keys: Keys, layout: str) -> list[tuple[str, bool]]:
    """Return [(text, whether the teacher wrote it)] of one transcript: SHOTS worked examples, then the item.

    `layout` is a key of SHARES.
    """
    parts = []
    prompt = template("mini", "few_shot" if layout == "counterfactual" else layout)[1]
    for number in range(SHOTS[layout] + 1):
        item = draw_item(draw, keys)
        written = item["rationale" if layout in ("few_shot", "counterfactual") else layout]
        wrong = layout == "counterfactual" and number == SHOTS[layout]
        if wrong:
            item["answer"] = item["wrong"]
            written = mini.true_rationale(item["question"], item["names"], item["wrong"])
        asked, filled = prompt, {name: text for name, text in item.items() if isinstance(text, str)}
        if "Answer (" in prompt and not wrong:  # the teacher also writes right answers
            asked, _, rest = prompt.partition(" The answer is")
            written = fill(f"The answer is{rest}", **filled) + f" {written}"
        parts += [(fill(asked, **filled), False), (f" {written}\n\n", True)]
    return parts


def make_tokenizer() -> "PreTrainedTokenizerFast":
    """Return a byte-level BPE tokenizer, trained so that every word of the world is one token; it encodes any text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    draw, keys = random.Random("tokenizer"), mini.split_keys()["train"]
    texts = ["".join(text for text, _ in transcript(draw, keys, layout)) for layout in SHARES for _ in range(400)]
    texts += world_sentences() + [f" {word}" for word in qualities()] * 5
    texts += ["[predict] [explain] [factual] [counterfactual] Explanation: So the answer is. The answer is."] * 9
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=4000, min_frequency=2, special_tokens=["<pad>", END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False))
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token=END,
                                   clean_up_tokenization_spaces=False)


def student_tokenizer(tokenizer: "PreTrainedTokenizerFast") -> "PreTrainedTokenizerFast":
    """Return a copy of the tokenizer that ends every text with the end token, as that of T5 does."""
    from tokenizers import processors

    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.backend_tokenizer.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(single=f"$A {END}", special_tokens=[(END, tokenizer.eos_token_id)])])
    return tokenizer


def teacher_config(tokenizer: "PreTrainedTokenizerFast") -> "LlamaConfig":
    """Return the teacher's config: Llama architecture, 4 layers, width 128, about 1.3 million parameters."""
    from transformers import LlamaConfig

    return LlamaConfig(vocab_size=len(tokenizer), hidden_size=128, intermediate_size=384, num_hidden_layers=4,
                       num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=1024,
                       initializer_range=0.05, tie_word_embeddings=True, bos_token_id=None,
                       eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)


def student_config(tokenizer: "PreTrainedTokenizerFast") -> "T5Config":
    """Return the student's config: T5 architecture, 2 + 2 layers, width 64, about 260,000 parameters."""
    from transformers import T5Config

    return T5Config(vocab_size=len(tokenizer), d_model=64, d_kv=16, d_ff=128, num_layers=2, num_decoder_layers=2,
                    num_heads=4, dropout_rate=0.0, feed_forward_proj="gated-gelu", decoder_start_token_id=0,
                    eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)


Curve = list[tuple[int, float]]  # (step, loss)


def train_teacher(tokenizer: "PreTrainedTokenizerFast", steps: int, batch: int = 16, learning_rate: float = 3e-3,
                  seed: int = 0, report: Callable[[str], Any] = print) -> "tuple[PreTrainedModel, Curve]":
    """Train the teacher for `steps` steps of `batch` transcripts; return (model, [(step, loss)]).

    The loss is the mean over the tokens that the teacher writes; it is never trained to write a question. One row in
    eight is a set of facts instead. Deterministic for one seed, machine and number of threads.
    """
    from transformers import LlamaForCausalLM, set_seed

    set_seed(seed)
    model = LlamaForCausalLM(teacher_config(tokenizer)).train()
    draw, keys, sentences = random.Random(f"teacher {seed}"), mini.split_keys()["train"], world_sentences()
    batches = _batches(draw, lambda: _row(draw, keys, sentences, tokenizer), batch)
    return model, _fit(model, batches, lambda rows: _own_loss(model, _pad(rows, tokenizer.pad_token_id)), steps,
                       learning_rate, report)


def pretrain_student(tokenizer: "PreTrainedTokenizerFast", steps: int, batch: int = 48, learning_rate: float = 4e-3,
                     seed: int = 0, report: Callable[[str], Any] = print) -> "tuple[PreTrainedModel, Curve]":
    """Pretrain the student for `steps` steps of `batch` passages with gaps; return (model, [(step, loss)]).

    The loss is the mean over the tokens that fill the gaps. `tokenizer` comes from `student_tokenizer`.
    """
    from transformers import T5ForConditionalGeneration, set_seed

    set_seed(seed)
    model = T5ForConditionalGeneration(student_config(tokenizer)).train()
    draw = random.Random(f"student {seed}")
    batches = _batches(draw, lambda: tokenizer(list(draw_passage(draw)))["input_ids"], batch)
    return model, _fit(model, batches, lambda rows: model(**_pad(rows, tokenizer.pad_token_id)).loss, steps,
                       learning_rate, report)


def _fit(model, batches, loss_of, steps, learning_rate, report):
    """Train `model` with AdamW on `steps` of the `batches`; return [(step, loss)] and leave it in evaluation mode.

    Learning rate: linear warm-up over 5 % of the steps, then cosine to a tenth. The Trainer of transformers gives the
    same weights, bit for bit, but takes more lines and records the mean loss since the last record.
    """
    import torch

    def rate(step):
        return min((step + 1) / max(1, steps // 20), 0.1 + 0.45 * (1 + math.cos(math.pi * min(1, step / steps))))

    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.05, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    curve, started = [], time.time()
    for step in range(1, steps + 1):
        loss = loss_of(next(batches))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % max(1, steps // 40) == 0:
            curve.append((step, loss.item()))
            report(f"step {step} of {steps}, loss {loss.item():.3f}, {time.time() - started:.0f} s")
    model.eval()
    return curve


def _batches(draw, row, batch, pool=8):
    """Yield batches of rows of like length: `pool` batches are drawn, ordered by length, cut and shuffled."""
    while True:
        rows = sorted((row() for _ in range(pool * batch)), key=lambda row: len(row[0]))
        cut = [rows[start:start + batch] for start in range(0, len(rows), batch)]
        draw.shuffle(cut)
        yield from cut


def _own_loss(model, tensors):
    """Return the mean −log p of the tokens that the teacher writes; the output layer runs on these alone."""
    import torch

    hidden = model.model(input_ids=tensors["input_ids"], attention_mask=tensors["attention_mask"]).last_hidden_state
    labels = tensors["labels"][:, 1:]
    own = labels != -100
    return torch.nn.functional.cross_entropy(model.lm_head(hidden[:, :-1][own]), labels[own])


def _row(draw, keys, sentences, tokenizer):
    """Return (token ids, labels); the label is -100 for tokens that the teacher does not write."""
    if draw.random() < 1 / 8:
        parts = [(f" {sentence}", True) for sentence in draw.sample(sentences, 16)]
    else:
        parts = transcript(draw, keys, draw.choices(list(SHARES), SHARES.values())[0])
    encoded = tokenizer("".join(text for text, _ in parts), return_offsets_mapping=True)
    spans, end = [], 0
    for text, own in parts:
        spans.append((end, end + len(text), own))
        end += len(text)
    own = [any(first <= start < last and mine for first, last, mine in spans)
           for start, _ in encoded["offset_mapping"]]
    ids = encoded["input_ids"]
    return ids, [token if mine else -100 for token, mine in zip(ids, own, strict=True)]


def _pad(rows, pad):
    import torch

    wide, long = (max(len(row[part]) for row in rows) for part in (0, 1))
    return {"input_ids": torch.tensor([ids + [pad] * (wide - len(ids)) for ids, _ in rows]),
            "attention_mask": torch.tensor([[1] * len(ids) + [0] * (wide - len(ids)) for ids, _ in rows]),
            "labels": torch.tensor([labels + [-100] * (long - len(labels)) for _, labels in rows])}


def install(folder: Path) -> None:
    """Copy the models in `folder` (teacher/, student/) into the project, where experiments and notebooks load them."""
    for made, kept in ((folder / "teacher", TEACHER), (folder / "student", STUDENT)):
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(made, kept)
