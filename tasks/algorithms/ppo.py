"""PPO: clipped policy updates on data that is reused, with a value function as baseline.

    R_t = −kl_coef · log(π/π_ref)(y_t), plus the score at the last token
    Â   = GAE(R, V), whitened
    minimize  −min(ρ Â, clip(ρ, 1−ε, 1+ε) Â) + value_coef · ½ max((V−R̂)², (clip(V, V_old ± ε_v) − R̂)²)
              − entropy_coef · H(π)                                                                        per token

With adaptive_kl_target, kl_coef is where the weight of the KL starts; it then follows the KL of the rollouts (Ziegler et al.
2019). With stop_approx_kl, no further epoch is made of a rollout once the last update's policy/approx_kl was above it.

With entropy_coef above 0, a policy is paid for the entropy H of its choice of each completion token, so that it does not stop
exploring too early (Mnih et al. 2016, section 4; Schulman et al. 2017, equation 9).

Schulman et al. 2017 and 2016; with KL in the reward as in Ziegler et al. 2019 and Ouyang et al. 2022.

How this differs from Ouyang et al.
  - The value function is a second head on the policy's last hidden state, which starts at zero, not a copy of the reward
    model (that is ppo_max.py). It has a learning rate and an optimizer of its own, so that its gradient takes no part in the
    clip of the policy's; its gradient also reaches the shared trunk, scaled by value_coef.
  - With one linear head on the policy's trunk the value function explains little of the variance of the scores on the default:
    value/explained_variance shows how much. For a critic that explains more see ppo_max.py.
  - group_size completions share a prompt, which saves reading the prompt; the advantage does not use the group.
  - The first epoch's old log-probabilities are those the sampler returned.

Metrics: those of tasks/training/monitor.py, and
  loss/policy, loss/value   the two terms above (the second before value_coef), mean over the updates of the step
  loss/entropy              H, before −entropy_coef, where that is above 0: here more is more exploration, not a worse fit
  policy/approx_kl          KL(π_old‖π) before each update, mean over them, estimator k3, in nats per token
  policy/clip_fraction      share of tokens whose ratio left [1−ε, 1+ε]
  value/explained_variance  1 − var(G − V)/var(G), G the sum of the rewards still to come and V from before the update: 0 for a
                            useless value function, 1 for a perfect one. (R̂ in place of G would hold V itself and flatter it.)
  policy/kl_coef            weight of the KL in the reward, where it is adaptive
  train/grad_norm           norm of the gradient of the last update, before clipping
"""

from typing import ClassVar, Literal, Self

import torch
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from tasks.core import seeds
from tasks.core.config import Config, check_divides
from tasks.core.run import run
from tasks.core.stage import Stage
from tasks.models.architecture import width
from tasks.models.compute import check_head
from tasks.models.generate import sample
from tasks.models.language import save_model
from tasks.models.optimizer import Optimizer
from tasks.models.policy import open_policy
from tasks.models.text import TaskConfig
from tasks.rewards.scorer import load_scorer
from tasks.rl.advantages import explained_variance, gae
from tasks.rl.kl import KlCoefficient, kl_estimate
from tasks.rl.logprobs import completion_entropy, completion_logprobs_and_hidden
from tasks.rl.masking import reduce_tokens, whiten
from tasks.rl.policy_losses import clip_fraction, clipped_policy_loss, clipped_value_loss
from tasks.training.monitor import Monitor, Scored, reference_logprobs
from tasks.training.prompts import load_prompts


class PpoConfig(Config):
    """params.yaml: policy.ppo"""

    namespace = "policy.ppo"
    kl_in: ClassVar[str] = "reward"
    kl_estimator: ClassVar[str] = "k1"

    num_steps: PositiveInt
    rollout_batch_size: PositiveInt  # completions per step
    group_size: PositiveInt  # completions per prompt
    num_epochs: PositiveInt  # passes over a rollout, at most
    stop_approx_kl: PositiveFloat | None  # nats per token from which no further pass is made; null: all are
    batch_size: PositiveInt  # completions per optimizer step
    micro_batch_size: PositiveInt  # completions per backward pass
    learning_rate: PositiveFloat
    value_learning_rate: PositiveFloat  # of the value head alone
    temperature: PositiveFloat
    kl_coef: NonNegativeFloat
    adaptive_kl_target: PositiveFloat | None  # nats per completion; null: kl_coef is fixed
    reduction: Literal["token_mean", "sequence_mean", "sequence_sum"]
    clip_range: PositiveFloat
    value_coef: PositiveFloat
    value_clip_range: PositiveFloat
    entropy_coef: NonNegativeFloat
    gamma: PositiveFloat
    gae_lambda: NonNegativeFloat
    missing_eos_penalty: NonNegativeFloat

    @model_validator(mode="after")
    def _sizes(self) -> Self:
        check_divides("group_size", self.group_size, "rollout_batch_size", self.rollout_batch_size)
        check_divides("batch_size", self.batch_size, "rollout_batch_size", self.rollout_batch_size)
        check_divides("micro_batch_size", self.micro_batch_size, "batch_size", self.batch_size)
        if self.adaptive_kl_target and not self.kl_coef:
            raise ValueError("kl_coef (0) cannot be adapted: with adaptive_kl_target, start it above 0")
        return self


