"""The preference pairs a policy is trained on, and what the reference policy says of them."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tasks.core import progress
from tasks.core.files import read_table
from tasks.core.stage import Stage
from tasks.models.batch import Batch, PairSet, micro_batches
from tasks.models.compute import at_once
from tasks.models.reward import raw_scores
from tasks.rl.logprobs import completion_logprobs

ROWS_AT_ONCE = 128


def load_pairs(stage: Stage, tokenizer: Any, split: str) -> PairSet:
    """split: train, or test for the held-out ones. Only what has passed the gate."""
    stage.dep("reports/validate_preferences")
    rows = [row for row in read_table(stage.dep("data/preferences.parquet")) if row["split"] == split]
    return PairSet(rows, tokenizer, stage.device)


def summed_logprobs(model: Any, batch: Batch) -> Tensor:
    """Σ_t log π(y_t | x, y_<t) of each completion: (batch,), in nats."""
    return (completion_logprobs(model, batch) * batch.completion_mask).sum(1)


@torch.no_grad()
def reference_pair_logprobs(reference: Any, pairs: PairSet, what: str) -> Tensor:
    """Σ_t log π_ref of the chosen and the rejected completion of every pair: (pairs, 2), in nats.

    Once, before training: the reference never changes.
    """
    pieces = pairs.by_length(at_once(reference, ROWS_AT_ONCE))
    result = torch.zeros(len(pairs), 2, device=pairs.device)
    for indices in progress.track(pieces, len(pieces), f"{what}: reference"):
        result[indices] = torch.stack(summed_logprobs(reference, pairs.batch(indices)).chunk(2), dim=1)
    return result


@torch.no_grad()
def held_out_logprobs(policy: Any, pairs: PairSet, rows: Sequence[int]) -> Tensor:
    """Σ_t log π of the chosen and of the rejected completion of these pairs: (2, rows), in nats."""
    pieces = micro_batches(rows, at_once(policy, ROWS_AT_ONCE))
    return torch.cat([summed_logprobs(policy, pairs.batch(piece)).view(2, -1) for piece in pieces], dim=1)


def held_out_lengths(pairs: PairSet, rows: Sequence[int]) -> Tensor:
    """Tokens of these completions: (2, rows)."""
    lengths = [[len(side[row]) for row in rows] for side in (pairs.chosen, pairs.rejected)]
    return torch.tensor(lengths, device=pairs.device)


@torch.no_grad()
def pair_scores(reward_model: Any, pairs: PairSet) -> Tensor:
    """The score of the chosen and of the rejected completion of every pair, before standardisation: (pairs, 2)."""
    result = torch.zeros(len(pairs), 2, device=pairs.device)
    for indices in pairs.by_length(at_once(reward_model, ROWS_AT_ONCE)):
        result[indices] = torch.stack(raw_scores(reward_model, pairs.batch(indices)).chunk(2), dim=1)
    return result
