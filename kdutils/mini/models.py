"""The tiny models of the embedded world: one tokenizer, a teacher that is a real causal LM, a pretrained T5.

The teacher is trained on true sentences about the world and on transcripts in the layouts of
``kdutils/teacher/prompts/mini``, so the one prompting code path serves it and a 13B model alike.
Transcripts ask keys of the train split alone: what the teacher says on dev and test it has not seen.

The student is pretrained as T5 was (Raffel et al. 2020, section 3.1): it fills in what is left out of sentences. They
state the facts of the whole world, those that dev and test questions ask for, too, as the text that a real student was
pretrained on does; no question, no list of choices and no explanation is among them.
"""

import random
import time
from pathlib import Path

from kdutils.data import mini_world as mini
from kdutils.data.questions import format_choices
from kdutils.teacher.prompting import fill, qualities, requests, template

TEACHER = Path(__file__).with_name("teacher")
STUDENT = Path(__file__).with_name("student")
END = "<eos>"
SHARES = {"few_shot": 0.5, "counterfactual": 0.2, "critique": 0.12, "revision": 0.18}  # of the transcripts
SHOTS = {"few_shot": 3, "counterfactual": 3, "critique": 2, "revision": 2}
GAP = "_"  # stands for words left out of a passage


def world_sentences():
    """Return the facts of the world as sentences: each by itself, and every two of a concept joined."""
    world, sentences = mini.load_world(), []
    for name, facts in world.concepts.items():
        subject = f"{mini.article(name).capitalize()} {name}"
        clauses = [world.clause(*fact) for fact in facts.items()]
        sentences += [f"{subject} {clause}." for clause in clauses]
        sentences += [f"{subject} {one}{join} {two}." for one in clauses for two in clauses if one != two
                      for join in (" and", ", but")]
    return sentences


def draw_passage(draw):
    """Return (passage with gaps, what fills them) as one drawn pair of texts to pretrain the student on.

    One to three sentences, each stating one or two facts of one concept; four passages in five begin with the names of
    five concepts, theirs among them. Of each sentence the subject or a span of one to four words is left out.
    """
    world = mini.load_world()
    names = draw.sample(list(world.concepts), 5)
    told, filled = [], []
    for name in draw.sample(names, draw.randint(1, 3)):
        facts = draw.sample(list(world.concepts[name].items()), draw.randint(1, 2))
        clauses = draw.choice((" and ", ", but ")).join(world.clause(*fact) for fact in facts)
        words = f"{mini.article(name).capitalize()} {name} {clauses}".split()
        start, length = (0, 2) if draw.random() < 0.5 else (draw.randrange(len(words)), draw.randint(1, 4))
        filled.append(" ".join([GAP, *words[start:start + length]]))
        told.append(" ".join([*words[:start], GAP, *words[start + length:]]) + ".")
    head = f"{', '.join(names)}: " if draw.random() < 0.8 else ""
    return head + " ".join(told), " ".join(filled)


def draw_item(draw, keys):
    """Return a drawn question of one of `keys` as a dict with what each layout needs, texts true to the world."""
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


def transcript(draw, keys, layout):
    """Return [(text, is it the teacher's part)] of one transcript: some shots, then the item."""
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
        if "Answer (" in prompt and not wrong:  # a right answer is the teacher's part too: it may be asked for it
            asked, _, rest = prompt.partition(" The answer is")
            written = fill(f"The answer is{rest}", **filled) + f" {written}"
        parts += [(fill(asked, **filled), False), (f" {written}\n\n", True)]
    return parts


def make_tokenizer():
    """Train a byte-level BPE tokenizer in which every word of the world is one token and any text fits."""
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


def student_tokenizer(tokenizer):
    """Return a copy of the tokenizer that ends every text with the end token, as T5's own does."""
    import copy

    from tokenizers import processors

    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.backend_tokenizer.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(single=f"$A {END}", special_tokens=[(END, tokenizer.eos_token_id)])])
    return tokenizer


def teacher_config(tokenizer):
    """Return the teacher's shape: Llama architecture, 4 layers, width 128, about 1.3 million parameters."""
    from transformers import LlamaConfig

    return LlamaConfig(vocab_size=len(tokenizer), hidden_size=128, intermediate_size=384, num_hidden_layers=4,
                       num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=1024,
                       initializer_range=0.05,
                       tie_word_embeddings=True, bos_token_id=None, eos_token_id=tokenizer.eos_token_id,
                       pad_token_id=tokenizer.pad_token_id)


