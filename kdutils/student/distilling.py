"""Token-level distillation: a causal student learns the distribution of each token from a model of its vocabulary.

The loss of a counted target token is a mixture of the hard target and of the teacher's distribution, with logits z and
p(T) = softmax(z / T)::

    L = hard · −log p_S(token)  +  (1 − hard) · T² · KL(p_T(T) ‖ p_S(T))

(Hinton, Vinyals and Dean 2015, "Distilling the knowledge in a neural network", section 2, with the factor T², so that
the sizes of the gradients do not depend on T; Sanh et al. 2019, "DistilBERT", section 2; the forward KL of a token is
"word-level" distillation in Kim and Rush 2016, section 3.1). The gradient of the second part with respect to z_S is
(1 − hard) · T · (p_S(T) − p_T(T)).

The teacher is frozen and reads the student's sequences. Both output layers are computed slice by slice (loss.HeadLoss),
so that no logits of a whole chunk exist; a model whose logits are scaled or bounded behind its output layer is an
exception, as in loss.step_loss.

A share of the explanations can be written by the student itself, from the distribution that it has at that step. They
have no right token, so they are learnt from the teacher's distributions alone (Agarwal et al. 2024, "On-policy
distillation of language models", section 3.1: GKD with the forward KL; nothing is differentiated through the drawing).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kdutils.errors import StudyError
from kdutils.hub import model_context
from kdutils.student.attention import attends_in_blocks, set_blocks
from kdutils.student.collating import EpochRows
from kdutils.student.fast_layers import use_fast_layers
from kdutils.student.loss import counted_logits, counted_states, last_layer
from kdutils.student.methods import OWN, tasks_of
from kdutils.student.models import load_student, model_kind, student_kind
from kdutils.student.predicting import sample_tokens
from kdutils.student.products import linear
from kdutils.student.rows import SharedRows, TokenRow
from kdutils.student.sharing import shares_tokens, use_blocks
from kdutils.student.vocabularies import kind_fault, vocabulary_fault, vocabulary_name


@dataclass(frozen=True)
class Distilled:
    """A frozen teacher, and how its distributions are mixed with the hard targets.

    `hard`: the share of the hard target in the loss of each task, in the method's order. `name`: that of the teacher.
    `own`: the number of the task whose targets the student writes, None for none; `longest`: their tokens at most.
    """

    model: PreTrainedModel
    temperature: float
    hard: tuple[float, ...]
    name: str = "the teacher"
    own: int | None = None
    longest: int = 256

    @torch.no_grad()
    def targets_of(self, chunk: dict[str, torch.Tensor]) -> Targets:
        """Run the teacher on a chunk (loss.add_places) as it is and return the Targets of its counted tokens."""
        hard = torch.tensor(self.hard, dtype=torch.float64, device=chunk["of"].device)[chunk["of"]]
        head, kind = last_layer(self.model, chunk), chunk["input_ids"].device.type
        if head is None:
            logits = counted_logits(self.model, chunk)
            return Targets(logits.__getitem__, hard, self.temperature)
        states = counted_states(self.model, head, chunk)
        half = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else states.dtype
        states, matrix = states.to(half), head.weight.to(half)
        return Targets(lambda part: linear(states[part], matrix, head.bias), hard, self.temperature)

    def join(self, student: PreTrainedModel, device: torch.device | str) -> None:
        """Bring the teacher to the student's device and let both run the same chunks, in place."""
        use_fast_layers(self.model.to(device))
        if attends_in_blocks(student):
            use_blocks(self.model)
            set_blocks(student, attends_in_blocks(self.model))

    def shares(self, student: PreTrainedModel) -> bool:
        """Return whether the rows of a question may run in one sequence of both models (sharing.shares_tokens)."""
        return shares_tokens(student) and shares_tokens(self.model)

    def with_own_texts(self, student: PreTrainedModel, rows: list, seed: int) -> list[list[TokenRow]]:
        """Return the rows of a step by question; the targets of the task `own` are new texts of the student.

        `rows`: TokenRows or SharedRows. `seed`: of the draws. StudyError where a model has no place for a new token.
        """
        questions = [row.rows if isinstance(row, SharedRows) else [row] for row in rows]
        sources = [row.source for group in questions for row in group if row.task == self.own]
        room = min(filter(None, map(model_context, (student, self.model))), default=10**9)
        longest = min(self.longest, room - max(map(len, sources), default=0))
        if sources and longest < 1:
            raise StudyError(f"on_policy: a source takes all {room} positions of the student or of {self.name}; lower "
                             "max_source_tokens")
        written = iter(sample_tokens(student, sources, longest, seed) if sources else [])
        return [[replace(row, target=next(written), given=0) if row.task == self.own else row for row in group]
                for group in questions]

    def check_rows(self, questions: EpochRows) -> None:
        """Raise StudyError for a row that is longer than the teacher's context."""
        rows = [row for entry in questions.entries for one in entry
                for row in (one if isinstance(one, tuple) else (one,))]
        longest, context = max(len(row.source) + len(row.target) for row in rows), model_context(self.model)
        if context is not None and longest > context:
            raise StudyError(f"distilled_from: {self.name} has {context} positions, and a row of the student has "
                             f"{longest} tokens; lower max_source_tokens or max_target_tokens")


