"""The optimizer and learning-rate schedules all algorithms share, so that they differ in the method and not here."""

import math
from collections.abc import Iterable
from typing import Annotated, Any

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat
from torch.nn import Parameter

from tasks.core.config import Config
from tasks.models.data_parallel import average_gradients

Share = Annotated[float, Field(ge=0, le=1)]


class OptimizerConfig(Config):
    """params.yaml: optimizer"""

    namespace = "optimizer"

    beta1: Annotated[float, Field(ge=0, lt=1)]
    beta2: Annotated[float, Field(ge=0, lt=1)]
    weight_decay: NonNegativeFloat
    max_grad_norm: PositiveFloat | None
    warmup_steps: NonNegativeInt  # of the constant schedule
    warmup_share: Share  # of the cosine schedule
    final_share: Share  # of the cosine schedule
    average_share: Share  # of the cosine schedule; 0: the last weights are taken as they are


class Optimizer(torch.optim.AdamW):
    """AdamW that clips the norm of the gradient, with one method for each schedule.

    Either method clips, steps and clears, and returns the norm before clipping.
    """

    def __init__(self, parameters: Iterable[Parameter], settings: OptimizerConfig):
        betas = settings.beta1, settings.beta2
        super().__init__(list(parameters), lr=0.0, betas=betas, weight_decay=settings.weight_decay, fused=True)
        self.settings = settings

    def cosine_step(self, step: int, num_steps: int, peak: float) -> float:
        """For data that is there from the start: warm-up, then a cosine down to a share of the peak.

        The last step leaves each weight at its mean after the last `average_share` of the steps (Izmailov et al. 2018).
        """
        norm = self._step(warmup_cosine(step, num_steps, peak, self.settings))
        averaged = step + 1 - num_steps + round(num_steps * self.settings.average_share)
        if averaged > 0:
            self._average(averaged, last=step + 1 == num_steps)
        return norm

    def constant_step(self, step: int, peak: float) -> float:
        """For methods that sample: they keep learning as long as they sample."""
        return self._step(warmup_constant(step, peak, self.settings))

    def _step(self, learning_rate: float) -> float:
        parameters: list[Any] = [parameter for group in self.param_groups for parameter in group["params"]]
        average_gradients(parameters)
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.settings.max_grad_norm or math.inf)
        for group in self.param_groups:
            group["lr"] = learning_rate
        self.step()
        self.zero_grad(set_to_none=True)
        return float(norm)

    @torch.no_grad()
    def _average(self, count: int, *, last: bool) -> None:
        """The mean of `count` steps is kept beside the moments, so that checkpoints hold it too."""
        for parameter, state in self.state.items():
            mean = state.setdefault("mean_weight", torch.zeros_like(parameter))
            mean.lerp_(parameter, 1 / count)
            if last:
                parameter.copy_(mean)


def warmup_cosine(step: int, num_steps: int, peak: float, settings: OptimizerConfig) -> float:
    """Linear over `warmup_share` of the steps, then a cosine down to `final_share` of the peak."""
    warmup = min(1.0, (step + 1) / max(1.0, settings.warmup_share * num_steps))
    half = (1 - settings.final_share) / 2
    return peak * warmup * (settings.final_share + half * (1 + math.cos(math.pi * step / num_steps)))


def warmup_constant(step: int, peak: float, settings: OptimizerConfig) -> float:
    """Linear over `warmup_steps`, then constant."""
    return peak * min(1.0, (step + 1) / max(1, settings.warmup_steps))
