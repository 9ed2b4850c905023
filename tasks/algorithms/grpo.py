"""GRPO: the completions of one prompt are each other's baseline; no value function.

    Â_i = (score_i − mean of the group) / (std of the group + std_eps)
    minimize  −min(ρ Â, clip(ρ, 1−ε_low, 1+ε_high) Â) + kl_coef · KL_k3(π‖π_ref)      per token, ρ = π/π_old

Shao et al. 2024 (DeepSeekMath), equations 3 and 4. Its variants are params:

  clip_range_high    above clip_range_low it is the "clip higher" of DAPO (Yu et al. 2025)
  max_ratio          the unclipped ρ is at most this, also for bad tokens (INTELLECT-2, 2025); null: no bound
  importance_level   token; or sequence_mean: the geometric mean of a completion's ratios, one for all its tokens (GSPO, Zheng
                     et al. 2025, with clip ranges near 3e-4)
  surrogate          clipped: as above; cispo: −sg(clip(ρ, 1−ε_low, 1+ε_high)) Â log π (MiniMax-M1, 2025, with clip_range_low 1)
  reduction          sequence_mean: the paper's; token_mean: DAPO's; max_length_mean: that of Dr. GRPO (Liu et al. 2025)
  std_eps            null: the advantage is not divided by the std (Dr. GRPO)
  drop_equal_groups  true: groups of equal rewards leave the loss and what it is divided by, the KL term included (dynamic
                     sampling of DAPO, which also samples others in their place: that is left out here, so an optimizer step
                     has fewer completions, and a step of the training whose groups are all equal changes nothing)
  overlong_penalty_tokens    a completion's reward falls linearly, by 1 in all, over this many last tokens before
                     task.max_new_tokens (DAPO, equation 13); 0: no penalty
  kl_correction      true: the KL term times ρ, so that its gradient is that of KL(π‖π_ref) (Tang & Munos 2025)

How this differs from the paper
  - One optimizer step per rollout where num_epochs is 1 and batch_size the whole rollout: ρ is then 1 up to rounding, no clip
    ever binds, and the variants of the ratio differ only after the first step on a rollout.
  - The sampler's log-probabilities serve as π_old.
  - std_eps is .2 here, not a tiny constant: with it a group whose completions are nearly equally good teaches little.
  - A group of equal rewards has zero advantage but still feels the KL term, which pulls it back to the reference, unless
    drop_equal_groups is true.

Metrics: those of tasks/training/monitor.py, and
  loss/policy, loss/kl      the two terms above, the second before its coefficient, mean over the updates of the step
  policy/approx_kl          KL(π_old‖π) before each update, mean over them, estimator k3, in nats per token
  policy/clip_fraction      share of tokens whose ratio left [1−ε_low, 1+ε_high]
  policy/zero_std_fraction  share of groups that teach nothing
  train/grad_norm           norm of the gradient of the last update, before clipping
"""

from typing import ClassVar, Literal, Self

import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from tasks.core import seeds
from tasks.core.config import Config, check_divides
from tasks.core.errors import InputError
from tasks.core.run import run
from tasks.core.stage import Stage
from tasks.models.generate import sample
from tasks.models.language import save_model
from tasks.models.policy import open_policy
from tasks.models.text import TaskConfig
from tasks.rewards.scorer import load_scorer
from tasks.rl.advantages import group_advantages, in_equal_group, overlong_penalty
from tasks.rl.kl import kl_estimate
from tasks.rl.logprobs import completion_logprobs
from tasks.rl.masking import reduce_tokens
from tasks.rl.policy_losses import cispo_loss, clipped_ratio_loss, importance_ratio, is_clipped
from tasks.training.monitor import Monitor, Scored, reference_logprobs
from tasks.training.prompts import load_prompts


class GrpoConfig(Config):
    """params.yaml: policy.grpo"""

    namespace = "policy.grpo"
    kl_in: ClassVar[str] = "loss"

    num_steps: PositiveInt
    rollout_batch_size: PositiveInt  # completions per step
    group_size: PositiveInt  # completions per prompt
    num_epochs: PositiveInt  # passes over a rollout
    batch_size: PositiveInt  # completions per optimizer step
    micro_batch_size: PositiveInt  # completions per backward pass
    learning_rate: PositiveFloat
    temperature: PositiveFloat
    kl_coef: NonNegativeFloat
    kl_estimator: Literal["k1", "k2", "k3"]
    kl_correction: bool
    reduction: Literal["token_mean", "sequence_mean", "sequence_sum", "max_length_mean"]
    surrogate: Literal["clipped", "cispo"]
    importance_level: Literal["token", "sequence_mean"]
    clip_range_low: PositiveFloat
    clip_range_high: PositiveFloat
    max_ratio: PositiveFloat | None
    std_eps: NonNegativeFloat | None
    drop_equal_groups: bool
    overlong_penalty_tokens: NonNegativeInt
    missing_eos_penalty: NonNegativeFloat

    @model_validator(mode="after")
    def _sizes(self) -> Self:
        if self.group_size < 2:
            raise ValueError("group_size (1): a group needs at least 2 completions to compare")
        check_divides("group_size", self.group_size, "rollout_batch_size", self.rollout_batch_size)
        check_divides("batch_size", self.batch_size, "rollout_batch_size", self.rollout_batch_size)
        check_divides("micro_batch_size", self.micro_batch_size, "batch_size", self.batch_size)
        return self

    @model_validator(mode="after")
    def _variants(self) -> Self:
        if self.surrogate == "cispo" and (self.max_ratio is not None or self.importance_level != "token"):
            raise ValueError(
                "surrogate cispo clips the weight of each token: set max_ratio to null and importance_level to token"
            )
        if self.max_ratio is not None and self.max_ratio <= 1 + self.clip_range_high:
            raise ValueError(f"max_ratio ({self.max_ratio}) must be above 1 + clip_range_high, or it undoes the clip")
        if self.kl_coef and self.kl_estimator == "k1" and not self.kl_correction:
            raise ValueError("kl_estimator k1 has no gradient in a loss: set kl_correction to true, or kl_estimator to k3")
        return self


