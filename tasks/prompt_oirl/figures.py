"""What a table of chances is worth on queries that no part of it has seen. Every question counts by its calls.

success                share of right answers when each query gets its likeliest prompt
best_prompt_success    the same for the single prompt that did best on the training queries
gain                   success - best_prompt_success; gain_low, gain_high: 95 % bootstrap interval over questions
random_success, oracle_success   mean over prompts; best prompt of each query in hindsight, by its rate
accuracy, precision    of r̂ > 0.5 as a prediction of a right answer, over all calls; precision may be absent
auc, log_loss          of r̂, over all calls; auc is absent if all answers are alike
"""

from typing import Any

import numpy as np

from tasks.prompt_oirl.answers import Answers, Array, Rows

BOOTSTRAP_SAMPLES = 2000


def figures(chances: Array, answers: Answers, best: Rows, seed: int) -> dict[str, float]:
    """chances: (queries, prompts); best: (queries,) column of the best training prompt, which may differ between folds."""
    every, choice = np.arange(len(answers)), chances.argmax(axis=1)
    right = answers.right[every, choice] / answers.calls[every, choice] * answers.passes
    right_of_best = answers.right[every, best] / answers.calls[every, best] * answers.passes
    low, high = weighted_bootstrap(right - right_of_best, answers.passes, seed)
    total = answers.passes.sum()
    positive = chances > 0.5
    wrong = answers.calls - answers.right
    clipped = np.clip(chances, 1e-6, 1 - 1e-6)
    result = {
        "success": right.sum() / total,
        "best_prompt_success": right_of_best.sum() / total,
        "gain": (right - right_of_best).sum() / total,
        "gain_low": low,
        "gain_high": high,
        "random_success": float(answers.success.mean()),
        "oracle_success": (answers.rates.max(axis=1) * answers.passes).sum() / total,
        "accuracy": np.where(positive, answers.right, wrong).sum() / answers.calls.sum(),
        "log_loss": -(answers.right * np.log(clipped) + wrong * np.log(1 - clipped)).sum() / answers.calls.sum(),
    }
    if positive.any():
        result["precision"] = answers.right[positive].sum() / answers.calls[positive].sum()
    if 0 < answers.right.sum() < answers.calls.sum():
        result["auc"] = auc(chances, answers)
    return {name: float(value) for name, value in result.items()}


def auc(chances: Array, answers: Answers) -> float:
    """Chance that a right call is ranked above a wrong one, ties counting half (Mann & Whitney 1947)."""
    from sklearn.metrics import roc_auc_score

    weights = np.concatenate([answers.right.ravel(), (answers.calls - answers.right).ravel()])
    labels = np.repeat([1, 0], answers.right.size)
    return float(roc_auc_score(labels, np.tile(chances.ravel(), 2), sample_weight=weights))


def weighted_bootstrap(sums: Array, weights: Array, seed: int) -> tuple[float, float]:
    """95 % percentile interval of sums/weights, questions drawn with replacement: their calls stay together."""
    chance = np.random.default_rng(seed)
    ratios = []
    for _ in range(BOOTSTRAP_SAMPLES):
        drawn: Any = chance.integers(0, len(sums), len(sums))
        ratios.append(sums[drawn].sum() / weights[drawn].sum())
    low, high = np.quantile(ratios, [0.025, 0.975])
    return float(low), float(high)
