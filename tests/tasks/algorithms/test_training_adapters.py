"""With an adapter every algorithm trains it alone, resumes to the bit, and writes a plain folder; who cannot, says so."""

import importlib

import pytest
import torch
from safetensors.torch import load_file

from tasks.core.config import lookup
from tasks.core.errors import InputError
from tasks.core.files import digest
from tasks.models.language import load_model
from tests.project import PARAMS
from tests.tasks.algorithms.bench import Bench, KilledError

CONFIGS = {
    "sft": "SftConfig", "reward_model": "RewardModelConfig", "dpo": "DpoConfig", "orpo": "OrpoConfig", "kto": "KtoConfig",
    "raft": "RaftConfig", "rrhf": "RrhfConfig", "ppo": "PpoConfig", "ppo_max": "PpoMaxConfig", "grpo": "GrpoConfig",
    "dno": "DnoConfig", "dagger": "DaggerConfig", "gail": "GailConfig", "maxent_irl": "MaxentIrlConfig",
}  # fmt: skip
LENGTH = {"dno": {"num_iterations": 2, "steps_per_iteration": 2}, "ppo_max": {"num_steps": 4, "critic": "sft"}}
ADAPTER = {"adapter": {"rank": 4, "alpha": 8.0}}


def train(algorithm, bench, **changed):
    module = importlib.import_module(f"tasks.algorithms.{algorithm}")
    config_class = getattr(module, CONFIGS[algorithm])
    values = lookup(PARAMS, config_class.namespace) | LENGTH.get(algorithm, {"num_steps": 4}) | changed
    module.train(config_class.model_validate(values), bench)
    return bench


@pytest.mark.parametrize("algorithm", CONFIGS)
def test_the_adapter_alone_is_trained_and_resumed(random_models, tmp_path, algorithm):
    straight = train(algorithm, Bench(random_models, tmp_path / "straight", ADAPTER))
    with pytest.raises(KilledError):
        train(algorithm, Bench(random_models, tmp_path / "killed", ADAPTER, killed_at=2))
    saved = torch.load(tmp_path / "killed/checkpoint/checkpoint.pt", weights_only=True)["parts"]
    models = [name for name, part in straight.parts.items() if hasattr(part, "trained")]
    assert models
    for name in models:
        assert saved[name].keys() == straight.parts[name].trained
        assert all(".low_rank." in key or key.startswith("score.") for key in saved[name])
    frozen = {name: value for name, value in straight.parts[models[0]].named_parameters() if not value.requires_grad}
    source = dict(load_model(random_models / "models/sft").named_parameters())
    assert frozen
    assert all(torch.equal(value, source[name]) for name, value in frozen.items())

    train(algorithm, Bench(random_models, tmp_path / "killed", ADAPTER))
    assert digest(tmp_path / "killed/models") == digest(tmp_path / "straight/models")
    written = next((tmp_path / "straight/models").rglob("model.safetensors"))
    assert (written.parent / "adapter/adapter_model.safetensors").exists()
    assert load_file(written).keys() - {"score.weight"} == load_file(random_models / "models/sft/model.safetensors").keys()
    trained = straight.parts[models[0]].state_dict()
    assert all(value.abs().max() > 1e-4 for name, value in trained.items() if name.endswith("low_rank.up"))


@pytest.mark.parametrize(
    ("algorithm", "config_class", "reason"),
    [
        ("ilql", "IlqlConfig", "ILQL folds its values into the output layer"),
        ("evolution_strategies", "EvolutionStrategiesConfig", "evolution strategies perturb parameters by name"),
    ],
)
def test_who_trains_no_adapter_says_so(random_models, tmp_path, algorithm, config_class, reason):
    module = importlib.import_module(f"tasks.algorithms.{algorithm}")
    config = getattr(module, config_class)
    with pytest.raises(InputError, match=f"`adapter.rank`: {reason}.*set it to 0"):
        module.train(config.model_validate(lookup(PARAMS, config.namespace)), Bench(random_models, tmp_path, ADAPTER))


def test_a_language_models_head_is_not_adapted(random_models, tmp_path):
    with pytest.raises(InputError, match=r"`adapter.rank`: reward_model.imitation_coef trains the language model's head"):
        train("reward_model", Bench(random_models, tmp_path, ADAPTER), imitation_coef=1.0)


def test_an_adapter_learns(random_models, tmp_path):
    history = train("sft", Bench(random_models, tmp_path, ADAPTER), num_steps=60, learning_rate=2.0e-2).history
    assert history[-1]["loss/nll"] < 0.7 * history[0]["loss/nll"]
