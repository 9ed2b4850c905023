"""Every random number is a pure function of (seed, what it is for, step).

No stream has a position that must be saved: a run killed at step 37 draws the same numbers for step 38 when it starts again,
and drawing more for one purpose never shifts another.
"""

import hashlib
import random
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from tasks.core.errors import InputError

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


def batches(
    num_rows: int, batch_size: int, seed: int, start: int = 0, lengths: Sequence[int] | None = None
) -> Iterator[list[int]]:
    """Endless batches of row indices from step `start` on, shuffled anew each epoch.

    lengths: tokens of each row. If given, a batch holds its rows from short to long, so that micro-batches pad little. Which
    rows it holds stays random: batches of like length would be cheaper still, and a worse estimate of the gradient.
    Every row is seen once per epoch, except for a last incomplete batch.
    """
    per_epoch = num_rows // batch_size
    if per_epoch == 0:
        raise InputError(f"batch_size {batch_size} is larger than the data ({num_rows} rows); lower it or bring more data")
    step = start
    while True:
        epoch, position = divmod(step, per_epoch)
        order = stream(seed, "order", epoch)
        rows = list(range(num_rows))
        order.shuffle(rows)
        plan = [rows[i : i + batch_size] for i in range(0, per_epoch * batch_size, batch_size)]
        for batch in plan[position:]:
            yield batch if lengths is None else sorted(batch, key=lengths.__getitem__)
            step += 1
