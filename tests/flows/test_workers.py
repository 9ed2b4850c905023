"""Stages on other machines: two workers in two clones, joined by git, a DVC remote, a Prefect server and an MLflow server."""

import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from dvc.utils.serialize import load_yaml

from flows.engine import workers
from tests.flows.toy import ROOT, Flow, Project
from tests.processes import PATIENCE, Nursery, TrackingServer, wait_until

GIT = ["git", "-c", "user.name=t", "-c", "user.email=t@t"]


@dataclass
class Machine:
    """A clone with a worker in it."""

    project: Project
    worker: subprocess.Popen[str]

    def folder_of(self, stage: str) -> Path:
        """Where a stage that runs there keeps what it needs to be resumed."""
        return self.project.folder / f".scratch/stages/{stage}.unfinished"

    def others(self) -> list[int]:
        """Whatever works there besides the worker, in scratch checkouts too."""
        return [process.pid for process in self.project.everywhere() if process.pid != self.worker.pid]


@dataclass
class Site:
    """The user's clone, the machines, and where all of them find the servers."""

    user: Project
    machines: dict[str, Machine]
    servers: dict[str, str]

    def runs(self) -> list[Any]:
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=self.servers["MLFLOW_TRACKING_URI"])
        return list(client.search_runs([client.get_experiment_by_name("realign").experiment_id]))


@pytest.fixture(scope="module")
def site(
    template: Path, server: str, nursery: Nursery, database: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("machines")
    (folder / "tracking").mkdir()
    tracking = TrackingServer(folder / "tracking", database, nursery)
    servers = {"PREFECT_API_URL": server, "MLFLOW_TRACKING_URI": tracking.uri, "PREFECT_WORKER_QUERY_SECONDS": "1"}
    origin = folder / "origin"
    shutil.copytree(template, origin)
    (origin / "flows").symlink_to(ROOT / "flows")
    shutil.copy(ROOT / "prefect.yaml", origin)
    subprocess.run([sys.executable, "-m", "dvc", "remote", "add", "-d", "store", str(folder / "store")], cwd=origin, check=True)
    subprocess.run([*GIT, "add", "-A"], cwd=origin, check=True)
    subprocess.run([*GIT, "commit", "-qm", "where the machines meet"], cwd=origin, check=True)

    def clone(name: str) -> Project:
        subprocess.run(["git", "clone", "-q", str(origin), str(folder / name)], check=True)
        return Project(folder / name)

    user = clone("user")
    run = {"cwd": user.folder, "env": user.environment | servers, "check": True, "capture_output": True}
    subprocess.run([sys.executable, "-m", "flows.deploy"], **run)
    machines = {}
    for name in ("one", "two"):
        project = clone(name)
        command = [sys.executable, "-m", "flows.worker", "cpu"]
        environment = project.environment | servers
        with (folder / f"{name}.log").open("w") as log:
            worker = subprocess.Popen(command, cwd=project.folder, env=environment, stdout=log, stderr=log, text=True)
        machines[name] = Machine(project, worker)
    yield Site(user, machines, servers)
    for machine in machines.values():
        machine.worker.terminate()
        machine.worker.wait(timeout=PATIENCE)
        wait_until(lambda: not machine.project.everywhere())  # noqa: B023
    tracking.stop()


def test_a_worker_is_killed_in_a_stage_and_the_other_finishes_the_flow(site: Site, first: tuple[Project, Flow]) -> None:
    site.user.set(train__num_steps=100, train__seconds_per_step=0.05, work__a__seconds=0.0)  # not committed: it travels along
    process = site.user.start("--workers", "--until", "evaluate", **site.servers)

    def at_train() -> list[str]:
        assert process.poll() is None, process.communicate()
        return [name for name, one in site.machines.items() if list(one.folder_of("train").glob("*"))]

    [victim] = wait_until(at_train)
    [survivor] = site.machines.keys() - {victim}
    site.machines[victim].worker.kill()
    site.machines[victim].worker.wait()
    wait_until(lambda: not site.machines[victim].others())
    out, err = process.communicate(timeout=PATIENCE)
    flow = Flow(process.returncode, out, err)

    assert flow.code == 0, out + err
    assert set(flow.happened().values()) == {"ran"}
    assert re.search(r"train +│ its worker is gone", out), out
    assert list(site.machines[survivor].project.folder.glob(".scratch/stages/train/models/train"))
    trained = [run.info.status for run in site.runs() if run.data.tags.get("stage") == "train"]
    assert sorted(trained) == ["FINISHED", "KILLED"]
    [pipeline] = [run for run in site.runs() if run.data.tags.get("flow") == "align"]
    assert pipeline.info.status == "FINISHED"
    receipt = site.user.receipt("train")
    assert receipt["pipeline_run_id"] == pipeline.info.run_id
    assert pipeline.data.tags["stage.train"] == f"ran:{receipt['run_id']}"

    # What came back is what a flow on one machine makes of the same numbers.
    alone, _ = first
    stages = {name: load_yaml(one.folder / "dvc.lock")["stages"] for name, one in (("here", site.user), ("alone", alone))}
    for stage in stages["here"]:
        here, there = (
            {out["path"]: out["md5"] for out in stages[name][stage]["outs"] if not out["path"].startswith("runs/")}
            for name in ("here", "alone")
        )
        assert here == there


def test_nothing_is_sent_where_nothing_must_run(site: Site) -> None:
    flow = site.user.align("--workers", "--until", "evaluate", **site.servers)
    assert flow.code == 0, flow.err
    assert set(flow.happened().values()) == {"cached"}


def test_a_failed_stage_is_not_tried_elsewhere(site: Site) -> None:
    site.user.set(fragile__fail=True)
    flow = site.user.align("--workers", "--until", "fragile", **site.servers)
    assert flow.code == 1
    assert flow.err.strip() == "fragile failed: fragile: told to fail by fragile.fail"
    assert flow.happened() == {"prepare": "cached", "fragile": "failed"}


def test_a_stopped_flow_ends_though_its_server_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone:
        def read_flow_run(self, run_id: UUID) -> None:
            raise httpx.ConnectError("connection refused")

    monkeypatch.setattr(workers, "SECONDS_TO_STOP", 0.01)
    monkeypatch.setattr(workers, "SECONDS_BETWEEN_LOOKS", 0.01)
    stopped = object.__new__(workers.Workers)
    stopped._stopping = threading.Event()
    stopped.stop()
    assert stopped._wait("train", "cpu", Gone(), uuid4()).is_crashed()


@pytest.mark.parametrize(
    ("gone", "sentence"),
    [
        ("PREFECT_API_URL", "--workers needs a Prefect server"),
        ("MLFLOW_TRACKING_URI", "--workers needs an MLflow server"),
    ],
)
def test_what_the_machines_must_share_is_asked_for(site: Site, gone: str, sentence: str) -> None:
    flow = site.user.align("--workers", **{key: value for key, value in site.servers.items() if key != gone})
    assert flow.code == 1
    assert sentence in flow.err
    assert len(flow.err.strip().splitlines()) == 1
