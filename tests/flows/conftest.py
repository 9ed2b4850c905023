"""The toy project in the states that the tests start from, and a real Prefect server."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.flows.servers import Serve, answers, checkout, start
from tests.flows.toy import FILES, Flow, Project
from tests.processes import PATIENCE, Once, free_port, wait_until


@pytest.fixture(scope="session")
def template(once: Once) -> Path:
    return once("toy", commit_files)


def commit_files(folder: Path) -> None:
    for name, text in FILES.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(text).lstrip("\n"))
    quiet = {"cwd": folder, "check": True, "capture_output": True}
    subprocess.run(["git", "init", "-q"], **quiet)
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q"], **quiet)
    (folder / ".gitignore").write_text(
        "/.scratch/\n/models/\n/reports/\n/runs/\n/out/\n/data/\n/mlflow.db*\n/mlartifacts/\n__pycache__/\n/journal.txt\n/hold.*\n"
    )
    subprocess.run(["git", "add", "-A"], **quiet)
    subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "toy"], **quiet)


@pytest.fixture(scope="session")
def server(first: tuple[Project, Flow], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a real Prefect server. Most flows below use it, and start none of their own."""
    home = tmp_path_factory.mktemp("prefect")
    for file in (first[0].folder / ".scratch/prefect").glob("prefect.db*"):
        shutil.copy(file, home)  # its tables are there: no migrations
    port = free_port()
    url = f"http://127.0.0.1:{port}/api"
    command = [sys.executable, "-m", "prefect", "server", "start", "--no-ui", "--port", str(port)]
    environment = first[0].environment | {"PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    environment |= {"PREFECT_SERVER_DATABASE_TIMEOUT": "60", "PREFECT_SERVER_DATABASE_CONNECTION_TIMEOUT": "60"}  # as in flows
    with (home / "log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    wait_until(lambda: answers(f"{url}/health"))
    yield url
    os.killpg(process.pid, signal.SIGTERM)
    process.wait(timeout=PATIENCE)


@pytest.fixture(scope="session")
def first(template: Path, once: Once) -> tuple[Project, Flow]:
    """A project after its first complete flow, and that flow. Do not change it: take a copy (`finished`)."""

    def fill(folder: Path) -> None:
        project = Project(Path(shutil.copytree(template, folder / "project")))
        with project.hold("work@a", "work@b"):
            process = project.start()
            together = min(2, len(os.sched_getaffinity(0)))
            wait_until(lambda: len(started(project) & {"work@a", "work@b"}) == together or process.poll() is not None)
        flow = project.end(process)
        (folder / "flow.json").write_text(json.dumps(asdict(flow)))

    folder = once("first", fill)
    return Project(folder / "project"), Flow(**json.loads((folder / "flow.json").read_text()))


def started(project: Project) -> set[str]:
    return {name for what, name, _, _ in project.journal() if what == "start"}


@pytest.fixture
def finished(first: tuple[Project, Flow], tmp_path: Path) -> Project:
    """A copy of the project in which everything is up to date."""
    return Project(Path(shutil.copytree(first[0].folder, tmp_path / "project")))


@pytest.fixture
def serve(first: tuple[Project, Flow], tmp_path: Path) -> Iterator[Serve]:
    """`python -m flows.server` in a checkout of its own. Whatever the test finds, it ends with the test."""
    project = checkout(first, tmp_path)
    servers = []

    def begin(**ports: str) -> tuple[Project, subprocess.Popen[str]]:
        servers.append(start(project, "flows.server", **ports))
        return project, servers[-1]

    yield begin
    for server in servers:
        server.kill()
        server.wait()
