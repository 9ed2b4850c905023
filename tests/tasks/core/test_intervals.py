"""Intervals by published numbers, by hand, and by their coverage."""

import math
from itertools import product

import numpy as np
import pytest

from tasks.core import seeds
from tasks.core.statistics import (
    holm,
    no_difference,
    no_gain,
    no_mean_over_seeds,
    over_seeds,
    paired_bootstrap,
    sign_flip,
    wilson,
)  # fmt: skip


def test_wilson_by_hand():
    """81 of 263: Newcombe 1998, table I, gives .2553 to .3662."""
    share, low, high = wilson(81, 263)
    assert (share, low, high) == pytest.approx((0.3080, 0.2553, 0.3662), abs=5e-5)


def test_wilson_stays_within_0_and_1():
    """1 of 29: Newcombe 1998 gives .0061 to .1718; 0 of 20 gives 0 to .1611."""
    assert wilson(1, 29)[1:] == pytest.approx((0.0061, 0.1718), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0.0, 0.0, 0.1611), abs=5e-5)
    assert wilson(20, 20)[2] == pytest.approx(1.0)
    assert all(low >= 0 and high <= 1 for n in range(1, 50) for k in (0, n) for _, low, high in [wilson(k, n)])


def test_bootstrap_of_equal_figures_has_no_width():
    assert paired_bootstrap([0.5] * 10, 100, 0) == (0.5, 0.5, 0.5)


def test_bootstrap_agrees_with_the_normal_interval():
    chance = seeds.stream(0, "bootstrap test")
    figures = [chance.gauss(1.0, 2.0) for _ in range(400)]
    mean, low, high = paired_bootstrap(figures, 4000, seed=1)
    assert mean == pytest.approx(sum(figures) / 400)
    assert high - low == pytest.approx(2 * 1.96 * 2.0 / 20, rel=0.1)
    assert low < mean < high


def test_bootstrap_covers_the_truth_about_95_times_in_100():
    chance = seeds.stream(0, "coverage")
    covered = 0
    for trial in range(200):
        _, low, high = paired_bootstrap([float(chance.random() < 0.6) for _ in range(100)], 300, seed=trial)
        covered += low <= 0.6 <= high
    assert 180 <= covered <= 199  # 95 % of 200 ± 3.2 standard errors


def test_bootstrap_is_a_function_of_its_seed():
    assert paired_bootstrap([0.0, 1.0, 0.5], 50, 1) == paired_bootstrap([0.0, 1.0, 0.5], 50, 1)


def test_over_seeds_by_hand():
    """Means 0.1, 0.2, 0.3: standard error 0.1 / √3, t of two degrees of freedom 4.3027."""
    expected = (0.2, 0.2 - 4.3027 * 0.057735, 0.2 + 4.3027 * 0.057735)
    assert over_seeds([[0.1], [0.0, 0.4], [0.3, 0.3, 0.3]], same_prompts=False) == pytest.approx(expected, abs=1e-5)


def test_over_seeds_parts_seeds_and_shared_prompts():
    """Three parts by hand: mean squares of seeds 0.25, of prompts 0.25, of the rest 0.25; over 2 seeds and 2 prompts.

    So the prompts add nothing that the rest does not explain; t of one degree of freedom is 12.706.
    """
    mean, low, high = over_seeds([[0.0, 1.0], [1.0, 1.0]], same_prompts=True)
    assert (mean, high - mean, mean - low) == pytest.approx((0.75, 12.7062 * 0.25, 12.7062 * 0.25), rel=1e-5)


def test_over_seeds_that_agree_leaves_the_luck_of_the_prompts():
    """No seed differs: the interval is the normal one over prompts, whose mean has the variance 0.25 / 3."""
    mean, low, high = over_seeds([[0.0, 0.5, 1.0]] * 4, same_prompts=True)
    assert (mean, low, high) == pytest.approx((0.5, 0.5 - 1.96 * (0.25 / 3) ** 0.5, 0.5 + 1.96 * (0.25 / 3) ** 0.5), abs=2e-5)
    assert over_seeds([[0.0, 0.0]] * 3, same_prompts=True) == (0.0, 0.0, 0.0)


def test_seeds_that_agree_to_the_last_count_leave_the_luck_of_their_own_prompts():
    """Each of three seeds loses 1 of 100 answers, by 4 won and 5 lost: the variance of a mean is (0.09 - 0.01²) / 99."""
    seed = [1.0] * 4 + [-1.0] * 5 + [0.0] * 91
    half = 1.95996 * ((0.09 - 0.0001) / 99 / 3) ** 0.5
    assert over_seeds([seed, seed[::-1], seed], same_prompts=False) == pytest.approx(
        (-0.01, -0.01 - half, -0.01 + half), abs=1e-6
    )
    p = math.erfc(0.01 / (half / 1.95996) / 2**0.5)
    assert no_mean_over_seeds([seed, seed[::-1], seed], same_prompts=False) == pytest.approx(p, rel=1e-5)
    assert p > 0.5


def test_one_seed_says_nothing_about_others():
    assert over_seeds([[0.5, 1.0]], same_prompts=False) == (0.75, -math.inf, math.inf)


