"""Only the named parameters move, members are compared on the same prompts, and their completions are all there."""

import pytest
import torch
from safetensors.torch import load_file

from tasks.algorithms.evolution_strategies import assign, joined
from tasks.core.files import read_json
from tasks.models.generate import Rollout
from tests.project import POLICIES


def rollout(*lengths):
    """Of as many prompts as lengths, tokens counted up."""
    rows, time = len(lengths), max(lengths)
    mask = (torch.arange(time) < torch.tensor(lengths)[:, None]).long()
    ids = torch.arange(rows * time).view(rows, time) * mask
    return Rollout(torch.ones(rows, 2), torch.ones(rows, 2), ids, mask, -1.0 * mask, 0.5 * mask, torch.tensor(lengths) < 3)


def test_joined_rollouts_keep_every_completion():
    members = [rollout(2, 3), rollout(1, 4)]
    whole = joined(members)
    assert whole.completions() == [ids for member in members for ids in member.completions()]
    assert whole.lengths.tolist() == [2, 3, 1, 4]
    assert whole.completion_ids.shape == whole.logprobs.shape == whole.entropy.shape == (4, 4)
    assert (whole.logprobs * (1 - whole.completion_mask)).eq(0).all()
    assert whole.finished.tolist() == [True, False, True, False]
    assert whole.prompt_ids.shape == (4, 2)


def test_parameters_are_assigned_from_one_vector():
    layer = torch.nn.Linear(2, 3)
    assign(list(layer.parameters()), torch.arange(9.0))
    assert layer.weight.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert layer.bias.tolist() == [6, 7, 8]


def test_only_the_named_parameters_move(project):
    before = load_file(project.folder / "models/sft/model.safetensors")
    after = load_file(project.folder / "models/policy/evolution_strategies-0/model.safetensors")
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {name for name in before if POLICIES["evolution_strategies"]["perturbed"] in name}
    assert 0 < len(moved) < len(before)


def test_the_fitness_is_the_mean_score_of_the_population(project):
    history = read_json(project.folder / "reports/policy/evolution_strategies-0/history.json")
    for row in history:
        assert row["policy/fitness_mean"] == pytest.approx(row["rollout/score_mean"], abs=1e-5)  # kl_coef is 0 there
        assert row["policy/fitness_std"] > 0


def test_equally_fit_members_leave_the_policy_where_it_was(project, tmp_path):
    """Noise too small to change a single token: every pair is tied, the gradient is zero, weight decay is all that acts."""
    again = project.copy(tmp_path / "project")
    again.set("policy.evolution_strategies", sigma=1.0e-9, num_steps=2)
    again.set("reward", weights={"verifier": 1.0})
    assert again.run("policy@evolution_strategies-0").code == 0
    history = read_json(again.folder / "reports/policy/evolution_strategies-0/history.json")
    assert [row["policy/tied_pairs"] for row in history] == [1.0, 1.0]
    assert [row["train/grad_norm"] for row in history] == [0.0, 0.0]
    before = load_file(again.folder / "models/sft/model.safetensors")
    after = load_file(again.folder / "models/policy/evolution_strategies-0/model.safetensors")
    assert max((before[name] - after[name]).abs().max().item() for name in before) < 0.01


def test_a_kl_in_the_fitness_is_paid_for(project, tmp_path):
    again = project.copy(tmp_path / "project")
    again.set("policy.evolution_strategies", kl_coef=0.5, num_steps=3)
    assert again.run("policy@evolution_strategies-0").code == 0
    for row in read_json(again.folder / "reports/policy/evolution_strategies-0/history.json"):
        expected = row["rollout/score_mean"] - 0.5 * row["rollout/kl_mean"]
        assert row["policy/fitness_mean"] == pytest.approx(expected, abs=1e-5)
        assert abs(row["rollout/kl_mean"]) > 1e-3  # or nothing was to pay
