"""A judge that is a language model on this machine: a folder, or a repository of the hub, with its own tokenizer.

One with a chat template is asked in it: the question is the turn of the user, and the judge answers in its own.
"""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from tasks.core import seeds
from tasks.core.errors import InputError
from tasks.feedback.judge.cache import Answer, Request
from tasks.feedback.judge.texts import behind
from tasks.models.architecture import context_length
from tasks.models.batch import collate
from tasks.models.chat import write_prompt
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
        prompts = encode_prompts(self.tokenizer, [in_turns(self.tokenizer, request.text) for request in requests])
        self._refuse_too_long(requests, prompts)
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

    def _refuse_too_long(self, requests: Sequence[Request], prompts: list[list[int]]) -> None:
        room = context_length(self.model)
        longest = max((len(ids) + request.max_tokens for ids, request in zip(prompts, requests, strict=True)), default=0)
        if longest > room:
            raise InputError(
                f"a question to the judge takes {longest} tokens, it reads {room} at most; "
                "shorten the file of collect_preferences.judge.templates, or take a judge that reads more"
            )


def in_turns(tokenizer: Any, question: str) -> str:
    """The question as the judge reads it."""
    return write_prompt(tokenizer, [{"role": "user", "content": question}]) if tokenizer.chat_template else question


@torch.inference_mode()
def first_probabilities(model: Any, tokenizer: Any, texts: Sequence[str]) -> list[float]:
    """P("1") against P("2") behind each text of a batch, by Σ log π of either: what both begin with, as a space, cancels."""
    completions = [verdict for side in "12" for verdict in encode_verdicts(tokenizer, texts, [side] * len(texts))]
    batch = collate(encode_prompts(tokenizer, texts) * 2, completions, tokenizer.pad_token_id, str(model.device))
    logprobs = (completion_logprobs(model, batch) * batch.completion_mask).sum(1).double().cpu()
    first, second = logprobs.chunk(2)
    return [float(probability) for probability in torch.sigmoid(first - second)]


def encode_verdicts(tokenizer: Any, texts: Sequence[str], verdicts: Sequence[str]) -> list[list[int]]:
    """The token ids of each verdict behind its text, without end-of-text: nobody asks what a judge says next."""
    written = [behind(text, verdict) for text, verdict in zip(texts, verdicts, strict=True)]
    return [ids[:-1] for ids in encode_completions(tokenizer, written)]
