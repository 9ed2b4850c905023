"""The one door through which a stage gets a model to train."""

from pathlib import Path
from typing import Any

from tasks.core.stage import Stage
from tasks.models.language import frozen_copy, load_policy
from tasks.models.optimizer import Optimizer, OptimizerConfig


def open_model(stage: Stage, folder: Path) -> tuple[Any, Any, Optimizer]:
    """(model, tokenizer, optimizer) of a stage's output."""
    model, tokenizer = load_policy(folder, stage.device)
    return model, tokenizer, Optimizer(model.parameters(), stage.params(OptimizerConfig))


def open_policy(stage: Stage, folder: Path) -> tuple[Any, Any, Any, Optimizer]:
    """(policy, reference, tokenizer, optimizer). The reference has the policy's weights and no gradient."""
    policy, tokenizer, optimizer = open_model(stage, folder)
    return policy, frozen_copy(policy), tokenizer, optimizer
