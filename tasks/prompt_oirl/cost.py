"""What a query costs by each way to find its prompt, in calls of the language model and in tokens, on the test queries.

best single prompt, Prompt-OIRL   one call: the prompt is known beforehand
every prompt                      one call under each prompt; which of the answers is right remains to be judged

Tokens are those of the encoder, and words and signs where there is none; a prompt's template counts nothing.
"""

from collections.abc import Callable, Sequence

import numpy as np

from tasks.core.files import Row
from tasks.prompt_oirl.answers import Answers, Array, Rows

WAYS = ("best single prompt", "Prompt-OIRL", "every prompt")


def cost_rows(
    calls: Sequence[Row], test: Answers, choice: Rows, best: int, count: Callable[[Sequence[str]], Sequence[int]]
) -> list[Row]:
    """One row per way {way, calls, tokens_read, tokens_written}, means per query; None without completions in the log.

    calls: rows of the log; choice: (queries,) column of the chosen prompt; count: tokens of each text.
    """
    read = np.add.outer(count(test.queries), count(list(test.prompts.values())))
    written = lengths(calls, test, count)
    only = np.eye(len(test.prompts))
    asked = (np.tile(only[best], (len(test), 1)), only[choice], np.ones_like(read, dtype=float))
    rows: list[Row] = []
    for way, under in zip(WAYS, asked, strict=True):
        answers = np.where(under > 0, written, 0).sum(axis=1).mean()
        row: Row = {
            "way": way,
            "calls": float(under.sum(axis=1).mean()),
            "tokens_read": float((under * read).sum(axis=1).mean()),
        }
        rows.append(row | {"tokens_written": None if np.isnan(answers) else float(answers)})
    return rows


def lengths(calls: Sequence[Row], test: Answers, count: Callable[[Sequence[str]], Sequence[int]]) -> Array:
    """Mean length of the completions of each pair, (queries, prompts); nan where none is recorded."""
    place, column = ({text: i for i, text in enumerate(names)} for names in (test.queries, test.prompts))
    told = [row for row in calls if row["completion"] and row["query"] in place and row["prompt_id"] in column]
    pairs = [place[row["query"]] for row in told], [column[row["prompt_id"]] for row in told]
    total, number = np.zeros((2, len(place), len(column)))
    np.add.at(total, pairs, count([row["completion"] for row in told]) if told else [])
    np.add.at(number, pairs, 1)
    return np.where(number > 0, total / np.maximum(number, 1), np.nan)
