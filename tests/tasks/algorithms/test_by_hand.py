"""What a step makes of its batch, against numbers that are computed one completion at a time, without padding."""

import pytest
import torch

from tasks.algorithms import kto, rloo
from tasks.core import seeds
from tasks.core.config import lookup
from tasks.models.language import load_policy
from tasks.models.optimizer import Optimizer, OptimizerConfig
from tests.project import PARAMS
from tests.tasks.algorithms.bench import Bench


def apart(stage, random_models):
    """What open_policy gives, but of a reference that is not the policy."""
    policy, tokenizer = load_policy(random_models, "cpu")
    reference, _ = load_policy(random_models, "cpu")
    chance = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter -= 0.05 * torch.randn(parameter.shape, generator=chance)
    return policy, reference.requires_grad_(False), tokenizer, Optimizer(policy.parameters(), stage.params(OptimizerConfig))


@torch.no_grad()
def logprob(model, prompt, completion):
    """Σ log π of one completion, alone."""
    logits = model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
    return logits.log_softmax(-1)[range(len(completion)), completion].sum().item()


def test_the_baseline_of_kto_is_that_of_completions_under_prompts_of_others(random_models, tmp_path, monkeypatch):
    """z₀ of the first batch: its 2 · 16 completions, moved on by 8 rows, each under the prompt of another."""
    monkeypatch.setattr(kto, "open_policy", apart)
    seen = []
    monkeypatch.setattr(kto, "load_pairs", lambda *given, load=kto.load_pairs: seen.append(load(*given)) or seen[0])
    bench = Bench(random_models, tmp_path)
    policy, reference, *_ = apart(bench, random_models / "models/sft")
    kto.train(kto.KtoConfig.model_validate(lookup(PARAMS, "policy.kto") | {"num_steps": 1}), bench)
    [pairs] = seen
    indices = next(seeds.batches(len(pairs), 16, bench.seed, 0, pairs.lengths))
    prompts = [pairs.prompts[i] for i in indices] * 2
    completions = [pairs.chosen[i] for i in indices] + [pairs.rejected[i] for i in indices]
    moved = completions[-8:] + completions[:-8]
    logratios = [logprob(policy, x, y) - logprob(reference, x, y) for x, y in zip(prompts, moved, strict=True)]
    assert sum(logratios) > 0  # else z₀ is 0 whatever it is made of
    assert bench.history[0]["train/kl_baseline"] == pytest.approx(sum(logratios) / len(logratios), abs=1e-4)


def test_the_kl_in_rloos_reward_ends_with_the_completion(random_models, tmp_path, monkeypatch):
    """Completions of unequal length in one batch: each pays for its own tokens, not for the padding behind them."""
    monkeypatch.setattr(rloo, "open_policy", apart)
    seen, rewards = [], []
    monkeypatch.setattr(rloo, "Scored", lambda *given, make=rloo.Scored: seen.append(make(*given)) or seen[0])
    advantages = rloo.leave_one_out_advantages
    monkeypatch.setattr(rloo, "leave_one_out_advantages", lambda *given: rewards.append(given[0]) or advantages(*given))
    bench = Bench(random_models, tmp_path)
    policy, reference, *_ = apart(bench, random_models / "models/sft")
    values = {"num_steps": 1, "kl_coef": 1.0, "missing_eos_penalty": 0.0}
    rloo.train(rloo.RlooConfig.model_validate(lookup(PARAMS, "policy.rloo") | values), bench)
    [scored], [reward] = seen, rewards
    rollout = scored.rollout
    assert len(set(rollout.lengths.tolist())) > 1
    asked = zip(rollout.prompts(), rollout.completions(), strict=True)
    kl = [logprob(policy, x, y) - logprob(reference, x, y) for x, y in asked]
    assert (scored.scores - reward).tolist() == pytest.approx(kl, abs=1e-4)
