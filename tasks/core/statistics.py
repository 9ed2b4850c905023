"""Intervals: a number without one is not a result."""

from collections.abc import Sequence

import numpy as np


def wilson(successes: int, trials: int, z: float = 1.96) -> tuple[float, float, float]:
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
