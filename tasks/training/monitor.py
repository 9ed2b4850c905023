"""What every algorithm reports of its completions, under the same names: collapse must look the same everywhere.

rollout/score_mean, rollout/score_std   the scores that are optimized, before any KL
rollout/<component>_mean                each reward component by itself; `verifier` is the share of right answers, optimized
                                        or not
rollout/<component>_share               of several weighted components: its part of the spread of the scores
rollout/kl_mean                         KL(π‖π_ref) of a completion, estimator k1, in nats
rollout/ref_perplexity                  perplexity of the completions' tokens under the reference: text that stays fluent
                                        stays low
rollout/entropy                         entropy of the policy at the sampled tokens, in nats
rollout/completion_length               tokens
rollout/eos_rate                        share of completions that ended by themselves
rollout/repetition                      share of a completion's 4-grams of tokens that it had already said, mean
rollout/tokens                          sampled in this step to train on: the sum over the steps is the budget that was spent
alarm/<name>                            1 where an alarm of tasks/training/alarms.py holds

An algorithm that samples passes its rollouts. One that trains on recorded data passes what a Probe samples now and then.
"""

import sys
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tasks.core import seeds
from tasks.core.errors import InputError
from tasks.core.files import Row
from tasks.core.stage import Stage
from tasks.models.compute import at_once
from tasks.models.generate import Rollout, sample
from tasks.models.text import TaskConfig, decode
from tasks.rewards.scorer import Scorer
from tasks.rl.logprobs import completion_logprobs
from tasks.rl.masking import masked_mean
from tasks.training.alarms import AlarmsConfig, alarms
from tasks.training.prompts import load_prompts

PROBES, PROBE_PROMPTS, ROWS_AT_ONCE = 12, 64, 64  # 12 probes: an alarm's window fills twice


class Scored(NamedTuple):
    """Completions with what is known of them; tensors as the algorithms name them."""

    rollout: Rollout
    ref_logprobs: Tensor  # (batch, time)
    scores: Tensor  # (batch,)
    components: dict[str, Tensor]  # each (batch,)
    trained_on: bool = True


class Monitor:
    """Logs each step; says when an alarm is to end the training."""

    def __init__(self, stage: Stage, scorer: Scorer, tokenizer: Any):
        self.stage, self.scorer, self.tokenizer = stage, scorer, tokenizer
        self.alarms = stage.params(AlarmsConfig)

    def log(self, step: int, scored: Scored | None, values: dict[str, Any]) -> bool:
        """values: what the algorithm itself has to say of the step. scored: None at a step without completions.

        True if an alarm that `alarms.stop` names has been raised: the algorithm leaves its loop and keeps what it has.
        """
        if scored is None:
            self.stage.log(step, values)
            return False
        metrics = {key: round(float(value), 6) for key, value in (rollout_metrics(scored, self.scorer) | values).items()}
        raised = alarms([*self.stage.history, metrics], self.alarms)
        before = {key for row in self.stage.history for key in row if key.startswith("alarm/")}
        samples = sample_rows(step, scored, self.tokenizer) if step % 10 == 0 or not scored.trained_on else None
        self.stage.log(step, metrics | {f"alarm/{name}": 1 for name in raised}, samples=samples)
        for name in [name for name in raised if f"alarm/{name}" not in before]:
            print(f"{self.stage.name}: alarm {name} at step {step}: {raised[name]}", file=sys.stderr)
            self.stage.tracker.tag(f"alarm.{name}", f"step {step}: {raised[name]}")
        stopping = sorted(raised.keys() & set(self.alarms.stop))
        if stopping:
            print(f"{self.stage.name}: stopped after step {step} by {', '.join(stopping)}", file=sys.stderr)
        return bool(stopping)


class Probe:
    """Samples on validation prompts at `PROBES` steps, for algorithms that train on recorded data."""

    def __init__(self, monitor: Monitor, reference: Any, task: TaskConfig, num_steps: int):
        self.stage, self.scorer, self.tokenizer = monitor.stage, monitor.scorer, monitor.tokenizer
        self.reference, self.task = reference, task
        self.prompts = load_prompts(self.stage, self.tokenizer, "validation")[:PROBE_PROMPTS]
        if not self.prompts:
            raise InputError("no validation prompts to watch the policy on; let the sources of prepare_data give some")
        self.steps = {round(k * (num_steps - 1) / (PROBES - 1)) for k in range(PROBES)}

    def __call__(self, policy: Any, step: int) -> Scored | None:
        """The same random numbers at every step, so that what changes is the policy. None where no probe is due."""
        if step not in self.steps:
            return None
        rollout = sample(
            policy, self.tokenizer, [prompt.ids for prompt in self.prompts],
            max_new_tokens=self.task.max_new_tokens, temperature=1.0, generator=seeds.generator(self.stage.seed, "probe"),
        )  # fmt: skip
        scores, components = self.scorer(rollout, [prompt.answer for prompt in self.prompts])
        return Scored(rollout, reference_logprobs(self.reference, rollout, 1.0), scores, components, trained_on=False)


@torch.no_grad()
def reference_logprobs(reference: Any, rollout: Rollout, temperature: float) -> Tensor:
    """log π_ref of the sampled tokens: (batch, time), in nats."""
    logprobs = torch.zeros_like(rollout.logprobs)
    for rows, micro in rollout.micro_batches(at_once(reference, ROWS_AT_ONCE)):
        logprobs[rows, : micro.time] = completion_logprobs(reference, micro, temperature)
    return logprobs


def rollout_metrics(scored: Scored, scorer: Scorer) -> dict[str, Any]:
    rollout, mask = scored.rollout, scored.rollout.completion_mask
    return {
        "rollout/score_mean": scored.scores.mean(),
        "rollout/score_std": scored.scores.std(correction=0),
        **{f"rollout/{name}_mean": values.mean() for name, values in scored.components.items()},
        **{f"rollout/{name}_share": share for name, share in scorer.shares(scored.components).items()},
        "rollout/kl_mean": ((rollout.logprobs - scored.ref_logprobs) * mask).sum(1).mean(),
        "rollout/ref_perplexity": masked_mean(-scored.ref_logprobs, mask).exp(),
        "rollout/entropy": masked_mean(rollout.entropy, mask),
        "rollout/completion_length": rollout.lengths.float().mean(),
        "rollout/eos_rate": rollout.finished.float().mean(),
        "rollout/repetition": repetition(rollout.completions()),
        **({"rollout/tokens": rollout.lengths.sum()} if scored.trained_on else {}),
    }


def repetition(completions: list[list[int]], n: int = 4) -> float:
    """Share of a completion's n-grams that occurred in it before, mean over completions; one without n-grams counts 0."""
    shares = []
    for ids in completions:
        grams = [tuple(ids[i : i + n]) for i in range(len(ids) - n + 1)]
        shares.append(1 - len(set(grams)) / len(grams) if grams else 0.0)
    return sum(shares) / len(shares)


def sample_rows(step: int, scored: Scored, tokenizer: Any, count: int = 4) -> list[Row]:
    """One completion of each of the first prompts with its score and components, to be read by a person."""
    prompts, completions = scored.rollout.prompts(), scored.rollout.completions()
    first = {tuple(ids): index for index, ids in reversed([*enumerate(prompts)])}
    return [
        {
            "step": step, "prompt": decode(tokenizer, prompts[index]), "completion": decode(tokenizer, completions[index]),
            "score": round(float(scored.scores[index]), 3),
            **{name: round(float(values[index]), 3) for name, values in scored.components.items()},
        }
        for index in sorted(first.values())[:count]
    ]  # fmt: skip
