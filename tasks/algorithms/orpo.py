"""ORPO: imitate the chosen completion, and make its odds larger than those of the rejected one; no reference policy.

    minimize  −log π(chosen) − λ log σ(log odds(chosen) − log odds(rejected)),   odds = π/(1 − π)
    log π(y) = mean over t of log π(y_t)

Hong et al. 2024, equations 6 and 7. Imitation alone also makes the rejected completions likelier, which look much the same;
the odds ratio holds them back.

How this differs from the paper
  - It starts from the SFT model, like every policy here; the paper replaces SFT and starts from the base model. The imitation
    term then teaches little that is new.
  - The reference model that is loaded is what the monitor measures the distance to; the loss does not know it.

Metrics: those of tasks/training/monitor.py on probes, of tasks/training/validation.py on held-out pairs, and
  loss/nll                    −log π(chosen), mean of the pairs, in nats per token
  loss/odds_ratio             the other term, before λ; ln 2 where the two are equally likely
  train/accuracy              share of the batch's pairs where the chosen completion is likelier per token
  train/log_odds_ratio        mean of what is in σ
  train/chosen_logprob, train/rejected_logprob   mean log π of the completions, in nats per token
  train/grad_norm             norm of the gradient before clipping
"""

from typing import Self

import torch
from pydantic import PositiveFloat, PositiveInt, model_validator
from torch import Tensor

from tasks.core.config import Config, check_divides
from tasks.core.run import run
from tasks.core.stage import Stage
from tasks.models.batch import micro_batches
from tasks.models.language import save_model
from tasks.models.policy import open_policy
from tasks.models.text import TaskConfig
from tasks.rewards.scorer import load_scorer
from tasks.rl.preference_losses import log_odds_ratio, odds_ratio_loss
from tasks.training.monitor import Monitor, Probe
from tasks.training.pairs import held_out_lengths, held_out_logprobs, load_pairs, summed_logprobs
from tasks.training.validation import Validation


class OrpoConfig(Config):
    """params.yaml: policy.orpo"""

    namespace = "policy.orpo"

    num_steps: PositiveInt
    batch_size: PositiveInt  # pairs
    micro_batch_size: PositiveInt | None  # pairs per backward pass; null: all at once
    learning_rate: PositiveFloat
    odds_ratio_coef: PositiveFloat  # λ

    @model_validator(mode="after")
    def _sizes(self) -> Self:
        check_divides("micro_batch_size", self.micro_batch_size, "batch_size", self.batch_size)
        return self


def train(config: OrpoConfig, stage: Stage) -> None:
    task = stage.params(TaskConfig)
    policy, reference, tokenizer, optimizer = open_policy(stage, stage.dep("models/sft"))
    pairs = load_pairs(stage, tokenizer, "train")
    monitor = Monitor(stage, load_scorer(stage, tokenizer, task), tokenizer)
    probe = Probe(monitor, reference, task, config.num_steps)
    validation = Validation(stage, policy, pairs.prompt_texts, config.num_steps)
    stage.resume(policy=policy, optimizer=optimizer, validation=validation)

    def held_out() -> dict[str, Tensor]:
        chosen, rejected = held_out_logprobs(policy, pairs, validation.rows) / held_out_lengths(pairs, validation.rows)
        losses = config.odds_ratio_coef * odds_ratio_loss(chosen, rejected) - chosen
        return {"loss": losses.mean(), "accuracy": (chosen > rejected).float().mean()}

    order = validation.batches(config.batch_size, stage.seed, stage.start, pairs.lengths)
    for step in stage.steps(config.num_steps):
        indices, parts = next(order), []
        for rows in micro_batches(indices, config.micro_batch_size or config.batch_size):
            batch = pairs.batch(rows)
            chosen, rejected = (summed_logprobs(policy, batch) / batch.lengths).chunk(2)
            odds_losses = odds_ratio_loss(chosen, rejected)
            ((config.odds_ratio_coef * odds_losses - chosen).sum() / len(indices)).backward()
            parts.append(torch.stack([odds_losses, chosen, rejected]).detach())
        grad_norm = optimizer.cosine_step(step, config.num_steps, config.learning_rate)

        odds_losses, chosen, rejected = torch.cat(parts, dim=1)
        alarmed = monitor.log(step, probe(policy, step), {
            "loss/nll": -chosen.mean(),
            "loss/odds_ratio": odds_losses.mean(),
            "train/accuracy": (chosen > rejected).float().mean(),
            "train/log_odds_ratio": log_odds_ratio(chosen, rejected).mean(),
            "train/chosen_logprob": chosen.mean(),
            "train/rejected_logprob": rejected.mean(),
            "train/grad_norm": grad_norm,
            **validation(step, held_out),
        })  # fmt: skip
        if alarmed:
            break

    stage.record(**validation.take_best())
    save_model(policy, tokenizer, stage.out(f"models/policy/{stage.variant}"))
    stage.report(f"reports/policy/{stage.variant}")


if __name__ == "__main__":
    run(OrpoConfig, train)
