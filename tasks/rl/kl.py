"""Estimators of KL(π‖π_ref) from samples of π (Schulman, "Approximating KL divergence", 2020)."""

import torch
from torch import Tensor


class KlCoefficient(torch.nn.Module):
    """The weight of a KL penalty. With a target, in nats per completion, it follows the KL that was measured:

    coef ← coef · (1 + 0.1 · clip((KL − target) / target, −0.2, 0.2))

    Ziegler et al. 2019, section 2.2. A module, so that a checkpoint holds it.
    """

    coef: Tensor

    def __init__(self, start: float, target: float | None):
        super().__init__()
        self.target = target
        self.register_buffer("coef", torch.tensor(start, dtype=torch.float64))

    def adapt(self, kl: Tensor) -> None:
        """kl: of the rollout, mean over its completions."""
        if self.target is not None:
            self.coef *= 1 + 0.1 * ((kl.double() - self.target) / self.target).clamp(-0.2, 0.2).to(self.coef.device)


def kl_estimate(logprobs: Tensor, ref_logprobs: Tensor, estimator: str) -> Tensor:
    """Per-token estimate, same shape as logprobs: (batch, time), in nats.

    k1  log π/π_ref            unbiased, high variance, can be negative
    k2  (log π/π_ref)² / 2     biased, never negative
    k3  r − 1 − log r, r = π_ref/π   unbiased and never negative

    In the reward only k1 has the gradient of KL(π‖π_ref): that of k2 and k3 is a small fraction of it, or points elsewhere.
    As a loss its mean gradient is another matter: 0 for k1, that of KL(π‖π_ref) for k2, that of KL(π_ref‖π) for k3. Times
    ρ = π/π_old of the policy that sampled, mean and gradient are those of KL(π‖π_ref) for k1 and k3, on-policy and off
    (Tang & Munos 2025; DeepSeek-V3.2, 2025).
    """
    log_ratio = logprobs - ref_logprobs
    match estimator:
        case "k1":
            return log_ratio
        case "k2":
            return log_ratio.square() / 2
        case "k3":
            return (-log_ratio).exp() - 1 + log_ratio
    raise ValueError(f"kl_estimator: {estimator!r} is not one of k1, k2, k3")
