"""Losses on preferences: the right start and sign, numbers worked out by hand, slow twins for what TRL does not record."""

import math

import pytest
import torch

from tasks.rl.masking import reduce_tokens
from tasks.rl.preference_losses import (
    all_pairs_loss,
    bradley_terry_loss,
    centering_loss,
    chosen_penalty,
    dpo_loss,
    dpo_positive_loss,
    ipo_loss,
    kto_baseline,
    kto_loss,
    log_odds_ratio,
    misranked,
    odds_ratio_loss,
    plackett_luce_loss,
    ranking_centering_loss,
    ranking_loss,
    rating_loss,
    thumbs_loss,
)
from tests.reference import preference as twin

SCORES = torch.tensor([1.5, -0.5, 0.0])


def test_zero_margin_gives_ln_2():
    assert bradley_terry_loss(SCORES, SCORES).tolist() == pytest.approx([math.log(2)] * 3)
    assert dpo_loss(SCORES, SCORES, beta=0.1).tolist() == pytest.approx([math.log(2)] * 3)


def test_by_hand():
    """−log σ(2) = .126928; −log σ(−2) = 2.126928."""
    assert bradley_terry_loss(torch.tensor([3.0, 1.0]), torch.tensor([1.0, 3.0])).tolist() == pytest.approx(
        [0.126928, 2.126928]
    )
    assert dpo_loss(torch.tensor([4.0]), torch.tensor([-16.0]), beta=0.1).item() == pytest.approx(0.126928, abs=1e-6)


@pytest.mark.parametrize("margin", [0.0, 0.7])
def test_both_published_forms_of_the_ranking_loss_are_one(margin):
    """−log σ(d) of Ouyang et al. and log(1 + exp(−d)) of Askell et al.: the same number and the same gradient."""
    chosen, rejected = (
        torch.linspace(-4, 4, 9, dtype=torch.float64)[order].requires_grad_() for order in (slice(None), [3] * 9)
    )
    ours = bradley_terry_loss(chosen, rejected, margin)
    theirs = torch.log(1 + torch.exp(rejected - chosen + margin))
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(torch.autograd.grad(ours.sum(), chosen), torch.autograd.grad(theirs.sum(), chosen))


def test_a_margin_by_hand():
    """d − m = 3 − 1 = 2: −log σ(2) = .126928. A pair that is exactly its margin apart costs ln 2."""
    losses = bradley_terry_loss(torch.tensor([3.0, 3.0]), torch.zeros(2), torch.tensor([1.0, 3.0]))
    assert losses.tolist() == pytest.approx([0.126928, math.log(2)], abs=1e-6)


RANKED = torch.tensor([2.0, 0.0, 1.0, 1.0, -1.0])  # scores of a ranking of three and one of two
PLACES, RANKINGS = torch.tensor([1, 3, 2, 2, 1]), torch.tensor([0, 0, 0, 1, 1])


def test_all_pairs_by_hand():
    """First: d = 2, 1, 1 give (.126928 + 2 · .313262) / 3; second: d = −2 gives 2.126928."""
    losses = all_pairs_loss(RANKED, PLACES, RANKINGS)
    assert losses.tolist() == pytest.approx([(0.126928 + 2 * 0.313262) / 3, 2.126928], abs=1e-6)


def test_plackett_luce_by_hand():
    """First: e² / (e² + e + 1) = .665241, then e / (e + 1) = .731059; second: −log σ(−2) = 2.126928."""
    losses = plackett_luce_loss(RANKED, PLACES, RANKINGS)
    assert losses.tolist() == pytest.approx([-math.log(0.665241 * 0.731059), 2.126928], abs=1e-5)


def test_ties_by_hand():
    """Places 1, 1, 2 and scores 0: the equals are no pair, and each is chosen out of three, 2 ln 3. 1, 1, 7 is the same."""
    scores, rankings = torch.zeros(3, requires_grad=True), torch.zeros(3, dtype=torch.long)
    for places in ([1, 1, 2], [1, 1, 7]):
        ranks = torch.tensor(places)
        assert plackett_luce_loss(scores, ranks, rankings).item() == pytest.approx(2 * math.log(3))
        assert all_pairs_loss(scores, ranks, rankings).item() == pytest.approx(math.log(2))
    plackett_luce_loss(scores, ranks, rankings).sum().backward()
    assert scores.grad.tolist() == pytest.approx([-1 / 3, -1 / 3, 2 / 3])


