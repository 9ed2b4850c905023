"""Runs that have ended, as MLflow remembers them: to be read, and marked or concluded by others than their own process."""

import re
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tasks.core.mlflow_client import connect, experiment_id
from tasks.core.operations import metric_name, perform


@dataclass(frozen=True)
class Recorded:
    """A run as MLflow remembers it."""

    run_id: str
    name: str
    tags: dict[str, str]
    metrics: dict[str, float]


def recorded(prefix: str) -> list[Recorded]:
    """The runs whose id begins so; none for what could not begin an id."""
    if not re.fullmatch("[0-9a-f]{4,32}", prefix):
        return []
    client = connect()
    found = client.search_runs([experiment_id(client)], f"attributes.run_id LIKE '{prefix}%'")
    return [Recorded(run.info.run_id, run.info.run_name or "", run.data.tags, run.data.metrics) for run in found]


def read_text(run_id: str, name: str) -> str | None:
    """A text among the artifacts of a run, byte for byte as it was kept; None if there is none of that name."""
    client = connect()
    if not known(run_id) or name not in [artifact.path for artifact in client.list_artifacts(run_id)]:
        return None
    with tempfile.TemporaryDirectory() as folder:
        return Path(client.download_artifacts(run_id, name, folder)).read_bytes().decode("utf-8", "surrogateescape")


def known(run_id: str) -> bool:
    """False for a run of another server, or of a database that was removed."""
    from mlflow.exceptions import MlflowException

    try:
        connect().get_run(run_id)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return False
        raise
    return True


def mark(run_id: str, status: str) -> None:
    """End a run whose own process could not: it was killed. One that MLflow no longer knows needs no mark."""
    client = connect()
    if known(run_id) and client.get_run(run_id).info.status == "RUNNING":
        client.set_terminated(run_id, status)


def conclude(run_id: str, metrics: dict[str, float], note: str) -> None:
    """Figures that were found after a run had ended, and a description with them. One that MLflow does not know stays so."""
    if known(run_id):
        client, now = connect(), int(time.time() * 1000)
        points = [(metric_name(key), value, now, 0) for key, value in metrics.items()]
        perform(client, run_id, {"do": "metrics", "points": points})
        perform(client, run_id, {"do": "tags", "values": {"mlflow.note.content": note}})
