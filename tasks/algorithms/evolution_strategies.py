"""Evolution strategies: perturb the parameters, see who scores better, move towards them; no gradient of the policy.

    F(θ) = mean score of the policy's completions − kl_coef · KL(π_θ‖π_ref)
    ε_i ~ N(0, I),   θ ← θ + learning rate · Σ_i (u(F(θ + σ ε_i)) − u(F(θ − σ ε_i))) ε_i / 2nσ

Salimans et al. 2017, algorithm 2: u is the centered rank within the population, the step is Adam's. ε_i is a function of
(seed, step, i): it is never stored, and workers that know the seed would exchange their members' fitness and nothing else.

How this differs from the paper
  - Every member answers the same prompts with the same random numbers (common random numbers), so that two members differ
    by their parameters only.
  - Only the parameters named in `perturbed` move. The error of the estimate grows with their number: it is n random
    directions in that many dimensions.

Metrics: those of tasks/training/monitor.py, of the whole population's completions, and
  policy/fitness_mean, policy/fitness_std   over the members; the second is what the ranks have to go by
  policy/tied_pairs                         share of antithetic pairs that are equally fit, hence teach nothing
  train/grad_norm                           norm of the estimated gradient before clipping
"""

from dataclasses import fields
from typing import Self

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt, model_validator
from torch import Tensor
from torch.nn import Parameter

from tasks.core import seeds
from tasks.core.config import Config, check_divides
from tasks.core.errors import InputError
from tasks.core.run import run
from tasks.core.stage import Stage
from tasks.models.adapter import refuse_adapter
from tasks.models.generate import Rollout, sample
from tasks.models.language import save_model
from tasks.models.optimizer import Optimizer
from tasks.models.policy import open_policy
from tasks.models.text import TaskConfig
from tasks.rewards.scorer import load_scorer
from tasks.rl.evolution import antithetic_gradient, centered_ranks
from tasks.training.monitor import Monitor, Scored, reference_logprobs
from tasks.training.prompts import load_prompts


class EvolutionStrategiesConfig(Config):
    """params.yaml: policy.evolution_strategies"""

    namespace = "policy.evolution_strategies"

    num_steps: PositiveInt
    rollout_batch_size: PositiveInt  # completions per step
    population_size: PositiveInt  # members; two for each direction
    perturbed: str  # parameters whose name contains this
    sigma: PositiveFloat
    learning_rate: PositiveFloat
    temperature: NonNegativeFloat  # 0: greedy
    kl_coef: NonNegativeFloat

    @model_validator(mode="after")
    def _sizes(self) -> Self:
        if self.population_size % 2:
            raise ValueError(f"population_size ({self.population_size}): it must be even, each direction has two members")
        check_divides("population_size", self.population_size, "rollout_batch_size", self.rollout_batch_size)
        return self


def train(config: EvolutionStrategiesConfig, stage: Stage) -> None:
    task = stage.params(TaskConfig)
    refuse_adapter(stage, "evolution strategies perturb parameters by name and train no adapter")
    policy, reference, tokenizer, optimizer = open_policy(stage, stage.dep("models/sft"))
    scorer = load_scorer(stage, tokenizer, task)
    monitor = Monitor(stage, scorer, tokenizer)
    prompts = load_prompts(stage, tokenizer, "train")
    parameters = [parameter for name, parameter in policy.named_parameters() if config.perturbed in name]
    if not parameters:
        known = ", ".join(name for name, _ in policy.named_parameters())
        raise InputError(
            f"policy.evolution_strategies.perturbed: no parameter's name contains {config.perturbed!r}; there are {known}"
        )
    optimizer = Optimizer(parameters, optimizer.settings)
    stage.resume(policy=policy, optimizer=optimizer)

    order = seeds.batches(len(prompts), config.rollout_batch_size // config.population_size, stage.seed, stage.start)
    for step in stage.steps(config.num_steps):
        asked = [prompts[i] for i in next(order)]
        theta = torch.cat([parameter.detach().flatten() for parameter in parameters])

        def noise(pair: int, step: int = step, theta: Tensor = theta) -> Tensor:
            return torch.randn(len(theta), generator=seeds.generator(stage.seed, "noise", step, pair)).to(theta.device)

        rollouts = []
        for pair in range(config.population_size // 2):
            for sign in (1, -1):
                assign(parameters, theta + sign * config.sigma * noise(pair))
                rollouts.append(sample(
                    policy, tokenizer, [prompt.ids for prompt in asked],
                    max_new_tokens=task.max_new_tokens, temperature=config.temperature,
                    generator=seeds.generator(stage.seed, "rollout", step),
                ))  # fmt: skip
        assign(parameters, theta)
        rollout = joined(rollouts)
        scores, components = scorer(rollout, [prompt.answer for prompt in asked] * config.population_size)
        ref_logprobs = reference_logprobs(reference, rollout, config.temperature or 1.0)
        kl = ((rollout.logprobs - ref_logprobs) * rollout.completion_mask).sum(1)
        fitness = (scores - config.kl_coef * kl).view(-1, 2, len(asked)).mean(2)

        gradient = antithetic_gradient(noise, centered_ranks(fitness), config.sigma)
        for parameter, part in zip(parameters, gradient.split([parameter.numel() for parameter in parameters]), strict=True):
            parameter.grad = -part.view_as(parameter)  # the optimizer minimizes
        grad_norm = optimizer.constant_step(step, config.learning_rate)

        alarmed = monitor.log(step, Scored(rollout, ref_logprobs, scores, components), {
            "policy/fitness_mean": fitness.mean(),
            "policy/fitness_std": fitness.std(),
            "policy/tied_pairs": (fitness[:, 0] == fitness[:, 1]).float().mean(),
            "train/grad_norm": grad_norm,
        })  # fmt: skip
        if alarmed:
            break

    save_model(policy, tokenizer, stage.out(f"models/policy/{stage.variant}"))
    stage.report(f"reports/policy/{stage.variant}")


@torch.no_grad()
def assign(parameters: list[Parameter], values: Tensor) -> None:
    """values: all of them in one vector, (dimension,)."""
    for parameter, part in zip(parameters, values.split([parameter.numel() for parameter in parameters]), strict=True):
        parameter.copy_(part.view_as(parameter))


def joined(rollouts: list[Rollout]) -> Rollout:
    """The rollouts of the members, all of the same prompts, as one; shorter completions are padded."""
    time = max(rollout.time for rollout in rollouts)

    def rows(name: str) -> Tensor:
        parts = [getattr(rollout, name) for rollout in rollouts]
        if parts[0].dim() == 2 and not name.startswith("prompt_"):
            parts = [F.pad(part, (0, time - part.shape[1])) for part in parts]
        return torch.cat(parts)

    return Rollout(*(rows(field.name) for field in fields(Rollout)))


if __name__ == "__main__":
    run(EvolutionStrategiesConfig, train)
