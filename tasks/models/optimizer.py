"""The optimizer and learning-rate schedules all algorithms share, so that they differ in the method and not here."""

import math
from typing import Any

import torch
from torch.nn import Parameter


def adamw(parameters: list[Parameter], learning_rate: float) -> torch.optim.AdamW:
    return torch.optim.AdamW(parameters, lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True)


def warmup_cosine(step: int, num_steps: int, peak: float) -> float:
    """Linear over the first 5 % of the steps, then a cosine down to a tenth of the peak."""
    warmup = min(1.0, (step + 1) / max(1.0, 0.05 * num_steps))
    return peak * warmup * (0.1 + 0.45 * (1 + math.cos(math.pi * step / num_steps)))


def warmup_constant(step: int, peak: float) -> float:
    """Linear over five steps, then constant: on-policy methods keep learning as long as they sample."""
    return peak * min(1.0, (step + 1) / 5)


def optimizer_step(optimizer: torch.optim.Optimizer, learning_rate: float, max_grad_norm: float = 1.0) -> float:
    """Clip the global gradient norm, step, clear. Returns the norm before clipping."""
    parameters: list[Any] = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    norm = torch.nn.utils.clip_grad_norm_(parameters, max_grad_norm)
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return float(norm)