def test_nothing_but_ties():
    """No pair to order; Plackett-Luce pulls the scores together, and not apart once they are equal."""
    scores, ranks, rankings = torch.tensor([1.0, -1.0], requires_grad=True), torch.ones(2), torch.zeros(2, dtype=torch.long)
    assert all_pairs_loss(scores, ranks, rankings).tolist() == [0.0]
    (gradient,) = torch.autograd.grad(plackett_luce_loss(scores, ranks, rankings).sum(), scores)
    assert gradient[0] > 0 > gradient[1]
    (gradient,) = torch.autograd.grad(plackett_luce_loss(scores * 0, ranks, rankings).sum(), scores)
    assert gradient.tolist() == pytest.approx([0.0, 0.0])


def test_rankings_of_two_are_pairs():
    chosen, rejected = SCORES, SCORES.flip(0) + 0.3
    scores, ranks = torch.cat([rejected, chosen]), torch.tensor([2.0, 2.0, 2.0, 1.0, 1.0, 1.0])
    rankings = torch.tensor([0, 1, 2, 0, 1, 2])
    expected = bradley_terry_loss(chosen, rejected)
    torch.testing.assert_close(plackett_luce_loss(scores, ranks, rankings), expected)
    torch.testing.assert_close(all_pairs_loss(scores, ranks, rankings), expected)
    torch.testing.assert_close(ranking_centering_loss(scores, rankings), centering_loss(chosen, rejected))


@pytest.mark.parametrize(("fast", "slow"), [(all_pairs_loss, twin.all_pairs), (plackett_luce_loss, twin.plackett_luce)])
def test_rankings_equal_their_twins(fast, slow):
    chance = torch.Generator().manual_seed(1)
    scores = torch.randn(12, generator=chance, dtype=torch.float64).requires_grad_()
    ranks, rankings = torch.randint(1, 4, (12,), generator=chance), torch.tensor([0, 2, 1, 0, 1, 1, 2, 0, 0, 2, 1, 1])
    loss = fast(scores, ranks, rankings).mean()
    loss.backward()

    def moved(i, by):
        changed = scores.tolist()
        changed[i] += by
        return slow(changed, ranks.tolist(), rankings.tolist())

    assert loss.item() == pytest.approx(moved(0, 0.0))
    assert scores.grad.tolist() == pytest.approx([(moved(i, 1e-5) - moved(i, -1e-5)) / 2e-5 for i in range(12)], abs=1e-8)


def test_ratings_and_thumbs_by_hand():
    """(1 − −2)² = 9; −log σ(2) = .126928 for a thumb up, −log σ(−2) = 2.126928 for one down."""
    assert rating_loss(torch.tensor([1.0, 0.5]), torch.tensor([-2.0, 0.5])).tolist() == [9.0, 0.0]
    losses = thumbs_loss(torch.tensor([2.0, 2.0, 0.0]), torch.tensor([1.0, 0.0, 0.0]))
    assert losses.tolist() == pytest.approx([0.126928, 2.126928, math.log(2)], abs=1e-6)


def test_only_the_difference_of_scores_counts():
    torch.testing.assert_close(bradley_terry_loss(SCORES + 7, SCORES - 1 + 7), bradley_terry_loss(SCORES, SCORES - 1))


def test_gradients_raise_the_chosen_and_lower_the_rejected_by_the_same():
    for loss in (bradley_terry_loss, lambda chosen, rejected: dpo_loss(chosen, rejected, beta=0.5)):
        chosen, rejected = torch.zeros(3, requires_grad=True), SCORES.clone().requires_grad_()
        loss(chosen, rejected).sum().backward()
        assert (chosen.grad < 0).all()
        assert torch.equal(chosen.grad, -rejected.grad)


def test_a_hopeless_pair_keeps_a_finite_loss():
    assert bradley_terry_loss(torch.tensor(-1e4), torch.tensor(1e4)).item() == pytest.approx(2e4)


def test_the_gradient_of_dpo_is_that_of_equation_7():
    """−β σ(−β (Δ_w − Δ_l)) for the chosen completion: Rafailov et al. 2023, section 4."""
    chosen = torch.tensor([0.3], requires_grad=True)
    dpo_loss(chosen, torch.tensor([1.1]), beta=0.5).backward()
    assert chosen.grad.item() == pytest.approx(-0.5 / (1 + math.exp(0.5 * (0.3 - 1.1))), abs=1e-6)


@pytest.mark.parametrize(("chosen", "rejected", "penalty_in", "loss", "gradient"), [
    (1.0, -3.0, "margin", 0.126928, -0.059601),  # likelier than under the reference: DPO, margin .5 · 4 = 2, −.5 σ(−2)
    (1.0, -3.0, "loss", 0.126928, -0.059601),
    (-1.0, -9.0, "margin", 0.126928, -0.298007),  # 1 nat lost: .5 (−1 + 9 − 4 · 1) = 2, and every nat counts 1 + 4 times
    (-1.0, -5.0, "loss", 4.126928, -4.059601),  # the loss of the first pair, and 4 · 1 nat
])  # fmt: skip
def test_dpo_positive_by_hand(chosen, rejected, penalty_in, loss, gradient):
    logratios = torch.tensor([chosen], requires_grad=True)
    value = dpo_positive_loss(logratios, torch.tensor([rejected]), beta=0.5, penalty_coef=4.0, penalty_in=penalty_in)
    value.backward()
    assert value.item() == pytest.approx(loss, abs=1e-6)
    assert logratios.grad.item() == pytest.approx(gradient, abs=1e-6)


