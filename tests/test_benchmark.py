"""The benchmarks of training: what is compared, and what happens where one way needs more memory than there is."""

import importlib.util
import signal
from collections import Counter

import pandas as pd
import pytest
import torch
from scipy.stats import spearmanr
from torch.utils.flop_counter import FlopCounterMode

from kdutils.benchmarks import causal, rater, training
from kdutils.benchmarks.processes import Bench, OutOfMemory
from kdutils.benchmarks.training import block_widths, multiplications, new_model, padded_to, show_row
from kdutils.errors import StudyError
from kdutils.human_study.ratings import read_ratings
from kdutils.runs import read_json
from kdutils.student.models import load_student
from kdutils.student.rows import TokenRow


def test_a_process_that_the_system_killed_is_out_of_memory_and_any_other_end_is_an_error():
    bench = Bench(threads=1)
    with pytest.raises(OutOfMemory, match="raise_signal: its process ended with code -9; out of memory"):
        bench.measure(signal.raise_signal, signal.SIGKILL)
    with pytest.raises(StudyError, match="code -15") as found:
        bench.measure(signal.raise_signal, signal.SIGTERM)
    assert not isinstance(found.value, OutOfMemory)
    assert bench.measure(abs, -3) == 3
    with pytest.raises(OutOfMemory, match="array"):
        bench.measure(bytearray, 2**62)


def test_one_way_without_memory_is_a_row_and_the_other_way_is_measured(monkeypatch, capsys):
    def measure(self, function, way, *arguments):
        if way == "plain":
            raise OutOfMemory("killed")
        return {"seconds": [2.0], "peak_mib": 7}

    monkeypatch.setattr(Bench, "measure", measure)
    found = Bench(threads=1).alternate(None, ("plain", "ours"), rounds=2)
    assert found == {"plain": {"seconds": [], "peak_mib": None}, "ours": {"seconds": [2.0, 2.0], "peak_mib": 7}}
    row = show_row("steps", "30M", "combined", True, found, 48)
    assert row["ratio"] is None and row["plain_per_second"] is None and row["ours_per_second"] == 24
    line = capsys.readouterr().out
    assert line == "| 30M | combined | revised | – | 24.00 | – | ≥ 4 | – | – | out of memory | 7 |\n"


def test_the_plain_way_pads_a_part_to_the_longest_of_its_block_with_labels_that_count():
    block = [{"predict": TokenRow(0, [5] * (i + 1), [7] * (2 * i + 1))} for i in range(4)]
    widths = block_widths(block, limit=6)
    assert widths == {"predict": (4, 6)}  # the longest target has 7
    first, last = padded_to(widths, [block[0], block[3]])
    assert first["predict"]["input_ids"].tolist() == [5, 0, 0, 0]
    assert first["predict"]["attention_mask"].tolist() == [1, 0, 0, 0]
    assert first["predict"]["labels"].tolist() == [7, 0, 0, 0, 0, 0]
    assert last["predict"]["labels"].tolist() == [7] * 6


def test_multiplications_are_those_that_torch_counts(monkeypatch):
    monkeypatch.setattr(training, "tokenizer_folder", lambda: "kdutils/mini/student")
    monkeypatch.setitem(training.T5, "vocab_size", 967)
    shape = {"d_model": 32, "d_kv": 8, "num_heads": 3, "d_ff": 48, "num_layers": 2}
    model, rows, source, target = new_model(shape).eval(), 5, 7, 11
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(input_ids=torch.ones(rows, source, dtype=torch.long),
              decoder_input_ids=torch.ones(rows, target, dtype=torch.long), use_cache=False)
    of_layers = {kind: count for kind, count in counter.get_flop_counts()["Global"].items() if "mm" in str(kind)
                 and "bmm" not in str(kind)}
    wanted = multiplications(shape, rows * source, rows * target, rows * target)
    assert sum(of_layers.values()) == 2 * wanted  # a multiplication and an addition


# Causal students

needs_trl = pytest.mark.skipif(not importlib.util.find_spec("trl"), reason="the extra bench is not installed")
ROWS = [[TokenRow(0, [5, 6], [7, 8, 1], given=1), TokenRow(1, [5, 6], [9, 1])], [TokenRow(0, [5], [7, 1])]]


