"""The base model: any Hugging Face causal language model, or a small one built from the params and trained on the corpus.

    minimize  −Σ_t log p(w_t | w_<t)   over every token of every text

A loaded model keeps its weights unless `num_steps` asks for further training on the corpus. The folder it writes is what
every later stage starts from, so the whole experiment is versioned, weights included.

Metrics
  loss/nll        mean negative log-likelihood of a token, in nats
  train/grad_norm  norm of the gradient before clipping
  parameters, perplexity: size of the model, and exp(nll) over the last 100 batches
"""

import math
from typing import Any, Self

import torch
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from tasks.core import seeds
from tasks.core.config import Config, check_divides
from tasks.core.errors import InputError
from tasks.core.files import read_table
from tasks.core.run import run
from tasks.core.stage import Stage
from tasks.models.architecture import context_length
from tasks.models.batch import collate
from tasks.models.check import check_architecture
from tasks.models.compute import ComputeConfig, apply_settings
from tasks.models.external import pinned
from tasks.models.language import build_model, load_model, save_model
from tasks.models.optimizer import Optimizer, OptimizerConfig
from tasks.models.text import encode_completions
from tasks.models.tokenizer import load_tokenizer
from tasks.rl.logprobs import completion_logprobs
from tasks.rl.masking import reduce_tokens


class BaseModelConfig(Config):
    """params.yaml: base_model"""

    namespace = "base_model"

    source: str
    revision: str | None
    hidden_size: PositiveInt
    num_hidden_layers: PositiveInt
    num_attention_heads: PositiveInt
    intermediate_size: PositiveInt
    max_position_embeddings: PositiveInt
    initializer_range: PositiveFloat
    num_steps: NonNegativeInt
    batch_size: PositiveInt
    micro_batch_size: PositiveInt | None  # texts per backward pass; null: all at once
    learning_rate: PositiveFloat

    @model_validator(mode="after")
    def _sizes(self) -> Self:
        check_divides("num_attention_heads", self.num_attention_heads, "hidden_size", self.hidden_size)
        check_divides("micro_batch_size", self.micro_batch_size, "batch_size", self.batch_size)
        return self


def make_model(config: BaseModelConfig, tokenizer: Any, stage: Stage) -> Any:
    if config.source != "config":
        source = pinned(config.source, config.revision, config.namespace, "source")
        model = load_model(source, stage.device, config.revision)
        if load_tokenizer(source, config.revision).get_vocab() != tokenizer.get_vocab():
            raise InputError(
                f"models/tokenizer is not that of {config.source}; set `prepare_data.tokenizer` to the same source"
            )
        if len(tokenizer) > model.get_input_embeddings().num_embeddings:
            model.resize_token_embeddings(len(tokenizer))  # a pad token was added
        model.config.pad_token_id = tokenizer.pad_token_id
        check_architecture(model, tokenizer)
        return model
    shape = config.model_dump(include={
        "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
        "max_position_embeddings", "initializer_range",
    })  # fmt: skip
    return build_model(tokenizer, seeds.derive(stage.seed, "weights"), **shape).to(stage.device)


def train(config: BaseModelConfig, stage: Stage) -> None:
    tokenizer = load_tokenizer(stage.dep("models/tokenizer"))
    corpus = [row["text"] for row in read_table(stage.dep("data/prepared/corpus.parquet"))]
    stage.dep("reports/validate_data")
    model = apply_settings(make_model(config, tokenizer, stage), stage.params(ComputeConfig))
    context = context_length(model)
    texts = [ids[: context - 1] for ids in encode_completions(tokenizer, corpus)]
    if config.num_steps and not texts:
        raise InputError("base_model.num_steps asks for training, but prepare_data.sources names no corpus; set it to 0")
    optimizer = Optimizer(model.parameters(), stage.params(OptimizerConfig))
    stage.resume(model=model, optimizer=optimizer)

    order = seeds.batches(len(texts), config.batch_size, stage.seed, stage.start, lengths=[len(ids) for ids in texts])
    for step in stage.steps(config.num_steps):
        rows = next(order)
        start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
        batch = collate([[start]] * len(rows), [texts[row] for row in rows], tokenizer.pad_token_id, stage.device)

        loss = torch.zeros((), device=stage.device)
        for micro in batch.split(config.micro_batch_size or config.batch_size):
            logprobs = completion_logprobs(model, micro)
            nll = reduce_tokens(-logprobs, micro.completion_mask, "token_mean", full_mask=batch.completion_mask)
            nll.backward()
            loss += nll.detach()
        grad_norm = optimizer.cosine_step(step, config.num_steps, config.learning_rate)

        stage.log(step, {"loss/nll": loss, "train/grad_norm": grad_norm}, every=10)

    stage.record(parameters=sum(parameter.numel() for parameter in model.parameters()))
    if recent := [row["loss/nll"] for row in stage.history if row["step"] >= config.num_steps - 100]:
        stage.record(perplexity=math.exp(sum(recent) / len(recent)))
    save_model(model, tokenizer, stage.out("models/base"))
    stage.report("reports/base_model")


if __name__ == "__main__":
    run(BaseModelConfig, train)
