"""IPO: DPO with a target for the gap instead of a sigmoid that always asks for more.

    minimize  (Δ_chosen − Δ_rejected − 1/(2β))²,   Δ = mean over t of log π(y_t) − log π_ref(y_t)

Azar et al. 2024, equation 17, with β for their τ. Where the annotator always prefers the same completion, DPO's optimum is an
infinite gap and β loses its meaning; here the gap stops at 1/(2β).

How this differs from the paper
  - Δ is averaged over the tokens of a completion, not summed, as in TRL: the target is in nats per token and asks as much of
    a long completion as of a short one.
  - The reference policy's log-probabilities are computed once, before training, not in every step: the reference never changes.

Metrics: those of tasks/training/monitor.py on probes, of tasks/training/validation.py on held-out pairs, and
  loss/ipo                    the mean of the expression above; 1/(2β)² at the start
  train/accuracy              share of the batch's pairs where the implicit reward of the chosen completion is larger
  train/margin                mean difference of the implicit rewards β·Δ; its target is 1/2
  train/chosen_logratio, train/rejected_logratio   mean Δ in nats per token
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
from tasks.rl.preference_losses import ipo_loss
from tasks.training.monitor import Monitor, Probe
from tasks.training.pairs import held_out_lengths, held_out_logprobs, load_pairs, reference_pair_logprobs, summed_logprobs
from tasks.training.validation import Validation


class IpoConfig(Config):
    """params.yaml: policy.ipo"""

    namespace = "policy.ipo"

    num_steps: PositiveInt
    batch_size: PositiveInt  # pairs
    micro_batch_size: PositiveInt | None  # pairs per backward pass; null: all at once
    learning_rate: PositiveFloat
    beta: PositiveFloat

    @model_validator(mode="after")
    def _sizes(self) -> Self:
        check_divides("micro_batch_size", self.micro_batch_size, "batch_size", self.batch_size)
        return self


def train(config: IpoConfig, stage: Stage) -> None:
    task = stage.params(TaskConfig)
    policy, reference, tokenizer, optimizer = open_policy(stage, stage.dep("models/sft"))
    pairs = load_pairs(stage, tokenizer, "train")
    monitor = Monitor(stage, load_scorer(stage, tokenizer, task), tokenizer)
    probe = Probe(monitor, reference, task, config.num_steps)
    ref_logprobs = reference_pair_logprobs(reference, pairs, stage.name)
    validation = Validation(stage, policy, pairs.prompt_texts, config.num_steps)
    stage.resume(policy=policy, optimizer=optimizer, validation=validation)

    def held_out() -> dict[str, Tensor]:
        logratios = held_out_logprobs(policy, pairs, validation.rows) - ref_logprobs[validation.rows].T
        chosen, rejected = logratios / held_out_lengths(pairs, validation.rows)
        return {"loss": ipo_loss(chosen, rejected, config.beta).mean(), "accuracy": (chosen > rejected).float().mean()}

    order = validation.batches(config.batch_size, stage.seed, stage.start, pairs.lengths)
    for step in stage.steps(config.num_steps):
        indices, parts = next(order), []
        for rows in micro_batches(indices, config.micro_batch_size or config.batch_size):
            batch = pairs.batch(rows)
            logratios = (summed_logprobs(policy, batch) - ref_logprobs[rows].T.flatten()) / batch.lengths
            chosen, rejected = logratios.chunk(2)
            losses = ipo_loss(chosen, rejected, config.beta)
            (losses.sum() / len(indices)).backward()
            parts.append(torch.stack([losses, chosen, rejected]).detach())
        grad_norm = optimizer.cosine_step(step, config.num_steps, config.learning_rate)

        losses, chosen, rejected = torch.cat(parts, dim=1)
        margins = config.beta * (chosen - rejected)
        alarmed = monitor.log(step, probe(policy, step), {
            "loss/ipo": losses.mean(),
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
    run(IpoConfig, train)
