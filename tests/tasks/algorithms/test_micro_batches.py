"""Micro-batches change nothing but the memory: the weights after three steps are those of whole batches.

In memory, on a random model: no process, no tracker. Tolerance 2e-4 where a step moves a weight by 1e-3: the
additions come in another order,
and AdamW divides by the size of a gradient.
"""

import importlib

import pytest
import torch
from safetensors.torch import load_file

from tasks.algorithms import sft
from tasks.core.config import lookup
from tests.project import PARAMS
from tests.tasks.algorithms.bench import Bench

CONFIGS = {"sft": "SftConfig", "base_model": "BaseModelConfig", "dpo": "DpoConfig", "dpo_positive": "DpoPositiveConfig",
           "ipo": "IpoConfig", "orpo": "OrpoConfig", "kto": "KtoConfig", "raft": "RaftConfig",
           "reward_model": "RewardModelConfig", "judge_model": "JudgeModelConfig", "ilql": "IlqlConfig",
           "dno": "DnoConfig", "dagger": "DaggerConfig"}  # fmt: skip


def losses(history):
    return [{key: value for key, value in row.items() if key.startswith("loss/")} for row in history]


@pytest.mark.parametrize("algorithm", CONFIGS)
def test_micro_batches_change_nothing(random_models, tmp_path, algorithm):
    module = importlib.import_module(f"tasks.algorithms.{algorithm}")
    config_class = getattr(module, CONFIGS[algorithm])
    values = lookup(PARAMS, config_class.namespace) | {"learning_rate": 1.0e-3}
    values |= {"num_iterations": 1} if algorithm == "dno" else {"num_steps": 3}  # 3 steps, too
    if algorithm == "dpo_positive":
        values["penalty_coef"] = 0.0  # at the start every Δ is 0, the kink of the penalty, where rounding decides
    weights, histories = [], []
    for size in (None, 4, 1):
        bench = Bench(random_models, tmp_path / str(size))
        module.train(config_class.model_validate(values | {"micro_batch_size": size}), bench)
        weights.append(next(iter(bench.parts.values())).state_dict())
        histories.append(bench.history)
    start = load_file(random_models / "models/sft/model.safetensors")
    assert max((weights[0][name] - start[name]).abs().max() for name in start if name in weights[0]) > 1e-4
    for other, history in zip(weights[1:], histories[1:], strict=True):
        torch.testing.assert_close(other, weights[0], atol=2e-4, rtol=0)
        assert losses(history) == [pytest.approx(row, abs=1e-4) for row in losses(histories[0])]


@pytest.mark.parametrize("algorithm", CONFIGS)
def test_a_micro_batch_that_does_not_divide_is_refused(algorithm):
    config_class = getattr(importlib.import_module(f"tasks.algorithms.{algorithm}"), CONFIGS[algorithm])
    with pytest.raises(ValueError, match=r"must be a multiple of micro_batch_size \(5\)"):
        config_class.model_validate(lookup(PARAMS, config_class.namespace) | {"micro_batch_size": 5})


def test_without_a_step_sft_publishes_the_base_model(random_models, tmp_path, capsys):
    """As for an instruct model, whatever the length of the demonstrations."""
    values = lookup(PARAMS, "sft") | {"num_steps": 0}
    sft.train(sft.SftConfig.model_validate(values), Bench(random_models, tmp_path))
    assert "the base model is published unchanged" in capsys.readouterr().out
    base, published = random_models / "models/base", tmp_path / "models/sft"
    assert (published / "model.safetensors").read_bytes() == (base / "model.safetensors").read_bytes()
