"""The running mean and standard deviation of the scores: by hand, as of all scores at once, and across a checkpoint."""

import pytest
import torch

from tasks.core.checkpoint import Checkpoint
from tasks.rl.normalization import RunningNormalization

BATCHES = torch.randn(5, 8, generator=torch.Generator().manual_seed(0)) * 3 + 7


def test_by_hand():
    """1, 3: mean 2, std 1. Then 1, 3, 5, 7: mean 4, std √5; what was said before stays said."""
    normalize = RunningNormalization()
    assert normalize(torch.tensor([1.0, 3.0])).tolist() == [-1.0, 1.0]
    assert normalize(torch.tensor([5.0, 7.0])).tolist() == pytest.approx([1 / 5**0.5, 3 / 5**0.5])
    assert (normalize.count.item(), normalize.mean.item(), normalize.std.item()) == (4, 4.0, pytest.approx(5**0.5))


def test_the_record_is_that_of_all_scores_at_once():
    normalize = RunningNormalization()
    for number, scores in enumerate(BATCHES, start=1):
        seen = BATCHES[:number]
        torch.testing.assert_close(normalize(scores), (scores - seen.mean()) / seen.std(correction=0))


def test_a_record_far_from_zero_keeps_its_digits():
    """Sums of squares would lose them: 10⁶ ± 1 in float32 scores."""
    normalize = RunningNormalization()
    for _ in range(100):
        normalized = normalize(torch.tensor([1e6 - 1, 1e6 + 1]))
    assert normalized.tolist() == pytest.approx([-1.0, 1.0], abs=1e-6)


@pytest.mark.parametrize("score", [0.0, 0.1, -7.3])
def test_equal_scores_are_zero_and_the_first_other_one_is_not(score):
    normalize = RunningNormalization()
    for _ in range(3):
        assert normalize(torch.full((6,), score)).abs().max() < 1e-8
    assert normalize(torch.tensor([score + 1.0])).item() == pytest.approx(18**0.5)  # k equal scores, then one: √k stds above


def test_the_record_survives_a_checkpoint(tmp_path):
    """Three batches, a kill, two more: as if nothing had happened, bit for bit."""
    undisturbed, before, after = RunningNormalization(), RunningNormalization(), RunningNormalization()
    expected = [undisturbed(scores) for scores in BATCHES]
    checkpoint = Checkpoint(tmp_path)
    checkpoint.restore(normalize=before)
    for scores in BATCHES[:3]:
        before(scores)
    checkpoint.save(3, {})
    assert Checkpoint(tmp_path).restore(normalize=after) == (3, {})
    for scores, wanted in zip(BATCHES[3:], expected[3:], strict=True):
        assert torch.equal(after(scores), wanted)
