"""The slow obvious twin of tasks/algorithms/ppo_max.py: one completion, one token, one switch at a time, no padding."""

import copy
from pathlib import Path
from statistics import fmean, pstdev, variance
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification

from tasks.core import seeds
from tasks.core.files import read_table
from tasks.models.generate import sample
from tasks.models.language import load_policy
from tasks.models.text import encode_completion
from tests.reference.rl import completion_logprobs_of_one, gae_of_one, whiten


def values_of_one(critic: Any, prompt: list[int], completion: list[int]) -> torch.Tensor:
    """(time,): the head on the state before each token."""
    states = critic.base_model(input_ids=torch.tensor([prompt + completion])).last_hidden_state[0]
    return torch.stack([critic.score(states[len(prompt) + t - 1])[0] for t in range(len(completion))])


def clipped_step(optimizer: Any, learning_rate: float, max_grad_norm: float | None) -> float:
    """Returns the norm before clipping."""
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    norm = sum(p.grad.double().square().sum().item() for p in parameters) ** 0.5
    if max_grad_norm is not None and norm > max_grad_norm:
        for parameter in parameters:
            parameter.grad.mul_(max_grad_norm / norm)
    optimizer.param_groups[0]["lr"] = learning_rate
    optimizer.step()
    optimizer.zero_grad()
    return norm


