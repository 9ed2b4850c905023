"""Means over the tokens that count: completions have different lengths, padding has no say."""

import torch
from torch import Tensor


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of values where mask is 1; both (batch, time). Scalar; 0 for an empty mask."""
    return (values * mask).sum() / mask.sum().clamp(min=1)


def whiten(values: Tensor, mask: Tensor) -> Tensor:
    """(values − mean) / std over the masked tokens, unbiased variance + 1e-8; (batch, time). Masked-out entries become 0."""
    mean = masked_mean(values, mask)
    variance = ((values - mean).square() * mask).sum() / (mask.sum() - 1).clamp(min=1)
    return (values - mean) * torch.rsqrt(variance + 1e-8) * mask


def reduce_tokens(
    values: Tensor, mask: Tensor, reduction: str, full_mask: Tensor | None = None, max_tokens: int | None = None
) -> Tensor:
    """One number from a loss per token; mask: (micro_batch, time), values the same, or (micro_batch, 1): one for all tokens.

    token_mean      every token counts the same: Σ / tokens
    sequence_mean   every completion counts the same: mean over completions of their token means
    sequence_sum    mean over completions of their token sums
    max_length_mean    every completion counts as if it had max_tokens tokens: Σ / (completions · max_tokens), so that a long
                    wrong answer is not punished less per token than a short one (Dr. GRPO, Liu et al. 2025)

    full_mask: mask of the whole optimizer batch, (batch, time'). Summing the result over the micro-batches then gives exactly
    the value of the whole batch, so gradient accumulation changes nothing.
    """
    full_mask = mask if full_mask is None else full_mask
    match reduction:
        case "token_mean":
            return (values * mask).sum() / full_mask.sum().clamp(min=1)
        case "sequence_mean":
            return ((values * mask).sum(1) / mask.sum(1).clamp(min=1)).sum() / full_mask.shape[0]
        case "sequence_sum":
            return (values * mask).sum() / full_mask.shape[0]
        case "max_length_mean":
            if max_tokens is None:
                raise ValueError("reduction max_length_mean: max_tokens is needed, the longest allowed completion")
            return (values * mask).sum() / (full_mask.shape[0] * max_tokens)
    raise ValueError(f"reduction: {reduction!r} is not one of token_mean, sequence_mean, sequence_sum, max_length_mean")
