"""What is on record of an earlier flow: a pipeline run in MLflow, or a commit that carries its dvc.lock.

A pipeline run knows the commit, the changes that were not committed, the hashes of all outputs, the metrics and the
environment. A commit knows the hashes, and the environment if environment.json is committed with dvc.lock; of the rest only
what the receipts say, as far as DVC's cache still has them.
"""

import functools
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dvc.repo import Repo

from flows.engine.environment import KEPT, Environment, kept_environments
from flows.engine.git import git
from flows.engine.lineage import DVC_LOCK, ENVIRONMENT, METRICS, PATCH, mlflow_key
from flows.engine.lockfile import read_lock
from flows.engine.rerun.verdict import Side
from tasks.core.errors import InputError
from tasks.core.mlflow_client import tracking_uri
from tasks.core.operations import metric_name
from tasks.core.recorded_runs import Recorded, read_text, recorded
from tasks.core.stage import RECEIPTS


@dataclass(frozen=True)
class Record:
    """An earlier flow: where its code is, what came out of it, and in which pipeline run each stage really ran."""

    id: str  # of the run, or the commit
    name: str
    run_id: str | None
    commit: str
    patch: str
    side: Side
    made_in: dict[str, str]
    committed: dict[str, Environment] = field(default_factory=dict)

    def environment(self, stage: str) -> Environment | None:
        """In which the stage ran: for one that was cached, that of an earlier flow."""
        text = read_text(self.made_in[stage], ENVIRONMENT) if self.made_in.get(stage) else None
        return json.loads(text) if text else self.committed.get(stage)


@functools.cache
def look_up(of: str) -> Record:
    """A pipeline run by its id or the beginning of it, or a commit by any name that git knows. Once per process."""
    runs, commit = recorded(of), _commit(of)
    candidates = [f"run {run.run_id}" for run in runs] + ([f"commit {commit}"] if commit else [])
    if not candidates:
        raise InputError(
            f"`{of}` is neither the id of a run in MLflow ({tracking_uri()}) nor a commit of this repository; "
            "`make ui` shows the runs, `git log` the commits"
        )
    if len(candidates) > 1:
        raise InputError(f"`{of}` may be {' or '.join(candidates)}; write more of the one you mean")
    record = _of_run(runs[0]) if runs else _of_commit(commit)
    if not record.side.stages:
        raise InputError(f"{candidates[0]} has no stage on record that was carried out, so there is nothing to compare with")
    return record


def metrics_of(receipt: Any) -> dict[str, float]:
    """By the names that MLflow knows them by."""
    found = receipt.get("metrics", {}) if isinstance(receipt, dict) else {}
    return {metric_name(name): float(value) for name, value in found.items()}


def _of_run(run: Recorded) -> Record:
    tags, name = run.tags, f"run {run.run_id}"
    if tags.get("flow") != "align":
        parent = tags.get("mlflow.parentRunId")
        instead = f"give the run it belongs to, {parent}" if parent else "give one that python -m flows.align made"
        raise InputError(f"{name} ({run.name}) is not a pipeline run; {instead}")
    commit = tags.get("mlflow.source.git.commit", "")
    if not commit:
        raise InputError(f"{name} was made outside git, so nothing says what its code was; commit the code and run it again")
    if not _commit(commit):
        raise InputError(f"{name} was made at commit {commit}, which this repository lacks; `git fetch` it")
    patch = read_text(run.run_id, PATCH) if tags.get("git.dirty") == "true" else ""
    if patch is None:
        raise InputError(f"{name} was made with changes that were not committed and that it did not keep; rerun a later one")
    lock = read_text(run.run_id, DVC_LOCK)
    if lock is None:
        raise InputError(f"{name} kept no dvc.lock: it is still at work, was killed, or is older than this; rerun another")
    stages, made_in = {}, {}
    for stage, outcome in read_lock(lock).items():
        state, _, made_by = tags.get(f"stage.{mlflow_key(stage)}", "").partition(":")
        if state in ("ran", "cached", "restored"):  # the lock has others too: of stages that failed, or were not asked for
            stages[stage] = outcome
            made_in[stage] = run.run_id if state == "ran" else _parent(made_by)
    metrics = json.loads(read_text(run.run_id, METRICS) or "{}")
    side = Side(stages, {stage: metrics_of({"metrics": metrics.get(mlflow_key(stage), {})}) for stage in stages})
    return Record(run.run_id, run.name, run.run_id, commit, patch, side, made_in)


def _of_commit(commit: str) -> Record:
    if not git("ls-tree", "--full-tree", commit, DVC_LOCK):
        raise InputError(
            f"commit {commit} has no dvc.lock, so nothing says what its outputs were; give a pipeline run of it, "
            "or commit dvc.lock next time"
        )
    stages = read_lock(git("show", f"{commit}:{DVC_LOCK}"))
    receipts = {stage: _receipt(stage, outcome) for stage, outcome in stages.items()}
    side = Side(stages, {stage: metrics_of(receipt) for stage, receipt in receipts.items()})
    made_in = {stage: receipt.get("pipeline_run_id") or "" for stage, receipt in receipts.items()}
    kept = git("show", f"{commit}:{KEPT}") if git("ls-tree", "--full-tree", commit, str(KEPT)) else "[]"
    return Record(commit, f"commit {commit[:12]}", None, commit, "", side, made_in, kept_environments(kept, stages))


def _commit(name: str) -> str:
    """The full id of a commit, or nothing."""
    try:
        return git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}").strip()
    except InputError:
        return ""


def _parent(run_id: str) -> str:
    """The pipeline run in which a stage's run was made; none if that was a plain `dvc repro`, or is forgotten."""
    return next((run.tags.get("mlflow.parentRunId", "") for run in recorded(run_id)), "")


def _receipt(stage: str, outcome: dict[str, Any]) -> dict[str, Any]:
    """From DVC's cache, by the hash that dvc.lock names."""
    path = (RECEIPTS / f"{stage}.json").as_posix()
    for out in outcome.get("outs", []):
        if out["path"] == path and "md5" in out:
            with Repo() as repo:
                kept = Path(repo.cache.local.oid_to_path(out["md5"]))
            found = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
            return found if isinstance(found, dict) else {}
    return {}
