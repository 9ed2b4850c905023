"""The imitation family where everything can be computed: two small chains, several seeds, every figure with an interval.

On the road (tasks/tabular/chain.py), error against horizon:
exponent_<method>          k of error ∝ T^k: 2 if errors compound, 1 if they do not. An episode has at most T errors, so it
                           is 2 only where εT is small: with ε = 0.004, Σ_t 1 - (1 - ε)^t gives 1.92 up to T = 64
error_rate                 of behavior cloning on the expert's states: ε of theorem 1.1, alike at every horizon

On the walk, whose expert acts by the soft policy of rewards drawn anew for each seed:
irl_regret                 of the best policy for the reward of exact maximum-entropy IRL, as a share of the expert's return
sampled_irl_regret         the same by importance sampling; untrained_regret: of acting by chance, for comparison
irl_gap                    spread of returns that the found reward judges otherwise than the true one, as a share of theirs;
                           0 is recovery up to shaping. More demonstrations make it smaller
gradient_coverage          share of entries of the sampled gradient within 1.96 standard errors of the exact one: 0.95 if honest
gradient_z2                mean square of (sampled - exact) / standard error: 1 if honest
gradient_bias_bound        what self-normalizing can add, at most, in standard errors
gail_total_variation       between the state-action shares of GAIL's policy and of the expert
apprenticeship_gap         |μ - μ(demonstrations)| of the mixture found, computed again from its policies
apprenticeship_true_gap    the same against the expert himself; apprenticeship_rounds: policies it took

Intervals are 95 % bootstrap intervals over seeds, each with chains and demonstrations of its own.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated

import numpy as np
from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from tasks.core import seeds
from tasks.core.config import Config, check_divides
from tasks.core.files import Row
from tasks.core.run import run
from tasks.core.stage import Stage
from tasks.core.statistics import paired_bootstrap
from tasks.tabular import horizon, maxent_irl
from tasks.tabular.apprenticeship import apprenticeship, expectations
from tasks.tabular.chain import walk
from tasks.tabular.gail import gail, total_variation
from tasks.tabular.mdp import Array, Mdp

SEEN = 0.05  # expected visits from which on an entry of the gradient is compared: below, its standard error is itself a guess


class ImitationConfig(Config):
    """params.yaml: imitation."""

    namespace = "imitation"

    seeds: Annotated[int, Field(ge=2)]
    bootstrap_samples: PositiveInt
    looks: PositiveInt
    rarity: Annotated[float, Field(gt=0, lt=1)]
    horizons: list[PositiveInt]
    num_labels: PositiveInt
    dagger_iterations: PositiveInt
    test_episodes: PositiveInt
    positions: Annotated[int, Field(ge=2)]
    walk_horizon: PositiveInt
    highest_pay: PositiveFloat
    num_demonstrations: PositiveInt
    irl_steps: PositiveInt
    irl_learning_rate: PositiveFloat
    irl_episodes: PositiveInt
    irl_refresh: PositiveInt
    gail_steps: PositiveInt
    gail_learning_rate: PositiveFloat
    gail_smoothing: PositiveFloat
    apprenticeship_epsilon: PositiveFloat
    apprenticeship_rounds: PositiveInt

    @model_validator(mode="after")
    def _whole_episodes(self) -> "ImitationConfig":
        if len(self.horizons) < 2 or any(left >= right for left, right in pairwise(self.horizons)):
            raise ValueError(f"horizons {self.horizons} must be two or more, ascending, to fit an exponent")
        for each in self.horizons:
            check_divides(f"dagger_iterations x horizon {each}", self.dagger_iterations * each, "num_labels", self.num_labels)
        return self


def study(config: ImitationConfig, stage: Stage) -> None:
    on_road = [
        [_road(config, each, seeds.derive(stage.seed, "road", i)) for each in config.horizons] for i in range(config.seeds)
    ]
    on_walk = [_walk(config, seeds.derive(stage.seed, "walk", i)) for i in range(config.seeds)]
    curves = {name: np.array([[found[name] for found in row] for row in on_road]) for name in on_road[0][0]}

    def interval(name: str, figures: Sequence[float]) -> dict[str, float]:
        found = paired_bootstrap(figures, config.bootstrap_samples, seeds.derive(stage.seed, "interval", name))
        return dict(zip((name, f"{name}_low", f"{name}_high"), found, strict=True))

    rows: list[Row] = []
    for method in horizon.METHODS:
        fitted = horizon.exponent(
            curves[method], config.horizons, config.bootstrap_samples, seeds.derive(stage.seed, "exponent", method)
        )
        name = f"exponent_{method}"
        stage.record(**dict(zip((name, f"{name}_low", f"{name}_high"), fitted, strict=True)))
        for column, each in enumerate(config.horizons):
            rows.append({"method": method, "horizon": each, **interval("error", curves[method][:, column].tolist())})
    stage.record(**interval("error_rate", curves["expert_states"].mean(axis=1).tolist()))
    for name in on_walk[0]:
        stage.record(**interval(name, [found[name] for found in on_walk]))
    for row in rows:
        stage.tracker.metrics({f"error/{row['method']}": row["error"]}, row["horizon"])
    stage.table("horizons", rows)
    stage.report("reports/imitation", {"horizons": rows})


def _road(config: ImitationConfig, steps: int, seed: int) -> dict[str, float]:
    return horizon.errors(
        looks=config.looks,
        rarity=config.rarity,
        horizon=steps,
        num_labels=config.num_labels,
        dagger_iterations=config.dagger_iterations,
        gail_steps=config.gail_steps,
        gail_learning_rate=config.gail_learning_rate,
        gail_smoothing=config.gail_smoothing,
        test_episodes=config.test_episodes,
        seed=seed,
    )


def _walk(config: ImitationConfig, seed: int) -> dict[str, float]:
    """Every figure of one walk."""
    chance = np.random.default_rng(seeds.derive(seed, "chance"))
    mdp = walk(config.highest_pay * chance.random(config.positions), config.walk_horizon)
    expert = mdp.soft_policy(mdp.reward)
    demonstrations = mdp.sample(expert, config.num_demonstrations, chance)
    demonstrated = mdp.mean_counts(*demonstrations)
    exact = maxent_irl.fit_exact(mdp, demonstrated, config.irl_steps, config.irl_learning_rate)
    sampled = maxent_irl.fit_sampled(
        mdp, demonstrated, config.irl_steps, config.irl_learning_rate, config.irl_episodes, config.irl_refresh, chance
    )
    states, actions = demonstrations
    differences, returns = (rewards[states, actions].sum(axis=1) for rewards in (exact - mdp.reward, mdp.reward))
    imitated = gail(mdp, demonstrated, config.gail_steps, config.gail_learning_rate, config.gail_smoothing)
    return {
        "irl_regret": regret(mdp, exact),
        "sampled_irl_regret": regret(mdp, sampled),
        "untrained_regret": 1 - mdp.value(np.full((1, *mdp.reward.shape), 1 / mdp.reward.shape[1])) / mdp.value(expert),
        "irl_gap": float(differences.std() / max(returns.std(), 1e-12)),
        **_gradients(mdp, demonstrated, config.num_demonstrations, chance),
        "gail_total_variation": total_variation(mdp.counts(imitated), mdp.counts(expert)),
        **_apprenticeship(config, mdp, demonstrated, expert),
    }


def regret(mdp: Mdp, reward: Array) -> float:
    """What the best policy for this reward misses of the best for the true one, as a share of the soft expert's return."""
    best, found = (mdp.value(mdp.best_policy(each)) for each in (mdp.reward, reward))
    return (best - found) / mdp.value(mdp.soft_policy(mdp.reward))


