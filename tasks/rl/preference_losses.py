"""Losses on preference pairs, on labelled completions and on ranked ones."""

import torch
import torch.nn.functional as F
from torch import Tensor


def bradley_terry_loss(chosen_scores: Tensor, rejected_scores: Tensor) -> Tensor:
    """−log σ(r_chosen − r_rejected), per pair: (batch,). Bradley & Terry 1952; Ouyang et al. 2022, equation 1."""
    return -F.logsigmoid(chosen_scores - rejected_scores)


def centering_loss(chosen_scores: Tensor, rejected_scores: Tensor) -> Tensor:
    """(r_chosen + r_rejected)², per pair: (batch,). Eisenstein et al. 2023: the mean goes to zero, the gap stays."""
    return (chosen_scores + rejected_scores).square()


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
