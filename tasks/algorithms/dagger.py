"""DAgger: the expert says what to write in the states that the policy itself gets into; the policy imitates that.

    D ← D ∪ {(s, π*(s)) : s visited by π},   minimize  −Σ_t log π(π*(s_t) | s_t)  over D,   s_t = (x, y_<t), y from π

Ross, Gordon & Bagnell 2011, algorithm 3.1. SFT trains on the states of its demonstrations; where its own slips lead it has
never been shown anything, so errors compound. Here every rollout is the policy's own, and a label is one token: what the
expert would write next. The model reads what the policy wrote and is asked for what the expert says.

What the expert says (`expert`)
  solver        the prompt's `solution`, token by token, as long as the policy follows it, and what it should have written
                where it first departs; after that nothing: a wrong step is not taken back, and what goes on from it right is
                still wrong at the end. A correct solution by another route counts
                as a departure.
  a model       by folder or hub name, pinned by `expert_revision`: its likeliest token in every state, right or wrong.

How this differs from the paper
  - β_i is 0 throughout: the demonstrations that SFT cloned are the first iteration, and they are no part of D, as those who
    wrote them err and the expert does not.
  - The policy goes on from its weights with updates_per_step optimizer steps on batches of D, instead of being trained anew
    on D in each iteration; what is returned is the last policy, not the best of all.

Tried and dropped: a solver that takes the solution up again after a wrong step, so that the right step would stand below the
wrong one and the final number be right after all. The policy learned to go on instead of to be right: its
greedy accuracy fell.

Metrics: those of tasks/training/monitor.py, and
  loss/nll                 mean negative log-likelihood of the labels, in nats, mean over the updates of the step
  policy/labelled          share of the visited states in which the expert says something
  policy/agreement         share of those in which the policy had written just that
  train/states             labelled states in D
  train/grad_norm          norm of the gradient of the last update, before clipping
"""

from typing import Any, Self

import torch
from pydantic import PositiveFloat, PositiveInt, model_validator

from tasks.core import seeds
from tasks.core.config import Config, check_divides
from tasks.core.errors import InputError
from tasks.core.run import run
from tasks.core.stage import Stage
from tasks.models.batch import collate, pad
from tasks.models.check import check_architecture
from tasks.models.external import pinned
from tasks.models.generate import Rollout, sample
from tasks.models.language import load_model, save_model
from tasks.models.policy import open_policy
from tasks.models.reward import same_ids
from tasks.models.text import TaskConfig
from tasks.models.tokenizer import load_tokenizer
from tasks.rewards.scorer import load_scorer
from tasks.rl.logprobs import label_logprobs, likeliest_tokens
from tasks.rl.masking import reduce_tokens
from tasks.training.demonstrations import load_solutions
from tasks.training.monitor import Monitor, Scored, reference_logprobs
from tasks.training.prompts import Prompt, load_prompts

SILENT = -1  # the label where the expert says nothing


class DaggerConfig(Config):
    """params.yaml: policy.dagger"""

    namespace = "policy.dagger"

    expert: str  # solver, or a model's folder or hub name
    expert_revision: str | None
    num_steps: PositiveInt
    rollout_batch_size: PositiveInt  # completions per step
    group_size: PositiveInt  # completions per prompt
    updates_per_step: PositiveInt  # optimizer steps on D after each rollout
    batch_size: PositiveInt  # completions of D per optimizer step
    micro_batch_size: PositiveInt | None  # completions of D per backward pass; null: all at once
    learning_rate: PositiveFloat
    temperature: PositiveFloat

    @model_validator(mode="after")
    def _sizes(self) -> Self:
        check_divides("group_size", self.group_size, "rollout_batch_size", self.rollout_batch_size)
        check_divides("micro_batch_size", self.micro_batch_size, "batch_size", self.batch_size)
        if self.batch_size > self.rollout_batch_size:
            raise ValueError(
                f"batch_size ({self.batch_size}) must be at most rollout_batch_size ({self.rollout_batch_size}): "
                "D holds no more completions after the first step"
            )
        return self


class Solver:
    """Knows the solution of every prompt."""

    def __init__(self, prompts: list[Prompt], solutions: dict[str, list[int]]):
        unsolved = next((prompt.id for prompt in prompts if prompt.id not in solutions), None)
        if unsolved is not None:
            raise InputError(
                f"data/prepared/prompts.parquet: prompt {unsolved} has no `solution` that the solver could say; "
                "set `policy.dagger.expert` to a model"
            )
        self.solutions = [solutions[prompt.id] for prompt in prompts]

    def labels(self, asked: list[int], rollout: Rollout) -> list[list[int]]:
        """asked: the prompt of each completion, as its number."""
        written = zip(asked, rollout.completions(), strict=True)
        return [followed(ids, self.solutions[prompt]) for prompt, ids in written]