def train(config: GrpoConfig, stage: Stage) -> None:
    task = stage.params(TaskConfig)
    if config.overlong_penalty_tokens > task.max_new_tokens:
        raise InputError(
            f"params.yaml: `policy.grpo.overlong_penalty_tokens` ({config.overlong_penalty_tokens}) must be at most "
            f"task.max_new_tokens ({task.max_new_tokens})"
        )
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
        rewards = scores - config.missing_eos_penalty * ~rollout.finished
        rewards = rewards - overlong_penalty(rollout.lengths, task.max_new_tokens, config.overlong_penalty_tokens)
        advantages = group_advantages(rewards, config.group_size, config.std_eps)[:, None]
        dropped = in_equal_group(rewards, config.group_size) & config.drop_equal_groups
        kept = (~dropped).nonzero()[:, 0]

        updates = []
        for epoch in range(config.num_epochs):
            shuffled = torch.randperm(len(kept), generator=seeds.generator(stage.seed, "epoch", step, epoch))
            for batch_rows in kept[shuffled.to(stage.device)].split(config.batch_size):
                update, full_mask, batch = torch.zeros(4, device=stage.device), mask[batch_rows], rollout.select(batch_rows)
                for indices, micro in batch.micro_batches(config.micro_batch_size) if len(kept) else ():
                    rows, time = batch_rows[indices], micro.time
                    logprobs = completion_logprobs(policy, micro, config.temperature)
                    ratio = importance_ratio(logprobs, micro.logprobs, micro.completion_mask, config.importance_level)
                    if config.surrogate == "cispo":
                        losses = cispo_loss(logprobs, ratio, advantages[rows], config.clip_range_low, config.clip_range_high)
                    else:
                        losses = clipped_ratio_loss(
                            ratio, advantages[rows], config.clip_range_low, config.clip_range_high, config.max_ratio
                        )
                    policy_loss = reduce_tokens(losses, micro.completion_mask, config.reduction, full_mask, task.max_new_tokens)
                    kl = kl_estimate(logprobs, ref_logprobs[rows, :time], config.kl_estimator)
                    if config.kl_correction:
                        kl = importance_ratio(logprobs, micro.logprobs, micro.completion_mask, "token") * kl
                    kl = reduce_tokens(kl, micro.completion_mask, config.reduction, full_mask, task.max_new_tokens)
                    (policy_loss + config.kl_coef * kl).backward()
                    with torch.no_grad():
                        approx_kl = kl_estimate(micro.logprobs, logprobs, "k3")
                        clipped = is_clipped(ratio, config.clip_range_low, config.clip_range_high)
                        approx_kl = reduce_tokens(approx_kl, micro.completion_mask, "token_mean", full_mask)
                        clipped = reduce_tokens(clipped, micro.completion_mask, "token_mean", full_mask)
                        update += torch.stack([policy_loss, kl, approx_kl, clipped])
                grad_norm = optimizer.constant_step(step, config.learning_rate)
                updates.append(update)

        policy_loss_mean, kl_mean, approx_kl, clipped = torch.stack(updates).mean(0)
        alarmed = monitor.log(step, Scored(rollout, ref_logprobs, scores, components), {
            "loss/policy": policy_loss_mean,
            "loss/kl": kl_mean,
            "policy/approx_kl": approx_kl,
            "policy/clip_fraction": clipped,
            "policy/zero_std_fraction": (rewards.view(-1, config.group_size).std(1) == 0).float().mean(),
            "train/grad_norm": grad_norm,
        })  # fmt: skip
        if alarmed:
            break

    save_model(policy, tokenizer, stage.out(f"models/policy/{stage.variant}"))
    stage.report(f"reports/policy/{stage.variant}")


if __name__ == "__main__":
    run(GrpoConfig, train)
