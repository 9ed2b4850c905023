"""How much better than expected: advantages from rewards, and what a reward loses by length."""

from typing import Any

import torch
from torch import Tensor


class RunningMean:
    """Baseline of REINFORCE: an exponentially weighted mean of the rewards of earlier rollouts; 0 before the first.

        m ← decay · m + (1 − decay) · mean of the rollout,   value = m / (1 − decay^updates)

    The division makes it a proper mean of what it has seen (Kingma & Ba 2015, section 3): after one update it is that rollout's
    mean. Read it before the update: then it does not depend on the completions that it judges, and adds no bias.
    """

    def __init__(self, decay: float):
        self.decay, self.total, self.weight = decay, 0.0, 0.0

    @property
    def value(self) -> float:
        return self.total / self.weight if self.weight else 0.0

    def update(self, rewards: Tensor) -> None:
        """rewards: (batch,)"""
        self.total = self.decay * self.total + (1 - self.decay) * float(rewards.mean())
        self.weight = self.decay * self.weight + (1 - self.decay)

    def state_dict(self) -> dict[str, Any]:
        return {"total": self.total, "weight": self.weight}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.total, self.weight = state["total"], state["weight"]


def leave_one_out_advantages(rewards: Tensor, group_size: int) -> Tensor:
    """reward_i − mean of the other rewards of its group: RLOO, Kool et al. 2019; Ahmadian et al. 2024.

    rewards: (batch,), the completions of one prompt next to each other. The same as (reward − group mean) · G/(G − 1). The
    baseline of a completion does not depend on that completion, so it adds no bias. Equal rewards give exactly 0.
    """
    if group_size < 2:
        raise ValueError(f"group_size {group_size}: a group needs at least 2 completions to compare")
    groups = rewards.view(-1, group_size)
    advantages = (groups - groups.mean(1, keepdim=True)) * (group_size / (group_size - 1))
    return torch.where(in_equal_group(rewards, group_size), 0.0, advantages.view(-1))


def group_advantages(scores: Tensor, group_size: int, std_eps: float | None) -> Tensor:
    """(score − mean of its group) / (std of its group + std_eps): GRPO, Shao et al. 2024, equation in section 4.1.

    scores: (batch,), the completions of one prompt next to each other. Unbiased std. A group of equal scores gets exactly
    0; std_eps keeps a group of nearly equal scores from turning tiny gaps into advantages of ±1. None: nothing is divided
    (Dr. GRPO, Liu et al. 2025: dividing weighs questions that are too easy or too hard more).
    """
    if group_size < 2:
        raise ValueError(f"group_size {group_size}: a group needs at least 2 completions to compare")
    groups = scores.view(-1, group_size)
    centered = groups - groups.mean(1, keepdim=True)
    advantages = centered if std_eps is None else centered / (groups.std(1, keepdim=True) + std_eps)
    return torch.where(in_equal_group(scores, group_size), 0.0, advantages.view(-1))


def in_equal_group(rewards: Tensor, group_size: int) -> Tensor:
    """True for the completions of a group whose rewards are all equal, which says nothing of who is better: (batch,)."""
    groups = rewards.view(-1, group_size)
    return (groups.amax(1) == groups.amin(1)).repeat_interleave(group_size)


def overlong_penalty(lengths: Tensor, max_tokens: int, tokens: int) -> Tensor:
    """What a completion pays that is nearly cut off: DAPO, Yu et al. 2025, equation 13, as a positive number. (batch,)

    From 0 up to max_tokens − tokens it rises linearly to 1 at max_tokens. lengths: (batch,). tokens 0: nobody pays.
    """
    return (lengths - (max_tokens - tokens)).clamp(min=0) / max(tokens, 1)


def gae(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, gae_lambda: float) -> tuple[Tensor, Tensor]:
    """Generalized advantage estimation, Schulman et al. 2016, equation 16. All tensors (batch, time); returns (advantages,
    returns).

        δ_t = r_t + γ V_{t+1} − V_t,   Â_t = δ_t + γλ Â_{t+1},   returns = Â + V

    The value after the last token of a completion is 0: the episode ends there.
    """
    values = values * mask
    advantages = torch.zeros_like(rewards)
    following_value = following_advantage = torch.zeros_like(rewards[:, 0])
    for t in reversed(range(rewards.shape[1])):
        delta = rewards[:, t] + gamma * following_value - values[:, t]
        following_advantage = (delta + gamma * gae_lambda * following_advantage) * mask[:, t]
        following_value = values[:, t]
        advantages[:, t] = following_advantage
    return advantages, (advantages + values) * mask


def explained_variance(values: Tensor, outcomes: Tensor, mask: Tensor) -> Tensor:
    """1 − var(G − V)/var(G) over the masked tokens, a scalar: 0 for a useless value function, 1 for a perfect one.

    values: V, outcomes: G, the sum of the rewards still to come, both (batch, time).
    """
    real = mask.bool()
    return 1 - (outcomes - values)[real].var() / outcomes[real].var().clamp(min=1e-8)
