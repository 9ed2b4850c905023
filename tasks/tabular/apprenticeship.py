"""Apprenticeship by linear features (Abbeel and Ng 2004), in its projection form (their section 3.1).

r = wᵀφ. The expert is at least as good as any other policy under the reward that is sought: wᵀμ(π*) >= wᵀμ(π), μ the feature
expectations. In each round w = μ(expert) - μ̄ is the direction in which what was found so far falls shortest, the best policy
for it is computed, and μ̄ is projected on the line to its μ. So μ̄ is always a mixture of the μ of the policies found: choosing
one of them at the start, with the weights of the mixture, has μ̄ as its feature expectations. When |μ(expert) - μ̄| <= ε, the
mixture is as good as the expert, up to ε, for every reward with |w| <= 1.
"""

from dataclasses import dataclass

import numpy as np

from tasks.core.errors import InputError
from tasks.tabular.mdp import Array, Mdp


@dataclass(frozen=True)
class Mixture:
    """policies: (n, T, S, A), one chosen at the start by weights (n,); margins: |μ(expert) - μ̄| from round to round."""

    policies: Array
    weights: Array
    margins: list[float]


def expectations(mdp: Mdp, features: Array, policy: Array) -> Array:
    """μ: (features,), the mean over the steps. features: (S, A, features)."""
    return np.tensordot(mdp.counts(policy), features, axes=2) / mdp.horizon


def apprenticeship(mdp: Mdp, features: Array, expert: Array, epsilon: float, max_rounds: int) -> Mixture:
    """A mixture whose feature expectations are within epsilon of `expert`, (features,); fewer rounds if they suffice.

    Raises InputError where max_rounds do not: the expert's expectations may be out of reach of any policy.
    """
    first = mdp.at_every_step(np.full(mdp.reward.shape, 1 / mdp.reward.shape[1]))
    policies, weights = [first], np.ones(1)
    reached = expectations(mdp, features, first)
    margins = [float(np.linalg.norm(expert - reached))]
    while margins[-1] > epsilon:
        if len(margins) > max_rounds:
            raise InputError(
                f"apprenticeship is still {margins[-1]:.3g} from the expert's features after {max_rounds} rounds; no mixture "
                f"may come within {epsilon}: raise `imitation.apprenticeship_rounds`, `apprenticeship_epsilon` or "
                "`num_demonstrations`"
            )
        best = mdp.best_policy(features @ (expert - reached))
        step = expectations(mdp, features, best) - reached
        part = float(np.clip(step @ (expert - reached) / max(float(step @ step), 1e-300), 0, 1))
        policies, weights = [*policies, best], np.append(weights * (1 - part), part)
        reached = reached + part * step
        margins.append(float(np.linalg.norm(expert - reached)))
    return Mixture(np.array(policies), weights, margins)
