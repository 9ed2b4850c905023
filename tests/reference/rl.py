"""Slow obvious twins of tasks/rl: one row, one token, one number at a time, in Python floats."""

import math
from collections.abc import Sequence
from typing import Any

import torch


def gae_of_one(rewards: Sequence[float], values: Sequence[float], gamma: float, gae_lambda: float) -> list[float]:
    """Â_t = Σ_k (γλ)^k δ_{t+k} written out as that sum (Schulman et al. 2016, equation 16), for one unpadded completion."""
    following = [*values[1:], 0.0]
    deltas = [r + gamma * after - v for r, v, after in zip(rewards, values, following, strict=True)]
    return [
        sum((gamma * gae_lambda) ** k * delta for k, delta in enumerate(deltas[t:]))
        for t in range(len(deltas))
    ]  # fmt: skip


def group_advantages(scores: Sequence[float], group_size: int, std_eps: float) -> list[float]:
    advantages = []
    for begin in range(0, len(scores), group_size):
        group = scores[begin : begin + group_size]
        mean = sum(group) / len(group)
        std = math.sqrt(sum((score - mean) ** 2 for score in group) / (len(group) - 1))
        advantages += [(score - mean) / (std + std_eps) if max(group) > min(group) else 0.0 for score in group]
    return advantages


def leave_one_out_advantages(rewards: Sequence[float], group_size: int) -> list[float]:
    advantages = []
    for row, reward in enumerate(rewards):
        begin = row - row % group_size
        others = [rewards[other] for other in range(begin, begin + group_size) if other != row]
        advantages.append(reward - sum(others) / len(others))
    return advantages


def whiten(rows: Sequence[Sequence[float]]) -> list[list[float]]:
    """rows: the values that count, ragged."""
    flat = [value for row in rows for value in row]
    mean = sum(flat) / len(flat)
    variance = sum((value - mean) ** 2 for value in flat) / (len(flat) - 1)
    return [[(value - mean) / math.sqrt(variance + 1e-8) for value in row] for row in rows]


def reduce_tokens(rows: Sequence[Sequence[float]], reduction: str, max_tokens: int) -> float:
    """rows: the losses that count, ragged."""
    sums = [sum(row) for row in rows]
    if reduction == "token_mean":
        return sum(sums) / sum(map(len, rows))
    if reduction == "sequence_mean":
        return sum(total / len(row) for total, row in zip(sums, rows, strict=True)) / len(rows)
    if reduction == "max_length_mean":
        return sum(total / max_tokens for total in sums) / len(rows)
    return sum(sums) / len(rows)


def completion_logprobs_of_one(model: Any, prompt: list[int], completion: list[int], temperature: float) -> torch.Tensor:
    """(time,): one sequence without padding, the model's own positions, the whole log-softmax."""
    logits = model(input_ids=torch.tensor([prompt + completion])).logits[0] / temperature
    logprobs = torch.log_softmax(logits, dim=-1)
    return torch.stack([logprobs[len(prompt) + t - 1, token] for t, token in enumerate(completion)])
