"""A prompt log with what was answered: for every query one completion under every prompt, to be asked again in any order.

Two completions give the same answer if their final numbers agree (tasks/rewards/verifier.py), or their texts where one has no
number. Of a pair that was asked more than once the first call counts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from tasks.core.errors import InputError
from tasks.core.files import Row
from tasks.prompt_oirl.answers import Array, Rows
from tasks.rewards.verifier import final_number

Count = Callable[[Sequence[str]], Sequence[int]]


@dataclass(frozen=True)
class Replies:
    """answers, right, tokens: (queries, prompts). Equal numbers in a row of `answers` are equal answers."""

    queries: list[str]
    prompts: list[str]  # ids
    answers: Rows
    right: Array
    tokens: Array  # read and written

    @classmethod
    def of(cls, rows: Sequence[Row], count: Count) -> Self:
        """Under the prompts that have completions; the queries answered under all of them. count: tokens of each text."""
        first: dict[tuple[str, str], Row] = {}
        for row in rows:
            if row["completion"] and row["correct"] is not None:
                first.setdefault((row["query"], row["prompt_id"]), row)
        prompts = list(dict.fromkeys(prompt for _, prompt in first))
        queries = [query for query in dict.fromkeys(q for q, _ in first) if all((query, prompt) in first for prompt in prompts)]
        if not queries:
            raise InputError(
                "the prompt log: no query has a completion under every prompt that has any, so no vote can be replayed; "
                "name the column of the model's answers as `completion`"
            )
        table = [[first[query, prompt] for prompt in prompts] for query in queries]
        flat = [row for line in table for row in line]
        read = np.add(count([row["query"] for row in flat]), count([row["prompt"] for row in flat]))
        tokens = np.asarray(read + np.asarray(count([row["completion"] for row in flat])), dtype=float)
        shape = len(queries), len(prompts)
        right = np.array([float(row["correct"]) for row in flat])
        return cls(queries, prompts, np.array([codes(line) for line in table]), right.reshape(shape), tokens.reshape(shape))

    def of_rows(self, rows: Rows) -> Self:
        queries = [self.queries[row] for row in rows]
        return type(self)(queries, self.prompts, self.answers[rows], self.right[rows], self.tokens[rows])


def codes(calls: Sequence[Row]) -> list[int]:
    """A number for each answer to one query, the same for equal answers."""
    known: dict[object, int] = {}
    return [known.setdefault(answer(call["completion"]), len(known)) for call in calls]


def answer(completion: str) -> float | str:
    number = final_number(completion)
    return " ".join(completion.lower().split()) if number is None else round(number, 6)
