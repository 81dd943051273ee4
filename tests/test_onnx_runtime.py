"""A student in ONNX Runtime writes what it writes in PyTorch, and what cannot be exported says so in one line."""

import pytest
from conftest import PROJECT
from test_deployment import STUDENT, questions, trained_as
from transformers.exporters import OnnxExporter

from kdutils.deployment import onnx_runtime
from kdutils.deployment.onnx_runtime import compute_in_onnx_runtime, export_apart, export_onnx
from kdutils.errors import StudyError
from kdutils.student.predicting import generate, load_trained

LONG = "Which of these is a garment and has pockets, " * 6


@pytest.mark.parametrize("folder", [STUDENT, PROJECT / "kdutils" / "mini" / "teacher"])
def test_a_student_writes_the_same_texts_in_onnx_runtime(folder, tmp_path):
    model, tokenizer = load_trained(folder)
    texts = [*questions("test", 4)["question"], "Why?", LONG]

    def written():
        return [generate(model, tokenizer, [text], 24) for text in texts]

    before = written()
    assert len({tuple(text) for text in before}) > 1
    size = export_apart(folder, tmp_path, False, 600)
    assert size > 4 * sum(weight.numel() for weight in model.parameters()) * 0.9
    compute_in_onnx_runtime(model, tmp_path)
    assert all(weight.numel() == 0 for weight in model.parameters())
    assert written() == before


def test_a_student_that_cannot_be_exported_says_so_in_one_line(tmp_path, monkeypatch):
    with pytest.raises(StudyError, match="^a classifier is not exported; students that write are$"):
        export_apart(trained_as(tmp_path / "student", "classifier"), tmp_path / "graphs", False, 600)

    def refuse(*args, **kwargs):
        raise RuntimeError("failed on component 'decode'") from ValueError("no such operator\nand a long tail")

    monkeypatch.setattr(OnnxExporter, "export_for_generation", refuse)
    with pytest.raises(StudyError, match=r"^a t5 does not export to ONNX \(no such operator\)$"):
        export_onnx(STUDENT, tmp_path / "graphs")
    monkeypatch.setattr(onnx_runtime.sys, "executable", "/bin/false")
    with pytest.raises(StudyError, match="^its process ended with 1$"):
        export_apart(STUDENT, tmp_path / "graphs", False, 600)
