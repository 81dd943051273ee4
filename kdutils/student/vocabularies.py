"""Whether a student and a teacher of tokens can go together, as far as it shows without their weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from kdutils.errors import StudyError, quoted
from kdutils.hub import local_folders
from kdutils.student.models import load_tokenizer, student_kind


def local_faults(student: dict, teacher: str) -> Iterator[tuple[str, str]]:
    """Yield (key, what is wrong) of a student and a teacher, as far as files on this machine show it without weights.

    `student`: the arguments of models.load_student.
    """
    for key, name, kind in (("kind", student["model"] or student["config"].get("model_type", ""),
                             student["kind"] or _on_this_machine(student["model"], lambda: student_kind(student))),
                            ("distilled_from", teacher,
                             _on_this_machine(teacher, lambda: student_kind({"model": teacher})))):
        if fault := kind_fault(name, kind or "causal"):
            yield key, fault
            return
    own = vocabulary_name(student)
    tokens = [_on_this_machine(name, lambda name=name: load_tokenizer(name).get_vocab()) for name in (teacher, own)]
    if all(tokens) and (fault := vocabulary_fault(teacher, tokens[0], own, tokens[1])):
        yield "distilled_from", fault


def _on_this_machine(name, read):
    """Return what `read` returns, None if the model is in no folder here or cannot be read: loading it says why."""
    with contextlib.suppress(StudyError):
        if not name or any(path.is_dir() for path in local_folders(name)):
            return read()
    return None


def vocabulary_name(student: dict) -> str:
    """Return whose vocabulary a student has, by its arguments of models.load_student."""
    return student.get("tokenizer") or student["model"]


def kind_fault(name: str, kind: str) -> str:
    """Return why a model of `kind` (models.KINDS) is no student and no teacher of tokens, "" for a causal one."""
    return "" if kind == "causal" else (f"{name} is a {kind} model; token-level distillation takes a causal student "
                                        "and a causal teacher")


def vocabulary_fault(teacher: str, theirs: dict[str, int], student: str, ours: dict[str, int]) -> str:
    """Return how the vocabularies {token: id} of two models differ, with the first token that does, "" for equal ones.

    `teacher`, `student`: names of the models.
    """
    differing = sorted({*theirs.items()} ^ {*ours.items()}, key=lambda pair: (pair[1], pair[0]))
    if not differing:
        return ""
    token = differing[0][0]
    places = [f"{vocabulary[token]} in {name}" if token in vocabulary else f"missing in {name}"
              for name, vocabulary in ((teacher, theirs), (student, ours))]
    return (f"the vocabularies of {teacher} and {student} differ; the first token that does is {quoted(token)}: "
            f"{' and '.join(places)}. Give two models of one vocabulary")
