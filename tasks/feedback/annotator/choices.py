"""Simulated annotators: they prefer what has more utility in their eyes, with the noise of Bradley and Terry (1952).

    P(a preferred to b) = σ((u(a) − u(b)) / τ),   u = Σ weight · component − cost_per_token · tokens

The components are the verifier's verdict (0 or 1) and the functions of tasks/rewards/functions.py. What an annotator sees is

    Σ (1 + d z) weight · component − (1 + d z) cost_per_token · tokens + (1 + d z) length_bias · tokens,   z ~ N(0, 1) each

with d = `disagreement`: annotators differ in what they value, and none notices that length as such impresses him. u, without
length bias and disagreement, stays the truth that `gap` records.
Comparisons whose utilities hardly differ are not shown, as a careful survey would not show them.
"""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from tasks.core import seeds

TIE = 0.02  # utilities closer than this are not worth a question
DECISIVE = 0.5  # utilities further apart: right against wrong, where the verifier has weight 1


@dataclass(frozen=True)
class Candidate:
    """A completion, its true utility, and what makes it: num_tokens with end-of-text."""

    text: str
    utility: float
    components: Mapping[str, float] = field(default_factory=dict, compare=False)
    num_tokens: int = 0


@dataclass(frozen=True)
class Person:
    """One annotator, by what he values."""

    name: str
    weights: Mapping[str, float]
    cost_per_token: float
    length_bias: float

    def sees(self, candidate: Candidate) -> float:
        seen = utility(candidate.components, self.weights, candidate.num_tokens, self.cost_per_token)
        return seen + self.length_bias * candidate.num_tokens


def people(
    count: int, weights: Mapping[str, float], cost_per_token: float, length_bias: float, disagreement: float, seed: int
) -> list[Person]:
    """The annotators, each with weights of his own."""

    def one(number: int) -> Person:
        chance = seeds.stream(seed, "annotator", number)
        own = {name: weight * (1 + disagreement * chance.gauss()) for name, weight in weights.items()}
        cost, bias = (value * (1 + disagreement * chance.gauss()) for value in (cost_per_token, length_bias))
        return Person(f"annotator-{number}", own, cost, bias)

    return [one(number) for number in range(count)]


def utility(components: Mapping[str, float], weights: Mapping[str, float], num_tokens: int, cost_per_token: float) -> float:
    return sum(weight * components[name] for name, weight in weights.items()) - cost_per_token * num_tokens


def choose_pairs(
    candidates: Sequence[Candidate], count: int, decisive_rate: float, chance: random.Random
) -> list[tuple[Candidate, Candidate]]:
    """At most `count` pairs (better, worse) to ask about. With probability `decisive_rate` only decisive pairs are asked,
    where the candidates offer any: they say most about the reward."""
    ranked = sorted(candidates, key=lambda candidate: -candidate.utility)
    pairs = [(a, b) for a, b in combinations(ranked, 2) if a.utility - b.utility > TIE and a.text != b.text]
    decisive = [(a, b) for a, b in pairs if a.utility - b.utility > DECISIVE]
    chance.shuffle(pairs)
    chance.shuffle(decisive)
    return (decisive if decisive and chance.random() < decisive_rate else pairs)[:count]


def prefers_first(first: float, second: float, temperature: float, chance: random.Random) -> bool:
    """One noisy answer to two utilities."""
    return chance.random() < probability_first(first - second, temperature)


def probability_first(gap: float, temperature: float) -> float:
    return (1 + math.tanh(gap / temperature / 2)) / 2  # σ, without overflow


def rank(utilities: Sequence[float], temperature: float, chance: random.Random) -> list[int]:
    """The rank of each, 1 for the best: the next best is drawn with probability ∝ exp(u / τ) from those left (Luce 1959,
    Plackett 1975). Of any two, the better one comes first as often as Bradley and Terry say."""
    left = list(range(len(utilities)))
    ranks = [0] * len(left)
    for place in range(1, len(utilities) + 1):
        best = max(utilities[i] for i in left)
        [picked] = chance.choices(left, [math.exp((utilities[i] - best) / temperature) for i in left])
        ranks[picked] = place
        left.remove(picked)
    return ranks


def grade(value: float, lowest: float, highest: float, levels: int, temperature: float, chance: random.Random) -> int:
    """One of `levels` grades from 0: P(grade ≥ k) = σ((u − θ_k) / τ), thresholds θ_k evenly from `lowest` to `highest` utility
    (the ordinal logit of McCullagh 1980). Two levels are a thumb down or up."""
    p = max(chance.random(), 2**-60)
    share = (value + temperature * math.log((1 - p) / p) - lowest) / max(highest - lowest, 1e-9)
    return min(levels - 1, max(0, math.floor(share * levels)))
