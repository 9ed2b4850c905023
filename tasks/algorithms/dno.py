"""DNO (iterative DPO): sample, rank by win-rate, learn from the clearest pairs, take the result as the next reference.

    w(y) = mean over the other candidates y' of P(y ≻ y' | x),   P = σ(score(x, y) − score(x, y'))
    minimize  −log σ(β (Δ⁺ − Δ⁻)),   Δ = Σ_t log π(y_t) − log π_i(y_t)       over pairs with w(y⁺) − w(y⁻) ≥ min_margin

Rosset et al. 2024 (Direct Nash Optimization), algorithm 2 (DNO-Prct). The candidates for a prompt are group_size completions
of π_i, the policy at the start of iteration i, and the gold answer: the prompt's `solution`, where it has one. π_0 is the SFT
model; what is returned is the policy with the best mean score on validation prompts, of the starts of all iterations and
the end of the last.

How this differs from the paper
  - The preference function P is the Bradley-Terry model of the score that all algorithms here are trained for; the paper asks
    a judge, whose preferences need not be transitive.
  - An iteration takes steps_per_iteration optimizer steps, not epochs, so that the length of a run is known beforehand.

Metrics: those of tasks/training/monitor.py, of the completions sampled for an iteration (at its first step), and
  loss/dno                    the mean of the expression above; ln 2 = 0.693 at the first step of an iteration
  policy/pairs                pairs that the iteration learns from
  policy/gold_chosen          share of them whose better completion is the gold answer
  policy/win_rate_margin      mean w(y⁺) − w(y⁻) of them
  policy/validation_score     mean score of π_i's completions of validation prompts, sampled; not counted in rollout/tokens
  train/accuracy              share of the batch's pairs where the implicit reward of the better completion is larger
  train/margin                mean difference of the implicit rewards
  train/grad_norm             norm of the gradient before clipping
Figures: best_iteration and best_validation_score, of what is returned; num_iterations stands for the end of the training.
"""

import math
from typing import Any, NamedTuple, Self, TypeAlias

import torch
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor

from tasks.core import seeds
from tasks.core.config import Config, check_divides
from tasks.core.errors import InputError
from tasks.core.run import run
from tasks.core.stage import Stage
from tasks.models.batch import collate, micro_batches
from tasks.models.generate import sample
from tasks.models.language import frozen_copy, save_model
from tasks.models.policy import open_policy
from tasks.models.text import TaskConfig
from tasks.rewards.scorer import Scorer, load_scorer
from tasks.rl.preference_losses import dpo_loss
from tasks.training.demonstrations import load_solutions
from tasks.training.monitor import Monitor, Scored, reference_logprobs
from tasks.training.pairs import summed_logprobs
from tasks.training.prompts import Prompt, load_prompts

Candidate: TypeAlias = tuple[list[int], float]  # token ids and score


class DnoConfig(Config):
    """params.yaml: policy.dno"""

    namespace = "policy.dno"

    num_iterations: PositiveInt
    steps_per_iteration: PositiveInt  # optimizer steps
    rollout_batch_size: PositiveInt  # completions per iteration
    group_size: PositiveInt  # completions per prompt, to which the gold answer comes
    pairs_per_prompt: PositiveInt  # at most; those with the largest margin
    min_margin: float = Field(gt=0, lt=1)  # between the win-rates of a pair
    batch_size: PositiveInt  # pairs
    micro_batch_size: PositiveInt | None  # pairs per backward pass; null: all at once
    learning_rate: PositiveFloat
    temperature: PositiveFloat
    beta: PositiveFloat
    num_validation_prompts: PositiveInt

    @model_validator(mode="after")
    def _sizes(self) -> Self:
        if self.group_size < 2:
            raise ValueError("group_size (1): a pair needs at least 2 completions to compare")
        check_divides("group_size", self.group_size, "rollout_batch_size", self.rollout_batch_size)
        check_divides("micro_batch_size", self.micro_batch_size, "batch_size", self.batch_size)
        return self


