"""Settings of notebook 21: how students are measured."""

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from kdutils.errors import short
from kdutils.settings import PRECISIONS, Count, Inside, ModelName, Seeds, Settings, Split, Text, of_grid
from kdutils.student.settings import LmReader
from kdutils.teacher.choices import ATTRIBUTIONS

# The measures of a text alone, see text_metrics. They are here so that checking an experiment imports nothing heavy.
OWN = ("words", "repetition", "names_answer", "names_gold", "distractors", "copied")
TRUTH = ("states_facts", "wholly_true", "true_share", "true_reason")  # where what a text says can be checked
PROXIES = ("denies_answer", "argues_for_other", "support_human", "entailed_human", "contradicted_human")  # elsewhere


def _simulator(value: dict) -> dict:
    """Refuse what is no setting of a language model that reads explanations."""
    for key in value:
        if key not in LmReader.model_fields:
            raise Inside(short(key), f"unknown; known are {', '.join(LmReader.model_fields)}")
    for key, what in value and (LmReader.faults(value) or LmReader(**value).conflicts()):
        raise Inside(key, what)
    return value


class EvaluateStudent(Settings):
    """What students are asked, and which measures of their explanations are computed."""

    notebook: ClassVar[str] = "21_evaluate_student"
    students: Text = of_grid("kdutils/mini/example/students", "folder of a training run")
    seeds: Seeds = of_grid([0], "seeds of the students to evaluate")
    questions: Text = of_grid("kdutils/mini/example/questions/questions.parquet", "table of questions")
    explanations: str = of_grid("kdutils/mini/example/explanations/explanations.parquet",
                                "teacher texts, empty for none")
    counterfactuals: str = of_grid("", "explanations of wrong answers, empty for none")
    split: Split = Field("test", description="split whose questions are asked")
    match: Literal["answer", "exact"] = Field(
        "answer", description="right is the same answer, or the exact text as in the published code")
    max_explanation_tokens: Count = Field(64, description="maximum number of tokens of an explanation")
    precision: Literal[*PRECISIONS] = Field("float32", description="float32 or bf16, of the student's weights")
    encoder: ModelName = Field(
        "", description="folder or Hub id of an encoder for BERTScore and the conditional logit, empty for none")
    nli: ModelName = Field(
        "", description="folder or Hub id of a model for natural language inference, a proxy of truth, or empty")
    simulator: Annotated[dict, AfterValidator(_simulator)] = Field(
        {}, description="language model that predicts answers for LAS and QBE, empty means a logit")
    attribution: Literal[*ATTRIBUTIONS] = Field(
        "saliency", description="how words that drive an answer are found, see notebook 05")
    attributed_words: Annotated[int, Field(ge=1, le=1000)] = Field(
        5, description="words per answer that are looked for in its explanation")
    attributed_questions: Annotated[int, Field(ge=0, le=10**9)] = Field(
        200, description="maximum number of questions whose answers are attributed, 0 for none")
    timed_questions: Annotated[int, Field(ge=0, le=10**9)] = Field(
        200, description="maximum number of questions for the running costs, 0 for none")
    onnx_runtime: bool = Field(False, description="whether the running costs are also measured in ONNX Runtime")
    labels: dict = of_grid({"dataset": "mini", "method": "multitask"}, "cell of the grid")
    output: str = of_grid("outputs/explore/21_evaluate_student", "folder of this run")
