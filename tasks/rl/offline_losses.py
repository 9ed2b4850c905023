"""Losses of value-based learning from recorded completions: implicit Q-learning for language (Snell et al. 2023, ILQL).

One token is one action; the state is the prompt and the tokens before it. Everything is per token, (batch, time), and
`reduce_tokens` makes one number of it.
"""

import torch
from torch import Tensor


def td_loss(q: Tensor, targets: Tensor) -> Tensor:
    """(target − Q)², the first term of L_QV in Snell et al. 2023. (batch, time)

    targets: r_t + γ V(s_{t+1}), which are the returns of `gae` at λ = 0, or those of a larger λ; no gradient flows into them.
    """
    return (targets - q).square()


def expectile_loss(q: Tensor, values: Tensor, tau: float) -> Tensor:
    """|τ − 1(u < 0)| u², u = Q − V, the second term of L_QV, after Kostrikov et al. 2022 (IQL). (batch, time)

    At τ = ½ the V that minimizes it is the mean of Q over the recorded tokens; towards 1 it becomes their maximum, without
    ever asking for the Q of a token that nobody wrote. The caller keeps the gradient out of Q.
    """
    gap = q - values
    return torch.where(gap < 0, 1 - tau, tau) * gap.square()


def cql_loss(q: Tensor, token_ids: Tensor) -> Tensor:
    """log Σ_a exp Q(s_t, a) − Q(s_t, y_t): tokens that nobody wrote must not look better than those that somebody did.

    Kumar et al. 2020 (conservative Q-learning), in the form of Snell et al. 2023. q: (batch, time, vocabulary), token_ids:
    (batch, time); returns (batch, time).
    """
    return torch.logsumexp(q, dim=-1) - q.gather(-1, token_ids.unsqueeze(-1)).squeeze(-1)
