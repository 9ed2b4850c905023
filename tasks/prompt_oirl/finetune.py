"""r̂ with an encoder of its own, fine-tuned along: for models too small to have an embedding worth freezing.

    r̂(query, prompt) = w · silu(A h(query) + B h(prompt)),   minimize  cross-entropy(σ(r̂), share of right answers), by calls

h(text): mean and last hidden state of the base model. Query and prompt are encoded apart, so one pass over the queries scores
every prompt. Metric, by step: loss/cross_entropy of a (query, prompt) pair, in nats.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tasks.core import seeds
from tasks.core.files import read_json, write_json
from tasks.core.stage import Stage
from tasks.models.architecture import context_length, width
from tasks.models.batch import pad
from tasks.models.language import open_model, save_model
from tasks.models.optimizer import Optimizer, OptimizerConfig
from tasks.models.text import encode_prompts
from tasks.models.tokenizer import load_tokenizer
from tasks.prompt_oirl.answers import Answers, Array


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
        return self.pairs(self.embed(queries), self.embed(prompts))

    def pairs(self, queries: Tensor, prompts: Tensor) -> Tensor:
        """The same, of embedded texts."""
        together = self.query_layer(queries)[:, None] + self.prompt_layer(prompts)[None]
        return self.output(F.silu(together)).squeeze(-1)

    def embed(self, texts: Sequence[list[int]]) -> Tensor:
        """Mean and last hidden state: (texts, 2 · encoder_size)."""
        ids, mask = (tensor.to(self.output.weight.device) for tensor in pad(texts, self.pad_id, left=False))
        states = self.encoder(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        lengths = mask.sum(1)
        mean = (states * mask[..., None]).sum(1) / lengths[:, None]
        return torch.cat([mean, states[torch.arange(len(texts), device=ids.device), lengths - 1]], dim=1)


class FinetunedSelector:
    """A fitted r̂ with its candidate prompts: what tasks/prompt_oirl/selector.py is for fixed features."""

    def __init__(self, prompts: dict[str, str], reward: PromptReward, tokenizer: Any, window: int):
        self.prompts, self.reward, self.tokenizer, self.window = prompts, reward, tokenizer, window

    @property
    def prompt_ids(self) -> list[str]:
        return list(self.prompts)

    def tokens(self, queries: Sequence[str]) -> list[list[int]]:
        return encode_prompts(self.tokenizer, list(queries))

    def lengths(self, texts: Sequence[str]) -> list[int]:
        return [len(ids) for ids in self.tokens(texts)]

    def unread(self, queries: Sequence[str]) -> list[int]:
        """How many tokens at the end of each query lie beyond the window."""
        return [max(0, length - self.window) for length in self.lengths(queries)]

    def probabilities(self, queries: Sequence[str]) -> Array:
        """(queries, prompts), in the order of `prompt_ids`. A query is read as far as the window goes: see `unread`."""
        return self.score(self.features(queries))

    @torch.no_grad()
    def features(self, queries: Sequence[str]) -> Array:
        tokens = [ids[: self.window] for ids in self.tokens(queries)]
        return torch.cat([self.reward.embed(tokens[i : i + 128]) for i in range(0, len(tokens), 128)]).cpu().numpy()

    @torch.no_grad()
    def score(self, features: Array) -> Array:
        prompts = self.reward.embed(self.tokens(list(self.prompts.values())))
        chances = torch.sigmoid(self.reward.pairs(torch.from_numpy(features).to(prompts.device), prompts))
        return chances.cpu().numpy()

    def save(self, folder: Path) -> None:
        """The encoder as a Hugging Face folder, the head as safetensors, the candidate prompts as JSON."""
        from safetensors.torch import save_file

        save_model(self.reward.encoder, self.tokenizer, folder / "encoder")
        head = {name: tensor for name, tensor in self.reward.state_dict().items() if not name.startswith("encoder.")}
        save_file(head, folder / "head.safetensors")
        write_json(folder / "prompts.json", self.prompts)

    @classmethod
    def load(cls, folder: Path) -> "FinetunedSelector":
        from safetensors.torch import load_file
        from transformers import AutoModel

        encoder = AutoModel.from_pretrained(folder / "encoder", use_safetensors=True, trust_remote_code=False, dtype="float32")
        tokenizer, head = load_tokenizer(folder / "encoder"), load_file(folder / "head.safetensors")
        reward = PromptReward(encoder, width(encoder), head["output.weight"].shape[1], tokenizer.pad_token_id)
        reward.load_state_dict(head, strict=False)
        return cls(read_json(folder / "prompts.json"), reward.eval(), tokenizer, context_length(encoder))


def start(folder: Path, prompts: dict[str, str], hidden_size: int, stage: Stage) -> FinetunedSelector:
    """Untrained: the encoder as it is in the model folder, a random head."""
    base, tokenizer = open_model(stage, folder)
    with torch.random.fork_rng():
        torch.manual_seed(seeds.derive(stage.seed, "weights"))
        reward = PromptReward(base.base_model, width(base), hidden_size, tokenizer.pad_token_id)
    return FinetunedSelector(prompts, reward.to(stage.device), tokenizer, context_length(base))


def finetune(
    selector: FinetunedSelector, answers: Answers, stage: Stage, num_steps: int, batch_size: int, learning_rate: float
) -> None:
    """batch_size: queries, each with every prompt."""
    reward, tokens, prompts = (
        selector.reward,
        selector.tokens(answers.queries),
        selector.tokens(list(selector.prompts.values())),
    )
    correct, calls = (
        torch.tensor(table, dtype=torch.float32).to(stage.device)
        for table in (answers.rates, answers.calls / answers.calls.mean())
    )
    optimizer = Optimizer(reward.parameters(), stage.params(OptimizerConfig))
    stage.resume(reward=reward, optimizer=optimizer)
    order = seeds.batches(len(tokens), batch_size, stage.seed, stage.start, [len(ids) for ids in tokens])
    for step in stage.steps(num_steps):
        indices = next(order)
        logits = reward([tokens[i] for i in indices], prompts)
        loss = F.binary_cross_entropy_with_logits(logits, correct[indices], weight=calls[indices])
        loss.backward()
        optimizer.cosine_step(step, num_steps, learning_rate)
        stage.log(step, {"loss/cross_entropy": loss.detach()}, every=5)
