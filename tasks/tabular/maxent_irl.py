"""Maximum-entropy inverse RL: the reward under which the demonstrations are most likely (Ziebart et al. 2008).

Trajectories are taken to have chances exp(r(τ)) / Z, r(τ) = Σ_t r(s_t, a_t). The gradient of the mean log-likelihood is

    ∇L = E_demo[∇r] - E_{exp(r)/Z}[∇r],

and since r is a table, ∇r(τ) is the visits of τ: (S, A). Exact and nested: soft value iteration inside, then the visits of
its policy. Sampled, as in guided cost learning (Finn et al. 2016; Sun 2023):

    ∇L ≈ E_demo[∇r] - Σ_j w_j ∇r(τ_j) / Σ_j w_j,   w_j = exp r(τ_j) / π(τ_j),   τ_j ~ π,

π any policy; it follows the reward some steps behind, which the weights correct. Both are right only where transitions are
deterministic (else exp(r)/Z is no policy's; Levine 2018) and there is one first state; anything else is refused.

Bias. The sampled mean is a ratio of two means, so it is biased, by about 1/n. Exactly (Hartley and Ross 1954): the bias is
-Cov(ratio, W) / E[W] with W the mean weight, hence |bias| / standard error <= CV(W) = sqrt((E[w²]/E[w]² - 1) / n), which
is estimated by sqrt(1/ess - 1/n), ess = (Σ w)² / Σ w². With 100 effective samples it is below a tenth of the standard error.

Rewards are found up to what no trajectory can tell: functions of which every trajectory collects the same sum (shaping,
Ng et al. 1999). So rewards are compared by policies and by differences of returns, never by entries.
"""

from dataclasses import dataclass

import numpy as np

from tasks.tabular.mdp import Array, Indices, Mdp


@dataclass(frozen=True)
class Sampled:
    """A gradient by importance sampling. standard_error: of each entry, by linearization; bias_bound: in standard errors."""

    gradient: Array
    standard_error: Array
    bias_bound: float


def exact_gradient(mdp: Mdp, demonstrated: Array, reward: Array) -> Array:
    """∇L: (S, A). demonstrated: mean visits of a demonstration."""
    _assert_sure(mdp)
    return demonstrated - mdp.counts(mdp.soft_policy(reward))


def sampled_gradient(mdp: Mdp, demonstrated: Array, reward: Array, policy: Array, states: Indices, actions: Indices) -> Sampled:
    """The same from trajectories that `policy` drew, states and actions (n, T)."""
    _assert_sure(mdp)
    logprobs = np.log(mdp.at_every_step(policy)[np.arange(mdp.horizon), states, actions]).sum(axis=1)
    log_weights = reward[states, actions].sum(axis=1) - logprobs
    weights = np.exp(log_weights - log_weights.max())
    weights /= weights.sum()
    visits = mdp.counts_of_each(states, actions)
    mean = np.tensordot(weights, visits, axes=1)
    variance = np.tensordot(weights**2, (visits - mean) ** 2, axes=1)
    bound = max(0.0, float((weights**2).sum() - 1 / len(weights))) ** 0.5
    return Sampled(demonstrated - mean, variance**0.5, bound)


def fit_exact(mdp: Mdp, demonstrated: Array, num_steps: int, learning_rate: float) -> Array:
    """The reward (S, A) by gradient ascent from zero."""
    reward = np.zeros_like(mdp.reward)
    for _ in range(num_steps):
        reward = reward + learning_rate * exact_gradient(mdp, demonstrated, reward)
    return reward


def fit_sampled(
    mdp: Mdp,
    demonstrated: Array,
    num_steps: int,
    learning_rate: float,
    episodes: int,
    refresh: int,
    chance: np.random.Generator,
) -> Array:
    """The same from `episodes` new trajectories a step; every `refresh` steps the policy that draws them takes up the reward.

    The mean reward of the last half of the steps, which averages the noise of sampling (Polyak and Juditsky 1992).
    """
    reward = np.zeros_like(mdp.reward)
    policy, total = mdp.soft_policy(reward), np.zeros_like(reward)
    for step in range(num_steps):
        if step % refresh == 0:
            policy = mdp.soft_policy(reward)
        drawn = mdp.sample(policy, episodes, chance)
        reward = reward + learning_rate * sampled_gradient(mdp, demonstrated, reward, policy, *drawn).gradient
        total += reward * (step >= num_steps // 2)
    return total / (num_steps - num_steps // 2)


def _assert_sure(mdp: Mdp) -> None:
    if mdp.start.max() < 1 or mdp.transitions.max(axis=2).min() < 1:
        raise ValueError("exp(return) are the chances of a policy only with one first state and deterministic transitions")
