"""Whatever is killed, nothing is left running, nothing half-written stays, the records say so, and the next flow goes on."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest
from dvc.utils.serialize import modify_yaml
from mlflow import MlflowClient
from ruamel.yaml.representer import RepresenterError

from flows.engine.children import Children
from flows.engine.lockfile import protect
from tests.flows.servers import last_flow_run
from tests.flows.toy import Project
from tests.processes import PATIENCE, Nursery, TrackingServer, wait_until


def training(project: Project) -> Any:
    """The MLflow run of `train`, once it has begun."""
    kept = list(project.folder.glob(".scratch/train/*/run_id"))
    return project.mlflow().get_run(kept[0].read_text()) if kept else None


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -15), (signal.SIGKILL, -9)])
def test_a_flow_that_is_ended_takes_everything_with_it(
    finished: Project, server: str, number: signal.Signals, code: int
) -> None:
    finished.set(train__num_steps=100000, train__seconds_per_step=0.05)
    process = finished.start(PREFECT_API_URL=server)
    run = wait_until(lambda: training(finished))
    assert run.info.status == "RUNNING"
    process.send_signal(number)
    process.communicate(timeout=PATIENCE)
    assert process.returncode == code
    wait_until(lambda: not finished.processes())

    assert training(finished).info.status == "KILLED"
    assert finished.pipelines()[0].info.status == "KILLED"
    prefect = last_flow_run(server)
    assert prefect["state_type"] == "CRASHED"
    assert "RUNNING" not in {run["state_type"] for run in prefect["tasks"]}
    assert not (finished.folder / "models/train").exists()

    if number == signal.SIGKILL:
        finished.set(train__num_steps=3, train__seconds_per_step=0.0)
        flow = finished.align("--until", "train", PREFECT_API_URL=server)
        assert flow.code == 0, flow.err
        assert flow.happened() == {"train": "ran"}
        assert finished.pipelines()[0].info.status == "FINISHED"


def test_an_mlflow_server_hears_of_a_killed_flow(
    finished: Project, nursery: Nursery, database: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    tracking = TrackingServer(tmp_path_factory.mktemp("tracking"), database, nursery)
    finished.set(train__num_steps=100000, train__seconds_per_step=0.05)
    process = finished.start("--until", "train", MLFLOW_TRACKING_URI=tracking.uri)
    kept = wait_until(lambda: list(finished.folder.glob(".scratch/train/*/run_id")))
    process.kill()
    process.communicate()
    wait_until(lambda: not finished.processes())
    client = MlflowClient(tracking_uri=tracking.uri)
    trained = client.get_run(kept[0].read_text())
    assert trained.info.status == "KILLED"
    assert client.get_run(trained.data.tags["mlflow.parentRunId"]).info.status == "KILLED"
    tracking.stop()


def test_a_killed_dvc_and_a_killed_stage(finished: Project, server: str) -> None:
    finished.set(train__num_steps=100000, train__seconds_per_step=0.05, work__a__scale=9, work__a__seconds=5000)
    before = len(finished.journal())
    process = finished.start(PREFECT_API_URL=server)
    wait_until(lambda: training(finished))
    [work] = wait_until(lambda: [pid for what, name, pid, _ in finished.journal()[before:] if name == "work@a"])
    psutil.Process(work).kill()
    [dvc] = [one for one in finished.processes() if one.info["name"] == "train" and os.getsid(one.pid) == one.pid]
    dvc.kill()
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert sorted(err.strip().splitlines()) == [
        "train failed: dvc ended with exit code -9 (see .scratch/logs/train.log)",
        "work@a failed: work@a: killed by signal 9, as the kernel does when memory runs out (see .scratch/logs/work@a.log)",
    ]
    assert "because train and work@a failed" in out
    wait_until(lambda: not finished.processes())
    assert training(finished).info.status == "KILLED"
    assert finished.pipelines()[0].info.status == "FAILED"


def test_a_lock_of_dvc_is_waited_for_and_no_other_failure_is_tried_again(
    finished: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(finished.folder)
    monkeypatch.setenv("PYTHONPATH", finished.environment["PYTHONPATH"])
    lines: list[str] = []

    def show(name: str, line: str) -> None:
        lines.append(line)
        if len(lines) == 1:  # the other process gives way after the first refusal
            rwlock.unlink()

    rwlock = Path(".dvc/tmp/rwlock")
    rwlock.write_text(json.dumps({"write": {str(Path("out/made/a").resolve()): {"pid": os.getppid(), "cmd": "dvc pull"}}}))
    finished.set(work__a__scale=4, fragile__fail=True)
    children = Children(show)
    children.prepare([])
    children.check()
    ended = children.reproduce("work@a", {}, [])
    assert ended.code == 0, ended
    assert lines == ["another dvc process is in the way; trying again", "work@a at work on no device"]
    assert children.reproduce("fragile", {}, []).code == 1
    assert lines[2:] == ["fragile: told to fail by fragile.fail"]


def test_dvc_lock_is_never_a_piece(tmp_path: Path) -> None:
    """Writing stops in the middle: here at a value that cannot be written, elsewhere at a kill."""
    protect()
    lock = tmp_path / "dvc.lock"
    lock.write_text("schema: '2.0'\n")
    with pytest.raises(RepresenterError), modify_yaml(lock) as content:
        content["stages"] = {"a": "written", "b": object()}
    assert lock.read_text() == "schema: '2.0'\n"
    with modify_yaml(lock) as content:
        content["stages"] = {"a": "written"}
    assert lock.read_text() == "schema: '2.0'\nstages:\n  a: written\n"