@needs_trl
def test_all_ways_to_train_a_causal_student_begin_with_the_same_loss(tmp_path):
    """The smoke run: packing keeps the rows apart, on a CPU too, and no way leaves out a token or adds one."""
    found = causal.run(tmp_path, smoke=True, threads=1)
    written = read_json(tmp_path / "results.json")
    assert written["steps"] == found["steps"] and written["versions"]["trl"] and written["machine"]["threads"] == 1
    assert [(row["method"], row["weights"], row["precision"]) for row in found["steps"]] == [
        ("multitask", "LoRA", "bf16"), ("combined", "all", "float32")]
    for row in found["steps"]:
        losses = [row[f"{way}_loss"] for way in causal.WAYS]
        assert losses == pytest.approx([losses[0]] * 3, rel=1e-5 if row["precision"] == "float32" else 0.02)
        assert len({row[f"{way}_target_tokens"] for way in causal.WAYS}) == 1 and row["less_to_compute"] > 1.2
        assert min(row["ratio_trl"], row["ratio_plain"], row["matrix_share"]) > 0


@needs_trl
def test_the_packed_sequences_of_trl_hold_the_rows_uncut(tmp_path):
    model, tokenizer = load_student("kdutils/mini/teacher")
    arguments = causal.arguments_of(tmp_path, 2, 1, "float32")
    trainer = causal.trl_trainer(model, tokenizer, ROWS, arguments, {"trl_length": 6})
    assert len(trainer.train_dataset) == trainer.args.gradient_accumulation_steps == 3  # of 5, 4 and 3 tokens
    assert causal.packed_rows(trainer.train_dataset) == Counter([
        ((5, 6, 7, 8, 1), (-100, -100, -100, 8, 1)), ((5, 6, 9, 1), (-100, -100, 9, 1)), ((5, 7, 1), (-100, 7, 1))])
    with pytest.raises(StudyError, match="do not hold the rows as they are; is trl_length .4. shorter"):
        causal.trl_trainer(model, tokenizer, ROWS, arguments, {"trl_length": 4})


def test_without_trl_the_command_that_installs_it_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(causal.importlib.util, "find_spec", lambda name: None)
    assert causal.main(["--smoke", "--output", str(tmp_path)]) == 2
    assert "trl is not installed" in (error := capsys.readouterr().err) and "pip install -c constraints.txt" in error


@pytest.mark.parametrize("lora", [False, True])
def test_the_multiplications_of_a_causal_step_are_those_that_torch_counts(lora):
    model = load_student("", "kdutils/mini/student", True, {
        "model_type": "llama", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2}, lora={"rank": 2} if lora else None)[0].train()
    model.get_input_embeddings().weight.requires_grad_()  # else the first layer has no gradient of its input
    layers, tokens = causal.linear_layers(model), 5 * 7
    with FlopCounterMode(display=False) as counter:
        model(input_ids=torch.ones(5, 7, dtype=torch.long), use_cache=False).logits.sum().backward()
    counted = sum(count for kind, count in counter.get_flop_counts()["Global"].items()
                  if "mm" in str(kind) and "bmm" not in str(kind))
    assert counted == 2 * causal.multiplications(layers, tokens, tokens)
    head, = (layer for layer in layers if layer.head)
    assert causal.multiplications(layers, 0, 1) == head.passes * head.out * head.inner == (2 if lora else 3) * 32 * 967


def test_the_first_loss_is_a_mean_over_tokens_whatever_the_tasks_weigh():
    assert causal.first_loss({"loss": 1.5}, ROWS, "multitask") == 1.5
    logged = {"loss": 9.0, "loss_predict": 1.0, "loss_explain": 2.0}  # of 4 and of 2 tokens
    assert causal.first_loss(logged, ROWS, "multitask") == pytest.approx(8 / 6)


def test_ways_that_train_on_different_tokens_are_an_error():
    cell, same = causal.Cell("multitask", "all", "float32"), {"seconds": [1.0], "loss": 2.0, "target_tokens": 40.0}
    lost = {"seconds": [], "peak_mib": None}
    causal.check_losses(cell, {"trl": same, "plain": {**same, "loss": 2.0002}, "ours": same})
    causal.check_losses(cell, {"trl": lost, "plain": lost, "ours": same})
    for other in ({"loss": 2.01}, {"target_tokens": 41.0}):
        with pytest.raises(StudyError, match="multitask, all, float32: the ways do not train on the same"):
            causal.check_losses(cell, {"trl": same, "plain": lost, "ours": {**same, **other}})


