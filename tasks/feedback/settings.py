"""params.yaml: collect_preferences. Whose feedback, of what kind, on how much."""

from typing import Annotated, Literal, Self

from pydantic import (
    Field,
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

Source = Literal["annotator", "judge", "dataset"]  # the folder of tasks/feedback whose collect.py runs
Kind = Literal["pairwise", "ranking", "rating", "thumbs", "correction"]
OWN_JUDGES = ("sft", "judge_model")  # models of this pipeline, by the name of their stage
Share = Annotated[float, Field(ge=0, le=1)]


class JudgeConfig(Config):
    """The judge of source `judge`: a local model, or with `base_url` a model at an OpenAI-compatible endpoint."""

    templates: str
    model: str
    model_revision: str | None
    base_url: str | None
    rationale_tokens: NonNegativeInt
    repeat_rate: Share
    timeout: PositiveFloat  # seconds
    retries: NonNegativeInt
    concurrency: PositiveInt

    @field_validator("base_url")
    @classmethod
    def _holds_no_secret(cls, value: str | None) -> str | None:
        """The address is logged and hashed; it is not repeated here, since what is wrong with it may be a key."""
        if value is not None and not value.startswith(("http://", "https://")):
            raise ValueError("an address begins with http:// or https://")
        if value is not None and any(sign in value for sign in "@?#"):
            raise ValueError("an address with @, ? or # may hold a key; a key comes from the environment (REALIGN_JUDGE_KEY)")
        return value

    @model_validator(mode="after")
    def _is_one_model(self) -> Self:
        if self.base_url is not None and self.model in OWN_JUDGES:
            raise ValueError(
                f"model is {self.model}, but base_url names an endpoint; name a model it serves, or write base_url: null"
            )
        if self.model == "judge_model" and self.rationale_tokens:
            raise ValueError("model is judge_model, which has learned to say 1 or 2 and not why; write rationale_tokens: 0")
        return self


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
