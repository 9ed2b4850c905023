"""A policy so small that all its completions can be written out: what others estimate by sampling is a sum here.

Two tokens, of which 0 ends the completion, and at most three in all; the logits of the next token are a row of a table, one
row for each position. So there are four completions: 0, 10, 110, and 111, which is cut off.
"""

from collections.abc import Callable, Sequence
from itertools import product

import torch
from torch import Tensor

LONGEST = 3
Completion = tuple[int, ...]


def completions() -> list[Completion]:
    """Those that end with 0 at their first 0, and the one that never does."""
    ended = [(*(1,) * length, 0) for length in range(LONGEST)]
    return [*ended, (1,) * LONGEST]


def logprob(table: Tensor, completion: Completion) -> Tensor:
    """log π of each token: (time,). table: (positions, 2), the logits at each position."""
    rows = torch.log_softmax(table, dim=1)
    return torch.stack([rows[position, token] for position, token in enumerate(completion)])


def expected_reward(table: Tensor, reference: Tensor, scores: Sequence[float], kl_coef: float) -> Tensor:
    """E[score] − kl_coef · KL(π‖π_ref) of completions, as the sum that it is."""
    total = torch.zeros((), dtype=torch.float64)
    for completion, score in zip(completions(), scores, strict=True):
        own, other = logprob(table, completion).sum(), logprob(reference, completion).sum()
        total = total + own.exp() * (score - kl_coef * (own - other))
    return total


def gradient_of_expected_reward(table: Tensor, reference: Tensor, scores: Sequence[float], kl_coef: float) -> Tensor:
    table = table.clone().requires_grad_()
    return torch.autograd.grad(expected_reward(table, reference, scores, kl_coef), table)[0]


def over_all_samples(table: Tensor, draws: int, estimate: Callable[[list[int]], Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and summed variance of an estimate from `draws` independent samples: from indices into completions() a gradient."""
    probabilities = [float(logprob(table, completion).sum().exp()) for completion in completions()]
    mean, square = torch.zeros_like(table), torch.zeros((), dtype=torch.float64)
    for drawn in product(range(len(probabilities)), repeat=draws):
        chance = 1.0
        for index in drawn:
            chance *= probabilities[index]
        gradient = estimate(list(drawn))
        mean += chance * gradient
        square += chance * gradient.square().sum()
    return mean, square - mean.square().sum()
