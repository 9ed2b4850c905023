"""Losses on preference pairs."""

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
