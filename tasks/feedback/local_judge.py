"""A judge that is a language model on this machine: a folder, or a repository of the hub, with its own tokenizer."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from tasks.core import seeds
from tasks.core.errors import InputError
from tasks.feedback.answers import Answer, Request
from tasks.models.batch import collate
from tasks.models.generate import sample
from tasks.models.text import decode, encode_completions, encode_prompts
from tasks.rl.logprobs import completion_logprobs

ROWS_AT_ONCE = 32


class LocalJudge:
    """The probabilities are those of the next tokens, whether or not "1" and "2" are one token each."""

    whole_blocks = True  # a block is read in batches, whose make-up shows in the last bits of a number

    def __init__(self, model: Any, tokenizer: Any, who: str, seed: int):
        """who: what pins the weights, for the kept answers."""
        self.model, self.tokenizer, self.who, self.seed = model, tokenizer, who, seed

    def answers(self, requests: Sequence[Request]) -> Iterator[tuple[Request, Answer]]:
        prompts = encode_prompts(self.tokenizer, [request.text for request in requests])
        self._refuse_too_long(requests, prompts)
        for begin in range(0, len(requests), ROWS_AT_ONCE):
            rows = range(begin, min(begin + ROWS_AT_ONCE, len(requests)))
            piece, asked = [requests[row] for row in rows], [prompts[row] for row in rows]
            answered = self._verdicts(piece, asked) if piece[0].verdict else self._rationales(piece, asked)
            yield from zip(piece, answered, strict=True)

    @torch.inference_mode()
    def _verdicts(self, requests: Sequence[Request], prompts: list[list[int]]) -> list[Answer]:
        """Σ log π of " 1" and of " 2" after each text; what both begin with cancels. At a temperature one of them is drawn."""
        space = ["" if request.text[-1:].isspace() else " " for request in requests]
        sides = [encode_completions(self.tokenizer, [f"{each}{verdict}" for each in space]) for verdict in "12"]
        completions = [ids[:-1] for side in sides for ids in side]  # without end-of-text
        batch = collate(prompts * 2, completions, self.tokenizer.pad_token_id, str(self.model.device))
        logprobs = (completion_logprobs(self.model, batch) * batch.completion_mask).sum(1).double().cpu()
        first, second = logprobs.chunk(2)
        probabilities = torch.sigmoid(first - second).tolist()
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

    def _refuse_too_long(self, requests: Sequence[Request], prompts: list[list[int]]) -> None:
        room = getattr(self.model.config, "max_position_embeddings", None)
        longest = max((len(ids) + request.max_tokens for ids, request in zip(prompts, requests, strict=True)), default=0)
        if room and longest > room:
            raise InputError(
                f"a question to the judge takes {longest} tokens, it reads {room} at most; "
                "shorten the file of collect_preferences.judge.templates, or take a judge that reads more"
            )