def _gradients(mdp: Mdp, demonstrated: Array, episodes: int, chance: np.random.Generator) -> dict[str, float]:
    """At the true reward, from trajectories of the policy of half of it."""
    policy = mdp.soft_policy(mdp.reward / 2)
    drawn = mdp.sample(policy, episodes, chance)
    sampled = maxent_irl.sampled_gradient(mdp, demonstrated, mdp.reward, policy, *drawn)
    exact = maxent_irl.exact_gradient(mdp, demonstrated, mdp.reward)
    seen = (demonstrated - exact >= SEEN) & (sampled.standard_error > 0)
    z = (sampled.gradient - exact)[seen] / sampled.standard_error[seen]
    return {
        "gradient_coverage": float((np.abs(z) < 1.96).mean()),
        "gradient_z2": float((z**2).mean()),
        "gradient_bias_bound": sampled.bias_bound,
    }


def _apprenticeship(config: ImitationConfig, mdp: Mdp, demonstrated: Array, expert: Array) -> dict[str, float]:
    """Features: the position, one of each."""
    states, actions = mdp.reward.shape
    features = np.repeat(np.eye(states)[:, None], actions, axis=1)
    shown = np.tensordot(demonstrated, features, axes=2) / mdp.horizon
    mixture = apprenticeship(mdp, features, shown, config.apprenticeship_epsilon, config.apprenticeship_rounds)
    reached = mixture.weights @ np.array([expectations(mdp, features, policy) for policy in mixture.policies])
    return {
        "apprenticeship_gap": float(np.linalg.norm(reached - shown)),
        "apprenticeship_true_gap": float(np.linalg.norm(reached - expectations(mdp, features, expert))),
        "apprenticeship_rounds": float(len(mixture.policies) - 1),
    }


if __name__ == "__main__":
    run(ImitationConfig, study)
