"""Prefect's API for one flow, where no Prefect server is configured: private, local, and gone with the flow.

    python -m flows.engine.api <file descriptor of a listening socket>

Prefect would start one by itself, later and slower: only when the flow begins, after importing the whole server into
the flow's process as well, and it leaves it behind when the flow is killed. Here it starts first, in parallel with the
planning; requests queue in the socket until it answers; and it ends when the flow's parent pipe closes.
"""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import UUID

import httpx
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import State
from prefect.context import refresh_global_settings_context
from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
from prefect.states import Crashed

from flows.engine.lifetime import PARENT, follow
from tasks.core.errors import InputError

LOG = Path(".scratch/logs/prefect.log")
HEARTBEAT = 30  # seconds, the least that Prefect allows; flows/deploy.py says what happens without
_parent_pipe: list[int] = []  # of our private API
PRIVATE = {
    "PREFECT_UI_ENABLED": "false",
    "PREFECT__SERVER_EPHEMERAL": "1",  # only the services that a client needs
    "PREFECT__SERVER_FINAL": "1",
    "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",
}


def has_server() -> bool:
    """Whether the user has a Prefect server: PREFECT_API_URL, or a profile that names one."""
    return bool(PREFECT_API_URL.value())


@contextmanager
def prefect_api(watched: bool) -> Iterator[None]:
    """Inside, Prefect has an API to talk to: the user's server, or a private one.

    watched: whether the flow sends heartbeats, by which a server notices that it died. They cost a second at its end.
    """
    if not has_server():
        with _private(), temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
            yield
        return
    if reason := get_client(sync_client=True).api_healthcheck():
        raise InputError(
            f"the Prefect server {PREFECT_API_URL.value()} does not answer ({reason}); "
            "start it, or unset PREFECT_API_URL to run without one"
        )
    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: HEARTBEAT if watched else None}):
        yield


@contextmanager
def _private() -> Iterator[None]:
    LOG.parent.mkdir(parents=True, exist_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as listener, LOG.open("w") as log:
        os.environ["PREFECT_API_URL"] = f"http://127.0.0.1:{listener.getsockname()[1]}/api"
        process = subprocess.Popen(
            [sys.executable, "-m", "flows.engine.api", str(listener.fileno())],
            env=os.environ | PRIVATE,
            stdin=subprocess.PIPE,  # the parent pipe
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for the flow, which still has to tell the API
            pass_fds=[listener.fileno()],
        )
    assert process.stdin
    _parent_pipe.append(process.stdin.fileno())
    os.environ["PREFECT_LOGGING_TO_API_ENABLED"] = "false"
    refresh_global_settings_context()
    try:
        yield
    except (httpx.TransportError, RuntimeError) as error:  # Prefect's client makes the second of the first
        if isinstance(error, RuntimeError) and process.poll() is None:
            raise
        raise InputError(f"Prefect's private API ended ({error}); {LOG} says why") from error
    finally:
        _parent_pipe.clear()
        process.terminate()
        process.wait()


def lent() -> list[int]:
    """What a flow that we start must hold open: a private API then outlives us until it has heard of that flow, too."""
    return list(_parent_pipe)


def follow_parent() -> None:
    """Do not outlive who started this flow, if it said its number: a worker (flows/worker.py) or another flow."""
    if PARENT in os.environ:
        follow(int(os.environ.pop(PARENT)))


def report_crash(flow_run_id: str) -> None:
    """Tell the server that a flow run and its tasks are no more; they were killed and could not say it."""
    client = get_client(sync_client=True)
    gone: State = Crashed(message="the process of the flow is gone")
    of_it = FlowRunFilter(id=FlowRunFilterId(any_=[UUID(flow_run_id)]))
    with client, suppress(httpx.HTTPError, RuntimeError):  # a private API went with its flow
        for task_run in client.read_task_runs(flow_run_filter=of_it):
            if task_run.state and not task_run.state.is_final():
                client.set_task_run_state(task_run.id, gone, force=True)
        client.set_flow_run_state(UUID(flow_run_id), gone, force=True)


def main(descriptor: int) -> None:
    import uvicorn

    from flows.engine.lifetime import end_with_parent

    end_with_parent(lambda: os.kill(os.getpid(), signal.SIGTERM))
    config = uvicorn.Config("prefect.server.api.server:create_app", factory=True, log_level="error", lifespan="on")
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=descriptor)])


if __name__ == "__main__":
    main(int(sys.argv[1]))
