"""Reward modeling: a score that reproduces somebody's judgement.

By `loss`, what it learns from
    bradley_terry   pairs:     −log σ(r(x, y_chosen) − r(x, y_rejected) − margin_coef · |gap|)
    all_pairs       rankings:  the mean of −log σ(r_i − r_j) over the K over 2 pairs of each
    plackett_luce   rankings:  −log P(the whole ranking)
    regression      ratings:   (r(x, y) − rating)², ratings standardised
    binary          thumbs:    cross-entropy of σ(r(x, y))
to which come
    + center_coef · (r(x, y_chosen) + r(x, y_rejected))²   pairs and rankings: only differences of scores are determined
    + imitation_coef · −Σ_t log p(y_chosen,t)              pairs: the language model's head is kept and trained along
    + process_coef · cross-entropy of σ(r(x, y_≤ step))    pairs: is each step of the two completions right?

Christiano et al. 2017; Ouyang et al. 2022, equation 1; margin: Touvron et al. 2023, with the annotator's gap for how clear a
pair is; imitation: Askell et al. 2021; steps: tasks/rewards/process_reward.py. The reward model is the SFT model with its last
layer replaced by a linear head on the last token; or, by `source`, a reward model from elsewhere, which may have another
tokenizer and keeps its weights unless `num_steps` asks for further training. Afterwards the scores are standardised on samples
of the SFT model; mean and deviation are stored in the model's config.

The members of an ensemble differ in the start of their heads, the order of the data and, from the second on, the data: a
bootstrap of it (Lakshminarayanan et al. 2017). models/reward_model is the first member, whose figures are recorded; the others
are folders of the same form inside it.

Metrics, by step; of an ensemble their means
  loss/bradley_terry   the loss above, under the name of its kind; of pairs ln 2 = 0.693 at the start, where every score is 0
  loss/imitation, loss/process   these terms, without their coefficients
  train/accuracy       share of the batch's pairs of differently judged completions in the right order; the mean over
                       micro-batches, each of which compares its own completions
  and those of tasks/training/validation.py, on training data that is held out of it: the loss above without its further terms
Figures on held-out pairs and on fresh samples
  accuracy             share of held-out pairs ordered as the annotator did; accuracy_low, accuracy_high: 95 % Wilson interval
  accuracy_ceiling     what a perfect reward model would reach, since the annotator errs; known where utilities are. One that
                       learns the systematic errors of an AI judge can be above it
  baseline_accuracy    the same share for a logistic regression on the words of the completions, trained on the same pairs
  longer_wins          the same share for the rule that the longer one is better; equal lengths count half
  length_correlation   of score and length in tokens, over held-out completions
  ece                  calibration of σ(margin), see tasks/feedback/agreement.py; the tables `calibration` and `agreement` have
                       it by bin, and the accuracy by kind of pair, by size of the margin and by the annotator's gap
  gold_correlation     correlation of the score with the verifier's verdict on fresh samples of the SFT model; the honest
                       figure: pairs are easier than samples. Absent where the prompts have no answers.
  feedback_agreement   of held-out rankings, ratings or thumbs: share of differently judged twos that the scores order alike
  step_accuracy, step_auc, step_majority   of held-out steps: right by σ > ½, area under the ROC curve, best constant guess
  ensemble_accuracy, disagreement, disagreement_auc   accuracy of the mean score; deviation of the members' standardised scores,
                       mean over fresh samples; how well that of their margins tells pairs in the wrong order (½: not at all)
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator
from torch import Tensor

from tasks.core import seeds
from tasks.core.config import Config, check_divides
from tasks.core.errors import InputError
from tasks.core.files import Row, read_table
from tasks.core.run import run
from tasks.core.stage import Stage
from tasks.feedback.agreement import agreement_by_group, agreement_figures, calibration, ensemble_figures
from tasks.feedback.baseline import baseline_accuracy
from tasks.feedback.judged import JudgedSet, agreement, held_out_agreement, judged_set
from tasks.models.adapter import add_adapter, refuse_adapter
from tasks.models.batch import Batch, PairSet, micro_batches
from tasks.models.compute import ComputeConfig, apply_settings
from tasks.models.external import pinned
from tasks.models.generate import sample
from tasks.models.language import open_model, save_model
from tasks.models.optimizer import Optimizer, OptimizerConfig
from tasks.models.reward import (
    MEMBER,
    check_padding,
    draw_head,
    raw_scores,
    reward_model_from_elsewhere,
    reward_model_from_policy,
    scores_in_pieces,
    standardise_on,
    with_language_head,
)
from tasks.models.text import TaskConfig, decode, encode_prompts
from tasks.rewards.process_reward import StepSet, step_figures
from tasks.rewards.verifier import is_correct
from tasks.rl.logprobs import completion_logprobs
from tasks.rl.masking import reduce_tokens
from tasks.rl.preference_losses import (
    all_pairs_loss,
    bradley_terry_loss,
    centering_loss,
    plackett_luce_loss,
    ranking_centering_loss,
    rating_loss,
    thumbs_loss,
)
from tasks.training.pairs import pair_scores
from tasks.training.validation import Validation

FRESH_PROMPTS, FRESH_SAMPLES = 300, 4  # enough for a standard error of the correlation near .03


class RewardModelConfig(Config):
    """params.yaml: reward_model"""

    namespace = "reward_model"

    source: str
    revision: str | None
    loss: Literal["bradley_terry", "all_pairs", "plackett_luce", "regression", "binary"]
    num_steps: NonNegativeInt
    batch_size: PositiveInt  # pairs, rankings, ratings or thumbs
    micro_batch_size: PositiveInt | None  # of them per backward pass; null: all at once
    learning_rate: PositiveFloat
    center_coef: NonNegativeFloat
    margin_coef: NonNegativeFloat
    imitation_coef: NonNegativeFloat
    process_coef: NonNegativeFloat
    ensemble_size: PositiveInt

    @model_validator(mode="after")
    def _sizes(self) -> Self:
        check_divides("micro_batch_size", self.micro_batch_size, "batch_size", self.batch_size)
        return self

    @model_validator(mode="after")
    def _learns_something(self) -> Self:
        if self.source == "sft" and self.num_steps == 0:
            raise ValueError("num_steps (0): the new head of the SFT model would give every text the score 0")
        if self.num_steps == 0 and self.ensemble_size > 1:
            raise ValueError(f"ensemble_size ({self.ensemble_size}): without training, num_steps 0, all members are the same")
        return self

    @model_validator(mode="after")
    def _fits_the_loss(self) -> Self:
        for name in ("margin_coef", "imitation_coef", "process_coef"):
            if getattr(self, name) and self.loss != "bradley_terry":
                raise ValueError(f"{name} belongs to pairs, loss bradley_terry; with {self.loss} it must be 0")
        if self.imitation_coef and self.source != "sft":
            raise ValueError("imitation_coef needs a language model's head, which a reward model from elsewhere has not")
        return self


@dataclass
class Member:
    """One reward model of the ensemble. language_model: the same backbone under the language model's head, for imitation."""

    model: Any
    language_model: Any
    optimizer: Optimizer


