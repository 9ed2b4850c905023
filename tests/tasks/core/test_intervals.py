"""Intervals by published numbers, by hand, and by their coverage."""

import math
from itertools import product

import pytest

from tasks.core import seeds
from tasks.core.statistics import no_gain, over_seeds, paired_bootstrap, sign_flip, wilson


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


def test_over_seeds_adds_the_luck_of_shared_prompts():
    """Seeds 0.5 and 1, prompts 0.5 and 1: each has variance 0.125 / 2; t of one degree of freedom is 12.706."""
    mean, low, high = over_seeds([[0.0, 1.0], [1.0, 1.0]], same_prompts=True)
    assert (mean, high - mean, mean - low) == pytest.approx((0.75, 12.7062 * 0.125**0.5, 12.7062 * 0.125**0.5), rel=1e-5)


def test_one_seed_says_nothing_about_others():
    assert over_seeds([[0.5, 1.0]], same_prompts=False) == (0.75, -math.inf, math.inf)


@pytest.mark.parametrize("same_prompts", [False, True])
def test_over_seeds_covers_the_truth_with_three_seeds(same_prompts):
    """Seeds and prompts both vary. A percentile bootstrap of the same figures covers it in about three of four cases."""
    chance = seeds.stream(0, "coverage over seeds", same_prompts)
    covered = naive = 0
    for trial in range(300):
        shared = [chance.gauss(0, 0.3) for _ in range(40)]
        figures = []
        for _ in range(3):
            prompts = shared if same_prompts else [chance.gauss(0, 0.3) for _ in range(40)]
            level = chance.gauss(0.1, 0.05)
            figures.append([level + prompt + chance.gauss(0, 0.3) for prompt in prompts])
        _, low, high = over_seeds(figures, same_prompts)
        covered += low <= 0.1 <= high
        _, low, high = paired_bootstrap([sum(each) / 40 for each in figures], 200, trial)
        naive += low <= 0.1 <= high
    assert covered >= 275  # 95 % of 300, less 2.6 standard errors
    assert naive < 250


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
