"""The benchmark of training: what it does where one way needs more memory than there is."""

import signal

import pytest
import torch

from kdutils.benchmarks import training
from kdutils.benchmarks.processes import Bench, OutOfMemory
from kdutils.benchmarks.training import block_widths, multiplications, new_model, padded_to, show_row
from kdutils.errors import StudyError
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
    from torch.utils.flop_counter import FlopCounterMode

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
