"""The simulated annotator errs as often as Bradley and Terry say, and is not asked about ties."""

import math
import random

import pytest
from scipy.stats import binomtest

from tasks.feedback.annotator import TIE, Candidate, choose_pairs, prefers_first, utility

RIGHT, WRONG = Candidate("right", 0.98), Candidate("wrong", -0.03)
CANDIDATES = [WRONG, RIGHT, Candidate("right and long", 0.9), Candidate("wrong and long", -0.1)]


def test_utility():
    right, wrong = ({"verifier": verdict, "sentiment": 0.5} for verdict in (1.0, 0.0))
    assert utility(right, {"verifier": 1.0}, 10, 0.002) == pytest.approx(0.98)
    assert utility(wrong, {"verifier": 1.0}, 10, 0.002) == pytest.approx(-0.02)
    assert utility(right, {"verifier": 2.0, "sentiment": -3.0}, 10, 0.0) == pytest.approx(0.5)
    assert utility({}, {}, 10, 0.002) == pytest.approx(-0.02)


@pytest.mark.parametrize("gap", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("temperature", [0.1, 0.3, 1.0])
def test_frequencies_are_those_of_bradley_and_terry(gap, temperature):
    """3,000 answers at a fixed seed; the share lies in the 99.9 % interval around σ(gap / temperature)."""
    chance = random.Random(f"{gap} {temperature}")
    first, second = Candidate("a", 0.3 + gap), Candidate("b", 0.3)
    agreed = sum(prefers_first(first, second, temperature, chance) for _ in range(3000))
    assert binomtest(agreed, 3000, 1 / (1 + math.exp(-gap / temperature))).pvalue > 0.001


def test_an_annotator_without_noise_is_always_right():
    chance = random.Random(0)
    assert all(prefers_first(RIGHT, WRONG, 1e-3, chance) for _ in range(100))
    assert not any(prefers_first(WRONG, RIGHT, 1e-3, chance) for _ in range(100))


def test_the_better_one_comes_first_and_ties_are_not_asked():
    nearly = [Candidate("a", 0.5), Candidate("b", 0.5 + 0.9 * TIE), Candidate("c", 0.5 + TIE / 2)]
    assert choose_pairs(nearly, 10, 0.9, random.Random(0)) == []
    for seed in range(50):
        pairs = choose_pairs([*CANDIDATES, *nearly], 20, 0.0, random.Random(seed))
        assert all(better.utility - worse.utility > TIE for better, worse in pairs)
        assert len(pairs) == len(set(pairs)) == 18  # of 21 pairs, 3 are ties


def test_the_same_text_is_not_compared_with_itself():
    assert choose_pairs([Candidate("same", 1.0), Candidate("same", 0.0)], 5, 0.5, random.Random(0)) == []


def test_decisive_pairs_are_asked_as_often_as_configured():
    decisive = 0
    for seed in range(2000):
        ((better, worse),) = choose_pairs(CANDIDATES, 1, 0.7, random.Random(seed))
        decisive += better.utility - worse.utility > 0.5
    expected = 0.7 + 0.3 * 4 / 6  # 4 of the 6 pairs are right against wrong
    assert binomtest(decisive, 2000, expected).pvalue > 0.001


def test_at_most_as_many_pairs_as_asked_for():
    assert len(choose_pairs(CANDIDATES, 2, 1.0, random.Random(0))) == 2
    assert len(choose_pairs(CANDIDATES, 9, 1.0, random.Random(0))) == 4


def test_nothing_decisive_falls_back_to_any_pair():
    close = [Candidate("a", 0.5), Candidate("b", 0.4), Candidate("c", 0.3)]
    assert len(choose_pairs(close, 5, 1.0, random.Random(0))) == 3
