"""A judge for RLAIF: the base model learns to say which of two completions is better.

    minimize  −log π(v | t)   over the verdict v alone, "1" or "2", where t is the text that a judge reads before it

t shows a prompt and two completions, and is made by tasks/rewards/judge/texts.py from the file that
`collect_preferences.judge.templates` names: what is learned is what will be asked. Every comparison is read in both orders, so
that half of the verdicts are "1" and the position says nothing.

Lee et al. 2023, "RLAIF vs. RLHF", take a large model as it is and describe the task to it. How this differs: a model of this
size follows no description, so it is trained. Its supervision is no annotator but the rule that the templates state, on
training prompts that `collect_preferences` does not ask about (after the first `num_prompts`): samples of the SFT model, the
solution and a colleague's mistake are compared without noise by `collect_preferences.utility` and `cost_per_token`. Where the
verifier is part of that, the judge has been told one answer per prompt. `num_steps: 0` leaves all of it out.

Metrics, by step
  loss/cross_entropy   mean over texts of the loss above, in nats; a judge that knows only how to answer has ln 2 = 0.693
  train/accuracy       share of the batch's texts whose verdict has more than half of the probability
  train/grad_norm      norm of the gradient before clipping
Figures
  prompts, comparisons   what it has learned from: prompts whose utility was known, and pairs of completions of these
  judge/...              on comparisons of validation prompts, which it has not met; see tasks/feedback/judge/rlaif.py:
                         questions, gold_agreement, position_bias, first_position, undecided
  ece                    calibration of P(first preferred), see tasks/feedback/agreement.py; by bin in the table `calibration`
"""

import math
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt, model_validator
from torch import Tensor

from tasks.core import seeds
from tasks.core.config import Config, check_divides
from tasks.core.errors import InputError
from tasks.core.files import Row, read_table, write_json
from tasks.core.run import run
from tasks.core.stage import Stage
from tasks.core.statistics import ece
from tasks.feedback.agreement import calibration
from tasks.feedback.annotator.crowd import Crowd, Truth, make_crowd
from tasks.feedback.judge.judge import Judgement
from tasks.feedback.judge.rlaif import Asked, choose_questions, measure, share
from tasks.feedback.samples import refuse_unanswered, sample_completions
from tasks.feedback.settings import CollectPreferencesConfig
from tasks.models.adapter import add_adapter
from tasks.models.architecture import context_length
from tasks.models.batch import Batch, collate
from tasks.models.language import open_model, save_model
from tasks.models.optimizer import Optimizer, OptimizerConfig
from tasks.models.text import TaskConfig, encode_prompts
from tasks.rewards.functions import FunctionsConfig
from tasks.rewards.judge.texts import JudgeTextsConfig, Question
from tasks.rewards.judge.verdicts import VERDICT_TOKENS, encode_verdicts, first_probabilities, in_turns
from tasks.rl.logprobs import completion_logprobs


class JudgeModelConfig(Config):
    """params.yaml: judge_model"""

    namespace = "judge_model"

    num_steps: NonNegativeInt
    batch_size: PositiveInt  # comparisons, each in both orders
    micro_batch_size: PositiveInt | None  # comparisons per backward pass; null: all at once
    learning_rate: PositiveFloat

    @model_validator(mode="after")
    def _sizes(self) -> Self:
        check_divides("micro_batch_size", self.micro_batch_size, "batch_size", self.batch_size)
        return self


class ComparisonSet:
    """Comparisons as the texts that a judge reads, with the verdict that is right: number i in the order it was drawn, and
    turned round."""

    def __init__(self, asked: Sequence[Asked], texts: JudgeTextsConfig, tokenizer: Any, device: str):
        self.pad_id, self.device = tokenizer.pad_token_id, device
        self.first_is_better = [first.utility > second.utility for _, _, first, second in asked]
        shown = [Question(str(n), row["query"], a.text, b.text) for n, (row, _, a, b) in enumerate(asked)]
        orders = [*shown, *(question.turned() for question in shown)]
        verdicts = ["1" if better else "2" for better in self.first_is_better]
        verdicts += ["2" if better else "1" for better in self.first_is_better]
        self.texts = [in_turns(tokenizer, texts.asked(question) + texts.before_verdict()) for question in orders]
        self.prompts = encode_prompts(tokenizer, self.texts)
        self.verdicts = encode_verdicts(tokenizer, self.texts, verdicts)
        self.lengths = [len(ids) for ids in self.prompts[: len(asked)]]

    def __len__(self) -> int:
        return len(self.first_is_better)

    def batch(self, indices: Sequence[int]) -> Batch:
        """(2 · comparisons, time): all in the one order, then all in the other."""
        rows = [*indices, *(len(self) + i for i in indices)]
        return collate([self.prompts[i] for i in rows], [self.verdicts[i] for i in rows], self.pad_id, self.device)


def verdict_losses(logprobs: Tensor, verdict_mask: Tensor) -> Tensor:
    """−log π(v | t) of each text: (batch,), in nats. logprobs: of the verdict's tokens, (batch, time)."""
    return -(logprobs * verdict_mask).sum(1)


