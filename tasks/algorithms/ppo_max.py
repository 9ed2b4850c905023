"""PPO-max: PPO with the constraints that keep it stable, each a switch of its own in params.yaml.

    score_t = clip((score − mean so far) / (std so far), ±score_clip_range), at the last token
    R_t = score_t − kl_coef · log(π/π_ref)(y_t)
    Â   = GAE(R, V), whitened
    policy: minimize  −min(ρ Â, clip(ρ, 1−ε, 1+ε) Â) per token  −  pretraining_coef · log π of the corpus
    critic: minimize  ½ max((V−R̂)², (clip(V, V_old ± ε_v) − R̂)²) per token

Zheng et al. 2023 ("Secrets of RLHF in large language models part I: PPO"), section 5; the policy's last term is the PPO-ptx of
Ouyang et al. 2022. What a switch says when it is off:

    score_normalization: false     score_clip_range: null       kl_coef: 0             kl_level: completion
    clip_range: null               value_clip_range: null       whiten_advantages: false
    critic: sft                    critic_warmup_steps: 0       max_grad_norm: null    pretraining_coef: 0

With kl_level `completion` the KL of all tokens is one penalty at the last token, instead of each token paying its own.

How this differs from the paper
  - group_size completions share a prompt, which saves reading the prompt; the advantage does not use the group.
  - The ratio is clipped as in PPO, also with one epoch: batch_size is a part of the rollout, the paper's small buffer.
  - The critic that starts from the reward model has its head in the units of its target: standardised scores.
  - The critic warms up on the score of the SFT model's rollouts, which count in num_steps.

Metrics: those of tasks/training/monitor.py, rollout/score_clip_fraction (share of scores that score_clip_range has cut), and as
means over the updates of the step
  loss/policy, loss/value   the two clipped terms above
  loss/pretraining          negative log-likelihood of a token of the corpus, before pretraining_coef; 0 where it is off
  policy/approx_kl          KL(π_old‖π) before each update, estimator k3, in nats per token
  policy/clip_fraction      share of tokens whose ratio left [1−ε, 1+ε]
  value/clip_fraction       share of tokens whose value left V_old ± ε_v
  value/explained_variance  1 − var(G − V)/var(G), G the sum of the rewards still to come and V from before the update: 0 for a
                            useless value function, 1 for a perfect one
  value/grad_norm           norm of the gradient of the critic's last update, before clipping
  train/grad_norm           the same of the policy; 0 in the warm-up, as everything is that only a learning policy has
"""

from collections.abc import Iterator
from math import inf
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from tasks.core import seeds
from tasks.core.config import Config, check_divides
from tasks.core.errors import InputError
from tasks.core.files import read_table
from tasks.core.run import run
from tasks.core.stage import Stage
from tasks.models.adapter import add_adapter
from tasks.models.architecture import context_length
from tasks.models.batch import Batch, collate
from tasks.models.compute import ComputeConfig, apply_settings
from tasks.models.generate import sample
from tasks.models.language import save_model
from tasks.models.optimizer import Optimizer
from tasks.models.policy import open_policy
from tasks.models.reward import load_reward_model, reward_model_from_policy, same_ids, state_values
from tasks.models.text import TaskConfig, encode_completions
from tasks.rewards.scorer import load_scorer
from tasks.rl.advantages import explained_variance, gae
from tasks.rl.kl import kl_estimate
from tasks.rl.logprobs import completion_logprobs
from tasks.rl.masking import reduce_tokens, whiten
from tasks.rl.normalization import RunningNormalization
from tasks.rl.policy_losses import clip_fraction, clipped_policy_loss, clipped_value_loss
from tasks.training.monitor import Monitor, Scored, reference_logprobs
from tasks.training.prompts import load_prompts