def make_member(number: int, config: RewardModelConfig, sft: Path, stage: Stage) -> Member:
    if config.source == "sft":
        model = reward_model_from_policy(sft, stage.device)
        if number > 1:
            draw_head(model, seeds.generator(stage.seed, "head", number))
    else:
        source = pinned(config.source, config.revision, config.namespace, "source")
        model = reward_model_from_elsewhere(source, config.revision, stage.device)
    apply_settings(model, stage.params(ComputeConfig))
    add_adapter(model, stage, f"reward_model-{number}")
    language_model = with_language_head(model, open_model(stage, sft)[0]) if config.imitation_coef else None
    trained = [*model.parameters(), *(language_model.parameters() if language_model else ())]
    return Member(model, language_model, Optimizer(dict.fromkeys(trained), stage.params(OptimizerConfig)))


def train(config: RewardModelConfig, stage: Stage) -> None:
    task = stage.params(TaskConfig)
    sft = stage.dep("models/sft")
    if config.imitation_coef:
        refuse_adapter(stage, "reward_model.imitation_coef trains the language model's head, which an adapter leaves alone")
    policy, tokenizer = open_model(stage, sft)
    members = [make_member(number, config, sft, stage) for number in range(1, config.ensemble_size + 1)]
    reward_model = members[0].model
    stage.dep("reports/validate_preferences")
    rows = read_table(stage.dep("data/preferences.parquet"))
    judged = read_table(stage.dep("data/feedback.parquet"))
    pairs = PairSet([row for row in rows if row["split"] == "train"], reward_model.tokenizer, stage.device)
    held_out = PairSet([row for row in rows if row["split"] == "test"], reward_model.tokenizer, stage.device)
    if not len(held_out):
        raise InputError("no held-out pairs: raise collect_preferences.held_out_prompts, or give the data a test split")
    if config.source != "sft":
        check_padding(reward_model, held_out.batch(range(min(4, len(held_out)))))
    prompts = read_table(stage.dep("data/prepared/prompts.parquet"))
    answers = {row["prompt"]: row["answer"] for row in prompts}
    validation = [row for row in prompts if row["split"] == "validation"]
    if not validation:
        raise InputError("no validation prompts to standardise the scores on; let the sources of prepare_data give some")
    training = pairs if config.loss == "bradley_terry" else judged_set(config.loss, judged, "train", reward_model)
    steps = StepSet(pairs, answers, task.verifier, reward_model.tokenizer) if config.process_coef else None
    if config.margin_coef and all(row["gap"] is None for row in pairs.rows):
        raise InputError("reward_model.margin_coef: no pair has a gap to take a margin from; set it to 0")
    validations = [Validation(stage, member.model, training.prompt_texts, config.num_steps) for member in members]
    stage.resume(**checkpointed(members, validations))

    orders = [order_of(n, training.lengths, validations[n - 1], config, stage) for n in range(1, len(members) + 1)]
    for step in stage.steps(config.num_steps):
        logged = []
        for member, order in zip(members, orders, strict=True):
            indices, parts = next(order), []
            for micro in micro_batches(indices, config.micro_batch_size or config.batch_size):
                batch, share = training.batch(micro), len(micro) / len(indices)
                scores = raw_scores(member.model, batch)
                fit, centering, accuracy = judgement_loss(config, scores, training, micro)
                loss, terms = share * (fit + config.center_coef * centering), {f"loss/{config.loss}": share * fit}
                if member.language_model:
                    chosen = batch.select(slice(len(micro))).trimmed()
                    logprobs = completion_logprobs(member.language_model, chosen)
                    terms["loss/imitation"] = share * reduce_tokens(-logprobs, chosen.completion_mask, "sequence_sum")
                    loss = loss + config.imitation_coef * terms["loss/imitation"]
                if steps:
                    losses = thumbs_loss(*steps.scores(member.model, batch, micro))
                    terms["loss/process"] = losses.sum() / max(1, steps.count(indices))
                    loss = loss + config.process_coef * terms["loss/process"]
                loss.backward()
                terms["train/accuracy"] = share * accuracy
                parts.append({key: term.detach() for key, term in terms.items()})
            member.optimizer.cosine_step(step, config.num_steps, config.learning_rate)
            logged.append({key: torch.stack([part[key] for part in parts]).sum() for key in parts[0]})
        measured = [
            each(step, partial(held_out_loss, config, member.model, training, each.rows))
            for member, each in zip(members, validations, strict=True)
        ]
        means = {key: torch.stack([each[key] for each in logged]).mean() for key in logged[0]}
        means |= {key: torch.tensor([each[key] for each in measured]).mean() for key in measured[0]}
        stage.log(step, means, every=1 if measured[0] else 5)
    best = [each.take_best() for each in validations]
    stage.record(**best[0])

    fresh, verdicts = fresh_samples(policy, tokenizer, validation[:FRESH_PROMPTS], task, stage)
    scores = torch.stack([standardise_on(fresh, member.model, tokenizer) for member in members])
    stage.record(score_mean=reward_model.config.score_mean, score_std=reward_model.config.score_std)
    pair_wise = torch.stack([pair_scores(member.model, held_out) for member in members])
    stage.record(**held_out_figures(pair_wise[0], held_out), **baseline_accuracy(pairs.rows, held_out.rows))
    if len(members) > 1:
        stds = torch.tensor([member.model.config.score_std for member in members], device=stage.device)
        stage.record(**ensemble_figures(scores, pair_wise, stds))
    if isinstance(training, JudgedSet):
        stage.record(**held_out_agreement(reward_model, judged_set(config.loss, judged, "test", reward_model)))
    if steps:
        reward_model.config.process = True
        stage.record(**step_figures(reward_model, held_out, StepSet(held_out, answers, task.verifier, reward_model.tokenizer)))
    if verdicts is not None and 0 < verdicts.mean() < 1:
        stage.record(gold_correlation=torch.corrcoef(torch.stack([scores[0], verdicts]))[0, 1].item())
    margins = torch.sub(*pair_wise[0].double().T).cpu().numpy()
    tables = {
        "calibration": calibration(margins),
        "agreement": agreement_by_group(held_out.rows, margins, answers, task.verifier),
    }
    for name, table in tables.items():
        stage.table(name, table)
    folder = stage.out("models/reward_model")
    for number, member in enumerate(members, start=1):
        save_model(member.model, reward_model.tokenizer, folder if number == 1 else folder / MEMBER.format(number))
    stage.report("reports/reward_model", tables)


