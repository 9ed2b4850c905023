"""Bradley-Terry and DPO: ln 2 at the start, the right sign, and numbers worked out by hand."""

import math

import pytest
import torch

from tasks.rl.preference_losses import bradley_terry_loss, dpo_loss

SCORES = torch.tensor([1.5, -0.5, 0.0])


def test_zero_margin_gives_ln_2():
    assert bradley_terry_loss(SCORES, SCORES).tolist() == pytest.approx([math.log(2)] * 3)
    assert dpo_loss(SCORES, SCORES, beta=0.1).tolist() == pytest.approx([math.log(2)] * 3)


def test_by_hand():
    """−log σ(2) = .126928; −log σ(−2) = 2.126928."""
    assert bradley_terry_loss(torch.tensor([3.0, 1.0]), torch.tensor([1.0, 3.0])).tolist() == pytest.approx(
        [0.126928, 2.126928]
    )
    assert dpo_loss(torch.tensor([4.0]), torch.tensor([-16.0]), beta=0.1).item() == pytest.approx(0.126928, abs=1e-6)


def test_only_the_difference_of_scores_counts():
    torch.testing.assert_close(bradley_terry_loss(SCORES + 7, SCORES - 1 + 7), bradley_terry_loss(SCORES, SCORES - 1))


def test_gradients_raise_the_chosen_and_lower_the_rejected_by_the_same():
    for loss in (bradley_terry_loss, lambda chosen, rejected: dpo_loss(chosen, rejected, beta=0.5)):
        chosen, rejected = torch.zeros(3, requires_grad=True), SCORES.clone().requires_grad_()
        loss(chosen, rejected).sum().backward()
        assert (chosen.grad < 0).all()
        assert torch.equal(chosen.grad, -rejected.grad)


def test_a_hopeless_pair_keeps_a_finite_loss():
    assert bradley_terry_loss(torch.tensor(-1e4), torch.tensor(1e4)).item() == pytest.approx(2e4)


def test_the_gradient_of_dpo_is_that_of_equation_7():
    """−β σ(−β (Δ_w − Δ_l)) for the chosen completion: Rafailov et al. 2023, section 4."""
    chosen = torch.tensor([0.3], requires_grad=True)
    dpo_loss(chosen, torch.tensor([1.1]), beta=0.5).backward()
    assert chosen.grad.item() == pytest.approx(-0.5 / (1 + math.exp(0.5 * (0.3 - 1.1))), abs=1e-6)
