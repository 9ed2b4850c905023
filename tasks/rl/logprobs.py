"""Log-probabilities a language model gives to completions it is shown.

A model with the attribute `logits_at_once` never holds the logits of more positions than that, neither in the forward pass nor
in the backward pass, where they are computed again: with a large vocabulary they take more memory than everything else.
"""

from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


class PromptsAndCompletions(Protocol):
    """Prompts padded on the left, completions on the right, so that every completion begins in the same column."""

    @property
    def input_ids(self) -> Tensor: ...  # (batch, prompt_time + time)

    @property
    def attention_mask(self) -> Tensor: ...  # the same shape

    @property
    def position_ids(self) -> Tensor: ...  # the same shape

    @property
    def completion_ids(self) -> Tensor: ...  # (batch, time)


def completion_logprobs(model: Any, batch: PromptsAndCompletions, temperature: float = 1.0) -> Tensor:
    """log π(y_t | x, y_<t) for every token of the completions: (batch, time), in nats. Padding gets a number too: mask it.

    Logits are computed for the completion's positions only, and log-softmax is never materialised.
    """
    return label_logprobs(model, batch, batch.completion_ids, temperature)


def label_logprobs(model: Any, batch: PromptsAndCompletions, labels: Tensor, temperature: float = 1.0) -> Tensor:
    """log π(a_t | x, y_<t) of other tokens in the states that the completions lead through: (batch, time), in nats.

    labels: a_t, (batch, time). The model reads y; what it is asked for at t is a_t, not y_t.
    """
    if getattr(model, "logits_at_once", None):
        return _chunked(model, completion_states(model, batch), labels, temperature)
    return _gather(_completion_outputs(model, batch).logits[:, :-1], labels, temperature)


@torch.no_grad()
def likeliest_tokens(model: Any, batch: PromptsAndCompletions) -> Tensor:
    """argmax_a π(a | x, y_<t) in each of those states: (batch, time)."""
    if at_once := getattr(model, "logits_at_once", None):
        head, states = model.get_output_embeddings(), completion_states(model, batch)
        return torch.cat([head(part).argmax(-1) for part in states.flatten(0, 1).split(at_once)]).view_as(batch.completion_ids)
    return _completion_outputs(model, batch).logits[:, :-1].argmax(-1)


def completion_logprobs_and_hidden(model: Any, batch: PromptsAndCompletions, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """The same, and the last hidden state that each token was predicted from: (batch, time, hidden), for a value head."""
    if getattr(model, "logits_at_once", None):
        states = completion_states(model, batch)
        return _chunked(model, states, batch.completion_ids, temperature), states.float()
    outputs = _completion_outputs(model, batch, output_hidden_states=True)
    time = batch.completion_ids.shape[1]
    hidden = outputs.hidden_states[-1][:, -time - 1 : -1]
    return _gather(outputs.logits[:, :-1], batch.completion_ids, temperature), hidden.float()


def completion_states(model: Any, batch: PromptsAndCompletions) -> Tensor:
    """The last hidden state that each completion token is predicted from: (batch, time, hidden)."""
    outputs = model.base_model(
        input_ids=batch.input_ids, attention_mask=batch.attention_mask, position_ids=batch.position_ids, use_cache=False
    )  # fmt: skip
    states: Tensor = outputs.last_hidden_state[:, -batch.completion_ids.shape[1] - 1 : -1]
    return states


def _completion_outputs(model: Any, batch: PromptsAndCompletions, **options: Any) -> Any:
    return model(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        position_ids=batch.position_ids,
        use_cache=False,
        logits_to_keep=batch.completion_ids.shape[1] + 1,  # the last prompt token predicts the first completion token
        **options,
    )


def _chunked(model: Any, states: Tensor, labels: Tensor, temperature: float) -> Tensor:
    head = model.get_output_embeddings()

    def part(states: Tensor, labels: Tensor) -> Tensor:
        return _gather(head(states), labels, temperature)

    parts = zip(states.flatten(0, 1).split(model.logits_at_once), labels.flatten().split(model.logits_at_once), strict=True)
    return torch.cat([checkpoint(part, *each, use_reentrant=False) for each in parts]).view_as(labels)


def _gather(logits: Tensor, token_ids: Tensor, temperature: float) -> Tensor:
    logits = logits.float() / temperature
    chosen = logits.gather(-1, token_ids.unsqueeze(-1)).squeeze(-1)
    return chosen - torch.logsumexp(logits, dim=-1)
