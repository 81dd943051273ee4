"""Settings of the training notebooks, of a teacher's fine-tuning, and of a language model that reads explanations."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from kdutils.errors import quoted, short
from kdutils.settings import (
    PRECISIONS,
    Count,
    Inside,
    ModelName,
    Seeds,
    Settings,
    Share,
    Text,
    Vocabulary,
    explain,
    is_of_grid,
    of_grid,
)
from kdutils.student.methods import TAG_PLACES
from kdutils.student.models import KINDS
from kdutils.student.protocols import LAYOUTS
from kdutils.student.vocabularies import local_faults

SOFT_LABELS = "kdutils/mini/example/soft_labels/explanations.parquet"
Architecture = Literal["", *KINDS]
Read = Annotated[int, Field(ge=8, le=1_000_000)]  # tokens of a text: fewer hold no question
Epochs = Annotated[float, Field(gt=0, le=100_000)]
Rate = Annotated[float, Field(gt=0, le=1)]


class Adapters(BaseModel):
    """Low-rank adapters (LoRA, Hu et al. 2022)."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
    rank: Annotated[int, Field(ge=1, le=10_000)] = 8
    alpha: Annotated[float, Field(gt=0)] = 16
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    targets: Text | Annotated[list[Text], Field(min_length=1)] = "all-linear"


def _adapters(value: dict) -> dict:
    try:
        Adapters.model_validate(value)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        if fault["type"] == "extra_forbidden":
            raise ValueError(f"unknown key {quoted(fault['loc'][0])}; known are "
                             f"{', '.join(Adapters.model_fields)}") from None
        raise Inside(str(fault["loc"][0]), explain(fault)) from None
    return value


def _shape(config: dict) -> dict:
    """Refuse a change to a model's shape that no family of models can take."""
    for key, value in config.items():
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if number and "dropout" in key and not 0 <= value <= 1:
            raise Inside(short(key), f"{short(value)} is not between 0 and 1")
        sized = key.startswith(("d_", "num_", "n_")) or key.endswith(("_size", "_dim", "_heads", "_layers", "_length"))
        whole = isinstance(value, int) and not isinstance(value, bool)
        if sized and value is not None and not (whole and 1 <= value <= 10_000_000):
            raise Inside(short(key), f"{short(value)} is not a whole number of at least 1")
    return config


class Trained(Settings):
    """What decides how a model is trained, whatever it learns."""

    model: ModelName = Field("kdutils/mini/student", description="folder or Hub id of the student")
    tokenizer: Vocabulary = Field(
        "", description="another folder or Hub id for the vocabulary, empty for the model's own")
    kind: Architecture = Field("", description="seq2seq, causal or classifier, empty for the model's own architecture")
    random_weights: bool = Field(False, description="use the shape alone and draw the weights from the seed")
    config: Annotated[dict, AfterValidator(_shape)] = Field({}, description="changes to the shape")
    lora: Annotated[dict, AfterValidator(_adapters)] = Field(
        {}, description="rank, alpha, dropout and targets of low-rank adapters, empty trains all weights")
    epochs: Epochs = Field(8.0, description="times that every question is seen")
    questions_per_step: Count = Field(8, description="questions per optimiser step, the same for every method")
    learning_rate: Rate = Field(0.001, description="highest learning rate; it decays linearly to 0")
    warmup_steps: Annotated[int, Field(ge=0, le=10**9)] = Field(
        10, description="steps in which the learning rate rises")
    dev_evaluations: Annotated[int, Field(ge=1, le=100_000)] = Field(2, description="evaluations on dev, evenly spread")
    max_source_tokens: Read = Field(256, description="longer inputs are cut and counted; in training alone")
    max_target_tokens: Read = Field(256, description="longer targets are cut and counted")
    token_budget: Count = Field(3000, description="padded tokens of a chunk; changes the cost and not the loss")
    tag: Literal["", *TAG_PLACES] = Field(
        "", description="task tag before or after the question, empty for after with a causal student, else before")
    precision: Literal["", *PRECISIONS] = Field(
        "", description="float32 or bf16, empty for bf16 on a GPU that has it and float32 elsewhere")
    max_steps: Annotated[int, Field(ge=0, le=10**9)] = Field(
        0, description="number of optimiser steps in place of epochs, 0 for as many as the epochs take")
    checkpoint: Literal["best", "last"] = Field("best", description="weights that are kept: best on dev, or last")

    def conflicts(self) -> Iterator[tuple[str, str]]:
        if self.max_steps % self.dev_evaluations:
            yield "max_steps", f"{self.max_steps} is no multiple of dev_evaluations ({self.dev_evaluations}); the " \
                               "last evaluation is at the end"
        if not self.model and not (self.random_weights and self.config.get("model_type") and self.tokenizer):
            yield "model", "empty; give a folder or Hub id, or `random_weights: true`, a `tokenizer` and a `config` " \
                           "with a model_type"
        if self.lora and self.kind == "classifier":
            yield "lora", "a classifier starts with a new layer, which adapters alone cannot train"


