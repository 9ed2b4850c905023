"""What does not fit `task.max_prompt_tokens` and `task.max_new_tokens` is refused, or left out and counted; never cut."""

from typing import TYPE_CHECKING, Literal

from tasks.core.errors import InputError
from tasks.core.files import Row
from tasks.data.sources import Table
from tasks.models.text import TaskConfig, encode_completions, encode_prompts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TEXTS: dict[Table, tuple[str, ...]] = {
    "corpus": (),  # running text: the base model reads it in pieces
    "demonstrations": ("prompt", "completion"),
    "prompts": ("prompt", "solution", "mistake"),
    "preferences": ("prompt", "chosen", "rejected"),
    "feedback": ("prompt", "completion"),
}
OPTIONAL = ("solution", "mistake")  # a prompt is of use without them


def fit(
    table: Table, rows: list[Row], tokenizer: "PreTrainedTokenizerBase", task: TaskConfig, too_long: Literal["fail", "drop"]
) -> list[Row]:
    """The rows that fit. A prompt keeps its place when only its solution or mistake is too long: that becomes null.

    Raises InputError naming table, row and column if `too_long` is fail.
    """
    limits = {column: task.max_prompt_tokens if column == "prompt" else task.max_new_tokens for column in TEXTS[table]}
    dropped = set()
    for column, limit in limits.items():
        for index, length in enumerate(_lengths(rows, column, tokenizer)):
            if length <= limit:
                continue
            if too_long == "fail":
                key = "max_prompt_tokens" if column == "prompt" else "max_new_tokens"
                raise InputError(
                    f"{table}, row {index} ({rows[index]['id']}): `{column}` is {length} tokens, `task.{key}` is {limit}; "
                    "raise it, shorten the row, or set `prepare_data.too_long: drop`"
                )
            if column in OPTIONAL:
                rows[index][column] = None
            else:
                dropped.add(index)
    return [row for index, row in enumerate(rows) if index not in dropped]


def _lengths(rows: list[Row], column: str, tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """Tokens of each row with bos or eos; 0 where there is no text."""
    encode = encode_prompts if column == "prompt" else encode_completions
    ids = encode(tokenizer, [row[column] or "" for row in rows])
    return [len(tokens) if row[column] else 0 for row, tokens in zip(rows, ids, strict=True)]
