"""Prompt-OIRL: learn from an offline log which prompt suits a query, then choose without asking the model.

    r̂(query, prompt) = w · silu(A h(query) + B h(prompt)),   minimize  cross-entropy(σ(r̂), correct)
    choice(query) = argmax over prompts of r̂(query, prompt)

Sun et al. 2024 (arXiv 2309.06553). h(text): mean and last hidden state of the base model, fine-tuned along. Query and
prompt are encoded apart, so one pass over the queries scores every prompt.

How this differs from the paper
  - It fits boosted trees on fixed embeddings of a large model; a model of the embedded default's size has no embedding
    worth freezing.

Metrics, by step
  loss/cross_entropy     of a (query, prompt) pair, in nats
Figures on the test queries, which the log's training part has never seen
  success                share of right answers when each query gets its chosen prompt
  best_prompt_success    the same for the single prompt that did best on the training queries
  oracle_success         share of queries that some prompt answers; nothing can choose better
  random_success         mean over prompts
  gain                   success − best_prompt_success; gain_low, gain_high: 95 % paired bootstrap interval over queries
  accuracy, auc          of r̂ as a prediction of correctness, over all test pairs; auc is absent if they are all alike
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from tasks.core import seeds
from tasks.core.config import Config
from tasks.core.errors import InputError
from tasks.core.files import Row, read_table, write_json
from tasks.core.run import run
from tasks.core.stage import Stage
from tasks.core.statistics import paired_bootstrap
from tasks.models.batch import pad
from tasks.models.language import load_policy, save_model
from tasks.models.optimizer import adamw, optimizer_step, warmup_cosine
from tasks.models.text import encode_prompts


class PromptOirlConfig(Config):
    """params.yaml: prompt_oirl"""

    namespace = "prompt_oirl"

    num_steps: PositiveInt
    batch_size: PositiveInt  # queries, each with every prompt
    learning_rate: PositiveFloat
    hidden_size: PositiveInt


class PromptReward(nn.Module):
    """r̂ for all pairs of some queries and some prompts."""

    def __init__(self, encoder: nn.Module, encoder_size: int, hidden_size: int, pad_id: int):
        super().__init__()
        self.encoder, self.pad_id = encoder, pad_id
        self.query_layer = nn.Linear(2 * encoder_size, hidden_size)
        self.prompt_layer = nn.Linear(2 * encoder_size, hidden_size)
        self.output = nn.Linear(hidden_size, 1)

    def forward(self, queries: Sequence[list[int]], prompts: Sequence[list[int]]) -> Tensor:
        """Logits of "this prompt gets this query right": (queries, prompts)."""
        together = self.query_layer(self.embed(queries))[:, None] + self.prompt_layer(self.embed(prompts))[None]
        return self.output(F.silu(together)).squeeze(-1)

    def embed(self, texts: Sequence[list[int]]) -> Tensor:
        """Mean and last hidden state: (texts, 2 · encoder_size)."""
        ids, mask = (tensor.to(self.output.weight.device) for tensor in pad(texts, self.pad_id, left=False))
        states = self.encoder(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        lengths = mask.sum(1)
        mean = (states * mask[..., None]).sum(1) / lengths[:, None]
        return torch.cat([mean, states[torch.arange(len(texts), device=ids.device), lengths - 1]], dim=1)


class Log:
    """The prompt log as a table: correct[query, prompt]."""

    def __init__(self, rows: list[Row], prompt_ids: list[str], tokenizer: Any):
        by_query: dict[str, dict[str, Row]] = {}
        for row in rows:
            by_query.setdefault(row["query_id"], {})[row["prompt_id"]] = row
        for query_id, answers in by_query.items():
            if missing := set(prompt_ids) - answers.keys():
                raise InputError(f"data/prompt_log.parquet: query {query_id} has no answer under prompt {sorted(missing)[0]}")
        self.query_ids = list(by_query)
        self.queries = [answers[prompt_ids[0]]["query"] for answers in by_query.values()]
        self.tokens = encode_prompts(tokenizer, self.queries)
        self.correct = torch.tensor([[float(answers[p]["correct"]) for p in prompt_ids] for answers in by_query.values()])


def train(config: PromptOirlConfig, stage: Stage) -> None:
    base, tokenizer = load_policy(stage.dep("models/base"), stage.device)
    rows = read_table(stage.dep("data/prompt_log.parquet"))
    if not rows:
        return nothing_to_learn(stage)
    prompts = {row["prompt_id"]: row["prompt"] for row in rows}
    prompt_tokens = encode_prompts(tokenizer, list(prompts.values()))
    training = Log([row for row in rows if row["split"] == "train"], list(prompts), tokenizer)
    test = Log([row for row in rows if row["split"] == "test"], list(prompts), tokenizer)
    if not test.tokens:
        raise InputError("data/prompt_log.parquet holds no test queries; raise collect_prompt_log.num_test_queries")
    with torch.random.fork_rng():
        torch.manual_seed(seeds.derive(stage.seed, "weights"))
        reward = PromptReward(base.base_model, base.config.hidden_size, config.hidden_size, tokenizer.pad_token_id)
    reward.to(stage.device)
    optimizer = adamw(list(reward.parameters()), config.learning_rate)
    stage.resume(reward=reward, optimizer=optimizer)

    order = seeds.batches(
        len(training.tokens), config.batch_size, stage.seed, stage.start, [len(ids) for ids in training.tokens]
    )
    for step in stage.steps(config.num_steps):
        picked = next(order)
        logits = reward([training.tokens[i] for i in picked], prompt_tokens)
        loss = F.binary_cross_entropy_with_logits(logits, training.correct[picked].to(stage.device))
        loss.backward()
        optimizer_step(optimizer, warmup_cosine(step, config.num_steps, config.learning_rate))
        stage.log(step, {"loss/cross_entropy": loss.detach()}, every=5)

    chances = probabilities(reward, test.tokens, prompt_tokens)
    stage.record(**figures(chances, test.correct, training.correct, stage.seed))
    choices = choice_rows(test, chances, prompts)
    stage.table("choices", choices[:100])
    save(reward, tokenizer, prompts, stage.out("models/prompt_oirl"))
    stage.report("reports/prompt_oirl", {"choices": choices, "prompts": prompt_rows(test, training, prompts)})


def nothing_to_learn(stage: Stage) -> None:
    """The log is empty, since the data has no answers: no figures, and no model but an empty list of prompts."""
    stage.record()
    write_json(stage.out("models/prompt_oirl") / "prompts.json", {})
    stage.report("reports/prompt_oirl")


@torch.no_grad()
def probabilities(reward: PromptReward, queries: list[list[int]], prompts: list[list[int]]) -> Tensor:
    """(queries, prompts)"""
    pieces = [reward(queries[i : i + 128], prompts) for i in range(0, len(queries), 128)]
    return torch.sigmoid(torch.cat(pieces)).cpu()


def figures(chances: Tensor, correct: Tensor, training_correct: Tensor, seed: int) -> dict[str, float]:
    chosen = correct.gather(1, chances.argmax(1, keepdim=True))[:, 0]
    best = correct[:, int(training_correct.mean(0).argmax())]
    gain, low, high = paired_bootstrap((chosen - best).tolist(), 2000, seeds.derive(seed, "bootstrap"))
    result = {
        "success": chosen.mean().item(),
        "best_prompt_success": best.mean().item(),
        "oracle_success": correct.amax(1).mean().item(),
        "random_success": correct.mean().item(),
        "gain": gain,
        "gain_low": low,
        "gain_high": high,
        "accuracy": ((chances > 0.5).float() == correct).float().mean().item(),
    }
    if 0 < result["random_success"] < 1:
        result["auc"] = auc(chances.flatten().numpy(), correct.flatten().numpy())
    return result


def auc(chances: np.ndarray[Any, Any], correct: np.ndarray[Any, Any]) -> float:
    """Chance that a right pair is ranked above a wrong one, ties counting half (Mann & Whitney 1947)."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(correct, chances))