def test_dpo_positive_without_a_penalty_is_dpo():
    expected = dpo_loss(SCORES, SCORES.flip(0), 0.3)
    assert torch.equal(dpo_positive_loss(SCORES, SCORES.flip(0), 0.3, 0.0, "margin"), expected)
    assert torch.equal(dpo_positive_loss(SCORES, SCORES.flip(0), 0.3, 0.0, "loss"), expected)
    assert chosen_penalty(SCORES).tolist() == [0.0, 0.5, 0.0]


def test_dpo_positive_refuses_another_place_for_the_penalty():
    with pytest.raises(ValueError, match="'reward' is not one of margin, loss"):
        dpo_positive_loss(SCORES, SCORES, 0.1, 1.0, "reward")


def test_ipo_by_hand():
    """β = .25: the target is 2. A gap of 1.5 wants more, one of 3 wants less, one of 2 wants nothing."""
    chosen = torch.tensor([1.0, 3.0, 0.5], requires_grad=True)
    losses = ipo_loss(chosen, torch.tensor([-0.5, 0.0, -1.5]), beta=0.25)
    losses.sum().backward()
    assert losses.tolist() == pytest.approx([0.25, 1.0, 0.0])
    assert chosen.grad.tolist() == pytest.approx([-1.0, 2.0, 0.0])


def test_orpo_by_hand():
    """Probabilities .8 and .5 have odds 4 and 1: −log σ(ln 4) = −ln .8; the gradients are −σ(−ln 4)/(1 − p)."""
    chosen, rejected = torch.tensor([0.8]).log().requires_grad_(), torch.tensor([0.5]).log().requires_grad_()
    assert log_odds_ratio(chosen, rejected).item() == pytest.approx(math.log(4), abs=1e-6)
    loss = odds_ratio_loss(chosen, rejected)
    loss.sum().backward()
    assert loss.item() == pytest.approx(-math.log(0.8), abs=1e-6)
    assert chosen.grad.item() == pytest.approx(-1.0, abs=1e-5)
    assert rejected.grad.item() == pytest.approx(0.4, abs=1e-5)


@pytest.mark.parametrize(("chosen", "rejected"), [(0.0, -1.0), (-1.0, 0.0), (0.0, 0.0), (-1e-8, -1e-8), (-1e4, -1.0)])
def test_orpo_stays_finite_where_a_completion_is_certain(chosen, rejected):
    """Such as one that is nothing but end-of-text: 1 − π rounds to 0."""
    inputs = torch.tensor([chosen, rejected], requires_grad=True)
    loss = odds_ratio_loss(inputs[:1], inputs[1:]).sum()
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(inputs.grad).all()


def test_kto_by_hand():
    """β = .5, z₀ = 2: Δ = 6 and Δ = −2 are both 2 on the good side; 1 − σ(2) = .119203, σ(2) (1 − σ(2)) = .104994."""
    logratios = torch.tensor([6.0, -2.0, 2.0], requires_grad=True)
    desirable = torch.tensor([True, False, False])
    losses = kto_loss(logratios, desirable, torch.tensor(2.0), beta=0.5, desirable_weight=3.0, undesirable_weight=0.5)
    losses.sum().backward()
    assert losses.tolist() == pytest.approx([3 * 0.119203, 0.5 * 0.119203, 0.5 * 0.5], abs=1e-6)
    assert logratios.grad.tolist() == pytest.approx([-1.5 * 0.104994, 0.25 * 0.104994, 0.25 * 0.25], abs=1e-6)


def test_the_baseline_of_kto_is_never_negative_and_has_no_gradient():
    assert kto_baseline(torch.tensor([3.0, 1.0, 2.0])).item() == 2.0
    assert kto_baseline(torch.tensor([-3.0, 1.0])).item() == 0.0
    assert not kto_baseline(torch.tensor([3.0], requires_grad=True)).requires_grad


def test_rrhf_by_hand():
    """First group: of the pairs (1, 0), (2, 0), (1, 2) the first and the last are out of order, by .3 and by .7."""
    p = torch.tensor([-0.5, -0.2, -0.9, -0.5, -0.2, -0.1], requires_grad=True)
    scores = torch.tensor([3.0, 1.0, 2.0, 1.0, 1.0, 0.0])
    losses = ranking_loss(p, scores, group_size=3)
    losses.sum().backward()
    assert losses.tolist() == pytest.approx([1.0, 0.4 + 0.1])
    assert p.grad.tolist() == pytest.approx([-1.0, 2.0, -1.0, -1.0, -1.0, 2.0])
    assert misranked(p, scores, 3).item() == pytest.approx(4 / 5)


