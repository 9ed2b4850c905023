"""A slow obvious sampler: one row at a time, no padding, no cache, the whole sequence read anew for each token."""

from typing import Any

import torch


@torch.no_grad()
def sample_one(
    model: Any, prompt: list[int], stops: set[int], max_new_tokens: int, temperature: float, uniform: list[float]
) -> list[int]:
    """The completion that the uniform numbers, one per token, pick by inverse CDF; temperature 0 takes the likeliest."""
    written: list[int] = []
    while len(written) < max_new_tokens:
        logits = model(input_ids=torch.tensor([prompt + written])).logits[0, -1].double()
        token = int(logits.argmax()) if temperature == 0 else draw((logits / temperature).softmax(-1), uniform[len(written)])
        written.append(token)
        if token in stops:
            break
    return written


def draw(probabilities: torch.Tensor, uniform: float) -> int:
    """The first token up to which at least `uniform` of the probability lies."""
    total = 0.0
    for token, probability in enumerate(probabilities.tolist()):
        total += probability
        if uniform < total:
            return token
    return token


def beam_search_one(model: Any, prompt: list[int], stops: set[int], max_new_tokens: int, num_beams: int) -> list[int]:
    """Every continuation of every prefix, each prefix read anew; the best `num_beams` that have not ended go on."""
    prefixes: list[tuple[float, list[int]]] = [(0.0, [])]
    ended: list[tuple[float, list[int]]] = []
    for t in range(max_new_tokens):
        longer = []
        for score, tokens in prefixes:
            with torch.no_grad():
                logprobs = torch.log_softmax(model(torch.tensor([prompt + tokens])).logits[0, -1].float(), dim=-1)
            longer += [(score + logprob, [*tokens, token]) for token, logprob in enumerate(logprobs.tolist())]
        ended += [one for one in longer if one[1][-1] in stops or t + 1 == max_new_tokens]
        prefixes = sorted((one for one in longer if one[1][-1] not in stops), reverse=True)[:num_beams]
    return max(ended)[1]
