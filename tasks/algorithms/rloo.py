"""RLOO: REINFORCE, where the other completions of the same prompt are the baseline; no value function.

    R_i = score_i − kl_coef · Σ_t KL_k1(π‖π_ref),   Â_i = R_i − mean of the other R of the group
    minimize  −min(ρ Â, clip(ρ, 1−ε, 1+ε) Â)      per completion, ρ = π/π_old of the whole completion: Π_t of its tokens' ratios

Ahmadian et al. 2024; the baseline is that of Kool et al. 2019. It does not depend on the completion it judges, so it adds no
bias; GRPO's group mean, which holds that completion too, shrinks the gradient to (G − 1)/G, and its division turns it.

How this differs from the paper
  - The clipped ratio, for several optimizer steps per rollout, is that of the TRL library. With one step (num_epochs 1 and
    batch_size the whole rollout) ρ is 1 up to rounding and the gradient is the paper's: −Â Σ_t ∇log π.
  - The sampler's log-probabilities serve as π_old.

Metrics: those of tasks/training/monitor.py, and
  loss/policy               the term above, mean over the updates of the step
  policy/approx_kl          KL(π_old‖π) before each update, mean over them, estimator k3, in nats per token
  policy/clip_fraction      share of completions whose ratio left [1−ε, 1+ε]
  train/grad_norm           norm of the gradient of the last update, before clipping
"""

from typing import ClassVar, Self

import torch
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from tasks.core import seeds
from tasks.core.config import Config, check_divides
from tasks.core.run import run
from tasks.core.stage import Stage
from tasks.models.generate import sample
from tasks.models.language import save_model
from tasks.models.policy import open_policy
from tasks.models.text import TaskConfig
from tasks.rewards.scorer import load_scorer
from tasks.rl.advantages import leave_one_out_advantages
from tasks.rl.kl import kl_estimate
from tasks.rl.logprobs import completion_logprobs
from tasks.rl.masking import reduce_tokens
from tasks.rl.policy_losses import clipped_ratio_loss, importance_ratio, is_clipped
from tasks.training.monitor import Monitor, Scored, reference_logprobs
from tasks.training.prompts import load_prompts


class RlooConfig(Config):
    """params.yaml: policy.rloo"""

    namespace = "policy.rloo"
    kl_in: ClassVar[str] = "reward"
    kl_estimator: ClassVar[str] = "k1"
    reduction: ClassVar[str] = "sequence_mean"
    importance_level: ClassVar[str] = "sequence_sum"

    num_steps: PositiveInt
    rollout_batch_size: PositiveInt  # completions per step
    group_size: PositiveInt  # completions per prompt
    num_epochs: PositiveInt  # passes over a rollout
    batch_size: PositiveInt  # completions per optimizer step
    micro_batch_size: PositiveInt  # completions per backward pass
    learning_rate: PositiveFloat
    temperature: PositiveFloat
    kl_coef: NonNegativeFloat
    clip_range: PositiveFloat
    missing_eos_penalty: NonNegativeFloat

    @model_validator(mode="after")
    def _sizes(self) -> Self:
        if self.group_size < 2:
            raise ValueError("group_size (1): a group needs at least 2 completions to compare")
        check_divides("group_size", self.group_size, "rollout_batch_size", self.rollout_batch_size)
        check_divides("batch_size", self.batch_size, "rollout_batch_size", self.rollout_batch_size)
        check_divides("micro_batch_size", self.micro_batch_size, "batch_size", self.batch_size)
        return self


def train(config: RlooConfig, stage: Stage) -> None:
    task = stage.params(TaskConfig)
    policy, reference, tokenizer, optimizer = open_policy(stage, stage.dep("models/sft"))
    scorer = load_scorer(stage, tokenizer, task)
    monitor = Monitor(stage, scorer, tokenizer)
    prompts = load_prompts(stage, tokenizer, "train")
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
        mask = rollout.completion_mask

        ref_logprobs = reference_logprobs(reference, rollout, config.temperature)
        kl = (kl_estimate(rollout.logprobs, ref_logprobs, config.kl_estimator) * mask).sum(1)
        rewards = scores - config.missing_eos_penalty * ~rollout.finished - config.kl_coef * kl
        advantages = leave_one_out_advantages(rewards, config.group_size)[:, None]

        updates = []
        for epoch in range(config.num_epochs):
            shuffled = torch.randperm(len(rollout), generator=seeds.generator(stage.seed, "epoch", step, epoch))
            for batch_rows in shuffled.to(stage.device).split(config.batch_size):
                update, full_mask = torch.zeros(3, device=stage.device), mask[batch_rows]
                for indices, micro in rollout.select(batch_rows).micro_batches(config.micro_batch_size):
                    rows = batch_rows[indices]
                    logprobs = completion_logprobs(policy, micro, config.temperature)
                    ratio = importance_ratio(logprobs, micro.logprobs, micro.completion_mask, config.importance_level)
                    losses = clipped_ratio_loss(ratio, advantages[rows], config.clip_range, config.clip_range)
                    policy_loss = reduce_tokens(losses, micro.completion_mask, config.reduction, full_mask)
                    policy_loss.backward()
                    with torch.no_grad():
                        approx_kl = kl_estimate(micro.logprobs, logprobs, "k3")
                        clipped = is_clipped(ratio, config.clip_range, config.clip_range)
                        approx_kl = reduce_tokens(approx_kl, micro.completion_mask, "token_mean", full_mask)
                        clipped = reduce_tokens(clipped, micro.completion_mask, "sequence_mean", full_mask)
                        update += torch.stack([policy_loss, approx_kl, clipped])
                grad_norm = optimizer.constant_step(step, config.learning_rate)
                updates.append(update)

        policy_loss_mean, approx_kl, clipped = torch.stack(updates).mean(0)
        alarmed = monitor.log(step, Scored(rollout, ref_logprobs, scores, components), {
            "loss/policy": policy_loss_mean,
            "policy/approx_kl": approx_kl,
            "policy/clip_fraction": clipped,
            "train/grad_norm": grad_norm,
        })  # fmt: skip
        if alarmed:
            break

    save_model(policy, tokenizer, stage.out(f"models/policy/{stage.variant}"))
    stage.report(f"reports/policy/{stage.variant}")


if __name__ == "__main__":
    run(RlooConfig, train)
