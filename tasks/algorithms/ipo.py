"""IPO: DPO with a target for the gap instead of a sigmoid that always asks for more.

    minimize  (Δ_chosen − Δ_rejected − 1/(2β))²,   Δ = mean over t of log π(y_t) − log π_ref(y_t)

Azar et al. 2024, equation 17, with β for their τ. Where the annotator always prefers the same completion, DPO's optimum is an
infinite gap and β loses its meaning; here the gap stops at 1/(2β).

How this differs from the paper
  - Δ is averaged over the tokens of a completion, not summed, as in TRL: the target is in nats per token and asks as much of
    a long completion as of a short one.
  - The reference policy's log-probabilities are computed once, before training, not in every step: the reference never changes.

Metrics: those of tasks/training/monitor.py on probes, and
  loss/ipo                    the mean of the expression above; 1/(2β)² at the start
  train/accuracy              share of the batch's pairs where the implicit reward of the chosen completion is larger
  train/margin                mean difference of the implicit rewards β·Δ; its target is 1/2
  train/chosen_logratio, train/rejected_logratio   mean Δ in nats per token
  train/grad_norm             norm of the gradient before clipping
"""

from pydantic import PositiveFloat, PositiveInt

from tasks.core import seeds
from tasks.core.config import Config
from tasks.core.run import run
from tasks.core.stage import Stage
from tasks.models.language import save_model
from tasks.models.policy import open_policy
from tasks.models.text import TaskConfig
from tasks.rewards.scorer import load_scorer
from tasks.rl.preference_losses import ipo_loss
from tasks.training.monitor import Monitor, Probe
from tasks.training.pairs import load_pairs, reference_pair_logprobs, summed_logprobs


class IpoConfig(Config):
    """params.yaml: policy.ipo"""

    namespace = "policy.ipo"

    num_steps: PositiveInt
    batch_size: PositiveInt  # pairs
    learning_rate: PositiveFloat
    beta: PositiveFloat


def train(config: IpoConfig, stage: Stage) -> None:
    task = stage.params(TaskConfig)
    policy, reference, tokenizer, optimizer = open_policy(stage, stage.dep("models/sft"))
    pairs = load_pairs(stage, tokenizer, "train")
    monitor = Monitor(stage, load_scorer(stage, tokenizer, task), tokenizer)
    probe = Probe(monitor, reference, task, config.num_steps)
    ref_logprobs = reference_pair_logprobs(reference, pairs, stage.name)
    stage.resume(policy=policy, optimizer=optimizer)

    order = seeds.batches(len(pairs), config.batch_size, stage.seed, stage.start, pairs.lengths)
    for step in stage.steps(config.num_steps):
        picked = next(order)
        batch = pairs.batch(picked)
        logratios = (summed_logprobs(policy, batch) - ref_logprobs[picked].T.flatten()) / batch.lengths
        chosen, rejected = logratios.chunk(2)
        loss = ipo_loss(chosen, rejected, config.beta).mean()
        loss.backward()
        grad_norm = optimizer.cosine_step(step, config.num_steps, config.learning_rate)

        margins = config.beta * (chosen - rejected).detach()
        alarmed = monitor.log(step, probe(policy, step), {
            "loss/ipo": loss.detach(),
            "train/accuracy": (margins > 0).float().mean(),
            "train/margin": margins.mean(),
            "train/chosen_logratio": chosen.detach().mean(),
            "train/rejected_logratio": rejected.detach().mean(),
            "train/grad_norm": grad_norm,
        })  # fmt: skip
        if alarmed:
            break

    save_model(policy, tokenizer, stage.out(f"models/policy/{stage.variant}"))
    stage.report(f"reports/policy/{stage.variant}")


if __name__ == "__main__":
    run(IpoConfig, train)
