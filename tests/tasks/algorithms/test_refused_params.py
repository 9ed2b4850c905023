"""Numbers that do not fit each other are refused when params.yaml is read, in a sentence; test_refusals has real stages."""

import importlib
from copy import deepcopy

import pytest

from tasks.core.config import Config
from tasks.core.errors import InputError
from tests.project import PARAMS, write_params


@pytest.mark.parametrize(("namespace", "values", "says"), [
    ("policy.ppo", {"group_size": 5}, "rollout_batch_size (32) must be a multiple of group_size (5)"),
    ("policy.ppo", {"batch_size": 24}, "rollout_batch_size (32) must be a multiple of batch_size (24)"),
    ("policy.ppo", {"micro_batch_size": 6}, "batch_size (16) must be a multiple of micro_batch_size (6)"),
    ("policy.ppo", {"kl_estimator": "k3"}, "with this method it is always k1"),
    ("policy.ppo_max", {"batch_size": 24}, "rollout_batch_size (32) must be a multiple of batch_size (24)"),
    ("policy.ppo_max", {"critic_warmup_steps": 15}, "(15) must be below num_steps (15)"),
    ("policy.ppo_max", {"critic": "base"}, "`policy.ppo_max.critic` is 'base'"),
    ("policy.ppo_max", {"clip_range": 0.0}, "`policy.ppo_max.clip_range` is 0.0"),
    ("policy.grpo", {"group_size": 1}, "at least 2 completions"),
    ("policy.grpo", {"batch_size": 24}, "rollout_batch_size (32) must be a multiple of batch_size (24)"),
    ("policy.grpo", {"micro_batch_size": 5}, "must be a multiple of micro_batch_size (5)"),
    ("policy.grpo", {"surrogate": "cispo", "max_ratio": 2.0}, "set max_ratio to null"),
    ("policy.grpo", {"surrogate": "cispo", "importance_level": "sequence_mean"}, "importance_level to token"),
    ("policy.grpo", {"overlong_penalty_tokens": -1}, "`policy.grpo.overlong_penalty_tokens` is -1"),
    ("policy.grpo", {"max_ratio": 1.1}, "max_ratio (1.1) must be above 1 + clip_range_high"),
    ("policy.rloo", {"group_size": 1}, "at least 2 completions"),
    ("policy.rloo", {"batch_size": 24}, "rollout_batch_size (32) must be a multiple of batch_size (24)"),
    ("policy.rloo", {"importance_level": "token"}, "with this method it is always sequence_sum"),
    ("policy.reinforce", {"group_size": 5}, "must be a multiple of group_size (5)"),
    ("policy.reinforce", {"micro_batch_size": 5}, "must be a multiple of micro_batch_size (5)"),
    ("policy.reinforce", {"kl_in": "loss"}, "`policy.reinforce.kl_in` is no choice"),
    ("policy.reinforce_baseline", {"baseline_decay": 1.0}, "less than 1"),
    ("policy.grpo", {"kl_estimator": "k4"}, "'k1', 'k2' or 'k3'"),
    ("policy.grpo", {"kl_estimator": "k1"}, "kl_estimator k1 has no gradient in a loss"),
    ("policy.grpo", {"reduction": "mean"}, "`policy.grpo.reduction` is 'mean'"),
    ("policy.grpo", {"std_ep": 0.1}, "unknown key `policy.grpo.std_ep`; did you mean `std_eps`?"),
    ("policy.dpo", {"beta": -0.1}, "`policy.dpo.beta` is -0.1; it should be greater than 0"),
    ("policy.dpo_positive", {"penalty_in": "reward"}, "'margin' or 'loss'"),
    ("policy.dpo_positive", {"penalty_coef": -1.0}, "`policy.dpo_positive.penalty_coef` is -1.0"),
    ("policy.ipo", {"beta": 0.0}, "`policy.ipo.beta` is 0.0; it should be greater than 0"),
    ("policy.orpo", {"beta": 0.1}, "unknown key `policy.orpo.beta`"),
    ("policy.kto", {"batch_size": 1}, "a completion that belongs to another prompt"),
    ("policy.raft", {"group_size": 1}, "at least 2 completions to choose from"),
    ("policy.rrhf", {"group_size": 1}, "at least 2 completions to rank"),
    ("policy.rrhf", {"group_size": 8, "micro_batch_size": 4}, "micro_batch_size (4) must be a multiple of"),
    ("policy.ilql", {"tau": 1.0}, "`policy.ilql.tau` is 1.0; it should be less than 1"),
    ("policy.ilql", {"polyak_rate": 0.0}, "`policy.ilql.polyak_rate` is 0.0; it should be greater than 0"),
    ("policy.evolution_strategies", {"population_size": 5}, "(5): it must be even"),
    ("policy.evolution_strategies", {"population_size": 10}, "of population_size (10)"),
    ("policy.dno", {"group_size": 1}, "at least 2 completions"),
    ("policy.dno", {"rollout_batch_size": 30}, "must be a multiple of group_size (4)"),
    ("policy.dagger", {"batch_size": 64}, "(64) must be at most rollout_batch_size (32)"),
    ("policy.dagger", {"group_size": 5}, "must be a multiple of group_size (5)"),
    ("policy.gail", {"expert": "solve"}, "'demonstrations' or 'solver'"),
    ("policy.gail", {"group_size": 1}, "at least 2 completions"),
    ("policy.gail", {"micro_batch_size": 5}, "must be a multiple of micro_batch_size (5)"),
    ("policy.gail", {"discriminator_batch_size": 64}, "(64) must be at most rollout_batch_size (32)"),
    ("policy.maxent_irl", {"group_size": 1}, "at least 2 completions"),
    ("policy.maxent_irl", {"reward_batch_size": 3}, "(8) must be a multiple of reward_batch_size (3)"),
    ("policy.maxent_irl", {"weight_temperature": 0.0}, "`policy.maxent_irl.weight_temperature` is 0.0"),
    ("base_model", {"num_attention_heads": 3}, "num_attention_heads"),
])  # fmt: skip
def test_the_config_says_what_is_wrong(tmp_path, namespace, values, says):
    params = deepcopy(PARAMS)
    *above, name = namespace.split(".")
    (params[above[0]] if above else params)[name].update(values)
    write_params(tmp_path, params)
    with pytest.raises(InputError) as refused:
        config_of(namespace).load(tmp_path / "params.yaml")
    assert says in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


def test_the_toy_params_are_accepted(tmp_path):
    write_params(tmp_path, PARAMS)
    for namespace in ("base_model", "sft", *(f"policy.{algorithm}" for algorithm in PARAMS["policy"]["algorithms"])):
        assert config_of(namespace).load(tmp_path / "params.yaml").namespace == namespace


def config_of(namespace: str) -> type[Config]:
    """The class that the stage of this namespace reads."""
    module = importlib.import_module(f"tasks.algorithms.{namespace.rpartition('.')[2]}")
    [config] = [one for one in vars(module).values() if isinstance(one, type) and vars(one).get("namespace") == namespace]
    return config
