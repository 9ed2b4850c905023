"""Two processes learn what one learns: same text, same figures and weights within a tolerance, and among each other the same
bits.

In memory, on a random model, over gloo. Tolerance 2e-4 where a step moves a weight by 1e-3 or more, as for micro-batches.
"""

import importlib
import os

import pytest
import torch
from safetensors.torch import load_file, save_file

from tasks.core.config import lookup
from tasks.core.files import read_json, write_json
from tasks.core.launcher import run_together
from tasks.core.processes import joined
from tests.project import PARAMS
from tests.tasks.algorithms.bench import Bench

CONFIGS = {
    "base_model": "BaseModelConfig", "sft": "SftConfig", "reward_model": "RewardModelConfig", "judge_model": "JudgeModelConfig",
    "ppo": "PpoConfig", "ppo_max": "PpoMaxConfig", "reinforce": "ReinforceConfig",
    "reinforce_baseline": "ReinforceBaselineConfig", "rloo": "RlooConfig", "grpo": "GrpoConfig", "dpo": "DpoConfig",
    "dpo_positive": "DpoPositiveConfig", "ipo": "IpoConfig", "orpo": "OrpoConfig", "kto": "KtoConfig", "raft": "RaftConfig",
    "rrhf": "RrhfConfig", "ilql": "IlqlConfig", "evolution_strategies": "EvolutionStrategiesConfig", "dno": "DnoConfig",
    "dagger": "DaggerConfig", "gail": "GailConfig", "maxent_irl": "MaxentIrlConfig",
}  # fmt: skip
NAMESPACES = {name: name if name in PARAMS else f"policy.{name}" for name in CONFIGS}


def learned(count, algorithm, random_models, written, changed=None):
    """(weights, history) of each process after a short training."""
    module = importlib.import_module(f"tasks.algorithms.{algorithm}")
    params = lookup(PARAMS, NAMESPACES[algorithm]) | ({"critic": "sft"} if algorithm == "ppo_max" else {})
    params |= {"num_iterations": 1} if algorithm == "dno" else {"num_steps": 3}  # 3 steps, too
    config = getattr(module, CONFIGS[algorithm]).model_validate(params)

    def run_one():
        folder = written / os.environ.get("RANK", "0")
        bench = Bench(random_models, folder, changed)
        with joined(count, "cpu"):
            module.train(config, bench)
        weights = next(iter(bench.parts.values())).state_dict()
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: value.clone() for name, value in weights.items()}, folder / "learned.safetensors")
        write_json(folder / "history.json", bench.history)
        return 0

    assert run_together(algorithm, count, run_one) == 0
    folders = [written / str(number) for number in range(count)]
    return [(load_file(folder / "learned.safetensors"), read_json(folder / "history.json")) for folder in folders]


@pytest.mark.parametrize("algorithm", CONFIGS)
def test_two_processes_learn_what_one_learns(random_models, tmp_path, algorithm):
    ((alone, figures),) = learned(1, algorithm, random_models, tmp_path / "1")
    (first, of_first), (second, of_second) = learned(2, algorithm, random_models, tmp_path / "2")
    assert len(figures) == 3
    assert of_first == of_second
    torch.testing.assert_close(first, second, atol=0, rtol=0)
    torch.testing.assert_close(first, alone, atol=2e-4, rtol=0)
    assert of_first == [pytest.approx(row, abs=1e-5, rel=1e-4) for row in figures]


SETTINGS = [
    ("ppo", {"compute": {"logits_at_once": 8, "checkpointing": True}}),
    ("grpo", {"adapter": {"rank": 4}}),
]


@pytest.mark.parametrize(("algorithm", "changed"), SETTINGS, ids=str)
def test_so_they_do_with_other_settings_and_twice(random_models, tmp_path, algorithm, changed):
    ((alone, _),) = learned(1, algorithm, random_models, tmp_path / "1", changed)
    (first, figures), _ = learned(2, algorithm, random_models, tmp_path / "2", changed)
    (again, of_again), _ = learned(2, algorithm, random_models, tmp_path / "again", changed)
    torch.testing.assert_close(first, alone, atol=2e-4, rtol=0)
    torch.testing.assert_close(first, again, atol=0, rtol=0)
    assert figures == of_again