def checkpointed(members: list[Member], validations: list[Validation]) -> dict[str, Any]:
    parts: dict[str, Any] = {f"reward_model-{number}": member.model for number, member in enumerate(members)}
    parts |= {f"optimizer-{number}": member.optimizer for number, member in enumerate(members)}
    parts |= {f"validation-{number}": validation for number, validation in enumerate(validations)}
    return parts | {f"language_model-{n}": member.language_model for n, member in enumerate(members) if member.language_model}


def order_of(
    number: int, lengths: list[int], validation: Validation, config: RewardModelConfig, stage: Stage
) -> Iterator[list[int]]:
    """Batches of a member: the first takes the data as it is, the others each a bootstrap of it, in an order of its own.

    Single ratings and thumbs are not put together by length: a batch of one length would often be one of a single value.
    """
    batch_size, by_length = config.batch_size, config.loss not in ("regression", "binary")
    if number == 1:
        yield from validation.batches(batch_size, stage.seed, stage.start, lengths if by_length else None)
    drawn = seeds.stream(stage.seed, "bootstrap", number).choices(validation.training, k=len(validation.training))
    own = [lengths[row] for row in drawn] if by_length else None
    for batch in seeds.batches(len(drawn), batch_size, seeds.derive(stage.seed, "member", number), stage.start, own):
        yield [drawn[row] for row in batch]


