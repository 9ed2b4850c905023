"""Random numbers are functions of (seed, purpose, step): nothing to save, nothing shifts."""

import itertools

import pytest
import torch

from tasks.core.errors import InputError
from tasks.core.seeds import batches, derive, generator, stream


def take(count, *arguments, **options):
    return list(itertools.islice(batches(*arguments, **options), count))


def test_derived_seeds_are_fixed_for_ever():
    """A known number, half of the first 8 bytes of sha256("0/weights"): another one would change every recorded result."""
    assert derive(0, "weights") == 133441691874178746
    assert derive(0, "rollout", 3) != derive(0, "rollout", 4) != derive(1, "rollout", 4)
    assert all(0 <= derive(0, "x", number) < 2**63 for number in range(1000))


def test_streams_do_not_disturb_one_another():
    first = generator(0, "rollout", 1)
    alone = torch.rand(5, generator=generator(0, "rollout", 1))
    torch.rand(1000, generator=generator(0, "rollout", 0))
    stream(0, "order").random()
    torch.rand(3)
    assert torch.equal(torch.rand(5, generator=first), alone)
    assert stream(0, "a").random() == stream(0, "a").random() != stream(0, "b").random()


def test_streams_of_neighbouring_steps_are_uncorrelated():
    numbers = torch.stack([torch.rand(2000, generator=generator(0, "rollout", step)) for step in range(5)])
    assert torch.corrcoef(numbers).triu(1).abs().max() < 0.06  # 2.7 standard errors for 10 pairs


@pytest.mark.parametrize("lengths", [None, list(range(20))])
def test_an_epoch_shows_every_row_once(lengths):
    for epoch in range(3):
        seen = sorted(row for batch in take(5, 20, 4, seed=0, start=5 * epoch, lengths=lengths) for row in batch)
        assert seen == list(range(20))


def test_an_incomplete_batch_is_left_out():
    epoch = take(3, 11, 3, seed=0)
    assert all(len(batch) == 3 for batch in epoch)
    assert len({row for batch in epoch for row in batch}) == 9


def test_epochs_and_seeds_differ():
    assert take(5, 20, 4, seed=0) != take(5, 20, 4, seed=0, start=5)
    assert take(5, 20, 4, seed=0) != take(5, 20, 4, seed=1)
    assert take(5, 20, 4, seed=0) == take(5, 20, 4, seed=0)


@pytest.mark.parametrize("lengths", [None, [7, 1, 5, 3, 2, 6, 4, 9, 8, 0, 11]])
def test_a_resumed_run_draws_the_same_batches(lengths):
    whole = take(12, 11, 2, seed=3, lengths=lengths)
    for start in range(12):
        assert take(12 - start, 11, 2, seed=3, start=start, lengths=lengths) == whole[start:]


def test_lengths_order_the_rows_of_a_batch_and_change_none_of_them():
    lengths = [row * 7 % 50 for row in range(800)]
    plain, ordered = take(100, 800, 8, seed=0), take(100, 800, 8, seed=0, lengths=lengths)
    assert [sorted(batch) for batch in ordered] == [sorted(batch) for batch in plain]
    for batch in ordered:
        assert [lengths[row] for row in batch] == sorted(lengths[row] for row in batch)


def test_too_few_rows():
    with pytest.raises(InputError, match=r"batch_size 8 is larger than the data \(3 rows\)"):
        next(batches(3, 8, seed=0))