class PpoMaxConfig(Config):
    """params.yaml: policy.ppo_max"""

    namespace = "policy.ppo_max"
    kl_in: ClassVar[str] = "reward"
    kl_estimator: ClassVar[str] = "k1"

    num_steps: PositiveInt  # those of the warm-up included
    rollout_batch_size: PositiveInt  # completions per step
    group_size: PositiveInt  # completions per prompt
    num_epochs: PositiveInt  # passes over a rollout
    batch_size: PositiveInt  # completions per optimizer step
    micro_batch_size: PositiveInt  # completions per backward pass
    learning_rate: PositiveFloat
    value_learning_rate: PositiveFloat  # of the critic
    temperature: PositiveFloat
    score_normalization: bool
    score_clip_range: PositiveFloat | None
    kl_coef: NonNegativeFloat
    kl_level: Literal["token", "completion"]
    reduction: Literal["token_mean", "sequence_mean", "sequence_sum"]
    clip_range: PositiveFloat | None
    critic: Literal["reward_model", "sft"]  # what it starts from
    critic_warmup_steps: NonNegativeInt  # steps in which only the critic is trained
    value_clip_range: PositiveFloat | None
    whiten_advantages: bool
    max_grad_norm: PositiveFloat | None  # in place of that of `optimizer`
    pretraining_coef: NonNegativeFloat
    pretraining_batch_size: PositiveInt  # texts of the corpus per optimizer step
    gamma: PositiveFloat
    gae_lambda: NonNegativeFloat
    missing_eos_penalty: NonNegativeFloat

    @model_validator(mode="after")
    def _sizes(self) -> Self:
        check_divides("group_size", self.group_size, "rollout_batch_size", self.rollout_batch_size)
        check_divides("batch_size", self.batch_size, "rollout_batch_size", self.rollout_batch_size)
        check_divides("micro_batch_size", self.micro_batch_size, "batch_size", self.batch_size)
        if self.critic_warmup_steps >= self.num_steps:
            raise ValueError(
                f"critic_warmup_steps ({self.critic_warmup_steps}) must be below num_steps ({self.num_steps}), "
                "or the policy never learns"
            )
        return self


