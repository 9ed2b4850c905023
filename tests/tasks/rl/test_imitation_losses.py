"""The losses of GAIL and of maximum-entropy IRL by hand and against their slow twins, gradients included."""

import math

import pytest
import torch

from tasks.rl.imitation_losses import (
    discriminator_loss,
    effective_sample_size,
    imitation_reward,
    importance_weights,
    maxent_irl_loss,
)
from tests.reference import imitation_losses as slow

CHANCE = torch.Generator().manual_seed(0)
REWARDS, LOGPROBS = torch.randn(4, 5, generator=CHANCE), -3 * torch.rand(4, 5, generator=CHANCE)


def test_discriminator_by_hand():
    """D = ¾ of a demonstration and ¼ of a sample: 2 ln(4/3); ½ and ½: 2 ln 2; the wrong way round: 2 ln 4."""
    f = math.log(3)
    losses = discriminator_loss(torch.tensor([f, 0.0, -f]), torch.tensor([-f, 0.0, f]))
    assert losses.tolist() == pytest.approx([2 * math.log(4 / 3), 2 * math.log(2), 2 * math.log(4)])


def test_discriminator_equals_its_twin():
    of_expert, of_policy = (torch.randn(6, generator=CHANCE).requires_grad_() for _ in range(2))
    losses = discriminator_loss(of_expert, of_policy)
    losses.sum().backward()
    for row in range(6):
        one = of_expert[row].item(), of_policy[row].item()
        assert losses[row].item() == pytest.approx(slow.discriminator_loss_of_one(*one), abs=1e-5)
        gradient = of_expert.grad[row].item(), of_policy.grad[row].item()
        assert gradient == pytest.approx(slow.discriminator_gradient_of_one(*one), abs=1e-5)


def test_the_best_discriminator_knows_the_odds():
    """Of a text that is 3 of 4 demonstrations and 1 of 4 samples: D = p_expert / (p_expert + p_policy) = ¾."""
    logits, sure = torch.linspace(-4, 4, 8001), torch.full((8001,), 50.0)
    losses = 0.75 * discriminator_loss(logits, -sure) + 0.25 * discriminator_loss(sure, logits)
    assert torch.sigmoid(logits[losses.argmin()]).item() == pytest.approx(0.75, abs=1e-3)


def test_imitation_reward_by_hand():
    """log ½, log ¾; it does not overflow where D is sure."""
    rewards = imitation_reward(torch.tensor([0.0, math.log(3), -1000.0, 1000.0]))
    assert rewards.tolist() == pytest.approx([math.log(0.5), math.log(0.75), -1000.0, 0.0])


def test_weights_by_hand():
    """exp r = 1, 2, 3 and π = ¼, ¼, ½: exp r / π = 4, 8, 6."""
    rewards, logprobs = torch.tensor([[1.0, 2.0, 3.0]]).log(), torch.tensor([[0.25, 0.25, 0.5]]).log()
    assert importance_weights(rewards, logprobs, 1.0)[0].tolist() == pytest.approx([4 / 18, 8 / 18, 6 / 18])
    tempered = importance_weights(rewards, logprobs, 2.0)[0].tolist()
    roots = [2.0, math.sqrt(8), math.sqrt(6)]
    assert tempered == pytest.approx([root / sum(roots) for root in roots])


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_weights_equal_their_twin(temperature):
    weights = importance_weights(REWARDS, LOGPROBS, temperature)
    for row in range(4):
        one = slow.weights_of_one(REWARDS[row].tolist(), LOGPROBS[row].tolist(), temperature)
        assert weights[row].tolist() == pytest.approx(one, abs=1e-5)


def test_weights_of_long_completions_do_not_overflow():
    weights = importance_weights(torch.tensor([[0.0, 5.0]]), torch.tensor([[-900.0, -905.0]]), 1.0)
    assert weights[0].tolist() == pytest.approx([1 / (1 + math.exp(10)), 1 / (1 + math.exp(-10))], rel=1e-3)


