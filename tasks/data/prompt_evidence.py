"""What expectations can judge of a prompt log, and what is told of it without being judged.

These functions only measure. What is too much is written in data/expectations/prompt_log.yaml.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence

from tasks.core.files import Row
from tasks.data.evidence import Tables, overlap
from tasks.data.prompt_log import prompt_ids


def measure_prompt_log(log: Sequence[Row]) -> Tables:
    """The measured tables by name."""
    return {"questions": questions(log), "overlap_prompt_log": overlap_prompt_log(log)}


def questions(log: Sequence[Row]) -> list[Row]:
    """One row per query of each split {row, id, missing, missing_where}; row: its first in the log.

    missing: a prompt under which it was never asked, null if there is none; training queries need no unseen prompts.
    """
    trained, unseen = prompt_ids(log)
    asked: dict[tuple[str, str], set[str]] = defaultdict(set)
    first: dict[tuple[str, str], int] = {}
    for index, row in enumerate(log):
        key = row["split"], row["query_id"]
        first.setdefault(key, index)
        asked[key].add(row["prompt_id"])
    found = []
    for key, index in first.items():
        prompts = trained if key[0] == "train" else [*trained, *unseen]
        missing = next((prompt for prompt in prompts if prompt not in asked[key]), None)
        where = f"query {key[1]} has no answer under prompt {missing}"
        found.append({"row": index, "id": key[1], "missing": missing, "missing_where": where})
    return found


def overlap_prompt_log(log: Sequence[Row]) -> list[Row]:
    """Held-out queries found among the training queries, as in `overlap`; one row per query, not per call."""
    seen: set[tuple[str, str]] = set()
    held_out, trained = [], []
    for row in log:
        first, test = (row["split"], row["query"]) not in seen, row["split"] != "train"
        seen.add((row["split"], row["query"]))
        held_out.append({"id": row["query_id"], "query": row["query"], "split": row["split"] if first else "train"})
        trained.append(row["query"] if first and not test else "")  # "" resembles nothing
    return overlap(held_out, "prompt_log", trained)


def repeats(log: Sequence[Row]) -> dict[str, float]:
    """How much of the log is the same call again, and how often that was answered differently.

    repeated_pairs, disagreeing_pairs: (query, prompt) asked more than once, and of those the ones right one time and wrong
    another. noise: chance that a call is answered unlike another call of the same pair; no prediction can know which.
    """
    labels: dict[tuple[str, str], Counter[float]] = defaultdict(Counter)
    for row in log:
        if row["correct"] is not None:
            labels[row["query"], row["prompt_id"]][row["correct"]] += 1
    repeated = [found for found in labels.values() if found.total() > 1]
    figures: dict[str, float] = {
        "calls": len(log),
        "queries": len({row["query"] for row in log}),
        "prompts": len({row["prompt_id"] for row in log}),
        "repeated_pairs": len(repeated),
        "disagreeing_pairs": sum(len(found) > 1 for found in repeated),
    }
    if repeated:
        differ = [1 - sum(n * (n - 1) for n in found.values()) / (found.total() * (found.total() - 1)) for found in repeated]
        figures["noise"] = sum(differ) / len(differ)
    return figures
