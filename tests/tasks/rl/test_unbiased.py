"""The mean of each policy-gradient estimator over all that could be sampled is the gradient of E[score] − kl_coef · KL.

No sampling: the policy of tests/reference/tabular.py has four completions, and its expected reward is differentiated as it is.
"""

import pytest
import torch

from tasks.rl.advantages import group_advantages, leave_one_out_advantages
from tasks.rl.kl import kl_estimate
from tasks.rl.masking import reduce_tokens
from tasks.rl.policy_losses import clipped_ratio_loss, importance_ratio, policy_gradient_loss
from tests.reference import tabular

TABLE = torch.tensor([[0.3, -0.2], [-0.5, 0.4], [0.1, 0.9]], dtype=torch.float64)
REFERENCE = torch.tensor([[-0.4, 0.2], [0.3, 0.3], [0.8, -0.6]], dtype=torch.float64)
SCORES = [5.0, 6.5, 4.0, 7.0]
KL_COEF = 0.3
EXACT = tabular.gradient_of_expected_reward(TABLE, REFERENCE, SCORES, KL_COEF)


def padded(table, drawn):
    """(batch, time) log-probabilities of the drawn completions, and their mask."""
    rows = [tabular.logprob(table, tabular.completions()[index]) for index in drawn]
    logprobs = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    return logprobs, (torch.arange(logprobs.shape[1]) < torch.tensor([[len(row)] for row in rows])).long()


def rewards_of(drawn):
    """Score minus the KL of the completion, as the algorithms compute it."""
    logprobs, mask = padded(TABLE, drawn)
    ref_logprobs, _ = padded(REFERENCE, drawn)
    scores = torch.tensor([SCORES[index] for index in drawn], dtype=torch.float64)
    return scores - KL_COEF * (kl_estimate(logprobs, ref_logprobs, "k1") * mask).sum(1)


def reinforce(baseline):
    """-> the estimate of reinforce.py (baseline 0) and reinforce_baseline.py; the loss is minimized, hence the sign."""

    def estimate(drawn):
        table = TABLE.clone().requires_grad_()
        logprobs, mask = padded(table, drawn)
        advantages = (rewards_of(drawn) - baseline)[:, None]
        loss = reduce_tokens(policy_gradient_loss(logprobs, advantages), mask, "sequence_sum")
        return -torch.autograd.grad(loss, table)[0]

    return estimate


def grouped(advantages_of):
    """-> the estimate of rloo.py at its first step on a rollout, with some advantages."""

    def estimate(drawn):
        table = TABLE.clone().requires_grad_()
        logprobs, mask = padded(table, drawn)
        ratio = importance_ratio(logprobs, logprobs.detach(), mask, "sequence_sum")
        losses = clipped_ratio_loss(ratio, advantages_of(rewards_of(drawn), len(drawn))[:, None], 0.2, 0.2)
        return -torch.autograd.grad(reduce_tokens(losses, mask, "sequence_mean"), table)[0]

    return estimate


def test_the_exact_gradient_is_that_of_finite_differences():
    """Of the twin itself: by central differences."""
    differences = torch.zeros_like(TABLE)
    for index in torch.cartesian_prod(torch.arange(3), torch.arange(2)).tolist():
        shift = torch.zeros_like(TABLE)
        shift[tuple(index)] = 1e-5
        above, below = (tabular.expected_reward(TABLE + s, REFERENCE, SCORES, KL_COEF) for s in (shift, -shift))
        differences[tuple(index)] = (above - below) / 2e-5
    torch.testing.assert_close(EXACT, differences, atol=1e-8, rtol=1e-6)
    assert EXACT.abs().max() > 0.1


@pytest.mark.parametrize("draws", [1, 2])
@pytest.mark.parametrize("baseline", [0.0, 5.0, -3.0])
def test_reinforce_is_unbiased_with_any_baseline_that_is_not_of_the_sample(baseline, draws):
    mean, _ = tabular.over_all_samples(TABLE, draws, reinforce(baseline))
    torch.testing.assert_close(mean, EXACT)


@pytest.mark.parametrize("group_size", [2, 3])
def test_leave_one_out_is_unbiased(group_size):
    mean, _ = tabular.over_all_samples(TABLE, group_size, grouped(leave_one_out_advantages))
    torch.testing.assert_close(mean, EXACT)


@pytest.mark.parametrize("group_size", [2, 3])
def test_a_mean_that_holds_the_sample_itself_shrinks_the_gradient(group_size):
    """GRPO's baseline, without its division: (G − 1)/G of the gradient. Divided by the std it has another direction too."""
    mean, _ = tabular.over_all_samples(TABLE, group_size, grouped(lambda r, size: r - r.mean()))
    torch.testing.assert_close(mean, EXACT * (group_size - 1) / group_size)
    mean, _ = tabular.over_all_samples(TABLE, group_size, grouped(lambda r, size: group_advantages(r, size, 0.2)))
    assert torch.nn.functional.cosine_similarity(mean.flatten(), EXACT.flatten(), dim=0) < 0.9999


def test_what_a_baseline_is_for():
    """Scores near 5: the variance of the estimate from three samples, without a baseline, with one number, and left one out."""
    expected = tabular.expected_reward(TABLE, REFERENCE, SCORES, KL_COEF).item()
    _, without = tabular.over_all_samples(TABLE, 3, reinforce(0.0))
    _, running = tabular.over_all_samples(TABLE, 3, reinforce(expected))
    _, left_out = tabular.over_all_samples(TABLE, 3, grouped(leave_one_out_advantages))
    assert running < left_out < 0.2 * without
