"""REINFORCE: the plainest policy gradient, and the yardstick for the others. No baseline, no value function, no ratio.

    R = score − kl_coef · Σ_t KL_k1(π‖π_ref)
    minimize  −R · Σ_t log π(y_t | x, y_<t)      mean over completions

Williams 1992; the gradient is that of E[R] by the policy gradient theorem, Sutton et al. 1999.

How this differs from the textbook
  - The completion is one action with one reward, KL included; the KL of later tokens is not separated out by reward-to-go.
  - One optimizer step per rollout, and AdamW with the gradient's norm clipped instead of plain ascent.
  - group_size completions share a prompt, which saves reading the prompt; nothing compares them.

Metrics: those of tasks/training/monitor.py, and
  loss/policy      the surrogate above, whose gradient is the estimate; its value means nothing by itself
  train/grad_norm  norm of the gradient before clipping
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
from tasks.rl.kl import kl_estimate
from tasks.rl.logprobs import completion_logprobs
from tasks.rl.masking import reduce_tokens
from tasks.rl.policy_losses import policy_gradient_loss
from tasks.training.monitor import Monitor, Scored, reference_logprobs
from tasks.training.prompts import load_prompts


class ReinforceConfig(Config):
    """params.yaml: policy.reinforce"""

    namespace = "policy.reinforce"
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
    missing_eos_penalty: NonNegativeFloat

    @model_validator(mode="after")
    def _sizes(self) -> Self:
        check_divides("group_size", self.group_size, "rollout_batch_size", self.rollout_batch_size)
        check_divides("micro_batch_size", self.micro_batch_size, "rollout_batch_size", self.rollout_batch_size)
        return self


def train(config: ReinforceConfig, stage: Stage) -> None:
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
        advantages = rewards[:, None]

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
            "train/grad_norm": grad_norm,
        })  # fmt: skip
        if alarmed:
            break

    save_model(policy, tokenizer, stage.out(f"models/policy/{stage.variant}"))
    stage.report(f"reports/policy/{stage.variant}")


if __name__ == "__main__":
    run(ReinforceConfig, train)
