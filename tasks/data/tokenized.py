"""What is left of the data after tokenizing, measured on the very ids that training sees."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tasks.core.files import Row
from tasks.models.text import MARK, TaskConfig, decode, encode_completions, encode_prompts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def measure(rows: Sequence[Row], columns: Sequence[str], tokenizer: "PreTrainedTokenizerBase", task: TaskConfig) -> list[Row]:
    """One row per row: {id, bos, prompt_room} and for each completion column {_room, _words, _ends}, null where it has no text.

    bos: how many the prompt holds; null for a tokenizer without one, and where a chat template wrote the prompt: it may put one
    before every turn. …_room: tokens left below the limit of `task`.
    …_text: whether text is left when the ids are decoded. …_ends: whether the last token that carries loss is end-of-text.
    """
    measured: list[Row] = [{"id": row["id"]} for row in rows]
    prompts = [row["prompt"] for row in rows]
    for row, prompt, ids in zip(measured, prompts, encode_prompts(tokenizer, prompts), strict=True):
        free = tokenizer.bos_token_id is None or prompt.startswith(MARK)
        row["bos"] = None if free else ids.count(tokenizer.bos_token_id)
        row["prompt_room"] = task.max_prompt_tokens - len(ids)
    for column in columns:
        texts = [row[column] for row in rows]
        for row, text, ids in zip(measured, texts, encode_completions(tokenizer, [text or "" for text in texts]), strict=True):
            learned = ids[: task.max_new_tokens]
            row[f"{column}_room"] = None if text is None else task.max_new_tokens - len(ids)
            row[f"{column}_text"] = None if text is None else bool(decode(tokenizer, learned).strip())
            row[f"{column}_ends"] = None if text is None else learned[-1] == tokenizer.eos_token_id
    return measured


def measure_pairs(rows: Sequence[Row], tokenizer: "PreTrainedTokenizerBase", task: TaskConfig) -> list[Row]:
    """As above for chosen and rejected, and whether their ids still differ within task.max_new_tokens."""
    measured = measure(rows, ("chosen", "rejected"), tokenizer, task)
    chosen, rejected = (encode_completions(tokenizer, [row[side] for row in rows]) for side in ("chosen", "rejected"))
    limit = task.max_new_tokens
    differ = [left[:limit] != right[:limit] for left, right in zip(chosen, rejected, strict=True)]
    return [row | {"differ": value} for row, value in zip(measured, differ, strict=True)]


def special_tokens(tokenizer: "PreTrainedTokenizerBase") -> list[Row]:
    """One row: the ids of the tokens that training relies on."""
    pad, eos = tokenizer.pad_token_id, tokenizer.eos_token_id
    return [{"pad": pad, "bos": tokenizer.bos_token_id, "eos": eos, "pad_is_eos": pad == eos}]


def examples(rows: Sequence[Row], column: str, tokenizer: "PreTrainedTokenizerBase", count: int = 20) -> list[Row]:
    """The first rows as a model sees them: control tokens written out, lengths in tokens."""
    rows = rows[:count]
    prompts = encode_prompts(tokenizer, [row["prompt"] for row in rows])
    completions = encode_completions(tokenizer, [row[column] for row in rows])
    return [
        {
            "id": row["id"],
            "prompt": tokenizer.decode(prompt),
            "completion": tokenizer.decode(completion),
            "prompt_tokens": len(prompt),
            "completion_tokens": len(completion),
        }
        for row, prompt, completion in zip(rows, prompts, completions, strict=True)
    ]