def student_config(tokenizer):
    """Return the student's shape: T5 architecture, 2 + 2 layers, width 64, about 260,000 parameters."""
    from transformers import T5Config

    return T5Config(vocab_size=len(tokenizer), d_model=64, d_kv=16, d_ff=128, num_layers=2, num_decoder_layers=2,
                    num_heads=4, dropout_rate=0.0, feed_forward_proj="gated-gelu", decoder_start_token_id=0,
                    eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)


def train_teacher(tokenizer, steps, batch=16, learning_rate=3e-3, seed=0, report=print):
    """Train the teacher for `steps` steps of `batch` transcripts; return (model, [(step, loss)]).

    The loss is the mean over the teacher's own part of the transcripts: it never has to invent a question.
    One in eight rows is a set of facts instead. Deterministic for one seed, machine and number of threads.
    """
    from transformers import LlamaForCausalLM, set_seed

    set_seed(seed)
    model = LlamaForCausalLM(teacher_config(tokenizer)).train()
    draw, keys, sentences = random.Random(f"teacher {seed}"), mini.split_keys()["train"], world_sentences()
    batches = _batches(draw, lambda: _row(draw, keys, sentences, tokenizer), batch)
    return model, _fit(model, batches, lambda rows: _own_loss(model, _pad(rows, tokenizer.pad_token_id)), steps,
                       learning_rate, report)


def pretrain_student(tokenizer, steps, batch=48, learning_rate=4e-3, seed=0, report=print):
    """Pretrain the student for `steps` steps of `batch` passages with gaps; return (model, [(step, loss)]).

    The loss is the mean over the tokens of what fills the gaps. `tokenizer`: that of student_tokenizer.
    """
    from transformers import T5ForConditionalGeneration, set_seed

    set_seed(seed)
    model = T5ForConditionalGeneration(student_config(tokenizer)).train()
    draw = random.Random(f"student {seed}")
    batches = _batches(draw, lambda: tokenizer(list(draw_passage(draw)))["input_ids"], batch)
    return model, _fit(model, batches, lambda rows: model(**_pad(rows, tokenizer.pad_token_id)).loss, steps,
                       learning_rate, report)


def _fit(model, batches, loss_of, steps, learning_rate, report):
    """Train `model` with AdamW on `steps` of the `batches`; return [(step, loss)] and leave it ready for use.

    Learning rate: linear warm-up over 5 % of the steps, then cosine to a tenth.
    """
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.05, betas=(0.9, 0.98))
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
    curve, started = [], time.time()
    for step in range(1, steps + 1):
        loss = loss_of(next(batches))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        rate.step()
        optimizer.zero_grad()
        if step % max(1, steps // 40) == 0:
            curve.append((step, loss.item()))
            report(f"step {step} of {steps}, loss {loss.item():.3f}, {time.time() - started:.0f} s")
    model.eval()
    return curve


def _rate(step, steps):
    import math

    warm = max(1, steps // 20)
    return min((step + 1) / warm, 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * min(1, step / steps))))


def _batches(draw, row, batch, pool=8):
    """Yield batches of rows of like length: `pool` batches are drawn, ordered by length, cut and shuffled."""
    while True:
        rows = sorted((row() for _ in range(pool * batch)), key=lambda row: len(row[0]))
        cut = [rows[start:start + batch] for start in range(0, len(rows), batch)]
        draw.shuffle(cut)
        yield from cut


def _own_loss(model, tensors):
    """Return the mean −log p over the teacher's own tokens; the output layer runs on those alone."""
    import torch

    hidden = model.model(input_ids=tensors["input_ids"], attention_mask=tensors["attention_mask"]).last_hidden_state
    labels = tensors["labels"][:, 1:]
    own = labels != -100
    return torch.nn.functional.cross_entropy(model.lm_head(hidden[:, :-1][own]), labels[own])


def _row(draw, keys, sentences, tokenizer):
    """Return (token ids, labels): -100 where the text is given and not the teacher's own."""
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


def install(folder):
    """Put the models in `folder` (teacher/, student/) into the project, where experiments and notebooks find them."""
    import shutil

    for made, kept in ((folder / "teacher", TEACHER), (folder / "student", STUDENT)):
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(made, kept)
