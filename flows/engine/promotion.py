"""The best policy of a finished flow, as a version in MLflow's registry; champion, if the gate lets it pass.

Registered once for each evaluation, whatever the gate says: its verdict is a tag of the version. A copy of the project (a
variant, a rerun, a queued experiment) registers nothing: what is tried there is promoted when it is applied here.
"""

import json
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from flows.engine.gate import SAFETY, Evidence, gain, refusals
from tasks.core.files import Row, digest, read_json, read_table
from tasks.core.mlflow_client import project
from tasks.core.recorded_runs import read_text
from tasks.core.registry import ROLLED_BACK, Registry, Version
from tasks.core.serving import save_served
from tasks.core.stage import RECEIPTS

METRICS, COMPLETIONS = Path("reports/metrics.json"), Path("reports/evaluate/completions.parquet")
NAME = "policy"  # of the registered model
EVIDENCE = "gate.json"  # kept with the pipeline run, for the candidates to come
SCRIPT = Path(__file__).parents[2] / "tasks/models/served.py"
PACKAGES = ["mlflow", "numpy", "pandas", "psutil", "pydantic", "ruamel.yaml", "safetensors", "torch", "transformers"]


def consider(pipeline_run_id: str) -> tuple[str, str]:
    """(what became of the best policy, in a sentence; its evidence, for the pipeline run to keep). Nothing where there is no
    policy, and no evidence where this evaluation was considered before."""
    if project() != Path.cwd() or not COMPLETIONS.exists():
        return "", ""
    registry, evaluation = Registry(NAME), digest(METRICS)
    for version in registry.versions():
        if version.tags.get("evaluation") == evaluation:
            return version.tags["gate"], ""
    rows, metrics = read_table(COMPLETIONS), read_json(METRICS)
    models = [name for name in dict.fromkeys(row["model"] for row in rows) if name.startswith("policy.")]
    if not models:
        return "", ""
    evidence = {name: gather(name, rows, metrics) for name in ["sft", *models]}
    best = max(models, key=lambda name: evidence[name].mean)
    champion = registry.champion()
    version = register(registry, best, rows, pipeline_run_id)
    promoted, verdict = judge(version, champion, evidence[best], evidence["sft"], len(models))
    if promoted:
        registry.promote(version)
    sentence = f"{_stage(best)} is version {version.number} of `{NAME}` in MLflow{verdict}"
    registry.tag(version, {"evaluation": evaluation, "gate": sentence, "pipeline_run_id": pipeline_run_id})
    registry.describe(version, sentence)
    return sentence, json.dumps(asdict(evidence[best]))


def judge(version: Version, champion: Version | None, found: Evidence, sft: Evidence, comparisons: int) -> tuple[bool, str]:
    """Whether it becomes the champion, and the end of the sentence that says so. sft: the rival where there is no champion."""
    if champion and champion.number == version.number:
        return False, ", the champion"
    name = f"version {champion.number} ({champion.tags.get('model', 'of unknown origin')})" if champion else "SFT"
    rival, reasons = sft, []
    if champion:
        kept = read_text(champion.tags.get("pipeline_run_id", ""), EVIDENCE)
        rival = Evidence(**json.loads(kept)) if kept else replace(sft, measure="not on record")
    reasons = refusals(found, rival, name, comparisons)
    if ROLLED_BACK in version.tags:
        reasons.append("it was champion and was rolled back")
    if reasons:
        return False, f", not the champion: {'; '.join(reasons)}. `python -m flows.promote {version.number}` decides otherwise"
    mean, low, high = gain(found, rival, comparisons)
    return True, f", and the new champion: {mean:+.4f} [{low:+.4f}, {high:+.4f}] over {name} in {found.measure}"


def gather(model: str, rows: list[Row], metrics: dict[str, Any]) -> Evidence:
    """model: sft, or policy.<algorithm>.<seed>."""
    mine = [row for row in rows if row["model"] == model]
    if all(row["samples_right"] is not None for row in mine):
        measure = "sampled accuracy"
        figures = {row["prompt"]: row["samples_right"] / row["samples"] for row in mine}
    else:  # no answers are known
        measure = f"score of reward model {_receipt('reward_model')['outs']['models/reward_model']}"
        figures = {row["prompt"]: row["score"] for row in mine}
    recorded: dict[str, Any] = metrics
    for key in model.split("."):
        recorded = recorded[key]
    safety = {key: float(recorded[key]) for key in SAFETY if key in recorded}
    return Evidence(measure, figures, raised(_variant(model)), bool(metrics["contaminated"]), safety)


def raised(variant: str) -> tuple[str, ...]:
    """The alarms of a training, by name."""
    history = Path("reports/policy") / variant / "history.json"
    steps = read_json(history) if history.exists() else []
    return tuple(dict.fromkeys(key.removeprefix("alarm/") for step in steps for key in step if key.startswith("alarm/")))


def alarms_of(stages: Iterable[str]) -> str:
    """A line for each policy whose training raised any."""
    policies = {stage: raised(stage.removeprefix("policy@")) for stage in stages if stage.startswith("policy@")}
    return "\n".join(f"{stage}: {', '.join(alarms)}" for stage, alarms in policies.items() if alarms)


def register(registry: Registry, model: str, rows: list[Row], pipeline_run_id: str) -> Version:
    """With a signature and an example: what the evaluation asked, and what this policy wrote."""
    variant, receipt = _variant(model), _receipt(_stage(model))
    folder = Path("models/policy") / variant
    row = next(row for row in rows if row["model"] == model)
    params = {"temperature": 0.0, "max_new_tokens": 128, "seed": 0}
    example = ([{"prompt": row["prompt"]}], params, [{"completion": row["completion"]}])
    tags = {"md5": receipt["outs"][folder.as_posix()], "model": variant, "path": folder.as_posix()}
    with tempfile.TemporaryDirectory() as scratch:
        served = Path(scratch) / NAME
        save_served(served, SCRIPT, folder, example, PACKAGES)
        return registry.register(served, receipt["run_id"], tags)


def _variant(model: str) -> str:
    """ppo-0 of policy.ppo.0"""
    return model.removeprefix("policy.").replace(".", "-")


def _stage(model: str) -> str:
    return f"policy@{_variant(model)}"


def _receipt(stage: str) -> dict[str, Any]:
    found: dict[str, Any] = read_json(RECEIPTS / f"{stage}.json")
    return found
