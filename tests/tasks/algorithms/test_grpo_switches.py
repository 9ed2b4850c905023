"""What DAPO adds to GRPO: groups that are left out, and a price of length. In memory, on a random model."""

import pytest
import torch
from safetensors.torch import load_file

from tasks.algorithms import grpo
from tasks.core.errors import InputError
from tests.project import PARAMS
from tests.tasks.algorithms.bench import Bench


def trained(random_models, tmp_path, changed=None, **params):
    bench = Bench(random_models, tmp_path, changed)
    values = PARAMS["policy"]["grpo"] | {"num_steps": 1, "reduction": "sequence_mean", "kl_coef": 0.0} | params
    grpo.train(grpo.GrpoConfig.model_validate(values), bench)
    return bench.history


def test_dropped_groups_leave_the_mean_over_completions(random_models, tmp_path):
    """They have no advantage: what is left of the sum is divided by fewer, and so is its gradient."""
    [plain], [dropped] = (trained(random_models, tmp_path, drop_equal_groups=drop) for drop in (False, True))
    equal = plain["policy/zero_std_fraction"]
    assert 0 < equal < 1
    assert dropped["policy/zero_std_fraction"] == equal
    assert dropped["train/grad_norm"] == pytest.approx(plain["train/grad_norm"] / (1 - equal), rel=1e-3)


def test_a_rollout_of_equal_groups_changes_nothing(random_models, tmp_path):
    """Its KL term is dropped with it, and no step of the optimizer decays a weight."""
    nobody_is_right = {"task": {"verifier": "exact"}}
    history = trained(
        random_models, tmp_path, nobody_is_right, num_steps=2, num_epochs=2, kl_coef=1.0, missing_eos_penalty=0.0,
        drop_equal_groups=True,
    )  # fmt: skip
    assert [row["policy/zero_std_fraction"] for row in history] == [1.0, 1.0]
    assert [row["train/grad_norm"] for row in history] == [row["loss/policy"] for row in history] == [0.0, 0.0]
    before, after = (
        load_file(path / "model.safetensors") for path in (random_models / "models/sft", tmp_path / "models/policy/any-0")
    )
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_price_of_length_is_taken_off_the_reward(random_models, tmp_path, monkeypatch):
    """The same completions are sampled with it and without; they may have 8 tokens."""
    lengths, rewards = [], []
    sample, advantages = grpo.sample, grpo.group_advantages

    def sampled(*arguments, **options):
        rollout = sample(*arguments, **options)
        lengths.append(rollout.lengths)
        return rollout

    def compared(values, *arguments):
        rewards.append(values)
        return advantages(values, *arguments)

    monkeypatch.setattr(grpo, "sample", sampled)
    monkeypatch.setattr(grpo, "group_advantages", compared)
    for tokens in (0, 4):
        trained(random_models, tmp_path, overlong_penalty_tokens=tokens)
    assert lengths[0].tolist() == lengths[1].tolist()
    assert len(set(lengths[0].tolist())) > 1
    paid = [max(0, length - 4) / 4 for length in lengths[0].tolist()]
    assert (rewards[0] - rewards[1]).tolist() == pytest.approx(paid)


def test_a_price_on_more_tokens_than_there_are_is_refused(random_models, tmp_path):
    with pytest.raises(InputError, match=r"overlong_penalty_tokens` \(9\) must be at most task.max_new_tokens \(8\)$"):
        trained(random_models, tmp_path, overlong_penalty_tokens=9)
