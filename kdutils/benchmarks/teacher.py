"""Speed of a teacher: HfTeacher, which shares the prefix, against the library's plain generate over whole prompts.

    python -m kdutils.benchmarks.teacher [--smoke] [--output outputs/bench/teacher]

Both use the same model, prompts and token budget in one process, in alternating order, and their texts are compared.
The plain method is what a notebook would do without this package: prompts of similar length, padded on the left,
``model.generate``, and every row kept until the last one has ended.

- The mini teacher with real prompts, and a Llama shape with random weights (58 M parameters on a CPU, 1.1 B in bf16 on
  a GPU) with prompts of random words.
- About 700 shared and 60 own tokens, 16 and 64 new tokens, no text ends earlier.
- The mini teacher as in the study: up to 64 new tokens, each text ends at its blank line.
- The ratio over the number of shots (figure shots.png).

"equal rows" gives the plain method the batch size of ours, so that only the shared prefix remains as a difference.
Writes results.json and shots.png to the output folder and prints a table.
"""

import random
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from kdutils.benchmarks.machine import command_line, conditions, exit_code, now, show_machine
from kdutils.errors import StudyError
from kdutils.report import figures
from kdutils.runs import machine, project_path, write_json
from kdutils.teacher.completion import Decoding
from kdutils.teacher.hf import HfTeacher

GOALS = {16: 4.0, 64: 2.0}  # new tokens: completions per second, ours divided by the plain method's
OWN = 60  # tokens of a prompt after the shots
SHOT = 70  # tokens of a shot


def plain(teacher: HfTeacher, prompts: list[str], new: int, stop: Sequence[str] = (),
          rows: int | None = None) -> list[str]:
    """Return texts of up to `new` tokens by the library's generate; a batch has `rows` prompts or fills the budget."""
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


def compare(teacher: HfTeacher, prompts: list[str], new: int, stop: Sequence[str] = (), rows: int | None = None,
            repeats: int = 3) -> dict:
    """Return the times of both methods, medians over `repeats` in alternating order, and the share of equal texts."""
    batches = []
    ways = {"shared": lambda: [one.text for one in teacher.complete(prompts, Decoding(new, tuple(stop)),
                                                                    keep=lambda pairs: batches.append(len(pairs)))],
            "plain": lambda: plain(teacher, prompts, new, stop, rows)}
    seconds, texts = {name: [] for name in ways}, {}
    for turn in range(repeats):
        for name in (list(ways) if turn % 2 else reversed(ways)):
            started = now()
            texts[name] = ways[name]()
            seconds[name].append(now() - started)
    same = sum(one == other for one, other in zip(texts["shared"], texts["plain"], strict=True))
    middle = {name: statistics.median(taken) for name, taken in seconds.items()}
    return {"prompts": len(prompts), "prompt_tokens": max(teacher.count_tokens(prompts)), "new_tokens": new,
            "rows": max(batches), "equal": same / len(prompts), "ratio": middle["plain"] / middle["shared"],
            "plain_per_second": len(prompts) / middle["plain"], "shared_per_second": len(prompts) / middle["shared"],
            "ratios": [p / s for p, s in zip(seconds["plain"], seconds["shared"], strict=True)], "seconds": seconds}


def mini_prompts(count: int, shots: int, seed: int = 0) -> list[str]:
    """Return prompts of the embedded world in its real layout, with drawn shots (72 tokens each) and drawn items."""
    from kdutils.data import mini_world
    from kdutils.mini.models import draw_item
    from kdutils.teacher.prompting import fill, template

    draw, keys, item = random.Random(seed), mini_world.split_keys()["train"], template("mini", "few_shot")[1]

    def text(after):
        drawn = draw_item(draw, keys)
        return fill(item, **{name: part for name, part in drawn.items() if isinstance(part, str)}) + after(drawn)

    head = "".join(text(lambda drawn: f" {drawn['rationale']}\n\n") for _ in range(shots))
    return [head + text(lambda drawn: "") for _ in range(count)]


def word_prompts(count: int, shots: int, words: list[str], seed: int = 0) -> list[str]:
    """Return prompts of random words, one token each: the same `shots` of 70 words, then 50 to 70 own words."""
    draw = random.Random(seed)
    head = draw.choices(words, k=SHOT * shots)
    return [" ".join(head + draw.choices(words, k=draw.randint(OWN - 10, OWN + 10))) for _ in range(count)]


