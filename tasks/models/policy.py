"""The one door through which a stage gets a policy to train."""

from pathlib import Path
from typing import Any

from tasks.core.stage import Stage
from tasks.models.adapter import AdapterConfig, add_adapter
from tasks.models.language import frozen_copy, open_model
from tasks.models.optimizer import Optimizer, OptimizerConfig


def open_policy(stage: Stage, folder: Path) -> tuple[Any, Any, Any, Optimizer]:
    """(policy, reference, tokenizer, optimizer). The reference has the policy's weights, no adapter and no gradient."""
    policy, tokenizer = open_model(stage, folder)
    policy.requires_grad_(not stage.params(AdapterConfig).rank)
    reference = frozen_copy(policy)
    add_adapter(policy, stage)
    return policy, reference, tokenizer, Optimizer(policy.parameters(), stage.params(OptimizerConfig))
