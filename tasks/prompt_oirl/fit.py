"""Prompt-OIRL: learn from an offline log which prompt suits a query, then choose without asking the model.

    r̂(query, prompt) ≈ chance of a right answer,   choice(query) = argmax over prompts of r̂(query, prompt)

Sun et al. 2024 (arXiv 2309.06553). `prompt_oirl.learner` says how r̂ is fitted: `finetune` trains the encoder along
(tasks/prompt_oirl/finetune.py); the others learn on fixed features of a frozen encoder or of words alone
(tasks/prompt_oirl/learners.py). The log is `prompt_log.source`: collected from our own model, or imported.

Figures on the test queries, which the fit has never seen: those of tasks/prompt_oirl/figures.py, and
  ece             expected calibration error over all test pairs (Guo et al. 2017): how far chances are from the rates they
                  announce, in ten bins of equal width; choice_ece: of the chosen prompts alone
  contaminated    1 if the gate found test queries among the training queries: then every figure here is flattered

The fitted model is registered in MLflow as `prompt_oirl`, to be asked over HTTP (tasks/prompt_oirl/served.py). Alias newest:
the last fit; champion: the last one whose gain is above 0 with 95 % confidence and whose log is not contaminated. Its prompts
are in MLflow's prompt registry as `prompt_oirl.<prompt_id>`, a version for each text.
"""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import PositiveFloat, PositiveInt

from tasks.core import seeds
from tasks.core.config import Config
from tasks.core.errors import InputError
from tasks.core.files import Row, write_json
from tasks.core.prompt_registry import register_prompts
from tasks.core.run import run
from tasks.core.serving import save_served
from tasks.core.stage import Stage
from tasks.data.prompt_log import PromptLogConfig, read_prompt_log, split_leaks
from tasks.models.compute import ComputeConfig
from tasks.models.optimizer import OptimizerConfig
from tasks.prompt_oirl import selector
from tasks.prompt_oirl.answers import Answers
from tasks.prompt_oirl.cascade import Cascade, default_params
from tasks.prompt_oirl.choose import VERSIONS, choose, load_selector, with_versions
from tasks.prompt_oirl.cost import cost_rows
from tasks.prompt_oirl.encoders import HiddenStates, describe, refuse_too_long
from tasks.prompt_oirl.figures import figures
from tasks.prompt_oirl.finetune import finetune, start
from tasks.prompt_oirl.reference import Reference
from tasks.prompt_oirl.scores import calibration, choice_rows, prompt_rows

PACKAGES = [
    "mlflow", "numpy", "pandas", "psutil", "pyarrow", "pydantic", "ruamel.yaml", "safetensors", "scikit-learn", "scipy",
    "torch", "transformers",
]  # fmt: skip


class PromptOirlConfig(Config):
    """params.yaml: prompt_oirl"""

    namespace = "prompt_oirl"

    encoder: str
    learner: Literal["finetune", "kernel", "mlp", "mean", "trees"]
    num_steps: PositiveInt
    batch_size: PositiveInt  # queries, each with every prompt
    learning_rate: PositiveFloat
    hidden_size: PositiveInt