def train(config: PpoMaxConfig, stage: Stage) -> None:
    task = stage.params(TaskConfig)
    policy, reference, tokenizer, optimizer = open_policy(stage, stage.dep("models/sft"))
    load_critic = {"reward_model": load_reward_model, "sft": reward_model_from_policy}[config.critic]
    critic = load_critic(stage.dep(f"models/{config.critic}"), stage.device)
    if config.critic == "reward_model":
        standardise_head(critic)
    critic.requires_grad_(True)
    apply_settings(critic, stage.params(ComputeConfig))
    add_adapter(critic, stage, "critic")
    if not same_ids(tokenizer, critic.tokenizer):
        raise InputError("policy.ppo_max.critic: the reward model reads by another tokenizer than the policy; set it to sft")
    scorer = load_scorer(stage, tokenizer, task)
    normalize = RunningNormalization().to(stage.device)
    monitor = Monitor(stage, scorer, tokenizer)
    prompts = load_prompts(stage, tokenizer, "train")
    texts = [row["text"] for row in read_table(stage.dep("data/prepared/corpus.parquet"))]
    if config.pretraining_coef and not texts:
        raise InputError("policy.ppo_max.pretraining_coef needs a corpus, but prepare_data.sources names none; set it to 0")
    optimizer.settings = optimizer.settings.model_copy(update={"max_grad_norm": config.max_grad_norm})
    value_optimizer = Optimizer(critic.parameters(), optimizer.settings)
    stage.resume(policy=policy, critic=critic, normalize=normalize, optimizer=optimizer, value_optimizer=value_optimizer)
    # A limit that is off is infinite: clipping to it changes no bit.
    policy_clip, value_clip = config.clip_range or inf, config.value_clip_range or inf
    score_clip = config.score_clip_range or inf

    corpus = pretraining_batches(texts, policy, tokenizer, config, stage)
    order = seeds.batches(len(prompts), config.rollout_batch_size // config.group_size, stage.seed, stage.start)
    for step in stage.steps(config.num_steps):
        asked = [prompts[i] for i in next(order)]
        rollout = sample(
            policy, tokenizer, [prompt.ids for prompt in asked],
            max_new_tokens=task.max_new_tokens, temperature=config.temperature,
            generator=seeds.generator(stage.seed, "rollout", step), group_size=config.group_size,
        )  # fmt: skip
        scores, components = scorer(rollout, [prompt.answer for prompt in asked for _ in range(config.group_size)])
        mask = rollout.completion_mask

        ref_logprobs, values = reference_logprobs(reference, rollout, config.temperature), torch.zeros_like(rollout.logprobs)
        with torch.no_grad():
            for rows, micro in rollout.micro_batches(config.micro_batch_size):
                values[rows, : micro.time] = state_values(critic, micro)
        normalized = normalize(scores) if config.score_normalization else scores
        bounded = normalized.clamp(-score_clip, score_clip)
        rewards = -config.kl_coef * kl_estimate(rollout.logprobs, ref_logprobs, config.kl_estimator) * mask
        last_token = rollout.lengths - 1
        if config.kl_level == "completion":
            rewards = torch.zeros_like(rewards).scatter(1, last_token[:, None], rewards.sum(1, keepdim=True))
        rewards[torch.arange(len(rollout)), last_token] += bounded - config.missing_eos_penalty * ~rollout.finished
        advantages, returns = gae(rewards, values, mask, config.gamma, config.gae_lambda)
        advantages = whiten(advantages, mask) if config.whiten_advantages else advantages

        updates, learning, grad_norm = [], step >= config.critic_warmup_steps, 0.0
        for epoch in range(config.num_epochs):
            shuffled = torch.randperm(len(rollout), generator=seeds.generator(stage.seed, "epoch", step, epoch))
            for batch_rows in shuffled.to(stage.device).split(config.batch_size):
                update, full_mask = torch.zeros(6, device=stage.device), mask[batch_rows]
                for indices, micro in rollout.select(batch_rows).micro_batches(config.micro_batch_size):
                    rows, time = batch_rows[indices], micro.time
                    logprobs, new_values = completion_logprobs(policy, micro, config.temperature), state_values(critic, micro)
                    policy_loss = reduce_tokens(
                        clipped_policy_loss(logprobs, micro.logprobs, advantages[rows, :time], policy_clip),
                        micro.completion_mask, config.reduction, full_mask,
                    )  # fmt: skip
                    value_loss = reduce_tokens(
                        clipped_value_loss(new_values, values[rows, :time], returns[rows, :time], value_clip)
                        if config.value_clip_range else 0.5 * (new_values - returns[rows, :time]).square(),
                        micro.completion_mask, config.reduction, full_mask,
                    )  # fmt: skip
                    (policy_loss + value_loss if learning else value_loss).backward()
                    with torch.no_grad():
                        approx_kl = kl_estimate(micro.logprobs, logprobs, "k3")
                        clipped = clip_fraction(logprobs, micro.logprobs, policy_clip)
                        value_clipped = ((new_values - values[rows, :time]).abs() > value_clip).float()
                        shares = [
                            reduce_tokens(each, micro.completion_mask, "token_mean", full_mask)
                            for each in (approx_kl, clipped, value_clipped)
                        ]
                        update[:5] += torch.stack([policy_loss, value_loss, *shares])
                if learning and config.pretraining_coef:
                    text = next(corpus)
                    nll = reduce_tokens(-completion_logprobs(policy, text), text.completion_mask, "token_mean")
                    (config.pretraining_coef * nll).backward()
                    update[5] = nll.detach()
                value_norm = value_optimizer.constant_step(step, config.value_learning_rate)
                if learning:
                    grad_norm = optimizer.constant_step(step - config.critic_warmup_steps, config.learning_rate)
                updates.append(update)

        policy_loss_mean, value_loss_mean, approx_kl, clipped, value_clipped, nll_mean = torch.stack(updates).mean(0)
        _, outcomes = gae(rewards, torch.zeros_like(values), mask, config.gamma, gae_lambda=1.0)
        alarmed = monitor.log(step, Scored(rollout, ref_logprobs, scores, components), {
            "loss/policy": policy_loss_mean,
            "loss/value": value_loss_mean,
            "loss/pretraining": nll_mean,
            "policy/approx_kl": approx_kl,
            "policy/clip_fraction": clipped,
            "value/clip_fraction": value_clipped,
            "value/explained_variance": explained_variance(values, outcomes, mask),
            "value/grad_norm": value_norm,
            "train/grad_norm": grad_norm,
            "rollout/score_clip_fraction": (normalized.abs() > score_clip).float().mean(),
        })  # fmt: skip
        if alarmed:
            break

    save_model(policy, tokenizer, stage.out(f"models/policy/{stage.variant}"))
    stage.report(f"reports/policy/{stage.variant}")


def standardise_head(critic: Any) -> None:
    """A reward model's head, in the units of the scores that the critic is to predict: mean 0 and deviation 1."""
    mean, std = critic.config.score_mean, critic.config.score_std
    head = torch.nn.utils.skip_init(torch.nn.Linear, critic.score.in_features, 1, device=critic.score.weight.device)
    with torch.no_grad():
        head.weight.copy_(critic.score.weight / std)
        head.bias.fill_(-mean / std)
    critic.score = head


def pretraining_batches(texts: list[str], policy: Any, tokenizer: Any, config: PpoMaxConfig, stage: Stage) -> Iterator[Batch]:
    """Batches of the corpus as the base model was trained on them, from the first update still to do; lazy."""
    context = context_length(policy)
    encoded = [ids[: context - 1] for ids in encode_completions(tokenizer, texts)]
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    updates = config.num_epochs * config.rollout_batch_size // config.batch_size
    done = max(0, stage.start - config.critic_warmup_steps) * updates
    for rows in seeds.batches(len(texts), config.pretraining_batch_size, seeds.derive(stage.seed, "pretraining"), done):
        yield collate([[start]] * len(rows), [encoded[row] for row in rows], tokenizer.pad_token_id, stage.device)


if __name__ == "__main__":
    run(PpoMaxConfig, train)
