"""A simulated annotator: prefers what has more utility, with the noise of Bradley and Terry (1952).

    P(a preferred to b) = σ((u(a) − u(b)) / τ),   u = Σ weight · component − cost_per_token · tokens

The components are the verifier's verdict (0 or 1) and the functions of tasks/feedback/functions.py.
Comparisons whose utilities hardly differ are not shown, as a careful survey would not show them.
"""

import math
import random
from dataclasses import dataclass
from itertools import combinations

TIE = 0.02  # utilities closer than this are not worth a question
DECISIVE = 0.5  # utilities further apart: right against wrong, where the verifier has weight 1


@dataclass(frozen=True)
class Candidate:
    """A completion as the annotator sees it."""

    text: str
    utility: float


def utility(components: dict[str, float], weights: dict[str, float], num_tokens: int, cost_per_token: float) -> float:
    return sum(weight * components[name] for name, weight in weights.items()) - cost_per_token * num_tokens


def choose_pairs(
    candidates: list[Candidate], count: int, decisive_rate: float, chance: random.Random
) -> list[tuple[Candidate, Candidate]]:
    """At most `count` pairs (better, worse) to ask about. With probability `decisive_rate` only decisive pairs are asked,
    where the candidates offer any: they say most about the reward."""
    ranked = sorted(candidates, key=lambda candidate: -candidate.utility)
    pairs = [(a, b) for a, b in combinations(ranked, 2) if a.utility - b.utility > TIE and a.text != b.text]
    decisive = [(a, b) for a, b in pairs if a.utility - b.utility > DECISIVE]
    chance.shuffle(pairs)
    chance.shuffle(decisive)
    return (decisive if decisive and chance.random() < decisive_rate else pairs)[:count]


def prefers_first(first: Candidate, second: Candidate, temperature: float, chance: random.Random) -> bool:
    """One noisy answer."""
    gap = (first.utility - second.utility) / temperature
    return chance.random() < (1 + math.tanh(gap / 2)) / 2  # σ, without overflow
