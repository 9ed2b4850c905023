"""The clipped losses by hand, and what is published of them: on-policy they are the plain policy gradient."""

import math

import pytest
import torch

from tasks.rl.masking import reduce_tokens
from tasks.rl.policy_losses import (
    cispo_loss,
    clip_fraction,
    clipped_policy_loss,
    clipped_ratio_loss,
    clipped_value_loss,
    importance_ratio,
    is_clipped,
    policy_gradient_loss,
)

CHANCE = torch.Generator().manual_seed(0)
LOGPROBS, OLD = -torch.rand(3, 5, generator=CHANCE), -torch.rand(3, 5, generator=CHANCE)
ADVANTAGES = torch.randn(3, 5, generator=CHANCE)


@pytest.mark.parametrize(("ratio", "advantage", "loss", "gradient"), [
    (1.0, 2.0, -2.0, -2.0),  # on-policy
    (1.1, 2.0, -2.2, -2.2),  # inside the trust region: −ρ Â
    (1.5, 2.0, -2.4, 0.0),  # good and already likelier: clipped, no more to gain
    (0.5, 2.0, -1.0, -1.0),  # good but less likely: the min keeps the unclipped term
    (1.5, -2.0, 3.0, 3.0),  # bad and likelier: unclipped
    (0.5, -2.0, 1.6, 0.0),  # bad and already less likely: clipped
])  # fmt: skip
def test_policy_loss_by_hand(ratio, advantage, loss, gradient):
    logprobs = torch.tensor([[math.log(ratio)]], requires_grad=True)
    value = clipped_policy_loss(logprobs, torch.zeros(1, 1), torch.tensor([[advantage]]), clip_range=0.2)
    value.backward()
    assert value.item() == pytest.approx(loss, abs=1e-6)
    assert logprobs.grad.item() == pytest.approx(gradient, abs=1e-6)


def test_on_policy_the_loss_is_minus_the_advantage_and_its_gradient_the_policy_gradient():
    logprobs = LOGPROBS.clone().requires_grad_()
    loss = clipped_policy_loss(logprobs, LOGPROBS, ADVANTAGES, 0.2)
    loss.sum().backward()
    assert torch.equal(loss, -ADVANTAGES)
    assert torch.equal(logprobs.grad, -ADVANTAGES)


def test_one_advantage_per_completion_is_spread_over_its_tokens():
    spread = ADVANTAGES[:, :1].expand(3, 5)
    alike = clipped_policy_loss(LOGPROBS, OLD, ADVANTAGES[:, :1], 0.2)
    assert torch.equal(alike, clipped_policy_loss(LOGPROBS, OLD, spread, 0.2))


def test_zero_advantage_teaches_nothing():
    logprobs = LOGPROBS.clone().requires_grad_()
    clipped_policy_loss(logprobs, OLD, torch.zeros(3, 1), 0.2).sum().backward()
    assert logprobs.grad.eq(0).all()


def test_masked_tokens_have_no_gradient():
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 0, 0, 0, 0], [1, 1, 1, 1, 1]])
    logprobs = LOGPROBS.clone().requires_grad_()
    reduce_tokens(clipped_policy_loss(logprobs, LOGPROBS, ADVANTAGES, 0.2), mask, "sequence_mean").backward()
    assert logprobs.grad[mask == 0].eq(0).all()
    assert logprobs.grad[mask == 1].ne(0).all()


def test_policy_gradient_by_hand():
    """Its gradient is −Â: a good completion becomes likelier, a bad one less likely."""
    logprobs = torch.tensor([[-1.0, -2.0], [-3.0, -4.0]], requires_grad=True)
    loss = policy_gradient_loss(logprobs, torch.tensor([[2.0], [-0.5]]))
    loss.sum().backward()
    assert loss.tolist() == [[2.0, 4.0], [-1.5, -2.0]]
    assert logprobs.grad.tolist() == [[-2.0, -2.0], [0.5, 0.5]]


@pytest.mark.parametrize(("ratio", "advantage", "loss", "gradient"), [
    (1.25, 1.0, -1.25, -1.25),  # above 1 + clip_low, still below 1 + clip_high
    (1.5, 1.0, -1.3, 0.0),  # clipped at 1 + clip_high
    (0.8, -1.0, 0.9, 0.0),  # clipped at 1 − clip_low
    (2.0, -1.0, 1.6, 0.0),  # bad and much likelier: the bound of 1.6 holds it
    (1.5, -1.0, 1.5, 1.5),  # below the bound
])  # fmt: skip
def test_an_asymmetric_clip_with_a_bound_by_hand(ratio, advantage, loss, gradient):
    logprobs = torch.tensor([[math.log(ratio)]], requires_grad=True)
    value = clipped_ratio_loss(logprobs.exp(), torch.tensor([[advantage]]), clip_low=0.1, clip_high=0.3, max_ratio=1.6)
    value.backward()
    assert value.item() == pytest.approx(loss, abs=1e-6)
    assert logprobs.grad.item() == pytest.approx(gradient, abs=1e-6)


