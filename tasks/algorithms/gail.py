"""GAIL: a discriminator tells the expert's completions from the policy's; the policy is paid for deceiving it.

    discriminator: minimize  −log D(x, y_expert) − log(1 − D(x, y_policy)),   D = σ(f)
    policy:        R_i = log D(x, y_i) − kl_coef · Σ_t KL_k1(π‖π_ref),   Â_i = R_i − mean of the other R of the group
                   minimize  −Â Σ_t log π(y_t | x, y_<t)      mean over completions

Ho & Ermon 2016, algorithm 1. f is the SFT model with a linear head on the last token, which starts at zero: D is ½ for
everything at first. The policy's part is one step of RLOO. Where D can tell nothing any more, the policy writes what the expert
writes, in the proportions in which the expert does.

Whom the policy imitates (`expert`)
  solver           the training prompts' right solutions
  demonstrations   those of SFT that answer the default instruction, errors included

What can be gained. SFT has cloned the demonstrations, so the policy gains what SFT cloned badly, as far as D sees it. On an
earlier default D hardly told demonstrations from samples of the SFT model, and its logit did not correlate with the verifier;
it told right solutions from them sooner. Hence the default expert is the solver.

Policy and expert answer the same prompts, so that D has nothing but the completions to go by.

How this differs from the paper
  - A completion is one action, and D judges it whole; there is no reward per token.
  - RLOO instead of TRPO, and the KL to the SFT model in place of the entropy bonus.

Metrics: those of tasks/training/monitor.py on probes, which score by the reward that all algorithms share, and
  loss/discriminator           the first line above, mean over the updates of the step; 2 ln 2 = 1.386 where D knows nothing
  loss/policy                  the surrogate; its value means nothing by itself
  train/discriminator_accuracy share of both kinds that D puts on the right side of ½, mean over the updates, before each
  rollout/log_d_mean           mean log D of what the policy wrote, in nats: what it is paid
  policy/kl                    KL(π‖π_ref) of these completions, estimator k1, in nats
  rollout/tokens               sampled in this step to train on
  train/grad_norm              norm of the policy's gradient before clipping
"""

from typing import ClassVar, Literal, Self

import torch
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from tasks.core import seeds
from tasks.core.config import Config, check_divides
from tasks.core.run import run
from tasks.core.stage import Stage
from tasks.models.adapter import add_adapter
from tasks.models.batch import collate
from tasks.models.compute import ComputeConfig, apply_settings
from tasks.models.generate import sample
from tasks.models.language import save_model
from tasks.models.optimizer import Optimizer
from tasks.models.policy import open_policy
from tasks.models.reward import raw_scores, reward_model_from_policy, scores_in_pieces
from tasks.models.text import TaskConfig
from tasks.rewards.scorer import load_scorer
from tasks.rl.advantages import leave_one_out_advantages
from tasks.rl.imitation_losses import discriminator_loss, imitation_reward
from tasks.rl.kl import kl_estimate
from tasks.rl.logprobs import completion_logprobs
from tasks.rl.masking import reduce_tokens
from tasks.rl.policy_losses import policy_gradient_loss
from tasks.training.demonstrations import load_demonstrations
from tasks.training.monitor import Monitor, Probe, reference_logprobs


class GailConfig(Config):
    """params.yaml: policy.gail"""

    namespace = "policy.gail"
    kl_in: ClassVar[str] = "reward"
    kl_estimator: ClassVar[str] = "k1"
    reduction: ClassVar[str] = "sequence_sum"

    expert: Literal["demonstrations", "solver"]
    num_steps: PositiveInt
    rollout_batch_size: PositiveInt  # completions per step
    group_size: PositiveInt  # completions per prompt
    micro_batch_size: PositiveInt  # completions per backward pass
    learning_rate: PositiveFloat
    temperature: PositiveFloat
    kl_coef: NonNegativeFloat
    discriminator_updates: PositiveInt  # optimizer steps after each rollout
    discriminator_batch_size: PositiveInt  # of the expert's completions, and of the policy's
    discriminator_learning_rate: PositiveFloat

    @model_validator(mode="after")
    def _sizes(self) -> Self:
        if self.group_size < 2:
            raise ValueError("group_size (1): a group needs at least 2 completions to compare")
        check_divides("group_size", self.group_size, "rollout_batch_size", self.rollout_batch_size)
        check_divides("micro_batch_size", self.micro_batch_size, "rollout_batch_size", self.rollout_batch_size)
        if self.discriminator_batch_size > self.rollout_batch_size:
            raise ValueError(
                f"discriminator_batch_size ({self.discriminator_batch_size}) must be at most "
                f"rollout_batch_size ({self.rollout_batch_size}): there are no more samples to show"
            )
        return self


