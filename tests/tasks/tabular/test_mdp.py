"""Counts, values and policies against numbers worked out by hand, and against every trajectory written out."""

import numpy as np
import pytest

from tasks.tabular.chain import BACK, LEFT, RIGHT, STRAIGHT, road, walk
from tasks.tabular.mdp import Mdp
from tests.reference import tabular_imitation as slow


@pytest.fixture
def small():
    """Two states, two actions, three steps, all chances different."""
    chance = np.random.default_rng(0)
    transitions = chance.dirichlet([1, 1], size=(2, 2))
    policy = chance.dirichlet([1, 1], size=(3, 2))
    return Mdp(np.array([0.7, 0.3]), transitions, chance.normal(size=(2, 2)), 3), policy


def test_counts_by_hand():
    """Stay or go from 0 to 1 with chance 1/2 each; 1 is the end of the road: 1, then 1/2, then 1/4 are still in 0."""
    transitions = np.array([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]]])
    mdp = Mdp(np.array([1.0, 0.0]), transitions, np.array([[0.0, 1.0], [2.0, 2.0]]), 3)
    policy = np.array([[0.5, 0.5], [1.0, 0.0]])
    np.testing.assert_allclose(mdp.counts(policy), [[0.875, 0.875], [1.25, 0.0]])
    assert mdp.value(policy) == pytest.approx(0.875 + 2.5)
    # the last step of state 0 pays 0 or 1; the one before adds what follows: 0 + 1/2, or 1 + 2
    np.testing.assert_allclose(mdp.action_values(policy, mdp.reward)[:, 0], [[1.75, 5.0], [0.5, 3.0], [0.0, 1.0]])


def test_soft_policy_by_hand():
    """One state that goes nowhere: each step chooses with chances exp(reward)."""
    mdp = Mdp(np.ones(1), np.ones((1, 2, 1)), np.log([[1.0, 3.0]]), 2)
    np.testing.assert_allclose(mdp.soft_policy(mdp.reward), np.full((2, 1, 2), [0.25, 0.75]))


def test_counts_equal_the_sum_over_every_trajectory(small):
    mdp, policy = small
    np.testing.assert_allclose(mdp.counts(policy), slow.counts(mdp, policy), atol=1e-12)
    assert mdp.counts(policy).sum() == pytest.approx(mdp.horizon)


def test_values_agree_with_counts(small):
    mdp, policy = small
    first = (mdp.start[:, None] * policy[0] * mdp.action_values(policy, mdp.reward)[0]).sum()
    assert first == pytest.approx(mdp.value(policy))


def test_best_policy_is_the_best_of_all(small):
    mdp, _ = small
    assert mdp.value(mdp.best_policy(mdp.reward)) == pytest.approx(slow.best_return(mdp, mdp.reward))


def test_soft_policy_draws_trajectories_with_chances_exp_of_their_return():
    mdp = walk(np.array([0.3, 1.1, -0.4]), 3)
    policy, every = mdp.soft_policy(mdp.reward), slow.trajectories(mdp)
    weights = np.array([np.exp(slow.collected(mdp.reward, states, actions)) for states, actions, _ in every])
    chances = [slow.chance_of(policy, states, actions) for states, actions, _ in every]
    np.testing.assert_allclose(chances, weights / weights.sum(), atol=1e-12)


def test_samples_have_the_counts_of_their_policy(small):
    mdp, policy = small
    episodes = 20000
    drawn = mdp.counts_of_each(*mdp.sample(policy, episodes, np.random.default_rng(1)))
    error = drawn.std(axis=0) / episodes**0.5
    assert (np.abs(drawn.mean(axis=0) - mdp.counts(policy)) < 4 * error).all()
    np.testing.assert_allclose(mdp.mean_counts(*mdp.sample(policy, episodes, np.random.default_rng(1))), drawn.mean(axis=0))


def test_the_same_seed_draws_the_same(small):
    mdp, policy = small
    first, second = (mdp.sample(policy, 50, np.random.default_rng(7)) for _ in range(2))
    assert all((one == other).all() for one, other in zip(first, second, strict=True))


def test_what_has_no_chance_is_never_drawn():
    mdp, expert = road(30, 0.9, 16)
    states, actions = mdp.sample(np.eye(4)[expert], 500, np.random.default_rng(0))
    assert (actions == expert[states]).all()
    assert states.max() < 30


def test_the_road_by_hand():
    mdp, expert = road(2, 0.5, 4)
    assert expert.tolist() == [STRAIGHT, LEFT, BACK]
    np.testing.assert_allclose(mdp.start, [2 / 3, 1 / 3, 0])
    np.testing.assert_allclose(mdp.transitions[0, STRAIGHT], [2 / 3, 1 / 3, 0])
    np.testing.assert_allclose(mdp.transitions[0, RIGHT], [0, 0, 1])  # an error leads off the road
    np.testing.assert_allclose(mdp.transitions[2, STRAIGHT], [0, 0, 1])  # and there it stays
    np.testing.assert_allclose(mdp.transitions[2, BACK], [2 / 3, 1 / 3, 0])
    assert mdp.value(np.eye(4)[expert]) == 0.0
    assert mdp.value(np.eye(4)[[RIGHT, RIGHT, RIGHT]]) == -4.0


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"start": np.array([0.5, 0.4])}, "start: chances must be at least 0 and sum to 1"),
        ({"transitions": np.full((2, 2, 2), 0.6)}, "transitions: chances"),
        ({"reward": np.zeros((3, 2))}, "do not fit 2 states, 2 actions"),
        ({"horizon": 0}, "a horizon of 0 has no step"),
    ],
)
def test_what_is_no_problem_is_refused(small, change, says):
    mdp, _ = small
    parts = {"start": mdp.start, "transitions": mdp.transitions, "reward": mdp.reward, "horizon": mdp.horizon}
    with pytest.raises(ValueError, match=says):
        Mdp(**(parts | change))


def test_a_road_without_a_look_is_refused():
    with pytest.raises(ValueError, match="at least one look and a rarity between 0 and 1, not 4 and 1"):
        road(4, 1.0, 8)