class OwnTexts(EpochRows):
    """EpochRows in which a share of the questions has the task `own` in place of `taught` (their numbers).

    They are drawn by a hash of seed, id and epoch, as alternatives are.
    """

    def __init__(self, *args: object, share: float, taught: int, own: int):
        super().__init__(*args)
        self.share, self.taught, self.own = share, taught, own

    def __getitem__(self, i: int) -> list[TokenRow]:
        drawn = self.draw(self.ids[i], "own") / 2**64
        left_out = self.taught if drawn < self.share else self.own
        return [row for row in super().__getitem__(i) if row.task != left_out]


def epoch_rows(method: str, parameters: dict, *args: object) -> EpochRows:
    """Return the EpochRows(*args) of a method; OwnTexts where the student writes a share of the texts."""
    names = [task.name for task in tasks_of(method, parameters)]
    if OWN not in names:
        return EpochRows(*args)
    return OwnTexts(*args, share=parameters["on_policy"], taught=names.index("explain"), own=names.index(OWN))


@dataclass(frozen=True)
class Targets:
    """The teacher's distributions of the counted tokens of a chunk.

    ``logits_of(slice)`` returns its logits, (n, vocabulary); `hard`, (counted tokens,): see Distilled.
    """

    logits_of: Callable[[slice], torch.Tensor]
    hard: torch.Tensor
    temperature: float

    def soften(self, part: slice, logits: torch.Tensor, losses: torch.Tensor,
               slope: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (L, dL / dlogits) of a slice of tokens from the student's logits, see loss.Softened.

        Shapes: `logits`, `slope` (n, vocabulary), `losses` (n,).
        """
        student, teacher = self._log_probabilities(part, logits)
        hard = self.hard[part].to(logits)
        wanted = teacher.exp()
        divergence = (wanted * teacher.sub_(student)).sum(1)
        soft = student.exp_().sub_(wanted).mul_(self.temperature)
        slope.mul_(hard[:, None])[:, :soft.shape[1]].addcmul_(soft, (1 - hard)[:, None])
        return self._mix(hard, losses, divergence), slope

    def mixed(self, logits: torch.Tensor, losses: torch.Tensor) -> torch.Tensor:
        """Return L of all counted tokens, (n,), as a function that autograd can follow; shapes as in soften."""
        student, teacher = self._log_probabilities(slice(None), logits)
        divergence = functional.kl_div(student, teacher, reduction="none", log_target=True).sum(1)
        return self._mix(self.hard.to(logits), losses, divergence)

    def _log_probabilities(self, part, logits):
        both = logits, self.logits_of(part).to(logits.dtype)
        shared = min(one.shape[1] for one in both)  # what the longer one has besides are no tokens, see distilled_from
        return [(one[:, :shared] / self.temperature).log_softmax(1) for one in both]

    def _mix(self, hard, losses, divergence):
        return hard * losses + (1 - hard) * self.temperature**2 * divergence


def distilled_from(method: str, parameters: dict, student: dict, model: PreTrainedModel,
                   tokenizer: PreTrainedTokenizerBase, longest: int = 256) -> Distilled | None:
    """Return the Distilled teacher that the parameters of a method name, None if they name none.

    `student`: the arguments of models.load_student that gave `model` and `tokenizer`. `longest`: how many tokens the
    student writes at most, if it learns from its own texts. Raises StudyError if one of the
    two is no causal model, or if their vocabularies differ. Their output layers may be padded to different sizes, as in
    some families of models. Then the divergence is that of the distributions over the tokens that both have.
    """
    name = parameters.get("distilled_from")
    if not name:
        return None
    own = vocabulary_name(student)
    for one, kind in ((student["model"] or own, model_kind(model)), (name, student_kind({"model": name}))):
        if fault := kind_fault(one, kind):
            raise StudyError(f"{method}: {fault}")
    teacher, vocabulary = load_student(name, kind="causal")
    if fault := vocabulary_fault(name, vocabulary.get_vocab(), own, tokenizer.get_vocab()):
        raise StudyError(f"{method}: {fault}")
    sizes = [one.get_output_embeddings().weight.shape[0] for one in (teacher, model)]
    names = [task.name for task in tasks_of(method, parameters)]
    lacks = min(sizes) <= max(tokenizer.get_vocab().values()) or OWN in names and sizes[0] < sizes[1]
    if sizes[0] != sizes[1] and lacks:
        raise StudyError(f"{method}: the output layer of {name} has {sizes[0]} tokens and that of {own} {sizes[1]}; "
                         f"the vocabulary has {len(tokenizer.get_vocab())}. Give a teacher whose output layer has all "
                         "tokens that the student can write")
    hard = tuple(0.0 if task == OWN else parameters.get("hard", 0.5) for task in names)
    return Distilled(teacher.requires_grad_(False), parameters.get("temperature", 1.0), hard, name,
                     names.index(OWN) if OWN in names else None, longest)
