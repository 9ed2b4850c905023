"""Evaluation on the test prompts: the SFT model and every policy of the matrix, on the same prompts with the same random
numbers.

Figures of each model
  accuracy           share of greedy completions with the right answer; accuracy_low, accuracy_high: 95 % Wilson interval
  sampled_accuracy   the same for one completion at temperature 1
  score              mean standardised score of the reward model on the sampled completions; the proxy, not the goal
  length, eos_rate   tokens of a sampled completion, share that end by themselves
  distinct_bigrams   different word pairs over all word pairs of the sampled completions; low means repetition
Figures of each policy against the SFT model
  win_rate           mean over prompts of 1 (policy better), ½ (tie), 0, on greedy completions; better is what `judge` says:
                     the verifier's verdict, or the reward model's score; win_rate_low, win_rate_high: 95 % paired bootstrap
                     interval over prompts
  kl                 KL(π‖π_sft) of a sampled completion, in nats, estimator k1; kl_low, kl_high: 95 % bootstrap interval
                     over prompts
Accuracies are absent where the prompts have no answers. `contaminated` is 1 if validation found test prompts in training
data: then every figure is flattered.

reports/metrics.json gathers them, with those of the reward model and of Prompt-OIRL, for `dvc metrics show`.
"""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import PositiveInt

from tasks.core import progress, seeds
from tasks.core.config import Config, flatten, policy_matrix
from tasks.core.errors import InputError
from tasks.core.files import Row, read_json, write_json
from tasks.core.run import run
from tasks.core.stage import Stage
from tasks.core.statistics import paired_bootstrap, wilson
from tasks.feedback.prompts import Prompt, load_prompts
from tasks.feedback.verifier import is_correct
from tasks.models.batch import collate
from tasks.models.generate import ROWS_AT_ONCE, greedy, sample
from tasks.models.language import load_policy
from tasks.models.reward import load_reward_model, standardised_scores
from tasks.models.text import TaskConfig, decode
from tasks.rl.logprobs import completion_logprobs


class EvaluateConfig(Config):
    """params.yaml: evaluate"""

    namespace = "evaluate"

    num_prompts: PositiveInt
    judge: Literal["verifier", "reward_model"]
    bootstrap_samples: PositiveInt


@dataclass
class Answers:
    """What one model wrote, one entry per prompt."""

    greedy: list[str]
    sampled: list[str]
    greedy_scores: list[float]
    sampled_scores: list[float]
    kl: list[float]
    lengths: list[int]
    finished: list[bool]


def evaluate(config: EvaluateConfig, stage: Stage) -> None:
    task = stage.params(TaskConfig)
    reference, tokenizer = load_policy(stage.dep("models/sft"), stage.device)
    reward_model = load_reward_model(stage.dep("models/reward_model"), stage.device)
    prompts = load_prompts(stage, tokenizer, "test")[: config.num_prompts]
    if not prompts:
        raise InputError("no test prompts: let the sources of prepare_data give some")
    if config.judge == "verifier" and any(prompt.answer is None for prompt in prompts):
        raise InputError("the test prompts have no answers to verify; set `evaluate.judge` to reward_model")
    policies = stage.dep("models/policy")
    verdicts = [read_json(stage.dep(f"reports/{gate}") / "verdict.json") for gate in ("validate_data", "validate_preferences")]
    upstream = {name: read_json(stage.dep(f"reports/{name}") / "metrics.json") for name in ("reward_model", "prompt_oirl")}

    folders = {"sft": Path("models/sft")}
    folders |= {f"policy.{algorithm}.{seed}": policies / f"{algorithm}-{seed}" for algorithm, seed in policy_matrix()}
    written: dict[str, Answers] = {}
    for name, folder in progress.track(folders.items(), len(folders), stage.name):
        model, tokenizer = load_policy(folder, stage.device)
        written[name] = answer(model, tokenizer, prompts, reference, reward_model, task, stage)

    figures = {name: figures_of(answers, prompts, task.verifier) for name, answers in written.items()}
    for name in folders.keys() - {"sft"}:
        figures[name] |= against(written["sft"], written[name], prompts, config, task.verifier, stage.seed)
    metrics: dict[str, Any] = {
        "contaminated": int(any(verdict["contaminated"] for verdict in verdicts)),
        "sft": figures["sft"],
        **upstream,
        "policy": {},
    }
    for algorithm, seed in policy_matrix():
        metrics["policy"].setdefault(algorithm, {})[str(seed)] = figures[f"policy.{algorithm}.{seed}"]
    stage.record(**{key: value for key, value in flatten(metrics).items() if not key.startswith(tuple(upstream))})
    rows = rows_of(written, prompts, task.verifier)
    stage.table("completions", rows[:200])
    stage.report("reports/evaluate", {"completions": rows})
    write_json(stage.out("reports/metrics.json"), metrics)


