"""KTO: each completion is good or bad by itself; a person values it against a point of reference.

    minimize  w (1 − σ(β (Δ − z₀)))   if desirable,   w (1 − σ(β (z₀ − Δ)))   if not,   Δ = Σ_t log π(y_t) − log π_ref(y_t)
    z₀ = max(0, mean Δ of completions that belong to other prompts),   no gradient

Ethayarajh et al. 2024, section 4. Prospect theory: gains and losses count from z₀, an estimate of KL(π‖π_ref), and ever
larger ones add ever less. No pairs are needed: here the chosen completions are the desirable ones, the rejected ones the
undesirable.

How this differs from the paper
  - Both completions of a pair are in the same batch, as in the other offline methods; the loss does not know which belong
    together.
  - z₀ comes from the batch itself: every prompt with the completion of a pair half a batch away.
  - The reference policy's log-probabilities are computed once, before training, not in every step: the reference never
    changes. Those of the mismatched completions, new in every batch, are not.

Metrics: those of tasks/training/monitor.py on probes, of tasks/training/validation.py on held-out pairs, and
  loss/kto                    the mean of the expression above; half of the mean weight at the start
  train/kl_baseline           z₀, in nats
  train/accuracy              share of the batch's pairs where the implicit reward of the chosen completion is larger
  train/margin                mean difference of the implicit rewards
  train/chosen_logratio, train/rejected_logratio   mean Δ in nats
  train/grad_norm             norm of the gradient before clipping
"""

from dataclasses import replace
from typing import Any, Self

import torch
from pydantic import PositiveFloat, PositiveInt, model_validator
from torch import Tensor

from tasks.core.config import Config, check_divides
from tasks.core.run import run
from tasks.core.stage import Stage
from tasks.models.batch import Batch
from tasks.models.language import save_model
from tasks.models.policy import open_policy
from tasks.models.text import TaskConfig
from tasks.rewards.scorer import load_scorer
from tasks.rl.preference_losses import kto_baseline, kto_loss
from tasks.training.monitor import Monitor, Probe
from tasks.training.pairs import held_out_logprobs, load_pairs, reference_pair_logprobs, summed_logprobs
from tasks.training.validation import Validation


class KtoConfig(Config):
    """params.yaml: policy.kto"""

    namespace = "policy.kto"

    num_steps: PositiveInt
    batch_size: PositiveInt  # pairs
    micro_batch_size: PositiveInt | None  # pairs per backward pass; null: all at once
    learning_rate: PositiveFloat
    beta: PositiveFloat
    desirable_weight: PositiveFloat
    undesirable_weight: PositiveFloat

    @model_validator(mode="after")
    def _sizes(self) -> Self:
        check_divides("micro_batch_size", self.micro_batch_size, "batch_size", self.batch_size)
        if self.batch_size < 2:
            raise ValueError("batch_size (1): the baseline needs a completion that belongs to another prompt")
        return self


def train(config: KtoConfig, stage: Stage) -> None:
    task = stage.params(TaskConfig)
    policy, reference, tokenizer, optimizer = open_policy(stage, stage.dep("models/sft"))
    pairs = load_pairs(stage, tokenizer, "train")
    monitor = Monitor(stage, load_scorer(stage, tokenizer, task), tokenizer)
    probe = Probe(monitor, reference, task, config.num_steps)
    ref_logprobs = reference_pair_logprobs(reference, pairs, stage.name)
    size = 2 * (config.micro_batch_size or config.batch_size)  # completions per pass
    validation = Validation(stage, policy, pairs.prompt_texts, config.num_steps)
    stage.resume(policy=policy, optimizer=optimizer, validation=validation)

    def held_out() -> dict[str, Tensor]:
        logratios = held_out_logprobs(policy, pairs, validation.rows) - ref_logprobs[validation.rows].T
        baseline = mismatched_baseline(policy, reference, pairs.batch(validation.rows), size)
        desirable = torch.arange(logratios.numel(), device=stage.device) < len(validation.rows)
        losses = kto_loss(
            logratios.flatten(), desirable, baseline, config.beta, config.desirable_weight, config.undesirable_weight
        )  # fmt: skip
        return {"loss": losses.mean(), "accuracy": (logratios[0] > logratios[1]).float().mean()}

    order = validation.batches(config.batch_size, stage.seed, stage.start, pairs.lengths)
    for step in stage.steps(config.num_steps):
        indices = next(order)
        batch = pairs.batch(indices)
        ref = ref_logprobs[indices].T.flatten()
        desirable = torch.arange(len(batch), device=stage.device) < len(indices)
        baseline = mismatched_baseline(policy, reference, batch, size)
        parts = []
        for rows in torch.arange(len(batch), device=stage.device).split(size):
            logratios = summed_logprobs(policy, batch.select(rows).trimmed()) - ref[rows]
            losses = kto_loss(
                logratios, desirable[rows], baseline, config.beta, config.desirable_weight, config.undesirable_weight
            )  # fmt: skip
            (losses.sum() / len(batch)).backward()
            parts.append(torch.stack([losses, logratios]).detach())
        grad_norm = optimizer.cosine_step(step, config.num_steps, config.learning_rate)

        losses, logratios = torch.cat(parts, dim=1)
        chosen, rejected = logratios.chunk(2)
        margins = config.beta * (chosen - rejected)
        alarmed = monitor.log(step, probe(policy, step), {
            "loss/kto": losses.mean(),
            "train/kl_baseline": baseline,
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


@torch.no_grad()
def mismatched_baseline(policy: Any, reference: Any, batch: Batch, size: int) -> Tensor:
    """z₀, with the completions of pairs half a batch away: neighbours are of like length and may share their prompt."""
    shift = len(batch) // 4
    mismatched = replace(
        batch, completion_ids=batch.completion_ids.roll(shift, 0), completion_mask=batch.completion_mask.roll(shift, 0)
    )  # fmt: skip
    strange = mismatched.split(size)
    return kto_baseline(torch.cat([summed_logprobs(policy, part) - summed_logprobs(reference, part) for part in strange]))


if __name__ == "__main__":
    run(KtoConfig, train)
