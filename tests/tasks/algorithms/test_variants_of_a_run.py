"""What must not change a policy, what must, and what the metrics say of it."""

import math

import pytest
import torch
from safetensors.torch import load_file

from tasks.core.files import read_json, read_table, write_table


@pytest.fixture
def again(project, tmp_path):
    return project.copy(tmp_path / "project")


def train(project, algorithm, seed=0, **params):
    """Weights and history after training with these params."""
    project.set(f"policy.{algorithm}", **params)
    done = project.nursery.run(project.folder, f"tasks.algorithms.{algorithm} --seed {seed}")
    assert done.code == 0, done.stderr
    weights = load_file(project.folder / f"models/policy/{algorithm}-{seed}/model.safetensors")
    return weights, read_json(project.folder / f"reports/policy/{algorithm}-{seed}/history.json")


def largest_gap(first, second):
    return max((first[name] - second[name]).abs().max().item() for name in first)


@pytest.mark.parametrize(("algorithm", "params"), [
    ("grpo", {"num_steps": 2}),
    ("grpo", {"num_steps": 2, "reduction": "sequence_mean"}),
    ("ppo", {"num_steps": 2, "batch_size": 32}),
])  # fmt: skip
def test_micro_batches_change_nothing_but_the_memory(again, algorithm, params):
    whole, _ = train(again, algorithm, micro_batch_size=32, **params)
    parts, _ = train(again, algorithm, micro_batch_size=4, **params)
    assert largest_gap(whole, parts) < 2e-4
    assert largest_gap(whole, load_file(again.folder / "models/sft/model.safetensors")) > 1e-3


def test_another_seed_is_another_policy(again):
    first, _ = train(again, "dpo", seed=1, num_steps=3)
    second, _ = train(again, "dpo", seed=2, num_steps=3)
    assert 1e-6 < largest_gap(first, second) < 0.1


def test_on_policy_the_ratio_is_one(again, project):
    """One update per rollout never leaves the policy that sampled; several do, and the metrics show it."""
    _, history = train(again, "ppo", num_steps=4, num_epochs=1, batch_size=32, micro_batch_size=32)
    assert [row["policy/clip_fraction"] for row in history] == [0.0] * 4
    assert [row["policy/approx_kl"] for row in history] == pytest.approx([0.0] * 4, abs=1e-6)
    reused = read_json(project.folder / "reports/policy/ppo-0/history.json")
    assert max(row["policy/approx_kl"] for row in reused) > 1e-3


def test_a_stronger_pull_keeps_the_policy_nearer(again):
    for algorithm in ("ppo", "grpo"):
        histories = [train(again, algorithm, num_steps=10, kl_coef=kl_coef)[1] for kl_coef in (0.0, 2.0)]
        loose, tight = (sum(row["rollout/kl_mean"] for row in history[-4:]) / 4 for history in histories)
        assert tight < 0.5 * loose


def test_a_reward_is_what_its_weights_say(again):
    again.set("reward", weights={"verifier": 2.0, "reward_model": 0.5})
    _, history = train(again, "grpo", num_steps=2)
    for row in history:
        expected = 2.0 * row["rollout/verifier_mean"] + 0.5 * row["rollout/reward_model_mean"]
        assert row["rollout/score_mean"] == pytest.approx(expected, abs=1e-5)
    assert torch.isfinite(torch.tensor([row["loss/policy"] for row in history])).all()


def test_where_all_scores_are_equal_rrhf_has_nothing_to_rank(again):
    again.set("reward", weights={"sentiment": 1.0})
    again.set("reward.functions", sentiment={"positive": ["glad"], "negative": ["sad"]})  # no completion has these
    _, history = train(again, "rrhf", num_steps=2)
    assert [row["rollout/score_std"] for row in history] == [0.0, 0.0]
    assert [row["loss/ranking"] for row in history] == [row["train/misranked"] for row in history] == [0.0, 0.0]
    assert all(row["loss/nll"] > 0 for row in history)


@pytest.mark.parametrize("algorithm", ["dpo", "dpo_positive", "ipo", "orpo", "kto"])
def test_empty_completions_are_completions(again, algorithm):
    """Nothing but end-of-text, on either side of a pair or on both."""
    path = again.folder / "data/preferences.parquet"
    sides = [(), ("chosen",), ("rejected",), ("chosen", "rejected")]
    rows = [row | dict.fromkeys(sides[number % 4], "") for number, row in enumerate(read_table(path))]
    write_table(path, rows)
    weights, history = train(again, algorithm, num_steps=3)
    assert all(torch.isfinite(tensor).all() for tensor in weights.values())
    assert all(math.isfinite(value) for row in history for value in row.values())
    assert largest_gap(weights, load_file(again.folder / "models/sft/model.safetensors")) > 1e-6
