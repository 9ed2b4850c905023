"""One layout: prompts padded on the left, completions on the right, so that every completion begins in the same column."""

import pytest
import torch

from tasks.models.batch import Batch, PairSet, collate, pad

BATCH = collate([[5, 6, 7], [8]], [[9], [10, 11]], pad_id=0, device="cpu")


def test_layout():
    assert BATCH.input_ids.tolist() == [[5, 6, 7, 9, 0], [0, 0, 8, 10, 11]]
    assert BATCH.attention_mask.tolist() == [[1, 1, 1, 1, 0], [0, 0, 1, 1, 1]]
    assert BATCH.completion_mask.tolist() == [[1, 0], [1, 1]]
    assert BATCH.lengths.tolist() == [1, 2]
    assert len(BATCH) == 2


def test_positions_count_real_tokens_from_zero():
    positions = BATCH.position_ids
    assert positions[0, :4].tolist() == [0, 1, 2, 3]
    assert positions[1, 2:].tolist() == [0, 1, 2]
    assert (positions >= 0).all()


def test_completions_come_back_without_padding():
    assert BATCH.completions() == [[9], [10, 11]]


def test_select_takes_the_same_rows_of_every_tensor():
    second = BATCH.select(torch.tensor([1]))
    assert isinstance(second, Batch)
    assert second.input_ids.tolist() == [[0, 0, 8, 10, 11]]
    assert BATCH.select(slice(0, 1)).completions() == [[9]]


def test_trimmed_leaves_out_columns_that_are_padding_everywhere():
    long = collate([[5, 6, 7], [8], [4]], [[9], [10, 11], [12, 13, 14]], pad_id=0, device="cpu")
    trimmed = long.select(torch.tensor([1, 0])).trimmed()
    assert trimmed.input_ids.tolist() == [[0, 0, 8, 10, 11], [5, 6, 7, 9, 0]]
    assert long.select(torch.tensor([2])).trimmed().input_ids.tolist() == [[4, 12, 13, 14]]
    assert trimmed.trimmed().input_ids.tolist() == trimmed.input_ids.tolist()
    assert trimmed.time == 2


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_pieces_hold_every_row_once_and_say_which(size):
    prompts = [[1] * length for length in (3, 1, 2, 3, 1, 1, 2)]
    completions = [[row + 10] * length for row, length in enumerate((1, 4, 2, 2, 1, 3, 4))]
    batch = collate(prompts, completions, pad_id=0, device="cpu")
    micro_batches = list(batch.micro_batches(size))
    assert sorted(row for rows, _ in micro_batches for row in rows.tolist()) == list(range(7))
    for rows, micro in micro_batches:
        assert micro.completions() == [completions[row] for row in rows]
        assert micro.prompt_mask.sum(1).tolist() == [len(prompts[row]) for row in rows]
    assert max(len(micro) for _, micro in micro_batches) == size


def test_pieces_put_like_lengths_together():
    batch = collate([[1]] * 8, [[2] * length for length in (1, 9, 1, 9, 1, 9, 1, 9)], pad_id=0, device="cpu")
    assert [micro.time for _, micro in batch.micro_batches(4)] == [1, 9]


def test_pad_sides():
    left, left_mask = pad([[1, 2], [3]], 0, left=True)
    right, right_mask = pad([[1, 2], [3]], 0, left=False)
    assert (left.tolist(), left_mask.tolist()) == ([[1, 2], [0, 3]], [[1, 1], [0, 1]])
    assert (right.tolist(), right_mask.tolist()) == ([[1, 2], [3, 0]], [[1, 1], [1, 0]])


def test_pairs_hold_all_the_chosen_then_all_the_rejected(tokenizer):
    rows = [
        {"prompt": "two", "chosen": "apples", "rejected": "pears"},
        {"prompt": "and 12", "chosen": "12", "rejected": "two and two"},
    ]
    pairs = PairSet(rows, tokenizer, "cpu")
    batch = pairs.batch([1, 0])
    texts = [tokenizer.decode(ids[:-1]) for ids in batch.completions()]
    assert texts == ["12", "apples", "two and two", "pears"]
    assert all(ids[-1] == tokenizer.eos_token_id for ids in batch.completions())
    assert torch.equal(batch.prompt_ids[:2], batch.prompt_ids[2:])
    assert pairs.lengths[1] == len(pairs.prompts[1]) + len(pairs.rejected[1])
    assert len(pairs) == 2
