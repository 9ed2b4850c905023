"""One MLflow run per sweep, above the pipeline runs of its variants: what varied, and what came of it, side by side."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from flows.engine.lineage import mark_killed
from flows.engine.sweep.axes import Sweep
from tasks.core.mlflow_client import address
from tasks.core.stage import SCRATCH, git_tags
from tasks.core.tracking import Tracker

SWEEPS = SCRATCH / "compare"
LOCK = SWEEPS / ".lock"
CURRENT = SWEEPS / ".run_id"  # of the sweep at work; found by the next one if this one is killed


class SweepRun:
    """The sweep's own run in MLflow. What varies is its params; its metrics have a step for every variant."""

    def __init__(self, sweep: Sweep):
        if CURRENT.exists():
            mark_killed(CURRENT.read_text())
        tags = {"flow": "compare", "mlflow.source.name": "python -m flows.compare", **git_tags()}
        taken = {key: dict.fromkeys(str(variant.shown[key]) for variant in sweep.variants) for key in sweep.keys}
        self._tracker = Tracker(f"compare: {sweep.title}", tags, {key: ", ".join(values) for key, values in taken.items()})
        self._sweep = sweep
        self._ended = False
        self.run_id = self._tracker.run_id
        CURRENT.write_text(self.run_id)

    def conclude(
        self, rows: list[dict[str, Any]], metrics: Mapping[str, dict[str, float]], gains: list[dict[str, Any]], page: Path
    ) -> None:
        """The table of the variants, that of what policies gain, and the page. metrics: of each variant that has any."""
        for place, variant in enumerate(self._sweep.variants):
            self._tracker.metrics(metrics.get(variant.name, {}), step=place)
        self._tracker.table(rows, "variants")
        if gains:
            self._tracker.table(gains, "gains")
        if page.exists():
            self._tracker.file(page)
        self._tracker.describe(f"compare: {self._sweep.title}", self._note(rows))

    def seconds(self, run_ids: Iterable[str]) -> dict[str, float]:
        """How long runs of stages took, whoever ran them; of those that MLflow knows."""
        named = ", ".join(f"'{run_id}'" for run_id in run_ids)
        if not named:
            return {}
        found = self._tracker.client.search_runs([self._tracker.experiment_id], f"attributes.run_id IN ({named})")
        return {run.info.run_id: (run.info.end_time - run.info.start_time) / 1000 for run in found if run.info.end_time}

    def end(self, status: Literal["FINISHED", "FAILED", "KILLED"]) -> None:
        """The first word counts; a second is not heard."""
        if not self._ended:
            self._ended = True
            self._tracker.finish(status)
            CURRENT.unlink(missing_ok=True)

    def address(self) -> str:
        """Of the variants side by side in MLflow's UI; of this run where fewer than two were begun."""
        found = self._runs()
        alone = address(self._tracker.experiment_id, f"runs/{self.run_id}")
        if len(found) < 2:
            return alone
        runs = [found[one.name] for one in self._sweep.variants if one.name in found]
        experiments = [self._tracker.experiment_id]
        listed = [quote(json.dumps(ids, separators=(",", ":")), safe=",") for ids in (runs, experiments)]
        return f"{alone.partition('#')[0]}#/compare-runs?runs={listed[0]}&experiments={listed[1]}"

    def _note(self, rows: list[dict[str, Any]]) -> str:
        found = self._runs()
        lines = ["| variant | state | experiment |", "|---|---|---|"]
        for row in rows:
            run_id = found.get(row["variant"])
            link = f"[{row['variant']}](#/experiments/{self._tracker.experiment_id}/runs/{run_id})"
            lines.append(f"| {link if run_id else row['variant']} | {row['state']} | {row['experiment']} |")
        return "\n".join(lines)

    def _runs(self) -> dict[str, str]:
        """The pipeline run of each variant, by its name: the latest, should one have been begun twice."""
        of_it = f"tags.`mlflow.parentRunId` = '{self.run_id}'"
        found = self._tracker.client.search_runs([self._tracker.experiment_id], of_it, order_by=["attributes.start_time ASC"])
        return {run.data.tags["variant"]: run.info.run_id for run in found if "variant" in run.data.tags}
