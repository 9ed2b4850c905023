"""How much there is to win where a log repeats its calls: what of the differences between prompts is real, what r̂ knows of it.

The rate of a prompt on a query is its chance plus the luck of the calls, and repeated calls measure the luck: a rate of n calls
has the variance p(1-p)/n, estimated without bias by rate · (1 - rate) / (n - 1). A contrast is the rate of a prompt less that
of the best one.

real_share       variance of the contrasts, without that of the luck, over the whole
ceiling_success  success if every chance were known: means and covariance of the chances are the measured ones without the luck,
                 and chances are normal, cut off at 0 and 1
explained_share  of the real variance of the contrasts, by those that r̂ predicts
slope            of the true contrasts on the predicted ones; 1: r̂ shrinks them as it should
"""

import numpy as np

from tasks.prompt_oirl.answers import Answers, Array

ENOUGH = 50  # queries with repeated calls
DRAWS = 20000


def noise_figures(chances: Array, answers: Answers, best: int, seed: int) -> dict[str, float]:
    """Of the queries asked at least twice under every prompt; empty if these are fewer than ENOUGH. best: column."""
    rows = np.flatnonzero((answers.calls >= 2).all(axis=1))
    if len(rows) < ENOUGH or len(answers.prompts) < 2:
        return {}
    chances, answers = chances[rows], answers.of_rows(rows)
    rates = answers.rates
    luck = (rates * (1 - rates) / (answers.calls - 1)).mean(axis=0)
    others = [column for column in range(rates.shape[1]) if column != best]
    contrasts, predicted = (table[:, others] - table[:, [best]] for table in (rates, chances))
    total = contrasts.var(axis=0)
    real = np.maximum(total - luck[others] - luck[best], 1e-9)
    centred = predicted - predicted.mean(axis=0)
    together = (centred * contrasts).mean(axis=0)
    spread = np.maximum(centred.var(axis=0), 1e-12)
    return {
        "real_share": float(real.sum() / total.sum()),
        "ceiling_success": ceiling(rates, luck, seed),
        "explained_share": float((together**2 / spread).sum() / real.sum()),
        "slope": float(together.sum() / spread.sum()),
    }


def ceiling(rates: Array, luck: Array, seed: int) -> float:
    covariance = np.cov(rates, rowvar=False) - np.diag(luck)
    values, axes = np.linalg.eigh(covariance)
    steps = np.random.default_rng(seed).standard_normal((DRAWS, len(luck))) * np.sqrt(np.maximum(values, 0))
    return float(np.clip(rates.mean(axis=0) + steps @ axes.T, 0, 1).max(axis=1).mean())
