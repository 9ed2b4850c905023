"""One stage of somebody's flow, on this machine: what a worker does for `python -m flows.align --workers`.

The checkout in which the worker stands lends git's objects and DVC's cache; the stage runs in a scratch checkout of the
flow's commit. A killed stage that comes back to this worker continues from its checkpoint.
"""

import hmac
import os
import signal
import threading
import time
from contextlib import suppress
from typing import Any
from uuid import UUID

import httpx
from prefect import flow, get_run_logger
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from flows.engine.api import follow_parent
from flows.engine.children import Children, Ended
from flows.engine.key import sign
from flows.engine.lineage import close_stage_run
from flows.engine.locks import wait_for
from flows.engine.plan import Step
from flows.engine.remote_stage import deliver, enter, fetch_commit
from flows.engine.reproduce import FLOW_RUN_ID
from flows.engine.slots import Slots
from tasks.core.config import RuntimeConfig
from tasks.core.errors import InputError
from tasks.core.mlflow_client import tracking_uri
from tasks.core.stage import SCRATCH
from tasks.core.tracking import PIPELINE_RUN_ID

SECONDS_BETWEEN_LOOKS = 10.0


@flow(name="stage", flow_run_name="{name}")
def stage(
    name: str, commit: str, patch: str, lock: dict[str, Any], signature: str, pipeline_run_id: str, flow_run_id: str
) -> State:
    """Fetch what it reads, run it, push what it wrote. Only `python -m flows.align --workers` can start it.

    commit, patch: the code and params of the flow that asks; lock: dvc.lock of the stages before this one; signature: of all
    these, with the key to the Prefect server.
    pipeline_run_id: the flow's run in MLflow; flow_run_id: in Prefect.
    """
    follow_parent()
    _follow_flow(flow_run_id)
    os.environ[PIPELINE_RUN_ID] = pipeline_run_id
    os.environ["MLFLOW_TRACKING_URI"] = tracking_uri()  # of here, as a file: we go elsewhere
    folder = SCRATCH.resolve() / "stages" / name
    try:
        if not hmac.compare_digest(signature, sign(name, commit, patch, lock)):
            raise InputError("the work is not signed with the key of this worker's Prefect server: no flow has asked for it")
        fetch_commit(commit)
        with wait_for(folder.with_name(f"{name}.lock")) as alone:  # one at a time in that folder
            step = enter(folder, name, commit, patch, lock)
            ended = run(step, alone.fileno())
            if ended.code:
                return Failed(message=ended.why)
            deliver(folder, name)
    except InputError as error:
        return Failed(message=str(error))
    return Completed()


def run(step: Step, lock: int) -> Ended:
    """On a slot of this machine; what it prints goes to Prefect."""
    logger = get_run_logger()
    children = Children(lambda name, line: logger.info(line))
    slots = Slots(RuntimeConfig.load())
    slots.check(step.name, step.gpus)
    children.prepare([step])
    try:
        children.check()
        with slots.lease(step.gpus) as lease:
            says = {FLOW_RUN_ID: flow_run.id or ""} | lease.devices
            ended = children.reproduce(step.name, says, [lock, *lease.files])
    except BaseException:  # cancelled, or the worker is gone
        children.stop()
        close_stage_run(step.name)
        raise
    finally:
        children.close()
    if ended.code:
        close_stage_run(step.name)
    return ended


def _follow_flow(flow_run_id: str) -> None:
    """End when the flow that asked is over: it may have been killed on a machine of which nothing else is heard here."""

    def watch() -> None:
        with get_client(sync_client=True) as client:
            while True:
                time.sleep(SECONDS_BETWEEN_LOOKS)
                with suppress(httpx.HTTPError):
                    state = client.read_flow_run(UUID(flow_run_id)).state
                    if state and state.is_final():
                        os.kill(os.getpid(), signal.SIGTERM)
                        return

    threading.Thread(target=watch, daemon=True).start()
