"""Sizes of a model, wherever its architecture keeps them: Gemma 3 in a config of its text part, Bloom has no last position."""

import sys
from typing import Any


def context_length(model: Any) -> int:
    """The most tokens that the model reads; sys.maxsize where its positions have no end."""
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return int(context) if context and context > 0 else sys.maxsize


def width(model: Any) -> int:
    """Of a hidden state."""
    return int(model.config.get_text_config().hidden_size)
