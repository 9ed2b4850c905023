"""Servers and workers in a checkout, and what tests ask a real Prefect server."""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import httpx

from tests.flows.toy import ROOT, Flow, Project
from tests.processes import PATIENCE

Serve = Callable[..., tuple[Project, subprocess.Popen[str]]]  # the fixture of that name


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


def start(project: Project, *module: str, output: IO[str] | int = subprocess.PIPE, **says: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", *module]
    environment = project.environment | says
    return subprocess.Popen(command, cwd=project.folder, env=environment, stdout=output, stderr=output, text=True)


def checkout(first: tuple[Project, Flow], folder: Path) -> Project:
    """The toy project, all of it up to date, with the flows where prefect.yaml looks for them."""
    project = Project(Path(shutil.copytree(first[0].folder, folder / "project")))
    (project.folder / "flows").symlink_to(ROOT / "flows")
    return project
