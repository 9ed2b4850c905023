"""GAIL on a table (Ho and Ermon 2016): a discriminator of states and actions, and a policy that is rewarded with log D.

D(s, a) maximizes E_demo[log D] + E_π[log(1 - D)]; on a table that is

    D = (ρ_demo + δ) / (ρ_demo + ρ_π + 2δ),

with ρ the share of steps spent in (s, a), and δ a little of both everywhere, without which log D of what was never
demonstrated would be -∞. The policy then takes a step of mirror ascent, π ∝ π · exp(η Q), Q of the reward log D: the
tabular form of a step of TRPO (Shani et al. 2020). How we differ from the paper: ρ_π and Q are exact, because the dynamics are
known, and there is no entropy bonus beyond what the first policy, uniform, leaves.

Demonstrations say nothing of states the expert never sees. The policy learns to leave them all the same: there log D is low.
"""

import numpy as np

from tasks.tabular.mdp import Array, Mdp


def discriminator(demonstrated: Array, own: Array, smoothing: float) -> Array:
    """D: (S, A), from shares of steps, each (S, A) and summing to 1."""
    return (demonstrated + smoothing) / (demonstrated + own + 2 * smoothing)


def gail(mdp: Mdp, demonstrated: Array, num_steps: int, learning_rate: float, smoothing: float) -> Array:
    """A policy (T, S, A). demonstrated: mean visits of a demonstration (S, A); learning_rate: η, per step of the horizon."""
    policy = np.full((mdp.horizon, *mdp.reward.shape), 1 / mdp.reward.shape[1])
    for _ in range(num_steps):
        real = discriminator(demonstrated / mdp.horizon, mdp.counts(policy) / mdp.horizon, smoothing)
        values = mdp.action_values(policy, np.log(real))
        policy = policy * np.exp(learning_rate * (values - values.max(axis=2, keepdims=True)))
        policy /= policy.sum(axis=2, keepdims=True)
    return policy


def total_variation(counts: Array, others: Array) -> float:
    """Half the summed difference of the shares of steps: 0 the same, 1 nothing in common."""
    return float(0.5 * np.abs(counts / counts.sum() - others / others.sum()).sum())