def judgement_loss(
    config: RewardModelConfig, scores: Tensor, training: Any, indices: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """(loss, centering term, accuracy) of a batch: scalars."""
    if config.loss == "bradley_terry":
        chosen, rejected = scores.chunk(2)
        margin = config.margin_coef * torch.tensor([abs(training.rows[i]["gap"] or 0.0) for i in indices], device=scores.device)
        loss = bradley_terry_loss(chosen, rejected, margin).mean()
        return loss, centering_loss(chosen, rejected).mean(), (chosen > rejected).float().mean()
    values, places = training.values(indices), training.places(indices)
    right, pairs = agreement(scores.detach(), values, places, training.kind)
    accuracy = torch.tensor(right / max(1, pairs))
    match config.loss:
        case "all_pairs":
            return all_pairs_loss(scores, values, places).mean(), ranking_centering_loss(scores, places).mean(), accuracy
        case "plackett_luce":
            return plackett_luce_loss(scores, values, places).mean(), ranking_centering_loss(scores, places).mean(), accuracy
        case "regression":
            return rating_loss(scores, training.standardised(values)).mean(), torch.zeros(()), accuracy
    return thumbs_loss(scores, values).mean(), torch.zeros(()), accuracy


def held_out_loss(config: RewardModelConfig, model: Any, training: Any, rows: Sequence[int]) -> dict[str, Tensor]:
    loss, _, accuracy = judgement_loss(config, scores_in_pieces(model, training.batch(rows)), training, rows)
    return {"loss": loss, "accuracy": accuracy}


def held_out_figures(scores: Tensor, pairs: PairSet) -> dict[str, float]:
    """scores: of the chosen and of the rejected completion, (pairs, 2)."""
    lengths = [[len(chosen), len(rejected)] for chosen, rejected in zip(pairs.chosen, pairs.rejected, strict=True)]
    figures = agreement_figures(scores.double().cpu().numpy(), np.array(lengths))
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
