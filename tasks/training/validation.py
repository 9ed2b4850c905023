"""The loss on rows that are kept from training, while a model trains; and the weights with the lowest, where they are wanted.

The rows come from the training split: all that answer the same prompt, or none of them. A hash of their
text decides which prompts, so every seed and every method keeps the same ones, and the test split has no part in it.

validation/loss       mean over these rows of the loss that the algorithm minimizes
validation/accuracy   of pairs: the share in the right order, as train/accuracy
Figures, with keep_best: best_step, after which the published weights are taken, and best_validation_loss
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

import torch
from pydantic import NonNegativeInt, PositiveInt, model_validator
from torch import Tensor

from tasks.core import seeds
from tasks.core.config import Config
from tasks.core.errors import InputError
from tasks.core.stage import Stage


class ValidationConfig(Config):
    """params.yaml: validation"""

    namespace = "validation"

    num_rows: NonNegativeInt  # at least so many, and all rows of their prompts; 0: none
    every: PositiveInt  # steps
    keep_best: bool

    @model_validator(mode="after")
    def _can_tell_the_best(self) -> Self:
        if self.keep_best and not self.num_rows:
            raise ValueError("keep_best needs rows to tell the best step by; write num_rows: 200")
        return self


class Validation:
    """`rows` are kept from training, `training` are the others. Its state is part of the checkpoint."""

    def __init__(self, stage: Stage, model: Any, prompts: Sequence[str], num_steps: int):
        """prompts: of each row, whatever stands for it."""
        self.config = stage.params(ValidationConfig)
        self.model, self.num_steps = model, num_steps
        self.rows = kept_rows(prompts, self.config.num_rows)
        kept = set(self.rows)
        self.training = [row for row in range(len(prompts)) if row not in kept]
        if self.rows and not self.training:
            raise InputError(
                f"validation.num_rows ({self.config.num_rows}) keeps all {len(prompts)} rows from training; lower it"
            )
        self.loss, self.step, self.weights = math.inf, 0, dict[str, Tensor]()  # the best so far

    def batches(self, batch_size: int, seed: int, start: int, lengths: Sequence[int] | None) -> Iterator[list[int]]:
        """seeds.batches of the rows to train on."""
        own = None if lengths is None else [lengths[row] for row in self.training]
        for batch in seeds.batches(len(self.training), batch_size, seed, start, own):
            yield [self.training[place] for place in batch]

    def __call__(self, step: int, measure: Callable[[], dict[str, Tensor]]) -> dict[str, float]:
        """What measure() says of `rows` after this step, to be logged; nothing at the steps between."""
        if not self.rows or (step % self.config.every and step != self.num_steps - 1):
            return {}
        with torch.no_grad():
            figures = {name: float(value) for name, value in measure().items()}
        if self.config.keep_best and figures["loss"] < self.loss:
            self.loss, self.step = figures["loss"], step
            self.weights = {name: values.detach().cpu().clone() for name, values in self._trained().items()}
        return {f"validation/{name}": value for name, value in figures.items()}

    @torch.no_grad()
    def take_best(self) -> dict[str, float]:
        """The model gets its best weights. Returns the figures to record; none where only the last weights are known."""
        for name, values in self._trained().items() if self.weights else ():
            values.copy_(self.weights[name])
        return {"best_step": self.step, "best_validation_loss": self.loss} if self.weights else {}

    def state_dict(self) -> dict[str, Any]:
        return {"loss": self.loss, "step": self.step, "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.loss, self.step, self.weights = state["loss"], state["step"], state["weights"]

    def _trained(self) -> dict[str, Tensor]:
        return {name: values for name, values in self.model.named_parameters() if values.requires_grad}


def kept_rows(prompts: Sequence[str], num_rows: int) -> list[int]:
    """All rows of so many prompts that there are at least num_rows."""
    places: dict[str, list[int]] = {}
    for row, prompt in enumerate(prompts if num_rows else ()):
        places.setdefault(prompt, []).append(row)
    kept: list[int] = []
    for prompt in sorted(places, key=lambda prompt: seeds.derive(0, "validation", prompt)):
        if len(kept) < num_rows:
            kept += places[prompt]
    return sorted(kept)
