"""A stage that succeeds leaves its outputs, a receipt and one honest MLflow run, and nothing else."""

import json
from pathlib import Path

import pytest

from tasks.core.files import digest, read_json, read_table
from tests.processes import python


@pytest.fixture
def run(whole):
    (run,) = whole.runs()
    return run


def test_outputs_and_receipt(whole, run):
    receipt = read_json(whole.folder / "runs/tiny.json")
    assert receipt["run_id"] == run.info.run_id
    assert receipt["pipeline_run_id"] is None
    assert receipt["metrics"] == {"final_loss": pytest.approx(run.data.metrics["final_loss"], abs=1e-6)}
    assert receipt["outs"] == {out: digest(whole.folder / out) for out in ("models/tiny", "data/line.json", "reports/tiny")}


def test_report_folder(whole):
    report = whole.folder / "reports/tiny"
    history = read_json(report / "history.json")
    assert [row["step"] for row in history] == list(range(12))
    assert history[0].keys() == {"step", "loss/square", "train/a"}
    assert history[-1]["loss/square"] < history[0]["loss/square"]
    assert read_json(report / "metrics.json") == read_json(whole.folder / "runs/tiny.json")["metrics"]
    assert [row["step"] for row in read_table(report / "samples.parquet")] == list(range(12))
    assert read_table(report / "rows.parquet") == [{"x": 1.0}]


def test_nothing_is_left_behind(whole):
    assert not (whole.folder / ".scratch/tiny").exists()
    assert not list(whole.folder.rglob("*.partial"))


def test_no_output_depends_on_when_or_where_it_was_made(whole, tiny):
    assert tiny.run().code == 0
    assert tiny.outputs() == whole.outputs()
    assert len(whole.outputs()) == 7


def test_the_run_in_mlflow(whole, run):
    assert (run.info.status, run.info.run_name) == ("FINISHED", "tiny")
    assert run.data.params == {
        "num_steps": "12", "learning_rate": "0.1", "runtime.seed": "0", "runtime.threads": "1", "runtime.device": "cpu",
    }  # fmt: skip
    assert whole.steps() == whole.steps("train/a") == list(range(12))
    assert run.data.metrics["system/peak_memory_mib"] > 10
    assert run.data.tags["stage"] == "tiny"
    (dataset,) = run.inputs.dataset_inputs
    assert (dataset.dataset.name, dataset.dataset.digest) == ("input.txt", digest(whole.folder / "input.txt"))


def test_artifacts_in_mlflow(whole, run):
    client = whole.client()
    listed = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert listed == {"models", "data", "reports", "samples.json"}
    model = client.download_artifacts(run.info.run_id, "models/tiny/weights.json")
    assert read_json(Path(model)) == read_json(whole.folder / "models/tiny/weights.json")
    table = read_json(Path(client.download_artifacts(run.info.run_id, "samples.json")))
    assert table["columns"] == ["step", "prompt", "completion", "score"]
    assert [row[0] for row in table["data"]] == list(range(12))
    assert json.loads(run.data.tags["mlflow.loggedArtifacts"]) == [{"path": "samples.json", "type": "table"}]


def test_a_policy_is_named_like_its_entry_in_the_matrix(tiny):
    done = tiny.nursery.run(tiny.folder, "tiny.py --seed 3", REALIGN_PIPELINE_RUN_ID="")
    assert done.code == 0, done.stderr
    (run,) = tiny.runs()
    assert run.info.run_name == run.data.tags["stage"] == "policy@tiny-3"
    assert read_json(tiny.folder / "runs/policy@tiny-3.json")["run_id"] == run.info.run_id


def test_the_seed_of_a_policy_changes_what_it_draws(tiny):
    weights = []
    for seed in (3, 4, 3):
        tiny.nursery.run(tiny.folder, f"tiny.py --seed {seed}")
        weights.append((tiny.folder / "models/tiny/weights.json").read_text())
    assert weights[0] == weights[2] != weights[1]


def test_a_stage_inside_a_flow_becomes_a_child_of_its_run(tiny):
    parent = tiny.client().create_run("0").info.run_id
    assert tiny.run(REALIGN_PIPELINE_RUN_ID=parent).code == 0
    (run,) = tiny.runs()
    assert run.data.tags["mlflow.parentRunId"] == parent
    assert read_json(tiny.folder / "runs/tiny.json")["pipeline_run_id"] == parent


def test_importing_a_stage_imports_nothing_heavy(tmp_path):
    """A stage that does nothing must not pay for torch or mlflow; and telemetry is off before anything could send some."""
    done = python(tmp_path, "-c", "import sys, os, tasks.core.stage; print(*sys.modules); print(os.environ['DO_NOT_TRACK'])")
    modules, tracking = done.stdout.splitlines()
    heavy = {"torch", "mlflow", "transformers", "pyarrow", "matplotlib", "prefect", "dvc"}
    assert not heavy & set(modules.split())
    assert tracking == "true"


def test_help_shows_what_the_stage_is_for(tiny):
    done = tiny.nursery.run(tiny.folder, "tiny.py --help")
    assert done.code == 0
    assert "Fits y = ax + b" in done.stdout
