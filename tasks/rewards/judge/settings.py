"""params.yaml: collect_preferences.judge. Who compares completions, for feedback or as a reward."""

from typing import Annotated, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, field_validator, model_validator

from tasks.core.config import Config

OWN_JUDGES = ("sft", "judge_model")  # models of this pipeline, by the name of their stage
Share = Annotated[float, Field(ge=0, le=1)]


class JudgeConfig(Config):
    """params.yaml: collect_preferences.judge. A local model, or with `base_url` a model at an OpenAI-compatible endpoint."""

    namespace = "collect_preferences.judge"

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
