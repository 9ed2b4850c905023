"""Reward models: a language model's backbone with one linear output, as `AutoModelForSequenceClassification` folders.

The score's mean and standard deviation on samples of the SFT model are stored in config.json (`score_mean`, `score_std`),
so that every user of the folder can standardise it the same way.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from tasks.models.batch import Batch
from tasks.models.language import check_model_folder

ROWS_AT_ONCE = 64


def reward_model_from_policy(folder: Path, device: str) -> Any:
    """The SFT model with its last layer replaced by a linear head, which starts at zero: every score is 0 at first."""
    check_model_folder(folder, None)
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1, use_safetensors=True, dtype="float32")
    model.score.weight.data.zero_()
    return model.to(device).eval()


def load_reward_model(folder: Path, device: str) -> Any:
    check_model_folder(folder, None)
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1, use_safetensors=True, dtype="float32")
    return model.requires_grad_(False).to(device).eval()


def raw_scores(reward_model: Any, batch: Batch) -> Tensor:
    """The head's output at the last token of each completion: (batch,)."""
    outputs = reward_model(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        position_ids=batch.position_ids,
        use_cache=False,
    )
    return outputs.logits[:, 0]


@torch.no_grad()
def standardised_scores(reward_model: Any, batch: Batch) -> Tensor:
    """Mean 0 and standard deviation 1 over samples of the SFT model: (batch,)."""
    scores = torch.zeros(len(batch), device=batch.completion_ids.device)
    for rows, piece in batch.pieces(ROWS_AT_ONCE):
        scores[rows] = raw_scores(reward_model, piece)
    return (scores - reward_model.config.score_mean) / reward_model.config.score_std
