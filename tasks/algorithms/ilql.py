"""ILQL: values of recorded completions, token by token, and a policy that is perturbed by them; no sampling.

    minimize  (R_t − Q(s_t, y_t))²  +  |τ − 1(Q̄ < V)| (Q̄(s_t, y_t) − V(s_t))²
              + cql_coef · (log Σ_a exp Q(s_t, a) − Q(s_t, y_t))  −  nll_coef · log π(y_t | s_t)              per token
    decode with  π(a | s) · exp(β (Q̄(s, a) − V(s)))
    R_t = r_t + γ ((1 − λ) V(s_{t+1}) + λ R_{t+1})

Snell et al. 2023 (ILQL). r_t is the score at the last token and 0 before, with no KL; Q̄ is a copy of Q that follows it slowly
(Polyak averaging). Every recorded completion counts, chosen or rejected: what is learned is how good each is.

How this differs from the paper
  - Q, V and π are heads of one trunk, which starts as the SFT model; the paper keeps a second model for π. The heads start at
    zero and have their own learning rate.
  - One Q, not the smaller of two. Q(s, a) = U(s) + A(s, a) with A linear in the trunk's last hidden state (U as in Wang et
    al. 2016, dueling networks): a token that nobody wrote in s is by default as good as s, not worth 0.
  - R is the λ-return, λ = td_lambda; the paper's is that of λ = 0. In a few hundred steps such a target does not carry the
    score from the last token to the first ones.
  - A linear A folds into the output layer: log π + β (Q̄ − V) differs from (W_π + β W_A) h by a number that is the same for
    all tokens, so the softmax of both is equal, and the decoded policy is saved as a plain causal LM that needs no V.

Metrics: those of tasks/training/monitor.py on probes of the decoded policy, and
  loss/q, loss/v, loss/cql, loss/nll   the four terms above, the last two before their coefficients
  value/explained_variance  1 − var(G − V)/var(G), G the discounted score: 0 for a useless V, 1 for a perfect one
  value/advantage_std       standard deviation of Q̄ − V at the recorded tokens; times β it is how far decoding departs from π
  train/grad_norm           norm of the gradient of π, trunk included, before clipping
"""

import copy
from typing import Any, Self

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator
from torch import Tensor

from tasks.core import progress, seeds
from tasks.core.config import Config, check_divides
from tasks.core.errors import InputError
from tasks.core.run import run
from tasks.core.stage import Stage
from tasks.models.adapter import refuse_adapter
from tasks.models.architecture import width
from tasks.models.batch import Batch, PairSet
from tasks.models.language import frozen_copy, save_model
from tasks.models.optimizer import Optimizer
from tasks.models.policy import open_policy
from tasks.models.text import TaskConfig
from tasks.rewards.scorer import Scorer, load_scorer
from tasks.rl.advantages import explained_variance, gae
from tasks.rl.logprobs import completion_logprobs_and_hidden
from tasks.rl.masking import reduce_tokens
from tasks.rl.offline_losses import cql_loss, expectile_loss, td_loss
from tasks.training.monitor import Monitor, Probe
from tasks.training.pairs import load_pairs
from tasks.training.prompts import load_prompts

ROWS_AT_ONCE = 128


class IlqlConfig(Config):
    """params.yaml: policy.ilql"""

    namespace = "policy.ilql"

    num_steps: PositiveInt
    batch_size: PositiveInt  # pairs, both completions of each
    micro_batch_size: PositiveInt | None  # pairs per backward pass; null: all at once
    learning_rate: PositiveFloat  # of the policy, whose trunk Q and V share
    value_learning_rate: PositiveFloat  # of the heads Q and V
    gamma: PositiveFloat
    td_lambda: float = Field(ge=0, le=1)
    tau: float = Field(gt=0, lt=1)
    cql_coef: NonNegativeFloat
    nll_coef: NonNegativeFloat
    polyak_rate: float = Field(gt=0, le=1)  # share of Q that goes into Q̄ in each step
    beta: NonNegativeFloat  # of the decoding; 0: π itself

    @model_validator(mode="after")
    def _sizes(self) -> Self:
        check_divides("micro_batch_size", self.micro_batch_size, "batch_size", self.batch_size)
        return self


class QHead(torch.nn.Module):
    """Q(s, a) = U(s) + A(s, a), both linear in the hidden state and 0 at first."""

    def __init__(self, hidden_size: int, vocab_size: int, device: str):
        super().__init__()
        self.state = torch.nn.Linear(hidden_size, 1, device=device)
        self.advantage = torch.nn.Linear(hidden_size, vocab_size, bias=False, device=device)
        for parameter in self.parameters():
            torch.nn.init.zeros_(parameter)

    def forward(self, hidden: Tensor) -> Tensor:
        """(batch, time, hidden) -> (batch, time, vocabulary)"""
        return self.state(hidden) + self.advantage(hidden)


