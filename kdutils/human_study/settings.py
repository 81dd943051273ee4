"""Settings of notebooks 22, 23 and 25: a study in which people, or a model, judge explanations."""

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from kdutils.errors import short
from kdutils.human_study.design import ANSWERED, ASKABLE, MASKED, NAME, NAME_RULE, TASKS
from kdutils.settings import Folders, ModelName, PathOf, Seed, Settings, matching, of_grid, unique
from kdutils.teacher.settings import Ask

FailedChecks = Annotated[int, Field(ge=0, le=100)]
FAILED_CHECKS = "failed attention checks that are allowed per rater"
KEEP_UNFINISHED = "use the ratings of raters who did not finish"


class MakeHumanStudy(Settings):
    """Which texts people see, and who rates which."""

    notebook: ClassVar[str] = "22_make_human_study"
    evaluations: Folders = of_grid(["kdutils/mini/example/evaluations"], "folders of evaluation runs to compare")
    questions: Folders = of_grid(["kdutils/mini/example/questions/questions.parquet"], "tables of their questions")
    explanations: str = Field("kdutils/mini/example/explanations/explanations.parquet",
                              description="teacher texts rated too, or empty")
    study: Annotated[str, matching(NAME, NAME_RULE)] = Field(
        "example", description="name of the study, used in file names")
    task: Literal[*TASKS] = Field("rating", description="rating, or simulation (raters say what the model answered)")
    answered: Literal[*ANSWERED] = Field("any", description="questions to draw from, all_right, any_right, same or any")
    student_seeds: Literal["lowest", "drawn"] = Field(
        "lowest", description="lowest: one student per method, drawn: one student for each text")
    strata: Annotated[
        list[Literal["dataset", "position", "n_choices", "gold", "correct"]], AfterValidator(unique)] = Field(
        ["position"], description="columns over which the drawn questions are spread evenly")
    masked: Literal[*MASKED] = Field("none", description="what is hidden in explanations, none, answer or choices")
    n_raters: Annotated[int, Field(ge=1, le=10_000)] = Field(8, description="number of raters")
    texts_per_method: Annotated[int, Field(ge=1, le=1000)] = Field(4, description="texts of each method per rater")
    raters_per_text: Annotated[int, Field(ge=1, le=10_000)] = Field(
        2, description="raters per text; agreement needs two or more")
    checks: Annotated[int, Field(ge=0, le=5)] = Field(1, description="attention checks per rater")
    consent: str = Field("", description="consent text of your ethics board, empty asks for no consent")
    return_to: str = Field("", description="where raters send their file")
    completion_code: str = Field("", description="code of a panel for the last page, empty makes one of each rater's "
                                                 "answers")
    expected: Annotated[list[Annotated[float, Field(ge=0, le=1)]], Field(min_length=1)] = Field(
        [0.05, 0.1, 0.2, 0.4, 0.25], description="expected shares of the points 1 to 5, for the power")
    ask: Annotated[list[Literal[*ASKABLE]], AfterValidator(unique)] = Field(
        [], description="personal data to ask for, age, gender, education or country")
    seed: Seed = Field(0, description="draws questions, order and checks")
    output: str = of_grid("outputs/explore/22_make_human_study", "folder of this run")

    def conflicts(self) -> Iterator[tuple[str, str]]:
        if "correct" in self.strata and self.answered not in ("all_right", "same"):
            yield "strata", "'correct' differs between the methods of a question; set answered: same"
        if len(self.expected) < 2 or abs(sum(self.expected) - 1) > 1e-6:
            yield "expected", f"{short(self.expected)}: give two or more shares that add up to 1"


class AnalyseHumanStudy(Settings):
    """Which ratings are read and how they are tested."""

    notebook: ClassVar[str] = "23_analyse_human_study"
    ratings: Annotated[list[Annotated[str, Field(min_length=1)]], PathOf("any"), AfterValidator(unique)] = Field(
        [], description="files and folders with ratings, empty simulates raters")
    plan: str = of_grid("kdutils/mini/example/human_study/key/plan.parquet", "plan of notebook 22, empty for published "
                                                                             "ratings")
    failed_checks_allowed: FailedChecks = Field(0, description=FAILED_CHECKS)
    keep_unfinished: bool = Field(False, description=KEEP_UNFINISHED)
    simulated_effects: dict[str, Annotated[float, Field(ge=-100, le=100)]] = Field(
        {}, description="points added per method where raters are simulated")
    explanations: str = Field(
        "", description="explanations by the teacher, the reference of BLEU and ROUGE-L, or empty")
    encoder: ModelName = Field("", description="folder or Hub id of an encoder for BERTScore, empty for none")
    level: Annotated[float, Field(gt=0, lt=1)] = Field(0.05, description="significance level")
    seed: Seed = Field(0, description="simulates raters and resamples intervals")
    output: str = of_grid("outputs/explore/23_analyse_human_study", "folder of this run")


class AskAModelToRate(Ask):
    """Which model rates which texts, and which ratings by people it is compared with."""

    notebook: ClassVar[str] = "25_ask_a_model_to_rate"
    texts: str = of_grid("kdutils/mini/example/human_study/key/texts.parquet",
                         "texts of a study, or the published ones")
    plan: str = of_grid("kdutils/mini/example/human_study/key/plan.parquet",
                        "plan of that study, empty for published ratings")
    ratings: Annotated[list[Annotated[str, Field(min_length=1)]], PathOf("any"), AfterValidator(unique)] = of_grid(
        [], "files and folders with ratings by people, empty compares with nobody")
    failed_checks_allowed: FailedChecks = of_grid(0, FAILED_CHECKS)  # as in notebook 23: the same people
    keep_unfinished: bool = of_grid(False, KEEP_UNFINISHED)
    thinking: Literal["auto", "on", "off"] = Field(
        "off", description="whether the model thinks first, auto leaves it to the model; with chat only")
    most_texts: Annotated[int, Field(ge=2, le=100_000)] = Field(32, description="number of texts to rate at most")
    seed: Seed = Field(0, description="draws the texts and resamples intervals")
    output: str = of_grid("outputs/explore/25_ask_a_model_to_rate", "folder of this run")

    def conflicts(self) -> Iterator[tuple[str, str]]:
        yield from super().conflicts()
        if not self.plan and not self.ratings:
            yield "ratings", "published texts are found by their ratings; name the file, or give the plan of a study"