class LmReader(Trained):
    """A language model that reads explanations and predicts the student's answer (for LAS and QBE)."""

    notebook: ClassVar[str] = "21_evaluate_student"
    model: ModelName = Field("", description="folder or Hub id")
    epochs: Epochs = Field(3.0, description="times that every prediction is seen")
    questions_per_step: Count = Field(32, description="forms of predictions per optimiser step; a prediction has four")
    learning_rate: Rate = Field(0.0003, description="highest learning rate; it decays linearly to 0")
    max_source_tokens: Read = Field(384, description="longer inputs are cut")
    max_target_tokens: Read = Field(64, description="longer answers are cut")
    token_budget: Count = Field(6000, description="padded tokens of a chunk")


class Train(Trained):
    """What every training notebook takes."""

    layout: Literal["study", *LAYOUTS] = Field(
        "study", description="texts of the study, or literal ones: published (arXiv 2504.16056), step_by_step")
    padding_loss: bool = Field(False, description="padding counts in the loss, as in the code of arXiv 2504.16056")
    questions: Text = of_grid("kdutils/mini/example/questions/questions.parquet", "table of questions")
    seeds: Seeds = of_grid([0], "one student is trained per seed")
    tensorboard: bool = Field(False, description="write logs for TensorBoard beside the student")

    def conflicts(self) -> Iterator[tuple[str, str]]:
        yield from super().conflicts()
        if self.layout != "study" and self.tag:
            yield "tag", f"the texts of the layout {self.layout} have their tags at a fixed place; leave it out"
        if self.padding_loss and self.kind in ("causal", "classifier"):
            yield "padding_loss", f"a {self.kind} student pads no targets; set it to false"


class TrainLabelOnly(Train):
    """The student learns the answer alone."""

    notebook: ClassVar[str] = "10_train_label_only"
    labels: dict = of_grid({"dataset": "mini", "method": "label_only"}, "cell of the grid")
    output: str = of_grid("outputs/explore/10_train_label_only", "folder of this run")


class TrainOnExplanations(Train):
    """What every training on explanations takes."""

    explanations: Text = of_grid("kdutils/mini/example/explanations/explanations.parquet", "table of explanations")


class TrainOnCounterfactuals(TrainOnExplanations):
    """What every training on explanations of wrong answers takes."""

    counterfactuals: Text = of_grid("kdutils/mini/example/counterfactuals/explanations.parquet",
                                   "explanations of wrong answers")
    beta: Share = Field(0.5, description="weight of the task factual; counterfactual has the rest")
    counterfactual_style: Literal["encoder", "decoder"] = Field(
        "encoder", description="encoder: wrong rationale in the source, decoder: forced in the decoder")
    wrong_answers: Literal["all", "first"] = Field(
        "all", description="all: one is drawn per epoch, first: always the first one, as the published code does")

    def conflicts(self) -> Iterator[tuple[str, str]]:
        yield from super().conflicts()
        if self.layout != "study" and self.counterfactual_style == "decoder":
            yield "counterfactual_style", f"the texts of the layout {self.layout} have the rationale in the source; " \
                                          "set it to encoder"


