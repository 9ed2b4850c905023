"""Experiments on a whole prompt log, beside the one fit of tasks/prompt_oirl/fit.py. None is run unless
`prompt_oirl_study.experiments` names it: they ask for up to 63 fits, and the default pipeline needs none of them.

honest      The log's own split is ignored. Five folds by question, near-repeats of a question in one fold; each is scored by an
            r̂ fitted on the other four, and compared with the prompt that was best on those four. Unseen prompts: those without
            training calls in the log; there `best_prompt` is the best of them in hindsight.
published   Sun et al. 2024 (arXiv 2309.06553): the log's split, every subset of K training prompts for the K of `ks`, reward
            accuracy and precision on seen and unseen prompts, and the success of the choice among the training prompts, among
            the unseen ones, and among all. Where questions of the test part are also in train, this flatters: see the gate.
            All learners but `trees` score an unseen prompt as a weighted mean of the seen ones, so it never comes first, and
            the choice among all is that among the seen.

Metrics, those of tasks/prompt_oirl/figures.py: honest.seen.*, honest.unseen.*; and with K as the step the means over subsets
  curve/seen, curve/unseen, curve/all       success of the choice among these prompts; *_spread: standard deviation over subsets
  curve/best_prompt, curve/random, curve/oracle   of the subset: its best prompt on train, a random one, hindsight per query
  curve/<seen | unseen>_accuracy, _precision      of r̂ > 0.5 as a prediction of a right answer
  single.<prompt_id>, self_critique         one prompt throughout; the answer the language model itself is surest of

The report folder holds curve.parquet, subsets.parquet with one row per subset, and metrics.json. Killed, it goes on with the
next fold or subset. Nothing is tuned here: the recipe is fixed in tasks/prompt_oirl/learners.py.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, PositiveInt

from tasks.core import seeds
from tasks.core.config import Config
from tasks.core.errors import InputError
from tasks.core.files import Row, read_json
from tasks.core.run import run
from tasks.core.stage import Stage
from tasks.data.prompt_log import PromptLogConfig, read_critics, read_prompt_log, related
from tasks.prompt_oirl.answers import Answers, Array, folds
from tasks.prompt_oirl.encoders import HiddenStates, describe, refuse_too_long
from tasks.prompt_oirl.figures import figures
from tasks.prompt_oirl.selector import Fitting, fit

FOLDS = 5


class PromptOirlStudyConfig(Config):
    """params.yaml: prompt_oirl_study"""

    namespace = "prompt_oirl_study"

    experiments: list[Literal["honest", "published"]]
    encoder: str
    learner: Literal["kernel", "mlp", "mean", "trees"]
    ks: Annotated[list[PositiveInt], Field(min_length=1)]


class Done:
    """What each fold and each subset gave, so far: what a checkpoint holds."""

    def __init__(self) -> None:
        self.folds: list[Row] = []
        self.subsets: list[Row] = []

    def state_dict(self) -> dict[str, Any]:
        return {"folds": self.folds, "subsets": self.subsets}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.folds, self.subsets = state["folds"], state["subsets"]


def study(config: PromptOirlStudyConfig, stage: Stage) -> None:
    source = stage.params(PromptLogConfig)
    encoder = describe(stage.dep(config.encoder))
    log = stage.dep(source.source)
    contaminated = bool(read_json(stage.dep("reports/validate_prompt_log") / "verdict.json")["contaminated"])
    rows = read_prompt_log(source, log) if config.experiments else []
    stage.tracker.tag("contaminated", str(contaminated).lower())
    if not rows:
        stage.record()
        return stage.report("reports/prompt_oirl_study")
    model = HiddenStates(Path(encoder.source), encoder.layers) if encoder.source else None
    if model:
        query_ids = {row["query"]: row["query_id"] for row in rows}
        refuse_too_long(model, list(query_ids), query_ids)
    done = Done()
    stage.resume(done=done)

    by_fold = Honest(rows, model, config.learner, stage.seed) if "honest" in config.experiments else None
    by_subset = Published(rows, model, config.learner, stage.seed, config.ks) if "published" in config.experiments else None
    jobs = [*range(FOLDS if by_fold else 0), *(by_subset.subsets if by_subset else [])]
    for step in stage.steps(len(jobs)):
        match jobs[step]:
            case int(fold) if by_fold:
                done.folds.append(by_fold.of_fold(fold))
            case tuple(subset) if by_subset:
                done.subsets.append(by_subset.of_subset(subset))

    tables: dict[str, list[Row]] = {}
    found: dict[str, float] = {"contaminated": contaminated}
    if by_fold:
        found |= {f"honest.{name}": value for name, value in by_fold.figures(done.folds).items()}
    if by_subset:
        found |= {f"single.{name}": value for name, value in by_subset.single().items()}
        if critics := read_critics(log):
            found["self_critique"] = self_critique(rows, critics, by_subset.trained)
        tables = {"curve": curve(done.subsets), "subsets": done.subsets}
        for row in tables["curve"]:
            means = {f"curve/{name}": value for name, value in row.items() if name != "k" and value is not None}
            stage.tracker.metrics(means, row["k"])
        stage.table("subsets", done.subsets)
    stage.record(**found)
    stage.report("reports/prompt_oirl_study", tables)


class Honest:
    """Five folds over all questions that were asked under every training prompt."""

    def __init__(self, rows: Sequence[Row], model: HiddenStates | None, learner: str, seed: int):
        self.model, self.learner, self.seed = model, learner, seed
        trained, self.unseen = prompt_ids(rows)
        table = Answers.of(rows)
        self.answers = table.under(trained)
        self.fold = folds(related(self.answers.queries), FOLDS, seed)
        self.others = {prompt_id: table.prompts[prompt_id] for prompt_id in self.unseen}
        asked = [row for row in rows if row["prompt_id"] in self.others]
        self.there = Answers.of(asked).under(self.unseen) if asked else None

    def of_fold(self, number: int) -> Row:
        """Chances of its questions, by an r̂ that saw neither them nor their near-repeats: own prompts and then others."""
        training = self.answers.of_rows(np.flatnonzero(self.fold != number))
        selector = fit(training, self.model, self.learner, seeds.derive(self.seed, "fit", number))
        queries = [self.answers.queries[row] for row in np.flatnonzero(self.fold == number)]
        chances = selector.score(selector.encoder.encode(queries), list(self.others.values()))
        return {"chances": chances.tolist(), "best": int(training.success.argmax())}

    def figures(self, by_fold: Sequence[Row]) -> dict[str, float]:
        chances = np.zeros((len(self.answers), len(self.answers.prompts) + len(self.others)))
        best = np.zeros(len(self.answers), dtype=int)
        for number, found in enumerate(by_fold):
            chances[self.fold == number], best[self.fold == number] = found["chances"], found["best"]
        own = len(self.answers.prompts)
        seen = figures(chances[:, :own], self.answers, best, self.seed)
        result = {"questions": float(len(self.answers))} | {f"seen.{name}": value for name, value in seen.items()}
        if self.there:
            place = {query: row for row, query in enumerate(self.answers.queries)}
            kept = [row for row, query in enumerate(self.there.queries) if query in place]
            there = self.there.of_rows(np.array(kept))
            hindsight = np.full(len(there), there.success.argmax())
            unseen = figures(chances[[place[query] for query in there.queries], own:], there, hindsight, self.seed)
            result |= {f"unseen.{name}": value for name, value in unseen.items()}
        return result


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
    "oracle": "seen_oracle_success",
    "seen_accuracy": "seen_accuracy",
    "seen_precision": "seen_precision",
    "unseen_accuracy": "unseen_accuracy",
    "unseen_precision": "unseen_precision",
}


def self_critique(rows: Sequence[Row], critics: Sequence[Row], prompt_ids: Sequence[str]) -> float:
    """Success when every test call gets the prompt whose answer the language model itself is surest of.

    critics: {row, prompt_id, confidence}, row: the number of the test call under its prompt.
    """
    confidence = {(row["prompt_id"], row["row"]): row["confidence"] for row in critics}
    correct: dict[str, list[float]] = {prompt_id: [] for prompt_id in prompt_ids}
    for row in rows:
        if row["split"] == "test" and row["prompt_id"] in correct:
            correct[row["prompt_id"]].append(float(row["correct"]))
    right: Array = np.array([correct[prompt_id] for prompt_id in prompt_ids])
    says = np.array([[confidence.get((id, call)) or 0.0 for call in range(right.shape[1])] for id in prompt_ids])
    return float(right[says.argmax(axis=0), np.arange(right.shape[1])].mean())


def prompt_ids(rows: Sequence[Row]) -> tuple[list[str], list[str]]:
    """(with training calls, without), in the order of the log."""
    every = list(dict.fromkeys(row["prompt_id"] for row in rows))
    trained = {row["prompt_id"] for row in rows if row["split"] == "train"}
    return [id for id in every if id in trained], [id for id in every if id not in trained]


if __name__ == "__main__":
    run(PromptOirlStudyConfig, study)
