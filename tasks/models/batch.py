"""Token ids as tensors, in the one layout of the project: prompts padded on the left, completions on the right.

Every completion then begins in the same column, so (batch, time) tensors of completions line up without any index arithmetic.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self, TypeVar

import torch
from torch import Tensor

from tasks.core.files import Row
from tasks.models.text import encode_completions, encode_prompts

AnyRow = TypeVar("AnyRow")


@dataclass
class Batch:
    """Prompts and completions; masks are 1 where a token is real."""

    prompt_ids: Tensor  # (batch, prompt_time)
    prompt_mask: Tensor  # (batch, prompt_time)
    completion_ids: Tensor  # (batch, time)
    completion_mask: Tensor  # (batch, time)

    @property
    def input_ids(self) -> Tensor:
        return torch.cat([self.prompt_ids, self.completion_ids], dim=1)

    @property
    def attention_mask(self) -> Tensor:
        return torch.cat([self.prompt_mask, self.completion_mask], dim=1)

    @property
    def position_ids(self) -> Tensor:
        return (self.attention_mask.cumsum(1) - 1).clamp(min=0)

    @property
    def lengths(self) -> Tensor:
        """Tokens of each completion: (batch,)."""
        return self.completion_mask.sum(1)

    @property
    def time(self) -> int:
        """Columns of the completions."""
        return self.completion_ids.shape[1]

    def __len__(self) -> int:
        return self.prompt_ids.shape[0]

    def select(self, rows: Tensor | slice) -> Self:
        """Some rows of every tensor."""
        return type(self)(*(getattr(self, field.name)[rows] for field in fields(self)))

    def split(self, size: int) -> Iterator[Self]:
        """All rows in their order, so many at a time, each part trimmed."""
        for rows in torch.arange(len(self), device=self.prompt_ids.device).split(size):
            yield self.select(rows).trimmed()

    def trimmed(self) -> Self:
        """Without the columns that are padding in every row."""
        prompt_start = int(self.prompt_mask.any(0).int().argmax())
        time = int(self.lengths.max())

        def cut(name: str, tensor: Tensor) -> Tensor:
            if tensor.dim() == 1:
                return tensor
            return tensor[:, prompt_start:] if name.startswith("prompt_") else tensor[:, :time]

        return type(self)(*(cut(field.name, getattr(self, field.name)) for field in fields(self)))

    def micro_batches(self, size: int) -> Iterator[tuple[Tensor, Self]]:
        """(rows, trimmed batch of those rows), rows of like length together: most of the padding is never computed."""
        order = self.attention_mask.sum(1).argsort(stable=True)
        for rows in order.split(size):
            yield rows, self.select(rows).trimmed()

    def prompts(self) -> list[list[int]]:
        """Token ids of each prompt without padding."""
        rows = zip(self.prompt_ids.tolist(), self.prompt_mask.sum(1).tolist(), strict=True)
        return [ids[len(ids) - length :] for ids, length in rows]

    def completions(self) -> list[list[int]]:
        """Token ids of each completion without padding, end-of-text included."""
        rows = zip(self.completion_ids.tolist(), self.lengths.tolist(), strict=True)
        return [ids[:length] for ids, length in rows]


def collate(prompts: Sequence[list[int]], completions: Sequence[list[int]], pad_id: int, device: str) -> Batch:
    """Lists of token ids as one padded Batch."""
    prompt_ids, prompt_mask = pad(prompts, pad_id, left=True)
    completion_ids, completion_mask = pad(completions, pad_id, left=False)
    return Batch(*(tensor.to(device) for tensor in (prompt_ids, prompt_mask, completion_ids, completion_mask)))


class PairSet:
    """Preference pairs as token ids; a batch holds all the chosen completions, then all the rejected ones."""

    def __init__(self, rows: list[Row], tokenizer: Any, device: str):
        self.rows, self.pad_id, self.device = rows, tokenizer.pad_token_id, device
        self.prompts = encode_prompts(tokenizer, [row["prompt"] for row in rows])
        self.chosen = encode_completions(tokenizer, [row["chosen"] for row in rows])
        self.rejected = encode_completions(tokenizer, [row["rejected"] for row in rows])
        together = zip(self.prompts, self.chosen, self.rejected, strict=True)
        self.lengths = [len(x) + max(len(y), len(z)) for x, y, z in together]
        self.prompt_texts = [row["prompt"] for row in rows]

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, indices: Sequence[int]) -> Batch:
        """(2 · pairs, time)"""
        completions = [self.chosen[i] for i in indices] + [self.rejected[i] for i in indices]
        return collate([self.prompts[i] for i in indices] * 2, completions, self.pad_id, self.device)

    def by_length(self, size: int) -> list[list[int]]:
        """Every pair once, as lists to give to `batch`; pairs of like length together."""
        return by_length(self.lengths, size)


def micro_batches(rows: Sequence[AnyRow], size: int) -> Iterator[Sequence[AnyRow]]:
    """The rows in their order, so many at a time."""
    return (rows[i : i + size] for i in range(0, len(rows), size))


def by_length(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Every row once, as lists of `size`; rows of like length together: less padding."""
    order = sorted(range(len(lengths)), key=lambda row: lengths[row])
    return [order[i : i + size] for i in range(0, len(order), size)]


def pad(sequences: Sequence[list[int]], pad_id: int, left: bool) -> tuple[Tensor, Tensor]:
    """(batch, longest) ids and mask."""
    longest = max(map(len, sequences))
    ids = [[pad_id] * (longest - len(s)) + s if left else s + [pad_id] * (longest - len(s)) for s in sequences]
    mask = [[0] * (longest - len(s)) + [1] * len(s) if left else [1] * len(s) + [0] * (longest - len(s)) for s in sequences]
    return torch.tensor(ids), torch.tensor(mask)
