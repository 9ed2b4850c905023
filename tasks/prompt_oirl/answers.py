"""A prompt log as a table: how often each query was asked under each prompt, and how often the answer was right.

A query is a question text: two rows of the log with the same text are the same query whatever their id, so a table split by its
rows has no text on both sides.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from tasks.core import seeds
from tasks.core.errors import InputError
from tasks.core.files import Row

Array = NDArray[np.floating[Any]]
Rows = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Answers:
    """right and calls: (queries, prompts), numbers of calls."""

    queries: list[str]
    prompts: dict[str, str]  # prompt_id -> text
    right: Array
    calls: Array

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Self:
        """Of the calls of a log; one whose answer was not judged does not count."""
        queries = list(dict.fromkeys(row["query"] for row in rows))
        prompts = {row["prompt_id"]: row["prompt"] for row in rows}
        place, column = ({text: i for i, text in enumerate(names)} for names in (queries, prompts))
        right, calls = np.zeros((2, len(queries), len(prompts)))
        for row in rows:
            if row["correct"] is not None:
                right[place[row["query"]], column[row["prompt_id"]]] += row["correct"]
                calls[place[row["query"]], column[row["prompt_id"]]] += 1
        return cls(queries, prompts, right, calls)

    def under(self, prompt_ids: Sequence[str]) -> Self:
        """Some of the prompts, and the queries that were asked under all of them."""
        columns = [list(self.prompts).index(prompt_id) for prompt_id in prompt_ids]
        whole = np.flatnonzero((self.calls[:, columns] > 0).all(axis=1))
        if not len(whole):
            raise InputError(f"the prompt log: no query was asked under all of {', '.join(prompt_ids)}; complete the log")
        prompts = {prompt_id: self.prompts[prompt_id] for prompt_id in prompt_ids}
        queries = [self.queries[row] for row in whole]
        return type(self)(queries, prompts, self.right[whole][:, columns], self.calls[whole][:, columns])

    def of_rows(self, rows: Rows) -> Self:
        return type(self)([self.queries[row] for row in rows], self.prompts, self.right[rows], self.calls[rows])

    @property
    def rates(self) -> Array:
        """Share of right answers, (queries, prompts)."""
        return self.right / self.calls

    @property
    def passes(self) -> Array:
        """Calls per prompt, (queries,): how much a query counts."""
        return np.asarray(self.calls.mean(axis=1))

    @property
    def success(self) -> Array:
        """Share of right answers under each prompt, over all calls: (prompts,)."""
        return self.right.sum(axis=0) / self.calls.sum(axis=0)

    def __len__(self) -> int:
        return len(self.queries)


def folds(keys: Sequence[str], number: int, seed: int) -> Rows:
    """A fold for each query: (queries,). Those of one key share it; keys go by the order of their hash to the smallest fold.

    keys: the texts themselves, or what near-repeats have in common (tasks/data/prompt_log.py, related).
    """
    members: dict[str, list[int]] = {}
    for index, key in enumerate(keys):
        members.setdefault(key, []).append(index)
    fold, sizes = np.empty(len(keys), dtype=int), [0] * number
    for key in sorted(members, key=lambda key: seeds.derive(seed, "fold", key)):
        smallest = sizes.index(min(sizes))
        fold[members[key]] = smallest
        sizes[smallest] += len(members[key])
    return fold