def train(config: PpoConfig, stage: Stage) -> None:
    task = stage.params(TaskConfig)
    policy, reference, tokenizer, optimizer = open_policy(stage, stage.dep("models/sft"))
    if config.entropy_coef:
        check_head(policy, "policy.ppo.entropy_coef", "0.0")
    value_head = torch.nn.Linear(width(policy), 1, device=stage.device)
    torch.nn.init.zeros_(value_head.weight)
    torch.nn.init.zeros_(value_head.bias)
    scorer = load_scorer(stage, tokenizer, task)
    monitor = Monitor(stage, scorer, tokenizer)
    prompts = load_prompts(stage, tokenizer, "train")
    value_optimizer = Optimizer(value_head.parameters(), optimizer.settings)
    kl_coefficient = KlCoefficient(config.kl_coef, config.adaptive_kl_target)
    stage.resume(
        policy=policy, value_head=value_head, kl_coefficient=kl_coefficient,
        optimizer=optimizer, value_optimizer=value_optimizer,
    )  # fmt: skip

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

        ref_logprobs, values = reference_logprobs(reference, rollout, config.temperature), torch.zeros_like(rollout.logprobs)
        with torch.no_grad():
            for rows, micro in rollout.micro_batches(config.micro_batch_size):
                _, states = completion_logprobs_and_hidden(policy, micro, config.temperature)
                values[rows, : micro.time] = value_head(states).squeeze(-1)
        kl, kl_coef = kl_estimate(rollout.logprobs, ref_logprobs, config.kl_estimator) * mask, float(kl_coefficient.coef)
        kl_coefficient.adapt(kl.sum(1).mean())
        rewards = -kl_coef * kl
        last_token = rollout.lengths - 1
        rewards[torch.arange(len(rollout)), last_token] += scores - config.missing_eos_penalty * ~rollout.finished
        advantages, returns = gae(rewards, values, mask, config.gamma, config.gae_lambda)
        advantages = whiten(advantages, mask)

        updates = []
        for epoch in range(config.num_epochs):
            shuffled = torch.randperm(len(rollout), generator=seeds.generator(stage.seed, "epoch", step, epoch))
            for batch_rows in shuffled.to(stage.device).split(config.batch_size):
                update, full_mask = torch.zeros(5, device=stage.device), mask[batch_rows]
                for indices, micro in rollout.select(batch_rows).micro_batches(config.micro_batch_size):
                    rows, time = batch_rows[indices], micro.time
                    logprobs, states = completion_logprobs_and_hidden(policy, micro, config.temperature)
                    new_values = value_head(states).squeeze(-1)
                    policy_loss = reduce_tokens(
                        clipped_policy_loss(logprobs, micro.logprobs, advantages[rows, :time], config.clip_range),
                        micro.completion_mask, config.reduction, full_mask,
                    )  # fmt: skip
                    value_loss = reduce_tokens(
                        clipped_value_loss(new_values, values[rows, :time], returns[rows, :time], config.value_clip_range),
                        micro.completion_mask, config.reduction, full_mask,
                    )  # fmt: skip
                    entropy = torch.zeros_like(policy_loss)
                    if config.entropy_coef:
                        entropies = completion_entropy(policy, states, config.temperature)
                        entropy = reduce_tokens(entropies, micro.completion_mask, config.reduction, full_mask)
                    (policy_loss + config.value_coef * value_loss - config.entropy_coef * entropy).backward()
                    with torch.no_grad():
                        approx_kl = kl_estimate(micro.logprobs, logprobs, "k3")
                        clipped = clip_fraction(logprobs, micro.logprobs, config.clip_range)
                        approx_kl = reduce_tokens(approx_kl, micro.completion_mask, "token_mean", full_mask)
                        clipped = reduce_tokens(clipped, micro.completion_mask, "token_mean", full_mask)
                        update += torch.stack([policy_loss, value_loss, approx_kl, clipped, entropy])
                grad_norm = optimizer.constant_step(step, config.learning_rate)
                value_optimizer.constant_step(step, config.value_learning_rate)
                updates.append(update)
            if config.stop_approx_kl and updates[-1][2] > config.stop_approx_kl:
                break

        policy_loss_mean, value_loss_mean, approx_kl, clipped, entropy_mean = torch.stack(updates).mean(0)
        _, outcomes = gae(rewards, torch.zeros_like(values), mask, config.gamma, gae_lambda=1.0)
        alarmed = monitor.log(step, Scored(rollout, ref_logprobs, scores, components), {
            "loss/policy": policy_loss_mean,
            "loss/value": value_loss_mean,
            "policy/approx_kl": approx_kl,
            "policy/clip_fraction": clipped,
            "value/explained_variance": explained_variance(values, outcomes, mask),
            "train/grad_norm": grad_norm,
            **({"policy/kl_coef": kl_coef} if config.adaptive_kl_target else {}),
            **({"loss/entropy": entropy_mean} if config.entropy_coef else {}),
        })  # fmt: skip
        if alarmed:
            break

    save_model(policy, tokenizer, stage.out(f"models/policy/{stage.variant}"))
    stage.report(f"reports/policy/{stage.variant}")


if __name__ == "__main__":
    run(PpoConfig, train)
