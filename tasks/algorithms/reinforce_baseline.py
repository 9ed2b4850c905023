"""REINFORCE with a baseline: the plain policy gradient, with what was to be expected taken off the reward.

    R = score − kl_coef · Σ_t KL_k1(π‖π_ref),   b = running mean of the R of earlier rollouts
    minimize  −(R − b) · Σ_t log π(y_t | x, y_<t)      mean over completions

Williams 1992, where b is called the reinforcement baseline; a moving average of rewards is also what Ahmadian et al. 2024 mean
by the method. It is chosen over a learned V(x) because it is one number, has nothing to train, and leaves a ladder in which
each method adds one thing: reinforce.py no baseline, here one for all prompts, rloo.py one for each prompt from its other
completions, ppo.py one for each token, learned. b is fixed before the rollout is sampled, so it adds no bias.

How this differs from the textbook
  - The completion is one action with one reward, KL included; the KL of later tokens is not separated out by reward-to-go.
  - One optimizer step per rollout, and AdamW with the gradient's norm clipped instead of plain ascent.
  - group_size completions share a prompt, which saves reading the prompt; nothing compares them.

Metrics: those of tasks/training/monitor.py, and
  loss/policy      the surrogate above, whose gradient is the estimate; its value means nothing by itself
  policy/baseline  b, as it was used in this step
  train/grad_norm  norm of the gradient before clipping
"""

from typing import Annotated, ClassVar, Self

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from tasks.core import seeds
from tasks.core.config import Config, check_divides
from tasks.core.run import run
from tasks.core.stage import Stage
from tasks.models.generate import sample
from tasks.models.language import save_model
from tasks.models.policy import open_policy
from tasks.models.text import TaskConfig
from tasks.rewards.scorer import load_scorer
from tasks.rl.advantages import RunningMean
from tasks.rl.kl import kl_estimate
from tasks.rl.logprobs import completion_logprobs
from tasks.rl.masking import reduce_tokens
from tasks.rl.policy_losses import policy_gradient_loss
from tasks.training.monitor import Monitor, Scored, reference_logprobs
from tasks.training.prompts import load_prompts


class ReinforceBaselineConfig(Config):
    """params.yaml: policy.reinforce_baseline"""

    namespace = "policy.reinforce_baseline"
    kl_in: ClassVar[str] = "reward"
    kl_estimator: ClassVar[str] = "k1"
    reduction: ClassVar[str] = "sequence_sum"

    num_steps: PositiveInt
    rollout_batch_size: PositiveInt  # completions per step
    group_size: PositiveInt  # completions per prompt
    micro_batch_size: PositiveInt  # completions per backward pass
    learning_rate: PositiveFloat
    temperature: PositiveFloat
    kl_coef: NonNegativeFloat
    baseline_decay: Annotated[float, Field(ge=0, lt=1)]
    missing_eos_penalty: NonNegativeFloat

    @model_validator(mode="after")
    def _sizes(self) -> Self:
        check_divides("group_size", self.group_size, "rollout_batch_size", self.rollout_batch_size)
        check_divides("micro_batch_size", self.micro_batch_size, "rollout_batch_size", self.rollout_batch_size)
        return self


def train(config: ReinforceBaselineConfig, stage: Stage) -> None:
    task = stage.params(TaskConfig)
    policy, reference, tokenizer, optimizer = open_policy(stage, stage.dep("models/sft"))
    scorer = load_scorer(stage, tokenizer, task)
    monitor = Monitor(stage, scorer, tokenizer)
    prompts = load_prompts(stage, tokenizer, "train")
    baseline = RunningMean(config.baseline_decay)
    stage.resume(policy=policy, optimizer=optimizer, baseline=baseline)

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
        expected = baseline.value
        advantages = (rewards - expected)[:, None]
        baseline.update(rewards)

        loss = torch.zeros((), device=stage.device)
        for rows, micro in rollout.micro_batches(config.micro_batch_size):
            logprobs = completion_logprobs(policy, micro, config.temperature)
            losses = policy_gradient_loss(logprobs, advantages[rows])
            policy_loss = reduce_tokens(losses, micro.completion_mask, config.reduction, full_mask=mask)
            policy_loss.backward()
            loss += policy_loss.detach()
        grad_norm = optimizer.constant_step(step, config.learning_rate)

        alarmed = monitor.log(step, Scored(rollout, ref_logprobs, scores, components), {
            "loss/policy": loss,
            "policy/baseline": expected,
            "train/grad_norm": grad_norm,
        })  # fmt: skip
        if alarmed:
            break

    save_model(policy, tokenizer, stage.out(f"models/policy/{stage.variant}"))
    stage.report(f"reports/policy/{stage.variant}")


if __name__ == "__main__":
    run(ReinforceBaselineConfig, train)
