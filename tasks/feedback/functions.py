"""Rewards that need no model: functions of the completion's text, named in `reward.weights` like any other component.

A function takes the text and its numbers of params.yaml and returns a value from 0 to 1. To add one: write it, give its numbers
a key in RewardConfig, and put it into FUNCTIONS.
"""

import re
from collections.abc import Callable

from pydantic import PositiveInt

from tasks.core.config import Config


class LengthBand(Config):
    shortest: PositiveInt  # words
    longest: PositiveInt


class Sentiment(Config):
    positive: list[str]  # words in lower case
    negative: list[str]


class RewardConfig(Config):
    """params.yaml: reward. What the policies are trained for."""

    namespace = "reward"

    weights: dict[str, float]  # of the components in tasks/feedback/rewards.py
    length_band: LengthBand
    sentiment: Sentiment


def length_band(text: str, config: RewardConfig) -> float:
    """1 for a text of `shortest` to `longest` words; outside, the ratio to the nearer end, so that nearer is better."""
    words, band = len(text.split()), config.length_band
    return min(1.0, words / band.shortest, band.longest / max(words, 1))


def sentiment(text: str, config: RewardConfig) -> float:
    """½ + (positive − negative) / 2 (positive + negative + 1) over the different listed words of the text.

    Different words, so that repeating one gains nothing; + 1, so that one word more always counts a little more.
    """
    words = set(re.findall(r"[a-z']+", text.lower()))
    positive, negative = (len(words & set(listed)) for listed in (config.sentiment.positive, config.sentiment.negative))
    return 0.5 + (positive - negative) / (2 * (positive + negative + 1))


FUNCTIONS: dict[str, Callable[[str, RewardConfig], float]] = {
    "length_band": length_band,
    "sentiment": sentiment,
}