def choice_rows(test: Log, chances: Tensor, prompts: dict[str, str]) -> list[Row]:
    """One row per test query: what was chosen, how sure, and what would have been right."""
    names = list(prompts)
    rows = []
    for index, query_id in enumerate(test.query_ids):
        choice = int(chances[index].argmax())
        rows.append({
            "query_id": query_id,
            "query": test.queries[index],
            "prompt_id": names[choice],
            "probability": round(float(chances[index, choice]), 4),
            "correct": bool(test.correct[index, choice]),
            "right_prompts": ", ".join(name for j, name in enumerate(names) if test.correct[index, j]),
        })  # fmt: skip
    return rows


def prompt_rows(test: Log, training: Log, prompts: dict[str, str]) -> list[Row]:
    """One row per prompt: how often it is right on its own."""
    return [
        {"prompt_id": name, "prompt": text, "train_success": float(on_train), "test_success": float(on_test)}
        for (name, text), on_train, on_test in zip(prompts.items(), training.correct.mean(0), test.correct.mean(0), strict=True)
    ]


def save(reward: PromptReward, tokenizer: Any, prompts: dict[str, str], folder: Path) -> None:
    """The encoder as a Hugging Face folder, the head as safetensors, the candidate prompts as JSON."""
    from safetensors.torch import save_file

    save_model(reward.encoder, tokenizer, folder / "encoder")
    head = {name: tensor for name, tensor in reward.state_dict().items() if not name.startswith("encoder.")}
    save_file(head, folder / "head.safetensors")
    write_json(folder / "prompts.json", prompts)


if __name__ == "__main__":
    run(PromptOirlConfig, train)
