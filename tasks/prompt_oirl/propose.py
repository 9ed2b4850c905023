"""Candidate prompts from a prompting policy: a causal LM that writes instructions, optimized against r̂, judged by real answers.

    R(y) = mean over queries q of r̂(q, y) − kl_coef · KL_k1(π‖π_ref)[y],   Â_i = R_i − mean of the other R of the step
    minimize  −Â · log π(y)                                        (RLOO with one update per rollout: REINFORCE, leave-one-out)

Three phases, one after the other: r̂ is fitted on the prompt log as an ensemble (tasks/prompt_oirl/finetune.py has the model),
the base model is fine-tuned on the known instructions, and the policy is optimized. `num_steps: 0` skips all of it.

An r̂ is a proxy that has seen six texts: the policy finds what it overrates. Two guards, each counted; what fails one is paid 0
and is never a candidate.
  distance       1 − cosine of character n-grams to the nearest known instruction, above max_distance
  disagreement   standard deviation over the members of the mean r̂, above max_disagreement

In the end the real model answers: the candidate that is best on validation queries, and the known instruction that is best
there, are compared on test queries that neither has met. Metrics, by step:
  loss/cross_entropy     of the ensemble in phase 1, in nats per member
  loss/nll               of known instructions in phase 2, in nats per token
  loss/policy            the term above; its gradient is the estimate, its value means little
  rollout/reward_mean    of the samples before the KL term; rollout/kl_mean: KL to the start, in nats per sample
  rollout/too_far, rollout/too_disputed    shares of samples that a guard stopped
Figures: candidates, too_far, too_disputed (numbers of different texts); reward, known_reward (r̂ of the chosen texts); success,
known_success and gain on test queries, with gain_low, gain_high (95 % bootstrap over queries). Only the first three are there
if no candidate was left.
"""

from typing import Any, Self

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn

from tasks.core import seeds
from tasks.core.config import Config
from tasks.core.files import Row, read_table
from tasks.core.run import run
from tasks.core.stage import Stage
from tasks.core.statistics import paired_bootstrap
from tasks.models.architecture import width
from tasks.models.batch import collate
from tasks.models.chat import write_query
from tasks.models.generate import greedy, sample
from tasks.models.language import frozen_copy, open_model
from tasks.models.optimizer import Optimizer, OptimizerConfig
from tasks.models.text import TaskConfig, decode, encode_completions, encode_prompts
from tasks.prompt_oirl.answers import Answers
from tasks.prompt_oirl.finetune import PromptReward
from tasks.prompt_oirl.selector import embed_prompts
from tasks.rewards.verifier import is_correct
from tasks.rl.advantages import leave_one_out_advantages
from tasks.rl.kl import kl_estimate
from tasks.rl.logprobs import completion_logprobs
from tasks.rl.masking import reduce_tokens
from tasks.rl.policy_losses import policy_gradient_loss


class ProposePromptsConfig(Config):
    """params.yaml: propose_prompts"""

    namespace = "propose_prompts"

    num_steps: NonNegativeInt  # of the policy
    members: PositiveInt  # of the ensemble
    ensemble_steps: PositiveInt
    sft_steps: NonNegativeInt
    batch_size: PositiveInt  # queries per step, for the ensemble and for the reward
    rollout_batch_size: PositiveInt  # instructions per step
    max_instruction_tokens: PositiveInt
    hidden_size: PositiveInt
    ensemble_learning_rate: PositiveFloat
    sft_learning_rate: PositiveFloat
    learning_rate: PositiveFloat
    temperature: PositiveFloat
    kl_coef: NonNegativeFloat
    max_distance: PositiveFloat
    max_disagreement: PositiveFloat
    num_candidates: PositiveInt  # judged by real answers
    num_validation_queries: PositiveInt
    num_test_queries: PositiveInt

    @model_validator(mode="after")
    def _comparable(self) -> Self:
        if self.rollout_batch_size < 2:
            raise ValueError("rollout_batch_size (1): a step needs at least 2 instructions to compare")
        if self.members < 2:
            raise ValueError("members (1): one member cannot disagree; take at least 2")
        return self


