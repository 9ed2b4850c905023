"""Scores of completions: a named, weighted sum of components, each also reported on its own.

reward_model   the standardised score of the reward model (mean 0, std 1 on samples of the SFT model)
uncertainty    how far the members of its ensemble disagree about that: their standard deviation; a negative weight makes the
               score a cautious one, mean − coefficient · std (Coste et al. 2024), with the first member for the mean
process        the chance that the worst step of the solution is right, by a reward model trained on steps
judge          the chance that an AI judge prefers it to the greedy completion of the SFT model: tasks/rewards/judge/reward.py
verifier       1 if the final answer is right, else 0
and every function of tasks/rewards/functions.py by its name, between 0 and 1
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tasks.core.errors import InputError
from tasks.core.stage import Stage
from tasks.models.batch import Batch
from tasks.models.compute import ComputeConfig, apply_settings
from tasks.models.reward import disagreement, load_ensemble, standardised_scores
from tasks.models.text import TaskConfig, decode
from tasks.rewards.functions import FUNCTIONS, RewardConfig
from tasks.rewards.judge.reward import JudgeReward, load_judge_reward
from tasks.rewards.process_reward import process_score, step_scores
from tasks.rewards.verifier import is_correct


class Scorer:
    """Scores completions; knows nothing of advantages or KL."""

    def __init__(
        self,
        config: RewardConfig,
        reward_model: Any,
        tokenizer: Any,
        verifier: str,
        ensemble: Sequence[Any] = (),
        judge: JudgeReward | None = None,
    ):
        """reward_model: that of tasks/models/reward.py; None where it has no weight, as the judge. ensemble: all members, for
        uncertainty."""
        self.config = config
        self.weights = config.weights
        self.reward_model = reward_model
        self.tokenizer = tokenizer
        self.verifier = verifier
        self.ensemble = ensemble
        self.judge = judge

    def __call__(self, rollout: Batch, answers: Sequence[str | None]) -> tuple[Tensor, dict[str, Tensor]]:
        """(scores, components), each (batch,). answers: one per completion.

        `verifier` is always among the components where answers are known: it shows whether the score still means what it
        should, and is part of the score only if the params give the verifier a weight.
        """
        device = rollout.completion_ids.device
        components: dict[str, Tensor] = {}
        if "reward_model" in self.weights:
            components["reward_model"] = standardised_scores(self.reward_model, rollout, self.tokenizer)
        if "uncertainty" in self.weights:
            components["uncertainty"] = disagreement(self.ensemble, rollout, self.tokenizer)
        texts = [decode(self.tokenizer, ids) for ids in rollout.completions()]
        if "process" in self.weights:
            steps = step_scores(self.reward_model, rollout, self.tokenizer)
            components["process"] = torch.tensor([process_score(scores) for scores in steps], device=device)
        if self.judge:
            components["judge"] = torch.tensor(self.judge(rollout, texts), dtype=torch.float32, device=device)
        for name in [name for name in self.weights if name in FUNCTIONS]:
            values = [FUNCTIONS[name](text, self.config.functions) for text in texts]
            components[name] = torch.tensor(values, dtype=torch.float32, device=device)
        verdicts = [is_correct(text, answer, self.verifier) for text, answer in zip(texts, answers, strict=True)]
        if None not in verdicts:
            components["verifier"] = torch.tensor(verdicts, dtype=torch.float32, device=device)
        elif "verifier" in self.weights:
            raise InputError(
                "reward.weights: verifier has a weight, but the prompts have no answers to check; name other components"
            )
        scores = torch.stack([weight * components[name] for name, weight in self.weights.items()]).sum(0)
        if not torch.isfinite(scores).all():
            raise InputError("the reward model gave a score that is not a number; retrain it with a lower learning rate")
        return scores, components

    def shares(self, components: dict[str, Tensor]) -> dict[str, float]:
        """Of each of several components: its part of the spread of the scores, |w| std / Σ |w| std. 0 where nothing spreads.

        A component of weight 0 is only watched, and has no part.
        """
        weights = {name: abs(weight) for name, weight in self.weights.items() if weight}
        spread = {name: weight * float(components[name].std(correction=0)) for name, weight in weights.items()}
        whole = sum(spread.values())
        return {name: value / whole if whole else 0.0 for name, value in spread.items()} if len(weights) > 1 else {}


def load_scorer(stage: Stage, tokenizer: Any, task: TaskConfig) -> Scorer:
    """By the namespace `reward`. The reward model is a dependency also where it has no weight: DVC knows no "if"."""
    config, folder = stage.params(RewardConfig), stage.dep("models/reward_model")
    scored = not config.weights.keys().isdisjoint({"reward_model", "uncertainty", "process"})
    compute = stage.params(ComputeConfig)
    ensemble = [apply_settings(each, compute) for each in load_ensemble(folder, stage.device)] if scored else []
    if "uncertainty" in config.weights and len(ensemble) < 2:
        raise InputError("reward.weights: uncertainty needs an ensemble; set reward_model.ensemble_size to 2 or more")
    if "process" in config.weights and not getattr(ensemble[0].config, "process", False):
        raise InputError("reward.weights: process needs a reward model trained on steps; set reward_model.process_coef above 0")
    judge = load_judge_reward(stage, task) if "judge" in config.weights else None
    return Scorer(config, ensemble[0] if ensemble else None, tokenizer, task.verifier, ensemble, judge)
