"""Stages carried out elsewhere: each goes to a worker of the Prefect pool that suits it, and what it made comes back.

Git carries the code, the DVC remote what stages read and write, Prefect who does what, one MLflow server the records. A
worker leaves its outputs and an entry of DVC's run cache in the remote; here the stage is then restored like any other.
"""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from uuid import UUID

import httpx
from dvc.repo import Repo
from dvc.utils.serialize import load_yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run
from prefect.states import Cancelling, Crashed

from flows.engine.api import has_server
from flows.engine.git import changes, git
from flows.engine.key import sign
from flows.engine.plan import Step
from tasks.core.config import RuntimeConfig
from tasks.core.errors import InputError
from tasks.core.mlflow_client import tracking_uri

ATTEMPTS = 3  # a worker may die; three that die of the same stage are no accident
SECONDS_BETWEEN_LOOKS = 1.0
SECONDS_TO_STOP = 60.0  # for what is under way, when the flow is stopped; a server that is gone would never tell its end
PATIENCE = 90.0  # seconds from being taken by a worker to being started; longer, and the worker died in between


class Workers:
    """The workers of all pools, as one flow sees them."""

    def __init__(self, show: Callable[[str, str], None]) -> None:
        """Raises InputError where something that all machines must share is not."""
        if not has_server():
            raise InputError("--workers needs a Prefect server: set PREFECT_API_URL; `make server` starts one")
        if not tracking_uri().startswith("http"):
            raise InputError("--workers needs an MLflow server: set MLFLOW_TRACKING_URI; `make server` starts one")
        self._show = show
        self._on_gpu = RuntimeConfig.load().device != "cpu"
        self._commit = git("rev-parse", "HEAD").strip()
        self._patch = changes()
        self._stopping = threading.Event()

    def provide(self, repo: Repo) -> None:
        """What is here already must be where they find it."""
        if not repo.config["core"].get("remote"):
            raise InputError("--workers needs a DVC remote that all machines reach: `dvc remote add --default <name> <url>`")
        repo.push()

    def reproduce(self, step: Step, pipeline_run_id: str) -> str:
        """Have one of them run the stage, and wait for it. Returns why it failed, or nothing."""
        for attempt in range(1, ATTEMPTS + 1):
            state = self._try(step, pipeline_run_id)
            if state.is_completed():
                return ""
            if not state.is_crashed() or self._stopping.is_set():
                return state.message or f"its flow run is {state.name}"
            if attempt < ATTEMPTS:
                self._show(step.name, f"its worker is gone ({state.message}); another one is asked")
        return f"{ATTEMPTS} workers in turn died of it"

    def stop(self) -> None:
        """Cancel all that is under way."""
        self._stopping.set()

    def _try(self, step: Step, pipeline_run_id: str) -> State[Any]:
        pool = "gpu" if self._on_gpu and step.gpus else "cpu"
        work = (step.name, self._commit, self._patch, _entries(step.upstream))
        parameters = {
            **dict(zip(("name", "commit", "patch", "lock"), work, strict=True)),
            "signature": sign(*work),
            "pipeline_run_id": pipeline_run_id,
            "flow_run_id": flow_run.id,
        }
        try:
            started = run_deployment(f"stage/{pool}", parameters=parameters, flow_run_name=step.name, timeout=0)
            assert isinstance(started, FlowRun)
        except ObjectNotFound:
            raise InputError(f"the Prefect server has no deployment stage/{pool}: run `make deploy`") from None
        with get_client(sync_client=True) as client:
            return self._wait(step.name, pool, client, started.id)

    def _wait(self, name: str, pool: str, client: SyncPrefectClient, run_id: UUID) -> State[Any]:
        """Until it is over. A server that does not answer for a while is asked again."""
        began, told, cancelled = time.monotonic(), False, False
        stopping_since: float | None = None
        while True:
            with suppress(httpx.HTTPError):
                state = client.read_flow_run(run_id).state
                if state and state.is_final():
                    return state
                if state and state.is_pending() and time.time() - state.timestamp.timestamp() > PATIENCE:
                    client.set_flow_run_state(run_id, Crashed(message="taken by a worker and never started"), force=True)
                if state and state.is_scheduled() and not told and time.monotonic() - began > 10:
                    self._show(name, f"waits for a worker of the pool {pool} (`make worker POOL={pool}`)")
                    told = True
                if self._stopping.is_set() and not cancelled:
                    client.set_flow_run_state(run_id, Cancelling())
                    cancelled = True
            if self._stopping.is_set():
                stopping_since = stopping_since or time.monotonic()
                if time.monotonic() - stopping_since > SECONDS_TO_STOP:
                    return Crashed(message=f"the Prefect server did not say within {SECONDS_TO_STOP:.0f} s how it ended")
            time.sleep(SECONDS_BETWEEN_LOOKS)


def _entries(stages: tuple[str, ...]) -> dict[str, Any]:
    """A dvc.lock with these stages only: which content a worker has to fetch."""
    found = load_yaml("dvc.lock")["stages"] if stages else {}
    return {"schema": "2.0", "stages": {name: found[name] for name in stages}}
