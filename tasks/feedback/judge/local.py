"""A judge on this machine that answers requests: tasks/rewards/judge/verdicts.py, and rationales where they are asked for."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

from tasks.core import seeds
from tasks.feedback.judge.cache import Answer, Request
from tasks.models.generate import sample
from tasks.models.text import decode, encode_prompts
from tasks.rewards.judge.verdicts import ROWS_AT_ONCE, first_probabilities, in_turns, refuse_too_long


class LocalJudge:
    """Reads a block in batches."""

    whole_blocks = True  # the make-up of a batch shows in the last bits of a number

    def __init__(self, model: Any, tokenizer: Any, who: str, seed: int):
        """who: what pins the weights, for the kept answers."""
        self.model, self.tokenizer, self.who, self.seed = model, tokenizer, who, seed

    def answers(self, requests: Sequence[Request]) -> Iterator[tuple[Request, Answer]]:
        prompts = encode_prompts(self.tokenizer, [in_turns(self.tokenizer, request.text) for request in requests])
        refuse_too_long(
            self.model, max((len(ids) + each.max_tokens for ids, each in zip(prompts, requests, strict=True)), default=0)
        )
        for begin in range(0, len(requests), ROWS_AT_ONCE):
            rows = range(begin, min(begin + ROWS_AT_ONCE, len(requests)))
            piece, asked = [requests[row] for row in rows], [prompts[row] for row in rows]
            answered = self._verdicts(piece, asked) if piece[0].verdict else self._rationales(piece, asked)
            yield from zip(piece, answered, strict=True)

    def _verdicts(self, requests: Sequence[Request], prompts: list[list[int]]) -> list[Answer]:
        """At a temperature one of the two is drawn."""
        texts = [in_turns(self.tokenizer, request.text) for request in requests]
        probabilities = first_probabilities(self.model, self.tokenizer, texts)
        return [self._said(*each) for each in zip(requests, probabilities, prompts, strict=True)]

    def _said(self, request: Request, probability: float, prompt: list[int]) -> Answer:
        if request.temperature:
            chance = seeds.stream(self.seed, "verdict", request.repeat, request.text)
            probability = float(chance.random() < probability)
        return Answer("1" if probability > 0.5 else "2", probability, len(prompt), 1)

    def _rationales(self, requests: Sequence[Request], prompts: list[list[int]]) -> list[Answer]:
        texts = hashlib.sha256("".join(request.text for request in requests).encode()).hexdigest()
        rollout = sample(
            self.model,
            self.tokenizer,
            prompts,
            max_new_tokens=requests[0].max_tokens,
            temperature=requests[0].temperature,
            generator=seeds.generator(self.seed, "rationales", requests[0].repeat, texts),
        )
        written = rollout.completions()
        told = zip(prompts, written, strict=True)
        return [Answer(decode(self.tokenizer, ids).strip(), None, len(prompt), len(ids)) for prompt, ids in told]
