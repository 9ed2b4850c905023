"""REINFORCE, RLOO and GRPO as they train: what one step and several make of a ratio, and rewards that say nothing."""

from functools import cache

import pytest
from safetensors.torch import load_file

from tasks.core.files import read_json

SEVERAL_STEPS = {"num_steps": 2, "num_epochs": 2, "batch_size": 16}
VARIANTS = {
    "surrogate": {"surrogate": "cispo"},
    "importance_level": {"importance_level": "sequence_mean"},
    "max_ratio": {"max_ratio": 1.02, "clip_range_high": 0.01},
    "clip_range_high": {"clip_range_high": 0.01},
}


@pytest.fixture
def again(project, tmp_path):
    return project.copy(tmp_path / "project")


def train(project, algorithm, **params):
    """Weights and history after training with these params."""
    project.set(f"policy.{algorithm}", **params)
    done = project.nursery.run(project.folder, f"tasks.algorithms.{algorithm} --seed 0")
    assert done.code == 0, done.stderr
    weights = load_file(project.folder / f"models/policy/{algorithm}-0/model.safetensors")
    return weights, read_json(project.folder / f"reports/policy/{algorithm}-0/history.json")


@pytest.fixture(scope="module")
def trained(project, tmp_path_factory):
    """trained("grpo", num_steps=2): the same; each set of params is trained once for all tests."""

    @cache
    def get(algorithm, params):
        return train(project.copy(tmp_path_factory.mktemp(algorithm) / "project"), algorithm, **dict(params))

    return lambda algorithm, **params: get(algorithm, tuple(sorted(params.items())))


def say_nothing(project):
    """The same score for every completion: ½, for the words to look for never occur."""
    project.set("reward", weights={"sentiment": 1.0})
    project.set("reward.functions", sentiment={"positive": ["never"], "negative": ["nowhere"]})


def largest_gap(first, second):
    return max((first[name] - second[name]).abs().max().item() for name in first)


@pytest.mark.parametrize("variant", ["surrogate", "importance_level", "max_ratio"])
def test_the_variants_of_the_ratio_are_one_method_at_one_step_per_rollout(trained, variant):
    """ρ is 1 there: −Â ∇log π, however it is clipped. With the paper's reduction a ratio of completions is no exception."""
    plain, history = trained("grpo", num_steps=2, reduction="sequence_mean")
    varied, _ = trained("grpo", num_steps=2, reduction="sequence_mean", **VARIANTS[variant])
    assert largest_gap(plain, varied) < 2e-4
    assert [row["policy/clip_fraction"] for row in history] == [0.0] * 2
    assert [row["policy/approx_kl"] for row in history] == pytest.approx([0.0] * 2, abs=1e-6)


@pytest.mark.parametrize("variant", VARIANTS)
def test_with_several_steps_they_part(trained, variant):
    plain, history = trained("grpo", **SEVERAL_STEPS)
    varied, _ = trained("grpo", **SEVERAL_STEPS | VARIANTS[variant])
    assert largest_gap(plain, varied) > 1e-3
    assert min(row["policy/approx_kl"] for row in history) > 1e-4


@pytest.mark.parametrize("params", [{"reduction": "max_length_mean"}, {"kl_correction": True, "kl_coef": 1.0}])
def test_what_counts_at_one_step_too(trained, params):
    """The clip of the gradient's norm is what the scale of a reduction meets; the first step has no KL to correct."""
    plain, _ = trained("grpo", num_steps=3, kl_coef=1.0)
    varied, _ = trained("grpo", num_steps=3, **{"kl_coef": 1.0} | params)
    assert largest_gap(plain, varied) > 1e-4


def test_micro_batches_change_nothing_in_several_steps(trained):
    for algorithm in ("grpo", "rloo"):
        whole, _ = trained(algorithm, **SEVERAL_STEPS)  # its micro_batch_size is 16
        parts, _ = trained(algorithm, micro_batch_size=4, **SEVERAL_STEPS)
        assert largest_gap(whole, parts) < 1e-3


@pytest.mark.parametrize("algorithm", ["grpo", "rloo"])
def test_rewards_that_are_all_equal_teach_nothing(again, algorithm):
    """Not even by rounding: a reduced loss of exactly 0, hence a gradient of 0."""
    say_nothing(again)
    _, history = train(again, algorithm, num_steps=3, kl_coef=0.0, missing_eos_penalty=0.0)
    assert [row["rollout/score_std"] for row in history] == [0.0] * 3
    assert [row["train/grad_norm"] for row in history] == [0.0] * 3
    assert [row["loss/policy"] for row in history] == [0.0] * 3


def test_the_baseline_is_the_mean_reward_of_the_rollouts_before(again):
    """Completions that are cut off pay their penalty; the KL of the first step is 0."""
    again.set("task", max_new_tokens=3)
    _, history = train(again, "reinforce_baseline", num_steps=2, missing_eos_penalty=0.7)
    first, second = history
    assert first["policy/baseline"] == 0.0
    assert first["rollout/eos_rate"] < 1.0
    expected = first["rollout/score_mean"] - 0.7 * (1 - first["rollout/eos_rate"])
    assert second["policy/baseline"] == pytest.approx(expected, abs=1e-4)
    assert second["policy/baseline"] < first["rollout/score_mean"] - 0.1


@pytest.mark.parametrize("algorithm", ["reinforce", "reinforce_baseline", "rloo", "grpo", "ppo"])
def test_a_penalty_for_completions_that_are_cut_off_is_learned_from(again, algorithm):
    """The score says nothing; all that differs is who ended. Where all are cut off, nothing breaks."""
    say_nothing(again)
    again.set("task", max_new_tokens=5)
    _, history = train(again, algorithm, num_steps=15, missing_eos_penalty=1.0, kl_coef=0.0)
    ended = [row["rollout/eos_rate"] for row in history]
    assert sum(ended[-3:]) > sum(ended[:3])
    again.set("task", max_new_tokens=1)
    _, history = train(again, algorithm, num_steps=2)
    assert [row["rollout/eos_rate"] for row in history] == [0.0] * 2