def train(config: PromptOirlConfig, stage: Stage) -> None:
    source = stage.params(PromptLogConfig)
    encoder = describe(stage.dep(config.encoder))
    rows = read_prompt_log(source, stage.dep(source.source))
    contaminated = split_leaks(stage.dep("reports/validate_prompt_log"))
    if config.learner == "finetune":  # its network is opened when the run has begun: what that reads is named before
        stage.params(ComputeConfig)
        stage.params(OptimizerConfig)
    stage.tracker.tag("contaminated", str(contaminated).lower())
    stage.tracker.tag("prompt_log", source.source)
    if not rows:
        return nothing_to_learn(stage)
    training, test = tables(rows)
    query_ids = {row["query"]: row["query_id"] for row in rows}
    fitted: Any
    cascade = None
    if config.learner == "finetune":
        if encoder.source is None:
            raise InputError(
                f"{config.encoder} names no model to fine-tune; set `prompt_oirl.learner` to mean, kernel, mlp or trees"
            )
        fitted = start(Path(encoder.source), training.prompts, config.hidden_size, stage)
        refuse_too_long(fitted, [*training.queries, *test.queries], query_ids)
        finetune(fitted, training, stage, config.num_steps, config.batch_size, config.learning_rate)
    else:
        model = HiddenStates(Path(encoder.source), encoder.layers) if encoder.source else None
        if model:
            refuse_too_long(model, [*training.queries, *test.queries], query_ids)
        fitted = selector.fit(training, model, config.learner, stage.seed)
        learned = [row for row in rows if row["split"] == "train"]
        cascade = Cascade.of(learned, training, model, config.learner, stage.seed)

    chances, best = fitted.probabilities(test.queries), int(training.success.argmax())
    found = figures(chances, test, np.full(len(test), best), seeds.derive(stage.seed, "bootstrap"))
    errors, bins = calibration(chances, test)
    stage.record(**found, **errors, contaminated=contaminated)
    choices = choice_rows(chances, test, best, query_ids)
    stage.table("choices", choices[:100])
    fitted.save(folder := stage.out("models/prompt_oirl"))
    Reference.of(fitted.features(training.queries), training, stage.seed).save(folder / "reference.npz")
    if cascade:
        cascade.save(folder / "cascade.npz")
    listed = {"choices": choices, "prompts": prompt_rows(test, training), "calibration": bins}
    listed["cost"] = cost_rows(rows, test, chances.argmax(axis=1), best, fitted.lengths)
    stage.report("reports/prompt_oirl", listed)
    register(stage, folder, test.queries[:3])


def tables(rows: Sequence[Row]) -> tuple[Answers, Answers]:
    """The training and the test queries, with the same prompts in the same order. A hole is refused.

    A prompt that no training query was asked with is left out: there is nothing to learn about it.
    """
    prompts = {row["prompt_id"]: row["prompt"] for row in rows if row["split"] == "train"}
    found = []
    for split in ("train", "test"):
        answers = Answers.of([row for row in rows if row["split"] == split])
        if not len(answers):
            raise InputError(f"the prompt log holds no {split} queries; bring some, or set `prompt_log.split: question`")
        absent = next((prompt for prompt in prompts if prompt not in answers.prompts), None)
        holes = [] if absent else [(i, j) for i, j in zip(*(answers.calls == 0).nonzero(), strict=True)]
        if absent or holes:
            query = answers.queries[holes[0][0] if holes else 0]
            query_id = next(row["query_id"] for row in rows if row["query"] == query)
            raise InputError(
                f"the prompt log: query {query_id} has no answer under prompt "
                f"{absent or list(answers.prompts)[holes[0][1]]}; complete the log, or leave the query out"
            )
        found.append(answers.under(list(prompts)))
    training, test = found
    return training, test


def register(stage: Stage, folder: Path, queries: list[str]) -> None:
    """As a version of the MLflow model `prompt_oirl`, with an example of what it is asked and answers, and its prompts as
    versions in MLflow's prompt registry."""
    (fitted, reference), figures = load_selector(folder), stage.metrics
    uris = register_prompts(stage.tracker.client, stage.tracker.run_id, "prompt_oirl", fitted.prompts)
    params = default_params(fitted.prompts)
    answered = with_versions(choose(fitted, reference, queries, list(fitted.prompts)), uris)
    champion = figures["gain_low"] > 0 and not figures["contaminated"]
    example = ([{"query": query} for query in queries], params, answered)
    tags = {"contaminated": str(bool(figures["contaminated"])).lower(), "gain": f"{figures['gain']:+.4f}"}
    with tempfile.TemporaryDirectory() as scratch:
        path, files = Path(scratch) / "served/prompt_oirl", Path(scratch) / "prompt_oirl"
        shutil.copytree(folder, files)  # the URIs are no output of the stage: they depend on what the registry held before
        write_json(files / VERSIONS, uris)
        save_served(path, Path(__file__).with_name("served.py"), files, example, PACKAGES, list(uris.values()))
        stage.tracker.served("prompt_oirl", path, tags, ["newest", "champion"] if champion else ["newest"])


def nothing_to_learn(stage: Stage) -> None:
    """The log is empty, since the data has no answers: no figures, and no model but an empty list of prompts."""
    stage.record()
    write_json(stage.out("models/prompt_oirl") / "prompts.json", {})
    stage.report("reports/prompt_oirl")


if __name__ == "__main__":
    run(PromptOirlConfig, train)
