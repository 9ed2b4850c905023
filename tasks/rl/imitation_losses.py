"""Losses of imitation: adversarial (GAIL) and by maximum entropy (guided cost learning)."""

import torch
import torch.nn.functional as F
from torch import Tensor


def discriminator_loss(demonstration_logits: Tensor, sample_logits: Tensor) -> Tensor:
    """−log D(demonstration) − log(1 − D(sample)), D = σ(logit), per pair: (batch,). Ho & Ermon 2016, equation 17, with the
    labels of Goodfellow et al. 2014: D is the chance that a text is a demonstration. 2 ln 2 where D knows nothing.
    """
    return -F.logsigmoid(demonstration_logits) - F.logsigmoid(-sample_logits)


def imitation_reward(sample_logits: Tensor) -> Tensor:
    """log D of what the policy wrote, in nats: (batch,), never above 0. Ho & Ermon 2016, algorithm 1."""
    return F.logsigmoid(sample_logits)


def importance_weights(rewards: Tensor, logprobs: Tensor, temperature: float) -> Tensor:
    """w_j ∝ (exp r(τ_j) / π(τ_j))^(1/temperature), over the candidates of each prompt: (prompts, candidates), rows sum to 1.

    Finn et al. 2016, section 4.1. rewards: r(τ_j); logprobs: log π(τ_j) of whoever wrote them; both (prompts, candidates),
    in nats. temperature 1 is exact; above it the weights are more even: less variance, for a bias towards the samples as
    they are. No gradient flows through them.
    """
    return torch.softmax((rewards - logprobs).detach() / temperature, dim=1)


def effective_sample_size(weights: Tensor) -> Tensor:
    """(Σ w)² / Σ w² of each row: (prompts,), between 1 and the number of candidates. Kong 1992."""
    return weights.sum(1).square() / weights.square().sum(1)


def maxent_irl_loss(demonstration_rewards: Tensor, rewards: Tensor, weights: Tensor) -> Tensor:
    """−r(demonstration) + Σ_j w_j r(τ_j) / Σ_j w_j, per prompt: (prompts,).

    Its gradient is that of the negative log-likelihood of the demonstration under p(τ) = exp r(τ) / Z, with Z estimated by
    the weighted candidates: Ziebart et al. 2008; Finn et al. 2016, equation 4. demonstration_rewards: (prompts,); rewards,
    weights: (prompts, candidates). The value of this loss means nothing by itself.
    """
    return (weights * rewards).sum(1) / weights.sum(1) - demonstration_rewards
