"""Beam search: a completion more likely as a whole than the greedy one, which takes the likeliest token at every step.

    argmax over y of  log π(y | x) = Σ_t log π(y_t | x, y_<t)        among what `num_beams` prefixes of each length lead to

Nothing is divided by the length: what is looked for is the likeliest completion, and that may be short.
"""

from collections.abc import Sequence
from typing import Any

import torch

from tasks.models.batch import by_length
from tasks.models.compute import at_once
from tasks.models.generate import ROWS_AT_ONCE, read_prompts, stop_ids


def beam_search(
    model: Any, tokenizer: Any, prompts: Sequence[list[int]], max_new_tokens: int, num_beams: int
) -> list[list[int]]:
    """One completion for each of any number of prompts, as token ids, in their order; end-of-text belongs to it."""
    if num_beams < 1:
        raise ValueError(f"num_beams ({num_beams}) must be at least 1")
    completions: dict[int, list[int]] = {}
    for rows in by_length([*map(len, prompts)], max(1, at_once(model, ROWS_AT_ONCE) // num_beams)):
        found = _search(model, tokenizer, [prompts[row] for row in rows], max_new_tokens, num_beams)
        completions |= zip(rows, found, strict=True)
    return [completions[row] for row in range(len(prompts))]


@torch.inference_mode()
def _search(model: Any, tokenizer: Any, prompts: Sequence[list[int]], max_new_tokens: int, num_beams: int) -> list[list[int]]:
    device = next(model.parameters()).device
    stops = stop_ids(model, tokenizer)
    _, prompt_mask, cache, logits = read_prompts(model, tokenizer, prompts)
    beams = torch.zeros(len(prompts), 1, 0, dtype=torch.long, device=device)  # one empty prefix each: (prompts, beams, time)
    scores = torch.zeros(len(prompts), 1, device=device)  # log π of each prefix
    best: list[tuple[float, list[int]]] = [(-torch.inf, [])] * len(prompts)  # of the completions that have ended
    alive = list(range(len(prompts)))  # prompts that a longer prefix may still serve better

    for t in range(max_new_tokens):
        logprobs = torch.log_softmax(logits.float(), dim=-1).view(*scores.shape, -1)
        total = scores[..., None] + logprobs  # (prompts, beams, vocabulary)
        last = t + 1 == max_new_tokens
        ending = total if last else total[..., stops]
        score, place = ending.flatten(1).max(1)
        for row, prompt in enumerate(alive):
            if score[row] > best[prompt][0]:
                beam, end = divmod(int(place[row]), ending.shape[-1])
                best[prompt] = (float(score[row]), [*beams[row, beam].tolist(), end if last else stops[end]])
        if last:
            break
        total[..., stops] = -torch.inf
        scores, place = total.flatten(1).topk(min(num_beams, total[0].numel() - len(stops) * beams.shape[1]), dim=1)
        parent, token = place // total.shape[-1], place % total.shape[-1]
        beams = torch.cat([beams.gather(1, parent[..., None].expand(-1, -1, t)), token[..., None]], dim=-1)

        # log π only falls: a prompt is done when no prefix is as likely as what has ended
        keep = [row for row, prompt in enumerate(alive) if float(scores[row, 0]) > best[prompt][0]]
        if not keep:
            break
        kept = torch.tensor(keep, device=device)
        cache.batch_select_indices((kept[:, None] * total.shape[1] + parent[kept]).flatten())
        alive, scores, beams, prompt_mask = [alive[row] for row in keep], scores[kept], beams[kept], prompt_mask[kept]
        visible = torch.cat([prompt_mask, prompt_mask.new_ones(len(keep), t + 1)], dim=1).repeat_interleave(beams.shape[1], 0)
        logits = model(
            input_ids=beams[..., -1].flatten()[:, None],
            attention_mask=visible,
            position_ids=visible.sum(1, keepdim=True) - 1,
            past_key_values=cache,
            use_cache=True,
        ).logits[:, -1]
    return [completion for _, completion in best]
