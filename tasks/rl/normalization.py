"""Scores on a scale that stays the same while the policy, and with it the range of its scores, moves."""

import torch
from torch import Tensor


class RunningNormalization(torch.nn.Module):
    """(score − mean) / std, over every score seen so far, those of this call included. Nothing is forgotten.

    By the history of the scores, as in PPO-max, Zheng et al. 2023; merged batch by batch as in Chan et al. 1979, population
    variance. The record is in the buffers, so that a checkpoint holds it. Scores that have all been equal are 0.
    """

    count: Tensor
    mean: Tensor
    squares: Tensor  # Σ (score − mean)²

    def __init__(self) -> None:
        super().__init__()
        for name in ("count", "mean", "squares"):
            self.register_buffer(name, torch.zeros((), dtype=torch.float64))

    @property
    def std(self) -> Tensor:
        return (self.squares / self.count.clamp(min=1)).sqrt()

    def forward(self, scores: Tensor) -> Tensor:
        """scores: (batch,); returns the same shape."""
        new = scores.double()
        gap, count = new.mean() - self.mean, self.count + len(new)
        self.squares = self.squares + (new - new.mean()).square().sum() + gap.square() * self.count * len(new) / count
        self.mean = self.mean + gap * len(new) / count
        self.count = count
        return ((new - self.mean) / self.std.clamp(min=1e-6)).to(scores)
