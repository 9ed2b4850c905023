"""The layout of text as tokens, in one place, so that training, sampling and scoring see the same sequence.

    <bos> prompt … completion … <eos>

A prompt is a query and an instruction in the format of `task.prompt_format`, or messages in the tokenizer's chat template
(tasks/models/chat.py); a completion is what the model writes. The two are encoded apart: the border between them is then the
same whether the completion is known or still to be sampled.
"""

import re
from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Literal

from pydantic import PositiveInt, field_validator

from tasks.core.config import Config
from tasks.core.files import Row

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


MARK = "\ufdd0"  # a code point that no text may hold: before a prompt of a chat template, and inside what only spells a token


class TaskConfig(Config):
    """params.yaml: task. What every stage that samples or scores must agree on."""

    namespace = "task"

    prompt_format: str
    max_prompt_tokens: PositiveInt
    max_new_tokens: PositiveInt
    verifier: Literal["number", "exact"]

    @field_validator("prompt_format")
    @classmethod
    def _names_the_query(cls, value: str) -> str:
        unknown = set(re.findall(r"{(\w*)}", value)) - {"query", "instruction"}
        if unknown:
            raise ValueError(f"{{{unknown.pop()}}} is not known; write {{query}} and {{instruction}}")
        if "{query}" not in value:
            raise ValueError("it must contain {query}")
        return value


def render(query: str, instruction: str, prompt_format: str) -> str:
    """The prompt. Braces inside the query or the instruction stay as they are."""
    parts = {"query": query, "instruction": instruction}
    return re.sub(r"{(query|instruction)}", lambda match: parts[match[1]], prompt_format)


def encode_prompts(tokenizer: "PreTrainedTokenizerBase", prompts: Sequence[str]) -> list[list[int]]:
    """Token ids with exactly one bos in front, if the tokenizer has one; a prompt of a chat template begins as that wrote it.

    Only a chat template writes control tokens into a prompt; anyone else's "</s>" is four harmless characters.
    """
    bos = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    plain = iter(_encode(tokenizer, [prompt for prompt in prompts if not prompt.startswith(MARK)], plain=True))
    return [
        _encode_templated(tokenizer, prompt[len(MARK) :]) if prompt.startswith(MARK) else bos + next(plain)
        for prompt in prompts
    ]


def encode_prompt(tokenizer: "PreTrainedTokenizerBase", prompt: str) -> list[int]:
    return encode_prompts(tokenizer, [prompt])[0]


def encode_completions(tokenizer: "PreTrainedTokenizerBase", completions: Sequence[str]) -> list[list[int]]:
    """Token ids without special tokens, then eos."""
    return [[*row, tokenizer.eos_token_id] for row in _encode(tokenizer, completions, plain=True)]


def encode_completions_with_ends(
    tokenizer: "PreTrainedTokenizerBase", completions: Sequence[str], ends: Sequence[Sequence[int]]
) -> tuple[list[list[int]], list[list[int]]]:
    """The ids of `encode_completions`, and for each place of a text (characters before it, > 0) the token that reaches it."""
    if not completions:
        return [], []
    options = {"add_special_tokens": False, "split_special_tokens": True, "return_attention_mask": False, "verbose": False}
    encoded = tokenizer(list(completions), return_offsets_mapping=True, **options)
    tokens = []
    for offsets, places in zip(encoded["offset_mapping"], ends, strict=True):
        reached = list(accumulate((end for _, end in offsets), max))
        tokens.append([bisect_left(reached, place) for place in places])
    return [[*row, tokenizer.eos_token_id] for row in encoded["input_ids"]], tokens


def encode_completion(tokenizer: "PreTrainedTokenizerBase", completion: str) -> list[int]:
    return encode_completions(tokenizer, [completion])[0]


def tell_apart(tokenizer: "PreTrainedTokenizerBase", pairs: Sequence[Row], limit: int) -> list[bool]:
    """Whether chosen and rejected differ in more than the space around them, also within their first `limit` tokens: a pair of
    which a model sees one text twice teaches nothing."""
    chosen, rejected = (encode_completions(tokenizer, [row[side] for row in pairs]) for side in ("chosen", "rejected"))
    ids = [x[:limit] != y[:limit] for x, y in zip(chosen, rejected, strict=True)]
    texts = [row["chosen"].strip() != row["rejected"].strip() for row in pairs]
    return [a and b for a, b in zip(ids, texts, strict=True)]


def decode(tokenizer: "PreTrainedTokenizerBase", ids: Sequence[int]) -> str:
    """The text of these tokens, special tokens left out and nothing tidied up."""
    return str(tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))


def _encode_templated(tokenizer: "PreTrainedTokenizerBase", text: str) -> list[int]:
    """Cut at every MARK, so that what it broke is no control token. A piece stands behind a control token while it is
    encoded, as a tokenizer may write the beginning of a text in another way than its middle."""
    first, *others = text.split(MARK)
    ids, *rest = _encode(tokenizer, [first, *(str(tokenizer.eos_token) + piece for piece in others)], plain=False)
    return [*ids, *(token for row in rest for token in row[1:])]


def _encode(tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str], plain: bool) -> list[list[int]]:
    if not texts:
        return []
    options = {"add_special_tokens": False, "split_special_tokens": plain, "return_attention_mask": False, "verbose": False}
    return [list(row) for row in tokenizer(list(texts), **options)["input_ids"]]
