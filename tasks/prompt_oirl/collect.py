"""The prompt log: every query answered once under every prompt, and whether the answer was right.

This is the offline data of Prompt-OIRL (Sun et al. 2024, arXiv 2309.06553): the only stage of the method that asks the
model, and it asks about queries that will never come back. In its words a *prompt* is an instruction put around a *query*.
Killed at any moment, it goes on with the next batch: no call is paid for twice.

Writes data/prompt_log.parquet: query_id, prompt_id, query, prompt, completion, correct, split (train | test). Metrics:
calls, the number of completions; success.<prompt_id>, the share of right answers under each prompt on the training queries.
"""

from typing import Any

from pydantic import PositiveInt

from tasks.core.config import Config
from tasks.core.files import Row, read_json, read_table, write_table
from tasks.core.run import run
from tasks.core.stage import Stage
from tasks.models.batch import by_length
from tasks.models.chat import write_query
from tasks.models.generate import ROWS_AT_ONCE, greedy
from tasks.models.language import open_model
from tasks.models.text import TaskConfig, decode, encode_prompts
from tasks.rewards.verifier import is_correct


class CollectPromptLogConfig(Config):
    """params.yaml: collect_prompt_log"""

    namespace = "collect_prompt_log"

    num_queries: PositiveInt
    num_test_queries: PositiveInt


class Written:
    """Completions so far, by instruction and query; what a checkpoint holds."""

    def __init__(self) -> None:
        self.completions: dict[str, dict[int, str]] = {}

    def state_dict(self) -> dict[str, Any]:
        return {"completions": self.completions}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.completions = state["completions"]


def collect(config: CollectPromptLogConfig, stage: Stage) -> None:
    task = stage.params(TaskConfig)
    policy, tokenizer = open_model(stage, stage.dep("models/sft"))
    rows = read_table(stage.dep("data/prepared/prompts.parquet"))
    instructions = read_json(stage.dep("data/prepared/instructions.json"))["instructions"]
    queries = [row for row in rows if row["split"] == "train"][: config.num_queries]
    queries += [row for row in rows if row["split"] == "test"][: config.num_test_queries]
    if any(row["answer"] is None for row in queries):
        print(f"{stage.name}: the queries have no answers to check, so the log is empty and Prompt-OIRL has nothing to learn")
        queries, instructions = [], []

    prompts = {
        instruction["id"]: encode_prompts(
            tokenizer,
            [write_query(tokenizer, row["prompt"], row["query"], instruction["text"], task.prompt_format) for row in queries],
        )
        for instruction in instructions
    }
    batches = [(id, rows) for id, encoded in prompts.items() for rows in by_length([*map(len, encoded)], ROWS_AT_ONCE)]
    written = Written()
    stage.resume(written=written)
    for step in stage.steps(len(batches)):
        id, batch = batches[step]
        completions = greedy(policy, tokenizer, [prompts[id][row] for row in batch], task.max_new_tokens)
        texts = (decode(tokenizer, ids) for ids in completions)
        written.completions.setdefault(id, {}).update(zip(batch, texts, strict=True))

    log = [
        {
            "query_id": row["id"],
            "prompt_id": instruction["id"],
            "query": row["query"],
            "prompt": instruction["text"],
            "completion": (text := written.completions[instruction["id"]][index]),
            "correct": bool(is_correct(text, row["answer"], task.verifier)),
            "split": row["split"],
        }
        for instruction in instructions
        for index, row in enumerate(queries)
    ]
    stage.record(calls=len(log), **successes(log))
    write_table(stage.out("data/prompt_log.parquet"), log)
    stage.table("prompt_log", log[:: max(1, len(log) // 60)])


def successes(log: list[Row]) -> dict[str, float]:
    outcomes: dict[str, list[bool]] = {}
    for row in log:
        if row["split"] == "train":
            outcomes.setdefault(row["prompt_id"], []).append(row["correct"])
    return {f"success.{prompt_id}": sum(right) / len(right) for prompt_id, right in outcomes.items()}


if __name__ == "__main__":
    run(CollectPromptLogConfig, collect)
