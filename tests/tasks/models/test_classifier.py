"""A text classifier from elsewhere: its chances are its own, and what is none is refused in a sentence."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from tasks.core.errors import InputError
from tasks.models.classifier import load_classifier
from tasks.models.language import save_model

LABELS = ["fine", "toxic", "rude"]


def saved(folder: Path, tokenizer: Any, **config: Any) -> Any:
    torch.manual_seed(0)
    shape = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    labels = {"id2label": dict(enumerate(LABELS)), "label2id": {label: i for i, label in enumerate(LABELS)}}
    settings = {"vocab_size": len(tokenizer), "max_position_embeddings": 16, "initializer_range": 0.7}
    model = BertForSequenceClassification(BertConfig(**shape, **labels, **settings, **config)).eval()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model


@pytest.mark.parametrize("problem", ["single_label_classification", "multi_label_classification"])
def test_a_chance_is_the_models_own(tokenizer: Any, tmp_path: Path, problem: str) -> None:
    model = saved(tmp_path, tokenizer, problem_type=problem)
    ids = tokenizer("two pears", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        logits = model(input_ids=ids).logits[0]
    expected = logits.sigmoid() if problem.startswith("multi") else logits.softmax(0)
    chances = [load_classifier(str(tmp_path), None, label, "cpu")("two pears") for label in LABELS]
    assert chances == pytest.approx(expected.tolist(), abs=1e-6)
    assert len({round(chance, 3) for chance in chances}) == 3


def test_long_and_empty_texts(tokenizer: Any, tmp_path: Path) -> None:
    saved(tmp_path, tokenizer)
    chance = load_classifier(str(tmp_path), None, "toxic", "cpu")
    assert chance(" apples" * 50) == chance(" apples" * 60) != chance(" apples")
    assert chance("\n") == 0.0


def test_what_is_no_classifier_is_refused(tokenizer: Any, model: Any, tmp_path: Path) -> None:
    saved(tmp_path / "classifier", tokenizer)
    with pytest.raises(InputError, match=r"knows no label `Toxic`; it has fine, rude, toxic; did you mean `toxic`\?$"):
        load_classifier(str(tmp_path / "classifier"), None, "Toxic", "cpu")
    save_model(model, tokenizer, tmp_path / "language")
    with pytest.raises(
        InputError, match=r"language is not a text classifier: its weights file lacks score\.weight; a language model"
    ):
        load_classifier(str(tmp_path / "language"), None, "toxic", "cpu")
    (tmp_path / "classifier/config.json").write_text("{}")
    with pytest.raises(InputError, match=r"^text classifier .* cannot be loaded \(.*\)$"):
        load_classifier(str(tmp_path / "classifier"), None, "toxic", "cpu")