def train(config: IlqlConfig, stage: Stage) -> None:
    task = stage.params(TaskConfig)
    refuse_adapter(stage, "ILQL folds its values into the output layer, which an adapter leaves alone")
    policy, reference, tokenizer, optimizer = open_policy(stage, stage.dep("models/sft"))
    q_head = QHead(width(policy), policy.get_output_embeddings().out_features, stage.device)
    target_q_head = frozen_copy(q_head)
    value_head = torch.nn.Linear(width(policy), 1, device=stage.device)
    torch.nn.init.zeros_(value_head.weight)
    torch.nn.init.zeros_(value_head.bias)
    pairs = load_pairs(stage, tokenizer, "train")
    if not len(pairs):
        raise InputError("data/preferences.parquet has no pair of the train split; ILQL learns from recorded completions only")
    check_foldable(policy, pairs.batch([0]))
    answers = {prompt.text: prompt.answer for prompt in load_prompts(stage, tokenizer, "train")}
    scorer = load_scorer(stage, tokenizer, task)
    monitor = Monitor(stage, scorer, tokenizer)
    probe = Probe(monitor, reference, task, config.num_steps)
    scores = pair_scores(scorer, pairs, answers, stage.name)
    value_optimizer = Optimizer([*q_head.parameters(), *value_head.parameters()], optimizer.settings)
    stage.resume(
        policy=policy, q_head=q_head, target_q_head=target_q_head, value_head=value_head,
        optimizer=optimizer, value_optimizer=value_optimizer,
    )  # fmt: skip

    order = seeds.batches(len(pairs), config.batch_size, stage.seed, stage.start, pairs.lengths)
    for step in stage.steps(config.num_steps):
        indices = next(order)
        batch = pairs.batch(indices)
        mask = batch.completion_mask
        rewards = torch.zeros(len(batch), batch.time, device=stage.device)
        rewards[torch.arange(len(batch)), batch.lengths - 1] = scores[indices].T.flatten()

        losses, batch_values, batch_target_q = torch.zeros(4, device=stage.device), rewards.clone(), rewards.clone()
        for rows in torch.arange(len(batch), device=stage.device).split(2 * (config.micro_batch_size or config.batch_size)):
            micro = batch.select(rows).trimmed()
            logprobs, states = completion_logprobs_and_hidden(policy, micro)
            written, values = micro.completion_ids[..., None], value_head(states).squeeze(-1)
            q = q_head(states)
            _, targets = gae(
                rewards[rows, : micro.time], values.detach(), micro.completion_mask, config.gamma, config.td_lambda
            )
            target_q = target_q_head(states).gather(-1, written).squeeze(-1).detach()
            terms = (
                td_loss(q.gather(-1, written).squeeze(-1), targets),
                expectile_loss(target_q, values, config.tau),
                cql_loss(q, micro.completion_ids),
                -logprobs,
            )
            q_loss, v_loss, cql, nll = (reduce_tokens(each, micro.completion_mask, "token_mean", mask) for each in terms)
            (q_loss + v_loss + config.cql_coef * cql + config.nll_coef * nll).backward()
            losses += torch.stack([q_loss, v_loss, cql, nll]).detach()
            batch_values[rows, : micro.time], batch_target_q[rows, : micro.time] = values.detach(), target_q
        grad_norm = optimizer.cosine_step(step, config.num_steps, config.learning_rate)
        value_optimizer.cosine_step(step, config.num_steps, config.value_learning_rate)
        with torch.no_grad():
            for target, source in zip(target_q_head.parameters(), q_head.parameters(), strict=True):
                target.lerp_(source, config.polyak_rate)

        _, outcomes = gae(rewards, torch.zeros_like(rewards), mask, config.gamma, gae_lambda=1.0)
        decoded = perturbed(policy, target_q_head, config.beta) if step in probe.steps else policy
        alarmed = monitor.log(step, probe(decoded, step), {
            **dict(zip(("loss/q", "loss/v", "loss/cql", "loss/nll"), losses, strict=True)),
            "value/explained_variance": explained_variance(batch_values, outcomes, mask),
            "value/advantage_std": (batch_target_q - batch_values)[mask.bool()].std(),
            "train/grad_norm": grad_norm,
        })  # fmt: skip
        if alarmed:
            break

    save_model(perturbed(policy, target_q_head, config.beta), tokenizer, stage.out(f"models/policy/{stage.variant}"))
    stage.report(f"reports/policy/{stage.variant}")


@torch.no_grad()
def check_foldable(policy: Any, batch: Batch) -> None:
    """Refuse a model that does something between its output layer and its logits, such as scaling or capping them."""
    layer = policy.get_output_embeddings()
    outputs = policy(
        input_ids=batch.input_ids, attention_mask=batch.attention_mask, position_ids=batch.position_ids,
        use_cache=False, output_hidden_states=True,
    )  # fmt: skip
    if not torch.allclose(layer(outputs.hidden_states[-1]), outputs.logits, atol=1e-4, rtol=1e-4):
        raise InputError(
            f"models/sft: {type(policy).__name__} does not take its logits straight from its output layer, into which ILQL "
            "folds Q; choose another base_model or another algorithm"
        )


def pair_scores(scorer: Scorer, pairs: PairSet, answers: dict[str, str | None], what: str) -> Tensor:
    """Of the chosen and the rejected completion of every pair: (pairs, 2). Once, before training."""
    micro_batches = pairs.by_length(ROWS_AT_ONCE)
    result = torch.zeros(len(pairs), 2, device=pairs.device)
    for indices in progress.track(micro_batches, len(micro_batches), f"{what}: scores"):
        known = [answers.get(pairs.rows[i]["prompt"]) for i in indices]
        scores, _ = scorer(pairs.batch(indices), known * 2)
        result[indices] = torch.stack(scores.chunk(2), dim=1)
    return result


@torch.no_grad()
def perturbed(policy: Any, q_head: QHead, beta: float) -> Any:
    """π(a | s) exp(β (Q(s, a) − V(s))), normalised, as a plain causal LM: a copy whose output layer is W_π + β W_A.

    A bias of the output layer stays as it is.
    """
    model = copy.deepcopy(policy)
    layer = model.get_output_embeddings()
    layer.weight = torch.nn.Parameter(layer.weight + beta * q_head.advantage.weight)  # no longer the input embeddings
    model.config.tie_word_embeddings = False
    return model


if __name__ == "__main__":
    run(IlqlConfig, train)
