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


def test_unknown_name_says_what_is_known():
    with pytest.raises(ValueError, match="k1, k2, k3"):
        kl_estimate(POLICY.log(), REFERENCE.log(), "k4")
