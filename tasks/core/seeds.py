"""Every random number is a pure function of (seed, what it is for, step).

No stream has a position that must be saved: a run killed at step 37 draws the same numbers for step 38 when it starts again,
and drawing more for one purpose never shifts another.
"""

import hashlib
import random
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def derive(seed: int, *names: object) -> int:
    """A 63-bit seed for the named purpose, independent of all others."""
    text = "/".join(map(str, (seed, *names)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *names: object) -> "torch.Generator":
    """A torch stream on the CPU: samples are the same whatever device the model is on."""
    import torch

    return torch.Generator().manual_seed(derive(seed, *names))


def stream(seed: int, *names: object) -> random.Random:
    """A Python stream, for choices among strings and rows."""
    return random.Random(derive(seed, *names))


def batches(lengths: Sequence[int], batch_size: int, seed: int, start: int = 0) -> Iterator[list[int]]:
    """Endless batches of row indices from step `start` on: shuffled anew each epoch, rows of like length together.

    lengths: tokens of each row. Within windows of 16 batches rows are sorted by length, which spares most of the padding
    and keeps the order random; every row is seen once per epoch, except for the last incomplete batch.
    """
    per_epoch = len(lengths) // batch_size
    if per_epoch == 0:
        raise ValueError(f"batch_size {batch_size} is larger than the data ({len(lengths)} rows)")
    step = start
    while True:
        epoch, position = divmod(step, per_epoch)
        for batch in _epoch(lengths, batch_size, stream(seed, "order", epoch))[position:]:
            yield batch
            step += 1


def _epoch(lengths: Sequence[int], batch_size: int, order: random.Random) -> list[list[int]]:
    rows = list(range(len(lengths)))
    order.shuffle(rows)
    rows = rows[: len(rows) // batch_size * batch_size]
    window = 16 * batch_size
    result = []
    for begin in range(0, len(rows), window):
        near = sorted(rows[begin : begin + window], key=lambda row: lengths[row])
        result += [near[i : i + batch_size] for i in range(0, len(near), batch_size)]
    order.shuffle(result)
    return result
