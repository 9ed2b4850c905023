"""GRPO: the completions of one prompt are each other's baseline; no value function.

    Â_i = (score_i − mean of the group) / (std of the group + std_floor)
    minimize  −min(ρ Â, clip(ρ, 1−ε, 1+ε) Â) + kl_coef · KL_k3(π‖π_ref)      per token, ρ = π/π_old

Shao et al. 2024 (DeepSeekMath), equations 3 and 4.

How this differs from the paper
  - One optimizer step per rollout: ρ is 1 up to rounding, the clip never binds, and the sampler's log-probabilities serve
    as π_old.
  - std_floor is .2 here, not a tiny constant: with it a group whose completions are nearly equally good teaches little.
  - The loss is averaged as `reduction` says; the paper's is sequence_mean.
  - A group of equal scores has zero advantage but still feels the KL term, which pulls it back to the reference.

Metrics: those of tasks/feedback/monitor.py, and
  loss/policy, loss/kl      the two terms above, the second after its coefficient
  policy/zero_std_groups    share of groups that teach nothing
  train/grad_norm           norm of the gradient before clipping to 1
"""

from typing import Literal, Self

import torch
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from tasks.core import seeds
from tasks.core.config import Config, check_divides
from tasks.core.run import run
from tasks.core.stage import Stage
from tasks.feedback.monitor import Monitor, Scored
from tasks.feedback.prompts import load_prompts
from tasks.feedback.rewards import load_scorer
from tasks.models.generate import sample
from tasks.models.language import frozen_copy, load_policy, save_model
from tasks.models.optimizer import adamw, optimizer_step, warmup_constant
from tasks.models.text import TaskConfig
from tasks.rl.advantages import group_advantages
from tasks.rl.kl import kl_estimate
from tasks.rl.logprobs import completion_logprobs
from tasks.rl.masking import reduce_tokens
from tasks.rl.policy_losses import clipped_policy_loss


class GrpoConfig(Config):
    """params.yaml: policy.grpo"""

    namespace = "policy.grpo"

    num_steps: PositiveInt
    rollout_batch_size: PositiveInt  # completions per step
    group_size: PositiveInt  # completions per prompt
    micro_batch_size: PositiveInt  # completions per backward pass
    learning_rate: PositiveFloat
    temperature: PositiveFloat
    kl_coef: NonNegativeFloat
    kl_in: Literal["loss"]
    kl_estimator: Literal["k1", "k2", "k3"]
    reduction: Literal["token_mean", "sequence_mean", "sequence_sum"]
    clip_range: PositiveFloat
    std_floor: NonNegativeFloat
    missing_eos_penalty: NonNegativeFloat

    @model_validator(mode="after")
    def _sizes(self) -> Self:
        if self.group_size < 2:
            raise ValueError("group_size (1): a group needs at least 2 completions to compare")
        check_divides("group_size", self.group_size, "rollout_batch_size", self.rollout_batch_size)
        check_divides("micro_batch_size", self.micro_batch_size, "rollout_batch_size", self.rollout_batch_size)
        return self


def train(config: GrpoConfig, stage: Stage) -> None:
    task = stage.params(TaskConfig)
    policy, tokenizer = load_policy(stage.dep("models/sft"), stage.device)
    reference = frozen_copy(policy)
    scorer = load_scorer(stage, tokenizer, task)
    monitor = Monitor(stage, scorer, tokenizer)
    prompts = load_prompts(stage, tokenizer, "train")
    optimizer = adamw(list(policy.parameters()), config.learning_rate)
    stage.resume(policy=policy, optimizer=optimizer)

    order = seeds.batches(len(prompts), config.rollout_batch_size // config.group_size, stage.seed, stage.start)
    for step in stage.steps(config.num_steps):
        asked = [prompts[i] for i in next(order)]
        rollout = sample(
            policy, tokenizer, [prompt.ids for prompt in asked],
            max_new_tokens=task.max_new_tokens, temperature=config.temperature,
            generator=seeds.generator(stage.seed, "rollout", step), group_size=config.group_size,
        )  # fmt: skip
        scores, components = scorer(rollout, [prompt.answer for prompt in asked for _ in range(config.group_size)])
        rewards = scores - config.missing_eos_penalty * ~rollout.finished
        advantages = group_advantages(rewards, config.group_size, config.std_floor)[:, None]

        losses = torch.zeros(2)
        ref_logprobs = torch.zeros_like(rollout.logprobs)
        for rows, micro in rollout.pieces(config.micro_batch_size):
            with torch.no_grad():
                ref_logprobs[rows, : micro.time] = completion_logprobs(reference, micro, config.temperature)
            logprobs = completion_logprobs(policy, micro, config.temperature)
            policy_loss = reduce_tokens(
                clipped_policy_loss(logprobs, micro.logprobs, advantages[rows], config.clip_range),
                micro.completion_mask, config.reduction, whole=rollout.completion_mask,
            )  # fmt: skip
            kl_loss = config.kl_coef * reduce_tokens(
                kl_estimate(logprobs, ref_logprobs[rows, : micro.time], config.kl_estimator),
                micro.completion_mask, config.reduction, whole=rollout.completion_mask,
            )  # fmt: skip
            (policy_loss + kl_loss).backward()
            losses += torch.tensor([policy_loss.item(), kl_loss.item()])
        grad_norm = optimizer_step(optimizer, warmup_constant(step, config.learning_rate))

        alarmed = monitor.log(step, Scored(rollout, ref_logprobs, scores, components), {
            "loss/policy": losses[0],
            "loss/kl": losses[1],
            "policy/zero_std_groups": (rewards.view(-1, config.group_size).std(1) == 0).float().mean(),
            "train/grad_norm": grad_norm,
        })  # fmt: skip
        if alarmed:
            break

    save_model(policy, tokenizer, stage.out(f"models/policy/{stage.variant}"))
    stage.report(f"reports/policy/{stage.variant}")


if __name__ == "__main__":
    run(GrpoConfig, train)
