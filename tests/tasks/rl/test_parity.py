"""Losses, gradients and advantages equal those of TRL 1.16 (PPO: 1.12) to 1e-5, on inputs recorded from its own code.

The file's `convention` notes say how TRL normalises; where a case needs something that this project does not have, the case is
named below and left out, and every test counts the cases it saw.
"""

import json

import pytest
import torch
from torch import Tensor

from tasks.rl.advantages import gae, group_advantages, leave_one_out_advantages
from tasks.rl.kl import kl_estimate
from tasks.rl.masking import masked_mean, reduce_tokens, whiten
from tasks.rl.policy_losses import (
    cispo_loss,
    clipped_policy_loss,
    clipped_ratio_loss,
    clipped_value_loss,
    importance_ratio,
)
from tasks.rl.preference_losses import bradley_terry_loss, dpo_loss, ipo_loss

GRPO_REDUCTIONS = {
    "grpo": "sequence_mean", "bnpo": "token_mean", "dapo": "token_mean", "cispo": "token_mean", "dr_grpo": "max_length_mean",
}  # fmt: skip
GRPO_LEVELS = {"token": "token", "sequence": "sequence_mean"}

# TRL's losses on pairs that are no methods of this project: other shapes than the sigmoid, smoothed labels, sigmoid with
# length-averaged Δ, other divergences. `sft` is imitation of the chosen completion, which test_sft covers.
DPO_ELSEWHERE = {
    "hinge", "robust_ls0.1", "exo_pair_ls0.1", "nca_pair", "bco_pair", "sppo_hard", "apo_zero", "apo_down", "discopop", "aot",
    "sigmoid_norm", "sigmoid_forward_kl", "sigmoid_js", "sft",
}  # fmt: skip


@pytest.fixture(scope="module")
def recorded(shared):
    return json.loads((shared / "bench/reference_losses.json").read_text())


def tensors(inputs):
    return {key: torch.tensor(value) for key, value in inputs.items() if isinstance(value, list)}


def same(got: Tensor, expected) -> None:
    torch.testing.assert_close(got.detach(), torch.tensor(expected), atol=1e-5, rtol=1e-5)


def gradients(loss: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss, inputs)


def test_sft(recorded):
    inputs, cases = tensors(recorded["sft"]["inputs"]), recorded["sft"]["cases"]
    whole_batches = {"nll": None, "nll_accumulated_over_40_tokens": torch.ones(1, 40)}
    for name, whole in whole_batches.items():
        logprobs = inputs["logps"].requires_grad_()
        loss = reduce_tokens(-logprobs, inputs["label_mask"], "token_mean", whole)
        same(loss, cases[name]["loss"])
        same(gradients(loss, logprobs)[0], cases[name]["grad"])
    assert whole_batches.keys() | {"dft"} == cases.keys()


def test_reward_model(recorded):
    from tasks.rl.preference_losses import centering_loss

    inputs, cases = tensors(recorded["reward"]["inputs"]), recorded["reward"]["cases"]
    seen = 0
    for name, (center_coef, margin) in {
        "plain": (0.0, 0.0),
        "margin": (0.0, inputs["margin"]),
        "center0.01": (0.01, 0.0),
    }.items():
        scores = inputs["scores"].clone().requires_grad_()
        chosen, rejected = scores.chunk(2)
        loss = (bradley_terry_loss(chosen, rejected, margin) + center_coef * centering_loss(chosen, rejected)).mean()
        same(loss, cases[name]["loss"])
        same(gradients(loss, scores)[0], cases[name]["grad"])
        same((chosen > rejected).float().mean(), cases[name]["accuracy"])
        seen += 1
    assert seen == len(cases) == 3


def test_dpo(recorded):
    inputs, cases = tensors(recorded["dpo"]["inputs"]), recorded["dpo"]["cases"]
    mask, seen = inputs["completion_mask"], 0
    for name in cases.keys() - DPO_ELSEWHERE:
        case = cases[name]
        logprobs = inputs["policy_logps"].clone().requires_grad_()
        logratios = ((logprobs - inputs["ref_logps"]) * mask).sum(1)
        chosen, rejected = logratios.chunk(2)
        beta = case["args"]["beta"]
        if case["loss_type"] == "ipo":
            loss = ipo_loss(*(logratios / mask.sum(1)).chunk(2), beta).mean()
        else:
            loss = dpo_loss(chosen, rejected, beta).mean()
        same(loss, case["loss"])
        same(gradients(loss, logprobs)[0], case["grad"])
        same(beta * (chosen - rejected).mean(), case["margin"])  # of sums, for ipo as well
        same((chosen > rejected).float().mean(), case["accuracy"])
        seen += 1
    assert seen == 3
    assert seen + len(DPO_ELSEWHERE) == len(cases)


def test_group_advantages(recorded):
    inputs, advantages = recorded["grpo"]["inputs"], recorded["grpo"]["advantages"]
    seen = 0
    for rewards in ("rewards", "rewards_flat"):
        ours = group_advantages(torch.tensor(inputs[rewards]), inputs["num_generations"], std_eps=1e-4)
        same(ours, advantages[f"{rewards}/group"])
        seen += 1
    assert seen == 2