def random_llama(folder: Path | str, gpu: bool, layers: int | None = None) -> list[str]:
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


def run(output: Path, smoke: bool, threads: int) -> dict:
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
        large = 10 if gpu else 1  # a few prompts are too few to time on a GPU
        contenders = {"mini teacher": (mini, mini_prompts, (8 if smoke else 64) * large),
                      name: (big, lambda count, shots: word_prompts(count, shots, words), (2 if smoke else 24) * large)}
        results, curve, repeats = [], [], 1 if smoke else 3
        about = machine()
        begun = conditions(about)
        show_machine(about)
        print("\n| model | new tokens | prompt tokens | plain, texts/s | shared, texts/s | ratio | goal | same text |")
        print("|---|--:|--:|--:|--:|--:|--:|--:|")
        for label, (teacher, prompts_of, count) in contenders.items():
            prompts = prompts_of(count, 1 if smoke else 10)
            compare(teacher, prompts[:2], 2, repeats=1)  # loads the weights and chooses the method before the timing
            for new in ((4,) if smoke else GOALS):
                results += [_show_row(label, compare(teacher, prompts, new, repeats=repeats), GOALS.get(new))]
            if not smoke:
                results += [_show_row(f"{label}, equal rows",
                                  compare(teacher, prompts, 16, rows=results[-2]["rows"], repeats=1))]
            for shots in ((1, 3) if smoke else (1, 3, 7, 12 if teacher is mini else 14)):
                few = prompts_of(max(2, count // 2), shots)
                curve += [{"model": label, "shots": shots, **compare(teacher, few, 4 if smoke else 16, repeats=1)}]
            if teacher is mini:
                results += [_show_row(f"{label}, 3 shots, to the blank line",
                                  compare(teacher, prompts_of(count, 3), 64, stop=["\n\n"], repeats=repeats))]
    found = {**begun, "smoke": smoke, "results": results, "shots": curve}
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / "results.json", found)
    draw(curve, output / "shots.png", 4 if smoke else 16)
    print()
    for row in curve:
        print(f"{row['model']}, {row['shots']} shots, {row['new_tokens']} new tokens: {row['ratio']:.1f} times")
    print(f"written: {output / 'results.json'}, {output / 'shots.png'}")
    return found


def _show_row(label, found, goal=None):
    """Print a row of the table and return it as a dict."""
    print(f"| {label} | {found['new_tokens']} | {found['prompt_tokens']} | {found['plain_per_second']:.2f} | "
          f"{found['shared_per_second']:.2f} | {found['ratio']:.1f} | {f'≥ {goal:g}' if goal else '–'} | "
          f"{found['equal']:.0%} |", flush=True)
    return {"model": label, "goal": goal, **found}


def draw(curve: list[dict], path: Path, new: int) -> None:
    """Draw the ratio over the number of shots, a line per model, to a PNG."""
    figure, axis = figures.pyplot().subplots(figsize=(6, 3.4))
    for place, label in enumerate(dict.fromkeys(row["model"] for row in curve)):
        rows = [row for row in curve if row["model"] == label]
        axis.plot([row["shots"] for row in rows], [row["ratio"] for row in rows], marker="o",
                  linestyle=("-", "--", ":")[place], label=label)
    axis.axhline(1, color="#5a6673", linewidth=1)
    axis.set_ylim(bottom=0)
    axis.set_xlabel("shots in the prompt (about 70 tokens each)")
    axis.set_ylabel("ratio of texts per second")
    axis.set_title(f"Shared prefix computed once, {new} new tokens")
    axis.legend()
    figures.save(figure, path)


def main() -> None:
    """Run the benchmark with the options of the command line; raise StudyError if the texts of both ways differ."""
    options = command_line("teacher", __doc__, "a few seconds: does it run, are the texts equal",
                           "results.json and shots.png").parse_args()
    found = run(project_path(options.output), options.smoke, options.threads)
    # A few texts may differ by rounding, in bf16 more.
    if min(row["equal"] for row in found["results"]) < (0.5 if found["machine"]["gpu"] else 0.95):
        raise StudyError("the two methods write different texts")


if __name__ == "__main__":
    sys.exit(exit_code(main))
