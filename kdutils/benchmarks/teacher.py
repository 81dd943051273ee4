"""How fast a teacher writes: HfTeacher against the library's plain batched generate over whole prompts.

    python -m kdutils.teacher.benchmark [--smoke] [--output outputs/bench/teacher]

Both get the same model, the same prompts and the same token budget in one process, in alternating order; what they
write is compared. The plain way is what a notebook would do without this package: prompts of like length padded on
the left, ``model.generate``, every row kept until the last has ended.

- the mini teacher with real prompts, and random weights of a real shape (a Llama of 58 M parameters on a CPU, of 1.1 B
  in bf16 where there is a GPU) with prompts of random words, as such a model's text is noise anyway;
- about 700 shared and 60 own tokens, 16 and 64 new ones, nothing ends earlier;
- the mini teacher once more as it is used: up to 64 new tokens, each text ends at its blank line;
- the ratio over the number of shots (figure shots.png).

"equal rows" gives the plain way the batches of ours: what remains is the prefix that is read once.
Writes results.json and shots.png to the output folder and prints a table.
"""

import argparse
import platform
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

from kdutils.runs import machine, project_path, versions, write_json
from kdutils.teacher.completion import Decoding
from kdutils.teacher.hf import HfTeacher

GOALS = {16: 4.0, 64: 2.0}  # completions per second, ours over the plain way's
OWN = 60  # tokens of a prompt after the shots
SHOT = 70  # tokens of a shot