def train(config: JudgeModelConfig, stage: Stage) -> None:
    collecting, task = stage.params(CollectPreferencesConfig), stage.params(TaskConfig)
    truth = Truth(collecting, stage.params(FunctionsConfig), task.verifier)
    texts = JudgeTextsConfig.load(stage.dep(collecting.judge.templates))
    rows = read_table(stage.dep("data/prepared/prompts.parquet"))
    stage.dep("reports/validate_data")
    base, sft = stage.dep("models/base"), stage.dep("models/sft")
    folder = stage.out("models/judge_model")
    if not config.num_steps:
        write_json(folder / "supervision.json", {"prompts": 0, "comparisons": 0})
        return stage.report("reports/judge_model")

    prompts = [row for row in rows if row["split"] == "train"][collecting.num_prompts :]
    if not prompts:
        raise InputError(
            f"collect_preferences.num_prompts ({collecting.num_prompts}) asks about every training prompt and leaves none for "
            "the judge to learn from; lower it, or set judge_model.num_steps to 0"
        )
    validation = [row for row in rows if row["split"] == "validation"]
    if not validation:
        raise InputError("no validation prompts to measure the judge on; let the sources of prepare_data give some")
    refuse_unanswered([*prompts, *validation], collecting)
    judge, tokenizer = open_model(stage, base)
    policy, _ = open_model(stage, sft)
    crowd = make_crowd(collecting, truth, tokenizer, stage.seed)
    learned, held_out = (
        ComparisonSet(draw_comparisons(some, policy, crowd, task, stage), texts, tokenizer, stage.device)
        for some in (prompts, validation)
    )
    add_adapter(judge, stage, "judge")
    make_room(judge, texts, tokenizer, task)
    optimizer = Optimizer(judge.parameters(), stage.params(OptimizerConfig))
    stage.resume(judge=judge, optimizer=optimizer)

    order = seeds.batches(len(learned), config.batch_size, stage.seed, stage.start, learned.lengths)
    for step in stage.steps(config.num_steps):
        batch, parts = learned.batch(next(order)), []
        for micro in batch.split(2 * (config.micro_batch_size or config.batch_size)):
            losses = verdict_losses(completion_logprobs(judge, micro), micro.completion_mask)
            (losses.sum() / len(batch)).backward()
            parts.append(losses.detach())
        grad_norm = optimizer.cosine_step(step, config.num_steps, config.learning_rate)

        losses = torch.cat(parts)
        accuracy = (losses < math.log(2)).float().mean()
        stage.log(
            step, {"loss/cross_entropy": losses.mean(), "train/accuracy": accuracy, "train/grad_norm": grad_norm}, every=5
        )

    supervision = {"prompts": len(prompts), "comparisons": len(learned)}
    figures, bins = held_out_figures(judge, tokenizer, held_out)
    stage.record(**supervision, **figures)
    save_model(judge, tokenizer, folder)
    write_json(folder / "supervision.json", supervision)
    stage.table("calibration", bins)
    stage.report("reports/judge_model", {"calibration": bins})


def draw_comparisons(prompts: list[Row], policy: Any, crowd: Crowd, task: TaskConfig, stage: Stage) -> list[Asked]:
    """What would be asked about these prompts. Nobody is: the utilities say which is better."""
    sampled, _ = sample_completions(prompts, policy, crowd.tokenizer, task, crowd.config, stage)
    return choose_questions(sampled, crowd, crowd.config.pairs_per_prompt, stage.seed)


def make_room(judge: Any, texts: JudgeTextsConfig, tokenizer: Any, task: TaskConfig) -> None:
    """For the longest question there may be: two completions are more than the base model was built to read. Rotary positions
    have no table that ends, and the judge is trained on what lengths there are."""
    around = texts.asked(Question("", "", "", "")) + texts.before_verdict()
    longest = (
        len(encode_prompts(tokenizer, [in_turns(tokenizer, around)])[0])
        + task.max_prompt_tokens
        + 2 * task.max_new_tokens
        + VERDICT_TOKENS
    )
    context, config = context_length(judge), judge.config.get_text_config()
    if longest <= context:
        return
    if getattr(config, "rope_parameters", None) is None:
        raise InputError(
            f"a question to the judge may take {longest} tokens; the base model, whose positions are learned, reads {context} "
            "at most; name a shorter file in collect_preferences.judge.templates, or lower task.max_new_tokens"
        )
    config.max_position_embeddings = longest


def held_out_figures(judge: Any, tokenizer: Any, held_out: ComparisonSet) -> tuple[dict[str, float], list[Row]]:
    """(figures, bins of the calibration) of the judge on comparisons that it has not met."""
    chances = first_probabilities(judge, tokenizer, held_out.texts)
    judged = [Judgement(*both) for both in zip(chances[: len(held_out)], chances[len(held_out) :], strict=True)]
    preferences = np.array([judgement.preference for judgement in judged]).clip(1e-6, 1 - 1e-6)
    signs = np.where(held_out.first_is_better, 1.0, -1.0)
    margins = signs * np.log(preferences / (1 - preferences))
    bins = calibration(margins)
    agrees = [bool(margin > 0) for margin in margins if margin != 0]
    return measure(judged) | share("gold_agreement", agrees) | {"ece": ece(bins)}, bins


if __name__ == "__main__":
    run(JudgeModelConfig, train)
