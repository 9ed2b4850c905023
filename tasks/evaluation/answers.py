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
    """Of each prompt, by the greedy completions: 1 if `one` is better, -1 if `other` is, 0 if they are alike."""
    if judge == "verifier":
        ours, theirs = (num_right([[text] for text in each.greedy], prompts, verifier) for each in (one, other))
        return [a - b for a, b in zip(ours, theirs, strict=True)]
    return [(a > b) - (a < b) for a, b in zip(one.greedy_scores, other.greedy_scores, strict=True)]
