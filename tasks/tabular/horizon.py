"""Error against horizon (takeaway 2 of Sun 2023): behavior cloning, DAgger, and RL on a reward that is learned.

The third is GAIL on the same number of labels, all of the expert's own states as for behavior cloning. It stands for RLHF: the
reward comes from demonstrations, the policy is optimized with the dynamics known. Errors are counted in simulated episodes:
steps at which the policy does not do what the expert would do in the state where the policy is.
"""

from collections.abc import Sequence

import numpy as np

from tasks.core import seeds
from tasks.core.errors import InputError
from tasks.tabular.chain import road
from tasks.tabular.cloning import behavior_cloning, dagger
from tasks.tabular.gail import gail
from tasks.tabular.mdp import Array

METHODS = ("behavior_cloning", "dagger", "gail")


def errors(
    *,
    looks: int,
    rarity: float,
    horizon: int,
    num_labels: int,
    dagger_iterations: int,
    gail_steps: int,
    gail_learning_rate: float,
    gail_smoothing: float,
    test_episodes: int,
    seed: int,
) -> dict[str, float]:
    """Errors per episode by method; `expert_states`: the error rate of behavior cloning on the expert's states, ε."""
    mdp, expert = road(looks, rarity, horizon)
    own = np.eye(mdp.reward.shape[1])[expert]
    purposes = ("behavior_cloning", "dagger", "gail", "test")
    chance = {purpose: np.random.default_rng(seeds.derive(seed, purpose, horizon)) for purpose in purposes}
    demonstrated = mdp.mean_counts(*mdp.sample(own, num_labels // horizon, chance["gail"]))
    policies = {
        "behavior_cloning": behavior_cloning(mdp, expert, num_labels, chance["behavior_cloning"]),
        "dagger": dagger(mdp, expert, num_labels, dagger_iterations, chance["dagger"]),
        "gail": gail(mdp, demonstrated, gail_steps, gail_learning_rate, gail_smoothing),
    }
    found = {}
    for name in METHODS:
        states, actions = mdp.sample(policies[name], test_episodes, chance["test"])
        found[name] = float((actions != expert[states]).sum(axis=1).mean())
    agreed = policies["behavior_cloning"][np.arange(len(expert)), expert]
    return found | {"expert_states": float(mdp.start @ (1 - agreed))}


def exponent(by_seed: Array, horizons: Sequence[int], samples: int, seed: int) -> tuple[float, float, float]:
    """k of error ∝ T^k and its 95 % interval: least squares of log(mean error) on log(T), bootstrap over seeds.

    by_seed: (seeds, horizons). The mean comes before the logarithm: a seed without an error has none. Samples of seeds in which
    some horizon has no error are left out. Raises InputError where the figures themselves have such a horizon.
    """
    for horizon, mean in zip(horizons, by_seed.mean(axis=0), strict=True):
        if mean <= 0:
            raise InputError(
                f"no error in any episode of {horizon} steps, so no exponent; raise `imitation.test_episodes` or lower "
                "`imitation.num_labels`"
            )
    drawn = np.random.default_rng(seed).integers(0, len(by_seed), size=(samples, len(by_seed)))
    means = by_seed[drawn].mean(axis=1)
    slopes = _slope(means[(means > 0).all(axis=1)], horizons)
    low, high = np.quantile(slopes, [0.025, 0.975])
    return float(_slope(by_seed.mean(axis=0), horizons)), float(low), float(high)


def _slope(means: Array, horizons: Sequence[int]) -> Array:
    logs = np.log(horizons) - np.log(horizons).mean()
    return np.log(means) @ logs / (logs @ logs)
