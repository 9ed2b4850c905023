"""What tests ask a real Prefect server."""

import time
from typing import Any

import httpx

from tests.processes import PATIENCE


def answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 200
    except httpx.HTTPError:
        return False


def ask(server: str, path: str, **body: Any) -> Any:
    """Of Prefect's API, as its own clients ask: again where the server says 503, which is a database that others are using."""
    deadline = time.monotonic() + PATIENCE
    while (
        answer := httpx.post(f"{server}/{path}", json=body, timeout=PATIENCE)
    ).status_code == httpx.codes.SERVICE_UNAVAILABLE:
        assert time.monotonic() < deadline, f"{path}: {answer.text}"
        time.sleep(0.5)
    answer.raise_for_status()
    return answer.json() if answer.content else None


def last_flow_run(server: str) -> dict[str, Any]:
    """The newest flow run as the Prefect server tells it, with its task runs."""
    [newest] = ask(server, "flow_runs/filter", sort="START_TIME_DESC", limit=1)
    return newest | {"tasks": ask(server, "task_runs/filter", flow_runs={"id": {"any_": [newest["id"]]}})}
