"""One MLflow run per flow, from which every stage can be reached: those that ran, and those that need not run again.

The receipt runs/<stage>.json is an output of its stage, so it comes back from the cache together with what it vouches
for: it always names the MLflow run that made the outputs in the workspace.

The flow's run also keeps what it takes to repeat it (python -m flows.rerun): the changes that were not committed, the
environment, and at its end dvc.lock, which is the hashes of all outputs.
"""

import json
import os
import sys
import threading
import traceback
from pathlib import Path
from typing import Any, Literal

from flows.engine.environment import environment
from flows.engine.git import changes
from flows.engine.headline import leading, note, policy_note, run_name
from flows.engine.promotion import EVIDENCE, consider
from tasks.core.config import flatten, read_params
from tasks.core.errors import InputError
from tasks.core.mlflow_client import address, short
from tasks.core.recorded_runs import conclude, mark
from tasks.core.stage import RECEIPTS, SCRATCH, git_tags
from tasks.core.tracking import Tracker

VARIANT = "REALIGN_VARIANT"  # of a sweep, set by flows.compare for the flow that runs it
CURRENT = SCRATCH / "align" / "run_id"  # of the flow at work; found by the next one if this one is killed
DVC_LOCK, PATCH, ENVIRONMENT = "dvc.lock", "changes.patch", "environment.json"  # kept with the run
METRICS = "metrics.json"  # too: the figures of every stage

State = Literal["ran", "cached", "restored", "failed", "stopped", "not run"]


class PipelineRun:
    """The flow's own run in MLflow, told of each stage as soon as it is settled.

    resume: the id of the run, if another process has begun it.
    """

    def __init__(self, resume: str | None = None) -> None:
        if CURRENT.exists() and CURRENT.read_text() != resume:
            mark_killed(CURRENT.read_text())
        tags = {"flow": "align", "mlflow.source.name": "python -m flows.align", **git_tags()}
        self._variant = os.environ.get(VARIANT)
        if self._variant:
            tags["variant"] = self._variant
        self._tracker = Tracker(self._variant or "align", tags, flatten(read_params()), resume)
        self._lock = threading.Lock()
        self._rows: list[dict[str, Any]] = []
        self._metrics: dict[str, dict[str, float]] = {}  # of each stage
        self._ended = False
        self._gate = ""
        self.run_id = self._tracker.run_id
        self.address = address(self._tracker.experiment_id)
        CURRENT.parent.mkdir(parents=True, exist_ok=True)
        CURRENT.write_text(self.run_id)
        if tags.get("git.dirty") == "true":
            patch = CURRENT.with_name(PATCH)
            patch.write_bytes(os.fsencode(changes()))
            self._tracker.file(patch)
        self._surveyor = threading.Thread(target=self._keep_environment, daemon=True)  # nvidia-smi may take a second
        self._surveyor.start()

    def settled(self, name: str, state: State, why: str, seconds: float) -> State:
        """Record what became of a stage. "ran" becomes "restored" where the receipt names an earlier run."""
        receipt = _receipt(name) if state in ("ran", "cached", "restored") else {}
        if state == "ran" and receipt and receipt.get("pipeline_run_id") != self.run_id:
            state = "restored"
        made_by = receipt.get("run_id", "")
        key = mlflow_key(name)
        with self._lock:
            self._rows.append({"stage": name, "state": state, "why": why, "seconds": round(seconds, 1), "run_id": made_by})
            self._tracker.tag(f"stage.{key}", f"{state}:{made_by}" if made_by else state)
            self._metrics[key] = receipt.get("metrics", {})
        return state

    def consider(self) -> str:
        """The best policy at the gate: what became of it, in a sentence. A registry in trouble undoes no flow."""
        try:
            self._gate, evidence = consider(self.run_id)
        except Exception as error:
            traceback.print_exc()
            self._gate, evidence = f"the best policy was not registered in MLflow ({short(error)})", ""
        with self._lock:
            if self._gate:
                self._tracker.tag("gate", self._gate)
            if evidence:
                self._tracker.text(evidence, EVIDENCE)
        return self._gate

    def end(self, status: Literal["FINISHED", "FAILED", "KILLED", "LOST"]) -> None:
        """Only the first call counts. LOST: the flow died without ending its run."""
        with self._lock:
            if self._ended:
                return
            self._ended = True
        self._surveyor.join()
        with self._lock:
            if Path(DVC_LOCK).exists():
                self._tracker.file(Path(DVC_LOCK))
            if self._rows:
                self._tracker.table(self._rows, "stages")
                self._tracker.text(json.dumps(self._metrics, indent=1), METRICS)
                self._tracker.metrics(leading(self._metrics))
                text = note(self._rows, self._metrics, self._gate, self._tracker.experiment_id)
                self._tracker.describe(self._variant or run_name(status, self._rows), text)
                if any(row["stage"] == "evaluate" and row["state"] == "ran" for row in self._rows):
                    self._tell_policies()
            self._tracker.finish("KILLED" if status == "LOST" else status)
        CURRENT.unlink(missing_ok=True)

    def _keep_environment(self) -> None:
        found = json.dumps(environment(), indent=1)
        with self._lock:
            self._tracker.text(found, ENVIRONMENT)

    def _tell_policies(self) -> None:
        """Every policy's own run gets the figures of this evaluation."""
        figures = self._metrics.get("evaluate", {})
        for row in self._rows:
            variant = row["stage"].removeprefix("policy@")
            algorithm, _, seed = variant.rpartition("-")
            found = {
                key.removeprefix(f"policy.{algorithm}.{seed}."): value
                for key, value in figures.items()
                if key.startswith(f"policy.{algorithm}.{seed}.")
            }
            if row["run_id"] and found:
                text = policy_note(row["stage"], found, self.run_id, self._tracker.experiment_id)
                conclude(row["run_id"], {f"evaluate/{key}": value for key, value in found.items()}, text)


def mlflow_key(stage: str) -> str:
    """MLflow refuses "@" in the key of a tag or metric."""
    return stage.replace("@", ".")


def close_stage_run(name: str) -> None:
    """The MLflow run of a stage whose process was killed: nobody else can end it. Run again, the stage continues it."""
    for kept in (SCRATCH / name).glob("*/run_id"):
        mark_killed(kept.read_text())


def mark_killed(run_id: str | None) -> None:
    """As far as MLflow still knows the run, and can be reached: the stage or flow that died matters more."""
    if run_id:
        try:
            mark(run_id, "KILLED")
        except InputError as error:
            print(error, file=sys.stderr)


def _receipt(name: str) -> dict[str, Any]:
    try:
        found = json.loads((RECEIPTS / f"{name}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
