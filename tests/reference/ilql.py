"""Slow obvious twins of tasks/rl/offline_losses.py and of ILQL's decoding: one completion, one token, one number at a time."""

import math
from collections.abc import Sequence

import torch


def td_loss_of_one(rewards: Sequence[float], q: Sequence[float], values: Sequence[float], gamma: float) -> list[float]:
    """Of each token of one unpadded completion."""
    losses = []
    for t in range(len(rewards)):
        following = values[t + 1] if t + 1 < len(values) else 0.0
        losses.append((rewards[t] + gamma * following - q[t]) ** 2)
    return losses


def td_gradient_of_one(rewards: Sequence[float], q: Sequence[float], values: Sequence[float], gamma: float) -> list[float]:
    """Of each token's loss by its Q."""
    following = [*values[1:], 0.0]
    return [-2 * (r + gamma * after - now) for r, after, now in zip(rewards, following, q, strict=True)]


def expectile_loss_of_one(q: float, value: float, tau: float) -> float:
    weight = 1 - tau if q < value else tau
    return weight * (q - value) ** 2


def expectile_gradient_of_one(q: float, value: float, tau: float) -> float:
    """By the value."""
    weight = 1 - tau if q < value else tau
    return -2 * weight * (q - value)


def cql_loss_of_one(q: Sequence[float], token: int) -> float:
    """q: of every token of the vocabulary in one state."""
    return math.log(sum(math.exp(value) for value in q)) - q[token]


def cql_gradient_of_one(q: Sequence[float], token: int) -> list[float]:
    total = sum(math.exp(value) for value in q)
    return [math.exp(value) / total - (1.0 if a == token else 0.0) for a, value in enumerate(q)]


def decoded_distribution(
    logits: torch.Tensor, hidden: torch.Tensor, advantage: torch.Tensor, state: torch.Tensor, value: float, beta: float
) -> list[float]:
    """π(a) exp(β (Q(a) − V)) over its sum, in one state. Q(a) = state · hidden + advantage_a · hidden."""
    probabilities = torch.softmax(logits.double(), dim=-1).tolist()
    weights = []
    for a, probability in enumerate(probabilities):
        q = float(state.double() @ hidden.double() + advantage[a].double() @ hidden.double())
        weights.append(probability * math.exp(beta * (q - value)))
    return [weight / sum(weights) for weight in weights]
