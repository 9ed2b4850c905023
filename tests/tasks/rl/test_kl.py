"""The estimators against the exact KL of two small categorical distributions."""

import pytest
import torch

from tasks.rl.kl import kl_estimate

POLICY = torch.tensor([0.5, 0.3, 0.2])
REFERENCE = torch.tensor([0.2, 0.3, 0.5])
EXACT = (POLICY * (POLICY / REFERENCE).log()).sum()


def expected(estimator):
    """Σ_a π(a) · estimate(a): the mean of infinitely many samples, with no sampling."""
    return (POLICY * kl_estimate(POLICY.log(), REFERENCE.log(), estimator)).sum()


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_unbiased(estimator):
    assert expected(estimator).item() == pytest.approx(EXACT.item(), abs=1e-6)


def test_k2_is_biased_but_never_negative():
    assert expected("k2").item() != pytest.approx(EXACT.item(), abs=1e-3)
    assert (kl_estimate(POLICY.log(), REFERENCE.log(), "k2") >= 0).all()


def test_k3_is_never_negative_and_k1_can_be():
    assert (kl_estimate(POLICY.log(), REFERENCE.log(), "k3") >= 0).all()
    assert (kl_estimate(POLICY.log(), REFERENCE.log(), "k1") < 0).any()


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_equal_policies_are_exactly_zero_apart(estimator):
    assert kl_estimate(POLICY.log(), POLICY.log(), estimator).eq(0).all()


@pytest.mark.parametrize(("estimator", "by_hand"), [("k1", 0.5), ("k2", 0.125), ("k3", 0.1065307)])
def test_by_hand(estimator, by_hand):
    """log π = −1, log π_ref = −1.5: k3 = e^−½ − 1 + ½."""
    assert kl_estimate(torch.tensor(-1.0), torch.tensor(-1.5), estimator).item() == pytest.approx(by_hand, abs=1e-6)


def test_gradient_of_k2_and_of_k3_pulls_towards_the_reference():
    for estimator in ("k2", "k3"):
        logprobs = torch.tensor([-1.0, -2.0], requires_grad=True)
        kl_estimate(logprobs, torch.tensor([-2.0, -1.0]), estimator).sum().backward()
        assert logprobs.grad[0] > 0 > logprobs.grad[1]


def gradient(estimator, corrected):
    """Σ_a π_old(a) · ∇ estimate(a) at π = π_old = POLICY, by the logits: the mean gradient of the estimate as a loss."""
    logits = POLICY.log().requires_grad_()
    logprobs = logits.log_softmax(0)
    estimate = kl_estimate(logprobs, REFERENCE.log(), estimator)
    if corrected:
        estimate = (logprobs - POLICY.log()).exp() * estimate
    return torch.autograd.grad((POLICY * estimate).sum(), logits)[0]


def exact_gradient(forward):
    logits = POLICY.log().requires_grad_()
    logprobs = logits.log_softmax(0)
    if forward:
        divergence = (REFERENCE * (REFERENCE.log() - logprobs)).sum()
    else:
        divergence = (logprobs.exp() * (logprobs - REFERENCE.log())).sum()
    return torch.autograd.grad(divergence, logits)[0]


def test_mean_gradient_of_each_estimator_as_a_loss():
    """None for k1, that of KL(π‖π_ref) for k2, that of KL(π_ref‖π) for k3."""
    torch.testing.assert_close(gradient("k1", corrected=False), torch.zeros(3))
    torch.testing.assert_close(gradient("k2", corrected=False), exact_gradient(forward=False))
    torch.testing.assert_close(gradient("k3", corrected=False), exact_gradient(forward=True))
    assert (exact_gradient(forward=True) - exact_gradient(forward=False)).abs().max() > 0.02


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_times_the_ratio_the_gradient_is_that_of_the_divergence_itself(estimator):
    torch.testing.assert_close(gradient(estimator, corrected=True), exact_gradient(forward=False))


def test_unknown_name_says_what_is_known():
    with pytest.raises(ValueError, match="k1, k2, k3"):
        kl_estimate(POLICY.log(), REFERENCE.log(), "k4")
