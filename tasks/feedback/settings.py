"""params.yaml: collect_preferences. Whose feedback, of what kind, on how much."""

from typing import Literal, Self

from pydantic import (
    FiniteFloat,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from tasks.core.config import Config
from tasks.rewards.functions import check_components
from tasks.rewards.judge.settings import JudgeConfig, Share

Source = Literal["annotator", "judge", "dataset"]  # the folder of tasks/feedback whose collect.py runs
Kind = Literal["pairwise", "ranking", "rating", "thumbs", "correction"]


class CollectPreferencesConfig(Config):
    """params.yaml: collect_preferences"""

    namespace = "collect_preferences"

    source: Source
    kind: Kind
    num_prompts: PositiveInt
    held_out_prompts: NonNegativeInt
    samples_per_prompt: PositiveInt
    pairs_per_prompt: PositiveInt
    temperature: PositiveFloat
    bradley_terry_temperature: PositiveFloat
    utility: dict[str, FiniteFloat]
    cost_per_token: NonNegativeFloat
    length_bias: FiniteFloat
    annotators: PositiveInt
    disagreement: NonNegativeFloat
    decisive_rate: Share
    contrast_rate: Share
    judge: JudgeConfig

    @field_validator("utility")
    @classmethod
    def _known(cls, value: dict[str, float]) -> dict[str, float]:
        return check_components(value, "verifier")

    @model_validator(mode="after")
    def _can_be_asked(self) -> Self:
        if self.source == "judge" and self.kind != "pairwise":
            raise ValueError(f"kind is {self.kind}, but source judge compares pairs; write kind: pairwise")
        return self
