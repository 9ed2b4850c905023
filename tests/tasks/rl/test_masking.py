"""Means over tokens: by hand, against the slow twin, blind to padding, and the same however the batch is cut."""

import pytest
import torch

from tasks.rl.masking import masked_mean, reduce_tokens, whiten
from tests.reference import rl as slow

REDUCTIONS = ["token_mean", "sequence_mean", "sequence_sum", "max_length_mean"]
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 0]])
VALUES = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
ROWS = [row[: sum(mask)] for row, mask in zip(VALUES.tolist(), MASK.tolist(), strict=True)]


@pytest.mark.parametrize(("reduction", "by_hand"), [
    ("token_mean", 12 / 4), ("sequence_mean", 5.0), ("sequence_sum", 6.0), ("max_length_mean", 1.5),
])  # fmt: skip
def test_by_hand(reduction, by_hand):
    """Rows (1, 1, 1) and (9): 12 over 4 tokens; (1 + 9) / 2; (3 + 9) / 2; 12 / (2 · 4), if 4 tokens are allowed."""
    values, mask = torch.tensor([[1.0, 1.0, 1.0], [9.0, 5.0, 5.0]]), torch.tensor([[1, 1, 1], [1, 0, 0]])
    assert reduce_tokens(values, mask, reduction, max_tokens=4).item() == by_hand


def test_one_number_for_a_whole_completion():
    """Rows 1 (three times) and 9 (once): the mean of the two, or the first counted three times."""
    values, mask = torch.tensor([[1.0], [9.0]]), torch.tensor([[1, 1, 1], [1, 0, 0]])
    assert reduce_tokens(values, mask, "sequence_mean").item() == 5.0
    assert reduce_tokens(values, mask, "token_mean").item() == 3.0


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_equals_the_slow_twin(reduction):
    fast = reduce_tokens(VALUES, MASK, reduction, max_tokens=7)
    assert fast.item() == pytest.approx(slow.reduce_tokens(ROWS, reduction, max_tokens=7), abs=1e-6)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_masked_tokens_have_no_gradient(reduction):
    values = VALUES.clone().requires_grad_()
    reduce_tokens(values, MASK, reduction, max_tokens=7).backward()
    assert values.grad[MASK == 0].eq(0).all()
    assert values.grad[MASK == 1].ne(0).all()


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("micro_batch_size", [1, 2, 3, 4])
def test_micro_batches_change_neither_the_loss_nor_its_gradient(reduction, micro_batch_size):
    """Also where a micro-batch holds only short completions and is padded less."""
    at_once, in_parts = VALUES.clone().requires_grad_(), VALUES.clone().requires_grad_()
    loss = reduce_tokens(at_once, MASK, reduction, max_tokens=7)
    loss.backward()
    total = 0.0
    for rows in torch.arange(4).split(micro_batch_size):
        time = int(MASK[rows].sum(1).max())
        part = reduce_tokens(in_parts[rows, :time], MASK[rows, :time], reduction, full_mask=MASK, max_tokens=7)
        part.backward()
        total += part.item()
    assert total == pytest.approx(loss.item(), abs=1e-6)
    torch.testing.assert_close(in_parts.grad, at_once.grad)


def test_unknown_reduction_says_what_is_known():
    with pytest.raises(ValueError, match="token_mean, sequence_mean, sequence_sum, max_length_mean"):
        reduce_tokens(VALUES, MASK, "mean")
    with pytest.raises(ValueError, match="max_tokens is needed"):
        reduce_tokens(VALUES, MASK, "max_length_mean")


def test_masked_mean():
    assert masked_mean(torch.tensor([[2.0, 100.0], [4.0, 6.0]]), torch.tensor([[1, 0], [1, 1]])).item() == 4.0
    assert masked_mean(VALUES, torch.zeros_like(MASK)).item() == 0.0


def test_whiten_equals_the_slow_twin():
    white = whiten(VALUES, MASK)
    for row, expected in zip(white, slow.whiten(ROWS), strict=True):
        torch.testing.assert_close(row[: len(expected)], torch.tensor(expected))
    assert white[MASK == 0].eq(0).all()


def test_whitened_tokens_have_mean_0_and_variance_1():
    kept = whiten(VALUES, MASK)[MASK == 1]
    assert kept.mean().item() == pytest.approx(0.0, abs=1e-6)
    assert kept.var().item() == pytest.approx(1.0, abs=1e-5)


def test_equal_values_whiten_to_zero():
    assert whiten(torch.full((2, 3), 0.25), torch.ones(2, 3)).eq(0).all()
