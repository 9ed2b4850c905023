"""What is gained without training a policy: the SFT model at a lower temperature, and the best of several of its samples."""

from collections.abc import Iterator, Sequence
from math import comb, log
from typing import Any

from tasks.core import seeds
from tasks.core.files import Row
from tasks.core.stage import Stage
from tasks.core.statistics import paired_bootstrap
from tasks.evaluation.answers import Answers, num_right
from tasks.models.compute import at_once
from tasks.models.generate import ROWS_AT_ONCE, Rollout, sample
from tasks.models.text import TaskConfig, decode
from tasks.training.prompts import Prompt

COOL = 0.7  # temperature


def rollouts(
    model: Any,
    tokenizer: Any,
    ids: list[list[int]],
    temperature: float,
    samples_per_prompt: int,
    task: TaskConfig,
    stage: Stage,
) -> Iterator[tuple[int, Rollout]]:
    """(place of the first prompt, samples of as many prompts as fit at once). The noise is the same for every model."""
    prompts_at_once = max(1, at_once(model, ROWS_AT_ONCE) // samples_per_prompt)
    for begin in range(0, len(ids), prompts_at_once):
        yield begin, sample(
            model, tokenizer, ids[begin : begin + prompts_at_once], max_new_tokens=task.max_new_tokens, temperature=temperature,
            generator=seeds.generator(stage.seed, "test samples", begin), group_size=samples_per_prompt,
        )  # fmt: skip


def cool_samples(
    model: Any, tokenizer: Any, prompts: Sequence[Prompt], samples_per_prompt: int, task: TaskConfig, stage: Stage
) -> tuple[list[list[str]], float]:
    """Samples of each prompt at the lower temperature, and the model's entropy at a token."""
    texts, entropy, tokens = [], 0.0, 0
    for _, rollout in rollouts(model, tokenizer, [prompt.ids for prompt in prompts], COOL, samples_per_prompt, task, stage):
        texts += [decode(tokenizer, ids) for ids in rollout.completions()]
        entropy += float((rollout.entropy * rollout.completion_mask).sum())
        tokens += int(rollout.lengths.sum())
    return in_groups(texts, samples_per_prompt), entropy / tokens


def best_of_n(answers: Answers, prompts: Sequence[Prompt], verifier: str, bootstrap_samples: int, seed: int) -> list[Row]:
    """A row for each n: score and right answers of the sample that the reward model likes best of n of the model's."""
    right = [
        num_right([[text] for text in texts], [prompt] * len(texts), verifier)
        for texts, prompt in zip(answers.sampled, prompts, strict=True)
    ]
    return best_of_rows(answers.sampled_scores, right if all(right) else [], bootstrap_samples, seed)


def best_of_rows(
    scores: Sequence[Sequence[float]], right: Sequence[Sequence[int]], bootstrap_samples: int, seed: int
) -> list[Row]:
    """scores, right: by prompt, of each sample; right is empty where prompts have no answers.

    Of N samples every choice of n counts alike: the i-th best of them, from 0, is the best of n in C(N−1−i, n−1) of C(N, n).
    kl: of best-of-n from the model, log n − (n−1)/n, an upper bound that is close where samples differ (Beirami et al. 2024).
    """
    size = len(scores[0])
    ranked = [sorted(range(size), key=group.__getitem__, reverse=True) for group in scores]
    rows = []
    for n in range(1, size + 1):
        weights = [comb(size - 1 - i, n - 1) / comb(size, n) for i in range(size)]
        found: Row = {"n": n, "kl": log(n) - (n - 1) / n}
        for key, values in {"score": scores, "sampled_accuracy": right}.items():
            if values:
                means = [
                    sum(weight * group[place] for weight, place in zip(weights, order, strict=True))
                    for group, order in zip(values, ranked, strict=True)
                ]
                mean, low, high = paired_bootstrap(means, bootstrap_samples, seed)
                found |= {key: mean, f"{key}_low": low, f"{key}_high": high}
        rows.append(found)
    return rows


def in_groups(values: list[Any], size: int) -> list[list[Any]]:
    return [values[place : place + size] for place in range(0, len(values), size)]