def test_grpo(recorded):
    """Every variant: TRL's bound for CISPO is that of the ratio itself, ours its distance from 1; it has no lower one."""
    inputs, cases = tensors(recorded["grpo"]["inputs"]), recorded["grpo"]["cases"]
    advantages = group_advantages(inputs["rewards"], recorded["grpo"]["inputs"]["num_generations"], 1e-4)[:, None]
    mask, max_tokens = inputs["completion_mask"], recorded["grpo"]["inputs"]["max_completion_length"]
    for case in cases.values():
        logprobs, arguments = inputs["logps"].clone().requires_grad_(), case["args"]
        old = logprobs.detach() if arguments["on_policy"] else inputs["old_logps"]
        reduction, low, high = GRPO_REDUCTIONS[arguments["loss_type"]], arguments["epsilon_low"], arguments["epsilon_high"]
        ratio = importance_ratio(logprobs, old, mask, GRPO_LEVELS[arguments["importance_sampling_level"]])
        if arguments["loss_type"] == "cispo":
            losses = cispo_loss(logprobs, ratio, advantages, 1.0, high - 1)
        else:
            losses = clipped_ratio_loss(ratio, advantages, low, high, arguments["delta"])
        kl = kl_estimate(logprobs, inputs["ref_logps"], "k3")
        if arguments["use_bias_correction_kl"]:
            kl = importance_ratio(logprobs, old, mask, "token") * kl
        loss = reduce_tokens(losses, mask, reduction, max_tokens=max_tokens)
        loss = loss + arguments["beta"] * reduce_tokens(kl, mask, reduction, max_tokens=max_tokens)
        same(loss, case["loss"])
        same(gradients(loss, logprobs)[0], case["grad"])
    assert len(cases) == 13


def test_rloo(recorded):
    """Of its options, a clip of the rewards and advantages divided by their std are no part of the method: written out here."""
    inputs, recorded_rloo = tensors(recorded["rloo"]["inputs"]), recorded["rloo"]
    mask, group_size = inputs["completion_mask"], recorded_rloo["inputs"]["num_generations"]
    kl = (kl_estimate(inputs["old_logps"], inputs["ref_logps"], "k1") * mask).sum(1)
    advantages = {}
    for name, case in recorded_rloo["advantages"].items():
        arguments = case["args"]
        scores = inputs["rewards"].clamp(*(arguments["reward_clip_range"] or (None, 9.0)))
        advantages[name] = leave_one_out_advantages(scores - arguments["beta"] * kl, group_size)
        if arguments["normalize_advantages"]:
            advantages[name] = (advantages[name] - advantages[name].mean()) / (advantages[name].std() + 1e-4)
        same(advantages[name], case["advantages"])
    used = advantages[recorded_rloo["inputs"]["advantages_used"]][:, None]
    for case in recorded_rloo["cases"].values():
        logprobs = inputs["logps"].clone().requires_grad_()
        ratio = importance_ratio(logprobs, inputs["old_logps"], mask, "sequence_sum")
        loss = reduce_tokens(clipped_ratio_loss(ratio, used, case["epsilon"], case["epsilon"]), mask, "sequence_mean")
        same(loss, case["loss"])
        same(gradients(loss, logprobs)[0], case["grad"])
    assert len(advantages) == 4
    assert len(recorded_rloo["cases"]) == 2


def test_ppo(recorded):
    """TRL adds the score one past the last token, where its mask for values, returns and the value loss ends too."""
    inputs, cases = tensors(recorded["ppo"]["inputs"]), recorded["ppo"]["cases"]
    rows, width = inputs["old_logps"].shape
    last = inputs["last_token_index"]
    mask = (torch.arange(width) <= last[:, None]).float()
    value_mask = (torch.arange(width) <= last[:, None] + 1).float()
    for case in cases.values():
        arguments = case["args"]
        kl = kl_estimate(inputs["old_logps"], inputs["ref_logps"], arguments["kl_estimator"])
        rewards = -arguments["kl_coef"] * kl * mask
        rewards[torch.arange(rows), (last + 1).clamp(max=width - 1)] += inputs["scores"]
        if arguments["whiten_rewards"]:
            rewards = whiten(rewards, value_mask) + masked_mean(rewards, value_mask) * value_mask
        same(rewards, case["rewards"])
        values = inputs["old_values"] * value_mask
        advantages, returns = gae(rewards, values, value_mask, arguments["gamma"], arguments["lam"])
        advantages = whiten(advantages, mask)
        same(advantages, case["advantages"])
        same(returns, case["returns"])

        logprobs, new_values = inputs["new_logps"].clone().requires_grad_(), inputs["new_values"].clone().requires_grad_()
        policy_losses = clipped_policy_loss(logprobs, inputs["old_logps"], advantages, arguments["cliprange"])
        value_losses = clipped_value_loss(new_values, values, returns, arguments["cliprange_value"])
        policy_loss = reduce_tokens(policy_losses, mask, "token_mean")
        value_loss = reduce_tokens(value_losses, value_mask, "token_mean")
        loss = policy_loss + arguments["vf_coef"] * value_loss
        same(policy_loss, case["pg_loss"])
        same(value_loss, case["vf_loss"])
        same(loss, case["loss"])
        for ours, theirs in zip(gradients(loss, logprobs, new_values), (case["grad"], case["grad_values"]), strict=True):
            same(ours, theirs)
    assert len(cases) == 4
