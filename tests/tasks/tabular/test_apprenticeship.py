"""The projection by hand, and what the mixture promises: within epsilon of the expert, for every reward of its features."""

import numpy as np
import pytest

from tasks.core.errors import InputError
from tasks.tabular.apprenticeship import apprenticeship, expectations
from tasks.tabular.chain import walk
from tasks.tabular.mdp import Mdp


def positions(mdp):
    """One feature for each position."""
    states, actions = mdp.reward.shape
    return np.repeat(np.eye(states)[:, None], actions, axis=1)


def test_projection_by_hand():
    """One state, one step, two actions with one feature each; the expert mixes them 3 : 1, the first guess 1 : 1.

    The best policy for w = (1/4, -1/4) always takes the first action; half of it and half of the guess is the expert.
    """
    mdp = Mdp(np.ones(1), np.ones((1, 2, 1)), np.zeros((1, 2)), 1)
    mixture = apprenticeship(mdp, np.eye(2)[None], np.array([0.75, 0.25]), 1e-9, 5)
    np.testing.assert_allclose(mixture.weights, [0.5, 0.5])
    np.testing.assert_allclose(mixture.policies[1], [[[1.0, 0.0]]])
    np.testing.assert_allclose(mixture.margins, [0.125**0.5, 0.0], atol=1e-12)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_feature_expectations_come_within_epsilon(seed):
    chance = np.random.default_rng(seed)
    mdp = walk(3 * chance.random(5), 6)
    features = positions(mdp)
    expert = expectations(mdp, features, mdp.soft_policy(mdp.reward))
    mixture = apprenticeship(mdp, features, expert, 0.02, 2000)
    each = np.array([expectations(mdp, features, policy) for policy in mixture.policies])
    reached = mixture.weights @ each
    assert mixture.weights.min() >= 0
    assert mixture.weights.sum() == pytest.approx(1)
    assert mixture.margins[0] > 0.1
    assert all(later <= earlier + 1e-12 for earlier, later in zip(mixture.margins, mixture.margins[1:], strict=False))
    assert np.linalg.norm(reached - expert) == pytest.approx(mixture.margins[-1])
    assert mixture.margins[-1] <= 0.02
    for weights in chance.normal(size=(50, 5)):  # as good as the expert for any reward with |w| <= 1
        weights /= np.linalg.norm(weights)
        assert weights @ (expert - reached) <= 0.02 + 1e-12


def test_the_expert_is_no_worse_than_any_policy_under_the_reward_that_is_found():
    """wᵀμ(π*) >= wᵀμ(π) of the best expert, with w the last direction before it is reached."""
    mdp = walk(np.array([0.0, 0.5, 0.0, 0.2, 2.0]), 6)
    features = positions(mdp)
    expert = expectations(mdp, features, mdp.best_policy(mdp.reward))
    mixture = apprenticeship(mdp, features, expert, 1e-6, 50)
    each = np.array([expectations(mdp, features, policy) for policy in mixture.policies])
    direction = expert - each[0]  # the one reward that was tried: its best policy is the expert's
    assert (each @ direction <= expert @ direction + 1e-9).all()


def test_an_expert_out_of_reach_is_refused():
    mdp = walk(np.ones(3), 4)
    with pytest.raises(InputError, match=r"still .* from the expert's features after 20 rounds.*raise"):
        apprenticeship(mdp, positions(mdp), np.array([1.0, 0.0, 0.0]), 0.01, 20)
