"""The supervised learner by hand; and why errors compound for one of its users and not for the other."""

import numpy as np
import pytest

from tasks.core.errors import InputError
from tasks.tabular.chain import BACK, STRAIGHT, road
from tasks.tabular.cloning import behavior_cloning, dagger, learn
from tasks.tabular.horizon import METHODS, errors, exponent

OFF, HORIZONS, SEEDS = 40, [8, 16, 64], 12


def test_learner_by_hand():
    """State 0 has labels 1, 1, 2; state 1 label 0; state 2 none, so the most frequent of all."""
    policy = learn(np.array([0, 0, 0, 1]), np.array([1, 1, 2, 0]), (3, 3))
    assert policy.argmax(axis=1).tolist() == [1, 0, 1]
    assert (policy.sum(axis=1) == 1).all()


def test_cloning_never_learns_the_way_back_and_dagger_does():
    mdp, expert = road(OFF, 0.9, 16)
    for seed in range(5):
        cloned = behavior_cloning(mdp, expert, 512, np.random.default_rng(seed))
        assert cloned[OFF].argmax() == STRAIGHT  # its most frequent label
        assert dagger(mdp, expert, 512, 8, np.random.default_rng(seed))[OFF].argmax() == BACK


def test_enough_labels_leave_no_error():
    mdp, expert = road(3, 0.9, 8)
    cloned = behavior_cloning(mdp, expert, 800, np.random.default_rng(0))
    assert (cloned.argmax(axis=1)[:3] == expert[:3]).all()
    assert mdp.value(cloned) == 0.0


def test_one_iteration_of_dagger_is_behavior_cloning():
    mdp, expert = road(OFF, 0.9, 8)
    one, other = (
        dagger(mdp, expert, 64, 1, np.random.default_rng(3)),
        behavior_cloning(mdp, expert, 64, np.random.default_rng(3)),
    )
    assert (one == other).all()


@pytest.mark.parametrize(("labels", "iterations", "says"), [(100, 4, "not whole episodes of 8"), (64, 3, "equally by 3")])
def test_labels_that_cannot_be_shared_are_refused(labels, iterations, says):
    mdp, expert = road(4, 0.5, 8)
    with pytest.raises(ValueError, match=says):
        dagger(mdp, expert, labels, iterations, np.random.default_rng(0))


@pytest.fixture(scope="module")
def measured():
    """Errors per episode: method -> (seeds, horizons)."""
    found = [
        [
            errors(
                looks=120, rarity=0.97, horizon=horizon, num_labels=1024, dagger_iterations=8, gail_steps=10,
                gail_learning_rate=0.5, gail_smoothing=1e-4, test_episodes=500, seed=seed,
            )
            for horizon in HORIZONS
        ]
        for seed in range(SEEDS)
    ]  # fmt: skip
    return {name: np.array([[each[name] for each in row] for row in found]) for name in found[0][0]}


def test_errors_of_cloning_compound_and_those_of_dagger_and_of_rl_on_a_learned_reward_do_not(measured):
    fitted = {name: exponent(measured[name], HORIZONS, 500, 0) for name in METHODS}
    assert fitted["behavior_cloning"][1] > 1.5  # whole intervals: nearer to 2 than to 1, or the other way round
    assert fitted["dagger"][2] < 1.5
    assert fitted["gail"][2] < 1.5


def test_the_error_on_the_expert_states_does_not_depend_on_the_horizon(measured):
    """So the exponent is the horizon's work, not that of a worse learner."""
    rates = measured["expert_states"]
    difference = rates[:, -1] - rates[:, 0]
    assert abs(difference.mean()) < 3 * difference.std(ddof=1) / SEEDS**0.5
    assert rates.mean() > 0.001


def test_exponent_by_hand():
    exact = np.array([[1.0, 4.0, 16.0]] * 3)
    assert exponent(exact, [2, 4, 8], 50, 0) == pytest.approx((2.0, 2.0, 2.0))
    assert exponent(np.array([[3.0, 6.0], [1.0, 2.0]]), [5, 10], 50, 0) == pytest.approx((1.0, 1.0, 1.0))


def test_exponent_interval_covers_what_seeds_disagree_about():
    chance = np.random.default_rng(0)
    noisy = np.array([4.0, 8.0, 16.0]) * chance.gamma(2.0, 0.5, size=(30, 3))
    middle, low, high = exponent(noisy, [4, 8, 16], 500, 0)
    assert low < middle < high
    assert low < 1.0 < high
    assert high - low > 0.2


def test_no_error_at_all_is_refused():
    with pytest.raises(InputError, match=r"no error in any episode of 16 steps.*raise `imitation.test_episodes`"):
        exponent(np.array([[0.5, 0.0], [0.1, 0.0]]), [8, 16], 50, 0)
