"""The losses of ILQL by hand and against their slow twins, gradients included; what an expectile is."""

import math

import pytest
import torch

from tasks.rl.advantages import gae
from tasks.rl.masking import reduce_tokens
from tasks.rl.offline_losses import cql_loss, expectile_loss, td_loss
from tests.reference import ilql as slow

CHANCE = torch.Generator().manual_seed(0)
Q, VALUES, REWARDS = (torch.randn(3, 5, generator=CHANCE) for _ in range(3))
MASK = torch.tensor([[1, 1, 1, 0, 0], [1, 0, 0, 0, 0], [1, 1, 1, 1, 1]])


def test_td_by_hand():
    """Two tokens: r₀ + ½ V₁ = .25 + ½ · 2 = 1.25 against Q₀ = 1; the last token has no V after it: 3 against 2."""
    rewards, values, mask = torch.tensor([[0.25, 3.0]]), torch.tensor([[9.0, 2.0]]), torch.ones(1, 2)
    _, targets = gae(rewards, values, mask, gamma=0.5, gae_lambda=0.0)
    assert targets.tolist() == [[1.25, 3.0]]  # the λ-return of λ = 0 is the one-step target
    assert td_loss(torch.tensor([[1.0, 2.0]]), targets).tolist() == [[0.0625, 1.0]]


def test_td_targets_end_where_the_completion_ends():
    """What stands in the padding is never looked at."""
    _, targets = gae(REWARDS, VALUES, MASK, 0.9, 0.0)
    _, noisy = gae(REWARDS + 5 * (1 - MASK), VALUES + 7 * (1 - MASK), MASK, 0.9, 0.0)
    assert torch.equal(targets, noisy)
    assert targets[1, 0].item() == pytest.approx(REWARDS[1, 0].item())
    assert targets[0, 2].item() == pytest.approx(REWARDS[0, 2].item())
    assert targets[MASK == 0].eq(0).all()


def test_td_equals_its_twin():
    q = Q.clone().requires_grad_()
    losses = td_loss(q, gae(REWARDS, VALUES, MASK, 0.9, 0.0)[1])
    (losses * MASK).sum().backward()
    for row, length in enumerate(MASK.sum(1).tolist()):
        one = [tensor[row, :length].tolist() for tensor in (REWARDS, Q, VALUES)]
        assert losses[row, :length].tolist() == pytest.approx(slow.td_loss_of_one(*one, 0.9), abs=1e-5)
        assert q.grad[row, :length].tolist() == pytest.approx(slow.td_gradient_of_one(*one, 0.9), abs=1e-5)
        assert q.grad[row, length:].eq(0).all()


@pytest.mark.parametrize(("q", "value", "loss", "gradient"), [
    (1.0, 0.0, 0.7, -1.4),  # Q above V: weight τ, V is pulled up
    (0.0, 1.0, 0.3, 0.6),  # below: weight 1 − τ, V is pulled down less
    (2.0, 2.0, 0.0, 0.0),
])  # fmt: skip
def test_expectile_by_hand(q, value, loss, gradient):
    values = torch.tensor([[value]], requires_grad=True)
    result = expectile_loss(torch.tensor([[q]]), values, tau=0.7)
    result.backward()
    assert result.item() == pytest.approx(loss, abs=1e-6)
    assert values.grad.item() == pytest.approx(gradient, abs=1e-6)


def test_expectile_equals_its_twin():
    values = VALUES.clone().requires_grad_()
    losses = expectile_loss(Q, values, 0.8)
    losses.sum().backward()
    for q, value, loss, gradient in zip(Q.flatten(), VALUES.flatten(), losses.flatten(), values.grad.flatten(), strict=True):
        assert loss.item() == pytest.approx(slow.expectile_loss_of_one(q.item(), value.item(), 0.8), abs=1e-5)
        assert gradient.item() == pytest.approx(slow.expectile_gradient_of_one(q.item(), value.item(), 0.8), abs=1e-5)


@pytest.mark.parametrize(("tau", "low", "high"), [(0.5, 2.999, 3.001), (0.9, 6.0, 9.0), (0.999, 9.0, 10.0)])
def test_the_expectile_goes_from_the_mean_to_the_maximum(tau, low, high):
    """Of Q = 0, 0, 2, 10: at ½ the mean, 3; at .9 the solution of .1 · (3V − 2) = .9 · (10 − V), 7.6; near 1 almost 10."""
    q = torch.tensor([0.0, 0.0, 2.0, 10.0])
    candidates = torch.linspace(0, 10, 10001)
    losses = torch.stack([expectile_loss(q, candidate, tau).mean() for candidate in candidates])
    assert low <= candidates[losses.argmin()].item() <= high


def test_cql_by_hand():
    """Q = ln 1, ln 2, ln 5 and the second was written: ln 8 − ln 2 = ln 4; the gradient is softmax − one-hot."""
    q = torch.tensor([[[0.0, math.log(2), math.log(5)]]], requires_grad=True)
    loss = cql_loss(q, torch.tensor([[1]]))
    loss.sum().backward()
    assert loss.item() == pytest.approx(math.log(4), abs=1e-6)
    assert q.grad.flatten().tolist() == pytest.approx([1 / 8, 2 / 8 - 1, 5 / 8], abs=1e-6)


def test_cql_equals_its_twin():
    q = torch.randn(3, 5, 7, generator=CHANCE).requires_grad_()
    tokens = torch.randint(0, 7, (3, 5), generator=CHANCE)
    losses = cql_loss(q, tokens)
    losses.sum().backward()
    for row in range(3):
        for t in range(5):
            one = q[row, t].tolist(), int(tokens[row, t])
            assert losses[row, t].item() == pytest.approx(slow.cql_loss_of_one(*one), abs=1e-5)
            assert q.grad[row, t].tolist() == pytest.approx(slow.cql_gradient_of_one(*one), abs=1e-5)


def test_a_value_of_the_state_alone_does_not_matter_to_cql():
    q = torch.randn(2, 3, 7, generator=CHANCE)
    tokens = torch.randint(0, 7, (2, 3), generator=CHANCE)
    torch.testing.assert_close(cql_loss(q + 3.0, tokens), cql_loss(q, tokens))


def test_masked_tokens_have_no_gradient():
    q = torch.randn(3, 5, 7, generator=CHANCE).requires_grad_()
    tokens = torch.randint(0, 7, (3, 5), generator=CHANCE)
    reduce_tokens(cql_loss(q, tokens), MASK, "token_mean").backward()
    assert q.grad[MASK == 0].eq(0).all()
    assert q.grad[MASK == 1].abs().sum(-1).ne(0).all()
