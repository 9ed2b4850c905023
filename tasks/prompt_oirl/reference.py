"""What a fitted choice keeps of its log: its queries, to tell one that is unlike them, and which prompt is best on average.

The distance of a query is that to the nearest query of the log, in the features that r̂ reads. The unit is the 99th percentile
of what it is for the queries of the log themselves, each left out once: above 1 a query is far, and r̂ is a guess.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tasks.prompt_oirl.answers import Answers, Array

KEPT = 2000  # queries of the log, at most
PERCENTILE = 99


@dataclass(frozen=True)
class Reference:
    queries: Array  # (kept queries, features)
    unit: float
    success: dict[str, float]  # prompt_id -> on the training queries

    @classmethod
    def of(cls, features: Array, answers: Answers, seed: int) -> "Reference":
        """features: (queries, features), of the queries of the table."""
        kept = np.random.default_rng(seed).permutation(len(features))[:KEPT]
        queries = features[np.sort(kept)].astype(np.float32)
        between = squares(queries, queries)
        np.fill_diagonal(between, np.inf)
        unit = float(np.percentile(np.sqrt(between.min(axis=1)), PERCENTILE))
        return cls(queries, unit, dict(zip(answers.prompts, answers.success.tolist(), strict=True)))

    def distances(self, features: Array) -> Array:
        """(queries,), in units."""
        return np.asarray(np.sqrt(squares(features, self.queries).min(axis=1)) / max(self.unit, 1e-9))

    def save(self, file: Path) -> None:
        prompts, success = np.array(list(self.success)), np.array(list(self.success.values()))
        np.savez(file, queries=self.queries.astype(np.float16), unit=np.array(self.unit), prompts=prompts, success=success)

    @classmethod
    def load(cls, file: Path) -> "Reference":
        with np.load(file, allow_pickle=False) as kept:
            success = dict(zip(kept["prompts"].tolist(), kept["success"].tolist(), strict=True))
            return cls(kept["queries"].astype(np.float32), float(kept["unit"]), success)


def squares(first: Array, second: Array) -> Array:
    """Squared Euclidean distances: (first, second)."""
    lengths = (first**2).sum(axis=1)[:, None] + (second**2).sum(axis=1)[None]
    return np.asarray(np.maximum(lengths - 2 * first @ second.T, 0))
