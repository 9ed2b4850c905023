"""Experiments on a whole prompt log, beside the one fit of tasks/prompt_oirl/fit.py. None is run unless
`prompt_oirl_study.experiments` names it: they ask for up to 63 fits, and the default pipeline needs none of them.

honest      Five folds by question, near-repeats of a question in one fold (tasks/prompt_oirl/five_folds.py).
by_question The same by question text alone. Near-repeats then cross folds, the same story with a name or a comma changed:
            what is above `honest` is what an r̂ gets for having seen it.
published   Sun et al. 2024 (arXiv 2309.06553): the log's split, every subset of K training prompts for the K of `ks`, reward
            accuracy and precision on seen and unseen prompts, and the success of the choice among the training prompts, among
            the unseen ones, and among all. Where questions of the test part are also in train, this flatters: see the gate.
            All learners but `trees` score an unseen prompt as a weighted mean of the seen ones, so it never comes first, and
            the choice among all is that among the seen. `prompt_log.split: question` is refused.
budget      More than one call for a query: success against calls and tokens, by five folds as in `honest`, of a log with
            completions (tasks/prompt_oirl/frontier.py).
routing     What quality r̂ buys for a cost (tasks/prompt_oirl/routing.py), by the folds of `honest`, of a log with costs. The
            figures of `honest` come with it.

Metrics, those of tasks/prompt_oirl/figures.py: honest.seen.*, honest.unseen.*, by_question.*, of seen prompts also the
calibration errors ece and choice_ece, and where calls repeat those of tasks/prompt_oirl/noise.py; with K as the step the means
over subsets
  curve/seen, curve/unseen, curve/all       success of the choice among these prompts; *_spread: standard deviation over subsets
  curve/best_prompt, curve/random, curve/hindsight   of the subset: its best prompt on train, a random one, the best of
                                            single calls; oracle_success of the folds is by rates over all calls
  curve/<seen | unseen>_accuracy, _precision      of r̂ > 0.5 as a prediction of a right answer
  contaminated                              of `published` alone, which uses the log's split; the folds ask no
                                            `validate_data.allow_contamination`
  single.<prompt_id>, self_critique         one prompt throughout; the answer the language model itself is surest of

  routing.area, .apgr, .cpt50, .cpt80       with _low and _high, of the curves in routing.parquet and routing_pgr.parquet
  budget/success, budget/gain, budget/against_fixed   of the policy, with the mean calls of a hundred queries as the step

The report folder holds curve.parquet, subsets.parquet with one row per subset, frontier.parquet, frontier_queries.parquet with
one row per query, way and budget, and metrics.json. Killed, it goes on with the next fold or subset. Nothing is tuned here: the
recipe is fixed in tasks/prompt_oirl/learners.py.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, PositiveInt

from tasks.core.config import Config
from tasks.core.errors import InputError
from tasks.core.files import Row
from tasks.core.run import run
from tasks.core.stage import Stage
from tasks.data.prompt_log import PromptLogConfig, read_critics, read_prompt_log, related, split_leaks
from tasks.prompt_oirl.encoders import HiddenStates, describe, lengths, refuse_too_long
from tasks.prompt_oirl.five_folds import FOLDS, FiveFolds
from tasks.prompt_oirl.frontier import Frontier, frontier_rows
from tasks.prompt_oirl.published import Published, curve, self_critique
from tasks.prompt_oirl.routing import costs_of, ends, pgr, routed, routing_figures
from tasks.prompt_oirl.routing import curve as curve_of_costs

KEYS: dict[str, Callable[[Sequence[str]], Sequence[str]]] = {"honest": related, "by_question": list}


class PromptOirlStudyConfig(Config):
    """params.yaml: prompt_oirl_study"""

    namespace = "prompt_oirl_study"

    experiments: list[Literal["honest", "by_question", "published", "budget", "routing"]]
    encoder: str
    learner: Literal["kernel", "mlp", "mean", "trees"]
    ks: Annotated[list[PositiveInt], Field(min_length=1)]


class Done:
    """What each fold and each subset gave, so far: what a checkpoint holds."""

    def __init__(self) -> None:
        self.folds: dict[str, list[Row]] = {name: [] for name in KEYS}
        self.subsets: list[Row] = []
        self.frontier: list[Row] = []

    def state_dict(self) -> dict[str, Any]:
        return {"folds": self.folds, "subsets": self.subsets, "frontier": self.frontier}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.folds, self.subsets, self.frontier = state["folds"], state["subsets"], state["frontier"]


def study(config: PromptOirlStudyConfig, stage: Stage) -> None:
    source = stage.params(PromptLogConfig)
    encoder = describe(stage.dep(config.encoder))
    log = stage.dep(source.source)
    gate = stage.dep("reports/validate_prompt_log")
    if "published" in config.experiments and source.split != "given":
        raise InputError(
            "params.yaml: prompt_oirl_study.experiments: `published` is the split of the log itself, and prompt_log.split is "
            f"{source.split}; set it to given, or take `honest` instead of `published`"
        )
    contaminated = "published" in config.experiments and split_leaks(gate)
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

    by_fold: dict[str, FiveFolds] = {
        name: FiveFolds(rows, model, config.learner, stage.seed, keys)
        for name, keys in KEYS.items()
        if name in config.experiments or (name == "honest" and "routing" in config.experiments)
    }
    costs = costs_of(rows, by_fold["honest"].answers) if "routing" in config.experiments else None
    by_subset = Published(rows, model, config.learner, stage.seed, config.ks) if "published" in config.experiments else None
    frontier = None
    if "budget" in config.experiments:
        frontier = Frontier(rows, model, config.learner, stage.seed, lambda texts: lengths(model, texts))
    jobs: list[tuple[str, int] | tuple[str, ...]] = [(name, fold) for name in by_fold for fold in range(FOLDS)]
    jobs += by_subset.subsets if by_subset else []
    jobs += [("budget", fold) for fold in range(FOLDS)] if frontier else []
    for step in stage.steps(len(jobs)):
        match jobs[step]:
            case ("budget", int(fold)) if frontier:
                done.frontier += frontier.of_fold(fold)
            case (name, int(fold)):
                done.folds[name].append(by_fold[name].of_fold(fold))
            case subset if by_subset:
                done.subsets.append(by_subset.of_subset(subset))

    tables: dict[str, list[Row]] = {}
    found: dict[str, float] = {"contaminated": contaminated}
    for name, experiment in by_fold.items():
        found |= {f"{name}.{key}": value for key, value in experiment.figures(done.folds[name]).items()}
    if costs is not None:
        chances, rates = by_fold["honest"].chances(done.folds["honest"]), by_fold["honest"].answers.rates
        found |= {f"routing.{key}": value for key, value in routing_figures(chances, rates, costs, stage.seed).items()}
        points = curve_of_costs(*routed(chances, rates, costs))
        tables["routing"] = [{"cost": cost, "quality": quality} for cost, quality in points.tolist()]
        recovered = pgr(chances, rates, *ends(costs, rates))
        shares = np.linspace(0, 1, len(recovered)).tolist()
        tables["routing_pgr"] = [{"strong": share, "pgr": gap} for share, gap in zip(shares, recovered.tolist(), strict=True)]
    if by_subset:
        found |= {f"single.{name}": value for name, value in by_subset.single().items()}
        if (success := self_critique(rows, read_critics(log), by_subset.trained)) is not None:
            found["self_critique"] = success
        tables |= {"curve": curve(done.subsets), "subsets": done.subsets}
        for row in tables["curve"]:
            means = {f"curve/{name}": value for name, value in row.items() if name != "k" and value is not None}
            stage.tracker.metrics(means, row["k"])
        stage.table("subsets", done.subsets)
    if frontier:
        tables |= {"frontier": frontier_rows(done.frontier, stage.seed), "frontier_queries": done.frontier}
        for row in tables["frontier"]:
            if (row["way"], row["unit"]) == ("policy", "calls"):
                means = {f"budget/{name}": row[name] for name in ("success", "gain", "against_fixed")}
                stage.tracker.metrics(means, round(100 * row["cost"]))
    stage.record(**found)
    stage.report("reports/prompt_oirl_study", tables)


if __name__ == "__main__":
    run(PromptOirlStudyConfig, study)
