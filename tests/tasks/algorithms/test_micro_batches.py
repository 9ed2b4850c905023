"""Micro-batches change nothing but the memory: the weights after three steps are those of whole batches.

In memory, on a random model: no process, no tracker. Tolerance 2e-4 where a step moves a weight by 1e-3: the
additions come in another order,
and AdamW divides by the size of a gradient.
"""

import importlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tasks.algorithms import sft
from tasks.core.config import lookup
from tasks.core.files import read_table, write_table
from tasks.models.language import build_model, save_model
from tasks.models.tokenizer import load_tokenizer
from tests.project import PARAMS, make

CONFIGS = {"sft": "SftConfig", "base_model": "BaseModelConfig", "dpo": "DpoConfig", "dpo_positive": "DpoPositiveConfig",
           "ipo": "IpoConfig", "orpo": "OrpoConfig", "kto": "KtoConfig", "raft": "RaftConfig"}  # fmt: skip


class Bench:
    """What train() asks of a stage."""

    device, seed, start, name, variant = "cpu", 7, 0, "policy@any-0", "any-0"

    def __init__(self, folder: Path, written: Path):
        self.folder, self.written, self.history = folder, written, []

    def params(self, config_class):
        values = lookup(PARAMS, config_class.namespace)
        return config_class.model_validate(values | ({"weights": {"verifier": 1.0}} if "weights" in values else {}))

    def dep(self, path):
        return self.folder / path

    def out(self, path):
        return self.written / path

    def resume(self, **parts):
        self.optimizer = parts["optimizer"]

    def steps(self, total):
        return range(total)

    def log(self, step, values, every=1, samples=None):
        self.history.append({"step": step} | {key: float(value) for key, value in values.items()})

    def record(self, **metrics):
        self.metrics = metrics

    def report(self, folder):
        self.reported = folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The small project with random models and with pairs of unequal length."""
    folder = tmp_path_factory.mktemp("bench")
    (folder / "none.db").touch()
    make(folder, folder / "none.db", None)
    tokenizer = load_tokenizer(folder / "models/tokenizer")
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    for name in ("base", "sft"):
        model = build_model(tokenizer, 0, max_position_embeddings=32, initializer_range=0.1, **shape)
        save_model(model, tokenizer, folder / "models" / name)
    prompts = [row for row in read_table(folder / "data/prepared/prompts.parquet") if row["split"] == "train"]
    write_table(folder / "data/preferences.parquet", [
        {"id": row["id"], "prompt": row["prompt"], "chosen": row["solution"], "split": "train", "gap": 1.0,
         "rejected": "so " * (number % 4) + row["mistake"]}
        for number, row in enumerate(prompts)
    ])  # fmt: skip
    return folder


def losses(history):
    return [{key: value for key, value in row.items() if key.startswith("loss/")} for row in history]


@pytest.mark.parametrize("algorithm", CONFIGS)
def test_micro_batches_change_nothing(folder, tmp_path, algorithm):
    module = importlib.import_module(f"tasks.algorithms.{algorithm}")
    config_class = getattr(module, CONFIGS[algorithm])
    values = lookup(PARAMS, config_class.namespace) | {"num_steps": 3, "learning_rate": 1.0e-3}
    if algorithm == "dpo_positive":
        values["penalty_coef"] = 0.0  # at the start every Δ is 0, the kink of the penalty, where rounding decides
    weights, histories = [], []
    for size in (None, 4, 1):
        bench = Bench(folder, tmp_path / str(size))
        module.train(config_class.model_validate(values | {"micro_batch_size": size}), bench)
        weights.append(load_file(next((tmp_path / str(size)).rglob("model.safetensors"))))
        histories.append(bench.history)
    start = load_file(folder / "models/sft/model.safetensors")
    assert max((weights[0][name] - start[name]).abs().max() for name in start) > 1e-4
    for other, history in zip(weights[1:], histories[1:], strict=True):
        torch.testing.assert_close(other, weights[0], atol=2e-4, rtol=0)
        assert losses(history) == [pytest.approx(row, abs=1e-4) for row in losses(histories[0])]


@pytest.mark.parametrize("algorithm", CONFIGS)
def test_a_micro_batch_that_does_not_divide_is_refused(algorithm):
    config_class = getattr(importlib.import_module(f"tasks.algorithms.{algorithm}"), CONFIGS[algorithm])
    with pytest.raises(ValueError, match=r"must be a multiple of micro_batch_size \(5\)"):
        config_class.model_validate(lookup(PARAMS, config_class.namespace) | {"micro_batch_size": 5})


def test_without_a_step_sft_publishes_the_base_model(folder, tmp_path, capsys):
    """As for an instruct model, whatever the length of the demonstrations."""
    values = lookup(PARAMS, "sft") | {"num_steps": 0}
    sft.train(sft.SftConfig.model_validate(values), Bench(folder, tmp_path))
    assert "the base model is published unchanged" in capsys.readouterr().out
    base, published = folder / "models/base", tmp_path / "models/sft"
    assert (published / "model.safetensors").read_bytes() == (base / "model.safetensors").read_bytes()