def ppo_max(
    folder: Path, seed: int, max_new_tokens: int, scorer: Any, prompts: Any, c: dict[str, Any]
) -> list[dict[str, float]]:
    """History of the training. One optimizer step per epoch; temperature 1, gamma 1, estimator k1, mean over tokens."""
    policy, tokenizer = load_policy(folder / "models/sft", "cpu")
    reference = copy.deepcopy(policy)
    critic = AutoModelForSequenceClassification.from_pretrained(folder / f"models/{c['critic']}", num_labels=1).eval()
    if c["critic"] == "sft":
        critic.score.weight.data.zero_()
    else:  # in standard units
        head, (mean, std) = critic.score, (critic.config.score_mean, critic.config.score_std)
        critic.score = torch.nn.Linear(head.in_features, 1)
        critic.score.weight.data, critic.score.bias.data = head.weight.data / std, torch.tensor([-mean / std])
    optimizer, critic_optimizer = (
        torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=0.01, fused=True) for model in (policy, critic)
    )
    corpus = [row["text"] for row in read_table(folder / "data/prepared/corpus.parquet")]
    texts = seeds.batches(len(corpus), c["pretraining_batch_size"], seeds.derive(seed, "pretraining"))
    order = seeds.batches(len(prompts), c["rollout_batch_size"] // c["group_size"], seed)
    history, scores_so_far = [], []
    for step in range(c["num_steps"]):
        asked = [prompts[i] for i in next(order)]
        rollout = sample(
            policy, tokenizer, [prompt.ids for prompt in asked], max_new_tokens=max_new_tokens, temperature=1.0,
            generator=seeds.generator(seed, "rollout", step), group_size=c["group_size"],
        )  # fmt: skip
        answers = [prompt.answer for prompt in asked for _ in range(c["group_size"])]
        scores = scorer(rollout, answers)[0].tolist()
        pairs = [(asked[row // c["group_size"]].ids, ids) for row, ids in enumerate(rollout.completions())]

        if c["score_normalization"]:
            scores_so_far += scores
            scores = [(score - fmean(scores_so_far)) / pstdev(scores_so_far) for score in scores]
        if c["score_clip_range"] is not None:
            scores = [min(max(score, -c["score_clip_range"]), c["score_clip_range"]) for score in scores]
        old_logprobs, old_values, advantages, returns, outcomes = [], [], [], [], []
        for (prompt, ids), score, finished in zip(pairs, scores, rollout.finished.tolist(), strict=True):
            with torch.no_grad():
                logprobs = completion_logprobs_of_one(policy, prompt, ids, 1.0)
                kl = (logprobs - completion_logprobs_of_one(reference, prompt, ids, 1.0)).tolist()
                values = values_of_one(critic, prompt, ids)
            if c["kl_level"] == "completion":
                kl = [0.0] * (len(ids) - 1) + [sum(kl)]
            rewards = [-c["kl_coef"] * each for each in kl]
            rewards[-1] += score - (0.0 if finished else c["missing_eos_penalty"])
            old_logprobs.append(logprobs)
            old_values.append(values)
            advantages.append(gae_of_one(rewards, values.tolist(), 1.0, c["gae_lambda"]))
            returns.append([a + v for a, v in zip(advantages[-1], values.tolist(), strict=True)])
            outcomes += [sum(rewards[t:]) for t in range(len(rewards))]
        if c["whiten_advantages"]:
            advantages = whiten(advantages)

        tokens = sum(len(ids) for _, ids in pairs)
        updates = []
        for _ in range(c["num_epochs"]):
            policy_loss, value_loss, approx_kl, clipped, value_clipped, nll = (
                torch.zeros(()),
                torch.zeros(()),
                0.0,
                0,
                0,
                torch.zeros(()),
            )
            for row, (prompt, ids) in enumerate(pairs):
                logprobs, values = completion_logprobs_of_one(policy, prompt, ids, 1.0), values_of_one(critic, prompt, ids)
                for t in range(len(ids)):
                    ratio, advantage = (logprobs[t] - old_logprobs[row][t]).exp(), advantages[row][t]
                    approx_kl += (ratio - 1 - ratio.log()).item()
                    gain = ratio * advantage
                    if c["clip_range"] is not None:
                        clipped += int(abs(ratio.item() - 1) > c["clip_range"])
                        gain = torch.minimum(gain, ratio.clamp(1 - c["clip_range"], 1 + c["clip_range"]) * advantage)
                    policy_loss = policy_loss - gain / tokens
                    error, old = 0.5 * (values[t] - returns[row][t]) ** 2, old_values[row][t]
                    if c["value_clip_range"] is not None:
                        value_clipped += int(abs(values[t].item() - old.item()) > c["value_clip_range"])
                        near = old + (values[t] - old).clamp(-c["value_clip_range"], c["value_clip_range"])
                        error = torch.maximum(error, 0.5 * (near - returns[row][t]) ** 2)
                    value_loss = value_loss + error / tokens
            value_loss.backward()
            rate = c["value_learning_rate"] * min(1.0, (step + 1) / 5)
            value_norm, grad_norm = clipped_step(critic_optimizer, rate, c["max_grad_norm"]), 0.0
            if step >= c["critic_warmup_steps"]:
                if c["pretraining_coef"]:
                    encoded = [encode_completion(tokenizer, corpus[row]) for row in next(texts)]
                    each = [completion_logprobs_of_one(policy, [tokenizer.bos_token_id], ids, 1.0) for ids in encoded]
                    nll = -torch.cat(each).sum() / sum(map(len, encoded))
                (policy_loss + c["pretraining_coef"] * nll).backward()
                rate = c["learning_rate"] * min(1.0, (step - c["critic_warmup_steps"] + 1) / 5)
                grad_norm = clipped_step(optimizer, rate, c["max_grad_norm"])
            updates.append(
                (
                    policy_loss.item(),
                    value_loss.item(),
                    nll.item(),
                    approx_kl / tokens,
                    clipped / tokens,
                    value_clipped / tokens,
                )
            )
        keys = (
            "loss/policy", "loss/value", "loss/pretraining", "policy/approx_kl", "policy/clip_fraction", "value/clip_fraction",
        )  # fmt: skip
        means = [fmean(column) for column in zip(*updates, strict=True)]
        said = torch.cat(old_values).tolist()
        unexplained = variance([a - b for a, b in zip(outcomes, said, strict=True)]) / max(variance(outcomes), 1e-8)
        history.append(dict(zip(keys, means, strict=True)) | {
            "value/explained_variance": 1 - unexplained, "train/grad_norm": grad_norm, "value/grad_norm": value_norm,
        })  # fmt: skip
    return history
