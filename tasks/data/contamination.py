"""Finds held-out queries inside training text: the same words, or nearly.

How near is the share of the query's word 5-grams that occur in one training text; data/expectations says what is too much.
Numbers are words like any other, so a story with other numbers is another problem, while one that only lost a comma, gained a
"more" or sits inside a longer text is not. A query of fewer than 5 words is only compared as a whole. What stands in many
queries, such as a preamble or the description of a tool, tells nothing about any one of them: such 5-grams do not count.

At 0.75 the released sets give all 731 GSM8K test questions that gsm8k_solutions answers, 13 of 383 MAWPS test problems in
MAWPS train, and none of GSM8K or SVAMP test in their own train.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import TypeAlias

from tasks.data.splits import words

N = 5
FLOOR = 0.6  # smaller shares are not looked for, which is what makes the search fast
SHARED, SHARED_SHARE = 10, 0.1  # so many queries, and so large a share of them, have a 5-gram that all may share

Gram: TypeAlias = tuple[str, ...]


class HeldOut:
    """Queries that no training text may repeat."""

    def __init__(self, queries: Sequence[str], shared: Collection[Gram] = ()):
        """shared: n-grams that say nothing, as `shared_grams` finds them."""
        self._same: defaultdict[Gram, list[int]] = defaultdict(list)
        self._grams: list[set[Gram]] = []
        for row, query in enumerate(queries):
            tokens = words(query)
            self._same[tuple(tokens)].append(row)
            self._grams.append(_grams(tokens).difference(shared))
        self._rare = self._index_rare()

    def same(self, text: str) -> list[int]:
        """Rows of the queries that have exactly these words."""
        return self._same.get(tuple(words(text)), [])

    def near(self, text: str) -> list[tuple[int, float]]:
        """(row, share of its n-grams found in the text) of every query whose share reaches FLOOR."""
        grams = _grams(words(text))
        candidates = {row for gram in grams if gram in self._rare for row in self._rare[gram]}
        shares = ((row, len(self._grams[row] & grams) / len(self._grams[row])) for row in sorted(candidates))
        return [(row, share) for row, share in shares if share >= FLOOR]

    def has(self, text: str) -> bool:
        return bool(self.same(text) or self.near(text))

    def _index_rare(self) -> dict[Gram, list[int]]:
        """Each query under so many of its n-grams that a text without any of those cannot reach FLOOR.

        The rarest ones: a phrase that every query shares would make every query a candidate (prefix filtering, Chaudhuri 2006).
        """
        frequency = Counter(gram for grams in self._grams for gram in grams)
        index: defaultdict[Gram, list[int]] = defaultdict(list)
        for row, grams in enumerate(self._grams):
            spare = len(grams) - math.ceil(FLOOR * len(grams))
            for gram in sorted(grams, key=lambda gram: (frequency[gram], gram))[: spare + 1]:
                index[gram].append(row)
        return dict(index)


def shared_grams(queries: Iterable[str]) -> set[Gram]:
    """The n-grams that many different queries have."""
    grams = [_grams(list(query)) for query in {tuple(words(query)) for query in queries}]
    frequency = Counter(gram for each in grams for gram in each)
    return {gram for gram, count in frequency.items() if count >= max(SHARED, SHARED_SHARE * len(grams))}


def _grams(tokens: list[str]) -> set[Gram]:
    return set(zip(*(tokens[offset:] for offset in range(N)), strict=False))
