"""The published experiment (Sun et al. 2024, arXiv 2309.06553): the log's own split, and r̂ fitted on subsets of its prompts."""

import itertools
from collections import Counter, defaultdict
from collections.abc import Sequence
from operator import itemgetter

import numpy as np

from tasks.core.errors import InputError
from tasks.core.files import Row
from tasks.data.prompt_log import prompt_ids
from tasks.prompt_oirl.answers import Answers
from tasks.prompt_oirl.encoders import HiddenStates
from tasks.prompt_oirl.figures import figures
from tasks.prompt_oirl.selector import Fitting


class Published:
    """The log's own split, and r̂ fitted on some of its training prompts."""

    def __init__(self, rows: Sequence[Row], model: HiddenStates | None, learner: str, seed: int, ks: Sequence[int]):
        self.seed = seed
        self.trained, self.unseen = prompt_ids(rows)
        self.subsets = [subset for k in ks for subset in itertools.combinations(self.trained, k)]
        if not self.subsets:
            raise InputError(f"params.yaml: prompt_oirl_study.ks: the log has {len(self.trained)} training prompts only")
        train, test = (Answers.of([row for row in rows if row["split"] == split]) for split in ("train", "test"))
        self.train, self.test = train.under(self.trained), test.under([*self.trained, *self.unseen])
        self.fitting = Fitting(self.train, model, learner, seed)
        self.features = self.fitting.encoder.encode(self.test.queries)

    def of_subset(self, subset: tuple[str, ...]) -> Row:
        success = dict(zip(self.trained, self.train.success, strict=True))
        best = max(subset, key=lambda prompt_id: success[prompt_id])
        selector = self.fitting.under(subset)
        chances = selector.score(self.features, [self.test.prompts[prompt_id] for prompt_id in self.unseen])
        row: Row = {"k": len(subset), "prompts": "+".join(subset)}
        for name, candidates, columns in (
            ("seen", list(subset), slice(len(subset))),
            ("unseen", self.unseen, slice(len(subset), None)),
            ("all", [*subset, *self.unseen], slice(None)),
        ):
            if candidates:
                there = self.test.under(candidates)
                column = candidates.index(best) if best in candidates else int(there.success.argmax())  # else in hindsight
                found = figures(chances[:, columns], there, np.full(len(there), column), self.seed)
                row |= {f"{name}_{key}": found.get(key) for key in (*found, "precision", "auc")}
        return row

    def single(self) -> dict[str, float]:
        """Every prompt used throughout, on the test queries."""
        return dict(zip(self.test.prompts, self.test.success.tolist(), strict=True))


def curve(subsets: Sequence[Row]) -> list[Row]:
    """One row per K: means over its subsets, and standard deviations over them. A precision that no subset has is None."""
    rows = []
    for k in sorted({row["k"] for row in subsets}):
        of_k = [row for row in subsets if row["k"] == k]
        row: Row = {"k": k}
        for name, key in CURVE.items():
            values = [found[key] for found in of_k if found.get(key) is not None]
            row |= {
                name: float(np.mean(values)) if values else None,
                f"{name}_spread": float(np.std(values)) if values else None,
            }
        rows.append(row)
    return rows


CURVE = {  # of a row of subsets.parquet
    "seen": "seen_success",
    "unseen": "unseen_success",
    "all": "all_success",
    "best_prompt": "seen_best_prompt_success",
    "random": "seen_random_success",
    "hindsight": "seen_oracle_success",
    "seen_accuracy": "seen_accuracy",
    "seen_precision": "seen_precision",
    "unseen_accuracy": "unseen_accuracy",
    "unseen_precision": "unseen_precision",
}


def self_critique(rows: Sequence[Row], critics: Sequence[Row], prompt_ids: Sequence[str]) -> float | None:
    """Success when every test call gets the prompt whose answer the language model itself is surest of.

    critics: {row, prompt_id, confidence}, row: the number of the test call under its prompt. Calls that were not judged under
    every prompt are left out; None if that leaves none.
    """
    confidence = {(row["prompt_id"], row["row"]): row["confidence"] or 0.0 for row in critics}
    asked: Counter[str] = Counter()
    judged: dict[int, list[tuple[float, bool]]] = defaultdict(list)  # call -> (how sure, whether right) of each prompt
    for row in rows:
        if row["split"] == "test" and row["prompt_id"] in prompt_ids:
            call = row["prompt_id"], asked[row["prompt_id"]]
            asked[row["prompt_id"]] += 1
            if call in confidence and row["correct"] is not None:
                judged[call[1]].append((confidence[call], row["correct"]))
    right = [max(found, key=itemgetter(0))[1] for found in judged.values() if len(found) == len(prompt_ids)]
    return sum(right) / len(right) if right else None
