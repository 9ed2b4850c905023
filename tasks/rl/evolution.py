"""Evolution strategies: a gradient from nothing but the fitness of perturbed parameters (Salimans et al. 2017)."""

from collections.abc import Callable

from torch import Tensor


def centered_ranks(fitness: Tensor) -> Tensor:
    """Ranks scaled to [−½, ½], the same shape as fitness. Section 2 of the paper ("fitness shaping", Wierstra et al. 2014).

    Only the order counts, so one outlier cannot decide a step. Equal fitness shares a rank: a population whose members are
    all equally fit gets 0 everywhere and teaches nothing.
    """
    flat = fitness.flatten()
    if len(flat) < 2:
        raise ValueError(f"{len(flat)} member: ranks need at least 2 to compare")
    below = (flat[:, None] > flat[None, :]).sum(1)
    equal = (flat[:, None] == flat[None, :]).sum(1)
    ranks = below + (equal - 1) / 2
    return (ranks / (len(flat) - 1) - 0.5).to(fitness.dtype).view_as(fitness)


def antithetic_gradient(noise: Callable[[int], Tensor], utilities: Tensor, sigma: float) -> Tensor:
    """Σ_i (u_i⁺ − u_i⁻) ε_i / 2nσ, the estimated gradient of the utility at θ: (dimension,). Algorithm 2 of the paper.

    utilities: (n, 2), of θ + σ ε_i and of θ − σ ε_i. noise: gives ε_i, (dimension,), standard normal, anew each time it is
    asked for pair i, so that no more than one is ever held and nobody need send one.
    """
    pairs = len(utilities)
    weights = (utilities[:, 0] - utilities[:, 1]) / (2 * pairs * sigma)
    gradient = weights[0] * noise(0)
    for pair in range(1, pairs):
        gradient += weights[pair] * noise(pair)
    return gradient
