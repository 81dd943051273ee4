"""Settings of notebook 31: how the methods of an experiment are compared."""

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from kdutils.comparison.contrasts import QUESTIONS
from kdutils.evaluation.settings import OWN, PROXIES, TRUTH
from kdutils.settings import Folders, Seed, Settings, Text, Texts, matching, of_grid, unique

_PATTERN = (rf"(bleu|rouge_l|bertscore)_(teacher|human)|{'|'.join((*OWN, *TRUTH, *PROXIES))}"
            r"|distinct_[12]|las(_leaking|_other)?|leaking|qbe|overlap(_random|_gain|_gain_other)?"
            r"|reader of (question|explanation|both|masked)|behind .+: (right|as asserted)")
_IN_WORDS = "a measure such as words, names_answer, rouge_l_teacher, las, qbe or overlap_gain"
Measure = Annotated[str, matching(_PATTERN, _IN_WORDS)]
MeasureOrNone = Annotated[str, matching(f"|{_PATTERN}", _IN_WORDS)]


class CompareMethods(Settings):
    """Which runs are compared, and by which measures of their explanations."""

    notebook: ClassVar[str] = "31_compare_methods"
    experiment: Text = of_grid("example", "name of the experiment")
    evaluations: Folders = of_grid(["kdutils/mini/example/evaluations"], "folders of evaluation runs")
    trainings: Folders = of_grid(["kdutils/mini/example/students"], "folders of training runs")
    explained: Texts = of_grid(["kdutils/mini/example/explanations"], "folders of explaining runs, for teacher costs")
    missing: list[dict] = of_grid([], "evaluation runs that failed or were not reached")
    tested: Annotated[list[Measure], AfterValidator(unique)] = Field(
        ["words", "distractors", "names_answer", "rouge_l_teacher", "las", "qbe", "overlap_gain"],
        description="measures")
    primary: Annotated[list[str], AfterValidator(unique)] = Field(
        list(QUESTIONS), description="primary questions or contrasts")
    margin: Annotated[float, Field(gt=0, le=100)] = Field(
        2.0, description="smallest difference of interest, in percentage points")
    outliers: Literal["kept", "iqr"] = Field(
        "kept", description="iqr: the accuracy table also has means without outliers, by the published rule")
    measure: MeasureOrNone = Field("", description="measure that is shown beside accuracy, empty means LAS, or else "
                                                   "likeness to the teacher")
    examples: Annotated[int, Field(ge=0, le=1000)] = Field(2, description="questions shown of each group")
    seed: Seed = Field(0, description="draws those questions")
    output: str = of_grid("outputs/explore/31_compare_methods", "folder of this run")


class AnalyseErrors(Settings):
    """Where distilled students lose to label_only."""

    notebook: ClassVar[str] = "32_analyse_errors"
    evaluations: Folders = of_grid(["kdutils/mini/example/evaluations"], "folders of evaluation runs")
    trainings: Folders = of_grid(["kdutils/mini/example/students"], "folders of training runs")
    examples: Annotated[int, Field(ge=0, le=1000)] = Field(3, description="questions shown that are won, and lost")
    seed: Seed = Field(0, description="draws those questions")
    output: str = of_grid("outputs/explore/32_analyse_errors", "folder of this run")
