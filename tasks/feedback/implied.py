"""Every kind of feedback as pairs, so that every method that learns from pairs runs with every kind.

Of two completions judged together, the one with the lower rank, the higher rating, or the thumb up instead of down is chosen.
Equal ones imply nothing, nor do completions of different questions: annotators use their scales differently.
"""

from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations

from tasks.core.errors import InputError
from tasks.core.files import Row

COLUMNS = ("id", "prompt", "completion", "kind", "value", "annotator", "split")  # of data/feedback.parquet


def implied_pairs(feedback: Sequence[Row]) -> list[Row]:
    """Rows of data/preferences.parquet. gap: the difference of `utility`, null where the rows have none."""
    by_question: defaultdict[str, list[Row]] = defaultdict(list)
    for row in feedback:
        by_question[row["id"]].append(row)
    pairs: list[Row] = []
    for question in by_question.values():
        for first, second in combinations(question, 2):
            if first["value"] == second["value"]:
                continue
            lower, higher = sorted((first, second), key=lambda row: row["value"])
            chosen, rejected = (lower, higher) if first["kind"] == "ranking" else (higher, lower)
            known = "utility" in chosen and "utility" in rejected
            pairs.append(
                {
                    "id": f"{first['id']}-{len(pairs)}",
                    "prompt": first["prompt"],
                    "chosen": chosen["completion"],
                    "rejected": rejected["completion"],
                    "split": first["split"],
                    "gap": round(chosen["utility"] - rejected["utility"], 6) if known else None,
                }
            )
    if not pairs:
        raise InputError(
            "the feedback implies no pair: no two completions of one question, judged by one annotator, differ in value; "
            "bring questions with several completions"
        )
    return pairs
