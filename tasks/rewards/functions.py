"""Rewards that need no model: functions of the completion's text, named like any other component of a score.

A function takes the text and its numbers of params.yaml and returns a value from 0 to 1. To add one: write it, give its
numbers, if it has any, a key in FunctionsConfig, and put it into FUNCTIONS.
"""

import re
from collections.abc import Callable
from typing import Self

from pydantic import FiniteFloat, PositiveInt, field_validator, model_validator

from tasks.core import seeds
from tasks.core.config import Config

WORD = re.compile(r"[a-z]+(?:'[a-z]+)*")  # an apostrophe inside belongs to it, a quotation mark around does not


class LengthBand(Config):
    shortest: PositiveInt  # words
    longest: PositiveInt

    @model_validator(mode="after")
    def _is_a_band(self) -> Self:
        if self.shortest > self.longest:
            raise ValueError(f"shortest ({self.shortest}) is more than longest ({self.longest})")
        return self


class Sentiment(Config):
    positive: list[str]  # words in lower case
    negative: list[str]

    @model_validator(mode="after")
    def _can_be_found(self) -> Self:
        listed = [*self.positive, *self.negative]
        if odd := [word for word in listed if not WORD.fullmatch(word)]:
            raise ValueError(f"{odd[0]!r} would never be found; write one word in lower case")
        if both := set(self.positive) & set(self.negative):
            raise ValueError(f"{min(both)!r} is listed as positive and as negative")
        return self


class FunctionsConfig(Config):
    """params.yaml: reward.functions. Whoever scores text by functions agrees on these: policies and the simulated annotator."""

    namespace = "reward.functions"

    length_band: LengthBand
    sentiment: Sentiment


class RewardConfig(Config):
    """params.yaml: reward. What the policies are trained for."""

    namespace = "reward"

    weights: dict[str, FiniteFloat]  # of the components in tasks/rewards/scorer.py
    functions: FunctionsConfig

    @field_validator("weights")
    @classmethod
    def _known(cls, value: dict[str, float]) -> dict[str, float]:
        return check_components(value, "reward_model", "verifier", "uncertainty", "process", "judge")


def length_band(text: str, config: FunctionsConfig) -> float:
    """1 for a text of `shortest` to `longest` words; outside, the ratio to the nearer end, so that nearer is better."""
    words, band = len(text.split()), config.length_band
    return min(1.0, words / band.shortest, band.longest / max(words, 1))


def sentiment(text: str, config: FunctionsConfig) -> float:
    """½ + (positive − negative) / 2 (positive + negative + 1) over the different listed words of the text.

    Different words, so that repeating one gains nothing; + 1, so that one word more always counts a little more.
    """
    words = set(WORD.findall(text.lower()))
    positive, negative = (len(words & set(listed)) for listed in (config.sentiment.positive, config.sentiment.negative))
    return 0.5 + (positive - negative) / (2 * (positive + negative + 1))


def chance(text: str, config: FunctionsConfig) -> float:
    """A number that says nothing about the text, always the same for the same text.

    The control for what any training on chosen samples does, whatever the choice (Shao et al. 2025, "Spurious Rewards").
    """
    return seeds.derive(0, "chance", text) / 2**63


FUNCTIONS: dict[str, Callable[[str, FunctionsConfig], float]] = {
    "length_band": length_band,
    "sentiment": sentiment,
    "chance": chance,
}


def check_components(weights: dict[str, float], *others: str) -> dict[str, float]:
    """The weights of a score, if each belongs to a function or to one of the others; ValueError if not, or if there is none."""
    known = [*others, *FUNCTIONS]
    unknown = sorted(weights.keys() - set(known))
    if unknown or not weights:
        raise ValueError(f"{repr(unknown[0]) if unknown else 'nothing'} named; name some of {', '.join(known)}")
    return weights
