"""The gradient against every trajectory written out; the sampled one against it, with its bias; recovery up to shaping."""

from itertools import product

import numpy as np
import pytest

from tasks.tabular import maxent_irl
from tasks.tabular.chain import road, walk
from tasks.tabular.mdp import Mdp
from tasks.tabular.study import regret
from tests.reference import tabular_imitation as slow


@pytest.fixture
def mdp():
    return walk(np.array([0.8, 0.1, 1.5]), 4)


def test_exact_gradient_equals_that_of_every_trajectory(mdp):
    chance = np.random.default_rng(0)
    demonstrated, reward = chance.random(mdp.reward.shape), chance.normal(size=mdp.reward.shape)
    expected = slow.log_likelihood_gradient(mdp, demonstrated, reward)
    np.testing.assert_allclose(maxent_irl.exact_gradient(mdp, demonstrated, reward), expected, atol=1e-12)


def test_exact_gradient_is_zero_at_the_truth(mdp):
    demonstrated = mdp.counts(mdp.soft_policy(mdp.reward))
    np.testing.assert_allclose(maxent_irl.exact_gradient(mdp, demonstrated, mdp.reward), 0, atol=1e-12)


def test_sampled_gradient_by_hand():
    """One state, one step, actions worth ln 2 and 0, drawn with chances 1/2: weights 4 and 2 are 2/3 and 1/3 of a mean."""
    mdp = Mdp(np.ones(1), np.ones((1, 2, 1)), np.log([[2.0, 1.0]]), 1)
    states, actions = np.array([[0], [0]]), np.array([[0], [1]])
    found = maxent_irl.sampled_gradient(mdp, np.array([[1.0, 0.0]]), mdp.reward, np.full((1, 2), 0.5), states, actions)
    np.testing.assert_allclose(found.gradient, [[1 / 3, -1 / 3]])
    # sum of w²(x - mean)²: (2/3)²(1/3)² + (1/3)²(2/3)² = 8/81
    np.testing.assert_allclose(found.standard_error, np.full((1, 2), (8 / 81) ** 0.5))
    assert found.bias_bound == pytest.approx((5 / 9 - 1 / 2) ** 0.5)


def test_samples_of_the_soft_policy_itself_need_no_weights(mdp):
    policy = mdp.soft_policy(mdp.reward)
    states, actions = mdp.sample(policy, 100, np.random.default_rng(0))
    found = maxent_irl.sampled_gradient(mdp, mdp.reward, mdp.reward, policy, states, actions)
    np.testing.assert_allclose(found.gradient, mdp.reward - mdp.mean_counts(states, actions), atol=1e-12)
    assert found.bias_bound == pytest.approx(0, abs=1e-7)


def repeated(mdp, episodes, times):
    """Gradients and standard errors (times, S, A) of samples of another policy; the exact gradient."""
    policy, demonstrated = mdp.soft_policy(mdp.reward / 2), np.zeros_like(mdp.reward)
    chance = np.random.default_rng(0)
    found = [
        maxent_irl.sampled_gradient(mdp, demonstrated, mdp.reward, policy, *mdp.sample(policy, episodes, chance))
        for _ in range(times)
    ]
    gradients, errors = (np.array([getattr(each, name) for each in found]) for name in ("gradient", "standard_error"))
    exact = maxent_irl.exact_gradient(mdp, demonstrated, mdp.reward)
    return gradients, errors, exact


def test_sampled_gradient_equals_the_exact_one_within_its_standard_error():
    gradients, errors, exact = repeated(walk(np.array([2.0, 0.3, 1.0, 0.5, 2.5]), 6), 500, 200)
    seen = -exact > 0.05
    z = (gradients - exact)[:, seen] / errors[:, seen]
    assert seen.sum() > 8
    assert 0.92 < (np.abs(z) < 1.96).mean() < 0.98
    assert 0.9 < (z**2).mean() ** 0.5 < 1.15


def test_unweighted_samples_would_be_wrong():
    """The test above could not pass without the weights."""
    mdp = walk(np.array([2.0, 0.3, 1.0, 0.5, 2.5]), 6)
    _, errors, exact = repeated(mdp, 500, 5)
    other = -mdp.counts(mdp.soft_policy(mdp.reward / 2))
    seen = -exact > 0.05
    assert (np.abs(other - exact)[seen] / errors.mean(axis=0)[seen]).max() > 5


