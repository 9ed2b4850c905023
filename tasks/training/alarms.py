"""Signs that a policy is going wrong, read from what was logged of its completions.

length_drift   the mean length has grown or shrunk by a factor beyond `length_drift`
repetition     share of repeated 4-grams above `repetition`
eos_rate       fewer than `eos_rate` of the completions end by themselves
entropy        below `entropy` times what it was at the start
kl_budget      KL(π‖π_ref) of a completion above `kl_budget` nats
proxy_gap      the verifier's share of right answers is `proxy_gap` below its best, while the score is no lower than then:
               the reward is being exploited (Gao et al. 2022)
dominance      one of several reward components has made more than `dominance` of the spread of the scores, over all steps:
               others that have become equal for all completions only of late have done their work

Every other quantity is a mean over the last `window` recorded steps; the start is the first `window`. Nothing is said before
both are full. An alarm is logged as alarm/<name> = 1 at every step at which it holds; those named in `stop` end the training.

The limits of params.yaml lie between the policies as configured, on the default problem, and a collapse such as that of GRPO
with kl_coef 0 and a learning_rate of 1e-3.
"""

import re
from collections.abc import Callable
from typing import Any, Literal

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from tasks.core.config import Config

Name = Literal["length_drift", "repetition", "eos_rate", "entropy", "kl_budget", "proxy_gap", "dominance"]
History = list[dict[str, Any]]


class AlarmsConfig(Config):
    """params.yaml: alarms"""

    namespace = "alarms"

    window: PositiveInt
    length_drift: PositiveFloat
    repetition: NonNegativeFloat
    eos_rate: NonNegativeFloat
    entropy: NonNegativeFloat
    kl_budget: PositiveFloat
    proxy_gap: PositiveFloat
    dominance: PositiveFloat
    stop: list[Name]


def alarms(history: History, config: AlarmsConfig) -> dict[str, str]:
    """Name -> what is wrong, in words with figures. history: the rows of every step so far, this one included."""
    rows = [row for row in history if "rollout/score_mean" in row]
    if len(rows) < 2 * config.window:
        return {}
    said = {name: check(rows, config) for name, check in CHECKS.items()}
    return {name: words for name, words in said.items() if words}


def _length_drift(rows: History, config: AlarmsConfig) -> str | None:
    first, now = _first_and_now(rows, "completion_length", config.window)
    if 1 / config.length_drift <= now / max(first, 1e-9) <= config.length_drift:
        return None
    return f"completions have {now:.1f} tokens on average, {first:.1f} at the start"


def _repetition(rows: History, config: AlarmsConfig) -> str | None:
    _, now = _first_and_now(rows, "repetition", config.window)
    return f"{now:.0%} of the 4-grams of a completion are repeated" if now > config.repetition else None


def _eos_rate(rows: History, config: AlarmsConfig) -> str | None:
    _, now = _first_and_now(rows, "eos_rate", config.window)
    return f"only {now:.0%} of the completions end by themselves" if now < config.eos_rate else None


def _entropy(rows: History, config: AlarmsConfig) -> str | None:
    first, now = _first_and_now(rows, "entropy", config.window)
    return f"the entropy is {now:.3f} nats, {first:.3f} at the start" if now < config.entropy * first else None


def _kl_budget(rows: History, config: AlarmsConfig) -> str | None:
    _, now = _first_and_now(rows, "kl_mean", config.window)
    return f"the KL to the reference is {now:.2f} nats" if now > config.kl_budget else None


def _proxy_gap(rows: History, config: AlarmsConfig) -> str | None:
    if any("rollout/verifier_mean" not in row for row in rows):
        return None
    right, score = (_means(rows, key, config.window) for key in ("verifier_mean", "score_mean"))
    best = max(range(len(right)), key=lambda step: right[step])
    if right[best] - right[-1] <= config.proxy_gap or score[-1] < score[best]:
        return None
    return (
        f"{right[-1]:.1%} right answers after {right[best]:.1%}, while the score went from {score[best]:.3f} to {score[-1]:.3f}"
    )


def _dominance(rows: History, config: AlarmsConfig) -> str | None:
    for key in (key.removeprefix("rollout/") for key in rows[-1] if re.fullmatch(r"rollout/\w+_share", key)):
        (share,) = _means(rows, key, len(rows))
        if share > config.dominance:
            return f"{key.removesuffix('_share')} makes {share:.0%} of the spread of the scores"
    return None


CHECKS: dict[Name, Callable[[History, AlarmsConfig], str | None]] = {
    "length_drift": _length_drift,
    "repetition": _repetition,
    "eos_rate": _eos_rate,
    "entropy": _entropy,
    "kl_budget": _kl_budget,
    "proxy_gap": _proxy_gap,
    "dominance": _dominance,
}


def _first_and_now(rows: History, key: str, window: int) -> tuple[float, float]:
    means = _means(rows, key, window)
    return means[0], means[-1]


def _means(rows: History, key: str, window: int) -> list[float]:
    """Of each run of `window` steps in a row."""
    values = [row[f"rollout/{key}"] for row in rows]
    return [sum(values[end - window : end]) / window for end in range(window, len(values) + 1)]
