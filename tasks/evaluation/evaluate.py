"""Evaluation on the test prompts: the SFT model and every policy of the matrix, on the same prompts with the same random
numbers.

Figures of each model
  accuracy           share of greedy completions with the right answer; accuracy_low, accuracy_high: 95 % Wilson interval.
                     With `num_beams` above 1 what beam search finds stands for the greedy completion everywhere here
  sampled_accuracy   the same for `samples_per_prompt` completions of each prompt at temperature 1; sampled_accuracy_low,
                     sampled_accuracy_high: 95 % bootstrap interval over prompts
Of the first sampled completion of each prompt
  score              mean standardised score of the reward model; the proxy, not the goal
  perplexity         of its tokens under the base model: e to their mean negative log-likelihood; text that the corpus could
                     have held stays low
  entropy            of the model at the sampled tokens, in nats; sampled accuracy rises with less of it, whatever was learned
  length, eos_rate   tokens, share that end by themselves
  distinct_bigrams   different word pairs over all word pairs; low means repetition
Figures of each policy against the SFT model
  win_rate           mean over sampled completions of 1 (policy better), ½ (tie), 0, each against SFT's with the same random
                     numbers; `judge` decides: the verifier's verdict, or the reward model's score; win_rate_low,
                     win_rate_high: 95 % paired bootstrap interval over prompts
  accuracy_p, sampled_accuracy_p   one-sided p-value of "no improvement over SFT": paired sign-flip test over prompts
  kl                 KL(π‖π_sft) of a sampled completion, in nats, estimator k1; kl_low, kl_high: 95 % bootstrap interval
                     over prompts
Controls: what is gained without training a policy (tasks/evaluation/controls.py)
  cool_sft           SFT sampled at temperature 0.7 with the same random numbers: a policy that is only sharper gains as much
Text metrics, where `text_metrics` names them (tasks/evaluation/text_metrics.py)
  bleu, chrf, rouge_1, rouge_2, rouge_l, self_bleu
Safety, where `harmless.judge` says who judges (tasks/evaluation/harmless.py)
  refusal_rate, over_refusal_rate, harmless_rate   of harmful and of harmless requests; the gate lets none get worse
Tables below reports/evaluate: completions; requests, what was written to those of safety; kinds, right answers by kind of
problem; matrix, the win rate of each model against each, with p-values by Holm's method for all pairs together; best_of_n, of
the SFT model's samples. All intervals speak of these models and these prompts.

Accuracies are absent where the prompts have no answers. `contaminated` is 1 if validation found test prompts in training
data: then every figure is flattered.

reports/metrics.json gathers them, with those of the reward model and of Prompt-OIRL. reports/summary.json has one figure of
each, for `dvc metrics show` and `dvc exp show`: of SFT and the policies the sampled accuracy, or without answers the score; of
the reward model its accuracy; of Prompt-OIRL the success of its choice.
"""

from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from pydantic import PositiveInt, model_validator

from tasks.core import progress, seeds
from tasks.core.config import Config, flatten, policy_matrix
from tasks.core.errors import InputError
from tasks.core.files import Row, read_json, write_json
from tasks.core.run import run
from tasks.core.stage import Stage
from tasks.core.statistics import no_gain, paired_bootstrap, wilson
from tasks.evaluation.answers import Answers, Judge, num_right, outcomes, wins
from tasks.evaluation.controls import best_of_n, cool_samples, in_groups, rollouts
from tasks.evaluation.harmless import HarmlessConfig, open_suite, safety_figures
from tasks.evaluation.tables import completion_rows, kind_rows, matrix_rows
from tasks.evaluation.text_metrics import TextMetric, references_of, text_figures
from tasks.models.batch import collate
from tasks.models.beam import beam_search
from tasks.models.compute import ComputeConfig, apply_settings
from tasks.models.generate import greedy
from tasks.models.language import open_model
from tasks.models.reward import load_reward_model, standardised_scores
from tasks.models.text import TaskConfig, decode
from tasks.rl.logprobs import completion_logprobs
from tasks.training.prompts import Prompt, load_prompts


class EvaluateConfig(Config):
    """params.yaml: evaluate"""

    namespace = "evaluate"

    num_prompts: PositiveInt
    num_beams: PositiveInt
    samples_per_prompt: PositiveInt  # at temperature 1
    judge: Judge
    bootstrap_samples: PositiveInt
    text_metrics: list[TextMetric]
    harmless: HarmlessConfig

    @model_validator(mode="after")
    def _has_samples_to_compare(self) -> Self:
        if "self_bleu" in self.text_metrics and self.samples_per_prompt == 1:
            raise ValueError("self_bleu compares the samples of a prompt, and samples_per_prompt is 1; raise it")
        return self


