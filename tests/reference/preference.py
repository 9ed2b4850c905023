"""Slow obvious twins of tasks/rl/preference_losses.py: one completion, one token, one number at a time, in Python floats.

A completion is a list of pairs (log π, log π_ref), one per token. Losses of a batch are means over its pairs, its completions
or its groups, as the algorithms take them.
"""

import math
from collections.abc import Callable, Sequence

Completion = Sequence[tuple[float, float]]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def logratio(completion: Completion) -> float:
    total = 0.0
    for logprob, ref_logprob in completion:
        total += logprob - ref_logprob
    return total


def mean_logprob(completion: Completion) -> float:
    total = 0.0
    for logprob, _ in completion:
        total += logprob
    return total / len(completion)


def dpo_positive(
    chosen: Sequence[Completion], rejected: Sequence[Completion], beta: float, penalty_coef: float, penalty_in: str
) -> float:
    total = 0.0
    for good, bad in zip(chosen, rejected, strict=True):
        lost = penalty_coef * max(0.0, -logratio(good))
        if penalty_in == "margin":
            total += -math.log(sigmoid(beta * (logratio(good) - logratio(bad) - lost)))
        else:
            total += -math.log(sigmoid(beta * (logratio(good) - logratio(bad)))) + lost
    return total / len(chosen)


def orpo(chosen: Sequence[Completion], rejected: Sequence[Completion], odds_ratio_coef: float) -> float:
    total = 0.0
    for good, bad in zip(chosen, rejected, strict=True):
        p_good, p_bad = math.exp(mean_logprob(good)), math.exp(mean_logprob(bad))
        odds_ratio = (p_good / (1 - p_good)) / (p_bad / (1 - p_bad))
        total += -math.log(p_good) - odds_ratio_coef * math.log(sigmoid(math.log(odds_ratio)))
    return total / len(chosen)


def kto_baseline(mismatched: Sequence[Completion]) -> float:
    return max(0.0, sum(logratio(completion) for completion in mismatched) / len(mismatched))


def kto(
    completions: Sequence[Completion], desirable: Sequence[bool], baseline: float, beta: float, weights: tuple[float, float]
) -> float:
    """weights: of a desirable and of an undesirable completion. baseline: a number, so that it has no gradient."""
    total = 0.0
    for completion, good in zip(completions, desirable, strict=True):
        if good:
            total += weights[0] * (1 - sigmoid(beta * (logratio(completion) - baseline)))
        else:
            total += weights[1] * (1 - sigmoid(beta * (baseline - logratio(completion))))
    return total / len(completions)


def rrhf(groups: Sequence[Sequence[Completion]], scores: Sequence[Sequence[float]], sft_coef: float) -> float:
    """Ranking: a mean over groups of sums over pairs. Imitation: a mean over the tokens of the best completions."""
    ranking, nll, tokens = 0.0, 0.0, 0
    for group, marks in zip(groups, scores, strict=True):
        for low, low_mark in zip(group, marks, strict=True):
            for high, high_mark in zip(group, marks, strict=True):
                if low_mark < high_mark:
                    ranking += max(0.0, mean_logprob(low) - mean_logprob(high))
        best = group[list(marks).index(max(marks))]
        for logprob, _ in best:
            nll -= logprob
            tokens += 1
    return ranking / len(groups) + sft_coef * nll / tokens


def all_pairs(scores: Sequence[float], ranks: Sequence[float], rankings: Sequence[int]) -> float:
    """Mean over rankings of the mean over their pairs without a tie, in the form log(1 + exp(−d))."""
    means = []
    for ranking in sorted(set(rankings)):
        inside = [i for i, of in enumerate(rankings) if of == ranking]
        pairs = [(i, j) for i in inside for j in inside if ranks[i] < ranks[j]]
        losses = [math.log(1 + math.exp(scores[j] - scores[i])) for i, j in pairs]
        means.append(sum(losses) / len(losses) if losses else 0.0)
    return sum(means) / len(means)


def plackett_luce(scores: Sequence[float], ranks: Sequence[float], rankings: Sequence[int]) -> float:
    """Mean over rankings of −log of the product of the chances of each choice."""
    total = 0.0
    for ranking in set(rankings):
        chance = 1.0
        inside = [i for i, of in enumerate(rankings) if of == ranking]
        for i in inside:
            chance *= math.exp(scores[i]) / sum(math.exp(scores[j]) for j in inside if not ranks[j] < ranks[i])
        total -= math.log(chance)
    return total / len(set(rankings))


def gradient(loss: Callable[[list[Completion]], float], completions: Sequence[Completion]) -> list[list[float]]:
    """∂ loss / ∂ log π of every token, by moving one token at a time a little up and down."""
    step = 1e-5

    def moved(row: int, t: int, by: float) -> float:
        changed = [list(completion) for completion in completions]
        logprob, ref_logprob = changed[row][t]
        changed[row][t] = (logprob + by, ref_logprob)
        return loss([*changed])

    return [
        [(moved(row, t, step) - moved(row, t, -step)) / (2 * step) for t in range(len(completion))]
        for row, completion in enumerate(completions)
    ]