def train(config: GailConfig, stage: Stage) -> None:
    task = stage.params(TaskConfig)
    sft = stage.dep("models/sft")
    policy, reference, tokenizer, optimizer = open_policy(stage, sft)
    discriminator = apply_settings(reward_model_from_policy(sft, stage.device), stage.params(ComputeConfig))
    add_adapter(discriminator, stage, "discriminator")
    monitor = Monitor(stage, load_scorer(stage, tokenizer, task), tokenizer)
    probe = Probe(monitor, reference, task, config.num_steps)
    expert = load_demonstrations(stage, tokenizer, config.expert)
    discriminator_optimizer = Optimizer(discriminator.parameters(), optimizer.settings)
    stage.resume(
        policy=policy, optimizer=optimizer, discriminator=discriminator, discriminator_optimizer=discriminator_optimizer
    )

    order = seeds.batches(len(expert), config.rollout_batch_size // config.group_size, stage.seed, stage.start)
    for step in stage.steps(config.num_steps):
        probed = probe(policy, step)
        rollout = sample(
            policy, tokenizer, [expert[i].prompt for i in next(order)],
            max_new_tokens=task.max_new_tokens, temperature=config.temperature,
            generator=seeds.generator(stage.seed, "rollout", step), group_size=config.group_size,
        )  # fmt: skip
        mask, prompts, written = rollout.completion_mask, rollout.prompts(), rollout.completions()

        told = []
        for update in range(config.discriminator_updates):
            chance = seeds.generator(stage.seed, "discriminator", step, update)
            shown = [expert[i] for i in torch.randperm(len(expert), generator=chance)[: config.discriminator_batch_size]]
            rows = torch.randperm(len(rollout), generator=chance)[: len(shown)].tolist()
            batch = collate(
                [one.prompt for one in shown] + [prompts[i] for i in rows],
                [one.completion for one in shown] + [written[i] for i in rows],
                tokenizer.pad_token_id, stage.device,
            )  # fmt: skip
            of_expert, of_policy = raw_scores(discriminator, batch).chunk(2)
            discriminator_mean = discriminator_loss(of_expert, of_policy).mean()
            discriminator_mean.backward()
            discriminator_optimizer.constant_step(step, config.discriminator_learning_rate)
            right = torch.cat([of_expert > 0, of_policy < 0]).float().mean()
            told.append(torch.stack([discriminator_mean.detach(), right]))

        log_d = imitation_reward(scores_in_pieces(discriminator, rollout))
        ref_logprobs = reference_logprobs(reference, rollout, config.temperature)
        kl = (kl_estimate(rollout.logprobs, ref_logprobs, config.kl_estimator) * mask).sum(1)
        advantages = leave_one_out_advantages(log_d - config.kl_coef * kl, config.group_size)[:, None]

        loss = torch.zeros((), device=stage.device)
        for indices, micro in rollout.micro_batches(config.micro_batch_size):
            losses = policy_gradient_loss(completion_logprobs(policy, micro, config.temperature), advantages[indices])
            policy_loss = reduce_tokens(losses, micro.completion_mask, config.reduction, full_mask=mask)
            policy_loss.backward()
            loss += policy_loss.detach()
        grad_norm = optimizer.constant_step(step, config.learning_rate)

        discriminator_loss_mean, accuracy = torch.stack(told).mean(0)
        alarmed = monitor.log(step, probed, {
            "loss/discriminator": discriminator_loss_mean,
            "loss/policy": loss,
            "train/discriminator_accuracy": accuracy,
            "rollout/log_d_mean": log_d.mean(),
            "policy/kl": ((rollout.logprobs - ref_logprobs) * mask).sum(1).mean(),
            "rollout/tokens": rollout.lengths.sum(),
            "train/grad_norm": grad_norm,
        })  # fmt: skip
        if alarmed:
            break

    save_model(policy, tokenizer, stage.out(f"models/policy/{stage.variant}"))
    stage.report(f"reports/policy/{stage.variant}")


if __name__ == "__main__":
    run(GailConfig, train)
