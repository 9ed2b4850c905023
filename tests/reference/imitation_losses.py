"""Slow obvious twins of tasks/rl/imitation_losses.py and of what DAgger's solver says: one number, one token at a time."""

import math
from collections.abc import Sequence


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def discriminator_loss_of_one(demonstration_logit: float, sample_logit: float) -> float:
    return -math.log(sigmoid(demonstration_logit)) - math.log(1 - sigmoid(sample_logit))


def discriminator_gradient_of_one(demonstration_logit: float, sample_logit: float) -> tuple[float, float]:
    """By each logit."""
    return sigmoid(demonstration_logit) - 1, sigmoid(sample_logit)


def weights_of_one(rewards: Sequence[float], logprobs: Sequence[float], temperature: float) -> list[float]:
    """(exp r / π)^(1/temperature) written out, for the candidates of one prompt."""
    unscaled = [(math.exp(r) / math.exp(logp)) ** (1 / temperature) for r, logp in zip(rewards, logprobs, strict=True)]
    return [w / sum(unscaled) for w in unscaled]


def irl_gradient_of_one(demonstration: int, rewards: Sequence[float], logprobs: Sequence[float]) -> list[float]:
    """Of −log p(demonstration), by the reward of each candidate, of which the demonstration is one."""
    weights = weights_of_one(rewards, logprobs, 1.0)
    return [w - (j == demonstration) for j, w in enumerate(weights)]


def solver_says(written: str, solution: str) -> list[str | None]:
    """What follows each prefix of a text, if the solution begins so; else None."""
    prefixes = [written[:t] for t in range(len(written))]
    return [solution[len(prefix)] if solution.startswith(prefix) else None for prefix in prefixes]
