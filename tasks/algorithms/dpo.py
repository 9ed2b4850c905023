"""DPO: preference pairs as a classification problem for the policy itself; no reward model, no sampling.

    minimize  −log σ(β (Δ_chosen − Δ_rejected)),   Δ = Σ_t log π(y_t) − log π_ref(y_t)

Rafailov et al. 2023, equation 7. β·Δ is the implicit reward: the policy is its own reward model. Log-probabilities are
summed over a completion, so longer completions weigh more, as in the paper.

How this differs from the paper
  - The reference policy's log-probabilities are computed once, before training, not in every step: the reference never changes.

Metrics: those of tasks/training/monitor.py on probes, of tasks/training/validation.py on held-out pairs, and
  loss/dpo                    the mean of the expression above; ln 2 = 0.693 at the start
  train/accuracy              share of the batch's pairs where the implicit reward of the chosen completion is larger
  train/margin                mean difference of the implicit rewards
  train/chosen_logratio, train/rejected_logratio   mean Δ in nats; both falling is the known way in which DPO unlearns
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
from tasks.rl.preference_losses import dpo_loss
from tasks.training.monitor import Monitor, Probe
from tasks.training.pairs import held_out_logprobs, load_pairs, reference_pair_logprobs, summed_logprobs
from tasks.training.validation import Validation


class DpoConfig(Config):
    """params.yaml: policy.dpo"""

    namespace = "policy.dpo"

    num_steps: PositiveInt
    batch_size: PositiveInt  # pairs
    micro_batch_size: PositiveInt | None  # pairs per backward pass; null: all at once
    learning_rate: PositiveFloat
    beta: PositiveFloat

    @model_validator(mode="after")
    def _sizes(self) -> Self:
        check_divides("micro_batch_size", self.micro_batch_size, "batch_size", self.batch_size)
        return self


def train(config: DpoConfig, stage: Stage) -> None:
    task = stage.params(TaskConfig)
    policy, reference, tokenizer, optimizer = open_policy(stage, stage.dep("models/sft"))
    pairs = load_pairs(stage, tokenizer, "train")
    monitor = Monitor(stage, load_scorer(stage, tokenizer, task), tokenizer)
    probe = Probe(monitor, reference, task, config.num_steps)
    ref_logprobs = reference_pair_logprobs(reference, pairs, stage.name)
    validation = Validation(stage, policy, pairs.prompt_texts, config.num_steps)
    stage.resume(policy=policy, optimizer=optimizer, validation=validation)

    def held_out() -> dict[str, Tensor]:
        chosen, rejected = held_out_logprobs(policy, pairs, validation.rows) - ref_logprobs[validation.rows].T
        return {"loss": dpo_loss(chosen, rejected, config.beta).mean(), "accuracy": (chosen > rejected).float().mean()}

    order = validation.batches(config.batch_size, stage.seed, stage.start, pairs.lengths)
    for step in stage.steps(config.num_steps):
        indices, parts = next(order), []
        for rows in micro_batches(indices, config.micro_batch_size or config.batch_size):
            logratios = summed_logprobs(policy, pairs.batch(rows)) - ref_logprobs[rows].T.flatten()
            chosen, rejected = logratios.chunk(2)
            losses = dpo_loss(chosen, rejected, config.beta)
            (losses.sum() / len(indices)).backward()
            parts.append(torch.stack([losses, chosen, rejected]).detach())
        grad_norm = optimizer.cosine_step(step, config.num_steps, config.learning_rate)

        losses, chosen, rejected = torch.cat(parts, dim=1)
        margins = config.beta * (chosen - rejected)
        alarmed = monitor.log(step, probe(policy, step), {
            "loss/dpo": losses.mean(),
            "train/accuracy": (margins > 0).float().mean(),
            "train/margin": margins.mean(),
            "train/chosen_logratio": chosen.mean(),
            "train/rejected_logratio": rejected.mean(),
            "train/grad_norm": grad_norm,
            **validation(step, held_out),
        })  # fmt: skip
        if alarmed:
            break

    stage.record(**validation.take_best())
    save_model(policy, tokenizer, stage.out(f"models/policy/{stage.variant}"))
    stage.report(f"reports/policy/{stage.variant}")


if __name__ == "__main__":
    run(DpoConfig, train)
