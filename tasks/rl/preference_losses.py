"""Losses on preference pairs, on labelled completions and on ranked ones."""

import torch
import torch.nn.functional as F
from torch import Tensor


def bradley_terry_loss(chosen_scores: Tensor, rejected_scores: Tensor, margin: Tensor | float = 0.0) -> Tensor:
    """−log σ(r_chosen − r_rejected − margin), per pair: (batch,). Bradley & Terry 1952; Ouyang et al. 2022, equation 1.

    The same number as log(1 + exp(r_rejected − r_chosen + margin)), the form of Askell et al. 2021. margin: (batch,), how much
    further apart the scores of a clear pair must be than those of a doubtful one (Touvron et al. 2023, Llama 2, equation 2).
    """
    return -F.logsigmoid(chosen_scores - rejected_scores - margin)


def centering_loss(chosen_scores: Tensor, rejected_scores: Tensor) -> Tensor:
    """(r_chosen + r_rejected)², per pair: (batch,). Eisenstein et al. 2023: the mean goes to zero, the gap stays."""
    return (chosen_scores + rejected_scores).square()


def ranking_centering_loss(scores: Tensor, rankings: Tensor) -> Tensor:
    """(2 · mean score)² of each ranking: (rankings,). For two completions this is `centering_loss`."""
    sums = _sums(scores, rankings)
    return (2 * sums / _sums(torch.ones_like(scores), rankings)).square()


def all_pairs_loss(scores: Tensor, ranks: Tensor, rankings: Tensor) -> Tensor:
    """Mean of −log σ(r_i − r_j) over the pairs of a ranking in which i is placed before j: (rankings,).

    Ouyang et al. 2022, equation 1: all K over 2 comparisons of a prompt count as one element, whatever K is. Ties share a rank
    and are no pair; a ranking of nothing but ties gives 0. scores, ranks (1 is best; only their order counts) and rankings
    (which ranking a completion belongs to, 0, 1, ...): (batch,).
    """
    before = (ranks[:, None] < ranks[None, :]) & (rankings[:, None] == rankings[None, :])
    losses = -F.logsigmoid(scores[:, None] - scores[None, :]).masked_fill(~before, 0.0)
    pairs = _sums(before.sum(1).to(scores.dtype), rankings)
    return _sums(losses.sum(1), rankings) / pairs.clamp(min=1)


def plackett_luce_loss(scores: Tensor, ranks: Tensor, rankings: Tensor) -> Tensor:
    """−log P(ranking) = Σ_i [log Σ_{j not placed before i} exp(r_j) − r_i]: (rankings,). Plackett 1975; Luce 1959.

    Best first, each completion is chosen among those that are left. Ties share a rank: each of them is chosen among all that
    are not placed before it, its equals included (Breslow 1974, for ties in the same likelihood), so the order of equals plays
    no part and a tie pulls their scores together. For two completions without a tie this is `bradley_terry_loss`. Arguments as
    of `all_pairs_loss`.
    """
    left = (ranks[None, :] >= ranks[:, None]) & (rankings[None, :] == rankings[:, None])
    chosen = torch.logsumexp(scores[None, :].masked_fill(~left, -torch.inf), dim=1) - scores
    return _sums(chosen, rankings)


def rating_loss(scores: Tensor, ratings: Tensor) -> Tensor:
    """(r − rating)², per completion: (batch,). ratings: standardised over those trained on."""
    return (scores - ratings).square()


def thumbs_loss(scores: Tensor, thumbs: Tensor) -> Tensor:
    """Binary cross-entropy of σ(r), per completion: (batch,). thumbs: 1 for up, 0 for down; the score is the log-odds of up."""
    return F.binary_cross_entropy_with_logits(scores, thumbs, reduction="none")


def dpo_loss(chosen_logratios: Tensor, rejected_logratios: Tensor, beta: float) -> Tensor:
    """−log σ(β (Δ_chosen − Δ_rejected)), per pair: (batch,). Rafailov et al. 2023, equation 7.

    Δ = Σ_t log π(y_t) − log π_ref(y_t), summed over the completion; β·Δ is the implicit reward.
    """
    return -F.logsigmoid(beta * (chosen_logratios - rejected_logratios))


def dpo_positive_loss(
    chosen_logratios: Tensor, rejected_logratios: Tensor, beta: float, penalty_coef: float, penalty_in: str
) -> Tensor:
    """DPO that also holds the chosen completion up, per pair: (batch,). Pal et al. 2024 (Smaug), equation 3.

    margin   −log σ(β (Δ_chosen − Δ_rejected − λ max(0, −Δ_chosen)))   the paper
    loss     −log σ(β (Δ_chosen − Δ_rejected)) + λ max(0, −Δ_chosen)   the penalty as a term of its own

    −Δ_chosen = log π_ref/π, in nats, summed over the completion: the penalty is 0 while the policy finds the chosen
    completion at least as likely as the reference does.
    """
    penalty = penalty_coef * chosen_penalty(chosen_logratios)
    match penalty_in:
        case "margin":
            return dpo_loss(chosen_logratios - penalty, rejected_logratios, beta)
        case "loss":
            return dpo_loss(chosen_logratios, rejected_logratios, beta) + penalty
    raise ValueError(f"penalty_in: {penalty_in!r} is not one of margin, loss")


