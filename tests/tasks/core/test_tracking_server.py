"""A real tracking server that goes away in the middle of a run: training goes on, and nothing is lost or doubled."""

import shutil
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tasks.core.files import digest
from tests.processes import TrackingServer, wait_until


@pytest.fixture(scope="module")
def server(tmp_path_factory, database, nursery) -> Iterator[TrackingServer]:
    server = TrackingServer(tmp_path_factory.mktemp("server"), database, nursery)
    yield server
    server.stop()


def lose_server_in_the_middle(server, tiny, environment):
    """Start the stage, stop the server when the stage has come to where it waits, let it go on."""
    running = tiny.nursery.start(tiny.folder, "tiny.py", **environment)
    while "waiting" not in running.output():
        assert running.alive(), running.wait().stderr
        time.sleep(0.01)
    server.stop()
    (tiny.folder / "go").touch()
    return running.wait()


def test_a_server_that_goes_away_and_comes_back(server, tiny, whole, tmp_path):
    """The stage reaches step 6, the server dies, the stage goes on to step 9 and is terminated, the server is back, the stage
    is run again: one run with every point once, all params, tables and files."""
    client = MlflowClient(tracking_uri=server.uri)
    environment = {"MLFLOW_TRACKING_URI": server.uri, "REALIGN_CHECKPOINT_SECONDS": "0", "TROUBLE": "wait 6 term 9"}
    done = lose_server_in_the_middle(server, tiny, environment)
    assert done.code == 143, done.stderr
    assert "spool" in done.stderr
    assert list((tiny.folder / ".scratch/spool").glob("*.jsonl"))

    server.start()
    (before,) = client.search_runs([client.get_experiment_by_name("realign").experiment_id])
    assert tiny.run(MLFLOW_TRACKING_URI=server.uri).code == 0
    (run,) = client.search_runs([client.get_experiment_by_name("realign").experiment_id])
    assert run.info.run_id == before.info.run_id
    assert run.info.status == "FINISHED"
    assert run.data.params["num_steps"] == "12"
    for metric in ("loss/square", "train/a"):
        assert [point.step for point in client.get_metric_history(run.info.run_id, metric)] == list(range(12))
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {"models", "data", "reports", "samples.json"}
    kept = client.download_artifacts(run.info.run_id, "models/tiny", str(tmp_path))
    assert digest(Path(kept)) == digest(tiny.folder / "models/tiny")
    assert not list((tiny.folder / ".scratch/spool").glob("*.jsonl"))
    assert tiny.outputs() == whole.outputs()


def test_a_server_that_is_away_at_the_end(server, tiny, whole, tmp_path):
    """The stage finishes without it, exit code 0 and all outputs; the next stage that reaches the server sends the rest."""
    client = MlflowClient(tracking_uri=server.uri)
    environment = {"MLFLOW_TRACKING_URI": server.uri, "TROUBLE": "wait 6", "MLFLOW_EXPERIMENT_NAME": "second"}
    done = lose_server_in_the_middle(server, tiny, environment)
    assert done.code == 0, done.stderr
    assert "the tracking server is away" in done.stderr
    assert tiny.outputs() == whole.outputs()
    assert (tiny.folder / "runs/tiny.json").exists()

    server.start()
    shutil.rmtree(tiny.folder / "models")  # what is sent later is what was, not what is
    (tiny.folder / "input.txt").write_text("4.0")
    assert tiny.run(MLFLOW_TRACKING_URI=server.uri, MLFLOW_EXPERIMENT_NAME="second").code == 0
    runs = client.search_runs([client.get_experiment_by_name("second").experiment_id])
    assert [run.info.status for run in runs] == ["FINISHED", "FINISHED"]
    for run in runs:
        assert [point.step for point in client.get_metric_history(run.info.run_id, "loss/square")] == list(range(12))
    first = runs[-1].info.run_id
    kept = client.download_artifacts(first, "models/tiny/weights.json", str(tmp_path))
    assert Path(kept).read_bytes() == whole.outputs()["models/tiny/weights.json"]
    assert not list((tiny.folder / ".scratch/spool").glob("*.jsonl"))


def test_a_server_that_hangs_loses_nothing(server, tiny, whole):
    """It takes requests and answers none: the stage ends well, and the next one sends what was kept."""
    client = MlflowClient(tracking_uri=server.uri)
    environment = {"MLFLOW_TRACKING_URI": server.uri, "TROUBLE": "wait 6", "MLFLOW_EXPERIMENT_NAME": "third"}
    running = tiny.nursery.start(tiny.folder, "tiny.py", **environment, MLFLOW_HTTP_REQUEST_TIMEOUT="2")
    wait_until(lambda: "waiting" in running.output() or not running.alive())
    server.running.send(signal.SIGSTOP)
    (tiny.folder / "go").touch()
    done = running.wait()
    server.running.send(signal.SIGCONT)
    assert done.code == 0, done.stderr
    assert "the tracking server is away" in done.stderr
    assert tiny.outputs() == whole.outputs()
    (tiny.folder / "input.txt").write_text("4.0")
    assert tiny.run(MLFLOW_TRACKING_URI=server.uri, MLFLOW_EXPERIMENT_NAME="third").code == 0
    runs = client.search_runs([client.get_experiment_by_name("third").experiment_id])
    assert [run.info.status for run in runs] == ["FINISHED", "FINISHED"]
    for run in runs:
        assert [point.step for point in client.get_metric_history(run.info.run_id, "loss/square")] == list(range(12))


def test_no_server_at_the_start(tiny):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound and not listening: the connection is refused
        uri = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        done = tiny.run(MLFLOW_TRACKING_URI=uri)
    assert done.code == 1
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert f"the tracking server {uri} does not answer" in done.stderr
    assert not tiny.outputs()


EIGHT = """
import sys
from tasks.core.tracking import Tracker
tracker = Tracker(f"stage-{sys.argv[1]}", {}, {"number": sys.argv[1]})
for step in range(300):
    tracker.metrics({"loss/a": step, "loss/b": -step}, step)
    if step % 20 == 0:
        tracker.send()
tracker.table([{"row": n} for n in range(20)], "rows")
tracker.finish("FINISHED")
"""


@pytest.mark.parametrize("store", ["sqlite", "server"])
def test_eight_stages_that_log_at_once_lose_nothing(store, server, nursery, database, tmp_path):
    shutil.copy(database, tmp_path / "mlflow.db")
    (tmp_path / "eight.py").write_text(EIGHT)
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}" if store == "sqlite" else server.uri
    environment = {"MLFLOW_TRACKING_URI": uri, "MLFLOW_EXPERIMENT_NAME": "eight"}
    at_work = [nursery.start(tmp_path, f"eight.py {number}", **environment) for number in range(8)]
    for running in at_work:
        done = running.wait()
        assert (done.code, done.stderr) == (0, "")
    client = MlflowClient(tracking_uri=uri)
    runs = client.search_runs([client.get_experiment_by_name("eight").experiment_id])
    assert sorted(run.data.params["number"] for run in runs) == list("01234567")
    for run in runs:
        assert run.info.status == "FINISHED"
        for key, sign in (("loss/a", 1), ("loss/b", -1)):
            points = {point.step: point.value for point in client.get_metric_history(run.info.run_id, key)}
            assert points == {step: sign * step for step in range(300)}
        assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["rows.json"]