class TrainStandard(TrainOnExplanations):
    """Answer and explanation in one target."""

    notebook: ClassVar[str] = "11_train_standard"
    labels: dict = of_grid({"dataset": "mini", "method": "standard"}, "cell of the grid")
    output: str = of_grid("outputs/explore/11_train_standard", "folder of this run")


class TrainMultitask(TrainOnExplanations):
    """Answer and explanation as two tasks."""

    notebook: ClassVar[str] = "12_train_multitask"
    alpha: Share = Field(0.5, description="weight of the task predict; explain has the rest")
    labels: dict = of_grid({"dataset": "mini", "method": "multitask"}, "cell of the grid")
    output: str = of_grid("outputs/explore/12_train_multitask", "folder of this run")


class TrainCounterfactual(TrainOnCounterfactuals):
    """The answer follows the explanation, also a wrong one."""

    notebook: ClassVar[str] = "13_train_counterfactual"
    unweighted: bool = Field(False, description="add both losses without weights, as published; beta has no effect")
    labels: dict = of_grid({"dataset": "mini", "method": "counterfactual"}, "cell of the grid")
    output: str = of_grid("outputs/explore/13_train_counterfactual", "folder of this run")

    def conflicts(self) -> Iterator[tuple[str, str]]:
        yield from super().conflicts()
        if self.unweighted and self.beta != 0.5:
            yield "beta", f"{self.beta} has no effect while unweighted is true; set unweighted: false, or leave it out"


class TrainCombined(TrainOnCounterfactuals):
    """Multitask and counterfactual training together."""

    notebook: ClassVar[str] = "14_train_combined"
    alpha: Share = Field(0.5, description="weight of the task predict; explain has the rest")
    gamma: Share = Field(0.5, description="weight of multitask; counterfactual training has the rest")
    labels: dict = of_grid({"dataset": "mini", "method": "combined"}, "cell of the grid")
    output: str = of_grid("outputs/explore/14_train_combined", "folder of this run")


class TrainTokenRationale(TrainOnExplanations):
    """Answer and attributed words as two tasks."""

    notebook: ClassVar[str] = "15_train_token_rationale"
    alpha: Share = Field(0.5, description="weight of the task predict; tokens has the rest")
    labels: dict = of_grid({"dataset": "mini", "method": "token_rationale"}, "cell of the grid")
    output: str = of_grid("outputs/explore/15_train_token_rationale", "folder of this run")


class TrainShuffled(TrainOnExplanations):
    """Control: the explanations of other questions."""

    notebook: ClassVar[str] = "16_train_shuffled"
    alpha: Share = Field(0.5, description="weight of the task predict; explain has the rest")
    other_questions: str = of_grid("", "questions of another data set, empty for none")
    other_explanations: str = of_grid("", "explanations of that data set, used in place of this data set's own")
    labels: dict = of_grid({"dataset": "mini", "method": "shuffled"}, "cell of the grid")
    output: str = of_grid("outputs/explore/16_train_shuffled", "folder of this run")


class TrainRandomTokens(TrainOnExplanations):
    """Control: random words in place of attributed ones."""

    notebook: ClassVar[str] = "17_train_random_tokens"
    alpha: Share = Field(0.5, description="weight of the task predict; tokens has the rest")
    labels: dict = of_grid({"dataset": "mini", "method": "random_tokens"}, "cell of the grid")
    output: str = of_grid("outputs/explore/17_train_random_tokens", "folder of this run")


class TrainSoftLabel(TrainOnExplanations):
    """The probabilities that the teacher gives to the choices (Hinton et al. 2015)."""

    notebook: ClassVar[str] = "19_train_soft_label"
    explanations: Text = of_grid(SOFT_LABELS, "table of soft labels")
    hard: Share = Field(0.0, description="share of the right answer; the probabilities of the teacher have the rest")
    labels: dict = of_grid({"dataset": "mini", "method": "soft_label"}, "cell of the grid")
    output: str = of_grid("outputs/explore/19_train_soft_label", "folder of this run")