def chosen_penalty(chosen_logratios: Tensor) -> Tensor:
    """max(0, log π_ref/π) of the chosen completion, in nats: (batch,). What it has lost against the reference."""
    return F.relu(-chosen_logratios)


def ipo_loss(chosen_logratios: Tensor, rejected_logratios: Tensor, beta: float) -> Tensor:
    """(Δ_chosen − Δ_rejected − 1/(2β))², per pair: (batch,). Azar et al. 2024, equation 17, with β for their τ.

    Δ is as the caller makes it: summed over the completion in the paper, averaged over its tokens in ipo.py and TRL.
    """
    return (chosen_logratios - rejected_logratios - 1 / (2 * beta)).square()


def log_odds_ratio(chosen_logprobs: Tensor, rejected_logprobs: Tensor) -> Tensor:
    """log odds(y_chosen) − log odds(y_rejected), odds = p/(1 − p): (batch,). Hong et al. 2024, section 4.

    log p of a completion is the mean log-probability of its tokens, in nats. It is held just below 0: the odds of a certain
    completion are infinite.
    """

    def log_odds(logprobs: Tensor) -> Tensor:
        logprobs = logprobs.clamp(max=-1e-6)
        return logprobs - torch.log(-torch.expm1(logprobs))

    return log_odds(chosen_logprobs) - log_odds(rejected_logprobs)


def odds_ratio_loss(chosen_logprobs: Tensor, rejected_logprobs: Tensor) -> Tensor:
    """−log σ(log odds ratio), per pair: (batch,). ORPO, Hong et al. 2024, equation 7."""
    return -F.logsigmoid(log_odds_ratio(chosen_logprobs, rejected_logprobs))


def kto_loss(
    logratios: Tensor, desirable: Tensor, baseline: Tensor, beta: float, desirable_weight: float, undesirable_weight: float
) -> Tensor:
    """w (1 − σ(± β (Δ − z₀))), + for a desirable completion and − for an undesirable one: (batch,).

    KTO, Ethayarajh et al. 2024, section 4. logratios: Δ, in nats, summed over each completion; desirable: (batch,), boolean;
    baseline: z₀ of `kto_baseline`.
    """
    signs = desirable.to(logratios.dtype) * 2 - 1
    weights = torch.where(desirable, desirable_weight, undesirable_weight)
    return weights * torch.sigmoid(-beta * signs * (logratios - baseline))


def kto_baseline(mismatched_logratios: Tensor) -> Tensor:
    """z₀ = max(0, mean Δ), in nats, a scalar without gradient: Ethayarajh et al. 2024, section 4.

    mismatched_logratios: Δ of completions that belong to other prompts, (batch,). A rough and biased estimate of
    KL(π‖π_ref) that needs no sampling.
    """
    return mismatched_logratios.detach().mean().clamp(min=0)


def ranking_loss(mean_logprobs: Tensor, scores: Tensor, group_size: int) -> Tensor:
    """Σ max(0, p_low − p_high) over the pairs of a group with score_low < score_high: (groups,).

    RRHF, Yuan et al. 2023, equation 2. mean_logprobs: p, the mean log-probability of each completion's tokens, in nats;
    scores: the same shape, (batch,), the completions of one prompt next to each other. Equal scores are no pair.
    """
    p = mean_logprobs.view(-1, group_size)
    return (F.relu(p[:, :, None] - p[:, None, :]) * _scored_lower(scores, group_size)).sum((1, 2))


def misranked(mean_logprobs: Tensor, scores: Tensor, group_size: int) -> Tensor:
    """Of the pairs of `ranking_loss`, the share whose likelihoods are in the wrong order: scalar; 0 without pairs."""
    p, lower = mean_logprobs.view(-1, group_size), _scored_lower(scores, group_size)
    return ((p[:, :, None] > p[:, None, :]) & lower).sum() / lower.sum().clamp(min=1)


def _scored_lower(scores: Tensor, group_size: int) -> Tensor:
    """(groups, i, j): True where completion i of a group is scored lower than its completion j."""
    groups = scores.view(-1, group_size)
    return groups[:, :, None] < groups[:, None, :]


def _sums(values: Tensor, rankings: Tensor) -> Tensor:
    """Sum of the values of each ranking: (rankings,)."""
    return F.one_hot(rankings).to(values.dtype).T @ values
