"""Judged completions, for a reward model that learns from something else than pairs: rankings, ratings, thumbs.

data/feedback.parquet has one row for each: id (of the question; completions judged together share it), prompt, completion,
kind (ranking, rating, thumbs), value (rank, 1 is best and ties share one; the rating; 1 or 0), annotator, split.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tasks.core.errors import InputError
from tasks.core.files import Row
from tasks.models.batch import Batch, by_length, collate
from tasks.models.reward import raw_scores
from tasks.models.text import encode_completions, encode_prompts

ITEMS_AT_ONCE = 64
KINDS = {"all_pairs": "ranking", "plackett_luce": "ranking", "regression": "rating", "binary": "thumbs"}  # of a loss


class JudgedSet:
    """Rankings, one by one and whole, or single ratings and thumbs, as token ids with their values."""

    def __init__(self, rows: Sequence[Row], kind: str, tokenizer: Any, device: str):
        """Raises InputError for values that cannot be of this kind."""
        self.kind, self.pad_id, self.device = kind, tokenizer.pad_token_id, device
        self.rows = [row for row in rows if row["kind"] == kind]
        for row in self.rows:
            check_value(row)
        self.prompts = encode_prompts(tokenizer, [row["prompt"] for row in self.rows])
        self.completions = encode_completions(tokenizer, [row["completion"] for row in self.rows])
        together: dict[Any, list[int]] = {}
        for index, row in enumerate(self.rows):
            together.setdefault((row["id"], row["annotator"]) if kind == "ranking" else index, []).append(index)
        self.items = list(together.values())  # rows of each ranking, or one row each
        if kind == "ranking" and any(len(item) < 2 for item in self.items):
            alone = next(self.rows[item[0]]["id"] for item in self.items if len(item) < 2)
            raise InputError(f"data/feedback.parquet: ranking {alone!r} has one completion; rank two or more, or leave it out")
        self.lengths = [max(len(self.prompts[i]) + len(self.completions[i]) for i in item) for item in self.items]
        self.prompt_texts = [self.rows[item[0]]["prompt"] for item in self.items]

    def __len__(self) -> int:
        return len(self.items)

    def batch(self, indices: Sequence[int]) -> Batch:
        """All completions of these items, item by item: (completions, time)."""
        rows = [i for item in indices for i in self.items[item]]
        return collate([self.prompts[i] for i in rows], [self.completions[i] for i in rows], self.pad_id, self.device)

    def values(self, indices: Sequence[int]) -> Tensor:
        """(completions,), in the order of `batch`."""
        return torch.tensor([float(self.rows[i]["value"]) for item in indices for i in self.items[item]], device=self.device)

    def places(self, indices: Sequence[int]) -> Tensor:
        """Which of the indices items each completion belongs to, 0, 1, ...: (completions,)."""
        return torch.tensor([place for place, item in enumerate(indices) for _ in self.items[item]], device=self.device)

    def standardised(self, ratings: Tensor) -> Tensor:
        """In deviations from the mean of all ratings of this set."""
        values = self.values(range(len(self)))
        return (ratings - values.mean()) / values.std(correction=0).clamp(min=1e-6)

    def by_length(self, size: int) -> list[list[int]]:
        """Every item once, as lists to give to `batch`; items of like length together."""
        return by_length(self.lengths, size)


def judged_set(loss: str, rows: Sequence[Row], split: str, reward_model: Any) -> JudgedSet:
    """What this loss learns from, among the rows of data/feedback.parquet."""
    kind, device = KINDS[loss], str(reward_model.device)
    found = JudgedSet([row for row in rows if row["split"] == split], kind, reward_model.tokenizer, device)
    if not len(found):
        raise InputError(
            f"reward_model.loss is {loss}, but data/feedback.parquet has no {kind} of split {split}; "
            "let collect_preferences ask for some, or take the loss bradley_terry"
        )
    return found


def check_value(row: Row) -> None:
    kind, value = row["kind"], row["value"]
    says = None
    if value is None or not math.isfinite(value):
        says = f"{value!r} is not a number"
    elif kind == "thumbs" and value not in (0, 1):
        says = f"a thumb is 1 or 0, found {value:g}"
    elif kind == "ranking" and value < 1:
        says = f"ranks count from 1, found {value:g}"
    if says:
        raise InputError(f"data/feedback.parquet: the {kind} of a completion of {row['id']!r}: {says}")


def agreement(scores: Tensor, values: Tensor, places: Tensor, kind: str) -> tuple[float, int]:
    """(pairs that the scores order as the values do, equal scores as half; pairs that the values order).

    Within each ranking; ratings and thumbs speak of one scale, so there every two completions are compared.
    """
    better = values[:, None] < values[None, :] if kind == "ranking" else values[:, None] > values[None, :]
    if kind == "ranking":
        better &= places[:, None] == places[None, :]
    above = (scores[:, None] > scores[None, :]).float() + 0.5 * (scores[:, None] == scores[None, :]).float()
    return float(above[better].sum()), int(better.sum())


@torch.no_grad()
def held_out_agreement(reward_model: Any, judged: JudgedSet) -> dict[str, float]:
    """Share of twos in the judged order, equal scores as half; nothing where no two are judged differently."""
    every = [item for piece in judged.by_length(ITEMS_AT_ONCE) for item in piece]
    scores = torch.cat([raw_scores(reward_model, judged.batch(piece)) for piece in judged.by_length(ITEMS_AT_ONCE)])
    right, pairs = agreement(scores, judged.values(every), judged.places(every), judged.kind)
    return {"feedback_agreement": right / pairs, "feedback_pairs": float(pairs)} if pairs else {}