def test_without_a_bound_a_bad_token_that_became_likelier_costs_all_of_its_ratio():
    assert clipped_ratio_loss(torch.tensor([[9.0]]), torch.tensor([[-1.0]]), 0.1, 0.3).item() == 9.0


@pytest.mark.parametrize(("ratio", "weight"), [(0.5, 0.8), (1.0, 1.0), (1.2, 1.2), (4.0, 1.3)])
@pytest.mark.parametrize("advantage", [2.0, -2.0])
def test_cispo_by_hand(ratio, weight, advantage):
    """log π = −3: the weight is clipped, and no token loses its gradient."""
    logprobs = torch.tensor([[-3.0]], requires_grad=True)
    ratios = (logprobs + 3 + math.log(ratio)).exp()
    loss = cispo_loss(logprobs, ratios, torch.tensor([[advantage]]), clip_low=0.2, clip_high=0.3)
    loss.backward()
    assert loss.item() == pytest.approx(3 * weight * advantage, abs=1e-5)
    assert logprobs.grad.item() == pytest.approx(-weight * advantage, abs=1e-5)


@pytest.mark.parametrize(("level", "by_hand"), [
    ("token", [[2.0, 0.5, 4.0], [3.0, 7.0, 7.0]]),
    ("sequence_mean", [[4 ** (1 / 3)], [3.0]]),
    ("sequence_sum", [[4.0], [3.0]]),
])  # fmt: skip
def test_ratio_by_hand(level, by_hand):
    """Ratios of tokens 2, ½ and 4; and 3, followed by padding that says 7."""
    new, mask = torch.tensor([[2.0, 0.5, 4.0], [3.0, 7.0, 7.0]]).log(), torch.tensor([[1, 1, 1], [1, 0, 0]])
    torch.testing.assert_close(importance_ratio(new, torch.zeros(2, 3), mask, level), torch.tensor(by_hand))


def test_an_unknown_level_says_what_is_known():
    with pytest.raises(ValueError, match="token, sequence_mean, sequence_sum"):
        importance_ratio(LOGPROBS, OLD, torch.ones(3, 5), "sentence")


@pytest.mark.parametrize("level", ["sequence_mean", "sequence_sum"])
def test_on_policy_the_ratio_of_a_completion_gives_each_of_its_tokens_the_same_gradient(level):
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 0, 0, 0, 0], [1, 1, 1, 1, 1]])
    logprobs = LOGPROBS.clone().requires_grad_()
    ratio = importance_ratio(logprobs, LOGPROBS, mask, level)
    reduce_tokens(clipped_ratio_loss(ratio, ADVANTAGES[:, :1], 0.2, 0.2), mask, "sequence_mean").backward()
    tokens = mask.sum(1, keepdim=True) if level == "sequence_mean" else 1
    torch.testing.assert_close(logprobs.grad, -ADVANTAGES[:, :1] / 3 / tokens * mask)


def test_outside_counts_each_side_by_its_own_range():
    ratios = torch.tensor([1.0, 0.91, 0.89, 1.29, 1.31])
    assert is_clipped(ratios, 0.1, 0.3).tolist() == [0, 0, 1, 0, 1]


def test_clip_fraction_counts_what_left_the_trust_region():
    ratios = torch.tensor([1.0, 1.19, 1.21, 0.81, 0.79, 3.0])
    assert clip_fraction(ratios.log(), torch.zeros(6), 0.2).tolist() == [0, 0, 1, 0, 1, 1]


@pytest.mark.parametrize(("new", "old", "target", "loss", "gradient"), [
    (0.5, 0.5, 1.0, 0.125, -0.5),  # nothing to clip: ½ (V − R)²
    (0.6, 0.5, 1.0, 0.08, -0.4),
    (0.9, 0.5, 1.0, 0.045, 0.0),  # moved too far towards the target: the clipped .7 counts, no gradient
    (0.2, 0.5, 1.0, 0.32, -0.8),  # moved away: the unclipped error is larger and pulls back
])  # fmt: skip
def test_value_loss_by_hand(new, old, target, loss, gradient):
    values = torch.tensor(new, requires_grad=True)
    value = clipped_value_loss(values, torch.tensor(old), torch.tensor(target), clip_range=0.2)
    value.backward()
    assert value.item() == pytest.approx(loss, abs=1e-6)
    assert values.grad.item() == pytest.approx(gradient, abs=1e-6)
