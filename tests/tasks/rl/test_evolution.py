"""Ranks and the antithetic gradient by hand, against their slow twins, and on a function whose gradient is known."""

import pytest
import torch

from tasks.rl.evolution import antithetic_gradient, centered_ranks
from tests.reference import evolution as slow


def noise(seed, dimension):
    """ε_i as a function of i."""
    return lambda pair: torch.randn(dimension, generator=torch.Generator().manual_seed(1000 * seed + pair))


def test_ranks_by_hand():
    fitness = torch.tensor([[3.0, -50.0], [4.0, 1e6]])
    assert centered_ranks(fitness).flatten().tolist() == pytest.approx([-1 / 6, -1 / 2, 1 / 6, 1 / 2])


def test_equal_fitness_shares_a_rank():
    assert centered_ranks(torch.tensor([1.0, 2.0, 2.0, 3.0])).tolist() == [-0.5, 0.0, 0.0, 0.5]
    assert centered_ranks(torch.full((4, 2), 7.0)).eq(0).all()


def test_ranks_equal_their_twin():
    fitness = torch.randint(0, 6, (12, 2), generator=torch.Generator().manual_seed(0)).float()
    assert centered_ranks(fitness).flatten().tolist() == pytest.approx(slow.centered_ranks(fitness.flatten().tolist()))


def test_one_member_has_no_rank():
    with pytest.raises(ValueError, match="at least 2"):
        centered_ranks(torch.tensor([1.0]))


def test_gradient_by_hand():
    """Two directions: (1, 0) with u⁺ − u⁻ = 1, (2, 4) with −½; over 2 · 2 · ½ = 2."""
    vectors = {0: torch.tensor([1.0, 0.0]), 1: torch.tensor([2.0, 4.0])}
    gradient = antithetic_gradient(vectors.__getitem__, torch.tensor([[0.5, -0.5], [0.0, 0.5]]), sigma=0.5)
    assert gradient.tolist() == [0.0, -1.0]


def test_gradient_equals_its_twin():
    epsilon, utilities = noise(0, 6), torch.randn(5, 2, generator=torch.Generator().manual_seed(1))
    fast = antithetic_gradient(epsilon, utilities, 0.3)
    kept = [epsilon(pair).tolist() for pair in range(5)]
    assert fast.tolist() == pytest.approx(slow.antithetic_gradient(kept, [tuple(u) for u in utilities.tolist()], 0.3), abs=1e-5)


def test_equally_fit_members_teach_nothing():
    assert antithetic_gradient(noise(0, 6), centered_ranks(torch.ones(4, 2)), 0.1).eq(0).all()


def test_of_a_linear_function_the_estimate_is_its_gradient_on_average():
    """E[(g·ε) ε] = g, for any sigma: the antithetic pair takes the constant away."""
    slope, directions = torch.tensor([1.0, -2.0, 0.5]), 20_000
    epsilon, sigma = torch.randn(directions, 3, generator=torch.Generator().manual_seed(0)), 0.2
    fitness = torch.stack([100 + sigma * epsilon @ slope, 100 - sigma * epsilon @ slope], dim=1)
    assert antithetic_gradient(epsilon.__getitem__, fitness, sigma).tolist() == pytest.approx(slope.tolist(), abs=0.08)


def test_the_scalars_and_the_seed_are_enough():
    """A worker that has seen no other member's noise computes the same step, bit for bit."""
    utilities = centered_ranks(torch.randn(8, 2, generator=torch.Generator().manual_seed(3)))
    here, elsewhere = (antithetic_gradient(noise(5, 40), torch.tensor(utilities.tolist()), 0.1) for _ in range(2))
    assert torch.equal(here, elsewhere)
    assert not torch.equal(here, antithetic_gradient(noise(6, 40), utilities, 0.1))