class TrainSoftMultitask(TrainOnExplanations):
    """Soft labels and explanations as two tasks."""

    notebook: ClassVar[str] = "20_train_soft_multitask"
    soft_labels: Text = of_grid(SOFT_LABELS, "table of soft labels")
    alpha: Share = Field(0.5, description="weight of the task predict; explain has the rest")
    hard: Share = Field(0.0, description="share of the right answer; the probabilities of the teacher have the rest")
    labels: dict = of_grid({"dataset": "mini", "method": "soft_multitask"}, "cell of the grid")
    output: str = of_grid("outputs/explore/20_train_soft_multitask", "folder of this run")


class TrainSoftShuffled(TrainSoftMultitask):
    """Control: soft labels and the explanations of other questions."""

    notebook: ClassVar[str] = "26_train_soft_shuffled"
    labels: dict = of_grid({"dataset": "mini", "method": "soft_shuffled"}, "cell of the grid")
    output: str = of_grid("outputs/explore/26_train_soft_shuffled", "folder of this run")


class TrainUntagged(TrainOnCounterfactuals):
    """Control: counterfactual training without task tags."""

    notebook: ClassVar[str] = "18_train_untagged"
    labels: dict = of_grid({"dataset": "mini", "method": "untagged"}, "cell of the grid")
    output: str = of_grid("outputs/explore/18_train_untagged", "folder of this run")


class TrainTokenKl(TrainOnExplanations):
    """Answer and explanation as two tasks, with a teacher's probability of each token."""

    notebook: ClassVar[str] = "24_train_token_kl"
    model: ModelName = Field("kdutils/mini/teacher", description="folder or Hub id of the student, a causal model")
    alpha: Share = Field(0.5, description="weight of the task predict; explain has the rest")
    distilled_from: ModelName = Field("kdutils/mini/teacher",
                                      description="folder or Hub id of a causal teacher with the student's vocabulary")
    temperature: Annotated[float, Field(gt=0, le=20)] = Field(
        1.0, description="both distributions of a token are softened by it")
    hard: Share = Field(
        0.5, description="share of the token itself in the loss; the teacher's distribution has the rest")
    on_policy: Share = Field(
        0.0, description="share of questions whose explanation the student writes itself, scored by the teacher alone")
    labels: dict = of_grid({"dataset": "mini", "method": "token_kl"}, "cell of the grid")
    output: str = of_grid("outputs/explore/24_train_token_kl", "folder of this run")

    def conflicts(self) -> Iterator[tuple[str, str]]:
        yield from super().conflicts()
        if not self.distilled_from:
            yield "distilled_from", "empty; give the folder or Hub id of a causal teacher with the student's vocabulary"
            return
        student = {"model": self.model, "tokenizer": self.tokenizer, "kind": self.kind, "config": self.config}
        yield from local_faults(student, self.distilled_from)


def chosen_settings(notebook: str, given: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a training notebook that an experiment can choose, with their defaults.

    Two students with the same of them differ in their tables, seed and method alone. `given`: parameters of the
    notebook.
    """
    model, = (one for one in _below(Train) if one.notebook == notebook)
    defaults = model.defaults()
    return {name: given.get(name, defaults[name]) for name, field in model.model_fields.items()
            if not is_of_grid(field)}


def own_settings(given: dict[str, Any]) -> dict[str, Any]:
    """Return those of the parameters `given` of a training that only some methods have, such as weights of tasks.

    The teacher of token_kl is left out: it is a model, which has a licence.
    """
    own = {name for model in _below(Train) for name, field in model.model_fields.items()
           if name not in {*Train.model_fields, "distilled_from"} and not is_of_grid(field)}
    return {name: value for name, value in given.items() if name in own}


def _below(model):
    for one in model.__subclasses__():
        yield from ([one] if "notebook" in vars(one) else [])
        yield from _below(one)