def plain(teacher, prompts, new, stop=(), rows=None):
    """Return the texts by the library's generate over whole prompts, `rows` at once or as many as the budget holds."""
    import torch

    tokenizer, model = teacher.tokenizer, teacher.model
    lengths = teacher.count_tokens(prompts)
    waiting, written = sorted(range(len(prompts)), key=lengths.__getitem__), {}
    stopping = {"stop_strings": list(stop), "tokenizer": tokenizer} if stop else {}
    while waiting:
        fitting = rows or max(1, teacher.token_budget // (lengths[waiting[-1]] + new))
        batch, waiting = waiting[-fitting:], waiting[:-fitting]
        inputs = tokenizer([prompts[row] for row in batch], return_tensors="pt", padding=True, padding_side="left")
        with torch.inference_mode():
            out = model.generate(input_ids=inputs["input_ids"].to(model.device),
                                 attention_mask=inputs["attention_mask"].to(model.device), max_new_tokens=new,
                                 do_sample=False, pad_token_id=tokenizer.pad_token_id, **stopping)
        texts = tokenizer.batch_decode(out[:, inputs["input_ids"].shape[1]:], skip_special_tokens=True)
        written |= zip(batch, texts, strict=True)
    texts = [written[row] for row in range(len(prompts))]
    for mark in stop:
        texts = [text.partition(mark)[0] for text in texts]
    return texts


def compare(teacher, prompts, new, stop=(), rows=None, repeats=3):
    """Return what both ways took, as medians over `repeats` in alternating order, and whether they wrote the same."""
    batches = []
    ways = {"shared": lambda: [one.text for one in teacher.complete(prompts, Decoding(new, tuple(stop)),
                                                                    keep=lambda pairs: batches.append(len(pairs)))],
            "plain": lambda: plain(teacher, prompts, new, stop, rows)}
    seconds, texts = {name: [] for name in ways}, {}
    for turn in range(repeats):
        for name in (list(ways) if turn % 2 else reversed(ways)):
            started = _now()
            texts[name] = ways[name]()
            seconds[name].append(_now() - started)
    same = sum(one == other for one, other in zip(texts["shared"], texts["plain"], strict=True))
    middle = {name: statistics.median(taken) for name, taken in seconds.items()}
    return {"prompts": len(prompts), "prompt_tokens": max(teacher.count_tokens(prompts)), "new_tokens": new,
            "rows": max(batches), "equal": same / len(prompts), "ratio": middle["plain"] / middle["shared"],
            "plain_per_second": len(prompts) / middle["plain"], "shared_per_second": len(prompts) / middle["shared"],
            "ratios": [p / s for p, s in zip(seconds["plain"], seconds["shared"], strict=True)], "seconds": seconds}


def _now():
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def mini_prompts(count, shots, seed=0):
    """Return prompts of the embedded world with drawn `shots` (72 tokens each) and drawn items, in its real layout."""
    from kdutils.data import mini_world
    from kdutils.mini.models import draw_item
    from kdutils.teacher.prompting import fill, template

    draw, keys, item = random.Random(seed), mini_world.split_keys()["train"], template("mini", "few_shot")[1]

    def text(after):
        drawn = draw_item(draw, keys)
        return fill(item, **{name: part for name, part in drawn.items() if isinstance(part, str)}) + after(drawn)

    head = "".join(text(lambda drawn: f" {drawn['rationale']}\n\n") for _ in range(shots))
    return [head + text(lambda drawn: "") for _ in range(count)]


def word_prompts(count, shots, words, seed=0):
    """Return prompts of random words, a token each: the same `shots` of 70 words, then 50 to 70 words of their own."""
    draw = random.Random(seed)
    head = draw.choices(words, k=SHOT * shots)
    return [" ".join(head + draw.choices(words, k=draw.randint(OWN - 10, OWN + 10))) for _ in range(count)]


def random_llama(folder, gpu, layers=None):
    """Write a Llama with random weights and a vocabulary of 32,000 words to `folder`; return the words."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = [f"w{number}" for number in range(31_999)]
    tokenizer = Tokenizer(models.WordLevel({word: at for at, word in enumerate(["<pad>", *words])}, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>").save_pretrained(folder)
    # The 1.1 B shape is TinyLlama's; the small one keeps its proportions.
    shape = ({"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22, "num_attention_heads": 32,
              "num_key_value_heads": 4} if gpu else
             {"hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 8, "num_attention_heads": 8,
              "num_key_value_heads": 8})
    shape["num_hidden_layers"] = layers or shape["num_hidden_layers"]
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=32_000, max_position_embeddings=2048, bos_token_id=None, eos_token_id=None,
                         pad_token_id=0, dtype="bfloat16" if gpu else "float32", **shape)
    LlamaForCausalLM(config).to(torch.bfloat16 if gpu else torch.float32).save_pretrained(folder)
    return words


def run(output, smoke, threads):
    """Run the benchmark, print the table, write results.json and shots.png to `output`; return the results."""
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.set_num_threads(threads or torch.get_num_threads())
    gpu = torch.cuda.is_available()
    with tempfile.TemporaryDirectory() as folder:
        words = random_llama(folder, gpu, layers=1 if smoke else None)
        big = HfTeacher(folder, token_budget=65_536 if gpu else 8192)
        mini = HfTeacher("kdutils/mini/teacher", token_budget=65_536 if gpu else 8192)
        name = f"llama {big.model.num_parameters() / 1e6:.0f} M"
        large = 10 if gpu else 1  # a GPU is through with a few prompts before it has begun
        contenders = {"mini teacher": (mini, mini_prompts, (8 if smoke else 64) * large),
                      name: (big, lambda count, shots: word_prompts(count, shots, words), (2 if smoke else 24) * large)}
        results, curve, repeats = [], [], 1 if smoke else 3
        about = {**machine(), "processor": processor()}
        _say(about)
        for label, (teacher, prompts_of, count) in contenders.items():
            prompts = prompts_of(count, 1 if smoke else 10)
            compare(teacher, prompts[:2], 2, repeats=1)  # warm: weights loaded, route decided
            for new in ((4,) if smoke else GOALS):
                results += [_told(label, compare(teacher, prompts, new, repeats=repeats), GOALS.get(new))]
            if not smoke:
                results += [_told(f"{label}, equal rows",
                                  compare(teacher, prompts, 16, rows=results[-2]["rows"], repeats=1))]
            for shots in ((1, 3) if smoke else (1, 3, 7, 12 if teacher is mini else 14)):
                few = prompts_of(max(2, count // 2), shots)
                curve += [{"model": label, "shots": shots, **compare(teacher, few, 4 if smoke else 16, repeats=1)}]
            if teacher is mini:
                results += [_told(f"{label}, 3 shots, to the blank line",
                                  compare(teacher, prompts_of(count, 3), 64, stop=["\n\n"], repeats=repeats))]
    found = {"machine": about, "versions": versions(), "smoke": smoke, "results": results, "shots": curve}
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / "results.json", found)
    draw(curve, output / "shots.png", 4 if smoke else 16)
    print()
    for row in curve:
        print(f"{row['model']}, {row['shots']} shots, {row['new_tokens']} new tokens: {row['ratio']:.1f} times")
    print(f"written: {output / 'results.json'}, {output / 'shots.png'}")
    return found


def processor():
    """Return the name of the processor, as far as the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def _say(about):
    packages = versions()
    print(f"{about['system']}, {about['processor']}, {about['gpu'] or 'no GPU'}, {about['cores']} cores, "
          f"{about['threads']} threads; torch {packages['torch']}, transformers {packages['transformers']}\n")
    print("| model | new tokens | prompt tokens | plain, texts/s | shared, texts/s | ratio | goal | same text |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|")


def _told(label, found, goal=None):
    print(f"| {label} | {found['new_tokens']} | {found['prompt_tokens']} | {found['plain_per_second']:.2f} | "
          f"{found['shared_per_second']:.2f} | {found['ratio']:.1f} | {f'≥ {goal:g}' if goal else '–'} | "
          f"{found['equal']:.0%} |", flush=True)
    return {"model": label, "goal": goal, **found}


def draw(curve, path, new):
    """Draw how the ratio grows with the number of shots, a line per model, to a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from kdutils.report.figures import STYLE

    plt.style.use(STYLE)
    figure, axis = plt.subplots(figsize=(6, 3.4))
    for place, label in enumerate(dict.fromkeys(row["model"] for row in curve)):
        rows = [row for row in curve if row["model"] == label]
        axis.plot([row["shots"] for row in rows], [row["ratio"] for row in rows], marker="o",
                  linestyle=("-", "--", ":")[place], label=label)
    axis.axhline(1, color="#5a6673", linewidth=1)
    axis.set_ylim(bottom=0)
    axis.set_xlabel("shots in the prompt (about 70 tokens each)")
    axis.set_ylabel("times as many texts per second")
    axis.set_title(f"Reading the shots once, {new} new tokens")
    axis.legend()
    figure.savefig(path, metadata={"Software": None})
    plt.close(figure)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m kdutils.teacher.benchmark", description=__doc__.split("\n")[0])
    parser.add_argument("--smoke", action="store_true", help="a few seconds: does it run, are the texts equal")
    parser.add_argument("--output", default="outputs/bench/teacher", help="folder for results.json and shots.png")
    parser.add_argument("--threads", type=int, default=0,
                        help="of both ways (default: every core, or OMP_NUM_THREADS); more than cores that are free "
                             "makes every figure noise")
    options = parser.parse_args()
    found = run(project_path(options.output), options.smoke, options.threads)
    if min(row["equal"] for row in found["results"]) < (0.5 if found["machine"]["gpu"] else 0.95):
        sys.exit("error: the two ways write different texts")  # a few may differ by rounding, in bf16 more
