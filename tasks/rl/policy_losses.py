"""Losses of policy-gradient methods, per token or per completion; `reduce_tokens` makes one number of them."""

import torch
from torch import Tensor


def policy_gradient_loss(logprobs: Tensor, advantages: Tensor) -> Tensor:
    """−Â log π, whose gradient is that of REINFORCE, Williams 1992: −Â ∇log π. (batch, time)

    advantages: (batch, time) or (batch, 1). The value of this loss means nothing by itself.
    """
    return -advantages * logprobs


def importance_ratio(logprobs: Tensor, old_logprobs: Tensor, mask: Tensor, level: str) -> Tensor:
    """ρ = π/π_old of what the old policy sampled; logprobs, old_logprobs, mask: (batch, time).

    token           of each token: (batch, time)                                        PPO, GRPO
    sequence_mean   geometric mean over the tokens of a completion: (batch, 1)          GSPO, Zheng et al. 2025
    sequence_sum    of the whole completion, the product over its tokens: (batch, 1)    RLOO
    """
    log_ratio = logprobs - old_logprobs
    match level:
        case "token":
            return log_ratio.exp()
        case "sequence_mean":
            return ((log_ratio * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True).clamp(min=1)).exp()
        case "sequence_sum":
            return (log_ratio * mask).sum(1, keepdim=True).exp()
    raise ValueError(f"importance_level: {level!r} is not one of token, sequence_mean, sequence_sum")


def clipped_ratio_loss(
    ratio: Tensor, advantages: Tensor, clip_low: float, clip_high: float, max_ratio: float | None = None
) -> Tensor:
    """−min(ρ Â, clip(ρ, 1−ε_low, 1+ε_high) Â), in the shape of the ratio: (batch, time) or (batch, 1).

    clip_high > clip_low is the "clip higher" of DAPO, Yu et al. 2025. max_ratio: the first ρ is at most this, which bounds
    the loss of a bad token that has become much likelier (two-sided clipping: INTELLECT-2, 2025; δ in its equation).
    """
    unclipped = ratio if max_ratio is None else ratio.clamp(max=max_ratio)
    return -torch.minimum(unclipped * advantages, ratio.clamp(1 - clip_low, 1 + clip_high) * advantages)


def cispo_loss(logprobs: Tensor, ratio: Tensor, advantages: Tensor, clip_low: float, clip_high: float) -> Tensor:
    """−sg(clip(ρ, 1−ε_low, 1+ε_high)) Â log π: CISPO, MiniMax-M1 2025. (batch, time)

    The importance weight is clipped, not the update: every token keeps a gradient. clip_low 1 is no lower bound.
    """
    return -ratio.clamp(1 - clip_low, 1 + clip_high).detach() * advantages * logprobs


def is_clipped(ratio: Tensor, clip_low: float, clip_high: float) -> Tensor:
    """1 where the ratio left [1−ε_low, 1+ε_high], else 0; in the shape of the ratio."""
    return ((ratio < 1 - clip_low) | (ratio > 1 + clip_high)).float()


def clipped_policy_loss(logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, clip_range: float) -> Tensor:
    """−min(ρ Â, clip(ρ, 1−ε, 1+ε) Â), ρ = π/π_old: PPO, Schulman et al. 2017, equation 7. (batch, time)

    advantages: (batch, time) or (batch, 1). On-policy (old = current) the gradient is the plain policy gradient.
    """
    return clipped_ratio_loss((logprobs - old_logprobs).exp(), advantages, clip_range, clip_range)


def clip_fraction(logprobs: Tensor, old_logprobs: Tensor, clip_range: float) -> Tensor:
    """1 where the ratio left the trust region, else 0. (batch, time)"""
    return is_clipped((logprobs - old_logprobs).exp(), clip_range, clip_range)


def clipped_value_loss(values: Tensor, old_values: Tensor, returns: Tensor, clip_range: float) -> Tensor:
    """½ max((V − R)², (clip(V, V_old ± ε) − R)²): the value function moves by at most ε per rollout. (batch, time)"""
    clipped = old_values + (values - old_values).clamp(-clip_range, clip_range)
    return 0.5 * torch.maximum((values - returns).square(), (clipped - returns).square())
