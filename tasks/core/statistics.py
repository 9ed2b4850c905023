"""Intervals and p-values: a number without one is not a result. And how well announced chances were calibrated."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from tasks.core.files import Row


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
    them (1908) is the whole interval. same_prompts: the i-th figure of every seed is of the same prompt. Then all seeds share
    the luck of the prompts, and an analysis of variance parts the two (crossed random effects: Searle, Casella and McCulloch
    1992). The prompts are many and the seeds few, so the critical value is that of each part, weighted by its variance (Cochran
    and Cox 1950). One seed says nothing about others: its interval is infinite. Few counts can agree to the last one; where the
    seeds do, t has nothing to go by, and the luck of their prompts is the interval.

    Simulated with three seeds it covers 94 to 98 % (tests/tasks/core/test_intervals.py). Satterthwaite's degrees of freedom
    gave too narrow intervals there once the seeds differed.
    """
    mean, of_seeds, of_prompts = _variances(by_seed, same_prompts)
    half = _half_width(of_seeds, of_prompts, len(by_seed), 0.05)
    return mean, mean - half, mean + half


def no_mean_over_seeds(by_seed: Sequence[Sequence[float]], same_prompts: bool) -> float:
    """Two-sided p-value that the mean over seeds is zero: the level at which the interval of `over_seeds` ends at zero."""
    from scipy.optimize import brentq

    mean, of_seeds, of_prompts = _variances(by_seed, same_prompts)
    if mean == 0 or len(by_seed) < 2:
        return 1.0
    if of_seeds + of_prompts == 0:
        return 0.0

    def beyond(level: float) -> float:
        return _half_width(of_seeds, of_prompts, len(by_seed), level) - abs(mean)

    least = 1e-12  # below it 1 - level / 2 has too few digits
    return float(brentq(beyond, least, 1.0)) if beyond(least) > 0 else least


def _variances(by_seed: Sequence[Sequence[float]], same_prompts: bool) -> tuple[float, float, float]:
    """The mean over seeds, and the parts of its variance: of the seeds, and of the prompts, where the seeds do not show it."""
    seeds, prompts = len(by_seed), len(by_seed[0])
    means = np.array([np.mean(figures) for figures in by_seed], dtype=np.float64)
    mean = float(means.mean())
    if seeds < 2:
        return mean, np.inf, 0.0
    of_seeds, of_prompts = float(means.var(ddof=1)) / seeds, 0.0
    if same_prompts and prompts > 1:
        figures = np.asarray(by_seed, dtype=np.float64)
        by_prompt = figures.mean(axis=0)
        rest = figures - means[:, None] - by_prompt + mean  # what neither the seed nor the prompt explains; in both parts
        noise = (rest**2).sum() / ((seeds - 1) * (prompts - 1)) / (seeds * prompts)
        of_prompts = max(0.0, float(by_prompt.var(ddof=1) / prompts - noise))
    elif prompts > 1 and np.ptp(means) < 1e-12:
        of_prompts = sum(float(np.var(figures, ddof=1)) / len(figures) for figures in by_seed) / seeds**2
    return mean, of_seeds, of_prompts


def _half_width(of_seeds: float, of_prompts: float, seeds: int, level: float) -> float:
    """Of the interval that misses the truth with this chance."""
    from scipy.special import ndtri, stdtrit

    variance = of_seeds + of_prompts
    if seeds < 2:
        return np.inf
    if variance == 0:
        return 0.0
    critical = stdtrit(seeds - 1, 1 - level / 2) * of_seeds + ndtri(1 - level / 2) * of_prompts
    return float(critical / variance**0.5)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values: those at most 0.05 hold together, with a chance of 5 % that any is false (Holm 1979)."""
    order = np.argsort(p_values)
    stepped = (len(order) - np.arange(len(order))) * np.asarray(p_values, dtype=np.float64)[order]
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(stepped))
    return adjusted.tolist()


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
    """Exact one-sided p-value of a paired sign-flip test: P(sum >= observed) if each prompt's difference had a random sign.

    Fisher 1935. Differences are small whole numbers: with n of one size the sum of their signs is binomial, and the sums of
    several sizes convolve (Pagano and Tritchler 1983). With several seeds, each difference is flipped within its seed.
    """
    from scipy.stats import binom

    chances = np.ones(1)  # of every sum of the positive differences, as the signs may fall
    for size, count in Counter(abs(each) for each in differences if each).items():
        sums = np.zeros(size * count + 1)
        sums[::size] = binom.pmf(np.arange(count + 1), count, 0.5)
        chances = np.convolve(chances, sums)
    return min(1.0, float(chances[sum(each for each in differences if each > 0) :].sum()))


def no_difference(differences: Sequence[int]) -> float:
    """The same test two-sided: that neither of two models is better."""
    return min(1.0, 2 * min(no_gain(differences), no_gain([-each for each in differences])))


def ece(rows: Sequence[Row]) -> float:
    """Expected calibration error (Guo et al. 2017): the mean distance between `predicted` and `right`, weighted by `calls`."""
    calls, predicted, right = (np.array([row[key] for row in rows]) for key in ("calls", "predicted", "right"))
    return float((calls * abs(predicted - right)).sum() / calls.sum())