class Model:
    """Another language model over the same tokens."""

    def __init__(self, config: DaggerConfig, tokenizer: Any, device: str):
        source = pinned(config.expert, config.expert_revision, config.namespace, "expert")
        self.model = load_model(source, device, config.expert_revision).requires_grad_(False).eval()
        if not same_ids(tokenizer, load_tokenizer(source, config.expert_revision)):
            raise InputError(
                f"the tokenizer of {config.expert} is not that of models/sft, so its tokens are no labels for the policy; "
                "set `policy.dagger.expert` to a model that reads by the same one"
            )
        check_architecture(self.model, tokenizer)

    def labels(self, asked: list[int], rollout: Rollout) -> list[list[int]]:
        says = torch.full_like(rollout.completion_ids, SILENT)
        for rows, micro in rollout.micro_batches(64):
            says[rows, : micro.time] = likeliest_tokens(self.model, micro)
        return [row[:length] for row, length in zip(says.tolist(), rollout.lengths.tolist(), strict=True)]


class Aggregate:
    """D: for each completion the number of its prompt, its token ids, and a label for each."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, list[int], list[int]]] = []

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rows = list(state["rows"])


def followed(completion: list[int], solution: list[int]) -> list[int]:
    """What the solver says at each token of the completion: the solution's, until one after the first departure from it."""
    same = [token == right for token, right in zip(completion, solution, strict=False)]
    said = same.index(False) + 1 if False in same else len(same)
    return solution[:said] + [SILENT] * (len(completion) - said)


def train(config: DaggerConfig, stage: Stage) -> None:
    task = stage.params(TaskConfig)
    policy, reference, tokenizer, optimizer = open_policy(stage, stage.dep("models/sft"))
    scorer = load_scorer(stage, tokenizer, task)
    monitor = Monitor(stage, scorer, tokenizer)
    prompts = load_prompts(stage, tokenizer, "train")
    expert: Solver | Model
    if config.expert == "solver":
        expert = Solver(prompts, load_solutions(stage, tokenizer))
    else:
        expert = Model(config, tokenizer, stage.device)
    aggregate = Aggregate()
    stage.resume(policy=policy, optimizer=optimizer, aggregate=aggregate)

    order = seeds.batches(len(prompts), config.rollout_batch_size // config.group_size, stage.seed, stage.start)
    for step in stage.steps(config.num_steps):
        asked = [i for i in next(order) for _ in range(config.group_size)]
        rollout = sample(
            policy, tokenizer, [prompts[i].ids for i in asked[:: config.group_size]],
            max_new_tokens=task.max_new_tokens, temperature=config.temperature,
            generator=seeds.generator(stage.seed, "rollout", step), group_size=config.group_size,
        )  # fmt: skip
        labels = expert.labels(asked, rollout)
        aggregate.rows += zip(asked, rollout.completions(), labels, strict=True)

        updates = []
        for update in range(config.updates_per_step):
            chance = seeds.generator(stage.seed, "aggregate", step, update)
            indices = torch.randperm(len(aggregate.rows), generator=chance)[: config.batch_size]
            rows = [aggregate.rows[i] for i in indices]
            batch = collate([prompts[i].ids for i, _, _ in rows], [y for _, y, _ in rows], tokenizer.pad_token_id, stage.device)
            says = pad([said for _, _, said in rows], SILENT, left=False)[0].to(stage.device)

            loss, size = torch.zeros((), device=stage.device), config.micro_batch_size or config.batch_size
            for micro, labelled in zip(batch.split(size), says.split(size), strict=True):
                labelled = labelled[:, : micro.time]
                losses = -label_logprobs(policy, micro, labelled.clamp(min=0))
                nll = reduce_tokens(losses, labelled != SILENT, "token_mean", full_mask=says != SILENT)
                nll.backward()
                loss += nll.detach()
            grad_norm = optimizer.constant_step(step, config.learning_rate)
            updates.append(loss)

        ref_logprobs = reference_logprobs(reference, rollout, config.temperature)
        scores, components = scorer(rollout, [prompts[i].answer for i in asked])
        alarmed = monitor.log(step, Scored(rollout, ref_logprobs, scores, components), {
            "loss/nll": torch.stack(updates).mean(),
            **agreement(rollout.completions(), labels),
            "train/states": sum(label != SILENT for _, _, said in aggregate.rows for label in said),
            "train/grad_norm": grad_norm,
        })  # fmt: skip
        if alarmed:
            break

    save_model(policy, tokenizer, stage.out(f"models/policy/{stage.variant}"))
    stage.report(f"reports/policy/{stage.variant}")


def agreement(completions: list[list[int]], labels: list[list[int]]) -> dict[str, float]:
    """policy/labelled and policy/agreement."""
    visited = [pair for written, said in zip(completions, labels, strict=True) for pair in zip(written, said, strict=True)]
    labelled = [token == label for token, label in visited if label != SILENT]
    return {
        "policy/labelled": len(labelled) / len(visited),
        "policy/agreement": sum(labelled) / max(len(labelled), 1),
    }


if __name__ == "__main__":
    run(DaggerConfig, train)
