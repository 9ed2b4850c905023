"""The discriminator by hand, its optimality, and the occupancy it leads the policy to."""

import numpy as np
import pytest

from tasks.tabular.chain import BACK, road, walk
from tasks.tabular.gail import discriminator, gail, total_variation


def test_discriminator_by_hand():
    found = discriminator(np.array([[0.5, 0.5]]), np.array([[0.25, 0.75]]), 0.25)
    np.testing.assert_allclose(found, [[0.75 / 1.25, 0.75 / 1.75]])
    assert (discriminator(np.array([[0.5]]), np.array([[0.5]]), 0.1) == 0.5).all()


def test_without_smoothing_no_other_discriminator_is_better():
    chance = np.random.default_rng(0)
    real, own = chance.dirichlet(np.ones(6), size=2)

    def objective(guess):
        return real @ np.log(guess) + own @ np.log(1 - guess)

    best = objective(discriminator(real, own, 0.0))
    for _ in range(200):
        assert objective(chance.uniform(0.01, 0.99, size=6)) < best


def test_total_variation_by_hand():
    assert total_variation(np.array([[1.0, 1.0]]), np.array([[3.0, 1.0]])) == pytest.approx(0.25)
    assert total_variation(np.array([[2.0, 0.0]]), np.array([[0.0, 5.0]])) == 1.0


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_occupancy_matches_the_expert(seed):
    chance = np.random.default_rng(seed)
    mdp = walk(3 * chance.random(7), 8)
    expert = mdp.soft_policy(mdp.reward)
    demonstrated = mdp.mean_counts(*mdp.sample(expert, 1000, chance))
    assert total_variation(mdp.counts(np.full((1, 7, 3), 1 / 3)), mdp.counts(expert)) > 0.2
    assert total_variation(mdp.counts(gail(mdp, demonstrated, 30, 0.5, 1e-4)), mdp.counts(expert)) < 0.05


def test_it_leaves_states_that_no_demonstration_has():
    """What behavior cloning cannot know: off the road, the way back is rewarded by what comes after."""
    mdp, expert = road(20, 0.9, 8)
    demonstrated = mdp.mean_counts(*mdp.sample(np.eye(4)[expert], 32, np.random.default_rng(0)))
    assert demonstrated[20].sum() == 0
    policy = gail(mdp, demonstrated, 30, 0.5, 1e-4)
    assert policy[0, 20, BACK] > 0.95
