"""Intervals by published numbers, by hand, and by their coverage."""

import pytest

from tasks.core import seeds
from tasks.core.statistics import paired_bootstrap, wilson


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
