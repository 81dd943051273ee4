"""Settings of notebook 41: which students are asked, and what."""

from typing import Annotated, ClassVar

from pydantic import Field

from kdutils.settings import Count, Settings, Texts, of_grid


class AskAStudent(Settings):
    """A question, and the students that answer it."""

    notebook: ClassVar[str] = "41_ask_a_student"
    experiment: str = Field("example", description="a finished experiment, or example for the student that ships")
    cells: Texts = Field([], description="cells to ask first, empty for the best one on dev")
    question: str = Field("Which of these is a garment and has pockets?", description="first question")
    context: str = Field("", description="passage that it is about, empty for none")
    choices: Texts = Field(["costume", "tiger", "carp", "overall", "coat"],
                           description="its choices, empty for a free answer")
    max_explanation_tokens: Count = Field(64, description="maximum number of tokens of an explanation")
    marked_words: Annotated[int, Field(ge=0, le=1000)] = Field(
        5, description="words that drive the answer and are marked")
    output: str = of_grid("outputs/explore/41_ask_a_student", "folder of this run")
