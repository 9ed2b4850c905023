"""DPO: preference pairs as a classification problem for the policy itself; no reward model, no sampling.

    minimize  −log σ(β (Δ_chosen − Δ_rejected)),   Δ = Σ_t log π(y_t) − log π_ref(y_t)

Rafailov et al. 2023, equation 7. β·Δ is the implicit reward: the policy is its own reward model. Log-probabilities are
summed over a completion, so longer completions weigh more, as in the paper.

How this differs from the paper
  - The reference policy's log-probabilities are computed once, before training, not in every step: the reference never changes.

Metrics
  loss/dpo                    the mean of the expression above; ln 2 = 0.693 at the start
  train/accuracy              share of the batch's pairs where the implicit reward of the chosen completion is larger
  train/margin                mean difference of the implicit rewards
  train/chosen_logratio, train/rejected_logratio   mean Δ in nats; both falling is the known way in which DPO unlearns
  train/grad_norm             norm of the gradient before clipping to 1
"""

import torch
from pydantic import PositiveFloat, PositiveInt

from tasks.core import progress, seeds
from tasks.core.config import Config
from tasks.core.files import read_table
from tasks.core.run import run
from tasks.core.stage import Stage
from tasks.models.batch import PairSet
from tasks.models.language import load_policy, save_model
from tasks.models.optimizer import adamw, optimizer_step, warmup_cosine
from tasks.rl.logprobs import completion_logprobs
from tasks.rl.preference_losses import dpo_loss


class DpoConfig(Config):
    """params.yaml: policy.dpo"""

    namespace = "policy.dpo"

    num_steps: PositiveInt
    batch_size: PositiveInt  # pairs
    learning_rate: PositiveFloat
    beta: PositiveFloat


def train(config: DpoConfig, stage: Stage) -> None:
    policy, tokenizer = load_policy(stage.dep("models/sft"), stage.device)
    stage.dep("reports/validate_preferences")
    rows = [row for row in read_table(stage.dep("data/preferences.parquet")) if row["split"] == "train"]
    pairs = PairSet(rows, tokenizer, stage.device)
    optimizer = adamw(list(policy.parameters()), config.learning_rate)
    ref_logprobs = reference_logprobs(policy, pairs, stage.name)
    stage.resume(policy=policy, optimizer=optimizer)

    order = seeds.batches(len(rows), config.batch_size, stage.seed, stage.start, pairs.lengths)
    for step in stage.steps(config.num_steps):
        picked = next(order)
        batch = pairs.batch(picked)
        logprobs = (completion_logprobs(policy, batch) * batch.completion_mask).sum(1)
        logratios = logprobs - ref_logprobs[picked].T.flatten()
        chosen, rejected = logratios.chunk(2)
        loss = dpo_loss(chosen, rejected, config.beta).mean()
        loss.backward()
        grad_norm = optimizer_step(optimizer, warmup_cosine(step, config.num_steps, config.learning_rate))

        margins = config.beta * (chosen - rejected).detach()
        stage.log(step, {
            "loss/dpo": loss.detach(),
            "train/accuracy": (margins > 0).float().mean(),
            "train/margin": margins.mean(),
            "train/chosen_logratio": chosen.detach().mean(),
            "train/rejected_logratio": rejected.detach().mean(),
            "train/grad_norm": grad_norm,
        })  # fmt: skip

    save_model(policy, tokenizer, stage.out(f"models/policy/{stage.variant}"))
    stage.report(f"reports/policy/{stage.variant}")


@torch.no_grad()
def reference_logprobs(reference: torch.nn.Module, pairs: PairSet, what: str) -> torch.Tensor:
    """Σ_t log π_ref of the chosen and the rejected completion of every pair: (pairs, 2), in nats."""
    order = sorted(range(len(pairs)), key=lambda row: pairs.lengths[row])
    pieces = [order[i : i + 128] for i in range(0, len(order), 128)]
    result = torch.zeros(len(pairs), 2, device=pairs.device)
    for picked in progress.track(pieces, len(pieces), f"{what}: reference"):
        batch = pairs.batch(picked)
        sums = (completion_logprobs(reference, batch) * batch.completion_mask).sum(1)
        result[picked] = torch.stack(sums.chunk(2), dim=1)
    return result


if __name__ == "__main__":
    run(DpoConfig, train)
