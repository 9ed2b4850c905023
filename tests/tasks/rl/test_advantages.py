"""Advantages by hand, and the fast recursion against the written-out sum."""

import pytest
import torch

from tasks.rl.advantages import (
    RunningMean,
    explained_variance,
    gae,
    group_advantages,
    in_equal_group,
    leave_one_out_advantages,
    overlong_penalty,
)
from tests.reference import rl as slow


def padded(lengths, seed=0):
    """Random (batch, time) values that hold rubbish where the mask is 0."""
    chance = torch.Generator().manual_seed(seed)
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    return torch.randn(mask.shape, generator=chance), torch.randn(mask.shape, generator=chance), mask


def test_gae_by_hand():
    """γ = 1, λ = ½, one reward at the end: δ = (.2, .3, .4), so Â_3 = .4, Â_2 = .3 + .4/2, Â_1 = .2 + .5/2."""
    rewards, values = torch.tensor([[0.0, 0.0, 1.0]]), torch.tensor([[0.1, 0.3, 0.6]])
    advantages, returns = gae(rewards, values, torch.ones(1, 3), gamma=1.0, gae_lambda=0.5)
    torch.testing.assert_close(advantages, torch.tensor([[0.45, 0.5, 0.4]]))
    torch.testing.assert_close(returns, torch.tensor([[0.55, 0.8, 1.0]]))


@pytest.mark.parametrize(("gamma", "gae_lambda"), [(1.0, 0.95), (0.9, 0.8), (1.0, 0.0), (0.99, 1.0)])
def test_gae_equals_the_sum_it_stands_for(gamma, gae_lambda):
    lengths = [5, 1, 3, 7]
    values, rewards, mask = padded(lengths)
    advantages, returns = gae(rewards * mask, values, mask, gamma, gae_lambda)
    for row, length in enumerate(lengths):
        expected = slow.gae_of_one(rewards[row, :length].tolist(), values[row, :length].tolist(), gamma, gae_lambda)
        torch.testing.assert_close(advantages[row, :length], torch.tensor(expected))
        torch.testing.assert_close(returns[row, :length], torch.tensor(expected) + values[row, :length])
        assert not advantages[row, length:].any()
        assert not returns[row, length:].any()


@pytest.mark.parametrize(("factor", "expected"), [(0.0, 0.0), (0.5, 0.75), (1.0, 1.0), (2.0, 0.0), (3.0, -3.0)])
def test_explained_variance_by_hand(factor, expected):
    """V = cG leaves (1 − c)² of the variance, wherever the mask is 1."""
    outcomes, mask = torch.tensor([[1.0, 2.0, 3.0], [5.0, 99.0, 99.0]]), torch.tensor([[1, 1, 1], [1, 0, 0]])
    values = torch.where(mask.bool(), factor * outcomes, -7.0)
    assert explained_variance(values, outcomes, mask).item() == pytest.approx(expected)


def test_gae_ignores_what_the_value_function_says_of_padding():
    values, rewards, mask = padded([2, 4])
    other = torch.where(mask.bool(), values, 1e6)
    assert torch.equal(gae(rewards * mask, values, mask, 1.0, 0.95)[0], gae(rewards * mask, other, mask, 1.0, 0.95)[0])


def test_lambda_one_is_return_minus_value():
    values, rewards, mask = padded([4, 4])
    advantages, _ = gae(rewards, values, mask, 1.0, 1.0)
    torch.testing.assert_close(advantages, rewards.flip(1).cumsum(1).flip(1) - values)


def test_group_advantages_by_hand():
    """Mean 2 and unbiased std 1; mean 5 and std 2."""
    advantages = group_advantages(torch.tensor([1.0, 2.0, 3.0, 3.0, 5.0, 7.0]), 3, 0.0)
    torch.testing.assert_close(advantages, torch.tensor([-1.0, 0.0, 1.0, -1.0, 0.0, 1.0]))
    halved = group_advantages(torch.tensor([1.0, 2.0, 3.0]), 3, 1.0)
    torch.testing.assert_close(halved, torch.tensor([-0.5, 0.0, 0.5]))
    undivided = group_advantages(torch.tensor([3.0, 5.0, 7.0, 1.0, 1.0, 1.0]), 3, None)
    torch.testing.assert_close(undivided, torch.tensor([-2.0, 0.0, 2.0, 0.0, 0.0, 0.0]))


