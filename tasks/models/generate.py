"""The only sampler: a batched decode loop for any causal language model, which also returns log-probabilities and entropies.

Against `model.generate` it saves what alignment does not need: the prompt of a group is read once for all its completions,
finished rows leave the batch, many at a time because that copies the cache, and the log-probabilities come for free. Row i at
step t uses the uniform number u[i, t] and nothing else, so a sample does not depend on when its neighbours finished, nor on
how many processes share out the prompts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import DynamicCache

from tasks.models.batch import Batch, by_length, pad
from tasks.models.cache import make_cache
from tasks.models.compute import at_once
from tasks.models.data_parallel import own_rows, whole

ROWS_AT_ONCE = 256
CROWDED = 0.75  # finished rows leave the batch when no larger share of it is still writing


@dataclass
class Rollout(Batch):
    """Sampled completions, with what the sampler knew: all (batch, time) but finished (batch,)."""

    logprobs: Tensor  # of the sampled tokens under the sampling distribution, in nats
    entropy: Tensor  # of that distribution, in nats
    finished: Tensor  # True where the completion ended by itself


@torch.inference_mode()
def sample(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[list[int]],
    *,
    max_new_tokens: int,
    temperature: float,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
    group_size: int = 1,
) -> Rollout:
    """`group_size` completions for each prompt, those of one prompt next to each other.

    prompts: token ids. temperature 0 is greedy and needs no generator. A completion ends with end-of-text, which belongs to
    it, or after max_new_tokens. top_k and top_p cut the distribution off, see `truncated`; its log-probabilities are then
    not the policy's own, so an algorithm that divides by them leaves both None.
    """
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k ({top_k}) must be at least 1")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p ({top_p}) must be above 0 and at most 1")
    uniform = torch.zeros(len(prompts) * group_size, max_new_tokens)
    if temperature > 0:
        uniform = torch.rand(uniform.shape, generator=generator, dtype=torch.float64)
    by_prompt, own = (len(prompts), group_size), own_rows(len(prompts))
    noise = uniform.unflatten(0, by_prompt)[own].flatten(0, 1)
    written = _write(model, tokenizer, [prompts[row] for row in own], noise, temperature, top_k, top_p)
    completion_ids, logprobs, entropy, lengths = (
        whole(part.unflatten(0, (len(own), group_size)), len(prompts)).flatten(0, 1) for part in written
    )

    pad_id, device = tokenizer.pad_token_id, completion_ids.device
    prompt_ids, prompt_mask = (tensor.to(device) for tensor in pad(prompts, pad_id, left=True))
    time, stops = int(lengths.max()), torch.tensor(stop_ids(model, tokenizer), device=device)
    is_written = torch.arange(time, device=device) < lengths[:, None]
    last = completion_ids.gather(1, lengths[:, None] - 1)[:, 0]
    return Rollout(
        prompt_ids=prompt_ids.repeat_interleave(group_size, dim=0),
        prompt_mask=prompt_mask.repeat_interleave(group_size, dim=0),
        completion_ids=completion_ids[:, :time].where(is_written, pad_id),
        completion_mask=is_written.long(),
        logprobs=logprobs[:, :time].where(is_written, 0.0),
        entropy=entropy[:, :time].where(is_written, 0.0),
        finished=torch.isin(last, stops),
    )


def _write(
    model: Any, tokenizer: Any, prompts: Sequence[list[int]], uniform: Tensor, temperature: float,
    top_k: int | None, top_p: float | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """(ids, log-probabilities, entropies, lengths) of the completions: (rows, time) but lengths, (rows,). What comes after the
    end of one means nothing. uniform: (rows, time), those of one prompt next to each other."""
    prompt_ids, prompt_mask, cache, logits = read_prompts(model, tokenizer, prompts)
    prompt_time, device = prompt_ids.shape[1], prompt_ids.device
    (rows, max_new_tokens), group_size = uniform.shape, len(uniform) // len(prompts)
    completion_ids = torch.full((rows, max_new_tokens), tokenizer.pad_token_id, device=device)
    logprobs = torch.zeros(rows, max_new_tokens, device=device)
    entropy = torch.zeros(rows, max_new_tokens, device=device)
    lengths = torch.full((rows,), max_new_tokens, device=device)
    uniform, stops = uniform.to(device), torch.tensor(stop_ids(model, tokenizer), device=device)

    cache.batch_repeat_interleave(group_size)
    logits = logits.repeat_interleave(group_size, dim=0)
    position = prompt_mask.sum(1, keepdim=True).repeat_interleave(group_size, dim=0)
    visible = torch.ones(rows, prompt_time + max_new_tokens, dtype=torch.long, device=device)
    visible[:, :prompt_time] = prompt_mask.repeat_interleave(group_size, dim=0)

    batch = torch.arange(rows, device=device)  # rows that the model reads
    ended = torch.zeros(rows, dtype=torch.bool, device=device)
    for t in range(max_new_tokens):
        tempered = truncated(logits.float() / (temperature or 1.0), top_k, top_p)
        token, token_logprob, step_entropy = _choose(tempered, temperature > 0, uniform[batch, t])
        completion_ids[batch, t] = token
        logprobs[batch, t] = token_logprob
        entropy[batch, t] = step_entropy
        ending = batch[torch.isin(token, stops) & ~ended[batch]]
        lengths[ending] = t + 1
        ended[ending] = True
        writing = (~ended[batch]).nonzero()[:, 0]
        if t + 1 == max_new_tokens or not len(writing):
            break
        if len(writing) <= CROWDED * len(batch):
            batch, token, position, visible = batch[writing], token[writing], position[writing], visible[writing]
            cache.batch_select_indices(writing)
        logits = model(
            input_ids=token[:, None],
            attention_mask=visible[:, : prompt_time + t + 1],
            position_ids=position + t,
            past_key_values=cache,
            use_cache=True,
        ).logits[:, -1]

    return completion_ids, logprobs, entropy, lengths


def read_prompts(model: Any, tokenizer: Any, prompts: Sequence[list[int]]) -> tuple[Tensor, Tensor, DynamicCache, Tensor]:
    """(ids, mask, cache, logits of the first token) of the prompts, padded on the left: (batch, time) twice, (batch, vocab)."""
    device = next(model.parameters()).device
    ids, mask = (tensor.to(device) for tensor in pad(prompts, tokenizer.pad_token_id, left=True))
    cache = make_cache(model)
    logits = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=(mask.cumsum(1) - 1).clamp(min=0),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    ).logits[:, -1]
    return ids, mask, cache, logits


def stop_ids(model: Any, tokenizer: Any) -> list[int]:
    """Every id that ends a completion: the tokenizer's end-of-text, and what the model's generation config adds."""
    configured = model.generation_config.eos_token_id
    ids = configured if isinstance(configured, list) else [configured]
    return sorted({tokenizer.eos_token_id, *(i for i in ids if i is not None)})


def greedy(model: Any, tokenizer: Any, prompts: Sequence[list[int]], max_new_tokens: int) -> list[list[int]]:
    """The most likely completion of each of any number of prompts, as token ids, in their order."""
    completions: dict[int, list[int]] = {}
    for rows in by_length([*map(len, prompts)], at_once(model, ROWS_AT_ONCE)):
        rollout = sample(model, tokenizer, [prompts[row] for row in rows], max_new_tokens=max_new_tokens, temperature=0.0)
        completions |= zip(rows, rollout.completions(), strict=True)
    return [completions[row] for row in range(len(prompts))]


def truncated(logits: Tensor, top_k: int | None, top_p: float | None) -> Tensor:
    """Logits (batch, vocabulary) with −inf outside the `top_k` likeliest tokens (Fan et al. 2018), and of those outside the
    nucleus: the fewest likeliest tokens that hold `top_p` of the probability (Holtzman et al. 2020). None: no cut.
    """
    if top_k is not None:
        smallest = logits.topk(min(top_k, logits.shape[-1])).values[:, -1:]
        logits = logits.masked_fill(logits < smallest, -torch.inf)
    if top_p is not None and top_p < 1:
        ordered, order = logits.sort(descending=True, stable=True)
        probs = ordered.softmax(-1)
        outside = running_sum(probs) - probs >= top_p  # the tokens before it hold enough; never so for the first
        logits = logits.masked_fill(torch.zeros_like(outside).scatter(1, order, outside), -torch.inf)
    return logits


def running_sum(values: Tensor) -> Tensor:
    """Σ of all entries up to each, along the last dimension: torch's cumsum on the CPU, where it is deterministic."""
    return values.cumsum(-1) if values.device.type == "cpu" else block_sums(values)


def block_sums(values: Tensor, size: int = 512) -> Tensor:
    """The same by products with triangular matrices, which are deterministic on a GPU."""
    blocks = F.pad(values, (0, -values.shape[-1] % size)).unflatten(-1, (-1, size))
    within = blocks @ values.new_ones(size, size).triu()
    before = within[..., -1] @ values.new_ones(blocks.shape[-2], blocks.shape[-2]).triu(1)
    return (within + before[..., None]).flatten(-2)[..., : values.shape[-1]]


def _choose(logits: Tensor, at_random: bool, uniform: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Token, its log-probability, entropy: each (batch,). Inverse-CDF sampling from the softmax, or its likeliest token."""
    logprobs = torch.log_softmax(logits, dim=-1)
    probs = logprobs.exp()
    if at_random:
        cumulative = running_sum(probs.double())
        token = torch.searchsorted(cumulative, uniform[:, None] * cumulative[:, -1:], right=True)[:, 0]
        token = token.clamp(max=logits.shape[-1] - 1)
    else:
        token = logits.argmax(-1)
    entropy = -(probs * logprobs).nan_to_num().sum(-1)
    return token, logprobs.gather(-1, token[:, None])[:, 0], entropy