class Pair(NamedTuple):
    """Token ids, and what is known of the two completions."""

    prompt: list[int]
    chosen: list[int]
    rejected: list[int]
    margin: float  # of the win-rates
    gold: bool  # the better one is the gold answer


class Best:
    """The policy with the highest validation score so far."""

    def __init__(self, policy: Any):
        self.policy, self.score, self.iteration = frozen_copy(policy), -math.inf, 0

    def offer(self, policy: Any, score: float, iteration: int) -> None:
        if score > self.score:
            self.policy.load_state_dict(policy.state_dict())
            self.score, self.iteration = score, iteration

    def state_dict(self) -> dict[str, Any]:
        return {"policy": self.policy.state_dict(), "score": self.score, "iteration": self.iteration}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.policy.load_state_dict(state["policy"])
        self.score, self.iteration = state["score"], state["iteration"]


def train(config: DnoConfig, stage: Stage) -> None:
    task = stage.params(TaskConfig)
    policy, reference, tokenizer, optimizer = open_policy(stage, stage.dep("models/sft"))
    previous = frozen_copy(policy)  # π_i
    best = Best(policy)
    scorer = load_scorer(stage, tokenizer, task)
    monitor = Monitor(stage, scorer, tokenizer)
    prompts = load_prompts(stage, tokenizer, "train")
    solutions = load_solutions(stage, tokenizer)
    held_out = load_prompts(stage, tokenizer, "validation")[: config.num_validation_prompts]
    if not held_out:
        raise InputError("no validation prompts to choose the best iteration on; let the sources of prepare_data give some")
    stage.resume(policy=policy, previous=previous, best=best, optimizer=optimizer)

    def validation_score() -> float:
        """Of the policy as it is; the same prompts and random numbers each time."""
        rollout = sample(
            policy, tokenizer, [prompt.ids for prompt in held_out],
            max_new_tokens=task.max_new_tokens, temperature=config.temperature,
            generator=seeds.generator(stage.seed, "validation"),
        )  # fmt: skip
        return float(scorer(rollout, [prompt.answer for prompt in held_out])[0].mean())

    num_prompts, iterations_done = config.rollout_batch_size // config.group_size, stage.start // config.steps_per_iteration
    order = seeds.batches(len(prompts), num_prompts, stage.seed, iterations_done)
    pairs: list[Pair] = []
    for step in stage.steps(config.num_iterations * config.steps_per_iteration):
        iteration, position = divmod(step, config.steps_per_iteration)
        scored, of_iteration = None, {}
        if position == 0:
            previous.load_state_dict(policy.state_dict())
            of_iteration = {"policy/validation_score": validation_score()}
            best.offer(policy, of_iteration["policy/validation_score"], iteration)
        if position == 0 or step == stage.start:  # resumed within an iteration: π_i writes the same completions again
            asked = [prompts[i] for i in next(order)]
            rollout = sample(
                previous, tokenizer, [prompt.ids for prompt in asked],
                max_new_tokens=task.max_new_tokens, temperature=config.temperature,
                generator=seeds.generator(stage.seed, "rollout", iteration), group_size=config.group_size,
            )  # fmt: skip
            scores, components = scorer(rollout, [prompt.answer for prompt in asked for _ in range(config.group_size)])
            gold = gold_candidates(scorer, asked, solutions, stage.device)
            written = list(zip(rollout.completions(), scores.tolist(), strict=True))
            pairs = []
            for number, prompt in enumerate(asked):
                group = written[number * config.group_size : (number + 1) * config.group_size]
                pairs += large_margin_pairs(prompt, group, gold.get(prompt.id), config)
            if not pairs and iteration == 0:
                raise InputError(
                    f"no two candidates for a prompt differ by policy.dno.min_margin ({config.min_margin}); lower it"
                )
            if not pairs:
                print(f"{stage.name}: ends before step {step}, no two candidates differ by min_margin any more", flush=True)
                break
            if position == 0:
                scored = Scored(rollout, reference_logprobs(reference, rollout, config.temperature), scores, components)
                of_iteration |= {
                    "policy/pairs": len(pairs),
                    "policy/gold_chosen": sum(pair.gold for pair in pairs) / len(pairs),
                    "policy/win_rate_margin": sum(pair.margin for pair in pairs) / len(pairs),
                }

        chance = seeds.generator(stage.seed, "pairs", step)
        picked = [pairs[i] for i in torch.randperm(len(pairs), generator=chance)[: config.batch_size]]
        parts = []
        for micro in micro_batches(picked, config.micro_batch_size or config.batch_size):
            completions = [pair.chosen for pair in micro] + [pair.rejected for pair in micro]
            batch = collate([pair.prompt for pair in micro] * 2, completions, tokenizer.pad_token_id, stage.device)
            with torch.no_grad():
                previous_logprobs = summed_logprobs(previous, batch)
            chosen, rejected = (summed_logprobs(policy, batch) - previous_logprobs).chunk(2)
            losses = dpo_loss(chosen, rejected, config.beta)
            (losses.sum() / len(picked)).backward()
            parts.append(torch.stack([losses, chosen, rejected]).detach())
        grad_norm = optimizer.constant_step(step, config.learning_rate)

        losses, chosen, rejected = torch.cat(parts, dim=1)
        margins = config.beta * (chosen - rejected)
        alarmed = monitor.log(step, scored, of_iteration | {
            "loss/dno": losses.mean(),
            "train/accuracy": (margins > 0).float().mean(),
            "train/margin": margins.mean(),
            "train/grad_norm": grad_norm,
        })  # fmt: skip
        if alarmed:
            break

    best.offer(policy, validation_score(), config.num_iterations)
    stage.record(best_iteration=best.iteration, best_validation_score=best.score)
    save_model(best.policy, tokenizer, stage.out(f"models/policy/{stage.variant}"))
    stage.report(f"reports/policy/{stage.variant}")


