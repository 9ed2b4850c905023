"""The prompts a policy is trained on, as token ids with what is needed to judge an answer."""

from dataclasses import dataclass
from typing import Any

from tasks.core.files import read_table
from tasks.core.stage import Stage
from tasks.models.text import encode_prompts


@dataclass(frozen=True)
class Prompt:
    id: str
    text: str
    ids: list[int]
    answer: str | None
    kind: str | None = None  # of the problem, where the data says so


def load_prompts(stage: Stage, tokenizer: Any, split: str) -> list[Prompt]:
    """split: train (for policies), validation (for choices), test (for evaluation only)."""
    rows = [row for row in read_table(stage.dep("data/prepared/prompts.parquet")) if row["split"] == split]
    encoded = encode_prompts(tokenizer, [row["prompt"] for row in rows])
    return [
        Prompt(row["id"], row["prompt"], ids, row["answer"], row.get("kind")) for row, ids in zip(rows, encoded, strict=True)
    ]