class Proposed:
    """Every text the policy has written, with what r̂ and the guards say of it: {reward, disagreement, distance}, last seen."""

    def __init__(self) -> None:
        self.texts: dict[str, dict[str, float]] = {}

    def state_dict(self) -> dict[str, Any]:
        return {"texts": self.texts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.texts = state["texts"]


def train(config: ProposePromptsConfig, stage: Stage) -> None:
    task = stage.params(TaskConfig)
    log = read_table(stage.dep("data/prompt_log.parquet"))
    queries = read_table(stage.dep("data/prepared/prompts.parquet"))
    answerer, _ = open_model(stage, stage.dep("models/sft"))
    base = stage.dep("models/base")
    policy, tokenizer = open_model(stage, base)
    if not config.num_steps or not log:
        stage.record()
        return stage.report("reports/propose_prompts")

    answers = Answers.of([row for row in log if row["split"] == "train"])
    known = list(answers.prompts.values())
    asked = encode_prompts(tokenizer, answers.queries)
    correct = torch.tensor(answers.rates, dtype=torch.float32, device=stage.device)
    members = nn.ModuleList(member(base, config.hidden_size, stage, number) for number in range(config.members))
    reference, proposed = frozen_copy(policy), Proposed()
    settings = stage.params(OptimizerConfig)
    fit, learn = Optimizer(members.parameters(), settings), Optimizer(policy.parameters(), settings)
    stage.resume(members=members, policy=policy, reference=reference, fit=fit, learn=learn, proposed=proposed)

    begin = [tokenizer.bos_token_id]  # an instruction is written from nothing
    texts = collate([begin for _ in known], encode_completions(tokenizer, known), tokenizer.pad_token_id, stage.device)
    order = seeds.batches(len(asked), config.batch_size, stage.seed, stage.start)
    sft_from, policy_from = config.ensemble_steps, config.ensemble_steps + config.sft_steps
    for step in stage.steps(policy_from + config.num_steps):
        picked = next(order)
        if step < sft_from:  # each member leaves out a third of the queries, always the same ones
            loss = torch.zeros((), device=stage.device)
            for number, each in enumerate(members):
                kept = [row for row in picked if seeds.derive(stage.seed, "left out", number, row) % 3]
                logits = each([asked[row] for row in kept], encode_prompts(tokenizer, known))
                loss = loss + F.binary_cross_entropy_with_logits(logits, correct[kept]) / len(members)
            loss.backward()
            fit.constant_step(step, config.ensemble_learning_rate)
            stage.log(step, {"loss/cross_entropy": loss.detach()}, every=5)
        elif step < policy_from:
            loss = reduce_tokens(-completion_logprobs(policy, texts), texts.completion_mask, "token_mean")
            loss.backward()
            learn.constant_step(step - sft_from, config.sft_learning_rate)
            stage.log(step, {"loss/nll": loss.detach()}, every=5)
        else:
            if step == policy_from:
                reference.load_state_dict(policy.state_dict())
            rollout = sample(
                policy, tokenizer, [begin], max_new_tokens=config.max_instruction_tokens, temperature=config.temperature,
                generator=seeds.generator(stage.seed, "rollout", step), group_size=config.rollout_batch_size,
            )  # fmt: skip
            rollout = rollout.select(torch.arange(len(rollout)))  # copies that autograd may keep
            written = [decode(tokenizer, ids).strip() for ids in rollout.completions()]
            judged = judge(members, tokenizer, [asked[row] for row in picked], written, known)
            too_far = judged["distance"] > config.max_distance
            too_disputed = ~too_far & (judged["disagreement"] > config.max_disagreement)
            scores = judged["reward"].masked_fill(too_far | too_disputed, 0.0)
            for row, text in enumerate(written):
                proposed.texts[text] = {name: float(column[row]) for name, column in judged.items()}

            with torch.no_grad():
                ref_logprobs = completion_logprobs(reference, rollout, config.temperature)
            kl = (kl_estimate(rollout.logprobs, ref_logprobs, "k1") * rollout.completion_mask).sum(1)
            advantages = leave_one_out_advantages(scores - config.kl_coef * kl, config.rollout_batch_size)[:, None]
            losses = policy_gradient_loss(completion_logprobs(policy, rollout, config.temperature), advantages)
            policy_loss = reduce_tokens(losses, rollout.completion_mask, "sequence_sum")
            policy_loss.backward()
            learn.constant_step(step - policy_from, config.learning_rate)
            stage.log(step, {
                "loss/policy": policy_loss.detach(),
                "rollout/reward_mean": judged["reward"].mean(),
                "rollout/kl_mean": kl.mean(),
                "rollout/too_far": too_far.float().mean(),
                "rollout/too_disputed": too_disputed.float().mean(),
            }, samples=[{"step": step, "instruction": text} for text in written[:2]])  # fmt: skip

    new = {text: found for text, found in proposed.texts.items() if text and text not in known}
    far = {text for text, found in new.items() if found["distance"] > config.max_distance}
    disputed = {text for text, found in new.items() if found["disagreement"] > config.max_disagreement} - far
    passed = sorted((text for text in new if text not in far | disputed), key=lambda text: (-new[text]["reward"], text))
    candidates = passed[: config.num_candidates]

    def right(text: str, rows: list[Row]) -> list[float]:
        """What the real model makes of it: 1 for each query it gets right under this instruction."""
        ids = encode_prompts(
            tokenizer, [write_query(tokenizer, row["prompt"], row["query"], text, task.prompt_format) for row in rows]
        )
        completions = [decode(tokenizer, row) for row in greedy(answerer, tokenizer, ids, task.max_new_tokens)]
        judged = (is_correct(text, row["answer"], task.verifier) for text, row in zip(completions, rows, strict=True))
        return [float(bool(each)) for each in judged]

    validation, test = (
        [row for row in queries if row["split"] == split][:number]
        for split, number in (("validation", config.num_validation_queries), ("test", config.num_test_queries))
    )
    table: list[Row] = []
    for text in [*known, *candidates]:
        scored = new.get(text) or judge(members, tokenizer, asked[: config.batch_size], [text], known)
        of = right(text, validation)
        shown: Row = {"prompt": text, "known": text in known, "validation_success": sum(of) / len(of)}
        table.append(shown | {name: float(value) for name, value in scored.items()})
    found: dict[str, float] = {"candidates": len(passed), "too_far": len(far), "too_disputed": len(disputed)}
    best = {is_known: best_of([row for row in table if row["known"] == is_known]) for is_known in (True, False)}
    if best[False]:
        ours, theirs = right(best[False]["prompt"], test), right(best[True]["prompt"], test)
        gain, low, high = paired_bootstrap(
            [one - other for one, other in zip(ours, theirs, strict=True)], 2000, seeds.derive(stage.seed, "bootstrap")
        )
        found |= {"success": sum(ours) / len(test), "known_success": sum(theirs) / len(test)}
        found |= {"gain": gain, "gain_low": low, "gain_high": high}
        found |= {"reward": best[False]["reward"], "known_reward": best[True]["reward"]}
        stage.tracker.tag("proposed_prompt", best[False]["prompt"])
        stage.tracker.tag("known_prompt", best[True]["prompt"])
    stage.record(**found)
    stage.report("reports/propose_prompts", {"candidates": table})


def best_of(rows: list[Row]) -> Row:
    """By validation; nothing of nothing."""
    return max(rows, key=lambda row: row["validation_success"], default={})


def member(base: Any, hidden_size: int, stage: Stage, number: int) -> PromptReward:
    """An untrained r̂ on its own copy of the base model, with a random head of its own."""
    model, tokenizer = open_model(stage, base)
    with torch.random.fork_rng():
        torch.manual_seed(seeds.derive(stage.seed, "weights", number))
        return PromptReward(model.base_model, width(model), hidden_size, tokenizer.pad_token_id).to(stage.device)


@torch.no_grad()
def judge(members: Any, tokenizer: Any, queries: list[list[int]], texts: list[str], known: list[str]) -> dict[str, Tensor]:
    """reward, disagreement and distance of each text: (texts,)"""
    prompts = encode_prompts(tokenizer, texts)
    rewards = torch.stack([torch.sigmoid(member(queries, prompts)).mean(0).cpu() for member in members])
    nearest = (embed_prompts(None, texts) @ embed_prompts(None, known).T).max(axis=1)
    return {
        "reward": rewards.mean(0),
        "disagreement": rewards.std(0, unbiased=False),
        "distance": 1 - torch.tensor(nearest, dtype=torch.float32),
    }


if __name__ == "__main__":
    run(ProposePromptsConfig, train)