def answer(
    model: Any, tokenizer: Any, prompts: list[Prompt], reference: Any, reward_model: Any, task: TaskConfig, stage: Stage
) -> Answers:
    """Greedy and sampled completions of every prompt; the sampling noise is the same for every model."""
    best = greedy(model, tokenizer, [prompt.ids for prompt in prompts], task.max_new_tokens)
    answers = Answers([decode(tokenizer, ids) for ids in best], [], [], [], [], [], [])
    for begin in range(0, len(prompts), ROWS_AT_ONCE):
        asked = [prompt.ids for prompt in prompts[begin : begin + ROWS_AT_ONCE]]
        rollout = sample(
            model, tokenizer, asked, max_new_tokens=task.max_new_tokens, temperature=1.0,
            generator=seeds.generator(stage.seed, "test samples", begin),
        )  # fmt: skip
        greedy_batch = collate(asked, best[begin : begin + ROWS_AT_ONCE], tokenizer.pad_token_id, stage.device)
        answers.greedy_scores += standardised_scores(reward_model, greedy_batch).tolist()
        answers.sampled_scores += standardised_scores(reward_model, rollout).tolist()
        with torch.no_grad():
            log_ratio = (rollout.logprobs - completion_logprobs(reference, rollout)) * rollout.completion_mask
        answers.kl += log_ratio.sum(1).tolist()
        answers.sampled += [decode(tokenizer, ids) for ids in rollout.completions()]
        answers.lengths += rollout.lengths.tolist()
        answers.finished += rollout.finished.tolist()
    return answers


def figures_of(answers: Answers, prompts: list[Prompt], verifier: str) -> dict[str, float]:
    figures = {
        "score": _mean(answers.sampled_scores),
        "length": _mean(answers.lengths),
        "eos_rate": _mean(answers.finished),
        "distinct_bigrams": distinct_bigrams(answers.sampled),
    }
    right = judged(answers.greedy, prompts, verifier)
    if None not in right:
        accuracy, low, high = wilson(sum(map(bool, right)), len(right))
        figures |= {"accuracy": accuracy, "accuracy_low": low, "accuracy_high": high}
        figures["sampled_accuracy"] = _mean([bool(verdict) for verdict in judged(answers.sampled, prompts, verifier)])
    return _rounded(figures)


def against(
    sft: Answers, policy: Answers, prompts: list[Prompt], config: EvaluateConfig, verifier: str, seed: int
) -> dict[str, float]:
    """Win rate and KL of a policy, with intervals."""
    if config.judge == "verifier":
        ours: list[float] = [float(bool(verdict)) for verdict in judged(policy.greedy, prompts, verifier)]
        theirs: list[float] = [float(bool(verdict)) for verdict in judged(sft.greedy, prompts, verifier)]
    else:
        ours, theirs = policy.greedy_scores, sft.greedy_scores
    wins = [0.5 if a == b else float(a > b) for a, b in zip(ours, theirs, strict=True)]
    chance = seeds.derive(seed, "bootstrap")
    win_rate, win_low, win_high = paired_bootstrap(wins, config.bootstrap_samples, chance)
    kl, kl_low, kl_high = paired_bootstrap(policy.kl, config.bootstrap_samples, chance)
    return _rounded({
        "win_rate": win_rate, "win_rate_low": win_low, "win_rate_high": win_high,
        "kl": kl, "kl_low": kl_low, "kl_high": kl_high,
    })  # fmt: skip


def judged(texts: list[str], prompts: list[Prompt], verifier: str) -> list[bool | None]:
    return [is_correct(text, prompt.answer, verifier) for text, prompt in zip(texts, prompts, strict=True)]


def distinct_bigrams(texts: list[str]) -> float:
    """Different word bigrams over all word bigrams: Li et al. 2016, distinct-2."""
    words = [text.split() for text in texts]
    bigrams = [pair for line in words for pair in pairwise(line)]
    return len(set(bigrams)) / len(bigrams) if bigrams else 0.0


def rows_of(written: dict[str, Answers], prompts: list[Prompt], verifier: str) -> list[Row]:
    """One row per prompt and model, for the report and for reading."""
    rows = []
    for index, prompt in enumerate(prompts):
        for name, answers in written.items():
            text = answers.greedy[index]
            rows.append({
                "model": name,
                "id": prompt.id,
                "prompt": prompt.text,
                "completion": text,
                "answer": prompt.answer,
                "correct": is_correct(text, prompt.answer, verifier),
                "score": round(answers.greedy_scores[index], 4),
            })  # fmt: skip
    return rows


def _mean(values: list[Any]) -> float:
    return sum(values) / len(values)


def _rounded(figures: dict[str, float]) -> dict[str, float]:
    return {key: round(float(value), 6) for key, value in figures.items()}


if __name__ == "__main__":
    run(EvaluateConfig, evaluate)
