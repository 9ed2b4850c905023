"""Completions to imitate, as token ids: the demonstrations that SFT cloned, or the right solutions of the prompts."""

from dataclasses import dataclass
from typing import Any

from tasks.core.errors import InputError
from tasks.core.files import read_json, read_table
from tasks.core.stage import Stage
from tasks.models.text import encode_completions, encode_prompts
from tasks.training.prompts import load_prompts


@dataclass(frozen=True)
class Demonstration:
    prompt: list[int]
    completion: list[int]  # end-of-text included


def load_demonstrations(stage: Stage, tokenizer: Any, expert: str) -> list[Demonstration]:
    """Of whom the policy is to imitate.

    demonstrations  those of SFT that answer the default instruction, with which the policies' prompts are written: answers to
                    another one say nothing of how to answer this
    solver          the training prompts, each with its `solution`
    """
    if expert == "solver":
        solutions = load_solutions(stage, tokenizer)
        known = [prompt for prompt in load_prompts(stage, tokenizer, "train") if prompt.id in solutions]
        if not known:
            raise InputError(
                f"`{stage.config.namespace}.expert` is solver, but no training prompt has a `solution`; "
                "set it to demonstrations, or bring prompts with solutions"
            )
        return [Demonstration(prompt.ids, solutions[prompt.id]) for prompt in known]
    default = read_json(stage.dep("data/prepared/instructions.json"))["default"]
    table = stage.dep("data/prepared/demonstrations.parquet")
    rows = [row for row in read_table(table) if row["instruction_id"] == default]
    if not rows:
        raise InputError(
            f"{table}: no demonstration answers the default instruction (`{default}`), with which the prompts are written; "
            f"bring some, or set `{stage.config.namespace}.expert` to solver"
        )
    prompts = encode_prompts(tokenizer, [row["prompt"] for row in rows])
    completions = encode_completions(tokenizer, [row["completion"] for row in rows])
    return [Demonstration(*pair) for pair in zip(prompts, completions, strict=True)]


def load_solutions(stage: Stage, tokenizer: Any) -> dict[str, list[int]]:
    """Prompt id -> its right solution as token ids, end-of-text included; prompts without one are left out."""
    rows = [row for row in read_table(stage.dep("data/prepared/prompts.parquet")) if row["solution"] is not None]
    encoded = encode_completions(tokenizer, [row["solution"] for row in rows])
    return {row["id"]: ids for row, ids in zip(rows, encoded, strict=True)}