def test_bias_is_there_and_within_its_bound():
    """Exactly: of all samples of three trajectories, each with its chance. The bound is that of the docstring."""
    mdp = walk(np.array([2.0, 0.0, 1.0]), 2)
    policy, every = mdp.at_every_step(np.full((1, 3, 3), 1 / 3)), slow.trajectories(mdp)
    states, actions = (np.array([each[i] for each in every]) for i in (0, 1))
    chances = np.array([slow.chance_of(policy, *each[:2]) for each in every])
    zero, samples = np.zeros_like(mdp.reward), list(product(range(len(every)), repeat=3))
    found = np.array(
        [
            maxent_irl.sampled_gradient(mdp, zero, mdp.reward, policy, states[[*drawn]], actions[[*drawn]]).gradient
            for drawn in samples
        ]
    )
    weight_of = chances[np.array(samples)].prod(axis=1)
    mean = np.tensordot(weight_of, found, axes=1)
    spread = np.tensordot(weight_of, (found - mean) ** 2, axes=1) ** 0.5
    weights = np.exp([slow.collected(mdp.reward, *each[:2]) for each in every]) / chances
    variation = ((chances @ weights**2 / (chances @ weights) ** 2 - 1) / 3) ** 0.5
    bias = np.abs(mean - maxent_irl.exact_gradient(mdp, zero, mdp.reward))
    assert len(samples) == 729
    assert weight_of.sum() == pytest.approx(1)
    assert bias.max() > 0.05
    assert (bias <= variation * spread + 1e-12).all()
    drawn = mdp.sample(policy, 20000, np.random.default_rng(0))
    reported = maxent_irl.sampled_gradient(mdp, zero, mdp.reward, policy, *drawn).bias_bound
    assert reported == pytest.approx(variation * (3 / 20000) ** 0.5, rel=0.05)


def test_exact_irl_recovers_the_reward_up_to_shaping():
    """With the expert's own counts, returns of all trajectories differ from the true ones by one constant."""
    mdp = walk(np.array([0.5, 0.2, 1.2]), 4)
    found = maxent_irl.fit_exact(mdp, mdp.counts(mdp.soft_policy(mdp.reward)), 1000, 0.5)
    differences = [slow.collected(found - mdp.reward, states, actions) for states, actions, _ in slow.trajectories(mdp)]
    assert np.ptp(differences) < 1e-3
    assert np.abs(found - mdp.reward).max() > 0.1  # not the reward itself: that cannot be told
    assert regret(mdp, found) < 1e-9
    np.testing.assert_allclose(mdp.soft_policy(found), mdp.soft_policy(mdp.reward), atol=1e-3)


def test_shaping_changes_no_gradient(mdp):
    """Potentials that are 0 at the last step telescope to a constant: here, one number for each step taken."""
    demonstrated = mdp.counts(mdp.soft_policy(mdp.reward))
    shaped = maxent_irl.exact_gradient(mdp, demonstrated, mdp.reward + 3.0)
    np.testing.assert_allclose(shaped, maxent_irl.exact_gradient(mdp, demonstrated, mdp.reward), atol=1e-12)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_both_forms_learn_from_demonstrations_what_the_expert_wants(seed):
    chance = np.random.default_rng(seed)
    mdp = walk(3 * chance.random(5), 6)
    demonstrated = mdp.mean_counts(*mdp.sample(mdp.soft_policy(mdp.reward), 1000, chance))
    assert regret(mdp, np.zeros_like(mdp.reward)) > 0.05
    assert regret(mdp, maxent_irl.fit_exact(mdp, demonstrated, 100, 0.3)) < 0.01
    assert regret(mdp, maxent_irl.fit_sampled(mdp, demonstrated, 100, 0.3, 50, 5, chance)) < 0.01


def test_chance_in_the_dynamics_is_refused():
    mdp, _ = road(4, 0.5, 8)
    with pytest.raises(ValueError, match="only with one first state and deterministic transitions"):
        maxent_irl.exact_gradient(mdp, mdp.reward, mdp.reward)
