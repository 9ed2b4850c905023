"""The simulated annotator errs as often as Bradley and Terry say, and is not asked about ties."""

import math
import random

import pytest
from scipy.stats import binomtest

from tasks.feedback.annotator.choices import (
    TIE,
    Candidate,
    choose_pairs,
    grade,
    people,
    prefers_first,
    probability_first,
    rank,
    utility,
)

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
    agreed = sum(prefers_first(0.3 + gap, 0.3, temperature, chance) for _ in range(3000))
    assert binomtest(agreed, 3000, 1 / (1 + math.exp(-gap / temperature))).pvalue > 0.001


def test_an_annotator_without_noise_is_always_right():
    chance = random.Random(0)
    assert all(prefers_first(RIGHT.utility, WRONG.utility, 1e-3, chance) for _ in range(100))
    assert not any(prefers_first(WRONG.utility, RIGHT.utility, 1e-3, chance) for _ in range(100))
    assert rank([0.1, 0.9, 0.5], 1e-3, chance) == [3, 1, 2]
    assert [grade(value, 0.0, 1.0, 5, 1e-4, chance) for value in (-3.0, 0.1, 0.5, 0.7, 4.0)] == [0, 0, 2, 3, 4]


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


def test_a_ranking_agrees_with_bradley_and_terry_pair_by_pair():
    """Luce's choice axiom: what else was ranked does not matter."""
    chance = random.Random(0)
    utilities = [0.2, 0.5, 0.4]
    rankings = [rank(utilities, 0.3, chance) for _ in range(3000)]
    assert all(sorted(ranks) == [1, 2, 3] for ranks in rankings)
    for a, b in ((0, 1), (1, 2), (2, 0)):
        agreed = sum(ranks[a] < ranks[b] for ranks in rankings)
        assert binomtest(agreed, 3000, probability_first(utilities[a] - utilities[b], 0.3)).pvalue > 0.001


def test_grades_pass_each_threshold_as_often_as_the_ordinal_logit_says():
    """Four levels between 0 and 2: thresholds 0.5, 1.0, 1.5."""
    chance = random.Random(0)
    grades = [grade(0.8, 0.0, 2.0, 4, 0.3, chance) for _ in range(3000)]
    for level, threshold in ((1, 0.5), (2, 1.0), (3, 1.5)):
        passed = sum(each >= level for each in grades)
        assert binomtest(passed, 3000, 1 / (1 + math.exp(-(0.8 - threshold) / 0.3))).pvalue > 0.001


def test_what_annotators_see():
    text = Candidate("a", 0.98, {"verifier": 1.0}, 10)
    [plain] = people(1, {"verifier": 1.0}, 0.002, 0.0, 0.0, 0)
    assert plain.sees(text) == text.utility == pytest.approx(0.98)
    [impressed] = people(1, {"verifier": 1.0}, 0.002, 0.05, 0.0, 0)
    assert impressed.sees(text) == pytest.approx(0.98 + 0.5)
    crowd = people(400, {"verifier": 1.0}, 0.0, 0.0, 0.5, 0)
    weights = [person.weights["verifier"] for person in crowd]
    assert len({person.name for person in crowd}) == len(set(weights)) == 400
    assert sum(weights) / 400 == pytest.approx(1.0, abs=4 * 0.5 / 20)
    assert people(3, {"verifier": 1.0}, 0.0, 0.0, 0.5, 0) == crowd[:3]  # one more annotator changes none