@pytest.mark.parametrize("spread", [0.0, 0.02, 0.05])
@pytest.mark.parametrize("same_prompts", [False, True])
def test_over_seeds_covers_the_truth_with_three_seeds(same_prompts, spread):
    """Seeds and prompts both vary. Pooled over the prompts of all seeds, the interval covers the less the more seeds differ."""
    chance = np.random.default_rng(7)
    shape = (2500, 3, 100)
    prompts = chance.normal(0, 0.25, (2500, 1, 100) if same_prompts else shape)
    figures = 0.1 + chance.normal(0, spread, (2500, 3, 1)) + prompts + chance.normal(0, 0.3, shape)
    ends = [over_seeds(each, same_prompts)[1:] for each in figures]
    covered = sum(low <= 0.1 <= high for low, high in ends) / len(ends)
    assert 0.94 <= covered <= 0.98  # 93 to 97 %, and two standard errors
    half = 1.96 * figures.std(axis=(1, 2)) / 300**0.5
    pooled = (abs(figures.mean(axis=(1, 2)) - 0.1) <= half).mean()
    assert pooled < 0.9 or (spread < 0.05 and not same_prompts)


def test_the_same_prompts_make_the_interval_little_wider_where_seeds_agree():
    """t of two degrees of freedom (4.30) belongs to the seeds alone: on both parts it was twice too wide."""
    chance = np.random.default_rng(8)
    figures = chance.normal(0, 0.25, (500, 1, 200)) + chance.normal(0, 0.3, (500, 3, 200))
    ends = np.array([over_seeds(each, same_prompts=True)[1:] for each in figures])
    needed = 2 * 1.96 * ((0.25**2 + 0.3**2 / 3) / 200) ** 0.5
    assert needed < (ends[:, 1] - ends[:, 0]).mean() < 1.4 * needed


def test_p_over_seeds_by_hand():
    """Means 0.1, 0.2, 0.3: t = 0.2 / (0.1 / √3) = 3.4641 of two degrees of freedom, p = 1 - t / √(2 + t²) = 0.0742."""
    assert no_mean_over_seeds([[0.1], [0.0, 0.4], [0.3, 0.3, 0.3]], same_prompts=False) == pytest.approx(0.0742, abs=5e-5)
    assert no_mean_over_seeds([[-0.1], [0.0, -0.4], [-0.3]], same_prompts=False) == pytest.approx(0.0742, abs=5e-5)
    assert no_mean_over_seeds([[0.5, 1.0]], same_prompts=False) == 1.0  # one seed says nothing about others
    assert no_mean_over_seeds([[0.5], [0.5]], same_prompts=False) == 0.0
    assert no_mean_over_seeds([[0.5], [-0.5]], same_prompts=False) == 1.0


def test_p_over_seeds_says_what_the_interval_says():
    chance = np.random.default_rng(10)
    for same_prompts in (False, True):
        figures = 0.06 + chance.normal(0, 0.03, (200, 3, 1)) + chance.normal(0, 0.3, (200, 3, 50))
        beyond = [over_seeds(each, same_prompts)[1] > 0 or over_seeds(each, same_prompts)[2] < 0 for each in figures]
        assert beyond == [no_mean_over_seeds(each, same_prompts) < 0.05 for each in figures]
        assert 10 < sum(beyond) < 190


def test_holm_by_hand():
    """0.01 times 3, then 0.02 times 2, then 0.9; never below the one before."""
    assert holm([0.9, 0.01, 0.02]) == pytest.approx([0.9, 0.03, 0.04])
    assert holm([0.03, 0.02, 0.02]) == pytest.approx([0.06, 0.06, 0.06])
    assert holm([0.6, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_keeps_the_promise_over_many_comparisons():
    """Of ten comparisons without any effect, one or more seem to be one in 40 % of cases; after Holm in at most 5 %."""
    p_values = np.random.default_rng(9).random((3000, 10))
    assert (p_values.min(axis=1) <= 0.05).mean() > 0.35
    false = np.mean([min(holm(each)) <= 0.05 for each in p_values])
    assert 0.035 < false < 0.06


def test_sign_flip_by_hand():
    """Of the 8 signs of 3, 2 and 1: 3 + 2 - 1 is as far from zero as 3 + 2 + 1, 3 + 2 - 1 and their opposites."""
    assert sign_flip([3.0, 2.0, -1.0]) == 4 / 8
    assert sign_flip([0.1, 0.2, 0.3]) == 2 / 8
    assert sign_flip([0.1, -0.1]) == 1.0
    assert sign_flip([0.5] * 5) == 2 / 32
    assert sign_flip([-0.5] * 6) == 2 / 64
    assert sign_flip([0.25]) == 1.0


def test_sign_flip_of_many_seeds_is_drawn():
    assert sign_flip([0.1] * 40) == pytest.approx(1 / (2**16 + 1))
    chance = seeds.stream(0, "many seeds")
    exact = [chance.gauss(0.1, 0.3) for _ in range(16)]
    assert sign_flip([*exact, 0.0]) == pytest.approx(sign_flip(exact), abs=0.01)


def test_no_gain_equals_every_flip_counted():
    chance = seeds.stream(0, "no gain")
    for _ in range(50):
        differences = [chance.randint(-3, 4) for _ in range(8)]
        flips = [
            sum(sign * each for sign, each in zip(signs, differences, strict=True)) for signs in product((1, -1), repeat=8)
        ]
        assert no_gain(differences) == pytest.approx(sum(flip >= sum(differences) for flip in flips) / len(flips))


def test_no_gain_of_many_prompts():
    """105 prompts won, 75 lost: the chance of at least 105 heads in 180, by its normal limit. And no difference is no gain."""
    p = no_gain([1] * 105 + [-1] * 75 + [0] * 400)
    assert p == pytest.approx(math.erfc((104.5 - 90) / 45**0.5 / 2**0.5) / 2, rel=0.02)
    assert no_gain([0, 0]) == 1.0


def test_no_difference_is_two_sided():
    """Of the 8 signs of three ones, two leave all alike: 2 / 8. And it does not matter who is first."""
    assert no_difference([1, 1, 1]) == no_difference([-1, -1, -1]) == pytest.approx(0.25)
    assert no_difference([1, -1]) == no_difference([0, 0]) == 1.0
