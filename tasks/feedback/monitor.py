"""What every on-policy algorithm reports of its rollouts, under the same names: collapse must look the same everywhere.

rollout/score_mean, rollout/score_std   the scores that are optimized, before any KL
rollout/<component>_mean                each reward component by itself; `verifier` is the share of right answers, optimized
                                        or not
rollout/kl_mean                         KL(π‖π_ref) of a completion, estimator k1, in nats
rollout/entropy                         entropy of the policy at the sampled tokens, in nats
rollout/completion_length               tokens
rollout/eos_rate                        share of completions that ended by themselves
"""

from typing import Any

from torch import Tensor

from tasks.core.files import Row
from tasks.models.generate import Rollout
from tasks.models.text import decode
from tasks.rl.masking import masked_mean


def rollout_metrics(rollout: Rollout, ref_logprobs: Tensor, scores: Tensor, components: dict[str, Tensor]) -> dict[str, Tensor]:
    mask = rollout.completion_mask
    return {
        "rollout/score_mean": scores.mean(),
        "rollout/score_std": scores.std(),
        **{f"rollout/{name}_mean": values.mean() for name, values in components.items()},
        "rollout/kl_mean": ((rollout.logprobs - ref_logprobs) * mask).sum(1).mean(),
        "rollout/entropy": masked_mean(rollout.entropy, mask),
        "rollout/completion_length": rollout.lengths.float().mean(),
        "rollout/eos_rate": rollout.finished.float().mean(),
    }


def rollout_rows(step: int, rollout: Rollout, tokenizer: Any, prompts: list[str], scores: Tensor, count: int = 4) -> list[Row]:
    """One completion of each of the first prompts, to be read by a person."""
    group_size = len(rollout) // len(prompts)
    shown = rollout.select(slice(0, count * group_size, group_size))
    texts = [decode(tokenizer, ids) for ids in shown.completions()]
    rows = zip(prompts, texts, scores[::group_size].tolist(), strict=False)
    return [{"step": step, "prompt": x, "completion": y, "score": round(score, 3)} for x, y, score in rows]