@pytest.mark.parametrize("group_size", [2, 4, 8])
def test_group_advantages_equal_their_slow_twin(group_size):
    scores = torch.randn(32, generator=torch.Generator().manual_seed(group_size))
    expected = torch.tensor(slow.group_advantages(scores.tolist(), group_size, 0.2))
    torch.testing.assert_close(group_advantages(scores, group_size, 0.2), expected)


@pytest.mark.parametrize("score", [0.0, 1.0, 0.1, 1e8 / 3])
@pytest.mark.parametrize("std_eps", [None, 0.0, 1e-4, 0.2])
def test_a_group_of_equal_scores_has_exactly_zero_advantage(score, std_eps):
    """Also without a floor, and where the mean of equal numbers is not that number in floating point."""
    scores = torch.tensor([score] * 6 + [0.0, 1.0, 2.0, 3.0, 4.0, 5.0])
    advantages = group_advantages(scores, 6, std_eps)
    assert advantages[:6].eq(0).all()
    assert advantages[6:].ne(0).all()


def test_a_group_of_one_has_nothing_to_compare_with():
    with pytest.raises(ValueError, match="at least 2"):
        group_advantages(torch.ones(4), 1, 0.1)
    with pytest.raises(ValueError, match="at least 2"):
        leave_one_out_advantages(torch.ones(4), 1)


def test_leave_one_out_by_hand():
    """1 against the mean of 2 and 6, 2 against that of 1 and 6, 6 against that of 1 and 2."""
    advantages = leave_one_out_advantages(torch.tensor([1.0, 2.0, 6.0, 5.0, 5.0, 2.0]), 3)
    torch.testing.assert_close(advantages, torch.tensor([-3.0, -1.5, 4.5, 1.5, 1.5, -3.0]))


@pytest.mark.parametrize("group_size", [2, 4, 8])
def test_leave_one_out_equals_its_slow_twin(group_size):
    rewards = torch.randn(32, generator=torch.Generator().manual_seed(group_size))
    expected = torch.tensor(slow.leave_one_out_advantages(rewards.tolist(), group_size))
    torch.testing.assert_close(leave_one_out_advantages(rewards, group_size), expected)


@pytest.mark.parametrize("reward", [0.0, 0.1, 1e8 / 3])
def test_equal_rewards_have_exactly_no_advantage_left_one_out(reward):
    advantages = leave_one_out_advantages(torch.tensor([reward] * 6 + [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]), 6)
    assert advantages[:6].eq(0).all()
    assert advantages[6:].ne(0).all()


def test_running_mean_by_hand():
    """decay ½ after rollouts of mean 2, 4 and 8: (2/8 + 4/4 + 8/2) / (1/8 + 1/4 + 1/2); before the first it is 0."""
    baseline, seen = RunningMean(0.5), []
    for rewards in ([1.0, 3.0], [4.0, 4.0], [8.0]):
        seen.append(baseline.value)
        baseline.update(torch.tensor(rewards))
    assert [*seen, baseline.value] == pytest.approx([0.0, 2.0, 10 / 3, 6.0])


def test_running_mean_without_memory_is_the_last_rollout():
    baseline = RunningMean(0.0)
    for mean in (3.0, -1.0):
        baseline.update(torch.tensor([mean]))
        assert baseline.value == mean


def test_running_mean_goes_on_where_a_checkpoint_left_it():
    whole, resumed = RunningMean(0.9), RunningMean(0.9)
    whole.update(torch.tensor([1.0, 2.0]))
    resumed.load_state_dict(whole.state_dict())
    for baseline in (whole, resumed):
        baseline.update(torch.tensor([5.0]))
    assert resumed.value == whole.value != 5.0


def test_groups_of_equal_rewards_are_found():
    """Three times 0.1, whose mean is not 0.1 in float32, is a group of equals too."""
    rewards = torch.tensor([0.1, 0.1, 0.1, 1.0, 0.0, 1.0, -2.0, -2.0, -2.0, 0.0, 0.0, 1e-7])
    assert in_equal_group(rewards, 3).tolist() == [True] * 3 + [False] * 3 + [True] * 3 + [False] * 3


@pytest.mark.parametrize(("tokens", "paid"), [(0, [0, 0, 0, 0, 0]), (4, [0, 0, 0.25, 0.75, 1]), (10, [0.1, 0.6, 0.7, 0.9, 1])])
def test_overlong_penalty_by_hand(tokens, paid):
    """Of 1, 6, 7, 9 and 10 tokens where 10 are allowed."""
    found = overlong_penalty(torch.tensor([1, 6, 7, 9, 10]), 10, tokens)
    assert found.tolist() == pytest.approx(paid)
