"""The prompt log: every query answered once under every prompt, and whether the answer was right.

This is the offline data of Prompt-OIRL (Sun et al. 2024, arXiv 2309.06553): the only stage of the method that asks the
model, and it asks about queries that will never come back. In its words a *prompt* is an instruction put around a *query*.

Writes data/prompt_log.parquet: query_id, prompt_id, query, prompt, completion, correct, split (train | test). Metrics:
calls, the number of completions; success.<prompt_id>, the share of right answers under each prompt on the training queries.
"""

from pydantic import PositiveInt

from tasks.core import progress
from tasks.core.config import Config
from tasks.core.files import Row, read_json, read_table, write_table
from tasks.core.run import run
from tasks.core.stage import Stage
from tasks.feedback.verifier import is_correct
from tasks.models.generate import greedy
from tasks.models.language import load_policy
from tasks.models.text import TaskConfig, decode, encode_prompts, render


class CollectPromptLogConfig(Config):
    """params.yaml: collect_prompt_log"""

    namespace = "collect_prompt_log"

    num_queries: PositiveInt
    num_test_queries: PositiveInt


def collect(config: CollectPromptLogConfig, stage: Stage) -> None:
    task = stage.params(TaskConfig)
    policy, tokenizer = load_policy(stage.dep("models/sft"), stage.device)
    rows = read_table(stage.dep("data/prepared/prompts.parquet"))
    instructions = read_json(stage.dep("data/prepared/instructions.json"))["instructions"]
    queries = [row for row in rows if row["split"] == "train"][: config.num_queries]
    queries += [row for row in rows if row["split"] == "test"][: config.num_test_queries]
    if any(row["answer"] is None for row in queries):
        print(f"{stage.name}: the queries have no answers to check, so the log is empty and Prompt-OIRL has nothing to learn")
        queries, instructions = [], []

    log: list[Row] = []
    for instruction in progress.track(instructions, len(instructions), stage.name):
        prompts = [render(row["query"], instruction["text"], task.prompt_format) for row in queries]
        completions = greedy(policy, tokenizer, encode_prompts(tokenizer, prompts), task.max_new_tokens)
        log += [
            {
                "query_id": row["id"],
                "prompt_id": instruction["id"],
                "query": row["query"],
                "prompt": instruction["text"],
                "completion": (text := decode(tokenizer, ids)),
                "correct": bool(is_correct(text, row["answer"], task.verifier)),
                "split": row["split"],
            }
            for row, ids in zip(queries, completions, strict=True)
        ]
    stage.record(calls=len(log))
    for instruction in instructions:
        outcomes = [row["correct"] for row in log if row["prompt_id"] == instruction["id"] and row["split"] == "train"]
        stage.record(**{f"success.{instruction['id']}": sum(outcomes) / len(outcomes)})
    write_table(stage.out("data/prompt_log.parquet"), log)
    stage.table("prompt_log", log[:: max(1, len(log) // 60)])


if __name__ == "__main__":
    run(CollectPromptLogConfig, collect)