def test_rrhf_has_nothing_to_rank_where_scores_are_equal():
    p = torch.tensor([-0.5, -0.2, -0.9, -0.1], requires_grad=True)
    losses = ranking_loss(p, torch.ones(4), group_size=2)
    losses.sum().backward()
    assert losses.tolist() == [0.0, 0.0]
    assert p.grad.eq(0).all()
    assert misranked(p, torch.ones(4), 2).item() == 0.0


# Twins: ragged completions of 1 to 6 tokens, as padded tensors for the functions and as lists for the loops.

CHANCE = torch.Generator().manual_seed(0)
ROWS, TIME = 8, 6
LENGTHS = torch.tensor([3, 6, 1, 4, 2, 6, 5, 1])
MASK = (torch.arange(TIME) < LENGTHS[:, None]).double()
LOGPROBS = -2 * torch.rand(ROWS, TIME, generator=CHANCE, dtype=torch.float64)
REF_LOGPROBS = -2 * torch.rand(ROWS, TIME, generator=CHANCE, dtype=torch.float64)
RAGGED = [
    [*zip(logprobs[:length], ref_logprobs[:length], strict=True)]
    for logprobs, ref_logprobs, length in zip(LOGPROBS.tolist(), REF_LOGPROBS.tolist(), LENGTHS.tolist(), strict=True)
]


def compare(fast, slow):
    """fast(logprobs, logratios, mean logprobs) and slow(completions): the same loss, the same gradient for every token."""
    logprobs = LOGPROBS.clone().requires_grad_()
    loss = fast(logprobs, ((logprobs - REF_LOGPROBS) * MASK).sum(1), (logprobs * MASK).sum(1) / MASK.sum(1))
    loss.backward()
    assert loss.item() == pytest.approx(slow(RAGGED), abs=1e-9)
    found = [row[:length] for row, length in zip(logprobs.grad.tolist(), LENGTHS.tolist(), strict=True)]
    for ours, theirs in zip(found, twin.gradient(slow, RAGGED), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-7)
    assert logprobs.grad[MASK == 0].eq(0).all()
    return True


@pytest.mark.parametrize("penalty_in", ["margin", "loss"])
def test_dpo_positive_equals_its_twin(penalty_in):
    def fast(_, logratios, __):
        assert 0 < (logratios[:4] < 0).sum() < 4, "the penalty must bind for some pairs and not for others"
        return dpo_positive_loss(*logratios.chunk(2), 0.7, 3.0, penalty_in).mean()

    assert compare(fast, lambda rows: twin.dpo_positive(rows[:4], rows[4:], 0.7, 3.0, penalty_in))


def test_orpo_equals_its_twin():
    def fast(_, __, mean_logprobs):
        chosen, rejected = mean_logprobs.chunk(2)
        return -chosen.mean() + 0.6 * odds_ratio_loss(chosen, rejected).mean()

    assert compare(fast, lambda rows: twin.orpo(rows[:4], rows[4:], 0.6))


@pytest.mark.parametrize(("mismatched", "clamped"), [(RAGGED[:2], False), (RAGGED[4:], True)])
def test_kto_equals_its_twin(mismatched, clamped):
    baseline = kto_baseline(torch.tensor([sum(pi - ref for pi, ref in row) for row in mismatched], dtype=torch.float64))
    assert baseline.item() == pytest.approx(twin.kto_baseline(mismatched))
    assert (baseline.item() == 0) == clamped
    desirable = [True, False, False, True, True, True, False, True]

    def fast(_, logratios, __):
        return kto_loss(logratios, torch.tensor(desirable), baseline, 0.4, 1.5, 0.75).mean()

    assert compare(fast, lambda rows: twin.kto(rows, desirable, baseline.item(), 0.4, (1.5, 0.75)))


def test_rrhf_equals_its_twin():
    scores = [[0.3, -1.0, 0.3, 2.0], [1.0, 1.0, 0.0, -0.5]]
    best = torch.tensor([0, 0, 0, 1, 1, 0, 0, 0])[:, None]

    def fast(logprobs, _, mean_logprobs):
        ranking = ranking_loss(mean_logprobs, torch.tensor(scores).flatten(), 4)
        assert (ranking > 0).all()
        return ranking.mean() + 0.2 * reduce_tokens(-logprobs, MASK * best, "token_mean")

    assert compare(fast, lambda rows: twin.rrhf([rows[:4], rows[4:]], scores, 0.2))
