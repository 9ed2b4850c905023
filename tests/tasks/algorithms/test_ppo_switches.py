"""PPO's adaptive KL coefficient, early stop and entropy bonus; that RAFT is watched at temperature 1. In memory."""

import shutil

import pytest
import torch
from pydantic import ValidationError
from transformers import Gemma2Config, Gemma2ForCausalLM

from tasks.algorithms import ppo, raft
from tasks.core.errors import InputError
from tasks.models.language import save_model
from tasks.models.tokenizer import load_tokenizer
from tasks.rl.kl import KlCoefficient
from tests.project import PARAMS
from tests.tasks.algorithms.bench import Bench

SMALL = PARAMS["policy"]["ppo"] | {"num_steps": 3, "learning_rate": 1.0e-2, "num_epochs": 3}


def trained(random_models, tmp_path, **params):
    bench = Bench(random_models, tmp_path)
    ppo.train(ppo.PpoConfig.model_validate(SMALL | params), bench)
    return bench


def test_the_coefficient_follows_the_kl_by_hand():
    """Twice the target is clipped to +0.2: times 1.02. Half a tenth below it: times 1 - 0.1 * 0.05."""
    found = KlCoefficient(0.5, 2.0)
    found.adapt(torch.tensor(4.0))
    assert float(found.coef) == pytest.approx(0.5 * 1.02)
    found.adapt(torch.tensor(1.9))
    assert float(found.coef) == pytest.approx(0.5 * 1.02 * 0.995)
    fixed = KlCoefficient(0.1, None)
    fixed.adapt(torch.tensor(100.0))
    assert float(fixed.coef) == 0.1
    assert list(found.state_dict()) == ["coef"]  # which a checkpoint keeps


def test_ppo_with_a_target_moves_its_coefficient(random_models, tmp_path):
    near, far = (trained(random_models, tmp_path, adaptive_kl_target=target).history for target in (1e-6, 1e6))
    assert [row["policy/kl_coef"] for row in far] == pytest.approx([0.1 * 0.98**step for step in range(3)])
    assert near[2]["rollout/kl_mean"] > 1e-5
    assert near[2]["policy/kl_coef"] != far[2]["policy/kl_coef"]
    assert all("policy/kl_coef" not in row for row in trained(random_models, tmp_path).history)


def test_ppo_stops_its_epochs(random_models, tmp_path):
    """A bound that is always reached leaves one epoch; one that never is leaves all."""

    def losses(**params):
        return [row["loss/policy"] for row in trained(random_models, tmp_path, **params).history]

    assert losses(stop_approx_kl=1e-12) == losses(num_epochs=1) != losses()
    assert losses(stop_approx_kl=1e9) == losses()


def test_a_bonus_on_the_entropy_keeps_it(random_models, tmp_path):
    """Starting from the same policy, whose entropy the sampler has measured; without a bonus none is computed or logged."""
    paid, plain = (trained(random_models, tmp_path, entropy_coef=coef).history for coef in (1.0, 0.0))
    assert paid[-1]["rollout/entropy"] > plain[-1]["rollout/entropy"] + 0.05
    first = trained(random_models, tmp_path, num_steps=1, num_epochs=1, batch_size=32, entropy_coef=1.0).history[0]
    assert first["loss/entropy"] == pytest.approx(first["rollout/entropy"], abs=1e-5)  # before its coefficient
    assert all("loss/entropy" not in row for row in plain)


def test_a_bonus_on_logits_that_are_capped_after_the_output_layer_is_refused(random_models, tmp_path):
    """They are not what the layer says of the hidden states."""
    tokenizer, capped = load_tokenizer(random_models / "models/tokenizer"), shutil.copytree(random_models, tmp_path / "capped")
    config = Gemma2Config(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2,
        head_dim=8, intermediate_size=32, initializer_range=0.5, final_logit_softcapping=0.5,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    save_model(Gemma2ForCausalLM(config), tokenizer, capped / "models/sft")
    with pytest.raises(InputError, match=r"`policy.ppo.entropy_coef`: Gemma2ForCausalLM does not take .*; write 0.0$"):
        trained(capped, tmp_path, entropy_coef=0.01)
    assert trained(capped, tmp_path, num_steps=1).history[0]["rollout/entropy"] > 0


def test_nothing_to_adapt_is_refused():
    with pytest.raises(ValidationError, match=r"kl_coef \(0\) cannot be adapted: with adaptive_kl_target, start it above 0"):
        ppo.PpoConfig.model_validate(SMALL | {"kl_coef": 0.0, "adaptive_kl_target": 1.0})


def test_raft_is_watched_at_temperature_1(random_models, tmp_path):
    def first(temperature):
        bench = Bench(random_models, tmp_path)
        params = PARAMS["policy"]["raft"] | {"num_steps": 1, "temperature": temperature}
        raft.train(raft.RaftConfig.model_validate(params), bench)
        return bench.history[0]

    cool, warm = first(0.05), first(1.0)
    assert cool["rollout/entropy"] == pytest.approx(warm["rollout/entropy"], rel=0.1)
    assert cool["rollout/kl_mean"] == pytest.approx(0.0, abs=1e-4)
    assert warm["rollout/tokens"] == pytest.approx(32 * warm["rollout/completion_length"], rel=1e-4)
    assert 32 < cool["rollout/tokens"] <= 32 * 8  # of what it trains on
