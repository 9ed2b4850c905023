"""Slow obvious twins of tasks/rl/evolution.py: every noise vector kept, one number at a time."""

from collections.abc import Sequence


def centered_ranks(fitness: Sequence[float]) -> list[float]:
    """Place in the sorted list, equal ones sharing the mean of their places, scaled to −½ … ½."""
    ordered = sorted(fitness)
    ranks = []
    for value in fitness:
        places = [place for place, other in enumerate(ordered) if other == value]
        ranks.append(sum(places) / len(places) / (len(fitness) - 1) - 0.5)
    return ranks


def antithetic_gradient(
    noises: Sequence[Sequence[float]], utilities: Sequence[tuple[float, float]], sigma: float
) -> list[float]:
    """Σ over all members of u(member) times its own noise, ε or −ε, over their number and sigma."""
    members = [(plus, [e for e in noise]) for noise, (plus, _) in zip(noises, utilities, strict=True)]
    members += [(minus, [-e for e in noise]) for noise, (_, minus) in zip(noises, utilities, strict=True)]
    gradient = []
    for dimension in range(len(noises[0])):
        total = sum(utility * noise[dimension] for utility, noise in members)
        gradient.append(total / (len(members) * sigma))
    return gradient
