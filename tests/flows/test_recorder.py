"""The flow's MLflow run survives whoever keeps it, and hears of a flow that is gone."""

import os
import subprocess
import sys

import pytest

from flows.engine.recorder import Recorder
from tasks.core.errors import InputError
from tests.flows.toy import ROOT, Project
from tests.processes import wait_until


def test_a_killed_recorder_is_replaced_and_the_run_goes_on(finished: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(finished.folder)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    record = Recorder()
    record.begin()
    assert record.settled("train", "cached", "", 0.0) == "cached"
    [keeper] = [one for one in finished.processes() if one.pid != os.getpid()]
    keeper.kill()
    keeper.wait()
    assert record.settled("prepare", "ran", "never run", 1.0) == "restored"  # its receipt names an earlier flow
    record.end("FINISHED")
    newest = finished.pipelines()[0]
    assert newest.info.run_id == record.run_id
    assert newest.info.status == "FINISHED"
    metric = finished.mlflow().get_metric_history(record.run_id, "train/accuracy")
    assert len(metric) == 1
    assert [newest.data.tags[f"stage.{name}"].split(":")[0] for name in ("train", "prepare")] == ["cached", "restored"]
    wait_until(lambda: [one.pid for one in finished.processes()] == [os.getpid()])


def test_a_flow_that_is_gone_without_a_word_was_killed(finished: Project) -> None:
    script = "from flows.engine.recorder import Recorder\nit = Recorder(); it.begin(); print(it.run_id, flush=True); input()"
    flow = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=finished.folder,
        env=finished.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert flow.stdout
    run_id = flow.stdout.readline().strip()
    assert finished.mlflow().get_run(run_id).info.status == "RUNNING"
    flow.kill()
    flow.communicate()
    wait_until(lambda: finished.mlflow().get_run(run_id).info.status == "KILLED")


def test_a_flow_that_never_began_leaves_no_run(finished: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(finished.folder)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    before = len(finished.pipelines())
    Recorder().end("KILLED")
    wait_until(lambda: [one.pid for one in finished.processes()] == [os.getpid()])
    assert len(finished.pipelines()) == before


def test_the_first_complaint_is_the_one_that_is_heard(finished: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flow with nothing to do begins its run without waiting; that MLflow was away is said when it ends, and only then."""
    monkeypatch.chdir(finished.folder)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    record = Recorder()
    record.begin(wait=False)
    with pytest.raises(InputError, match="does not answer"):
        record.end("FINISHED")
    record.end("KILLED")
    wait_until(lambda: [one.pid for one in finished.processes()] == [os.getpid()])
