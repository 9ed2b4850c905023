"""Maximum-entropy IRL: a reward under which the expert is as likely as can be, and a policy that follows it, in one loop.

    p(y | x) = exp r(x, y) / Z(x),   r = r_θ + log π_ref
    reward:  ∇L = E_expert[∇r] − Σ_j w_j ∇r(y_j) / Σ_j w_j,   w_j = (exp r(y_j) / π(y_j))^(1/weight_temperature)
    policy:  R_i = r_θ(x, y_i) − kl_coef · Σ_t KL_k1(π‖π_ref),   Â_i = R_i − mean of the other R of the group
             minimize  −Â Σ_t log π(y_t | x, y_<t)      mean over completions

Ziebart et al. 2008; by importance sampling from the policy that is being learned, Finn et al. 2016 (guided cost learning),
algorithm 1. The sum over all completions in Z is estimated by those that the policy writes for the same prompt, each weighted
by how much likelier it is under p than under π. r_θ is the SFT model with a linear head on the last token, which starts at
zero. With kl_coef 1 the policy's best answer to r_θ is p itself; less sharpens it.

With an expert who answers by chance (the toy problem of the tests) it changes nothing.

The variance of the weights. With r_θ alone w would be 1/π at the start: the entropy is that of all strings, a sample that is
e²⁰ times rarer than another weighs e²⁰ times as much, and one completion is the whole sum. So r holds log π_ref: entropy is
relative to the SFT model (Boularias et al. 2011), all w are equal at the start, and only π/π_ref and r_θ can part them. What is
left is told by train/effective_sample_size, and weight_temperature above 1 evens it out for a bias.

Whom the policy imitates (`expert`)
  solver           the training prompts' right solutions
  demonstrations   those of SFT that answer the default instruction, errors included; what can be learned from these: gail.py

How this differs from Finn et al.
  - The expert's completion is one of the candidates of its prompt, as in their section 4.3: without it r_θ could rise for
    ever on what the policy never writes. Its density is taken to be that of π.
  - Neither of their two regularizers of the reward; RLOO instead of guided policy search.

Metrics: those of tasks/training/monitor.py on probes, which score by the reward that all algorithms share, and
  loss/irl                     mean over the updates of the expression whose gradient is −∇L; its value means nothing by itself
  loss/policy                  the surrogate; nor does this one
  train/effective_sample_size  (Σ w)² / Σ w² as a share of the candidates, mean over the updates
  train/accuracy               share of prompts where r_θ puts the expert above the mean of the candidates, before each update
  rollout/learned_reward_mean  mean r_θ of what the policy wrote: what it is paid
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
from tasks.rl.imitation_losses import effective_sample_size, importance_weights, maxent_irl_loss
from tasks.rl.kl import kl_estimate
from tasks.rl.logprobs import completion_logprobs
from tasks.rl.masking import reduce_tokens
from tasks.rl.policy_losses import policy_gradient_loss
from tasks.training.demonstrations import load_demonstrations
from tasks.training.monitor import Monitor, Probe, reference_logprobs
from tasks.training.pairs import summed_logprobs


class MaxentIrlConfig(Config):
    """params.yaml: policy.maxent_irl"""

    namespace = "policy.maxent_irl"
    kl_in: ClassVar[str] = "reward"
    kl_estimator: ClassVar[str] = "k1"
    reduction: ClassVar[str] = "sequence_sum"

    expert: Literal["demonstrations", "solver"]
    num_steps: PositiveInt
    rollout_batch_size: PositiveInt  # completions per step
    group_size: PositiveInt  # completions per prompt, to which the expert's comes
    micro_batch_size: PositiveInt  # completions per backward pass
    learning_rate: PositiveFloat
    kl_coef: NonNegativeFloat
    reward_epochs: PositiveInt  # passes over a rollout
    reward_batch_size: PositiveInt  # prompts per optimizer step of the reward, each with all its candidates
    reward_learning_rate: PositiveFloat
    weight_temperature: PositiveFloat

    @model_validator(mode="after")
    def _sizes(self) -> Self:
        if self.group_size < 2:
            raise ValueError("group_size (1): a group needs at least 2 completions to compare")
        check_divides("group_size", self.group_size, "rollout_batch_size", self.rollout_batch_size)
        check_divides("micro_batch_size", self.micro_batch_size, "rollout_batch_size", self.rollout_batch_size)
        prompts = self.rollout_batch_size // self.group_size
        check_divides("reward_batch_size", self.reward_batch_size, "rollout_batch_size / group_size", prompts)
        return self


def train(config: MaxentIrlConfig, stage: Stage) -> None:
    task = stage.params(TaskConfig)
    sft = stage.dep("models/sft")
    policy, reference, tokenizer, optimizer = open_policy(stage, sft)
    reward = apply_settings(reward_model_from_policy(sft, stage.device), stage.params(ComputeConfig))  # r_θ
    add_adapter(reward, stage, "reward")
    monitor = Monitor(stage, load_scorer(stage, tokenizer, task), tokenizer)
    probe = Probe(monitor, reference, task, config.num_steps)
    expert = load_demonstrations(stage, tokenizer, config.expert)
    reward_optimizer = Optimizer(reward.parameters(), optimizer.settings)
    stage.resume(policy=policy, optimizer=optimizer, reward=reward, reward_optimizer=reward_optimizer)

    num_prompts = config.rollout_batch_size // config.group_size
    order = seeds.batches(len(expert), num_prompts, stage.seed, stage.start)
    for step in stage.steps(config.num_steps):
        probed = probe(policy, step)
        shown = [expert[i] for i in next(order)]
        rollout = sample(
            policy, tokenizer, [one.prompt for one in shown],
            max_new_tokens=task.max_new_tokens, temperature=1.0,  # π itself: what the weights divide by
            generator=seeds.generator(stage.seed, "rollout", step), group_size=config.group_size,
        )  # fmt: skip
        mask, written = rollout.completion_mask, rollout.completions()
        ref_logprobs = reference_logprobs(reference, rollout, 1.0)
        kl = (kl_estimate(rollout.logprobs, ref_logprobs, config.kl_estimator) * mask).sum(1)

        # log π − log π_ref of every candidate, the expert's first: (prompts, 1 + group_size)
        expert_batch = collate(
            [one.prompt for one in shown], [one.completion for one in shown], tokenizer.pad_token_id, stage.device
        )
        with torch.no_grad():
            of_expert = summed_logprobs(policy, expert_batch) - summed_logprobs(reference, expert_batch)
        of_policy = ((rollout.logprobs - ref_logprobs) * mask).sum(1)
        log_ratios = torch.cat([of_expert[:, None], of_policy.view(num_prompts, -1)], dim=1)

        told = []
        for epoch in range(config.reward_epochs):
            shuffled = torch.randperm(num_prompts, generator=seeds.generator(stage.seed, "reward", step, epoch))
            for prompts in shuffled.split(config.reward_batch_size):
                asked, candidates = [], []
                for i in prompts.tolist():
                    group = written[i * config.group_size : (i + 1) * config.group_size]
                    asked += [shown[i].prompt] * (1 + len(group))
                    candidates += [shown[i].completion, *group]
                batch = collate(asked, candidates, tokenizer.pad_token_id, stage.device)
                rewards = raw_scores(reward, batch).view(len(prompts), -1)
                weights = importance_weights(rewards, log_ratios[prompts.to(stage.device)], config.weight_temperature)
                irl_loss = maxent_irl_loss(rewards[:, 0], rewards, weights).mean()
                irl_loss.backward()
                reward_optimizer.constant_step(step, config.reward_learning_rate)
                with torch.no_grad():
                    share = effective_sample_size(weights).mean() / weights.shape[1]
                    above = (rewards[:, 0] > rewards.mean(1)).float().mean()
                    told.append(torch.stack([irl_loss.detach(), share, above]))

        learned = scores_in_pieces(reward, rollout)
        advantages = leave_one_out_advantages(learned - config.kl_coef * kl, config.group_size)[:, None]
        loss = torch.zeros((), device=stage.device)
        for indices, micro in rollout.micro_batches(config.micro_batch_size):
            losses = policy_gradient_loss(completion_logprobs(policy, micro), advantages[indices])
            policy_loss = reduce_tokens(losses, micro.completion_mask, config.reduction, full_mask=mask)
            policy_loss.backward()
            loss += policy_loss.detach()
        grad_norm = optimizer.constant_step(step, config.learning_rate)

        irl_loss_mean, ess, accuracy = torch.stack(told).mean(0)
        alarmed = monitor.log(step, probed, {
            "loss/irl": irl_loss_mean,
            "loss/policy": loss,
            "train/effective_sample_size": ess,
            "train/accuracy": accuracy,
            "rollout/learned_reward_mean": learned.mean(),
            "policy/kl": of_policy.mean(),
            "rollout/tokens": rollout.lengths.sum(),
            "train/grad_norm": grad_norm,
        })  # fmt: skip
        if alarmed:
            break

    save_model(policy, tokenizer, stage.out(f"models/policy/{stage.variant}"))
    stage.report(f"reports/policy/{stage.variant}")


if __name__ == "__main__":
    run(MaxentIrlConfig, train)