def evaluate(config: EvaluateConfig, stage: Stage) -> None:
    task = stage.params(TaskConfig)
    reference, tokenizer = open_model(stage, stage.dep("models/sft"))
    base, _ = open_model(stage, stage.dep("models/base"))
    reward_model = load_reward_model(stage.dep("models/reward_model"), stage.device)
    apply_settings(reward_model, stage.params(ComputeConfig))
    prompts = load_prompts(stage, tokenizer, "test")[: config.num_prompts]
    if not prompts:
        raise InputError("no test prompts: let the sources of prepare_data give some")
    if config.judge == "verifier" and any(prompt.answer is None for prompt in prompts):
        raise InputError("the test prompts have no answers to verify; set `evaluate.judge` to reward_model")
    policies = stage.dep("models/policy")
    verdicts = [read_json(stage.dep(f"reports/{gate}") / "verdict.json") for gate in ("validate_data", "validate_preferences")]
    upstream = {name: read_json(stage.dep(f"reports/{name}") / "metrics.json") for name in ("reward_model", "prompt_oirl")}
    references = references_of(prompts, config.text_metrics, stage)
    suite = open_suite(config.harmless, tokenizer, prompts, stage)

    folders = {"sft": Path("models/sft")}
    folders |= {f"policy.{algorithm}.{seed}": policies / f"{algorithm}-{seed}" for algorithm, seed in policy_matrix()}
    written: dict[str, Answers] = {}
    replies: dict[str, list[Row]] = {}
    for name, folder in progress.track(folders.items(), len(folders), stage.name):
        model, tokenizer = open_model(stage, folder)
        written[name] = answer(model, tokenizer, prompts, reference, base, reward_model, config, task, stage)
        replies[name] = suite.rows(name, model, tokenizer) if suite else []

    figures = {name: figures_of(answers, prompts, config, task.verifier, stage.seed) for name, answers in written.items()}
    for name in folders.keys() - {"sft"}:
        figures[name] |= against(written["sft"], written[name], prompts, config, task.verifier, stage.seed)
    chance = seeds.derive(stage.seed, "bootstrap")
    for name, answers in written.items():
        alike = text_figures(config.text_metrics, answers, references, config.bootstrap_samples, chance)
        figures[name] |= _rounded(alike | safety_figures(replies[name]))
    metrics: dict[str, Any] = {
        "contaminated": int(any(verdict["contaminated"] for verdict in verdicts)),
        "sft": figures["sft"],
        "control": {"cool_sft": control_of(reference, tokenizer, prompts, config, task, stage)},
        **upstream,
        "policy": {},
    }
    for algorithm, seed in policy_matrix():
        metrics["policy"].setdefault(algorithm, {})[str(seed)] = figures[f"policy.{algorithm}.{seed}"]
    stage.record(**{key: value for key, value in flatten(metrics).items() if not key.startswith(tuple(upstream))})
    tables = {
        "completions": completion_rows(written, prompts, task.verifier),
        "requests": [row for rows in replies.values() for row in rows],
        "kinds": kind_rows(written, prompts, task.verifier, config.bootstrap_samples, chance),
        "matrix": matrix_rows(written, prompts, config.judge, task.verifier, config.bootstrap_samples, chance),
        "best_of_n": best_of_n(written["sft"], prompts, task.verifier, config.bootstrap_samples, chance),
    }
    tables = {name: rows for name, rows in tables.items() if rows}
    for name, rows in tables.items():
        stage.table(name, rows[:200])
    stage.report("reports/evaluate", tables)
    write_json(stage.out("reports/metrics.json"), metrics)
    summary = {name: found.get("sampled_accuracy", found["score"]) for name, found in figures.items()}
    leading = {"reward_model": "accuracy", "prompt_oirl": "success"}
    summary |= {name: upstream[name][key] for name, key in leading.items() if key in upstream.get(name, {})}
    write_json(stage.out("reports/summary.json"), summary)


