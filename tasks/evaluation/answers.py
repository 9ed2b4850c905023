"""What a model wrote to the test prompts, and who of two models wrote the better completion."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from tasks.rewards.verifier import is_correct
from tasks.training.prompts import Prompt

Judge: TypeAlias = Literal["verifier", "reward_model"]


@dataclass
class Answers:
    """One entry per prompt. Of the greedy completion: greedy, greedy_scores; of every sampled one: sampled, sampled_scores; of
    the first sampled one: the rest."""

    greedy: list[str]
    sampled: list[list[str]]
    greedy_scores: list[float]
    sampled_scores: list[list[float]]
    kl: list[float]
    base_nll: list[float]  # of the whole completion under the base model, in nats
    entropy: list[float]  # summed over its tokens, in nats
    lengths: list[int]
    finished: list[bool]


def num_right(completions: Sequence[Sequence[str]], prompts: Sequence[Prompt], verifier: str) -> list[int]:
    """How many completions of each prompt are right; nothing if there is a prompt without an answer."""
    if any(prompt.answer is None for prompt in prompts):
        return []
    pairs = zip(completions, prompts, strict=True)
    return [sum(bool(is_correct(text, prompt.answer, verifier)) for text in texts) for texts, prompt in pairs]


def outcomes(one: Answers, other: Answers, prompts: Sequence[Prompt], judge: Judge, verifier: str) -> list[int]:
    """Of each prompt, over its samples, which share their random numbers: how many `one` won less those that it lost."""
    if judge == "verifier":
        ours, theirs = (num_right(each.sampled, prompts, verifier) for each in (one, other))
        return [a - b for a, b in zip(ours, theirs, strict=True)]
    pairs = zip(one.sampled_scores, other.sampled_scores, strict=True)
    return [sum((a > b) - (a < b) for a, b in zip(ours, theirs, strict=True)) for ours, theirs in pairs]


def wins(outcomes: Sequence[int], samples: int) -> list[float]:
    """The share of the samples of each prompt that were won; a tie is half a win."""
    return [(each / samples + 1) / 2 for each in outcomes]
