"""RAFT: sample several completions, keep the best by score, imitate it, repeat.

    y* = argmax_{y ∈ group} score(x, y),   minimize  −Σ_t log π(y*_t | x, y*_<t)

Dong et al. 2023 (RAFT: Reward rAnked FineTuning). No gradient flows through the reward and there is no KL term: the policy
stays near where it was because it imitates its own samples.

How this differs from the paper
  - One optimizer step per rollout, so that every sample comes from the current policy; the paper takes several epochs over
    larger ones.

Below temperature 1 it imitates its own sharpened samples, so that entropy falls and sampled accuracy rises whatever the reward
says: `control.cool_sft` of the evaluation is how much.

Metrics: those of tasks/training/monitor.py, of one completion of each prompt at temperature 1, and
  rollout/best_score_mean  mean score of the completions that are imitated
  loss/nll                 mean negative log-likelihood of their tokens, in nats
  train/grad_norm          norm of the gradient before clipping
"""

from typing import Self

import torch
from pydantic import PositiveFloat, PositiveInt, model_validator

from tasks.core import seeds
from tasks.core.config import Config, check_divides
from tasks.core.run import run
from tasks.core.stage import Stage
from tasks.models.generate import sample
from tasks.models.language import save_model
from tasks.models.policy import open_policy
from tasks.models.text import TaskConfig
from tasks.rewards.scorer import load_scorer
from tasks.rl.logprobs import completion_logprobs
from tasks.rl.masking import reduce_tokens
from tasks.training.monitor import Monitor, Scored, reference_logprobs
from tasks.training.prompts import load_prompts


class RaftConfig(Config):
    """params.yaml: policy.raft"""

    namespace = "policy.raft"

    num_steps: PositiveInt
    rollout_batch_size: PositiveInt  # completions per step
    group_size: PositiveInt  # completions per prompt, of which the best is imitated
    micro_batch_size: PositiveInt | None  # best completions per backward pass; null: all at once
    learning_rate: PositiveFloat
    temperature: PositiveFloat

    @model_validator(mode="after")
    def _sizes(self) -> Self:
        if self.group_size < 2:
            raise ValueError("group_size (1): a group needs at least 2 completions to choose from")
        check_divides("group_size", self.group_size, "rollout_batch_size", self.rollout_batch_size)
        best = self.rollout_batch_size // self.group_size
        check_divides("micro_batch_size", self.micro_batch_size, "rollout_batch_size / group_size", best)
        return self


def train(config: RaftConfig, stage: Stage) -> None:
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
        # What is watched is π itself: samples at temperature 1, like those of every other algorithm.
        watched = rollout if config.temperature == 1.0 else sample(
            policy, tokenizer, [prompt.ids for prompt in asked],
            max_new_tokens=task.max_new_tokens, temperature=1.0, generator=seeds.generator(stage.seed, "watched", step),
        )  # fmt: skip
        scores, components = scorer(rollout, [prompt.answer for prompt in asked for _ in range(config.group_size)])
        groups = scores.view(-1, config.group_size)
        best = rollout.select(torch.arange(len(asked), device=stage.device) * config.group_size + groups.argmax(1)).trimmed()

        loss = torch.zeros((), device=stage.device)
        for micro in best.split(config.micro_batch_size or len(best)):
            logprobs = completion_logprobs(policy, micro)
            nll = reduce_tokens(-logprobs, micro.completion_mask, "token_mean", full_mask=best.completion_mask)
            nll.backward()
            loss += nll.detach()
        grad_norm = optimizer.constant_step(step, config.learning_rate)

        if watched is not rollout:
            scores, components = scorer(watched, [prompt.answer for prompt in asked])
        ref_logprobs = reference_logprobs(reference, watched, 1.0)
        alarmed = monitor.log(step, Scored(watched, ref_logprobs, scores, components), {
            "rollout/tokens": rollout.lengths.sum(),
            "rollout/best_score_mean": groups.amax(1).mean(),
            "loss/nll": loss,
            "train/grad_norm": grad_norm,
        })  # fmt: skip
        if alarmed:
            break

    save_model(policy, tokenizer, stage.out(f"models/policy/{stage.variant}"))
    stage.report(f"reports/policy/{stage.variant}")


if __name__ == "__main__":
    run(RaftConfig, train)