def test_the_share_of_the_matrix_speed_counts_no_padding():
    """A step takes 4 s, its products alone 3 s, of which a tenth is padding."""
    one = {"ours": {"seconds": [4.0, 4.0]}, "products": {
        "seconds": [3.0], "multiplications": {"run": 100, "shared": 90, "separate": 180}}}
    assert causal.matrix_share([one]) == pytest.approx(0.9 * 3 / 4)
    assert causal.matrix_share([one, {**one, "ours": {"seconds": []}}]) is None


def test_what_the_others_try_out_first_is_printed_and_the_fastest_is_taken(monkeypatch, capsys):
    times = {("trl", 256): 3.0, ("trl", 512): 2.0, ("trl", 1024): None}

    def measure(self, function, way, cell, table, explained, settings):
        taken = times[way, settings["trl_length"]]
        if not taken:
            raise OutOfMemory("killed")
        return {"seconds": [taken], "peak_mib": 7}

    monkeypatch.setattr(Bench, "measure", measure)
    settings = {"tried": {"trl_length": (256, 512, 1024), "plain_rows": (8,)}}
    assert causal.fastest(Bench(threads=1), None, None, settings) == {"trl_length": 512, "plain_rows": 8}
    assert capsys.readouterr().out == "trl_length 256: 3.00 s\ntrl_length 512: 2.00 s\n"


def test_a_profile_of_a_step_counts_all_its_operations_once(capsys):
    rows = causal.profile_steps(smoke=True, threads=1)
    assert [row["precision"] for row in rows] == ["float32", "bf16"]
    for row in rows:
        assert list(row["shares"]) == [*causal.OPERATIONS, "the rest"]
        assert sum(row["shares"].values()) == pytest.approx(1)
        assert row["shares"]["products of linear layers"] > 0 < row["shares"]["attention"]
    assert capsys.readouterr().out.count("%") == 10


def test_a_compiled_step_is_that_of_our_trainer(monkeypatch):
    compiled = []
    monkeypatch.setattr("kdutils.student.fast_layers.compile_stacks", compiled.append)
    table, explained = causal.read_data(True, 2)
    settings = {**causal.SETTINGS["smoke"], "steps": 1}
    cell = causal.Cell("multitask", "all", "float32")
    one, other = (causal.time_steps(way, cell, table, explained, settings) for way in causal.COMPILED)
    assert one["loss"] == pytest.approx(other["loss"]) and len(compiled) == 1


# A model as rater

def test_the_rater_names_the_published_file_that_is_missing(monkeypatch, tmp_path):
    monkeypatch.setenv("KDUTILS_DATA", str(tmp_path))
    with pytest.raises(StudyError, match=r"revised_explanation_sample.parquet: no such file; KDUTILS_DATA must name"):
        rater.rate_published(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_rater_keeps_the_correlation_of_its_scores_with_peoples_ratings(monkeypatch, tmp_path, real_data):
    monkeypatch.setenv("KDUTILS_DATA", str(real_data))
    monkeypatch.setattr("sys.argv", ["rater", "--smoke", "--threads", "1", "--output", str(tmp_path)])
    rater.main()
    found, scores = read_json(tmp_path / "results.json"), pd.read_csv(tmp_path / "scores.csv").set_index("text")
    assert found["smoke"] and found["texts"] == len(scores) <= rater.FEW
    people = read_ratings(real_data / "human_study" / rater.RATINGS).ratings
    people = people[(people["construct"] == "plausibility") & people["text"].isin(scores.index)]
    rho = spearmanr(people["score"], scores.loc[people["text"], "plausibility"]).statistic
    (row,) = [row for row in found["agreement"] if row["construct"] == "plausibility"]
    assert row["spearman"] == pytest.approx(rho) and row["ratings"] == len(people) > 2
    assert row["length"] == pytest.approx(spearmanr(people["score"], people["characters"]).statistic)
    assert found["prompts"] == len(scores) * 6 * 2
