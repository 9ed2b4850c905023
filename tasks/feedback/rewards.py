"""Scores of rollouts: a named, weighted sum of components, each also reported on its own.

reward_model   the standardised score of the reward model (mean 0, std 1 on samples of the SFT model)
verifier       1 if the final answer is right, else 0
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tasks.core.errors import InputError
from tasks.feedback.verifier import is_correct
from tasks.models.generate import Rollout
from tasks.models.reward import load_reward_model, standardised_scores
from tasks.models.text import decode

COMPONENTS = ("reward_model", "verifier")


class Scorer:
    """Scores completions; knows nothing of advantages or KL."""

    def __init__(self, weights: dict[str, float], reward_model: Path, tokenizer: Any, verifier: str, device: str):
        unknown = set(weights) - set(COMPONENTS)
        if unknown or not weights:
            raise InputError(f"reward: {sorted(unknown) or 'nothing'} named; name some of {', '.join(COMPONENTS)}")
        self.weights = weights
        self.tokenizer = tokenizer
        self.verifier = verifier
        self.reward_model = load_reward_model(reward_model, device) if "reward_model" in weights else None

    def __call__(self, rollout: Rollout, answers: Sequence[str | None]) -> tuple[Tensor, dict[str, Tensor]]:
        """(scores, components), each (batch,). answers: one per completion.

        `verifier` is always among the components where answers are known: it shows whether the score still means what it
        should, and is part of the score only if the params give the verifier a weight.
        """
        components: dict[str, Tensor] = {}
        if self.reward_model is not None:
            components["reward_model"] = standardised_scores(self.reward_model, rollout)
        texts = [decode(self.tokenizer, ids) for ids in rollout.completions()]
        verdicts = [is_correct(text, answer, self.verifier) for text, answer in zip(texts, answers, strict=True)]
        if None not in verdicts:
            components["verifier"] = torch.tensor(verdicts, dtype=torch.float32, device=rollout.completion_ids.device)
        elif "verifier" in self.weights:
            raise InputError("reward.verifier has a weight, but the prompts have no answers to check; use reward_model alone")
        scores = torch.stack([weight * components[name] for name, weight in self.weights.items()]).sum(0)
        if not torch.isfinite(scores).all():
            raise InputError("the reward model gave a score that is not a number; retrain it with a lower learning rate")
        return scores, components
