"""What a stage tells MLflow, on a real sqlite database: complete, in its place, and never a reason to stop."""

import json
import re
import socket
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tasks.core import tracking, usage
from tasks.core.errors import InputError
from tasks.core.files import digest, read_json, write_json
from tasks.core.mlflow_client import connect
from tasks.core.recorded_runs import mark, read_text
from tasks.core.tracking import SPOOL, Tracker


@pytest.fixture
def client(tmp_path, monkeypatch, database):
    """A client of the database that trackers in this folder use."""
    (tmp_path / "mlflow.db").write_bytes(database.read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv(tracking.PIPELINE_RUN_ID, raising=False)
    return MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")


def tracker(**options):
    return Tracker(**({"name": "sft", "tags": {"stage": "sft"}, "params": {"learning_rate": 0.1}} | options))


def points(client, run_id, key):
    return [(point.step, point.value) for point in client.get_metric_history(run_id, key)]


def test_params_tags_and_metrics(client):
    open_run = tracker(params={f"key{number}": number for number in range(150)} | {"none": None, "list": [1, 2]})
    for step in range(3):
        open_run.metrics({"loss/nll": 1.0 / (step + 1)}, step)
    open_run.metrics({"accuracy": 0.5})
    open_run.tag("stage.policy@ppo-0", "ran")
    open_run.finish("FINISHED")
    run = client.get_run(open_run.run_id)
    assert run.info.status == "FINISHED"
    assert len(run.data.params) == 152
    assert (run.data.params["none"], run.data.params["list"]) == ("None", "[1, 2]")
    assert points(client, open_run.run_id, "loss/nll") == [(0, 1.0), (1, 0.5), (2, pytest.approx(1 / 3))]
    assert run.data.metrics["accuracy"] == 0.5
    assert run.data.tags["stage.policy.ppo-0"] == "ran"  # MLflow refuses "@" in a key


def test_what_the_stage_uses_is_a_curve(client, monkeypatch):
    short = tracker()
    short.metrics({"loss/nll": 1.0}, 0)
    short.finish("FINISHED")
    assert set(client.get_run(short.run_id).data.metrics) == {"loss/nll"}
    monkeypatch.setattr(usage, "SECONDS_BETWEEN_MEASUREMENTS", 0.0)
    open_run = tracker()
    for step in range(3):
        open_run.metrics({"loss/nll": 1.0}, step)
    open_run.metrics({"accuracy": 0.5})
    open_run.finish("FINISHED")
    measured = {key for key in client.get_run(open_run.run_id).data.metrics if key.startswith("system/")}
    assert measured == {"system/cpu_percent", "system/memory_mib"}
    memory = points(client, open_run.run_id, "system/memory_mib")
    assert [step for step, _ in memory] == [0, 1, 2]
    assert all(1 < value < 1e6 for _, value in memory)


def test_more_points_than_one_batch_may_hold(client):
    open_run = tracker()
    for step in range(1500):
        open_run.metrics({"loss/nll": float(step)}, step)
    open_run.finish("FINISHED")
    assert len(points(client, open_run.run_id, "loss/nll")) == 1500


def test_metrics_are_seen_while_the_run_goes_on(client):
    open_run = tracker()
    open_run.metrics({"loss/nll": 1.0}, 0)
    open_run._sent_at = time.monotonic() - 3
    open_run.metrics({"loss/nll": 0.5}, 1)
    assert len(points(client, open_run.run_id, "loss/nll")) == 2


def test_a_continued_run_leaves_out_what_is_there_already(client):
    first = tracker()
    for step in range(5):
        first.metrics({"loss/nll": float(step)}, step)
    first.finish("KILLED")
    second = tracker(resume=first.run_id)
    assert client.get_run(first.run_id).info.status == "RUNNING"
    for step in range(3, 8):
        second.metrics({"loss/nll": float(step)}, step)
    second.finish("FINISHED")
    assert second.run_id == first.run_id
    assert points(client, first.run_id, "loss/nll") == [(step, float(step)) for step in range(8)]


def test_the_parent_is_the_run_of_the_flow(client, monkeypatch):
    parent = tracker(name="align")
    monkeypatch.setenv(tracking.PIPELINE_RUN_ID, parent.run_id)
    child = tracker()
    assert client.get_run(child.run_id).data.tags["mlflow.parentRunId"] == parent.run_id
    assert child.pipeline_run_id == parent.run_id


def test_small_files_are_uploaded_and_large_ones_are_pointers(client, tmp_path, tmp_path_factory, monkeypatch):
    monkeypatch.setattr(tracking, "UPLOAD_LIMIT", 50)
    write_json(tmp_path / "models/sft/config.json", {"a": 1})
    write_json(tmp_path / "models/big/weights.json", list(range(100)))
    open_run = tracker()
    open_run.file(tmp_path / "models/sft", "models/sft")
    open_run.file(tmp_path / "models/big", "models/big")
    open_run.finish("FINISHED")
    kept = Path(client.download_artifacts(open_run.run_id, "models", str(tmp_path_factory.mktemp("downloaded"))))
    assert read_json(kept / "sft/config.json") == {"a": 1}
    pointer = read_json(kept / "big/big.pointer.json")
    assert pointer["md5"] == digest(tmp_path / "models/big")
    assert pointer["bytes"] == (tmp_path / "models/big/weights.json").stat().st_size
    assert pointer["fetch"].startswith("dvc pull ")


def test_a_table_that_grows_is_listed_once(client):
    """MLflow keeps the list of tables in a tag of at most 8,000 characters; a long run logs its samples hundreds of times."""
    open_run = tracker()
    for step in range(3):
        open_run.table([{"step": step, "text": "ü"}], "samples")
    open_run.table([{"x": 1}], "pairs")
    open_run.finish("FINISHED")
    run = client.get_run(open_run.run_id)
    listed = [entry["path"] for entry in json.loads(run.data.tags["mlflow.loggedArtifacts"])]
    assert sorted(listed) == ["pairs.json", "samples.json"]
    assert run.info.status == "FINISHED"


def test_data_sets_are_shown_by_content(client):
    open_run = tracker()
    open_run.input("data/prepared/prompts.parquet", "d41d8cd98f00b204e9800998ecf8427e")
    open_run.input("data/prepared/prompts.parquet", "d41d8cd98f00b204e9800998ecf8427e")  # a resumed run says it again
    (entry,) = client.get_run(open_run.run_id).inputs.dataset_inputs
    assert (entry.dataset.name, entry.dataset.digest) == ("data/prepared/prompts.parquet", "d41d8cd98f00b204e9800998ecf8427e")


def test_a_model_links_the_run_that_made_it_with_those_that_read_it(client, tmp_path):
    folder = Path("models/policy/ppo-0")
    write_json(folder / "config.json", {"a": 1})
    maker, reader, other = tracker(), tracker(), tracker()
    for _ in range(2):  # a resumed run says it again
        maker.model(folder, digest(folder))
        reader.input("models/policy", digest(Path("models/policy")))
    write_json(folder / "config.json", {"a": 2})
    other.input("models/policy/ppo-0", digest(folder))  # MLflow has never heard of these weights
    [made] = client.get_run(maker.run_id).outputs.model_outputs
    [read] = client.get_run(reader.run_id).inputs.model_inputs
    assert made.model_id == read.model_id
    model = client.get_logged_model(made.model_id)
    assert (model.name, model.status) == ("policy-ppo-0", "READY")
    assert model.source_run_id == maker.run_id
    [config] = (tmp_path / "mlartifacts/models").rglob("config.json")
    assert read_json(config) == {"a": 1}
    for run in (reader, other):
        assert client.get_run(run.run_id).inputs.dataset_inputs == []
    assert not client.get_run(other.run_id).inputs.model_inputs


def test_a_large_model_says_where_its_weights_are(client, tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "UPLOAD_LIMIT", 5)
    write_json(tmp_path / "models/sft/config.json", {"a": 1})
    maker = tracker()
    maker.model(Path("models/sft"), digest(Path("models/sft")))
    [made] = client.get_run(maker.run_id).outputs.model_outputs
    assert client.get_logged_model(made.model_id).tags["fetch"] == "dvc pull models/sft"
    assert not list((tmp_path / "mlartifacts").rglob("config.json"))


@pytest.mark.parametrize("refused", [
    lambda run: run.metrics({"success.what?": 1.0}),
    lambda run: run.tag("key", "x" * 10_000),
], ids=["metric-name", "tag-length"])  # fmt: skip
def test_what_mlflow_refuses_for_good_stops_neither_this_run_nor_the_next(client, refused):
    """It cannot be sent later either: kept in the spool, it would refuse every stage that comes after."""
    unlucky = tracker()
    refused(unlucky)
    unlucky.metrics({"loss/nll": 1.0}, 0)
    unlucky.finish("FINISHED")
    following = tracker(name="evaluate")
    following.metrics({"loss/nll": 2.0}, 0)
    following.finish("FINISHED")
    assert client.get_run(following.run_id).info.status == "FINISHED"
    assert client.get_run(unlucky.run_id).info.status == "FINISHED"
    assert points(client, unlucky.run_id, "loss/nll") == [(0, 1.0)]


def test_what_is_spooled_for_another_server_stops_nothing(client):
    """The server went away for good, and MLFLOW_TRACKING_URI was unset, as the sentence of `connect` advises."""
    SPOOL.mkdir(parents=True)
    spooled = SPOOL / f"{'0' * 32}.jsonl"
    spooled.write_text(json.dumps({"do": "metrics", "points": [["loss/nll", 1.0, 0, 0]]}) + "\n")
    open_run = tracker()
    open_run.metrics({"loss/nll": 1.0}, 0)
    open_run.finish("FINISHED")
    assert client.get_run(open_run.run_id).info.status == "FINISHED"


def test_mark_ends_only_a_run_that_still_claims_to_run(client):
    killed, finished = tracker(), tracker()
    finished.finish("FINISHED")
    for run in (killed, finished):
        mark(run.run_id, "KILLED")
    assert client.get_run(killed.run_id).info.status == "KILLED"
    assert client.get_run(finished.run_id).info.status == "FINISHED"


@pytest.mark.parametrize(
    ("uri", "sentence"),
    [
        ("http://127.0.0.1:9", "the tracking server http://127.0.0.1:9 does not answer"),
        ("nonsense://x", "the tracking server nonsense://x does not answer"),
        ("sqlite:////proc/none/mlflow.db", "/proc/none/mlflow.db cannot be used as MLflow's database"),
    ],
)
def test_an_unreachable_server_is_refused(client, monkeypatch, uri, sentence):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(InputError, match=re.escape(sentence)) as error:
        connect()
    assert len(str(error.value).splitlines()) == 1


def test_a_server_that_takes_connections_and_says_nothing_is_refused(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        with pytest.raises(InputError, match=f"the tracking server {uri} does not answer") as error:
            connect()
    assert len(str(error.value).splitlines()) == 1


def test_a_server_that_hangs_is_left_alone_ten_times_as_long_as_it_cost(client, monkeypatch):
    clock, attempts = [1000.0], []

    def hang(client, run_id, operation):
        attempts.append(clock[0])
        clock[0] += 40.0
        raise TimeoutError("read timed out")

    open_run = tracker()
    monkeypatch.setattr(tracking.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(tracking, "_attempt", hang)
    open_run._offline_until = open_run._sent_at = 0.0
    for step in range(400):
        open_run.metrics({"loss/nll": float(step)}, step)
        clock[0] += 5.0
    monkeypatch.undo()
    assert len(attempts) > 2
    assert 40.0 * (len(attempts) - 1) < (attempts[-1] - attempts[0]) / 10


def test_stages_that_start_together_make_the_database_once(nursery, tmp_path):
    (tmp_path / "open.py").write_text("from tasks.core.tracking import Tracker\nTracker('sft', {}, {}).finish('FINISHED')\n")
    together = [nursery.start(tmp_path, "open.py") for _ in range(3)]
    assert [running.wait().code for running in together] == [0, 0, 0]
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("realign")
    assert len(client.search_runs([experiment.experiment_id])) == 3


@pytest.mark.parametrize("copy", [".dvc/tmp/exps/tmp1", ".scratch/compare/variant"])
def test_a_copy_that_lives_for_a_while_records_in_the_project(client, tmp_path, monkeypatch, copy):
    """Queued experiments run in such a folder, and it is deleted with all that it holds."""
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / copy).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / copy)
    open_run = tracker()
    open_run.text("kept", "note.txt")
    open_run.finish("FINISHED")
    assert client.get_run(open_run.run_id).info.status == "FINISHED"
    assert (tmp_path / "mlartifacts" / open_run.run_id / "artifacts/note.txt").read_text() == "kept"
    assert not list((tmp_path / copy).iterdir())


def test_a_copied_project_keeps_to_its_own_artifacts(client, tmp_path, monkeypatch):
    (tmp_path / "dvc.yaml").touch()
    earlier = tracker()
    earlier.text("kept", "note.txt")
    earlier.finish("FINISHED")
    client.create_experiment("of a server", f"{(tmp_path / 'mlartifacts').as_uri()}/7")
    copied = tmp_path / "elsewhere, it's here"
    copied.mkdir()
    for name in ("mlflow.db", "mlartifacts"):
        (tmp_path / name).rename(copied / name)
    monkeypatch.chdir(copied)
    later = tracker()
    later.text("new", "note.txt")
    later.finish("FINISHED")
    assert read_text(earlier.run_id, "note.txt") == "kept"
    assert read_text(later.run_id, "note.txt") == "new"
    assert (copied / "mlartifacts" / later.run_id / "artifacts/note.txt").exists()
    assert not (tmp_path / "mlartifacts").exists()
    of_server = MlflowClient(tracking_uri=f"sqlite:///{copied}/mlflow.db").get_experiment_by_name("of a server")
    assert of_server.artifact_location == f"{(copied / 'mlartifacts').as_uri()}/7"


def test_a_damaged_database_is_named_with_the_way_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "mlflow.db").write_text("no database at all" * 100)
    with pytest.raises(InputError, match=r"mlflow.db cannot be used as MLflow's database .*move it away"):
        connect()
