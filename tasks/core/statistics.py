"""Intervals: a number without one is not a result."""

from collections import Counter
from collections.abc import Sequence

import numpy as np


def wilson(successes: float, trials: int, z: float = 1.96) -> tuple[float, float, float]:
    """Share and its 95 % interval, Wilson 1927: honest for small samples and for shares near 0 or 1."""
    share = successes / trials
    center = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * (share * (1 - share) / trials + z * z / (4 * trials * trials)) ** 0.5
    return share, max(0.0, center - half), min(1.0, center + half)


def paired_bootstrap(differences: Sequence[float], samples: int, seed: int) -> tuple[float, float, float]:
    """Mean of per-prompt figures (differences, or wins as 1 / 0.5 / 0) and its 95 % interval over prompts.

    Percentile bootstrap, Efron 1979: prompts are drawn with replacement, so both sides of each comparison stay together.
    """
    values = np.asarray(differences, dtype=np.float64)
    chance = np.random.default_rng(seed)
    means = values[chance.integers(0, len(values), size=(samples, len(values)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(values.mean()), float(low), float(high)


def over_seeds(by_seed: Sequence[Sequence[float]], same_prompts: bool) -> tuple[float, float, float]:
    """Mean over seeds of per-prompt figures and its 95 % interval, with the seed as the unit of replication.

    Where every seed has prompts of its own, the means of the seeds vary by training and by prompts alike, so Student's t on
    them (1908) is the whole interval. same_prompts: the i-th figure of every seed is of the same prompt; then all seeds share
    the luck of the prompts, whose variance is added, which errs to the wide side (two crossed random effects, Owen 2007, "The
    pigeonhole bootstrap"). A percentile bootstrap over three seeds would be far too narrow. One seed says nothing about others:
    its interval is infinite.
    """
    from scipy.special import stdtrit

    means = np.array([np.mean(figures) for figures in by_seed], dtype=np.float64)
    mean = float(means.mean())
    if len(means) < 2:
        return mean, -np.inf, np.inf
    variance = means.var(ddof=1) / len(means)
    if same_prompts:
        by_prompt = np.asarray(by_seed, dtype=np.float64).mean(axis=0)
        variance += by_prompt.var(ddof=1) / len(by_prompt) if len(by_prompt) > 1 else 0.0
    half = float(stdtrit(len(means) - 1, 0.975) * variance**0.5)
    return mean, mean - half, mean + half


def sign_flip(differences: Sequence[float]) -> float:
    """Two-sided p-value that differences, one per seed, are centred at zero: Fisher 1935, "The Design of Experiments", 21.

    If they were, each might as well have had the other sign. The share of all such flips whose mean is as far from zero as
    the observed one is exact for up to 16 seeds; beyond, 2^16 flips are drawn and the observed one counts among them (Phipson
    and Smyth 2010). It is never below 2 / 2^n: with fewer than six seeds it cannot reach 0.05.
    """
    values = np.asarray(differences, dtype=np.float64)
    exact = len(values) <= 16
    sums = np.zeros(1)
    if exact:
        for value in values:
            sums = np.concatenate([sums + value, sums - value])
    else:
        signs = np.random.default_rng(0).integers(0, 2, size=(2**16, len(values))) * 2 - 1
        sums = signs @ values
    as_far = np.abs(sums) >= abs(values.sum()) * (1 - 1e-9)  # equal sums may differ in their last bits
    return float(as_far.mean()) if exact else float((as_far.sum() + 1) / (len(sums) + 1))


def no_gain(differences: Sequence[int]) -> float:
    """How probable so large a sum is if every difference, one per prompt, had its sign by chance: exact, one-sided.

    The sign-flip test of Fisher 1935. Differences are small whole numbers: with n of one size the sum of their signs is
    binomial, and the sums of several sizes convolve (Pagano and Tritchler 1983). Of several seeds, each difference is flipped
    within its seed.
    """
    from scipy.stats import binom

    chances = np.ones(1)  # of every sum of the positive differences, as the signs may fall
    for size, count in Counter(abs(each) for each in differences if each).items():
        sums = np.zeros(size * count + 1)
        sums[::size] = binom.pmf(np.arange(count + 1), count, 0.5)
        chances = np.convolve(chances, sums)
    return min(1.0, float(chances[sum(each for each in differences if each > 0) :].sum()))
