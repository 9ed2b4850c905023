"""Whether a model from outside computes as the pipeline needs it: the same with padding and without, sampled and trained on."""

from typing import Any

import torch
from torch import Tensor

from tasks.core.errors import InputError
from tasks.models.batch import Batch, collate
from tasks.models.generate import sample
from tasks.models.text import encode_completions, encode_prompts

TEXTS = [("12 and 7", "19"), ("One prompt is longer than", " all the others."), ("a", "b"), ("Yes?", "No, not yet.")]
NEW_TOKENS = 4
TOLERANCE = 1e-3  # nats; rounding in float32 stays a hundred times below


@torch.no_grad()
def check_architecture(model: Any, tokenizer: Any) -> None:
    """Refuse a model whose log-probabilities depend on the padding, or that samples from others than it is trained on."""
    prompts = encode_prompts(tokenizer, [prompt for prompt, _ in TEXTS])
    completions = encode_completions(tokenizer, [completion for _, completion in TEXTS])
    pad_id, device, kind = tokenizer.pad_token_id, str(model.device), model.config.model_type
    generator = torch.Generator().manual_seed(0)
    try:
        together = collate(prompts, completions, pad_id, device)
        padded = _logprobs(model, together)[together.completion_mask == 1]
        each = zip(prompts, completions, strict=True)
        alone = torch.cat([_logprobs(model, collate([x], [y], pad_id, device))[0] for x, y in each])
        rollout = sample(
            model, tokenizer, prompts, max_new_tokens=NEW_TOKENS, temperature=1.0, generator=generator, group_size=2
        )
        again = _logprobs(model, rollout) * rollout.completion_mask
    except Exception as error:  # whatever the library raises for a cache or an argument that the architecture does not have
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(
            f"a {kind} model cannot be sampled and trained here ({reason}); take one that keeps keys and values of all tokens"
        ) from None
    differences = {"when it is padded on the left": padded - alone, "while it samples": rollout.logprobs - again}
    for when, difference in differences.items():
        if not difference.abs().max() < TOLERANCE:
            raise InputError(f"a {kind} model gives a text other log-probabilities {when}; take another architecture")


def _logprobs(model: Any, batch: Batch) -> Tensor:
    """Of the completions' tokens: (batch, time)."""
    outputs = model(
        input_ids=batch.input_ids, attention_mask=batch.attention_mask, position_ids=batch.position_ids, use_cache=False
    )
    logprobs: Tensor = outputs.logits[:, -batch.time - 1 : -1].float().log_softmax(-1)
    return logprobs.gather(-1, batch.completion_ids[..., None])[..., 0]
