"""Losses of policy-gradient methods, per token; `reduce_tokens` makes one number of them."""

import torch
from torch import Tensor


def clipped_policy_loss(logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, clip_range: float) -> Tensor:
    """−min(ρ Â, clip(ρ, 1−ε, 1+ε) Â), ρ = π/π_old: PPO, Schulman et al. 2017, equation 7. (batch, time)

    advantages: (batch, time) or (batch, 1). On-policy (old = current) the gradient is the plain policy gradient.
    """
    ratio = (logprobs - old_logprobs).exp()
    return -torch.minimum(ratio * advantages, ratio.clamp(1 - clip_range, 1 + clip_range) * advantages)


def clip_fraction(logprobs: Tensor, old_logprobs: Tensor, clip_range: float) -> Tensor:
    """1 where the ratio left the trust region, else 0. (batch, time)"""
    return (((logprobs - old_logprobs).exp() - 1).abs() > clip_range).float()


def clipped_value_loss(values: Tensor, old_values: Tensor, returns: Tensor, clip_range: float) -> Tensor:
    """½ max((V − R)², (clip(V, V_old ± ε) − R)²): the value function moves by at most ε per rollout. (batch, time)"""
    clipped = old_values + (values - old_values).clamp(-clip_range, clip_range)
    return 0.5 * torch.maximum((values - returns).square(), (clipped - returns).square())
