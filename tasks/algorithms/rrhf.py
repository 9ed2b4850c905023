"""RRHF: sample several completions, make their likelihoods follow the order of their scores, and imitate the best.

    minimize  Σ_{score_i < score_j} max(0, p_i − p_j) − sft_coef · Σ_t log π(y*_t),   p = mean over t of log π(y_t)
    y* = argmax_{y ∈ group} score(x, y)

Yuan et al. 2023, equations 1 to 4. A pair that is already in order teaches nothing, so the ranking stops by itself. No
gradient flows through the reward and there is no KL term.

How this differs from the paper
  - The completions come from the current policy, anew for every step; the paper ranks once a pool from several models and
    people (its online variant samples as here).
  - The imitation term is a mean over the tokens of all the best completions, times sft_coef; the paper's is a sum over the
    tokens, times 1, which for 19 tokens is a sft_coef of 19. A small one leaves it to the ranking, which raises p_j and lowers
    p_i alike: with 1 and groups of 8 the policy ended no better than SFT.
  - Log-probabilities are those at temperature 1, whatever temperature was sampled at.
  - A group whose scores are all equal has no pair to rank: its first completion is imitated, as in RAFT.

Metrics: those of tasks/training/monitor.py, and
  rollout/best_score_mean  mean score of the completions that are imitated
  loss/ranking             the first term, mean over the groups, in nats per token
  loss/nll                 the second: mean negative log-likelihood of the best completions' tokens, before sft_coef
  train/misranked          share of the pairs of unequal score whose likelihoods are in the wrong order
  train/grad_norm          norm of the gradient before clipping
"""

from typing import Self

import torch
import torch.nn.functional as F
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
from tasks.rl.logprobs import completion_logprobs
from tasks.rl.masking import reduce_tokens
from tasks.rl.preference_losses import misranked, ranking_loss
from tasks.training.monitor import Monitor, Scored, reference_logprobs
from tasks.training.prompts import load_prompts


class RrhfConfig(Config):
    """params.yaml: policy.rrhf"""

    namespace = "policy.rrhf"

    num_steps: PositiveInt
    rollout_batch_size: PositiveInt  # completions per step
    group_size: PositiveInt  # completions per prompt, which are ranked
    micro_batch_size: PositiveInt  # completions per backward pass: whole groups
    learning_rate: PositiveFloat
    temperature: PositiveFloat
    sft_coef: NonNegativeFloat

    @model_validator(mode="after")
    def _sizes(self) -> Self:
        if self.group_size < 2:
            raise ValueError("group_size (1): a group needs at least 2 completions to rank")
        check_divides("group_size", self.group_size, "rollout_batch_size", self.rollout_batch_size)
        check_divides("micro_batch_size", self.micro_batch_size, "rollout_batch_size", self.rollout_batch_size)
        check_divides("group_size", self.group_size, "micro_batch_size", self.micro_batch_size)
        return self


def train(config: RrhfConfig, stage: Stage) -> None:
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
        groups = scores.view(-1, config.group_size)
        best = F.one_hot(groups.argmax(1), config.group_size).view(-1, 1)

        losses = torch.zeros(2)
        mean_logprobs = torch.zeros_like(scores)
        for rows in torch.arange(len(rollout), device=stage.device).split(config.micro_batch_size):
            micro = rollout.select(rows).trimmed()
            logprobs = completion_logprobs(policy, micro)
            p = (logprobs * micro.completion_mask).sum(1) / micro.lengths
            rank_loss = ranking_loss(p, scores[rows], config.group_size).sum() / len(asked)
            nll_loss = reduce_tokens(
                -logprobs, micro.completion_mask * best[rows], "token_mean", full_mask=rollout.completion_mask * best
            )  # fmt: skip
            (rank_loss + config.sft_coef * nll_loss).backward()
            losses += torch.tensor([rank_loss.item(), nll_loss.item()])
            mean_logprobs[rows] = p.detach()
        grad_norm = optimizer.constant_step(step, config.learning_rate)

        ref_logprobs = reference_logprobs(reference, rollout, config.temperature)
        alarmed = monitor.log(step, Scored(rollout, ref_logprobs, scores, components), {
            "rollout/best_score_mean": groups.amax(1).mean(),
            "loss/ranking": losses[0],
            "loss/nll": losses[1],
            "train/misranked": misranked(mean_logprobs, scores, config.group_size),
            "train/grad_norm": grad_norm,
        })  # fmt: skip
        if alarmed:
            break

    save_model(policy, tokenizer, stage.out(f"models/policy/{stage.variant}"))
    stage.report(f"reports/policy/{stage.variant}")


if __name__ == "__main__":
    run(RrhfConfig, train)
