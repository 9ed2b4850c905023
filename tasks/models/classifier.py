"""Models that another tool trained to classify texts, or with one output to score them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tasks.core.errors import InputError, did_you_mean
from tasks.models.architecture import context_length
from tasks.models.language import check_model_folder, in_float32


def load_with_head(source: str, revision: str | None, kind: str) -> Any:
    """The model of a folder or hub name, whose head is trained. kind: what a message calls it. Raises InputError."""
    check_model_folder(source, revision)
    try:
        model, loaded = AutoModelForSequenceClassification.from_pretrained(
            source, **_pin(source, revision), use_safetensors=True, dtype="auto", output_loading_info=True
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"{kind} {source} cannot be loaded ({reason})") from None
    if loaded["missing_keys"]:
        missing = min(loaded["missing_keys"])
        raise InputError(f"{source} is not a {kind}: its weights file lacks {missing}; a language model has no score head")
    return model


def load_classifier(source: str, revision: str | None, label: str, device: str) -> Callable[[str], float]:
    """The chance that a text has the label, by the classifier in this folder or of this hub name. What is longer than the model
    reads is cut off. Raises InputError with one sentence."""
    model = load_with_head(source, revision, "text classifier")
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **_pin(source, revision))
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"text classifier {source} has no tokenizer that can be loaded ({reason})") from None
    labels = model.config.label2id
    if label not in labels:
        raise InputError(f"{source} knows no label `{label}`; it has {', '.join(sorted(labels))}{did_you_mean(label, labels)}")
    model = in_float32(model).requires_grad_(False).to(device).eval()
    several = model.config.problem_type == "multi_label_classification" or len(labels) == 1  # each label apart from the others
    longest = min(tokenizer.model_max_length, context_length(model) - 2)  # RoBERTa counts its positions from 2

    @torch.no_grad()
    def chance(text: str) -> float:
        if not text.strip():
            return 0.0
        encoded = tokenizer(text, truncation=True, max_length=longest, return_tensors="pt").to(device)
        logits = model(input_ids=encoded["input_ids"], attention_mask=encoded["attention_mask"]).logits[0]
        chances = logits.sigmoid() if several else logits.softmax(0)
        return float(chances[labels[label]])

    return chance


def _pin(source: str, revision: str | None) -> dict[str, Any]:
    return {"revision": None if Path(source).is_dir() else revision, "trust_remote_code": False}
