"""Log-probabilities a language model gives to completions it is shown.

A model with the attribute `logits_at_once` never holds the logits of more positions than that, neither in the forward pass nor
in the backward pass, where they are computed again: with a large vocabulary they take more memory than everything else.

A model with the attribute `shares_prompts` reads a prompt that several rows have once for all of them, as the sampler does: the
completions then attend to its keys and values, and its gradient is the sum of theirs.

A model with the attribute `share_rows` is held by several processes: share_rows(function, model, batch, ...) is what
function(model, batch, ...) gives, of which each process computes some of the rows.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any, Protocol, TypeVar, cast

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

Function = TypeVar("Function", bound=Callable[..., Any])


class PromptsAndCompletions(Protocol):
    """Prompts padded on the left, completions on the right, so that every completion begins in the same column."""

    @property
    def input_ids(self) -> Tensor: ...  # (batch, prompt_time + time)

    @property
    def attention_mask(self) -> Tensor: ...  # the same shape

    @property
    def position_ids(self) -> Tensor: ...  # the same shape

    @property
    def prompt_ids(self) -> Tensor: ...  # (batch, prompt_time)

    @property
    def completion_ids(self) -> Tensor: ...  # (batch, time)


def by_rows(function: Function) -> Function:
    """For a function of (model, batch, ...) to tensors with the batch's rows: they are shared out if the model says so."""

    @wraps(function)
    def shared(model: Any, batch: Any, *others: Any) -> Any:
        share = getattr(model, "share_rows", None)
        return share(function, model, batch, *others) if share else function(model, batch, *others)

    return cast(Function, shared)


def completion_logprobs(model: Any, batch: PromptsAndCompletions, temperature: float = 1.0) -> Tensor:
    """log π(y_t | x, y_<t) for every token of the completions: (batch, time), in nats. Padding gets a number too: mask it.

    Logits are computed for the completion's positions only, and log-softmax is never materialised.
    """
    return label_logprobs(model, batch, batch.completion_ids, temperature)


@by_rows
def label_logprobs(model: Any, batch: PromptsAndCompletions, labels: Tensor, temperature: float = 1.0) -> Tensor:
    """log π(a_t | x, y_<t) of other tokens in the states that the completions lead through: (batch, time), in nats.

    labels: a_t, (batch, time). The model reads y; what it is asked for at t is a_t, not y_t.
    """
    if getattr(model, "logits_at_once", None):
        return _chunked(model, completion_states(model, batch), labels, temperature)
    return _gather(_logits(model, batch)[0], labels, temperature)


@torch.no_grad()
@by_rows
def likeliest_tokens(model: Any, batch: PromptsAndCompletions) -> Tensor:
    """argmax_a π(a | x, y_<t) in each of those states: (batch, time)."""
    if at_once := getattr(model, "logits_at_once", None):
        head, states = model.get_output_embeddings(), completion_states(model, batch)
        return torch.cat([head(part).argmax(-1) for part in states.flatten(0, 1).split(at_once)]).view_as(batch.completion_ids)
    return _logits(model, batch)[0].argmax(-1)


@by_rows
def completion_logprobs_and_hidden(model: Any, batch: PromptsAndCompletions, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """The same, and the last hidden state that each token was predicted from: (batch, time, hidden), for a value head."""
    if getattr(model, "logits_at_once", None):
        states = completion_states(model, batch)
        return _chunked(model, states, batch.completion_ids, temperature), states.float()
    logits, hidden = _logits(model, batch, output_hidden_states=True)
    return _gather(logits, batch.completion_ids, temperature), hidden.float()


def completion_entropy(model: Any, states: Tensor, temperature: float = 1.0) -> Tensor:
    """Entropy of π(·|x, y_<t), (batch, time), in nats, from the states that `completion_logprobs_and_hidden` gives."""
    head, at_once = model.get_output_embeddings(), getattr(model, "logits_at_once", None)

    def part(states: Tensor) -> Tensor:
        return token_entropy(head(states).float() / temperature)

    if not at_once:
        return part(states)
    parts = [checkpoint(part, each, use_reentrant=False) for each in states.flatten(0, 1).split(at_once)]
    return torch.cat(parts).view(states.shape[:2])


def token_entropy(logits: Tensor) -> Tensor:
    """−Σ π log π over the vocabulary, in nats: (…, vocabulary) to (…)."""
    logprobs = logits.log_softmax(-1)
    return -(logprobs.exp() * logprobs).sum(-1)


def completion_states(model: Any, batch: PromptsAndCompletions) -> Tensor:
    """The last hidden state that each completion token is predicted from: (batch, time, hidden)."""
    if (prompts := _shared_prompts(model, batch)) is not None:
        before, within = _read_in_two(model.base_model, batch, prompts)
        return torch.cat([before.last_hidden_state[prompts, -1:], within.last_hidden_state], dim=1)
    outputs = model.base_model(
        input_ids=batch.input_ids, attention_mask=batch.attention_mask, position_ids=batch.position_ids, use_cache=False
    )  # fmt: skip
    states: Tensor = outputs.last_hidden_state[:, -batch.completion_ids.shape[1] - 1 : -1]
    return states


def _logits(model: Any, batch: PromptsAndCompletions, output_hidden_states: bool = False) -> tuple[Tensor, Any]:
    """The logits of each completion token, (batch, time, vocabulary), and if asked for the hidden states behind them."""
    time = batch.completion_ids.shape[1]
    if (prompts := _shared_prompts(model, batch)) is not None:
        before, within = _read_in_two(model, batch, prompts, output_hidden_states=output_hidden_states)
        logits = torch.cat([before.logits[prompts, -1:], within.logits], dim=1)
        if not output_hidden_states:
            return logits, None
        return logits, torch.cat([before.hidden_states[-1][prompts, -1:], within.hidden_states[-1]], dim=1)
    outputs = model(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        position_ids=batch.position_ids,
        use_cache=False,
        logits_to_keep=time + 1,  # the last prompt token predicts the first completion token
        output_hidden_states=output_hidden_states,
    )
    return outputs.logits[:, :-1], outputs.hidden_states[-1][:, -time - 1 : -1] if output_hidden_states else None


def _shared_prompts(model: Any, batch: PromptsAndCompletions) -> Tensor | None:
    """Which of the batch's distinct prompts each row has, (batch,), or None where reading them once would save little."""
    if not getattr(model, "shares_prompts", False):
        return None
    distinct, prompts = torch.unique(batch.prompt_ids, dim=0, return_inverse=True)
    spared = (len(prompts) - len(distinct)) * distinct.shape[1]
    return prompts if spared >= batch.input_ids.numel() / 5 and batch.completion_ids.shape[1] > 1 else None


def _read_in_two(network: Any, batch: PromptsAndCompletions, prompts: Tensor, **options: Any) -> tuple[Any, Any]:
    """The network's outputs for each distinct prompt, and for all but the last token of each completion."""
    time = batch.prompt_ids.shape[1]
    first = (prompts == torch.arange(int(prompts.max()) + 1, device=prompts.device)[:, None]).int().argmax(1)
    mask, positions = batch.attention_mask[:, :-1], batch.position_ids[:, :-1]
    before = network(
        input_ids=batch.prompt_ids[first], attention_mask=mask[first, :time], position_ids=positions[first, :time],
        use_cache=True, **options,
    )  # fmt: skip
    before.past_key_values.batch_select_indices(prompts)
    within = network(
        input_ids=batch.completion_ids[:, :-1], attention_mask=mask, position_ids=positions[:, time:],
        past_key_values=before.past_key_values, use_cache=True, **options,
    )  # fmt: skip
    return before, within


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
