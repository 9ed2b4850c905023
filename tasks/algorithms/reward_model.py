"""Reward modeling: the Bradley-Terry model of preferences.

    minimize  −log σ(r(x, y_chosen) − r(x, y_rejected)) + c · (r(x, y_chosen) + r(x, y_rejected))²

Christiano et al. 2017; Ouyang et al. 2022, equation 1. The reward model is the SFT model with its last layer replaced by a
linear head on the last token; or, by `source`, a reward model from elsewhere, which may read by another tokenizer and keeps
its weights unless `num_steps` asks for further training. Only differences of scores are determined, so c (`center_coef`)
pulls them to mean zero, and afterwards they are standardised on samples of the SFT model; mean and deviation are stored in the
model's config.

Metrics, by step
  loss/bradley_terry   the first term above; ln 2 = 0.693 at the start, where every score is 0
  train/accuracy       share of the batch's pairs in the right order
Figures on held-out pairs and on fresh samples
  accuracy             share of held-out pairs ordered as the annotator did; accuracy_low, accuracy_high: 95 % Wilson interval
  accuracy_ceiling     what a perfect reward model would reach, since the annotator errs; only known for the simulated one
  gold_correlation     correlation of the score with the verifier's verdict on fresh samples of the SFT model; the honest
                       figure: pairs are easier than samples. Absent where the prompts have no answers.
"""

from pathlib import Path
from typing import Any, Self

import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from tasks.core import seeds
from tasks.core.config import Config
from tasks.core.errors import InputError
from tasks.core.files import Row, read_table
from tasks.core.run import run
from tasks.core.stage import Stage
from tasks.core.statistics import wilson
from tasks.feedback.verifier import is_correct
from tasks.models.batch import Batch, PairSet
from tasks.models.external import pinned
from tasks.models.generate import sample
from tasks.models.language import load_policy, save_model
from tasks.models.optimizer import adamw, optimizer_step, warmup_cosine
from tasks.models.reward import (
    as_read_by,
    check_padding,
    raw_scores,
    reward_model_from_elsewhere,
    reward_model_from_policy,
)
from tasks.models.text import TaskConfig, decode, encode_prompts
from tasks.rl.preference_losses import bradley_terry_loss, centering_loss

FRESH_PROMPTS, FRESH_SAMPLES = 300, 4  # enough for a standard error of the correlation near .03


class RewardModelConfig(Config):
    """params.yaml: reward_model"""

    namespace = "reward_model"

    source: str
    revision: str | None
    num_steps: NonNegativeInt
    batch_size: PositiveInt  # pairs
    learning_rate: PositiveFloat
    center_coef: NonNegativeFloat

    @model_validator(mode="after")
    def _learns_something(self) -> Self:
        if self.source == "sft" and self.num_steps == 0:
            raise ValueError("num_steps (0): the new head of the SFT model would give every text the score 0")
        return self


def make_model(config: RewardModelConfig, sft: Path, stage: Stage) -> Any:
    if config.source == "sft":
        return reward_model_from_policy(sft, stage.device)
    source = pinned(config.source, config.revision, config.namespace, "source")
    return reward_model_from_elsewhere(source, config.revision, stage.device)


def train(config: RewardModelConfig, stage: Stage) -> None:
    task = stage.params(TaskConfig)
    sft = stage.dep("models/sft")
    policy, tokenizer = load_policy(sft, stage.device)
    reward_model = make_model(config, sft, stage)
    stage.dep("reports/validate_preferences")
    pairs = read_table(stage.dep("data/preferences.parquet"))
    training = PairSet([row for row in pairs if row["split"] == "train"], reward_model.tokenizer, stage.device)
    held_out = PairSet([row for row in pairs if row["split"] == "test"], reward_model.tokenizer, stage.device)
    if not len(held_out):
        raise InputError("no held-out pairs: raise collect_preferences.held_out_prompts, or give the data a test split")
    if config.source != "sft":
        check_padding(reward_model, held_out.batch(range(min(4, len(held_out)))))
    prompts = read_table(stage.dep("data/prepared/prompts.parquet"))
    validation = [row for row in prompts if row["split"] == "validation"]
    if not validation:
        raise InputError("no validation prompts to standardise the scores on; let the sources of prepare_data give some")
    optimizer = adamw(list(reward_model.parameters()), config.learning_rate)
    stage.resume(reward_model=reward_model, optimizer=optimizer)

    order = seeds.batches(len(training), config.batch_size, stage.seed, stage.start, training.lengths)
    for step in stage.steps(config.num_steps):
        scores = raw_scores(reward_model, training.batch(next(order)))
        chosen, rejected = scores.chunk(2)
        ranking = bradley_terry_loss(chosen, rejected).mean()
        loss = ranking + config.center_coef * centering_loss(chosen, rejected).mean()
        loss.backward()
        optimizer_step(optimizer, warmup_cosine(step, config.num_steps, config.learning_rate))

        accuracy = (chosen > rejected).float().mean()
        stage.log(step, {"loss/bradley_terry": ranking.detach(), "train/accuracy": accuracy}, every=5)

    fresh, verdicts = fresh_samples(policy, tokenizer, validation[:FRESH_PROMPTS], task, stage)
    with torch.no_grad():
        scores = raw_scores(reward_model, as_read_by(reward_model, fresh, tokenizer))
    reward_model.config.score_mean = scores.mean().item()
    reward_model.config.score_std = max(scores.std().item(), 1e-6)
    stage.record(score_mean=reward_model.config.score_mean, score_std=reward_model.config.score_std)
    stage.record(**held_out_figures(reward_model, held_out))
    if verdicts is not None and 0 < verdicts.mean() < 1:
        stage.record(gold_correlation=torch.corrcoef(torch.stack([scores, verdicts]))[0, 1].item())
    save_model(reward_model, reward_model.tokenizer, stage.out("models/reward_model"))
    stage.report("reports/reward_model")


@torch.no_grad()
def held_out_figures(reward_model: Any, pairs: PairSet) -> dict[str, float]:
    scored = [raw_scores(reward_model, pairs.batch(piece)) for piece in pairs.pieces(128)]
    margins = torch.cat([torch.sub(*scores.chunk(2)) for scores in scored])
    accuracy, low, high = wilson(int((margins > 0).sum()), len(margins))
    figures = {"accuracy": accuracy, "accuracy_low": low, "accuracy_high": high, "held_out_pairs": float(len(margins))}
    gaps = [row["gap"] for row in pairs.rows]
    if None not in gaps:
        figures["accuracy_ceiling"] = sum(gap > 0 for gap in gaps) / len(gaps)
    return figures


def fresh_samples(
    policy: Any, tokenizer: Any, rows: list[Row], task: TaskConfig, stage: Stage
) -> tuple[Batch, torch.Tensor | None]:
    """Samples of the SFT model on these prompts, and the verifier's verdicts (0 or 1) where there are answers."""
    fresh = sample(
        policy,
        tokenizer,
        encode_prompts(tokenizer, [row["prompt"] for row in rows]),
        max_new_tokens=task.max_new_tokens,
        temperature=1.0,
        generator=seeds.generator(stage.seed, "fresh"),
        group_size=FRESH_SAMPLES,
    )
    texts = [decode(tokenizer, ids) for ids in fresh.completions()]
    answers = [row["answer"] for row in rows for _ in range(FRESH_SAMPLES)]
    verdicts = [is_correct(text, answer, task.verifier) for text, answer in zip(texts, answers, strict=True)]
    return fresh, None if None in verdicts else torch.tensor(verdicts, dtype=torch.float32, device=stage.device)


if __name__ == "__main__":
    run(RewardModelConfig, train)
