"""Settings of notebook 90: how the embedded models are made."""

from typing import ClassVar

from pydantic import Field

from kdutils.settings import Count, Seed, Settings, of_grid


class MakeMiniModels(Settings):
    """How long the tiny teacher and student are trained, and whether they replace those that ship."""

    notebook: ClassVar[str] = "90_make_mini_models"
    steps: Count = Field(4, description="training steps of the teacher")
    batch: Count = Field(16, description="transcripts per step")
    student_steps: Count = Field(4, description="training steps of the student, 48 passages each")
    learning_rate: float = Field(0.003, gt=0, le=1, description="highest learning rate, cosine decay")
    threads: Count = Field(1, description="CPU threads; they are part of what decides the exact weights")
    seed: Seed = Field(0, description="seed of weights and transcripts")
    marked: Count = Field(12, description="questions per split on which the teacher is marked")
    install: bool = Field(False, description="copy the models into kdutils/mini")
    make_examples: bool = Field(
        False, description="make the example tables in kdutils/mini again with the models there")
    output: str = of_grid("outputs/explore/90_make_mini_models", "folder of this run")