def test_effective_sample_size_by_hand():
    """Four even weights count as four, one that has everything as one; ½, ¼, ¼: 1 / (¼ + ⅛) = 8/3, whatever the scale."""
    weights = torch.tensor([[0.25, 0.25, 0.25, 0.25], [1.0, 0.0, 0.0, 0.0], [0.5, 0.25, 0.25, 0.0], [2.0, 1.0, 1.0, 0.0]])
    assert effective_sample_size(weights).tolist() == pytest.approx([4.0, 1.0, 8 / 3, 8 / 3])


def test_a_temperature_evens_the_weights_out():
    sizes = [effective_sample_size(importance_weights(REWARDS, LOGPROBS, t)).mean().item() for t in (0.5, 1.0, 2.0, 50.0)]
    assert sizes == sorted(sizes)
    assert sizes[-1] == pytest.approx(5.0, abs=0.01)


def test_irl_gradient_by_hand():
    """Weights ½, ¼, ¼; the demonstration is the first candidate: its gradient is ½ − 1, and none flows through the weights."""
    rewards = torch.tensor([[1.0, 2.0, 3.0]], requires_grad=True)
    loss = maxent_irl_loss(rewards[:, 0], rewards, torch.tensor([[0.5, 0.25, 0.25]]))
    loss.sum().backward()
    assert loss.item() == pytest.approx(0.5 + 0.5 + 0.75 - 1.0)
    assert rewards.grad[0].tolist() == pytest.approx([-0.5, 0.25, 0.25])


def test_irl_equals_its_twin():
    rewards = REWARDS.clone().requires_grad_()
    maxent_irl_loss(rewards[:, 2], rewards, importance_weights(rewards, LOGPROBS, 1.0)).sum().backward()
    for row in range(4):
        one = slow.irl_gradient_of_one(2, REWARDS[row].tolist(), LOGPROBS[row].tolist())
        assert rewards.grad[row].tolist() == pytest.approx(one, abs=1e-5)


def test_the_sampled_gradient_is_the_exact_one_within_its_error():
    """Of E_p[∇r] over five texts, p ∝ exp r, from samples of another distribution: 4000 groups of 200."""
    rewards, sampler = torch.tensor([0.0, 0.5, 1.0, -1.0, 0.2]), torch.tensor([0.1, 0.3, 0.2, 0.2, 0.2])
    drawn = torch.multinomial(sampler, 4000 * 200, replacement=True, generator=CHANCE).view(4000, 200)
    weights = importance_weights(rewards[drawn], sampler.log()[drawn], 1.0)
    sampled = torch.stack([(weights * (drawn == text)).sum(1) for text in range(5)], dim=1)
    error = sampled.std(0) / math.sqrt(len(sampled))
    bias = 0.002  # of normalised weights, of the order of 1/200
    assert ((sampled.mean(0) - torch.softmax(rewards, 0)).abs() < 4 * error + bias).all()
    assert ((sampler - torch.softmax(rewards, 0)).abs() > 20 * error).any()  # without weights it would be another


def test_ascent_on_the_gradient_recovers_the_reward():
    """Of three texts written in shares .6, .3, .1: r up to a constant is their log."""
    shares, rewards = torch.tensor([0.6, 0.3, 0.1]), torch.zeros(1, 3, requires_grad=True)
    for _ in range(100):
        weights = importance_weights(rewards, torch.full((1, 3), math.log(1 / 3)), 1.0)
        loss = sum(share * maxent_irl_loss(rewards[:, text], rewards, weights) for text, share in enumerate(shares))
        (gradient,) = torch.autograd.grad(loss.sum(), rewards)
        rewards = (rewards - gradient).detach().requires_grad_()
    assert torch.softmax(rewards, 1)[0].tolist() == pytest.approx(shares.tolist(), abs=1e-3)