def answer(
    model: Any, tokenizer: Any, prompts: list[Prompt], reference: Any, base: Any, reward_model: Any, config: EvaluateConfig,
    task: TaskConfig, stage: Stage,
) -> Answers:  # fmt: skip
    """Greedy and sampled completions of every prompt; the sampling noise is the same for every model."""
    ids = [prompt.ids for prompt in prompts]
    if config.num_beams == 1:
        best = greedy(model, tokenizer, ids, task.max_new_tokens)
    else:
        best = beam_search(model, tokenizer, ids, task.max_new_tokens, config.num_beams)
    samples_per_prompt = config.samples_per_prompt
    answers = Answers([decode(tokenizer, ids) for ids in best], [], [], [], [], [], [], [], [])
    for begin, rollout in rollouts(model, tokenizer, ids, 1.0, samples_per_prompt, task, stage):
        asked = ids[begin : begin + len(rollout.completions()) // samples_per_prompt]
        texts = [decode(tokenizer, ids) for ids in rollout.completions()]
        answers.sampled += in_groups(texts, samples_per_prompt)
        scores = standardised_scores(reward_model, rollout, tokenizer).tolist()
        answers.sampled_scores += in_groups(scores, samples_per_prompt)
        first = rollout.select(slice(None, None, samples_per_prompt)).trimmed()
        greedy_batch = collate(asked, best[begin : begin + len(asked)], tokenizer.pad_token_id, stage.device)
        answers.greedy_scores += standardised_scores(reward_model, greedy_batch, tokenizer).tolist()
        with torch.no_grad():
            log_ratio = (first.logprobs - completion_logprobs(reference, first)) * first.completion_mask
            base_logprobs = completion_logprobs(base, first) * first.completion_mask
        answers.kl += log_ratio.sum(1).tolist()
        answers.base_nll += (-base_logprobs).sum(1).tolist()
        answers.entropy += (first.entropy * first.completion_mask).sum(1).tolist()
        answers.lengths += first.lengths.tolist()
        answers.finished += first.finished.tolist()
    return answers


def control_of(
    sft: Any, tokenizer: Any, prompts: list[Prompt], config: EvaluateConfig, task: TaskConfig, stage: Stage
) -> dict[str, float]:
    """Sampled accuracy and entropy of the SFT model at a lower temperature."""
    texts, entropy = cool_samples(sft, tokenizer, prompts, config.samples_per_prompt, task, stage)
    return _rounded(sampled_accuracy(texts, prompts, config, task.verifier, stage.seed) | {"entropy": entropy})


def sampled_accuracy(
    sampled: list[list[str]], prompts: list[Prompt], config: EvaluateConfig, verifier: str, seed: int
) -> dict[str, float]:
    """With its interval; nothing where there are no answers."""
    shares = [count / config.samples_per_prompt for count in num_right(sampled, prompts, verifier)]
    if not shares:
        return {}
    share, low, high = paired_bootstrap(shares, config.bootstrap_samples, seeds.derive(seed, "bootstrap"))
    return {"sampled_accuracy": share, "sampled_accuracy_low": low, "sampled_accuracy_high": high}


def figures_of(answers: Answers, prompts: list[Prompt], config: EvaluateConfig, verifier: str, seed: int) -> dict[str, float]:
    figures = {
        "score": _mean([score for scores in answers.sampled_scores for score in scores]),
        "perplexity": float(np.exp(sum(answers.base_nll) / sum(answers.lengths))),
        "entropy": sum(answers.entropy) / sum(answers.lengths),
        "length": _mean(answers.lengths),
        "eos_rate": _mean(answers.finished),
        "distinct_bigrams": distinct_bigrams([texts[0] for texts in answers.sampled]),
    }
    if right := num_right([[text] for text in answers.greedy], prompts, verifier):
        accuracy, low, high = wilson(sum(right), len(right))
        figures |= {"accuracy": accuracy, "accuracy_low": low, "accuracy_high": high}
    figures |= sampled_accuracy(answers.sampled, prompts, config, verifier, seed)
    return _rounded(figures)


def against(
    sft: Answers, policy: Answers, prompts: list[Prompt], config: EvaluateConfig, verifier: str, seed: int
) -> dict[str, float]:
    """Win rate and KL of a policy, with intervals, and whether it gained at all."""
    right, right_sft = (num_right([[text] for text in model.greedy], prompts, verifier) for model in (policy, sft))
    counts, counts_sft = (num_right(model.sampled, prompts, verifier) for model in (policy, sft))
    figures = {}
    if right:
        figures["accuracy_p"] = no_gain([a - b for a, b in zip(right, right_sft, strict=True)])
        figures["sampled_accuracy_p"] = no_gain([a - b for a, b in zip(counts, counts_sft, strict=True)])
    won = wins(outcomes(policy, sft, prompts, config.judge, verifier), config.samples_per_prompt)
    chance = seeds.derive(seed, "bootstrap")
    win_rate, win_low, win_high = paired_bootstrap(won, config.bootstrap_samples, chance)
    kl, kl_low, kl_high = paired_bootstrap(policy.kl, config.bootstrap_samples, chance)
    return _rounded(figures | {
        "win_rate": win_rate, "win_rate_low": win_low, "win_rate_high": win_high,
        "kl": kl, "kl_low": kl_low, "kl_high": kl_high,
    })  # fmt: skip


def distinct_bigrams(texts: list[str]) -> float:
    """Different word bigrams over all word bigrams: Li et al. 2016, distinct-2."""
    words = [text.split() for text in texts]
    bigrams = [pair for line in words for pair in pairwise(line)]
    return len(set(bigrams)) / len(bigrams) if bigrams else 0.0


def _mean(values: list[Any]) -> float:
    return sum(values) / len(values)


def _rounded(figures: dict[str, float]) -> dict[str, float]:
    return {key: round(float(value), 6) for key, value in figures.items()}


if __name__ == "__main__":
    run(EvaluateConfig, evaluate)