def gold_candidates(scorer: Scorer, asked: list[Prompt], solutions: dict[str, list[int]], device: str) -> dict[str, Candidate]:
    """Prompt id -> its gold answer with its score."""
    known = [prompt for prompt in asked if prompt.id in solutions]
    if not known:
        return {}
    answers = [solutions[prompt.id] for prompt in known]
    batch = collate([prompt.ids for prompt in known], answers, scorer.tokenizer.pad_token_id, device)
    scores, _ = scorer(batch, [prompt.answer for prompt in known])
    return {prompt.id: (ids, score) for prompt, ids, score in zip(known, answers, scores.tolist(), strict=True)}


def large_margin_pairs(prompt: Prompt, written: list[Candidate], gold: Candidate | None, config: DnoConfig) -> list[Pair]:
    """The pairs_per_prompt pairs of different completions with the largest margins, those of at least min_margin."""
    candidates = [*written, gold] if gold else written
    rates = win_rates(torch.tensor([score for _, score in candidates], dtype=torch.float64))
    margins = (rates[:, None] - rates[None, :]).flatten()
    pairs: list[Pair] = []
    for place in margins.argsort(descending=True, stable=True).tolist():
        better, worse = divmod(place, len(candidates))
        if len(pairs) == config.pairs_per_prompt or margins[place] < config.min_margin:
            break
        chosen, rejected = candidates[better][0], candidates[worse][0]
        if (chosen, rejected) not in [(pair.chosen, pair.rejected) for pair in pairs]:
            pairs.append(Pair(prompt.ids, chosen, rejected, float(margins[place]), better == len(written)))
    return pairs


def win_rates(scores: Tensor) -> Tensor:
    """Chance of each candidate to be preferred to another one of the same prompt: (candidates,), P(i ≻ j) = σ(s_i − s_j)."""
    preferences = torch.sigmoid(scores[:, None] - scores[None, :])
    return (preferences.sum(1) - 0.5) / (len(scores) - 1)  # it is not asked to beat itself


if __name__ == "__main__":
    run(DnoConfig, train)
