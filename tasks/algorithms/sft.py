"""Supervised fine-tuning = behavior cloning of the demonstrations.

    minimize  −Σ_t log π(y_t | x, y_<t)   over completion tokens only, end-of-text included

Pomerleau 1989 for the idea; Ouyang et al. 2022 for its place in alignment. The prompt carries no loss: the policy must
learn to answer, not to ask. The error of the clone compounds with the length of the completion, which is why the stages
after this one exist. `num_steps: 0` leaves it out and publishes the base model unchanged, for one that follows instructions.

Metrics: those of tasks/training/validation.py on held-out demonstrations, and
  loss/nll         mean negative log-likelihood of a completion token, in nats
  train/grad_norm  norm of the gradient before clipping
"""

from typing import Self

import torch
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt, model_validator
from torch import Tensor

from tasks.core.config import Config, check_divides
from tasks.core.errors import InputError
from tasks.core.files import read_table
from tasks.core.run import run
from tasks.core.stage import Stage
from tasks.models.adapter import add_adapter
from tasks.models.architecture import context_length
from tasks.models.batch import collate, micro_batches
from tasks.models.compute import at_once
from tasks.models.language import open_model, save_model
from tasks.models.optimizer import Optimizer, OptimizerConfig
from tasks.models.text import encode_completions, encode_prompts
from tasks.rl.logprobs import completion_logprobs
from tasks.rl.masking import reduce_tokens
from tasks.training.validation import Validation

ROWS_AT_ONCE = 64  # without gradient


class SftConfig(Config):
    """params.yaml: sft"""

    namespace = "sft"

    num_steps: NonNegativeInt  # 0: the base model becomes the SFT model as it is
    batch_size: PositiveInt
    micro_batch_size: PositiveInt | None  # demonstrations per backward pass; null: all at once
    learning_rate: PositiveFloat

    @model_validator(mode="after")
    def _sizes(self) -> Self:
        check_divides("micro_batch_size", self.micro_batch_size, "batch_size", self.batch_size)
        return self


def train(config: SftConfig, stage: Stage) -> None:
    policy, tokenizer = open_model(stage, stage.dep("models/base"))
    add_adapter(policy, stage)
    rows = read_table(stage.dep("data/prepared/demonstrations.parquet"))
    stage.dep("reports/validate_data")
    prompts = encode_prompts(tokenizer, [row["prompt"] for row in rows])
    completions = encode_completions(tokenizer, [row["completion"] for row in rows])
    lengths = [len(x) + len(y) for x, y in zip(prompts, completions, strict=True)]
    context = context_length(policy)
    if config.num_steps and max(lengths, default=0) > context:
        raise InputError(
            f"a prompt with its completion has {max(lengths)} tokens, the model's max_position_embeddings is {context}; "
            "raise base_model.max_position_embeddings, or lower task.max_prompt_tokens and task.max_new_tokens"
        )
    if not config.num_steps:
        print(f"{stage.name}: num_steps is 0, the base model is published unchanged", flush=True)
    optimizer = Optimizer(policy.parameters(), stage.params(OptimizerConfig))
    validation = Validation(stage, policy, [row["query"] for row in rows], config.num_steps)
    stage.resume(policy=policy, optimizer=optimizer, validation=validation)

    def held_out() -> dict[str, Tensor]:
        nlls, tokens = [], 0
        for part in micro_batches(validation.rows, at_once(policy, ROWS_AT_ONCE)):
            batch = collate([prompts[i] for i in part], [completions[i] for i in part], tokenizer.pad_token_id, stage.device)
            nlls.append(-(completion_logprobs(policy, batch) * batch.completion_mask).sum())
            tokens += int(batch.lengths.sum())
        return {"loss": torch.stack(nlls).sum() / tokens}

    order = validation.batches(config.batch_size, stage.seed, stage.start, lengths)
    for step in stage.steps(config.num_steps):
        indices = next(order)
        batch = collate([prompts[i] for i in indices], [completions[i] for i in indices], tokenizer.pad_token_id, stage.device)

        loss = torch.zeros((), device=stage.device)
        for micro in batch.split(config.micro_batch_size or config.batch_size):
            logprobs = completion_logprobs(policy, micro)
            nll = reduce_tokens(-logprobs, micro.completion_mask, "token_mean", full_mask=batch.completion_mask)
            nll.backward()
            loss += nll.detach()
        grad_norm = optimizer.cosine_step(step, config.num_steps, config.learning_rate)

        measured = validation(step, held_out)
        stage.log(step, {"loss/nll": loss, "train/grad_norm": grad_norm} | measured, every=1 if measured else 10)

    stage.record(**validation.take_best())
    save_model(policy, tokenizer, stage.out("models/sft"))
    stage.report("reports/sft")


if __name__ == "__main__":
    run(SftConfig, train)
